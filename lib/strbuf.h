/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growing byte buffer that is born with its maximum.  buf is always
 * NUL-terminated (a static "" before the first byte).  A failed append
 * (-EMSGSIZE beyond the maximum, -ENOMEM) leaves the content as it was and is
 * remembered in .error, so a chain of appends may be checked once at its end.
 */
#ifndef LIB_STRBUF_H
#define LIB_STRBUF_H

#include "lib/base.h"

struct strbuf {
	char *buf;
	size_t len;
	size_t alloc; /* 0 while buf is the static "" */
	size_t max;   /* largest len */
	int error;    /* first failure, negative errno */
};

void sb_init(struct strbuf *sb, size_t max);
void sb_free(struct strbuf *sb);  /* back to the state after sb_init */
void sb_reset(struct strbuf *sb); /* len = 0, memory kept */
int sb_add(struct strbuf *sb, const void *data, size_t n);
int sb_adds(struct strbuf *sb, const char *s);
int sb_addc(struct strbuf *sb, char c);
int sb_addf(struct strbuf *sb, const char *fmt, ...) PRINTF(2, 3);
/* Room for n more bytes behind len (not counted into len). */
int sb_reserve(struct strbuf *sb, size_t n);
/* The text, now the caller's to free(); the buffer is as after sb_init. */
char *sb_detach(struct strbuf *sb);
/* Integers and doubles little endian, as every format of this project has. */
int sb_add_u32(struct strbuf *sb, uint32_t v);
int sb_add_u64(struct strbuf *sb, uint64_t v);
int sb_add_f64(struct strbuf *sb, double v);

#define STRBUF_INIT(m)                        \
	{                                     \
		.buf = (char *)"", .max = (m) \
	}
#define _cleanup_strbuf_ _cleanup_(sb_free)

#endif
