// SPDX-License-Identifier: Apache-2.0
/* Numbers, names and namespaces: /tables and its directories. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <uthash.h>

#include "fs/tables_priv.h"

/* ---- numbers to names: whatever the kernel knows was looked up -------- */

struct known {
	uint64_t id;
	char *ns, *name; /* name NULL: a namespace */
	unsigned made;	 /* bits of directories made in the empty table */
	UT_hash_handle hh;
};
static pthread_mutex_t known_lock = PTHREAD_MUTEX_INITIALIZER;
static struct known *known;

void table_remember(uint64_t id, const char *ns, const char *name)
{
	struct known *k;

	pthread_mutex_lock(&known_lock);
	HASH_FIND(hh, known, &id, sizeof(id), k);
	if (k && (strcmp(k->ns, ns) || (name && strcmp(k->name, name)))) {
		HASH_DEL(known, k);
		free(k->ns);
		free(k->name);
		free(k);
		k = NULL;
	}
	if (!k && (k = calloc(1, sizeof(*k)))) {
		k->id = id;
		k->ns = strdup(ns);
		k->name = name ? strdup(name) : NULL;
		if (!k->ns || (name && !k->name)) {
			free(k->ns);
			free(k->name);
			free(k);
		} else {
			HASH_ADD(hh, known, id, sizeof(k->id), k);
		}
	}
	pthread_mutex_unlock(&known_lock);
}

int table_recall(uint64_t id, char **ret_ns, char **ret_name)
{
	const struct known *k;

	*ret_ns = NULL;
	if (ret_name)
		*ret_name = NULL;
	pthread_mutex_lock(&known_lock);
	HASH_FIND(hh, known, &id, sizeof(id), k);
	if (k && !k->name == !ret_name) {
		*ret_ns = strdup(k->ns);
		if (ret_name)
			*ret_name = strdup(k->name);
	}
	pthread_mutex_unlock(&known_lock);
	return *ret_ns && (!ret_name || *ret_name) ? 0 : -ESTALE;
}

/* cp -r makes parts/ and parents/ before there is a data.csv. */
bool table_made(uint64_t id, unsigned slot, bool make)
{
	struct known *k;
	bool is = false;

	pthread_mutex_lock(&known_lock);
	HASH_FIND(hh, known, &id, sizeof(id), k);
	if (k) {
		k->made |= make ? 1u << slot : 0;
		is = k->made & 1u << slot;
	}
	pthread_mutex_unlock(&known_lock);
	return is;
}

void table_place_free(struct table_place *p)
{
	free(p->ns);
	free(p->name);
	p->ns = p->name = NULL;
}

int table_place(uint64_t id, struct table_place *ret)
{
	struct table_place p = { 0 };
	int no = table_recall(id, &p.ns, &p.name);

	if (!no)
		no = table_lookup(fs.tables, p.ns, p.name, &p.id, NULL);
	if (no == -ENOENT || (!no && p.id.id != id))
		no = -ESTALE;
	if (no) {
		table_place_free(&p);
		return no;
	}
	*ret = p;
	return 0;
}

int table_now(uint64_t id, struct table **ret)
{
	_cleanup_table_place_ struct table_place p = { 0 };
	int no = table_place(id, &p);

	*ret = NULL;
	if (no || !p.id.gen)
		return no;
	return table_open(fs.tables, p.ns, p.name, ret, NULL);
}

void table_refused(const struct who *w, uint64_t id, const char *file,
		   int status, const char *text)
{
	_cleanup_table_place_ struct table_place p = { 0 };
	_cleanup_strbuf_ struct strbuf what = STRBUF_INIT(2048);

	if (table_place(id, &p))
		return;
	sb_addf(&what, "tables/%s/%s/%s", p.ns, p.name, file);
	errors_add(w->uid, what.buf, status, text);
}

/* The store's name of a name in the mount; NULL if it cannot be one. */
char *table_stored_name(const char *name)
{
	_cleanup_free_ char *plain = table_unescape(name);
	_cleanup_free_ char *again = plain ? table_escape(plain) : NULL;

	if (!again || strcmp(again, name) || !table_name_valid(plain))
		return NULL;
	return TAKE_PTR(plain);
}

/* ---- namespaces ------------------------------------------------------- */

void table_namespace_attr(uint64_t id, struct attr *ret)
{
	attr_fill(ret, nid_ino(K_NAMESPACE, id, 0), S_IFDIR | 0775, 0, 0);
}

int namespace_lookup(const char *name, struct attr *ret)
{
	_cleanup_free_ char *ns = table_stored_name(name);
	uint64_t id;

	if (!ns || namespace_id(fs.tables, ns, &id))
		return -ENOENT;
	table_remember(id, ns, NULL);
	table_namespace_attr(id, ret);
	return 0;
}

static int list_namespace(void *arg, const char *name)
{
	const struct table_listed *x = arg;
	_cleanup_free_ char *esc = table_escape(name);
	uint64_t id;

	if (esc && !namespace_id(fs.tables, name, &id))
		listing_add(x->l, esc, nid_ino(K_NAMESPACE, id, 0), S_IFDIR);
	return 0;
}

int namespaces_list(struct listing *l)
{
	struct table_listed x = { l, NULL };

	return table_list(fs.tables, NULL, list_namespace, &x, NULL);
}

int namespace_mkdir(const struct who *w, const char *name, struct attr *ret)
{
	_cleanup_free_ char *ns = table_stored_name(name);
	struct err e = { 0 };
	uint64_t id;
	int no;

	(void)w;
	if (!ns)
		return -EINVAL;
	no = namespace_create(fs.tables, ns, &id, &e);
	if (no)
		return no;
	table_remember(id, ns, NULL);
	table_namespace_attr(id, ret);
	return 0;
}

int namespace_rmdir(const struct who *w, const char *name)
{
	_cleanup_free_ char *ns = table_stored_name(name);

	(void)w;
	return ns ? namespace_remove(fs.tables, ns, NULL) : -ENOENT;
}
