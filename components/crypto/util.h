/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the crypto modules share: randomness, wiping, threads, and
 * multiplication modulo a fixed number on flat limb arrays.
 */
#ifndef COMPONENTS_CRYPTO_UTIL_H
#define COMPONENTS_CRYPTO_UTIL_H

#include <gmp.h>

#include "lib/err.h"

/* From the kernel; ends the program when there is none to be had. */
void crypto_random(void *p, size_t n);
/* Uniform in [0, below) resp. of at most `bits` bits. */
void crypto_random_below(mpz_t ret, const mpz_t below);
void crypto_random_bits(mpz_t ret, unsigned bits);
/* Overwrites the limbs, then clears. */
void crypto_wipe(mpz_t z);
/* GMP zeroes what it frees from here on; called by everything with keys. */
void crypto_wipe_freed(void);

/* fn(arg, lo, hi) over [0, n) in `threads` contiguous shares, in parallel. */
void crypto_split(unsigned threads, size_t n,
		  void (*fn)(void *arg, size_t lo, size_t hi), void *arg);

/* Numbers of exactly k limbs modulo m (whose top limb is not 0). */
struct modulus {
	mpz_t m;
	mp_size_t k;
};
/* Scratch of mod_mul: one per thread. */
size_t mod_scratch(const struct modulus *m); /* in limbs */
/* r = a * b mod m; r may be a or b. */
void mod_mul(const struct modulus *m, mp_limb_t *r, const mp_limb_t *a,
	     const mp_limb_t *b, mp_limb_t *scratch);
/* Between numbers in [0, m) and k limbs. */
void mod_set(const struct modulus *m, mp_limb_t *r, const mpz_t v);
void mod_get(const struct modulus *m, mpz_t r, const mp_limb_t *v);
void mod_one(const struct modulus *m, mp_limb_t *r);
/* Fixed width, big endian. */
void limbs_export(const mp_limb_t *v, mp_size_t k, uint8_t *out, size_t width);
void limbs_import(mp_limb_t *v, mp_size_t k, const uint8_t *in, size_t width);

#endif
