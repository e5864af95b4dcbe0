// SPDX-License-Identifier: Apache-2.0
/* What rollfs and the tasks ask rollsite for, but for small messages: each
 * request has a thread until it is answered. */
#include <sys/mman.h>
#include <sys/stat.h>

#include "lib/json.h"
#include "lib/version.h"

#include "transfer/channel.h"
#include "transfer/unix_priv.h"

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

int client_head(const json_t *q, struct message_head *h, struct err *e)
{
	const char *sha = "";
	int64_t size = 0;
	int r = key_from_json(json_object_get(q, "key"), &h->key, e);

	if (!r)
		r = json_get_str(q, "sha256", &sha, e);
	if (!r)
		r = json_get_int(q, "size", 0, CHANNEL_MESSAGE_MAX, &size, e);
	if (!r && !hex64_valid(sha))
		r = err_set(e, EINVAL, "not a SHA-256");
	if (r)
		return r;
	memcpy(h->sha256, sha, 65);
	h->size = (uint64_t)size;
	key_tid(&h->key, h->tid);
	return 0;
}

/* A task of ours speaks for this party alone. */
int client_may_send(struct client *c, const struct key *k, struct err *e)
{
	if (strcmp(k->f[KEY_SRC_PARTY], c->s->conf->party))
		return err_set(e, EACCES, "send: not this party");
	return site_may_send(c->s, k, e);
}

static bool at_home(const struct client *c, const struct key *k)
{
	return !strcmp(k->f[KEY_DST_PARTY], c->s->conf->party);
}

/* From one role of this party to another. */
static int send_home(struct client *c, const struct message_head *h,
		     const char *tmp, struct err *e)
{
	struct journal *log = NULL;
	uint64_t upto = 0;
	int r = site_deliver(c->s, h, c->s->conf->party, tmp ? NULL : c->body,
			     tmp, &log, &upto, e);

	if (log) {
		int x = journal_sync(log, upto);

		journal_unref(log);
		if (x)
			r = err_sys(e, -x, "message");
	}
	return r > 0 ? 0 : r;
}

static int op_send(struct client *c, const json_t *q, struct err *e)
{
	struct message_head h = { 0 };
	_cleanup_free_ char *tmp = NULL;
	_cleanup_close_ int memory = -1;
	int fd = c->passed, r = client_head(q, &h, e);

	if (!r)
		r = client_may_send(c, &h.key, e);
	if (r)
		return r;
	if (fd < 0 && c->body_n != h.size)
		return err_set(e, EINVAL, "the payload has another length");
	if (h.size <= JOURNAL_MESSAGE_MAX && fd < 0) /* at home */
		return send_home(c, &h, NULL, e);
	if (fd < 0) {
		memory = memfd_create("message", MFD_CLOEXEC);
		r = memory < 0 ? -errno : write_all(memory, c->body, c->body_n);
		if (r)
			return err_sys(e, -r, "message");
		fd = memory;
	}
	tmp = site_temp(c->s);
	r = site_copy(fd, h.size, tmp, true, e);
	if (r)
		return r;
	return at_home(c, &h.key) ? send_home(c, &h, tmp, e)
				  : peer_send_file(c->s, &h, tmp, e);
}

static int op_stream_open(struct client *c, const json_t *q, struct err *e)
{
	char sent[65] = "";
	struct key k;
	int r = key_from_json(json_object_get(q, "key"), &k, e);

	if (!r)
		r = client_may_send(c, &k, e);
	if (!r && at_home(c, &k))
		r = err_set(e, EINVAL, "to this party itself: send it whole");
	if (!r)
		r = peer_stream_open(c->s, &k, json_bool_or(q, "again", false),
				     &c->out_fd, sent, e);
	if (!r && *sent)
		json_object_set_new(c->answer, "sha256", json_string(sent));
	return r;
}

static int op_stream_drop(struct client *c, const json_t *q, struct err *e)
{
	struct key k;
	int r = key_from_json(json_object_get(q, "key"), &k, e);

	if (!r && strcmp(k.f[KEY_SRC_PARTY], c->s->conf->party) != 0)
		r = err_set(e, EACCES, "send: not this party");
	if (!r)
		peer_stream_drop(c->s, &k);
	return r;
}

static int op_stream_more(struct client *c, const json_t *q, struct err *e)
{
	struct key k;
	int r = key_from_json(json_object_get(q, "key"), &k, e);

	if (!r)
		r = client_may_send(c, &k, e);
	return r ? r
		 : peer_stream_more(c->s, &k,
				    (uint64_t)json_int_or(q, "bytes", 0), e);
}

static int op_stream_end(struct client *c, const json_t *q, struct err *e)
{
	struct message_head h = { 0 };
	int r = client_head(q, &h, e);

	if (!r)
		r = client_may_send(c, &h.key, e);
	return r ? r : peer_stream_end(c->s, &h, e);
}

/* Messages that the task has, and will never ask for again. */
int client_taken(struct client *c, const json_t *q, struct err *e)
{
	struct key k;
	const json_t *x;
	size_t i;
	int r = 0;

	json_array_foreach (json_object_get(q, "taken"), i, x) {
		r = key_from_json(x, &k, e);
		if (r)
			break;
		site_drop(c->s, &k);
	}
	return r;
}

static int op_drop(struct client *c, const json_t *q, struct err *e)
{
	const json_t *key = json_object_get(q, "key");
	struct key k;
	int r = key ? key_from_json(key, &k, e) : 0;

	if (!r && key)
		site_drop(c->s, &k);
	return r ? r : client_taken(c, q, e);
}

static int op_rpc(struct client *c, const json_t *q, struct err *e)
{
	return peer_rpc(c->s, text_of(q, "party"), text_of(q, "verb"), c->body,
			c->body_n, (unsigned)json_int_or(q, "timeout_ms", 5000),
			&c->out, e);
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
		    json_str_or(q, "error", NULL), c->body, c->body_n);
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
			text_of(q, "spool"),
			json_bool_or(q, "rewritten", false), e);
}

static int op_file_stream(struct client *c, const json_t *q, struct err *e)
{
	return file_stream(c->s, text_of(q, "party"), text_of(q, "path"),
			   text_of(q, "spool"),
			   (uint64_t)json_int_or(q, "bytes", 0),
			   json_bool_or(q, "rewritten", false), e);
}

static int op_file_drop(struct client *c, const json_t *q, struct err *e)
{
	(void)e;
	file_drop(c->s, text_of(q, "spool"));
	return 0;
}

static int op_file_retry(struct client *c, const json_t *q, struct err *e)
{
	return file_retry(c->s, text_of(q, "party"), text_of(q, "path"), e);
}

static int op_file_deadline(struct client *c, const json_t *q, struct err *e)
{
	return file_deadline(c->s, text_of(q, "party"), text_of(q, "path"),
			     json_int_or(q, "deadline", 0), e);
}

static int op_file_remove(struct client *c, const json_t *q, struct err *e)
{
	return file_remove(c->s, text_of(q, "party"), text_of(q, "path"), e);
}

static int op_file_wait(struct client *c, const json_t *q, struct err *e)
{
	return file_wait(c->s, text_of(q, "party"), text_of(q, "path"), c->fd,
			 e);
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
	if (!c->watcher)
		s->watchers++;
	c->watcher = true;
	while (!s->inbox && !r)
		if (!site_wait(s, WAIT_INBOX, NULL, c->fd, 0))
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
	_cleanup_free_ char *text = metrics_text(c->s);

	(void)q;
	(void)e;
	return sb_adds(&c->out, text);
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
	{ "stream_open", op_stream_open },
	{ "stream_more", op_stream_more },
	{ "stream_end", op_stream_end },
	{ "stream_drop", op_stream_drop },
	{ "drop", op_drop },
	{ "rpc", op_rpc },
	{ "serve", op_serve },
	{ "answer", op_answer },
	{ "job_open", op_job_open },
	{ "job_close", op_job_close },
	{ "session_close", op_session_close },
	{ "file_put", op_file_put },
	{ "file_stream", op_file_stream },
	{ "file_drop", op_file_drop },
	{ "file_deadline", op_file_deadline },
	{ "file_retry", op_file_retry },
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

int client_op(struct client *c, struct err *e)
{
	const char *name = text_of(c->q, "op");

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
		if (!strcmp(ops[i].name, name))
			return ops[i].fn(c, c->q, e);
	return err_set(e, EINVAL, "no operation \"%.40s\"", name);
}
