// SPDX-License-Identifier: Apache-2.0
/* Curve25519 on every implementation this processor has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "components/crypto/curve25519.h"
#include "components/crypto/util.h"
#include "lib/base.h"

#define P CURVE_POINT

static void unhex(const char *text, uint8_t *out, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char two[3] = { text[2 * i], text[2 * i + 1], 0 };

		out[i] = (uint8_t)strtoul(two, NULL, 16);
	}
}

static void every(void (*test)(const struct curve25519 *c))
{
	test(&curve25519_portable);
	if (curve25519_ifma())
		test(curve25519_ifma());
}

/* RFC 7748, 5.2; each vector in each place of a batch. */
static void known_answers(const struct curve25519 *c)
{
	static const char *const v[][3] = {
		{ "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba44"
		  "9ac4",
		  "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab"
		  "1c4c",
		  "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b407557"
		  "7a28552" },
		{ "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918"
		  "ba0d",
		  "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715"
		  "a493",
		  "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647"
		  "aac7957" },
	};
	uint8_t k[P], u[19 * P], want[P];

	for (size_t i = 0; i < ARRAY_SIZE(v); i++) {
		unhex(v[i][0], k, P);
		unhex(v[i][2], want, P);
		for (size_t n = 1; n <= 19; n++) {
			for (size_t j = 0; j < n; j++)
				unhex(v[i][1], u + j * P, P);
			assert_true(c->mul(k, u, n, u));
			for (size_t j = 0; j < n; j++)
				assert_memory_equal(u + j * P, want, P);
		}
	}
}

static void answers_of_rfc_7748(void **state)
{
	(void)state;
	every(known_answers);
}

static void iterated(const struct curve25519 *c)
{
	uint8_t k[P] = { 9 }, u[P] = { 9 }, t[P], want[P];

	for (int i = 1; i <= 1000; i++) {
		assert_true(c->mul(k, u, 1, t));
		memcpy(u, k, P);
		memcpy(k, t, P);
		if (i == 1)
			unhex("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b78"
			      "3c60e80311ae3079",
			      want, P);
		if (i == 1)
			assert_memory_equal(k, want, P);
	}
	unhex("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c"
	      "51",
	      want, P);
	assert_memory_equal(k, want, P);
}

static void a_thousand_iterations_of_rfc_7748(void **state)
{
	(void)state;
	every(iterated);
}

/* 0, 1, p - 1 and the two of order 8; a ninth and more are p + 0, p + 1 and
 * the same with the bit that is to be ignored. */
static const char *const small_order[] = {
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"0000000000000000000000000000000000000000000000000000000000000080",
};

static void refuses(const struct curve25519 *c)
{
	static const uint8_t zero[P];
	uint8_t k[P], u[11 * P], alone[P], out[11 * P];

	crypto_random(k, P);
	for (size_t i = 0; i < ARRAY_SIZE(small_order); i++)
		for (size_t at = 0; at < 11; at += 5) {
			for (size_t j = 0; j < 11; j++)
				memset(u + j * P, (int)j + 9, P);
			unhex(small_order[i], u + at * P, P);
			assert_false(c->mul(k, u, 11, out));
			/* It is zero and the others are what they are. */
			assert_memory_equal(out + at * P, zero, P);
			for (size_t j = 0; j < 11; j++)
				if (j != at) {
					assert_true(
					    c->mul(k, u + j * P, 1, alone));
					assert_memory_equal(alone, out + j * P,
							    P);
				}
		}
}

static void points_of_small_order_are_told(void **state)
{
	(void)state;
	every(refuses);
}

static uint64_t random64(void)
{
	uint64_t v;

	crypto_random(&v, sizeof(v));
	return v;
}

/* All-ones and zero words turn up as often as random ones; some are close to
 * multiples of p. */
static void edgy(uint8_t *p, size_t n)
{
	uint64_t how = random64();

	crypto_random(p, n);
	for (size_t i = 0; i + 8 <= n; i += 8, how >>= 2)
		if (how & 2)
			memset(p + i, how & 1 ? 0xff : 0, 8);
	if (how & 1)
		p[0] = (uint8_t)(0xec + (how >> 8) % 20);
	if (how & 2)
		p[n - 1] = 0x7f;
}

static void implementations_agree(void **state)
{
	enum { ROUNDS = 12, MAX = 700 };
	static uint8_t in[MAX * CURVE_WIDE], a[MAX * P], b[MAX * P];
	const struct curve25519 *c = curve25519_best();

	(void)state;
	for (size_t round = 0; round < ROUNDS; round++) {
		size_t n = 1 + random64() % MAX;
		uint8_t k[P];

		edgy(k, P);
		for (size_t i = 0; i < n; i++)
			edgy(in + i * P, P);
		assert_int_equal(c->mul(k, in, n, a),
				 curve25519_portable.mul(k, in, n, b));
		assert_memory_equal(a, b, n * P);
		for (size_t i = 0; i < n; i++)
			edgy(in + i * CURVE_WIDE, CURVE_WIDE);
		c->map(in, n, a);
		curve25519_portable.map(in, n, b);
		assert_memory_equal(a, b, n * P);
	}
}

/* From RFC 9380's formulas in Python. */
static void maps(const struct curve25519 *c)
{
	static const struct {
		const char *wide, *u;
	} v[] = {
		{ "", "00000000000000000000000000000000"
		      "00000000000000000000000000000000" },
		{ "01", "9cdb5255555555555555555555555555"
			"55555555555555555555555555555555" },
		/* p - 1, p, p + 1 */
		{ "7fffffffffffffffffffffffffffffff"
		  "ffffffffffffffffffffffffffffffec",
		  "9cdb5255555555555555555555555555"
		  "55555555555555555555555555555555" },
		{ "7fffffffffffffffffffffffffffffff"
		  "ffffffffffffffffffffffffffffffed",
		  "00000000000000000000000000000000"
		  "00000000000000000000000000000000" },
		{ "7fffffffffffffffffffffffffffffff"
		  "ffffffffffffffffffffffffffffffee",
		  "9cdb5255555555555555555555555555"
		  "55555555555555555555555555555555" },
		/* 2^255, 2^383, 2^384 - 1 */
		{ "80000000000000000000000000000000"
		  "00000000000000000000000000000000",
		  "88507735537735537735537735537735"
		  "53773553773553773553773553773553" },
		{ "80000000000000000000000000000000"
		  "00000000000000000000000000000000"
		  "00000000000000000000000000000000",
		  "db4eea7c15a54f48e2d4600ec792e1d0"
		  "e10ef9873f631fcc971f9e21c1d9ee25" },
		{ "ffffffffffffffffffffffffffffffff"
		  "ffffffffffffffffffffffffffffffff"
		  "ffffffffffffffffffffffffffffffff",
		  "e8d7152ce1e2f46c2f49ce8306bb6556"
		  "3950531f4ff25b6802e4b8cccecff851" },
	};
	uint8_t wide[ARRAY_SIZE(v) * CURVE_WIDE] = { 0 };
	uint8_t want[P], u[ARRAY_SIZE(v) * P];

	for (size_t i = 0; i < ARRAY_SIZE(v); i++) {
		size_t n = strlen(v[i].wide) / 2;

		unhex(v[i].wide, wide + (i + 1) * CURVE_WIDE - n, n);
	}
	c->map(wide, ARRAY_SIZE(v), u);
	for (size_t i = 0; i < ARRAY_SIZE(v); i++) {
		unhex(v[i].u, want, P);
		assert_memory_equal(u + i * P, want, P);
	}
}

static void numbers_map_as_rfc_9380_has_it(void **state)
{
	(void)state;
	every(maps);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_of_rfc_7748),
		cmocka_unit_test(a_thousand_iterations_of_rfc_7748),
		cmocka_unit_test(points_of_small_order_are_told),
		cmocka_unit_test(implementations_agree),
		cmocka_unit_test(numbers_map_as_rfc_9380_has_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
