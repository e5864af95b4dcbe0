// SPDX-License-Identifier: Apache-2.0
/* Paillier against the textbook scheme computed with mpz alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/cipher_key.h"

#define SCALE 40

static int make_key(struct paillier_private **ret)
{
	return paillier_keygen(1024, ret, NULL);
}

static void public_and_owner_encryption_decrypt_to_the_value(void **state)
{
	struct cipher_vec *a, *b;
	double tol = ldexp(0.5, -SCALE) + 1e-7;

	(void)state;
	assert_int_equal(paillier_encrypt(peer, sample, N, SCALE, 2, &a, NULL),
			 0);
	assert_int_equal(
	    paillier_encrypt_owner(key, sample, N, SCALE, 2, &b, NULL), 0);
	check(a, sample, tol);
	check(b, sample, tol);
	cipher_vec_free(a);
	cipher_vec_free(b);
}

static void get(mpz_t ret, const struct cipher_vec *v, size_t i)
{
	size_t w = cipher_width(v->key), n = cipher_vec_len(v);
	_cleanup_free_ uint8_t *wire = xcalloc(n, w);

	cipher_vec_export(v, wire, 1);
	mpz_import(ret, w, 1, 1, 0, 0, wire + i * w);
}

static void textbook_decryption_gives_the_same_integer(void **state)
{
	struct cipher_vec *v[2];
	mpz_t lambda, mu, c, m;

	(void)state;
	mpz_inits(lambda, mu, c, m, NULL);
	mpz_lcm(lambda, key->p.pm1, key->q.pm1);
	mpz_invert(mu, lambda, pub->n);
	assert_int_equal(
	    paillier_encrypt(peer, sample, N, SCALE, 1, &v[0], NULL), 0);
	assert_int_equal(
	    paillier_encrypt_owner(key, sample, N, SCALE, 1, &v[1], NULL), 0);
	for (size_t k = 0; k < 2; k++)
		for (size_t i = 0; i < N; i++) {
			get(c, v[k], i);
			mpz_powm(c, c, lambda, pub->n2->m);
			mpz_sub_ui(c, c, 1);
			assert_true(mpz_divisible_p(c, pub->n));
			mpz_divexact(c, c, pub->n);
			mpz_mul(c, c, mu);
			mpz_mod(c, c, pub->n);
			mpz_set_d(m, rint(ldexp(sample[i], SCALE)));
			assert_true(mpz_congruent_p(c, m, pub->n));
		}
	cipher_vec_free(v[0]);
	cipher_vec_free(v[1]);
	mpz_clears(lambda, mu, c, m, NULL);
}

static void textbook_ciphertext_is_decrypted(void **state)
{
	_cleanup_free_ uint8_t *wire = xcalloc(1, cipher_width(pub));
	struct cipher_vec *v;
	double want = -42.5;
	mpz_t c, r, g, m;

	(void)state;
	mpz_inits(c, r, g, m, NULL);
	crypto_random_below(r, pub->n);
	mpz_powm(r, r, pub->n, pub->n2->m);
	mpz_add_ui(g, pub->n, 1);
	mpz_set_d(m, ldexp(want, SCALE));
	mpz_mod(m, m, pub->n);
	mpz_powm(c, g, m, pub->n2->m);
	mpz_mul(c, c, r);
	mpz_mod(c, c, pub->n2->m);
	limbs_export(mpz_limbs_read(c), (mp_size_t)mpz_size(c), wire,
		     cipher_width(pub));
	assert_int_equal(cipher_vec_import(peer, wire, 1, SCALE, 1, &v, NULL),
			 0);
	check(v, &want, 0);
	cipher_vec_free(v);
	mpz_clears(c, r, g, m, NULL);
}

/* Of tests/data/make_paillier_vectors.py. */
/* clang-format off */
#define KAT_P \
	"c07e3886664ad4e087636a2e187ca64e2376fd84024525814eb32b9e2392548a" \
	"d9f4ebb2ffdece6b0a20fce358769895df50ed5198ac28d3fcdec8c22a3ac6ff"
#define KAT_Q \
	"e85b79fc78706261b9ce3fe7efdea120c9a92decd6ede777b8cf542dae4e264f" \
	"2d2e1bb4fa788fb4aa7576d8ddc56b9df63786f4ceaefac08a4073c8866195ef"
#define KAT_C0 \
	"46f5140ab394b1597a67eb0c507d66f0026417c1d274e954d0aa0c5002e203d7" \
	"1a28d807878f31a6ad8f86799c2af10f5c2edd5546fe58489ed87dfb7fd3d433" \
	"0a1fe792f0c4a81debc33e4889277c8a2bb952d6fe9ff5c408073bfc7d81141b" \
	"b28b08416b3adf350a226920b988a38f0e39858ead36c7ec3e6f6675208c4b4d" \
	"cac3e1deafef2d83b4c6bde88984691baa33c5c9e79098ff57065a5a3ab2761e" \
	"c7123178512ac3d0ad583981bb13c61bda0f5c332f01495720ba3e85f2c7cd2f" \
	"ee1b4d0feb442c658dbd3c0e98ff92dc7942a5fbe4cee50f70db50504de16a67" \
	"4b9cbd881d0aec00b38faf0534302e3fbb18a2069c8b4110410e7da5995f4aa6"
#define KAT_C1 \
	"56f201629ab511f544fa599cda7be2dc1a25bd43f207b775a09b402f1e25d8f3" \
	"800dbcfbf631370611bb94df5503374b3cd54a7d57cc81bfc76e1e27e3dd255f" \
	"e8943baec233b59e1c35bac8f082ec4fafbbe4fcb00223cab686d0317f788258" \
	"8f6d08cd2ea7c19c334593ac59102108a27b09b6ec2c22fe7960c01ad50c5bad" \
	"1316e33d5a7c1dc8ae178c55e09d57e6f6cfe8295304be22fb2256086b544916" \
	"04f056f7afcbb2d369404f363ba72efe1ec2882ecceb0ca6654d06987fdf49ac" \
	"c8b40da5b186178e366ff85e2989b6553c8d0971582ad9d2c605b4a7db486441" \
	"42d0c1ab986f526d67ccf9e57247d61f9b11fff958eef463c6ed034c607c74ea"
/* clang-format on */

static void known_ciphertexts_decrypt_to_the_known_numbers(void **state)
{
	static const char *const text[] = { KAT_C0, KAT_C1 };
	static const double want[] = { 123456789, -987654321 };
	struct paillier_private *k;
	struct cipher_vec *v;
	uint8_t wire[2 * 256] = { 0 };
	double got[2];
	mpz_t p, q, c;

	(void)state;
	mpz_inits(p, q, c, NULL);
	assert_int_equal(mpz_set_str(p, KAT_P, 16), 0);
	assert_int_equal(mpz_set_str(q, KAT_Q, 16), 0);
	k = paillier_from_primes(p, q);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(mpz_set_str(c, text[i], 16), 0);
		limbs_export(mpz_limbs_read(c), (mp_size_t)mpz_size(c),
			     wire + 256 * i, 256);
	}
	assert_int_equal(
	    cipher_vec_import(paillier_public(k), wire, 2, 20, 1, &v, NULL), 0);
	assert_int_equal(paillier_decrypt(k, v, got, 1, NULL), 0);
	assert_memory_equal(got, want, sizeof(got));
	cipher_vec_free(v);
	paillier_private_free(k);
	mpz_clears(p, q, c, NULL);
}

static void exact_encryption_decrypts_and_another_key_is_refused(void **state)
{
	struct paillier_private *other;
	struct cipher_vec *a;
	double got[N];

	(void)state;
	assert_int_equal(
	    paillier_encrypt_exact(peer, sample, N, SCALE, 2, &a, NULL), 0);
	check(a, sample, 1e-6);
	assert_int_equal(paillier_keygen(1024, &other, NULL), 0);
	assert_int_equal(paillier_decrypt(other, a, got, 2, NULL), -EINVAL);
	paillier_private_free(other);
	cipher_vec_free(a);
}

static void sums_products_and_order(void **state)
{
	static const uint32_t idx[] = { 3, 0, 3 };
	double twice[N], product[N], factor[N], some[3], both[N + 3];
	struct cipher_vec *a, *b, *g, *c;

	(void)state;
	assert_int_equal(paillier_encrypt(peer, sample, N, SCALE, 2, &a, NULL),
			 0);
	assert_int_equal(
	    paillier_encrypt_owner(key, sample, N, SCALE, 2, &b, NULL), 0);
	assert_int_equal(cipher_add(a, b, 2, NULL), 0);
	for (size_t i = 0; i < N; i++)
		twice[i] = 2 * sample[i];
	check(a, twice, 1e-6);
	assert_int_equal(cipher_add_plain(a, sample, 2, NULL), 0);
	for (size_t i = 0; i < N; i++) {
		twice[i] = 3 * sample[i];
		factor[i] = i % 2 ? -1.5 * (double)i : 0.125 * (double)i;
		product[i] = twice[i] * factor[i];
	}
	check(a, twice, 1e-6);
	g = cipher_gather(a, idx, 3);
	c = cipher_concat(a, g);
	for (size_t i = 0; i < 3; i++)
		some[i] = twice[idx[i]];
	memcpy(both, twice, sizeof(twice));
	memcpy(both + N, some, sizeof(some));
	check(g, some, 1e-6);
	check(c, both, 1e-6);
	assert_int_equal(cipher_mul_plain(a, factor, 23, 2, NULL), 0);
	assert_int_equal(cipher_vec_scale(a), SCALE + 23);
	check(a, product, 1e-3);
	assert_int_equal(cipher_rerandomise(a, 2, NULL), 0);
	check(a, product, 1e-3);
	assert_int_equal(cipher_add(a, b, 1, NULL), -EINVAL);
	cipher_vec_free(a);
	cipher_vec_free(b);
	cipher_vec_free(g);
	cipher_vec_free(c);
}

static void rerandomising_changes_every_ciphertext(void **state)
{
	struct cipher_vec *a;
	size_t w = cipher_width(pub);
	_cleanup_free_ uint8_t *old = xmalloc(N * w), *new = xmalloc(N * w);

	(void)state;
	assert_int_equal(paillier_encrypt(peer, sample, N, SCALE, 2, &a, NULL),
			 0);
	cipher_vec_export(a, old, 2);
	assert_int_equal(cipher_rerandomise(a, 2, NULL), 0);
	cipher_vec_export(a, new, 2);
	for (size_t i = 0; i < N; i++)
		assert_memory_not_equal(old + i * w, new + i *w, w);
	cipher_vec_free(a);
}

static void matvec_of(size_t rows, size_t cols, unsigned xscale,
		      unsigned threads, double size)
{
	_cleanup_free_ double *x = xcalloc(rows * cols + 1, sizeof(double));
	_cleanup_free_ double *d = xcalloc(rows + 1, sizeof(double));
	_cleanup_free_ double *want = xcalloc(cols + 1, sizeof(double));
	struct cipher_vec *v, *r;

	for (size_t i = 0; i < rows; i++) {
		d[i] = rint(ldexp(drand48() - 0.5, 20)) / 1024;
		for (size_t j = 0; j < cols; j++) {
			double s = (drand48() - 0.5) * size;

			s = j == 0 ? 1
				   : ldexp(rint(ldexp(s, (int)xscale)),
					   -(int)xscale);
			x[i * cols + j] = s;
			want[j] += s * d[i];
		}
	}
	assert_int_equal(
	    paillier_encrypt_owner(key, d, rows, SCALE, 2, &v, NULL), 0);
	assert_int_equal(
	    cipher_matvec(v, x, rows, cols, xscale, threads, &r, NULL), 0);
	assert_int_equal(cipher_vec_scale(r), SCALE + xscale);
	check(r, want, 1e-7 * MAX(1.0, size));
	cipher_vec_free(v);
	cipher_vec_free(r);
}

/* Lengths that fill no block or group, and all columns of a group. */
static void vectors_and_matrices_of_every_shape(void **state)
{
	(void)state;
	for (size_t n = 1; n < 20; n += 3)
		matvec_of(n, n, 23, 1 + (unsigned)n % 3, 4);
	matvec_of(70, 131, 12, 2, 2);
}

static void matvec_agrees_with_doubles(void **state)
{
	(void)state;
	matvec_of(0, 3, 23, 2, 4);
	matvec_of(1, 1, 23, 2, 4);
	matvec_of(7, 5, 0, 1, 4);
	matvec_of(100, 3, 23, 2, 8);
	matvec_of(50, 1, 23, 4, 8);
	matvec_of(30, 2, 1, 2, 2);
	matvec_of(40, 2, 50, 2, 1024);
	matvec_of(2500, 2, 10, 3, 2); /* more than a block */
}

static void overflow_is_refused(void **state)
{
	static const double bad[] = { INFINITY, NAN, 1e300 };
	double one = 1, seven_tenths = 0.7, huge = ldexp(1, 700), out;
	struct cipher_vec *v, *r;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(
		    paillier_encrypt(peer, bad + i, 1, SCALE, 1, &v, NULL),
		    -ERANGE);
	/* 2^(700 + 300) is below n / 3. The primes' two top bits are set: n is
	 * 1.125 to 2 times 2^1023, and 0.7 of that always in the middle. */
	assert_int_equal(paillier_encrypt(peer, &huge, 1, 300, 1, &v, NULL), 0);
	check(v, &huge, 0);
	assert_int_equal(cipher_mul_plain(v, &seven_tenths, 23, 1, NULL), 0);
	assert_int_equal(paillier_decrypt(key, v, &out, 1, NULL), -ERANGE);
	huge = ldexp(1, 62);
	assert_int_equal(cipher_add_plain(v, bad, 1, NULL), -ERANGE);
	cipher_vec_free(v);
	assert_int_equal(paillier_encrypt(peer, &one, 1, SCALE, 1, &v, NULL),
			 0);
	assert_int_equal(cipher_matvec(v, &huge, 1, 1, 0, 1, &r, NULL),
			 -ERANGE);
	assert_int_equal(cipher_matvec(v, bad + 1, 1, 1, 0, 1, &r, NULL),
			 -ERANGE);
	assert_int_equal(cipher_matvec(v, &huge, 2, 1, 0, 1, &r, NULL),
			 -EINVAL);
	cipher_vec_free(v);
}

static void import_of(const mpz_t c, int want)
{
	size_t w = cipher_width(pub), n = 100;
	_cleanup_free_ uint8_t *wire = xcalloc(n, w);
	struct cipher_vec *v = NULL;

	for (size_t at = 0; at < n; at += 33) {
		memset(wire, 0, n * w);
		for (size_t i = 0; i < n; i++)
			wire[i * w + w - 1] = 1;
		limbs_export(mpz_limbs_read(c), (mp_size_t)mpz_size(c),
			     wire + at * w, w);
		assert_int_equal(
		    cipher_vec_import(peer, wire, n, SCALE, 2, &v, NULL), want);
		if (want == 0)
			cipher_vec_free(v);
	}
}

static void import_refuses_what_is_no_ciphertext(void **state)
{
	mpz_t c;

	(void)state;
	mpz_init_set_ui(c, 0);
	import_of(c, -EPROTO);
	import_of(pub->n2->m, -EPROTO);
	import_of(key->p.p, -EPROTO);
	mpz_mul_ui(c, key->q.p2->m, 7);
	import_of(c, -EPROTO);
	import_of(pub->n, -EPROTO);
	mpz_add_ui(c, pub->n2->m, 1);
	import_of(c, -EPROTO);
	mpz_sub_ui(c, pub->n2->m, 1);
	import_of(c, 0);
	mpz_clear(c);
}

static void export_and_import_keep_the_bytes(void **state)
{
	size_t w = cipher_width(pub);
	_cleanup_free_ uint8_t *one = xcalloc(N, w), *two = xcalloc(N, w);
	struct cipher_vec *a, *b;

	(void)state;
	assert_int_equal(w, 256);
	assert_int_equal(paillier_encrypt(peer, sample, N, SCALE, 2, &a, NULL),
			 0);
	cipher_vec_export(a, one, 2);
	assert_int_equal(cipher_vec_import(pub, one, N, SCALE, 2, &b, NULL), 0);
	cipher_vec_export(b, two, 1);
	assert_memory_equal(one, two, N * w);
	check(b, sample, 1e-6);
	cipher_vec_free(a);
	cipher_vec_free(b);
}

static void bad_public_keys_are_refused(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(4096);
	struct paillier_public *k = NULL;
	uint8_t ones[256];
	char *b;

	(void)state;
	memset(ones, 0xff, sizeof(ones));
	assert_int_equal(paillier_public_write(pub, &sb), 0);
	b = sb.buf;
	for (size_t n = 0; n < sb.len; n++)
		assert_int_equal(paillier_public_read(b, n, &k, NULL), -EPROTO);
	b[4 + 127] ^= 1; /* n becomes even */
	assert_int_equal(paillier_public_read(b, sb.len, &k, NULL), -EPROTO);
	b[4 + 127] ^= 1;
	/* Base >= n^2; the key's own may be of fewer bytes. */
	sb.len = 4 + 128;
	assert_int_equal(sb_add_u32(&sb, sizeof(ones)), 0);
	assert_int_equal(sb_add(&sb, ones, sizeof(ones)), 0);
	b = sb.buf;
	assert_int_equal(paillier_public_read(b, sb.len, &k, NULL), -EPROTO);
	b[0] = 0;
	assert_int_equal(paillier_public_read(b, sb.len, &k, NULL), -EPROTO);
}

static void keys_are_as_asked(void **state)
{
	struct paillier_private *k = NULL;

	(void)state;
	assert_int_equal(paillier_bits(pub), 1024);
	assert_int_equal(mpz_fdiv_ui(key->p.p, 4), 3);
	assert_int_equal(mpz_fdiv_ui(key->q.p, 4), 3);
	assert_true(mpz_cmp(key->p.p, key->q.p) != 0);
	assert_int_equal(paillier_keygen(100, &k, NULL), -EINVAL);
	assert_int_equal(paillier_keygen(1023, &k, NULL), -EINVAL);
	assert_int_equal(paillier_keygen(9000, &k, NULL), -EINVAL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(
		    public_and_owner_encryption_decrypt_to_the_value),
		cmocka_unit_test(textbook_decryption_gives_the_same_integer),
		cmocka_unit_test(textbook_ciphertext_is_decrypted),
		cmocka_unit_test(
		    known_ciphertexts_decrypt_to_the_known_numbers),
		cmocka_unit_test(
		    exact_encryption_decrypts_and_another_key_is_refused),
		cmocka_unit_test(vectors_and_matrices_of_every_shape),
		cmocka_unit_test(sums_products_and_order),
		cmocka_unit_test(rerandomising_changes_every_ciphertext),
		cmocka_unit_test(matvec_agrees_with_doubles),
		cmocka_unit_test(overflow_is_refused),
		cmocka_unit_test(import_refuses_what_is_no_ciphertext),
		cmocka_unit_test(export_and_import_keep_the_bytes),
		cmocka_unit_test(bad_public_keys_are_refused),
		cmocka_unit_test(keys_are_as_asked),
	};

	return cmocka_run_group_tests_name("as the processor can", tests,
					   set_up, tear_down) +
	       cmocka_run_group_tests_name("portable", tests, set_up_portable,
					   tear_down);
}
