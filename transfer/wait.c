// SPDX-License-Identifier: Apache-2.0
/*
 * Who waits for what: each waiting thread has its own condition, so that only
 * those are woken that have something to do, and nobody looks up by the clock
 * whether the process at the other end of its socket is still there: the
 * thread that listens to the socket hears of that.  Requests about small
 * messages wait without a thread: whoever woke them goes on with them.
 */
#include <poll.h>
#include <time.h>

#include "transfer/transfer_priv.h"

struct waiter {
	struct waiter *next;
	enum wait_for what;
	const char *id;
	int client;
	bool gone, woken;
	pthread_cond_t cond;
};

/* All with s->lock; the first come first. */
static struct waiter *waiters;
static struct parked *parked, **parked_end = &parked;
static struct parked *ready, **ready_end = &ready;
static pthread_condattr_t monotonic;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init(void)
{
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
}

static bool hung_up(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	return fd >= 0 && poll(&p, 1, 0) > 0 &&
	       (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

bool site_wait(struct site *s, enum wait_for what, const char *id, int client,
	       int64_t ms)
{
	struct waiter w = { .what = what, .id = id, .client = client }, **at;
	struct timespec ts;
	int r = 0;

	pthread_once(&once, init);
	if (hung_up(client))
		return false;
	for (at = &waiters; *at; at = &(*at)->next)
		;
	*at = &w;
	pthread_cond_init(&w.cond, &monotonic);
	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += ms / 1000;
	ts.tv_nsec += (long)(ms % 1000) * 1000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	while (!w.woken && !w.gone && !r)
		r = ms ? pthread_cond_timedwait(&w.cond, &s->lock, &ts)
		       : pthread_cond_wait(&w.cond, &s->lock);
	for (at = &waiters; *at != &w; at = &(*at)->next)
		;
	*at = w.next;
	pthread_cond_destroy(&w.cond);
	return !w.gone;
}

/* No longer among the parked ones. */
static void leave(struct parked **at)
{
	struct parked *w = *at;

	*at = w->next;
	if (parked_end == &w->next)
		parked_end = at;
	w->next = NULL;
}

void site_wake(struct site *s, enum wait_for what, const char *id)
{
	(void)s;
	for (struct parked **at = &parked, *w; (w = *at);) {
		if (w->what != what || (id && strcmp(w->id, id) != 0)) {
			at = &w->next;
			continue;
		}
		leave(at);
		*ready_end = w;
		ready_end = &w->next;
	}
	for (struct waiter *w = waiters; w; w = w->next) {
		if (w->what != what || w->woken || w->gone ||
		    (id && strcmp(w->id, id)))
			continue;
		w->woken = true;
		pthread_cond_signal(&w->cond);
		if (what == WAIT_CALL) /* one is enough */
			return;
	}
}

bool site_park(struct site *s, struct parked *w, enum wait_for what,
	       const char *id)
{
	(void)s;
	if (w->gone)
		return false;
	w->what = what;
	w->id = id;
	w->next = NULL;
	*parked_end = w;
	parked_end = &w->next;
	return true;
}

bool site_unpark(struct site *s, struct parked *w)
{
	(void)s;
	w->gone = true;
	for (struct parked **at = &parked; *at; at = &(*at)->next)
		if (*at == w) {
			leave(at);
			return true;
		}
	return false;
}

struct parked *site_ready(struct site *s)
{
	struct parked *list = ready;

	(void)s;
	ready = NULL;
	ready_end = &ready;
	return list;
}

void site_client_gone(struct site *s, int client)
{
	pthread_mutex_lock(&s->lock);
	for (struct waiter *w = waiters; w; w = w->next)
		if (w->client == client) {
			w->gone = true;
			pthread_cond_signal(&w->cond);
		}
	pthread_mutex_unlock(&s->lock);
}
