// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/local_task.h"

#define LABEL "'with_label': true, 'label_name': 'y'"

static int transform(const char *table, const char *params)
{
	return local_run("DataTransform", "guest", table, params, false);
}

static void the_label_comes_first_and_features_become_numbers(void **state)
{
	_cleanup_table_ struct table *t = NULL;
	const struct table_schema *s;

	(void)state;
	local_upload("t", "id,x0,y,x1\nb,1.50,0,-2\na, 7e2,1,3\n");
	assert_int_equal(transform("t", "{" LABEL "}"), 0);
	assert_string_equal(local_csv(), "id,y,x0,x1\na,1,700,3\nb,0,1.5,-2\n");
	t = local_out();
	s = table_schema(t);
	assert_string_equal(s->label, "y");
	assert_string_equal(s->content_type, "instances");
	assert_int_equal(s->columns[0].type, CELL_I64);
	assert_int_equal(s->columns[1].type, CELL_F64);
	assert_string_equal(s->columns[0].anonymous, "guest_9999_y");
	assert_string_equal(s->columns[1].anonymous, "guest_9999_x0");
	assert_string_equal(s->columns[2].anonymous, "guest_9999_x1");
}

static void the_output_says_which_task_made_it_from_what(void **state)
{
	_cleanup_table_ struct table *t = NULL;
	_cleanup_free_ char *text = NULL;

	(void)state;
	local_upload("t", "id,x0\na,1\n");
	assert_int_equal(transform("t", "{}"), 0);
	t = local_out();
	text = json_text(table_schema(t)->lineage, false);
	assert_string_equal(
	    text, "{\"component\":\"it_0\",\"job\":\"1\",\"parents\":"
		  "[\"in/t\"],\"party\":\"9999\",\"role\":\"guest\"}");
}

static void label_types_decide_the_type_of_the_column(void **state)
{
	static const struct {
		const char *type;
		enum cell_type cell;
	} types[] = {
		{ "int", CELL_I64 },	 { "int64", CELL_I64 },
		{ "long", CELL_I64 },	 { "float", CELL_F64 },
		{ "float64", CELL_F64 }, { "double", CELL_F64 },
		{ "str", CELL_STRING },
	};

	(void)state;
	local_upload("t", "id,x0,y\na,1,2\n");
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		_cleanup_free_ char *params =
		    xasprintf("{" LABEL ", 'label_type': '%s'}", types[i].type);
		_cleanup_table_ struct table *t = NULL;

		assert_int_equal(transform("t", params), 0);
		t = local_out();
		assert_int_equal(table_schema(t)->columns[0].type,
				 types[i].cell);
	}
}

static void missing_cells_stay_missing_without_a_fill(void **state)
{
	(void)state;
	local_upload("t", "id,x0,x1\na,,NA\nb,null,4\nc,nan,None\n");
	assert_int_equal(transform("t", "{}"), 0);
	assert_string_equal(local_csv(), "id,x0,x1\na,,\nb,,4\nc,,\n");
}

static void missing_cells_are_filled_by_the_method(void **state)
{
	static const char *const want[][2] = {
		{ "null", "id,x0,x1\na,1,0\nb,0,4\nc,5,8\nd,3,6\n" },
		{ "'min'", "id,x0,x1\na,1,4\nb,1,4\nc,5,8\nd,3,6\n" },
		{ "'max'", "id,x0,x1\na,1,8\nb,5,4\nc,5,8\nd,3,6\n" },
		{ "'mean'", "id,x0,x1\na,1,6\nb,3,4\nc,5,8\nd,3,6\n" },
		{ "'designated', 'default_value': 9",
		  "id,x0,x1\na,1,9\nb,9,4\nc,5,8\nd,3,6\n" },
		{ "'designated', 'default_value': [7, '8.5']",
		  "id,x0,x1\na,1,8.5\nb,7,4\nc,5,8\nd,3,6\n" },
	};

	(void)state;
	local_upload("t", "id,x0,x1\na,1,\nb,NA,4\nc,5,8\nd,3,6\n");
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		_cleanup_free_ char *params =
		    xasprintf("{'missing_fill': true, "
			      "'missing_fill_method': %s}",
			      want[i][0]);

		assert_int_equal(transform("t", params), 0);
		assert_string_equal(local_csv(), want[i][1]);
	}
}

static void a_list_says_what_is_missing(void **state)
{
	(void)state;
	local_upload("t", "id,x0\na,-9\nb,?\nc,4\nd,-9.0\n");
	assert_int_equal(
	    transform("t", "{'missing_fill': true, 'missing_fill_method': "
			   "'mean', 'missing_impute': ['?', -9]}"),
	    0);
	assert_string_equal(local_csv(), "id,x0\na,4\nb,4\nc,4\nd,4\n");
	local_upload("t", "id,x0\na,\nb,1\n");
	assert_int_equal(transform("t", "{'missing_impute': ['?']}"), -EINVAL);
}

static void outliers_are_replaced_and_do_not_count(void **state)
{
	(void)state;
	local_upload("t", "id,x0\na,-9999\nb,2\nc,4\nd,\n");
	assert_int_equal(
	    transform("t", "{'outlier_replace': true, 'outlier_impute': "
			   "[-9999], 'outlier_replace_method': 'mean'}"),
	    0);
	assert_string_equal(local_csv(), "id,x0\na,3\nb,2\nc,4\nd,\n");
	assert_int_equal(
	    transform("t", "{'outlier_replace': true, 'outlier_impute': "
			   "['-9999'], 'outlier_replace_method': 'designated', "
			   "'outlier_replace_value': 1}"),
	    0);
	assert_string_equal(local_csv(), "id,x0\na,1\nb,2\nc,4\nd,\n");
}

static void bad_cells_are_told_by_column_and_count_only(void **state)
{
	(void)state;
	local_upload("t", "id,x0,x1,y\na,1,secret7,1\nb,2,inf,0\nc,?,3,yes\n");
	assert_int_equal(transform("t", "{" LABEL "}"), -EINVAL);
	assert_string_equal(local_err.text,
			    "label y: 1 rows without a value of type int64; "
			    "column x0: 1 rows without a number; column x1: 2 "
			    "rows without a number");
	assert_string_equal(local_code, "bad_data");
}

static void whole_number_columns_refuse_fractions(void **state)
{
	(void)state;
	local_upload("t", "id,x0,x1\na,1,1.5\nb,2.0,3\n");
	assert_int_equal(transform("t", "{'data_type': 'int'}"), -EINVAL);
	assert_non_null(strstr(local_err.text, "column x1: 1 rows"));
	assert_int_equal(
	    transform("t", "{'data_type': 'int', 'exclusive_data_type': "
			   "{'x1': 'float'}}"),
	    0);
	assert_int_equal(
	    transform("t", "{'exclusive_data_type': {'x7': 'float'}}"),
	    -EINVAL);
	assert_non_null(strstr(local_err.text, "no column x7"));
}

static void text_columns_stay_text(void **state)
{
	(void)state;
	local_upload("t", "id,x0,x1\na,red,1\nb,,2\n");
	assert_int_equal(
	    transform("t", "{'exclusive_data_type': {'x0': 'str'}}"), 0);
	assert_string_equal(local_csv(), "id,x0,x1\na,red,1\nb,,2\n");
}

static void a_label_that_is_not_there_is_named(void **state)
{
	(void)state;
	local_upload("t", "id,x0\na,1\n");
	assert_int_equal(transform("t", "{" LABEL "}"), -EINVAL);
	assert_string_equal(local_err.text, "there is no label column y");
}

static void an_empty_table_is_refused(void **state)
{
	(void)state;
	local_upload("t", "id,x0\n");
	assert_int_equal(transform("t", "{}"), -EINVAL);
	assert_string_equal(local_err.text, "the input table has no rows");
}

static void a_model_brings_new_rows_to_the_training_columns(void **state)
{
	(void)state;
	local_upload("t", "id,x0,y,x1\na,1,1,2\nb,3,0,\n");
	assert_int_equal(transform("t", "{" LABEL ", 'missing_fill': true, "
					"'missing_fill_method': 'max'}"),
			 0);
	local_upload("new", "id,x9,x1,x0\nc,5,,7\n");
	assert_int_equal(local_run("DataTransform", "guest", "new", "{}", true),
			 0);
	assert_string_equal(local_csv(), "id,x0,x1\nc,7,2\n");
	local_upload("new", "id,x9,y,x0\nc,5,1,7\n");
	assert_int_equal(local_run("DataTransform", "guest", "new", "{}", true),
			 -EINVAL);
	assert_string_equal(local_err.text,
			    "the column x1 of the training data is missing");
}

static void the_model_keeps_fills_and_rates(void **state)
{
	_cleanup_free_ char *text = NULL;
	json_t *o;

	(void)state;
	local_upload("t", "id,x0,x1\na,,2\nb,3,4\n");
	assert_int_equal(transform("t", "{'missing_fill': true, "
					"'missing_fill_method': 'mean'}"),
			 0);
	o = local_json("model.json");
	text = json_text(json_object_get(o, "header"), false);
	assert_string_equal(
	    text, "[{\"anonymous\":\"guest_9999_x0\",\"missing_rate\":0.5,"
		  "\"missing_value\":3.0,\"name\":\"x0\",\"outlier_rate\":0.0,"
		  "\"type\":\"float64\"},{\"anonymous\":\"guest_9999_x1\","
		  "\"missing_rate\":0.0,\"missing_value\":3.0,\"name\":\"x1\","
		  "\"outlier_rate\":0.0,\"type\":\"float64\"}]");
	json_decref(o);
}

static void its_own_output_can_be_transformed_again(void **state)
{
	_cleanup_table_ struct table *t = NULL;
	struct err e = { 0 };

	(void)state;
	local_upload("t", "id,x0,y\na,1.5,1\nb,,0\n");
	assert_int_equal(transform("t", "{" LABEL "}"), 0);
	t = local_out();
	assert_int_equal(table_link(t, "in", "again", &e), 0);
	assert_int_equal(transform("again", "{" LABEL "}"), 0);
	assert_string_equal(local_csv(), "id,y,x0\na,1,1.5\nb,0,\n");
}

static void note(void *arg, const char *pointer, const char *text)
{
	struct strbuf *sb = arg;

	(void)text;
	sb_addf(sb, "%s ", pointer);
}

static void what_is_not_offered_is_refused_at_submission(void **state)
{
	static const char *const bad[][2] = {
		{ "{\"input_format\": \"tag\"}", "input_format " },
		{ "{\"input_format\": \"svmlight\"}", "input_format " },
		{ "{\"output_format\": \"sparse\"}", "output_format " },
		{ "{\"with_match_id\": true}", "with_match_id " },
		{ "{\"missing_impute\": \"NA\"}", "missing_impute " },
		{ "{\"default_value\": {}}", "default_value " },
		{ "{\"exclusive_data_type\": {\"x\": \"y\"}}",
		  "exclusive_data_type/x " },
		{ "{\"missing_impute\": [\"NA\", 3], \"default_value\": 2}",
		  "" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(1000);
		json_t *p = json_parse(bad[i][0], strlen(bad[i][0]), NULL);

		component_find("DataIO")->check(p, NULL, "guest", note, &sb);
		assert_string_equal(sb.buf, bad[i][1]);
		json_decref(p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
		    the_label_comes_first_and_features_become_numbers),
		cmocka_unit_test(the_output_says_which_task_made_it_from_what),
		cmocka_unit_test(label_types_decide_the_type_of_the_column),
		cmocka_unit_test(missing_cells_stay_missing_without_a_fill),
		cmocka_unit_test(missing_cells_are_filled_by_the_method),
		cmocka_unit_test(a_list_says_what_is_missing),
		cmocka_unit_test(outliers_are_replaced_and_do_not_count),
		cmocka_unit_test(bad_cells_are_told_by_column_and_count_only),
		cmocka_unit_test(whole_number_columns_refuse_fractions),
		cmocka_unit_test(text_columns_stay_text),
		cmocka_unit_test(a_label_that_is_not_there_is_named),
		cmocka_unit_test(an_empty_table_is_refused),
		cmocka_unit_test(
		    a_model_brings_new_rows_to_the_training_columns),
		cmocka_unit_test(the_model_keeps_fills_and_rates),
		cmocka_unit_test(its_own_output_can_be_transformed_again),
		cmocka_unit_test(what_is_not_offered_is_refused_at_submission),
	};

	return cmocka_run_group_tests(tests, local_setup, local_teardown);
}
