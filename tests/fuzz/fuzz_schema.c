// SPDX-License-Identifier: Apache-2.0
/* meta.json to a schema and back; then bytes of a row by that schema, in each
 * format that it may have. */
#include "lib/table_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Bytes of a row that can be read: its cells are written and read again. */
static void row(enum row_format f, const struct table_schema *s,
		const char *data, size_t n)
{
	_cleanup_(row_view_free) struct row_view v = { 0 }, again = { 0 };
	_cleanup_strbuf_ struct strbuf line = STRBUF_INIT(CSV_LINE_MAX);
	_cleanup_free_ char *put = NULL;
	size_t size = 0;

	row_view_init(&v, f, s);
	row_view_init(&again, f, s);
	if (row_view_decode(&v, data, n))
		return;
	put = xmalloc(row_size_max(f, s, v.cells));
	if (row_view_decode(&again, put, row_put(f, s, v.cells, put)))
		abort();
	for (size_t i = 0; i < s->n_columns; i++)
		if (s->columns[i].type == CELL_STRING &&
		    (v.cells[i].len != again.cells[i].len ||
		     memcmp(v.cells[i].str, again.cells[i].str,
			    v.cells[i].len) != 0))
			abort();
	if (!row_view_line(&v, &line, "k", 1, data, n) &&
	    (row_view_line_size(&v, "k", 1, data, n, &size) ||
	     size != line.len))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	const uint8_t *zero = n ? memchr(data, 0, n) : NULL;
	size_t json_len = zero ? (size_t)(zero - data) : n;
	struct err e = { 0 };
	json_t *o = json_parse((const char *)data, json_len, &e);
	struct table_schema *s = o ? schema_from_json(o, &e) : NULL;

	if (s) {
		json_t *back = schema_to_json(s, 0);
		struct table_schema *again = schema_from_json(back, &e);

		if (!again || again->n_columns != s->n_columns)
			abort();
		if (zero) {
			const char *bytes = (const char *)zero + 1;

			row(ROWS_CELLS, s, bytes, n - json_len - 1);
			if (row_format(s) == ROWS_TEXT)
				row(ROWS_TEXT, s, bytes, n - json_len - 1);
		}
		schema_free(again);
		json_decref(back);
		schema_free(s);
	}
	json_decref(o);
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
