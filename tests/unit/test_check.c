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

#define LR  "component_parameters/common/hetero_lr_0/"
#define CP  "conf#/component_parameters/"
#define CLR CP "common/hetero_lr_0/"
#define DLR "dsl#/components/hetero_lr_0/input/"

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
	{ 'd', "components/b~d", "{'module': 'Reader'}",
	  "dsl#/components/b~0d: a component's name is 1 to 100 letters, "
	  "digits, _ and -" },
	{ 'd', "components/reader_0", "[]",
	  "dsl#/components/reader_0: expected an object" },
	{ 'd', "components/hetero_lr_0/input", "[]",
	  "dsl#/components/hetero_lr_0/input: expected an object" },
	{ 'd', "components/hetero_lr_0/input/dat", "{}",
	  DLR "dat: not known (did you mean data?)" },
	{ 'd', "components/hetero_lr_0/input/data", "[]",
	  DLR "data: expected an object: {\"data\": [\"component.output\"]}" },
	{ 'd', "components/hetero_lr_0/input/data/train_data",
	  "'intersection_0.data'",
	  DLR "data/train_data: expected a list of strings" },
	{ 'd', "components/hetero_lr_0/input/data/train_data", "[1]",
	  DLR "data/train_data/0: expected a string" },
	{ 'd', "components/hetero_lr_0/input/data/train_data", "[]",
	  DLR "data/train_data: an empty list" },
	{ 'd', "components/hetero_lr_0/input/data/train_dat",
	  "['intersection_0.data']",
	  DLR "data/train_dat: HeteroLR has no such input (did you mean "
	      "train_data?); it has: train_data, validate_data, test_data, "
	      "eval_data" },
	{ 'd', "components/hetero_lr_0/input/data/train_data",
	  "['intersection_0']",
	  DLR "data/train_data/0: expected component.output, intersection_0 "
	      "has no dot" },
	{ 'd', "components/hetero_lr_0/input/data/train_data",
	  "['intersection_1.data']",
	  DLR "data/train_data/0: no component intersection_1 (did you mean "
	      "intersection_0?)" },
	{ 'd', "components/hetero_lr_0/input/data/train_data",
	  "['intersection_0.dada']",
	  DLR "data/train_data/0: no data output dada in intersection_0 (has: "
	      "data)" },
	{ 'd', "components/hetero_lr_0/input/model", "['transform_0.mdl']",
	  DLR "model/0: no model output mdl in transform_0 (has: model)" },
	{ 'd', "components/hetero_lr_0/input/model", "['transform_0.model']",
	  DLR "model/0: transform_0 makes a model of DataTransform, not of "
	      "HeteroLR" },
	{ 'd', "components/intersection_0/input/model", "['transform_0.model']",
	  "dsl#/components/intersection_0/input/model: Intersection takes no "
	  "such input" },
	{ 'd', "components/hetero_lr_0/input/cache", "['transform_0.x']",
	  DLR "cache: no module reads a cache yet" },
	{ 'd', "components/hetero_lr_0/input/data/test_data",
	  "['transform_0.data']",
	  DLR "data/test_data: does not go together with train_data" },
	{ 'd', "components/hetero_lr_0/input/data",
	  "{'test_data': ['intersection_0.data']}",
	  DLR "data/test_data: needs a model in input/model" },
	{ 'd', "components/hetero_lr_0/input/data",
	  "{'validate_data': ['intersection_0.data']}",
	  DLR "data/validate_data: needs train_data too" },
	{ 'd', "components/transform_0/input/data/data",
	  "['intersection_0.data']",
	  "dsl#/components/transform_0/input: waits for itself: transform_0 -> "
	  "intersection_0 -> transform_0" },
	{ 'd', "components/hetero_lr_0/input/data/train_data",
	  "['hetero_lr_0.data']",
	  "dsl#/components/hetero_lr_0/input: waits for itself: hetero_lr_0 -> "
	  "hetero_lr_0" },
	{ 'd', "components/reader_0/output", "[]",
	  "dsl#/components/reader_0/output: expected an object" },
	{ 'd', "components/reader_0/output/data", "'data'",
	  "dsl#/components/reader_0/output/data: expected a list of strings" },
	{ 'd', "components/reader_0/output/data", "['data', 'data']",
	  "dsl#/components/reader_0/output/data/1: a second output called "
	  "data" },
	{ 'd', "components/reader_0/output/data", "['data', 'more']",
	  "dsl#/components/reader_0/output/data/1: Reader has only 1 output of "
	  "this kind" },
	{ 'd', "components/reader_0/output/model", "['model']",
	  "dsl#/components/reader_0/output/model/0: Reader has no outputs of "
	  "this kind" },
	{ 'd', "components/reader_0/output/data", "['../data']",
	  "dsl#/components/reader_0/output/data/0: an output's name is 1 to "
	  "100 letters, digits, _ and -" },
	{ 'c', "dsl_version", NULL,
	  "conf#/dsl_version: is needed and must be 2 (a conf without it is "
	  "one of version 1)" },
	{ 'c', "dsl_version", "7", "conf#/dsl_version: must be 2" },
	{ 'c', "extra", "true", "conf#/extra: not known" },
	{ 'c', "role", NULL, "conf#/role: is needed" },
	{ 'c', "role/host", NULL,
	  "conf#/role: no host, which Intersection (intersection_0) needs" },
	{ 'c', "role/host", "10000",
	  "conf#/role/host: expected a list of party ids" },
	{ 'c', "role/host", "['x']",
	  "conf#/role/host/0: expected a party id, 1 to 10 digits" },
	{ 'c', "role/host", "[10000, '10000']",
	  "conf#/role/host/1: party 10000 a second time" },
	{ 'c', "role/hosts", "[10000]",
	  "conf#/role/hosts: no such role (did you mean host?)" },
	{ 'c', "initiator", NULL, "conf#/initiator: is needed" },
	{ 'c', "initiator/role", "'gest'",
	  "conf#/initiator/role: no such role (did you mean guest?)" },
	{ 'c', "initiator/party_id", "true",
	  "conf#/initiator/party_id: expected a party id, 1 to 10 digits" },
	{ 'c', "initiator/party_id", "4711",
	  "conf#/initiator/party_id: party 4711 is no guest in conf#/role" },
	{ 'c', "initiator", "{'role': 'host', 'party_id': 10000}",
	  "conf#/initiator/party_id: this mount is party 9999; a job is "
	  "submitted by its initiator" },
	{ 'c', "job_parameters/common", "[]",
	  "conf#/job_parameters/common: expected an object" },
	{ 'c', "job_parameters/task_cores", "2",
	  "conf#/job_parameters/task_cores: put it under \"common\"" },
	{ 'c', "job_parameters/common/job_type", "'predict'",
	  "conf#/job_parameters/common/job_type: predict jobs are not offered "
	  "yet" },
	{ 'c', "job_parameters/common/job_typ", "'train'",
	  "conf#/job_parameters/common/job_typ: no such job parameter (did you "
	  "mean job_type?)" },
	{ 'c', "job_parameters/common/task_cores", "'two'",
	  "conf#/job_parameters/common/task_cores: expected a whole number" },
	{ 'c', "job_parameters/common/task_cores", "100000",
	  "conf#/job_parameters/common/task_cores: 100000 is out of range, 1 "
	  "to 4096 are possible" },
	{ 'c', "component_parameters", "[]",
	  "conf#/component_parameters: expected an object" },
	{ 'c', "component_parameters/hetero_lr_0", "{}",
	  CP "hetero_lr_0: put it under \"common\"" },
	{ 'c', "component_parameters/common/hetero_lr_1", "{}",
	  CP
	  "common/hetero_lr_1: no such component (did you mean hetero_lr_0?)" },
	{ 'c', "component_parameters/common/hetero_lr_0", "7",
	  CP "common/hetero_lr_0: expected an object" },
	{ 'c', "component_parameters/role/hosts", "{}",
	  CP "role/hosts: no such role (did you mean host?)" },
	{ 'c', "component_parameters/role/host/7", "{'transform_0': {}}",
	  CP "role/host/7: matches no host (the job has 1)" },
	{ 'c', "component_parameters/role/host/0|7", "{'transform_0': {}}",
	  CP "role/host/0|7: 7 matches no host (the job has 1)" },
	{ 'c', "component_parameters/role/host/0,1", "{}",
	  CP
	  "role/host/0,1: no selector (expected \"0\", \"0|1\" or \"all\")" },
	{ 'c', "component_parameters/role/host/0|", "{}",
	  CP "role/host/0|: no selector (expected \"0\", \"0|1\" or \"all\")" },
	{ 'c', "component_parameters/role/host/reader_0", "{}",
	  CP "role/host/reader_0: the level of the index is missing: put it "
	     "under \"0\" or \"all\"" },
	{ 'c', "component_parameters/role/local", "{'all': {'reader_0': {}}}",
	  CP "role/local/all: matches nobody (the job has no local)" },
	{ 'c', "component_parameters/role/host/0/tranform_0", "{}",
	  CP "role/host/0/tranform_0: no such component (did you mean "
	     "transform_0?)" },
	{ 'c', "component_parameters/role/guest/0/reader_0", NULL,
	  CP "role/guest/0/reader_0: the parameter table is needed" },
	{ 'c', "component_parameters/role/guest/0/reader_0",
	  "{'table': {'name': 'x'}}",
	  CP "role/guest/0/reader_0: the parameter table/namespace is needed" },
	{ 'c', "component_parameters/role/guest/0/reader_0/table", "'x'",
	  CP "role/guest/0/reader_0/table: expected object, got a string" },
	{ 'c', LR "learning_rat", "0.1",
	  CLR "learning_rat: no such parameter (did you mean learning_rate?)" },
	{ 'c', LR "learning_rate", "0",
	  CLR "learning_rate: 0 is too small, it must be above 0" },
	{ 'c', LR "max_iter", "'thirty'",
	  CLR "max_iter: expected a whole number, got a string" },
	{ 'c', LR "max_iter", "1.5",
	  CLR "max_iter: expected a whole number, got a fraction" },
	{ 'c', LR "max_iter", "9000000",
	  CLR "max_iter: 9000000 is too large, it must be at most 1000000" },
	{ 'c', LR "alpha", "-0.5",
	  CLR "alpha: -0.5 is too small, it must be at least 0" },
	{ 'c', LR "penalty", "'L3'",
	  CLR "penalty: L3 is none of: L1, L2, None" },
	{ 'c', LR "columns", "true", CLR "columns: expected list, got a bool" },
	{ 'c', LR "early_stop", "null",
	  CLR "early_stop: expected string, got null" },
	{ 'c', LR "encrypt_param", "{'key_lenth': 2048}",
	  CLR "encrypt_param/key_lenth: no such parameter (did you mean "
	      "key_length?)" },
	{ 'c', LR "a~1b", "1", CLR "a~01b: no such parameter" },
	{ 'c', LR "need_run", "false",
	  CLR "need_run: leaving a component out is not offered yet" },
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
