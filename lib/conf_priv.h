/* SPDX-License-Identifier: Apache-2.0 */
/* For conf.c, its test and its fuzz target. */
#ifndef LIB_CONF_PRIV_H
#define LIB_CONF_PRIV_H

#include <stdarg.h>

#include "lib/conf.h"

/* conf_load on text: check = also that all is there and files can be read. */
int conf_parse(const char *path, const char *text, size_t n, bool check,
	       struct conf **ret, struct err *e) MUST_CHECK;

#endif
