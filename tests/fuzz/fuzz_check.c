// SPDX-License-Identifier: Apache-2.0
/* A whole submission, checked as its initiator does and as a partner does
 * with its slice of the conf. */
#include "scheduler/check.h"
#include "scheduler/sched_priv.h"

static const char describe_text[] =
    "{\"components\": ["
    "{\"module\": \"Reader\", \"roles\": [\"guest\", \"host\"],"
    " \"outputs\": {\"data\": 1}, \"params\": [{\"name\": \"table\","
    "  \"type\": \"object\", \"required\": true, \"params\": ["
    "   {\"name\": \"name\", \"type\": \"string\", \"required\": true}]}]},"
    "{\"module\": \"LR\", \"aliases\": [\"L\"], \"roles\": [\"guest\","
    " \"host\", \"arbiter\"], \"needs_roles\": [\"guest\"],"
    " \"inputs\": {\"data\": [\"data\", \"train_data\", \"test_data\"],"
    "  \"model\": [\"model\"]}, \"outputs\": {\"data\": 2, \"model\": 1},"
    " \"params\": [{\"name\": \"a\", \"type\": \"number\", \"default\": 1,"
    "   \"min\": 0, \"open_min\": true, \"max\": 9},"
    "  {\"name\": \"e\", \"type\": \"enum\", \"default\": \"x\","
    "   \"choices\": [\"x\", \"y\"], \"nullable\": true},"
    "  {\"name\": \"i\", \"type\": \"int\", \"ignored\": true},"
    "  {\"name\": \"o\", \"type\": \"object\", \"default\": {},"
    "   \"params\": [{\"name\": \"b\", \"type\": \"bool\"}]}]}]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void once(const json_t *dsl, const json_t *conf, const json_t *describe,
		 const char *party)
{
	struct defects d = { 0 };
	json_t *rest = NULL, *t;
	json_t *plan =
	    check_plan(dsl, conf, describe, "9999", party, &d, &rest);
	size_t lines = 0, k;

	for (size_t i = 0; i < d.text.len; i++)
		lines += d.text.buf[i] == '\n';
	if (!plan == !d.n || (lines != d.n && !d.text.error))
		abort();
	if (plan && rest)
		abort();
	json_array_foreach (json_object_get(rest, "tasks"), k, t)
		if (!json_is_object(json_object_get(t, "params")))
			abort();
	json_decref(plan);
	json_decref(rest);
	sb_free(&d.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static json_t *describe;
	struct dsl_docs docs = { 0 };
	struct err e = { 0 };
	json_t *slice;

	if (!describe)
		describe = json_loads(describe_text, 0, NULL);
	if (dsl_parse((const char *)data, n, &docs, &e) != 1)
		return 0;
	once(docs.dsl, docs.conf, describe, NULL);
	slice = conf_slice(docs.conf, "10000");
	once(docs.dsl, slice, describe, "10000");
	json_decref(slice);
	dsl_docs_free(&docs);
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
