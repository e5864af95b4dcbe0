// SPDX-License-Identifier: Apache-2.0
/*
 * The task's side.  A call takes an idle connection (or opens one), so several
 * threads may wait at once; a connection that broke is replaced and its
 * request repeated, which is harmless because every request is idempotent.
 */
#include "transfer/channel.h"

#include <openssl/evp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/transfer_priv.h"

#define SOCKET_INLINE (256u << 10)
#define IDLE_MAX      8
#define TELL_EVERY    (4u << 20) /* as rollsite's chunks are */
#define PIECE	      (256u << 10)
#define REOPEN_MAX    100 /* rollsites that die in one request */
#define TAKEN_MAX     (64u << 10)

struct channel {
	char *socket, *session, *role, *party;
	unsigned lease_s;
	pthread_mutex_t lock;
	struct link idle[IDLE_MAX];
	size_t n_idle;
	/* Keys of messages that were taken and of which rollsite is not yet
	 * told: the next request for a message does, and saves a request.
	 * Each with a comma behind it. */
	struct strbuf taken;
	struct channel_stats stats;
	unsigned waiters;
	char waiting[400];
};

int channel_open(const struct channel_options *o, struct channel **ret,
		 struct err *e)
{
	struct channel *c = xcalloc(1, sizeof(*c));

	(void)e;
	c->socket = xstrdup(o->socket);
	c->session = xstrdup(o->session);
	c->role = xstrdup(o->self.role);
	c->party = xstrdup(o->self.party);
	c->lease_s = o->lease_s ? o->lease_s : 60;
	pthread_mutex_init(&c->lock, NULL);
	sb_init(&c->taken, TAKEN_MAX);
	*ret = c;
	return 0;
}

void channel_close(struct channel *c)
{
	if (!c)
		return;
	if (c->taken.len && c->n_idle) { /* not with patience: it may be gone */
		_cleanup_free_ char *text =
		    xasprintf("{\"op\":\"drop\",\"taken\":[%.*s]}",
			      (int)c->taken.len - 1, c->taken.buf);
		struct err ignored;

		(void)!link_ask(&c->idle[0], text, NULL, 0, -1, NULL, &ignored);
	}
	sb_free(&c->taken);
	for (size_t i = 0; i < c->n_idle; i++)
		link_close(&c->idle[i]);
	pthread_mutex_destroy(&c->lock);
	free(c->socket);
	free(c->session);
	free(c->role);
	free(c->party);
	free(c);
}

static bool take_idle(struct channel *c, struct link *l)
{
	bool got;

	pthread_mutex_lock(&c->lock);
	got = c->n_idle > 0;
	if (got)
		*l = c->idle[--c->n_idle];
	pthread_mutex_unlock(&c->lock);
	return got;
}

static void give_back(struct channel *c, struct link *l)
{
	pthread_mutex_lock(&c->lock);
	if (c->n_idle < IDLE_MAX) {
		c->idle[c->n_idle++] = *l;
		pthread_mutex_unlock(&c->lock);
		return;
	}
	pthread_mutex_unlock(&c->lock);
	link_close(l);
}

static int64_t patience(const struct channel *c)
{
	return now_mono_ms() + (int64_t)c->lease_s * 1000;
}

/* On success *l is the connection that holds the answer's body: give_back. */
static int request(struct channel *c, const char *head, const void *body,
		   size_t n, int pass_fd, struct link *l, int *ret_fd,
		   struct err *e)
{
	int64_t deadline = patience(c);

	for (;;) {
		struct timespec pause = { 0, 20000000 };
		bool fresh;
		int r = 0;

		fresh = !take_idle(c, l);
		if (fresh)
			r = link_open(l, c->socket, e);
		if (!r) {
			/* Patience is for being without a rollsite. */
			int64_t began = now_mono_ms();

			r = link_ask(l, head, body, n, pass_fd, ret_fd, e);
			if (r != -EPIPE) {
				if (r)
					give_back(c, l);
				return r;
			}
			link_close(l);
			if (now_mono_ms() - began > 1000)
				deadline = patience(c);
			if (!fresh)
				continue; /* it may have been stale */
		}
		if (now_mono_ms() > deadline)
			return err_set(e, ETIMEDOUT,
				       "rollsite has been away for %u s",
				       c->lease_s);
		nanosleep(&pause, NULL);
	}
}

static int make_key(const struct channel *c, struct channel_peer from,
		    struct channel_peer to, const char *name, const char *tag,
		    struct key *k, struct err *e)
{
	const char *f[KEY_FIELDS] = { c->session, name,	   tag,	    from.role,
				      from.party, to.role, to.party };

	memset(k, 0, sizeof(*k));
	for (int i = 0; i < KEY_FIELDS; i++) {
		if (strlen(f[i]) > KEY_FIELD_MAX)
			return err_set(e, EINVAL, "message name too long");
		(void)snprintf(k->f[i], sizeof(k->f[i]), "%s", f[i]);
	}
	return key_check(k, e);
}

/* ---- sending ----------------------------------------------------------- */

struct channel_stream {
	struct channel *c;
	char *to; /* for errors: "name to role-party" */
	struct key key;
	bool home;
	EVP_MD_CTX *md; /* key_digest() as it grows */
	uint64_t bytes, told;
	struct strbuf small; /* all of it, until it is too large for that */
	int fd;		     /* rollsite's file, or -1 */
	/* It has been sent before, with this digest: nothing is written. */
	char sent[65];
	bool broken;
};

static void count_sent(struct channel *c, uint64_t n)
{
	pthread_mutex_lock(&c->lock);
	c->stats.sent++;
	c->stats.bytes_sent += n;
	pthread_mutex_unlock(&c->lock);
}

/* One request about a stream; head is taken over, its key added. */
static int ask(struct channel_stream *s, json_t *head, const void *body,
	       size_t n, int pass_fd, json_t **ret, int *ret_fd, struct err *e)
{
	_cleanup_free_ char *text = NULL;
	struct link l;
	int r;

	json_object_set_new(head, "key", key_to_json(&s->key));
	text = json_text(head, false);
	json_decref(head);
	r = request(s->c, text, body, n, pass_fd, &l, ret_fd, e);
	if (r)
		return r;
	if (ret) {
		*ret = json_parse(l.head.buf, l.head.len, e);
		if (!*ret)
			r = err_wrap(e, "rollsite's answer");
	}
	give_back(s->c, &l);
	return r;
}

/* All that was written, from one file to the other. */
static int copy_all(int from, int to, uint64_t n, struct err *e)
{
	_cleanup_free_ char *buf = xmalloc(PIECE);

	for (uint64_t at = 0; at < n;) {
		size_t part = (size_t)MIN(n - at, (uint64_t)PIECE);
		int r = pread_all(from, buf, part, at);

		if (!r)
			r = pwrite_all(to, buf, part, at);
		if (r)
			return err_sys(e, -r, "message");
		at += part;
	}
	return 0;
}

/* rollsite's file to write into.  A new rollsite may have made a new one: what
 * was in the old file, which only we still have, is put there. */
static int open_file(struct channel_stream *s, struct err *e)
{
	_cleanup_close_ int fd = -1;
	json_t *answer = NULL;
	struct stat a, b;
	int r = ask(
	    s,
	    json_pack("{s:s, s:b}", "op", "stream_open", "again", s->fd >= 0),
	    NULL, 0, -1, &answer, &fd, e);

	if (r)
		return r;
	(void)snprintf(s->sent, sizeof(s->sent), "%.64s",
		       json_str_or(answer, "sha256", ""));
	json_decref(answer);
	if (*s->sent)
		return 0;
	if (fd < 0)
		return err_set(e, EPROTO, "rollsite gave no file");
	if (s->fd >= 0) {
		if (fstat(s->fd, &a) || fstat(fd, &b))
			return err_sys(e, errno, "message");
		if (a.st_dev != b.st_dev || a.st_ino != b.st_ino)
			r = copy_all(s->fd, fd, s->bytes, e);
		if (r)
			return r;
		close(s->fd);
	}
	s->fd = TAKE_FD(fd);
	return 0;
}

/* A request about the stream; a rollsite that has just been started does not
 * know of it. */
static int tell(struct channel_stream *s, const json_t *head, struct err *e)
{
	for (int i = 0;; i++) {
		int r = ask(s, json_copy((json_t *)head), NULL, 0, -1, NULL,
			    NULL, e);

		if (r != -ENOENT || i == REOPEN_MAX)
			return r;
		r = open_file(s, e);
		if (r || *s->sent)
			return r;
	}
}

static int tell_more(struct channel_stream *s, struct err *e)
{
	json_t *head = json_pack("{s:s, s:I}", "op", "stream_more", "bytes",
				 (json_int_t)s->bytes);
	int r = tell(s, head, e);

	json_decref(head);
	/* The disk begins now, not all at the end. */
	if (!r && s->fd >= 0)
		(void)sync_file_range(s->fd, (off_t)s->told,
				      (off_t)(s->bytes - s->told),
				      SYNC_FILE_RANGE_WRITE);
	s->told = s->bytes;
	return r;
}

/* From memory into a file. */
static int spill(struct channel_stream *s, struct err *e)
{
	int r = 0;

	if (s->home) {
		s->fd = memfd_create("message", MFD_CLOEXEC);
		if (s->fd < 0)
			return err_sys(e, errno, "memfd_create");
	} else {
		r = open_file(s, e);
	}
	if (!r && s->fd >= 0) {
		r = pwrite_all(s->fd, s->small.buf, s->small.len, 0);
		if (r)
			err_sys(e, -r, "message");
	}
	sb_free(&s->small);
	return r;
}

static void stream_free(struct channel_stream *s)
{
	if (s->fd >= 0)
		close(s->fd);
	EVP_MD_CTX_free(s->md);
	sb_free(&s->small);
	free(s->to);
	free(s);
}

static EVP_MD_CTX *digest_begin(const struct key *k)
{
	_cleanup_free_ char *text = key_text(k);
	EVP_MD_CTX *md = EVP_MD_CTX_new();

	if (md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) &&
	    EVP_DigestUpdate(md, text, strlen(text)) &&
	    EVP_DigestUpdate(md, "\n", 1))
		return md;
	EVP_MD_CTX_free(md);
	return NULL;
}

static int digest_end(EVP_MD_CTX *md, char ret[65], struct err *e)
{
	uint8_t d[32];

	if (!EVP_DigestFinal_ex(md, d, NULL))
		return err_set(e, ENOMEM, "digest");
	hex_encode(d, 32, ret);
	return 0;
}

int channel_stream_open(struct channel *c, struct channel_peer to,
			const char *name, const char *tag,
			struct channel_stream **ret, struct err *e)
{
	struct channel_peer self = { c->role, c->party };
	struct channel_stream *s;
	struct key k;
	int r = make_key(c, self, to, name, tag, &k, e);

	if (r)
		return r;
	s = xcalloc(1, sizeof(*s));
	s->c = c;
	s->to = xasprintf("%s to %s-%s", name, to.role, to.party);
	s->key = k;
	s->home = !strcmp(to.party, c->party);
	s->fd = -1;
	sb_init(&s->small, SOCKET_INLINE);
	s->md = digest_begin(&k);
	if (!s->md) {
		stream_free(s);
		return err_set(e, ENOMEM, "digest");
	}
	*ret = s;
	return 0;
}

/* n bytes at most TELL_EVERY after what is there. */
static int write_file(struct channel_stream *s, const void *data, size_t n,
		      struct err *e)
{
	int r;

	if (s->fd >= 0 && !*s->sent) {
		r = pwrite_all(s->fd, data, n, s->bytes);
		if (r)
			return err_sys(e, -r, "message");
	}
	s->bytes += n;
	return !s->home && !*s->sent && s->bytes - s->told >= TELL_EVERY
		   ? tell_more(s, e)
		   : 0;
}

int channel_stream_write(struct channel_stream *s, const void *data, size_t n,
			 struct err *e)
{
	const char *at = data;
	int r = 0;

	if (s->broken)
		return err_set(e, EPIPE, "%s: it has failed before", s->to);
	if (n > CHANNEL_MESSAGE_MAX - s->bytes)
		return err_set(e, EMSGSIZE, "%s: more than %llu bytes", s->to,
			       CHANNEL_MESSAGE_MAX);
	while (n && !r) {
		size_t part = MIN(n, (size_t)TELL_EVERY);

		if (!EVP_DigestUpdate(s->md, at, part)) {
			r = err_set(e, ENOMEM, "digest");
		} else if (s->bytes + part <= SOCKET_INLINE) {
			r = sb_add(&s->small, at, part);
			s->bytes += part;
		} else {
			if (s->fd < 0 && !*s->sent)
				r = spill(s, e);
			if (!r)
				r = write_file(s, at, part, e);
		}
		at += part;
		n -= part;
	}
	s->broken = r != 0;
	return r ? err_wrap(e, "%s", s->to) : 0;
}

int channel_stream_close(struct channel_stream *s, struct err *e)
{
	json_t *head = NULL;
	char sha[65];
	int r = s->broken ? err_set(e, EPIPE, "it has failed before")
			  : digest_end(s->md, sha, e);

	if (!r)
		head = json_pack("{s:s, s:s, s:I}", "op",
				 s->fd < 0 || s->home ? "send" : "stream_end",
				 "sha256", sha, "size", (json_int_t)s->bytes);
	if (!r && s->fd < 0 && !*s->sent)
		r = ask(s, json_incref(head), s->small.buf, s->small.len, -1,
			NULL, NULL, e);
	else if (!r && s->home)
		r = ask(s, json_incref(head), NULL, 0, s->fd, NULL, NULL, e);
	else if (!r && !*s->sent)
		r = tell(s, head, e);
	if (!r && *s->sent && strcmp(s->sent, sha) != 0)
		r = err_set(e, EEXIST, "the same message with other content");
	json_decref(head);
	if (!r)
		count_sent(s->c, s->bytes);
	else
		err_wrap(e, "%s", s->to);
	stream_free(s);
	return r;
}

void channel_stream_abort(struct channel_stream *s)
{
	struct err e = { 0 };

	if (!s)
		return;
	/* Unheard, it goes with its session. */
	if (s->fd >= 0 && !s->home && !*s->sent)
		(void)!ask(s, json_pack("{s:s}", "op", "stream_drop"), NULL, 0,
			   -1, NULL, NULL, &e);
	stream_free(s);
}

/* In one request, not even through a buffer. */
static int send_small(struct channel *c, const struct key *k, const void *data,
		      size_t n, struct err *e)
{
	struct message_head h = { .key = *k, .size = n };
	char text[HEAD_TEXT_MAX + 20] = "{\"op\":\"send\",";
	struct link l;
	int r;

	key_digest(k, data, n, h.sha256);
	(void)head_put(text + strlen(text), &h);
	r = request(c, text, data, n, -1, &l, NULL, e);
	if (r)
		return r;
	give_back(c, &l);
	count_sent(c, n);
	return 0;
}

int channel_send(struct channel *c, struct channel_peer to, const char *name,
		 const char *tag, const void *data, size_t n, struct err *e)
{
	struct channel_peer self = { c->role, c->party };
	struct channel_stream *s = NULL;
	struct key k;
	int r;

	if (n <= SOCKET_INLINE) {
		r = make_key(c, self, to, name, tag, &k, e);
		if (r)
			return r;
		r = send_small(c, &k, data, n, e);
		return r ? err_wrap(e, "%s to %s-%s", name, to.role, to.party)
			 : 0;
	}
	r = channel_stream_open(c, to, name, tag, &s, e);
	if (!r)
		r = channel_stream_write(s, data, n, e);
	if (!r)
		return channel_stream_close(s, e);
	channel_stream_abort(s);
	return r;
}

/* ---- receiving --------------------------------------------------------- */

static void set_waiting(struct channel *c, struct channel_peer from,
			const char *name, const char *tag, int by)
{
	pthread_mutex_lock(&c->lock);
	c->waiters += (unsigned)by;
	if (by > 0)
		(void)snprintf(c->waiting, sizeof(c->waiting), "%s-%s %s%s%s",
			       from.role, from.party, name, *tag ? " " : "",
			       tag);
	pthread_mutex_unlock(&c->lock);
}

void channel_waiting(struct channel *c, char *buf, size_t n)
{
	pthread_mutex_lock(&c->lock);
	(void)snprintf(buf, n, "%s", c->waiters ? c->waiting : "");
	pthread_mutex_unlock(&c->lock);
}

struct arrived {
	struct link l; /* its body, when there is no file */
	int fd;
	bool file; /* of rollsite */
	uint64_t offset, size;
	char sha256[65];
};

/* With the keys of those that were taken, for which the request stands. */
static void head_of_recv(struct channel *c, const struct key *k,
			 struct strbuf *ret)
{
	char text[KEY_TEXT_MAX];
	size_t n = key_put(text, k);

	(void)sb_adds(ret, "{\"op\":\"recv\",\"key\":");
	(void)sb_add(ret, text, n);
	pthread_mutex_lock(&c->lock);
	if (c->taken.len) {
		(void)sb_adds(ret, ",\"taken\":[");
		(void)sb_add(ret, c->taken.buf, c->taken.len - 1);
		(void)sb_addc(ret, ']');
		sb_reset(&c->taken);
	}
	pthread_mutex_unlock(&c->lock);
	(void)sb_addc(ret, '}');
}

/* What rollsite says of the message; its size, or -1. */
static int64_t arrived_head(struct arrived *x)
{
	struct scan at = { x->l.head.buf, x->l.head.buf + x->l.head.len };
	json_t *o;
	int64_t size;

	if (scan_text(&at, "{\"offset\":") && scan_number(&at, &x->offset) &&
	    scan_text(&at, ",\"sha256\":") && scan_digest(&at, x->sha256) &&
	    scan_text(&at, ",\"size\":") && scan_number(&at, &x->size) &&
	    scan_text(&at, ",\"status\":0}"))
		return (int64_t)x->size;
	o = json_parse(x->l.head.buf, x->l.head.len, NULL);
	size = json_int_or(o, "size", -1);
	x->size = (uint64_t)size;
	x->offset = (uint64_t)json_int_or(o, "offset", 0);
	(void)snprintf(x->sha256, sizeof(x->sha256), "%.64s",
		       json_str_or(o, "sha256", ""));
	json_decref(o);
	return size;
}

/* Waits; on success x->l is to be given back. */
static int await(struct channel *c, struct channel_peer from, const char *name,
		 const char *tag, uint64_t max, struct key *k,
		 struct arrived *x, struct err *e)
{
	struct channel_peer self = { c->role, c->party };
	struct strbuf head;
	int64_t size;
	int r = make_key(c, from, self, name, tag, k, e);

	x->fd = -1;
	if (r)
		return r;
	set_waiting(c, from, name, tag, 1);
	sb_init(&head, KEY_TEXT_MAX + TAKEN_MAX + 100);
	head_of_recv(c, k, &head);
	r = request(c, head.buf, NULL, 0, -1, &x->l, &x->fd, e);
	sb_free(&head);
	set_waiting(c, from, name, tag, -1);
	if (r)
		return r;
	x->file = x->fd >= 0;
	size = arrived_head(x);
	if (size < 0 || x->size > max)
		r = err_set(e, EMSGSIZE,
			    "a message of %lld bytes (at most %llu)",
			    (long long)size, (unsigned long long)max);
	else if (x->fd < 0 && x->l.body.len != x->size)
		r = err_set(e, EPROTO, "a message cut short");
	if (!r)
		return 0;
	if (x->fd >= 0)
		close(x->fd);
	x->fd = -1;
	give_back(c, &x->l);
	return r;
}

static int damaged(struct err *e)
{
	return err_set(e, EBADMSG,
		       "the message arrived damaged (its digest does not "
		       "match)");
}

/* rollsite may forget it: at once when it holds disk space. */
static int taken(struct channel *c, const struct key *k,
		 const struct arrived *x, struct err *e)
{
	char text[KEY_TEXT_MAX];

	(void)key_put(text, k);
	if (x->file) {
		_cleanup_free_ char *head =
		    xasprintf("{\"op\":\"drop\",\"key\":%s}", text);
		struct link l;
		int r = request(c, head, NULL, 0, -1, &l, NULL, e);

		if (r)
			return r;
		give_back(c, &l);
	}
	pthread_mutex_lock(&c->lock);
	/* One that does not fit any more goes with its session. */
	if (!x->file && c->taken.len + strlen(text) < TAKEN_MAX) {
		(void)sb_adds(&c->taken, text);
		(void)sb_addc(&c->taken, ',');
	}
	c->stats.received++;
	c->stats.bytes_received += x->size;
	pthread_mutex_unlock(&c->lock);
	return 0;
}

int channel_recv(struct channel *c, struct channel_peer from, const char *name,
		 const char *tag, size_t max, void **ret_data, size_t *ret_n,
		 struct err *e)
{
	_cleanup_free_ char *data = NULL;
	struct arrived x;
	struct key k;
	char sha[65];
	int r = await(c, from, name, tag, max, &k, &x, e);

	if (r)
		goto out;
	data = xmalloc((size_t)x.size);
	if (x.fd < 0) {
		memcpy(data, x.l.body.buf, (size_t)x.size);
	} else {
		r = pread_all(x.fd, data, (size_t)x.size, x.offset);
		if (r)
			err_sys(e, -r, "reading the message");
		close(x.fd);
	}
	give_back(c, &x.l);
	if (!r) {
		key_digest(&k, data, (size_t)x.size, sha);
		if (strcmp(sha, x.sha256) != 0)
			r = damaged(e);
	}
	if (!r)
		r = taken(c, &k, &x, e);
out:
	if (r)
		return err_wrap(e, "%s from %s-%s", name, from.role,
				from.party);
	*ret_data = TAKE_PTR(data);
	*ret_n = (size_t)x.size;
	return 0;
}

/* In one pass, without its bytes in memory. */
static int check_file(const struct key *k, const struct arrived *x,
		      struct err *e)
{
	_cleanup_free_ char *buf = xmalloc(PIECE);
	EVP_MD_CTX *md = digest_begin(k);
	char sha[65];
	int r = md ? 0 : err_set(e, ENOMEM, "digest");

	for (uint64_t at = 0; !r && at < x->size;) {
		size_t part = (size_t)MIN(x->size - at, (uint64_t)PIECE);

		r = pread_all(x->fd, buf, part, x->offset + at);
		if (r)
			err_sys(e, -r, "reading the message");
		else if (!EVP_DigestUpdate(md, buf, part))
			r = err_set(e, ENOMEM, "digest");
		at += part;
	}
	if (!r)
		r = digest_end(md, sha, e);
	EVP_MD_CTX_free(md);
	return r ? r : strcmp(sha, x->sha256) != 0 ? damaged(e) : 0;
}

int channel_recv_file(struct channel *c, struct channel_peer from,
		      const char *name, const char *tag, uint64_t max,
		      int *ret_fd, uint64_t *ret_offset, uint64_t *ret_n,
		      struct err *e)
{
	_cleanup_close_ int fd = -1;
	struct arrived x;
	struct key k;
	int r = await(c, from, name, tag, max, &k, &x, e);

	if (r)
		goto out;
	if (x.fd < 0) {
		x.fd = memfd_create("message", MFD_CLOEXEC);
		r = x.fd < 0 ? -errno
			     : write_all(x.fd, x.l.body.buf, (size_t)x.size);
		if (r)
			err_sys(e, -r, "memfd");
		x.offset = 0;
	}
	fd = x.fd;
	give_back(c, &x.l);
	if (!r)
		r = check_file(&k, &x, e);
	if (!r)
		r = taken(c, &k, &x, e);
out:
	if (r)
		return err_wrap(e, "%s from %s-%s", name, from.role,
				from.party);
	*ret_fd = TAKE_FD(fd);
	*ret_offset = x.offset;
	*ret_n = x.size;
	return 0;
}

struct channel_stats channel_stats(struct channel *c)
{
	struct channel_stats s;

	pthread_mutex_lock(&c->lock);
	s = c->stats;
	pthread_mutex_unlock(&c->lock);
	return s;
}
