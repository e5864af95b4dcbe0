// SPDX-License-Identifier: Apache-2.0
/*
 * The file of a list that Intersection keeps for later runs.
 *
 *	0    whose: bit 0 the host, else the guest; bits 1, 2 ecdh, dh, rsa;
 *	     bit 7: the digest at the end is made right
 *	1    how many records there have to be
 *	2..  the file
 */
#include <openssl/evp.h>

#include "components/ctx_priv.h"
#include "components/intersection.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* What stands in the spool is what read_list promises. */
static void check(const struct psi *p, const struct psi_kept *want,
		  const struct psi_cache *c)
{
	uint8_t last[PSI_TAG];
	const uint8_t *t;
	const void *record;
	struct err e = { 0 };
	uint32_t i = 0, row;

	if (strlen(c->id) != PSI_CACHE_ID - 1 || !want->ids != !c->key)
		abort();
	for (; spool_next(c->list, &record, &e) > 0; i++) {
		t = record;
		if (i && memcmp(last, t, PSI_TAG) >= 0)
			abort();
		memcpy(last, t, PSI_TAG);
		if (!want->ids)
			continue;
		memcpy(&row, t + PSI_TAG, sizeof(row));
		if (row >= p->rows)
			abort();
	}
	if (i != want->count)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const enum psi_method methods[] = { PSI_ECDH, PSI_DH, PSI_RSA,
						   PSI_ECDH };
	static const uint8_t ids[32] = { 1, 2, 3 };
	struct ctx ctx = { .dir = "/tmp" };
	struct psi p = { .c = &ctx, .limits = &psi_limits_default };
	struct psi_kept want = { 0 };
	struct psi_cache c = { 0 };
	_cleanup_free_ uint8_t *text = xmalloc(n + 32);
	FILE *f;

	if (n < 2)
		return 0;
	p.method = methods[data[0] >> 1 & 3];
	p.bits = p.method == PSI_DH ? 2048 : 1024;
	p.rows = want.count = data[1];
	want.ids = data[0] & 1 ? ids : NULL;
	want.id = data[0] & 1 ? NULL : "0123456789abcdef0123456789abcdef";
	memcpy(text, data + 2, n - 2);
	n -= 2;
	if (data[0] & 128) {
		(void)EVP_Digest(text, n, text + n, NULL, EVP_sha256(), NULL);
		n += 32;
	}
	f = n ? fmemopen(text, n, "r") : NULL;
	if (!f)
		return 0;
	psi_kept_read(&p, f, &want, &c);
	if (c.list)
		check(&p, &want, &c);
	else if (c.key || c.id[0])
		abort();
	psi_cache_end(&c);
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
