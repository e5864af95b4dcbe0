// SPDX-License-Identifier: Apache-2.0
/*
 * Calls between the daemons of two parties.  Worker threads with a connection
 * each run the outgoing ones, as many as are under way at once; a few wait for
 * incoming ones, and answers have a thread of their own, so that they never
 * wait behind calls whose partner waits for such an answer.
 */
#include "transfer/daemon.h"

#include "lib/log.h"

#define WORKERS_MAX 64
#define SERVERS	    4

void daemon_job_free(struct daemon_job *j)
{
	json_decref(j->head);
	free(j->body);
	free(j);
}

static void run_rpc(struct transfer *t, struct link *l, struct daemon_job *j)
{
	struct err e = { 0 };
	json_t *body = NULL, *answer = NULL;
	int r = daemon_ask(t, l, j->head, j->body, j->n, &answer, &e);

	if (!r && l->body.len) {
		body = json_parse(l->body.buf, l->body.len, &e);
		if (!body)
			r = -EPROTO;
	} else if (!r) {
		body = json_object();
	}
	json_decref(answer);
	j->rpc_cb(j->arg, r, body, &e);
	json_decref(body);
}

static void append(struct daemon_job **list, struct daemon_job *j)
{
	while (*list)
		list = &(*list)->next;
	*list = j;
}

/* Runs what is put into the list, at the end what is left in it: those who
 * wait hear that it was in vain. */
static void work(struct transfer *t, struct daemon_job **list,
		 pthread_cond_t *wake, unsigned *idle, bool *busy)
{
	struct link l = { .fd = -1 };

	sb_init(&l.head, FRAME_HEAD_MAX);
	sb_init(&l.body, FRAME_BODY_MAX);
	pthread_mutex_lock(&t->lock);
	while (*list || !t->stopping) {
		struct daemon_job *j = *list;

		if (!j) {
			(*idle)++;
			pthread_cond_wait(wake, &t->lock);
			(*idle)--;
			continue;
		}
		*list = j->next;
		*busy = true;
		pthread_mutex_unlock(&t->lock);
		run_rpc(t, &l, j);
		daemon_job_free(j);
		pthread_mutex_lock(&t->lock);
		*busy = false;
		pthread_cond_broadcast(&t->ended);
	}
	pthread_mutex_unlock(&t->lock);
	daemon_disconnect(t, &l);
	daemon_thread_ends(t);
}

static void *rpc_worker(void *arg)
{
	struct transfer *t = arg;
	bool busy;

	work(t, &t->jobs, &t->wake, &t->idle, &busy);
	return NULL;
}

void *daemon_answers(void *arg)
{
	struct transfer *t = arg;
	unsigned unused = 0;

	work(t, &t->answers, &t->answer, &unused, &t->answering);
	return NULL;
}

void transfer_rpc(struct transfer *t, const char *party, const char *verb,
		  json_t *body, unsigned timeout_ms, transfer_rpc_cb cb,
		  void *arg)
{
	struct daemon_job *j = xcalloc(1, sizeof(*j));
	unsigned waiting = 0;
	bool more;

	j->head = json_pack("{s:s, s:s, s:s, s:i}", "op", "rpc", "party", party,
			    "verb", verb, "timeout_ms", (int)timeout_ms);
	j->body = json_text(body, false);
	j->n = strlen(j->body);
	j->rpc_cb = cb;
	j->arg = arg;
	pthread_mutex_lock(&t->lock);
	append(&t->jobs, j);
	for (const struct daemon_job *x = t->jobs; x; x = x->next)
		waiting++;
	/* At the end, the workers may have gone. */
	more = waiting > t->idle && (t->workers < WORKERS_MAX || t->stopping);
	if (more)
		t->workers++;
	pthread_cond_signal(&t->wake);
	pthread_mutex_unlock(&t->lock);
	if (more)
		daemon_thread(t, rpc_worker);
}

/* ---- incoming calls ---------------------------------------------------- */

static void *server(void *arg)
{
	struct transfer *t = arg;
	struct link l = { .fd = -1 };
	json_t *head = json_pack("{s:s}", "op", "serve");

	sb_init(&l.head, FRAME_HEAD_MAX);
	sb_init(&l.body, FRAME_BODY_MAX);
	while (!t->stopping) {
		struct err e = { 0 };
		struct transfer_call *call;
		json_t *q = NULL, *body;

		if (l.fd < 0 && daemon_connect(t, &l, &e)) {
			daemon_pause(20);
			continue;
		}
		if (link_request(&l, head, NULL, 0, -1, &q, NULL, &e)) {
			json_decref(q);
			daemon_disconnect(t, &l);
			continue;
		}
		call = xcalloc(1, sizeof(*call));
		call->number = (uint64_t)json_int_or(q, "call", 0);
		body = json_parse(l.body.buf, l.body.len, &e);
		if (!body)
			transfer_answer(t, call, -EINVAL, NULL, "malformed");
		else
			t->handler(t->handler_arg, call,
				   json_str_or(q, "party", ""),
				   json_str_or(q, "verb", ""), body);
		json_decref(body);
		json_decref(q);
	}
	json_decref(head);
	daemon_disconnect(t, &l);
	daemon_thread_ends(t);
	return NULL;
}

void transfer_serve(struct transfer *t, transfer_handler fn, void *arg)
{
	t->handler = fn;
	t->handler_arg = arg;
	for (int i = 0; i < SERVERS; i++)
		daemon_thread(t, server);
}

static void answered(void *arg, int status, json_t *body, const struct err *e)
{
	(void)arg;
	(void)body;
	if (status)
		log_debug("transfer", "an answer was lost: %s", e->text);
}

void transfer_answer(struct transfer *t, struct transfer_call *call, int status,
		     json_t *body, const char *error)
{
	struct daemon_job *j = xcalloc(1, sizeof(*j));

	j->head = json_pack("{s:s, s:I, s:i, s:s?}", "op", "answer", "call",
			    (json_int_t)call->number, "status", status, "error",
			    error);
	j->body = body ? json_text(body, false) : xstrdup("");
	j->n = strlen(j->body);
	j->rpc_cb = answered;
	free(call);
	pthread_mutex_lock(&t->lock);
	append(&t->answers, j);
	pthread_cond_signal(&t->answer);
	pthread_mutex_unlock(&t->lock);
}
