// SPDX-License-Identifier: Apache-2.0
/*
 * Messages of tasks that wait for a party: small ones, in a queue with its own
 * workers (for large ones see site_large.c).  A small message is in the journal
 * STATE/transfer/out/<party>/log, written and synced in groups, before its task
 * goes on; the workers do not wait for the sync.
 */
#include <limits.h>
#include <time.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/transfer_priv.h"

/* The analyzer takes what is put into a table of uthash for lost. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

#define WORKERS	    3
#define BATCH_COUNT 256
/* Fewer than that wait a little after the batch before them, and longer while
 * it is under way: batches grow with the load. */
#define BATCH_SMALL   64
#define BATCH_US      1000
#define BATCH_LATE_US 2000
#define FOREVER_US    3600000000
#define DISK_US	      500 /* at most, for more to come along to the disk */
#define LOG_KEEP      (1u << 20)
#define QUEUE_BYTES   (64u << 20) /* in memory; who sends more waits */
#define DAMAGED_MAX   5
#define TIMEOUT_MS    60000

struct out_message {
	UT_hash_handle hh;
	char tid[65];
	struct message_head head;
	char *bytes; /* head and payload */
	size_t n;
	unsigned damaged;
	bool busy, dead;
	/* Not in the journal yet: the next such one, and who sends it. */
	struct out_message *next_unwritten;
	struct parked *from;
};

/* ---- small messages ---------------------------------------------------- */

static void message_free(struct out_message *o)
{
	free(o->bytes);
	free(o);
}

/* lock held */
static void unqueue(struct peer *p, struct out_message *o)
{
	HASH_DEL(p->queue, o);
	p->queued_bytes -= o->n;
	p->unsent -= !o->busy;
	message_free(o);
}

/* lock held: nothing in the journal matters when nothing waits */
void message_log_clear(struct peer *p)
{
	if (!p->queue && !p->large && journal_bytes(p->log) > LOG_KEEP &&
	    !out_messages_locked(p))
		journal_again(p->log);
}

/* lock held: done, or of no use any more */
static void drop(struct peer *p, struct out_message *o)
{
	if (journal_mark(p->log, o->tid))
		log_warn("rollsite", "cannot write to %s", p->dir);
	unqueue(p, o);
	message_log_clear(p);
}

struct batch {
	struct out_message *m[BATCH_COUNT];
	size_t n;
	struct strbuf body;
};

/* lock held: as many as fit, in their order */
static void gather(struct peer *p, struct batch *b)
{
	struct out_message *o, *tmp;

	b->n = 0;
	sb_reset(&b->body);
	HASH_ITER (hh, p->queue, o, tmp) {
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		if (o->busy)
			continue;
		if (b->n == BATCH_COUNT || b->body.len + o->n > BATCH_MAX)
			break;
		o->busy = true;
		p->unsent--;
		b->m[b->n++] = o;
		(void)sb_add(&b->body, o->bytes, o->n);
	}
}

/* lock held: messages wait for the partner's disk, and `ping` says so */
static void messages_wait(struct peer *p)
{
	free(p->message_trouble);
	p->message_trouble = xstrdup("it has no disk for messages of jobs");
	p->message_failed_ms = now_mono_ms();
}

/* What the partner's answer means for one message; lock held.  Gives the
 * sentence when its session fails. */
static const char *settle_one(struct peer *p, struct out_message *o, int status)
{
	o->busy = false;
	p->unsent++;
	if (status >= 0) {
		p->count.messages_out++;
		p->count.message_bytes_out += o->head.size;
		drop(p, o);
		return NULL;
	}
	if (o->dead) {
		drop(p, o);
		return NULL;
	}
	if ((status == -EBADMSG && ++o->damaged < DAMAGED_MAX) ||
	    status == -ENOSPC || status == -EIO || status == -EAGAIN) {
		p->count.retries++;
		p->message_after = now_mono_ms() + backoff_ms(2, 20, 2000);
		if (status == -ENOSPC || status == -EIO)
			messages_wait(p);
		return NULL;
	}
	return status == -EEXIST   ? "other content under the same name"
	       : status == -EACCES ? "not allowed, or the job has ended there"
				   : "malformed or damaged";
}

static void settle(struct peer *p, struct batch *b, int r, unsigned code,
		   const json_t *results)
{
	struct site *s = p->s;

	pthread_mutex_lock(&s->lock);
	if (!r && code == 200 && json_array_size(results) == b->n) {
		p->message_failures = 0;
		free(TAKE_PTR(p->message_trouble));
	} else {
		int status = r ? -EAGAIN : http_to_status((long)code);

		results = NULL;
		if (status == -ENOSPC)
			messages_wait(p);
		if (status == -EINVAL || status == -EFBIG)
			status = -EINVAL;
		else
			status = -EAGAIN;
		p->message_after =
		    now_mono_ms() + backoff_ms(p->message_failures++, 20, 2000);
		p->count.retries++;
		for (size_t i = 0; i < b->n && status == -EAGAIN; i++) {
			b->m[i]->busy = false;
			p->unsent++;
			if (b->m[i]->dead)
				drop(p, b->m[i]);
		}
		if (status == -EAGAIN)
			b->n = 0;
	}
	for (size_t i = 0; i < b->n; i++) {
		struct out_message *o = b->m[i];
		char session[KEY_FIELD_MAX + 1], text[300];
		int status =
		    results
			? (int)json_integer_value(json_array_get(results, i))
			: -EINVAL;
		const char *why;

		memcpy(session, o->head.key.f[KEY_SESSION], sizeof(session));
		why = settle_one(p, o, status);
		if (!why)
			continue;
		drop(p, o);
		(void)snprintf(text, sizeof(text),
			       "party %s refused a message (%s)", p->id, why);
		pthread_mutex_unlock(&s->lock);
		site_session_fail(s, session, status, text);
		pthread_mutex_lock(&s->lock);
	}
	if (!p->queue && journal_raw(p->log, "", 0)) /* its marks */
		log_warn("rollsite", "cannot write to %s", p->dir);
	site_wake(s, WAIT_ROOM, p->id);
	pthread_mutex_unlock(&s->lock);
	clients_ready(s);
}

static void send_batch(struct peer *p, struct batch *b)
{
	struct wire_request q = { .method = "POST",
				  .target = (char *)"/v1/messages",
				  .timeout_ms = TIMEOUT_MS,
				  .body = b->body.buf,
				  .n = b->body.len };
	struct wire_answer a = { 0 };
	json_t *doc = NULL;
	struct err e = { 0 };
	int r;

	sb_init(&a.body, 64u << 10);
	hook_wire("messages", b->body.buf, b->body.len);
	r = route_exchange(p, &q, &a, &e);
	if (!r && a.code == 200)
		doc = json_parse(a.body.buf, a.body.len, NULL);
	settle(p, b, r, a.code, json_object_get(doc, "results"));
	json_decref(doc);
	sb_free(&a.body);
}

static int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* lock held: how long the next batch waits, -1: until it is told. */
static int64_t batch_wait_us(const struct peer *p)
{
	int64_t wait = (p->message_after - now_mono_ms()) * 1000;

	if (!p->unsent)
		return -1;
	/* What gathers behind a batch is the next one; who sends one at a
	 * time, and waits for what comes back, is not held up by that. */
	if (p->unsent < BATCH_SMALL && (p->posts || p->posted > 1))
		wait = MAX(wait, p->posted_us - now_us() +
				     (p->posts ? BATCH_LATE_US : BATCH_US));
	return MAX(wait, 0);
}

/* lock held: a message more is there to be sent */
static void batch_more(struct peer *p)
{
	if (!p->watched || !batch_wait_us(p))
		pthread_cond_signal(&p->message);
}

static void sleep_us(struct peer *p, pthread_cond_t *c, int64_t us)
{
	int64_t at = now_us() + us;
	struct timespec ts = { at / 1000000, at % 1000000 * 1000 };

	pthread_cond_timedwait(c, &p->s->lock, &ts);
}

static void *message_worker(void *arg)
{
	struct peer *p = arg;
	struct site *s = p->s;
	struct batch *b = xcalloc(1, sizeof(*b));

	sb_init(&b->body, BATCH_MAX + HEAD_MAX + 4);
	pthread_mutex_lock(&s->lock);
	for (;;) {
		int64_t wait = batch_wait_us(p);

		if (wait) {
			bool watch = wait > 0 && !p->watched;

			/* One is enough to look at the clock. */
			p->watched |= watch;
			sleep_us(p, &p->message, watch ? wait : FOREVER_US);
			p->watched &= !watch;
			continue;
		}
		gather(p, b);
		p->posted = b->n;
		p->posts++;
		p->posted_us = now_us();
		pthread_mutex_unlock(&s->lock);
		send_batch(p, b);
		b->n = 0;
		if (b->body.alloc > JOURNAL_MESSAGE_MAX)
			sb_free(&b->body);
		pthread_mutex_lock(&s->lock);
		p->posts--;
	}
	return NULL;
}

/* lock held; 0 new, 1: it is on its way already, -EEXIST: with other content */
static int known(struct peer *p, const struct message_head *h)
{
	const struct out_message *o = NULL;

	HASH_FIND_STR(p->queue, h->tid, o);
	return !o ? 0 : strcmp(o->head.sha256, h->sha256) ? -EEXIST : 1;
}

/* lock held */
static struct out_message *enqueue(struct peer *p, const struct message_head *h,
				   const void *data)
{
	char head[1 + HEAD_TEXT_MAX] = "{";
	size_t n = 1 + head_put(head + 1, h);
	struct strbuf sb = STRBUF_INIT(JOURNAL_MESSAGE_MAX + HEAD_MAX + 4);
	struct out_message *o;

	if (sb_reserve(&sb, 4 + n + (size_t)h->size) ||
	    sb_add_u32(&sb, (uint32_t)n) || sb_add(&sb, head, n) ||
	    sb_add(&sb, data, (size_t)h->size)) {
		sb_free(&sb);
		return NULL;
	}
	o = xcalloc(1, sizeof(*o));
	o->head = *h;
	memcpy(o->tid, h->tid, sizeof(o->tid));
	o->n = sb.len;
	o->bytes = sb_detach(&sb);
	HASH_ADD_STR(p->queue, tid, o);
	p->queued_bytes += o->n;
	p->unsent++;
	return o;
}

/* lock held: w waits for the disk */
static void wait_for_disk(struct peer *p, struct parked *w)
{
	w->next = p->unsynced;
	p->unsynced = w;
	if (++p->n_unsynced >= p->disk_wants)
		pthread_cond_signal(&p->disk);
}

/* lock held: those that came together, in one write; what it cannot write has
 * never been there. */
static void write_records(struct peer *p, struct parked **failed, int *ret)
{
	struct out_message *o, *next;
	int r = journal_raw(p->log, p->records.buf, p->records.len);

	sb_reset(&p->records);
	if (p->records.alloc > BATCH_MAX)
		sb_free(&p->records);
	for (o = TAKE_PTR(p->unwritten); o; o = next) {
		struct parked *w = TAKE_PTR(o->from);

		next = o->next_unwritten;
		if (r) {
			w->next = *failed;
			*failed = w;
		} else {
			wait_for_disk(p, w);
		}
		o->busy = false;
		p->unsent++;
		if (r)
			unqueue(p, o);
		else if (o->dead)
			drop(p, o);
	}
	if (r)
		*ret = r;
	if (p->unsent)
		batch_more(p);
}

static void done_all(struct parked *w, int r)
{
	struct err e = { 0 };
	struct parked *next;

	if (r)
		err_sys(&e, -r, "message");
	for (; w; w = next) {
		next = w->next;
		w->done(w, r, e.text);
	}
}

void peers_write(struct site *s)
{
	struct parked *failed = NULL;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	for (struct peer *p = s->peers; p; p = p->next)
		if (p->unwritten)
			write_records(p, &failed, &r);
	pthread_mutex_unlock(&s->lock);
	done_all(failed, r);
}

/* lock held: until there is something to sync.  Whoever was answered just now
 * soon comes again: together they need one sync where they would take turns,
 * each waiting for the other's.  So for a part of what a sync takes, as many
 * are waited for as there were. */
static void gather_for_disk(struct peer *p, unsigned expected, int64_t patience)
{
	int64_t until, left;

	p->disk_wants = 1;
	while (!p->unsynced)
		pthread_cond_wait(&p->disk, &p->s->lock);
	p->disk_wants = expected;
	until = now_us() + patience;
	while (p->n_unsynced < expected && (left = until - now_us()) > 0)
		sleep_us(p, &p->disk, left);
}

/* What is written goes to the disk, all of it at a time, and whoever waits for
 * that is answered here: none of them needs a thread. */
static void *disk_worker(void *arg)
{
	struct peer *p = arg;
	struct site *s = p->s;
	unsigned expected = 1;
	int64_t took = 0;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		struct parked *w;
		int64_t began;
		uint64_t upto;
		int r;

		gather_for_disk(p, expected, MIN(took / 2, DISK_US));
		w = TAKE_PTR(p->unsynced);
		expected = p->n_unsynced;
		p->n_unsynced = 0;
		upto = journal_len(p->log);
		pthread_mutex_unlock(&s->lock);
		began = now_us();
		r = journal_sync(p->log, upto);
		took = now_us() - began;
		pthread_mutex_lock(&s->lock);
		expected += p->n_unsynced;
		p->disk_wants = UINT_MAX; /* nobody sleeps */
		pthread_mutex_unlock(&s->lock);
		done_all(w, r);
		pthread_mutex_lock(&s->lock);
	}
	return NULL;
}

/* lock held */
static int take_over(struct peer *p, const struct message_head *h,
		     const void *data, struct parked *w, struct err *e)
{
	struct out_message *o;
	int r;

	if (p->queued_bytes > QUEUE_BYTES &&
	    site_session_open_locked(p->s, h->key.f[KEY_SESSION]))
		return site_park(p->s, w, WAIT_ROOM, p->id) ? -EAGAIN : -EPIPE;
	r = known(p, h);
	if (r < 0)
		return err_set(e, EEXIST,
			       "the same message with other content");
	if (r) { /* it is on its way already; is it on the disk? */
		wait_for_disk(p, w);
		return 0;
	}
	o = enqueue(p, h, data);
	if (!o || sb_add(&p->records, o->bytes, o->n)) {
		if (o)
			unqueue(p, o);
		return err_set(e, EMSGSIZE, "message");
	}
	o->busy = true; /* until it is written */
	p->unsent--;
	o->from = w;
	o->next_unwritten = p->unwritten;
	p->unwritten = o;
	return 0;
}

int peer_send(struct site *s, const struct message_head *h, const void *data,
	      struct parked *w, struct err *e)
{
	struct peer *p = peer_get(s, h->key.f[KEY_DST_PARTY]);
	const struct out_message *o = NULL;
	int r;

	if (!p)
		return err_set(e, EHOSTUNREACH, "no party %s is configured",
			       h->key.f[KEY_DST_PARTY]);
	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(p->queue, h->tid, o);
	if (o && o->from) { /* the same at the same time: one by one */
		pthread_mutex_unlock(&s->lock);
		peers_write(s);
		pthread_mutex_lock(&s->lock);
	}
	r = take_over(p, h, data, w, e);
	pthread_mutex_unlock(&s->lock);
	return r;
}

/* ---- ends -------------------------------------------------------------- */

bool session_is_of(const char *its, const char *job, const char *session)
{
	char of[41];

	return session ? !strcmp(its, session)
		       : job && session_job(its, of, sizeof(of)) &&
			     !strcmp(of, job);
}

static void forget(struct site *s, const char *job, const char *session)
{
	pthread_mutex_lock(&s->lock);
	for (struct peer *p = s->peers; p; p = p->next) {
		struct out_message *o, *tmp;

		HASH_ITER (hh, p->queue, o, tmp) {
			/* cppcheck-suppress uninitvar; HASH_ITER */
			if (!session_is_of(o->head.key.f[KEY_SESSION], job,
					   session))
				continue;
			if (o->busy)
				o->dead = true;
			else
				drop(p, o);
		}
	}
	for (struct peer *p = s->peers; p; p = p->next)
		if (!p->queue && !p->large && !out_messages_locked(p))
			journal_clear(p->log); /* nothing of it stays */
	large_forget_locked(job, session);
	site_wake(s, WAIT_ROOM, NULL);
	pthread_mutex_unlock(&s->lock);
	clients_ready(s);
}

void peer_forget_job(struct site *s, const char *job)
{
	forget(s, job, NULL);
}

void peer_forget_session(struct site *s, const char *session)
{
	forget(s, NULL, session);
}

/* ---- start ------------------------------------------------------------- */

struct message_replay {
	struct peer *p;
	struct message_head *large; /* files that are to be sent on */
	size_t n_large;
};

/* lock held */
static void on_record(void *arg, const struct message_head *h, const char *tid,
		      const char *data)
{
	struct message_replay *x = arg;
	struct peer *p = x->p;
	struct out_message *o = NULL;

	HASH_FIND_STR(p->queue, tid, o);
	if (!h && o) {
		unqueue(p, o);
	} else if (!h) {
		for (size_t i = x->n_large; i-- > 0;)
			if (!strcmp(x->large[i].tid, tid))
				x->large[i] = x->large[--x->n_large];
	} else if (h->file) {
		x->large =
		    xrealloc(x->large, (x->n_large + 1) * sizeof(*x->large));
		x->large[x->n_large++] = *h;
	} else if (!o) {
		(void)enqueue(p, h, data);
	}
}

/* lock held; messages of jobs that ended while rollsite was away */
static void drop_closed(struct peer *p)
{
	struct out_message *o, *tmp;

	HASH_ITER (hh, p->queue, o, tmp) {
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		if (!site_session_open_locked(p->s, o->head.key.f[KEY_SESSION]))
			drop(p, o);
	}
}

int message_open(struct peer *p, struct message_replay **ret, struct err *e)
{
	_cleanup_free_ char *log = xasprintf("%s/log", p->dir);
	struct message_replay *x = xcalloc(1, sizeof(*x));
	int r;

	x->p = p;
	r = journal_open(log, on_record, x, &p->log, e);
	if (r) {
		free(x->large);
		free(x);
		return r;
	}
	drop_closed(p);
	*ret = x;
	return 0;
}

void message_start(struct peer *p, struct message_replay *x)
{
	large_resume(p, x->large, x->n_large);
	free(x->large);
	free(x);
	site_thread(disk_worker, p, 256u << 10);
	for (int i = 0; i < WORKERS; i++)
		site_thread(message_worker, p, 512u << 10);
}
