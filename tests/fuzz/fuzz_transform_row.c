// SPDX-License-Identifier: Apache-2.0
/*
 * Rows of svmlight, tags and dense text: every field lies inside the row, in
 * its order and without blanks at its edges.  The input's first two bytes say
 * which format.
 */
#include "components/data_transform.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *const delimiters[] = { ",", " ", ";;", "\t", ":", "abab" };
static const char *const inners[] = { ":", NULL, "::", "=" };

/* Fields come one behind the other; returns the place behind this one. */
static const char *inside(const struct span *s, const char *from,
			  const char *end)
{
	if (s->s < from || s->n > (size_t)(end - s->s))
		abort();
	if (s->n && (s->s[0] == ' ' || s->s[s->n - 1] == ' '))
		abort();
	return s->s + s->n;
}

static void cells(const struct row_format *f, const char *text, size_t n)
{
	const char *from = text;
	struct row_scan r;
	struct span s;
	size_t seen = 0;

	row_begin(&r, f, text, n);
	while (row_cell(&r, &s)) {
		from = inside(&s, from, text + n);
		seen++;
	}
	if (!seen || seen > n + 1 || row_cell(&r, &s))
		abort();
}

static void features(const struct row_format *f, const char *text, size_t n)
{
	const char *from = text, *end = text + n;
	struct row_feature x;
	struct row_scan r;
	struct span s;
	uint64_t number;
	int k;

	row_begin(&r, f, text, n);
	for (size_t i = 0; i < f->match_ids + f->label; i++)
		if (row_prefix(&r, &s))
			from = inside(&s, from, end);
	while ((k = row_feature(&r, &x))) {
		if (k < 0)
			continue;
		from = inside(&x.name, from, end);
		if (!x.name.n || !f->inner != !x.value.s)
			abort();
		if (x.value.s)
			from = inside(&x.value, from, end);
		if (row_number(&x.name, &number) &&
		    number >= 1000000000000000000ull)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct row_format f = { 0 };
	char *text; /* of its own, so that a sanitizer sees its edges */

	if (n < 2)
		return 0;
	f.format = data[0] & 1 ? FORMAT_TAG : FORMAT_SPARSE;
	f.delimiter = delimiters[data[1] % ARRAY_SIZE(delimiters)];
	f.inner = inners[(data[0] >> 1) % ARRAY_SIZE(inners)];
	f.match_ids = data[0] >> 4 & 3;
	f.label = data[0] >> 6 & 1;
	text = xmalloc(n - 1);
	memcpy(text, data + 2, n - 2);
	cells(&f, text, n - 2);
	features(&f, text, n - 2);
	free(text);
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
