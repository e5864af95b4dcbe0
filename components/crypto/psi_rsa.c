// SPDX-License-Identifier: Apache-2.0
/*
 * Blind RSA signatures. The private operation is OpenSSL's (CRT, blinded,
 * its result verified before it leaves); GMP does the guest's public part.
 */
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <string.h>

#include "components/crypto/psi.h"
#include "components/crypto/util.h"

#define EXPONENT 65537
#define DOMAIN	 "rollfs-intersection-v1-rsa-fdh"
#define BITS_MIN 1024
#define BITS_MAX 8192

struct psi_rsa {
	EVP_PKEY *pkey; /* NULL at the guest */
	mpz_t n;
	size_t width;
};

static int from_modulus(const void *n, size_t len, EVP_PKEY *pkey,
			struct psi_rsa **ret)
{
	struct psi_rsa *k = xcalloc(1, sizeof(*k));

	mpz_init(k->n);
	mpz_import(k->n, len, 1, 1, 0, 0, n);
	k->width = (mpz_sizeinbase(k->n, 2) + 7) / 8;
	k->pkey = pkey;
	*ret = k;
	return 0;
}

int psi_rsa_keygen(unsigned bits, struct psi_rsa **ret, struct err *e)
{
	uint8_t n[BITS_MAX / 8];
	EVP_PKEY *pkey;
	BIGNUM *bn = NULL;
	int len = 0;

	if (bits < BITS_MIN || bits > BITS_MAX)
		return err_set(e, EINVAL, "RSA key of %u bits: %d to %d", bits,
			       BITS_MIN, BITS_MAX);
	pkey = EVP_RSA_gen(bits);
	if (pkey && EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_RSA_N, &bn))
		len = BN_bn2bin(bn, n);
	BN_free(bn);
	if (len <= 0) {
		EVP_PKEY_free(pkey);
		return err_set(e, EIO, "RSA key generation failed");
	}
	return from_modulus(n, (size_t)len, pkey, ret);
}

int psi_rsa_public(const struct psi_rsa *k, struct strbuf *sb)
{
	uint8_t n[BITS_MAX / 8];

	limbs_export(mpz_limbs_read(k->n), (mp_size_t)mpz_size(k->n), n,
		     k->width);
	return sb_add(sb, n, k->width);
}

int psi_rsa_read(const void *n, size_t len, struct psi_rsa **ret, struct err *e)
{
	struct psi_rsa *k;
	size_t bits;

	if (len < BITS_MIN / 8 || len > BITS_MAX / 8)
		return err_set(e, EPROTO, "RSA modulus of %zu bytes", len);
	(void)from_modulus(n, len, NULL, &k);
	bits = mpz_sizeinbase(k->n, 2);
	if (bits < BITS_MIN || mpz_even_p(k->n) || k->width != len ||
	    mpz_gcd_ui(NULL, k->n, 3234846615UL) != 1 ||
	    mpz_probab_prime_p(k->n, 2)) {
		psi_rsa_free(k);
		return err_set(e, EPROTO, "not an RSA modulus");
	}
	*ret = k;
	return 0;
}

void psi_rsa_free(struct psi_rsa *k)
{
	if (!k)
		return;
	EVP_PKEY_free(k->pkey);
	mpz_clear(k->n);
	free(k);
}

size_t psi_rsa_width(const struct psi_rsa *k)
{
	return k->width;
}

struct rsa_job {
	const struct psi_rsa *k;
	const uint8_t *salt, *in, *secret_in;
	const struct psi_ids *ids;
	uint8_t *out, *secret;
	int failed;
};

static void job_fail(struct rsa_job *j, int no)
{
	__atomic_store_n(&j->failed, no, __ATOMIC_RELAXED);
}

static void full_domain_hash(const struct rsa_job *j, EVP_MD_CTX *c, size_t i,
			     mpz_t ret)
{
	uint8_t wide[BITS_MAX / 8 + 16];
	uint32_t from = i ? j->ids->end[i - 1] : 0;

	if (!EVP_DigestInit_ex2(c, crypto_shake256(), NULL) ||
	    !EVP_DigestUpdate(c, DOMAIN, sizeof(DOMAIN)) ||
	    !EVP_DigestUpdate(c, j->salt, PSI_SALT) ||
	    !EVP_DigestUpdate(c, j->ids->text + from, j->ids->end[i] - from) ||
	    !EVP_DigestFinalXOF(c, wide, j->k->width + 16))
		abort(); /* only for lack of memory */
	mpz_import(ret, j->k->width + 16, 1, 1, 0, 0, wide);
	mpz_mod(ret, ret, j->k->n);
}

static void number_out(const struct psi_rsa *k, const mpz_t v, uint8_t *out)
{
	limbs_export(mpz_limbs_read(v), (mp_size_t)mpz_size(v), out, k->width);
}

static void number_in(const struct psi_rsa *k, const uint8_t *in, mpz_t v)
{
	mpz_import(v, k->width, 1, 1, 0, 0, in);
}

static void sign_share(void *arg, size_t lo, size_t hi)
{
	struct rsa_job *j = arg;
	size_t w = j->k->width;
	EVP_PKEY_CTX *c = EVP_PKEY_CTX_new(j->k->pkey, NULL);
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	uint8_t buf[BITS_MAX / 8], sig[BITS_MAX / 8];
	mpz_t v;
	bool ok = c && md && EVP_PKEY_decrypt_init(c) > 0 &&
		  EVP_PKEY_CTX_set_rsa_padding(c, RSA_NO_PADDING) > 0;

	mpz_init(v);
	if (!ok)
		job_fail(j, EIO);
	for (size_t i = lo; i < hi && ok; i++) {
		size_t n = sizeof(sig);

		if (j->ids) {
			full_domain_hash(j, md, i, v);
			number_out(j->k, v, buf);
		} else {
			number_in(j->k, j->in + i * w, v);
			if (mpz_sgn(v) == 0 || mpz_cmp(v, j->k->n) >= 0) {
				job_fail(j, EPROTO);
				break;
			}
			memcpy(buf, j->in + i * w, w);
		}
		ok = EVP_PKEY_decrypt(c, sig, &n, buf, w) > 0 && n == w;
		if (!ok)
			job_fail(j, EIO);
		else if (!j->ids)
			memcpy(j->out + i * w, sig, w);
		else
			(void)EVP_Digest(sig, w, j->out + i * PSI_TAG, NULL,
					 crypto_sha256(), NULL);
	}
	explicit_bzero(sig, sizeof(sig));
	mpz_clear(v);
	EVP_PKEY_CTX_free(c);
	EVP_MD_CTX_free(md);
}

static int rsa_run(struct rsa_job *j, size_t n, unsigned threads,
		   void (*share)(void *, size_t, size_t), struct err *e)
{
	crypto_split(threads, n, share, j);
	if (j->failed == EPROTO)
		return err_set(e, EPROTO,
			       "a blinded number or a signature "
			       "is not what it must be");
	return j->failed ? err_set(e, j->failed, "RSA operation failed") : 0;
}

int psi_rsa_tags(const struct psi_rsa *k, const uint8_t salt[PSI_SALT],
		 const struct psi_ids *ids, unsigned threads, uint8_t *tags,
		 struct err *e)
{
	struct rsa_job j = { .k = k, .salt = salt, .ids = ids, .out = tags };

	return rsa_run(&j, ids->n, threads, sign_share, e);
}

int psi_rsa_sign(const struct psi_rsa *k, const uint8_t *in, size_t n,
		 unsigned threads, uint8_t *out, struct err *e)
{
	struct rsa_job j = { .k = k, .in = in, .out = out };

	return rsa_run(&j, n, threads, sign_share, e);
}

static void blind_share(void *arg, size_t lo, size_t hi)
{
	struct rsa_job *j = arg;
	size_t w = j->k->width;
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	mpz_t h, r, t;

	if (!md)
		abort();
	mpz_inits(h, r, t, NULL);
	for (size_t i = lo; i < hi; i++) {
		/* Over all of Z_n^*: a short r would let the host confirm a
		 * guess of the id. */
		do {
			crypto_random_below(r, j->k->n);
			mpz_gcd(t, r, j->k->n);
		} while (mpz_cmp_ui(r, 2) < 0 || mpz_cmp_ui(t, 1) != 0);
		full_domain_hash(j, md, i, h);
		number_out(j->k, r, j->secret + i * w);
		mpz_powm_ui(t, r, EXPONENT, j->k->n);
		mpz_mul(t, t, h);
		mpz_mod(t, t, j->k->n);
		number_out(j->k, t, j->out + i * w);
	}
	crypto_wipe(h);
	crypto_wipe(r);
	crypto_wipe(t);
	EVP_MD_CTX_free(md);
}

int psi_rsa_blind(const struct psi_rsa *k, const uint8_t salt[PSI_SALT],
		  const struct psi_ids *ids, unsigned threads, uint8_t *out,
		  uint8_t *secret, struct err *e)
{
	struct rsa_job j = {
		.k = k, .salt = salt, .ids = ids, .out = out, .secret = secret
	};

	return rsa_run(&j, ids->n, threads, blind_share, e);
}

static void unblind_share(void *arg, size_t lo, size_t hi)
{
	struct rsa_job *j = arg;
	size_t w = j->k->width, n = hi - lo, at = n;
	mpz_t *run = xcalloc(n + 1, sizeof(*run)); /* products of the r */
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	uint8_t sig[BITS_MAX / 8];
	mpz_t h, r, s, inv;

	if (!md)
		abort();
	mpz_inits(h, r, s, inv, NULL);
	mpz_init_set_ui(run[0], 1);
	for (size_t i = 0; i < n; i++) {
		number_in(j->k, j->secret_in + (lo + i) * w, r);
		mpz_init(run[i + 1]);
		mpz_mul(run[i + 1], run[i], r);
		mpz_mod(run[i + 1], run[i + 1], j->k->n);
	}
	if (!mpz_invert(inv, run[n], j->k->n))
		job_fail(j, EPROTO);
	else
		for (; at > 0; at--) {
			size_t i = lo + at - 1;

			number_in(j->k, j->secret_in + i * w, r);
			number_in(j->k, j->in + i * w, s);
			/* s / r, and inv loses this r. */
			mpz_mul(s, s, run[at - 1]);
			mpz_mul(s, s, inv);
			mpz_mod(s, s, j->k->n);
			mpz_mul(inv, inv, r);
			mpz_mod(inv, inv, j->k->n);
			number_out(j->k, s, sig);
			full_domain_hash(j, md, i, h);
			mpz_powm_ui(r, s, EXPONENT, j->k->n);
			if (mpz_cmp(r, h) != 0) {
				job_fail(j, EPROTO);
				break;
			}
			(void)EVP_Digest(sig, w, j->out + i * PSI_TAG, NULL,
					 crypto_sha256(), NULL);
		}
	for (size_t i = 0; i <= n; i++)
		mpz_clear(run[i]);
	free(run);
	crypto_wipe(h);
	crypto_wipe(r);
	crypto_wipe(s);
	crypto_wipe(inv);
	EVP_MD_CTX_free(md);
}

int psi_rsa_unblind(const struct psi_rsa *k, const uint8_t salt[PSI_SALT],
		    const struct psi_ids *ids, const uint8_t *signature,
		    const uint8_t *secret, unsigned threads, uint8_t *tags,
		    struct err *e)
{
	struct rsa_job j = { .k = k,
			     .salt = salt,
			     .ids = ids,
			     .in = signature,
			     .secret_in = secret,
			     .out = tags };

	return rsa_run(&j, ids->n, threads, unblind_share, e);
}
