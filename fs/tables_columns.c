// SPDX-License-Identifier: Apache-2.0
/*
 * data.npy and columns/<name>.npy: a generation as files that numpy maps
 * (lib/table_npy.h).  As of data.csv the node carries the generation, so its
 * pages never change, and who writes is sent to another node, which takes
 * everything and keeps nothing.
 *
 * The first read of a table needs a pass over its rows.  A thread makes it;
 * until then the reads are parked.  When all who wait were interrupted it
 * stops.  PASSES_MAX passes run side by side, for the memory they need.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <uthash.h>

#include "fs/tables_priv.h"
#include "lib/table_npy.h"

/* The analyzer does not follow what a hash table keeps. */
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

#define PASSES_MAX   2u
#define PASS_THREADS 2u

/* ---- nodes: the low bits of the file's number are the slot --------------- */

#define EXTRA_BITS 2 /* 16384 files: ids, matrix and TABLE_COLUMNS_MAX */

static fuse_ino_t column_ino(const struct table *t, unsigned which)
{
	return nid_ino(K_COLUMN,
		       table_generation(t) << EXTRA_BITS | which >> SLOT_BITS,
		       which & ((1u << SLOT_BITS) - 1));
}

static unsigned which_of(struct nid n)
{
	return (unsigned)(n.number & ((1u << EXTRA_BITS) - 1)) << SLOT_BITS |
	       n.slot;
}

static int open_gen(struct nid n, struct table **ret)
{
	return table_open_gen(fs.tables, n.number >> EXTRA_BITS, ret, NULL);
}

/*
 * Cheap copies share the generation, so its files are the same in each of them.
 * The kernel looks a name up before it opens the file: the modes are those of
 * the table that it was looked up in last.
 */
struct shown {
	uint64_t gen, table;
	uint64_t nlookup;
	UT_hash_handle hh;
};
static pthread_mutex_t shown_lock = PTHREAD_MUTEX_INITIALIZER;
static struct shown *shown;

static int show(uint64_t gen, uint64_t table)
{
	struct shown *x;

	pthread_mutex_lock(&shown_lock);
	HASH_FIND(hh, shown, &gen, sizeof(gen), x);
	if (!x && (x = calloc(1, sizeof(*x)))) {
		x->gen = gen;
		HASH_ADD(hh, shown, gen, sizeof(x->gen), x);
	}
	if (x) {
		x->table = table;
		x->nlookup++;
	}
	pthread_mutex_unlock(&shown_lock);
	return x ? 0 : -ENOMEM;
}

/* 0: the kernel knows none of its files. */
static uint64_t shown_in(uint64_t gen)
{
	const struct shown *x;
	uint64_t table;

	pthread_mutex_lock(&shown_lock);
	HASH_FIND(hh, shown, &gen, sizeof(gen), x);
	table = x ? x->table : 0;
	pthread_mutex_unlock(&shown_lock);
	return table;
}

static void column_forget(struct nid n, uint64_t count)
{
	uint64_t gen = n.number >> EXTRA_BITS;
	struct shown *x;

	pthread_mutex_lock(&shown_lock);
	HASH_FIND(hh, shown, &gen, sizeof(gen), x);
	if (x) {
		x->nlookup -= MIN(count, x->nlookup);
		if (!x->nlookup) {
			HASH_DEL(shown, x);
			free(x);
		}
	}
	pthread_mutex_unlock(&shown_lock);
}

/* As a file of this table. */
static int column_attr(struct table *t, unsigned which, uint64_t table,
		       struct attr *ret)
{
	uint64_t size = 0;
	int no = table_npy_size(t, which, &size, NULL);

	if (no)
		return no;
	attr_fill(ret, column_ino(t, which), DATA_MODE, size,
		  table_published_ms(t));
	ret->entry_s = 0; /* the name may mean the next generation soon */
	ret->attr_s = 3600;
	return table_attr_apply(table, ATTR_DERIVED, table_generation(t), 0,
				ret);
}

int table_column_lookup(const struct who *w, uint64_t id, unsigned dir_slot,
			const char *name, struct attr *ret)
{
	_cleanup_table_ struct table *t = NULL;
	unsigned which = TABLE_NPY_MATRIX;
	int no = table_now(id, &t);

	if (no)
		return no;
	no = t ? 0 : -ENOENT;
	if (!no && dir_slot == T_COLUMNS)
		no = table_npy_find(t, name, &which);
	if (!no)
		no = column_attr(t, which, id, ret);
	if (!no && !table_intent_of(w->pid, false))
		return show(table_generation(t), id);
	if (dir_slot == T_COLUMNS) /* as a writer sees it, or wrote it */
		return no && !table_ghost_column(id, name, GHOST_IS)
			   ? no
			   : table_getattr(
				 w, (struct nid){ K_TABLE, id, T_SINK }, ret);
	if (!no)
		table_ghost_add(id, T_MATRIX);
	return table_getattr(w, (struct nid){ K_TABLE, id, T_MATRIX }, ret);
}

bool table_matrix_listed(const struct table_id *id, fuse_ino_t *ret)
{
	*ret = nid_ino(K_COLUMN, id->gen << EXTRA_BITS, TABLE_NPY_MATRIX);
	return table_npy_matrix(fs.tables, id);
}

void table_columns_list(const struct who *w, uint64_t id, struct table *t,
			struct listing *l)
{
	for (unsigned k = 0; k < table_npy_files(t); k++) {
		_cleanup_free_ char *name = table_npy_name(t, k);

		if (name && !table_copier_blind(w->pid, id, T_SINK, name))
			listing_add(l, name, column_ino(t, k), S_IFREG);
	}
}

/* ---- passes ------------------------------------------------------------ */

struct reading {
	struct reading *next;
	uint64_t number;
	struct park *park;
	unsigned which;
	size_t n;
	uint64_t offset;
};

struct pass {
	struct pass *next;
	struct table *table;
	unsigned which, number; /* of table_npy_pass() */
	atomic_bool cancel;
	struct reading *readings;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards these */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct pass *passes;
static unsigned running;
static uint64_t last_number;
static bool stopping;

static void reply_bytes(fuse_req_t r, struct table *t, unsigned which, size_t n,
			uint64_t offset)
{
	_cleanup_free_ char *buf = malloc(n + 1);
	struct err e = { 0 };
	ssize_t k = buf ? table_npy_read(t, which, offset, buf, n, &e)
			: (ssize_t)-ENOMEM;

	if (k >= 0) {
		fuse_reply_buf(r, buf, (size_t)k);
		return;
	}
	log_error("fs", "columns of a table: %s", e.text);
	fuse_reply_err(r, (int)-k);
}

static void answer(struct pass *p, int no)
{
	while (p->readings) {
		struct reading *x = p->readings;
		fuse_req_t r = park_take(x->park);

		p->readings = x->next;
		if (r && no)
			fuse_reply_err(r, -no);
		else if (r)
			reply_bytes(r, p->table, x->which, x->n, x->offset);
		free(x);
	}
}

static void *run_pass(void *arg)
{
	struct pass *p = arg, **at;
	const struct table_run run = { .threads = PASS_THREADS,
				       .cancel = &p->cancel };
	struct err e = { 0 };
	int no = 0;

	pthread_mutex_lock(&lock);
	while (running >= PASSES_MAX && !atomic_load(&p->cancel))
		pthread_cond_wait(&changed, &lock);
	running++;
	pthread_mutex_unlock(&lock);
	no = table_npy_prepare(p->table, p->which, &run, &e);
	if (no && no != -ECANCELED)
		log_error("fs", "columns of a table: %s", e.text);
	pthread_mutex_lock(&lock);
	for (at = &passes; *at != p; at = &(*at)->next)
		;
	*at = p->next;
	pthread_mutex_unlock(&lock);
	/* Nobody finds it any more. */
	answer(p, no == -ECANCELED ? -EINTR : no);
	table_unref(p->table);
	free(p);
	pthread_mutex_lock(&lock);
	running--;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return NULL;
}

/* With the lock held: the pass that these readings wait for. */
static struct pass *pass_of(struct table *t, unsigned which)
{
	unsigned number = table_npy_pass(t, which);
	struct pass *p;
	pthread_t id;

	for (p = passes; p; p = p->next)
		if (p->table == t && p->number == number &&
		    !atomic_load(&p->cancel))
			return p;
	p = stopping ? NULL : calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->table = table_ref(t);
	p->which = which;
	p->number = number;
	if (pthread_create(&id, NULL, run_pass, p)) {
		table_unref(p->table);
		free(p);
		return NULL;
	}
	pthread_detach(id);
	p->next = passes;
	passes = p;
	return p;
}

/* With the lock held. */
static bool drop_reading(struct pass *p, uint64_t number)
{
	struct reading **at = &p->readings, *x;

	while (*at && (*at)->number != number)
		at = &(*at)->next;
	x = *at;
	if (!x)
		return false;
	*at = x->next;
	free(x);
	return true;
}

/* The reader was interrupted: true = its answer will not come. */
static bool forget_reading(void *arg, uint64_t number)
{
	bool found = false;

	(void)arg;
	pthread_mutex_lock(&lock);
	for (struct pass *p = passes; p && !found; p = p->next) {
		found = drop_reading(p, number);
		if (found && p->readings == NULL)
			atomic_store(&p->cancel, true);
	}
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return found;
}

static void column_read(fuse_req_t r, struct handle *h, size_t n, off_t off,
			struct fuse_file_info *fi)
{
	unsigned which = which_of(h->nid);
	struct reading *x;
	struct park *park;
	struct pass *p;
	uint64_t number;

	(void)fi;
	if (table_npy_ready(h->table, which, (uint64_t)off, n)) {
		reply_bytes(r, h->table, which, n, (uint64_t)off);
		return;
	}
	x = calloc(1, sizeof(*x));
	park = x ? park_new(r, forget_reading, NULL) : NULL;
	if (!park) {
		free(x);
		fuse_reply_err(r, ENOMEM);
		return;
	}
	pthread_mutex_lock(&lock);
	p = pass_of(h->table, which);
	number = ++last_number;
	*x = (struct reading){ .number = number,
			       .park = park,
			       .which = which,
			       .n = n,
			       .offset = (uint64_t)off };
	if (p) {
		x->next = p->readings;
		p->readings = x;
	}
	pthread_mutex_unlock(&lock);
	if (!p) {
		r = park_take(park);
		if (r)
			fuse_reply_err(r, EAGAIN);
		free(x);
	}
	park_arm(park, number);
}

void table_columns_stop(void)
{
	pthread_mutex_lock(&lock);
	stopping = true;
	for (struct pass *p = passes; p; p = p->next)
		atomic_store(&p->cancel, true);
	pthread_cond_broadcast(&changed);
	while (passes || running)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
}

/* ---- the tree ---------------------------------------------------------- */

static const struct handle_ops column_ops = { .read = column_read };

static int column_getattr(const struct who *w, struct nid n, struct attr *ret)
{
	uint64_t table = shown_in(n.number >> EXTRA_BITS);
	_cleanup_table_ struct table *t = NULL;
	int no = table ? open_gen(n, &t) : -ESTALE;

	(void)w;
	return no ? no : column_attr(t, which_of(n), table, ret);
}

static int column_open(const struct who *w, struct nid n, int flags,
		       struct handle **ret)
{
	_cleanup_table_ struct table *t = NULL;
	struct handle *h;
	int no;

	if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC)) {
		table_intent_add(w->pid);
		return -ESTALE;
	}
	no = open_gen(n, &t);
	if (no)
		return no;
	h = handle_new(w, n, flags, &column_ops);
	if (!h)
		return -ENOMEM;
	h->table = TAKE_PTR(t);
	h->part = 1; /* not the whole table, to copy_file_range */
	h->cached = true;
	*ret = h;
	return 0;
}

static int column_truncate(const struct who *w, struct nid n, off_t size)
{
	(void)w, (void)n, (void)size;
	return -EPERM; /* a published generation never changes */
}

const struct tree tree_columns = {
	.getattr = column_getattr,
	.open = column_open,
	.truncate = column_truncate,
	.forget = column_forget,
};
