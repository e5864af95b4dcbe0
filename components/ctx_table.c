// SPDX-License-Identifier: Apache-2.0
/*
 * Tables between parties (table_part.h): each part is a stream of its own, so
 * neither side holds more than a row of it, and the receiver builds while the
 * sender still reads.  The closing message says what all of it should have
 * been.
 */
#include "components/ctx_priv.h"
#include "components/table_part.h"

#include <openssl/evp.h>

#include "lib/fileio.h"
#include "lib/json.h"

#define PART_MIN  (4u << 20)
#define PART_MAX  (64u << 20)
#define PART_WIRE (1ull << 30) /* what is taken for one part */
#define PIECE	  (256u << 10)

struct part_sum {
	uint64_t rows;
	char sha256[65];
};

static void part_tag(char ret[256], const char *tag, const char *what)
{
	(void)snprintf(ret, 256, "%s.%s", *tag ? tag : "-", what);
}

static void part_number(char ret[20], unsigned k)
{
	(void)snprintf(ret, 20, "%u", k);
}

static int sum_end(EVP_MD_CTX *md, char ret[65], struct err *e)
{
	static const char digits[] = "0123456789abcdef";
	uint8_t d[32];

	if (!EVP_DigestFinal_ex(md, d, NULL))
		return err_set(e, ENOMEM, "digest");
	for (size_t i = 0; i < sizeof(d); i++) {
		ret[2 * i] = digits[d[i] >> 4];
		ret[2 * i + 1] = digits[d[i] & 15];
	}
	ret[64] = '\0';
	return 0;
}

static EVP_MD_CTX *sum_begin(void)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();

	if (md && EVP_DigestInit_ex(md, EVP_sha256(), NULL))
		return md;
	EVP_MD_CTX_free(md);
	return NULL;
}

static json_t *closing(const json_t *schema, const struct part_sum *sums,
		       unsigned parts, uint64_t rows)
{
	json_t *list = json_array();

	for (unsigned k = 0; k < parts; k++)
		json_array_append_new(list,
				      json_pack("{s:I, s:s}", "rows",
						(json_int_t)sums[k].rows,
						"sha256", sums[k].sha256));
	return json_pack("{s:O, s:o, s:I}", "schema", (json_t *)schema, "parts",
			 list, "rows", (json_int_t)rows);
}

/* ---- sending ----------------------------------------------------------- */

/* The table's own partitions, or as many as keep a part's size in bounds. */
static unsigned parts_of(const struct table *t)
{
	const struct table_schema *s = table_schema(t);
	uint64_t rows = table_rows(t);
	uint64_t bytes = MAX(table_csv_size(t), rows * (8 * s->n_columns + 16));
	uint64_t least = bytes / PART_MAX + 1, most = MAX(bytes / PART_MIN, 1);
	uint64_t n = MAX(MIN(s->partitions, most), least);

	return (unsigned)MIN(MIN(n, MAX(rows, 1)), TABLE_PARTS_MAX);
}

struct sender {
	struct ctx *c;
	struct channel_peer to;
	const char *name, *tag;
	const struct table_schema *schema;
	json_t *text; /* the schema */
	struct table_iter *it;
	struct strbuf buf;
	EVP_MD_CTX *md;
	struct part_sum *sums;
	unsigned parts;
	bool local; /* what failed is no message */
};

static int flush(struct sender *x, struct channel_stream *s, struct err *e)
{
	int r = EVP_DigestUpdate(x->md, x->buf.buf, x->buf.len)
		    ? channel_stream_write(s, x->buf.buf, x->buf.len, e)
		    : err_set(e, ENOMEM, "digest");

	sb_reset(&x->buf);
	return r;
}

static int send_rows(struct sender *x, struct channel_stream *s, uint64_t n,
		     struct err *e)
{
	const struct cell *cells;
	const char *key;
	size_t key_len;
	int r;

	for (uint64_t i = 0; i < n; i++) {
		r = table_next(x->it, &key, &key_len, &cells, e);

		if (!r)
			r = err_set(e, EIO, "the table has fewer rows");
		else if (r > 0 && table_part_row_write(&x->buf, x->schema, key,
						       key_len, cells))
			r = err_set(e, EMSGSIZE, "a row is too large");
		x->local = r < 0;
		if (r > 0)
			r = x->buf.len >= PIECE ? flush(x, s, e) : 0;
		if (r)
			return r;
	}
	r = table_part_end_write(&x->buf, n);
	return r ? err_set(e, -r, "no memory") : flush(x, s, e);
}

static int send_part(struct sender *x, unsigned k, uint64_t n, struct err *e)
{
	struct channel_stream *s = NULL;
	char number[20], tag[256];
	int r;

	part_number(number, k);
	part_tag(tag, x->tag, number);
	r = channel_stream_open(x->c->channel, x->to, x->name, tag, &s, e);
	if (r)
		return r;
	x->md = sum_begin();
	if (!x->md)
		r = err_set(e, ENOMEM, "digest");
	else if (table_part_head_write(&x->buf, k, x->parts, x->text))
		r = err_set(e, EINVAL, "the schema is too large");
	if (!r)
		r = send_rows(x, s, n, e);
	if (!r)
		r = sum_end(x->md, x->sums[k].sha256, e);
	x->sums[k].rows = n;
	EVP_MD_CTX_free(x->md);
	x->md = NULL;
	sb_reset(&x->buf);
	if (!r)
		return channel_stream_close(s, e);
	channel_stream_abort(s);
	return r;
}

/* What the partner would refuse is refused here, with the same sentence. */
static int check_schema(const json_t *text, struct err *e)
{
	struct table_schema *s = table_part_schema(text, e);

	if (!s) {
		e->no = EINVAL;
		return -EINVAL;
	}
	schema_free(s);
	return 0;
}

int ctx_send_table(struct ctx *c, const char *role, size_t i, const char *name,
		   const char *tag, struct table *t, struct err *e)
{
	uint64_t rows = table_rows(t);
	struct sender x = { .c = c,
			    .name = name,
			    .tag = tag,
			    .schema = table_schema(t),
			    .parts = parts_of(t) };
	char end[256];
	json_t *doc;
	int r = ctx_peer(c, role, i, &x.to, e);

	if (r)
		return r;
	x.text = table_part_schema_json(x.schema);
	x.sums = xcalloc(x.parts, sizeof(*x.sums));
	sb_init(&x.buf, TABLE_PART_HEAD_MAX + TABLE_PART_CELLS_MAX + PIECE);
	r = check_schema(x.text, e);
	if (!r)
		r = table_scan(t, NULL, 0, &x.it, e);
	for (unsigned k = 0; k < x.parts && !r; k++)
		r = send_part(&x, k,
			      (k + 1) * rows / x.parts - k * rows / x.parts, e);
	table_scan_end(x.it);
	part_tag(end, tag, "end");
	doc = closing(x.text, x.sums, x.parts, rows);
	if (r)
		r = x.local ? err_wrap(e, "message %s", name)
			    : ctx_msg_failed(c, r, name, e);
	else
		r = ctx_send_json(c, role, i, name, end, doc, e);
	json_decref(doc);
	json_decref(x.text);
	sb_free(&x.buf);
	free(x.sums);
	return r;
}

/* ---- receiving --------------------------------------------------------- */

struct receiver {
	struct ctx *c;
	struct channel_peer from;
	const char *name, *tag;
	uint64_t max_rows, rows;
	struct table_schema *schema;
	json_t *text;
	char digest[65]; /* of the schema */
	struct table_build *build;
	struct cell *cells;
	char last[TABLE_KEY_MAX];
	size_t last_len;
	struct part_sum *sums;
	unsigned parts;
	bool local; /* what failed is no message */
	/* of the present part */
	int fd;
	uint64_t at, end; /* what was not yet read from it */
	char *buf;
	size_t pos, have, alloc;
	EVP_MD_CTX *md;
};

/* More bytes behind those that could not be used yet. */
static int more(struct receiver *x, struct err *e)
{
	size_t left = x->have - x->pos, n;
	int r;

	if (x->at == x->end)
		return err_set(e, EPROTO, "a part is cut short");
	memmove(x->buf, x->buf + x->pos, left);
	x->pos = 0;
	x->have = left;
	if (x->alloc - left < PIECE) {
		/* Bounded: lengths are checked before more is asked for. */
		x->alloc = MAX(2 * x->alloc, left + PIECE);
		x->buf = xrealloc(x->buf, x->alloc);
	}
	n = (size_t)MIN(x->end - x->at, (uint64_t)(x->alloc - left));
	r = pread_all(x->fd, x->buf + left, n, x->at);
	if (r)
		return err_sys(e, -r, "reading the message");
	if (!EVP_DigestUpdate(x->md, x->buf + left, n))
		return err_set(e, ENOMEM, "digest");
	x->at += n;
	x->have += n;
	return 0;
}

static int take_head(struct receiver *x, unsigned k, struct err *e)
{
	struct table_part p;
	size_t used = 0;
	int r;

	while ((r = table_part_head(x->buf + x->pos, x->have - x->pos, &p,
				    &used, e)) == -EAGAIN) {
		r = more(x, e);
		if (r)
			return r;
	}
	if (r)
		return r;
	x->pos += used;
	if (p.part != k || (k && p.parts != x->parts) ||
	    (k && strcmp(p.schema_sha256, x->digest) != 0)) {
		table_part_free(&p);
		return err_set(e, EPROTO, "part %u is of another table", k);
	}
	if (k)
		return 0;
	x->parts = p.parts;
	x->sums = xcalloc(p.parts, sizeof(*x->sums));
	x->text = p.schema;
	memcpy(x->digest, p.schema_sha256, sizeof(x->digest));
	x->schema = table_part_schema(x->text, e);
	if (!x->schema)
		return -EPROTO;
	x->cells = xcalloc(x->schema->n_columns + 1, sizeof(*x->cells));
	r = table_build_begin(x->c->store, x->schema, &x->build, e);
	x->local = r != 0;
	return r;
}

static int take_row(struct receiver *x, const struct table_part_row *row,
		    struct err *e)
{
	size_t common = MIN(row->key_len, x->last_len);
	int d = memcmp(row->key, x->last, common);

	if (x->rows && (d < 0 || (!d && row->key_len <= x->last_len)))
		return err_set(e, EPROTO, "ids that are not in their order");
	if (++x->rows > x->max_rows)
		return err_set(e, EPROTO, "more than %llu rows",
			       (unsigned long long)x->max_rows);
	memcpy(x->last, row->key, row->key_len);
	x->last_len = row->key_len;
	d = table_build_add(x->build, row->key, row->key_len, row->cells, e);
	x->local = d != 0;
	return d;
}

static int take_rows(struct receiver *x, unsigned k, struct err *e)
{
	struct table_part_row row = { .cells = x->cells };
	size_t used = 0;
	uint64_t n = 0;
	int r;

	for (;;) {
		r = table_part_row(x->schema, x->buf + x->pos, x->have - x->pos,
				   &row, &used, e);
		if (r == -EAGAIN)
			r = more(x, e) ? -e->no : -EAGAIN;
		else if (r >= 0)
			x->pos += used;
		if (r == -EAGAIN)
			continue;
		if (r <= 0)
			break;
		r = take_row(x, &row, e);
		if (r)
			return r;
		n++;
	}
	if (r)
		return r;
	x->sums[k].rows = n;
	return row.rows != n || x->pos != x->have || x->at != x->end
		   ? err_set(e, EPROTO, "part %u is not what its end says", k)
		   : 0;
}

static int take_part(struct receiver *x, unsigned k, struct err *e)
{
	char number[20], tag[256];
	uint64_t n = 0;
	int r;

	part_number(number, k);
	part_tag(tag, x->tag, number);
	r = channel_recv_file(x->c->channel, x->from, x->name, tag, PART_WIRE,
			      &x->fd, &x->at, &n, e);
	if (r)
		return r;
	x->end = x->at + n;
	x->pos = x->have = 0;
	x->md = sum_begin();
	r = x->md ? take_head(x, k, e) : err_set(e, ENOMEM, "digest");
	if (!r)
		r = take_rows(x, k, e);
	if (!r)
		r = sum_end(x->md, x->sums[k].sha256, e);
	EVP_MD_CTX_free(x->md);
	close(x->fd);
	return r;
}

static int check_closing(struct receiver *x, const char *role, size_t i,
			 struct err *e)
{
	json_t *got = NULL, *want;
	char tag[256];
	int r;

	part_tag(tag, x->tag, "end");
	r = ctx_recv_json(x->c, role, i, x->name, tag, &got, e);
	if (r)
		return r;
	want = closing(x->text, x->sums, x->parts, x->rows);
	if (!json_equal(got, want))
		r = ctx_msg_failed(x->c,
				   err_set(e, EPROTO,
					   "the parts are not what their "
					   "closing message says"),
				   x->name, e);
	json_decref(got);
	json_decref(want);
	return r;
}

int ctx_recv_table(struct ctx *c, const char *role, size_t i, const char *name,
		   const char *tag, uint64_t max_rows, struct table_build **ret,
		   struct err *e)
{
	struct receiver x = { .c = c,
			      .name = name,
			      .tag = tag,
			      .max_rows = max_rows,
			      .parts = 1,
			      .alloc = PIECE };
	int r = ctx_peer(c, role, i, &x.from, e);

	if (r)
		return r;
	x.buf = xmalloc(x.alloc);
	for (unsigned k = 0; k < x.parts && !r; k++)
		r = take_part(&x, k, e);
	if (r)
		r = x.local ? err_wrap(e, "message %s", name)
			    : ctx_msg_failed(c, r, name, e);
	else
		r = check_closing(&x, role, i, e);
	if (!r)
		*ret = x.build;
	else if (x.build)
		table_build_abort(x.build);
	schema_free(x.schema);
	json_decref(x.text);
	free(x.cells);
	free(x.sums);
	free(x.buf);
	return r;
}
