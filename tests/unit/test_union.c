// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/local_task.h"

static int unite(const char *tables, const char *params)
{
	return local_run("Union", "guest", tables, params, false);
}

static void rows_of_all_tables_come_in_order(void **state)
{
	json_t *o;

	(void)state;
	local_upload("t", "id,x\nb,1\nd,2\n");
	local_upload("u", "id,x\na,3\nbb,4\nz,5\n");
	local_upload("v", "id,x\nc,6\n");
	assert_int_equal(unite("t u v", "{}"), 0);
	assert_string_equal(local_csv(),
			    "id,x\na,3\nb,1\nbb,4\nc,6\nd,2\nz,5\n");
	o = local_json("summary.json");
	assert_int_equal(json_int_or(o, "count", 0), 6);
	assert_int_equal(
	    json_int_or(json_object_get(o, "inputs"), "maker_1", 0), 3);
	json_decref(o);
}

static void of_equal_ids_the_first_table_wins(void **state)
{
	json_t *o;

	(void)state;
	local_upload("t", "id,x\na,1\nb,2\n");
	local_upload("u", "id,x\nb,3\nc,4\n");
	local_upload("v", "id,x\na,5\nb,6\n");
	assert_int_equal(unite("t u v", "{'keep_duplicate': false}"), 0);
	assert_string_equal(local_csv(), "id,x\na,1\nb,2\nc,4\n");
	assert_int_equal(unite("v u t", "{'keep_duplicate': false}"), 0);
	assert_string_equal(local_csv(), "id,x\na,5\nb,6\nc,4\n");
	o = local_json("summary.json");
	assert_int_equal(json_int_or(o, "duplicates", 0), 3);
	json_decref(o);
}

static void duplicates_may_be_kept_under_other_ids(void **state)
{
	(void)state;
	local_upload("t", "id,x\na,1\nb,2\n");
	local_upload("u", "id,x\nb,3\nc,4\n");
	local_upload("v", "id,x\nb,6\n");
	assert_int_equal(unite("t u v", "{'keep_duplicate': true}"), 0);
	assert_string_equal(local_csv(), "id,x\na,1\nb,2\nb_maker_1,3\n"
					 "b_maker_2,6\nc,4\n");
	/* an id that is there already is not overwritten */
	local_upload("v", "id,x\nb_maker_1,6\n");
	assert_int_equal(unite("t u v", "{'keep_duplicate': true}"), -EEXIST);
}

static void empty_tables_are_skipped(void **state)
{
	(void)state;
	local_upload("t", "id,other\n");
	local_upload("u", "id,x\na,1\n");
	assert_int_equal(unite("t u", "{}"), 0);
	assert_string_equal(local_csv(), "id,x\na,1\n");
	assert_int_equal(unite("t t", "{}"), 0);
	assert_string_equal(local_csv(), "id,other\n");
}

static void tables_that_do_not_fit_are_refused(void **state)
{
	static const struct {
		const char *csv, *text;
	} cases[] = {
		{ "key,x\na,1\n", "maker_1: the ids are called key, but id in "
				  "the tables before" },
		{ "id,y\na,1\n",
		  "maker_1: column 1 is y, but x in the tables before: all "
		  "need the same columns in the same order" },
		{ "id,x,y\na,1,2\n",
		  "maker_1: column 2 is y, but missing in the tables before: "
		  "all need the same columns in the same order" },
	};

	(void)state;
	local_upload("t", "id,x\na,1\n");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		local_upload("u", cases[i].csv);
		assert_int_equal(unite("t u", "{}"), -EINVAL);
		assert_string_equal(local_err.text, cases[i].text);
	}
	local_typed("u", "id,x\na,1\n", "{}");
	assert_int_equal(unite("t u", "{}"), -EINVAL);
	assert_non_null(strstr(local_err.text, "something else"));
	local_typed("t", "id,x\nb,1\n",
		    "{'with_label': true, 'label_name': 'x'}");
	assert_int_equal(unite("t u", "{}"), -EINVAL);
	assert_non_null(strstr(local_err.text, "the label is missing"));
	local_typed("t", "id,x\nb,1\n", "{'data_type': 'str'}");
	assert_int_equal(unite("t u", "{}"), -EINVAL);
	assert_non_null(strstr(local_err.text, "another type"));
}

static void one_table_is_not_enough(void **state)
{
	(void)state;
	local_upload("t", "id,x\na,1\n");
	assert_int_equal(unite("t", "{}"), -EINVAL);
	assert_int_equal(local_run("Union", "host", NULL, "{}", false), 0);
}

static void roles_and_types_of_columns_stay(void **state)
{
	_cleanup_table_ struct table *t = NULL;

	(void)state;
	local_typed("t", "id,y,x\na,1,2\n", "{'with_label': true}");
	local_typed("u", "id,y,x\nb,0,3\n", "{'with_label': true}");
	assert_int_equal(unite("t u", "{}"), 0);
	t = local_out();
	assert_string_equal(table_schema(t)->label, "y");
	assert_int_equal(table_schema(t)->columns[0].type, CELL_I64);
	assert_string_equal(table_schema(t)->columns[1].anonymous,
			    "guest_9999_x0");
	assert_int_equal(json_array_size(json_object_get(
			     table_schema(t)->lineage, "parents")),
			 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_of_all_tables_come_in_order),
		cmocka_unit_test(of_equal_ids_the_first_table_wins),
		cmocka_unit_test(duplicates_may_be_kept_under_other_ids),
		cmocka_unit_test(empty_tables_are_skipped),
		cmocka_unit_test(tables_that_do_not_fit_are_refused),
		cmocka_unit_test(one_table_is_not_enough),
		cmocka_unit_test(roles_and_types_of_columns_stay),
	};

	return cmocka_run_group_tests(tests, local_setup, local_teardown);
}
