/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the check share: check.c (defects, names, the plan),
 * dag.c (the DSL), check_conf.c and conf_select.c (the conf), params.c
 * (parameters).
 */
#ifndef SCHEDULER_CHECK_PRIV_H
#define SCHEDULER_CHECK_PRIV_H

#include "lib/json.h"

#include "scheduler/check.h"
#include "scheduler/sched_priv.h"

#define COMPONENTS_MAX 200  /* of a job */
#define PARTIES_MAX    64   /* of a role */
#define TASKS_MAX      5000 /* of a job, all parties */
#define NAME_MAX_LEN   100  /* of a component or an output */

/* A JSON pointer; overlong ones are cut. */
struct at {
	char s[640];
};
struct at at_root(const char *document);
/* One step down, escaped as RFC 6901 says. */
struct at at_add(const struct at *a, const char *step);
struct at at_index(const struct at *a, size_t i);

struct check {
	const json_t *dsl, *conf, *describe;
	const char *own, *party;
	struct defects *d;
	json_t *plan;
	json_t *ignored, *notes; /* lists of the plan, borrowed */
	json_t *specs;		 /* component -> what its module describes */
	json_t *unsound;	 /* components with defects in parameters */
	bool too_many;		 /* to look at every task */
	bool predict;		 /* job_type predict */
};

/* The roles in the order in which tasks are listed. */
extern const char *const check_roles[4];

bool check_name_valid(const char *s);
/* " (did you mean x?)" into buf, "" if nothing is near; names are the members
 * of an object or the strings of an array.  Returns buf. */
const char *check_hint(struct check *c, const char *word, const json_t *names,
		       char *buf, size_t n);
#define HINT_MAX 160
/* Defects for members that are in none of the NULL-terminated list. */
void check_members(struct check *c, const json_t *o, const struct at *at,
		   const char *const *known);
/* "<at>: not used (<why>)" to the list, up to a limit. */
void ignored_add(json_t *list, const struct at *at, const char *why);
bool list_has(const json_t *list, const char *word);

/* dag.c: components, order and specs of the plan. */
void check_dsl(struct check *c);
/* check_conf.c: initiator, roles, job parameters; then, after the DSL, the
 * component parameters and the tasks. */
void check_head(struct check *c);
void check_components(struct check *c);

/* By its name, an alias, or either in other letters' case; NULL. */
json_t *module_find(const json_t *describe, const char *word);

/* conf_select.c: a conf as it was written. "" if it is no party's id. */
void conf_party_text(const json_t *v, char *buf, size_t n);
/* The next index of "0|1" at *s, which moves on; -1 if that is none. */
long conf_next_index(const char **s);
bool conf_selector_valid(const char *s);
bool conf_selector_has(const char *s, size_t index);
/* Valid, and every index is somebody's? */
bool conf_selector_fits(const char *s, size_t members);
/* Objects deep, everything else replaces. */
void conf_merge(json_t *into, const json_t *from);
/* What was given for one task: common, then its selectors. Caller owns. */
json_t *conf_params(const json_t *conf, const char *role, size_t index,
		    const char *component);
/*
 * Does the component of a DSL work with an arbiter?  One that only predicts
 * does not, unless it hides the scores.
 */
bool check_needs_arbiter(const json_t *conf, const json_t *describe,
			 const char *name, const json_t *component);

/* params.c: values that were given, each by itself (unknown names, types,
 * ranges); parameters that have no effect are added to ignored (or NULL). */
void params_given(const json_t *specs, const json_t *given, const struct at *at,
		  struct defects *d, json_t *ignored);
/* Complete parameters, a new reference; what is required and missing is a
 * defect at `at`.  NULL when out of memory. */
json_t *params_fill(const json_t *specs, const json_t *given, const char *at,
		    struct defects *d);

#endif
