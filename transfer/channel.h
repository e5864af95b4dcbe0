/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The task's side of rollsite: messages to the same component at the other
 * parties.  A message is a byte string with FATE's identity: session (task id
 * and attempt), name, tag, source role and party, destination role and party.
 * Sending the same identity twice with other content is an error; receiving
 * blocks until the message is there.
 *
 * The payload's SHA-256, taken over identity and payload by the sending
 * task, is checked by the receiving task: a byte changed anywhere on the way
 * is -EBADMSG.  When rollsite dies the channel reconnects (up to lease
 * seconds) and repeats the request; nothing is lost or delivered twice.
 * One channel may be used by several threads.
 */
#ifndef TRANSFER_CHANNEL_H
#define TRANSFER_CHANNEL_H

#include "lib/err.h"
#include "lib/strbuf.h"

#define CHANNEL_MESSAGE_MAX (1ull << 33)

struct channel;

struct channel_peer {
	const char *role;
	const char *party;
};

struct channel_options {
	const char *socket;  /* rollsite's socket in the state directory */
	const char *session; /* "<job>_<component>_<attempt>" */
	struct channel_peer self;
	unsigned lease_s;
};

int channel_open(const struct channel_options *o, struct channel **ret,
		 struct err *e) MUST_CHECK;
void channel_close(struct channel *c);
/* Returns when rollsite has taken the message over (it survives rollsite's
 * death).  name and tag: 1..200 bytes without control characters or '/'. */
int channel_send(struct channel *c, struct channel_peer to, const char *name,
		 const char *tag, const void *data, size_t n,
		 struct err *e) MUST_CHECK;
/*
 * A message that is sent while it is produced: what has been written is on its
 * way already, and it is there for the receiver when the stream is closed.
 * open does not talk to rollsite, so what it refuses shows later.  A stream is
 * for one thread at a time; it goes on when rollsite is started anew.  After a
 * failed write only abort is of use.
 */
struct channel_stream;
int channel_stream_open(struct channel *c, struct channel_peer to,
			const char *name, const char *tag,
			struct channel_stream **ret, struct err *e) MUST_CHECK;
int channel_stream_write(struct channel_stream *s, const void *data, size_t n,
			 struct err *e) MUST_CHECK;
/* Returns when rollsite has taken it over; frees in every case. */
int channel_stream_close(struct channel_stream *s, struct err *e) MUST_CHECK;
/* Nothing of it is delivered; frees.  NULL is allowed. */
void channel_stream_abort(struct channel_stream *s);
/* Blocks; the caller frees *ret_data (malloc; mapped files are read into
 * memory).  max bounds what a peer can make us allocate. */
int channel_recv(struct channel *c, struct channel_peer from, const char *name,
		 const char *tag, size_t max, void **ret_data, size_t *ret_n,
		 struct err *e) MUST_CHECK;
/* The same without its bytes in memory: *ret_n of them from *ret_offset on in
 * the file *ret_fd, which the caller closes.  Their digest has been checked. */
int channel_recv_file(struct channel *c, struct channel_peer from,
		      const char *name, const char *tag, uint64_t max,
		      int *ret_fd, uint64_t *ret_offset, uint64_t *ret_n,
		      struct err *e) MUST_CHECK;
/* What a thread waits for now ("host-10000 host_forward 3.0"), for `wait`
 * reasons; "" when it waits for nothing. */
void channel_waiting(struct channel *c, char *buf, size_t n);
/* Bytes and messages so far, both ways. */
struct channel_stats {
	uint64_t sent, received, bytes_sent, bytes_received;
};
struct channel_stats channel_stats(struct channel *c);

#endif
