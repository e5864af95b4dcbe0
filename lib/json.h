/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON by jansson, with what it lacks: errors that name line and column,
 * sorted output in which doubles are the shortest text that reads back, and
 * getters that fail with the path.
 */
#ifndef LIB_JSON_H
#define LIB_JSON_H

#include <jansson.h>

#include "lib/err.h"
#include "lib/strbuf.h"

/* One value; duplicate keys and trailing text are refused (EINVAL). */
json_t *json_parse(const char *text, size_t n, struct err *e);
json_t *json_read_file(const char *path, struct err *e);
/* Appends the value: sorted keys; indent 2 and a final newline if pretty,
 * one line without blanks otherwise.  Non-finite reals become null. */
int json_write(struct strbuf *sb, const json_t *v, bool pretty);
char *json_text(const json_t *v, bool pretty); /* caller frees */
int json_write_file(const char *path, const json_t *v, mode_t mode,
		    bool durable, struct err *e) MUST_CHECK;

/* Typed members of an object: 0, or -EINVAL with "<key>: expected string". */
int json_get_str(const json_t *o, const char *key, const char **ret,
		 struct err *e) MUST_CHECK;
int json_get_int(const json_t *o, const char *key, int64_t min, int64_t max,
		 int64_t *ret, struct err *e) MUST_CHECK;
/* The same with a default when the member is absent or null. */
const char *json_str_or(const json_t *o, const char *key, const char *def);
int64_t json_int_or(const json_t *o, const char *key, int64_t def);
double json_num_or(const json_t *o, const char *key, double def);
bool json_bool_or(const json_t *o, const char *key, bool def);

/* Shortest decimal text that reads back to the same double; "nan" and "inf"
 * never appear in JSON.  buf of at least 32 bytes; returns the length. */
#define NUM_MAX 32
size_t num_format(char *buf, double v);
/* Whole text as a number (blanks around allowed); false if it is not. */
bool num_parse(const char *s, size_t n, double *ret);

#endif
