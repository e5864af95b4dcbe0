// SPDX-License-Identifier: Apache-2.0
/*
 * What the parties of an intersection read of each other. The first byte says
 * what: a modulus, numbers to be signed, signatures, or points.
 */
#include "components/crypto/psi.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void read_modulus(const uint8_t *data, size_t n)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(2048);
	struct psi_rsa *k = NULL;
	struct err e = { 0 };

	if (psi_rsa_read(data, n, &k, &e) < 0) {
		if (!e.text[0])
			abort();
		return;
	}
	if (psi_rsa_public(k, &sb) < 0 || sb.len != n ||
	    memcmp(sb.buf, data, n) != 0)
		abort();
	psi_rsa_free(k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const uint8_t salt[PSI_SALT] = { 1 };
	static const uint32_t end[] = { 1, 3, 6, 10 };
	static struct psi_rsa *host, *guest;
	struct psi_ids ids = { .text = "abbcccdddd", .end = end };
	_cleanup_free_ uint8_t *out = xmalloc(2 * n + 1);
	struct err e = { 0 };
	size_t width;

	if (n == 0)
		return 0;
	if (!host) {
		_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(2048);

		if (psi_rsa_keygen(1024, &host, &e) < 0 ||
		    psi_rsa_public(host, &sb) < 0 ||
		    psi_rsa_read(sb.buf, sb.len, &guest, &e) < 0)
			abort();
	}
	width = psi_rsa_width(host);
	data++;
	n--;
	switch (data[-1] & 3) {
	case 0:
		read_modulus(data, n);
		break;
	case 1:
		if (psi_rsa_sign(host, data, MIN(n / width, (size_t)4), 1, out,
				 &e) < 0 &&
		    !e.text[0])
			abort();
		break;
	case 2: {
		uint8_t blind[4 * 128], secret[4 * 128], tags[4 * PSI_TAG];

		ids.n = MIN(n / width, ARRAY_SIZE(end));
		if (ids.n && (psi_rsa_blind(guest, salt, &ids, 1, blind, secret,
					    &e) < 0 ||
			      /* not the signature of a fresh number */
			      psi_rsa_unblind(guest, salt, &ids, data, secret,
					      1, tags, &e) != -EPROTO))
			abort();
		break;
	}
	default:
		if (psi_ecdh_points(salt, data, n / PSI_TAG, 1, out, &e) < 0 &&
		    !e.text[0])
			abort();
	}
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
