/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is this DSL and conf a job?  Everything that can be known without asking a
 * partner or the disk: all defects are collected, none ends the check.
 * Nothing here keeps state; every function may be called from any thread.
 *
 * The plan, which check_plan() returns and the scheduler works from:
 *   { "initiator": {"role", "party"},
 *     "roles": {"guest": ["9999"], ...},               ids are strings
 *     "job": {"job_type", "task_cores", "task_parallelism",
 *             "computing_partitions", "auto_retries", "auto_retry_delay",
 *             "timeout"; "model_id", "model_version" of a predict job;
 *             "inheritance_info"},
 *     "ignored": ["conf#/...: not used ...", ...],     for the job's events
 *     "notes": ["party 10000 plays ...", ...],         the same
 *     "order": ["reader_0", ...],                      topological
 *     "components": {"reader_0": {"module",
 *         "data_inputs": {"data": [{"component", "output"}]},
 *         "model_inputs": {"model": [{"component", "output"}]}, "stored":
 *             true when the model is that of model_version,
 *         "data_outputs": ["data"], "model_outputs": ["model"],
 *         "upstream": ["..."]}},
 *     "tasks": [{"component", "module", "role", "party", "index",
 *                "params": {complete}, "pointer": "conf#/..."}] }
 */
#ifndef SCHEDULER_CHECK_H
#define SCHEDULER_CHECK_H

#include <jansson.h>

#include "lib/strbuf.h"

/* Lines "pointer: sentence" in text; what kinds of defects there are. */
struct defects {
	struct strbuf text;
	unsigned n;
	bool content, policy, route;
};

/* no: EINVAL (content), EACCES (policy) or EHOSTUNREACH (route). */
void defect_add(struct defects *d, int no, const char *pointer, const char *fmt,
		...) PRINTF(4, 5);

/* need_run, which rollfs-task knows for every module that reads rows, to the
 * modules that do not list it. */
void describe_complete(json_t *describe);

/*
 * Everything about dsl and conf that can be known without asking anybody.
 * party NULL: the parameters of all tasks are checked (the initiator); else
 * only those of that party's tasks (a partner, whose conf is a slice).
 * describe is the document of rollfs-task --describe (docs/internals.md).
 * The plan (caller owns), or NULL when defects were added; then ret_rest (NULL
 * is allowed) gets what is sound of it, whose tasks are those of components
 * without a defect in their parameters: they can be judged, too.
 */
json_t *check_plan(const json_t *dsl, const json_t *conf,
		   const json_t *describe, const char *own_party,
		   const char *party, struct defects *d, json_t **ret_rest);

bool plan_predicts(const json_t *plan);

/*
 * Where a parameter of a task ("early_stop", "rsa_params/key_length") was
 * given: what to put in front of a defect that rollfs-task --check found.
 * Caller frees; NULL when out of memory.
 */
char *check_param_pointer(const json_t *conf, const json_t *task,
			  const char *relative);

/*
 * What a partner receives: the conf with component_parameters.common and its
 * own roles' sections only (selectors that match its index), nothing of the
 * others' sections; roles, initiator, job_parameters whole.
 */
json_t *conf_slice(const json_t *conf, const char *party);

#endif
