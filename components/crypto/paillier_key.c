// SPDX-License-Identifier: Apache-2.0
/* Keys, their wire form, and the tables of powers that belong to them. */
#include <string.h>

#include "components/crypto/paillier_priv.h"

#define BITS_MIN   512
#define BITS_MAX   8192
#define TABLE_MAX  (17u << 20) /* bytes of one fixed-base table */
#define WINDOW_MAX 8

static unsigned window_of(const struct modulus *m, unsigned bits)
{
	unsigned w = WINDOW_MAX;

	while (w > 1 && (((size_t)(bits + w - 1) / w) << w) * (size_t)m->k *
				sizeof(mp_limb_t) >
			    TABLE_MAX)
		w--;
	return w;
}

struct table_job {
	struct fixed_base *fb;
	const struct modulus *m;
};

/* Windows lo..hi-1; entry 1 of each stands already. */
static void fill_windows(void *arg, size_t lo, size_t hi)
{
	struct table_job *j = arg;
	size_t k = (size_t)j->m->k;
	_cleanup_free_ mp_limb_t *s =
	    xmalloc(mod_scratch(j->m) * sizeof(mp_limb_t));

	for (size_t i = lo; i < hi; i++) {
		mp_limb_t *t = j->fb->t + (i << j->fb->w) * k;

		mod_one(j->m, t);
		for (size_t d = 2; d < 1u << j->fb->w; d++)
			mod_mul(j->m, t + d * k, t + (d - 1) * k, t + k, s);
	}
}

void fixed_base_need(struct fixed_base *fb, pthread_mutex_t *lock,
		     const struct modulus *m, const mpz_t base, unsigned bits,
		     unsigned threads)
{
	(void)pthread_mutex_lock(lock);
	if (!fb->t) {
		size_t k = (size_t)m->k;
		struct table_job job = { fb, m };
		_cleanup_free_ mp_limb_t *s =
		    xmalloc(mod_scratch(m) * sizeof(mp_limb_t));
		mp_limb_t *t;

		fb->w = window_of(m, bits);
		fb->windows = (bits + fb->w - 1) / fb->w;
		t = xmalloc(((size_t)fb->windows << fb->w) * k *
			    sizeof(mp_limb_t));
		mod_set(m, t + k, base);
		for (size_t i = 1; i < fb->windows; i++) {
			mp_limb_t *to = t + ((i << fb->w) + 1) * k;

			mpn_copyi(to, t + (((i - 1) << fb->w) + 1) * k, m->k);
			for (unsigned b = 0; b < fb->w; b++)
				mod_mul(m, to, to, to, s);
		}
		fb->t = t;
		crypto_split(threads, fb->windows, fill_windows, &job);
	}
	(void)pthread_mutex_unlock(lock);
}

static const mp_limb_t *fixed_base_entry(const struct fixed_base *fb, size_t k,
					 const mpz_t e, unsigned i)
{
	size_t d = 0;

	for (unsigned b = fb->w; b-- > 0;)
		d = d * 2 + (size_t)mpz_tstbit(e, i * fb->w + b);
	return fb->t + (((size_t)i << fb->w) + d) * k;
}

void fixed_base_pow(const struct fixed_base *fb, const struct modulus *m,
		    mp_limb_t *r, const mpz_t e, mp_limb_t *scratch)
{
	size_t k = (size_t)m->k;

	for (unsigned i = 0; i < fb->windows; i++) {
		const mp_limb_t *t = fixed_base_entry(fb, k, e, i);

		/* The table is larger than a cache: fetch the next entry
		 * while this one is multiplied. */
		if (i + 1 < fb->windows) {
			const mp_limb_t *next =
			    fixed_base_entry(fb, k, e, i + 1);

			for (size_t at = 0; at < k; at += 8)
				__builtin_prefetch(next + at);
		}
		if (i == 0)
			mpn_copyi(r, t, m->k);
		else
			mod_mul(m, r, r, t, scratch);
	}
}

void fixed_base_free(struct fixed_base *fb, const struct modulus *m)
{
	if (fb->t)
		explicit_bzero(fb->t, ((size_t)fb->windows << fb->w) *
					  (size_t)m->k * sizeof(mp_limb_t));
	free(fb->t);
	fb->t = NULL;
}

/* Of the private key's own copies; also right for zeroed memory. */
static void public_clear(struct paillier_public *k)
{
	fixed_base_free(&k->fb, &k->n2);
	mod_clear(&k->n2);
	mpz_clears(k->n, k->limit, k->hs, NULL);
	(void)pthread_mutex_destroy(&k->lock);
}

static void public_init(struct paillier_public *k)
{
	mpz_inits(k->n, k->limit, k->hs, NULL);
	(void)pthread_mutex_init(&k->lock, NULL);
}

/* Everything that follows from n. */
static void public_derive(struct paillier_public *k)
{
	mpz_tdiv_q_ui(k->limit, k->n, 3);
	mod_init(&k->n2, k->n, false);
	k->alpha = (paillier_bits(k) + 1) / 2;
}

static void prime_init(struct paillier_prime *p)
{
	mpz_inits(p->p, p->pm1, p->h, p->hs, NULL);
}

static void prime_clear(struct paillier_prime *p)
{
	fixed_base_free(&p->fb, &p->p2);
	crypto_wipe(p->p);
	crypto_wipe(p->pm1);
	mod_clear(&p->p2);
	crypto_wipe(p->h);
	crypto_wipe(p->hs);
}

/* Two top bits set (so that the product has full length), 3 mod 4. */
static void random_prime(mpz_t p, unsigned bits)
{
	do {
		crypto_random_bits(p, bits);
		mpz_setbit(p, bits - 1);
		mpz_setbit(p, bits - 2);
		mpz_setbit(p, 0);
		mpz_setbit(p, 1);
	} while (!mpz_probab_prime_p(p, 40));
}

/* L_p((n+1)^(p-1) mod p^2) = -q mod p as (p-1) n = -n mod p^2. */
static void prime_derive(struct paillier_prime *p, const mpz_t n,
			 const mpz_t hs)
{
	mpz_sub_ui(p->pm1, p->p, 1);
	mod_init(&p->p2, p->p, true);
	mpz_add_ui(p->h, n, 1);
	mpz_powm_sec(p->h, p->h, p->pm1, p->p2.m);
	mpz_sub_ui(p->h, p->h, 1);
	mpz_divexact(p->h, p->h, p->p);
	mpz_invert(p->h, p->h, p->p);
	mpz_mod(p->hs, hs, p->p2.m);
}

int paillier_keygen(unsigned bits, struct paillier_private **ret, struct err *e)
{
	struct paillier_private *k;
	mpz_t t, y;

	if (bits < BITS_MIN || bits > BITS_MAX || bits % 2)
		return err_set(e, EINVAL,
			       "Paillier key of %u bits: even, %d to %d", bits,
			       BITS_MIN, BITS_MAX);
	crypto_wipe_freed();
	k = xcalloc(1, sizeof(*k));
	mpz_inits(t, y, k->qinv, k->q2inv, NULL);
	public_init(&k->pub);
	prime_init(&k->p);
	prime_init(&k->q);
	/* gcd(p-1, q-1) = 2: h then generates the largest cyclic group. */
	do {
		random_prime(k->p.p, bits / 2);
		random_prime(k->q.p, bits / 2);
		mpz_mul(k->pub.n, k->p.p, k->q.p);
		mpz_sub_ui(t, k->p.p, 1);
		mpz_sub_ui(y, k->q.p, 1);
		mpz_gcd(t, t, y);
	} while (mpz_cmp(k->p.p, k->q.p) == 0 || mpz_cmp_ui(t, 2) != 0 ||
		 mpz_sizeinbase(k->pub.n, 2) != bits);
	public_derive(&k->pub);
	do {
		crypto_random_below(y, k->pub.n);
		mpz_gcd(t, y, k->pub.n);
	} while (mpz_cmp_ui(y, 1) <= 0 || mpz_cmp_ui(t, 1) != 0);
	mpz_mul(y, y, y);
	mpz_neg(y, y);
	mpz_mod(y, y, k->pub.n);
	mpz_powm(k->pub.hs, y, k->pub.n, k->pub.n2.m);
	prime_derive(&k->p, k->pub.n, k->pub.hs);
	prime_derive(&k->q, k->pub.n, k->pub.hs);
	mpz_invert(k->qinv, k->q.p, k->p.p);
	mpz_invert(k->q2inv, k->q.p2.m, k->p.p2.m);
	crypto_wipe(t);
	crypto_wipe(y);
	*ret = k;
	return 0;
}

void paillier_private_free(struct paillier_private *k)
{
	if (!k)
		return;
	public_clear(&k->pub);
	prime_clear(&k->p);
	prime_clear(&k->q);
	crypto_wipe(k->qinv);
	crypto_wipe(k->q2inv);
	explicit_bzero(k, sizeof(*k));
	free(k);
}

void paillier_public_free(struct paillier_public *k)
{
	if (!k)
		return;
	public_clear(k);
	free(k);
}

const struct paillier_public *paillier_public(const struct paillier_private *k)
{
	return &k->pub;
}

unsigned paillier_bits(const struct paillier_public *k)
{
	return (unsigned)mpz_sizeinbase(k->n, 2);
}

size_t cipher_width(const struct paillier_public *k)
{
	return (mpz_sizeinbase(k->n2.m, 2) + 7) / 8;
}

static void write_number(struct strbuf *sb, const mpz_t v)
{
	size_t n = (mpz_sizeinbase(v, 2) + 7) / 8;
	_cleanup_free_ uint8_t *buf = xmalloc(n);

	limbs_export(mpz_limbs_read(v), (mp_size_t)mpz_size(v), buf, n);
	(void)sb_add_u32(sb, (uint32_t)n);
	(void)sb_add(sb, buf, n);
}

int paillier_public_write(const struct paillier_public *k, struct strbuf *sb)
{
	write_number(sb, k->n);
	write_number(sb, k->hs);
	return sb->error;
}

/* One length-prefixed number without leading zeros; false = refused. */
static bool read_number(const uint8_t **at, const uint8_t *end, size_t max,
			mpz_t ret)
{
	size_t n;

	if (end - *at < 4)
		return false;
	n = (size_t)(*at)[0] | (size_t)(*at)[1] << 8 | (size_t)(*at)[2] << 16 |
	    (size_t)(*at)[3] << 24;
	*at += 4;
	if (n < 1 || n > max || n > (size_t)(end - *at) || (*at)[0] == 0)
		return false;
	mpz_import(ret, n, 1, 1, 0, 0, *at);
	*at += n;
	return true;
}

int paillier_public_read(const void *data, size_t n, unsigned threads,
			 struct paillier_public **ret, struct err *e)
{
	const uint8_t *at = data, *end = at + n;
	struct paillier_public *k = xcalloc(1, sizeof(*k));
	const char *why = NULL;
	unsigned bits;
	mpz_t g;

	public_init(k);
	mpz_init(g);
	if (!read_number(&at, end, BITS_MAX / 8, k->n) ||
	    !read_number(&at, end, BITS_MAX / 4, k->hs) || at != end) {
		why = "bad length";
		goto out;
	}
	bits = paillier_bits(k);
	if (bits < BITS_MIN || bits > BITS_MAX || mpz_even_p(k->n)) {
		why = "modulus of a wrong size or even";
		goto out;
	}
	public_derive(k);
	mpz_gcd(g, k->hs, k->n);
	if (mpz_cmp_ui(k->hs, 1) <= 0 || mpz_cmp(k->hs, k->n2.m) >= 0 ||
	    mpz_cmp_ui(g, 1) != 0)
		why = "randomiser base out of range";
	/* A prime n or a small factor would make decryption anybody's. */
	else if (mpz_gcd_ui(NULL, k->n, 3234846615UL) != 1 ||
		 mpz_probab_prime_p(k->n, 2) || mpz_perfect_square_p(k->n))
		why = "modulus is not a product of two large primes";
out:
	mpz_clear(g);
	if (why) {
		paillier_public_free(k);
		return err_set(e, EPROTO, "Paillier public key: %s", why);
	}
	fixed_base_need(&k->fb, &k->lock, &k->n2, k->hs, k->alpha, threads);
	*ret = k;
	return 0;
}
