// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "components/crypto/modexp.h"
#include "components/crypto/power.h"

#define BLOCK 128 /* numbers that are records at once */

struct modexp {
	struct ring *g;
	mp_size_t k; /* limbs */
};

int modexp_new(const mpz_t m, unsigned flags, struct modexp **ret,
	       struct err *e)
{
	struct modexp *x;
	size_t bits = mpz_sizeinbase(m, 2);

	if (mpz_sgn(m) <= 0 || mpz_even_p(m) || bits < MODEXP_MIN ||
	    bits > MODEXP_MAX)
		return err_set(e, EINVAL,
			       "modulus of %zu bits: odd, of %d to %d bits",
			       bits, MODEXP_MIN, MODEXP_MAX);
	x = xcalloc(1, sizeof(*x));
	x->k = (mp_size_t)mpz_size(m);
	x->g = ring_new(m, (flags & MODEXP_SECRET ? RING_SECRET : 0) |
			       (flags & MODEXP_PORTABLE ? RING_PORTABLE : 0));
	*ret = x;
	return 0;
}

void modexp_free(struct modexp *x)
{
	if (!x)
		return;
	ring_free(x->g);
	free(x);
}

size_t modexp_limbs(const struct modexp *x)
{
	return (size_t)x->k;
}

bool modexp_vector(const struct modexp *x)
{
	return x->g->lanes > 1;
}

/* Numbers as records, BLOCK at a time. */
static uint64_t *records_new(const struct modexp *x)
{
	return ring_alloc(2 * (size_t)BLOCK * x->g->k);
}

static void records_free(const struct modexp *x, uint64_t *r)
{
	ring_wipe(r, 2 * (size_t)BLOCK * x->g->k);
}

void modexp_reduce(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		   size_t limbs, size_t n)
{
	size_t k = (size_t)x->k;
	uint64_t *u = records_new(x);

	if (limbs > 3 * k)
		abort();
	for (size_t i = 0; i < n; i += BLOCK) {
		size_t m = MIN(n - i, (size_t)BLOCK);

		ring_enter(x->g, u, a + i * limbs, limbs, m);
		ring_leave(x->g, r + i * k, u, m);
	}
	records_free(x, u);
}

void modexp_mul(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		const mp_limb_t *b, size_t b_step, size_t n)
{
	size_t k = (size_t)x->k;
	uint64_t *u = records_new(x), *v = u + (size_t)BLOCK * x->g->k;

	for (size_t i = 0; i < n; i += BLOCK) {
		size_t m = MIN(n - i, (size_t)BLOCK);

		ring_enter(x->g, u, a + i * k, k, m);
		if (b_step || i == 0)
			ring_enter(x->g, v, b + i * b_step * k, k,
				   b_step ? m : 1);
		ring_mul(x->g, u, u, v, b_step, m);
		ring_leave(x->g, r + i * k, u, m);
	}
	records_free(x, u);
}

void modexp_sub(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		const mp_limb_t *b, size_t n)
{
	size_t k = (size_t)x->k;

	for (size_t i = 0; i < n * k; i += k) {
		mp_limb_t less = mpn_sub_n(r + i, a + i, b + i, x->k);

		(void)mpn_cnd_add_n(less, r + i, r + i, mpz_limbs_read(x->g->m),
				    x->k);
	}
}

/* By the limbs of e where it is secret. */
static void raise(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		  size_t n, const mp_limb_t *secret, unsigned bits,
		  mpz_srcptr e)
{
	size_t k = (size_t)x->k;
	uint64_t *u = records_new(x);

	for (size_t i = 0; i < n; i += BLOCK) {
		size_t m = MIN(n - i, (size_t)BLOCK);

		ring_enter(x->g, u, a + i * k, k, m);
		if (secret)
			ring_pow(x->g, u, u, m, secret, bits);
		else
			ring_pow_public(x->g, u, u, m, e);
		ring_leave(x->g, r + i * k, u, m);
	}
	records_free(x, u);
}

void modexp_pow(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		size_t n, const mpz_t e, unsigned bits)
{
	size_t limbs = (bits + 63) / 64;
	uint64_t *exp = ring_alloc(limbs);

	for (size_t i = 0; i < limbs; i++)
		exp[i] = mpz_getlimbn(e, (mp_size_t)i);
	raise(x, r, a, n, exp, bits, e);
	ring_wipe(exp, limbs);
}

void modexp_pow_public(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		       size_t n, const mpz_t e)
{
	raise(x, r, a, n, NULL, 0, e);
}

int modexp_invert(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		  size_t n)
{
	uint64_t *u = ring_alloc(n * x->g->k);
	int rc;

	ring_enter(x->g, u, a, (size_t)x->k, n);
	rc = ring_invert(x->g, u, u, n);
	if (rc == 0)
		ring_leave(x->g, r, u, n);
	ring_wipe(u, n * x->g->k);
	return rc;
}
