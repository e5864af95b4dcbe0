// SPDX-License-Identifier: Apache-2.0
/* Rows as bytes, and as lines of CSV. */
#include <endian.h>
#include <math.h>

#include "lib/table_ops_priv.h"

enum row_format row_format(const struct table_schema *s)
{
	for (size_t i = 0; i < s->n_columns; i++)
		if (s->columns[i].type != CELL_STRING)
			return ROWS_CELLS;
	return ROWS_TEXT;
}

/* ---- a field of CSV ---------------------------------------------------- */

static bool needs_quotes(const char *s, size_t n)
{
	static const bool special[256] = {
		[','] = true, ['"'] = true, ['\n'] = true, ['\r'] = true
	};

	if (!n)
		return false;
	if (s[0] == ' ' || s[0] == '\t' || s[n - 1] == ' ' || s[n - 1] == '\t')
		return true;
	for (size_t i = 0; i < n; i++)
		if (special[(unsigned char)s[i]])
			return true;
	return false;
}

static char *put_quoted(char *to, const char *s, size_t n)
{
	*to++ = '"';
	for (size_t i = 0; i < n; i++) {
		if (s[i] == '"')
			*to++ = '"';
		*to++ = s[i];
	}
	*to++ = '"';
	return to;
}

static char *put_field(char *to, const char *s, size_t n)
{
	if (needs_quotes(s, n))
		return put_quoted(to, s, n);
	if (n)
		memcpy(to, s, n);
	return to + n;
}

int csv_add_field(struct strbuf *sb, const char *s, size_t n)
{
	if (!needs_quotes(s, n))
		return sb_add(sb, s, n);
	if (sb_reserve(sb, 2 * n + 2))
		return sb->error;
	sb->len = (size_t)(put_quoted(sb->buf + sb->len, s, n) - sb->buf);
	sb->buf[sb->len] = '\0';
	return 0;
}

size_t csv_field_size(const char *s, size_t n)
{
	size_t more = 2;

	if (!needs_quotes(s, n))
		return n;
	for (size_t i = 0; i < n; i++)
		more += s[i] == '"';
	return n + more;
}

/* ---- encoding ----------------------------------------------------------- */

size_t row_size_max(enum row_format f, const struct table_schema *s,
		    const struct cell *cells)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n_columns; i++)
		n += s->columns[i].type != CELL_STRING ? 8
		     : f == ROWS_TEXT		       ? 2 * cells[i].len + 3
						       : cells[i].len + 4;
	return n;
}

static char *put_u64(char *to, uint64_t v)
{
	v = htole64(v);
	memcpy(to, &v, sizeof(v));
	return to + sizeof(v);
}

static char *put_cell(char *to, enum cell_type type, const struct cell *c)
{
	uint64_t bits;
	uint32_t len;

	switch (type) {
	case CELL_F64:
		memcpy(&bits, &c->f64, sizeof(bits));
		return put_u64(to, bits);
	case CELL_I64:
		return put_u64(to, (uint64_t)c->i64);
	case CELL_STRING:
		break;
	}
	len = htole32((uint32_t)c->len);
	memcpy(to, &len, sizeof(len));
	if (c->len)
		memcpy(to + sizeof(len), c->str, c->len);
	return to + sizeof(len) + c->len;
}

size_t row_put(enum row_format f, const struct table_schema *s,
	       const struct cell *cells, char *to)
{
	char *p = to;

	for (size_t i = 0; i < s->n_columns; i++) {
		if (f == ROWS_CELLS) {
			p = put_cell(p, s->columns[i].type, &cells[i]);
			continue;
		}
		if (i)
			*p++ = ',';
		p = put_field(p, cells[i].str, cells[i].len);
	}
	return (size_t)(p - to);
}

int row_encode(struct strbuf *sb, const struct table_schema *s,
	       const struct cell *cells)
{
	int r = sb_reserve(sb, row_size_max(ROWS_CELLS, s, cells));

	if (r)
		return r;
	sb->len += row_put(ROWS_CELLS, s, cells, sb->buf + sb->len);
	sb->buf[sb->len] = '\0';
	return 0;
}

/* ---- decoding ----------------------------------------------------------- */

void row_view_init(struct row_view *v, enum row_format f,
		   const struct table_schema *s)
{
	*v = (struct row_view){
		.format = f,
		.schema = s,
		.cells = xcalloc(s->n_columns, sizeof(*v->cells)),
	};
	sb_init(&v->text, CSV_LINE_MAX);
}

void row_view_free(struct row_view *v)
{
	free(v->cells);
	sb_free(&v->text);
}

int row_decode(const struct table_schema *s, const char *data, size_t n,
	       struct cell *cells)
{
	for (size_t i = 0; i < s->n_columns; i++) {
		struct cell *c = &cells[i];
		uint64_t bits;
		uint32_t len;

		c->type = s->columns[i].type;
		if (c->type == CELL_STRING) {
			if (n < 4)
				return -EIO;
			memcpy(&len, data, 4);
			len = le32toh(len);
			if (n - 4 < len)
				return -EIO;
			c->str = data + 4;
			c->len = len;
			data += 4 + len;
			n -= 4 + (size_t)len;
			continue;
		}
		if (n < 8)
			return -EIO;
		memcpy(&bits, data, 8);
		bits = le64toh(bits);
		data += 8;
		n -= 8;
		if (c->type == CELL_F64)
			memcpy(&c->f64, &bits, 8);
		else
			c->i64 = (int64_t)bits;
	}
	return n ? -EIO : 0;
}

/* From behind the opening quote; returns what is behind the closing one.
 * There is room in v->text. */
static const char *unquote(struct row_view *v, const char *p, const char *end,
			   struct cell *c)
{
	char *to = v->text.buf + v->text.len;

	c->str = to;
	for (;; p++) {
		if (p == end)
			return NULL;
		if (*p == '"' && (++p == end || *p != '"'))
			break;
		*to++ = *p;
	}
	c->len = (size_t)(to - c->str);
	v->text.len += c->len;
	return p;
}

static int decode_text(struct row_view *v, const char *data, size_t n)
{
	const char *end = data + n, *p = data;
	size_t columns = v->schema->n_columns;

	sb_reset(&v->text);
	for (size_t i = 0; i < columns; i++) {
		struct cell *c = &v->cells[i];
		const char *comma;

		c->type = CELL_STRING;
		if (p < end && *p == '"') {
			if (!v->text.len && sb_reserve(&v->text, n))
				return -EIO;
			p = unquote(v, p + 1, end, c);
			if (!p)
				return -EIO;
			comma = p;
		} else {
			comma = i + 1 < columns
				    ? memchr(p, ',', (size_t)(end - p))
				    : end;
			if (!comma)
				return -EIO;
			c->str = p;
			c->len = (size_t)(comma - p);
		}
		if (i + 1 < columns && (comma == end || *comma != ','))
			return -EIO;
		p = i + 1 < columns ? comma + 1 : comma;
	}
	return p == end ? 0 : -EIO;
}

int row_view_decode(struct row_view *v, const char *data, size_t n)
{
	return v->format == ROWS_TEXT
		   ? decode_text(v, data, n)
		   : row_decode(v->schema, data, n, v->cells);
}

/* No number needs quotes. */
static int text_numbers(const char *p, const char *end, size_t columns,
			double *x)
{
	for (size_t i = 0; i < columns; i++) {
		p = text_field_number(p, end, &x[i]);
		if (!p || (p == end) != (i + 1 == columns))
			return -EINVAL;
		p++;
	}
	return 0;
}

int row_view_numbers(struct row_view *v, const char *data, size_t n, double *x)
{
	size_t columns = v->schema->n_columns;
	int r;

	if (v->format == ROWS_TEXT)
		return text_numbers(data, data + n, columns, x);
	r = row_view_decode(v, data, n);
	for (size_t i = 0; i < columns && !r; i++)
		r = cell_number(&v->cells[i], &x[i]);
	return r;
}

/* ---- lines --------------------------------------------------------------- */

static int cells_line(struct strbuf *sb, const struct row_view *v,
		      const char *key, size_t key_len)
{
	char num[NUM_MAX];

	csv_add_field(sb, key, key_len);
	for (size_t i = 0; i < v->schema->n_columns; i++) {
		const struct cell *c = &v->cells[i];

		sb_addc(sb, ',');
		if (c->type == CELL_STRING)
			csv_add_field(sb, c->str, c->len);
		else if (c->type == CELL_I64)
			sb_addf(sb, "%lld", (long long)c->i64);
		else if (!isnan(c->f64))
			sb_add(sb, num, num_format(num, c->f64));
	}
	sb_addc(sb, '\n');
	return sb->error;
}

int row_view_line(struct row_view *v, struct strbuf *sb, const char *key,
		  size_t key_len, const char *data, size_t n)
{
	char *p;

	if (v->format == ROWS_CELLS) {
		int r = row_decode(v->schema, data, n, v->cells);

		return r ? r : cells_line(sb, v, key, key_len);
	}
	if (sb_reserve(sb, 2 * key_len + n + 4))
		return sb->error;
	p = put_field(sb->buf + sb->len, key, key_len);
	if (v->schema->n_columns) {
		*p++ = ',';
		memcpy(p, data, n);
		p += n;
	}
	*p++ = '\n';
	*p = '\0';
	sb->len = (size_t)(p - sb->buf);
	return 0;
}

int row_view_line_size(struct row_view *v, const char *key, size_t key_len,
		       const char *data, size_t n, size_t *ret)
{
	int r;

	if (v->format == ROWS_TEXT) {
		*ret = csv_field_size(key, key_len) +
		       (v->schema->n_columns ? n + 1 : 0) + 1;
		return 0;
	}
	sb_reset(&v->text);
	r = row_view_line(v, &v->text, key, key_len, data, n);
	*ret = v->text.len;
	return r;
}

char *table_header_line(const struct table_schema *s, size_t *ret_len)
{
	struct strbuf sb = STRBUF_INIT(TABLE_COLUMNS_MAX * 1024u);

	csv_add_field(&sb, s->id, strlen(s->id));
	for (size_t i = 0; i < s->n_columns; i++) {
		sb_addc(&sb, ',');
		csv_add_field(&sb, s->columns[i].name,
			      strlen(s->columns[i].name));
	}
	sb_addc(&sb, '\n');
	*ret_len = sb.len;
	return sb_detach(&sb);
}
