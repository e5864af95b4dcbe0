// SPDX-License-Identifier: Apache-2.0
/* Inner products with packed vectors against plain sums, what the plaintexts of
 * such a product hold beside it, and randomisers made ahead. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/cipher_key.h"

#define SCALE	20
#define X_SCALE 16
#define BITS	70

static bool ou;

static int make_key(struct paillier_private **ret)
{
	return ou ? ou_keygen(2048, ret, NULL)
		  : paillier_keygen(1024, ret, NULL);
}

static int set_up_ou(void **state)
{
	ou = true;
	return set_up(state);
}

/* Multiples of 2^-scale below 2^bits. */
static double *draw(size_t n, int bits, int scale)
{
	double *v = xcalloc(n + 1, sizeof(*v));

	for (size_t i = 0; i < n; i++) {
		int64_t x;

		crypto_random(&x, sizeof(x));
		v[i] = ldexp((double)(x >> (63 - bits - scale)), -scale);
	}
	return v;
}

static struct cipher_vec *packed(const double *v, size_t n,
				 const struct packing *p)
{
	struct cipher_vec *c;

	assert_int_equal(
	    paillier_encrypt_packed(pub, NULL, v, n, SCALE, p, 2, &c, NULL), 0);
	return c;
}

/* The plaintext of c as a polynomial in 2^BITS, as it was decrypted: an
 * independent way, c^((p-1)(q-1)) = 1 + m (p-1)(q-1) n. */
static void plaintext(mpz_t m, const struct cipher_vec *c, size_t i)
{
	const size_t width = cipher_width(pub);
	_cleanup_free_ uint8_t *raw = xcalloc(cipher_vec_len(c), width);
	mpz_t n2, phi, t;

	mpz_inits(n2, phi, t, NULL);
	cipher_vec_export(c, raw, 1);
	mpz_import(m, width, 1, 1, 1, 0, raw + i * width);
	mpz_mul(n2, pub->n, pub->n);
	mpz_sub_ui(phi, key->p.p, 1);
	mpz_sub_ui(t, key->q.p, 1);
	mpz_mul(phi, phi, t);
	mpz_powm(m, m, phi, n2);
	mpz_sub_ui(m, m, 1);
	mpz_divexact(m, m, pub->n);
	assert_int_not_equal(mpz_invert(phi, phi, pub->n), 0);
	mpz_mul(m, m, phi);
	mpz_mod(m, m, pub->n);
	mpz_clears(n2, phi, t, NULL);
}

static void products_are_the_sums_whatever_the_rows(void **state)
{
	const size_t cols = 5;

	(void)state;
	for (unsigned per = 1; per <= paillier_dot_most(pub, BITS); per++)
		for (size_t n = 1; n < 40; n += 1 + n / 3) {
			const struct packing p = { BITS, per };
			_cleanup_free_ double *d = draw(n, 20, SCALE);
			_cleanup_free_ double *x = draw(n * cols, 6, X_SCALE);
			_cleanup_free_ double *plain =
			    draw(cols, 10, SCALE + X_SCALE);
			double out[5];
			struct cipher_vec *c = packed(d, n, &p), *r;

			assert_int_equal(
			    cipher_dot(c, &p, x, n, cols, X_SCALE, 2, &r, NULL),
			    0);
			assert_int_equal(cipher_vec_scale(r), SCALE + X_SCALE);
			assert_int_equal(cipher_dot_end(r, &p, plain, 2, NULL),
					 0);
			assert_int_equal(
			    paillier_decrypt_dot(key, r, &p, out, 2, NULL), 0);
			for (size_t j = 0; j < cols; j++) {
				long double want = plain[j];

				/* Below 2^32: a double's half unit is 2.4e-7,
				 * and this sum has eleven bits more. */
				for (size_t i = 0; i < n; i++)
					want +=
					    (long double)d[i] * x[i * cols + j];
				assert_true(fabsl(out[j] - want) < 1e-6L);
			}
			cipher_vec_free(r);
			cipher_vec_free(c);
		}
}

static void the_largest_numbers_fit(void **state)
{
	/* 2^34 * 2^30 * 16 rows < 2^(BITS - 1), all the same sign and not. */
	const struct packing p = { BITS, 3 };
	const size_t n = 16;
	_cleanup_free_ double *d = draw(n, 13, SCALE);
	_cleanup_free_ double *x = draw(n, 13, X_SCALE);
	const double plain = 0;

	(void)state;
	if (paillier_dot_most(pub, BITS) < 3)
		return; /* the smaller plaintexts of Okamoto-Uchiyama */
	for (unsigned sign = 0; sign < 8; sign++) {
		double out, want = 0;
		struct cipher_vec *c, *r;

		for (size_t i = 0; i < n; i++) {
			d[i] = ldexp(sign & 1 ? -1 : 1, 13);
			x[i] = ldexp(sign & 2 ? -1 : 1, 14);
			if (sign & 4 && i % 2)
				d[i] = -d[i];
			want += d[i] * x[i];
		}
		c = packed(d, n, &p);
		assert_int_equal(
		    cipher_dot(c, &p, x, n, 1, X_SCALE, 1, &r, NULL), 0);
		assert_int_equal(cipher_dot_end(r, &p, &plain, 1, NULL), 0);
		assert_int_equal(
		    paillier_decrypt_dot(key, r, &p, &out, 1, NULL), 0);
		assert_true(out == want);
		cipher_vec_free(r);
		cipher_vec_free(c);
	}
}

static void sums_of_packed_vectors_multiply(void **state)
{
	const struct packing p = { BITS, 2 };
	const double a[] = { 1, 2, 3 }, b[] = { .5, -4, 10 };
	const double x[] = { 2, -1, .25 }, plain = 7;
	struct cipher_vec *c = packed(a, 3, &p), *d = packed(b, 3, &p), *r;
	double out;

	(void)state;
	assert_int_equal(cipher_add(c, d, 1, NULL), 0);
	assert_int_equal(cipher_dot(c, &p, x, 3, 1, X_SCALE, 1, &r, NULL), 0);
	assert_int_equal(cipher_dot_end(r, &p, &plain, 1, NULL), 0);
	assert_int_equal(paillier_decrypt_dot(key, r, &p, &out, 1, NULL), 0);
	assert_true(out == 2 * 1.5 + 2 + .25 * 13 + 7);
	cipher_vec_free(r);
	cipher_vec_free(d);
	cipher_vec_free(c);
}

/*
 * Two rows: below and above the product lie x_1 d_0 and x_0 d_1, which a
 * plaintext must not show. Each bit of the masked numbers is drawn: over 64
 * products of the same numbers every one of them is seen both ways.
 */
static void nothing_else_shows(void **state)
{
	const struct packing p = { BITS, 2 };
	const double d[] = { 3, 5 }, x[] = { 7, 11 }, plain = 0;
	const size_t low = BITS, high = BITS + 40;
	unsigned seen_low[BITS] = { 0 }, seen_high[BITS + 40] = { 0 };
	mpz_t m, t;

	(void)state;
	mpz_inits(m, t, NULL);
	for (int round = 0; round < 64; round++) {
		struct cipher_vec *c = packed(d, 2, &p), *r;

		assert_int_equal(
		    cipher_dot(c, &p, x, 2, 1, X_SCALE, 1, &r, NULL), 0);
		if (round == 0) { /* this is what there is to hide */
			plaintext(m, r, 0);
			mpz_fdiv_r_2exp(t, m, BITS);
			mpz_fdiv_q_2exp(t, t, SCALE + X_SCALE);
			assert_int_equal(mpz_get_ui(t), 3 * 11);
			mpz_fdiv_q_2exp(m, m, 2 * BITS + SCALE + X_SCALE);
			assert_int_equal(mpz_get_ui(m), 5 * 7);
		}
		assert_int_equal(cipher_dot_end(r, &p, &plain, 1, NULL), 0);
		plaintext(m, r, 0);
		for (size_t b = 0; b < low; b++)
			seen_low[b] += (unsigned)mpz_tstbit(m, b);
		mpz_fdiv_q_2exp(t, m, BITS);
		mpz_fdiv_r_2exp(t, t, BITS);
		mpz_fdiv_q_2exp(t, t, SCALE + X_SCALE);
		assert_int_equal(mpz_get_ui(t), 3 * 7 + 5 * 11);
		mpz_fdiv_q_2exp(m, m, 2 * BITS);
		for (size_t b = 0; b < high; b++)
			seen_high[b] += (unsigned)mpz_tstbit(m, b);
		cipher_vec_free(r);
		cipher_vec_free(c);
	}
	for (size_t b = 0; b < low; b++)
		assert_true(seen_low[b] > 0 && seen_low[b] < 64);
	for (size_t b = 0; b < high; b++)
		assert_true(seen_high[b] > 0 && seen_high[b] < 64);
	mpz_clears(m, t, NULL);
}

static void what_does_not_fit_is_refused(void **state)
{
	unsigned most = paillier_dot_most(pub, BITS);
	const struct packing p = { BITS, most }, more = { BITS, most + 1 };
	const double v[] = { 1, 2 }, large = ldexp(1, BITS);
	struct cipher_vec *c = packed(v, 2, &p), *r = NULL;
	struct err e = { 0 };
	double out;

	(void)state;
	assert_int_equal(paillier_dot_most(pub, 4000), 0);
	assert_int_equal(cipher_dot(c, &more, v, 2, 1, X_SCALE, 1, &r, &e),
			 -EINVAL);
	assert_int_equal(cipher_dot(c, &p, v, most + 1, 1, X_SCALE, 1, &r, &e),
			 -EINVAL);
	assert_int_equal(paillier_decrypt_dot(key, c, &more, &out, 1, &e),
			 -EINVAL);
	assert_int_equal(cipher_dot_end(c, &p, &large, 1, &e), -ERANGE);
	cipher_vec_free(c);
}

/* More than the ring holds, twice, with pauses in which it fills: every
 * ciphertext is right, and no randomiser comes twice. */
static void what_is_made_ahead_is_used_once(void **state)
{
	const size_t n = 100, width = cipher_width(pub);
	_cleanup_free_ double *v = xcalloc(n, sizeof(*v));
	_cleanup_free_ double *out = xcalloc(n, sizeof(*out));
	_cleanup_free_ uint8_t *all = xcalloc(6 * n, width);

	(void)state;
	for (size_t i = 0; i < n; i++)
		v[i] = 17;
	paillier_ahead(pub, 48, 2);
	paillier_ahead(pub, 48, 2);
	for (size_t round = 0; round < 6; round++) {
		struct cipher_vec *c;

		if (round % 2)
			(void)usleep(50000);
		assert_int_equal(
		    paillier_encrypt(pub, v, n, SCALE, 2, &c, NULL), 0);
		assert_int_equal(paillier_decrypt(key, c, out, 2, NULL), 0);
		for (size_t i = 0; i < n; i++)
			assert_true(out[i] == 17);
		cipher_vec_export(c, all + round * n * width, 1);
		cipher_vec_free(c);
	}
	for (size_t i = 0; i < 6 * n; i++)
		for (size_t j = 0; j < i; j++)
			assert_memory_not_equal(all + i * width,
						all + j * width, width);
}

/* Whether its thread has not begun, is in the middle of a block, or waits. */
static void a_key_may_go_while_they_are_made(void **state)
{
	_cleanup_strbuf_ struct strbuf wire = STRBUF_INIT(1 << 16);
	const double v = 3;

	(void)state;
	assert_int_equal(paillier_public_write(pub, &wire), 0);
	for (unsigned round = 0; round < 12; round++) {
		struct paillier_public *k;
		struct cipher_vec *c;
		double out;

		assert_int_equal(
		    paillier_public_read(wire.buf, wire.len, &k, NULL), 0);
		paillier_ahead(k, 32, 1);
		(void)usleep(round * 1000);
		assert_int_equal(paillier_encrypt(k, &v, 1, SCALE, 1, &c, NULL),
				 0);
		assert_int_equal(paillier_decrypt(key, c, &out, 1, NULL), 0);
		assert_true(out == v);
		cipher_vec_free(c);
		paillier_public_free(k);
	}
}

#define BOTH                                                       \
	cmocka_unit_test(products_are_the_sums_whatever_the_rows), \
	    cmocka_unit_test(the_largest_numbers_fit),             \
	    cmocka_unit_test(sums_of_packed_vectors_multiply),     \
	    cmocka_unit_test(what_does_not_fit_is_refused),        \
	    cmocka_unit_test(what_is_made_ahead_is_used_once),     \
	    cmocka_unit_test(a_key_may_go_while_they_are_made)

int main(void)
{
	const struct CMUnitTest paillier[] = {
		BOTH,
		cmocka_unit_test(nothing_else_shows),
	};
	const struct CMUnitTest others[] = { BOTH };
	int failed;

	failed = cmocka_run_group_tests_name("Paillier", paillier, set_up,
					     tear_down);
	failed += cmocka_run_group_tests_name("Paillier, portable", paillier,
					      set_up_portable, tear_down);
	failed += cmocka_run_group_tests_name("Okamoto-Uchiyama", others,
					      set_up_ou, tear_down);
	return failed;
}
