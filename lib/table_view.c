// SPDX-License-Identifier: Apache-2.0
/*
 * The CSV view by offset.  A view renders rows into a window of text and
 * answers reads from it: on from there while reads go forward, else from the
 * entry of the index before the offset.
 */
#include "lib/table_priv.h"

#define AHEAD	   (512u << 10) /* text rendered before it is asked for */
#define BEHIND	   (256u << 10) /* and kept: requests overtake each other */
#define PIECE	   (1u << 20)	/* of a larger read */
#define AHEADS_MAX 32		/* views that have such windows */

static atomic_uint aheads;

struct table_view {
	struct table *t;
	atomic_uint refs;
	uint64_t from, to; /* of the rows, in the view of the whole table */

	pthread_mutex_t lock; /* guards all below */
	rocksdb_iterator_t *it;
	struct row_view row;
	struct strbuf window;
	uint64_t start;	  /* of the window, in the view of the whole table */
	uint64_t wanted;  /* behind the last byte that was asked for */
	unsigned forward; /* reads in a row that went on from there */
	bool ahead;	  /* counted in aheads */
};

int table_view_new(struct table *t, unsigned part, struct table_view **ret,
		   struct err *e)
{
	struct table_view *v;

	if (part > t->n_parts)
		return err_set(e, ENOENT, "no part %u", part - 1);
	v = xcalloc(1, sizeof(*v));
	v->t = table_ref(t);
	v->refs = 1;
	v->from = part ? t->parts[part - 1].offset : t->header_len;
	v->wanted = v->from;
	v->to = part && part < t->n_parts ? t->parts[part].offset : t->csv_size;
	pthread_mutex_init(&v->lock, NULL);
	row_view_init(&v->row, t->format, t->schema);
	sb_init(&v->window, 64u << 20);
	*ret = v;
	return 0;
}

struct table_view *table_view_ref(struct table_view *v)
{
	atomic_fetch_add(&v->refs, 1);
	return v;
}

void table_view_unref(struct table_view *v)
{
	if (!v || atomic_fetch_sub(&v->refs, 1) > 1)
		return;
	if (v->ahead)
		atomic_fetch_sub(&aheads, 1);
	if (v->it)
		rocksdb_iter_destroy(v->it);
	row_view_free(&v->row);
	sb_free(&v->window);
	pthread_mutex_destroy(&v->lock);
	table_unref(v->t);
	free(v);
}

uint64_t table_view_size(const struct table_view *v)
{
	return v->t->header_len + (v->to - v->from);
}

/* The last index entry at or before offset. */
static const struct index_entry *entry_at(const struct table *t,
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

static int damaged(const struct table_view *v, struct err *e)
{
	char *text = NULL;

	rocksdb_iter_get_error(v->it, &text);
	return text ? table_rocks_error(e, v->t->dir, text)
		    : err_set(e, EIO, "%s: damaged rows", v->t->dir);
}

/* The window begins with the line in which the offset is. */
static int seek(struct table_view *v, uint64_t offset, struct err *e)
{
	const struct index_entry *x = entry_at(v->t, offset);
	int r = table_open_db(v->t, e);

	if (r)
		return r;
	if (!v->it)
		v->it = rocks_iterator(v->t->db);
	rocksdb_iter_seek(v->it, v->t->keys + x->key_at, x->key_len);
	sb_reset(&v->window);
	v->start = x->offset;
	for (;;) {
		size_t key_len, n, line;
		const char *key, *val;

		if (!rocksdb_iter_valid(v->it))
			return damaged(v, e);
		key = rocksdb_iter_key(v->it, &key_len);
		val = rocksdb_iter_value(v->it, &n);
		if (row_view_line_size(&v->row, key, key_len, val, n, &line))
			return damaged(v, e);
		if (v->start + line > offset)
			return 0;
		v->start += line;
		rocksdb_iter_next(v->it);
	}
}

/* Text up to an offset, or to the end of the rows. */
static int render(struct table_view *v, uint64_t upto, struct err *e)
{
	while (v->start + v->window.len < upto) {
		size_t key_len, n;
		const char *key, *val;

		if (!rocksdb_iter_valid(v->it))
			return damaged(v, e);
		key = rocksdb_iter_key(v->it, &key_len);
		val = rocksdb_iter_value(v->it, &n);
		if (row_view_line(&v->row, &v->window, key, key_len, val, n))
			return damaged(v, e);
		rocksdb_iter_next(v->it);
	}
	return 0;
}

static void forget_before(struct table_view *v, uint64_t offset)
{
	size_t gone;

	if (offset < v->start + 2 * BEHIND)
		return;
	gone = (size_t)MIN(offset - BEHIND - v->start, (uint64_t)v->window.len);
	memmove(v->window.buf, v->window.buf + gone, v->window.len - gone);
	v->window.len -= gone;
	v->start += gone;
}

/* Body bytes, offset in the view of the whole table; with the lock held. */
static int read_rows(struct table_view *v, uint64_t offset, char *buf, size_t n,
		     struct err *e)
{
	uint64_t end = v->start + v->window.len;
	int r = 0;

	v->forward = offset <= v->wanted && offset + AHEAD >= v->wanted
			 ? v->forward + 1
			 : 0;
	if (!v->it || offset < v->start || offset > end + AHEAD) {
		r = seek(v, offset, e);
		v->forward = 0;
	}
	forget_before(v, offset);
	if (!r)
		r = render(v, offset + n, e);
	if (r) {
		/* Where it stands is not known: begin again next time. */
		if (v->it)
			rocksdb_iter_destroy(v->it);
		v->it = NULL;
		return r;
	}
	memcpy(buf, v->window.buf + (offset - v->start), n);
	v->wanted = offset + n;
	return 0;
}

ssize_t table_view_read(struct table_view *v, uint64_t offset, void *buf,
			size_t n, struct err *e)
{
	uint64_t size = table_view_size(v);
	size_t header = v->t->header_len, done = 0, k;
	int r = 0;

	if (offset >= size)
		return 0;
	n = (size_t)MIN((uint64_t)n, size - offset);
	if (offset < header) {
		done = MIN(n, header - (size_t)offset);
		memcpy(buf, v->t->header + offset, done);
	}
	if (done == n)
		return (ssize_t)n;
	offset = v->from + (offset + done - header);
	pthread_mutex_lock(&v->lock);
	for (; done < n && !r; done += k, offset += k) {
		k = MIN(n - done, PIECE);
		r = read_rows(v, offset, (char *)buf + done, k, e);
	}
	pthread_mutex_unlock(&v->lock);
	return r ? r : (ssize_t)n;
}

void table_view_ahead(struct table_view *v)
{
	struct err e;

	/* Somebody reads already: he renders himself. */
	if (pthread_mutex_trylock(&v->lock))
		return;
	if (!v->ahead && v->forward > 1)
		v->ahead = atomic_fetch_add(&aheads, 1) < AHEADS_MAX ||
			   (atomic_fetch_sub(&aheads, 1), false);
	if (v->ahead && v->forward && v->it) {
		forget_before(v, v->wanted);
		if (render(v, MIN(v->wanted + AHEAD, v->to), &e)) {
			rocksdb_iter_destroy(v->it);
			v->it = NULL;
		}
	}
	pthread_mutex_unlock(&v->lock);
}

/* ---- without a view of one's own ----------------------------------------- */

static ssize_t read_once(struct table *t, unsigned part, uint64_t offset,
			 void *buf, size_t n, struct err *e)
{
	struct table_view *v;
	ssize_t r = table_view_new(t, part, &v, e);

	if (r)
		return r;
	r = table_view_read(v, offset, buf, n, e);
	table_view_unref(v);
	return r;
}

ssize_t table_csv_read(struct table *t, uint64_t offset, void *buf, size_t n,
		       struct err *e)
{
	return read_once(t, 0, offset, buf, n, e);
}

unsigned table_parts(const struct table *t)
{
	return (unsigned)t->n_parts;
}

int table_part_size(struct table *t, unsigned k, uint64_t *ret, struct err *e)
{
	if (k >= t->n_parts)
		return err_set(e, ENOENT, "no part %u", k);
	*ret = t->header_len +
	       ((k + 1 < t->n_parts ? t->parts[k + 1].offset : t->csv_size) -
		t->parts[k].offset);
	return 0;
}

ssize_t table_part_read(struct table *t, unsigned k, uint64_t offset, void *buf,
			size_t n, struct err *e)
{
	return read_once(t, k + 1, offset, buf, n, e);
}
