// SPDX-License-Identifier: Apache-2.0
/*
 * Every kernel of both paths of ring.h against mpz, with extreme numbers and
 * moduli. SOAK=1: a thousand times as many.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "components/crypto/ring.h"
#include "components/crypto/util.h"
#include "lib/base.h"

static gmp_randstate_t rnd;
static size_t checked, wrong;

/* One modulus and what the checks need of it. */
struct bed {
	struct ring *g;
	mpz_t radix; /* R mod m */
	mpz_t inv;   /* 1 / R mod m */
	mpz_t bound, got, want, t;
	uint64_t *a, *b, *r, *s; /* groups, scratch */
};

/* Half a record of vectors may be up to `limit`; a portable one is below n. */
static void pick(mpz_t x, const struct ring *g, unsigned limit)
{
	mpz_t top;

	mpz_init(top);
	mpz_mul_ui(top, g->n, g->lanes > 1 ? limit : 1);
	switch (gmp_urandomb_ui(rnd, 4)) {
	case 0:
	case 1:
		mpz_set_ui(x, gmp_urandomb_ui(rnd, 1));
		break;
	case 2:
		mpz_sub_ui(x, g->n, 1);
		break;
	case 3:
		mpz_set(x, g->n);
		break;
	case 4:
		mpz_add_ui(x, g->n, 1);
		break;
	case 5:
	case 6:
		mpz_sub_ui(x, top, 1 + gmp_urandomb_ui(rnd, 1));
		break;
	case 7: /* all ones */
		mpz_set_ui(x, 0);
		mpz_setbit(x, mpz_sizeinbase(g->n, 2) - 1);
		mpz_sub_ui(x, x, 1);
		break;
	case 8:
	case 9: /* sparse */
		mpz_rrandomb(x, rnd, mpz_sizeinbase(g->n, 2));
		break;
	default:
		mpz_urandomm(x, rnd, top);
	}
	mpz_mod(x, x, top);
	mpz_clear(top);
}

static unsigned base_bits(const struct ring *g)
{
	return g->lanes > 1 ? 52 : 64;
}

static void put_half(const struct ring *g, uint64_t *group, unsigned half,
		     unsigned lane, const mpz_t v)
{
	mpz_t t, d;

	mpz_init_set(t, v);
	mpz_init(d);
	for (size_t i = (size_t)half * g->h; i < (size_t)(half + 1) * g->h;
	     i++) {
		mpz_fdiv_r_2exp(d, t, base_bits(g));
		mpz_fdiv_q_2exp(t, t, base_bits(g));
		group[i * g->lanes + lane] = mpz_get_ui(d);
	}
	assert_int_equal(mpz_sgn(t), 0);
	mpz_clears(t, d, NULL);
}

/* r = a + b n of a lane; counts it wrong when a half is not below `bound`. */
static void value(struct bed *e, mpz_t r, const uint64_t *group, unsigned lane)
{
	const struct ring *g = e->g;

	mpz_set_ui(r, 0);
	for (unsigned half = g->k / g->h; half-- > 0;) {
		mpz_set_ui(e->t, 0);
		for (size_t i = (size_t)(half + 1) * g->h;
		     i-- > (size_t)half * g->h;) {
			mpz_mul_2exp(e->t, e->t, base_bits(g));
			mpz_add_ui(e->t, e->t, group[i * g->lanes + lane]);
		}
		wrong += mpz_cmp(e->t, e->bound) >= 0;
		mpz_mul(r, r, g->n);
		mpz_add(r, r, e->t);
	}
}

static void same(struct bed *e)
{
	mpz_mod(e->want, e->want, e->g->m);
	mpz_mod(e->got, e->got, e->g->m);
	checked++;
	wrong += mpz_cmp(e->want, e->got) != 0;
}

static void fill(struct bed *e, uint64_t *group, mpz_t v[], bool low)
{
	const struct ring *g = e->g;
	mpz_t x;

	mpz_init(x);
	for (unsigned l = 0; l < g->lanes; l++) {
		mpz_set_ui(v[l], 0);
		for (unsigned half = g->k / g->h; half-- > 0;) {
			/* What mul_low does not read must not matter. */
			pick(x, g, 32);
			put_half(g, group, half, l, x);
			if (low && half)
				continue;
			mpz_mul(v[l], v[l], g->n);
			mpz_add(v[l], v[l], x);
		}
	}
	mpz_clear(x);
}

static void products(struct bed *e, mpz_t a[], mpz_t b[])
{
	const struct ring *g = e->g;

	for (unsigned kind = 0; kind < 3; kind++) {
		fill(e, e->a, a, false);
		fill(e, e->b, b, kind == 1);
		if (kind == 0)
			g->op.mul(g, e->r, e->a, e->b, e->s);
		else if (kind == 1)
			g->op.mul_low(g, e->r, e->a, e->b, e->s);
		else
			g->op.sqr(g, e->r, e->a, e->s);
		for (unsigned l = 0; l < g->lanes; l++) {
			mpz_mul(e->want, a[l], kind == 2 ? a[l] : b[l]);
			mpz_mul(e->want, e->want, e->inv);
			value(e, e->got, e->r, l);
			same(e);
		}
	}
}

static void conversions(struct bed *e, mpz_t a[])
{
	const struct ring *g = e->g;
	mp_limb_t v[RING_LANES][160], *to[RING_LANES];
	const mp_limb_t *from[RING_LANES];
	size_t limbs = 1 + gmp_urandomm_ui(rnd, (unsigned long)g->limbs);

	fill(e, e->a, a, false);
	for (unsigned l = 0; l < g->lanes; l++)
		from[l] = to[l] = v[l];
	g->op.leave(g, to, e->a, e->s);
	for (unsigned l = 0; l < g->lanes; l++) {
		mpz_mul(e->want, a[l], e->inv);
		mpz_mod(e->want, e->want, g->m);
		mpz_import(e->got, (size_t)g->limbs, -1, 8, 0, 0, v[l]);
		checked++;
		wrong += mpz_cmp(e->want, e->got) != 0;
		mpz_rrandomb(e->t, rnd, limbs * 64 - gmp_urandomb_ui(rnd, 5));
		for (size_t i = 0; i < limbs; i++)
			v[l][i] = mpz_getlimbn(e->t, (mp_size_t)i);
		mpz_set(a[l], e->t);
	}
	g->op.enter(g, e->r, from, limbs, e->s);
	mpz_mul_ui(e->bound, g->n, 9); /* sums of four */
	for (unsigned l = 0; l < g->lanes; l++) {
		mpz_mul(e->want, a[l], e->radix);
		value(e, e->got, e->r, l);
		same(e);
	}
	mpz_mul_ui(e->bound, g->n, g->lanes > 1 ? 2 : 1);
}

static void tables(struct bed *e)
{
	const struct ring *g = e->g;
	const unsigned w = 3 + (unsigned)gmp_urandomb_ui(rnd, 2);
	const size_t group = ring_group(g), n = (size_t)1 << w;
	uint64_t *groups = ring_alloc(n * group), *table[RING_LANES];
	const uint64_t *from[RING_LANES];
	uint32_t digit[RING_LANES];

	crypto_random(groups, n * group * sizeof(*groups));
	for (unsigned l = 0; l < g->lanes; l++) {
		table[l] = ring_alloc(n * g->k);
		digit[l] = (uint32_t)gmp_urandomb_ui(rnd, w);
	}
	for (unsigned at = 0; at < n; at += RING_FILL)
		g->op.fill(g, table, w, at, groups + at * group);
	/* Some lanes take from another's table. */
	for (unsigned l = 0; l < g->lanes; l++)
		from[l] = table[gmp_urandomm_ui(rnd, l + 1)];
	g->op.select(g, e->r, from, w, digit);
	g->op.pick(g, e->b, groups, w, digit);
	for (unsigned l = 0; l < g->lanes; l++) {
		unsigned of = 0;

		while (table[of] != from[l])
			of++;
		for (size_t i = 0; i < g->k; i++) {
			const uint64_t *row =
			    groups + digit[l] * group + i * g->lanes;

			wrong += e->r[i * g->lanes + l] != row[of];
			wrong += e->b[i * g->lanes + l] != row[l];
		}
		checked += 2;
	}
	for (unsigned l = 0; l < g->lanes; l++)
		free(table[l]);
	free(groups);
}

/* r (1 + (sum of x) n) / R for many extreme x. */
static void sums(struct bed *e, mpz_t a[])
{
	const struct ring *g = e->g;
	const size_t words = (size_t)(g->h + 1) * g->lanes;
	uint64_t *sum = ring_alloc(words);
	mpz_t x, all[RING_LANES];

	mpz_init(x);
	for (unsigned l = 0; l < g->lanes; l++)
		mpz_init(all[l]);
	for (unsigned i = 0; i < 9; i++) {
		for (unsigned l = 0; l < g->lanes; l++) {
			pick(x, g, 2);
			put_half(g, e->b, 0, l, x);
			mpz_addmul_ui(all[l], x, i == 8 ? 992 : 1);
		}
		for (unsigned k = 0; k < (i == 8 ? 992 : 1); k++)
			g->op.sum_add(g, sum, e->b);
	}
	fill(e, e->a, a, false);
	/* The factor is a product's result: below 2 n. */
	g->op.mul(g, e->r, e->a, e->a, e->s);
	g->op.sum_end(g, e->r, sum, e->s);
	mpz_mul_ui(e->bound, g->n, 4);
	for (unsigned l = 0; l < g->lanes; l++) {
		mpz_mul(e->want, a[l], a[l]);
		mpz_mul(e->want, e->want, e->inv);
		mpz_mod(e->want, e->want, g->m);
		mpz_mul(e->want, e->want, e->inv);
		mpz_mul(all[l], all[l], g->n);
		mpz_add_ui(all[l], all[l], 1);
		mpz_mul(e->want, e->want, all[l]);
		value(e, e->got, e->r, l);
		same(e);
	}
	mpz_mul_ui(e->bound, g->n, g->lanes > 1 ? 2 : 1);
	mpz_clear(x);
	for (unsigned l = 0; l < g->lanes; l++)
		mpz_clear(all[l]);
	free(sum);
}

static void kernels_agree(const mpz_t n, unsigned flags, unsigned rounds)
{
	struct bed e = { .g = ring_new(n, flags) };
	const struct ring *g = e.g;
	mpz_t a[RING_LANES], b[RING_LANES];

	mpz_inits(e.radix, e.inv, e.bound, e.got, e.want, e.t, NULL);
	for (unsigned l = 0; l < g->lanes; l++)
		mpz_inits(a[l], b[l], NULL);
	mpz_setbit(e.radix, (mp_bitcnt_t)g->h * base_bits(g));
	mpz_invert(e.inv, e.radix, g->m);
	mpz_mul_ui(e.bound, g->n, g->lanes > 1 ? 2 : 1);
	e.a = ring_alloc(ring_group(g));
	e.b = ring_alloc(ring_group(g));
	e.r = ring_alloc(ring_group(g));
	e.s = ring_alloc(g->scratch);
	while (rounds-- > 0)
		products(&e, a, b);
	conversions(&e, a);
	tables(&e);
	if (g->square)
		sums(&e, a);
	free(e.a);
	free(e.b);
	free(e.r);
	free(e.s);
	for (unsigned l = 0; l < g->lanes; l++)
		mpz_clears(a[l], b[l], NULL);
	mpz_clears(e.radix, e.inv, e.bound, e.got, e.want, e.t, NULL);
	ring_free(e.g);
}

/* Of `bits` bits: full, sparse, with long runs, at random. */
static void modulus(mpz_t n, unsigned bits, unsigned kind)
{
	mpz_set_ui(n, 0);
	if (kind == 0) {
		mpz_setbit(n, bits);
		mpz_sub_ui(n, n, 1);
	} else if (kind == 2) {
		mpz_rrandomb(n, rnd, bits);
	} else if (kind > 2) {
		mpz_urandomb(n, rnd, bits);
	}
	mpz_setbit(n, bits - 1);
	mpz_setbit(n, 0);
}

static void sizes_agree(unsigned path, unsigned rounds)
{
	static const unsigned bits[] = { 64,   65,   256,  500,	 512,  513,
					 612,  768,  820,  1024, 1028, 1536,
					 1652, 2048, 2068, 3072, 3108, 4096,
					 4148, 4149, 5000 };
	size_t times = getenv("SOAK") ? 1000 : 1;
	mpz_t n;

	mpz_init(n);
	checked = wrong = 0;
	while (times-- > 0)
		for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
			for (unsigned kind = 0; kind < 4; kind++)
				for (unsigned f = 0; f < 4; f++) {
					modulus(n, bits[i], kind);
					kernels_agree(
					    n,
					    path | (f & 1 ? RING_SQUARE : 0) |
						(f & 2 ? RING_SECRET : 0),
					    rounds);
				}
	mpz_clear(n);
	print_message("%zu numbers checked\n", checked);
	assert_int_equal(wrong, 0);
}

static void kernels_agree_with_mpz_on_extreme_numbers(void **state)
{
	(void)state;
	sizes_agree(0, 14);
}

static void portable_kernels_agree_with_mpz_on_extreme_numbers(void **state)
{
	(void)state;
	sizes_agree(RING_PORTABLE, 30);
}

static int seed(void **state)
{
	unsigned long s;

	(void)state;
	crypto_random(&s, sizeof(s));
	gmp_randinit_default(rnd);
	gmp_randseed_ui(rnd, s);
	print_message("seed %lu\n", s);
	return 0;
}

static int forget(void **state)
{
	(void)state;
	gmp_randclear(rnd);
	return 0;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(kernels_agree_with_mpz_on_extreme_numbers),
		cmocka_unit_test(
		    portable_kernels_agree_with_mpz_on_extreme_numbers),
	};

	return cmocka_run_group_tests(tests, seed, forget);
}
