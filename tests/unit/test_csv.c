// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/csv.h"
#include "lib/table.h"

/* Each row as [field|field] with its line in front. */
static int note(void *arg, uint64_t line, const char *text,
		const struct csv_field *f, size_t n, struct err *e)
{
	struct strbuf *sb = arg;

	(void)e;
	sb_addf(sb, "%d[", (int)line);
	for (size_t i = 0; i < n; i++) {
		if (i)
			sb_addc(sb, '|');
		sb_add(sb, text + f[i].at, f[i].len);
	}
	return sb_addc(sb, ']');
}

static int parse(const char *text, size_t piece, struct strbuf *out,
		 struct err *e)
{
	struct csv c;
	int r = 0;

	sb_reset(out);
	csv_init(&c, ',', 1000, 10, note, out);
	for (size_t at = 0, n = strlen(text); at < n && !r; at += piece)
		r = csv_feed(&c, text + at, MIN(piece, n - at), e);
	if (!r)
		r = csv_end(&c, e);
	csv_free(&c);
	return r;
}

static void rows_are_the_same_in_any_pieces(void **state)
{
	static const struct {
		const char *in, *out;
	} t[] = {
		{ "a,b\n1,2\n", "1[a|b]2[1|2]" },
		{ "a,b\r\n1,2\r\n", "1[a|b]2[1|2]" },
		{ "a,b\n1,2", "1[a|b]2[1|2]" },
		{ "\xef\xbb\xbf"
		  "a,b\n1,\n",
		  "1[a|b]2[1|]" },
		{ "a\n\"x,\"\"y\"\"\nz\"\nb\n", "1[a]2[x,\"y\"\nz]4[b]" },
		{ "\n\na,\n,\n", "3[a|]4[|]" },
		{ "", "" },
		{ "a, b \n", "1[a| b ]" },
	};
	struct strbuf out = STRBUF_INIT(10000);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		for (size_t piece = 1; piece < 20; piece++) {
			assert_int_equal(parse(t[i].in, piece, &out, NULL), 0);
			assert_string_equal(out.buf, t[i].out);
		}
	sb_free(&out);
}

static void defects_name_line_and_column(void **state)
{
	static const struct {
		const char *in, *text;
	} t[] = {
		{ "a,b\n1,\"2",
		  "line 2 column 2: the file ends inside quotes" },
		{ "a,b\n1,2\"\n",
		  "line 2 column 2: a quote inside an unquoted field" },
		{ "a\n\"x\"y\n", "line 2 column 1: text behind the closing "
				 "quote" },
		{ "a\rb\n", "line 1 column 1: a carriage return inside the "
			    "line" },
		{ "1,2,3,4,5,6,7,8,9,10,11\n", "line 1: more than 10 columns" },
	};
	struct strbuf out = STRBUF_INIT(10000);
	struct err e;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		assert_int_equal(parse(t[i].in, 3, &out, &e), -EINVAL);
		assert_string_equal(e.text, t[i].text);
	}
	sb_free(&out);
}

static void a_row_has_a_largest_size(void **state)
{
	struct strbuf out = STRBUF_INIT(10000);
	char big[1200];
	struct err e;

	(void)state;
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	assert_int_equal(parse(big, 100, &out, &e), -EINVAL);
	assert_string_equal(e.text, "line 1: longer than 1000 bytes");
	sb_free(&out);
}

static void quotes_only_where_they_must_be(void **state)
{
	static const struct {
		const char *in, *out;
	} t[] = { { "plain", "plain" },	  { "", "" },
		  { "a,b", "\"a,b\"" },	  { "a\"b", "\"a\"\"b\"" },
		  { "a\nb", "\"a\nb\"" }, { "a\rb", "\"a\rb\"" },
		  { " a", "\" a\"" },	  { "a ", "\"a \"" },
		  { "a b;c", "a b;c" } };
	struct strbuf sb = STRBUF_INIT(100);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		sb_reset(&sb);
		csv_add_field(&sb, t[i].in, strlen(t[i].in));
		assert_string_equal(sb.buf, t[i].out);
	}
	sb_free(&sb);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_are_the_same_in_any_pieces),
		cmocka_unit_test(defects_name_line_and_column),
		cmocka_unit_test(a_row_has_a_largest_size),
		cmocka_unit_test(quotes_only_where_they_must_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
