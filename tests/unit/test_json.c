// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>

#include "lib/json.h"

static void numbers_read_back_exactly(void **state)
{
	uint64_t x = 88172645463325252ull;
	char buf[NUM_MAX];

	(void)state;
	for (int i = 0; i < 100000; i++) {
		double v, back;
		size_t n;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(&v, &x, sizeof(v));
		if (!isfinite(v))
			continue;
		n = num_format(buf, v);
		assert_true(num_parse(buf, n, &back));
		assert_true(back == v);
	}
}

static void numbers_are_short(void **state)
{
	static const struct {
		double v;
		const char *text;
	} t[] = { { 0.1, "0.1" },
		  { 1, "1" },
		  { -2.5, "-2.5" },
		  { 0.1 + 0.2, "0.30000000000000004" },
		  { 5e-324, "5e-324" },
		  { 1e6, "1000000" },
		  { DBL_MAX, "1.7976931348623157e+308" } };
	char buf[NUM_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		num_format(buf, t[i].v);
		assert_string_equal(buf, t[i].text);
	}
}

static void num_parse_refuses_what_is_no_number(void **state)
{
	static const char *const bad[] = {
		"", " ", "1x", "0x10", "one", "1,5"
	};
	double v;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(num_parse(bad[i], strlen(bad[i]), &v));
	assert_true(num_parse(" -1e3 ", 6, &v));
	assert_true(v == -1000);
}

static void duplicate_keys_are_refused_with_line_and_column(void **state)
{
	static const char text[] = "{\"a\": 1,\n \"a\": 2}";
	struct err e = { 0 };

	(void)state;
	assert_null(json_parse(text, strlen(text), &e));
	assert_int_equal(e.no, EINVAL);
	assert_non_null(strstr(e.text, "line 2"));
}

static void written_sorted_and_indented(void **state)
{
	json_t *v = json_pack("{s:[i,f],s:s}", "b", 1, 2.0, "a", "x\n");
	char *s = json_text(v, true);

	(void)state;
	assert_string_equal(s, "{\n  \"a\": \"x\\n\",\n  \"b\": [\n    1,\n"
			       "    2.0\n  ]\n}\n");
	free(s);
	s = json_text(v, false);
	assert_string_equal(s, "{\"a\":\"x\\n\",\"b\":[1,2.0]}");
	free(s);
	json_decref(v);
}

static void getters_name_the_key(void **state)
{
	json_t *v = json_pack("{s:i}", "n", 7);
	struct err e = { 0 };
	const char *s;
	int64_t n;

	(void)state;
	assert_int_equal(json_get_str(v, "n", &s, &e), -EINVAL);
	assert_string_equal(e.text, "n: expected a string");
	assert_int_equal(json_get_int(v, "n", 8, 9, &n, &e), -EINVAL);
	assert_int_equal(json_get_int(v, "n", 1, 9, &n, &e), 0);
	assert_int_equal(n, 7);
	json_decref(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_read_back_exactly),
		cmocka_unit_test(numbers_are_short),
		cmocka_unit_test(num_parse_refuses_what_is_no_number),
		cmocka_unit_test(
		    duplicate_keys_are_refused_with_line_and_column),
		cmocka_unit_test(written_sorted_and_indented),
		cmocka_unit_test(getters_name_the_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
