// SPDX-License-Identifier: Apache-2.0
/* Rows that come in any order, in more arenas and runs than one. */
#include <fcntl.h>
#include <glob.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "lib/table_sort.h"
#include "tests/unit/store_dir.h"

static void sort_bytes(const char *n)
{
	setenv("ROLLFS_TEST_SORT_BYTES", n, 1);
}

struct rows {
	unsigned n, step; /* row i has the id i * step % n */
	unsigned late;	  /* from there ids come in order but begin anew */
	bool numbers;
};

static unsigned id_of(const struct rows *x, unsigned i)
{
	if (x->late)
		return i < x->late ? 2 * i : 2 * (i - x->late) + 1;
	return (unsigned)((uint64_t)i * x->step % x->n);
}

static void build(const struct rows *x, const char *name)
{
	struct table_schema *s = schema_new();
	struct table_build *b = NULL;
	struct err e = { 0 };

	schema_add_column(s, "text", CELL_STRING, NULL);
	schema_add_column(s, "x", x->numbers ? CELL_I64 : CELL_STRING, NULL);
	assert_int_equal(table_build_begin(store, s, &b, &e), 0);
	for (unsigned i = 0; i < x->n; i++) {
		unsigned k = id_of(x, i);
		char key[32], text[32];
		struct cell c[2] = {
			{ .type = CELL_STRING, .str = text },
			{ .type = CELL_I64, .i64 = k, .str = "", .len = 0 },
		};

		/* Keys of unequal length with a long common part. */
		c[0].len = (size_t)snprintf(text, sizeof(text), "t,%u", k);
		(void)snprintf(key, sizeof(key), "common-%u", k);
		if (table_build_add(b, key, strlen(key), c, &e))
			fail_msg("%s", e.text);
	}
	if (table_build_publish(b, "ns", name, &e))
		fail_msg("%s", e.text);
	schema_free(s);
}

/* All rows are there once, in the order of their bytes, at their places. */
static void check(const struct rows *x, const char *name)
{
	_cleanup_free_ bool *seen = xcalloc(x->n, sizeof(*seen));
	struct strbuf last = STRBUF_INIT(100), line = STRBUF_INIT(1000);
	struct table *t = NULL;
	struct table_iter *it = NULL;
	const struct cell *cells;
	const char *key;
	unsigned n = 0;
	uint64_t at;
	size_t len;

	assert_int_equal(table_open(store, "ns", name, &t, NULL), 0);
	at = strlen("id,text,x\n");
	assert_int_equal(table_scan(t, NULL, 0, &it, NULL), 0);
	while (table_next(it, &key, &len, &cells, NULL) == 1) {
		char text[32], buf[100], number[16] = "";
		unsigned k;
		int c;

		assert_true(len > 7 && len < 20);
		memcpy(number, key + 7, len - 7);
		k = (unsigned)strtoul(number, NULL, 10);

		assert_true(k < x->n && !seen[k]);
		seen[k] = true;
		(void)snprintf(text, sizeof(text), "t,%u", k);
		assert_int_equal(cells[0].len, strlen(text));
		assert_memory_equal(cells[0].str, text, cells[0].len);
		c = memcmp(last.buf, key, MIN(last.len, len));
		assert_true(c < 0 || (!c && last.len < len));
		sb_reset(&last);
		sb_add(&last, key, len);
		if (n++ % 1000 == 0) {
			sb_reset(&line);
			assert_int_equal(
			    table_row_csv(t, key, len, &line, NULL), 0);
			assert_int_equal(
			    table_csv_read(t, at, buf, line.len, NULL),
			    line.len);
			assert_memory_equal(buf, line.buf, line.len);
		}
		at += len + strlen("\"\",,\n") + strlen(text);
		if (x->numbers)
			at += (size_t)snprintf(NULL, 0, "%u", k);
	}
	assert_int_equal(n, x->n);
	assert_int_equal(at, table_csv_size(t));
	table_scan_end(it);
	table_unref(t);
	sb_free(&last);
	sb_free(&line);
}

static void runs_are_merged(void **state)
{
	static const struct rows x[] = {
		{ .n = 20001, .step = 7919, .numbers = true },
		{ .n = 20001, .step = 7919 },
	};

	(void)state;
	sort_bytes("40000");
	for (size_t i = 0; i < ARRAY_SIZE(x); i++) {
		build(&x[i], "runs");
		check(&x[i], "runs");
	}
}

static void more_runs_than_may_be_open_are_merged_in_steps(void **state)
{
	static const struct rows x = { .n = 20001, .step = 7919 };

	(void)state;
	sort_bytes("=3000"); /* 300 runs */
	build(&x, "levels");
	check(&x, "levels");
}

/* Of builders, by their names. */
static size_t files_of(const char *pattern)
{
	_cleanup_free_ char *path = xasprintf("%s/building/*/%s", dir, pattern);
	glob_t g = { 0 };
	size_t n;

	(void)glob(path, 0, NULL, &g);
	n = g.gl_pathc;
	globfree(&g);
	return n;
}

static void ids_in_order_go_straight(void **state)
{
	const unsigned rows = 20000, line = 11; /* bytes of "00000000,t\n" */
	struct table_schema *s = schema_new();
	struct table_build *b = NULL;
	struct table *t = NULL;
	char got[12] = "", want[16];

	(void)state;
	sort_bytes("40000");
	schema_add_column(s, "text", CELL_STRING, NULL);
	assert_int_equal(table_build_begin(store, s, &b, NULL), 0);
	for (unsigned i = 0; i < rows; i++) {
		struct cell c = { .type = CELL_STRING, .str = "t", .len = 1 };
		char key[16];
		int n = snprintf(key, sizeof(key), "%08u", i);

		assert_int_equal(table_build_add(b, key, (size_t)n, &c, NULL),
				 0);
	}
	assert_int_equal(table_build_rows(b), rows);
	/* No run was made: none is merged. */
	assert_int_equal(files_of("run.*"), 0);
	assert_int_equal(table_build_publish(b, "ns", "straight", NULL), 0);
	assert_int_equal(table_open(store, "ns", "straight", &t, NULL), 0);
	assert_int_equal(table_rows(t), rows);
	assert_int_equal(table_csv_size(t), 8 + rows * line);
	for (unsigned i = 0; i < rows; i += 997) {
		(void)snprintf(want, sizeof(want), "%08u,t\n", i);
		assert_int_equal(
		    table_csv_read(t, 8 + i * line, got, line, NULL), line);
		assert_string_equal(got, want);
	}
	table_unref(t);
	schema_free(s);
}

static void ids_that_are_in_order_at_first_only(void **state)
{
	static const struct rows x = { .n = 20000, .late = 10000 };

	(void)state;
	sort_bytes("40000");
	build(&x, "late");
	check(&x, "late");
}

static void rows_of_a_megabyte_are_sorted(void **state)
{
	struct table_schema *s = schema_new();
	struct table_build *b = NULL;
	char *text = xmalloc(TABLE_ROW_MAX);
	struct cell c = { .type = CELL_STRING,
			  .str = text,
			  .len = TABLE_ROW_MAX };
	struct table *t = NULL;

	(void)state;
	sort_bytes("40000");
	memset(text, '"', TABLE_ROW_MAX);
	schema_add_column(s, "text", CELL_STRING, NULL);
	assert_int_equal(table_build_begin(store, s, &b, NULL), 0);
	for (char k = 'e'; k >= 'a'; k--)
		assert_int_equal(table_build_add(b, &k, 1, &c, NULL), 0);
	assert_int_equal(table_build_publish(b, "ns", "wide", NULL), 0);
	assert_int_equal(table_open(store, "ns", "wide", &t, NULL), 0);
	assert_int_equal(table_csv_size(t),
			 strlen("id,text\n") + 5 * (2ul * TABLE_ROW_MAX + 5));
	table_unref(t);
	schema_free(s);
	free(text);
}

/* Kilobytes of a line of /proc/self/status. */
static size_t status_of(const char *key)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(100000);
	const char *at;

	assert_int_equal(file_read("/proc/self/status", &sb, NULL), 0);
	at = strstr(sb.buf, key);
	assert_non_null(at);
	return strtoul(at + strlen(key), NULL, 10);
}

static void large_rows_in_many_runs_take_little_memory(void **state)
{
	const unsigned n = 150;
	struct table_schema *s = schema_new();
	struct table_build *b = NULL;
	char *text = xmalloc(TABLE_ROW_MAX);
	struct cell c = { .type = CELL_STRING,
			  .str = text,
			  .len = TABLE_ROW_MAX };
	struct table *t = NULL;
	size_t before;
	int fd;

	(void)state;
	sort_bytes("=1"); /* each row is a run */
	memset(text, 'x', TABLE_ROW_MAX);
	schema_add_column(s, "text", CELL_STRING, NULL);
	assert_int_equal(table_build_begin(store, s, &b, NULL), 0);
	for (unsigned i = 0; i < n; i++) {
		char key[8];
		int len = snprintf(key, sizeof(key), "%03u", i * 59 % n);

		assert_int_equal(table_build_add(b, key, (size_t)len, &c, NULL),
				 0);
	}
	fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0 && write_all(fd, "5", 1) == 0); /* VmHWM */
	close(fd);
	before = status_of("VmRSS:");
	assert_int_equal(table_build_publish(b, "ns", "large", NULL), 0);
/* They keep what was freed, and notes. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	assert_true(status_of("VmHWM:") < before + (110u << 10));
#endif
	(void)before;
	assert_int_equal(table_open(store, "ns", "large", &t, NULL), 0);
	assert_int_equal(table_csv_size(t),
			 strlen("id,text\n") + n * (TABLE_ROW_MAX + 5ul));
	table_unref(t);
	schema_free(s);
	free(text);
}

static void add_noise(struct table_build *b, const char *end, unsigned from,
		      unsigned n, int step)
{
	static uint32_t x = 1;
	char text[400];

	for (unsigned i = 0; i < n; i++) {
		struct cell c = { .str = text, .len = sizeof(text) };
		struct err e;
		char key[16];
		int len = snprintf(key, sizeof(key), "%08u%s",
				   from + i * (unsigned)step, end);

		for (size_t k = 0; k < sizeof(text); k++)
			text[k] = (char)((x = x * 1103515245 + 12345) >> 16);
		if (table_build_add(b, key, (size_t)len, &c, &e))
			fail_msg("%s", e.text);
	}
}

/* Ten thousand rows that went straight, but what lies on the disk is not what
 * was written; then more than an arena that is not in order. */
static struct table_build *damaged_straight(struct table_progress *p)
{
	_cleanup_free_ char *path = NULL;
	struct table_schema *s = schema_new();
	struct table_build *b = NULL;
	glob_t g;
	int fd;

	sort_bytes("40000");
	schema_add_column(s, "text", CELL_STRING, NULL);
	assert_int_equal(table_build_begin(store, s, &b, NULL), 0);
	table_build_watch(b, p);
	add_noise(b, "", 0, 10000, 1);
	path = xasprintf("%s/building/*/rows.0.0.sst", dir);
	assert_int_equal(glob(path, 0, NULL, &g), 0);
	fd = open(g.gl_pathv[0], O_WRONLY | O_CLOEXEC);
	globfree(&g);
	assert_true(fd >= 0);
	assert_int_equal(pwrite_all(fd, "damaged", 7, 1000000), 0);
	close(fd);
	add_noise(b, "x", 999, 1000, -1);
	schema_free(s);
	return b;
}

static void rows_that_went_straight_are_not_lost(void **state)
{
	struct table_progress p = { 0 };
	struct err e = { 0 };

	(void)state;
	assert_int_equal(
	    table_build_publish(damaged_straight(&p), "ns", "lost", &e), -EIO);
	assert_non_null(strstr(e.text, "Corruption"));
}

/* Copying them takes long when the table is large: only publish does it, for
 * which nobody's write waits, and which can be stopped. */
static void a_late_row_does_not_wait_for_those_that_went_straight(void **state)
{
	struct table_progress p = { 0 };
	struct table_build *b = damaged_straight(&p);

	(void)state;
	assert_int_equal(files_of("rows.0.0.sst"), 1); /* where it was */
	p.stop = true;
	assert_int_equal(table_build_publish(b, "ns", "lost", NULL), -EINTR);
	assert_int_equal(files_of("*"), 0);
}

static void a_large_index_is_thinned_out(void **state)
{
	static const struct rows x = { .n = 70001, .step = 1 };

	(void)state;
	setenv("ROLLFS_TEST_INDEX_EVERY", "1", 1);
	unsetenv("ROLLFS_TEST_SORT_BYTES");
	build(&x, "thin");
	unsetenv("ROLLFS_TEST_INDEX_EVERY");
	check(&x, "thin");
}

static void an_index_of_large_ids_is_small(void **state)
{
	_cleanup_free_ char *index = NULL;
	struct table_schema *s = schema_new();
	struct table_build *b = NULL;
	struct table *t = NULL;
	struct table_id id;
	struct stat st;
	char key[TABLE_KEY_MAX + 1], got[40];

	(void)state;
	unsetenv("ROLLFS_TEST_SORT_BYTES");
	setenv("ROLLFS_TEST_INDEX_EVERY", "1", 1);
	assert_int_equal(table_build_begin(store, s, &b, NULL), 0);
	for (unsigned i = 0; i < 6000; i++) {
		(void)snprintf(key, sizeof(key), "%0*u", TABLE_KEY_MAX, i);
		assert_int_equal(
		    table_build_add(b, key, TABLE_KEY_MAX, NULL, NULL), 0);
	}
	assert_int_equal(table_build_publish(b, "ns", "ids", NULL), 0);
	unsetenv("ROLLFS_TEST_INDEX_EVERY");
	assert_int_equal(table_open(store, "ns", "ids", &t, NULL), 0);
	assert_int_equal(table_lookup(store, "ns", "ids", &id, NULL), 0);
	index = xasprintf("%s/data/%llu/%llu/index", dir,
			  (unsigned long long)id.made_by,
			  (unsigned long long)id.gen);
	assert_int_equal(stat(index, &st), 0);
	assert_true(st.st_size < 4500000);
	for (unsigned i = 0; i < 6000; i += 7) {
		const uint64_t line = TABLE_KEY_MAX + 1;

		(void)snprintf(key, sizeof(key), "%032u", i);
		assert_int_equal(
		    table_csv_read(t, 3 + (i + 1) * line - 33, got, 32, NULL),
		    32);
		assert_memory_equal(got, key, 32);
	}
	table_unref(t);
	schema_free(s);
}

static int upload(const char *text, struct err *e)
{
	struct table_upload *u = NULL;

	if (table_upload_begin(store, NULL, &u, e))
		return -1;
	if (table_upload_write(u, text, strlen(text), e))
		(void)0; /* publish says it again */
	return table_upload_publish(u, "ns", "dup", e);
}

/* Rows first..last of one line each, some with a line break inside. */
static void add_rows(struct strbuf *sb, unsigned from, unsigned n)
{
	for (unsigned i = from; i < from + n; i++)
		sb_addf(sb, i % 100 ? "k%06u,v\n" : "k%06u,\"v\nw\"\n", i);
}

static void duplicates_in_any_runs_are_named_with_both_lines(void **state)
{
	struct strbuf sb = STRBUF_INIT(1u << 20);
	struct err e;

	(void)state;
	sort_bytes("20000");
	/* In order at first: lines of rows that went straight are known. */
	sb_adds(&sb, "id,x\n");
	add_rows(&sb, 0, 2000);
	sb_adds(&sb, "k000150,again\n");
	assert_int_equal(upload(sb.buf, &e), -EINVAL);
	/* Two rows before k000150, and 20 in all, take two lines. */
	assert_string_equal(e.text,
			    "line 2022 column 1: the same id as on line 154");
	sb_reset(&sb);
	sb_adds(&sb, "id,x\n");
	add_rows(&sb, 5000, 1500);
	add_rows(&sb, 1, 1500);
	sb_adds(&sb, "k005001,again\n");
	assert_int_equal(upload(sb.buf, &e), -EINVAL);
	assert_string_equal(e.text,
			    "line 3032 column 1: the same id as on line 4");
	sb_free(&sb);
}

/* The other threads of the merge are stopped, which is not what is told. */
static void a_duplicate_in_one_range_ends_the_others(void **state)
{
	struct strbuf sb = STRBUF_INIT(4u << 20);
	struct err e;

	(void)state;
	sort_bytes("40000");
	for (int last = 0; last < 2; last++) {
		sb_reset(&sb);
		sb_adds(&sb, "id,x\n");
		for (unsigned i = 60000; i > 0; i--)
			sb_addf(&sb, "k%06u,v\n", i);
		sb_addf(&sb, "k%06u,v\n", last ? 60000 : 1);
		assert_int_equal(upload(sb.buf, &e), -EINVAL);
		assert_string_equal(
		    e.text, last ? "line 60002 column 1: the same id as on "
				   "line 2"
				 : "line 60002 column 1: the same id as on "
				   "line 60001");
	}
	sb_free(&sb);
}

/* A sweep that is a moment too early. */
static void a_builder_whose_directory_is_swept_makes_it_again(void **state)
{
	_cleanup_free_ char *path = NULL;
	struct table_schema *s = schema_new();
	struct table_build *b = NULL;
	struct err e = { 0 };
	uint64_t last;
	pid_t sweeper;
	int fd, status;

	(void)state;
	assert_int_equal(table_store_numbers(store, 1, &last, NULL), 0);
	path = xasprintf("%s/building/%llu", dir, (unsigned long long)last + 1);
	assert_int_equal(mkdir(path, 0700), 0);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	sweeper = fork();
	if (!sweeper) {
		(void)usleep(200000);
		_exit(rmdir(path));
	}
	close(fd); /* the sweeper has it still */
	if (table_build_begin(store, s, &b, &e))
		fail_msg("%s", e.text);
	assert_int_equal(waitpid(sweeper, &status, 0), sweeper);
	assert_int_equal(status, 0);
	assert_int_equal(table_build_add(b, "a", 1, NULL, NULL), 0);
	assert_int_equal(table_build_publish(b, "ns", "swept", NULL), 0);
	schema_free(s);
}

static void a_builder_can_be_stopped(void **state)
{
	struct table_schema *s = schema_new();
	struct table_build *b = NULL;
	struct table_progress p = { 0 };
	struct table_id id;
	struct err e;

	(void)state;
	assert_int_equal(table_build_begin(store, s, &b, NULL), 0);
	table_build_watch(b, &p);
	assert_int_equal(table_build_add(b, "a", 1, NULL, NULL), 0);
	p.stop = true;
	assert_int_equal(table_build_publish(b, "ns", "stopped", &e), -EINTR);
	assert_int_equal(p.rows, 1);
	assert_int_equal(table_lookup(store, "ns", "stopped", &id, NULL),
			 -ENOENT);
	schema_free(s);
}

/* In the place of as many other characters. */
static void put(char *at, const char *s)
{
	while (*s)
		*at++ = *s++;
}

/* What table_open() finds was made by an older rollfs: cells without a word. */
static void tables_of_older_and_newer_versions(void **state)
{
	struct strbuf path = STRBUF_INIT(1000), meta = STRBUF_INIT(10000);
	static const struct rows x = { .n = 3, .step = 1, .numbers = true };
	struct table_id id;
	struct table *t = NULL;
	struct err e = { 0 };
	char *at;

	(void)state;
	build(&x, "old");
	assert_int_equal(table_lookup(store, "ns", "old", &id, NULL), 0);
	sb_addf(&path, "%s/data/%llu/%llu/meta.json", dir,
		(unsigned long long)id.id, (unsigned long long)id.gen);
	assert_int_equal(file_read(path.buf, &meta, NULL), 0);
	at = strstr(meta.buf, "\"rows\"");
	assert_non_null(at);
	put(at, "\"sowr\"");
	assert_int_equal(
	    file_replace(path.buf, meta.buf, meta.len, 0600, false, NULL), 0);
	check(&x, "old");
	put(at, "\"rows\"");
	at = strstr(meta.buf, "cells");
	assert_non_null(at);
	put(at, "bytes");
	assert_int_equal(
	    file_replace(path.buf, meta.buf, meta.len, 0600, false, NULL), 0);
	table_store_close(store); /* which has it open */
	assert_int_equal(table_store_open(dir, &store, NULL), 0);
	assert_int_equal(table_open(store, "ns", "old", &t, &e),
			 -EPROTONOSUPPORT);
	assert_non_null(strstr(e.text, "newer rollfs"));
	sb_free(&path);
	sb_free(&meta);
}

static void a_trimmed_arena_gives_its_memory_back(void **state)
{
	const size_t keep = 1u << 20, filled = 8u << 20;
	unsigned char in[(8u << 20) / 4096];
	struct arena a;

	(void)state;
	assert_int_equal(arena_init(&a, NULL), 0);
	for (unsigned i = 0; a.len < filled; i++) {
		char key[16], *value = arena_room(&a, ARENA_BYTES, 8, 4000);

		(void)snprintf(key, sizeof(key), "%08u", i);
		memset(value, 1, 4000);
		arena_add(&a, key, 8, 4000, i);
	}
	arena_reset(&a);
	arena_trim(&a, keep);
	assert_int_equal(mincore(a.buf, filled, in), 0);
	for (size_t i = 0; i < sizeof(in); i++)
		assert_int_equal(in[i] & 1, i < keep / 4096);
	arena_free(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_trimmed_arena_gives_its_memory_back),
		cmocka_unit_test(runs_are_merged),
		cmocka_unit_test(
		    more_runs_than_may_be_open_are_merged_in_steps),
		cmocka_unit_test(ids_in_order_go_straight),
		cmocka_unit_test(ids_that_are_in_order_at_first_only),
		cmocka_unit_test(rows_of_a_megabyte_are_sorted),
		cmocka_unit_test(large_rows_in_many_runs_take_little_memory),
		cmocka_unit_test(rows_that_went_straight_are_not_lost),
		cmocka_unit_test(
		    a_late_row_does_not_wait_for_those_that_went_straight),
		cmocka_unit_test(a_large_index_is_thinned_out),
		cmocka_unit_test(an_index_of_large_ids_is_small),
		cmocka_unit_test(
		    duplicates_in_any_runs_are_named_with_both_lines),
		cmocka_unit_test(a_duplicate_in_one_range_ends_the_others),
		cmocka_unit_test(
		    a_builder_whose_directory_is_swept_makes_it_again),
		cmocka_unit_test(a_builder_can_be_stopped),
		cmocka_unit_test(tables_of_older_and_newer_versions),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
