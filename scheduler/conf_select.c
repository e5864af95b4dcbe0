// SPDX-License-Identifier: Apache-2.0
/*
 * Reading a conf: ids, selectors, the parameters of one task, and the part of
 * it that a partner receives.
 */
#include "lib/conf.h"

#include "scheduler/check_priv.h"

#define SELECTOR_MAX 256 /* bytes of one */

/* FATE's ids are integers, and digits in strings; "" if it is neither. */
void conf_party_text(const json_t *v, char *buf, size_t n)
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

/* ---- selectors ----------------------------------------------------------- */

/* The next index of "0|1" at *s, which moves on; -1 if that is none. */
long conf_next_index(const char **s)
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

bool conf_selector_valid(const char *s)
{
	if (!strcmp(s, "all"))
		return true;
	if (strlen(s) > SELECTOR_MAX)
		return false;
	do {
		if (conf_next_index(&s) < 0)
			return false;
	} while (*s);
	return true;
}

/* Does the (valid) selector match this index? */
bool conf_selector_has(const char *s, size_t index)
{
	if (!strcmp(s, "all"))
		return true;
	while (*s) {
		long v = conf_next_index(&s);

		if (v < 0)
			return false;
		if ((size_t)v == index)
			return true;
	}
	return false;
}

bool conf_selector_fits(const char *s, size_t members)
{
	if (!conf_selector_valid(s))
		return false;
	if (!strcmp(s, "all"))
		return members > 0;
	while (*s)
		if ((size_t)conf_next_index(&s) >= members)
			return false;
	return true;
}

/* ---- parameters ---------------------------------------------------------- */

/* Objects deep, everything else replaces. */
void conf_merge(json_t *into, const json_t *from)
{
	const char *key;
	json_t *v, *old;

	json_object_foreach ((json_t *)from, key, v) {
		old = json_object_get(into, key);
		if (json_is_object(old) && json_is_object(v))
			conf_merge(old, v);
		else
			json_object_set_new(into, key, json_deep_copy(v));
	}
}

json_t *conf_params(const json_t *conf, const char *role, size_t index,
		    const char *component)
{
	const json_t *cp = json_object_get(conf, "component_parameters");
	json_t *given = json_object(), *section;
	const char *selector;

	conf_merge(given,
		   json_object_get(json_object_get(cp, "common"), component));
	json_object_foreach (
	    (json_t *)json_object_get(json_object_get(cp, "role"), role),
	    selector, section)
		if (conf_selector_valid(selector) &&
		    conf_selector_has(selector, index))
			conf_merge(given, json_object_get(section, component));
	return given;
}

static bool hides(const json_t *params)
{
	return json_bool_or(json_object_get(params, "predict_param"),
			    "hide_scores", false);
}

bool check_needs_arbiter(const json_t *conf, const json_t *describe,
			 const char *name, const json_t *component)
{
	const json_t *spec =
	    module_find(describe, json_str_or(component, "module", ""));
	const json_t *data =
	    json_object_get(json_object_get(component, "input"), "data");
	const json_t *cp = json_object_get(conf, "component_parameters");
	const json_t *roles = json_object_get(cp, "role");
	const char *role, *selector;
	json_t *sections, *section;

	if (!list_has(json_object_get(spec, "needs_roles"), "arbiter"))
		return false;
	if (!json_object_get(data, "test_data") &&
	    (json_object_get(data, "train_data") ||
	     !json_object_get(data, "eval_data")))
		return true;
	if (hides(json_object_get(json_object_get(cp, "common"), name)))
		return true;
	json_object_foreach ((json_t *)roles, role, sections)
		json_object_foreach (sections, selector, section)
			if (hides(json_object_get(section, name)))
				return true;
	return false;
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
		if (!conf_selector_valid(selector) ||
		    !conf_selector_has(selector,
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

		conf_party_text(v, id, sizeof(id));
		if (!strcmp(id, party) && conf_selector_has(selector, i))
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
			if (conf_selector_valid(selector) &&
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
