// SPDX-License-Identifier: Apache-2.0
/*
 * The file of a kept list: a line of JSON, the host's secret key, the records
 * of the list, SHA-256 of all that.  A file that ends early, was changed, or is
 * of other ids is not used.  Key and buffers are wiped; the key never is text.
 */
#include <openssl/evp.h>
#include <string.h>

#include "components/crypto/util.h"
#include "components/intersection.h"
#include "lib/json.h"

#define HEAD_MAX 1024
#define SUM	 32

/* A file and the digest of what has been read or written. */
struct kept {
	FILE *f;
	EVP_MD_CTX *md;
	size_t width; /* of a record */
	uint8_t key[PSI_KEY_MAX];
	char buf[65536]; /* the file's */
};

static struct kept *kept_open(FILE *f, bool host)
{
	struct kept *k = xcalloc(1, sizeof(*k));

	k->f = f;
	k->width = host ? PSI_RECORD : PSI_TAG;
	k->md = EVP_MD_CTX_new();
	if (!k->md || !EVP_DigestInit_ex(k->md, crypto_sha256(), NULL))
		abort(); /* only for lack of memory */
	(void)setvbuf(f, k->buf, _IOFBF, sizeof(k->buf));
	return k;
}

static void kept_close(struct kept **k)
{
	(void)fclose((*k)->f); /* what was written has been flushed */
	EVP_MD_CTX_free((*k)->md);
	explicit_bzero(*k, sizeof(**k));
	free(*k);
}

static bool take(struct kept *k, void *data, size_t n)
{
	return (n == 0 || fread(data, n, 1, k->f) == 1) &&
	       EVP_DigestUpdate(k->md, data, n);
}

static bool put(struct kept *k, const void *data, size_t n)
{
	return (n == 0 || fwrite(data, n, 1, k->f) == 1) &&
	       EVP_DigestUpdate(k->md, data, n);
}

/* ---- reading ------------------------------------------------------------- */

static json_t *take_head(struct kept *k)
{
	char line[HEAD_MAX];
	struct err e = { 0 };

	if (!fgets(line, sizeof(line), k->f) || !strchr(line, '\n') ||
	    !EVP_DigestUpdate(k->md, line, strlen(line)))
		return NULL;
	return json_parse(line, strlen(line), &e);
}

/* Bytes of the key; -1: the list is not what is wanted. */
static int fits(const json_t *v, const struct psi_kept *want,
		struct psi_cache *c)
{
	const char *id = json_str_or(v, "id", "");
	int64_t key = json_int_or(v, "key", -1);
	uint8_t digest[sizeof(c->digest)];

	if (json_int_or(v, "version", 0) != 2 ||
	    json_int_or(v, "count", -1) != want->count ||
	    strlen(id) != PSI_CACHE_ID - 1 ||
	    (want->id && strcmp(id, want->id)) ||
	    !psi_unhex(json_str_or(v, "salt", ""), c->salt, PSI_SALT) ||
	    key < 0 || key > PSI_KEY_MAX || !want->ids != !key)
		return -1;
	if (want->ids &&
	    (!psi_unhex(json_str_or(v, "ids", ""), digest, sizeof(digest)) ||
	     memcmp(digest, want->ids, sizeof(digest)) != 0))
		return -1;
	(void)snprintf(c->id, sizeof(c->id), "%s", id);
	return (int)key;
}

/* Ascending tags, rows that there are. */
static struct spool *take_list(struct psi *p, struct kept *k, uint32_t count)
{
	_cleanup_(spool_freep) struct spool *s = psi_spool(p, k->width, 0);
	uint8_t record[PSI_RECORD], last[PSI_TAG];
	struct err e = { 0 };

	for (uint32_t i = 0; i < count; i++) {
		uint32_t row = 0;

		if (!take(k, record, k->width) ||
		    (i && memcmp(last, record, PSI_TAG) >= 0))
			return NULL;
		memcpy(last, record, PSI_TAG);
		if (k->width == PSI_RECORD)
			memcpy(&row, record + PSI_TAG, sizeof(row));
		if ((row && row >= p->rows) || spool_add(s, record, 1, &e) < 0)
			return NULL;
	}
	return TAKE_PTR(s);
}

/* The digest stands behind what was read, and nothing behind it. */
static bool sum_right(struct kept *k)
{
	uint8_t sum[SUM], want[SUM];

	return EVP_DigestFinal_ex(k->md, want, NULL) &&
	       fread(sum, SUM, 1, k->f) == 1 && memcmp(sum, want, SUM) == 0 &&
	       fgetc(k->f) == EOF;
}

void psi_kept_read(struct psi *p, FILE *f, const struct psi_kept *want,
		   struct psi_cache *c)
{
	_cleanup_(kept_close) struct kept *k = kept_open(f, want->ids);
	json_t *v = take_head(k);
	int n = v ? fits(v, want, c) : -1;
	struct err e = { 0 };

	json_decref(v);
	if (n >= 0 && take(k, k->key, (size_t)n))
		c->list = take_list(p, k, want->count);
	if (!c->list || !sum_right(k) ||
	    (n && psi_load(p->method, p->bits, c->salt, k->key, (size_t)n,
			   &c->key, &e) < 0))
		psi_cache_end(c);
}

/* ---- writing ------------------------------------------------------------- */

static json_t *head(const struct psi_cache *c, const struct psi_side *key,
		    size_t n, uint64_t count)
{
	char salt[2 * PSI_SALT + 1], ids[2 * sizeof(c->digest) + 1];
	json_t *v;

	psi_hex(c->salt, PSI_SALT, salt);
	v = json_pack("{s:i,s:s,s:s,s:I,s:i}", "version", 2, "id", c->id,
		      "salt", salt, "count", (json_int_t)count, "key", (int)n);
	psi_hex(c->digest, sizeof(c->digest), ids);
	if (key)
		json_object_set_new(v, "ids", json_string(ids));
	return v;
}

int psi_kept_write(FILE *f, const struct psi_cache *c,
		   const struct psi_side *key, struct spool *list,
		   struct err *e)
{
	_cleanup_(kept_close) struct kept *k = kept_open(f, key);
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(PSI_KEY_MAX);
	_cleanup_free_ char *line = NULL;
	const void *record;
	uint8_t sum[SUM];
	json_t *v;
	int rc = key ? sb_reserve(&sb, PSI_KEY_MAX) : 0;

	if (rc == 0 && key)
		rc = psi_save(key, &sb); /* into the room: no copy is left */
	v = head(c, key, sb.len, spool_count(list));
	line = json_text(v, false);
	json_decref(v);
	if (rc < 0 || !line)
		return err_set(e, ENOMEM, "no memory");
	line[strcspn(line, "\n")] = 0;
	rc = spool_rewind(list, e);
	if (rc == 0 && (!put(k, line, strlen(line)) || !put(k, "\n", 1) ||
			!put(k, sb.buf, sb.len)))
		rc = err_sys(e, errno, "writing");
	if (sb.alloc)
		explicit_bzero(sb.buf, sb.alloc);
	while (rc >= 0 && (rc = spool_next(list, &record, e)) > 0)
		if (!put(k, record, k->width))
			rc = err_sys(e, errno, "writing");
	if (rc == 0 && (!EVP_DigestFinal_ex(k->md, sum, NULL) ||
			fwrite(sum, SUM, 1, k->f) != 1 || fflush(k->f) != 0 ||
			fsync(fileno(k->f)) < 0))
		rc = err_sys(e, errno, "writing");
	return rc;
}
