// SPDX-License-Identifier: Apache-2.0
#include "components/rows.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include "components/crypto/util.h"
#include "lib/strbuf.h"
#include "lib/table_ops.h"

#define ID_MESSAGE (8 + 32)

/* ---- digests ----------------------------------------------------------- */

struct digests {
	EVP_MAC_CTX *ids;
	EVP_MD_CTX *cells;
	struct strbuf buf;
};

static int digests_begin(struct digests *d, const uint8_t *secret)
{
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST,
						 (char[]){ "SHA256" }, 0),
		OSSL_PARAM_construct_end(),
	};
	EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);

	d->ids = mac ? EVP_MAC_CTX_new(mac) : NULL;
	EVP_MAC_free(mac);
	d->cells = EVP_MD_CTX_new();
	sb_init(&d->buf, 4 * TABLE_ROW_MAX);
	return d->ids && d->cells && secret &&
		       EVP_MAC_init(d->ids, secret, 32, params) == 1 &&
		       EVP_DigestInit_ex(d->cells, EVP_sha256(), NULL) == 1
		   ? 0
		   : -EIO;
}

static void digests_end(struct digests *d)
{
	EVP_MAC_CTX_free(d->ids);
	EVP_MD_CTX_free(d->cells);
	sb_free(&d->buf);
}

static int digests_add(struct digests *d, const char *key, size_t len,
		       const struct cell *cells, size_t n)
{
	sb_reset(&d->buf);
	sb_add_u32(&d->buf, (uint32_t)len);
	sb_add(&d->buf, key, len);
	if (EVP_MAC_update(d->ids, (const uint8_t *)d->buf.buf, d->buf.len) !=
	    1)
		return -EIO;
	for (size_t i = 0; i < n; i++)
		if (cells[i].type == CELL_STRING) {
			sb_add_u32(&d->buf, (uint32_t)cells[i].len);
			sb_add(&d->buf, cells[i].str, cells[i].len);
		} else if (cells[i].type == CELL_I64) {
			sb_add_u64(&d->buf, (uint64_t)cells[i].i64);
		} else {
			sb_add_f64(&d->buf, cells[i].f64);
		}
	return !d->buf.error &&
		       EVP_DigestUpdate(d->cells, d->buf.buf, d->buf.len) == 1
		   ? 0
		   : -EIO;
}

struct reading {
	struct digests d;
	size_t columns, n;
	int (*fn)(void *arg, size_t row, const struct cell *cells,
		  struct err *e);
	void *arg;
};

static int read_row(void *arg, const char *key, size_t len,
		    const struct cell *cells, struct err *e)
{
	struct reading *x = arg;

	if (digests_add(&x->d, key, len, cells, x->columns))
		return err_set(e, EIO, "cannot digest the rows");
	x->n++;
	return x->fn ? x->fn(x->arg, x->n - 1, cells, e) : 0;
}

int rows_read(struct ctx *c, struct table *t,
	      int (*fn)(void *arg, size_t row, const struct cell *cells,
			struct err *e),
	      void *arg, struct rows *ret, struct err *e)
{
	size_t mac_len = sizeof(ret->ids);
	struct reading x = { .columns = table_schema(t)->n_columns,
			     .fn = fn,
			     .arg = arg };
	struct rows rows = { 0 };
	unsigned md_len = 0;
	int r;

	if (table_rows(t) > ROWS_MAX)
		return err_set(e, EINVAL, "the table has more than %u rows",
			       ROWS_MAX);
	if (digests_begin(&x.d, ctx_secret(c)))
		r = err_set(e, EIO, "cannot set up the digests");
	else
		r = table_each(t, read_row, &x, e);
	rows.n = x.n;
	if (r >= 0 && rows.n != table_rows(t))
		r = err_set(e, EIO, "other rows than the table says");
	if (r >= 0 &&
	    (EVP_MAC_final(x.d.ids, rows.ids, &mac_len, mac_len) != 1 ||
	     EVP_DigestFinal_ex(x.d.cells, rows.cells, &md_len) != 1))
		r = err_set(e, EIO, "cannot digest the rows");
	digests_end(&x.d);
	if (r < 0)
		return r;
	*ret = rows;
	return 0;
}

int rows_key(const struct rows *r, int64_t seed, uint8_t ret[32], struct err *e)
{
	static const char what[] = "rollfs rows 1";
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(100);
	unsigned n = 0;

	if (seed < 0) {
		crypto_random(ret, 32);
		return 0;
	}
	sb_add(&sb, what, sizeof(what));
	sb_add(&sb, r->cells, sizeof(r->cells));
	sb_add_u64(&sb, (uint64_t)seed);
	return EVP_Digest(sb.buf, sb.len, ret, &n, EVP_sha256(), NULL) == 1
		   ? 0
		   : err_set(e, EIO, "cannot make a key for the draw");
}

/* ---- agreement --------------------------------------------------------- */

static int compare(struct ctx *c, const char *role, size_t i, const char *tag,
		   const uint8_t mine[ID_MESSAGE], struct err *e)
{
	_cleanup_free_ void *theirs = NULL;
	size_t got;
	int r = ctx_recv_bytes(c, role, i, "id_digest", tag, ID_MESSAGE,
			       &theirs, &got, e);

	if (r < 0)
		return r;
	if (got == ID_MESSAGE && !CRYPTO_memcmp(mine, theirs, got))
		return 0;
	ctx_fail_code(
	    c, "rows_differ",
	    "the parties do not hold the same rows in this component");
	return err_set(e, EINVAL,
		       "%s %s holds other rows than this party: both need the "
		       "output of one Intersection",
		       role, ctx_member(c, role, i));
}

int rows_agree(struct ctx *c, const char *tag, const struct rows *rows,
	       struct err *e)
{
	bool guest = !strcmp(ctx_role(c), "guest");
	const char *role = guest ? "host" : "guest";
	size_t peers = ctx_count(c, role);
	uint8_t mine[ID_MESSAGE];
	int r = 0;

	for (size_t i = 0; i < 8; i++)
		mine[i] = (uint8_t)((uint64_t)rows->n >> (8 * i));
	memcpy(mine + 8, rows->ids, sizeof(rows->ids));
	for (size_t i = 0; i < peers && r >= 0; i++)
		r = ctx_send_bytes(c, role, i, "id_digest", tag, mine,
				   sizeof(mine), e);
	for (size_t i = 0; i < peers && r >= 0; i++)
		r = compare(c, role, i, tag, mine, e);
	return r;
}

/* ---- numbers ------------------------------------------------------------ */

int rows_send(struct ctx *c, const char *name, const uint32_t *v, size_t n,
	      struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < ctx_count(c, "host") && r >= 0; i++)
		r = ctx_send_u32(c, "host", i, name, "", v, n, e);
	return r;
}

int rows_recv(struct ctx *c, const char *name, size_t rows, size_t max,
	      uint32_t **ret, size_t *ret_n, struct err *e)
{
	_cleanup_free_ uint32_t *v = NULL;
	size_t n = 0;
	int r = ctx_recv_u32(c, "guest", 0, name, "", max, &v, &n, e);

	for (size_t i = 0; r >= 0 && i < n; i++)
		if (v[i] >= rows) {
			ctx_fail_code(c, "bad_message",
				      "a partner sent something unexpected");
			r = err_set(e, EPROTO,
				    "message %s: a row that does not exist",
				    name);
		}
	if (r < 0)
		return r;
	*ret = TAKE_PTR(v);
	*ret_n = n;
	return 0;
}
