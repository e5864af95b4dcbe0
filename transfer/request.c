// SPDX-License-Identifier: Apache-2.0
/*
 * Requests and answers as they travel inside something else, the envelope
 * that others carry for us, and the card with what it is sealed to.
 */
#include <endian.h>

#include "lib/conf.h"
#include "lib/json.h"

#include "transfer/secure.h"
#include "transfer/wire.h"

#define ENVELOPE_HEAD_MAX (96u << 10) /* it holds certificates */
#define PEM_TEXT_MAX	  (64u << 10)
#define PEM_JSON_MAX	  (80u << 10) /* the same with escapes */
#define SIGNATURE_MAX	  4096
#define TARGET_MAX	  512
#define TIMEOUT_MAX	  60000
#define CREDIT_MAX	  (1u << 20)
#define RETRY_MAX	  (24u * 3600 * 1000)
#define INT_MAX_JSON	  (INT64_C(1) << 62)
/* A sealed request with the largest body. */
#define SEALED_MAX (4 + HEAD_MAX + REQUEST_BODY_MAX + SEAL_OVERHEAD)

/* ---- u32 length, JSON head, the rest ----------------------------------- */

/* Takes the head over; NULL: it could not be made. */
static int frame(struct strbuf *sb, json_t *head, size_t head_max)
{
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT(head_max);
	int r = json_write(&text, head, false);

	json_decref(head);
	if (!r)
		r = sb_reserve(sb, 4 + text.len);
	if (!r)
		r = sb_add_u32(sb, (uint32_t)text.len);
	return r ? r : sb_add(sb, text.buf, text.len);
}

/* The head, the caller's; *ret_body is where the rest begins. */
static json_t *unframe(const void *data, size_t n, size_t head_max,
		       size_t *ret_body, struct err *e)
{
	uint32_t len;
	json_t *head;

	if (n < 4) {
		err_set(e, EINVAL, "%zu bytes are no frame", n);
		return NULL;
	}
	memcpy(&len, data, 4);
	len = le32toh(len);
	if (!len || len > head_max || len > n - 4) {
		err_set(e, EINVAL, "a head of %u bytes in %zu", len, n);
		return NULL;
	}
	head = json_parse((const char *)data + 4, len, e);
	if (!head)
		return NULL;
	if (!json_is_object(head)) {
		err_set(e, EINVAL, "the head is not an object");
		json_decref(head);
		return NULL;
	}
	*ret_body = 4 + (size_t)len;
	return head;
}

static int get_uint(const json_t *d, const char *name, unsigned min,
		    unsigned max, unsigned *ret, struct err *e)
{
	int64_t v;
	int r = json_get_int(d, name, min, max, &v, e);

	if (!r)
		*ret = (unsigned)v;
	return r;
}

static int get_u64(const json_t *d, const char *name, uint64_t *ret,
		   struct err *e)
{
	int64_t v;
	int r = json_get_int(d, name, 0, INT64_MAX, &v, e);

	if (!r)
		*ret = (uint64_t)v;
	return r;
}

/* A copy of a text that must be there. */
static int get_text(const json_t *d, const char *name, size_t max, char **ret,
		    struct err *e)
{
	const char *s;
	int r = json_get_str(d, name, &s, e);
	size_t n;

	if (r)
		return r;
	n = json_string_length(json_object_get(d, name));
	if (!n || n > max || strlen(s) != n)
		return err_set(e, EINVAL, "%s: a text of %zu bytes", name, n);
	*ret = strdup(s);
	return *ret ? 0 : err_set(e, ENOMEM, "out of memory");
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

/* Exactly n hexadecimal digits; ret has room for n + 1. */
static int get_digits(const json_t *d, const char *name, size_t n, char *ret,
		      struct err *e)
{
	const char *s;
	int r = json_get_str(d, name, &s, e);

	if (r)
		return r;
	if (strspn(s, "0123456789abcdef") != n || s[n])
		return err_set(e, EINVAL, "%s: expected %zu digits", name, n);
	memcpy(ret, s, n + 1);
	return 0;
}

static int get_key(const json_t *d, const char *name, uint8_t ret[32],
		   struct err *e)
{
	char digits[65];
	int r = get_digits(d, name, 64, digits, e);

	if (!r && !hex64_decode(digits, ret))
		r = err_set(e, EINVAL, "%s: expected 64 digits", name);
	return r;
}

/* ---- requests ---------------------------------------------------------- */

static bool method_valid(const char *s)
{
	return !strcmp(s, "GET") || !strcmp(s, "PUT") || !strcmp(s, "POST") ||
	       !strcmp(s, "DELETE");
}

static bool target_valid(const char *s)
{
	size_t n = strlen(s);

	if (n > TARGET_MAX || strncmp(s, "/v1/", 4) != 0)
		return false;
	for (; *s; s++)
		if (*s <= ' ' || *s > '~')
			return false;
	return true;
}

static bool via_valid(const char *s)
{
	for (unsigned relays = 1; relays <= VIA_MAX; relays++) {
		size_t n = strcspn(s, ",");
		char id[16];

		if (n >= sizeof(id))
			return false;
		memcpy(id, s, n);
		id[n] = '\0';
		if (!party_id_valid(id))
			return false;
		if (!s[n])
			return true;
		s += n + 1;
	}
	return false;
}

/* One rule for what we send and for what we take. */
static int request_check(const struct wire_request *q, struct err *e)
{
	uint8_t md[32];

	if (!method_valid(q->method))
		return err_set(e, EINVAL, "method: not one of this protocol");
	if (!target_valid(q->target))
		return err_set(e, EINVAL, "target: not a path below /v1/");
	if (q->digest && content_digest_parse(q->digest, md))
		return err_set(e, EINVAL, "digest: not a sha-256");
	if (q->via && !via_valid(q->via))
		return err_set(e, EINVAL, "via: expected up to %d party ids",
			       VIA_MAX);
	if (q->timeout_ms > TIMEOUT_MAX)
		return err_set(e, EINVAL, "timeout_ms: more than %d",
			       TIMEOUT_MAX);
	if (q->id > INT64_MAX)
		return err_set(e, EINVAL, "id: too large");
	if (q->n > REQUEST_BODY_MAX)
		return err_set(e, EMSGSIZE, "a body of %zu bytes", q->n);
	return 0;
}

void request_free(struct wire_request *q)
{
	if (!q)
		return;
	free(q->target);
	free(q->digest);
	free(q->via);
	q->target = q->digest = q->via = NULL;
}

int request_frame(struct strbuf *sb, const struct wire_request *q)
{
	size_t len = sb->len;
	json_t *head;
	int r = request_check(q, NULL);

	if (r)
		return r;
	head = json_pack("{s:I,s:s,s:s,s:I}", "id", (json_int_t)q->id, "method",
			 q->method, "target", q->target, "timeout_ms",
			 (json_int_t)q->timeout_ms);
	if (head && q->digest)
		json_object_set_new(head, "digest", json_string(q->digest));
	if (head && q->via)
		json_object_set_new(head, "via", json_string(q->via));
	r = frame(sb, head, HEAD_MAX);
	if (!r)
		r = sb_add(sb, q->body, q->n);
	if (r && sb->len > len) { /* not half of it */
		sb->len = len;
		sb->buf[len] = '\0';
	}
	return r;
}

static int get_request(const json_t *d, struct wire_request *q, struct err *e)
{
	_cleanup_free_ char *method = NULL;
	int r = get_u64(d, "id", &q->id, e);

	if (!r)
		r = get_text(d, "method", sizeof(q->method) - 1, &method, e);
	if (!r)
		r = get_text(d, "target", TARGET_MAX, &q->target, e);
	if (!r && json_object_get(d, "digest"))
		r = get_text(d, "digest", 63, &q->digest, e);
	if (!r && json_object_get(d, "via"))
		r = get_text(d, "via", 63, &q->via, e);
	if (!r)
		r = get_uint(d, "timeout_ms", 0, TIMEOUT_MAX, &q->timeout_ms,
			     e);
	if (r)
		return r;
	(void)snprintf(q->method, sizeof(q->method), "%s", method);
	return request_check(q, e);
}

int request_parse(const void *data, size_t n, struct wire_request *ret,
		  struct err *e)
{
	struct wire_request q = { 0 };
	size_t body;
	json_t *head = unframe(data, n, HEAD_MAX, &body, e);
	int r = -EINVAL;

	if (head) {
		q.body = (const char *)data + body;
		q.n = n - body;
		r = get_request(head, &q, e);
		json_decref(head);
	}
	if (r) {
		request_free(&q);
		(void)err_wrap(e, "request");
		return r;
	}
	*ret = q;
	return 0;
}

/* ---- answers ----------------------------------------------------------- */

int answer_frame(struct strbuf *sb, const struct wire_answer *a)
{
	size_t len = sb->len;
	int r;

	if (a->id > INT64_MAX || a->code < 100 || a->code > 599 ||
	    a->credit > CREDIT_MAX || a->retry_ms > RETRY_MAX)
		return -EINVAL;
	r = frame(sb,
		  json_pack("{s:I,s:I,s:I,s:I}", "id", (json_int_t)a->id,
			    "code", (json_int_t)a->code, "credit",
			    (json_int_t)a->credit, "retry_ms",
			    (json_int_t)a->retry_ms),
		  HEAD_MAX);
	if (!r)
		r = sb_add(sb, a->body.buf, a->body.len);
	if (r && sb->len > len) { /* not half of it */
		sb->len = len;
		sb->buf[len] = '\0';
	}
	return r;
}

static int get_answer(const json_t *d, struct wire_answer *a, struct err *e)
{
	int r = get_u64(d, "id", &a->id, e);

	if (!r)
		r = get_uint(d, "code", 100, 599, &a->code, e);
	if (!r)
		r = get_uint(d, "credit", 0, CREDIT_MAX, &a->credit, e);
	if (!r)
		r = get_uint(d, "retry_ms", 0, RETRY_MAX, &a->retry_ms, e);
	return r;
}

int answer_parse(const void *data, size_t n, struct wire_answer *ret,
		 struct err *e)
{
	struct wire_answer a = { 0 };
	size_t body;
	json_t *head = unframe(data, n, HEAD_MAX, &body, e);
	int r = -EINVAL;

	if (head) {
		r = get_answer(head, &a, e);
		json_decref(head);
	}
	if (!r) {
		r = sb_add(&ret->body, (const char *)data + body, n - body);
		if (r)
			err_set(e, -r, "a body of %zu bytes", n - body);
	}
	if (r) {
		(void)err_wrap(e, "answer");
		return r;
	}
	ret->id = a.id;
	ret->code = a.code;
	ret->credit = a.credit;
	ret->retry_ms = a.retry_ms;
	return 0;
}

/* ---- certificate and signature ----------------------------------------- */

/* Is it text that a JSON head has room for?  What it says is for
 * identity_verify_pem. */
static bool pem_valid(const char *s)
{
	size_t n = strlen(s), json = 0;

	if (!n || n > PEM_TEXT_MAX)
		return false;
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '\n' || c == '\t' || c == '"' || c == '\\')
			json += 2;
		else if (c == '\r')
			json += 6;
		else if (c < ' ' || c == 0x7f)
			return false;
		else
			json++;
	}
	return json <= PEM_JSON_MAX;
}

/* Of base64 only the letters are looked at: whether it is the signature, the
 * certificate's key tells. */
static bool signature_valid(const char *s)
{
	size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuv"
			     "wxyz0123456789+/=");

	return n && n <= SIGNATURE_MAX && !s[n];
}

static int get_proof(const json_t *d, char **ret_certificate,
		     char **ret_signature, struct err *e)
{
	int r = get_text(d, "certificate", PEM_TEXT_MAX, ret_certificate, e);

	if (!r && !pem_valid(*ret_certificate))
		r = err_set(e, EINVAL, "certificate: not PEM text");
	if (!r)
		r = get_text(d, "signature", SIGNATURE_MAX, ret_signature, e);
	if (!r && !signature_valid(*ret_signature))
		r = err_set(e, EINVAL, "signature: not base64");
	return r;
}

/* ---- envelopes --------------------------------------------------------- */

void envelope_free(struct envelope *v)
{
	if (!v)
		return;
	free(v->certificate);
	free(v->signature);
	free(v->signed_text);
	v->certificate = v->signature = v->signed_text = NULL;
}

/* What the signature covers. */
static json_t *envelope_json(const struct envelope *v)
{
	char enc[65];

	hex_encode(v->enc, sizeof(v->enc), enc);
	return json_pack("{s:i,s:s,s:s,s:s,s:s,s:I,s:I,s:s}", "v", 1, "src",
			 v->src, "dst", v->dst, "to", v->to, "instance",
			 v->instance, "started", (json_int_t)v->started_ms,
			 "counter", (json_int_t)v->counter, "enc", enc);
}

char *envelope_signed_text(const struct envelope *v)
{
	json_t *d = envelope_json(v);
	char *text = d ? json_text(d, false) : NULL;

	json_decref(d);
	return text;
}

int envelope_frame(struct strbuf *sb, const struct envelope *v)
{
	json_t *d;

	if (v->counter > INT64_MAX || !v->certificate || !v->signature ||
	    !pem_valid(v->certificate) || !signature_valid(v->signature))
		return -EINVAL;
	d = envelope_json(v);
	if (d &&
	    (json_object_set_new(d, "certificate",
				 json_string(v->certificate)) ||
	     json_object_set_new(d, "signature", json_string(v->signature)))) {
		json_decref(d);
		d = NULL;
	}
	return frame(sb, d, ENVELOPE_HEAD_MAX);
}

static int get_envelope(const json_t *d, struct envelope *v, struct err *e)
{
	int64_t one;
	int r = json_get_int(d, "v", 1, 1, &one, e);

	if (!r)
		r = get_party(d, "src", v->src, e);
	if (!r)
		r = get_party(d, "dst", v->dst, e);
	if (!r)
		r = get_digits(d, "to", 16, v->to, e);
	if (!r)
		r = get_digits(d, "instance", 32, v->instance, e);
	if (!r)
		r = json_get_int(d, "started", 0, INT_MAX_JSON, &v->started_ms,
				 e);
	if (!r)
		r = get_u64(d, "counter", &v->counter, e);
	if (!r)
		r = get_key(d, "enc", v->enc, e);
	if (!r)
		r = get_proof(d, &v->certificate, &v->signature, e);
	if (r)
		return r;
	/* Made again of what was understood: nothing else counts as signed. */
	v->signed_text = envelope_signed_text(v);
	return v->signed_text ? 0 : err_set(e, ENOMEM, "out of memory");
}

int envelope_parse(const void *data, size_t n, struct envelope *ret,
		   struct err *e)
{
	struct envelope v = { 0 };
	size_t body;
	json_t *head = unframe(data, n, ENVELOPE_HEAD_MAX, &body, e);
	int r = -EINVAL;

	if (head) {
		r = get_envelope(head, &v, e);
		json_decref(head);
	}
	if (!r && (n - body < SEAL_OVERHEAD || n - body > SEALED_MAX))
		r = err_set(e, EINVAL, "%zu sealed bytes", n - body);
	if (r) {
		envelope_free(&v);
		(void)err_wrap(e, "envelope");
		return r;
	}
	v.sealed = (const char *)data + body;
	v.n = n - body;
	*ret = v;
	return 0;
}

/* ---- cards ------------------------------------------------------------- */

void card_free(struct card *c)
{
	if (!c)
		return;
	free(c->certificate);
	free(c->signature);
	c->certificate = c->signature = NULL;
}

json_t *card_json(const struct card *c, bool with_signature)
{
	char key[65];
	json_t *d;

	hex_encode(c->seal_key, sizeof(c->seal_key), key);
	d = json_pack("{s:s,s:s,s:I,s:s}", "party", c->party, "seal_key", key,
		      "created", (json_int_t)c->created_ms, "certificate",
		      c->certificate);
	if (d && with_signature &&
	    json_object_set_new(d, "signature", json_string(c->signature))) {
		json_decref(d);
		return NULL;
	}
	return d;
}

int card_parse(const json_t *doc, struct card *ret, struct err *e)
{
	struct card c = { 0 };
	int r = get_party(doc, "party", c.party, e);

	if (!r)
		r = get_key(doc, "seal_key", c.seal_key, e);
	if (!r)
		r = json_get_int(doc, "created", 0, INT_MAX_JSON, &c.created_ms,
				 e);
	if (!r)
		r = get_proof(doc, &c.certificate, &c.signature, e);
	if (r) {
		card_free(&c);
		(void)err_wrap(e, "card");
		return r;
	}
	*ret = c;
	return 0;
}
