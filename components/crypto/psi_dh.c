// SPDX-License-Identifier: Apache-2.0
/*
 * Intersection in the squares modulo a safe prime p = 2q + 1 (RFC 3526), a
 * group of prime order q.  Hashes are squared and the answerer's exponent is
 * even, so whatever number comes in, what leaves is in that group.
 */
#include <openssl/bn.h>
#include <openssl/evp.h>
#include <string.h>

#include "components/crypto/modexp.h"
#include "components/crypto/psi_priv.h"
#include "components/crypto/util.h"

#define DOMAIN	 "rollfs-intersection-v1-dh"
#define BITS_MAX 8192

/* Exponents have at least twice the bits of the group's strength (RFC 7919,
 * 5.2 and A). */
static const struct group {
	unsigned bits, exponent;
	BIGNUM *(*prime)(BIGNUM *);
} groups[] = {
	{ 2048, 256, BN_get_rfc3526_prime_2048 },
	{ 3072, 320, BN_get_rfc3526_prime_3072 },
	{ 4096, 384, BN_get_rfc3526_prime_4096 },
	{ 6144, 384, BN_get_rfc3526_prime_6144 },
	{ 8192, 448, BN_get_rfc3526_prime_8192 },
};

struct dh {
	struct modexp *p;
	mpz_t prime, q, key, inverse; /* inverse: the asker's, modulo q */
	unsigned exponent;	      /* bits of the key */
	size_t limbs, bytes;	      /* of an element */
};

static int dh_new(struct psi_side *s, unsigned bits, struct err *e)
{
	const struct group *g = NULL;
	uint8_t buf[BITS_MAX / 8];
	struct dh *k;
	BIGNUM *bn;
	int n, rc;

	for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
		if (groups[i].bits == bits)
			g = &groups[i];
	if (!g)
		return err_set(e, EINVAL,
			       "a prime of %u bits: 2048, 3072, 4096, 6144 and "
			       "8192 are to be had",
			       bits);
	bn = g->prime(NULL);
	if (!bn)
		abort(); /* only for lack of memory */
	n = BN_bn2bin(bn, buf);
	BN_free(bn);
	k = xcalloc(1, sizeof(*k));
	s->k = k;
	mpz_inits(k->prime, k->q, k->key, k->inverse, NULL);
	mpz_import(k->prime, (size_t)n, 1, 1, 0, 0, buf);
	mpz_fdiv_q_2exp(k->q, k->prime, 1);
	k->exponent = g->exponent;
	rc = modexp_new(k->prime, 0, &k->p, e);
	if (rc < 0)
		return rc;
	k->limbs = modexp_limbs(k->p);
	k->bytes = k->limbs * sizeof(mp_limb_t);
	s->width = bits / 8;
	return 0;
}

static void dh_free(struct psi_side *s)
{
	struct dh *k = s->k;

	modexp_free(k->p);
	mpz_clears(k->prime, k->q, NULL);
	crypto_wipe(k->key);
	crypto_wipe(k->inverse);
	free(k);
}

/* Even, and of full size. */
static void dh_random(struct dh *k)
{
	crypto_random_bits(k->key, k->exponent);
	mpz_clrbit(k->key, 0);
	mpz_setbit(k->key, k->exponent - 1);
}

static int dh_keygen(struct psi_side *s, unsigned bits, struct err *e)
{
	int rc = dh_new(s, bits, e);

	if (rc == 0)
		dh_random(s->k);
	return rc;
}

static int dh_asker(struct psi_side *s, unsigned bits, const void *public,
		    size_t len, struct err *e)
{
	struct dh *k;
	int rc;

	(void)public;
	if (len)
		return err_set(e, EPROTO, "a public key, where none is due");
	rc = dh_new(s, bits, e);
	if (rc < 0)
		return rc;
	k = s->k;
	dh_random(k);
	/* q is a prime, and the key smaller. */
	(void)mpz_invert(k->inverse, k->key, k->q);
	return 0;
}

static int dh_load(struct psi_side *s, unsigned bits, const void *key,
		   size_t len, struct err *e)
{
	struct dh *k;
	int rc = dh_new(s, bits, e);

	if (rc < 0)
		return rc;
	k = s->k;
	mpz_import(k->key, len, 1, 1, 0, 0, key);
	if (len != k->exponent / 8 || mpz_odd_p(k->key) ||
	    mpz_sizeinbase(k->key, 2) != k->exponent)
		return err_set(e, EINVAL, "no exponent of this group");
	return 0;
}

static int dh_save(const struct psi_side *s, struct strbuf *sb)
{
	const struct dh *k = s->k;
	uint8_t buf[BITS_MAX / 8];
	int rc;

	limbs_export(mpz_limbs_read(k->key), (mp_size_t)mpz_size(k->key), buf,
		     k->exponent / 8);
	rc = sb_add(sb, buf, k->exponent / 8);
	explicit_bzero(buf, sizeof(buf));
	return rc;
}

static int dh_public(const struct psi_side *s, struct strbuf *sb)
{
	(void)s;
	(void)sb;
	return 0;
}

static void export_all(const struct psi_side *s, const mp_limb_t *v,
		       uint8_t *out, size_t n)
{
	const struct dh *k = s->k;

	for (size_t i = 0; i < n; i++)
		limbs_export(v + i * k->limbs, (mp_size_t)k->limbs,
			     out + i * s->width, s->width);
}

static void dh_hash(const struct psi_side *s, EVP_MD_CTX *md,
		    const struct psi_ids *ids, size_t lo, size_t n,
		    uint8_t *out)
{
	const struct dh *k = s->k;
	size_t wide = k->limbs + 16 / sizeof(mp_limb_t);
	_cleanup_free_ mp_limb_t *w = xcalloc(n * wide, sizeof(*w));
	_cleanup_free_ mp_limb_t *v = xmalloc(n * k->bytes);
	uint8_t buf[BITS_MAX / 8 + 16];

	for (size_t i = 0; i < n; i++) {
		psi_wide_hash(s, md, DOMAIN, ids, lo + i, buf);
		limbs_import(w + i * wide, (mp_size_t)wide, buf, s->width + 16);
	}
	modexp_reduce(k->p, v, w, wide, n);
	modexp_mul(k->p, v, v, v, 1, n);
	export_all(s, v, out, n);
}

/* out = in^x; -EPROTO for 0, 1, p - 1 and what is no number below p. */
static int power(const struct psi_side *s, const mpz_t x, unsigned bits,
		 const uint8_t *in, size_t n, uint8_t *out)
{
	const struct dh *k = s->k;
	_cleanup_free_ mp_limb_t *v = xmalloc(n * k->bytes);
	_cleanup_free_ mp_limb_t *last = xmalloc(k->bytes);
	mp_size_t limbs = (mp_size_t)k->limbs;

	mpn_sub_1(last, mpz_limbs_read(k->prime), limbs, 1);
	for (size_t i = 0; i < n; i++) {
		mp_limb_t *t = v + i * k->limbs;

		limbs_import(t, limbs, in + i * s->width, s->width);
		if (mpn_cmp(t, last, limbs) >= 0 ||
		    (t[0] <= 1 && mpn_zero_p(t + 1, limbs - 1)))
			return -EPROTO;
	}
	modexp_pow(k->p, v, v, n, x, bits);
	export_all(s, v, out, n);
	explicit_bzero(v, n * k->bytes);
	return 0;
}

static int dh_blind(const struct psi_side *s, const uint8_t *hashed, size_t n,
		    uint8_t *out, uint8_t *secret)
{
	const struct dh *k = s->k;

	(void)secret;
	return power(s, k->key, k->exponent, hashed, n, out);
}

static int dh_answer(const struct psi_side *s, const uint8_t *in, size_t n,
		     uint8_t *out)
{
	const struct dh *k = s->k;

	return power(s, k->key, k->exponent, in, n, out);
}

static int dh_unblind(const struct psi_side *s, const uint8_t *hashed,
		      const uint8_t *in, const uint8_t *secret, size_t n,
		      uint8_t *out)
{
	const struct dh *k = s->k;

	(void)hashed;
	(void)secret;
	return power(s, k->inverse, (unsigned)mpz_sizeinbase(k->q, 2), in, n,
		     out);
}

const struct psi_ops psi_dh_ops = {
	.keygen = dh_keygen,
	.asker = dh_asker,
	.load = dh_load,
	.save = dh_save,
	.public = dh_public,
	.free = dh_free,
	.hash = dh_hash,
	.blind = dh_blind,
	.answer = dh_answer,
	.unblind = dh_unblind,
};
