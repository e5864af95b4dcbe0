/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs: checking DSL and conf, the same job at every party, tasks.  One loop
 * thread owns all state; every function here may be called from any thread
 * and none of them blocks unless it says so.
 *
 * What people read is on disk: STATE/jobs/<id>/ holds the files of the mount
 * (status, error, progress, events, log, dsl.json, conf.json,
 * parties/<role>-<party>/status, <role>/<component>/{status, error, progress,
 * log, events, params.json, summary.json, in/<name>, out/<name>,
 * model/<name>.json}) under their names, each replaced atomically or only
 * appended to; `.job/` beside them is the scheduler's own (never shown).
 * in/<name> and out/<name> are symlinks whose target is
 * "tables/<escaped ns>/<escaped name>", relative to the mount's root.
 */
#ifndef SCHEDULER_SCHEDULER_H
#define SCHEDULER_SCHEDULER_H

#include <jansson.h>

#include "lib/conf.h"
#include "lib/table.h"
#include "transfer/transfer.h"

struct sched;
struct sched_draft; /* a job that was checked and may be submitted */

struct sched_options {
	const struct conf *conf;
	struct transfer *transfer;
	struct table_store *tables;
	const char *task_program; /* rollfs-task */
	/* Something readers can see has changed: a job appeared, vanished,
	 * changed status (component NULL) or a task's file did.  Called from
	 * the loop thread; must not block. */
	void (*changed)(void *arg, const char *job);
	/* A model version appeared or vanished, or its predict/dsl.json
	 * changed; from any thread, must not block.  May be NULL. */
	void (*models_changed)(void *arg, const char *id, const char *version);
	void *arg;
};

/* Loads STATE/jobs, adopts running tasks, starts the loop thread. */
int sched_start(const struct sched_options *o, struct sched **ret,
		struct err *e) MUST_CHECK;
/* stop_tasks: umount ends them (they are retried or fail at the next start
 * as jobs interrupted); false leaves them to be adopted. */
void sched_stop(struct sched *s, bool stop_tasks);
/* After sched_stop and transfer_stop: waits for threads of calls, checks and
 * copies.  false: some are not done, and what they use (options) must stay
 * until the process ends; the scheduler itself stays in any case. */
bool sched_end(struct sched *s);

/* ---- submitting ------------------------------------------------------- */
/*
 * Is the text so far a whole submission?  1 complete, 0 unfinished, negative
 * errno with "line L column C: ..." when it can never become one.
 */
int sched_text_state(const char *text, size_t n, struct err *e);
/*
 * Checks everything that can be known, here and at the partners (within 5 s).
 * cb gets 0 and a draft, or a negative errno and all defects, one a line,
 * pointer first.  Returns a number for sched_prepare_cancel (cb is then not
 * called; true if it was cancelled before it ran).
 */
typedef void (*sched_prepare_cb)(void *arg, int status,
				 struct sched_draft *draft,
				 const char *defects);
uint64_t sched_prepare(struct sched *s, const char *text, size_t n,
		       sched_prepare_cb cb, void *arg);
bool sched_prepare_cancel(struct sched *s, uint64_t number);
/* Makes the job; id of at most 40 bytes. Consumes the draft. The job is
 * durable and visible when this returns (blocks for an fsync). */
int sched_submit(struct sched *s, struct sched_draft *d, char *ret_id, size_t n,
		 struct err *e) MUST_CHECK;
void sched_draft_free(struct sched_draft *d);

/* ---- looking ---------------------------------------------------------- */
struct sched_task_info {
	const char *role, *component;
};
struct sched_job_info {
	char id[41];
	uint64_t number; /* of the store's counter; job directory */
	size_t n_tasks;	 /* this party's tasks; number+1+i is task i */
	struct sched_task_info *tasks;
	size_t n_parties;
	char **parties; /* "<role>-<party>" */
	bool ended;
	int64_t created_ms, changed_ms;
};
/* Copies; NULL if there is none. By id or by a number that belongs to it. */
struct sched_job_info *sched_job(struct sched *s, const char *id);
struct sched_job_info *sched_job_by_number(struct sched *s, uint64_t number);
void sched_job_info_free(struct sched_job_info *x);
/* All ids, oldest first; NULL-terminated; free each and the list. */
char **sched_jobs(struct sched *s);
char *sched_latest(struct sched *s); /* submitted last here; NULL = none */
char *sched_queue_text(struct sched *s);
char *sched_metrics_text(struct sched *s);
/* What /components/<Module>.json holds; names for the directory. Borrowed,
 * constant after start. */
const json_t *sched_modules(struct sched *s);

/* ---- waiting and control ---------------------------------------------- */
/*
 * cb is called once with the status word as soon as the job (component NULL)
 * or the task has ended, at once if it has.  Returns a number, 0 = no such.
 */
typedef void (*sched_wait_cb)(void *arg, const char *status);
uint64_t sched_wait(struct sched *s, const char *job, const char *role,
		    const char *component, sched_wait_cb cb, void *arg);
bool sched_wait_cancel(struct sched *s, uint64_t number);
/* One line of ctl: "cancel", "rerun [component ...] [force]".  Blocks until
 * accepted (not until done).  -EINVAL repeats the bad words, -EBUSY. */
int sched_ctl(struct sched *s, const char *job, const char *line,
	      struct err *e) MUST_CHECK;
/* rm -r jobs/<id>: -EBUSY while it runs. */
int sched_remove(struct sched *s, const char *job, struct err *e) MUST_CHECK;

#endif
