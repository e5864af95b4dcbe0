// SPDX-License-Identifier: Apache-2.0
/*
 * Calls of partners: who may ask what stands in the table at the end and in
 * engine.h; every job they bring is checked anew.
 */
#include <time.h>

#include "lib/fileio.h"
#include "lib/json.h"
#include "lib/log.h"

#include "scheduler/engine.h"

struct incoming {
	struct sched *s;
	const char *party;
	json_t *body;
	json_t *answer;
	struct err e;
};

static const char *job_of(const struct incoming *in)
{
	return json_str_or(in->body, "job", "");
}

/* The job, if the caller is its initiator; lock held. */
static struct job *initiated(struct incoming *in)
{
	struct job *j = job_find(in->s, job_of(in));

	if (!j || strcmp(j->initiator, in->party))
		return NULL;
	j->heard = now_mono_ms();
	return j;
}

static int not_allowed(struct incoming *in)
{
	return err_set(&in->e, EACCES, "not allowed");
}

static void add_defects(struct incoming *in, const struct defects *d)
{
	json_object_set_new(in->answer, "defects", json_string(d->text.buf));
	json_object_set_new(in->answer, "content", json_boolean(d->content));
	json_object_set_new(in->answer, "policy", json_boolean(d->policy));
}

static int in_check(struct incoming *in)
{
	struct defects d = { 0 };

	sb_init(&d.text, 1u << 18);
	check_local(in->s, json_object_get(in->body, "dsl"),
		    json_object_get(in->body, "conf"), in->party, &d);
	add_defects(in, &d);
	sb_free(&d.text);
	return 0;
}

static bool digits(const char *s)
{
	size_t n = strspn(s, "0123456789");

	return n >= 20 && n <= 40 && !s[n];
}

static bool hex64(const char *s)
{
	return strspn(s, "0123456789abcdef") == 64 && !s[64];
}

/* What we would run of a partner's job: checked anew, never trusted. */
static struct job *accept_job(struct incoming *in)
{
	struct sched *s = in->s;
	json_t *dsl = json_object_get(in->body, "dsl");
	json_t *conf = json_object_get(in->body, "conf");
	const char *secret = json_str_or(in->body, "secret", NULL);
	struct defects d = { 0 };
	struct job *j = NULL;
	json_t *plan;

	sb_init(&d.text, 1u << 18);
	plan = check_plan(dsl, conf, s->describe, s->party, s->party, &d, NULL);
	if (plan)
		check_local(s, dsl, conf, in->party, &d);
	if (!plan || d.n) {
		err_set(&in->e, d.policy ? EACCES : EINVAL,
			"party %s refuses the job: not allowed, or it cannot "
			"run it",
			s->party);
	} else if (strcmp(json_str_or(json_object_get(plan, "initiator"),
				      "party", ""),
			  in->party) ||
		   (secret && !hex64(secret))) {
		err_set(&in->e, EACCES, "not allowed");
	} else {
		j = job_new(s, job_of(in), plan, dsl, conf, secret,
			    json_int_or(in->body, "created_ms", 0), &in->e);
	}
	json_decref(plan);
	sb_free(&d.text);
	return j;
}

static void notes(struct sched *s, struct job *j)
{
	static const char *const keys[] = { "ignored", "notes" };
	json_t *v;
	size_t i;

	(void)s;
	for (size_t k = 0; k < ARRAY_SIZE(keys); k++)
		json_array_foreach (json_object_get(j->plan, keys[k]), i, v)
			job_event(j, "%s", json_string_value(v));
}

static void answer_create(struct incoming *in, struct job *j)
{
	struct sched *s = in->s;
	/* What is still ending here begins at the next call. */
	bool got = !j->ending && cores_take(s, j);

	j->round = (unsigned)json_int_or(in->body, "round", 0);
	j->run = (unsigned)json_int_or(in->body, "run", 0);
	json_object_set_new(in->answer, "reserved", json_boolean(got));
	json_object_set_new(in->answer, "need", json_integer(j->cores));
	json_object_set_new(in->answer, "free", json_integer(s->cores_free));
	if (got) {
		j->status = ST_RUNNING;
		j->started_ms = now_unix_ms();
		job_event(j, "job running, %u cores here", j->cores);
		job_write_status(j);
		job_save(s, j, false);
		job_changed(s, j);
	} else {
		json_object_set_new(s->poke, in->party, json_true());
		free(j->why);
		j->why = xasprintf("needs %u cores here, %u are free", j->cores,
				   s->cores_free);
		job_changed(s, j);
	}
}

/* The job's messages were opened when it had ended so often.  If it ends
 * meanwhile, that closes them: once more.  With the lock held. */
static int stays_open(struct incoming *in, json_t *roles, unsigned ends,
		      struct job **ret)
{
	struct sched *s = in->s;
	struct job *j;

	*ret = NULL;
	while ((j = job_wait_closed(s, job_of(in))) && j->ends != ends) {
		int r;

		ends = j->ends;
		pthread_mutex_unlock(&s->lock);
		r = transfer_job_open(s->o.transfer, job_of(in), roles, &in->e);
		pthread_mutex_lock(&s->lock);
		if (r)
			return r;
	}
	*ret = j;
	return 0;
}

static int in_create(struct incoming *in)
{
	struct sched *s = in->s;
	struct job *j = NULL, *old;
	json_t *roles = NULL;
	unsigned ends = 0;
	int r;

	if (!digits(job_of(in)))
		return err_set(&in->e, EINVAL, "create: not a job id");
	pthread_mutex_lock(&s->lock);
	old = job_wait_closed(s, job_of(in));
	if (old && strcmp(old->initiator, in->party)) {
		pthread_mutex_unlock(&s->lock);
		return not_allowed(in);
	}
	/* Without the lock a job may be removed: hold what is needed of it. */
	if (old) {
		roles = json_incref(json_object_get(old->plan, "roles"));
		ends = old->ends;
	}
	pthread_mutex_unlock(&s->lock);
	if (!old) {
		j = accept_job(in);
		if (!j)
			return -in->e.no;
		roles = json_incref(json_object_get(j->plan, "roles"));
	}
	/* Before anybody can send: the answer lets the others begin. */
	r = transfer_job_open(s->o.transfer, job_of(in), roles, &in->e);
	if (!r && j)
		r = job_make_dir(s, j, &in->e);
	if (r) {
		json_decref(roles);
		job_free(j);
		return r;
	}
	pthread_mutex_lock(&s->lock);
	r = stays_open(in, roles, ends, &old);
	json_decref(roles);
	if (!r && !old && !j)
		r = err_set(&in->e, EAGAIN, "create: the job is being removed");
	if (r) {
		pthread_mutex_unlock(&s->lock);
		job_free(j);
		return r;
	}
	if (!old) {
		job_insert(s, j);
		job_event(j, "submitted by party %s", in->party);
		notes(s, j);
		job_changed(s, j);
		old = j;
	} else {
		job_free(j);
		if (status_ended(old->status))
			job_reopen(s, old);
	}
	old->heard = now_mono_ms();
	answer_create(in, old);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static int in_release(struct incoming *in)
{
	struct job *j;

	pthread_mutex_lock(&in->s->lock);
	j = initiated(in);
	/* One that was overtaken by the next create says nothing any more. */
	if (j && !status_ended(j->status) && !j->ending &&
	    json_int_or(in->body, "round", j->round) == (int64_t)j->round) {
		cores_give(in->s, j);
		j->status = ST_WAITING;
		free(j->why);
		j->why = xstrdup("cores are missing at another party");
		job_write_status(j);
		job_save(in->s, j, false);
		job_changed(in->s, j);
	}
	pthread_mutex_unlock(&in->s->lock);
	if (j)
		queue_post(in->s);
	return j ? 0 : not_allowed(in);
}

struct start_order {
	char job[41];
	char *component;
	unsigned attempt;
	bool fresh;
};

static void start_on_loop(struct sched *s, void *arg)
{
	struct start_order *o = arg;
	struct job *j = job_find(s, o->job);

	for (size_t i = 0; j && i < j->n_tasks; i++) {
		struct task *t = &j->tasks[i];

		if (strcmp(t->component, o->component) || !t->local ||
		    j->ending || status_ended(j->status))
			continue;
		if ((t->status == ST_WAITING && o->attempt >= t->attempt) ||
		    o->attempt > t->attempt) {
			t->fresh = o->fresh;
			task_begin(s, j, t, o->attempt);
		}
	}
	free(o->component);
	free(o);
}

static int in_task_start(struct incoming *in)
{
	struct sched *s = in->s;
	const char *component = json_str_or(in->body, "component", "");
	int64_t attempt = json_int_or(in->body, "attempt", -1);
	json_t *tasks = json_array();
	struct start_order *o;
	struct job *j;
	bool found = false;

	json_object_set_new(in->answer, "tasks", tasks);
	pthread_mutex_lock(&s->lock);
	j = initiated(in);
	for (size_t i = 0; j && i < j->n_tasks; i++) {
		const struct task *t = &j->tasks[i];

		if (strcmp(t->component, component))
			continue;
		found = true;
		json_array_append_new(
		    tasks, json_pack("{s:s, s:s, s:s*, s:s*}", "role", t->role,
				     "status",
				     t->attempt == attempt && !j->ending
					 ? status_name(t->status)
					 : "waiting",
				     "code", t->code, "public", t->public));
	}
	if (found && j->ending)
		found = false;
	pthread_mutex_unlock(&s->lock);
	if (!j)
		return not_allowed(in);
	if (!found || attempt < 0 || attempt > 1000)
		return err_set(&in->e, EINVAL, "no such task");
	o = xcalloc(1, sizeof(*o));
	(void)snprintf(o->job, sizeof(o->job), "%s", job_of(in));
	o->component = xstrdup(component);
	o->attempt = (unsigned)attempt;
	o->fresh = json_bool_or(in->body, "fresh", false);
	sched_post(s, start_on_loop, o);
	return 0;
}

struct status_order {
	char job[41];
	char *party;
	json_t *body;
};

static void status_on_loop(struct sched *s, void *arg)
{
	struct status_order *o = arg;
	struct job *j = job_find(s, o->job);

	/* It was away when the job ended. */
	if (j && j->ours && status_ended(j->status))
		party_tell_end(s, j, o->party);
	if (j && j->ours && j->status == ST_RUNNING && !j->ending)
		party_take_status(
		    s, j, o->party, json_str_or(o->body, "component", ""),
		    (unsigned)json_int_or(o->body, "attempt", 0), o->body);
	json_decref(o->body);
	free(o->party);
	free(o);
}

static int in_task_status(struct incoming *in)
{
	struct sched *s = in->s;
	struct status_order *o;
	struct job *j;
	bool ok;

	pthread_mutex_lock(&s->lock);
	j = job_find(s, job_of(in));
	ok = j && j->ours &&
	     task_find(j, json_str_or(in->body, "role", ""),
		       json_str_or(in->body, "component", ""), in->party);
	for (size_t i = 0; ok && i < j->n_others; i++)
		if (!strcmp(j->others[i], in->party))
			j->contact[i] = now_mono_ms();
	pthread_mutex_unlock(&s->lock);
	if (!ok)
		return not_allowed(in);
	o = xcalloc(1, sizeof(*o));
	(void)snprintf(o->job, sizeof(o->job), "%s", job_of(in));
	o->party = xstrdup(in->party);
	o->body = json_deep_copy(in->body);
	sched_post(s, status_on_loop, o);
	return 0;
}

/* Components whose models stay: those that all parties are through with. */
static void take_models(struct job *j, const json_t *names)
{
	const json_t *known = json_object_get(j->plan, "components"), *v;
	size_t i;

	json_decref(j->models);
	j->models = NULL;
	if (plan_predicts(j->plan))
		return;
	json_array_foreach ((json_t *)names, i, v) {
		const json_t *c =
		    json_is_string(v)
			? json_object_get(known, json_string_value(v))
			: NULL;

		if (!json_array_size(json_object_get(c, "model_outputs")))
			continue;
		if (!j->models)
			j->models = json_array();
		if (json_array_size(j->models) < json_object_size(known))
			json_array_append_new(
			    j->models, json_string(json_string_value(v)));
	}
}

/* The end that a call tells of has been overtaken by a rerun. */
static bool former_run(const struct job *j, const json_t *body)
{
	return json_int_or(body, "run", j->run) < (int64_t)j->run;
}

static void stop_on_loop(struct sched *s, void *arg)
{
	struct status_order *o = arg;
	struct job *j = job_find(s, o->job);
	json_t *v;
	size_t i;

	if (j && !status_ended(j->status) && !j->ending &&
	    !former_run(j, o->body)) {
		json_array_foreach (json_object_get(o->body, "errors"), i, v) {
			const char *party = json_str_or(v, "party", "?");

			/* We know more about our own. */
			if (strcmp(party, s->party))
				job_add_error(
				    s, j, "%.20s %.20s: %.100s: %.300s",
				    json_str_or(v, "role", "?"), party,
				    json_str_or(v, "component", "?"),
				    json_str_or(v, "public", "?"));
		}
		take_models(j, json_object_get(o->body, "models"));
		job_finish(s, j, status_of(json_str_or(o->body, "status", "")));
	}
	json_decref(o->body);
	free(o->party);
	free(o);
}

static int in_stop(struct incoming *in)
{
	struct sched *s = in->s;
	struct status_order *o;
	struct job *j;
	struct timespec until;
	bool ended = false, former;

	if (!status_ended(status_of(json_str_or(in->body, "status", ""))))
		return err_set(&in->e, EINVAL, "stop: not an end");
	pthread_mutex_lock(&s->lock);
	j = initiated(in);
	former = j && former_run(j, in->body);
	pthread_mutex_unlock(&s->lock);
	if (!j)
		return not_allowed(in);
	if (former)
		return 0;
	o = xcalloc(1, sizeof(*o));
	(void)snprintf(o->job, sizeof(o->job), "%s", job_of(in));
	o->party = xstrdup(in->party);
	o->body = json_deep_copy(in->body);
	sched_post(s, stop_on_loop, o);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += STOP_MS / 1000 - 1;
	/* Answered when it has ended here, so that the initiator's `wait`
	 * means what it says. */
	pthread_mutex_lock(&s->lock);
	while (!ended) {
		j = job_find(s, job_of(in));
		ended = !j || status_ended(j->status) ||
			pthread_cond_timedwait(&s->changed, &s->lock, &until) ==
			    ETIMEDOUT;
	}
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static void cancel_on_loop(struct sched *s, void *arg)
{
	struct status_order *o = arg;
	struct job *j = job_find(s, o->job);

	if (j && !j->ending && !status_ended(j->status)) {
		job_event(j, "party %s canceled the job", o->party);
		job_finish(s, j, ST_CANCELED);
	} else if (j && status_ended(j->status)) {
		party_tell_end(s, j, o->party); /* it does not know yet */
	}
	free(o->party);
	free(o);
}

static int in_cancel(struct incoming *in)
{
	struct sched *s = in->s;
	struct status_order *o;
	struct job *j;
	bool ok;

	pthread_mutex_lock(&s->lock);
	j = job_find(s, job_of(in));
	ok = j && j->ours &&
	     (party_plays(j, "guest", in->party) ||
	      party_plays(j, "host", in->party) ||
	      party_plays(j, "arbiter", in->party));
	pthread_mutex_unlock(&s->lock);
	if (!ok)
		return not_allowed(in);
	o = xcalloc(1, sizeof(*o));
	(void)snprintf(o->job, sizeof(o->job), "%s", job_of(in));
	o->party = xstrdup(in->party);
	sched_post(s, cancel_on_loop, o);
	return 0;
}

static int in_lease(struct incoming *in)
{
	struct sched *s = in->s;
	json_t *v;
	size_t i;

	pthread_mutex_lock(&s->lock);
	json_array_foreach (json_object_get(in->body, "jobs"), i, v) {
		struct job *j = json_is_string(v)
				    ? job_find(s, json_string_value(v))
				    : NULL;

		if (j && !strcmp(j->initiator, in->party))
			j->heard = now_mono_ms();
	}
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static void poke_on_loop(struct sched *s, void *arg)
{
	(void)arg;
	queue_run(s);
}

static int in_poke(struct incoming *in)
{
	sched_post(in->s, poke_on_loop, NULL);
	return 0;
}

static int in_deploy(struct incoming *in)
{
	return deploy_step(in->s, in->party, in->body, &in->e);
}

static const struct {
	const char *verb;
	int (*fn)(struct incoming *in);
} verbs[] = {
	{ "check", in_check },
	{ "create", in_create },
	{ "release", in_release },
	{ "task-start", in_task_start },
	{ "task-status", in_task_status },
	{ "stop", in_stop },
	{ "cancel", in_cancel },
	{ "lease", in_lease },
	{ "poke", in_poke },
	{ "deploy", in_deploy },
};

void party_handler(void *arg, struct transfer_call *call, const char *party,
		   const char *verb, json_t *body)
{
	struct incoming in = {
		.s = arg, .party = party, .body = body, .answer = json_object()
	};
	int r = err_set(&in.e, ENOENT, "no such call");

	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(verbs[i].verb, verb) && json_is_object(body)) {
			in.e.no = 0;
			r = verbs[i].fn(&in);
		}
	/* Where our files are is nobody's business. */
	if (r && strstr(in.e.text, in.s->o.conf->state)) {
		log_warn("scheduler", "%s of party %s: %s", verb, party,
			 in.e.text);
		err_set(&in.e, -r, "party %s: %s", in.s->party, strerror(-r));
	}
	transfer_answer(in.s->o.transfer, call, r, r ? NULL : in.answer,
			r ? in.e.text : NULL);
	json_decref(in.answer);
}
