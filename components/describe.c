// SPDX-License-Identifier: Apache-2.0
// What the components say about themselves, as JSON (docs/internals.md).
#include "components/ctx_priv.h"
#include "lib/json.h"

#define COMPONENT(name) extern const struct component component_##name;
#include "components/list.h"
#undef COMPONENT

static const struct component *const components[] = {
#define COMPONENT(name) &component_##name,
#include "components/list.h"
#undef COMPONENT
};

const struct component *component_find(const char *module)
{
	for (size_t i = 0; i < ARRAY_SIZE(components); i++) {
		const char *const *a = components[i]->aliases;

		if (strcmp(components[i]->module, module) == 0)
			return components[i];
		for (; a && *a; a++)
			if (strcmp(*a, module) == 0)
				return components[i];
	}
	return NULL;
}

static json_t *words(const char *const *list)
{
	json_t *a = json_array();

	for (; list && *list; list++)
		json_array_append_new(a, json_string(*list));
	return a;
}

static json_t *roles(unsigned bits)
{
	static const char *const names[] = { "guest", "host", "arbiter",
					     "local" };
	json_t *a = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (bits & 1u << i)
			json_array_append_new(a, json_string(names[i]));
	return a;
}

static json_t *choices(const char *text)
{
	json_t *a = json_array();

	while (*text) {
		size_t n = strcspn(text, "|");

		json_array_append_new(a, json_stringn(text, n));
		text += n + (text[n] == '|');
	}
	return a;
}

static json_t *number(const struct param *p, double v)
{
	if (p->type == PARAM_INT && v >= -9e15 && v <= 9e15)
		return json_integer((json_int_t)v);
	return json_real(v);
}

static json_t *describe_params(const struct param *p);

static json_t *describe_param(const struct param *p)
{
	static const char *const types[] = { "bool",   "int",  "number",
					     "string", "enum", "object",
					     "list",   "any" };
	json_t *o = json_object();
	json_t *def =
	    p->def ? json_loads(p->def, JSON_DECODE_ANY, NULL) : json_null();

	json_object_set_new(o, "name", json_string(p->name));
	json_object_set_new(o, "type", json_string(types[p->type]));
	if (p->help)
		json_object_set_new(o, "help", json_string(p->help));
	/* A default of null is one that may be written down, too. */
	if (p->flags & PARAM_NULLABLE ||
	    (json_is_null(def) && !(p->flags & PARAM_REQUIRED)))
		json_object_set_new(o, "nullable", json_true());
	if (p->flags & PARAM_REQUIRED)
		json_object_set_new(o, "required", json_true());
	else
		json_object_set(o, "default", def);
	json_decref(def);
	if (p->flags & PARAM_IGNORED)
		json_object_set_new(o, "ignored", json_true());
	if (p->min != 0 || p->max != 0) {
		json_object_set_new(o, "min", number(p, p->min));
		json_object_set_new(o, "max", number(p, p->max));
	}
	if (p->flags & PARAM_OPEN_MIN)
		json_object_set_new(o, "open_min", json_true());
	if (p->choices)
		json_object_set_new(o, "choices", choices(p->choices));
	if (p->sub)
		json_object_set_new(o, "params", describe_params(p->sub));
	return o;
}

static json_t *describe_params(const struct param *p)
{
	json_t *a = json_array();

	for (; p && p->name; p++)
		json_array_append_new(a, describe_param(p));
	return a;
}

static json_t *describe(const struct component *c)
{
	return json_pack(
	    "{s:s, s:o, s:o, s:o, s:{s:o, s:o}, s:{s:i, s:i}, s:s, s:o}",
	    "module", c->module, "aliases", words(c->aliases), "roles",
	    roles(c->roles), "needs_roles", roles(c->needs_roles), "inputs",
	    "data", words(c->data_inputs), "model", words(c->model_inputs),
	    "outputs", "data", (int)c->data_outputs, "model",
	    (int)c->model_outputs, "help", c->help ? c->help : "", "params",
	    describe_params(c->params));
}

json_t *components_describe(void)
{
	json_t *a = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(components); i++)
		json_array_append_new(a, describe(components[i]));
	return json_pack("{s:i, s:o}", "version", 1, "components", a);
}

struct found {
	json_t *list;
	size_t task;
};

static void defect(void *arg, const char *pointer, const char *text)
{
	struct found *f = arg;

	json_array_append_new(f->list, json_pack("{s:I, s:s, s:s}", "task",
						 (json_int_t)f->task, "pointer",
						 pointer, "text", text));
}

json_t *components_check(const json_t *request, struct err *e)
{
	const json_t *tasks = json_object_get(request, "tasks"), *t;
	struct found f = { .list = json_array() };

	if (!json_is_array(tasks)) {
		err_set(e, EINVAL, "tasks: expected a list");
		json_decref(f.list);
		return NULL;
	}
	json_array_foreach (tasks, f.task, t) {
		const char *module = json_str_or(t, "module", "");
		const struct component *c = component_find(module);

		if (!c)
			defect(&f, "", "no such module");
		else if (c->check)
			c->check(json_object_get(t, "params"),
				 json_object_get(t, "roles"),
				 json_str_or(t, "role", ""), defect, &f);
	}
	return json_pack("{s:o}", "defects", f.list);
}
