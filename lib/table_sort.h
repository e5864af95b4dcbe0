/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to table_build.c and table_merge.c: rows in any order become rows in
 * order.
 *
 * They are collected in arenas.  A full arena is sorted and written as a run,
 * sorted rows in a file; runs are merged, by ranges of keys beside each other.
 * What comes out of a builder's goes to an SST writer, which also makes the
 * index of the CSV view.
 */
#ifndef LIB_TABLE_SORT_H
#define LIB_TABLE_SORT_H

#include <stdatomic.h>

#include "lib/table_priv.h"

#define ARENA_BYTES (16u << 20)
#define RUNS_MERGED 192 /* at a time at most: so many files are open */
#define ROW_SLACK   16	/* bytes that may be read behind a row's value */

struct row {
	const char *key, *val;
	uint32_t key_len, val_len;
	uint64_t line; /* of an upload, 0 otherwise */
};
typedef int (*row_fn)(void *arg, const struct row *row, struct err *e);

/* Errors never hold the key: they may end in a partner's log. */
int duplicate_id(uint64_t a, uint64_t b, struct err *e);

/* ---- arenas -------------------------------------------------------------- */

struct arena {
	char *buf; /* mapped, touched as it fills */
	size_t len, n;
	size_t top; /* of len since it was trimmed */
	bool in_order;
	struct sort_item *items, *spare;
	size_t n_items;
};
int arena_init(struct arena *a, struct err *e) MUST_CHECK;
void arena_free(struct arena *a);
void arena_reset(struct arena *a);
/* An empty one keeps no more memory than this. */
void arena_trim(struct arena *a, size_t limit);
/* Where a row's value may be put, of at most n bytes, before arena_add; NULL:
 * the arena is full. An empty one is never full; limit is at most ARENA_BYTES.
 */
char *arena_room(struct arena *a, size_t limit, size_t key_len, size_t n);
void arena_add(struct arena *a, const char *key, size_t key_len, size_t n,
	       uint64_t line);
/* Rows with the same key stay in the order in which they came. */
void arena_sort(struct arena *a);
/* Calls fn for the rows in their order, after arena_sort. */
int arena_rows(const struct arena *a, row_fn fn, void *arg,
	       struct err *e) MUST_CHECK;

/* ---- runs ---------------------------------------------------------------- */

struct run {
	char *path; /* NULL: it is a piece of a file that others have, too */
	int fd;	    /* while it is merged, else -1 */
	uint64_t base, size, rows;
	uint64_t order;	    /* of rows with the same key: the lower one first */
	size_t largest;	    /* bytes of a row */
	struct strbuf keys; /* about every 256 KiB: a key and its offset */
	struct run_mark *marks;
	size_t n_marks;
};
void run_free(struct run *r); /* the file too */
/* A row as a run has it, appended to sb, for runs that need no marks. */
int run_put(struct strbuf *sb, const struct row *row);
/* All or none; run_free closes. */
int runs_open(struct run *runs, size_t n, struct err *e) MUST_CHECK;

struct run_writer;
int run_writer_new(const char *path, struct run_writer **ret,
		   struct err *e) MUST_CHECK;
int run_writer_add(void *arg, const struct row *row, struct err *e) MUST_CHECK;
/* Frees w; r == 0: the run into ret. */
int run_writer_end(struct run_writer *w, int r, struct run *ret,
		   struct err *e) MUST_CHECK;

/* What others may look at and say while a table is built. */
struct merge_watch {
	const atomic_bool *stop, *failed; /* they end it; may be NULL */
	atomic_uint_least64_t *rows;
};
struct key_range {
	const char *from, *to; /* NULL: no end */
	size_t from_len, to_len;
};
/* Calls fn for the rows of the range in their order; keys that two runs have
 * come twice.  The runs are open; several threads may merge them. */
int runs_merge(const struct run *runs, size_t n, const struct key_range *range,
	       const struct merge_watch *watch, row_fn fn, void *arg,
	       struct err *e) MUST_CHECK;
/* n - 1 keys that cut the rows into n ranges of about equal size; they live as
 * long as the runs. Returns how many there are. */
size_t runs_split(const struct run *runs, size_t n_runs, size_t n,
		  struct key_range *ret);

/* ---- SST files ----------------------------------------------------------- */

struct sst_mark {
	uint64_t offset, row; /* of the CSV view of these rows alone */
	uint32_t key_at, key_len;
};
struct sst {
	const struct table_schema *schema;
	const char *dir;
	unsigned number; /* tells its files from those of others */
	struct row_view view;
	struct table_stats *stats;
	rocksdb_options_t *options;
	rocksdb_envoptions_t *env;
	rocksdb_sstfilewriter_t *writer;
	char **files;
	size_t n_files;
	uint64_t in_file; /* bytes of rows */
	uint64_t rows, csv, marked, every;
	struct sst_mark *marks;
	size_t n_marks, marks_alloc;
	struct strbuf keys;
	char last[TABLE_KEY_MAX];
	uint32_t last_len;
	uint64_t last_line;
};
void sst_init(struct sst *w, const struct table_schema *s, const char *dir,
	      unsigned number);
/* A row_fn of a struct sst: rows in order; -EEXIST for the key of the row
 * before. */
int sst_add(void *arg, const struct row *row, struct err *e) MUST_CHECK;
int sst_finish(struct sst *w, struct err *e) MUST_CHECK;
void sst_free(struct sst *w);

/* A database in dir/rocksdb that takes over the files of n writers. */
int sst_open(struct sst *w, size_t n, const char *dir, rocksdb_t **ret,
	     struct err *e) MUST_CHECK;
/* The files of n writers, in the order of their keys, become dir/rocksdb and
 * dir/index; *ret_csv is the size of the CSV view. */
int sst_publish(struct sst *w, size_t n, const struct table_schema *s,
		const char *dir, uint64_t *ret_csv, struct err *e) MUST_CHECK;

#endif
