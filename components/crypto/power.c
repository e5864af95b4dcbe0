// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "components/crypto/power.h"
#include "components/crypto/util.h"

#define WINDOW	  4
#define TABLE_MAX (8u << 20) /* bytes of a fixed base's table */
#define FB_WINDOW 6
#define FB_BLOCK  8 /* groups that go through a window together */

/* Addresses of the records (or integers of `size` words) i .. i + lanes - 1
 * of n; the last one again for lanes beyond. */
static void from_at(const struct ring *g, const uint64_t **at,
		    const uint64_t *v, size_t size, size_t i, size_t n)
{
	for (size_t l = 0; l < g->lanes; l++)
		at[l] = v + MIN(i + l, n - 1) * size;
}

/* The same to write to; lanes beyond write into `spare`. */
static void to_at(const struct ring *g, uint64_t **at, uint64_t *v, size_t size,
		  size_t i, size_t n, uint64_t *spare)
{
	for (size_t l = 0; l < g->lanes; l++)
		at[l] = i + l < n ? v + (i + l) * size : spare;
}

static void load(const struct ring *g, uint64_t *r, const uint64_t *rec,
		 size_t i, size_t n)
{
	const uint64_t *at[RING_LANES];

	from_at(g, at, rec, g->k, i, n);
	g->op.load(g, r, at);
}

static void store(const struct ring *g, uint64_t *rec, const uint64_t *a,
		  size_t i, size_t n, uint64_t *spare)
{
	uint64_t *at[RING_LANES];

	to_at(g, at, rec, g->k, i, n, spare);
	g->op.store(g, at, a);
}

void ring_enter(const struct ring *g, uint64_t *r, const mp_limb_t *v,
		size_t limbs, size_t n)
{
	const size_t group = ring_group(g), all = group + g->k + g->scratch;
	uint64_t *x = ring_alloc(all), *s = x + group, *spare = s + g->scratch;
	const uint64_t *at[RING_LANES];

	for (size_t i = 0; i < n; i += g->lanes) {
		from_at(g, at, v, limbs, i, n);
		g->op.enter(g, x, at, limbs, s);
		store(g, r, x, i, n, spare);
	}
	ring_wipe(x, all);
}

void ring_leave(const struct ring *g, mp_limb_t *v, const uint64_t *r, size_t n)
{
	const size_t group = ring_group(g), limbs = (size_t)g->limbs;
	const size_t all = group + limbs + g->scratch;
	uint64_t *x = ring_alloc(all), *s = x + group, *spare = s + g->scratch;
	uint64_t *at[RING_LANES];

	for (size_t i = 0; i < n; i += g->lanes) {
		load(g, x, r, i, n);
		to_at(g, at, v, limbs, i, n, spare);
		g->op.leave(g, at, x, s);
	}
	ring_wipe(x, all);
}

void ring_mul(const struct ring *g, uint64_t *r, const uint64_t *a,
	      const uint64_t *b, size_t b_step, size_t n)
{
	const size_t group = ring_group(g);
	const size_t all = 2 * group + g->k + g->scratch;
	uint64_t *x = ring_alloc(all), *y = x + group, *spare = y + group;
	uint64_t *s = ring_alloc(g->scratch);

	for (size_t i = 0; i < n; i += g->lanes) {
		load(g, x, a, i, n);
		if (b_step || i == 0)
			load(g, y, b, b_step ? i : 0, b_step ? n : 1);
		g->op.mul(g, x, x, y, s);
		store(g, r, x, i, n, spare);
	}
	ring_wipe(s, g->scratch);
	ring_wipe(x, all);
}

void ring_add_plain(const struct ring *g, uint64_t *r, const mp_limb_t *x,
		    size_t n)
{
	const size_t group = ring_group(g), sum = (size_t)(g->h + 1) * g->lanes;
	const size_t xl = mpz_size(g->n), all = group + sum + g->k;
	uint64_t *y = ring_alloc(all), *t = y + group, *spare = t + sum;
	uint64_t *s = ring_alloc(g->scratch);

	for (size_t i = 0; i < n; i += g->lanes) {
		const uint64_t *at[RING_LANES];

		load(g, y, r, i, n);
		g->op.mul(g, y, y, g->rr, s);
		memset(t, 0, sum * sizeof(*t));
		from_at(g, at, x, xl, i, n);
		g->op.raw(g, t, at, xl);
		g->op.sum_end(g, y, t, s);
		store(g, r, y, i, n, spare);
	}
	ring_wipe(s, g->scratch);
	ring_wipe(y, all);
}

/* The groups a^0 .. a^(2^w - 1). */
static void powers(const struct ring *g, uint64_t *t, const uint64_t *a,
		   unsigned w, uint64_t *scratch)
{
	const size_t group = ring_group(g);

	memcpy(t, g->one, group * sizeof(*t));
	memcpy(t + group, a, group * sizeof(*t));
	for (size_t d = 2; d < (size_t)1 << w; d++)
		if (d % 2)
			g->op.mul(g, t + d * group, t + (d - 1) * group, a,
				  scratch);
		else
			g->op.sqr(g, t + d * group, t + d / 2 * group, scratch);
}

/* Bits at .. at + w - 1 of a number of `limbs`; what is above is zero. */
static uint32_t digit_of(const mp_limb_t *e, size_t limbs, size_t at,
			 unsigned w)
{
	size_t i = at / 64, s = at % 64;
	uint64_t x = i < limbs ? e[i] >> s : 0;

	if (s > 0 && s + w > 64 && i + 1 < limbs)
		x |= e[i + 1] << (64 - s);
	return (uint32_t)(x & ((UINT64_C(1) << w) - 1));
}

/* Exponents of `limbs` limbs, `step` (0 or 1) exponents apart. */
static void pow_windows(const struct ring *g, uint64_t *r, const uint64_t *a,
			size_t n, const mp_limb_t *e, size_t limbs, size_t step,
			unsigned bits, unsigned w)
{
	const size_t group = ring_group(g);
	const size_t all = (((size_t)1 << w) + 2) * group + g->k;
	uint64_t *t = ring_alloc(all), *x = t + (group << w), *y = x + group;
	uint64_t *spare = y + group, *s = ring_alloc(g->scratch);

	for (size_t i = 0; i < n; i += g->lanes) {
		uint32_t digit[RING_LANES];

		load(g, x, a, i, n);
		powers(g, t, x, w, s);
		memcpy(x, g->one, group * sizeof(*x));
		for (unsigned at = (bits + w - 1) / w; at-- > 0;) {
			for (size_t l = 0; l < g->lanes; l++)
				digit[l] = digit_of(e + MIN(i + l, n - 1) *
							    step * limbs,
						    limbs, (size_t)at * w, w);
			for (unsigned b = 0;
			     b < w && at + 1 < (bits + w - 1) / w; b++)
				g->op.sqr(g, x, x, s);
			g->op.pick(g, y, t, w, digit);
			g->op.mul(g, x, x, y, s);
		}
		store(g, r, x, i, n, spare);
	}
	ring_wipe(s, g->scratch);
	ring_wipe(t, all);
}

void ring_pow(const struct ring *g, uint64_t *r, const uint64_t *a, size_t n,
	      const mp_limb_t *e, unsigned bits)
{
	pow_windows(g, r, a, n, e, (bits + 63) / 64, 0, bits, WINDOW);
}

void ring_pow_each(const struct ring *g, uint64_t *r, const uint64_t *a,
		   const mp_limb_t *e, size_t limbs, size_t n, unsigned bits)
{
	pow_windows(g, r, a, n, e, limbs, 1, bits, WINDOW);
}

/* Odd windows that begin at a set bit (Knuth, vol. 2, 4.6.3). */
static void pow_sliding(const struct ring *g, uint64_t *x, uint64_t *t,
			const mpz_t e, unsigned w, uint64_t *s)
{
	const size_t group = ring_group(g);
	bool first = true;

	/* t: a, a^3, a^5 ..; a^2 for now behind them. */
	memcpy(t, x, group * sizeof(*t));
	g->op.sqr(g, x, x, s);
	for (size_t d = 1; d < (size_t)1 << (w - 1); d++)
		g->op.mul(g, t + d * group, t + (d - 1) * group, x, s);
	for (long i = (long)mpz_sizeinbase(e, 2) - 1; i >= 0;) {
		size_t d = 0;
		long j = MAX(i - (long)w + 1, 0L);

		if (!mpz_tstbit(e, (mp_bitcnt_t)i)) {
			g->op.sqr(g, x, x, s);
			i--;
			continue;
		}
		while (!mpz_tstbit(e, (mp_bitcnt_t)j))
			j++;
		for (; i >= j; i--) {
			d = 2 * d + (size_t)mpz_tstbit(e, (mp_bitcnt_t)i);
			if (!first)
				g->op.sqr(g, x, x, s);
		}
		if (first)
			memcpy(x, t + d / 2 * group, group * sizeof(*x));
		else
			g->op.mul(g, x, x, t + d / 2 * group, s);
		first = false;
	}
}

void ring_pow_public(const struct ring *g, uint64_t *r, const uint64_t *a,
		     size_t n, const mpz_t e)
{
	const size_t bits = mpz_sgn(e) ? mpz_sizeinbase(e, 2) : 0;
	const unsigned w = bits < 24 ? 1 : bits < 96 ? 3 : bits < 512 ? 5 : 6;
	const size_t group = ring_group(g);
	const size_t all = ((size_t)1 << (w - 1)) * group + group + g->k;
	uint64_t *t = ring_alloc(all), *x = t + (group << (w - 1));
	uint64_t *spare = x + group, *s = ring_alloc(g->scratch);

	for (size_t i = 0; i < n; i += g->lanes) {
		load(g, x, a, i, n);
		if (bits == 0)
			memcpy(x, g->one, group * sizeof(*x));
		else
			pow_sliding(g, x, t, e, w, s);
		store(g, r, x, i, n, spare);
	}
	ring_wipe(s, g->scratch);
	ring_wipe(t, all);
}

/* r = 1 / a for one record; false: there is none. */
static bool invert_one(const struct ring *g, uint64_t *r, const uint64_t *a)
{
	const size_t limbs = (size_t)g->limbs;
	_cleanup_free_ mp_limb_t *v = xcalloc(limbs, sizeof(*v));
	mpz_t t, in;
	bool ok;

	mpz_init(t);
	ring_leave(g, v, a, 1);
	ok = mpz_invert(t, mpz_roinit_n(in, v, g->limbs), g->m);
	if (ok) {
		for (size_t i = 0; i < limbs; i++)
			v[i] = mpz_getlimbn(t, (mp_size_t)i);
		ring_enter(g, r, v, limbs, 1);
	}
	explicit_bzero(v, limbs * sizeof(*v));
	crypto_wipe(t);
	return ok;
}

/*
 * Lanes go through the numbers side by side: lane l has a_i for i = l modulo
 * `lanes`. Running products up; the inverse of the last ones down again.
 */
int ring_invert(const struct ring *g, uint64_t *r, const uint64_t *a, size_t n)
{
	const size_t group = ring_group(g), k = g->k;
	const size_t rounds = (n + g->lanes - 1) / g->lanes;
	const size_t all = (rounds + 3) * group + (g->lanes + 2) * k;
	uint64_t *up = ring_alloc(all), *x = up + rounds * group;
	uint64_t *y = x + group, *run = y + group, *rec = run + group;
	uint64_t *spare = rec + g->lanes * k, *last = spare + k;
	uint64_t *s = ring_alloc(g->scratch);
	int rc = 0;

	for (size_t i = 0; i < rounds; i++) {
		load(g, x, a, i * g->lanes, n);
		if (i == 0)
			memcpy(up, x, group * sizeof(*x));
		else
			g->op.mul(g, up + i * group, up + (i - 1) * group, x,
				  s);
	}
	if (rounds) {
		/* The lanes' products, one after the other. */
		store(g, rec, up + (rounds - 1) * group, 0, g->lanes, spare);
		for (size_t l = 1; l < g->lanes; l++)
			ring_mul(g, rec + l * k, rec + l * k, rec + (l - 1) * k,
				 1, 1);
		if (!invert_one(g, last, rec + (g->lanes - 1) * k))
			rc = -EINVAL;
	}
	if (rounds && rc == 0) {
		/* rec_l = 1 / lane l's product = last * rec_(l-1). */
		uint64_t *own = ring_alloc(g->lanes * k);

		store(g, own, up + (rounds - 1) * group, 0, g->lanes, spare);
		for (size_t l = g->lanes - 1; l > 0; l--) {
			ring_mul(g, rec + l * k, rec + (l - 1) * k, last, 1, 1);
			ring_mul(g, last, last, own + l * k, 1, 1);
		}
		memcpy(rec, last, k * sizeof(*rec));
		ring_wipe(own, g->lanes * k);
		load(g, run, rec, 0, g->lanes);
		for (size_t i = rounds; i-- > 0;) {
			load(g, x, a, i * g->lanes, n);
			if (i > 0)
				g->op.mul(g, y, up + (i - 1) * group, run, s);
			else
				memcpy(y, run, group * sizeof(*y));
			g->op.mul(g, run, run, x, s);
			store(g, r, y, i * g->lanes, n, spare);
		}
	}
	ring_wipe(s, g->scratch);
	ring_wipe(up, all);
	return rc;
}

static uint64_t *window_at(const struct fixed_base *f, const struct ring *g,
			   size_t i)
{
	return f->t + (i << f->w) * g->k;
}

struct table_job {
	const struct fixed_base *f;
	const struct ring *g, *flat;
	const uint64_t *base; /* of each window, records */
	const uint64_t *inv;  /* their inverses mod n, records of flat */
};

/* Windows lo .. hi - 1 (in groups of lanes). */
static void fill_windows(void *arg, size_t lo, size_t hi)
{
	struct table_job *j = arg;
	const struct ring *g = j->g, *flat = j->flat;
	const size_t group = ring_group(g), half = ring_group(flat);
	const size_t windows = j->f->windows;
	const size_t all = (RING_FILL + 2) * group + 2 * half;
	uint64_t *eight = ring_alloc(all), *base = eight + RING_FILL * group;
	uint64_t *x = base + group, *inv = x + group, *y = inv + half;
	uint64_t *s = ring_alloc(g->scratch);
	size_t size = (size_t)g->k << j->f->w;
	uint64_t *spare = ring_alloc(size);

	for (size_t i = lo * g->lanes; i < hi * g->lanes; i += g->lanes) {
		uint64_t *table[RING_LANES];

		to_at(g, table, j->f->t, size, i, windows, spare);
		load(g, base, j->base, i, windows);
		load(flat, inv, j->inv, i, windows);
		memcpy(x, g->one, group * sizeof(*x));
		/* y = x^-1 without a factor R */
		memset(y, 0, half * sizeof(*y));
		for (size_t l = 0; l < g->lanes; l++)
			y[l] = 1;
		for (unsigned d = 0; d < 1u << j->f->w; d++) {
			uint64_t *to = eight + d % RING_FILL * group;

			memcpy(to, x, half * sizeof(*to));
			/* x R = c + b n = c (1 + b / (x R) n) */
			if (g->square)
				flat->op.mul(flat, to + half, x + half, y, s);
			if (d % RING_FILL == RING_FILL - 1)
				g->op.fill(g, table, j->f->w,
					   d - (RING_FILL - 1), eight);
			g->op.mul(g, x, x, base, s);
			if (g->square)
				flat->op.mul(flat, y, y, inv, s);
		}
	}
	ring_wipe(spare, size);
	ring_wipe(s, g->scratch);
	ring_wipe(eight, all);
}

/* Records of b, b^(2^w), b^(2^(2w)) .. */
static uint64_t *window_bases(const struct ring *g, const mpz_t b, unsigned w,
			      unsigned windows)
{
	uint64_t *r = ring_alloc((size_t)windows * g->k);
	uint64_t *x = ring_alloc(ring_group(g) + g->k);
	uint64_t *spare = x + ring_group(g), *s = ring_alloc(g->scratch);
	mpz_t t;
	_cleanup_free_ mp_limb_t *v =
	    xcalloc((size_t)g->limbs, sizeof(mp_limb_t));

	mpz_init(t);
	mpz_mod(t, b, g->m);
	for (size_t i = 0; i < mpz_size(t); i++)
		v[i] = mpz_getlimbn(t, (mp_size_t)i);
	mpz_clear(t);
	ring_enter(g, r, v, (size_t)g->limbs, 1);
	load(g, x, r, 0, 1);
	for (unsigned i = 1; i < windows; i++) {
		for (unsigned k = 0; k < w; k++)
			g->op.sqr(g, x, x, s);
		store(g, r + (size_t)i * g->k, x, 0, 1, spare);
	}
	ring_wipe(s, g->scratch);
	ring_wipe(x, ring_group(g) + g->k);
	return r;
}

void fixed_base_make(struct fixed_base *f, const struct ring *g,
		     const mpz_t base, unsigned bits, unsigned threads)
{
	struct ring *flat =
	    ring_new(g->n, (g->secret ? RING_SECRET : 0) |
			       (g->lanes == 1 ? RING_PORTABLE : 0));
	struct table_job j = { .f = f, .g = g, .flat = flat };
	uint64_t *b, *inv;
	mpz_t t;

	f->w = FB_WINDOW;
	while (f->w > 3 &&
	       (((size_t)(bits / f->w + 1) * g->k * 8) << f->w) > TABLE_MAX)
		f->w--;
	f->windows = (bits + f->w - 1) / f->w;
	mpz_init(t);
	if (!mpz_invert(t, base, g->n))
		abort(); /* keys are checked before */
	j.base = b = window_bases(g, base, f->w, f->windows);
	j.inv = inv = window_bases(flat, t, f->w, f->windows);
	f->t = ring_alloc(((size_t)f->windows << f->w) * g->k);
	crypto_split(threads, (f->windows + g->lanes - 1) / g->lanes,
		     fill_windows, &j);
	crypto_wipe(t);
	ring_wipe(b, (size_t)f->windows * g->k);
	ring_wipe(inv, (size_t)f->windows * flat->k);
	ring_free(flat);
}

void fixed_base_pow(const struct fixed_base *f, const struct ring *g,
		    uint64_t *r, const uint64_t *start, const mp_limb_t *e,
		    size_t limbs, const mp_limb_t *x, size_t n)
{
	const size_t group = ring_group(g), half = (size_t)g->h * g->lanes;
	const size_t sum = half + g->lanes, xl = mpz_size(g->n);
	const size_t each = group + sum, all = FB_BLOCK * each + group + g->k;
	uint64_t *acc = ring_alloc(all), *t = acc + FB_BLOCK * each;
	uint64_t *spare = t + group, *s = ring_alloc(g->scratch);
	const size_t step = (size_t)FB_BLOCK * g->lanes;
	const size_t windows =
	    MIN((size_t)f->windows, (limbs * 64 + f->w - 1) / f->w);

	for (size_t i = 0; i < n; i += step) {
		const size_t end = MIN(n, i + step);

		memset(acc, 0, FB_BLOCK * each * sizeof(*acc));
		for (size_t k = i, b = 0; k < end; k += g->lanes, b++) {
			const uint64_t *at[RING_LANES];

			memcpy(acc + b * each, start, group * sizeof(*acc));
			if (!x)
				continue;
			from_at(g, at, x, xl, k, n);
			g->op.raw(g, acc + b * each + group, at, xl);
		}
		for (size_t w = 0; w < windows; w++)
			for (size_t k = i, b = 0; k < end; k += g->lanes, b++) {
				const uint64_t *table[RING_LANES];
				uint64_t *to = acc + b * each;
				uint32_t digit[RING_LANES];

				for (size_t l = 0; l < g->lanes; l++) {
					table[l] = window_at(f, g, w);
					digit[l] = digit_of(
					    e + MIN(k + l, n - 1) * limbs,
					    limbs, w * f->w, f->w);
				}
				g->op.select(g, t, table, f->w, digit);
				if (!g->square) {
					g->op.mul(g, to, to, t, s);
					continue;
				}
				g->op.mul_low(g, to, to, t, s);
				g->op.sum_add(g, to + group, t + half);
			}
		for (size_t k = i, b = 0; k < end; k += g->lanes, b++) {
			uint64_t *to = acc + b * each;

			if (g->square)
				g->op.sum_end(g, to, to + group, s);
			store(g, r, to, k, n, spare);
		}
	}
	ring_wipe(s, g->scratch);
	ring_wipe(acc, all);
}

void fixed_base_free(struct fixed_base *f, const struct ring *g)
{
	if (f->t)
		ring_wipe(f->t, ((size_t)f->windows << f->w) * g->k);
	f->t = NULL;
}
