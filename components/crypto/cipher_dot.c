// SPDX-License-Identifier: Apache-2.0
/*
 * Inner products with packed vectors. With z = 2^bits a plaintext holds
 * d_0 + d_1 z + ... + d_(per-1) z^(per-1); raised to the scalars the other way
 * round, x_0 z^(per-1) + ... + x_(per-1), it becomes the product of the two
 * polynomials, whose coefficient of z^(per-1) is the inner product (for
 * lattices: Yasuda, Shimoyama, Kogure, Yokoyama, Koshiba 2013). One encryption
 * and one table of powers serve `per` rows.
 *
 * The other 2 per - 2 coefficients are sums of products of unlike rows, which
 * nobody should see. cipher_dot_end adds to what lies above a uniform number
 * that is MARGIN bits longer, which leaves it within 2^-MARGIN of independent
 * of it. To what lies below, L, it adds a uniform number of as many bits as
 * there are, B: modulo 2^B the sum says nothing of L; with a probability of |L|
 * / 2^B it carries one into the product's last place, or takes one. The bits
 * are those that the largest allowed numbers need, so for features and
 * residuals of ordinary size that is once in 2^40 or more products.
 */
#include <string.h>

#include "components/crypto/paillier_priv.h"

#define MARGIN 40

unsigned paillier_dot_most(const struct paillier_public *k, unsigned bits)
{
	/* What is decrypted is below 2^((2 per - 1) bits + MARGIN + 2). */
	const unsigned room = k->scheme == SCHEME_OU
				  ? (unsigned)mpz_sizeinbase(k->limit, 2) - 1
				  : paillier_bits(k) - 3;

	if (bits < 2 || room < bits)
		return 0;
	return room < bits + MARGIN + 2 ? 1
					: ((room - MARGIN - 2) / bits + 1) / 2;
}

static int dot_check(const struct paillier_public *k, const struct packing *p,
		     struct err *e)
{
	unsigned most = paillier_dot_most(k, p->bits);

	if (p->per >= 1 && p->per <= most)
		return 0;
	return err_set(e, EINVAL, "%u rows of %u bits in a plaintext: 1 to %u",
		       p->per, p->bits, most);
}

struct shift_job {
	const struct cipher_vec *parts; /* per * cols */
	struct cipher_vec *out;		/* cols */
	const struct packing *p;
	mpz_t z;
};

/* Horner's rule over the rows of a plaintext, the first one on top. */
static void shift_share(void *arg, size_t lo, size_t hi)
{
	struct shift_job *j = arg;
	const struct ring *g = j->out->key->n2;
	const size_t cols = j->out->n, n = hi - lo;
	uint64_t *acc = cipher_at(j->out, lo);

	if (n == 0)
		return;
	for (size_t row = 0; row < j->p->per; row++) {
		if (row > 0)
			ring_pow_public(g, acc, acc, n, j->z);
		ring_mul(g, acc, acc, cipher_at(j->parts, row * cols + lo), 1,
			 n);
	}
}

/* As many columns for each thread as fill groups. */
static void shift_groups(void *arg, size_t lo, size_t hi)
{
	struct shift_job *j = arg;
	const size_t lanes = j->out->key->n2->lanes;

	shift_share(arg, MIN(lo * lanes, j->out->n),
		    MIN(hi * lanes, j->out->n));
}

int cipher_dot(const struct cipher_vec *d, const struct packing *p,
	       const double *x, size_t rows, size_t cols, unsigned xscale,
	       unsigned threads, struct cipher_vec **ret, struct err *e)
{
	const size_t n = packed_len(p, rows), lanes = d->key->n2->lanes;
	_cleanup_free_ double *full = NULL;
	struct shift_job j = { .p = p };
	struct cipher_vec *parts;
	int r = dot_check(d->key, p, e);

	if (r < 0)
		return r;
	if (d->n != n)
		return err_set(e, EINVAL, "%zu ciphertexts for %zu rows", d->n,
			       rows);
	/* A plaintext's rows stand one behind the other: columns of theirs. */
	if (rows % p->per) {
		full = xcalloc(n * p->per * cols, sizeof(*full));
		memcpy(full, x, rows * cols * sizeof(*full));
		x = full;
	}
	r = cipher_matvec(d, x, n, p->per * cols, xscale, threads, &parts, e);
	if (full)
		explicit_bzero(full, n * p->per * cols * sizeof(*full));
	if (r < 0 || p->per == 1) {
		*ret = r < 0 ? NULL : parts;
		return r;
	}
	j.parts = parts;
	j.out = cipher_vec_new(d->key, cols, parts->scale);
	mpz_init(j.z);
	mpz_setbit(j.z, p->bits);
	crypto_split(threads, (cols + lanes - 1) / lanes, shift_groups, &j);
	mpz_clear(j.z);
	cipher_vec_free(parts);
	*ret = j.out;
	return 0;
}

/* m += 2^at r, r uniform of `bits` bits. */
static void add_random(mpz_t m, unsigned at, unsigned bits)
{
	mpz_t t;

	mpz_init(t);
	crypto_random_bits(t, bits);
	mpz_mul_2exp(t, t, at);
	mpz_add(m, m, t);
	crypto_wipe(t);
}

int cipher_dot_end(struct cipher_vec *a, const struct packing *p,
		   const double *plain, unsigned threads, struct err *e)
{
	const unsigned low = p->bits * (p->per - 1);
	const size_t nl = mpz_size(a->key->n);
	int r = dot_check(a->key, p, e);
	mpz_t m, positive;
	uint64_t *v;

	if (r < 0)
		return r;
	v = ring_alloc(nl * a->n);
	mpz_inits(m, positive, NULL);
	mpz_setbit(positive, 2 * low + p->bits); /* whatever lies above is */
	for (size_t i = 0; i < a->n && r >= 0; i++) {
		r = paillier_encode(a->key, m, plain[i], a->scale);
		if (r >= 0 && mpz_sizeinbase(m, 2) >= p->bits)
			r = -ERANGE;
		if (r < 0)
			(void)err_set(e, ERANGE, "element %zu is too large", i);
		mpz_mul_2exp(m, m, low);
		if (low > 0) {
			add_random(m, 0, low);
			add_random(m, low + p->bits, low + MARGIN);
			mpz_add(m, m, positive);
		}
		paillier_limbs(a->key, v + i * nl, m);
	}
	crypto_wipe(m);
	mpz_clear(positive);
	if (r >= 0) {
		paillier_add_plain(a->key, a->c, v, a->n);
		r = cipher_rerandomise(a, threads, e);
	}
	ring_wipe(v, nl * a->n);
	return r;
}

double dot_decode(const struct packing *p, mpz_t m, unsigned scale)
{
	const unsigned low = p->bits * (p->per - 1);
	double d;
	mpz_t half;

	mpz_init(half);
	mpz_setbit(half, p->bits - 1);
	mpz_fdiv_q_2exp(m, m, low);
	mpz_add(m, m, half);
	mpz_fdiv_r_2exp(m, m, p->bits);
	mpz_sub(m, m, half);
	d = paillier_decode(m, scale);
	mpz_clear(half);
	return d;
}
