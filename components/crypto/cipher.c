// SPDX-License-Identifier: Apache-2.0
/* Vectors of ciphertexts: wire form and elementwise arithmetic. */
#include <math.h>
#include <string.h>

#include "components/crypto/paillier_priv.h"

/* Records whose product is tested by one gcd. */
#define GCD_BATCH 64

static size_t limb_bytes(const struct paillier_public *k)
{
	return (size_t)k->n2.k * sizeof(mp_limb_t);
}

struct cipher_vec *cipher_vec_new(const struct paillier_public *k, size_t n,
				  unsigned scale)
{
	struct cipher_vec *v = xcalloc(1, sizeof(*v));

	v->key = k;
	v->n = n;
	v->scale = scale;
	v->c = xcalloc(MAX(n, (size_t)1), limb_bytes(k));
	/* 1 encrypts 0. */
	for (size_t i = 0; i < n; i++)
		mod_one(&k->n2, cipher_at(v, i));
	return v;
}

void cipher_vec_free(struct cipher_vec *v)
{
	if (!v)
		return;
	free(v->c);
	free(v);
}

size_t cipher_vec_len(const struct cipher_vec *v)
{
	return v->n;
}

unsigned cipher_vec_scale(const struct cipher_vec *v)
{
	return v->scale;
}

struct wire_job {
	const struct cipher_vec *v;
	uint8_t *out;
	const uint8_t *in;
	bool bad;
};

static void export_share(void *arg, size_t lo, size_t hi)
{
	struct wire_job *j = arg;
	size_t w = cipher_width(j->v->key);
	mpz_t c;

	mpz_init(c);
	for (size_t i = lo; i < hi; i++) {
		mod_get(&j->v->key->n2, c, cipher_at(j->v, i));
		limbs_export(mpz_limbs_read(c), (mp_size_t)mpz_size(c),
			     j->out + i * w, w);
	}
	mpz_clear(c);
}

void cipher_vec_export(const struct cipher_vec *v, uint8_t *out,
		       unsigned threads)
{
	struct wire_job j = { .v = v, .out = out };

	crypto_split(threads, v->n, export_share, &j);
}

static void import_share(void *arg, size_t lo, size_t hi)
{
	struct wire_job *j = arg;
	const struct paillier_public *k = j->v->key;
	size_t w = cipher_width(k);
	mpz_t prod, c, g;
	bool bad = false;

	mpz_inits(prod, c, g, NULL);
	mpz_set_ui(prod, 1);
	for (size_t i = lo; i < hi && !bad; i++) {
		mpz_t half;

		limbs_import(mpz_limbs_write(c, k->n2.k), k->n2.k,
			     j->in + i * w, w);
		mpz_limbs_finish(c, k->n2.k);
		if (mpz_sgn(c) == 0 || mpz_cmp(c, k->n2.m) >= 0) {
			bad = true;
			break;
		}
		mod_set(&k->n2, cipher_at(j->v, i), c);
		/* The lower half is c R mod n. */
		mpz_mul(prod, prod,
			mpz_roinit_n(half, cipher_at(j->v, i), k->n2.h));
		mpz_mod(prod, prod, k->n);
		/* A factor in common with n shows in the product, too. */
		if ((i - lo) % GCD_BATCH == GCD_BATCH - 1 || i + 1 == hi) {
			mpz_gcd(g, prod, k->n);
			bad = mpz_cmp_ui(g, 1) != 0;
			mpz_set_ui(prod, 1);
		}
	}
	if (bad)
		__atomic_store_n(&j->bad, true, __ATOMIC_RELAXED);
	mpz_clears(prod, c, g, NULL);
}

int cipher_vec_import(const struct paillier_public *k, const uint8_t *in,
		      size_t n, unsigned scale, unsigned threads,
		      struct cipher_vec **ret, struct err *e)
{
	struct wire_job j = { .in = in };
	struct cipher_vec *v = cipher_vec_new(k, n, scale);

	j.v = v;
	crypto_split(threads, n, import_share, &j);
	if (j.bad) {
		cipher_vec_free(v);
		return err_set(e, EPROTO, "a record is no ciphertext");
	}
	*ret = v;
	return 0;
}

static bool same_key(const struct paillier_public *a,
		     const struct paillier_public *b)
{
	return a == b || mpz_cmp(a->n, b->n) == 0;
}

/* One elementwise operation on a. */
struct each_job {
	struct cipher_vec *a;
	const struct cipher_vec *b;
	const double *v;
	unsigned vscale;
	int failed;
};

static mp_limb_t *share_scratch(const struct cipher_vec *a, mp_limb_t **ret)
{
	size_t n = mod_scratch(&a->key->n2);
	mp_limb_t *s = xmalloc((n + (size_t)a->key->n2.k) * sizeof(mp_limb_t));

	*ret = s + n;
	return s;
}

static void add_share(void *arg, size_t lo, size_t hi)
{
	struct each_job *j = arg;
	mp_limb_t *t;
	_cleanup_free_ mp_limb_t *s = share_scratch(j->a, &t);

	for (size_t i = lo; i < hi; i++)
		mod_mul(&j->a->key->n2, cipher_at(j->a, i), cipher_at(j->a, i),
			cipher_at(j->b, i), s);
}

int cipher_add(struct cipher_vec *a, const struct cipher_vec *b,
	       unsigned threads, struct err *e)
{
	struct each_job j = { .a = a, .b = b };

	if (!same_key(a->key, b->key) || a->n != b->n || a->scale != b->scale)
		return err_set(e, EINVAL,
			       "sum of unlike vectors (%zu at %u, %zu at %u)",
			       a->n, a->scale, b->n, b->scale);
	crypto_split(threads, a->n, add_share, &j);
	return 0;
}

static void add_plain_share(void *arg, size_t lo, size_t hi)
{
	struct each_job *j = arg;
	const struct paillier_public *k = j->a->key;
	mp_limb_t *t;
	_cleanup_free_ mp_limb_t *s = share_scratch(j->a, &t);
	mpz_t m;

	mpz_init(m);
	for (size_t i = lo; i < hi; i++) {
		if (paillier_encode(k, m, j->v[i], j->a->scale) < 0) {
			__atomic_store_n(&j->failed, ERANGE, __ATOMIC_RELAXED);
			break;
		}
		paillier_trivial(k, m, m);
		mod_set(&k->n2, t, m);
		mod_mul(&k->n2, cipher_at(j->a, i), cipher_at(j->a, i), t, s);
	}
	crypto_wipe(m);
}

int cipher_add_plain(struct cipher_vec *a, const double *v, unsigned threads,
		     struct err *e)
{
	struct each_job j = { .a = a, .v = v };

	crypto_split(threads, a->n, add_plain_share, &j);
	return j.failed ? err_set(e, j.failed, "number too large to be added")
			: 0;
}

static void mul_plain_share(void *arg, size_t lo, size_t hi)
{
	struct each_job *j = arg;
	const struct paillier_public *k = j->a->key;
	mpz_t m, c;

	mpz_inits(m, c, NULL);
	for (size_t i = lo; i < hi; i++) {
		if (paillier_encode(k, m, j->v[i], j->vscale) < 0) {
			__atomic_store_n(&j->failed, ERANGE, __ATOMIC_RELAXED);
			break;
		}
		mod_get(&k->n2, c, cipher_at(j->a, i));
		/* A negative exponent inverts first; all are units. */
		mpz_powm(c, c, m, k->n2.m);
		mod_set(&k->n2, cipher_at(j->a, i), c);
	}
	crypto_wipe(m);
	mpz_clear(c);
}

int cipher_mul_plain(struct cipher_vec *a, const double *v, unsigned vscale,
		     unsigned threads, struct err *e)
{
	struct each_job j = { .a = a, .v = v, .vscale = vscale };

	crypto_split(threads, a->n, mul_plain_share, &j);
	if (j.failed)
		return err_set(e, j.failed, "factor too large");
	a->scale += vscale;
	return 0;
}

static void rerandomise_share(void *arg, size_t lo, size_t hi)
{
	struct each_job *j = arg;
	const struct paillier_public *k = j->a->key;
	mp_limb_t *t;
	_cleanup_free_ mp_limb_t *s = share_scratch(j->a, &t);
	mpz_t x;

	mpz_init(x);
	for (size_t i = lo; i < hi; i++) {
		paillier_noise(k, t, x, s);
		mod_mul(&k->n2, cipher_at(j->a, i), cipher_at(j->a, i), t, s);
	}
	crypto_wipe(x);
}

int cipher_rerandomise(struct cipher_vec *a, unsigned threads, struct err *e)
{
	struct each_job j = { .a = a };
	struct paillier_public *k = (struct paillier_public *)a->key;

	(void)e;
	fixed_base_need(&k->fb, &k->lock, &k->n2, k->hs, k->alpha, threads);
	crypto_split(threads, a->n, rerandomise_share, &j);
	return 0;
}

struct cipher_vec *cipher_gather(const struct cipher_vec *a,
				 const uint32_t *idx, size_t n)
{
	struct cipher_vec *v = cipher_vec_new(a->key, n, a->scale);

	for (size_t i = 0; i < n; i++) {
		if (idx[i] >= a->n) /* the caller's mistake, not a peer's */
			abort();
		memcpy(cipher_at(v, i), cipher_at(a, idx[i]),
		       limb_bytes(a->key));
	}
	return v;
}

struct cipher_vec *cipher_concat(const struct cipher_vec *a,
				 const struct cipher_vec *b)
{
	struct cipher_vec *v;

	if (!same_key(a->key, b->key) || a->scale != b->scale)
		abort();
	v = cipher_vec_new(a->key, a->n + b->n, a->scale);
	memcpy(v->c, a->c, a->n * limb_bytes(a->key));
	memcpy(cipher_at(v, a->n), b->c, b->n * limb_bytes(a->key));
	return v;
}
