// SPDX-License-Identifier: Apache-2.0
/* Base64 as RFC 4648 has it, section 4: one text for the same bytes.  Not for
 * secrets: what it does depends on the bytes. */
#include <limits.h>

#include "transfer/secure.h"

static const char digits64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
			       "abcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_encode(const void *data, size_t n)
{
	const uint8_t *p = data;
	char *text = n < SIZE_MAX / 2 ? malloc((n + 2) / 3 * 4 + 1) : NULL;
	size_t at = 0;

	if (!text)
		return NULL;
	for (size_t i = 0; i < n; i += 3) {
		size_t left = n - i;
		uint32_t v = (uint32_t)p[i] << 16;

		if (left > 1)
			v |= (uint32_t)p[i + 1] << 8;
		if (left > 2)
			v |= p[i + 2];
		text[at++] = digits64[v >> 18];
		text[at++] = digits64[v >> 12 & 63];
		text[at++] = left > 1 ? digits64[v >> 6 & 63] : '=';
		text[at++] = left > 2 ? digits64[v & 63] : '=';
	}
	text[at] = '\0';
	return text;
}

static int digit64(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

ssize_t base64_decode(const char *text, void *out, size_t max)
{
	size_t len = strlen(text), pad = 0, n;
	uint8_t *p = out;
	uint32_t v = 0;

	if (len % 4)
		return -EINVAL;
	while (pad < 2 && pad < len && text[len - 1 - pad] == '=')
		pad++;
	n = len / 4 * 3 - pad;
	if (n > max || n > SSIZE_MAX)
		return -EINVAL;
	len -= pad;
	for (size_t i = 0; i < len; i++) {
		int d = digit64(text[i]);

		if (d < 0)
			return -EINVAL;
		v = v << 6 | (uint32_t)d;
		if (i % 4 == 1)
			*p++ = (uint8_t)(v >> 4);
		else if (i % 4 == 2)
			*p++ = (uint8_t)(v >> 2);
		else if (i % 4 == 3)
			*p++ = (uint8_t)v;
	}
	/* One text only for the same bytes: what is left over is zero. */
	if ((pad == 1 && (v & 3)) || (pad == 2 && (v & 15)))
		return -EINVAL;
	return (ssize_t)n;
}
