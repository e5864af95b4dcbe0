// SPDX-License-Identifier: Apache-2.0
#include <math.h>

#include "tests/unit/common_rows.h"

extern const struct component component_hetero_data_split;

#define ROWS 20

static const double labels[ROWS] = { 0, 1, 1, 2, 2, 1, 1, 0, 1, 1,
				     2, 2, 1, 1, 0, 1, 1, 2, 2, 1 };

static const struct common data = { .rows = ROWS, .label = labels };

static void split(struct ctx ctx[2], const struct common *d, const char *params)
{
	common_run(ctx, &component_hetero_data_split, d, params);
}

static void expect(size_t output, const double *want, size_t n)
{
	struct common_row got[ROWS];

	assert_int_equal(common_both(output, got, ROWS), n);
	for (size_t i = 0; i < n; i++)
		assert_true(got[i].number == want[i]);
}

/* numpy: p = RandomState(42).permutation(20); the test rows are p[:6], of
 * those again the first half by RandomState(42).permutation(6). */
static void a_seed_gives_the_rows_of_train_test_split(void **state)
{
	static const double train[14] = { 2,  3,  4,  6,  7,  9,  10,
					  11, 12, 13, 14, 16, 18, 19 };
	static const double validate[3] = { 1, 8, 15 };
	static const double test[3] = { 0, 5, 17 };
	struct ctx ctx[2];

	(void)state;
	split(ctx, &data,
	      "{'random_state': 42, 'train_size': 0.7, 'validate_size': 0.15, "
	      "'test_size': 0.15, 'shuffle': true}");
	assert_int_equal(ctx[0].status, 0);
	assert_int_equal(ctx[1].status, 0);
	expect(0, train, 14);
	expect(1, validate, 3);
	expect(2, test, 3);
	parties_end(ctx, 2);
}

static void without_shuffle_the_ids_decide(void **state)
{
	static const double all[5] = { 0, 1, 2, 3, 4 };
	const struct common d = { .rows = 5 };
	struct ctx ctx[2];

	(void)state;
	split(ctx, &d,
	      "{'train_size': 2, 'validate_size': 1, 'shuffle': false}");
	assert_int_equal(ctx[0].status, 0);
	expect(0, all, 2);
	expect(1, all + 2, 1);
	expect(2, all + 3, 2);
	parties_end(ctx, 2);
}

static void the_usual_sizes_leave_test_empty(void **state)
{
	struct ctx ctx[2];
	struct common_row got[ROWS];

	(void)state;
	split(ctx, &data, "{}");
	assert_int_equal(ctx[0].status, 0);
	assert_int_equal(common_both(0, got, ROWS), 16);
	assert_int_equal(common_both(1, got, ROWS), 4);
	assert_int_equal(common_both(2, got, ROWS), 0);
	parties_end(ctx, 2);
}

static int64_t count_of(const json_t *summary, const char *part,
			const char *label)
{
	return json_int_or(
	    json_object_get(
		json_object_get(json_object_get(summary, "labels"), part),
		label),
	    "count", -1);
}

static void strata_keep_their_shares_in_every_part(void **state)
{
	struct common_row a[ROWS], b[ROWS];
	struct ctx ctx[2];

	(void)state;
	/* 3, 11 and 6 rows */
	for (size_t i = 0; i < 2; i++) {
		split(ctx, &data,
		      "{'random_state': 5, 'train_size': 10, 'validate_size': "
		      "5, 'test_size': 5, 'stratified': true}");
		assert_int_equal(ctx[0].status, 0);
		assert_int_equal(common_both(0, i ? b : a, ROWS), 10);
		assert_int_equal(count_of(ctx[0].summary, "original", "1"), 11);
		assert_in_range(count_of(ctx[0].summary, "train", "0"), 1, 2);
		assert_in_range(count_of(ctx[0].summary, "train", "1"), 5, 6);
		assert_int_equal(count_of(ctx[0].summary, "train", "2"), 3);
		assert_null(json_object_get(ctx[1].summary, "labels"));
		parties_end(ctx, 2);
	}
	for (size_t i = 0; i < 10; i++)
		assert_string_equal(a[i].key, b[i].key);
}

/* Who knows the seed must not be able to compute labels from the rows. */
static void strata_do_not_come_from_the_seed_alone(void **state)
{
	static const char params[] =
	    "{'random_state': 5, 'train_size': 0.5, 'stratified': true}";
	double weight[ROWS] = { 0 };
	struct common other = data;
	struct common_row a[ROWS], b[ROWS];
	struct ctx ctx[2];
	size_t same = 0;

	(void)state;
	split(ctx, &data, params);
	assert_int_equal(common_both(0, a, ROWS), 10);
	parties_end(ctx, 2);
	other.weight = weight; /* the same ids and labels */
	split(ctx, &other, params);
	assert_int_equal(common_both(0, b, ROWS), 10);
	for (size_t i = 0; i < 10; i++)
		same += !strcmp(a[i].key, b[i].key);
	assert_true(same < 10);
	parties_end(ctx, 2);
}

static void split_points_make_strata_of_a_continuous_label(void **state)
{
	double y[ROWS];
	struct common d = { .rows = ROWS, .label = y, .real = true };
	struct ctx ctx[2];

	(void)state;
	for (size_t i = 0; i < ROWS; i++)
		y[i] = (double)i / 2;
	split(ctx, &d,
	      "{'train_size': 0.5, 'test_size': 0.5, 'stratified': true, "
	      "'split_points': [8, 2.0]}");
	assert_int_equal(ctx[0].status, 0);
	assert_int_equal(count_of(ctx[0].summary, "train", "below 2"), 2);
	assert_int_equal(count_of(ctx[0].summary, "train", "from 2 below 8"),
			 6);
	assert_int_equal(count_of(ctx[0].summary, "test", "from 8"), 2);
	parties_end(ctx, 2);
}

static void every_host_follows(void **state)
{
	struct common_row first[ROWS], second[ROWS];
	struct ctx ctx[3] = { 0 };
	size_t n;

	(void)state;
	bus.hosts = 2;
	for (size_t i = 0; i < 3; i++) {
		ctx[i].role = i ? "host" : "guest";
		ctx[i].index = i == 2;
		ctx[i].params = json_object();
		ctx[i].table = common_table(i ? "host" : "guest", &data, !i);
	}
	parties_run(ctx, 3, &component_hetero_data_split);
	assert_int_equal(ctx[0].status, 0);
	n = common_both(0, first, ROWS);
	assert_int_equal(common_output("host1", second, ROWS), n);
	for (size_t i = 0; i < n; i++)
		assert_string_equal(first[i].key, second[i].key);
	parties_end(ctx, 3);
}

static void other_rows_at_the_host_end_the_task(void **state)
{
	struct common d = data;
	struct ctx ctx[2];

	(void)state;
	d.host_skips = 1;
	split(ctx, &d, "{}");
	assert_int_equal(ctx[0].status, -EINVAL);
	assert_non_null(strstr(ctx[0].err.text, "output of one Intersection"));
	parties_end(ctx, 2);
}

static void a_guest_that_names_rows_twice_is_found(void **state)
{
	struct common d = data;
	struct ctx ctx[2];

	(void)state;
	d.flip = "id_validate";
	split(ctx, &d, "{}");
	assert_int_equal(ctx[1].status, -EPROTO);
	parties_end(ctx, 2);
}

static void sizes_that_do_not_fit_the_table_are_refused(void **state)
{
	struct ctx ctx[2];

	(void)state;
	split(ctx, &data,
	      "{'train_size': 15, 'validate_size': 3, 'test_size': 3}");
	assert_int_equal(ctx[0].status, -EINVAL);
	assert_non_null(strstr(ctx[0].err.text, "add up to the rows"));
	parties_end(ctx, 2);
	split(ctx, &data, "{'train_size': 21}");
	assert_int_equal(ctx[0].status, -EINVAL);
	parties_end(ctx, 2);
}

static void stratified_needs_a_label(void **state)
{
	const struct common d = { .rows = ROWS };
	struct ctx ctx[2];

	(void)state;
	split(ctx, &d, "{'stratified': true}");
	assert_int_equal(ctx[0].status, -EINVAL);
	assert_non_null(strstr(ctx[0].err.text, "needs a label"));
	parties_end(ctx, 2);
}

static void impossible_parameters_are_refused_at_submission(void **state)
{
	static const char *const cases[][2] = {
		{ "{}", "" },
		{ "{'train_size': 0.8, 'test_size': 0}", "" },
		{ "{'train_size': 80, 'test_size': 20}", "" },
		{ "{'train_size': 1.5}", "train_size train_size " },
		{ "{'test_size': -1}", "test_size " },
		{ "{'test_size': 'half'}", "test_size " },
		{ "{'train_size': 0.8, 'test_size': 100}", "train_size " },
		{ "{'train_size': 0.8, 'test_size': 0.3}", "train_size " },
		{ "{'train_size': 0.8, 'test_size': 0.1, 'validate_size': "
		  "0.05}",
		  "train_size " },
		{ "{'stratified': true, 'shuffle': false}", "shuffle " },
		{ "{'split_points': [1, 'x']}", "split_points/1 " },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *got = common_check(
		    &component_hetero_data_split, "guest", cases[i][0]);

		assert_string_equal(got, cases[i][1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_seed_gives_the_rows_of_train_test_split),
		cmocka_unit_test(without_shuffle_the_ids_decide),
		cmocka_unit_test(the_usual_sizes_leave_test_empty),
		cmocka_unit_test(strata_keep_their_shares_in_every_part),
		cmocka_unit_test(strata_do_not_come_from_the_seed_alone),
		cmocka_unit_test(
		    split_points_make_strata_of_a_continuous_label),
		cmocka_unit_test(every_host_follows),
		cmocka_unit_test(other_rows_at_the_host_end_the_task),
		cmocka_unit_test(a_guest_that_names_rows_twice_is_found),
		cmocka_unit_test(sizes_that_do_not_fit_the_table_are_refused),
		cmocka_unit_test(stratified_needs_a_label),
		cmocka_unit_test(
		    impossible_parameters_are_refused_at_submission),
	};

	return cmocka_run_group_tests(tests, harness_setup, harness_teardown);
}
