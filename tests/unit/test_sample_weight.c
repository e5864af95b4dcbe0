// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/local_task.h"

#define CSV "id,y,x0,w\na,0,1,2\nb,1,2,0\nc,0,3,1\nd,0,4,5\n"

static int weigh(const char *table, const char *params, bool with_model)
{
	return local_run("SampleWeight", "guest", table, params, with_model);
}

static void make(const char *name)
{
	local_typed(name, CSV, "{'with_label': true}");
}

static void balanced_classes_count_the_same(void **state)
{
	_cleanup_table_ struct table *t = NULL;

	(void)state;
	make("t");
	assert_int_equal(weigh("t", "{'class_weight': 'balanced'}", false), 0);
	/* 4 / (2 * 3) and 4 / (2 * 1) */
	assert_string_equal(local_csv(), "id,y,weight,x0,w\n"
					 "a,0,0.6666666666666666,1,2\n"
					 "b,1,2,2,0\n"
					 "c,0,0.6666666666666666,3,1\n"
					 "d,0,0.6666666666666666,4,5\n");
	t = local_out();
	assert_string_equal(table_schema(t)->weight, "weight");
	assert_string_equal(table_schema(t)->label, "y");
	assert_string_equal(table_schema(t)->content_type, "instances");
	assert_false(schema_is_feature(table_schema(t), 1));
	assert_string_equal(table_schema(t)->columns[2].anonymous,
			    "guest_9999_x0");
}

static void classes_may_be_named(void **state)
{
	(void)state;
	make("t");
	assert_int_equal(
	    weigh("t", "{'class_weight': {'1': 2.5, '7': 3}}", false), 0);
	assert_string_equal(local_csv(), "id,y,weight,x0,w\na,0,1,1,2\n"
					 "b,1,2.5,2,0\nc,0,1,3,1\nd,0,1,4,5\n");
	assert_non_null(strstr(local_text("events"), "no row has one of"));
}

static void a_column_of_weights_is_no_feature_any_more(void **state)
{
	(void)state;
	make("t");
	assert_int_equal(
	    weigh("t", "{'sample_weight_name': 'w', 'class_weight': null}",
		  false),
	    0);
	assert_string_equal(local_csv(), "id,y,weight,x0\na,0,2,1\nb,1,0,2\n"
					 "c,0,1,3\nd,0,5,4\n");
	assert_int_equal(weigh("t",
			       "{'sample_weight_name': 'w', 'class_weight': "
			       "null, 'normalize': true}",
			       false),
			 0);
	assert_string_equal(local_csv(), "id,y,weight,x0\na,0,1,1\nb,1,0,2\n"
					 "c,0,0.5,3\nd,0,2.5,4\n");
}

static void bad_weights_are_refused(void **state)
{
	(void)state;
	local_typed("t", "id,y,w\na,0,1\nb,1,-0.5\n", "{'with_label': true}");
	assert_int_equal(weigh("t", "{'sample_weight_name': 'w'}", false),
			 -EINVAL);
	assert_string_equal(local_err.text, "column w has a negative weight");
	assert_string_equal(local_code, "bad_data");
	local_typed("t", "id,y,w\na,0,1\nb,1,\n", "{'with_label': true}");
	assert_int_equal(weigh("t", "{'sample_weight_name': 'w'}", false),
			 -EINVAL);
	assert_non_null(strstr(local_err.text, "a row has no weight"));
	assert_int_equal(weigh("t", "{'sample_weight_name': 'v'}", false),
			 -EINVAL);
	assert_string_equal(local_err.text,
			    "sample_weight_name: there is no column v");
	local_typed("t", "id,weight\na,1\n", "{}");
	assert_int_equal(weigh("t", "{'class_weight': 'balanced'}", false),
			 -EINVAL);
	assert_non_null(strstr(local_err.text, "needs a label"));
}

static void another_column_of_that_name_is_in_the_way(void **state)
{
	(void)state;
	local_typed("t", "id,y,weight\na,0,1\nb,1,5\n", "{'with_label': true}");
	assert_int_equal(weigh("t", "{'class_weight': 'balanced'}", false),
			 -EEXIST);
	assert_int_equal(weigh("t", "{'sample_weight_name': 'weight'}", false),
			 0);
	assert_string_equal(local_csv(), "id,y,weight\na,0,1\nb,1,5\n");
}

static void a_host_hands_its_rows_on(void **state)
{
	(void)state;
	make("t");
	assert_int_equal(local_run("SampleWeight", "host", "t",
				   "{'class_weight': 'balanced'}", false),
			 0);
	assert_string_equal(local_csv(), "id,y,x0,w\na,0,1,2\nb,1,2,0\n"
					 "c,0,3,1\nd,0,4,5\n");
}

static void a_model_weighs_new_rows_as_the_old_ones(void **state)
{
	(void)state;
	make("t");
	local_typed("new", "id,x0,w,y\ne,1,3,1\nf,1,3,2\n",
		    "{'with_label': true}");
	local_typed("bare", "id,x0\ne,1\n", "{}");
	assert_int_equal(weigh("t", "{'class_weight': 'balanced'}", false), 0);
	assert_int_equal(weigh("new", "{}", true), 0);
	assert_string_equal(local_csv(), "id,y,weight,x0,w\ne,1,2,1,3\n"
					 "f,2,1,1,3\n");
	assert_int_equal(weigh("bare", "{}", true), 0);
	assert_string_equal(local_csv(), "id,x0\ne,1\n");
	assert_int_equal(
	    weigh("t", "{'sample_weight_name': 'w', 'normalize': true}", false),
	    0);
	assert_int_equal(weigh("new", "{}", true), 0);
	assert_string_equal(local_csv(), "id,y,weight,x0\ne,1,1.5,1\n"
					 "f,2,1.5,1\n");
	assert_int_equal(weigh("bare", "{}", true), 0);
	assert_string_equal(local_csv(), "id,x0\ne,1\n");
}

static void note(void *arg, const char *pointer, const char *text)
{
	(void)text;
	sb_addf(arg, "%s ", pointer);
}

static void impossible_parameters_are_refused_at_submission(void **state)
{
	static const char *const cases[][2] = {
		{ "{\"class_weight\": \"Balanced\"}", "" },
		{ "{\"class_weight\": \"even\"}", "class_weight " },
		{ "{\"class_weight\": 3}", "class_weight " },
		{ "{\"class_weight\": {\"0\": -1, \"1\": \"2\", \"2\": 0}}",
		  "class_weight/0 class_weight/1 " },
		{ "{\"class_weight\": \"balanced\", \"sample_weight_name\": "
		  "\"w\"}",
		  "class_weight " },
		{ "{\"sample_weight_name\": \"w\", \"class_weight\": null}",
		  "" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(1000);
		json_t *p = json_parse(cases[i][0], strlen(cases[i][0]), NULL);

		assert_non_null(p);
		component_find("SampleWeight")
		    ->check(p, NULL, "guest", note, &sb);
		assert_string_equal(sb.buf, cases[i][1]);
		json_decref(p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(balanced_classes_count_the_same),
		cmocka_unit_test(classes_may_be_named),
		cmocka_unit_test(a_column_of_weights_is_no_feature_any_more),
		cmocka_unit_test(bad_weights_are_refused),
		cmocka_unit_test(another_column_of_that_name_is_in_the_way),
		cmocka_unit_test(a_host_hands_its_rows_on),
		cmocka_unit_test(a_model_weighs_new_rows_as_the_old_ones),
		cmocka_unit_test(
		    impossible_parameters_are_refused_at_submission),
	};

	return cmocka_run_group_tests(tests, local_setup, local_teardown);
}
