// SPDX-License-Identifier: Apache-2.0
#include "lib/csv.h"

enum { START, PLAIN, QUOTED, QUOTE, CR };

void csv_init(struct csv *c, char delimiter, size_t row_max, size_t fields_max,
	      csv_row_fn fn, void *arg)
{
	*c = (struct csv){ .delimiter = delimiter,
			   .rest = delimiter,
			   .splits = SIZE_MAX,
			   .fields_max = fields_max,
			   .fn = fn,
			   .arg = arg,
			   .line = 1,
			   .row_line = 1 };
	sb_init(&c->text, row_max);
}

void csv_free(struct csv *c)
{
	sb_free(&c->text);
	free(c->fields);
	c->fields = NULL;
}

static int bad(const struct csv *c, struct err *e, const char *what)
{
	return err_set(e, EINVAL, "line %llu column %zu: %s",
		       (unsigned long long)c->row_line, c->n + 1, what);
}

static bool cuts(const struct csv *c, char ch)
{
	return ch == (c->n ? c->rest : c->delimiter) && c->n < c->splits;
}

static int end_field(struct csv *c, struct err *e)
{
	if (c->n == c->fields_max)
		return err_set(e, EINVAL, "line %llu: more than %zu columns",
			       (unsigned long long)c->row_line, c->fields_max);
	if (c->n == c->alloc) {
		c->alloc = c->alloc ? 2 * c->alloc : 32;
		c->fields = xrealloc(c->fields, c->alloc * sizeof(*c->fields));
	}
	c->fields[c->n++] =
	    (struct csv_field){ .at = c->from, .len = c->text.len - c->from };
	c->from = c->text.len;
	c->state = START;
	return 0;
}

static int end_row(struct csv *c, struct err *e)
{
	int r = end_field(c, e);

	if (!r)
		r = c->fn(c->arg, c->row_line, c->text.buf, c->fields, c->n, e);
	sb_reset(&c->text);
	c->n = 0;
	c->from = 0;
	return r;
}

static int add(struct csv *c, const char *p, size_t n, struct err *e)
{
	return sb_add(&c->text, p, n)
		   ? err_set(e, EINVAL, "line %llu: longer than %zu bytes",
			     (unsigned long long)c->row_line, c->text.max)
		   : 0;
}

/* The first byte of a row, of a field, or behind a closing quote. */
static int step(struct csv *c, char ch, struct err *e)
{
	int r = 0;

	if (c->state == CR) {
		c->state = START;
		if (ch != '\n')
			return bad(c, e,
				   "a carriage return inside the line (do all "
				   "lines end so? tr '\\r' '\\n')");
		if (c->n || c->text.len)
			r = end_row(c, e);
		c->row_line = ++c->line;
		return r;
	}
	if (cuts(c, ch))
		return end_field(c, e);
	if (ch == '\n') {
		/* A quoted empty field alone is a row, an empty line none. */
		if (c->n || c->text.len || c->state == QUOTE)
			r = end_row(c, e);
		c->state = START;
		c->row_line = ++c->line;
		return r;
	}
	if (ch == '\r') {
		c->state = CR;
		return 0;
	}
	if (c->state == QUOTE && ch != '"') {
		c->behind = ch;
		return bad(c, e, "text behind the closing quote");
	}
	if (ch == '"' && !c->plain) {
		if (c->state == PLAIN)
			return bad(c, e, "a quote inside an unquoted field");
		if (c->state == QUOTE) /* a doubled quote */
			r = add(c, &ch, 1, e);
		c->state = QUOTED;
		return r;
	}
	c->state = PLAIN;
	return add(c, &ch, 1, e);
}

int csv_feed(struct csv *c, const char *data, size_t n, struct err *e)
{
	static const char mark[] = "\xef\xbb\xbf";
	size_t i = 0;

	while (i < n && c->bom < 3) {
		if (data[i] != mark[c->bom]) {
			/* It was no mark after all: give back what matched. */
			unsigned k = c->bom;

			c->bom = 4;
			for (unsigned j = 0; j < k; j++) {
				int r = step(c, mark[j], e);

				if (r)
					return r;
			}
			break;
		}
		c->bom++;
		i++;
	}
	while (i < n) {
		size_t from = i;
		int r;

		if (c->simple && c->state == START && !c->n && !c->text.len) {
			r = csv_simple_rows(c, data + i, n - i, &from, e);
			i += from;
			if (r || i == n)
				return r;
			from = i;
		}
		if (c->state == QUOTED) {
			while (i < n && data[i] != '"') {
				c->line += data[i] == '\n';
				i++;
			}
			r = add(c, data + from, i - from, e);
			if (!r && i < n) {
				c->state = QUOTE;
				i++;
			}
		} else if (c->state == PLAIN) {
			while (i < n && !cuts(c, data[i]) && data[i] != '\n' &&
			       data[i] != '\r' && (data[i] != '"' || c->plain))
				i++;
			r = add(c, data + from, i - from, e);
			if (!r && i < n)
				r = step(c, data[i++], e);
		} else {
			r = step(c, data[i++], e);
		}
		if (r)
			return r;
	}
	return 0;
}

int csv_end(struct csv *c, struct err *e)
{
	if (c->state == QUOTED)
		return bad(c, e, "the file ends inside quotes");
	if (c->n || c->text.len || c->state == QUOTE)
		return end_row(c, e);
	return 0;
}
