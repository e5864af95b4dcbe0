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

/* Uploads in/<name> with an upload.json (JSON with ' for "). */
static void upload(const char *name, const char *options, const char *text)
{
	_cleanup_free_ char *json = xstrdup(options);
	struct table_upload *u;
	struct err e = { 0 };
	json_t *o;

	for (char *p = json; *p; p++)
		*p = *p == '\'' ? '"' : *p;
	o = json_parse(json, strlen(json), &e);
	assert_non_null(o);
	assert_int_equal(table_upload_begin(local_store, o, &u, &e), 0);
	json_decref(o);
	assert_int_equal(table_upload_write(u, text, strlen(text), &e), 0);
	assert_int_equal(table_upload_publish(u, "in", name, &e), 0);
}

/* The same with the model of the task before. */
static int again(const char *table)
{
	return local_run("DataTransform", "guest", table, "{}", true);
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
			    "label y: 1 rows without a whole number (others: "
			    "label_type float); column x0: 1 rows without a "
			    "number; column x1: 2 rows without a number");
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

static void text_columns_are_filled_by_a_designated_text(void **state)
{
	(void)state;
	local_upload("t", "id,x0,x1\na,red,1\nb,,2\nc,old,NA\n");
	assert_int_equal(
	    transform("t", "{'exclusive_data_type': {'x0': 'str'}, "
			   "'missing_fill': true, 'missing_fill_method': "
			   "'designated', 'default_value': ['none', 7], "
			   "'outlier_replace': true, 'outlier_impute': ['old'],"
			   "'outlier_replace_method': 'designated', "
			   "'outlier_replace_value': 3}"),
	    0);
	assert_string_equal(local_csv(),
			    "id,x0,x1\na,red,1\nb,none,2\nc,3,7\n");
	local_upload("new", "id,x1,x0\na,,NULL\nb,4,old\n");
	assert_int_equal(again("new"), 0);
	assert_string_equal(local_csv(), "id,x0,x1\na,none,7\nb,3,4\n");
	assert_int_equal(
	    transform("t", "{'exclusive_data_type': {'x0': 'str'}, "
			   "'missing_fill': true, 'missing_fill_method': "
			   "'designated', 'default_value': 'none'}"),
	    -EINVAL);
	assert_string_equal(local_err.text,
			    "default_value: column x1 needs a number");
	/* There is no mean of texts. */
	assert_int_equal(transform("t", "{'data_type': 'str', 'missing_fill': "
					"true, 'missing_fill_method': 'mean'}"),
			 0);
	assert_string_equal(local_csv(), "id,x0,x1\na,red,1\nb,,2\nc,old,NA\n");
}

static void a_list_of_fills_has_one_for_each_column(void **state)
{
	(void)state;
	local_upload("t", "id,x0,x1\na,,1\n");
	assert_int_equal(transform("t", "{'missing_fill': true, "
					"'missing_fill_method': 'designated', "
					"'default_value': [1]}"),
			 -EINVAL);
	assert_string_equal(local_err.text,
			    "default_value: 1 values for 2 columns");
}

static void a_column_without_values_has_no_mean(void **state)
{
	(void)state;
	local_upload("t", "id,x0,x1\na,,1\n");
	assert_int_equal(transform("t", "{'missing_fill': true, "
					"'missing_fill_method': 'mean'}"),
			 -EINVAL);
	assert_string_equal(local_err.text,
			    "column x0 has no value to fill others with");
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
	text = json_text(json_object_get(json_object_get(o, "param"), "header"),
			 false);
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

/* ---- svmlight ---------------------------------------------------------- */

#define SVM                                                          \
	"{'head': 0, 'id_delimiter': ' ', 'meta': {'input_format': " \
	"'svmlight', 'delimiter': ' ', 'with_label': true}}"

static void svmlight_has_a_column_for_each_number(void **state)
{
	_cleanup_table_ struct table *t = NULL;

	(void)state;
	upload("t", SVM, "a 1 0:0.5 3:-2\nb  0  1:7\nc 1\n");
	assert_int_equal(transform("t", "{}"), 0);
	assert_string_equal(local_csv(), "id,label,x0,x1,x2,x3\n"
					 "a,1,0.5,0,0,-2\n"
					 "b,0,0,7,0,0\n"
					 "c,1,0,0,0,0\n");
	t = local_out();
	assert_string_equal(table_schema(t)->label, "label");
	assert_string_equal(table_schema(t)->columns[1].anonymous,
			    "guest_9999_x0");
	assert_null(table_schema(t)->extra);
}

static void svmlight_by_parameters_needs_no_meta(void **state)
{
	(void)state;
	/* The upload has cut these rows: they are joined again. */
	upload("t", "{'head': 0}", "a,1,0:2,1:3\nb,0,2:4,\n");
	assert_int_equal(transform("t", "{'input_format': 'sparse', "
					"'with_label': true}"),
			 0);
	assert_string_equal(local_csv(),
			    "id,label,x0,x1,x2\na,1,2,3,0\nb,0,0,0,4\n");
}

static void malformed_svmlight_rows_are_counted(void **state)
{
	(void)state;
	upload("t", SVM,
	       "a 1 0:0.5 secret\nb 1 0:1 0:2\nc 1 x:1\nd 1 0:zz\n"
	       "e maybe 0:1\n");
	assert_int_equal(transform("t", "{}"), -EINVAL);
	assert_string_equal(
	    local_err.text,
	    "column value: 3 rows with fields that are not number:value, or "
	    "with a number twice; label label: 1 rows without a whole number "
	    "(others: label_type float); column x0: 1 rows without a number");
	assert_string_equal(local_code, "bad_data");
}

static void too_many_svmlight_columns_are_refused(void **state)
{
	(void)state;
	upload("t", SVM, "a 1 0:0.5 10000:1\n");
	assert_int_equal(transform("t", "{}"), -EINVAL);
	assert_string_equal(local_err.text, "the rows have more features than "
					    "a table has columns (10000)");
	upload("t", SVM, "a 1 0:0.5 9999:1\n"); /* and the label */
	assert_int_equal(transform("t", "{}"), -EINVAL);
	upload("t", SVM, "a 1 0:0.5 9998:1\n");
	assert_int_equal(transform("t", "{}"), 0);
}

static void new_svmlight_rows_take_the_training_columns(void **state)
{
	(void)state;
	upload("t", SVM, "a 1 0:0.5 2:-2\nb 0 1:7\n");
	assert_int_equal(transform("t", "{}"), 0);
	upload("new",
	       "{'head': 0, 'id_delimiter': ' ', 'meta': {'input_format': "
	       "'sparse', 'delimiter': ' '}}",
	       "c 7:1 1:4\nd 0:2\n");
	assert_int_equal(again("new"), 0);
	assert_string_equal(local_csv(), "id,x0,x1,x2\nc,0,4,0\nd,2,0,0\n");
	upload("new", SVM, "c 1 7:1 1:4\n");
	assert_int_equal(again("new"), 0);
	assert_string_equal(local_csv(), "id,label,x0,x1,x2\nc,1,0,4,0\n");
}

/* ---- tags -------------------------------------------------------------- */

#define TAGS "{'head': 0, 'meta': {'input_format': 'tag'}}"
#define TAGGED                                         \
	"{'head': 0, 'meta': {'input_format': 'tag', " \
	"'tag_with_value': true, 'delimiter': ';', 'with_label': true}}"

static void tags_become_columns_in_byte_order(void **state)
{
	(void)state;
	upload("t", TAGS, "a,red,Blue\nb,blue,red,red\nc\n");
	assert_int_equal(transform("t", "{}"), 0);
	assert_string_equal(local_csv(),
			    "id,Blue,blue,red\na,1,0,1\nb,0,1,1\nc,0,0,0\n");
}

static void tags_have_values(void **state)
{
	(void)state;
	upload("t", TAGGED, "a,1;h:1.5;w:2\nb,0;w : 4\n");
	assert_int_equal(transform("t", "{}"), 0);
	assert_string_equal(local_csv(), "id,label,h,w\na,1,1.5,2\nb,0,0,4\n");
}

static void only_valued_tags_that_lack_are_filled(void **state)
{
	(void)state;
	upload("t", TAGGED, "a,1;h:1;w:2\nb,0;w:4\nc,0;h:3\n");
	assert_int_equal(transform("t", "{'missing_fill': true, "
					"'missing_fill_method': 'mean'}"),
			 0);
	assert_string_equal(local_csv(),
			    "id,label,h,w\na,1,1,2\nb,0,2,4\nc,0,3,3\n");
	upload("t", TAGS, "a,h\nb,w\n");
	assert_int_equal(transform("t", "{'missing_fill': true, "
					"'missing_fill_method': 'max'}"),
			 0);
	assert_string_equal(local_csv(), "id,h,w\na,1,0\nb,0,1\n");
}

static void unknown_tags_are_ignored_with_a_model(void **state)
{
	(void)state;
	upload("t", TAGGED, "a,1;h:1;w:2\nb,0;w:4\n");
	assert_int_equal(transform("t", "{}"), 0);
	upload("new", TAGGED, "c,1;new:3;w:9\n");
	assert_int_equal(again("new"), 0);
	assert_string_equal(local_csv(), "id,label,h,w\nc,1,0,9\n");
	/* A label is not needed; what a row without one looks like is clear. */
	upload("new",
	       "{'head': 0, 'meta': {'input_format': 'tag', "
	       "'tag_with_value': true, 'delimiter': ';'}}",
	       "c,new:3;w:9\n");
	assert_int_equal(again("new"), 0);
	assert_string_equal(local_csv(), "id,h,w\nc,0,9\n");
}

static void malformed_tags_are_counted(void **state)
{
	(void)state;
	upload("t", TAGGED, "a,1;h\nb,1;h:1;h:2\nc,1;:3\nd,;h:2\ne,1;h:x\n");
	assert_int_equal(transform("t", "{}"), -EINVAL);
	assert_string_equal(
	    local_err.text,
	    "column value: 3 rows with fields that are not tag and value, or "
	    "with a tag twice; label label: 1 rows without a whole number "
	    "(others: label_type float); column h: 1 rows without a number");
}

static void a_name_for_two_columns_is_refused(void **state)
{
	(void)state;
	upload("t",
	       "{'head': 0, 'meta': {'input_format': 'tag', 'with_label': "
	       "true}}",
	       "a,1,label,b\n");
	assert_int_equal(transform("t", "{}"), -EINVAL);
	assert_string_equal(local_err.text, "two columns (or a tag and a "
					    "column) have the name label");
	local_upload("t", "id,y;a;y\nk,1;2;3\n");
	assert_int_equal(transform("t", "{" LABEL ", 'delimitor': ';'}"),
			 -EINVAL);
	assert_non_null(strstr(local_err.text, "have the name y"));
	local_upload("t", "id,a;;b\nk,1;2;3\n");
	assert_int_equal(transform("t", "{'delimitor': ';'}"), -EINVAL);
	assert_string_equal(local_err.text, "a column has no name");
}

static void too_many_tags_are_refused(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(1 << 20);

	(void)state;
	for (int i = 0; i < 10001; i++)
		sb_addf(&sb, "%s%d",
			i % 100 ? ","
			: i	? "\nr"
				: "r",
			i % 100 ? i : i * 1000);
	upload("t", TAGS, sb.buf);
	assert_int_equal(transform("t", "{}"), 0); /* ids are no tags */
	sb_addf(&sb, "\nz");
	for (int i = 20000; i < 20200; i++)
		sb_addf(&sb, ",%d", i);
	upload("t", TAGS, sb.buf);
	assert_int_equal(transform("t", "{}"), -EINVAL);
	assert_non_null(strstr(local_err.text, "more features"));
}

/* ---- dense rows in other ways ------------------------------------------ */

static void a_quoted_delimiter_is_part_of_the_name(void **state)
{
	(void)state;
	local_upload("t", "id,\"a,b\"\nk,1\n");
	assert_int_equal(transform("t", "{}"), 0);
	assert_string_equal(local_csv(), "id,\"a,b\"\nk,1\n");
	local_upload("t", "id,\"a,b\",c\nk,1,\"2\"\n");
	assert_int_equal(transform("t", "{}"), 0);
	assert_string_equal(local_csv(), "id,\"a,b\",c\nk,1,2\n");
}

static void rows_that_the_upload_did_not_cut_are_cut(void **state)
{
	(void)state;
	local_upload("t", "id,y; a ;b\nk,1;2;NA\n");
	assert_int_equal(transform("t", "{" LABEL ", 'delimitor': ';'}"), 0);
	assert_string_equal(local_csv(), "id,y,a,b\nk,1,2,\n");
	upload("t", "{'id_delimiter': ';'}", "id;a,b\nk;1,2\nl;3\nm;1,2,3\n");
	assert_int_equal(transform("t", "{}"), -EINVAL);
	assert_string_equal(local_err.text,
			    "column a,b: 2 rows with another number of fields "
			    "than its name has");
	upload("t", "{'id_delimiter': ';'}", "id;a,b\nk;1,2\n");
	assert_int_equal(transform("t", "{}"), 0);
	assert_string_equal(local_csv(), "id,a,b\nk,1,2\n");
}

static void the_meta_of_an_upload_wins(void **state)
{
	json_t *o;

	(void)state;
	upload("t",
	       "{'meta': {'with_label': true, 'label_name': 'out', "
	       "'label_type': 'float', 'data_type': 'int', "
	       "'exclusive_data_type': {'x1': 'str'}}}",
	       "id,x0,x1,out\na,3,red,0.5\n");
	assert_int_equal(transform("t", "{'data_type': 'float', 'label_name': "
					"'x0', 'label_type': 'int'}"),
			 0);
	assert_string_equal(local_csv(), "id,out,x0,x1\na,0.5,3,red\n");
	o = local_json("model.json");
	assert_string_equal(
	    json_str_or(json_object_get(o, "meta"), "label_name", ""), "out");
	json_decref(o);
}

static void a_model_takes_columns_in_any_order_and_format(void **state)
{
	(void)state;
	local_upload("t", "id,x0,x1,x2\na,1,2,3\n");
	assert_int_equal(transform("t", "{}"), 0);
	local_upload("new", "id,x2,more,x0,x1\nb,9,8,7,6\n");
	assert_int_equal(again("new"), 0);
	assert_string_equal(local_csv(), "id,x0,x1,x2\nb,7,6,9\n");
	upload("new",
	       "{'head': 0, 'id_delimiter': ' ', 'meta': {'input_format': "
	       "'sparse', 'delimiter': ' '}}",
	       "c 2:5 1:4\n");
	assert_int_equal(again("new"), 0);
	assert_string_equal(local_csv(), "id,x0,x1,x2\nc,0,4,5\n");
}

static void small_values_are_zero_in_sparse_output(void **state)
{
	_cleanup_table_ struct table *t = NULL;
	_cleanup_free_ char *text = NULL;

	(void)state;
	local_upload("t", "id,x0,x1\na,1e-9,-1e-9\nb,,2e-08\n");
	assert_int_equal(transform("t", "{'output_format': 'sparse'}"), 0);
	assert_string_equal(local_csv(), "id,x0,x1\na,0,0\nb,,2e-08\n");
	t = local_out();
	text = json_text(table_schema(t)->extra, false);
	assert_string_equal(text, "{\"sparse\":true}");
}

/* ---- match ids --------------------------------------------------------- */

static void the_match_id_is_kept_and_no_feature(void **state)
{
	_cleanup_table_ struct table *t = NULL;

	(void)state;
	upload("t", "{'extend_sid': true, 'auto_increasing_sid': true}",
	       "mail,y,x0\nq,1,2\nq,0,3\n");
	assert_int_equal(transform("t", "{" LABEL ", 'with_match_id': true}"),
			 0);
	assert_string_equal(local_csv(),
			    "extend_sid,mail,y,x0\n0,q,1,2\n1,q,0,3\n");
	t = local_out();
	assert_string_equal(table_schema(t)->match_id, "mail");
	assert_false(schema_is_feature(table_schema(t), 0));
	assert_true(schema_is_feature(table_schema(t), 2));
}

static void one_of_several_match_ids_is_taken(void **state)
{
	static const char ids[] =
	    "{'extend_sid': 1, 'auto_increasing_sid': 1, 'meta': "
	    "{'with_match_id': true, 'id_list': ['mail', 'tel']}}";

	(void)state;
	upload("t", ids, "mail,x0,tel\nq,1,2\n");
	assert_int_equal(transform("t", "{'match_id_name': 'tel'}"), 0);
	assert_string_equal(local_csv(), "extend_sid,tel,x0\n0,2,1\n");
	assert_int_equal(transform("t", "{}"), -EINVAL);
	assert_string_equal(local_err.text,
			    "match_id_name: the table has 2 match ids, name "
			    "one of id_list");
	assert_int_equal(transform("t", "{'match_id_name': 'x0'}"), -EINVAL);
	upload("t", ids, "mail,x0\nq,1\n");
	assert_int_equal(transform("t", "{'match_id_name': 'mail'}"), -EINVAL);
	assert_string_equal(local_err.text, "there is no match id column tel");
}

static void match_ids_stand_in_front_of_svmlight(void **state)
{
	static const char ids[] =
	    "{'head': 0, 'extend_sid': 1, 'auto_increasing_sid': 1, 'meta': "
	    "{'input_format': 'sparse', 'delimiter': ' ', 'with_label': true, "
	    "'with_match_id': true, 'id_range': 2}}";

	(void)state;
	upload("t", ids, "m t 1 0:4\nn u 0 1:5\n");
	assert_int_equal(transform("t", "{'match_id_index': 1}"), 0);
	assert_string_equal(local_csv(), "extend_sid,match_id1,label,x0,x1\n"
					 "0,t,1,4,0\n1,u,0,0,5\n");
	assert_int_equal(again("t"), 0);
	assert_string_equal(local_csv(), "extend_sid,match_id1,label,x0,x1\n"
					 "0,t,1,4,0\n1,u,0,0,5\n");
	assert_int_equal(transform("t", "{'match_id_index': 2}"), -EINVAL);
}

static void a_row_without_match_id_is_counted(void **state)
{
	(void)state;
	local_upload("t", "id,mail,x0\na,,1\nb,q,2\n");
	assert_int_equal(transform("t", "{'with_match_id': true}"), -EINVAL);
	assert_string_equal(local_err.text,
			    "match id mail: 1 rows without one");
}

static void a_model_needs_the_match_id_again(void **state)
{
	(void)state;
	local_upload("t", "id,mail,x0\na,q,1\n");
	assert_int_equal(transform("t", "{'with_match_id': true}"), 0);
	local_upload("new", "id,x0,mail\nb,5,r\n");
	assert_int_equal(again("new"), 0);
	assert_string_equal(local_csv(), "id,mail,x0\nb,r,5\n");
	local_upload("new", "id,x0\nb,5\n");
	assert_int_equal(again("new"), -EINVAL);
	assert_string_equal(local_err.text,
			    "the column mail of the training data is missing");
}

static void what_was_put_aside_before_stays_aside(void **state)
{
	_cleanup_table_ struct table *t = NULL;
	struct table_schema *s = schema_new();
	struct table_build *b;
	struct err e = { 0 };
	struct cell cells[] = {
		{ .type = CELL_STRING, .str = "q", .len = 1 },
		{ .type = CELL_I64, .i64 = 1 },
		{ .type = CELL_F64, .f64 = 0.25 },
		{ .type = CELL_F64, .f64 = 7 },
	};

	(void)state;
	schema_add_column(s, "mail", CELL_STRING, NULL);
	schema_add_column(s, "y", CELL_I64, "guest_9999_y");
	schema_add_column(s, "w", CELL_F64, NULL);
	schema_add_column(s, "x0", CELL_F64, NULL);
	s->match_id = xstrdup("mail");
	s->label = xstrdup("y");
	s->weight = xstrdup("w");
	assert_int_equal(table_build_begin(local_store, s, &b, &e), 0);
	schema_free(s);
	assert_int_equal(table_build_add(b, "a", 1, cells, &e), 0);
	assert_int_equal(table_build_publish(b, "in", "t", &e), 0);
	assert_int_equal(transform("t", "{}"), 0);
	assert_string_equal(local_csv(), "id,mail,y,w,x0\na,q,1,0.25,7\n");
	t = local_out();
	assert_string_equal(table_schema(t)->weight, "w");
	assert_string_equal(table_schema(t)->label, "y");
	assert_string_equal(table_schema(t)->match_id, "mail");
	assert_int_equal(transform("t", "{'input_format': 'sparse'}"), -EINVAL);
	assert_string_equal(local_err.text,
			    "input_format: the rows are no text, column y has "
			    "numbers already");
}

static void the_model_of_another_module_is_refused(void **state)
{
	_cleanup_free_ char *path = xasprintf("%s/model.json", local_dir);
	json_t *o = json_pack("{s:s, s:{}, s:{}}", "module", "HeteroLR", "meta",
			      "param");
	struct err e = { 0 };

	(void)state;
	assert_int_equal(json_write_file(path, o, 0600, false, &e), 0);
	json_decref(o);
	local_upload("t", "id,x0\na,1\n");
	assert_int_equal(again("t"), -EINVAL);
	assert_string_equal(local_err.text, "model: it was made by HeteroLR "
					    "and not by DataTransform");
}

/* ---- at submission ----------------------------------------------------- */

static void note(void *arg, const char *pointer, const char *text)
{
	struct strbuf *sb = arg;

	(void)text;
	sb_addf(sb, "%s ", pointer);
}

static void illegal_parameters_are_refused_at_submission(void **state)
{
	static const char *const bad[][2] = {
		{ "{\"input_format\": \"tag\", \"output_format\": "
		  "\"sparse\", \"with_match_id\": true}",
		  "" },
		{ "{\"delimitor\": \"\"}", "delimitor " },
		{ "{\"delimitor\": \"01234567890123456\"}", "delimitor " },
		{ "{\"tag_value_delimitor\": \"\"}", "tag_value_delimitor " },
		{ "{\"tag_with_value\": true, \"delimitor\": \":\"}",
		  "tag_value_delimitor " },
		{ "{\"input_format\": \"tag\", \"data_type\": \"str\"}",
		  "data_type " },
		{ "{\"input_format\": \"sparse\", "
		  "\"exclusive_data_type\": {\"x\": \"str\"}}",
		  "exclusive_data_type/x " },
		{ "{\"exclusive_data_type\": [\"x\"]}",
		  "exclusive_data_type " },
		{ "{\"default_value\": [[1]]}", "default_value " },
		{ "{\"outlier_replace_value\": [\"one\"]}",
		  "outlier_replace_value " },
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
		cmocka_unit_test(text_columns_are_filled_by_a_designated_text),
		cmocka_unit_test(a_list_of_fills_has_one_for_each_column),
		cmocka_unit_test(a_column_without_values_has_no_mean),
		cmocka_unit_test(a_label_that_is_not_there_is_named),
		cmocka_unit_test(an_empty_table_is_refused),
		cmocka_unit_test(
		    a_model_brings_new_rows_to_the_training_columns),
		cmocka_unit_test(the_model_keeps_fills_and_rates),
		cmocka_unit_test(its_own_output_can_be_transformed_again),
		cmocka_unit_test(svmlight_has_a_column_for_each_number),
		cmocka_unit_test(svmlight_by_parameters_needs_no_meta),
		cmocka_unit_test(malformed_svmlight_rows_are_counted),
		cmocka_unit_test(too_many_svmlight_columns_are_refused),
		cmocka_unit_test(new_svmlight_rows_take_the_training_columns),
		cmocka_unit_test(tags_become_columns_in_byte_order),
		cmocka_unit_test(tags_have_values),
		cmocka_unit_test(only_valued_tags_that_lack_are_filled),
		cmocka_unit_test(unknown_tags_are_ignored_with_a_model),
		cmocka_unit_test(malformed_tags_are_counted),
		cmocka_unit_test(a_name_for_two_columns_is_refused),
		cmocka_unit_test(too_many_tags_are_refused),
		cmocka_unit_test(a_quoted_delimiter_is_part_of_the_name),
		cmocka_unit_test(rows_that_the_upload_did_not_cut_are_cut),
		cmocka_unit_test(the_meta_of_an_upload_wins),
		cmocka_unit_test(a_model_takes_columns_in_any_order_and_format),
		cmocka_unit_test(small_values_are_zero_in_sparse_output),
		cmocka_unit_test(the_match_id_is_kept_and_no_feature),
		cmocka_unit_test(one_of_several_match_ids_is_taken),
		cmocka_unit_test(match_ids_stand_in_front_of_svmlight),
		cmocka_unit_test(a_row_without_match_id_is_counted),
		cmocka_unit_test(a_model_needs_the_match_id_again),
		cmocka_unit_test(what_was_put_aside_before_stays_aside),
		cmocka_unit_test(the_model_of_another_module_is_refused),
		cmocka_unit_test(illegal_parameters_are_refused_at_submission),
	};

	return cmocka_run_group_tests(tests, local_setup, local_teardown);
}
