// SPDX-License-Identifier: Apache-2.0
#include "lib/json.h"
#include "tests/unit/store_dir.h"

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

static void a_file_with_another_delimiter_is_not_one_of_ids_alone(void **state)
{
	static const struct {
		const char *text, *options, *want;
	} t[] = {
		{ "id;y;x\na;1;2\n", NULL, "\"id_delimiter\": \";\"" },
		{ "id\ty\tx\na\t1\t2\n", NULL, "\"id_delimiter\": \"\\t\"" },
		{ "id|y|x\na|1|2\n", "{\"partition\": 1}", "\"|\"" },
		{ "a;1;2\nb;1;2\n", "{\"head\": 0}", "\";\"" },
		{ "id;y;x\n1;;\n2;;\n3;;\n4;;\n5;;\n6;;\n7;;\n8;;\n9;;\n10\n",
		  NULL, "line 1 column 1: no comma, but 2 times \";\"" },
		{ "id;y\na;1\n", NULL, "no comma, but 1 time \";\"" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct err e = { 0 };

		assert_int_equal(upload(t[i].text, t[i].options, &e), -EINVAL);
		if (!strstr(e.text, t[i].want))
			fail_msg("%s", e.text);
	}
}

static void a_table_of_ids_alone_may_have_any_name(void **state)
{
	static const struct {
		const char *text, *options;
	} t[] = {
		{ "id;y;x\na;1;2\n", "{\"id_delimiter\": \",\"}" },
		{ "id;y;x\na;1;2\nb;1\n", NULL },
		{ "id;y\na\n", NULL },
		{ "id;y;x\n", NULL },
		{ "id\na\n", NULL },
		{ "id\na;b;c\n", NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		assert_int_equal(upload(t[i].text, t[i].options, NULL), 0);
		expect(t[i].text);
	}
}

static void wrong_flags_say_what_is_right(void **state)
{
	struct err e = { 0 };

	(void)state;
	assert_int_equal(upload("id,x\n", "{\"head\": \"no\"}", &e), -EINVAL);
	assert_non_null(strstr(e.text, "#/head: expected 1, 0, true or false"));
	assert_null(json_parse("null", 4, &e));
	assert_string_equal(e.text, "line 1 column 4: expected an object, "
				    "{...} near 'null'");
}

static void bad_options_are_refused(void **state)
{
	static const char *const bad[] = {
		"{\"head\": 2}",
		"{\"head\": \"0\"}",
		"{\"heads\": 1}",
		"[]",
		"{\"extend_sid\": 7}",
		"{\"auto_increasing_sid\": true}",
		"{\"meta\": []}",
		"{\"meta\": {\"input_formats\": \"tag\"}}",
		"{\"meta\": {\"input_format\": \"csv\"}}",
		"{\"meta\": {\"input_format\": \"\"}}",
		"{\"meta\": {\"delimiter\": \"\"}}",
		"{\"meta\": {\"delimiter\": \"ab\"}}",
		"{\"meta\": {\"data_type\": \"bool\"}}",
		"{\"meta\": {\"exclusive_data_type\": {\"x\": 1}}}",
		"{\"meta\": {\"id_list\": [\"a\", 1]}}",
		"{\"meta\": {\"id_range\": -1}}",
		"{\"meta\": {\"with_label\": \"yes\"}}",
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
		{ ",x\n0,1\n", "line 1 column 1: the column of the ids has no "
			       "name (an index? in pandas: to_csv(" },
		{ "id;x;y\n1;\"a\";2\n",
		  "line 2 column 1: a quote inside an unquoted field; if \";\" "
		  "is between the fields, write \"id_delimiter\": \";\" into" },
		{ "id;x;y\n1;2,5;3\n",
		  "line 2 column 2: 2 fields, the header has 1; if \";\" is" },
		{ "\"id\"\t\"x\"\n1\t2\n",
		  "line 1 column 1: text behind the closing quote; if \"\\t\" "
		  "is" },
		{ "id,x,x\n", "line 1 column 3: a second column \"x\"" },
		{ "id,id\n", "line 1 column 2: a second column" },
		{ "id,x,y,z,y,x\n", "line 1 column 5: a second column \"y\"" },
		{ "x,id,y,x\n", "line 1 column 4: a second column \"x\"" },
		{ "id,x\na,1\nb\n", "line 3 column 1: 1 fields" },
		{ "id,x\na,1\nb,2,3\n", "line 3 column 3: 3 fields" },
		{ "id,x\na,1\n,2\n", "line 3 column id: the id is empty" },
		{ "id,x\na,1\nb,\xff\n",
		  "line 3 column x: not UTF-8 text (iconv" },
		{ "id,x\ra,1\r",
		  "line 1 column 2: a carriage return inside the "
		  "line (do all lines end so?" },
		{ "{\"id\": 1, \"x\": 2}\n",
		  "line 1: this is no CSV but JSON" },
		{ "id,x\na,1\na,2\n",
		  "line 3 column 1: the same id as on line 2" },
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

static void other_formats_are_named(void **state)
{
	static const struct {
		const char *bytes;
		size_t n;
		const char *want;
	} t[] = {
#define BYTES(s) s, sizeof(s) - 1
		{ BYTES("\x1f\x8b\x08\0\r\0\r"), "zcat" },
		{ BYTES("BZh91AY&SY\r\r"), "bzcat" },
		{ BYTES("\xfd"
			"7zXZ\0\0"),
		  "xzcat" },
		{ BYTES("PK\x03\x04\x14\0"), "spreadsheet" },
		{ BYTES("\xff\xfei\0d\0"), "UTF-16" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct err e = { 0 };

		assert_int_equal(upload_n(t[i].bytes, t[i].n, NULL, &e),
				 -EINVAL);
		assert_non_null(strstr(e.text, t[i].want));
	}
	/* Names of columns that begin alike. */
	assert_int_equal(upload("BZh,PAR1\na,1\n", NULL, NULL), 0);
	assert_int_equal(upload("PAR1,x\na,1\n", NULL, NULL), 0);
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

/* The extra of the schema as text; caller frees. */
static char *extra(void)
{
	struct table *t = NULL;
	char *text;

	assert_int_equal(table_open(store, "ns", "t", &t, NULL), 0);
	text = table_schema(t)->extra ? json_text(table_schema(t)->extra, false)
				      : xstrdup("none");
	table_unref(t);
	return text;
}

static void a_file_without_header_gets_names(void **state)
{
	(void)state;
	assert_int_equal(upload("a,1,2\nb,3,4\n", "{\"head\": 0}", NULL), 0);
	expect("id,x0,x1\na,1,2\nb,3,4\n");
	assert_int_equal(
	    upload("a,m,1,2\n",
		   "{\"head\": 0, \"meta\": {\"with_label\": true, "
		   "\"label_name\": \"out\", \"with_match_id\": true}}",
		   NULL),
	    0);
	expect("id,match_id,out,x0\na,m,1,2\n");
	assert_int_equal(
	    upload("a,m,n,1,2\n",
		   "{\"head\": 0, \"meta\": {\"with_match_id\": true, "
		   "\"id_list\": [\"mail\", \"tel\"]}}",
		   NULL),
	    0);
	expect("id,mail,tel,x0,x1\na,m,n,1,2\n");
}

static void made_names_are_no_others(void **state)
{
	static const struct {
		const char *text, *options, *want;
	} t[] = {
		{ "a,m,1\n",
		  "{\"head\": 0, \"meta\": {\"with_match_id\": true, "
		  "\"id_list\": [\"x0\"]}}",
		  "line 1 column 3: a second column \"x0\"" },
		{ "x,y,extend_sid\n", "{\"extend_sid\": true}",
		  "line 1 column 3: a second column \"extend_sid\"" },
		{ "value\n", "{\"meta\": {\"input_format\": \"tag\"}}",
		  "line 1 column 2: a second column \"value\"" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct err e = { 0 };

		assert_int_equal(upload(t[i].text, t[i].options, &e), -EINVAL);
		assert_string_equal(e.text, t[i].want);
	}
}

static void rows_of_any_length_stay_one_value(void **state)
{
	_cleanup_free_ char *text = NULL;

	(void)state;
	assert_int_equal(
	    upload("a,1,0:1,3:2\r\nb\n\nc,0 2:\"7\"\n",
		   "{\"head\": 0, \"with_meta\": true, \"meta\": "
		   "{\"input_format\": \"svmlight\", \"id_range\": null}}",
		   NULL),
	    0);
	expect("id,value\na,\"1,0:1,3:2\"\nb,\nc,\"0 2:\"\"7\"\"\"\n");
	text = extra();
	assert_string_equal(text, "{\"meta\":{\"input_format\":\"svmlight\"}}");
}

static void a_header_of_values_names_the_ids(void **state)
{
	(void)state;
	assert_int_equal(
	    upload("uid value\na 1 0:1\n",
		   "{\"id_delimiter\": \" \", \"meta\": {\"input_format\": "
		   "\"sparse\"}}",
		   NULL),
	    0);
	expect("uid,value\na,1 0:1\n");
}

static void lines_of_unequal_length_say_what_to_write(void **state)
{
	struct err e = { 0 };

	(void)state;
	assert_int_equal(upload("a,1,2\nb,3\n", "{\"head\": 0}", &e), -EINVAL);
	assert_non_null(strstr(e.text, "line 2 column 2: 2 fields, the first "
				       "line has 3"));
	assert_non_null(strstr(e.text, "{\"input_format\": \"sparse\"}"));
}

static void ids_can_be_made(void **state)
{
	struct table *t = NULL;
	struct table_iter *it;
	const struct cell *cells;
	const char *key;
	char first[100];
	size_t len;

	(void)state;
	assert_int_equal(
	    upload("mail,x\nq,1\nq,2\n", "{\"extend_sid\": true}", NULL), 0);
	assert_int_equal(table_open(store, "ns", "t", &t, NULL), 0);
	assert_string_equal(table_schema(t)->id, "extend_sid");
	assert_string_equal(table_schema(t)->columns[0].name, "mail");
	assert_int_equal(table_scan(t, NULL, 0, &it, NULL), 0);
	assert_int_equal(table_next(it, &key, &len, &cells, NULL), 1);
	assert_int_equal(len, 44);
	memcpy(first, key, len);
	assert_memory_equal(cells[0].str, "q", 1);
	assert_memory_equal(cells[1].str, "1", 1);
	assert_int_equal(table_next(it, &key, &len, &cells, NULL), 1);
	assert_memory_equal(first, key, 32);
	assert_memory_not_equal(first, key, 44);
	assert_memory_equal(cells[1].str, "2", 1); /* in the file's order */
	table_scan_end(it);
	table_unref(t);
}

static void ids_can_be_counted(void **state)
{
	(void)state;
	assert_int_equal(upload("mail,x\nq,1\nq,2\n",
				"{\"extend_sid\": true, "
				"\"auto_increasing_sid\": true}",
				NULL),
			 0);
	expect("extend_sid,mail,x\n0,q,1\n1,q,2\n");
	assert_int_equal(
	    upload("1 0:1\n0 2:4\n",
		   "{\"head\": 0, \"extend_sid\": 1, "
		   "\"auto_increasing_sid\": 1, \"meta\": "
		   "{\"input_format\": \"sparse\", \"delimiter\": \" \"}}",
		   NULL),
	    0);
	expect("extend_sid,value\n0,1 0:1\n1,0 2:4\n");
}

static void fields_may_have_another_delimiter_than_the_id(void **state)
{
	_cleanup_free_ char *text = NULL;

	(void)state;
	assert_int_equal(upload("id,a;b\nk,1;\"2;3\"\n",
				"{\"meta\": {\"delimiter\": \";\"}}", NULL),
			 0);
	expect("id,a,b\nk,1,2;3\n");
	text = extra();
	assert_string_equal(
	    text, "{\"delimiter\":\";\",\"meta\":{\"delimiter\":\";\"}}");
}

static void what_fate_says_elsewhere_is_accepted(void **state)
{
	_cleanup_free_ char *text = NULL;

	(void)state;
	assert_int_equal(
	    upload("id,x\na,1\n",
		   "{\"file\": \"f.csv\", \"head\": 1, \"partition\": 8, "
		   "\"namespace\": \"n\", \"table_name\": \"t\", \"drop\": "
		   "1, \"use_local_data\": 0, \"storage_engine\": "
		   "\"EGGROLL\", \"backend\": 0, \"work_mode\": 1, "
		   "\"with_meta\": false, \"meta\": {\"input_format\": "
		   "\"tag\"}}",
		   NULL),
	    0);
	expect("id,x\na,1\n");
	text = extra();
	assert_string_equal(text, "none"); /* with_meta is false */
}

/* As cp -r and tar make one: data.csv as it reads, beside its upload.json. */
static void a_copy_beside_its_options_is_the_same_table(void **state)
{
	static const struct {
		const char *options, *text;
	} t[] = {
		{ "{\"head\": 0}", "a,1,2\nb,3,4\n" },
		{ "{\"head\": 0, \"meta\": {\"input_format\": \"tag\"}}",
		  "a,r,s\nb,\"t\",r\nc\n" },
		{ "{\"head\": 0, \"id_delimiter\": \" \", \"meta\": "
		  "{\"input_format\": \"sparse\"}}",
		  "a 1 0:3\nb 0 1:3\n" },
		{ "{\"extend_sid\": true}", "m,x\nq,1\nq,2\n" },
		{ "{\"extend_sid\": true, \"head\": 0}", "q,1\nq,2\n" },
		{ "{\"extend_sid\": true, \"head\": 0, \"meta\": "
		  "{\"input_format\": \"sparse\"}}",
		  "1 0:3\n0 1:3,4:5\n" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct table *made = NULL;
		char buf[1000];
		ssize_t n;

		assert_int_equal(upload(t[i].text, t[i].options, NULL), 0);
		assert_int_equal(table_open(store, "ns", "t", &made, NULL), 0);
		n = table_csv_read(made, 0, buf, sizeof(buf) - 1, NULL);
		table_unref(made);
		assert_true(n > 0);
		buf[n] = '\0';
		assert_int_equal(upload(buf, t[i].options, NULL), 0);
		expect(buf);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_stays_as_it_was),
		cmocka_unit_test(a_header_alone_is_a_table_without_rows),
		cmocka_unit_test(the_delimiter_can_be_chosen),
		cmocka_unit_test(
		    a_file_with_another_delimiter_is_not_one_of_ids_alone),
		cmocka_unit_test(a_table_of_ids_alone_may_have_any_name),
		cmocka_unit_test(wrong_flags_say_what_is_right),
		cmocka_unit_test(bad_options_are_refused),
		cmocka_unit_test(
		    defects_name_line_and_column_and_change_nothing),
		cmocka_unit_test(other_formats_are_named),
		cmocka_unit_test(sizes_are_limited),
		cmocka_unit_test(a_null_byte_is_no_text),
		cmocka_unit_test(a_file_without_header_gets_names),
		cmocka_unit_test(made_names_are_no_others),
		cmocka_unit_test(rows_of_any_length_stay_one_value),
		cmocka_unit_test(a_header_of_values_names_the_ids),
		cmocka_unit_test(lines_of_unequal_length_say_what_to_write),
		cmocka_unit_test(ids_can_be_made),
		cmocka_unit_test(ids_can_be_counted),
		cmocka_unit_test(fields_may_have_another_delimiter_than_the_id),
		cmocka_unit_test(what_fate_says_elsewhere_is_accepted),
		cmocka_unit_test(a_copy_beside_its_options_is_the_same_table),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
