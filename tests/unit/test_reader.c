// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/local_task.h"

#define TABLE "{'table': {'namespace': 'in', 'name': 't'}}"

static int read_t(void)
{
	return local_run("Reader", "host", NULL, TABLE, false);
}

static void the_rows_come_as_they_are(void **state)
{
	(void)state;
	local_upload("t", "id,x0,y\nb,1.50,no\na,\"a,b\",\n");
	assert_int_equal(read_t(), 0);
	assert_string_equal(local_csv(), "id,x0,y\na,\"a,b\",\nb,1.50,no\n");
}

static void columns_get_names_for_partners(void **state)
{
	_cleanup_table_ struct table *t = NULL;

	(void)state;
	local_upload("t", "id,x0,y\na,1,2\n");
	assert_int_equal(read_t(), 0);
	t = local_out();
	assert_string_equal(table_schema(t)->columns[0].anonymous,
			    "host_9999_x0");
	assert_string_equal(table_schema(t)->columns[1].anonymous,
			    "host_9999_x1");
}

static void the_output_says_what_was_read(void **state)
{
	_cleanup_table_ struct table *t = NULL;
	const json_t *parents;

	(void)state;
	local_upload("t", "id,x0\na,1\n");
	assert_int_equal(read_t(), 0);
	t = local_out();
	parents = json_object_get(table_schema(t)->lineage, "parents");
	assert_string_equal(json_string_value(json_array_get(parents, 0)),
			    "in/t");
}

static void dropping_the_source_leaves_the_output(void **state)
{
	struct err e = { 0 };

	(void)state;
	local_upload("t", "id,x0\na,1\nb,2\n");
	assert_int_equal(read_t(), 0);
	assert_int_equal(table_drop(local_store, "in", "t", &e), 0);
	assert_int_equal(table_store_sweep(local_store, NULL, &e), 0);
	assert_string_equal(local_csv(), "id,x0\na,1\nb,2\n");
}

static void an_empty_table_has_an_empty_output(void **state)
{
	(void)state;
	local_upload("t", "id,x0\n");
	assert_int_equal(read_t(), 0);
	assert_string_equal(local_csv(), "id,x0\n");
}

static void a_table_that_is_not_there_is_named(void **state)
{
	struct err e = { 0 };

	(void)state;
	local_upload("t", "id,x0\na,1\n");
	assert_int_equal(table_drop(local_store, "in", "t", &e), 0);
	assert_int_equal(read_t(), -ENOENT);
	assert_non_null(strstr(local_err.text, "in/t"));
}

static void rows_are_shared_with_the_same_columns_only(void **state)
{
	struct table_schema *s = schema_new();
	_cleanup_table_ struct table *t = NULL;
	struct table_build *b;
	struct err e = { 0 };

	(void)state;
	local_upload("t", "id,x0\na,1\n");
	assert_int_equal(table_open(local_store, "in", "t", &t, &e), 0);
	schema_add_column(s, "other", CELL_STRING, NULL);
	assert_int_equal(table_build_begin(local_store, s, &b, &e), 0);
	assert_int_equal(table_build_share(b, t, &e), -EINVAL);
	table_build_abort(b);
	schema_free(s);
}

static void note(void *arg, const char *pointer, const char *text)
{
	struct strbuf *sb = arg;

	(void)text;
	sb_addf(sb, "%s ", pointer);
}

static void only_a_table_by_name_is_offered(void **state)
{
	static const char *const asked[][2] = {
		{ "{\"table\": {\"namespace\": \"a\", \"name\": \"b\"}}", "" },
		{ "{\"table\": {\"namespace\": \"a\", \"name\": null}}",
		  "table/name " },
		{ "{\"table\": {\"job_id\": \"1\", \"component_name\": \"x\"}}",
		  "table/job_id " },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(asked); i++) {
		_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(1000);
		json_t *p = json_parse(asked[i][0], strlen(asked[i][0]), NULL);

		component_find("Reader")->check(p, NULL, "guest", note, &sb);
		assert_string_equal(sb.buf, asked[i][1]);
		json_decref(p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_rows_come_as_they_are),
		cmocka_unit_test(columns_get_names_for_partners),
		cmocka_unit_test(the_output_says_what_was_read),
		cmocka_unit_test(dropping_the_source_leaves_the_output),
		cmocka_unit_test(an_empty_table_has_an_empty_output),
		cmocka_unit_test(a_table_that_is_not_there_is_named),
		cmocka_unit_test(rows_are_shared_with_the_same_columns_only),
		cmocka_unit_test(only_a_table_by_name_is_offered),
	};

	return cmocka_run_group_tests(tests, local_setup, local_teardown);
}
