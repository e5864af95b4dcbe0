// SPDX-License-Identifier: Apache-2.0
/* Every measure against a computation that looks at all pairs of rows. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "components/math/metrics.h"

#define ROWS 397

static struct scored rows[ROWS];

/* Scores on a grid of `levels`, so that many are tied. */
static void fill(uint32_t seed, unsigned levels)
{
	for (size_t i = 0; i < ROWS; i++) {
		unsigned level;

		seed = seed * 1664525 + 1013904223;
		level = (seed >> 8) % levels;
		seed = seed * 1664525 + 1013904223;
		rows[i].score = (double)level / levels;
		rows[i].positive = (seed >> 8) % levels < level;
	}
	metric_sort(rows, ROWS);
}

static struct confusion count(double threshold)
{
	struct confusion c = { .threshold = threshold };

	for (size_t i = 0; i < ROWS; i++) {
		bool above = rows[i].score > threshold;

		c.tp += above && rows[i].positive;
		c.fp += above && !rows[i].positive;
		c.fn += !above && rows[i].positive;
		c.tn += !above && !rows[i].positive;
	}
	return c;
}

static void same(double a, double b)
{
	assert_true(fabs(a - b) < 1e-12);
}

static const unsigned levels[] = { 2, 3, 10, 61, 100000 };

static void auc_is_the_share_of_ordered_pairs(void **state)
{
	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(levels); k++) {
		double won = 0, pairs = 0;

		fill((uint32_t)k + 1, levels[k]);
		for (size_t i = 0; i < ROWS; i++)
			for (size_t j = 0; j < ROWS; j++) {
				if (!rows[i].positive || rows[j].positive)
					continue;
				pairs++;
				won += rows[i].score > rows[j].score   ? 1
				       : rows[i].score < rows[j].score ? 0
								       : .5;
			}
		same(metric_auc(rows, ROWS), won / pairs);
	}
}

static void exact_ks_is_the_largest_gap_of_all_thresholds(void **state)
{
	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(levels); k++) {
		double best = 0;

		fill((uint32_t)k + 7, levels[k]);
		for (size_t i = 0; i <= ROWS; i++) {
			struct confusion c =
			    count(i < ROWS ? rows[i].score : -1);

			best = fmax(best,
				    (double)c.tp / (double)(c.tp + c.fn) -
					(double)c.fp / (double)(c.fp + c.tn));
		}
		same(metric_ks_exact(rows, ROWS), best);
	}
}

static void ks_looks_at_a_hundred_places_of_the_sorted_rows(void **state)
{
	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(levels); k++) {
		double best = 0;

		fill((uint32_t)k + 9, levels[k]);
		for (size_t i = 0; i < 100; i++) {
			struct confusion c =
			    count(rows[(size_t)(ROWS * (i / 100.))].score);

			best = fmax(best,
				    (double)c.tp / (double)(c.tp + c.fn) -
					(double)c.fp / (double)(c.fp + c.tn));
		}
		same(metric_ks(rows, ROWS), best);
		assert_true(metric_ks(rows, ROWS) <=
			    metric_ks_exact(rows, ROWS));
	}
}

static void one_class_has_neither_auc_nor_ks(void **state)
{
	(void)state;
	fill(3, 10);
	for (int positive = 0; positive < 2; positive++) {
		for (size_t i = 0; i < ROWS; i++)
			rows[i].positive = positive;
		assert_true(isnan(metric_auc(rows, ROWS)));
		assert_true(isnan(metric_ks(rows, ROWS)));
		assert_true(isnan(metric_ks_exact(rows, ROWS)));
	}
	assert_true(isnan(metric_auc(rows, 0)));
	assert_true(isnan(metric_ks(rows, 0)));
}

static void equal_scores_are_chance(void **state)
{
	(void)state;
	fill(3, 10);
	for (size_t i = 0; i < ROWS; i++)
		rows[i].score = .25;
	same(metric_auc(rows, ROWS), .5);
	same(metric_ks(rows, ROWS), 0);
	same(metric_ks_exact(rows, ROWS), 0);
}

static void a_score_at_the_threshold_is_not_positive(void **state)
{
	double at[METRIC_CUTS + 1];
	struct confusion c[METRIC_CUTS + 1];
	size_t n;

	(void)state;
	fill(5, 40);
	for (int which = 0; which < 4; which++) {
		n = which == 0	 ? metric_cuts(rows, ROWS, at)
		    : which == 1 ? metric_steps(rows, ROWS, at)
		    : which == 2 ? metric_fixed(at)
				 : metric_quantiles(rows, ROWS, at);
		assert_true(n > 0);
		metric_confusion(rows, ROWS, at, n, c);
		for (size_t i = 0; i < n; i++) {
			struct confusion want = count(at[i]);

			assert_int_equal(c[i].tp, want.tp);
			assert_int_equal(c[i].fp, want.fp);
			assert_int_equal(c[i].fn, want.fn);
			assert_int_equal(c[i].tn, want.tn);
		}
	}
}

static void steps_end_below_every_score(void **state)
{
	double at[METRIC_CUTS + 1];
	struct confusion c;

	(void)state;
	fill(5, 40);
	assert_int_equal(metric_steps(rows, ROWS, at), METRIC_CUTS + 1);
	c = count(at[METRIC_CUTS]);
	assert_int_equal(c.tn + c.fn, 0);
	assert_true(at[0] == rows[0].score);
}

static void the_area_under_the_roc_corners_is_the_auc(void **state)
{
	(void)state;
	for (size_t k = 0; k < 4; k++) { /* few corners: none sampled out */
		double at[METRIC_CUTS + 1], area = 0;
		struct confusion c[METRIC_CUTS + 1];
		size_t n;

		fill((uint32_t)k + 20, levels[k]);
		n = metric_roc(rows, ROWS, at);
		metric_confusion(rows, ROWS, at, n, c);
		assert_int_equal(c[0].tp + c[0].fp, 0);
		assert_int_equal(c[n - 1].tn + c[n - 1].fn, 0);
		for (size_t i = 1; i < n; i++)
			area +=
			    (confusion_fpr(&c[i]) - confusion_fpr(&c[i - 1])) *
			    (confusion_tpr(&c[i]) + confusion_tpr(&c[i - 1])) /
			    2;
		same(area, metric_auc(rows, ROWS));
	}
}

static void ratios_of_a_confusion_are_their_definitions(void **state)
{
	const struct confusion c = { .tp = 6, .fp = 2, .fn = 4, .tn = 8 };
	const struct confusion none = { .fn = 4, .tn = 8 };

	(void)state;
	same(confusion_tpr(&c), .6);
	same(confusion_fpr(&c), .2);
	same(confusion_precision(&c), .75);
	same(confusion_accuracy(&c), .7);
	same(confusion_f1(&c), 2 * .75 * .6 / (.75 + .6));
	same(confusion_share(&c, true), .4);
	same(confusion_share(&c, false), .6);
	same(confusion_lift(&c, true), .75 / .5);
	same(confusion_lift(&c, false), 8. / 12 / .5);
	same(confusion_gain(&c, false), .8);
	same(confusion_precision(&none), 1);
	same(confusion_f1(&none), 0);
}

static void regression_measures_are_their_definitions(void **state)
{
	/* scikit-learn's example values for these two vectors */
	const double y[4] = { 3, -0.5, 2, 7 }, p[4] = { 2.5, 0, 2, 8 };
	struct regression r;

	(void)state;
	metric_regression(y, p, 4, &r);
	same(r.mae, .5);
	same(r.mse, .375);
	same(r.rmse, sqrt(.375));
	same(r.median_ae, .5);
	assert_true(fabs(r.r2 - .948608137044968) < 1e-12);
	assert_true(fabs(r.explained_variance - .957173447537473) < 1e-12);
}

static void a_constant_target_has_no_r2(void **state)
{
	const double y[3] = { .1, .1, .1 }, p[3] = { .1, .2, .3 };
	struct regression r;

	(void)state;
	metric_regression(y, p, 3, &r);
	assert_true(isnan(r.r2) && isnan(r.explained_variance));
	same(r.mae, .1);
	metric_regression(y, p, 0, &r);
	assert_true(isnan(r.mae));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(auc_is_the_share_of_ordered_pairs),
		cmocka_unit_test(exact_ks_is_the_largest_gap_of_all_thresholds),
		cmocka_unit_test(
		    ks_looks_at_a_hundred_places_of_the_sorted_rows),
		cmocka_unit_test(one_class_has_neither_auc_nor_ks),
		cmocka_unit_test(equal_scores_are_chance),
		cmocka_unit_test(a_score_at_the_threshold_is_not_positive),
		cmocka_unit_test(steps_end_below_every_score),
		cmocka_unit_test(the_area_under_the_roc_corners_is_the_auc),
		cmocka_unit_test(ratios_of_a_confusion_are_their_definitions),
		cmocka_unit_test(regression_measures_are_their_definitions),
		cmocka_unit_test(a_constant_target_has_no_r2),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
