// SPDX-License-Identifier: Apache-2.0
#include <math.h>

#include "tests/unit/common_rows.h"

extern const struct component component_federated_sample;

#define ROWS 12

static const double labels[ROWS] = { 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 2 };
static const struct common data = { .rows = ROWS, .label = labels };

#define COMMON "'task_type': 'hetero', 'random_state': 3, "

static void sample(struct ctx ctx[2], const struct common *d,
		   const char *params)
{
	common_run(ctx, &component_federated_sample, d, params);
}

static void downsample_keeps_rows_of_resample_with_their_ids(void **state)
{
	/* numpy: v = arange(12); RandomState(3).shuffle(v); v[:5] */
	static const double want[5] = { 1, 2, 4, 5, 11 };
	struct common_row got[ROWS];
	struct ctx ctx[2];

	(void)state;
	sample(ctx, &data,
	       "{" COMMON "'mode': 'random', 'method': 'downsample', "
	       "'fractions': 0.45}");
	assert_int_equal(ctx[0].status, 0);
	assert_int_equal(common_both(0, got, ROWS), 5);
	for (size_t i = 0; i < 5; i++) {
		char key[12];

		(void)snprintf(key, sizeof(key), "r%02d", (int)want[i]);
		assert_string_equal(got[i].key, key);
		assert_true(got[i].number == want[i]);
	}
	parties_end(ctx, 2);
}

static void upsample_numbers_what_randint_draws(void **state)
{
	/* numpy: RandomState(3).randint(0, 12, size=18) */
	static const double want[18] = { 10, 8,	 9, 3, 8,  8, 0, 5, 3,
					 10, 11, 9, 9, 10, 5, 7, 6, 0 };
	struct common_row got[18];
	struct ctx ctx[2];

	(void)state;
	sample(ctx, &data,
	       "{" COMMON "'mode': 'random', 'method': 'upsample', "
	       "'fractions': 1.5}");
	assert_int_equal(ctx[0].status, 0);
	assert_int_equal(common_both(0, got, 18), 18);
	for (size_t i = 0; i < 18; i++)
		assert_true(got[i].number == want[atoi(got[i].key)]);
	parties_end(ctx, 2);
}

static void at_least_one_row_stays(void **state)
{
	struct common_row got[ROWS];
	struct ctx ctx[2];

	(void)state;
	sample(ctx, &data,
	       "{" COMMON "'mode': 'random', 'method': 'downsample', "
	       "'fractions': 0}");
	assert_int_equal(ctx[0].status, 0);
	assert_int_equal(common_both(0, got, ROWS), 1);
	parties_end(ctx, 2);
}

static void strata_have_shares_of_their_own(void **state)
{
	size_t count[3] = { 0 };
	struct common_row got[ROWS], again[ROWS];
	struct ctx ctx[2];

	(void)state;
	for (size_t k = 0; k < 2; k++) {
		sample(ctx, &data,
		       "{" COMMON "'mode': 'stratified', 'method': "
		       "'downsample', 'fractions': [[1, 0.7], ['0', 0.5], [2, "
		       "0], [7, 1]]}");
		assert_int_equal(ctx[0].status, 0);
		assert_int_equal(common_both(0, k ? again : got, ROWS), 7);
		assert_int_equal(
		    json_int_or(
			json_object_get(
			    json_object_get(ctx[0].summary, "labels"), "1"),
			"count", -1),
		    3);
		assert_null(json_object_get(ctx[1].summary, "labels"));
		parties_end(ctx, 2);
	}
	for (size_t i = 0; i < 7; i++) {
		count[(size_t)labels[(size_t)got[i].number]]++;
		assert_string_equal(got[i].key, again[i].key);
	}
	/* 0.5 of 6, 0.7 of 5, and one of 1 */
	assert_int_equal(count[0], 3);
	assert_int_equal(count[1], 3);
	assert_int_equal(count[2], 1);
}

static void upsampled_strata_are_mixed(void **state)
{
	size_t count[3] = { 0 }, in_order = 0;
	struct common_row got[30];
	struct ctx ctx[2];

	(void)state;
	sample(ctx, &data,
	       "{" COMMON "'mode': 'stratified', 'method': 'upsample', "
	       "'fractions': [[2, 8], [0, 1], [1, 2]]}");
	assert_int_equal(ctx[0].status, 0);
	assert_int_equal(common_both(0, got, 30), 24);
	for (size_t i = 0; i < 24; i++) {
		int at = atoi(got[i].key);
		size_t label = (size_t)labels[(size_t)got[i].number];

		count[label]++;
		/* a host must not read the label from the number */
		in_order += label == (at < 8 ? 2u : at < 14 ? 0u : 1u);
	}
	assert_int_equal(count[0], 6);
	assert_int_equal(count[1], 10);
	assert_int_equal(count[2], 8);
	assert_in_range(in_order, 0, 20);
	parties_end(ctx, 2);
}

static void a_label_without_a_share_is_named(void **state)
{
	struct ctx ctx[2];

	(void)state;
	sample(ctx, &data,
	       "{" COMMON "'mode': 'stratified', 'method': 'downsample', "
	       "'fractions': [[0, 0.5], [1, 0.5]]}");
	assert_int_equal(ctx[0].status, -EINVAL);
	assert_string_equal(ctx[0].err.text,
			    "fractions: the label 2 needs a share, too");
	parties_end(ctx, 2);
}

static void weights_become_copies(void **state)
{
	static const double weight[4] = { 0, 1, 2.5, 0.1 };
	const struct common d = { .rows = 4, .weight = weight };
	_cleanup_table_ struct table *t = NULL;
	size_t count[4] = { 0 };
	struct common_row got[ROWS];
	struct err e = { 0 };
	struct ctx ctx[2];

	(void)state;
	sample(ctx, &d, "{" COMMON "'mode': 'exact_by_weight'}");
	assert_int_equal(ctx[0].status, 0);
	assert_int_equal(common_both(0, got, ROWS), 5);
	for (size_t i = 0; i < 5; i++) {
		count[(size_t)got[i].number]++;
		assert_int_equal(strlen(got[i].key), 36);
		assert_true(got[i].key[14] == '8' && got[i].key[8] == '-');
	}
	assert_int_equal(count[0], 0);
	assert_int_equal(count[1], 1);
	assert_int_equal(count[2], 3);
	assert_int_equal(count[3], 1);
	assert_int_equal(table_open(store, "out", "guest0", &t, &e), 0);
	assert_null(table_schema(t)->weight);
	assert_int_equal(table_schema(t)->n_columns, 1);
	parties_end(ctx, 2);
}

static void a_negative_weight_is_refused(void **state)
{
	static const double weight[2] = { 1, -1 };
	const struct common d = { .rows = 2, .weight = weight };
	struct ctx ctx[2];

	(void)state;
	sample(ctx, &d, "{" COMMON "'mode': 'exact_by_weight'}");
	assert_int_equal(ctx[0].status, -EINVAL);
	parties_end(ctx, 2);
	sample(ctx, &data, "{" COMMON "'mode': 'exact_by_weight'}");
	assert_int_equal(ctx[0].status, -EINVAL);
	assert_non_null(strstr(ctx[0].err.text, "needs weights"));
	parties_end(ctx, 2);
}

static void homo_parties_draw_for_themselves(void **state)
{
	struct common d = data;
	struct common_row got[ROWS];
	struct ctx ctx[2];

	(void)state;
	d.host_skips = 6;
	sample(ctx, &d,
	       "{'task_type': 'homo', 'random_state': 3, 'mode': 'random', "
	       "'method': 'downsample', 'fractions': 0.5}");
	assert_int_equal(ctx[0].status, 0);
	assert_int_equal(ctx[1].status, 0);
	assert_int_equal(common_output("guest0", got, ROWS), 6);
	assert_int_equal(common_output("host0", got, ROWS), 3);
	parties_end(ctx, 2);
}

static void a_guest_that_repeats_rows_is_found(void **state)
{
	struct common d = data;
	struct ctx ctx[2];

	(void)state;
	d.flip = "sample_ids";
	sample(ctx, &d,
	       "{" COMMON "'mode': 'random', 'method': 'downsample', "
	       "'fractions': 0.5}");
	assert_int_equal(ctx[1].status, -EPROTO);
	parties_end(ctx, 2);
}

static void other_rows_at_the_host_end_the_task(void **state)
{
	struct common d = data;
	struct ctx ctx[2];

	(void)state;
	d.host_skips = 1;
	sample(ctx, &d,
	       "{" COMMON "'mode': 'random', 'method': 'downsample', "
	       "'fractions': 0.5}");
	assert_int_equal(ctx[1].status, -EINVAL);
	parties_end(ctx, 2);
}

static void impossible_parameters_are_refused_at_submission(void **state)
{
	static const struct {
		const char *role, *params, *want;
	} cases[] = {
		{ "guest", "{'mode': 'random', 'task_type': 'hetero'}",
		  "fractions " },
		{ "host", "{'mode': 'random', 'task_type': 'hetero'}", "" },
		{ "host", "{'mode': 'random', 'task_type': 'homo'}",
		  "fractions " },
		{ "guest", "{'mode': 'random', 'fractions': 1.5}",
		  "fractions " },
		{ "guest",
		  "{'mode': 'random', 'fractions': 1.5, 'method': 'upsample'}",
		  "" },
		{ "guest", "{'mode': 'stratified', 'fractions': 0.5}",
		  "fractions " },
		{ "guest",
		  "{'mode': 'stratified', 'fractions': [[0, 0.5], [1], [2, 3], "
		  "[[], 1]]}",
		  "fractions/1 fractions/2 fractions/3 " },
		{ "guest", "{'mode': 'exact_by_weight'}", "" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *got =
		    common_check(&component_federated_sample, cases[i].role,
				 cases[i].params);

		assert_string_equal(got, cases[i].want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
		    downsample_keeps_rows_of_resample_with_their_ids),
		cmocka_unit_test(upsample_numbers_what_randint_draws),
		cmocka_unit_test(at_least_one_row_stays),
		cmocka_unit_test(strata_have_shares_of_their_own),
		cmocka_unit_test(upsampled_strata_are_mixed),
		cmocka_unit_test(a_label_without_a_share_is_named),
		cmocka_unit_test(weights_become_copies),
		cmocka_unit_test(a_negative_weight_is_refused),
		cmocka_unit_test(homo_parties_draw_for_themselves),
		cmocka_unit_test(a_guest_that_repeats_rows_is_found),
		cmocka_unit_test(other_rows_at_the_host_end_the_task),
		cmocka_unit_test(
		    impossible_parameters_are_refused_at_submission),
	};

	return cmocka_run_group_tests(tests, harness_setup, harness_teardown);
}
