// SPDX-License-Identifier: Apache-2.0
#include "lib/err.h"

#include <stdarg.h>

int err_set(struct err *e, int no, const char *fmt, ...)
{
	va_list ap;

	if (e) {
		e->no = no;
		va_start(ap, fmt);
		(void)vsnprintf(e->text, sizeof(e->text), fmt, ap);
		va_end(ap);
	}
	return -no;
}

int err_sys(struct err *e, int no, const char *fmt, ...)
{
	char reason[128];
	va_list ap;
	size_t n;

	if (!e)
		return -no;
	e->no = no;
	va_start(ap, fmt);
	(void)vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	n = strlen(e->text);
	(void)snprintf(e->text + n, sizeof(e->text) - n, ": %s",
		       strerror_r(no, reason, sizeof(reason)));
	return -no;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
	char context[sizeof(e->text)];
	char old[sizeof(e->text)];
	va_list ap;

	if (!e)
		return -EIO;
	memcpy(old, e->text, sizeof(old));
	va_start(ap, fmt);
	(void)vsnprintf(context, sizeof(context), fmt, ap);
	va_end(ap);
	(void)snprintf(e->text, sizeof(e->text), "%.*s: %.*s",
		       (int)(sizeof(e->text) / 2), context,
		       (int)(sizeof(e->text) / 2 - 4), old);
	return e->no ? -e->no : -EIO;
}
