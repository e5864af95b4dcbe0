// SPDX-License-Identifier: Apache-2.0
/*
 * Rows with the same key become one.  Each partition's rows are sorted 8 MiB
 * at a time, equal ones merged, and appended as a sorted run (table_sort.h) to
 * one file without a name; then all runs are merged.  Where a run ends depends
 * on the partition's rows alone and equal keys meet in the order of partitions
 * and runs, so the result does not depend on the threads.
 */
#include "lib/table_ops_priv.h"
#include "lib/table_sort.h"

#define SORT_BYTES (8u << 20) /* of rows of a partition, in memory */
#define RUNS_MAX   65536u

struct table_merge {
	struct table_store *store;
	const struct table_schema *schema;
	table_merge_fn *fn;
	void *arg;
	bool strings; /* the schema has some */
	int fd;
	pthread_mutex_t lock; /* guards the rest */
	uint64_t size;
	struct run *runs; /* pieces of the file */
	size_t n_runs;
};

/* A row that others with the same key are merged into. */
struct sum {
	struct table_merge *m;
	bool started;
	struct cell *cells, *next;
	struct strbuf key, row, other; /* the cells' strings are in row */
	/* Where it goes when no more come. */
	int (*emit)(struct sum *s, struct err *e);
	void *to;
};

struct table_merge_part {
	struct table_merge *m;
	unsigned partition, runs;
	struct arena arena;
	struct sum sum;
};

/* ---- one row of several ------------------------------------------------ */

static void sum_init(struct sum *s, struct table_merge *m,
		     int (*emit)(struct sum *s, struct err *e), void *to)
{
	*s = (struct sum){ .m = m, .emit = emit, .to = to };
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

static int too_large(struct err *e)
{
	return err_set(e, EMSGSIZE, "a row is larger than %u bytes",
		       CSV_LINE_MAX);
}

static int sum_start(struct sum *s, const struct row *row, struct err *e)
{
	s->started = true;
	sb_reset(&s->key);
	sb_add(&s->key, row->key, row->key_len);
	sb_reset(&s->row);
	sb_add(&s->row, row->val, row->val_len);
	if (s->key.error || s->row.error)
		return err_set(e, ENOMEM, "merging rows");
	return row_decode(s->m->schema, s->row.buf, s->row.len, s->cells)
		   ? damaged(e)
		   : 0;
}

static int sum_take(struct sum *s, const struct row *row, struct err *e)
{
	struct table_merge *m = s->m;
	struct strbuf swap;
	int r;

	if (row_decode(m->schema, row->val, row->val_len, s->next))
		return damaged(e);
	r = m->fn(m->arg, s->key.buf, s->key.len, s->cells, s->next, e);
	if (r < 0 || !m->strings)
		return MIN(r, 0);
	/* Strings that fn made live until its next call only. */
	sb_reset(&s->other);
	if (row_encode(&s->other, m->schema, s->cells))
		return too_large(e);
	swap = s->row;
	s->row = s->other;
	s->other = swap;
	return row_decode(m->schema, s->row.buf, s->row.len, s->cells)
		   ? damaged(e)
		   : 0;
}

/* What has been merged until now is whole. */
static int sum_end(struct sum *s, struct err *e)
{
	bool started = s->started;

	s->started = false;
	return started ? s->emit(s, e) : 0;
}

/* A row_fn: rows in order of their keys. */
static int sum_row(void *arg, const struct row *row, struct err *e)
{
	struct sum *s = arg;
	int r;

	if (s->started && row->key_len == s->key.len &&
	    !memcmp(row->key, s->key.buf, s->key.len))
		return sum_take(s, row, e);
	r = sum_end(s, e);
	return r ? r : sum_start(s, row, e);
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
	free(m->runs);
	close(m->fd);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

/* Appends it to the run that is made. */
static int emit_record(struct sum *s, struct err *e)
{
	struct row row = { .key = s->key.buf, .key_len = (uint32_t)s->key.len };
	int r;

	sb_reset(&s->other);
	if (row_encode(&s->other, s->m->schema, s->cells))
		return too_large(e);
	row.val = s->other.buf;
	row.val_len = (uint32_t)s->other.len;
	r = run_put(s->to, &row);
	return r ? err_sys(e, -r, "sorting") : 0;
}

struct table_merge_part *table_merge_part(struct table_merge *m,
					  unsigned partition)
{
	struct table_merge_part *p = xcalloc(1, sizeof(*p));

	p->m = m;
	p->partition = partition;
	sum_init(&p->sum, m, emit_record, NULL);
	return p;
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
		m->runs[m->n_runs++] = (struct run){
			.fd = m->fd,
			.base = at,
			.size = out->len,
			.order = (uint64_t)p->partition << 32 | p->runs++,
		};
	} else {
		at = UINT64_MAX;
	}
	pthread_mutex_unlock(&m->lock);
	if (at == UINT64_MAX)
		return err_set(e, EFBIG, "more than %u sorted runs", RUNS_MAX);
	r = pwrite_all(m->fd, out->buf, out->len, at);
	return r ? err_sys(e, -r, "sorting") : 0;
}

/* The arena, sorted and merged, becomes a run. */
static int spill(struct table_merge_part *p, struct err *e)
{
	_cleanup_strbuf_ struct strbuf out =
	    STRBUF_INIT(2u * SORT_BYTES + 4u * CSV_LINE_MAX);
	struct sum *s = &p->sum;
	int r;

	if (!p->arena.n)
		return 0;
	s->to = &out;
	p->arena.in_order = false;
	arena_sort(&p->arena);
	r = arena_rows(&p->arena, sum_row, s, e);
	if (!r)
		r = sum_end(s, e);
	arena_reset(&p->arena);
	return r ? r : write_run(p, &out, e);
}

int table_merge_add(struct table_merge_part *p, const char *key, size_t len,
		    const struct cell *cells, struct err *e)
{
	const struct table_schema *s = p->m->schema;
	size_t n = row_size_max(ROWS_CELLS, s, cells);
	char *to;
	int r = 0;

	if (!len || len > TABLE_KEY_MAX)
		return err_set(e, EINVAL, "an id of %zu bytes (1 to %d)", len,
			       TABLE_KEY_MAX);
	if (n > CSV_LINE_MAX)
		return too_large(e);
	if (!p->arena.buf)
		r = arena_init(&p->arena, e);
	else if (!arena_room(&p->arena, SORT_BYTES, len, n))
		r = spill(p, e);
	if (r)
		return r;
	to = arena_room(&p->arena, SORT_BYTES, len, n);
	n = row_put(ROWS_CELLS, s, cells, to);
	arena_add(&p->arena, key, len, n, 0);
	return 0;
}

int table_merge_close(struct table_merge_part *p, struct err *e)
{
	int r = spill(p, e);

	arena_free(&p->arena);
	sum_free(&p->sum);
	free(p);
	return r;
}

/* ---- runs in ----------------------------------------------------------- */

static int emit_row(struct sum *s, struct err *e)
{
	return table_build_add(s->to, s->key.buf, s->key.len, s->cells, e);
}

int table_merge_out(struct table_merge *m, const struct table_job *j,
		    struct table_build *out, struct err *e)
{
	static const struct key_range all = { 0 };
	atomic_uint_least64_t rows = 0;
	const struct merge_watch watch = { .stop =
					       j->run ? j->run->cancel : NULL,
					   .rows = &rows };
	struct sum s;
	int r;

	sum_init(&s, m, emit_row, out);
	r = runs_merge(m->runs, m->n_runs, &all, &watch, sum_row, &s, e);
	if (!r)
		r = sum_end(&s, e);
	sum_free(&s);
	return r == -EINTR ? err_set(e, ECANCELED, "canceled") : r;
}
