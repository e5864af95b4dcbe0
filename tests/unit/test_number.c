// SPDX-License-Identifier: Apache-2.0
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/json.h"

static uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/* By the C library alone. */
static void reference(char buf[40], double v)
{
	for (int digits = fabs(v) < DBL_MIN ? 1 : 15; digits <= 17; digits++) {
		(void)snprintf(buf, 40, "%.*g", digits, v);
		if (strtod(buf, NULL) == v)
			return;
	}
}

static double make(uint64_t *x, unsigned kind)
{
	uint64_t r = next(x);
	double v;

	switch (kind % 9) {
	case 0: /* any bits */
		memcpy(&v, &r, sizeof(v));
		return v;
	case 1: /* few digits */
		return (double)(r % 2000000) / 1e6 - 1;
	case 2: /* all digits, around one */
		return ((double)(r >> 12) - 2.2e15) / 1e14;
	case 3: /* all digits, of any size */
		return ldexp((double)(r >> 11), (int)(r % 90) - 90);
	case 4: /* next to powers of two: the doubles below lie closer */
		return ldexp(1, (int)(r % 100) - 40) *
		       (1 + ((int)(r >> 32 & 3) - 2) * DBL_EPSILON);
	case 5: /* next to powers of ten */
		v = pow(10, (int)(r % 30) - 14);
		return nextafter(v, r >> 40 & 1 ? 0 : 1e300);
	case 6: /* whole numbers, which turn to e+15 somewhere */
		return (double)(int64_t)(r >> (r & 31));
	case 7: /* seventeen digits and less, cut to a double */
		return (double)(r % 100000000000000000u) /
		       pow(10, (int)(r >> 60));
	default: /* quotients */
		return -sqrt((double)(r % 10000000)) / 3;
	}
}

static void numbers_look_as_the_c_library_writes_them(void **state)
{
	uint64_t x = 88172645463325252u;

	(void)state;
	for (unsigned i = 0; i < 400000; i++) {
		double v = make(&x, i);
		char got[NUM_MAX], want[40];
		size_t n;

		if (isnan(v) || isinf(v))
			continue;
		n = num_format(got, v);
		reference(want, v);
		assert_string_equal(got, want);
		assert_int_equal(n, strlen(want));
	}
}

static void edges_of_notation(void **state)
{
	static const struct {
		double v;
		const char *text;
	} t[] = {
		{ 0, "0" },
		{ -0.0, "-0" },
		{ 1, "1" },
		{ -10, "-10" },
		{ 0.1, "0.1" },
		{ 0.0001, "0.0001" },
		{ 0.00001, "1e-05" },
		{ 1.5e-11, "1.5e-11" },
		{ 9.5e-12, "9.5e-12" },
		{ 100000, "100000" },
		{ 99999999999999.9, "99999999999999.9" },
		{ 999999999999999, "999999999999999" },
		{ 1e15, "1e+15" },
		{ 1234567890123456, "1234567890123456" },
		{ 0.30000000000000004, "0.30000000000000004" },
		{ 1 / 3.0, "0.3333333333333333" },
		{ 2 / 3.0, "0.6666666666666666" },
		{ 9007199254740993, "9007199254740992" },
		{ 5e-324, "5e-324" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		char got[NUM_MAX], want[40];

		reference(want, t[i].v);
		num_format(got, t[i].v);
		assert_string_equal(got, want);

		assert_string_equal(got, t[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_look_as_the_c_library_writes_them),
		cmocka_unit_test(edges_of_notation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
