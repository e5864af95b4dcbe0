// SPDX-License-Identifier: Apache-2.0
/* The same job at the other parties: the calls out. */
#include <sys/random.h>
#include <time.h>

#include "lib/fileio.h"
#include "lib/json.h"
#include "lib/log.h"

#include "scheduler/engine.h"

#define CALL_MS	 5000
#define AGAIN_MS 500 /* pause before a call to a lost partner is repeated */

struct call {
	struct sched *s;
	char job[41];
	char *party, *component, *role;
	unsigned attempt, run;
	int status;
	json_t *body;
	struct err e;
	void (*fn)(struct sched *s, struct job *j, struct call *c);
};

static void call_free(struct call *c)
{
	free(c->party);
	free(c->component);
	free(c->role);
	json_decref(c->body);
	free(c);
}

static void on_create(struct sched *s, struct job *j, struct call *c);
static void stop_stray(struct sched *s, struct call *c, enum status as);

static void on_loop(struct sched *s, void *arg)
{
	struct call *c = arg;
	struct job *j = job_find(s, c->job);

	if (j && !c->status)
		for (size_t i = 0; i < j->n_others; i++)
			if (!strcmp(j->others[i], c->party))
				j->contact[i] = now_mono_ms();
	if (j && c->fn)
		c->fn(s, j, c);
	else if (!j && c->fn == on_create && !c->status)
		stop_stray(s, c, ST_CANCELED); /* removed meanwhile */
	call_free(c);
}

static void on_answer(void *arg, int status, json_t *body, const struct err *e)
{
	struct call *c = arg;

	c->status = status;
	c->body = json_deep_copy(body); /* theirs is another thread's */
	if (status)
		c->e = *e;
	sched_post(c->s, on_loop, c);
}

static struct call *
call_new(struct sched *s, const struct job *j, const char *party,
	 void (*fn)(struct sched *, struct job *, struct call *))
{
	struct call *c = xcalloc(1, sizeof(*c));

	c->s = s;
	c->fn = fn;
	memcpy(c->job, j->id, sizeof(c->job));
	c->party = xstrdup(party);
	return c;
}

static void send_call(struct call *c, const char *verb, json_t *body,
		      unsigned ms)
{
	transfer_rpc(c->s->o.transfer, c->party, verb, body, ms, on_answer, c);
	json_decref(body);
}

/* A call that must get through is repeated after a pause, by the loop's
 * timers being woken: the pause is a thread's sleep in nobody's way. */
struct later {
	struct sched *s;
	char job[41];
	char *component;
	char *role;
	void (*fn)(struct sched *s, struct job *j, struct later *l);
};

static void later_on_loop(struct sched *s, void *arg)
{
	struct later *l = arg;
	struct job *j = job_find(s, l->job);

	if (j)
		l->fn(s, j, l);
	free(l->component);
	free(l->role);
	free(l);
}

static void *later_thread(void *arg)
{
	struct later *l = arg;

	sched_pause(l->s, AGAIN_MS);
	sched_post(l->s, later_on_loop, l);
	return NULL;
}

static void later(struct sched *s, const struct job *j, const char *component,
		  const char *role,
		  void (*fn)(struct sched *, struct job *, struct later *))
{
	struct later *l = xcalloc(1, sizeof(*l));

	l->s = s;
	memcpy(l->job, j->id, sizeof(l->job));
	l->component = xstrdup(component);
	l->role = xstrdup(role);
	l->fn = fn;
	if (sched_thread(s, 128u << 10, later_thread, l))
		later_on_loop(s, l);
}

/* ---- create and release ---------------------------------------------------
 */

bool party_plays(const struct job *j, const char *role, const char *party)
{
	json_t *list = json_object_get(json_object_get(j->plan, "roles"), role);
	json_t *v;
	size_t i;

	json_array_foreach (list, i, v)
		if (!strcmp(json_string_value(v), party))
			return true;
	return false;
}

static void started(struct sched *s, struct job *j)
{
	j->status = ST_RUNNING;
	j->started_ms = now_unix_ms();
	for (size_t i = 0; i < j->n_others; i++)
		j->contact[i] = now_mono_ms();
	job_event(j, "job running, %u cores here", j->cores);
	job_write_status(j);
	job_save(s, j, false);
	job_changed(s, j);
	job_advance(s, j);
}

static unsigned dice(void)
{
	unsigned x;

	if (getrandom(&x, sizeof(x), GRND_NONBLOCK) != (ssize_t)sizeof(x))
		x = (unsigned)now_unix_ms();
	return x & 0x7fffffff;
}

static void created(struct sched *s, struct job *j)
{
	j->creating = false;
	if (json_array_size(j->errors)) {
		/* The partners that have it must forget it again. */
		j->creating = true;
		job_finish(s, j, ST_FAILED);
		return;
	}
	if (j->all_reserved) {
		started(s, j);
		return;
	}
	cores_give(s, j);
	party_release(s, j);
	/* A lost poke does no harm; two parties that stand in each other's way
	 * do not meet again. */
	j->next_retry = now_mono_ms() + 2000 + dice() % 4000;
	job_changed(s, j);
	/* What it gave back may do for another. */
	queue_run_here(s);
}

static void on_create(struct sched *s, struct job *j, struct call *c)
{
	if (!j->creating) {
		/* It ended while this answer was on its way, and our stop may
		 * have come before the create: say it again. */
		if (!c->status && (j->ending || status_ended(j->status)))
			stop_stray(s, c, j->ending ? j->end_as : j->status);
		return;
	}
	if (c->attempt != j->round)
		return; /* of a run that was canceled */
	if (c->status) {
		job_add_error(s, j, "%s",
			      *c->e.text ? c->e.text : "a partner refused");
	} else if (!json_bool_or(c->body, "reserved", false)) {
		j->all_reserved = false;
		free(j->why);
		j->why = xasprintf(
		    "party %s: needs %lld cores there, %lld are free", c->party,
		    (long long)json_int_or(c->body, "need", 0),
		    (long long)json_int_or(c->body, "free", 0));
	}
	if (!--j->pending)
		created(s, j);
}

static void ignore_answer(void *arg, int status, json_t *body,
			  const struct err *e)
{
	(void)arg;
	(void)status;
	(void)body;
	(void)e;
}

/* A partner has just made a job that has ended here. */
static void stop_stray(struct sched *s, struct call *c, enum status as)
{
	json_t *body =
	    json_pack("{s:s, s:s, s:I, s:[]}", "job", c->job, "status",
		      status_name(as), "run", (json_int_t)c->run, "errors");

	transfer_rpc(s->o.transfer, c->party, "stop", body, STOP_MS,
		     ignore_answer, NULL);
	json_decref(body);
}

void party_create(struct sched *s, struct job *j)
{
	j->pending = (unsigned)j->n_others;
	j->all_reserved = true;
	j->told = j->n_others > 0;
	j->round = dice();
	for (size_t i = 0; i < j->n_others; i++) {
		const char *p = j->others[i];
		bool secret =
		    party_plays(j, "guest", p) || party_plays(j, "host", p);
		struct call *c = call_new(s, j, p, on_create);

		c->attempt = j->round;
		c->run = j->run;
		send_call(c, "create",
			  json_pack("{s:s, s:i, s:I, s:I, s:O, s:o, s:s*}",
				    "job", j->id, "round", (int)j->round, "run",
				    (json_int_t)j->run, "created_ms",
				    (json_int_t)j->created_ms, "dsl", j->dsl,
				    "conf", conf_slice(j->conf, p), "secret",
				    secret ? j->secret : NULL),
			  CALL_MS);
	}
	if (!j->pending)
		created(s, j);
}

void party_release(struct sched *s, struct job *j)
{
	for (size_t i = 0; i < j->n_others; i++)
		send_call(call_new(s, j, j->others[i], NULL), "release",
			  json_pack("{s:s, s:i}", "job", j->id, "round",
				    (int)j->round),
			  CALL_MS);
}

/* ---- tasks ------------------------------------------------------------------
 */

static void task_start_at(struct sched *s, struct job *j, const char *component,
			  const char *party);

/* Only where it failed, or two silent partners double the calls each time. */
static void start_again(struct sched *s, struct job *j, struct later *l)
{
	if (j->status == ST_RUNNING && !j->ending)
		task_start_at(s, j, l->component, l->role);
}

void party_take_status(struct sched *s, struct job *j, const char *party,
		       const char *component, unsigned attempt, const json_t *o)
{
	struct task *t =
	    task_find(j, json_str_or(o, "role", ""), component, party);
	enum status st = status_of(json_str_or(o, "status", ""));

	if (!t || t->local || t->attempt != attempt || t->want > attempt ||
	    status_ended(t->status) || !status_ended(st))
		return;
	task_moved(s, j, t, st, json_str_or(o, "code", NULL),
		   json_str_or(o, "public", NULL));
}

static void on_task_start(struct sched *s, struct job *j, struct call *c)
{
	json_t *o;
	size_t i;

	if (j->ending || status_ended(j->status))
		return;
	if (c->status == -EACCES || c->status == -EINVAL) {
		job_add_error(s, j, "%s: %s", c->component, c->e.text);
		job_finish(s, j, ST_FAILED);
		return;
	}
	if (c->status) {
		later(s, j, c->component, c->party, start_again);
		return;
	}
	json_array_foreach (json_object_get(c->body, "tasks"), i, o)
		party_take_status(s, j, c->party, c->component, c->attempt, o);
}

static void task_start_at(struct sched *s, struct job *j, const char *component,
			  const char *party)
{
	const struct task *t = NULL;
	struct call *c;

	for (size_t k = 0; k < j->n_tasks && !t; k++)
		if (!strcmp(j->tasks[k].component, component) &&
		    !strcmp(j->tasks[k].party, party) &&
		    j->tasks[k].status == ST_RUNNING)
			t = &j->tasks[k];
	if (!t)
		return;
	c = call_new(s, j, party, on_task_start);
	c->component = xstrdup(component);
	c->attempt = t->attempt;
	send_call(c, "task-start",
		  json_pack("{s:s, s:s, s:i, s:b}", "job", j->id, "component",
			    component, "attempt", (int)t->attempt, "fresh",
			    t->fresh),
		  CALL_MS);
}

void party_task_start(struct sched *s, struct job *j, const char *component)
{
	for (size_t i = 0; i < j->n_others; i++)
		task_start_at(s, j, component, j->others[i]);
}

static void report_again(struct sched *s, struct job *j, struct later *l)
{
	struct task *t = task_find(j, l->role, l->component, s->party);

	/* The next attempt may run by now: its end is what is told then. */
	if (t && !t->reported && status_ended(t->status) &&
	    !status_ended(j->status) && !j->ending)
		party_report(s, j, t);
}

static void on_report(struct sched *s, struct job *j, struct call *c)
{
	struct task *t = task_find(j, c->role, c->component, s->party);

	if (!t || t->attempt != c->attempt)
		return;
	if (c->status && c->status != -EACCES)
		later(s, j, c->component, c->role, report_again);
	else
		t->reported = true;
}

void party_report(struct sched *s, struct job *j, struct task *t)
{
	struct call *c = call_new(s, j, j->initiator, on_report);

	c->component = xstrdup(t->component);
	c->role = xstrdup(t->role);
	c->attempt = t->attempt;
	send_call(c, "task-status",
		  json_pack("{s:s, s:s, s:s, s:i, s:s, s:s*, s:s*}", "job",
			    j->id, "component", t->component, "role", t->role,
			    "attempt", (int)t->attempt, "status",
			    status_name(t->status), "code", t->code, "public",
			    t->public),
		  CALL_MS);
}

/* ---- the end
 * ------------------------------------------------------------------ */

static void on_stop(struct sched *s, struct job *j, struct call *c)
{
	if (c->status && c->status != -EACCES)
		job_event(j,
			  "party %s does not know yet that the job has "
			  "ended: %s",
			  c->party, c->e.text);
	if (j->pending)
		j->pending--;
	job_try_done(s, j);
}

static void stop_at(struct sched *s, struct job *j, const char *party,
		    void (*fn)(struct sched *, struct job *, struct call *))
{
	json_t *errors = json_array();

	/* Ours are for us: a partner gets fixed sentences only. */
	for (size_t k = 0; k < j->n_tasks; k++) {
		const struct task *t = &j->tasks[k];

		if (t->status == ST_FAILED)
			json_array_append_new(
			    errors,
			    json_pack("{s:s, s:s, s:s, s:s}", "role", t->role,
				      "party", t->party, "component",
				      t->component, "public",
				      t->public ? t->public : "failed"));
	}
	send_call(call_new(s, j, party, fn), "stop",
		  json_pack("{s:s, s:s, s:I, s:o, s:O*}", "job", j->id,
			    "status",
			    status_name(j->ending ? j->end_as : j->status),
			    "run", (json_int_t)j->run, "errors", errors,
			    "models", j->models),
		  STOP_MS);
}

void party_tell_end(struct sched *s, struct job *j, const char *party)
{
	stop_at(s, j, party, NULL);
}

void party_stop(struct sched *s, struct job *j)
{
	j->pending = (unsigned)j->n_others;
	for (size_t i = 0; i < j->n_others; i++)
		stop_at(s, j, j->others[i], on_stop);
}

static void on_cancel(struct sched *s, struct job *j, struct call *c)
{
	if (!c->status)
		return;
	/* The initiator cannot be reached: what runs here ends all the same;
	 * its lease ends the rest. */
	job_add_error(s, j,
		      "canceled here while the initiator could not be "
		      "reached");
	j->alone = "canceled there while the initiator could not be reached";
	job_finish(s, j, ST_CANCELED);
}

void party_cancel(struct sched *s, struct job *j)
{
	send_call(call_new(s, j, j->initiator, on_cancel), "cancel",
		  json_pack("{s:s}", "job", j->id), 1000);
}

/* ---- leases and cores
 * ----------------------------------------------------------- */

void party_leases(struct sched *s)
{
	for (struct job *j = s->jobs; j; j = j->next) {
		if (!j->ours || !j->told || status_ended(j->status) ||
		    j->ending)
			continue;
		for (size_t i = 0; i < j->n_others; i++)
			send_call(call_new(s, j, j->others[i], NULL), "lease",
				  json_pack("{s:[s]}", "jobs", j->id), CALL_MS);
	}
}

void party_poke(struct sched *s)
{
	json_t *list = s->poke, *v;
	const char *party;

	s->poke = json_object();
	json_object_foreach (list, party, v) {
		json_t *body = json_object();

		transfer_rpc(s->o.transfer, party, "poke", body, CALL_MS,
			     ignore_answer, NULL);
		json_decref(body);
	}
	json_decref(list);
}
