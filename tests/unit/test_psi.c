// SPDX-License-Identifier: Apache-2.0
/* Both sides of the intersection protocols in one process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/bn.h>
#include <string.h>

#include "components/crypto/psi.h"
#include "components/crypto/util.h"

struct list {
	struct strbuf text;
	uint32_t *end;
	struct psi_ids ids;
};

/* "id<k>" for k = from, from + step, ... */
static void make(struct list *l, size_t n, unsigned from, unsigned step)
{
	sb_init(&l->text, 1u << 20);
	l->end = xcalloc(n + 1, sizeof(*l->end));
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(
		    sb_addf(&l->text, "id%u", from + (unsigned)i * step), 0);
		l->end[i] = (uint32_t)l->text.len;
	}
	l->ids = (struct psi_ids){ l->text.buf, l->end, n };
}

static void drop(struct list *l)
{
	sb_free(&l->text);
	free(l->end);
}

/* a has 0 .. na-1, b the multiples of 3: their tags agree there only. */
static void check_tags(const uint8_t *a, size_t na, const uint8_t *b, size_t nb)
{
	for (size_t i = 0; i < na; i++)
		for (size_t j = 0; j < nb; j++)
			assert_int_equal(memcmp(a + i * PSI_TAG,
						b + j * PSI_TAG, PSI_TAG) == 0,
					 i == j * 3);
}

static const uint8_t salt[PSI_SALT] = "salt";

/* Q.x of RFC 9380, J.4.2 (curve25519_XMD:SHA-512_ELL2_NU_). */
static void hash_to_curve_is_rfc_9380s(void **state)
{
	static const char *const want[] = {
		"51125222da5e763d97f3c10fcc92ea6860b9ccbbd2eb1285728f566721c1e6"
		"5b",
		"7d56d1e08cb0ccb92baf069c18c49bb5a0dcd927eff8dcf75ca921ef7f3e6e"
		"eb",
		"3fbe66b9c9883d79e8407150e7c2a1c8680bee496c62fabe4619a72b3cabe9"
		"0f",
		"227e0bb89de700385d19ec40e857db6e6a3e634b1c32962f370d26f84ff196"
		"83",
		"3bcd651ee54d5f7b6013898aab251ee8ecc0688166fce6e9548d38472f6bd1"
		"96",
	};
	char q128[134] = "q128_", a512[518] = "a512_";
	const char *const message[] = { "", "abc", "abcdef0123456789", q128,
					a512 };
	uint8_t u[32];
	char text[3];

	(void)state;
	memset(q128 + 5, 'q', 128);
	memset(a512 + 5, 'a', 512);
	for (size_t k = 0; k < ARRAY_SIZE(want); k++) {
		psi_hash_to_curve(salt, 0, message[k], strlen(message[k]),
				  "QUUX-V01-CS02-with-"
				  "curve25519_XMD:SHA-512_ELL2_NU_",
				  u);
		for (size_t i = 0; i < 32; i++) {
			(void)snprintf(text, sizeof(text), "%02x", u[31 - i]);
			assert_memory_equal(text, want[k] + 2 * i, 2);
		}
	}
}

static const struct kind {
	enum psi_method method;
	unsigned bits;
} kinds[] = { { PSI_RSA, 1024 }, { PSI_ECDH, 0 }, { PSI_DH, 2048 } };

enum { NA = 40, NB = 20 };

/* The asker's end of a conversation, up to the answers. */
struct talk {
	struct psi_side *host, *guest;
	struct list la, lb;
	uint8_t *asked, *secret;
	size_t width;
};

static void talk_begin(struct talk *t, const struct kind *k)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(PSI_KEY_MAX);
	struct err e = { 0 };

	make(&t->la, NA, 0, 1);
	make(&t->lb, NB, 0, 3);
	assert_int_equal(psi_answerer(k->method, k->bits, salt, &t->host, &e),
			 0);
	assert_int_equal(psi_public(t->host, &sb), 0);
	assert_int_equal(
	    psi_asker(k->method, k->bits, salt, sb.buf, sb.len, &t->guest, &e),
	    0);
	t->width = psi_width(t->host);
	assert_int_equal(psi_width(t->guest), t->width);
	t->asked = xcalloc(NA, t->width);
	t->secret = xcalloc(NA, psi_secret_width(t->guest) + 1);
	assert_int_equal(
	    psi_blind(t->guest, &t->la.ids, 2, t->asked, t->secret, &e), 0);
}

static void talk_end(struct talk *t)
{
	psi_free(t->host);
	psi_free(t->guest);
	drop(&t->la);
	drop(&t->lb);
	free(t->asked);
	free(t->secret);
}

static void tags_agree_for_common_ids_only(void **state)
{
	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		uint8_t a[NA * PSI_TAG], b[NB * PSI_TAG];
		struct err e = { 0 };
		struct talk t;

		talk_begin(&t, &kinds[k]);
		assert_int_equal(psi_tags(t.host, &t.lb.ids, 2, b, &e), 0);
		assert_int_equal(
		    psi_answer(t.host, t.asked, NA, 3, t.asked, &e), 0);
		assert_int_equal(psi_unblind(t.guest, &t.la.ids, t.asked,
					     t.secret, 3, a, &e),
				 0);
		check_tags(a, NA, b, NB);
		talk_end(&t);
	}
}

static void two_runs_share_nothing(void **state)
{
	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		uint8_t b[2][NB * PSI_TAG];
		struct err e = { 0 };
		struct talk t[2];

		for (int i = 0; i < 2; i++) {
			talk_begin(&t[i], &kinds[k]);
			assert_int_equal(
			    psi_tags(t[i].host, &t[i].lb.ids, 1, b[i], &e), 0);
		}
		for (size_t i = 0; i < NB; i++) {
			assert_memory_not_equal(b[0] + i * PSI_TAG,
						b[1] + i * PSI_TAG, PSI_TAG);
			assert_memory_not_equal(t[0].asked + i * t[0].width,
						t[1].asked + i * t[1].width,
						t[0].width);
		}
		talk_end(&t[0]);
		talk_end(&t[1]);
	}
}

/* Signatures are verified, each blinded by a number of full size. */
static void rsa_is_verified_and_well_blinded(void **state)
{
	uint8_t a[NA * PSI_TAG];
	struct err e = { 0 };
	struct talk t;

	(void)state;
	talk_begin(&t, &kinds[0]);
	for (size_t i = 0; i < NA; i++) {
		size_t zeros = 0;

		while (zeros < t.width && t.secret[i * t.width + zeros] == 0)
			zeros++;
		assert_true(zeros < 8);
	}
	assert_int_equal(psi_answer(t.host, t.asked, NA, 2, t.asked, &e), 0);
	t.asked[5 * t.width + 100] ^= 1;
	assert_int_equal(
	    psi_unblind(t.guest, &t.la.ids, t.asked, t.secret, 1, a, &e),
	    -EPROTO);
	memset(t.asked, 0xff, t.width);
	assert_int_equal(
	    psi_unblind(t.guest, &t.la.ids, t.asked, t.secret, 1, a, &e),
	    -EPROTO);
	talk_end(&t);
}

static void what_is_no_element_is_not_answered(void **state)
{
	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		struct err e = { 0 };
		struct talk t;
		uint8_t *last;

		talk_begin(&t, &kinds[k]);
		last = t.asked + (NA - 1) * t.width;
		memset(last, 0, t.width);
		assert_int_equal(
		    psi_answer(t.host, t.asked, NA, 1, t.asked, &e), -EPROTO);
		memset(last, 0xff, t.width);
		if (kinds[k].method != PSI_ECDH) /* a point like any other */
			assert_int_equal(
			    psi_answer(t.host, last, 1, 1, last, &e), -EPROTO);
		memset(last, 0, t.width);
		last[kinds[k].method == PSI_ECDH ? 0 : t.width - 1] = 1;
		if (kinds[k].method != PSI_RSA)
			assert_int_equal(
			    psi_answer(t.host, last, 1, 1, last, &e), -EPROTO);
		talk_end(&t);
	}
}

static void a_saved_key_makes_the_same_tags(void **state)
{
	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(PSI_KEY_MAX);
		uint8_t a[NB * PSI_TAG], b[NB * PSI_TAG];
		struct psi_side *again;
		struct err e = { 0 };
		struct talk t;

		talk_begin(&t, &kinds[k]);
		assert_int_equal(psi_tags(t.host, &t.lb.ids, 1, a, &e), 0);
		assert_int_equal(psi_save(t.host, &sb), 0);
		assert_int_equal(psi_load(kinds[k].method, kinds[k].bits, salt,
					  sb.buf, sb.len, &again, &e),
				 0);
		assert_int_equal(psi_tags(again, &t.lb.ids, 1, b, &e), 0);
		assert_memory_equal(a, b, sizeof(a));
		psi_free(again);
		assert_int_equal(psi_load(kinds[k].method, kinds[k].bits, salt,
					  sb.buf, sb.len - 1, &again, &e),
				 -EINVAL);
		talk_end(&t);
	}
}

/* The signature itself, by another implementation. */
static void an_rsa_answer_is_the_power_of_d(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(PSI_KEY_MAX);
	uint8_t in[128], out[128], want[128];
	mpz_t p, q, d, n, x;
	struct psi_side *host;
	struct err e = { 0 };

	(void)state;
	mpz_inits(p, q, d, n, x, NULL);
	assert_int_equal(psi_answerer(PSI_RSA, 1024, salt, &host, &e), 0);
	assert_int_equal(psi_save(host, &sb), 0);
	mpz_import(p, 64, 1, 1, 0, 0, sb.buf);
	mpz_import(q, 64, 1, 1, 0, 0, sb.buf + 64);
	mpz_mul(n, p, q);
	mpz_sub_ui(p, p, 1);
	mpz_sub_ui(q, q, 1);
	mpz_mul(q, q, p);
	mpz_set_ui(d, 65537);
	assert_true(mpz_invert(d, d, q));
	for (unsigned i = 0; i < 20; i++) {
		size_t len = 0;

		crypto_random_below(x, n);
		if (i == 0)
			mpz_sub_ui(x, n, 1);
		if (i == 1)
			mpz_add_ui(x, p, 1); /* 0 modulo a prime */
		if (i == 2)
			mpz_set_ui(x, 1);
		limbs_export(mpz_limbs_read(x), (mp_size_t)mpz_size(x), in,
			     128);
		assert_int_equal(psi_answer(host, in, 1, 1, out, &e), 0);
		mpz_powm(x, x, d, n);
		memset(want, 0, sizeof(want));
		mpz_export(want + 128 - (mpz_sizeinbase(x, 2) + 7) / 8, &len, 1,
			   1, 0, 0, x);
		assert_memory_equal(out, want, sizeof(want));
	}
	psi_free(host);
	mpz_clears(p, q, d, n, x, NULL);
}

static void bad_keys_of_a_peer_are_refused(void **state)
{
	uint8_t n[128];
	struct psi_side *k;
	struct err e = { 0 };

	(void)state;
	memset(n, 0xff, sizeof(n));
	assert_int_equal(psi_asker(PSI_RSA, 1024, salt, n, 64, &k, &e),
			 -EPROTO);
	assert_int_equal(psi_asker(PSI_RSA, 2048, salt, n, 128, &k, &e),
			 -EPROTO);
	n[127] = 0xfe;
	assert_int_equal(psi_asker(PSI_RSA, 1024, salt, n, 128, &k, &e),
			 -EPROTO);
	n[0] = 0;
	n[127] = 0xff;
	assert_int_equal(psi_asker(PSI_RSA, 1024, salt, n, 128, &k, &e),
			 -EPROTO);
	assert_int_equal(psi_asker(PSI_ECDH, 0, salt, n, 128, &k, &e), -EPROTO);
	assert_int_equal(psi_asker(PSI_DH, 2000, salt, NULL, 0, &k, &e),
			 -EINVAL);
	assert_int_equal(psi_asker(PSI_DH, 2048, salt, NULL, 0, &k, &e),
			 -EPROTO);
}

/* 4 = 2^2; 1; p - 2, which is no square as 2 is one and -1 is none. */
static void a_public_key_of_dh_is_a_square(void **state)
{
	static const struct {
		uint8_t front, last;
		int rc;
	} keys[] = { { 0, 4, 0 },
		     { 0, 1, -EPROTO },
		     { 0, 0, -EPROTO },
		     { 0xff, 0xfd, -EPROTO } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		BIGNUM *p = BN_get_rfc3526_prime_2048(NULL);
		uint8_t y[256] = { 0 };
		struct psi_side *k = NULL;
		struct err e = { 0 };

		if (keys[i].front)
			assert_int_equal(BN_bn2bin(p, y), 256);
		y[255] = keys[i].last;
		assert_int_equal(
		    psi_asker(PSI_DH, 2048, salt, y, sizeof(y), &k, &e),
		    keys[i].rc);
		psi_free(k);
		BN_free(p);
	}
}

/* With fresh numbers the tags stay. */
static void dh_blinds_each_id_by_itself(void **state)
{
	struct talk t;
	struct err e = { 0 };
	uint8_t a[NA * PSI_TAG], b[NA * PSI_TAG];

	(void)state;
	talk_begin(&t, &kinds[2]);
	assert_int_equal(psi_secret_width(t.guest), 32);
	for (size_t i = 1; i < NA; i++)
		assert_memory_not_equal(t.secret, t.secret + i * 32, 32);
	for (int run = 0; run < 2; run++) {
		assert_int_equal(
		    psi_blind(t.guest, &t.la.ids, 1, t.asked, t.secret, &e), 0);
		assert_int_equal(
		    psi_answer(t.host, t.asked, NA, 1, t.asked, &e), 0);
		assert_int_equal(psi_unblind(t.guest, &t.la.ids, t.asked,
					     t.secret, 1, run ? b : a, &e),
				 0);
	}
	assert_memory_equal(a, b, sizeof(a));
	talk_end(&t);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(hash_to_curve_is_rfc_9380s),
		cmocka_unit_test(tags_agree_for_common_ids_only),
		cmocka_unit_test(two_runs_share_nothing),
		cmocka_unit_test(rsa_is_verified_and_well_blinded),
		cmocka_unit_test(what_is_no_element_is_not_answered),
		cmocka_unit_test(a_saved_key_makes_the_same_tags),
		cmocka_unit_test(an_rsa_answer_is_the_power_of_d),
		cmocka_unit_test(bad_keys_of_a_peer_are_refused),
		cmocka_unit_test(a_public_key_of_dh_is_a_square),
		cmocka_unit_test(dh_blinds_each_id_by_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
