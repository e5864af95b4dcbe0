// SPDX-License-Identifier: Apache-2.0
/*
 * Intersection by blind RSA signatures.
 *
 * The key's owner signs modulo both primes (exponents and bases are secret:
 * modexp_pow takes the same steps for all) and joins by Garner's formula.
 * Every batch is multiplied by a fresh B^e before and by B^-1 after, so that
 * nobody chooses what the primes see (Kocher 1996), and no signature leaves
 * that is not one (Boneh, DeMillo, Lipton 1997): e-th powers are public and
 * cheap.
 */
#include <openssl/evp.h>
#include <string.h>

#include "components/crypto/psi_priv.h"
#include "components/crypto/util.h"

#define EXPONENT 65537
#define DOMAIN	 "rollfs-intersection-v1-rsa-fdh"
#define BITS_MIN 1024

struct rsa {
	struct modexp *n;
	mpz_t modulus, e;
	size_t limbs, bytes; /* of a number modulo n */
	/* The owner's; p NULL at the asker. */
	struct modexp *p, *q;
	mpz_t prime_p, prime_q, dp, dq;
	size_t half;	 /* limbs modulo p and q */
	mp_limb_t *qinv; /* q^-1 modulo p */
};

static struct rsa *rsa_new(struct psi_side *s, const mpz_t modulus)
{
	struct rsa *k = xcalloc(1, sizeof(*k));

	mpz_inits(k->prime_p, k->prime_q, k->dp, k->dq, NULL);
	mpz_init_set(k->modulus, modulus);
	mpz_init_set_ui(k->e, EXPONENT);
	s->width = (mpz_sizeinbase(modulus, 2) + 7) / 8;
	s->secret_width = s->width;
	s->k = k;
	return k;
}

static void rsa_free(struct psi_side *s)
{
	struct rsa *k = s->k;

	modexp_free(k->n);
	modexp_free(k->p);
	modexp_free(k->q);
	crypto_wipe(k->prime_p);
	crypto_wipe(k->prime_q);
	crypto_wipe(k->dp);
	crypto_wipe(k->dq);
	mpz_clears(k->modulus, k->e, NULL);
	if (k->qinv)
		explicit_bzero(k->qinv, k->half * sizeof(*k->qinv));
	free(k->qinv);
	free(k);
}

static int use_modulus(struct rsa *k, struct err *e)
{
	int rc = modexp_new(k->modulus, 0, &k->n, e);

	if (rc == 0) {
		k->limbs = modexp_limbs(k->n);
		k->bytes = k->limbs * sizeof(mp_limb_t);
	}
	return rc;
}

static void number_to_limbs(mp_limb_t *v, size_t limbs, const mpz_t z)
{
	mpn_zero(v, (mp_size_t)limbs);
	mpn_copyi(v, mpz_limbs_read(z), (mp_size_t)mpz_size(z));
}

/* p > q are k->prime_p and prime_q. */
static int use_primes(struct rsa *k, struct err *e)
{
	mpz_t t;
	int rc;

	mpz_init(t);
	mpz_sub_ui(t, k->prime_p, 1);
	rc = mpz_invert(k->dp, k->e, t) ? 0 : -1;
	mpz_sub_ui(t, k->prime_q, 1);
	if (rc == 0 && !mpz_invert(k->dq, k->e, t))
		rc = -1;
	if (rc == 0 && !mpz_invert(t, k->prime_q, k->prime_p))
		rc = -1;
	if (rc < 0)
		rc = err_set(e, EINVAL, "these primes make no RSA key");
	if (rc == 0)
		rc = use_modulus(k, e);
	if (rc == 0)
		rc = modexp_new(k->prime_p, MODEXP_SECRET, &k->p, e);
	if (rc == 0)
		rc = modexp_new(k->prime_q, MODEXP_SECRET, &k->q, e);
	if (rc == 0) {
		k->half = modexp_limbs(k->p);
		k->qinv = xcalloc(k->half, sizeof(*k->qinv));
		number_to_limbs(k->qinv, k->half, t);
		/* The limbs of a number modulo n are those of p times q. */
		if (modexp_limbs(k->q) != k->half || 2 * k->half < k->limbs)
			rc = err_set(e, EINVAL, "primes of unlike sizes");
	}
	crypto_wipe(t);
	return rc;
}

static int from_primes(struct psi_side *s, const mpz_t p, const mpz_t q,
		       struct err *e)
{
	struct rsa *k;
	mpz_t n;

	mpz_init(n);
	mpz_mul(n, p, q);
	k = rsa_new(s, n);
	mpz_clear(n);
	mpz_set(k->prime_p, mpz_cmp(p, q) > 0 ? p : q);
	mpz_set(k->prime_q, mpz_cmp(p, q) > 0 ? q : p);
	return use_primes(k, e);
}

static int rsa_keygen(struct psi_side *s, unsigned bits, struct err *e)
{
	mpz_t p, q, t;
	bool fit;
	int rc;

	if (bits < BITS_MIN || bits > PSI_BITS_MAX || bits % 128)
		return err_set(e, EINVAL,
			       "an RSA key of %u bits: a multiple of 128 from "
			       "%d to %d is needed",
			       bits, BITS_MIN, PSI_BITS_MAX);
	mpz_inits(p, q, t, NULL);
	do { /* there must be an inverse of the exponent */
		crypto_random_primes(p, bits / 2, q, bits / 2);
		mpz_sub_ui(t, p, 1);
		fit = mpz_cmp(p, q) != 0 && !mpz_divisible_ui_p(t, EXPONENT);
		mpz_sub_ui(t, q, 1);
		fit = fit && !mpz_divisible_ui_p(t, EXPONENT);
	} while (!fit);
	rc = from_primes(s, p, q, e);
	crypto_wipe(p);
	crypto_wipe(q);
	crypto_wipe(t);
	return rc;
}

/* What rsa_save wrote: both primes, each of half the bits. */
static int rsa_load(struct psi_side *s, unsigned bits, const void *key,
		    size_t len, struct err *e)
{
	const uint8_t *b = key;
	mpz_t p, q;
	int rc = 0;

	if (bits < BITS_MIN || bits > PSI_BITS_MAX || len != bits / 8)
		return err_set(e, EINVAL, "an RSA key of %zu bytes", len);
	mpz_inits(p, q, NULL);
	mpz_import(p, len / 2, 1, 1, 0, 0, b);
	mpz_import(q, len / 2, 1, 1, 0, 0, b + len / 2);
	if (!mpz_probab_prime_p(p, 20) || !mpz_probab_prime_p(q, 20) ||
	    mpz_cmp(p, q) == 0)
		rc = err_set(e, EINVAL, "no RSA key");
	else
		rc = from_primes(s, p, q, e);
	if (rc == 0 && s->width != len)
		rc = err_set(e, EINVAL, "an RSA key of another size");
	crypto_wipe(p);
	crypto_wipe(q);
	return rc;
}

static void number_out(const mpz_t v, uint8_t *out, size_t width)
{
	limbs_export(mpz_limbs_read(v), (mp_size_t)mpz_size(v), out, width);
}

static int rsa_save(const struct psi_side *s, struct strbuf *sb)
{
	const struct rsa *k = s->k;
	uint8_t buf[PSI_BITS_MAX / 8];
	int rc;

	number_out(k->prime_p, buf, s->width / 2);
	number_out(k->prime_q, buf + s->width / 2, s->width / 2);
	rc = sb_add(sb, buf, s->width);
	explicit_bzero(buf, sizeof(buf));
	return rc;
}

static int rsa_public(const struct psi_side *s, struct strbuf *sb)
{
	const struct rsa *k = s->k;
	uint8_t buf[PSI_BITS_MAX / 8];

	number_out(k->modulus, buf, s->width);
	return sb_add(sb, buf, s->width);
}

static int rsa_asker(struct psi_side *s, unsigned bits, const void *public,
		     size_t len, struct err *e)
{
	struct rsa *k;
	mpz_t n;

	if (len != bits / 8 || len < BITS_MIN / 8 || len > PSI_BITS_MAX / 8)
		return err_set(e, EPROTO, "an RSA modulus of %zu bytes", len);
	mpz_init(n);
	mpz_import(n, len, 1, 1, 0, 0, public);
	k = rsa_new(s, n);
	mpz_clear(n);
	if (s->width != len || mpz_even_p(k->modulus) ||
	    mpz_gcd_ui(NULL, k->modulus, 3234846615UL) != 1 ||
	    mpz_probab_prime_p(k->modulus, 2))
		return err_set(e, EPROTO, "not an RSA modulus");
	return use_modulus(k, e);
}

static void rsa_hash(const struct psi_side *s, EVP_MD_CTX *md,
		     const struct psi_ids *ids, size_t lo, size_t n,
		     uint8_t *out)
{
	const struct rsa *k = s->k;
	_cleanup_free_ mp_limb_t *v = xmalloc(n * k->bytes);

	psi_hash_numbers(s, k->n, md, DOMAIN, ids, lo, n, v);
	psi_numbers_out(s, v, k->limbs, out, n);
}

/* A number that has an inverse, and that; both `limbs` long. */
static void random_pair(const struct rsa *k, mp_limb_t *r, mp_limb_t *inverse)
{
	mpz_t a, b;

	mpz_inits(a, b, NULL);
	do
		crypto_random_below(a, k->modulus);
	while (mpz_cmp_ui(a, 2) < 0 || !mpz_invert(b, a, k->modulus));
	number_to_limbs(r, k->limbs, a);
	number_to_limbs(inverse, k->limbs, b);
	crypto_wipe(a);
	crypto_wipe(b);
}

/* s = x^d of n numbers, by both primes. */
static void private_power(const struct rsa *k, mp_limb_t *s, const mp_limb_t *x,
			  size_t n)
{
	size_t size = n * k->half * sizeof(mp_limb_t);
	mp_limb_t *sp = xmalloc(size), *sq = xmalloc(size);
	mp_limb_t *t = xmalloc(size);
	mp_size_t half = (mp_size_t)k->half;
	mp_size_t need =
	    MAX(mpn_sec_mul_itch(half, half), mpn_sec_add_1_itch(half));
	mp_limb_t *room =
	    xmalloc((size_t)(need + 2 * half) * sizeof(mp_limb_t));
	mp_limb_t *full = room + need;
	mp_limb_t *q = xcalloc(k->half, sizeof(*q));

	modexp_reduce(k->p, sp, x, k->limbs, n);
	modexp_pow(k->p, sp, sp, n, k->dp,
		   (unsigned)mpz_sizeinbase(k->prime_p, 2));
	modexp_reduce(k->q, sq, x, k->limbs, n);
	modexp_pow(k->q, sq, sq, n, k->dq,
		   (unsigned)mpz_sizeinbase(k->prime_q, 2));
	/* sq + q ((sp - sq) / q mod p) */
	modexp_reduce(k->p, t, sq, k->half, n);
	modexp_sub(k->p, sp, sp, t, n);
	modexp_mul(k->p, sp, sp, k->qinv, 0, n);
	number_to_limbs(q, k->half, k->prime_q);
	for (size_t i = 0; i < n; i++) {
		mp_limb_t carry;

		mpn_sec_mul(full, sp + i * k->half, half, q, half, room);
		carry = mpn_add_n(full, full, sq + i * k->half, half);
		(void)mpn_sec_add_1(full + half, full + half, half, carry,
				    room);
		mpn_copyi(s + i * k->limbs, full, (mp_size_t)k->limbs);
	}
	explicit_bzero(sp, size);
	explicit_bzero(sq, size);
	explicit_bzero(t, size);
	explicit_bzero(q, k->half * sizeof(*q));
	explicit_bzero(room, (size_t)(need + 2 * half) * sizeof(mp_limb_t));
	free(sp);
	free(sq);
	free(t);
	free(q);
	free(room);
}

static int rsa_answer(const struct psi_side *s, const uint8_t *in, size_t n,
		      uint8_t *out)
{
	const struct rsa *k = s->k;
	_cleanup_free_ mp_limb_t *x = xmalloc(n * k->bytes);
	_cleanup_free_ mp_limb_t *y = xmalloc(n * k->bytes);
	_cleanup_free_ mp_limb_t *b = xmalloc(3 * k->bytes);
	mp_limb_t *b_e = b + k->limbs, *inverse = b + 2 * k->limbs;
	int rc = 0;

	psi_numbers_in(s, x, k->limbs, in, n);
	for (size_t i = 0; i < n; i++)
		if (mpn_zero_p(x + i * k->limbs, (mp_size_t)k->limbs) ||
		    mpn_cmp(x + i * k->limbs, mpz_limbs_read(k->modulus),
			    (mp_size_t)k->limbs) >= 0)
			return -EPROTO;
	random_pair(k, b, inverse);
	modexp_pow_public(k->n, b_e, b, 1, k->e);
	modexp_mul(k->n, x, x, b_e, 0, n);
	private_power(k, y, x, n);
	/* A fault must not leave: it would tell the primes. */
	{
		_cleanup_free_ mp_limb_t *check = xmalloc(n * k->bytes);

		modexp_pow_public(k->n, check, y, n, k->e);
		if (memcmp(check, x, n * k->bytes) != 0)
			rc = -EIO;
	}
	if (rc == 0) {
		modexp_mul(k->n, y, y, inverse, 0, n);
		psi_numbers_out(s, y, k->limbs, out, n);
	}
	explicit_bzero(b, 3 * k->bytes);
	explicit_bzero(x, n * k->bytes);
	explicit_bzero(y, n * k->bytes);
	return rc;
}

/* Over all of Z_n^*: with a short r the other side could confirm a guess of
 * the id. */
static int rsa_blind(const struct psi_side *s, const uint8_t *hashed, size_t n,
		     uint8_t *out, uint8_t *secret)
{
	const struct rsa *k = s->k;
	_cleanup_free_ mp_limb_t *r = xmalloc(n * k->bytes);
	_cleanup_free_ mp_limb_t *h = xmalloc(n * k->bytes);
	mpz_t a;

	mpz_init(a);
	for (size_t i = 0; i < n; i++) {
		do
			crypto_random_below(a, k->modulus);
		while (mpz_cmp_ui(a, 2) < 0);
		number_to_limbs(r + i * k->limbs, k->limbs, a);
	}
	crypto_wipe(a);
	psi_numbers_out(s, r, k->limbs, secret, n);
	psi_numbers_in(s, h, k->limbs, hashed, n);
	modexp_pow_public(k->n, r, r, n, k->e);
	modexp_mul(k->n, h, h, r, 1, n);
	psi_numbers_out(s, h, k->limbs, out, n);
	explicit_bzero(r, n * k->bytes);
	explicit_bzero(h, n * k->bytes);
	return 0;
}

static int rsa_unblind(const struct psi_side *s, const uint8_t *hashed,
		       const uint8_t *in, const uint8_t *secret, size_t n,
		       uint8_t *out)
{
	const struct rsa *k = s->k;
	_cleanup_free_ mp_limb_t *r = xmalloc(n * k->bytes);
	_cleanup_free_ mp_limb_t *v = xmalloc(n * k->bytes);
	int rc = -EPROTO;

	psi_numbers_in(s, r, k->limbs, secret, n);
	psi_numbers_in(s, v, k->limbs, in, n);
	for (size_t i = 0; i < n; i++)
		if (mpn_cmp(v + i * k->limbs, mpz_limbs_read(k->modulus),
			    (mp_size_t)k->limbs) >= 0)
			goto out;
	/* An r without an inverse is a factor of n: the key is broken. */
	if (modexp_invert(k->n, r, r, n) < 0)
		goto out;
	modexp_mul(k->n, v, v, r, 1, n);
	psi_numbers_out(s, v, k->limbs, out, n);
	modexp_pow_public(k->n, v, v, n, k->e);
	psi_numbers_in(s, r, k->limbs, hashed, n);
	rc = memcmp(v, r, n * k->bytes) == 0 ? 0 : -EPROTO;
out:
	explicit_bzero(r, n * k->bytes);
	explicit_bzero(v, n * k->bytes);
	return rc;
}

const struct psi_ops psi_rsa_ops = {
	.verifies = true,
	.keygen = rsa_keygen,
	.asker = rsa_asker,
	.load = rsa_load,
	.save = rsa_save,
	.public = rsa_public,
	.free = rsa_free,
	.hash = rsa_hash,
	.blind = rsa_blind,
	.answer = rsa_answer,
	.unblind = rsa_unblind,
};
