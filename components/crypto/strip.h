/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Multiplication of limbs for processors with MULX and ADX (Broadwell, Zen
 * and later), eight limbs at a time in registers; GMP's own is for older ones
 * where it does not know the processor.  No branch and no address depends on
 * the numbers.
 */
#ifndef COMPONENTS_CRYPTO_STRIP_H
#define COMPONENTS_CRYPTO_STRIP_H

#include <gmp.h>
#include <stdbool.h>

/* Of numbers: a multiple of this many limbs. */
#define STRIP 8

/* Whether this processor can, for numbers of n limbs. */
bool strip_usable(mp_size_t n);
/* r (2n limbs, apart from a and b) = a * b. */
void strip_mul(mp_limb_t *r, const mp_limb_t *a, const mp_limb_t *b,
	       mp_size_t n);
/* t (2n limbs) += q * m so that its lower half would be 0; the upper half is
 * right, the carry above it returned, the lower half is lost. inv = -1 / m
 * mod 2^64. */
mp_limb_t strip_reduce(mp_limb_t *t, mp_limb_t *q, const mp_limb_t *m,
		       mp_size_t n, mp_limb_t inv);

#endif
