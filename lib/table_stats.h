/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the text of a column looks like.  Uploaded cells stay text; while a
 * table is built it is noted which columns hold nothing but numbers, so that
 * they can be read as numbers without a look at the rows (table_columns.h).
 *
 * A number is what pandas.read_csv takes for one: decimal digits with an
 * optional sign, point and exponent, or inf; a missing one is an empty cell or
 * one of pandas' words for it (NA, NaN, null, None ...).
 */
#ifndef LIB_TABLE_STATS_H
#define LIB_TABLE_STATS_H

#include "lib/table.h"

/* All zero is what is known of no cell at all. */
struct text_stats {
	uint32_t width;	  /* bytes of the longest cell */
	bool not_number;  /* there is a cell that is no number */
	bool not_integer; /* ... that is missing, or no integer of up to 18
			   * digits */
};

struct table_stats {
	struct text_stats id, *columns; /* those of numbers stay zero */
};

struct table_stats *table_stats_new(const struct table_schema *s);
void table_stats_free(struct table_stats *st);
/* One more row. */
void table_stats_add(struct table_stats *st, const struct table_schema *s,
		     size_t key_len, const struct cell *cells);
/* The same of a row of text cells as the CSV view shows them behind the id;
 * false, and it has to be added as cells, when one stands in quotes.  Sixteen
 * bytes behind the text can be read. */
bool table_stats_add_text(struct table_stats *st, const struct table_schema *s,
			  size_t key_len, const char *text, size_t n);
/* What two threads found out, each in its rows. */
void table_stats_merge(struct table_stats *st, const struct table_schema *s,
		       const struct table_stats *other);
struct table_stats *table_stats_dup(const struct table_stats *st,
				    const struct table_schema *s);
/* Into and out of meta.json: members of the columns' objects, "id_width".
 * NULL: the table is older than these statistics. */
void table_stats_to_json(const struct table_stats *st,
			 const struct table_schema *s, json_t *meta);
struct table_stats *table_stats_from_json(const json_t *meta,
					  const struct table_schema *s);

void text_stats_add(struct text_stats *st, const char *s, size_t n);
/* False: no number.  NaN = missing. */
bool text_number(const char *s, size_t n, double *ret);
/* The number in a field of CSV, which ends at a comma or at end: where that
 * is.  NULL: there is no number, or it stands in quotes. */
const char *text_field_number(const char *s, const char *end, double *ret);
/* Of a cell of a column whose cells are all integers. */
int64_t text_integer(const char *s, size_t n);

#endif
