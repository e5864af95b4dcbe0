// SPDX-License-Identifier: Apache-2.0
/*
 * The vector and the portable path on the same ciphertexts under the same key:
 * what leaves is the same, byte for byte. Where the processor has no vectors
 * both are the portable one, and the test says so.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "components/crypto/paillier.h"
#include "components/crypto/paillier_priv.h"

#define ROWS  61
#define COLS  11
#define SCALE 40

static struct paillier_private *key[2]; /* vectors, portable */

static void random_prime(mpz_t p, unsigned bits)
{
	do {
		crypto_random_bits(p, bits);
		mpz_setbit(p, bits - 1);
		mpz_setbit(p, bits - 2);
		mpz_setbit(p, 0);
		mpz_setbit(p, 1);
	} while (!mpz_probab_prime_p(p, 30));
}

static void make_keys(unsigned bits)
{
	mpz_t p, q, t, u;

	mpz_inits(p, q, t, u, NULL);
	do {
		random_prime(p, bits / 2);
		random_prime(q, bits / 2);
		mpz_sub_ui(t, p, 1);
		mpz_sub_ui(u, q, 1);
		mpz_gcd(t, t, u);
	} while (mpz_cmp_ui(t, 2) != 0);
	for (int i = 0; i < 2; i++) {
		ring_force_portable(i == 1);
		key[i] = paillier_from_primes(p, q);
		assert_non_null(key[i]);
	}
	ring_force_portable(false);
	assert_int_equal(paillier_public(key[1])->n2->lanes, 1);
	if (paillier_public(key[0])->n2->lanes == 1)
		print_message("this processor has no vectors: compared are "
			      "two portable paths\n");
	mpz_clears(p, q, t, u, NULL);
}

/* The same ROWS ciphertexts at both. */
static void both(struct cipher_vec **ret)
{
	size_t width = cipher_width(paillier_public(key[0]));
	_cleanup_free_ uint8_t *wire = xmalloc(ROWS * width);
	double v[ROWS];

	for (size_t i = 0; i < ROWS; i++)
		v[i] = (double)i * 1.25 - 30;
	assert_int_equal(paillier_encrypt(paillier_public(key[0]), v, ROWS,
					  SCALE, 2, &ret[0], NULL),
			 0);
	cipher_vec_export(ret[0], wire, 2);
	cipher_vec_free(ret[0]);
	for (int i = 0; i < 2; i++)
		assert_int_equal(cipher_vec_import(paillier_public(key[i]),
						   wire, ROWS, SCALE, 2,
						   &ret[i], NULL),
				 0);
}

/* And frees them. */
static void same(struct cipher_vec **c)
{
	size_t n = cipher_vec_len(c[0]);
	size_t width = cipher_width(paillier_public(key[0]));
	_cleanup_free_ uint8_t *a = xmalloc(n * width + 1);
	_cleanup_free_ uint8_t *b = xmalloc(n * width + 1);

	assert_int_equal(cipher_vec_len(c[1]), n);
	cipher_vec_export(c[0], a, 1);
	cipher_vec_export(c[1], b, 2);
	assert_memory_equal(a, b, n * width);
	cipher_vec_free(c[0]);
	cipher_vec_free(c[1]);
}

static void each_operation(unsigned bits)
{
	static double x[ROWS * COLS], out[2][ROWS];
	static uint16_t bin[ROWS * 3];
	const struct packing p = { 60, 3 };
	struct cipher_vec *c[2], *d[2];

	make_keys(bits);
	for (size_t i = 0; i < ARRAY_SIZE(x); i++)
		x[i] = ldexp(sin((double)i), 6);
	for (size_t i = 0; i < ARRAY_SIZE(bin); i++)
		bin[i] = (uint16_t)(i * i % 7);
	both(c);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(
		    paillier_decrypt(key[i], c[i], out[i], 2, NULL), 0);
		assert_int_equal(cipher_add(c[i], c[i], 2, NULL), 0);
		assert_int_equal(cipher_add_plain(c[i], x, 2, NULL), 0);
		assert_int_equal(cipher_mul_plain(c[i], x, 20, 2, NULL), 0);
	}
	assert_memory_equal(out[0], out[1], sizeof(out[0]));
	same(c);
	both(c);
	for (int i = 0; i < 2; i++)
		assert_int_equal(
		    cipher_matvec(c[i], x, ROWS, COLS, 30, 2, &d[i], NULL), 0);
	same(d);
	for (int i = 0; i < 2; i++)
		assert_int_equal(cipher_pack(c[i], &p, 2, &d[i], NULL), 0);
	same(d);
	for (int i = 0; i < 2; i++)
		assert_int_equal(
		    cipher_histogram(c[i], bin, ROWS, 3, 7, 2, &d[i], NULL), 0);
	same(d);
	/* The ciphertexts stand for packed ones. */
	for (int i = 0; i < 2; i++)
		assert_int_equal(cipher_dot(c[i], &p, x, (size_t)ROWS * p.per,
					    3, 20, 2, &d[i], NULL),
				 0);
	same(d);
	same(c);
	for (int i = 0; i < 2; i++)
		paillier_private_free(key[i]);
}

static void paths_agree_at_512_bits(void **state)
{
	(void)state;
	each_operation(512);
}

static void paths_agree_at_1024_bits(void **state)
{
	(void)state;
	each_operation(1024);
}

static void paths_agree_at_2048_bits(void **state)
{
	(void)state;
	each_operation(2048);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_agree_at_512_bits),
		cmocka_unit_test(paths_agree_at_1024_bits),
		cmocka_unit_test(paths_agree_at_2048_bits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
