// SPDX-License-Identifier: Apache-2.0
/*
 * Parameters against the table that a component describes: types, ranges,
 * choices, defaults.  Every defect is a line of its own, pointer first.
 */
#include "lib/json.h"

#include "scheduler/sched_priv.h"

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

static void check_value(const json_t *spec, const json_t *v, const char *at,
			struct strbuf *defects)
{
	const char *type = json_str_or(spec, "type", "any");
	const json_t *min = json_object_get(spec, "min");
	const json_t *max = json_object_get(spec, "max"), *choice;
	const json_t *choices = json_object_get(spec, "choices");
	double x;
	size_t i;

	if (json_is_null(v) && json_bool_or(spec, "nullable", false))
		return;
	if (!type_fits(type, v)) {
		(void)sb_addf(defects, "%s: expected %s\n", at, type);
		return;
	}
	if (json_is_number(v)) {
		x = json_number_value(v);
		if (min && (x < json_number_value(min) ||
			    (json_bool_or(spec, "open_min", false) &&
			     x <= json_number_value(min))))
			(void)sb_addf(defects, "%s: below %g\n", at,
				      json_number_value(min));
		if (max && x > json_number_value(max))
			(void)sb_addf(defects, "%s: above %g\n", at,
				      json_number_value(max));
	}
	if (!json_is_string(v) || !json_is_array(choices))
		return;
	json_array_foreach (choices, i, choice)
		if (json_equal(choice, v))
			return;
	(void)sb_addf(defects, "%s: not one of its choices\n", at);
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

static void unknown(const json_t *specs, const char *name, const char *at,
		    struct strbuf *defects)
{
	const char *names[256], *near;
	const json_t *spec;
	size_t i, n = 0;

	json_array_foreach (specs, i, spec)
		if (n < ARRAY_SIZE(names))
			names[n++] = json_str_or(spec, "name", "");
	near = suggest(name, names, n);
	(void)sb_addf(defects, "%s/%s: no such parameter", at, name);
	if (near)
		(void)sb_addf(defects, " (did you mean %s?)", near);
	(void)sb_addc(defects, '\n');
}

json_t *params_check(const json_t *specs, json_t *given, const char *at,
		     struct strbuf *defects)
{
	json_t *ret = json_object(), *v;
	const json_t *spec;
	const char *name;
	size_t i;

	if (!ret)
		return NULL;
	json_object_foreach (given, name, v)
		if (!find_spec(specs, name))
			unknown(specs, name, at, defects);
	json_array_foreach (specs, i, spec) {
		_cleanup_free_ char *here = NULL;
		const json_t *inner = json_object_get(spec, "params");

		name = json_str_or(spec, "name", "");
		here = xasprintf("%s/%s", at, name);
		v = json_object_get(given, name);
		if (v)
			check_value(spec, v, here, defects);
		else if (json_bool_or(spec, "required", false))
			(void)sb_addf(defects, "%s: is needed\n", here);
		if (inner && (!v || json_is_object(v)))
			v = params_check(inner, v, here, defects);
		else if (v)
			v = json_deep_copy(v);
		else
			v = json_deep_copy(json_object_get(spec, "default"));
		if (v)
			(void)json_object_set_new(ret, name, v);
	}
	return ret;
}
