// SPDX-License-Identifier: Apache-2.0
/* Keys, heads of messages and statuses: transfer/key.c. */
#include <endian.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/json.h"

#include "transfer/channel.h"
#include "transfer/wire.h"

#include "tests/unit/documents.h"

static struct message_head head(void)
{
	struct message_head h = {
		.key = { .f = { "1_a_0", "x", "", "guest", "9999", "host",
				"10000" } },
		.sha256 = HEX64,
		.size = CHANNEL_MESSAGE_MAX,
	};

	return h;
}

static void a_head_says_when_its_payload_is_a_file(void **state)
{
	for (int file = 0; file < 2; file++) {
		_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(8192);
		struct message_head h = head(), r;
		size_t used;

		(void)state;
		h.file = file;
		assert_int_equal(head_write(&sb, &h), 0);
		assert_int_equal(!!strstr(sb.buf + 4, "\"file\":1"), file);
		assert_int_equal(head_parse(sb.buf, sb.len, &r, &used, NULL),
				 0);
		assert_int_equal(r.file, file);
		assert_true(r.size == CHANNEL_MESSAGE_MAX);
		assert_int_equal(used, sb.len);
	}
}

static void file_in_a_head_is_one_or_absent(void **state)
{
	static const char *const bad[] = { "0",	   "2",	  "true",
					   "null", "1.0", "\"1\"" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(8192);
		struct message_head r;
		struct err e = { 0 };
		char text[400];
		size_t used;
		int n = snprintf(text, sizeof(text),
				 "{\"file\":%s,\"key\":[\"1_a_0\",\"x\",\"\","
				 "\"guest\",\"9999\",\"host\",\"10000\"],"
				 "\"sha256\":\"" HEX64 "\",\"size\":0}",
				 bad[i]);

		sb_add_u32(&sb, (uint32_t)n);
		sb_adds(&sb, text);
		assert_int_equal(head_parse(sb.buf, sb.len, &r, &used, &e),
				 -EINVAL);
		assert_int_equal(strncmp(e.text, "file: ", 6), 0);
	}
}

static void a_key_with_a_bad_field_is_refused(void **state)
{
	static const char *const good[KEY_FIELDS] = { "1_a_0", "x",    "",
						      "guest", "9999", "host",
						      "10000" };
	static const struct {
		int field;
		const char *text;
	} bad[] = {
		{ KEY_SESSION, "" },	     { KEY_NAME, "" },
		{ KEY_SRC_ROLE, "." },	     { KEY_TAG, ".." },
		{ KEY_NAME, "a/b" },	     { KEY_NAME, "a\\b" },
		{ KEY_NAME, "a\"b" },	     { KEY_TAG, "\n" },
		{ KEY_TAG, "\x7f" },	     { KEY_SRC_PARTY, "guest" },
		{ KEY_DST_PARTY, "010000" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		json_t *a = json_array();
		struct err e = { 0 };
		struct key k;

		for (int f = 0; f < KEY_FIELDS; f++)
			json_array_append_new(a, json_string(f == bad[i].field
								 ? bad[i].text
								 : good[f]));
		assert_int_equal(key_from_json(a, &k, &e), -EINVAL);
		assert_int_equal(strncmp(e.text, "key: ", 5), 0);
		json_decref(a);
	}
}

static void a_key_field_has_255_bytes_at_most(void **state)
{
	char text[257];

	(void)state;
	memset(text, 'x', 256);
	text[256] = '\0';
	for (int over = 0; over < 2; over++) {
		struct key k;
		json_t *a = json_pack("[s,s,s,s,s,s,s]", "1_a_0", text + !over,
				      "", "guest", "9999", "host", "10000");

		assert_int_equal(key_from_json(a, &k, NULL),
				 over ? -EINVAL : 0);
		json_decref(a);
	}
}

/* The quick way through a head and the parser of all JSON agree. */
static void a_head_may_be_written_in_other_ways(void **state)
{
	static const char *const same[] = {
		"{\"key\":[\"1_a_0\",\"x\",\"\",\"guest\",\"9999\",\"host\","
		"\"10000\"],\"sha256\":\"" HEX64 "\",\"size\":77}",
		" {\"key\": [\"1_a_0\",\"x\",\"\",\"guest\",\"9999\",\"host\","
		"\"10000\"], \"sha256\": \"" HEX64 "\", \"size\": 77}",
		"{\"size\":77,\"sha256\":\"" HEX64
		"\",\"key\":[\"1_a_0\",\"x\","
		"\"\",\"guest\",\"9999\",\"\\u0068ost\",\"10000\"]}",
	};
	static const char *const wrong[] = {
		"{\"key\":[\"1_a_0\",\"x\",\"\",\"guest\",\"9999\",\"host\","
		"\"10000\"],\"sha256\":\"" HEX64 "\",\"size\":077}",
		"{\"key\":[\"1_a_0\",\"x\",\"\",\"guest\",\"9999\",\"ho/st\","
		"\"10000\"],\"sha256\":\"" HEX64 "\",\"size\":77}",
		"{\"key\":[\"1_a_0\",\"x\",\"\",\"guest\",\"9999\",\"h\xff\","
		"\"10000\"],\"sha256\":\"" HEX64 "\",\"size\":77}",
		"{\"key\":[\"1_a_0\",\"x\",\"\",\"guest\",\"9999\",\"host\","
		"\"10000\"],\"sha256\":\"" HEX64 "\",\"size\":77}}",
		"{\"key\":[\"1_a_0\",\"x\",\"\",\"guest\",\"9999\",\"host\","
		"\"10000\"],\"sha256\":\"" HEX64 "\",\"size\":8589934593}",
	};
	struct message_head h = head();

	(void)state;
	h.size = 77;
	key_tid(&h.key, h.tid);
	for (size_t i = 0; i < ARRAY_SIZE(same) + ARRAY_SIZE(wrong); i++) {
		_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(8192);
		const char *text = i < ARRAY_SIZE(same)
				       ? same[i]
				       : wrong[i - ARRAY_SIZE(same)];
		struct message_head r;
		size_t used;

		assert_int_equal(sb_add_u32(&sb, (uint32_t)strlen(text)), 0);
		assert_int_equal(sb_adds(&sb, text), 0);
		if (i >= ARRAY_SIZE(same)) {
			assert_int_equal(
			    head_parse(sb.buf, sb.len, &r, &used, NULL),
			    -EINVAL);
			continue;
		}
		assert_int_equal(head_parse(sb.buf, sb.len, &r, &used, NULL),
				 0);
		assert_int_equal(used, sb.len);
		assert_memory_equal(&r, &h, sizeof(h));
	}
}

static void a_head_that_is_cut_needs_more(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(8192);
	struct message_head h = head(), r;
	size_t used = 77;

	(void)state;
	assert_int_equal(head_write(&sb, &h), 0);
	for (size_t n = 0; n < sb.len; n++)
		assert_int_equal(head_parse(sb.buf, n, &r, &used, NULL),
				 -EAGAIN);
	assert_int_equal(used, 77);
}

static void a_head_of_impossible_length_is_refused_at_once(void **state)
{
	static const uint32_t lengths[] = { 0, HEAD_MAX + 1, UINT32_MAX };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		uint32_t len = htole32(lengths[i]);
		struct message_head r;
		size_t used;

		assert_int_equal(head_parse(&len, 4, &r, &used, NULL), -EINVAL);
	}
}

static void the_digest_of_a_message_covers_its_key(void **state)
{
	struct message_head h = head();
	char a[65], b[65], c[65];

	(void)state;
	key_digest(&h.key, "abc", 3, a);
	key_digest(&h.key, "abd", 3, b);
	h.key.f[KEY_NAME][0] = 'y';
	key_digest(&h.key, "abc", 3, c);
	assert_string_not_equal(a, b);
	assert_string_not_equal(a, c);
	assert_true(hex64_valid(a));
}

static void the_job_of_a_session_stands_before_the_underscore(void **state)
{
	char job[41];

	(void)state;
	assert_true(session_job("123_a_0", job, sizeof(job)));
	assert_string_equal(job, "123");
	assert_false(session_job("123", job, sizeof(job)));
	assert_false(session_job("_a", job, sizeof(job)));
	assert_false(session_job("12a_0", job, sizeof(job)));
	assert_false(session_job("123_a", job, 3));
}

static void hex_reads_back(void **state)
{
	uint8_t b[32], again[32];
	char hex[65];

	(void)state;
	for (int i = 0; i < 32; i++)
		b[i] = (uint8_t)(i * 7 + 13);
	hex_encode(b, 32, hex);
	assert_true(hex64_decode(hex, again));
	assert_memory_equal(b, again, 32);
	memset(again, 0x5a, 32);
	hex[5] = 'G';
	assert_false(hex64_decode(hex, again));
	hex[5] = 'A'; /* one text per value */
	assert_false(hex64_decode(hex, again));
	assert_false(hex64_decode("", again));
	assert_int_equal(again[0], 0x5a);
}

static void statuses_survive_the_way_there_and_back(void **state)
{
	static const struct {
		int no;
		unsigned code;
		const char *word;
	} rows[] = {
		{ 0, 200, "ok" },
		{ EINVAL, 400, "bad_request" },
		{ EACCES, 403, "not_allowed" },
		{ ENOENT, 404, "not_found" },
		{ EEXIST, 409, "conflict" },
		{ ESTALE, 410, "closed" },
		{ EFBIG, 413, "too_large" },
		{ ERANGE, 416, "bad_range" },
		{ EUCLEAN, 421, "stale_key" },
		{ EBADMSG, 422, "damaged" },
		{ EHOSTUNREACH, 502, "no_route" },
		{ EAGAIN, 503, "try_later" },
		{ ETIMEDOUT, 504, "timed_out" },
		{ ENOSPC, 507, "no_space" },
		{ ELOOP, 508, "route_loop" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(status_to_http(-rows[i].no), rows[i].code);
		assert_int_equal(http_to_status(rows[i].code), -rows[i].no);
		assert_string_equal(status_word(-rows[i].no), rows[i].word);
	}
}

static void statuses_without_a_number_of_their_own(void **state)
{
	static const long fine[] = { 201, 202, 204 };
	static const long unknown[] = { 0, 100, 203, 301, 401, 500, 599, -400 };

	(void)state;
	assert_int_equal(status_to_http(-EBUSY), 409);
	assert_string_equal(status_word(-EBUSY), "busy");
	assert_int_equal(status_to_http(-EDQUOT), 507);
	assert_string_equal(status_word(-EDQUOT), "over_quota");
	assert_int_equal(status_to_http(-EIO), 500);
	assert_string_equal(status_word(-EIO), "internal");
	assert_int_equal(http_to_status(429), -EAGAIN);
	for (size_t i = 0; i < ARRAY_SIZE(fine); i++)
		assert_int_equal(http_to_status(fine[i]), 0);
	for (size_t i = 0; i < ARRAY_SIZE(unknown); i++)
		assert_int_equal(http_to_status(unknown[i]), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_head_says_when_its_payload_is_a_file),
		cmocka_unit_test(file_in_a_head_is_one_or_absent),
		cmocka_unit_test(a_key_with_a_bad_field_is_refused),
		cmocka_unit_test(a_key_field_has_255_bytes_at_most),
		cmocka_unit_test(a_head_may_be_written_in_other_ways),
		cmocka_unit_test(a_head_that_is_cut_needs_more),
		cmocka_unit_test(
		    a_head_of_impossible_length_is_refused_at_once),
		cmocka_unit_test(the_digest_of_a_message_covers_its_key),
		cmocka_unit_test(
		    the_job_of_a_session_stands_before_the_underscore),
		cmocka_unit_test(hex_reads_back),
		cmocka_unit_test(statuses_survive_the_way_there_and_back),
		cmocka_unit_test(statuses_without_a_number_of_their_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
