/* SPDX-License-Identifier: Apache-2.0 */
/* What the Paillier files share. */
#ifndef COMPONENTS_CRYPTO_PAILLIER_PRIV_H
#define COMPONENTS_CRYPTO_PAILLIER_PRIV_H

#include <pthread.h>

#include "components/crypto/paillier.h"
#include "components/crypto/power.h"
#include "components/crypto/util.h"

/* Numbers that go through a step together, in each thread. */
#define PAILLIER_BLOCK 64

struct paillier_public {
	enum paillier_scheme scheme;
	mpz_t n, limit;	      /* |m| < limit */
	struct ring *n2, *n1; /* of ciphertexts: modulo n^2 (n); modulo n */
	mpz_t hs;	      /* h^n mod n^2; g^n mod n */
	unsigned alpha;	      /* bits of the randomiser's exponent */
	pthread_mutex_t lock; /* of the making of tables */
	struct fixed_base fb; /* of hs */
	struct paillier_ahead *ahead; /* or NULL */
	/* Okamoto-Uchiyama, the latter two made at first use: */
	mpz_t g;
	struct fixed_base fg; /* of g */
	uint64_t *offset;     /* okamoto_uchiyama.c */
};

/* One prime p of the key; q is the other one. */
struct paillier_prime {
	mpz_t p, pm1;	      /* p, p - 1 */
	struct ring *p2, *p1; /* modulo p^2 and p */
	mpz_t h;	      /* L_p(g^(p-1) mod p^2)^-1 mod p; g = n + 1 */
	uint64_t *hr;	      /* group of p1: h R^2 */
	mpz_t hs;	      /* of the public key, mod p^2 */
	uint64_t *start;      /* group of p2: q^-2 R^2 */
	uint64_t *weight;     /* group of n2: q^2 R^3 */
	struct fixed_base fb;
};

struct paillier_private {
	struct paillier_public pub;
	struct paillier_prime p, q; /* Okamoto-Uchiyama: q.p alone of q */
	uint64_t *qinv;		    /* record of p.p1: q^-1 */
};

struct cipher_vec {
	const struct paillier_public *key; /* borrowed */
	size_t n;
	unsigned scale;
	uint64_t *c; /* n records of key->n2 */
};

/* What plaintexts are modulo. */
static inline mpz_srcptr
paillier_plain_modulus(const struct paillier_private *k)
{
	return k->pub.scheme == SCHEME_PAILLIER ? k->pub.n : k->p.p;
}

static inline uint64_t *cipher_at(const struct cipher_vec *v, size_t i)
{
	return v->c + i * v->key->n2->k;
}

/* The key of two given primes with their two top bits set, 3 mod 4: for known
 * answers. */
struct paillier_private *paillier_from_primes(const mpz_t p, const mpz_t q);
/* Of Okamoto and Uchiyama; NULL when g is none. */
struct paillier_private *ou_from_primes(const mpz_t p, const mpz_t q,
					const mpz_t g);
/* Makes fb->t unless it is there. */
void paillier_table(const struct paillier_public *k, struct fixed_base *fb,
		    const struct ring *g, const mpz_t base, unsigned threads);
/* Group of v (an integer below the modulus). */
void paillier_constant(const struct ring *g, uint64_t *r, const mpz_t v);

/* round(v * 2^scale); -ERANGE unless below the key's limit. */
int paillier_encode(const struct paillier_public *k, mpz_t m, double v,
		    unsigned scale);
/* m mod n (Okamoto-Uchiyama: m in two's complement) in the limbs of n. */
void paillier_limbs(const struct paillier_public *k, mp_limb_t *r, mpz_t m);
/* m * 2^-scale to the nearest double; m is lost. */
double paillier_decode(mpz_t m, unsigned scale);

/* cipher_pack.c */
int pack_check(const struct paillier_public *k, const struct packing *p,
	       struct err *e) MUST_CHECK;
size_t packed_len(const struct packing *p, size_t n);
/* n <= per numbers into m and out of it (m is lost); -ERANGE: too large. */
int pack_encode(const struct paillier_public *k, const struct packing *p,
		mpz_t m, const double *v, size_t n, unsigned scale);
void pack_decode(const struct packing *p, mpz_t m, unsigned scale, double *out,
		 size_t n);

/* cipher_dot.c: the inner product out of a plaintext; m is lost. */
double dot_decode(const struct packing *p, mpz_t m, unsigned scale);

/* r_i = fresh n-th residue times g^m_i, m integers as above or NULL. */
void paillier_noise(const struct paillier_public *k, uint64_t *r,
		    const mp_limb_t *m, size_t n);
/* The same, of which some may have been made ahead. */
void paillier_fresh(const struct paillier_public *k, uint64_t *r,
		    const mp_limb_t *m, size_t n);
/* Takes up to n of those, gives their number. */
size_t paillier_ahead_take(const struct paillier_public *k, uint64_t *r,
			   size_t n);
void paillier_ahead_end(struct paillier_public *k);
/* r_i *= g^m_i, m integers as above. */
void paillier_add_plain(const struct paillier_public *k, uint64_t *r,
			const mp_limb_t *m, size_t n);

/* Numbers below this are what Okamoto-Uchiyama encrypts under n of `bits`. */
void ou_limit(mpz_t limit, unsigned bits);
void ou_add_plain(const struct paillier_public *k, uint64_t *r,
		  const mp_limb_t *m, size_t n);
void ou_public_clear(struct paillier_public *k);

/* The scalars of a matrix product: below 2^bits in magnitude, bits <= 61. */
struct scalars {
	const double *x; /* row-major, at xscale bits */
	size_t cols;
	unsigned xscale, bits;
};
int64_t scalar_at(const struct scalars *s, size_t row, size_t col);
/* ret_j *= prod_i d_i^s_ij over `rows` rows; -EPROTO when a d_i is no unit. */
int straus(const struct cipher_vec *d, const struct scalars *s, size_t rows,
	   unsigned threads, struct cipher_vec *ret);
int pippenger(const struct cipher_vec *d, const struct scalars *s, size_t rows,
	      unsigned threads, struct cipher_vec *ret);

#endif
