/* SPDX-License-Identifier: Apache-2.0 */
/* What the Paillier files share. */
#ifndef COMPONENTS_CRYPTO_PAILLIER_PRIV_H
#define COMPONENTS_CRYPTO_PAILLIER_PRIV_H

#include <pthread.h>

#include "components/crypto/paillier.h"
#include "components/crypto/square.h"
#include "components/crypto/util.h"

/* Powers of one base: t[i][d] = base^(d * 2^(w i)), i < windows, d < 2^w. */
struct fixed_base {
	unsigned w, windows;
	mp_limb_t *t; /* NULL until first used */
};

struct paillier_public {
	mpz_t n, limit; /* |m| < limit = n / 3 */
	struct modulus n2;
	mpz_t hs;	      /* h^n mod n^2 */
	unsigned alpha;	      /* bits of the randomiser's exponent */
	pthread_mutex_t lock; /* of the making of fb.t */
	struct fixed_base fb;
};

/* One prime of the key. */
struct paillier_prime {
	mpz_t p, pm1;	   /* p, p - 1 */
	struct modulus p2; /* p^2 */
	mpz_t h;	   /* L_p((n + 1)^(p-1) mod p^2)^-1 mod p */
	mpz_t hs;	   /* of the public key, mod p^2 */
	struct fixed_base fb;
};

struct paillier_private {
	struct paillier_public pub;
	struct paillier_prime p, q;
	mpz_t qinv;  /* q^-1 mod p */
	mpz_t q2inv; /* q^-2 mod p^2 */
};

struct cipher_vec {
	const struct paillier_public *key; /* borrowed */
	size_t n;
	unsigned scale;
	mp_limb_t *c; /* n numbers of key->n2.k limbs */
};

static inline mp_limb_t *cipher_at(const struct cipher_vec *v, size_t i)
{
	return v->c + i * (size_t)v->key->n2.k;
}

/* Makes fb.t unless it is there. */
void fixed_base_need(struct fixed_base *fb, pthread_mutex_t *lock,
		     const struct modulus *m, const mpz_t base, unsigned bits,
		     unsigned threads);
/* r = base^e mod m; every window multiplies, also by 1. */
void fixed_base_pow(const struct fixed_base *fb, const struct modulus *m,
		    mp_limb_t *r, const mpz_t e, mp_limb_t *scratch);
void fixed_base_free(struct fixed_base *fb, const struct modulus *m);

/* round(v * 2^scale); -ERANGE unless below the key's limit. */
int paillier_encode(const struct paillier_public *k, mpz_t m, double v,
		    unsigned scale);
/* r = 1 + m n mod n^2, the encryption of m without randomness. */
void paillier_trivial(const struct paillier_public *k, mpz_t r, const mpz_t m);
/* r = fresh n-th residue. */
void paillier_noise(const struct paillier_public *k, mp_limb_t *r, mpz_t e,
		    mp_limb_t *scratch);

/* inv_i = d_i^-1 mod m for n numbers of m->k limbs, one inversion in all;
 * -EINVAL when one is not invertible. scratch as for mod_mul. */
int limbs_invert(const struct modulus *m, mp_limb_t *inv, const mp_limb_t *d,
		 size_t n, mp_limb_t *scratch);

#endif
