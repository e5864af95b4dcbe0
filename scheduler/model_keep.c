// SPDX-License-Identifier: Apache-2.0
/*
 * The end of a training job: what its tasks have learned at this party becomes
 * a version of the store.  It is made aside by a thread of its own and renamed
 * into place, before the job ends.
 */
#include "scheduler/model_priv.h"

#include <sys/stat.h>

#include "lib/fileio.h"
#include "lib/log.h"
#include "lib/version.h"

#include "scheduler/engine.h"

/* Of all tasks together: a version has room for so many files, and each is
 * digested and synced before the job ends. */
#define CHECKPOINTS_MAX 2000

/* A task of ours whose model stays. */
struct kept {
	char *role, *component, *output;
	char *dir;
};

struct keep {
	struct sched *s;
	char job[41];
	json_t *dsl, *conf, *info;
	struct kept *tasks;
	size_t n_tasks;
	struct err e;
};

/* ---- which ------------------------------------------------------------------
 */

static const json_t *outputs_of(const struct job *j, const char *component)
{
	return json_object_get(
	    json_object_get(json_object_get(j->plan, "components"), component),
	    "model_outputs");
}

/* All of its tasks are through, and one has not only handed its rows on. */
static bool learned(const struct job *j, const char *component)
{
	bool any = false;

	for (size_t i = 0; i < j->n_tasks; i++) {
		const struct task *t = &j->tasks[i];

		if (strcmp(t->component, component) != 0)
			continue;
		if (t->status != ST_SUCCESS && t->status != ST_PASS)
			return false;
		any |= t->status == ST_SUCCESS;
	}
	return any;
}

json_t *models_made(const struct job *j)
{
	json_t *ret = json_array(), *v;
	size_t i;

	if (!plan_predicts(j->plan) &&
	    (j->end_as == ST_SUCCESS || j->end_as == ST_FAILED))
		json_array_foreach (json_object_get(j->plan, "order"), i, v) {
			const char *name = json_string_value(v);

			if (json_array_size(outputs_of(j, name)) &&
			    learned(j, name))
				json_array_append(ret, v);
		}
	if (json_array_size(ret))
		return ret;
	json_decref(ret);
	return NULL;
}

/* ---- files ------------------------------------------------------------------
 */

/* {"module", "meta", "param"} as two files below to. */
static int split_model(const char *from, const char *to, json_t **module,
		       struct err *e)
{
	_cleanup_free_ char *meta_at = xasprintf("%s/meta.json", to);
	_cleanup_free_ char *param_at = xasprintf("%s/param.json", to);
	json_t *o = json_read_file(from, e), *meta;
	int r = o ? mkdir_p(to, 0700, e) : -e->no;

	if (!r && (!json_is_object(json_object_get(o, "meta")) ||
		   !json_is_object(json_object_get(o, "param"))))
		r = err_set(e, EBADMSG, "%s: not a model", from);
	if (!r) {
		meta = json_pack("{s:s, s:O}", "module",
				 json_str_or(o, "module", ""), "meta",
				 json_object_get(o, "meta"));
		r = json_write_file(meta_at, meta, 0600, false, e);
		json_decref(meta);
	}
	if (!r)
		r = json_write_file(param_at, json_object_get(o, "param"), 0600,
				    false, e);
	if (!r && module)
		*module = json_string(json_str_or(o, "module", ""));
	json_decref(o);
	return r;
}

static int by_index(const void *a, const void *b)
{
	unsigned long x = *(const unsigned long *)a;
	unsigned long y = *(const unsigned long *)b;

	return (x > y) - (x < y);
}

/* Numbers of the checkpoints, ascending; caller frees. */
static unsigned long *list_checkpoints(const char *all, size_t *ret_n)
{
	_cleanup_closedir_ DIR *d = opendir(all);
	unsigned long *v = NULL;
	const struct dirent *de;
	size_t n = 0, alloc = 0;

	while (d && (de = readdir(d))) {
		size_t k = strspn(de->d_name, "0123456789");

		if (!k || k > 7 || strcmp(de->d_name + k, ".json") != 0)
			continue;
		if (n == alloc) {
			alloc = 2 * alloc + 64;
			v = xrealloc(v, alloc * sizeof(*v));
		}
		v[n++] = strtoul(de->d_name, NULL, 10);
	}
	if (n)
		qsort(v, n, sizeof(*v), by_index);
	*ret_n = n;
	return v;
}

/* The newest ones. */
static int keep_checkpoints(const char *from, const char *to, size_t max,
			    struct err *e)
{
	_cleanup_free_ char *all = xasprintf("%s/checkpoints", from);
	size_t n;
	_cleanup_free_ unsigned long *v = list_checkpoints(all, &n);
	int r = 0;

	for (size_t i = n > max ? n - max : 0; i < n && !r; i++) {
		_cleanup_free_ char *one = xasprintf("%s/%lu.json", all, v[i]);
		_cleanup_free_ char *dir =
		    xasprintf("%s/checkpoints/%lu", to, v[i]);

		r = split_model(one, dir, NULL, e);
	}
	return r;
}

/* One task; info.components gets its role. */
static int keep_task(struct keep *k, const struct kept *t, const char *dir)
{
	_cleanup_free_ char *member = model_member(t->role, k->s->party);
	_cleanup_free_ char *to =
	    xasprintf("%s/%s/%s", dir, member, t->component);
	_cleanup_free_ char *from =
	    xasprintf("%s/model/%s.json", t->dir, t->output);
	json_t *one = json_object_get(json_object_get(k->info, "components"),
				      t->component);
	json_t *module = NULL;
	int r;

	if (access(from, F_OK))
		return 0; /* this role learns nothing */
	r = split_model(from, to, &module, &k->e);
	if (!r) /* of a ModelLoader: what it loaded */
		json_object_set_new(one, "module", module);
	if (!r)
		r = keep_checkpoints(t->dir, to, CHECKPOINTS_MAX / k->n_tasks,
				     &k->e);
	if (!r)
		json_array_append_new(json_object_get(one, "roles"),
				      json_string(t->role));
	return r;
}

/* A job that was run again replaces what it left; nothing else is replaced. */
static bool may_replace(const struct keep *k)
{
	json_t *old =
	    model_info(k->s->o.conf->state,
		       json_str_or(k->info, "model_id", ""), k->job, NULL);
	bool may = !old || (json_equal(json_object_get(old, "initiator"),
				       json_object_get(k->info, "initiator")) &&
			    !json_bool_or(old, "deployed", false));

	json_decref(old);
	return may;
}

static int make_version(struct keep *k)
{
	const char *state = k->s->o.conf->state;
	_cleanup_free_ char *dir = NULL, *train = NULL, *dsl = NULL;
	_cleanup_free_ char *conf = NULL, *info = NULL;
	int r;

	if (!may_replace(k))
		return err_set(&k->e, EEXIST,
			       "the store has another version %s", k->job);
	dir = model_workshop(state, k->job, &k->e);
	if (!dir)
		return -k->e.no;
	train = xasprintf("%s/train", dir);
	dsl = xasprintf("%s/dsl.json", train);
	conf = xasprintf("%s/conf.json", train);
	info = xasprintf("%s/info.json", dir);
	r = mkdir_p(train, 0700, &k->e);
	if (!r)
		r = json_write_file(dsl, k->dsl, 0600, false, &k->e);
	if (!r)
		r = json_write_file(conf, k->conf, 0600, false, &k->e);
	for (size_t i = 0; i < k->n_tasks && !r; i++)
		r = keep_task(k, &k->tasks[i], dir);
	if (!r)
		r = model_list_files(dir, json_object_get(k->info, "files"),
				     &k->e);
	if (!r)
		r = json_write_file(info, k->info, 0600, false, &k->e);
	if (!r)
		r = model_settle(dir, &k->e);
	if (!r)
		r = model_publish(state, dir,
				  json_str_or(k->info, "model_id", ""), k->job,
				  &k->e);
	if (r)
		(void)remove_tree(dir, NULL);
	return r;
}

/* ---- beside the loop --------------------------------------------------------
 */

static void keep_free(struct keep *k)
{
	for (size_t i = 0; i < k->n_tasks; i++) {
		free(k->tasks[i].role);
		free(k->tasks[i].component);
		free(k->tasks[i].output);
		free(k->tasks[i].dir);
	}
	free(k->tasks);
	json_decref(k->dsl);
	json_decref(k->conf);
	json_decref(k->info);
	free(k);
}

static void kept_on_loop(struct sched *s, void *arg)
{
	struct keep *k = arg;
	struct job *j = job_find(s, k->job);

	if (j && k->e.no)
		job_add_error(s, j, "the model was not kept: %s", k->e.text);
	else if (j)
		job_event(j, "model %s %s",
			  json_str_or(k->info, "model_id", ""), k->job);
	if (!k->e.no && s->o.models_changed)
		s->o.models_changed(
		    s->o.arg, json_str_or(k->info, "model_id", ""), k->job);
	if (j) {
		j->keeping = false;
		j->kept = true;
		job_try_done(s, j);
	}
	keep_free(k);
}

static void *keep_thread(void *arg)
{
	struct keep *k = arg;

	(void)make_version(k);
	sched_post(k->s, kept_on_loop, k);
	return NULL;
}

static json_t *info_of(const struct sched *s, const struct job *j)
{
	_cleanup_free_ char *id =
	    model_id_of(json_object_get(j->plan, "roles"));
	json_t *components = json_object(), *v;
	char when[40];
	size_t i;

	json_array_foreach (j->models, i, v) {
		const char *name = json_string_value(v);
		const json_t *c = json_object_get(
		    json_object_get(j->plan, "components"), name);

		json_object_set_new(
		    components, name,
		    json_pack("{s:s, s:[], s:O*}", "module",
			      json_str_or(c, "module", ""), "roles", "output",
			      json_array_get(outputs_of(j, name), 0)));
	}
	return json_pack(
	    "{s:i, s:s, s:s, s:s, s:o, s:o, s:s, s:n, s:b, s:s, s:s, s:s, "
	    "s:o, s:{}}",
	    "version", 1, "model_id", id, "model_version", j->id, "party",
	    s->party, "roles",
	    json_deep_copy(json_object_get(j->plan, "roles")), "initiator",
	    json_deep_copy(json_object_get(j->plan, "initiator")), "job", j->id,
	    "parent", "deployed", 0, "status", status_name(j->end_as),
	    "created", time_rfc3339(when, sizeof(when), now_unix_ms()),
	    "rollfs", rollfs_version(), "components", components, "files");
}

/* Copies: the job is the loop's. */
void models_keep(struct sched *s, struct job *j)
{
	struct keep *k = xcalloc(1, sizeof(*k));

	k->s = s;
	memcpy(k->job, j->id, sizeof(k->job));
	k->dsl = json_deep_copy(j->dsl);
	k->conf = json_deep_copy(j->conf);
	k->info = info_of(s, j);
	k->tasks = xcalloc(j->n_tasks + 1, sizeof(*k->tasks));
	for (size_t i = 0; i < j->n_tasks; i++) {
		const struct task *t = &j->tasks[i];
		const json_t *out = outputs_of(j, t->component);

		if (!t->local || t->status != ST_SUCCESS ||
		    !json_object_get(json_object_get(k->info, "components"),
				     t->component))
			continue;
		k->tasks[k->n_tasks++] = (struct kept){
			.role = xstrdup(t->role),
			.component = xstrdup(t->component),
			.output =
			    xstrdup(json_string_value(json_array_get(out, 0))),
			.dir = task_dir(j, t),
		};
	}
	j->keeping = true;
	if (sched_thread(s, 1u << 20, keep_thread, k))
		keep_thread(k);
}
