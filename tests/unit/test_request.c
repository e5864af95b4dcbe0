// SPDX-License-Identifier: Apache-2.0
/* Requests inside something else, envelopes and cards: transfer/request.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/json.h"

#include "transfer/wire.h"

#include "tests/unit/documents.h"

/* ---- requests and answers ---------------------------------------------- */

static struct wire_request request(void)
{
	return (struct wire_request){ .id = 7,
				      .method = "PUT",
				      .target = (char *)"/v1/x?y=%20",
				      .digest = (char *)DIGEST,
				      .via = (char *)"1,22",
				      .timeout_ms = 60000,
				      .body = "abc",
				      .n = 3 };
}

static void a_request_reads_back(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(8192);
	struct wire_request q = request(), r;

	(void)state;
	assert_int_equal(request_frame(&sb, &q), 0);
	assert_int_equal(request_parse(sb.buf, sb.len, &r, NULL), 0);
	assert_int_equal(r.id, 7);
	assert_string_equal(r.method, "PUT");
	assert_string_equal(r.target, q.target);
	assert_string_equal(r.digest, DIGEST);
	assert_string_equal(r.via, "1,22");
	assert_int_equal(r.timeout_ms, 60000);
	assert_int_equal(r.n, 3);
	assert_ptr_equal(r.body, sb.buf + sb.len - 3);
	request_free(&r);
}

static void a_request_needs_neither_digest_nor_via_nor_body(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(8192);
	struct wire_request q = { .method = "GET", .target = (char *)"/v1/a" };
	struct wire_request r;

	(void)state;
	assert_int_equal(request_frame(&sb, &q), 0);
	assert_int_equal(request_parse(sb.buf, sb.len, &r, NULL), 0);
	assert_null(r.digest);
	assert_null(r.via);
	assert_int_equal(r.n, 0);
	request_free(&r);
}

/* A frame of any head. */
static void frame(struct strbuf *sb, const char *text)
{
	json_t *d = doc(text);
	_cleanup_free_ char *head = json_text(d, false);

	json_decref(d);
	sb_add_u32(sb, (uint32_t)strlen(head));
	sb_adds(sb, head);
}

#define REQUEST_HEAD "{'id':0,'method':'GET','target':'/v1/a','timeout_ms':0}"

static void a_bad_request_is_refused_with_a_sentence(void **state)
{
	static const char *const bad[][2] = {
		{ "{'id':-1}", "id: -1 is outside 0..9223372036854775807" },
		{ "{'method':'HEAD'}", "method: not one of this protocol" },
		{ "{'method':'get'}", "method: not one of this protocol" },
		{ "{'method':'CONNECT/'}", "method: a text of 8 bytes" },
		{ "{'target':'/v2/a'}", "target: not a path below /v1/" },
		{ "{'target':'/v1/a b'}", "target: not a path below /v1/" },
		{ "{'target':'/v1/\\r'}", "target: not a path below /v1/" },
		{ "{'target':'/v1/\\u00fc'}", "target: not a path below /v1/" },
		{ "{'digest':'x'}", "digest: not a sha-256" },
		{ "{'digest':null}", "digest: expected a string" },
		{ "{'via':'1,'}", "via: expected up to 4 party ids" },
		{ "{'via':'1,2,3,4,5'}", "via: expected up to 4 party ids" },
		{ "{'via':'a'}", "via: expected up to 4 party ids" },
		{ "{'via':''}", "via: a text of 0 bytes" },
		{ "{'timeout_ms':60001}",
		  "timeout_ms: 60001 is outside 0..60000" },
		{ "{'timeout_ms':null}", "timeout_ms: expected an integer" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(8192);
		json_t *d = with(REQUEST_HEAD, bad[i][0]);
		_cleanup_free_ char *text = json_text(d, false);
		struct wire_request q;
		struct err e = { 0 };

		json_decref(d);
		sb_add_u32(&sb, (uint32_t)strlen(text));
		sb_adds(&sb, text);
		assert_int_equal(request_parse(sb.buf, sb.len, &q, &e),
				 -EINVAL);
		assert_int_equal(strncmp(e.text, "request: ", 9), 0);
		assert_string_equal(e.text + 9, bad[i][1]);
	}
}

static void what_would_be_refused_is_not_sent(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(8192);
	struct wire_request q = request();
	char target[600];

	(void)state;
	memset(target, 'a', sizeof(target));
	memcpy(target, "/v1/", 4);
	target[512] = '\0';
	q.target = target;
	assert_int_equal(request_frame(&sb, &q), 0);
	sb_reset(&sb);
	target[512] = 'a';
	target[513] = '\0';
	assert_int_equal(request_frame(&sb, &q), -EINVAL);
	q = request();
	q.n = REQUEST_BODY_MAX + 1;
	assert_int_equal(request_frame(&sb, &q), -EMSGSIZE);
	q.n = 8192; /* more than the buffer's maximum */
	q.body = target;
	assert_int_equal(request_frame(&sb, &q), -EMSGSIZE);
	assert_int_equal(sb.len, 0);
}

static void a_frame_that_is_cut_is_refused(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(8192);
	struct wire_request q;
	struct wire_answer a = { .body = STRBUF_INIT(10) };
	struct envelope v;

	(void)state;
	frame(&sb, REQUEST_HEAD);
	for (size_t n = 0; n < sb.len; n++) {
		struct err e = { 0 };

		assert_int_equal(request_parse(sb.buf, n, &q, &e), -EINVAL);
		assert_true(e.text[0]);
		assert_int_equal(answer_parse(sb.buf, n, &a, &e), -EINVAL);
		assert_int_equal(envelope_parse(sb.buf, n, &v, &e), -EINVAL);
	}
}

static void a_head_beyond_its_limit_is_refused(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(8192);
	struct wire_request q;
	struct err e = { 0 };

	(void)state;
	sb_add_u32(&sb, HEAD_MAX + 1);
	while (sb.len < 4 + HEAD_MAX + 1)
		sb_addc(&sb, ' ');
	memcpy(sb.buf + 4, "{}", 2);
	assert_int_equal(request_parse(sb.buf, sb.len, &q, &e), -EINVAL);
	assert_string_equal(e.text, "request: a head of 4097 bytes in 4101");
}

static void an_answer_reads_back(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(8192);
	struct wire_answer a = { .id = 1,
				 .code = 503,
				 .credit = 8,
				 .retry_ms = 1500,
				 .body = STRBUF_INIT(100) };
	struct wire_answer b = { .body = STRBUF_INIT(100) };

	(void)state;
	sb_adds(&a.body, "body");
	assert_int_equal(answer_frame(&sb, &a), 0);
	assert_int_equal(answer_parse(sb.buf, sb.len, &b, NULL), 0);
	assert_int_equal(b.id, 1);
	assert_int_equal(b.code, 503);
	assert_int_equal(b.credit, 8);
	assert_int_equal(b.retry_ms, 1500);
	assert_string_equal(b.body.buf, "body");
	sb_free(&a.body);
	sb_free(&b.body);
}

static void an_answer_beyond_the_callers_limit_is_refused(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(8192);
	struct wire_answer b = { .body = STRBUF_INIT(3) };
	struct err e = { 0 };

	(void)state;
	frame(&sb, "{'id':0,'code':200,'credit':0,'retry_ms':0}");
	sb_adds(&sb, "body");
	assert_int_equal(answer_parse(sb.buf, sb.len, &b, &e), -EMSGSIZE);
	assert_string_equal(e.text, "answer: a body of 4 bytes");
	assert_int_equal(b.code, 0);
}

static void a_bad_answer_is_refused(void **state)
{
	static const char *const bad[] = {
		"{'code':99}",	 "{'code':600}", "{'code':'200'}",
		"{'credit':-1}", "{'id':1.5}",	 "{'retry_ms':86400001}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(8192);
		struct wire_answer b = { .body = STRBUF_INIT(3) };
		json_t *d =
		    with("{'id':0,'code':200,'credit':0,'retry_ms':0}", bad[i]);
		_cleanup_free_ char *text = json_text(d, false);

		json_decref(d);
		sb_add_u32(&sb, (uint32_t)strlen(text));
		sb_adds(&sb, text);
		assert_int_equal(answer_parse(sb.buf, sb.len, &b, NULL),
				 -EINVAL);
	}
}

/* ---- envelopes and cards ----------------------------------------------- */

static struct envelope envelope(void)
{
	struct envelope v = { .src = "9999",
			      .dst = "10000",
			      .to = "0123456789abcdef",
			      .instance = "00112233445566778899aabbccddeeff",
			      .started_ms = 1000,
			      .counter = 3,
			      .certificate = (char *)PEM,
			      .signature = (char *)"AAAA" };

	v.enc[0] = 0xab;
	return v;
}

static void an_envelope_reads_back(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(8192);
	struct envelope v = envelope(), r;
	_cleanup_free_ char *text = envelope_signed_text(&v);

	(void)state;
	assert_string_equal(
	    text, "{\"counter\":3,\"dst\":\"10000\",\"enc\":\"ab000000000000000"
		  "00000000000000000000000000000000000000000000000\","
		  "\"instance\":\"00112233445566778899aabbccddeeff\","
		  "\"src\":\"9999\",\"started\":1000,"
		  "\"to\":\"0123456789abcdef\",\"v\":1}");
	assert_int_equal(envelope_frame(&sb, &v), 0);
	sb_adds(&sb, "0123456789abcdef!");
	assert_int_equal(envelope_parse(sb.buf, sb.len, &r, NULL), 0);
	assert_string_equal(r.src, "9999");
	assert_string_equal(r.dst, "10000");
	assert_string_equal(r.to, v.to);
	assert_string_equal(r.instance, v.instance);
	assert_int_equal(r.started_ms, 1000);
	assert_int_equal(r.counter, 3);
	assert_memory_equal(r.enc, v.enc, 32);
	assert_string_equal(r.certificate, PEM);
	assert_string_equal(r.signature, "AAAA");
	assert_string_equal(r.signed_text, text);
	assert_int_equal(r.n, 17);
	assert_ptr_equal(r.sealed, sb.buf + sb.len - 17);
	envelope_free(&r);
}

static void an_envelope_without_a_seal_is_refused(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(8192);
	struct envelope v = envelope(), r;
	struct err e = { 0 };

	(void)state;
	assert_int_equal(envelope_frame(&sb, &v), 0);
	sb_adds(&sb, "0123456789abcde");
	assert_int_equal(envelope_parse(sb.buf, sb.len, &r, &e), -EINVAL);
	assert_string_equal(e.text, "envelope: 15 sealed bytes");
}

#define ENVELOPE_HEAD                                                   \
	"{'v':1,'src':'9999','dst':'10000','to':'0123456789abcdef',"    \
	"'instance':'00112233445566778899aabbccddeeff','started':1000," \
	"'counter':3,'enc':'" HEX64 "','certificate':'x','signature':'AAAA'}"

static void a_bad_envelope_is_refused_with_a_sentence(void **state)
{
	static const char *const bad[][2] = {
		{ "{'v':0}", "v: 0 is outside 1..1" },
		{ "{'src':'x'}", "src: not a party id" },
		{ "{'dst':null}", "dst: expected a string" },
		{ "{'to':'0123'}", "to: expected 16 digits" },
		{ "{'to':'0123456789ABCDEF'}", "to: expected 16 digits" },
		{ "{'instance':'" HEX64 "'}", "instance: expected 32 digits" },
		{ "{'started':-1}",
		  "started: -1 is outside 0..4611686018427387904" },
		{ "{'counter':-1}",
		  "counter: -1 is outside 0..9223372036854775807" },
		{ "{'enc':'00'}", "enc: expected 64 digits" },
		{ "{'certificate':''}", "certificate: a text of 0 bytes" },
		{ "{'certificate':'a\\u0001'}", "certificate: not PEM text" },
		{ "{'signature':'!'}", "signature: not base64" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(8192);
		json_t *d = with(ENVELOPE_HEAD, bad[i][0]);
		_cleanup_free_ char *text = json_text(d, false);
		struct envelope v;
		struct err e = { 0 };

		json_decref(d);
		sb_add_u32(&sb, (uint32_t)strlen(text));
		sb_adds(&sb, text);
		sb_adds(&sb, "0123456789abcdef");
		assert_int_equal(envelope_parse(sb.buf, sb.len, &v, &e),
				 -EINVAL);
		assert_int_equal(strncmp(e.text, "envelope: ", 10), 0);
		assert_string_equal(e.text + 10, bad[i][1]);
	}
}

static void the_longest_certificate_fits_into_an_envelope(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(1u << 20);
	struct envelope v = envelope(), r;
	_cleanup_free_ char *pem = xmalloc((64u << 10) + 2);

	(void)state;
	for (unsigned i = 0; i <= 64u << 10; i++)
		pem[i] = i % 64 == 63 ? '\n' : 'A';
	pem[64u << 10] = '\0';
	v.certificate = pem;
	assert_int_equal(envelope_frame(&sb, &v), 0);
	sb_adds(&sb, "0123456789abcdef");
	assert_int_equal(envelope_parse(sb.buf, sb.len, &r, NULL), 0);
	envelope_free(&r);
	memcpy(pem + (64u << 10), "A", 2);
	assert_int_equal(envelope_frame(&sb, &v), -EINVAL);
	/* Escapes would make it longer than any head. */
	memset(pem, '\r', 20000);
	pem[20000] = '\0';
	assert_int_equal(envelope_frame(&sb, &v), -EINVAL);
}

#define CARD_DOC                                                 \
	"{'party':'9999','seal_key':'" HEX64 "','created':1000," \
	"'certificate':'-----BEGIN\\nx','signature':'AAAA'}"

static void a_card_reads_back(void **state)
{
	json_t *d = doc(CARD_DOC), *again;
	struct card c;

	(void)state;
	assert_int_equal(card_parse(d, &c, NULL), 0);
	assert_string_equal(c.party, "9999");
	assert_int_equal(c.seal_key[1], 0x11);
	assert_int_equal(c.created_ms, 1000);
	again = card_json(&c, true);
	assert_true(json_equal(d, again));
	json_decref(again);
	json_object_del(d, "signature");
	again = card_json(&c, false);
	assert_true(json_equal(d, again));
	json_decref(again);
	card_free(&c);
	assert_int_equal(card_parse(d, &c, NULL), -EINVAL);
	json_decref(d);
}

static void a_bad_card_is_refused(void **state)
{
	static const char *const bad[] = {
		"{'party':''}",	     "{'party':'9999 '}",  "{'seal_key':'0'}",
		"{'created':'1'}",   "{'certificate':0}",  "{'signature':''}",
		"{'seal_key':null}", "{'certificate':''}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		json_t *d = with(CARD_DOC, bad[i]);
		struct card c;
		struct err e = { 0 };

		assert_int_equal(card_parse(d, &c, &e), -EINVAL);
		assert_int_equal(strncmp(e.text, "card: ", 6), 0);
		json_decref(d);
	}
}

static void documents_that_are_no_objects_are_refused(void **state)
{
	json_t *d = json_array();
	struct receipt_doc r;
	struct object o;
	struct card c;

	(void)state;
	assert_int_equal(object_parse(d, false, &o, NULL), -EINVAL);
	assert_int_equal(receipt_parse(d, &r, NULL), -EINVAL);
	assert_int_equal(card_parse(d, &c, NULL), -EINVAL);
	json_decref(d);
	assert_int_equal(card_parse(NULL, &c, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_reads_back),
		cmocka_unit_test(
		    a_request_needs_neither_digest_nor_via_nor_body),
		cmocka_unit_test(a_bad_request_is_refused_with_a_sentence),
		cmocka_unit_test(what_would_be_refused_is_not_sent),
		cmocka_unit_test(a_frame_that_is_cut_is_refused),
		cmocka_unit_test(a_head_beyond_its_limit_is_refused),
		cmocka_unit_test(an_answer_reads_back),
		cmocka_unit_test(an_answer_beyond_the_callers_limit_is_refused),
		cmocka_unit_test(a_bad_answer_is_refused),
		cmocka_unit_test(an_envelope_reads_back),
		cmocka_unit_test(an_envelope_without_a_seal_is_refused),
		cmocka_unit_test(a_bad_envelope_is_refused_with_a_sentence),
		cmocka_unit_test(the_longest_certificate_fits_into_an_envelope),
		cmocka_unit_test(a_card_reads_back),
		cmocka_unit_test(a_bad_card_is_refused),
		cmocka_unit_test(documents_that_are_no_objects_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
