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

#include "tests/unit/temp_dir.h"

static char dir[100];
static struct table_store *store;

static int setup(void **state)
{
	(void)state;
	if (!temp_dir(dir, sizeof(dir), "test-tables"))
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
