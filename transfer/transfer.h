/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's side of rollsite (used by fs/ and scheduler/): start and watch
 * the rollsite process, calls between schedulers, files between parties.
 *
 * Callbacks run on transfer's own thread with no lock held; they must not
 * block and may call any function here except transfer_stop.
 */
#ifndef TRANSFER_TRANSFER_H
#define TRANSFER_TRANSFER_H

#include <jansson.h>

#include "lib/conf.h"
#include "lib/err.h"

struct transfer;

/* rollsite's exit status when another one has the state directory. */
#define SITE_BUSY 3

/* Path of rollsite's socket for a state directory; caller frees. */
char *transfer_socket_path(const char *state);

/*
 * Connects to the rollsite of this configuration; starts one (program =
 * path of the rollsite executable, run as "rollsite <abs config>") when none
 * answers, and restarts that one whenever it dies (at once, then after 0.1,
 * 0.2 ... 5 s).  One that was started on its own is left alone.
 */
int transfer_start(const struct conf *conf, const char *program,
		   struct transfer **ret, struct err *e) MUST_CHECK;
/* Tells what was answered, ends a rollsite that we started and all threads;
 * calls that wait hear that there is no rollsite, as all do from then on. */
void transfer_stop(struct transfer *t);
/* After transfer_stop, when nobody calls any more.  false: a callback or the
 * handler has not come back for 10 s, and what it uses must stay. */
bool transfer_free(struct transfer *t);

/* ---- calls between schedulers: POST /v1/rpc/<verb> --------------------- */
/*
 * Idempotent: a call may arrive twice (the transport repeats it after a lost
 * answer).  cb gets status 0 and the answer's body (borrowed), or a negative
 * errno (-EHOSTUNREACH no route or refused connection, -EACCES 403,
 * -ETIMEDOUT, -EPROTO) and NULL, with a sentence in e.  A call to our own
 * party comes back through the handler without the network.
 */
typedef void (*transfer_rpc_cb)(void *arg, int status, json_t *body,
				const struct err *e);
void transfer_rpc(struct transfer *t, const char *party, const char *verb,
		  json_t *body /* borrowed */, unsigned timeout_ms,
		  transfer_rpc_cb cb, void *arg);
/*
 * Incoming calls: party is the caller's id from its certificate.  The handler
 * answers by transfer_answer(), now or later, from any thread; status is 0 or
 * a negative errno (EACCES -> 403, EINVAL -> 400, EBUSY -> 409, ENOENT ->
 * 404), body may be NULL.
 */
struct transfer_call;
typedef void (*transfer_handler)(void *arg, struct transfer_call *call,
				 const char *party, const char *verb,
				 json_t *body /* borrowed */);
void transfer_serve(struct transfer *t, transfer_handler fn, void *arg);
void transfer_answer(struct transfer *t, struct transfer_call *call, int status,
		     json_t *body /* borrowed */, const char *error);

/* ---- messages of tasks ------------------------------------------------- */
/*
 * Which parties play which roles in a job: {"guest": ["9999"], ...}.  From
 * now until transfer_job_close, rollsite takes messages of the job's sessions
 * between these roles and parties only.  Durable; repeating is harmless.
 */
int transfer_job_open(struct transfer *t, const char *job, const json_t *roles,
		      struct err *e) MUST_CHECK;
/* Drops every message of the job, both ways; later ones get 403. */
int transfer_job_close(struct transfer *t, const char *job,
		       struct err *e) MUST_CHECK;
/* Drops the messages of one attempt (a retried task never meets leftovers). */
int transfer_session_close(struct transfer *t, const char *session,
			   struct err *e) MUST_CHECK;

/* ---- files ------------------------------------------------------------- */
/*
 * STATE/federation/<party>/out/<path> holds what was written here for that
 * party, STATE/federation/<party>/in/<path> what it pushed to us.
 *
 * A new generation of out/<path> is complete and durable in the spool file
 * (absolute path in STATE/federation/<party>/spool/, same file system);
 * rollsite takes it over (renames it to out/<path>) and pushes it until the
 * other party has committed it.  Blocks until it is taken over (its record is
 * durable), not longer.
 */
int transfer_file_put(struct transfer *t, const char *party, const char *path,
		      const char *spool, struct err *e) MUST_CHECK;
/*
 * A file that is still being written: its first `bytes` are there and rollsite
 * may push them already (whole chunks; nothing is visible at the partner
 * before the put).  rewritten: of what was announced before, only these bytes
 * are as they were.  The put of the same spool
 * file ends it.  Never blocks: told to rollsite by a thread of its own, in
 * order, older news of the same spool file replaced by newer.
 */
void transfer_file_stream(struct transfer *t, const char *party,
			  const char *path, const char *spool, uint64_t bytes,
			  bool rewritten);
/* The spool file will never be put (its writer was killed, the file was
 * removed or renamed to a name that is not sent). Never blocks. */
void transfer_file_drop(struct transfer *t, const char *party,
			const char *spool);
/* One that failed is tried again (its deadline is forgotten). */
int transfer_file_retry(struct transfer *t, const char *party, const char *path,
			struct err *e) MUST_CHECK;
/* Give up at this time (Unix ms; 0 = never). -ENOENT: no such file. */
int transfer_file_deadline(struct transfer *t, const char *party,
			   const char *path, int64_t unix_ms,
			   struct err *e) MUST_CHECK;
/* rm of the sent file: withdrawn if it was not committed yet. */
int transfer_file_remove(struct transfer *t, const char *party,
			 const char *path, struct err *e) MUST_CHECK;
/* Calls cb when the present generation of the file has been committed by the
 * other party (0), or has failed for good (negative errno). */
typedef void (*transfer_file_cb)(void *arg, int status);
void transfer_file_wait(struct transfer *t, const char *party, const char *path,
			transfer_file_cb cb, void *arg);
void transfer_file_wait_cancel(struct transfer *t, transfer_file_cb cb,
			       void *arg);
/*
 * {"state": queued|announced|sending|committing|committed|parked|failed,
 * "size","acknowledged" (bytes on the partner's disk),"rate" (bytes/s),
 * "attempts","error" (the last reason),"next_try" (seconds),"generation",
 * "chunks" (ranges acknowledged),"deadline","receipt" (the partner's signed
 * receipt)}; NULL when unknown.  Caller owns.
 */
json_t *transfer_file_state(struct transfer *t, const char *party,
			    const char *path);

/* ---- parties ----------------------------------------------------------- */
/* The last known answer of the party's rollsite, a line: "ok 3 ms" or "failed
 * <reason>", and its version document; never waits. Caller frees / owns. */
char *transfer_ping_text(struct transfer *t, const char *party);
char *transfer_version_text(struct transfer *t, const char *party);
char *transfer_transfers_text(struct transfer *t, const char *party);
/* PEM of the certificate the party last showed; NULL if none yet. */
char *transfer_certificate_text(struct transfer *t, const char *party);
/* Ask again in the background (writing to ping). */
void transfer_ping_refresh(struct transfer *t, const char *party);
/* After STATE/parties/<id>/ changed: rollsite reads it again. */
int transfer_parties_reload(struct transfer *t, struct err *e) MUST_CHECK;
/* Counters in Prometheus text format, ending in a newline; caller frees. */
char *transfer_metrics_text(struct transfer *t);
/* A file of in/ is new or gone; "" and "": any may be (rollsite was started
 * anew).  News may be lost when much comes at once: look at all that matter. */
typedef void (*transfer_inbox_cb)(void *arg, const char *party,
				  const char *path);
void transfer_on_inbox(struct transfer *t, transfer_inbox_cb cb, void *arg);

#endif
