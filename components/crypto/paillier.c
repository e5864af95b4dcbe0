// SPDX-License-Identifier: Apache-2.0
/* Encoding, encryption, decryption. */
#include <math.h>

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

void paillier_trivial(const struct paillier_public *k, mpz_t r, const mpz_t m)
{
	mpz_mul(r, m, k->n);
	mpz_add_ui(r, r, 1);
	if (mpz_sgn(r) < 0)
		mpz_add(r, r, k->n2.m);
}

void paillier_noise(const struct paillier_public *k, mp_limb_t *r, mpz_t e,
		    mp_limb_t *scratch)
{
	crypto_random_bits(e, k->alpha);
	fixed_base_pow(&k->fb, &k->n2, r, e, scratch);
}

struct encrypt_job {
	const struct paillier_public *k;
	const struct paillier_private *owner; /* NULL: with the public key */
	const double *v;
	unsigned scale;
	struct cipher_vec *out;
	size_t bad; /* an element that does not fit, else n */
};

/* Fresh n-th residue by the owner: mod p^2 and mod q^2, then joined. */
static void owner_noise(const struct paillier_private *o, mpz_t r, mpz_t e,
			mpz_t t, mp_limb_t *buf, mp_limb_t *scratch)
{
	crypto_random_bits(e, o->pub.alpha);
	fixed_base_pow(&o->p.fb, &o->p.p2, buf, e, scratch);
	mod_get(&o->p.p2, r, buf);
	fixed_base_pow(&o->q.fb, &o->q.p2, buf, e, scratch);
	mod_get(&o->q.p2, t, buf);
	mpz_sub(r, r, t);
	mpz_mul(r, r, o->q2inv);
	mpz_mod(r, r, o->p.p2.m);
	mpz_mul(r, r, o->q.p2.m);
	mpz_add(r, r, t);
}

static void encrypt_share(void *arg, size_t lo, size_t hi)
{
	struct encrypt_job *j = arg;
	const struct modulus *m = &j->k->n2;
	_cleanup_free_ mp_limb_t *s =
	    xmalloc((mod_scratch(m) + 2 * (size_t)m->k) * sizeof(mp_limb_t));
	mp_limb_t *a = s + mod_scratch(m), *b = a + m->k;
	mpz_t t, e, u;

	mpz_inits(t, e, u, NULL);
	for (size_t i = lo; i < hi; i++) {
		if (paillier_encode(j->k, t, j->v[i], j->scale) < 0) {
			__atomic_store_n(&j->bad, i, __ATOMIC_RELAXED);
			break;
		}
		paillier_trivial(j->k, t, t);
		mod_set(m, a, t);
		if (j->owner) {
			owner_noise(j->owner, t, e, u, b, s);
			mod_set(m, b, t);
		} else {
			paillier_noise(j->k, b, e, s);
		}
		mod_mul(m, cipher_at(j->out, i), a, b, s);
	}
	crypto_wipe(t);
	crypto_wipe(e);
	crypto_wipe(u);
}

static int encrypt(struct encrypt_job *j, size_t n, unsigned threads,
		   struct cipher_vec **ret, struct err *e)
{
	j->out = cipher_vec_new(j->k, n, j->scale);
	j->bad = n;
	crypto_split(threads, n, encrypt_share, j);
	if (j->bad < n) {
		cipher_vec_free(j->out);
		return err_set(e, ERANGE,
			       "element %zu is too large to be encrypted",
			       j->bad);
	}
	*ret = j->out;
	return 0;
}

int paillier_encrypt(const struct paillier_public *k, const double *v, size_t n,
		     unsigned scale, unsigned threads, struct cipher_vec **ret,
		     struct err *e)
{
	struct encrypt_job j = { .k = k, .v = v, .scale = scale };
	struct paillier_public *w = (struct paillier_public *)k;

	fixed_base_need(&w->fb, &w->lock, &k->n2, k->hs, k->alpha, threads);
	return encrypt(&j, n, threads, ret, e);
}

int paillier_encrypt_owner(const struct paillier_private *k, const double *v,
			   size_t n, unsigned scale, unsigned threads,
			   struct cipher_vec **ret, struct err *e)
{
	struct encrypt_job j = {
		.k = &k->pub, .owner = k, .v = v, .scale = scale
	};
	struct paillier_private *w = (struct paillier_private *)k;

	fixed_base_need(&w->p.fb, &w->pub.lock, &k->p.p2, k->p.hs, k->pub.alpha,
			threads);
	fixed_base_need(&w->q.fb, &w->pub.lock, &k->q.p2, k->q.hs, k->pub.alpha,
			threads);
	return encrypt(&j, n, threads, ret, e);
}

struct decrypt_job {
	const struct paillier_private *k;
	const struct cipher_vec *v;
	double *out;
	int failed; /* 0, ERANGE or EPROTO */
};

/* r = m mod p; false when c is no ciphertext (or the CPU erred): a power of
 * p - 1 is 1 mod p. */
static bool decrypt_half(const struct paillier_prime *p, const mpz_t c, mpz_t r,
			 mp_limb_t *buf)
{
	mpz_mod(r, c, p->p2.m);
	mod_set(&p->p2, buf, r);
	mod_pow(&p->p2, buf, buf, p->pm1, (unsigned)mpz_sizeinbase(p->p, 2));
	mod_get(&p->p2, r, buf);
	mpz_sub_ui(r, r, 1);
	if (mpz_sgn(r) < 0 || !mpz_divisible_p(r, p->p))
		return false;
	mpz_divexact(r, r, p->p);
	mpz_mul(r, r, p->h);
	mpz_mod(r, r, p->p);
	return true;
}

/* m * 2^-scale, rounded to nearest. */
static double to_double(mpz_t m, unsigned scale)
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

static void decrypt_share(void *arg, size_t lo, size_t hi)
{
	struct decrypt_job *j = arg;
	const struct paillier_private *k = j->k;
	size_t limbs = (size_t)MAX(k->p.p2.k, k->q.p2.k);
	_cleanup_free_ mp_limb_t *buf = xcalloc(limbs, sizeof(*buf));
	mpz_t c, a, b;

	mpz_inits(c, a, b, NULL);
	for (size_t i = lo; i < hi; i++) {
		mod_get(&k->pub.n2, c, cipher_at(j->v, i));
		if (!decrypt_half(&k->p, c, a, buf) ||
		    !decrypt_half(&k->q, c, b, buf)) {
			__atomic_store_n(&j->failed, EPROTO, __ATOMIC_RELAXED);
			break;
		}
		mpz_sub(a, a, b);
		mpz_mul(a, a, k->qinv);
		mpz_mod(a, a, k->p.p);
		mpz_mul(a, a, k->q.p);
		mpz_add(a, a, b);
		mpz_sub(b, k->pub.n, a);
		if (mpz_cmp(a, k->pub.limit) >= 0) {
			mpz_neg(a, b);
			if (mpz_cmp(b, k->pub.limit) >= 0) {
				__atomic_store_n(&j->failed, ERANGE,
						 __ATOMIC_RELAXED);
				break;
			}
		}
		j->out[i] = to_double(a, j->v->scale);
	}
	explicit_bzero(buf, limbs * sizeof(*buf));
	crypto_wipe(c);
	crypto_wipe(a);
	crypto_wipe(b);
}

int paillier_decrypt(const struct paillier_private *k,
		     const struct cipher_vec *v, double *out, unsigned threads,
		     struct err *e)
{
	struct decrypt_job j = { .k = k, .v = v, .out = out };

	if (mpz_cmp(v->key->n, k->pub.n) != 0)
		return err_set(e, EINVAL, "ciphertexts of another key");
	crypto_split(threads, v->n, decrypt_share, &j);
	if (j.failed == ERANGE)
		return err_set(e, ERANGE, "overflow of an encrypted number");
	if (j.failed)
		return err_set(e, j.failed, "not a ciphertext of this key");
	return 0;
}
