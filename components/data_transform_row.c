// SPDX-License-Identifier: Apache-2.0
/*
 * One row as text: "[match ids] [label] feature ...", cut by a delimiter and
 * without quotes.  A feature is "7:0.5" (svmlight), "tag" or "tag:0.5".
 */
#include "components/data_transform.h"

static bool blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct span trimmed(const char *s, const char *end)
{
	while (s < end && blank(*s))
		s++;
	while (s < end && blank(end[-1]))
		end--;
	return (struct span){ s, (size_t)(end - s) };
}

void row_begin(struct row_scan *r, const struct row_format *f, const char *text,
	       size_t n)
{
	r->f = f;
	r->p = text;
	r->end = text + n;
}

bool row_cell(struct row_scan *r, struct span *ret)
{
	const char *d = r->f->delimiter, *cut;
	size_t n = strlen(d);

	if (!r->p)
		return false;
	cut = memmem(r->p, (size_t)(r->end - r->p), d, n);
	*ret = trimmed(r->p, cut ? cut : r->end);
	r->p = cut ? cut + n : NULL;
	return true;
}

bool row_field(struct row_scan *r, struct span *ret)
{
	while (row_cell(r, ret))
		if (ret->n)
			return true;
	return false;
}

bool row_prefix(struct row_scan *r, struct span *ret)
{
	/* Blanks in a row are one delimiter, commas are not. */
	return blank(*r->f->delimiter) ? row_field(r, ret) : row_cell(r, ret);
}

int row_feature(struct row_scan *r, struct row_feature *ret)
{
	const char *inner = r->f->inner, *cut;
	struct span s;

	if (!row_field(r, &s))
		return 0;
	*ret = (struct row_feature){ .name = s };
	if (!inner)
		return 1;
	cut = memmem(s.s, s.n, inner, strlen(inner));
	if (!cut)
		return -EINVAL;
	ret->name = trimmed(s.s, cut);
	ret->value = trimmed(cut + strlen(inner), s.s + s.n);
	return ret->name.n ? 1 : -EINVAL;
}

bool row_number(const struct span *s, uint64_t *ret)
{
	uint64_t v = 0;

	if (!s->n || s->n > 18)
		return false;
	for (size_t i = 0; i < s->n; i++) {
		if (s->s[i] < '0' || s->s[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(s->s[i] - '0');
	}
	*ret = v;
	return true;
}
