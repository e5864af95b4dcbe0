// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "scheduler/sched_priv.h"

static void defects_are_all_named_and_defaults_filled(void **s)
{
	_cleanup_strbuf_ struct strbuf d = STRBUF_INIT(4096);
	json_t *specs = json_loads(
	    "[{\"name\":\"alpha\",\"type\":\"number\",\"min\":0},"
	    "{\"name\":\"max_iter\",\"type\":\"int\",\"default\":30},"
	    "{\"name\":\"penalty\",\"type\":\"enum\",\"choices\":[\"L2\"]}]",
	    0, NULL);
	json_t *given = json_loads("{\"alpha\":-1,\"max_itr\":3,"
				   "\"penalty\":\"L9\"}",
				   0, NULL);
	json_t *p = params_check(specs, given, "conf#/x", &d);

	(void)s;
	assert_string_equal(d.buf,
			    "conf#/x/alpha: -1 is too small, it must be at "
			    "least 0\n"
			    "conf#/x/max_itr: no such parameter (did you mean "
			    "max_iter?)\n"
			    "conf#/x/penalty: L9 is none of: L2\n");
	assert_int_equal(json_integer_value(json_object_get(p, "max_iter")),
			 30);
	json_decref(p);
	json_decref(given);
	json_decref(specs);
}

int main(void)
{
	const struct CMUnitTest t[] = {
		cmocka_unit_test(defects_are_all_named_and_defaults_filled),
	};

	return cmocka_run_group_tests(t, NULL, NULL);
}
