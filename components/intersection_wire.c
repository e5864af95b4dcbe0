// SPDX-License-Identifier: Apache-2.0
/* Intersection: what both sides read, send and receive. */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include "components/intersection.h"
#include "lib/json.h"

int psi_cmp_tag(const void *a, const void *b)
{
	return memcmp(a, b, PSI_TAG);
}

int psi_next_block(struct psi *p, struct block *b, struct err *e)
{
	const struct cell *cells;
	const char *key;
	size_t len;
	int rc = 0;

	sb_reset(&b->text);
	b->ids.n = 0;
	if (!p->it && (rc = table_scan(p->t, NULL, 0, &p->it, e)) < 0)
		return rc;
	while (b->ids.n < BLOCK &&
	       (rc = table_next(p->it, &key, &len, &cells, e)) > 0) {
		if (sb_add(&b->text, key, len) < 0)
			return err_set(e, ENOMEM, "ids of a block");
		b->end[b->ids.n++] = (uint32_t)b->text.len;
	}
	b->ids.text = b->text.buf;
	b->ids.end = b->end;
	if (b->ids.n < BLOCK) {
		table_scan_end(p->it);
		p->it = NULL;
	}
	return rc < 0 ? rc : 0;
}

struct block *psi_block_new(void)
{
	struct block *b = xcalloc(1, sizeof(*b));

	sb_init(&b->text, (size_t)BLOCK * TABLE_KEY_MAX + 1);
	return b;
}

void psi_block_freep(struct block **b)
{
	if (*b) {
		sb_free(&(*b)->text);
		free(*b);
	}
}

int psi_fail(struct psi *p, struct err *e, const char *what)
{
	ctx_fail_code(p->c, "intersection",
		      "the parties do not agree on the intersection");
	return err_set(e, EPROTO, "%s", what);
}

static void hex(const uint8_t *b, char out[2 * PSI_SALT + 1])
{
	for (size_t i = 0; i < PSI_SALT; i++)
		(void)snprintf(out + 2 * i, 3, "%02x", b[i]);
}

static bool unhex(const char *s, uint8_t b[PSI_SALT])
{
	if (strlen(s) != 2 * PSI_SALT ||
	    strspn(s, "0123456789abcdef") != 2 * PSI_SALT)
		return false;
	for (size_t i = 0; i < PSI_SALT; i++) {
		char two[3] = { s[2 * i], s[2 * i + 1], 0 };

		b[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	return true;
}

/* Parameters that must agree, keyed so that the salt cannot be guessed. */
static void params_digest(struct psi *p, uint8_t ret[32])
{
	_cleanup_free_ char *text =
	    xasprintf("intersection v1 %s %d %s", p->rsa ? "rsa" : "ecdh",
		      p->sync, p->param_salt);

	(void)HMAC(EVP_sha256(), ctx_secret(p->c), 32, (const uint8_t *)text,
		   strlen(text), ret, NULL);
}

json_t *psi_hello(struct psi *p, const uint8_t own[PSI_SALT])
{
	char salt[2 * PSI_SALT + 1], params[2 * PSI_SALT + 1];
	uint8_t d[32];

	hex(own, salt);
	params_digest(p, d);
	hex(d, params);
	return json_pack("{s:i,s:i,s:s,s:s}", "version", 1, "count",
			 (int)p->rows, "salt", salt, "params", params);
}

int psi_read_hello(struct psi *p, const json_t *v, uint8_t salt[PSI_SALT],
		   uint32_t *count, struct err *e)
{
	const char *text = json_str_or(v, "params", "");
	uint8_t want[32], got[32];
	int64_t n;

	params_digest(p, want);
	if (json_int_or(v, "version", 0) != 1 || !unhex(text, got) ||
	    CRYPTO_memcmp(want, got, sizeof(want)) != 0)
		return psi_fail(
		    p, e,
		    "the parties' method, sync_intersect_ids or salt "
		    "differ");
	n = json_int_or(v, "count", -1);
	if (n < 0 || n > COUNT_MAX || !unhex(json_str_or(v, "salt", ""), salt))
		return psi_fail(p, e, "bad greeting");
	*count = (uint32_t)n;
	return 0;
}

void psi_mix_salt(struct psi *p, const uint8_t *all, size_t n)
{
	uint8_t t[64];

	(void)HMAC(EVP_sha256(), ctx_secret(p->c), 32,
		   (const uint8_t *)p->param_salt, strlen(p->param_salt), t,
		   NULL);
	(void)HMAC(EVP_sha256(), t, 32, all, n * PSI_SALT, p->salt, NULL);
}

int psi_own_tags(struct psi *p, const struct psi_rsa *rsa, struct tag **ret,
		 double share, struct err *e)
{
	_cleanup_(psi_block_freep) struct block *b = psi_block_new();
	_cleanup_free_ struct tag *t = xcalloc(p->rows + 1, sizeof(*t));
	_cleanup_free_ uint8_t *buf = xmalloc((size_t)BLOCK * PSI_TAG);
	uint32_t row = 0;

	for (size_t k = 0; k < psi_blocks(p->rows); k++) {
		int rc = psi_next_block(p, b, e);

		if (rc == 0)
			rc = rsa ? psi_rsa_tags(rsa, p->salt, &b->ids, p->cores,
						buf, e)
				 : psi_ecdh_ids(p->key, p->salt, &b->ids,
						p->cores, buf, e);
		if (rc < 0)
			return rc;
		for (size_t i = 0; i < b->ids.n && row < p->rows; i++, row++) {
			memcpy(t[row].b, buf + i * PSI_TAG, PSI_TAG);
			t[row].at = row;
		}
		ctx_progress(p->c, p->done + share * (double)(k + 1) /
						 (double)psi_blocks(p->rows));
	}
	p->done += share;
	qsort(t, p->rows, sizeof(*t), psi_cmp_tag);
	*ret = TAKE_PTR(t);
	return 0;
}

int psi_send_tags(struct psi *p, const char *role, size_t i, const char *name,
		  const struct tag *t, struct err *e)
{
	_cleanup_free_ uint8_t *buf = xmalloc((size_t)BLOCK * PSI_TAG);
	char tag[24];

	for (size_t k = 0; k < psi_blocks(p->rows); k++) {
		size_t n = psi_block_len(p->rows, k);
		int rc;

		for (size_t j = 0; j < n; j++)
			memcpy(buf + j * PSI_TAG, t[k * BLOCK + j].b, PSI_TAG);
		rc = ctx_send_fixed(p->c, role, i, name, psi_block_tag(tag, k),
				    buf, PSI_TAG, n, e);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int psi_recv_exact(struct psi *p, const char *role, size_t i, const char *name,
		   size_t k, size_t width, size_t n, uint8_t **ret,
		   struct err *e)
{
	size_t got;
	char tag[24];
	uint8_t *v;
	int rc = ctx_recv_fixed(p->c, role, i, name, psi_block_tag(tag, k),
				width, n, &v, &got, e);

	if (rc < 0)
		return rc;
	if (got != n) {
		free(v);
		return psi_fail(p, e, "a block of another size than announced");
	}
	*ret = v;
	return 0;
}

int psi_recv_tags(struct psi *p, const char *role, size_t i, const char *name,
		  uint32_t count, struct tag **ret, struct err *e)
{
	struct tag *t = xcalloc((size_t)count + 1, sizeof(*t));

	for (size_t k = 0; k < psi_blocks(count); k++) {
		_cleanup_free_ uint8_t *v = NULL;
		size_t n = psi_block_len(count, k);
		int rc = psi_recv_exact(p, role, i, name, k, PSI_TAG, n, &v, e);

		for (size_t j = 0; rc == 0 && v && j < n; j++) {
			size_t at = k * BLOCK + j;

			memcpy(t[at].b, v + j * PSI_TAG, PSI_TAG);
			t[at].at = (uint32_t)at;
			if (at > 0 && psi_cmp_tag(&t[at - 1], &t[at]) >= 0)
				rc =
				    psi_fail(p, e, "a list that is not sorted");
		}
		if (rc < 0) {
			free(t);
			return rc;
		}
	}
	*ret = t;
	return 0;
}
