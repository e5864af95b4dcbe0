/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the crypto modules share: randomness, wiping, threads, numbers on
 * the wire.
 */
#ifndef COMPONENTS_CRYPTO_UTIL_H
#define COMPONENTS_CRYPTO_UTIL_H

#include <gmp.h>
#include <openssl/types.h>

#include "lib/err.h"

/* From the kernel; ends the program when there is none to be had. */
void crypto_random(void *p, size_t n);
/* Uniform in [0, below) resp. of at most `bits` bits. */
void crypto_random_below(mpz_t ret, const mpz_t below);
void crypto_random_bits(mpz_t ret, unsigned bits);
/* Two primes, 3 mod 4, with their two top bits set (so that the product has
 * full length): side by side on two threads. May be equal. */
void crypto_random_primes(mpz_t p, unsigned p_bits, mpz_t q, unsigned q_bits);
/* Overwrites the limbs, then clears. */
void crypto_wipe(mpz_t z);
/* GMP zeroes what it frees from here on; called by everything with keys. */
void crypto_wipe_freed(void);

/* fn(arg, lo, hi) over [0, n) in `threads` contiguous shares, in parallel. */
void crypto_split(unsigned threads, size_t n,
		  void (*fn)(void *arg, size_t lo, size_t hi), void *arg);

/* Fixed width, big endian. */
void limbs_export(const mp_limb_t *v, mp_size_t k, uint8_t *out, size_t width);
void limbs_import(mp_limb_t *v, mp_size_t k, const uint8_t *in, size_t width);

/* Fetched once: OpenSSL's implicit fetch costs more than hashing an id. */
const EVP_MD *crypto_sha256(void);
const EVP_MD *crypto_sha512(void);
const EVP_MD *crypto_shake256(void);

#endif
