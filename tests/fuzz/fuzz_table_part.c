// SPDX-License-Identifier: Apache-2.0
/* A part of a table as a partner sends it.  What is taken is within the
 * store's limits and survives being written and read again. */
#include "components/table_part.h"

#include "lib/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void refused(int r, const struct err *e)
{
	if (r != -EPROTO || !e->text[0])
		abort();
}

static void rows(const struct table_schema *s, const char *at, size_t n)
{
	struct table_part_row row = { 0 };
	struct err e = { 0 };
	size_t used = 0;
	int r;

	row.cells = xcalloc(s->n_columns + 1, sizeof(*row.cells));
	while ((r = table_part_row(s, at, n, &row, &used, &e)) == 1) {
		_cleanup_strbuf_ struct strbuf sb =
		    STRBUF_INIT(TABLE_PART_CELLS_MAX + TABLE_KEY_MAX + 8);

		if (used > n || !row.key_len || row.key_len > TABLE_KEY_MAX ||
		    !utf8_valid(row.key, row.key_len))
			abort();
		if (table_part_row_write(&sb, s, row.key, row.key_len,
					 row.cells) ||
		    sb.len != used || memcmp(sb.buf, at, used) != 0)
			abort();
		at += used;
		n -= used;
	}
	if (r && r != -EAGAIN)
		refused(r, &e);
	if (!r && used != 16)
		abort();
	free(row.cells);
}

static void schema(const json_t *o, const char *at, size_t n)
{
	struct err e = { 0 };
	struct table_schema *s = table_part_schema(o, &e);
	json_t *again;

	if (!s) {
		refused(-e.no, &e);
		return;
	}
	again = table_part_schema_json(s);
	if (s->n_columns > TABLE_COLUMNS_MAX || !json_equal(again, o))
		abort();
	json_decref(again);
	rows(s, at, n);
	schema_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct err e = { 0 };
	struct table_part p;
	size_t used = 0;
	int r = table_part_head(data, n, &p, &used, &e);

	if (r) {
		if (r != -EAGAIN)
			refused(r, &e);
		return 0;
	}
	if (used > n || !p.parts || p.parts > TABLE_PARTS_MAX ||
	    p.part >= p.parts || strlen(p.schema_sha256) != 64 ||
	    !p.schema != !!p.part)
		abort();
	if (p.schema)
		schema(p.schema, (const char *)data + used, n - used);
	table_part_free(&p);
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
