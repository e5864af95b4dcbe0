// SPDX-License-Identifier: Apache-2.0
/* Intersection at a host, which answers the guest. */
#include <string.h>

#include "components/crypto/util.h"
#include "components/intersection.h"

static int host_hello(struct psi *p, struct psi_greeting *guest,
		      struct psi_cache *cache, struct err *e)
{
	size_t n = ctx_count(p->c, "host") + 1, got = 0;
	uint8_t own[PSI_SALT];
	_cleanup_free_ uint8_t *all = NULL;
	json_t *v;
	int rc = p->cached ? psi_cache_host(p, cache, e) : 0;

	if (rc < 0)
		return rc;
	crypto_random(own, sizeof(own));
	v = psi_hello(p, own, cache->id);
	rc = ctx_send_json(p->c, "guest", 0, "host_hello", "", v, e);
	json_decref(v);
	v = NULL;
	if (rc == 0)
		rc = ctx_recv_json(p->c, "guest", 0, "guest_hello", "", &v, e);
	if (rc == 0)
		rc = psi_read_hello(p, v, guest, e);
	json_decref(v);
	if (rc == 0)
		rc = ctx_recv_fixed(p->c, "guest", 0, "salts", "", PSI_SALT, n,
				    &all, &got, e);
	if (rc < 0)
		return rc;
	if (!all || got != n || memcmp(all, guest->salt, PSI_SALT) != 0 ||
	    memcmp(all + (ctx_index(p->c) + 1) * PSI_SALT, own, PSI_SALT) != 0)
		return psi_fail(p, e, "the guest changed a salt");
	psi_mix_salt(p, all, n);
	/* A list that the guest has not is of no use. */
	if (strcmp(guest->cache, cache->id) != 0)
		psi_cache_end(cache);
	return 0;
}

/* The mirrored half: the host asks, too. */
static int begin_ask(struct psi *p, const struct psi_greeting *guest,
		     struct psi_ask *ask, struct err *e)
{
	_cleanup_free_ void *key = NULL;
	size_t len;
	int rc;

	ask->p = p;
	ask->role = "guest";
	ask->share = ASKED_BY_HOST;
	ask->count = guest->share[ASKED_BY_HOST];
	rc = ctx_recv_bytes(p->c, "guest", 0, "guest_pubkey", "", 1024, &key,
			    &len, e);
	return rc < 0 ? rc
		      : psi_asker(p->method, p->bits, p->salt, key, len,
				  &ask->side, e);
}

static int exchange(struct psi *p, struct psi_reply *r, struct psi_ask *ask,
		    struct err *e)
{
	size_t steps = psi_reply_steps(r), asking = 0;
	struct psi_asking a = { 0 };
	int rc = 0;

	if (p->split) {
		psi_asking_begin(&a, p, ask, 1);
		asking = psi_asking_steps(&a);
		steps = MAX(steps, asking);
	}
	for (size_t k = 0; k < steps && rc == 0; k++) {
		if (k < asking)
			rc = psi_asking_step(&a, k, e);
		if (rc == 0 && k < psi_reply_steps(r))
			rc = psi_reply_step(r, k, e);
		ctx_progress(p->c, 0.8 * (double)(k + 1) / (double)steps);
	}
	psi_asking_end(&a);
	return rc;
}

static int conclude(struct psi *p, struct psi_reply *r, struct psi_ask *ask,
		    uint32_t *count, struct err *e)
{
	_cleanup_free_ uint32_t *told = NULL;
	size_t n;
	int rc = 0;

	*count = 0;
	if (p->cardinality) {
		if (p->sync_cardinality)
			rc = ctx_recv_u32(p->c, "guest", 0, "cardinality", "",
					  1, &told, &n, e);
		if (rc < 0 || !p->sync_cardinality)
			return rc;
		if (n != 1 || told[0] > MIN(p->rows, r->count))
			return psi_fail(p, e, "a number that cannot be");
		*count = told[0];
		return 0;
	}
	if (p->split) {
		rc = psi_ask_join(ask, NULL, NULL, e);
		if (rc == 0)
			rc = psi_ask_tell(ask, 1, e);
	}
	if (rc == 0 && p->sync)
		rc = psi_reply_hear(r, count, e);
	if (p->split)
		*count += (uint32_t)ask->matched;
	return rc;
}

int intersection_host(struct psi *p, uint32_t *count, struct err *e)
{
	struct psi_greeting guest = { 0 };
	struct psi_cache cache = { 0 };
	struct psi_ask ask = { 0 };
	struct psi_reply r = { .p = p,
			       .role = "guest",
			       .share = ASKED_BY_GUEST };
	int rc = host_hello(p, &guest, &cache, e);

	if (rc == 0 && p->split)
		rc = psi_exchange_shares(p, "guest", &guest, e);
	r.count = guest.share[ASKED_BY_GUEST];
	if (rc == 0 && cache.list) {
		r.list = TAKE_PTR(cache.list);
		r.side = TAKE_PTR(cache.key);
		r.listed = true;
	}
	if (rc == 0)
		rc = psi_reply_open(&r, e);
	if (rc == 0 && p->split)
		rc = begin_ask(p, &guest, &ask, e);
	if (rc == 0)
		rc = exchange(p, &r, &ask, e);
	if (rc == 0)
		rc = psi_reply_finish(&r, !r.listed, e);
	if (rc == 0 && p->cached && !r.listed)
		psi_cache_save_host(p, &cache, r.side, r.list);
	if (rc == 0)
		rc = conclude(p, &r, &ask, count, e);
	psi_reply_end(&r);
	psi_ask_end(&ask);
	psi_cache_end(&cache);
	return rc;
}
