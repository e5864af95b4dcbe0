// SPDX-License-Identifier: Apache-2.0
/* Batches under one modulus against mpz. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "components/crypto/modexp.h"
#include "components/crypto/util.h"
#include "lib/base.h"

#define COUNT 11 /* no multiple of eight */

struct batch {
	struct modexp *x;
	mpz_t m;
	size_t k;
	mp_limb_t *a, *b, *r; /* COUNT numbers each */
};

static mp_limb_t *numbers(const struct batch *t)
{
	return xcalloc(COUNT * t->k, sizeof(mp_limb_t));
}

/* Extremes first, the rest at random. */
static void fill(const struct batch *t, mp_limb_t *to, unsigned turn)
{
	mpz_t v;

	mpz_init(v);
	for (unsigned i = 0; i < COUNT; i++) {
		unsigned kind = (i + turn) % 7;

		if (kind < 2)
			mpz_set_ui(v, kind);
		else if (kind < 4)
			mpz_sub_ui(v, t->m, kind - 1);
		else if (kind == 4)
			mpz_tdiv_q_2exp(v, t->m, 1);
		else
			crypto_random_below(v, t->m);
		for (size_t j = 0; j < t->k; j++)
			to[i * t->k + j] = mpz_getlimbn(v, (mp_size_t)j);
	}
	mpz_clear(v);
}

static void set_up(struct batch *t, unsigned bits, bool full, unsigned flags)
{
	mpz_init(t->m);
	if (full) {
		mpz_setbit(t->m, bits);
		mpz_sub_ui(t->m, t->m, 1);
	} else {
		crypto_random_bits(t->m, bits);
		mpz_setbit(t->m, bits - 1);
		mpz_setbit(t->m, 0);
	}
	assert_int_equal(modexp_new(t->m, flags, &t->x, NULL), 0);
	t->k = modexp_limbs(t->x);
	t->a = numbers(t);
	t->b = numbers(t);
	t->r = numbers(t);
}

static void tear_down(struct batch *t)
{
	modexp_free(t->x);
	free(t->a);
	free(t->b);
	free(t->r);
	mpz_clear(t->m);
}

static void same(const struct batch *t, size_t i, const mpz_t want)
{
	mpz_t v;

	mpz_roinit_n(v, t->r + i * t->k, (mp_size_t)t->k);
	assert_int_equal(mpz_cmp(v, want), 0);
}

static void operations_agree(unsigned bits, bool full, unsigned flags)
{
	struct batch t;
	mpz_t e, want, va, vb;

	mpz_inits(e, want, NULL);
	set_up(&t, bits, full, flags);
	for (unsigned turn = 0; turn < 3; turn++) {
		fill(&t, t.a, turn);
		fill(&t, t.b, turn * turn + 1);
		modexp_mul(t.x, t.r, t.a, t.b, turn > 0, COUNT);
		for (size_t i = 0; i < COUNT; i++) {
			mpz_mul(want,
				mpz_roinit_n(va, t.a + i * t.k, (mp_size_t)t.k),
				mpz_roinit_n(vb, t.b + (turn ? i * t.k : 0),
					     (mp_size_t)t.k));
			mpz_mod(want, want, t.m);
			same(&t, i, want);
		}
		modexp_sub(t.x, t.r, t.a, t.b, COUNT);
		for (size_t i = 0; i < COUNT; i++) {
			mpz_sub(
			    want,
			    mpz_roinit_n(va, t.a + i * t.k, (mp_size_t)t.k),
			    mpz_roinit_n(vb, t.b + i * t.k, (mp_size_t)t.k));
			mpz_mod(want, want, t.m);
			same(&t, i, want);
		}
		crypto_random_bits(e, turn * 65);
		modexp_pow(t.x, t.r, t.a, COUNT, e, 131);
		for (size_t i = 0; i < COUNT; i++) {
			mpz_powm(
			    want,
			    mpz_roinit_n(va, t.a + i * t.k, (mp_size_t)t.k), e,
			    t.m);
			same(&t, i, want);
		}
		memset(t.r, 0xa5, COUNT * t.k * sizeof(mp_limb_t));
		modexp_pow_public(t.x, t.r, t.a, COUNT, e);
		for (size_t i = 0; i < COUNT; i++) {
			mpz_powm(
			    want,
			    mpz_roinit_n(va, t.a + i * t.k, (mp_size_t)t.k), e,
			    t.m);
			same(&t, i, want);
		}
	}
	tear_down(&t);
	mpz_clears(e, want, NULL);
}

static const unsigned sizes[] = { 64,	127,  512,  521,  768,	1024, 1030,
				  1536, 2048, 2049, 3072, 4096, 4200 };

static void products_powers_and_differences_agree_with_mpz(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		for (unsigned v = 0; v < 4; v++)
			operations_agree(sizes[i], v & 1,
					 v & 2 ? MODEXP_PORTABLE
					       : MODEXP_SECRET);
}

static void reduction_of_short_and_long_numbers(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		for (size_t limbs = 1; limbs <= 3 * ((sizes[i] + 63) / 64);
		     limbs += limbs < 6 ? 1 : 23) {
			_cleanup_free_ mp_limb_t *wide =
			    xmalloc(COUNT * limbs * sizeof(mp_limb_t));
			struct batch t;
			mpz_t v, want;

			mpz_init(want);
			set_up(&t, sizes[i], limbs & 1, 0);
			crypto_random(wide, COUNT * limbs * sizeof(mp_limb_t));
			memset(wide, 0xff, limbs * sizeof(mp_limb_t));
			memset(wide + limbs, 0, limbs * sizeof(mp_limb_t));
			modexp_reduce(t.x, t.r, wide, limbs, COUNT);
			for (size_t j = 0; j < COUNT; j++) {
				mpz_mod(want,
					mpz_roinit_n(v, wide + j * limbs,
						     (mp_size_t)limbs),
					t.m);
				same(&t, j, want);
			}
			mpz_clear(want);
			tear_down(&t);
		}
}

static void inverses_multiply_to_one_and_zero_has_none(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct batch t;
		mpz_t v, g;

		mpz_inits(v, g, NULL);
		set_up(&t, sizes[i], i & 1, 0);
		for (size_t j = 0; j < COUNT; j++) {
			do {
				crypto_random_below(v, t.m);
				mpz_gcd(g, v, t.m);
			} while (mpz_cmp_ui(g, 1) != 0);
			for (size_t l = 0; l < t.k; l++)
				t.a[j * t.k + l] =
				    mpz_getlimbn(v, (mp_size_t)l);
		}
		assert_int_equal(modexp_invert(t.x, t.r, t.a, COUNT), 0);
		modexp_mul(t.x, t.r, t.r, t.a, 1, COUNT);
		mpz_set_ui(v, 1);
		for (size_t j = 0; j < COUNT; j++)
			same(&t, j, v);
		assert_int_equal(modexp_invert(t.x, t.r, t.a, 0), 0);
		memset(t.a + 3 * t.k, 0, t.k * sizeof(mp_limb_t));
		assert_int_equal(modexp_invert(t.x, t.r, t.a, COUNT), -EINVAL);
		tear_down(&t);
		mpz_clears(v, g, NULL);
	}
}

static void moduli_that_are_not_served_are_refused(void **state)
{
	struct modexp *x = NULL;
	struct err e = { 0 };
	mpz_t m;

	(void)state;
	mpz_init_set_ui(m, 0);
	assert_int_equal(modexp_new(m, 0, &x, &e), -EINVAL);
	mpz_setbit(m, 1024);
	assert_int_equal(modexp_new(m, 0, &x, &e), -EINVAL);
	mpz_setbit(m, 0);
	mpz_setbit(m, 9000);
	assert_int_equal(modexp_new(m, 0, &x, &e), -EINVAL);
	mpz_set_ui(m, 17);
	assert_int_equal(modexp_new(m, 0, &x, &e), -EINVAL);
	assert_non_null(strstr(e.text, "5 bits"));
	mpz_clear(m);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(
		    products_powers_and_differences_agree_with_mpz),
		cmocka_unit_test(reduction_of_short_and_long_numbers),
		cmocka_unit_test(inverses_multiply_to_one_and_zero_has_none),
		cmocka_unit_test(moduli_that_are_not_served_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
