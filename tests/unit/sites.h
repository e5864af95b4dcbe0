/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two rollsites on this machine, started and restarted as rollfs does it, with
 * real certificates: for the tests that need them.  Who has calls between the
 * parties says in main() who answers them.
 */
#ifndef TESTS_UNIT_SITES_H
#define TESTS_UNIT_SITES_H

#include <arpa/inet.h>
#include <curl/curl.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include <cmocka.h>

#include "lib/fileio.h"
#include "lib/json.h"
#include "lib/log.h"

#include "transfer/channel.h"
#include "transfer/transfer.h"
#include "transfer/transfer_priv.h"

#include "tests/unit/temp_dir.h"

static char dir[60];
static char program[4096];
static unsigned ports[3];

/* Index 0 is party 1, index 1 is party 2; 3 is known to both and down. */
static struct site_of_test {
	struct conf *conf;
	struct transfer *t;
	int lock;
} sites[2];

static const struct channel_peer guest1 = { "guest", "1" };
static const struct channel_peer host2 = { "host", "2" };
static const struct channel_peer arbiter1 = { "arbiter", "1" };

#define OK(call)                                                  \
	do {                                                      \
		struct err e = { 0 };                             \
		int r_ = (call);                                  \
		if (r_)                                           \
			fail_msg("%s: %d %s", #call, r_, e.text); \
	} while (0)
#define FAILS(no, call)                                                    \
	do {                                                               \
		struct err e = { 0 };                                      \
		int r_ = (call);                                           \
		if (r_ != -(no))                                           \
			fail_msg("%s: %d (%s), not %d", #call, r_, e.text, \
				 -(no));                                   \
	} while (0)

static inline void pause_ms(unsigned ms)
{
	struct timespec ts = { ms / 1000, (long)(ms % 1000) * 1000000 };

	nanosleep(&ts, NULL);
}

/* What other threads and processes are about to do; a minute finds hangs. */
#define EVENTUALLY(what)                                                \
	do {                                                            \
		int64_t end_ = now_mono_ms() + 60000;                   \
		while (!(what)) {                                       \
			if (now_mono_ms() > end_)                       \
				fail_msg("%s: not in a minute", #what); \
			pause_ms(5);                                    \
		}                                                       \
	} while (0)

/* ---- the world --------------------------------------------------------- */

static void pki(const char *fmt, ...) PRINTF(1, 2);
static void pki(const char *fmt, ...)
{
	char args[1000], line[1200];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(args, sizeof(args), fmt, ap);
	va_end(ap);
	(void)snprintf(line, sizeof(line), "tools/rollfs-pki %s", args);
	assert_int_equal(system(line), 0); /* NOLINT: fixed words */
}

/* A port that is this process's until it ends, also while nothing listens
 * there: every test takes its ports in this way (conftest.py). */
static inline bool take_port(unsigned port)
{
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons((uint16_t)port) };
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int mark = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int n = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1,
			 "rollfs-test-port-%u", port);

	assert_true(mark >= 0 && fd >= 0);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (!bind(mark, (void *)&name,
		  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
			      (size_t)n)) &&
	    !bind(fd, (void *)&a, sizeof(a)))
		return true;
	close(mark);
	return false;
}

/* Below the range that outgoing connections take their ports from. */
static inline void take_ports(void)
{
	for (int i = 0; i < 3; i++)
		do
			ports[i] = 15000 + arc4random_uniform(17000);
		while (!take_port(ports[i]));
}

static inline void write_conf(int i)
{
	_cleanup_free_ char *path = xasprintf("%s/%d.conf", dir, i + 1);
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(4096);

	sb_addf(&sb,
		"[rollfs]\nparty = %d\nfederation = test\nstate = %s/s%d\n"
		"listen = 127.0.0.1:%u\ncertificate = pki/%d.pem\n"
		"key = pki/%d.key\nca = pki/ca.pem\nlease = 300\n",
		i + 1, dir, i + 1, ports[i], i + 1, i + 1);
	for (int k = 0; k < 3; k++)
		if (k != i)
			sb_addf(
			    &sb, "[party %d]\nurl = https://127.0.0.1:%u\n%s",
			    k + 1, ports[k], i == 1 ? "allow = push *\n" : "");
	OK(file_replace(path, sb.buf, sb.len, 0600, false, &e));
}

static void no_calls(void *arg, struct transfer_call *call, const char *party,
		     const char *verb, json_t *body)
{
	const struct site_of_test *s = arg;

	(void)party;
	(void)verb;
	(void)body;
	transfer_answer(s->t, call, -ENOENT, NULL, "no calls here");
}

static transfer_handler answer_calls = no_calls;

static inline void start_site(int i)
{
	_cleanup_free_ char *path = xasprintf("%s/%d.conf", dir, i + 1);
	_cleanup_free_ char *lock = NULL;
	struct site_of_test *s = &sites[i];

	OK(conf_load(path, &s->conf, &e));
	OK(mkdir_p(s->conf->state, 0700, &e));
	lock = xasprintf("%s/lock", s->conf->state);
	s->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(lock_try(s->lock), 0);
	OK(transfer_start(s->conf, program, &s->t, &e));
	transfer_serve(s->t, answer_calls, s);
}

static inline int world_up(void **state)
{
	char *slash;
	ssize_t n;

	(void)state;
	(void)setenv("ROLLFS_HOOK_FLIP", "flip", 1);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	n = readlink("/proc/self/exe", program, sizeof(program) - 20);
	assert_true(n > 0);
	program[n] = '\0';
	for (int i = 0; i < 3; i++) { /* build/V/tests/unit/test_transfer */
		slash = strrchr(program, '/');
		assert_non_null(slash);
		*slash = '\0';
	}
	memcpy(program + strlen(program), "/rollsite", 10);
	if (getenv("ROLLSITE"))
		(void)snprintf(program, sizeof(program), "%s",
			       getenv("ROLLSITE"));
	assert_true(temp_dir(dir, sizeof(dir), "test-transfer"));
	pki("ca %s/pki test", dir);
	for (int i = 1; i <= 4; i++) /* 4: known to nobody */
		pki("party %s/pki test %d", dir, i);
	pki("party %s/pki other 5", dir);
	pki("ca %s/foreign test", dir);
	pki("party %s/foreign test 1", dir);
	take_ports();
	for (int i = 0; i < 2; i++)
		write_conf(i);
	for (int i = 0; i < 2; i++)
		start_site(i);
	return 0;
}

/* What a sanitizer says about rollsite is in its log. */
static inline int check_log(int i)
{
	_cleanup_free_ char *path =
	    xasprintf("%s/rollsite.log", sites[i].conf->state);
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(64u << 20);
	const char *at;

	if (file_read(path, &sb, NULL))
		return -1;
	at = strstr(sb.buf, "Sanitizer");
	if (!at)
		at = strstr(sb.buf, "runtime error");
	if (!at)
		return 0;
	while (at > sb.buf && sb.buf + sb.len - at < 4000 && at[-1] != '=')
		at--;
	print_message("# rollsite of party %d:\n%.6000s\n", i + 1, at);
	return -1;
}

static bool complaints; /* cmocka does not count what a teardown says */

static inline int world_down(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		transfer_stop(sites[i].t);
		complaints |= !transfer_free(sites[i].t);
		complaints |= check_log(i) != 0;
		close(sites[i].lock);
		conf_free(sites[i].conf);
	}
	if (getenv("KEEP"))
		return 0;
	return remove_tree(dir, NULL);
}

static char *job_of_test(void)
{
	static unsigned n;

	return xasprintf("2026112312000000%04u", ++n);
}

static inline void open_job(int i, const char *job)
{
	json_t *roles = json_pack("{s:[s], s:[s], s:[s]}", "guest", "1", "host",
				  "2", "arbiter", "1");

	OK(transfer_job_open(sites[i].t, job, roles, &e));
	json_decref(roles);
}

static inline struct channel *channel_for(int i, const char *job,
					  struct channel_peer self)
{
	_cleanup_free_ char *sock = transfer_socket_path(sites[i].conf->state);
	_cleanup_free_ char *session = xasprintf("%s_c_0", job);
	struct channel_options o = {
		.socket = sock, .session = session, .self = self, .lease_s = 300
	};
	struct channel *c = NULL;

	OK(channel_open(&o, &c, &e));
	return c;
}

/* A job with a channel at each end. */
struct pair {
	char *job;
	struct channel *a, *b; /* guest-1, host-2 */
};

static inline struct pair pair_open(void)
{
	struct pair p = { .job = job_of_test() };

	open_job(0, p.job);
	open_job(1, p.job);
	p.a = channel_for(0, p.job, guest1);
	p.b = channel_for(1, p.job, host2);
	return p;
}

static inline void pair_close(struct pair *p)
{
	channel_close(p->a);
	channel_close(p->b);
	OK(transfer_job_close(sites[0].t, p->job, &e));
	OK(transfer_job_close(sites[1].t, p->job, &e));
	free(p->job);
}

static inline void send_text(struct channel *c, struct channel_peer to,
			     const char *name, const char *text)
{
	OK(channel_send(c, to, name, "-", text, strlen(text), &e));
}

static inline void expect_text(struct channel *c, struct channel_peer from,
			       const char *name, const char *text)
{
	void *data = NULL;
	size_t n = 0;

	OK(channel_recv(c, from, name, "-", 1000, &data, &n, &e));
	assert_int_equal(n, strlen(text));
	assert_memory_equal(data, text, n);
	free(data);
}

static inline pid_t pid_of_site(int i)
{
	_cleanup_free_ char *path = transfer_socket_path(sites[i].conf->state);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct ucred u = { 0 };
	socklen_t n = sizeof(u);

	(void)snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	EVENTUALLY(!connect(fd, (void *)&a, sizeof(a)));
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &n), 0);
	return u.pid;
}

/* Returns when it has ended: the next kill is of the one after it. */
static inline void kill_site(int i)
{
	_cleanup_close_ int fd = pidfd_open(pid_of_site(i), 0);
	struct pollfd p = { .fd = fd, .events = POLLIN };

	assert_true(fd >= 0);
	assert_int_equal(pidfd_send_signal(fd, SIGKILL, NULL, 0), 0);
	assert_int_equal(poll(&p, 1, 60000), 1);
}

struct answer {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned left;
	int status;
	json_t *body;
	char text[1200];
};

static inline void on_answer(void *arg, int status, json_t *body,
			     const struct err *e)
{
	struct answer *a = arg;

	pthread_mutex_lock(&a->lock);
	a->status = status;
	json_decref(a->body);
	a->body = json_deep_copy(body); /* the worker lets go of its own */
	(void)snprintf(a->text, sizeof(a->text), "%s", e->text);
	a->left--;
	pthread_cond_signal(&a->cond);
	pthread_mutex_unlock(&a->lock);
}

static inline void call_n(struct answer *a, int i, const char *party,
			  const char *verb, json_t *body, unsigned ms,
			  unsigned n)
{
	*a = (struct answer){ .left = n };
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->cond, NULL);
	for (unsigned k = 0; k < n; k++)
		transfer_rpc(sites[i].t, party, verb, body, ms, on_answer, a);
	json_decref(body);
	pthread_mutex_lock(&a->lock);
	while (a->left)
		pthread_cond_wait(&a->cond, &a->lock);
	pthread_mutex_unlock(&a->lock);
}

static inline void call(struct answer *a, int i, const char *party,
			const char *verb, json_t *body)
{
	call_n(a, i, party, verb, body, 60000, 1);
}

static inline bool exists(const char *fmt, const char *a, const char *b)
{
	char path[4096];
	struct stat st;

	(void)snprintf(path, sizeof(path), "%s%s%s", a, fmt, b);
	return !lstat(path, &st);
}

#endif
