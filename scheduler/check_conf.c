// SPDX-License-Identifier: Apache-2.0
/*
 * The conf: who takes part, how the job runs, and each task's parameters.
 */
#include "lib/conf.h"

#include "scheduler/check_priv.h"

/* ---- who takes part --------------------------------------------------- */

/* FATE's ids are integers, and digits in strings; "" if it is neither. */
static void party_text(const json_t *v, char *buf, size_t n)
{
	buf[0] = '\0';
	if (json_is_integer(v))
		(void)snprintf(buf, n, "%" JSON_INTEGER_FORMAT,
			       json_integer_value(v));
	else if (json_is_string(v))
		(void)snprintf(buf, n, "%s", json_string_value(v));
	if (!party_id_valid(buf))
		buf[0] = '\0';
}

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

		party_text(v, id, sizeof(id));
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
	party_text(v, id, sizeof(id));
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
			defect_add(c->d, EINVAL, at->s, "expected train");
		else if (!strcmp(type, "predict"))
			defect_add(c->d, EINVAL, at->s,
				   "predict jobs are not offered yet");
		else if (strcmp(type, "train"))
			defect_add(c->d, EINVAL, at->s,
				   "no job type %.60s (there is train)", type);
	} else if (!strcmp(name, "inheritance_info")) {
		if (json_object_size(v))
			defect_add(c->d, EINVAL, at->s,
				   "inheriting from a job is not offered yet");
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

static void read_job(struct check *c)
{
	static const char *const known[] = { "common", "role", NULL };
	const json_t *given = json_object_get(c->conf, "job_parameters");
	const json_t *common = json_object_get(given, "common");
	struct at at = at_root("conf#/job_parameters"), here;
	json_t *job = json_pack("{s:s}", "job_type", "train"), *v;
	const char *name;

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

#define SELECTOR_MAX  256 /* bytes of one */
#define SELECTORS_MAX 256 /* of a role */

/* ---- selectors -------------------------------------------------------- */

/* The next index of "0|1" at *s, which moves on; -1 if that is none. */
static long next_index(const char **s)
{
	size_t n = strspn(*s, "0123456789");
	long v;

	if (!n || n > 4 || (n > 1 && **s == '0'))
		return -1;
	v = strtol(*s, NULL, 10);
	*s += n;
	if (**s == '|' && (*s)[1])
		(*s)++;
	else if (**s)
		return -1;
	return v;
}

static bool selector_valid(const char *s)
{
	if (!strcmp(s, "all"))
		return true;
	if (strlen(s) > SELECTOR_MAX)
		return false;
	do {
		if (next_index(&s) < 0)
			return false;
	} while (*s);
	return true;
}

/* Does the (valid) selector match this index? */
static bool selector_has(const char *s, size_t index)
{
	if (!strcmp(s, "all"))
		return true;
	while (*s) {
		long v = next_index(&s);

		if (v < 0)
			return false;
		if ((size_t)v == index)
			return true;
	}
	return false;
}

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
		long v = next_index(&s);

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

/* need_run is FATE's, of every module. */
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
			   "leaving a component out is not offered yet");
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

		if (!selector_valid(selector)) {
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

/* Objects deep, everything else replaces. */
static void merge(json_t *into, const json_t *from)
{
	const char *key;
	json_t *v, *old;

	json_object_foreach ((json_t *)from, key, v) {
		old = json_object_get(into, key);
		if (json_is_object(old) && json_is_object(v))
			merge(old, v);
		else
			json_object_set_new(into, key, json_deep_copy(v));
	}
}

/* ---- tasks ------------------------------------------------------------ */

static void add_task(struct check *c, const char *name, const json_t *spec,
		     const char *role, const char *party, size_t index)
{
	const json_t *cp = json_object_get(c->conf, "component_parameters");
	const json_t *common =
	    json_object_get(json_object_get(cp, "common"), name);
	const json_t *specs = json_object_get(spec, "params");
	struct at at = at_root("conf#/component_parameters"), own, place;
	json_t *given = json_object(), *params, *section;
	const char *selector;

	own = at_add(&at, "role");
	own = at_add(&own, role);
	place = at_add(&at, "common");
	place = at_add(&place, name);
	merge(given, common);
	json_object_foreach (
	    (json_t *)json_object_get(json_object_get(cp, "role"), role),
	    selector, section) {
		const json_t *mine = json_object_get(section, name);

		if (!mine || !selector_valid(selector) ||
		    !selector_has(selector, index))
			continue;
		merge(given, mine);
		place = at_add(&own, selector);
		place = at_add(&place, name);
	}
	own = at_index(&own, index);
	own = at_add(&own, name);
	params = params_fill(specs, given, own.s, c->d);
	json_decref(given);
	json_array_append_new(
	    json_object_get(c->plan, "tasks"),
	    json_pack("{s:s, s:s, s:s, s:s, s:i, s:o, s:s}", "component", name,
		      "module", json_str_or(spec, "module", ""), "role", role,
		      "party", party, "index", (int)index, "params",
		      params ? params : json_null(), "pointer", place.s));
}

/* Folds are made of the training rows: no other rows may be wired. */
static void check_folds(struct check *c, const char *name, const json_t *params)
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

	at = at_add(&at, name);
	at = at_add(&at, "input");
	at = at_add(&at, "data");
	for (size_t i = 0; i < ARRAY_SIZE(folds); i++)
		if (json_bool_or(json_object_get(params, folds[i].object),
				 folds[i].flag, false) &&
		    (json_object_size(wired) != 1 ||
		     !json_object_get(wired, "train_data")))
			defect_add(c->d, EINVAL, at.s,
				   "with %s/%s it reads train_data only",
				   folds[i].object, folds[i].flag);
}

static void component_tasks(struct check *c, const char *name,
			    const json_t *spec)
{
	const json_t *roles = json_object_get(c->plan, "roles"), *party;
	const json_t *tasks = json_object_get(c->plan, "tasks");
	size_t index, before = json_array_size(tasks);

	for (size_t r = 0; r < ARRAY_SIZE(check_roles); r++) {
		const char *role = check_roles[r];

		if (!list_has(json_object_get(spec, "roles"), role))
			continue;
		json_array_foreach (json_object_get(roles, role), index, party)
			if (!c->party ||
			    !strcmp(json_string_value(party), c->party))
				add_task(c, name, spec, role,
					 json_string_value(party), index);
	}
	if (json_array_size(tasks) > before)
		check_folds(
		    c, name,
		    json_object_get(
			json_array_get(tasks, json_array_size(tasks) - 1),
			"params"));
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
			    json_object_get(told, role))
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

static bool gives(const json_t *params, const char *relative)
{
	_cleanup_free_ char *copy = strdup(relative);
	char *rest = copy, *step;

	while (params && rest && (step = strsep(&rest, "/")))
		params = json_object_get(params, step);
	return params != NULL;
}

char *check_param_pointer(const json_t *conf, const json_t *task,
			  const char *relative)
{
	const json_t *cp = json_object_get(conf, "component_parameters");
	const json_t *common = json_object_get(cp, "common");
	const char *name = json_str_or(task, "component", "");
	const char *role = json_str_or(task, "role", ""), *selector;
	struct at root = at_root("conf#/component_parameters"), at;
	char *ret = NULL;
	json_t *section;

	at = at_root(json_str_or(task, "pointer", root.s));
	if (gives(json_object_get(common, name), relative)) {
		at = at_add(&root, "common");
		at = at_add(&at, name);
	}
	json_object_foreach (
	    (json_t *)json_object_get(json_object_get(cp, "role"), role),
	    selector, section) {
		if (!selector_valid(selector) ||
		    !selector_has(selector,
				  (size_t)json_int_or(task, "index", 0)) ||
		    !gives(json_object_get(section, name), relative))
			continue;
		at = at_add(&root, "role");
		at = at_add(&at, role);
		at = at_add(&at, selector);
		at = at_add(&at, name);
	}
	if (asprintf(&ret, "%s/%s", at.s, relative) < 0)
		return NULL;
	return ret;
}

/* ---- what a partner receives ------------------------------------------ */

static bool plays(const json_t *conf, const char *role, const char *party,
		  const char *selector)
{
	const json_t *v;
	size_t i;

	json_array_foreach (
	    json_object_get(json_object_get(conf, "role"), role), i, v) {
		char id[32];

		party_text(v, id, sizeof(id));
		if (!strcmp(id, party) && selector_has(selector, i))
			return true;
	}
	return false;
}

json_t *conf_slice(const json_t *conf, const char *party)
{
	const json_t *cp = json_object_get(conf, "component_parameters");
	json_t *ret = json_object(), *sections = json_object(), *own;
	const char *key, *selector;
	json_t *v, *section;

	json_object_foreach ((json_t *)conf, key, v)
		if (strcmp(key, "component_parameters") &&
		    strcmp(key, "provider"))
			json_object_set_new(ret, key, json_deep_copy(v));
	json_object_foreach ((json_t *)json_object_get(cp, "role"), key, v) {
		own = json_object();
		json_object_foreach ((json_t *)v, selector, section)
			if (selector_valid(selector) &&
			    plays(conf, key, party, selector))
				json_object_set_new(own, selector,
						    json_deep_copy(section));
		if (json_object_size(own))
			json_object_set(sections, key, own);
		json_decref(own);
	}
	own = json_object();
	if (json_object_get(cp, "common"))
		json_object_set_new(
		    own, "common",
		    json_deep_copy(json_object_get(cp, "common")));
	json_object_set_new(own, "role", sections);
	json_object_set_new(ret, "component_parameters", own);
	return ret;
}
