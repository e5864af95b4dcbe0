/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Montgomery arithmetic on eight numbers of K digits of base 2^52, one number
 * to each 64-bit lane of a vector. ifma.c includes this once for each K (a
 * multiple of 4, at most 80) with FN(x) as the name of x for that K.
 *
 * A column is one 64-bit sum in each lane. vpmadd52 adds the lower or the
 * upper 52 bits of a product of two digits to a column.
 *
 * Why columns do not overflow: column c of a product of K digits takes at
 * most K lower and K upper parts, each below 2^52. The widest case is two
 * products and a reduction (second half of FN(mul_pair)): 3 * 2K parts, and
 * one digit each of `start` and of m's complement, and a carry below 2^12;
 * with K <= 80 less than 483 * 2^52 < 2^61. A square doubles its products:
 * 2 * 2K + 2K parts, the same.
 *
 * Why results are below 2n: let halves a, b, c, d of what comes in be below
 * 32 n, and R >= 2^12 n. The first half is (ac + m n) / R with m < R, below
 *	(2^10 n^2 + R n) / R <= n (2^10 / 2^12 + 1) < 2 n.
 * The second half should be (ad + bc - m) / R mod n. As -m could be negative,
 * its complement R - 1 - m (which is m with all its bits turned) is added
 * instead, and start = ceil(R / n) n - (R - 1), 0 < start <= n, to make up for
 * it modulo n. It comes to
 *	(ad + bc + (R - 1 - m) + start + m' n) / R
 *	< (2 * 2^10 n^2 + R + n + R n) / R <= n / 2 + 1 + 1 + n < 2 n.
 * 2n < R, so K digits hold them and no carry leaves the top one.
 */

#define V __m512i

/* The digits of t, carried. */
IFMA static ALWAYS_INLINE void FN(carry)(V *r, const V *t, unsigned digits)
{
	const V mask = _mm512_set1_epi64((1LL << 52) - 1);
	V c = _mm512_setzero_si512();

#pragma GCC unroll 4
	for (unsigned i = 0; i < digits; i++) {
		V x = _mm512_add_epi64(t[i], c);

		c = _mm512_srli_epi64(x, 52);
		r[i] = _mm512_and_si512(x, mask);
	}
}

/* What four rows of a product add to a column: window w of the one operand,
 * digits d of the other; top is false above the operand's last digit. */
#define ROWS(x, y, w, top, d)              \
	do {                               \
		if (top)                   \
			LO(x, w##4, d##0); \
		HI(y, w##3, d##0);         \
		LO(x, w##3, d##1);         \
		HI(y, w##2, d##1);         \
		LO(x, w##2, d##2);         \
		HI(y, w##1, d##2);         \
		LO(x, w##1, d##3);         \
		HI(y, w##0, d##3);         \
	} while (0)
/* The same for the four lowest columns. */
#define CORNER(t, u, w, d)            \
	do {                          \
		LO(t##0, w##0, d##0); \
		LO(t##1, w##1, d##0); \
		HI(u##1, w##0, d##0); \
		LO(t##1, w##0, d##1); \
		LO(t##2, w##2, d##0); \
		HI(u##2, w##1, d##0); \
		LO(t##2, w##1, d##1); \
		HI(u##2, w##0, d##1); \
		LO(t##2, w##0, d##2); \
		LO(t##3, w##3, d##0); \
		HI(u##3, w##2, d##0); \
		LO(t##3, w##2, d##1); \
		HI(u##3, w##1, d##1); \
		LO(t##3, w##1, d##2); \
		HI(u##3, w##0, d##2); \
		LO(t##3, w##0, d##3); \
	} while (0)
#define FOUR(x, from) \
	V x##0 = (from)[0], x##1 = (from)[1], x##2 = (from)[2], x##3 = (from)[3]
#define SPREAD(x, from)                                   \
	V x##0 = WORD((from)[0]), x##1 = WORD((from)[1]), \
	  x##2 = WORD((from)[2]), x##3 = WORD((from)[3])
#define SHIFT(w)             \
	do {                 \
		w##0 = w##1; \
		w##1 = w##2; \
		w##2 = w##3; \
		w##3 = w##4; \
	} while (0)
/*
 * The digits m of the reduction of the columns t0 .. t3 one after the other;
 * each makes its column divisible by 2^52. What is above goes on as a carry.
 */
#define DIGITS(t, u, n, inv, m, cy)                                        \
	do {                                                               \
		const V z_ = _mm512_setzero_si512();                       \
                                                                           \
		m##0 = _mm512_madd52lo_epu64(z_, t##0, inv);               \
		LO(t##0, n##0, m##0);                                      \
		cy = _mm512_srli_epi64(t##0, 52);                          \
		HI(u##1, n##0, m##0);                                      \
		LO(t##1, n##1, m##0);                                      \
		HI(u##2, n##1, m##0);                                      \
		LO(t##2, n##2, m##0);                                      \
		HI(u##3, n##2, m##0);                                      \
		LO(t##3, n##3, m##0);                                      \
		t##1 = _mm512_add_epi64(_mm512_add_epi64(t##1, u##1), cy); \
		m##1 = _mm512_madd52lo_epu64(z_, t##1, inv);               \
		LO(t##1, n##0, m##1);                                      \
		cy = _mm512_srli_epi64(t##1, 52);                          \
		HI(u##2, n##0, m##1);                                      \
		LO(t##2, n##1, m##1);                                      \
		HI(u##3, n##1, m##1);                                      \
		LO(t##3, n##2, m##1);                                      \
		t##2 = _mm512_add_epi64(_mm512_add_epi64(t##2, u##2), cy); \
		m##2 = _mm512_madd52lo_epu64(z_, t##2, inv);               \
		LO(t##2, n##0, m##2);                                      \
		cy = _mm512_srli_epi64(t##2, 52);                          \
		HI(u##3, n##0, m##2);                                      \
		LO(t##3, n##1, m##2);                                      \
		t##3 = _mm512_add_epi64(_mm512_add_epi64(t##3, u##3), cy); \
		m##3 = _mm512_madd52lo_epu64(z_, t##3, inv);               \
		LO(t##3, n##0, m##3);                                      \
		cy = _mm512_srli_epi64(t##3, 52);                          \
	} while (0)

#if K <= 20
/*
 * The columns t, reduced: t += a * b (and + c * d where d), then divided by R
 * modulo n; the digits of the reduction go to `m` if given. All columns stay in
 * registers: a row of the product goes down one column.
 */
IFMA static ALWAYS_INLINE void FN(product)(V *restrict t, const V *a,
					   const V *b, const V *c, const V *d,
					   const struct ring *g, V *m)
{
	const V zero = _mm512_setzero_si512(), inv = WORD(g->inv);
	const uint64_t *n = g->digits;
	V x[K];

#pragma GCC unroll 20
	for (unsigned j = 0; j < K; j++)
		x[j] = t[j];
#pragma GCC unroll 1
	for (unsigned i = 0; i < K; i++) {
		const V bi = b[i], di = d ? d[i] : zero;
		V cy, mi;

		STAYS(a);
		STAYS(c);
		STAYS(n);
		LO(x[0], bi, a[0]);
		if (d)
			LO(x[0], di, c[0]);
		mi = _mm512_madd52lo_epu64(zero, x[0], inv);
#pragma GCC unroll 20
		for (unsigned j = 1; j < K; j++) {
			LO(x[j], bi, a[j]);
			if (d)
				LO(x[j], di, c[j]);
		}
		if (m)
			m[i] = mi;
		LO(x[0], mi, WORD(n[0]));
		cy = _mm512_srli_epi64(x[0], 52);
#pragma GCC unroll 20
		for (unsigned j = 0; j < K; j++) {
			V y = j + 1 < K ? x[j + 1] : zero;

			if (j + 1 < K)
				LO(y, mi, WORD(n[j + 1]));
			HI(y, bi, a[j]);
			if (d)
				HI(y, di, c[j]);
			HI(y, mi, WORD(n[j]));
			x[j] = y;
		}
		x[0] = _mm512_add_epi64(x[0], cy);
	}
#pragma GCC unroll 20
	for (unsigned j = 0; j < K; j++)
		t[j] = x[j];
}

/* The columns t[0 .. 2K-1] reduced, into t[K .. 2K-1]. */
IFMA static ALWAYS_INLINE void FN(reduction)(V *restrict t,
					     const struct ring *g, V *m)
{
	const V zero = _mm512_setzero_si512(), inv = WORD(g->inv);
	const uint64_t *n = g->digits;
	V x[K];

#pragma GCC unroll 20
	for (unsigned j = 0; j < K; j++)
		x[j] = t[j];
#pragma GCC unroll 1
	for (unsigned i = 0; i < K; i++) {
		const V mi = _mm512_madd52lo_epu64(zero, x[0], inv);
		V cy;

		STAYS(n);
		if (m)
			m[i] = mi;
		LO(x[0], mi, WORD(n[0]));
		cy = _mm512_srli_epi64(x[0], 52);
#pragma GCC unroll 20
		for (unsigned j = 0; j < K; j++) {
			V y = j + 1 < K ? x[j + 1] : t[K + i];

			if (j + 1 < K)
				LO(y, mi, WORD(n[j + 1]));
			HI(y, mi, WORD(n[j]));
			x[j] = y;
		}
		x[0] = _mm512_add_epi64(x[0], cy);
	}
#pragma GCC unroll 20
	for (unsigned j = 0; j < K; j++)
		t[K + j] = x[j];
}
#else
/*
 * Four rows of one product or of two: the columns t += a * b[0..3] (and
 * + c * d[0..3] where two) + n * m for the four digits m that make the lowest
 * columns vanish, then one step of four columns down. m goes to `m` if given.
 */
IFMA static ALWAYS_INLINE void FN(rows)(V *restrict t, const V *a, const V *b,
					bool two, const V *c, const V *d,
					const struct ring *g, V *m)
{
	const V zero = _mm512_setzero_si512(), inv = WORD(g->inv);
	const uint64_t *n = g->digits;
	V u1 = zero, u2 = zero, u3 = zero, cy, m0, m1, m2, m3;
	V C0 = zero, C1 = zero, C2 = zero, C3 = zero;
	V d0 = zero, d1 = zero, d2 = zero, d3 = zero;

	FOUR(A, a);
	FOUR(b, b);
	SPREAD(N, n);
	FOUR(t, t);
	CORNER(t, u, A, b);
	if (two) {
		C0 = c[0], C1 = c[1], C2 = c[2], C3 = c[3];
		d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3];
		CORNER(t, u, C, d);
	}
	DIGITS(t, u, N, inv, m, cy);
	if (m)
		m[0] = m0, m[1] = m1, m[2] = m2, m[3] = m3;
#pragma GCC unroll 4
	for (unsigned j = 4; j < K + 4; j++) {
		const bool top = j < K;
		V x = cy, y = zero, A4 = zero, C4 = zero, N4 = zero;

		cy = zero;
		if (top) {
			x = _mm512_add_epi64(x, t[j]);
			A4 = a[j];
			N4 = WORD(n[j]);
			if (two)
				C4 = c[j];
		}
		ROWS(x, y, A, top, b);
		if (two)
			ROWS(x, y, C, top, d);
		ROWS(x, y, N, top, m);
		t[j - 4] = _mm512_add_epi64(x, y);
		SHIFT(A);
		SHIFT(C);
		SHIFT(N);
	}
}

IFMA static ALWAYS_INLINE void FN(product)(V *restrict t, const V *a,
					   const V *b, const V *c, const V *d,
					   const struct ring *g, V *m)
{
	for (unsigned i = 0; i < K; i += 4)
		FN(rows)
	(t, a, b + i, d != NULL, c, d ? d + i : NULL, g, m ? m + i : NULL);
}

/* Reduction of the columns t[0 .. K+3] by four digits; the result is in
 * t[4 .. K+3]. */
IFMA static ALWAYS_INLINE void FN(reduce)(V *restrict t, const struct ring *g,
					  V *m)
{
	const V zero = _mm512_setzero_si512(), inv = WORD(g->inv);
	const uint64_t *n = g->digits;
	V u1 = zero, u2 = zero, u3 = zero, cy, m0, m1, m2, m3;

	SPREAD(N, n);
	FOUR(t, t);
	DIGITS(t, u, N, inv, m, cy);
	if (m)
		m[0] = m0, m[1] = m1, m[2] = m2, m[3] = m3;
#pragma GCC unroll 4
	for (unsigned j = 4; j < K + 4; j++) {
		const bool top = j < K;
		V x = _mm512_add_epi64(t[j], cy), y = zero, N4 = zero;

		cy = zero;
		if (top)
			N4 = WORD(n[j]);
		ROWS(x, y, N, top, m);
		t[j] = _mm512_add_epi64(x, y);
		SHIFT(N);
	}
}

IFMA static ALWAYS_INLINE void FN(reduction)(V *restrict t,
					     const struct ring *g, V *m)
{
	for (unsigned i = 0; i < K; i += 4)
		FN(reduce)(t + i, g, m ? m + i : NULL);
}
#endif

/* The columns p[0 .. 2K-1] of a square: products of unlike digits once, then
 * doubled, then the squares of the digits. */
IFMA static ALWAYS_INLINE void FN(square)(V *restrict p, const V *a)
{
	const V zero = _mm512_setzero_si512();

	for (unsigned i = 0; i < 2 * K; i++)
		p[i] = zero;
	for (unsigned i = 0; i < K; i += 4) {
		const V *w = a + i;
		V *q = p + 2 * i;
		const unsigned left = K - i;
		V x, y;

		FOUR(b, w);
		/* Inside the block of four digits ... */
		LO(q[1], b0, b1);
		x = q[2], y = zero;
		HI(x, b0, b1);
		LO(y, b0, b2);
		q[2] = _mm512_add_epi64(x, y);
		x = q[3], y = zero;
		HI(x, b0, b2);
		LO(y, b0, b3);
		LO(x, b1, b2);
		q[3] = _mm512_add_epi64(x, y);
		x = q[4], y = zero;
		HI(x, b0, b3);
		LO(y, b1, b3);
		HI(x, b1, b2);
		if (left == 4) {
			q[4] = _mm512_add_epi64(x, y);
			x = q[5];
			HI(x, b1, b3);
			LO(x, b2, b3);
			q[5] = x;
			HI(q[6], b2, b3);
			break;
		}
		/* ... and all digits behind it. */
		V A0 = w[4], A1 = w[5], A2 = w[6], A3 = w[7];

		LO(y, A0, b0);
		q[4] = _mm512_add_epi64(x, y);
		x = q[5], y = zero;
		HI(x, b1, b3);
		LO(y, b2, b3);
		HI(x, A0, b0);
		LO(y, A1, b0);
		LO(y, A0, b1);
		q[5] = _mm512_add_epi64(x, y);
		x = q[6], y = zero;
		HI(x, b2, b3);
		HI(x, A1, b0);
		LO(y, A2, b0);
		HI(x, A0, b1);
		LO(y, A1, b1);
		LO(y, A0, b2);
		q[6] = _mm512_add_epi64(x, y);
		x = q[7], y = zero;
		HI(x, A2, b0);
		LO(y, A3, b0);
		HI(x, A1, b1);
		LO(y, A2, b1);
		HI(x, A0, b2);
		LO(y, A1, b2);
		LO(y, A0, b3);
		q[7] = _mm512_add_epi64(x, y);
#pragma GCC unroll 4
		for (unsigned c = 8; c < left + 4; c++) {
			const bool top = c < left;
			V A4 = zero;

			x = q[c], y = zero;
			if (top)
				A4 = w[c];
			ROWS(x, y, A, top, b);
			q[c] = _mm512_add_epi64(x, y);
			SHIFT(A);
		}
	}
#pragma GCC unroll 4
	for (unsigned i = 0; i < K; i++) {
		V x = _mm512_add_epi64(p[2 * i], p[2 * i]);
		V y = _mm512_add_epi64(p[2 * i + 1], p[2 * i + 1]);

		LO(x, a[i], a[i]);
		HI(y, a[i], a[i]);
		p[2 * i] = x;
		p[2 * i + 1] = y;
	}
}

IFMA static void FN(mul_flat)(const struct ring *g, uint64_t *r,
			      const uint64_t *a, const uint64_t *b,
			      uint64_t *scratch)
{
	V *t = (V *)scratch;

	for (unsigned i = 0; i < K; i++)
		t[i] = _mm512_setzero_si512();
	FN(product)(t, (const V *)a, (const V *)b, NULL, NULL, g, NULL);
	FN(carry)((V *)r, t, K);
}

IFMA static void FN(sqr_flat)(const struct ring *g, uint64_t *r,
			      const uint64_t *a, uint64_t *scratch)
{
	V *p = (V *)scratch;

	FN(square)(p, (const V *)a);
	FN(reduction)(p, g, NULL);
	FN(carry)((V *)r, p + K, K);
}

/* What the second half starts from. */
IFMA static ALWAYS_INLINE void FN(begin)(V *s, const V *m, const struct ring *g)
{
	const V mask = _mm512_set1_epi64((1LL << 52) - 1);

	for (unsigned i = 0; i < K; i++)
		s[i] = _mm512_add_epi64(WORD(g->start[i]),
					_mm512_andnot_si512(m[i], mask));
}

IFMA static void FN(mul_pair)(const struct ring *g, uint64_t *r,
			      const uint64_t *a_, const uint64_t *c_,
			      uint64_t *scratch)
{
	const V *a = (const V *)a_, *b = a + K, *c = (const V *)c_, *d = c + K;
	V *t = (V *)scratch, *m = t + K, *s = m + K;

	for (unsigned i = 0; i < K; i++)
		t[i] = _mm512_setzero_si512();
	FN(product)(t, a, c, NULL, NULL, g, m);
	FN(begin)(s, m, g);
	FN(product)(s, a, d, b, c, g, NULL);
	FN(carry)((V *)r, t, K);
	FN(carry)((V *)r + K, s, K);
}

IFMA static void FN(mul_low_pair)(const struct ring *g, uint64_t *r,
				  const uint64_t *a_, const uint64_t *c_,
				  uint64_t *scratch)
{
	const V *a = (const V *)a_, *b = a + K, *c = (const V *)c_;
	V *t = (V *)scratch, *m = t + K, *s = m + K;

	for (unsigned i = 0; i < K; i++)
		t[i] = _mm512_setzero_si512();
	FN(product)(t, a, c, NULL, NULL, g, m);
	FN(begin)(s, m, g);
	FN(product)(s, b, c, NULL, NULL, g, NULL);
	FN(carry)((V *)r, t, K);
	FN(carry)((V *)r + K, s, K);
}

IFMA static void FN(sqr_pair)(const struct ring *g, uint64_t *r,
			      const uint64_t *a_, uint64_t *scratch)
{
	const V mask = _mm512_set1_epi64((1LL << 52) - 1);
	const V *a = (const V *)a_, *b = a + K;
	V *p = (V *)scratch, *m = p + 2 * K, *s = m + K, *twice = s + K;
	V cy = _mm512_setzero_si512();

	for (unsigned i = 0; i < K; i++) {
		V x = _mm512_or_si512(_mm512_slli_epi64(a[i], 1), cy);

		cy = _mm512_srli_epi64(a[i], 51);
		twice[i] = _mm512_and_si512(x, mask);
	}
	FN(square)(p, a);
	FN(reduction)(p, g, m);
	FN(begin)(s, m, g);
	FN(product)(s, twice, b, NULL, NULL, g, NULL);
	FN(carry)((V *)r, p + K, K);
	FN(carry)((V *)r + K, s, K);
}

/* r (2K digits) = a + b n; a + b n < R^2 as both are below R. */
IFMA static void FN(join)(const struct ring *g, uint64_t *r, const uint64_t *a_,
			  uint64_t *scratch)
{
	const V zero = _mm512_setzero_si512();
	const V *a = (const V *)a_, *b = a + K;
	const uint64_t *n = g->digits;
	V *t = (V *)scratch;

	for (unsigned i = 0; i < K; i++) {
		t[i] = a[i];
		t[K + i] = zero;
	}
	for (unsigned i = 0; i < K; i += 4) {
		V N0 = zero, N1 = zero, N2 = zero, N3 = zero;

		FOUR(b, b + i);
#pragma GCC unroll 4
		for (unsigned j = 0; j < K + 4; j++) {
			const bool top = j < K;
			V x = t[i + j], y = zero, N4 = zero;

			if (top)
				N4 = WORD(n[j]);
			ROWS(x, y, N, top, b);
			t[i + j] = _mm512_add_epi64(x, y);
			SHIFT(N);
		}
	}
	FN(carry)((V *)r, t, 2 * K);
}

static const struct kernels FN(kernels) = {
	.k = K,
	.mul_flat = FN(mul_flat),
	.sqr_flat = FN(sqr_flat),
	.mul_pair = FN(mul_pair),
	.mul_low_pair = FN(mul_low_pair),
	.sqr_pair = FN(sqr_pair),
	.join = FN(join),
};

#undef FN
#undef K
