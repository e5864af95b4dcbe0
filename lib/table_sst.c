// SPDX-License-Identifier: Apache-2.0
/* Sorted rows -> SST files that RocksDB takes over, and the index of the CSV
 * view. */
#include <endian.h>

#include "lib/table_sort.h"

#define FILE_BYTES (512u << 20) /* of rows in one SST file */
#define MARKS_MAX  65536
#define KEYS_MAX   (4u << 20) /* bytes of their keys: they stay in memory */

/* Tests have large indexes without many rows. */
static uint64_t index_every(void)
{
#ifdef ROLLFS_TEST_HOOKS
	const char *s = getenv("ROLLFS_TEST_INDEX_EVERY");

	if (s)
		return strtoull(s, NULL, 10);
#endif
	return INDEX_EVERY;
}

void sst_init(struct sst *w, const struct table_schema *s, const char *dir,
	      unsigned number)
{
	*w = (struct sst){ .schema = s,
			   .dir = dir,
			   .number = number,
			   .every = index_every() };
	row_view_init(&w->view, row_format(s), s);
	w->stats = table_stats_new(s);
	sb_init(&w->keys, KEYS_MAX);
	w->options = table_rocks_options();
	w->env = rocksdb_envoptions_create();
}

void sst_free(struct sst *w)
{
	if (!w->options)
		return;
	if (w->writer)
		rocksdb_sstfilewriter_destroy(w->writer);
	rocksdb_envoptions_destroy(w->env);
	rocksdb_options_destroy(w->options);
	for (size_t i = 0; i < w->n_files; i++)
		free(w->files[i]);
	free(w->files);
	free(w->marks);
	sb_free(&w->keys);
	row_view_free(&w->view);
	table_stats_free(w->stats);
	*w = (struct sst){ 0 };
}

/* ---- one file after the other -------------------------------------------- */

static int open_file(struct sst *w, struct err *e)
{
	char *text = NULL, *path;

	if (w->writer)
		return 0;
	path = xasprintf("%s/rows.%u.%zu.sst", w->dir, w->number, w->n_files);
	w->files = xrealloc(w->files, (w->n_files + 1) * sizeof(*w->files));
	w->files[w->n_files++] = path;
	w->in_file = 0;
	w->writer = rocksdb_sstfilewriter_create(w->env, w->options);
	rocksdb_sstfilewriter_open(w->writer, path, &text);
	return text ? table_rocks_error(e, path, text) : 0;
}

int sst_finish(struct sst *w, struct err *e)
{
	char *text = NULL;

	if (!w->writer)
		return 0;
	rocksdb_sstfilewriter_finish(w->writer, &text);
	rocksdb_sstfilewriter_destroy(w->writer);
	w->writer = NULL;
	return text ? table_rocks_error(e, w->dir, text) : 0;
}

/* Tables have no limit, their index has: every second entry goes. */
static void thin_out(struct sst *w)
{
	struct strbuf keys = STRBUF_INIT(w->keys.max);
	size_t n = 0;

	for (size_t i = 0; i < w->n_marks; i += 2) {
		struct sst_mark m = w->marks[i];

		sb_add(&keys, w->keys.buf + m.key_at, m.key_len);
		m.key_at = (uint32_t)keys.len - m.key_len;
		w->marks[n++] = m;
	}
	w->n_marks = n;
	w->every *= 2;
	sb_free(&w->keys);
	w->keys = keys;
}

static int mark(struct sst *w, const struct row *row)
{
	if (w->n_marks == MARKS_MAX || w->keys.len + row->key_len > KEYS_MAX)
		thin_out(w);
	if (w->n_marks == w->marks_alloc) {
		w->marks_alloc = w->marks_alloc ? 2 * w->marks_alloc : 16;
		w->marks =
		    xrealloc(w->marks, w->marks_alloc * sizeof(*w->marks));
	}
	w->marks[w->n_marks++] =
	    (struct sst_mark){ .offset = w->csv,
			       .row = w->rows,
			       .key_at = (uint32_t)w->keys.len,
			       .key_len = row->key_len };
	w->marked = w->csv;
	return sb_add(&w->keys, row->key, row->key_len);
}

static int note_cells(struct sst *w, const struct row *row)
{
	int r;

	if (w->view.format == ROWS_TEXT &&
	    table_stats_add_text(w->stats, w->schema, row->key_len, row->val,
				 row->val_len))
		return 0;
	r = row_view_decode(&w->view, row->val, row->val_len);
	if (!r)
		table_stats_add(w->stats, w->schema, row->key_len,
				w->view.cells);
	return r;
}

int sst_add(void *arg, const struct row *row, struct err *e)
{
	struct sst *w = arg;
	char *text = NULL;
	size_t line = 0;
	int r = open_file(w, e);

	if (r)
		return r;
	if (w->rows && w->last_len == row->key_len &&
	    !memcmp(w->last, row->key, w->last_len))
		return duplicate_id(w->last_line, row->line, e);
	memcpy(w->last, row->key, row->key_len);
	w->last_len = row->key_len;
	w->last_line = row->line;
	if ((!w->n_marks || w->csv - w->marked >= w->every) && mark(w, row))
		return err_set(e, EFBIG, "too many rows");
	if (note_cells(w, row) ||
	    row_view_line_size(&w->view, row->key, row->key_len, row->val,
			       row->val_len, &line))
		return err_set(e, EMSGSIZE, "a row is too large");
	rocksdb_sstfilewriter_put(w->writer, row->key, row->key_len, row->val,
				  row->val_len, &text);
	if (text)
		return table_rocks_error(e, w->dir, text);
	w->csv += line;
	w->rows++;
	w->in_file += row->key_len + row->val_len;
	return w->in_file < FILE_BYTES ? 0 : sst_finish(w, e);
}

/* ---- the generation's files ---------------------------------------------- */

int sst_open(struct sst *w, size_t n, const char *dir, rocksdb_t **ret,
	     struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/rocksdb", dir);
	_cleanup_free_ const char **list = NULL;
	rocksdb_options_t *o = table_rocks_options();
	rocksdb_ingestexternalfileoptions_t *io =
	    rocksdb_ingestexternalfileoptions_create();
	size_t files = 0;
	char *text = NULL;

	for (size_t i = 0; i < n; i++)
		files += w[i].n_files;
	list = xcalloc(files, sizeof(*list));
	files = 0;
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < w[i].n_files; k++)
			list[files++] = w[i].files[k];
	rocksdb_options_set_create_if_missing(o, 1);
	rocksdb_ingestexternalfileoptions_set_move_files(io, 1);
	*ret = rocksdb_open(o, path, &text);
	if (!text && files)
		rocksdb_ingest_external_file(*ret, list, files, io, &text);
	rocksdb_ingestexternalfileoptions_destroy(io);
	rocksdb_options_destroy(o);
	return text ? table_rocks_error(e, path, text) : 0;
}

static void add_entry(struct strbuf *sb, uint64_t offset, const char *key,
		      size_t key_len)
{
	sb_add_u64(sb, offset);
	sb_add_u64(sb, key_len);
	sb_add(sb, key, key_len);
}

/* The last mark at or before a row of the writer. */
static const struct sst_mark *mark_of(const struct sst *w, uint64_t row)
{
	size_t lo = 0, hi = w->n_marks;

	while (hi - lo > 1) {
		size_t mid = (lo + hi) / 2;

		if (w->marks[mid].row <= row)
			lo = mid;
		else
			hi = mid;
	}
	return &w->marks[lo];
}

/* The first row of a part: on from the mark before it. */
static int add_part(struct sst *w, rocksdb_iterator_t *it, uint64_t base,
		    uint64_t row, struct strbuf *ret, struct err *e)
{
	const struct sst_mark *m = mark_of(w, row);
	uint64_t offset = m->offset;
	size_t key_len, n, line;
	const char *key, *val;

	rocksdb_iter_seek(it, w->keys.buf + m->key_at, m->key_len);
	for (uint64_t k = m->row;; k++) {
		if (!rocksdb_iter_valid(it)) {
			char *text = NULL;

			rocksdb_iter_get_error(it, &text);
			return text ? table_rocks_error(e, w->dir, text)
				    : err_set(e, EIO, "%s: rows are missing",
					      w->dir);
		}
		key = rocksdb_iter_key(it, &key_len);
		if (k == row)
			break;
		val = rocksdb_iter_value(it, &n);
		if (row_view_line_size(&w->view, key, key_len, val, n, &line))
			return err_set(e, EIO, "%s: damaged row", w->dir);
		offset += line;
		rocksdb_iter_next(it);
	}
	add_entry(ret, base + offset, key, key_len);
	return 0;
}

static int add_parts(struct sst *w, size_t n, rocksdb_t *db, uint64_t header,
		     unsigned parts, struct strbuf *all, uint64_t *ret_n,
		     struct err *e)
{
	rocksdb_iterator_t *it = rocks_iterator(db);
	uint64_t rows = 0, before = 0, base = header;
	size_t k = 0;
	int r = 0;

	for (size_t i = 0; i < n; i++)
		rows += w[i].rows;
	for (unsigned p = 0; p < parts && !r; p++) {
		uint64_t row = p * rows / parts;

		if (row == rows || (p && row == (p - 1) * rows / parts))
			continue; /* more parts than rows */
		while (row - before >= w[k].rows) {
			before += w[k].rows;
			base += w[k++].csv;
		}
		r = add_part(&w[k], it, base, row - before, all, e);
		++*ret_n;
	}
	rocksdb_iter_destroy(it);
	return r;
}

static int write_index(struct sst *w, size_t n, rocksdb_t *db,
		       const struct table_schema *s, const char *dir,
		       uint64_t *ret_csv, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/index", dir);
	_cleanup_strbuf_ struct strbuf all = STRBUF_INIT(1u << 30);
	uint64_t entries = 0, parts = 0, base;
	size_t header;
	int r;

	free(table_header_line(s, &header));
	base = header;
	sb_add_u64(&all, 0);
	sb_add_u64(&all, 0);
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < w[i].n_marks; k++) {
			const struct sst_mark *m = &w[i].marks[k];

			add_entry(&all, base + m->offset,
				  w[i].keys.buf + m->key_at, m->key_len);
		}
		entries += w[i].n_marks;
		base += w[i].csv;
	}
	*ret_csv = base;
	r = add_parts(w, n, db, header, s->partitions, &all, &parts, e);
	if (!r && all.error)
		r = err_set(e, EFBIG, "too many rows");
	if (r)
		return r;
	entries = htole64(entries);
	parts = htole64(parts);
	memcpy(all.buf, &entries, sizeof(entries));
	memcpy(all.buf + sizeof(entries), &parts, sizeof(parts));
	return file_replace(path, all.buf, all.len, 0600, true, e);
}

int sst_publish(struct sst *w, size_t n, const struct table_schema *s,
		const char *dir, uint64_t *ret_csv, struct err *e)
{
	rocksdb_t *db = NULL;
	int r = sst_open(w, n, dir, &db, e);

	if (!r)
		r = write_index(w, n, db, s, dir, ret_csv, e);
	if (db)
		rocksdb_close(db);
	return r;
}
