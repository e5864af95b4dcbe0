// SPDX-License-Identifier: Apache-2.0
/*
 * The conf: who takes part, how the job runs, and each task's parameters.
 */
#include <strings.h>

#include "lib/conf.h"

#include "scheduler/check_priv.h"

/* ---- who takes part --------------------------------------------------- */

static bool is_role(const char *s)
{
	for (size_t i = 0; i < ARRAY_SIZE(check_roles); i++)
		if (!strcmp(check_roles[i], s))
			return true;
	return false;
}

static void unknown_role(struct check *c, const char *role, const struct at *at)
{
	const char *near = suggest(role, check_roles, ARRAY_SIZE(check_roles));

	if (near)
		defect_add(c->d, EINVAL, at->s,
			   "no such role (did you mean %s?)", near);
	else
		defect_add(c->d, EINVAL, at->s,
			   "no such role (there are guest, host, arbiter and "
			   "local)");
}

static json_t *members_of(struct check *c, const json_t *ids,
			  const struct at *at)
{
	json_t *ret = json_array(), *v;
	size_t i;

	if (!json_is_array(ids)) {
		defect_add(c->d, EINVAL, at->s, "expected a list of party ids");
		return ret;
	}
	if (json_array_size(ids) > PARTIES_MAX) {
		defect_add(c->d, EINVAL, at->s, "more than %d parties",
			   PARTIES_MAX);
		return ret;
	}
	json_array_foreach (ids, i, v) {
		struct at here = at_index(at, i);
		char id[32];

		conf_party_text(v, id, sizeof(id));
		if (!id[0])
			defect_add(c->d, EINVAL, here.s,
				   "expected a party id, 1 to 10 digits");
		else if (list_has(ret, id))
			defect_add(c->d, EINVAL, here.s,
				   "party %s a second time", id);
		/* Kept even so: the indices of the selectors count it. */
		json_array_append_new(ret, json_string(id));
	}
	return ret;
}

static void read_roles(struct check *c)
{
	const json_t *given = json_object_get(c->conf, "role");
	struct at at = at_root("conf#/role");
	json_t *roles = json_object(), *v;
	const char *role;
	bool mine = false;

	json_object_set_new(c->plan, "roles", roles);
	if (!json_is_object(given)) {
		defect_add(c->d, EINVAL, at.s,
			   given ? "expected an object" : "is needed");
		return;
	}
	json_object_foreach ((json_t *)given, role, v) {
		struct at here = at_add(&at, role);

		if (!is_role(role)) {
			unknown_role(c, role, &here);
			continue;
		}
		v = members_of(c, v, &here);
		if (c->party && list_has(v, c->party))
			mine = true;
		if (json_array_size(v))
			json_object_set(roles, role, v);
		json_decref(v);
	}
	if (c->party && !mine)
		defect_add(c->d, EINVAL, at.s, "party %s has no role",
			   c->party);
}

static void read_initiator(struct check *c)
{
	static const char *const known[] = { "role", "party_id", NULL };
	const json_t *given = json_object_get(c->conf, "initiator"), *v;
	const json_t *roles = json_object_get(c->plan, "roles");
	struct at at = at_root("conf#/initiator"), here;
	const char *role;
	char id[32];

	if (!json_is_object(given)) {
		defect_add(c->d, EINVAL, at.s,
			   given ? "expected an object" : "is needed");
		return;
	}
	check_members(c, given, &at, known);
	role = json_str_or(given, "role", "");
	here = at_add(&at, "role");
	if (!json_is_string(json_object_get(given, "role"))) {
		defect_add(c->d, EINVAL, here.s, "expected a role");
		return;
	}
	if (!is_role(role)) {
		unknown_role(c, role, &here);
		return;
	}
	v = json_object_get(given, "party_id");
	here = at_add(&at, "party_id");
	conf_party_text(v, id, sizeof(id));
	if (!id[0]) {
		defect_add(c->d, EINVAL, here.s,
			   "expected a party id, 1 to 10 digits");
		return;
	}
	if (!list_has(json_object_get(roles, role), id))
		defect_add(c->d, EINVAL, here.s,
			   "party %s is no %s in conf#/role", id, role);
	if (!c->party && strcmp(id, c->own))
		defect_add(c->d, EINVAL, here.s,
			   "this mount is party %s; a job is submitted by its "
			   "initiator",
			   c->own);
	json_object_set_new(c->plan, "initiator",
			    json_pack("{s:s, s:s}", "role", role, "party", id));
}

/* ---- how it runs ------------------------------------------------------ */

static const struct job_param {
	const char *name;
	int64_t def, min, max;
} job_params[] = {
	{ "task_cores", 4, 1, 4096 },
	{ "task_parallelism", 1, 1, 1024 },
	{ "computing_partitions", 0, 1, 4096 }, /* 0: as task_cores */
	{ "auto_retries", 0, 0, 100 },
	{ "auto_retry_delay", 1, 0, 86400 },
	{ "timeout", 259200, 1, 315360000 },
};

/* FATE's that say how its engines run. */
static const char *const job_ignored[] = {
	"adaptation_parameters",
	"assistant_role",
	"backend",
	"computing_engine",
	"engines_address",
	"eggroll_run",
	"federated_mode",
	"federated_status_collect_type",
	"federation_engine",
	"model_id",
	"model_version",
	"pulsar_run",
	"rabbitmq_run",
	"spark_run",
	"storage_engine",
	"task_conf",
	"user",
	"work_mode",
};

static bool is_ignored(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(job_ignored); i++)
		if (!strcmp(job_ignored[i], name))
			return true;
	return !strncmp(name, "map_", 4);
}

static void unknown_job_param(struct check *c, const char *name,
			      const struct at *at)
{
	const char *names[ARRAY_SIZE(job_params) + 1] = { "job_type" };
	const char *near;

	for (size_t i = 0; i < ARRAY_SIZE(job_params); i++)
		names[i + 1] = job_params[i].name;
	near = suggest(name, names, ARRAY_SIZE(names));
	if (near)
		defect_add(c->d, EINVAL, at->s,
			   "no such job parameter (did you mean %s?)", near);
	else
		defect_add(c->d, EINVAL, at->s, "no such job parameter");
}

static void inheritance(struct check *c, const json_t *v, const struct at *at,
			json_t *job)
{
	static const char *const known[] = { "job_id", "component_list", NULL };
	struct at here = at_add(at, "job_id"), list = at_add(at, known[1]);
	const json_t *names = json_object_get(v, "component_list"), *name;
	size_t i;

	if (!json_is_object(v)) {
		defect_add(c->d, EINVAL, at->s, "expected an object");
		return;
	}
	if (!json_object_size(v))
		return;
	check_members(c, v, at, known);
	if (c->predict)
		defect_add(c->d, EINVAL, at->s,
			   "a predict job inherits nothing");
	if (!json_is_string(json_object_get(v, "job_id")))
		defect_add(c->d, EINVAL, here.s, "expected a job's id");
	if (!json_is_array(names) || !json_array_size(names))
		defect_add(c->d, EINVAL, list.s,
			   "expected a list of components");
	json_array_foreach ((json_t *)names, i, name) {
		here = at_index(&list, i);
		if (!json_is_string(name))
			defect_add(c->d, EINVAL, here.s, "expected a string");
	}
	json_object_set(job, "inheritance_info", (json_t *)v);
}

static void job_param(struct check *c, const char *name, const json_t *v,
		      const struct at *at, json_t *job)
{
	const struct job_param *p = NULL;
	int64_t x = json_integer_value(v);

	for (size_t i = 0; i < ARRAY_SIZE(job_params); i++)
		if (!strcmp(job_params[i].name, name))
			p = &job_params[i];
	if (!strcmp(name, "job_type")) {
		const char *type = json_string_value(v);

		if (!type)
			defect_add(c->d, EINVAL, at->s,
				   "expected train or predict");
		else if (strcmp(type, "predict") && strcmp(type, "train"))
			defect_add(c->d, EINVAL, at->s,
				   "no job type %.60s (there are train and "
				   "predict)",
				   type);
	} else if (c->predict && !strncmp(name, "model_", 6)) {
		if (!json_is_string(v))
			defect_add(c->d, EINVAL, at->s, "expected a string");
		else
			json_object_set(job, name, (json_t *)v);
	} else if (!strcmp(name, "inheritance_info")) {
		inheritance(c, v, at, job);
	} else if (p && !json_is_integer(v)) {
		defect_add(c->d, EINVAL, at->s, "expected a whole number");
	} else if (p && (x < p->min || x > p->max)) {
		defect_add(c->d, EINVAL, at->s,
			   "%lld is out of range, %lld to %lld are possible",
			   (long long)x, (long long)p->min, (long long)p->max);
	} else if (p) {
		json_object_set_new(job, name, json_integer(x));
	} else if (is_ignored(name)) {
		ignored_add(c->ignored, at,
			    strncmp(name, "model_", 6)
				? "there is one engine"
				: "a training job makes its own");
	} else {
		unknown_job_param(c, name, at);
	}
}

static void predict_model(struct check *c, const json_t *job)
{
	static const char *const keys[] = { "model_id", "model_version" };
	struct at at = at_root("conf#/job_parameters/common"), here;

	for (size_t i = 0; c->predict && i < ARRAY_SIZE(keys); i++) {
		here = at_add(&at, keys[i]);
		if (!json_object_get(job, keys[i]))
			defect_add(c->d, EINVAL, here.s,
				   "a predict job needs it: the name of a "
				   "deployed model (ls models)");
	}
}

static void read_job(struct check *c)
{
	static const char *const known[] = { "common", "role", NULL };
	const json_t *given = json_object_get(c->conf, "job_parameters");
	const json_t *common = json_object_get(given, "common");
	struct at at = at_root("conf#/job_parameters"), here;
	json_t *job = json_pack("{s:s}", "job_type", "train"), *v;
	const char *name;

	v = json_object_get(common, "job_type");
	c->predict =
	    json_is_string(v) && !strcmp(json_string_value(v), "predict");
	if (c->predict)
		json_object_set(job, "job_type", v);
	json_object_set_new(c->plan, "job", job);
	for (size_t i = 0; i < ARRAY_SIZE(job_params); i++)
		json_object_set_new(job, job_params[i].name,
				    json_integer(job_params[i].def));
	if (given && !json_is_object(given)) {
		defect_add(c->d, EINVAL, at.s, "expected an object");
		return;
	}
	json_object_foreach ((json_t *)given, name, v) {
		here = at_add(&at, name);
		if (!strcmp(name, known[0]) || !strcmp(name, known[1]))
			continue;
		/* A parameter that lost its level says more than "unknown". */
		if (is_ignored(name) || !strcmp(name, "job_type") ||
		    json_object_get(job, name))
			defect_add(c->d, EINVAL, here.s,
				   "put it under \"common\"");
		else
			unknown_job_param(c, name, &here);
	}
	at = at_root("conf#/job_parameters/role");
	if (json_object_get(given, "role"))
		ignored_add(c->ignored, &at, "all parties run the job alike");
	at = at_root("conf#/job_parameters/common");
	if (common && !json_is_object(common)) {
		defect_add(c->d, EINVAL, at.s, "expected an object");
		return;
	}
	json_object_foreach ((json_t *)common, name, v) {
		here = at_add(&at, name);
		job_param(c, name, v, &here, job);
	}
	predict_model(c, job);
	if (!json_int_or(job, "computing_partitions", 0))
		json_object_set(job, "computing_partitions",
				json_object_get(job, "task_cores"));
}

void check_head(struct check *c)
{
	const json_t *v = json_object_get(c->conf, "dsl_version");
	bool two = json_is_integer(v) ? json_integer_value(v) == 2
				      : json_is_string(v) &&
					    !strcmp(json_string_value(v), "2");

	if (!v)
		defect_add(c->d, EINVAL, "conf#/dsl_version",
			   "is needed and must be 2 (a conf without it is one "
			   "of version 1)");
	else if (!two)
		defect_add(c->d, EINVAL, "conf#/dsl_version", "must be 2");
	read_roles(c);
	read_initiator(c);
	read_job(c);
}

#define SELECTORS_MAX 256 /* of a role */

/* ---- selectors -------------------------------------------------------- */

/* Every index must be somebody's. */
static void selector_members(struct check *c, const char *selector,
			     const char *role, size_t members,
			     const struct at *at)
{
	bool many = strchr(selector, '|');
	const char *s = selector;

	if (!strcmp(s, "all")) {
		if (!members)
			defect_add(c->d, EINVAL, at->s,
				   "matches nobody (the job has no %s)", role);
		return;
	}
	while (*s) {
		long v = conf_next_index(&s);

		if (v < 0)
			return;
		if ((size_t)v < members)
			continue;
		if (many)
			defect_add(c->d, EINVAL, at->s,
				   "%ld matches no %s (the job has %zu)", v,
				   role, members);
		else
			defect_add(c->d, EINVAL, at->s,
				   "matches no %s (the job has %zu)", role,
				   members);
	}
}

/* ---- component parameters --------------------------------------------- */

/* need_run false hands rows on: modules without rows have no such parameter,
 * and take what says the same. */
static json_t *without_need_run(struct check *c, const json_t *given,
				const json_t *specs, const struct at *at)
{
	const json_t *v = json_object_get(given, "need_run"), *spec;
	struct at here = at_add(at, "need_run");
	json_t *copy;
	size_t i;

	json_array_foreach (specs, i, spec)
		if (!strcmp(json_str_or(spec, "name", ""), "need_run"))
			v = NULL;
	if (!v)
		return json_incref((json_t *)given);
	if (!json_is_boolean(v))
		defect_add(c->d, EINVAL, here.s, "expected bool");
	else if (json_is_false(v))
		defect_add(c->d, EINVAL, here.s,
			   "there are no rows to hand on: leave the component "
			   "out of the DSL");
	copy = json_copy((json_t *)given);
	json_object_del(copy, "need_run");
	return copy;
}

/* {"hetero_lr_0": {...}, ...}; role NULL in common. */
static void check_section(struct check *c, const json_t *section,
			  const char *role, const struct at *at)
{
	const json_t *nodes = json_object_get(c->plan, "components");
	const char *name;
	json_t *given;

	if (!json_is_object(section)) {
		defect_add(c->d, EINVAL, at->s, "expected an object");
		return;
	}
	json_object_foreach ((json_t *)section, name, given) {
		const json_t *spec = json_object_get(c->specs, name);
		const json_t *specs = json_object_get(spec, "params");
		struct at here = at_add(at, name);
		unsigned before = c->d->n;
		char hint[HINT_MAX];
		json_t *own;

		/* Without any component the DSL has said what is wrong. */
		if (!json_object_get(nodes, name)) {
			if (!json_object_size(nodes))
				return;
			defect_add(
			    c->d, EINVAL, here.s, "no such component%s",
			    check_hint(c, name, nodes, hint, sizeof(hint)));
			continue;
		}
		if (!json_is_object(given)) {
			defect_add(c->d, EINVAL, here.s, "expected an object");
			json_object_set_new(c->unsound, name, json_true());
			continue;
		}
		if (!spec)
			continue; /* its module is a defect already */
		if (role && !list_has(json_object_get(spec, "roles"), role)) {
			char why[200];

			(void)snprintf(why, sizeof(why),
				       "%s does not run at a %s",
				       json_str_or(spec, "module", ""), role);
			ignored_add(c->ignored, &here, why);
			continue;
		}
		own = without_need_run(c, given, specs, &here);
		params_given(specs, own, &here, c->d, c->ignored);
		json_decref(own);
		if (c->d->n > before)
			json_object_set_new(c->unsound, name, json_true());
	}
}

static void check_selectors(struct check *c, const char *role,
			    const json_t *section, const struct at *at)
{
	const json_t *nodes = json_object_get(c->plan, "components");
	size_t members = json_array_size(
	    json_object_get(json_object_get(c->plan, "roles"), role));
	const char *selector;
	json_t *v;

	if (!json_is_object(section)) {
		defect_add(c->d, EINVAL, at->s, "expected an object");
		return;
	}
	if (json_object_size(section) > SELECTORS_MAX) {
		defect_add(c->d, EINVAL, at->s, "more than %d selectors",
			   SELECTORS_MAX);
		c->too_many = true;
		return;
	}
	json_object_foreach ((json_t *)section, selector, v) {
		struct at here = at_add(at, selector);

		if (!conf_selector_valid(selector)) {
			if (json_object_get(nodes, selector))
				defect_add(c->d, EINVAL, here.s,
					   "the level of the index is missing: "
					   "put it under \"0\" or \"all\"");
			else
				defect_add(c->d, EINVAL, here.s,
					   "no selector (expected \"0\", "
					   "\"0|1\" or \"all\")");
			continue;
		}
		selector_members(c, selector, role, members, &here);
		check_section(c, v, role, &here);
	}
}

static void check_given(struct check *c)
{
	static const char *const known[] = { "common", "role", NULL };
	const json_t *cp = json_object_get(c->conf, "component_parameters");
	const json_t *nodes = json_object_get(c->plan, "components");
	struct at at = at_root("conf#/component_parameters"), at_role, here;
	const json_t *roles = json_object_get(cp, "role");
	const char *key;
	json_t *v;

	if (!cp)
		return;
	if (!json_is_object(cp)) {
		defect_add(c->d, EINVAL, at.s, "expected an object");
		return;
	}
	json_object_foreach ((json_t *)cp, key, v) {
		here = at_add(&at, key);
		if (json_object_get(nodes, key))
			defect_add(c->d, EINVAL, here.s,
				   "put it under \"common\"");
		else if (strcmp(key, "common") && strcmp(key, "role"))
			defect_add(c->d, EINVAL, here.s,
				   "not known (there "
				   "are %s and %s)",
				   known[0], known[1]);
	}
	here = at_add(&at, "common");
	if (json_object_get(cp, "common"))
		check_section(c, json_object_get(cp, "common"), NULL, &here);
	at_role = at_add(&at, "role");
	if (roles && !json_is_object(roles)) {
		defect_add(c->d, EINVAL, at_role.s, "expected an object");
		return;
	}
	json_object_foreach ((json_t *)roles, key, v) {
		here = at_add(&at_role, key);
		if (is_role(key))
			check_selectors(c, key, v, &here);
		else
			unknown_role(c, key, &here);
	}
}

/* ---- tasks ------------------------------------------------------------ */

static void add_task(struct check *c, const char *name, const json_t *spec,
		     const char *role, const char *party, size_t index)
{
	const json_t *cp = json_object_get(c->conf, "component_parameters");
	const json_t *specs = json_object_get(spec, "params");
	struct at at = at_root("conf#/component_parameters"), own, place;
	json_t *given = conf_params(c->conf, role, index, name);
	unsigned before = c->d->n;
	json_t *params, *section;
	const char *selector;

	own = at_add(&at, "role");
	own = at_add(&own, role);
	place = at_add(&at, "common");
	place = at_add(&place, name);
	json_object_foreach (
	    (json_t *)json_object_get(json_object_get(cp, "role"), role),
	    selector, section) {
		if (!json_object_get(section, name) ||
		    !conf_selector_valid(selector) ||
		    !conf_selector_has(selector, index))
			continue;
		place = at_add(&own, selector);
		place = at_add(&place, name);
	}
	own = at_index(&own, index);
	own = at_add(&own, name);
	params = params_fill(specs, given, own.s, c->d);
	json_decref(given);
	if (!params || c->d->n > before)
		json_object_set_new(c->unsound, name, json_true());
	json_array_append_new(
	    json_object_get(c->plan, "tasks"),
	    json_pack("{s:s, s:s, s:s, s:s, s:i, s:o, s:s}", "component", name,
		      "module", json_str_or(spec, "module", ""), "role", role,
		      "party", party, "index", (int)index, "params",
		      params ? params : json_null(), "pointer", place.s));
}

static bool stops_early(const json_t *params)
{
	const json_t *list = json_object_get(
	    json_object_get(params, "callback_param"), "callbacks");
	const json_t *old = json_object_get(params, "early_stopping_rounds");
	const json_t *v;
	size_t i;

	json_array_foreach (list, i, v)
		if (json_is_string(v) &&
		    !strcasecmp(json_string_value(v), "EarlyStopping"))
			return true;
	return json_is_integer(old);
}

/* Folds are made of the training rows: no other rows may be wired.  Early
 * stopping needs rows to look at. */
static bool check_wired(struct check *c, const char *name, const json_t *params)
{
	static const struct {
		const char *object, *flag;
	} folds[] = {
		{ "cv_param", "need_cv" },
		{ "stepwise_param", "need_stepwise" },
	};
	const json_t *node =
	    json_object_get(json_object_get(c->plan, "components"), name);
	const json_t *wired = json_object_get(node, "data_inputs");
	struct at at = at_root("dsl#/components");
	bool right = true;

	at = at_add(&at, name);
	at = at_add(&at, "input");
	at = at_add(&at, "data");
	for (size_t i = 0; i < ARRAY_SIZE(folds); i++)
		if (json_bool_or(json_object_get(params, folds[i].object),
				 folds[i].flag, false) &&
		    (json_object_size(wired) != 1 ||
		     !json_object_get(wired, "train_data"))) {
			defect_add(c->d, EINVAL, at.s,
				   "with %s/%s it reads train_data only",
				   folds[i].object, folds[i].flag);
			right = false;
		}
	if (right && json_object_get(wired, "train_data") &&
	    stops_early(params) && !json_object_get(wired, "validate_data") &&
	    !json_object_get(wired, "eval_data")) {
		defect_add(c->d, EINVAL, at.s,
			   "early stopping needs validate_data too");
		right = false;
	}
	return right;
}

/* Guests, hosts and arbiter must agree on it: a partner sees only its own. */
static void check_hides(struct check *c, const char *name, size_t from)
{
	const json_t *tasks = json_object_get(c->plan, "tasks");
	struct at at = at_root("conf#/component_parameters/common");
	size_t hide = 0, n = json_array_size(tasks);

	for (size_t i = from; i < n; i++)
		hide += json_bool_or(
		    json_object_get(
			json_object_get(json_array_get(tasks, i), "params"),
			"predict_param"),
		    "hide_scores", false);
	if (!hide || hide == n - from || c->party)
		return;
	at = at_add(&at, name);
	at = at_add(&at, "predict_param");
	at = at_add(&at, "hide_scores");
	defect_add(c->d, EINVAL, at.s,
		   "must be the same for all parties: put it under common");
}

/* Who runs and who hands rows on must be the same everywhere in a module whose
 * parties talk: the others would wait for ever. */
static void check_need_run(struct check *c, const char *name,
			   const json_t *spec, size_t from)
{
	const json_t *tasks = json_object_get(c->plan, "tasks");
	struct at at = at_root("conf#/component_parameters/common");
	size_t runs = 0, n = json_array_size(tasks);

	for (size_t i = from; i < n; i++)
		runs += json_bool_or(
		    json_object_get(json_array_get(tasks, i), "params"),
		    "need_run", true);
	if (!runs || runs == n - from || c->party ||
	    json_array_size(json_object_get(spec, "needs_roles")) < 2)
		return;
	at = at_add(&at, name);
	at = at_add(&at, "need_run");
	defect_add(c->d, EINVAL, at.s,
		   "must be the same for all parties, which talk to each "
		   "other: put it under common");
}

static const json_t *doc_of(const struct check *c, const char *name)
{
	return json_object_get(json_object_get(c->dsl, "components"), name);
}

/* An arbiter that the module needs, but not to predict. */
static bool idle_arbiter(const struct check *c, const char *name,
			 const json_t *spec)
{
	return list_has(json_object_get(spec, "needs_roles"), "arbiter") &&
	       !check_needs_arbiter(c->conf, c->describe, name,
				    doc_of(c, name));
}

static void component_tasks(struct check *c, const char *name,
			    const json_t *spec)
{
	const json_t *roles = json_object_get(c->plan, "roles"), *party;
	const json_t *tasks = json_object_get(c->plan, "tasks");
	size_t index, before = json_array_size(tasks);

	for (size_t r = 0; r < ARRAY_SIZE(check_roles); r++) {
		const char *role = check_roles[r];

		if (!list_has(json_object_get(spec, "roles"), role) ||
		    (!strcmp(role, "arbiter") && idle_arbiter(c, name, spec)))
			continue;
		json_array_foreach (json_object_get(roles, role), index, party)
			if (!c->party ||
			    !strcmp(json_string_value(party), c->party))
				add_task(c, name, spec, role,
					 json_string_value(party), index);
	}
	check_hides(c, name, before);
	check_need_run(c, name, spec, before);
	for (size_t i = before; i < json_array_size(tasks); i++)
		if (!check_wired(
			c, name,
			json_object_get(json_array_get(tasks, i), "params")))
			break;
}

static void needed_roles(struct check *c)
{
	const json_t *roles = json_object_get(c->plan, "roles");
	json_t *told = json_object(), *spec, *v;
	const char *name;
	size_t i;

	if (!json_is_object(json_object_get(c->conf, "role")))
		goto out;
	json_object_foreach ((json_t *)c->specs, name, spec) {
		json_array_foreach (json_object_get(spec, "needs_roles"), i,
				    v) {
			const char *role = json_string_value(v);

			if (!role || json_object_get(roles, role) ||
			    json_object_get(told, role) ||
			    (!strcmp(role, "arbiter") &&
			     idle_arbiter(c, name, spec)))
				continue;
			json_object_set_new(told, role, json_true());
			defect_add(c->d, EINVAL, "conf#/role",
				   "no %s, which %s (%s) needs", role,
				   json_str_or(spec, "module", ""), name);
		}
	}
out:
	json_decref(told);
}

/* Who holds the key and plays along as well. */
static void note_arbiters(struct check *c)
{
	const json_t *roles = json_object_get(c->plan, "roles"), *v;
	bool used = false;
	const char *name;
	json_t *spec;
	size_t i;

	json_object_foreach ((json_t *)c->specs, name, spec)
		if (list_has(json_object_get(spec, "roles"), "arbiter"))
			used = true;
	json_array_foreach (json_object_get(roles, "arbiter"), i, v) {
		const char *id = json_string_value(v);
		char line[200];

		if (!used)
			continue;
		if (list_has(json_object_get(roles, "host"), id)) {
			(void)snprintf(line, sizeof(line),
				       "party %s plays host and arbiter: it "
				       "can read the guest's labels",
				       id);
			json_array_append_new(c->notes, json_string(line));
		}
		if (list_has(json_object_get(roles, "guest"), id)) {
			(void)snprintf(line, sizeof(line),
				       "party %s plays guest and arbiter: it "
				       "can read what the hosts encrypt",
				       id);
			json_array_append_new(c->notes, json_string(line));
		}
	}
}

void check_components(struct check *c)
{
	const json_t *roles = json_object_get(c->plan, "roles");
	size_t parties = 0;
	const char *name;
	json_t *v;

	json_object_set_new(c->plan, "tasks", json_array());
	json_object_foreach ((json_t *)roles, name, v)
		parties += json_array_size(v);
	if (json_object_size(c->specs) * parties > TASKS_MAX) {
		defect_add(c->d, EINVAL, "dsl#/components",
			   "more than %d components times parties", TASKS_MAX);
		return;
	}
	needed_roles(c);
	note_arbiters(c);
	check_given(c);
	if (c->too_many)
		return;
	json_object_foreach ((json_t *)c->specs, name, v) {
		component_tasks(c, name, v);
	}
}
