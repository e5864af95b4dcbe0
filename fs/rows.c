// SPDX-License-Identifier: Apache-2.0
/*
 * rows/<key>: looked up by key.  A listing shows the first ones, and says so
 * by a name.  A key does not fit into a number, so these nodes are remembered
 * until the kernel forgets them; beyond KNOWN_MAX it is asked to forget.  Each
 * is of one generation, so it never changes.
 *
 * Names are not looked up again for a while: watch.c tells of what replaces
 * them, and who opens a row of a former generation is told ESTALE once, upon
 * which the kernel looks again.  The first open hands the row to the page
 * cache, so that nobody has to ask for it.
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
#define TEXT_MAX   (4u << 20)
#define KNOWN_MAX  (1u << 16)
#define ASKED_MAX  256u	       /* that the kernel shall forget */
#define PUSHED_MAX (64u << 10) /* bytes of a row; longer ones are read */
#define KEPT_MAX   (8u << 20)  /* of all rows between lookup and open */
#define ENTRY_S	   60

struct row {
	uint64_t number, nlookup;
	uint64_t table, gen, made_by;
	uint64_t size;
	int64_t published_ms;
	bool pushed; /* to the page cache */
	char *text;  /* until then; NULL: not kept */
	char *key;   /* "<table>/<generation>/<name as it was looked up>" */
	UT_hash_handle hh, hk;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct row *by_number, *by_key;
static struct intents looks_again = INTENTS_INIT;
static uint64_t last;
static size_t kept; /* bytes of all texts */

/* With the lock held; caller frees. */
static char *take_text(struct row *r)
{
	if (r->text)
		kept -= r->size;
	return TAKE_PTR(r->text);
}

/* With the lock held. */
static void row_free(struct row *r)
{
	free(take_text(r));
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
	ret->entry_s = watch_works() ? ENTRY_S : 0;
	ret->attr_s = 3600;
}

/* As it was looked up: after two slashes. */
static const char *name_of(const struct row *r)
{
	return strchr(strchr(r->key, '/') + 1, '/') + 1;
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

/* With the lock held: the kernel shall forget what it has known longest. */
static void bound(void)
{
	for (int i = 0; i < 2 && HASH_COUNT(by_number) > KNOWN_MAX &&
			notify_waiting() < ASKED_MAX;
	     i++) {
		struct row *r = by_number;

		notify_entry(nid_ino(K_TABLE, r->table, T_ROWS), name_of(r));
		HASH_DELETE(hh, by_number, r);
		HASH_ADD(hh, by_number, number, sizeof(r->number), r);
	}
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
	r->table = p->id.id;
	r->gen = table_generation(t);
	r->made_by = p->id.made_by;
	r->size = text->len;
	r->published_ms = table_published_ms(t);
	pthread_mutex_lock(&lock);
	HASH_FIND(hk, by_key, key, strlen(key), other);
	if (other) {
		row_free(r);
		r = other;
	} else {
		if (text->len <= PUSHED_MAX && kept + text->len <= KEPT_MAX &&
		    (r->text = strdup(text->buf)))
			kept += text->len;
		r->number = ++last;
		HASH_ADD(hh, by_number, number, sizeof(r->number), r);
		HASH_ADD_KEYPTR(hk, by_key, r->key, strlen(r->key), r);
	}
	r->nlookup++;
	row_attr(r, ret);
	bound();
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

/* What is known of a node; ret_name (may be NULL): caller frees. */
static int known(uint64_t number, struct row *ret, char **ret_name)
{
	const struct row *r;

	pthread_mutex_lock(&lock);
	HASH_FIND(hh, by_number, &number, sizeof(number), r);
	if (r)
		*ret = *r;
	if (ret_name)
		*ret_name = r ? strdup(name_of(r)) : NULL;
	pthread_mutex_unlock(&lock);
	return r ? 0 : -ESTALE;
}

static int rows_getattr(const struct who *w, struct nid n, struct attr *ret)
{
	struct row r;
	int no = known(n.number, &r, NULL);

	(void)w;
	if (!no)
		row_attr(&r, ret);
	return no;
}

/* What the page cache does not have (any more). */
static void row_read(fuse_req_t req, struct handle *h, size_t n, off_t off,
		     struct fuse_file_info *fi)
{
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT(TEXT_MAX);
	_cleanup_free_ char *name = NULL;
	struct row r;
	int no = known(h->nid.number, &r, &name);

	(void)fi;
	if (!no)
		no = name ? row_text(h->table, name, &text) : -ENOMEM;
	if (no)
		fuse_reply_err(req, -no);
	else
		reply_read_text(req, &text, n, off);
}

static const struct handle_ops row_ops = { .read = row_read };

/*
 * Once for each node, and before anybody has it open: a reader that waits for
 * an answer of ours holds the page's lock.  When somebody opens it meanwhile,
 * another thread answers him.
 */
static void push(struct nid n)
{
	struct fuse_bufvec b = FUSE_BUFVEC_INIT(0);
	_cleanup_free_ char *text = NULL;
	struct row *r;

	pthread_mutex_lock(&lock);
	HASH_FIND(hh, by_number, &n.number, sizeof(n.number), r);
	if (r && !r->pushed) {
		r->pushed = true;
		b.buf[0].size = r->size;
		text = take_text(r);
	}
	pthread_mutex_unlock(&lock);
	b.buf[0].mem = text;
	/* What does not get there is read. */
	if (text)
		(void)fuse_lowlevel_notify_store(
		    fs.session, nid_ino(n.kind, n.number, n.slot), 0, &b, 0);
}

static int rows_open(const struct who *w, struct nid n, int flags,
		     struct handle **ret)
{
	_cleanup_table_ struct table *t = NULL;
	_cleanup_table_place_ struct table_place p = { 0 };
	struct handle *h;
	struct row r;
	int no = known(n.number, &r, NULL);

	if ((flags & O_ACCMODE) != O_RDONLY)
		return -EACCES;
	if (!no)
		no = table_place(r.table, &p);
	if (!no && p.id.gen != r.gen &&
	    !intent_of(&looks_again, w->pid, true)) {
		intent_add(&looks_again, w->pid);
		no = -ESTALE;
	}
	if (!no)
		no = table_open_of(fs.tables, r.made_by, r.gen, &t, NULL);
	if (no)
		return no;
	h = handle_new(w, n, flags, &row_ops);
	if (!h)
		return -ENOMEM;
	h->table = TAKE_PTR(t);
	h->part = 1; /* not the whole table, to copy_file_range */
	h->cached = true;
	push(n);
	*ret = h;
	return 0;
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
