// SPDX-License-Identifier: Apache-2.0
/* Keys, their wire form, and the tables of powers that belong to them. */
#include <string.h>

#include "components/crypto/paillier_priv.h"

#define BITS_MIN    512
#define OU_BITS_MIN 1024 /* p of a third: out of reach of curves (ECM) */
#define BITS_MAX    8192

void paillier_table(const struct paillier_public *k, struct fixed_base *fb,
		    const struct ring *g, const mpz_t base, unsigned threads)
{
	struct paillier_public *w = (struct paillier_public *)k;

	(void)pthread_mutex_lock(&w->lock);
	if (!fb->t)
		fixed_base_make(fb, g, base, k->alpha, threads);
	(void)pthread_mutex_unlock(&w->lock);
}

/* Record of v in r. */
static void record(const struct ring *g, uint64_t *r, const mpz_t v)
{
	uint64_t *t = ring_alloc((size_t)g->limbs);

	for (size_t i = 0; i < mpz_size(v); i++)
		t[i] = mpz_getlimbn(v, (mp_size_t)i);
	ring_enter(g, r, t, (size_t)g->limbs, 1);
	ring_wipe(t, (size_t)g->limbs);
}

void paillier_constant(const struct ring *g, uint64_t *r, const mpz_t v)
{
	uint64_t *t = ring_alloc(g->k);
	const uint64_t *at[RING_LANES];

	record(g, t, v);
	for (unsigned l = 0; l < g->lanes; l++)
		at[l] = t;
	g->op.load(g, r, at);
	ring_wipe(t, g->k);
}

/* Of the private key's own copies; also right for zeroed memory. */
static void public_clear(struct paillier_public *k)
{
	paillier_ahead_end(k);
	fixed_base_free(&k->fb, k->n2);
	ou_public_clear(k);
	ring_free(k->n2);
	ring_free(k->n1);
	mpz_clears(k->n, k->limit, k->hs, k->g, NULL);
	(void)pthread_mutex_destroy(&k->lock);
}

static void public_init(struct paillier_public *k)
{
	mpz_inits(k->n, k->limit, k->hs, k->g, NULL);
	(void)pthread_mutex_init(&k->lock, NULL);
}

/* Everything that follows from n. */
static void public_derive(struct paillier_public *k)
{
	const unsigned bits = paillier_bits(k);

	k->n1 = ring_new(k->n, 0);
	if (k->scheme == SCHEME_OU) {
		k->n2 = ring_new(k->n, 0);
		ou_limit(k->limit, bits);
		/* The order of g^n divides (p - 1)(q - 1). */
		k->alpha = bits - bits / 3 + 64;
	} else {
		k->n2 = ring_new(k->n, RING_SQUARE);
		mpz_tdiv_q_ui(k->limit, k->n, 3);
		k->alpha = (bits + 1) / 2;
	}
}

static void prime_init(struct paillier_prime *p)
{
	mpz_inits(p->p, p->pm1, p->h, p->hs, NULL);
}

static void prime_clear(struct paillier_prime *p)
{
	fixed_base_free(&p->fb, p->p2);
	ring_wipe(p->hr, p->p1 ? ring_group(p->p1) : 0);
	ring_wipe(p->start, p->p2 ? ring_group(p->p2) : 0);
	ring_free(p->p2);
	ring_free(p->p1);
	crypto_wipe(p->p);
	crypto_wipe(p->pm1);
	crypto_wipe(p->h);
	crypto_wipe(p->hs);
}

/* r *= R^(2 times). */
static void lift(const struct ring *g, uint64_t *r, unsigned times)
{
	uint64_t *s = ring_alloc(g->scratch);

	while (times-- > 0)
		g->op.mul(g, r, r, g->rr, s);
	ring_wipe(s, g->scratch);
}

/* h = L_p(g^(p-1) mod p^2)^-1; false: there is none. */
static bool prime_log(struct paillier_prime *p, const mpz_t g)
{
	mpz_powm_sec(p->h, g, p->pm1, p->p2->m);
	mpz_sub_ui(p->h, p->h, 1);
	mpz_divexact(p->h, p->h, p->p);
	if (!mpz_invert(p->h, p->h, p->p))
		return false;
	paillier_constant(p->p1, p->hr, p->h);
	lift(p->p1, p->hr, 1);
	return true;
}

static void prime_rings(struct paillier_prime *p)
{
	mpz_sub_ui(p->pm1, p->p, 1);
	p->p2 = ring_new(p->p, RING_SQUARE | RING_SECRET);
	p->p1 = ring_new(p->p, RING_SECRET);
	p->hr = ring_alloc(ring_group(p->p1));
}

static void prime_derive(const struct paillier_public *k,
			 struct paillier_prime *p, const mpz_t q)
{
	mpz_t t;

	mpz_init(t);
	prime_rings(p);
	/* L_p is -q mod p as (p-1) n = -n mod p^2. */
	mpz_add_ui(t, k->n, 1);
	if (!prime_log(p, t))
		abort();
	mpz_mod(p->hs, k->hs, p->p2->m);
	mpz_mul(t, q, q);
	p->weight = ring_alloc(ring_group(k->n2));
	paillier_constant(k->n2, p->weight, t);
	lift(k->n2, p->weight, 2);
	mpz_invert(t, t, p->p2->m);
	p->start = ring_alloc(ring_group(p->p2));
	paillier_constant(p->p2, p->start, t);
	lift(p->p2, p->start, 1);
	crypto_wipe(t);
}

static struct paillier_private *private_new(void)
{
	struct paillier_private *k;

	crypto_wipe_freed();
	k = xcalloc(1, sizeof(*k));
	public_init(&k->pub);
	prime_init(&k->p);
	prime_init(&k->q);
	return k;
}

/* Whether the primes make a key: unlike, n of `bits`, and gcd(p-1, q-1) = 2,
 * as h then generates the largest cyclic group. Sets n. */
static bool primes_fit(struct paillier_private *k, unsigned bits)
{
	bool ok;
	mpz_t a, b;

	mpz_inits(a, b, NULL);
	mpz_mul(k->pub.n, k->p.p, k->q.p);
	mpz_sub_ui(a, k->p.p, 1);
	mpz_sub_ui(b, k->q.p, 1);
	mpz_gcd(a, a, b);
	ok = mpz_cmp(k->p.p, k->q.p) != 0 && mpz_cmp_ui(a, 2) == 0 &&
	     mpz_sizeinbase(k->pub.n, 2) == bits;
	crypto_wipe(a);
	crypto_wipe(b);
	return ok;
}

/* A unit modulo n but 1. */
static void random_unit(mpz_t y, const mpz_t n)
{
	mpz_t t;

	mpz_init(t);
	do {
		crypto_random_below(y, n);
		mpz_gcd(t, y, n);
	} while (mpz_cmp_ui(y, 1) <= 0 || mpz_cmp_ui(t, 1) != 0);
	crypto_wipe(t);
}

/* Everything that follows from p, q and n. */
static void private_derive(struct paillier_private *k)
{
	mpz_t t, y;

	mpz_inits(t, y, NULL);
	public_derive(&k->pub);
	random_unit(y, k->pub.n);
	mpz_mul(y, y, y);
	mpz_neg(y, y);
	mpz_mod(y, y, k->pub.n);
	mpz_powm(k->pub.hs, y, k->pub.n, k->pub.n2->m);
	prime_derive(&k->pub, &k->p, k->q.p);
	prime_derive(&k->pub, &k->q, k->p.p);
	mpz_invert(t, k->q.p, k->p.p);
	k->qinv = ring_alloc(k->p.p1->k);
	record(k->p.p1, k->qinv, t);
	crypto_wipe(t);
	crypto_wipe(y);
}

int paillier_keygen(unsigned bits, struct paillier_private **ret, struct err *e)
{
	struct paillier_private *k;

	if (bits < BITS_MIN || bits > BITS_MAX || bits % 2)
		return err_set(e, EINVAL,
			       "Paillier key of %u bits: even, %d to %d", bits,
			       BITS_MIN, BITS_MAX);
	k = private_new();
	do {
		crypto_random_primes(k->p.p, bits / 2, k->q.p, bits / 2);
	} while (!primes_fit(k, bits));
	private_derive(k);
	*ret = k;
	return 0;
}

struct paillier_private *paillier_from_primes(const mpz_t p, const mpz_t q)
{
	struct paillier_private *k = private_new();

	mpz_set(k->p.p, p);
	mpz_set(k->q.p, q);
	if (!primes_fit(k, 2 * (unsigned)mpz_sizeinbase(p, 2)))
		abort();
	private_derive(k);
	return k;
}

struct paillier_private *ou_from_primes(const mpz_t p, const mpz_t q,
					const mpz_t g)
{
	struct paillier_private *k = private_new();

	k->pub.scheme = SCHEME_OU;
	mpz_set(k->p.p, p);
	mpz_set(k->q.p, q);
	mpz_mul(k->pub.n, p, p);
	mpz_mul(k->pub.n, k->pub.n, q);
	mpz_set(k->pub.g, g);
	mpz_powm(k->pub.hs, g, k->pub.n, k->pub.n);
	public_derive(&k->pub);
	prime_rings(&k->p);
	if (prime_log(&k->p, g))
		return k;
	paillier_private_free(k);
	return NULL;
}

int ou_keygen(unsigned bits, struct paillier_private **ret, struct err *e)
{
	struct paillier_private *k;
	mpz_t p, q, p1, q1, n, g;

	if (bits < OU_BITS_MIN || bits > BITS_MAX)
		return err_set(e, EINVAL,
			       "Okamoto-Uchiyama key of %u bits: %d to %d",
			       bits, OU_BITS_MIN, BITS_MAX);
	crypto_wipe_freed();
	mpz_inits(p, q, p1, q1, n, g, NULL);
	/* gcd(n, order of the units) is p alone. */
	do {
		crypto_random_primes(p, bits / 3, q, bits - 2 * (bits / 3));
		mpz_mul(n, p, p);
		mpz_mul(n, n, q);
		mpz_sub_ui(p1, p, 1);
		mpz_sub_ui(q1, q, 1);
	} while (mpz_sizeinbase(n, 2) != bits || mpz_cmp(p, q) == 0 ||
		 mpz_divisible_p(p1, q) || mpz_divisible_p(q1, p));
	do {
		random_unit(g, n);
		k = ou_from_primes(p, q, g);
	} while (!k);
	crypto_wipe(p);
	crypto_wipe(q);
	crypto_wipe(p1);
	crypto_wipe(q1);
	mpz_clears(n, g, NULL);
	*ret = k;
	return 0;
}

void paillier_private_free(struct paillier_private *k)
{
	if (!k)
		return;
	ring_wipe(k->qinv, k->p.p1->k);
	ring_wipe(k->p.weight, ring_group(k->pub.n2));
	ring_wipe(k->q.weight, ring_group(k->pub.n2));
	prime_clear(&k->p);
	prime_clear(&k->q);
	public_clear(&k->pub);
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

enum paillier_scheme paillier_scheme(const struct paillier_public *k)
{
	return k->scheme;
}

size_t cipher_width(const struct paillier_public *k)
{
	return (mpz_sizeinbase(k->n2->m, 2) + 7) / 8;
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
	if (k->scheme == SCHEME_OU) {
		(void)sb_add_u32(sb, 0);
		(void)sb_add_u32(sb, SCHEME_OU);
	}
	write_number(sb, k->n);
	write_number(sb, k->scheme == SCHEME_OU ? k->g : k->hs);
	return sb->error;
}

static size_t u32_at(const uint8_t *at)
{
	return (size_t)at[0] | (size_t)at[1] << 8 | (size_t)at[2] << 16 |
	       (size_t)at[3] << 24;
}

/* One length-prefixed number without leading zeros; false = refused. */
static bool read_number(const uint8_t **at, const uint8_t *end, size_t max,
			mpz_t ret)
{
	size_t n;

	if (end - *at < 4)
		return false;
	n = u32_at(*at);
	*at += 4;
	if (n < 1 || n > max || n > (size_t)(end - *at) || (*at)[0] == 0)
		return false;
	mpz_import(ret, n, 1, 1, 0, 0, *at);
	*at += n;
	return true;
}

/* The numbers of a key; what is wrong with them, or NULL. */
static const char *read_numbers(struct paillier_public *k, const uint8_t *at,
				size_t n)
{
	const uint8_t *end = at + n;
	size_t base = BITS_MAX / 4;
	mpz_ptr b = k->hs;

	if (n >= 8 && u32_at(at) == 0) {
		if (u32_at(at + 4) != SCHEME_OU)
			return "of an unknown scheme";
		k->scheme = SCHEME_OU;
		base = BITS_MAX / 8;
		b = k->g;
		at += 8;
	}
	if (!read_number(&at, end, BITS_MAX / 8, k->n) ||
	    !read_number(&at, end, base, b) || at != end)
		return "bad length";
	return NULL;
}

/* The randomiser's base, which everything that is sent depends on. */
static const char *check_base(struct paillier_public *k)
{
	mpz_srcptr b = k->scheme == SCHEME_OU ? k->g : k->hs;
	const char *why = NULL;
	mpz_t t;

	mpz_init(t);
	mpz_gcd(t, b, k->n);
	if (mpz_cmp_ui(b, 1) <= 0 || mpz_cmp(b, k->n2->m) >= 0 ||
	    mpz_cmp_ui(t, 1) != 0) {
		why = "randomiser base out of range";
	} else if (k->scheme == SCHEME_OU) {
		mpz_powm(k->hs, k->g, k->n, k->n);
		mpz_powm_ui(t, k->hs, 2, k->n);
		if (mpz_cmp_ui(t, 1) == 0)
			why = "its base hides nothing";
	}
	mpz_clear(t);
	return why;
}

static const char *check_modulus(const struct paillier_public *k)
{
	const unsigned bits = paillier_bits(k);

	if (bits < (k->scheme == SCHEME_OU ? OU_BITS_MIN : BITS_MIN) ||
	    bits > BITS_MAX || mpz_even_p(k->n))
		return "modulus of a wrong size or even";
	/* A prime n or a small factor would make decryption anybody's. */
	if (mpz_gcd_ui(NULL, k->n, 3234846615UL) != 1 ||
	    mpz_probab_prime_p(k->n, 2) || mpz_perfect_power_p(k->n))
		return "modulus is not a product of large primes";
	return NULL;
}

int paillier_public_read(const void *data, size_t n,
			 struct paillier_public **ret, struct err *e)
{
	struct paillier_public *k = xcalloc(1, sizeof(*k));
	const char *why;

	public_init(k);
	why = read_numbers(k, data, n);
	if (!why)
		why = check_modulus(k);
	if (!why) {
		public_derive(k);
		why = check_base(k);
	}
	if (why) {
		paillier_public_free(k);
		return err_set(e, EPROTO, "public key: %s", why);
	}
	*ret = k;
	return 0;
}
