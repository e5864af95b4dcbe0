/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_TEMP_DIR_H
#define TESTS_UNIT_TEMP_DIR_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* Makes a directory below TMPDIR, which tests/run has in memory; its path. */
static inline bool temp_dir(char *ret, size_t size, const char *name)
{
	const char *at = getenv("TMPDIR");

	(void)snprintf(ret, size, "%s/rollfs-%s-XXXXXX", at ? at : "/tmp",
		       name);
	return mkdtemp(ret);
}

#endif
