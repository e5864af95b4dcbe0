/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table store: (namespace, name) -> rows of key -> fields, one RocksDB
 * directory per generation.  The only code that includes RocksDB.
 *
 *   STORE/names/<namespace>/<name>   JSON {"id": n, "data": "<seq>/<gen>"},
 *                                    names escaped by table_escape()
 *   STORE/data/<seq>/<gen>/          meta.json, index, rocksdb/, refs/<...>
 *   STORE/attrs/<id>                 what chmod, chown and setfattr left
 *   STORE/counter                    persistent number, never reused
 *   STORE/building/                  half-built, swept at start
 *   STORE/damaged/<id>               a name's file that could not be read
 *
 * A published generation never changes.  Replacing a table publishes the next
 * one; readers of the old one keep it; it is deleted when no name and no open
 * reader (flock on the generation's directory, any process) refers to it.
 * Several names may share one generation (a cheap copy).  Any process may
 * read and publish; publishing is serialised by a lock file.
 *
 * Rows come in byte order of the key (UTF-8, 1..1024 bytes).  A row is one
 * cell per column; the key is not a column.
 */
#ifndef LIB_TABLE_H
#define LIB_TABLE_H

#include <jansson.h>
#include <stdatomic.h>

#include "lib/err.h"
#include "lib/strbuf.h"

#define TABLE_KEY_MAX	  1024
#define TABLE_COLUMNS_MAX 10000
#define TABLE_ROW_MAX	  (1u << 20)
#define TABLE_NAME_MAX	  200 /* of a namespace or name, before escaping */

/* The order of rows. */
static inline int key_compare(const char *a, size_t an, const char *b,
			      size_t bn)
{
	int c = memcmp(a, b, MIN(an, bn));

	return c ? c : (an > bn) - (an < bn);
}

struct table_store;
struct table;
struct table_iter;
struct table_build;

enum cell_type { CELL_STRING, CELL_F64, CELL_I64 };

struct cell {
	enum cell_type type;
	double f64; /* NaN = missing (an empty field in the CSV view) */
	int64_t i64;
	const char *str; /* not terminated; valid until the next row */
	size_t len;
};

struct table_column {
	char *name;
	enum cell_type type; /* JSON "string", "f64", "i64" */
	char *anonymous;     /* NULL until a DataTransform or Reader made it */
};

struct table_schema {
	char *id;	/* header name of the key column */
	char *label;	/* name of the label column, NULL = none */
	char *weight;	/* of the column of sample weights, or NULL */
	char *match_id; /* of the column of match ids, or NULL */
	struct table_column *columns; /* label included, in CSV order */
	size_t n_columns;
	unsigned partitions;
	char *content_type; /* NULL or e.g. "predict_result", "instances" */
	json_t *lineage;    /* NULL or object: which task made it from what */
	json_t *extra;	    /* NULL or object: anything a component keeps */
};

struct table_schema *schema_new(void);
void schema_free(struct table_schema *s);
struct table_schema *schema_dup(const struct table_schema *s);
void schema_add_column(struct table_schema *s, const char *name,
		       enum cell_type type, const char *anonymous);
ssize_t schema_find(const struct table_schema *s, const char *name);
/* Column i is neither label nor weight nor match id. */
bool schema_is_feature(const struct table_schema *s, size_t i);
/* schema.json of the mount; rows adds "count". */
json_t *schema_to_json(const struct table_schema *s, uint64_t rows);

/* dir is made when missing. */
int table_store_open(const char *dir, struct table_store **ret,
		     struct err *e) MUST_CHECK;
void table_store_close(struct table_store *s);
/* From now on a thread removes the rows of names that go, some time after;
 * a power cut may bring the last of them back. */
int table_store_collect_aside(struct table_store *s, struct err *e) MUST_CHECK;
/* Another number after each change of what a name means, by any process; what
 * was read after the number was, is true as long as it stays.  0: read again.
 */
uint64_t table_store_changes(const struct table_store *s);
/* The number changes, here: somebody may have died before he counted. */
void table_store_recheck(struct table_store *s);

/* What the sweep has found. */
struct table_swept {
	uint64_t *numbers; /* of all tables and namespaces, ascending */
	size_t n;
	bool unsure;	    /* a name is damaged: more numbers are in use */
	struct strbuf told; /* a line for each name that was put aside */
};
void table_swept_free(struct table_swept *x);
bool table_swept_has(const struct table_swept *x, uint64_t number);
/*
 * At the start of rollfs, before tasks run: half-built generations of dead
 * processes and generations nothing refers to are removed.  A name whose file
 * is damaged becomes an empty table; the file lies in damaged/ until that table
 * is dropped or written, and so long no rows are removed.  ret may be NULL.
 */
int table_store_sweep(struct table_store *s, struct table_swept *ret,
		      struct err *e) MUST_CHECK;
/* The next n numbers of the store's persistent counter; 1 <= first. Jobs and
 * their tasks take theirs here too (inode numbers of the mount). */
int table_store_numbers(struct table_store *s, uint64_t n, uint64_t *ret_first,
			struct err *e) MUST_CHECK;
/* Percent-escape a component of a path ('/', '%', leading '.', control). */
char *table_escape(const char *s);
char *table_unescape(const char *s);
/* UTF-8, 1..TABLE_NAME_MAX bytes, not "." or "..", no control character. */
bool table_name_valid(const char *s);
bool utf8_valid(const char *s, size_t n);

struct table_id {
	uint64_t id;  /* of the name; constant while the name exists */
	uint64_t gen; /* of its present generation; 0 = empty (mkdir only) */
	uint64_t made_by;   /* id of the name the generation was published as */
	int64_t changed_ns; /* when it was published, emptied or made */
};
/* -ENOENT without error text when there is none. */
int table_lookup(struct table_store *s, const char *ns, const char *name,
		 struct table_id *ret, struct err *e) MUST_CHECK;
/* Calls fn for each namespace (ns == NULL) or each table of one, sorted. */
int table_list(struct table_store *s, const char *ns,
	       int (*fn)(void *arg, const char *name), void *arg,
	       struct err *e) MUST_CHECK;
/* An empty table (no generation): what mkdir makes. -EEXIST. */
int table_create_empty(struct table_store *s, const char *ns, const char *name,
		       struct table_id *ret, struct err *e) MUST_CHECK;
int namespace_create(struct table_store *s, const char *ns, uint64_t *ret_id,
		     struct err *e) MUST_CHECK;
int namespace_remove(struct table_store *s, const char *ns,
		     struct err *e) MUST_CHECK; /* -ENOTEMPTY */
int namespace_id(struct table_store *s, const char *ns, uint64_t *ret_id);
/* When a table in it was made, published or removed last. */
int namespace_changed(struct table_store *s, const char *ns, int64_t *ret_ns);
/* With all its tables; -ENOTEMPTY when to has some. */
int namespace_move(struct table_store *s, const char *ns, const char *to,
		   struct err *e) MUST_CHECK;

/*
 * Attributes that are kept for a table or namespace, by its number; they go
 * with it.  -1, and 0 for times, means what is usual.
 */
#define TABLE_XATTRS_MAX (64u << 10) /* names and values of one object */
struct table_attrs {
	int mode, data_mode; /* of the directory and of its data.csv, 07777 */
	int64_t uid, gid;
	/* Of data.csv, in place of when it was published, while mtime_gen is
	 * its generation. */
	int64_t mtime_ns;
	uint64_t mtime_gen;
	json_t *xattrs; /* NULL or name -> value in hexadecimal */
};
#define _cleanup_table_attrs_ _cleanup_(table_attrs_free)
void table_attrs_free(struct table_attrs *a);
int table_attrs_load(struct table_store *s, uint64_t id,
		     struct table_attrs *ret, struct err *e) MUST_CHECK;
int table_attrs_store(struct table_store *s, uint64_t id,
		      const struct table_attrs *a, struct err *e) MUST_CHECK;
/* All is as it was made. */
bool table_attrs_unset(const struct table_attrs *a);
void table_attrs_remove(struct table_store *s, uint64_t id);
/* -ENODATA; the value is appended to ret. */
int table_xattr_get(const struct table_attrs *a, const char *name,
		    struct strbuf *ret);
/* value NULL removes it; -ENOSPC beyond TABLE_XATTRS_MAX. */
int table_xattr_set(struct table_attrs *a, const char *name, const void *value,
		    size_t n);
/* 1 = nobody may read it (chmod a-r): components may not use it. */
int table_hidden(struct table_store *s, const char *ns, const char *name,
		 struct err *e) MUST_CHECK;

/* Removes the name (and the data when unused). */
int table_drop(struct table_store *s, const char *ns, const char *name,
	       struct err *e) MUST_CHECK;
/* Back to the empty table (rm data.csv).  rows: only while these are what it
 * has, newer ones stay; NULL: whatever it has. */
int table_truncate(struct table_store *s, const char *ns, const char *name,
		   const struct table *rows, struct err *e) MUST_CHECK;
/* Keeps id and generation; replaces an existing target. */
int table_rename(struct table_store *s, const char *ns, const char *name,
		 const char *to_ns, const char *to_name,
		 struct err *e) MUST_CHECK;
/* to_ns/to_name is published with the generation of t (cheap copy). */
int table_link(struct table *t, const char *to_ns, const char *to_name,
	       struct err *e) MUST_CHECK;

/* Reading. Handles are reference counted, thread-safe and cached per store
 * (bounded); the database itself is opened at the first row access. */
int table_open(struct table_store *s, const char *ns, const char *name,
	       struct table **ret, struct err *e) MUST_CHECK;
/* By generation number, for a reader that holds only the inode. */
int table_open_gen(struct table_store *s, uint64_t gen, struct table **ret,
		   struct err *e) MUST_CHECK;
/* The same without a search: seq is made_by of its table_id. */
int table_open_of(struct table_store *s, uint64_t seq, uint64_t gen,
		  struct table **ret, struct err *e) MUST_CHECK;
struct table *table_ref(struct table *t);
void table_unref(struct table *t);
#define _cleanup_table_ _cleanup_(table_unrefp)
void table_unrefp(struct table **t);
const struct table_schema *table_schema(const struct table *t);
uint64_t table_rows(const struct table *t);
uint64_t table_generation(const struct table *t);
int64_t table_published_ms(const struct table *t);
uint64_t table_csv_size(const struct table *t);
/*
 * A reader of the CSV view: of all rows (part 0), or of part k - 1.  Each has
 * its own place and window of text, so readers do not wait for each other.
 * Thread-safe; a view keeps its table.
 */
struct table_view;
int table_view_new(struct table *t, unsigned part, struct table_view **ret,
		   struct err *e) MUST_CHECK;
struct table_view *table_view_ref(struct table_view *v);
void table_view_unref(struct table_view *v);
uint64_t table_view_size(const struct table_view *v);
/* Bytes at an offset: all n but at the end, 0 there, or -errno. */
ssize_t table_view_read(struct table_view *v, uint64_t offset, void *buf,
			size_t n, struct err *e);
/* When a reader goes forward: makes ready what he wants next. */
void table_view_ahead(struct table_view *v);
/* The same once, without a view of one's own. */
ssize_t table_csv_read(struct table *t, uint64_t offset, void *buf, size_t n,
		       struct err *e);
/* CSV view of part k of the table's partitions (contiguous key ranges, each
 * with the header): its size and bytes. */
unsigned table_parts(const struct table *t);
int table_part_size(struct table *t, unsigned k, uint64_t *ret,
		    struct err *e) MUST_CHECK;
ssize_t table_part_read(struct table *t, unsigned k, uint64_t offset, void *buf,
			size_t n, struct err *e);
/* One CSV line (with LF) of a key appended to ret; -ENOENT. */
int table_row_csv(struct table *t, const char *key, size_t key_len,
		  struct strbuf *ret, struct err *e) MUST_CHECK;

/* from == NULL: first row.  cells has n_columns entries. */
int table_scan(struct table *t, const char *from, size_t from_len,
	       struct table_iter **ret, struct err *e) MUST_CHECK;
/* 1 = a row, 0 = end, negative errno. key and cells live until the next
 * call. */
int table_next(struct table_iter *it, const char **key, size_t *key_len,
	       const struct cell **cells, struct err *e) MUST_CHECK;
void table_scan_end(struct table_iter *it);

/*
 * Building: rows in any order, sorted externally by threads (bounded memory:
 * up to 16 MiB of rows in each of three arenas, then runs on disk).  add fails
 * with -EEXIST for a duplicate key at the latest in publish.  The builder
 * copies schema and cells.
 */
int table_build_begin(struct table_store *s, const struct table_schema *schema,
		      struct table_build **ret, struct err *e) MUST_CHECK;
int table_build_add(struct table_build *b, const char *key, size_t key_len,
		    const struct cell *cells, struct err *e) MUST_CHECK;
/* Sorts, writes, fsyncs, publishes by rename; frees b in every case. */
int table_build_publish(struct table_build *b, const char *ns, const char *name,
			struct err *e) MUST_CHECK;
/* Instead of table_build_add: the rows of t, shared with it (hard links). The
 * schema's columns must have t's names and types; the rest may differ. */
int table_build_share(struct table_build *b, struct table *t,
		      struct err *e) MUST_CHECK;
/* Which task makes it from what: an object, taken over, for schema.json.  An
 * "operation" (table_ops.h) that the one before had stays. */
void table_build_lineage(struct table_build *b, json_t *lineage);
const struct table_schema *table_build_schema(const struct table_build *b);
void table_build_abort(struct table_build *b);
/* For others to look at, and to stop it, while add and publish work. */
struct table_progress {
	atomic_uint_least64_t rows; /* taken so far */
	atomic_uint_least64_t
	    merged;	  /* ... that found their place in publish */
	atomic_bool stop; /* set: the next add or publish gives -EINTR */
};
/* p outlives the builder. */
void table_build_watch(struct table_build *b, struct table_progress *p);
uint64_t table_build_rows(const struct table_build *b);

/*
 * Upload: CSV bytes as they are written.  First line = header, first field =
 * key.  The errors name line (1-based) and column (name or number); nothing
 * is published unless all is well.  Options are upload.json (NULL =
 * defaults; docs/tables.md has its members).  Its meta stands in the schema's
 * extra as {"meta": {...}}, where DataTransform finds it; "delimiter" beside
 * it is what lay between the fields, unless it was a comma.
 */
struct table_upload;
/* Is this an upload.json?  Refused are unknown members and wrong values. */
int table_upload_check(const json_t *options, struct err *e) MUST_CHECK;
int table_upload_begin(struct table_store *s, const json_t *options,
		       struct table_upload **ret, struct err *e) MUST_CHECK;
int table_upload_write(struct table_upload *u, const void *data, size_t n,
		       struct err *e) MUST_CHECK;
uint64_t table_upload_rows(const struct table_upload *u);
int table_upload_publish(struct table_upload *u, const char *ns,
			 const char *name, struct err *e) MUST_CHECK;
void table_upload_abort(struct table_upload *u);
void table_upload_watch(struct table_upload *u, struct table_progress *p);

/* CSV text of one field: quoted only where it must be (architecture 3). */
int csv_add_field(struct strbuf *sb, const char *s, size_t n);

#endif
