// SPDX-License-Identifier: Apache-2.0
/* What the trees have in common: their tables of files, attributes, and what
 * is open. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "fs/fs.h"

/* ---- files and attributes --------------------------------------------- */

const struct ent *ent_by_name(const struct ent *t, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(t[i].name, name))
			return &t[i];
	return NULL;
}

const struct ent *ent_by_slot(const struct ent *t, size_t n, unsigned slot)
{
	for (size_t i = 0; i < n; i++)
		if (t[i].slot == slot)
			return &t[i];
	return NULL;
}

void attr_fill(struct attr *a, fuse_ino_t ino, mode_t mode, uint64_t size,
	       int64_t mtime_ms)
{
	if (!mtime_ms)
		mtime_ms = fs.started_ms;
	memset(a, 0, sizeof(*a));
	a->st.st_ino = ino;
	/* The group's bits count only where others can come at all. */
	if (ino_nid(ino).kind != K_STATIC && ino_nid(ino).kind != K_COMPONENT)
		mode &= ~(mode_t)(fs.allow_other ? 0007 : 0022);
	else if (!fs.allow_other)
		mode &= ~(mode_t)0022;
	a->st.st_mode = mode;
	a->st.st_nlink = S_ISDIR(mode) ? 2 : 1;
	a->st.st_uid = fs.uid;
	a->st.st_gid = fs.gid;
	a->st.st_size = (off_t)size;
	/* What cp writes at a time: one request of the largest size. */
	a->st.st_blksize = 1 << 20;
	a->st.st_blocks = (blkcnt_t)((size + 511) / 512);
	a->st.st_mtim.tv_sec = mtime_ms / 1000;
	a->st.st_mtim.tv_nsec = mtime_ms % 1000 * 1000000;
	a->st.st_ctim = a->st.st_atim = a->st.st_mtim;
	a->entry_s = 1;
	a->attr_s = 0;
}

int attr_disk(struct attr *a, fuse_ino_t ino, mode_t mode, const char *path,
	      bool missing_is_empty)
{
	struct stat st;

	if (lstat(path, &st)) {
		if (errno != ENOENT || !missing_is_empty)
			return -errno;
		attr_fill(a, ino, mode, 0, 0);
		return 0;
	}
	if ((st.st_mode & S_IFMT) != (mode & S_IFMT))
		return -ENOENT;
	attr_fill(a, ino, mode, S_ISDIR(mode) ? 0 : (uint64_t)st.st_size, 0);
	a->st.st_mtim = st.st_mtim;
	a->st.st_ctim = st.st_ctim;
	a->st.st_atim = st.st_mtim;
	return 0;
}

static bool ends_in(const char *name, const char *const *tails, size_t n)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < n; i++) {
		size_t m = strlen(tails[i]);

		if (len >= m && !strcmp(name + len - m, tails[i]))
			return true;
	}
	return false;
}

bool name_temporary(const char *name)
{
	static const char *const tails[] = { "~", ".tmp", ".part", ".swp" };

	return name[0] == '.' || ends_in(name, tails, ARRAY_SIZE(tails));
}

bool name_beside(const char *name)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz"
				      "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
	static const char *const tails[] = { ".bak", ".old", ".orig" };

	return name_temporary(name) || !strcmp(name, "4913") ||
	       ends_in(name, tails, ARRAY_SIZE(tails)) ||
	       (!strncmp(name, "sed", 3) && strlen(name) == 9 &&
		strspn(name, letters) == 9);
}

/* ---- handles ---------------------------------------------------------- */

static const struct handle_ops plain_ops;
static pthread_mutex_t handles_lock = PTHREAD_MUTEX_INITIALIZER;
static struct handle *handles;

struct handle *handle_new(const struct who *w, struct nid n, int flags,
			  const struct handle_ops *ops)
{
	struct handle *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->ops = ops ? ops : &plain_ops;
	h->nid = n;
	h->flags = flags;
	h->fd = -1;
	h->uid = w->uid;
	if ((flags & O_ACCMODE) != O_RDONLY)
		h->opener = proc_tgid(w->pid);
	sb_init(&h->text, 64u << 20);
	pthread_mutex_init(&h->lock, NULL);
	pthread_mutex_lock(&handles_lock);
	h->next = handles;
	if (handles)
		handles->prev = h;
	handles = h;
	pthread_mutex_unlock(&handles_lock);
	return h;
}

void handle_free(struct handle *h)
{
	if (!h)
		return;
	pthread_mutex_lock(&handles_lock);
	if (h->next)
		h->next->prev = h->prev;
	if (h->prev)
		h->prev->next = h->next;
	else
		handles = h->next;
	pthread_mutex_unlock(&handles_lock);
	if (h->ops->release)
		h->ops->release(h);
	if (h->fd >= 0)
		close(h->fd);
	table_view_unref(h->view);
	table_unref(h->table);
	sb_free(&h->text);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

void handles_end(void)
{
	while (handles) {
		handles->killed = true;
		handle_free(handles);
	}
}

int open_disk(const struct who *w, struct nid n, int flags, const char *path,
	      bool missing_is_empty, struct handle **ret)
{
	struct handle *h;
	int fd;

	if ((flags & O_ACCMODE) != O_RDONLY)
		return -EACCES;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 && (errno != ENOENT || !missing_is_empty))
		return -errno;
	h = handle_new(w, n, flags, NULL);
	if (!h) {
		if (fd >= 0)
			close(fd);
		return -ENOMEM;
	}
	h->fd = fd;
	*ret = h;
	return 0;
}

int open_text(const struct who *w, struct nid n, int flags, char *text,
	      struct handle **ret)
{
	_cleanup_free_ char *t = text;
	struct handle *h;

	if ((flags & O_ACCMODE) != O_RDONLY)
		return -EACCES;
	h = handle_new(w, n, flags, NULL);
	if (!h || (t && sb_adds(&h->text, t))) {
		handle_free(h);
		return -ENOMEM;
	}
	*ret = h;
	return 0;
}

void reply_refused(fuse_req_t r, const struct handle *h, int no)
{
	errors_refused(h->uid, nid_ino(h->nid.kind, h->nid.number, h->nid.slot),
		       NULL, no, "it cannot be written so");
	fuse_reply_err(r, -no);
}

struct call {
	fuse_req_t r;
	struct handle *h;
	void (*fn)(fuse_req_t r, struct handle *h);
};

static void call(void *arg)
{
	struct call c = *(struct call *)arg;

	free(arg);
	errors_begin();
	c.fn(c.r, c.h);
}

void handle_aside(fuse_req_t r, struct handle *h,
		  void (*fn)(fuse_req_t r, struct handle *h))
{
	struct call *c = calloc(1, sizeof(*c));

	if (!c) {
		fuse_reply_err(r, ENOMEM);
		return;
	}
	*c = (struct call){ r, h, fn };
	aside(call, c);
}

void reply_read_text(fuse_req_t r, const struct strbuf *t, size_t n, off_t off)
{
	size_t at = MIN((size_t)MAX(off, 0), t->len);
	_cleanup_free_ char *out = NULL;

	n = MIN(n, t->len - at);
	/* Once answered, the reader may close and the text be gone. */
	out = malloc(n + 1);
	if (!out) {
		fuse_reply_err(r, ENOMEM);
		return;
	}
	memcpy(out, t->buf + at, n);
	fuse_reply_buf(r, out, n);
}
