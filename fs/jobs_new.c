// SPDX-License-Identifier: Apache-2.0
/*
 * /jobs/new: the text of a job is collected, checked inside the write that
 * completes it, and submitted once: by the flush of the process that opened
 * the file, by fsync, or by the first read on the same descriptor.
 *
 *   EMPTY --write--> PARTIAL --write--> CHECKING --> COMPLETE --> SUBMITTED
 *                       |                  |             |
 *                       +------------------+--> REFUSED <+
 */
#include <ctype.h>
#include <fcntl.h>
#include <pthread.h>

#include "fs/fs.h"

#define TEXT_MAX (4u << 20)

enum phase { EMPTY, PARTIAL, CHECKING, COMPLETE, SUBMITTED, REFUSED };

struct submission {
	enum phase phase;
	struct strbuf text;
	size_t checking; /* bytes of the write that is being checked */
	struct sched_draft *draft;
	struct strbuf answer; /* id or the refusal, for reading back */
	size_t at;
	bool told; /* the first read of a refusal has failed */
};

/* With the handle's lock held. */
static int refuse(struct handle *h, int status, const char *text)
{
	struct submission *s = h->own;

	s->phase = REFUSED;
	h->failed = status;
	sb_reset(&s->answer);
	sb_adds(&s->answer, text && *text ? text : strerror(-status));
	if (s->answer.len && s->answer.buf[s->answer.len - 1] != '\n')
		sb_addc(&s->answer, '\n');
	errors_add(h->uid, "jobs/new", status, s->answer.buf);
	return status;
}

/* With the lock held. */
static int submit(struct handle *h)
{
	struct submission *s = h->own;
	struct err e = { 0 };
	char id[48];
	int no = sched_submit(fs.sched, TAKE_PTR(s->draft), id, sizeof(id), &e);

	if (no)
		return refuse(h, no, e.text);
	s->phase = SUBMITTED;
	sb_reset(&s->answer);
	sb_addf(&s->answer, "%s\n", id);
	return 0;
}

struct check_call {
	struct park *park;
	struct handle *h;
	size_t n;
};
static void on_checked(void *arg, int status, struct sched_draft *draft,
		       const char *defects)
{
	struct check_call c = *(struct check_call *)arg;
	fuse_req_t r = park_take(c.park);

	if (r) {
		struct handle *h = c.h;
		struct submission *s = h->own;

		pthread_mutex_lock(&h->lock);
		if (status) {
			refuse(h, status, defects);
		} else {
			s->draft = draft;
			s->phase = COMPLETE;
		}
		pthread_mutex_unlock(&h->lock);
		if (status)
			fuse_reply_err(r, -status);
		else
			fuse_reply_write(r, c.n);
	} else if (!status) {
		sched_draft_free(draft);
	}
}

static bool cancel_check(void *arg, uint64_t number)
{
	(void)arg;
	return sched_prepare_cancel(fs.sched, number);
}

static void check(fuse_req_t r, struct handle *h, size_t n)
{
	struct submission *s = h->own;
	struct check_call *c = calloc(1, sizeof(*c));
	struct park *p;
	_cleanup_free_ char *text = NULL;
	size_t len = s->text.len;
	uint64_t number;

	/* An interrupted writer may close while the answer is on its way. */
	text = malloc(len + 1);
	if (!c || !text) {
		free(c);
		fuse_reply_err(r, ENOMEM);
		return;
	}
	memcpy(text, s->text.buf, len);
	text[len] = '\0';
	c->h = h;
	c->n = n;
	p = c->park = park_new(r, cancel_check, c);
	if (!p) {
		free(c);
		fuse_reply_err(r, ENOMEM);
		return;
	}
	number = sched_prepare(fs.sched, text, len, on_checked, c);
	park_arm(p, number);
}

static bool blank(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!isspace((unsigned char)s[i]))
			return false;
	return true;
}

static void new_write(fuse_req_t r, struct handle *h, const char *buf, size_t n,
		      off_t off)
{
	struct submission *s = h->own;
	struct err e = { 0 };
	int no = 0;

	(void)off; /* one text, in the order of its writes */
	pthread_mutex_lock(&h->lock);
	/* The kernel sends the writes of a file one after the other: an
	 * interrupt has answered the one before, whose bytes come again. */
	if (s->phase == CHECKING) {
		s->text.len -= s->checking;
		s->text.buf[s->text.len] = '\0';
		s->phase = s->text.len ? PARTIAL : EMPTY;
	}
	if (s->phase == REFUSED)
		no = h->failed;
	else if (s->phase == COMPLETE || s->phase == SUBMITTED) {
		if (!blank(buf, n)) {
			if (s->phase == COMPLETE) {
				sched_draft_free(TAKE_PTR(s->draft));
				no = refuse(h, -EINVAL,
					    "text after the end of the job");
			} else {
				no = -EBUSY;
			}
		}
	} else if (s->text.len + n > TEXT_MAX) {
		no = refuse(h, -EFBIG, "a job has at most 4 MiB of text");
	} else if (sb_add(&s->text, buf, n)) {
		no = -ENOMEM;
	} else if (!blank(s->text.buf, s->text.len)) {
		s->phase = PARTIAL;
		no = sched_text_state(s->text.buf, s->text.len, &e);
		if (no < 0)
			refuse(h, no, e.text);
		else if (no > 0) {
			s->phase = CHECKING;
			s->checking = n;
		}
	}
	pthread_mutex_unlock(&h->lock);
	if (no < 0)
		fuse_reply_err(r, -no);
	else if (no > 0)
		check(r, h, n);
	else
		fuse_reply_write(r, n);
}

/* The opener is done. */
static int finish(struct handle *h)
{
	const struct submission *s = h->own;

	switch (s->phase) {
	case EMPTY:
	case SUBMITTED:
		return 0;
	case REFUSED: /* the write that was refused has told it */
		return 0;
	case CHECKING: /* not EINTR: callers would ask again for ever */
		return -EBUSY;
	case PARTIAL: {
		char text[128];

		(void)snprintf(
		    text, sizeof(text),
		    "unfinished: %zu bytes do not make a dsl and a conf (a "
		    "conf alone needs job_type predict)",
		    s->text.len);
		errors_add(h->uid, "jobs/new", -EINVAL, text);
		return -EINVAL;
	}
	case COMPLETE:
		return submit(h);
	}
	return 0;
}

static void new_flush(fuse_req_t r, struct handle *h)
{
	const struct submission *s = h->own;
	int no = 0;

	pthread_mutex_lock(&h->lock);
	if (s->phase != EMPTY) {
		switch (proc_closer(h, r)) {
		case CLOSE_KILLED:
			h->killed = true;
			break;
		case CLOSE_OPENER:
			no = finish(h);
			break;
		case CLOSE_OTHER:
			break;
		}
	}
	pthread_mutex_unlock(&h->lock);
	fuse_reply_err(r, -no);
}

static void new_fsync(fuse_req_t r, struct handle *h)
{
	int no;

	pthread_mutex_lock(&h->lock);
	no = h->failed ? h->failed : finish(h);
	pthread_mutex_unlock(&h->lock);
	fuse_reply_err(r, -no);
}

static void new_read(fuse_req_t r, struct handle *h, size_t n, off_t off,
		     struct fuse_file_info *fi)
{
	struct submission *s = h->own;
	int no = 0;
	size_t k = 0;
	char *out = NULL;

	(void)off, (void)fi;
	pthread_mutex_lock(&h->lock);
	if (s->phase != REFUSED)
		no = finish(h);
	if (s->phase == REFUSED && !s->told) {
		s->told = true;
		no = -EINVAL;
	}
	if (!no) {
		k = MIN(n, s->answer.len - s->at);
		out = malloc(k + 1);
		if (out) {
			memcpy(out, s->answer.buf + s->at, k);
			s->at += k;
		} else {
			no = -ENOMEM;
		}
	}
	pthread_mutex_unlock(&h->lock);
	if (no)
		fuse_reply_err(r, -no);
	else
		fuse_reply_buf(r, out, k);
	free(out);
}

static int new_truncate(struct handle *h, off_t size)
{
	(void)h;
	return size ? -EINVAL : 0;
}

static void new_release(struct handle *h)
{
	struct submission *s = h->own;

	/* The descriptor went on to another process, which is done now. */
	if (s->phase == COMPLETE && !h->killed && submit(h))
		log_debug("fs", "a job was refused after its writer had gone");
	sched_draft_free(s->draft);
	sb_free(&s->text);
	sb_free(&s->answer);
	free(s);
}

static const struct handle_ops new_ops = {
	.read = new_read,
	.write = new_write,
	.flush = new_flush,
	.fsync = new_fsync,
	.truncate = new_truncate,
	.release = new_release,
};

int jobs_new_open(const struct who *w, struct nid n, int flags,
		  struct handle **ret)
{
	struct submission *s = calloc(1, sizeof(*s));
	struct handle *h;

	if (!s)
		return -ENOMEM;
	sb_init(&s->text, TEXT_MAX);
	sb_init(&s->answer, 1u << 20);
	h = handle_new(w, n, flags, &new_ops);
	if (!h) {
		free(s);
		return -ENOMEM;
	}
	h->own = s;
	*ret = h;
	return 0;
}
