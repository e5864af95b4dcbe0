// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "components/crypto/square.h"
#include "components/crypto/strip.h"

#define POW_WINDOW 5

/* v in two halves, not in Montgomery's form. */
static void halves(const struct modulus *m, mp_limb_t *r, const mpz_t v)
{
	mpz_t q, t;

	mpz_inits(q, t, NULL);
	mpz_tdiv_qr(q, t, v, m->root);
	if (mpz_sgn(v) < 0 || mpz_cmp(q, m->root) >= 0)
		abort();
	mpn_zero(r, m->k);
	if (mpz_sgn(t))
		mpn_copyi(r, mpz_limbs_read(t), (mp_size_t)mpz_size(t));
	if (mpz_sgn(q))
		mpn_copyi(r + m->h, mpz_limbs_read(q), (mp_size_t)mpz_size(q));
	if (m->secret) {
		explicit_bzero(q->_mp_d,
			       (size_t)q->_mp_alloc * sizeof(mp_limb_t));
		explicit_bzero(t->_mp_d,
			       (size_t)t->_mp_alloc * sizeof(mp_limb_t));
	}
	mpz_clears(q, t, NULL);
}

static mp_limb_t *limbs_new(size_t n)
{
	return xcalloc(n, sizeof(mp_limb_t));
}

static void limbs_free(const struct modulus *m, mp_limb_t *v, size_t n)
{
	if (v && m->secret)
		explicit_bzero(v, n * sizeof(*v));
	free(v);
}

void mod_init(struct modulus *m, const mpz_t root, bool secret)
{
	mp_limb_t low = mpz_getlimbn(root, 0), inv = 1;
	mpz_t t;

	mpz_inits(m->m, m->root, t, NULL);
	mpz_set(m->root, root);
	mpz_mul(m->m, root, root);
	m->h = (mp_size_t)mpz_size(root);
	m->k = 2 * m->h;
	m->secret = secret;
	m->strips = strip_usable(m->h);
	/* Newton: each step doubles the bits that are right, from 1. */
	for (int i = 0; i < 6; i++)
		inv *= 2 - low * inv;
	m->inv = -inv;
	m->one = limbs_new((size_t)m->k);
	m->rr = limbs_new((size_t)m->k);
	mpz_setbit(t, (mp_bitcnt_t)m->h * GMP_NUMB_BITS);
	mpz_mod(t, t, m->m);
	halves(m, m->one, t);
	mpz_mul(t, t, t);
	mpz_mod(t, t, m->m);
	halves(m, m->rr, t);
	mpz_clear(t);
}

void mod_clear(struct modulus *m)
{
	limbs_free(m, m->one, (size_t)m->k);
	limbs_free(m, m->rr, (size_t)m->k);
	m->one = m->rr = NULL;
	mpz_clears(m->m, m->root, NULL);
}

size_t mod_scratch(const struct modulus *m)
{
	size_t itch = 0;

	if (m->secret)
		itch = MAX((size_t)mpn_sec_mul_itch(m->h, m->h),
			   (size_t)mpn_sec_sqr_itch(m->h));
	return 3 * (size_t)m->k + itch;
}

static void multiply(const struct modulus *m, mp_limb_t *r, const mp_limb_t *a,
		     const mp_limb_t *b, mp_limb_t *itch)
{
	if (m->strips)
		strip_mul(r, a, b, m->h);
	else if (m->secret && a == b)
		mpn_sec_sqr(r, a, m->h, itch);
	else if (m->secret)
		mpn_sec_mul(r, a, m->h, b, m->h, itch);
	else if (a == b)
		mpn_sqr(r, a, m->h);
	else
		mpn_mul_n(r, a, b, m->h);
}

/*
 * t = R u - q root for t of 2h limbs; u < t / R + root goes to the upper half
 * of t, what it has above h limbs is returned.
 */
static mp_limb_t reduce(const struct modulus *m, mp_limb_t *t, mp_limb_t *q)
{
	const mp_limb_t *n = mpz_limbs_read(m->root);

	if (m->strips)
		return strip_reduce(t, q, n, m->h, m->inv);
	for (mp_size_t i = 0; i < m->h; i++) {
		q[i] = t[i] * m->inv;
		t[i] = mpn_addmul_1(t + i, n, m->h, q[i]);
	}
	return mpn_add_n(t + m->h, t + m->h, t, m->h);
}

/* u -= root when u (with `top` above its h limbs) is not below it; whether. */
static mp_limb_t subtract_once(const struct modulus *m, mp_limb_t *u,
			       mp_limb_t top)
{
	const mp_limb_t *n = mpz_limbs_read(m->root);
	mp_limb_t less = mpn_sub_n(u, u, n, m->h) & (top ^ 1);

	(void)mpn_cnd_add_n(less, u, u, n, m->h);
	return less ^ 1;
}

void mod_mul(const struct modulus *m, mp_limb_t *r, const mp_limb_t *a,
	     const mp_limb_t *b, mp_limb_t *scratch)
{
	const mp_limb_t *n = mpz_limbs_read(m->root);
	mp_size_t h = m->h;
	mp_limb_t *lo = scratch, *hi = lo + 2 * h, *q = hi + 2 * h;
	mp_limb_t *itch = q + 2 * h;
	mp_limb_t top, more;

	if (a == b) {
		multiply(m, hi, a, a + h, itch);
		top = mpn_lshift(hi, hi, 2 * h, 1);
	} else {
		multiply(m, hi, a, b + h, itch);
		multiply(m, q, a + h, b, itch);
		top = mpn_add_n(hi, hi, q, 2 * h);
	}
	multiply(m, lo, a, b, itch);
	more = reduce(m, lo, q);
	more = subtract_once(m, lo + h, more);

	/* hi += more * R - q; top counts R^2 and may be -1. */
	for (mp_size_t i = h; i < 2 * h; i++)
		q[i] = -more;
	top += more - mpn_sub_n(hi, hi, q, 2 * h);
	/* -R < hi < 2 root R: into [0, root R). */
	top -= mpn_sub_n(hi + h, hi + h, n, h);
	for (int i = 0; i < 2; i++)
		top += mpn_cnd_add_n(top >> (GMP_NUMB_BITS - 1), hi + h, hi + h,
				     n, h);
	more = reduce(m, hi, q);
	(void)subtract_once(m, hi + h, more);
	mpn_copyi(r, lo + h, h);
	mpn_copyi(r + h, hi + h, h);
}

void mod_pow(const struct modulus *m, mp_limb_t *r, const mp_limb_t *a,
	     const mpz_t e, unsigned bits)
{
	enum { ENTRIES = 1 << POW_WINDOW };
	size_t k = (size_t)m->k, total = (ENTRIES + 1) * k + mod_scratch(m);
	mp_limb_t *t = limbs_new(total), *pick = t + ENTRIES * k;
	mp_limb_t *s = pick + k;
	unsigned windows = (bits + POW_WINDOW - 1) / POW_WINDOW;

	mpn_copyi(t, m->one, m->k);
	mpn_copyi(t + k, a, m->k);
	for (size_t d = 2; d < ENTRIES; d++)
		mod_mul(m, t + d * k, t + (d - 1) * k, t + k, s);
	mpn_copyi(r, m->one, m->k);
	for (unsigned i = windows; i-- > 0;) {
		mp_size_t d = 0;

		for (unsigned b = POW_WINDOW; b-- > 0;) {
			mod_mul(m, r, r, r, s);
			d = d * 2 + mpz_tstbit(e, i * POW_WINDOW + b);
		}
		mpn_sec_tabselect(pick, t, m->k, ENTRIES, d);
		mod_mul(m, r, r, pick, s);
	}
	limbs_free(m, t, total);
}

void mod_set(const struct modulus *m, mp_limb_t *r, const mpz_t v)
{
	size_t n = mod_scratch(m);
	mp_limb_t *s = limbs_new(n);

	halves(m, r, v);
	mod_mul(m, r, r, m->rr, s);
	limbs_free(m, s, n);
}

void mod_get(const struct modulus *m, mpz_t r, const mp_limb_t *v)
{
	size_t n = mod_scratch(m), all = n + 2 * (size_t)m->k;
	mp_limb_t *s = limbs_new(all), *out = s + n, *one = out + m->k;
	mpz_t lo, hi;

	one[0] = 1;
	mod_mul(m, out, v, one, s);
	mpz_mul(r, mpz_roinit_n(hi, out + m->h, m->h), m->root);
	mpz_add(r, r, mpz_roinit_n(lo, out, m->h));
	limbs_free(m, s, all);
}

void mod_one(const struct modulus *m, mp_limb_t *r)
{
	mpn_copyi(r, m->one, m->k);
}
