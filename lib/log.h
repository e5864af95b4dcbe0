/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logging for whoever can tell the user: a line on stderr, "RFC 3339 time
 * LEVEL module: text".  Library code stays quiet and returns errors instead.
 * ROLLFS_DEBUG=module,module (or "all") turns debug lines on.
 * Never log secrets, row values or sample ids.
 */
#ifndef LIB_LOG_H
#define LIB_LOG_H

#include "lib/base.h"

enum log_level {
	LOG_LEVEL_DEBUG,
	LOG_LEVEL_INFO,
	LOG_LEVEL_WARN,
	LOG_LEVEL_ERROR
};

void log_at(enum log_level level, const char *module, const char *fmt, ...)
    PRINTF(3, 4);
/* A second descriptor that gets every line too (a job's merged log), or -1. */
void log_also_to(int fd, const char *prefix);
/* RFC 3339 with zone and milliseconds, UTC; buf of at least 32 bytes. */
char *time_rfc3339(char *buf, size_t n, int64_t unix_ms);
int64_t now_unix_ms(void);
int64_t now_mono_ms(void);

#define log_debug(m, ...) log_at(LOG_LEVEL_DEBUG, m, __VA_ARGS__)
#define log_info(m, ...)  log_at(LOG_LEVEL_INFO, m, __VA_ARGS__)
#define log_warn(m, ...)  log_at(LOG_LEVEL_WARN, m, __VA_ARGS__)
#define log_error(m, ...) log_at(LOG_LEVEL_ERROR, m, __VA_ARGS__)

#endif
