// SPDX-License-Identifier: Apache-2.0
/* Rows that no name has any more are removed by a thread of the store. */
#include "tests/unit/store_dir.h"

static void build(const char *name)
{
	struct table_schema *s = schema_new();
	struct table_build *b = NULL;
	struct cell c = { .type = CELL_STRING, .str = "v", .len = 1 };

	schema_add_column(s, "x", CELL_STRING, NULL);
	assert_int_equal(table_build_begin(store, s, &b, NULL), 0);
	assert_int_equal(table_build_add(b, "k", 1, &c, NULL), 0);
	assert_int_equal(table_build_publish(b, "ns", name, NULL), 0);
	schema_free(s);
}

/* All that waits is done when this returns. */
static void close_and_open(void)
{
	table_store_close(store);
	assert_int_equal(table_store_open(dir, &store, NULL), 0);
	assert_int_equal(table_store_collect_aside(store, NULL), 0);
}

static void dropped_replaced_and_emptied_tables_leave_no_rows(void **state)
{
	struct table_id id;
	struct table *t;

	(void)state;
	close_and_open();
	for (int i = 0; i < 3; i++) {
		build("old");
		assert_int_equal(table_lookup(store, "ns", "old", &id, NULL),
				 0);
		if (i == 0)
			assert_int_equal(table_drop(store, "ns", "old", NULL),
					 0);
		if (i == 1)
			assert_int_equal(
			    table_truncate(store, "ns", "old", NULL, NULL), 0);
		if (i == 2) {
			build("new");
			assert_int_equal(
			    table_rename(store, "ns", "new", "ns", "old", NULL),
			    0);
		}
		close_and_open();
		assert_int_equal(table_open_gen(store, id.gen, &t, NULL),
				 -ENOENT);
	}
	assert_int_equal(table_open(store, "ns", "old", &t, NULL), 0);
	table_unref(t);
}

static void a_dropped_table_is_read_to_its_end(void **state)
{
	struct table_id id;
	struct table *t;
	char buf[64];

	(void)state;
	close_and_open();
	build("read");
	assert_int_equal(table_lookup(store, "ns", "read", &id, NULL), 0);
	assert_int_equal(table_open(store, "ns", "read", &t, NULL), 0);
	assert_int_equal(table_drop(store, "ns", "read", NULL), 0);
	for (int i = 0; i < 100; i++)
		build("other");
	assert_int_equal(table_csv_read(t, 0, buf, sizeof(buf), NULL), 9);
	table_unref(t);
	close_and_open();
	assert_int_equal(table_open_gen(store, id.gen, &t, NULL), -ENOENT);
}

static void rows_that_get_their_name_back_stay(void **state)
{
	struct table *t;

	(void)state;
	close_and_open();
	build("back");
	for (int i = 0; i < 300; i++) {
		assert_int_equal(table_open(store, "ns", "back", &t, NULL), 0);
		assert_int_equal(
		    table_truncate(store, "ns", "back", NULL, NULL), 0);
		assert_int_equal(
		    table_rename(store, "ns", "back", "ns", "elsewhere", NULL),
		    0);
		assert_int_equal(table_link(t, "ns", "elsewhere", NULL), 0);
		assert_int_equal(
		    table_rename(store, "ns", "elsewhere", "ns", "back", NULL),
		    0);
		table_unref(t);
	}
	close_and_open();
	assert_int_equal(table_open(store, "ns", "back", &t, NULL), 0);
	assert_int_equal(table_rows(t), 1);
	table_unref(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
		    dropped_replaced_and_emptied_tables_leave_no_rows),
		cmocka_unit_test(a_dropped_table_is_read_to_its_end),
		cmocka_unit_test(rows_that_get_their_name_back_stay),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
