// SPDX-License-Identifier: Apache-2.0
/* Open tables: handles, scans, point lookups. */
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>

#include "lib/table_npy.h"
#include "lib/table_store_priv.h"

#define CACHE_MAX   16		/* open handles nobody uses */
#define CACHE_BYTES (16u << 20) /* of blocks, over all tables */

struct table_iter {
	struct table *t;
	rocksdb_iterator_t *it;
	bool started;
	struct row_view row;
};

static rocksdb_cache_t *cache;

static void make_cache(void)
{
	cache = rocksdb_cache_create_lru(CACHE_BYTES);
}

/* One cache of blocks for all tables: index and filters are in it too, so that
 * a large table takes no more memory than a small one. */
static rocksdb_cache_t *block_cache(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, make_cache);
	return cache;
}

rocksdb_options_t *table_rocks_options(void)
{
	rocksdb_options_t *o = rocksdb_options_create();
	rocksdb_block_based_table_options_t *b =
	    rocksdb_block_based_options_create();

	rocksdb_block_based_options_set_block_cache(b, block_cache());
	rocksdb_block_based_options_set_block_size(b, 16u << 10);
	rocksdb_block_based_options_set_index_type(
	    b, rocksdb_block_based_table_index_type_two_level_index_search);
	rocksdb_block_based_options_set_partition_filters(b, 1);
	rocksdb_block_based_options_set_filter_policy(
	    b, rocksdb_filterpolicy_create_bloom_full(10));
	rocksdb_block_based_options_set_cache_index_and_filter_blocks(b, 1);
	rocksdb_options_set_block_based_table_factory(o, b);
	rocksdb_block_based_options_destroy(b);
	rocksdb_options_set_compression(o, rocksdb_lz4_compression);
	rocksdb_options_set_max_background_jobs(o, 1);
	rocksdb_options_set_write_buffer_size(o, 1u << 20);
	rocksdb_options_set_max_open_files(o, 128);
	rocksdb_options_set_info_log_level(o, 4);
	rocksdb_options_set_keep_log_file_num(o, 1);
	rocksdb_options_set_stats_dump_period_sec(o, 0);
	rocksdb_options_set_disable_auto_compactions(o, 1);
	return o;
}

int table_rocks_error(struct err *e, const char *dir, char *text)
{
	static const int known[] = { ENOSPC, EDQUOT, EMFILE, ENFILE, EROFS };
	int no = EIO;

	/* The C interface has no more than the text. */
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strstr(text, strerrordesc_np(known[i])))
			no = known[i];

	err_set(e, no, "%s: %s", dir, text);
	rocksdb_free(text);
	return -no;
}

int table_open_db(struct table *t, struct err *e)
{
	_cleanup_free_ char *path = NULL;
	rocksdb_options_t *o;
	char *text = NULL;

	pthread_mutex_lock(&t->lock);
	if (!t->db) {
		path = xasprintf("%s/rocksdb", t->dir);
		o = table_rocks_options();
		t->db = rocksdb_open_for_read_only(o, path, 0, &text);
		rocksdb_options_destroy(o);
	}
	pthread_mutex_unlock(&t->lock);
	return text ? table_rocks_error(e, t->dir, text) : 0;
}

rocksdb_iterator_t *rocks_iterator(rocksdb_t *db)
{
	rocksdb_readoptions_t *ro = rocksdb_readoptions_create();
	rocksdb_iterator_t *it;

	rocksdb_readoptions_set_fill_cache(ro, 0);
	it = rocksdb_create_iterator(db, ro);
	rocksdb_readoptions_destroy(ro);
	return it;
}

static void table_destroy(struct table *t)
{
	uint64_t seq = t->seq, gen = t->gen;
	struct table_store *s = t->store;
	uint64_t named_at = t->named_at;

	if (t->db)
		rocksdb_close(t->db);
	if (t->dir_fd >= 0)
		close(t->dir_fd);
	table_npy_free(t->npy);
	table_stats_free(t->stats);
	schema_free(t->schema);
	free(t->dir);
	free(t->header);
	free(t->index);
	free(t->parts);
	free(t->keys);
	pthread_mutex_destroy(&t->lock);
	free(t);
	/* The last reader of a generation without names removes it. */
	if (!named_at || named_at != table_store_changes(s))
		table_collect(s, seq, gen);
}

static uint64_t le64(const char *p)
{
	uint64_t v = 0;

	for (int i = 7; i >= 0; i--)
		v = v << 8 | (unsigned char)p[i];
	return v;
}

/* From the first row on, forward, and within the view: who looks something up
 * in it relies on that. */
static bool in_order(const struct table *t, const struct index_entry *x,
		     size_t n)
{
	if (n && (x[0].offset != t->header_len || !x[0].key_len))
		return false;
	for (size_t i = 1; i < n; i++) {
		const char *a = t->keys + x[i - 1].key_at;
		const char *b = t->keys + x[i].key_at;

		if (x[i].offset <= x[i - 1].offset ||
		    key_compare(a, x[i - 1].key_len, b, x[i].key_len) >= 0)
			return false;
	}
	return !n || x[n - 1].offset < t->csv_size;
}

/* index file: u64 entries, u64 parts, then u64 offset, u64 key length, key
 * for each entry and each part. */
static int load_index(struct table *t, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/index", t->dir);
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(1u << 30);
	size_t at = 16, n, used = 0;
	int r = file_read(path, &sb, e);

	if (r)
		return r;
	if (sb.len < 16)
		return err_set(e, EIO, "%s: damaged", path);
	t->n_index = le64(sb.buf);
	t->n_parts = le64(sb.buf + 8);
	n = t->n_index + t->n_parts;
	if (t->n_index > sb.len / 16 || t->n_parts > sb.len / 16)
		return err_set(e, EIO, "%s: damaged", path);
	t->index = xcalloc(t->n_index, sizeof(*t->index));
	t->parts = xcalloc(t->n_parts, sizeof(*t->parts));
	t->keys = xmalloc(sb.len);
	for (size_t i = 0; i < n; i++) {
		struct index_entry *x =
		    i < t->n_index ? &t->index[i] : &t->parts[i - t->n_index];
		uint64_t len;

		if (sb.len - at < 16)
			return err_set(e, EIO, "%s: damaged", path);
		len = le64(sb.buf + at + 8);
		if (len > TABLE_KEY_MAX || sb.len - at - 16 < len)
			return err_set(e, EIO, "%s: damaged", path);
		x->offset = le64(sb.buf + at);
		x->key_at = (uint32_t)used;
		x->key_len = (uint32_t)len;
		memcpy(t->keys + used, sb.buf + at + 16, len);
		used += len;
		at += 16 + len;
	}
	if (!in_order(t, t->index, t->n_index) ||
	    !in_order(t, t->parts, t->n_parts) || !t->rows != !t->n_index ||
	    !t->rows != !t->n_parts)
		return err_set(e, EIO, "%s: damaged", path);
	return 0;
}

/* Tables without the member are older than it. */
static int rows_kind(const json_t *meta, enum row_format *ret, struct err *e)
{
	const char *rows = json_str_or(meta, "rows", "cells");

	*ret = !strcmp(rows, "text") ? ROWS_TEXT : ROWS_CELLS;
	return *ret == ROWS_TEXT || !strcmp(rows, "cells")
		   ? 0
		   : err_set(e, EPROTONOSUPPORT,
			     "a table whose rows are \"%.40s\": it was made by "
			     "a newer rollfs",
			     rows);
}

static int table_load(struct table_store *s, uint64_t seq, uint64_t gen,
		      struct table **ret, struct err *e)
{
	struct table *t = xcalloc(1, sizeof(*t));
	_cleanup_free_ char *meta = NULL;
	json_t *o = NULL;
	int r;

	t->store = s;
	t->seq = seq;
	t->gen = gen;
	t->dir_fd = -1;
	t->dir = xasprintf("%s/data/%llu/%llu", s->dir, (unsigned long long)seq,
			   (unsigned long long)gen);
	pthread_mutex_init(&t->lock, NULL);
	t->dir_fd = open(t->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->dir_fd < 0) {
		r = err_sys(e, errno, "%s", t->dir);
		goto bad;
	}
	if (flock(t->dir_fd, LOCK_SH | LOCK_NB)) {
		r = err_set(e, ENOENT, "%s: being removed", t->dir);
		goto bad;
	}
	meta = xasprintf("%s/meta.json", t->dir);
	o = json_read_file(meta, e);
	if (!o) {
		r = access(meta, F_OK) ? -ENOENT : -EIO;
		goto bad;
	}
	t->schema = schema_from_json(o, e);
	if (!t->schema) {
		r = err_wrap(e, "%s", meta);
		goto bad;
	}
	r = rows_kind(o, &t->format, e);
	if (r)
		goto bad;
	t->stats = table_stats_from_json(o, t->schema);
	t->rows = (uint64_t)MAX(json_int_or(o, "count", 0), 0);
	t->csv_size = (uint64_t)MAX(json_int_or(o, "csv_size", 0), 0);
	t->published_ms = json_int_or(o, "published_ms", 0);
	t->header = table_header_line(t->schema, &t->header_len);
	r = t->csv_size < t->header_len ? err_set(e, EIO, "%s: damaged", meta)
					: load_index(t, e);
	if (r)
		goto bad;
	json_decref(o);
	*ret = t;
	return 0;
bad:
	json_decref(o);
	/* Nothing was opened: collecting it is not ours. */
	t->gen = 0;
	table_destroy(t);
	return r;
}

static int find_seq(const struct table_store *s, uint64_t gen, uint64_t *ret)
{
	_cleanup_free_ char *path = xasprintf("%s/data", s->dir);
	_cleanup_closedir_ DIR *d = opendir(path);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *p = NULL;

		if (de->d_name[0] == '.')
			continue;
		p = xasprintf("%s/%s/%llu", path, de->d_name,
			      (unsigned long long)gen);
		if (!access(p, F_OK)) {
			*ret = strtoull(de->d_name, NULL, 10);
			return 0;
		}
	}
	return -ENOENT;
}

int table_open_gen(struct table_store *s, uint64_t gen, struct table **ret,
		   struct err *e)
{
	return table_open_of(s, 0, gen, ret, e);
}

int table_open_of(struct table_store *s, uint64_t seq, uint64_t gen,
		  struct table **ret, struct err *e)
{
	struct table *t, *mine = NULL;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	for (t = s->open; t; t = t->next) {
		if (t->gen == gen) {
			t->refs++;
			t->used = ++s->clock;
			break;
		}
	}
	pthread_mutex_unlock(&s->lock);
	if (t) {
		*ret = t;
		return 0;
	}
	if (!seq)
		r = find_seq(s, gen, &seq);
	if (r)
		return err_set(e, ENOENT, "no table of this generation");
	r = table_load(s, seq, gen, &mine, e);
	if (r)
		return r;
	pthread_mutex_lock(&s->lock);
	for (t = s->open; t; t = t->next)
		if (t->gen == gen)
			break;
	if (!t) {
		t = mine;
		mine = NULL;
		t->next = s->open;
		s->open = t;
	}
	t->refs++;
	t->used = ++s->clock;
	pthread_mutex_unlock(&s->lock);
	if (mine)
		table_destroy(mine);
	*ret = t;
	return 0;
}

struct table *table_ref(struct table *t)
{
	pthread_mutex_lock(&t->store->lock);
	t->refs++;
	pthread_mutex_unlock(&t->store->lock);
	return t;
}

static bool has_names(struct table *t)
{
	uint64_t changes = table_store_changes(t->store);
	_cleanup_free_ char *path = NULL;
	_cleanup_closedir_ DIR *d = NULL;
	struct dirent *de;

	if (changes && changes == t->named_at)
		return true;
	path = xasprintf("%s/refs", t->dir);
	d = opendir(path);
	while (d && (de = readdir(d))) {
		if (de->d_name[0] == '.')
			continue;
		t->named_at = changes;
		return true;
	}
	return false;
}

void table_unref(struct table *t)
{
	struct table *victim = NULL, **p, **oldest = NULL;
	struct table_store *s;
	bool named;
	size_t idle = 0;

	if (!t)
		return;
	s = t->store;
	pthread_mutex_lock(&s->lock);
	if (t->refs > 1) {
		t->refs--;
		pthread_mutex_unlock(&s->lock);
		return;
	}
	pthread_mutex_unlock(&s->lock);
	named = has_names(t);
	pthread_mutex_lock(&s->lock);
	t->refs--;
	for (p = &s->open; *p; p = &(*p)->next) {
		if ((*p)->refs)
			continue;
		idle++;
		if (*p == t && !named) {
			oldest = p;
			idle = CACHE_MAX + 1;
			break;
		}
		if (!oldest || (*p)->used < (*oldest)->used)
			oldest = p;
	}
	if (idle > CACHE_MAX && oldest) {
		victim = *oldest;
		*oldest = victim->next;
	}
	pthread_mutex_unlock(&s->lock);
	if (victim)
		table_destroy(victim);
}

void table_unrefp(struct table **t)
{
	table_unref(*t);
}

void table_store_close(struct table_store *s)
{
	if (!s)
		return;
	collect_stop(s);
	while (s->open) {
		struct table *t = s->open;

		s->open = t->next;
		table_destroy(t);
	}
	pthread_mutex_destroy(&s->lock);
	if (s->changes)
		(void)munmap((void *)s->changes, sizeof(*s->changes));
	free(s->dir);
	free(s);
}

const struct table_schema *table_schema(const struct table *t)
{
	return t->schema;
}

uint64_t table_rows(const struct table *t)
{
	return t->rows;
}

uint64_t table_generation(const struct table *t)
{
	return t->gen;
}

int64_t table_published_ms(const struct table *t)
{
	return t->published_ms;
}

uint64_t table_csv_size(const struct table *t)
{
	return t->csv_size;
}

int table_row_csv(struct table *t, const char *key, size_t key_len,
		  struct strbuf *ret, struct err *e)
{
	_cleanup_(row_view_free) struct row_view row = { 0 };
	rocksdb_readoptions_t *ro;
	rocksdb_pinnableslice_t *v;
	char *text = NULL;
	const char *val;
	size_t n;
	int r = table_open_db(t, e);

	if (r)
		return r;
	ro = rocksdb_readoptions_create();
	v = rocksdb_get_pinned(t->db, ro, key, key_len, &text);
	rocksdb_readoptions_destroy(ro);
	if (text)
		return table_rocks_error(e, t->dir, text);
	if (!v)
		return -ENOENT;
	val = rocksdb_pinnableslice_value(v, &n);
	row_view_init(&row, t->format, t->schema);
	r = row_view_line(&row, ret, key, key_len, val, n);
	rocksdb_pinnableslice_destroy(v);
	return r ? err_set(e, EIO, "%s: damaged row", t->dir) : 0;
}

int table_scan(struct table *t, const char *from, size_t from_len,
	       struct table_iter **ret, struct err *e)
{
	struct table_iter *it;
	int r = table_open_db(t, e);

	if (r)
		return r;
	it = xcalloc(1, sizeof(*it));
	it->t = table_ref(t);
	it->it = rocks_iterator(t->db);
	row_view_init(&it->row, t->format, t->schema);
	if (from)
		rocksdb_iter_seek(it->it, from, from_len);
	else
		rocksdb_iter_seek_to_first(it->it);
	*ret = it;
	return 0;
}

/* To the next row as it is kept. */
static int step(struct table_iter *it, const char **key, size_t *key_len,
		const char **row, size_t *n, struct err *e)
{
	if (it->started)
		rocksdb_iter_next(it->it);
	it->started = true;
	if (!rocksdb_iter_valid(it->it)) {
		char *text = NULL;

		rocksdb_iter_get_error(it->it, &text);
		it->started = false; /* never step an ended iterator */
		return text ? table_rocks_error(e, it->t->dir, text) : 0;
	}
	*key = rocksdb_iter_key(it->it, key_len);
	*row = rocksdb_iter_value(it->it, n);
	return 1;
}

int table_next(struct table_iter *it, const char **key, size_t *key_len,
	       const struct cell **cells, struct err *e)
{
	const char *row;
	size_t n;
	int r = step(it, key, key_len, &row, &n, e);

	if (r <= 0)
		return r;
	if (row_view_decode(&it->row, row, n))
		return err_set(e, EIO, "%s: damaged row", it->t->dir);
	*cells = it->row.cells;
	return 1;
}

int table_next_numbers(struct table_iter *it, const char **key, size_t *key_len,
		       double *x, struct err *e)
{
	const char *row;
	size_t n;
	int r = step(it, key, key_len, &row, &n, e);

	if (r <= 0)
		return r;
	return row_view_numbers(&it->row, row, n, x)
		   ? err_set(e, EIO, "%s: damaged row", it->t->dir)
		   : 1;
}

void table_scan_end(struct table_iter *it)
{
	if (!it)
		return;
	rocksdb_iter_destroy(it->it);
	row_view_free(&it->row);
	table_unref(it->t);
	free(it);
}
