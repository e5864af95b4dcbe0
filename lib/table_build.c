// SPDX-License-Identifier: Apache-2.0
/*
 * New generations.  Rows arrive in any order in an arena; a full one goes to a
 * thread while the next one fills.  As long as ids come in order the thread
 * writes SST files at once (straight); else it sorts the arena to a run, and
 * the runs are merged at the end, ranges of ids beside each other.  A table
 * that fits into one arena needs neither threads nor runs.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "lib/log.h"
#include "lib/table_npy.h"
#include "lib/table_sort.h"

#define ARENAS	     3		 /* one fills while others are written */
#define THREADS_MAX  4		 /* of a merge */
#define SORT_BYTES   (48u << 20) /* arenas of all builders, if they are few */
#define MERGED_BYTES (64u << 20) /* of rows, in all threads of a merge */
#define ROW_USUAL    (64u << 10) /* larger ones are counted by their size */
#define LIMIT_MIN    (1u << 20)
#define LIMIT_FIRST  (4u << 20) /* small tables take little memory */

struct work {
	struct table_build *b;
	struct arena arena;
	struct run run; /* what came of it, unless it went straight */
	char *path;
	pthread_t thread;
	bool running, straight;
	int r;
	struct err e;
};

struct table_build {
	struct table_store *store;
	struct table_schema *schema;
	enum row_format format;
	struct table_stats *stats; /* NULL until all rows are written */
	uint64_t gen;
	char *dir;
	int dir_fd; /* locked: the sweep leaves a live builder alone */
	struct work work[ARENAS];
	unsigned now;		   /* the one whose arena fills */
	size_t limit, limit_first; /* of its bytes */
	bool grows;		   /* the limit */
	uint64_t bytes;		   /* of full ones */
	bool spilled;
	struct run *runs;
	size_t n_runs;
	unsigned n_files;
	struct sst straight;
	FILE *lines; /* rows whose line is not the one behind the last */
	struct table_progress *progress, own;
	uint64_t rows;
	bool in_order; /* so far every key was greater than the last */
	char last[TABLE_KEY_MAX];
	size_t last_len;
	uint64_t last_line;
	bool shared; /* rows and index are linked already */
	uint64_t csv;
};

static atomic_uint spilling; /* builders of more than one arena */
/* One merge at a time: they use all cores, and memory. */
static pthread_mutex_t merge_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- threads ------------------------------------------------------------- */

int table_thread(pthread_t *t, void *(*fn)(void *), void *arg)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(t, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -r;
}

static int work_end(struct work *w, struct err *e)
{
	int r;

	if (!w->running)
		return 0;
	pthread_join(w->thread, NULL);
	w->running = false;
	r = w->r;
	if (r && e)
		*e = w->e;
	if (!r && !w->straight) {
		struct table_build *b = w->b;

		b->runs = xrealloc(b->runs, (b->n_runs + 1) * sizeof(*b->runs));
		b->runs[b->n_runs++] = w->run;
	}
	arena_reset(&w->arena);
	return r;
}

static int all_work_ends(struct table_build *b, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < ARENAS; i++) {
		int k = work_end(&b->work[i], r ? NULL : e);

		r = r ? r : k;
	}
	return r;
}

/* Tests have runs without many rows, and "=BYTES" are all so small. */
static size_t first_limit(bool *ret_grows)
{
	*ret_grows = true;
#ifdef ROLLFS_TEST_HOOKS
	const char *s = getenv("ROLLFS_TEST_SORT_BYTES");

	*ret_grows = !s || *s != '=';
	if (s)
		return strtoul(s + !*ret_grows, NULL, 10);
#endif
	return LIMIT_FIRST;
}

/* ---- beginning and end --------------------------------------------------- */

static void build_free(struct table_build *b)
{
	if (!b)
		return;
	(void)all_work_ends(b, NULL);
	for (unsigned i = 0; i < ARENAS; i++) {
		arena_free(&b->work[i].arena);
		free(b->work[i].path);
	}
	for (size_t i = 0; i < b->n_runs; i++)
		run_free(&b->runs[i]);
	free(b->runs);
	sst_free(&b->straight);
	if (b->lines)
		(void)fclose(b->lines);
	if (b->spilled)
		atomic_fetch_sub(&spilling, 1);
	(void)remove_tree(b->dir, NULL);
	if (b->dir_fd >= 0)
		close(b->dir_fd);
	table_stats_free(b->stats);
	schema_free(b->schema);
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

void table_build_watch(struct table_build *b, struct table_progress *p)
{
	b->progress = p;
}

/* Makes and locks the directory.  Before it is locked, a sweep may take it for
 * a dead builder's: then it is made again. */
static int make_dir(struct table_build *b, struct err *e)
{
	struct stat there, ours;

	do {
		if (b->dir_fd >= 0)
			close(b->dir_fd);
		b->dir_fd = -1;
		if (mkdir(b->dir, 0700) && errno != EEXIST)
			return err_sys(e, errno, "%s", b->dir);
		b->dir_fd = open(b->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (b->dir_fd < 0 && errno == ENOENT)
			continue;
		if (b->dir_fd < 0 || flock(b->dir_fd, LOCK_SH) ||
		    fstat(b->dir_fd, &ours))
			return err_sys(e, errno, "%s", b->dir);
	} while (b->dir_fd < 0 || stat(b->dir, &there) ||
		 there.st_ino != ours.st_ino);
	return 0;
}

int table_build_begin(struct table_store *s, const struct table_schema *schema,
		      struct table_build **ret, struct err *e)
{
	struct table_build *b = xcalloc(1, sizeof(*b));
	int r;

	b->store = s;
	b->dir_fd = -1;
	b->in_order = true;
	b->last_line = 1;
	b->progress = &b->own;
	b->limit = b->limit_first = first_limit(&b->grows);
	for (unsigned i = 0; i < ARENAS; i++)
		b->work[i].b = b;
	r = table_store_numbers(s, 1, &b->gen, e);
	if (!r)
		r = arena_init(&b->work[0].arena, e);
	if (r) {
		free(b);
		return r;
	}
	b->schema = schema_dup(schema);
	json_decref(b->schema->lineage); /* of the table it is made like */
	b->schema->lineage = NULL;
	b->format = row_format(schema);
	b->dir =
	    xasprintf("%s/building/%llu", s->dir, (unsigned long long)b->gen);
	r = make_dir(b, e);
	if (r)
		build_free(b);
	else
		*ret = b;
	return r;
}

/* ---- full arenas --------------------------------------------------------- */

static void work_now(struct work *w)
{
	struct run_writer *out = NULL;

	arena_sort(&w->arena);
	if (w->straight) {
		w->r = arena_rows(&w->arena, sst_add, &w->b->straight, &w->e);
		return;
	}
	w->r = run_writer_new(w->path, &out, &w->e);
	if (w->r)
		return;
	w->r = arena_rows(&w->arena, run_writer_add, out, &w->e);
	w->r = run_writer_end(out, w->r, &w->run, &w->e);
}

static void *work_thread(void *arg)
{
	work_now(arg);
	return NULL;
}

static void work_start(struct work *w)
{
	w->r = 0;
	w->running = true;
	free(w->path);
	w->path = xasprintf("%s/run.%u", w->b->dir, w->b->n_files++);
}

struct line_note {
	uint64_t row, line;
};

/* Lines are counted up; where that is wrong it is noted, so that a row which
 * went straight has its line if it meets its double later. */
static int note_line(struct table_build *b, uint64_t line, struct err *e)
{
	struct line_note n = { b->rows, line };
	_cleanup_free_ char *path = NULL;

	if (!line || line == b->last_line + 1)
		return 0;
	if (!b->lines) {
		path = xasprintf("%s/lines", b->dir);
		b->lines = fopen(path, "w+e");
	}
	if (!b->lines || fwrite(&n, sizeof(n), 1, b->lines) != 1)
		return err_sys(e, errno, "%s/lines", b->dir);
	return 0;
}

static int check_stop(const struct table_build *b, struct err *e)
{
	return b->progress->stop ? err_set(e, EINTR, "stopped") : 0;
}

/* The rows of an SST writer that was finished, as a run. */
static int copy_rows(struct table_build *b, rocksdb_iterator_t *it,
		     struct run_writer *out, struct err *e)
{
	struct line_note next = { UINT64_MAX, 0 };
	uint64_t line = b->last_line ? 1 : 0;
	char *text = NULL;
	int r = 0;

	if (b->lines) {
		rewind(b->lines);
		if (fread(&next, sizeof(next), 1, b->lines) != 1)
			next.row = UINT64_MAX;
	}
	rocksdb_iter_seek_to_first(it);
	for (uint64_t k = 0; !r && rocksdb_iter_valid(it); k++) {
		size_t key_len, val_len;
		struct row row;

		if (k % 4096 == 0 && (r = check_stop(b, e)))
			break;
		line += line != 0;
		if (k == next.row) {
			line = next.line;
			if (fread(&next, sizeof(next), 1, b->lines) != 1)
				next.row = UINT64_MAX;
		}
		row.key = rocksdb_iter_key(it, &key_len);
		row.val = rocksdb_iter_value(it, &val_len);
		row.key_len = (uint32_t)key_len;
		row.val_len = (uint32_t)val_len;
		row.line = line;
		r = run_writer_add(out, &row, e);
		rocksdb_iter_next(it);
	}
	if (!r)
		rocksdb_iter_get_error(it, &text);
	return text ? table_rocks_error(e, b->dir, text) : r;
}

/* The ids are not in order after all: what went straight becomes a run.  It may
 * be nearly all of the table, so this is not for who adds a row to wait for. */
static int back_from_straight(struct table_build *b, struct err *e)
{
	_cleanup_free_ char *dir = xasprintf("%s/straight", b->dir);
	_cleanup_free_ char *path =
	    xasprintf("%s/run.%u", b->dir, b->n_files++);
	struct run_writer *out = NULL;
	rocksdb_iterator_t *it;
	rocksdb_t *db = NULL;
	struct run run;
	int r = sst_finish(&b->straight, e);

	if (!r && mkdir(dir, 0700))
		r = err_sys(e, errno, "%s", dir);
	if (!r)
		r = sst_open(&b->straight, 1, dir, &db, e);
	if (!r)
		r = run_writer_new(path, &out, e);
	if (!r) {
		it = rocks_iterator(db);
		r = copy_rows(b, it, out, e);
		rocksdb_iter_destroy(it);
		r = run_writer_end(out, r, &run, e);
	}
	if (db)
		rocksdb_close(db);
	sst_free(&b->straight);
	(void)remove_tree(dir, NULL);
	if (r)
		return r;
	b->runs = xrealloc(b->runs, (b->n_runs + 1) * sizeof(*b->runs));
	b->runs[b->n_runs++] = run;
	return 0;
}

/* Arenas grow with the table, and shrink when many are built. */
static void set_limit(struct table_build *b)
{
	unsigned n = MAX(atomic_load(&spilling), 1);
	size_t grown = (size_t)MIN(b->bytes / 8, ARENA_BYTES);
	size_t share = MAX(SORT_BYTES / (ARENAS * n), LIMIT_MIN);

	if (b->grows)
		b->limit =
		    MIN(MAX(grown, b->limit_first), MIN(share, ARENA_BYTES));
}

/* The arena goes to a thread, another one is there to be filled. */
static int spill(struct table_build *b, struct err *e)
{
	struct work *w = &b->work[b->now];
	int r = 0;

	if (!b->spilled) {
		b->spilled = true;
		atomic_fetch_add(&spilling, 1);
	}
	w->straight = b->in_order;
	if (w->straight)
		r = all_work_ends(b, e);
	if (r)
		return r;
	if (w->straight && !b->straight.options)
		sst_init(&b->straight, b->schema, b->dir, 0);
	b->bytes += w->arena.len;
	set_limit(b);
	work_start(w);
	r = table_thread(&w->thread, work_thread, w);
	if (r) {
		w->running = false;
		return err_sys(e, -r, "a thread that sorts rows");
	}
	b->now = (b->now + 1) % ARENAS;
	w = &b->work[b->now];
	r = work_end(w, e);
	if (!r && !w->arena.buf)
		r = arena_init(&w->arena, e);
	arena_trim(&w->arena, b->limit);
	return r;
}

/* ---- rows ---------------------------------------------------------------- */

/* Where a value of up to n bytes may be put. */
static int room(struct table_build *b, size_t key_len, size_t n, char **ret,
		struct err *e)
{
	struct arena *a = &b->work[b->now].arena;
	int r;

	if (!key_len || key_len > TABLE_KEY_MAX)
		return err_set(e, EINVAL, "an id of %zu bytes (1 to %d)",
			       key_len, TABLE_KEY_MAX);
	if (n > CSV_LINE_MAX)
		return err_set(e, EMSGSIZE, "a row is larger than %u bytes",
			       CSV_LINE_MAX);
	*ret = arena_room(a, b->limit, key_len, n);
	if (*ret)
		return 0;
	r = spill(b, e);
	if (r)
		return r;
	a = &b->work[b->now].arena;
	*ret = arena_room(a, ARENA_BYTES, key_len, n);
	return 0;
}

/* Is this key behind the last one? */
static int check_order(struct table_build *b, const char *key, size_t key_len,
		       uint64_t line, struct err *e)
{
	int c;

	if (b->rows) {
		c = key_compare(key, key_len, b->last, b->last_len);
		if (!c)
			return duplicate_id(b->last_line, line, e);
		if (c < 0) {
			b->in_order = false;
			b->work[b->now].arena.in_order = false;
			return 0;
		}
	}
	c = note_line(b, line, e);
	memcpy(b->last, key, key_len);
	b->last_len = key_len;
	b->last_line = line;
	return c;
}

static int add(struct table_build *b, const char *key, size_t key_len, size_t n,
	       uint64_t line, struct err *e)
{
	struct arena *a = &b->work[b->now].arena;
	int r;

	if (!b->in_order) {
		a->in_order = false;
	} else {
		r = check_order(b, key, key_len, line, e);
		if (r)
			return r;
	}
	arena_add(a, key, key_len, n, line);
	b->rows++;
	if (b->rows % 4096 == 0) {
		atomic_store(&b->progress->rows, b->rows);
		return check_stop(b, e);
	}
	return 0;
}

int table_build_add_line(struct table_build *b, const char *key, size_t key_len,
			 const struct cell *cells, uint64_t line, struct err *e)
{
	size_t n = row_size_max(b->format, b->schema, cells);
	char *to;
	int r = room(b, key_len, n, &to, e);

	if (r)
		return r;
	n = row_put(b->format, b->schema, cells, to);
	return add(b, key, key_len, n, line, e);
}

int table_build_add(struct table_build *b, const char *key, size_t key_len,
		    const struct cell *cells, struct err *e)
{
	return table_build_add_line(b, key, key_len, cells, 0, e);
}

int table_build_add_text(struct table_build *b, const char *key, size_t key_len,
			 const char *text, size_t n, char cut, uint64_t line,
			 struct err *e)
{
	char *to;
	int r = room(b, key_len, n, &to, e);

	if (r)
		return r;
	if (n)
		memcpy(to, text, n);
	if (cut != ',')
		for (size_t i = 0; i < n; i++)
			to[i] = to[i] == cut ? ',' : to[i];
	return add(b, key, key_len, n, line, e);
}

uint64_t table_build_rows(const struct table_build *b)
{
	return b->rows;
}

/* ---- merging ------------------------------------------------------------- */

/* What one thread of a merge does: runs to a run, or to SST files. */
struct merge_part {
	struct table_build *b;
	const struct run *runs;
	size_t n_runs;
	struct key_range range;
	struct sst *sst; /* NULL: to a run */
	char *path;
	struct run run;
	atomic_bool *failed; /* one of the threads has */
	pthread_t thread;
	bool running;
	int r;
	struct err e;
};

static int merge_part(struct merge_part *p)
{
	struct merge_watch watch = { &p->b->progress->stop, p->failed,
				     &p->b->progress->merged };
	struct run_writer *out = NULL;
	int r;

	if (p->sst) {
		r = runs_merge(p->runs, p->n_runs, &p->range, &watch, sst_add,
			       p->sst, &p->e);
		return r ? r : sst_finish(p->sst, &p->e);
	}
	r = run_writer_new(p->path, &out, &p->e);
	if (r)
		return r;
	r = runs_merge(p->runs, p->n_runs, &p->range, &watch, run_writer_add,
		       out, &p->e);
	return run_writer_end(out, r, &p->run, &p->e);
}

static void *merge_thread(void *arg)
{
	struct merge_part *p = arg;

	p->r = merge_part(p);
	if (p->r)
		atomic_store(p->failed, true);
	return NULL;
}

static int merge_parts(struct merge_part *p, size_t n, struct err *e)
{
	atomic_bool failed = false;
	int r = 0;

	for (size_t i = 0; i < n; i++) {
		p[i].failed = &failed;
		p[i].running =
		    n > 1 && !table_thread(&p[i].thread, merge_thread, &p[i]);
		if (!p[i].running)
			merge_thread(&p[i]);
	}
	for (size_t i = 0; i < n; i++) {
		if (p[i].running)
			pthread_join(p[i].thread, NULL);
		/* Who was stopped because another has failed has no reason. */
		if (p[i].r && (!r || r == -EINTR)) {
			r = p[i].r;
			if (e)
				*e = p[i].e;
		}
	}
	return r;
}

static size_t threads(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < 1 ? 1 : MIN((size_t)n, THREADS_MAX);
}

/* How many runs may be merged: a row of each is in memory, in each thread. */
static size_t runs_at_once(const struct table_build *b)
{
	size_t largest = ROW_USUAL;

	for (size_t i = 0; i < b->n_runs; i++)
		largest = MAX(largest, b->runs[i].largest);
	return MAX(MIN(RUNS_MERGED, MERGED_BYTES / (largest * threads())),
		   2 * threads());
}

/* More runs than that: the first ones become fewer. */
static int merge_level(struct table_build *b, struct err *e)
{
	struct merge_part p[THREADS_MAX] = { 0 };
	size_t n = 0, used = 0, runs = runs_at_once(b);
	int r;

	while (n < threads()) {
		size_t k = MIN(runs / threads(), b->n_runs - used);

		p[n++] = (struct merge_part){
			.b = b,
			.runs = b->runs + used,
			.n_runs = k,
			.path = xasprintf("%s/run.%u", b->dir, b->n_files++),
		};
		used += k;
	}
	r = runs_open(b->runs, used, e);
	if (!r)
		r = merge_parts(p, n, e);
	for (size_t i = 0; i < used; i++)
		run_free(&b->runs[i]);
	memmove(b->runs, b->runs + used, (b->n_runs - used) * sizeof(*b->runs));
	b->n_runs -= used;
	for (size_t i = 0; i < n; i++) {
		if (p[i].run.path) /* there was room for what it came from */
			b->runs[b->n_runs++] = p[i].run;
		free(p[i].path);
	}
	return r;
}

static int merge_all(struct table_build *b, struct err *e)
{
	struct merge_part p[THREADS_MAX] = { 0 };
	struct key_range ranges[THREADS_MAX];
	struct sst sst[THREADS_MAX] = { 0 };
	size_t n;
	int r = 0;

	while (!r && b->n_runs > runs_at_once(b))
		r = merge_level(b, e);
	if (!r)
		r = runs_open(b->runs, b->n_runs, e);
	if (r)
		return r;
	atomic_store(&b->progress->merged, 0);
	n = runs_split(b->runs, b->n_runs, threads(), ranges);
	for (size_t i = 0; i < n; i++) {
		sst_init(&sst[i], b->schema, b->dir, (unsigned)i);
		p[i] = (struct merge_part){ .b = b,
					    .runs = b->runs,
					    .n_runs = b->n_runs,
					    .range = ranges[i],
					    .sst = &sst[i] };
	}
	r = merge_parts(p, n, e);
	if (!r)
		r = sst_publish(sst, n, b->schema, b->dir, &b->csv, e);
	if (!r)
		b->stats = TAKE_PTR(sst[0].stats);
	for (size_t i = 0; i < n; i++) {
		if (!r && i)
			table_stats_merge(b->stats, b->schema, sst[i].stats);
		sst_free(&sst[i]);
	}
	return r;
}

/* Waits for the merge_lock, unless it is told to stop. */
static int merge_turn(const struct table_build *b, struct err *e)
{
	int r;

	do {
		struct timespec until;

		r = check_stop(b, e);
		if (r)
			return r;
		(void)clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec++;
		r = pthread_mutex_timedlock(&merge_lock, &until);
	} while (r == ETIMEDOUT);
	return r ? err_sys(e, r, "a merge of rows") : 0;
}

static int write_runs(struct table_build *b, struct err *e)
{
	int r = spill(b, e);

	if (!r)
		r = all_work_ends(b, e);
	for (unsigned i = 0; i < ARENAS; i++)
		arena_free(&b->work[i].arena);
	if (!r && b->straight.options)
		r = back_from_straight(b, e);
	if (!r)
		r = merge_turn(b, e);
	if (r)
		return r;
	r = merge_all(b, e);
	pthread_mutex_unlock(&merge_lock);
	for (size_t i = 0; i < b->n_runs; i++)
		run_free(&b->runs[i]);
	b->n_runs = 0;
	return r;
}

/* All rows, or the last ones of those in order, from memory. */
static int write_straight(struct table_build *b, struct err *e)
{
	struct arena *a = &b->work[b->now].arena;
	int r = all_work_ends(b, e);

	if (r)
		return r;
	if (!b->straight.options)
		sst_init(&b->straight, b->schema, b->dir, 0);
	arena_sort(a);
	r = arena_rows(a, sst_add, &b->straight, e);
	if (!r)
		r = sst_finish(&b->straight, e);
	if (!r)
		r = sst_publish(&b->straight, 1, b->schema, b->dir, &b->csv, e);
	if (!r)
		b->stats = TAKE_PTR(b->straight.stats);
	return r;
}

/* ---- publishing ---------------------------------------------------------- */

static int write_schema(struct table_build *b, struct err *e)
{
	_cleanup_free_ char *meta = xasprintf("%s/meta.json", b->dir);
	_cleanup_free_ char *refs = xasprintf("%s/refs", b->dir);
	json_t *o = schema_to_json(b->schema, b->rows);
	int r;

	table_stats_to_json(b->stats, b->schema, o);
	json_object_set_new(o, "csv_size", json_integer((json_int_t)b->csv));
	json_object_set_new(
	    o, "rows", json_string(b->format == ROWS_TEXT ? "text" : "cells"));
	json_object_set_new(o, "published_ms", json_integer(now_unix_ms()));
	r = table_npy_mark(b->dir, b->schema, b->stats, e);
	if (!r)
		r = json_write_file(meta, o, 0600, true, e);
	json_decref(o);
	if (!r && mkdir(refs, 0700))
		r = err_sys(e, errno, "%s", refs);
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
	b->csv = t->csv_size;
	b->format = t->format;
	table_stats_free(b->stats);
	b->stats = table_stats_dup(t->stats, s);
	b->rows = t->rows;
	return dir_sync(b->dir, e);
}

/* What only the building needed. */
static void remove_leftovers(struct table_build *b)
{
	_cleanup_free_ char *lines = xasprintf("%s/lines", b->dir);

	if (!b->lines)
		return;
	(void)fclose(b->lines);
	b->lines = NULL;
	(void)unlink(lines);
}

int table_build_publish(struct table_build *b, const char *ns, const char *name,
			struct err *e)
{
	int r = 0;

	atomic_store(&b->progress->rows, b->rows);
	if (!b->shared)
		r = b->spilled && !b->in_order ? write_runs(b, e)
					       : write_straight(b, e);
	remove_leftovers(b);
	if (!r)
		r = write_schema(b, e);
	if (!r)
		r = check_stop(b, e);
	if (!r)
		r = table_publish_dir(b->store, b->dir, b->gen, ns, name, e);
	build_free(b);
	return r;
}

void table_build_abort(struct table_build *b)
{
	build_free(b);
}
