// SPDX-License-Identifier: Apache-2.0
/* The documents of a transfer as a partner sends them; the first byte says
 * which.  What is taken must survive being written and read again, and be no
 * longer than a document may be. */
#include "lib/conf.h"
#include "lib/json.h"

#include "transfer/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* The document's text, parsed again; d is taken over. */
static json_t *again(json_t *d, size_t max)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(max);
	json_t *b;

	if (!d || json_write(&sb, d, false))
		abort();
	b = json_parse(sb.buf, sb.len, NULL);
	if (!b || !json_equal(d, b))
		abort();
	json_decref(d);
	return b;
}

static void refused(int r, const struct err *e)
{
	if (r >= 0 || !e->text[0])
		abort();
}

static void chunks(const struct object *o)
{
	uint64_t n = object_chunks(o), sum = 0;

	if (n > CHUNKS_MAX)
		abort();
	for (uint64_t i = 0; i < n; i++)
		sum += object_chunk_len(o, i);
	if (sum != o->size || object_chunk_len(o, n))
		abort();
}

static void object(const json_t *d, bool manifest)
{
	struct object o, p;
	struct err e = { 0 };
	json_t *b;
	int r = object_parse(d, manifest, &o, &e);

	if (r) {
		refused(r, &e);
		return;
	}
	if (!hex64_valid(o.tid) || !party_id_valid(o.src) ||
	    !party_id_valid(o.dst) || (o.kind == OBJECT_FILE) != !o.key ||
	    (o.kind == OBJECT_FILE) != !!o.path ||
	    (o.path && !path_valid(o.path)) ||
	    (o.key && key_check(o.key, NULL)) ||
	    (manifest && (o.size == SIZE_OPEN || !hex64_valid(o.root))))
		abort();
	if (o.size != SIZE_OPEN)
		chunks(&o);
	b = again(object_json(&o, manifest), DOCUMENT_MAX);
	if (object_parse(b, manifest, &p, NULL) || strcmp(o.tid, p.tid) != 0 ||
	    o.size != p.size || o.generation != p.generation ||
	    strcmp(o.sha256, p.sha256) != 0)
		abort();
	json_decref(b);
	object_free(&p);
	object_free(&o);
}

static void receipt(const json_t *d)
{
	struct receipt_doc a, b;
	struct err e = { 0 };
	json_t *c;
	int r = receipt_parse(d, &a, &e);

	if (r) {
		refused(r, &e);
		return;
	}
	c = again(receipt_json(&a, true), DOCUMENT_MAX);
	if (receipt_parse(c, &b, NULL) || a.size != b.size ||
	    a.committed_ms != b.committed_ms || strcmp(a.tid, b.tid) != 0 ||
	    strcmp(a.signature, b.signature) != 0)
		abort();
	json_decref(c);
	receipt_free(&a);
	receipt_free(&b);
}

static void card(const json_t *d)
{
	struct card a, b;
	struct err e = { 0 };
	json_t *c;
	int r = card_parse(d, &a, &e);

	if (r) {
		refused(r, &e);
		return;
	}
	c = again(card_json(&a, true), 96u << 10);
	if (card_parse(c, &b, NULL) || a.created_ms != b.created_ms ||
	    memcmp(a.seal_key, b.seal_key, sizeof(a.seal_key)) != 0 ||
	    strcmp(a.certificate, b.certificate) != 0)
		abort();
	json_decref(c);
	card_free(&a);
	card_free(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	json_t *d;

	if (n < 2)
		return 0;
	d = json_parse((const char *)data + 1, n - 1, NULL);
	if (!d)
		return 0;
	switch (data[0]) {
	case 'a':
		object(d, false);
		break;
	case 'm':
		object(d, true);
		break;
	case 'r':
		receipt(d);
		break;
	case 'c':
		card(d);
		break;
	default:
		break;
	}
	json_decref(d);
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
