/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Curve25519 over batches of points: X25519 (RFC 7748) with one scalar, and
 * the map of Elligator 2 (RFC 9380, 6.7.1) onto u-coordinates.  Every
 * implementation gives the same bytes; both functions take the same time for
 * every scalar, point and number.
 */
#ifndef COMPONENTS_CRYPTO_CURVE25519_H
#define COMPONENTS_CRYPTO_CURVE25519_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CURVE_POINT 32 /* bytes of a u-coordinate or scalar, little endian */
#define CURVE_WIDE  48 /* bytes that are reduced to one field element */

struct curve25519 {
	const char *name; /* "ifma", "portable" */
	/* out[i] = scalar * in[i], the scalar clamped; out may be in.  False
	 * when a result is zero, as it is for points of small order. */
	bool (*mul)(const uint8_t scalar[CURVE_POINT], const uint8_t *in,
		    size_t n, uint8_t *out);
	/* out[i] = the u-coordinate that the big-endian number wide[i] maps
	 * to. */
	void (*map)(const uint8_t *wide, size_t n, uint8_t *out);
};

/* OpenSSL's X25519, the map by GMP (whose time depends on the number). */
extern const struct curve25519 curve25519_portable;
/* Eight lanes of AVX-512 IFMA, or NULL where the processor has none. */
const struct curve25519 *curve25519_ifma(void);
/* The faster one of this processor. */
const struct curve25519 *curve25519_best(void);

#endif
