// SPDX-License-Identifier: Apache-2.0
/*
 * The vector path of ring.h: AVX-512 IFMA (vpmadd52), eight numbers at a
 * time. Only the functions marked IFMA use those instructions, and ring_new
 * comes here only on a processor that has them.
 */
#include <string.h>

#include "components/crypto/ring.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define IFMA                                                        \
	__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw," \
			      "avx512ifma")))
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define LO(t, x, y)   ((t) = _mm512_madd52lo_epu64(t, x, y))
#define HI(t, x, y)   ((t) = _mm512_madd52hi_epu64(t, x, y))
/* What p points to is read where it is used, as a memory operand, and not
 * kept: there are no registers for it. */
#define STAYS(p) __asm__("" : "+r"(p))
#define WORD(w)	 _mm512_set1_epi64((long long)(w))
#define DIGIT	 52
#define MASK	 ((UINT64_C(1) << DIGIT) - 1)
#define SLACK	 12 /* R >= 2^SLACK n */
#define K_MAX	 80
#define PARTS	 4 /* of K digits, of what enter takes */

typedef void binary(const struct ring *g, uint64_t *r, const uint64_t *a,
		    const uint64_t *b, uint64_t *scratch);
typedef void unary(const struct ring *g, uint64_t *r, const uint64_t *a,
		   uint64_t *scratch);
struct kernels {
	unsigned k;
	binary *mul_flat, *mul_pair, *mul_low_pair;
	unary *sqr_flat, *sqr_pair, *join;
};

#define K     12
#define FN(x) x##_12
#include "components/crypto/ifma_kernel.h"
#define K     16
#define FN(x) x##_16
#include "components/crypto/ifma_kernel.h"
#define K     20
#define FN(x) x##_20
#include "components/crypto/ifma_kernel.h"
#define K     32
#define FN(x) x##_32
#include "components/crypto/ifma_kernel.h"
#define K     40
#define FN(x) x##_40
#include "components/crypto/ifma_kernel.h"
#define K     60
#define FN(x) x##_60
#include "components/crypto/ifma_kernel.h"
#define K     80
#define FN(x) x##_80
#include "components/crypto/ifma_kernel.h"

static const struct kernels *const kernels[] = {
	&kernels_12, &kernels_16, &kernels_20, &kernels_32,
	&kernels_40, &kernels_60, &kernels_80,
};

static const struct kernels *kernels_for(size_t bits)
{
	for (size_t i = 0; i < ARRAY_SIZE(kernels); i++)
		if (bits + SLACK <= (size_t)DIGIT * kernels[i]->k)
			return kernels[i];
	return NULL;
}

static const struct kernels *kernels_of(const struct ring *g)
{
	for (size_t i = 0;; i++)
		if (kernels[i]->k == g->h)
			return kernels[i];
}

/* Eight rows of eight words: columns become rows. */
IFMA static ALWAYS_INLINE void transpose(__m512i r[8])
{
	__m512i a[8], b[8];

#pragma GCC unroll 4
	for (int i = 0; i < 4; i++) {
		a[2 * i] = _mm512_unpacklo_epi64(r[2 * i], r[2 * i + 1]);
		a[2 * i + 1] = _mm512_unpackhi_epi64(r[2 * i], r[2 * i + 1]);
	}
#pragma GCC unroll 2
	for (int i = 0; i < 2; i++) {
		b[i] = _mm512_shuffle_i64x2(a[i], a[2 + i], 0x88);
		b[2 + i] = _mm512_shuffle_i64x2(a[i], a[2 + i], 0xdd);
		b[4 + i] = _mm512_shuffle_i64x2(a[4 + i], a[6 + i], 0x88);
		b[6 + i] = _mm512_shuffle_i64x2(a[4 + i], a[6 + i], 0xdd);
	}
#pragma GCC unroll 4
	for (int i = 0; i < 4; i++) {
		r[i] = _mm512_shuffle_i64x2(b[i], b[4 + i], 0x88);
		r[4 + i] = _mm512_shuffle_i64x2(b[i], b[4 + i], 0xdd);
	}
}

/* Records have a multiple of four words: the last step of a flat ring's may
 * be half a one, by masks. */
IFMA static void load(const struct ring *g, uint64_t *r,
		      const uint64_t *const *rec)
{
	for (unsigned i = 0; i < g->k; i += 8) {
		const __mmask8 m = g->k - i < 8 ? 0x0f : 0xff;
		__m512i v[8];

		for (int l = 0; l < 8; l++)
			v[l] = _mm512_maskz_loadu_epi64(m, rec[l] + i);
		transpose(v);
		for (unsigned l = 0; l < 8 && i + l < g->k; l++)
			_mm512_store_si512(r + (i + l) * 8, v[l]);
	}
}

IFMA static void store(const struct ring *g, uint64_t *const *rec,
		       const uint64_t *a)
{
	for (unsigned i = 0; i < g->k; i += 8) {
		const __mmask8 m = g->k - i < 8 ? 0x0f : 0xff;
		__m512i v[8];

		for (unsigned l = 0; l < 8; l++)
			v[l] = i + l < g->k ? _mm512_load_si512(a + (i + l) * 8)
					    : _mm512_setzero_si512();
		transpose(v);
		for (int l = 0; l < 8; l++)
			_mm512_mask_storeu_epi64(rec[l] + i, m, v[l]);
	}
}

/* Digits of base 2^52 out of limbs, from bit `from` on, and back. */
static void to_digits(uint64_t *d, size_t stride, unsigned digits,
		      const mp_limb_t *v, size_t limbs, size_t from)
{
	for (unsigned i = 0; i < digits; i++, from += DIGIT) {
		size_t w = from / 64, s = from % 64;
		uint64_t x = w < limbs ? v[w] >> s : 0;

		if (s > 64 - DIGIT && w + 1 < limbs)
			x |= v[w + 1] << (64 - s);
		d[i * stride] = x & MASK;
	}
}

static void from_digits(mp_limb_t *v, size_t limbs, const uint64_t *d,
			size_t stride, unsigned digits)
{
	size_t at = 0;

	for (size_t i = 0; i < limbs; i++)
		v[i] = 0;
	for (unsigned i = 0; i < digits; i++, at += DIGIT) {
		size_t w = at / 64, s = at % 64;
		uint64_t x = d[i * stride];

		if (w < limbs)
			v[w] |= x << s;
		if (s > 64 - DIGIT && w + 1 < limbs)
			v[w + 1] |= x >> (64 - s);
	}
}

IFMA static void add(const struct ring *g, uint64_t *r, const uint64_t *a,
		     const uint64_t *b)
{
	const __m512i mask = WORD(MASK);

	for (unsigned half = 0; half < g->k; half += g->h) {
		__m512i c = _mm512_setzero_si512();

		for (size_t i = half * 8; i < (size_t)(half + g->h) * 8;
		     i += 8) {
			__m512i x = _mm512_add_epi64(_mm512_load_si512(a + i),
						     _mm512_load_si512(b + i));

			x = _mm512_add_epi64(x, c);
			c = _mm512_srli_epi64(x, DIGIT);
			_mm512_store_si512(r + i, _mm512_and_si512(x, mask));
		}
	}
}

static void raw_from(const struct ring *g, uint64_t *r,
		     const mp_limb_t *const *v, size_t limbs, size_t bit)
{
	for (unsigned l = 0; l < 8; l++)
		to_digits(r + l, 8, g->h, v[l], limbs, bit);
}

static void raw(const struct ring *g, uint64_t *r, const mp_limb_t *const *v,
		size_t limbs)
{
	raw_from(g, r, v, limbs, 0);
}

/* Sum over the parts v_j of K digits of v_j R^(j+2) / R. A product with a v_j
 * of up to R has halves of up to 2 (n + 1): four of them stay below 32 n. */
static void enter(const struct ring *g, uint64_t *r, const mp_limb_t *const *v,
		  size_t limbs, uint64_t *scratch)
{
	const size_t group = ring_group(g), bits = (size_t)DIGIT * g->h;
	uint64_t *part = scratch, *prod = part + group, *rest = prod + group;

	raw_from(g, part, v, limbs, 0);
	g->op.mul_low(g, r, g->rr, part, rest);
	for (unsigned j = 1; j < PARTS && j * bits < limbs * 64; j++) {
		raw_from(g, part, v, limbs, j * bits);
		g->op.mul_low(g, prod, g->rr + j * group, part, rest);
		add(g, r, r, prod);
	}
}

/* The product with 1 is at most n (second half: n + 1), so that a + b n is
 * below 2 m. */
static void leave(const struct ring *g, mp_limb_t *const *v, const uint64_t *a,
		  uint64_t *scratch)
{
	const size_t group = ring_group(g);
	uint64_t *one = scratch, *x = one + group, *rest = x + 2 * group;

	memset(one, 0, group * sizeof(*one));
	for (unsigned l = 0; l < 8; l++)
		one[l] = 1;
	g->op.mul_low(g, x, a, one, rest);
	if (g->square)
		kernels_of(g)->join(g, x, x, rest);
	for (unsigned l = 0; l < 8; l++) {
		/* Of one more than the modulus has. */
		mp_limb_t *t = rest;
		mp_limb_t top;

		from_digits(t, (size_t)g->limbs + 1, x + l, 8,
			    g->square ? 2 * g->h : g->h);
		top = mpn_sub_n(v[l], t, mpz_limbs_read(g->m), g->limbs);
		top &= 1 ^ (t[g->limbs] & 1);
		(void)mpn_cnd_add_n(top, v[l], v[l], mpz_limbs_read(g->m),
				    g->limbs);
	}
}

/*
 * A table keeps word i of all its 2^w records together, at i << w, so that a
 * vector holds eight entries of a word and a permutation picks one for each
 * lane.
 */
IFMA static void fill(const struct ring *g, uint64_t *const *table, unsigned w,
		      unsigned at, const uint64_t *groups)
{
	for (unsigned i = 0; i < g->k; i++) {
		__m512i v[8];

		for (unsigned d = 0; d < 8; d++)
			v[d] = _mm512_load_si512(groups + d * ring_group(g) +
						 i * 8);
		transpose(v);
		for (unsigned l = 0; l < 8; l++)
			_mm512_storeu_si512(table[l] + ((size_t)i << w) + at,
					    v[l]);
	}
}

/* r = for the lanes of `lanes`, entry digit of the table of `vectors` vectors a
 * word; other lanes keep theirs. */
IFMA static ALWAYS_INLINE void select_words(const struct ring *g, uint64_t *r,
					    const uint64_t *t, unsigned vectors,
					    __m512i digit, __mmask8 lanes)
{
	const unsigned pairs = vectors > 1 ? vectors / 2 : 1;
	__mmask8 which[8];

	for (unsigned p = 0; p < pairs; p++)
		which[p] = _mm512_mask_cmpeq_epi64_mask(
		    lanes, _mm512_srli_epi64(digit, 4), WORD(p));
	for (unsigned i = 0; i < g->k; i++, t += 8 * vectors) {
		__m512i x = _mm512_load_si512(r + i * 8);

#pragma GCC unroll 8
		for (unsigned p = 0; p < pairs; p++) {
			__m512i lo = _mm512_loadu_si512(t + 16 * p);
			__m512i hi = vectors == 1
					 ? lo
					 : _mm512_loadu_si512(t + 16 * p + 8);

			x = _mm512_mask_mov_epi64(
			    x, which[p],
			    _mm512_permutex2var_epi64(lo, digit, hi));
		}
		_mm512_store_si512(r + i * 8, x);
	}
}

/* Masks in registers: once for each size. */
IFMA static void select_from(const struct ring *g, uint64_t *r,
			     const uint64_t *t, unsigned w, __m512i digit,
			     __mmask8 lanes)
{
	switch (w) {
	case 3:
		select_words(g, r, t, 1, digit, lanes);
		break;
	case 4:
		select_words(g, r, t, 2, digit, lanes);
		break;
	case 5:
		select_words(g, r, t, 4, digit, lanes);
		break;
	case 6:
		select_words(g, r, t, 8, digit, lanes);
		break;
	default: /* 7 */
		select_words(g, r, t, 16, digit, lanes);
		break;
	}
}

IFMA static void select8(const struct ring *g, uint64_t *r,
			 const uint64_t *const *table, unsigned w,
			 const uint32_t *digit)
{
	const __m512i d =
	    _mm512_cvtepu32_epi64(_mm256_loadu_si256((const void *)digit));

	/* Lanes that share a table are served together. */
	for (unsigned l = 0, done = 0; l < 8; l++) {
		unsigned lanes = 0;

		if (done >> l & 1)
			continue;
		for (unsigned o = l; o < 8; o++)
			if (table[o] == table[l])
				lanes |= 1u << o;
		select_from(g, r, table[l], w, d, (__mmask8)lanes);
		done |= lanes;
	}
}

IFMA static void pick(const struct ring *g, uint64_t *r, const uint64_t *groups,
		      unsigned w, const uint32_t *digit)
{
	const size_t group = ring_group(g);
	const __m512i d =
	    _mm512_cvtepu32_epi64(_mm256_loadu_si256((const void *)digit));

	for (size_t i = 0; i < group; i += 32) {
		__m512i x[4] = { 0 };

		for (unsigned e = 0; e < 1u << w; e++) {
			const __mmask8 m = _mm512_cmpeq_epi64_mask(d, WORD(e));
			const uint64_t *from = groups + e * group + i;

#pragma GCC unroll 4
			for (unsigned c = 0; c < 4; c++)
				x[c] = _mm512_mask_mov_epi64(
				    x[c], m, _mm512_load_si512(from + 8 * c));
		}
#pragma GCC unroll 4
		for (unsigned c = 0; c < 4; c++)
			_mm512_store_si512(r + i + 8 * c, x[c]);
	}
}

/* Sums of up to 1024 second halves, carried at the end: below 2^11 n. */
IFMA static void sum_add(const struct ring *g, uint64_t *sum, const uint64_t *a)
{
	for (size_t i = 0; i < (size_t)g->h * 8; i += 8)
		_mm512_store_si512(sum + i,
				   _mm512_add_epi64(_mm512_load_si512(sum + i),
						    _mm512_load_si512(a + i)));
}

/* r = r (1 + sum n) / R */
IFMA static void sum_end(const struct ring *g, uint64_t *r, const uint64_t *sum,
			 uint64_t *scratch)
{
	const size_t half = (size_t)g->h * 8;
	const __m512i mask = WORD(MASK);
	__m512i c = _mm512_setzero_si512();

	memset(scratch, 0, half * sizeof(*scratch));
	_mm512_store_si512(scratch, WORD(1));
	for (size_t i = 0; i < half; i += 8) {
		__m512i x = _mm512_add_epi64(_mm512_load_si512(sum + i), c);

		c = _mm512_srli_epi64(x, DIGIT);
		_mm512_store_si512(scratch + half + i,
				   _mm512_and_si512(x, mask));
	}
	g->op.mul(g, r, r, scratch, scratch + 2 * half);
}

/* v in digits of the ring's, the same in every lane. */
static void spread(const struct ring *g, uint64_t *r, const mpz_t v)
{
	for (unsigned l = 0; l < 8; l++)
		to_digits(r + l, 8, g->h, mpz_limbs_read(v), mpz_size(v), 0);
}

/* Group of v, 0 <= v < m, without a factor R. */
static void constant(const struct ring *g, uint64_t *r, const mpz_t v)
{
	mpz_t a, b;

	mpz_inits(a, b, NULL);
	mpz_tdiv_qr(b, a, v, g->n);
	spread(g, r, a);
	if (g->square)
		spread(g, r + (size_t)g->h * 8, b);
	explicit_bzero(a->_mp_d, (size_t)a->_mp_alloc * sizeof(mp_limb_t));
	explicit_bzero(b->_mp_d, (size_t)b->_mp_alloc * sizeof(mp_limb_t));
	mpz_clears(a, b, NULL);
}

static bool processor_can(void)
{
	return __builtin_cpu_supports("avx512f") &&
	       __builtin_cpu_supports("avx512dq") &&
	       __builtin_cpu_supports("avx512vl") &&
	       __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512ifma");
}

bool ring_ifma(struct ring *g)
{
	const struct kernels *f = kernels_for(mpz_sizeinbase(g->n, 2));
	uint64_t low = mpz_getlimbn(g->n, 0), inv = 1;
	size_t group;
	mpz_t t, radix;

	if (!f || !processor_can())
		return false;
	g->lanes = 8;
	g->h = f->k;
	g->k = g->square ? 2 * g->h : g->h;
	group = ring_group(g);
	/* leave needs two of its own and two for join, a kernel 5 K. */
	g->scratch = 4 * group + (size_t)5 * g->h * 8;
	g->op = (struct ring_ops){
		.mul = g->square ? f->mul_pair : f->mul_flat,
		.mul_low = g->square ? f->mul_low_pair : f->mul_flat,
		.sqr = g->square ? f->sqr_pair : f->sqr_flat,
		.add = add,
		.raw = raw,
		.load = load,
		.store = store,
		.enter = enter,
		.leave = leave,
		.fill = fill,
		.select = select8,
		.pick = pick,
		.sum_add = sum_add,
		.sum_end = sum_end,
	};
	g->digits = ring_alloc(g->h);
	g->start = ring_alloc(g->h);
	g->one = ring_alloc(group);
	g->rr = ring_alloc(PARTS * group);
	to_digits(g->digits, 1, g->h, mpz_limbs_read(g->n), mpz_size(g->n), 0);
	/* Newton: each step doubles the bits that are right, from 1. */
	for (int i = 0; i < 6; i++)
		inv *= 2 - low * inv;
	g->inv = -inv & MASK;
	mpz_inits(t, radix, NULL);
	mpz_setbit(radix, (mp_bitcnt_t)DIGIT * g->h);
	mpz_cdiv_q(t, radix, g->n);
	mpz_mul(t, t, g->n);
	mpz_sub(t, t, radix);
	mpz_add_ui(t, t, 1);
	to_digits(g->start, 1, g->h, mpz_limbs_read(t), mpz_size(t), 0);
	mpz_mod(t, radix, g->m);
	constant(g, g->one, t);
	for (unsigned j = 0; j < PARTS; j++) {
		mpz_mul(t, t, radix);
		mpz_mod(t, t, g->m);
		constant(g, g->rr + j * group, t);
	}
	explicit_bzero(t->_mp_d, (size_t)t->_mp_alloc * sizeof(mp_limb_t));
	mpz_clears(t, radix, NULL);
	return true;
}

#else

bool ring_ifma(struct ring *g)
{
	(void)g;
	return false;
}

#endif
