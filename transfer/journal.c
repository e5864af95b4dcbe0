// SPDX-License-Identifier: Apache-2.0
/*
 * Append-only files.  Small messages stand in one: making a file for each of
 * them costs more than sending it.  Records follow each other: a message as on
 * the wire (u32 length of the head, head, payload unless the head says that it
 * is in a file), or a mark that a message is done (u32 zero, 64 digits of its
 * id).  What a killed process wrote in part is cut off at the next start.
 *
 * A journal of messages is longer than its records: zeros are written ahead of
 * them, because a sync that allocates nothing takes half as long.  After a
 * power cut a record that was not synced may have come in part: its digest
 * tells.
 *
 * Group commit: the first one who needs the disk syncs for everything that was
 * appended until then; who comes meanwhile waits and is next, together.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "lib/log.h"

#include "transfer/transfer_priv.h"

#define MARK	  (4 + 64)
#define MARKS_MAX (16u << 10)  /* not written yet */
#define TOGETHER  (256u << 10) /* marks and what they are written with */
/* Written ahead: as much as there is, within these. */
#define AHEAD_MIN (64u << 10)
#define AHEAD_MAX (1u << 20)
#define KEEP	  (4u << 20) /* of the file, when nothing in it matters */

struct journal {
	pthread_mutex_t lock; /* all below */
	pthread_cond_t done;
	unsigned refs;
	int fd; /* -1 after half a record: nothing may follow it */
	/* Positions grow for ever; the file begins at base. */
	uint64_t base, len, synced;
	uint64_t ahead; /* the file has zeros up to here */
	bool messages;
	bool syncing;
	int failed;	     /* a sync did: nothing is promised any more */
	struct strbuf marks; /* not written yet */
};

/* Length of the record at p, 0 when it is torn. */
static size_t record(const char *p, size_t n, struct message_head *h,
		     size_t *ret_used, const char **ret_tid)
{
	static const char zero[4];

	*ret_tid = NULL;
	if (n >= MARK && !memcmp(p, zero, 4)) {
		char tid[65] = "";

		memcpy(tid, p + 4, 64);
		*ret_tid = p + 4;
		return hex64_valid(tid) ? MARK : 0;
	}
	if (head_parse(p, n, h, ret_used, NULL))
		return 0;
	if (h->file)
		return *ret_used;
	if (n - *ret_used < h->size)
		return 0;
	return *ret_used + (size_t)h->size;
}

static bool whole(const struct message_head *h, const char *payload)
{
	char sha[65];

	if (h->file)
		return true;
	key_digest(&h->key, payload, (size_t)h->size, sha);
	return !strcmp(sha, h->sha256);
}

static uint64_t replay(const char *all, size_t n, journal_fn fn, void *arg)
{
	size_t at = 0, len, used = 0;
	struct message_head h = { 0 };
	const char *tid;

	while ((len = record(all + at, n - at, &h, &used, &tid))) {
		char text[65] = "";

		if (tid) {
			memcpy(text, tid, 64);
			fn(arg, NULL, text, NULL);
		} else if (whole(&h, all + at + used)) {
			fn(arg, &h, h.tid, h.file ? NULL : all + at + used);
		}
		at += len;
	}
	return at;
}

int journal_open(const char *path, journal_fn fn, void *arg,
		 struct journal **ret, struct err *e)
{
	struct journal *j = xcalloc(1, sizeof(*j));
	struct stat st;
	int r;

	pthread_mutex_init(&j->lock, NULL);
	pthread_cond_init(&j->done, NULL);
	j->refs = 1;
	sb_init(&j->marks, TOGETHER);
	j->messages = fn != NULL;
	j->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (j->fd < 0 || fstat(j->fd, &st))
		goto bad;
	j->len = (uint64_t)st.st_size;
	if (st.st_size && fn) {
		size_t n = (size_t)st.st_size;
		void *all = mmap(NULL, n, PROT_READ, MAP_PRIVATE, j->fd, 0);

		if (all == MAP_FAILED)
			goto bad;
		j->len = replay(all, n, fn, arg);
		munmap(all, n);
		if (j->len < n && ftruncate(j->fd, (off_t)j->len))
			goto bad;
	}
	j->ahead = j->len;
	*ret = j;
	return 0;
bad:
	r = err_sys(e, errno ? errno : EIO, "%s", path);
	journal_unref(j);
	return r;
}

struct journal *journal_ref(struct journal *j)
{
	pthread_mutex_lock(&j->lock);
	j->refs++;
	pthread_mutex_unlock(&j->lock);
	return j;
}

void journal_unref(struct journal *j)
{
	bool last;

	if (!j)
		return;
	pthread_mutex_lock(&j->lock);
	last = !--j->refs;
	pthread_mutex_unlock(&j->lock);
	if (!last)
		return;
	if (j->fd >= 0)
		close(j->fd);
	pthread_mutex_destroy(&j->lock);
	pthread_cond_destroy(&j->done);
	sb_free(&j->marks);
	free(j);
}

/* lock held: room for n bytes more; it does no harm when there is none */
static void write_ahead(struct journal *j, size_t n)
{
	static const char zeros[AHEAD_MIN];
	uint64_t at = j->ahead - j->base, end = j->len - j->base + n;

	if (!j->messages || end <= at)
		return;
	end += MAX(MIN(end, (uint64_t)AHEAD_MAX), (uint64_t)AHEAD_MIN);
	while (at < end && !pwrite_all(j->fd, zeros, sizeof(zeros), at))
		at += sizeof(zeros);
	j->ahead = j->base + at;
}

/* lock held; -errno */
static int append(struct journal *j, const void *data, size_t n)
{
	int r = -EBADF;

	if (j->fd >= 0) {
		write_ahead(j, n);
		r = pwrite_all(j->fd, data, n, j->len - j->base);
	}
	if (!r) {
		j->len += n;
		j->ahead = MAX(j->ahead, j->len);
	} else if (j->fd >= 0) {
		if (ftruncate(j->fd, (off_t)(j->len - j->base))) {
			close(j->fd);
			j->fd = -1;
		}
		j->ahead = j->len;
	}
	return r;
}

/* lock held: the marks, and data in the same write */
static int append_all(struct journal *j, const void *data, size_t n)
{
	int r;

	if (!j->marks.len)
		return append(j, data, n);
	if (sb_reserve(&j->marks, n)) {
		r = append(j, j->marks.buf, j->marks.len);
		sb_reset(&j->marks);
		return r ? r : append(j, data, n);
	}
	(void)sb_add(&j->marks, data, n);
	r = append(j, j->marks.buf, j->marks.len);
	if (r)
		j->marks.len -= n; /* the marks are still good for the next */
	else
		sb_reset(&j->marks);
	return r;
}

int journal_raw(struct journal *j, const void *data, size_t n)
{
	int r;

	pthread_mutex_lock(&j->lock);
	r = append_all(j, data, n);
	pthread_mutex_unlock(&j->lock);
	return r;
}

int journal_add(struct journal *j, const struct message_head *h,
		const void *data)
{
	_cleanup_strbuf_ struct strbuf sb =
	    STRBUF_INIT(JOURNAL_MESSAGE_MAX + HEAD_MAX + 4);
	int r = head_write(&sb, h);

	if (!r && !h->file)
		r = sb_add(&sb, data, h->size);
	return r ? r : journal_raw(j, sb.buf, sb.len);
}

int journal_mark(struct journal *j, const char *tid)
{
	static const char zero[4];
	int r = 0;

	pthread_mutex_lock(&j->lock);
	if (j->marks.len >= MARKS_MAX)
		r = append_all(j, "", 0);
	if (!r)
		r = sb_add(&j->marks, zero, 4);
	if (!r)
		r = sb_add(&j->marks, tid, 64);
	pthread_mutex_unlock(&j->lock);
	return r;
}

uint64_t journal_len(struct journal *j)
{
	uint64_t len;

	pthread_mutex_lock(&j->lock);
	len = j->len;
	pthread_mutex_unlock(&j->lock);
	return len;
}

int journal_sync(struct journal *j, uint64_t upto)
{
	int r;

	pthread_mutex_lock(&j->lock);
	while (j->synced < upto && !j->failed && j->fd >= 0) {
		uint64_t target = j->len;

		if (j->syncing) {
			pthread_cond_wait(&j->done, &j->lock);
			continue;
		}
		j->syncing = true;
		pthread_mutex_unlock(&j->lock);
		r = fdatasync(j->fd) ? -errno : 0;
		pthread_mutex_lock(&j->lock);
		j->syncing = false;
		if (r)
			j->failed = r;
		else
			j->synced = MAX(j->synced, target);
		pthread_cond_broadcast(&j->done);
	}
	r = j->synced >= upto ? 0 : j->failed ? j->failed : -EBADF;
	pthread_mutex_unlock(&j->lock);
	return r;
}

uint64_t journal_bytes(struct journal *j)
{
	uint64_t n;

	pthread_mutex_lock(&j->lock);
	n = j->len - j->base;
	pthread_mutex_unlock(&j->lock);
	return n;
}

/* lock held */
static void clear(struct journal *j)
{
	if (j->fd >= 0 && !ftruncate(j->fd, 0))
		j->base = j->synced = j->ahead = j->len;
	sb_reset(&j->marks); /* of what is not there any more */
}

void journal_clear(struct journal *j)
{
	pthread_mutex_lock(&j->lock);
	clear(j);
	pthread_mutex_unlock(&j->lock);
}

void journal_again(struct journal *j)
{
	uint64_t used, size;
	_cleanup_free_ char *zeros = NULL;

	pthread_mutex_lock(&j->lock);
	used = j->len - j->base;
	size = j->ahead - j->base;
	if (used <= KEEP && j->fd >= 0) {
		zeros = xcalloc(1, used);
		sb_reset(&j->marks);
	}
	if (zeros && !pwrite_all(j->fd, zeros, used, 0)) {
		j->base = j->synced = j->len;
		j->ahead = j->base + size;
	} else {
		clear(j);
	}
	pthread_mutex_unlock(&j->lock);
}

/* A head without payload, and its mark. */
static int write_head(FILE *f, const struct message_head *head)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(HEAD_MAX + 4);
	static const char zero[4];
	struct message_head h = *head;
	int r;

	h.file = true;
	r = head_write(&sb, &h);
	if (r)
		return r;
	return fwrite(sb.buf ? sb.buf : "", 1, sb.len, f) == sb.len &&
		       fwrite(zero, 1, 4, f) == 4 &&
		       fwrite(h.tid, 1, 64, f) == 64
		   ? 0
		   : -errno;
}

/* Marks of what is kept are written with it. */
static int write_all_kept(int fd, const char *all, size_t n,
			  enum journal_keep (*keep)(void *arg, const char *tid),
			  void *arg)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	_cleanup_fclose_ FILE *f = copy < 0 ? NULL : fdopen(copy, "w");
	size_t at = 0, len, used = 0;
	struct message_head h = { 0 };
	const char *tid;
	int r = 0;

	if (!f) {
		r = errno ? -errno : -EIO;
		if (copy >= 0)
			close(copy);
		return r;
	}
	while (!r && (len = record(all + at, n - at, &h, &used, &tid))) {
		enum journal_keep k = tid ? JOURNAL_DROP : keep(arg, h.tid);

		if (k == JOURNAL_HEAD)
			r = write_head(f, &h);
		else if (k == JOURNAL_WHOLE &&
			 fwrite(all + at, 1, len, f) != len)
			r = -errno;
		at += len;
	}
	if (!r && at != n)
		r = -EIO;
	if (!r && (fflush(f) || fdatasync(fd)))
		r = -errno;
	return r;
}

/* lock held, nobody syncs: fd, at tmp, is the journal from now on */
static int take_place(struct journal *j, int fd, const char *tmp,
		      const char *path)
{
	_cleanup_free_ char *dir = strndup(path, strrchr(path, '/') - path);
	struct stat st;

	if (!dir)
		return -ENOMEM;
	hook_die("journal-written");
	if (fstat(fd, &st) || rename(tmp, path))
		return -errno;
	hook_die("journal-placed");
	close(j->fd);
	j->fd = fd;
	j->base = j->len - (uint64_t)st.st_size;
	j->synced = j->ahead = j->len;
	sb_reset(&j->marks); /* what they tell is written */
	/* Or else a power cut brings back the old one. */
	j->failed = dir_sync(dir, NULL);
	return 0;
}

int journal_rewrite(struct journal *j, const char *path,
		    enum journal_keep (*keep)(void *arg, const char *tid),
		    void *arg, struct err *e)
{
	_cleanup_free_ char *tmp = xasprintf("%s.new", path);
	int fd = open(tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int r = fd < 0 ? -errno : 0;
	void *all = MAP_FAILED;
	size_t n;

	pthread_mutex_lock(&j->lock);
	while (j->syncing)
		pthread_cond_wait(&j->done, &j->lock);
	n = (size_t)(j->len - j->base);
	if (!r && (j->fd < 0 || j->failed || !n))
		r = j->failed ? j->failed : -EBADF;
	if (!r)
		all = mmap(NULL, n, PROT_READ, MAP_PRIVATE, j->fd, 0);
	if (!r && all == MAP_FAILED)
		r = -errno;
	if (!r)
		r = write_all_kept(fd, all, n, keep, arg);
	if (!r)
		r = take_place(j, fd, tmp, path);
	pthread_mutex_unlock(&j->lock);
	if (all != MAP_FAILED)
		munmap(all, n);
	if (!r)
		return 0;
	if (fd >= 0)
		close(fd);
	(void)unlink(tmp);
	return err_sys(e, -r, "%s", tmp);
}

struct journal *journal_of(struct site *s, const char *party, const char *end)
{
	static struct named {
		struct named *next;
		char *path;
		struct journal *log;
	} * all;
	_cleanup_free_ char *path =
	    xasprintf("%s/transfer/files/%s%s", s->conf->state, party, end);
	struct named *x;

	for (x = all; x; x = x->next)
		if (!strcmp(x->path, path))
			return x->log;
	x = xcalloc(1, sizeof(*x));
	if (journal_open(path, NULL, NULL, &x->log, NULL)) {
		log_error("rollsite", "cannot open %s", path);
		free(x);
		return NULL;
	}
	x->path = TAKE_PTR(path);
	x->next = all;
	all = x;
	return x->log;
}

int journals_each(struct site *s, const char *end,
		  int (*fn)(struct site *s, const char *party, struct err *e),
		  struct err *e)
{
	_cleanup_free_ char *dir =
	    xasprintf("%s/transfer/files", s->conf->state);
	_cleanup_closedir_ DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		char party[16] = "";
		size_t n = strspn(de->d_name, "0123456789");
		int r;

		if (!n || n > 10 || strcmp(de->d_name + n, end))
			continue;
		memcpy(party, de->d_name, n);
		r = fn(s, party, e);
		if (r)
			return r;
	}
	return 0;
}
