/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files between parties, private to site_file.c (handing over), file_log.c
 * (what is on disk of it) and file_state.c (what is told of it).
 */
#ifndef TRANSFER_FILE_PRIV_H
#define TRANSFER_FILE_PRIV_H

#include "transfer/transfer_priv.h"

enum file_status { LIVE, COMMITTED, FAILED };

struct sent {
	UT_hash_handle hh;
	char *key; /* party/path */
	char party[16], tid[65];
	char *path, *spool, *error, *receipt;
	uint64_t size, generation, chunk_size;
	enum file_status status;
	int error_no;
	unsigned attempts;
	int64_t queued_ms, committed_ms, deadline_ms;
};

/* Removed or replaced after it was announced; the partner does not know yet. */
struct withdrawn {
	UT_hash_handle hh;
	char tid[65], party[16];
	char *path;
	uint64_t generation;
};

/* Being written: pushed already, not yet handed over. */
struct stream {
	UT_hash_handle hh;
	char *spool; /* absolute */
	char *party, *path, *error;
	char tid[65];
	uint64_t generation, chunk_size;
	int failed;
};

/* Under s->lock like everything else. */
extern struct sent *file_sent;		   /* by party/path */
extern struct stream *file_streams;	   /* by spool file */
extern struct withdrawn *file_withdrawals; /* by tid */
extern uint64_t file_last_generation;

/* ---- site_file.c; with the lock, where it says so ---------------------- */

/* lock held */
struct sent *file_find(const char *party, const char *path);
void sent_free(struct sent *f);
/* lock held: a new record in place of the one before, whose id is in old_tid */
struct sent *file_record(const char *party, const char *path, char old_tid[65]);
/* lock held; nothing, when it is there already */
void file_add_withdrawn(const char *party, const char *path, const char *tid,
			uint64_t generation);
/* *ret borrows path. */
void file_identity(struct site *s, const char *party, const char *path,
		   uint64_t generation, uint64_t chunk_size, uint64_t size,
		   struct object *ret);
char *file_out_path(const struct site *s, const char *party, const char *path);
void file_on_done(struct site *s, const struct object *o, int status,
		  const char *error, unsigned attempts,
		  const struct receipt_doc *receipt);
void file_on_withdrawn(struct site *s, const struct object *o, int status,
		       const char *error, unsigned attempts,
		       const struct receipt_doc *receipt);

/* ---- file_log.c -------------------------------------------------------- */

/* lock held; *ret (NULL allowed, stays): what to sync, and how far */
int file_journal(struct site *s, const char *party, const char *line,
		 struct journal **ret, uint64_t *ret_upto) MUST_CHECK;
/* lock held; a change that may also be learnt again */
void file_news(struct site *s, const struct sent *f);
/* Lines of the journal; the caller frees. */
char *file_sent_line(const struct sent *f);
char *file_removed_line(const char *path, uint64_t generation);

#endif
