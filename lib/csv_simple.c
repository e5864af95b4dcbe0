// SPDX-License-Identifier: Apache-2.0
/*
 * Rows of CSV without quotes, 64 bytes at a time: which bytes are what is a
 * word of 64 bits each (as in Langdale and Lemire, Parsing gigabytes of JSON
 * per second, VLDB Journal 28, 2019, section 3.1), so that a row costs no step
 * per byte or field.  What is not simple is left to csv.c.
 */
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "lib/csv.h"
#include "lib/table.h"

struct block {
	uint64_t line, cut, blank, cr, high, odd;
};

#ifdef __SSE2__
static uint64_t equal(const __m128i v[4], char c)
{
	const __m128i x = _mm_set1_epi8(c);
	uint64_t bits = 0;

	for (int i = 0; i < 4; i++)
		bits |= (uint64_t)(unsigned)_mm_movemask_epi8(
			    _mm_cmpeq_epi8(v[i], x))
			<< 16 * i;
	return bits;
}

static void look(const char *p, char cut, struct block *ret)
{
	__m128i v[4];

	ret->high = 0;
	for (int i = 0; i < 4; i++) {
		v[i] = _mm_loadu_si128((const __m128i *)(const void *)p + i);
		ret->high |= (uint64_t)(unsigned)_mm_movemask_epi8(v[i])
			     << 16 * i;
	}
	ret->line = equal(v, '\n');
	ret->cut = equal(v, cut);
	ret->cr = equal(v, '\r');
	ret->blank = (equal(v, ' ') | equal(v, '\t')) & ~ret->cut;
	ret->odd =
	    (equal(v, '"') | equal(v, '\0') | (cut == ',' ? 0 : equal(v, ',')));
}
#else
static void look(const char *p, char cut, struct block *ret)
{
	*ret = (struct block){ 0 };
	for (int i = 0; i < 64; i++) {
		const uint64_t bit = 1ull << i;

		ret->line |= p[i] == '\n' ? bit : 0;
		ret->cut |= p[i] == cut ? bit : 0;
		ret->cr |= p[i] == '\r' ? bit : 0;
		ret->blank |= p[i] == ' ' || p[i] == '\t' ? bit : 0;
		ret->high |= p[i] & 0x80 ? bit : 0;
		ret->odd |= p[i] == '"' || !p[i] || p[i] == ',' ? bit : 0;
	}
	ret->blank &= ~ret->cut;
	if (cut == ',')
		ret->odd &= ~ret->cut;
}
#endif

/* What is known of the row in which a block ends. */
struct scan {
	size_t row; /* where it begins */
	size_t cuts, first;
	bool high;
	/* Of the byte before the block. */
	bool edge, blank, cr;
};

/* Blanks at the edge of a field and a carriage return inside a line are odd. */
static void find_odd(struct block *b, struct scan *s)
{
	uint64_t edge = b->line | b->cut | b->cr;

	b->odd |= b->blank & (edge << 1 | s->edge);
	b->odd |= edge & (b->blank << 1 | s->blank);
	b->odd |= ~b->line & (b->cr << 1 | s->cr);
	s->edge = edge >> 63;
	s->blank = b->blank >> 63;
	s->cr = b->cr >> 63;
}

/* Takes what a mask covers into the row; false: it is not simple. */
static bool take(struct block *b, uint64_t mask, size_t at, struct scan *s)
{
	uint64_t cut = b->cut & mask;

	if (b->odd & mask)
		return false;
	if (cut && !s->cuts)
		s->first = at + (size_t)__builtin_ctzll(cut) - s->row;
	s->cuts += (size_t)__builtin_popcountll(cut);
	s->high |= (b->high & mask) != 0;
	b->cut &= ~mask;
	b->high &= ~mask;
	b->line &= ~mask;
	b->odd &= ~mask;
	return true;
}

/* The row that ends at end; 1: not simple. */
static int end_row(struct csv *c, const char *data, size_t end,
		   const struct scan *s, struct err *e)
{
	size_t n = end - s->row;
	int r;

	n -= n && data[end - 1] == '\r';
	if (!n || n > c->text.max || s->cuts + 1 != c->simple_fields ||
	    (s->high && !utf8_valid(data + s->row, n)))
		return 1;
	r = c->simple(c->arg, c->line, data + s->row, n, s->cuts ? s->first : n,
		      e);
	if (!r)
		c->row_line = ++c->line;
	return r;
}

int csv_simple_rows(struct csv *c, const char *data, size_t n, size_t *ret_used,
		    struct err *e)
{
	struct scan s = { .edge = true };
	char tail[64];

	*ret_used = 0;
	for (size_t at = 0; at < n; at += 64) {
		const char *p = data + at;
		struct block b;

		if (n - at < 64) {
			/* A zero behind the end is odd, but in no row. */
			memset(tail, 0, sizeof(tail));
			memcpy(tail, p, n - at);
			p = tail;
		}
		look(p, c->delimiter, &b);
		find_odd(&b, &s);
		while (b.line) {
			unsigned k = (unsigned)__builtin_ctzll(b.line);
			int r;

			if (!take(&b, ~0ull >> (63 - k), at, &s))
				return 0;
			r = end_row(c, data, at + k, &s, e);
			if (r)
				return r < 0 ? r : 0;
			*ret_used = at + k + 1;
			s.row = at + k + 1;
			s.cuts = 0;
			s.high = false;
		}
		if (!take(&b, ~0ull, at, &s))
			return 0;
	}
	return 0;
}
