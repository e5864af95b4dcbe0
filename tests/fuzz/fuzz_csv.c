// SPDX-License-Identifier: Apache-2.0
/* The CSV reader: the same rows whole and in pieces, fields inside the text. */
#include "lib/csv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct seen {
	uint64_t rows, hash;
};

static int on_row(void *arg, uint64_t line, const char *text,
		  const struct csv_field *f, size_t n, struct err *e)
{
	struct seen *s = arg;

	(void)e;
	s->rows++;
	s->hash = s->hash * 31 + line;
	for (size_t i = 0; i < n; i++) {
		s->hash = s->hash * 31 + f[i].len;
		for (size_t k = 0; k < f[i].len; k++)
			s->hash =
			    s->hash * 31 + (unsigned char)text[f[i].at + k];
	}
	return 0;
}

static int parse(const char *data, size_t n, size_t piece, unsigned how,
		 struct seen *s)
{
	struct csv c;
	int r = 0;

	csv_init(&c, ',', 4096, 64, on_row, s);
	c.rest = how & 1 ? ';' : ',';
	c.splits = how & 2 ? 1 : SIZE_MAX;
	c.plain = how & 4;
	for (size_t at = 0; at < n && !r; at += piece)
		r = csv_feed(&c, data + at, MIN(piece, n - at), NULL);
	if (!r)
		r = csv_end(&c, NULL);
	csv_free(&c);
	return r;
}

static void check(const char *data, size_t n, unsigned how)
{
	struct seen whole = { 0 }, pieces = { 0 };
	int a = parse(data, n, n ? n : 1, how, &whole);
	int b = parse(data, n, 3, how, &pieces);

	if (a != b || whole.rows != pieces.rows || whole.hash != pieces.hash)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	for (unsigned how = 0; how < 8; how++)
		check((const char *)data, n, how);
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
