// SPDX-License-Identifier: Apache-2.0
/*
 * Intersection on curve25519.  X25519 clamps its scalars: a multiple of 8 with
 * bit 254 set.  So the asker draws r until the multiple of 8 that is r^-1
 * modulo the order l of the base point, unique modulo 8 l, has that form, too:
 * every other r does.
 */
#include <gmp.h>
#include <openssl/evp.h>
#include <string.h>

#include "components/crypto/curve25519.h"
#include "components/crypto/psi_priv.h"
#include "components/crypto/util.h"

#define DST "rollfs-intersection-v1-curve25519_XMD:SHA-512_ELL2_NU_"

struct ecdh {
	uint8_t key[CURVE_POINT];     /* the answerer's, the asker's r */
	uint8_t inverse[CURVE_POINT]; /* the asker's r^-1 */
};

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
		       size_t id_len, const char *dst, uint8_t ret[32])
{
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	uint8_t wide[CURVE_WIDE];

	if (!c)
		abort();
	expand(c, salt, salt_len, id, id_len, dst, wide);
	curve25519_best()->map(wide, 1, ret);
	EVP_MD_CTX_free(c);
}

/* False unless r^-1 can be clamped. */
static bool invert_scalar(const uint8_t r[CURVE_POINT],
			  uint8_t ret[CURVE_POINT])
{
	static const char order[] = "1000000000000000000000000000000014def9dea2"
				    "f79cd65812631a5cf5d3ed";
	mpz_t l, k;
	bool good;

	mpz_init(k);
	mpz_init_set_str(l, order, 16);
	mpz_import(k, CURVE_POINT, -1, 1, 0, 0, r);
	/* 8 (8 r)^-1 is r^-1 and a multiple of 8. */
	mpz_mul_ui(k, k, 8);
	(void)mpz_invert(k, k, l);
	mpz_mul_ui(k, k, 8);
	good = mpz_sizeinbase(k, 2) == 255;
	memset(ret, 0, CURVE_POINT);
	if (good)
		(void)mpz_export(ret, NULL, -1, 1, 0, 0, k);
	crypto_wipe(k);
	mpz_clear(l);
	return good;
}

static struct ecdh *ecdh_new(struct psi_side *s)
{
	s->width = CURVE_POINT;
	s->k = xcalloc(1, sizeof(struct ecdh));
	return s->k;
}

static void ecdh_random(struct ecdh *k)
{
	crypto_random(k->key, sizeof(k->key));
	k->key[0] &= 248;
	k->key[31] = (k->key[31] & 127) | 64;
}

static int ecdh_keygen(struct psi_side *s, unsigned bits, struct err *e)
{
	(void)bits;
	(void)e;
	ecdh_random(ecdh_new(s));
	return 0;
}

static int ecdh_asker(struct psi_side *s, unsigned bits, const void *public,
		      size_t len, struct err *e)
{
	struct ecdh *k = ecdh_new(s);

	(void)bits;
	(void)public;
	if (len)
		return err_set(e, EPROTO, "a public key, where none is due");
	do
		ecdh_random(k);
	while (!invert_scalar(k->key, k->inverse));
	return 0;
}

static int ecdh_load(struct psi_side *s, unsigned bits, const void *key,
		     size_t len, struct err *e)
{
	struct ecdh *k = ecdh_new(s);

	(void)bits;
	if (len != sizeof(k->key))
		return err_set(e, EINVAL, "a scalar of %zu bytes", len);
	memcpy(k->key, key, len);
	return 0;
}

static int ecdh_save(const struct psi_side *s, struct strbuf *sb)
{
	const struct ecdh *k = s->k;

	return sb_add(sb, k->key, sizeof(k->key));
}

static int ecdh_public(const struct psi_side *s, struct strbuf *sb)
{
	(void)s;
	(void)sb;
	return 0;
}

static void ecdh_free(struct psi_side *s)
{
	explicit_bzero(s->k, sizeof(struct ecdh));
	free(s->k);
}

static void ecdh_hash(const struct psi_side *s, EVP_MD_CTX *md,
		      const struct psi_ids *ids, size_t lo, size_t n,
		      uint8_t *out)
{
	uint8_t wide[PSI_BATCH * CURVE_WIDE];

	for (size_t i = 0; i < n; i++) {
		uint32_t from = lo + i ? ids->end[lo + i - 1] : 0;

		expand(md, s->salt, PSI_SALT, ids->text + from,
		       ids->end[lo + i] - from, DST, wide + i * CURVE_WIDE);
	}
	curve25519_best()->map(wide, n, out);
}

static int multiply(const uint8_t *scalar, const uint8_t *in, size_t n,
		    uint8_t *out)
{
	/* Points of small order give zero. */
	return curve25519_best()->mul(scalar, in, n, out) ? 0 : -EPROTO;
}

static int ecdh_blind(const struct psi_side *s, const uint8_t *hashed, size_t n,
		      uint8_t *out, uint8_t *secret)
{
	(void)secret;
	return multiply(((struct ecdh *)s->k)->key, hashed, n, out);
}

static int ecdh_answer(const struct psi_side *s, const uint8_t *in, size_t n,
		       uint8_t *out)
{
	return multiply(((struct ecdh *)s->k)->key, in, n, out);
}

static int ecdh_unblind(const struct psi_side *s, const uint8_t *hashed,
			const uint8_t *in, const uint8_t *secret, size_t n,
			uint8_t *out)
{
	(void)hashed;
	(void)secret;
	return multiply(((struct ecdh *)s->k)->inverse, in, n, out);
}

const struct psi_ops psi_ecdh_ops = {
	.keygen = ecdh_keygen,
	.asker = ecdh_asker,
	.load = ecdh_load,
	.save = ecdh_save,
	.public = ecdh_public,
	.free = ecdh_free,
	.hash = ecdh_hash,
	.blind = ecdh_blind,
	.answer = ecdh_answer,
	.unblind = ecdh_unblind,
};
