// SPDX-License-Identifier: Apache-2.0
/* Sealing against answers computed a second way, and base64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "transfer/secure.h"

/* Printed by tests/data/make_seal_vectors.py: keys, info, plaintext and aad of
 * RFC 9180, appendix A.1.1, under AES-256-GCM. */
#define PRIV "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8"
#define PUB  "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d"
#define ENC  "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431"
#define SEALED                                                             \
	"090b7dc225419f7da9e8b460becfbb96a26c7964d79b8010d397fa838530a32a" \
	"397b14f5776db19ff5e57734e0"
#define ANSWER_KEY \
	"9fed5a11f18c871575a5ad1117223ad7fa5409349493cdaf78a4d47812e67c2e"
#define ANSWER "e1946c37a670ac9206f9c1b239968b2797d1fc"
#define INFO   "Ode on a Grecian Urn"
#define PLAIN  "Beauty is truth, truth beauty"
#define AAD    "Count-0"

static size_t unhex(const char *text, uint8_t *ret)
{
	size_t n = strlen(text) / 2;

	for (size_t i = 0; i < n; i++) {
		char two[3] = { text[2 * i], text[2 * i + 1], 0 };

		ret[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	return n;
}

/* What the receiver of the vector has. */
struct vector {
	uint8_t priv[32], pub[32], enc[32], sealed[64], out[64], answer[32];
	size_t n;
};

static struct vector vector(void)
{
	struct vector v = { 0 };

	unhex(PRIV, v.priv);
	unhex(PUB, v.pub);
	unhex(ENC, v.enc);
	v.n = unhex(SEALED, v.sealed);
	return v;
}

static int vector_open(struct vector *v, const char *info, const char *aad)
{
	return seal_open(v->priv, v->pub, v->enc, info, strlen(info), aad,
			 strlen(aad), v->sealed, v->n, v->out, v->answer);
}

static void the_known_answer_opens(void **state)
{
	struct vector v = vector();
	uint8_t key[32];

	(void)state;
	assert_int_equal(vector_open(&v, INFO, AAD), 0);
	assert_int_equal(v.n - SEAL_OVERHEAD, strlen(PLAIN));
	assert_memory_equal(v.out, PLAIN, strlen(PLAIN));
	unhex(ANSWER_KEY, key);
	assert_memory_equal(v.answer, key, 32);
}

static void the_known_answer_of_an_answer(void **state)
{
	uint8_t key[32], want[64], got[64];
	size_t n = unhex(ANSWER, want);

	(void)state;
	unhex(ANSWER_KEY, key);
	assert_int_equal(n, 3 + SEAL_OVERHEAD);
	assert_int_equal(seal_answer(key, "yes", 3, got), 0);
	assert_memory_equal(got, want, n);
	assert_int_equal(seal_open_answer(key, want, n, got), 0);
	assert_memory_equal(got, "yes", 3);
}

static void a_flipped_bit_anywhere_is_refused(void **state)
{
	struct vector v;

	(void)state;
	for (size_t bit = 0; bit < 8 * vector().n; bit++) {
		v = vector();
		v.sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(vector_open(&v, INFO, AAD), -EBADMSG);
	}
	for (size_t i = 0; i < 32; i++) {
		v = vector();
		v.enc[i] ^= 1;
		assert_int_equal(vector_open(&v, INFO, AAD), -EBADMSG);
		v = vector();
		v.pub[i] ^= 1;
		assert_int_equal(vector_open(&v, INFO, AAD), -EBADMSG);
		v = vector();
		v.priv[i] ^= 8; /* the lowest three bits do not count */
		assert_int_equal(vector_open(&v, INFO, AAD), -EBADMSG);
	}
	v = vector();
	assert_int_equal(vector_open(&v, "", AAD), -EBADMSG);
	assert_int_equal(vector_open(&v, INFO "s", AAD), -EBADMSG);
	assert_int_equal(vector_open(&v, INFO, ""), -EBADMSG);
	assert_int_equal(vector_open(&v, INFO, "Count-1"), -EBADMSG);
	/* and unchanged it opens */
	assert_int_equal(vector_open(&v, INFO, AAD), 0);
}

static void a_truncated_message_is_refused(void **state)
{
	struct vector v = vector();

	(void)state;
	for (size_t n = 0; n < vector().n; n++) {
		v.n = n;
		assert_int_equal(vector_open(&v, INFO, AAD), -EBADMSG);
		assert_int_equal(seal_open_answer(v.priv, v.sealed, n, v.out),
				 -EBADMSG);
	}
}

static void nothing_of_a_refused_message_is_left(void **state)
{
	static const uint8_t zero[64];
	struct vector v = vector();

	(void)state;
	v.sealed[v.n - 1] ^= 1;
	memset(v.answer, 7, sizeof(v.answer));
	memset(v.out, 7, sizeof(v.out));
	assert_int_equal(vector_open(&v, INFO, AAD), -EBADMSG);
	assert_memory_equal(v.out, zero, v.n - SEAL_OVERHEAD);
	assert_int_equal(v.answer[0], 7);
}

/* Points of small order (RFC 7748, section 6.1): the shared secret would be
 * zero for every key. */
static void keys_of_small_order_are_refused(void **state)
{
	static const char *const points[] = {
		"00000000000000000000000000000000"
		"00000000000000000000000000000000",
		"01000000000000000000000000000000"
		"00000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46a"
		"da098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b"
		"04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffff"
		"ffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffff"
		"ffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffff"
		"ffffffffffffffffffffffffffffff7f",
	};
	uint8_t point[32], enc[32], out[20], answer[32];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
		struct vector v = vector();

		unhex(points[i], point);
		assert_int_equal(
		    seal(point, "", 0, "", 0, "abcd", 4, enc, out, answer),
		    -EINVAL);
		unhex(points[i], v.enc);
		assert_int_equal(vector_open(&v, INFO, AAD), -EBADMSG);
	}
}

static void what_was_sealed_opens_in_place(void **state)
{
	static const size_t sizes[] = { 0, 1, 15, 16, 17, 65536, 5 << 20 };
	uint8_t priv[32], pub[32], enc[32], mine[32], theirs[32];

	(void)state;
	assert_int_equal(seal_keypair(priv, pub), 0);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		size_t n = sizes[i];
		uint8_t *data = xmalloc(n + SEAL_OVERHEAD);

		for (size_t k = 0; k < n; k++)
			data[k] = (uint8_t)(k * 7 + k / 256);
		assert_int_equal(
		    seal(pub, "i", 1, "a", 1, data, n, enc, data, mine), 0);
		assert_int_equal(seal_open(priv, pub, enc, "i", 1, "a", 1, data,
					   n + SEAL_OVERHEAD, data, theirs),
				 0);
		assert_memory_equal(mine, theirs, 32);
		for (size_t k = 0; k < n; k++)
			if (data[k] != (uint8_t)(k * 7 + k / 256))
				fail_msg("byte %zu of %zu", k, n);
		assert_int_equal(seal_answer(mine, data, n, data), 0);
		assert_int_equal(
		    seal_open_answer(theirs, data, n + SEAL_OVERHEAD, data), 0);
		if (n) {
			assert_int_equal(seal_answer(mine, data, n, data), 0);
			data[n / 2] ^= 1;
			assert_int_equal(seal_open_answer(theirs, data,
							  n + SEAL_OVERHEAD,
							  data),
					 -EBADMSG);
		}
		free(data);
	}
}

static void every_message_has_a_key_of_its_own(void **state)
{
	uint8_t priv[32], pub[32], enc[2][32], answer[2][32], out[2][20];

	(void)state;
	assert_int_equal(seal_keypair(priv, pub), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(seal(pub, "", 0, "", 0, "abcd", 4, enc[i],
				      out[i], answer[i]),
				 0);
	assert_memory_not_equal(enc[0], enc[1], 32);
	assert_memory_not_equal(answer[0], answer[1], 32);
	assert_memory_not_equal(out[0], out[1], 20);
	assert_int_equal(seal_open(priv, pub, enc[0], "", 0, "", 0, out[1], 20,
				   out[1], answer[0]),
			 -EBADMSG);
}

static void base64_of_rfc_4648(void **state)
{
	static const char *const pairs[][2] = {
		{ "", "" },
		{ "f", "Zg==" },
		{ "fo", "Zm8=" },
		{ "foo", "Zm9v" },
		{ "foob", "Zm9vYg==" },
		{ "fooba", "Zm9vYmE=" },
		{ "foobar", "Zm9vYmFy" },
	};
	uint8_t all[256], back[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		size_t n = strlen(pairs[i][0]);
		_cleanup_free_ char *text = base64_encode(pairs[i][0], n);

		assert_string_equal(text, pairs[i][1]);
		assert_int_equal(base64_decode(text, back, n), n);
		assert_memory_equal(back, pairs[i][0], n);
		if (n)
			assert_int_equal(base64_decode(text, back, n - 1),
					 -EINVAL);
	}
	for (size_t n = 0; n < 256; n++)
		all[n] = (uint8_t)(255 - n);
	for (size_t n = 0; n <= 256; n++) {
		_cleanup_free_ char *text = base64_encode(all, n);

		assert_int_equal(base64_decode(text, back, sizeof(back)), n);
		assert_memory_equal(back, all, n);
	}
}

static void base64_takes_one_text_only(void **state)
{
	static const char *const bad[] = {
		"Z",	"Zg",	   "Zg=",    "=",	 "==",	     "===",
		"====", "Z===",	   "Zh==",   "Zm9=",	 "Zg==\n",   "Zm9v\n",
		" Zg=", "Zm9v Zg", "Zg==Zg", "Zg==Zm9v", "Zm-v",     "Zm_v",
		"Zm=v", "Z=9v",	   "Zm9vZ",  "\x80m9v",	 "Zm9v====", "Zm\n9",
	};
	uint8_t out[64];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (base64_decode(bad[i], out, sizeof(out)) != -EINVAL)
			fail_msg("'%s' was taken", bad[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_known_answer_opens),
		cmocka_unit_test(the_known_answer_of_an_answer),
		cmocka_unit_test(a_flipped_bit_anywhere_is_refused),
		cmocka_unit_test(a_truncated_message_is_refused),
		cmocka_unit_test(nothing_of_a_refused_message_is_left),
		cmocka_unit_test(keys_of_small_order_are_refused),
		cmocka_unit_test(what_was_sealed_opens_in_place),
		cmocka_unit_test(every_message_has_a_key_of_its_own),
		cmocka_unit_test(base64_of_rfc_4648),
		cmocka_unit_test(base64_takes_one_text_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
