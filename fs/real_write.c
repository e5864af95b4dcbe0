// SPDX-License-Identifier: Apache-2.0
/*
 * Open files of real.c.  What is sent is written in the spool of its party and
 * handed to rollsite by close; while it is written rollsite is told how much
 * of its beginning is final, and sends that already.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "fs/real_priv.h"

/* The analyzer does not follow what a handle keeps. */
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

/* rollsite is told whenever the end of the contiguous part passes one. */
#define TELL_STEP (4u << 20)

struct writer {
	struct node *node;
	uint64_t owner; /* the party, also when the name is gone */
	bool direct;	/* a file kept here: written in place */
	bool counted;	/* of direct: by real_node_write_begin */
	char *spool;	/* ours until handed over */
	bool dirty;	/* has something that is not handed over */

	/* Of the spool file.  [0, mark) was written without a gap, rollsite was
	 * told of [0, told) under the path as; base = what was there before, a
	 * copy of the file, counts as written once somebody goes on at its
	 * end. */
	uint64_t mark, told, base;
	char *as;
	uint64_t turn; /* of its last change, among all writers of the node */
};

static int writer_place(struct writer *x, struct real_at *ret, char **ret_path)
{
	return real_place(real_node_number(x->node), ret, ret_path, NULL);
}

/* ---- what rollsite hears while a file is written ------------------------ */

/* rollsite forgets the spool file; who goes on with it needs another one. */
static void untell(struct writer *x)
{
	_cleanup_free_ char *party =
	    x->as ? real_party((struct real_at){ .owner = x->owner }) : NULL;

	if (party)
		transfer_file_drop(fs.transfer, party, x->spool);
	free(TAKE_PTR(x->as));
	x->told = 0;
}

/* The file has another name than rollsite was told. */
static int respool(struct writer *x, struct real_at at)
{
	_cleanup_free_ char *spool = real_spool(at);

	if (!spool)
		return -ENOMEM;
	if (rename(x->spool, spool))
		return -errno;
	untell(x);
	real_node_pending(x->node, spool, x->spool);
	free(x->spool);
	x->spool = TAKE_PTR(spool);
	return 0;
}

/* With the handle's lock held. */
static void tell(struct handle *h, bool rewritten)
{
	struct writer *x = h->own;
	_cleanup_free_ char *path = NULL, *party = NULL;
	struct real_at at;

	if (writer_place(x, &at, &path)) /* removed: real.c has said so */
		return;
	if (x->as && strcmp(x->as, path)) {
		if (respool(x, at))
			return;
		rewritten = false;
	}
	if (at.kind != REAL_OUT || real_kept_here(at))
		return;
	party = real_party(at);
	if (!x->as)
		x->as = strdup(path);
	if (!party || !x->as)
		return;
	/* The disk begins now with what close would wait for. */
	if (x->mark > x->told)
		(void)sync_file_range(h->fd, (off_t)x->told,
				      (off_t)(x->mark - x->told),
				      SYNC_FILE_RANGE_WRITE);
	transfer_file_stream(fs.transfer, party, path, x->spool, x->mark,
			     rewritten);
	real_node_told(x->node);
	x->told = x->mark;
}

static void note_write(struct handle *h, uint64_t off, size_t n)
{
	struct writer *x = h->own;

	if (off < x->told) {
		x->mark = off;
		tell(h, true);
	} else if (!x->mark && off == x->base) {
		x->mark = off;
	}
	if (off <= x->mark)
		x->mark = MAX(x->mark, off + n);
	if (x->mark / TELL_STEP > x->told / TELL_STEP)
		tell(h, false);
}

static void note_truncate(struct handle *h, uint64_t size)
{
	struct writer *x = h->own;
	bool rewritten = size < x->told;

	x->mark = MIN(x->mark, size);
	x->base = MIN(x->base, size);
	if (rewritten)
		tell(h, true);
}

/* ---- writing ------------------------------------------------------------ */

static int direct_begin(struct writer *x)
{
	int no = x->counted ? 0 : real_node_write_begin(x->node);

	x->counted = !no;
	return no;
}

static void direct_end(struct writer *x)
{
	if (x->counted)
		real_node_write_end(x->node);
	x->counted = false;
}

/* Renamed to a temporary name while it was written: stays, unsent. */
static int keep(struct writer *x, struct real_at at)
{
	_cleanup_free_ char *disk = real_disk_of(at, true);
	int no = disk ? real_parents(disk) : -ENOMEM;

	if (!no && rename(x->spool, disk))
		no = -errno;
	if (no)
		return no;
	untell(x);
	x->direct = true;
	return direct_begin(x);
}

static int deliver(struct handle *h, struct real_at at)
{
	struct writer *x = h->own;
	int no = 0;

	if (x->as && strcmp(x->as, at.path))
		no = respool(x, at);
	return no ? no : real_hand_over(h->uid, at, x->spool);
}

/* mv, cp -a and rsync -X set attributes before they close. */
static void set_deadline(struct handle *h, struct real_at at)
{
	const struct writer *x = h->own;
	_cleanup_free_ char *party = NULL, *what = NULL;
	struct err e = { 0 };
	int64_t ms = real_node_deadline(x->node);
	int no;

	if (!ms || at.kind != REAL_OUT || real_kept_here(at) ||
	    !(party = real_party(at)))
		return;
	no = transfer_file_deadline(fs.transfer, party, at.path, ms, &e);
	what = no ? xasprintf("federation/%s/%s", party, at.path) : NULL;
	if (no)
		errors_add(h->uid, what, no, e.text);
}

/*
 * A release comes while its writer goes on: with ": >f; echo x >f" the empty
 * file may be second.  It must not replace what was written later.
 */
static int put_in_turn(struct handle *h, bool late)
{
	struct writer *x = h->own;
	_cleanup_free_ char *path = NULL;
	struct real_at at;
	int no;

	if (!real_node_turn_taken(x->node, late ? x->turn : 0)) {
		x->dirty = false;
		return 0;
	}
	no = writer_place(x, &at, &path);
	if (no) { /* removed while it was written */
		x->dirty = false;
		return 0;
	}
	/* The kernel tells of a lost byte once: what is left is not whole. */
	if (fsync(h->fd))
		return h->failed = -errno;
	no = real_kept_here(at) ? keep(x, at) : deliver(h, at);
	if (no)
		return no;
	x->dirty = false;
	real_node_pending(x->node, NULL, x->spool);
	set_deadline(h, at);
	free(TAKE_PTR(x->spool));
	free(TAKE_PTR(x->as));
	x->mark = x->told = x->base = 0;
	return 0;
}

/* With the handle's lock held: everything written is rollsite's. */
static int put(struct handle *h, bool late)
{
	const struct writer *x = h->own;
	pthread_mutex_t *turn = real_turn(real_node_number(x->node));
	int no;

	if (x->direct)
		return fsync(h->fd) ? -errno : 0;
	if (h->failed || !x->dirty)
		return h->failed;
	pthread_mutex_lock(turn);
	no = put_in_turn(h, late);
	pthread_mutex_unlock(turn);
	return no;
}

/* The spool gets a copy of what is open. */
static int copy_to_spool(struct handle *h, struct real_at at)
{
	struct writer *x = h->own;
	_cleanup_free_ char *spool = real_spool(at);
	struct stat st;
	int no = spool ? real_copy(h->fd, spool) : -ENOMEM;
	int fd;

	if (no)
		return no;
	fd = open(spool, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st)) {
		no = -errno;
		if (fd >= 0)
			close(fd);
		(void)unlink(spool);
		return no;
	}
	close(h->fd);
	h->fd = fd;
	real_node_fd(x->node, fd);
	x->spool = TAKE_PTR(spool);
	x->mark = x->told = 0;
	x->base = (uint64_t)st.st_size;
	return 0;
}

/* With the lock held: before a byte changes. A file that was handed over is
 * not touched any more; the next generation starts as its copy. */
static int prepare_change(struct handle *h)
{
	struct writer *x = h->own;
	_cleanup_free_ char *path = NULL;
	struct real_at at;
	int no = 0;

	if (h->failed)
		return h->failed;
	if (x->direct || !x->spool) {
		no = writer_place(x, &at, &path);
		if (x->direct && (no || real_kept_here(at)))
			return direct_begin(x); /* also without a name */
		if (x->direct && !no) { /* sent under another name since */
			direct_end(x);
			x->direct = false;
		}
		if (!no)
			no = copy_to_spool(h, at);
		if (no)
			return h->failed = no;
	}
	if (!x->dirty)
		real_node_pending(x->node, x->spool, NULL);
	x->dirty = true;
	x->turn = real_node_turn(x->node);
	return 0;
}

static void real_write(fuse_req_t r, struct handle *h, const char *buf,
		       size_t n, off_t off)
{
	const struct writer *x = h->own;
	struct stat st;
	int no;

	pthread_mutex_lock(&h->lock);
	no = prepare_change(h);
	if (!no && (h->flags & O_APPEND) && !fstat(h->fd, &st))
		off = st.st_size;
	if (!no) {
		no = pwrite_all(h->fd, buf, n, (uint64_t)off);
		/* A file with a hole that its writer knows of is not sent. */
		if (no && !x->direct)
			h->failed = no;
	}
	if (!no) {
		h->bytes += n;
		if (!x->direct)
			note_write(h, (uint64_t)off, n);
	}
	pthread_mutex_unlock(&h->lock);
	if (no)
		reply_refused(r, h, no);
	else
		fuse_reply_write(r, n);
}

static int real_truncate_open(struct handle *h, off_t size)
{
	const struct writer *x = h->own;
	int no;

	pthread_mutex_lock(&h->lock);
	if (!size)
		h->failed = 0; /* begun anew */
	no = prepare_change(h);
	if (!no && ftruncate(h->fd, size)) {
		no = -errno;
		if (!x->direct)
			h->failed = no;
	}
	if (!no && !x->direct)
		note_truncate(h, (uint64_t)size);
	pthread_mutex_unlock(&h->lock);
	return no;
}

/* It waits for the disk: aside. */
static void close_it(fuse_req_t r, struct handle *h)
{
	int no;

	pthread_mutex_lock(&h->lock);
	/* A failure is known to its writer: not sent behind his back. */
	h->failed = no = put(h, false);
	pthread_mutex_unlock(&h->lock);
	reply_refused(r, h, no);
}

static void real_flush(fuse_req_t r, struct handle *h)
{
	struct writer *x = h->own;
	enum closer who = CLOSE_OTHER;
	bool hand_over;

	pthread_mutex_lock(&h->lock);
	/* Shells flush before the first byte: an empty file goes at release. */
	if (x && (h->bytes || h->failed) && (!x->direct || x->counted))
		who = proc_closer(h, r);
	hand_over = who == CLOSE_OPENER && !x->direct;
	if (who == CLOSE_KILLED)
		h->killed = true;
	else if (who == CLOSE_OPENER && x->direct)
		direct_end(x); /* mv need not copy it */
	pthread_mutex_unlock(&h->lock);
	if (hand_over)
		handle_aside(r, h, close_it);
	else
		fuse_reply_err(r, 0);
}

/* ---- fsync -------------------------------------------------------------- */

struct sync_call {
	struct park *park;
	bool called;
	bool written; /* by somebody, who has not closed it */
	uid_t uid;
	char party[24];
	char path[];
};

/* Why the partner does not have it, where people look first. */
static void explain(const struct sync_call *c, int status)
{
	json_t *state = transfer_file_state(fs.transfer, c->party, c->path);
	const char *text = json_str_or(state, "error", "");
	_cleanup_free_ char *what =
	    xasprintf("federation/%s/%s", c->party, c->path);

	errors_add(c->uid, what, status,
		   *text ? text
		   : c->written
		       ? "it is still written: sync it when its writer "
			 "has closed it"
		       : "it was not handed over");
	json_decref(state);
}

static void on_committed(void *arg, int status)
{
	struct sync_call *c = arg;
	fuse_req_t r;

	c->called = true;
	if (status == -ENOENT && c->written)
		status = -EBUSY;
	if (status && status != -EINTR && status != -EPIPE)
		explain(c, status);
	r = park_take(c->park);
	if (r)
		fuse_reply_err(r, -status);
}

/* After the cancel the callback has come or never will. */
static bool cancel_sync(void *arg, uint64_t number)
{
	struct sync_call *c = arg;

	(void)number;
	transfer_file_wait_cancel(fs.transfer, on_committed, c);
	return !c->called;
}

/*
 * Answered when the partner has it.  The kernel holds the node's lock while an
 * fsync is answered: rm of the file would wait for it, and with rm everything
 * in its directory.  So the name leads to another node from now on.
 */
static void wait_committed(fuse_req_t r, struct real_at at, bool written)
{
	_cleanup_free_ char *party = real_party(at);
	struct sync_call *c =
	    party ? calloc(1, sizeof(*c) + strlen(at.path) + 1) : NULL;
	struct park *p = c ? park_new(r, cancel_sync, c) : NULL;

	if (!p) {
		free(c);
		fuse_reply_err(r, ENOMEM);
		return;
	}
	c->park = p;
	c->written = written;
	c->uid = fuse_req_ctx(r)->uid;
	(void)snprintf(c->party, sizeof(c->party), "%s", party);
	memcpy(c->path, at.path, strlen(at.path) + 1);
	real_node_aside(at);
	transfer_file_wait(fs.transfer, party, at.path, on_committed, c);
	park_arm(p, 1);
}

/*
 * Shells close a file before its first byte, so an empty one is handed over
 * when it is released.  The kernel says that right after the close and waits
 * for no answer: who syncs next is a moment too early.  Whether somebody still
 * writes the file.
 */
static bool settle(const struct writer *x)
{
	const struct timespec moment = { .tv_nsec = 5000000 };

	for (int i = 0; i < 200; i++) {
		_cleanup_free_ char *path = NULL, *pending = NULL;
		struct real_at at;
		struct stat st;

		if (real_place(real_node_number(x->node), &at, &path,
			       &pending) ||
		    !pending)
			return false;
		if (!stat(pending, &st) && st.st_size)
			return true;
		(void)nanosleep(&moment, NULL);
	}
	return true;
}

static void wait_place(fuse_req_t r, struct writer *x)
{
	_cleanup_free_ char *path = NULL;
	struct real_at at;
	bool written = settle(x);
	int no = writer_place(x, &at, &path);

	if (no || at.kind != REAL_OUT || real_kept_here(at))
		fuse_reply_err(r, no == -ESTALE ? 0 : -no);
	else
		wait_committed(r, at, written);
}

static void sync_it(fuse_req_t r, struct handle *h)
{
	int no;

	pthread_mutex_lock(&h->lock);
	no = put(h, false);
	pthread_mutex_unlock(&h->lock);
	if (no)
		reply_refused(r, h, no);
	else
		wait_place(r, h->own);
}

static void real_fsync(fuse_req_t r, struct handle *h)
{
	handle_aside(r, h, sync_it);
}

/* ---- open and close ----------------------------------------------------- */

static void real_release(struct handle *h)
{
	struct writer *x = h->own;

	if (!x)
		return;
	/* An empty file, or one whose descriptor was passed on. */
	if (x->dirty && !h->killed && !h->failed && put(h, true))
		log_warn("fs", "a file could not be handed over");
	direct_end(x);
	if (x->spool) {
		real_node_pending(x->node, NULL, x->spool);
		(void)unlink(x->spool);
		untell(x);
	}
	free(x->spool);
	free(x->as);
	real_node_close(x->node);
	free(x);
}

static const struct handle_ops real_ops = {
	.write = real_write,
	.flush = real_flush,
	.fsync = real_fsync,
	.truncate = real_truncate_open,
	.release = real_release,
};

static int open_kept(struct writer *x, struct handle *h, const char *disk,
		     bool create)
{
	int no = real_parents(disk);

	x->direct = true;
	if (no)
		return no;
	h->fd = open(disk,
		     O_RDWR | O_CLOEXEC | O_NOFOLLOW | (create ? O_CREAT : 0) |
			 (h->flags & (O_TRUNC | O_EXCL)),
		     0600);
	return h->fd < 0 ? -errno : direct_begin(x);
}

/* What is being written, else what is published: the former becomes the latter
 * a little before we hear of it. */
static int open_present(struct real_at at, const char *disk)
{
	_cleanup_free_ char *published = NULL;
	int fd = open(disk, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0 && errno == ENOENT && at.kind == REAL_OUT) {
		published = real_disk_of(at, real_kept_here(at));
		if (!published)
			return -ENOMEM;
		fd = open(published, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	}
	return fd < 0 ? -errno : fd;
}

/* A file that is written anew keeps its attributes. */
static void take_attributes(struct real_at at, int fd)
{
	_cleanup_free_ char *disk = real_disk(at);
	_cleanup_close_ int old = disk ? open_present(at, disk) : -1;

	if (old >= 0)
		real_user_copy(old, fd);
}

static int open_spool(struct writer *x, struct handle *h, struct real_at at)
{
	x->spool = real_spool(at);
	if (!x->spool)
		return -ENOMEM;
	h->fd = open(x->spool, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (h->fd < 0)
		return -errno;
	take_attributes(at, h->fd);
	x->dirty = true;
	x->turn = real_node_turn(x->node);
	real_node_pending(x->node, x->spool, NULL);
	return 0;
}

/* Takes over the opening of the node. */
static int open_node(const struct who *w, struct node *n, struct real_at at,
		     int flags, bool create, struct handle **ret)
{
	_cleanup_free_ char *disk = real_disk(at);
	bool writes = (flags & O_ACCMODE) != O_RDONLY;
	struct writer *x = calloc(1, sizeof(*x));
	struct handle *h =
	    handle_new(w, (struct nid){ K_REAL, real_node_number(n), 0 }, flags,
		       &real_ops);
	int no;

	if (!x || !h || !disk) {
		free(x);
		handle_free(h);
		real_node_close(n);
		return -ENOMEM;
	}
	x->node = n;
	x->owner = at.owner;
	h->own = x;
	if (writes && real_kept_here(at)) {
		no = open_kept(x, h, disk, create);
	} else if (writes && (flags & O_TRUNC)) {
		no = open_spool(x, h, at);
	} else {
		/* Copied when it is written to; touch and sync are not. */
		h->fd = open_present(at, disk);
		no = h->fd < 0 ? h->fd : 0;
		x->direct = !writes;
	}
	if (no) {
		handle_free(h);
		return no;
	}
	real_node_fd(n, h->fd);
	*ret = h;
	return 0;
}

int real_create(const struct who *w, struct real_at at, mode_t mode, int flags,
		struct attr *ret, struct handle **ret_h)
{
	_cleanup_free_ char *disk = NULL;
	struct node *n;
	bool there;
	int no;

	(void)mode;
	if (at.kind == REAL_PULL)
		return -EACCES;
	if (at.kind == REAL_IN)
		return -EPERM;
	if (!real_path_ok(at.path))
		return -EINVAL;
	there = real_exists(at);
	if (there && (flags & O_EXCL))
		return -EEXIST;
	n = real_node_open(at);
	if (!n)
		return -ENOMEM;
	no = open_node(w, n, at, flags | (there ? 0 : O_TRUNC), true, ret_h);
	if (no)
		return no;
	disk = real_disk(at);
	if (disk && !there)
		real_made_by(disk, w->uid);
	no = real_known(at, ret); /* counts the lookup */
	if (no) {
		handle_free(*ret_h);
		*ret_h = NULL;
	}
	return no;
}

int real_open(const struct who *w, struct nid n, int flags, struct handle **ret)
{
	_cleanup_free_ char *path = NULL;
	struct real_at at;
	struct node *node;
	int no = real_place(n.number, &at, &path, NULL);

	if (no)
		return no;
	if (at.kind == REAL_PULL)
		return pull_open(w, n, at, flags, ret);
	if (at.kind == REAL_IN && (flags & O_ACCMODE) != O_RDONLY)
		return -EACCES;
	node = real_node_open_number(n.number);
	return node ? open_node(w, node, at, flags, false, ret) : -ESTALE;
}

/* By name: nobody but the caller hears that it did not work. */
int real_truncate(const struct who *w, struct nid n, off_t size)
{
	struct handle *h = NULL;
	int no = real_open(w, n, O_WRONLY | (size ? 0 : O_TRUNC), &h);

	if (!no)
		no = real_truncate_open(h, size);
	if (!no) {
		pthread_mutex_lock(&h->lock);
		no = put(h, false);
		h->failed = no;
		pthread_mutex_unlock(&h->lock);
	}
	handle_free(h);
	return no;
}
