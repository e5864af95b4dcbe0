// SPDX-License-Identifier: Apache-2.0
/*
 * Histogram sums.  A group of ring.h has eight lanes and each takes one row
 * into one bin, so no two lanes may meet in a bin: each lane has a strip of
 * its own, one feature over one range of the rows, with bins of its own.
 * There are as many ranges as it takes to fill the lanes of all threads; their
 * bins are multiplied together at the end.
 */
#include <string.h>

#include "components/crypto/paillier_priv.h"

struct histogram {
	const struct cipher_vec *d;
	const uint16_t *bin;
	size_t features, rows, ranges, range; /* rows of a range */
	unsigned bins;
	uint64_t *sum; /* bins records for each strip, a range's together */
};

/* Strips lo .. hi - 1 in groups of lanes. */
static void fill_share(void *arg, size_t lo, size_t hi)
{
	struct histogram *h = arg;
	const struct ring *g = h->d->key->n2;
	const size_t group = ring_group(g), k = g->k;
	const size_t strips = h->features * h->ranges;
	uint64_t *x = ring_alloc(2 * group + k), *y = x + group;
	uint64_t *spare = y + group, *s = ring_alloc(g->scratch);

	for (size_t at = lo * g->lanes; at < hi * g->lanes; at += g->lanes)
		for (size_t t = 0; t < h->range; t++) {
			const uint64_t *row[RING_LANES], *from[RING_LANES];
			uint64_t *to[RING_LANES];
			bool any = false;

			for (size_t l = 0; l < g->lanes; l++) {
				const size_t strip = at + l;
				const size_t f = strip % h->features;
				const size_t i =
				    strip / h->features * h->range + t;
				const bool in =
				    strip < strips && i < h->rows &&
				    h->bin[i * h->features + f] < h->bins;

				any |= in;
				row[l] = in ? cipher_at(h->d, i) : spare;
				from[l] = to[l] =
				    in ? h->sum +
					     (strip * h->bins +
					      h->bin[i * h->features + f]) *
						 k
				       : spare;
			}
			if (!any)
				continue;
			g->op.load(g, x, from);
			g->op.load(g, y, row);
			g->op.mul(g, x, x, y, s);
			g->op.store(g, to, x);
		}
	ring_wipe(s, g->scratch);
	ring_wipe(x, 2 * group + k);
}

int cipher_histogram(const struct cipher_vec *d, const uint16_t *bin,
		     size_t rows, size_t features, unsigned bins,
		     unsigned threads, struct cipher_vec **ret, struct err *e)
{
	const struct ring *g = d->key->n2;
	const size_t lanes = (size_t)g->lanes * MAX(threads, 1u);
	struct histogram h = { .d = d,
			       .bin = bin,
			       .features = features,
			       .rows = rows,
			       .bins = bins };
	struct cipher_vec *sums;
	size_t one;

	if (d->n != rows)
		return err_set(e, EINVAL, "%zu ciphertexts for %zu rows", d->n,
			       rows);
	if (!features || !bins)
		return err_set(e, EINVAL, "a histogram without bins");
	h.ranges =
	    MAX(MIN((lanes + features - 1) / features, rows / bins), (size_t)1);
	h.range = (rows + h.ranges - 1) / h.ranges;
	one = features * bins;
	sums = cipher_vec_new(d->key, one * h.ranges, d->scale);
	h.sum = sums->c;
	crypto_split(threads, (features * h.ranges + g->lanes - 1) / g->lanes,
		     fill_share, &h);
	for (size_t r = 1; r < h.ranges; r++)
		ring_mul(g, sums->c, sums->c, cipher_at(sums, r * one), 1, one);
	sums->n = one;
	*ret = sums;
	return 0;
}

int cipher_sub(struct cipher_vec *a, const struct cipher_vec *b,
	       unsigned threads, struct err *e)
{
	struct cipher_vec *t = cipher_vec_new(b->key, b->n, b->scale);
	int r = ring_invert(b->key->n2, t->c, b->c, b->n);

	r = r < 0 ? err_set(e, EPROTO, "a ciphertext is no unit")
		  : cipher_add(a, t, threads, e);
	cipher_vec_free(t);
	return r;
}
