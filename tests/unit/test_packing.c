// SPDX-License-Identifier: Apache-2.0
/* Several numbers in one plaintext, and histogram sums, against plain sums. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/cipher_key.h"

#define SCALE 20
#define BITS  50

static int make_key(struct paillier_private **ret)
{
	return paillier_keygen(1024, ret, NULL);
}

/* In [-2^23, 2^23) at SCALE: half the width that there is. */
static double drawn(void)
{
	int64_t v;

	crypto_random(&v, sizeof(v));
	return ldexp((double)(v >> 20), -SCALE);
}

static double *draw(size_t n)
{
	double *v = xcalloc(n + 1, sizeof(*v));

	for (size_t i = 0; i < n; i++)
		v[i] = drawn();
	return v;
}

static void same(const double *a, const double *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		assert_true(a[i] == b[i]);
}

static void packed_numbers_come_back(void **state)
{
	const struct packing p = { BITS, paillier_pack_most(pub, BITS) };
	const struct paillier_private *owner[] = { NULL, key };

	(void)state;
	assert_int_equal(p.per, 20);
	for (size_t n = 0; n <= 61; n += n < 3 || n > 57 ? 1 : 18)
		for (size_t o = 0; o < 2; o++) {
			_cleanup_free_ double *v = draw(n);
			_cleanup_free_ double *out = draw(n);
			struct cipher_vec *c;

			assert_int_equal(
			    paillier_encrypt_packed(pub, owner[o], v, n, SCALE,
						    &p, 2, &c, NULL),
			    0);
			assert_int_equal(cipher_vec_len(c),
					 (n + p.per - 1) / p.per);
			assert_int_equal(paillier_decrypt_packed(
					     key, c, &p, out, n, 2, NULL),
					 0);
			same(v, out, n);
			cipher_vec_free(c);
		}
}

static void packed_sums_are_the_sums(void **state)
{
	const struct packing p = { BITS, 7 };
	const size_t n = 40;
	_cleanup_free_ double *a = draw(n);
	_cleanup_free_ double *b = draw(n);
	_cleanup_free_ double *out = draw(n);
	struct cipher_vec *x, *y;

	(void)state;
	assert_int_equal(
	    paillier_encrypt_packed(pub, NULL, a, n, SCALE, &p, 1, &x, NULL),
	    0);
	assert_int_equal(
	    paillier_encrypt_packed(pub, NULL, b, n, SCALE, &p, 1, &y, NULL),
	    0);
	assert_int_equal(cipher_add(x, y, 2, NULL), 0);
	assert_int_equal(paillier_decrypt_packed(key, x, &p, out, n, 1, NULL),
			 0);
	for (size_t i = 0; i < n; i++)
		assert_true(out[i] == a[i] + b[i]);
	assert_int_equal(cipher_sub(x, y, 2, NULL), 0);
	assert_int_equal(paillier_decrypt_packed(key, x, &p, out, n, 1, NULL),
			 0);
	same(a, out, n);
	cipher_vec_free(x);
	cipher_vec_free(y);
}

static void extremes_do_not_spill(void **state)
{
	const struct packing p = { 8, paillier_pack_most(pub, 8) };
	double v[] = { 127, -127, -127, 127, 0, -1, 1, -127, 0, 127, -127, 1 };
	double out[ARRAY_SIZE(v)];
	struct cipher_vec *c;

	(void)state;
	assert_int_equal(paillier_encrypt_packed(pub, NULL, v, ARRAY_SIZE(v), 0,
						 &p, 1, &c, NULL),
			 0);
	assert_int_equal(
	    paillier_decrypt_packed(key, c, &p, out, ARRAY_SIZE(v), 1, NULL),
	    0);
	same(v, out, ARRAY_SIZE(v));
	cipher_vec_free(c);
	v[5] = 128;
	assert_int_equal(paillier_encrypt_packed(pub, NULL, v, ARRAY_SIZE(v), 0,
						 &p, 1, &c, NULL),
			 -ERANGE);
}

static void ciphertexts_are_packed_after_aggregation(void **state)
{
	const struct packing p = { BITS, 6 };

	(void)state;
	for (size_t n = 1; n <= 121; n = n * 5 + 1) {
		_cleanup_free_ double *v = draw(n);
		_cleanup_free_ double *out = draw(n);
		struct cipher_vec *c, *few;

		assert_int_equal(
		    paillier_encrypt(pub, v, n, SCALE, 2, &c, NULL), 0);
		assert_int_equal(cipher_pack(c, &p, 2, &few, NULL), 0);
		assert_int_equal(cipher_vec_len(few), (n + 5) / 6);
		assert_int_equal(
		    paillier_decrypt_packed(key, few, &p, out, n, 2, NULL), 0);
		same(v, out, n);
		cipher_vec_free(c);
		cipher_vec_free(few);
	}
}

static void packings_that_do_not_fit_are_refused(void **state)
{
	const struct packing bad[] = { { BITS, 21 }, { BITS, 0 }, { 1, 1 },
				       { 1023, 1 },  { 0, 1 },	  { 2, 600 } };
	double v[2] = { 0 };
	struct cipher_vec *c, *d;

	(void)state;
	assert_int_equal(paillier_encrypt(pub, v, 2, SCALE, 1, &c, NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(cipher_pack(c, &bad[i], 1, &d, NULL), -EINVAL);
		assert_int_equal(paillier_encrypt_packed(pub, key, v, 2, SCALE,
							 &bad[i], 1, &d, NULL),
				 -EINVAL);
		assert_int_equal(
		    paillier_decrypt_packed(key, c, &bad[i], v, 2, 1, NULL),
		    -EINVAL);
	}
	/* Two numbers of one plaintext, but two ciphertexts. */
	assert_int_equal(paillier_decrypt_packed(key, c,
						 &(struct packing){ BITS, 2 },
						 v, 2, 1, NULL),
			 -EINVAL);
	cipher_vec_free(c);
}

static void histogram(size_t rows, size_t features, unsigned bins,
		      unsigned threads)
{
	const struct packing p = { BITS, 2 };
	_cleanup_free_ double *v = draw(2 * rows);
	const size_t cells = features * bins;
	_cleanup_free_ double *want = xcalloc(2 * cells, sizeof(*want));
	_cleanup_free_ double *out = xcalloc(2 * cells, sizeof(*out));
	_cleanup_free_ uint16_t *bin =
	    xcalloc(rows * features + 1, sizeof(*bin));
	struct cipher_vec *d, *sum;

	crypto_random(bin, rows * features * sizeof(*bin));
	for (size_t i = 0; i < rows * features; i++) {
		const size_t f = i % features;

		bin[i] %= bins + 1; /* bins: missing */
		for (size_t k = 0; k < 2 && bin[i] < bins; k++)
			want[2 * (f * bins + bin[i]) + k] +=
			    v[2 * (i / features) + k];
	}
	assert_int_equal(paillier_encrypt_packed(pub, key, v, 2 * rows, SCALE,
						 &p, 2, &d, NULL),
			 0);
	assert_int_equal(
	    cipher_histogram(d, bin, rows, features, bins, threads, &sum, NULL),
	    0);
	assert_int_equal(cipher_vec_len(sum), cells);
	assert_int_equal(
	    paillier_decrypt_packed(key, sum, &p, out, 2 * cells, 2, NULL), 0);
	same(want, out, 2 * cells);
	cipher_vec_free(d);
	cipher_vec_free(sum);
}

static void histograms_are_the_sums_by_bin(void **state)
{
	(void)state;
	histogram(100, 1, 4, 1);
	histogram(100, 3, 5, 2);
	histogram(61, 9, 2, 2);
	histogram(40, 17, 3, 1);
	histogram(1, 2, 2, 2);
	histogram(0, 2, 2, 1);
}

static void histograms_of_other_sizes_are_refused(void **state)
{
	double v[3] = { 1, 2, 3 };
	uint16_t bin[3] = { 0 };
	struct cipher_vec *d, *sum;

	(void)state;
	assert_int_equal(paillier_encrypt(pub, v, 3, SCALE, 1, &d, NULL), 0);
	assert_int_equal(cipher_histogram(d, bin, 2, 1, 1, 1, &sum, NULL),
			 -EINVAL);
	assert_int_equal(cipher_histogram(d, bin, 3, 1, 0, 1, &sum, NULL),
			 -EINVAL);
	assert_int_equal(cipher_histogram(d, bin, 3, 0, 1, 1, &sum, NULL),
			 -EINVAL);
	cipher_vec_free(d);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(packed_numbers_come_back),
		cmocka_unit_test(packed_sums_are_the_sums),
		cmocka_unit_test(extremes_do_not_spill),
		cmocka_unit_test(ciphertexts_are_packed_after_aggregation),
		cmocka_unit_test(packings_that_do_not_fit_are_refused),
		cmocka_unit_test(histograms_are_the_sums_by_bin),
		cmocka_unit_test(histograms_of_other_sizes_are_refused),
	};

	return cmocka_run_group_tests_name("as the processor can", tests,
					   set_up, tear_down) +
	       cmocka_run_group_tests_name("portable", tests, set_up_portable,
					   tear_down);
}
