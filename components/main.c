// SPDX-License-Identifier: Apache-2.0
/*
 * rollfs-task: runs one attempt of one task, or says what it can run.
 * docs/internals.md has the files and the way it is started.
 */
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#include "components/ctx_priv.h"
#include "lib/fileio.h"
#include "lib/json.h"
#include "lib/log.h"
#include "lib/version.h"

#define REQUEST_MAX (16u << 20)

struct task {
	struct ctx ctx;
	json_t *json;
	const char *result;
	char *lock; /* STATE/lock */
	unsigned lease_s;
	int ended; /* atomic: who sets it first writes the result */
};

static void write_result(const struct task *t, json_t *o)
{
	struct err e = { 0 };

	if (json_write_file(t->result, o, 0600, true, &e) < 0)
		log_error("task", "%s", e.text);
	json_decref(o);
}

static void write_failure(const struct task *t, const char *text,
			  const char *code, const char *public)
{
	log_error("task", "%s", text);
	write_result(t,
		     json_pack("{s:s, s:s, s:s, s:s}", "status", "failed",
			       "error", text, "code", code, "public", public));
}

/* A task whose rollfs is gone for good must not run on for ever. */
static void *watch_lease(void *arg)
{
	struct task *t = arg;
	int64_t seen = now_mono_ms();
	char text[100];

	for (;;) {
		sleep(1);
		if (lock_held(t->lock))
			seen = now_mono_ms();
		if (now_mono_ms() - seen < (int64_t)t->lease_s * 1000)
			continue;
		if (__atomic_exchange_n(&t->ended, 1, __ATOMIC_SEQ_CST))
			return NULL;
		(void)snprintf(text, sizeof(text),
			       "rollfs has been away for %u s", t->lease_s);
		write_failure(t, text, "abandoned",
			      "that party's rollfs has gone");
		_exit(1);
	}
}

/* need_run false: the first table of each key is the output; nothing else is
 * made. */
static int hand_on(struct ctx *c, const struct component *m, struct err *e)
{
	size_t i = 0;
	int r = 0;

	c->passed = true;
	ctx_event(c, "need_run is false: the rows are handed on");
	for (const char *const *k = m->data_inputs; k && *k && r >= 0; k++)
		if (ctx_inputs(c, *k) && i < m->data_outputs)
			r = ctx_put_same(c, i++, ctx_input(c, *k, 0), e);
	return r;
}

static int run_component(struct task *t, struct err *e)
{
	const struct component *c;
	const char *module;
	pthread_t id;
	int r;

	if (json_get_str(t->json, "module", &module, e) < 0)
		return -e->no;
	c = component_find(module);
	if (!c)
		return err_set(e, EINVAL, "no module %s", module);
	r = ctx_start(&t->ctx, e);
	if (r < 0)
		return r;
	r = pthread_create(&id, NULL, watch_lease, t);
	if (r)
		return err_sys(e, r, "thread");
	pthread_detach(id);
	ctx_progress(&t->ctx, 0);
	r = json_bool_or(ctx_params(&t->ctx), "need_run", true)
		? c->run(&t->ctx, e)
		: hand_on(&t->ctx, c, e);
	if (!r)
		ctx_progress(&t->ctx, 1);
	return r;
}

static int finish(struct task *t, int status, const struct err *e)
{
	struct ctx *c = &t->ctx;

	if (__atomic_exchange_n(&t->ended, 1, __ATOMIC_SEQ_CST))
		pause(); /* the other thread ends the process */
	if (!status)
		write_result(t, json_pack("{s:s}", "status",
					  c->passed ? "pass" : "success"));
	else
		write_failure(t, *e->text ? e->text : strerror(-status),
			      c->public ? c->code : "failed",
			      c->public ? c->public
					: "the task failed; the reason is in "
					  "that party's log");
	return status ? 1 : 0;
}

/* Held until the process ends: who adopts the task sees that it lives. */
static int hold_alive(const char *result, struct err *e)
{
	const char *slash = strrchr(result, '/');
	_cleanup_free_ char *path = NULL;
	int fd, r;

	if (!slash)
		return err_set(e, EINVAL, "result: expected an absolute path");
	path = xasprintf("%.*s/alive", (int)(slash - result), result);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, errno, "%s", path);
	r = lock_try(fd);
	if (!r)
		return 0;
	close(fd);
	return r == -EAGAIN ? err_set(e, EAGAIN, "this attempt runs already")
			    : err_sys(e, -r, "%s", path);
}

static void open_job_log(const json_t *task)
{
	const char *path = json_str_or(task, "job_log", NULL);
	char prefix[280];
	int fd;

	if (!path)
		return;
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0) {
		log_warn("task", "%s: %s", path, strerror(errno));
		return;
	}
	(void)snprintf(prefix, sizeof(prefix), "%s %s",
		       json_str_or(task, "role", "-"),
		       json_str_or(task, "component", "-"));
	log_also_to(fd, prefix);
}

/* Whatever the parent had blocked or ignored: SIGTERM ends us at once, a
 * connection that broke is an error of write(). */
static void set_signals(void)
{
	const struct rlimit no_core = { 0, 0 }; /* it would hold keys */
	sigset_t none;

	sigemptyset(&none);
	(void)signal(SIGTERM, SIG_DFL);
	(void)signal(SIGINT, SIG_DFL);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)setrlimit(RLIMIT_CORE, &no_core);
}

static int run_task(const char *path)
{
	struct task t = { .lease_s = 60 };
	struct err e = { 0 };
	const char *state;
	int r;

	set_signals();
	t.json = json_read_file(path, &e);
	if (!t.json || json_get_str(t.json, "result", &t.result, &e) < 0 ||
	    json_get_str(t.json, "state", &state, &e) < 0 ||
	    hold_alive(t.result, &e) < 0) {
		log_error("task", "%s: %s", path, e.text);
		json_decref(t.json);
		return 1;
	}
	open_job_log(t.json);
	t.lease_s = (unsigned)json_int_or(t.json, "lease", 60);
	t.lock = xasprintf("%s/lock", state);
	t.ctx.task = t.json;
	r = run_component(&t, &e);
	r = finish(&t, r, &e);
	/* Not freed what the lease thread reads; the process ends. */
	ctx_end(&t.ctx);
	exit(r);
}

static int print_json(json_t *o)
{
	_cleanup_free_ char *text = json_text(o, true);
	int r;

	json_decref(o);
	r = text ? write_all(STDOUT_FILENO, text, strlen(text)) : -ENOMEM;
	if (r < 0)
		log_error("task", "standard output: %s", strerror(-r));
	return r < 0 ? 1 : 0;
}

static int check_stdin(void)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(REQUEST_MAX);
	struct err e = { 0 };
	json_t *request, *answer = NULL;
	ssize_t n;

	do {
		if (sb_reserve(&sb, 65536) < 0) {
			log_error("task", "the request is too long");
			return 1;
		}
		n = read(STDIN_FILENO, sb.buf + sb.len, 65536);
		if (n > 0)
			sb.len += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	request = n < 0 ? NULL : json_parse(sb.buf, sb.len, &e);
	if (request)
		answer = components_check(request, &e);
	json_decref(request);
	if (answer)
		return print_json(answer);
	log_error("task", "%s", n < 0 ? "standard input" : e.text);
	return 1;
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "--describe") == 0)
		return print_json(components_describe());
	if (argc == 2 && strcmp(argv[1], "--check") == 0)
		return check_stdin();
	if (argc == 2 && strcmp(argv[1], "--version") == 0)
		return puts(rollfs_version()) < 0;
	if (argc == 2 && argv[1][0] == '/') {
		/* Vectors come and go with each message: their memory is kept,
		 * not given back to the kernel, which would clear it again. */
		(void)mallopt(M_MMAP_THRESHOLD, 4 << 20);
		(void)mallopt(M_TRIM_THRESHOLD, 8 << 20);
		return run_task(argv[1]);
	}
	(void)fprintf(stderr, "usage: rollfs-task /path/of/task.json\n"
			      "       rollfs-task --describe | --check "
			      "| --version\n");
	return 2;
}
