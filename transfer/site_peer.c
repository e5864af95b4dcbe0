// SPDX-License-Identifier: Apache-2.0
/*
 * The parties, each with threads of its own (a dead party never slows another),
 * and calls to them.
 */
#include <time.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/transfer_priv.h"

void site_thread(void *(*fn)(void *), void *arg, size_t stack)
{
	pthread_attr_t a;
	pthread_t t;

	pthread_attr_init(&a);
	pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&a, stack);
	if (pthread_create(&t, &a, fn, arg))
		log_error("rollsite", "cannot start a thread");
	pthread_attr_destroy(&a);
}

void peer_sleep(struct peer *p, pthread_cond_t *c, int64_t ms)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += ms / 1000;
	ts.tv_nsec += (ms % 1000) * 1000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	pthread_cond_timedwait(c, &p->s->lock, &ts);
}

/* ---- calls ------------------------------------------------------------- */

static int rpc_once(struct peer *p, const char *verb, const char *body,
		    size_t n, int64_t left_ms, struct strbuf *ret,
		    struct err *e)
{
	_cleanup_free_ char *target = xasprintf("/v1/rpc/%s", verb);
	struct wire_request q = { .method = "POST",
				  .target = target,
				  .timeout_ms = (unsigned)left_ms,
				  .body = body,
				  .n = n };
	struct wire_answer a = { .body = *ret };
	int r;

	hook_wire(target, body, n);
	r = route_exchange(p, &q, &a, e);
	*ret = a.body;
	if (r)
		return r;
	hook_wire("answer", ret->buf, ret->len);
	r = http_to_status((long)a.code);
	if (r == -EEXIST)
		r = -EBUSY; /* 409 of a call */
	if (r) {
		json_t *o = json_parse(ret->buf, ret->len, NULL);
		const char *detail = json_str_or(o, "detail", NULL);

		err_set(e, -r, "party %s: %s", p->id,
			detail			     ? detail
			: ret->len && ret->len < 300 ? ret->buf
			: r == -ETIMEDOUT	     ? "no answer in time"
						     : "refused");
		json_decref(o);
	}
	return r;
}

int peer_rpc(struct site *s, const char *party, const char *verb,
	     const char *body, size_t n, unsigned timeout_ms,
	     struct strbuf *ret, struct err *e)
{
	int64_t deadline = now_mono_ms() + timeout_ms, unreachable = 0;
	struct peer *p;
	int r;

	if (!strcmp(party, s->conf->party)) {
		r = call_run(s, party, verb, body, n, timeout_ms, ret);
		return r ? err_set(e, -r, "%s",
				   ret->len ? ret->buf : "no answer")
			 : 0;
	}
	p = peer_get(s, party);
	if (!p)
		return err_set(e, EHOSTUNREACH, "no party %s is configured",
			       party);
	for (;;) {
		int64_t now, left = deadline - now_mono_ms();
		struct timespec pause = { 0, 30000000 };

		sb_reset(ret);
		r = rpc_once(p, verb, body, n, MAX(MIN(left, 60000), 1), ret,
			     e);
		now = now_mono_ms();
		if ((r != -EHOSTUNREACH && r != -EAGAIN) || now >= deadline)
			break;
		/* A partner's rollsite may just be starting again: a second's
		 * patience, no more, since it may also be down.  While it
		 * answers, its rollfs is waited for. */
		if (r == -EAGAIN)
			unreachable = 0;
		else if (!unreachable)
			unreachable = now;
		else if (now - unreachable > 1000)
			break;
		nanosleep(&pause, NULL);
	}
	if (r == -EAGAIN)
		r = err_set(e, EHOSTUNREACH,
			    "party %s: its rollfs is not "
			    "running",
			    party);
	return r;
}

/* ---- the list of peers ------------------------------------------------- */

/* With s->lock, or before anybody else knows p. */
static void set_route(struct peer *p, const char *address)
{
	char *url = xstrdup(address ? address : "");

	url[strcspn(url, "\r\n")] = '\0';
	p->removed = !address;
	p->via[0] = '\0';
	if (!strncmp(url, "via ", 4)) {
		p->route = ROUTE_VIA;
		(void)snprintf(p->via, sizeof(p->via), "%.15s", url + 4);
	} else if (!strcmp(url, "reverse")) {
		p->route = ROUTE_REVERSE;
	} else {
		p->route = *url ? ROUTE_DIRECT : ROUTE_NONE;
	}
	free(p->url);
	p->url = url;
}

/* lock held */
struct peer *peer_find_locked(struct site *s, const char *party)
{
	struct peer *p;

	for (p = s->peers; p; p = p->next)
		if (!strcmp(p->id, party))
			break;
	return p && p->removed ? NULL : p;
}

static struct peer *peer_new(struct site *s, const char *party,
			     const char *address)
{
	struct peer *p = xcalloc(1, sizeof(*p));
	pthread_condattr_t monotonic;

	p->s = s;
	(void)snprintf(p->id, sizeof(p->id), "%s", party);
	set_route(p, address);
	p->window = PEER_WORKERS;
	p->want = xasprintf("rollfs://%s/party/%s", s->conf->federation, party);
	p->dir = xasprintf("%s/transfer/out/%s", s->conf->state, party);
	if (mkdir_p_durable(p->dir, 0700,
			    NULL)) /* the first message will fail */
		log_warn("rollsite", "cannot make %s", p->dir);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&p->message, &monotonic);
	pthread_cond_init(&p->ping, &monotonic);
	pthread_cond_init(&p->work, &monotonic);
	pthread_cond_init(&p->disk, &monotonic);
	sb_init(&p->records, 64u << 20);
	pthread_condattr_destroy(&monotonic);
	return p;
}

struct peer *peer_get(struct site *s, const char *party)
{
	_cleanup_free_ char *address = NULL;
	struct message_replay *replay = NULL;
	struct peer *p, *other;
	struct err e = { 0 };

	pthread_mutex_lock(&s->lock);
	p = peer_find_locked(s, party);
	pthread_mutex_unlock(&s->lock);
	if (p)
		return p;
	address = party_address(s->conf, party);
	if (!address || !strcmp(party, s->conf->party))
		return NULL;
	p = peer_new(s, party, address);
	pthread_mutex_lock(&s->lock);
	for (other = s->peers; other; other = other->next)
		if (!strcmp(other->id, party))
			break;
	if (other) { /* met at the same time, or removed and back again */
		set_route(other, address);
	} else {
		/* What was on its way when rollsite ended goes on. */
		if (message_open(p, &replay, &e)) {
			log_error("rollsite", "%s", e.text);
			pthread_mutex_unlock(&s->lock);
			return NULL; /* what was allocated is not worth much */
		}
		p->next = s->peers;
		s->peers = p;
	}
	pthread_mutex_unlock(&s->lock);
	if (other) {
		free(p->url);
		free(p->want);
		free(p->dir);
		free(p);
		return other;
	}
	message_start(p, replay);
	site_thread(ping_worker, p, 512u << 10);
	if (!s->conf->listen_host)
		reverse_poll_start(p);
	return p;
}

void peer_reload(struct site *s)
{
	char **ids = party_list(s->conf);

	identity_refresh(s->identity);
	pthread_mutex_lock(&s->lock);
	for (struct peer *p = s->peers; p; p = p->next) {
		_cleanup_free_ char *address = party_address(s->conf, p->id);

		set_route(p, address);
		p->after = p->message_after = 0;
		p->failures = p->message_failures = 0;
		p->ping_wake = true;
		pthread_cond_broadcast(&p->ping);
		pthread_cond_broadcast(&p->work);
		pthread_cond_broadcast(&p->message);
	}
	pthread_mutex_unlock(&s->lock);
	for (char **id = ids; *id; id++) {
		(void)peer_get(s, *id);
		free(*id);
	}
	free(ids);
}

int peer_rescan(struct site *s, struct err *e)
{
	char **ids = party_list(s->conf);

	(void)e;
	for (char **id = ids; *id; id++) {
		(void)peer_get(s, *id);
		free(*id);
	}
	free(ids);
	return 0;
}
