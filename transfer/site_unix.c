// SPDX-License-Identifier: Apache-2.0
/* The socket for rollfs and the tasks of this party: a thread for each
 * connection, one request at a time. */
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "lib/json.h"
#include "lib/log.h"
#include "lib/version.h"

#include "transfer/transfer.h"
#include "transfer/transfer_priv.h"

#define INLINE_MAX (256u << 10)

struct client {
	struct site *s;
	int fd;
	struct strbuf head, body;
	int passed; /* descriptor that came with the request, or -1 */
	/* the answer */
	json_t *answer;
	struct strbuf out;
	int out_fd;
};

typedef int (*op_fn)(struct client *c, const json_t *q, struct err *e);

static const char *text_of(const json_t *q, const char *key)
{
	return json_str_or(q, key, "");
}

static int op_hello(struct client *c, const json_t *q, struct err *e)
{
	(void)q;
	(void)e;
	json_object_set_new(c->answer, "party", json_string(c->s->conf->party));
	json_object_set_new(c->answer, "child", json_boolean(c->s->child));
	json_object_set_new(c->answer, "version",
			    json_string(rollfs_version()));
	return 0;
}

/* From one role of this party to another. */
static int send_home(struct client *c, const struct message_head *h,
		     struct err *e)
{
	int r = site_deliver(c->s, h, c->s->conf->party,
			     c->passed < 0 ? c->body.buf : NULL, c->passed,
			     NULL, e);

	return r > 0 ? 0 : r;
}

static int op_send(struct client *c, const json_t *q, struct err *e)
{
	struct message_head h = { 0 };
	const char *sha;
	int64_t size;
	int r = key_from_json(json_object_get(q, "key"), &h.key, e);

	if (!r)
		r = json_get_str(q, "sha256", &sha, e);
	if (!r)
		r = json_get_int(q, "size", 0, 1ll << 40, &size, e);
	if (r)
		return r;
	if (!hex64_valid(sha) || (c->passed < 0 && c->body.len != (size_t)size))
		return err_set(e, EINVAL, "send: malformed");
	if (strcmp(h.key.f[KEY_SRC_PARTY], c->s->conf->party))
		return err_set(e, EACCES, "send: not this party");
	memcpy(h.sha256, sha, 65);
	h.size = (uint64_t)size;
	key_tid(&h.key, h.tid);
	if (!strcmp(h.key.f[KEY_DST_PARTY], c->s->conf->party))
		return send_home(c, &h, e);
	r = site_may_send(c->s, &h.key, e);
	if (r)
		return r;
	return peer_send(c->s, &h, c->body.buf, c->passed, e);
}

static int op_recv(struct client *c, const json_t *q, struct err *e)
{
	struct received got;
	struct key k;
	int r = key_from_json(json_object_get(q, "key"), &k, e);

	if (!r)
		r = site_recv(c->s, &k, c->fd, &got, e);
	if (r)
		return r;
	json_object_set_new(c->answer, "sha256", json_string(got.sha256));
	json_object_set_new(c->answer, "size",
			    json_integer((json_int_t)got.size));
	json_object_set_new(c->answer, "offset",
			    json_integer((json_int_t)got.offset));
	c->out_fd = got.fd;
	if (got.data)
		r = sb_add(&c->out, got.data, got.size);
	free(got.data);
	return r ? err_sys(e, -r, "recv") : 0;
}

static int op_drop(struct client *c, const json_t *q, struct err *e)
{
	struct key k;
	int r = key_from_json(json_object_get(q, "key"), &k, e);

	if (!r)
		site_drop(c->s, &k);
	return r;
}

static int op_rpc(struct client *c, const json_t *q, struct err *e)
{
	return peer_rpc(c->s, text_of(q, "party"), text_of(q, "verb"),
			c->body.buf, c->body.len,
			(unsigned)json_int_or(q, "timeout_ms", 5000), &c->out,
			e);
}

static int op_serve(struct client *c, const json_t *q, struct err *e)
{
	json_t *head = NULL;
	int r = call_take(c->s, c->fd, &head, &c->out);

	(void)q;
	if (r)
		return err_set(e, -r, "the client has gone");
	json_object_update(c->answer, head);
	json_decref(head);
	return 0;
}

static int op_answer(struct client *c, const json_t *q, struct err *e)
{
	(void)e;
	call_answer(c->s, (uint64_t)json_int_or(q, "call", 0),
		    (int)json_int_or(q, "status", 0),
		    json_str_or(q, "error", NULL), c->body.buf, c->body.len);
	return 0;
}

static int op_job_open(struct client *c, const json_t *q, struct err *e)
{
	return site_job_open(c->s, text_of(q, "job"),
			     json_object_get(q, "roles"), e);
}

static int op_job_close(struct client *c, const json_t *q, struct err *e)
{
	return site_job_close(c->s, text_of(q, "job"), e);
}

static int op_session_close(struct client *c, const json_t *q, struct err *e)
{
	return site_session_close(c->s, text_of(q, "session"), e);
}

static int op_file_put(struct client *c, const json_t *q, struct err *e)
{
	return file_put(c->s, text_of(q, "party"), text_of(q, "path"),
			text_of(q, "spool"), e);
}

static int op_file_remove(struct client *c, const json_t *q, struct err *e)
{
	return file_remove(c->s, text_of(q, "party"), text_of(q, "path"), e);
}

static int op_file_wait(struct client *c, const json_t *q, struct err *e)
{
	int r = file_wait(c->s, text_of(q, "party"), text_of(q, "path"), c->fd);

	return r ? err_sys(e, -r, "the file was not committed") : 0;
}

static int op_file_state(struct client *c, const json_t *q, struct err *e)
{
	json_t *o = file_state(c->s, text_of(q, "party"), text_of(q, "path"));

	if (!o)
		return err_set(e, ENOENT, "no such file was handed over");
	json_object_set_new(c->answer, "state", o);
	return 0;
}

static int op_party(struct client *c, const json_t *q, struct err *e)
{
	json_t *o = peer_texts(c->s, text_of(q, "party"));

	if (!o)
		return err_set(e, ENOENT, "no such party");
	json_object_update(c->answer, o);
	json_decref(o);
	return 0;
}

static int op_ping(struct client *c, const json_t *q, struct err *e)
{
	(void)e;
	peer_ping(c->s, text_of(q, "party"));
	return 0;
}

static int op_reload(struct client *c, const json_t *q, struct err *e)
{
	(void)q;
	(void)e;
	peer_reload(c->s);
	return 0;
}

static int op_inbox(struct client *c, const json_t *q, struct err *e)
{
	struct site *s = c->s;
	struct inbox_event *x;
	int r = 0;

	(void)q;
	pthread_mutex_lock(&s->lock);
	while (!s->inbox && !r)
		if (!site_wait(s, c->fd, 5000))
			r = -EPIPE;
	if (!r) {
		x = s->inbox;
		s->inbox = x->next;
		json_object_set_new(c->answer, "party", json_string(x->party));
		json_object_set_new(c->answer, "path", json_string(x->path));
		free(x->party);
		free(x->path);
		free(x);
	}
	pthread_mutex_unlock(&s->lock);
	return r ? err_set(e, EPIPE, "the client has gone") : 0;
}

static int op_metrics(struct client *c, const json_t *q, struct err *e)
{
	struct site *s = c->s;

	(void)q;
	(void)e;
	pthread_mutex_lock(&s->lock);
	sb_addf(&c->out,
		"rollfs_messages_received_total %llu\n"
		"rollfs_messages_sent_total %llu\n"
		"rollfs_message_bytes_received_total %llu\n"
		"rollfs_message_bytes_sent_total %llu\n"
		"rollfs_message_retries_total %llu\n"
		"rollfs_messages_refused_total %llu\n"
		"rollfs_calls_total %llu\n",
		(unsigned long long)s->count.in,
		(unsigned long long)s->count.out,
		(unsigned long long)s->count.bytes_in,
		(unsigned long long)s->count.bytes_out,
		(unsigned long long)s->count.retries,
		(unsigned long long)s->count.refused,
		(unsigned long long)s->count.calls);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static int op_shutdown(struct client *c, const json_t *q, struct err *e)
{
	uint64_t one = 1;

	(void)q;
	if (!c->s->child)
		return err_set(e, EPERM, "this rollsite runs on its own");
	return write_all(c->s->stop, &one, sizeof(one));
}

static const struct {
	const char *name;
	op_fn fn;
} ops[] = {
	{ "hello", op_hello },
	{ "send", op_send },
	{ "recv", op_recv },
	{ "drop", op_drop },
	{ "rpc", op_rpc },
	{ "serve", op_serve },
	{ "answer", op_answer },
	{ "job_open", op_job_open },
	{ "job_close", op_job_close },
	{ "session_close", op_session_close },
	{ "file_put", op_file_put },
	{ "file_remove", op_file_remove },
	{ "file_wait", op_file_wait },
	{ "file_state", op_file_state },
	{ "party", op_party },
	{ "ping", op_ping },
	{ "parties_reload", op_reload },
	{ "inbox", op_inbox },
	{ "metrics", op_metrics },
	{ "shutdown", op_shutdown },
};

static int run_op(struct client *c, struct err *e)
{
	json_t *q = json_parse(c->head.buf, c->head.len, e);
	const char *name = q ? text_of(q, "op") : "";
	int r =
	    q ? err_set(e, EINVAL, "no operation \"%.40s\"", name) : -EINVAL;

	for (size_t i = 0; q && i < ARRAY_SIZE(ops); i++)
		if (!strcmp(ops[i].name, name))
			r = ops[i].fn(c, q, e);
	json_decref(q);
	return r;
}

static void *client_thread(void *arg)
{
	struct client *c = arg;
	int r = 0;

	while (!r) {
		_cleanup_free_ char *text = NULL;
		struct err e = { 0 };

		c->passed = c->out_fd = -1;
		r = frame_recv(c->fd, &c->head, &c->body, &c->passed);
		if (r)
			break;
		c->answer = json_object();
		sb_reset(&c->out);
		r = run_op(c, &e);
		json_object_set_new(c->answer, "status", json_integer(r));
		if (r)
			json_object_set_new(c->answer, "error",
					    json_string(e.text));
		text = json_text(c->answer, false);
		json_decref(c->answer);
		r = frame_send(c->fd, text, strlen(text), c->out.buf,
			       c->out.len, c->out_fd);
		if (c->out_fd >= 0)
			close(c->out_fd);
		if (c->passed >= 0)
			close(c->passed);
	}
	call_lost(c->s, c->fd);
	close(c->fd);
	sb_free(&c->head);
	sb_free(&c->body);
	sb_free(&c->out);
	free(c);
	return NULL;
}

struct listener {
	struct site *s;
	int fd;
};

static bool ours(int fd)
{
	struct ucred u;
	socklen_t n = sizeof(u);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &n) &&
	       (u.uid == geteuid() || u.uid == 0);
}

static void *accept_thread(void *arg)
{
	struct listener *l = arg;
	pthread_attr_t a;

	pthread_attr_init(&a);
	pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&a, 256u << 10);
	for (;;) {
		int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
		struct client *c;
		pthread_t t;

		if (fd < 0)
			continue;
		if (!ours(fd)) {
			close(fd);
			continue;
		}
		c = xcalloc(1, sizeof(*c));
		c->s = l->s;
		c->fd = fd;
		sb_init(&c->head, FRAME_HEAD_MAX);
		sb_init(&c->body, FRAME_BODY_MAX);
		sb_init(&c->out, FRAME_BODY_MAX);
		if (pthread_create(&t, &a, client_thread, c)) {
			close(fd);
			free(c);
		}
	}
	return NULL;
}

int unix_start(struct site *s, struct err *e)
{
	_cleanup_free_ char *path = transfer_socket_path(s->conf->state);
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct listener *l = xcalloc(1, sizeof(*l));
	pthread_t t;

	l->s = s;
	l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)unlink(path);
	/* Bound by its short name: the state directory may be a long one. */
	if (chdir(s->conf->state))
		return err_sys(e, errno, "%s", s->conf->state);
	(void)snprintf(a.sun_path, sizeof(a.sun_path), "rollsite.sock");
	/* The umask keeps others out before chmod does. */
	if (l->fd < 0 || bind(l->fd, (struct sockaddr *)&a, sizeof(a)) ||
	    chmod(a.sun_path, 0600) || listen(l->fd, 128))
		return err_sys(e, errno, "%s", path);
	if (pthread_create(&t, NULL, accept_thread, l))
		return err_set(e, EAGAIN, "cannot start a thread");
	pthread_detach(t);
	return 0;
}
