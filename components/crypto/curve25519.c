// SPDX-License-Identifier: Apache-2.0
/* Curve25519 on any processor: OpenSSL's X25519, Elligator 2 by GMP. */
#include "components/crypto/curve25519.h"

#include <gmp.h>
#include <openssl/evp.h>
#include <string.h>

#include "components/crypto/util.h"
#include "lib/base.h"

#define J_25519 486662
#define BATCH	64 /* numbers that share one inversion */

const struct curve25519 *curve25519_best(void)
{
	const struct curve25519 *c = curve25519_ifma();

	return c ? c : &curve25519_portable;
}

static bool portable_mul(const uint8_t scalar[CURVE_POINT], const uint8_t *in,
			 size_t n, uint8_t *out)
{
	EVP_PKEY *k = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL,
						   scalar, CURVE_POINT);
	EVP_PKEY_CTX *c = k ? EVP_PKEY_CTX_new(k, NULL) : NULL;
	bool good = true;

	if (!c || EVP_PKEY_derive_init(c) <= 0)
		abort(); /* only for lack of memory */
	for (size_t i = 0; i < n; i++) {
		uint8_t *to = out + i * CURVE_POINT;
		size_t len = CURVE_POINT;
		EVP_PKEY *peer = EVP_PKEY_new_raw_public_key(
		    EVP_PKEY_X25519, NULL, in + i * CURVE_POINT, CURVE_POINT);

		if (!peer)
			abort();
		/* Without the validation of set_peer, which costs another
		 * multiplication; derive refuses a result of zero. */
		if (EVP_PKEY_derive_set_peer_ex(c, peer, 0) <= 0 ||
		    EVP_PKEY_derive(c, to, &len) <= 0) {
			memset(to, 0, CURVE_POINT);
			good = false;
		}
		EVP_PKEY_free(peer);
	}
	EVP_PKEY_CTX_free(c);
	EVP_PKEY_free(k);
	return good;
}

struct fraction {
	mpz_t x, d, before; /* before: product of the earlier d */
};

/* The fraction x / d of curve25519_ifma.c's map_group(). */
static void map_one(struct fraction *f, const uint8_t *wide, const mpz_t p)
{
	mpz_t g, t;

	mpz_inits(g, t, NULL);
	mpz_import(t, CURVE_WIDE, 1, 1, 0, 0, wide);
	mpz_mul(t, t, t);
	mpz_mul_ui(t, t, 2);
	mpz_add_ui(t, t, 1);
	mpz_mod(f->d, t, p);
	/* -J d (J^2 (1 - d) + d^2) */
	mpz_ui_sub(t, 1, f->d);
	mpz_mul_ui(g, t, (unsigned long)J_25519 * J_25519);
	mpz_addmul(g, f->d, f->d);
	mpz_mod(g, g, p);
	mpz_mul(g, g, f->d);
	mpz_mul_si(g, g, -J_25519);
	mpz_mod(g, g, p);
	if (mpz_legendre(g, p) < 0)
		mpz_mul_ui(f->x, t, J_25519);
	else
		mpz_set_si(f->x, -J_25519);
	mpz_clears(g, t, NULL);
}

static void map_batch(struct fraction *f, const uint8_t *wide, size_t n,
		      const mpz_t p, uint8_t *out)
{
	mpz_t inverse, t;

	mpz_inits(inverse, t, NULL);
	mpz_set_ui(t, 1);
	for (size_t i = 0; i < n; i++) {
		map_one(&f[i], wide + i * CURVE_WIDE, p);
		mpz_set(f[i].before, t);
		mpz_mul(t, t, f[i].d);
		mpz_mod(t, t, p);
	}
	(void)mpz_invert(inverse, t, p);
	for (size_t i = n; i-- > 0;) {
		uint8_t *to = out + i * CURVE_POINT;

		mpz_mul(t, inverse, f[i].before);
		mpz_mod(t, t, p);
		mpz_mul(t, t, f[i].x);
		mpz_mod(t, t, p);
		memset(to, 0, CURVE_POINT);
		mpz_export(to, NULL, -1, 1, 0, 0, t);
		mpz_mul(inverse, inverse, f[i].d);
		mpz_mod(inverse, inverse, p);
	}
	mpz_clears(inverse, t, NULL);
}

static void portable_map(const uint8_t *wide, size_t n, uint8_t *out)
{
	_cleanup_free_ struct fraction *f = xcalloc(BATCH, sizeof(*f));
	mpz_t p;

	mpz_init(p);
	mpz_ui_pow_ui(p, 2, 255);
	mpz_sub_ui(p, p, 19);
	for (size_t i = 0; i < BATCH; i++)
		mpz_inits(f[i].x, f[i].d, f[i].before, NULL);
	for (size_t at = 0; at < n; at += BATCH)
		map_batch(f, wide + at * CURVE_WIDE, MIN(n - at, (size_t)BATCH),
			  p, out + at * CURVE_POINT);
	for (size_t i = 0; i < BATCH; i++)
		mpz_clears(f[i].x, f[i].d, f[i].before, NULL);
	mpz_clear(p);
}

const struct curve25519 curve25519_portable = { "portable", portable_mul,
						portable_map };
