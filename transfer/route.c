// SPDX-License-Identifier: Apache-2.0
/*
 * The way to a party: a connection of ours, or an answer to its poll
 * (reverse.c), or through others (relay.c).
 */
#include "lib/log.h"

#include "transfer/transfer_priv.h"

#define HOPS_MAX 8

/* ---- one hop ----------------------------------------------------------- */

struct tag {		     /* of a handle: as things were when it was made */
	uint64_t generation; /* of our certificate */
	unsigned renewed;    /* peer's */
};

static void handle_free(CURL *h)
{
	struct tag *t = NULL;

	if (!h)
		return;
	curl_easy_getinfo(h, CURLINFO_PRIVATE, (char **)&t);
	curl_easy_cleanup(h);
	free(t);
}

static CURL *handle_take(struct peer *p)
{
	uint64_t now = identity_generation(p->s->identity);
	struct tag *t = NULL;
	CURL *h = NULL;
	unsigned renewed;

	pthread_mutex_lock(&p->s->lock);
	if (p->n_pool)
		h = p->pool[--p->n_pool];
	renewed = p->renewed;
	pthread_mutex_unlock(&p->s->lock);
	if (h) {
		curl_easy_getinfo(h, CURLINFO_PRIVATE, (char **)&t);
		if (t && t->generation == now && t->renewed == renewed)
			return h;
		handle_free(h); /* it shows a certificate of the past */
	}
	/* curl reads the files anew: signatures must be of the same key. */
	identity_refresh(p->s->identity);
	now = identity_generation(p->s->identity);
	h = client_new(p->s->conf, p->want);
	if (!h)
		return NULL;
	t = xcalloc(1, sizeof(*t));
	t->generation = now;
	t->renewed = renewed;
	curl_easy_setopt(h, CURLOPT_PRIVATE, t);
	return h;
}

static void handle_give(struct peer *p, CURL *h)
{
	pthread_mutex_lock(&p->s->lock);
	if (p->n_pool < PEER_POOL) {
		p->pool[p->n_pool++] = h;
		h = NULL;
	}
	pthread_mutex_unlock(&p->s->lock);
	handle_free(h);
}

void route_renew(struct peer *p)
{
	CURL *old[PEER_POOL];
	size_t n;

	pthread_mutex_lock(&p->s->lock);
	n = p->n_pool;
	memcpy(old, p->pool, sizeof(old));
	p->n_pool = 0;
	p->renewed++; /* for the handles that are in use */
	free(p->certificate);
	p->certificate = NULL;
	if (p->card) {
		card_free(p->card);
		free(p->card);
	}
	p->card = NULL;
	pthread_mutex_unlock(&p->s->lock);
	for (size_t i = 0; i < n; i++)
		handle_free(old[i]);
}

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
	struct wire_answer *a = arg;
	char line[80];

	(void)snprintf(line, sizeof(line), "%.*s", (int)MIN(size * n, 79),
		       data);
	if (!strncasecmp(line, "Rollfs-Credit:", 14))
		a->credit = (unsigned)strtoul(line + 14, NULL, 10);
	else if (!strncasecmp(line, "Rollfs-Retry-Ms:", 16))
		a->retry_ms =
		    MIN((unsigned)strtoul(line + 16, NULL, 10), 600000u);
	return size * n;
}

static struct curl_slist *headers_of(const struct wire_request *q)
{
	struct curl_slist *l = curl_slist_append(NULL, "Expect:");
	char line[700];

	l = curl_slist_append(l, "Content-Type: application/octet-stream");
	if (q->digest) {
		(void)snprintf(line, sizeof(line), "Content-Digest: %s",
			       q->digest);
		l = curl_slist_append(l, line);
	}
	if (q->via) {
		(void)snprintf(line, sizeof(line), "Rollfs-Via: %s", q->via);
		l = curl_slist_append(l, line);
	}
	if (q->timeout_ms) {
		(void)snprintf(line, sizeof(line), "Rollfs-Timeout-Ms: %u",
			       q->timeout_ms);
		l = curl_slist_append(l, line);
	}
	return l;
}

static int curl_status(struct peer *p, CURLcode c, struct err *e)
{
	switch (c) {
	case CURLE_OPERATION_TIMEDOUT:
		return err_set(e, ETIMEDOUT, "party %s: no answer in time",
			       p->id);
	case CURLE_PEER_FAILED_VERIFICATION:
		return err_set(e, EACCES,
			       "party %s: its certificate is not accepted",
			       p->id);
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_COULDNT_CONNECT:
		return err_set(e, EHOSTUNREACH, "party %s: no route (%s)",
			       p->id, curl_easy_strerror(c));
	default:
		return err_set(e, EHOSTUNREACH, "party %s: %s", p->id,
			       curl_easy_strerror(c));
	}
}

static void keep_certificate(struct peer *p, CURL *h)
{
	long fresh = 0;
	char *pem;

	curl_easy_getinfo(h, CURLINFO_NUM_CONNECTS, &fresh);
	if (fresh < 1)
		return;
	pem = client_certificate(h);
	if (!pem)
		return;
	pthread_mutex_lock(&p->s->lock);
	free(p->certificate);
	p->certificate = pem;
	pthread_mutex_unlock(&p->s->lock);
}

static int direct(struct peer *p, const struct wire_request *q,
		  struct wire_answer *a, struct err *e)
{
	_cleanup_free_ char *url = NULL;
	struct curl_slist *headers;
	CURL *h = handle_take(p);
	CURLcode c;
	long code;
	bool body =
	    q->n || !strcmp(q->method, "PUT") || !strcmp(q->method, "POST");

	if (!h)
		return err_set(e, ENOMEM, "curl");
	pthread_mutex_lock(&p->s->lock);
	url = xasprintf("%s%s", p->url, q->target);
	pthread_mutex_unlock(&p->s->lock);
	headers = headers_of(q);
	if (body) {
		curl_easy_setopt(h, CURLOPT_POST, 1L);
		curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE,
				 (curl_off_t)q->n);
		curl_easy_setopt(h, CURLOPT_POSTFIELDS, q->body ? q->body : "");
	} else {
		curl_easy_setopt(h, CURLOPT_HTTPGET, 1L);
	}
	curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, q->method);
	curl_easy_setopt(h, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(h, CURLOPT_HEADERDATA, a);
	/* A peer that stands still is hung up on and tried again. */
	curl_easy_setopt(h, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(h, CURLOPT_LOW_SPEED_TIME, 60L);
	sb_reset(&a->body);
	c = client_perform(h, url, &a->body, headers,
			   q->timeout_ms ? (long)q->timeout_ms + 200 : 0,
			   &code);
	curl_slist_free_all(headers);
	a->code = (unsigned)code;
	if (c != CURLE_OK) {
		/* Nothing of it is used again. */
		handle_free(h);
		return curl_status(p, c, e);
	}
	keep_certificate(p, h);
	handle_give(p, h);
	return 0;
}

int route_hop(struct peer *p, const struct wire_request *q,
	      struct wire_answer *a, struct err *e)
{
	enum route_kind kind;

	pthread_mutex_lock(&p->s->lock);
	kind = p->removed ? ROUTE_NONE : p->route;
	pthread_mutex_unlock(&p->s->lock);
	switch (kind) {
	case ROUTE_DIRECT:
		return direct(p, q, a, e);
	case ROUTE_REVERSE:
		return reverse_exchange(p, q, a, e);
	default:
		return err_set(e, EHOSTUNREACH,
			       "party %s: no route: parties/%s/address "
			       "is empty",
			       p->id, p->id);
	}
}

bool route_is_direct(const struct peer *p)
{
	bool yes;

	pthread_mutex_lock(&p->s->lock);
	yes = p->route == ROUTE_DIRECT;
	pthread_mutex_unlock(&p->s->lock);
	return yes;
}

/* The first relay on the way to p; p itself when there is none. */
struct peer *route_first_hop(struct peer *p, struct err *e)
{
	for (int i = 0; i < HOPS_MAX; i++) {
		char via[16];
		struct peer *next;
		bool more;

		pthread_mutex_lock(&p->s->lock);
		more = p->route == ROUTE_VIA && !p->removed;
		memcpy(via, p->via, sizeof(via));
		pthread_mutex_unlock(&p->s->lock);
		if (!more)
			return p;
		next = peer_get(p->s, via);
		if (!next) {
			(void)err_set(e, EHOSTUNREACH,
				      "party %s goes via party %s, which is "
				      "not configured",
				      p->id, via);
			return NULL;
		}
		p = next;
	}
	(void)err_set(e, ELOOP, "the routes of party %s go in a circle", p->id);
	return NULL;
}
