// SPDX-License-Identifier: Apache-2.0
/* Identities, message heads, and the status of answers. */
#include <ctype.h>
#include <endian.h>
#include <openssl/evp.h>
#include <pthread.h>

#include "lib/conf.h"
#include "lib/json.h"

#include "transfer/channel.h"
#include "transfer/wire.h"

void hex_encode(const uint8_t *in, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[in[i] >> 4];
		out[2 * i + 1] = digits[in[i] & 15];
	}
	out[2 * n] = '\0';
}

bool hex64_valid(const char *s)
{
	return strspn(s, "0123456789abcdef") == 64 && !s[64];
}

static unsigned hex_digit(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

bool hex64_decode(const char *s, uint8_t ret[32])
{
	if (!hex64_valid(s))
		return false;
	for (size_t i = 0; i < 32; i++)
		ret[i] = (uint8_t)(hex_digit(s[2 * i]) << 4 |
				   hex_digit(s[2 * i + 1]));
	return true;
}

void sha256(const void *data, size_t n, uint8_t ret[32])
{
	if (!EVP_Digest(n ? data : "", n, ret, NULL, EVP_sha256(), NULL))
		abort(); /* only without memory */
}

int key_check(const struct key *k, struct err *e)
{
	for (int i = 0; i < KEY_FIELDS; i++) {
		const char *f = k->f[i];

		if (!*f && i != KEY_TAG)
			return err_set(e, EINVAL, "key: field %d is empty", i);
		if (!strcmp(f, ".") || !strcmp(f, ".."))
			return err_set(e, EINVAL, "key: field %d", i);
		for (; *f; f++)
			if ((unsigned char)*f < ' ' || *f == 0x7f ||
			    *f == '/' || *f == '"' || *f == '\\')
				return err_set(e, EINVAL,
					       "key: field %d has a character "
					       "that is not allowed",
					       i);
	}
	if (!party_id_valid(k->f[KEY_SRC_PARTY]) ||
	    !party_id_valid(k->f[KEY_DST_PARTY]))
		return err_set(e, EINVAL, "key: not a party id");
	return 0;
}

int key_from_json(const json_t *a, struct key *ret, struct err *e)
{
	struct key k;

	if (!json_is_array(a) || json_array_size(a) != KEY_FIELDS)
		return err_set(e, EINVAL, "key: expected seven strings");
	memset(&k, 0, sizeof(k));
	for (size_t i = 0; i < KEY_FIELDS; i++) {
		const json_t *v = json_array_get(a, i);
		size_t n = json_string_length(v);

		if (!json_is_string(v) || n > KEY_FIELD_MAX ||
		    strlen(json_string_value(v)) != n)
			return err_set(e, EINVAL, "key: field %zu", i);
		memcpy(k.f[i], json_string_value(v), n);
	}
	*ret = k;
	return key_check(&k, e);
}

json_t *key_to_json(const struct key *k)
{
	json_t *a = json_array();

	for (int i = 0; i < KEY_FIELDS; i++)
		json_array_append_new(a, json_string(k->f[i]));
	return a;
}

static size_t put(char *out, const char *text)
{
	return (size_t)(stpcpy(out, text) - out);
}

size_t key_put(char *out, const struct key *k)
{
	size_t n = 0;

	for (int i = 0; i < KEY_FIELDS; i++) {
		out[n++] = i ? ',' : '[';
		out[n++] = '"';
		n += put(out + n, k->f[i]);
		out[n++] = '"';
	}
	out[n++] = ']';
	out[n] = '\0';
	return n;
}

char *key_text(const struct key *k)
{
	char text[KEY_TEXT_MAX];

	(void)key_put(text, k);
	return xstrdup(text);
}

static EVP_MD *fetched;

static void fetch(void)
{
	fetched = EVP_MD_fetch(NULL, "SHA256", NULL);
}

static void digest(const void *a, size_t na, const void *b, size_t nb,
		   const void *c, size_t nc, char ret[65])
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	uint8_t out[32];
	EVP_MD_CTX *md = EVP_MD_CTX_new();

	pthread_once(&once, fetch); /* looked up for each one it is slow */
	if (!md || !fetched || !EVP_DigestInit_ex(md, fetched, NULL) ||
	    !EVP_DigestUpdate(md, a, na) || !EVP_DigestUpdate(md, b, nb) ||
	    !EVP_DigestUpdate(md, c, nc) || !EVP_DigestFinal_ex(md, out, NULL))
		abort(); /* only without memory */
	EVP_MD_CTX_free(md);
	hex_encode(out, sizeof(out), ret);
}

void key_tid(const struct key *k, char ret[65])
{
	static const char domain[] = "rollfs-transfer-v1\n";
	char text[KEY_TEXT_MAX];

	digest(domain, strlen(domain), text, key_put(text, k), "", 0, ret);
}

void key_digest(const struct key *k, const void *data, size_t n, char ret[65])
{
	char text[KEY_TEXT_MAX];

	digest(text, key_put(text, k), "\n", 1, data, n, ret);
}

bool job_id_valid(const char *s)
{
	size_t n = strspn(s, "0123456789");

	return n >= 1 && n <= 40 && !s[n];
}

bool session_job(const char *session, char *ret, size_t n)
{
	size_t len = strspn(session, "0123456789");

	if (!len || len > 40 || len >= n || session[len] != '_')
		return false;
	memcpy(ret, session, len);
	ret[len] = '\0';
	return true;
}

size_t head_put(char *out, const struct message_head *h)
{
	size_t n = put(out, h->file ? "\"file\":1,\"key\":" : "\"key\":");

	n += key_put(out + n, &h->key);
	n += (size_t)snprintf(out + n, 128, ",\"sha256\":\"%s\",\"size\":%llu}",
			      h->sha256, (unsigned long long)h->size);
	return n;
}

int head_write(struct strbuf *sb, const struct message_head *h)
{
	char text[1 + HEAD_TEXT_MAX] = "{";
	size_t n = 1 + head_put(text + 1, h);
	int r = sb_add_u32(sb, (uint32_t)n);

	return r ? r : sb_add(sb, text, n);
}

bool scan_text(struct scan *s, const char *text)
{
	size_t n = strlen(text);

	if ((size_t)(s->end - s->at) < n || memcmp(s->at, text, n) != 0)
		return false;
	s->at += n;
	return true;
}

/* A string without escapes, of ASCII, in its quotes. */
static bool scan_string(struct scan *s, char *ret, size_t max)
{
	const char *p = s->at;

	if (p == s->end || *p++ != '"')
		return false;
	for (; p < s->end && *p != '"'; p++)
		if (*p < ' ' || *p == '\\') /* beyond ASCII it is negative */
			return false;
	if (p == s->end || (size_t)(p - s->at - 1) > max)
		return false;
	memcpy(ret, s->at + 1, (size_t)(p - s->at - 1));
	ret[p - s->at - 1] = '\0';
	s->at = p + 1;
	return true;
}

bool scan_number(struct scan *s, uint64_t *ret)
{
	const char *p = s->at;
	uint64_t n = 0;

	for (; p < s->end && *p >= '0' && *p <= '9'; p++)
		n = n * 10 + (uint64_t)(*p - '0');
	if (p == s->at || p - s->at > 15 || (*s->at == '0' && p - s->at > 1))
		return false;
	s->at = p;
	*ret = n;
	return true;
}

bool scan_digest(struct scan *s, char ret[65])
{
	return scan_string(s, ret, 64) && hex64_valid(ret);
}

bool scan_key(struct scan *s, struct key *ret)
{
	for (int i = 0; i < KEY_FIELDS; i++)
		if (!scan_text(s, i ? "," : "[") ||
		    !scan_string(s, ret->f[i], KEY_FIELD_MAX))
			return false;
	return scan_text(s, "]") && !key_check(ret, NULL);
}

bool scan_head(struct scan *s, struct message_head *ret)
{
	*ret = (struct message_head){ 0 };
	ret->file = scan_text(s, "\"file\":1,");
	if (!scan_text(s, "\"key\":") || !scan_key(s, &ret->key) ||
	    !scan_text(s, ",\"sha256\":") || !scan_digest(s, ret->sha256) ||
	    !scan_text(s, ",\"size\":") || !scan_number(s, &ret->size) ||
	    !scan_text(s, "}") || s->at != s->end ||
	    ret->size > CHANNEL_MESSAGE_MAX)
		return false;
	key_tid(&ret->key, ret->tid);
	return true;
}

/* Of anything that is valid JSON. */
static int head_parse_json(const char *text, size_t n, struct message_head *ret,
			   struct err *e)
{
	struct message_head h = { 0 };
	json_t *o = json_parse(text, n, e);
	const char *sha;
	int64_t size, one;
	int r;

	if (!o) {
		(void)err_wrap(e, "message head");
		return -EINVAL;
	}
	r = key_from_json(json_object_get(o, "key"), &h.key, e);
	if (!r)
		r = json_get_str(o, "sha256", &sha, e);
	if (!r)
		r = json_get_int(o, "size", 0, CHANNEL_MESSAGE_MAX, &size, e);
	if (!r && json_object_get(o, "file")) {
		r = json_get_int(o, "file", 1, 1, &one, e);
		h.file = true;
	}
	if (!r && !hex64_valid(sha))
		r = err_set(e, EINVAL, "message: not a SHA-256");
	if (!r) {
		memcpy(h.sha256, sha, 65);
		h.size = (uint64_t)size;
		key_tid(&h.key, h.tid);
		*ret = h;
	}
	json_decref(o);
	return r;
}

int head_parse(const void *data, size_t n, struct message_head *ret,
	       size_t *ret_used, struct err *e)
{
	const char *text = (const char *)data + 4;
	struct scan x;
	uint32_t len;
	int r = 0;

	if (n < 4)
		return -EAGAIN;
	memcpy(&len, data, 4);
	len = le32toh(len);
	if (!len || len > HEAD_MAX)
		return err_set(e, EINVAL, "message: a head of %u bytes", len);
	if (n - 4 < len)
		return -EAGAIN;
	x = (struct scan){ text, text + len };
	if (!scan_text(&x, "{") || !scan_head(&x, ret))
		r = head_parse_json(text, len, ret, e);
	if (!r)
		*ret_used = 4 + (size_t)len;
	return r;
}

bool path_valid(const char *path)
{
	unsigned components = 0;

	for (const char *p = path;;) {
		size_t n = strcspn(p, "/");

		if (!n || n > 255 || ++components > 64 ||
		    (n == 1 && p[0] == '.') ||
		    (n == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		for (size_t i = 0; i < n; i++)
			if ((unsigned char)p[i] < ' ' || p[i] == 0x7f)
				return false;
		p += n;
		if (!*p)
			return true;
		p++;
	}
}

char *percent_encode(const char *s)
{
	struct strbuf sb = STRBUF_INIT(64u << 10);

	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (isalnum(c) || strchr("-._~/", c))
			sb_addc(&sb, (char)c);
		else
			sb_addf(&sb, "%%%02X", c);
	}
	return sb_detach(&sb);
}

char *percent_decode(const char *s)
{
	struct strbuf sb = STRBUF_INIT(64u << 10);

	for (; *s; s++) {
		if (*s == '%') {
			char two[3] = { 0 };

			if (!isxdigit((unsigned char)s[1]) ||
			    !isxdigit((unsigned char)s[2]) ||
			    (s[1] == '0' && s[2] == '0')) {
				sb_free(&sb);
				return NULL;
			}
			memcpy(two, s + 1, 2);
			sb_addc(&sb, (char)strtoul(two, NULL, 16));
			s += 2;
		} else {
			sb_addc(&sb, *s);
		}
	}
	if (sb.error) {
		sb_free(&sb);
		return NULL;
	}
	return sb_detach(&sb);
}

/*
 * One row per status that means something to the other side.  The first row of
 * an HTTP status is what it becomes when it comes back.
 */
static const struct status_row {
	int no;
	unsigned http;
	const char *word;
} statuses[] = {
	{ 0, 200, "ok" },
	{ EINVAL, 400, "bad_request" },
	{ EACCES, 403, "not_allowed" },
	{ ENOENT, 404, "not_found" },
	{ EEXIST, 409, "conflict" }, /* the same identity, other content */
	{ EBUSY, 409, "busy" },
	{ ESTALE, 410, "closed" }, /* session closed, or past its deadline */
	{ EFBIG, 413, "too_large" },
	{ ERANGE, 416, "bad_range" },
	/* Sealed to a key of an earlier process: its card is another now */
	{ EUCLEAN, 421, "stale_key" },
	{ EBADMSG, 422, "damaged" },
	{ EHOSTUNREACH, 502, "no_route" }, /* a relay has no way on */
	{ EAGAIN, 503, "try_later" },
	{ ETIMEDOUT, 504, "timed_out" },
	{ ENOSPC, 507, "no_space" },
	{ EDQUOT, 507, "over_quota" },
	{ ELOOP, 508, "route_loop" },
};

static const struct status_row *status_row(int status)
{
	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++)
		if (-statuses[i].no == status)
			return &statuses[i];
	return NULL;
}

unsigned status_to_http(int status)
{
	const struct status_row *row = status_row(status);

	return row ? row->http : 500;
}

const char *status_word(int status)
{
	const struct status_row *row = status_row(status);

	return row ? row->word : "internal";
}

int http_to_status(long code)
{
	if (code == 201 || code == 202 || code == 204)
		return 0;
	if (code == 429)
		return -EAGAIN;
	for (size_t i = 0; i < ARRAY_SIZE(statuses); i++)
		if (statuses[i].http == (unsigned long)code)
			return -statuses[i].no;
	return -EPROTO;
}
