// SPDX-License-Identifier: Apache-2.0
/* meta.json to a schema and back; then bytes of a row by that schema. */
#include "lib/table_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	const uint8_t *zero = n ? memchr(data, 0, n) : NULL;
	size_t json_len = zero ? (size_t)(zero - data) : n;
	struct err e = { 0 };
	json_t *o = json_parse((const char *)data, json_len, &e);
	struct table_schema *s = o ? schema_from_json(o, &e) : NULL;

	if (s) {
		struct cell *cells = xcalloc(s->n_columns, sizeof(*cells));
		struct strbuf line = STRBUF_INIT(CSV_LINE_MAX);
		json_t *back = schema_to_json(s, 0);
		struct table_schema *again = schema_from_json(back, &e);

		if (!again || again->n_columns != s->n_columns)
			abort();
		if (zero && !row_decode(s, (const char *)zero + 1,
					n - json_len - 1, cells))
			(void)table_csv_line(&line, s, "k", 1, cells);
		sb_free(&line);
		free(cells);
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
