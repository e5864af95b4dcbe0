// SPDX-License-Identifier: Apache-2.0
/* Names, references and numbers when something went wrong before. */
#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>

#include "tests/unit/store_dir.h"

static int publish(const char *name, unsigned rows, struct err *e)
{
	struct table_schema *s = schema_new();
	struct table_build *b = NULL;
	int r = table_build_begin(store, s, &b, e);

	for (unsigned i = 0; i < rows && !r; i++) {
		char key[8];
		int n = snprintf(key, sizeof(key), "k%05u", i);

		r = table_build_add(b, key, (size_t)n, NULL, e);
	}
	schema_free(s);
	return r ? r : table_build_publish(b, "ns", name, e);
}

static char *path_of(const char *name, const char *tail)
{
	struct table_id id;

	assert_int_equal(table_lookup(store, "ns", name, &id, NULL), 0);
	return xasprintf("%s/data/%llu/%llu%s", dir,
			 (unsigned long long)id.made_by,
			 (unsigned long long)id.gen, tail);
}

static void again(void)
{
	table_store_close(store);
	assert_int_equal(table_store_open(dir, &store, NULL), 0);
}

static int note(void *arg, const char *name)
{
	return sb_addf(arg, "%s ", name);
}

static void a_table_that_is_called_like_a_temporary_file(void **state)
{
	struct strbuf list = STRBUF_INIT(1000);
	struct table_id id;

	(void)state;
	assert_int_equal(
	    table_create_empty(store, "runs", "run.2024.11.tmp", &id, NULL), 0);
	assert_int_equal(table_list(store, "runs", note, &list, NULL), 0);
	assert_string_equal(list.buf, "run.2024.11.tmp ");
	assert_int_equal(namespace_remove(store, "runs", NULL), -ENOTEMPTY);
	sb_free(&list);
}

static void rows_without_references_or_name_are_swept(void **state)
{
	_cleanup_free_ char *refs = NULL, *rows = NULL, *name = NULL;

	(void)state;
	assert_int_equal(publish("lost", 3, NULL), 0);
	rows = path_of("lost", "");
	refs = path_of("lost", "/refs");
	name = xasprintf("%s/names/ns/lost", dir);
	assert_int_equal(unlink(name), 0);
	assert_int_equal(remove_tree(refs, NULL), 0);
	again();
	assert_int_equal(table_store_sweep(store, NULL, NULL), 0);
	assert_int_equal(access(rows, F_OK), -1);
}

/* A power cut may leave the one and not the other. */
static void a_name_without_its_reference_keeps_its_rows(void **state)
{
	_cleanup_free_ char *refs = NULL;
	struct table *t = NULL;

	(void)state;
	assert_int_equal(publish("kept", 3, NULL), 0);
	refs = path_of("kept", "/refs");
	assert_int_equal(remove_tree(refs, NULL), 0);
	assert_int_equal(mkdir(refs, 0700), 0);
	again();
	assert_int_equal(table_store_sweep(store, NULL, NULL), 0);
	assert_int_equal(table_open(store, "ns", "kept", &t, NULL), 0);
	assert_int_equal(table_rows(t), 3);
	table_unref(t);
	/* And they go with the name. */
	assert_int_equal(table_drop(store, "ns", "kept", NULL), 0);
	assert_int_equal(access(refs, F_OK), -1);
}

/* Published ones, and what lies beside. */
static size_t generations(void)
{
	_cleanup_free_ char *data = xasprintf("%s/data/*/*", dir);
	_cleanup_free_ char *building = xasprintf("%s/building/*", dir);
	glob_t g = { 0 };
	size_t n;

	(void)glob(data, 0, NULL, &g);
	(void)glob(building, GLOB_APPEND, NULL, &g);
	n = g.gl_pathc;
	globfree(&g);
	return n;
}

static void what_cannot_be_published_leaves_nothing(void **state)
{
	_cleanup_free_ char *name = xasprintf("%s/names/ns/blocked/x", dir);
	struct err e = { 0 };
	size_t before;

	(void)state;
	assert_int_equal(publish("t", 3, NULL), 0);
	assert_int_equal(mkdir_p(name, 0700, NULL), 0);
	before = generations();
	assert_true(publish("blocked", 3, &e) < 0);
	assert_non_null(strstr(e.text, "blocked"));
	assert_int_equal(generations(), before);
	*strrchr(name, '/') = '\0';
	assert_int_equal(remove_tree(name, NULL), 0);
}

static void a_link_that_cannot_be_made_keeps_nothing(void **state)
{
	_cleanup_free_ char *name = xasprintf("%s/names/ns/blocked/x", dir);
	_cleanup_free_ char *rows = NULL;
	struct table *t = NULL;

	(void)state;
	assert_int_equal(publish("origin", 3, NULL), 0);
	rows = path_of("origin", "");
	assert_int_equal(mkdir_p(name, 0700, NULL), 0);
	assert_int_equal(table_open(store, "ns", "origin", &t, NULL), 0);
	assert_true(table_link(t, "ns", "blocked", NULL) < 0);
	table_unref(t);
	*strrchr(name, '/') = '\0';
	assert_int_equal(remove_tree(name, NULL), 0);
	assert_int_equal(table_drop(store, "ns", "origin", NULL), 0);
	assert_int_equal(access(rows, F_OK), -1);
}

static void a_damaged_name_is_not_written_over(void **state)
{
	_cleanup_free_ char *name = xasprintf("%s/names/ns/hurt", dir);
	struct table_id id;

	(void)state;
	assert_int_equal(publish("hurt", 3, NULL), 0);
	assert_int_equal(file_replace(name, "?", 1, 0600, false, NULL), 0);
	assert_int_equal(table_create_empty(store, "ns", "hurt", &id, NULL),
			 -EIO);
	assert_int_equal(table_create_empty(store, "ns", "other", &id, NULL),
			 0);
	assert_int_equal(table_rename(store, "ns", "other", "ns", "hurt", NULL),
			 -EIO);
	assert_int_equal(table_drop(store, "ns", "other", NULL), 0);
	assert_int_equal(unlink(name), 0);
}

static const char *const bad_names[] = {
	"",
	"?",
	"{\"data\":\"3/4\",\"id\":",
	"{\"data\":\"3/4\",\"id\":1",
	"{\"data\":\"0/0\",\"id\":0}\n",
	"{\"data\":\"0/4\",\"id\":1}\n",
};

/* What a lookup says when the file of a name holds this. */
static int lookup_of(const char *name, const void *text, size_t n,
		     struct table_id *ret)
{
	_cleanup_free_ char *path = xasprintf("%s/names/ns/%s", dir, name);

	assert_int_equal(file_replace(path, text, n, 0600, false, NULL), 0);
	return table_lookup(store, "ns", name, ret, NULL);
}

static void no_piece_of_a_name_is_another_name(void **state)
{
	_cleanup_free_ char *name = xasprintf("%s/names/ns/piece", dir);
	struct strbuf was = STRBUF_INIT(1000);
	struct table_id id, now;

	(void)state;
	assert_int_equal(publish("piece", 3, NULL), 0);
	assert_int_equal(table_lookup(store, "ns", "piece", &id, NULL), 0);
	assert_int_equal(file_read(name, &was, NULL), 0);
	for (size_t n = 0; n < was.len; n++) {
		int r = lookup_of("piece", was.buf, n, &now);

		assert_true(r == -EIO ||
			    (!r && now.id == id.id && now.gen == id.gen));
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad_names); i++)
		assert_int_equal(lookup_of("piece", bad_names[i],
					   strlen(bad_names[i]), &now),
				 -EIO);
	assert_int_equal(lookup_of("piece", was.buf, was.len, &now), 0);
	assert_int_equal(table_drop(store, "ns", "piece", NULL), 0);
	sb_free(&was);
}

static void no_changed_byte_makes_another_name(void **state)
{
	_cleanup_free_ char *name = xasprintf("%s/names/ns/flip", dir);
	struct strbuf was = STRBUF_INIT(1000);
	struct table_id now;

	(void)state;
	assert_int_equal(publish("flip", 3, NULL), 0);
	assert_int_equal(file_read(name, &was, NULL), 0);
	for (size_t i = 0; i < was.len; i++) {
		for (int c = '0' - 1; c <= '9' + 1; c++) {
			char old = was.buf[i];

			was.buf[i] = (char)c;
			assert_int_equal(
			    lookup_of("flip", was.buf, was.len, &now),
			    c == old ? 0 : -EIO);
			was.buf[i] = old;
		}
	}
	assert_int_equal(lookup_of("flip", was.buf, was.len, &now), 0);
	assert_int_equal(table_drop(store, "ns", "flip", NULL), 0);
	sb_free(&was);
}

static void a_name_without_its_sum_is_an_older_one(void **state)
{
	_cleanup_free_ char *name = xasprintf("%s/names/ns/older", dir);
	_cleanup_free_ char *text = NULL;
	struct table_id id, now;

	(void)state;
	assert_int_equal(publish("older", 3, NULL), 0);
	assert_int_equal(table_lookup(store, "ns", "older", &id, NULL), 0);
	text = xasprintf("{\"data\":\"%llu/%llu\",\"id\":%llu}\n",
			 (unsigned long long)id.made_by,
			 (unsigned long long)id.gen, (unsigned long long)id.id);
	assert_int_equal(
	    file_replace(name, text, strlen(text), 0600, false, NULL), 0);
	assert_int_equal(table_lookup(store, "ns", "older", &now, NULL), 0);
	assert_int_equal(now.gen, id.gen);
	assert_int_equal(table_drop(store, "ns", "older", NULL), 0);
}

static size_t put_aside(void)
{
	_cleanup_free_ char *pattern = xasprintf("%s/damaged/*", dir);
	glob_t g = { 0 };
	size_t n;

	(void)glob(pattern, 0, NULL, &g);
	n = g.gl_pathc;
	globfree(&g);
	return n;
}

static void a_damaged_name_is_put_aside_with_its_rows(void **state)
{
	_cleanup_free_ char *name = xasprintf("%s/names/ns/bad", dir);
	_cleanup_free_ char *rows = NULL;
	struct table_swept told;
	struct table_id id;

	(void)state;
	assert_int_equal(publish("bad", 3, NULL), 0);
	assert_int_equal(publish("good", 3, NULL), 0);
	rows = path_of("bad", "");
	assert_int_equal(file_replace(name, "\0\0", 2, 0600, false, NULL), 0);
	for (int i = 0; i < 2; i++) {
		again();
		assert_int_equal(table_store_sweep(store, &told, NULL), 0);
		assert_true(told.unsure);
		assert_true(!i == !!strstr(told.told.buf, "table ns/bad: "));
		table_swept_free(&told);
		assert_int_equal(table_lookup(store, "ns", "bad", &id, NULL),
				 0);
		assert_int_equal(id.gen, 0);
		assert_int_equal(put_aside(), 1);
		assert_int_equal(access(rows, F_OK), 0);
	}
	/* It is like any other now; when it goes, so do its rows. */
	assert_int_equal(table_drop(store, "ns", "bad", NULL), 0);
	assert_int_equal(table_store_sweep(store, &told, NULL), 0);
	assert_false(told.unsure);
	table_swept_free(&told);
	assert_int_equal(put_aside(), 0);
	assert_int_equal(access(rows, F_OK), -1);
	assert_int_equal(table_lookup(store, "ns", "good", &id, NULL), 0);
	assert_int_not_equal(id.gen, 0);
}

static void rows_put_aside_come_back_with_their_name(void **state)
{
	_cleanup_free_ char *name = xasprintf("%s/names/ns/back", dir);
	struct strbuf was = STRBUF_INIT(1000);
	struct table *t = NULL;

	(void)state;
	assert_int_equal(publish("back", 3, NULL), 0);
	assert_int_equal(file_read(name, &was, NULL), 0);
	assert_int_equal(file_replace(name, "x", 1, 0600, false, NULL), 0);
	again();
	assert_int_equal(table_store_sweep(store, NULL, NULL), 0);
	assert_int_equal(
	    file_replace(name, was.buf, was.len, 0600, false, NULL), 0);
	again();
	assert_int_equal(table_store_sweep(store, NULL, NULL), 0);
	assert_int_equal(put_aside(), 0);
	assert_int_equal(table_open(store, "ns", "back", &t, NULL), 0);
	assert_int_equal(table_rows(t), 3);
	table_unref(t);
	sb_free(&was);
}

static void a_namespace_without_a_number_gets_one(void **state)
{
	static const char *const bad[] = { "", "?", "7?", "0\n", NULL };
	_cleanup_free_ char *path = xasprintf("%s/names/numb/.id", dir);
	struct table_attrs a;
	struct table_id id;
	uint64_t was, now;

	(void)state;
	assert_int_equal(table_create_empty(store, "numb", "t", &id, NULL), 0);
	assert_int_equal(namespace_id(store, "numb", &was), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (bad[i])
			assert_int_equal(file_replace(path, bad[i],
						      strlen(bad[i]), 0600,
						      false, NULL),
					 0);
		else
			assert_int_equal(unlink(path), 0);
		assert_int_not_equal(namespace_id(store, "numb", &now), 0);
		assert_int_equal(table_store_sweep(store, NULL, NULL), 0);
		assert_int_equal(namespace_id(store, "numb", &now), 0);
		assert_true(now > was);
		was = now;
	}
	/* Whom it was for is not known. */
	assert_int_equal(table_attrs_load(store, now, &a, NULL), 0);
	assert_int_equal(a.mode, 0700);
	table_attrs_free(&a);
	assert_int_equal(table_drop(store, "numb", "t", NULL), 0);
	assert_int_equal(namespace_remove(store, "numb", NULL), 0);
}

static void damaged_attributes_let_nobody_in(void **state)
{
	struct table_attrs a = {
		.mode = 0750, .data_mode = -1, .uid = -1, .gid = -1
	};
	_cleanup_free_ char *path = NULL;
	struct table_swept told;
	struct table_id id;

	(void)state;
	assert_int_equal(table_create_empty(store, "ns", "modes", &id, NULL),
			 0);
	assert_int_equal(table_attrs_store(store, id.id, &a, NULL), 0);
	path = xasprintf("%s/attrs/%llu", dir, (unsigned long long)id.id);
	assert_int_equal(file_replace(path, "{\"mo", 4, 0600, false, NULL), 0);
	assert_int_equal(table_attrs_load(store, id.id, &a, NULL), -EIO);
	assert_int_equal(table_store_sweep(store, &told, NULL), 0);
	assert_non_null(strstr(told.told.buf, "table ns/modes: "));
	table_swept_free(&told);
	assert_int_equal(table_attrs_load(store, id.id, &a, NULL), 0);
	assert_int_equal(a.mode, 0700);
	assert_int_equal(a.data_mode, 0);
	table_attrs_free(&a);
	assert_int_equal(table_hidden(store, "ns", "modes", NULL), 1);
	assert_int_equal(table_drop(store, "ns", "modes", NULL), 0);
}

/* ---- numbers ------------------------------------------------------------- */

/* What is not durable is gone, what is stays. */
static void numbers_go_on_behind_a_power_cut(void **state)
{
	_cleanup_free_ char *lock = xasprintf("%s/counter.lock", dir);
	uint64_t a, b;

	(void)state;
	assert_int_equal(table_store_numbers(store, 5, &a, NULL), 0);
	assert_int_equal(unlink(lock), 0);
	assert_int_equal(table_store_numbers(store, 1, &b, NULL), 0);
	assert_true(b >= a + 5);
}

/* The file is from before the machine was started, and older than the other. */
static void numbers_of_another_start_do_not_count(void **state)
{
	_cleanup_free_ char *lock = xasprintf("%s/counter.lock", dir);
	_cleanup_free_ char *zero = xcalloc(1, 8);
	uint64_t a, b;
	int fd;

	(void)state;
	assert_int_equal(table_store_numbers(store, 5, &a, NULL), 0);
	fd = open(lock, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pwrite_all(fd, "another start", 13, 0), 0);
	assert_int_equal(pwrite_all(fd, zero, 8, 40), 0);
	close(fd);
	assert_int_equal(table_store_numbers(store, 1, &b, NULL), 0);
	assert_true(b >= a + 5);
}

static void a_damaged_counter_is_told(void **state)
{
	_cleanup_free_ char *counter = xasprintf("%s/counter", dir);
	struct strbuf was = STRBUF_INIT(100);
	struct err e = { 0 };
	uint64_t a;

	(void)state;
	assert_int_equal(table_store_numbers(store, 1, &a, NULL), 0);
	assert_int_equal(file_read(counter, &was, NULL), 0);
	assert_int_equal(file_replace(counter, "", 0, 0600, false, NULL), 0);
	assert_int_equal(table_store_numbers(store, 1, &a, &e), -EIO);
	assert_non_null(strstr(e.text, "counter: damaged"));
	assert_int_equal(
	    file_replace(counter, was.buf, was.len, 0600, false, NULL), 0);
	sb_free(&was);
}

/* ---- the index of the CSV view ------------------------------------------- */

static void a_damaged_index_is_refused(void **state)
{
	_cleanup_free_ char *path = NULL;
	struct strbuf was = STRBUF_INIT(1u << 20);
	struct table *t = NULL;

	(void)state;
	assert_int_equal(publish("index", 30000, NULL), 0);
	path = path_of("index", "/index");
	assert_int_equal(file_read(path, &was, NULL), 0);
	assert_true(was.buf[0] > 2); /* entries */
	for (size_t at = 0; at < was.len; at++) {
		ssize_t n;
		char buf[64];

		/* All bytes of the head and of the first entries. */
		if (at > 90)
			break;
		was.buf[at] ^= 0x41;
		assert_int_equal(
		    file_replace(path, was.buf, was.len, 0600, false, NULL), 0);
		again();
		if (!table_open(store, "ns", "index", &t, NULL)) {
			/* A key that still is in order. */
			for (uint64_t o = 0; o < table_csv_size(t); o += 999) {
				n = table_csv_read(t, o, buf, sizeof(buf),
						   NULL);
				assert_true(n > 0 || n == -EIO);
			}
			table_unref(t);
		}
		was.buf[at] ^= 0x41;
	}
	assert_int_equal(
	    file_replace(path, was.buf, was.len, 0600, false, NULL), 0);
	again();
	assert_int_equal(table_open(store, "ns", "index", &t, NULL), 0);
	table_unref(t);
	sb_free(&was);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_table_that_is_called_like_a_temporary_file),
		cmocka_unit_test(rows_without_references_or_name_are_swept),
		cmocka_unit_test(a_name_without_its_reference_keeps_its_rows),
		cmocka_unit_test(what_cannot_be_published_leaves_nothing),
		cmocka_unit_test(a_link_that_cannot_be_made_keeps_nothing),
		cmocka_unit_test(a_damaged_name_is_not_written_over),
		cmocka_unit_test(no_piece_of_a_name_is_another_name),
		cmocka_unit_test(no_changed_byte_makes_another_name),
		cmocka_unit_test(a_name_without_its_sum_is_an_older_one),
		cmocka_unit_test(a_damaged_name_is_put_aside_with_its_rows),
		cmocka_unit_test(rows_put_aside_come_back_with_their_name),
		cmocka_unit_test(a_namespace_without_a_number_gets_one),
		cmocka_unit_test(damaged_attributes_let_nobody_in),
		cmocka_unit_test(numbers_go_on_behind_a_power_cut),
		cmocka_unit_test(numbers_of_another_start_do_not_count),
		cmocka_unit_test(a_damaged_counter_is_told),
		cmocka_unit_test(a_damaged_index_is_refused),
	};

	return cmocka_run_group_tests_name("store", tests, setup, teardown);
}
