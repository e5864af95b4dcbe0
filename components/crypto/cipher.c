// SPDX-License-Identifier: Apache-2.0
/* Vectors of ciphertexts: wire form and elementwise arithmetic. */
#include <math.h>
#include <string.h>

#include "components/crypto/paillier_priv.h"

static size_t record_bytes(const struct paillier_public *k)
{
	return (size_t)k->n2->k * sizeof(uint64_t);
}

struct cipher_vec *cipher_vec_new(const struct paillier_public *k, size_t n,
				  unsigned scale)
{
	struct cipher_vec *v = xcalloc(1, sizeof(*v));

	v->key = k;
	v->n = n;
	v->scale = scale;
	v->c = ring_alloc(n * k->n2->k);
	/* 1 encrypts 0. */
	for (size_t i = 0; i < n; i++)
		for (size_t w = 0; w < k->n2->k; w++)
			cipher_at(v, i)[w] = k->n2->one[w * k->n2->lanes];
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
	const struct ring *g = j->v->key->n2;
	size_t w = cipher_width(j->v->key), limbs = (size_t)g->limbs;
	_cleanup_free_ uint64_t *c = ring_alloc(PAILLIER_BLOCK * limbs);

	for (size_t i = lo; i < hi; i += PAILLIER_BLOCK) {
		size_t n = MIN(hi - i, (size_t)PAILLIER_BLOCK);

		ring_leave(g, c, cipher_at(j->v, i), n);
		for (size_t r = 0; r < n; r++)
			limbs_export(c + r * limbs, g->limbs,
				     j->out + (i + r) * w, w);
	}
}

void cipher_vec_export(const struct cipher_vec *v, uint8_t *out,
		       unsigned threads)
{
	struct wire_job j = { .v = v, .out = out };

	crypto_split(threads, v->n, export_share, &j);
}

/* Whether the product of all of them is a unit modulo n: the lower half of a
 * record is the number times R modulo n. */
static bool coprime(const struct cipher_vec *v, size_t lo, size_t hi)
{
	const struct ring *g = v->key->n2, *flat = v->key->n1;
	const size_t group = ring_group(g), half = ring_group(flat);
	const size_t nl = (size_t)flat->limbs;
	_cleanup_free_ uint64_t *x = ring_alloc(group + half + nl * g->lanes);
	_cleanup_free_ uint64_t *s = ring_alloc(g->scratch);
	uint64_t *run = x + group, *out = run + half;
	mpz_t prod, in;
	bool ok;

	memcpy(run, flat->one, half * sizeof(*run));
	for (size_t i = lo; i < hi; i += g->lanes) {
		const uint64_t *at[RING_LANES];

		for (size_t l = 0; l < g->lanes; l++)
			at[l] = cipher_at(v, MIN(i + l, hi - 1));
		g->op.load(g, x, at);
		flat->op.mul(flat, run, run, x, s);
	}
	mpz_init_set_ui(prod, 1);
	for (size_t l = 0; l < g->lanes; l++) {
		mp_limb_t *to[RING_LANES];

		for (size_t o = 0; o < g->lanes; o++)
			to[o] = out + o * nl;
		if (l == 0)
			flat->op.leave(flat, to, run, s);
		mpz_mul(prod, prod,
			mpz_roinit_n(in, out + l * nl, flat->limbs));
		mpz_mod(prod, prod, v->key->n);
	}
	mpz_gcd(prod, prod, v->key->n);
	ok = mpz_cmp_ui(prod, 1) == 0;
	mpz_clear(prod);
	return ok;
}

static void import_share(void *arg, size_t lo, size_t hi)
{
	struct wire_job *j = arg;
	const struct paillier_public *k = j->v->key;
	size_t w = cipher_width(k), limbs = (size_t)k->n2->limbs;
	_cleanup_free_ uint64_t *c = ring_alloc(PAILLIER_BLOCK * limbs);
	const mp_limb_t *m = mpz_limbs_read(k->n2->m);
	bool ok = true;

	for (size_t i = lo; i < hi && ok; i += PAILLIER_BLOCK) {
		size_t n = MIN(hi - i, (size_t)PAILLIER_BLOCK);

		for (size_t r = 0; r < n && ok; r++) {
			mp_limb_t *to = c + r * limbs;

			limbs_import(to, k->n2->limbs, j->in + (i + r) * w, w);
			ok = !mpn_zero_p(to, k->n2->limbs) &&
			     mpn_cmp(to, m, k->n2->limbs) < 0;
		}
		if (ok)
			ring_enter(k->n2, cipher_at(j->v, i), c, limbs, n);
	}
	if (!ok || (hi > lo && !coprime(j->v, lo, hi)))
		__atomic_store_n(&j->bad, true, __ATOMIC_RELAXED);
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
	return a == b ||
	       (a->scheme == b->scheme && a->n2->lanes == b->n2->lanes &&
		mpz_cmp(a->n, b->n) == 0);
}

/* One elementwise operation on a. */
struct each_job {
	struct cipher_vec *a;
	const struct cipher_vec *b;
	const double *v;
	unsigned vscale;
	int failed;
};

static void add_share(void *arg, size_t lo, size_t hi)
{
	struct each_job *j = arg;

	ring_mul(j->a->key->n2, cipher_at(j->a, lo), cipher_at(j->a, lo),
		 cipher_at(j->b, lo), 1, hi - lo);
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

static void fail(struct each_job *j, int no)
{
	__atomic_store_n(&j->failed, no, __ATOMIC_RELAXED);
}

static void add_plain_share(void *arg, size_t lo, size_t hi)
{
	struct each_job *j = arg;
	const struct paillier_public *k = j->a->key;
	const size_t nl = mpz_size(k->n);
	uint64_t *x = ring_alloc(PAILLIER_BLOCK * nl);
	mpz_t m;

	mpz_init(m);
	for (size_t i = lo; i < hi; i += PAILLIER_BLOCK) {
		size_t n = MIN(hi - i, (size_t)PAILLIER_BLOCK);

		for (size_t r = 0; r < n; r++) {
			if (paillier_encode(k, m, j->v[i + r], j->a->scale) <
			    0) {
				fail(j, ERANGE);
				goto out;
			}
			paillier_limbs(k, x + r * nl, m);
		}
		paillier_add_plain(k, cipher_at(j->a, i), x, n);
	}
out:
	crypto_wipe(m);
	ring_wipe(x, PAILLIER_BLOCK * nl);
}

int cipher_add_plain(struct cipher_vec *a, const double *v, unsigned threads,
		     struct err *e)
{
	struct each_job j = { .a = a, .v = v };

	crypto_split(threads, a->n, add_plain_share, &j);
	return j.failed ? err_set(e, j.failed, "number too large to be added")
			: 0;
}

/* The powers by |v|, of c or, where v is negative, of 1 / c: all are
 * inverted, so that the time does not depend on the signs. */
static void mul_plain_share(void *arg, size_t lo, size_t hi)
{
	struct each_job *j = arg;
	const struct ring *g = j->a->key->n2;
	const size_t k = g->k, nl = mpz_size(j->a->key->n);
	uint64_t *inv = ring_alloc(PAILLIER_BLOCK * k);
	uint64_t *e = ring_alloc(PAILLIER_BLOCK * nl);
	uint64_t negative[PAILLIER_BLOCK];
	mpz_t m;

	mpz_init(m);
	for (size_t i = lo; i < hi && !j->failed; i += PAILLIER_BLOCK) {
		size_t n = MIN(hi - i, (size_t)PAILLIER_BLOCK);
		uint64_t *c = cipher_at(j->a, i);
		unsigned bits = 1;

		for (size_t r = 0; r < n; r++) {
			if (paillier_encode(j->a->key, m, j->v[i + r],
					    j->vscale) < 0) {
				fail(j, ERANGE);
				goto out;
			}
			negative[r] = -(uint64_t)(mpz_sgn(m) < 0);
			bits = MAX(bits, (unsigned)mpz_sizeinbase(m, 2));
			for (size_t w = 0; w < nl; w++)
				e[r * nl + w] = mpz_getlimbn(m, (mp_size_t)w);
		}
		if (ring_invert(g, inv, c, n) < 0) {
			fail(j, EPROTO);
			break;
		}
		for (size_t r = 0; r < n; r++)
			for (size_t w = r * k; w < (r + 1) * k; w++)
				c[w] ^= (c[w] ^ inv[w]) & negative[r];
		ring_pow_each(g, c, c, e, nl, n, bits);
	}
out:
	crypto_wipe(m);
	ring_wipe(e, PAILLIER_BLOCK * nl);
	ring_wipe(inv, PAILLIER_BLOCK * k);
}

int cipher_mul_plain(struct cipher_vec *a, const double *v, unsigned vscale,
		     unsigned threads, struct err *e)
{
	struct each_job j = { .a = a, .v = v, .vscale = vscale };

	crypto_split(threads, a->n, mul_plain_share, &j);
	if (j.failed == EPROTO)
		return err_set(e, EPROTO, "a ciphertext is no unit");
	if (j.failed)
		return err_set(e, j.failed, "factor too large");
	a->scale += vscale;
	return 0;
}

static void rerandomise_share(void *arg, size_t lo, size_t hi)
{
	struct each_job *j = arg;
	const struct ring *g = j->a->key->n2;
	uint64_t *r = ring_alloc(PAILLIER_BLOCK * g->k);

	for (size_t i = lo; i < hi; i += PAILLIER_BLOCK) {
		size_t n = MIN(hi - i, (size_t)PAILLIER_BLOCK);

		paillier_fresh(j->a->key, r, NULL, n);
		ring_mul(g, cipher_at(j->a, i), cipher_at(j->a, i), r, 1, n);
	}
	ring_wipe(r, PAILLIER_BLOCK * g->k);
}

int cipher_rerandomise(struct cipher_vec *a, unsigned threads, struct err *e)
{
	struct each_job j = { .a = a };
	struct paillier_public *k = (struct paillier_public *)a->key;

	(void)e;
	paillier_table(k, &k->fb, k->n2, k->hs, threads);
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
		       record_bytes(a->key));
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
	memcpy(v->c, a->c, a->n * record_bytes(a->key));
	memcpy(cipher_at(v, a->n), b->c, b->n * record_bytes(a->key));
	return v;
}
