// SPDX-License-Identifier: Apache-2.0
/* Okamoto-Uchiyama against tests/data/make_ou_vectors.py and against the
 * scheme as it is published, computed with mpz alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/cipher_key.h"

#define SCALE 40
#define BITS  1024
#define LIMIT 212 /* 1024 / 3 - 129 */

static const char *const key_numbers[] = {
	"1d975f3c8ba65ab53259b2c0a7057cfecabab3f5791c5fb07c8642dcda49c611"
	"ad4d1dfdbf5cda8d0d03b5",
	"39c67acf702f16e0e39cee6de25f4f34934760f8739bb1f3babe183142afc036"
	"03cc664979db60dc6f274d",
	"857c14a2b1f578131dee0488aea23e58d19809e2878fd63f0d1442b100d68feb"
	"1db0cbf26c0ac9ac257089d752e0ab2baa991b502094f61c7f2bf65ae4def745"
	"a485aa48134a2b7b729edc75610abdfcc744101b3ad81cc3a6881cdbcffecbe5"
	"713be4fe36e313f91cf58db5341b866cbae354fbc6c498bccdbbc742be00426d",
};
static const char *const ciphertexts[] = {
	"69ad2de98fecc6563e3eec5b8ece58fbe1c547b42b70088322a4d744256e6e11"
	"568b08e4c13910222a32bed977a93e05f46c24e06f0d397b998063b51ce7d88f"
	"e7060201860bc6124413ee5f03ffd6933e3ec1c45018169210ae9557f58e545e"
	"3808732a73dac4b4e2440f1426414ea3fb83f6b77c42dcaf3afb9ae8ff441e59",
	"71abb853684777a3a62baa421ec44dce08386d12d6a8faef3f87f5b9c08e19ed"
	"ad58c3475145371012804630d547de2172432e1e702849bb6843150078f005d9"
	"8c55d97af845b34d8b278eec7008a89b14c3146697b13e944d45691e6f0a1b33"
	"922d17432dc1a9a7f187887555f1d0746115064485d2848ce606a4f1d87397ce",
	"97ba0ef1df9f5f632ef1d4192a7e89f63cb7a40b4dfc142562733edafc0c9b86"
	"f08ffa6f8443e39c148e01b199322e792409b1c75313cafa221c78e781cd74e9"
	"e6b113891785cfac37a0d949531602ae063e606438683db9bd102b38cf3a093f"
	"501702f0fc8f2fda23c6fa02f30aa94d4d3bc941c2e0e848c9e3e494e7afb83f",
	"6e6d7a81270d3c8215e46570c62432d7084244c0c9c008d416b6370e85106323"
	"3c42e2569f97857e897641b672fd1a544a52c92d173f00517a21f43a73348402"
	"7e70e0d506048544f826ba201a1100cfde35d0a29f4f61d500ca6c6b5e9491fe"
	"576c78ebd426f5fff728bd9f55de0c2b67bc0a3479c4d036586da73cd7f79c60",
};
static const char *const plus[] = {
	"379f75e0ac3e825205fdcfbcc3fd6f42c029fc1f72caaaea829f6256ef408b5f"
	"10b4d8af4aa09715fece66e0fce3e5b2ba6d3db0503f71d42e98001fe817a797"
	"e1e1304a1a19d93745afedad0e904e270a1b9bce111f116c10aa4760f67eacf1"
	"3c616144f0ab5d08fd9346a4838d386b62cb9a8caf78be853fc0e77cf45b766f",
	"c43442351baebccd8f491c7f4e96713cd3dd918a07b01d1682ca994a42101606"
	"27e996706b02216d28e3fedddcfd9712a38e2870df9a25cea0d41b5e009f8a79"
	"6c83ed5cd4de6c3359d3f3e0b184e449bfe8b22671b45ebaaa7cdc7feca75272"
	"ed5e403c8a3a46758bdb9cab4044564ae3be792c702efaabcf53823653a93ac6",
	"ba58896ed91628fb73aeebbcaa5d13edd77356d18e2f4bc93834422615a09951"
	"e80336beb38fb83e27bba695ee6e1e49e8dd1b0c9a023d2d81cdf6351729886c"
	"03dc15875cedad02a073f0715439f6f5f4b69a9778bbb7859cc2b3c1d1a1e3b9"
	"3705221011f8958faf990f5d31725c347b079f254dd8d5e231c8423978b72d9c",
	"b0eda303d618e80333b4703430e4e636e8c227f0fb9cc6c97889a085e9f3c7dc"
	"8700dfcbb6d8e6679f6a87330fce810caf695e49afa7ecc6e5cac90b531ddd6f"
	"72d763e1fce567b4ee9ae500ffd1612de6c24074791de6e440736d8dd6c09a17"
	"d6dcf40b89c6472c9bf89e0600d6fcb7058c6cfc62129d6ab2b63858ccbb6899",
};
static const char *const times[] = {
	"258188927e4c8ccf8ffaead481f5d49f6c67d2cd20707ab7f209d90f0a242442"
	"81f5d11ba027d11f99b7537472fb9f76ac24281a63584b297f59f4cd41fee642"
	"78d6b1a0fb65c3118b36a9ab2fc57005a6b3040e454a517c5840eca1a94e6f22"
	"ca40a00f7a06ca231b1c2ff753e6cd7d8b559557e26702e4a88ded1f063230f1",
	"9340d1c3833b8e574e7beb861fa297096e8a7f369629ba3a249251390e7746f7"
	"6c93ede4a571017cabc7fe7d18b1b2cab95a6691da60c02d91a00ac4da6fbd2b"
	"eaab128a2c7e8e84c5984da86476533f5c981277152a7687682dfe92e28f32ca"
	"b5832751db0753eca57eeaab9d2d811e1c168fc4a1816e798e47b89dec02b93e",
	"97ba0ef1df9f5f632ef1d4192a7e89f63cb7a40b4dfc142562733edafc0c9b86"
	"f08ffa6f8443e39c148e01b199322e792409b1c75313cafa221c78e781cd74e9"
	"e6b113891785cfac37a0d949531602ae063e606438683db9bd102b38cf3a093f"
	"501702f0fc8f2fda23c6fa02f30aa94d4d3bc941c2e0e848c9e3e494e7afb83f",
	"a762a54875617dc710225a028d9aa7f212c19a91571ab4afa29b47de181b0bef"
	"968dbc4a51171cf2ec70a315a80f23ff09a1951012292b944b4086b4bafdd09f"
	"2d9c6657fd9e042a9db6bcd5177bb21447e074ab80b1a12f41b891963375746c"
	"301dae82a607e49e5568ec90c1b64cb39324cb1c4e2cc8da2529a052cf7beb20",
};
static const char *const dot[] = {
	"96293f43ef505e15ce0efe64b804ad71163432fdb2882f9a9275e3b995afce66"
	"5c5b9ace33200ee1bb528c840f19fc950cd4225b233b4ebd56d1b7aa56f3fbfb"
	"39b386260be2416eee7f4629fcc195ffa8305ee54941c1e5d5277d234cd4b11b"
	"e0dcdeb21f42ef64d038194cfb850a64dac00fe9b8277c9269cdf2cbc0d168a1",
};

static struct paillier_private *known;

static int make_key(struct paillier_private **ret)
{
	mpz_t v[3];

	for (int i = 0; i < 3; i++)
		mpz_init_set_str(v[i], key_numbers[i], 16);
	known = ou_from_primes(v[0], v[1], v[2]);
	for (int i = 0; i < 3; i++)
		mpz_clear(v[i]);
	return known ? ou_keygen(BITS, ret, NULL) : -1;
}

static int tear_down_both(void **state)
{
	paillier_private_free(known);
	return tear_down(state);
}

static struct cipher_vec *take(const struct paillier_public *k,
			       const char *const *hex, size_t n)
{
	size_t w = cipher_width(k);
	_cleanup_free_ uint8_t *wire = xcalloc(n, w);
	struct cipher_vec *v;
	mpz_t c;

	mpz_init(c);
	for (size_t i = 0; i < n; i++) {
		mpz_set_str(c, hex[i], 16);
		limbs_export(mpz_limbs_read(c), (mp_size_t)mpz_size(c),
			     wire + i * w, w);
	}
	mpz_clear(c);
	assert_int_equal(cipher_vec_import(k, wire, n, 0, 1, &v, NULL), 0);
	return v;
}

static void get(mpz_t ret, const struct cipher_vec *v, size_t i)
{
	size_t w = cipher_width(v->key), n = cipher_vec_len(v);
	_cleanup_free_ uint8_t *wire = xcalloc(n, w);

	cipher_vec_export(v, wire, 1);
	mpz_import(ret, w, 1, 1, 0, 0, wire + i * w);
}

static void expect(const struct cipher_vec *v, const char *const *hex)
{
	mpz_t c, want;

	mpz_inits(c, want, NULL);
	for (size_t i = 0; i < cipher_vec_len(v); i++) {
		get(c, v, i);
		mpz_set_str(want, hex[i], 16);
		assert_int_equal(mpz_cmp(c, want), 0);
	}
	mpz_clears(c, want, NULL);
}

/* Also that both paths give the same bits. */
static void known_ciphertexts_and_what_is_computed_on_them(void **state)
{
	const struct paillier_public *k = paillier_public(known);
	const double most = ldexp(1, LIMIT), edge = nextafter(most, 0);
	const double plain[] = { 5, -3, most, -most };
	const double factor[] = { -3, 0x1p40 + 1, 1, -1 };
	const double weight[] = { -9, 0x1p52 - 1, 1, 1 };
	struct cipher_vec *a = take(k, ciphertexts, 4), *r;
	double got[4];
	mpz_t c, m;

	(void)state;
	assert_int_equal(cipher_width(k), BITS / 8);
	/* most - 1 rounds to most. */
	assert_int_equal(paillier_decrypt(known, a, got, 1, NULL), 0);
	assert_memory_equal(got, plain, sizeof(plain));
	assert_int_equal(cipher_matvec(a, weight, 4, 1, 0, 2, &r, NULL), 0);
	expect(r, dot);
	assert_int_equal(paillier_decrypt(known, r, got, 1, NULL), 0);
	assert_true(got[0] == -3 * 0x1p52 - 42);
	cipher_vec_free(r);
	assert_int_equal(cipher_mul_plain(a, factor, 0, 1, NULL), 0);
	expect(a, times);
	assert_int_equal(paillier_decrypt(known, a, got, 1, NULL), 0);
	assert_true(got[0] == -15 && got[1] == -3 * (0x1p40 + 1));
	assert_true(got[2] == most && got[3] == most);
	cipher_vec_free(a);

	/* Doubles cannot say most - 1: integers as the encoding makes them. */
	a = take(k, ciphertexts, 4);
	mpz_inits(c, m, NULL);
	for (size_t i = 0; i < 4; i++) {
		uint64_t limbs[BITS / 64];

		mpz_set_si(m, i == 0 ? -7 : 0);
		if (i == 1)
			mpz_setbit(m, 90);
		if (i >= 2)
			mpz_sub_ui(m, k->limit, 1);
		if (i == 2)
			mpz_neg(m, m);
		paillier_limbs(k, limbs, m);
		paillier_add_plain(k, cipher_at(a, i), limbs, 1);
	}
	expect(a, plus);
	assert_int_equal(paillier_decrypt(known, a, got, 1, NULL), 0);
	assert_true(got[0] == -2 && got[1] == 0x1p90 - 3);
	assert_true(got[2] == 0 && got[3] == 0);
	mpz_clears(c, m, NULL);
	assert_int_equal(
	    cipher_add_plain(a, (double[]){ edge, -edge, 1, -1 }, 1, NULL), 0);
	assert_int_equal(
	    cipher_add_plain(a, (double[]){ most, 0, 0, 0 }, 1, NULL), -ERANGE);
	cipher_vec_free(a);
}

/* L(c^(p-1)) / L(g^(p-1)) mod p, in (-p/2, p/2). */
static void textbook(mpz_t m, const struct paillier_private *k, const mpz_t c)
{
	mpz_t d, p2;

	mpz_inits(d, p2, NULL);
	mpz_mul(p2, k->p.p, k->p.p);
	mpz_powm(m, c, k->p.pm1, p2);
	mpz_powm(d, k->pub.g, k->p.pm1, p2);
	mpz_sub_ui(m, m, 1);
	mpz_sub_ui(d, d, 1);
	mpz_divexact(m, m, k->p.p);
	mpz_divexact(d, d, k->p.p);
	assert_true(mpz_invert(d, d, k->p.p));
	mpz_mul(m, m, d);
	mpz_mod(m, m, k->p.p);
	mpz_tdiv_q_2exp(p2, k->p.p, 1);
	if (mpz_cmp(m, p2) > 0)
		mpz_sub(m, m, k->p.p);
	mpz_clears(d, p2, NULL);
}

static void textbook_decryption_gives_the_same_integer(void **state)
{
	struct cipher_vec *v[3];
	mpz_t c, m, want;

	(void)state;
	mpz_inits(c, m, want, NULL);
	assert_int_equal(
	    paillier_encrypt(peer, sample, N, SCALE, 2, &v[0], NULL), 0);
	assert_int_equal(
	    paillier_encrypt_owner(key, sample, N, SCALE, 1, &v[1], NULL), 0);
	assert_int_equal(
	    paillier_encrypt_exact(peer, sample, N, SCALE, 1, &v[2], NULL), 0);
	for (size_t k = 0; k < 3; k++) {
		for (size_t i = 0; i < N; i++) {
			get(c, v[k], i);
			textbook(m, key, c);
			mpz_set_d(want, rint(ldexp(sample[i], SCALE)));
			assert_int_equal(mpz_cmp(m, want), 0);
		}
		check(v[k], sample, ldexp(0.5, -SCALE) + 1e-7);
		cipher_vec_free(v[k]);
	}
	mpz_clears(c, m, want, NULL);
}

/* The randomiser must use its table as it is meant: of g^n, all digits. */
static void randomiser_is_the_power_of_its_base(void **state)
{
	enum { COUNT = 19 };
	const struct ring *g = peer->n2;
	size_t limbs = (peer->alpha + 63) / 64, nl = (size_t)g->limbs;
	_cleanup_free_ uint64_t *e = ring_alloc(COUNT * limbs);
	_cleanup_free_ uint64_t *r = ring_alloc(COUNT * g->k);
	_cleanup_free_ uint64_t *out = ring_alloc(COUNT * nl);
	mpz_t want, x, in;

	(void)state;
	assert_int_equal(peer->alpha, BITS - BITS / 3 + 64);
	mpz_inits(want, x, NULL);
	mpz_powm(want, pub->g, pub->n, pub->n);
	assert_int_equal(mpz_cmp(want, peer->hs), 0);
	crypto_random(e, COUNT * limbs * sizeof(*e));
	for (size_t i = 0; i < COUNT; i++)
		e[(i + 1) * limbs - 1] &= (UINT64_C(1) << peer->alpha % 64) - 1;
	memset(e, 0, limbs * sizeof(*e));
	paillier_table(peer, &peer->fb, g, peer->hs, 2);
	fixed_base_pow(&peer->fb, g, r, g->one, e, limbs, NULL, COUNT);
	ring_leave(g, out, r, COUNT);
	for (size_t i = 0; i < COUNT; i++) {
		mpz_powm(want, peer->hs,
			 mpz_roinit_n(in, e + i * limbs, (mp_size_t)limbs),
			 peer->n);
		mpz_set(x, mpz_roinit_n(in, out + i * nl, (mp_size_t)nl));
		assert_int_equal(mpz_cmp(x, want), 0);
	}
	mpz_clears(want, x, NULL);
}

static void sums_products_and_order(void **state)
{
	static const uint32_t idx[] = { 3, 0, 3 };
	double twice[N], product[N], factor[N], some[3], both[N + 3];
	struct cipher_vec *a, *b, *g, *c;
	mpz_t old, new;

	(void)state;
	mpz_inits(old, new, NULL);
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
	get(old, a, 1);
	assert_int_equal(cipher_rerandomise(a, 2, NULL), 0);
	get(new, a, 1);
	assert_true(mpz_cmp(old, new) != 0);
	mpz_clears(old, new, NULL);
	check(a, product, 1e-3);
	cipher_vec_free(a);
	cipher_vec_free(b);
	cipher_vec_free(g);
	cipher_vec_free(c);
}

static void matvec_of(size_t rows, size_t cols, unsigned xscale,
		      unsigned threads)
{
	_cleanup_free_ double *x = xcalloc(rows * cols, sizeof(double));
	_cleanup_free_ double *d = xcalloc(rows, sizeof(double));
	_cleanup_free_ double *want = xcalloc(cols, sizeof(double));
	struct cipher_vec *v, *r;

	for (size_t i = 0; i < rows; i++) {
		d[i] = rint(ldexp(drand48() - 0.5, 20)) / 1024;
		for (size_t j = 0; j < cols; j++) {
			double s = rint(ldexp(drand48() - 0.5, (int)xscale));

			x[i * cols + j] = ldexp(s, -(int)xscale);
			want[j] += x[i * cols + j] * d[i];
		}
	}
	assert_int_equal(paillier_encrypt(peer, d, rows, SCALE, 2, &v, NULL),
			 0);
	assert_int_equal(
	    cipher_matvec(v, x, rows, cols, xscale, threads, &r, NULL), 0);
	check(r, want, 1e-7);
	cipher_vec_free(v);
	cipher_vec_free(r);
}

static void matvec_agrees_with_doubles(void **state)
{
	(void)state;
	matvec_of(1, 1, 23, 2);
	matvec_of(7, 5, 1, 1);
	matvec_of(100, 3, 23, 2);
	matvec_of(40, 11, 52, 2);
}

/* Full of the largest and smallest: next to the bound from both sides. */
static void packed_numbers_fill_the_range(void **state)
{
	const struct packing p = { 30, paillier_pack_most(pub, 30) };
	const double most = 0x1p29 - 1;
	const struct paillier_private *owner[] = { NULL, key };
	double v[2][7], out[7];

	(void)state;
	assert_int_equal(p.per, (LIMIT + 1) / 30);
	for (size_t i = 0; i < 7; i++) {
		v[0][i] = most;
		v[1][i] = -most;
	}
	for (size_t i = 0; i < 2; i++) {
		struct cipher_vec *c, *one, *few;

		assert_int_equal(paillier_encrypt_packed(peer, owner[i], v[i],
							 7, 0, &p, 1, &c, NULL),
				 0);
		assert_int_equal(
		    paillier_decrypt_packed(key, c, &p, out, 7, 1, NULL), 0);
		assert_memory_equal(out, v[i], sizeof(out));
		assert_int_equal(
		    paillier_encrypt(peer, v[i], 7, 0, 1, &one, NULL), 0);
		assert_int_equal(cipher_pack(one, &p, 1, &few, NULL), 0);
		assert_int_equal(
		    paillier_decrypt_packed(key, few, &p, out, 7, 1, NULL), 0);
		assert_memory_equal(out, v[i], sizeof(out));
		cipher_vec_free(c);
		cipher_vec_free(one);
		cipher_vec_free(few);
	}
}

static void numbers_at_and_beyond_the_bound(void **state)
{
	const double edge = nextafter(ldexp(1, LIMIT), 0);
	const double fits[] = { edge, -edge, 1, -1 };
	const double bad[] = { ldexp(1, LIMIT), -ldexp(1, LIMIT), NAN,
			       -INFINITY };
	struct cipher_vec *a, *b;
	double got[4];

	(void)state;
	assert_int_equal(paillier_encrypt(peer, fits, 4, 0, 1, &a, NULL), 0);
	check(a, fits, 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(
		    paillier_encrypt(peer, bad + i, 1, 0, 1, &b, NULL),
		    -ERANGE);
	/* Sums and products, of either sign, that leave the range. */
	for (size_t i = 0; i < 2; i++) {
		const uint32_t at[] = { (uint32_t)i };

		b = cipher_gather(a, at, 1);
		assert_int_equal(cipher_add(b, b, 1, NULL), 0);
		assert_int_equal(paillier_decrypt(key, b, got, 1, NULL),
				 -ERANGE);
		assert_int_equal(cipher_add_plain(b, fits + 1 - i, 1, NULL), 0);
		check(b, fits + i, 0);
		assert_int_equal(cipher_mul_plain(b, fits, 0, 1, NULL), 0);
		assert_int_equal(paillier_decrypt(key, b, got, 1, NULL),
				 -ERANGE);
		cipher_vec_free(b);
	}
	cipher_vec_free(a);
}

/* c = g^m r^n for a peer that keeps to nothing. */
static struct cipher_vec *forge(const mpz_t m)
{
	size_t w = cipher_width(pub);
	_cleanup_free_ uint8_t *wire = xcalloc(1, w);
	struct cipher_vec *v;
	mpz_t c, r;

	mpz_inits(c, r, NULL);
	crypto_random_below(r, pub->n);
	mpz_powm(r, r, pub->n, pub->n);
	mpz_powm(c, pub->g, m, pub->n);
	mpz_mul(c, c, r);
	mpz_mod(c, c, pub->n);
	limbs_export(mpz_limbs_read(c), (mp_size_t)mpz_size(c), wire, w);
	assert_int_equal(cipher_vec_import(pub, wire, 1, 0, 1, &v, NULL), 0);
	mpz_clears(c, r, NULL);
	return v;
}

static void chosen_ciphertext_attack_is_refused(void **state)
{
	double got = 1;
	struct err e = { 0 };

	(void)state;
	for (int i = 0; i < 20; i++) {
		struct cipher_vec *v;
		mpz_t m, answer, f;

		mpz_inits(m, answer, f, NULL);
		crypto_random_bits(m, BITS / 2);
		mpz_setbit(m, BITS / 2 - 1);
		v = forge(m);
		assert_int_equal(paillier_decrypt(key, v, &got, 1, &e),
				 -ERANGE);
		assert_true(got == 0);
		assert_non_null(strstr(e.text, "overflow"));
		/* What would be told without the check factors n. */
		get(f, v, 0);
		textbook(answer, key, f);
		mpz_sub(f, m, answer);
		mpz_gcd(f, f, pub->n);
		assert_true(mpz_cmp(f, key->p.p) == 0 ||
			    mpz_cmp(f, key->p.p2->m) == 0);
		mpz_clears(m, answer, f, NULL);
		cipher_vec_free(v);
	}
}

static void forged_numbers_next_to_p_and_to_the_bound(void **state)
{
	static const struct {
		int times; /* of p */
		bool limit;
		int more, want;
	} cases[] = {
		{ 0, true, -1, 0 },
		{ 0, true, 0, -ERANGE },
		{ 0, true, 1, -ERANGE },
		/* Only who knows p gets here. */
		{ 1, false, 0, 0 },
		{ 1, true, -1, 0 },
		{ 3, true, 0, -ERANGE },
	};
	double got;
	mpz_t m;

	(void)state;
	mpz_init(m);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct cipher_vec *v;

		mpz_mul_si(m, key->p.p, cases[i].times);
		if (cases[i].limit)
			mpz_add(m, m, pub->limit);
		if (cases[i].more < 0)
			mpz_sub_ui(m, m, 1);
		else
			mpz_add_ui(m, m, (unsigned)cases[i].more);
		v = forge(m);
		assert_int_equal(paillier_decrypt(key, v, &got, 1, NULL),
				 cases[i].want);
		cipher_vec_free(v);
	}
	mpz_clear(m);
}

static void import_of(const mpz_t c, int want)
{
	size_t w = cipher_width(pub), n = 20;
	_cleanup_free_ uint8_t *wire = xcalloc(n, w);
	struct cipher_vec *v = NULL;

	for (size_t i = 0; i < n; i++)
		wire[i * w + w - 1] = 1;
	memset(wire + 11 * w, 0, w);
	limbs_export(mpz_limbs_read(c), (mp_size_t)mpz_size(c), wire + 11 * w,
		     w);
	assert_int_equal(cipher_vec_import(peer, wire, n, SCALE, 2, &v, NULL),
			 want);
	if (want == 0)
		cipher_vec_free(v);
}

static void import_refuses_what_is_no_ciphertext(void **state)
{
	mpz_t c;

	(void)state;
	mpz_init_set_ui(c, 0);
	import_of(c, -EPROTO);
	import_of(pub->n, -EPROTO);
	import_of(key->p.p, -EPROTO);
	import_of(key->p.p2->m, -EPROTO);
	mpz_mul_ui(c, key->q.p, 7);
	import_of(c, -EPROTO);
	mpz_add_ui(c, pub->n, 1);
	import_of(c, -EPROTO);
	mpz_sub_ui(c, pub->n, 1);
	import_of(c, 0);
	mpz_clear(c);
}

static void another_key_does_not_decrypt(void **state)
{
	double one = 1, got = 1;
	struct cipher_vec *a, *b;

	(void)state;
	assert_int_equal(paillier_encrypt(peer, &one, 1, SCALE, 1, &a, NULL),
			 0);
	assert_int_equal(paillier_decrypt(known, a, &got, 1, NULL), -EINVAL);
	assert_int_equal(paillier_encrypt(paillier_public(known), &one, 1,
					  SCALE, 1, &b, NULL),
			 0);
	assert_int_equal(cipher_add(a, b, 1, NULL), -EINVAL);
	cipher_vec_free(b);
	/* The bytes under the other key: whatever number, not accepted. */
	b = take(pub, ciphertexts, 1);
	assert_int_equal(paillier_decrypt(key, b, &got, 1, NULL), -ERANGE);
	cipher_vec_free(a);
	cipher_vec_free(b);
}

static void keys_are_as_asked(void **state)
{
	static const unsigned bits[] = { 1024, 1025, 1400 };
	struct paillier_private *k = NULL;
	mpz_t t;

	(void)state;
	mpz_init(t);
	for (size_t i = 0; i < ARRAY_SIZE(bits); i++) {
		assert_int_equal(ou_keygen(bits[i], &k, NULL), 0);
		assert_int_equal(paillier_scheme(&k->pub), SCHEME_OU);
		assert_int_equal(paillier_bits(&k->pub), bits[i]);
		assert_int_equal(mpz_sizeinbase(k->p.p, 2), bits[i] / 3);
		assert_int_equal(mpz_sizeinbase(k->q.p, 2),
				 bits[i] - 2 * (bits[i] / 3));
		mpz_mul(t, k->p.p, k->p.p);
		mpz_mul(t, t, k->q.p);
		assert_int_equal(mpz_cmp(t, k->pub.n), 0);
		assert_true(mpz_probab_prime_p(k->p.p, 30));
		assert_true(mpz_probab_prime_p(k->q.p, 30));
		mpz_set_ui(t, 0);
		mpz_setbit(t, bits[i] / 3 - 129);
		assert_int_equal(mpz_cmp(t, k->pub.limit), 0);
		paillier_private_free(k);
	}
	mpz_clear(t);
	assert_int_equal(ou_keygen(1023, &k, NULL), -EINVAL);
	assert_int_equal(ou_keygen(8193, &k, NULL), -EINVAL);
}

/* The wire form of a key with these numbers. */
static int read_key(uint32_t scheme, const mpz_t n, const mpz_t g,
		    struct err *e)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(4096);
	mpz_srcptr v[] = { n, g };
	struct paillier_public *k = NULL;
	int r;

	(void)sb_add_u32(&sb, 0);
	(void)sb_add_u32(&sb, scheme);
	for (int i = 0; i < 2; i++) {
		uint8_t buf[1024];
		size_t len = 0;

		mpz_export(buf, &len, 1, 1, 0, 0, v[i]);
		(void)sb_add_u32(&sb, (uint32_t)len);
		(void)sb_add(&sb, buf, len);
	}
	assert_int_equal(sb.error, 0);
	r = paillier_public_read(sb.buf, sb.len, &k, e);
	if (r == 0)
		paillier_public_free(k);
	return r;
}

static void bad_public_keys_are_refused(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(4096);
	struct paillier_public *k = NULL;
	struct err e = { 0 };
	mpz_t t, s;

	(void)state;
	assert_int_equal(paillier_public_write(pub, &sb), 0);
	for (size_t n = 0; n < sb.len; n++)
		assert_int_equal(paillier_public_read(sb.buf, n, &k, NULL),
				 -EPROTO);
	assert_int_equal(read_key(SCHEME_OU, pub->n, pub->g, &e), 0);
	assert_int_equal(read_key(0, pub->n, pub->g, &e), -EPROTO);
	assert_int_equal(read_key(2, pub->n, pub->g, &e), -EPROTO);
	assert_string_equal(e.text, "public key: of an unknown scheme");

	mpz_inits(t, s, NULL);
	mpz_set_ui(t, 1);
	assert_int_equal(read_key(SCHEME_OU, pub->n, t, &e), -EPROTO);
	mpz_sub_ui(t, pub->n, 1); /* of order 2 */
	assert_int_equal(read_key(SCHEME_OU, pub->n, t, &e), -EPROTO);
	mpz_mul_ui(t, key->p.p, 2);
	assert_int_equal(read_key(SCHEME_OU, pub->n, t, &e), -EPROTO);
	mpz_mul_ui(t, key->q.p, 2);
	assert_int_equal(read_key(SCHEME_OU, pub->n, t, &e), -EPROTO);
	assert_int_equal(read_key(SCHEME_OU, pub->n, pub->n, &e), -EPROTO);
	mpz_add_ui(t, pub->n, 2);
	assert_int_equal(read_key(SCHEME_OU, pub->n, t, &e), -EPROTO);

	mpz_set_ui(s, 2);
	mpz_add_ui(t, pub->n, 1); /* even */
	assert_int_equal(read_key(SCHEME_OU, t, s, &e), -EPROTO);
	mpz_ui_pow_ui(t, 7, 364); /* a small factor; a power */
	assert_int_equal(read_key(SCHEME_OU, t, s, &e), -EPROTO);
	mpz_pow_ui(t, key->p.p, 3);
	assert_int_equal(read_key(SCHEME_OU, t, s, &e), -EPROTO);
	mpz_pow_ui(t, key->q.p, 3);
	assert_int_equal(read_key(SCHEME_OU, t, s, &e), -EPROTO);
	mpz_nextprime(t, pub->n);
	assert_int_equal(read_key(SCHEME_OU, t, s, &e), -EPROTO);
	mpz_mul(t, key->p.p, key->q.p); /* short */
	assert_int_equal(read_key(SCHEME_OU, t, s, &e), -EPROTO);
	assert_string_equal(e.text,
			    "public key: modulus of a wrong size or even");
	mpz_clears(t, s, NULL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(
		    known_ciphertexts_and_what_is_computed_on_them),
		cmocka_unit_test(textbook_decryption_gives_the_same_integer),
		cmocka_unit_test(randomiser_is_the_power_of_its_base),
		cmocka_unit_test(sums_products_and_order),
		cmocka_unit_test(matvec_agrees_with_doubles),
		cmocka_unit_test(packed_numbers_fill_the_range),
		cmocka_unit_test(numbers_at_and_beyond_the_bound),
		cmocka_unit_test(chosen_ciphertext_attack_is_refused),
		cmocka_unit_test(forged_numbers_next_to_p_and_to_the_bound),
		cmocka_unit_test(import_refuses_what_is_no_ciphertext),
		cmocka_unit_test(another_key_does_not_decrypt),
		cmocka_unit_test(keys_are_as_asked),
		cmocka_unit_test(bad_public_keys_are_refused),
	};

	return cmocka_run_group_tests_name("as the processor can", tests,
					   set_up, tear_down_both) +
	       cmocka_run_group_tests_name("portable", tests, set_up_portable,
					   tear_down_both);
}
