// SPDX-License-Identifier: Apache-2.0
/*
 * Parameters against the table that a component describes: types, ranges,
 * choices, defaults.  Every defect is a line of its own, pointer first.
 */
#include "lib/json.h"

#include "scheduler/check_priv.h"

#define WORD_MAX 64

static size_t distance(const char *a, const char *b)
{
	size_t row[WORD_MAX + 1], na = strlen(a), nb = strlen(b);

	if (na > WORD_MAX || nb > WORD_MAX)
		return WORD_MAX;
	for (size_t j = 0; j <= nb; j++)
		row[j] = j;
	for (size_t i = 1; i <= na; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= nb; j++) {
			size_t above = row[j];
			size_t best = diagonal + (a[i - 1] != b[j - 1]);

			best = MIN(best, above + 1);
			row[j] = MIN(best, row[j - 1] + 1);
			diagonal = above;
		}
	}
	return row[nb];
}

const char *suggest(const char *word, const char *const *names, size_t n)
{
	size_t best = MAX(strlen(word) / 3, (size_t)1) + 1;
	const char *ret = NULL;

	for (size_t i = 0; i < n; i++) {
		size_t d = distance(word, names[i]);

		if (d < best) {
			best = d;
			ret = names[i];
		}
	}
	return ret;
}

static bool type_fits(const char *type, const json_t *v)
{
	if (!strcmp(type, "bool"))
		return json_is_boolean(v);
	if (!strcmp(type, "int"))
		return json_is_integer(v);
	if (!strcmp(type, "number"))
		return json_is_number(v);
	if (!strcmp(type, "string") || !strcmp(type, "enum"))
		return json_is_string(v);
	if (!strcmp(type, "object"))
		return json_is_object(v);
	if (!strcmp(type, "list"))
		return json_is_array(v);
	return !strcmp(type, "any");
}

/* The choice that the word means (case does not matter), NULL if none. */
static json_t *choice_of(const json_t *spec, const json_t *v)
{
	json_t *choice;
	size_t i;

	if (!json_is_string(v))
		return NULL;
	json_array_foreach (json_object_get(spec, "choices"), i, choice)
		if (json_is_string(choice) &&
		    !strcasecmp(json_string_value(choice),
				json_string_value(v)))
			return choice;
	return NULL;
}

static void check_range(const json_t *spec, const json_t *v,
			const struct at *at, struct defects *d)
{
	const json_t *min = json_object_get(spec, "min");
	const json_t *max = json_object_get(spec, "max");
	bool open = json_bool_or(spec, "open_min", false);
	double x = json_number_value(v);
	char limit[NUM_MAX], value[NUM_MAX];

	num_format(value, x);
	if (min && (x < json_number_value(min) ||
		    (open && x <= json_number_value(min)))) {
		num_format(limit, json_number_value(min));
		defect_add(d, EINVAL, at->s,
			   "%s is too small, it must be %s %s", value,
			   open ? "above" : "at least", limit);
	}
	if (max && x > json_number_value(max)) {
		num_format(limit, json_number_value(max));
		defect_add(d, EINVAL, at->s,
			   "%s is too large, it must be at most %s", value,
			   limit);
	}
}

static void bad_choice(const json_t *spec, const json_t *v, const struct at *at,
		       struct defects *d)
{
	_cleanup_strbuf_ struct strbuf all = STRBUF_INIT(500);
	const json_t *choice;
	size_t i;

	json_array_foreach (json_object_get(spec, "choices"), i, choice)
		(void)sb_addf(&all, "%s%s", i ? ", " : "",
			      json_string_value(choice));
	defect_add(d, EINVAL, at->s, "%.60s is none of: %s",
		   json_string_value(v), all.buf);
}

static const char *type_word(const json_t *v)
{
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "a list";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
	case JSON_REAL:
		return "a number";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a bool";
	case JSON_NULL:
		break;
	}
	return "null";
}

static void check_value(const json_t *spec, const json_t *v,
			const struct at *at, struct defects *d)
{
	const char *type = json_str_or(spec, "type", "any");
	const char *want = type;

	if (json_is_null(v) && json_bool_or(spec, "nullable", false))
		return;
	if (!type_fits(type, v)) {
		if (!strcmp(type, "int"))
			want = "a whole number";
		else if (!strcmp(type, "enum"))
			want = "string";
		defect_add(d, EINVAL, at->s, "expected %s, got %s", want,
			   json_is_real(v) && !strcmp(type, "int")
			       ? "a fraction"
			       : type_word(v));
		return;
	}
	if (json_is_number(v))
		check_range(spec, v, at, d);
	if (json_is_string(v) && json_object_get(spec, "choices") &&
	    !choice_of(spec, v))
		bad_choice(spec, v, at, d);
}

static const json_t *find_spec(const json_t *specs, const char *name)
{
	const json_t *spec;
	size_t i;

	json_array_foreach (specs, i, spec)
		if (!strcmp(json_str_or(spec, "name", ""), name))
			return spec;
	return NULL;
}

static void unknown(const json_t *specs, const char *name,
		    const struct at *here, struct defects *d)
{
	const char *names[256], *near = NULL;
	const json_t *spec;
	size_t i, n = 0;

	json_array_foreach (specs, i, spec)
		if (n < ARRAY_SIZE(names))
			names[n++] = json_str_or(spec, "name", "");
	if (d->n < 100)
		near = suggest(name, names, n);
	if (near)
		defect_add(d, EINVAL, here->s,
			   "no such parameter (did you mean %s?)", near);
	else
		defect_add(d, EINVAL, here->s, "no such parameter");
}

static bool same_value(const json_t *a, const json_t *b)
{
	if (json_is_number(a) && json_is_number(b))
		return json_number_value(a) == json_number_value(b);
	if (json_is_string(a) && json_is_string(b))
		return !strcasecmp(json_string_value(a), json_string_value(b));
	return json_equal(a, b) || (json_is_null(a) && !b);
}

void params_given(const json_t *specs, const json_t *given, const struct at *at,
		  struct defects *d, json_t *ignored)
{
	const char *name;
	json_t *v;

	json_object_foreach ((json_t *)given, name, v) {
		const json_t *spec = find_spec(specs, name), *inner;
		struct at here = at_add(at, name);

		if (!spec) {
			unknown(specs, name, &here, d);
			continue;
		}
		if (json_bool_or(spec, "ignored", false)) {
			if (ignored &&
			    !same_value(v, json_object_get(spec, "default")))
				ignored_add(ignored, &here,
					    json_str_or(spec, "help",
							"without effect"));
			continue;
		}
		check_value(spec, v, &here, d);
		inner = json_object_get(spec, "params");
		if (inner && json_is_object(v))
			params_given(inner, v, &here, d, ignored);
	}
}

static json_t *fill(const json_t *specs, const json_t *given,
		    const char *prefix, const char *at, struct defects *d);

/* One parameter: what was given, else its default; v may be NULL. */
static json_t *fill_one(const json_t *spec, json_t *v, const char *prefix,
			const char *at, struct defects *d)
{
	const json_t *inner = json_object_get(spec, "params"), *choice;
	const char *name = json_str_or(spec, "name", "");
	char path[256];

	if (!v && json_bool_or(spec, "required", false)) {
		defect_add(d, EINVAL, at, "the parameter %s%s is needed",
			   prefix, name);
		return json_null();
	}
	if (!v)
		v = json_object_get(spec, "default");
	if (inner && (!v || json_is_object(v)) &&
	    (v || !json_bool_or(spec, "nullable", false))) {
		(void)snprintf(path, sizeof(path), "%s%s/", prefix, name);
		return fill(inner, v, path, at, d);
	}
	if (!v)
		return json_null();
	choice = choice_of(spec, v);
	return json_deep_copy(choice ? choice : v);
}

static json_t *fill(const json_t *specs, const json_t *given,
		    const char *prefix, const char *at, struct defects *d)
{
	json_t *ret = json_object();
	const json_t *spec;
	size_t i;

	if (!ret)
		return NULL;
	json_array_foreach (specs, i, spec) {
		const char *name = json_str_or(spec, "name", "");
		json_t *v =
		    fill_one(spec, json_object_get(given, name), prefix, at, d);

		if (json_object_set_new(ret, name, v) < 0) {
			json_decref(ret);
			return NULL;
		}
	}
	return ret;
}

json_t *params_fill(const json_t *specs, const json_t *given, const char *at,
		    struct defects *d)
{
	return fill(specs, given, "", at, d);
}

json_t *params_check(const json_t *specs, json_t *given, const char *at,
		     struct strbuf *defects)
{
	struct defects d = { .text = *defects };
	struct at here = at_root(at);
	json_t *ret;

	params_given(specs, given, &here, &d, NULL);
	ret = params_fill(specs, given, at, &d);
	*defects = d.text;
	return ret;
}
