// SPDX-License-Identifier: Apache-2.0
/*
 * Curve25519, eight points at a time on AVX-512 IFMA.
 *
 * A field element is five limbs of 51 bits (Bernstein's radix), lane by lane;
 * vpmadd52 takes 52-bit factors and adds the low or the high 52 bits of their
 * product, so the high half counts 2 * 2^51.
 *
 * Bounds.  "Reduced": every limb is below 2^51 + 2^15.  A column of a product
 * of reduced elements has at most 5 low and 4 doubled high halves, each below
 * 2^52: less than 13 * 2^52.  With 19 times the column five places up it stays
 * below 2^61, and carry() leaves limbs below 2^51 + 19 * 2^10: reduced.  Sums
 * and differences of reduced elements are below 2^53 and carried at once.
 *
 * No branch and no address depends on scalars, points or numbers: the ladder
 * swaps by masks.
 */
#include "components/crypto/curve25519.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "lib/base.h"

#ifndef __clang__ /* -fanalyzer does not see that the loops below fill all */
#pragma GCC diagnostic ignored "-Wanalyzer-use-of-uninitialized-value"
#endif

#define IFMA   __attribute__((target("avx512f,avx512dq,avx512ifma")))
#define INLINE static inline __attribute__((always_inline)) IFMA
#define UNROLL _Pragma("GCC unroll 5")
#define LIMBS  5
#define LANES  8
#define GROUPS 64 /* of eight points that share one inversion */
#define MASK   ((1ull << 51) - 1)
#define A24    121666 /* (486662 + 2) / 4 */
#define J      486662

typedef __m512i vec;
struct fe {
	vec v[LIMBS];
};

INLINE vec splat(uint64_t x)
{
	return _mm512_set1_epi64((int64_t)x);
}

INLINE vec add(vec a, vec b)
{
	return _mm512_add_epi64(a, b);
}

INLINE vec lo(vec acc, vec a, vec b)
{
	return _mm512_madd52lo_epu64(acc, a, b);
}

INLINE vec hi(vec acc, vec a, vec b)
{
	return _mm512_madd52hi_epu64(acc, a, b);
}

/* All limbs at once pass what is above 51 bits on, the last one times 19. */
INLINE struct fe carry(const vec c[LIMBS])
{
	struct fe r;
	vec t[LIMBS];

	UNROLL for (int i = 0; i < LIMBS; i++)
	{
		t[i] = _mm512_srli_epi64(c[i], 51);
		r.v[i] = _mm512_and_si512(c[i], splat(MASK));
	}
	r.v[0] = lo(r.v[0], t[4], splat(19));
	UNROLL for (int i = 1; i < LIMBS; i++) r.v[i] = add(r.v[i], t[i - 1]);
	return r;
}

INLINE struct fe fe_add(struct fe a, struct fe b)
{
	vec c[LIMBS];

	UNROLL for (int i = 0; i < LIMBS; i++) c[i] = add(a.v[i], b.v[i]);
	return carry(c);
}

/* a + 2p - b, no limb of which is negative. */
INLINE struct fe fe_sub(struct fe a, struct fe b)
{
	vec c[LIMBS];

	UNROLL for (int i = 0; i < LIMBS; i++)
	{
		vec p2 = splat(i ? 2 * MASK : 2 * (MASK - 18));

		c[i] = _mm512_sub_epi64(add(a.v[i], p2), b.v[i]);
	}
	return carry(c);
}

/* Column k of the product: its limbs that count 2^(51 k). */
INLINE vec column(const struct fe *a, const struct fe *b, const int k)
{
	vec l = _mm512_setzero_si512(), h = l;

	UNROLL for (int i = 0; i < LIMBS; i++)
	{
		if (k - i >= 0 && k - i < LIMBS)
			l = lo(l, a->v[i], b->v[k - i]);
		if (k - 1 - i >= 0 && k - 1 - i < LIMBS)
			h = hi(h, a->v[i], b->v[k - 1 - i]);
	}
	return add(l, add(h, h));
}

INLINE vec column_sqr(const struct fe *a, const int k)
{
	vec l = _mm512_setzero_si512(), h = l;

	UNROLL for (int i = 0; i < LIMBS; i++)
	{
		if (k - i > i && k - i < LIMBS)
			l = lo(l, a->v[i], a->v[k - i]);
		if (k - 1 - i > i && k - 1 - i < LIMBS)
			h = hi(h, a->v[i], a->v[k - 1 - i]);
	}
	l = add(l, l);
	h = add(h, h);
	if (k % 2 == 0)
		l = lo(l, a->v[k / 2], a->v[k / 2]);
	else
		h = hi(h, a->v[k / 2], a->v[k / 2]);
	return add(l, add(h, h));
}

INLINE vec times19(vec c)
{
	return _mm512_mullo_epi64(c, splat(19));
}

INLINE struct fe fe_mul(struct fe a, struct fe b)
{
	vec c[LIMBS];

	UNROLL for (int k = 0; k < LIMBS; k++) c[k] =
	    add(column(&a, &b, k), times19(column(&a, &b, k + LIMBS)));
	return carry(c);
}

INLINE struct fe fe_sqr(struct fe a)
{
	vec c[LIMBS];

	UNROLL for (int k = 0; k < LIMBS; k++) c[k] =
	    add(column_sqr(&a, k), times19(column_sqr(&a, k + LIMBS)));
	return carry(c);
}

/* Two independent products, column by column: one's latency is the other's
 * work. */
INLINE void fe_mul2(struct fe *r, struct fe *s, struct fe a, struct fe b,
		    struct fe c, struct fe d)
{
	vec x[LIMBS], y[LIMBS];

	UNROLL for (int k = 0; k < LIMBS; k++)
	{
		x[k] = times19(column(&a, &b, k + LIMBS));
		y[k] = times19(column(&c, &d, k + LIMBS));
		x[k] = add(x[k], column(&a, &b, k));
		y[k] = add(y[k], column(&c, &d, k));
	}
	*r = carry(x);
	*s = carry(y);
}

INLINE void fe_sqr2(struct fe *r, struct fe *s, struct fe a, struct fe c)
{
	vec x[LIMBS], y[LIMBS];

	UNROLL for (int k = 0; k < LIMBS; k++)
	{
		x[k] = times19(column_sqr(&a, k + LIMBS));
		y[k] = times19(column_sqr(&c, k + LIMBS));
		x[k] = add(x[k], column_sqr(&a, k));
		y[k] = add(y[k], column_sqr(&c, k));
	}
	*r = carry(x);
	*s = carry(y);
}

/* b + small * a; small below 2^20. */
INLINE struct fe fe_add_small(struct fe b, struct fe a, uint64_t small)
{
	vec c[LIMBS], h[LIMBS], zero = _mm512_setzero_si512();

	UNROLL for (int i = 0; i < LIMBS; i++)
	{
		c[i] = lo(b.v[i], a.v[i], splat(small));
		h[i] = hi(zero, a.v[i], splat(small));
	}
	c[0] = lo(c[0], h[4], splat(38));
	UNROLL for (int i = 1; i < LIMBS; i++) c[i] =
	    add(c[i], add(h[i - 1], h[i - 1]));
	return carry(c);
}

INLINE struct fe fe_small(uint64_t x)
{
	struct fe r;

	UNROLL for (int i = 0; i < LIMBS; i++) r.v[i] = splat(i ? 0 : x);
	return r;
}

INLINE struct fe fe_choose(__mmask8 m, struct fe yes, struct fe no)
{
	UNROLL for (int i = 0; i < LIMBS; i++) no.v[i] =
	    _mm512_mask_blend_epi64(m, no.v[i], yes.v[i]);
	return no;
}

INLINE void fe_swap(__mmask8 m, struct fe *a, struct fe *b)
{
	struct fe t = *a;

	*a = fe_choose(m, *b, *a);
	*b = fe_choose(m, t, *b);
}

static IFMA __attribute__((noinline)) void sqr_times(struct fe *r,
						     const struct fe *a, int n)
{
	struct fe x = *a;

	for (int i = 0; i < n; i++)
		x = fe_sqr(x);
	*r = x;
}

static IFMA __attribute__((noinline)) void
mul_to(struct fe *r, const struct fe *a, const struct fe *b)
{
	*r = fe_mul(*a, *b);
}

/* x = z^(2^250 - 1), and z11 = z^11 on the way (Bernstein's chain). */
static IFMA void power_250(struct fe *x, struct fe *z11, const struct fe *z)
{
	struct fe a, b, c;

	sqr_times(&a, z, 1); /* 2 */
	sqr_times(&b, &a, 2);
	mul_to(&b, &b, z);     /* 9 */
	mul_to(z11, &b, &a);   /* 11 */
	sqr_times(&a, z11, 1); /* 22 */
	mul_to(&b, &b, &a);    /* 2^5 - 1 */
	sqr_times(&a, &b, 5);
	mul_to(&b, &a, &b); /* 2^10 - 1 */
	sqr_times(&a, &b, 10);
	mul_to(&c, &a, &b); /* 2^20 - 1 */
	sqr_times(&a, &c, 20);
	mul_to(&a, &a, &c); /* 2^40 - 1 */
	sqr_times(&a, &a, 10);
	mul_to(&b, &a, &b); /* 2^50 - 1 */
	sqr_times(&a, &b, 50);
	mul_to(&c, &a, &b); /* 2^100 - 1 */
	sqr_times(&a, &c, 100);
	mul_to(&a, &a, &c); /* 2^200 - 1 */
	sqr_times(&a, &a, 50);
	mul_to(x, &a, &b); /* 2^250 - 1 */
}

/* z^(p - 2), p - 2 = 2^255 - 21; 0 of 0. */
static IFMA void invert(struct fe *r, const struct fe *z)
{
	struct fe x, z11;

	power_250(&x, &z11, z);
	sqr_times(&x, &x, 5);
	mul_to(r, &x, &z11);
}

/* z^((p - 1) / 2), the exponent being 2^254 - 10: 1 or -1. */
static IFMA void legendre(struct fe *r, const struct fe *z)
{
	struct fe x, z6;

	power_250(&x, &z6, z);
	sqr_times(&z6, z, 1);
	mul_to(&z6, &z6, z);
	sqr_times(&z6, &z6, 1);
	sqr_times(&x, &x, 4);
	mul_to(r, &x, &z6);
}

/* Replaces each of n elements that are not 0 by its inverse (Montgomery's
 * trick): three products for each and one inversion.  A zero in a lane gives
 * zeros in that lane. */
static IFMA void invert_all(struct fe *z, size_t n)
{
	struct fe before[GROUPS], inverse, t;

	before[0] = fe_small(1);
	for (size_t i = 1; i < n; i++)
		mul_to(&before[i], &before[i - 1], &z[i - 1]);
	mul_to(&t, &before[n - 1], &z[n - 1]);
	invert(&inverse, &t);
	for (size_t i = n; i-- > 0;) {
		mul_to(&t, &inverse, &before[i]);
		mul_to(&inverse, &inverse, &z[i]);
		z[i] = t;
	}
}

/* Four words of each lane to limbs; bit 255 is dropped (RFC 7748, 5). */
INLINE struct fe fe_from_words(const uint64_t w[4][LANES])
{
	struct fe r;
	vec a = _mm512_loadu_si512(w[0]), b = _mm512_loadu_si512(w[1]),
	    c = _mm512_loadu_si512(w[2]), d = _mm512_loadu_si512(w[3]);

	r.v[0] = a;
	r.v[1] =
	    _mm512_or_si512(_mm512_srli_epi64(a, 51), _mm512_slli_epi64(b, 13));
	r.v[2] =
	    _mm512_or_si512(_mm512_srli_epi64(b, 38), _mm512_slli_epi64(c, 26));
	r.v[3] =
	    _mm512_or_si512(_mm512_srli_epi64(c, 25), _mm512_slli_epi64(d, 39));
	r.v[4] = _mm512_srli_epi64(d, 12);
	UNROLL for (int i = 0; i < LIMBS; i++) r.v[i] =
	    _mm512_and_si512(r.v[i], splat(MASK));
	return r;
}

/* n <= 8 points; the lanes that are left are copies of the first. */
static IFMA void load(struct fe *r, const uint8_t *in, size_t n)
{
	uint64_t w[4][LANES], point[4];

	for (size_t l = 0; l < LANES; l++) {
		memcpy(point, in + (l < n ? l : 0) * CURVE_POINT, CURVE_POINT);
		for (size_t i = 0; i < 4; i++)
			w[i][l] = point[i];
	}
	*r = fe_from_words((const uint64_t(*)[LANES])w);
}

/* The canonical representative. */
static IFMA void store(const struct fe *a, size_t n, uint8_t *out)
{
	uint64_t w[4][LANES], point[4];
	vec m = splat(MASK), t;
	struct fe x = *a;

	/* Twice along all limbs: now below 2^255, but maybe not below p. */
	for (int pass = 0; pass < 2; pass++) {
		UNROLL for (int i = 0; i < LIMBS - 1; i++)
		{
			t = _mm512_srli_epi64(x.v[i], 51);
			x.v[i] = _mm512_and_si512(x.v[i], m);
			x.v[i + 1] = add(x.v[i + 1], t);
		}
		t = _mm512_srli_epi64(x.v[4], 51);
		x.v[4] = _mm512_and_si512(x.v[4], m);
		x.v[0] = lo(x.v[0], t, splat(19));
	}
	/* The carry of x + 19 out of 255 bits says whether x >= p; x + 19
	 * without it is then x - p. */
	t = splat(19);
	UNROLL for (int i = 0; i < LIMBS; i++) t =
	    _mm512_srli_epi64(add(x.v[i], t), 51);
	t = _mm512_mullo_epi64(t, splat(19));
	UNROLL for (int i = 0; i < LIMBS; i++)
	{
		t = add(x.v[i], t);
		x.v[i] = _mm512_and_si512(t, m);
		t = _mm512_srli_epi64(t, 51);
	}
	_mm512_storeu_si512(
	    w[0], _mm512_or_si512(x.v[0], _mm512_slli_epi64(x.v[1], 51)));
	_mm512_storeu_si512(w[1],
			    _mm512_or_si512(_mm512_srli_epi64(x.v[1], 13),
					    _mm512_slli_epi64(x.v[2], 38)));
	_mm512_storeu_si512(w[2],
			    _mm512_or_si512(_mm512_srli_epi64(x.v[2], 26),
					    _mm512_slli_epi64(x.v[3], 25)));
	_mm512_storeu_si512(w[3],
			    _mm512_or_si512(_mm512_srli_epi64(x.v[3], 39),
					    _mm512_slli_epi64(x.v[4], 12)));
	for (size_t l = 0; l < n; l++) {
		for (size_t i = 0; i < 4; i++)
			point[i] = w[i][l];
		memcpy(out + l * CURVE_POINT, point, CURVE_POINT);
	}
}

/* The Montgomery ladder of RFC 7748, 5, without its inversion: the result is
 * x / z. */
static IFMA __attribute__((noinline)) void
ladder(struct fe *x, struct fe *z, const struct fe *u,
       const uint8_t scalar[CURVE_POINT])
{
	struct fe x1 = *u, x2 = fe_small(1), z2 = fe_small(0), x3 = *u,
		  z3 = fe_small(1);
	unsigned swap = 0;

	for (int t = 254; t >= 0; t--) {
		unsigned bit = (scalar[t / 8] >> (t % 8)) & 1;
		__mmask8 m = (__mmask8) - (bit ^ swap);
		struct fe a, b, c, d, da, cb, aa, bb, e, f;

		swap = bit;
		fe_swap(m, &x2, &x3);
		fe_swap(m, &z2, &z3);
		a = fe_add(x2, z2);
		b = fe_sub(x2, z2);
		c = fe_add(x3, z3);
		d = fe_sub(x3, z3);
		fe_mul2(&da, &cb, d, a, c, b);
		fe_sqr2(&aa, &bb, a, b);
		e = fe_sub(aa, bb);
		fe_sqr2(&x3, &f, fe_add(da, cb), fe_sub(da, cb));
		x2 = fe_mul(aa, bb);
		fe_mul2(&z3, &z2, x1, f, e, fe_add_small(bb, e, A24));
	}
	fe_swap((__mmask8)-swap, &x2, &x3);
	fe_swap((__mmask8)-swap, &z2, &z3);
	*x = x2;
	*z = z2;
}

/* Up to GROUPS * LANES numerators and denominators to bytes. */
static IFMA void divide_and_store(struct fe *x, struct fe *z, size_t n,
				  uint8_t *out)
{
	size_t groups = (n + LANES - 1) / LANES;

	invert_all(z, groups);
	for (size_t g = 0; g < groups; g++) {
		mul_to(&x[g], &x[g], &z[g]);
		store(&x[g], MIN(n - g * LANES, (size_t)LANES),
		      out + g * LANES * CURVE_POINT);
	}
}

/* Lanes of the value 0 modulo p. */
static IFMA __mmask8 zero_lanes(const struct fe *a)
{
	uint8_t bytes[LANES * CURVE_POINT];
	__mmask8 m = 0;

	store(a, LANES, bytes);
	for (size_t l = 0; l < LANES; l++) {
		uint8_t any = 0;

		for (size_t i = 0; i < CURVE_POINT; i++)
			any |= bytes[l * CURVE_POINT + i];
		m |= (__mmask8)((any == 0) << l);
	}
	return m;
}

static IFMA bool ifma_mul(const uint8_t scalar[CURVE_POINT], const uint8_t *in,
			  size_t n, uint8_t *out)
{
	struct fe x[GROUPS], z[GROUPS], u, one = fe_small(1);
	uint8_t k[CURVE_POINT];
	__mmask8 bad = 0;

	memcpy(k, scalar, sizeof(k));
	k[0] &= 248;
	k[31] = (k[31] & 127) | 64;
	for (size_t at = 0; at < n; at += GROUPS * LANES) {
		size_t part = MIN(n - at, (size_t)GROUPS * LANES);

		for (size_t g = 0; g * LANES < part; g++) {
			size_t from = at + g * LANES;
			__mmask8 zero;

			load(&u, in + from * CURVE_POINT,
			     MIN(n - from, (size_t)LANES));
			ladder(&x[g], &z[g], &u, k);
			/* A zero would spoil the others of its lane. */
			zero = zero_lanes(&z[g]);
			z[g] = fe_choose(zero, one, z[g]);
			x[g] = fe_choose(zero, fe_small(0), x[g]);
			bad |= zero | zero_lanes(&x[g]);
		}
		divide_and_store(x, z, part, out + at * CURVE_POINT);
	}
	explicit_bzero(k, sizeof(k));
	explicit_bzero(x, sizeof(x));
	explicit_bzero(z, sizeof(z));
	return bad == 0;
}

/* Big-endian numbers of 48 bytes as hi * 2^255 + lo, 2^255 = 19. */
static IFMA void load_wide(struct fe *r, const uint8_t *in, size_t n)
{
	uint64_t w[6][LANES], high[4][LANES] = { 0 };
	struct fe low, top;

	for (size_t l = 0; l < LANES; l++)
		for (size_t i = 0; i < 6; i++) {
			uint64_t v;

			memcpy(&v,
			       in + (l < n ? l : 0) * CURVE_WIDE + 8 * (5 - i),
			       sizeof(v));
			w[i][l] = __builtin_bswap64(v);
		}
	for (size_t l = 0; l < LANES; l++) {
		high[0][l] = w[3][l] >> 63 | w[4][l] << 1;
		high[1][l] = w[4][l] >> 63 | w[5][l] << 1;
		high[2][l] = w[5][l] >> 63;
	}
	low = fe_from_words((const uint64_t(*)[LANES])w);
	top = fe_from_words((const uint64_t(*)[LANES])high);
	*r = fe_add_small(low, top, 19);
}

/*
 * One group of Elligator 2 as the fraction x / d.  With d = 1 + 2 u^2 the
 * first candidate is -J / d, the second J (1 - d) / d = -x - J; the curve's
 * g(x) = x^3 + J x^2 + x of the first one times d^4, a square, is
 * -J d (J^2 - J^2 d + d^2), so that nothing is divided before the Legendre
 * symbol is known.  d is never 0: -1/2 is no square.
 */
static IFMA void map_group(struct fe *x, struct fe *d, const uint8_t *in,
			   size_t n)
{
	struct fe u, g, t, jj = fe_small((uint64_t)J * J), one = fe_small(1),
			   zero = fe_small(0);
	struct fe first = fe_sub(zero, fe_small(J)), second;

	load_wide(&u, in, n);
	sqr_times(&t, &u, 1);
	*d = fe_add_small(one, t, 2);
	/* J^2 (1 - d) + d^2 */
	g = fe_mul(jj, fe_sub(one, *d));
	g = fe_add(g, fe_sqr(*d));
	g = fe_mul(fe_mul(g, *d), first);
	legendre(&t, &g);
	second = fe_mul(fe_small(J), fe_sub(one, *d));
	/* The symbol is 1 or -1: 1 + it is 0 when there is no root. */
	t = fe_add(t, one);
	*x = fe_choose(zero_lanes(&t), second, first);
}

static IFMA void ifma_map(const uint8_t *wide, size_t n, uint8_t *out)
{
	struct fe x[GROUPS], d[GROUPS];

	for (size_t at = 0; at < n; at += GROUPS * LANES) {
		size_t part = MIN(n - at, (size_t)GROUPS * LANES);

		for (size_t g = 0; g * LANES < part; g++) {
			size_t from = at + g * LANES;

			map_group(&x[g], &d[g], wide + from * CURVE_WIDE,
				  MIN(n - from, (size_t)LANES));
		}
		divide_and_store(x, d, part, out + at * CURVE_POINT);
	}
}

const struct curve25519 *curve25519_ifma(void)
{
	static const struct curve25519 c = { "ifma", ifma_mul, ifma_map };

	return __builtin_cpu_supports("avx512f") &&
		       __builtin_cpu_supports("avx512dq") &&
		       __builtin_cpu_supports("avx512ifma")
		   ? &c
		   : NULL;
}
#else
const struct curve25519 *curve25519_ifma(void)
{
	return NULL;
}
#endif
