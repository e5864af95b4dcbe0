// SPDX-License-Identifier: Apache-2.0
/*
 * Rows with the same key become one.  Each partition's rows are sorted 8 MiB
 * at a time, equal ones merged, and appended as a sorted run to one file
 * without a name; then all runs are merged through a heap.  Where a run ends
 * depends on the partition's rows alone and equal keys meet in the order of
 * partitions and runs, so the result does not depend on the threads.
 */
#include "lib/table_ops_priv.h"

#define ARENA_BYTES (8u << 20)
#define READ_BYTES  (16u << 20) /* of all runs together */
#define RUNS_MAX    65536u

struct record {
	uint32_t klen, vlen; /* key and row follow */
};

struct run {
	unsigned partition, number;
	uint64_t at, end; /* what of the file was not yet read */
	/* Only while runs are merged: */
	char *buf;
	size_t pos, have, alloc;
	struct record head;
	const char *key;
};

struct table_merge {
	struct table_store *store;
	const struct table_schema *schema;
	table_merge_fn *fn;
	void *arg;
	bool strings; /* the schema has some */
	int fd;
	pthread_mutex_t lock; /* guards the rest */
	uint64_t size;
	struct run *runs;
	size_t n_runs;
};

/* A row that others with the same key are merged into. */
struct sum {
	struct table_merge *m;
	struct cell *cells, *next;
	struct strbuf key, row, other; /* the cells' strings are in row */
};

struct table_merge_part {
	struct table_merge *m;
	unsigned partition, runs;
	struct strbuf arena;
	uint32_t *at; /* of the records in the arena */
	size_t n, n_alloc;
	struct strbuf row;
	struct sum sum;
};

/* ---- one row of several ------------------------------------------------ */

static void sum_init(struct sum *s, struct table_merge *m)
{
	*s = (struct sum){ .m = m };
	s->cells = xcalloc(m->schema->n_columns + 1, sizeof(*s->cells));
	s->next = xcalloc(m->schema->n_columns + 1, sizeof(*s->next));
	sb_init(&s->key, TABLE_KEY_MAX);
	sb_init(&s->row, CSV_LINE_MAX);
	sb_init(&s->other, CSV_LINE_MAX);
}

static void sum_free(struct sum *s)
{
	free(s->cells);
	free(s->next);
	sb_free(&s->key);
	sb_free(&s->row);
	sb_free(&s->other);
}

static int damaged(struct err *e)
{
	return err_set(e, EIO, "a row is not what it was");
}

static int sum_start(struct sum *s, const char *key, size_t klen,
		     const char *row, size_t n, struct err *e)
{
	sb_reset(&s->key);
	sb_add(&s->key, key, klen);
	sb_reset(&s->row);
	sb_add(&s->row, row, n);
	if (s->key.error || s->row.error)
		return err_set(e, ENOMEM, "merging rows");
	return row_decode(s->m->schema, s->row.buf, n, s->cells) ? damaged(e)
								 : 0;
}

static int sum_take(struct sum *s, const char *row, size_t n, struct err *e)
{
	struct table_merge *m = s->m;
	struct strbuf swap;
	int r;

	if (row_decode(m->schema, row, n, s->next))
		return damaged(e);
	r = m->fn(m->arg, s->key.buf, s->key.len, s->cells, s->next, e);
	if (r < 0 || !m->strings)
		return MIN(r, 0);
	/* Strings that fn made live until its next call only. */
	sb_reset(&s->other);
	if (row_encode(&s->other, m->schema, s->cells))
		return err_set(e, EMSGSIZE, "a row is larger than %u bytes",
			       CSV_LINE_MAX);
	swap = s->row;
	s->row = s->other;
	s->other = swap;
	return row_decode(m->schema, s->row.buf, s->row.len, s->cells)
		   ? damaged(e)
		   : 0;
}

/* ---- runs out ---------------------------------------------------------- */

int table_merge_begin(struct table_store *s, const struct table_schema *schema,
		      table_merge_fn *fn, void *arg, struct table_merge **ret,
		      struct err *e)
{
	struct table_merge *m;
	int fd = -1, r = table_temp_file(s, &fd, e);

	if (r)
		return r;
	m = xcalloc(1, sizeof(*m));
	m->store = s;
	m->schema = schema;
	m->fn = fn;
	m->arg = arg;
	m->fd = fd;
	for (size_t i = 0; i < schema->n_columns; i++)
		m->strings |= schema->columns[i].type == CELL_STRING;
	pthread_mutex_init(&m->lock, NULL);
	*ret = m;
	return 0;
}

void table_merge_end(struct table_merge *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->n_runs; i++)
		free(m->runs[i].buf);
	free(m->runs);
	close(m->fd);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

struct table_merge_part *table_merge_part(struct table_merge *m,
					  unsigned partition)
{
	struct table_merge_part *p = xcalloc(1, sizeof(*p));

	p->m = m;
	p->partition = partition;
	sb_init(&p->arena, ARENA_BYTES + 2 * CSV_LINE_MAX);
	sb_init(&p->row, CSV_LINE_MAX);
	sum_init(&p->sum, m);
	return p;
}

/* By key; equal ones stay in the order in which they came. */
static int compare_records(const void *pa, const void *pb, void *arena)
{
	uint32_t ia = *(const uint32_t *)pa, ib = *(const uint32_t *)pb;
	const char *a = (const char *)arena + ia, *b = (const char *)arena + ib;
	struct record ra, rb;
	int c;

	memcpy(&ra, a, sizeof(ra));
	memcpy(&rb, b, sizeof(rb));
	c = key_compare(a + sizeof(ra), ra.klen, b + sizeof(rb), rb.klen);
	return c ? c : (ia > ib) - (ia < ib);
}

static void add_record(struct strbuf *sb, const char *key, size_t klen,
		       const struct strbuf *row)
{
	const struct record r = { (uint32_t)klen, (uint32_t)row->len };

	sb_add(sb, &r, sizeof(r));
	sb_add(sb, key, klen);
	sb_add(sb, row->buf, row->len);
}

static int write_run(struct table_merge_part *p, const struct strbuf *out,
		     struct err *e)
{
	struct table_merge *m = p->m;
	uint64_t at;
	int r;

	pthread_mutex_lock(&m->lock);
	at = m->size;
	if (m->n_runs < RUNS_MAX) {
		m->size += out->len;
		m->runs = xrealloc(m->runs, (m->n_runs + 1) * sizeof(*m->runs));
		m->runs[m->n_runs++] = (struct run){ .partition = p->partition,
						     .number = p->runs++,
						     .at = at,
						     .end = at + out->len };
	} else {
		at = UINT64_MAX;
	}
	pthread_mutex_unlock(&m->lock);
	if (at == UINT64_MAX)
		return err_set(e, EFBIG, "more than %u sorted runs", RUNS_MAX);
	r = pwrite_all(m->fd, out->buf, out->len, at);
	return r ? err_sys(e, -r, "sorting") : 0;
}

static int sum_record(struct sum *s, struct strbuf *out, struct err *e)
{
	sb_reset(&s->other);
	if (row_encode(&s->other, s->m->schema, s->cells))
		return err_set(e, EMSGSIZE, "a row is larger than %u bytes",
			       CSV_LINE_MAX);
	add_record(out, s->key.buf, s->key.len, &s->other);
	return 0;
}

/* The arena, sorted and merged, becomes a run. */
static int spill(struct table_merge_part *p, struct err *e)
{
	_cleanup_strbuf_ struct strbuf out =
	    STRBUF_INIT(2u * ARENA_BYTES + 4u * CSV_LINE_MAX);
	struct sum *s = &p->sum;
	bool started = false;
	int r = 0;

	if (!p->n)
		return 0;
	qsort_r(p->at, p->n, sizeof(*p->at), compare_records, p->arena.buf);
	for (size_t i = 0; i < p->n && !r; i++) {
		const char *rec = p->arena.buf + p->at[i], *key;
		struct record h;

		memcpy(&h, rec, sizeof(h));
		key = rec + sizeof(h);
		if (started && h.klen == s->key.len &&
		    !memcmp(key, s->key.buf, h.klen)) {
			r = sum_take(s, key + h.klen, h.vlen, e);
			continue;
		}
		if (started)
			r = sum_record(s, &out, e);
		if (!r)
			r = sum_start(s, key, h.klen, key + h.klen, h.vlen, e);
		started = true;
	}
	if (!r)
		r = sum_record(s, &out, e);
	if (!r && out.error)
		r = err_sys(e, -out.error, "sorting");
	p->n = 0;
	sb_reset(&p->arena);
	return r ? r : write_run(p, &out, e);
}

int table_merge_add(struct table_merge_part *p, const char *key, size_t len,
		    const struct cell *cells, struct err *e)
{
	if (!len || len > TABLE_KEY_MAX)
		return err_set(e, EINVAL, "an id of %zu bytes (1 to %d)", len,
			       TABLE_KEY_MAX);
	sb_reset(&p->row);
	if (row_encode(&p->row, p->m->schema, cells))
		return err_set(e, EMSGSIZE, "a row is larger than %u bytes",
			       CSV_LINE_MAX);
	if (p->arena.len + p->row.len + len > ARENA_BYTES) {
		int r = spill(p, e);

		if (r)
			return r;
	}
	if (p->n == p->n_alloc) {
		p->n_alloc = p->n_alloc ? 2 * p->n_alloc : 256;
		p->at = xrealloc(p->at, p->n_alloc * sizeof(*p->at));
	}
	p->at[p->n++] = (uint32_t)p->arena.len;
	add_record(&p->arena, key, len, &p->row);
	return p->arena.error ? err_sys(e, -p->arena.error, "sorting") : 0;
}

int table_merge_close(struct table_merge_part *p, struct err *e)
{
	int r = spill(p, e);

	sb_free(&p->arena);
	sb_free(&p->row);
	sum_free(&p->sum);
	free(p->at);
	free(p);
	return r;
}

/* ---- runs in ----------------------------------------------------------- */

/* More bytes behind those that could not be used yet. */
static int run_more(const struct table_merge *m, struct run *r, size_t want,
		    struct err *e)
{
	size_t left = r->have - r->pos, n;
	int x;

	memmove(r->buf, r->buf + r->pos, left);
	r->pos = 0;
	r->have = left;
	if (want > r->alloc) {
		r->alloc = want;
		r->buf = xrealloc(r->buf, r->alloc);
	}
	n = (size_t)MIN((uint64_t)(r->alloc - left), r->end - r->at);
	x = pread_all(m->fd, r->buf + left, n, r->at);
	if (x)
		return err_sys(e, -x, "sorting");
	r->have += n;
	r->at += n;
	return r->have < want ? err_set(e, EIO, "sorting: a run is cut short")
			      : 0;
}

/* The next record; 1, 0 at the end. */
static int run_step(const struct table_merge *m, struct run *r, struct err *e)
{
	int x;

	if (r->key)
		r->pos += sizeof(r->head) + r->head.klen + r->head.vlen;
	r->key = NULL;
	if (r->pos == r->have && r->at == r->end)
		return 0;
	if (r->have - r->pos < sizeof(r->head)) {
		x = run_more(m, r, sizeof(r->head), e);
		if (x)
			return x;
	}
	memcpy(&r->head, r->buf + r->pos, sizeof(r->head));
	if (r->have - r->pos < sizeof(r->head) + r->head.klen + r->head.vlen) {
		x = run_more(m, r,
			     sizeof(r->head) + r->head.klen + r->head.vlen, e);
		if (x)
			return x;
	}
	r->key = r->buf + r->pos + sizeof(r->head);
	return 1;
}

static bool before(const struct run *a, const struct run *b)
{
	int c = key_compare(a->key, a->head.klen, b->key, b->head.klen);

	return c ? c < 0 : a < b; /* runs lie in order of their partitions */
}

static void sift_down(struct run **heap, size_t n, size_t i)
{
	for (;;) {
		size_t least = i, l = 2 * i + 1, r = l + 1;
		struct run *swap;

		if (l < n && before(heap[l], heap[least]))
			least = l;
		if (r < n && before(heap[r], heap[least]))
			least = r;
		if (least == i)
			return;
		swap = heap[i];
		heap[i] = heap[least];
		heap[least] = swap;
		i = least;
	}
}

static int compare_runs(const void *pa, const void *pb)
{
	const struct run *a = pa, *b = pb;

	if (a->partition != b->partition)
		return a->partition < b->partition ? -1 : 1;
	return (a->number > b->number) - (a->number < b->number);
}

static int heap_begin(struct table_merge *m, struct run **heap, size_t *ret_n,
		      struct err *e)
{
	size_t bytes = MIN(MAX(READ_BYTES / (m->n_runs + 1), (size_t)4096),
			   (size_t)(256u << 10));
	size_t n = 0;

	if (m->n_runs)
		qsort(m->runs, m->n_runs, sizeof(*m->runs), compare_runs);
	for (size_t i = 0; i < m->n_runs; i++) {
		struct run *r = &m->runs[i];
		int x;

		r->alloc = bytes;
		r->buf = xmalloc(bytes);
		x = run_step(m, r, e);
		if (x < 0)
			return x;
		if (x)
			heap[n++] = r;
	}
	for (size_t i = n / 2; i-- > 0;)
		sift_down(heap, n, i);
	*ret_n = n;
	return 0;
}

static int merge_all(struct table_merge *m, const struct table_job *j,
		     struct run **heap, size_t n, struct sum *s,
		     struct table_build *out, struct err *e)
{
	bool started = false;
	unsigned rows = 0;
	int r = 0;

	while (n && r >= 0) {
		struct run *top = heap[0];
		const char *row = top->key + top->head.klen;

		if (++rows % 1024 == 0 && table_job_stopped(j, 0))
			return err_set(e, ECANCELED, "canceled");
		if (started && top->head.klen == s->key.len &&
		    !memcmp(top->key, s->key.buf, s->key.len)) {
			r = sum_take(s, row, top->head.vlen, e);
		} else {
			if (started)
				r = table_build_add(out, s->key.buf, s->key.len,
						    s->cells, e);
			if (r >= 0)
				r = sum_start(s, top->key, top->head.klen, row,
					      top->head.vlen, e);
			started = true;
		}
		if (r >= 0)
			r = run_step(m, top, e);
		if (r == 0)
			heap[0] = heap[--n];
		sift_down(heap, n, 0);
	}
	return r >= 0 && started
		   ? table_build_add(out, s->key.buf, s->key.len, s->cells, e)
		   : MIN(r, 0);
}

int table_merge_out(struct table_merge *m, const struct table_job *j,
		    struct table_build *out, struct err *e)
{
	_cleanup_free_ struct run **heap =
	    xcalloc(m->n_runs + 1, sizeof(struct run *));
	struct sum s;
	size_t n = 0;
	int r = heap_begin(m, heap, &n, e);

	sum_init(&s, m);
	if (!r)
		r = merge_all(m, j, heap, n, &s, out, e);
	sum_free(&s);
	return r;
}
