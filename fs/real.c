// SPDX-License-Identifier: Apache-2.0
/*
 * Files that are kept on disk under the name they have in the mount:
 *
 *   REAL_OUT   federation/<party>/<path>: STATE/federation/<party>/out/<path>;
 *              written in .../spool/ and handed to rollsite by close.  Under a
 *              temporary name: STATE/mount-tmp/peer-<party>/<path>, never sent
 *   REAL_IN    federation/<party>/inbox/<path>: STATE/federation/<party>/in/
 *   REAL_TEMP  a temporary name in a table: STATE/mount-tmp/table-<id>/
 *
 * The only nodes with a table: number -> place, with lookup and open counts.
 * One lock guards the table; it is not held over disk or rollsite.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <uthash.h>

#include "fs/fs.h"

/* The analyzer does not follow what a hash table keeps. */
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

#define DEPTH_MAX 64

struct node {
	uint64_t number;
	enum real_kind kind;
	uint64_t owner;
	char *path;    /* NULL: another file took the name */
	char *pending; /* spool file while it is written and not handed over */
	uint64_t nlookup;
	unsigned opens;
	unsigned waits; /* fsyncs that were parked; which alias is given out */
	char *key;	/* of by_key; NULL when path is */
	UT_hash_handle hh, hk;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct node *by_number, *by_key;
static uint64_t last_number, last_spool;

static char *key_of(struct real_at at)
{
	char *s = NULL;

	return asprintf(&s, "%d:%llu:%s", (int)at.kind,
			(unsigned long long)at.owner, at.path) < 0
		   ? NULL
		   : s;
}

/* With the lock held. */
static struct node *node_find(struct real_at at)
{
	_cleanup_free_ char *key = key_of(at);
	struct node *n = NULL;

	if (key)
		HASH_FIND(hk, by_key, key, strlen(key), n);
	return n;
}

/* With the lock held: the node loses its name. */
static void node_unname(struct node *n)
{
	if (n->key)
		HASH_DELETE(hk, by_key, n);
	free(n->key);
	free(n->path);
	n->key = n->path = NULL;
}

static int node_name(struct node *n, struct real_at at)
{
	char *key = key_of(at), *path = strdup(at.path);

	if (!key || !path) {
		free(key);
		free(path);
		return -ENOMEM;
	}
	node_unname(n);
	n->key = key;
	n->path = path;
	n->kind = at.kind;
	n->owner = at.owner;
	HASH_ADD_KEYPTR(hk, by_key, n->key, strlen(n->key), n);
	return 0;
}

/* With the lock held. */
static struct node *node_get(struct real_at at)
{
	struct node *n = node_find(at);

	if (n)
		return n;
	n = calloc(1, sizeof(*n));
	if (!n)
		return NULL;
	n->number = ++last_number;
	if (node_name(n, at)) {
		free(n);
		return NULL;
	}
	HASH_ADD(hh, by_number, number, sizeof(n->number), n);
	return n;
}

/* With the lock held: freed when nobody knows it. */
static void node_check(struct node *n)
{
	if (n->nlookup || n->opens)
		return;
	node_unname(n);
	HASH_DELETE(hh, by_number, n);
	free(n->pending);
	free(n);
}

static struct node *node_by(uint64_t number)
{
	struct node *n;

	HASH_FIND(hh, by_number, &number, sizeof(number), n);
	return n;
}

/* The place of a node, copied; caller frees path. */
int real_place(uint64_t number, struct real_at *ret, char **ret_path,
	       char **ret_pending)
{
	const struct node *n;
	int no = -ESTALE;

	*ret_path = NULL;
	pthread_mutex_lock(&lock);
	n = node_by(number);
	if (n && n->path && (*ret_path = strdup(n->path))) {
		*ret = (struct real_at){ n->kind, n->owner, *ret_path };
		if (ret_pending)
			*ret_pending = n->pending ? strdup(n->pending) : NULL;
		no = 0;
	}
	pthread_mutex_unlock(&lock);
	return no;
}

/* Any part of the path that is not final keeps all below it here. */
static bool path_temporary(const char *path)
{
	char part[256];

	for (const char *p = path; *p;) {
		size_t n = strcspn(p, "/");

		(void)snprintf(part, sizeof(part), "%.*s", (int)MIN(n, 255), p);
		if (name_temporary(part))
			return true;
		p += n;
		p += *p == '/';
	}
	return false;
}

static bool path_ok(const char *path)
{
	unsigned depth = 1;

	if (!utf8_valid(path, strlen(path)))
		return false;
	for (const char *p = path; *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return false;
		depth += *p == '/';
	}
	return depth <= DEPTH_MAX && strlen(path) < 4000;
}

bool real_kept_here(struct real_at at)
{
	return at.kind == REAL_TEMP ||
	       (at.kind == REAL_OUT && path_temporary(at.path));
}

char *real_disk_of(struct real_at at, bool temporary)
{
	const char *state = fs.conf->state;
	unsigned long long o = at.owner;
	const char *slash = *at.path ? "/" : "";
	char *s = NULL;
	int k;

	if (at.kind == REAL_TEMP)
		k = asprintf(&s, "%s/mount-tmp/table-%llu%s%s", state, o, slash,
			     at.path);
	else if (at.kind == REAL_OUT && temporary)
		k = asprintf(&s, "%s/mount-tmp/peer-%llu%s%s", state, o, slash,
			     at.path);
	else
		k = asprintf(&s, "%s/federation/%llu/%s%s%s", state, o,
			     at.kind == REAL_OUT ? "out" : "in", slash,
			     at.path);
	return k < 0 ? NULL : s;
}

char *real_disk(struct real_at at)
{
	const struct node *n;
	char *s = NULL;

	pthread_mutex_lock(&lock);
	n = node_find(at);
	if (n && n->pending)
		s = strdup(n->pending);
	pthread_mutex_unlock(&lock);
	return s ? s : real_disk_of(at, real_kept_here(at));
}

static int make_parents(const char *path)
{
	_cleanup_free_ char *dir = strdup(path);
	char *slash = dir ? strrchr(dir, '/') : NULL;

	if (!slash)
		return -ENOMEM;
	*slash = '\0';
	return mkdir_p(dir, 0700, NULL);
}

static char *party_of(struct real_at at)
{
	char *s = NULL;

	return asprintf(&s, "%llu", (unsigned long long)at.owner) < 0 ? NULL
								      : s;
}

static char *spool_new(struct real_at at)
{
	uint64_t k;
	char *s = NULL;

	pthread_mutex_lock(&lock);
	k = ++last_spool;
	pthread_mutex_unlock(&lock);
	if (asprintf(&s, "%s/federation/%llu/spool/w%lld-%llu", fs.conf->state,
		     (unsigned long long)at.owner, (long long)fs.started_ms,
		     (unsigned long long)k) < 0)
		return NULL;
	if (make_parents(s)) {
		free(s);
		return NULL;
	}
	return s;
}

int real_attr(struct attr *a, uint64_t number, const char *disk)
{
	struct stat st;
	int no;

	if (lstat(disk, &st))
		return -errno;
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return -ENOENT;
	no = attr_disk(a, nid_ino(K_REAL, number, 0),
		       S_ISDIR(st.st_mode) ? S_IFDIR | 0775 : S_IFREG | 0664,
		       disk, false);
	a->entry_s = 0;
	return no;
}

/* ---- names ------------------------------------------------------------ */

static int known(struct real_at at, struct attr *ret)
{
	struct node *n;
	_cleanup_free_ char *disk = real_disk(at);
	int no = disk ? real_attr(ret, 0, disk) : -ENOMEM;

	if (no)
		return no;
	pthread_mutex_lock(&lock);
	n = node_get(at);
	if (n) {
		n->nlookup++;
		ret->st.st_ino = nid_ino(K_REAL, n->number, 0);
		ret->node = nid_ino(K_REAL, n->number,
				    n->waits & ((1u << SLOT_BITS) - 1));
	}
	pthread_mutex_unlock(&lock);
	return n ? 0 : -ENOMEM;
}

int real_lookup(struct real_at at, struct attr *ret)
{
	return path_ok(at.path) ? known(at, ret) : -ENOENT;
}

static void list_disk(const char *disk, bool temporaries, struct listing *l)
{
	_cleanup_closedir_ DIR *d = disk ? opendir(disk) : NULL;
	const struct dirent *de;

	while (d && (de = readdir(d))) {
		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, "..") ||
		    (!temporaries && name_temporary(de->d_name)))
			continue;
		if (de->d_type == DT_DIR || de->d_type == DT_REG)
			listing_add(l, de->d_name, INO_UNKNOWN,
				    de->d_type == DT_DIR ? S_IFDIR : S_IFREG);
	}
}

/* Files of this directory that exist only in the spool yet. */
static void list_pending(struct real_at dir, struct listing *l)
{
	size_t len = strlen(dir.path);
	struct node *n, *tmp;

	pthread_mutex_lock(&lock);
	HASH_ITER (hh, by_number, n, tmp) {
		const char *name = n->path;
		_cleanup_free_ char *disk = NULL;

		if (!n->pending || !name || n->kind != dir.kind ||
		    n->owner != dir.owner)
			continue;
		if (len && (strncmp(name, dir.path, len) || name[len] != '/'))
			continue;
		name += len ? len + 1 : 0;
		disk = real_disk_of(
		    (struct real_at){ n->kind, n->owner, n->path }, false);
		if (!strchr(name, '/') && disk && access(disk, F_OK))
			listing_add(l, name, INO_UNKNOWN, S_IFREG);
	}
	pthread_mutex_unlock(&lock);
}

int real_list(struct real_at dir, struct listing *l)
{
	_cleanup_free_ char *disk = real_disk_of(dir, real_kept_here(dir));
	_cleanup_free_ char *temps = NULL;

	list_disk(disk, dir.kind != REAL_OUT || real_kept_here(dir), l);
	if (dir.kind == REAL_OUT && !real_kept_here(dir)) {
		_cleanup_closedir_ DIR *d = NULL;
		const struct dirent *de;

		list_pending(dir, l);
		temps = real_disk_of(dir, true);
		d = temps ? opendir(temps) : NULL;
		while (d && (de = readdir(d)))
			if (name_temporary(de->d_name) &&
			    strcmp(de->d_name, ".") && strcmp(de->d_name, ".."))
				listing_add(l, de->d_name, INO_UNKNOWN,
					    de->d_type == DT_DIR ? S_IFDIR
								 : S_IFREG);
	}
	return 0;
}

bool real_exists(struct real_at at)
{
	_cleanup_free_ char *disk = real_disk(at);
	struct stat st;

	return disk && !lstat(disk, &st);
}

int real_mkdir(const struct who *w, struct real_at at, mode_t mode,
	       struct attr *ret)
{
	_cleanup_free_ char *disk = real_disk_of(at, real_kept_here(at));

	(void)w, (void)mode;
	if (at.kind == REAL_IN)
		return -EPERM;
	if (!path_ok(at.path))
		return -EINVAL;
	if (!disk || make_parents(disk))
		return -ENOMEM;
	if (mkdir(disk, 0700))
		return -errno;
	return known(at, ret);
}

int real_unlink(const struct who *w, struct real_at at)
{
	_cleanup_free_ char *party = party_of(at), *disk = NULL;
	struct node *n;
	struct err e = { 0 };
	bool pending;
	int no = 0;

	pthread_mutex_lock(&lock);
	n = node_find(at);
	pending = n && n->pending;
	if (n)
		node_unname(n);
	pthread_mutex_unlock(&lock);
	disk = real_disk_of(at, real_kept_here(at));
	if (!disk || !party)
		return -ENOMEM;
	if (access(disk, F_OK) && pending)
		return 0; /* its writer finds that it has no name any more */
	if (at.kind == REAL_OUT && !real_kept_here(at)) {
		no = transfer_file_remove(fs.transfer, party, at.path, &e);
		/* Known to nobody but present: left by an older state. */
		if (no == -ENOENT && !unlink(disk))
			no = 0;
		if (no)
			errors_add(w->uid, at.path, no, e.text);
		return no;
	}
	return unlink(disk) ? -errno : 0;
}

int real_rmdir(const struct who *w, struct real_at at)
{
	_cleanup_free_ char *disk = real_disk_of(at, real_kept_here(at));
	_cleanup_free_ char *temps = NULL;

	(void)w;
	if (!disk)
		return -ENOMEM;
	if (at.kind == REAL_OUT && !real_kept_here(at)) {
		temps = real_disk_of(at, true);
		if (temps && rmdir(temps) && errno != ENOENT)
			return -errno;
	}
	return rmdir(disk) ? -errno : 0;
}

/* The bytes of one file under another name in the spool. */
static int copy_file(const char *from, const char *to)
{
	_cleanup_close_ int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_close_ int out = -1;
	_cleanup_free_ char *buf = malloc(256u << 10);
	ssize_t k;

	if (in < 0 || !buf)
		return in < 0 ? -errno : -ENOMEM;
	out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (out < 0)
		return -errno;
	while ((k = read(in, buf, 256u << 10)) > 0) {
		int no = write_all(out, buf, (size_t)k);

		if (no)
			return no;
	}
	if (k < 0 || fsync(out))
		return -errno;
	return 0;
}

static int hand_over(uid_t uid, struct real_at at, const char *spool)
{
	_cleanup_free_ char *party = party_of(at);
	struct err e = { 0 };
	int no = party
		     ? transfer_file_put(fs.transfer, party, at.path, spool, &e)
		     : -ENOMEM;

	if (no) {
		char what[512];

		(void)snprintf(what, sizeof(what), "federation/%s/%s",
			       party ? party : "", at.path);
		errors_add(uid, what, no, e.text);
	}
	return no;
}

/* One name to another; the bytes go where the new name keeps them. */
static int move_bytes(const struct who *w, struct real_at from,
		      struct real_at to)
{
	_cleanup_free_ char *a = real_disk_of(from, real_kept_here(from));
	_cleanup_free_ char *b = real_disk_of(to, real_kept_here(to));
	_cleanup_free_ char *spool = NULL, *party = party_of(from);
	struct stat st;
	int no;

	if (!a || !b || !party)
		return -ENOMEM;
	if (lstat(a, &st))
		return -errno;
	if (real_kept_here(from) && real_kept_here(to)) {
		no = make_parents(b);
		return no ? no : rename(a, b) ? -errno : 0;
	}
	if (S_ISDIR(st.st_mode))
		return -EXDEV; /* mv then copies file by file */
	if (real_kept_here(to)) {
		no = make_parents(b);
		if (!no)
			no = copy_file(a, b);
		return no ? no
			  : transfer_file_remove(fs.transfer, party, from.path,
						 NULL);
	}
	spool = spool_new(to);
	no = spool ? copy_file(a, spool) : -ENOMEM;
	if (!no)
		no = hand_over(w->uid, to, spool);
	if (no)
		return no;
	if (real_kept_here(from))
		return unlink(a) ? -errno : 0;
	return transfer_file_remove(fs.transfer, party, from.path, NULL);
}

int real_rename(const struct who *w, struct real_at from, struct real_at to)
{
	struct node *n, *other;
	bool pending;
	int no = 0;

	if (!path_ok(to.path))
		return -EINVAL;
	if (from.kind == REAL_IN || from.kind != to.kind)
		return -EXDEV;
	pthread_mutex_lock(&lock);
	n = node_find(from);
	pending = n && n->pending;
	pthread_mutex_unlock(&lock);
	/* A file still being written is handed over under its last name. */
	if (!pending || real_kept_here(to))
		no = move_bytes(w, from, to);
	if (no)
		return no;
	pthread_mutex_lock(&lock);
	n = node_find(from);
	other = node_find(to);
	if (other && other != n)
		node_unname(other);
	if (n)
		no = node_name(n, to);
	pthread_mutex_unlock(&lock);
	return no;
}

/* ---- open files ------------------------------------------------------- */

struct writer {
	struct node *node;
	bool direct;  /* a file kept here: written in place */
	char *spool;  /* ours until handed over */
	bool dirty;   /* has something that is not handed over */
	bool changed; /* any byte since open */
};

static void node_release(struct node *n)
{
	pthread_mutex_lock(&lock);
	n->opens--;
	node_check(n);
	pthread_mutex_unlock(&lock);
}

static int writer_place(struct writer *x, struct real_at *ret, char **ret_path)
{
	return real_place(x->node->number, ret, ret_path, NULL);
}

static void set_pending(struct writer *x, const char *spool)
{
	pthread_mutex_lock(&lock);
	free(x->node->pending);
	x->node->pending = spool ? strdup(spool) : NULL;
	pthread_mutex_unlock(&lock);
}

/* With the handle's lock held: everything written is rollsite's. */
static int put(struct handle *h)
{
	struct writer *x = h->own;
	_cleanup_free_ char *path = NULL;
	struct real_at at;
	int no;

	if (x->direct)
		return fsync(h->fd) ? -errno : 0;
	if (!x->dirty)
		return 0;
	no = writer_place(x, &at, &path);
	if (no) { /* removed while it was written */
		x->dirty = false;
		return 0;
	}
	if (fsync(h->fd))
		return -errno;
	if (real_kept_here(at)) { /* renamed to a temporary name meanwhile */
		_cleanup_free_ char *disk = real_disk_of(at, true);

		no = disk ? make_parents(disk) : -ENOMEM;
		if (!no && rename(x->spool, disk))
			no = -errno;
	} else {
		no = hand_over(h->uid, at, x->spool);
	}
	if (no)
		return no;
	free(TAKE_PTR(x->spool));
	x->dirty = false;
	set_pending(x, NULL);
	return 0;
}

/* With the lock held: before a byte changes. A file that was handed over is
 * not touched any more; the next generation starts as its copy. */
static int prepare_change(struct handle *h)
{
	struct writer *x = h->own;
	_cleanup_free_ char *path = NULL, *spool = NULL, *disk = NULL;
	struct real_at at;
	int no, fd;

	x->changed = true;
	if (x->direct)
		return 0;
	if (!x->spool) {
		no = writer_place(x, &at, &path);
		if (no)
			return no;
		disk = real_disk_of(at, false);
		spool = spool_new(at);
		no = disk && spool ? copy_file(disk, spool) : -ENOMEM;
		if (no)
			return no;
		fd = open(spool, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		close(h->fd);
		h->fd = fd;
		x->spool = TAKE_PTR(spool);
	}
	if (!x->dirty)
		set_pending(x, x->spool);
	x->dirty = true;
	return 0;
}

static void real_write(fuse_req_t r, struct handle *h, const char *buf,
		       size_t n, off_t off)
{
	struct stat st;
	int no;

	pthread_mutex_lock(&h->lock);
	no = prepare_change(h);
	if (!no && (h->flags & O_APPEND) && !fstat(h->fd, &st))
		off = st.st_size;
	if (!no)
		no = pwrite_all(h->fd, buf, n, (uint64_t)off);
	if (!no)
		h->bytes += n;
	pthread_mutex_unlock(&h->lock);
	if (no)
		fuse_reply_err(r, -no);
	else
		fuse_reply_write(r, n);
}

static int real_truncate_open(struct handle *h, off_t size)
{
	int no;

	pthread_mutex_lock(&h->lock);
	no = prepare_change(h);
	if (!no && ftruncate(h->fd, size))
		no = -errno;
	pthread_mutex_unlock(&h->lock);
	return no;
}

static void real_flush(fuse_req_t r, struct handle *h)
{
	const struct writer *x = h->own;
	int no = 0;

	pthread_mutex_lock(&h->lock);
	/* Shells flush before the first byte: an empty file goes at release. */
	if (x && h->bytes && !x->direct) {
		switch (proc_closer(h, r)) {
		case CLOSE_KILLED:
			h->killed = true;
			break;
		case CLOSE_OPENER:
			no = put(h);
			break;
		case CLOSE_OTHER:
			break;
		}
	}
	pthread_mutex_unlock(&h->lock);
	fuse_reply_err(r, -no);
}

struct sync_call {
	struct park *park;
	bool called;
};

static void on_committed(void *arg, int status)
{
	struct sync_call *c = arg;
	fuse_req_t r;

	c->called = true;
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
 * The kernel holds the node's lock while an fsync is answered: rm of the file
 * would wait for it, and with rm everything in its directory.  Who looks the
 * name up from now on gets another node for the same file.
 */
static void set_aside(struct real_at at)
{
	struct node *n;

	pthread_mutex_lock(&lock);
	n = node_find(at);
	if (n)
		n->waits++;
	pthread_mutex_unlock(&lock);
}

/* Answered when the partner has it. */
static void wait_committed(fuse_req_t r, struct real_at at)
{
	_cleanup_free_ char *party = party_of(at);
	struct sync_call *c = party ? calloc(1, sizeof(*c)) : NULL;
	struct park *p = c ? park_new(r, cancel_sync, c) : NULL;

	if (!p) {
		free(c);
		fuse_reply_err(r, ENOMEM);
		return;
	}
	c->park = p;
	set_aside(at);
	transfer_file_wait(fs.transfer, party, at.path, on_committed, c);
	park_arm(p, 1);
}

static void real_fsync(fuse_req_t r, struct handle *h)
{
	struct writer *x = h->own;
	_cleanup_free_ char *path = NULL;
	struct real_at at = { REAL_IN, 0, NULL };
	int no;

	pthread_mutex_lock(&h->lock);
	no = put(h);
	if (!no)
		no = writer_place(x, &at, &path);
	pthread_mutex_unlock(&h->lock);
	if (no || at.kind != REAL_OUT || real_kept_here(at))
		fuse_reply_err(r, no == -ESTALE ? 0 : -no);
	else
		wait_committed(r, at);
}

static void real_release(struct handle *h)
{
	struct writer *x = h->own;

	if (!x)
		return;
	/* An empty file, or one whose descriptor was passed on. */
	if (x->dirty && !h->killed && put(h))
		log_warn("fs", "a file could not be handed over");
	if (x->spool) {
		set_pending(x, NULL);
		(void)unlink(x->spool);
	}
	free(x->spool);
	node_release(x->node);
	free(x);
}

static const struct handle_ops real_ops = {
	.write = real_write,
	.flush = real_flush,
	.fsync = real_fsync,
	.truncate = real_truncate_open,
	.release = real_release,
};

/* node comes with an open counted; it is given back on failure. */
static int open_node(const struct who *w, struct node *n, struct real_at at,
		     int flags, bool create, struct handle **ret)
{
	_cleanup_free_ char *disk = real_disk(at);
	bool writes = (flags & O_ACCMODE) != O_RDONLY;
	struct writer *x = calloc(1, sizeof(*x));
	struct handle *h =
	    handle_new(w, (struct nid){ K_REAL, n->number, 0 }, flags, NULL);
	int no = 0;

	if (!x || !h || !disk) {
		no = -ENOMEM;
	} else if (!writes) {
		h->fd = open(disk, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		no = h->fd < 0 ? -errno : 0;
		x->direct = true; /* fsync waits, nothing is handed over */
	} else if (real_kept_here(at)) {
		no = make_parents(disk);
		x->direct = true;
		if (!no)
			h->fd = open(disk,
				     O_RDWR | O_CLOEXEC | O_NOFOLLOW |
					 (create ? O_CREAT : 0) |
					 (flags & (O_TRUNC | O_EXCL)),
				     0600);
		if (!no && h->fd < 0)
			no = -errno;
	} else {
		x->spool = spool_new(at);
		if (!x->spool)
			no = -ENOMEM;
		else if (!create && !(flags & O_TRUNC))
			no = copy_file(disk, x->spool);
		if (!no) {
			h->fd =
			    open(x->spool, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
			no = h->fd < 0 ? -errno : 0;
		}
	}
	if (no) {
		if (x && x->spool)
			(void)unlink(x->spool);
		free(x ? x->spool : NULL);
		free(x);
		handle_free(h);
		node_release(n);
		return no;
	}
	x->node = n;
	h->own = x;
	h->ops = &real_ops;
	if (x->spool && (create || (flags & O_TRUNC))) {
		x->dirty = true;
		set_pending(x, x->spool);
	}
	*ret = h;
	return 0;
}

int real_create(const struct who *w, struct real_at at, mode_t mode, int flags,
		struct attr *ret, struct handle **ret_h)
{
	struct node *n;
	int no;

	(void)mode;
	if (at.kind == REAL_IN)
		return -EPERM;
	if (!path_ok(at.path))
		return -EINVAL;
	if (real_exists(at) && (flags & O_EXCL))
		return -EEXIST;
	pthread_mutex_lock(&lock);
	n = node_get(at);
	if (n)
		n->opens++;
	pthread_mutex_unlock(&lock);
	if (!n)
		return -ENOMEM;
	no = open_node(w, n, at, flags | (real_exists(at) ? 0 : O_TRUNC), true,
		       ret_h);
	if (no)
		return no;
	no = known(at, ret); /* counts the lookup */
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
	if (at.kind == REAL_IN && (flags & O_ACCMODE) != O_RDONLY)
		return -EACCES;
	pthread_mutex_lock(&lock);
	node = node_by(n.number);
	if (node)
		node->opens++;
	pthread_mutex_unlock(&lock);
	return node ? open_node(w, node, at, flags, false, ret) : -ESTALE;
}

void real_forget(struct nid nid, uint64_t count)
{
	struct node *n;

	pthread_mutex_lock(&lock);
	n = node_by(nid.number);
	if (n) {
		n->nlookup -= MIN(count, n->nlookup);
		node_check(n);
	}
	pthread_mutex_unlock(&lock);
}
