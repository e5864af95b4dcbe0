// SPDX-License-Identifier: Apache-2.0
/*
 * rollfs's side: starts and watches rollsite, carries calls and questions over
 * its socket.  Worker threads with a connection each run the outgoing calls, as
 * many as are under way at once; a few wait for incoming ones, and answers
 * have a thread of their own, so that they never wait behind calls whose
 * partner waits for such an answer.
 */
#include "transfer/transfer.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/news.h"
#include "transfer/transfer_priv.h"

#define WORKERS_MAX 64
#define SERVERS	    4

struct job {
	struct job *next;
	json_t *head;
	char *body;
	size_t n;
	transfer_rpc_cb rpc_cb;
	transfer_file_cb file_cb;
	void *arg;
	bool cancelled, running; /* file_wait: the callback */
	pthread_t runner;
};

struct transfer_call {
	uint64_t number;
};

struct transfer {
	const struct conf *conf;
	char *socket, *program;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	atomic_bool stopping; /* nothing is asked twice, nothing is taken */
	/* With the lock; before the threads start without. */
	pid_t pid;	  /* of a rollsite that we started; 0 = none */
	atomic_bool ours; /* it ends with us */
	struct job *jobs; /* calls waiting for a worker */
	struct job *answers;
	bool answering; /* one was taken off and is being told */
	unsigned workers, idle;
	pthread_cond_t answer, waited, ended;
	struct link *links; /* open ones */
	bool cut;	    /* no more are opened */
	struct job *waits;  /* file_wait, a thread each */
	struct news_queue *news;
	transfer_handler handler;
	void *handler_arg;
	transfer_inbox_cb inbox_cb;
	void *inbox_arg;
	unsigned threads;
};

static const char no_site[] = "rollsite of this party is not running";

static void pause_ms(unsigned ms)
{
	struct timespec ts = { ms / 1000, (long)(ms % 1000) * 1000000 };

	nanosleep(&ts, NULL);
}

/* Every connection is known, so that transfer_stop can cut those that threads
 * wait on. */
static int connect_site(struct transfer *t, struct link *l, struct err *e)
{
	int r = link_open(l, t->socket, e);

	if (r)
		return r;
	pthread_mutex_lock(&t->lock);
	if (t->cut) {
		pthread_mutex_unlock(&t->lock);
		link_close(l);
		return err_set(e, EHOSTUNREACH, "%s", no_site);
	}
	l->next = t->links;
	t->links = l;
	pthread_mutex_unlock(&t->lock);
	return 0;
}

static void disconnect_site(struct transfer *t, struct link *l)
{
	struct link **p;

	pthread_mutex_lock(&t->lock);
	for (p = &t->links; *p && *p != l; p = &(*p)->next)
		;
	if (*p)
		*p = l->next;
	pthread_mutex_unlock(&t->lock);
	link_close(l);
}

/* One request on a connection that is opened (again) as needed. */
static int ask(struct transfer *t, struct link *l, const json_t *head,
	       const void *body, size_t n, json_t **ret, struct err *e)
{
	int64_t deadline = now_mono_ms() + 10000;

	for (;;) {
		int r = 0;

		if (l->fd < 0)
			r = connect_site(t, l, e);
		if (!r) {
			int64_t began = now_mono_ms();

			r = link_request(l, head, body, n, -1, ret, NULL, e);
			if (r != -EPIPE)
				return r;
			/* Patience is for being without a rollsite. */
			if (now_mono_ms() - began > 1000)
				deadline = now_mono_ms() + 10000;
			disconnect_site(t, l);
		}
		if (t->stopping || now_mono_ms() > deadline)
			return err_set(e, EHOSTUNREACH, "%s", no_site);
		pause_ms(20);
	}
}

/* A question on a connection of its own. */
static int ask_once(struct transfer *t, json_t *head, json_t **ret,
		    char **ret_body, struct err *e)
{
	struct link l = { .fd = -1 };
	int r;

	sb_init(&l.head, FRAME_HEAD_MAX);
	sb_init(&l.body, FRAME_BODY_MAX);
	r = ask(t, &l, head, NULL, 0, ret, e);
	if (!r && ret_body)
		*ret_body = xasprintf("%s", l.body.buf);
	disconnect_site(t, &l);
	json_decref(head);
	return r;
}

/* ---- the process ------------------------------------------------------- */

static int spawn_site(struct transfer *t, struct err *e)
{
	_cleanup_free_ char *log = xasprintf("%s/rollsite.log", t->conf->state);
	char *argv[] = { (char *)"rollsite", t->conf->path, NULL };
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t at;
	sigset_t none;
	char **env;
	size_t n = 0;
	int r;

	while (environ[n])
		n++;
	env = xcalloc(n + 2, sizeof(*env));
	memcpy(env, environ, n * sizeof(*env));
	env[n] = (char *)"ROLLFS_CHILD=1";
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&fa, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&fa, 2, log,
					 O_WRONLY | O_CREAT | O_APPEND, 0600);
	posix_spawnattr_init(&at);
	sigemptyset(&none);
	posix_spawnattr_setsigmask(&at, &none);
	/* Its own session: a Ctrl-C at rollfs -f is rollfs's to handle. */
	posix_spawnattr_setflags(&at,
				 POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
	r = posix_spawn(&t->pid, t->program, &fa, &at, argv, env);
	posix_spawn_file_actions_destroy(&fa);
	posix_spawnattr_destroy(&at);
	free(env);
	if (r) {
		t->pid = 0;
		return err_sys(e, r, "%s", t->program);
	}
	t->ours = true;
	return 0;
}

/* Is a rollsite answering? Learns whether it ends with rollfs. */
static bool answers(struct transfer *t, struct link *l)
{
	json_t *head, *answer = NULL;
	struct err e = { 0 };
	int r;

	if (connect_site(t, l, &e))
		return false;
	head = json_pack("{s:s}", "op", "hello");
	r = link_request(l, head, NULL, 0, -1, &answer, NULL, &e);
	json_decref(head);
	if (!r)
		t->ours = json_bool_or(answer, "child", false);
	json_decref(answer);
	if (r)
		disconnect_site(t, l);
	return !r;
}

/* The last line that rollsite wrote, for the error of a failed start. */
static void last_words(struct transfer *t, char *buf, size_t n)
{
	_cleanup_free_ char *log = xasprintf("%s/rollsite.log", t->conf->state);
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(16u << 20);
	char *line;

	buf[0] = '\0';
	if (file_read(log, &sb, NULL) || !sb.len)
		return;
	sb.buf[strcspn(sb.buf, "\0")] = '\0';
	while (sb.len && sb.buf[sb.len - 1] == '\n')
		sb.buf[--sb.len] = '\0';
	line = strrchr(sb.buf, '\n');
	(void)snprintf(buf, n, ": %s", line ? line + 1 : sb.buf);
}

static int wait_until_up(struct transfer *t, struct link *l, struct err *e)
{
	char words[600];

	for (int i = 0; i < 2000; i++) {
		int status;

		if (answers(t, l))
			return 0;
		if (t->pid && waitpid(t->pid, &status, WNOHANG) == t->pid) {
			t->pid = 0;
			/* One that a killed rollfs started is still on its way
			 * up, or down. */
			if (WIFEXITED(status) &&
			    WEXITSTATUS(status) == SITE_BUSY) {
				int r;

				pause_ms(50);
				r = answers(t, l) ? 1 : spawn_site(t, e);
				if (r)
					return r > 0 ? 0 : r;
				continue;
			}
			last_words(t, words, sizeof(words));
			return err_set(e, EIO, "rollsite did not start%s",
				       words);
		}
		pause_ms(5);
	}
	return err_set(e, ETIMEDOUT, "rollsite does not answer");
}

static void inbox_news(struct transfer *t, const char *party, const char *path)
{
	transfer_inbox_cb cb;
	void *arg;

	pthread_mutex_lock(&t->lock);
	cb = t->inbox_cb;
	arg = t->inbox_arg;
	pthread_mutex_unlock(&t->lock);
	if (cb)
		cb(arg, party, path);
}

/* The last that a thread does with t. */
static void thread_ends(struct transfer *t)
{
	pthread_mutex_lock(&t->lock);
	t->threads--;
	pthread_cond_broadcast(&t->ended);
	pthread_mutex_unlock(&t->lock);
}

/* Sits on a connection; when it breaks, rollsite has died. */
static void *watch(void *arg)
{
	struct transfer *t = arg;
	struct link l = { .fd = -1 };
	unsigned delay = 0;
	int64_t started = now_mono_ms();
	bool missed = false;

	while (!t->stopping) {
		struct err e = { 0 };
		json_t *head, *answer = NULL;
		int status, r;

		if (l.fd < 0 && !answers(t, &l)) {
			bool gone;

			pthread_mutex_lock(&t->lock);
			if (t->pid &&
			    waitpid(t->pid, &status, WNOHANG) == t->pid)
				t->pid = 0;
			gone = t->ours && !t->pid;
			pthread_mutex_unlock(&t->lock);
			if (gone && !t->stopping) {
				pause_ms(delay);
				delay = MIN(MAX(2 * delay, 100u), 5000u);
				started = now_mono_ms();
				/* None is born behind transfer_stop's back. */
				pthread_mutex_lock(&t->lock);
				if (!t->stopping && spawn_site(t, &e))
					log_error("transfer", "%s", e.text);
				pthread_mutex_unlock(&t->lock);
			}
			pause_ms(10);
			continue;
		}
		/* News that a dead rollsite took with it: look everywhere. */
		if (missed)
			inbox_news(t, "", "");
		missed = false;
		/* The inbox's news is what this connection waits for. */
		head = json_pack("{s:s}", "op", "inbox");
		r = link_request(&l, head, NULL, 0, -1, &answer, NULL, &e);
		json_decref(head);
		if (!r)
			inbox_news(t, json_str_or(answer, "party", ""),
				   json_str_or(answer, "path", ""));
		json_decref(answer);
		if (r == -EPIPE) {
			disconnect_site(t, &l);
			missed = true;
			if (!t->stopping)
				log_warn("transfer", "rollsite has died");
			if (now_mono_ms() - started > 10000)
				delay = 0;
		}
	}
	disconnect_site(t, &l);
	thread_ends(t);
	return NULL;
}

/* ---- outgoing calls ---------------------------------------------------- */

static void run_rpc(struct transfer *t, struct link *l, struct job *j)
{
	struct err e = { 0 };
	json_t *body = NULL, *answer = NULL;
	int r = ask(t, l, j->head, j->body, j->n, &answer, &e);

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

static void job_free(struct job *j)
{
	json_decref(j->head);
	free(j->body);
	free(j);
}

static void start_thread(struct transfer *t, void *(*fn)(void *));

static void append(struct job **list, struct job *j)
{
	while (*list)
		list = &(*list)->next;
	*list = j;
}

/* Runs what is put into the list, at the end what is left in it: those who
 * wait hear that it was in vain. */
static void work(struct transfer *t, struct job **list, pthread_cond_t *wake,
		 unsigned *idle, bool *busy)
{
	struct link l = { .fd = -1 };

	sb_init(&l.head, FRAME_HEAD_MAX);
	sb_init(&l.body, FRAME_BODY_MAX);
	pthread_mutex_lock(&t->lock);
	while (*list || !t->stopping) {
		struct job *j = *list;

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
		job_free(j);
		pthread_mutex_lock(&t->lock);
		*busy = false;
		pthread_cond_broadcast(&t->ended);
	}
	pthread_mutex_unlock(&t->lock);
	disconnect_site(t, &l);
	thread_ends(t);
}

static void *rpc_worker(void *arg)
{
	struct transfer *t = arg;
	bool busy;

	work(t, &t->jobs, &t->wake, &t->idle, &busy);
	return NULL;
}

static void *answer_worker(void *arg)
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
	struct job *j = xcalloc(1, sizeof(*j));
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
	for (const struct job *x = t->jobs; x; x = x->next)
		waiting++;
	/* At the end, the workers may have gone. */
	more = waiting > t->idle && (t->workers < WORKERS_MAX || t->stopping);
	if (more)
		t->workers++;
	pthread_cond_signal(&t->wake);
	pthread_mutex_unlock(&t->lock);
	if (more)
		start_thread(t, rpc_worker);
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

		if (l.fd < 0 && connect_site(t, &l, &e)) {
			pause_ms(20);
			continue;
		}
		if (link_request(&l, head, NULL, 0, -1, &q, NULL, &e)) {
			json_decref(q);
			disconnect_site(t, &l);
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
	disconnect_site(t, &l);
	thread_ends(t);
	return NULL;
}

static int detached(size_t stack, void *(*fn)(void *), void *arg)
{
	pthread_attr_t a;
	pthread_t th;
	int no;

	pthread_attr_init(&a);
	pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&a, stack);
	no = pthread_create(&th, &a, fn, arg);
	pthread_attr_destroy(&a);
	if (no)
		log_error("transfer", "cannot start a thread");
	return no;
}

static void start_thread(struct transfer *t, void *(*fn)(void *))
{
	pthread_mutex_lock(&t->lock);
	t->threads++;
	pthread_mutex_unlock(&t->lock);
	if (detached(512u << 10, fn, t))
		thread_ends(t);
}

void transfer_serve(struct transfer *t, transfer_handler fn, void *arg)
{
	t->handler = fn;
	t->handler_arg = arg;
	for (int i = 0; i < SERVERS; i++)
		start_thread(t, server);
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
	struct job *j = xcalloc(1, sizeof(*j));

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

/* ---- jobs, files, parties ---------------------------------------------- */

int transfer_job_open(struct transfer *t, const char *job, const json_t *roles,
		      struct err *e)
{
	return ask_once(t,
			json_pack("{s:s, s:s, s:O}", "op", "job_open", "job",
				  job, "roles", (json_t *)roles),
			NULL, NULL, e);
}

int transfer_job_close(struct transfer *t, const char *job, struct err *e)
{
	return ask_once(t,
			json_pack("{s:s, s:s}", "op", "job_close", "job", job),
			NULL, NULL, e);
}

int transfer_session_close(struct transfer *t, const char *session,
			   struct err *e)
{
	return ask_once(
	    t,
	    json_pack("{s:s, s:s}", "op", "session_close", "session", session),
	    NULL, NULL, e);
}

/* ---- files --------------------------------------------------------------- */

static bool tell(void *arg, json_t *head)
{
	struct err e = { 0 };
	json_t *answer = NULL;
	bool heard;

	if (ask_once(arg, head, &answer, NULL, &e))
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
	return ask_once(t,
			json_pack("{s:s, s:s, s:s}", "op", "file_retry",
				  "party", party, "path", path),
			NULL, NULL, e);
}

int transfer_file_deadline(struct transfer *t, const char *party,
			   const char *path, int64_t unix_ms, struct err *e)
{
	return ask_once(t,
			json_pack("{s:s, s:s, s:s, s:I}", "op", "file_deadline",
				  "party", party, "path", path, "deadline",
				  (json_int_t)unix_ms),
			NULL, NULL, e);
}

int transfer_file_put(struct transfer *t, const char *party, const char *path,
		      const char *spool, struct err *e)
{
	int r = news_end(t->news, spool, e);

	if (r)
		return r;
	return ask_once(t,
			json_pack("{s:s, s:s, s:s, s:s}", "op", "file_put",
				  "party", party, "path", path, "spool", spool),
			NULL, NULL, e);
}

int transfer_file_remove(struct transfer *t, const char *party,
			 const char *path, struct err *e)
{
	return ask_once(t,
			json_pack("{s:s, s:s, s:s}", "op", "file_remove",
				  "party", party, "path", path),
			NULL, NULL, e);
}

struct waiting {
	struct transfer *t;
	struct job *j;
};

static void *file_waiter(void *arg)
{
	struct waiting *w = arg;
	struct transfer *t = w->t;
	struct link l = { .fd = -1 };
	struct job **p;
	struct err e = { 0 };
	int r;

	sb_init(&l.head, FRAME_HEAD_MAX);
	sb_init(&l.body, FRAME_BODY_MAX);
	r = ask(t, &l, w->j->head, NULL, 0, NULL, &e);
	disconnect_site(t, &l);
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
	job_free(w->j);
	free(w);
	thread_ends(t);
	return NULL;
}

/* Without a thread: the caller hears at once that it cannot wait. */
static void no_waiter(struct waiting *w)
{
	struct transfer *t = w->t;
	struct job **p;

	pthread_mutex_lock(&t->lock);
	for (p = &t->waits; *p && *p != w->j; p = &(*p)->next)
		;
	if (*p)
		*p = w->j->next;
	pthread_mutex_unlock(&t->lock);
	w->j->file_cb(w->j->arg, -EAGAIN);
	job_free(w->j);
	free(w);
	thread_ends(t);
}

void transfer_file_wait(struct transfer *t, const char *party, const char *path,
			transfer_file_cb cb, void *arg)
{
	struct waiting *w = xcalloc(1, sizeof(*w));
	struct job *j = xcalloc(1, sizeof(*j));

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
	if (detached(256u << 10, file_waiter, w))
		no_waiter(w);
}

void transfer_file_wait_cancel(struct transfer *t, transfer_file_cb cb,
			       void *arg)
{
	pthread_mutex_lock(&t->lock);
	/* A callback that has begun is let finish, except by itself. */
	for (struct job *j = t->waits; j;) {
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

	if (!ask_once(t,
		      json_pack("{s:s, s:s, s:s}", "op", "file_state", "party",
				party, "path", path),
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

	if (!ask_once(t, json_pack("{s:s, s:s}", "op", "party", "party", party),
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

	if (!ask_once((struct transfer *)t, json_pack("{s:s}", "op", "hello"),
		      &answer, NULL, &e)) {
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

	if (ask_once(t, json_pack("{s:s, s:s}", "op", "ping", "party", party),
		     NULL, NULL, &e))
		log_debug("transfer", "%s", e.text);
}

int transfer_parties_reload(struct transfer *t, struct err *e)
{
	return ask_once(t, json_pack("{s:s}", "op", "parties_reload"), NULL,
			NULL, e);
}

char *transfer_metrics_text(struct transfer *t)
{
	char *text = NULL;
	struct err e;

	if (ask_once(t, json_pack("{s:s}", "op", "metrics"), NULL, &text, &e))
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

/* ---- start and stop ---------------------------------------------------- */

int transfer_start(const struct conf *conf, const char *program,
		   struct transfer **ret, struct err *e)
{
	struct transfer *t = xcalloc(1, sizeof(*t));
	struct link l = { .fd = -1 };
	int r = 0;

	t->conf = conf;
	t->socket = transfer_socket_path(conf->state);
	t->program = xstrdup(program);
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->wake, NULL);
	pthread_cond_init(&t->answer, NULL);
	pthread_cond_init(&t->waited, NULL);
	pthread_cond_init(&t->ended, NULL);
	t->news = news_open(tell, t);
	if (!answers(t, &l)) {
		r = spawn_site(t, e);
		if (!r)
			r = wait_until_up(t, &l, e);
	}
	disconnect_site(t, &l);
	if (r) {
		(void)transfer_free(t);
		return r;
	}
	start_thread(t, watch);
	start_thread(t, answer_worker);
	*ret = t;
	return 0;
}

/* With the lock: until all answers are told, or (threads) all threads have
 * ended. */
static void wait_ended(struct transfer *t, bool threads, unsigned seconds)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += seconds;
	while ((threads ? t->threads > 0 : t->answers || t->answering) &&
	       pthread_cond_timedwait(&t->ended, &t->lock, &until) != ETIMEDOUT)
		;
}

/* A rollsite of ours ends; returns when it has. */
static void end_site(struct transfer *t)
{
	struct link l;
	struct err e;
	bool asked = false;
	pid_t pid;

	if (t->ours && !link_open(&l, t->socket, &e)) {
		json_t *head = json_pack("{s:s}", "op", "shutdown");

		asked = !link_request(&l, head, NULL, 0, -1, NULL, NULL, &e);
		json_decref(head);
		link_close(&l);
	}
	pthread_mutex_lock(&t->lock);
	pid = t->pid;
	t->pid = 0; /* the watching thread waits for it no more */
	pthread_mutex_unlock(&t->lock);
	for (int i = 0; asked && i < 400; i++) {
		struct link probe;

		if (pid && waitpid(pid, NULL, WNOHANG))
			break;
		if (!pid && link_open(&probe, t->socket, &e))
			break;
		if (!pid)
			link_close(&probe);
		pause_ms(5);
	}
	if (pid && !asked) {
		kill(pid, SIGTERM);
		(void)waitpid(pid, NULL, 0);
	}
}

void transfer_stop(struct transfer *t)
{
	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	t->stopping = true;
	pthread_cond_broadcast(&t->wake);
	pthread_cond_broadcast(&t->answer);
	/* Partners wait for what was answered. */
	wait_ended(t, false, 1);
	pthread_mutex_unlock(&t->lock);
	/* A rollsite that lives on hears which files will not come. */
	news_stop(t->news);
	end_site(t);
	pthread_mutex_lock(&t->lock);
	t->cut = true;
	for (const struct link *l = t->links; l; l = l->next)
		(void)shutdown(l->fd, SHUT_RDWR);
	wait_ended(t, true, 10);
	if (t->threads)
		log_error("transfer", "%u threads have not ended", t->threads);
	pthread_mutex_unlock(&t->lock);
}

bool transfer_free(struct transfer *t)
{
	if (!t)
		return true;
	if (t->threads)
		return false;
	/* Answered when no thread told answers any more. */
	while (t->answers) {
		struct job *j = t->answers;

		t->answers = j->next;
		job_free(j);
	}
	news_free(t->news);
	pthread_cond_destroy(&t->wake);
	pthread_cond_destroy(&t->answer);
	pthread_cond_destroy(&t->waited);
	pthread_cond_destroy(&t->ended);
	pthread_mutex_destroy(&t->lock);
	free(t->socket);
	free(t->program);
	free(t);
	return true;
}
