// SPDX-License-Identifier: Apache-2.0
/*
 * Small messages in one append-only file: making a file for each of them costs
 * more than sending it.  Records stand one after the other: a message as on
 * the wire (u32 length of the head, head, payload), or a mark that a message
 * is done (u32 zero, 64 digits of its id).  What a killed process wrote in
 * part is cut off at the next start.  Callers hold site.lock.
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "transfer/transfer_priv.h"

#define MARK (4 + 64)

/* Length of the record at p, 0 when it is torn. */
static size_t record(const char *p, size_t n, struct message_head *h,
		     size_t *ret_used, const char **ret_tid)
{
	static const char zero[4];

	*ret_tid = NULL;
	if (n >= MARK && !memcmp(p, zero, 4)) {
		*ret_tid = p + 4;
		return MARK;
	}
	if (head_parse(p, n, h, ret_used, NULL) || n - *ret_used < h->size)
		return 0;
	return *ret_used + (size_t)h->size;
}

static uint64_t replay(const char *all, size_t n, journal_fn fn, void *arg)
{
	size_t at = 0, len, used = 0;
	struct message_head h;
	const char *tid;

	while ((len = record(all + at, n - at, &h, &used, &tid))) {
		char text[65] = "";

		if (tid) {
			memcpy(text, tid, 64);
			fn(arg, NULL, text, NULL);
		} else {
			fn(arg, &h, h.tid, all + at + used);
		}
		at += len;
	}
	return at;
}

int journal_open(struct journal *j, const char *path, journal_fn fn, void *arg,
		 struct err *e)
{
	struct stat st;

	j->len = 0;
	j->fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (j->fd < 0 || fstat(j->fd, &st))
		goto bad;
	if (st.st_size) {
		size_t n = (size_t)st.st_size;
		void *all = mmap(NULL, n, PROT_READ, MAP_PRIVATE, j->fd, 0);

		if (all == MAP_FAILED)
			goto bad;
		j->len = replay(all, n, fn, arg);
		munmap(all, n);
		if (j->len < n && ftruncate(j->fd, (off_t)j->len))
			goto bad;
	}
	return 0;
bad:
	err_sys(e, errno, "%s", path);
	journal_close(j);
	return e && e->no ? -e->no : -EIO;
}

void journal_close(struct journal *j)
{
	if (j->fd >= 0)
		close(j->fd);
	j->fd = -1;
}

static int append(struct journal *j, const struct strbuf *sb)
{
	int r = sb->error;

	if (!r)
		r = j->fd < 0 ? -EBADF : write_all(j->fd, sb->buf, sb->len);
	if (!r)
		j->len += sb->len;
	else if (j->fd >= 0 && ftruncate(j->fd, (off_t)j->len))
		journal_close(j); /* half a record: nothing may follow it */
	return r;
}

int journal_add(struct journal *j, const struct message_head *h,
		const void *data)
{
	_cleanup_strbuf_ struct strbuf sb =
	    STRBUF_INIT(JOURNAL_MESSAGE_MAX + HEAD_MAX + 4);
	int r = head_write(&sb, h);

	(void)sb_add(&sb, data, h->size);
	return r ? r : append(j, &sb);
}

int journal_mark(struct journal *j, const char *tid)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(MARK);

	(void)sb_add_u32(&sb, 0);
	(void)sb_add(&sb, tid, 64);
	return append(j, &sb);
}

void journal_clear(struct journal *j)
{
	if (j->fd >= 0 && !ftruncate(j->fd, 0))
		j->len = 0;
}
