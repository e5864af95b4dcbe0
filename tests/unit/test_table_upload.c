// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/fileio.h"
#include "lib/json.h"
#include "lib/table.h"

static char dir[] = "/tmp/rollfs-test-upload-XXXXXX";
static struct table_store *store;

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	return table_store_open(dir, &store, NULL);
}

static int teardown(void **state)
{
	(void)state;
	table_store_close(store);
	return remove_tree(dir, NULL);
}

static int upload_n(const char *text, size_t n, const char *options,
		    struct err *e)
{
	json_t *o = options ? json_parse(options, strlen(options), e) : NULL;
	struct table_upload *u = NULL;
	int r = table_upload_begin(store, o, &u, e);

	json_decref(o);
	if (r)
		return r;
	for (size_t at = 0; at < n; at += 5)
		if (table_upload_write(u, text + at, MIN((size_t)5, n - at), e))
			break;
	return table_upload_publish(u, "ns", "t", e);
}

static int upload(const char *text, const char *options, struct err *e)
{
	return upload_n(text, strlen(text), options, e);
}

static void expect(const char *want)
{
	struct table *t = NULL;
	char buf[1000];
	ssize_t n;

	assert_int_equal(table_open(store, "ns", "t", &t, NULL), 0);
	n = table_csv_read(t, 0, buf, sizeof(buf) - 1, NULL);
	assert_true(n >= 0);
	buf[n] = '\0';
	assert_string_equal(buf, want);
	assert_int_equal(table_csv_size(t), n);
	table_unref(t);
}

static void text_stays_as_it_was(void **state)
{
	(void)state;
	assert_int_equal(
	    upload("uid,y,x0\r\n2,1,-0.50\r\n10,,\"a, b\"\r\n", NULL, NULL), 0);
	expect("uid,y,x0\n10,,\"a, b\"\n2,1,-0.50\n");
}

static void a_header_alone_is_a_table_without_rows(void **state)
{
	(void)state;
	assert_int_equal(upload("id,x\n", NULL, NULL), 0);
	expect("id,x\n");
}

static void the_delimiter_can_be_chosen(void **state)
{
	(void)state;
	assert_int_equal(upload("id;x\na;1,5\n",
				"{\"id_delimiter\": \";\", \"head\": 1, "
				"\"partition\": 2}",
				NULL),
			 0);
	expect("id,x\na,\"1,5\"\n");
}

static void bad_options_are_refused(void **state)
{
	static const char *const bad[] = {
		"{\"head\": 0}",
		"{\"heads\": 1}",
		"{\"partition\": 0}",
		"{\"id_delimiter\": \"\\n\"}",
		"{\"id_delimiter\": \"\\\"\"}",
		"{\"id_delimiter\": \"ab\"}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct err e = { 0 };

		assert_int_equal(upload("id,x\n", bad[i], &e), -EINVAL);
		assert_non_null(strstr(e.text, "upload.json"));
	}
}

static void defects_name_line_and_column_and_change_nothing(void **state)
{
	static const struct {
		const char *text, *want;
	} t[] = {
		{ "", "line 1: no header" },
		{ "1,2,3\n", "line 1 column 2: numbers instead" },
		{ "id,,x\n", "line 1 column 2: the column has no name" },
		{ "id,x,x\n", "line 1 column 3: a second column \"x\"" },
		{ "id,id\n", "line 1 column 2: a second column" },
		{ "id,x\na,1\nb\n", "line 3 column 1: 1 fields" },
		{ "id,x\na,1\nb,2,3\n", "line 3 column 3: 3 fields" },
		{ "id,x\na,1\n,2\n", "line 3 column id: the id is empty" },
		{ "id,x\na,1\nb,\xff\n", "line 3 column x: not UTF-8" },
		{ "id,x\na,1\nb,\"2\n", "line 3 column 2: the file ends" },
		{ "id,x\na,1\nb,2\na,3\n",
		  "line 4 column 1: the same id as on line 2" },
		{ "id,x\na,\"1\n2\"\na,3\n",
		  "line 4 column 1: the same id as on line 2" },
	};

	(void)state;
	assert_int_equal(upload("id,x\nkept,1\n", NULL, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct err e = { 0 };

		assert_int_equal(upload(t[i].text, NULL, &e), -EINVAL);
		assert_int_equal(e.no, EINVAL);
		if (strncmp(e.text, t[i].want, strlen(t[i].want)) != 0)
			fail_msg("'%s' is not '%s'", e.text, t[i].want);
		expect("id,x\nkept,1\n");
	}
}

static void sizes_are_limited(void **state)
{
	static char text[(1 << 20) + 100];
	struct err e = { 0 };

	(void)state;
	memset(text, 'k', sizeof(text));
	memcpy(text, "id,x\n", 5);
	assert_int_equal(upload_n(text, sizeof(text), NULL, &e), -EINVAL);
	assert_non_null(strstr(e.text, "line 2: longer than"));
	memcpy(text + 5 + 1025, ",1\n", 3);
	assert_int_equal(upload_n(text, 5 + 1025 + 3, NULL, &e), -EINVAL);
	assert_non_null(strstr(e.text, "longer than 1024"));
}

static void a_null_byte_is_no_text(void **state)
{
	struct err e = { 0 };

	(void)state;
	assert_int_equal(upload_n("id,x\na\0b,1\n", 11, NULL, &e), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_stays_as_it_was),
		cmocka_unit_test(a_header_alone_is_a_table_without_rows),
		cmocka_unit_test(the_delimiter_can_be_chosen),
		cmocka_unit_test(bad_options_are_refused),
		cmocka_unit_test(
		    defects_name_line_and_column_and_change_nothing),
		cmocka_unit_test(sizes_are_limited),
		cmocka_unit_test(a_null_byte_is_no_text),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
