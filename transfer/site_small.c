// SPDX-License-Identifier: Apache-2.0
/*
 * Requests of tasks about small messages, of which there may be many in a
 * second: none of them has a thread.  What is written goes to the disk in
 * groups, and who waits for the disk, or for a message, is answered by whoever
 * brought that about.
 */
#include "lib/json.h"

#include "transfer/unix_priv.h"

static void end(struct client *c, int r, const char *error)
{
	static const char good[] = "{\"status\":0}";
	_cleanup_free_ char *text = NULL;
	json_t *o;

	if (!r) {
		client_answer(c, good, strlen(good), NULL, 0, -1);
		return;
	}
	o = json_pack("{s:i, s:s}", "status", r, "error", error);
	text = json_text(o, false);
	json_decref(o);
	client_answer(c, text, strlen(text), NULL, 0, -1);
}

static void done(struct parked *w, int r, const char *error)
{
	end((struct client *)w, r, error);
}

/* peers_write() is to follow. */
static void send_on(struct client *c)
{
	struct err e = { 0 };
	int r = client_may_send(c, &c->h.key, &e);

	if (!r && c->body_n != c->h.size)
		r = err_set(&e, EINVAL, "the payload has another length");
	if (!r)
		r = peer_send(c->s, &c->h, c->body, &c->parked, &e);
	if (r == -EPIPE)
		client_unref(c);
	else if (r && r != -EAGAIN)
		end(c, r, e.text);
}

static void receive_on(struct client *c)
{
	struct received got;
	struct err e = { 0 };
	char text[200];
	int r = site_recv(c->s, &c->h.key, c->h.tid, &c->parked, &got, &e);

	if (r == -EINPROGRESS)
		return;
	if (r) {
		end(c, r, e.text);
		return;
	}
	(void)snprintf(text, sizeof(text),
		       "{\"offset\":%zu,\"sha256\":\"%s\",\"size\":%llu,"
		       "\"status\":0}",
		       got.offset, got.sha256, (unsigned long long)got.size);
	client_answer(c, text, strlen(text), got.data,
		      got.data ? (size_t)got.size : 0, got.fd);
	if (got.fd >= 0)
		close(got.fd);
	free(got.data);
}

void clients_ready(struct site *s)
{
	struct parked *w, *next;

	pthread_mutex_lock(&s->lock);
	w = site_ready(s);
	pthread_mutex_unlock(&s->lock);
	if (!w)
		return;
	for (; w; w = next) {
		struct client *c = (struct client *)w;

		next = w->next;
		if (c->sends)
			send_on(c);
		else
			receive_on(c);
	}
	peers_write(s);
}

/* ,"taken":[KEY,...] */
static bool scan_taken(struct client *c, struct scan *x)
{
	struct key k;

	do {
		if (!scan_key(x, &k))
			return false;
		site_drop(c->s, &k);
	} while (scan_text(x, ","));
	return scan_text(x, "]");
}

/* As channel.c writes them. */
static bool scan_request(struct client *c)
{
	struct scan x = { c->head, c->head + c->head_n };

	c->sends = scan_text(&x, "{\"op\":\"send\",");
	if (c->sends)
		return scan_head(&x, &c->h) && !c->h.file;
	if (!scan_text(&x, "{\"op\":\"recv\",\"key\":") ||
	    !scan_key(&x, &c->h.key))
		return false;
	if (scan_text(&x, ",\"taken\":[") && !scan_taken(c, &x))
		return false;
	return scan_text(&x, "}") && x.at == x.end;
}

/* As anybody may write them; *ret what is wrong with it. */
static bool parse_request(struct client *c, int *ret, struct err *e)
{
	const char *op;

	c->q = json_parse(c->head, c->head_n, e);
	op = c->q ? json_str_or(c->q, "op", "") : "";
	*ret = c->q ? 0 : -EINVAL;
	c->sends = !strcmp(op, "send");
	if (c->sends) {
		*ret = client_head(c->q, &c->h, e);
	} else if (!strcmp(op, "recv")) {
		*ret =
		    key_from_json(json_object_get(c->q, "key"), &c->h.key, e);
		if (!*ret)
			*ret = client_taken(c, c->q, e);
	} else {
		return !c->q;
	}
	return true;
}

bool client_small(struct client *c)
{
	struct err e = { 0 };
	int r = 0;

	if (!scan_request(c) && !parse_request(c, &r, &e))
		return false;
	if (!r && c->sends &&
	    (c->passed >= 0 || c->h.size > JOURNAL_MESSAGE_MAX ||
	     !strcmp(c->h.key.f[KEY_DST_PARTY], c->s->conf->party))) {
		if (!c->q)
			c->q = json_parse(c->head, c->head_n, &e);
		return false;
	}
	json_decref(c->q);
	c->q = NULL;
	c->parked.done = done;
	if (r) {
		end(c, r, e.text);
	} else if (c->sends) {
		send_on(c);
	} else {
		key_tid(&c->h.key, c->h.tid);
		receive_on(c);
	}
	return true;
}
