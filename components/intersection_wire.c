// SPDX-License-Identifier: Apache-2.0
/* Intersection: what both sides read, send and receive. */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include "components/crypto/util.h"
#include "components/intersection.h"
#include "lib/json.h"

#define HEX (2 * PSI_SALT)

const struct psi_limits psi_limits_default = { .bytes = 1u << 20,
					       .window = 3,
					       .memory = 64u << 20 };

/* ---- the own ids --------------------------------------------------------- */

struct psi_block *psi_block_new(size_t room)
{
	struct psi_block *b = xcalloc(1, sizeof(*b));

	sb_init(&b->text, room * TABLE_KEY_MAX + 1);
	b->room = room;
	b->end = xcalloc(room + 1, sizeof(*b->end));
	b->row = xcalloc(room + 1, sizeof(*b->row));
	return b;
}

void psi_block_free(struct psi_block *b)
{
	if (!b)
		return;
	sb_free(&b->text);
	free(b->end);
	free(b->row);
	free(b);
}

void psi_block_freep(struct psi_block **b)
{
	psi_block_free(*b);
}

void psi_reader_end(struct psi_reader *r)
{
	if (r->it)
		table_scan_end(r->it);
	r->it = NULL;
}

/* Whose the id is when the work is split: a bit of a hash. */
static enum psi_share share_of(const struct psi *p, EVP_MD_CTX *md,
			       const char *key, size_t len)
{
	uint8_t d[32];

	if (!EVP_DigestInit_ex2(md, crypto_sha256(), NULL) ||
	    !EVP_DigestUpdate(md, "share", 5) ||
	    !EVP_DigestUpdate(md, p->salt, PSI_SALT) ||
	    !EVP_DigestUpdate(md, key, len) || !EVP_DigestFinal_ex(md, d, NULL))
		abort(); /* only for lack of memory */
	return d[0] & 1 ? ASKED_BY_HOST : ASKED_BY_GUEST;
}

int psi_read(struct psi *p, struct psi_reader *r, struct psi_block *b,
	     struct err *e)
{
	const struct cell *cells;
	const char *key;
	EVP_MD_CTX *md = p->split ? EVP_MD_CTX_new() : NULL;
	size_t len, n = 0;
	int rc = 1;

	if (p->split && !md)
		abort();
	sb_reset(&b->text);
	if (!r->it && (rc = table_scan(p->t, NULL, 0, &r->it, e)) < 0)
		n = b->room;
	while (n < b->room &&
	       (rc = table_next(r->it, &key, &len, &cells, e)) > 0) {
		uint32_t row = r->row++;

		if (md && share_of(p, md, key, len) != r->share)
			continue;
		if (sb_add(&b->text, key, len) < 0) {
			rc = err_set(e, ENOMEM, "ids of a piece");
			break;
		}
		b->row[n] = row;
		b->end[n++] = (uint32_t)b->text.len;
	}
	EVP_MD_CTX_free(md);
	b->ids = (struct psi_ids){ b->text.buf, b->end, n };
	return rc < 0 ? rc : 0;
}

int psi_count_shares(struct psi *p, struct err *e)
{
	struct psi_reader r = { .share = ASKED_BY_GUEST };
	_cleanup_(psi_block_freep) struct psi_block *b = NULL;
	int rc = 0;

	p->share[ASKED_BY_GUEST] = p->rows;
	if (!p->split)
		return 0;
	b = psi_block_new(psi_piece(p, PSI_TAG));
	p->share[ASKED_BY_GUEST] = 0;
	do {
		rc = psi_read(p, &r, b, e);
		p->share[ASKED_BY_GUEST] += (uint32_t)b->ids.n;
	} while (rc == 0 && b->ids.n == b->room);
	psi_reader_end(&r);
	p->share[ASKED_BY_HOST] = p->rows - p->share[ASKED_BY_GUEST];
	return rc;
}

/* ---- names and sizes ----------------------------------------------------- */

const char *psi_method_name(const struct psi *p)
{
	return p->method == PSI_RSA    ? "rsa"
	       : p->method == PSI_ECDH ? "ecdh"
				       : "dh";
}

const struct psi_names *psi_names(const struct psi *p, enum psi_share share)
{
	static const struct psi_names rsa[] = {
		[ASKED_BY_GUEST] = { "host_pubkey", "guest_pubkey_ids",
				     "host_sign_guest_ids", "host_prvkey_ids",
				     "intersect_ids" },
		[ASKED_BY_HOST] = { "guest_pubkey", "host_pubkey_ids",
				    "guest_sign_host_ids", "guest_prvkey_ids",
				    "host_intersect_ids" },
	};
	static const struct psi_names ecdh = {
		NULL, "id_ciphertext_exchange_g2h", "doubly_encrypted_id",
		"id_ciphertext_exchange_h2g", "intersect_ids"
	};
	static const struct psi_names dh = { "host_pubkey",
					     "id_ciphertext_list_exchange_g2h",
					     "doubly_encrypted_id_list",
					     "id_ciphertext_list_exchange_h2g",
					     "intersect_ids" };

	return p->method == PSI_RSA    ? &rsa[share]
	       : p->method == PSI_ECDH ? &ecdh
				       : &dh;
}

size_t psi_piece(const struct psi *p, size_t width)
{
	return MAX(p->limits->bytes / width, (size_t)1);
}

size_t psi_pieces(const struct psi *p, size_t width, size_t n)
{
	size_t piece = psi_piece(p, width);

	return (n + piece - 1) / piece;
}

size_t psi_piece_len(const struct psi *p, size_t width, size_t n, size_t k)
{
	size_t piece = psi_piece(p, width);

	return k * piece < n ? MIN(piece, n - k * piece) : 0;
}

struct spool *psi_spool(struct psi *p, size_t width, size_t key)
{
	return spool_new(ctx_scratch(p->c), width, key, p->limits->memory);
}

int psi_fail(struct psi *p, struct err *e, const char *what)
{
	ctx_fail_code(p->c, "intersection",
		      "the parties do not agree on the intersection");
	return err_set(e, EPROTO, "%s", what);
}

/* ---- the greeting -------------------------------------------------------- */

void psi_hex(const void *data, size_t n, char *out)
{
	const uint8_t *b = data;

	for (size_t i = 0; i < n; i++)
		(void)snprintf(out + 2 * i, 3, "%02x", b[i]);
}

bool psi_unhex(const char *s, uint8_t *out, size_t n)
{
	if (strlen(s) != 2 * n || strspn(s, "0123456789abcdef") != 2 * n)
		return false;
	for (size_t i = 0; i < n; i++) {
		char two[3] = { s[2 * i], s[2 * i + 1], 0 };

		out[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	return true;
}

/* Parameters that must agree, keyed so that the salt cannot be guessed. */
static void params_digest(struct psi *p, uint8_t ret[32])
{
	_cleanup_free_ char *text = xasprintf(
	    "intersection v3 %s %u %d %d %d %d %d %s", psi_method_name(p),
	    p->method == PSI_ECDH ? 0 : p->bits, p->sync, p->cardinality,
	    p->sync_cardinality, p->cached, p->split, p->param_salt);

	(void)HMAC(EVP_sha256(), ctx_secret(p->c), 32, (const uint8_t *)text,
		   strlen(text), ret, NULL);
}

json_t *psi_hello(struct psi *p, const uint8_t own[PSI_SALT], const char *cache)
{
	char salt[HEX + 1], params[HEX + 1];
	uint8_t d[32];

	psi_hex(own, PSI_SALT, salt);
	params_digest(p, d);
	psi_hex(d, sizeof(d), params);
	return json_pack("{s:i,s:i,s:s,s:s,s:s}", "version", 3, "count",
			 (int)p->rows, "salt", salt, "params", params, "cache",
			 cache);
}

int psi_read_hello(struct psi *p, const json_t *v, struct psi_greeting *g,
		   struct err *e)
{
	const char *text = json_str_or(v, "params", "");
	const char *cache = json_str_or(v, "cache", "");
	uint8_t want[32], got[32];
	int64_t n;

	params_digest(p, want);
	if (json_int_or(v, "version", 0) != 3 ||
	    !psi_unhex(text, got, sizeof(got)) ||
	    CRYPTO_memcmp(want, got, sizeof(want)) != 0)
		return psi_fail(p, e,
				"the parties' method, key_length, salt, "
				"sync_intersect_ids or another parameter that "
				"must agree differ");
	n = json_int_or(v, "count", -1);
	if (n < 0 || n > COUNT_MAX ||
	    !psi_unhex(json_str_or(v, "salt", ""), g->salt, PSI_SALT) ||
	    strlen(cache) >= sizeof(g->cache))
		return psi_fail(p, e, "bad greeting");
	g->count = (uint32_t)n;
	g->share[ASKED_BY_GUEST] = g->count;
	g->share[ASKED_BY_HOST] = 0;
	(void)snprintf(g->cache, sizeof(g->cache), "%s", cache);
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

int psi_exchange_shares(struct psi *p, const char *role, struct psi_greeting *g,
			struct err *e)
{
	_cleanup_free_ uint32_t *got = NULL;
	size_t n = 0;
	int rc = psi_count_shares(p, e);

	if (rc == 0)
		rc = ctx_send_u32(p->c, role, 0, "shares", "", p->share, 2, e);
	if (rc == 0)
		rc = ctx_recv_u32(p->c, role, 0, "shares", "", 2, &got, &n, e);
	if (rc < 0)
		return rc;
	if (!got || n != 2 || (uint64_t)got[0] + got[1] != g->count)
		return psi_fail(p, e, "bad shares");
	memcpy(g->share, got, sizeof(g->share));
	return 0;
}

/* ---- pieces -------------------------------------------------------------- */

static const char *piece_tag(char buf[24], size_t k)
{
	(void)snprintf(buf, 24, "%zu", k);
	return buf;
}

int psi_send_piece(struct psi *p, const char *role, size_t i, const char *name,
		   size_t k, const void *data, size_t width, size_t n,
		   struct err *e)
{
	char tag[24];

	return ctx_send_fixed(p->c, role, i, name, piece_tag(tag, k), data,
			      width, n, e);
}

int psi_recv_piece(struct psi *p, const char *role, size_t i, const char *name,
		   size_t k, size_t width, size_t n, uint8_t **ret,
		   struct err *e)
{
	size_t got;
	char tag[24];
	uint8_t *v = NULL;
	int rc = ctx_recv_fixed(p->c, role, i, name, piece_tag(tag, k), width,
				n, &v, &got, e);

	if (rc < 0)
		return rc;
	if (got != n) {
		free(v);
		return psi_fail(p, e, "a piece of another size than announced");
	}
	*ret = v;
	return 0;
}
