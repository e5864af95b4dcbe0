/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the scheduler share.
 */
#ifndef SCHEDULER_SCHED_PRIV_H
#define SCHEDULER_SCHED_PRIV_H

#include "lib/strbuf.h"

#include "scheduler/scheduler.h"

#define SUBMIT_MAX ((size_t)4 << 20) /* bytes of one submission */

/* The two documents of a submission, owned; dsl is NULL when the conf is that
 * of a predict job and came alone. */
struct dsl_docs {
	json_t *dsl, *conf;
};
/*
 * 1 and the documents when the text is a whole submission, 0 while it is
 * unfinished, negative errno with "line L column C: ..." if it never will be.
 */
int dsl_parse(const char *text, size_t n, struct dsl_docs *ret, struct err *e);
void dsl_docs_free(struct dsl_docs *d);

/* The name nearest to the word, NULL if none is near. */
const char *suggest(const char *word, const char *const *names, size_t n);
/*
 * The complete parameters (defaults filled in), a new reference, NULL when
 * out of memory; defects get a line each, pointer (beginning with at) first.
 */
json_t *params_check(const json_t *specs, json_t *given, const char *at,
		     struct strbuf *defects);

#endif
