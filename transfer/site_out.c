// SPDX-License-Identifier: Apache-2.0
/*
 * Transfers to others: announce, chunks in any order over a few connections,
 * commit; all of it repeatable.  What is known here of the partner's side is a
 * cache: after a restart it is asked again.  Nothing is kept on disk: who owns
 * the bytes (files, messages) starts the transfer again.
 *
 * Trouble with the way to a party holds up all its transfers together (its
 * window shrinks, one request tries the way again); trouble with one transfer
 * (no space, busy) only that one.  Here: what there is and what is next;
 * out_run.c does it.
 */
#include <fcntl.h>
#include <sys/random.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/out_priv.h"

/* The analyzer takes what is put into a table of uthash for lost. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

#define FOREVER_MS 3600000

const char *const out_state_names[OUT_STATES] = {
	"queued",    "announced", "sending", "committing",
	"committed", "parked",	  "failed",
};

int64_t backoff_ms(unsigned failures, unsigned least, unsigned most)
{
	uint64_t cap = MIN((uint64_t)least << MIN(failures, 20u), most);
	uint32_t r = 0;

	(void)!getrandom(&r, sizeof(r), 0);
	return 5 + (int64_t)(r % (cap + 1));
}

static void grow_bits(uint8_t **bits, uint64_t from, uint64_t to)
{
	*bits = xrealloc(*bits, to / 8);
	memset(*bits + from / 8, 0, (to - from) / 8);
}

/* lock held: room for n chunks */
void out_room(struct outgoing *t, uint64_t n)
{
	uint64_t to = MAX(t->room, 8);

	if (n <= t->room)
		return;
	while (to < n)
		to *= 2;
	t->mine = xrealloc(t->mine, to * 32);
	t->remote = xrealloc(t->remote, to * 32);
	grow_bits(&t->hashed, t->room, to);
	grow_bits(&t->has, t->room, to);
	grow_bits(&t->acked, t->room, to);
	grow_bits(&t->flying, t->room, to);
	grow_bits(&t->sent, t->room, to);
	t->room = to;
}

/* How many chunks may be sent as things are. */
static uint64_t chunks_ready(const struct outgoing *t)
{
	return t->sealed ? object_chunks(&t->o) : t->ready / t->o.chunk_size;
}

uint64_t out_chunk_bytes(const struct outgoing *t, uint64_t i)
{
	return t->sealed ? object_chunk_len(&t->o, i) : t->o.chunk_size;
}

void out_set_acked(struct outgoing *t, uint64_t i, bool on)
{
	if (bit(t->acked, i) == on)
		return;
	bit_set(t->acked, i, on);
	t->count += on ? 1 : UINT64_MAX;
	if (on)
		t->acked_bytes += out_chunk_bytes(t, i);
	else
		t->acked_bytes -= MIN(t->acked_bytes, out_chunk_bytes(t, i));
	if (!on)
		t->cursor = MIN(t->cursor, i);
}

/* lock held: from chunk i on nothing that is known holds any more */
void out_forget_chunks(struct outgoing *t, uint64_t from)
{
	for (uint64_t i = from; i < t->room; i++) {
		out_set_acked(t, i, false);
		bit_set(t->hashed, i, false);
	}
	t->cursor = MIN(t->cursor, from);
	t->forgot_from = t->in_flight ? MIN(t->forgot_from, from) : from;
	t->epoch++;
}

static void outgoing_free(struct outgoing *t)
{
	object_free(&t->o);
	free(t->data_path);
	free(t->mine);
	free(t->remote);
	free(t->hashed);
	free(t->has);
	free(t->acked);
	free(t->flying);
	free(t->sent);
	free(t->error);
	free(t);
}

/* lock held */
void out_unref(struct outgoing *t)
{
	if (!--t->refs)
		outgoing_free(t);
}

/* lock held: nobody finds it any more */
void out_forget_locked(struct site *s, struct outgoing *t)
{
	if (t->ended)
		return;
	t->ended = true;
	HASH_DEL(s->out, t);
	out_unref(t);
}

void out_set_error(struct outgoing *t, const char *text)
{
	free(t->error);
	t->error = xasprintf("%.280s", text);
}

/* ---- what is next ------------------------------------------------------ */

/* lock held; what could be done for t now */
static enum action next_of(const struct outgoing *t, uint64_t *ret_index)
{
	uint64_t n, i;

	if (t->control)
		return NOTHING;
	if (t->dead)
		return t->in_flight ? NOTHING : WITHDRAW;
	if (t->o.deadline_ms && t->o.deadline_ms <= now_unix_ms())
		return EXPIRE;
	if (!t->announced && t->sealed && t->o.size <= INLINE_MAX)
		return COMMIT;
	n = chunks_ready(t);
	if (!t->announced)
		return t->sealed || (n && !t->repeated) ? ANNOUNCE : NOTHING;
	if (t->sealed && t->count == n)
		return t->in_flight ? NOTHING : COMMIT;
	if (t->in_flight >= MAX(t->credit, 1u))
		return NOTHING;
	/* Chunks in memory: a few for all parties, one for each in any case,
	 * so that those who stand still do not stop the others. */
	if (t->peer->chunks && t->peer->s->chunks >= CHUNKS_IN_MEMORY)
		return NOTHING;
	for (i = t->cursor; i < n; i++) {
		if (i < t->room && (bit(t->acked, i) || bit(t->flying, i)))
			continue;
		*ret_index = i;
		return CHUNK;
	}
	return NOTHING;
}

/* lock held; small ones first, then whoever has waited longest */
static bool pick(struct peer *p, struct task *ret, int64_t *ret_ms)
{
	struct site *s = p->s;
	struct outgoing *t, *tmp, *best = NULL;
	int64_t now = now_mono_ms();
	enum action best_action = NOTHING;
	uint64_t best_index = 0;

	*ret_ms = FOREVER_MS;
	if (p->after > now)
		*ret_ms = p->after - now;
	HASH_ITER (hh, s->out, t, tmp) {
		enum action a;
		uint64_t index = 0;
		bool small;

		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		if (t->peer != p)
			continue;
		small = t->sealed && t->o.size <= INLINE_MAX;
		a = next_of(t, &index);
		if (t->o.deadline_ms && !t->dead && !t->control)
			*ret_ms = MIN(*ret_ms,
				      MAX(t->o.deadline_ms - now_unix_ms(), 1));
		if (a != EXPIRE) {
			if (p->after > now ||
			    p->under_way >= (unsigned)p->window)
				continue;
			if (t->next_try > now) {
				*ret_ms = MIN(*ret_ms, t->next_try - now);
				continue;
			}
		}
		if (a == NOTHING || (best && best->turn <= t->turn && !small))
			continue;
		best = t;
		best_action = a;
		best_index = index;
		if (small || a == EXPIRE)
			break;
	}
	if (!best)
		return false;
	*ret = (struct task){ .action = best_action,
			      .t = best,
			      .index = best_index,
			      .epoch = best->epoch,
			      .started = now };
	best->turn = ++p->turn;
	best->refs++;
	p->under_way++;
	if (best_action == CHUNK) {
		s->chunks++;
		p->chunks++;
		out_room(best, best_index + 1);
		bit_set(best->flying, best_index, true);
		best->in_flight++;
		best->state = OUT_SENDING;
		while (best->cursor < best->room &&
		       bit(best->acked, best->cursor))
			best->cursor++;
		ret->len = out_chunk_bytes(best, best_index);
		if (!best->started)
			best->started = now;
	} else {
		best->control = true;
	}
	if (best_action == COMMIT)
		best->state = OUT_COMMITTING;
	return true;
}

/* ---- workers ----------------------------------------------------------- */

static void *out_worker(void *arg)
{
	struct peer *p = arg;
	struct site *s = p->s;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		struct task k = { 0 };
		int64_t ms;

		if (!pick(p, &k, &ms)) {
			if (!HASH_COUNT(s->out) && !s->chunks)
				out_buffers_free_locked();
			peer_sleep(p, &p->work, ms);
			continue;
		}
		pthread_mutex_unlock(&s->lock);
		out_run(p, &k);
		pthread_mutex_lock(&s->lock);
	}
	return NULL;
}

void out_wake_locked(struct peer *p)
{
	while (p->workers < PEER_WORKERS) {
		p->workers++;
		site_thread(out_worker, p, 512u << 10);
	}
	pthread_cond_broadcast(&p->work);
}

void out_wake(struct peer *p)
{
	struct outgoing *t, *tmp;

	pthread_mutex_lock(&p->s->lock);
	p->after = 0;
	HASH_ITER (hh, p->s->out, t, tmp)
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		if (t->peer == p && t->state == OUT_PARKED)
			t->next_try = 0;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->s->lock);
}

/* ---- for the owners ---------------------------------------------------- */

int out_start(struct site *s, const struct object *o, const char *data_path,
	      uint64_t ready, bool sealed, out_done_fn done, struct err *e)
{
	struct peer *p = peer_get(s, o->dst);
	struct outgoing *t = NULL;

	if (!p)
		return err_set(e, EHOSTUNREACH, "no party %s is configured",
			       o->dst);
	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(s->out, o->tid, t);
	/* A message that was given up begins anew: the partner need not be
	 * told any more, and if it just was, says that it knows of nothing. */
	if (t && t->dead && t->o.kind == OBJECT_MESSAGE) {
		out_forget_locked(s, t);
		t = NULL;
	}
	if (t) {
		pthread_mutex_unlock(&s->lock);
		return err_set(e, EEXIST, "under way already");
	}
	t = xcalloc(1, sizeof(*t));
	t->o = *o;
	t->o.path = o->path ? xstrdup(o->path) : NULL;
	if (o->key) {
		t->o.key = xmalloc(sizeof(*o->key));
		*t->o.key = *o->key;
	}
	memcpy(t->tid, o->tid, sizeof(t->tid));
	t->peer = p;
	t->data_path = xstrdup(data_path);
	t->ready = ready;
	t->sealed = sealed;
	if (!sealed)
		t->o.size = SIZE_OPEN;
	t->done = done;
	t->lost = p->lost;
	t->refs = 1;
	t->credit = PEER_WORKERS;
	out_room(t, 8);
	HASH_ADD_STR(s->out, tid, t);
	p->count.started++;
	out_wake_locked(p);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

int out_grow(struct site *s, const char *tid, uint64_t ready, bool rewritten)
{
	struct outgoing *t = NULL;

	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(s->out, tid, t);
	if (t && !t->sealed) {
		if (rewritten)
			out_forget_chunks(t, ready / t->o.chunk_size);
		t->ready = rewritten ? ready : MAX(t->ready, ready);
		out_wake_locked(t->peer);
	}
	pthread_mutex_unlock(&s->lock);
	return t ? 0 : -ENOENT;
}

int out_seal(struct site *s, const char *tid, uint64_t size,
	     const char *sha256_hex, bool rewritten)
{
	struct outgoing *t = NULL;

	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(s->out, tid, t);
	if (t) {
		if (rewritten)
			out_forget_chunks(t, 0);
		/* A chunk beyond the end, or a last one that was longer. */
		else if (size < t->ready)
			out_forget_chunks(t, size / t->o.chunk_size);
		t->o.size = t->ready = size;
		t->sealed = true;
		if (sha256_hex)
			memcpy(t->o.sha256, sha256_hex, sizeof(t->o.sha256));
		out_room(t, object_chunks(&t->o));
		out_wake_locked(t->peer);
	}
	pthread_mutex_unlock(&s->lock);
	return t ? 0 : -ENOENT;
}

void out_moved_locked(struct site *s, const char *tid, const char *data_path)
{
	struct outgoing *t = NULL;

	HASH_FIND_STR(s->out, tid, t);
	if (!t)
		return;
	free(t->data_path);
	t->data_path = xstrdup(data_path);
}

/* lock held */
static void abort_locked(struct site *s, struct outgoing *t)
{
	struct peer *p = t->peer;

	if (t->dead)
		return;
	t->dead = true;
	t->next_try = 0;
	/* Nobody there has heard of it. */
	if (!t->announced && !t->control && !t->in_flight)
		out_forget_locked(s, t);
	pthread_cond_broadcast(&p->work);
}

int out_withdraw(struct site *s, const struct object *o, out_done_fn done,
		 struct err *e)
{
	struct outgoing *t = NULL;
	bool known = true;
	int r;

	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(s->out, o->tid, t);
	if (t) {
		t->withdrawn = done;
		abort_locked(s, t);
		HASH_FIND_STR(s->out, o->tid, t);
		known = t != NULL;
	}
	pthread_mutex_unlock(&s->lock);
	if (!known) /* the partner has never heard of it */
		done(s, o, 0, "", 0, NULL);
	if (!known || t)
		return 0;
	/* Left from before a restart: it may have been announced. */
	r = out_start(s, o, "", 0, false, done, e);
	if (r)
		return r;
	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(s->out, o->tid, t);
	if (t)
		t->announced = true;
	pthread_mutex_unlock(&s->lock);
	return out_withdraw(s, o, done, e);
}

void out_abort(struct site *s, const char *tid)
{
	struct outgoing *t = NULL;

	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(s->out, tid, t);
	if (t)
		abort_locked(s, t);
	pthread_mutex_unlock(&s->lock);
}

void out_forget(struct site *s, const char *job, const char *session)
{
	struct outgoing *t, *tmp;
	char of[41];

	pthread_mutex_lock(&s->lock);
	HASH_ITER (hh, s->out, t, tmp) {
		const char *its;

		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		if (!t->o.key)
			continue;
		its = t->o.key->f[KEY_SESSION];
		if (session ? !strcmp(its, session)
			    : session_job(its, of, sizeof(of)) &&
				  !strcmp(of, job)) {
			(void)unlink(t->data_path);
			/* The partner closes the job itself. */
			t->dead = true;
			out_forget_locked(s, t);
		}
	}
	pthread_mutex_unlock(&s->lock);
}

unsigned out_attempts(const struct outgoing *t)
{
	return t->attempts + t->peer->lost - t->lost;
}

bool out_news(struct site *s, const char *tid, struct out_news *ret)
{
	const struct outgoing *t = NULL;
	int64_t now = now_mono_ms();

	*ret = (struct out_news){ 0 };
	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(s->out, tid, t);
	if (t) {
		int64_t ms = t->started ? now - t->started : 0;
		const char *why =
		    t->peer->after > now ? t->peer->trouble : t->error;

		ret->state = t->peer->after > now ? OUT_PARKED : t->state;
		/* Its writer pauses. */
		if (ret->state == OUT_SENDING && !t->sealed && !t->in_flight &&
		    t->count == chunks_ready(t))
			ret->state = OUT_ANNOUNCED;
		ret->size = t->sealed ? t->o.size : t->ready;
		ret->acknowledged = t->acked_bytes;
		ret->resent = t->resent;
		ret->rate =
		    ms > 0 ? (double)t->acked_bytes * 1000 / (double)ms : 0;
		ret->attempts = out_attempts(t);
		ret->next_try_ms =
		    MAX(MAX(t->next_try, t->peer->after) - now, 0);
		ret->chunks = ranges_text(t->acked, t->room, 64u << 10);
		(void)snprintf(ret->error, sizeof(ret->error), "%s",
			       why ? why : "");
	}
	pthread_mutex_unlock(&s->lock);
	return t != NULL;
}

bool out_sealed_locked(struct site *s, const char *tid, char ret_sha256[65])
{
	const struct outgoing *t = NULL;

	HASH_FIND_STR(s->out, tid, t);
	if (!t || !t->sealed || t->dead)
		return false;
	memcpy(ret_sha256, t->o.sha256, sizeof(t->o.sha256));
	return true;
}

void out_deadline(struct site *s, const char *tid, int64_t unix_ms)
{
	struct outgoing *t = NULL;

	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(s->out, tid, t);
	if (t) {
		t->o.deadline_ms = unix_ms;
		pthread_cond_broadcast(&t->peer->work);
	}
	pthread_mutex_unlock(&s->lock);
}

unsigned out_messages_locked(const struct peer *p)
{
	struct outgoing *t, *tmp;
	unsigned n = 0;

	HASH_ITER (hh, p->s->out, t, tmp)
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		n += t->peer == p && t->o.kind == OBJECT_MESSAGE;
	return n;
}

void out_counts_locked(struct site *s, const struct peer *p,
		       unsigned ret[OUT_STATES])
{
	const struct outgoing *t;
	struct outgoing *x, *tmp;
	bool shut = p->after > now_mono_ms();

	HASH_ITER (hh, s->out, x, tmp) {
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		t = x;
		if (t->peer == p && !t->dead)
			ret[shut ? OUT_PARKED : t->state]++;
	}
}
