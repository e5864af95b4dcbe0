// SPDX-License-Identifier: Apache-2.0
/*
 * Parties that can only connect outwards.  They poll: a request to such a
 * party travels as the answer to one of its polls, its answer as the body of
 * the poll after that.  A poll that finds nothing is answered 204 after a
 * while and comes again at once.
 */
#include <openssl/pem.h>
#include <poll.h>
#include <time.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/transfer_priv.h"

#define POLL_MS	    20000 /* how long a poll is held */
#define SILENT_MS   (3 * POLL_MS)
#define POLLERS	    8 /* requests of a partner that we serve at once */
#define EXCHANGE_MS 60000

struct waiting { /* a request and the place of its answer, on a stack */
	struct waiting *next;
	uint64_t id;
	const struct wire_request *q;
	struct wire_answer *a;
	char by[33]; /* the process that took it */
	bool taken, answered, lost;
};

struct reverse {
	pthread_mutex_t lock;
	pthread_cond_t request, answer;
	struct waiting *list;
	uint64_t last_id;
	char instance[33]; /* of the process that polls */
	unsigned polls;	   /* held now */
	int64_t last_mono, last_unix;
};

static struct reverse *reverse_of(struct peer *p)
{
	struct reverse *r;

	pthread_mutex_lock(&p->s->lock);
	if (!p->reverse) {
		pthread_condattr_t monotonic;

		r = xcalloc(1, sizeof(*r));
		pthread_mutex_init(&r->lock, NULL);
		pthread_condattr_init(&monotonic);
		pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
		pthread_cond_init(&r->request, &monotonic);
		pthread_cond_init(&r->answer, &monotonic);
		pthread_condattr_destroy(&monotonic);
		r->last_mono = now_mono_ms(); /* it may just be coming */
		p->reverse = r;
	}
	r = p->reverse;
	pthread_mutex_unlock(&p->s->lock);
	return r;
}

int64_t reverse_last_ms(struct peer *p)
{
	struct reverse *r = reverse_of(p);
	int64_t ms;

	pthread_mutex_lock(&r->lock);
	ms = r->last_unix;
	pthread_mutex_unlock(&r->lock);
	return ms;
}

static void wait_until(pthread_cond_t *c, pthread_mutex_t *m, int64_t deadline)
{
	struct timespec ts = { deadline / 1000, deadline % 1000 * 1000000 };

	pthread_cond_timedwait(c, m, &ts);
}

static void list_remove(struct reverse *r, const struct waiting *w)
{
	struct waiting **at;

	for (at = &r->list; *at && *at != w; at = &(*at)->next)
		;
	if (*at)
		*at = w->next;
}

int reverse_exchange(struct peer *p, const struct wire_request *q,
		     struct wire_answer *a, struct err *e)
{
	struct reverse *r = reverse_of(p);
	struct waiting w = { .q = q, .a = a }, **at;
	int64_t deadline =
	    now_mono_ms() + (q->timeout_ms ? q->timeout_ms + 200 : EXCHANGE_MS);
	bool silent;

	pthread_mutex_lock(&r->lock);
	w.id = ++r->last_id;
	for (at = &r->list; *at; at = &(*at)->next)
		;
	*at = &w;
	pthread_cond_signal(&r->request);
	while (!w.answered && !w.lost && now_mono_ms() < deadline) {
		if (!w.taken && !r->polls &&
		    now_mono_ms() - r->last_mono > SILENT_MS)
			break;
		wait_until(&r->answer, &r->lock,
			   MIN(deadline, now_mono_ms() + 5000));
	}
	silent = !w.taken;
	list_remove(r, &w);
	pthread_mutex_unlock(&r->lock);
	if (w.answered)
		return 0;
	if (w.lost)
		return err_set(e, EHOSTUNREACH, "party %s: it has started anew",
			       p->id);
	return silent ? err_set(e, EHOSTUNREACH,
				"party %s: it has not asked for what we have",
				p->id)
		      : err_set(e, ETIMEDOUT, "party %s: no answer in time",
				p->id);
}

/* r->lock held: the body of a poll is the answer to the one before */
static void take_answer(struct reverse *r, const struct strbuf *body)
{
	struct wire_answer head = { 0 };
	struct waiting *w;
	struct err e = { 0 };

	sb_init(&head.body, body->len);
	if (answer_parse(body->buf, body->len, &head, &e)) {
		sb_free(&head.body);
		return;
	}
	for (w = r->list; w; w = w->next)
		if (w->taken && !w->answered && w->id == head.id)
			break;
	if (w) {
		sb_reset(&w->a->body);
		w->a->code = head.code;
		w->a->credit = head.credit;
		w->a->retry_ms = head.retry_ms;
		if (sb_add(&w->a->body, head.body.buf, head.body.len))
			w->a->code = 500;
		w->answered = true;
		pthread_cond_broadcast(&r->answer);
	}
	sb_free(&head.body);
}

/* r->lock held: what another process of the party took has died with it */
static void new_instance(struct reverse *r, const char *instance)
{
	if (!instance || strlen(instance) != 32 ||
	    !strcmp(r->instance, instance))
		return;
	memcpy(r->instance, instance, 33);
	for (struct waiting *w = r->list; w; w = w->next)
		if (w->taken && !w->answered && strcmp(w->by, instance))
			w->lost = true;
	pthread_cond_broadcast(&r->answer);
}

static bool hung_up(int fd)
{
	struct pollfd x = { .fd = fd, .events = POLLRDHUP };

	return fd >= 0 && poll(&x, 1, 0) > 0 &&
	       (x.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

/* What it shows us is what its receipts are checked against. */
static void keep_certificate(struct peer *p, X509 *cert)
{
	BIO *b = cert ? BIO_new(BIO_s_mem()) : NULL;
	char *data = NULL;
	long n;

	if (!b)
		return;
	if (PEM_write_bio_X509(b, cert) &&
	    (n = BIO_get_mem_data(b, &data)) > 0) {
		char *pem = xasprintf("%.*s", (int)n, data);

		pthread_mutex_lock(&p->s->lock);
		free(p->certificate);
		p->certificate = pem;
		pthread_mutex_unlock(&p->s->lock);
	}
	BIO_free(b);
}

void reverse_polled(struct serve *v)
{
	struct peer *p = peer_get(v->s, v->party);
	struct reverse *r = p ? reverse_of(p) : NULL;
	int64_t deadline = now_mono_ms() + POLL_MS;
	struct waiting *w = NULL;

	v->code = 204;
	if (!r)
		return;
	keep_certificate(p, v->cert);
	pthread_mutex_lock(&r->lock);
	r->last_mono = now_mono_ms();
	r->last_unix = now_unix_ms();
	if (v->body.len)
		take_answer(r, &v->body);
	new_instance(r, v->route.query);
	r->polls++;
	for (;;) {
		for (w = r->list; w && w->taken; w = w->next)
			;
		if (w || now_mono_ms() >= deadline)
			break;
		wait_until(&r->request, &r->lock, deadline);
	}
	if (w && hung_up(v->conn)) {
		pthread_cond_signal(&r->request);
		w = NULL;
	}
	if (w) {
		struct wire_request q = *w->q;

		q.id = w->id;
		sb_free(&v->out);
		sb_init(&v->out, REQUEST_BODY_MAX + (256u << 10));
		if (!request_frame(&v->out, &q)) {
			w->taken = true;
			memcpy(w->by, r->instance, sizeof(w->by));
			v->code = 200;
		} else { /* too large: not again with every poll */
			w->lost = true;
			pthread_cond_broadcast(&r->answer);
		}
	}
	r->polls--;
	r->last_mono = now_mono_ms();
	pthread_mutex_unlock(&r->lock);
}

/* ---- our side, when it is us who cannot listen ------------------------- */

/* The partner's certificate, as its connection showed it. */
static X509 *certificate_of(struct peer *p)
{
	_cleanup_free_ char *pem = NULL;
	struct err e = { 0 };
	X509 *cert = NULL;
	char who[16];

	pthread_mutex_lock(&p->s->lock);
	pem = p->certificate ? xstrdup(p->certificate) : NULL;
	pthread_mutex_unlock(&p->s->lock);
	if (!pem ||
	    identity_verify_pem(p->s->identity, pem, who, &cert, NULL, &e))
		return NULL;
	if (strcmp(who, p->id)) {
		X509_free(cert);
		cert = NULL;
	}
	return cert;
}

/* One request of the partner; its answer becomes the next poll's body. */
static void serve_one(struct peer *p, const struct strbuf *frame,
		      struct strbuf *ret)
{
	struct wire_request q = { 0 };
	struct wire_answer a = { 0 };
	struct serve v = { .s = p->s, .conn = -1 };
	struct err e = { 0 };

	if (request_parse(frame->buf, frame->len, &q, &e)) {
		log_warn("rollsite", "party %s: %s", p->id, e.text);
		request_free(&q);
		return;
	}
	memcpy(v.party, p->id, sizeof(v.party));
	v.cert = certificate_of(p);
	v.method = q.method;
	v.digest = q.digest;
	v.via = q.via;
	v.timeout_ms = q.timeout_ms;
	v.length = (int64_t)q.n;
	v.target = xstrdup(q.target);
	serve_begin(&v);
	if (q.n)
		serve_data(&v, q.body, q.n);
	serve_end(&v);
	a.id = q.id;
	a.code = v.code ? v.code : 500;
	a.credit = v.credit;
	a.retry_ms = v.retry_ms;
	a.body = v.out;
	if (answer_frame(ret, &a))
		log_warn("rollsite", "an answer is too large");
	X509_free(v.cert);
	serve_free(&v);
	request_free(&q);
}

static void *poller(void *arg)
{
	struct peer *p = arg;
	struct site *s = p->s;
	struct strbuf answer = STRBUF_INIT(REQUEST_BODY_MAX + (256u << 10));
	_cleanup_free_ char *target =
	    xasprintf("/v1/reverse?%s", route_instance());
	unsigned failures = 0;

	for (;;) {
		struct wire_request q = { .method = "POST",
					  .target = target,
					  .timeout_ms = 60000 };
		struct wire_answer a = { 0 };
		struct err e = { 0 };
		enum route_kind kind;
		int r;

		pthread_mutex_lock(&s->lock);
		kind = p->removed ? ROUTE_NONE : p->route;
		if (kind != ROUTE_DIRECT)
			peer_sleep(p, &p->ping, 10000);
		pthread_mutex_unlock(&s->lock);
		if (kind != ROUTE_DIRECT)
			continue;
		q.body = answer.buf;
		q.n = answer.len;
		sb_init(&a.body, REQUEST_BODY_MAX + (256u << 10));
		r = route_hop(p, &q, &a, &e);
		if (!r && (a.code == 200 || a.code == 204)) {
			failures = 0;
			sb_reset(&answer);
			if (a.code == 200)
				serve_one(p, &a.body, &answer);
		} else {
			int64_t ms = backoff_ms(failures++, 100, 10000);
			struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

			nanosleep(&ts, NULL);
		}
		sb_free(&a.body);
		if (!answer.len)
			sb_free(&answer);
	}
	return NULL;
}

void reverse_poll_start(struct peer *p)
{
	for (int i = 0; i < POLLERS; i++)
		site_thread(poller, p, 512u << 10);
}
