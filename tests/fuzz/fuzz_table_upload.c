// SPDX-License-Identifier: Apache-2.0
/* An upload: what is taken reads back, as long as was promised. */
#include "lib/fileio.h"
#include "lib/table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static char dir[] = "/tmp/rollfs-fuzz-upload-XXXXXX";

static void clean(void)
{
	(void)remove_tree(dir, NULL);
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

	if (dir[sizeof(dir) - 2] == 'X') {
		if (!mkdtemp(dir))
			abort();
		(void)atexit(clean);
	}
	/* Closed before RocksDB's own statics go at exit. */
	if (table_store_open(dir, &store, NULL))
		abort();
	if (table_upload_begin(store, NULL, &u, &e))
		abort();
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
