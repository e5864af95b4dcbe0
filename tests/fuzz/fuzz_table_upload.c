// SPDX-License-Identifier: Apache-2.0
/*
 * An upload: what is taken reads back, as long as was promised.  An input that
 * begins with '{' has its upload.json in the first line.
 */
#include "lib/fileio.h"
#include "lib/json.h"
#include "lib/table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char dir[] = "/tmp/rollfs-fuzz-upload-XXXXXX";

static void clean(void)
{
	(void)remove_tree(dir, NULL);
}

/* What is checked when upload.json is written is what an upload takes. */
static json_t *options(const uint8_t **data, size_t *n)
{
	const uint8_t *end =
	    *n && **data == '{' ? memchr(*data, '\n', *n) : NULL;
	json_t *o;

	if (!end)
		return NULL;
	o = json_parse((const char *)*data, (size_t)(end - *data), NULL);
	*n -= (size_t)(end + 1 - *data);
	*data = end + 1;
	return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct table_store *store = NULL;
	struct table_upload *u = NULL;
	struct table *t = NULL;
	struct err e = { 0 };
	char buf[997];
	uint64_t at = 0;
	ssize_t r;
	json_t *o = options(&data, &n);

	if (dir[sizeof(dir) - 2] == 'X') {
		if (!mkdtemp(dir))
			abort();
		(void)atexit(clean);
	}
	/* Closed before RocksDB's own statics go at exit. */
	if (table_store_open(dir, &store, NULL))
		abort();
	r = table_upload_begin(store, o, &u, &e);
	if (r != table_upload_check(o, NULL) || (r && (!o || !e.text[0])))
		abort();
	json_decref(o);
	if (r) {
		table_store_close(store);
		return 0;
	}
	(void)!table_upload_write(u, data, n, &e);
	if (table_upload_publish(u, "fuzz", "t", &e)) {
		if (!e.no || !e.text[0])
			abort();
		table_store_close(store);
		return 0;
	}
	if (table_open(store, "fuzz", "t", &t, &e))
		abort();
	while ((r = table_csv_read(t, at, buf, sizeof(buf), &e)) > 0)
		at += (uint64_t)r;
	if (r || at != table_csv_size(t))
		abort();
	table_unref(t);
	table_store_close(store);
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
