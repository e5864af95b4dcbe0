// SPDX-License-Identifier: Apache-2.0
/*
 * What the parties of an intersection read of each other. The first byte says
 * what: a modulus, what is to be answered by RSA or ECDH, or answers to RSA
 * or ECDH.
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

static void begin(enum psi_method m, struct psi_side **host,
		  struct psi_side **guest)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(PSI_KEY_MAX);
	struct err e = { 0 };

	if (psi_answerer(m, 1024, salt, host, &e) < 0 ||
	    psi_public(*host, &sb) < 0 ||
	    psi_asker(m, 1024, salt, sb.buf, sb.len, guest, &e) < 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const uint32_t end[] = { 1, 3, 6, 10 };
	static struct psi_side *host[2], *guest[2];
	struct psi_ids ids = { .text = "abbcccdddd", .end = end };
	_cleanup_free_ uint8_t *out = xmalloc(n + 1);
	uint8_t blind[4 * 128], secret[4 * 128], tags[4 * PSI_TAG];
	unsigned m;
	struct err e = { 0 };
	size_t width;
	int rc;

	if (n == 0)
		return 0;
	if (!host[0]) {
		begin(PSI_RSA, &host[0], &guest[0]);
		begin(PSI_ECDH, &host[1], &guest[1]);
	}
	data++;
	n--;
	m = data[-1] & 1;
	width = psi_width(host[m]);
	ids.n = MIN(n / width, ARRAY_SIZE(end));
	switch (data[-1] & 7) {
	case 0:
	case 1:
		rc = psi_answer(host[m], data, ids.n, 1, out, &e);
		break;
	case 2:
	case 3:
		if (ids.n &&
		    psi_blind(guest[m], &ids, 1, blind, secret, &e) < 0)
			abort();
		rc = psi_unblind(guest[m], &ids, data, secret, 1, tags, &e);
		/* It is not the signature of a fresh number. */
		if (m == 0 && ids.n && rc != -EPROTO)
			abort();
		break;
	default:
		read_modulus(data, n);
		return 0;
	}
	if (rc < 0 && !e.text[0])
		abort();
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
