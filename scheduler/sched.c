// SPDX-License-Identifier: Apache-2.0
/* The loop, and the life of a job. */
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <time.h>

#include "lib/fileio.h"
#include "lib/json.h"
#include "lib/log.h"

#include "scheduler/engine.h"

#define HOUR_MS 3600000

/* ---- finding and telling ------------------------------------------------- */

struct job *job_find(struct sched *s, const char *id)
{
	struct job *j;

	for (j = s->jobs; j; j = j->next)
		if (!strcmp(j->id, id))
			return j;
	return NULL;
}

struct task *task_find(const struct job *j, const char *role,
		       const char *component, const char *party)
{
	for (size_t i = 0; i < j->n_tasks; i++)
		if (!strcmp(j->tasks[i].component, component) &&
		    !strcmp(j->tasks[i].role, role) &&
		    !strcmp(j->tasks[i].party, party))
			return &j->tasks[i];
	return NULL;
}

void job_insert(struct sched *s, struct job *j)
{
	struct job **p;

	for (p = &s->jobs; *p && strcmp((*p)->id, j->id) < 0; p = &(*p)->next)
		;
	j->next = *p;
	*p = j;
}

void job_changed(struct sched *s, struct job *j)
{
	j->changed_ms = now_unix_ms();
	pthread_cond_broadcast(&s->changed);
	if (s->o.changed)
		s->o.changed(s->o.arg, j->id);
}

void job_add_error(struct sched *s, struct job *j, const char *fmt, ...)
{
	char text[1600];
	json_t *v;
	va_list ap;
	size_t i;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ')
			*p = ' ';
	json_array_foreach (j->errors, i, v)
		if (!strcmp(json_string_value(v), text))
			return;
	json_array_append_new(j->errors, json_string(text));
	job_event(j, "error: %s", text);
	(void)s;
}

void waiters_answer(struct sched *s, struct job *j)
{
	struct waiter **p = &j->waiters;

	while (*p) {
		struct waiter *w = *p;
		enum status st = j->status;

		if (w->component) {
			const struct task *t =
			    task_find(j, w->role, w->component, s->party);

			st = t ? t->status : ST_FAILED;
		}
		if (!status_ended(st)) {
			p = &w->next;
			continue;
		}
		*p = w->next;
		w->cb(w->arg, status_name(st));
		free(w->role);
		free(w->component);
		free(w);
	}
}

/* ---- cores ----------------------------------------------------------------
 */

bool cores_take(struct sched *s, struct job *j)
{
	if (j->reserved)
		return true;
	if (s->cores_free < j->cores)
		return false;
	s->cores_free -= j->cores;
	j->reserved = true;
	return true;
}

/* Counted anew, so that fewer cores in the configuration than jobs had when
 * rollfs was stopped never make more of them later. */
void cores_count(struct sched *s)
{
	unsigned used = 0;

	for (const struct job *j = s->jobs; j; j = j->next)
		used += j->reserved ? j->cores : 0;
	s->cores_free = s->o.conf->cores - MIN(used, s->o.conf->cores);
}

void cores_give(struct sched *s, struct job *j)
{
	if (!j->reserved)
		return;
	j->reserved = false;
	cores_count(s);
}

static void set_why(struct job *j, const char *fmt, ...)
{
	va_list ap;

	free(j->why);
	va_start(ap, fmt);
	if (vasprintf(&j->why, fmt, ap) < 0)
		j->why = NULL;
	va_end(ap);
}

/* Every waiting job of ours that can start does: first in, first out, and a
 * small one may pass a big one that does not fit yet. */
void queue_run(struct sched *s)
{
	for (struct job *j = s->jobs; j; j = j->next)
		if (j->ours && j->status == ST_WAITING && !j->creating &&
		    !j->ending)
			job_begin(s, j);
}

/* Those that wait for cores here; the others have their own time. */
void queue_run_here(struct sched *s)
{
	for (struct job *j = s->jobs; j; j = j->next)
		if (j->ours && j->status == ST_WAITING && !j->creating &&
		    !j->ending && !j->next_retry)
			job_begin(s, j);
}

static void queue_event(struct sched *s, void *arg)
{
	(void)arg;
	queue_run_here(s);
}

void queue_post(struct sched *s)
{
	sched_post(s, queue_event, NULL);
}

void job_begin(struct sched *s, struct job *j)
{
	j->next_retry = 0;
	if (!cores_take(s, j)) {
		set_why(j, "needs %u cores here, %u of %u are free", j->cores,
			s->cores_free, s->o.conf->cores);
		job_changed(s, j);
		return;
	}
	set_why(j, "asking the partners");
	j->creating = true;
	party_create(s, j);
}

/* ---- tasks ------------------------------------------------------------------
 */

static json_t *component_of(const struct job *j, const char *name)
{
	return json_object_get(json_object_get(j->plan, "components"), name);
}

static bool component_done(const struct job *j, const char *name)
{
	for (size_t i = 0; i < j->n_tasks; i++)
		if (!strcmp(j->tasks[i].component, name) &&
		    j->tasks[i].status != ST_SUCCESS &&
		    j->tasks[i].status != ST_PASS)
			return false;
	return true;
}

static bool component_has(const struct job *j, const char *name, enum status st)
{
	for (size_t i = 0; i < j->n_tasks; i++)
		if (!strcmp(j->tasks[i].component, name) &&
		    j->tasks[i].status == st)
			return true;
	return false;
}

void task_begin(struct sched *s, struct job *j, struct task *t,
		unsigned attempt)
{

	if (t->pid) {
		if (attempt > t->attempt) {
			t->want = attempt;
			task_stop(s, j, t, ST_CANCELED);
		}
		return;
	}
	t->attempt = t->want = attempt;
	t->reported = false;
	free(t->error);
	t->error = NULL;
	/* Whoever comes after us must know before there is a process; also when
	 * the power went, for an attempt's messages are there only once. */
	t->status = ST_RUNNING;
	job_save(s, j, true);
	if (!task_spawn(s, j, t))
		task_moved(s, j, t, ST_RUNNING, NULL, NULL);
}

static void component_start(struct sched *s, struct job *j, const char *name,
			    unsigned attempt)
{
	job_event(j, "%s starts%s", name, attempt ? " again" : "");
	for (size_t i = 0; i < j->n_tasks; i++) {
		struct task *t = &j->tasks[i];

		if (strcmp(t->component, name) || t->local)
			continue;
		t->attempt = t->want = attempt;
		t->status = ST_RUNNING;
	}
	party_task_start(s, j, name);
	for (size_t i = 0; i < j->n_tasks; i++) {
		struct task *t = &j->tasks[i];

		if (!strcmp(t->component, name) && t->local && !j->ending)
			task_begin(s, j, t, attempt);
	}
}

/* When its next attempt may start: 0 = now. */
static int64_t component_pause(const struct job *j, const char *name)
{
	int64_t at = 0;

	for (size_t i = 0; i < j->n_tasks; i++)
		if (!strcmp(j->tasks[i].component, name))
			at = MAX(at, j->tasks[i].not_before);
	return at > now_mono_ms() ? at : 0;
}

unsigned next_attempt(const struct job *j, const char *name)
{
	unsigned k = 0;

	for (size_t i = 0; i < j->n_tasks; i++)
		if (!strcmp(j->tasks[i].component, name))
			k = MAX(k, j->tasks[i].want);
	return k;
}

static bool upstream_done(const struct job *j, const char *name)
{
	json_t *v;
	size_t i;

	json_array_foreach (json_object_get(component_of(j, name), "upstream"),
			    i, v)
		if (!component_done(j, json_string_value(v)))
			return false;
	return true;
}

static void tell_error(struct sched *s, struct job *j, const struct task *t)
{
	job_add_error(s, j, "%s %s: %s: %s", t->role, t->party, t->component,
		      t->local && t->error ? t->error
		      : t->public	   ? t->public
					   : "failed");
}

/* What a task that did not end well makes of its job. */
static enum status job_end_by(struct sched *s, struct job *j,
			      const struct task *t)
{
	/* That is not by us: the partner has ended the job. */
	if (t->status == ST_CANCELED && t->public) {
		tell_error(s, j, t);
		return t->code ? ST_FAILED : ST_CANCELED;
	}
	return t->status;
}

void job_advance(struct sched *s, struct job *j)
{
	json_t *order = json_object_get(j->plan, "order"), *v;
	int64_t at_once =
	    json_int_or(json_object_get(j->plan, "job"), "task_parallelism", 1);
	int64_t running = 0, at;
	bool done = true;
	size_t i;

	if (!j->ours || j->status != ST_RUNNING || j->ending)
		return;
	for (i = 0; i < j->n_tasks; i++) {
		enum status st = j->tasks[i].status;

		if (st == ST_FAILED || st == ST_CANCELED || st == ST_TIMEOUT) {
			job_finish(s, j, job_end_by(s, j, &j->tasks[i]));
			return;
		}
	}
	j->next_retry = 0;
	json_array_foreach (order, i, v)
		running += component_has(j, json_string_value(v), ST_RUNNING);
	json_array_foreach (order, i, v) {
		const char *name = json_string_value(v);

		if (component_done(j, name))
			continue;
		done = false;
		if (running >= at_once || component_has(j, name, ST_RUNNING) ||
		    !upstream_done(j, name))
			continue;
		/* Only this component waits for its retry. */
		at = component_pause(j, name);
		if (at) {
			if (!j->next_retry || at < j->next_retry)
				j->next_retry = at;
			continue;
		}
		running++;
		component_start(s, j, name, next_attempt(j, name));
		if (j->ending || status_ended(j->status))
			return; /* it could not be started */
	}
	if (done)
		job_finish(s, j, ST_SUCCESS);
}

struct closing {
	struct sched *s;
	struct transfer *t;
	char *what;
	bool job;
};

static void *close_thread(void *arg)
{
	struct closing *c = arg;
	struct job *j;
	struct err e;

	if (c->job ? transfer_job_close(c->t, c->what, &e)
		   : transfer_session_close(c->t, c->what, &e))
		log_warn("scheduler", "%s", e.text);
	pthread_mutex_lock(&c->s->lock);
	j = c->job ? job_find(c->s, c->what) : NULL;
	if (j)
		j->closing = false;
	pthread_cond_broadcast(&c->s->changed);
	pthread_mutex_unlock(&c->s->lock);
	free(c->what);
	free(c);
	return NULL;
}

/* rollsite may be away for a moment: not a thing to hold the loop up. */
static void close_messages(struct sched *s, char *what, bool job)
{
	struct closing *c = xcalloc(1, sizeof(*c));

	*c = (struct closing){
		.s = s, .t = s->o.transfer, .what = what, .job = job
	};
	if (sched_thread(s, 256u << 10, close_thread, c)) {
		struct job *j = job ? job_find(s, what) : NULL;

		if (j)
			j->closing = false;
		free(c->what);
		free(c);
	}
}

/* A rerun must not open its messages before the end has closed them. */
struct job *job_wait_closed(struct sched *s, const char *id)
{
	struct timespec until;
	struct job *j;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 5;
	while ((j = job_find(s, id)) && j->closing &&
	       pthread_cond_timedwait(&s->changed, &s->lock, &until) !=
		   ETIMEDOUT)
		;
	return job_find(s, id);
}

static int64_t auto_retries(const struct job *j)
{
	return json_int_or(json_object_get(j->plan, "job"), "auto_retries", 0);
}

/* auto_retries: all parties try the component again. */
static bool retry(struct sched *s, struct job *j, const struct task *t)
{
	json_t *job = json_object_get(j->plan, "job");
	int64_t delay_ms =
	    (int64_t)(1000 * json_num_or(job, "auto_retry_delay", 1));
	unsigned attempt = t->attempt;

	if (!j->ours || j->ending || status_ended(j->status) ||
	    (int64_t)attempt >= auto_retries(j))
		return false;
	job_event(j, "%s failed at %s-%s (%s); attempt %u follows in %.1f s",
		  t->component, t->role, t->party,
		  t->public ? t->public : "failed", attempt + 1,
		  (double)delay_ms / 1000);
	for (size_t i = 0; i < j->n_tasks; i++) {
		struct task *u = &j->tasks[i];

		if (strcmp(u->component, t->component))
			continue;
		u->want = attempt + 1;
		u->fresh = false;
		if (u->pid)
			task_stop(s, j, u, ST_CANCELED);
		else
			u->status = ST_WAITING;
		u->not_before = now_mono_ms() + MAX(delay_ms, 1);
	}
	close_messages(s, xasprintf("%s_%s_%u", j->id, t->component, attempt),
		       false);
	return true;
}

void task_moved(struct sched *s, struct job *j, struct task *t, enum status to,
		const char *code, const char *public)
{
	bool again = t->want > t->attempt;

	if (t->local && status_ended(to) && again && !j->ending &&
	    !status_ended(j->status)) {
		/* The old attempt is gone; at the initiator the retry's delay
		 * starts the next, elsewhere the initiator has asked for it. */
		t->status = ST_WAITING;
		if (!j->ours)
			task_begin(s, j, t, t->want);
		else
			job_advance(s, j);
		return;
	}
	if (t->status == to && to != ST_RUNNING)
		return;
	t->status = to;
	t->fresh &= !status_ended(to);
	free(t->code);
	free(t->public);
	t->code = code ? xstrdup(code) : NULL;
	t->public = public ? xstrdup(public) : NULL;
	job_event(j, "%s %s-%s %s%s%s", t->component, t->role, t->party,
		  status_name(to), public ? ": " : "", public ? public : "");
	if (to == ST_FAILED && !retry(s, j, t) &&
	    (j->ours || (int64_t)t->attempt >= auto_retries(j)))
		tell_error(s, j, t);
	if (t->local)
		task_write_status(j, t);
	job_write_status(j);
	job_save(s, j, false);
	waiters_answer(s, j);
	job_changed(s, j);
	if (t->local && !j->ours && status_ended(to))
		party_report(s, j, t);
	if (j->ending)
		job_try_done(s, j);
	else if (j->ours && status_ended(to))
		job_advance(s, j);
}

/* ---- the end
 * ------------------------------------------------------------------ */

static void done(struct sched *s, struct job *j)
{
	j->status = j->end_as;
	j->ending = j->kept = false;
	j->ended_ms = now_unix_ms();
	job_event(j, "job %s", status_name(j->status));
	job_write_status(j);
	job_save(s, j, true);
	cores_give(s, j);
	waiters_answer(s, j);
	j->closing = true;
	j->ends++;
	job_changed(s, j);
	close_messages(s, xstrdup(j->id), true);
	queue_run(s);
	party_poke(s);
}

void job_try_done(struct sched *s, struct job *j)
{
	if (!j->ending)
		return;
	for (size_t i = 0; i < j->n_tasks; i++)
		if (j->tasks[i].pid)
			return;
	/* Beside the calls to the partners, which do the same. */
	if (j->models && !j->keeping && !j->kept)
		models_keep(s, j);
	if (!j->pending && !j->keeping)
		done(s, j);
}

void job_finish(struct sched *s, struct job *j, enum status as)
{
	if (j->ending || status_ended(j->status))
		return;
	j->ending = true;
	j->end_as = as;
	j->creating = false;
	j->pending = 0;
	j->next_retry = 0;
	for (size_t i = 0; i < j->n_tasks; i++) {
		struct task *t = &j->tasks[i];

		t->want = t->attempt;
		if (status_ended(t->status))
			continue;
		if (t->local && t->pid) {
			task_stop(s, j, t,
				  as == ST_TIMEOUT ? ST_TIMEOUT : ST_CANCELED);
			continue;
		}
		t->status = t->status == ST_RUNNING
				? (as == ST_TIMEOUT ? ST_TIMEOUT : ST_CANCELED)
			    : as == ST_CANCELED ? ST_CANCELED
						: ST_SKIPPED;
		if (t->local)
			task_write_status(j, t);
	}
	if (j->ours && !j->models)
		j->models = models_made(j);
	/* Said and not done yet: a new rollfs goes on with the end. */
	job_save(s, j, false);
	/* One that waits in the queue may wait at the partners as well. */
	if (j->ours && j->told)
		party_stop(s, j);
	job_try_done(s, j);
}

void job_reopen(struct sched *s, struct job *j)
{
	j->status = ST_WAITING;
	j->run += j->ours; /* a partner is told */
	j->heard = now_mono_ms();
	j->started_ms = 0;
	json_decref(j->models);
	j->models = NULL;
	j->next_retry = 0;
	j->alone = NULL;
	json_array_clear(j->errors);
	for (size_t i = 0; i < j->n_tasks; i++) {
		struct task *t = &j->tasks[i];

		if (t->status == ST_SUCCESS || t->status == ST_PASS)
			continue;
		t->status = ST_WAITING;
		t->not_before = 0;
		free(t->error);
		t->error = NULL;
		if (t->local)
			task_write_status(j, t);
	}
	for (size_t i = 0; i < j->n_others; i++)
		j->contact[i] = now_mono_ms();
	job_write_status(j);
	job_save(s, j, true);
	job_changed(s, j);
}

/* ---- the loop
 * ------------------------------------------------------------------ */

void sched_post(struct sched *s, void (*fn)(struct sched *, void *), void *arg)
{
	struct event *x = xcalloc(1, sizeof(*x));
	uint64_t one = 1;

	x->fn = fn;
	x->arg = arg;
	pthread_mutex_lock(&s->lock);
	*s->events_tail = x;
	s->events_tail = &x->next;
	pthread_mutex_unlock(&s->lock);
	(void)!write(s->wake, &one, sizeof(one));
}

static void soonest(int64_t *at, int64_t when)
{
	if (when && (!*at || when < *at))
		*at = when;
}

/* What is due is done; returns when to look again (monotonic ms, 0 never). */
static int64_t timers(struct sched *s)
{
	int64_t now = now_mono_ms(), at = 0;
	int64_t lease = (int64_t)s->o.conf->lease_s * 1000;
	bool live = false;

	for (struct job *j = s->jobs; j; j = j->next) {
		int64_t limit =
		    1000 * json_int_or(json_object_get(j->plan, "job"),
				       "timeout", 259200);

		for (size_t i = 0; i < j->n_tasks; i++) {
			struct task *t = &j->tasks[i];

			if (t->pid && t->kill_at && t->kill_at <= now) {
				kill(-t->pid, SIGKILL);
				t->kill_at = 0;
			}
			soonest(&at, t->pid ? t->kill_at : 0);
		}
		if (status_ended(j->status) || j->ending)
			continue;
		/* One that waits here may be known there, and lives on. */
		live |= j->ours && j->told;
		if (j->status == ST_RUNNING) {
			int64_t end = j->started_ms + limit;

			if (j->ours && now_unix_ms() >= end) {
				job_add_error(s, j,
					      "the job ran longer than its "
					      "timeout of %lld s",
					      (long long)(limit / 1000));
				job_finish(s, j, ST_TIMEOUT);
				continue;
			}
			soonest(&at, now + (end - now_unix_ms()));
		}
		for (size_t i = 0;
		     j->ours && j->status == ST_RUNNING && i < j->n_others;
		     i++) {
			if (now - j->contact[i] < lease) {
				soonest(&at, j->contact[i] + lease);
				continue;
			}
			job_add_error(s, j,
				      "party %s has not answered for %u s",
				      j->others[i], s->o.conf->lease_s);
			job_finish(s, j, ST_FAILED);
			break;
		}
		if (!j->ours && now - j->heard >= lease) {
			job_add_error(s, j,
				      "the initiator, party %s, has been "
				      "silent for %u s",
				      j->initiator, s->o.conf->lease_s);
			j->alone = "ended, for the initiator has been silent "
				   "for longer than the lease there";
			job_finish(s, j, ST_FAILED);
		} else if (!j->ours) {
			soonest(&at, j->heard + lease);
		}
		if (j->next_retry && j->next_retry <= now) {
			j->next_retry = 0;
			if (j->status == ST_WAITING)
				job_begin(s, j);
			else
				job_advance(s, j);
		}
		soonest(&at, j->next_retry);
	}
	if (live) {
		if (s->next_lease <= now) {
			party_leases(s);
			s->next_lease = now + lease / 6;
		}
		soonest(&at, s->next_lease);
	}
	return at;
}

static void run_events(struct sched *s)
{
	while (s->events) {
		struct event *x = s->events;

		s->events = x->next;
		if (!s->events)
			s->events_tail = &s->events;
		x->fn(s, x->arg);
		free(x);
	}
}

struct watch {
	char job[41];
	size_t task;
};

static size_t gather(struct sched *s, struct pollfd **fds, struct watch **w)
{
	size_t n = 1;

	for (struct job *j = s->jobs; j; j = j->next)
		for (size_t i = 0; i < j->n_tasks; i++)
			n += j->tasks[i].pid && j->tasks[i].pidfd >= 0;
	*fds = xcalloc(n, sizeof(**fds));
	*w = xcalloc(n, sizeof(**w));
	(*fds)[0] = (struct pollfd){ .fd = s->wake, .events = POLLIN };
	n = 1;
	for (struct job *j = s->jobs; j; j = j->next)
		for (size_t i = 0; i < j->n_tasks; i++) {
			if (!j->tasks[i].pid || j->tasks[i].pidfd < 0)
				continue;
			(*fds)[n] = (struct pollfd){ .fd = j->tasks[i].pidfd,
						     .events = POLLIN };
			memcpy((*w)[n].job, j->id, sizeof(j->id));
			(*w)[n++].task = i;
		}
	return n;
}

/* What tasks have kept for later ones, STATE/cache/<whose>/<file>, goes when it
 * is old also if no task looks at it again. */
static void expire_caches(const struct conf *conf)
{
	_cleanup_free_ char *cache = xasprintf("%s/cache", conf->state);
	_cleanup_closedir_ DIR *d = opendir(cache);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *dir =
		    xasprintf("%s/%s", cache, de->d_name);

		if (de->d_name[0] != '.')
			dir_expire(dir, conf->cache_days, SIZE_MAX);
	}
}

void *sched_loop(void *arg)
{
	struct sched *s = arg;
	int64_t next_expiry = 0;

	pthread_mutex_lock(&s->lock);
	while (!s->stopping) {
		struct pollfd *fds;
		struct watch *w;
		uint64_t count;
		int64_t at, wait;
		size_t n;

		run_events(s);
		at = timers(s);
		if (s->events)
			continue;
		n = gather(s, &fds, &w);
		pthread_mutex_unlock(&s->lock);
		if (next_expiry <= now_mono_ms()) {
			expire_caches(s->o.conf);
			next_expiry = now_mono_ms() + HOUR_MS;
		}
		soonest(&at, next_expiry);
		wait = MAX(at - now_mono_ms(), 0);
		(void)poll(fds, n, (int)MIN(wait, HOUR_MS));
		if (fds[0].revents)
			(void)!read(s->wake, &count, sizeof(count));
		pthread_mutex_lock(&s->lock);
		for (size_t i = 1; i < n; i++) {
			struct job *j =
			    fds[i].revents ? job_find(s, w[i].job) : NULL;
			struct task *t = j ? &j->tasks[w[i].task] : NULL;

			if (t && t->pid && t->pidfd == fds[i].fd)
				task_reap(s, j, t);
		}
		free(fds);
		free(w);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}
