/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Powers, tables and sums of logarithms over the groups of ring.h. Numbers
 * are records, one behind the other; any count, the last group is filled up.
 * Constant time in numbers and exponents but where it says public.
 */
#ifndef COMPONENTS_CRYPTO_POWER_H
#define COMPONENTS_CRYPTO_POWER_H

#include "components/crypto/ring.h"

/* Records out of integers of `limbs` limbs each (below the modulus, or below
 * 2^(52 h) 4), and integers of g->limbs out of records. */
void ring_enter(const struct ring *g, uint64_t *r, const mp_limb_t *v,
		size_t limbs, size_t n);
void ring_leave(const struct ring *g, mp_limb_t *v, const uint64_t *r,
		size_t n);
/* r_i = a_i b_i; b_step 0: all by the same b. */
void ring_mul(const struct ring *g, uint64_t *r, const uint64_t *a,
	      const uint64_t *b, size_t b_step, size_t n);
/* r_i *= 1 + x_i n modulo n^2, x_i below n in as many limbs as n has. */
void ring_add_plain(const struct ring *g, uint64_t *r, const mp_limb_t *x,
		    size_t n);
/* r_i = a_i^e, e < 2^bits in limbs: windows of 4 bits, each table read whole;
 * by the bits of e where it is public (its top one set). */
void ring_pow(const struct ring *g, uint64_t *r, const uint64_t *a, size_t n,
	      const mp_limb_t *e, unsigned bits);
void ring_pow_public(const struct ring *g, uint64_t *r, const uint64_t *a,
		     size_t n, const mpz_t e);
/* r_i = a_i^e_i for e_i < 2^bits of `limbs` limbs each. */
void ring_pow_each(const struct ring *g, uint64_t *r, const uint64_t *a,
		   const mp_limb_t *e, size_t limbs, size_t n, unsigned bits);
/* r_i = 1 / a_i by one public inversion and three products for each
 * (Montgomery 1987); -EINVAL when there is none for one of them. */
int ring_invert(const struct ring *g, uint64_t *r, const uint64_t *a,
		size_t n) MUST_CHECK;

/*
 * Powers of one base (Brauer's windows; de Rooij 1994). Of window i the table
 * holds t = base^(d 2^(w i)) for all digits d; modulo n^2 as c (1 + e n), c
 * and e below n: a product then has four half-size products instead of five,
 * and the e only add up.
 */
struct fixed_base {
	unsigned w, windows;
	uint64_t *t; /* NULL until made */
};
/* For exponents of `bits` bits; base is an integer. */
void fixed_base_make(struct fixed_base *f, const struct ring *g,
		     const mpz_t base, unsigned bits, unsigned threads);
/*
 * r_i = c base^(e_i) (1 + x_i n) for n numbers, c the group `start` divided by
 * R^2 (g->rr: 1): exponents of `limbs` limbs each, x (integers below n, in as
 * many limbs as n has) or NULL. Modulo n c is `start` itself (g->one: 1) and x
 * is NULL. Exponents of fewer bits than the table is for need fewer products.
 */
void fixed_base_pow(const struct fixed_base *f, const struct ring *g,
		    uint64_t *r, const uint64_t *start, const mp_limb_t *e,
		    size_t limbs, const mp_limb_t *x, size_t n);
void fixed_base_free(struct fixed_base *f, const struct ring *g);

#endif
