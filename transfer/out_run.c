// SPDX-License-Identifier: Apache-2.0
/*
 * One request of a transfer to another party, and what its answer means.
 */
#include <sys/mman.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/out_priv.h"

#define DAMAGED_MAX 5

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
	p->lost++;
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
	out_set_error(t, text);
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
static void out_fail(struct outgoing *t, struct end *x, int status,
		     const char *text)
{
	t->state = OUT_FAILED;
	*x = (struct end){ .ended = true, .status = status };
	(void)snprintf(x->error, sizeof(x->error), "%.280s", text);
	out_set_error(t, x->error); /* text may be the error that was set */
}

/* lock held. An answer that is not a success; -EAGAIN: announce again. */
static void refused(struct outgoing *t, const struct wire_answer *a,
		    struct end *x, const char *text)
{
	int status = http_to_status((long)a->code);
	char where[300];

	switch (-status) {
	case EACCES:
	case EINVAL:
	case EEXIST:
	case ESTALE:
	case EFBIG:
	case ERANGE:
		out_fail(t, x, status, text);
		break;
	case ENOENT:
		t->announced = false;
		memset(t->has, 0, t->room / 8);
		out_forget_chunks(t, 0);
		t->next_try =
		    now_mono_ms() + 50 + backoff_ms(t->refusals++, 20, 10000);
		break;
	case EBADMSG:
		if (++t->damaged > DAMAGED_MAX)
			out_fail(t, x, -EIO, text);
		else
			park(t, text, 20 * t->damaged * t->damaged);
		break;
	case ENOSPC:
		t->attempts++;
		(void)snprintf(where, sizeof(where), "party %s: %s",
			       t->peer->id, text);
		park(t, where, 500 + backoff_ms(t->refusals++, 500, 5000));
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
		out_room(t, n);
		memset(t->has, 0, t->room / 8);
		for (uint64_t i = 0; i < n; i++) {
			memcpy(t->remote[i], a.body.buf + i * 32, 32);
			bit_set(t->has, i, memcmp(t->remote[i], none, 32) != 0);
		}
		pthread_mutex_unlock(&s->lock);
	} else if (!r && a.code >= 500) {
		r = err_set(e, EAGAIN, "party %s: it is busy", t->peer->id);
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
		out_room(t, i + 1);
		memcpy(t->mine[i], digest, 32);
		bit_set(t->hashed, i, true);
		out_set_acked(t, i, true);
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
	if (!pem) {
		route_renew(p); /* the next connection shows it */
		return err_set(e, EBADMSG,
			       "party %s: its certificate is not known", p->id);
	}
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
	bool has = false, repeated = false;
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
		repeated = t->o.kind == OBJECT_MESSAGE && !t->sealed;
		if (t->sealed)
			r = local = hash_all(t, &e);
		else if (!repeated)
			r = local = err_set(&e, EEXIST,
					    "committed before it was whole");
	} else if (has)
		r = fetch_digests(t, &e);
	hook_die("out-announced");
	pthread_mutex_lock(&s->lock);
	t->attempts += !r;
	if (local) {
		out_fail(t, x, local, e.text);
	} else if (r) {
		way_failed(t->peer, k, e.text);
		park(t, e.text, 0);
	} else if (a.code >= 300) {
		way_works(t->peer);
		refused(t, &a, x, text);
	} else if (repeated) {
		way_works(t->peer);
		t->repeated = true;
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
		out_set_acked(t, k->index, true);
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
	refused(t, a, x, text);
}

/* ---- buffers of chunks ------------------------------------------------- */
/*
 * As many as there are chunks under way, whichever party they go to; kept while
 * there is work, because fresh memory is dear.  Mapped: a thread's arena would
 * not give them back.
 */
struct buffer {
	struct buffer *next;
	size_t size;
};
static struct buffer *spare; /* with s->lock */

/* NULL: no memory. */
static void *buffer_take(struct site *s, size_t size)
{
	struct buffer *b, **at;

	pthread_mutex_lock(&s->lock);
	for (at = &spare; *at && (*at)->size != size; at = &(*at)->next)
		;
	b = *at;
	if (b)
		*at = b->next;
	pthread_mutex_unlock(&s->lock);
	if (b)
		return b;
	b = mmap(NULL, size, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return b == MAP_FAILED ? NULL : b;
}

static void buffer_give(struct site *s, void *buf, size_t size)
{
	struct buffer *b = buf;

	pthread_mutex_lock(&s->lock);
	b->size = size;
	b->next = spare;
	spare = b;
	pthread_mutex_unlock(&s->lock);
}

void out_buffers_free_locked(void)
{
	while (spare) {
		struct buffer *b = spare;

		spare = b->next;
		munmap(b, b->size);
	}
}

static void run_chunk(struct outgoing *t, const struct task *k, struct end *x)
{
	struct site *s = t->peer->s;
	const size_t size = (size_t)t->o.chunk_size;
	void *buf = buffer_take(s, size);
	_cleanup_close_ int fd = -1;
	struct wire_answer a = { 0 };
	struct err e = { 0 };
	char line[64], tail[40];
	uint8_t digest[32];
	bool same = false, again;
	int local = 0, r = buf ? 0 : err_set(&e, ENOMEM, "no memory");

	sb_init(&a.body, 64u << 10);
	if (!r)
		local = read_chunk(t, k, size, buf, &fd, &e);
	if (!r && !local) {
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
	if (!r && !local && !same) {
		content_digest(digest, line);
		(void)snprintf(tail, sizeof(tail), "/chunks/%llu",
			       (unsigned long long)k->index);
		r = exchange(t->peer, "PUT", t->tid, tail, line, buf,
			     (size_t)k->len, &a, &e);
		hook_wire("chunk", buf, (size_t)k->len);
	}
	if (buf)
		buffer_give(s, buf, size);
	if (!r && !local && a.code < 300) {
		uncache(fd, k->index, size);
		hook_die("out-chunk-acked");
	}
	pthread_mutex_lock(&s->lock);
	bit_set(t->flying, k->index, false);
	t->in_flight--;
	t->cursor = MIN(t->cursor, k->index);
	if (local && t->epoch == k->epoch && !t->dead) {
		out_fail(t, x, local, e.text);
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
	uint8_t(*digests)[32] = NULL, root[32];
	uint64_t n;
	json_t *doc;
	int r;

	pthread_mutex_lock(&s->lock);
	n = object_chunks(&t->o);
	digests = xcalloc(n + 1, 32);
	memcpy(digests, t->mine, n * 32);
	pthread_mutex_unlock(&s->lock);
	merkle_root((const uint8_t(*)[32])digests, n, root); /* takes a while */
	free(digests);
	pthread_mutex_lock(&s->lock);
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
	out_room(t, 1);
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
			out_set_acked(t, i, false);
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
		out_fail(t, x, local, e.text);
	} else if (r) {
		way_failed(t->peer, k, e.text);
		park(t, e.text, 0);
	} else if (mismatch) {
		out_forget_chunks(t, 0);
		if (++t->damaged > DAMAGED_MAX)
			out_fail(t, x, -EIO, "the partner has other bytes");
	} else if (!strcmp(code, "incomplete")) {
		send_again(t, json_str_or(answer, "missing", ""));
		t->next_try =
		    now_mono_ms() + backoff_ms(t->refusals++, 20, 10000);
	} else if (a.code >= 300) {
		way_works(t->peer);
		refused(t, &a, x, text);
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
		out_forget_locked(s, t);
		told = true;
	}
	pthread_mutex_unlock(&s->lock);
	if (told && t->withdrawn)
		t->withdrawn(s, &t->o, 0, "", t->attempts, NULL);
}

void out_run(struct peer *p, const struct task *k)
{
	struct site *s = p->s;
	struct outgoing *t = k->t;
	struct end x = { 0 };
	unsigned attempts;
	struct object o;
	char late[400];

	switch (k->action) {
	case ANNOUNCE:
		run_announce(t, k, &x);
		break;
	case CHUNK:
		run_chunk(t, k, &x);
		break;
	case COMMIT:
		run_commit(t, k, &x);
		break;
	case WITHDRAW:
		run_withdraw(t, k);
		break;
	case EXPIRE:
		pthread_mutex_lock(&s->lock);
		(void)snprintf(
		    late, sizeof(late), "its deadline has passed%s%s",
		    t->error ? "; before: " : "", t->error ? t->error : "");
		out_fail(t, &x, -ETIMEDOUT, late);
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
			out_forget_locked(s, t);
		o = t->o;
		attempts = MAX(out_attempts(t), 1u);
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
	out_unref(t);
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&s->lock);
	receipt_free(&x.receipt);
}
