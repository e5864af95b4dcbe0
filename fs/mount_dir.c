// SPDX-License-Identifier: Apache-2.0
/*
 * Directories.  A listing is made at opendir and at rewind; a name's place in
 * it is its cookie, so that removing while reading skips nothing.  Where
 * lookups are cheap (tree.plus) the kernel gets the attributes with the names;
 * where it keeps the listing (tree.steady) one is made when it asks.
 */
#include <pthread.h>
#include <sys/stat.h>

#include "fs/mount_priv.h"

/* The analyzer does not follow what is kept in a growing array. */
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

struct listing {
	struct {
		char *name;
		fuse_ino_t ino;
		mode_t mode;
	} * e;
	size_t n, room;
	bool failed, made, fresh;
	struct listing *prev, *next; /* of all that are open */
};

static struct {
	pthread_mutex_t lock;
	struct listing *first;
} open_now = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void listing_opened(struct listing *l)
{
	pthread_mutex_lock(&open_now.lock);
	l->next = open_now.first;
	if (l->next)
		l->next->prev = l;
	open_now.first = l;
	pthread_mutex_unlock(&open_now.lock);
}

static void listing_closed(struct listing *l)
{
	pthread_mutex_lock(&open_now.lock);
	if (l->next)
		l->next->prev = l->prev;
	if (l->prev)
		l->prev->next = l->next;
	else if (open_now.first == l)
		open_now.first = l->next;
	pthread_mutex_unlock(&open_now.lock);
}

void listing_add(struct listing *l, const char *name, fuse_ino_t ino,
		 mode_t mode)
{
	if (l->n == l->room) {
		size_t room = l->room ? 2 * l->room : 16;
		void *p = realloc(l->e, room * sizeof(*l->e));

		if (!p) {
			l->failed = true;
			return;
		}
		l->e = p;
		l->room = room;
	}
	l->e[l->n].name = strdup(name);
	if (!l->e[l->n].name) {
		l->failed = true;
		return;
	}
	l->e[l->n].ino = ino;
	l->e[l->n++].mode = mode;
}

static void listing_reset(struct listing *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->e[i].name);
	l->n = 0;
	l->failed = false;
}

static void listing_free(struct listing *l)
{
	if (!l)
		return;
	listing_closed(l);
	listing_reset(l);
	free(l->e);
	free(l);
}

void listings_end(void)
{
	while (open_now.first)
		listing_free(open_now.first);
}

static int listing_make(const struct who *w, fuse_ino_t ino, struct listing *l)
{
	const struct tree *t = tree_of(ino_nid(ino));
	int no;

	listing_reset(l);
	listing_add(l, ".", ino, S_IFDIR);
	listing_add(l, "..", INO_UNKNOWN, S_IFDIR);
	no = t->list ? t->list(w, ino_nid(ino), l) : -ENOTDIR;
	l->made = l->fresh = true;
	return no ? no : l->failed ? -ENOMEM : 0;
}

void op_opendir(fuse_req_t r, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct who w = who_of(r);
	const struct tree *t = tree_of(ino_nid(ino));
	bool steady = t->steady && t->steady(ino_nid(ino));
	struct listing *l = calloc(1, sizeof(*l));
	int no = !l ? -ENOMEM : steady ? 0 : listing_make(&w, ino, l);

	fi->cache_readdir = fi->keep_cache = steady;
	fi->fh = (uintptr_t)l;
	if (l)
		listing_opened(l);
	if (!no && fuse_reply_open(r, fi) != -ENOENT)
		return;
	if (no)
		fuse_reply_err(r, no == -ENOENT ? ESTALE : -no);
	listing_free(l);
}

/* One answer to readdir: entries, and the lookups that they count. */
struct answer {
	fuse_req_t r;
	struct who w;
	fuse_ino_t dir;
	bool plus;				   /* in its format */
	bool (*look)(struct nid dir, mode_t mode); /* those with attributes */
	char *buf;
	size_t n, used;
	struct nid *counted;
	size_t n_counted;
};

static bool is_dot(const char *name)
{
	return !strcmp(name, ".") || !strcmp(name, "..");
}

/* The attributes of a name, if it is still there (else -ENOENT) and not
 * damaged; counts a lookup. */
static int look(struct answer *a, const char *name, struct attr *ret)
{
	return is_dot(name) ? -EISDIR : find_entry(&a->w, a->dir, name, ret);
}

/* Adds entry i; false = the buffer is full. */
static bool add(struct answer *a, const struct listing *l, size_t i)
{
	const char *name = l->e[i].name;
	off_t next = (off_t)(i + 1);
	struct attr at = { 0 };
	struct fuse_entry_param p = { 0 };
	bool asked = l->e[i].ino == INO_LOOKUP ||
		     (a->look && a->look(ino_nid(a->dir), l->e[i].mode));
	int no = asked ? look(a, name, &at) : 0;
	bool found = asked && !no;
	size_t k;

	if (found) {
		entry_of(&at, &p);
	} else if (l->e[i].ino == INO_LOOKUP && no == -ENOENT) {
		return true; /* gone since it was listed */
	} else {
		p.attr.st_ino =
		    l->e[i].ino == INO_LOOKUP ? INO_UNKNOWN : l->e[i].ino;
		p.attr.st_mode = l->e[i].mode;
	}
	k = a->plus ? fuse_add_direntry_plus(a->r, a->buf + a->used,
					     a->n - a->used, name, &p, next)
		    : fuse_add_direntry(a->r, a->buf + a->used, a->n - a->used,
					name, &p.attr, next);
	if (found && (!a->plus || k > a->n - a->used))
		forget_node(ino_nid(p.ino), 1);
	if (k > a->n - a->used)
		return false;
	a->used += k;
	if (found && a->plus)
		a->counted[a->n_counted++] = ino_nid(p.ino);
	return true;
}

static void read_dir(fuse_req_t r, fuse_ino_t ino, size_t n, off_t off,
		     struct listing *l, bool plus)
{
	const struct tree *t = tree_of(ino_nid(ino));
	struct answer a = { .r = r,
			    .w = who_of(r),
			    .dir = ino,
			    .plus = plus,
			    .look = plus ? t->plus : NULL,
			    .buf = malloc(n ? n : 1),
			    .n = n };
	int no = a.buf ? 0 : -ENOMEM;

	/* An entry with attributes takes more than 128 bytes. */
	if (plus) {
		a.counted = calloc(n / 128 + 1, sizeof(*a.counted));
		if (!a.counted)
			no = -ENOMEM;
	}
	/* The kernel serialises the reads of one directory handle. */
	if (!no && (!l->made || (off == 0 && !l->fresh)))
		no = listing_make(&a.w, ino, l);
	l->fresh = false;
	if (no) {
		fuse_reply_err(r, -no);
	} else {
		for (size_t i = (size_t)MAX(off, 0); i < l->n; i++)
			if (!add(&a, l, i))
				break;
		if (fuse_reply_buf(r, a.buf, a.used))
			for (size_t i = 0; i < a.n_counted; i++)
				forget_node(a.counted[i], 1);
	}
	free(a.buf);
	free(a.counted);
}

void op_readdir(fuse_req_t r, fuse_ino_t ino, size_t n, off_t off,
		struct fuse_file_info *fi)
{
	read_dir(r, ino, n, off, fh_of(fi), false);
}

void op_readdirplus(fuse_req_t r, fuse_ino_t ino, size_t n, off_t off,
		    struct fuse_file_info *fi)
{
	read_dir(r, ino, n, off, fh_of(fi), true);
}

void op_releasedir(fuse_req_t r, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	listing_free(fh_of(fi));
	fuse_reply_err(r, 0);
}
