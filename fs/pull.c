// SPDX-License-Identifier: Apache-2.0
/*
 * federation/<party>/pull/: the inbox, for those who come before the file.
 *
 * A name that is not there yet looks like an empty file.  Opening it is
 * answered when the file is there (park.c), so nobody but the opener waits.
 * Names are percent-encoded, because a path can only be walked through
 * directories that exist: pull/a%2Fb waits for a/b.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "fs/real_priv.h"

static int digit(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

/* Each part a name that a file can have. */
static bool parts_ok(const char *path)
{
	for (;;) {
		size_t n = strcspn(path, "/");

		if (!n || n > 255 || (n <= 2 && !strncmp(path, "..", n)))
			return false;
		if (!path[n])
			return true;
		path += n + 1;
	}
}

/* The path that a name below pull/ means; NULL: none. Caller frees. */
static char *decoded(const char *path)
{
	_cleanup_free_ char *s = malloc(strlen(path) + 1);
	char *to = s;

	if (!s)
		return NULL;
	for (; *path; path++) {
		*to = *path;
		if (*path == '%') {
			int a = digit(path[1]), b = a < 0 ? -1 : digit(path[2]);

			if (b < 0)
				return NULL;
			*to = (char)(a * 16 + b);
			if (!*to)
				return NULL;
			path += 2;
		}
		to++;
	}
	*to = '\0';
	return parts_ok(s) && real_path_ok(s) ? TAKE_PTR(s) : NULL;
}

char *pull_disk(uint64_t party, const char *path)
{
	_cleanup_free_ char *s = *path ? decoded(path) : strdup("");

	return s ? real_disk_of((struct real_at){ REAL_IN, party, s }, false)
		 : NULL;
}

int pull_attr(struct attr *a, uint64_t number, struct real_at at,
	      const char *disk)
{
	_cleanup_free_ char *path = NULL;
	fuse_ino_t ino = nid_ino(K_REAL, number, 0);
	struct stat st;
	int no = 0;

	if (!lstat(disk, &st)) {
		if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
			return -ENOENT;
		no = attr_disk(a, ino,
			       S_ISDIR(st.st_mode) ? S_IFDIR | 0755
						   : S_IFREG | 0444,
			       disk, true);
	} else {
		/* Nobody sends these, and programs look for many. */
		path = decoded(at.path);
		if (!path || real_path_temporary(path))
			return -ENOENT;
		attr_fill(a, ino, S_IFREG | 0444, 0, 0);
	}
	a->entry_s = 0;
	return no;
}

int pull_getattr(uint64_t number, struct real_at at, struct attr *ret)
{
	_cleanup_free_ char *disk = pull_disk(at.owner, at.path);

	return disk ? pull_attr(ret, number, at, disk) : -ENOENT;
}

int pull_lookup(struct real_at at, struct attr *ret)
{
	_cleanup_free_ char *disk = pull_disk(at.owner, at.path);

	if (!disk)
		return -ENOENT;
	return real_known(at, ret);
}

int pull_list(struct real_at dir, struct listing *l)
{
	_cleanup_free_ char *disk = pull_disk(dir.owner, dir.path);
	_cleanup_closedir_ DIR *d = disk ? opendir(disk) : NULL;
	const struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_strbuf_ struct strbuf name = STRBUF_INIT(256);

		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, "..") ||
		    (de->d_type != DT_DIR && de->d_type != DT_REG))
			continue;
		for (const char *p = de->d_name; *p; p++)
			if (*p == '%')
				sb_adds(&name, "%25");
			else
				sb_addc(&name, *p);
		if (!name.error)
			listing_add(l, name.buf, INO_UNKNOWN,
				    de->d_type == DT_DIR ? S_IFDIR : S_IFREG);
	}
	return 0;
}

/* ---- opening ------------------------------------------------------------ */

/* Someone who waits. Freed with the park. */
struct pull_call {
	struct pull_call *next;
	struct park *park;
	struct nid nid;
	uid_t uid;
	int flags;
	bool cancelled;
	char disk[];
};
static pthread_mutex_t calls_lock = PTHREAD_MUTEX_INITIALIZER;
static struct pull_call *calls;

/* -ENOENT: not yet. */
static int serve(uid_t uid, struct nid n, int flags, const char *disk,
		 struct handle **ret)
{
	struct who w = { .uid = uid };
	_cleanup_close_ int fd =
	    open(disk, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct handle *h;
	struct stat st;

	if (fd < 0)
		return errno == ENOTDIR ? -ENOENT : -errno;
	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EACCES;
	h = handle_new(&w, n, flags, NULL);
	if (!h)
		return -ENOMEM;
	h->fd = TAKE_FD(fd);
	*ret = h;
	return 0;
}

/* With the lock held. */
static bool take_out(struct pull_call *c)
{
	struct pull_call **p;

	for (p = &calls; *p && *p != c; p = &(*p)->next)
		;
	if (!*p)
		return false;
	*p = c->next;
	return true;
}

static bool cancel_pull(void *arg, uint64_t number)
{
	struct pull_call *c = arg;
	bool ours;

	(void)number;
	pthread_mutex_lock(&calls_lock);
	c->cancelled = true;
	ours = take_out(c);
	pthread_mutex_unlock(&calls_lock);
	return ours;
}

/* Those whose file is there, off the list. */
static struct pull_call *take_ready(void)
{
	struct pull_call *ready = NULL, **p = &calls;

	pthread_mutex_lock(&calls_lock);
	while (*p) {
		struct pull_call *c = *p;

		if (access(c->disk, F_OK)) {
			p = &c->next;
			continue;
		}
		*p = c->next;
		c->next = ready;
		ready = c;
	}
	pthread_mutex_unlock(&calls_lock);
	return ready;
}

/* Removed again before it was opened: back to those who wait. */
static bool put_back(struct pull_call *c)
{
	bool back;

	pthread_mutex_lock(&calls_lock);
	back = !c->cancelled;
	if (back) {
		c->next = calls;
		calls = c;
	}
	pthread_mutex_unlock(&calls_lock);
	return back;
}

void pull_wake(void)
{
	struct pull_call *c, *next;

	/* Once more after one was put back: news of it may have come while
	 * it was on no list. */
	while ((c = take_ready())) {
		for (; c; c = next) {
			struct handle *h = NULL;
			fuse_req_t r;
			int no = serve(c->uid, c->nid, c->flags, c->disk, &h);

			next = c->next;
			if (no == -ENOENT && put_back(c))
				continue;
			r = park_take(c->park); /* frees c */
			if (!r)
				handle_free(h);
			else if (no)
				fuse_reply_err(r, -no);
			else
				reply_open(r, h);
		}
	}
}

int pull_open(const struct who *w, struct nid n, struct real_at at, int flags,
	      struct handle **ret)
{
	_cleanup_free_ char *disk = pull_disk(at.owner, at.path);
	struct pull_call *c;
	struct park *p;
	int no;

	if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC))
		return -EACCES;
	if (!disk)
		return -ENOMEM;
	no = serve(w->uid, n, flags, disk, ret);
	if (no != -ENOENT)
		return no;
	if (flags & O_NONBLOCK)
		return -EAGAIN;
	c = calloc(1, sizeof(*c) + strlen(disk) + 1);
	p = c ? park_new(w->req, cancel_pull, c) : NULL;
	if (!p) {
		free(c);
		return -ENOMEM;
	}
	c->park = p;
	c->nid = n;
	c->uid = w->uid;
	c->flags = flags;
	memcpy(c->disk, disk, strlen(disk) + 1);
	pthread_mutex_lock(&calls_lock);
	c->next = calls;
	calls = c;
	pthread_mutex_unlock(&calls_lock);
	/* What came before it was on the list gave no news to it. */
	pull_wake();
	park_arm(p, 1);
	return OPEN_LATER;
}
