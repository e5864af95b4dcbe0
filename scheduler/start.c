// SPDX-License-Identifier: Apache-2.0
/* The scheduler begins, with what a former one has left, and ends. */
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <time.h>

#include "lib/fileio.h"
#include "lib/json.h"
#include "lib/log.h"

#include "scheduler/engine.h"
#include "scheduler/model.h"

#define END_S 10 /* a thread at the end: the copy of a large model */

static void resume(struct sched *s)
{
	for (struct job *j = s->jobs; j; j = j->next) {
		if (status_ended(j->status))
			continue;
		job_event(j, "rollfs is back");
		j->reserved = j->status == ST_RUNNING;
		cores_count(s);
		/* All that live are known before any end is looked at, which
		 * may end the job and with it the others. */
		for (size_t i = 0; i < j->n_tasks; i++) {
			struct task *t = &j->tasks[i];

			if (t->local && t->status == ST_RUNNING)
				task_adopt(s, j, t);
			if (t->pid && t->want > t->attempt)
				task_stop(s, j, t, ST_CANCELED);
		}
		if (j->end_as != ST_WAITING)
			job_finish(s, j, j->end_as);
		for (size_t i = 0; i < j->n_tasks; i++)
			if (j->tasks[i].pid == TASK_GONE)
				task_reap(s, j, &j->tasks[i]);
		if (status_ended(j->status))
			continue;
		for (size_t i = 0; i < j->n_tasks && !j->ours; i++)
			if (j->tasks[i].local &&
			    status_ended(j->tasks[i].status))
				party_report(s, j, &j->tasks[i]);
		if (!j->ours || j->status != ST_RUNNING || j->ending)
			continue;
		/* Of a component that was being started when we died. */
		for (size_t i = 0; i < j->n_tasks && !j->ending; i++) {
			struct task *t = &j->tasks[i];

			unsigned k = next_attempt(j, t->component);
			bool begun = false;

			for (size_t m = 0; m < j->n_tasks; m++)
				begun |= !strcmp(j->tasks[m].component,
						 t->component) &&
					 j->tasks[m].status == ST_RUNNING &&
					 j->tasks[m].attempt == k;
			if (t->local && t->status == ST_WAITING && begun)
				task_begin(s, j, t, k);
		}
		/* Ask again for what runs elsewhere: the answer says how far
		 * it is. */
		for (size_t i = 0; i < j->n_tasks; i++)
			if (!j->tasks[i].local &&
			    j->tasks[i].status == ST_RUNNING)
				party_task_start(s, j, j->tasks[i].component);
		job_advance(s, j);
	}
	queue_run(s);
}

static void start_event(struct sched *s, void *arg)
{
	(void)arg;
	resume(s);
}

/* {"Module": {...}}: what /components shows. */
static json_t *modules_of(const json_t *describe)
{
	json_t *out = json_object(), *c;
	size_t i;

	json_array_foreach (json_object_get(describe, "components"), i, c)
		json_object_set(out, json_str_or(c, "module", ""), c);
	return out;
}

int sched_start(const struct sched_options *o, struct sched **ret,
		struct err *e)
{
	struct sched *s = xcalloc(1, sizeof(*s));
	int r;

	s->o = *o;
	s->party = o->conf->party;
	s->cores_free = o->conf->cores;
	s->events_tail = &s->events;
	s->poke = json_object();
	s->jobs_dir = xasprintf("%s/jobs", o->conf->state);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	r = mkdir_p_durable(s->jobs_dir, 0700, e);
	if (r)
		return r;
	s->describe = task_ask(o->task_program, "--describe", NULL, e);
	if (!s->describe)
		return -EIO;
	describe_complete(s->describe);
	s->modules = modules_of(s->describe);
	s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->wake < 0)
		return err_sys(e, errno, "eventfd");
	r = jobs_load(s, e);
	if (r)
		return r;
	model_sweep(s);
	sched_post(s, start_event, NULL);
	if (pthread_create(&s->thread, NULL, sched_loop, s))
		return err_set(e, EAGAIN,
			       "cannot start the scheduler's "
			       "thread");
	transfer_serve(o->transfer, party_handler, s);
	*ret = s;
	return 0;
}

void sched_stop(struct sched *s, bool stop_tasks)
{
	uint64_t one = 1;

	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	sched_prepare_stop(s);
	pthread_cond_broadcast(&s->changed);
	for (struct job *j = s->jobs; j; j = j->next) {
		for (size_t i = 0; stop_tasks && i < j->n_tasks; i++)
			if (j->tasks[i].pid)
				kill(-j->tasks[i].pid, SIGTERM);
		while (j->waiters) {
			struct waiter *w = j->waiters;

			j->waiters = w->next;
			w->cb(w->arg, status_name(j->status));
			free(w->role);
			free(w->component);
			free(w);
		}
	}
	pthread_mutex_unlock(&s->lock);
	(void)!write(s->wake, &one, sizeof(one));
	pthread_join(s->thread, NULL);
	pthread_mutex_lock(&s->lock); /* calls still come in */
	if (stop_tasks) {
		struct timespec pause = { 0, 5000000 };

		for (int k = 0; k < 100; k++) {
			bool any = false;

			for (struct job *j = s->jobs; j; j = j->next)
				for (size_t i = 0; i < j->n_tasks; i++) {
					struct pollfd p = {
						.fd = j->tasks[i].pidfd,
						.events = POLLIN
					};

					any |= j->tasks[i].pid && p.fd >= 0 &&
					       poll(&p, 1, 0) == 0;
				}
			if (!any)
				break;
			pthread_mutex_unlock(&s->lock);
			nanosleep(&pause, NULL);
			pthread_mutex_lock(&s->lock);
		}
		for (struct job *j = s->jobs; j; j = j->next)
			for (size_t i = 0; i < j->n_tasks; i++)
				if (j->tasks[i].pid)
					kill(-j->tasks[i].pid, SIGKILL);
	}
	pthread_mutex_unlock(&s->lock);
}

bool sched_end(struct sched *s)
{
	struct timespec until;
	bool ended;

	if (!s)
		return true;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += END_S;
	pthread_mutex_lock(&s->lock);
	while (s->threads && pthread_cond_timedwait(&s->changed, &s->lock,
						    &until) != ETIMEDOUT)
		;
	ended = !s->threads;
	if (!ended)
		log_warn("scheduler", "%u threads have not ended", s->threads);
	pthread_mutex_unlock(&s->lock);
	return ended;
}

struct thread {
	struct sched *s;
	void *(*fn)(void *);
	void *arg;
};

static void *run_thread(void *arg)
{
	struct thread *t = arg;
	struct sched *s = t->s;

	t->fn(t->arg);
	free(t);
	pthread_mutex_lock(&s->lock);
	s->threads--;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

int sched_thread(struct sched *s, size_t stack, void *(*fn)(void *), void *arg)
{
	struct thread *t = xcalloc(1, sizeof(*t));
	pthread_attr_t a;
	pthread_t id;
	int no;

	*t = (struct thread){ s, fn, arg };
	s->threads++;
	pthread_attr_init(&a);
	pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&a, stack);
	no = pthread_create(&id, &a, run_thread, t);
	pthread_attr_destroy(&a);
	if (no) {
		s->threads--;
		free(t);
	}
	return -no;
}

void sched_pause(struct sched *s, unsigned ms)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long)ms * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&s->lock);
	while (!s->stopping && pthread_cond_timedwait(&s->changed, &s->lock,
						      &until) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&s->lock);
}
