// SPDX-License-Identifier: Apache-2.0
/* Calls of partners' schedulers to the rollfs of this party. */
#include "lib/json.h"
#include "lib/log.h"

#include "transfer/transfer_priv.h"

struct call {
	struct call *next;
	uint64_t number;
	char *party, *verb, *body;
	size_t n;
	bool taken, answered;
	int client; /* the connection that took it */
	int status;
	char *error;
	char *answer;
	size_t answer_n;
};

static void call_free(struct call *c)
{
	free(c->party);
	free(c->verb);
	free(c->body);
	free(c->error);
	free(c->answer);
	free(c);
}

int call_run(struct site *s, const char *party, const char *verb,
	     const char *body, size_t n, unsigned timeout_ms,
	     struct strbuf *ret)
{
	int64_t deadline = now_mono_ms() + timeout_ms;
	struct call *c = xcalloc(1, sizeof(*c)), **p;
	char id[24];
	int status;

	c->party = xstrdup(party);
	c->verb = xstrdup(verb);
	c->body = xmalloc(n);
	memcpy(c->body, body, n);
	c->n = n;
	pthread_mutex_lock(&s->lock);
	c->number = ++s->next_call;
	for (p = &s->calls; *p; p = &(*p)->next)
		;
	*p = c;
	count_of(s, party)->calls++;
	(void)snprintf(id, sizeof(id), "%llu", (unsigned long long)c->number);
	site_wake(s, WAIT_CALL, NULL);
	while (!c->answered && now_mono_ms() < deadline) {
		unsigned left = (unsigned)MAX(deadline - now_mono_ms(), 1);

		/* Without a rollfs the caller tries again. */
		if (!c->taken && !s->servers && now_mono_ms() + 500 < deadline)
			left = MIN(left, 200);
		(void)site_wait(s, WAIT_ANSWER, id, -1, left);
		if (!c->taken && !s->servers &&
		    now_mono_ms() + (int64_t)timeout_ms - 200 > deadline)
			break;
	}
	for (p = &s->calls; *p && *p != c; p = &(*p)->next)
		;
	*p = c->next;
	status = c->answered ? c->status : c->taken ? -ETIMEDOUT : -EAGAIN;
	if (c->answered && c->answer)
		(void)sb_add(ret, c->answer, c->answer_n);
	else if (c->answered && c->error)
		(void)sb_adds(ret, c->error);
	pthread_mutex_unlock(&s->lock);
	call_free(c);
	return status;
}

int call_take(struct site *s, int client, json_t **ret_head,
	      struct strbuf *body)
{
	struct call *c;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	s->servers++;
	for (;;) {
		for (c = s->calls; c && c->taken; c = c->next)
			;
		if (c)
			break;
		if (!site_wait(s, WAIT_CALL, NULL, client, 0)) {
			r = -EPIPE;
			site_wake(s, WAIT_CALL, NULL); /* it was meant for us */
			break;
		}
	}
	s->servers--;
	if (c) {
		c->taken = true;
		c->client = client;
		*ret_head = json_pack("{s:i, s:I, s:s, s:s}", "status", 0,
				      "call", (json_int_t)c->number, "party",
				      c->party, "verb", c->verb);
		r = sb_add(body, c->body, c->n);
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

void call_lost(struct site *s, int client)
{
	pthread_mutex_lock(&s->lock);
	for (struct call *c = s->calls; c; c = c->next)
		if (c->taken && !c->answered && c->client == client)
			c->taken = false;
	for (const struct call *c = s->calls; c; c = c->next)
		if (!c->taken)
			site_wake(s, WAIT_CALL, NULL);
	pthread_mutex_unlock(&s->lock);
}

void call_answer(struct site *s, uint64_t number, int status, const char *error,
		 const char *body, size_t n)
{
	struct call *c;
	char id[24];

	pthread_mutex_lock(&s->lock);
	for (c = s->calls; c; c = c->next)
		if (c->number == number)
			break;
	if (c && !c->answered) {
		c->answered = true;
		c->status = status;
		c->error = error ? xstrdup(error) : NULL;
		if (n) {
			c->answer = xmalloc(n);
			memcpy(c->answer, body, n);
			c->answer_n = n;
		}
		(void)snprintf(id, sizeof(id), "%llu",
			       (unsigned long long)number);
		site_wake(s, WAIT_ANSWER, id);
	}
	pthread_mutex_unlock(&s->lock);
}
