/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the table store: table_store.c owns generations, table_names.c
 * their names (and what both are: table_store_priv.h), table_read.c open
 * tables, table_view.c their CSV view, table_build.c new ones, which
 * table_sort.c sorts and table_sst.c writes; table_row.c knows what a row looks
 * like. */
#ifndef LIB_TABLE_PRIV_H
#define LIB_TABLE_PRIV_H

#include <pthread.h>
#include <rocksdb/c.h>
#include <stdatomic.h>

#include "lib/fileio.h"
#include "lib/json.h"
#include "lib/table.h"
#include "lib/table_stats.h"

#define INDEX_EVERY  (64u << 10) /* bytes of CSV between two index entries */
#define CSV_LINE_MAX (2u * TABLE_ROW_MAX + (1u << 18))

enum row_format {
	ROWS_CELLS, /* cell after cell, as numbers are kept */
	ROWS_TEXT,  /* all columns are strings: the CSV line behind the id */
};

struct index_entry {
	uint64_t offset; /* in the CSV view, of the line of key */
	uint32_t key_at; /* in the key arena */
	uint32_t key_len;
};

struct table {
	struct table_store *store;
	unsigned refs; /* under store->lock; 0 = only cached */
	struct table *next;
	uint64_t used;		   /* for the least recently used */
	_Atomic uint64_t named_at; /* number of changes when it had names */

	/* Constant after open. */
	uint64_t seq, gen;
	char *dir;
	int dir_fd; /* holds the shared flock */
	struct table_schema *schema;
	struct table_stats *stats; /* NULL: not known */
	uint64_t rows, csv_size;
	int64_t published_ms;
	char *header; /* CSV header line with its LF */
	size_t header_len;

	enum row_format format;
	struct index_entry *index;
	size_t n_index;
	char *keys;		   /* arena of the index */
	struct index_entry *parts; /* first row of each part */
	size_t n_parts;

	pthread_mutex_t lock; /* guards opening it, and what npy says */
	rocksdb_t *db;
	struct table_npy *npy; /* table_npy.c; NULL: nobody asked */
};

struct table_store {
	char *dir;
	pthread_mutex_t lock; /* guards all below and table.refs */
	struct table *open;
	uint64_t clock;
	struct collector *collector; /* table_collect.c; NULL: none */
	const _Atomic uint64_t *changes;
	_Atomic uint64_t rechecks;
};

/* Options for a small process: one small cache for all, LZ4. */
rocksdb_options_t *table_rocks_options(void);

char *table_header_line(const struct table_schema *s, size_t *ret_len);
size_t csv_field_size(const char *s, size_t n);

/* What rows of such a table are kept as. */
enum row_format row_format(const struct table_schema *s);
/* No more than so many bytes are put by row_put, which returns their number. */
size_t row_size_max(enum row_format f, const struct table_schema *s,
		    const struct cell *cells);
size_t row_put(enum row_format f, const struct table_schema *s,
	       const struct cell *cells, char *to);

/* As ROWS_CELLS, appended to sb. */
int row_encode(struct strbuf *sb, const struct table_schema *s,
	       const struct cell *cells);
/* -EIO when the bytes do not fit the schema. */
int row_decode(const struct table_schema *s, const char *data, size_t n,
	       struct cell *cells);

/* One row after the other back to cells and lines. */
struct row_view {
	enum row_format format;
	const struct table_schema *schema;
	struct cell *cells; /* of the row decoded last */
	struct strbuf text; /* of its fields that stand in quotes */
};
void row_view_init(struct row_view *v, enum row_format f,
		   const struct table_schema *s);
void row_view_free(struct row_view *v);
/* Into v->cells; -EIO when the bytes do not fit the schema. */
int row_view_decode(struct row_view *v, const char *data, size_t n);
/* The cells as numbers (cell_number()) into x[n_columns]; -EIO as above,
 * -EINVAL: one is no number. */
int row_view_numbers(struct row_view *v, const char *data, size_t n, double *x);
/* The row's CSV line appended to sb, and the size it would have. */
int row_view_line(struct row_view *v, struct strbuf *sb, const char *key,
		  size_t key_len, const char *data, size_t n);
int row_view_line_size(struct row_view *v, const char *key, size_t key_len,
		       const char *data, size_t n, size_t *ret);

/* pthread_create without signals, which are the main thread's; -errno. */
int table_thread(pthread_t *t, void *(*fn)(void *), void *arg);
/* Opens the database if it is not yet. */
int table_open_db(struct table *t, struct err *e) MUST_CHECK;
/* As table_next(), of a table of numbers: the row into x[n_columns]. */
int table_next_numbers(struct table_iter *it, const char **key, size_t *key_len,
		       double *x, struct err *e) MUST_CHECK;
/* For a scan: reads ahead, and leaves the cache to lookups. */
rocksdb_iterator_t *rocks_iterator(rocksdb_t *db);
/* The text of RocksDB as an error, freed; -EIO unless it tells of the disk or
 * of too many files. */
int table_rocks_error(struct err *e, const char *dir, char *text);
/* meta.json of a generation back to a schema. */
struct table_schema *schema_from_json(const json_t *o, struct err *e);

/* The directory building/<gen> becomes data/<seq>/<gen> and (ns, name) points
 * to it; the generation that was there before is deleted when unused. */
int table_publish_dir(struct table_store *s, const char *building, uint64_t gen,
		      const char *ns, const char *name,
		      struct err *e) MUST_CHECK;
/* Removes the generation if no name and no reader refers to it. */
void table_collect(struct table_store *s, uint64_t seq, uint64_t gen);
/* table_build_add of an upload's line, so that a duplicate can be named. */
int table_build_add_line(struct table_build *b, const char *key, size_t key_len,
			 const struct cell *cells, uint64_t line,
			 struct err *e) MUST_CHECK;
/* The same for a row of strings that are CSV already, without a field that
 * needs quotes; cut is what separates them. */
int table_build_add_text(struct table_build *b, const char *key, size_t key_len,
			 const char *text, size_t n, char cut, uint64_t line,
			 struct err *e) MUST_CHECK;

#endif
