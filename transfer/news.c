// SPDX-License-Identifier: Apache-2.0
/* News of files that are being written, told by one thread that starts with
 * the first. */
#include "transfer/news.h"

#include <pthread.h>
#include <time.h>

#include "lib/log.h"

#include "transfer/transfer_priv.h"

/* Files being written at once beyond which only what must be told is. */
#define NEWS_MAX  1024
#define NEWS_MUST 65536

struct news {
	struct news *next;
	char *party, *path, *spool; /* path NULL: it will not come */
	uint64_t bytes;
	bool rewritten;
};

struct news_queue {
	news_tell tell;
	void *arg;
	pthread_mutex_t lock; /* guards what is below */
	pthread_cond_t wake, told;
	struct news *first;	    /* at most one of each spool file */
	const struct news *telling; /* taken off, under way */
	bool thread, stopping;
	pthread_t id; /* of the thread */
};

static void pause_ms(unsigned ms)
{
	struct timespec ts = { .tv_nsec = (long)ms * 1000000 };

	nanosleep(&ts, NULL);
}

static void one_free(struct news *n)
{
	if (!n)
		return;
	free(n->party);
	free(n->path);
	free(n->spool);
	free(n);
}

/* Without it rollsite would be wrong, not only slower. */
static bool must_tell(const struct news *n)
{
	return !n->path || n->rewritten;
}

/* With the lock: the place of a spool file's news, or where a new one goes. */
static struct news **find(struct news_queue *q, const char *spool,
			  size_t *ret_before)
{
	struct news **p;

	*ret_before = 0;
	for (p = &q->first; *p && strcmp((*p)->spool, spool); p = &(*p)->next)
		++*ret_before;
	return p;
}

/* The newer takes in the older: nothing from the lowest byte that was
 * rewritten on is as announced. */
static void merge(struct news *newer, const struct news *older)
{
	if (older->rewritten)
		newer->bytes = MIN(newer->bytes, older->bytes);
	newer->rewritten |= older->rewritten;
}

static bool tell(struct news_queue *q, const struct news *n)
{
	json_t *head;

	if (n->path)
		head = json_pack(
		    "{s:s, s:s, s:s, s:s, s:I, s:b}", "op", "file_stream",
		    "party", n->party, "path", n->path, "spool", n->spool,
		    "bytes", (json_int_t)n->bytes, "rewritten", n->rewritten);
	else
		head = json_pack("{s:s, s:s, s:s}", "op", "file_drop", "party",
				 n->party, "spool", n->spool);
	return q->tell(q->arg, head);
}

/* With the lock: what was not heard waits again, or goes into what came
 * meanwhile. */
static void tell_again(struct news_queue *q, struct news *n)
{
	size_t before;
	struct news *later = *find(q, n->spool, &before);

	if (later) {
		merge(later, n);
		one_free(n);
	} else {
		n->next = q->first;
		q->first = n;
	}
}

static void *teller(void *arg)
{
	struct news_queue *q = arg;

	pthread_mutex_lock(&q->lock);
	while (!q->stopping) {
		struct news *n = q->first;
		bool heard;

		if (!n) {
			pthread_cond_wait(&q->wake, &q->lock);
			continue;
		}
		q->first = n->next;
		q->telling = n;
		pthread_mutex_unlock(&q->lock);
		heard = tell(q, n);
		pthread_mutex_lock(&q->lock);
		q->telling = NULL;
		pthread_cond_broadcast(&q->told);
		if (!heard && must_tell(n)) {
			tell_again(q, n);
			pthread_mutex_unlock(&q->lock);
			pause_ms(20);
			pthread_mutex_lock(&q->lock);
		} else {
			one_free(n);
		}
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

/* With the lock. */
static void start(struct news_queue *q)
{
	pthread_attr_t a;

	if (q->thread)
		return;
	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 512u << 10);
	q->thread = !pthread_create(&q->id, &a, teller, q);
	if (!q->thread)
		log_error("transfer", "cannot start a thread");
	pthread_attr_destroy(&a);
}

void news_add(struct news_queue *q, const char *party, const char *path,
	      const char *spool, uint64_t bytes, bool rewritten)
{
	struct news *n = xcalloc(1, sizeof(*n)), **p, *old;
	size_t before;

	n->party = xstrdup(party);
	n->path = path ? xstrdup(path) : NULL;
	n->spool = xstrdup(spool);
	n->bytes = bytes;
	n->rewritten = rewritten;
	pthread_mutex_lock(&q->lock);
	p = find(q, spool, &before);
	old = *p;
	if (q->stopping ||
	    (!old && before >= (must_tell(n) ? NEWS_MUST : NEWS_MAX))) {
		old = n;
	} else {
		if (old) {
			merge(n, old);
			n->next = old->next;
		}
		*p = n;
		start(q);
		pthread_cond_signal(&q->wake);
	}
	pthread_mutex_unlock(&q->lock);
	one_free(old);
}

int news_end(struct news_queue *q, const char *spool, struct err *e)
{
	struct news **p, *n;
	size_t before;
	bool heard;

	pthread_mutex_lock(&q->lock);
	while (q->telling && !strcmp(q->telling->spool, spool))
		pthread_cond_wait(&q->told, &q->lock);
	p = find(q, spool, &before);
	n = *p;
	if (n)
		*p = n->next;
	pthread_mutex_unlock(&q->lock);
	heard = !n || !must_tell(n) || tell(q, n);
	one_free(n);
	return heard ? 0
		     : err_set(e, EHOSTUNREACH,
			       "rollsite of this party is not running");
}

struct news_queue *news_open(news_tell fn, void *arg)
{
	struct news_queue *q = xcalloc(1, sizeof(*q));

	q->tell = fn;
	q->arg = arg;
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->wake, NULL);
	pthread_cond_init(&q->told, NULL);
	return q;
}

void news_stop(struct news_queue *q)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec++;
	pthread_mutex_lock(&q->lock);
	while ((q->first || q->telling) &&
	       pthread_cond_timedwait(&q->told, &q->lock, &until) != ETIMEDOUT)
		;
	q->stopping = true;
	pthread_cond_broadcast(&q->wake);
	pthread_mutex_unlock(&q->lock);
}

void news_free(struct news_queue *q)
{
	news_stop(q);
	if (q->thread)
		pthread_join(q->id, NULL);
	while (q->first) {
		struct news *n = q->first;

		q->first = n->next;
		one_free(n);
	}
	pthread_mutex_destroy(&q->lock);
	pthread_cond_destroy(&q->wake);
	pthread_cond_destroy(&q->told);
	free(q);
}
