// SPDX-License-Identifier: Apache-2.0
/* Requests, answers and envelopes as they come out of a seal, a poll or a
 * relay, and the texts of headers; the first byte says which.  What is taken
 * must survive being written and read again. */
#include "lib/conf.h"
#include "lib/json.h"

#include "transfer/secure.h"
#include "transfer/wire.h"

#define ROOM (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void refused(int r, const struct err *e)
{
	if (r >= 0 || !e->text[0])
		abort();
}

static bool same(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static void request(const void *data, size_t n)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(n + ROOM);
	struct wire_request a, b;
	struct err e = { 0 };
	int r = request_parse(data, n, &a, &e);

	if (r) {
		refused(r, &e);
		return;
	}
	if (a.n > n || strncmp(a.target, "/v1/", 4) != 0)
		abort();
	if (request_frame(&sb, &a) || request_parse(sb.buf, sb.len, &b, NULL))
		abort();
	if (a.id != b.id || !same(a.method, b.method) ||
	    !same(a.target, b.target) || !same(a.digest, b.digest) ||
	    !same(a.via, b.via) || a.timeout_ms != b.timeout_ms || a.n != b.n ||
	    (a.n && memcmp(a.body, b.body, a.n) != 0))
		abort();
	request_free(&a);
	request_free(&b);
}

static void answer(const void *data, size_t n)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(n + ROOM);
	struct wire_answer a = { .body = STRBUF_INIT(n) };
	struct wire_answer b = { .body = STRBUF_INIT(n) };
	struct err e = { 0 };
	int r = answer_parse(data, n, &a, &e);

	if (r) {
		refused(r, &e);
		if (a.body.len)
			abort();
		return;
	}
	if (answer_frame(&sb, &a) || answer_parse(sb.buf, sb.len, &b, NULL))
		abort();
	if (a.id != b.id || a.code != b.code || a.credit != b.credit ||
	    a.retry_ms != b.retry_ms || a.body.len != b.body.len ||
	    memcmp(a.body.buf, b.body.buf, a.body.len) != 0)
		abort();
	sb_free(&a.body);
	sb_free(&b.body);
}

static void envelope(const void *data, size_t n)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(n + ROOM);
	_cleanup_free_ char *text = NULL;
	struct envelope a, b;
	struct err e = { 0 };
	int r = envelope_parse(data, n, &a, &e);

	if (r) {
		refused(r, &e);
		return;
	}
	if (!party_id_valid(a.src) || !party_id_valid(a.dst) ||
	    a.n < SEAL_OVERHEAD || a.n > n)
		abort();
	text = envelope_signed_text(&a);
	if (!same(text, a.signed_text) || envelope_frame(&sb, &a) ||
	    sb_add(&sb, a.sealed, a.n) ||
	    envelope_parse(sb.buf, sb.len, &b, NULL))
		abort();
	if (!same(a.signed_text, b.signed_text) ||
	    !same(a.certificate, b.certificate) ||
	    !same(a.signature, b.signature) || a.n != b.n ||
	    memcmp(a.sealed, b.sealed, a.n) != 0)
		abort();
	envelope_free(&a);
	envelope_free(&b);
}

/* The byte in front: how many chunks there are. */
static void ranges(const uint8_t *data, size_t n)
{
	_cleanup_free_ char *text = NULL, *again = NULL, *shorter = NULL;
	uint64_t chunks = n ? 8u * data[0] + 3 : 0;
	uint8_t bits[256] = { 0 };

	if (!n)
		return;
	text = strndup((const char *)data + 1, n - 1);
	if (!text)
		abort();
	if (ranges_parse(text, bits, chunks)) {
		for (size_t i = 0; i < sizeof(bits); i++)
			if (bits[i])
				abort();
		return;
	}
	again = ranges_text(bits, chunks, n);
	shorter = ranges_text(bits, chunks, n / 2);
	if (!same(text, again) || strlen(shorter) > n / 2 ||
	    strncmp(shorter, text, strlen(shorter)) != 0 ||
	    ranges_parse(shorter, bits, chunks))
		abort();
}

static void digest(const uint8_t *data, size_t n)
{
	_cleanup_free_ char *text = strndup((const char *)data, n);
	uint8_t md[32];
	char again[64];

	if (!text)
		abort();
	if (content_digest_parse(text, md))
		return;
	content_digest(md, again);
	if (!same(text, again))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	if (!n)
		return 0;
	switch (data[0]) {
	case 'q':
		request(data + 1, n - 1);
		break;
	case 'a':
		answer(data + 1, n - 1);
		break;
	case 'e':
		envelope(data + 1, n - 1);
		break;
	case 'r':
		ranges(data + 1, n - 1);
		break;
	case 'd':
		digest(data + 1, n - 1);
		break;
	default:
		break;
	}
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
