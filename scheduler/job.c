// SPDX-License-Identifier: Apache-2.0
/* A job on disk: STATE/jobs/<id>/ is what the mount shows, `.job/` beside it
 * is ours: job.json (what was submitted, durable), state.json (how far it was
 * when that had to be durable), recent.json (how far it is, when the power
 * stays: what was not synced may be empty after a cut, so it replaces nothing
 * that was). */
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "lib/fileio.h"
#include "lib/json.h"
#include "lib/log.h"

#include "scheduler/engine.h"

static const char *const names[] = {
	"waiting", "running",  "success", "pass",
	"skipped", "canceled", "timeout", "failed"
};

const char *status_name(enum status s)
{
	return names[s];
}

enum status status_of(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(names[i], name))
			return (enum status)i;
	return ST_FAILED;
}

bool status_ended(enum status s)
{
	return s >= ST_SUCCESS;
}

/* ---- small files -------------------------------------------------------- */

static void put(const char *dir, const char *name, const char *text)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
	struct err e;

	if (file_replace(path, text, strlen(text), 0600, false, &e))
		log_error("scheduler", "%s", e.text);
}

static void append(const char *path, const char *text)
{
	_cleanup_close_ int fd =
	    open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0 || write_all(fd, text, strlen(text)))
		log_error("scheduler", "%s: cannot write", path);
}

static void event_line(const char *dir, const char *text)
{
	_cleanup_free_ char *path = xasprintf("%s/events", dir);
	_cleanup_free_ char *line = NULL;
	char when[40];

	line = xasprintf("%s %s\n",
			 time_rfc3339(when, sizeof(when), now_unix_ms()), text);
	append(path, line);
}

void job_event(const struct job *j, const char *fmt, ...)
{
	char text[1500];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	event_line(j->dir, text);
}

char *task_dir(const struct job *j, const struct task *t)
{
	return xasprintf("%s/%s/%s", j->dir, t->role, t->component);
}

void task_event(const struct job *j, const struct task *t, const char *fmt, ...)
{
	_cleanup_free_ char *dir = task_dir(j, t);
	char text[1500];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	event_line(dir, text);
}

static void write_errors(const struct job *j)
{
	struct strbuf sb = STRBUF_INIT(1u << 20);
	json_t *v;
	size_t i;

	json_array_foreach (j->errors, i, v)
		sb_addf(&sb, "%s\n", json_string_value(v));
	put(j->dir, "error", sb.buf);
	sb_free(&sb);
}

static void write_parties(const struct job *j)
{
	json_t *roles = json_object_get(j->plan, "roles"), *list, *p;
	const char *role;
	size_t i;

	json_object_foreach (roles, role, list) {
		json_array_foreach (list, i, p) {
			const char *party = json_string_value(p);
			_cleanup_free_ char *dir =
			    xasprintf("%s/parties/%s-%s", j->dir, role, party);
			enum status st = j->status;
			bool any = false, running = false;

			/* What is known of its tasks; at a partner only of
			 * our own. */
			for (size_t k = 0; k < j->n_tasks; k++) {
				const struct task *t = &j->tasks[k];

				if (strcmp(t->role, role) ||
				    strcmp(t->party, party))
					continue;
				any = true;
				running |= t->status == ST_RUNNING;
				if (t->status == ST_FAILED)
					st = ST_FAILED;
			}
			if (any && running && st != ST_FAILED)
				st = ST_RUNNING;
			{
				_cleanup_free_ char *line =
				    xasprintf("%s\n", names[st]);

				put(dir, "status", line);
			}
		}
	}
}

void job_write_status(const struct job *j)
{
	_cleanup_free_ char *line = xasprintf("%s\n", names[j->status]);
	size_t ended = 0;
	char progress[16];

	for (size_t i = 0; i < j->n_tasks; i++)
		ended += status_ended(j->tasks[i].status);
	(void)snprintf(progress, sizeof(progress), "%zu\n",
		       status_ended(j->status) ? 100
		       : j->n_tasks	       ? 100 * ended / j->n_tasks
					       : 0);
	write_errors(j);
	write_parties(j);
	put(j->dir, "progress", progress);
	put(j->dir, "status", line);
}

void task_write_status(const struct job *j, const struct task *t)
{
	_cleanup_free_ char *dir = task_dir(j, t);
	_cleanup_free_ char *line = xasprintf("%s\n", names[t->status]);
	_cleanup_free_ char *error =
	    t->error && *t->error ? xasprintf("%s\n", t->error) : xstrdup("");

	put(dir, "error", error);
	if (t->status == ST_SUCCESS || t->status == ST_PASS)
		put(dir, "progress", "100\n");
	put(dir, "status", line);
}

/* ---- in memory ---------------------------------------------------------- */

static void task_set(struct task *t, const json_t *spec, const char *own)
{
	*t = (struct task){ .pidfd = -1 };
	t->component = xstrdup(json_str_or(spec, "component", ""));
	t->module = xstrdup(json_str_or(spec, "module", ""));
	t->role = xstrdup(json_str_or(spec, "role", ""));
	t->party = xstrdup(json_str_or(spec, "party", ""));
	t->index = (size_t)json_int_or(spec, "index", 0);
	t->spec = spec;
	t->local = !strcmp(t->party, own);
}

struct job *job_new(struct sched *s, const char *id, json_t *plan, json_t *dsl,
		    json_t *conf, const char *secret, int64_t created_ms,
		    struct err *e)
{
	json_t *tasks = json_object_get(plan, "tasks");
	json_t *init = json_object_get(plan, "initiator");
	json_t *roles = json_object_get(plan, "roles"), *list, *p, *spec;
	struct job *j = xcalloc(1, sizeof(*j));
	const char *role;
	size_t i;

	(void)e;
	(void)snprintf(j->id, sizeof(j->id), "%s", id);
	j->dir = xasprintf("%s/%s", s->jobs_dir, id);
	j->plan = json_incref(plan);
	j->dsl = json_incref(dsl);
	j->conf = json_incref(conf);
	j->secret = secret ? xstrdup(secret) : NULL;
	j->initiator = xstrdup(json_str_or(init, "party", ""));
	j->initiator_role = xstrdup(json_str_or(init, "role", ""));
	j->ours = !strcmp(j->initiator, s->party);
	j->errors = json_array();
	j->created_ms = created_ms;
	j->heard = now_mono_ms();
	j->why = xstrdup("not started yet");
	j->cores = cores_needed(s, plan);
	j->tasks = xcalloc(json_array_size(tasks), sizeof(*j->tasks));
	/* Ours first: task i of this party is number + 1 + i. */
	for (int pass = 0; pass < 2; pass++)
		json_array_foreach (tasks, i, spec) {
			const char *party = json_str_or(spec, "party", "");

			if (!strcmp(party, s->party) == (pass == 0))
				task_set(&j->tasks[j->n_tasks++], spec,
					 s->party);
		}
	j->others = xcalloc(100000, sizeof(*j->others));
	json_object_foreach (roles, role, list) {
		json_array_foreach (list, i, p) {
			const char *party = json_string_value(p);
			bool known = !strcmp(party, s->party);

			for (size_t k = 0; k < j->n_others && !known; k++)
				known = !strcmp(j->others[k], party);
			if (!known && j->n_others < 99999)
				j->others[j->n_others++] = xstrdup(party);
		}
	}
	j->others = xrealloc(j->others, (j->n_others + 1) * sizeof(*j->others));
	j->contact = xcalloc(j->n_others, sizeof(*j->contact));
	for (i = 0; i < j->n_others; i++)
		j->contact[i] = now_mono_ms();
	return j;
}

void job_free(struct job *j)
{
	if (!j)
		return;
	for (size_t i = 0; i < j->n_tasks; i++) {
		struct task *t = &j->tasks[i];

		free(t->component);
		free(t->module);
		free(t->role);
		free(t->party);
		free(t->code);
		free(t->public);
		free(t->error);
		if (t->pidfd >= 0)
			close(t->pidfd);
	}
	for (size_t i = 0; i < j->n_others; i++)
		free(j->others[i]);
	if (j->secret)
		explicit_bzero(j->secret, strlen(j->secret));
	free(j->secret);
	free(j->others);
	free(j->contact);
	free(j->tasks);
	free(j->dir);
	free(j->initiator);
	free(j->initiator_role);
	free(j->why);
	json_decref(j->plan);
	json_decref(j->dsl);
	json_decref(j->conf);
	json_decref(j->errors);
	json_decref(j->models);
	free(j);
}

/* ---- making it ----------------------------------------------------------- */

static int make_task_dirs(const struct job *j, const struct task *t,
			  struct err *e)
{
	static const char *const subs[] = { "in", "out", "model", ".task" };
	_cleanup_free_ char *dir = task_dir(j, t);
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(subs) && !r; i++) {
		_cleanup_free_ char *p = xasprintf("%s/%s", dir, subs[i]);

		r = mkdir_p(p, 0700, e);
	}
	return r;
}

/* Also of a job that is loaded: a power cut may have left some out. */
static int make_dirs(const struct job *j, struct err *e)
{
	_cleanup_free_ char *hidden = xasprintf("%s/.job", j->dir);
	json_t *roles = json_object_get(j->plan, "roles"), *list, *p;
	int r = mkdir_p(hidden, 0700, e);
	const char *role;
	size_t i;

	json_object_foreach (roles, role, list)
		json_array_foreach (list, i, p) {
			_cleanup_free_ char *d =
			    xasprintf("%s/parties/%s-%s", j->dir, role,
				      json_string_value(p));

			if (!r)
				r = mkdir_p(d, 0700, e);
		}
	for (i = 0; i < j->n_tasks && !r; i++)
		if (j->tasks[i].local)
			r = make_task_dirs(j, &j->tasks[i], e);
	return r;
}

static bool is_empty(const char *dir, const char *name)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
	struct stat st;

	return stat(path, &st) || !st.st_size;
}

/* What was shown when all ended is not always what was kept. */
static bool says(const char *dir, enum status st)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(64);
	_cleanup_free_ char *path = xasprintf("%s/status", dir);
	size_t n = strlen(names[st]);

	return !file_read(path, &sb, NULL) && sb.len == n + 1 &&
	       !memcmp(sb.buf, names[st], n);
}

/* What is shown of a task, where it is not there. */
static int make_task(const struct job *j, const struct task *t, struct err *e)
{
	static const char *const grow[] = { "events", "log" };
	_cleanup_free_ char *dir = task_dir(j, t);
	_cleanup_free_ char *params = xasprintf("%s/params.json", dir);

	for (size_t i = 0; i < ARRAY_SIZE(grow); i++) {
		_cleanup_free_ char *path = xasprintf("%s/%s", dir, grow[i]);

		append(path, ""); /* somebody may be writing */
	}
	if (is_empty(dir, "progress"))
		put(dir, "progress", "0\n");
	if (!says(dir, t->status))
		task_write_status(j, t);
	return is_empty(dir, "params.json")
		   ? json_write_file(params, json_object_get(t->spec, "params"),
				     0600, false, e)
		   : 0;
}

static int make_tasks(const struct job *j, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < j->n_tasks && !r; i++)
		if (j->tasks[i].local)
			r = make_task(j, &j->tasks[i], e);
	return r;
}

static int make_files(struct sched *s, struct job *j, struct err *e)
{
	_cleanup_free_ char *file = xasprintf("%s/.job/job.json", j->dir);
	_cleanup_free_ char *dsl = xasprintf("%s/dsl.json", j->dir);
	_cleanup_free_ char *conf = xasprintf("%s/conf.json", j->dir);
	int r = make_dirs(j, e);
	json_t *o;

	if (!r)
		r = make_tasks(j, e);
	if (!r)
		r = json_write_file(dsl, j->dsl, 0600, true, e);
	if (!r)
		r = json_write_file(conf, j->conf, 0600, true, e);
	if (r)
		return r;
	put(j->dir, "events", "");
	put(j->dir, "log", "");
	r = inherit_tasks(s, j, e);
	if (r)
		return r;
	o = json_pack("{s:s, s:I, s:I, s:O, s:s?}", "id", j->id, "number",
		      (json_int_t)j->number, "created_ms",
		      (json_int_t)j->created_ms, "plan", j->plan, "secret",
		      j->secret);
	r = json_write_file(file, o, 0600, true, e);
	json_decref(o);
	job_write_status(j);
	return r;
}

/* Made beside and renamed into place: a job is there whole or not at all. */
int job_make_dir(struct sched *s, struct job *j, struct err *e)
{
	char *final = j->dir;
	size_t own = 0;
	int r;

	for (size_t i = 0; i < j->n_tasks; i++)
		own += j->tasks[i].local;
	r = table_store_numbers(s->o.tables, 1 + own, &j->number, e);
	if (r)
		return r;
	j->dir = xasprintf("%s/.%s.new", s->jobs_dir, j->id);
	r = make_files(s, j, e);
	if (r)
		job_drop_tables(s, j); /* that were inherited */
	else if (rename(j->dir, final))
		r = err_sys(e, errno, "%s", final);
	if (r)
		(void)remove_tree(j->dir, NULL);
	free(j->dir);
	j->dir = final;
	return r ? r : dir_sync(s->jobs_dir, e);
}

void job_save(struct sched *s, struct job *j, bool durable)
{
	_cleanup_free_ char *path =
	    xasprintf("%s/.job/%s.json", j->dir, durable ? "state" : "recent");
	json_t *o, *tasks = json_array();
	char boot[BOOT_ID_SIZE];
	struct err e;

	(void)s;
	boot_id(boot);
	for (size_t i = 0; i < j->n_tasks; i++) {
		const struct task *t = &j->tasks[i];

		json_array_append_new(
		    tasks, json_pack("{s:s, s:i, s:i, s:s?, s:s?, s:s?, s:b}",
				     "status", names[t->status], "attempt",
				     (int)t->attempt, "want", (int)t->want,
				     "code", t->code, "public", t->public,
				     "error", t->error, "fresh", t->fresh));
	}
	o = json_pack("{s:I, s:s, s:I, s:s, s:o, s:O, s:I, s:I, s:I, s:b}",
		      "saved", (json_int_t)++j->saved, "boot", boot, "run",
		      (json_int_t)j->run, "status", names[j->status], "tasks",
		      tasks, "errors", j->errors, "retries",
		      (json_int_t)j->retries, "started_ms",
		      (json_int_t)j->started_ms, "ended_ms",
		      (json_int_t)j->ended_ms, "reserved", j->reserved);
	if (j->ending)
		json_object_set_new(o, "ending", json_string(names[j->end_as]));
	if (j->models)
		json_object_set(o, "models", j->models);
	if (json_write_file(path, o, 0600, durable, &e))
		log_error("scheduler", "%s", e.text);
	json_decref(o);
}

/* ---- after a restart ------------------------------------------------------
 */

/* The later one of both; NULL: killed before the first change. */
static json_t *read_state(const struct job *j)
{
	static const char *const files[] = { "state", "recent" };
	json_t *newest = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		_cleanup_free_ char *path =
		    xasprintf("%s/.job/%s.json", j->dir, files[i]);
		json_t *o = json_read_file(path, NULL);

		if (o && (!newest || json_int_or(o, "saved", 0) >
					 json_int_or(newest, "saved", 0))) {
			json_decref(newest);
			newest = json_incref(o);
		}
		json_decref(o);
	}
	return newest;
}

static void load_state(struct job *j)
{
	json_t *o = read_state(j), *list, *v;
	char boot[BOOT_ID_SIZE];
	size_t i;

	if (!o)
		return;
	boot_id(boot);
	j->rebooted = strcmp(json_str_or(o, "boot", boot), boot) != 0;
	j->saved = json_int_or(o, "saved", 0);
	j->status = status_of(json_str_or(o, "status", "waiting"));
	j->run = (unsigned)json_int_or(o, "run", 0);
	j->retries = (unsigned)json_int_or(o, "retries", 0);
	j->end_as = status_of(json_str_or(o, "ending", "waiting"));
	j->started_ms = json_int_or(o, "started_ms", 0);
	j->ended_ms = json_int_or(o, "ended_ms", 0);
	list = json_object_get(o, "models");
	if (json_is_array(list))
		j->models = json_incref(list);
	list = json_object_get(o, "errors");
	if (json_is_array(list)) {
		json_decref(j->errors);
		j->errors = json_incref(list);
	}
	json_array_foreach (json_object_get(o, "tasks"), i, v) {
		struct task *t = &j->tasks[i];
		const char *text;

		if (i >= j->n_tasks)
			break;
		t->status = status_of(json_str_or(v, "status", "waiting"));
		t->attempt = (unsigned)json_int_or(v, "attempt", 0);
		t->want = (unsigned)json_int_or(v, "want", t->attempt);
		t->want = MAX(t->want, t->attempt);
		t->fresh = json_bool_or(v, "fresh", false);
		text = json_str_or(v, "code", NULL);
		t->code = text ? xstrdup(text) : NULL;
		text = json_str_or(v, "public", NULL);
		t->public = text ? xstrdup(text) : NULL;
		text = json_str_or(v, "error", NULL);
		t->error = text ? xstrdup(text) : NULL;
	}
	json_decref(o);
}

static bool no_names(const char *dir)
{
	_cleanup_closedir_ DIR *d = opendir(dir);
	const struct dirent *de;

	while (d && (de = readdir(d)))
		if (de->d_name[0] != '.')
			return false;
	return true;
}

/* The tables of a task that has ended well. */
static void show_tables(struct sched *s, const struct job *j,
			const struct task *t)
{
	json_t *c = json_object_get(json_object_get(j->plan, "components"),
				    t->component);
	_cleanup_free_ char *dir = task_dir(j, t);
	_cleanup_free_ char *out = xasprintf("%s/out", dir);

	if (json_array_size(json_object_get(c, "data_outputs")) &&
	    no_names(out))
		task_link_tables(s, j, t);
}

/* Not all that is shown is on the disk when the power goes. */
static int show_again(struct sched *s, const struct job *j, struct err *e)
{
	int r = make_dirs(j, e);

	if (!r)
		r = make_tasks(j, e);
	for (size_t i = 0; i < j->n_tasks && !r; i++)
		if (j->tasks[i].local && (j->tasks[i].status == ST_SUCCESS ||
					  j->tasks[i].status == ST_PASS))
			show_tables(s, j, &j->tasks[i]);
	if (!says(j->dir, j->status))
		job_write_status(j);
	return r;
}

static struct job *load_one(struct sched *s, const char *id, struct err *e)
{
	_cleanup_free_ char *dir = xasprintf("%s/%s", s->jobs_dir, id);
	_cleanup_free_ char *path = xasprintf("%s/.job/job.json", dir);
	_cleanup_free_ char *dsl_path = xasprintf("%s/dsl.json", dir);
	_cleanup_free_ char *conf_path = xasprintf("%s/conf.json", dir);
	json_t *o = json_read_file(path, e);
	json_t *dsl = json_read_file(dsl_path, e);
	json_t *conf = json_read_file(conf_path, e);
	struct job *j = NULL;

	if (o && dsl && conf) {
		j = job_new(s, id, json_object_get(o, "plan"), dsl, conf,
			    json_str_or(o, "secret", NULL),
			    json_int_or(o, "created_ms", 0), e);
		j->number = (uint64_t)json_int_or(o, "number", 0);
		j->told = j->n_others > 0;
		load_state(j);
		if (show_again(s, j, e))
			log_error("scheduler", "%s", e->text);
	}
	json_decref(o);
	json_decref(dsl);
	json_decref(conf);
	return j;
}

static int by_id(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int jobs_load(struct sched *s, struct err *e)
{
	_cleanup_closedir_ DIR *d = opendir(s->jobs_dir);
	struct job **tail = &s->jobs;
	char **ids = NULL;
	size_t n = 0;
	struct dirent *de;

	if (!d)
		return err_sys(e, errno, "%s", s->jobs_dir);
	while ((de = readdir(d))) {
		_cleanup_free_ char *path = NULL;

		if (de->d_name[0] == '.' && strlen(de->d_name) > 4) {
			path = xasprintf("%s/%s", s->jobs_dir, de->d_name);
			(void)remove_tree(path, NULL); /* half-made */
		}
		if (de->d_name[0] < '0' || de->d_name[0] > '9' ||
		    strlen(de->d_name) > 40)
			continue;
		ids = xrealloc(ids, (n + 1) * sizeof(*ids));
		ids[n++] = xstrdup(de->d_name);
	}
	if (n)
		qsort(ids, n, sizeof(*ids), by_id);
	for (size_t i = 0; i < n; i++) {
		struct err why = { 0 };
		struct job *j = load_one(s, ids[i], &why);

		if (j) {
			*tail = j;
			tail = &j->next;
			if (j->ours) {
				free(s->latest);
				s->latest = xstrdup(j->id);
			}
		} else {
			log_error("scheduler", "job %s cannot be read: %s",
				  ids[i], why.text);
		}
		free(ids[i]);
	}
	free(ids);
	return 0;
}

struct dropping {
	struct sched *s;
	const char *ns;
};

static int drop_one(void *arg, const char *name)
{
	struct dropping *d = arg;
	struct err e;

	if (table_drop(d->s->o.tables, d->ns, name, &e))
		log_warn("scheduler", "%s", e.text);
	return 0;
}

void job_drop_tables(struct sched *s, const struct job *j)
{
	_cleanup_free_ char *ns = xasprintf("output_data_%s", j->id);
	struct dropping d = { s, ns };
	int r = table_list(s->o.tables, ns, drop_one, &d, NULL);

	if (!r)
		r = namespace_remove(s->o.tables, ns, NULL);
	if (r && r != -ENOENT)
		log_warn("scheduler", "tables of job %s remain", j->id);
}
