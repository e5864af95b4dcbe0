// SPDX-License-Identifier: Apache-2.0
/*
 * The task's side.  A call takes an idle connection (or opens one), so several
 * threads may wait at once; a connection that broke is replaced and its
 * request repeated, which is harmless because every request is idempotent.
 */
#include "transfer/channel.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/transfer_priv.h"

#define SOCKET_INLINE (256u << 10)
#define IDLE_MAX      8

struct channel {
	char *socket, *session, *role, *party;
	unsigned lease_s;
	pthread_mutex_t lock;
	struct link idle[IDLE_MAX];
	size_t n_idle;
	/* Keys of messages that were taken and of which rollsite is not yet
	 * told: the next request for a message does, and saves a request. */
	json_t *taken;
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
	*ret = c;
	return 0;
}

void channel_close(struct channel *c)
{
	if (!c)
		return;
	if (c->taken && c->n_idle) { /* not with patience: it may be gone */
		struct err ignored;
		json_t *head = json_pack("{s:s, s:O}", "op", "drop", "taken",
					 c->taken);

		(void)!link_request(&c->idle[0], head, NULL, 0, -1, NULL, NULL,
				    &ignored);
		json_decref(head);
	}
	json_decref(c->taken);
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
static int request(struct channel *c, const json_t *head, const void *body,
		   size_t n, int pass_fd, struct link *l, json_t **ret,
		   int *ret_fd, struct err *e)
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

			r = link_request(l, head, body, n, pass_fd, ret, ret_fd,
					 e);
			if (r != -EPIPE) {
				if (r) {
					give_back(c, l);
					if (ret && *ret) {
						json_decref(*ret);
						*ret = NULL;
					}
				}
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

static int memory_file(const void *data, size_t n, struct err *e)
{
	_cleanup_close_ int fd = memfd_create("message", MFD_CLOEXEC);
	int r;

	if (fd < 0)
		return err_sys(e, errno, "memfd_create");
	r = write_all(fd, data, n);
	return r ? err_sys(e, -r, "memfd") : TAKE_FD(fd);
}

int channel_send(struct channel *c, struct channel_peer to, const char *name,
		 const char *tag, const void *data, size_t n, struct err *e)
{
	struct channel_peer self = { c->role, c->party };
	_cleanup_close_ int fd = -1;
	struct link l;
	json_t *head;
	struct key k;
	char sha[65];
	int r = make_key(c, self, to, name, tag, &k, e);

	if (r)
		return r;
	key_digest(&k, data, n, sha);
	if (n > SOCKET_INLINE) {
		fd = memory_file(data, n, e);
		if (fd < 0)
			return fd;
	}
	head = json_pack("{s:s, s:o, s:s, s:I}", "op", "send", "key",
			 key_to_json(&k), "sha256", sha, "size", (json_int_t)n);
	r = request(c, head, data, fd >= 0 ? 0 : n, fd, &l, NULL, NULL, e);
	json_decref(head);
	if (r)
		return err_wrap(e, "%s to %s-%s", name, to.role, to.party);
	give_back(c, &l);
	pthread_mutex_lock(&c->lock);
	c->stats.sent++;
	c->stats.bytes_sent += n;
	pthread_mutex_unlock(&c->lock);
	return 0;
}

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

int channel_recv(struct channel *c, struct channel_peer from, const char *name,
		 const char *tag, size_t max, void **ret_data, size_t *ret_n,
		 struct err *e)
{
	struct channel_peer self = { c->role, c->party };
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *data = NULL;
	json_t *head, *answer = NULL;
	struct link l;
	struct key k;
	char sha[65];
	int64_t size;
	int r = make_key(c, from, self, name, tag, &k, e);

	if (r)
		return r;
	set_waiting(c, from, name, tag, 1);
	head = json_pack("{s:s, s:o}", "op", "recv", "key", key_to_json(&k));
	pthread_mutex_lock(&c->lock);
	if (c->taken)
		json_object_set_new(head, "taken", TAKE_PTR(c->taken));
	pthread_mutex_unlock(&c->lock);
	r = request(c, head, NULL, 0, -1, &l, &answer, &fd, e);
	json_decref(head);
	set_waiting(c, from, name, tag, -1);
	if (r)
		return err_wrap(e, "%s from %s-%s", name, from.role,
				from.party);
	size = json_int_or(answer, "size", -1);
	if (size < 0 || (uint64_t)size > max) {
		r = err_set(e, EMSGSIZE,
			    "a message of %lld bytes (at most %zu)",
			    (long long)size, max);
	} else if (fd >= 0) {
		data = xmalloc((size_t)size);
		r = pread_all(fd, data, (size_t)size,
			      (uint64_t)json_int_or(answer, "offset", 0));
		if (r)
			err_sys(e, -r, "reading the message");
	} else if (l.body.len != (size_t)size) {
		r = err_set(e, EPROTO, "a message cut short");
	} else {
		data = xmalloc((size_t)size);
		memcpy(data, l.body.buf, (size_t)size);
	}
	if (!r) {
		key_digest(&k, data, (size_t)size, sha);
		if (strcmp(sha, json_str_or(answer, "sha256", "")))
			r = err_set(e, EBADMSG,
				    "the message arrived damaged (its digest "
				    "does not match)");
	}
	json_decref(answer);
	give_back(c, &l);
	if (r)
		return err_wrap(e, "%s from %s-%s", name, from.role,
				from.party);
	if (fd >= 0) { /* it holds disk space */
		head = json_pack("{s:s, s:o}", "op", "drop", "key",
				 key_to_json(&k));
		r = request(c, head, NULL, 0, -1, &l, NULL, NULL, e);
		json_decref(head);
		if (r)
			return r;
		give_back(c, &l);
	}
	pthread_mutex_lock(&c->lock);
	if (fd < 0) {
		if (!c->taken)
			c->taken = json_array();
		json_array_append_new(c->taken, key_to_json(&k));
	}
	c->stats.received++;
	c->stats.bytes_received += (uint64_t)size;
	pthread_mutex_unlock(&c->lock);
	*ret_data = TAKE_PTR(data);
	*ret_n = (size_t)size;
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
