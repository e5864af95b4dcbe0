// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/harness.h"

extern const struct component component_secure_add_example;

static void add(struct ctx p[2], int guest_n, int host_n, const char *flip)
{
	memset(p, 0, 2 * sizeof(*p));
	bus.hosts = 1;
	p[0].role = "guest";
	p[1].role = "host";
	p[0].params = json_pack("{s:i}", "data_num", guest_n);
	p[1].params = json_pack("{s:i}", "data_num", host_n);
	p[1].flip = flip;
	parties_run(p, 2, &component_secure_add_example);
}

static void the_guest_learns_the_sum(void **state)
{
	struct ctx p[2];

	(void)state;
	add(p, 1000, 1000, NULL);
	assert_int_equal(p[0].status, 0);
	assert_int_equal(p[1].status, 0);
	assert_float_equal(
	    json_number_value(json_object_get(p[0].summary, "sum")), 2000, 0);
	assert_null(p[1].summary);
	parties_end(p, 2);
}

static void a_changed_share_is_found(void **state)
{
	struct ctx p[2];

	(void)state;
	add(p, 10, 10, "host_share");
	assert_int_equal(p[0].status, -EBADMSG);
	parties_end(p, 2);
}

static void another_count_is_refused(void **state)
{
	struct ctx p[2];

	(void)state;
	add(p, 10, 11, NULL);
	assert_true(p[0].status < 0);
	assert_true(p[1].status < 0);
	parties_end(p, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_guest_learns_the_sum),
		cmocka_unit_test(a_changed_share_is_found),
		cmocka_unit_test(another_count_is_refused),
	};

	return cmocka_run_group_tests(tests, harness_setup, harness_teardown);
}
