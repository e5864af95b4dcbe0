/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One key for all tests of a program that encrypts, on the vector path or on
 * the portable one.  Include after cmocka.h; the program says in make_key()
 * what key it is.
 */
#ifndef TESTS_UNIT_CIPHER_KEY_H
#define TESTS_UNIT_CIPHER_KEY_H

#include <math.h>

#include "components/crypto/paillier.h"
#include "components/crypto/paillier_priv.h"

static struct paillier_private *key;
static const struct paillier_public *pub;
static struct paillier_public *peer; /* the same key as it came by wire */

static int make_key(struct paillier_private **ret);

static int set_up_path(bool portable)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(4096);

	ring_force_portable(portable);
	if (make_key(&key) < 0)
		return -1;
	pub = paillier_public(key);
	if (paillier_public_write(pub, &sb) < 0)
		return -1;
	return paillier_public_read(sb.buf, sb.len, &peer, NULL);
}

static int set_up(void **state)
{
	(void)state;
	return set_up_path(false);
}

static int set_up_portable(void **state)
{
	(void)state;
	return set_up_path(true);
}

static int tear_down(void **state)
{
	(void)state;
	paillier_public_free(peer);
	paillier_private_free(key);
	return 0;
}

static const double sample[] = { 0,	 1,    -1,   0.5,	-0.25,
				 3.25e5, -7e8, 1e-9, 0.1 + 0.2, -123.456 };
#define N ARRAY_SIZE(sample)

/* v decrypts to these. */
static inline void check(const struct cipher_vec *v, const double *want,
			 double tol)
{
	_cleanup_free_ double *got = xcalloc(cipher_vec_len(v), sizeof(double));

	assert_int_equal(paillier_decrypt(key, v, got, 2, NULL), 0);
	for (size_t i = 0; i < cipher_vec_len(v); i++)
		assert_true(fabs(got[i] - want[i]) <= tol);
}

#endif
