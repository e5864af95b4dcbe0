/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What crosses between parties, as pure functions over bytes: the documents
 * of a transfer, the tree of its digests, and requests as they travel inside
 * something else (a sealed envelope, an answer to a poll).  docs/protocol.md
 * shows them all.
 */
#ifndef TRANSFER_WIRE_H
#define TRANSFER_WIRE_H

#include <jansson.h>

#include "lib/err.h"
#include "lib/strbuf.h"

/* ---- key.c: identities ------------------------------------------------- */

enum {
	KEY_SESSION,
	KEY_NAME,
	KEY_TAG,
	KEY_SRC_ROLE,
	KEY_SRC_PARTY,
	KEY_DST_ROLE,
	KEY_DST_PARTY,
	KEY_FIELDS
};
#define KEY_FIELD_MAX 255
#define HEAD_MAX      4096 /* of a message on the wire or in a file */

struct key {
	char f[KEY_FIELDS][KEY_FIELD_MAX + 1];
};

/* From an array of seven strings; every field checked. */
int key_from_json(const json_t *a, struct key *ret, struct err *e) MUST_CHECK;
json_t *key_to_json(const struct key *k);
/* 1..255 bytes, no control character, no '/', no quote or backslash, not
 * "." or ".."; the tag may be empty. */
int key_check(const struct key *k, struct err *e) MUST_CHECK;
/* The canonical text: JSON array without white space; caller frees. */
char *key_text(const struct key *k);
#define KEY_TEXT_MAX (KEY_FIELDS * (KEY_FIELD_MAX + 3) + 2)
/* The same into out, with a NUL; gives its length. */
size_t key_put(char *out, const struct key *k);
/* tid = hex SHA-256 of "rollfs-transfer-v1\n" and the text. */
void key_tid(const struct key *k, char ret[65]);
/* hex SHA-256 of key text, LF, payload: what the tasks check end to end. */
void key_digest(const struct key *k, const void *data, size_t n, char ret[65]);
/* The job of a session: digits before the first '_'. */
bool session_job(const char *session, char *ret, size_t n);
bool job_id_valid(const char *s);

/* A message: u32 little-endian length of the head, the head ({"key", "sha256",
 * "size"}), the payload.  In journals also with "file": the payload stands in
 * a file of its own and none follows. */
struct message_head {
	struct key key;
	char tid[65];
	char sha256[65];
	uint64_t size;
	bool file;
};
int head_write(struct strbuf *sb, const struct message_head *h) MUST_CHECK;
/* The text of the head without its first brace, with a NUL; its length. */
#define HEAD_TEXT_MAX (KEY_TEXT_MAX + 128)
size_t head_put(char *out, const struct message_head *h);
/* n bytes of which the head must be the beginning; *ret_used = 4 + its
 * length; -EAGAIN when more bytes are needed. */
int head_parse(const void *data, size_t n, struct message_head *ret,
	       size_t *ret_used, struct err *e) MUST_CHECK;

/*
 * JSON as we write it, read without a tree of objects: each takes something
 * from the front.  What is valid but written otherwise is false too; whoever
 * asks then parses all of it.
 */
struct scan {
	const char *at, *end;
};
bool scan_text(struct scan *s, const char *text) MUST_CHECK;
bool scan_number(struct scan *s, uint64_t *ret) MUST_CHECK;
bool scan_digest(struct scan *s, char ret[65]) MUST_CHECK;
bool scan_key(struct scan *s, struct key *ret) MUST_CHECK;
/* All that is left, as head_put() writes it. */
bool scan_head(struct scan *s, struct message_head *ret) MUST_CHECK;

/* A path from a peer or a user: 1..64 components of 1..255 bytes, no ".",
 * "..", NUL or control character. */
bool path_valid(const char *path);
char *percent_encode(const char *s);
char *percent_decode(const char *s); /* NULL when malformed */
void hex_encode(const uint8_t *in, size_t n, char *out);
bool hex64_valid(const char *s);
bool hex64_decode(const char *s, uint8_t ret[32]);
void sha256(const void *data, size_t n, uint8_t ret[32]);

/* ---- object.c: what is transferred ------------------------------------- */

#define CHUNK_MIN     (256u << 10)
#define CHUNK_DEFAULT (4u << 20)
#define CHUNK_MAX     (64u << 20)
#define CHUNKS_MAX    (1u << 18)  /* 1 TiB at the default size */
#define INLINE_MAX    (64u << 10) /* travels with its manifest */
#define DOCUMENT_MAX  (16u << 10) /* any JSON below */
#define SIZE_OPEN     UINT64_MAX  /* still being produced */

enum object_kind { OBJECT_FILE, OBJECT_MESSAGE };

struct object {
	enum object_kind kind;
	char src[16], dst[16];
	char *path; /* of a file; owned */
	uint64_t generation;
	struct key *key; /* of a message; owned */
	char tid[65];
	uint64_t chunk_size; /* a power of two */
	uint64_t size;	     /* SIZE_OPEN in an announcement: not known yet */
	int64_t created_ms;
	int64_t deadline_ms; /* 0 = none; after it the transfer is given up */
	/* Of the manifest only: */
	char root[65];
	char sha256[65]; /* a message's end-to-end digest (key_digest) */
};
void object_free(struct object *o); /* what it owns */
/* Sets tid (and src, dst of a message) from the identity. */
void object_identify(struct object *o);
uint64_t object_chunks(const struct object *o); /* of a known size */
uint64_t object_chunk_len(const struct object *o, uint64_t index);
/* The smallest chunk size from CHUNK_DEFAULT (or least) on that needs at most
 * CHUNKS_MAX chunks. */
uint64_t chunk_size_for(uint64_t size, uint64_t least);

/*
 * Announcement: {"v","kind","src","dst","path","generation"|"key",
 * "chunk_size","size","created","deadline"}; a manifest has "root", "sha256"
 * and "signature" too and always a size.  Text is compact with sorted keys,
 * which is also what the signature is over (without "signature").
 */
json_t *object_json(const struct object *o, bool manifest);
int object_parse(const json_t *doc, bool manifest, struct object *ret,
		 struct err *e) MUST_CHECK;

/*
 * The root of the digests of n chunks: leaf = SHA-256(0x00 | SHA-256(chunk)),
 * node = SHA-256(0x01 | left | right), an odd last node moves up; of none,
 * SHA-256(0x00).  (The tree of RFC 6962 over the chunks' digests.)
 */
void merkle_root(const uint8_t (*digests)[32], uint64_t n, uint8_t ret[32]);

/* {"tid","root","size","committed","receiver","signature"} */
struct receipt_doc {
	char tid[65], root[65], receiver[16];
	uint64_t size;
	int64_t committed_ms;
	char *signature; /* owned */
};
void receipt_free(struct receipt_doc *r);
json_t *receipt_json(const struct receipt_doc *r, bool with_signature);
int receipt_parse(const json_t *doc, struct receipt_doc *ret,
		  struct err *e) MUST_CHECK;

/* Chunks as ranges, "0-41,43"; ret_bits has room for n bits. */
char *ranges_text(const uint8_t *bits, uint64_t n, size_t max_len);
int ranges_parse(const char *text, uint8_t *bits, uint64_t n) MUST_CHECK;

/* "sha-256=:BASE64:" of RFC 9530. */
void content_digest(const uint8_t digest[32], char ret[64]);
int content_digest_parse(const char *text, uint8_t ret[32]) MUST_CHECK;

/* ---- request.c: a request inside something else ------------------------ */

#define REQUEST_BODY_MAX (5u << 20)
#define VIA_MAX		 4 /* relays on a way */

struct wire_request {
	uint64_t id;	/* of a poll's answer; 0 otherwise */
	char method[8]; /* GET PUT POST DELETE */
	char *target;	/* path and query, "/v1/..."; owned */
	char *digest;	/* Content-Digest, or NULL; owned */
	char *via;	/* "1,2": relays so far, or NULL; owned */
	unsigned timeout_ms;
	const void *body; /* borrowed */
	size_t n;
};
struct wire_answer {
	uint64_t id;
	unsigned code;
	unsigned credit; /* chunks that may be under way; 0 = not said */
	unsigned retry_ms;
	struct strbuf body;
};
void request_free(struct wire_request *q);
/* u32 length of the head, head (JSON), body. */
int request_frame(struct strbuf *sb, const struct wire_request *q) MUST_CHECK;
/* ret->body points into data. */
int request_parse(const void *data, size_t n, struct wire_request *ret,
		  struct err *e) MUST_CHECK;
int answer_frame(struct strbuf *sb, const struct wire_answer *a) MUST_CHECK;
/* Appends the body to ret->body, which the caller has set up. */
int answer_parse(const void *data, size_t n, struct wire_answer *ret,
		 struct err *e) MUST_CHECK;

/*
 * A sealed request between two parties that have others between them.
 *
 *   u32 length of the head, head (JSON), sealed request (HPKE)
 *
 * Head: {"v","src","dst","to" (first 16 digits of the receiver's seal key),
 * "instance","started","counter" (for replays), "enc"} and, not covered by
 * the signature, "certificate" (PEM chain of the source), "signature".
 */
struct envelope {
	char src[16], dst[16];
	char to[17];	   /* which seal key of the receiver */
	char instance[33]; /* random, of the sending process */
	int64_t started_ms;
	uint64_t counter;
	uint8_t enc[32];
	char *certificate, *signature; /* owned */
	/* Set by parse: the signed text (owned), the sealed bytes (borrowed) */
	char *signed_text;
	const void *sealed;
	size_t n;
};
void envelope_free(struct envelope *v);
char *envelope_signed_text(const struct envelope *v);
/* The head; the caller appends the sealed bytes. */
int envelope_frame(struct strbuf *sb, const struct envelope *v) MUST_CHECK;
int envelope_parse(const void *data, size_t n, struct envelope *ret,
		   struct err *e) MUST_CHECK;

/* What a party lets others seal to: {"party","seal_key","created",
 * "certificate","signature"}; made anew at each start, so nothing that was
 * recorded can be opened or replayed later. */
struct card {
	char party[16];
	uint8_t seal_key[32];
	int64_t created_ms;
	char *certificate, *signature; /* owned */
};
void card_free(struct card *c);
json_t *card_json(const struct card *c, bool with_signature);
int card_parse(const json_t *doc, struct card *ret, struct err *e) MUST_CHECK;

/* ---- errno <-> HTTP status of this protocol ---------------------------- */
unsigned status_to_http(int status);
int http_to_status(long code);
/* The stable code word of a refusal ("not_allowed"), for problem+json. */
const char *status_word(int status);

#endif
