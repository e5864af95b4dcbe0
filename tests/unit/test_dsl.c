// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "scheduler/sched_priv.h"

#define DSL  "{\"components\": {\"a\": {\"module\": \"Reader\"}}}"
#define CONF "{\"role\": {\"guest\": [9999]}, \"x\": true}"

static int state(const char *t)
{
	struct err e = { 0 };

	return sched_text_state(t, strlen(t), &e);
}

static void two_documents_in_either_order(void **s)
{
	(void)s;
	assert_int_equal(state(DSL "\n" CONF "\n"), 1);
	assert_int_equal(state(CONF DSL), 1);
}

static void one_object_holds_both(void **s)
{
	(void)s;
	assert_int_equal(state("{\"dsl\":" DSL ",\"conf\":" CONF "}"), 1);
	assert_int_equal(
	    state("{\"job_dsl\":" DSL ",\"job_runtime_conf\":" CONF "}"), 1);
}

static void two_objects_may_wrap_one_each(void **s)
{
	(void)s;
	assert_int_equal(state("{\"dsl\":" DSL "}"), 0);
	assert_int_equal(state("{\"dsl\":" DSL "} {\"conf\":" CONF "}"), 1);
	assert_int_equal(state("{\"dsl\":" DSL "} " CONF), -EINVAL);
	assert_int_equal(state("{\"dsl\":1,\"conf\":{}}"), -EINVAL);
}

#define PREDICT                                                \
	"{\"role\": {\"guest\": [9999]}, \"job_parameters\": " \
	"{\"common\": {\"job_type\": \"predict\"}}}"

static void a_predict_job_is_its_conf(void **s)
{
	(void)s;
	assert_int_equal(state(PREDICT "\n"), 1);
	assert_int_equal(state("{\"conf\":" PREDICT "}"), 1);
	assert_int_equal(state(PREDICT DSL), 1);
	assert_int_equal(state(DSL PREDICT), 1);
	assert_int_equal(state(PREDICT "{\"comp"), 0);
	assert_int_equal(state(PREDICT PREDICT), -EINVAL);
	assert_int_equal(state(CONF), 0);
	for (size_t n = 0; n < sizeof(PREDICT) - 1; n++) {
		struct err e = { 0 };

		assert_int_equal(sched_text_state(PREDICT, n, &e), 0);
	}
}

static void every_prefix_is_unfinished(void **s)
{
	static const char t[] =
	    "{\"role\": {\"\u6570\u636e\": [-1.5e+3, null, \"\\u6570"
	    "\\ud83d\\ude00\\n\", false]}}\n" DSL;
	struct err e = { 0 };

	(void)s;
	for (size_t n = 0; n < sizeof(t) - 1; n++)
		assert_int_equal(sched_text_state(t, n, &e), 0);
}

static void text_behind_and_duplicate_keys_are_refused(void **s)
{
	struct err e = { 0 };
	static const char t[] = DSL "\n" CONF "\n  x";

	(void)s;
	assert_int_equal(sched_text_state(t, sizeof(t) - 1, &e), -EINVAL);
	assert_non_null(strstr(e.text, "line 3 column 3:"));
	assert_int_equal(state("{\"role\": 1, \"role\": 2}"), -EINVAL);
	assert_int_equal(state("[1]"), -EINVAL);
	assert_int_equal(state(DSL DSL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest t[] = {
		cmocka_unit_test(two_documents_in_either_order),
		cmocka_unit_test(one_object_holds_both),
		cmocka_unit_test(two_objects_may_wrap_one_each),
		cmocka_unit_test(a_predict_job_is_its_conf),
		cmocka_unit_test(every_prefix_is_unfinished),
		cmocka_unit_test(text_behind_and_duplicate_keys_are_refused),
	};

	return cmocka_run_group_tests(t, NULL, NULL);
}
