/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What rollfs tells rollsite of files that are being written: at most one
 * piece of news of each spool file waits, the newer takes in the older.
 */
#ifndef TRANSFER_NEWS_H
#define TRANSFER_NEWS_H

#include <jansson.h>

#include "lib/err.h"

struct news_queue;
/* Asks rollsite (consumes the head); false: it did not hear it. Whatever it
 * answers, the put brings everything. */
typedef bool (*news_tell)(void *arg, json_t *head);
struct news_queue *news_open(news_tell fn, void *arg);
/* What waits is still told for a second; then nothing is. */
void news_stop(struct news_queue *q);
/* Waits for a telling that is under way. */
void news_free(struct news_queue *q);

/* Never blocks; path NULL: the file will not come. */
void news_add(struct news_queue *q, const char *party, const char *path,
	      const char *spool, uint64_t bytes, bool rewritten);
/* The put is the last word on a spool file: news of it that waits is told
 * before if it must be, and none comes after. */
int news_end(struct news_queue *q, const char *spool, struct err *e) MUST_CHECK;

#endif
