// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "components/ctx_priv.h"
#include "lib/fileio.h"
#include "lib/json.h"

static char dir[] = "/tmp/rollfs-checkpoints-XXXXXX";

static void the_newest_two_thousand_are_kept(void **state)
{
	struct ctx c = { .dir = dir, .task = json_object() };
	_cleanup_free_ char *all = xasprintf("%s/checkpoints", dir);
	_cleanup_free_ unsigned *list = NULL;
	json_t *param = json_object();
	struct err e = { 0 };
	size_t n = 0;

	(void)state;
	assert_int_equal(mkdir_p(all, 0700, &e), 0);
	for (unsigned i = 0; i < 2003; i++) { /* of every third iteration */
		_cleanup_free_ char *path = xasprintf("%s/%u.json", all, 3 * i);

		assert_int_equal(file_replace(path, "{}", 2, 0600, false, &e),
				 0);
	}
	assert_int_equal(
	    ctx_put_checkpoint(&c, 3 * 2003, param, param, NULL, &e), 0);
	assert_int_equal(ctx_checkpoints(&c, &list, &n, &e), 0);
	assert_int_equal(n, 2000);
	assert_int_equal(list[0], 3 * 4);
	assert_int_equal(list[n - 1], 3 * 2003);
	json_decref(param);
	json_decref(c.task);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_newest_two_thousand_are_kept),
	};
	int r;

	if (!mkdtemp(dir))
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	(void)remove_tree(dir, NULL);
	return r;
}
