// SPDX-License-Identifier: Apache-2.0
// Curves of a task that is tried again.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "lib/fileio.h"
#include "lib/json.h"

#include "components/ctx_priv.h"

static char dir[64];

static int setup(void **state)
{
	(void)state;
	(void)snprintf(dir, sizeof(dir), "/tmp/rollfs-curve-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return remove_tree(dir, NULL);
}

/* An attempt that writes y = 10 x for x = from .. to - 1. */
static void attempt(unsigned from, unsigned to)
{
	struct ctx c = { .dir = dir, .metrics = json_object() };
	struct err e = { 0 };

	for (unsigned x = from; x < to; x++)
		assert_int_equal(ctx_metric(&c, "train", "loss", x, 10 * x, &e),
				 0);
	json_decref(c.metrics);
}

static void assert_curve(const char *expected)
{
	_cleanup_free_ char *path = xasprintf("%s/metrics/train/loss.tsv", dir);
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	char text[256];
	size_t n;

	assert_non_null(f);
	n = fread(text, 1, sizeof(text) - 1, f);
	text[n] = '\0';
	assert_string_equal(text, expected);
}

static void test_goes_on(void **state)
{
	(void)state;
	attempt(0, 5); /* dies after 4; its newest checkpoint is 2 */
	attempt(3, 4);
	assert_curve("0\t0\n1\t10\n2\t20\n3\t30\n");
}

static void test_begins_anew(void **state)
{
	(void)state;
	attempt(0, 5);
	attempt(0, 2);
	assert_curve("0\t0\n1\t10\n");
}

static void test_half_a_line(void **state)
{
	_cleanup_free_ char *path = xasprintf("%s/metrics/train/loss.tsv", dir);
	FILE *f;

	(void)state;
	attempt(0, 2);
	f = fopen(path, "ae");
	assert_non_null(f);
	assert_true(fputs("2", f) >= 0);
	assert_int_equal(fclose(f), 0);
	attempt(3, 4);
	assert_curve("0\t0\n1\t10\n3\t30\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(test_begins_anew, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_half_a_line, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
