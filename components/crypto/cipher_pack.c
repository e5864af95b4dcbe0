// SPDX-License-Identifier: Apache-2.0
/* Several numbers in one plaintext: sum_l m_l 2^(bits l). */
#include <string.h>

#include "components/crypto/paillier_priv.h"

unsigned paillier_pack_most(const struct paillier_public *k, unsigned bits)
{
	/* |sum| < 2^(bits per - 1) <= 2^(|n| - 3) < n / 3, or <= the limit, a
	 * power of 2. */
	const unsigned room = k->scheme == SCHEME_OU
				  ? (unsigned)mpz_sizeinbase(k->limit, 2)
				  : paillier_bits(k) - 2;

	return bits < 2 ? 0 : room / bits;
}

int pack_check(const struct paillier_public *k, const struct packing *p,
	       struct err *e)
{
	unsigned most = paillier_pack_most(k, p->bits);

	if (p->per >= 1 && p->per <= most)
		return 0;
	return err_set(e, EINVAL,
		       "%u numbers of %u bits in a plaintext: 1 to %u of at "
		       "least 2 bits",
		       p->per, p->bits, most);
}

size_t packed_len(const struct packing *p, size_t n)
{
	return n / p->per + (n % p->per != 0);
}

int pack_encode(const struct paillier_public *k, const struct packing *p,
		mpz_t m, const double *v, size_t n, unsigned scale)
{
	mpz_t t;
	int r = 0;

	mpz_init(t);
	mpz_set_ui(m, 0);
	for (size_t l = n; l-- > 0 && !r;) {
		r = paillier_encode(k, t, v[l], scale);
		if (!r && mpz_sizeinbase(t, 2) >= p->bits)
			r = -ERANGE;
		mpz_mul_2exp(m, m, p->bits);
		mpz_add(m, m, t);
	}
	crypto_wipe(t);
	return r;
}

/* From the lowest on: what is left of it above half its range belongs to a
 * negative number, and the next one is one too small. */
void pack_decode(const struct packing *p, mpz_t m, unsigned scale, double *out,
		 size_t n)
{
	mpz_t t, half;

	mpz_inits(t, half, NULL);
	mpz_setbit(half, p->bits - 1);
	for (size_t l = 0; l < n; l++) {
		mpz_add(t, m, half);
		mpz_fdiv_r_2exp(t, t, p->bits);
		mpz_sub(t, t, half);
		mpz_sub(m, m, t);
		mpz_fdiv_q_2exp(m, m, p->bits);
		out[l] = paillier_decode(t, scale);
	}
	crypto_wipe(t);
	mpz_clear(half);
}

/* ---- after aggregation -------------------------------------------------- */

struct pack_job {
	const struct cipher_vec *a;
	struct cipher_vec *out;
	struct packing p;
	mpz_t shift; /* 2^bits */
};

/* Horner's rule, from the last number of each plaintext to its first. */
static void pack_share(void *arg, size_t lo, size_t hi)
{
	struct pack_job *j = arg;
	const struct ring *g = j->a->key->n2;
	const size_t per = j->p.per, k = g->k;
	uint64_t *next = ring_alloc(PAILLIER_BLOCK * k);

	for (size_t at = lo; at < hi; at += PAILLIER_BLOCK) {
		size_t n = MIN(hi - at, (size_t)PAILLIER_BLOCK);
		uint64_t *acc = cipher_at(j->out, at);

		for (size_t l = per; l-- > 0;) {
			/* A last plaintext that is not full has 1 (an
			 * encrypted 0) above. */
			size_t have = 0;

			while (have < n && (at + have) * per + l < j->a->n) {
				memcpy(next + have * k,
				       cipher_at(j->a, (at + have) * per + l),
				       k * sizeof(*next));
				have++;
			}
			if (l + 1 < per)
				ring_pow_public(g, acc, acc, n, j->shift);
			ring_mul(g, acc, acc, next, 1, have);
		}
	}
	ring_wipe(next, PAILLIER_BLOCK * k);
}

int cipher_pack(const struct cipher_vec *a, const struct packing *p,
		unsigned threads, struct cipher_vec **ret, struct err *e)
{
	struct pack_job j = { .a = a, .p = *p };
	int r = pack_check(a->key, p, e);

	if (r < 0)
		return r;
	j.out = cipher_vec_new(a->key, packed_len(p, a->n), a->scale);
	mpz_init(j.shift);
	mpz_setbit(j.shift, p->bits);
	crypto_split(threads, j.out->n, pack_share, &j);
	mpz_clear(j.shift);
	*ret = j.out;
	return 0;
}
