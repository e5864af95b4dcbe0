// SPDX-License-Identifier: Apache-2.0
#include "components/math/sampling.h"

#include <math.h>
#include <openssl/evp.h>

/* ---- numbers ----------------------------------------------------------- */

void draw_seed(struct draw *d, uint32_t seed)
{
	*d = (struct draw){ 0 };
	mt_seed(&d->mt, seed);
}

void draw_key(struct draw *d, const uint8_t key[32], uint32_t stage)
{
	*d = (struct draw){ .keyed = true, .stage = stage };
	memcpy(d->key, key, sizeof(d->key));
}

static void refill(struct draw *d)
{
	uint8_t in[44], out[32];
	unsigned n = 0;

	memcpy(in, d->key, 32);
	for (size_t i = 0; i < 4; i++)
		in[32 + i] = (uint8_t)(d->stage >> (8 * i));
	for (size_t i = 0; i < 8; i++)
		in[36 + i] = (uint8_t)(d->block >> (8 * i));
	d->block++;
	if (EVP_Digest(in, sizeof(in), out, &n, EVP_sha256(), NULL) != 1)
		abort(); /* nothing else would be random */
	for (size_t i = 0; i < 8; i++)
		d->words[i] = (uint32_t)out[4 * i] |
			      (uint32_t)out[4 * i + 1] << 8 |
			      (uint32_t)out[4 * i + 2] << 16 |
			      (uint32_t)out[4 * i + 3] << 24;
	d->left = 8;
}

static uint32_t next(struct draw *d)
{
	if (!d->keyed)
		return mt_next(&d->mt);
	if (d->left == 0)
		refill(d);
	return d->words[8 - d->left--];
}

/* As numpy: draw as many bits as max has until they are not above it. */
uint32_t draw_upto(struct draw *d, uint32_t max)
{
	uint32_t mask = max, v;

	if (max == 0)
		return 0;
	for (unsigned shift = 1; shift < 32; shift *= 2)
		mask |= mask >> shift;
	do
		v = next(d) & mask;
	while (v > max);
	return v;
}

void draw_shuffle(struct draw *d, uint32_t *v, size_t n)
{
	for (size_t i = n; i-- > 1;) {
		uint32_t k = draw_upto(d, (uint32_t)i), x = v[i];

		v[i] = v[k];
		v[k] = x;
	}
}

static uint32_t *permutation(struct draw *d, size_t n)
{
	uint32_t *v = xcalloc(n + 1, sizeof(*v));

	for (size_t i = 0; i < n; i++)
		v[i] = (uint32_t)i;
	draw_shuffle(d, v, n);
	return v;
}

/* ---- train_test_split -------------------------------------------------- */

static int descending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x < y) - (x > y);
}

/* Adds one to `add` of the classes whose remainder is this one. */
static size_t add_to(struct draw *d, const double *remainder, double value,
		     size_t n, size_t add, size_t *ret)
{
	_cleanup_free_ uint32_t *at = xcalloc(n + 1, sizeof(*at));
	_cleanup_free_ uint32_t *chosen = NULL;
	size_t m = 0;

	for (size_t i = 0; i < n; i++)
		if (remainder[i] == value)
			at[m++] = (uint32_t)i;
	chosen = permutation(d, m);
	for (size_t i = 0; i < m && i < add; i++)
		ret[at[chosen[i]]]++;
	return MIN(m, add);
}

/* scikit-learn's _approximate_mode: the most likely counts of the classes
 * among `draws` rows of a population with these counts. */
static void likely_counts(struct draw *d, const size_t *count, size_t n,
			  size_t draws, size_t *ret)
{
	_cleanup_free_ double *remainder = xcalloc(n + 1, sizeof(double));
	_cleanup_free_ double *sorted = xcalloc(n + 1, sizeof(double));
	size_t sum = 0, have = 0;

	for (size_t i = 0; i < n; i++)
		sum += count[i];
	for (size_t i = 0; i < n; i++) {
		double x =
		    sum ? (double)count[i] / (double)sum * (double)draws : 0;

		ret[i] = (size_t)floor(x);
		have += ret[i];
		sorted[i] = remainder[i] = x - floor(x);
	}
	qsort(sorted, n, sizeof(*sorted), descending);
	for (size_t i = 0; i < n && have < draws; i++)
		if (i == 0 || sorted[i] != sorted[i - 1])
			have += add_to(d, remainder, sorted[i], n, draws - have,
				       ret);
}

static void split_plain(struct draw *d, uint32_t *ids, size_t n, size_t first)
{
	_cleanup_free_ uint32_t *p = permutation(d, n);
	_cleanup_free_ uint32_t *old = xcalloc(n + 1, sizeof(*old));

	if (n)
		memcpy(old, ids, n * sizeof(*old));
	for (size_t i = 0; i < first; i++)
		ids[i] = old[p[n - first + i]];
	for (size_t i = first; i < n; i++)
		ids[i] = old[p[i - first]];
}

/* The ids by class, in their order. */
static uint32_t *group(const uint32_t *ids, size_t n, const uint32_t *class,
		       size_t n_classes, size_t *count)
{
	_cleanup_free_ size_t *at = xcalloc(n_classes + 1, sizeof(*at));
	uint32_t *ret = xcalloc(n + 1, sizeof(*ret));

	for (size_t i = 0; i < n; i++)
		count[class[ids[i]]]++;
	for (size_t k = 1; k < n_classes; k++)
		at[k] = at[k - 1] + count[k - 1];
	for (size_t i = 0; i < n; i++)
		ret[at[class[ids[i]]]++] = ids[i];
	return ret;
}

static void split_classes(struct draw *d, uint32_t *ids, size_t n, size_t first,
			  const uint32_t *class, size_t n_classes)
{
	_cleanup_free_ size_t *count = xcalloc(n_classes + 1, sizeof(size_t));
	_cleanup_free_ size_t *front = xcalloc(n_classes + 1, sizeof(size_t));
	_cleanup_free_ size_t *back = xcalloc(n_classes + 1, sizeof(size_t));
	_cleanup_free_ uint32_t *by = group(ids, n, class, n_classes, count);
	size_t a = 0, b = first, at = 0, present = 0;

	for (size_t k = 0; k < n_classes; k++)
		if (count[k])
			count[present++] = count[k];
	n_classes = present;
	likely_counts(d, count, n_classes, first, front);
	for (size_t k = 0; k < n_classes; k++)
		count[k] -= front[k];
	/* All that is left; drawn for, because scikit-learn does. */
	likely_counts(d, count, n_classes, n - first, back);
	for (size_t k = 0; k < n_classes; k++) {
		size_t m = front[k] + count[k];
		_cleanup_free_ uint32_t *p = permutation(d, m);

		for (size_t i = 0; i < m; i++)
			ids[i < front[k] ? a++ : b++] = by[at + p[i]];
		at += m;
	}
	draw_shuffle(d, ids, first);
	draw_shuffle(d, ids + first, n - first);
}

void draw_split(struct draw *d, uint32_t *ids, size_t n, size_t first,
		const uint32_t *class, size_t n_classes)
{
	if (class)
		split_classes(d, ids, n, first, class, n_classes);
	else
		split_plain(d, ids, n, first);
}

/* ---- resample ----------------------------------------------------------- */

void draw_subset(struct draw *d, const uint32_t *ids, size_t n, size_t m,
		 uint32_t *ret)
{
	_cleanup_free_ uint32_t *p = permutation(d, n);

	for (size_t i = 0; i < m; i++)
		ret[i] = ids[p[i]];
}

void draw_again(struct draw *d, const uint32_t *ids, size_t n, size_t m,
		uint32_t *ret)
{
	for (size_t i = 0; i < m; i++)
		ret[i] = ids[draw_upto(d, (uint32_t)(n - 1))];
}
