// SPDX-License-Identifier: Apache-2.0
/* Writing to a version that is whole: what is written is compared with what
 * is there, so that an archive may be extracted twice and nothing changes. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "fs/models_priv.h"

/* The analyzer does not follow what a handle keeps. */
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

struct comparing {
	struct model_at at;
	uint64_t mark; /* [0, mark) was written again */
};

static int differs(struct handle *h)
{
	const struct comparing *c = h->own;

	if (!h->failed)
		model_refused(h->uid, &c->at, -EEXIST, MODEL_OTHER_BYTES);
	return h->failed = -EEXIST;
}

static void compare_write(fuse_req_t r, struct handle *h, const char *buf,
			  size_t n, off_t off)
{
	struct comparing *c = h->own;
	_cleanup_free_ char *there = malloc(n ? n : 1);
	int no = there ? 0 : -ENOMEM;

	pthread_mutex_lock(&h->lock);
	if (!no)
		no = h->failed;
	if (!no && ((uint64_t)off > c->mark ||
		    pread_all(h->fd, there, n, (uint64_t)off) ||
		    memcmp(there, buf, n) != 0))
		no = differs(h);
	if (!no) {
		c->mark = MAX(c->mark, (uint64_t)off + n);
		h->bytes += n;
	}
	pthread_mutex_unlock(&h->lock);
	if (no)
		fuse_reply_err(r, -no);
	else
		fuse_reply_write(r, n);
}

static void compare_flush(fuse_req_t r, struct handle *h)
{
	const struct comparing *c = h->own;
	struct stat st;
	int no;

	pthread_mutex_lock(&h->lock);
	no = h->failed;
	if (!no && h->bytes && proc_closer(h, r) == CLOSE_OPENER &&
	    !fstat(h->fd, &st) && (uint64_t)st.st_size != c->mark)
		no = differs(h);
	pthread_mutex_unlock(&h->lock);
	fuse_reply_err(r, -no);
}

static int compare_truncate(struct handle *h, off_t size)
{
	struct stat st;
	int no = 0;

	pthread_mutex_lock(&h->lock);
	if (size && (fstat(h->fd, &st) || st.st_size != size))
		no = differs(h);
	pthread_mutex_unlock(&h->lock);
	return no;
}

static void compare_release(struct handle *h)
{
	struct comparing *c = h->own;

	model_at_free(&c->at);
	free(c);
}

static const struct handle_ops compare_ops = {
	.write = compare_write,
	.flush = compare_flush,
	.truncate = compare_truncate,
	.release = compare_release,
};

int compare_open(const struct who *w, struct nid n, const struct model_at *a,
		 int flags, struct handle **ret)
{
	struct comparing *c = calloc(1, sizeof(*c));
	struct handle *h = NULL;
	int fd = open(a->disk, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	int no = fd < 0 ? -errno : c ? model_at(a->path, &c->at) : -ENOMEM;

	if (!no && !(h = handle_new(w, n, flags, &compare_ops)))
		no = -ENOMEM;
	if (no) {
		if (fd >= 0)
			close(fd);
		if (c)
			model_at_free(&c->at);
		free(c);
		return no;
	}
	h->own = c;
	h->fd = fd;
	*ret = h;
	return 0;
}

int compare_files(const char *temporary, const struct model_at *a)
{
	_cleanup_strbuf_ struct strbuf new = STRBUF_INIT(MODEL_FILE_MAX);
	_cleanup_strbuf_ struct strbuf old = STRBUF_INIT(MODEL_FILE_MAX);

	if (file_read(temporary, &new, NULL) || file_read(a->disk, &old, NULL))
		return -EEXIST;
	return new.len == old.len && !memcmp(new.buf, old.buf, old.len)
		   ? 0
		   : -EEXIST;
}
