// SPDX-License-Identifier: Apache-2.0
/* The files are read by numpy in tests/mount/test_columns.py; here are their
 * bytes. */
#include <math.h>
#include <pthread.h>

#include "lib/table_npy.h"
#include "tests/unit/store_dir.h"

static struct table *made; /* the large one, by the first who needs it */

static int teardown_made(void **state)
{
	table_unref(made);
	return teardown(state);
}

static struct table *upload(const char *name, const char *text, size_t n)
{
	struct table_upload *u = NULL;
	struct table *t = NULL;
	struct err e = { 0 };

	if (table_upload_begin(store, NULL, &u, &e) ||
	    table_upload_write(u, text, n, &e) ||
	    table_upload_publish(u, "ns", name, &e) ||
	    table_open(store, "ns", name, &t, &e))
		fail_msg("%s", e.text);
	return t;
}

static struct table *upload_text(const char *name, const char *text)
{
	return upload(name, text, strlen(text));
}

static unsigned find(struct table *t, const char *name)
{
	unsigned which = 0;

	if (table_npy_find(t, name, &which))
		fail_msg("no %s", name);
	return which;
}

/* The whole file; caller frees ret->buf. */
static void file(struct table *t, unsigned which, struct strbuf *ret)
{
	static char buf[100000];
	uint64_t size = 0;
	ssize_t n;

	sb_init(ret, 64u << 20);
	assert_int_equal(table_npy_size(t, which, &size, NULL), 0);
	while ((n = table_npy_read(t, which, ret->len, buf, sizeof(buf),
				   NULL)) > 0)
		sb_add(ret, buf, (size_t)n);
	assert_int_equal(n, 0);
	assert_int_equal(ret->len, size);
}

static const char *body(const struct strbuf *f, const char *header)
{
	size_t n = (size_t)(unsigned char)f->buf[8] |
		   (size_t)(unsigned char)f->buf[9] << 8;

	assert_memory_equal(f->buf, "\x93NUMPY\x01\x00", 8);
	assert_int_equal((10 + n) % 64, 0);
	assert_memory_equal(f->buf + 10, header, strlen(header));
	assert_int_equal(f->buf[9 + n], '\n');
	return f->buf + 10 + n;
}

static const char small[] = "id,n,x,t\n"
			    "b,-5,0.5,one\n"
			    "a,123456789012345678,1e3,two words\n"
			    "ccc,007,,\n";

static void each_column_is_what_its_text_says(void **state)
{
	const int64_t n[3] = { 123456789012345678, -5, 7 };
	struct table *t = upload_text("small", small);
	struct strbuf f;
	double x[3];

	(void)state;
	file(t, find(t, "n.npy"), &f);
	assert_memory_equal(body(&f, "{'descr': '<i8', 'fortran_order': "
				     "False, 'shape': (3,), }"),
			    n, sizeof(n));
	sb_free(&f);
	file(t, find(t, "x.npy"), &f);
	memcpy(x, body(&f, "{'descr': '<f8'"), sizeof(x));
	assert_true(x[0] == 1000 && x[1] == 0.5 && isnan(x[2]));
	sb_free(&f);
	file(t, find(t, "t.npy"), &f);
	assert_memory_equal(body(&f, "{'descr': '|S9'"),
			    "two wordsone\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 27);
	sb_free(&f);
	file(t, find(t, "id.npy"), &f);
	assert_memory_equal(body(&f, "{'descr': '|S3'"), "a\0\0b\0\0ccc", 9);
	sb_free(&f);
	table_unref(t);
}

static void a_matrix_has_the_numbers_of_its_columns(void **state)
{
	static const double want[2][3] = { { 0, -0.0, 123456789012345678.0 },
					   { 12, 0.1, INFINITY } };
	struct table *t = upload_text("zero", "id,n,x,y\n"
					      "a,-0,-0,123456789012345678\n"
					      "b,12,0.1,inf\n");
	struct strbuf f;

	(void)state;
	file(t, TABLE_NPY_MATRIX, &f);
	assert_memory_equal(body(&f, "{'descr': '<f8', 'fortran_order': "
				     "False, 'shape': (2, 3), }"),
			    want, sizeof(want));
	sb_free(&f);
	table_unref(t);
}

static void what_cannot_be_offered_says_why(void **state)
{
	char text[700] = "id,a/b,wide,\xc3\xbc\n1,2,", wide[300];
	struct err e = { 0 };
	struct table *t;
	uint64_t size;
	char *name;
	unsigned k;

	(void)state;
	memset(wide, 'w', sizeof(wide));
	wide[257] = '\0';
	(void)snprintf(text + strlen(text), sizeof(text) - strlen(text),
		       "%s,3\n", wide);
	t = upload_text("wide", text);
	assert_int_equal(table_npy_find(t, "wide.npy", &k), -ENOENT);
	assert_int_equal(table_npy_size(t, TABLE_NPY_COLUMN0 + 1, &size, &e),
			 -ENOENT);
	assert_non_null(strstr(e.text, "more than 256 bytes"));
	assert_int_equal(table_npy_size(t, TABLE_NPY_MATRIX, &size, &e),
			 -ENOENT);
	name = table_npy_name(t, TABLE_NPY_COLUMN0);
	assert_string_equal(name, "a%2Fb.npy");
	assert_int_equal(find(t, name), TABLE_NPY_COLUMN0);
	free(name);
	assert_int_equal(find(t, "\xc3\xbc.npy"), TABLE_NPY_COLUMN0 + 2);
	assert_null(table_npy_name(t, TABLE_NPY_COLUMN0 + 1));
	assert_int_equal(table_npy_find(t, "a/b.npy", &k), -ENOENT);
	assert_int_equal(table_npy_find(t, "a%2Fb", &k), -ENOENT);
	assert_int_equal(table_npy_find(t, ".npy", &k), -ENOENT);
	table_unref(t);
}

static void a_table_without_rows_has_empty_arrays(void **state)
{
	struct table *t = upload_text("none", "id,x\n");
	struct strbuf f;

	(void)state;
	file(t, TABLE_NPY_MATRIX, &f);
	(void)body(&f, "{'descr': '<f8', 'fortran_order': False, 'shape': "
		       "(0, 1), }");
	assert_int_equal(f.len % 64, 0);
	sb_free(&f);
	table_unref(t);
}

/* ---- large enough for several groups and partitions -------------------- */

#define ROWS	2200
#define COLUMNS 1000 /* 8,000 bytes a row: 1,048 rows a group */
#define WIDTH	(8ull * COLUMNS)

static double value(unsigned row, unsigned column)
{
	return column % 3 ? row * 0.25 + column : (double)row * column;
}

static struct table *large(void)
{
	struct strbuf sb = STRBUF_INIT(64u << 20);
	struct table_upload *u = NULL;
	struct err e = { 0 };
	json_t *options;

	if (made)
		return made;
	options = json_pack("{s:i}", "partition", 2);
	sb_adds(&sb, "id");
	for (unsigned c = 0; c < COLUMNS; c++)
		sb_addf(&sb, ",c%u", c);
	sb_addc(&sb, '\n');
	for (unsigned i = 0; i < ROWS; i++) {
		unsigned row = i * 7919u % ROWS;

		sb_addf(&sb, "%05u", row);
		for (unsigned c = 0; c < COLUMNS; c++)
			sb_addf(&sb, ",%.15g", value(row, c));
		sb_addc(&sb, '\n');
	}
	if (table_upload_begin(store, options, &u, &e) ||
	    table_upload_write(u, sb.buf, sb.len, &e) ||
	    table_upload_publish(u, "ns", "large", &e) ||
	    table_open(store, "ns", "large", &made, &e))
		fail_msg("%s", e.text);
	json_decref(options);
	sb_free(&sb);
	return made;
}

static void *read_some(void *arg)
{
	struct table *t = arg;
	char buf[WIDTH];

	for (unsigned i = 0; i < 50; i++) {
		uint64_t size;
		double v;

		if (table_npy_size(t, TABLE_NPY_MATRIX, &size, NULL) ||
		    table_npy_read(t, TABLE_NPY_MATRIX, size - WIDTH * (i + 1),
				   buf, WIDTH, NULL) != WIDTH)
			return arg;
		memcpy(&v, buf + 8, 8);
		if (v != value(ROWS - 1 - i, 1))
			return arg;
	}
	return NULL;
}

static void threads_that_read_at_once_share_one_pass(void **state)
{
	struct table *t = large();
	pthread_t ids[4];

	(void)state;
	assert_false(table_npy_ready(t, TABLE_NPY_MATRIX, 0, 1000));
	assert_true(table_npy_ready(t, TABLE_NPY_MATRIX, 0, 10));
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		assert_int_equal(pthread_create(&ids[i], NULL, read_some, t),
				 0);
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		void *bad = NULL;

		pthread_join(ids[i], &bad);
		assert_null(bad);
	}
	assert_true(table_npy_ready(t, TABLE_NPY_MATRIX, 0, 1000));
}

static void any_piece_is_the_same(void **state)
{
	struct table *t = large();
	struct strbuf f;
	unsigned x = 7;
	const char *at;

	(void)state;
	file(t, TABLE_NPY_MATRIX, &f);
	at = body(&f, "{'descr': '<f8', 'fortran_order': False, 'shape': "
		      "(2200, 1000), }");
	for (unsigned i = 0; i < ROWS; i++)
		for (unsigned c = 0; c < COLUMNS; c++) {
			double v;

			memcpy(&v, at + 8ull * (i * COLUMNS + c), 8);
			if (v != value(i, c))
				fail_msg("row %u column %u: %g", i, c, v);
		}
	for (unsigned c = 0; c < COLUMNS; c += 37) {
		unsigned which = TABLE_NPY_COLUMN0 + c;
		struct strbuf g;

		file(t, which, &g);
		at = body(&g, c % 3 ? "{'descr': '<f8'" : "{'descr': '<i8'");
		for (unsigned i = 0; i < ROWS; i++) {
			int64_t n;
			double v;

			memcpy(&v, at + 8ull * i, 8);
			memcpy(&n, at + 8ull * i, 8);
			assert_true(c % 3 ? v == value(i, c)
					  : n == (int64_t)i * c);
		}
		sb_free(&g);
	}
	for (unsigned i = 0; i < 300; i++) {
		char buf[9000];
		size_t from, n;

		x = x * 1103515245u + 12345u;
		from = (x >> 4) % f.len;
		n = 1 + (x >> 3) % sizeof(buf);
		n = MIN(n, f.len - from);
		assert_int_equal(table_npy_read(t, TABLE_NPY_MATRIX, from, buf,
						sizeof(buf) < n ? 0 : n, NULL),
				 n);
		assert_memory_equal(buf, f.buf + from, n);
	}
	sb_free(&f);
}

static void a_canceled_pass_can_be_made_again(void **state)
{
	static const atomic_bool stop = true;
	const struct table_run run = { .threads = 2, .cancel = &stop };
	struct table *t = upload_text("again", small);
	struct strbuf f;

	(void)state;
	assert_int_equal(table_npy_prepare(t, TABLE_NPY_ID, &run, NULL),
			 -ECANCELED);
	file(t, TABLE_NPY_ID, &f);
	assert_memory_equal(body(&f, "{'descr': '|S3'"), "a\0\0b\0\0ccc", 9);
	sb_free(&f);
	table_unref(t);
}

/* Typed cells, and rows that are shared with another table. */
static void typed_and_shared_rows_are_offered_too(void **state)
{
	struct table_schema *s = schema_new();
	struct table_build *b = NULL;
	struct table *t = NULL;
	struct strbuf f;
	double x[2];

	(void)state;
	schema_add_column(s, "x", CELL_F64, NULL);
	schema_add_column(s, "n", CELL_I64, NULL);
	assert_int_equal(table_build_begin(store, s, &b, NULL), 0);
	assert_int_equal(
	    table_build_add(b, "k", 1,
			    (struct cell[]){ { .type = CELL_F64, .f64 = NAN },
					     { .type = CELL_I64, .i64 = -3 } },
			    NULL),
	    0);
	assert_int_equal(table_build_publish(b, "ns", "typed", NULL), 0);
	assert_int_equal(table_open(store, "ns", "typed", &t, NULL), 0);
	file(t, TABLE_NPY_MATRIX, &f);
	memcpy(x, body(&f, "{'descr': '<f8'"), sizeof(x));
	assert_true(isnan(x[0]) && x[1] == -3);
	sb_free(&f);
	table_unref(t);
	schema_free(s);
	t = upload_text("origin", small);
	assert_int_equal(table_build_begin(store, table_schema(t), &b, NULL),
			 0);
	assert_int_equal(table_build_share(b, t, NULL), 0);
	assert_int_equal(table_build_publish(b, "ns", "share", NULL), 0);
	table_unref(t);
	assert_int_equal(table_open(store, "ns", "share", &t, NULL), 0);
	file(t, find(t, "id.npy"), &f);
	assert_memory_equal(body(&f, "{'descr': '|S3'"), "a\0\0b\0\0ccc", 9);
	sb_free(&f);
	table_unref(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_column_is_what_its_text_says),
		cmocka_unit_test(a_matrix_has_the_numbers_of_its_columns),
		cmocka_unit_test(what_cannot_be_offered_says_why),
		cmocka_unit_test(a_table_without_rows_has_empty_arrays),
		cmocka_unit_test(threads_that_read_at_once_share_one_pass),
		cmocka_unit_test(any_piece_is_the_same),
		cmocka_unit_test(a_canceled_pass_can_be_made_again),
		cmocka_unit_test(typed_and_shared_rows_are_offered_too),
	};

	return cmocka_run_group_tests(tests, setup, teardown_made);
}
