// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "lib/table_stats.h"

static double number(const char *s)
{
	double v = 0;

	assert_true(text_number(s, strlen(s), &v));
	return v;
}

static const char *holds(const char *const *cells)
{
	struct text_stats st = { 0 };

	for (; *cells; cells++)
		text_stats_add(&st, *cells, strlen(*cells));
	return st.not_number ? "text" : st.not_integer ? "numbers" : "integers";
}
#define HOLDS(...) holds((const char *const[]){ __VA_ARGS__, NULL })

static void numbers_are_read_as_strtod_reads_them(void **state)
{
	unsigned long long x = 88172645463325252ull;
	char text[80];

	(void)state;
	for (int i = 0; i < 200000; i++) {
		double want;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		switch (i % 6) {
		case 0:
			(void)snprintf(text, sizeof(text), "%s%llu.%06llu",
				       x & 1 ? "-" : "", x >> 40,
				       (x >> 8) % 1000000);
			break;
		case 1:
			(void)snprintf(text, sizeof(text), "%.*e",
				       (int)(x % 20), (double)(x >> 3));
			break;
		case 2:
			(void)snprintf(text, sizeof(text), "+%llue%d", x >> 20,
				       (int)(x % 90) - 45);
			break;
		case 3:
			(void)snprintf(text, sizeof(text), "%.17g",
				       (double)(x >> 4) / 1e15);
			break;
		case 4: /* half way between two doubles, or beside it */
			(void)snprintf(text, sizeof(text), "%llu.%u",
				       (x >> 12 & ~1ull) | 1ull << 51,
				       (unsigned)(x % 3 + 24));
			break;
		default:
			(void)snprintf(text, sizeof(text), "%llu", x);
		}
		want = strtod(text, NULL);
		assert_memory_equal(&want, (double[]){ number(text) }, 8);
	}
	assert_true(signbit(number("-0")));
	assert_true(number(".5") == 0.5 && number("5.") == 5);
}

/* Each field alone, then in a line that is a heap block of its size. */
static void a_field_of_a_line_is_the_number_that_it_is_alone(void **state)
{
	static const char *const fields[] = {
		"0",	     "-1.5",	   "0.123456", "1234567.1234567",
		"12345678",  "-7",	   "",	       "NA",
		".5",	     "5.",	   "+3.25",    "1e5",
		"1.5e-300",  "inf",	   "-0",       "123456789012345678901",
		"0.1234567", "0.12345678", "1.",       "0.34558419206478602",
	};
	const size_t n = ARRAY_SIZE(fields);

	(void)state;
	for (size_t i = 0; i < n * n; i++) {
		char *line = xasprintf("%s,%s", fields[i / n], fields[i % n]);
		const char *end = line + strlen(line), *p = line;

		for (int k = 0; k < 2; k++) {
			double want = number(fields[k ? i % n : i / n]), v = 0;

			p = text_field_number(p, end, &v);
			assert_non_null(p);
			assert_true(k ? p == end : *p == ',');
			assert_memory_equal(&want, &v, sizeof(v));
			p++;
		}
		free(line);
	}
}

static void a_field_that_is_no_number_is_refused(void **state)
{
	static const char *const bad[] = {
		"\"1\",2,3,4,5,6,7,8,9,10", "1x,2,3,4,5,6,7,8,9,10,11",
		"x,1.5,2.5,3.5,4.5,5.5",    "-,1.5,2.5,3.5,4.5,5.5,6",
		"1.2.3,1.5,2.5,3.5,4.5",    "1:5,2,3,4,5,6,7,8,9,10,11",
		"1/5,2,3,4,5,6,7,8,9,10",   "1.\xb2,2,3,4,5,6,7,8,9,10",
	};
	double v;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_null(
		    text_field_number(bad[i], bad[i] + strlen(bad[i]), &v));
}

static void what_pandas_takes_for_missing_is_missing(void **state)
{
	(void)state;
	assert_true(isnan(number("")));
	assert_true(isnan(number("NA")) && isnan(number("null")));
	assert_true(number("-inf") == -INFINITY);
	assert_true(number("Infinity") == INFINITY);
}

static void what_is_no_number_is_refused(void **state)
{
	static const char *const bad[] = { "x",	  "1x",	 " 1",	"1 ",	"0x10",
					   "1e",  "e5",	 ".",	"-",	"1e+",
					   "1,5", "1_0", "--1", "infx", "nA" };
	char wide[400];
	double v;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (text_number(bad[i], strlen(bad[i]), &v))
			fail_msg("%s", bad[i]);
	memset(wide, '1', sizeof(wide));
	assert_false(text_number(wide, sizeof(wide), &v));
}

static void a_column_holds_what_all_its_cells_are(void **state)
{
	(void)state;
	assert_string_equal(HOLDS("1", "-7", "007"), "integers");
	assert_string_equal(HOLDS("1", ""), "numbers");
	assert_string_equal(HOLDS("1", "2.0"), "numbers");
	assert_string_equal(HOLDS("1", "1234567890123456789"), "numbers");
	assert_string_equal(HOLDS("NA", "inf", "1e9"), "numbers");
	assert_string_equal(HOLDS("1", "one", "2"), "text");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_read_as_strtod_reads_them),
		cmocka_unit_test(
		    a_field_of_a_line_is_the_number_that_it_is_alone),
		cmocka_unit_test(a_field_that_is_no_number_is_refused),
		cmocka_unit_test(what_pandas_takes_for_missing_is_missing),
		cmocka_unit_test(what_is_no_number_is_refused),
		cmocka_unit_test(a_column_holds_what_all_its_cells_are),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
