// SPDX-License-Identifier: Apache-2.0
/*
 * The socket for rollfs and the tasks of this party.  One thread reads all
 * requests; those about small messages it begins at once (site_small.c), each
 * other has a thread until it is answered (site_ops.c).
 */
#include <endian.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/transfer.h"
#include "transfer/unix_priv.h"

#define EVENTS	  64
#define READ_MOST (8u << 10) /* before it is known how much comes */
#define KEEP	  (64u << 10)
#define IDLE_S	  10 /* a thread that has nothing to do */

static struct {
	struct site *s;
	int fd, epoll;
} listener;

/* ---- connections ------------------------------------------------------- */

void client_unref(struct client *c)
{
	if (__atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL))
		return;
	call_lost(c->s, c->fd);
	if (c->watcher) {
		uint64_t one = 1;

		pthread_mutex_lock(&c->s->lock);
		c->s->watchers--;
		pthread_mutex_unlock(&c->s->lock);
		if (write_all(c->s->nudge, &one, sizeof(one)))
			log_warn("rollsite", "eventfd");
	}
	if (c->passed >= 0)
		close(c->passed);
	close(c->fd);
	json_decref(c->q);
	sb_free(&c->in);
	sb_free(&c->out);
	free(c);
}

/* The request is over: from here on the next one may be read. */
static void request_over(struct client *c)
{
	json_decref(c->q);
	c->q = NULL;
	if (c->passed >= 0)
		close(c->passed);
	c->passed = -1;
	sb_reset(&c->in);
	if (c->in.alloc > KEEP)
		sb_free(&c->in);
	__atomic_store_n(&c->busy, false, __ATOMIC_SEQ_CST);
	if (__atomic_exchange_n(&c->more, false, __ATOMIC_SEQ_CST)) {
		struct epoll_event ev = { .events =
					      EPOLLIN | EPOLLRDHUP | EPOLLET,
					  .data.ptr = c };

		(void)epoll_ctl(listener.epoll, EPOLL_CTL_MOD, c->fd, &ev);
	}
}

void client_answer(struct client *c, const char *head, size_t head_n,
		   const void *body, size_t body_n, int pass_fd)
{
	request_over(c);
	/* There is room: it has read the answer before this one.  Else it
	 * does not keep to one request at a time. */
	if (frame_try(c->fd, head, head_n, body, body_n, pass_fd))
		(void)shutdown(c->fd, SHUT_RDWR);
	client_unref(c);
}

/* ---- requests that have a thread --------------------------------------- */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct client *first, **last;
	unsigned waiting, threads; /* requests; threads without one */
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER,
	   .more = PTHREAD_COND_INITIALIZER,
	   .last = &pool.first };

static void run(struct client *c)
{
	_cleanup_free_ char *text = NULL;
	struct err e = { 0 };
	int r;

	c->out_fd = -1;
	c->answer = json_object();
	sb_reset(&c->out);
	r = client_op(c, &e);
	json_object_set_new(c->answer, "status", json_integer(r));
	if (r)
		json_object_set_new(c->answer, "error", json_string(e.text));
	text = json_text(c->answer, false);
	json_decref(c->answer);
	r = frame_send(c->fd, text, strlen(text), c->out.buf, c->out.len,
		       c->out_fd);
	if (c->out_fd >= 0)
		close(c->out_fd);
	if (r)
		(void)shutdown(c->fd, SHUT_RDWR);
	if (c->out.alloc > KEEP)
		sb_free(&c->out);
	request_over(c);
	client_unref(c);
}

/* lock held; NULL: there has been nothing to do for a while */
static struct client *next_request(void)
{
	struct timespec ts;
	struct client *c;
	int r = 0;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += IDLE_S;
	pool.threads++;
	while (!pool.first && !r)
		r = pthread_cond_timedwait(&pool.more, &pool.lock, &ts);
	pool.threads--;
	c = pool.first;
	if (!c)
		return NULL;
	pool.first = c->next;
	if (!pool.first)
		pool.last = &pool.first;
	pool.waiting--;
	return c;
}

static void *request_thread(void *arg)
{
	struct client *c;

	(void)arg;
	pthread_mutex_lock(&pool.lock);
	while ((c = next_request())) {
		pthread_mutex_unlock(&pool.lock);
		run(c);
		pthread_mutex_lock(&pool.lock);
	}
	pthread_mutex_unlock(&pool.lock);
	return NULL;
}

static void give_thread(struct client *c)
{
	bool more;

	pthread_mutex_lock(&pool.lock);
	c->next = NULL;
	*pool.last = c;
	pool.last = &c->next;
	more = ++pool.waiting > pool.threads;
	pthread_cond_signal(&pool.more);
	pthread_mutex_unlock(&pool.lock);
	if (more)
		site_thread(request_thread, NULL, 256u << 10);
}

/* ---- reading ----------------------------------------------------------- */

/* Bytes that the frame still lacks; 0: it is there; -EPROTO. */
static ssize_t lacks(struct client *c)
{
	uint32_t n[2];
	size_t all;

	if (c->in.len < sizeof(n))
		return READ_MOST;
	memcpy(n, c->in.buf, sizeof(n));
	c->head_n = le32toh(n[0]);
	c->body_n = le32toh(n[1]);
	all = sizeof(n) + c->head_n + c->body_n;
	if (c->head_n > FRAME_HEAD_MAX || c->body_n > FRAME_BODY_MAX ||
	    c->in.len > all) /* one request at a time */
		return -EPROTO;
	c->head = c->in.buf + sizeof(n);
	c->body = c->head + c->head_n;
	return (ssize_t)(all - c->in.len);
}

/* What is there of a request: 1 all of it, 0 not yet, or -errno. */
static int read_request(struct client *c)
{
	for (;;) {
		ssize_t want = lacks(c), n;
		int fd = -1;

		if (want <= 0)
			return want ? (int)want : 1;
		if (sb_reserve(&c->in, (size_t)want))
			return -ENOMEM;
		n = frame_some(c->fd, c->in.buf + c->in.len, (size_t)want, &fd);
		if (fd >= 0) {
			if (c->passed >= 0)
				close(c->passed);
			c->passed = fd;
		}
		if (n == -EAGAIN)
			return 0;
		if (n <= 0)
			return n ? (int)n : -EPIPE;
		c->in.len += (size_t)n;
	}
}

/* false: the connection is of no use any more. */
static bool readable(struct client *c)
{
	int r;

	if (__atomic_load_n(&c->busy, __ATOMIC_SEQ_CST)) {
		__atomic_store_n(&c->more, true, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&c->busy, __ATOMIC_SEQ_CST))
			return true;
	}
	r = read_request(c);
	if (r <= 0)
		return !r;
	__atomic_store_n(&c->busy, true, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&c->refs, 1, __ATOMIC_ACQ_REL);
	if (!client_small(c))
		give_thread(c);
	return true;
}

static void hung_up(struct client *c)
{
	struct site *s = c->s;

	(void)epoll_ctl(listener.epoll, EPOLL_CTL_DEL, c->fd, NULL);
	site_client_gone(s, c->fd);
	pthread_mutex_lock(&s->lock);
	/* Nobody else answers what was parked: its reference is the first. */
	if (site_unpark(s, &c->parked))
		__atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL);
	pthread_mutex_unlock(&s->lock);
	client_unref(c);
}

static bool ours(int fd)
{
	struct ucred u;
	socklen_t n = sizeof(u);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &n) &&
	       (u.uid == geteuid() || u.uid == 0);
}

static void accept_one(struct site *s)
{
	int fd = accept4(listener.fd, NULL, NULL, SOCK_CLOEXEC);
	struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP | EPOLLET };
	struct client *c;

	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE)
			usleep(20000); /* it stays readable: no spinning */
		return;
	}
	if (!ours(fd)) {
		close(fd);
		return;
	}
	c = xcalloc(1, sizeof(*c));
	c->s = s;
	c->fd = fd;
	c->refs = 1;
	c->passed = -1;
	sb_init(&c->in, 8 + FRAME_HEAD_MAX + FRAME_BODY_MAX + READ_MOST);
	sb_init(&c->out, FRAME_BODY_MAX);
	ev.data.ptr = c;
	if (epoll_ctl(listener.epoll, EPOLL_CTL_ADD, fd, &ev))
		client_unref(c);
}

static void *listen_thread(void *arg)
{
	struct site *s = arg;
	struct epoll_event ev[EVENTS];

	for (;;) {
		int n = epoll_wait(listener.epoll, ev, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			struct client *c = ev[i].data.ptr;
			const uint32_t end = EPOLLRDHUP | EPOLLHUP | EPOLLERR;

			if (!c)
				accept_one(s);
			else if (!readable(c) || (ev[i].events & end))
				hung_up(c);
		}
		peers_write(s); /* what came together */
	}
	return NULL;
}

int unix_start(struct site *s, struct err *e)
{
	_cleanup_free_ char *path = transfer_socket_path(s->conf->state);
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct epoll_event ev = { .events = EPOLLIN };
	pthread_t t;

	listener.s = s;
	listener.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)unlink(path);
	/* Bound by its short name: the state directory may be a long one. */
	if (chdir(s->conf->state))
		return err_sys(e, errno, "%s", s->conf->state);
	(void)snprintf(a.sun_path, sizeof(a.sun_path), "rollsite.sock");
	/* The umask keeps others out before chmod does. */
	if (listener.fd < 0 ||
	    bind(listener.fd, (struct sockaddr *)&a, sizeof(a)) ||
	    chmod(a.sun_path, 0600) || listen(listener.fd, 128))
		return err_sys(e, errno, "%s", path);
	listener.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (listener.epoll < 0 ||
	    epoll_ctl(listener.epoll, EPOLL_CTL_ADD, listener.fd, &ev))
		return err_sys(e, errno, "epoll");
	if (pthread_create(&t, NULL, listen_thread, s))
		return err_set(e, EAGAIN, "cannot start a thread");
	pthread_detach(t);
	return 0;
}
