// SPDX-License-Identifier: Apache-2.0
/*
 * Lists that are kept for later runs.  STATE/cache/intersection has one file,
 * 0600, for each partner and set of parameters, replaced by rename.  At the
 * host it holds the secret key.
 */
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>

#include "components/crypto/util.h"
#include "components/intersection.h"

/* Named after who and what it is for. */
static char *cache_path(struct psi *p, const char *role, size_t i,
			struct err *e)
{
	_cleanup_free_ char *dir =
	    ctx_cache_dir(p->c, "intersection", PSI_KEPT_MAX, e);
	_cleanup_free_ char *text =
	    xasprintf("%s %s %s %s %s %u %s", ctx_role(p->c), ctx_party(p->c),
		      role, ctx_member(p->c, role, i), psi_method_name(p),
		      p->bits, p->param_salt);
	uint8_t d[32];
	char name[2 * sizeof(d) + 1];

	if (!dir)
		return NULL;
	(void)EVP_Digest(text, strlen(text), d, NULL, crypto_sha256(), NULL);
	psi_hex(d, sizeof(d), name);
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
	psi_hex(d, (PSI_CACHE_ID - 1) / 2, ret);
}

void psi_cache_end(struct psi_cache *c)
{
	spool_free(c->list);
	psi_free(c->key);
	c->list = NULL;
	c->key = NULL;
	c->id[0] = 0;
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

/* It only costs time. */
static void no_use(struct psi *p, const struct err *e)
{
	ctx_event(p->c, "lists of earlier runs are of no use: %s", e->text);
}

int psi_cache_host(struct psi *p, struct psi_cache *c, struct err *e)
{
	struct err why = { 0 };
	_cleanup_free_ char *path = cache_path(p, "guest", 0, &why);
	struct psi_kept want = { .count = p->rows, .ids = c->digest };
	int rc = ids_digest(p, c->digest, e);
	FILE *f = rc == 0 && path ? fopen(path, "re") : NULL;

	if (f)
		psi_kept_read(p, f, &want, c);
	if (!path)
		no_use(p, &why);
	else if (rc == 0 && !c->list)
		ctx_log(p->c, "no list of an earlier run is of use");
	return rc;
}

void psi_cache_guest(struct psi *p, size_t i, const struct psi_greeting *g,
		     struct psi_cache *c)
{
	struct err why = { 0 };
	_cleanup_free_ char *path = cache_path(p, "host", i, &why);
	struct psi_kept want = { .count = g->count, .id = g->cache };
	FILE *f = path && g->cache[0] ? fopen(path, "re") : NULL;

	if (!path)
		no_use(p, &why);
	if (f)
		psi_kept_read(p, f, &want, c);
}

static int write_kept(const char *path, const struct psi_cache *c,
		      const struct psi_side *key, struct spool *list,
		      struct err *e)
{
	_cleanup_free_ char *temp = xasprintf("%s.%d", path, (int)getpid());
	int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
	int rc;

	if (!f) {
		rc = err_sys(e, errno, "%s", temp);
		if (fd >= 0)
			close(fd);
	} else {
		rc = psi_kept_write(f, c, key, list, e);
	}
	if (rc == 0 && rename(temp, path) < 0)
		rc = err_sys(e, errno, "%s", path);
	if (rc < 0)
		(void)unlink(temp);
	return rc;
}

static void save(struct psi *p, const char *role, size_t i, size_t host,
		 struct psi_cache *c, const struct psi_side *key,
		 struct spool *list)
{
	struct err why = { 0 };
	_cleanup_free_ char *path = cache_path(p, role, i, &why);

	list_id(p, host, c->id);
	memcpy(c->salt, p->salt, PSI_SALT);
	if (!path || write_kept(path, c, key, list, &why) < 0)
		ctx_event(p->c, "the list is not kept for later runs: %s",
			  why.text);
}

void psi_cache_save_host(struct psi *p, struct psi_cache *c,
			 const struct psi_side *key, struct spool *list)
{
	save(p, "guest", 0, ctx_index(p->c), c, key, list);
}

void psi_cache_save_guest(struct psi *p, size_t i, struct spool *list)
{
	struct psi_cache c = { 0 };

	save(p, "host", i, i, &c, NULL, list);
}
