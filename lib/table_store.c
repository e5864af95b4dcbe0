// SPDX-License-Identifier: Apache-2.0
/* Generations: who refers to them, and how names come, change and go. */
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "lib/table_store_priv.h"

int table_store_open(const char *dir, struct table_store **ret, struct err *e)
{
	static const char *const subs[] = { "names", "data", "building",
					    "attrs", "damaged" };
	struct table_store *s;
	char path[PATH_SIZE];
	int r;

	/* Two names of NAME_MAX bytes below it are never cut. */
	if (strlen(dir) > PATH_SIZE - 2 * NAME_MAX - 100)
		return err_sys(e, ENAMETOOLONG, "%s", dir);
	for (size_t i = 0; i < ARRAY_SIZE(subs); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, subs[i]);
		r = mkdir_p_durable(path, 0700, e);
		if (r)
			return r;
	}
	s = calloc(1, sizeof(*s));
	if (!s || !(s->dir = strdup(dir))) {
		free(s);
		return err_sys(e, ENOMEM, "%s", dir);
	}
	pthread_mutex_init(&s->lock, NULL);
	s->changes = store_map_changes(s);
	spare_make(s);
	*ret = s;
	return 0;
}

/* ---- references -----------------------------------------------------------
 */

void gen_path(const struct table_store *s, char *buf, uint64_t seq,
	      uint64_t gen, const char *tail)
{
	(void)snprintf(buf, PATH_SIZE, "%s/data/%llu/%llu%s", s->dir,
		       (unsigned long long)seq, (unsigned long long)gen, tail);
}

int ref_add(const struct table_store *s, const struct name *n, struct err *e)
{
	char path[PATH_SIZE], tail[64];
	int fd;

	(void)snprintf(tail, sizeof(tail), "/refs/%llu",
		       (unsigned long long)n->id);
	gen_path(s, path, n->seq, n->gen, tail);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, errno, "%s", path);
	close(fd);
	collect_cancel(s, n);
	return 0;
}

void ref_remove(const struct table_store *s, const struct name *n)
{
	char path[PATH_SIZE], tail[64];

	if (!n->gen)
		return;
	(void)snprintf(tail, sizeof(tail), "/refs/%llu",
		       (unsigned long long)n->id);
	gen_path(s, path, n->seq, n->gen, tail);
	(void)unlink(path);
}

void table_collect(struct table_store *s, uint64_t seq, uint64_t gen)
{
	char path[PATH_SIZE], away[PATH_SIZE];
	_cleanup_close_ int fd = -1;

	if (!gen)
		return;
	gen_path(s, path, seq, gen, "");
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB))
		return;
	gen_path(s, path, seq, gen, "/refs");
	/* Fails while a name refers to it; gone: who took it died then. */
	if (rmdir(path) && errno != ENOENT)
		return;
	gen_path(s, path, seq, gen, "");
	(void)snprintf(away, sizeof(away), "%s/building/%llu.gone", s->dir,
		       (unsigned long long)gen);
	if (!rename(path, away))
		(void)remove_tree(away, NULL);
	(void)snprintf(path, sizeof(path), "%s/data/%llu", s->dir,
		       (unsigned long long)seq);
	(void)rmdir(path);
}

void store_uncache(struct table_store *s, uint64_t gen)
{
	struct table *t = NULL;

	if (!gen)
		return;
	pthread_mutex_lock(&s->lock);
	for (t = s->open; t; t = t->next)
		if (t->gen == gen)
			break;
	if (t) {
		t->refs++;
		t->named_at = 0;
	}
	pthread_mutex_unlock(&s->lock);
	/* The last unref of a generation without names closes it. */
	table_unref(t);
}

static void let_go(struct table_store *s, int lock, const struct name *old)
{
	ref_remove(s, old);
	store_count_change(
	    lock); /* for who reads it now: the last one removes it */
	store_uncache(s, old->gen);
	table_collect(s, old->seq, old->gen);
}

/* The name is gone, or another table's: it must not come back without its
 * rows. */
static int gone(struct table_store *s, int lock, const char *ns,
		const char *name, const struct name *n, struct err *e)
{
	char path[PATH_SIZE];
	int r;

	if (collect_aside(s, ns, name, n, true))
		return 0;
	name_path(s, path, ns, NULL);
	r = n->gen ? dir_sync(path, e) : 0;
	if (r)
		return r;
	table_attrs_remove(s, n->id);
	let_go(s, lock, n);
	return 0;
}

/* ---- names ----------------------------------------------------------------
 */

int table_create_empty(struct table_store *s, const char *ns, const char *name,
		       struct table_id *ret, struct err *e)
{
	_cleanup_store_unlock_ int lock = store_lock_named(s, ns, name, e);
	struct name n = { 0 };
	int r;

	if (lock < 0)
		return lock;
	r = name_read(s, ns, name, &n, e);
	if (r != -ENOENT)
		return r ? r
			 : err_set(e, EEXIST, "table %s/%s exists", ns, name);
	r = namespace_need(s, ns, e);
	if (r)
		return r;
	n = (struct name){ 0 };
	r = table_store_numbers(s, 1, &n.id, e);
	if (!r)
		r = name_write(s, ns, name, &n, e);
	if (!r)
		r = name_read(s, ns, name, &n, e);
	if (!r)
		*ret =
		    (struct table_id){ .id = n.id, .changed_ns = n.changed_ns };
	return r;
}

int table_drop(struct table_store *s, const char *ns, const char *name,
	       struct err *e)
{
	_cleanup_store_unlock_ int lock = store_lock_named(s, ns, name, e);
	char path[PATH_SIZE];
	struct name n;
	int r;

	if (lock < 0)
		return lock;
	r = name_read(s, ns, name, &n, e);
	if (r)
		return r;
	name_path(s, path, ns, name);
	if (unlink(path))
		return err_sys(e, errno, "%s", path);
	return gone(s, lock, ns, name, &n, e);
}

int table_truncate(struct table_store *s, const char *ns, const char *name,
		   const struct table *rows, struct err *e)
{
	_cleanup_store_unlock_ int lock = store_lock_named(s, ns, name, e);
	char path[PATH_SIZE];
	struct name n, empty;
	bool full;
	int r;

	if (lock < 0)
		return lock;
	r = name_read(s, ns, name, &n, e);
	if (r)
		return r;
	empty = (struct name){ .id = n.id };
	if (!n.gen || (rows && rows->gen != n.gen))
		return 0;
	spare_make(s);
	r = name_write_unsynced(s, ns, name, &empty, e);
	full = r == -ENOSPC || r == -EDQUOT;
	if (full)
		r = name_write_spare(s, ns, name, &empty, e);
	/* Who removes to have room has it when he is answered. */
	if (r || (!full && collect_aside(s, ns, name, &n, false)))
		return r;
	name_path(s, path, ns, NULL);
	r = dir_sync(path, e);
	if (!r)
		let_go(s, lock, &n);
	if (full)
		spare_make(s);
	return r;
}

int table_rename(struct table_store *s, const char *ns, const char *name,
		 const char *to_ns, const char *to_name, struct err *e)
{
	_cleanup_store_unlock_ int lock = -1;
	char from[PATH_SIZE], to[PATH_SIZE];
	struct name old = { 0 }, n;
	bool over;
	int r = check_names(ns, name, e);

	if (r)
		return r;
	lock = store_lock_named(s, to_ns, to_name, e);
	if (lock < 0)
		return lock;
	r = name_read(s, ns, name, &n, e);
	if (r)
		return r;
	r = namespace_need(s, to_ns, e);
	if (r)
		return r;
	r = name_read(s, to_ns, to_name, &old, e);
	if (r && r != -ENOENT)
		return r;
	over = !r;
	name_path(s, from, ns, name);
	name_path(s, to, to_ns, to_name);
	if (rename(from, to))
		return err_sys(e, errno, "%s", from);
	return over && old.id != n.id ? gone(s, lock, to_ns, to_name, &old, e)
				      : 0;
}

/* ---- publishing -----------------------------------------------------------
 */

/* Points (ns, name) at an existing generation; the store is locked.  When that
 * fails the generation is as it was, unless the name was changed all the same
 * (and is perhaps not durable). */
static int point(struct table_store *s, int lock, const char *ns,
		 const char *name, uint64_t seq, uint64_t gen,
		 const struct name *old, struct err *e)
{
	struct name n = { .id = old->id, .seq = seq, .gen = gen }, now;
	int r;

	r = ref_add(s, &n, e);
	if (!r)
		r = name_write(s, ns, name, &n, e);
	if (!r && old->gen && old->gen != gen)
		let_go(s, lock, old);
	if (r && (name_read(s, ns, name, &now, NULL) || now.gen != gen))
		ref_remove(s, &n);
	return r;
}

static int old_or_new(struct table_store *s, const char *ns, const char *name,
		      struct name *ret, struct err *e)
{
	int r = name_read(s, ns, name, ret, e);

	if (r != -ENOENT)
		return r;
	*ret = (struct name){ 0 };
	r = namespace_need(s, ns, e);
	if (r)
		return r;
	return table_store_numbers(s, 1, &ret->id, e);
}

/* Into data/<seq>, durably. */
static int move_in(const struct table_store *s, const char *building,
		   uint64_t seq, uint64_t gen, struct err *e)
{
	char dir[PATH_SIZE], path[PATH_SIZE], above[PATH_SIZE];
	int r = 0;

	(void)snprintf(above, sizeof(above), "%s/data", s->dir);
	(void)snprintf(dir, sizeof(dir), "%s/data/%llu", s->dir,
		       (unsigned long long)seq);
	if (!mkdir(dir, 0700))
		r = dir_sync(above, e);
	else if (errno != EEXIST)
		r = err_sys(e, errno, "%s", dir);
	gen_path(s, path, seq, gen, "");
	if (!r && rename(building, path))
		r = err_sys(e, errno, "%s", path);
	if (!r)
		return dir_sync(dir, e);
	(void)rmdir(dir); /* if nothing is in it */
	return r;
}

/* What could not be published is its builder's again, who removes it. */
static void move_back(const struct table_store *s, const char *building,
		      uint64_t seq, uint64_t gen)
{
	char path[PATH_SIZE];

	gen_path(s, path, seq, gen, "");
	(void)rename(path, building);
	(void)snprintf(path, sizeof(path), "%s/data/%llu", s->dir,
		       (unsigned long long)seq);
	(void)rmdir(path);
}

int table_publish_dir(struct table_store *s, const char *building, uint64_t gen,
		      const char *ns, const char *name, struct err *e)
{
	_cleanup_store_unlock_ int lock = store_lock_named(s, ns, name, e);
	struct name old, now;
	uint64_t seq;
	int r;

	if (lock < 0)
		return lock;
	r = old_or_new(s, ns, name, &old, e);
	if (r)
		return r;
	seq = old.id;
	r = move_in(s, building, seq, gen, e);
	if (!r)
		r = point(s, lock, ns, name, seq, gen, &old, e);
	if (r && (name_read(s, ns, name, &now, NULL) || now.gen != gen))
		move_back(s, building, seq, gen);
	return r;
}

int table_link(struct table *t, const char *to_ns, const char *to_name,
	       struct err *e)
{
	_cleanup_store_unlock_ int lock =
	    store_lock_named(t->store, to_ns, to_name, e);
	struct name old;
	int r;

	if (lock < 0)
		return lock;
	r = old_or_new(t->store, to_ns, to_name, &old, e);
	if (r)
		return r;
	if (old.gen == t->gen)
		return 0;
	return point(t->store, lock, to_ns, to_name, t->seq, t->gen, &old, e);
}

int table_open(struct table_store *s, const char *ns, const char *name,
	       struct table **ret, struct err *e)
{
	struct name n;
	int r = check_names(ns, name, e);

	/* Twice: the generation may be replaced between the two reads. */
	for (int tries = 0; !r && tries < 3; tries++) {
		r = name_read(s, ns, name, &n, e);
		if (r == -ENOENT)
			return err_set(e, ENOENT, "no table %s/%s", ns, name);
		if (r)
			return r;
		if (!n.gen)
			return err_set(e, ENODATA, "table %s/%s is empty", ns,
				       name);
		r = table_open_of(s, n.seq, n.gen, ret, e);
		if (r != -ENOENT)
			return r;
		r = 0;
	}
	return r ? r : err_set(e, ENOENT, "no table %s/%s", ns, name);
}
