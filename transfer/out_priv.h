/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transfers to others, private to site_out.c (what is next) and out_run.c (it
 * is done).
 */
#ifndef TRANSFER_OUT_PRIV_H
#define TRANSFER_OUT_PRIV_H

#include "transfer/transfer_priv.h"

#define CHUNKS_IN_MEMORY 4 /* 16 MiB at the usual size */

/* With s->lock; tid and peer never change, nor do the data of o but its size,
 * deadline, root and sha256. */
struct outgoing {
	UT_hash_handle hh;
	char tid[65];
	struct peer *peer;
	struct object o;
	char *data_path;
	out_done_fn done, withdrawn;
	uint64_t ready; /* bytes that may be read */
	bool sealed, announced, control, dead, ended;
	/* A message that the partner has already, sent again while it is
	 * produced: the same or another, which shows when it is whole. */
	bool repeated;
	unsigned refs, in_flight, refusals, damaged, credit;
	unsigned attempts, lost; /* answers to announcements and "no space";
				  * the peer's lost at the beginning */
	uint64_t room, count, acked_bytes, cursor, resent, turn;
	/* Answers about chunks from forgot_from on that were asked before
	 * the present epoch are about another content. */
	uint64_t epoch, forgot_from;
	uint8_t (*mine)[32], (*remote)[32];
	uint8_t *hashed, *has, *acked, *flying, *sent;
	enum out_state state;
	int64_t next_try, started; /* monotonic ms */
	char *error;
};

enum action { NOTHING, ANNOUNCE, CHUNK, COMMIT, WITHDRAW, EXPIRE };

struct task {
	enum action action;
	struct outgoing *t;
	uint64_t index, len, epoch;
	int64_t started; /* monotonic ms */
};

/* ---- site_out.c, with s->lock ------------------------------------------ */

void out_unref(struct outgoing *t);
/* Nobody finds it any more. */
void out_forget_locked(struct site *s, struct outgoing *t);
/* Room for n chunks. */
void out_room(struct outgoing *t, uint64_t n);
uint64_t out_chunk_bytes(const struct outgoing *t, uint64_t i);
void out_set_acked(struct outgoing *t, uint64_t i, bool on);
/* From chunk i on nothing that is known holds any more. */
void out_forget_chunks(struct outgoing *t, uint64_t from);
void out_set_error(struct outgoing *t, const char *text);
/* How often it was tried, and the way while it waited for that. */
unsigned out_attempts(const struct outgoing *t);

/* ---- out_run.c, without ------------------------------------------------ */

/* Does what was picked. */
void out_run(struct peer *p, const struct task *k);
/* lock held: nothing is under way any more */
void out_buffers_free_locked(void);

#endif
