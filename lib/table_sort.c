// SPDX-License-Identifier: Apache-2.0
/* Arenas of rows, sorted runs on disk, and their merge. */
#include <endian.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "lib/table_sort.h"

#define RECORD_MAX   (sizeof(struct record) + TABLE_KEY_MAX + CSV_LINE_MAX)
#define PAGE	     65536u /* a multiple of the machine's */
#define ARENA_MAPPED (ARENA_BYTES + RECORD_MAX + ROW_SLACK)
#define MARK_EVERY   (256u << 10)
#define MARK_KEYS    1024 /* times its key: marks stay far below the rows */
#define MERGE_BYTES  (16u << 20)  /* of buffers, over all runs of a merge */
#define SOURCE_BYTES (256u << 10) /* of one of them at most */

/* In arenas and runs: this head, key, value. */
struct record {
	uint32_t key_len, val_len;
	uint64_t line;
};

int duplicate_id(uint64_t a, uint64_t b, struct err *e)
{
	if (!a || !b)
		return err_set(e, EEXIST, "two rows have the same id");
	return err_set(
	    e, EEXIST, "line %llu column 1: the same id as on line %llu",
	    (unsigned long long)MAX(a, b), (unsigned long long)MIN(a, b));
}

/* A record's row, and where the next record is. */
static const char *record_row(const char *p, struct row *ret)
{
	struct record r;

	memcpy(&r, p, sizeof(r));
	p += sizeof(r);
	*ret = (struct row){ .key = p,
			     .key_len = r.key_len,
			     .val = p + r.key_len,
			     .val_len = r.val_len,
			     .line = r.line };
	return p + r.key_len + r.val_len;
}

/* ---- arenas -------------------------------------------------------------- */

struct sort_item {
	uint64_t prefix; /* of the key, behind what all keys begin with */
	uint32_t at, key_len;
};

int arena_init(struct arena *a, struct err *e)
{
	void *p = mmap(NULL, ARENA_MAPPED, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return err_sys(e, errno, "memory to sort rows");
	*a = (struct arena){ .buf = p, .in_order = true };
	return 0;
}

void arena_free(struct arena *a)
{
	if (a->buf)
		(void)munmap(a->buf, ARENA_MAPPED);
	free(a->items);
	free(a->spare);
	*a = (struct arena){ 0 };
}

void arena_reset(struct arena *a)
{
	a->top = MAX(a->top, a->len);
	a->len = 0;
	a->n = 0;
	a->in_order = true;
}

void arena_trim(struct arena *a, size_t limit)
{
	if (!a->buf || a->top <= limit)
		return;
	limit = (limit + PAGE - 1) / PAGE * PAGE;
	(void)madvise(a->buf + limit, ARENA_MAPPED - limit, MADV_DONTNEED);
	a->top = limit;
	free(TAKE_PTR(a->items));
	free(TAKE_PTR(a->spare));
	a->n_items = 0;
}

char *arena_room(struct arena *a, size_t limit, size_t key_len, size_t n)
{
	size_t want = sizeof(struct record) + key_len + n;

	if (a->n && a->len + want > limit)
		return NULL;
	return a->buf + a->len + sizeof(struct record) + key_len;
}

void arena_add(struct arena *a, const char *key, size_t key_len, size_t n,
	       uint64_t line)
{
	struct record r = { (uint32_t)key_len, (uint32_t)n, line };
	char *p = a->buf + a->len;

	memcpy(p, &r, sizeof(r));
	memcpy(p + sizeof(r), key, key_len);
	a->len += sizeof(r) + key_len + n;
	a->n++;
}

static uint64_t prefix_of(const char *key, size_t n, size_t skip)
{
	uint64_t v = 0;

	if (n > skip)
		memcpy(&v, key + skip, MIN(n - skip, sizeof(v)));
	return be64toh(v);
}

static size_t same_bytes(const char *a, const char *b, size_t n)
{
	size_t i = 0;

	while (i < n && a[i] == b[i])
		i++;
	return i;
}

/* All items, in the order of the arena; *ret_common: what keys begin with. */
static void list_items(struct arena *a, size_t *ret_common)
{
	const char *p = a->buf, *first = NULL;
	size_t common = 0;
	struct row row;

	if (a->n > a->n_items) {
		a->n_items = a->n + a->n / 8;
		free(a->items);
		free(a->spare);
		a->items = xmalloc(a->n_items * sizeof(*a->items));
		a->spare = xmalloc(a->n_items * sizeof(*a->spare));
	}
	for (size_t i = 0; i < a->n; i++) {
		const char *at = p;

		p = record_row(at, &row);
		if (!i) {
			first = row.key;
			common = row.key_len;
		}
		common = same_bytes(first, row.key, MIN(common, row.key_len));
		a->items[i].at = (uint32_t)(at - a->buf);
		a->items[i].key_len = row.key_len;
	}
	*ret_common = common;
}

static const char *item_key(const struct arena *a, const struct sort_item *x)
{
	return a->buf + x->at + sizeof(struct record);
}

/* Least significant byte first; bytes that are all the same cost nothing. */
static void radix_sort(struct arena *a)
{
	static const unsigned bytes = sizeof(a->items->prefix);
	_cleanup_free_ uint32_t(*count)[256] = xcalloc(bytes, sizeof(*count));

	for (size_t i = 0; i < a->n; i++)
		for (unsigned b = 0; b < bytes; b++)
			count[b][a->items[i].prefix >> 8 * b & 0xff]++;
	for (unsigned b = 0; b < bytes; b++) {
		struct sort_item *from = a->items;
		uint32_t at = 0;

		if (count[b][from[0].prefix >> 8 * b & 0xff] == a->n)
			continue;
		for (unsigned k = 0; k < 256; k++) {
			uint32_t n = count[b][k];

			count[b][k] = at;
			at += n;
		}
		for (size_t i = 0; i < a->n; i++)
			a->spare[count[b][from[i].prefix >> 8 * b & 0xff]++] =
			    from[i];
		a->items = a->spare;
		a->spare = from;
	}
}

static int compare_items(const void *pa, const void *pb, void *arg)
{
	const struct sort_item *x = pa, *y = pb;
	int c = key_compare(item_key(arg, x), x->key_len, item_key(arg, y),
			    y->key_len);

	return c ? c : (x->at > y->at) - (x->at < y->at);
}

/* Items of the same prefix; the radix sort has not moved equal keys. */
static void sort_group(struct arena *a, struct sort_item *x, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if (compare_items(&x[i - 1], &x[i], a) > 0) {
			qsort_r(x, n, sizeof(*x), compare_items, a);
			return;
		}
}

void arena_sort(struct arena *a)
{
	size_t common, from = 0;

	if (!a->n)
		return;
	list_items(a, &common);
	if (a->in_order)
		return;
	for (size_t i = 0; i < a->n; i++)
		a->items[i].prefix = prefix_of(item_key(a, &a->items[i]),
					       a->items[i].key_len, common);
	radix_sort(a);
	for (size_t i = 1; i <= a->n; i++) {
		if (i < a->n && a->items[i].prefix == a->items[from].prefix)
			continue;
		sort_group(a, a->items + from, i - from);
		from = i;
	}
}

int arena_rows(const struct arena *a, row_fn fn, void *arg, struct err *e)
{
	struct row row;
	int r = 0;

	for (size_t i = 0; i < a->n && !r; i++) {
		if (i + 8 < a->n) {
			const char *ahead = a->buf + a->items[i + 8].at;

			__builtin_prefetch(ahead);
			__builtin_prefetch(ahead + 64);
			__builtin_prefetch(ahead + 128);
		}
		(void)record_row(a->buf + a->items[i].at, &row);
		r = fn(arg, &row, e);
	}
	return r;
}

/* ---- runs ---------------------------------------------------------------- */

struct run_mark {
	uint64_t offset;
	uint32_t key_at, key_len;
};

struct run_writer {
	struct run run;
	int fd;
	char *buf;
	size_t len;
	uint64_t marked;
	char last[TABLE_KEY_MAX];
	uint32_t last_len;
	uint64_t last_line;
};

#define WRITE_BYTES (256u << 10)

void run_free(struct run *r)
{
	if (r->path)
		(void)unlink(r->path);
	if (r->path && r->fd >= 0)
		close(r->fd);
	free(r->path);
	free(r->marks);
	sb_free(&r->keys);
	r->path = NULL;
	r->marks = NULL;
}

int runs_open(struct run *runs, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		runs[i].fd = open(runs[i].path, O_RDONLY | O_CLOEXEC);
		if (runs[i].fd >= 0)
			continue;
		err_sys(e, errno, "%s", runs[i].path);
		while (i-- > 0) {
			close(runs[i].fd);
			runs[i].fd = -1;
		}
		return e ? -e->no : -EIO;
	}
	return 0;
}

int run_writer_new(const char *path, struct run_writer **ret, struct err *e)
{
	struct run_writer *w;
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_sys(e, errno, "%s", path);
	w = xcalloc(1, sizeof(*w));
	w->fd = fd;
	w->buf = xmalloc(WRITE_BYTES + RECORD_MAX);
	w->run.path = xstrdup(path);
	w->run.fd = -1;
	sb_init(&w->run.keys, 1u << 30);
	*ret = w;
	return 0;
}

static int write_out(struct run_writer *w, struct err *e)
{
	int r = write_all(w->fd, w->buf, w->len);

	w->len = 0;
	return r ? err_sys(e, -r, "%s", w->run.path) : 0;
}

static int add_mark(struct run_writer *w, const struct row *row)
{
	struct run *r = &w->run;

	/* A power of two: it is full. */
	if (!(r->n_marks & (r->n_marks - 1)))
		r->marks = xrealloc(r->marks,
				    MAX(1, 2 * r->n_marks) * sizeof(*r->marks));
	r->marks[r->n_marks++] =
	    (struct run_mark){ .offset = r->size,
			       .key_at = (uint32_t)r->keys.len,
			       .key_len = row->key_len };
	w->marked = r->size;
	return sb_add(&r->keys, row->key, row->key_len);
}

int run_writer_add(void *arg, const struct row *row, struct err *e)
{
	struct run_writer *w = arg;
	struct record r = { row->key_len, row->val_len, row->line };
	char *p = w->buf + w->len;
	size_t n;

	if (w->run.rows && w->last_len == row->key_len &&
	    !memcmp(w->last, row->key, w->last_len))
		return duplicate_id(w->last_line, row->line, e);
	memcpy(w->last, row->key, row->key_len);
	w->last_len = row->key_len;
	w->last_line = row->line;
	if ((!w->run.n_marks ||
	     w->run.size - w->marked >= MARK_EVERY + MARK_KEYS * w->last_len) &&
	    add_mark(w, row))
		return err_set(e, EFBIG, "too many rows");
	memcpy(p, &r, sizeof(r));
	p += sizeof(r);
	memcpy(p, row->key, row->key_len);
	p += row->key_len;
	if (row->val_len)
		memcpy(p, row->val, row->val_len);
	n = sizeof(r) + row->key_len + row->val_len;
	w->len += n;
	w->run.size += n;
	w->run.largest = MAX(w->run.largest, n);
	w->run.rows++;
	return w->len < WRITE_BYTES ? 0 : write_out(w, e);
}

int run_put(struct strbuf *sb, const struct row *row)
{
	const struct record r = { row->key_len, row->val_len, row->line };

	sb_add(sb, &r, sizeof(r));
	sb_add(sb, row->key, row->key_len);
	return sb_add(sb, row->val, row->val_len);
}

int run_writer_end(struct run_writer *w, int r, struct run *ret, struct err *e)
{
	if (!r)
		r = write_out(w, e);
	if (r)
		run_free(&w->run);
	else
		*ret = w->run;
	close(w->fd);
	free(w->buf);
	free(w);
	return r;
}

/* ---- merging ------------------------------------------------------------- */

/* A run being read. */
struct source {
	const struct run *run;
	uint64_t offset; /* of what is read next from the file */
	char *buf;
	size_t alloc, at, len;
	struct row row;
	uint64_t prefix; /* of its key */
};

static bool before(const struct source *a, const struct source *b)
{
	int c;

	if (a->prefix != b->prefix)
		return a->prefix < b->prefix;
	c = key_compare(a->row.key, a->row.key_len, b->row.key, b->row.key_len);
	return c ? c < 0 : a->run->order < b->run->order;
}

static int bad_run(const struct source *s, struct err *e)
{
	return err_set(e, EIO, "%s: damaged or cut short",
		       s->run->path ? s->run->path : "sorted rows");
}

/* At least want bytes behind at, as long as the file has them. */
static int fill(struct source *s, size_t want, struct err *e)
{
	size_t left = s->len - s->at, n;
	int r;

	if (left >= want)
		return 0;
	memmove(s->buf, s->buf + s->at, left);
	s->at = 0;
	s->len = left;
	if (want + ROW_SLACK > s->alloc) {
		s->alloc = want + ROW_SLACK;
		s->buf = xrealloc(s->buf, s->alloc);
	}
	n = (size_t)MIN((uint64_t)(s->alloc - ROW_SLACK - left),
			s->run->size - s->offset);
	if (left + n < want)
		return bad_run(s, e);
	r = pread_all(s->run->fd, s->buf + left, n, s->run->base + s->offset);
	if (r)
		return r == -EPIPE ? bad_run(s, e)
				   : err_sys(e, -r, "sorted rows");
	s->offset += n;
	s->len += n;
	return 0;
}

/* The next row: 1, or 0 at the end. */
static int next_row(struct source *s, struct err *e)
{
	struct record head;
	int r;

	if (s->at == s->len && s->offset == s->run->size)
		return 0;
	r = fill(s, sizeof(head), e);
	if (r)
		return r;
	memcpy(&head, s->buf + s->at, sizeof(head));
	if (head.key_len > TABLE_KEY_MAX || head.val_len > CSV_LINE_MAX)
		return bad_run(s, e);
	r = fill(s, sizeof(head) + head.key_len + head.val_len, e);
	if (r)
		return r;
	s->at = (size_t)(record_row(s->buf + s->at, &s->row) - s->buf);
	s->prefix = prefix_of(s->row.key, s->row.key_len, 0);
	return 1;
}

struct merge {
	struct source *sources, **heap;
	size_t n, heaped;
	const struct key_range *range;
};

static void sift_down(struct merge *m, size_t i)
{
	struct source *s = m->heap[i];

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= m->heaped)
			break;
		if (child + 1 < m->heaped &&
		    before(m->heap[child + 1], m->heap[child]))
			child++;
		if (!before(m->heap[child], s))
			break;
		m->heap[i] = m->heap[child];
		i = child;
	}
	m->heap[i] = s;
}

static bool behind(const struct source *s, const struct key_range *x)
{
	return x->to &&
	       key_compare(s->row.key, s->row.key_len, x->to, x->to_len) >= 0;
}

/* To the first row of the range; 1, or 0 when there is none. */
static int enter(struct source *s, const struct key_range *x, struct err *e)
{
	size_t lo = 0, hi = s->run->n_marks;
	int r;

	while (x->from && hi - lo > 1) {
		size_t mid = (lo + hi) / 2;
		const struct run_mark *k = &s->run->marks[mid];

		if (key_compare(s->run->keys.buf + k->key_at, k->key_len,
				x->from, x->from_len) <= 0)
			lo = mid;
		else
			hi = mid;
	}
	s->offset = s->run->n_marks ? s->run->marks[lo].offset : 0;
	do {
		r = next_row(s, e);
	} while (r == 1 && x->from &&
		 key_compare(s->row.key, s->row.key_len, x->from, x->from_len) <
		     0);
	return r == 1 && behind(s, x) ? 0 : r;
}

static int merge_begin(struct merge *m, const struct run *runs, size_t n,
		       struct err *e)
{
	m->sources = xcalloc(n, sizeof(*m->sources));
	m->heap = xcalloc(n, sizeof(struct source *));
	m->n = n;
	for (size_t i = 0; i < n; i++) {
		struct source *s = &m->sources[i];
		int r;

		s->run = &runs[i];
		s->alloc = MAX(MIN(MERGE_BYTES / n, SOURCE_BYTES), 4096);
		s->buf = xmalloc(s->alloc);
		r = enter(s, m->range, e);
		if (r < 0)
			return r;
		if (r)
			m->heap[m->heaped++] = s;
	}
	for (size_t i = m->heaped / 2; i-- > 0;)
		sift_down(m, i);
	return 0;
}

static void merge_end(struct merge *m)
{
	for (size_t i = 0; i < m->n; i++)
		free(m->sources[i].buf);
	free(m->sources);
	free(m->heap);
}

static bool is_set(const atomic_bool *flag)
{
	return flag && atomic_load(flag);
}

int runs_merge(const struct run *runs, size_t n, const struct key_range *range,
	       const struct merge_watch *watch, row_fn fn, void *arg,
	       struct err *e)
{
	struct merge m = { .range = range };
	uint64_t rows = 0;
	int r = merge_begin(&m, runs, n, e);

	while (!r && m.heaped) {
		struct source *s = m.heap[0];

		r = fn(arg, &s->row, e);
		if (r)
			break;
		r = next_row(s, e);
		if (r < 0)
			break;
		if (!r || behind(s, range))
			m.heap[0] = m.heap[--m.heaped];
		r = 0;
		if (m.heaped)
			sift_down(&m, 0);
		if (++rows % 4096)
			continue;
		atomic_fetch_add(watch->rows, 4096);
		if (is_set(watch->stop) || is_set(watch->failed))
			r = err_set(e, EINTR, "stopped");
	}
	merge_end(&m);
	return r;
}

static int by_key(const void *pa, const void *pb)
{
	const struct key_range *a = pa, *b = pb;

	return key_compare(a->from, a->from_len, b->from, b->from_len);
}

size_t runs_split(const struct run *runs, size_t n_runs, size_t n,
		  struct key_range *ret)
{
	_cleanup_free_ struct key_range *all = NULL;
	size_t marks = 0, k = 0, ranges = 1;

	for (size_t i = 0; i < n_runs; i++)
		marks += runs[i].n_marks;
	all = xcalloc(marks, sizeof(*all));
	for (size_t i = 0; i < n_runs; i++)
		for (size_t j = 0; j < runs[i].n_marks; j++) {
			const struct run_mark *m = &runs[i].marks[j];

			all[k].from = runs[i].keys.buf + m->key_at;
			all[k++].from_len = m->key_len;
		}
	qsort(all, marks, sizeof(*all), by_key);
	ret[0] = (struct key_range){ 0 };
	for (size_t i = 1; i < n && marks; i++) {
		const struct key_range *cut = &all[i * marks / n];
		struct key_range *last = &ret[ranges - 1];

		if (last->from && !by_key(last, cut))
			continue;
		last->to = cut->from;
		last->to_len = cut->from_len;
		ret[ranges++] = (struct key_range){ .from = cut->from,
						    .from_len = cut->from_len };
	}
	return ranges;
}
