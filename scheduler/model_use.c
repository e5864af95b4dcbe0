// SPDX-License-Identifier: Apache-2.0
/* Jobs that use a stored model: predict jobs, and training jobs with a
 * ModelLoader. */
#include "scheduler/model_priv.h"

#include "lib/fileio.h"
#include "lib/log.h"

#include "scheduler/check_priv.h"
#include "scheduler/engine.h"

#define AT_ID	   "conf#/job_parameters/common/model_id"
#define AT_VERSION "conf#/job_parameters/common/model_version"

static json_t *job_common(const json_t *conf)
{
	return json_object_get(json_object_get(conf, "job_parameters"),
			       "common");
}

static bool is_predict(const json_t *conf)
{
	return !strcmp(json_str_or(job_common(conf), "job_type", ""),
		       "predict");
}

static size_t count(char **names)
{
	size_t n = 0;

	while (names && names[n])
		n++;
	return n;
}

static const char *nearest(const char *word, char **names)
{
	return suggest(word, (const char *const *)names, count(names));
}

/* ---- what our own user is told ---------------------------------------------
 */

static void no_such_id(struct sched *s, const char *id, struct defects *d)
{
	char **ids = model_ids(s->o.conf->state);
	const char *near = nearest(id, ids);

	defect_add(d, EINVAL, AT_ID, "no model %.200s%s%s%s", id,
		   near ? " (did you mean " : "", near ? near : "",
		   near ? "?)" : "");
	model_names_free(ids);
}

static void no_such_version(struct sched *s, const char *id,
			    const char *version, struct defects *d)
{
	char **all = model_versions(s->o.conf->state, id);
	const char *near = nearest(version, all);

	defect_add(d, EINVAL, AT_VERSION,
		   "no version %.60s of that model%s%s%s", version,
		   near ? " (did you mean " : "", near ? near : "",
		   near ? "?)" : "");
	model_names_free(all);
}

static void not_deployed(struct sched *s, const char *id, const char *version,
			 struct defects *d)
{
	_cleanup_free_ char *child =
	    model_deployed(s->o.conf->state, id, version);

	if (child)
		defect_add(d, EINVAL, AT_VERSION,
			   "version %s is not a deployed one; it was deployed "
			   "as %s: give that",
			   version, child);
	else
		defect_add(d, EINVAL, AT_VERSION,
			   "version %s is not deployed: echo 'deploy' > "
			   "'models/%s/%s/ctl' makes a version that predicts",
			   version, id, version);
}

static bool names_given(const json_t *conf, struct defects *d)
{
	static const char *const keys[] = { "model_id", "model_version" };
	static const char *const at[] = { AT_ID, AT_VERSION };
	bool all = true;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (!json_str_or(job_common(conf), keys[i], NULL)) {
			defect_add(d, EINVAL, at[i],
				   "a predict job needs it: the name of a "
				   "deployed model (ls models)");
			all = false;
		}
	return all;
}

bool model_expand(struct sched *s, json_t **dsl, json_t **conf,
		  struct defects *d)
{
	const char *state = s->o.conf->state, *id, *version;
	json_t *train = NULL, *info = NULL, *own = NULL, *merged;
	char **versions;
	struct err e = { 0 };
	bool right;

	if (!is_predict(*conf))
		return true;
	if (!names_given(*conf, d))
		return false;
	id = json_str_or(job_common(*conf), "model_id", "");
	version = json_str_or(job_common(*conf), "model_version", "");
	versions = model_versions(state, id);
	if (!versions) {
		no_such_id(s, id, d);
		return false;
	}
	model_names_free(versions);
	if (!model_exists(state, id, version)) {
		no_such_version(s, id, version, d);
		return false;
	}
	info = model_info(state, id, version, &e);
	if (info && !json_bool_or(info, "deployed", false)) {
		not_deployed(s, id, version, d);
	} else if (info) {
		own = model_read(state, id, version, MODEL_DSL_PATH, &e);
		train = model_read(state, id, version, "train/conf.json", &e);
	}
	right = own && train;
	if (right) {
		merged = predict_conf_merge(train, *conf, own);
		json_decref(*conf);
		*conf = merged;
		json_decref(*dsl);
		*dsl = json_incref(own);
	} else if (*e.text) {
		defect_add(d, EINVAL, AT_VERSION, "%s", e.text);
	}
	json_decref(train);
	json_decref(info);
	json_decref(own);
	return right;
}

/* ---- the check at every party ----------------------------------------------
 */

struct use {
	struct sched *s;
	const char *initiator;
	bool own;
	struct defects *d;
};

/* Absent and withheld look the same to a partner. */
static void refuse(struct use *u, const char *at, const char *mine,
		   const char *theirs)
{
	if (u->own)
		defect_add(u->d, EINVAL, at, "%s", mine);
	else
		defect_add(u->d, EINVAL, at, "party %s %s", u->s->party,
			   theirs);
}

/* The version's info, if the caller may use it. */
static json_t *usable(struct use *u, const char *id, const char *version,
		      const char *at)
{
	static const char *const none =
	    "has no such model of yours, or does not allow it";
	struct err e = { 0 };
	json_t *info = model_info(u->s->o.conf->state, id, version, &e);
	_cleanup_free_ char *dir = NULL;

	if (!info) {
		refuse(u, at, e.text, none);
		return NULL;
	}
	if (strcmp(json_str_or(json_object_get(info, "initiator"), "party", ""),
		   u->initiator)) {
		refuse(u, at,
		       "only the initiator of the training may use the model",
		       none);
		json_decref(info);
		return NULL;
	}
	dir = model_path(u->s->o.conf->state, id, version);
	if (model_verify(dir, info, &e)) {
		refuse(u, at, e.text,
		       "has a part of this model that was changed or damaged");
		json_decref(info);
		return NULL;
	}
	return info;
}

/* Are the parties those of the training?  An arbiter may be missing. */
static bool same_parties(const json_t *info, const json_t *conf)
{
	const json_t *then = json_object_get(info, "roles"), *list, *v;
	const json_t *now = json_object_get(conf, "role");
	const char *role;
	char id[32];
	size_t i;

	json_object_foreach ((json_t *)then, role, list) {
		const json_t *given = json_object_get(now, role);

		if (!strcmp(role, "arbiter") && !json_array_size(given))
			continue;
		if (json_array_size(given) != json_array_size(list))
			return false;
		json_array_foreach ((json_t *)given, i, v) {
			conf_party_text(v, id, sizeof(id));
			if (!list_has(list, id))
				return false;
		}
	}
	json_object_foreach ((json_t *)now, role, list)
		if (json_array_size(list) && !json_object_get(then, role))
			return false;
	return true;
}

/* Handed its rows on in the training: it has made no model, and needs none. */
static bool hands_on(const json_t *conf, const char *name)
{
	const json_t *cp = json_object_get(conf, "component_parameters");

	return !json_bool_or(
	    json_object_get(json_object_get(cp, "common"), name), "need_run",
	    true);
}

static void check_ref(const json_t *c, const char *from, const char *at,
		      const json_t *known, bool strict, struct defects *d)
{
	const char *module =
	    json_str_or(json_object_get(known, from), "module", NULL);
	const char *names[COMPONENTS_MAX], *key, *near;
	size_t n = 0;
	json_t *v;

	if (module && strcmp(module, "ModelLoader") != 0 &&
	    strcasecmp(module, json_str_or(c, "module", "")) != 0)
		defect_add(d, EINVAL, at, "%s is a model of %s, not of %s",
			   from, module, json_str_or(c, "module", "?"));
	if (module || !strict)
		return;
	json_object_foreach ((json_t *)known, key, v)
		if (n < ARRAY_SIZE(names))
			names[n++] = key;
	near = suggest(from, names, n);
	defect_add(d, EINVAL, at,
		   "this version has no model of %s: it did not succeed, or "
		   "makes none%s%s%s",
		   from, near ? " (did you mean " : "", near ? near : "",
		   near ? "?)" : "");
}

void model_refs_each(const json_t *dsl, model_ref_fn fn, void *arg)
{
	const json_t *components = json_object_get(dsl, "components"), *c, *v;
	const char *name;
	size_t i;

	json_object_foreach ((json_t *)components, name, c) {
		const json_t *refs =
		    json_object_get(json_object_get(c, "input"), "model");

		json_array_foreach ((json_t *)refs, i, v) {
			char from[NAME_MAX_LEN + 1], alias[NAME_MAX_LEN + 1];

			if (json_is_string(v) &&
			    pipeline_reference(json_string_value(v), from,
					       alias, sizeof(from)))
				fn(arg, name, c, i, from);
		}
	}
}

struct refs {
	const json_t *conf, *known;
	bool strict;
	struct defects *d;
};

static void see_ref(void *arg, const char *name, const json_t *c, size_t i,
		    const char *from)
{
	const struct refs *x = arg;
	_cleanup_free_ char *at =
	    xasprintf("dsl#/components/%s/input/model/%zu", name, i);

	check_ref(c, from, at, x->known, x->strict && !hands_on(x->conf, from),
		  x->d);
}

void model_check_refs(const json_t *dsl, const json_t *conf, const json_t *info,
		      bool strict, struct defects *d)
{
	struct refs x = { conf, json_object_get(info, "components"), strict,
			  d };

	model_refs_each(dsl, see_ref, &x);
}

/* predict_param of a component as a task of that party gets it; caller
 * decrefs. */
static json_t *predict_param(const json_t *conf, const char *party,
			     const char *name)
{
	const json_t *roles = json_object_get(conf, "role"), *list, *v;
	const char *role;
	json_t *ret = NULL;
	char id[32];
	size_t i;

	json_object_foreach ((json_t *)roles, role, list)
		json_array_foreach ((json_t *)list, i, v) {
			json_t *params;

			conf_party_text(v, id, sizeof(id));
			if (ret || !strcmp(role, "arbiter") ||
			    strcmp(id, party) != 0)
				continue;
			params = conf_params(conf, role, i, name);
			ret = json_incref(
			    json_object_get(params, "predict_param"));
			json_decref(params);
		}
	return ret;
}

/* Scores that were hidden in the training stay so, with as many digits. */
static bool stays_hidden(const json_t *train, const json_t *conf,
			 const char *party, const char *from, const char *name)
{
	json_t *was = predict_param(train, party, from);
	json_t *is = predict_param(conf, party, name);
	bool ok = !json_bool_or(was, "hide_scores", false) ||
		  (json_bool_or(is, "hide_scores", false) &&
		   json_int_or(is, "score_digits", 2) <=
		       json_int_or(was, "score_digits", 2));

	json_decref(was);
	json_decref(is);
	return ok;
}

struct hidden {
	struct use *u;
	const json_t *conf, *train;
};

static void see_hidden(void *arg, const char *name, const json_t *c, size_t i,
		       const char *from)
{
	const struct hidden *x = arg;
	_cleanup_free_ char *at = NULL;

	(void)c;
	(void)i;
	if (stays_hidden(x->train, x->conf, x->u->s->party, from, name))
		return;
	at = xasprintf("conf#/component_parameters/common/%s/predict_param/"
		       "hide_scores",
		       name);
	refuse(x->u, at,
	       "the model was trained with hide_scores: predictions hide them "
	       "too, with no more score_digits",
	       "hides the scores of this model");
}

static void check_hidden(struct use *u, const json_t *dsl, const json_t *conf,
			 const json_t *train)
{
	struct hidden x = { u, conf, train };

	model_refs_each(dsl, see_hidden, &x);
}

static void check_predict(struct use *u, const json_t *dsl, const json_t *conf)
{
	const char *id = json_str_or(job_common(conf), "model_id", "");
	const char *version =
	    json_str_or(job_common(conf), "model_version", "");
	json_t *info = usable(u, id, version, AT_VERSION), *own, *train;

	if (!info)
		return;
	own =
	    model_read(u->s->o.conf->state, id, version, MODEL_DSL_PATH, NULL);
	train = model_read(u->s->o.conf->state, id, version, "train/conf.json",
			   NULL);
	if (train)
		check_hidden(u, dsl, conf, train);
	if (!json_bool_or(info, "deployed", false) || !own)
		refuse(u, AT_VERSION, "the version is not deployed",
		       "has this version, but not deployed");
	else if (!json_equal(own, dsl))
		refuse(u, "dsl#", "another DSL than that of the model",
		       "has another DSL for this version");
	else if (!same_parties(info, conf))
		refuse(u, "conf#/role",
		       "not the parties of the training (an arbiter may be "
		       "missing)",
		       "has this model of other parties");
	else
		model_check_refs(dsl, conf, info, u->own, u->d);
	json_decref(train);
	json_decref(own);
	json_decref(info);
}

/* ---- ModelLoader -----------------------------------------------------------
 */

static void no_component(struct use *u, const json_t *known, const char *name,
			 const char *at)
{
	const char *names[COMPONENTS_MAX], *key, *near;
	_cleanup_free_ char *text = NULL;
	size_t n = 0;
	json_t *v;

	json_object_foreach ((json_t *)known, key, v)
		if (n < ARRAY_SIZE(names))
			names[n++] = key;
	near = suggest(name, names, n);
	text = xasprintf("the model has no component %.100s%s%s%s", name,
			 near ? " (did you mean " : "", near ? near : "",
			 near ? "?)" : "");
	refuse(u, at, text, "has no such component in that model");
}

/* Whoever reads from the loader must be of the loaded module. */
static void check_readers(struct use *u, const json_t *dsl, const char *loader,
			  const char *module)
{
	const json_t *components = json_object_get(dsl, "components"), *c, *v;
	const char *name;
	size_t i;

	json_object_foreach ((json_t *)components, name, c) {
		const json_t *refs =
		    json_object_get(json_object_get(c, "input"), "model");

		json_array_foreach ((json_t *)refs, i, v) {
			const char *text = json_string_value(v);
			size_t n = text ? strcspn(text, ".") : 0;
			const json_t *spec = module_find(
			    u->s->describe, json_str_or(c, "module", ""));
			_cleanup_free_ char *at = NULL, *why = NULL;

			if (!text || strncmp(text, loader, n) || loader[n] ||
			    !strcmp(json_str_or(spec, "module", ""), module))
				continue;
			at = xasprintf("dsl#/components/%s/input/model/%zu",
				       name, i);
			why = xasprintf("%s loads a model of %s, not of %s",
					loader, module,
					json_str_or(spec, "module", "?"));
			refuse(u, at, why, "has a model of another module");
		}
	}
}

static char *loader_step(const json_t *params)
{
	int64_t index = json_int_or(params, "step_index", -1);

	return index < 0 ? NULL : xasprintf("%lld", (long long)index);
}

static void check_loader(struct use *u, const json_t *dsl, const char *name,
			 const json_t *params, const char *role, const char *at)
{
	const char *id = json_str_or(params, "model_id", "");
	const char *version = json_str_or(params, "model_version", "");
	const char *component = json_str_or(params, "component_name", "");
	_cleanup_free_ char *step = loader_step(params), *dir = NULL;
	_cleanup_free_ char *path = NULL, *member = NULL;
	const json_t *known, *one;
	json_t *info;

	if (!*id || !*version || !*component)
		return; /* what is required is named elsewhere */
	info = usable(u, id, version, at);
	if (!info)
		return;
	known = json_object_get(info, "components");
	one = json_object_get(known, component);
	if (!one) {
		no_component(u, known, component, at);
	} else {
		check_readers(u, dsl, name, json_str_or(one, "module", ""));
		dir = model_path(u->s->o.conf->state, id, version);
		member = model_member(role, u->s->party);
		if (step)
			path = xasprintf("%s/%s/%s/checkpoints/%s/param.json",
					 dir, member, component, step);
		if (path && access(path, R_OK) &&
		    list_has(json_object_get(one, "roles"), role))
			refuse(u, at, "the component has no such checkpoint",
			       "has no such checkpoint");
	}
	json_decref(info);
}

static void check_loaders(struct use *u, const json_t *dsl, const json_t *conf)
{
	const json_t *components = json_object_get(dsl, "components"), *c;
	const json_t *roles = json_object_get(conf, "role"), *list, *v;
	const char *name, *role;
	char id[32];
	size_t i;

	json_object_foreach ((json_t *)components, name, c) {
		_cleanup_free_ char *at = NULL;

		if (strcasecmp(json_str_or(c, "module", ""), "ModelLoader"))
			continue;
		at = xasprintf("conf#/component_parameters/common/%s", name);
		json_object_foreach ((json_t *)roles, role, list)
			json_array_foreach ((json_t *)list, i, v) {
				json_t *params;

				conf_party_text(v, id, sizeof(id));
				if (strcmp(id, u->s->party))
					continue;
				params = conf_params(conf, role, i, name);
				check_loader(u, dsl, name, params, role, at);
				json_decref(params);
			}
	}
}

void model_check(struct sched *s, const json_t *dsl, const json_t *conf,
		 const char *initiator, struct defects *d)
{
	struct use u = { s, initiator, !strcmp(initiator, s->party), d };

	if (is_predict(conf))
		check_predict(&u, dsl, conf);
	check_loaders(&u, dsl, conf);
}

/* ---- while it runs ---------------------------------------------------------
 */

static bool names(const json_t *o, const char *id, const char *version)
{
	return !strcmp(json_str_or(o, "model_id", ""), id) &&
	       !strcmp(json_str_or(o, "model_version", ""), version);
}

bool model_in_use(struct sched *s, const char *id, const char *version)
{
	for (const struct job *j = s->jobs; j; j = j->next) {
		if (status_ended(j->status))
			continue;
		if (names(json_object_get(j->plan, "job"), id, version))
			return true;
		for (size_t i = 0; i < j->n_tasks; i++)
			if (j->tasks[i].local &&
			    names(json_object_get(j->tasks[i].spec, "params"),
				  id, version))
				return true;
	}
	return false;
}

/* Has this party a part for the role?  1 no, 0 yes, negative: no version. */
static int has_part(struct sched *s, const char *id, const char *version,
		    const char *role, const char *component, struct err *e)
{
	size_t n = strcspn(component, "/"); /* a checkpoint's is the same */
	_cleanup_free_ char *name = xasprintf("%.*s", (int)n, component);
	json_t *info = model_info(s->o.conf->state, id, version, e);
	const json_t *one =
	    json_object_get(json_object_get(info, "components"), name);
	int r = !info ? -e->no : !list_has(json_object_get(one, "roles"), role);

	json_decref(info);
	return r;
}

int model_to_file(struct sched *s, const char *id, const char *version,
		  const char *role, const char *component, const char *path,
		  struct err *e)
{
	_cleanup_free_ char *member = model_member(role, s->party);
	_cleanup_free_ char *meta_at =
	    xasprintf("%s/%s/meta.json", member, component);
	_cleanup_free_ char *param_at =
	    xasprintf("%s/%s/param.json", member, component);
	const char *state = s->o.conf->state;
	json_t *meta, *param, *o = NULL;
	int r = has_part(s, id, version, role, component, e);

	if (r)
		return r;
	meta = model_read(state, id, version, meta_at, e);
	param = meta ? model_read(state, id, version, param_at, e) : NULL;
	if (meta && param)
		o = json_pack("{s:s, s:O, s:O}", "module",
			      json_str_or(meta, "module", ""), "meta",
			      json_object_get(meta, "meta"), "param", param);
	if (!meta || !param)
		r = -e->no;
	else
		r = o ? json_write_file(path, o, 0600, false, e)
		      : err_set(e, EBADMSG, "%s: not a model", meta_at);
	json_decref(o);
	json_decref(meta);
	json_decref(param);
	return r;
}
