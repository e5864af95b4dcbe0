// SPDX-License-Identifier: Apache-2.0
/* Spools give back what went in, sorted or as it came, however small their
 * memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>

#include "components/crypto/util.h"
#include "components/spool.h"
#include "lib/fileio.h"

#define WIDTH 12
#define KEY   8

static char dir[] = "/tmp/rollfs-unit-XXXXXX";

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, KEY);
}

/* n random records, sorted by qsort, against a spool that holds `room`. */
static void round_trip(size_t n, size_t key, size_t room, bool skewed)
{
	_cleanup_free_ uint8_t *v = xmalloc(n * WIDTH + 1);
	_cleanup_free_ uint8_t *out = xmalloc(n * WIDTH + 1);
	struct spool *s = spool_new(dir, WIDTH, key, room * WIDTH);
	struct err e = { 0 };
	const void *r;
	size_t got;

	crypto_random(v, n * WIDTH);
	for (size_t i = 0; i < n && skewed; i++)
		memset(v + i * WIDTH, 0, KEY - 3); /* one bucket for all */
	for (size_t at = 0, part; at < n; at += part) {
		part = MIN(n - at, 1 + at % 7);
		assert_int_equal(spool_add(s, v + at * WIDTH, part, &e), 0);
	}
	assert_int_equal(spool_count(s), n);
	if (key)
		qsort(v, n, WIDTH, compare);
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < n; i++) {
			assert_int_equal(spool_next(s, &r, &e), 1);
			assert_memory_equal(r, v + i * WIDTH,
					    key ? key : WIDTH);
		}
		assert_int_equal(spool_next(s, &r, &e), 0);
		assert_int_equal(spool_next(s, &r, &e), 0);
		assert_int_equal(spool_rewind(s, &e), 0);
	}
	assert_int_equal(spool_read(s, out, n + 1, &got, &e), 0);
	assert_int_equal(got, n);
	assert_int_equal(spool_spilled(s), n > room);
	spool_free(s);
}

static void records_come_sorted(void **state)
{
	static const size_t n[] = { 0, 1, 2, 33, 1000, 5000 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(n); i++) {
		round_trip(n[i], KEY, 100000, false);
		round_trip(n[i], KEY, 100000, true);
	}
}

static void sorted_runs_on_disk_are_merged(void **state)
{
	(void)state;
	round_trip(1, KEY, 1, false);
	round_trip(300, KEY, 1, false);
	round_trip(5000, KEY, 7, false);
	round_trip(5000, KEY, 999, true);
	round_trip(5000, KEY, 5000, false);
}

static void without_a_key_the_order_stays(void **state)
{
	(void)state;
	round_trip(5000, 0, 100000, false);
	round_trip(5000, 0, 7, false);
	round_trip(5000, 0, 1024, false);
}

static void nothing_is_left_in_the_directory(void **state)
{
	DIR *d = opendir(dir);
	size_t n = 0;

	(void)state;
	while (readdir(d))
		n++;
	closedir(d);
	assert_int_equal(n, 2);
}

static int setup(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return remove_tree(dir, NULL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(records_come_sorted),
		cmocka_unit_test(sorted_runs_on_disk_are_merged),
		cmocka_unit_test(without_a_key_the_order_stays),
		cmocka_unit_test(nothing_is_left_in_the_directory),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
