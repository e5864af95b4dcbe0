// SPDX-License-Identifier: Apache-2.0
/* Intersection at the guest, who alone matches. */
#include <string.h>

#include "components/crypto/util.h"
#include "components/intersection.h"

struct host {
	uint32_t count;
	struct psi_rsa *key;
	struct tag *own;    /* RSA: own tags under this host's key, by row */
	struct tag *list;   /* the host's, comparable with the own ones */
	uint32_t *match;    /* per own row: place in the host's list, NONE */
	uint8_t *secret[2]; /* RSA: blinding of the last two blocks */
};

static int guest_hello(struct psi *p, struct host *h, size_t n, struct err *e)
{
	_cleanup_free_ uint8_t *all = xcalloc(n + 1, PSI_SALT);
	json_t *own;
	int rc = 0;

	crypto_random(all, PSI_SALT);
	for (size_t i = 0; i < n && rc == 0; i++) {
		json_t *v = NULL;

		rc = ctx_recv_json(p->c, "host", i, "host_hello", "", &v, e);
		if (rc == 0)
			rc = psi_read_hello(p, v, all + (i + 1) * PSI_SALT,
					    &h[i].count, e);
		json_decref(v);
	}
	own = psi_hello(p, all);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = ctx_send_json(p->c, "host", i, "guest_hello", "", own, e);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = ctx_send_fixed(p->c, "host", i, "salts", "", all, PSI_SALT,
				    n + 1, e);
	json_decref(own);
	psi_mix_salt(p, all, n + 1);
	return rc;
}

static int guest_unblind(struct psi *p, struct host *h, size_t i, size_t k,
			 const struct block *b, struct err *e)
{
	_cleanup_free_ uint8_t *sig = NULL;
	_cleanup_free_ uint8_t *tags = xmalloc((size_t)BLOCK * PSI_TAG);
	int rc = psi_recv_exact(p, "host", i, "host_sign_guest_ids", k,
				psi_rsa_width(h->key), b->ids.n, &sig, e);

	if (rc == 0)
		rc = psi_rsa_unblind(h->key, p->salt, &b->ids, sig,
				     h->secret[k % 2], p->cores, tags, e);
	for (size_t j = 0; rc == 0 && j < b->ids.n; j++) {
		struct tag *t = &h->own[k * BLOCK + j];

		memcpy(t->b, tags + j * PSI_TAG, PSI_TAG);
		t->at = (uint32_t)(k * BLOCK + j);
	}
	return rc;
}

static int guest_rsa(struct psi *p, struct host *h, size_t n, struct err *e)
{
	_cleanup_(psi_block_freep) struct block *b0 = psi_block_new();
	_cleanup_(psi_block_freep) struct block *b1 = psi_block_new();
	struct block *b[2] = { b0, b1 };
	_cleanup_free_ uint8_t *out = NULL;
	size_t width = 0;
	char tag[24];
	int rc;

	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ void *mod = NULL;
		size_t len;

		rc = ctx_recv_bytes(p->c, "host", i, "host_pubkey", "", 1024,
				    &mod, &len, e);
		if (rc == 0)
			rc = psi_rsa_read(mod, len, &h[i].key, e);
		if (rc < 0)
			return rc;
		width = MAX(width, len);
		h[i].own = xcalloc(p->rows + 1, sizeof(*h[i].own));
		for (size_t j = 0; j < 2; j++)
			h[i].secret[j] = xmalloc(BLOCK * len);
	}
	out = xmalloc(BLOCK * width + 1);
	/* The hosts sign block k while block k - 1 is worked off here. */
	for (size_t k = 0; k <= psi_blocks(p->rows); k++) {
		if (k < psi_blocks(p->rows)) {
			rc = psi_next_block(p, b[k % 2], e);
			if (rc < 0)
				return rc;
		}
		for (size_t i = 0; i < n && k < psi_blocks(p->rows); i++) {
			rc =
			    psi_rsa_blind(h[i].key, p->salt, &b[k % 2]->ids,
					  p->cores, out, h[i].secret[k % 2], e);
			if (rc == 0)
				rc = ctx_send_fixed(p->c, "host", i,
						    "guest_pubkey_ids",
						    psi_block_tag(tag, k), out,
						    psi_rsa_width(h[i].key),
						    b[k % 2]->ids.n, e);
			if (rc < 0)
				return rc;
		}
		for (size_t i = 0; i < n && k > 0; i++) {
			rc = guest_unblind(p, &h[i], i, k - 1, b[(k - 1) % 2],
					   e);
			if (rc < 0)
				return rc;
		}
		ctx_progress(p->c, 0.6 * (double)k /
				       (double)(psi_blocks(p->rows) + 1));
	}
	for (size_t i = 0; i < n; i++) {
		rc = psi_recv_tags(p, "host", i, "host_prvkey_ids", h[i].count,
				   &h[i].list, e);
		if (rc < 0)
			return rc;
		ctx_progress(p->c, 0.6 + 0.3 * (double)(i + 1) / (double)n);
	}
	return 0;
}

/* The host's points times the own key. */
static int guest_double(struct psi *p, struct host *h, struct err *e)
{
	_cleanup_free_ uint8_t *buf = xmalloc((size_t)BLOCK * PSI_TAG);

	for (size_t k = 0; k < psi_blocks(h->count); k++) {
		struct tag *t = h->list + k * BLOCK;
		size_t n = psi_block_len(h->count, k);
		int rc;

		for (size_t j = 0; j < n; j++)
			memcpy(buf + j * PSI_TAG, t[j].b, PSI_TAG);
		rc = psi_ecdh_points(p->key, buf, n, p->cores, buf, e);
		if (rc < 0)
			return rc;
		for (size_t j = 0; j < n; j++)
			memcpy(t[j].b, buf + j * PSI_TAG, PSI_TAG);
	}
	qsort(h->list, h->count, sizeof(*h->list), psi_cmp_tag);
	return 0;
}

static int guest_ecdh(struct psi *p, struct host *h, size_t n, struct err *e)
{
	_cleanup_free_ struct tag *own = NULL;
	int rc = psi_own_tags(p, NULL, &own, 0.3, e);

	for (size_t i = 0; i < n && rc == 0; i++)
		rc = psi_send_tags(p, "host", i, "id_ciphertext_exchange_g2h",
				   own, e);
	for (size_t i = 0; i < n && rc == 0; i++) {
		rc = psi_recv_tags(p, "host", i, "id_ciphertext_exchange_h2g",
				   h[i].count, &h[i].list, e);
		if (rc == 0)
			rc = guest_double(p, &h[i], e);
		ctx_progress(p->c, 0.3 + 0.4 * (double)(i + 1) / (double)n);
	}
	for (size_t i = 0; i < n && rc == 0; i++) {
		h[i].own = xcalloc(p->rows + 1, sizeof(*own));
		for (size_t k = 0; k < psi_blocks(p->rows) && rc == 0; k++) {
			_cleanup_free_ uint8_t *v = NULL;
			size_t len = psi_block_len(p->rows, k);

			rc = psi_recv_exact(p, "host", i, "doubly_encrypted_id",
					    k, PSI_TAG, len, &v, e);
			for (size_t j = 0; rc == 0 && j < len; j++) {
				size_t at = k * BLOCK + j;

				memcpy(h[i].own[at].b, v + j * PSI_TAG,
				       PSI_TAG);
				h[i].own[at].at = own[at].at;
			}
		}
	}
	return rc;
}

static int cmp_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* Marks the rows all hosts have and tells each which of its own these are:
 * places in its own list, ascending. */
static int guest_match(struct psi *p, struct host *h, size_t n, uint32_t *count,
		       struct err *e)
{
	_cleanup_free_ uint32_t *place = NULL;

	memset(p->keep, 1, p->rows);
	for (size_t i = 0; i < n; i++) {
		h[i].match = xcalloc(p->rows + 1, sizeof(uint32_t));
		for (uint32_t r = 0; r < p->rows; r++) {
			const struct tag *own = &h[i].own[r];
			const struct tag *t =
			    h[i].count ? bsearch(own, h[i].list, h[i].count,
						 sizeof(*t), psi_cmp_tag)
				       : NULL;

			h[i].match[own->at] = t ? t->at : NONE;
			if (!t)
				p->keep[own->at] = 0;
		}
	}
	*count = 0;
	for (uint32_t r = 0; r < p->rows; r++)
		*count += p->keep[r];
	if (!p->sync)
		return 0;
	place = xcalloc((size_t)*count + 1, sizeof(*place));
	for (size_t i = 0; i < n; i++) {
		size_t at = 0;
		int rc;

		for (uint32_t r = 0; r < p->rows; r++)
			if (p->keep[r])
				place[at++] = h[i].match[r];
		qsort(place, at, sizeof(*place), cmp_u32);
		rc = ctx_send_u32(p->c, "host", i, "intersect_ids", "", place,
				  at, e);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int intersection_guest(struct psi *p, uint32_t *count, struct err *e)
{
	size_t n = ctx_count(p->c, "host");
	_cleanup_free_ struct host *h = xcalloc(n + 1, sizeof(*h));
	int rc = guest_hello(p, h, n, e);

	if (rc == 0)
		rc = p->rsa ? guest_rsa(p, h, n, e) : guest_ecdh(p, h, n, e);
	if (rc == 0)
		rc = guest_match(p, h, n, count, e);
	for (size_t i = 0; i < n; i++) {
		psi_rsa_free(h[i].key);
		free(h[i].own);
		free(h[i].list);
		free(h[i].match);
		free(h[i].secret[0]);
		free(h[i].secret[1]);
	}
	return rc;
}
