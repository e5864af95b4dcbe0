/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The different values of a label column, at most LABELS_MAX: counted while
 * rows are read, then sorted.  Numbers of any cell type are one value when
 * they are equal; text that is a number (as JSON's keys must be) is matched
 * with it.
 */
#ifndef COMPONENTS_LABELS_H
#define COMPONENTS_LABELS_H

#include <jansson.h>

#include "lib/err.h"
#include "lib/table.h"

#define LABELS_MAX 1000

struct label {
	char *text; /* NULL = a number */
	double num;
	uint64_t count;
};

struct labels {
	struct label *v;
	size_t n;
	size_t last; /* found last */
};

void labels_free(struct labels *l);
#define _cleanup_labels_ _cleanup_(labels_free)
/* Counts a cell's value; ret (may be NULL) is its number.  -EINVAL for an
 * empty cell and for one value too many. */
int labels_add(struct labels *l, const struct cell *x, uint32_t *ret,
	       struct err *e) MUST_CHECK;
/* -1 when there is none like it. */
ssize_t labels_find(const struct labels *l, const struct cell *x);
/* The value that a JSON number or word means; -1. */
ssize_t labels_find_json(const struct labels *l, const json_t *v);
/* Numbers first, then text, ascending; ret_new[old number] = new number has
 * room for l->n, or is NULL. */
void labels_sort(struct labels *l, uint32_t *ret_new);
/* "1", "0.5", "benign"; caller frees. */
char *label_name(const struct label *x);
json_t *label_json(const struct label *x); /* number or string */
/* {"0": count, ...} */
json_t *labels_counts(const struct labels *l);

#endif
