// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/unit/store_dir.h"

/* Rows k000..., inserted in an order that is not theirs. */
static void build(const char *name, unsigned rows, unsigned parts)
{
	struct table_schema *s = schema_new();
	struct table_build *b = NULL;
	struct err e = { 0 };

	schema_add_column(s, "text", CELL_STRING, NULL);
	schema_add_column(s, "x", CELL_F64, "guest_0_x");
	schema_add_column(s, "n", CELL_I64, NULL);
	s->partitions = parts;
	assert_int_equal(table_build_begin(store, s, &b, &e), 0);
	for (unsigned i = 0; i < rows; i++) {
		unsigned k = (unsigned)((i * 7919ull) % rows);
		char key[32], text[200];
		struct cell c[3] = {
			{ .type = CELL_STRING, .str = text },
			{ .type = CELL_F64, .f64 = k % 10 ? k / 8.0 : NAN },
			{ .type = CELL_I64, .i64 = -(int64_t)k },
		};

		c[0].len = (size_t)snprintf(text, sizeof(text), "a,%0*u",
					    (int)(k % 150) + 1, k);
		(void)snprintf(key, sizeof(key), "k%06u", k);
		assert_int_equal(table_build_add(b, key, strlen(key), c, &e),
				 0);
	}
	if (table_build_publish(b, "ns", name, &e))
		fail_msg("%s", e.text);
	schema_free(s);
}

/* The whole CSV view by reads of n bytes. */
static void csv(struct table *t, size_t n, struct strbuf *ret)
{
	char *buf = malloc(n);
	ssize_t r;

	sb_reset(ret);
	while ((r = table_csv_read(t, ret->len, buf, n, NULL)) > 0)
		sb_add(ret, buf, (size_t)r);
	assert_int_equal(r, 0);
	assert_int_equal(ret->len, table_csv_size(t));
	free(buf);
}

static void rows_come_in_order_of_the_key(void **state)
{
	struct strbuf text = STRBUF_INIT(1u << 20);
	struct table *t = NULL;

	(void)state;
	build("order", 12, 3);
	assert_int_equal(table_open(store, "ns", "order", &t, NULL), 0);
	assert_int_equal(table_rows(t), 12);
	csv(t, 7, &text);
	assert_int_equal(strncmp(text.buf,
				 "id,text,x,n\nk000000,\"a,0\",,0\n"
				 "k000001,\"a,01\",0.125,-1\n",
				 strlen("id,text,x,n\nk000000,\"a,0\",,0\n"
					"k000001,\"a,01\",0.125,-1\n")),
			 0);
	sb_free(&text);
	table_unref(t);
}

static void any_piece_of_the_csv_is_the_same(void **state)
{
	struct strbuf text = STRBUF_INIT(1u << 24);
	struct table *t = NULL;
	unsigned x = 1;

	(void)state;
	build("pieces", 20000, 4);
	assert_int_equal(table_open(store, "ns", "pieces", &t, NULL), 0);
	csv(t, 65536, &text);
	for (int i = 0; i < 300; i++) {
		char buf[3000];
		size_t at, n;
		ssize_t r;

		x = x * 1103515245u + 12345u;
		at = (x >> 4) % text.len;
		n = 1 + x % sizeof(buf);
		r = table_csv_read(t, at, buf, n, NULL);
		assert_int_equal(r, MIN(n, text.len - at));
		assert_memory_equal(buf, text.buf + at, (size_t)r);
	}
	sb_free(&text);
	table_unref(t);
}

static void parts_together_are_the_table(void **state)
{
	struct strbuf text = STRBUF_INIT(1u << 24), all = STRBUF_INIT(1u << 24);
	const size_t header = strlen("id,text,x,n\n");
	struct table *t = NULL;

	(void)state;
	build("parts", 1001, 4);
	assert_int_equal(table_open(store, "ns", "parts", &t, NULL), 0);
	csv(t, 4096, &text);
	sb_add(&all, text.buf, header);
	assert_int_equal(table_parts(t), 4);
	for (unsigned k = 0; k < 4; k++) {
		char buf[999];
		uint64_t size, at = 0;
		ssize_t r;

		assert_int_equal(table_part_size(t, k, &size, NULL), 0);
		while ((r = table_part_read(t, k, at, buf, sizeof(buf), NULL)) >
		       0) {
			size_t skip = at < header ? header - at : 0;

			sb_add(&all, buf + skip, (size_t)r - skip);
			at += (uint64_t)r;
		}
		assert_int_equal(r, 0);
		assert_int_equal(at, size);
	}
	assert_int_equal(all.len, text.len);
	assert_memory_equal(all.buf, text.buf, all.len);
	assert_int_equal(table_part_size(t, 4, &(uint64_t){ 0 }, NULL),
			 -ENOENT);
	sb_free(&text);
	sb_free(&all);
	table_unref(t);
}

static void a_row_is_found_by_its_key(void **state)
{
	struct strbuf line = STRBUF_INIT(1000);
	struct table *t = NULL;

	(void)state;
	build("rows", 100, 4);
	assert_int_equal(table_open(store, "ns", "rows", &t, NULL), 0);
	assert_int_equal(table_row_csv(t, "k000002", 7, &line, NULL), 0);
	assert_string_equal(line.buf, "k000002,\"a,002\",0.25,-2\n");
	assert_int_equal(table_row_csv(t, "nobody", 6, &line, NULL), -ENOENT);
	sb_free(&line);
	table_unref(t);
}

static void a_scan_can_start_anywhere(void **state)
{
	const struct cell *cells;
	struct table_iter *it;
	struct table *t = NULL;
	const char *key;
	size_t len;

	(void)state;
	build("scan", 100, 4);
	assert_int_equal(table_open(store, "ns", "scan", &t, NULL), 0);
	assert_int_equal(table_scan(t, "k00009", 6, &it, NULL), 0);
	for (int i = 90; i < 100; i++) {
		assert_int_equal(table_next(it, &key, &len, &cells, NULL), 1);
		assert_int_equal(len, 7);
		assert_int_equal(cells[2].i64, -i);
		assert_true(i % 10 ? cells[1].f64 == i / 8.0
				   : isnan(cells[1].f64));
	}
	assert_int_equal(table_next(it, &key, &len, &cells, NULL), 0);
	table_scan_end(it);
	table_unref(t);
}

static void sorting_beyond_memory_keeps_every_row(void **state)
{
	const struct cell *cells;
	struct table_iter *it;
	struct table *t = NULL;
	const char *key;
	size_t len;
	unsigned n = 0;

	(void)state;
	/* About 30 MB of rows: several runs on disk. */
	build("big", 250007, 4);
	assert_int_equal(table_open(store, "ns", "big", &t, NULL), 0);
	assert_int_equal(table_scan(t, NULL, 0, &it, NULL), 0);
	while (table_next(it, &key, &len, &cells, NULL) == 1) {
		assert_int_equal(cells[2].i64, -(int64_t)n);
		n++;
	}
	assert_int_equal(n, 250007);
	table_scan_end(it);
	table_unref(t);
}

static void a_duplicate_key_is_refused(void **state)
{
	struct table_schema *s = schema_new();
	struct table_build *b = NULL;
	struct table_id id;
	struct err e = { 0 };

	(void)state;
	assert_int_equal(table_build_begin(store, s, &b, NULL), 0);
	assert_int_equal(table_build_add(b, "b", 1, NULL, NULL), 0);
	assert_int_equal(table_build_add(b, "a", 1, NULL, NULL), 0);
	assert_int_equal(table_build_add(b, "b", 1, NULL, NULL), 0);
	assert_int_equal(table_build_publish(b, "ns", "dup", &e), -EEXIST);
	assert_int_equal(table_lookup(store, "ns", "dup", &id, NULL), -ENOENT);
	schema_free(s);
}

static void a_reader_keeps_the_generation_it_opened(void **state)
{
	struct strbuf text = STRBUF_INIT(1u << 20);
	struct table *t = NULL, *u = NULL;
	uint64_t gen;

	(void)state;
	build("keep", 10, 1);
	assert_int_equal(table_open(store, "ns", "keep", &t, NULL), 0);
	gen = table_generation(t);
	build("keep", 20, 1);
	csv(t, 100, &text);
	assert_int_equal(table_rows(t), 10);
	assert_int_equal(table_open(store, "ns", "keep", &u, NULL), 0);
	assert_int_equal(table_rows(u), 20);
	table_unref(u);
	table_unref(t);
	/* Nobody reads or names it any more: it is gone. */
	assert_int_equal(table_open_gen(store, gen, &t, NULL), -ENOENT);
	sb_free(&text);
}

static void a_reader_of_another_process_keeps_it_too(void **state)
{
	int to[2], from[2], status;
	struct table *t = NULL;
	char c = 0;
	pid_t pid;

	(void)state;
	/* Forked before RocksDB has threads; it begins when told. */
	assert_int_equal(pipe(to) | pipe(from), 0);
	pid = fork();
	if (!pid) {
		struct table_store *mine;
		char buf[100];

		if (read(to[0], &c, 1) != 1 ||
		    table_store_open(dir, &mine, NULL) ||
		    table_open(mine, "ns", "other", &t, NULL) ||
		    write(from[1], "o", 1) != 1 || read(to[0], &c, 1) != 1 ||
		    table_csv_read(t, 0, buf, sizeof(buf), NULL) < 50)
			_exit(1);
		table_unref(t);
		table_store_close(mine);
		_exit(0);
	}
	build("other", 10, 1);
	assert_int_equal(write(to[1], "b", 1), 1);
	assert_int_equal(read(from[0], &c, 1), 1);
	assert_int_equal(table_drop(store, "ns", "other", NULL), 0);
	assert_int_equal(write(to[1], "g", 1), 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	for (int i = 0; i < 2; i++) {
		close(to[i]);
		close(from[i]);
	}
}

static int collect(void *arg, const char *name)
{
	sb_adds(arg, name);
	return sb_addc(arg, ' ');
}

static void only_the_rows_that_are_meant_are_taken_away(void **state)
{
	struct table *old = NULL;
	struct table_id id;

	(void)state;
	build("meant", 5, 1);
	assert_int_equal(table_open(store, "ns", "meant", &old, NULL), 0);
	build("meant", 6, 1);
	assert_int_equal(table_truncate(store, "ns", "meant", old, NULL), 0);
	table_unref(old);
	assert_int_equal(table_open(store, "ns", "meant", &old, NULL), 0);
	assert_int_equal(table_rows(old), 6);
	assert_int_equal(table_truncate(store, "ns", "meant", old, NULL), 0);
	table_unref(old);
	assert_int_equal(table_lookup(store, "ns", "meant", &id, NULL), 0);
	assert_int_equal(id.gen, 0);
	assert_int_equal(table_drop(store, "ns", "meant", NULL), 0);
}

static void names_are_made_renamed_linked_and_dropped(void **state)
{
	struct strbuf list = STRBUF_INIT(1000);
	struct table_id a, b, c;
	struct table *t = NULL;

	(void)state;
	assert_int_equal(table_create_empty(store, "n2", "e/%.tmp", &a, NULL),
			 0);
	assert_int_equal(a.gen, 0);
	assert_int_equal(table_create_empty(store, "n2", "e/%.tmp", &a, NULL),
			 -EEXIST);
	assert_int_equal(table_open(store, "n2", "e/%.tmp", &t, NULL),
			 -ENODATA);
	build("src", 5, 1);
	assert_int_equal(table_lookup(store, "ns", "src", &a, NULL), 0);
	assert_int_equal(
	    table_rename(store, "ns", "src", "n2", "x.y.tmp", NULL), 0);
	assert_int_equal(table_lookup(store, "n2", "x.y.tmp", &b, NULL), 0);
	assert_int_equal(a.id, b.id);
	assert_int_equal(a.gen, b.gen);
	assert_int_equal(table_open(store, "n2", "x.y.tmp", &t, NULL), 0);
	assert_int_equal(table_link(t, "n2", "link", NULL), 0);
	assert_int_equal(table_lookup(store, "n2", "link", &c, NULL), 0);
	assert_int_not_equal(c.id, a.id);
	assert_int_equal(c.gen, a.gen);
	assert_int_equal(table_create_empty(store, "n2", "x.1.2.tmp", &b, NULL),
			 0);
	assert_int_equal(table_list(store, "n2", collect, &list, NULL), 0);
	assert_string_equal(list.buf, "e/%.tmp link x.1.2.tmp x.y.tmp ");
	assert_int_equal(table_drop(store, "n2", "x.1.2.tmp", NULL), 0);
	table_unref(t);
	/* The link alone keeps the data. */
	assert_int_equal(table_truncate(store, "n2", "x.y.tmp", NULL, NULL), 0);
	assert_int_equal(table_lookup(store, "n2", "x.y.tmp", &b, NULL), 0);
	assert_int_equal(b.gen, 0);
	assert_int_equal(table_open(store, "n2", "link", &t, NULL), 0);
	table_unref(t);
	assert_int_equal(namespace_remove(store, "n2", NULL), -ENOTEMPTY);
	assert_int_equal(table_drop(store, "n2", "link", NULL), 0);
	assert_int_equal(table_open_gen(store, c.gen, &t, NULL), -ENOENT);
	assert_int_equal(table_drop(store, "n2", "x.y.tmp", NULL), 0);
	assert_int_equal(table_drop(store, "n2", "e/%.tmp", NULL), 0);
	assert_int_equal(namespace_remove(store, "n2", NULL), 0);
	assert_int_equal(table_list(store, "n2", collect, &list, NULL),
			 -ENOENT);
	sb_free(&list);
}

static void the_sweep_removes_what_is_half_built(void **state)
{
	struct table_build *b = NULL;
	struct table_schema *s = schema_new();
	struct table *t = NULL;
	char path[200];

	(void)state;
	build("swept", 5, 1);
	(void)snprintf(path, sizeof(path), "%s/building/999999", dir);
	assert_int_equal(mkdir_p(path, 0700, NULL), 0);
	assert_int_equal(table_build_begin(store, s, &b, NULL), 0);
	assert_int_equal(table_store_sweep(store, NULL, NULL), 0);
	assert_int_equal(access(path, F_OK), -1);
	/* A live builder and a published table are left alone. */
	assert_int_equal(table_build_add(b, "a", 1, NULL, NULL), 0);
	assert_int_equal(table_build_publish(b, "ns", "alive", NULL), 0);
	assert_int_equal(table_open(store, "ns", "swept", &t, NULL), 0);
	table_unref(t);
	schema_free(s);
}

static void the_sweep_removes_what_was_being_replaced(void **state)
{
	static const char *const left[] = { "names/ns/.4711.1.tmp",
					    "attrs/.4711.2.tmp",
					    ".4711.3.tmp" };
	struct table_id id;
	char path[200];

	(void)state;
	build("kept.4711.1.tmp", 5, 1);
	for (size_t i = 0; i < 3; i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, left[i]);
		close(open(path, O_WRONLY | O_CREAT, 0600));
	}
	assert_int_equal(table_store_sweep(store, NULL, NULL), 0);
	for (size_t i = 0; i < 3; i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, left[i]);
		assert_int_equal(access(path, F_OK), -1);
	}
	assert_int_equal(
	    table_lookup(store, "ns", "kept.4711.1.tmp", &id, NULL), 0);
}

static int has_number(void *arg, const char *ns)
{
	uint64_t id;

	(void)arg;
	return namespace_id(store, ns, &id);
}

static void namespaces_are_whole_whenever_their_maker_dies(void **state)
{
	struct err e = { 0 };
	char path[200];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/building/", dir);
	for (int i = 0; i < 40; i++) {
		pid_t pid = fork();
		uint64_t id;

		assert_true(pid >= 0);
		while (!pid)
			if (namespace_create(store, "whole", &id, NULL) &&
			    namespace_remove(store, "whole", NULL))
				_exit(1);
		usleep((useconds_t)(500 + i * 100));
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		assert_int_equal(table_list(store, NULL, has_number, NULL, &e),
				 0);
		assert_int_equal(table_store_sweep(store, NULL, NULL), 0);
		assert_int_equal(rmdir(path), 0); /* it is empty */
		assert_int_equal(mkdir(path, 0700), 0);
	}
}

static void the_schema_is_kept(void **state)
{
	struct table *t = NULL;
	const struct table_schema *s;

	(void)state;
	build("schema", 3, 7);
	assert_int_equal(table_open(store, "ns", "schema", &t, NULL), 0);
	s = table_schema(t);
	assert_string_equal(s->id, "id");
	assert_int_equal(s->n_columns, 3);
	assert_int_equal(s->partitions, 7);
	assert_string_equal(s->columns[1].anonymous, "guest_0_x");
	assert_int_equal(s->columns[2].type, CELL_I64);
	assert_int_equal(schema_find(s, "n"), 2);
	table_unref(t);
}

struct reader {
	const struct strbuf *want;
	unsigned seed;
	int bad;
};

static void *read_much(void *arg)
{
	struct reader *r = arg;
	unsigned x = r->seed;

	for (int i = 0; i < 100; i++) {
		struct table *t = NULL;
		char buf[5000];
		size_t at;
		ssize_t n;

		x = x * 1103515245u + 12345u;
		at = (x >> 3) % r->want->len;
		if (table_open(store, "ns", "threads", &t, NULL)) {
			r->bad++;
			continue;
		}
		n = table_csv_read(t, at, buf, sizeof(buf), NULL);
		if (n <= 0 || memcmp(buf, r->want->buf + at, (size_t)n) != 0)
			r->bad++;
		table_unref(t);
	}
	return NULL;
}

static void parallel_readers_see_the_same(void **state)
{
	struct strbuf text = STRBUF_INIT(1u << 24);
	struct reader r[4];
	pthread_t th[4];
	struct table *t = NULL;

	(void)state;
	build("threads", 3000, 4);
	assert_int_equal(table_open(store, "ns", "threads", &t, NULL), 0);
	csv(t, 4096, &text);
	for (unsigned i = 0; i < 4; i++) {
		r[i] = (struct reader){ &text, i + 1, 0 };
		pthread_create(&th[i], NULL, read_much, &r[i]);
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(th[i], NULL);
		assert_int_equal(r[i].bad, 0);
	}
	table_unref(t);
	sb_free(&text);
}

static void more_tables_than_the_cache_holds(void **state)
{
	(void)state;
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 25; i++) {
			struct strbuf line = STRBUF_INIT(1000);
			struct table *t = NULL;
			char name[20];

			(void)snprintf(name, sizeof(name), "many%d", i);
			if (!round)
				build(name, 3, 1);
			assert_int_equal(
			    table_open(store, "ns", name, &t, NULL), 0);
			assert_int_equal(
			    table_row_csv(t, "k000001", 7, &line, NULL), 0);
			sb_free(&line);
			table_unref(t);
		}
}

static void numbers_never_come_twice(void **state)
{
	uint64_t a, b;

	(void)state;
	assert_int_equal(table_store_numbers(store, 5, &a, NULL), 0);
	assert_int_equal(table_store_numbers(store, 1, &b, NULL), 0);
	assert_true(a >= 1);
	assert_int_equal(b, a + 5);
}

static void bad_names_are_refused(void **state)
{
	static const char *const bad[] = { "", ".", "..", "a\n", "\xff" };
	struct table_id id;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_false(table_name_valid(bad[i]));
		assert_int_equal(
		    table_create_empty(store, "ns", bad[i], &id, NULL),
		    -EINVAL);
	}
	assert_true(table_name_valid("../x"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_reader_of_another_process_keeps_it_too),
		cmocka_unit_test(rows_come_in_order_of_the_key),
		cmocka_unit_test(any_piece_of_the_csv_is_the_same),
		cmocka_unit_test(parts_together_are_the_table),
		cmocka_unit_test(a_row_is_found_by_its_key),
		cmocka_unit_test(a_scan_can_start_anywhere),
		cmocka_unit_test(sorting_beyond_memory_keeps_every_row),
		cmocka_unit_test(a_duplicate_key_is_refused),
		cmocka_unit_test(a_reader_keeps_the_generation_it_opened),
		cmocka_unit_test(only_the_rows_that_are_meant_are_taken_away),
		cmocka_unit_test(names_are_made_renamed_linked_and_dropped),
		cmocka_unit_test(the_sweep_removes_what_is_half_built),
		cmocka_unit_test(the_sweep_removes_what_was_being_replaced),
		cmocka_unit_test(
		    namespaces_are_whole_whenever_their_maker_dies),
		cmocka_unit_test(the_schema_is_kept),
		cmocka_unit_test(parallel_readers_see_the_same),
		cmocka_unit_test(more_tables_than_the_cache_holds),
		cmocka_unit_test(numbers_never_come_twice),
		cmocka_unit_test(bad_names_are_refused),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
