/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batches of numbers under one modulus: products, powers, inverses.
 *
 * A number is modexp_limbs() 64-bit limbs, least significant first, below the
 * modulus unless said otherwise; n numbers stand one behind the other
 * (limbs_import() and limbs_export() of util.h make them from bytes). Results
 * may be written over an operand. Batches of eight and more are what a vector
 * path is fast at; any n is right.
 *
 *	modexp_new(m, MODEXP_SECRET, &x, e);
 *	modexp_reduce(x, a, wide, wide_limbs, n);
 *	modexp_pow(x, a, a, n, d, bits);
 *	modexp_free(x);
 *
 * A struct modexp does not change after modexp_new: threads may share it.
 * Functions work on the calling thread; crypto_split() of util.h shares out.
 *
 * Constant time (neither branch nor address depends on the numbers, on a
 * secret modulus or exponent): modexp_reduce, modexp_mul, modexp_sub,
 * modexp_pow. The others say what they reveal.
 */
#ifndef COMPONENTS_CRYPTO_MODEXP_H
#define COMPONENTS_CRYPTO_MODEXP_H

#include <gmp.h>

#include "lib/err.h"

/* Bits of a modulus. */
#define MODEXP_MIN 64
#define MODEXP_MAX 8192

enum modexp_flags {
	MODEXP_SECRET = 1,   /* the modulus is one: wiped when freed */
	MODEXP_PORTABLE = 2, /* not the vector path, for tests and figures */
};

struct modexp;

/* -EINVAL: m is even or of a size that is not served. */
int modexp_new(const mpz_t m, unsigned flags, struct modexp **ret,
	       struct err *e) MUST_CHECK;
void modexp_free(struct modexp *x);
size_t modexp_limbs(const struct modexp *x);
/* Whether batches run eight at a time on vectors, for callers who have
 * something faster than the portable path at hand. */
bool modexp_vector(const struct modexp *x);

/* r_i = a_i mod m, a_i of at most three times as many limbs. */
void modexp_reduce(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		   size_t limbs, size_t n);
/* r_i = a_i b_i mod m; with b_step 0 all by the same b, else 1. */
void modexp_mul(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		const mp_limb_t *b, size_t b_step, size_t n);
/* r_i = a_i - b_i mod m. */
void modexp_sub(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		const mp_limb_t *b, size_t n);
/* r_i = a_i^e mod m for 0 <= e < 2^bits: the same steps for all such e. */
void modexp_pow(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		size_t n, const mpz_t e, unsigned bits);
/* The same for an exponent that is no secret: its bits decide the steps. */
void modexp_pow_public(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		       size_t n, const mpz_t e);
/*
 * r_i = a_i^-1 mod m, by one inversion for all and three products for each
 * (Montgomery 1987). -EINVAL when one is not invertible; r is then undefined.
 * Reveals, to who measures time, the product of all: multiply one a_i, or
 * add one element, by a random number when that matters.
 */
int modexp_invert(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		  size_t n) MUST_CHECK;

#endif
