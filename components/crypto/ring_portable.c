// SPDX-License-Identifier: Apache-2.0
/*
 * The portable path of ring.h: one number at a time on limbs of 64 bits, by
 * strip.h where the processor has it, else by GMP. Halves are below n.
 */
#include <string.h>

#include "components/crypto/ring.h"
#include "components/crypto/strip.h"

#define PARTS 4 /* of h limbs of what can enter */

static void multiply(const struct ring *g, mp_limb_t *r, const mp_limb_t *a,
		     const mp_limb_t *b, mp_limb_t *itch)
{
	mp_size_t h = (mp_size_t)g->h;

	if (g->strips)
		strip_mul(r, a, b, h);
	else if (g->secret && a == b)
		mpn_sec_sqr(r, a, h, itch);
	else if (g->secret)
		mpn_sec_mul(r, a, h, b, h, itch);
	else if (a == b)
		mpn_sqr(r, a, h);
	else
		mpn_mul_n(r, a, b, h);
}

/*
 * t = R u - q n for t of 2h limbs; u < t / R + n goes to the upper half of t,
 * what it has above h limbs is returned.
 */
static mp_limb_t reduce(const struct ring *g, mp_limb_t *t, mp_limb_t *q)
{
	mp_size_t h = (mp_size_t)g->h;

	if (g->strips)
		return strip_reduce(t, q, g->digits, h, g->inv);
	for (mp_size_t i = 0; i < h; i++) {
		q[i] = t[i] * g->inv;
		t[i] = mpn_addmul_1(t + i, g->digits, h, q[i]);
	}
	return mpn_add_n(t + h, t + h, t, h);
}

/* u -= n when u (with `top` above its h limbs) is not below it; whether. */
static mp_limb_t subtract_once(const struct ring *g, mp_limb_t *u,
			       mp_limb_t top)
{
	mp_size_t h = (mp_size_t)g->h;
	mp_limb_t less = mpn_sub_n(u, u, g->digits, h) & (top ^ 1);

	(void)mpn_cnd_add_n(less, u, u, g->digits, h);
	return less ^ 1;
}

static void mul_flat(const struct ring *g, uint64_t *r, const uint64_t *a,
		     const uint64_t *b, uint64_t *scratch)
{
	mp_size_t h = (mp_size_t)g->h;
	mp_limb_t *t = scratch, *q = t + 2 * h, *itch = q + h;

	multiply(g, t, a, b, itch);
	(void)subtract_once(g, t + h, reduce(g, t, q));
	mpn_copyi(r, t + h, h);
}

static void sqr_flat(const struct ring *g, uint64_t *r, const uint64_t *a,
		     uint64_t *scratch)
{
	mul_flat(g, r, a, a, scratch);
}

/* r = lo + hi n reduced, where hi is still without the -m of lo's reduction;
 * `top` is what hi has above 2h limbs. */
static void finish(const struct ring *g, uint64_t *r, mp_limb_t *lo,
		   mp_limb_t *hi, mp_limb_t top, mp_limb_t *q)
{
	mp_size_t h = (mp_size_t)g->h;
	mp_limb_t more = reduce(g, lo, q);

	more = subtract_once(g, lo + h, more);
	/* hi += more * R - q; top counts R^2 and may be -1. */
	for (mp_size_t i = h; i < 2 * h; i++)
		q[i] = -more;
	top += more - mpn_sub_n(hi, hi, q, 2 * h);
	/* -R < hi < 2 n R: into [0, n R). */
	top -= mpn_sub_n(hi + h, hi + h, g->digits, h);
	for (int i = 0; i < 2; i++)
		top += mpn_cnd_add_n(top >> (GMP_NUMB_BITS - 1), hi + h, hi + h,
				     g->digits, h);
	more = reduce(g, hi, q);
	(void)subtract_once(g, hi + h, more);
	mpn_copyi(r, lo + h, h);
	mpn_copyi(r + h, hi + h, h);
}

static void mul_pair(const struct ring *g, uint64_t *r, const uint64_t *a,
		     const uint64_t *b, uint64_t *scratch)
{
	mp_size_t h = (mp_size_t)g->h;
	mp_limb_t *lo = scratch, *hi = lo + 2 * h, *q = hi + 2 * h;
	mp_limb_t *itch = q + 2 * h;

	multiply(g, hi, a, b + h, itch);
	multiply(g, q, a + h, b, itch);
	multiply(g, lo, a, b, itch);
	finish(g, r, lo, hi, mpn_add_n(hi, hi, q, 2 * h), q);
}

static void sqr_pair(const struct ring *g, uint64_t *r, const uint64_t *a,
		     uint64_t *scratch)
{
	mp_size_t h = (mp_size_t)g->h;
	mp_limb_t *lo = scratch, *hi = lo + 2 * h, *q = hi + 2 * h;
	mp_limb_t *itch = q + 2 * h;

	multiply(g, hi, a, a + h, itch);
	multiply(g, lo, a, a, itch);
	finish(g, r, lo, hi, mpn_lshift(hi, hi, 2 * h, 1), q);
}

static void mul_low_pair(const struct ring *g, uint64_t *r, const uint64_t *a,
			 const uint64_t *b, uint64_t *scratch)
{
	mp_size_t h = (mp_size_t)g->h;
	mp_limb_t *lo = scratch, *hi = lo + 2 * h, *q = hi + 2 * h;
	mp_limb_t *itch = q + 2 * h;

	multiply(g, hi, a + h, b, itch);
	multiply(g, lo, a, b, itch);
	finish(g, r, lo, hi, 0, q);
}

static void add(const struct ring *g, uint64_t *r, const uint64_t *a,
		const uint64_t *b)
{
	mp_size_t h = (mp_size_t)g->h;
	mp_limb_t more = subtract_once(g, r, mpn_add_n(r, a, b, h));

	if (!g->square)
		return;
	/* b + d + 1 < 2 n */
	mp_limb_t top = mpn_add_n(r + h, a + h, b + h, h);
	for (mp_size_t i = h; i < 2 * h; i++) { /* mpn_add_1 stops early */
		r[i] += more;
		more = r[i] < more;
	}
	top += more;
	(void)subtract_once(g, r + h, top);
}

static void raw(const struct ring *g, uint64_t *r, const mp_limb_t *const *v,
		size_t limbs)
{
	mpn_zero(r, (mp_size_t)g->h);
	mpn_copyi(r, v[0], (mp_size_t)MIN(limbs, (size_t)g->h));
}

static void load(const struct ring *g, uint64_t *r, const uint64_t *const *rec)
{
	mpn_copyi(r, rec[0], (mp_size_t)g->k);
}

static void store(const struct ring *g, uint64_t *const *rec, const uint64_t *a)
{
	mpn_copyi(rec[0], a, (mp_size_t)g->k);
}

/* Sum over the parts v_j of h limbs of v_j R^(j+2) / R: no division, whose time
 * and table would tell of a secret n. A part may be n or more, the product with
 * a number below n is below R n all the same. */
static void enter(const struct ring *g, uint64_t *r, const mp_limb_t *const *v,
		  size_t limbs, uint64_t *scratch)
{
	uint64_t *part = scratch, *prod = part + g->k, *rest = prod + g->k;
	const mp_limb_t *from = v[0];

	raw(g, part, &from, limbs);
	g->op.mul_low(g, r, g->rr, part, rest);
	for (size_t j = 1; j < PARTS && j * g->h < limbs; j++) {
		from = v[0] + j * g->h;
		raw(g, part, &from, limbs - j * g->h);
		g->op.mul_low(g, prod, g->rr + j * g->k, part, rest);
		add(g, r, r, prod);
	}
}

static void leave(const struct ring *g, mp_limb_t *const *v, const uint64_t *a,
		  uint64_t *scratch)
{
	mp_size_t h = (mp_size_t)g->h;
	mp_limb_t *one = scratch, *x = one + g->k, *p = x + g->k;
	mp_limb_t *rest = p + 2 * h;

	mpn_zero(one, (mp_size_t)g->k);
	one[0] = 1;
	g->op.mul_low(g, x, a, one, rest);
	if (!g->square) {
		mpn_copyi(v[0], x, h);
		return;
	}
	multiply(g, p, x + h, g->digits, rest);
	mpn_zero(x + h, h);
	(void)mpn_add_n(p, p, x, 2 * h);
	mpn_copyi(v[0], p, g->limbs);
}

static void fill(const struct ring *g, uint64_t *const *table, unsigned w,
		 unsigned at, const uint64_t *groups)
{
	(void)w;
	mpn_copyi(table[0] + (size_t)at * g->k, groups,
		  (mp_size_t)RING_FILL * g->k);
}

/* Four words at a time, in what vectors there are. */
typedef uint64_t words __attribute__((vector_size(32), aligned(8), may_alias));

static inline __attribute__((always_inline)) void
pick_words(const struct ring *g, uint64_t *r, const uint64_t *groups,
	   unsigned w, uint64_t digit)
{
	unsigned i = 0;

	for (; i + 16 <= g->k; i += 16) {
		words a = { 0 }, b = a, c = a, d = a;

		for (uint64_t e = 0; e < 1u << w; e++) {
			const words *from =
			    (const void *)(groups + e * g->k + i);
			const uint64_t yes = -(((e ^ digit) - 1) >> 63);
			const words m = { yes, yes, yes, yes };

			a |= from[0] & m;
			b |= from[1] & m;
			c |= from[2] & m;
			d |= from[3] & m;
		}
		words *to = (void *)(r + i);

		to[0] = a;
		to[1] = b;
		to[2] = c;
		to[3] = d;
	}
	for (; i < g->k; i++) {
		uint64_t x = 0;

		for (uint64_t e = 0; e < 1u << w; e++)
			x |= groups[e * g->k + i] & -(((e ^ digit) - 1) >> 63);
		r[i] = x;
	}
}

static void pick(const struct ring *g, uint64_t *r, const uint64_t *groups,
		 unsigned w, const uint32_t *digit)
{
	pick_words(g, r, groups, w, digit[0]);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void
pick_avx2(const struct ring *g, uint64_t *r, const uint64_t *groups, unsigned w,
	  const uint32_t *digit)
{
	pick_words(g, r, groups, w, digit[0]);
}

static bool avx2(void)
{
	return __builtin_cpu_supports("avx2");
}
#else
#define pick_avx2 pick
static bool avx2(void)
{
	return false;
}
#endif

static void select1(const struct ring *g, uint64_t *r,
		    const uint64_t *const *table, unsigned w,
		    const uint32_t *digit)
{
	g->op.pick(g, r, table[0], w, digit);
}

/* Sums of second halves with one limb more, carried on. */
static void sum_add(const struct ring *g, uint64_t *sum, const uint64_t *a)
{
	mp_size_t h = (mp_size_t)g->h;

	sum[h] += mpn_add_n(sum, sum, a, h);
}

/* The sum, below R n, to one below n: by R^2 / R / R. */
static void sum_end(const struct ring *g, uint64_t *r, const uint64_t *sum,
		    uint64_t *scratch)
{
	mp_size_t h = (mp_size_t)g->h;
	mp_limb_t *t = scratch, *u = t + 2 * h, *q = u + 2 * h, *itch = q + h;

	mpn_zero(t, 2 * h);
	mpn_copyi(t, sum, h + 1);
	(void)subtract_once(g, t + h, reduce(g, t, q));
	multiply(g, u, t + h, g->rr, itch);
	(void)subtract_once(g, u + h, reduce(g, u, q));
	mpn_zero(t, h);
	t[0] = 1;
	mpn_copyi(t + h, u + h, h);
	g->op.mul(g, r, r, t, u);
}

/* R and R^2 .. R^5 modulo n or n^2, by doubling what begins as 1. */
static void constants(struct ring *g)
{
	size_t k = g->k;
	uint64_t *s = ring_alloc(g->scratch);

	g->one = ring_alloc(k);
	g->rr = ring_alloc(PARTS * k);
	g->one[0] = 1;
	for (size_t i = 0; i < (size_t)g->h * GMP_NUMB_BITS; i++)
		add(g, g->one, g->one, g->one);
	/* 2^h R, squared six times: 2^(64 h) R. */
	mpn_copyi(g->rr, g->one, (mp_size_t)k);
	for (size_t i = 0; i < g->h; i++)
		add(g, g->rr, g->rr, g->rr);
	for (unsigned bits = 1; bits < GMP_NUMB_BITS; bits *= 2)
		g->op.sqr(g, g->rr, g->rr, s);
	for (size_t j = 1; j < PARTS; j++)
		g->op.mul(g, g->rr + j * k, g->rr + (j - 1) * k, g->rr, s);
	ring_wipe(s, g->scratch);
}

void ring_portable(struct ring *g)
{
	mp_limb_t low = mpz_getlimbn(g->n, 0), inv = 1;
	mp_size_t h = (mp_size_t)mpz_size(g->n);

	g->lanes = 1;
	g->h = (unsigned)h;
	g->k = g->square ? 2 * g->h : g->h;
	g->strips = strip_usable(h);
	/* 6 h of a kernel's own, 4 h of what calls it. */
	g->scratch = 12 * (size_t)h + 8 +
		     (size_t)MAX(mpn_sec_mul_itch(h, h), mpn_sec_sqr_itch(h));
	g->op = (struct ring_ops){
		.mul = g->square ? mul_pair : mul_flat,
		.mul_low = g->square ? mul_low_pair : mul_flat,
		.sqr = g->square ? sqr_pair : sqr_flat,
		.add = add,
		.raw = raw,
		.load = load,
		.store = store,
		.enter = enter,
		.leave = leave,
		.fill = fill,
		.select = select1,
		.pick = avx2() ? pick_avx2 : pick,
		.sum_add = sum_add,
		.sum_end = sum_end,
	};
	g->digits = ring_alloc((size_t)h);
	mpn_copyi(g->digits, mpz_limbs_read(g->n), h);
	/* Newton: each step doubles the bits that are right, from 1. */
	for (int i = 0; i < 6; i++)
		inv *= 2 - low * inv;
	g->inv = -inv;
	constants(g);
}
