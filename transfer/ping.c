// SPDX-License-Identifier: Apache-2.0
/*
 * What is known of a party: it is asked for its hello all the time, by the way
 * that requests take to it, and tells in it how its own pings of us went.
 */
#include <inttypes.h>
#include <openssl/pem.h>
#include <time.h>

#include "lib/json.h"
#include "lib/log.h"
#include "lib/version.h"

#include "transfer/transfer_priv.h"

#define PING_MS	    15000
#define PING_MIN_MS 50
#define REMOVED_MS  3600000
#define TIMEOUT_MS  5000
#define HELLO_MAX   (64u << 10)
#define REASON_MAX  300

/* What one ping brought; owned until it is handed to the peer. */
struct hello {
	char *error; /* NULL: all is well */
	char *version, *certificate, *back;
	bool have_skew;
	int64_t rtt_us, skew_ms;
};

/* A partner's words on our one line. */
static char *printable(const char *s)
{
	char *t = xasprintf("%.*s", REASON_MAX, s);

	for (char *p = t; *p; p++)
		if (*p < ' ' || *p > '~' || *p == '"')
			*p = ' ';
	return t;
}

static char *pem_of(X509 *cert)
{
	BIO *b = BIO_new(BIO_s_mem());
	char *text = NULL, *pem = NULL;

	if (b && PEM_write_bio_X509(b, cert)) {
		long n = BIO_get_mem_data(b, &text);

		pem = xasprintf("%.*s", (int)n, text);
	}
	BIO_free(b);
	return pem;
}

int64_t certificate_expires_s(const char *pem)
{
	BIO *b = pem ? BIO_new_mem_buf(pem, -1) : NULL;
	X509 *x = b ? PEM_read_bio_X509(b, NULL, NULL, NULL) : NULL;
	struct tm tm;
	int64_t at = 0;

	if (x && ASN1_TIME_to_tm(X509_get0_notAfter(x), &tm))
		at = timegm(&tm);
	X509_free(x);
	BIO_free(b);
	return at;
}

/* ---- asking ------------------------------------------------------------ */

static void read_hello(const struct peer *p, const struct strbuf *body,
		       int64_t asked_ms, struct hello *ret)
{
	struct err e = { 0 };
	json_t *o = json_parse(body->buf, body->len, &e), *brief;
	const json_t *you = json_object_get(o, "you");
	const json_t *t = json_object_get(o, "time");
	const char *text = json_str_or(you, "error", "no reason given");

	if (!json_is_object(o)) {
		ret->error = xasprintf("its hello is not JSON: %.200s", e.text);
		json_decref(o);
		return;
	}
	if (strcmp(json_str_or(o, "party", ""), p->id)) {
		_cleanup_free_ char *who =
		    printable(json_str_or(o, "party", "nobody"));

		ret->error = xasprintf("party %.20s answered", who);
	}
	/* Without what changes from one ping to the next. */
	brief = json_copy(o);
	json_object_del(brief, "time");
	json_object_del(brief, "you");
	ret->version = json_text(brief, true);
	json_decref(brief);
	ret->have_skew = json_is_integer(t);
	if (ret->have_skew)
		ret->skew_ms = json_integer_value(t) - asked_ms;
	if (json_is_boolean(json_object_get(you, "ok")))
		ret->back = json_bool_or(you, "ok", false) ? xstrdup("")
							   : printable(text);
	json_decref(o);
}

static void ask(struct peer *p, struct hello *ret)
{
	struct wire_request q = { .method = "GET",
				  .target = (char *)"/v1/hello",
				  .timeout_ms = TIMEOUT_MS };
	struct wire_answer a = { 0 };
	struct err e = { 0 };
	struct timespec t0, t1;
	int64_t began = now_unix_ms();
	int r;

	sb_init(&a.body, HELLO_MAX);
	(void)clock_gettime(CLOCK_MONOTONIC, &t0);
	r = route_exchange(p, &q, &a, &e);
	(void)clock_gettime(CLOCK_MONOTONIC, &t1);
	ret->rtt_us = (t1.tv_sec - t0.tv_sec) * 1000000 +
		      (t1.tv_nsec - t0.tv_nsec) / 1000;
	if (r) {
		ret->error = printable(e.text);
	} else if (a.code != 200) {
		json_t *o = json_parse(a.body.buf, a.body.len, NULL);
		_cleanup_free_ char *why =
		    printable(json_str_or(o, "detail", ""));

		ret->error = xasprintf("it answered %u%s%s", a.code,
				       *why ? ": " : "", why);
		json_decref(o);
	} else {
		read_hello(p, &a.body, began + ret->rtt_us / 2000, ret);
	}
	sb_free(&a.body);
}

static void ping_once(struct peer *p)
{
	struct hello x = { 0 };
	bool opened;

	ask(p, &x);
	pthread_mutex_lock(&p->s->lock);
	/* Transfers may have met a silence that no ping has seen. */
	opened = !x.error && (!p->ok || p->trouble);
	p->asked = true;
	p->ok = !x.error;
	p->asked_ms = now_unix_ms();
	p->asked_mono_ms = now_mono_ms();
	p->rtt_us = x.rtt_us;
	free(p->error);
	p->error = x.error;
	if (x.version) {
		free(p->version);
		p->version = x.version;
	}
	if (p->ok) {
		free(p->back);
		p->back = x.back;
		p->have_skew = x.have_skew;
		p->skew_ms = x.skew_ms;
	} else {
		free(x.back);
	}
	if (opened) { /* what waited for the way goes now */
		p->message_after = 0;
		pthread_cond_broadcast(&p->message);
	}
	pthread_mutex_unlock(&p->s->lock);
	if (opened)
		out_wake(p);
}

void *ping_worker(void *arg)
{
	struct peer *p = arg;
	unsigned failures = 0;

	for (;;) {
		bool well;

		pthread_mutex_lock(&p->s->lock);
		while (p->removed) /* a reload that brings it back wakes us */
			peer_sleep(p, &p->ping, REMOVED_MS);
		pthread_mutex_unlock(&p->s->lock);
		ping_once(p);
		pthread_mutex_lock(&p->s->lock);
		/* Also while it does not reach us: that may be old news. */
		well = p->ok && (!p->back || !*p->back);
		failures = well ? 0 : failures + 1;
		if (!p->ping_wake)
			peer_sleep(
			    p, &p->ping,
			    well ? PING_MS
				 : backoff_ms(failures, PING_MIN_MS, PING_MS));
		p->ping_wake = false;
		pthread_mutex_unlock(&p->s->lock);
	}
	return NULL;
}

void peer_ping(struct site *s, const char *party)
{
	struct peer *p = peer_get(s, party);

	if (!p)
		return;
	pthread_mutex_lock(&s->lock);
	p->ping_wake = true;
	pthread_cond_broadcast(&p->ping); /* pollers sleep there too */
	pthread_mutex_unlock(&s->lock);
}

/* ---- telling ----------------------------------------------------------- */

/* lock held: why messages wait or a request failed since the last ping, NULL if
 * none did */
static char *newer_trouble(const struct peer *p)
{
	if (p->message_trouble && p->message_failed_ms > p->asked_mono_ms)
		return printable(p->message_trouble);
	return p->trouble && p->failed_ms > p->asked_mono_ms
		   ? printable(p->trouble)
		   : NULL;
}

/* lock held; the line of parties/<id>/ping */
static void ping_line(const struct peer *p, struct strbuf *sb)
{
	_cleanup_free_ char *trouble = NULL;
	const json_t *version;
	int64_t expires = certificate_expires_s(p->certificate);
	json_t *o;
	char when[40];

	if (!p->asked) {
		sb_adds(sb, "unknown, not asked yet\n");
		return;
	}
	trouble = newer_trouble(p);
	if (!p->ok)
		sb_addf(sb, "failed %s", p->error);
	else if (trouble)
		sb_addf(sb, "failed %s", trouble);
	else
		sb_addf(sb, "ok %.1f ms rtt=%.1fms", (double)p->rtt_us / 1000,
			(double)p->rtt_us / 1000);
	sb_addf(sb, " back=%s",
		!p->back   ? "unknown"
		: *p->back ? "failed"
			   : "ok");
	o = p->version ? json_parse(p->version, strlen(p->version), NULL)
		       : NULL;
	version = json_object_get(o, "version");
	if (json_is_string(version)) {
		_cleanup_free_ char *v = printable(json_string_value(version));

		sb_addf(sb, " version=%s", v);
	}
	json_decref(o);
	if (expires) {
		time_rfc3339(when, sizeof(when), expires * 1000);
		sb_addf(sb, " certificate=%.10s", when);
	}
	if (p->have_skew)
		sb_addf(sb, " skew=%+.3fs", (double)p->skew_ms / 1000);
	time_rfc3339(when, sizeof(when), p->asked_ms);
	sb_addf(sb, " time=%s", when);
	if (p->back && *p->back)
		sb_addf(sb, " back_error=\"%s\"", p->back);
	sb_addc(sb, '\n');
}

json_t *peer_texts(struct site *s, const char *party)
{
	struct peer *p = peer_get(s, party);
	_cleanup_free_ char *transfers = p ? file_transfers(s, party) : NULL;
	_cleanup_strbuf_ struct strbuf ping = STRBUF_INIT(8192);
	json_t *o;

	if (!p)
		return NULL;
	pthread_mutex_lock(&s->lock);
	ping_line(p, &ping);
	o = json_pack("{s:s, s:s, s:s, s:s?, s:b, s:I}", "ping", ping.buf,
		      "version", p->version ? p->version : "", "transfers",
		      transfers ? transfers : "", "certificate", p->certificate,
		      "ok", p->asked && p->ok, "asked",
		      (json_int_t)(p->asked ? p->asked_ms : 0));
	pthread_mutex_unlock(&s->lock);
	if (o)
		json_object_set_new(o, "polled",
				    json_integer(reverse_last_ms(p)));
	return o;
}

json_t *hello_doc(struct site *s, const char *party, X509 *cert)
{
	json_t *o =
	    json_pack("{s:s, s:i, s:s, s:I, s:[s, s, s]}", "party",
		      s->conf->party, "protocol", PROTOCOL_VERSION, "version",
		      rollfs_version(), "time", (json_int_t)now_unix_ms(),
		      "features", "chunks", "relay", "reverse");
	char *pem = cert ? pem_of(cert) : NULL;
	json_t *you = NULL;
	struct peer *p;

	pthread_mutex_lock(&s->lock);
	p = peer_find_locked(s, party);
	if (p) {
		/* Where we connect, route.c has seen the whole chain. */
		if (pem && (!p->certificate || p->route == ROUTE_REVERSE)) {
			free(p->certificate);
			p->certificate = TAKE_PTR(pem);
		}
		if (p->asked && p->ok)
			you = json_pack("{s:s, s:b, s:f}", "party", party, "ok",
					1, "rtt_ms", (double)p->rtt_us / 1000);
		else if (p->asked)
			you = json_pack("{s:s, s:b, s:s}", "party", party, "ok",
					0, "error", p->error);
	}
	pthread_mutex_unlock(&s->lock);
	free(pem);
	if (o && you)
		json_object_set_new(o, "you", you);
	return o;
}
