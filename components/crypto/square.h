/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arithmetic modulo the square of an odd number, which is what Paillier does
 * nearly all of its time.
 *
 * x is kept as two halves, lo + hi * root, both in [0, root), of x R mod
 * root^2 with R = 2^(64 h), h the limbs of root (Montgomery's form). Then
 *   (a + b root)(c + d root) = ac + (ad + bc) root  mod root^2,
 * and as a reduction of ac by Montgomery's way finds ac = R t - q root, the
 * product over R is t + root ((ad + bc - q) / R mod root): three products and
 * two reductions of h limbs instead of one product and a reduction of 2h,
 * which are worth three and four of them.
 */
#ifndef COMPONENTS_CRYPTO_SQUARE_H
#define COMPONENTS_CRYPTO_SQUARE_H

#include <gmp.h>

#include "lib/base.h"

struct modulus {
	mpz_t m, root;	     /* m = root^2 */
	mp_size_t h;	     /* limbs of root */
	mp_size_t k;	     /* of a number in our form: 2 h */
	mp_limb_t inv;	     /* -1 / root mod 2^64 */
	bool secret;	     /* only what takes the same time for all numbers */
	bool strips;	     /* strip.h can be used */
	mp_limb_t *one, *rr; /* R and R^2 */
};

void mod_init(struct modulus *m, const mpz_t root, bool secret);
void mod_clear(struct modulus *m); /* wipes; also right for zeroed memory */

/* Scratch of mod_mul: one per thread. */
size_t mod_scratch(const struct modulus *m); /* in limbs */
/* r = a * b; r may be a or b. */
void mod_mul(const struct modulus *m, mp_limb_t *r, const mp_limb_t *a,
	     const mp_limb_t *b, mp_limb_t *scratch);
/* r = a^e for 0 <= e < 2^bits; with m->secret in the same time for all of
 * them. */
void mod_pow(const struct modulus *m, mp_limb_t *r, const mp_limb_t *a,
	     const mpz_t e, unsigned bits);
/* Between numbers in [0, m) and our form. */
void mod_set(const struct modulus *m, mp_limb_t *r, const mpz_t v);
void mod_get(const struct modulus *m, mpz_t r, const mp_limb_t *v);
void mod_one(const struct modulus *m, mp_limb_t *r);

#endif
