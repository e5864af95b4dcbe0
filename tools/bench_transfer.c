// SPDX-License-Identifier: Apache-2.0
/*
 * Speed of two rollsites on this machine, certificates and files and all: a
 * small message there and back, many of 1 KiB one way, a large one, a call.
 * Against a byte stream over a plain TCP connection of the same loopback, and
 * against an append to a file with fdatasync for each: what a durable message
 * costs at least when none shares a flush with another.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>

#include "lib/fileio.h"

#include "transfer/channel.h"
#include "transfer/transfer.h"

#define ROUNDS 2000
#define CALLS  2000
#define LARGE  (64u << 20)
#define PIECES 4
#define SMALL  1024 /* bytes of a message of a stream of them */
#define STREAM 8000 /* messages of one such stream, all threads together */
#define SYNCS  1000
#define LANES  4
#define JOB    "20261123120000000001"

static char dir[] = "/tmp/rollfs-bench-transfer-XXXXXX";
static struct conf *conf[2];
static struct transfer *site[2];
static const struct channel_peer peer[2] = { { "guest", "1" },
					     { "host", "2" } };

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void must(int r, const struct err *e)
{
	if (r) {
		(void)fprintf(stderr, "bench_transfer: %s\n", e->text);
		exit(1);
	}
}

/* ---- the yardstick ------------------------------------------------------ */

static int listener(uint16_t *ret_port)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	socklen_t n = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || bind(fd, (void *)&a, sizeof(a)) || listen(fd, 1) ||
	    getsockname(fd, (void *)&a, &n)) {
		perror("bench_transfer: socket");
		exit(1);
	}
	*ret_port = ntohs(a.sin_port);
	return fd;
}

static void *tcp_echo(void *arg)
{
	int fd = accept4(*(int *)arg, NULL, NULL, SOCK_CLOEXEC), one = 1;
	char *piece = xmalloc(1u << 20);

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	for (int i = 0; i < ROUNDS; i++)
		if (read_all(fd, piece, 100) || write_all(fd, piece, 100))
			break;
	for (unsigned at = 0; at < LARGE; at += 1u << 20)
		if (read_all(fd, piece, 1u << 20))
			break;
	(void)!write(fd, piece, 1);
	close(fd);
	free(piece);
	return NULL;
}

static void tcp(double *ret_round, double *ret_large)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	char *piece = xcalloc(1, 1u << 20);
	uint16_t port;
	int in = listener(&port), fd, one = 1;
	pthread_t t;
	double start;

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	a.sin_port = htons(port);
	pthread_create(&t, NULL, tcp_echo, &in);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (void *)&a, sizeof(a)))
		exit(1);
	start = now();
	for (int i = 0; i < ROUNDS; i++)
		if (write_all(fd, piece, 100) || read_all(fd, piece, 100))
			exit(1);
	*ret_round = (now() - start) / ROUNDS;
	start = now();
	for (unsigned at = 0; at < LARGE; at += 1u << 20)
		if (write_all(fd, piece, 1u << 20))
			exit(1);
	if (read_all(fd, piece, 1))
		exit(1);
	*ret_large = now() - start;
	pthread_join(t, NULL);
	close(fd);
	close(in);
	free(piece);
}

static double fsyncs(void)
{
	_cleanup_free_ char *path = xasprintf("%s/appended", dir);
	static const char text[SMALL];
	_cleanup_close_ int fd =
	    open(path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
	double start = now();

	for (int i = 0; i < SYNCS; i++)
		if (fd < 0 || write_all(fd, text, SMALL) || fdatasync(fd)) {
			perror("bench_transfer: append");
			exit(1);
		}
	return (now() - start) / SYNCS;
}

/* ---- two parties -------------------------------------------------------- */

static void run(const char *line)
{
	if (system(line)) { /* NOLINT: fixed words */
		(void)fprintf(stderr, "bench_transfer: %s failed\n", line);
		exit(1);
	}
}

static void on_call(void *arg, struct transfer_call *call, const char *party,
		    const char *verb, json_t *body)
{
	(void)party;
	(void)verb;
	transfer_answer(*(struct transfer **)arg, call, 0, body, NULL);
}

static void parties_up(void)
{
	char program[4096], line[5000];
	uint16_t port[2];
	int fd[2];
	struct err e = { 0 };
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 20);

	if (n < 0 || !mkdtemp(dir))
		exit(1);
	program[n] = '\0';
	*strrchr(program, '/') = '\0'; /* build/V/tools/bench_transfer */
	*strrchr(program, '/') = '\0';
	memcpy(program + strlen(program), "/rollsite", 10);
	(void)snprintf(line, sizeof(line),
		       "tools/rollfs-pki ca %s bench && "
		       "tools/rollfs-pki party %s bench 1 && "
		       "tools/rollfs-pki party %s bench 2",
		       dir, dir, dir);
	run(line);
	for (int i = 0; i < 2; i++)
		fd[i] = listener(&port[i]);
	for (int i = 0; i < 2; i++) {
		_cleanup_free_ char *path = xasprintf("%s/%d.conf", dir, i + 1);
		_cleanup_free_ char *text = xasprintf(
		    "[rollfs]\nparty = %d\nfederation = bench\n"
		    "state = %s/s%d\nlisten = 127.0.0.1:%u\n"
		    "certificate = %d.pem\nkey = %d.key\nca = ca.pem\n"
		    "[party %d]\nurl = https://127.0.0.1:%u\n",
		    i + 1, dir, i + 1, port[i], i + 1, i + 1, 2 - i,
		    port[1 - i]);

		close(fd[i]);
		must(file_replace(path, text, strlen(text), 0600, false, &e),
		     &e);
		must(conf_load(path, &conf[i], &e), &e);
		must(mkdir_p(conf[i]->state, 0700, &e), &e);
		must(transfer_start(conf[i], program, &site[i], &e), &e);
		transfer_serve(site[i], on_call, &site[i]);
	}
}

static struct channel *channel(int i)
{
	_cleanup_free_ char *sock = transfer_socket_path(conf[i]->state);
	json_t *roles = json_pack("{s:[s], s:[s]}", "guest", "1", "host", "2");
	struct channel_options o = { .socket = sock,
				     .session = JOB "_bench_0",
				     .self = peer[i] };
	struct channel *c = NULL;
	struct err e = { 0 };

	must(transfer_job_open(site[i], JOB, roles, &e), &e);
	must(channel_open(&o, &c, &e), &e);
	json_decref(roles);
	return c;
}

static void get(struct channel *c, int from, const char *name, int tag)
{
	struct err e = { 0 };
	void *data = NULL;
	char t[20];
	size_t n;

	(void)snprintf(t, sizeof(t), "%d", tag);
	must(channel_recv(c, peer[from], name, t, LARGE, &data, &n, &e), &e);
	free(data);
}

static void put(struct channel *c, int to, const char *name, int tag,
		const void *data, size_t n)
{
	struct err e = { 0 };
	char t[20];

	(void)snprintf(t, sizeof(t), "%d", tag);
	must(channel_send(c, peer[to], name, t, data, n, &e), &e);
}

static void *partner(void *arg)
{
	static const char text[100];

	for (int i = 0; i < ROUNDS; i++) {
		get(arg, 0, "there", i);
		put(arg, 0, "back", i, text, sizeof(text));
	}
	for (int i = 0; i < PIECES; i++) {
		get(arg, 0, "large", i);
		put(arg, 0, "taken", i, text, 1);
	}
	return NULL;
}

/* Messages one way: each lane is a sender with a channel of its own and a
 * receiver that takes them in their order. */
struct lane {
	struct channel *c[2];
	char name[20];
	int n;
	double sent; /* when the last one was handed over */
};

static void *lane_send(void *arg)
{
	struct lane *l = arg;
	char text[SMALL];

	memset(text, 2, sizeof(text));
	for (int i = 0; i < l->n; i++)
		put(l->c[0], 1, l->name, i, text, sizeof(text));
	l->sent = now();
	return NULL;
}

static void *lane_receive(void *arg)
{
	struct lane *l = arg;

	for (int i = 0; i < l->n; i++)
		get(l->c[1], 0, l->name, i);
	return NULL;
}

static void stream(int lanes, double *ret_rate, double *ret_taken)
{
	int all;
	struct lane lane[LANES];
	pthread_t t[2 * LANES];
	double start, sent = 0;

	for (int i = 0; i < lanes; i++) {
		for (int side = 0; side < 2; side++)
			lane[i].c[side] = channel(side);
		(void)snprintf(lane[i].name, sizeof(lane[i].name), "s%d_%d",
			       lanes, i);
		lane[i].n = STREAM / lanes;
	}
	start = now();
	for (int i = 0; i < lanes; i++) {
		pthread_create(&t[i], NULL, lane_send, &lane[i]);
		pthread_create(&t[LANES + i], NULL, lane_receive, &lane[i]);
	}
	for (int i = 0; i < lanes; i++) {
		pthread_join(t[i], NULL);
		pthread_join(t[LANES + i], NULL);
		if (lane[i].sent > sent)
			sent = lane[i].sent;
	}
	all = lanes * (STREAM / lanes);
	*ret_rate = all / (now() - start);
	*ret_taken = all / (sent - start);
	for (int i = 0; i < lanes; i++)
		for (int side = 0; side < 2; side++)
			channel_close(lane[i].c[side]);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct counter {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int done;
};

static void on_answer(void *arg, int status, json_t *body, const struct err *e)
{
	struct counter *c = arg;

	(void)body;
	must(status, e);
	pthread_mutex_lock(&c->lock);
	c->done++;
	pthread_cond_signal(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

static double calls(void)
{
	struct counter c = { .lock = PTHREAD_MUTEX_INITIALIZER,
			     .cond = PTHREAD_COND_INITIALIZER };
	json_t *body = json_pack("{s:i}", "x", 1);
	double start = now();

	for (int i = 0; i < CALLS; i++) {
		transfer_rpc(site[0], "2", "bench", body, 10000, on_answer, &c);
		pthread_mutex_lock(&c.lock);
		while (c.done <= i)
			pthread_cond_wait(&c.cond, &c.lock);
		pthread_mutex_unlock(&c.lock);
	}
	json_decref(body);
	return (now() - start) / CALLS;
}

int main(void)
{
	static const int width[] = { 1, LANES };
	double tcp_round, tcp_large, round, large, call, append;
	double each[ROUNDS], rate[2], taken[2];
	static const char text[100];
	char *big = xmalloc(LARGE);
	struct channel *a, *b;
	pthread_t t;
	double start;

	tcp(&tcp_round, &tcp_large);
	parties_up();
	append = fsyncs();
	a = channel(0);
	b = channel(1);
	memset(big, 1, LARGE);
	pthread_create(&t, NULL, partner, b);
	start = now();
	for (int i = 0; i < ROUNDS; i++) {
		each[i] = now();
		put(a, 1, "there", i, text, sizeof(text));
		get(a, 1, "back", i);
		each[i] = now() - each[i];
	}
	round = (now() - start) / ROUNDS;
	qsort(each, ROUNDS, sizeof(*each), by_value);
	start = now();
	for (int i = 0; i < PIECES; i++) {
		put(a, 1, "large", i, big, LARGE);
		get(a, 1, "taken", i);
	}
	large = (now() - start) / PIECES;
	pthread_join(t, NULL);
	call = calls();
	for (int i = 0; i < 2; i++)
		stream(width[i], &rate[i], &taken[i]);
	printf("transfer append and fdatasync\t%.1f\tus\t\t\n", append * 1e6);
	printf("transfer round trips\t%.0f\t1/s\t%.4f\tplain TCP round trip\n",
	       1 / round, tcp_round / round);
	printf("transfer round trip median\t%.1f\tus\t%.4f\t"
	       "append and fdatasync\n",
	       each[ROUNDS / 2] * 1e6, append / each[ROUNDS / 2]);
	printf("transfer round trip p99\t%.1f\tus\t%.4f\t"
	       "append and fdatasync\n",
	       each[ROUNDS * 99 / 100] * 1e6, append / each[ROUNDS * 99 / 100]);
	for (int i = 0; i < 2; i++) {
		printf("transfer 1 KiB messages of %d\t%.0f\t1/s\t%.4f\t"
		       "append and fdatasync\n",
		       width[i], rate[i], rate[i] * append);
		printf("transfer 1 KiB taken over of %d\t%.0f\t1/s\t%.4f\t"
		       "append and fdatasync\n",
		       width[i], taken[i], taken[i] * append);
	}
	printf("transfer large message\t%.1f\tMB/s\t%.4f\tplain TCP stream\n",
	       LARGE / large / 1e6, tcp_large / large);
	printf("transfer call\t%.1f\tus\t%.4f\tplain TCP round trip\n",
	       call * 1e6, tcp_round / call);
	channel_close(a);
	channel_close(b);
	for (int i = 0; i < 2; i++) {
		transfer_stop(site[i]);
		(void)transfer_free(site[i]);
		conf_free(conf[i]);
	}
	free(big);
	return remove_tree(dir, NULL) ? 1 : 0;
}
