// SPDX-License-Identifier: Apache-2.0
/*
 * Files that are kept on disk under the name they have in the mount:
 *
 *   REAL_OUT   federation/<party>/<path>: STATE/federation/<party>/out/<path>;
 *              written in .../spool/ and handed to rollsite by close.  Under a
 *              temporary name: STATE/mount-tmp/peer-<party>/<path>, never sent
 *   REAL_IN    federation/<party>/inbox/<path>: STATE/federation/<party>/in/
 *   REAL_PULL  federation/<party>/pull/<path>: the same, also before it is
 *              there (pull.c)
 *   REAL_TEMP  a temporary name in a table: STATE/mount-tmp/table-<id>/; in
 *              its parts/: parts-<id>/; in /parties/<id>/: party-<id>/
 *
 * This file has the names, real_write.c what is open.  The only nodes with a
 * table: number -> place, with lookup and open counts.  One lock guards the
 * table; it is not held over rollsite, and over the disk for a rename only.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <uthash.h>

#include "fs/real_priv.h"

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
	uint64_t turn, handed; /* real_node_turn: last, last handed over */
	unsigned writers;      /* of those, who write in place just now */
	bool told;	       /* rollsite knows pending */
	int64_t deadline;      /* for when pending is handed over; 0 = none */
	bool leaving; /* its bytes are in the spool, its name is not yet new */
	int fd; /* of who opened it last: its attributes without a name; -1 */
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

/* With the lock held: the file is gone; if it is being written, in vain.  The
 * spool file that rollsite is to hear that of; caller frees. */
static char *node_lose(struct node *n)
{
	node_unname(n);
	return n->pending && n->told ? strdup(n->pending) : NULL;
}

static void drop(struct real_at at, const char *spool)
{
	_cleanup_free_ char *party = spool ? real_party(at) : NULL;

	if (party)
		transfer_file_drop(fs.transfer, party, spool);
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
	n->fd = -1;
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
	if (n->fd >= 0)
		close(n->fd);
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
bool real_path_temporary(const char *path)
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

bool real_path_ok(const char *path)
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
	return at.kind >= REAL_TEMP ||
	       (at.kind == REAL_OUT && real_path_temporary(at.path));
}

char *real_disk_of(struct real_at at, bool temporary)
{
	const char *state = fs.conf->state;
	unsigned long long o = at.owner;
	const char *slash = *at.path ? "/" : "";
	char *s = NULL;
	int k;

	if (at.kind == REAL_PULL)
		return pull_disk(at.owner, at.path);
	if (at.kind >= REAL_TEMP)
		k = asprintf(&s, "%s/mount-tmp/%s-%llu%s%s", state,
			     at.kind == REAL_TEMP	   ? "table"
			     : at.kind == REAL_TEMP_PART   ? "parts"
			     : at.kind == REAL_TEMP_COLUMN ? "columns"
							   : "party",
			     o, slash, at.path);
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

int real_parents(const char *path)
{
	_cleanup_free_ char *dir = strdup(path);
	char *slash = dir ? strrchr(dir, '/') : NULL;

	if (!slash)
		return -ENOMEM;
	*slash = '\0';
	return mkdir_p_durable(dir, 0700, NULL);
}

char *real_party(struct real_at at)
{
	char *s = NULL;

	return asprintf(&s, "%llu", (unsigned long long)at.owner) < 0 ? NULL
								      : s;
}

char *real_spool(struct real_at at)
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
	if (real_parents(s)) {
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
	if (!no)
		real_owner_attr(disk, -1, a);
	a->st.st_blksize = 1 << 20; /* cp and cat write in these */
	a->entry_s = 0;
	return no;
}

/* ---- names ------------------------------------------------------------ */

int real_known(struct real_at at, struct attr *ret)
{
	struct node *n;
	_cleanup_free_ char *disk = real_disk(at);
	unsigned slots = (1u << SLOT_BITS) - 1;
	int no = !disk			? -ENOMEM
		 : at.kind == REAL_PULL ? pull_attr(ret, 0, at, disk)
					: real_attr(ret, 0, disk);

	/* Published since, and we have not heard of it yet. */
	if (no == -ENOENT && at.kind == REAL_OUT) {
		_cleanup_free_ char *published =
		    real_disk_of(at, real_kept_here(at));

		no = published ? real_attr(ret, 0, published) : -ENOMEM;
	}
	if (no)
		return no;
	pthread_mutex_lock(&lock);
	n = node_get(at);
	if (n) {
		n->nlookup++;
		ret->st.st_ino = nid_ino(K_REAL, n->number, 0);
		/* What becomes a directory is another node to the kernel. */
		ret->node =
		    nid_ino(K_REAL, n->number,
			    at.kind == REAL_PULL ? S_ISDIR(ret->st.st_mode) != 0
						 : n->waits & slots);
	}
	pthread_mutex_unlock(&lock);
	return n ? 0 : -ENOMEM;
}

int real_lookup(struct real_at at, struct attr *ret)
{
	if (at.kind == REAL_PULL)
		return pull_lookup(at, ret);
	return real_path_ok(at.path) ? real_known(at, ret) : -ENOENT;
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

/* Files of this directory that exist only in the spool yet: their number, and
 * their names into l (may be NULL). */
static size_t list_pending(struct real_at dir, struct listing *l)
{
	size_t len = strlen(dir.path), found = 0;
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
		if (strchr(name, '/') || !disk || !access(disk, F_OK))
			continue;
		found++;
		if (l)
			listing_add(l, name, INO_UNKNOWN, S_IFREG);
	}
	pthread_mutex_unlock(&lock);
	return found;
}

int real_list(struct real_at dir, struct listing *l)
{
	_cleanup_free_ char *disk = NULL, *temps = NULL;

	if (dir.kind == REAL_PULL)
		return pull_list(dir, l);
	disk = real_disk_of(dir, real_kept_here(dir));
	list_disk(disk, dir.kind != REAL_OUT || real_kept_here(dir), l);
	if (dir.kind == REAL_OUT && !real_kept_here(dir)) {
		_cleanup_closedir_ DIR *d = NULL;
		const struct dirent *de;

		(void)list_pending(dir, l);
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
	int no;

	(void)mode;
	if (at.kind == REAL_IN || at.kind == REAL_PULL)
		return -EPERM;
	if (!real_path_ok(at.path))
		return -EINVAL;
	no = disk ? real_parents(disk) : -ENOMEM;
	if (no)
		return no;
	if (mkdir(disk, 0700))
		return -errno;
	real_made_by(disk, w->uid);
	/* Files in it are durable when they are closed. */
	no = parent_sync(disk, NULL);
	return no ? no : real_known(at, ret);
}

pthread_mutex_t *real_turn(uint64_t number)
{
	static pthread_mutex_t turns[16] = { [0 ... 15] =
						 PTHREAD_MUTEX_INITIALIZER };

	return &turns[number % ARRAY_SIZE(turns)];
}

/* Waits for who hands over what has these names: a name that is gone would
 * come back with it.  Give them back in any case; NULL: nobody. */
static void take_turns(pthread_mutex_t *ret[2], struct real_at a,
		       struct real_at b)
{
	const struct node *n;

	pthread_mutex_lock(&lock);
	n = node_find(a);
	ret[0] = n ? real_turn(n->number) : NULL;
	n = node_find(b);
	ret[1] = n ? real_turn(n->number) : NULL;
	pthread_mutex_unlock(&lock);
	if (ret[0] == ret[1])
		ret[1] = NULL;
	if (ret[0] > ret[1]) {
		pthread_mutex_t *t = ret[0];

		ret[0] = ret[1];
		ret[1] = t;
	}
	for (int i = 0; i < 2; i++)
		if (ret[i])
			pthread_mutex_lock(ret[i]);
}

static void give_turns(pthread_mutex_t *const t[2])
{
	for (int i = 0; i < 2; i++)
		if (t[i])
			pthread_mutex_unlock(t[i]);
}

static int unlink_in_turn(const struct who *w, struct real_at at)
{
	_cleanup_free_ char *party = real_party(at), *disk = NULL;
	_cleanup_free_ char *vain = NULL;
	struct node *n;
	struct err e = { 0 };
	bool pending;
	int no = 0;

	if (at.kind == REAL_PULL)
		return -EPERM;
	pthread_mutex_lock(&lock);
	n = node_find(at);
	pending = n && n->pending;
	if (n)
		vain = node_lose(n);
	pthread_mutex_unlock(&lock);
	drop(at, vain);
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

int real_unlink(const struct who *w, struct real_at at)
{
	pthread_mutex_t *turns[2];
	int no;

	take_turns(turns, at, at);
	no = unlink_in_turn(w, at);
	give_turns(turns);
	return no;
}

int real_rmdir(const struct who *w, struct real_at at)
{
	_cleanup_free_ char *disk = real_disk_of(at, real_kept_here(at));
	_cleanup_free_ char *temps = NULL;

	(void)w;
	if (at.kind == REAL_PULL)
		return -EPERM;
	if (!disk)
		return -ENOMEM;
	if (at.kind == REAL_OUT && !real_kept_here(at)) {
		if (list_pending(at, NULL))
			return -ENOTEMPTY;
		temps = real_disk_of(at, true);
		if (temps && rmdir(temps) && errno != ENOENT)
			return -errno;
	}
	return rmdir(disk) ? -errno : 0;
}

/* A file kept here that nobody writes any more: its bytes go to the spool as
 * they are.  -EBUSY: they must be copied. */
static int move_to_spool(struct real_at from, const char *disk,
			 const char *spool)
{
	_cleanup_close_ int fd = open(disk, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct node *n;
	int no = 0;

	if (fd < 0 || fsync(fd))
		return -errno;
	pthread_mutex_lock(&lock);
	n = node_find(from);
	if (n && n->writers)
		no = -EBUSY;
	else if (rename(disk, spool))
		no = -errno;
	else if (n)
		n->leaving = true;
	pthread_mutex_unlock(&lock);
	return no;
}

/* What was kept here becomes a file that is sent. */
static int send_kept(uid_t uid, struct real_at from, struct real_at to,
		     const char *disk)
{
	_cleanup_free_ char *spool = real_spool(to);
	bool moved;
	int no = spool ? move_to_spool(from, disk, spool) : -ENOMEM;

	moved = !no;
	if (no == -EBUSY || no == -EXDEV)
		no = real_copy_path(disk, spool);
	if (no)
		return no;
	no = real_hand_over(uid, to, spool);
	if (!no)
		return !moved && unlink(disk) ? -errno : 0;
	if (!moved)
		(void)unlink(spool);
	else if (rename(spool, disk))
		log_warn("fs", "%s: %s", disk, strerror(errno));
	return no;
}

/* One name to another; the bytes go where the new name keeps them. */
static int move_bytes(const struct who *w, struct real_at from,
		      struct real_at to)
{
	_cleanup_free_ char *a = real_disk_of(from, real_kept_here(from));
	_cleanup_free_ char *b = real_disk_of(to, real_kept_here(to));
	_cleanup_free_ char *spool = NULL, *party = real_party(from);
	struct stat st;
	int no;

	if (!a || !b || !party)
		return -ENOMEM;
	if (lstat(a, &st))
		return -errno;
	if (real_kept_here(from) && real_kept_here(to)) {
		no = real_parents(b);
		return no ? no : rename(a, b) ? -errno : 0;
	}
	if (S_ISDIR(st.st_mode))
		return -EXDEV; /* mv then copies file by file */
	if (real_kept_here(from))
		return send_kept(w->uid, from, to, a);
	if (real_kept_here(to)) {
		no = real_parents(b);
		if (!no)
			no = real_copy_path(a, b);
	} else {
		/* What is sent is never changed, so one file may have both
		 * names while the old one is on its way. */
		spool = real_spool(to);
		no = !spool ? -ENOMEM : link(a, spool) ? -errno : 0;
		if (no && spool)
			no = real_copy_path(a, spool);
		if (!no) {
			no = real_hand_over(w->uid, to, spool);
			if (no)
				(void)unlink(spool);
		}
	}
	return no ? no
		  : transfer_file_remove(fs.transfer, party, from.path, NULL);
}

/* A file that is being written again goes with its name; what was sent under
 * it before does not stay behind. */
static int leave_older(struct real_at from)
{
	_cleanup_free_ char *disk = real_disk_of(from, false);
	_cleanup_free_ char *party = real_party(from);

	if (!disk || !party)
		return -ENOMEM;
	return access(disk, F_OK)
		   ? 0
		   : transfer_file_remove(fs.transfer, party, from.path, NULL);
}

static int rename_in_turn(const struct who *w, struct real_at from,
			  struct real_at to)
{
	_cleanup_free_ char *vain = NULL;
	struct node *n, *other;
	bool pending;
	int no;

	if (from.kind == REAL_PULL)
		return -EPERM;
	if (!real_path_ok(to.path))
		return -EINVAL;
	if (from.kind == REAL_IN || from.kind != to.kind)
		return -EXDEV;
	pthread_mutex_lock(&lock);
	n = node_find(from);
	pending = n && n->pending;
	pthread_mutex_unlock(&lock);
	/* A file still being written is handed over under its last name. */
	no = pending ? leave_older(from) : move_bytes(w, from, to);
	pthread_mutex_lock(&lock);
	n = node_find(from);
	other = node_find(to);
	if (!no && other && other != n)
		vain = node_lose(other);
	if (!no && n)
		no = node_name(n, to);
	if (n)
		n->leaving = false;
	pthread_mutex_unlock(&lock);
	drop(to, vain);
	return no;
}

int real_rename(const struct who *w, struct real_at from, struct real_at to)
{
	pthread_mutex_t *turns[2];
	int no;

	take_turns(turns, from, to);
	no = rename_in_turn(w, from, to);
	give_turns(turns);
	return no;
}

/* ---- for open files ----------------------------------------------------- */

struct node *real_node_open(struct real_at at)
{
	struct node *n;

	pthread_mutex_lock(&lock);
	n = node_get(at);
	if (n)
		n->opens++;
	pthread_mutex_unlock(&lock);
	return n;
}

struct node *real_node_open_number(uint64_t number)
{
	struct node *n;

	pthread_mutex_lock(&lock);
	n = node_by(number);
	if (n)
		n->opens++;
	pthread_mutex_unlock(&lock);
	return n;
}

void real_node_close(struct node *n)
{
	pthread_mutex_lock(&lock);
	n->opens--;
	if (!n->opens && n->fd >= 0) {
		close(n->fd);
		n->fd = -1;
	}
	node_check(n);
	pthread_mutex_unlock(&lock);
}

void real_node_fd(struct node *n, int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	pthread_mutex_lock(&lock);
	if (n->fd >= 0)
		close(n->fd);
	n->fd = copy;
	pthread_mutex_unlock(&lock);
}

int real_unnamed_attr(uint64_t number, struct attr *ret)
{
	const struct node *n;
	struct stat st;
	int no = -ESTALE;

	pthread_mutex_lock(&lock);
	n = node_by(number);
	if (n && !n->path && n->fd >= 0)
		no = fstat(n->fd, &st) ? -errno : 0;
	if (!no) {
		attr_fill(ret, nid_ino(K_REAL, number, 0), S_IFREG | 0664,
			  (uint64_t)st.st_size, 0);
		real_owner_attr(NULL, n->fd, ret);
		ret->st.st_mtim = st.st_mtim;
		ret->st.st_ctim = st.st_ctim;
		ret->st.st_nlink = 0;
	}
	pthread_mutex_unlock(&lock);
	return no;
}

uint64_t real_node_number(const struct node *n)
{
	return n->number;
}

uint64_t real_node_turn(struct node *n)
{
	uint64_t turn;

	pthread_mutex_lock(&lock);
	turn = ++n->turn;
	pthread_mutex_unlock(&lock);
	return turn;
}

bool real_node_turn_taken(struct node *n, uint64_t turn)
{
	bool yes;

	pthread_mutex_lock(&lock);
	if (!turn)
		turn = ++n->turn;
	yes = turn > n->handed;
	if (yes)
		n->handed = turn;
	pthread_mutex_unlock(&lock);
	return yes;
}

void real_node_pending(struct node *n, const char *spool, const char *was)
{
	pthread_mutex_lock(&lock);
	if (spool || (n->pending && was && !strcmp(n->pending, was))) {
		free(n->pending);
		n->pending = spool ? strdup(spool) : NULL;
		n->told = false;
	}
	pthread_mutex_unlock(&lock);
}

int real_set_deadline(uint64_t number, int64_t unix_ms)
{
	struct node *n;
	bool pending;

	pthread_mutex_lock(&lock);
	n = node_by(number);
	pending = n && n->pending;
	if (pending)
		n->deadline = unix_ms;
	pthread_mutex_unlock(&lock);
	return pending ? 0 : -ESTALE;
}

int64_t real_node_deadline(struct node *n)
{
	int64_t unix_ms;

	pthread_mutex_lock(&lock);
	unix_ms = n->deadline;
	n->deadline = 0;
	pthread_mutex_unlock(&lock);
	return unix_ms;
}

void real_node_told(struct node *n)
{
	pthread_mutex_lock(&lock);
	n->told = true;
	pthread_mutex_unlock(&lock);
}

int real_node_write_begin(struct node *n)
{
	int no = 0;

	pthread_mutex_lock(&lock);
	if (n->leaving)
		no = -EBUSY;
	else
		n->writers++;
	pthread_mutex_unlock(&lock);
	return no;
}

void real_node_write_end(struct node *n)
{
	pthread_mutex_lock(&lock);
	n->writers--;
	pthread_mutex_unlock(&lock);
}

void real_node_aside(struct real_at at)
{
	struct node *n;

	pthread_mutex_lock(&lock);
	n = node_find(at);
	if (n)
		n->waits++;
	pthread_mutex_unlock(&lock);
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
