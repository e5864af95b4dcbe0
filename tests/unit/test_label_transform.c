// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/local_task.h"

#define WORDS	"{'with_label': true, 'label_type': 'str'}"
#define NUMBERS "{'with_label': true}"

static int transform(const char *table, const char *params, bool with_model)
{
	return local_run("LabelTransform", "guest", table, params, with_model);
}

static enum cell_type label_type(void)
{
	_cleanup_table_ struct table *t = local_out();

	return table_schema(t)->columns[0].type;
}

/* in/<name> as a trainer makes it: labels 0 and 1. */
static void predictions(const char *name, bool with_label)
{
	static const char *const names[] = { "label", "predict_result",
					     "predict_score", "predict_detail",
					     "type" };
	struct table_schema *s = schema_new();
	struct table_build *b;
	struct err e = { 0 };

	free(s->id);
	s->id = xstrdup("id");
	s->content_type = xstrdup("predict_result");
	schema_add_column(s, names[0], with_label ? CELL_I64 : CELL_F64, NULL);
	schema_add_column(s, names[1], CELL_I64, NULL);
	schema_add_column(s, names[2], CELL_F64, NULL);
	schema_add_column(s, names[3], CELL_STRING, NULL);
	schema_add_column(s, names[4], CELL_STRING, NULL);
	assert_int_equal(table_build_begin(local_store, s, &b, &e), 0);
	schema_free(s);
	for (int64_t i = 0; i < 2; i++) {
		const char *detail =
		    i ? "{\"0\":0.25,\"1\":0.75}" : "{'0': 0.75, '1': 0.25}";
		const struct cell cells[5] = {
			{ .type = with_label ? CELL_I64 : CELL_F64,
			  .i64 = 1 - i,
			  .f64 = NAN },
			{ .type = CELL_I64, .i64 = i },
			{ .type = CELL_F64, .f64 = i ? .75 : .25 },
			{ .type = CELL_STRING,
			  .str = detail,
			  .len = strlen(detail) },
			{ .type = CELL_STRING, .str = "train", .len = 5 },
		};

		assert_int_equal(
		    table_build_add(b, i ? "b" : "a", 1, cells, &e), 0);
	}
	assert_int_equal(table_build_publish(b, "in", name, &e), 0);
}

static void sorted_labels_become_0_1_2(void **state)
{
	_cleanup_table_ struct table *t = NULL;
	json_t *m;

	(void)state;
	local_typed("t", "id,y,x\na,red,1\nb,blue,2\nc,red,3\nd,green,4\n",
		    WORDS);
	assert_int_equal(transform("t", "{}", false), 0);
	assert_string_equal(local_csv(),
			    "id,y,x\na,2,1\nb,0,2\nc,2,3\nd,1,4\n");
	t = local_out();
	assert_string_equal(table_schema(t)->label, "y");
	assert_int_equal(table_schema(t)->columns[0].type, CELL_I64);
	assert_string_equal(table_schema(t)->columns[0].anonymous,
			    "guest_9999_y");
	m = local_json("model.json");
	assert_int_equal(
	    json_int_or(
		json_object_get(json_object_get(m, "param"), "label_encoder"),
		"green", -1),
	    1);
	json_decref(m);
	/* numbers by value, not as words */
	local_typed("t", "id,y,x\na,10,1\nb,9,2\nc,-1,3\n", NUMBERS);
	assert_int_equal(transform("t", "{}", false), 0);
	assert_string_equal(local_csv(), "id,y,x\na,2,1\nb,1,2\nc,0,3\n");
}

static void an_encoder_decides_the_values_and_their_type(void **state)
{
	(void)state;
	local_typed("t", "id,y,x\na,0,1\nb,1,2\nc,2,3\n", NUMBERS);
	assert_int_equal(
	    transform("t", "{'label_encoder': {'0': 10, '1.0': -1}}", false),
	    0);
	/* 2 is not in it */
	assert_string_equal(local_csv(), "id,y,x\na,10,1\nb,-1,2\nc,2,3\n");
	assert_int_equal(label_type(), CELL_I64);
	assert_int_equal(
	    transform("t", "{'label_encoder': {'0': 0.5, '1': 1}}", false), 0);
	assert_string_equal(local_csv(), "id,y,x\na,0.5,1\nb,1,2\nc,2,3\n");
	assert_int_equal(label_type(), CELL_F64);
	assert_int_equal(transform("t",
				   "{'label_encoder': {'0': 'no', '1': 'yes'}, "
				   "'label_list': [0, 1]}",
				   false),
			 0);
	assert_string_equal(local_csv(), "id,y,x\na,no,1\nb,yes,2\nc,2,3\n");
	assert_int_equal(label_type(), CELL_STRING);
	assert_int_equal(
	    transform("t", "{'label_encoder': {'1': 5, '1.0': 6}}", false),
	    -EINVAL);
	assert_non_null(strstr(local_err.text, "stands there twice"));
}

static void predictions_get_the_first_labels_back(void **state)
{
	(void)state;
	local_typed("t", "id,y,x\na,benign,1\nb,malignant,2\n", WORDS);
	predictions("p", true);
	assert_int_equal(transform("t", "{}", false), 0);
	assert_int_equal(transform("p", "{}", true), 0);
	assert_string_equal(
	    local_csv(),
	    "id,label,predict_result,predict_score,predict_detail,type\n"
	    "a,malignant,benign,0.25,\"{\"\"benign\"\":0.75,"
	    "\"\"malignant\"\":0.25}\",train\n"
	    "b,benign,malignant,0.75,\"{\"\"benign\"\":0.25,"
	    "\"\"malignant\"\":0.75}\",train\n");
}

static void numbers_come_back_as_numbers(void **state)
{
	(void)state;
	local_typed("t", "id,y,x\na,7,1\nb,-3,2\n", NUMBERS);
	predictions("p", true);
	assert_int_equal(transform("t", "{}", false), 0);
	assert_int_equal(transform("p", "{}", true), 0);
	assert_string_equal(
	    local_csv(),
	    "id,label,predict_result,predict_score,predict_detail,type\n"
	    "a,7,-3,0.25,\"{\"\"-3\"\":0.75,\"\"7\"\":0.25}\",train\n"
	    "b,-3,7,0.75,\"{\"\"-3\"\":0.25,\"\"7\"\":0.75}\",train\n");
	assert_int_equal(label_type(), CELL_I64);
}

static void predictions_without_labels_keep_none(void **state)
{
	(void)state;
	predictions("p", false);
	assert_int_equal(
	    transform("p", "{'label_encoder': {'no': 0, 'yes': 1}}", false), 0);
	assert_string_equal(
	    local_csv(),
	    "id,label,predict_result,predict_score,predict_detail,type\n"
	    "a,,no,0.25,\"{\"\"no\"\":0.75,\"\"yes\"\":0.25}\",train\n"
	    "b,,yes,0.75,\"{\"\"no\"\":0.25,\"\"yes\"\":0.75}\",train\n");
}

static void predictions_need_an_encoder_that_can_be_reverted(void **state)
{
	(void)state;
	predictions("p", true);
	assert_int_equal(transform("p", "{}", false), -EINVAL);
	assert_non_null(strstr(local_err.text, "input.model"));
	assert_int_equal(
	    transform("p", "{'label_encoder': {'a': 1, 'b': 1}}", false),
	    -EINVAL);
	assert_non_null(strstr(local_err.text, "several labels"));
	assert_string_equal(local_code, "bad_data");
}

static void a_model_encodes_new_rows_as_the_old_ones(void **state)
{
	(void)state;
	local_typed("t", "id,y,x\na,red,1\nb,blue,2\n", WORDS);
	local_typed("new", "id,y,x\nf,red,1\ng,white,2\n", WORDS);
	local_typed("bare", "id,x\nf,1\n", "{}");
	assert_int_equal(transform("t", "{}", false), 0);
	/* white is unknown and stays: the column is one of words */
	assert_int_equal(transform("new", "{}", true), 0);
	assert_string_equal(local_csv(), "id,y,x\nf,1,1\ng,white,2\n");
	assert_int_equal(transform("bare", "{}", true), 0);
	assert_string_equal(local_csv(), "id,x\nf,1\n");
	assert_non_null(strstr(local_text("events"), "they have no label"));
}

static void a_host_without_labels_hands_its_rows_on(void **state)
{
	(void)state;
	local_typed("t", "id,x\na,1\n", "{}");
	assert_int_equal(local_run("LabelTransform", "host", "t", "{}", false),
			 0);
	assert_string_equal(local_csv(), "id,x\na,1\n");
	assert_int_equal(local_run("LabelTransform", "host", NULL, "{}", false),
			 0);
}

static void note(void *arg, const char *pointer, const char *text)
{
	(void)text;
	sb_addf(arg, "%s ", pointer);
}

static void impossible_parameters_are_refused_at_submission(void **state)
{
	static const char *const cases[][2] = {
		{ "{\"label_encoder\": null, \"label_list\": [1, 2]}", "" },
		{ "{\"label_encoder\": [1]}", "label_encoder " },
		{ "{\"label_encoder\": {\"a\": [], \"b\": 1}}",
		  "label_encoder/a " },
		{ "{\"label_encoder\": {\"a\": 1}, \"label_list\": [\"a\", "
		  "\"b\"]}",
		  "label_list " },
		{ "{\"label_list\": [\"a\", null]}", "label_list/1 " },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(1000);
		json_t *p = json_parse(cases[i][0], strlen(cases[i][0]), NULL);

		assert_non_null(p);
		component_find("LabelTransform")
		    ->check(p, NULL, "guest", note, &sb);
		assert_string_equal(sb.buf, cases[i][1]);
		json_decref(p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sorted_labels_become_0_1_2),
		cmocka_unit_test(an_encoder_decides_the_values_and_their_type),
		cmocka_unit_test(predictions_get_the_first_labels_back),
		cmocka_unit_test(numbers_come_back_as_numbers),
		cmocka_unit_test(predictions_without_labels_keep_none),
		cmocka_unit_test(
		    predictions_need_an_encoder_that_can_be_reverted),
		cmocka_unit_test(a_model_encodes_new_rows_as_the_old_ones),
		cmocka_unit_test(a_host_without_labels_hands_its_rows_on),
		cmocka_unit_test(
		    impossible_parameters_are_refused_at_submission),
	};

	return cmocka_run_group_tests(tests, local_setup, local_teardown);
}
