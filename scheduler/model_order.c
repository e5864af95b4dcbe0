// SPDX-License-Identifier: Apache-2.0
/*
 * What "deploy COMPONENT ... dsl ..." asks for: the DSL that a predict job will
 * run, and the components whose models it takes.
 */
#include <unistd.h>

#include "scheduler/check_priv.h"
#include "scheduler/engine.h"
#include "scheduler/model_priv.h"

static int unknown_component(const json_t *dsl, const char *word, struct err *e)
{
	const char *names[COMPONENTS_MAX], *key, *near;
	size_t n = 0;
	json_t *v;

	json_object_foreach (json_object_get(dsl, "components"), key, v)
		if (n < ARRAY_SIZE(names))
			names[n++] = key;
	near = suggest(word, names, n);
	return err_set(e, EINVAL, "deploy: no component \"%.100s\"%s%s%s", word,
		       near ? " (did you mean " : "", near ? near : "",
		       near ? "?)" : "");
}

static json_t *find_one(json_t *components, const char *name)
{
	json_t *one;
	size_t i;

	json_array_foreach (components, i, one)
		if (!strcmp(json_str_or(one, "name", ""), name))
			return one;
	return NULL;
}

/* "hetero_lr_0:checkpoint-3" to the list. */
static int read_word(const json_t *dsl, const char *word, json_t *components,
		     struct err *e)
{
	static const char mark[] = ":checkpoint-";
	const char *colon = strchr(word, ':');
	size_t n = colon ? (size_t)(colon - word) : strlen(word);
	_cleanup_free_ char *name = xasprintf("%.*s", (int)n, word);
	json_t *one;

	if (!json_object_get(json_object_get(dsl, "components"), name))
		return unknown_component(dsl, name, e);
	if (find_one(components, name))
		return err_set(e, EINVAL, "deploy: %s is named twice", name);
	one = json_pack("{s:s}", "name", name);
	json_array_append_new(components, one);
	if (!colon)
		return 0;
	n = strlen(mark);
	if (strncmp(colon, mark, n) != 0 || !colon[n] ||
	    strspn(colon + n, "0123456789") != strlen(colon + n) ||
	    strlen(colon + n) > 7)
		return err_set(e, EINVAL,
			       "deploy: \"%.100s\": expected "
			       "%s:checkpoint-NUMBER",
			       word, name);
	json_object_set_new(one, "checkpoint",
			    json_integer(strtol(colon + n, NULL, 10)));
	return 0;
}

struct order {
	json_t *train;	    /* dsl of the training */
	json_t *conf;	    /* its conf */
	json_t *components; /* [{"name", "checkpoint"}] that were named */
	json_t *own;	    /* an own predict DSL, or NULL */
};

json_t *deploy_dsl_unwrap(json_t *o)
{
	json_t *in = json_object_get(o, "dsl");

	if (!json_is_object(in) || json_object_get(o, "components"))
		return o;
	json_incref(in);
	json_decref(o);
	return in;
}

static int read_line(struct order *o, char *line, const char *stored,
		     struct err *e)
{
	char *rest = line, *word;
	bool dsl = false;
	int r = 0;

	while (!r && !dsl && (word = strtok_r(rest, " \t", &rest))) {
		dsl = !strcmp(word, "dsl");
		if (!dsl)
			r = read_word(o->train, word, o->components, e);
	}
	if (r)
		return r;
	rest += dsl ? strspn(rest, " \t") : 0;
	if (dsl && *rest) {
		o->own = json_parse(rest, strlen(rest), e);
		if (!o->own)
			return err_wrap(e, "deploy: dsl");
	} else if (!access(stored, F_OK)) {
		o->own = json_read_file(stored, e);
		if (!o->own)
			return -e->no;
	} else if (dsl) {
		return err_set(e, EINVAL,
			       "deploy: dsl: write predict/dsl.json first, or "
			       "put the text behind the word");
	}
	if (o->own)
		o->own = deploy_dsl_unwrap(o->own);
	return 0;
}

/* Named components, all when none is; and the Readers they need. */
static json_t *choose(const struct order *o)
{
	json_t *ret = json_array(), *one, *v;
	const char *name;
	size_t i;

	json_array_foreach (o->components, i, one)
		json_array_append(ret, json_object_get(one, "name"));
	if (!json_array_size(ret))
		json_object_foreach (json_object_get(o->train, "components"),
				     name, v)
			json_array_append_new(ret, json_string(name));
	predict_add_readers(o->train, ret);
	return ret;
}

struct wanted {
	json_t *named, *ret;
};

static void want(void *arg, const char *name, const json_t *c, size_t i,
		 const char *from)
{
	struct wanted *x = arg;
	const json_t *one = find_one(x->named, from);

	(void)name;
	(void)c;
	(void)i;
	if (!find_one(x->ret, from))
		json_array_append_new(x->ret,
				      one ? json_deep_copy(one)
					  : json_pack("{s:s}", "name", from));
}

/* The components whose models the DSL names, with the checkpoints that were
 * asked for. */
static json_t *wanted(const json_t *dsl, json_t *named)
{
	struct wanted x = { named, json_array() };

	model_refs_each(dsl, want, &x);
	return x.ret;
}

static int not_used(const struct order *o, const json_t *dsl, struct err *e)
{
	json_t *one;
	size_t i;

	json_array_foreach (o->components, i, one) {
		const char *name = json_str_or(one, "name", "");

		if (!json_object_get(json_object_get(dsl, "components"), name))
			return err_set(e, EINVAL,
				       "deploy: %s is not in the predict DSL "
				       "that was given",
				       name);
	}
	return 0;
}

/* Left out here in the training, by need_run: others may have its model. */
static bool left_out(const struct sched *s, const json_t *conf,
		     const char *component)
{
	json_t *roles = json_object_get(conf, "role"), *list, *party;
	bool out = false;
	const char *role;
	size_t i;

	json_object_foreach (roles, role, list)
		json_array_foreach (list, i, party) {
			char id[32];
			json_t *params;

			conf_party_text(party, id, sizeof(id));
			if (strcmp(id, s->party) != 0)
				continue;
			params = conf_params(conf, role, i, component);
			out |= !json_bool_or(params, "need_run", true);
			json_decref(params);
		}
	return out;
}

/* What has learned nothing predicts nothing. */
static int learned(const struct sched *s, const json_t *info,
		   const json_t *conf, const json_t *wanted_ones, struct err *e)
{
	const json_t *have = json_object_get(info, "components"), *one;
	size_t i;

	json_array_foreach (wanted_ones, i, one) {
		const char *name = json_str_or(one, "name", "");
		const json_t *known = json_object_get(have, name);

		/* An unknown name is told, with a better one, by the check. */
		if (known &&
		    !json_array_size(json_object_get(known, "roles")) &&
		    !left_out(s, conf, name))
			return err_set(e, EINVAL,
				       "deploy: this version has no model of "
				       "%s (a cross validation makes none)",
				       name);
	}
	return 0;
}

int deploy_order_read(struct sched *s, const json_t *info, char *line,
		      const char *stored, struct deploy_order *ret,
		      struct err *e)
{
	const char *id = json_str_or(info, "model_id", "");
	const char *parent = json_str_or(info, "model_version", "");
	struct order o = { .components = json_array() };
	json_t *dsl = NULL, *models = NULL;
	int r;

	o.train = model_read(s->o.conf->state, id, parent, "train/dsl.json", e);
	if (o.train)
		o.conf = model_read(s->o.conf->state, id, parent,
				    "train/conf.json", e);
	r = o.conf ? read_line(&o, line, stored, e) : -e->no;
	if (!r && o.own) {
		dsl = json_incref(o.own);
		r = not_used(&o, dsl, e);
	} else if (!r) {
		json_t *chosen = choose(&o);

		dsl = predict_dsl_deduce(o.train, chosen);
		json_decref(chosen);
	}
	if (!r) {
		models = wanted(dsl, o.components);
		/* An own DSL is judged as a whole later, and may be wrong. */
		if (!o.own && !json_array_size(models))
			r = err_set(e, EINVAL,
				    "deploy: none of these components has a "
				    "model");
	}
	if (!r)
		r = learned(s, info, o.conf, models, e);
	if (!r)
		*ret =
		    (struct deploy_order){ json_incref(dsl),
					   json_incref(models), o.own != NULL };
	json_decref(models);
	json_decref(dsl);
	json_decref(o.own);
	json_decref(o.train);
	json_decref(o.conf);
	json_decref(o.components);
	return r;
}
