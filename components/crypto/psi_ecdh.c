// SPDX-License-Identifier: Apache-2.0
/* Hashing to curve25519 and X25519 over blocks. */
#include <gmp.h>
#include <openssl/evp.h>
#include <string.h>

#include "components/crypto/psi.h"
#include "components/crypto/util.h"

#define DST	"rollfs-intersection-v1-curve25519_XMD:SHA-512_ELL2_NU_"
#define WIDE	48 /* bytes reduced to one field element */
#define J_25519 486662

/* expand_message_xmd (RFC 9380, 5.3.1) with SHA-512 and one block. */
static void expand(const uint8_t *salt, size_t salt_len, const char *id,
		   size_t id_len, const char *dst, uint8_t ret[64])
{
	static const uint8_t zpad[128];
	uint8_t dst_len = (uint8_t)strlen(dst), b0[64];
	const uint8_t len[3] = { 0, WIDE, 0 }, one = 1;
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	bool ok = c && EVP_DigestInit_ex(c, EVP_sha512(), NULL) &&
		  EVP_DigestUpdate(c, zpad, sizeof(zpad)) &&
		  EVP_DigestUpdate(c, salt, salt_len) &&
		  EVP_DigestUpdate(c, id, id_len) &&
		  EVP_DigestUpdate(c, len, sizeof(len)) &&
		  EVP_DigestUpdate(c, dst, dst_len) &&
		  EVP_DigestUpdate(c, &dst_len, 1) &&
		  EVP_DigestFinal_ex(c, b0, NULL) &&
		  EVP_DigestInit_ex(c, EVP_sha512(), NULL) &&
		  EVP_DigestUpdate(c, b0, sizeof(b0)) &&
		  EVP_DigestUpdate(c, &one, 1) &&
		  EVP_DigestUpdate(c, dst, dst_len) &&
		  EVP_DigestUpdate(c, &dst_len, 1) &&
		  EVP_DigestFinal_ex(c, ret, NULL);

	EVP_MD_CTX_free(c);
	if (!ok)
		abort(); /* only for lack of memory */
}

void psi_hash_to_curve(const uint8_t *salt, size_t salt_len, const char *id,
		       size_t id_len, const char *dst, uint8_t ret[PSI_TAG])
{
	uint8_t wide[64];
	mpz_t p, u, x, g;
	size_t n = 0;

	expand(salt, salt_len, id, id_len, dst, wide);
	mpz_inits(p, u, x, g, NULL);
	mpz_ui_pow_ui(p, 2, 255);
	mpz_sub_ui(p, p, 19);
	mpz_import(u, WIDE, 1, 1, 0, 0, wide);
	/* x = -J / (1 + 2 u^2); never a division by 0: -1/2 is no square. */
	mpz_mul(x, u, u);
	mpz_mul_ui(x, x, 2);
	mpz_add_ui(x, x, 1);
	mpz_invert(x, x, p);
	mpz_mul_si(x, x, -J_25519);
	mpz_mod(x, x, p);
	/* g = x^3 + J x^2 + x; if no square, the other x is -x - J. */
	mpz_add_ui(g, x, J_25519);
	mpz_mul(g, g, x);
	mpz_add_ui(g, g, 1);
	mpz_mul(g, g, x);
	mpz_mod(g, g, p);
	if (mpz_legendre(g, p) < 0) {
		mpz_neg(x, x);
		mpz_sub_ui(x, x, J_25519);
		mpz_mod(x, x, p);
	}
	memset(ret, 0, PSI_TAG);
	mpz_export(ret, &n, -1, 1, 0, 0, x);
	mpz_clears(p, u, x, g, NULL);
}

void psi_ecdh_key(uint8_t key[PSI_TAG])
{
	crypto_random(key, PSI_TAG);
}

struct ecdh_job {
	const uint8_t *key, *salt, *in;
	const struct psi_ids *ids; /* NULL: points from in */
	uint8_t *out;
	bool bad;
};

static bool multiply(EVP_PKEY_CTX *c, const uint8_t *point, uint8_t *out)
{
	size_t n = PSI_TAG;
	EVP_PKEY *peer =
	    EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, point, PSI_TAG);
	/* derive refuses the all-zero result of points of small order. */
	bool ok = peer && EVP_PKEY_derive_set_peer(c, peer) > 0 &&
		  EVP_PKEY_derive(c, out, &n) > 0 && n == PSI_TAG;

	EVP_PKEY_free(peer);
	return ok;
}

static void ecdh_share(void *arg, size_t lo, size_t hi)
{
	struct ecdh_job *j = arg;
	EVP_PKEY *k = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL,
						   j->key, PSI_TAG);
	EVP_PKEY_CTX *c = k ? EVP_PKEY_CTX_new(k, NULL) : NULL;
	bool ok = c && EVP_PKEY_derive_init(c) > 0;

	for (size_t i = lo; i < hi && ok; i++) {
		uint8_t point[PSI_TAG];

		if (j->ids) {
			uint32_t from = i ? j->ids->end[i - 1] : 0;

			psi_hash_to_curve(j->salt, PSI_SALT,
					  j->ids->text + from,
					  j->ids->end[i] - from, DST, point);
		} else {
			memcpy(point, j->in + i * PSI_TAG, PSI_TAG);
		}
		ok = multiply(c, point, j->out + i * PSI_TAG);
	}
	EVP_PKEY_CTX_free(c);
	EVP_PKEY_free(k);
	if (!ok)
		__atomic_store_n(&j->bad, true, __ATOMIC_RELAXED);
}

int psi_ecdh_ids(const uint8_t key[PSI_TAG], const uint8_t salt[PSI_SALT],
		 const struct psi_ids *ids, unsigned threads, uint8_t *out,
		 struct err *e)
{
	struct ecdh_job j = {
		.key = key, .salt = salt, .ids = ids, .out = out
	};

	crypto_split(threads, ids->n, ecdh_share, &j);
	return j.bad ? err_set(e, EIO, "X25519 failed") : 0;
}

int psi_ecdh_points(const uint8_t key[PSI_TAG], const uint8_t *in, size_t n,
		    unsigned threads, uint8_t *out, struct err *e)
{
	struct ecdh_job j = { .key = key, .in = in, .out = out };

	crypto_split(threads, n, ecdh_share, &j);
	return j.bad ? err_set(e, EPROTO, "a point of small order") : 0;
}
