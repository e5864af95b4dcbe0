// SPDX-License-Identifier: Apache-2.0
#include "lib/version.h"

#ifndef ROLLFS_VERSION
#define ROLLFS_VERSION "unknown"
#endif

const char *rollfs_version(void)
{
	return ROLLFS_VERSION;
}
