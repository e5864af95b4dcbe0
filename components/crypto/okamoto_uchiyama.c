// SPDX-License-Identifier: Apache-2.0
/*
 * What Okamoto and Uchiyama's scheme does apart from Paillier's: powers of g
 * (paillier.h has the rest, and the reason of the bound).
 *
 * Signed exponents m of l limbs get an offset, m + 2^(64 l - 1): in two's
 * complement the top bit turned. The power of g by minus that is what a
 * product starts with; there is one for each l.
 */
#include "components/crypto/paillier_priv.h"

#define MARGIN                                                        \
	128 /* bits by which accepted numbers are below p, and a sign \
	     */

static unsigned plain_bits(unsigned bits)
{
	return bits / 3 - MARGIN;
}

void ou_limit(mpz_t limit, unsigned bits)
{
	mpz_set_ui(limit, 0);
	mpz_setbit(limit, plain_bits(bits) - 1);
}

static size_t limbs_max(const struct paillier_public *k)
{
	return (plain_bits(paillier_bits(k)) + 63) / 64;
}

static void make_tables(struct paillier_public *k)
{
	const struct ring *g = k->n2;
	const size_t group = ring_group(g), max = limbs_max(k);
	mpz_t t, e;

	mpz_inits(t, e, NULL);
	k->offset = ring_alloc(max * group);
	if (!mpz_invert(t, k->g, k->n))
		abort(); /* keys are checked before */
	mpz_setbit(e, 63);
	for (size_t l = 0; l < max; l++) {
		mpz_powm(t, t, e, k->n);
		paillier_constant(g, k->offset + l * group, t);
		mpz_set_ui(e, 0);
		mpz_setbit(e, 64);
	}
	mpz_clears(t, e, NULL);
	fixed_base_make(&k->fg, g, k->g, (unsigned)(64 * max), 1);
}

/* Limbs that all n numbers (of `limbs`, two's complement) fit in. */
static size_t limbs_used(const mp_limb_t *m, size_t limbs, size_t n)
{
	for (size_t l = limbs - 1; l > 0; l--) {
		mp_limb_t differs = 0;

		for (size_t i = 0; i < n; i++) {
			const mp_limb_t *v = m + i * limbs + l;

			differs |= v[0] ^ -(v[-1] >> 63);
		}
		if (differs)
			return l + 1;
	}
	return 1;
}

void ou_add_plain(const struct paillier_public *k, uint64_t *r,
		  const mp_limb_t *m, size_t n)
{
	struct paillier_public *w = (struct paillier_public *)k;
	const struct ring *g = k->n2;
	const size_t nl = mpz_size(k->n), limbs = limbs_used(m, nl, n);
	const size_t all = n * (limbs + g->k);
	uint64_t *x, *e;

	if (limbs > limbs_max(k))
		abort(); /* callers check the limit */
	(void)pthread_mutex_lock(&w->lock);
	if (!w->fg.t)
		make_tables(w);
	(void)pthread_mutex_unlock(&w->lock);
	x = ring_alloc(all);
	e = x + n * g->k;
	for (size_t i = 0; i < n; i++) {
		mpn_copyi(e + i * limbs, m + i * nl, (mp_size_t)limbs);
		e[(i + 1) * limbs - 1] ^= UINT64_C(1) << 63;
	}
	fixed_base_pow(&k->fg, g, x, k->offset + (limbs - 1) * ring_group(g), e,
		       limbs, NULL, n);
	ring_mul(g, r, r, x, 1, n);
	ring_wipe(x, all);
}

void ou_public_clear(struct paillier_public *k)
{
	fixed_base_free(&k->fg, k->n2);
	free(k->offset);
	k->offset = NULL;
}
