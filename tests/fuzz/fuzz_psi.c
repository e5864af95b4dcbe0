// SPDX-License-Identifier: Apache-2.0
/*
 * What the parties of an intersection read of each other. The first byte says
 * what: 0, 1, 6 what is to be answered by RSA, ECDH, DH; 2, 3, 7 answers to
 * these; 4 a modulus; 5 a public key of DH.
 */
#include "components/crypto/psi.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const uint8_t salt[PSI_SALT] = { 1 };

static void read_modulus(const uint8_t *data, size_t n)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(PSI_KEY_MAX);
	struct psi_side *k = NULL;
	struct err e = { 0 };

	if (psi_asker(PSI_RSA, (unsigned)(8 * n), salt, data, n, &k, &e) < 0) {
		if (!e.text[0])
			abort();
		return;
	}
	if (psi_public(k, &sb) < 0 || sb.len != n ||
	    memcmp(sb.buf, data, n) != 0)
		abort();
	psi_free(k);
}

static void read_public(const uint8_t *data, size_t n)
{
	_cleanup_(psi_freep) struct psi_side *k = NULL;
	struct err e = { 0 };

	if (psi_asker(PSI_DH, 2048, salt, data, n, &k, &e) < 0 && !e.text[0])
		abort();
}

static void begin(enum psi_method m, struct psi_side **host,
		  struct psi_side **guest)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(PSI_KEY_MAX);
	unsigned bits = m == PSI_DH ? 2048 : 1024;
	struct err e = { 0 };

	if (psi_answerer(m, bits, salt, host, &e) < 0 ||
	    psi_public(*host, &sb) < 0 ||
	    psi_asker(m, bits, salt, sb.buf, sb.len, guest, &e) < 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const uint32_t end[] = { 1, 3, 6, 10 };
	static const enum psi_method methods[] = { PSI_RSA,  PSI_ECDH, PSI_RSA,
						   PSI_ECDH, PSI_RSA,  PSI_DH,
						   PSI_DH,   PSI_DH };
	static struct psi_side *host[3], *guest[3];
	struct psi_ids ids = { .text = "abbcccdddd", .end = end };
	_cleanup_free_ uint8_t *out = xmalloc(n + 1);
	uint8_t blind[4 * 256], secret[4 * 256], tags[4 * PSI_TAG];
	enum psi_method m;
	struct err e = { 0 };
	size_t width;
	int rc;

	if (n == 0)
		return 0;
	if (!host[0])
		for (m = PSI_RSA; m <= PSI_DH; m++)
			begin(m, &host[m], &guest[m]);
	data++;
	n--;
	m = methods[data[-1] & 7];
	width = psi_width(host[m]);
	ids.n = MIN(n / width, ARRAY_SIZE(end));
	switch (data[-1] & 7) {
	case 4:
		read_modulus(data, n);
		return 0;
	case 5:
		read_public(data, n);
		return 0;
	case 2:
	case 3:
	case 7:
		if (ids.n &&
		    psi_blind(guest[m], &ids, 1, blind, secret, &e) < 0)
			abort();
		rc = psi_unblind(guest[m], &ids, data, secret, 1, tags, &e);
		/* It is not the signature of a fresh number. */
		if (m == PSI_RSA && ids.n && rc != -EPROTO)
			abort();
		break;
	default:
		rc = psi_answer(host[m], data, ids.n, 1, out, &e);
	}
	if (rc < 0 && !e.text[0])
		abort();
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
