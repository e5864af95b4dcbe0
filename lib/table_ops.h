/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What components do with whole tables, by partition and on several threads.
 * FATE 2 reduces Eggroll's tables to four operations on bytes
 * (fate/arch/computing: map_reduce_partitions_with_index,
 * binary_sorted_map_partitions_with_index, reduce, take/collect); they are
 * here, on typed rows, and with them a table of numbers as a matrix.
 *
 * The partitions of a table are contiguous ranges of its ids, table_parts() of
 * them, so "in order" means partition by partition and by id within, which is
 * the order of the whole table.  Results are the same, to the bit, for any
 * number of threads: what is combined is combined in this order, and of
 * several errors the one of the first partition is reported.
 *
 * Memory: a few rows a thread; for outputs that are merged 8 MiB of rows a
 * thread, and as much again, twice if they are small, while they are sorted and
 * written.  The rest goes to a file of the store that has no name.
 *
 * Outputs go to a builder that the caller began with the schema of the result
 * (and publishes, or aborts when an operation failed).  What was done stands
 * in its lineage: {"operation": "join", "generations": [7, 9]}, until
 * ctx_put_table() puts the task's own in its place, "operation" included.
 */
#ifndef LIB_TABLE_OPS_H
#define LIB_TABLE_OPS_H

#include <stdatomic.h>

#include "lib/table.h"

/* How to run; NULL = on the caller's thread to its end. */
struct table_run {
	unsigned threads;	   /* the caller's included; 0 is 1 */
	const atomic_bool *cancel; /* NULL; when it turns true: -ECANCELED */
};

/* ---- one row after the other ------------------------------------------- */

/* Calls fn for each row in order, until it fails. */
int table_each(struct table *t,
	       int (*fn)(void *arg, const char *key, size_t len,
			 const struct cell *cells, struct err *e),
	       void *arg, struct err *e) MUST_CHECK;
/* The first n rows (none for 0). */
int table_take(struct table *t, uint64_t n,
	       int (*fn)(void *arg, const char *key, size_t len,
			 const struct cell *cells, struct err *e),
	       void *arg, struct err *e) MUST_CHECK;

/* ---- by partition ------------------------------------------------------ */

/* The rows of one partition, in order. */
struct table_rows;
/* 1 = a row, 0 = end, negative errno.  key and cells live until the next
 * call. */
int table_rows_next(struct table_rows *in, const char **key, size_t *len,
		    const struct cell **cells, struct err *e) MUST_CHECK;

/* Where a partition's results go; the cells are copied. */
struct table_out;
int table_out_add(struct table_out *out, const char *key, size_t len,
		  const struct cell *cells, struct err *e) MUST_CHECK;

/* Called once a partition, side by side; a table without rows is one empty
 * partition.  It need not read all of its rows. */
typedef int table_map_fn(void *arg, unsigned partition, struct table_rows *in,
			 struct table_out *out, struct err *e);
/* Two rows with the same key become one: sum takes next in.  Must be
 * associative.  Strings that it puts into sum live until it is called again on
 * this thread. */
typedef int table_merge_fn(void *arg, const char *key, size_t len,
			   struct cell *sum, const struct cell *next,
			   struct err *e);

/*
 * map makes rows of rows, with the same keys or others; rows that get the same
 * key are merged in order of partition and of appearance in it.  Without merge
 * a key that appears twice is an error, at the latest at publishing (-EEXIST).
 */
int table_map_reduce(struct table *t, const struct table_run *run,
		     table_map_fn *map, table_merge_fn *merge, void *arg,
		     struct table_build *out, struct err *e) MUST_CHECK;

/* Called once for each range of ids, with the rows of both tables in it; the
 * ranges are the partitions of the table with more rows.  Each key is given to
 * out at most once. */
typedef int table_binary_fn(void *arg, unsigned partition, struct table_rows *a,
			    struct table_rows *b, struct table_out *out,
			    struct err *e);
int table_binary_map(struct table *a, struct table *b,
		     const struct table_run *run, table_binary_fn *fn,
		     void *arg, struct table_build *out,
		     struct err *e) MUST_CHECK;

/* Makes the row of the result (cells has out's columns, zeroed) of a row of
 * a and a row of b with the same key. */
typedef int table_pair_fn(void *arg, const char *key, size_t len,
			  const struct cell *a, const struct cell *b,
			  struct cell *cells, struct err *e);
/* Rows of ids that both have. */
int table_join(struct table *a, struct table *b, const struct table_run *run,
	       table_pair_fn *pair, void *arg, struct table_build *out,
	       struct err *e) MUST_CHECK;
/* Rows of a and of b, whose columns are those of out; of an id that both have
 * pair's (NULL: a's). */
int table_union(struct table *a, struct table *b, const struct table_run *run,
		table_pair_fn *pair, void *arg, struct table_build *out,
		struct err *e) MUST_CHECK;
/* Rows of a with ids that b does not have. */
int table_subtract(struct table *a, struct table *b,
		   const struct table_run *run, struct table_build *out,
		   struct err *e) MUST_CHECK;

/*
 * One value of all rows: a state of `size` bytes for each partition, zeroed,
 * that fold takes row after row into; combine then takes them, partition after
 * partition, into sum, which is the caller's (and not zeroed here).
 */
int table_reduce(struct table *t, const struct table_run *run, size_t size,
		 int (*fold)(void *arg, void *state, const char *key,
			     size_t len, const struct cell *cells,
			     struct err *e),
		 void (*combine)(void *arg, void *sum, const void *state),
		 void *arg, void *sum, struct err *e) MUST_CHECK;

/* ---- numbers ----------------------------------------------------------- */

/* A cell as a number: NaN = missing (also as text: table_stats.h).  -EINVAL:
 * text that is none. */
int cell_number(const struct cell *c, double *ret) MUST_CHECK;

/*
 * Columns of a table as rows of doubles, `n` a row, one block after the other.
 * Text must be numbers: -EINVAL names the row (1 = the first) and the column.
 * columns is copied.
 */
struct table_matrix;
int table_matrix_begin(struct table *t, const size_t *columns, size_t n,
		       struct table_matrix **ret, struct err *e) MUST_CHECK;
/* Up to max rows into x[max * n], row-major: how many, 0 at the end. */
ssize_t table_matrix_next(struct table_matrix *m, double *x, size_t max,
			  struct err *e) MUST_CHECK;
void table_matrix_end(struct table_matrix *m);
/* All of them into x[table_rows(t) * n]. */
int table_matrix_read(struct table *t, const size_t *columns, size_t n,
		      const struct table_run *run, double *x,
		      struct err *e) MUST_CHECK;

#endif
