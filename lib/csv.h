/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A streaming CSV reader (RFC 4180: quotes, doubled quotes, line breaks inside
 * quotes; CR LF or LF; a UTF-8 byte order mark is skipped).  Bytes may come in
 * any pieces.  Strict: a quote inside an unquoted field, text behind a closing
 * quote, or an end inside quotes is an error.
 *
 * Between csv_init and the first byte a caller may change how lines are cut:
 * rest (the delimiter behind the first field), splits (no more cuts than so
 * many; the last field keeps the rest of the line), plain (a quote is a
 * character like others, a line break always ends the row).
 *
 * A row function may set simple and simple_fields: from then on rows of that
 * many fields that are UTF-8 and hold nothing of what CSV writes in quotes
 * (docs/tables.md) go to that function whole, many times faster.
 */
#ifndef LIB_CSV_H
#define LIB_CSV_H

#include "lib/err.h"
#include "lib/strbuf.h"

struct csv_field {
	size_t at, len; /* in the text handed to the row function */
};

/* One row; line is where it began (1-based). An empty line has no row. */
typedef int (*csv_row_fn)(void *arg, uint64_t line, const char *text,
			  const struct csv_field *fields, size_t n,
			  struct err *e);

/* One row as it stands in the file, without its line break; the first field
 * has so many bytes.  1: take it apart instead. */
typedef int (*csv_simple_fn)(void *arg, uint64_t line, const char *text,
			     size_t n, size_t first, struct err *e);

struct csv {
	char delimiter, rest;
	bool plain;
	size_t splits;
	size_t fields_max;
	csv_row_fn fn;
	csv_simple_fn simple; /* NULL: none */
	size_t simple_fields;
	void *arg;
	/* Below is the reader's own. */
	int state;
	char behind; /* what stood behind a closing quote, and must not */
	unsigned bom;
	uint64_t line, row_line;
	struct strbuf text;
	struct csv_field *fields;
	size_t n, alloc, from;
};

void csv_init(struct csv *c, char delimiter, size_t row_max, size_t fields_max,
	      csv_row_fn fn, void *arg);
int csv_feed(struct csv *c, const char *data, size_t n,
	     struct err *e) MUST_CHECK;
int csv_end(struct csv *c, struct err *e) MUST_CHECK; /* end of file */
void csv_free(struct csv *c);

/* The simple rows at the start of a text; *ret_used bytes were theirs, where
 * they end. For csv_feed. */
int csv_simple_rows(struct csv *c, const char *data, size_t n, size_t *ret_used,
		    struct err *e) MUST_CHECK;

#endif
