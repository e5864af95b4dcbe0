// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/err.h"
#include "lib/strbuf.h"
#include "lib/version.h"

static void strbuf_refuses_more_than_its_maximum(void **state)
{
	struct strbuf sb = STRBUF_INIT(5);

	(void)state;
	assert_int_equal(sb_adds(&sb, "abc"), 0);
	assert_int_equal(sb_adds(&sb, "def"), -EMSGSIZE);
	assert_string_equal(sb.buf, "abc");
	assert_int_equal(sb_adds(&sb, "de"), 0);
	assert_int_equal(sb.error, -EMSGSIZE);
	sb_free(&sb);
	assert_string_equal(sb.buf, "");
}

static void strbuf_numbers_are_little_endian(void **state)
{
	struct strbuf sb = STRBUF_INIT(100);

	(void)state;
	sb_add_u32(&sb, 0x01020304);
	sb_add_f64(&sb, 1.0);
	assert_memory_equal(sb.buf, "\4\3\2\1\0\0\0\0\0\0\xf0\x3f", 12);
	sb_free(&sb);
}

static void err_wrap_puts_context_in_front(void **state)
{
	struct err e = { 0 };

	(void)state;
	assert_int_equal(err_set(&e, ENOENT, "no such %s", "table"), -ENOENT);
	assert_int_equal(err_wrap(&e, "intersect_%d", 0), -ENOENT);
	assert_string_equal(e.text, "intersect_0: no such table");
	assert_int_equal(err_set(NULL, EIO, "nobody listens"), -EIO);
}

static void err_wrap_of_long_texts_stays_inside(void **state)
{
	struct err e = { 0 };
	char big[3000];

	(void)state;
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	err_set(&e, EIO, "%s", big);
	err_wrap(&e, "%s", big);
	assert_true(strlen(e.text) < sizeof(e.text));
	assert_non_null(strstr(e.text, "x: x"));
}

static void version_is_not_empty(void **state)
{
	(void)state;
	assert_true(strlen(rollfs_version()) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strbuf_refuses_more_than_its_maximum),
		cmocka_unit_test(strbuf_numbers_are_little_endian),
		cmocka_unit_test(err_wrap_puts_context_in_front),
		cmocka_unit_test(err_wrap_of_long_texts_stays_inside),
		cmocka_unit_test(version_is_not_empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
