// SPDX-License-Identifier: Apache-2.0
#include "lib/strbuf.h"

#include <endian.h>
#include <stdarg.h>

void sb_init(struct strbuf *sb, size_t max)
{
	*sb = (struct strbuf)STRBUF_INIT(max);
}

void sb_free(struct strbuf *sb)
{
	if (sb->alloc)
		free(sb->buf);
	sb_init(sb, sb->max);
}

void sb_reset(struct strbuf *sb)
{
	sb->len = 0;
	sb->error = 0;
	if (sb->alloc)
		sb->buf[0] = '\0';
}

static int fail(struct strbuf *sb, int error)
{
	if (!sb->error)
		sb->error = error;
	return error;
}

int sb_reserve(struct strbuf *sb, size_t n)
{
	size_t want, alloc;
	char *p;

	if (n > sb->max || sb->len > sb->max - n)
		return fail(sb, -EMSGSIZE);
	want = sb->len + n + 1;
	if (want <= sb->alloc)
		return 0;
	alloc = MAX(want, MIN(sb->alloc * 2, sb->max + 1));
	alloc = MAX(alloc, MIN((size_t)64, sb->max + 1));
	p = realloc(sb->alloc ? sb->buf : NULL, alloc);
	if (!p)
		return fail(sb, -ENOMEM);
	sb->buf = p;
	sb->alloc = alloc;
	p[sb->len] = '\0';
	return 0;
}

int sb_add(struct strbuf *sb, const void *data, size_t n)
{
	int r = sb_reserve(sb, n);

	if (r)
		return r;
	if (n)
		memcpy(sb->buf + sb->len, data, n);
	sb->len += n;
	sb->buf[sb->len] = '\0';
	return 0;
}

int sb_adds(struct strbuf *sb, const char *s)
{
	return sb_add(sb, s, strlen(s));
}

int sb_addc(struct strbuf *sb, char c)
{
	return sb_add(sb, &c, 1);
}

int sb_addf(struct strbuf *sb, const char *fmt, ...)
{
	va_list ap;
	int n, r;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return fail(sb, -EINVAL);
	r = sb_reserve(sb, (size_t)n);
	if (r)
		return r;
	va_start(ap, fmt);
	(void)vsnprintf(sb->buf + sb->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	sb->len += (size_t)n;
	return 0;
}

char *sb_detach(struct strbuf *sb)
{
	char *s = sb->alloc ? sb->buf : strdup("");

	sb_init(sb, sb->max);
	return s;
}

int sb_add_u32(struct strbuf *sb, uint32_t v)
{
	v = htole32(v);
	return sb_add(sb, &v, sizeof(v));
}

int sb_add_u64(struct strbuf *sb, uint64_t v)
{
	v = htole64(v);
	return sb_add(sb, &v, sizeof(v));
}

int sb_add_f64(struct strbuf *sb, double v)
{
	uint64_t bits;

	memcpy(&bits, &v, sizeof(bits));
	return sb_add_u64(sb, bits);
}
