// SPDX-License-Identifier: Apache-2.0
/* A submission taken for a training that is deployed: whatever it says, the
 * deduced DSL names only what it has, and the conf above it can be checked. */
#include "scheduler/model_priv.h"
#include "scheduler/sched_priv.h"

static const char describe_text[] =
    "{\"components\": ["
    "{\"module\": \"Reader\", \"roles\": [\"guest\", \"host\"],"
    " \"outputs\": {\"data\": 1}, \"params\": [{\"name\": \"table\","
    "  \"type\": \"object\", \"required\": true}]},"
    "{\"module\": \"LR\", \"roles\": [\"guest\", \"host\", \"arbiter\"],"
    " \"needs_roles\": [\"guest\", \"arbiter\"],"
    " \"inputs\": {\"data\": [\"data\", \"train_data\", \"test_data\"],"
    "  \"model\": [\"model\"]}, \"outputs\": {\"data\": 2, \"model\": 1},"
    " \"params\": []}]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static json_t *all_of(const json_t *dsl)
{
	json_t *ret = json_array(), *v;
	const char *name;
	bool every = true;

	json_object_foreach (json_object_get(dsl, "components"), name, v) {
		if (every)
			json_array_append_new(ret, json_string(name));
		every = !every; /* the others are bypassed */
	}
	return ret;
}

static void deploy(const json_t *train, const json_t *conf,
		   const json_t *describe)
{
	json_t *chosen = all_of(train), *dsl, *blank, *merged, *plan, *v;
	struct defects d = { 0 };
	const char *name;

	predict_add_readers(train, chosen);
	dsl = predict_dsl_deduce(train, chosen);
	json_object_foreach (json_object_get(dsl, "components"), name, v)
		if (!json_object_get(json_object_get(train, "components"),
				     name) ||
		    json_object_get(json_object_get(v, "output"), "model"))
			abort();
	blank = predict_template(conf, dsl, describe, "guest-1#model",
				 "20261123120000123456");
	merged = predict_conf_merge(conf, blank ? blank : conf, dsl);
	plan = check_plan(dsl, merged, describe, "9999", NULL, &d, NULL);
	if (!plan == !d.n)
		abort();
	json_decref(plan);
	json_decref(merged);
	json_decref(blank);
	json_decref(dsl);
	json_decref(chosen);
	sb_free(&d.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static json_t *describe;
	struct dsl_docs docs = { 0 };
	struct err e = { 0 };

	if (!describe)
		describe = json_loads(describe_text, 0, NULL);
	if (dsl_parse((const char *)data, n, &docs, &e) != 1)
		return 0;
	if (docs.dsl)
		deploy(docs.dsl, docs.conf, describe);
	dsl_docs_free(&docs);
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
