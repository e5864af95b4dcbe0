// SPDX-License-Identifier: Apache-2.0
/*
 * What is transferred: announcements, manifests and receipts as JSON, the tree
 * over the chunks' digests, and chunks named in text.
 */
#include <openssl/evp.h>

#include "lib/conf.h"
#include "lib/json.h"

#include "transfer/secure.h"
#include "transfer/wire.h"

/* What no file system here could open anyway; keeps a document, with every
 * character of the path escaped, below DOCUMENT_MAX. */
#define OBJECT_PATH_MAX 4095
#define SIZE_MAX_CLOSED ((int64_t)CHUNKS_MAX * CHUNK_MAX)
#define INT_MAX_JSON	(INT64_C(1) << 62) /* of times and generations */
#define SIGNATURE_MAX	4096
#define BASE64                                                 \
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" \
	"0123456789+/="

/* ---- objects ----------------------------------------------------------- */

void object_free(struct object *o)
{
	if (!o)
		return;
	free(o->path);
	free(o->key);
	o->path = NULL;
	o->key = NULL;
}

/* The identity of a file, as one line; NULL when its path is not UTF-8. */
static char *file_text(const struct object *o)
{
	char generation[24];
	json_t *a;
	char *text;

	(void)snprintf(generation, sizeof(generation), "%llu",
		       (unsigned long long)o->generation);
	a = json_pack("[s,s,s,s]", o->src, o->dst, o->path, generation);
	text = a ? json_text(a, false) : NULL;
	json_decref(a);
	return text;
}

void object_identify(struct object *o)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(DOCUMENT_MAX);
	_cleanup_free_ char *text = NULL;
	uint8_t md[32];

	o->tid[0] = '\0';
	if (o->kind == OBJECT_MESSAGE) {
		(void)snprintf(o->src, sizeof(o->src), "%.15s",
			       o->key->f[KEY_SRC_PARTY]);
		(void)snprintf(o->dst, sizeof(o->dst), "%.15s",
			       o->key->f[KEY_DST_PARTY]);
		key_tid(o->key, o->tid);
		return;
	}
	text = file_text(o);
	if (!text)
		return;
	sb_adds(&sb, "rollfs-file-v1\n");
	sb_adds(&sb, text);
	if (sb.error)
		return;
	sha256(sb.buf, sb.len, md);
	hex_encode(md, sizeof(md), o->tid);
}

uint64_t object_chunks(const struct object *o)
{
	return o->size ? (o->size - 1) / o->chunk_size + 1 : 0;
}

uint64_t object_chunk_len(const struct object *o, uint64_t index)
{
	if (index >= object_chunks(o))
		return 0;
	return MIN(o->chunk_size, o->size - index * o->chunk_size);
}

uint64_t chunk_size_for(uint64_t size, uint64_t least)
{
	uint64_t c = CHUNK_MIN;

	if (!least)
		least = CHUNK_DEFAULT;
	while (c < least && c < CHUNK_MAX)
		c *= 2;
	if (size == SIZE_OPEN)
		return c;
	while (c < CHUNK_MAX && size > c * CHUNKS_MAX)
		c *= 2;
	return c;
}

json_t *object_json(const struct object *o, bool manifest)
{
	json_int_t size = o->size == SIZE_OPEN ? -1 : (json_int_t)o->size;
	json_t *d, *key = NULL;
	int r;

	d = json_pack("{s:i,s:s,s:s,s:s,s:I,s:I,s:I,s:I}", "v", 1, "kind",
		      o->kind == OBJECT_FILE ? "file" : "message", "src",
		      o->src, "dst", o->dst, "chunk_size",
		      (json_int_t)o->chunk_size, "size", size, "created",
		      (json_int_t)o->created_ms, "deadline",
		      (json_int_t)o->deadline_ms);
	if (!d)
		return NULL;
	if (o->kind == OBJECT_FILE) {
		r = json_object_set_new(d, "path", json_string(o->path));
		r |= json_object_set_new(
		    d, "generation", json_integer((json_int_t)o->generation));
	} else {
		key = key_to_json(o->key);
		r = json_array_size(key) == KEY_FIELDS ? 0 : -1;
		r |= json_object_set_new(d, "key", key);
	}
	if (manifest) {
		r |= json_object_set_new(d, "root", json_string(o->root));
		if (o->sha256[0])
			r |= json_object_set_new(d, "sha256",
						 json_string(o->sha256));
	}
	if (r) { /* without memory, or a name that is not UTF-8 */
		json_decref(d);
		return NULL;
	}
	return d;
}

static int get_party(const json_t *d, const char *name, char ret[16],
		     struct err *e)
{
	const char *s;
	int r = json_get_str(d, name, &s, e);

	if (r)
		return r;
	if (!party_id_valid(s))
		return err_set(e, EINVAL, "%s: not a party id", name);
	(void)snprintf(ret, 16, "%.15s", s);
	return 0;
}

static int get_hex64(const json_t *d, const char *name, char ret[65],
		     struct err *e)
{
	const char *s;
	int r = json_get_str(d, name, &s, e);

	if (r)
		return r;
	if (!hex64_valid(s))
		return err_set(e, EINVAL, "%s: expected 64 digits of a SHA-256",
			       name);
	memcpy(ret, s, 65);
	return 0;
}

static int get_file(const json_t *d, struct object *o, struct err *e)
{
	const json_t *path = json_object_get(d, "path");
	int64_t generation;
	const char *s;
	int r = json_get_str(d, "path", &s, e);

	if (!r)
		r = json_get_int(d, "generation", 1, INT_MAX_JSON, &generation,
				 e);
	if (r)
		return r;
	/* jansson lets nothing through that is not UTF-8. */
	if (strlen(s) != json_string_length(path) ||
	    strlen(s) > OBJECT_PATH_MAX || !path_valid(s))
		return err_set(e, EINVAL, "path: not the path of a file");
	o->generation = (uint64_t)generation;
	o->path = strdup(s);
	return o->path ? 0 : err_set(e, ENOMEM, "out of memory");
}

static int get_message(const json_t *d, struct object *o, struct err *e)
{
	int r;

	o->key = calloc(1, sizeof(*o->key));
	if (!o->key)
		return err_set(e, ENOMEM, "out of memory");
	r = key_from_json(json_object_get(d, "key"), o->key, e);
	if (r)
		return r;
	if (strcmp(o->src, o->key->f[KEY_SRC_PARTY]) != 0 ||
	    strcmp(o->dst, o->key->f[KEY_DST_PARTY]) != 0)
		return err_set(e, EINVAL,
			       "key: its parties are not src and dst");
	return 0;
}

static int get_sizes(const json_t *d, bool manifest, struct object *o,
		     struct err *e)
{
	int64_t chunk, size;
	int r = json_get_int(d, "chunk_size", CHUNK_MIN, CHUNK_MAX, &chunk, e);

	if (!r)
		r = json_get_int(d, "size", manifest ? 0 : -1, SIZE_MAX_CLOSED,
				 &size, e);
	if (r)
		return r;
	if (chunk & (chunk - 1))
		return err_set(e, EINVAL, "chunk_size: not a power of two");
	o->chunk_size = (uint64_t)chunk;
	o->size = size < 0 ? SIZE_OPEN : (uint64_t)size;
	if (o->size != SIZE_OPEN && object_chunks(o) > CHUNKS_MAX)
		return err_set(e, EINVAL,
			       "size: more than %u chunks of this size",
			       CHUNKS_MAX);
	return 0;
}

static int get_object(const json_t *d, bool manifest, struct object *o,
		      struct err *e)
{
	const char *kind;
	int64_t v;
	int r = json_get_int(d, "v", 1, 1, &v, e);

	if (!r)
		r = json_get_str(d, "kind", &kind, e);
	if (r)
		return r;
	if (!strcmp(kind, "file"))
		o->kind = OBJECT_FILE;
	else if (!strcmp(kind, "message"))
		o->kind = OBJECT_MESSAGE;
	else
		return err_set(e, EINVAL, "kind: expected file or message");
	r = get_party(d, "src", o->src, e);
	if (!r)
		r = get_party(d, "dst", o->dst, e);
	if (!r)
		r = get_sizes(d, manifest, o, e);
	if (!r)
		r = json_get_int(d, "created", 0, INT_MAX_JSON, &o->created_ms,
				 e);
	if (!r)
		r = json_get_int(d, "deadline", 0, INT_MAX_JSON,
				 &o->deadline_ms, e);
	if (!r && manifest)
		r = get_hex64(d, "root", o->root, e);
	/* What a message's task checks; a file has only its root. */
	if (!r && manifest &&
	    (o->kind == OBJECT_MESSAGE || json_object_get(d, "sha256")))
		r = get_hex64(d, "sha256", o->sha256, e);
	if (r)
		return r;
	return o->kind == OBJECT_FILE ? get_file(d, o, e)
				      : get_message(d, o, e);
}

int object_parse(const json_t *doc, bool manifest, struct object *ret,
		 struct err *e)
{
	struct object o = { 0 };
	int r = get_object(doc, manifest, &o, e);

	if (!r) {
		object_identify(&o);
		if (!o.tid[0])
			r = err_set(e, ENOMEM, "out of memory");
	}
	if (r) {
		object_free(&o);
		(void)err_wrap(e, manifest ? "manifest" : "announcement");
		return r;
	}
	*ret = o;
	return 0;
}

/* ---- the tree of digests ----------------------------------------------- */

static void hash_node(EVP_MD_CTX *md, uint8_t prefix, const uint8_t *data,
		      size_t n, uint8_t ret[32])
{
	/* Without a type: that of before, which need not be looked up. */
	if (!EVP_DigestInit_ex(md, NULL, NULL) ||
	    !EVP_DigestUpdate(md, &prefix, 1) ||
	    !EVP_DigestUpdate(md, data, n) ||
	    !EVP_DigestFinal_ex(md, ret, NULL))
		abort(); /* only without memory */
}

void merkle_root(const uint8_t (*digests)[32], uint64_t n, uint8_t ret[32])
{
	/* Roots of the complete subtrees to the left, the largest first: one
	 * for each bit of how many leaves there were. */
	uint8_t stack[65][32];
	unsigned depth = 0;
	EVP_MD_CTX *md = EVP_MD_CTX_new();

	if (!md || !EVP_DigestInit_ex(md, EVP_sha256(), NULL))
		abort(); /* only without memory */
	for (uint64_t i = 0; i < n; i++) {
		hash_node(md, 0, digests[i], 32, stack[depth++]);
		for (uint64_t c = i; c & 1; c >>= 1) {
			depth--;
			hash_node(md, 1, stack[depth - 1], 64,
				  stack[depth - 1]);
		}
	}
	for (; depth > 1; depth--)
		hash_node(md, 1, stack[depth - 2], 64, stack[depth - 2]);
	if (n)
		memcpy(ret, stack[0], 32);
	else
		hash_node(md, 0, stack[0], 0, ret);
	EVP_MD_CTX_free(md);
}

/* ---- receipts ---------------------------------------------------------- */

void receipt_free(struct receipt_doc *r)
{
	if (!r)
		return;
	free(r->signature);
	r->signature = NULL;
}

json_t *receipt_json(const struct receipt_doc *r, bool with_signature)
{
	json_t *d =
	    json_pack("{s:s,s:s,s:I,s:I,s:s}", "tid", r->tid, "root", r->root,
		      "size", (json_int_t)r->size, "committed",
		      (json_int_t)r->committed_ms, "receiver", r->receiver);

	if (d && with_signature &&
	    json_object_set_new(d, "signature", json_string(r->signature))) {
		json_decref(d);
		return NULL;
	}
	return d;
}

static int get_receipt(const json_t *d, struct receipt_doc *r, struct err *e)
{
	const char *signature;
	int64_t size;
	size_t n;
	int no = get_hex64(d, "tid", r->tid, e);

	if (!no)
		no = get_hex64(d, "root", r->root, e);
	if (!no)
		no = get_party(d, "receiver", r->receiver, e);
	if (!no)
		no = json_get_int(d, "size", 0, SIZE_MAX_CLOSED, &size, e);
	if (!no)
		no = json_get_int(d, "committed", 0, INT_MAX_JSON,
				  &r->committed_ms, e);
	if (!no)
		no = json_get_str(d, "signature", &signature, e);
	if (no)
		return no;
	r->size = (uint64_t)size;
	n = strspn(signature, BASE64);
	if (!n || n > SIGNATURE_MAX || signature[n])
		return err_set(e, EINVAL, "signature: not base64");
	r->signature = strdup(signature);
	return r->signature ? 0 : err_set(e, ENOMEM, "out of memory");
}

int receipt_parse(const json_t *doc, struct receipt_doc *ret, struct err *e)
{
	struct receipt_doc r = { 0 };
	int no = get_receipt(doc, &r, e);

	if (no) {
		(void)err_wrap(e, "receipt");
		return no;
	}
	*ret = r;
	return 0;
}

/* ---- chunks in text ---------------------------------------------------- */

static bool bit(const uint8_t *bits, uint64_t i)
{
	return bits[i / 8] >> (i % 8) & 1;
}

char *ranges_text(const uint8_t *bits, uint64_t n, size_t max_len)
{
	struct strbuf sb = STRBUF_INIT(max_len);

	for (uint64_t i = 0, end; i < n; i = end) {
		char one[48];
		int len;

		end = i + 1;
		if (!bit(bits, i))
			continue;
		while (end < n && bit(bits, end))
			end++;
		len = snprintf(one, sizeof(one), "%s%llu", sb.len ? "," : "",
			       (unsigned long long)i);
		if (end > i + 1)
			(void)snprintf(one + len, sizeof(one) - (size_t)len,
				       "-%llu", (unsigned long long)end - 1);
		/* What does not fit is left out whole: it is sent again. */
		if (sb_adds(&sb, one))
			break;
	}
	return sb_detach(&sb);
}

/* Decimal digits without a leading zero, below n; NULL otherwise. */
static const char *number(const char *s, uint64_t n, uint64_t *ret)
{
	uint64_t v = 0;

	if (*s < '0' || *s > '9' || (*s == '0' && s[1] >= '0' && s[1] <= '9'))
		return NULL;
	for (; *s >= '0' && *s <= '9'; s++) {
		v = v * 10 + (uint64_t)(*s - '0');
		if (v >= n || v > UINT32_MAX)
			return NULL;
	}
	*ret = v;
	return s;
}

/* Ascending, no two that touch, as ranges_text writes them; bits may be NULL
 * to look only. */
static int ranges_walk(const char *s, uint8_t *bits, uint64_t n)
{
	uint64_t from, to, next = 0;

	while (*s) {
		s = number(s, n, &from);
		if (!s || from < next)
			return -EINVAL;
		to = from;
		if (*s == '-') {
			s = number(s + 1, n, &to);
			if (!s || to <= from)
				return -EINVAL;
		}
		for (uint64_t i = from; bits && i <= to; i++)
			bits[i / 8] |= (uint8_t)(1u << (i % 8));
		next = to + 2;
		if (*s == ',' && s[1])
			s++;
		else if (*s)
			return -EINVAL;
	}
	return 0;
}

int ranges_parse(const char *text, uint8_t *bits, uint64_t n)
{
	int r = ranges_walk(text, NULL, n);

	if (r)
		return r;
	memset(bits, 0, (size_t)((n + 7) / 8));
	return ranges_walk(text, bits, n);
}

#define DIGEST_FORM "sha-256=:"
#define DIGEST_LEN  44 /* 32 bytes in base64 */

void content_digest(const uint8_t digest[32], char ret[64])
{
	_cleanup_free_ char *b = base64_encode(digest, 32);

	(void)snprintf(ret, 64, DIGEST_FORM "%s:", b ? b : "");
}

int content_digest_parse(const char *text, uint8_t ret[32])
{
	char copy[DIGEST_LEN + 1], again[64];
	uint8_t md[32];

	if (strncmp(text, DIGEST_FORM, strlen(DIGEST_FORM)) != 0 ||
	    strlen(text) != strlen(DIGEST_FORM) + DIGEST_LEN + 1)
		return -EINVAL;
	memcpy(copy, text + strlen(DIGEST_FORM), DIGEST_LEN);
	copy[DIGEST_LEN] = '\0';
	if (base64_decode(copy, md, sizeof(md)) != sizeof(md))
		return -EINVAL;
	/* One text per digest: bits that base64 leaves unused are 0. */
	content_digest(md, again);
	if (strcmp(again, text) != 0)
		return -EINVAL;
	memcpy(ret, md, sizeof(md));
	return 0;
}
