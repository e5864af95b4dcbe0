// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/local_task.h"

#define STANDARD "'method': 'standard_scale', 'mode': 'normal'"
#define MIN_MAX	 "'method': 'min_max_scale', 'mode': 'normal'"
#define CAP	 "'method': 'min_max_scale', 'mode': 'cap'"
#define CSV                                            \
	"id,x0,y,x1,x2\na,1,1,5,0.1\nb,2,0,5,\nc,3,1," \
	"5,0.3\nd,4,0,5,0.2\ne,10,1,5,-0.1\n"

static int scale(const char *table, const char *params, bool with_model)
{
	return local_run("FeatureScale", "guest", table, params, with_model);
}

static void make(const char *name)
{
	local_typed(name, CSV, "{'with_label': true}");
}

/* The values of a column of out/data in the order of the ids. */
static size_t column(const char *name, double ret[16])
{
	_cleanup_table_ struct table *t = local_out();
	ssize_t at = schema_find(table_schema(t), name);
	const struct cell *cells;
	struct table_iter *it;
	struct err e = { 0 };
	const char *key;
	size_t n = 0, len;

	assert_true(at >= 0);
	assert_int_equal(table_scan(t, NULL, 0, &it, &e), 0);
	while (n < 16 && table_next(it, &key, &len, &cells, &e) > 0) {
		assert_int_equal(cells[at].type, CELL_F64);
		ret[n++] = cells[at].f64;
	}
	table_scan_end(it);
	return n;
}

static void expect(const char *name, const double *want, size_t n)
{
	double got[16];

	assert_int_equal(column(name, got), n);
	for (size_t i = 0; i < n; i++)
		if (isnan(want[i]))
			assert_true(isnan(got[i]));
		else
			assert_true(fabs(got[i] - want[i]) < 1e-14);
}

/* numpy: (x - x.mean()) / x.std(), missing values left out */
static void standard_scale_gives_mean_0_and_deviation_1(void **state)
{
	static const double x0[] = { -0.9486832980505138, -0.6324555320336759,
				     -0.31622776601683794, 0.0,
				     1.8973665961010275 };
	static const double x1[] = { 0, 0, 0, 0, 0 };
	static const double x2[] = { -0.16903085094570347, NAN,
				     1.183215956619923, 0.5070925528371099,
				     -1.5212776585113301 };

	(void)state;
	make("t");
	assert_int_equal(scale("t", "{" STANDARD "}", false), 0);
	expect("x0", x0, 5);
	expect("x1", x1, 5);
	expect("x2", x2, 5);
	assert_non_null(strstr(local_csv(), "id,y,x0,x1,x2\na,1,"));
}

static void mean_and_deviation_can_be_left_alone(void **state)
{
	static const double centered[] = { -3, -2, -1, 0, 6 };
	double divided[] = { 1, 2, 3, 4, 10 };
	static const double same[] = { 1, 2, 3, 4, 10 };

	(void)state;
	make("t");
	assert_int_equal(scale("t", "{" STANDARD ", 'with_std': false}", false),
			 0);
	expect("x0", centered, 5);
	assert_int_equal(
	    scale("t", "{" STANDARD ", 'with_mean': false}", false), 0);
	for (size_t i = 0; i < 5; i++)
		divided[i] /= sqrt(10); /* population variance */
	expect("x0", divided, 5);
	assert_int_equal(scale("t",
			       "{" STANDARD ", 'with_mean': false, 'with_std': "
			       "false}",
			       false),
			 0);
	expect("x0", same, 5);
}

static void min_max_scale_gives_0_to_1(void **state)
{
	static const double x0[] = { 0, 1. / 9, 2. / 9, 3. / 9, 1 };
	static const double x1[] = { 0, 0, 0, 0, 0 };
	static const double x2[] = { .5, NAN, 1, .75, 0 };

	(void)state;
	make("t");
	assert_int_equal(scale("t", "{" MIN_MAX "}", false), 0);
	expect("x0", x0, 5);
	expect("x1", x1, 5);
	expect("x2", x2, 5);
}

static void values_beyond_the_bounds_are_replaced_first(void **state)
{
	static const double x0[] = { 0, 0, .5, 1, 1 };
	static const double wide[] = { .1, .2, .3, .4, 1 };
	/* numpy: standard scale of 2, 2, 3, 4, 4 */
	static const double clipped[] = { -1.118033988749895,
					  -1.118033988749895, 0.0,
					  1.118033988749895,
					  1.118033988749895 };

	(void)state;
	make("t");
	assert_int_equal(scale("t",
			       "{" MIN_MAX ", 'feat_lower': 2, 'feat_upper': "
			       "4, 'scale_names': ['x0']}",
			       false),
			 0);
	expect("x0", x0, 5);
	assert_int_equal(scale("t",
			       "{" MIN_MAX ", 'feat_lower': [0], 'scale_names':"
			       " ['x0']}",
			       false),
			 0);
	expect("x0", wide, 5);
	assert_int_equal(scale("t",
			       "{" STANDARD ", 'feat_lower': [2, 0], "
			       "'feat_upper': [4, null], 'scale_col_indexes': "
			       "[0], 'scale_names': ['x2']}",
			       false),
			 0);
	expect("x0", clipped, 5);
	assert_int_equal(
	    scale("t", "{" MIN_MAX ", 'feat_lower': [0, 1]}", false), -EINVAL);
	assert_string_equal(local_err.text, "feat_lower: 2 bounds for 3 "
					    "columns that are scaled");
	assert_int_equal(scale("t", "{" MIN_MAX ", 'feat_lower': 20}", false),
			 -EINVAL);
	assert_non_null(strstr(local_err.text, "column x0"));
}

static void cap_bounds_are_quantiles(void **state)
{
	/* ranks ceil(.3 * 5) = 2 and ceil(.8 * 5) = 4: 2 to 4 */
	static const double x0[] = { 0, 0, .5, 1, 1 };
	/* of the four values: ranks 2 and 4, 0.1 to 0.3 */
	static const double x2[] = { 0, NAN, 1, .5, 0 };
	static const double all[] = { 0, 1. / 9, 2. / 9, 3. / 9, 1 };

	(void)state;
	make("t");
	assert_int_equal(scale("t",
			       "{" CAP ", 'feat_lower': 0.3, 'feat_upper': "
			       "0.8}",
			       false),
			 0);
	expect("x0", x0, 5);
	expect("x2", x2, 5);
	assert_int_equal(scale("t", "{" CAP "}", false), 0);
	expect("x0", all, 5);
}

static void other_columns_stay(void **state)
{
	static const double x0[] = { 1, 2, 3, 4, 10 };
	static const double x2[] = { .5, NAN, 1, .75, 0 };

	(void)state;
	make("t");
	assert_int_equal(
	    scale("t", "{" MIN_MAX ", 'scale_col_indexes': [2]}", false), 0);
	expect("x0", x0, 5);
	expect("x2", x2, 5);
	assert_int_equal(
	    scale("t", "{" MIN_MAX ", 'scale_col_indexes': [3]}", false),
	    -EINVAL);
	assert_string_equal(local_err.text,
			    "scale_col_indexes: there is no feature 3");
	assert_int_equal(
	    scale("t", "{" MIN_MAX ", 'scale_names': ['y']}", false), -EINVAL);
	assert_string_equal(local_err.text,
			    "scale_names: there is no feature y");
}

static void a_model_scales_new_rows_as_the_old_ones(void **state)
{
	/* columns in another order, values beyond those of the training */
	static const double x0[] = { 1, 0, .5 };
	static const double x1[] = { 0, 0, 0 };
	json_t *m;

	(void)state;
	local_typed("old", CSV, "{'with_label': true}");
	local_typed("new", "id,x1,x2,x0\nf,7,0.1,12\ng,5,0.1,-3\nh,4,0.1,5.5\n",
		    "{}");
	local_typed("few", "id,x1,x2\nf,7,0.1\n", "{}");
	assert_int_equal(scale("old", "{" MIN_MAX "}", false), 0);
	/* method and the rest are the model's */
	assert_int_equal(scale("new", "{" STANDARD "}", true), 0);
	expect("x0", x0, 3);
	expect("x1", x1, 3);
	m = local_json("model.json");
	assert_string_equal(
	    json_str_or(json_object_get(m, "meta"), "method", ""),
	    "min_max_scale");
	assert_float_equal(
	    json_num_or(
		json_object_get(json_object_get(json_object_get(m, "param"),
						"col_scale_param"),
				"x0"),
		"column_upper", 0),
	    10, 1e-12);
	json_decref(m);
	assert_int_equal(scale("few", "{" MIN_MAX "}", true), -EINVAL);
	assert_string_equal(local_err.text, "the column x0 of the training "
					    "data is missing");
}

static void text_and_empty_columns_are_refused_by_name(void **state)
{
	(void)state;
	local_typed("t", "id,x0,x1\na,1,\nb,2,\n",
		    "{'exclusive_data_type': {'x0': 'str'}}");
	assert_int_equal(scale("t", "{" MIN_MAX "}", false), -EINVAL);
	assert_non_null(strstr(local_err.text, "column x0 holds text"));
	assert_string_equal(local_code, "bad_data");
	assert_int_equal(
	    scale("t", "{" MIN_MAX ", 'scale_names': ['x1']}", false), -EINVAL);
	assert_string_equal(local_err.text, "column x1 has no values");
}

static void note(void *arg, const char *pointer, const char *text)
{
	(void)text;
	sb_addf(arg, "%s ", pointer);
}

static void impossible_parameters_are_refused_at_submission(void **state)
{
	static const char *const cases[][2] = {
		{ "{" MIN_MAX ", \"scale_col_indexes\": -1}", "" },
		{ "{" MIN_MAX ", \"scale_col_indexes\": -2}",
		  "scale_col_indexes " },
		{ "{" MIN_MAX ", \"scale_col_indexes\": [0, -1]}",
		  "scale_col_indexes " },
		{ "{" MIN_MAX ", \"scale_names\": [\"a\", 1]}",
		  "scale_names/1 " },
		{ "{" CAP ", \"feat_lower\": 0.1, \"feat_upper\": 7}",
		  "feat_upper " },
		{ "{" CAP ", \"feat_lower\": [0.1]}", "feat_lower " },
		{ "{" MIN_MAX ", \"feat_lower\": \"0\"}", "feat_lower " },
		{ "{" MIN_MAX ", \"feat_lower\": 3, \"feat_upper\": 2}",
		  "feat_lower " },
		{ "{" MIN_MAX ", \"feat_lower\": [3, null]}", "" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(1000);
		_cleanup_free_ char *text = xstrdup(cases[i][0]);
		json_t *p;

		for (char *c = text; *c; c++)
			*c = *c == '\'' ? '"' : *c;
		p = json_parse(text, strlen(text), NULL);
		assert_non_null(p);
		component_find("FeatureScale")
		    ->check(p, NULL, "guest", note, &sb);
		assert_string_equal(sb.buf, cases[i][1]);
		json_decref(p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(standard_scale_gives_mean_0_and_deviation_1),
		cmocka_unit_test(mean_and_deviation_can_be_left_alone),
		cmocka_unit_test(min_max_scale_gives_0_to_1),
		cmocka_unit_test(values_beyond_the_bounds_are_replaced_first),
		cmocka_unit_test(cap_bounds_are_quantiles),
		cmocka_unit_test(other_columns_stay),
		cmocka_unit_test(a_model_scales_new_rows_as_the_old_ones),
		cmocka_unit_test(text_and_empty_columns_are_refused_by_name),
		cmocka_unit_test(
		    impossible_parameters_are_refused_at_submission),
	};

	return cmocka_run_group_tests(tests, local_setup, local_teardown);
}
