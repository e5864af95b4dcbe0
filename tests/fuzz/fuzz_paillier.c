// SPDX-License-Identifier: Apache-2.0
/*
 * A public key of either scheme as an arbiter sends it, and behind it
 * ciphertexts under it: what is accepted must be written again as it came.
 */
#include "components/crypto/paillier.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Bytes of a length-prefixed number at `at`, all of the rest if too few. */
static size_t skip(const uint8_t *data, size_t n, size_t at)
{
	size_t len;

	if (n - at < 4)
		return n;
	len = (size_t)data[at] | (size_t)data[at + 1] << 8;
	return len > n - at - 4 ? n : at + 4 + len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(8192);
	/* Okamoto-Uchiyama's begins with 0 and the scheme. */
	size_t head = n >= 8 && memcmp(data, "\0\0\0", 4) == 0 ? 8 : 0;
	size_t key = skip(data, n, skip(data, n, head));
	size_t width, count;
	struct paillier_public *k = NULL;
	struct cipher_vec *v = NULL;
	struct err e = { 0 };

	if (key > 1024) /* longer keys: nothing new, only slower */
		return 0;
	if (paillier_public_read(data, key, &k, &e) < 0) {
		if (!e.text[0])
			abort();
		return 0;
	}
	if (paillier_public_write(k, &sb) < 0 || sb.len != key ||
	    memcmp(sb.buf, data, key) != 0)
		abort();
	width = cipher_width(k);
	count = (n - key) / width;
	if (cipher_vec_import(k, data + key, count, 40, 1, &v, &e) == 0) {
		_cleanup_free_ uint8_t *out = xmalloc(count * width + 1);

		cipher_vec_export(v, out, 1);
		if (memcmp(out, data + key, count * width) != 0)
			abort();
		cipher_vec_free(v);
	}
	paillier_public_free(k);
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
