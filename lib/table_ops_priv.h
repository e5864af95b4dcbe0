/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the operations: table_ops.c runs them, table_merge.c merges rows
 * with the same key, table_matrix.c makes numbers of rows. */
#ifndef LIB_TABLE_OPS_PRIV_H
#define LIB_TABLE_OPS_PRIV_H

#include "lib/table_ops.h"
#include "lib/table_priv.h"

/* A range of ids; from and to NULL: from the first, to the last. */
struct table_range {
	const char *from, *to;
	size_t from_len, to_len;
};

unsigned table_ranges(const struct table *t);
struct table_range table_range_at(const struct table *t, unsigned k);
/* The number of the range's first row; table_rows(t) behind the last one. */
uint64_t table_range_row(const struct table *t, unsigned k);

/* What the partitions of one operation have in common. */
struct table_job {
	const struct table_run *run;
	atomic_uint next, failed; /* the first partition that failed */
};
/* Is this partition's work in vain? */
bool table_job_stopped(const struct table_job *j, unsigned partition);
int table_rows_begin(struct table *t, struct table_range range,
		     const struct table_job *j, unsigned partition,
		     struct table_rows **ret, struct err *e) MUST_CHECK;
/* As table_rows_next(), of a table of numbers: the row into x[n_columns]. */
int table_rows_numbers(struct table_rows *in, double *x,
		       struct err *e) MUST_CHECK;
void table_rows_end(struct table_rows *in);
/* Calls fn for 0..n-1 on the run's threads. */
int table_job_run(struct table_job *j, unsigned n,
		  int (*fn)(void *arg, unsigned k, struct err *e), void *arg,
		  struct err *e) MUST_CHECK;

/* A file of the store that has no name and goes with its descriptor. */
int table_temp_file(struct table_store *s, int *ret_fd,
		    struct err *e) MUST_CHECK;

/* Rows of all partitions on their way to one sorted stream without equal
 * keys. */
struct table_merge;
int table_merge_begin(struct table_store *s, const struct table_schema *schema,
		      table_merge_fn *fn, void *arg, struct table_merge **ret,
		      struct err *e) MUST_CHECK;
/* One partition's part; used by one thread. */
struct table_merge_part *table_merge_part(struct table_merge *m,
					  unsigned partition);
int table_merge_add(struct table_merge_part *p, const char *key, size_t len,
		    const struct cell *cells, struct err *e) MUST_CHECK;
/* Nothing comes any more from this part; frees it, also when it failed. */
int table_merge_close(struct table_merge_part *p, struct err *e) MUST_CHECK;
/* After all parts were closed. */
int table_merge_out(struct table_merge *m, const struct table_job *j,
		    struct table_build *out, struct err *e) MUST_CHECK;
void table_merge_end(struct table_merge *m);

#endif
