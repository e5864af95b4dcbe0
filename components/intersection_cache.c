// SPDX-License-Identifier: Apache-2.0
/*
 * Lists that are kept for later runs.  STATE/cache/intersection has one file,
 * 0600, for each partner and set of parameters: a line of JSON, then the
 * records of the list.  At the host it holds the secret key.  A file is
 * replaced by rename; one that is damaged or of other ids is not used.
 */
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/stat.h>

#include "components/crypto/util.h"
#include "components/intersection.h"
#include "lib/fileio.h"
#include "lib/json.h"

#define HEAD_MAX (4 * PSI_KEY_MAX)
#define RECORD	 (PSI_TAG + sizeof(uint32_t))

static void to_hex(const void *data, size_t n, char *out)
{
	const uint8_t *b = data;

	for (size_t i = 0; i < n; i++)
		(void)snprintf(out + 2 * i, 3, "%02x", b[i]);
}

/* Exactly n bytes, or up to *ret_n of them. */
static bool from_hex(const char *s, uint8_t *out, size_t max, size_t *ret_n)
{
	size_t n = strlen(s);

	if (n % 2 || n / 2 > max || strspn(s, "0123456789abcdef") != n)
		return false;
	for (size_t i = 0; i < n / 2; i++) {
		char two[3] = { s[2 * i], s[2 * i + 1], 0 };

		out[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	*ret_n = n / 2;
	return true;
}

/* Named after who and what it is for. */
static char *cache_path(struct psi *p, const char *role, size_t i,
			struct err *e)
{
	_cleanup_free_ char *dir = ctx_cache_dir(p->c, "intersection", e);
	_cleanup_free_ char *text =
	    xasprintf("%s %s %s %s %s %u %s", ctx_role(p->c), ctx_party(p->c),
		      role, ctx_member(p->c, role, i), psi_method_name(p),
		      p->bits, p->param_salt);
	uint8_t d[32];
	char name[2 * sizeof(d) + 1];

	if (!dir)
		return NULL;
	(void)EVP_Digest(text, strlen(text), d, NULL, crypto_sha256(), NULL);
	to_hex(d, sizeof(d), name);
	return xasprintf("%s/%s", dir, name);
}

static void list_id(const struct psi *p, size_t host, char ret[PSI_CACHE_ID])
{
	_cleanup_free_ char *text = xasprintf("list of host %zu", host);
	uint8_t d[32];
	EVP_MD_CTX *md = EVP_MD_CTX_new();

	if (!md || !EVP_DigestInit_ex(md, crypto_sha256(), NULL) ||
	    !EVP_DigestUpdate(md, text, strlen(text)) ||
	    !EVP_DigestUpdate(md, p->salt, PSI_SALT) ||
	    !EVP_DigestFinal_ex(md, d, NULL))
		abort(); /* only for lack of memory */
	EVP_MD_CTX_free(md);
	to_hex(d, (PSI_CACHE_ID - 1) / 2, ret);
}

void psi_cache_end(struct psi_cache *c)
{
	spool_free(c->list);
	psi_free(c->key);
	c->list = NULL;
	c->key = NULL;
	c->id[0] = 0;
}

/* ---- reading ------------------------------------------------------------- */

/* The line of JSON; the file stands behind it. NULL: not usable. */
static json_t *read_head(FILE *f)
{
	_cleanup_free_ char *line = xmalloc(HEAD_MAX);
	json_t *v = NULL;
	struct err e = { 0 };

	if (fgets(line, HEAD_MAX, f) && strchr(line, '\n'))
		v = json_parse(line, strlen(line), &e);
	explicit_bzero(line, HEAD_MAX);
	return v;
}

/* count records of width bytes and nothing behind them; rows below `rows`. */
static struct spool *read_list(struct psi *p, FILE *f, size_t width,
			       uint64_t count)
{
	_cleanup_(spool_freep) struct spool *s = psi_spool(p, width, 0);
	uint8_t record[RECORD];
	struct err e = { 0 };

	for (uint64_t i = 0; i < count; i++) {
		uint32_t row = 0;

		if (fread(record, width, 1, f) != 1)
			return NULL;
		if (width == RECORD)
			memcpy(&row, record + PSI_TAG, sizeof(row));
		if ((width == RECORD && row >= p->rows) ||
		    spool_add(s, record, 1, &e) < 0)
			return NULL;
	}
	return fgetc(f) == EOF ? TAKE_PTR(s) : NULL;
}

static bool read_common(const json_t *v, struct psi_cache *c, int64_t *count)
{
	const char *id = json_str_or(v, "id", "");
	size_t n = 0;

	*count = json_int_or(v, "count", -1);
	if (json_int_or(v, "version", 0) != 1 || *count < 0 ||
	    *count > COUNT_MAX || strlen(id) != PSI_CACHE_ID - 1 ||
	    !from_hex(json_str_or(v, "salt", ""), c->salt, PSI_SALT, &n) ||
	    n != PSI_SALT)
		return false;
	(void)snprintf(c->id, sizeof(c->id), "%s", id);
	return true;
}

static void host_load(struct psi *p, const char *path, struct psi_cache *c)
{
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	uint8_t key[PSI_KEY_MAX], digest[32];
	size_t n = 0, n_digest = 0;
	struct err e = { 0 };
	int64_t count;
	json_t *v = f ? read_head(f) : NULL;

	if (v && read_common(v, c, &count) && count == p->rows &&
	    from_hex(json_str_or(v, "digest", ""), digest, sizeof(digest),
		     &n_digest) &&
	    n_digest == sizeof(digest) &&
	    memcmp(digest, c->digest, sizeof(digest)) == 0 &&
	    from_hex(json_str_or(v, "key", ""), key, sizeof(key), &n) &&
	    psi_load(p->method, p->bits, c->salt, key, n, &c->key, &e) == 0)
		c->list = read_list(p, f, RECORD, (uint64_t)count);
	explicit_bzero(key, sizeof(key));
	json_decref(v);
	if (!c->list)
		psi_cache_end(c);
}

/* SHA-256 over the ids in their order. */
static int ids_digest(struct psi *p, uint8_t ret[32], struct err *e)
{
	struct psi_reader r = { 0 };
	_cleanup_(psi_block_freep) struct psi_block *b =
	    psi_block_new(psi_piece(p, PSI_TAG));
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	int rc;

	if (!md || !EVP_DigestInit_ex(md, crypto_sha256(), NULL))
		abort();
	do {
		rc = psi_read(p, &r, b, e);
		(void)EVP_DigestUpdate(md, b->end, b->ids.n * sizeof(*b->end));
		(void)EVP_DigestUpdate(md, b->text.buf, b->text.len);
	} while (rc == 0 && b->ids.n == b->room);
	(void)EVP_DigestFinal_ex(md, ret, NULL);
	EVP_MD_CTX_free(md);
	psi_reader_end(&r);
	return rc;
}

int psi_cache_host(struct psi *p, struct psi_cache *c, struct err *e)
{
	_cleanup_free_ char *path = cache_path(p, "guest", 0, e);
	int rc = path ? ids_digest(p, c->digest, e) : -e->no;

	if (rc == 0)
		host_load(p, path, c);
	if (rc == 0 && !c->list)
		ctx_log(p->c, "no list of an earlier run is of use");
	return rc;
}

int psi_cache_guest(struct psi *p, size_t i, const struct psi_greeting *g,
		    struct psi_cache *c, struct err *e)
{
	_cleanup_free_ char *path = cache_path(p, "host", i, e);
	_cleanup_fclose_ FILE *f = NULL;
	int64_t count;
	json_t *v;

	if (!path)
		return -e->no;
	if (!g->cache[0] || !(f = fopen(path, "re")))
		return 0;
	v = read_head(f);
	if (v && read_common(v, c, &count) && count == g->count &&
	    strcmp(c->id, g->cache) == 0)
		c->list = read_list(p, f, PSI_TAG, (uint64_t)count);
	json_decref(v);
	if (!c->list)
		psi_cache_end(c);
	return 0;
}

/* ---- writing ------------------------------------------------------------- */

static int write_file(const char *path, const char *line, struct spool *list,
		      size_t width, struct err *e)
{
	_cleanup_close_ int fd =
	    open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	_cleanup_fclose_ FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
	const void *record;
	int rc;

	if (!f)
		return err_sys(e, errno, "%s", path);
	(void)TAKE_FD(fd);
	rc = spool_rewind(list, e);
	if (rc == 0 && fprintf(f, "%s\n", line) < 0)
		rc = err_sys(e, errno, "%s", path);
	while (rc >= 0 && (rc = spool_next(list, &record, e)) > 0)
		if (fwrite(record, width, 1, f) != 1)
			rc = err_sys(e, errno, "%s", path);
	if (rc == 0 && (fflush(f) != 0 || fsync(fileno(f)) < 0))
		rc = err_sys(e, errno, "%s", path);
	return rc;
}

/* Takes head over. */
static int cache_write(const char *path, json_t *head, struct spool *list,
		       size_t width, struct err *e)
{
	_cleanup_free_ char *line = json_text(head, false);
	_cleanup_free_ char *temp = xasprintf("%s.%d", path, (int)getpid());
	int rc;

	json_decref(head);
	if (!line)
		return err_set(e, ENOMEM, "keeping the list");
	line[strcspn(line, "\n")] = 0;
	rc = write_file(temp, line, list, width, e);
	explicit_bzero(line, strlen(line));
	if (rc == 0 && rename(temp, path) < 0)
		rc = err_sys(e, errno, "%s", path);
	if (rc < 0)
		(void)unlink(temp);
	return rc < 0 ? err_wrap(e, "keeping the list") : 0;
}

static json_t *head(struct psi *p, size_t host, uint64_t count)
{
	char salt[2 * PSI_SALT + 1], id[PSI_CACHE_ID];

	to_hex(p->salt, PSI_SALT, salt);
	list_id(p, host, id);
	return json_pack("{s:i,s:s,s:s,s:I}", "version", 1, "id", id, "salt",
			 salt, "count", (json_int_t)count);
}

int psi_cache_save_host(struct psi *p, const struct psi_cache *c,
			const struct psi_side *key, struct spool *list,
			struct err *e)
{
	_cleanup_free_ char *path = cache_path(p, "guest", 0, e);
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(PSI_KEY_MAX);
	char digest[2 * sizeof(c->digest) + 1], *text;
	json_t *v;
	int rc = path ? psi_save(key, &sb) : -e->no;

	if (rc < 0)
		return rc;
	v = head(p, ctx_index(p->c), spool_count(list));
	text = xcalloc(2, sb.len + 1);
	to_hex(sb.buf, sb.len, text);
	to_hex(c->digest, sizeof(c->digest), digest);
	json_object_set_new(v, "key", json_string(text));
	json_object_set_new(v, "digest", json_string(digest));
	explicit_bzero(text, 2 * sb.len);
	if (sb.alloc)
		explicit_bzero(sb.buf, sb.len);
	free(text);
	return cache_write(path, v, list, RECORD, e);
}

int psi_cache_save_guest(struct psi *p, size_t i, const struct psi_cache *c,
			 struct spool *list, struct err *e)
{
	_cleanup_free_ char *path = cache_path(p, "host", i, e);

	(void)c;
	return path ? cache_write(path, head(p, i, spool_count(list)), list,
				  PSI_TAG, e)
		    : -e->no;
}
