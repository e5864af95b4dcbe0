// SPDX-License-Identifier: Apache-2.0
/* The expected rows are numpy 1.24's and, for splits, those that
 * scikit-learn's algorithm draws from it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "components/math/sampling.h"

static void count_up(uint32_t *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		v[i] = (uint32_t)i;
}

static void a_plain_split_is_train_test_split(void **state)
{
	static const uint32_t want[10] = { 0, 7, 2, 9, 4, 3, 6, 8, 1, 5 };
	uint32_t v[10];
	struct draw d;

	(void)state;
	count_up(v, 10);
	draw_seed(&d, 42);
	draw_split(&d, v, 10, 7, NULL, 0);
	assert_memory_equal(v, want, sizeof(want));
}

static void a_stratified_split_is_train_test_split(void **state)
{
	static const uint32_t class[20] = { 0, 2, 2, 3, 3, 2, 2, 0, 2, 2,
					    3, 3, 2, 2, 0, 2, 2, 3, 3, 2 };
	static const uint32_t want[20] = {
		0, 9, 10, 15, 8,  11, 13, 16, 6, 5,
		7, 3, 18, 4,  12, 14, 19, 1,  2, 17
	};
	uint32_t v[20];
	struct draw d;

	(void)state;
	/* class 1 has no rows: it must not matter */
	count_up(v, 20);
	draw_seed(&d, 5);
	draw_split(&d, v, 20, 13, class, 4);
	assert_memory_equal(v, want, sizeof(want));
}

static void a_sample_is_what_resample_draws(void **state)
{
	static const uint32_t subset[5] = { 5, 4, 1, 2, 11 };
	static const uint32_t again[9] = { 10, 8, 9, 3, 8, 8, 0, 5, 3 };
	uint32_t v[12], got[9];
	struct draw d;

	(void)state;
	count_up(v, 12);
	draw_seed(&d, 3);
	draw_subset(&d, v, 12, 5, got);
	assert_memory_equal(got, subset, sizeof(subset));
	draw_seed(&d, 3);
	draw_again(&d, v, 12, 9, got);
	assert_memory_equal(got, again, sizeof(again));
}

/* SHA-256 of 32 bytes of 7, stage 1 and the counters 0 and 1, by hashlib. */
static void a_key_draws_from_sha256(void **state)
{
	static const uint32_t want[9] = { 0x25fd582d, 0xfd1dc952, 0x6d03c0ea,
					  0x89a5377d, 0x48bec8d3, 0x256f1ff,
					  0xe1c9ccf8, 0x809bdeea, 0xb541c4d9 };
	uint8_t key[32];
	struct draw d;

	(void)state;
	memset(key, 7, sizeof(key));
	draw_key(&d, key, 1);
	for (size_t i = 0; i < 9; i++)
		assert_int_equal(draw_upto(&d, UINT32_MAX), want[i]);
	draw_key(&d, key, 2);
	assert_int_not_equal(draw_upto(&d, UINT32_MAX), want[0]);
}

static void every_row_is_in_one_part(void **state)
{
	uint32_t v[100], class[100], seen[100] = { 0 }, front[3] = { 0 };
	uint8_t key[32] = { 1 };
	struct draw d;

	(void)state;
	count_up(v, 100);
	for (size_t i = 0; i < 100; i++)
		class[i] = i < 10 ? 0 : i < 40 ? 1 : 2;
	draw_key(&d, key, 0);
	draw_split(&d, v, 100, 80, class, 3);
	for (size_t i = 0; i < 100; i++)
		seen[v[i]]++;
	for (size_t i = 0; i < 100; i++)
		assert_int_equal(seen[i], 1);
	for (size_t i = 0; i < 80; i++)
		front[class[v[i]]]++;
	assert_int_equal(front[0], 8);
	assert_int_equal(front[1], 24);
	assert_int_equal(front[2], 48);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_plain_split_is_train_test_split),
		cmocka_unit_test(a_stratified_split_is_train_test_split),
		cmocka_unit_test(a_sample_is_what_resample_draws),
		cmocka_unit_test(a_key_draws_from_sha256),
		cmocka_unit_test(every_row_is_in_one_part),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
