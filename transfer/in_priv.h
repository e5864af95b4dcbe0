/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transfers from others, private to site_in.c (what is arriving), in_chunk.c,
 * in_commit.c and receipt.c.
 */
#ifndef TRANSFER_IN_PRIV_H
#define TRANSFER_IN_PRIV_H

#include "transfer/transfer_priv.h"

struct incoming {
	UT_hash_handle hh;
	char tid[65];
	struct object o;
	struct incoming *next_gone; /* of those whose files are to go */
	unsigned refs; /* with s->lock, as all but the last group */
	bool gone, committing;
	int fd;
	struct journal *have;
	uint64_t room, count; /* of the arrays; chunks that are there */
	uint8_t (*digests)[32];
	uint8_t *bits;
	struct chunk_sink *sinks;
	uint64_t quota_left; /* when it was announced */
	uint64_t allocated;  /* bytes; for one whose size is not known */
	uint64_t given;	     /* bytes that count against the quota already */
	int64_t touched_ms;
	/* Waiting for the disk. */
	pthread_mutex_t lock;
	pthread_cond_t synced;
	struct pending *pending;
	bool syncing;
};

/* ---- site_in.c --------------------------------------------------------- */

/* The files of one transfer are made, and removed, by one at a time; taken
 * before s->lock. */
extern pthread_mutex_t in_making;

/* STATE/transfer/partial/<tid><end>; caller frees. */
char *in_path(const struct site *s, const char *tid, const char *end);
/* NULL, or it with a reference more; what is of another party than the one
 * that asks does not exist for it. */
struct incoming *in_find(struct site *s, const char *tid, const char *party);
void in_unref(struct site *s, struct incoming *t); /* NULL allowed */
/* lock held (or nobody else knows it): room for chunk i; chunk i is there or
 * not. */
void in_room(struct incoming *t, uint64_t i);
void in_mark(struct incoming *t, uint64_t i, bool on, const uint8_t digest[32]);
/* lock held: is there memory for what is known of its chunks up to i? */
bool in_may_grow(const struct site *s, const struct incoming *t, uint64_t i);
/* lock held: nobody finds it any more */
void in_forget_locked(struct site *s, struct incoming *t);
/* lock held: chunks that a sender may have under way */
unsigned in_credit(const struct site *s, const char *party);
void in_remove_files(struct site *s, const char *tid);
/* A newer generation of a file is here: what came of older ones is of no use.
 * With in_making held. */
void in_drop_older(struct site *s, const struct object *o);
/* Is there room for more bytes, with the floor that the disk keeps? */
int in_disk_room(struct site *s, const char *allow, uint64_t more,
		 struct err *e) MUST_CHECK;
/* *ret_left: what its quota leaves. */
int in_may_push(struct site *s, const char *allow, const struct object *o,
		uint64_t *ret_left, struct err *e) MUST_CHECK;
int in_within(const char *allow, uint64_t size, uint64_t quota_left,
	      struct err *e) MUST_CHECK;
/* lock held: bytes of files that are arriving from the party: what the disk
 * holds ready; or (open) what has come of those that it does not do it for. */
uint64_t in_arriving(const struct site *s, const char *party, bool open);
/* Everything that can be said before the first byte. */
int in_admit(struct site *s, const struct object *o, struct err *e) MUST_CHECK;
/* The document is of the party that is there, and for us. */
int in_belongs(const struct serve *v, const struct object *o, const char *tid,
	       struct err *e) MUST_CHECK;
void in_audit(const struct serve *v, const char *what, const struct object *o);

/* ---- in_chunk.c -------------------------------------------------------- */

/* At start: the chunks that are in its .have. */
void in_replay(struct site *s, struct incoming *t);

/* No request writes to its file any more, from now on (t->committing keeps new
 * ones away). */
void in_chunks_stop(struct site *s, struct incoming *t);

/* ---- in_commit.c ------------------------------------------------------- */

/* lock held: is a commit of it under way? */
bool in_committing_locked(const char *tid);
/* At start: data without an announcement, or with a receipt. */
void in_finish_data(struct site *s, const char *tid);

/* ---- receipt.c --------------------------------------------------------- */

/* lock held: or NULL; they stay as long as the process. */
struct receipt_rec *receipt_find(const char *tid);
void receipt_put(struct receipt_rec *rec /* taken */);
/* lock held: the newest generation of a party's path, 0 = none */
uint64_t receipt_newest(const char *party, const char *path);
/* At start. */
int receipts_load(struct site *s, const char *party, struct err *e) MUST_CHECK;
/* Signed by us. */
int receipt_make(struct site *s, const struct object *o,
		 struct receipt_doc *ret, struct err *e) MUST_CHECK;
/* A file's receipt: 1 answered, 0 there is none (or it is on its way: 503). */
int receipt_answer(struct serve *v, const char *tid, const char *root);
/* Committed already, or outdated: 1, and answered. */
int in_done_before(struct serve *v, const struct object *o);
void in_answer_committed(struct serve *v, unsigned code,
			 const struct receipt_doc *doc);

#endif
