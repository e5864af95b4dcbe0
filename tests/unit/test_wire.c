// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "components/wire.h"

static void numbers_come_back(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(1000);
	const double v[3] = { 1.5, -0.0, 1e300 };
	double got[3];
	struct err e = { 0 };

	(void)state;
	assert_int_equal(wire_pack(&sb, WIRE_F64, v, 8, 3), 0);
	assert_int_equal(sb.len, WIRE_HEAD + 24);
	assert_int_equal(wire_get_f64(sb.buf, sb.len, got, 3, &e), 0);
	assert_memory_equal(v, got, sizeof(v));
}

static void another_count_is_refused(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(1000);
	const double v[3] = { 1, 2, 3 };
	double got[4];
	struct err e = { 0 };

	(void)state;
	assert_int_equal(wire_pack(&sb, WIRE_F64, v, 8, 3), 0);
	assert_int_equal(wire_get_f64(sb.buf, sb.len, got, 4, &e), -EPROTO);
	assert_int_equal(wire_get_f64(sb.buf, sb.len, got, 2, &e), -EPROTO);
}

static void a_number_that_is_not_finite_is_refused(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(1000);
	const double v[1] = { NAN };
	double got[1];
	struct err e = { 0 };

	(void)state;
	assert_int_equal(wire_pack(&sb, WIRE_F64, v, 8, 1), 0);
	assert_int_equal(wire_get_f64(sb.buf, sb.len, got, 1, &e), -EPROTO);
}

static void every_cut_and_other_type_is_refused(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(1000);
	const uint32_t v[2] = { 7, 8 };
	const uint8_t *p;
	struct err e = { 0 };
	size_t n;

	(void)state;
	assert_int_equal(wire_pack(&sb, WIRE_U32, v, 4, 2), 0);
	for (size_t k = 0; k < sb.len; k++)
		assert_int_equal(
		    wire_open(sb.buf, k, WIRE_U32, 4, 9, &p, &n, &e), -EPROTO);
	assert_int_equal(
	    wire_open(sb.buf, sb.len, WIRE_BYTES, 4, 9, &p, &n, &e), -EPROTO);
	assert_int_equal(wire_open(sb.buf, sb.len, WIRE_U32, 8, 9, &p, &n, &e),
			 -EPROTO);
	assert_int_equal(wire_open(sb.buf, sb.len, WIRE_U32, 4, 9, &p, &n, &e),
			 0);
	assert_int_equal(n, 2);
	assert_int_equal(wire_u32(p + 4), 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_come_back),
		cmocka_unit_test(another_count_is_refused),
		cmocka_unit_test(a_number_that_is_not_finite_is_refused),
		cmocka_unit_test(every_cut_and_other_type_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
