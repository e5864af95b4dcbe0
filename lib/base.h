/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every file needs: scope-exit cleanup, ownership hand-over, checked
 * arithmetic, and the libc calls that do not compile here.
 */
#ifndef LIB_BASE_H
#define LIB_BASE_H

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))
#define PRINTF(f, a)  __attribute__((format(printf, f, a)))
#define MUST_CHECK    __attribute__((warn_unused_result))

static inline void cleanup_free_(void *p)
{
	free(*(void **)p);
}
static inline void cleanup_close_(const int *fd)
{
	if (*fd >= 0) {
		int keep = errno;

		close(*fd);
		errno = keep;
	}
}
static inline void cleanup_fclose_(FILE **f)
{
	if (*f)
		(void)fclose(*f);
}
static inline void cleanup_closedir_(DIR **d)
{
	if (*d)
		closedir(*d);
}
#define _cleanup_(fn)	   __attribute__((cleanup(fn)))
#define _cleanup_free_	   _cleanup_(cleanup_free_)
#define _cleanup_close_	   _cleanup_(cleanup_close_)
#define _cleanup_fclose_   _cleanup_(cleanup_fclose_)
#define _cleanup_closedir_ _cleanup_(cleanup_closedir_)

/* Hand the value over and forget it, so that the scope's cleanup skips it. */
#define TAKE_PTR(p)                 \
	({                          \
		typeof(p) t_ = (p); \
		(p) = NULL;         \
		t_;                 \
	})
#define TAKE_FD(fd)            \
	({                     \
		int t_ = (fd); \
		(fd) = -1;     \
		t_;            \
	})

/* Memory for programs that cannot go on without it (start-up, tasks). */
void *xmalloc(size_t n);
void *xcalloc(size_t n, size_t size);
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s);
char *xasprintf(const char *fmt, ...) PRINTF(1, 2);

#define strcpy(d, s)  strcpy_is_banned_use_snprintf
#define strcat(d, s)  strcat_is_banned_use_strbuf
#define sprintf(...)  sprintf_is_banned_use_snprintf
#define vsprintf(...) vsprintf_is_banned_use_vsnprintf
#define gmtime(t)     gmtime_is_banned_use_gmtime_r
#define localtime(t)  localtime_is_banned_use_localtime_r
#define strtok(s, d)  strtok_is_banned_use_strtok_r

#endif
