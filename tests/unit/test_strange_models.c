// SPDX-License-Identifier: Apache-2.0
/*
 * Models that were changed by hand: whatever stands in a member, a component
 * says what is wrong or goes on; it neither dies nor runs for ever.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "components/linear.h"
#include "tests/unit/local_task.h"

#define CSV "id,y,x0,w\na,0,1,2\nb,1,2,0\nc,0,,1\nd,0,4,5\n"

static const char *const odd[] = {
	"null",
	"true",
	"-1",
	"9223372036854775807",
	"1e308",
	"-1e308",
	"1e-320",
	"\"\"",
	"\"x\"",
	"\"sparse\"",
	"\"tag\"",
	"\"str\"",
	"[]",
	"{}",
	"[[]]",
	"[null, -1, \"\", 1e308]",
	"{\"\": {}, \"name\": \"x0\", \"x0\": -1}",
};

/* Calls fn with the model for each node of it replaced by each odd value. */
struct mutation {
	json_t *model;
	void (*fn)(const json_t *model, void *arg);
	void *arg;
	size_t each; /* odd values a node gets; they take turns */
	unsigned runs;
};

static void mutate(struct mutation *m, json_t *o);

static void try_values(struct mutation *m, json_t *parent, const char *key,
		       size_t index)
{
	json_t *old = json_incref(key ? json_object_get(parent, key)
				      : json_array_get(parent, index));

	for (size_t i = 0; i < m->each; i++) {
		json_t *v = json_loads(odd[m->runs % ARRAY_SIZE(odd)],
				       JSON_DECODE_ANY, NULL);

		assert_non_null(v);
		if (key)
			json_object_set_new(parent, key, v);
		else
			json_array_set_new(parent, index, v);
		m->fn(m->model, m->arg);
		m->runs++;
	}
	if (key) {
		json_object_del(parent, key);
		m->fn(m->model, m->arg);
		json_object_set(parent, key, old);
	} else {
		json_array_set(parent, index, old);
	}
	mutate(m, old);
	json_decref(old);
}

static void mutate(struct mutation *m, json_t *o)
{
	_cleanup_free_ char **keys = NULL;
	const char *key;
	size_t n = 0;
	json_t *v;

	if (json_is_object(o)) {
		keys = xcalloc(json_object_size(o) + 1, sizeof(*keys));
		json_object_foreach (o, key, v)
			keys[n++] = xstrdup(key);
		for (size_t i = 0; i < n; i++) {
			try_values(m, o, keys[i], 0);
			free(keys[i]);
		}
	}
	for (size_t i = 0; i < json_array_size(o); i++)
		try_values(m, o, NULL, i);
}

/* ---- components ----------------------------------------------------------
 */

static void run_with(const json_t *model, void *arg)
{
	_cleanup_free_ char *path = xasprintf("%s/model.json", local_dir);
	struct err e = { 0 };
	int r;

	assert_int_equal(json_write_file(path, model, 0600, false, &e), 0);
	alarm(120);
	r = local_run(arg, "guest", "t", "{}", true);
	alarm(0);
	assert_true(r <= 0);
	if (r < 0)
		assert_true(*local_err.text);
}

static void attack(const char *module)
{
	struct mutation m = { .model = local_json("model.json"),
			      .fn = run_with,
			      .arg = (void *)module,
			      .each = 2 };

	mutate(&m, m.model);
	assert_true(m.runs > 10);
	json_decref(m.model);
}

static void data_transform(void **state)
{
	(void)state;
	local_upload("t", CSV);
	assert_int_equal(local_run("DataTransform", "guest", "t",
				   "{'with_label': true, 'missing_fill': true, "
				   "'missing_fill_method': 'mean', "
				   "'with_match_id': true, 'match_id_name': "
				   "'w', 'exclusive_data_type': {'x0': "
				   "'float'}}",
				   false),
			 0);
	attack("DataTransform");
}

static void data_transform_of_svmlight(void **state)
{
	(void)state;
	local_upload("t", "id,r\na,1 0:1 1:2\nb,0 1:2 2:5\n");
	assert_int_equal(local_run("DataTransform", "guest", "t",
				   "{'with_label': true, 'input_format': "
				   "'sparse', 'delimitor': ' '}",
				   false),
			 0);
	attack("DataTransform");
}

static void feature_scale(void **state)
{
	(void)state;
	local_typed("t", CSV, "{'with_label': true}");
	assert_int_equal(local_run("FeatureScale", "guest", "t",
				   "{'method': 'standard_scale', 'mode': "
				   "'normal'}",
				   false),
			 0);
	attack("FeatureScale");
}

static void sample_weight(void **state)
{
	(void)state;
	local_typed("t", CSV, "{'with_label': true}");
	assert_int_equal(local_run("SampleWeight", "guest", "t",
				   "{'class_weight': 'balanced'}", false),
			 0);
	attack("SampleWeight");
}

static void label_transform(void **state)
{
	(void)state;
	local_typed("t", CSV, "{'with_label': true}");
	assert_int_equal(local_run("LabelTransform", "guest", "t", "{}", false),
			 0);
	attack("LabelTransform");
}

static void set_meta(const char *key, const char *value)
{
	json_t *o = local_json("model.json");

	json_object_set_new(json_object_get(o, "meta"), key,
			    json_loads(value, JSON_DECODE_ANY, NULL));
	run_with(o, (void *)"DataTransform");
	json_decref(o);
}

static void delimiters_and_match_ids_without_end(void **state)
{
	(void)state;
	local_upload("t", "id,r\na,m 1 0:1 1:2\nb,n 0 1:2 2:5\n");
	assert_int_equal(local_run("DataTransform", "guest", "t",
				   "{'with_label': true, 'input_format': "
				   "'tag', 'delimitor': ' ', 'tag_with_value': "
				   "true, 'with_match_id': true}",
				   false),
			 0);
	set_meta("delimitor", "\"\"");
	assert_non_null(strstr(local_err.text, "delimiter"));
	set_meta("delimitor", "\" \"");
	set_meta("tag_value_delimitor", "\"\"");
	assert_non_null(strstr(local_err.text, "delimiter"));
	set_meta("tag_value_delimitor", "\":\"");
	set_meta("id_range", "4611686018427387904");
	assert_non_null(strstr(local_err.text, "match ids"));
}

static void values_too_large_to_scale_or_weigh_are_refused(void **state)
{
	(void)state;
	local_typed("t", "id,y,x\na,0,1e308\nb,1,-1e308\nc,1,1e308\n",
		    "{'with_label': true}");
	assert_int_equal(local_run("FeatureScale", "guest", "t",
				   "{'method': 'standard_scale', 'mode': "
				   "'normal'}",
				   false),
			 -ERANGE);
	assert_int_equal(local_run("FeatureScale", "guest", "t",
				   "{'method': 'min_max_scale', 'mode': "
				   "'normal'}",
				   false),
			 -ERANGE);
	local_typed("t", "id,y,x\na,0,1e308\nb,1,1e308\nc,1,1e308\n",
		    "{'with_label': true}");
	assert_int_equal(local_run("SampleWeight", "guest", "t",
				   "{'sample_weight_name': 'x', 'normalize': "
				   "true, 'class_weight': null}",
				   false),
			 -ERANGE);
}

/* ---- linear models ---------------------------------------------------------
 */

static void read_set(const json_t *model, void *arg)
{
	struct linear l = { .role = LINEAR_GUEST, .f = &linear_lr };
	struct linear_set s = { 0 };
	struct err e = { 0 };

	(void)arg;
	if (linear_set_read(&l, model, &s, &e) < 0) {
		assert_true(*e.text);
		return;
	}
	for (unsigned k = 0; k < s.n; k++)
		for (size_t j = 0; j <= s.m[k].cols; j++)
			assert_true(fabs(s.m[k].w[j]) <= LINEAR_VALUE_MAX);
	linear_set_free(&s);
}

static void linear_models(void **state)
{
	static const char *const models[] = {
		"{'header': ['a', 'b'], 'coef': {'a': 1, 'b': 2}, 'intercept': "
		"3, 'fit_intercept': true, 'iterations': 4, 'loss_history': "
		"[0.5]}",
		"{'header': ['a'], 'one_vs_rest': {'0': {'index': 0, 'class': "
		"0, 'coef': {'a': 1}, 'iterations': 2}, '1': {'index': 1, "
		"'class': 1, 'coef': {'a': 2}, 'iterations': 2}}}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(models); i++) {
		_cleanup_free_ char *text = xstrdup(models[i]);
		struct mutation m = { .fn = read_set, .each = ARRAY_SIZE(odd) };

		for (char *p = text; *p; p++)
			*p = *p == '\'' ? '"' : *p;
		m.model = json_parse(text, strlen(text), NULL);
		assert_non_null(m.model);
		mutate(&m, m.model);
		json_decref(m.model);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(data_transform),
		cmocka_unit_test(data_transform_of_svmlight),
		cmocka_unit_test(feature_scale),
		cmocka_unit_test(sample_weight),
		cmocka_unit_test(label_transform),
		cmocka_unit_test(delimiters_and_match_ids_without_end),
		cmocka_unit_test(
		    values_too_large_to_scale_or_weigh_are_refused),
		cmocka_unit_test(linear_models),
	};

	return cmocka_run_group_tests(tests, local_setup, local_teardown);
}
