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
    "  {'name': 'cv_param', 'type': 'object', 'default': {},"
    "   'params': [{'name': 'need_cv', 'type': 'bool', 'default': false}]},"
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
	json_t *plan, *rest;
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
	json_decref(j->rest);
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
	json_decref(j->rest);
	sb_free(&j->d.text);
	j->d = (struct defects){ 0 };
	j->rest = NULL;
	j->plan = check_plan(j->dsl, j->conf, j->describe, "9999", NULL, &j->d,
			     &j->rest);
}

/* All defects of the last check, "" if there were none. */
static const char *said(const struct job *j)
{
	return j->d.text.buf ? j->d.text.buf : "";
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

#define LR "component_parameters/common/hetero_lr_0/"

static void tasks_beside_a_defect_can_be_judged(void **state)
{
	struct job *j = *state;
	size_t before, all = 0;
	json_t *t;

	check(j);
	assert_null(j->rest);
	before = json_array_size(get(j->plan, "tasks"));
	set(j->conf, LR "max_iter", "'many'");
	check(j);
	assert_null(j->plan);
	json_array_foreach (get(j->rest, "tasks"), all, t) {
		assert_string_not_equal(json_str_or(t, "component", ""),
					"hetero_lr_0");
	}
	assert_true(all > 0 && all < before);
}

static void a_right_job_has_a_plan(void **state)
{
	struct job *j = *state;
	_cleanup_free_ char *s = NULL, *t = NULL, *r = NULL;

	check(j);
	assert_string_equal(said(j), "");
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
	  "conf#/job_parameters/common/model_version: a predict job needs it: "
	  "the name of a deployed model (ls models)" },
	{ 'c', "job_parameters/common/job_type", "'homo'",
	  "conf#/job_parameters/common/job_type: no job type homo (there are "
	  "train and predict)" },
	{ 'c', "job_parameters/common/inheritance_info", "{'job_id': 7}",
	  "conf#/job_parameters/common/inheritance_info/component_list: "
	  "expected a list of components" },
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
	{ 'c', LR "need_run", "0",
	  CLR "need_run: expected bool, got a number" },
	{ 'c', "component_parameters/common/reader_0", "{'need_run': false}",
	  CP "common/reader_0/need_run: there are no rows to hand on: leave "
	     "the component out of the DSL" },
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
		found = strstr(said(j), line);
		if (!found || j->plan ||
		    (found != said(j) && found[-1] != '\n'))
			fail_msg("%s = %s\nwanted %sgot %s", k->path,
				 k->value ? k->value : "nothing", line,
				 said(j));
		assert_true(j->d.content);
		end(state);
		begin(state);
	}
}

static void all_defects_come_at_once(void **state)
{
	struct job *j = *state;

	set(j->dsl, "components/evaluation_0/module", "'Evalution'");
	set(j->conf, LR "alpha", "-1");
	set(j->conf, LR "tool", "3");
	set(j->conf, "dsl_version", "1");
	check(j);
	assert_int_equal(j->d.n, 4);
	assert_string_equal(
	    j->d.text.buf,
	    "conf#/dsl_version: must be 2\n"
	    "dsl#/components/evaluation_0/module: no module Evalution (did "
	    "you mean Evaluation?)\n" CLR
	    "alpha: -1 is too small, it must be at least 0\n" CLR
	    "tool: no such parameter\n");
}

static void cross_validation_reads_training_rows_only(void **state)
{
	struct job *j = *state;

	set(j->conf, LR "cv_param", "{'need_cv': true}");
	check(j);
	assert_string_equal(said(j), "");
	set(j->dsl, "components/hetero_lr_0/input/data/validate_data",
	    "['intersection_0.data']");
	check(j);
	assert_string_equal(said(j), "dsl#/components/hetero_lr_0/input/data: "
				     "with cv_param/need_cv it reads "
				     "train_data only\n");
}

static void each_cycle_is_named_once(void **state)
{
	struct job *j = *state;

	set(j->dsl, "components/transform_0/input/data/data",
	    "['hetero_lr_0.data']");
	set(j->dsl, "components/a",
	    "{'module': 'DataTransform', 'input': "
	    "{'data': {'data': ['b.data']}}, "
	    "'output': {'data': ['data']}}");
	set(j->dsl, "components/b",
	    "{'module': 'DataTransform', 'input': "
	    "{'data': {'data': ['a.data']}}, "
	    "'output': {'data': ['data']}}");
	check(j);
	assert_string_equal(
	    j->d.text.buf,
	    "dsl#/components/transform_0/input: waits for itself: transform_0 "
	    "-> intersection_0 -> hetero_lr_0 -> transform_0\n"
	    "dsl#/components/a/input: waits for itself: a -> b -> a\n");
}

static void names_cannot_begin_lines_of_their_own(void **state)
{
	struct job *j = *state;

	set(j->conf, LR "x\\ny: z", "1");
	json_object_set_new(get(j->conf, "component_parameters/common"),
			    "bad\nconf#/role: forged", json_object());
	json_object_set_new(get(j->dsl, "components/reader_0"), "module",
			    json_string("a\nb\x7f"));
	check(j);
	assert_int_equal(j->d.n, 3);
	for (const char *p = said(j); *p; p = strchr(p, '\n') + 1)
		assert_true(!strncmp(p, CP, sizeof(CP) - 1) ||
			    !strncmp(p, "dsl#/components/reader_0/", 25));
}

static void long_names_are_cut_between_characters(void **state)
{
	struct job *j = *state;
	_cleanup_strbuf_ struct strbuf name = STRBUF_INIT(4000);
	json_t *text;

	for (int i = 0; i < 1000; i++)
		(void)sb_adds(&name, i % 2 ? "\u6570" : "x");
	json_object_set_new(get(j->conf, "component_parameters/common"),
			    name.buf, json_object());
	set(j->dsl, "components/reader_0/module", "''");
	json_object_set_new(get(j->dsl, "components/reader_0"), "module",
			    json_string(name.buf));
	check(j);
	assert_int_equal(j->d.n, 2);
	text = json_stringn(j->d.text.buf, j->d.text.len);
	assert_non_null(text); /* valid UTF-8 */
	json_decref(text);
}

static void a_module_answers_to_other_spellings(void **state)
{
	struct job *j = *state;

	set(j->dsl, "components/transform_0/module", "'dataio'");
	set(j->dsl, "components/hetero_lr_0/module", "'heterolr'");
	check(j);
	assert_non_null(j->plan);
	assert_string_equal(
	    json_str_or(get(j->plan, "components/transform_0"), "module", ""),
	    "DataTransform");
	assert_string_equal(task_text(j->plan, 6),
			    "hetero_lr_0 HeteroLR guest 9999 0 "
			    "conf#/component_parameters/common/hetero_lr_0");
}

static void order_is_by_inputs_and_not_by_place(void **state)
{
	struct job *j = *state;
	_cleanup_free_ char *s = NULL;
	json_t *reader = json_incref(get(j->dsl, "components/reader_0"));

	json_object_del(get(j->dsl, "components"), "reader_0");
	json_object_set_new(get(j->dsl, "components"), "reader_0", reader);
	check(j);
	s = json_text(get(j->plan, "order"), false);
	assert_string_equal(s, "[\"reader_0\",\"transform_0\","
			       "\"intersection_0\",\"hetero_lr_0\","
			       "\"evaluation_0\"]");
}

static json_t *task_params(json_t *plan, const char *component,
			   const char *party)
{
	json_t *t;
	size_t i;

	json_array_foreach (json_object_get(plan, "tasks"), i, t)
		if (!strcmp(json_str_or(t, "component", ""), component) &&
		    !strcmp(json_str_or(t, "party", ""), party))
			return json_object_get(t, "params");
	fail_msg("no task %s at %s", component, party);
	return NULL;
}

static void params_are_merged_in_file_order(void **state)
{
	struct job *j = *state;
	_cleanup_free_ char *a = NULL, *b = NULL;

	set(j->conf, "role/host", "[10000, '10002']");
	set(j->conf, LR "columns", "[1, 2, 3]");
	set(j->conf, "component_parameters/role/host",
	    "{'1': {'hetero_lr_0': {'max_iter': 7, 'columns': [4]}},"
	    " 'all': {'reader_0': {'table': {'namespace': 'n', 'name': 't'}},"
	    "  'hetero_lr_0': {'max_iter': 8, 'penalty': 'none'}},"
	    " '0|1': {'hetero_lr_0':"
	    "   {'init_param': {'fit_intercept': false}}}}");
	check(j);
	assert_string_equal(said(j), "");
	a = json_text(task_params(j->plan, "hetero_lr_0", "10000"), false);
	b = json_text(task_params(j->plan, "hetero_lr_0", "10002"), false);
	assert_string_equal(
	    a, "{\"alpha\":0.01,\"columns\":[1,2,3],\"cv_param\":{\"need_cv\":"
	       "false},\"early_stop\":\"diff\","
	       "\"encrypt_param\":{\"key_length\":2048},\"init_param\":"
	       "{\"fit_intercept\":false,\"init_method\":\"zeros\"},"
	       "\"learning_rate\":0.01,\"max_iter\":8,\"need_run\":true,"
	       "\"penalty\":\"None\"}");
	assert_non_null(strstr(b, "\"columns\":[4]"));
	assert_non_null(strstr(b, "\"max_iter\":8"));
}

static void a_parameter_is_found_where_it_was_given(void **state)
{
	struct job *j = *state;
	_cleanup_free_ char *a = NULL, *b = NULL, *c = NULL;
	json_t *t;

	set(j->conf, "component_parameters/role/guest/all",
	    "{'hetero_lr_0': {'init_param': {'fit_intercept': true}}}");
	check(j);
	assert_non_null(j->plan);
	t = json_array_get(get(j->plan, "tasks"), 6);
	a = check_param_pointer(j->conf, t, "alpha");
	b = check_param_pointer(j->conf, t, "init_param/fit_intercept");
	c = check_param_pointer(j->conf, t, "early_stop");
	assert_string_equal(a, CLR "alpha");
	assert_string_equal(
	    b, CP "role/guest/all/hetero_lr_0/init_param/fit_intercept");
	assert_string_equal(c, CP "role/guest/all/hetero_lr_0/early_stop");
}

static void what_has_no_effect_is_named(void **state)
{
	struct job *j = *state;
	_cleanup_free_ char *s = NULL;

	set(j->conf, "job_parameters/common/backend", "0");
	set(j->conf, "component_parameters/common/intersection_0",
	    "{'need_run': true,"
	    " 'rsa_params': {'hash_method': 'md5', 'key_length': 2048}}");
	set(j->conf, "component_parameters/role/host/0/evaluation_0",
	    "{'need_run': false}");
	set(j->conf, "provider", "{'common': {}}");
	check(j);
	assert_string_equal(said(j), "");
	s = json_text(get(j->plan, "ignored"), false);
	assert_string_equal(
	    s,
	    "[\"conf#/provider: not used (there is one engine)\","
	    "\"conf#/job_parameters/common/backend: not used (there is one "
	    "engine)\","
	    "\"" CP "common/intersection_0/rsa_params/hash_method: not used "
	    "(a full-domain hash is used)\","
	    "\"" CP "role/host/0/evaluation_0: not used (Evaluation does not "
	    "run at a host)\"]");
}

static void an_arbiter_that_plays_along_is_noted(void **state)
{
	struct job *j = *state;
	_cleanup_free_ char *s = NULL;

	set(j->conf, "role/arbiter", "['10000']");
	check(j);
	assert_int_equal(j->d.n, 0);
	s = json_text(get(j->plan, "notes"), false);
	assert_string_equal(s, "[\"party 10000 plays host and arbiter: it can "
			       "read the guest's labels\"]");
	assert_int_equal(json_array_size(get(j->plan, "tasks")), 10);
}

static void a_slice_holds_what_is_the_partners(void **state)
{
	struct job *j = *state;
	_cleanup_free_ char *s = NULL;
	json_t *slice;

	set(j->conf, "role/host", "[10000, 10002]");
	set(j->conf, "component_parameters/role/host/1",
	    "{'reader_0': {'table': {'namespace': 'n', 'name': 'other'}}}");
	set(j->conf, "component_parameters/role/host/0|1",
	    "{'transform_0': {'label_name': 'both'}}");
	slice = conf_slice(j->conf, "10000");
	s = json_text(get(slice, "component_parameters/role"), false);
	assert_string_equal(
	    s, "{\"host\":{\"0\":{\"reader_0\":{\"table\":{\"name\":"
	       "\"breast_host\",\"namespace\":\"experiment\"}},"
	       "\"transform_0\":{\"with_label\":false}},"
	       "\"0|1\":{\"transform_0\":{\"label_name\":\"both\"}}}}");
	assert_true(json_equal(get(slice, "role"), get(j->conf, "role")));
	assert_true(json_equal(get(slice, "component_parameters/common"),
			       get(j->conf, "component_parameters/common")));
	assert_non_null(get(slice, "job_parameters"));
	json_decref(slice);
}

static void a_partner_plans_its_own_tasks_from_its_slice(void **state)
{
	struct job *j = *state;
	json_t *slice = conf_slice(j->conf, "10000"), *tasks;

	set(j->conf, "component_parameters/role/host/0", NULL);
	check(j);
	assert_non_null(strstr(said(j), "role/host/0/reader_0: the "));
	sb_free(&j->d.text);
	j->d = (struct defects){ 0 };
	j->plan = check_plan(j->dsl, slice, j->describe, "10000", "10000",
			     &j->d, NULL);
	assert_string_equal(said(j), "");
	tasks = get(j->plan, "tasks");
	assert_int_equal(json_array_size(tasks), 4);
	assert_string_equal(task_text(j->plan, 3),
			    "hetero_lr_0 HeteroLR host 10000 0 "
			    "conf#/component_parameters/common/hetero_lr_0");
	json_decref(slice);
}

static void a_partner_without_a_role_refuses(void **state)
{
	struct job *j = *state;

	j->plan = check_plan(j->dsl, j->conf, j->describe, "4711", "4711",
			     &j->d, NULL);
	assert_null(j->plan);
	assert_string_equal(j->d.text.buf,
			    "conf#/role: party 4711 has no role\n");
}

static void kinds_of_defects_are_told_apart(void **state)
{
	struct job *j = *state;

	defect_add(&j->d, EACCES, "conf#/role/host/0", "not allowed");
	assert_true(j->d.policy && !j->d.content && !j->d.route);
	defect_add(&j->d, EHOSTUNREACH, "conf#/role/host/0", "no answer");
	assert_true(j->d.route && !j->d.content);
	assert_string_equal(j->d.text.buf, "conf#/role/host/0: not allowed\n"
					   "conf#/role/host/0: no answer\n");
}

static void too_many_components_are_refused(void **state)
{
	struct job *j = *state;

	for (int i = 0; i < 300; i++) {
		char path[40];

		(void)snprintf(path, sizeof(path), "components/c%d", i);
		set(j->dsl, path, "{'module': 'Reader'}");
	}
	check(j);
	assert_string_equal(j->d.text.buf,
			    "dsl#/components: more than 200 components\n");
}

#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)

static void a_flood_is_refused_in_bounded_time_and_space(void **state)
{
	struct job *j = *state;
	json_t *refs = json_array(), *all = json_object();
	char word[40];

	for (int i = 0; i < 200000; i++) {
		(void)snprintf(word, sizeof(word), "x%d.y", i);
		json_array_append_new(refs, json_string(word));
		(void)snprintf(word, sizeof(word), "%d", i);
		json_object_set_new(all, word, json_object());
	}
	json_object_set(get(j->dsl, "components/hetero_lr_0/input/data"),
			"train_data", refs);
	json_object_set(get(j->conf, "component_parameters/role"), "host", all);
	json_object_set(get(j->conf, "component_parameters"), "common", all);
	check(j);
	assert_true(j->d.n > 300000);
	assert_true(j->d.text.len <= 65536);
	json_decref(refs);
	json_decref(all);
}

int main(void)
{
	const struct CMUnitTest t[] = {
		T(a_right_job_has_a_plan),
		T(every_defect_has_its_line),
		T(all_defects_come_at_once),
		T(tasks_beside_a_defect_can_be_judged),
		T(cross_validation_reads_training_rows_only),
		T(each_cycle_is_named_once),
		T(names_cannot_begin_lines_of_their_own),
		T(long_names_are_cut_between_characters),
		T(a_module_answers_to_other_spellings),
		T(order_is_by_inputs_and_not_by_place),
		T(params_are_merged_in_file_order),
		T(a_parameter_is_found_where_it_was_given),
		T(what_has_no_effect_is_named),
		T(an_arbiter_that_plays_along_is_noted),
		T(a_slice_holds_what_is_the_partners),
		T(a_partner_plans_its_own_tasks_from_its_slice),
		T(a_partner_without_a_role_refuses),
		T(kinds_of_defects_are_told_apart),
		T(too_many_components_are_refused),
		T(a_flood_is_refused_in_bounded_time_and_space),
	};

	return cmocka_run_group_tests(t, NULL, NULL);
}
