// SPDX-License-Identifier: Apache-2.0
/* Both sides of the intersection protocols in one process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "components/crypto/psi.h"

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
	uint8_t u[PSI_TAG];
	char text[3];

	(void)state;
	memset(q128 + 5, 'q', 128);
	memset(a512 + 5, 'a', 512);
	for (size_t k = 0; k < ARRAY_SIZE(want); k++) {
		psi_hash_to_curve(salt, 0, message[k], strlen(message[k]),
				  "QUUX-V01-CS02-with-"
				  "curve25519_XMD:SHA-512_ELL2_NU_",
				  u);
		for (size_t i = 0; i < PSI_TAG; i++) {
			(void)snprintf(text, sizeof(text), "%02x",
				       u[PSI_TAG - 1 - i]);
			assert_memory_equal(text, want[k] + 2 * i, 2);
		}
	}
}

static void ecdh_tags_agree_for_common_ids_only(void **state)
{
	enum { NA = 200, NB = 90 };
	uint8_t ka[PSI_TAG], kb[PSI_TAG], a[NA * PSI_TAG], b[NB * PSI_TAG];
	uint8_t once[NA * PSI_TAG];
	struct list la, lb;

	(void)state;
	make(&la, NA, 0, 1);
	make(&lb, NB, 0, 3);
	psi_ecdh_key(ka);
	psi_ecdh_key(kb);
	assert_int_equal(psi_ecdh_ids(ka, salt, &la.ids, 2, a, NULL), 0);
	assert_int_equal(psi_ecdh_ids(kb, salt, &lb.ids, 3, b, NULL), 0);
	memcpy(once, a, sizeof(a));
	assert_int_equal(psi_ecdh_points(kb, a, NA, 2, a, NULL), 0);
	assert_int_equal(psi_ecdh_points(ka, b, NB, 1, b, NULL), 0);
	check_tags(a, NA, b, NB);
	/* Another key: nothing of the first run appears again. */
	psi_ecdh_key(ka);
	assert_int_equal(psi_ecdh_ids(ka, salt, &la.ids, 2, a, NULL), 0);
	for (size_t i = 0; i < NA; i++)
		assert_memory_not_equal(a + i * PSI_TAG, once + i * PSI_TAG,
					PSI_TAG);
	drop(&la);
	drop(&lb);
}

static void points_of_small_order_are_refused(void **state)
{
	uint8_t key[PSI_TAG], p[PSI_TAG] = { 0 };

	(void)state;
	psi_ecdh_key(key);
	assert_int_equal(psi_ecdh_points(key, p, 1, 1, p, NULL), -EPROTO);
	memset(p, 0, sizeof(p));
	p[0] = 1;
	assert_int_equal(psi_ecdh_points(key, p, 1, 1, p, NULL), -EPROTO);
}

static void rsa_tags_agree_for_common_ids_only(void **state)
{
	enum { NA = 40, NB = 20, W = 128 };
	static uint8_t c[NA * W], r[NA * W], a[NA * PSI_TAG], b[NB * PSI_TAG];
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(1024);
	struct psi_rsa *host, *guest;
	struct list la, lb;

	(void)state;
	make(&la, NA, 0, 1);
	make(&lb, NB, 0, 3);
	assert_int_equal(psi_rsa_keygen(1024, &host, NULL), 0);
	assert_int_equal(psi_rsa_public(host, &sb), 0);
	assert_int_equal(psi_rsa_read(sb.buf, sb.len, &guest, NULL), 0);
	assert_int_equal(psi_rsa_width(guest), W);
	assert_int_equal(psi_rsa_tags(host, salt, &lb.ids, 2, b, NULL), 0);
	assert_int_equal(psi_rsa_blind(guest, salt, &la.ids, 2, c, r, NULL), 0);
	/* The blinding is of full size: no r is short. */
	for (size_t i = 0; i < NA; i++) {
		size_t zeros = 0;

		while (zeros < W && r[i * W + zeros] == 0)
			zeros++;
		assert_true(zeros < 8);
	}
	assert_int_equal(psi_rsa_sign(host, c, NA, 2, c, NULL), 0);
	assert_int_equal(
	    psi_rsa_unblind(guest, salt, &la.ids, c, r, 3, a, NULL), 0);
	check_tags(a, NA, b, NB);
	/* A changed signature is noticed. */
	c[5 * W + 100] ^= 1;
	assert_int_equal(
	    psi_rsa_unblind(guest, salt, &la.ids, c, r, 1, a, NULL), -EPROTO);
	/* What is no number below n is not signed. */
	memset(c, 0xff, W);
	assert_int_equal(psi_rsa_sign(host, c, 1, 1, c, NULL), -EPROTO);
	memset(c, 0, W);
	assert_int_equal(psi_rsa_sign(host, c, 1, 1, c, NULL), -EPROTO);
	psi_rsa_free(host);
	psi_rsa_free(guest);
	drop(&la);
	drop(&lb);
}

static void bad_rsa_moduli_are_refused(void **state)
{
	uint8_t n[2048];
	struct psi_rsa *k;

	(void)state;
	memset(n, 0xff, sizeof(n));
	assert_int_equal(psi_rsa_read(n, 64, &k, NULL), -EPROTO);
	assert_int_equal(psi_rsa_read(n, 2048, &k, NULL), -EPROTO);
	n[127] = 0xfe;
	assert_int_equal(psi_rsa_read(n, 128, &k, NULL), -EPROTO);
	n[0] = 0;
	n[127] = 0xff;
	assert_int_equal(psi_rsa_read(n, 128, &k, NULL), -EPROTO);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(hash_to_curve_is_rfc_9380s),
		cmocka_unit_test(ecdh_tags_agree_for_common_ids_only),
		cmocka_unit_test(points_of_small_order_are_refused),
		cmocka_unit_test(rsa_tags_agree_for_common_ids_only),
		cmocka_unit_test(bad_rsa_moduli_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
