/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs while they live.  sched.lock guards everything here; the loop thread
 * runs what is posted, reaps tasks and minds the deadlines.
 *
 * Calls between schedulers (JSON, idempotent; "party" is the caller's, from
 * its certificate):
 *
 *   check        initiator -> party   dsl, conf (its slice)
 *                                     -> defects [{no, pointer, text}]
 *   create       initiator -> party   job, dsl, conf (slice), secret (guest
 *                                     and host only), round, run (how often
 *                                     it was run again)
 *                                     -> reserved, need, free
 *   release      initiator -> party   job, round (of the create): cores back,
 *                                     the job waits
 *   task-start   initiator -> party   job, component, attempt, fresh (no
 *                                     checkpoint of an earlier one counts)
 *                                     -> tasks [{role, status, code, public}]
 *   task-status  party -> initiator   job, component, role, attempt, status,
 *                                     code, public
 *   stop         initiator -> party   job, status, errors: the end; models:
 *                                     components whose models stay; run: of
 *                                     a former one it says nothing any more
 *   cancel       party -> initiator   job
 *   lease        initiator -> party   jobs [...]
 *   poke         party -> initiator   cores have become free
 *   deploy       initiator -> party   step (prepare, commit, drop), model_id,
 *                                     model_version, version, dsl, components
 *                                     [{name, checkpoint}]
 *
 * create, release, task-start, stop and lease are taken from the job's
 * initiator only, deploy from that of the training; task-status for the
 * caller's own tasks only; cancel from any party of the job.  Everything else
 * is EACCES, whether the job exists or not.
 */
#ifndef SCHEDULER_ENGINE_H
#define SCHEDULER_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "scheduler/check.h"
#include "scheduler/sched_priv.h"

enum status {
	ST_WAITING,
	ST_RUNNING,
	ST_SUCCESS,
	ST_PASS,
	ST_SKIPPED,
	ST_CANCELED,
	ST_TIMEOUT,
	ST_FAILED,
};
const char *status_name(enum status s);
enum status status_of(const char *name); /* ST_FAILED when unknown */
bool status_ended(enum status s);

/* One task of the job, anywhere. */
struct task {
	char *component, *module, *role, *party;
	size_t index;
	const json_t *spec; /* in plan.tasks; NULL for partners' at a party */
	bool local;
	enum status status;
	unsigned attempt;
	unsigned want;	     /* attempt that follows when this one is gone */
	bool fresh;	     /* it does not go on from checkpoints */
	char *code, *public; /* of a bad end, for partners */
	char *error;	     /* for this party */
	/* local */
	pid_t pid;
	int pidfd;
	uint64_t start_ticks;
	bool stopping;
	enum status stop_as;
	int64_t kill_at;    /* SIGKILL when still there then; 0 = never */
	int64_t not_before; /* auto_retry_delay, at the initiator */
	bool reported;
	/* partner's, at the initiator */
	bool asked; /* task-start is under way or was answered */
};

struct waiter {
	struct waiter *next;
	uint64_t number;
	char *role, *component; /* NULL: the job */
	sched_wait_cb cb;
	void *arg;
};

struct job {
	struct job *next;
	char id[41];
	uint64_t number;
	char *dir;
	json_t *plan, *dsl, *conf;
	char *secret; /* 64 hex digits or NULL */
	char *initiator_role, *initiator;
	bool ours; /* we are the initiator */
	enum status status;
	bool creating;	/* create calls are under way */
	bool reserved;	/* cores here */
	bool ending;	/* stop calls are under way */
	bool told;	/* partners may have it: they hear of its end */
	bool closing;	/* its messages are being thrown away */
	unsigned round; /* of create, so that no release meets a later one */
	unsigned run;	/* how often it was run again, at its initiator */
	unsigned ends;	/* how often its messages were closed here */
	enum status end_as;
	unsigned cores, pending;
	bool all_reserved;
	char *why; /* it waits */
	struct task *tasks;
	size_t n_tasks;
	char **others; /* parties but us, NULL-terminated */
	size_t n_others;
	int64_t *contact; /* of others: last answer, monotonic ms */
	int64_t heard;	  /* from the initiator, monotonic ms */
	int64_t created_ms, started_ms, ended_ms, changed_ms;
	int64_t next_retry; /* monotonic, 0 = none: a create or task to retry */
	unsigned retries;   /* automatic ones that were used */
	json_t *errors;	    /* root causes */
	const char *alone;  /* a partner ends it by itself: why */
	json_t *models;	    /* components whose models stay, NULL = none */
	bool keeping, kept; /* the version is being made, or was */
	int64_t saved;	    /* how often its state was, on disk */
	bool rebooted;	    /* since then, when it was loaded */
	struct waiter *waiters;
};

struct event {
	struct event *next;
	void (*fn)(struct sched *s, void *arg);
	void *arg;
};

struct sched {
	struct sched_options o;
	const char *party;
	char *jobs_dir;
	json_t *describe, *modules;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t thread;
	int wake; /* eventfd */
	bool stopping;
	atomic_uint threads; /* of sched_thread */
	struct event *events, **events_tail;
	struct job *jobs; /* oldest first */
	unsigned cores_free;
	uint64_t next_number; /* of waiters and prepares */
	char *latest;
	int64_t next_lease;
	struct preparing *preparing;
	char last_id[64]; /* given to a job of ours */
	json_t *poke;	  /* initiators whose jobs wait for cores here */
};

/* ---- sched.c ----------------------------------------------------------- */
void sched_post(struct sched *s, void (*fn)(struct sched *, void *), void *arg);
struct job *job_find(struct sched *s, const char *id);
struct task *task_find(const struct job *j, const char *role,
		       const char *component, const char *party);
void job_add_error(struct sched *s, struct job *j, const char *fmt, ...)
    PRINTF(3, 4);
/* What can go on with the job goes on. */
void job_advance(struct sched *s, struct job *j);
/* The end, from any cause; the initiator tells the others first. */
void job_finish(struct sched *s, struct job *j, enum status as);
/* A task of ours or of a partner has moved. */
void task_moved(struct sched *s, struct job *j, struct task *t, enum status to,
		const char *code, const char *public);
void job_changed(struct sched *s, struct job *j);
void job_begin(struct sched *s, struct job *j);
/* At its party: attempt k of the task runs, or will when the old one died. */
void task_begin(struct sched *s, struct job *j, struct task *t,
		unsigned attempt);
/* All stop calls are answered and nothing runs here: it has ended. */
void job_try_done(struct sched *s, struct job *j);
/* Back to waiting after its end (rerun). */
void job_reopen(struct sched *s, struct job *j);
void queue_run(struct sched *s);
/* Only those that no partner was asked for yet: cores here have become free. */
void queue_run_here(struct sched *s);
/* The same from another thread than the loop's; lock not held. */
void queue_post(struct sched *s);
void job_insert(struct sched *s, struct job *j);
/* Cores of the job at this party given; false = not enough. */
bool cores_take(struct sched *s, struct job *j);
void cores_count(struct sched *s);
void cores_give(struct sched *s, struct job *j);
void waiters_answer(struct sched *s, struct job *j);
/* The attempt that a waiting component gets: beyond any it has had. */
unsigned next_attempt(const struct job *j, const char *name);
void *sched_loop(void *arg); /* the thread */

/* ---- start.c ----------------------------------------------------------- */
/* Runs fn(arg) in a thread that sched_end waits for; lock held or not. */
int sched_thread(struct sched *s, size_t stack, void *(*fn)(void *),
		 void *arg) MUST_CHECK;
/* Sleeps; less when the scheduler stops.  Lock not held. */
void sched_pause(struct sched *s, unsigned ms);

/* ---- job.c: the directory ---------------------------------------------- */
struct job *job_new(struct sched *s, const char *id, json_t *plan, json_t *dsl,
		    json_t *conf, const char *secret, int64_t created_ms,
		    struct err *e);
void job_free(struct job *j);
int job_make_dir(struct sched *s, struct job *j, struct err *e) MUST_CHECK;
/* How far it is: survives a killed daemon; durable, a power cut, too, also
 * when what is saved later does not. */
void job_save(struct sched *s, struct job *j, bool durable);
void job_event(const struct job *j, const char *fmt, ...) PRINTF(2, 3);
void task_event(const struct job *j, const struct task *t, const char *fmt, ...)
    PRINTF(3, 4);
void job_write_status(const struct job *j);
void task_write_status(const struct job *j, const struct task *t);
char *task_dir(const struct job *j, const struct task *t);
int jobs_load(struct sched *s, struct err *e) MUST_CHECK;
void job_drop_tables(struct sched *s, const struct job *j);

/* ---- spawn.c ----------------------------------------------------------- */
/* A task that cannot be started has failed, and says why. */
int task_spawn(struct sched *s, struct job *j, struct task *t);
/* Ends the process group, politely and then not. */
void task_stop(struct sched *s, struct job *j, struct task *t, enum status as);
/* After a restart: still alive? Takes it back; else its pid becomes TASK_GONE
 * and task_reap collects what it left. */
#define TASK_GONE 0x7ffffff0 /* no such process */
void task_adopt(struct sched *s, struct job *j, struct task *t);
/* Its process is gone: what came of it. */
void task_reap(struct sched *s, struct job *j, struct task *t);
/* Runs rollfs-task with one argument, text on its standard input (or NULL);
 * its output as JSON. */
json_t *task_ask(const char *program, const char *argument, const char *text,
		 struct err *e);

/* ---- incoming.c: the calls of partners ---- */
void party_handler(void *arg, struct transfer_call *call, const char *party,
		   const char *verb, json_t *body);

#define STOP_MS 2000 /* of a stop call; answered when the job has ended */

/* ---- party.c ------------------------------------------------------------ */
void party_create(struct sched *s, struct job *j);
void party_release(struct sched *s, struct job *j);
void party_task_start(struct sched *s, struct job *j, const char *component);
void party_report(struct sched *s, struct job *j, struct task *t);
void party_stop(struct sched *s, struct job *j);
/* Until no close of the job's messages is under way; lock held.  Returns the
 * job, which may have gone. */
struct job *job_wait_closed(struct sched *s, const char *id);
void party_cancel(struct sched *s, struct job *j);
void party_leases(struct sched *s);
void party_poke(struct sched *s);
/* Once more to one that has not heard of it. */
void party_tell_end(struct sched *s, struct job *j, const char *party);
bool party_plays(const struct job *j, const char *role, const char *party);
/* What a partner says of a task of its own. */
void party_take_status(struct sched *s, struct job *j, const char *party,
		       const char *component, unsigned attempt,
		       const json_t *o);

/* in/ and out/ of the task, for the tables that are there. */
void task_link_tables(struct sched *s, const struct job *j,
		      const struct task *t);

/* ---- inherit.c ------------------------------------------------------------
 */
/* May the components of inheritance_info be taken over, as far as this party
 * can say? */
void inherit_check(struct sched *s, const json_t *dsl, const json_t *conf,
		   const char *initiator, struct defects *d);
/* They become those of the job, whose directory is being made. */
int inherit_tasks(struct sched *s, struct job *j, struct err *e) MUST_CHECK;

/* ---- model_keep.c -------------------------------------------------------- */
/* At the initiator: components that have made a model everywhere; NULL when
 * the job leaves none. */
json_t *models_made(const struct job *j);
/* Makes the version in a thread of its own; then j->kept, and job_try_done().
 */
void models_keep(struct sched *s, struct job *j);

/* ---- api.c ----------------------------------------------------------------
 */
/* An id that no job and no model version has; lock not held. */
void sched_new_id(struct sched *s, char *buf, size_t n);

/* ---- model_deploy.c --------------------------------------------------------
 */
/* The call `deploy`: one of its steps at this party; caller is the party that
 * asks.  The sentences are for partners too. */
int deploy_step(struct sched *s, const char *caller, const json_t *body,
		struct err *e) MUST_CHECK;

/* ---- prepare.c ---------------------------------------------------------- */
/* Those that wait for partners wait no longer; with the lock. */
void sched_prepare_stop(struct sched *s);
/* The part of a check that only this party can do, for a job of `initiator`.
 * text for the partner: fixed sentences. */
void check_local(struct sched *s, const json_t *dsl, const json_t *conf,
		 const char *initiator, struct defects *d);
unsigned cores_needed(struct sched *s, const json_t *plan);
/* Submitted: the draft's documents. */
struct sched_draft {
	json_t *dsl, *conf, *plan;
};

#endif
