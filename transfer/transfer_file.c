// SPDX-License-Identifier: Apache-2.0
/* What rollfs asks of rollsite: jobs, files, parties. */
#include "transfer/daemon.h"

#include "lib/log.h"

/* ---- jobs, files, parties ---------------------------------------------- */

int transfer_job_open(struct transfer *t, const char *job, const json_t *roles,
		      struct err *e)
{
	return daemon_ask_once(t,
			       json_pack("{s:s, s:s, s:O}", "op", "job_open",
					 "job", job, "roles", (json_t *)roles),
			       NULL, NULL, e);
}

int transfer_job_close(struct transfer *t, const char *job, struct err *e)
{
	return daemon_ask_once(
	    t, json_pack("{s:s, s:s}", "op", "job_close", "job", job), NULL,
	    NULL, e);
}

int transfer_session_close(struct transfer *t, const char *session,
			   struct err *e)
{
	return daemon_ask_once(
	    t,
	    json_pack("{s:s, s:s}", "op", "session_close", "session", session),
	    NULL, NULL, e);
}

/* ---- files --------------------------------------------------------------- */

bool daemon_tell(void *arg, json_t *head)
{
	struct err e = { 0 };
	json_t *answer = NULL;
	bool heard;

	if (daemon_ask_once(arg, head, &answer, NULL, &e))
		log_debug("transfer", "news of a file: %s", e.text);
	heard = answer != NULL;
	json_decref(answer);
	return heard;
}

void transfer_file_stream(struct transfer *t, const char *party,
			  const char *path, const char *spool, uint64_t bytes,
			  bool rewritten)
{
	news_add(t->news, party, path, spool, bytes, rewritten);
}

void transfer_file_drop(struct transfer *t, const char *party,
			const char *spool)
{
	news_add(t->news, party, NULL, spool, 0, false);
}

int transfer_file_retry(struct transfer *t, const char *party, const char *path,
			struct err *e)
{
	return daemon_ask_once(t,
			       json_pack("{s:s, s:s, s:s}", "op", "file_retry",
					 "party", party, "path", path),
			       NULL, NULL, e);
}

int transfer_file_deadline(struct transfer *t, const char *party,
			   const char *path, int64_t unix_ms, struct err *e)
{
	return daemon_ask_once(
	    t,
	    json_pack("{s:s, s:s, s:s, s:I}", "op", "file_deadline", "party",
		      party, "path", path, "deadline", (json_int_t)unix_ms),
	    NULL, NULL, e);
}

int transfer_file_put(struct transfer *t, const char *party, const char *path,
		      const char *spool, struct err *e)
{
	int r = news_end(t->news, spool, e);

	if (r)
		return r;
	return daemon_ask_once(t,
			       json_pack("{s:s, s:s, s:s, s:s}", "op",
					 "file_put", "party", party, "path",
					 path, "spool", spool),
			       NULL, NULL, e);
}

int transfer_file_remove(struct transfer *t, const char *party,
			 const char *path, struct err *e)
{
	return daemon_ask_once(t,
			       json_pack("{s:s, s:s, s:s}", "op", "file_remove",
					 "party", party, "path", path),
			       NULL, NULL, e);
}

struct waiting {
	struct transfer *t;
	struct daemon_job *j;
};

static void *file_waiter(void *arg)
{
	struct waiting *w = arg;
	struct transfer *t = w->t;
	struct link l = { .fd = -1 };
	struct daemon_job **p;
	struct err e = { 0 };
	int r;

	sb_init(&l.head, FRAME_HEAD_MAX);
	sb_init(&l.body, FRAME_BODY_MAX);
	r = daemon_ask(t, &l, w->j->head, NULL, 0, NULL, &e);
	daemon_disconnect(t, &l);
	pthread_mutex_lock(&t->lock);
	if (!w->j->cancelled) {
		w->j->running = true;
		w->j->runner = pthread_self();
		pthread_mutex_unlock(&t->lock);
		w->j->file_cb(w->j->arg, r);
		pthread_mutex_lock(&t->lock);
	}
	for (p = &t->waits; *p && *p != w->j; p = &(*p)->next)
		;
	if (*p)
		*p = w->j->next;
	pthread_cond_broadcast(&t->waited);
	pthread_mutex_unlock(&t->lock);
	daemon_job_free(w->j);
	free(w);
	daemon_thread_ends(t);
	return NULL;
}

/* Without a thread: the caller hears at once that it cannot wait. */
static void no_waiter(struct waiting *w)
{
	struct transfer *t = w->t;
	struct daemon_job **p;

	pthread_mutex_lock(&t->lock);
	for (p = &t->waits; *p && *p != w->j; p = &(*p)->next)
		;
	if (*p)
		*p = w->j->next;
	pthread_mutex_unlock(&t->lock);
	w->j->file_cb(w->j->arg, -EAGAIN);
	daemon_job_free(w->j);
	free(w);
	daemon_thread_ends(t);
}

void transfer_file_wait(struct transfer *t, const char *party, const char *path,
			transfer_file_cb cb, void *arg)
{
	struct waiting *w = xcalloc(1, sizeof(*w));
	struct daemon_job *j = xcalloc(1, sizeof(*j));

	j->head = json_pack("{s:s, s:s, s:s}", "op", "file_wait", "party",
			    party, "path", path);
	j->file_cb = cb;
	j->arg = arg;
	*w = (struct waiting){ .t = t, .j = j };
	pthread_mutex_lock(&t->lock);
	t->threads++;
	j->next = t->waits;
	t->waits = j;
	pthread_mutex_unlock(&t->lock);
	if (daemon_detached(256u << 10, file_waiter, w))
		no_waiter(w);
}

void transfer_file_wait_cancel(struct transfer *t, transfer_file_cb cb,
			       void *arg)
{
	pthread_mutex_lock(&t->lock);
	/* A callback that has begun is let finish, except by itself. */
	for (struct daemon_job *j = t->waits; j;) {
		if (j->file_cb == cb && j->arg == arg && j->running &&
		    !pthread_equal(j->runner, pthread_self())) {
			pthread_cond_wait(&t->waited, &t->lock);
			j = t->waits;
			continue;
		}
		if (j->file_cb == cb && j->arg == arg)
			j->cancelled = true;
		j = j->next;
	}
	pthread_mutex_unlock(&t->lock);
}

json_t *transfer_file_state(struct transfer *t, const char *party,
			    const char *path)
{
	json_t *answer = NULL, *state = NULL;
	struct err e;

	if (!daemon_ask_once(t,
			     json_pack("{s:s, s:s, s:s}", "op", "file_state",
				       "party", party, "path", path),
			     &answer, NULL, &e))
		state = json_incref(json_object_get(answer, "state"));
	json_decref(answer);
	return state;
}

static char *party_text(struct transfer *t, const char *party, const char *key)
{
	json_t *answer = NULL;
	char *text = NULL;
	struct err e;

	if (!daemon_ask_once(
		t, json_pack("{s:s, s:s}", "op", "party", "party", party),
		&answer, NULL, &e)) {
		const char *s = json_str_or(answer, key, NULL);

		text = s ? xstrdup(s) : NULL;
	}
	json_decref(answer);
	return text;
}

static char *own_version(const struct transfer *t)
{
	json_t *answer = NULL;
	char *text = NULL;
	struct err e;

	if (!daemon_ask_once((struct transfer *)t,
			     json_pack("{s:s}", "op", "hello"), &answer, NULL,
			     &e)) {
		json_object_del(answer, "status");
		json_object_del(answer, "child");
		text = json_text(answer, true);
	}
	json_decref(answer);
	return text ? text : xstrdup("");
}

char *transfer_ping_text(struct transfer *t, const char *party)
{
	char *s;

	if (!strcmp(party, t->conf->party))
		return xstrdup("ok 0 ms (this party)\n");
	s = party_text(t, party, "ping");
	return s ? s : xstrdup("unknown, rollsite did not say\n");
}

char *transfer_version_text(struct transfer *t, const char *party)
{
	char *s;

	if (!strcmp(party, t->conf->party))
		return own_version(t);
	s = party_text(t, party, "version");
	return s ? s : xstrdup("");
}

char *transfer_transfers_text(struct transfer *t, const char *party)
{
	char *s = party_text(t, party, "transfers");

	return s ? s : xstrdup("");
}

char *transfer_certificate_text(struct transfer *t, const char *party)
{
	struct strbuf sb = STRBUF_INIT(1u << 20);

	if (strcmp(party, t->conf->party))
		return party_text(t, party, "certificate");
	if (file_read(t->conf->certificate, &sb, NULL)) {
		sb_free(&sb);
		return NULL;
	}
	return sb_detach(&sb);
}

void transfer_ping_refresh(struct transfer *t, const char *party)
{
	struct err e;

	if (daemon_ask_once(
		t, json_pack("{s:s, s:s}", "op", "ping", "party", party), NULL,
		NULL, &e))
		log_debug("transfer", "%s", e.text);
}

int transfer_parties_reload(struct transfer *t, struct err *e)
{
	return daemon_ask_once(t, json_pack("{s:s}", "op", "parties_reload"),
			       NULL, NULL, e);
}

char *transfer_metrics_text(struct transfer *t)
{
	char *text = NULL;
	struct err e;

	if (daemon_ask_once(t, json_pack("{s:s}", "op", "metrics"), NULL, &text,
			    &e))
		text = NULL;
	return text ? text : xstrdup("");
}

void transfer_on_inbox(struct transfer *t, transfer_inbox_cb cb, void *arg)
{
	pthread_mutex_lock(&t->lock);
	t->inbox_arg = arg;
	t->inbox_cb = cb;
	pthread_mutex_unlock(&t->lock);
}
