// SPDX-License-Identifier: Apache-2.0
/* rows/<key>: looked up, never listed.  A key does not fit into a number, so
 * these nodes are remembered until the kernel forgets them. */
#include <pthread.h>
#include <sys/stat.h>
#include <uthash.h>

#include "fs/fs.h"

struct row {
	uint64_t number, table, nlookup;
	char *name; /* as it was looked up */
	UT_hash_handle hh;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct row *rows;
static uint64_t last;

static int row_text(uint64_t id, const char *name, struct strbuf *ret)
{
	_cleanup_table_ struct table *t = NULL;
	_cleanup_free_ char *key = table_unescape(name);
	int no = key ? table_now(id, &t) : -ENOENT;

	if (no)
		return no;
	return t ? table_row_csv(t, key, strlen(key), ret, NULL) : -ENOENT;
}

static void row_attr(uint64_t number, const struct strbuf *text,
		     struct attr *ret)
{
	attr_fill(ret, nid_ino(K_ROW, number, 0), S_IFREG | 0444, text->len, 0);
	ret->entry_s = 0;
}

int row_lookup(uint64_t table, const char *name, struct attr *ret)
{
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT(4u << 20);
	struct row *r, *tmp, *found = NULL;
	int no = row_text(table, name, &text);

	if (no)
		return no == -ESTALE ? no : -ENOENT;
	pthread_mutex_lock(&lock);
	HASH_ITER (hh, rows, r, tmp)
		if (r->table == table && !strcmp(r->name, name))
			found = r;
	if (!found && (found = calloc(1, sizeof(*found)))) {
		found->name = strdup(name);
		found->table = table;
		found->number = ++last;
		if (found->name) {
			HASH_ADD(hh, rows, number, sizeof(found->number),
				 found);
		} else {
			free(found);
			found = NULL;
		}
	}
	if (found) {
		found->nlookup++;
		row_attr(found->number, &text, ret);
	}
	pthread_mutex_unlock(&lock);
	return found ? 0 : -ENOMEM;
}

static int text_of(uint64_t number, struct strbuf *ret)
{
	_cleanup_free_ char *name = NULL;
	uint64_t table = 0;
	const struct row *r;

	pthread_mutex_lock(&lock);
	HASH_FIND(hh, rows, &number, sizeof(number), r);
	if (r) {
		name = strdup(r->name);
		table = r->table;
	}
	pthread_mutex_unlock(&lock);
	return name ? row_text(table, name, ret) : -ESTALE;
}

static int rows_getattr(const struct who *w, struct nid n, struct attr *ret)
{
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT(4u << 20);
	int no = text_of(n.number, &text);

	(void)w;
	if (!no)
		row_attr(n.number, &text, ret);
	return no;
}

static int rows_open(const struct who *w, struct nid n, int flags,
		     struct handle **ret)
{
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT(4u << 20);
	int no = text_of(n.number, &text);

	return no ? no : open_text(w, n, flags, sb_detach(&text), ret);
}

static void rows_forget(struct nid n, uint64_t count)
{
	struct row *r;

	pthread_mutex_lock(&lock);
	HASH_FIND(hh, rows, &n.number, sizeof(n.number), r);
	if (r) {
		r->nlookup -= MIN(count, r->nlookup);
		if (!r->nlookup) {
			HASH_DEL(rows, r);
			free(r->name);
			free(r);
		}
	}
	pthread_mutex_unlock(&lock);
}

const struct tree tree_rows = {
	.getattr = rows_getattr,
	.open = rows_open,
	.forget = rows_forget,
};
