// SPDX-License-Identifier: Apache-2.0
/* Encoding, encryption, decryption. */
#include <math.h>
#include <string.h>

#include "components/crypto/paillier_priv.h"

int paillier_encode(const struct paillier_public *k, mpz_t m, double v,
		    unsigned scale)
{
	int ex;
	double f;

	if (!isfinite(v))
		return -ERANGE;
	f = frexp(v, &ex);
	if (ex + (int)scale <= 1000) {
		mpz_set_d(m, rint(ldexp(v, (int)scale)));
	} else {
		mpz_set_d(m, ldexp(f, 53));
		mpz_mul_2exp(m, m, (mp_bitcnt_t)(ex + (int)scale - 53));
	}
	return mpz_cmpabs(m, k->limit) < 0 ? 0 : -ERANGE;
}

void paillier_limbs(const struct paillier_public *k, mp_limb_t *r, mpz_t m)
{
	const mp_size_t nl = (mp_size_t)mpz_size(k->n);
	const bool negative = mpz_sgn(m) < 0;

	if (negative && k->scheme == SCHEME_PAILLIER)
		mpz_add(m, m, k->n);
	for (mp_size_t i = 0; i < nl; i++)
		r[i] = mpz_getlimbn(m, i);
	if (negative && k->scheme == SCHEME_OU)
		(void)mpn_neg(r, r, nl);
}

/* n exponents of `bits` bits, `limbs` limbs each. */
static void random_exponents(mp_limb_t *e, size_t limbs, unsigned bits,
			     size_t n)
{
	crypto_random(e, n * limbs * sizeof(*e));
	if (bits % 64)
		for (size_t i = 1; i <= n; i++)
			e[i * limbs - 1] &= (UINT64_C(1) << bits % 64) - 1;
}

void paillier_noise(const struct paillier_public *k, uint64_t *r,
		    const mp_limb_t *m, size_t n)
{
	size_t limbs = (k->alpha + 63) / 64;
	uint64_t *e = ring_alloc(n * limbs);

	random_exponents(e, limbs, k->alpha, n);
	if (k->scheme == SCHEME_PAILLIER) {
		fixed_base_pow(&k->fb, k->n2, r, k->n2->rr, e, limbs, m, n);
	} else {
		fixed_base_pow(&k->fb, k->n2, r, k->n2->one, e, limbs, NULL, n);
		if (m)
			ou_add_plain(k, r, m, n);
	}
	ring_wipe(e, n * limbs);
}

void paillier_add_plain(const struct paillier_public *k, uint64_t *r,
			const mp_limb_t *m, size_t n)
{
	if (k->scheme == SCHEME_PAILLIER)
		ring_add_plain(k->n2, r, m, n);
	else
		ou_add_plain(k, r, m, n);
}

void paillier_fresh(const struct paillier_public *k, uint64_t *r,
		    const mp_limb_t *m, size_t n)
{
	const size_t nl = mpz_size(k->n), got = paillier_ahead_take(k, r, n);

	if (m && got > 0)
		paillier_add_plain(k, r, m, got);
	if (got < n)
		paillier_noise(k, r + got * k->n2->k, m ? m + got * nl : NULL,
			       n - got);
}

/*
 * The owner's: h^e modulo p^2 and q^2, each over the square of the other
 * prime, u and v; then u q^2 + v p^2 is h^e modulo both, and times 1 + m n.
 */
static void owner_noise(const struct paillier_private *o, uint64_t *r,
			const mp_limb_t *m, size_t n)
{
	const struct paillier_prime *prime[] = { &o->p, &o->q };
	const struct ring *g = o->pub.n2;
	const size_t limbs = (o->pub.alpha + 63) / 64, group = ring_group(g);
	const size_t nl = mpz_size(o->pub.n),
		     sum = (size_t)(g->h + 1) * g->lanes;
	const size_t kmax = MAX(o->p.p2->k, o->q.p2->k);
	const size_t ul = (size_t)MAX(o->p.p2->limbs, o->q.p2->limbs);
	const size_t all = n * (limbs + kmax + 2 * ul) + 8;
	uint64_t *e = ring_alloc(all), *rec = e + n * limbs;
	uint64_t *u[] = { rec + n * kmax, rec + n * (kmax + ul) };
	uint64_t *x = ring_alloc(2 * group + sum + g->k);
	uint64_t *y = x + group, *t = y + group, *spare = t + sum;
	uint64_t *s = ring_alloc(g->scratch);

	random_exponents(e, limbs, o->pub.alpha, n);
	for (int i = 0; i < 2; i++) {
		fixed_base_pow(&prime[i]->fb, prime[i]->p2, rec,
			       prime[i]->start, e, limbs, NULL, n);
		ring_leave(prime[i]->p2, u[i], rec, n);
	}
	for (size_t at = 0; at < n; at += g->lanes) {
		const mp_limb_t *from[3][RING_LANES];
		uint64_t *to[RING_LANES];

		for (size_t l = 0; l < g->lanes; l++) {
			const size_t j = MIN(at + l, n - 1);

			from[0][l] = u[0] + j * (size_t)o->p.p2->limbs;
			from[1][l] = u[1] + j * (size_t)o->q.p2->limbs;
			from[2][l] = m + j * nl;
			to[l] = at + l < n ? r + j * g->k : spare;
		}
		g->op.raw(g, y, from[0], (size_t)o->p.p2->limbs);
		g->op.mul_low(g, x, o->p.weight, y, s);
		g->op.raw(g, y, from[1], (size_t)o->q.p2->limbs);
		g->op.mul_low(g, y, o->q.weight, y, s);
		g->op.add(g, x, x, y);
		memset(t, 0, sum * sizeof(*t));
		g->op.raw(g, t, from[2], nl);
		g->op.sum_end(g, x, t, s);
		g->op.store(g, to, x);
	}
	ring_wipe(s, g->scratch);
	ring_wipe(x, 2 * group + sum + g->k);
	ring_wipe(e, all);
}

/* r^n g^m for r uniform below n. */
static void exact_noise(const struct paillier_public *k, uint64_t *r,
			const mp_limb_t *m, size_t n)
{
	const size_t nl = mpz_size(k->n);
	uint64_t *v = ring_alloc(n * nl);
	mpz_t t;

	mpz_init(t);
	for (size_t i = 0; i < n; i++) {
		do
			crypto_random_below(t, k->n);
		while (mpz_sgn(t) == 0);
		paillier_limbs(k, v + i * nl, t);
	}
	crypto_wipe(t);
	ring_enter(k->n2, r, v, nl, n);
	ring_pow_public(k->n2, r, r, n, k->n);
	paillier_add_plain(k, r, m, n);
	ring_wipe(v, n * nl);
}

struct encrypt_job {
	const struct paillier_public *k;
	const struct paillier_private *owner; /* NULL: with the public key */
	bool exact;
	const struct packing *p; /* or NULL: one number each */
	const double *v;
	size_t n; /* of v */
	unsigned scale;
	struct cipher_vec *out;
	size_t bad; /* an element that does not fit, else n */
};

static int plaintext(const struct encrypt_job *j, size_t i, mpz_t m)
{
	const size_t per = j->p ? j->p->per : 1;

	if (!j->p)
		return paillier_encode(j->k, m, j->v[i], j->scale);
	return pack_encode(j->k, j->p, m, j->v + i * per,
			   MIN(per, j->n - i * per), j->scale);
}

static void encrypt_share(void *arg, size_t lo, size_t hi)
{
	struct encrypt_job *j = arg;
	const size_t nl = mpz_size(j->k->n);
	uint64_t *m = ring_alloc(PAILLIER_BLOCK * nl);
	mpz_t t;

	mpz_init(t);
	for (size_t i = lo; i < hi; i += PAILLIER_BLOCK) {
		size_t n = MIN(hi - i, (size_t)PAILLIER_BLOCK);

		for (size_t at = i; at < i + n; at++) {
			if (plaintext(j, at, t) < 0) {
				__atomic_store_n(&j->bad, at, __ATOMIC_RELAXED);
				goto out;
			}
			paillier_limbs(j->k, m + (at - i) * nl, t);
		}
		if (j->owner && j->k->scheme == SCHEME_PAILLIER)
			owner_noise(j->owner, cipher_at(j->out, i), m, n);
		else if (j->exact)
			exact_noise(j->k, cipher_at(j->out, i), m, n);
		else
			paillier_fresh(j->k, cipher_at(j->out, i), m, n);
	}
out:
	ring_wipe(m, PAILLIER_BLOCK * nl);
	crypto_wipe(t);
}

static int encrypt(struct encrypt_job *j, unsigned threads,
		   struct cipher_vec **ret, struct err *e)
{
	size_t n = j->p ? packed_len(j->p, j->n) : j->n;

	j->out = cipher_vec_new(j->k, n, j->scale);
	j->bad = n;
	crypto_split(threads, n, encrypt_share, j);
	if (j->bad < n) {
		cipher_vec_free(j->out);
		return err_set(e, ERANGE, "%s %zu is too large to be encrypted",
			       j->p ? "a number of plaintext" : "element",
			       j->bad);
	}
	*ret = j->out;
	return 0;
}

int paillier_encrypt(const struct paillier_public *k, const double *v, size_t n,
		     unsigned scale, unsigned threads, struct cipher_vec **ret,
		     struct err *e)
{
	struct encrypt_job j = { .k = k, .v = v, .n = n, .scale = scale };
	struct paillier_public *w = (struct paillier_public *)k;

	paillier_table(k, &w->fb, k->n2, k->hs, threads);
	return encrypt(&j, threads, ret, e);
}

int paillier_encrypt_exact(const struct paillier_public *k, const double *v,
			   size_t n, unsigned scale, unsigned threads,
			   struct cipher_vec **ret, struct err *e)
{
	struct encrypt_job j = {
		.k = k, .exact = true, .v = v, .n = n, .scale = scale
	};

	return encrypt(&j, threads, ret, e);
}

static void owner_tables(const struct paillier_private *k, unsigned threads)
{
	struct paillier_private *w = (struct paillier_private *)k;

	if (k->pub.scheme == SCHEME_OU) {
		paillier_table(&k->pub, &w->pub.fb, k->pub.n2, k->pub.hs,
			       threads);
		return;
	}
	paillier_table(&k->pub, &w->p.fb, k->p.p2, k->p.hs, threads);
	paillier_table(&k->pub, &w->q.fb, k->q.p2, k->q.hs, threads);
}

int paillier_encrypt_owner(const struct paillier_private *k, const double *v,
			   size_t n, unsigned scale, unsigned threads,
			   struct cipher_vec **ret, struct err *e)
{
	struct encrypt_job j = {
		.k = &k->pub, .owner = k, .v = v, .n = n, .scale = scale
	};

	owner_tables(k, threads);
	return encrypt(&j, threads, ret, e);
}

int paillier_encrypt_packed(const struct paillier_public *k,
			    const struct paillier_private *owner,
			    const double *v, size_t n, unsigned scale,
			    const struct packing *p, unsigned threads,
			    struct cipher_vec **ret, struct err *e)
{
	struct encrypt_job j = {
		.k = k, .owner = owner, .p = p, .v = v, .n = n, .scale = scale
	};
	struct paillier_public *w = (struct paillier_public *)k;
	int r = pack_check(k, p, e);

	if (r < 0)
		return r;
	if (owner)
		owner_tables(owner, threads);
	else
		paillier_table(k, &w->fb, k->n2, k->hs, threads);
	return encrypt(&j, threads, ret, e);
}

/*
 * m_i mod p in the limbs of p, of ciphertexts (integers of `limbs`): the power
 * of p - 1 is 1 + L p; L h is m. False when the power is not 1 modulo p: no
 * ciphertext, or the processor erred.
 */
static bool decrypt_half(const struct paillier_prime *p, mp_limb_t *m,
			 const mp_limb_t *c, size_t limbs, size_t n)
{
	const struct ring *g = p->p2, *flat = p->p1;
	const size_t group = ring_group(g), half = ring_group(flat);
	const size_t ml = (size_t)flat->limbs;
	uint64_t *r = ring_alloc(n * g->k), *s = ring_alloc(g->scratch);
	uint64_t *x = ring_alloc(group + half + ml);
	uint64_t *one = x + group, *spare = one + half, wrong = 0;

	for (size_t l = 0; l < g->lanes; l++)
		one[l] = 1;
	ring_enter(g, r, c, limbs, n);
	ring_pow(g, r, r, n, mpz_limbs_read(p->pm1),
		 (unsigned)mpz_sizeinbase(p->p, 2));
	for (size_t i = 0; i < n; i += g->lanes) {
		const uint64_t *at[RING_LANES];
		uint64_t *to[RING_LANES];

		for (size_t l = 0; l < g->lanes; l++) {
			at[l] = r + MIN(i + l, n - 1) * g->k;
			to[l] = i + l < n ? m + (i + l) * ml : spare;
		}
		g->op.load(g, x, at);
		g->op.mul_low(g, x, x, one, s);
		for (size_t w = 0; w < half; w++)
			wrong |= x[w] ^ one[w];
		flat->op.mul(flat, x, x + half, p->hr, s);
		flat->op.leave(flat, to, x, s);
	}
	ring_wipe(x, group + half + ml);
	ring_wipe(s, g->scratch);
	ring_wipe(r, n * g->k);
	return wrong == 0;
}

/* a_i = the number that is a_i mod p and b_i mod q, in `nl` limbs at r. */
static void join_halves(const struct paillier_private *k, mp_limb_t *r,
			size_t nl, mp_limb_t *a, mp_limb_t *b, size_t n)
{
	const struct ring *g = k->p.p1;
	const mp_size_t ml = g->limbs;
	const mp_limb_t *p = mpz_limbs_read(k->p.p);
	const mp_size_t itch = mpn_sec_mul_itch(ml, ml);
	uint64_t *t = ring_alloc((size_t)(3 * ml + itch));
	uint64_t *rec = ring_alloc(n * g->k), *wide = t + ml;

	for (size_t i = 0; i < n; i++) {
		mp_limb_t *x = a + i * (size_t)ml;

		/* b mod p: q < 2 p as both have their two top bits set. */
		(void)mpn_cnd_add_n(mpn_sub_n(t, b + i * (size_t)ml, p, ml), t,
				    t, p, ml);
		(void)mpn_cnd_add_n(mpn_sub_n(x, x, t, ml), x, x, p, ml);
	}
	ring_enter(g, rec, a, (size_t)ml, n);
	ring_mul(g, rec, rec, k->qinv, 0, n);
	ring_leave(g, a, rec, n);
	for (size_t i = 0; i < n; i++) {
		mpn_sec_mul(wide, a + i * (size_t)ml, ml,
			    mpz_limbs_read(k->q.p), ml, wide + 2 * ml);
		mpn_zero(t, ml);
		(void)mpn_add_1(wide + ml, wide + ml, ml,
				mpn_add_n(wide, wide, b + i * (size_t)ml, ml));
		mpn_copyi(r + i * nl, wide, (mp_size_t)nl);
	}
	ring_wipe(rec, n * g->k);
	ring_wipe(t, (size_t)(3 * ml + itch));
}

double paillier_decode(mpz_t m, unsigned scale)
{
	bool negative = mpz_sgn(m) < 0;
	long drop;
	double d;

	mpz_abs(m, m);
	drop = (long)mpz_sizeinbase(m, 2) - 54;
	if (drop > 0) {
		mpz_tdiv_q_2exp(m, m, (mp_bitcnt_t)drop);
		mpz_add_ui(m, m, 1);
		mpz_tdiv_q_2exp(m, m, 1);
		drop++;
	} else {
		drop = 0;
	}
	d = ldexp(mpz_get_d(m), (int)(drop - (long)scale));
	return negative ? -d : d;
}

struct decrypt_job {
	const struct paillier_private *k;
	const struct cipher_vec *v;
	const struct packing *p; /* or NULL: one number each */
	bool dot;		 /* p: one inner product each */
	double *out;
	size_t n;   /* of out */
	int failed; /* 0, ERANGE or EPROTO */
};

/* The signed numbers of n plaintexts from number `first` on; 0 or ERANGE. */
static int to_doubles(const struct decrypt_job *j, const mp_limb_t *m,
		      size_t first, size_t n)
{
	mpz_srcptr modulus = paillier_plain_modulus(j->k);
	mpz_srcptr limit = j->k->pub.limit;
	const size_t nl = mpz_size(modulus);
	const size_t per = j->p && !j->dot ? j->p->per : 1;
	int rc = 0;
	mpz_t a, b, in;

	mpz_inits(a, b, NULL);
	for (size_t i = 0; i < n && rc == 0; i++) {
		const size_t at = (first + i) * per;

		mpz_set(a, mpz_roinit_n(in, m + i * nl, (mp_size_t)nl));
		mpz_sub(b, modulus, a);
		if (mpz_cmp(a, limit) >= 0) {
			mpz_neg(a, b);
			if (mpz_cmp(b, limit) >= 0)
				rc = ERANGE;
		}
		if (j->dot)
			j->out[at] = dot_decode(j->p, a, j->v->scale);
		else if (j->p)
			pack_decode(j->p, a, j->v->scale, j->out + at,
				    MIN(per, j->n - at));
		else
			j->out[at] = paillier_decode(a, j->v->scale);
	}
	crypto_wipe(a);
	crypto_wipe(b);
	return rc;
}

static void decrypt_share(void *arg, size_t lo, size_t hi)
{
	struct decrypt_job *j = arg;
	const struct paillier_private *k = j->k;
	const size_t limbs = (size_t)k->pub.n2->limbs, nl = mpz_size(k->pub.n);
	const size_t ml = mpz_size(k->p.p), each = limbs + 2 * ml + nl;
	uint64_t *c = ring_alloc(PAILLIER_BLOCK * each);
	uint64_t *a = c + PAILLIER_BLOCK * limbs, *b = a + PAILLIER_BLOCK * ml;
	uint64_t *m = b + PAILLIER_BLOCK * ml;

	for (size_t i = lo; i < hi; i += PAILLIER_BLOCK) {
		size_t n = MIN(hi - i, (size_t)PAILLIER_BLOCK);
		int rc = EPROTO;

		ring_leave(j->v->key->n2, c, cipher_at(j->v, i), n);
		if (k->pub.scheme == SCHEME_OU) {
			if (decrypt_half(&k->p, a, c, limbs, n))
				rc = to_doubles(j, a, i, n);
		} else if (decrypt_half(&k->p, a, c, limbs, n) &&
			   decrypt_half(&k->q, b, c, limbs, n)) {
			join_halves(k, m, nl, a, b, n);
			rc = to_doubles(j, m, i, n);
		}
		if (rc) {
			__atomic_store_n(&j->failed, rc, __ATOMIC_RELAXED);
			break;
		}
	}
	ring_wipe(c, PAILLIER_BLOCK * each);
}

static int decrypt(struct decrypt_job *j, unsigned threads, struct err *e)
{
	if (j->v->key->scheme != j->k->pub.scheme ||
	    mpz_cmp(j->v->key->n, j->k->pub.n) != 0)
		return err_set(e, EINVAL, "ciphertexts of another key");
	crypto_split(threads, j->v->n, decrypt_share, j);
	if (j->failed)
		explicit_bzero(j->out, j->n * sizeof(*j->out));
	if (j->failed == ERANGE)
		return err_set(e, ERANGE, "overflow of an encrypted number");
	if (j->failed)
		return err_set(e, j->failed, "not a ciphertext of this key");
	return 0;
}

int paillier_decrypt(const struct paillier_private *k,
		     const struct cipher_vec *v, double *out, unsigned threads,
		     struct err *e)
{
	struct decrypt_job j = { .k = k, .v = v, .out = out, .n = v->n };

	return decrypt(&j, threads, e);
}

int paillier_decrypt_packed(const struct paillier_private *k,
			    const struct cipher_vec *v, const struct packing *p,
			    double *out, size_t n, unsigned threads,
			    struct err *e)
{
	struct decrypt_job j = { .k = k, .v = v, .p = p, .out = out, .n = n };
	int r = pack_check(&k->pub, p, e);

	if (r < 0)
		return r;
	if (v->n != packed_len(p, n))
		return err_set(e, EINVAL, "%zu numbers in %zu ciphertexts", n,
			       v->n);
	return decrypt(&j, threads, e);
}

int paillier_decrypt_dot(const struct paillier_private *k,
			 const struct cipher_vec *v, const struct packing *p,
			 double *out, unsigned threads, struct err *e)
{
	struct decrypt_job j = {
		.k = k, .v = v, .p = p, .dot = true, .out = out, .n = v->n
	};

	if (p->per < 1 || p->per > paillier_dot_most(&k->pub, p->bits))
		return err_set(e, EINVAL, "%u rows of %u bits in a plaintext",
			       p->per, p->bits);
	return decrypt(&j, threads, e);
}
