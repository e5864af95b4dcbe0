// SPDX-License-Identifier: Apache-2.0
/* The documents of a transfer: transfer/object.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/json.h"

#include "transfer/wire.h"

#include "tests/unit/documents.h"

#define FILE_DOC                                                            \
	"{'v':1,'kind':'file','src':'9999','dst':'10000','path':'a/b.csv'," \
	"'generation':7,'chunk_size':4194304,'size':10000000,"              \
	"'created':1000,'deadline':0}"
#define MESSAGE_DOC                                                          \
	"{'v':1,'kind':'message','src':'9999','dst':'10000','key':['1_a_0'," \
	"'x','0.1','guest','9999','host','10000'],'chunk_size':262144,"      \
	"'size':-1,'created':1000,'deadline':2000}"

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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
