/* SPDX-License-Identifier: Apache-2.0 */
/* A store of tables in a directory of its own, for a program's tests. */
#ifndef TESTS_UNIT_STORE_DIR_H
#define TESTS_UNIT_STORE_DIR_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/fileio.h"
#include "lib/table.h"

static char dir[100];
static struct table_store *store;

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	(void)snprintf(dir, sizeof(dir), "%s/rollfs-test-tables-XXXXXX",
		       tmp ? tmp : "/tmp");
	if (!mkdtemp(dir))
		return -1;
	return table_store_open(dir, &store, NULL);
}

static int teardown(void **state)
{
	(void)state;
	table_store_close(store);
	return remove_tree(dir, NULL);
}

#endif
