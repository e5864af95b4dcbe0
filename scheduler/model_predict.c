// SPDX-License-Identifier: Apache-2.0
/*
 * What a predict job runs: the DSL that is deduced from the training's, the
 * template of its conf, and its conf above the training's.  Pure functions.
 */
#include "scheduler/model_priv.h"

#include "scheduler/check_priv.h"

static const json_t *component_of(const json_t *dsl, const char *name)
{
	return json_object_get(json_object_get(dsl, "components"), name);
}

static bool is_reader(const json_t *dsl, const char *name)
{
	return !strcasecmp(json_str_or(component_of(dsl, name), "module", ""),
			   "Reader");
}

/* The component of "component.output"; false when it is too long. */
static bool source_of(const char *reference, char *name, size_t n)
{
	size_t k = strcspn(reference, ".");

	if (k >= n)
		return false;
	(void)snprintf(name, n, "%.*s", (int)k, reference);
	return true;
}

bool pipeline_reference(const char *text, char *component, char *alias,
			size_t n)
{
	const char *name = text + 9, *dot;

	if (strncmp(text, "pipeline.", 9) != 0)
		return false;
	dot = strrchr(name, '.');
	if (!dot || dot == name || !dot[1] || (size_t)(dot - name) >= n ||
	    strlen(dot + 1) >= n)
		return false;
	(void)snprintf(component, n, "%.*s", (int)(dot - name), name);
	(void)snprintf(alias, n, "%s", dot + 1);
	return check_name_valid(component) && check_name_valid(alias);
}

/* ---- the DSL ---------------------------------------------------------------
 */

/* Where the rows of a component that is left out come from. */
static const char *above(const json_t *dsl, const char *name)
{
	static const char *const keys[] = { "train_data", "eval_data",
					    "test_data", "data" };
	const json_t *in = json_object_get(component_of(dsl, name), "input");
	const json_t *data = json_object_get(in, "data");

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		const json_t *list = json_object_get(data, keys[i]);

		if (list)
			return json_string_value(json_array_get(list, 0));
	}
	return NULL;
}

/* The reference itself, or the one that a chosen component or a Reader has on
 * the way up; NULL when there is none. */
static const char *bypass(const json_t *dsl, const json_t *chosen,
			  const char *reference)
{
	char name[NAME_MAX_LEN + 1];

	for (size_t i = 0; reference && i <= COMPONENTS_MAX; i++) {
		if (!source_of(reference, name, sizeof(name)) ||
		    !component_of(dsl, name))
			return NULL;
		if (list_has(chosen, name) || is_reader(dsl, name))
			return reference;
		reference = above(dsl, name);
	}
	return NULL;
}

/* Which of its inputs a component predicts with, and under which name. */
static const json_t *predict_input(const json_t *component, const char **as)
{
	static const struct {
		const char *key, *as;
	} map[] = {
		{ "data", "data" },
		{ "train_data", "test_data" },
		{ "validate_data", "test_data" },
		{ "test_data", "test_data" },
	};
	const json_t *data =
	    json_object_get(json_object_get(component, "input"), "data");

	for (size_t i = 0; i < ARRAY_SIZE(map); i++) {
		const json_t *list = json_object_get(data, map[i].key);

		*as = map[i].as;
		if (list)
			return list;
	}
	return NULL;
}

void predict_add_readers(const json_t *dsl, json_t *chosen)
{
	json_t *added = json_array(), *v, *ref;
	size_t i, k;

	json_array_foreach (chosen, i, v) {
		const char *as;
		const json_t *list =
		    predict_input(component_of(dsl, json_string_value(v)), &as);

		json_array_foreach ((json_t *)list, k, ref) {
			const char *from =
			    bypass(dsl, chosen, json_string_value(ref));
			char name[NAME_MAX_LEN + 1];

			if (from && source_of(from, name, sizeof(name)) &&
			    !list_has(chosen, name) && !list_has(added, name))
				json_array_append_new(added, json_string(name));
		}
	}
	json_array_extend(chosen, added);
	json_decref(added);
}

static json_t *predict_data(const json_t *dsl, const json_t *chosen,
			    const json_t *component)
{
	const char *as;
	const json_t *list = predict_input(component, &as);
	json_t *refs = json_array(), *ref, *out;
	size_t i;

	json_array_foreach ((json_t *)list, i, ref) {
		const char *from = bypass(dsl, chosen, json_string_value(ref));
		char name[NAME_MAX_LEN + 1];

		if (from && source_of(from, name, sizeof(name)) &&
		    list_has(chosen, name) && !list_has(refs, from))
			json_array_append_new(refs, json_string(from));
	}
	out = json_array_size(refs) ? json_pack("{s:O}", as, refs) : NULL;
	json_decref(refs);
	return out;
}

/* Its own model; of one that makes none, the model that it was given. */
static json_t *predict_models(const char *name, const json_t *component)
{
	const json_t *own =
	    json_object_get(json_object_get(component, "output"), "model");
	const json_t *given =
	    json_object_get(json_object_get(component, "input"), "model");
	json_t *ret = json_array(), *v;
	size_t i;

	json_array_foreach ((json_t *)own, i, v)
		if (json_is_string(v))
			json_array_append_new(
			    ret, json_sprintf("pipeline.%s.%s", name,
					      json_string_value(v)));
	if (!json_array_size(ret))
		json_array_foreach ((json_t *)given, i, v)
			if (json_is_string(v))
				json_array_append_new(
				    ret, json_sprintf("pipeline.%s",
						      json_string_value(v)));
	if (json_array_size(ret))
		return ret;
	json_decref(ret);
	return NULL;
}

json_t *predict_dsl_deduce(const json_t *dsl, const json_t *chosen)
{
	json_t *all = json_object_get(dsl, "components"), *c, *v;
	json_t *components = json_object();
	const char *name, *key;

	json_object_foreach (all, name, c) {
		json_t *one, *in = json_object(), *out = json_object(), *x;

		/* What was loaded is in the version under the loader's name. */
		if (!list_has(chosen, name) ||
		    !strcasecmp(json_str_or(c, "module", ""), "ModelLoader")) {
			json_decref(in);
			json_decref(out);
			continue;
		}
		one =
		    json_pack("{s:O}", "module", json_object_get(c, "module"));
		x = predict_data(dsl, chosen, c);
		if (x)
			json_object_set_new(in, "data", x);
		x = predict_models(name, c);
		if (x)
			json_object_set_new(in, "model", x);
		json_object_foreach (json_object_get(c, "output"), key, v)
			if (strcmp(key, "model") != 0)
				json_object_set_new(out, key,
						    json_deep_copy(v));
		if (json_object_size(in))
			json_object_set(one, "input", in);
		if (json_object_size(out))
			json_object_set(one, "output", out);
		json_decref(in);
		json_decref(out);
		json_object_set_new(components, name, one);
	}
	return json_pack("{s:o}", "components", components);
}

/* ---- the template ----------------------------------------------------------
 */

static json_t *tables_of(const json_t *dsl)
{
	json_t *ret = json_object(), *c;
	const char *name;
	int n = 0;

	json_object_foreach (json_object_get(dsl, "components"), name, c) {
		if (!is_reader(dsl, name))
			continue;
		json_object_set_new(
		    ret, name,
		    json_pack("{s:{s:o, s:o}}", "table", "name",
			      json_sprintf("name_to_be_filled_%d", n),
			      "namespace",
			      json_sprintf("namespace_to_be_filled_%d", n)));
		n++;
	}
	return ret;
}

static json_t *template_roles(const json_t *train, const json_t *dsl,
			      const json_t *describe)
{
	json_t *roles = json_deep_copy(json_object_get(train, "role")), *c;
	json_t *merged = predict_conf_merge(train, train, dsl);
	bool arbiter = false;
	const char *name;

	json_object_foreach (json_object_get(dsl, "components"), name, c)
		arbiter |= check_needs_arbiter(merged, describe, name, c);
	if (!arbiter)
		json_object_del(roles, "arbiter");
	json_decref(merged);
	return roles;
}

json_t *predict_template(const json_t *train, const json_t *dsl,
			 const json_t *describe, const char *id,
			 const char *version)
{
	static const char *const own[] = { "model_id", "model_version",
					   "job_type", "inheritance_info" };
	json_t *job = json_deep_copy(json_object_get(
	    json_object_get(train, "job_parameters"), "common"));
	json_t *roles = template_roles(train, dsl, describe), *list, *v;
	json_t *tables = tables_of(dsl), *filled = json_object();
	const char *role;
	size_t i;

	if (!json_is_object(job)) {
		json_decref(job);
		job = json_object();
	}
	for (i = 0; i < ARRAY_SIZE(own); i++)
		json_object_del(job, own[i]);
	json_object_set_new(job, "job_type", json_string("predict"));
	json_object_set_new(job, "model_id", json_string(id));
	json_object_set_new(job, "model_version", json_string(version));
	json_object_foreach (roles, role, list) {
		json_t *section = json_object();

		if (!strcmp(role, "guest") || !strcmp(role, "host") ||
		    !strcmp(role, "local"))
			json_array_foreach (list, i, v) {
				char index[24];

				(void)snprintf(index, sizeof(index), "%zu", i);
				json_object_set_new(section, index,
						    json_deep_copy(tables));
			}
		if (json_object_size(section))
			json_object_set(filled, role, section);
		json_decref(section);
	}
	json_decref(tables);
	return json_pack("{s:i, s:O, s:o, s:{s:o}, s:{s:o}}", "dsl_version", 2,
			 "initiator", json_object_get(train, "initiator"),
			 "role", roles, "job_parameters", "common", job,
			 "component_parameters", "role", filled);
}

/* ---- the conf --------------------------------------------------------------
 */

/* A Reader's table and the folds are of the training: never the predict
 * job's. */
static void keep_for(const json_t *dsl, json_t *section)
{
	static const char *const folds[] = { "cv_param", "stepwise_param" };
	const char *name;
	void *next;
	json_t *v;

	json_object_foreach_safe(section, next, name, v)
	{
		if (!component_of(dsl, name)) {
			json_object_del(section, name); /* frees name */
			continue;
		}
		if (is_reader(dsl, name))
			json_object_del(v, "table");
		for (size_t i = 0; i < ARRAY_SIZE(folds); i++)
			json_object_del(v, folds[i]);
	}
}

/* Position of the party in the role of that conf, or -1. */
static ssize_t index_of(const json_t *conf, const char *role,
			const json_t *party)
{
	const json_t *list =
	    json_object_get(json_object_get(conf, "role"), role);
	char a[32], b[32];
	json_t *v;
	size_t i;

	conf_party_text(party, a, sizeof(a));
	json_array_foreach ((json_t *)list, i, v) {
		conf_party_text(v, b, sizeof(b));
		if (*a && !strcmp(a, b))
			return (ssize_t)i;
	}
	return -1;
}

static json_t *sections_of(const json_t *conf, const char *role)
{
	return json_object_get(
	    json_object_get(json_object_get(conf, "component_parameters"),
			    "role"),
	    role);
}

static json_t *common_of(const json_t *conf)
{
	return json_object_get(json_object_get(conf, "component_parameters"),
			       "common");
}

static void add_matching(const json_t *conf, const char *role, size_t index,
			 json_t *into)
{
	const char *selector;
	json_t *section;

	json_object_foreach (sections_of(conf, role), selector, section)
		if (conf_selector_has(selector, index))
			conf_merge(into, section);
}

/* One role: a section for each of its members, and whatever selects nobody,
 * so that the check names it. */
static json_t *merge_role(const json_t *train, const json_t *conf,
			  const json_t *dsl, const char *role,
			  const json_t *members)
{
	json_t *out = json_object(), *v, *section;
	const char *selector;
	size_t i;

	json_array_foreach ((json_t *)members, i, v) {
		ssize_t was = index_of(train, role, v);
		json_t *own = json_object();
		char index[24];

		if (was >= 0)
			add_matching(train, role, (size_t)was, own);
		keep_for(dsl, own);
		add_matching(conf, role, i, own);
		(void)snprintf(index, sizeof(index), "%zu", i);
		if (json_object_size(own))
			json_object_set(out, index, own);
		json_decref(own);
	}
	json_object_foreach (sections_of(conf, role), selector, section)
		if (!conf_selector_fits(selector, json_array_size(members)) ||
		    !json_is_object(section))
			json_object_set_new(out, selector,
					    json_deep_copy(section));
	return out;
}

json_t *predict_conf_merge(const json_t *train, const json_t *conf,
			   const json_t *dsl)
{
	json_t *ret = json_deep_copy(conf), *cp, *common, *roles, *list;
	json_t *given;
	const char *role;

	cp = json_object_get(ret, "component_parameters");
	if (cp && !json_is_object(cp))
		return ret;
	if (!cp) {
		cp = json_object();
		json_object_set_new(ret, "component_parameters", cp);
	}
	given = json_object_get(cp, "common");
	if (given && !json_is_object(given))
		return ret;
	common =
	    common_of(train) ? json_deep_copy(common_of(train)) : json_object();
	keep_for(dsl, common);
	conf_merge(common, given);
	json_object_set_new(cp, "common", common);
	roles = json_object_get(cp, "role");
	if (roles && !json_is_object(roles))
		return ret;
	roles = roles ? json_deep_copy(roles) : json_object();
	json_object_foreach (json_object_get(ret, "role"), role, list)
		if (json_is_array(list) &&
		    (json_is_object(sections_of(conf, role)) ||
		     !sections_of(conf, role)))
			json_object_set_new(
			    roles, role,
			    merge_role(train, conf, dsl, role, list));
	json_object_set_new(cp, "role", roles);
	return ret;
}
