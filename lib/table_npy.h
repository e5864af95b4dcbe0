/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table as files that numpy maps (NPY format 1.0, numpy/lib/format.py):
 *
 *   the matrix    tables of numbers only: float64, rows x columns, C order
 *   a column      one-dimensional: '<i8' what is integers, '<f8' other numbers
 *                 (missing = NaN), '|S<width>' text: UTF-8, padded with NUL
 *   the ids       like a column of text
 *
 * Names and sizes come from the schema and from what was noted while the table
 * was built (table_stats.h), without a look at its rows.  The bytes come from
 * a file without a name that the first read makes in one pass over the rows;
 * it lives as long as the open table does.  There are three: the matrix as it
 * is read; all columns of numbers; ids and text.  The latter hold the rows in
 * groups, column after column in each, so that neither making one nor reading
 * a column of it needs much memory or many seeks.
 */
#ifndef LIB_TABLE_NPY_H
#define LIB_TABLE_NPY_H

#include "lib/table_ops.h"
#include "lib/table_stats.h"

#define TABLE_NPY_TEXT_MAX 256 /* bytes of the widest cell of text offered */

/* Which file. */
enum {
	TABLE_NPY_MATRIX,
	TABLE_NPY_ID,
	TABLE_NPY_COLUMN0, /* + number of the column */
};

/* How many numbers there are: every which is below. */
unsigned table_npy_files(const struct table *t);
/* Is this generation all numbers?  Of its name alone, without opening it. */
bool table_npy_matrix(struct table_store *s, const struct table_id *id);
/* Of table_build.c: makes the answer that. */
int table_npy_mark(const char *dir, const struct table_schema *s,
		   const struct table_stats *st, struct err *e) MUST_CHECK;
/* "<column>.npy", escaped; NULL: not offered (also the matrix, which has no
 * such name).  Caller frees. */
char *table_npy_name(struct table *t, unsigned which);
/* -ENOENT, without text, when no file is called so. */
int table_npy_find(struct table *t, const char *name, unsigned *ret);
/* Exact.  -ENOENT: not offered, and why. */
int table_npy_size(struct table *t, unsigned which, uint64_t *ret,
		   struct err *e) MUST_CHECK;
/* Would a read of these bytes begin with a pass over the rows? */
bool table_npy_ready(struct table *t, unsigned which, uint64_t offset,
		     size_t n);
/* Files of one pass have the same number. */
unsigned table_npy_pass(struct table *t, unsigned which);
/* Makes it so; two that want the same wait for one pass. */
int table_npy_prepare(struct table *t, unsigned which,
		      const struct table_run *run, struct err *e) MUST_CHECK;
/* Bytes at an offset, prepared when need be: count, 0 at the end, -errno. */
ssize_t table_npy_read(struct table *t, unsigned which, uint64_t offset,
		       void *buf, size_t n, struct err *e);

/* Of table_read.c, when a table is closed. */
struct table_npy;
void table_npy_free(struct table_npy *x);

#endif
