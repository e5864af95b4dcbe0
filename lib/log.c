// SPDX-License-Identifier: Apache-2.0
#include "lib/log.h"

#include <stdarg.h>
#include <time.h>

static int also_fd = -1;
static char also_prefix[300];

int64_t now_unix_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t now_mono_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

char *time_rfc3339(char *buf, size_t n, int64_t unix_ms)
{
	time_t s = (time_t)(unix_ms / 1000);
	struct tm tm;

	gmtime_r(&s, &tm);
	(void)snprintf(buf, n, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
		       tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
		       tm.tm_min, tm.tm_sec, (int)(unix_ms % 1000));
	return buf;
}

void log_also_to(int fd, const char *prefix)
{
	also_fd = fd;
	(void)snprintf(also_prefix, sizeof(also_prefix), "%s", prefix);
}

static bool debug_on(const char *module)
{
	const char *want = getenv("ROLLFS_DEBUG");
	size_t n = strlen(module);

	if (!want)
		return false;
	if (!strcmp(want, "all"))
		return true;
	for (const char *p = want; (p = strstr(p, module)); p += n)
		if ((p == want || p[-1] == ',') && (!p[n] || p[n] == ','))
			return true;
	return false;
}

void log_at(enum log_level level, const char *module, const char *fmt, ...)
{
	static const char *const names[] = { "DEBUG", "INFO", "WARN", "ERROR" };
	char line[2048], when[40];
	int head, n;
	va_list ap;

	if (level == LOG_LEVEL_DEBUG && !debug_on(module))
		return;
	time_rfc3339(when, sizeof(when), now_unix_ms());
	head = snprintf(line, sizeof(line), "%s %s ", when, names[level]);
	n = head +
	    snprintf(line + head, sizeof(line) - (size_t)head, "%s: ", module);
	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	n = MIN(n, (int)sizeof(line) - 2);
	/* One line is one line, whatever the text held. */
	for (int i = head; i < n; i++)
		if ((unsigned char)line[i] < ' ')
			line[i] = ' ';
	line[n++] = '\n';
	/* One write per line, so that lines of several processes do not mix. */
	(void)!write(STDERR_FILENO, line, (size_t)n);
	if (also_fd >= 0) {
		char both[2400];
		int m = snprintf(both, sizeof(both), "%.*s%s %.*s", head, line,
				 also_prefix, n - head, line + head);

		m = MIN(m, (int)sizeof(both) - 1);
		(void)!write(also_fd, both, (size_t)m);
	}
}
