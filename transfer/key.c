// SPDX-License-Identifier: Apache-2.0
/* Identities and wire heads: pure functions over outside bytes. */
#include <ctype.h>
#include <endian.h>
#include <openssl/evp.h>

#include "lib/json.h"

#include "transfer/channel.h"
#include "transfer/transfer_priv.h"

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

char *key_text(const struct key *k)
{
	struct strbuf sb = STRBUF_INIT(KEY_FIELDS * (KEY_FIELD_MAX + 4));

	for (int i = 0; i < KEY_FIELDS; i++)
		sb_addf(&sb, "%c\"%s\"", i ? ',' : '[', k->f[i]);
	sb_addc(&sb, ']');
	return sb_detach(&sb);
}

static void digest(const void *a, size_t na, const void *b, size_t nb,
		   const void *c, size_t nc, char ret[65])
{
	uint8_t out[32];
	EVP_MD_CTX *md = EVP_MD_CTX_new();

	if (!md || !EVP_DigestInit_ex(md, EVP_sha256(), NULL) ||
	    !EVP_DigestUpdate(md, a, na) || !EVP_DigestUpdate(md, b, nb) ||
	    !EVP_DigestUpdate(md, c, nc) || !EVP_DigestFinal_ex(md, out, NULL))
		abort(); /* only without memory */
	EVP_MD_CTX_free(md);
	hex_encode(out, sizeof(out), ret);
}

void key_tid(const struct key *k, char ret[65])
{
	static const char domain[] = "rollfs-transfer-v1\n";
	_cleanup_free_ char *text = key_text(k);

	digest(domain, strlen(domain), text, strlen(text), "", 0, ret);
}

void key_digest(const struct key *k, const void *data, size_t n, char ret[65])
{
	_cleanup_free_ char *text = key_text(k);

	digest(text, strlen(text), "\n", 1, data, n, ret);
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

int head_write(struct strbuf *sb, const struct message_head *h)
{
	_cleanup_free_ char *key = key_text(&h->key);
	struct strbuf head = STRBUF_INIT(HEAD_MAX);
	int r;

	sb_addf(&head, "{\"key\":%s,\"sha256\":\"%s\",\"size\":%llu}", key,
		h->sha256, (unsigned long long)h->size);
	r = head.error;
	if (!r)
		r = sb_add_u32(sb, (uint32_t)head.len);
	if (!r)
		r = sb_add(sb, head.buf, head.len);
	sb_free(&head);
	return r;
}

int head_parse(const void *data, size_t n, struct message_head *ret,
	       size_t *ret_used, struct err *e)
{
	struct message_head h = { 0 };
	json_t *o = NULL;
	const char *sha;
	uint32_t len;
	int64_t size;
	int r;

	if (n < 4)
		return -EAGAIN;
	memcpy(&len, data, 4);
	len = le32toh(len);
	if (!len || len > HEAD_MAX)
		return err_set(e, EINVAL, "message: a head of %u bytes", len);
	if (n - 4 < len)
		return -EAGAIN;
	o = json_parse((const char *)data + 4, len, e);
	if (!o)
		return err_wrap(e, "message head");
	r = key_from_json(json_object_get(o, "key"), &h.key, e);
	if (!r)
		r = json_get_str(o, "sha256", &sha, e);
	if (!r)
		r = json_get_int(o, "size", 0, CHANNEL_MESSAGE_MAX, &size, e);
	if (!r && !hex64_valid(sha))
		r = err_set(e, EINVAL, "message: not a SHA-256");
	if (!r) {
		memcpy(h.sha256, sha, 65);
		h.size = (uint64_t)size;
		key_tid(&h.key, h.tid);
		*ret = h;
		*ret_used = 4 + (size_t)len;
	}
	json_decref(o);
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

unsigned status_to_http(int status)
{
	switch (-status) {
	case 0:
		return 200;
	case EINVAL:
		return 400;
	case EACCES:
		return 403;
	case ENOENT:
		return 404;
	case EEXIST:
	case EBUSY:
		return 409;
	case EBADMSG:
		return 422;
	case ENOSPC:
		return 507;
	case EAGAIN:
		return 503;
	case ETIMEDOUT:
		return 504;
	default:
		return 500;
	}
}

int http_to_status(long code)
{
	switch (code) {
	case 200:
	case 201:
		return 0;
	case 400:
		return -EINVAL;
	case 403:
		return -EACCES;
	case 404:
		return -ENOENT;
	case 409:
		return -EEXIST;
	case 422:
		return -EBADMSG;
	case 507:
		return -ENOSPC;
	case 503:
		return -EAGAIN;
	case 504:
		return -ETIMEDOUT;
	default:
		return -EPROTO;
	}
}
