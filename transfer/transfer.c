// SPDX-License-Identifier: Apache-2.0
/*
 * rollfs's side: starts and watches rollsite, and carries questions over its
 * socket.
 */
#include "transfer/daemon.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>

#include "lib/log.h"

static const char no_site[] = "rollsite of this party is not running";

void daemon_pause(unsigned ms)
{
	struct timespec ts = { ms / 1000, (long)(ms % 1000) * 1000000 };

	nanosleep(&ts, NULL);
}

int daemon_connect(struct transfer *t, struct link *l, struct err *e)
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

void daemon_disconnect(struct transfer *t, struct link *l)
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

int daemon_ask(struct transfer *t, struct link *l, const json_t *head,
	       const void *body, size_t n, json_t **ret, struct err *e)
{
	int64_t deadline = now_mono_ms() + 10000;

	for (;;) {
		int r = 0;

		if (l->fd < 0)
			r = daemon_connect(t, l, e);
		if (!r) {
			int64_t began = now_mono_ms();

			r = link_request(l, head, body, n, -1, ret, NULL, e);
			if (r != -EPIPE)
				return r;
			/* Patience is for being without a rollsite. */
			if (now_mono_ms() - began > 1000)
				deadline = now_mono_ms() + 10000;
			daemon_disconnect(t, l);
		}
		if (t->stopping || now_mono_ms() > deadline)
			return err_set(e, EHOSTUNREACH, "%s", no_site);
		daemon_pause(20);
	}
}

int daemon_ask_once(struct transfer *t, json_t *head, json_t **ret,
		    char **ret_body, struct err *e)
{
	struct link l = { .fd = -1 };
	int r;

	sb_init(&l.head, FRAME_HEAD_MAX);
	sb_init(&l.body, FRAME_BODY_MAX);
	r = daemon_ask(t, &l, head, NULL, 0, ret, e);
	if (!r && ret_body)
		*ret_body = xasprintf("%s", l.body.buf);
	daemon_disconnect(t, &l);
	json_decref(head);
	return r;
}

/* ---- threads ------------------------------------------------------------- */

int daemon_detached(size_t stack, void *(*fn)(void *), void *arg)
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

void daemon_thread(struct transfer *t, void *(*fn)(void *))
{
	pthread_mutex_lock(&t->lock);
	t->threads++;
	pthread_mutex_unlock(&t->lock);
	if (daemon_detached(512u << 10, fn, t))
		daemon_thread_ends(t);
}

void daemon_thread_ends(struct transfer *t)
{
	pthread_mutex_lock(&t->lock);
	t->threads--;
	pthread_cond_broadcast(&t->ended);
	pthread_mutex_unlock(&t->lock);
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

	if (daemon_connect(t, l, &e))
		return false;
	head = json_pack("{s:s}", "op", "hello");
	r = link_request(l, head, NULL, 0, -1, &answer, NULL, &e);
	json_decref(head);
	if (!r)
		t->ours = json_bool_or(answer, "child", false);
	json_decref(answer);
	if (r)
		daemon_disconnect(t, l);
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

	/* A minute: one that has ended is seen at once, and a busy machine may
	 * take its time. */
	for (int i = 0; i < 12000; i++) {
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

				daemon_pause(50);
				r = answers(t, l) ? 1 : spawn_site(t, e);
				if (r)
					return r > 0 ? 0 : r;
				continue;
			}
			last_words(t, words, sizeof(words));
			return err_set(e, EIO, "rollsite did not start%s",
				       words);
		}
		daemon_pause(5);
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
				daemon_pause(delay);
				delay = MIN(MAX(2 * delay, 100u), 5000u);
				started = now_mono_ms();
				/* None is born behind transfer_stop's back. */
				pthread_mutex_lock(&t->lock);
				if (!t->stopping && spawn_site(t, &e))
					log_error("transfer", "%s", e.text);
				pthread_mutex_unlock(&t->lock);
			}
			daemon_pause(10);
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
			daemon_disconnect(t, &l);
			missed = true;
			if (!t->stopping)
				log_warn("transfer", "rollsite has died");
			if (now_mono_ms() - started > 10000)
				delay = 0;
		}
	}
	daemon_disconnect(t, &l);
	daemon_thread_ends(t);
	return NULL;
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
	t->news = news_open(daemon_tell, t);
	if (!answers(t, &l)) {
		r = spawn_site(t, e);
		if (!r)
			r = wait_until_up(t, &l, e);
	}
	daemon_disconnect(t, &l);
	if (r) {
		(void)transfer_free(t);
		return r;
	}
	daemon_thread(t, watch);
	daemon_thread(t, daemon_answers);
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
		daemon_pause(5);
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
		struct daemon_job *j = t->answers;

		t->answers = j->next;
		daemon_job_free(j);
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
