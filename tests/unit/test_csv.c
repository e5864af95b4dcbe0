// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/csv.h"
#include "lib/table_priv.h"

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
			    "line (do all lines end so? tr '\\r' '\\n')" },
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

/* ---- the short way of simple rows ---------------------------------------- */

struct rows {
	struct csv c;
	struct strbuf *out;
	size_t fields; /* 0: no simple rows */
	size_t simple; /* there were so many */
};

static int take_simple(void *arg, uint64_t line, const char *text, size_t n,
		       size_t first, struct err *e)
{
	struct rows *x = arg;
	struct csv_field f[8];
	size_t k = 0, from = 0;

	for (size_t i = 0; i <= n; i++) {
		if (i < n && text[i] != x->c.delimiter)
			continue;
		f[k++] = (struct csv_field){ from, i - from };
		/* It goes into data.csv as it is. */
		assert_int_equal(csv_field_size(text + from, i - from),
				 i - from);
		assert_true(utf8_valid(text + from, i - from));
		assert_null(memchr(text + from, 0, i - from));
		from = i + 1;
	}
	assert_int_equal(k, x->fields);
	assert_int_equal(first, f[0].len);
	x->simple++;
	return note(x->out, line, text, f, k, e);
}

static int take_row(void *arg, uint64_t line, const char *text,
		    const struct csv_field *f, size_t n, struct err *e)
{
	struct rows *x = arg;

	if (x->fields && !x->c.simple) {
		x->c.simple = take_simple;
		x->c.simple_fields = x->fields = n;
	}
	return note(x->out, line, text, f, n, e);
}

/* What comes of a text that is fed in pieces of at most so many bytes. */
static void outcome(const char *text, size_t n, char delimiter, size_t piece,
		    struct rows *x)
{
	struct err e = { .text = "" };
	int r = 0;

	sb_reset(x->out);
	csv_init(&x->c, delimiter, 1000, 8, take_row, x);
	for (size_t at = 0; at < n && !r; at += piece)
		r = csv_feed(&x->c, text + at, MIN(piece, n - at), &e);
	if (!r)
		r = csv_end(&x->c, &e);
	sb_addf(x->out, " %d %s", r, r ? e.text : "");
	csv_free(&x->c);
}

static unsigned next(unsigned *x, unsigned n)
{
	*x = *x * 1103515245u + 12345u;
	return (*x >> 8) % n;
}

/* Rows of three fields, mostly plain, of any length and content. */
static void make_text(unsigned *x, char delimiter, struct strbuf *ret)
{
	static const char *const bits[] = { " ",    "\t", ",",	 "\"",
					    "\r",   ";",  "\n",	 "\0",
					    "\xc3", "é",  "\"\"" };
	unsigned odd = 20 << next(x, 8); /* one in so many is odd */

	sb_reset(ret);
	for (unsigned row = 0; row < 6; row++)
		for (unsigned field = 0; field < 3; field++) {
			unsigned n = next(x, 60);

			for (unsigned i = 0; i < n; i++) {
				unsigned k = next(x, ARRAY_SIZE(bits));

				if (next(x, odd))
					sb_addc(ret, (char)('a' + k));
				else
					sb_add(ret, bits[k],
					       MAX(strlen(bits[k]), 1u));
			}
			sb_addc(ret, field < 2 ? delimiter : '\n');
		}
}

static void same_outcome(const struct strbuf *text, char delimiter,
			 size_t piece, struct rows *one, struct rows *two)
{
	two->fields = 1;
	outcome(text->buf, text->len, delimiter, text->len + 1, one);
	outcome(text->buf, text->len, delimiter, piece, two);
	if (strcmp(one->out->buf, two->out->buf) != 0)
		fail_msg("\"%s\": \"%s\" and \"%s\"", text->buf, one->out->buf,
			 two->out->buf);
	assert_int_equal(one->out->len, two->out->len);
}

/* Bytes are looked at 64 at a time: what is odd is so on any of the places. */
static void odd_bytes_are_seen_at_any_place(void **state)
{
	static const char *const odd[] = {
		"b, c\nd,e", "b ,c\nd,e", "b,\tc", "b,c ",   "b,c\t\nd,e",
		"b,\"c\"",   "b\r,c",	  "b,c\r", "b,\r\n", " b,c",
		"é,c",	     "b,\xc3",	  "b;,c",  "b,c,d",  "b\n",
	};
	struct strbuf slow = STRBUF_INIT(100000), fast = STRBUF_INIT(100000);
	struct strbuf text = STRBUF_INIT(10000);
	struct rows one = { .out = &slow }, two = { .out = &fast };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(odd); i++)
		for (unsigned at = 0; at < 300; at++) {
			sb_reset(&text);
			sb_adds(&text, "h,h\n");
			for (unsigned k = 0; k < at; k++)
				sb_addc(&text, k % 100 == 98   ? ','
					       : k % 100 == 99 ? '\n'
							       : 'x');
			sb_addf(&text, "%s\n1,2\n", odd[i]);
			same_outcome(&text, ',', text.len, &one, &two);
		}
	sb_free(&slow);
	sb_free(&fast);
	sb_free(&text);
}

static void simple_rows_are_those_of_the_reader(void **state)
{
	struct strbuf slow = STRBUF_INIT(100000), fast = STRBUF_INIT(100000);
	struct strbuf text = STRBUF_INIT(10000);
	struct rows one = { .out = &slow }, two = { .out = &fast };
	unsigned x = 1;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		const char delimiter = ",;\t"[i % 3];

		make_text(&x, delimiter, &text);
		same_outcome(&text, delimiter,
			     i % 2 ? text.len + 1 : 1 + next(&x, 200), &one,
			     &two);
	}
	assert_true(two.simple > 20000); /* half of them take it */
	sb_free(&slow);
	sb_free(&fast);
	sb_free(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_are_the_same_in_any_pieces),
		cmocka_unit_test(defects_name_line_and_column),
		cmocka_unit_test(a_row_has_a_largest_size),
		cmocka_unit_test(quotes_only_where_they_must_be),
		cmocka_unit_test(odd_bytes_are_seen_at_any_place),
		cmocka_unit_test(simple_rows_are_those_of_the_reader),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
