// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/json.h"

#include "scheduler/check.h"

/* As rollfs-task --describe prints it, cut to what is tried here. */
static const char describe_text[] =
    "{'version': 1, 'components': ["
    "{'module': 'Reader', 'roles': ['guest', 'host'], 'outputs': {'data': 1},"
    " 'params': [{'name': 'table', 'type': 'object', 'required': true,"
    "  'params': [{'name': 'namespace', 'type': 'string', 'required': true},"
    "   {'name': 'name', 'type': 'string', 'required': true}]}]},"
    "{'module': 'DataTransform', 'aliases': ['DataIO'],"
    " 'roles': ['guest', 'host'],"
    " 'inputs': {'data': ['data'], 'model': ['model']},"
    " 'outputs': {'data': 1, 'model': 1},"
    " 'params': [{'name': 'with_label', 'type': 'bool', 'default': false},"
    "  {'name': 'label_name', 'type': 'string', 'default': 'y'},"
    "  {'name': 'label_type', 'type': 'enum', 'default': 'int',"
    "   'choices': ['int', 'float']},"
    "  {'name': 'exclusive_data_type', 'type': 'object',"
    "   'nullable': true}]},"
    "{'module': 'Intersection', 'roles': ['guest', 'host'],"
    " 'needs_roles': ['guest', 'host'], 'inputs': {'data': ['data']},"
    " 'outputs': {'data': 1},"
    " 'params': [{'name': 'intersect_method', 'type': 'enum',"
    "   'default': 'rsa', 'choices': ['rsa', 'ecdh', 'raw']},"
    "  {'name': 'rsa_params', 'type': 'object', 'default': {},"
    "   'params': [{'name': 'hash_method', 'type': 'enum', 'ignored': true,"
    "     'default': 'sha256', 'choices': ['sha256', 'md5'],"
    "     'help': 'a full-domain hash is used'},"
    "    {'name': 'key_length', 'type': 'int', 'default': 2048,"
    "     'min': 1024, 'max': 8192}]}]},"
    "{'module': 'HeteroLR', 'roles': ['guest', 'host', 'arbiter'],"
    " 'needs_roles': ['guest', 'host', 'arbiter'],"
    " 'inputs': {'data': ['train_data', 'validate_data', 'test_data',"
    "   'eval_data'], 'model': ['model', 'isometric_model']},"
    " 'outputs': {'data': 1, 'model': 1},"
    " 'params': [{'name': 'penalty', 'type': 'enum', 'default': 'L2',"
    "   'nullable': true, 'choices': ['L1', 'L2', 'None']},"
    "  {'name': 'alpha', 'type': 'number', 'default': 1.0, 'min': 0},"
    "  {'name': 'learning_rate', 'type': 'number', 'default': 0.01,"
    "   'min': 0, 'open_min': true},"
    "  {'name': 'max_iter', 'type': 'int', 'default': 100, 'min': 1,"
    "   'max': 1000000},"
    "  {'name': 'early_stop', 'type': 'enum', 'default': 'diff',"
    "   'choices': ['diff', 'abs', 'weight_diff']},"
    "  {'name': 'columns', 'type': 'list', 'nullable': true},"
    "  {'name': 'init_param', 'type': 'object', 'default': {},"
    "   'params': [{'name': 'init_method', 'type': 'enum',"
    "     'default': 'random_uniform',"
    "     'choices': ['random_uniform', 'zeros']},"
    "    {'name': 'fit_intercept', 'type': 'bool', 'default': true}]},"
    "  {'name': 'encrypt_param', 'type': 'object', 'default': {},"
    "   'params': [{'name': 'key_length', 'type': 'int', 'default': 2048,"
    "     'min': 1024, 'max': 8192}]}]},"
    "{'module': 'Evaluation', 'roles': ['guest'],"
    " 'inputs': {'data': ['data']}, 'outputs': {'data': 1},"
    " 'params': [{'name': 'eval_type', 'type': 'enum', 'default': 'binary',"
    "   'choices': ['binary', 'multi', 'regression']}]},"
    "{'module': 'SecureAddExample', 'roles': ['guest', 'host'],"
    " 'needs_roles': ['guest', 'host'],"
    " 'params': [{'name': 'seed', 'type': 'int', 'nullable': true},"
    "  {'name': 'data_num', 'type': 'int', 'default': 1000, 'min': 1}]}"
    "]}";

static const char dsl_text[] =
    "{'components': {"
    "'reader_0': {'module': 'Reader', 'output': {'data': ['data']}},"
    "'transform_0': {'module': 'DataTransform',"
    " 'input': {'data': {'data': ['reader_0.data']}},"
    " 'output': {'data': ['data'], 'model': ['model']}},"
    "'intersection_0': {'module': 'Intersection',"
    " 'input': {'data': {'data': ['transform_0.data']}},"
    " 'output': {'data': ['data']}},"
    "'hetero_lr_0': {'module': 'HeteroLR',"
    " 'input': {'data': {'train_data': ['intersection_0.data']}},"
    " 'output': {'data': ['data'], 'model': ['model']}},"
    "'evaluation_0': {'module': 'Evaluation',"
    " 'input': {'data': {'data': ['hetero_lr_0.data']}},"
    " 'output': {'data': ['data']}}}}";

static const char conf_text[] =
    "{'dsl_version': 2,"
    "'initiator': {'role': 'guest', 'party_id': 9999},"
    "'role': {'guest': [9999], 'host': [10000], 'arbiter': [10001]},"
    "'job_parameters': {'common': {'job_type': 'train', 'task_cores': 2}},"
    "'component_parameters': {"
    " 'common': {'hetero_lr_0': {'penalty': 'L2', 'alpha': 0.01,"
    "   'max_iter': 30, 'init_param': {'init_method': 'zeros'}},"
    "  'evaluation_0': {'eval_type': 'binary'}},"
    " 'role': {"
    "  'guest': {'0': {'reader_0': {'table': {'namespace': 'experiment',"
    "    'name': 'breast_guest'}},"
    "   'transform_0': {'with_label': true, 'label_type': 'int'}}},"
    "  'host': {'0': {'reader_0': {'table': {'namespace': 'experiment',"
    "    'name': 'breast_host'}},"
    "   'transform_0': {'with_label': false}}}}}}";

/* JSON with ' for ". */
static json_t *quoted(const char *text)
{
	_cleanup_free_ char *s = xstrdup(text);
	struct err e = { 0 };
	json_t *v;

	for (char *p = s; *p; p++)
		if (*p == '\'')
			*p = '"';
	v = json_loads(s, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
	if (!v)
		fail_msg("bad text in a test: %s %s", s, e.text);
	return v;
}

struct job {
	json_t *dsl, *conf, *describe;
	json_t *plan;
	struct defects d;
};

static int begin(void **state)
{
	struct job *j = xcalloc(1, sizeof(*j));

	j->dsl = quoted(dsl_text);
	j->conf = quoted(conf_text);
	j->describe = quoted(describe_text);
	*state = j;
	return 0;
}

static int end(void **state)
{
	struct job *j = *state;

	json_decref(j->dsl);
	json_decref(j->conf);
	json_decref(j->describe);
	json_decref(j->plan);
	sb_free(&j->d.text);
	free(j);
	return 0;
}

static json_t *walk(json_t *v, const char *path, char *last, size_t n)
{
	const char *slash;

	while ((slash = strchr(path, '/'))) {
		_cleanup_free_ char *key =
		    xasprintf("%.*s", (int)(slash - path), path);

		v = json_object_get(v, key);
		assert_non_null(v);
		path = slash + 1;
	}
	(void)snprintf(last, n, "%s", path);
	return v;
}

/* Sets the member at a path of keys; value NULL takes it away. */
static void set(json_t *doc, const char *path, const char *value)
{
	char last[300];
	json_t *o = walk(doc, path, last, sizeof(last));

	if (value)
		json_object_set_new(o, last, quoted(value));
	else
		json_object_del(o, last);
}

static json_t *get(json_t *doc, const char *path)
{
	char last[300];
	json_t *o = walk(doc, path, last, sizeof(last));

	return json_object_get(o, last);
}

static void check(struct job *j)
{
	json_decref(j->plan);
	sb_free(&j->d.text);
	j->d = (struct defects){ 0 };
	j->plan = check_plan(j->dsl, j->conf, j->describe, "9999", NULL, &j->d);
}

static const char *task_text(json_t *plan, size_t i)
{
	static char buf[200];
	const json_t *t = json_array_get(json_object_get(plan, "tasks"), i);

	(void)snprintf(
	    buf, sizeof(buf), "%s %s %s %s %d %s",
	    json_str_or(t, "component", "?"), json_str_or(t, "module", "?"),
	    json_str_or(t, "role", "?"), json_str_or(t, "party", "?"),
	    (int)json_int_or(t, "index", -1), json_str_or(t, "pointer", "?"));
	return buf;
}

static void a_right_job_has_a_plan(void **state)
{
	struct job *j = *state;
	_cleanup_free_ char *s = NULL, *t = NULL, *r = NULL;

	check(j);
	assert_string_equal(j->d.n ? j->d.text.buf : "", "");
	assert_non_null(j->plan);
	s = json_text(get(j->plan, "order"), false);
	assert_string_equal(s, "[\"reader_0\",\"transform_0\","
			       "\"intersection_0\",\"hetero_lr_0\","
			       "\"evaluation_0\"]");
	t = json_text(get(j->plan, "components/hetero_lr_0"), false);
	assert_string_equal(
	    t, "{\"data_inputs\":{\"train_data\":[{\"component\":"
	       "\"intersection_0\",\"output\":\"data\"}]},\"data_outputs\":"
	       "[\"data\"],\"model_inputs\":{},\"model_outputs\":[\"model\"],"
	       "\"module\":\"HeteroLR\",\"upstream\":[\"intersection_0\"]}");
	r = json_text(get(j->plan, "job"), false);
	assert_string_equal(
	    r, "{\"auto_retries\":0,\"auto_retry_delay\":1,"
	       "\"computing_partitions\":2,\"job_type\":\"train\","
	       "\"task_cores\":2,\"task_parallelism\":1,\"timeout\":259200}");
	assert_int_equal(json_array_size(get(j->plan, "tasks")), 10);
	assert_string_equal(task_text(j->plan, 1),
			    "reader_0 Reader host 10000 0 "
			    "conf#/component_parameters/role/host/0/reader_0");
	assert_string_equal(task_text(j->plan, 8),
			    "hetero_lr_0 HeteroLR arbiter 10001 0 "
			    "conf#/component_parameters/common/hetero_lr_0");
	assert_int_equal(json_array_size(get(j->plan, "ignored")), 0);
	assert_int_equal(json_array_size(get(j->plan, "notes")), 0);
}

#define CP "conf#/component_parameters/"
#define LR "component_parameters/common/hetero_lr_0/"

/* One change of the right job and the line that it must give. */
static const struct defect_case {
	char doc; /* 'd'sl or 'c'onf */
	const char *path, *value, *line;
} cases[] = {
	{ 'd', "components/hetero_lr_0/module", "'HeteroLRR'",
	  "dsl#/components/hetero_lr_0/module: no module HeteroLRR (did you "
	  "mean HeteroLR?)" },
	{ 'd', "components/reader_0/module", NULL,
	  "dsl#/components/reader_0/module: is needed" },
	{ 'd', "components/reader_0/module", "7",
	  "dsl#/components/reader_0/module: expected a string" },
	{ 'd', "compnents", "{}",
	  "dsl#/compnents: not known (did you mean components?)" },
	{ 'd', "components/reader_0/ouput", "{}",
	  "dsl#/components/reader_0/ouput: not known (did you mean output?)" },
	{ 'd', "components", "{}",
	  "dsl#/components: expected an object with at least one component" },
	{ 'd', "components", NULL, "dsl#/components: is needed" },
};

static void every_defect_has_its_line(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct defect_case *k = &cases[i];
		struct job *j = *state;
		_cleanup_free_ char *line = xasprintf("%s\n", k->line);
		const char *found;

		set(k->doc == 'd' ? j->dsl : j->conf, k->path, k->value);
		check(j);
		found = j->d.n ? strstr(j->d.text.buf, line) : NULL;
		if (!found || j->plan ||
		    (found != j->d.text.buf && found[-1] != '\n'))
			fail_msg("%s = %s\nwanted %sgot %s", k->path,
				 k->value ? k->value : "nothing", line,
				 j->d.n ? j->d.text.buf : "no defect");
		assert_true(j->d.content);
		end(state);
		begin(state);
	}
}

int main(void)
{
	const struct CMUnitTest t[] = {
		cmocka_unit_test_setup_teardown(a_right_job_has_a_plan, begin,
						end),
		cmocka_unit_test_setup_teardown(every_defect_has_its_line,
						begin, end),
	};

	return cmocka_run_group_tests(t, NULL, NULL);
}
