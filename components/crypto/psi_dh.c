// SPDX-License-Identifier: Apache-2.0
/*
 * Intersection in the squares modulo a safe prime p = 2q + 1 (RFC 3526), a
 * group of prime order q that 2 generates.  Hashes are squared and the
 * answerer's exponent x is even, so whatever number comes in, what leaves is in
 * that group.  The asker multiplies a hash by 2^r and the answer by
 * (2^x)^-r: both are powers of one base, by its table.  (Exponentiating with r
 * and 1/r, the other way, has an exponent of full size: r (1/r) = 1 mod q, so
 * the two have at least as many bits as q together.)
 */
#include <openssl/bn.h>
#include <openssl/evp.h>
#include <string.h>

#include "components/crypto/power.h"
#include "components/crypto/psi_priv.h"
#include "components/crypto/util.h"

#define DOMAIN "rollfs-intersection-v1-dh"

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
	mpz_t prime, key;
	unsigned exponent;   /* bits of the key or an r */
	size_t limbs, bytes; /* of an element */
	/* The asker's: powers of 2, and of 1 / 2^x. */
	struct ring *ring;
	struct fixed_base two, un;
};

static int dh_new(struct psi_side *s, unsigned bits, struct err *e)
{
	const struct group *g = NULL;
	uint8_t buf[PSI_BITS_MAX / 8];
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
	mpz_inits(k->prime, k->key, NULL);
	mpz_import(k->prime, (size_t)n, 1, 1, 0, 0, buf);
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
	if (k->ring) {
		fixed_base_free(&k->two, k->ring);
		fixed_base_free(&k->un, k->ring);
		ring_free(k->ring);
	}
	mpz_clear(k->prime);
	crypto_wipe(k->key);
	free(k);
}

/* Even, and of full size. */
static int dh_keygen(struct psi_side *s, unsigned bits, struct err *e)
{
	struct dh *k;
	int rc = dh_new(s, bits, e);

	if (rc < 0)
		return rc;
	k = s->k;
	crypto_random_bits(k->key, k->exponent);
	mpz_clrbit(k->key, 0);
	mpz_setbit(k->key, k->exponent - 1);
	return 0;
}

static int dh_asker(struct psi_side *s, unsigned bits, const void *public,
		    size_t len, struct err *e)
{
	struct dh *k;
	mpz_t y, base;
	int rc = dh_new(s, bits, e);

	if (rc < 0)
		return rc;
	k = s->k;
	mpz_inits(y, base, NULL);
	mpz_import(y, len, 1, 1, 0, 0, public);
	mpz_sub_ui(base, k->prime, 1);
	if (len != s->width || mpz_cmp_ui(y, 1) <= 0 || mpz_cmp(y, base) >= 0 ||
	    mpz_jacobi(y, k->prime) != 1) {
		rc = err_set(e, EPROTO, "no public key of this group");
	} else {
		s->secret_width = k->exponent / 8;
		k->ring = ring_new(k->prime, 0);
		mpz_set_ui(base, 2);
		fixed_base_make(&k->two, k->ring, base, k->exponent, 1);
		(void)mpz_invert(base, y, k->prime); /* a prime */
		fixed_base_make(&k->un, k->ring, base, k->exponent, 1);
	}
	mpz_clears(y, base, NULL);
	return rc;
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
	uint8_t buf[PSI_BITS_MAX / 8];
	int rc;

	limbs_export(mpz_limbs_read(k->key), (mp_size_t)mpz_size(k->key), buf,
		     k->exponent / 8);
	rc = sb_add(sb, buf, k->exponent / 8);
	explicit_bzero(buf, sizeof(buf));
	return rc;
}

static void dh_hash(const struct psi_side *s, EVP_MD_CTX *md,
		    const struct psi_ids *ids, size_t lo, size_t n,
		    uint8_t *out)
{
	const struct dh *k = s->k;
	_cleanup_free_ mp_limb_t *v = xmalloc(n * k->bytes);

	psi_hash_numbers(s, k->p, md, DOMAIN, ids, lo, n, v);
	modexp_mul(k->p, v, v, v, 1, n);
	psi_numbers_out(s, v, k->limbs, out, n);
}

/* 2^x. */
static int dh_public(const struct psi_side *s, struct strbuf *sb)
{
	const struct dh *k = s->k;
	_cleanup_free_ mp_limb_t *v = xcalloc(k->limbs, sizeof(*v));
	uint8_t buf[PSI_BITS_MAX / 8];

	v[0] = 2;
	modexp_pow(k->p, v, v, 1, k->key, k->exponent);
	psi_numbers_out(s, v, k->limbs, buf, 1);
	return sb_add(sb, buf, s->width);
}

/* -EPROTO for 0, 1, p - 1 and what is no number below p. */
static int import_all(const struct psi_side *s, mp_limb_t *v, const uint8_t *in,
		      size_t n)
{
	const struct dh *k = s->k;
	_cleanup_free_ mp_limb_t *last = xmalloc(k->bytes);
	mp_size_t limbs = (mp_size_t)k->limbs;

	mpn_sub_1(last, mpz_limbs_read(k->prime), limbs, 1);
	psi_numbers_in(s, v, k->limbs, in, n);
	for (size_t i = 0; i < n; i++, v += limbs)
		if (mpn_cmp(v, last, limbs) >= 0 ||
		    (v[0] <= 1 && mpn_zero_p(v + 1, limbs - 1)))
			return -EPROTO;
	return 0;
}

static int dh_answer(const struct psi_side *s, const uint8_t *in, size_t n,
		     uint8_t *out)
{
	const struct dh *k = s->k;
	_cleanup_free_ mp_limb_t *v = xmalloc(n * k->bytes);
	int rc = import_all(s, v, in, n);

	if (rc < 0)
		return rc;
	modexp_pow(k->p, v, v, n, k->key, k->exponent);
	psi_numbers_out(s, v, k->limbs, out, n);
	explicit_bzero(v, n * k->bytes);
	return 0;
}

/* out = in base^r. */
static int shift(const struct psi_side *s, const struct fixed_base *base,
		 const uint8_t *in, const uint8_t *secret, size_t n,
		 uint8_t *out)
{
	const struct dh *k = s->k;
	const struct ring *g = k->ring;
	size_t words = s->secret_width / sizeof(mp_limb_t);
	size_t all = 2 * n * g->k + n * words;
	uint64_t *u = ring_alloc(all), *w = u + n * g->k;
	mp_limb_t *r = w + n * g->k;
	_cleanup_free_ mp_limb_t *v = xmalloc(n * k->bytes);
	int rc = import_all(s, v, in, n);

	if (rc == 0) {
		memcpy(r, secret, n * s->secret_width);
		fixed_base_pow(base, g, u, g->one, r, words, NULL, n);
		ring_enter(g, w, v, k->limbs, n);
		ring_mul(g, u, u, w, 1, n);
		ring_leave(g, v, u, n);
		psi_numbers_out(s, v, k->limbs, out, n);
	}
	explicit_bzero(v, n * k->bytes);
	ring_wipe(u, all);
	return rc;
}

static int dh_blind(const struct psi_side *s, const uint8_t *hashed, size_t n,
		    uint8_t *out, uint8_t *secret)
{
	const struct dh *k = s->k;

	crypto_random(secret, n * s->secret_width);
	return shift(s, &k->two, hashed, secret, n, out);
}

static int dh_unblind(const struct psi_side *s, const uint8_t *hashed,
		      const uint8_t *in, const uint8_t *secret, size_t n,
		      uint8_t *out)
{
	const struct dh *k = s->k;

	(void)hashed;
	return shift(s, &k->un, in, secret, n, out);
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
