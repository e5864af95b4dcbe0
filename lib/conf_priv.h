/* SPDX-License-Identifier: Apache-2.0 */
/* For conf.c, allow.c, their test and its fuzz target. */
#ifndef LIB_CONF_PRIV_H
#define LIB_CONF_PRIV_H

#include <stdarg.h>

#include "lib/conf.h"

/* conf_load on text: check = also that all is there and files can be read. */
int conf_parse(const char *path, const char *text, size_t n, bool check,
	       struct conf **ret, struct err *e) MUST_CHECK;
/* allow_check; the number of the bad line is not in the sentence. */
int allow_defect(const char *rules, unsigned *ret_line,
		 struct err *e) MUST_CHECK;

#endif
