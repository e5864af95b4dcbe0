/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to transfer/: requests on rollsite's socket, journals, and the parts
 * of the rollsite process.
 *
 * Socket protocol: one request is answered before the next one is sent on the
 * same connection; who needs several at once opens several.  Request head
 * {"op": ...}; answer head {"status": 0 | -errno, "error": "sentence", ...}.
 *
 *   op              request                          answer
 *   hello           -                                party, child, version
 *   send            key, sha256, size; payload as    -
 *                   body, or as a passed file
 *   stream_open     key, again                       file to write into, or
 *                                                    sha256 (was sent before)
 *   stream_more     key, bytes (so far)              -
 *   stream_end      key, size, sha256                -
 *   stream_drop     key                              -
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
 *   file_stream     party, path, spool, bytes,       -
 *                   rewritten
 *   file_drop       party, spool                     -
 *   file_remove     party, path                      -
 *   file_wait       party, path (waits)              status of the file
 *   file_state      party, path                      state {...}
 *   file_deadline   party, path, deadline            -
 *   file_retry      party, path                      -
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
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <semaphore.h>
#include <uthash.h>

#include "lib/conf.h"
#include "lib/err.h"
#include "lib/fileio.h"
#include "lib/strbuf.h"

#include "transfer/secure.h"
#include "transfer/wire.h"

#define PROTOCOL_VERSION 2

/* ---- journal.c: append-only files, synced in groups -------------------- */

#define JOURNAL_MESSAGE_MAX (64u << 10)
#define BATCH_MAX	    (1u << 20) /* messages of one request */

/* Shared by those who append and those who wait for the disk; the last one
 * who lets go of it closes it. */
struct journal;
/* A message (its payload in data, or NULL when it stands in a file), or the
 * mark (h NULL) that tid is done. */
typedef void (*journal_fn)(void *arg, const struct message_head *h,
			   const char *tid, const char *data);
/* Calls fn for every record that is there. */
int journal_open(const char *path, journal_fn fn, void *arg,
		 struct journal **ret, struct err *e) MUST_CHECK;
struct journal *journal_ref(struct journal *j);
void journal_unref(struct journal *j); /* NULL allowed */
/* Append: survives the death of the process; journal_sync() then makes it
 * survive a power cut.  The caller holds a lock that orders appends. */
int journal_add(struct journal *j, const struct message_head *h,
		const void *data) MUST_CHECK;
/* Marks may be lost with the process: they are written with what comes next. */
int journal_mark(struct journal *j, const char *tid) MUST_CHECK;
int journal_raw(struct journal *j, const void *data, size_t n) MUST_CHECK;
uint64_t journal_len(struct journal *j);   /* what upto may be now */
uint64_t journal_bytes(struct journal *j); /* of the file */
/* On disk up to here: whoever comes first syncs for all that have appended by
 * then, the others wait for it.  Without the lock above. */
int journal_sync(struct journal *j, uint64_t upto) MUST_CHECK;
/* What is still wanted of a message: nothing, that it was here (its head; it is
 * marked done), or all of it. */
enum journal_keep { JOURNAL_DROP, JOURNAL_HEAD, JOURNAL_WHOLE };
/* Writes a journal of messages anew, without what is not wanted, and puts it
 * in its place at path; when that fails, the old one stays.  The caller holds
 * the lock that orders appends. */
int journal_rewrite(struct journal *j, const char *path,
		    enum journal_keep (*keep)(void *arg, const char *tid),
		    void *arg, struct err *e) MUST_CHECK;
/* Nothing in it matters any more: it gets empty, or its space is used again. */
void journal_clear(struct journal *j);
void journal_again(struct journal *j);
/* With s->lock: STATE/transfer/files/<party><end>, open while the process
 * lives; NULL when it cannot be opened. */
struct site;
struct journal *journal_of(struct site *s, const char *party, const char *end);
/* At start: fn for each party that has such a journal. */
int journals_each(struct site *s, const char *end,
		  int (*fn)(struct site *s, const char *party, struct err *e),
		  struct err *e) MUST_CHECK;

/* ---- link.c: requests on the socket ------------------------------------ */

struct link {
	struct link *next; /* of its owner's */
	int fd;
	struct strbuf head, body;
};
int link_open(struct link *l, const char *socket, struct err *e) MUST_CHECK;
void link_close(struct link *l);
/* The same with the text of a head; l->head is that of the answer. */
int link_ask(struct link *l, const char *head, const void *body, size_t n,
	     int pass_fd, int *ret_fd, struct err *e) MUST_CHECK;
/* -EPIPE: rollsite has gone.  Otherwise 0 or the answer's status with its
 * sentence; *ret is the answer's head (caller owns), l->body its body. */
int link_request(struct link *l, const json_t *head, const void *body, size_t n,
		 int pass_fd, json_t **ret, int *ret_fd,
		 struct err *e) MUST_CHECK;

/* ---- rollsite ---------------------------------------------------------- */

struct site;
struct message;
struct peer;
struct outgoing;
struct incoming;
struct serve;
struct parked;

struct inbox_event { /* a file of a partner arrived */
	struct inbox_event *next;
	uint64_t seq;
	char *party, *path;
};

/* Of one party; under s->lock. */
struct counters {
	uint64_t messages_in, messages_out, message_bytes_in, message_bytes_out;
	uint64_t retries, calls;
	uint64_t started, committed, failed, received;
	uint64_t chunks_sent, chunks_resent, chunks_received, chunks_again;
	uint64_t bytes_sent, bytes_received, forwarded;
};

/*
 * The state of the process; one lock for all of it, held shortly: nobody waits
 * for a partner or syncs a transfer's bytes with it.  In taking order:
 *
 *   in_making (in_priv.h), publishing (in_commit.c), placing (site_file.c):
 *     none of them with another of them; held over file operations
 *   site.lock
 *   journal.lock, metrics.c's, identity's (secure.c)
 *
 * Never together with site.lock: reverse.lock, incoming.lock, chunk_sink.lock,
 * pool.lock (site_unix.c);
 * relay.c's and shown_lock (site_http.c), which are taken before identity's.
 */
struct site {
	struct conf *conf;
	struct identity *identity;
	bool child; /* started by rollfs */
	int stop;   /* eventfd: written to end the process */
	pthread_mutex_t lock;
	/* Connections of a rollfs that watches us; nudge (eventfd) is written
	 * when one ends. */
	unsigned watchers;
	int nudge;

	struct message *in; /* uthash by tid */
	struct site_job *jobs;
	struct peer *peers;
	struct session_error *errors;
	struct outgoing *out;	   /* uthash by tid */
	struct incoming *arriving; /* uthash by tid */
	unsigned chunks;    /* being sent: in memory, all parties together */
	uint64_t unwritten; /* bytes of chunks that are arriving (atomic) */

	struct call *calls; /* from partners, waiting for rollfs */
	uint64_t next_call;
	unsigned servers; /* rollfs's connections that wait for a call */

	struct inbox_event *inbox;
	uint64_t inbox_seq;
	struct counters count; /* of no other party */
};

/* site.c: messages and jobs */
int site_open(struct site *s, struct conf *c, bool child,
	      struct err *e) MUST_CHECK;
/* A small message of a peer, verified: its record (head and payload) as it goes
 * into the journal. */
struct delivery {
	const void *record;
	size_t n;
	struct message *m; /* NULL: refused, see status */
	int status;
};
/* What is known of it now; payload is copied. */
void site_delivery(struct site *s, const struct message_head *h,
		   const char *from_party, const void *payload,
		   struct delivery *ret);
/* Many at once: sets each status as site_deliver() returns it; frees all m.
 * What it returns is not of one of them but of all: cannot write.  Durable when
 * it returns 0. */
int site_deliver_all(struct site *s, const char *from_party, struct delivery *d,
		     size_t n) MUST_CHECK;
/* A verified message of a peer (or of ourselves): its payload in data, or in
 * the file tmp, which is taken over.  0 stored, 1 had it already, -EEXIST other
 * content, -EACCES not of an open job.  *ret_sync (may be NULL) gets the
 * journal to be synced and *ret_upto how far before it may be acknowledged;
 * the caller unrefs. */
int site_deliver(struct site *s, const struct message_head *h,
		 const char *from_party, const void *data, const char *tmp,
		 struct journal **ret_sync, uint64_t *ret_upto,
		 struct err *e) MUST_CHECK;
/* Is this message one that from_party may send to us? */
int site_admit(struct site *s, const struct key *k, const char *from_party,
	       struct err *e) MUST_CHECK;
/* Has it been delivered?  0 no, 1 yes, -EEXIST with another digest. */
int site_delivered(struct site *s, const char *tid, const char *sha256);
struct received {
	char sha256[65];
	uint64_t size;
	void *data;    /* the caller frees; or NULL and */
	int fd;	       /* the file, also the caller's, with */
	size_t offset; /* where the payload begins */
};
/* -EINPROGRESS: it is not there yet; w has been parked (id: tid must stay). */
int site_recv(struct site *s, const struct key *k, const char *tid,
	      struct parked *w, struct received *ret, struct err *e) MUST_CHECK;
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
/* A name below STATE/transfer/tmp; caller frees. */
char *site_temp(struct site *s);
/* All bytes of fd (from its beginning, size of them) in a new file. */
int site_copy(int fd, uint64_t size, const char *path, bool durable,
	      struct err *e) MUST_CHECK;

/* ---- wait.c: who waits for what ---------------------------------------- */

enum wait_for {
	WAIT_CALL,    /* a call for rollfs; one waiter is woken for each */
	WAIT_ANSWER,  /* rollfs's answer; id: the number */
	WAIT_INBOX,   /* news of the inbox */
	WAIT_MESSAGE, /* id: tid */
	WAIT_FILE,    /* id: party/path */
	WAIT_ROOM,    /* in a party's queue; id: the party */
	WAIT_COMMIT   /* the end of another's commit; id: tid */
};
/* With s->lock, at most ms (0: for ever); false when the process at the other
 * end of the socket (client, or -1) has gone.  id must stay. */
bool site_wait(struct site *s, enum wait_for what, const char *id, int client,
	       int64_t ms);
/* With s->lock; id NULL: all who wait for that. */
void site_wake(struct site *s, enum wait_for what, const char *id);
void site_client_gone(struct site *s, int client);
/* A request that waits without a thread. */
struct parked {
	struct parked *next;
	enum wait_for what;
	const char *id;
	bool gone; /* the process at the other end */
	/* It has come to its end; no lock held. */
	void (*done)(struct parked *w, int r, const char *error);
};
/* All with s->lock.  When what it waits for happens it is among the ready
 * ones, and whoever made that happen calls clients_ready() afterwards, without
 * the lock.  false: gone. */
bool site_park(struct site *s, struct parked *w, enum wait_for what,
	       const char *id) MUST_CHECK;
/* Its process has gone; false: it was not parked (any more). */
bool site_unpark(struct site *s, struct parked *w) MUST_CHECK;
struct parked *site_ready(struct site *s); /* takes them all */

/* ---- route.c: a request to a party, whatever the way ------------------- */

enum route_kind { ROUTE_NONE, ROUTE_DIRECT, ROUTE_VIA, ROUTE_REVERSE };
/*
 * 0: the party (not a relay on the way) answered; a->code is its status and
 * a->body, set up by the caller, its body.  -EHOSTUNREACH, -ETIMEDOUT,
 * -EACCES (a certificate), -ELOOP: it did not get there; the sentence names
 * the hop.
 */
int route_exchange(struct peer *p, const struct wire_request *q,
		   struct wire_answer *a, struct err *e) MUST_CHECK;
/* A connection of ours, or anything else? */
bool route_is_direct(const struct peer *p);
/* Connections to the party are made anew: its certificate may be another. */
void route_renew(struct peer *p);
/* The first relay on the way to p; p itself when there is none; NULL. */
struct peer *route_first_hop(struct peer *p, struct err *e);
/* Only the hop itself: the party is connected to, or polls us. */
int route_hop(struct peer *p, const struct wire_request *q,
	      struct wire_answer *a, struct err *e) MUST_CHECK;
/* Our card, or that of a party we can reach: GET /v1/card/<party>. */
void route_card(struct serve *v, const char *party);
/* POST /v1/relay/<dst> that came to us as its destination: opens it; or to be
 * forwarded. body is the envelope. */
void route_relayed(struct serve *v, const char *dst);
/* May the party that is there have requests carried to dst?  Also asked before
 * the body is taken in. */
int relay_permits(struct serve *v, const char *dst, struct err *e) MUST_CHECK;
/* POST /v1/reverse: a partner polls. */
void reverse_polled(struct serve *v);
/* A request into the queue of a party that polls; waits for its answer. */
int reverse_exchange(struct peer *p, const struct wire_request *q,
		     struct wire_answer *a, struct err *e) MUST_CHECK;
/* Starts to poll the party (we do not listen). */
void reverse_poll_start(struct peer *p);
int64_t reverse_last_ms(struct peer *p); /* Unix ms of its last poll, 0 */
int route_start(struct site *s, struct err *e) MUST_CHECK;
const char *route_instance(void); /* random, of this process */

/* ---- serve.c: a request of a party, whatever the way ------------------- */

enum request_kind {
	REQUEST_HELLO,
	REQUEST_CARD,
	REQUEST_RPC,
	REQUEST_MESSAGES,
	REQUEST_ANNOUNCE,
	REQUEST_STATE,
	REQUEST_ABORT,
	REQUEST_CHUNK,
	REQUEST_COMMIT,
	REQUEST_RELAY,
	REQUEST_REVERSE
};
/* What method and target ask for; nothing else is looked at. */
struct request_route {
	enum request_kind kind;
	char *tail;  /* verb, party, or 64 digits (cut there): in target */
	char *index; /* of a chunk, in target; NULL otherwise */
	char *query; /* what follows '?', in target; or NULL */
};
/* Cuts target up; false: there is no such request (relayed: not for one that
 * came through others). */
bool request_route(const char *method, char *target, bool relayed,
		   struct request_route *ret) MUST_CHECK;
/* The next record of a batch of messages: n bytes of which *ret_used are head
 * and h->size follow. -EINVAL. */
int batch_next(const void *data, size_t n, struct message_head *h,
	       size_t *ret_used) MUST_CHECK;

struct serve {
	struct site *s;
	char party[16];
	X509 *cert; /* borrowed: of that party */
	const char *method, *digest, *via;
	char *target;
	unsigned timeout_ms;
	int64_t length; /* of the body; -1 not known */
	bool relayed;	/* came sealed, through others */
	int conn;	/* socket of the connection, or -1 */
	double rate;	/* bytes/s it may send; 0 = no limit */
	/* in work */
	struct request_route route; /* points into target */
	bool slot; /* one of few that hold a large body in memory */
	struct peer *slot_of;
	struct strbuf body;
	struct chunk_sink *sink;
	/* the answer: code 0 = not yet */
	unsigned code, credit, retry_ms;
	struct strbuf out;
};
/* Looks at method, target and headers; the answer may stand already. */
void serve_begin(struct serve *v);
void serve_data(struct serve *v, const void *data, size_t n);
void serve_end(struct serve *v);
void serve_free(struct serve *v);
/* May one more refusal of that party ("" = unknown) be written down?  A log can
 * be filled by refusals alone. */
bool audit_may(const char *party) MUST_CHECK;
/* A problem+json answer of this status with a sentence that may be told. */
void serve_refuse(struct serve *v, int status, const struct err *e);
void serve_json(struct serve *v, unsigned code, json_t *doc /* taken */);

/* listen.c: a socket bound to the configuration's address, of nobody else. */
int listen_bind(const struct conf *c, int *ret, struct err *e) MUST_CHECK;

/* site_http.c */
int http_start(struct site *s, struct err *e) MUST_CHECK;

/* site_client.c: requests to peers; a handle is used by one thread. */
int client_init(struct err *e) MUST_CHECK;
/* want: the URI that the peer's certificate must carry (kept by reference). */
CURL *client_new(const struct conf *c, char *want);
/* A request; *ret_code is the HTTP status. Curl's own failure is returned. */
CURLcode client_perform(CURL *h, const char *url, struct strbuf *answer,
			struct curl_slist *headers, long timeout_ms,
			long *ret_code);
/* Leaf and chain that the connection showed, PEM; caller frees; NULL. */
char *client_certificate(CURL *h);

/* ---- site_peer.c: one peer = its queue of messages, its threads -------- */

#define PEER_WORKERS 4 /* chunks under way to one party */
#define PEER_POOL    12

struct peer {
	struct peer *next;
	struct site *s;
	char id[16];
	char *want; /* the SAN URI its certificate must carry */
	/* The route; replaced by a reload, under s->lock. */
	enum route_kind route;
	char *url;
	char via[16];
	bool removed;
	/* With s->lock; one for each kind of worker, so that a signal never
	 * goes to one of another kind. */
	pthread_cond_t message, ping, work, disk;
	bool ping_wake;
	/* Messages that wait. */
	char *dir;
	struct journal *log;
	struct out_message *queue;
	uint64_t queued_bytes;
	struct out_message *unwritten;	 /* of them, not in the journal yet */
	struct strbuf records;		 /* of those */
	struct parked *unsynced;	 /* wait for the disk */
	unsigned n_unsynced, disk_wants; /* as many, to go there */
	unsigned unsent, posts; /* that nobody sends yet; batches under way */
	int64_t posted_us;	/* when the last of them left */
	size_t posted;		/* messages of that one */
	bool watched;		/* a worker looks when it gets late */
	/* Nothing is tried before (monotonic ms); grows with failures. */
	int64_t message_after, after;
	int64_t failed_ms; /* of the last failure of the way */
	unsigned message_failures, failures;
	unsigned lost; /* failures of the way in all */
	double window; /* requests of transfers that may be under way */
	unsigned under_way, workers, chunks;
	uint64_t turn;
	char *trouble;	       /* why nothing is tried now */
	char *message_trouble; /* why messages wait */
	int64_t message_failed_ms;
	/* reverse.c */
	struct reverse *reverse;
	/* route.c: what to seal to */
	struct card *card;
	/* last ping */
	bool asked, ok;
	int64_t rtt_us, asked_ms, asked_mono_ms;
	char *error, *version, *certificate, *back;
	bool have_skew;
	int64_t skew_ms;
	struct counters count;
	unsigned large; /* messages in files that are under way */
	/* route.c: idle handles; those of before the last renewal go */
	CURL *pool[PEER_POOL];
	size_t n_pool;
	unsigned renewed;
	unsigned slots; /* large bodies of it that are in memory (serve.c) */
	/* limit rate: bytes that may be taken (serve.c) */
	double tokens;
	int64_t tokens_ms;
};
struct peer *peer_get(struct site *s, const char *party); /* NULL = unknown */
struct peer *peer_find_locked(struct site *s, const char *party);
void peer_reload(struct site *s);
int peer_rpc(struct site *s, const char *party, const char *verb,
	     const char *body, size_t n, unsigned timeout_ms,
	     struct strbuf *ret, struct err *e) MUST_CHECK;
/* ping.c */
void peer_ping(struct site *s, const char *party);
void *ping_worker(void *arg);
json_t *peer_texts(struct site *s, const char *party);
/* The answer to GET /v1/hello of that party, which showed this certificate
 * (may be NULL). */
json_t *hello_doc(struct site *s, const char *party, X509 *cert);
/* notAfter of a PEM certificate, Unix seconds; 0 = none or unknown. */
int64_t certificate_expires_s(const char *pem);
int peer_rescan(struct site *s, struct err *e) MUST_CHECK;
/* Full jitter (as in "Exponential Backoff And Jitter", AWS 2015): a random
 * time up to least * 2^failures, at most most. */
int64_t backoff_ms(unsigned failures, unsigned least, unsigned most);
/* With s->lock: sleeps on one of the peer's conditions. */
void peer_sleep(struct peer *p, pthread_cond_t *c, int64_t ms);
void site_thread(void *(*fn)(void *), void *arg, size_t stack);
/* metrics.c */
char *metrics_text(struct site *s);
/* lock held: of a party, or what is counted for none (ourselves). */
struct counters *count_of(struct site *s, const char *party);
/* A request of the party ("" = unknown) was refused; any lock may be held. */
void count_refusal(const char *party, int status);

/* Sets of chunks. */
static inline bool bit(const uint8_t *bits, uint64_t i)
{
	return bits[i / 8] >> (i % 8) & 1;
}

static inline void bit_set(uint8_t *bits, uint64_t i, bool on)
{
	if (on)
		bits[i / 8] |= (uint8_t)(1u << (i % 8));
	else
		bits[i / 8] &= (uint8_t) ~(1u << (i % 8));
}

/* Chunks that are on disk leave the page cache, but for a file's first 64 MiB:
 * a large file would push everything else out of it. */
static inline void uncache(int fd, uint64_t index, uint64_t chunk)
{
	if (index * chunk >= (64ull << 20))
		(void)posix_fadvise(fd, (off_t)(index * chunk), (off_t)chunk,
				    POSIX_FADV_DONTNEED);
}

/* ---- site_message.c: messages of tasks to a peer ----------------------- */

/* Takes a small message over: w->done is called when it is durable, or cannot
 * be.  peers_write() must follow; several may precede it, which are written
 * together.  -EAGAIN: the queue is full, and w has been parked. */
int peer_send(struct site *s, const struct message_head *h, const void *data,
	      struct parked *w, struct err *e) MUST_CHECK;
void peers_write(struct site *s);
/* lock held: its journal, when nothing in it matters */
void message_log_clear(struct peer *p);
/* Is it that session, or one of that job? */
bool session_is_of(const char *its, const char *job, const char *session);

/* site_large.c: the same for a large one whose bytes are in a file (taken
 * over). */
int peer_send_file(struct site *s, const struct message_head *h,
		   const char *tmp, struct err *e) MUST_CHECK;
/* A large one that is being produced: the file (caller closes), then news.
 * again: it goes on, perhaps with another rollsite; otherwise it begins anew.
 * *ret_fd -1: it has all been taken over before, with the digest ret_sent. */
int peer_stream_open(struct site *s, const struct key *k, bool again,
		     int *ret_fd, char ret_sent[65], struct err *e) MUST_CHECK;
int peer_stream_more(struct site *s, const struct key *k, uint64_t bytes,
		     struct err *e) MUST_CHECK;
int peer_stream_end(struct site *s, const struct message_head *h,
		    struct err *e) MUST_CHECK;
void peer_stream_drop(struct site *s, const struct key *k);
void large_forget_locked(const char *job, const char *session);
/* Those of the journal go on, other files are rubbish. */
void large_resume(struct peer *p, const struct message_head *large, size_t n);
void peer_forget_job(struct site *s, const char *job);
void peer_forget_session(struct site *s, const char *session);
/* lock held, of a peer that is new: what was on its way when rollsite ended. */
struct message_replay;
int message_open(struct peer *p, struct message_replay **ret,
		 struct err *e) MUST_CHECK;
/* It goes on; *x is freed. */
void message_start(struct peer *p, struct message_replay *x);

/* ---- site_out.c: transfers to others ----------------------------------- */

enum out_state {
	OUT_QUEUED,
	OUT_ANNOUNCED,
	OUT_SENDING,
	OUT_COMMITTING,
	OUT_COMMITTED,
	OUT_PARKED,
	OUT_FAILED,
	OUT_STATES
};
extern const char *const out_state_names[OUT_STATES];
/* Called without the lock when a transfer has come to its end: status 0 with
 * the receipt, or why it failed for good. */
typedef void (*out_done_fn)(struct site *s, const struct object *o, int status,
			    const char *error, unsigned attempts,
			    const struct receipt_doc *receipt);
/*
 * Starts or continues a transfer: o (copied), its bytes in data_path.  ready:
 * how many bytes are there and final; sealed: all of them, o->size is known.
 */
int out_start(struct site *s, const struct object *o, const char *data_path,
	      uint64_t ready, bool sealed, out_done_fn done,
	      struct err *e) MUST_CHECK;
/* More is there; rewritten: from byte `ready` on nothing is as announced. */
int out_grow(struct site *s, const char *tid, uint64_t ready,
	     bool rewritten) MUST_CHECK;
/* That was all. -ENOENT: unknown. */
int out_seal(struct site *s, const char *tid, uint64_t size, const char *sha256,
	     bool rewritten) MUST_CHECK;
/* lock held, since before its bytes got another place: what reads them opens
 * by name. */
void out_moved_locked(struct site *s, const char *tid, const char *data_path);
/* Withdrawn: nothing more is sent, and the partner is told (in the
 * background, for as long as this process lives). */
void out_abort(struct site *s, const char *tid);
struct out_news {
	enum out_state state;
	uint64_t size, acknowledged, resent;
	double rate;
	unsigned attempts;
	int64_t next_try_ms; /* from now */
	char error[300];
	char *chunks; /* ranges acknowledged; owned */
};
/* false: not under way. */
bool out_news(struct site *s, const char *tid, struct out_news *ret);
/* lock held: it is under way and whole; its end-to-end digest. */
bool out_sealed_locked(struct site *s, const char *tid, char ret_sha256[65]);
void out_deadline(struct site *s, const char *tid, int64_t unix_ms);
/* The partner is told that this transfer of ours will never be committed; done
 * is called when it knows (status 0). */
int out_withdraw(struct site *s, const struct object *o, out_done_fn done,
		 struct err *e) MUST_CHECK;
/* The way to the party is open again: try now. */
void out_wake(struct peer *p);
void out_wake_locked(struct peer *p);
/* lock held: how many there are to that party, by state. */
void out_counts_locked(struct site *s, const struct peer *p,
		       unsigned ret[OUT_STATES]);
/* lock held: large messages that are under way to it. */
unsigned out_messages_locked(const struct peer *p);
/* For transfers whose job or session ends. */
void out_forget(struct site *s, const char *job, const char *session);

/* ---- site_in.c: transfers from others ---------------------------------- */

int in_open(struct site *s, struct err *e) MUST_CHECK;
/* PUT, GET, DELETE of a transfer, and its commit: fill the answer. */
void in_announce(struct serve *v, const char *tid, const json_t *doc);
void in_state(struct serve *v, const char *tid, bool digests);
void in_abort(struct serve *v, const char *tid);
/* body: u32 length of the manifest, manifest, and the only chunk if inline. */
void in_commit(struct serve *v, const char *tid);
/* A chunk streams in; begin answers at once when it is refused. */
void in_chunk_begin(struct serve *v, const char *tid, const char *index);
void in_chunk_data(struct serve *v, const void *data, size_t n);
void in_chunk_end(struct serve *v);
void in_chunk_free(struct chunk_sink *k);
/* A record of a .have file; false when it is torn or of another transfer. */
#define HAVE_RECORD 48
bool have_parse(const char *tid, const uint8_t record[HAVE_RECORD],
		uint64_t *ret_index, bool *ret_have,
		uint8_t ret_digest[32]) MUST_CHECK;
/* A receipt in files/<party>.receipts, as a line. */
struct receipt_rec {
	UT_hash_handle hh;
	char tid[65], party[16];
	char *path;
	uint64_t generation;
	struct receipt_doc doc;
	bool ready; /* the file is in its place */
};
char *receipt_line(const struct receipt_rec *r);
struct receipt_rec *receipt_of_line(const char *party, const char *line);
void receipt_rec_free(struct receipt_rec *r);
/* Messages of the job or session that are arriving. */
void in_forget(struct site *s, const char *job, const char *session);
/* Partials nobody has touched for a week. */
void in_sweep(struct site *s);

/* ---- site_file.c: files between parties -------------------------------- */

int file_open(struct site *s, struct err *e) MUST_CHECK; /* reads journals */
/* Sent files are kept for a while after their commit. */
void file_sweep(struct site *s);
int file_put(struct site *s, const char *party, const char *path,
	     const char *spool, bool rewritten, struct err *e) MUST_CHECK;
int file_stream(struct site *s, const char *party, const char *path,
		const char *spool, uint64_t bytes, bool rewritten,
		struct err *e) MUST_CHECK;
void file_drop(struct site *s, const char *spool);
int file_remove(struct site *s, const char *party, const char *path,
		struct err *e) MUST_CHECK;
int file_wait(struct site *s, const char *party, const char *path, int client,
	      struct err *e) MUST_CHECK;
/* One that failed is tried again. */
int file_retry(struct site *s, const char *party, const char *path,
	       struct err *e) MUST_CHECK;
int file_deadline(struct site *s, const char *party, const char *path,
		  int64_t unix_ms, struct err *e) MUST_CHECK;
json_t *file_state(struct site *s, const char *party, const char *path);
char *file_transfers(struct site *s, const char *party);
/* The directory that holds path below dir, made when missing; or -errno. */
int parent_beneath(const char *dir, const char *path) MUST_CHECK;
const char *last_part(const char *path);
/* A file has been published in in/<path>. */
void file_arrived(struct site *s, const char *party, const char *path);

/* ---- site_call.c: calls of partners to our rollfs ---------------------- */

int call_run(struct site *s, const char *party, const char *verb,
	     const char *body, size_t n, unsigned timeout_ms,
	     struct strbuf *ret) MUST_CHECK;
int call_take(struct site *s, int client, json_t **ret_head,
	      struct strbuf *body) MUST_CHECK;
/* rollfs died: what this connection took is for the next one. */
void call_lost(struct site *s, int client);
void call_answer(struct site *s, uint64_t number, int status, const char *error,
		 const char *body, size_t n);

/* site_unix.c */
int unix_start(struct site *s, struct err *e) MUST_CHECK;
void clients_ready(struct site *s); /* see site_park() */

/* doctor.c: rollsite --doctor CONFIG */
int doctor(const char *conf_path);

#ifdef ROLLFS_TEST_HOOKS
/* Everything that crosses between parties, in the clear. */
void hook_wire(const char *what, const void *data, size_t n);
/* Flips one byte of the first message whose name contains $ROLLFS_HOOK_FLIP. */
void hook_flip(const struct message_head *h, void *data, size_t n);
/* $ROLLFS_HOOK_DIE=point:n kills the process at the n-th pass of a point,
 * $ROLLFS_HOOK_PAUSE=point:ms holds up who passes it. */
void hook_die(const char *point);
/* $ROLLFS_HOOK_RELAY_FLIP=n: one bit of the n-th forwarded body. */
void hook_relay_flip(void *data, size_t n);
#else
#define hook_wire(what, data, n) ((void)0)
#define hook_flip(h, data, n)	 ((void)0)
#define hook_die(point)		 ((void)0)
#define hook_relay_flip(data, n) ((void)0)
#endif

#endif
