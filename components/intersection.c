// SPDX-License-Identifier: Apache-2.0
/*
 * Intersection: the rows whose ids every party has, and no party learns more
 * of the others' ids.  docs/components/intersection.md has the messages and
 * what each party learns; components/crypto/psi.h the mathematics.
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>
#include <strings.h>

#include "components/component.h"
#include "components/crypto/psi.h"
#include "components/crypto/util.h"
#include "lib/json.h"
#include "lib/strbuf.h"

#define BLOCK	  2048	    /* ids of one message */
#define COUNT_MAX 100000000 /* ids a peer may bring */
#define NONE	  UINT32_MAX

struct tag {
	uint8_t b[PSI_TAG];
	uint32_t at; /* row of its owner, or place in the list it came in */
};

struct block {
	struct strbuf text;
	uint32_t end[BLOCK];
	struct psi_ids ids;
};

/* What a party keeps while it runs. */
struct psi {
	struct ctx *c;
	struct table *t;
	struct table_iter *it;
	uint32_t rows;
	unsigned cores;
	bool rsa, sync, only_key;
	const char *param_salt;
	unsigned key_length;
	uint8_t salt[PSI_SALT];
	uint8_t key[PSI_TAG]; /* ECDH */
	uint8_t *keep;	      /* a byte per row: 1 = in the intersection */
	double done;
};

static size_t blocks(size_t n)
{
	return (n + BLOCK - 1) / BLOCK;
}

static size_t block_len(size_t n, size_t k)
{
	return MIN((size_t)BLOCK, n - k * BLOCK);
}

static const char *block_tag(char buf[24], size_t k)
{
	(void)snprintf(buf, 24, "%zu", k);
	return buf;
}

static int cmp_tag(const void *a, const void *b)
{
	return memcmp(a, b, PSI_TAG);
}

/* The next block of the table's ids in key order. */
static int next_block(struct psi *p, struct block *b, struct err *e)
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

static struct block *block_new(void)
{
	struct block *b = xcalloc(1, sizeof(*b));

	sb_init(&b->text, (size_t)BLOCK * TABLE_KEY_MAX + 1);
	return b;
}

static void block_freep(struct block **b)
{
	if (*b) {
		sb_free(&(*b)->text);
		free(*b);
	}
}

static int fail(struct psi *p, struct err *e, const char *what)
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

static json_t *hello(struct psi *p, const uint8_t own[PSI_SALT])
{
	char salt[2 * PSI_SALT + 1], params[2 * PSI_SALT + 1];
	uint8_t d[32];

	hex(own, salt);
	params_digest(p, d);
	hex(d, params);
	return json_pack("{s:i,s:i,s:s,s:s}", "version", 1, "count",
			 (int)p->rows, "salt", salt, "params", params);
}

static int read_hello(struct psi *p, const json_t *v, uint8_t salt[PSI_SALT],
		      uint32_t *count, struct err *e)
{
	const char *text = json_str_or(v, "params", "");
	uint8_t want[32], got[32];
	int64_t n;

	params_digest(p, want);
	if (json_int_or(v, "version", 0) != 1 || !unhex(text, got) ||
	    CRYPTO_memcmp(want, got, sizeof(want)) != 0)
		return fail(p, e,
			    "the parties' method, sync_intersect_ids or salt "
			    "differ");
	n = json_int_or(v, "count", -1);
	if (n < 0 || n > COUNT_MAX || !unhex(json_str_or(v, "salt", ""), salt))
		return fail(p, e, "bad greeting");
	*count = (uint32_t)n;
	return 0;
}

/* Everybody's contribution and the job's secret make the salt. */
static void mix_salt(struct psi *p, const uint8_t *all, size_t n)
{
	uint8_t t[64];

	(void)HMAC(EVP_sha256(), ctx_secret(p->c), 32,
		   (const uint8_t *)p->param_salt, strlen(p->param_salt), t,
		   NULL);
	(void)HMAC(EVP_sha256(), t, 32, all, n * PSI_SALT, p->salt, NULL);
}

/* Points or tags of all own rows, `at` = row; sorted, so that their order
 * tells nothing of the order of the ids. */
static int own_tags(struct psi *p, const struct psi_rsa *rsa, struct tag **ret,
		    double share, struct err *e)
{
	_cleanup_(block_freep) struct block *b = block_new();
	_cleanup_free_ struct tag *t = xcalloc(p->rows + 1, sizeof(*t));
	_cleanup_free_ uint8_t *buf = xmalloc((size_t)BLOCK * PSI_TAG);
	uint32_t row = 0;

	for (size_t k = 0; k < blocks(p->rows); k++) {
		int rc = next_block(p, b, e);

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
						 (double)blocks(p->rows));
	}
	p->done += share;
	qsort(t, p->rows, sizeof(*t), cmp_tag);
	*ret = TAKE_PTR(t);
	return 0;
}

static int send_tags(struct psi *p, const char *role, size_t i,
		     const char *name, const struct tag *t, struct err *e)
{
	_cleanup_free_ uint8_t *buf = xmalloc((size_t)BLOCK * PSI_TAG);
	char tag[24];

	for (size_t k = 0; k < blocks(p->rows); k++) {
		size_t n = block_len(p->rows, k);
		int rc;

		for (size_t j = 0; j < n; j++)
			memcpy(buf + j * PSI_TAG, t[k * BLOCK + j].b, PSI_TAG);
		rc = ctx_send_fixed(p->c, role, i, name, block_tag(tag, k), buf,
				    PSI_TAG, n, e);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Exactly n records of a width. */
static int recv_exact(struct psi *p, const char *role, size_t i,
		      const char *name, size_t k, size_t width, size_t n,
		      uint8_t **ret, struct err *e)
{
	size_t got;
	char tag[24];
	uint8_t *v;
	int rc = ctx_recv_fixed(p->c, role, i, name, block_tag(tag, k), width,
				n, &v, &got, e);

	if (rc < 0)
		return rc;
	if (got != n) {
		free(v);
		return fail(p, e, "a block of another size than announced");
	}
	*ret = v;
	return 0;
}

/* A sorted list without repetitions; `at` = place in it. */
static int recv_tags(struct psi *p, const char *role, size_t i,
		     const char *name, uint32_t count, struct tag **ret,
		     struct err *e)
{
	struct tag *t = xcalloc((size_t)count + 1, sizeof(*t));

	for (size_t k = 0; k < blocks(count); k++) {
		_cleanup_free_ uint8_t *v = NULL;
		size_t n = block_len(count, k);
		int rc = recv_exact(p, role, i, name, k, PSI_TAG, n, &v, e);

		for (size_t j = 0; rc == 0 && j < n; j++) {
			size_t at = k * BLOCK + j;

			memcpy(t[at].b, v + j * PSI_TAG, PSI_TAG);
			t[at].at = (uint32_t)at;
			if (at > 0 && cmp_tag(&t[at - 1], &t[at]) >= 0)
				rc = fail(p, e, "a list that is not sorted");
		}
		if (rc < 0) {
			free(t);
			return rc;
		}
	}
	*ret = t;
	return 0;
}

/* --- guest ------------------------------------------------------------ */

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
			rc = read_hello(p, v, all + (i + 1) * PSI_SALT,
					&h[i].count, e);
		json_decref(v);
	}
	own = hello(p, all);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = ctx_send_json(p->c, "host", i, "guest_hello", "", own, e);
	for (size_t i = 0; i < n && rc == 0; i++)
		rc = ctx_send_fixed(p->c, "host", i, "salts", "", all, PSI_SALT,
				    n + 1, e);
	json_decref(own);
	mix_salt(p, all, n + 1);
	return rc;
}

static int guest_unblind(struct psi *p, struct host *h, size_t i, size_t k,
			 const struct block *b, struct err *e)
{
	_cleanup_free_ uint8_t *sig = NULL;
	_cleanup_free_ uint8_t *tags = xmalloc((size_t)BLOCK * PSI_TAG);
	int rc = recv_exact(p, "host", i, "host_sign_guest_ids", k,
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
	_cleanup_(block_freep) struct block *b0 = block_new();
	_cleanup_(block_freep) struct block *b1 = block_new();
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
	for (size_t k = 0; k <= blocks(p->rows); k++) {
		if (k < blocks(p->rows)) {
			rc = next_block(p, b[k % 2], e);
			if (rc < 0)
				return rc;
		}
		for (size_t i = 0; i < n && k < blocks(p->rows); i++) {
			rc =
			    psi_rsa_blind(h[i].key, p->salt, &b[k % 2]->ids,
					  p->cores, out, h[i].secret[k % 2], e);
			if (rc == 0)
				rc = ctx_send_fixed(p->c, "host", i,
						    "guest_pubkey_ids",
						    block_tag(tag, k), out,
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
		ctx_progress(p->c,
			     0.6 * (double)k / (double)(blocks(p->rows) + 1));
	}
	for (size_t i = 0; i < n; i++) {
		rc = recv_tags(p, "host", i, "host_prvkey_ids", h[i].count,
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

	for (size_t k = 0; k < blocks(h->count); k++) {
		struct tag *t = h->list + k * BLOCK;
		size_t n = block_len(h->count, k);
		int rc;

		for (size_t j = 0; j < n; j++)
			memcpy(buf + j * PSI_TAG, t[j].b, PSI_TAG);
		rc = psi_ecdh_points(p->key, buf, n, p->cores, buf, e);
		if (rc < 0)
			return rc;
		for (size_t j = 0; j < n; j++)
			memcpy(t[j].b, buf + j * PSI_TAG, PSI_TAG);
	}
	qsort(h->list, h->count, sizeof(*h->list), cmp_tag);
	return 0;
}

static int guest_ecdh(struct psi *p, struct host *h, size_t n, struct err *e)
{
	_cleanup_free_ struct tag *own = NULL;
	int rc = own_tags(p, NULL, &own, 0.3, e);

	for (size_t i = 0; i < n && rc == 0; i++)
		rc = send_tags(p, "host", i, "id_ciphertext_exchange_g2h", own,
			       e);
	for (size_t i = 0; i < n && rc == 0; i++) {
		rc = recv_tags(p, "host", i, "id_ciphertext_exchange_h2g",
			       h[i].count, &h[i].list, e);
		if (rc == 0)
			rc = guest_double(p, &h[i], e);
		ctx_progress(p->c, 0.3 + 0.4 * (double)(i + 1) / (double)n);
	}
	for (size_t i = 0; i < n && rc == 0; i++) {
		h[i].own = xcalloc(p->rows + 1, sizeof(*own));
		for (size_t k = 0; k < blocks(p->rows) && rc == 0; k++) {
			_cleanup_free_ uint8_t *v = NULL;
			size_t len = block_len(p->rows, k);

			rc = recv_exact(p, "host", i, "doubly_encrypted_id", k,
					PSI_TAG, len, &v, e);
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
						 sizeof(*t), cmp_tag)
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

/* --- host ------------------------------------------------------------- */

static int host_hello(struct psi *p, uint32_t *guest_rows, struct err *e)
{
	size_t n = ctx_count(p->c, "host") + 1, got = 0;
	uint8_t own[PSI_SALT], guest[PSI_SALT];
	_cleanup_free_ uint8_t *all = NULL;
	json_t *v;
	int rc;

	crypto_random(own, sizeof(own));
	v = hello(p, own);
	rc = ctx_send_json(p->c, "guest", 0, "host_hello", "", v, e);
	json_decref(v);
	v = NULL;
	if (rc == 0)
		rc = ctx_recv_json(p->c, "guest", 0, "guest_hello", "", &v, e);
	if (rc == 0)
		rc = read_hello(p, v, guest, guest_rows, e);
	json_decref(v);
	if (rc == 0)
		rc = ctx_recv_fixed(p->c, "guest", 0, "salts", "", PSI_SALT, n,
				    &all, &got, e);
	if (rc < 0)
		return rc;
	if (got != n || memcmp(all, guest, PSI_SALT) != 0 ||
	    memcmp(all + (ctx_index(p->c) + 1) * PSI_SALT, own, PSI_SALT) != 0)
		return fail(p, e, "the guest changed a salt");
	mix_salt(p, all, n);
	return 0;
}

/* Signs exactly as many numbers as the guest announced ids. */
static int host_rsa(struct psi *p, uint32_t guest_rows, struct tag **own,
		    struct err *e)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(1024);
	struct psi_rsa *key = NULL;
	char tag[24];
	int rc = psi_rsa_keygen(p->key_length, &key, e);

	if (rc == 0)
		rc = psi_rsa_public(key, &sb);
	if (rc == 0)
		rc = ctx_send_bytes(p->c, "guest", 0, "host_pubkey", "", sb.buf,
				    sb.len, e);
	for (size_t k = 0; k < blocks(guest_rows) && rc == 0; k++) {
		_cleanup_free_ uint8_t *v = NULL;
		size_t n = block_len(guest_rows, k);

		rc = recv_exact(p, "guest", 0, "guest_pubkey_ids", k,
				psi_rsa_width(key), n, &v, e);
		if (rc == 0)
			rc = psi_rsa_sign(key, v, n, p->cores, v, e);
		if (rc == 0)
			rc = ctx_send_fixed(
			    p->c, "guest", 0, "host_sign_guest_ids",
			    block_tag(tag, k), v, psi_rsa_width(key), n, e);
		ctx_progress(p->c,
			     0.45 * (double)k / (double)blocks(guest_rows));
	}
	p->done = 0.45;
	if (rc == 0)
		rc = own_tags(p, key, own, 0.45, e);
	if (rc == 0)
		rc = send_tags(p, "guest", 0, "host_prvkey_ids", *own, e);
	psi_rsa_free(key);
	return rc;
}

static int host_ecdh(struct psi *p, uint32_t guest_rows, struct tag **own,
		     struct err *e)
{
	uint8_t last[PSI_TAG] = { 0 };
	char tag[24];
	int rc = own_tags(p, NULL, own, 0.45, e);

	if (rc == 0)
		rc = send_tags(p, "guest", 0, "id_ciphertext_exchange_h2g",
			       *own, e);
	for (size_t k = 0; k < blocks(guest_rows) && rc == 0; k++) {
		_cleanup_free_ uint8_t *v = NULL;
		size_t n = block_len(guest_rows, k);

		rc = recv_exact(p, "guest", 0, "id_ciphertext_exchange_g2h", k,
				PSI_TAG, n, &v, e);
		/* Sorted and without repetitions, or it is no set of ids. */
		for (size_t j = 0; rc == 0 && j < n; j++) {
			if ((k || j) &&
			    memcmp(last, v + j * PSI_TAG, PSI_TAG) >= 0)
				rc = fail(p, e, "a list that is not sorted");
			memcpy(last, v + j * PSI_TAG, PSI_TAG);
		}
		if (rc == 0)
			rc = psi_ecdh_points(p->key, v, n, p->cores, v, e);
		if (rc == 0)
			rc = ctx_send_fixed(
			    p->c, "guest", 0, "doubly_encrypted_id",
			    block_tag(tag, k), v, PSI_TAG, n, e);
		ctx_progress(p->c, 0.45 + 0.45 * (double)k /
					      (double)blocks(guest_rows));
	}
	return rc;
}

static int host_match(struct psi *p, const struct tag *own, uint32_t guest_rows,
		      uint32_t *count, struct err *e)
{
	_cleanup_free_ uint32_t *place = NULL;
	size_t n;
	int rc;

	*count = 0;
	if (!p->sync)
		return 0;
	rc = ctx_recv_u32(p->c, "guest", 0, "intersect_ids", "",
			  MIN(p->rows, guest_rows), &place, &n, e);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		if (place[i] >= p->rows || (i > 0 && place[i] <= place[i - 1]))
			rc = fail(p, e, "a place that is not in the list");
		else
			p->keep[own[place[i]].at] = 1;
	}
	if (rc == 0)
		*count = (uint32_t)n;
	return rc;
}

/* --- both ------------------------------------------------------------- */

/* Writes the rows kept; digest = HMAC over their ids in key order. */
static int output(struct psi *p, uint8_t digest[32], struct err *e)
{
	struct table_schema *s = schema_dup(table_schema(p->t));
	struct table_schema *out = s;
	struct table_iter *it = NULL;
	struct table_build *b = NULL;
	const struct cell *cells;
	const char *key;
	size_t len;
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	uint8_t ids[32];
	uint32_t row = 0;
	int rc;

	if (p->only_key) {
		out = schema_new();
		free(out->id);
		out->id = xstrdup(s->id ? s->id : "id");
		out->partitions = s->partitions;
	}
	if (!md || !EVP_DigestInit_ex(md, EVP_sha256(), NULL))
		abort();
	rc = table_build_begin(ctx_store(p->c), out, &b, e);
	if (rc == 0)
		rc = table_scan(p->t, NULL, 0, &it, e);
	while (rc == 0 && row < p->rows) {
		uint32_t n;

		rc = table_next(it, &key, &len, &cells, e);
		if (rc <= 0)
			break;
		rc = 0;
		if (!p->keep[row++])
			continue;
		n = (uint32_t)len;
		(void)EVP_DigestUpdate(md, &n, sizeof(n));
		(void)EVP_DigestUpdate(md, key, len);
		rc = table_build_add(b, key, len, cells, e);
	}
	if (it)
		table_scan_end(it);
	(void)EVP_DigestFinal_ex(md, ids, NULL);
	EVP_MD_CTX_free(md);
	(void)HMAC(EVP_sha256(), ctx_secret(p->c), 32, ids, sizeof(ids), digest,
		   NULL);
	if (rc == 0)
		rc = ctx_put_table(p->c, 0, TAKE_PTR(b), e);
	if (b)
		table_build_abort(b);
	if (out != s)
		schema_free(out);
	schema_free(s);
	return rc;
}

/* Count and digest of the ids, exchanged and compared by every pair of the
 * guest and a host. */
static int compare(struct psi *p, uint32_t count, const uint8_t digest[32],
		   struct err *e)
{
	bool guest = strcmp(ctx_role(p->c), "guest") == 0;
	const char *peer = guest ? "host" : "guest";
	uint8_t own[36];
	int rc = 0;

	for (size_t i = 0; i < 4; i++)
		own[i] = (uint8_t)(count >> (8 * i));
	memcpy(own + 4, digest, 32);
	for (size_t i = 0; i < ctx_count(p->c, peer) && rc == 0; i++)
		rc = ctx_send_bytes(p->c, peer, i, "digest", "", own,
				    sizeof(own), e);
	for (size_t i = 0; i < ctx_count(p->c, peer) && rc == 0; i++) {
		_cleanup_free_ void *got = NULL;
		size_t n;

		rc = ctx_recv_bytes(p->c, peer, i, "digest", "", sizeof(own),
				    &got, &n, e);
		if (rc == 0 &&
		    (n != sizeof(own) || CRYPTO_memcmp(own, got, n) != 0))
			rc = fail(p, e, "the parties hold different rows");
	}
	return rc;
}

static int summary(struct psi *p, uint32_t count, struct err *e)
{
	bool known = p->sync || strcmp(ctx_role(p->c), "guest") == 0;
	double rate = p->rows ? (double)count / p->rows : 0;
	json_t *v =
	    json_pack("{s:s,s:i}", "intersect_method", p->rsa ? "rsa" : "ecdh",
		      "input_count", (int)p->rows);
	int rc;

	if (known)
		(void)json_object_update_new(
		    v, json_pack("{s:i,s:f,s:i,s:f}", "intersect_count",
				 (int)count, "intersect_rate", rate,
				 "unmatched_count", (int)(p->rows - count),
				 "unmatched_rate", p->rows ? 1 - rate : 0));
	rc = ctx_put_summary(p->c, v, e);
	json_decref(v);
	return rc;
}

static void setup(struct psi *p)
{
	const json_t *params = ctx_params(p->c);
	const char *method = json_str_or(params, "intersect_method", "rsa");
	const json_t *sub;

	p->rsa = strcasecmp(method, "rsa") == 0;
	if (strcasecmp(method, "raw") == 0)
		ctx_event(p->c, "intersect_method raw would show ids: ecdh is "
				"used instead");
	sub = json_object_get(params, p->rsa ? "rsa_params" : "ecdh_params");
	p->param_salt = json_str_or(sub, "salt", "");
	p->key_length = (unsigned)json_int_or(sub, "key_length", 2048);
	p->sync = json_bool_or(params, "sync_intersect_ids", true);
	p->only_key = json_bool_or(params, "only_output_key", false);
	p->cores = ctx_cores(p->c);
	if (p->rsa && p->key_length < 2048) {
		ctx_event(p->c, "warning: RSA key of %u bits: fewer than 2048",
			  p->key_length);
		ctx_log(p->c, "warning: RSA key of %u bits: fewer than 2048",
			p->key_length);
	}
	psi_ecdh_key(p->key);
}

static int run_guest(struct psi *p, uint32_t *count, struct err *e)
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

static int run_host(struct psi *p, uint32_t *count, struct err *e)
{
	_cleanup_free_ struct tag *own = NULL;
	uint32_t guest_rows;
	int rc = host_hello(p, &guest_rows, e);

	if (rc == 0)
		rc = p->rsa ? host_rsa(p, guest_rows, &own, e)
			    : host_ecdh(p, guest_rows, &own, e);
	return rc < 0 ? rc : host_match(p, own, guest_rows, count, e);
}

static int run(struct ctx *c, struct err *e)
{
	struct psi p = { .c = c };
	uint8_t digest[32];
	uint32_t count = 0;
	int rc;

	if (ctx_inputs(c, "data") != 1)
		return err_set(e, EINVAL, "one input table is needed");
	p.t = ctx_input(c, "data", 0);
	if (table_rows(p.t) > COUNT_MAX)
		return err_set(e, E2BIG, "more than %d rows", COUNT_MAX);
	p.rows = (uint32_t)table_rows(p.t);
	setup(&p);
	p.keep = xcalloc((size_t)p.rows + 1, 1);
	rc = strcmp(ctx_role(c), "guest") == 0 ? run_guest(&p, &count, e)
					       : run_host(&p, &count, e);
	if (p.it)
		table_scan_end(p.it);
	explicit_bzero(p.key, sizeof(p.key));
	if (rc == 0)
		rc = output(&p, digest, e);
	if (rc == 0 && p.sync)
		rc = compare(&p, count, digest, e);
	if (rc == 0)
		rc = summary(&p, count, e);
	if (rc == 0) {
		ctx_log(c, "%u of %u rows in the intersection", count, p.rows);
		ctx_progress(c, 1);
	}
	free(p.keep);
	return rc;
}

/* Parameters that are known but of which only the default is offered. */
static const char *const later[][2] = {
	{ "cardinality_only", "false" },
	{ "join_method", "\"inner_join\"" },
	{ "new_sample_id", "false" },
	{ "run_cache", "false" },
	{ "run_preprocess", "false" },
	{ "sample_id_generator", "\"guest\"" },
	{ "sync_cardinality", "false" },
	{ "with_encode", "false" },
	{ "with_sample_id", "false" },
	{ "allow_info_share", "false" },
	{ "repeated_id_process", "false" },
};

static void check(const json_t *params, const json_t *roles, const char *role,
		  void (*defect)(void *arg, const char *pointer,
				 const char *text),
		  void *arg)
{
	(void)roles;
	(void)role;
	if (strcasecmp(json_str_or(params, "intersect_method", ""), "dh") == 0)
		defect(arg, "intersect_method",
		       "dh is not offered yet: use ecdh or rsa");
	for (size_t i = 0; i < ARRAY_SIZE(later); i++) {
		const json_t *v = json_object_get(params, later[i][0]);
		json_t *def = json_loads(later[i][1], JSON_DECODE_ANY, NULL);

		if (v && !json_is_null(v) && !json_equal(v, def))
			defect(arg, later[i][0],
			       "not offered yet: only the default");
		json_decref(def);
	}
}

#define HASHES "none|md5|sha1|sha224|sha256|sha384|sha512|sm3"

static const struct param rsa_params[] = {
	{ "salt", PARAM_STRING, "\"\"", .help = "goes into every hash" },
	{ "hash_method", PARAM_ENUM, "\"sha256\"", .choices = HASHES,
	  .flags = PARAM_IGNORED | PARAM_NULLABLE,
	  .help = "a full-domain hash (SHAKE256) is used" },
	{ "final_hash_method", PARAM_ENUM, "\"sha256\"", .choices = HASHES,
	  .flags = PARAM_IGNORED | PARAM_NULLABLE, .help = "SHA-256 is used" },
	{ "split_calculation", PARAM_BOOL, "false", .flags = PARAM_IGNORED,
	  .help = "the hosts do all signing" },
	{ "random_base_fraction", PARAM_NUMBER, NULL,
	  .flags = PARAM_IGNORED | PARAM_NULLABLE,
	  .help = "every id has its own blinding" },
	{ "key_length", PARAM_INT, "2048", 1024, 8192,
	  .help = "bits of the hosts' RSA keys; below 2048 warns" },
	{ "random_bit", PARAM_INT, "128", .flags = PARAM_IGNORED,
	  .help = "the blinding has full size" },
	{ .name = NULL },
};

static const struct param ecdh_params[] = {
	{ "salt", PARAM_STRING, "\"\"", .help = "goes into every hash" },
	{ "hash_method", PARAM_ENUM, "\"sha256\"", .choices = HASHES,
	  .flags = PARAM_IGNORED | PARAM_NULLABLE,
	  .help = "ids are hashed to the curve (RFC 9380)" },
	{ "curve", PARAM_ENUM, "\"curve25519\"", .choices = "curve25519",
	  .help = "the curve" },
	{ .name = NULL },
};

#define LATER(n, d)                                                          \
	{                                                                    \
		n, PARAM_ANY, d, .flags = PARAM_NULLABLE,                    \
				 .help = "not offered yet: only the default" \
	}
#define UNUSED(n)                                                \
	{                                                        \
		n, PARAM_ANY, NULL,                              \
		    .flags = PARAM_IGNORED | PARAM_NULLABLE,     \
		    .help = "belongs to what is not offered yet" \
	}

static const struct param params_table[] = {
	LATER("allow_info_share", "false"),
	LATER("cardinality_only", "false"),
	{ "cardinality_method", PARAM_ENUM, "\"ecdh\"",
	  .choices = "rsa|ecdh|dh", .flags = PARAM_IGNORED,
	  .help = "belongs to what is not offered yet" },
	UNUSED("dh_params"),
	{ "ecdh_params", PARAM_OBJECT, "{}", .sub = ecdh_params,
	  .help = "of method ecdh" },
	UNUSED("encode_params"),
	UNUSED("info_owner"),
	UNUSED("intersect_cache_param"),
	{ "intersect_method", PARAM_ENUM, "\"rsa\"",
	  .choices = "rsa|ecdh|dh|raw",
	  .help = "rsa or ecdh; raw is turned into ecdh" },
	UNUSED("intersect_preprocess_params"),
	LATER("join_method", "\"inner_join\""),
	UNUSED("join_role"),
	LATER("new_sample_id", "false"),
	{ "only_output_key", PARAM_BOOL, "false",
	  .help = "the output has ids only" },
	{ "random_bit", PARAM_INT, "128", .flags = PARAM_IGNORED,
	  .help = "the blinding has full size" },
	UNUSED("raw_params"),
	UNUSED("repeated_id_owner"),
	LATER("repeated_id_process", "false"),
	{ "rsa_params", PARAM_OBJECT, "{}", .sub = rsa_params,
	  .help = "of method rsa" },
	LATER("run_cache", "false"),
	LATER("run_preprocess", "false"),
	LATER("sample_id_generator", "\"guest\""),
	LATER("sync_cardinality", "false"),
	{ "sync_intersect_ids", PARAM_BOOL, "true",
	  .help = "the hosts learn the intersection and output it, too" },
	LATER("with_encode", "false"),
	LATER("with_sample_id", "false"),
	{ .name = NULL },
};

static const char *const inputs[] = { "data", NULL };

const struct component component_intersection = {
	.module = "Intersection",
	.roles = ROLE_GUEST | ROLE_HOST,
	.needs_roles = ROLE_GUEST | ROLE_HOST,
	.data_inputs = inputs,
	.data_outputs = 1,
	.params = params_table,
	.help = "keeps the rows whose ids every party has; nobody learns other "
		"ids",
	.check = check,
	.run = run,
};
