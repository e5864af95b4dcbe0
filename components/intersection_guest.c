// SPDX-License-Identifier: Apache-2.0
/* Intersection at the guest, which asks all hosts, and learns for all. */
#include <string.h>

#include "components/crypto/util.h"
#include "components/intersection.h"

struct host {
	struct psi_greeting hello;
	struct psi_cache cache;
	struct psi_reply reply; /* when the work is split */
};

static int guest_hello(struct psi *p, struct host *h, size_t n, struct err *e)
{
	_cleanup_free_ uint8_t *all = xcalloc(n + 1, PSI_SALT);
	int rc = 0;

	crypto_random(all, PSI_SALT);
	for (size_t i = 0; i < n && rc == 0; i++) {
		json_t *v = NULL;

		rc = ctx_recv_json(p->c, "host", i, "host_hello", "", &v, e);
		if (rc == 0)
			rc = psi_read_hello(p, v, &h[i].hello, e);
		json_decref(v);
		memcpy(all + (i + 1) * PSI_SALT, h[i].hello.salt, PSI_SALT);
		if (rc == 0 && p->cached)
			psi_cache_guest(p, i, &h[i].hello, &h[i].cache);
	}
	for (size_t i = 0; i < n && rc == 0; i++) {
		json_t *own = psi_hello(p, all, h[i].cache.id);

		rc = ctx_send_json(p->c, "host", i, "guest_hello", "", own, e);
		json_decref(own);
	}
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = ctx_send_fixed(p->c, "host", i, "salts", "", all, PSI_SALT,
				    n + 1, e);
	psi_mix_salt(p, all, n + 1);
	return rc;
}

/* Askers of all hosts. One serves all when it needs no public key and the
 * salt is the same. */
static int make_asks(struct psi *p, struct host *h, struct psi_ask *ask,
		     size_t n, struct err *e)
{
	const char *key_name = psi_names(p, ASKED_BY_GUEST)->key;

	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ void *key = NULL;
		size_t len = 0;
		int rc = 0;

		ask[i].p = p;
		ask[i].role = "host";
		ask[i].index = i;
		ask[i].share = ASKED_BY_GUEST;
		ask[i].count = h[i].hello.share[ASKED_BY_GUEST];
		if (i > 0 && !key_name && !p->cached) {
			ask[i].side = ask[0].side;
			ask[i].borrowed = true;
			continue;
		}
		if (key_name)
			rc = ctx_recv_bytes(p->c, "host", i, key_name, "", 1024,
					    &key, &len, e);
		if (rc == 0)
			rc = psi_asker(p->method, p->bits,
				       h[i].cache.list ? h[i].cache.salt
						       : p->salt,
				       key, len, &ask[i].side, e);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* The mirrored half: the guest answers its only host. */
static int begin_reply(struct psi *p, struct host *h, struct err *e)
{
	struct psi_reply *r = &h->reply;

	*r = (struct psi_reply){ .p = p,
				 .role = "host",
				 .share = ASKED_BY_HOST,
				 .count = h->hello.share[ASKED_BY_HOST] };
	return psi_reply_open(r, e);
}

static int join_all(struct psi *p, struct host *h, struct psi_ask *ask,
		    size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		struct psi_cache *cache = &h[i].cache;
		struct spool *copy = NULL;
		int rc;

		if (p->cached && !cache->list)
			copy = psi_spool(p, PSI_TAG, 0);
		rc = psi_ask_join(&ask[i], cache->list, copy, e);
		if (rc == 0 && copy)
			psi_cache_save_guest(p, i, copy);
		spool_free(copy);
		if (rc < 0)
			return rc;
		ctx_progress(p->c, 0.6 + 0.3 * (double)(i + 1) / (double)n);
	}
	return 0;
}

static int exchange(struct psi *p, struct host *h, struct psi_ask *ask,
		    size_t n, struct err *e)
{
	struct psi_reply *r = p->split ? &h->reply : NULL;
	struct psi_asking all;
	size_t steps;
	int rc = 0;

	psi_asking_begin(&all, p, ask, n);
	steps = psi_asking_steps(&all);
	if (r)
		steps = MAX(steps, psi_reply_steps(r));
	for (size_t k = 0; k < steps && rc == 0; k++) {
		if (k < psi_asking_steps(&all))
			rc = psi_asking_step(&all, k, e);
		if (rc == 0 && r && k < psi_reply_steps(r))
			rc = psi_reply_step(r, k, e);
		ctx_progress(p->c, 0.6 * (double)(k + 1) / (double)steps);
	}
	psi_asking_end(&all);
	if (rc == 0 && r)
		rc = psi_reply_finish(r, true, e);
	return rc;
}

/* Counts the rows that all hosts have, and tells them. */
static int conclude(struct psi *p, struct host *h, struct psi_ask *ask,
		    size_t n, uint32_t *count, struct err *e)
{
	unsigned need = (unsigned)n;
	uint32_t mirrored;
	int rc = 0;

	if (p->cardinality) {
		*count = (uint32_t)ask[0].matched;
		return p->sync_cardinality
			   ? ctx_send_u32(p->c, "host", 0, "cardinality", "",
					  count, 1, e)
			   : 0;
	}
	if (p->sync)
		for (size_t i = 0; i < n && rc == 0; i++)
			rc = psi_ask_tell(&ask[i], need, e);
	if (rc == 0 && p->split)
		rc = psi_reply_hear(&h->reply, &mirrored, e);
	*count = 0;
	for (uint32_t r = 0; r < p->rows; r++)
		*count += p->keep[r] = p->keep[r] == need;
	return rc;
}

int intersection_guest(struct psi *p, uint32_t *count, struct err *e)
{
	size_t n = ctx_count(p->c, "host");
	_cleanup_free_ struct host *h = xcalloc(n + 1, sizeof(*h));
	_cleanup_free_ struct psi_ask *ask = xcalloc(n + 1, sizeof(*ask));
	int rc = n > UINT8_MAX ? err_set(e, E2BIG, "more than 255 hosts")
			       : guest_hello(p, h, n, e);

	if (rc == 0 && p->split)
		rc = psi_exchange_shares(p, "host", &h->hello, e);
	if (rc == 0 && p->split)
		rc = begin_reply(p, h, e);
	if (rc == 0)
		rc = make_asks(p, h, ask, n, e);
	if (rc == 0)
		rc = exchange(p, h, ask, n, e);
	if (rc == 0)
		rc = join_all(p, h, ask, n, e);
	if (rc == 0)
		rc = conclude(p, h, ask, n, count, e);
	for (size_t i = n; i-- > 0;) {
		psi_ask_end(&ask[i]);
		psi_cache_end(&h[i].cache);
		psi_reply_end(&h[i].reply);
	}
	return rc;
}
