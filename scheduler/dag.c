// SPDX-License-Identifier: Apache-2.0
/*
 * The DSL: components, modules, who reads whose outputs, and an order in
 * which every component comes behind those that it reads from.
 */
#include "scheduler/check_priv.h"
#include "scheduler/model_priv.h"

static bool alike(const char *a, const char *b)
{
	return !strcasecmp(a, b);
}

/* By its name, an alias, or either in other letters' case. */
json_t *module_find(const json_t *describe, const char *word)
{
	const json_t *alias;
	json_t *m;
	size_t i, j;

	json_array_foreach (json_object_get(describe, "components"), i, m) {
		if (alike(json_str_or(m, "module", ""), word))
			return m;
		json_array_foreach (json_object_get(m, "aliases"), j, alias)
			if (json_is_string(alias) &&
			    alike(json_string_value(alias), word))
				return m;
	}
	return NULL;
}

static void unknown_module(struct check *c, const char *word,
			   const struct at *at)
{
	char hint[HINT_MAX];
	json_t *names = json_array(), *m;
	size_t i;

	json_array_foreach (json_object_get(c->describe, "components"), i, m)
		(void)json_array_append(names, json_object_get(m, "module"));
	defect_add(c->d, EINVAL, at->s, "no module %.100s%s", word,
		   check_hint(c, word, names, hint, sizeof(hint)));
	json_decref(names);
}

static const json_t *known_inputs(const json_t *spec, const char *kind)
{
	return json_object_get(json_object_get(spec, "inputs"), kind);
}

/* "a, b and c" of a list or an object's keys, "none" if it is empty. */
static const char *words(const json_t *list, char *buf, size_t n)
{
	size_t i, at = 0;
	json_t *v;

	(void)snprintf(buf, n, "none");
	json_array_foreach (list, i, v)
		if (at < n && json_is_string(v))
			at += (size_t)snprintf(buf + at, n - at, "%s%s",
					       i ? ", " : "",
					       json_string_value(v));
	return buf;
}

static bool is_strings(struct check *c, const json_t *v, const struct at *at)
{
	const json_t *s;
	size_t i;

	if (!json_is_array(v)) {
		defect_add(c->d, EINVAL, at->s, "expected a list of strings");
		return false;
	}
	json_array_foreach (v, i, s)
		if (!json_is_string(s)) {
			struct at here = at_index(at, i);

			defect_add(c->d, EINVAL, here.s, "expected a string");
			return false;
		}
	return true;
}

/* ---- outputs ---------------------------------------------------------- */

static void check_outputs(struct check *c, const char *kind,
			  const json_t *given, const json_t *spec,
			  const struct at *at, json_t *ret)
{
	int64_t most = json_int_or(json_object_get(spec, "outputs"), kind, 0);
	json_t *v;
	size_t i;

	if (!given || !is_strings(c, given, at))
		return;
	json_array_foreach (given, i, v) {
		const char *name = json_string_value(v);
		struct at here = at_index(at, i);

		if (!check_name_valid(name))
			defect_add(c->d, EINVAL, here.s,
				   "an output's name is 1 to %d letters, "
				   "digits, _ and -",
				   NAME_MAX_LEN);
		else if (list_has(ret, name))
			defect_add(c->d, EINVAL, here.s,
				   "a second output called %s", name);
		else
			(void)json_array_append_new(ret, json_string(name));
		if (spec && (int64_t)i == most)
			defect_add(c->d, EINVAL, here.s,
				   "%s has %s%.0d output%s of this kind",
				   json_str_or(spec, "module", ""),
				   most ? "only " : "no", (int)most,
				   most == 1 ? "" : "s");
	}
}

static void outputs(struct check *c, const json_t *doc, const json_t *spec,
		    const struct at *at, json_t *node)
{
	static const char *const known[] = { "data", "model", "cache", NULL };
	const json_t *out = json_object_get(doc, "output");
	json_t *data = json_array(), *model = json_array();
	struct at at_out = at_add(at, "output"), here;

	json_object_set_new(node, "data_outputs", data);
	json_object_set_new(node, "model_outputs", model);
	if (!out)
		return;
	if (!json_is_object(out)) {
		defect_add(c->d, EINVAL, at_out.s, "expected an object");
		return;
	}
	check_members(c, out, &at_out, known);
	here = at_add(&at_out, "data");
	check_outputs(c, "data", json_object_get(out, "data"), spec, &here,
		      data);
	here = at_add(&at_out, "model");
	check_outputs(c, "model", json_object_get(out, "model"), spec, &here,
		      model);
	if (json_object_get(out, "cache")) {
		here = at_add(&at_out, "cache");
		ignored_add(c->ignored, &here, "there are no caches");
	}
}

/* ---- inputs ----------------------------------------------------------- */

struct input {
	const char *kind; /* "data" or "model" */
	bool same_module; /* the model must be of the same module */
};

/* "pipeline.component.alias" of a predict job: the store has it, or has not. */
static bool pipeline(struct check *c, const struct input *in, const char *text,
		     json_t *ret)
{
	char name[NAME_MAX_LEN + 1], alias[NAME_MAX_LEN + 1];

	if (!c->predict || strcmp(in->kind, "model") != 0 ||
	    !pipeline_reference(text, name, alias, sizeof(name)))
		return false;
	(void)json_array_append_new(ret, json_pack("{s:s, s:s, s:b}",
						   "component", name, "output",
						   alias, "stored", 1));
	return true;
}

/* One "component.output": found ones go to the plan's list and upstream. */
static void reference(struct check *c, const struct input *in, const char *text,
		      const struct at *at, json_t *node, json_t *ret)
{
	const json_t *nodes = json_object_get(c->plan, "components"), *maker;
	const json_t *has;
	const char *dot = strchr(text, '.'), *output;
	char name[NAME_MAX_LEN + 1], hint[HINT_MAX], have[400];
	const char *key =
	    !strcmp(in->kind, "data") ? "data_outputs" : "model_outputs";

	if (pipeline(c, in, text, ret))
		return;
	if (!dot) {
		defect_add(c->d, EINVAL, at->s,
			   "expected component.output, %.100s has no dot",
			   text);
		return;
	}
	output = strrchr(text, '.') + 1;
	(void)snprintf(name, sizeof(name), "%.*s",
		       (int)MIN(dot - text, NAME_MAX_LEN), text);
	maker =
	    dot - text <= NAME_MAX_LEN ? json_object_get(nodes, name) : NULL;
	if (!maker) {
		defect_add(c->d, EINVAL, at->s, "no component %s%s", name,
			   check_hint(c, name, nodes, hint, sizeof(hint)));
		return;
	}
	has = json_object_get(maker, key);
	if (!list_has(has, output)) {
		defect_add(c->d, EINVAL, at->s,
			   "no %s output %.100s in %s (has: %s)", in->kind,
			   output, name, words(has, have, sizeof(have)));
	} else if (in->same_module && json_object_get(maker, "module") &&
		   json_object_get(node, "module") &&
		   strcmp(json_str_or(maker, "module", ""), "ModelLoader") &&
		   !json_equal(json_object_get(maker, "module"),
			       json_object_get(node, "module"))) {
		defect_add(c->d, EINVAL, at->s,
			   "%s makes a model of %s, not of %s", name,
			   json_str_or(maker, "module", ""),
			   json_str_or(node, "module", ""));
	} else {
		(void)json_array_append_new(ret,
					    json_pack("{s:s, s:s}", "component",
						      name, "output", output));
	}
	/* Edges count even if the output is wrong: a cycle is a defect too. */
	if (!list_has(json_object_get(node, "upstream"), name))
		(void)json_array_append_new(json_object_get(node, "upstream"),
					    json_string(name));
}

static void references(struct check *c, const struct input *in,
		       const json_t *list, const struct at *at, json_t *node,
		       json_t *ret)
{
	const json_t *v;
	size_t i;

	if (!is_strings(c, list, at))
		return;
	if (!json_array_size(list))
		defect_add(c->d, EINVAL, at->s, "an empty list");
	json_array_foreach (list, i, v) {
		struct at here = at_index(at, i);

		reference(c, in, json_string_value(v), &here, node, ret);
	}
}

/* Which inputs go together; at is .../input/data. */
static void mixes(struct check *c, const json_t *data, bool model,
		  const struct at *at)
{
	static const struct {
		const char *has, *with;
		bool needed; /* with must be there, else must not */
	} rules[] = {
		{ "data", "train_data", false },
		{ "data", "validate_data", false },
		{ "data", "eval_data", false },
		{ "data", "test_data", false },
		{ "train_data", "test_data", false },
		{ "eval_data", "validate_data", false },
		{ "eval_data", "test_data", false },
		{ "validate_data", "train_data", true },
	};
	bool train = json_object_get(data, "train_data");

	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		struct at here;

		if (!json_object_get(data, rules[i].has) ||
		    !json_object_get(data, rules[i].with) != rules[i].needed)
			continue;
		here =
		    at_add(at, rules[i].needed ? rules[i].has : rules[i].with);
		if (rules[i].needed)
			defect_add(c->d, EINVAL, here.s, "needs %s too",
				   rules[i].with);
		else
			defect_add(c->d, EINVAL, here.s,
				   "does not go together with %s",
				   rules[i].has);
	}
	for (int i = 0; i < 2; i++) {
		const char *key = i ? "eval_data" : "test_data";
		struct at here = at_add(at, key);

		if (json_object_get(data, key) && !model && (!i || !train))
			defect_add(c->d, EINVAL, here.s,
				   "needs a model in input/model");
	}
}

static void data_inputs(struct check *c, const json_t *data, const json_t *spec,
			const struct at *at, json_t *node)
{
	struct input in = { .kind = "data" };
	const json_t *known = known_inputs(spec, "data");
	json_t *all = json_object_get(node, "data_inputs"), *v, *list;
	char hint[HINT_MAX], have[300];
	const char *key;

	if (!json_is_object(data)) {
		defect_add(c->d, EINVAL, at->s,
			   "expected an object: {\"data\": "
			   "[\"component.output\"]}");
		return;
	}
	json_object_foreach ((json_t *)data, key, v) {
		struct at here = at_add(at, key);

		if (spec && !list_has(known, key))
			defect_add(
			    c->d, EINVAL, here.s,
			    "%s has no such input%s; it has: %s",
			    json_str_or(spec, "module", ""),
			    check_hint(c, key, known, hint, sizeof(hint)),
			    words(known, have, sizeof(have)));
		list = json_array();
		references(c, &in, v, &here, node, list);
		json_object_set_new(all, key, list);
	}
}

static void inputs(struct check *c, const json_t *doc, const json_t *spec,
		   const struct at *at, json_t *node)
{
	static const char *const known[] = { "data", "model", "isometric_model",
					     "cache", NULL };
	static const char *const models[] = { "model", "isometric_model" };
	const json_t *in = json_object_get(doc, "input"), *v;
	json_t *all = json_object_get(node, "model_inputs");
	struct at at_in = at_add(at, "input"), here;

	if (!in)
		return;
	if (!json_is_object(in)) {
		defect_add(c->d, EINVAL, at_in.s, "expected an object");
		return;
	}
	check_members(c, in, &at_in, known);
	for (size_t i = 0; i < ARRAY_SIZE(models); i++) {
		struct input ref = { .kind = "model", .same_module = !i };
		json_t *list;

		v = json_object_get(in, models[i]);
		if (!v)
			continue;
		here = at_add(&at_in, models[i]);
		if (spec && !list_has(known_inputs(spec, "model"), models[i]))
			defect_add(c->d, EINVAL, here.s,
				   "%s takes no such input",
				   json_str_or(spec, "module", ""));
		list = json_array();
		references(c, &ref, v, &here, node, list);
		json_object_set_new(all, models[i], list);
	}
	here = at_add(&at_in, "cache");
	if (json_object_get(in, "cache"))
		defect_add(c->d, EINVAL, here.s, "no module reads a cache yet");
	v = json_object_get(in, "data");
	here = at_add(&at_in, "data");
	if (v) {
		data_inputs(c, v, spec, &here, node);
		mixes(c, v, json_object_get(in, "model"), &here);
	}
}

/* ---- order ------------------------------------------------------------ */

/* Walks backwards from a component that waits for itself until one comes
 * again: what lies between is the cycle. */
static void name_cycle(struct check *c, const json_t *nodes, json_t *done,
		       const char *from)
{
	struct at at = at_root("dsl#/components");
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT(600);
	json_t *path = json_array(), *seen = json_object();
	size_t first, n, start = 0;
	const char *name = from;

	while (!json_object_get(seen, name)) {
		const json_t *up, *v;
		const char *next = NULL;
		size_t i;

		json_object_set_new(
		    seen, name,
		    json_integer((json_int_t)json_array_size(path)));
		json_array_append_new(path, json_string(name));
		up = json_object_get(json_object_get(nodes, name), "upstream");
		json_array_foreach (up, i, v)
			if (!next &&
			    !json_object_get(done, json_string_value(v)))
				next = json_string_value(v);
		if (!next)
			goto out; /* it only waits for a cycle named before */
		name = next;
	}
	first = (size_t)json_integer_value(json_object_get(seen, name));
	n = json_array_size(path) - first;
	/* Begin with the name that the DSL has first, go with the data. */
	{
		const char *key;
		json_t *v;

		json_object_foreach ((json_t *)nodes, key, v) {
			const json_t *at_seen = json_object_get(seen, key);

			if (at_seen &&
			    (size_t)json_integer_value(at_seen) >= first) {
				start =
				    (size_t)json_integer_value(at_seen) - first;
				break;
			}
		}
	}
	for (size_t i = 0; i <= n; i++) {
		size_t k = first + (start + n - i % n) % n;

		(void)sb_addf(&text, "%s%s", i ? " -> " : "",
			      json_string_value(json_array_get(path, k)));
	}
	at =
	    at_add(&at, json_string_value(json_array_get(path, first + start)));
	at = at_add(&at, "input");
	defect_add(c->d, EINVAL, at.s, "waits for itself: %s", text.buf);
	/* One cycle is named once. */
	for (size_t i = first; i < first + n; i++)
		json_object_set_new(done,
				    json_string_value(json_array_get(path, i)),
				    json_true());
out:
	json_decref(path);
	json_decref(seen);
}

static void topological(struct check *c, const json_t *nodes)
{
	json_t *order = json_array(), *done = json_object(), *node, *v;
	const char *name;
	bool more = true;

	while (more) {
		more = false;
		json_object_foreach ((json_t *)nodes, name, node) {
			bool ready = !json_object_get(done, name);
			size_t i;

			json_array_foreach (json_object_get(node, "upstream"),
					    i, v)
				if (ready && !json_object_get(
						 done, json_string_value(v)))
					ready = false;
			if (!ready)
				continue;
			json_object_set_new(done, name, json_true());
			json_array_append_new(order, json_string(name));
			more = true;
		}
	}
	json_object_foreach ((json_t *)nodes, name, node)
		if (!json_object_get(done, name))
			name_cycle(c, nodes, done, name);
	json_decref(done);
	json_object_set_new(c->plan, "order", order);
}

/* ---- components ------------------------------------------------------- */

/* Name, module and outputs: what references are checked against. */
static void declare(struct check *c, json_t *nodes, const char *name,
		    const json_t *doc, const struct at *at)
{
	static const char *const known[] = { "module",	 "input",
					     "output",	 "provider",
					     "CodePath", "need_deploy",
					     NULL };
	json_t *node = json_pack("{s:{}, s:{}, s:[]}", "data_inputs",
				 "model_inputs", "upstream");
	const json_t *word = json_object_get(doc, "module");
	struct at here = at_add(at, "module");
	json_t *spec = NULL;

	json_object_set_new(nodes, name, node);
	if (!json_is_object(doc)) {
		defect_add(c->d, EINVAL, at->s, "expected an object");
		return;
	}
	check_members(c, doc, at, known);
	if (!word)
		defect_add(c->d, EINVAL, here.s, "is needed");
	else if (!json_is_string(word))
		defect_add(c->d, EINVAL, here.s, "expected a string");
	else if (!(spec = module_find(c->describe, json_string_value(word))))
		unknown_module(c, json_string_value(word), &here);
	if (spec) {
		json_object_set(node, "module",
				json_object_get(spec, "module"));
		json_object_set(c->specs, name, spec);
	}
	if (json_object_get(doc, "provider")) {
		here = at_add(at, "provider");
		ignored_add(c->ignored, &here, "there is one engine");
	}
	outputs(c, doc, spec, at, node);
}

void check_dsl(struct check *c)
{
	const json_t *docs = json_object_get(c->dsl, "components");
	struct at at = at_root("dsl#/components"), here;
	json_t *nodes = json_object(), *doc;
	const char *name;

	json_object_set_new(c->plan, "components", nodes);
	if (!docs) {
		defect_add(c->d, EINVAL, at.s, "is needed");
		return;
	}
	if (!json_is_object(docs) || !json_object_size(docs)) {
		defect_add(c->d, EINVAL, at.s,
			   "expected an object with at least one component");
		return;
	}
	if (json_object_size(docs) > COMPONENTS_MAX) {
		defect_add(c->d, EINVAL, at.s, "more than %d components",
			   COMPONENTS_MAX);
		return;
	}
	json_object_foreach ((json_t *)docs, name, doc) {
		here = at_add(&at, name);
		if (!check_name_valid(name))
			defect_add(c->d, EINVAL, here.s,
				   "a component's name is 1 to %d letters, "
				   "digits, _ and -",
				   NAME_MAX_LEN);
		declare(c, nodes, name, doc, &here);
	}
	json_object_foreach ((json_t *)docs, name, doc) {
		here = at_add(&at, name);
		if (json_is_object(doc))
			inputs(c, doc, json_object_get(c->specs, name), &here,
			       json_object_get(nodes, name));
	}
	topological(c, nodes);
}
