/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the table store: table_store.c owns names and generations,
 * table_read.c open tables, table_build.c new ones. */
#ifndef LIB_TABLE_PRIV_H
#define LIB_TABLE_PRIV_H

#include <pthread.h>
#include <rocksdb/c.h>

#include "lib/fileio.h"
#include "lib/json.h"
#include "lib/table.h"
#include "lib/table_stats.h"

#define INDEX_EVERY  (64u << 10) /* bytes of CSV between two index entries */
#define CSV_LINE_MAX (2u * TABLE_ROW_MAX + (1u << 18))

struct index_entry {
	uint64_t offset; /* in the CSV view, of the line of key */
	uint32_t key_at; /* in the key arena */
	uint32_t key_len;
};

struct table {
	struct table_store *store;
	unsigned refs; /* under store->lock; 0 = only cached */
	struct table *next;
	uint64_t used; /* for the least recently used */

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

	pthread_mutex_t lock; /* guards all below */
	rocksdb_t *db;
	struct index_entry *index;
	size_t n_index;
	char *keys;		   /* arena of the index */
	struct index_entry *parts; /* first row of each part */
	size_t n_parts;
	struct {
		rocksdb_iterator_t *it;
		uint64_t offset;    /* of line.buf[at] in the CSV view */
		struct strbuf line; /* what was rendered and not yet given */
		size_t at;
	} cursor;
};

struct table_store {
	char *dir;
	pthread_mutex_t lock; /* guards all below and table.refs */
	struct table *open;
	uint64_t clock;
};

/* Options for a small process: tiny caches, one background job, LZ4. */
rocksdb_options_t *table_rocks_options(void);

char *table_header_line(const struct table_schema *s, size_t *ret_len);
/* One CSV line of a row appended to sb. */
int table_csv_line(struct strbuf *sb, const struct table_schema *s,
		   const char *key, size_t key_len, const struct cell *cells);
int row_encode(struct strbuf *sb, const struct table_schema *s,
	       const struct cell *cells);
/* -EIO when the bytes do not fit the schema. */
int row_decode(const struct table_schema *s, const char *data, size_t n,
	       struct cell *cells);
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

#endif
