// SPDX-License-Identifier: Apache-2.0
/* Operations over partitions: ranges, threads, and the rows that go in and
 * come out. */
#include <fcntl.h>

#include "lib/table_ops_priv.h"

#define CHECK_EVERY 1024	 /* rows between two looks at the flags */
#define OUT_BYTES   (256u << 10) /* rows that are handed on at a time */

/* ---- ranges ------------------------------------------------------------ */

unsigned table_ranges(const struct table *t)
{
	return MAX(table_parts(t), 1u);
}

struct table_range table_range_at(const struct table *t, unsigned k)
{
	struct table_range r = { 0 };

	if (k) {
		r.from = t->keys + t->parts[k].key_at;
		r.from_len = t->parts[k].key_len;
	}
	if (k + 1 < t->n_parts) {
		r.to = t->keys + t->parts[k + 1].key_at;
		r.to_len = t->parts[k + 1].key_len;
	}
	return r;
}

uint64_t table_range_row(const struct table *t, unsigned k)
{
	return k * table_rows(t) / table_ranges(t);
}

/* ---- rows in ----------------------------------------------------------- */

struct table_rows {
	struct table_iter *it;
	struct table_range range;
	const struct table_job *j;
	unsigned partition, left; /* until the next look */
	bool ended;
};

bool table_job_stopped(const struct table_job *j, unsigned partition)
{
	return atomic_load(&j->failed) < partition ||
	       (j->run && j->run->cancel && atomic_load(j->run->cancel));
}

int table_rows_begin(struct table *t, struct table_range range,
		     const struct table_job *j, unsigned partition,
		     struct table_rows **ret, struct err *e)
{
	struct table_rows *in = xcalloc(1, sizeof(*in));
	int r = table_scan(t, range.from, range.from_len, &in->it, e);

	if (r) {
		free(in);
		return r;
	}
	in->range = range;
	in->j = j;
	in->partition = partition;
	*ret = in;
	return 0;
}

void table_rows_end(struct table_rows *in)
{
	if (!in)
		return;
	table_scan_end(in->it);
	free(in);
}

/* Now and then: is it in vain? */
static int rows_stopped(struct table_rows *in, struct err *e)
{
	if (in->left--)
		return 0;
	in->left = CHECK_EVERY;
	if (!table_job_stopped(in->j, in->partition))
		return 0;
	(void)err_set(e, ECANCELED, "canceled");
	return -ECANCELED;
}

/* What came of a step, which may have left the range. */
static int rows_came(struct table_rows *in, int r, const char *key, size_t len)
{
	if (r > 0 && in->range.to &&
	    key_compare(key, len, in->range.to, in->range.to_len) >= 0)
		r = 0;
	in->ended = r == 0;
	return r;
}

int table_rows_next(struct table_rows *in, const char **key, size_t *len,
		    const struct cell **cells, struct err *e)
{
	int r = rows_stopped(in, e);

	if (r || in->ended)
		return r;
	r = table_next(in->it, key, len, cells, e);
	return rows_came(in, r, *key, *len);
}

int table_rows_numbers(struct table_rows *in, double *x, struct err *e)
{
	const char *key = NULL;
	size_t len = 0;
	int r = rows_stopped(in, e);

	if (r || in->ended)
		return r;
	r = table_next_numbers(in->it, &key, &len, x, e);
	return rows_came(in, r, key, len);
}

/* ---- threads ----------------------------------------------------------- */

struct work {
	struct table_job *j;
	int (*fn)(void *arg, unsigned k, struct err *e);
	void *arg;
	unsigned n;
	pthread_mutex_t lock; /* guards the rest */
	struct err error;     /* of partition j->failed */
};

static void work_failed(struct work *w, unsigned k, int no, const struct err *e)
{
	pthread_mutex_lock(&w->lock);
	if (k < atomic_load(&w->j->failed)) {
		w->error = *e;
		w->error.no = -no;
		atomic_store(&w->j->failed, k);
	}
	pthread_mutex_unlock(&w->lock);
}

static void *work(void *arg)
{
	struct work *w = arg;
	unsigned k;

	while ((k = atomic_fetch_add(&w->j->next, 1)) < w->n) {
		struct err e = { 0 };
		int r;

		if (table_job_stopped(w->j, k))
			r = err_set(&e, ECANCELED, "canceled");
		else
			r = w->fn(w->arg, k, &e);
		if (r < 0)
			work_failed(w, k, r, &e);
	}
	return NULL;
}

int table_job_run(struct table_job *j, unsigned n,
		  int (*fn)(void *arg, unsigned k, struct err *e), void *arg,
		  struct err *e)
{
	struct work w = { .j = j, .fn = fn, .arg = arg, .n = n };
	unsigned want = j->run ? MIN(MAX(j->run->threads, 1u), n) : 1;
	_cleanup_free_ pthread_t *ids = xcalloc(want, sizeof(*ids));
	unsigned started = 0;

	atomic_store(&j->next, 0);
	atomic_store(&j->failed, UINT32_MAX);
	pthread_mutex_init(&w.lock, NULL);
	while (started + 1 < want && !table_thread(&ids[started], work, &w))
		started++;
	work(&w); /* fewer threads are only slower */
	while (started)
		pthread_join(ids[--started], NULL);
	pthread_mutex_destroy(&w.lock);
	if (!w.error.no)
		return 0;
	if (e)
		*e = w.error;
	return -w.error.no;
}

int table_temp_file(struct table_store *s, int *ret_fd, struct err *e)
{
	_cleanup_free_ char *path =
	    xasprintf("%s/building/temp-XXXXXX", s->dir);
	int fd = mkostemp(path, O_CLOEXEC);

	if (fd < 0)
		return err_sys(e, errno, "%s", path);
	(void)unlink(path);
	*ret_fd = fd;
	return 0;
}

/* ---- rows out ---------------------------------------------------------- */

/* What all partitions write to. */
struct sink {
	struct table_build *build;
	const struct table_schema *schema;
	struct table_merge *merge; /* NULL: straight to build */
	bool alone;		   /* one thread only */
	pthread_mutex_t lock;	   /* guards build */
};

struct table_out {
	struct sink *sink;
	struct table_merge_part *part;
	struct strbuf rows; /* u32 lengths of key and row, key, row */
	struct strbuf row;
	struct cell *cells;
};

static void out_begin(struct table_out *o, struct sink *s, unsigned partition)
{
	*o = (struct table_out){ .sink = s };
	sb_init(&o->rows, OUT_BYTES + 2 * CSV_LINE_MAX);
	sb_init(&o->row, CSV_LINE_MAX);
	o->cells = xcalloc(s->schema->n_columns + 1, sizeof(*o->cells));
	if (s->merge)
		o->part = table_merge_part(s->merge, partition);
}

/* The builder sorts, so the order in which threads come here is no matter. */
static int out_flush(struct table_out *o, struct err *e)
{
	struct sink *s = o->sink;
	size_t at = 0;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	while (at < o->rows.len && !r) {
		const char *p = o->rows.buf + at;
		uint32_t len[2];

		memcpy(len, p, sizeof(len));
		p += sizeof(len);
		if (row_decode(s->schema, p + len[0], len[1], o->cells))
			r = err_set(e, EIO, "a row is not what it was");
		else
			r = table_build_add(s->build, p, len[0], o->cells, e);
		at += sizeof(len) + len[0] + len[1];
	}
	pthread_mutex_unlock(&s->lock);
	sb_reset(&o->rows);
	return r;
}

static int out_end(struct table_out *o, int r, struct err *e)
{
	struct err mine = { 0 };
	int x = 0;

	if (!r && o->rows.len)
		r = out_flush(o, e);
	if (o->part)
		x = table_merge_close(o->part, &mine);
	if (!r && x && e)
		*e = mine;
	sb_free(&o->rows);
	sb_free(&o->row);
	free(o->cells);
	return r ? r : x;
}

int table_out_add(struct table_out *o, const char *key, size_t len,
		  const struct cell *cells, struct err *e)
{
	struct sink *s = o->sink;
	uint32_t n[2];

	if (o->part)
		return table_merge_add(o->part, key, len, cells, e);
	if (s->alone)
		return table_build_add(s->build, key, len, cells, e);
	if (!len || len > TABLE_KEY_MAX)
		return err_set(e, EINVAL, "an id of %zu bytes (1 to %d)", len,
			       TABLE_KEY_MAX);
	sb_reset(&o->row);
	if (row_encode(&o->row, s->schema, cells))
		return err_set(e, EMSGSIZE, "a row is larger than %u bytes",
			       CSV_LINE_MAX);
	n[0] = (uint32_t)len;
	n[1] = (uint32_t)o->row.len;
	sb_add(&o->rows, n, sizeof(n));
	sb_add(&o->rows, key, len);
	sb_add(&o->rows, o->row.buf, o->row.len);
	if (o->rows.error)
		return err_sys(e, -o->rows.error, "rows of a partition");
	return o->rows.len >= OUT_BYTES ? out_flush(o, e) : 0;
}

/* ---- the operations ---------------------------------------------------- */

static void note(struct table_build *b, const char *operation,
		 const struct table *t, const struct table *other)
{
	json_t *gens = json_array();

	json_array_append_new(gens,
			      json_integer((json_int_t)table_generation(t)));
	if (other)
		json_array_append_new(
		    gens, json_integer((json_int_t)table_generation(other)));
	table_build_lineage(b, json_pack("{s:s, s:o}", "operation", operation,
					 "generations", gens));
}

static void sink_begin(struct sink *s, struct table_build *out,
		       const struct table_run *run)
{
	*s = (struct sink){ .build = out,
			    .schema = table_build_schema(out),
			    .alone = !run || run->threads < 2 };
	pthread_mutex_init(&s->lock, NULL);
}

struct mapping {
	struct table *t;
	struct table_job j;
	struct sink sink;
	table_map_fn *map;
	void *arg;
};

static int map_partition(void *arg, unsigned k, struct err *e)
{
	struct mapping *m = arg;
	struct table_rows *in = NULL;
	struct table_out out;
	int r =
	    table_rows_begin(m->t, table_range_at(m->t, k), &m->j, k, &in, e);

	if (r)
		return r;
	out_begin(&out, &m->sink, k);
	r = m->map(m->arg, k, in, &out, e);
	r = out_end(&out, MIN(r, 0), e);
	table_rows_end(in);
	return r;
}

int table_map_reduce(struct table *t, const struct table_run *run,
		     table_map_fn *map, table_merge_fn *merge, void *arg,
		     struct table_build *out, struct err *e)
{
	struct mapping m = {
		.t = t, .j = { .run = run }, .map = map, .arg = arg
	};
	int r = 0;

	sink_begin(&m.sink, out, run);
	if (merge)
		r = table_merge_begin(t->store, m.sink.schema, merge, arg,
				      &m.sink.merge, e);
	if (!r)
		r = table_job_run(&m.j, table_ranges(t), map_partition, &m, e);
	if (!r && merge)
		r = table_merge_out(m.sink.merge, &m.j, out, e);
	table_merge_end(m.sink.merge);
	pthread_mutex_destroy(&m.sink.lock);
	note(out, "map_reduce", t, NULL);
	return r;
}

struct pairing {
	struct table *a, *b, *ranges;
	struct table_job j;
	struct sink sink;
	table_binary_fn *fn;
	void *arg;
};

static int pair_partition(void *arg, unsigned k, struct err *e)
{
	struct pairing *p = arg;
	struct table_range range = table_range_at(p->ranges, k);
	struct table_rows *a = NULL, *b = NULL;
	struct table_out out;
	int r = table_rows_begin(p->a, range, &p->j, k, &a, e);

	if (!r)
		r = table_rows_begin(p->b, range, &p->j, k, &b, e);
	if (!r) {
		out_begin(&out, &p->sink, k);
		r = p->fn(p->arg, k, a, b, &out, e);
		r = out_end(&out, MIN(r, 0), e);
	}
	table_rows_end(a);
	table_rows_end(b);
	return r;
}

int table_binary_map(struct table *a, struct table *b,
		     const struct table_run *run, table_binary_fn *fn,
		     void *arg, struct table_build *out, struct err *e)
{
	struct pairing p = {
		.a = a,
		.b = b,
		.ranges = table_rows(a) < table_rows(b) ? b : a,
		.j = { .run = run },
		.fn = fn,
		.arg = arg,
	};
	int r;

	sink_begin(&p.sink, out, run);
	r = table_job_run(&p.j, table_ranges(p.ranges), pair_partition, &p, e);
	pthread_mutex_destroy(&p.sink.lock);
	note(out, "binary_map", a, b);
	return r;
}

/* ---- join, union, subtract --------------------------------------------- */

struct side {
	struct table_rows *in;
	const char *key; /* NULL = at its end */
	size_t len;
	const struct cell *cells;
};

static int side_step(struct side *s, struct err *e)
{
	int r = table_rows_next(s->in, &s->key, &s->len, &s->cells, e);

	if (r <= 0)
		s->key = NULL;
	return MIN(r, 0);
}

/* Rows of one side only: keep them? */
struct lockstep {
	table_pair_fn *pair; /* NULL: a's row */
	void *arg;
	bool only_a, only_b, both;
	size_t columns;
};

static int both_rows(const struct lockstep *l, const struct side *a,
		     const struct side *b, struct cell *cells,
		     struct table_out *out, struct err *e)
{
	int r = 0;

	if (!l->pair)
		return table_out_add(out, a->key, a->len, a->cells, e);
	memset(cells, 0, l->columns * sizeof(*cells));
	r = l->pair(l->arg, a->key, a->len, a->cells, b->cells, cells, e);
	return r < 0 ? r : table_out_add(out, a->key, a->len, cells, e);
}

static int lockstep(void *arg, unsigned k, struct table_rows *in_a,
		    struct table_rows *in_b, struct table_out *out,
		    struct err *e)
{
	const struct lockstep *l = arg;
	_cleanup_free_ struct cell *cells =
	    xcalloc(l->columns + 1, sizeof(*cells));
	struct side a = { .in = in_a }, b = { .in = in_b };
	int r = side_step(&a, e);

	(void)k;
	if (!r)
		r = side_step(&b, e);
	while (!r && (a.key || b.key)) {
		int c = !a.key	 ? 1
			: !b.key ? -1
				 : key_compare(a.key, a.len, b.key, b.len);

		if (!c && l->both)
			r = both_rows(l, &a, &b, cells, out, e);
		else if (c < 0 && l->only_a)
			r = table_out_add(out, a.key, a.len, a.cells, e);
		else if (c > 0 && l->only_b)
			r = table_out_add(out, b.key, b.len, b.cells, e);
		if (!r && c <= 0)
			r = side_step(&a, e);
		if (!r && c >= 0)
			r = side_step(&b, e);
		if (!a.key && !l->only_b)
			break; /* nothing more can come of b */
	}
	return r;
}

static int step_both(struct table *a, struct table *b,
		     const struct table_run *run, struct lockstep *l,
		     const char *name, struct table_build *out, struct err *e)
{
	int r;

	l->columns = table_build_schema(out)->n_columns;
	r = table_binary_map(a, b, run, lockstep, l, out, e);
	note(out, name, a, b);
	return r;
}

int table_join(struct table *a, struct table *b, const struct table_run *run,
	       table_pair_fn *pair, void *arg, struct table_build *out,
	       struct err *e)
{
	struct lockstep l = { .pair = pair, .arg = arg, .both = true };

	return step_both(a, b, run, &l, "join", out, e);
}

int table_union(struct table *a, struct table *b, const struct table_run *run,
		table_pair_fn *pair, void *arg, struct table_build *out,
		struct err *e)
{
	struct lockstep l = { .pair = pair,
			      .arg = arg,
			      .only_a = true,
			      .only_b = true,
			      .both = true };

	return step_both(a, b, run, &l, "union", out, e);
}

int table_subtract(struct table *a, struct table *b,
		   const struct table_run *run, struct table_build *out,
		   struct err *e)
{
	struct lockstep l = { .only_a = true };

	return step_both(a, b, run, &l, "subtract", out, e);
}

/* ---- reduce, take, each ------------------------------------------------ */

struct folding {
	struct table *t;
	struct table_job j;
	size_t size;
	char *states;
	int (*fold)(void *arg, void *state, const char *key, size_t len,
		    const struct cell *cells, struct err *e);
	void *arg;
};

static int fold_partition(void *arg, unsigned k, struct err *e)
{
	const struct folding *f = arg;
	const struct cell *cells;
	struct table_rows *in = NULL;
	const char *key;
	size_t len;
	int r =
	    table_rows_begin(f->t, table_range_at(f->t, k), &f->j, k, &in, e);

	while (!r && (r = table_rows_next(in, &key, &len, &cells, e)) > 0)
		r = f->fold(f->arg, f->states + k * f->size, key, len, cells,
			    e);
	table_rows_end(in);
	return r;
}

int table_reduce(struct table *t, const struct table_run *run, size_t size,
		 int (*fold)(void *arg, void *state, const char *key,
			     size_t len, const struct cell *cells,
			     struct err *e),
		 void (*combine)(void *arg, void *sum, const void *state),
		 void *arg, void *sum, struct err *e)
{
	unsigned n = table_ranges(t);
	_cleanup_free_ char *states = xcalloc(n, size);
	struct folding f = { .t = t,
			     .j = { .run = run },
			     .size = size,
			     .states = states,
			     .fold = fold,
			     .arg = arg };
	int r = table_job_run(&f.j, n, fold_partition, &f, e);

	for (unsigned k = 0; k < n && !r; k++)
		combine(arg, sum, states + k * size);
	return r;
}

int table_take(struct table *t, uint64_t n,
	       int (*fn)(void *arg, const char *key, size_t len,
			 const struct cell *cells, struct err *e),
	       void *arg, struct err *e)
{
	const struct cell *cells;
	struct table_iter *it;
	const char *key;
	size_t len;
	int r = table_scan(t, NULL, 0, &it, e);

	if (r < 0)
		return r;
	while (n-- && (r = table_next(it, &key, &len, &cells, e)) > 0) {
		r = fn(arg, key, len, cells, e);
		if (r < 0)
			break;
	}
	table_scan_end(it);
	return MIN(r, 0);
}

int table_each(struct table *t,
	       int (*fn)(void *arg, const char *key, size_t len,
			 const struct cell *cells, struct err *e),
	       void *arg, struct err *e)
{
	return table_take(t, UINT64_MAX, fn, arg, e);
}
