// SPDX-License-Identifier: Apache-2.0
/* What crosses between parties, as bytes: transfer/wire.h. */
#include <endian.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/json.h"

#include "transfer/channel.h"
#include "transfer/secure.h"
#include "transfer/wire.h"

#define HEX64 "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define ZERO64 \
	"0000000000000000000000000000000000000000000000000000000000000000"
#define PEM    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
#define DIGEST "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"

/* JSON of a test: apostrophes stand for quotes. */
static json_t *doc(const char *text)
{
	_cleanup_free_ char *s = xstrdup(text);
	struct err e = { 0 };
	json_t *d;

	for (char *p = s; *p; p++)
		if (*p == '\'')
			*p = '"';
	d = json_parse(s, strlen(s), &e);
	if (!d)
		fail_msg("%s: %s", text, e.text);
	return d;
}

#define FILE_DOC                                                            \
	"{'v':1,'kind':'file','src':'9999','dst':'10000','path':'a/b.csv'," \
	"'generation':7,'chunk_size':4194304,'size':10000000,"              \
	"'created':1000,'deadline':0}"
#define MESSAGE_DOC                                                          \
	"{'v':1,'kind':'message','src':'9999','dst':'10000','key':['1_a_0'," \
	"'x','0.1','guest','9999','host','10000'],'chunk_size':262144,"      \
	"'size':-1,'created':1000,'deadline':2000}"

/* The document with members of another one put over its own. */
static json_t *with(const char *text, const char *other)
{
	json_t *d = doc(text), *o = doc(other);

	assert_int_equal(json_object_update(d, o), 0);
	json_decref(o);
	return d;
}

static void object_refused(const char *text, const char *other, bool manifest,
			   const char *sentence)
{
	struct object o = { .kind = 99 };
	struct err e = { 0 };
	json_t *d = with(text, other);

	assert_int_equal(object_parse(d, manifest, &o, &e), -EINVAL);
	assert_string_equal(e.text, sentence);
	assert_int_equal(o.kind, 99);
	json_decref(d);
}

/* ---- objects ----------------------------------------------------------- */

static void a_file_announcement_reads_back(void **state)
{
	struct object o;
	json_t *d = doc(FILE_DOC), *again;

	(void)state;
	assert_int_equal(object_parse(d, false, &o, NULL), 0);
	assert_int_equal(o.kind, OBJECT_FILE);
	assert_string_equal(o.src, "9999");
	assert_string_equal(o.dst, "10000");
	assert_string_equal(o.path, "a/b.csv");
	assert_int_equal(o.generation, 7);
	assert_int_equal(o.size, 10000000);
	assert_int_equal(o.created_ms, 1000);
	assert_null(o.key);
	again = object_json(&o, false);
	assert_true(json_equal(d, again));
	json_decref(again);
	json_decref(d);
	object_free(&o);
}

static void a_message_announcement_reads_back(void **state)
{
	struct object o;
	json_t *d = doc(MESSAGE_DOC), *again;
	char tid[65];

	(void)state;
	assert_int_equal(object_parse(d, false, &o, NULL), 0);
	assert_int_equal(o.kind, OBJECT_MESSAGE);
	assert_true(o.size == SIZE_OPEN);
	key_tid(o.key, tid);
	assert_string_equal(o.tid, tid);
	assert_int_equal(o.deadline_ms, 2000);
	again = object_json(&o, false);
	assert_true(json_equal(d, again));
	json_decref(again);
	json_decref(d);
	object_free(&o);
}

static void the_text_of_a_manifest_is_canonical(void **state)
{
	struct object o;
	json_t *d = with(FILE_DOC, "{'root':'" HEX64 "','signature':'AAAA',"
				   "'unknown':[1]}");
	json_t *again;
	_cleanup_free_ char *text = NULL;

	(void)state;
	assert_int_equal(object_parse(d, true, &o, NULL), 0);
	again = object_json(&o, true);
	text = json_text(again, false);
	assert_string_equal(
	    text, "{\"chunk_size\":4194304,\"created\":1000,\"deadline\":0,"
		  "\"dst\":\"10000\",\"generation\":7,\"kind\":\"file\","
		  "\"path\":\"a/b.csv\",\"root\":\"" HEX64
		  "\",\"size\":10000000,\"src\":\"9999\",\"v\":1}");
	json_decref(again);
	json_decref(d);
	object_free(&o);
}

static void a_manifest_has_root_and_size(void **state)
{
	(void)state;
	object_refused(FILE_DOC, "{}", true,
		       "manifest: root: expected a string");
	object_refused(FILE_DOC, "{'root':'00'}", true,
		       "manifest: root: expected 64 digits of a SHA-256");
	object_refused(FILE_DOC, "{'root':'" HEX64 "','size':-1}", true,
		       "manifest: size: -1 is outside 0..17592186044416");
}

static void a_manifest_of_a_message_has_its_digest(void **state)
{
	struct object o;
	json_t *d = with(MESSAGE_DOC,
			 "{'size':3,'root':'" HEX64 "','sha256':'" ZERO64 "'}");

	(void)state;
	object_refused(MESSAGE_DOC, "{'size':3,'root':'" HEX64 "'}", true,
		       "manifest: sha256: expected a string");
	assert_int_equal(object_parse(d, true, &o, NULL), 0);
	assert_string_equal(o.sha256, ZERO64);
	json_decref(d);
	object_free(&o);
}

static void a_bad_announcement_is_refused_with_a_sentence(void **state)
{
	static const struct {
		const char *text, *other, *sentence;
	} bad[] = {
		{ FILE_DOC, "{'v':2}", "v: 2 is outside 1..1" },
		{ FILE_DOC, "{'kind':'dir'}",
		  "kind: expected file or message" },
		{ FILE_DOC, "{'kind':1}", "kind: expected a string" },
		{ FILE_DOC, "{'src':'09'}", "src: not a party id" },
		{ FILE_DOC, "{'dst':'a'}", "dst: not a party id" },
		{ FILE_DOC, "{'path':'../x'}", "path: not the path of a file" },
		{ FILE_DOC, "{'path':'/x'}", "path: not the path of a file" },
		{ FILE_DOC, "{'path':''}", "path: not the path of a file" },
		{ FILE_DOC, "{'path':null}", "path: expected a string" },
		{ FILE_DOC, "{'generation':0}",
		  "generation: 0 is outside 1..4611686018427387904" },
		{ FILE_DOC, "{'generation':1.0}",
		  "generation: expected an integer" },
		{ FILE_DOC, "{'chunk_size':131072}",
		  "chunk_size: 131072 is outside 262144..67108864" },
		{ FILE_DOC, "{'chunk_size':300000}",
		  "chunk_size: not a power of two" },
		{ FILE_DOC, "{'size':-2}",
		  "size: -2 is outside -1..17592186044416" },
		{ FILE_DOC, "{'size':1099511627777}",
		  "size: more than 262144 chunks of this size" },
		{ FILE_DOC, "{'created':-1}",
		  "created: -1 is outside 0..4611686018427387904" },
		{ FILE_DOC, "{'deadline':'x'}",
		  "deadline: expected an integer" },
		{ MESSAGE_DOC, "{'src':'1'}",
		  "key: its parties are not src and dst" },
		{ MESSAGE_DOC, "{'key':[]}", "key: expected seven strings" },
		{ MESSAGE_DOC,
		  "{'key':['a/b','x','','guest','9999','host','10000']}",
		  "key: field 0 has a character that is not allowed" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char sentence[200];

		(void)snprintf(sentence, sizeof(sentence), "announcement: %s",
			       bad[i].sentence);
		object_refused(bad[i].text, bad[i].other, false, sentence);
	}
}

static void no_member_of_an_announcement_may_be_missing(void **state)
{
	static const char *const texts[] = { FILE_DOC, MESSAGE_DOC };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		json_t *all = doc(texts[i]), *v;
		const char *name;

		json_object_foreach (all, name, v) {
			json_t *d = json_copy(all);
			struct err e = { 0 };
			struct object o;

			json_object_del(d, name);
			assert_int_equal(object_parse(d, false, &o, &e),
					 -EINVAL);
			assert_non_null(strstr(e.text, name));
			json_decref(d);
		}
		json_decref(all);
	}
}

static void a_path_longer_than_any_system_opens_is_refused(void **state)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(8192);
	json_t *d = doc(FILE_DOC);
	struct object o;

	(void)state;
	for (int i = 0; i < 2047; i++)
		sb_adds(&sb, i % 127 ? "ab" : "/a");
	sb_add(&sb, "x", 1);
	json_object_set_new(d, "path", json_string(sb.buf + 1));
	assert_int_equal(sb.len - 1, 4094);
	assert_int_equal(object_parse(d, false, &o, NULL), 0);
	object_free(&o);
	sb_adds(&sb, "yz");
	json_object_set_new(d, "path", json_string(sb.buf + 1));
	assert_int_equal(object_parse(d, false, &o, NULL), -EINVAL);
	json_decref(d);
}

static void the_longest_document_is_within_its_limit(void **state)
{
	struct object o = { .kind = OBJECT_FILE,
			    .src = "4294967295",
			    .dst = "4294967295",
			    .generation = UINT64_C(1) << 62,
			    .chunk_size = CHUNK_MAX,
			    .size = SIZE_OPEN,
			    .created_ms = INT64_C(1) << 62,
			    .deadline_ms = INT64_C(1) << 62,
			    .root = HEX64,
			    .sha256 = HEX64 };
	json_t *d;
	_cleanup_free_ char *text = NULL;

	(void)state;
	o.path = xmalloc(4096);
	memset(o.path, '"', 4095);
	o.path[4095] = '\0';
	d = object_json(&o, true);
	text = json_text(d, false);
	assert_in_range(strlen(text), 8000, DOCUMENT_MAX - 4096);
	json_decref(d);
	object_free(&o);
}

/* By tests/data/make_merkle_vectors.py. */
static void the_id_of_a_file_is_that_of_its_text(void **state)
{
	struct object o = { .kind = OBJECT_FILE,
			    .src = "9999",
			    .dst = "10000",
			    .path = (char *)"a/b \"\xc3\xbc\".csv",
			    .generation = 7 };

	(void)state;
	object_identify(&o);
	assert_string_equal(o.tid, "825c1cd952b3faa97ad1e265be0b72878419cc50f03"
				   "01e0e9cb8cc21b7346b73");
}

static void the_id_of_a_message_is_that_of_its_key(void **state)
{
	struct key k = { .f = { "1_a_0", "x", "0.1", "guest", "9999", "host",
				"10000" } };
	struct object o = { .kind = OBJECT_MESSAGE, .key = &k };

	(void)state;
	object_identify(&o);
	assert_string_equal(o.tid, "6cd2e294433e0be888d751f48be13d69610d19c452d"
				   "5d942af7dca25de2d0383");
	assert_string_equal(o.src, "9999");
	assert_string_equal(o.dst, "10000");
}

static void a_path_that_is_not_utf8_has_no_document(void **state)
{
	struct object o = { .kind = OBJECT_FILE,
			    .path = (char *)"\xff",
			    .chunk_size = CHUNK_MIN,
			    .tid = "x" };

	(void)state;
	object_identify(&o);
	assert_string_equal(o.tid, "");
	assert_null(object_json(&o, false));
}

static void chunks_cover_the_object(void **state)
{
	struct object o = { .chunk_size = CHUNK_MIN };

	(void)state;
	assert_int_equal(object_chunks(&o), 0);
	assert_int_equal(object_chunk_len(&o, 0), 0);
	o.size = 1;
	assert_int_equal(object_chunks(&o), 1);
	assert_int_equal(object_chunk_len(&o, 0), 1);
	o.size = 2 * CHUNK_MIN;
	assert_int_equal(object_chunks(&o), 2);
	assert_int_equal(object_chunk_len(&o, 1), CHUNK_MIN);
	o.size++;
	assert_int_equal(object_chunks(&o), 3);
	assert_int_equal(object_chunk_len(&o, 1), CHUNK_MIN);
	assert_int_equal(object_chunk_len(&o, 2), 1);
	assert_int_equal(object_chunk_len(&o, 3), 0);
	assert_int_equal(object_chunk_len(&o, UINT64_MAX), 0);
}

static void chunks_of_an_open_object_are_whole(void **state)
{
	struct object o = { .chunk_size = CHUNK_MIN, .size = SIZE_OPEN };

	(void)state;
	assert_int_equal(object_chunk_len(&o, 0), CHUNK_MIN);
	assert_int_equal(object_chunk_len(&o, CHUNKS_MAX), CHUNK_MIN);
}

static void chunks_grow_with_the_object(void **state)
{
	uint64_t limit = (uint64_t)CHUNK_DEFAULT * CHUNKS_MAX;

	(void)state;
	assert_int_equal(chunk_size_for(0, 0), CHUNK_DEFAULT);
	assert_int_equal(chunk_size_for(limit, 0), CHUNK_DEFAULT);
	assert_int_equal(chunk_size_for(limit + 1, 0), 2 * CHUNK_DEFAULT);
	assert_int_equal(chunk_size_for(SIZE_OPEN, 0), CHUNK_DEFAULT);
	assert_int_equal(chunk_size_for(1, 1), CHUNK_MIN);
	assert_int_equal(chunk_size_for(1, CHUNK_MIN + 1), 2 * CHUNK_MIN);
	assert_int_equal(chunk_size_for(limit + 1, CHUNK_MIN),
			 2 * CHUNK_DEFAULT);
	assert_int_equal(chunk_size_for(UINT64_MAX - 1, 0), CHUNK_MAX);
	assert_int_equal(chunk_size_for(1, UINT64_MAX), CHUNK_MAX);
}

/* By tests/data/make_merkle_vectors.py. */
static void roots_are_those_of_the_vectors(void **state)
{
	static const struct {
		uint64_t n;
		const char *root;
	} vectors[] = {
		{ 0, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a306"
		     "17afa01d" },
		{ 1, "9c1720a2c8e01fcf0dd095bddf6cfd846e0b799cd87180031af92910"
		     "6a80524e" },
		{ 2, "9d7c13656b747dcb0a00fe91f914e8ccebd46f593030eb3e16773608"
		     "1d3ad880" },
		{ 3, "7676aa547be2859cb87140342a70dc1c608365b1f6d09085cf106d00"
		     "5dd59e75" },
		{ 4, "f3a24fea49f9bad0ca642983591240d1acfaff5b394fa33a158b629f"
		     "ef907e1b" },
		{ 5, "7a949bf4611de7ddd9c2f4588f1751b396908350124dd901c0dd5571"
		     "0def786e" },
		{ 7, "8c706745667a16c5341211e6dab9096a9089169b54ed8fbbfc183d18"
		     "32b2004f" },
		{ 8, "df485cc7c0769f2c7df4a4cca94f43189c279feaa6874cd404466dde"
		     "89236634" },
		{ 1000, "72d01313fd894ac36bc4938a4637081b4da0506c1b85f20b7a4ff3"
			"85de0fb54d" },
	};
	static uint8_t digests[1000][32];
	uint8_t root[32];
	char hex[65];

	(void)state;
	for (int i = 0; i < 1000; i++) {
		char text[20];
		int n = snprintf(text, sizeof(text), "chunk %d", i);

		sha256(text, (size_t)n, digests[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(vectors); i++) {
		merkle_root((const uint8_t(*)[32])digests, vectors[i].n, root);
		hex_encode(root, sizeof(root), hex);
		assert_string_equal(hex, vectors[i].root);
	}
}

/* ---- receipts ---------------------------------------------------------- */

#define RECEIPT_DOC                                         \
	"{'tid':'" HEX64 "','root':'" ZERO64 "','size':12," \
	"'committed':1234,'receiver':'10000','signature':'AbC='}"

static void a_receipt_reads_back(void **state)
{
	struct receipt_doc r;
	json_t *d = doc(RECEIPT_DOC), *again;

	(void)state;
	assert_int_equal(receipt_parse(d, &r, NULL), 0);
	assert_string_equal(r.tid, HEX64);
	assert_string_equal(r.root, ZERO64);
	assert_string_equal(r.receiver, "10000");
	assert_int_equal(r.size, 12);
	assert_int_equal(r.committed_ms, 1234);
	assert_string_equal(r.signature, "AbC=");
	again = receipt_json(&r, true);
	assert_true(json_equal(d, again));
	json_decref(again);
	again = receipt_json(&r, false);
	json_object_del(d, "signature");
	assert_true(json_equal(d, again));
	json_decref(again);
	json_decref(d);
	receipt_free(&r);
}

static void a_bad_receipt_is_refused_with_a_sentence(void **state)
{
	static const char *const bad[][2] = {
		{ "{'tid':'x'}", "tid: expected 64 digits of a SHA-256" },
		{ "{'root':7}", "root: expected a string" },
		{ "{'receiver':'0'}", "receiver: not a party id" },
		{ "{'size':-1}", "size: -1 is outside 0..17592186044416" },
		{ "{'committed':-1}",
		  "committed: -1 is outside 0..4611686018427387904" },
		{ "{'signature':''}", "signature: not base64" },
		{ "{'signature':'a b'}", "signature: not base64" },
		{ "{'signature':null}", "signature: expected a string" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		json_t *d = with(RECEIPT_DOC, bad[i][0]);
		struct receipt_doc r;
		struct err e = { 0 };

		assert_int_equal(receipt_parse(d, &r, &e), -EINVAL);
		assert_int_equal(strncmp(e.text, "receipt: ", 9), 0);
		assert_string_equal(e.text + 9, bad[i][1]);
		json_decref(d);
	}
}

/* ---- ranges and digests ------------------------------------------------ */

static void ranges_name_the_chunks(void **state)
{
	static const char *const texts[] = { "",	"0",	      "0-1",
					     "0-41,43", "1,3,5-6,63", "0-63" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		uint8_t bits[8] = { 0xa5, 0xa5, 0xa5, 0xa5, 0xa5 };
		_cleanup_free_ char *text = NULL;

		assert_int_equal(ranges_parse(texts[i], bits, 64), 0);
		text = ranges_text(bits, 64, 100);
		assert_string_equal(text, texts[i]);
	}
}

static void the_lowest_bit_is_the_first_chunk(void **state)
{
	uint8_t bits[2];

	(void)state;
	assert_int_equal(ranges_parse("0,9", bits, 10), 0);
	assert_int_equal(bits[0], 1);
	assert_int_equal(bits[1], 2);
}

static void malformed_ranges_are_refused_and_change_nothing(void **state)
{
	static const char *const bad[] = {
		",",
		"0,",
		",0",
		"0-",
		"-1",
		"1-0",
		"1-1",
		"0,1",
		"0-2,2",
		"0-2,3",
		"5,2",
		" 1",
		"1 ",
		"+1",
		"01",
		"0x1",
		"64",
		"0-64",
		"0--1",
		"0-1-2",
		"0,,2",
		"a",
		"18446744073709551616",
		"99999999999999999999999999",
	};
	uint8_t bits[8] = { 0xa5 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(ranges_parse(bad[i], bits, 64), -EINVAL);
		assert_int_equal(bits[0], 0xa5);
	}
}

static void ranges_that_do_not_fit_are_left_out_whole(void **state)
{
	static const uint8_t bits[2] = { 0x07, 0xb8 }; /* 0-2,11-13,15 */
	static const char *const texts[] = { "",    "",		"",    "0-2",
					     "0-2", "0-2",	"0-2", "0-2",
					     "0-2", "0-2,11-13" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		_cleanup_free_ char *text = ranges_text(bits, 16, i);

		assert_string_equal(text, texts[i]);
	}
}

static void a_content_digest_reads_back(void **state)
{
	uint8_t md[32], again[32];
	char text[64];

	(void)state;
	sha256("", 0, md);
	content_digest(md, text);
	assert_string_equal(text, DIGEST);
	assert_int_equal(content_digest_parse(text, again), 0);
	assert_memory_equal(md, again, 32);
}

static void a_malformed_content_digest_is_refused(void **state)
{
	static const char *const bad[] = {
		"",
		"sha-256=::",
		"sha-512=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
		"sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
		"sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=: ",
		"sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=:",
		"sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuF==:",
		"sha-256=:47DEQpj8HBSa-/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
		DIGEST ", " DIGEST,
	};
	uint8_t md[32];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(content_digest_parse(bad[i], md), -EINVAL);
}

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

/* ---- key.c ------------------------------------------------------------- */

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
		cmocka_unit_test(a_file_announcement_reads_back),
		cmocka_unit_test(a_message_announcement_reads_back),
		cmocka_unit_test(the_text_of_a_manifest_is_canonical),
		cmocka_unit_test(a_manifest_has_root_and_size),
		cmocka_unit_test(a_manifest_of_a_message_has_its_digest),
		cmocka_unit_test(a_bad_announcement_is_refused_with_a_sentence),
		cmocka_unit_test(no_member_of_an_announcement_may_be_missing),
		cmocka_unit_test(
		    a_path_longer_than_any_system_opens_is_refused),
		cmocka_unit_test(the_longest_document_is_within_its_limit),
		cmocka_unit_test(the_id_of_a_file_is_that_of_its_text),
		cmocka_unit_test(the_id_of_a_message_is_that_of_its_key),
		cmocka_unit_test(a_path_that_is_not_utf8_has_no_document),
		cmocka_unit_test(chunks_cover_the_object),
		cmocka_unit_test(chunks_of_an_open_object_are_whole),
		cmocka_unit_test(chunks_grow_with_the_object),
		cmocka_unit_test(roots_are_those_of_the_vectors),
		cmocka_unit_test(a_receipt_reads_back),
		cmocka_unit_test(a_bad_receipt_is_refused_with_a_sentence),
		cmocka_unit_test(ranges_name_the_chunks),
		cmocka_unit_test(the_lowest_bit_is_the_first_chunk),
		cmocka_unit_test(
		    malformed_ranges_are_refused_and_change_nothing),
		cmocka_unit_test(ranges_that_do_not_fit_are_left_out_whole),
		cmocka_unit_test(a_content_digest_reads_back),
		cmocka_unit_test(a_malformed_content_digest_is_refused),
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
		cmocka_unit_test(a_head_says_when_its_payload_is_a_file),
		cmocka_unit_test(file_in_a_head_is_one_or_absent),
		cmocka_unit_test(a_key_with_a_bad_field_is_refused),
		cmocka_unit_test(a_key_field_has_255_bytes_at_most),
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
