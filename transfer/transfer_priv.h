/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to transfer/: the identity of a message, requests on rollsite's
 * socket, and the parts of the rollsite process.
 *
 * Socket protocol: one request is answered before the next one is sent on the
 * same connection; who needs several at once opens several.  Request head
 * {"op": ...}; answer head {"status": 0 | -errno, "error": "sentence", ...}.
 *
 *   op              request                          answer
 *   hello           -                                party, child, version
 *   send            key, sha256, size; payload as    -
 *                   body, or as a passed file
 *   recv            key (waits)                      sha256, size; body, or
 *                                                    file and offset
 *   drop            key                              -
 *   rpc             party, verb, timeout_ms; body    body
 *   serve           (waits for a call)               call, party, verb; body
 *   answer          call, status, error; body        -
 *   job_open        job, roles                       -
 *   job_close       job                              -
 *   session_close   session                          -
 *   file_put        party, path, spool               -
 *   file_remove     party, path                      -
 *   file_wait       party, path (waits)              status of the file
 *   file_state      party, path                      state {...}
 *   party           party                            ping, version, transfers,
 *                                                    certificate (texts)
 *   ping            party                            -
 *   parties_reload  -                                -
 *   inbox           (waits for a change)             party, path
 *   metrics         -                                text
 *   shutdown        - (one that rollfs started)      -
 */
#ifndef TRANSFER_TRANSFER_PRIV_H
#define TRANSFER_TRANSFER_PRIV_H

#include <curl/curl.h>
#include <jansson.h>
#include <pthread.h>

#include "lib/conf.h"
#include "lib/err.h"
#include "lib/fileio.h"
#include "lib/strbuf.h"

#define PROTOCOL_VERSION 1

/* ---- key.c: identities; pure functions over outside bytes -------------- */

enum {
	KEY_SESSION,
	KEY_NAME,
	KEY_TAG,
	KEY_SRC_ROLE,
	KEY_SRC_PARTY,
	KEY_DST_ROLE,
	KEY_DST_PARTY,
	KEY_FIELDS
};
#define KEY_FIELD_MAX 255
#define HEAD_MAX      4096 /* of a message on the wire or in a file */

struct key {
	char f[KEY_FIELDS][KEY_FIELD_MAX + 1];
};

/* From an array of seven strings; every field checked. */
int key_from_json(const json_t *a, struct key *ret, struct err *e) MUST_CHECK;
json_t *key_to_json(const struct key *k);
/* 1..255 bytes, no control character, no '/', no quote or backslash, not
 * "." or ".."; the tag may be empty. */
int key_check(const struct key *k, struct err *e) MUST_CHECK;
/* The canonical text: JSON array without white space; caller frees. */
char *key_text(const struct key *k);
/* tid = hex SHA-256 of "rollfs-transfer-v1\n" and the text. */
void key_tid(const struct key *k, char ret[65]);
/* hex SHA-256 of key text, LF, payload: what the tasks check end to end. */
void key_digest(const struct key *k, const void *data, size_t n, char ret[65]);
/* The job of a session: digits before the first '_'. */
bool session_job(const char *session, char *ret, size_t n);
bool job_id_valid(const char *s);

/* A message: u32 little-endian length of the head, the head ({"key", "sha256",
 * "size"}), the payload. */
struct message_head {
	struct key key;
	char tid[65];
	char sha256[65];
	uint64_t size;
};
int head_write(struct strbuf *sb, const struct message_head *h) MUST_CHECK;
/* n bytes of which the head must be the beginning; *ret_used = 4 + its
 * length; -EAGAIN when more bytes are needed. */
int head_parse(const void *data, size_t n, struct message_head *ret,
	       size_t *ret_used, struct err *e) MUST_CHECK;

/* ---- journal.c: small messages in one file ------------------------------ */

#define JOURNAL_MESSAGE_MAX (64u << 10)
struct journal {
	int fd; /* -1: none */
	uint64_t len;
};
/* A message (its payload in data), or the mark (h NULL) that tid is done. */
typedef void (*journal_fn)(void *arg, const struct message_head *h,
			   const char *tid, const char *data);
/* Calls fn for every record that is there. */
int journal_open(struct journal *j, const char *path, journal_fn fn, void *arg,
		 struct err *e) MUST_CHECK;
void journal_close(struct journal *j);
/* Survive the death of the process, not a power cut. */
int journal_add(struct journal *j, const struct message_head *h,
		const void *data) MUST_CHECK;
int journal_mark(struct journal *j, const char *tid) MUST_CHECK;
void journal_clear(struct journal *j); /* nothing in it matters any more */

/* A path from a peer or a user: 1..64 components of 1..255 bytes, no ".",
 * "..", NUL or control character, UTF-8 or not. */
bool path_valid(const char *path);
char *percent_encode(const char *s);
char *percent_decode(const char *s); /* NULL when malformed */
void hex_encode(const uint8_t *in, size_t n, char *out);
bool hex64_valid(const char *s);

/* ---- link.c: requests on the socket ----------------------------------- */

struct link {
	int fd;
	struct strbuf head, body;
};
int link_open(struct link *l, const char *socket, struct err *e) MUST_CHECK;
void link_close(struct link *l);
/* -EPIPE: rollsite has gone.  Otherwise 0 or the answer's status with its
 * sentence; *ret is the answer's head (caller owns), l->body its body. */
int link_request(struct link *l, const json_t *head, const void *body, size_t n,
		 int pass_fd, json_t **ret, int *ret_fd,
		 struct err *e) MUST_CHECK;

/* ---- rollsite --------------------------------------------------------- */

struct site;
struct message;

struct inbox_event { /* a file of a partner arrived */
	struct inbox_event *next;
	uint64_t seq;
	char *party, *path;
};

/* The state of the process; one lock for all of it, held shortly. */
struct site {
	struct conf *conf;
	bool child; /* started by rollfs */
	int stop;   /* eventfd: written to end the process */
	pthread_mutex_t lock;
	pthread_cond_t changed; /* broadcast when anything waited for moves */

	struct message *in; /* uthash by tid */
	struct site_job *jobs;
	struct peer *peers;
	struct session_error *errors;

	struct call *calls; /* from partners, waiting for rollfs */
	uint64_t next_call;
	unsigned servers; /* rollfs's connections that wait for a call */

	struct inbox_event *inbox;
	uint64_t inbox_seq;
	struct {
		uint64_t in, out, bytes_in, bytes_out, retries, refused, calls;
	} count;
};

/* site.c */
int site_open(struct site *s, struct conf *c, bool child,
	      struct err *e) MUST_CHECK;
/* A verified message of a peer (or of ourselves) is complete in memory (data),
 * its payload in fd, or all of it in the file tmp (which is taken over).  0
 * stored, 1 had it already, -EEXIST other content, -EACCES not of an open
 * job. */
int site_deliver(struct site *s, const struct message_head *h,
		 const char *from_party, const void *data, int fd,
		 const char *tmp, struct err *e) MUST_CHECK;
/* Is this message one that from_party may send to us? */
int site_admit(struct site *s, const struct message_head *h,
	       const char *from_party, struct err *e) MUST_CHECK;
struct received {
	char sha256[65];
	uint64_t size;
	void *data;    /* the caller frees; or NULL and */
	int fd;	       /* the file, also the caller's, with */
	size_t offset; /* where the payload begins */
};
int site_recv(struct site *s, const struct key *k, int client,
	      struct received *ret, struct err *e) MUST_CHECK;
/* A task of ours wants to: -EACCES when the job does not have it so, or what
 * made the session fail. */
int site_may_send(struct site *s, const struct key *k,
		  struct err *e) MUST_CHECK;
void site_drop(struct site *s, const struct key *k);
int site_job_open(struct site *s, const char *job, const json_t *roles,
		  struct err *e) MUST_CHECK;
int site_job_close(struct site *s, const char *job, struct err *e) MUST_CHECK;
int site_session_close(struct site *s, const char *session,
		       struct err *e) MUST_CHECK;
/* A session can never finish: its operations fail from now on. */
void site_session_fail(struct site *s, const char *session, int status,
		       const char *text);
bool site_session_open(struct site *s, const char *session);
bool site_session_open_locked(struct site *s, const char *session);
/* Waits for s->changed (lock held) for at most ms; false when the process at
 * the other end of the socket has gone. */
bool site_wait(struct site *s, int client, unsigned ms);

/* A new file below transfer/tmp: head, then data, or what fd holds.  The
 * caller renames or unlinks it, and frees *ret_tmp. */
int message_write(struct site *s, const struct message_head *h,
		  const void *data, int fd, char **ret_tmp) MUST_CHECK;

/* site_client.c: requests to peers; a handle is used by one thread. */
int client_init(struct err *e) MUST_CHECK;
/* want: the URI that the peer's certificate must carry (kept by reference). */
CURL *client_new(const struct conf *c, char *want);
/* A request; *ret_code is the HTTP status. Curl's own failure is returned. */
CURLcode client_perform(CURL *h, const char *url, struct strbuf *answer,
			struct curl_slist *headers, long timeout_ms,
			long *ret_code);

/* site_peer.c: one peer = a queue, its workers, its last ping. */
struct peer;
struct peer *peer_get(struct site *s, const char *party); /* NULL = unknown */
void peer_reload(struct site *s);
/* Takes the message over: spool file first. */
int peer_send(struct site *s, const struct message_head *h, const void *data,
	      int fd, struct err *e) MUST_CHECK;
void peer_forget_job(struct site *s, const char *job);
void peer_forget_session(struct site *s, const char *session);
int peer_rpc(struct site *s, const char *party, const char *verb,
	     const char *body, size_t n, unsigned timeout_ms,
	     struct strbuf *ret, struct err *e) MUST_CHECK;
void peer_ping(struct site *s, const char *party);
json_t *peer_texts(struct site *s, const char *party);
int peer_rescan(struct site *s, struct err *e) MUST_CHECK;
/* A thread of its own for each file transfer of a party. */
void peer_file_wake(struct site *s, const char *party);

/* site_http.c */
int http_start(struct site *s, struct err *e) MUST_CHECK;
void http_stop(void);

/* site_call.c: calls of partners to our rollfs. */
int call_run(struct site *s, const char *party, const char *verb,
	     const char *body, size_t n, unsigned timeout_ms,
	     struct strbuf *ret) MUST_CHECK;
int call_take(struct site *s, int client, json_t **ret_head,
	      struct strbuf *body) MUST_CHECK;
/* rollfs died: what this connection took is for the next one. */
void call_lost(struct site *s, int client);
void call_answer(struct site *s, uint64_t number, int status, const char *error,
		 const char *body, size_t n);

/* site_file.c: files between parties. */
int file_open(struct site *s, struct err *e) MUST_CHECK; /* reads journals */
int file_put(struct site *s, const char *party, const char *path,
	     const char *spool, struct err *e) MUST_CHECK;
int file_remove(struct site *s, const char *party, const char *path,
		struct err *e) MUST_CHECK;
int file_wait(struct site *s, const char *party, const char *path,
	      int client) MUST_CHECK;
json_t *file_state(struct site *s, const char *party, const char *path);
char *file_transfers(struct site *s, const char *party);
/* The next file to push to a party (copied), false when there is none. */
struct file_job {
	char *path, *sha256;
	uint64_t size, generation;
};
bool file_next(struct site *s, const char *party, struct file_job *ret,
	       unsigned *ret_wait_ms);
void file_job_free(struct file_job *j);
/* Of the file to be sent, or a negative errno. */
int file_open_out(struct site *s, const char *party,
		  const char *path) MUST_CHECK;
/* false: this generation is no longer wanted. */
bool file_progress(struct site *s, const char *party, const char *path,
		   uint64_t generation, uint64_t bytes);
void file_done(struct site *s, const char *party, const char *path,
	       uint64_t generation, int status, bool final, const char *error);
/* Receiving: rules, a temporary file, then publish. 0, 1 = had it. */
int file_accept(struct site *s, const char *party, const char *path,
		uint64_t generation, const char *sha256,
		struct err *e) MUST_CHECK;
char *file_temp(struct site *s, const char *party);
int file_publish(struct site *s, const char *party, const char *path,
		 uint64_t generation, const char *sha256, const char *tmp,
		 struct err *e) MUST_CHECK;

/* site_unix.c */
int unix_start(struct site *s, struct err *e) MUST_CHECK;

#ifdef ROLLFS_TEST_HOOKS
/* Everything that crosses between parties, in the clear. */
void hook_wire(const char *what, const void *data, size_t n);
/* Flips one byte of the first message whose name contains $ROLLFS_HOOK_FLIP. */
void hook_flip(const struct message_head *h, void *data, size_t n);
#else
#define hook_wire(what, data, n) ((void)0)
#define hook_flip(h, data, n)	 ((void)0)
#endif

/* errno <-> HTTP status of this protocol. */
unsigned status_to_http(int status);
int http_to_status(long code);

#endif
