// SPDX-License-Identifier: Apache-2.0
/*
 * HPKE (RFC 9180) in base mode: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
 * AES-256-GCM.  Names in capitals and quotes are those of the RFC.
 *
 * Everything that touches a secret is OpenSSL's and constant-time there:
 * X25519 (EVP_PKEY_derive), HMAC-SHA256, AES-256-GCM and its comparison of
 * tags; here, nonzero() by CRYPTO_memcmp.  What branches in this file depends
 * on lengths and on success only.  All failures of seal_open look alike.
 */
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <pthread.h>

#include "transfer/secure.h"

#define NONCE 12
#define TAG   SEAL_OVERHEAD

/* "suite_id": of the KEM 0x0020, and of the whole with KDF 1 and AEAD 2. */
static const struct bytes {
	const void *p;
	size_t n;
} kem = { "KEM\x00\x20", 5 }, hpke = { "HPKE\x00\x20\x00\x01\x00\x02", 10 };

/* ---- HKDF-SHA256 (RFC 5869) -------------------------------------------- */

static EVP_MAC *hmac_algorithm;
static pthread_once_t hmac_once = PTHREAD_ONCE_INIT;

static void hmac_fetch(void)
{
	hmac_algorithm = EVP_MAC_fetch(NULL, "HMAC", NULL);
}

static bool hmac(const void *key, size_t n, const struct bytes *parts,
		 size_t n_parts, uint8_t ret[32])
{
	char digest[] = "SHA256";
	OSSL_PARAM params[] = { OSSL_PARAM_utf8_string(OSSL_MAC_PARAM_DIGEST,
						       digest, 6),
				OSSL_PARAM_END };
	EVP_MAC_CTX *ctx;
	size_t got;
	bool ok;

	pthread_once(&hmac_once, hmac_fetch);
	ctx = hmac_algorithm ? EVP_MAC_CTX_new(hmac_algorithm) : NULL;
	ok = ctx && EVP_MAC_init(ctx, key, n, params);
	for (size_t i = 0; ok && i < n_parts; i++)
		ok = !parts[i].n || EVP_MAC_update(ctx, parts[i].p, parts[i].n);
	ok = ok && EVP_MAC_final(ctx, ret, &got, 32) && got == 32;
	EVP_MAC_CTX_free(ctx);
	return ok;
}

static struct bytes text(const char *s)
{
	return (struct bytes){ s, strlen(s) };
}

/* Without a salt the key is 32 zero bytes, as HMAC pads it. */
static bool labeled_extract(const uint8_t *salt, struct bytes suite,
			    const char *label, struct bytes ikm,
			    uint8_t ret[32])
{
	static const uint8_t none[32];
	struct bytes parts[] = { text("HPKE-v1"), suite, text(label), ikm };

	return hmac(salt ? salt : none, 32, parts, ARRAY_SIZE(parts), ret);
}

/* At most 32 bytes: one block. */
static bool labeled_expand(const uint8_t prk[32], struct bytes suite,
			   const char *label, const struct bytes info[2],
			   uint8_t *ret, size_t n)
{
	const uint8_t length[2] = { 0, (uint8_t)n };
	uint8_t block[32];
	struct bytes parts[] = { { length, 2 }, text("HPKE-v1"), suite,
				 text(label),	info[0],	 info[1],
				 { "\x01", 1 } };
	bool ok = hmac(prk, 32, parts, ARRAY_SIZE(parts), block);

	if (ok)
		memcpy(ret, block, n);
	OPENSSL_cleanse(block, sizeof(block));
	return ok;
}

/* ---- X25519 ------------------------------------------------------------ */

static bool nonzero(const uint8_t v[32])
{
	static const uint8_t zero[32];

	return CRYPTO_memcmp(v, zero, 32) != 0;
}

/* All zero comes of a public key of low order: refused (section 7.1.4). */
static bool dh(EVP_PKEY *own, const uint8_t peer[SEAL_KEY], uint8_t ret[32])
{
	EVP_PKEY *other =
	    EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, peer, SEAL_KEY);
	EVP_PKEY_CTX *ctx = own ? EVP_PKEY_CTX_new(own, NULL) : NULL;
	size_t n = 32;
	bool ok = other && ctx && EVP_PKEY_derive_init(ctx) > 0 &&
		  EVP_PKEY_derive_set_peer(ctx, other) > 0 &&
		  EVP_PKEY_derive(ctx, ret, &n) > 0 && n == 32 && nonzero(ret);

	EVP_PKEY_CTX_free(ctx);
	EVP_PKEY_free(other);
	return ok;
}

static EVP_PKEY *new_key(void)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(EVP_PKEY_X25519, NULL);
	EVP_PKEY *key = NULL;

	if (ctx && EVP_PKEY_keygen_init(ctx) > 0 &&
	    EVP_PKEY_keygen(ctx, &key) <= 0)
		key = NULL;
	EVP_PKEY_CTX_free(ctx);
	return key;
}

int seal_keypair(uint8_t priv[SEAL_KEY], uint8_t pub[SEAL_KEY])
{
	EVP_PKEY *key = new_key();
	size_t n = SEAL_KEY, m = SEAL_KEY;
	bool ok = key && EVP_PKEY_get_raw_private_key(key, priv, &n) > 0 &&
		  EVP_PKEY_get_raw_public_key(key, pub, &m) > 0;

	EVP_PKEY_free(key);
	ERR_clear_error();
	return ok ? 0 : -EIO;
}

/* ---- AES-256-GCM ------------------------------------------------------- */

/* In pieces that an int counts. */
static bool cipher(EVP_CIPHER_CTX *ctx, const uint8_t *in, size_t n,
		   uint8_t *out)
{
	while (n) {
		int piece = (int)MIN(n, (size_t)1 << 30), got;

		if (!EVP_CipherUpdate(ctx, out, &got, in, piece) ||
		    got != piece)
			return false;
		in += piece;
		n -= (size_t)piece;
		if (out)
			out += piece;
	}
	return true;
}

/* n without the tag; false also when the tag does not fit. */
static bool aead(bool encrypt, const uint8_t key[SEAL_KEY],
		 const uint8_t nonce[NONCE], struct bytes aad,
		 const uint8_t *in, size_t n, uint8_t *out)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8_t tag[TAG], none[16];
	int got;
	bool ok;

	if (!encrypt)
		memcpy(tag, in + n, TAG);
	ok = ctx &&
	     EVP_CipherInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, nonce,
			       encrypt) &&
	     cipher(ctx, aad.p, aad.n, NULL) && cipher(ctx, in, n, out) &&
	     (encrypt ||
	      EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG, tag) > 0) &&
	     EVP_CipherFinal_ex(ctx, none, &got) > 0 &&
	     (!encrypt || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG,
					      out + n) > 0);
	/* What was not authenticated is nobody's. */
	if (!ok)
		OPENSSL_cleanse(out, n);
	EVP_CIPHER_CTX_free(ctx);
	return ok;
}

/* ---- the key schedule -------------------------------------------------- */

struct schedule {
	uint8_t key[32], nonce[NONCE], answer[32];
};

/* "ExtractAndExpand" of DHKEM; dh_value is wiped. */
static bool kem_secret(uint8_t dh_value[32], const uint8_t enc[32],
		       const uint8_t pub[32], uint8_t ret[32])
{
	const struct bytes context[2] = { { enc, 32 }, { pub, 32 } };
	uint8_t prk[32];
	bool ok = labeled_extract(NULL, kem, "eae_prk",
				  (struct bytes){ dh_value, 32 }, prk) &&
		  labeled_expand(prk, kem, "shared_secret", context, ret, 32);

	OPENSSL_cleanse(prk, sizeof(prk));
	OPENSSL_cleanse(dh_value, 32);
	return ok;
}

/* "KeySchedule" in base mode (no psk), and one export; shared is wiped. */
static bool key_schedule(uint8_t shared[32], struct bytes info,
			 struct schedule *ret)
{
	static const struct bytes none = { "", 0 };
	const struct bytes answer[2] = { text("rollfs answer"), none };
	uint8_t context[65] = { 0 }, secret[32], exporter[32];
	const struct bytes all[2] = { { context, sizeof(context) }, none };
	bool ok =
	    labeled_extract(NULL, hpke, "psk_id_hash", none, context + 1) &&
	    labeled_extract(NULL, hpke, "info_hash", info, context + 33) &&
	    labeled_extract(shared, hpke, "secret", none, secret) &&
	    labeled_expand(secret, hpke, "key", all, ret->key, 32) &&
	    labeled_expand(secret, hpke, "base_nonce", all, ret->nonce,
			   NONCE) &&
	    labeled_expand(secret, hpke, "exp", all, exporter, 32) &&
	    labeled_expand(exporter, hpke, "sec", answer, ret->answer, 32);

	OPENSSL_cleanse(secret, sizeof(secret));
	OPENSSL_cleanse(exporter, sizeof(exporter));
	OPENSSL_cleanse(shared, 32);
	return ok;
}

int seal(const uint8_t pub[SEAL_KEY], const void *info, size_t info_n,
	 const void *aad, size_t aad_n, const void *data, size_t n,
	 uint8_t ret_enc[SEAL_KEY], void *out, uint8_t ret_answer[SEAL_KEY])
{
	EVP_PKEY *ephemeral = new_key();
	uint8_t shared[32], secret[32], enc[SEAL_KEY];
	struct schedule s;
	size_t enc_n = SEAL_KEY;
	int r = -EIO;

	if (!ephemeral ||
	    EVP_PKEY_get_raw_public_key(ephemeral, enc, &enc_n) <= 0)
		goto out;
	if (!dh(ephemeral, pub, shared)) {
		r = -EINVAL;
		goto out;
	}
	if (!kem_secret(shared, enc, pub, secret) ||
	    !key_schedule(secret, (struct bytes){ info, info_n }, &s) ||
	    !aead(true, s.key, s.nonce, (struct bytes){ aad, aad_n }, data, n,
		  out))
		goto out;
	memcpy(ret_enc, enc, SEAL_KEY);
	memcpy(ret_answer, s.answer, SEAL_KEY);
	r = 0;
out:
	EVP_PKEY_free(ephemeral);
	OPENSSL_cleanse(shared, sizeof(shared));
	OPENSSL_cleanse(secret, sizeof(secret));
	OPENSSL_cleanse(&s, sizeof(s));
	ERR_clear_error();
	return r;
}

int seal_open(const uint8_t priv[SEAL_KEY], const uint8_t pub[SEAL_KEY],
	      const uint8_t enc[SEAL_KEY], const void *info, size_t info_n,
	      const void *aad, size_t aad_n, const void *data, size_t n,
	      void *out, uint8_t ret_answer[SEAL_KEY])
{
	EVP_PKEY *own =
	    EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, priv, SEAL_KEY);
	uint8_t shared[32], secret[32];
	struct schedule s;
	bool ok = n >= TAG && dh(own, enc, shared) &&
		  kem_secret(shared, enc, pub, secret) &&
		  key_schedule(secret, (struct bytes){ info, info_n }, &s) &&
		  aead(false, s.key, s.nonce, (struct bytes){ aad, aad_n },
		       data, n - TAG, out);

	if (ok)
		memcpy(ret_answer, s.answer, SEAL_KEY);
	EVP_PKEY_free(own);
	OPENSSL_cleanse(shared, sizeof(shared));
	OPENSSL_cleanse(secret, sizeof(secret));
	OPENSSL_cleanse(&s, sizeof(s));
	ERR_clear_error();
	return ok ? 0 : -EBADMSG;
}

/* ---- the answer -------------------------------------------------------- */

/* The key is of one request and seals one answer: any fixed nonce does. */
static const uint8_t answer_nonce[NONCE];

int seal_answer(const uint8_t key[SEAL_KEY], const void *data, size_t n,
		void *out)
{
	bool ok = aead(true, key, answer_nonce, (struct bytes){ "", 0 }, data,
		       n, out);

	ERR_clear_error();
	return ok ? 0 : -EIO;
}

int seal_open_answer(const uint8_t key[SEAL_KEY], const void *data, size_t n,
		     void *out)
{
	bool ok = n >= TAG && aead(false, key, answer_nonce,
				   (struct bytes){ "", 0 }, data, n - TAG, out);

	ERR_clear_error();
	return ok ? 0 : -EBADMSG;
}
