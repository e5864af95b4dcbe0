// SPDX-License-Identifier: Apache-2.0
/*
 * The way to a party through others: the whole request is sealed to the
 * party's card (HPKE), signed by us, and posted to the first relay; relays
 * hold nothing and only pass bodies on.  A card is made anew when a rollsite
 * starts, so what somebody recorded can never be opened or played back later;
 * within one life, counters keep requests from being played twice.
 */
#include <sys/random.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/transfer_priv.h"

#define FORWARD_MS   60000 /* nobody holds a relay's thread for longer */
#define WINDOW	     4096  /* requests of one process that may overtake */
#define INSTANCES    32	   /* processes of one party that are remembered */
#define ANSWER_SLACK 4096
#define VIA_TEXT     63

static struct {
	uint8_t priv[SEAL_KEY], pub[SEAL_KEY];
	char instance[33];
	int64_t started_ms;
	uint64_t counter;
	pthread_mutex_t lock; /* the card's text, and the windows */
	struct card card;
	uint64_t card_generation;
	struct window *windows;
} self;

/* The parties that a request has come through: is this one among them, and how
 * many are they?  Too long a text is too many. */
static bool in_via(const char *via, const char *party, unsigned *ret_n)
{
	bool found = false;

	*ret_n = via && strlen(via) > VIA_TEXT ? VIA_MAX : 0;
	for (const char *p = via; p && *p;) {
		size_t n = strcspn(p, ",");

		found |= n == strlen(party) && !strncmp(p, party, n);
		(*ret_n)++;
		p += n;
		p += *p == ',';
	}
	return found;
}

static char *via_with(const char *via, const char *party)
{
	return xasprintf("%s%s%s", via ? via : "", via ? "," : "", party);
}

/* ---- cards ------------------------------------------------------------- */

/* self.lock held; signed again when our certificate was renewed */
static int card_refresh(struct site *s, struct err *e)
{
	uint64_t now = identity_generation(s->identity);
	struct strbuf cert, key, ca;
	_cleanup_free_ char *text = NULL;
	json_t *doc;
	int r;

	if (self.card.signature && self.card_generation == now)
		return 0;
	sb_init(&cert, 64u << 10);
	sb_init(&key, 64u << 10);
	sb_init(&ca, 1u << 20);
	r = identity_pem(s->identity, &cert, &key, &ca, e);
	if (key.len)
		explicit_bzero(key.buf, key.len);
	sb_free(&key);
	sb_free(&ca);
	if (r) {
		sb_free(&cert);
		return r;
	}
	card_free(&self.card);
	self.card = (struct card){ .created_ms = self.started_ms };
	(void)snprintf(self.card.party, sizeof(self.card.party), "%s",
		       s->conf->party);
	memcpy(self.card.seal_key, self.pub, SEAL_KEY);
	self.card.certificate = sb_detach(&cert);
	doc = card_json(&self.card, false);
	text = json_text(doc, false);
	json_decref(doc);
	r = identity_sign(s->identity, "rollfs-card-v1", text, strlen(text),
			  &self.card.signature, e);
	self.card_generation = now;
	return r;
}

static int own_card(struct site *s, json_t **ret, char **ret_certificate,
		    struct err *e)
{
	int r;

	pthread_mutex_lock(&self.lock);
	r = card_refresh(s, e);
	if (!r && ret)
		*ret = card_json(&self.card, true);
	if (!r && ret_certificate)
		*ret_certificate = xstrdup(self.card.certificate);
	pthread_mutex_unlock(&self.lock);
	return r;
}

/* Of this party, by its certificate and its signature: whoever handed it to
 * us could only have kept it back. */
static int card_check(struct site *s, const struct card *c, const char *party,
		      struct err *e)
{
	json_t *doc = card_json(c, false);
	_cleanup_free_ char *text = json_text(doc, false);
	X509 *cert = NULL;
	char who[16];
	int r;

	json_decref(doc);
	r = identity_verify_pem(s->identity, c->certificate, who, &cert, NULL,
				e);
	if (!r && (strcmp(who, party) || strcmp(c->party, party)))
		r = err_set(e, EACCES, "the card is not of party %s", party);
	if (!r)
		r = signature_check(cert, "rollfs-card-v1", text, strlen(text),
				    c->signature, e);
	X509_free(cert);
	return r;
}

static int fetch_card(struct peer *p, struct peer *hop, struct err *e)
{
	_cleanup_free_ char *target = xasprintf("/v1/card/%s", p->id);
	struct wire_request q = { .method = "GET",
				  .target = target,
				  .timeout_ms = 10000 };
	struct wire_answer a = { 0 };
	struct card *c = xcalloc(1, sizeof(*c));
	json_t *doc = NULL;
	int r;

	sb_init(&a.body, 256u << 10);
	r = route_hop(hop, &q, &a, e);
	if (!r && a.code != 200)
		r = err_set(e, EHOSTUNREACH,
			    "party %s: party %s does not know the way (%u)",
			    p->id, hop->id, a.code);
	if (!r) {
		doc = json_parse(a.body.buf, a.body.len, e);
		r = doc ? card_parse(doc, c, e) : -EPROTO;
	}
	if (!r)
		r = card_check(p->s, c, p->id, e);
	json_decref(doc);
	sb_free(&a.body);
	if (r) {
		card_free(c);
		free(c);
		return r;
	}
	pthread_mutex_lock(&p->s->lock);
	free(p->certificate);
	p->certificate = xstrdup(c->certificate);
	if (p->card) {
		card_free(p->card);
		free(p->card);
	}
	p->card = c;
	pthread_mutex_unlock(&p->s->lock);
	return 0;
}

static void drop_card(struct peer *p)
{
	pthread_mutex_lock(&p->s->lock);
	if (p->card) {
		card_free(p->card);
		free(p->card);
	}
	p->card = NULL;
	pthread_mutex_unlock(&p->s->lock);
}

void route_card(struct serve *v, const char *party)
{
	struct site *s = v->s;
	struct wire_request q = { .method = "GET",
				  .target = v->target,
				  .timeout_ms = 10000 };
	struct wire_answer a = { 0 };
	struct err e = { 0 };
	struct peer *p, *hop;
	_cleanup_free_ char *via = NULL;
	json_t *doc = NULL;
	unsigned n;
	int r;

	if (!strcmp(party, s->conf->party)) {
		r = own_card(s, &doc, NULL, &e);
		if (r)
			serve_refuse(v, r, &e);
		else
			serve_json(v, 200, doc);
		return;
	}
	p = peer_get(s, party);
	hop = p ? route_first_hop(p, &e) : NULL;
	/* Parties whose routes lead to each other would ask in a circle. */
	if (!hop || !strcmp(hop->id, v->party) ||
	    in_via(v->via, s->conf->party, &n) || n >= VIA_MAX) {
		serve_refuse(
		    v, err_set(&e, EHOSTUNREACH, "no way to party %s", party),
		    &e);
		return;
	}
	via = via_with(v->via, s->conf->party);
	q.via = via;
	sb_init(&a.body, 256u << 10);
	r = route_hop(hop, &q, &a, &e);
	if (r) {
		serve_refuse(v, r == -EACCES ? -EHOSTUNREACH : r, &e);
	} else {
		v->code = a.code;
		(void)sb_add(&v->out, a.body.buf, a.body.len);
	}
	sb_free(&a.body);
}

/* ---- sealed requests: sending ------------------------------------------ */

/* The key in use for p and the certificate's text; fetches it when there is
 * none. */
static int card_of(struct peer *p, struct peer *hop, uint8_t pub[SEAL_KEY],
		   struct err *e)
{
	for (int i = 0; i < 2; i++) {
		bool have;
		int r;

		pthread_mutex_lock(&p->s->lock);
		have = p->card != NULL;
		if (have)
			memcpy(pub, p->card->seal_key, SEAL_KEY);
		pthread_mutex_unlock(&p->s->lock);
		if (have)
			return 0;
		r = fetch_card(p, hop, e);
		if (r)
			return r;
	}
	return err_set(e, EHOSTUNREACH, "party %s: its card changes too often",
		       p->id);
}

/* Head, then the request sealed behind it. */
static int envelope_make(struct peer *p, const uint8_t pub[SEAL_KEY],
			 const struct wire_request *q, struct strbuf *out,
			 uint8_t answer_key[SEAL_KEY], struct err *e)
{
	struct site *s = p->s;
	struct strbuf inner = STRBUF_INIT(REQUEST_BODY_MAX + (64u << 10));
	struct envelope v = { .started_ms = self.started_ms };
	_cleanup_free_ char *text = NULL, *info = NULL;
	char hex[65];
	uint8_t *sealed = NULL;
	int r = request_frame(&inner, q);

	if (r) {
		sb_free(&inner);
		return err_set(e, -r, "the request is too large");
	}
	(void)snprintf(v.src, sizeof(v.src), "%s", s->conf->party);
	(void)snprintf(v.dst, sizeof(v.dst), "%s", p->id);
	hex_encode(pub, SEAL_KEY, hex);
	(void)snprintf(v.to, sizeof(v.to), "%.16s", hex);
	memcpy(v.instance, self.instance, sizeof(v.instance));
	v.counter = __atomic_add_fetch(&self.counter, 1, __ATOMIC_RELAXED);
	sealed = xmalloc(inner.len + SEAL_OVERHEAD);
	info = xasprintf("rollfs-envelope-v1 %s %s %s %llu", v.src, v.dst,
			 v.instance, (unsigned long long)v.counter);
	r = seal(pub, info, strlen(info), "", 0, inner.buf, inner.len, v.enc,
		 sealed, answer_key);
	if (r)
		r = err_set(e, -r, "party %s: cannot seal", p->id);
	if (!r)
		r = own_card(s, NULL, &v.certificate, e);
	if (!r) {
		text = envelope_signed_text(&v);
		r = identity_sign(s->identity, "rollfs-envelope-v1", text,
				  strlen(text), &v.signature, e);
	}
	if (!r) {
		r = envelope_frame(out, &v);
		if (!r)
			r = sb_add(out, sealed, inner.len + SEAL_OVERHEAD);
		if (r)
			err_set(e, -r, "the request is too large");
	}
	free(sealed);
	sb_free(&inner);
	envelope_free(&v);
	return r;
}

/* What a relay on the way said, as a failure of the way. */
static int hop_refusal(const struct peer *p, const struct peer *hop,
		       const struct wire_answer *a, struct err *e)
{
	json_t *o = json_parse(a->body.buf, a->body.len, NULL);
	const char *who = json_str_or(o, "hop", hop->id);
	const char *why = json_str_or(o, "detail", "refused");
	int status = http_to_status((long)a->code);

	if (status != -ELOOP && status != -ETIMEDOUT && status != -EACCES)
		status = -EHOSTUNREACH;
	(void)err_set(e, -status, "party %s: relay %s: %s", p->id, who, why);
	json_decref(o);
	return status;
}

static int sealed_exchange(struct peer *p, struct peer *hop,
			   const struct wire_request *q, struct wire_answer *a,
			   bool *ret_stale, struct err *e)
{
	_cleanup_free_ char *target = xasprintf("/v1/relay/%s", p->id);
	struct wire_request outer = { .method = "POST",
				      .target = target,
				      .timeout_ms = q->timeout_ms };
	struct strbuf body = STRBUF_INIT(REQUEST_BODY_MAX + (192u << 10));
	struct wire_answer o = { 0 };
	uint8_t pub[SEAL_KEY], key[SEAL_KEY];
	size_t max = a->body.max;
	int r = card_of(p, hop, pub, e);

	if (r)
		return r;
	sb_init(&o.body, max + ANSWER_SLACK);
	r = envelope_make(p, pub, q, &body, key, e);
	if (!r) {
		outer.body = body.buf;
		outer.n = body.len;
		r = route_hop(hop, &outer, &o, e);
	}
	sb_free(&body);
	if (!r && o.code == status_to_http(-EUCLEAN)) {
		*ret_stale = true;
		r = err_set(e, EHOSTUNREACH, "party %s: it has started anew",
			    p->id);
	} else if (!r && o.code != 200) {
		r = hop_refusal(p, hop, &o, e);
	} else if (!r && (o.body.len < SEAL_OVERHEAD ||
			  seal_open_answer(key, o.body.buf, o.body.len,
					   o.body.buf))) {
		r = err_set(e, EHOSTUNREACH,
			    "party %s: the answer was changed on its way "
			    "through party %s",
			    p->id, hop->id);
	} else if (!r) {
		sb_reset(&a->body);
		r = answer_parse(o.body.buf, o.body.len - SEAL_OVERHEAD, a, e);
	}
	OPENSSL_cleanse(key, sizeof(key));
	sb_free(&o.body);
	return r;
}

int route_exchange(struct peer *p, const struct wire_request *q,
		   struct wire_answer *a, struct err *e)
{
	struct peer *hop = route_first_hop(p, e);
	int r = -EHOSTUNREACH;

	if (!hop)
		return e && e->no ? -e->no : -EHOSTUNREACH;
	if (hop == p)
		return route_hop(p, q, a, e);
	for (int i = 0; i < 3; i++) {
		bool stale = false;

		r = sealed_exchange(p, hop, q, a, &stale, e);
		if (!stale)
			break;
		drop_card(p);
	}
	return r;
}

/* ---- sealed requests: receiving ---------------------------------------- */

/* Which requests of one process of a party have been seen. */
struct window {
	struct window *next;
	char party[16], instance[33];
	int64_t started_ms;
	uint64_t top;
	uint8_t seen[WINDOW / 8];
};

/* self.lock held; false: it was here before, or is too old to say */
static bool window_take(struct window *w, uint64_t counter)
{
	uint64_t i;

	if (counter > w->top) {
		if (counter - w->top >= WINDOW)
			memset(w->seen, 0, sizeof(w->seen));
		else
			for (i = w->top + 1; i <= counter; i++)
				w->seen[i % WINDOW / 8] &=
				    (uint8_t) ~(1u << (i % 8));
		w->top = counter;
	} else if (w->top - counter >= WINDOW) {
		return false;
	}
	i = counter % WINDOW;
	if (w->seen[i / 8] >> (i % 8) & 1)
		return false;
	w->seen[i / 8] |= (uint8_t)(1u << (i % 8));
	return true;
}

/* Among many processes of a party the oldest is forgotten; what is older than
 * that one stays refused. */
static bool first_time(const struct envelope *v)
{
	struct window *w, *oldest = NULL;
	unsigned n = 0;
	bool ok = false;

	pthread_mutex_lock(&self.lock);
	for (w = self.windows; w; w = w->next) {
		if (strcmp(w->party, v->src))
			continue;
		if (!strcmp(w->instance, v->instance))
			break;
		n++;
		if (!oldest || w->started_ms < oldest->started_ms)
			oldest = w;
	}
	if (!w && n >= INSTANCES && v->started_ms > oldest->started_ms) {
		/* Its place is taken: requests of its time are no more. */
		w = oldest;
		memcpy(w->instance, v->instance, sizeof(w->instance));
		w->started_ms = v->started_ms;
		w->top = 0;
		memset(w->seen, 0, sizeof(w->seen));
	} else if (!w && n < INSTANCES) {
		w = xcalloc(1, sizeof(*w));
		memcpy(w->party, v->src, sizeof(w->party));
		memcpy(w->instance, v->instance, sizeof(w->instance));
		w->started_ms = v->started_ms;
		w->next = self.windows;
		self.windows = w;
	}
	if (w)
		ok = window_take(w, v->counter);
	pthread_mutex_unlock(&self.lock);
	return ok;
}

static int envelope_open(struct serve *v, struct envelope *n,
			 struct wire_request *ret, X509 **ret_cert,
			 uint8_t key[SEAL_KEY], struct err *e)
{
	struct site *s = v->s;
	_cleanup_free_ char *info = NULL;
	char who[16], hex[65];
	int r = envelope_parse(v->body.buf, v->body.len, n, e);

	if (r)
		return r;
	if (strcmp(n->dst, s->conf->party))
		return err_set(e, EINVAL, "sealed to another party");
	r = identity_verify_pem(s->identity, n->certificate, who, ret_cert,
				NULL, e);
	if (r || strcmp(who, n->src) || !peer_get(s, n->src))
		return err_set(e, EACCES, "not allowed");
	if (signature_check(*ret_cert, "rollfs-envelope-v1", n->signed_text,
			    strlen(n->signed_text), n->signature, e))
		return err_set(e, EACCES, "not allowed");
	hex_encode(self.pub, SEAL_KEY, hex);
	if (strncmp(n->to, hex, 16))
		return err_set(e, EUCLEAN, "sealed to a key that is no more");
	if (!first_time(n)) {
		if (audit_may(v->party))
			log_warn(
			    "audit",
			    "party %s: a sealed request came twice, through "
			    "party %s",
			    n->src, v->party);
		return err_set(e, EACCES, "not allowed");
	}
	info = xasprintf("rollfs-envelope-v1 %s %s %s %llu", n->src, n->dst,
			 n->instance, (unsigned long long)n->counter);
	r = seal_open(self.priv, self.pub, n->enc, info, strlen(info), "", 0,
		      n->sealed, n->n, (void *)n->sealed, key);
	if (r)
		return err_set(e, EBADMSG, "it was changed on its way");
	return request_parse(n->sealed, n->n - SEAL_OVERHEAD, ret, e);
}

/* The request as if it had come on its own. */
static void serve_inner(struct serve *v, const struct envelope *n,
			const struct wire_request *q, X509 *cert,
			const uint8_t key[SEAL_KEY])
{
	struct serve in = { .s = v->s,
			    .cert = cert,
			    .method = q->method,
			    .digest = q->digest,
			    .timeout_ms = q->timeout_ms,
			    .length = (int64_t)q->n,
			    .relayed = true,
			    .conn = -1 };
	struct wire_answer a = { 0 };
	struct strbuf plain = STRBUF_INIT(16u << 20);

	memcpy(in.party, n->src, sizeof(in.party));
	in.target = xstrdup(q->target);
	serve_begin(&in);
	if (q->n)
		serve_data(&in, q->body, q->n);
	serve_end(&in);
	a.code = in.code ? in.code : 500;
	a.credit = in.credit;
	a.retry_ms = in.retry_ms;
	a.body = in.out;
	if (!answer_frame(&plain, &a)) {
		sb_free(&v->out);
		sb_init(&v->out, plain.len + SEAL_OVERHEAD);
		if (!sb_reserve(&v->out, plain.len + SEAL_OVERHEAD) &&
		    !seal_answer(key, plain.buf, plain.len, v->out.buf)) {
			v->out.len = plain.len + SEAL_OVERHEAD;
			v->code = 200;
		}
	}
	sb_free(&plain);
	serve_free(&in);
}

static int may_relay(struct serve *v, const char *dst, struct peer **ret,
		     struct err *e)
{
	struct site *s = v->s;
	_cleanup_free_ char *allow = party_allow(s->conf, v->party);
	struct peer *p;
	unsigned n;

	if (!allow_permits(allow, "relay", dst))
		return err_set(e, EACCES,
			       "party %s may not have requests carried to "
			       "party %s",
			       v->party, dst);
	if (in_via(v->via, s->conf->party, &n) || n >= VIA_MAX)
		return err_set(e, ELOOP, "the way goes in a circle");
	p = peer_get(s, dst);
	if (!p)
		return err_set(e, EHOSTUNREACH, "no way to party %s", dst);
	*ret = route_first_hop(p, e);
	if (!*ret)
		return e->no ? -e->no : -EHOSTUNREACH;
	return !strcmp((*ret)->id, v->party)
		   ? err_set(e, ELOOP, "the way goes in a circle")
		   : 0;
}

int relay_permits(struct serve *v, const char *dst, struct err *e)
{
	struct peer *hop = NULL;

	return strcmp(dst, v->s->conf->party) ? may_relay(v, dst, &hop, e) : 0;
}

static void forward(struct serve *v, const char *dst)
{
	struct site *s = v->s;
	_cleanup_free_ char *via = via_with(v->via, s->conf->party);
	_cleanup_free_ char *target = xasprintf("/v1/relay/%s", dst);
	struct wire_request q = { .method = "POST",
				  .target = target,
				  .via = via,
				  .timeout_ms = v->timeout_ms ? v->timeout_ms
							      : FORWARD_MS,
				  .body = v->body.buf,
				  .n = v->body.len };
	struct wire_answer a = { 0 };
	struct peer *hop = NULL;
	struct err e = { 0 };
	int r = may_relay(v, dst, &hop, &e);

	sb_init(&a.body, (size_t)CHUNKS_MAX * 32 + ANSWER_SLACK);
	if (!r) {
		hook_relay_flip(v->body.buf, v->body.len);
		hook_wire(target, v->body.buf, v->body.len);
		r = route_hop(hop, &q, &a, &e);
		if (r == -EACCES)
			r = -EHOSTUNREACH;
	}
	if (r) {
		serve_refuse(v, r, &e);
	} else {
		v->code = a.code;
		v->retry_ms = a.retry_ms;
		sb_free(&v->out);
		v->out = a.body;
		sb_init(&a.body, 0);
		pthread_mutex_lock(&s->lock);
		hop->count.forwarded++;
		pthread_mutex_unlock(&s->lock);
	}
	sb_free(&a.body);
}

void route_relayed(struct serve *v, const char *dst)
{
	struct envelope n = { 0 };
	struct wire_request q = { 0 };
	uint8_t key[SEAL_KEY];
	X509 *cert = NULL;
	struct err e = { 0 };
	int r;

	if (strcmp(dst, v->s->conf->party)) {
		forward(v, dst);
		return;
	}
	r = envelope_open(v, &n, &q, &cert, key, &e);
	if (r)
		serve_refuse(v, r, &e);
	else
		serve_inner(v, &n, &q, cert, key);
	OPENSSL_cleanse(key, sizeof(key));
	X509_free(cert);
	request_free(&q);
	envelope_free(&n);
}

const char *route_instance(void)
{
	return self.instance;
}

int route_start(struct site *s, struct err *e)
{
	uint8_t random[16];

	(void)s;
	pthread_mutex_init(&self.lock, NULL);
	if (getrandom(random, sizeof(random), 0) != sizeof(random) ||
	    seal_keypair(self.priv, self.pub))
		return err_set(e, EIO, "no random numbers");
	hex_encode(random, sizeof(random), self.instance);
	self.started_ms = now_unix_ms();
	return client_init(e);
}
