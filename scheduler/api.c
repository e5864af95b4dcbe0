// SPDX-License-Identifier: Apache-2.0
/* What fs/ asks of the scheduler: submit, look, wait, control. */
#include <sys/random.h>
#include <time.h>

#include "lib/fileio.h"
#include "lib/json.h"
#include "lib/log.h"

#include "scheduler/engine.h"
#include "scheduler/model.h"

/* UTC to the second, microseconds, party: digits only, the same everywhere. */
static void make_id(const struct sched *s, char *buf, size_t n)
{
	struct timespec ts;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	(void)snprintf(buf, n, "%04d%02d%02d%02d%02d%02d%06ld%s",
		       (tm.tm_year + 1900) % 10000, tm.tm_mon + 1, tm.tm_mday,
		       tm.tm_hour, tm.tm_min, tm.tm_sec, ts.tv_nsec / 1000,
		       s->party);
}

void sched_new_id(struct sched *s, char *buf, size_t n)
{
	bool again;

	do { /* two in one microsecond */
		struct sched_job_info *taken;

		make_id(s, buf, n);
		taken = sched_job(s, buf);
		pthread_mutex_lock(&s->lock);
		again = taken || !strcmp(buf, s->last_id);
		(void)snprintf(s->last_id, sizeof(s->last_id), "%s", buf);
		pthread_mutex_unlock(&s->lock);
		sched_job_info_free(taken);
	} while (again);
}

static bool has_role(const json_t *plan, const char *role)
{
	return json_array_size(
		   json_object_get(json_object_get(plan, "roles"), role)) > 0;
}

static void begin_on_loop(struct sched *s, void *arg)
{
	(void)arg;
	queue_run(s);
}

int sched_submit(struct sched *s, struct sched_draft *d, char *ret_id, size_t n,
		 struct err *e)
{
	uint8_t secret[32];
	char hex[65], id[64];
	struct job *j;
	json_t *v;
	size_t i;
	int r;

	if (getrandom(secret, sizeof(secret), 0) != (ssize_t)sizeof(secret)) {
		sched_draft_free(d);
		return err_set(e, EIO, "no random numbers");
	}
	for (i = 0; i < sizeof(secret); i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", secret[i]);
	explicit_bzero(secret, sizeof(secret));
	sched_new_id(s, id, sizeof(id));
	j = job_new(s, id, d->plan, d->dsl, d->conf,
		    has_role(d->plan, "guest") || has_role(d->plan, "host")
			? hex
			: NULL,
		    now_unix_ms(), e);
	explicit_bzero(hex, sizeof(hex));
	sched_draft_free(d);
	r = transfer_job_open(s->o.transfer, j->id,
			      json_object_get(j->plan, "roles"), e);
	if (!r)
		r = job_make_dir(s, j, e);
	if (r) {
		job_free(j);
		return r;
	}
	job_event(j, "submitted");
	json_array_foreach (json_object_get(j->plan, "ignored"), i, v)
		job_event(j, "%s", json_string_value(v));
	json_array_foreach (json_object_get(j->plan, "notes"), i, v)
		job_event(j, "%s", json_string_value(v));
	(void)snprintf(ret_id, n, "%s", j->id);
	pthread_mutex_lock(&s->lock);
	job_insert(s, j);
	free(s->latest);
	s->latest = xstrdup(j->id);
	job_changed(s, j);
	pthread_mutex_unlock(&s->lock);
	sched_post(s, begin_on_loop, NULL);
	return 0;
}

/* ---- looking ----------------------------------------------------------------
 */

static struct sched_job_info *info_of(const struct sched *s,
				      const struct job *j)
{
	struct sched_job_info *x = xcalloc(1, sizeof(*x));
	json_t *roles = json_object_get(j->plan, "roles"), *list, *v;
	const char *role;
	size_t i;

	(void)s;
	memcpy(x->id, j->id, sizeof(x->id));
	x->number = j->number;
	x->ended = status_ended(j->status);
	x->created_ms = j->created_ms;
	x->changed_ms = j->changed_ms ? j->changed_ms
			: j->ended_ms ? j->ended_ms
				      : j->created_ms;
	x->tasks = xcalloc(j->n_tasks, sizeof(*x->tasks));
	for (i = 0; i < j->n_tasks; i++)
		if (j->tasks[i].local)
			x->tasks[x->n_tasks++] = (struct sched_task_info){
				.role = xstrdup(j->tasks[i].role),
				.component = xstrdup(j->tasks[i].component)
			};
	json_object_foreach (roles, role, list)
		json_array_foreach (list, i, v) {
			x->parties =
			    xrealloc(x->parties,
				     (x->n_parties + 1) * sizeof(*x->parties));
			x->parties[x->n_parties++] =
			    xasprintf("%s-%s", role, json_string_value(v));
		}
	return x;
}

struct sched_job_info *sched_job(struct sched *s, const char *id)
{
	struct sched_job_info *x = NULL;
	const struct job *j;

	pthread_mutex_lock(&s->lock);
	j = job_find(s, id);
	if (j)
		x = info_of(s, j);
	pthread_mutex_unlock(&s->lock);
	return x;
}

struct sched_job_info *sched_job_by_number(struct sched *s, uint64_t number)
{
	struct sched_job_info *x = NULL;

	pthread_mutex_lock(&s->lock);
	for (const struct job *j = s->jobs; j && !x; j = j->next) {
		size_t own = 0;

		if (number < j->number || number > j->number + j->n_tasks)
			continue;
		for (size_t i = 0; i < j->n_tasks; i++)
			own += j->tasks[i].local;
		if (number <= j->number + own)
			x = info_of(s, j);
	}
	pthread_mutex_unlock(&s->lock);
	return x;
}

void sched_job_info_free(struct sched_job_info *x)
{
	if (!x)
		return;
	for (size_t i = 0; i < x->n_tasks; i++) {
		free((char *)x->tasks[i].role);
		free((char *)x->tasks[i].component);
	}
	for (size_t i = 0; i < x->n_parties; i++)
		free(x->parties[i]);
	free(x->tasks);
	free(x->parties);
	free(x);
}

char **sched_jobs(struct sched *s)
{
	char **list;
	size_t n = 0;

	pthread_mutex_lock(&s->lock);
	for (const struct job *j = s->jobs; j; j = j->next)
		n++;
	list = xcalloc(n + 1, sizeof(*list));
	n = 0;
	for (const struct job *j = s->jobs; j; j = j->next)
		list[n++] = xstrdup(j->id);
	pthread_mutex_unlock(&s->lock);
	return list;
}

char *sched_latest(struct sched *s)
{
	char *id;

	pthread_mutex_lock(&s->lock);
	id = s->latest ? xstrdup(s->latest) : NULL;
	pthread_mutex_unlock(&s->lock);
	return id;
}

char *sched_queue_text(struct sched *s)
{
	struct strbuf sb = STRBUF_INIT(4u << 20);

	pthread_mutex_lock(&s->lock);
	for (const struct job *j = s->jobs; j; j = j->next)
		if (j->status == ST_WAITING && !j->ending)
			sb_addf(&sb, "%s cores %u free %u %s\n", j->id,
				j->cores, s->cores_free, j->why ? j->why : "");
	pthread_mutex_unlock(&s->lock);
	return sb_detach(&sb);
}

char *sched_metrics_text(struct sched *s)
{
	struct strbuf sb = STRBUF_INIT(1u << 20);
	unsigned count[ST_FAILED + 1] = { 0 }, tasks = 0;

	pthread_mutex_lock(&s->lock);
	for (const struct job *j = s->jobs; j; j = j->next) {
		count[j->status]++;
		for (size_t i = 0; i < j->n_tasks; i++)
			tasks += j->tasks[i].pid != 0;
	}
	sb_adds(&sb, "# HELP rollfs_jobs Jobs that are known, by status.\n"
		     "# TYPE rollfs_jobs gauge\n");
	for (int k = 0; k <= ST_FAILED; k++)
		sb_addf(&sb, "rollfs_jobs{status=\"%s\"} %u\n",
			status_name((enum status)k), count[k]);
	sb_addf(&sb,
		"# HELP rollfs_tasks_running Processes of tasks.\n"
		"# TYPE rollfs_tasks_running gauge\n"
		"rollfs_tasks_running %u\n"
		"# HELP rollfs_cores Cores that tasks may use.\n"
		"# TYPE rollfs_cores gauge\nrollfs_cores %u\n"
		"# HELP rollfs_cores_free Cores that no task holds.\n"
		"# TYPE rollfs_cores_free gauge\nrollfs_cores_free %u\n",
		tasks, s->o.conf->cores, s->cores_free);
	pthread_mutex_unlock(&s->lock);
	return sb_detach(&sb);
}

const json_t *sched_modules(struct sched *s)
{
	return s->modules;
}

/* ---- waiting
 * ------------------------------------------------------------------ */

uint64_t sched_wait(struct sched *s, const char *job, const char *role,
		    const char *component, sched_wait_cb cb, void *arg)
{
	struct waiter *w;
	uint64_t number;
	struct job *j;

	pthread_mutex_lock(&s->lock);
	j = job_find(s, job);
	if (!j || (component && !task_find(j, role, component, s->party))) {
		pthread_mutex_unlock(&s->lock);
		return 0;
	}
	w = xcalloc(1, sizeof(*w));
	number = w->number = ++s->next_number;
	w->role = role ? xstrdup(role) : NULL;
	w->component = component ? xstrdup(component) : NULL;
	w->cb = cb;
	w->arg = arg;
	w->next = j->waiters;
	j->waiters = w;
	waiters_answer(s, j);
	pthread_mutex_unlock(&s->lock);
	return number;
}

bool sched_wait_cancel(struct sched *s, uint64_t number)
{
	bool found = false;

	pthread_mutex_lock(&s->lock);
	for (struct job *j = s->jobs; j && !found; j = j->next)
		for (struct waiter **p = &j->waiters; *p; p = &(*p)->next) {
			struct waiter *w = *p;

			if (w->number != number)
				continue;
			*p = w->next;
			free(w->role);
			free(w->component);
			free(w);
			found = true;
			break;
		}
	pthread_mutex_unlock(&s->lock);
	return found;
}

/* ---- control
 * ------------------------------------------------------------------- */

static int cancel(struct sched *s, struct job *j, struct err *e)
{
	if (status_ended(j->status) || j->ending)
		return err_set(e, EBUSY, "cancel: the job has ended (%s)",
			       status_name(j->ending ? j->end_as : j->status));
	if (j->ours) {
		job_event(j, "canceled by the user");
		job_finish(s, j, ST_CANCELED);
	} else {
		job_event(j, "the user asks to cancel");
		party_cancel(s, j);
	}
	return 0;
}

static bool depends(const struct job *j, const char *name, const char *on,
		    unsigned depth)
{
	json_t *up = json_object_get(
	    json_object_get(json_object_get(j->plan, "components"), name),
	    "upstream");
	json_t *v;
	size_t i;

	json_array_foreach (up, i, v)
		if (!strcmp(json_string_value(v), on) ||
		    (depth < 1000 &&
		     depends(j, json_string_value(v), on, depth + 1)))
			return true;
	return false;
}

#define VERBS "cancel, rerun [component ...] [force], deploy [component ...]"

/* The words behind "rerun": components, and perhaps force. */
static int rerun_may(const struct job *j, struct err *e)
{
	if (!j->ours)
		return err_set(e, EACCES,
			       "rerun: only the initiator, party %s, may",
			       j->initiator);
	if (!status_ended(j->status))
		return err_set(e, EBUSY, "rerun: the job has not ended (%s)",
			       status_name(j->status));
	return 0;
}

static int rerun(struct sched *s, struct job *j, char *words, struct err *e)
{
	const char *names[256];
	size_t n = 0;
	bool force = false;
	char *w;
	int r = rerun_may(j, e);

	if (r)
		return r;
	while ((w = strtok_r(words, " \t", &words))) {
		if (!strcmp(w, "force")) {
			force = true;
			continue;
		}
		if (!json_object_get(json_object_get(j->plan, "components"), w))
			return err_set(e, EINVAL,
				       "rerun: no component \"%.100s\"", w);
		if (n < ARRAY_SIZE(names))
			names[n++] = w;
	}
	if (!n && j->status == ST_SUCCESS && !force)
		return err_set(e, EBUSY,
			       "rerun: the job has succeeded (rerun "
			       "COMPONENT force runs one again)");
	for (size_t i = 0; i < j->n_tasks; i++) {
		struct task *t = &j->tasks[i];
		bool hit = !n && (force || !(t->status == ST_SUCCESS ||
					     t->status == ST_PASS));

		for (size_t k = 0; k < n && !hit; k++)
			hit = !strcmp(t->component, names[k]) ||
			      depends(j, t->component, names[k], 0);
		if (!hit)
			continue;
		if (n && !force && t->status == ST_SUCCESS)
			return err_set(e, EBUSY,
				       "rerun: %s has succeeded (add force)",
				       t->component);
	}
	/* A component is run again at all its parties. */
	for (size_t i = 0; i < j->n_tasks; i++) {
		struct task *t = &j->tasks[i];
		bool hit = false;

		/* All that has not succeeded runs, named or not: with a number
		 * that has no messages of the last attempt. */
		for (size_t k = 0; k < j->n_tasks && !hit; k++)
			hit = !strcmp(j->tasks[k].component, t->component) &&
			      ((force && !n) ||
			       !(j->tasks[k].status == ST_SUCCESS ||
				 j->tasks[k].status == ST_PASS));
		for (size_t k = 0; k < n && !hit; k++)
			hit = !strcmp(t->component, names[k]) ||
			      depends(j, t->component, names[k], 0);
		if (hit) {
			t->want = t->attempt + 1;
			t->fresh = force;
		}
	}
	for (size_t i = 0; i < j->n_tasks; i++)
		if (j->tasks[i].want > j->tasks[i].attempt)
			j->tasks[i].status = ST_WAITING;
	job_event(j, "rerun");
	job_reopen(s, j);
	return 0;
}

/* The model of the job, by the words that its own ctl takes. */
static int deploy(struct sched *s, const char *job, const char *line,
		  struct err *e)
{
	_cleanup_free_ char *id = NULL;
	const struct job *j;

	pthread_mutex_lock(&s->lock);
	j = job_find(s, job);
	if (j)
		id = model_id_of(json_object_get(j->plan, "roles"));
	pthread_mutex_unlock(&s->lock);
	if (!id)
		return err_set(e, ENOENT, "no job %s", job);
	if (!model_exists(s->o.conf->state, id, job))
		return err_set(e, ENOENT,
			       "deploy: job %s has left no model (it has not "
			       "ended, or makes none)",
			       job);
	return sched_model_ctl(s, id, job, line, e);
}

int sched_ctl(struct sched *s, const char *job, const char *line, struct err *e)
{
	_cleanup_free_ char *copy = xstrdup(line);
	char *rest = copy, *verb;
	json_t *roles = NULL;
	struct err why;
	bool refused;
	struct job *j;
	int r;

	copy[strcspn(copy, "\r\n")] = '\0';
	verb = strtok_r(rest, " \t", &rest);
	if (!verb)
		return err_set(e, EINVAL, "ctl: an empty line (" VERBS ")");
	if (!strcmp(verb, "deploy"))
		return deploy(s, job, line, e);
	pthread_mutex_lock(&s->lock);
	j = job_find(s, job);
	if (!j) {
		r = err_set(e, ENOENT, "no job %s", job);
	} else if (!strcmp(verb, "cancel")) {
		r = *rest ? err_set(e, EINVAL, "cancel: takes no \"%.100s\"",
				    rest)
			  : cancel(s, j, e);
	} else if (!strcmp(verb, "rerun")) {
		r = rerun_may(j, e);
		if (!r)
			j = job_wait_closed(s, job);
		if (!r && j)
			roles =
			    json_deep_copy(json_object_get(j->plan, "roles"));
	} else {
		r = err_set(e, EINVAL, "ctl: no verb \"%.100s\" (" VERBS ")",
			    verb);
	}
	pthread_mutex_unlock(&s->lock);
	if (roles) { /* before the first task can send */
		r = transfer_job_open(s->o.transfer, job, roles, e);
		json_decref(roles);
		pthread_mutex_lock(&s->lock);
		j = job_find(s, job);
		if (!r)
			r = j ? rerun(s, j, rest, e)
			      : err_set(e, ENOENT, "no job %s", job);
		refused = r && j && status_ended(j->status);
		pthread_mutex_unlock(&s->lock);
		if (refused && transfer_job_close(s->o.transfer, job, &why))
			log_warn("scheduler", "%s", why.text);
	}
	sched_post(s, begin_on_loop, NULL);
	return r;
}

int sched_remove(struct sched *s, const char *job, struct err *e)
{
	_cleanup_free_ char *away = NULL;
	struct job **p, *j = NULL;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	for (p = &s->jobs; *p && strcmp((*p)->id, job); p = &(*p)->next)
		;
	if (!*p) {
		r = err_set(e, ENOENT, "no job %s", job);
	} else if (!status_ended((*p)->status) || (*p)->ending) {
		r = err_set(e, EBUSY, "job %s runs (echo cancel > ctl)", job);
	} else {
		j = *p;
		away = xasprintf("%s/.%s.gone", s->jobs_dir, j->id);
		if (rename(j->dir, away))
			r = err_sys(e, errno, "%s", j->dir);
	}
	if (!r && j) {
		*p = j->next;
		if (s->latest && !strcmp(s->latest, j->id)) {
			free(s->latest);
			s->latest = NULL;
			for (const struct job *k = s->jobs; k; k = k->next)
				if (k->ours) {
					free(s->latest);
					s->latest = xstrdup(k->id);
				}
		}
		if (s->o.changed)
			s->o.changed(s->o.arg, j->id);
	}
	pthread_mutex_unlock(&s->lock);
	if (r)
		return r;
	job_drop_tables(s, j);
	(void)remove_tree(away, NULL);
	job_free(j);
	return 0;
}
