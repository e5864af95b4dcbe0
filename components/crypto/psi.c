// SPDX-License-Identifier: Apache-2.0
/* What the methods of intersection share: batches over threads, tags. */
#include "components/crypto/psi.h"

#include <openssl/evp.h>
#include <string.h>

#include "components/crypto/psi_priv.h"
#include "components/crypto/util.h"

static struct psi_side *side_new(enum psi_method method,
				 const uint8_t salt[PSI_SALT])
{
	struct psi_side *s = xcalloc(1, sizeof(*s));

	s->ops = method == PSI_RSA    ? &psi_rsa_ops
		 : method == PSI_ECDH ? &psi_ecdh_ops
				      : &psi_dh_ops;
	memcpy(s->salt, salt, PSI_SALT);
	crypto_wipe_freed();
	return s;
}

static int side_done(struct psi_side *s, int rc, struct psi_side **ret)
{
	if (rc == 0)
		*ret = s;
	else
		psi_free(s);
	return rc;
}

int psi_answerer(enum psi_method method, unsigned bits,
		 const uint8_t salt[PSI_SALT], struct psi_side **ret,
		 struct err *e)
{
	struct psi_side *s = side_new(method, salt);

	return side_done(s, s->ops->keygen(s, bits, e), ret);
}

int psi_asker(enum psi_method method, unsigned bits,
	      const uint8_t salt[PSI_SALT], const void *public, size_t len,
	      struct psi_side **ret, struct err *e)
{
	struct psi_side *s = side_new(method, salt);

	return side_done(s, s->ops->asker(s, bits, public, len, e), ret);
}

int psi_load(enum psi_method method, unsigned bits,
	     const uint8_t salt[PSI_SALT], const void *key, size_t len,
	     struct psi_side **ret, struct err *e)
{
	struct psi_side *s = side_new(method, salt);

	return side_done(s, s->ops->load(s, bits, key, len, e), ret);
}

void psi_free(struct psi_side *s)
{
	if (!s)
		return;
	if (s->k)
		s->ops->free(s);
	free(s);
}

void psi_freep(struct psi_side **s)
{
	psi_free(*s);
}

int psi_public(const struct psi_side *s, struct strbuf *sb)
{
	return s->ops->public(s, sb);
}

int psi_save(const struct psi_side *s, struct strbuf *sb)
{
	return s->ops->save(s, sb);
}

size_t psi_width(const struct psi_side *s)
{
	return s->width;
}

size_t psi_secret_width(const struct psi_side *s)
{
	return s->secret_width;
}

void psi_wide_hash(const struct psi_side *s, EVP_MD_CTX *md, const char *domain,
		   const struct psi_ids *ids, size_t i, uint8_t *out)
{
	uint32_t from = i ? ids->end[i - 1] : 0;

	if (!EVP_DigestInit_ex2(md, crypto_shake256(), NULL) ||
	    !EVP_DigestUpdate(md, domain, strlen(domain) + 1) ||
	    !EVP_DigestUpdate(md, s->salt, PSI_SALT) ||
	    !EVP_DigestUpdate(md, ids->text + from, ids->end[i] - from) ||
	    !EVP_DigestFinalXOF(md, out, s->width + 16))
		abort(); /* only for lack of memory */
}

void psi_hash_numbers(const struct psi_side *s, const struct modexp *m,
		      EVP_MD_CTX *md, const char *domain,
		      const struct psi_ids *ids, size_t lo, size_t n,
		      mp_limb_t *v)
{
	const size_t bytes = s->width + 16;
	const size_t wide = (bytes + sizeof(*v) - 1) / sizeof(*v);
	_cleanup_free_ mp_limb_t *w = xcalloc(n * wide, sizeof(*w));
	uint8_t buf[PSI_BITS_MAX / 8 + 16];

	for (size_t i = 0; i < n; i++) {
		psi_wide_hash(s, md, domain, ids, lo + i, buf);
		limbs_import(w + i * wide, (mp_size_t)wide, buf, bytes);
	}
	modexp_reduce(m, v, w, wide, n);
}

void psi_numbers_out(const struct psi_side *s, const mp_limb_t *v, size_t limbs,
		     uint8_t *out, size_t n)
{
	for (size_t i = 0; i < n; i++)
		limbs_export(v + i * limbs, (mp_size_t)limbs,
			     out + i * s->width, s->width);
}

void psi_numbers_in(const struct psi_side *s, mp_limb_t *v, size_t limbs,
		    const uint8_t *in, size_t n)
{
	for (size_t i = 0; i < n; i++)
		limbs_import(v + i * limbs, (mp_size_t)limbs, in + i * s->width,
			     s->width);
}

enum work { TAGS, ANSWER, BLIND, UNBLIND };

struct job {
	const struct psi_side *s;
	enum work work;
	const struct psi_ids *ids;
	const uint8_t *in, *secret_in;
	uint8_t *out, *secret;
	int failed;
};

static void hash_tags(const struct psi_side *s, EVP_MD_CTX *md,
		      const uint8_t *elements, size_t n, uint8_t *tags)
{
	uint8_t d[32];

	for (size_t i = 0; i < n; i++) {
		if (!EVP_DigestInit_ex2(md, crypto_sha256(), NULL) ||
		    !EVP_DigestUpdate(md, elements + i * s->width, s->width) ||
		    !EVP_DigestFinal_ex(md, d, NULL))
			abort();
		memcpy(tags + i * PSI_TAG, d, PSI_TAG);
	}
}

static int batch(struct job *j, EVP_MD_CTX *md, size_t lo, size_t n,
		 uint8_t *hashed, uint8_t *t)
{
	const struct psi_side *s = j->s;
	size_t at = lo * s->width, secret = lo * s->secret_width;
	int rc;

	if (j->work != ANSWER && (j->work != UNBLIND || s->ops->verifies))
		s->ops->hash(s, md, j->ids, lo, n, hashed);
	switch (j->work) {
	case ANSWER:
		return s->ops->answer(s, j->in + at, n, j->out + at);
	case BLIND:
		return s->ops->blind(s, hashed, n, j->out + at,
				     j->secret + secret);
	case TAGS:
		rc = s->ops->answer(s, hashed, n, t);
		break;
	default:
		rc = s->ops->unblind(s, s->ops->verifies ? hashed : NULL,
				     j->in + at, j->secret_in + secret, n, t);
	}
	if (rc == 0)
		hash_tags(s, md, t, n, j->out + lo * PSI_TAG);
	return rc;
}

static void share(void *arg, size_t lo, size_t hi)
{
	struct job *j = arg;
	size_t size = PSI_BATCH * j->s->width;
	_cleanup_free_ uint8_t *hashed = xmalloc(size), *t = xmalloc(size);
	EVP_MD_CTX *md = EVP_MD_CTX_new();

	if (!md)
		abort();
	while (lo < hi && !__atomic_load_n(&j->failed, __ATOMIC_RELAXED)) {
		size_t n = MIN(hi - lo, (size_t)PSI_BATCH);
		int rc = batch(j, md, lo, n, hashed, t);

		if (rc < 0)
			__atomic_store_n(&j->failed, rc, __ATOMIC_RELAXED);
		lo += n;
	}
	explicit_bzero(hashed, size);
	explicit_bzero(t, size);
	EVP_MD_CTX_free(md);
}

static int run(struct job *j, size_t n, unsigned threads, struct err *e)
{
	crypto_split(threads, n, share, j);
	if (j->failed == -EPROTO)
		return err_set(e, EPROTO,
			       "a blinded id or its answer is not what it "
			       "must be");
	return j->failed ? err_set(e, -j->failed, "a computation failed") : 0;
}

int psi_tags(const struct psi_side *s, const struct psi_ids *ids,
	     unsigned threads, uint8_t *tags, struct err *e)
{
	struct job j = { .s = s, .work = TAGS, .ids = ids, .out = tags };

	return run(&j, ids->n, threads, e);
}

int psi_answer(const struct psi_side *s, const uint8_t *in, size_t n,
	       unsigned threads, uint8_t *out, struct err *e)
{
	struct job j = { .s = s, .work = ANSWER, .in = in, .out = out };

	return run(&j, n, threads, e);
}

int psi_blind(const struct psi_side *s, const struct psi_ids *ids,
	      unsigned threads, uint8_t *out, uint8_t *secret, struct err *e)
{
	struct job j = {
		.s = s, .work = BLIND, .ids = ids, .out = out, .secret = secret
	};

	return run(&j, ids->n, threads, e);
}

int psi_unblind(const struct psi_side *s, const struct psi_ids *ids,
		const uint8_t *answers, const uint8_t *secret, unsigned threads,
		uint8_t *tags, struct err *e)
{
	struct job j = { .s = s,
			 .work = UNBLIND,
			 .ids = ids,
			 .in = answers,
			 .secret_in = secret,
			 .out = tags };

	return run(&j, ids->n, threads, e);
}
