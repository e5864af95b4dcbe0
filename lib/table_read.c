// SPDX-License-Identifier: Apache-2.0
/* Open tables: scans, the CSV view by offset, point lookups. */
#include <fcntl.h>
#include <sys/file.h>

#include "lib/table_priv.h"

#define CACHE_MAX 16 /* open handles nobody uses */

struct table_iter {
	struct table *t;
	rocksdb_iterator_t *it;
	bool started;
	struct cell *cells;
};

rocksdb_options_t *table_rocks_options(void)
{
	rocksdb_options_t *o = rocksdb_options_create();
	rocksdb_block_based_table_options_t *b =
	    rocksdb_block_based_options_create();
	rocksdb_cache_t *cache = rocksdb_cache_create_lru(1u << 20);

	rocksdb_block_based_options_set_block_cache(b, cache);
	rocksdb_options_set_block_based_table_factory(o, b);
	rocksdb_cache_destroy(cache);
	rocksdb_block_based_options_destroy(b);
	rocksdb_options_set_compression(o, rocksdb_lz4_compression);
	rocksdb_options_set_max_background_jobs(o, 1);
	rocksdb_options_set_write_buffer_size(o, 1u << 20);
	rocksdb_options_set_max_open_files(o, 32);
	rocksdb_options_set_info_log_level(o, 4);
	rocksdb_options_set_keep_log_file_num(o, 1);
	rocksdb_options_set_stats_dump_period_sec(o, 0);
	rocksdb_options_set_disable_auto_compactions(o, 1);
	return o;
}

static int rocks_err(struct err *e, const struct table *t, char *text)
{
	err_set(e, EIO, "%s: %s", t->dir, text);
	rocksdb_free(text);
	return -EIO;
}

/* t->lock is held. */
static int open_db(struct table *t, struct err *e)
{
	_cleanup_free_ char *path = NULL;
	rocksdb_options_t *o;
	char *text = NULL;

	if (t->db)
		return 0;
	path = xasprintf("%s/rocksdb", t->dir);
	o = table_rocks_options();
	t->db = rocksdb_open_for_read_only(o, path, 0, &text);
	rocksdb_options_destroy(o);
	return text ? rocks_err(e, t, text) : 0;
}

static rocksdb_iterator_t *new_iterator(struct table *t)
{
	rocksdb_readoptions_t *ro = rocksdb_readoptions_create();
	rocksdb_iterator_t *it;

	rocksdb_readoptions_set_fill_cache(ro, 0);
	it = rocksdb_create_iterator(t->db, ro);
	rocksdb_readoptions_destroy(ro);
	return it;
}

static void table_destroy(struct table *t)
{
	uint64_t seq = t->seq, gen = t->gen;
	struct table_store *s = t->store;

	if (t->cursor.it)
		rocksdb_iter_destroy(t->cursor.it);
	sb_free(&t->cursor.line);
	if (t->db)
		rocksdb_close(t->db);
	if (t->dir_fd >= 0)
		close(t->dir_fd);
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
	table_collect(s, seq, gen);
}

static uint64_t le64(const char *p)
{
	uint64_t v = 0;

	for (int i = 7; i >= 0; i--)
		v = v << 8 | (unsigned char)p[i];
	return v;
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
	return 0;
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
	sb_init(&t->cursor.line, CSV_LINE_MAX);
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
	t->stats = table_stats_from_json(o, t->schema);
	t->rows = (uint64_t)json_int_or(o, "count", 0);
	t->csv_size = (uint64_t)json_int_or(o, "csv_size", 0);
	t->published_ms = json_int_or(o, "published_ms", 0);
	t->header = table_header_line(t->schema, &t->header_len);
	json_decref(o);
	r = load_index(t, e);
	if (r) {
		o = NULL;
		goto bad;
	}
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

static bool has_names(const struct table *t)
{
	_cleanup_free_ char *path = xasprintf("%s/refs", t->dir);
	_cleanup_closedir_ DIR *d = opendir(path);
	struct dirent *de;

	while (d && (de = readdir(d)))
		if (de->d_name[0] != '.')
			return true;
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
	while (s->open) {
		struct table *t = s->open;

		s->open = t->next;
		table_destroy(t);
	}
	pthread_mutex_destroy(&s->lock);
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

/* The last index entry at or before offset. */
static const struct index_entry *seek_entry(const struct table *t,
					    uint64_t offset)
{
	size_t lo = 0, hi = t->n_index;

	while (hi - lo > 1) {
		size_t mid = (lo + hi) / 2;

		if (t->index[mid].offset <= offset)
			lo = mid;
		else
			hi = mid;
	}
	return &t->index[lo];
}

/* The next line into the cursor; 1, 0 at the end. */
static int cursor_line(struct table *t, struct cell *cells, struct err *e)
{
	size_t klen, vlen;
	const char *k, *v;

	sb_reset(&t->cursor.line);
	t->cursor.at = 0;
	if (!rocksdb_iter_valid(t->cursor.it)) {
		char *text = NULL;

		rocksdb_iter_get_error(t->cursor.it, &text);
		return text ? rocks_err(e, t, text) : 0;
	}
	k = rocksdb_iter_key(t->cursor.it, &klen);
	v = rocksdb_iter_value(t->cursor.it, &vlen);
	if (row_decode(t->schema, v, vlen, cells) ||
	    table_csv_line(&t->cursor.line, t->schema, k, klen, cells))
		return err_set(e, EIO, "%s: damaged row", t->dir);
	rocksdb_iter_next(t->cursor.it);
	return 1;
}

/* Body bytes; t->lock is held. */
static ssize_t read_rows(struct table *t, uint64_t offset, char *buf, size_t n,
			 struct cell *cells, struct err *e)
{
	size_t done = 0;
	int r = open_db(t, e);

	if (r)
		return r;
	if (!t->cursor.it || t->cursor.offset != offset) {
		const struct index_entry *x = seek_entry(t, offset);

		if (!t->cursor.it)
			t->cursor.it = new_iterator(t);
		rocksdb_iter_seek(t->cursor.it, t->keys + x->key_at,
				  x->key_len);
		t->cursor.offset = x->offset;
		sb_reset(&t->cursor.line);
		t->cursor.at = 0;
		while (t->cursor.offset < offset) {
			uint64_t skip = offset - t->cursor.offset;

			r = cursor_line(t, cells, e);
			if (r <= 0)
				return r ? r
					 : err_set(e, EIO, "%s: index", t->dir);
			skip = MIN(skip, t->cursor.line.len);
			t->cursor.at = (size_t)skip;
			t->cursor.offset += skip;
		}
	}
	while (done < n) {
		size_t have = t->cursor.line.len - t->cursor.at;

		if (!have) {
			r = cursor_line(t, cells, e);
			if (r < 0)
				return r;
			if (!r)
				break;
			have = t->cursor.line.len;
		}
		have = MIN(have, n - done);
		memcpy(buf + done, t->cursor.line.buf + t->cursor.at, have);
		t->cursor.at += have;
		t->cursor.offset += have;
		done += have;
	}
	return (ssize_t)done;
}

ssize_t table_csv_read(struct table *t, uint64_t offset, void *buf, size_t n,
		       struct err *e)
{
	_cleanup_free_ struct cell *cells = NULL;
	size_t done = 0;
	ssize_t r;

	if (offset >= t->csv_size)
		return 0;
	n = (size_t)MIN((uint64_t)n, t->csv_size - offset);
	if (offset < t->header_len) {
		done = MIN(n, t->header_len - (size_t)offset);
		memcpy(buf, t->header + offset, done);
		if (done == n)
			return (ssize_t)done;
	}
	cells = xcalloc(t->schema->n_columns, sizeof(*cells));
	pthread_mutex_lock(&t->lock);
	r = read_rows(t, offset + done, (char *)buf + done, n - done, cells, e);
	if (r < 0 && t->cursor.it) {
		rocksdb_iter_destroy(t->cursor.it);
		t->cursor.it = NULL;
	}
	pthread_mutex_unlock(&t->lock);
	return r < 0 ? r : r + (ssize_t)done;
}

unsigned table_parts(const struct table *t)
{
	return (unsigned)t->n_parts;
}

static void part_range(const struct table *t, unsigned k, uint64_t *from,
		       uint64_t *to)
{
	*from = t->parts[k].offset;
	*to = k + 1 < t->n_parts ? t->parts[k + 1].offset : t->csv_size;
}

int table_part_size(struct table *t, unsigned k, uint64_t *ret, struct err *e)
{
	uint64_t from, to;

	if (k >= t->n_parts)
		return err_set(e, ENOENT, "no part %u", k);
	part_range(t, k, &from, &to);
	*ret = t->header_len + (to - from);
	return 0;
}

ssize_t table_part_read(struct table *t, unsigned k, uint64_t offset, void *buf,
			size_t n, struct err *e)
{
	uint64_t from, to, size;
	size_t done = 0;
	ssize_t r;

	if (k >= t->n_parts)
		return err_set(e, ENOENT, "no part %u", k);
	part_range(t, k, &from, &to);
	size = t->header_len + (to - from);
	if (offset >= size)
		return 0;
	n = (size_t)MIN((uint64_t)n, size - offset);
	if (offset < t->header_len) {
		done = MIN(n, t->header_len - (size_t)offset);
		memcpy(buf, t->header + offset, done);
	}
	if (done == n)
		return (ssize_t)done;
	r = table_csv_read(t, from + (offset + done - t->header_len),
			   (char *)buf + done, n - done, e);
	return r < 0 ? r : r + (ssize_t)done;
}

int table_row_csv(struct table *t, const char *key, size_t key_len,
		  struct strbuf *ret, struct err *e)
{
	_cleanup_free_ struct cell *cells = NULL;
	rocksdb_readoptions_t *ro;
	char *text = NULL, *v;
	size_t vlen;
	int r;

	pthread_mutex_lock(&t->lock);
	r = open_db(t, e);
	pthread_mutex_unlock(&t->lock);
	if (r)
		return r;
	ro = rocksdb_readoptions_create();
	v = rocksdb_get(t->db, ro, key, key_len, &vlen, &text);
	rocksdb_readoptions_destroy(ro);
	if (text)
		return rocks_err(e, t, text);
	if (!v)
		return -ENOENT;
	cells = xcalloc(t->schema->n_columns, sizeof(*cells));
	r = row_decode(t->schema, v, vlen, cells);
	if (!r)
		r = table_csv_line(ret, t->schema, key, key_len, cells);
	rocksdb_free(v);
	return r ? err_set(e, EIO, "%s: damaged row", t->dir) : 0;
}

int table_scan(struct table *t, const char *from, size_t from_len,
	       struct table_iter **ret, struct err *e)
{
	struct table_iter *it;
	int r;

	pthread_mutex_lock(&t->lock);
	r = open_db(t, e);
	pthread_mutex_unlock(&t->lock);
	if (r)
		return r;
	it = xcalloc(1, sizeof(*it));
	it->t = table_ref(t);
	it->it = new_iterator(t);
	it->cells = xcalloc(t->schema->n_columns, sizeof(*it->cells));
	if (from)
		rocksdb_iter_seek(it->it, from, from_len);
	else
		rocksdb_iter_seek_to_first(it->it);
	*ret = it;
	return 0;
}

int table_next(struct table_iter *it, const char **key, size_t *key_len,
	       const struct cell **cells, struct err *e)
{
	const char *v;
	size_t vlen;

	if (it->started)
		rocksdb_iter_next(it->it);
	it->started = true;
	if (!rocksdb_iter_valid(it->it)) {
		char *text = NULL;

		rocksdb_iter_get_error(it->it, &text);
		it->started = false; /* never step an ended iterator */
		return text ? rocks_err(e, it->t, text) : 0;
	}
	*key = rocksdb_iter_key(it->it, key_len);
	v = rocksdb_iter_value(it->it, &vlen);
	if (row_decode(it->t->schema, v, vlen, it->cells))
		return err_set(e, EIO, "%s: damaged row", it->t->dir);
	*cells = it->cells;
	return 1;
}

void table_scan_end(struct table_iter *it)
{
	if (!it)
		return;
	rocksdb_iter_destroy(it->it);
	free(it->cells);
	table_unref(it->t);
	free(it);
}
