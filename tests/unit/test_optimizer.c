// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "components/math/optimizer.h"

#define NEAR(a, b) assert_true(fabs((a) - (b)) < 1e-12)

/* The update for gradient g as the given call of a fresh optimiser. */
static double update(enum optimizer_kind kind, unsigned calls, double g)
{
	struct optimizer o = { .kind = kind, .learning_rate = .1 };
	double v = 0;

	optimizer_init(&o, 1);
	for (unsigned t = 0; t < calls; t++) {
		v = g;
		optimizer_step(&o, t, &v);
	}
	optimizer_free(&o);
	return v;
}

static void first_steps_are_fates(void **state)
{
	(void)state;
	NEAR(update(OPTIMIZER_SGD, 1, 2), .2);
	NEAR(update(OPTIMIZER_RMSPROP, 1, 2), .2 / sqrt(.04 + 1e-6));
	NEAR(update(OPTIMIZER_ADAGRAD, 1, 2), .2 / (2 + 1e-7));
	NEAR(update(OPTIMIZER_ADAM, 1, 2), .1 * 2 / (2 + 1e-8));
	/* v' = -eta g; the update is -1.9 v'. */
	NEAR(update(OPTIMIZER_NESTEROV, 1, 2), 1.9 * .2);
}

static void second_steps_are_fates(void **state)
{
	(void)state;
	NEAR(update(OPTIMIZER_RMSPROP, 2, 2),
	     .2 / sqrt(.99 * .04 + .04 + 1e-6));
	NEAR(update(OPTIMIZER_ADAGRAD, 2, 2), .2 / (sqrt(8) + 1e-7));
	/* v = -.2, v' = -.38: .9 v - 1.9 v'. */
	NEAR(update(OPTIMIZER_NESTEROV, 2, 2), -.18 + 1.9 * .38);
}

static void step_size_decays_by_epoch(void **state)
{
	struct optimizer o = { .kind = OPTIMIZER_SGD,
			       .learning_rate = 1,
			       .decay = 1,
			       .decay_sqrt = true };
	double g = 1;

	(void)state;
	optimizer_init(&o, 1);
	optimizer_step(&o, 3, &g);
	NEAR(g, .5);
	o.decay_sqrt = false;
	g = 1;
	optimizer_step(&o, 3, &g);
	NEAR(g, .25);
	optimizer_free(&o);
}

static void l1_shrinks_weights_but_not_the_intercept(void **state)
{
	double w[3] = { 1, -.01, .01 };
	double zero[3] = { 0 };

	(void)state;
	weights_update(w, zero, 2, true, PENALTY_L1, .5, .2, 4);
	NEAR(w[0], .95);
	NEAR(w[1], 0);
	NEAR(w[2], .01);
	/* Epoch 0 shrinks without limit. */
	weights_update(w, zero, 2, true, PENALTY_L1, .5, .2, 0);
	NEAR(w[0], 0);
	NEAR(w[2], .01);
}

static void l1_without_alpha_changes_nothing(void **state)
{
	double w[1] = { 1 };
	double zero[1] = { 0 };

	(void)state;
	weights_update(w, zero, 1, false, PENALTY_L1, 0, .2, 0);
	NEAR(w[0], 1);
}

static void penalties_of_weights(void **state)
{
	static const double w[] = { 3, -4 };

	(void)state;
	NEAR(weights_penalty(w, 2, PENALTY_L1, .5), 3.5);
	NEAR(weights_penalty(w, 2, PENALTY_L2, .5), 6.25);
	NEAR(weights_penalty(w, 2, PENALTY_NONE, .5), 0);
}

/* numpy.random.seed(42), then rand(4) or randn(4). */
static void seeded_start_is_numpys(void **state)
{
	static const double rand[] = { 0.3745401188473625, 0.9507143064099162,
				       0.7319939418114051, 0.5986584841970366 };
	static const double randn[] = { 0.4967141530112327,
					-0.13826430117118466,
					0.6476885381006925,
					1.5230298564080254 };
	double w[4];

	(void)state;
	weights_init(w, 4, INIT_RANDOM_UNIFORM, 0, 42);
	for (size_t i = 0; i < 4; i++)
		NEAR(w[i], rand[i]);
	weights_init(w, 4, INIT_RANDOM_NORMAL, 0, 42);
	for (size_t i = 0; i < 4; i++)
		NEAR(w[i], randn[i]);
}

static void unseeded_starts_differ(void **state)
{
	double a[2], b[2];

	(void)state;
	weights_init(a, 2, INIT_RANDOM_UNIFORM, 0, -1);
	weights_init(b, 2, INIT_RANDOM_UNIFORM, 0, -1);
	assert_true(a[0] != b[0] || a[1] != b[1]);
}

static void names_are_known_without_case(void **state)
{
	(void)state;
	assert_int_equal(optimizer_kind("Adam"), OPTIMIZER_ADAM);
	assert_int_equal(optimizer_kind("sqn"), -1);
	assert_int_equal(penalty_kind(NULL), PENALTY_NONE);
	assert_int_equal(penalty_kind("l2"), PENALTY_L2);
	assert_int_equal(init_method("zeros"), INIT_ZEROS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_steps_are_fates),
		cmocka_unit_test(second_steps_are_fates),
		cmocka_unit_test(step_size_decays_by_epoch),
		cmocka_unit_test(l1_shrinks_weights_but_not_the_intercept),
		cmocka_unit_test(l1_without_alpha_changes_nothing),
		cmocka_unit_test(penalties_of_weights),
		cmocka_unit_test(seeded_start_is_numpys),
		cmocka_unit_test(unseeded_starts_differ),
		cmocka_unit_test(names_are_known_without_case),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
