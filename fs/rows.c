// SPDX-License-Identifier: Apache-2.0
/*
 * rows/<key>: looked up by key.  A listing shows the first ones, and says so
 * by a name.  A key does not fit into a number, so these nodes are remembered
 * until the kernel forgets them.  Each is of one generation, so it never
 * changes; lookups are answered by the present one.
 */
#include <pthread.h>
#include <sys/stat.h>
#include <uthash.h>

#include "fs/tables_priv.h"

/* The analyzer does not follow what a hash table keeps. */
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

#define LISTED_MAX 1000u
#define KEPT_MAX   4096u /* bytes of a row that is kept with its node */
#define TEXT_MAX   (4u << 20)

struct row {
	uint64_t number, nlookup;
	uint64_t gen, made_by;
	uint64_t size;
	int64_t published_ms;
	char *text; /* NULL: too long to be kept */
	char *key;  /* "<table>/<generation>/<name as it was looked up>" */
	UT_hash_handle hh, hk;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct row *by_number, *by_key;
static uint64_t last;

static void row_free(struct row *r)
{
	free(r->text);
	free(r->key);
	free(r);
}

/* The name that ends a listing which is not whole; NULL = it is. */
static char *notice(const struct table *t)
{
	return table_rows(t) > LISTED_MAX
		   ? xasprintf("~ the first %u of %llu rows: each is found by "
			       "its key",
			       LISTED_MAX, (unsigned long long)table_rows(t))
		   : NULL;
}

static int row_text(struct table *t, const char *name, struct strbuf *ret)
{
	_cleanup_free_ char *key = table_unescape(name);
	_cleanup_free_ char *more = NULL;
	int no = key ? table_row_csv(t, key, strlen(key), ret, NULL) : -ENOMEM;

	if (no != -ENOENT)
		return no;
	more = notice(t);
	if (!more || strcmp(more, name))
		return -ENOENT;
	return sb_addf(ret, "%s\n", name);
}

static void row_attr(const struct row *r, struct attr *ret)
{
	attr_fill(ret, nid_ino(K_ROW, r->number, 0), S_IFREG | 0444, r->size,
		  r->published_ms);
	ret->entry_s = 0; /* the next generation may have another */
	ret->attr_s = 3600;
}

/* A node that is known, with one more lookup. */
static bool find(const char *key, struct attr *ret)
{
	struct row *r;

	pthread_mutex_lock(&lock);
	HASH_FIND(hk, by_key, key, strlen(key), r);
	if (r) {
		r->nlookup++;
		row_attr(r, ret);
	}
	pthread_mutex_unlock(&lock);
	return r != NULL;
}

/* Takes key over. */
static int add(struct table *t, const struct table_place *p, char *key,
	       const struct strbuf *text, struct attr *ret)
{
	struct row *r = calloc(1, sizeof(*r)), *other;

	if (!r) {
		free(key);
		return -ENOMEM;
	}
	r->key = key;
	r->gen = table_generation(t);
	r->made_by = p->id.made_by;
	r->size = text->len;
	r->published_ms = table_published_ms(t);
	if (text->len <= KEPT_MAX)
		r->text = strdup(text->buf);
	pthread_mutex_lock(&lock);
	HASH_FIND(hk, by_key, key, strlen(key), other);
	if (other) {
		row_free(r);
		r = other;
	} else {
		r->number = ++last;
		HASH_ADD(hh, by_number, number, sizeof(r->number), r);
		HASH_ADD_KEYPTR(hk, by_key, r->key, strlen(r->key), r);
	}
	r->nlookup++;
	row_attr(r, ret);
	pthread_mutex_unlock(&lock);
	return 0;
}

int row_lookup(uint64_t table, const char *name, struct attr *ret)
{
	_cleanup_table_place_ struct table_place p = { 0 };
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT(TEXT_MAX);
	_cleanup_table_ struct table *t = NULL;
	char *key = NULL;
	int no = table_place(table, &p);

	if (no)
		return no;
	key = xasprintf("%llu/%llu/%s", (unsigned long long)table,
			(unsigned long long)p.id.gen, name);
	if (find(key, ret)) {
		free(key);
		return 0;
	}
	no = table_open_place(&p, &t);
	if (!no)
		no = t ? row_text(t, name, &text) : -ENOENT;
	if (!no)
		return add(t, &p, key, &text, ret);
	free(key);
	return no;
}

/* What is known of a node; its text if it is kept, caller frees. */
static int known(uint64_t number, struct row *ret, char **ret_text)
{
	const struct row *r;

	*ret_text = NULL;
	pthread_mutex_lock(&lock);
	HASH_FIND(hh, by_number, &number, sizeof(number), r);
	if (r) {
		*ret = *r;
		if (r->text)
			*ret_text = strdup(r->text);
		/* Only the name, after two slashes. */
		ret->key = strdup(strchr(strchr(r->key, '/') + 1, '/') + 1);
	}
	pthread_mutex_unlock(&lock);
	return r ? 0 : -ESTALE;
}

static int rows_getattr(const struct who *w, struct nid n, struct attr *ret)
{
	_cleanup_free_ char *text = NULL;
	struct row r;
	int no = known(n.number, &r, &text);

	(void)w;
	if (no)
		return no;
	row_attr(&r, ret);
	free(r.key);
	return 0;
}

static int rows_open(const struct who *w, struct nid n, int flags,
		     struct handle **ret)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(TEXT_MAX);
	_cleanup_table_ struct table *t = NULL;
	char *text;
	struct row r;
	int no = known(n.number, &r, &text);

	if (no)
		return no;
	if (!text) {
		no = table_open_of(fs.tables, r.made_by, r.gen, &t, NULL);
		if (!no && r.key)
			no = row_text(t, r.key, &sb);
		text = no ? NULL : sb_detach(&sb);
	}
	free(r.key);
	if (!no)
		no = open_text(w, n, flags, text, ret);
	if (!no)
		(*ret)->cached = true;
	return no;
}

static void rows_forget(struct nid n, uint64_t count)
{
	struct row *r;

	pthread_mutex_lock(&lock);
	HASH_FIND(hh, by_number, &n.number, sizeof(n.number), r);
	if (r) {
		r->nlookup -= MIN(count, r->nlookup);
		if (!r->nlookup) {
			HASH_DELETE(hh, by_number, r);
			HASH_DELETE(hk, by_key, r);
			row_free(r);
		}
	}
	pthread_mutex_unlock(&lock);
}

int rows_list(struct table *t, struct listing *l)
{
	struct table_iter *it = NULL;
	_cleanup_free_ char *more = notice(t);
	const struct cell *cells;
	const char *key;
	struct err e = { 0 };
	size_t len;
	int no = table_scan(t, NULL, 0, &it, &e);

	for (unsigned i = 0; !no && i < LISTED_MAX; i++) {
		_cleanup_free_ char *plain = NULL, *name = NULL;
		int k = table_next(it, &key, &len, &cells, &e);

		if (k <= 0) {
			no = k;
			break;
		}
		plain = strndup(key, len);
		name = plain ? table_escape(plain) : NULL;
		/* A longer key has no file name. */
		if (name && strlen(name) <= 255)
			listing_add(l, name, INO_UNKNOWN, S_IFREG);
	}
	if (it)
		table_scan_end(it);
	if (no)
		log_error("fs", "listing rows: %s", e.text);
	else if (more)
		listing_add(l, more, INO_UNKNOWN, S_IFREG);
	return no;
}

const struct tree tree_rows = {
	.getattr = rows_getattr,
	.open = rows_open,
	.forget = rows_forget,
};
