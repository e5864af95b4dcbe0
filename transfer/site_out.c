// SPDX-License-Identifier: Apache-2.0
/*
 * Transfers to others: announce, chunks in any order over a few connections,
 * commit; all of it repeatable.  What is known here of the partner's side is a
 * cache: after a restart it is asked again.  Nothing is kept on disk: who owns
 * the bytes (files, messages) starts the transfer again.
 *
 * Trouble with the way to a party holds up all its transfers together (its
 * window shrinks, one request tries the way again); trouble with one transfer
 * (no space, busy) only that one.
 */
#include <fcntl.h>
#include <sys/random.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/transfer_priv.h"

/* The analyzer takes what is put into a table of uthash for lost. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

#define DAMAGED_MAX	 5
#define CHUNKS_IN_MEMORY 8 /* 32 MiB at the usual size */
#define FOREVER_MS	 3600000

const char *const out_state_names[OUT_STATES] = {
	"queued",    "announced", "sending", "committing",
	"committed", "parked",	  "failed",
};

struct outgoing {
	UT_hash_handle hh;
	char tid[65];
	struct peer *peer;
	struct object o;
	char *data_path;
	out_done_fn done, withdrawn;
	uint64_t ready; /* bytes that may be read */
	bool sealed, announced, control, dead, ended;
	unsigned refs, in_flight, attempts, refusals, damaged, credit;
	uint64_t room, count, acked_bytes, cursor, resent, turn;
	/* Answers about chunks from forgot_from on that were asked before
	 * the present epoch are about another content. */
	uint64_t epoch, forgot_from;
	uint8_t (*mine)[32], (*remote)[32];
	uint8_t *hashed, *has, *acked, *flying, *sent;
	enum out_state state;
	int64_t next_try, started; /* monotonic ms */
	char *error;
};

enum action { NOTHING, ANNOUNCE, CHUNK, COMMIT, WITHDRAW, EXPIRE };

struct task {
	enum action action;
	struct outgoing *t;
	uint64_t index, len, epoch;
	int64_t started; /* monotonic ms */
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
static void make_room(struct outgoing *t, uint64_t n)
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

static uint64_t chunk_bytes(const struct outgoing *t, uint64_t i)
{
	return t->sealed ? object_chunk_len(&t->o, i) : t->o.chunk_size;
}

static void set_acked(struct outgoing *t, uint64_t i, bool on)
{
	if (bit(t->acked, i) == on)
		return;
	bit_set(t->acked, i, on);
	t->count += on ? 1 : UINT64_MAX;
	if (on)
		t->acked_bytes += chunk_bytes(t, i);
	else
		t->acked_bytes -= MIN(t->acked_bytes, chunk_bytes(t, i));
	if (!on)
		t->cursor = MIN(t->cursor, i);
}

/* lock held: from chunk i on nothing that is known holds any more */
static void forget_chunks(struct outgoing *t, uint64_t from)
{
	for (uint64_t i = from; i < t->room; i++) {
		set_acked(t, i, false);
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
static void unref(struct outgoing *t)
{
	if (!--t->refs)
		outgoing_free(t);
}

/* lock held: nobody finds it any more */
static void forget_locked(struct site *s, struct outgoing *t)
{
	if (t->ended)
		return;
	t->ended = true;
	HASH_DEL(s->out, t);
	unref(t);
}

static void set_error(struct outgoing *t, const char *text)
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
		return n || t->sealed ? ANNOUNCE : NOTHING;
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
		if (t->o.deadline_ms && !t->dead)
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
		make_room(best, best_index + 1);
		bit_set(best->flying, best_index, true);
		best->in_flight++;
		best->state = OUT_SENDING;
		while (best->cursor < best->room &&
		       bit(best->acked, best->cursor))
			best->cursor++;
		ret->len = chunk_bytes(best, best_index);
		if (!best->started)
			best->started = now;
	} else {
		best->control = true;
	}
	if (best_action == COMMIT)
		best->state = OUT_COMMITTING;
	if (best_action == ANNOUNCE)
		best->attempts++;
	return true;
}

/* ---- answers ----------------------------------------------------------- */

/* How the partner put it. */
static void reason_of(const struct wire_answer *a, char *buf, size_t n,
		      char *code, size_t code_n, json_t **ret)
{
	json_t *o = json_parse(a->body.buf, a->body.len, NULL);
	const char *detail = json_str_or(o, "detail", NULL);

	(void)snprintf(code, code_n, "%s", json_str_or(o, "code", ""));
	if (detail)
		(void)snprintf(buf, n, "%s", detail);
	else
		(void)snprintf(buf, n, "answered %u", a->code);
	*ret = o;
}

/* lock held: the way to the party does not work now */
static void way_failed(struct peer *p, const struct task *k, const char *text)
{
	/* Requests that were under way together fail together: once. */
	if (k->started <= p->failed_ms)
		return;
	p->failed_ms = now_mono_ms();
	p->window = MAX(p->window / 2, 1.0);
	p->after = now_mono_ms() + backoff_ms(p->failures++, 500, 60000);
	free(p->trouble);
	p->trouble = xasprintf("%.280s", text);
	p->count.retries++;
}

/* lock held */
static void way_works(struct peer *p)
{
	p->failures = 0;
	p->window = MIN(p->window + 0.125, (double)PEER_WORKERS);
	free(p->trouble);
	p->trouble = NULL;
}

/* lock held: this transfer waits */
static void park(struct outgoing *t, const char *text, int64_t ms)
{
	set_error(t, text);
	t->state = OUT_PARKED;
	t->next_try = now_mono_ms() + ms;
}

struct end {
	bool ended;
	int status;
	char error[300];
	struct receipt_doc receipt;
};

/* lock held */
static void fail(struct outgoing *t, struct end *x, int status,
		 const char *text)
{
	t->state = OUT_FAILED;
	*x = (struct end){ .ended = true, .status = status };
	(void)snprintf(x->error, sizeof(x->error), "%.280s", text);
	set_error(t, x->error); /* text may be the error that was set */
}

/* lock held. An answer that is not a success; -EAGAIN: announce again. */
static void refused(struct outgoing *t, const struct wire_answer *a,
		    struct end *x, const char *code, const char *text)
{
	int status = http_to_status((long)a->code);

	switch (-status) {
	case EACCES:
	case EINVAL:
	case EEXIST:
	case ESTALE:
	case EFBIG:
	case ERANGE:
	case EDQUOT:
		if (!strcmp(code, "quota"))
			status = -EDQUOT;
		fail(t, x, status, text);
		break;
	case ENOENT:
		t->announced = false;
		memset(t->has, 0, t->room / 8);
		forget_chunks(t, 0);
		t->next_try = now_mono_ms() + 50;
		break;
	case EBADMSG:
		if (++t->damaged > DAMAGED_MAX)
			fail(t, x, -EIO, text);
		else
			park(t, text, 20 * t->damaged * t->damaged);
		break;
	case ENOSPC:
		t->attempts++;
		park(t, text, 500 + backoff_ms(t->refusals++, 500, 5000));
		break;
	default: /* busy, failed there */
		park(t, text,
		     a->retry_ms ? (int64_t)a->retry_ms
				 : backoff_ms(t->refusals++, 200, 10000));
	}
}

/* ---- actions (without the lock) ---------------------------------------- */

static int exchange(struct peer *p, const char *method, const char *tid,
		    const char *tail, const char *digest, const void *body,
		    size_t n, struct wire_answer *a, struct err *e)
{
	_cleanup_free_ char *target =
	    xasprintf("/v1/transfers/%s%s", tid, tail);
	struct wire_request q = {
		.target = target, .digest = (char *)digest, .body = body, .n = n
	};

	(void)snprintf(q.method, sizeof(q.method), "%s", method);
	return route_exchange(p, &q, a, e);
}

/* What the partner has of it already. */
static int fetch_digests(struct outgoing *t, struct err *e)
{
	struct site *s = t->peer->s;
	struct wire_answer a = { 0 };
	int r;

	sb_init(&a.body, (size_t)CHUNKS_MAX * 32);
	r = exchange(t->peer, "GET", t->tid, "?digests", NULL, NULL, 0, &a, e);
	if (!r && a.code == 200 && a.body.len % 32 == 0) {
		static const uint8_t none[32];
		uint64_t n = a.body.len / 32;

		pthread_mutex_lock(&s->lock);
		make_room(t, n);
		memset(t->has, 0, t->room / 8);
		for (uint64_t i = 0; i < n; i++) {
			memcpy(t->remote[i], a.body.buf + i * 32, 32);
			bit_set(t->has, i, memcmp(t->remote[i], none, 32) != 0);
		}
		pthread_mutex_unlock(&s->lock);
	}
	sb_free(&a.body);
	return r;
}

static int read_chunk(const struct outgoing *t, const struct task *k,
		      uint64_t size, void *buf, int *ret_fd, struct err *e)
{
	_cleanup_close_ int fd = -1;
	struct site *s = t->peer->s;
	int r;

	pthread_mutex_lock(&s->lock); /* a put may give it another place */
	fd = open(t->data_path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	r = fd < 0 ? -errno : 0;
	pthread_mutex_unlock(&s->lock);
	if (!r)
		r = pread_all(fd, buf, (size_t)k->len, k->index * size);
	if (r)
		return err_sys(e, -r, "the bytes of the transfer");
	if (ret_fd)
		*ret_fd = TAKE_FD(fd);
	return 0;
}

/* The partner says that it was committed before: the digests of what is here,
 * for a commit that shows whether it was the same. */
static int hash_all(struct outgoing *t, struct err *e)
{
	struct site *s = t->peer->s;
	_cleanup_free_ char *buf = xmalloc(t->o.chunk_size);
	uint64_t n = object_chunks(&t->o);
	int r = 0;

	for (uint64_t i = 0; i < n && !r; i++) {
		struct task k = { .index = i,
				  .len = object_chunk_len(&t->o, i) };
		uint8_t digest[32];

		r = read_chunk(t, &k, t->o.chunk_size, buf, NULL, e);
		if (r)
			break;
		sha256(buf, (size_t)k.len, digest);
		pthread_mutex_lock(&s->lock);
		make_room(t, i + 1);
		memcpy(t->mine[i], digest, 32);
		bit_set(t->hashed, i, true);
		set_acked(t, i, true);
		pthread_mutex_unlock(&s->lock);
	}
	return r;
}

/* Signed by the party?  Its certificate may have been renewed since the
 * connection was made: it is looked at anew before the next try. */
static int check_receipt(struct outgoing *t, const struct receipt_doc *doc,
			 struct err *e)
{
	struct peer *p = t->peer;
	struct site *s = p->s;
	_cleanup_free_ char *pem = NULL, *text = NULL;
	json_t *bare = receipt_json(doc, false);
	X509 *cert = NULL;
	char party[16] = "";
	int r;

	text = json_text(bare, false);
	json_decref(bare);
	pthread_mutex_lock(&s->lock);
	pem = p->certificate ? xstrdup(p->certificate) : NULL;
	pthread_mutex_unlock(&s->lock);
	if (!pem)
		return err_set(e, EBADMSG,
			       "party %s: its certificate is not known", p->id);
	r = identity_verify_pem(s->identity, pem, party, &cert, NULL, e);
	if (!r)
		r = signature_check(cert, "rollfs-receipt-v1", text,
				    strlen(text),
				    doc->signature ? doc->signature : "", e);
	X509_free(cert);
	if (!r && !strcmp(party, p->id) && !strcmp(doc->receiver, p->id) &&
	    !strcmp(doc->tid, t->tid))
		return 0;
	route_renew(p);
	return err_set(e, EBADMSG,
		       "party %s: the receipt's signature is not of its "
		       "certificate",
		       p->id);
}

static void take_receipt(struct outgoing *t, const json_t *doc, struct end *x,
			 struct err *e)
{
	struct receipt_doc got = { 0 };
	int r = receipt_parse(json_object_get(doc, "receipt"), &got, e);

	if (!r)
		r = check_receipt(t, &got, e);
	if (!r && (strcmp(t->o.root, got.root) || got.size != t->o.size))
		r = err_set(e, EBADMSG, "party %s: a receipt for other content",
			    t->peer->id);
	if (r) {
		receipt_free(&got);
		return; /* not ended: it is asked for again */
	}
	*x = (struct end){ .ended = true, .receipt = got };
}

static void run_announce(struct outgoing *t, const struct task *k,
			 struct end *x)
{
	struct site *s = t->peer->s;
	struct wire_answer a = { 0 };
	struct err e = { 0 };
	char text[300] = "", code[40] = "";
	json_t *doc, *answer = NULL;
	_cleanup_free_ char *body = NULL;
	bool has = false;
	int r, local = 0;

	pthread_mutex_lock(&s->lock);
	doc = object_json(&t->o, false);
	pthread_mutex_unlock(&s->lock);
	body = json_text(doc, false);
	json_decref(doc);
	sb_init(&a.body, 1u << 20);
	r = exchange(t->peer, "PUT", t->tid, "", NULL, body, strlen(body), &a,
		     &e);
	if (!r)
		reason_of(&a, text, sizeof(text), code, sizeof(code), &answer);
	if (!r && a.code < 300)
		has = *json_str_or(answer, "have", "") != '\0';
	if (!r && a.code < 300 && json_object_get(answer, "receipt")) {
		if (t->sealed)
			r = local = hash_all(t, &e);
		else
			r = local = err_set(&e, EEXIST,
					    "committed before it was whole");
	} else if (has)
		r = fetch_digests(t, &e);
	hook_die("out-announced");
	pthread_mutex_lock(&s->lock);
	if (local) {
		fail(t, x, local, e.text);
	} else if (r) {
		way_failed(t->peer, k, e.text);
		park(t, e.text, 0);
	} else if (a.code >= 300) {
		way_works(t->peer);
		refused(t, &a, x, code, text);
	} else if (!x->ended) {
		way_works(t->peer);
		t->announced = true;
		t->state = OUT_ANNOUNCED;
		t->credit = (unsigned)json_int_or(answer, "credit", 4);
		t->next_try = 0;
		t->refusals = 0;
	}
	pthread_mutex_unlock(&s->lock);
	json_decref(answer);
	sb_free(&a.body);
}

static void chunk_done(struct outgoing *t, const struct task *k,
		       const uint8_t digest[32], const struct wire_answer *a,
		       bool skipped, struct end *x)
{
	char text[300] = "", code[40] = "";
	json_t *answer = NULL;

	if (skipped || a->code < 300) {
		if (t->epoch != k->epoch && k->index >= t->forgot_from)
			return;
		memcpy(t->mine[k->index], digest, 32);
		bit_set(t->hashed, k->index, true);
		set_acked(t, k->index, true);
		if (skipped)
			return;
		way_works(t->peer);
		t->refusals = 0;
		t->credit = a->credit ? a->credit : t->credit;
		t->error = (free(t->error), NULL);
		if (!skipped) {
			t->peer->count.chunks_sent++;
			t->peer->count.bytes_sent += k->len;
		}
		return;
	}
	reason_of(a, text, sizeof(text), code, sizeof(code), &answer);
	json_decref(answer);
	way_works(t->peer);
	refused(t, a, x, code, text);
}

static void run_chunk(struct outgoing *t, const struct task *k, char **buffer,
		      struct end *x)
{
	struct site *s = t->peer->s;
	_cleanup_close_ int fd = -1;
	char *buf;
	struct wire_answer a = { 0 };
	struct err e = { 0 };
	char line[64], tail[40];
	uint8_t digest[32];
	bool same = false, again;
	int local, r = 0;

	sb_init(&a.body, 64u << 10);
	buf = *buffer = xrealloc(*buffer, (size_t)t->o.chunk_size);
	local = read_chunk(t, k, t->o.chunk_size, buf, &fd, &e);
	if (!local) {
		sha256(buf, (size_t)k->len, digest);
		pthread_mutex_lock(&s->lock);
		same = bit(t->has, k->index) &&
		       !memcmp(t->remote[k->index], digest, 32);
		again = bit(t->sent, k->index);
		if (!same && again) {
			t->resent++;
			t->peer->count.chunks_resent++;
		}
		bit_set(t->has, k->index, false);
		bit_set(t->sent, k->index, true);
		pthread_mutex_unlock(&s->lock);
	}
	if (!local && !same) {
		content_digest(digest, line);
		(void)snprintf(tail, sizeof(tail), "/chunks/%llu",
			       (unsigned long long)k->index);
		r = exchange(t->peer, "PUT", t->tid, tail, line, buf,
			     (size_t)k->len, &a, &e);
		hook_wire("chunk", buf, (size_t)k->len);
	}
	if (!r && !local && a.code < 300) {
		uncache(fd, k->index, t->o.chunk_size);
		hook_die("out-chunk-acked");
	}
	pthread_mutex_lock(&s->lock);
	bit_set(t->flying, k->index, false);
	t->in_flight--;
	t->cursor = MIN(t->cursor, k->index);
	if (local && t->epoch == k->epoch && !t->dead) {
		fail(t, x, local, e.text);
	} else if (r) {
		way_failed(t->peer, k, e.text);
		park(t, e.text, 0);
	} else if (!local) {
		chunk_done(t, k, digest, &a, same, x);
	}
	pthread_mutex_unlock(&s->lock);
	sb_free(&a.body);
}

/* The manifest, signed; lock not held. */
static int manifest(struct outgoing *t, struct strbuf *sb, struct err *e)
{
	struct site *s = t->peer->s;
	_cleanup_free_ char *text = NULL, *signature = NULL, *whole = NULL;
	uint8_t root[32];
	json_t *doc;
	int r;

	pthread_mutex_lock(&s->lock);
	merkle_root((const uint8_t(*)[32])t->mine, object_chunks(&t->o), root);
	hex_encode(root, 32, t->o.root);
	doc = object_json(&t->o, true);
	pthread_mutex_unlock(&s->lock);
	text = json_text(doc, false);
	r = identity_sign(s->identity, "rollfs-manifest-v1", text, strlen(text),
			  &signature, e);
	if (!r) {
		json_object_set_new(doc, "signature", json_string(signature));
		whole = json_text(doc, false);
		sb_add_u32(sb, (uint32_t)strlen(whole));
		r = sb_adds(sb, whole);
	}
	json_decref(doc);
	return r;
}

/* A small one goes with its manifest: its digest first. */
static int add_inline(struct outgoing *t, void *buf, struct err *e)
{
	struct site *s = t->peer->s;
	struct task k = { .len = t->o.size };
	int r;

	if (!t->o.size)
		return 0;
	r = read_chunk(t, &k, t->o.chunk_size, buf, NULL, e);
	if (r)
		return r;
	pthread_mutex_lock(&s->lock);
	make_room(t, 1);
	sha256(buf, (size_t)t->o.size, t->mine[0]);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

/* lock held: what the partner says it lacks */
static void send_again(struct outgoing *t, const char *ranges)
{
	uint64_t n = object_chunks(&t->o);
	uint8_t *bits = xcalloc(1, n / 8 + 1);

	if (ranges_parse(ranges, bits, n))
		memset(bits, 0xff, n / 8 + 1);
	for (uint64_t i = 0; i < n && i < t->room; i++)
		if (bit(bits, i)) {
			set_acked(t, i, false);
			bit_set(t->has, i, false);
		}
	free(bits);
}

static void run_commit(struct outgoing *t, const struct task *k, struct end *x)
{
	struct site *s = t->peer->s;
	struct wire_answer a = { 0 };
	struct err e = { 0 };
	_cleanup_strbuf_ struct strbuf body =
	    STRBUF_INIT(DOCUMENT_MAX + INLINE_MAX + 8);
	_cleanup_free_ void *data = NULL;
	char text[300] = "", code[40] = "";
	json_t *answer = NULL;
	bool whole, mismatch = false;
	int local = 0, r = 0;

	pthread_mutex_lock(&s->lock);
	whole = !t->announced;
	pthread_mutex_unlock(&s->lock);
	identity_refresh(s->identity); /* the connection shows the newest */
	sb_init(&a.body, 1u << 20);
	if (whole) {
		data = xmalloc(INLINE_MAX);
		local = add_inline(t, data, &e);
	}
	if (!local)
		local = manifest(t, &body, &e);
	if (!local && whole) {
		local = sb_add(&body, data, (size_t)t->o.size);
		hook_wire("inline", data, (size_t)t->o.size);
	}
	hook_die("out-before-commit");
	if (!local)
		r = exchange(t->peer, "POST", t->tid, "/commit", NULL, body.buf,
			     body.len, &a, &e);
	if (!r && !local)
		reason_of(&a, text, sizeof(text), code, sizeof(code), &answer);
	if (!r && !local && a.code < 300)
		take_receipt(t, answer, x, &e);
	mismatch = !strcmp(code, "root_mismatch");
	if (mismatch)
		r = fetch_digests(t, &e);
	hook_die("out-committed");
	pthread_mutex_lock(&s->lock);
	if (whole && !local && !r && a.code < 300)
		t->peer->count.bytes_sent += t->o.size;
	if (local) {
		fail(t, x, local, e.text);
	} else if (r) {
		way_failed(t->peer, k, e.text);
		park(t, e.text, 0);
	} else if (mismatch) {
		forget_chunks(t, 0);
		if (++t->damaged > DAMAGED_MAX)
			fail(t, x, -EIO, "the partner has other bytes");
	} else if (!strcmp(code, "incomplete")) {
		send_again(t, json_str_or(answer, "missing", ""));
	} else if (a.code >= 300) {
		way_works(t->peer);
		refused(t, &a, x, code, text);
	} else if (!x->ended) {
		park(t, e.text, 1000);
	} else {
		way_works(t->peer);
		t->state = OUT_COMMITTED;
	}
	pthread_mutex_unlock(&s->lock);
	json_decref(answer);
	sb_free(&a.body);
}

static void run_withdraw(struct outgoing *t, const struct task *k)
{
	struct site *s = t->peer->s;
	bool told = false;
	struct wire_answer a = { 0 };
	struct err e = { 0 };
	int r;

	sb_init(&a.body, 64u << 10);
	r = exchange(t->peer, "DELETE", t->tid, "", NULL, NULL, 0, &a, &e);
	sb_free(&a.body);
	pthread_mutex_lock(&s->lock);
	if (r) {
		way_failed(t->peer, k, e.text);
		park(t, e.text, 0);
	} else {
		forget_locked(s, t);
		told = true;
	}
	pthread_mutex_unlock(&s->lock);
	if (told && t->withdrawn)
		t->withdrawn(s, &t->o, 0, "", t->attempts, NULL);
}

/* ---- workers ----------------------------------------------------------- */

static void run(struct peer *p, const struct task *k, char **buffer)
{
	struct site *s = p->s;
	struct outgoing *t = k->t;
	struct end x = { 0 };
	unsigned attempts;
	struct object o;

	switch (k->action) {
	case ANNOUNCE:
		run_announce(t, k, &x);
		break;
	case CHUNK:
		run_chunk(t, k, buffer, &x);
		break;
	case COMMIT:
		run_commit(t, k, &x);
		break;
	case WITHDRAW:
		run_withdraw(t, k);
		break;
	case EXPIRE:
		pthread_mutex_lock(&s->lock);
		fail(t, &x, -ETIMEDOUT,
		     t->error ? t->error : "its deadline has passed");
		pthread_mutex_unlock(&s->lock);
		break;
	case NOTHING:
		break;
	}
	pthread_mutex_lock(&s->lock);
	if (k->action != CHUNK) {
		t->control = false;
	} else {
		p->chunks--;
		if (s->chunks-- >= CHUNKS_IN_MEMORY)
			for (struct peer *w = s->peers; w; w = w->next)
				pthread_cond_broadcast(&w->work);
	}
	p->under_way--;
	/* Who gave up tells the partner, that it may forget what it has. */
	if (x.ended && !t->dead && !t->ended) {
		if (x.status)
			p->count.failed++;
		else
			p->count.committed++;
		if (x.status == -ETIMEDOUT && t->announced)
			t->dead = true;
		else
			forget_locked(s, t);
		o = t->o;
		attempts = MAX(t->attempts, 1u);
		o.path = t->o.path ? xstrdup(t->o.path) : NULL;
		pthread_mutex_unlock(&s->lock);
		log_info("rollsite",
			 "%s party=%s kind=%s tid=%.16s bytes=%llu%s%s",
			 x.status ? "failed" : "committed", p->id,
			 o.kind == OBJECT_FILE ? "file" : "message", o.tid,
			 (unsigned long long)o.size, x.status ? ": " : "",
			 x.status ? x.error : "");
		t->done(s, &o, x.status, x.error, attempts, &x.receipt);
		free(o.path);
		pthread_mutex_lock(&s->lock);
	}
	unref(t);
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&s->lock);
	receipt_free(&x.receipt);
}

static void *out_worker(void *arg)
{
	struct peer *p = arg;
	struct site *s = p->s;
	char *buffer = NULL; /* of chunks; kept while there is work */

	pthread_mutex_lock(&s->lock);
	for (;;) {
		struct task k = { 0 };
		int64_t ms;

		if (!pick(p, &k, &ms)) {
			if (!HASH_COUNT(s->out)) {
				free(buffer);
				buffer = NULL;
			}
			peer_sleep(p, &p->work, ms);
			continue;
		}
		pthread_mutex_unlock(&s->lock);
		run(p, &k, &buffer);
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
	t->refs = 1;
	t->credit = PEER_WORKERS;
	make_room(t, 8);
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
			forget_chunks(t, ready / t->o.chunk_size);
		t->ready = rewritten ? ready : MAX(t->ready, ready);
		out_wake_locked(t->peer);
	}
	pthread_mutex_unlock(&s->lock);
	return t ? 0 : -ENOENT;
}

int out_seal(struct site *s, const char *tid, uint64_t size,
	     const char *sha256_hex, const char *data_path, bool rewritten)
{
	struct outgoing *t = NULL;

	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(s->out, tid, t);
	if (t) {
		if (rewritten)
			forget_chunks(t, 0);
		/* A chunk beyond the end, or a last one that was longer. */
		else if (size < t->ready)
			forget_chunks(t, size / t->o.chunk_size);
		t->o.size = t->ready = size;
		t->sealed = true;
		if (sha256_hex)
			memcpy(t->o.sha256, sha256_hex, sizeof(t->o.sha256));
		if (data_path) {
			free(t->data_path);
			t->data_path = xstrdup(data_path);
		}
		make_room(t, object_chunks(&t->o));
		out_wake_locked(t->peer);
	}
	pthread_mutex_unlock(&s->lock);
	return t ? 0 : -ENOENT;
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
		forget_locked(s, t);
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
			forget_locked(s, t);
		}
	}
	pthread_mutex_unlock(&s->lock);
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
		ret->attempts = t->attempts + t->peer->failures;
		ret->next_try_ms =
		    MAX(MAX(t->next_try, t->peer->after) - now, 0);
		ret->chunks = ranges_text(t->acked, t->room, 64u << 10);
		(void)snprintf(ret->error, sizeof(ret->error), "%s",
			       why ? why : "");
	}
	pthread_mutex_unlock(&s->lock);
	return t != NULL;
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
