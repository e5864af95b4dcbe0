/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of ids that are numbers in disguise, for what runs Intersection. */
#ifndef TESTS_UNIT_ID_TABLES_H
#define TESTS_UNIT_ID_TABLES_H

#include "tests/unit/harness.h"

/* Which of the numbers a party has as ids. */
struct ids {
	size_t from, to, step;
};

static inline bool has(const struct ids *s, size_t id)
{
	return id >= s->from && id < s->to && (id - s->from) % s->step == 0;
}

static inline void name_id(char *text, size_t size, size_t id)
{
	/* Not in numerical order, of several lengths. */
	(void)snprintf(text, size, "%zu-%zu", id * 7919 % 10007, id);
}

static inline struct table *make_table(const char *name, const struct ids *s)
{
	struct table_schema *schema = schema_new();
	struct table_build *b;
	struct table *t;
	struct err e = { 0 };
	char key[48];

	free(schema->id);
	schema->id = xstrdup("id");
	schema_add_column(schema, "x0", CELL_I64, NULL);
	assert_int_equal(table_build_begin(store, schema, &b, &e), 0);
	schema_free(schema);
	for (size_t id = s->from; id < s->to; id += s->step) {
		struct cell cell = { .type = CELL_I64, .i64 = (int64_t)id };

		name_id(key, sizeof(key), id);
		assert_int_equal(
		    table_build_add(b, key, strlen(key), &cell, &e), 0);
	}
	assert_int_equal(table_build_publish(b, "in", name, &e), 0);
	assert_int_equal(table_open(store, "in", name, &t, &e), 0);
	return t;
}

#endif
