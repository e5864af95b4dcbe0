/* SPDX-License-Identifier: Apache-2.0 */
/* Private to rollsite's side of its socket: a connection, and its requests. */
#ifndef TRANSFER_UNIX_PRIV_H
#define TRANSFER_UNIX_PRIV_H

#include "transfer/transfer_priv.h"

/*
 * A connection.  The thread that listens to the socket reads its requests, one
 * at a time: until one has been answered (busy), what it needs belongs to
 * whoever works on it, and that one holds a reference.
 */
struct client {
	struct parked parked; /* first: a request that waits */
	struct client *next;  /* waits for a thread */
	struct site *s;
	int fd;
	unsigned refs; /* atomic */
	bool busy;     /* atomic */
	bool more;     /* atomic: something came while it was busy */
	bool watcher;  /* a rollfs that lives as long as this connection */
	/* The request: what came, and its parts in it. */
	struct strbuf in;
	const char *head, *body;
	size_t head_n, body_n;
	int passed; /* descriptor that came with it, or -1 */
	json_t *q;  /* the head, when it has been parsed */
	bool sends; /* of a small message: what it asks for */
	struct message_head h;
	/* The answer of a request that has a thread. */
	json_t *answer;
	struct strbuf out;
	int out_fd;
};

/* site_unix.c: the answer of a request without a thread; lets go of c. */
void client_answer(struct client *c, const char *head, size_t head_n,
		   const void *body, size_t body_n, int pass_fd);
void client_unref(struct client *c);

/* site_small.c: false: it needs a thread. */
bool client_small(struct client *c);

/* site_ops.c: a request that may take its time; fills the answer. */
int client_op(struct client *c, struct err *e) MUST_CHECK;
int client_may_send(struct client *c, const struct key *k,
		    struct err *e) MUST_CHECK;
int client_head(const json_t *q, struct message_head *h,
		struct err *e) MUST_CHECK;
int client_taken(struct client *c, const json_t *q, struct err *e) MUST_CHECK;

#endif
