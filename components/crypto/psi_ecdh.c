// SPDX-License-Identifier: Apache-2.0
/* Hashing to curve25519 and X25519 over blocks. */
#include <openssl/evp.h>
#include <string.h>

#include "components/crypto/curve25519.h"
#include "components/crypto/psi.h"
#include "components/crypto/util.h"

#define DST   "rollfs-intersection-v1-curve25519_XMD:SHA-512_ELL2_NU_"
#define BATCH 512 /* points that go through the curve together */

/* expand_message_xmd (RFC 9380, 5.3.1) with SHA-512 and one block. */
static void expand(EVP_MD_CTX *c, const uint8_t *salt, size_t salt_len,
		   const char *id, size_t id_len, const char *dst,
		   uint8_t ret[CURVE_WIDE])
{
	static const uint8_t zpad[128];
	uint8_t dst_len = (uint8_t)strlen(dst), b[64];
	const uint8_t len[3] = { 0, CURVE_WIDE, 0 }, one = 1;

	if (!EVP_DigestInit_ex2(c, crypto_sha512(), NULL) ||
	    !EVP_DigestUpdate(c, zpad, sizeof(zpad)) ||
	    !EVP_DigestUpdate(c, salt, salt_len) ||
	    !EVP_DigestUpdate(c, id, id_len) ||
	    !EVP_DigestUpdate(c, len, sizeof(len)) ||
	    !EVP_DigestUpdate(c, dst, dst_len) ||
	    !EVP_DigestUpdate(c, &dst_len, 1) ||
	    !EVP_DigestFinal_ex(c, b, NULL) ||
	    !EVP_DigestInit_ex2(c, NULL, NULL) ||
	    !EVP_DigestUpdate(c, b, sizeof(b)) ||
	    !EVP_DigestUpdate(c, &one, 1) ||
	    !EVP_DigestUpdate(c, dst, dst_len) ||
	    !EVP_DigestUpdate(c, &dst_len, 1) ||
	    !EVP_DigestFinal_ex(c, b, NULL))
		abort(); /* only for lack of memory */
	memcpy(ret, b, CURVE_WIDE);
}

void psi_hash_to_curve(const uint8_t *salt, size_t salt_len, const char *id,
		       size_t id_len, const char *dst, uint8_t ret[PSI_TAG])
{
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	uint8_t wide[CURVE_WIDE];

	if (!c)
		abort();
	expand(c, salt, salt_len, id, id_len, dst, wide);
	curve25519_best()->map(wide, 1, ret);
	EVP_MD_CTX_free(c);
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

/* H(salt || id) of ids lo..hi - 1. */
static void hash_ids(const struct ecdh_job *j, EVP_MD_CTX *md, size_t lo,
		     size_t hi, uint8_t *out)
{
	uint8_t wide[BATCH * CURVE_WIDE];

	for (size_t i = lo; i < hi; i++) {
		uint32_t from = i ? j->ids->end[i - 1] : 0;

		expand(md, j->salt, PSI_SALT, j->ids->text + from,
		       j->ids->end[i] - from, DST,
		       wide + (i - lo) * CURVE_WIDE);
	}
	curve25519_best()->map(wide, hi - lo, out);
}

static void ecdh_share(void *arg, size_t lo, size_t hi)
{
	struct ecdh_job *j = arg;
	EVP_MD_CTX *md = EVP_MD_CTX_new();

	if (!md)
		abort();
	for (size_t end; lo < hi; lo = end) {
		uint8_t *out = j->out + lo * PSI_TAG;
		const uint8_t *in = j->ids ? out : j->in + lo * PSI_TAG;

		end = MIN(hi, lo + BATCH);
		if (j->ids)
			hash_ids(j, md, lo, end, out);
		if (!curve25519_best()->mul(j->key, in, end - lo, out))
			__atomic_store_n(&j->bad, true, __ATOMIC_RELAXED);
	}
	EVP_MD_CTX_free(md);
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
