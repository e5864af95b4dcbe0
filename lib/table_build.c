// SPDX-License-Identifier: Apache-2.0
/*
 * New generations.  Rows arrive in any order; up to RUN_BYTES of them are
 * sorted in memory, more go to sorted runs on disk that are merged at the
 * end.  The merged rows become one SST file which RocksDB takes over.
 */
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "lib/log.h"
#include "lib/table_priv.h"

#define RUN_BYTES (8u << 20)
#define RUNS_MAX  4096

/* In the arena and in runs: this head, key, value. */
struct record {
	uint32_t klen, vlen;
	uint64_t line; /* of an upload, 0 otherwise */
};

struct table_build {
	struct table_store *store;
	struct table_schema *schema;
	struct table_stats *stats;
	uint64_t gen;
	char *dir;
	int dir_fd; /* locked: the sweep leaves a live builder alone */
	struct strbuf arena;
	uint32_t *at; /* offsets of the records */
	size_t n, n_alloc;
	uint64_t rows;
	unsigned runs;
	struct strbuf row;
	bool in_order; /* so far every key was greater than the last */
	char last[TABLE_KEY_MAX];
	size_t last_len;
	uint64_t last_line;
	bool shared; /* rows and index are linked already */
	uint64_t shared_csv;
};

static void build_free(struct table_build *b)
{
	if (!b)
		return;
	(void)remove_tree(b->dir, NULL);
	if (b->dir_fd >= 0)
		close(b->dir_fd);
	table_stats_free(b->stats);
	schema_free(b->schema);
	sb_free(&b->arena);
	sb_free(&b->row);
	free(b->at);
	free(b->dir);
	free(b);
}

void table_build_lineage(struct table_build *b, json_t *lineage)
{
	json_t *how = json_object_get(b->schema->lineage, "operation");

	if (how && !json_object_get(lineage, "operation"))
		json_object_set(lineage, "operation", how);
	json_decref(b->schema->lineage);
	b->schema->lineage = lineage;
}

const struct table_schema *table_build_schema(const struct table_build *b)
{
	return b->schema;
}

int table_build_begin(struct table_store *s, const struct table_schema *schema,
		      struct table_build **ret, struct err *e)
{
	struct table_build *b = xcalloc(1, sizeof(*b));
	int r;

	b->store = s;
	b->dir_fd = -1;
	b->in_order = true;
	sb_init(&b->arena, RUN_BYTES + 2 * CSV_LINE_MAX);
	sb_init(&b->row, CSV_LINE_MAX);
	r = table_store_numbers(s, 1, &b->gen, e);
	if (r) {
		free(b);
		return r;
	}
	b->schema = schema_dup(schema);
	json_decref(b->schema->lineage); /* of the table it is made like */
	b->schema->lineage = NULL;
	b->stats = table_stats_new(schema);
	b->dir =
	    xasprintf("%s/building/%llu", s->dir, (unsigned long long)b->gen);
	if (!mkdir(b->dir, 0700))
		b->dir_fd = open(b->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (b->dir_fd < 0 || flock(b->dir_fd, LOCK_SH | LOCK_NB)) {
		r = err_sys(e, errno, "%s", b->dir);
		build_free(b);
		return r;
	}
	*ret = b;
	return 0;
}

static int compare(const void *pa, const void *pb, void *arena)
{
	const char *a = (const char *)arena + *(const uint32_t *)pa;
	const char *b = (const char *)arena + *(const uint32_t *)pb;
	struct record ra, rb;
	int c;

	memcpy(&ra, a, sizeof(ra));
	memcpy(&rb, b, sizeof(rb));
	c = memcmp(a + sizeof(ra), b + sizeof(rb), MIN(ra.klen, rb.klen));
	return c ? c : (ra.klen > rb.klen) - (ra.klen < rb.klen);
}

static void sort_arena(struct table_build *b)
{
	if (b->n > 1)
		qsort_r(b->at, b->n, sizeof(*b->at), compare, b->arena.buf);
}

/* Errors never hold the key: they may end in a partner's log. */
static int duplicate(uint64_t a, uint64_t b, struct err *e)
{
	if (!a || !b)
		return err_set(e, EEXIST, "two rows have the same id");
	return err_set(
	    e, EEXIST, "line %llu column 1: the same id as on line %llu",
	    (unsigned long long)MAX(a, b), (unsigned long long)MIN(a, b));
}

static int spill(struct table_build *b, struct err *e)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_fclose_ FILE *f = NULL;

	if (b->runs == RUNS_MAX)
		return err_set(e, EFBIG, "more than %u sorted runs", RUNS_MAX);
	sort_arena(b);
	path = xasprintf("%s/run.%u", b->dir, b->runs++);
	f = fopen(path, "we");
	if (!f)
		return err_sys(e, errno, "%s", path);
	for (size_t i = 0; i < b->n; i++) {
		const char *p = b->arena.buf + b->at[i];
		struct record r;

		memcpy(&r, p, sizeof(r));
		if (fwrite(p, sizeof(r) + r.klen + r.vlen, 1, f) != 1)
			return err_sys(e, errno, "%s", path);
	}
	if (fflush(f))
		return err_sys(e, errno, "%s", path);
	b->n = 0;
	sb_reset(&b->arena);
	return 0;
}

int table_build_add(struct table_build *b, const char *key, size_t key_len,
		    const struct cell *cells, struct err *e)
{
	return table_build_add_line(b, key, key_len, cells, 0, e);
}

int table_build_add_line(struct table_build *b, const char *key, size_t key_len,
			 const struct cell *cells, uint64_t line, struct err *e)
{
	struct record rec;
	size_t common;
	int c;

	if (!key_len || key_len > TABLE_KEY_MAX)
		return err_set(e, EINVAL, "an id of %zu bytes (1 to %d)",
			       key_len, TABLE_KEY_MAX);
	sb_reset(&b->row);
	if (row_encode(&b->row, b->schema, cells))
		return err_set(e, EMSGSIZE, "a row is larger than %u bytes",
			       CSV_LINE_MAX);
	if (b->arena.len + b->row.len + key_len > RUN_BYTES && b->n) {
		int r = spill(b, e);

		if (r)
			return r;
	}
	if (b->n == b->n_alloc) {
		b->n_alloc = b->n_alloc ? 2 * b->n_alloc : 1024;
		b->at = xrealloc(b->at, b->n_alloc * sizeof(*b->at));
	}
	if (b->rows && b->in_order) {
		common = MIN(key_len, b->last_len);
		c = memcmp(key, b->last, common);
		if (!c)
			c = (key_len > b->last_len) - (key_len < b->last_len);
		if (!c)
			return duplicate(b->last_line, line, e);
		b->in_order = c > 0;
	}
	memcpy(b->last, key, key_len);
	b->last_len = key_len;
	b->last_line = line;
	rec.line = line;
	rec.klen = (uint32_t)key_len;
	rec.vlen = (uint32_t)b->row.len;
	b->at[b->n++] = (uint32_t)b->arena.len;
	sb_add(&b->arena, &rec, sizeof(rec));
	sb_add(&b->arena, key, key_len);
	sb_add(&b->arena, b->row.buf, b->row.len);
	if (b->arena.error)
		return err_sys(e, -b->arena.error, "building a table");
	b->rows++;
	return 0;
}

uint64_t table_build_rows(const struct table_build *b)
{
	return b->rows;
}

/* One sorted run being read: from memory (f NULL) or from disk. */
struct run {
	FILE *f;
	struct strbuf buf; /* key, value of the head, from disk */
	const char *key, *val;
	struct record head;
	bool ended;
};

struct merge {
	struct table_build *b;
	struct run *runs;
	size_t n;    /* runs of disk, plus memory as the last */
	size_t next; /* in memory */
};

static int run_step(struct merge *m, size_t k, struct err *e)
{
	struct run *r = &m->runs[k];

	if (!r->f) {
		const char *p;

		r->ended = m->next == m->b->n;
		if (r->ended)
			return 0;
		p = m->b->arena.buf + m->b->at[m->next++];
		memcpy(&r->head, p, sizeof(r->head));
		r->key = p + sizeof(r->head);
		r->val = r->key + r->head.klen;
		return 0;
	}
	if (fread(&r->head, sizeof(r->head), 1, r->f) != 1) {
		r->ended = true;
		return ferror(r->f) ? err_sys(e, EIO, "sorting") : 0;
	}
	sb_reset(&r->buf);
	if (sb_reserve(&r->buf, (size_t)r->head.klen + r->head.vlen) ||
	    fread(r->buf.buf, (size_t)r->head.klen + r->head.vlen, 1, r->f) !=
		1)
		return err_sys(e, EIO, "sorting");
	r->key = r->buf.buf;
	r->val = r->key + r->head.klen;
	return 0;
}

static int run_compare(const struct run *a, const struct run *b)
{
	int c = memcmp(a->key, b->key, MIN(a->head.klen, b->head.klen));

	return c ? c
		 : (a->head.klen > b->head.klen) -
		       (a->head.klen < b->head.klen);
}

/* Index of the run with the smallest head, -1 at the end. Runs are few. */
static ssize_t smallest(const struct merge *m)
{
	ssize_t best = -1;

	for (size_t i = 0; i < m->n; i++)
		if (!m->runs[i].ended &&
		    (best < 0 || run_compare(&m->runs[i], &m->runs[best]) < 0))
			best = (ssize_t)i;
	return best;
}

static void merge_end(struct merge *m)
{
	for (size_t i = 0; i < m->n; i++) {
		if (m->runs[i].f)
			(void)fclose(m->runs[i].f);
		sb_free(&m->runs[i].buf);
	}
	free(m->runs);
}

#ifndef __clang__
/* The files are in m->runs and closed by merge_end: gcc 12 loses that. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wanalyzer-file-leak"
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif
static int merge_begin(struct merge *m, struct table_build *b, struct err *e)
{
	*m = (struct merge){ .b = b };
	sort_arena(b);
	m->runs = xcalloc(b->runs + 1, sizeof(*m->runs));
	for (unsigned i = 0; i <= b->runs; i++) {
		struct run *r = &m->runs[m->n++];
		int x;

		sb_init(&r->buf, CSV_LINE_MAX + TABLE_KEY_MAX);
		if (i < b->runs) {
			_cleanup_free_ char *p =
			    xasprintf("%s/run.%u", b->dir, i);

			r->f = fopen(p, "re");
			if (!r->f)
				return err_sys(e, errno, "%s", p);
		}
		x = run_step(m, i, e);
		if (x)
			return x;
	}
	return 0;
}
#ifndef __clang__
#pragma GCC diagnostic pop
#endif

struct writer {
	struct strbuf index, parts, line;
	uint64_t n_index, n_parts, csv, row, marked;
	rocksdb_sstfilewriter_t *sst;
	struct cell *cells;
};

static void add_entry(struct strbuf *sb, uint64_t offset, const struct run *r)
{
	sb_add_u64(sb, offset);
	sb_add_u64(sb, r->head.klen);
	sb_add(sb, r->key, r->head.klen);
}

static int write_row(struct table_build *b, struct writer *w,
		     const struct run *r, struct err *e)
{
	char *text = NULL;

	if (!w->n_index || w->csv - w->marked >= INDEX_EVERY) {
		add_entry(&w->index, w->csv, r);
		w->n_index++;
		w->marked = w->csv;
	}
	if (w->n_parts < b->schema->partitions &&
	    w->row == w->n_parts * b->rows / b->schema->partitions) {
		add_entry(&w->parts, w->csv, r);
		w->n_parts++;
	}
	sb_reset(&w->line);
	if (row_decode(b->schema, r->val, r->head.vlen, w->cells) ||
	    table_csv_line(&w->line, b->schema, r->key, r->head.klen, w->cells))
		return err_set(e, EMSGSIZE, "a row is too large");
	table_stats_add(b->stats, b->schema, r->head.klen, w->cells);
	w->csv += w->line.len;
	w->row++;
	rocksdb_sstfilewriter_put(w->sst, r->key, r->head.klen, r->val,
				  r->head.vlen, &text);
	if (text) {
		err_set(e, EIO, "%s: %s", b->dir, text);
		rocksdb_free(text);
		return -EIO;
	}
	return w->index.error || w->parts.error
		   ? err_set(e, EFBIG, "too many rows")
		   : 0;
}

static int write_all_rows(struct table_build *b, struct writer *w,
			  struct err *e)
{
	struct merge m;
	char last[TABLE_KEY_MAX];
	size_t last_len = 0;
	uint64_t last_line = 0;
	ssize_t k;
	int r = merge_begin(&m, b, e);

	while (!r && (k = smallest(&m)) >= 0) {
		const struct run *run = &m.runs[k];

		if (w->row && last_len == run->head.klen &&
		    !memcmp(last, run->key, last_len)) {
			r = duplicate(last_line, run->head.line, e);
			break;
		}
		last_len = run->head.klen;
		last_line = run->head.line;
		memcpy(last, run->key, last_len);
		r = write_row(b, w, run, e);
		if (!r)
			r = run_step(&m, (size_t)k, e);
	}
	merge_end(&m);
	return r;
}

static int ingest(struct table_build *b, const char *sst, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/rocksdb", b->dir);
	rocksdb_options_t *o = table_rocks_options();
	rocksdb_ingestexternalfileoptions_t *io =
	    rocksdb_ingestexternalfileoptions_create();
	const char *list[1] = { sst };
	char *text = NULL;
	rocksdb_t *db;

	rocksdb_options_set_create_if_missing(o, 1);
	rocksdb_ingestexternalfileoptions_set_move_files(io, 1);
	db = rocksdb_open(o, path, &text);
	if (!text && b->rows)
		rocksdb_ingest_external_file(db, list, 1, io, &text);
	if (db)
		rocksdb_close(db);
	rocksdb_ingestexternalfileoptions_destroy(io);
	rocksdb_options_destroy(o);
	if (text) {
		err_set(e, EIO, "%s: %s", path, text);
		rocksdb_free(text);
		return -EIO;
	}
	return 0;
}

static int write_schema(struct table_build *b, uint64_t csv, struct err *e)
{
	_cleanup_free_ char *meta = xasprintf("%s/meta.json", b->dir);
	_cleanup_free_ char *refs = xasprintf("%s/refs", b->dir);
	json_t *o = schema_to_json(b->schema, b->rows);
	int r;

	table_stats_to_json(b->stats, b->schema, o);
	json_object_set_new(o, "csv_size", json_integer((json_int_t)csv));
	json_object_set_new(o, "published_ms", json_integer(now_unix_ms()));
	r = json_write_file(meta, o, 0600, true, e);
	json_decref(o);
	if (!r && mkdir(refs, 0700))
		r = err_sys(e, errno, "%s", refs);
	return r;
}

static int write_meta(struct table_build *b, const struct writer *w,
		      struct err *e)
{
	_cleanup_free_ char *index = xasprintf("%s/index", b->dir);
	_cleanup_strbuf_ struct strbuf all = STRBUF_INIT(1u << 30);
	int r;

	sb_add_u64(&all, w->n_index);
	sb_add_u64(&all, w->n_parts);
	sb_add(&all, w->index.buf, w->index.len);
	sb_add(&all, w->parts.buf, w->parts.len);
	r = all.error;
	if (!r)
		r = file_replace(index, all.buf, all.len, 0600, true, e);
	return r ? r : write_schema(b, w->csv, e);
}

static int write_generation(struct table_build *b, struct err *e)
{
	struct writer w = { 0 };
	_cleanup_free_ char *sst = xasprintf("%s/rows.sst", b->dir);
	rocksdb_options_t *o = table_rocks_options();
	rocksdb_envoptions_t *env = rocksdb_envoptions_create();
	char *text = NULL;
	size_t header;
	int r = 0;

	free(table_header_line(b->schema, &header));
	w.csv = header;
	sb_init(&w.index, 1u << 29);
	sb_init(&w.parts, 1u << 24);
	sb_init(&w.line, CSV_LINE_MAX);
	w.cells = xcalloc(b->schema->n_columns, sizeof(*w.cells));
	w.sst = rocksdb_sstfilewriter_create(env, o);
	if (b->rows) {
		rocksdb_sstfilewriter_open(w.sst, sst, &text);
		if (!text)
			r = write_all_rows(b, &w, e);
		if (!text && !r)
			rocksdb_sstfilewriter_finish(w.sst, &text);
		if (text) {
			r = err_set(e, EIO, "%s: %s", sst, text);
			rocksdb_free(text);
		}
	}
	rocksdb_sstfilewriter_destroy(w.sst);
	rocksdb_envoptions_destroy(env);
	rocksdb_options_destroy(o);
	for (unsigned i = 0; i < b->runs; i++) {
		_cleanup_free_ char *p = xasprintf("%s/run.%u", b->dir, i);

		(void)unlink(p);
	}
	if (!r)
		r = ingest(b, sst, e);
	if (!r)
		r = write_meta(b, &w, e);
	sb_free(&w.index);
	sb_free(&w.parts);
	sb_free(&w.line);
	free(w.cells);
	return r;
}

static int link_file(const char *from, const char *to, const char *name,
		     struct err *e)
{
	_cleanup_free_ char *a = xasprintf("%s/%s", from, name);
	_cleanup_free_ char *b = xasprintf("%s/%s", to, name);

	return link(a, b) ? err_sys(e, errno, "%s", b) : 0;
}

/* Files of a published generation never change, so two may share them; but
 * what RocksDB writes when it opens one is its own. */
static int link_rows(const char *from, const char *to, struct err *e)
{
	_cleanup_closedir_ DIR *d = opendir(from);
	const struct dirent *f;
	int r = 0;

	if (!d)
		return err_sys(e, errno, "%s", from);
	while (!r && (f = readdir(d)))
		if (f->d_name[0] != '.' && strncmp(f->d_name, "LO", 2) != 0)
			r = link_file(from, to, f->d_name, e);
	return r ? r : dir_sync(to, e);
}

int table_build_share(struct table_build *b, struct table *t, struct err *e)
{
	_cleanup_free_ char *from = xasprintf("%s/rocksdb", t->dir);
	_cleanup_free_ char *to = xasprintf("%s/rocksdb", b->dir);
	const struct table_schema *s = t->schema;
	bool same = s->n_columns == b->schema->n_columns &&
		    strcmp(s->id, b->schema->id) == 0 &&
		    s->partitions == b->schema->partitions;
	int r;

	for (size_t i = 0; same && i < s->n_columns; i++)
		same =
		    s->columns[i].type == b->schema->columns[i].type &&
		    strcmp(s->columns[i].name, b->schema->columns[i].name) == 0;
	if (!same || b->rows || b->shared)
		return err_set(e, EINVAL, "the rows are not of this schema");
	if (mkdir(to, 0700))
		return err_sys(e, errno, "%s", to);
	r = link_rows(from, to, e);
	if (!r)
		r = link_file(t->dir, b->dir, "index", e);
	if (r)
		return r;
	b->shared = true;
	b->shared_csv = t->csv_size;
	table_stats_free(b->stats);
	b->stats = table_stats_dup(t->stats, s);
	b->rows = t->rows;
	return dir_sync(b->dir, e);
}

int table_build_publish(struct table_build *b, const char *ns, const char *name,
			struct err *e)
{
	int r = b->shared ? write_schema(b, b->shared_csv, e)
			  : write_generation(b, e);

	if (!r)
		r = table_publish_dir(b->store, b->dir, b->gen, ns, name, e);
	build_free(b);
	return r;
}

void table_build_abort(struct table_build *b)
{
	build_free(b);
}
