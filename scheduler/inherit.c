// SPDX-License-Identifier: Apache-2.0
/*
 * inheritance_info: components of a former job of the same parties that need
 * not run again.  Tables are shared, models and curves are the new job's own.
 */
#include <sys/stat.h>

#include "lib/fileio.h"
#include "lib/json.h"
#include "lib/log.h"

#include "scheduler/check_priv.h"
#include "scheduler/engine.h"
#include "scheduler/model_priv.h"

#define AT "conf#/job_parameters/common/inheritance_info"

static const json_t *info_of(const json_t *conf)
{
	return json_object_get(
	    json_object_get(json_object_get(conf, "job_parameters"), "common"),
	    "inheritance_info");
}

/* ---- may it be? -------------------------------------------------------------
 */

struct asked {
	struct sched *s;
	const json_t *dsl, *conf, *list;
	const struct job *old;
	bool own;
	struct defects *d;
};

/* To a partner only fixed sentences. */
static void refuse(struct asked *a, const char *at, const char *mine,
		   const char *theirs)
{
	if (a->own)
		defect_add(a->d, EINVAL, at, "%s", mine);
	else
		defect_add(a->d, EINVAL, at, "party %s %s", a->s->party,
			   theirs);
}

/* {"guest": ["9999"]} as in a plan. */
static json_t *roles_of(const json_t *conf)
{
	json_t *ret = json_object(), *list, *v;
	const char *role;
	char id[32];
	size_t i;

	json_object_foreach (json_object_get(conf, "role"), role, list) {
		json_t *ids = json_array();

		json_array_foreach (list, i, v) {
			conf_party_text(v, id, sizeof(id));
			json_array_append_new(ids, json_string(id));
		}
		if (json_array_size(ids))
			json_object_set(ret, role, ids);
		json_decref(ids);
	}
	return ret;
}

static bool same_member(const json_t *a, const json_t *b, const char *key)
{
	const json_t *x = json_object_get(a, key);
	const json_t *y = json_object_get(b, key);

	return (!x && !y) || json_equal(x, y);
}

static const json_t *doc_of(const json_t *dsl, const char *name)
{
	return json_object_get(json_object_get(dsl, "components"), name);
}

static bool same_params(const struct asked *a, const char *name)
{
	json_t *roles = json_object_get(a->old->plan, "roles"), *list, *v;
	const char *role;
	bool same = true;
	size_t i;

	json_object_foreach (roles, role, list)
		json_array_foreach (list, i, v) {
			json_t *was, *is;

			if (!a->own &&
			    strcmp(json_string_value(v), a->s->party) != 0)
				continue;
			was = conf_params(a->old->conf, role, i, name);
			is = conf_params(a->conf, role, i, name);
			same &= json_equal(was, is);
			json_decref(was);
			json_decref(is);
		}
	return same;
}

static bool finished(const struct asked *a, const char *name)
{
	bool any = false;

	for (size_t i = 0; i < a->old->n_tasks; i++) {
		const struct task *t = &a->old->tasks[i];

		if (strcmp(t->component, name) != 0)
			continue;
		if (t->status != ST_SUCCESS && t->status != ST_PASS)
			return false;
		any = true;
	}
	/* A role may have nothing to do in it. */
	return any || doc_of(a->old->dsl, name);
}

/* The tables that out/ of the old task names are still there. */
static bool tables_there(const struct asked *a, const char *name)
{
	json_t *c =
	    json_object_get(json_object_get(a->old->plan, "components"), name);
	_cleanup_free_ char *ns = xasprintf("output_data_%s", a->old->id);
	json_t *v;
	size_t i, k;

	for (k = 0; k < a->old->n_tasks; k++) {
		const struct task *t = &a->old->tasks[k];

		if (!t->local || strcmp(t->component, name) != 0)
			continue;
		json_array_foreach (json_object_get(c, "data_outputs"), i, v) {
			const char *out = json_string_value(v);
			_cleanup_free_ char *dir = task_dir(a->old, t);
			_cleanup_free_ char *link =
			    xasprintf("%s/out/%s", dir, out);
			_cleanup_free_ char *table =
			    xasprintf("%s.%s.%s", name, t->role, out);
			struct table_id id;
			struct stat st;

			if (!lstat(link, &st) &&
			    (table_lookup(a->s->o.tables, ns, table, &id,
					  NULL) ||
			     !id.gen))
				return false;
		}
	}
	return true;
}

/* What it reads from must be inherited too. */
static void closed(struct asked *a, const char *name, const char *at)
{
	const json_t *in = json_object_get(doc_of(a->dsl, name), "input");
	const char *kind, *key;
	json_t *keys, *list, *v;
	size_t i;

	json_object_foreach ((json_t *)in, kind, keys) {
		json_t *one = json_is_array(keys) ? json_pack("{s:O}", "", keys)
						  : json_incref(keys);

		json_object_foreach (one, key, list)
			json_array_foreach (list, i, v) {
				const char *text = json_is_string(v)
						       ? json_string_value(v)
						       : "";
				_cleanup_free_ char *from = xasprintf(
				    "%.*s", (int)strcspn(text, "."), text);
				_cleanup_free_ char *why = xasprintf(
				    "%s reads from %s, which is not in the "
				    "list",
				    name, from);

				if (*from && !list_has(a->list, from))
					refuse(a, at, why,
					       "cannot inherit it without what "
					       "it reads from");
			}
		json_decref(one);
	}
}

static void check_one(struct asked *a, const char *name, const char *at)
{
	const json_t *is = doc_of(a->dsl, name);
	const json_t *was = doc_of(a->old->dsl, name);

	if (!is)
		refuse(a, at, "no such component in the DSL",
		       "cannot inherit what is not in the DSL");
	else if (!was)
		refuse(a, at, "the former job has no such component",
		       "has no such component in the former job");
	else if (!same_member(is, was, "module") ||
		 !same_member(is, was, "input") ||
		 !same_member(is, was, "output"))
		refuse(a, at,
		       "its module, input or output is another than in the "
		       "former job",
		       "has another module, input or output in the former job");
	else if (!same_params(a, name))
		refuse(a, at,
		       "its parameters are others than in the former job",
		       "has other parameters in the former job");
	else if (!finished(a, name))
		refuse(a, at, "it has not succeeded in the former job",
		       "has no success of it in the former job");
	else if (!tables_there(a, name))
		refuse(a, at, "a table that it made is gone",
		       "does not have its tables any more");
	else
		closed(a, name, at);
}

static void check_job(struct asked *a, const char *initiator)
{
	json_t *roles = roles_of(a->conf), *v;
	size_t i;

	if (!a->old || strcmp(a->old->initiator, initiator) != 0)
		refuse(a, AT "/job_id", "no such job of this party",
		       "has no such job of yours");
	else if (!status_ended(a->old->status))
		refuse(a, AT "/job_id", "the job has not ended",
		       "has not ended that job");
	else if (!json_equal(roles, json_object_get(a->old->plan, "roles")))
		refuse(a, AT "/job_id", "the job has other parties",
		       "has that job with other parties");
	else
		json_array_foreach ((json_t *)a->list, i, v) {
			char at[120];

			(void)snprintf(at, sizeof(at), AT "/component_list/%zu",
				       i);
			if (json_is_string(v))
				check_one(a, json_string_value(v), at);
		}
	json_decref(roles);
}

void inherit_check(struct sched *s, const json_t *dsl, const json_t *conf,
		   const char *initiator, struct defects *d)
{
	const json_t *info = info_of(conf);
	struct asked a = { .s = s,
			   .dsl = dsl,
			   .conf = conf,
			   .list = json_object_get(info, "component_list"),
			   .own = !strcmp(initiator, s->party),
			   .d = d };

	if (!json_object_size(info) || !json_is_array(a.list))
		return;
	/* The scheduler stands still while we look: of a partner's list, too.
	 */
	if (json_array_size(a.list) > COMPONENTS_MAX) {
		refuse(&a, AT "/component_list",
		       "more names than a DSL has components",
		       "does not look at so many components");
		return;
	}
	pthread_mutex_lock(&s->lock);
	a.old = job_find(s, json_str_or(info, "job_id", ""));
	check_job(&a, initiator);
	pthread_mutex_unlock(&s->lock);
}

/* ---- taking it over ---------------------------------------------------------
 */

struct copying {
	const char *from, *to;
	bool link;
	struct err *e;
};

static int copy_file(const char *from, const char *to, struct err *e)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(256u << 20);
	int r = file_read(from, &sb, e);

	return r ? r : file_replace(to, sb.buf, sb.len, 0600, false, e);
}

static int copy_one(void *arg, const char *relative)
{
	const struct copying *c = arg;
	_cleanup_free_ char *from = xasprintf("%s/%s", c->from, relative);
	_cleanup_free_ char *to = xasprintf("%s/%s", c->to, relative);
	char *slash = strrchr(to, '/');
	int r;

	*slash = '\0';
	r = mkdir_p(to, 0700, c->e);
	*slash = '/';
	if (r)
		return r;
	if (!c->link)
		return copy_file(from, to, c->e);
	return link(from, to) ? err_sys(c->e, errno, "%s", to) : 0;
}

/* Curves grow in place: they are copied; the rest is only ever replaced. */
static int copy_files(const char *from, const char *to, struct err *e)
{
	static const char *const trees[] = { "model", "checkpoints",
					     "metrics" };
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(trees) && !r; i++) {
		_cleanup_free_ char *a = xasprintf("%s/%s", from, trees[i]);
		_cleanup_free_ char *b = xasprintf("%s/%s", to, trees[i]);
		struct copying c = { a, b, i < 2, e };

		if (!access(a, F_OK))
			r = model_walk(a, copy_one, &c, e);
	}
	if (!r) {
		_cleanup_free_ char *a = xasprintf("%s/summary.json", from);
		_cleanup_free_ char *b = xasprintf("%s/summary.json", to);

		if (!access(a, F_OK) && link(a, b))
			r = err_sys(e, errno, "%s", b);
	}
	return r;
}

static int link_tables(struct sched *s, const struct job *j,
		       const struct task *t, const char *old, struct err *e)
{
	json_t *c = json_object_get(json_object_get(j->plan, "components"),
				    t->component);
	_cleanup_free_ char *from = xasprintf("output_data_%s", old);
	_cleanup_free_ char *to = xasprintf("output_data_%s", j->id);
	json_t *v;
	size_t i;
	int r = 0;

	json_array_foreach (json_object_get(c, "data_outputs"), i, v) {
		_cleanup_free_ char *name = xasprintf(
		    "%s.%s.%s", t->component, t->role, json_string_value(v));
		_cleanup_table_ struct table *table = NULL;

		r = table_open(s->o.tables, from, name, &table, NULL);
		if (r == -ENOENT) {
			r = 0;
			continue; /* this role has made none */
		}
		if (!r)
			r = table_link(table, to, name, e);
		else
			err_sys(e, -r, "%s/%s", from, name);
		if (r)
			return r;
	}
	return 0;
}

/* Where the old job is, and how its tasks ended; false when it has gone. */
static bool look_up(struct sched *s, struct job *j, const char *id, char **dir)
{
	const json_t *list =
	    json_object_get(json_object_get(json_object_get(j->plan, "job"),
					    "inheritance_info"),
			    "component_list");
	const struct job *old;

	pthread_mutex_lock(&s->lock);
	old = job_find(s, id);
	*dir = old ? xstrdup(old->dir) : NULL;
	for (size_t i = 0; old && i < j->n_tasks; i++) {
		struct task *t = &j->tasks[i];
		const struct task *was =
		    task_find(old, t->role, t->component, t->party);

		/* Partners have looked at their own. */
		if (list_has(list, t->component))
			t->status = t->local && was ? was->status : ST_SUCCESS;
	}
	pthread_mutex_unlock(&s->lock);
	return *dir != NULL;
}

int inherit_tasks(struct sched *s, struct job *j, struct err *e)
{
	const json_t *info = json_object_get(json_object_get(j->plan, "job"),
					     "inheritance_info");
	const char *id = json_str_or(info, "job_id", "");
	_cleanup_free_ char *dir = NULL;
	int r = 0;

	if (!info)
		return 0;
	if (!look_up(s, j, id, &dir))
		return err_set(e, ENOENT, "job %s has been removed", id);
	for (size_t i = 0; i < j->n_tasks && !r; i++) {
		struct task *t = &j->tasks[i];
		_cleanup_free_ char *from = NULL, *to = NULL;

		if (!t->local || t->status == ST_WAITING)
			continue;
		from = xasprintf("%s/%s/%s", dir, t->role, t->component);
		to = task_dir(j, t);
		r = copy_files(from, to, e);
		if (!r)
			r = link_tables(s, j, t, id, e);
	}
	for (size_t i = 0; i < j->n_tasks && !r; i++) {
		struct task *t = &j->tasks[i];

		if (!t->local || t->status == ST_WAITING)
			continue;
		task_link_tables(s, j, t);
		task_event(j, t, "inherited from job %s", id);
		job_event(j, "%s %s-%s inherited from job %s", t->component,
			  t->role, t->party, id);
		task_write_status(j, t);
	}
	if (!r)
		job_save(s, j, false);
	return r;
}
