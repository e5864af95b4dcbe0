/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many small records of one size with bounded memory: in the order in which
 * they were added, or sorted by their first bytes.  What does not fit goes to
 * a file without a name in a directory, which is gone with the process.
 */
#ifndef COMPONENTS_SPOOL_H
#define COMPONENTS_SPOOL_H

#include "lib/err.h"

struct spool;

/* key: bytes at the front of a record that order it (memcmp), which are best
 * uniformly random; 0 keeps the order of adding.  About `memory` bytes are
 * kept in memory, and while sorting as many again.  dir is copied. */
struct spool *spool_new(const char *dir, size_t width, size_t key,
			size_t memory);
void spool_free(struct spool *s);
void spool_freep(struct spool **s);
/* n records back to back. Not after the first read. */
int spool_add(struct spool *s, const void *records, size_t n,
	      struct err *e) MUST_CHECK;
uint64_t spool_count(const struct spool *s);
bool spool_spilled(const struct spool *s);
/* The next read starts at the first record again. */
int spool_rewind(struct spool *s, struct err *e) MUST_CHECK;
/* 1 = *ret is the next record, until the next call; 0 = no more; or -errno. */
int spool_next(struct spool *s, const void **ret, struct err *e) MUST_CHECK;
/* Up to n records back to back into out; *ret_n of them, fewer at the end. */
int spool_read(struct spool *s, void *out, size_t n, size_t *ret_n,
	       struct err *e) MUST_CHECK;

#endif
