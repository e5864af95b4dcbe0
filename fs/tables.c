// SPDX-License-Identifier: Apache-2.0
/*
 * /tables/<namespace>/<name>/: names, and the files that are made from a
 * published generation.  Names are percent-escaped as the store does it.
 *
 * The node of data.csv carries the generation, so its pages never change.
 * Who opens it for writing is told ESTALE once; the kernel looks the name up
 * again and gets T_WRITE, the node that uploads.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <uthash.h>

#include "fs/tables_priv.h"

#define PARTS_MAX   2048u
#define PARENTS_MAX 1024u

static const struct ent table_files[] = {
	{ "upload.json", T_OPTIONS, S_IFREG | 0664, 0 },
	{ "schema.json", T_SCHEMA, S_IFREG | 0664, 0 },
	{ "count", T_COUNT, S_IFREG | 0664, 0 },
	{ "parts", T_PARTS, S_IFDIR | 0775, 0 },
	{ "parents", T_PARENTS, S_IFDIR | 0775, 0 },
	{ "rows", T_ROWS, S_IFDIR | 0555, E_HIDDEN },
	/* Last, so that rm -r and cp -r come to it last. */
	{ "data.csv", T_WRITE, S_IFREG | 0664, 0 },
};

/* ---- numbers to names: whatever the kernel knows was looked up -------- */

struct known {
	uint64_t id;
	char *ns, *name; /* name NULL: a namespace */
	unsigned made;	 /* bits of directories made in the empty table */
	UT_hash_handle hh;
};
static pthread_mutex_t known_lock = PTHREAD_MUTEX_INITIALIZER;
static struct known *known;

static void remember(uint64_t id, const char *ns, const char *name)
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

static int recall(uint64_t id, char **ret_ns, char **ret_name)
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
static bool made(uint64_t id, unsigned slot, bool make)
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
	int no = recall(id, &p.ns, &p.name);

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
static char *stored_name(const char *name)
{
	_cleanup_free_ char *plain = table_unescape(name);
	_cleanup_free_ char *again = plain ? table_escape(plain) : NULL;

	if (!again || strcmp(again, name) || !table_name_valid(plain))
		return NULL;
	return TAKE_PTR(plain);
}

/* ---- namespaces ------------------------------------------------------- */

static void namespace_attr(uint64_t id, struct attr *ret)
{
	attr_fill(ret, nid_ino(K_NAMESPACE, id, 0), S_IFDIR | 0775, 0, 0);
}

int namespace_lookup(const char *name, struct attr *ret)
{
	_cleanup_free_ char *ns = stored_name(name);
	uint64_t id;

	if (!ns || namespace_id(fs.tables, ns, &id))
		return -ENOENT;
	remember(id, ns, NULL);
	namespace_attr(id, ret);
	return 0;
}

struct listed {
	struct listing *l;
	const char *ns;
};

static int list_namespace(void *arg, const char *name)
{
	const struct listed *x = arg;
	_cleanup_free_ char *esc = table_escape(name);
	uint64_t id;

	if (esc && !namespace_id(fs.tables, name, &id))
		listing_add(x->l, esc, nid_ino(K_NAMESPACE, id, 0), S_IFDIR);
	return 0;
}

int namespaces_list(struct listing *l)
{
	struct listed x = { l, NULL };

	return table_list(fs.tables, NULL, list_namespace, &x, NULL);
}

int namespace_mkdir(const struct who *w, const char *name, struct attr *ret)
{
	_cleanup_free_ char *ns = stored_name(name);
	struct err e = { 0 };
	uint64_t id;
	int no;

	(void)w;
	if (!ns)
		return -EINVAL;
	no = namespace_create(fs.tables, ns, &id, &e);
	if (no)
		return no;
	remember(id, ns, NULL);
	namespace_attr(id, ret);
	return 0;
}

int namespace_rmdir(const struct who *w, const char *name)
{
	_cleanup_free_ char *ns = stored_name(name);

	(void)w;
	return ns ? namespace_remove(fs.tables, ns, NULL) : -ENOENT;
}

/* ---- attributes ------------------------------------------------------- */

static char *schema_text(struct table *t)
{
	json_t *v = schema_to_json(table_schema(t), table_rows(t));
	char *s = v ? json_text(v, true) : NULL;

	json_decref(v);
	return s;
}

static char *count_text(struct table *t)
{
	char *s = NULL;

	return asprintf(&s, "%llu\n", (unsigned long long)table_rows(t)) < 0
		   ? NULL
		   : s;
}

/* "ns/name" of parent i. */
static const char *parent_at(struct table *t, unsigned i)
{
	const json_t *l = table_schema(t)->lineage;

	return json_string_value(
	    json_array_get(json_object_get(l, "parents"), i));
}

static int parent_link(struct table *t, unsigned i, struct strbuf *ret)
{
	const char *p = parent_at(t, i), *slash = p ? strchr(p, '/') : NULL;
	_cleanup_free_ char *ns = NULL, *ens = NULL, *ename = NULL;

	if (!slash)
		return -ENOENT;
	ns = strndup(p, (size_t)(slash - p));
	ens = ns ? table_escape(ns) : NULL;
	ename = table_escape(slash + 1);
	if (!ens || !ename)
		return -ENOMEM;
	return sb_addf(ret, "../../../%s/%s", ens, ename);
}

static int table_getattr(const struct who *w, struct nid n, struct attr *ret)
{
	_cleanup_table_ struct table *t = NULL;
	_cleanup_free_ char *text = NULL;
	fuse_ino_t ino = nid_ino(n.kind, n.number, n.slot);
	int64_t ms;
	int no;

	(void)w;
	if (n.kind == K_NAMESPACE) {
		_cleanup_free_ char *ns = NULL;

		no = recall(n.number, &ns, NULL);
		if (!no)
			namespace_attr(n.number, ret);
		return no;
	}
	if (n.slot == T_OPTIONS) {
		_cleanup_free_ char *path = options_path(n.number);

		no = path ? attr_disk(ret, ino, S_IFREG | 0664, path, true)
			  : -ENOMEM;
		ret->entry_s = 0;
		return no;
	}
	no = table_now(n.number, &t);
	if (no)
		return no;
	ms = t ? table_published_ms(t) : 0;
	if (n.slot >= T_PARENT0) {
		_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(2048);

		if (t)
			no = parent_link(t, n.slot - T_PARENT0, &sb);
		attr_fill(ret, ino, S_IFLNK | 0777, sb.len, ms);
		ret->entry_s = 0;
		return no;
	}
	if (n.slot >= T_PART0) {
		uint64_t size = 0;

		if (t)
			no = table_part_size(t, n.slot - T_PART0, &size, NULL);
		attr_fill(ret, ino, S_IFREG | 0664, size, ms);
		ret->entry_s = 0;
		return no;
	}
	switch (n.slot) {
	case T_DIR:
		attr_fill(ret, ino, S_IFDIR | 0775, 0, ms);
		return 0;
	case T_PARTS:
	case T_PARENTS:
		attr_fill(ret, ino, S_IFDIR | 0775, 0, ms);
		break;
	case T_ROWS:
		attr_fill(ret, ino, S_IFDIR | 0555, 0, ms);
		break;
	case T_WRITE: /* what is published until the new one is */
		attr_fill(ret, ino, DATA_MODE, t ? table_csv_size(t) : 0, ms);
		/* vim takes a file with another number for a stranger's. */
		if (t) {
			ret->st.st_ino =
			    nid_ino(K_DATA, table_generation(t), 0);
			ret->node = ino;
		}
		break;
	case T_SCHEMA:
	case T_COUNT:
		if (t)
			text =
			    n.slot == T_COUNT ? count_text(t) : schema_text(t);
		if (t && !text)
			return -ENOMEM;
		attr_fill(ret, ino, S_IFREG | 0664, text ? strlen(text) : 0,
			  ms);
		break;
	default:
		return -ENOENT;
	}
	ret->entry_s = 0;
	return 0;
}

/* ---- lookups ---------------------------------------------------------- */

static int in_namespace(struct nid dir, const char *name, struct attr *ret)
{
	_cleanup_free_ char *ns = NULL, *plain = stored_name(name);
	struct table_id id;

	if (!plain || recall(dir.number, &ns, NULL) ||
	    table_lookup(fs.tables, ns, plain, &id, NULL))
		return -ENOENT;
	remember(id.id, ns, plain);
	return table_getattr(NULL, (struct nid){ K_TABLE, id.id, T_DIR }, ret);
}

static int data_lookup(const struct who *w, uint64_t id, struct attr *ret)
{
	_cleanup_table_ struct table *t = NULL;
	int no = table_now(id, &t);

	if (no)
		return no;
	if (t && !table_intent_of(w->pid, false)) {
		table_data_attr(t, ret);
		return 0;
	}
	if (!t && !upload_active(id))
		return -ENOENT;
	return table_getattr(w, (struct nid){ K_TABLE, id, T_WRITE }, ret);
}

static bool part_number(const char *name, unsigned *ret)
{
	char again[32];
	unsigned long k = strtoul(name, NULL, 10);

	(void)snprintf(again, sizeof(again), "%lu.csv", k);
	*ret = (unsigned)k;
	return k < PARTS_MAX && !strcmp(again, name);
}

static int in_table(const struct who *w, struct nid dir, const char *name,
		    struct attr *ret)
{
	_cleanup_table_ struct table *t = NULL;
	struct nid n = { K_TABLE, dir.number, 0 };
	const struct ent *e;
	unsigned k;
	int no;

	switch (dir.slot) {
	case T_DIR:
		if (name_temporary(name))
			return real_lookup(
			    (struct real_at){ REAL_TEMP, dir.number, name },
			    ret);
		e = ent_by_name(table_files, ARRAY_SIZE(table_files), name);
		if (!e)
			return -ENOENT;
		if (e->slot == T_WRITE)
			return data_lookup(w, dir.number, ret);
		if (e->slot == T_OPTIONS) {
			_cleanup_free_ char *p = options_path(dir.number);

			if (!p || access(p, F_OK))
				return -ENOENT;
		} else if (e->slot != T_ROWS) {
			no = table_now(dir.number, &t);
			/* An empty table has none of them. */
			if (no || (!t && !made(dir.number, e->slot, false)))
				return -ENOENT;
		}
		n.slot = e->slot;
		break;
	case T_PARTS:
		if (table_now(dir.number, &t) || !t || !part_number(name, &k) ||
		    k >= table_parts(t))
			return -ENOENT;
		n.slot = T_PART0 + k;
		break;
	case T_PARENTS:
		if (table_now(dir.number, &t) || !t)
			return -ENOENT;
		for (k = 0; k < PARENTS_MAX; k++) {
			const char *p = parent_at(t, k);
			_cleanup_free_ char *esc = p ? table_escape(p) : NULL;

			if (!p)
				return -ENOENT;
			if (esc && !strcmp(esc, name))
				break;
		}
		n.slot = T_PARENT0 + k;
		break;
	case T_ROWS:
		return row_lookup(dir.number, name, ret);
	default:
		return -ENOTDIR;
	}
	return table_getattr(w, n, ret);
}

static int tables_lookup(const struct who *w, struct nid dir, const char *name,
			 struct attr *ret)
{
	return dir.kind == K_NAMESPACE ? in_namespace(dir, name, ret)
				       : in_table(w, dir, name, ret);
}

static int list_table(void *arg, const char *name)
{
	const struct listed *x = arg;
	_cleanup_free_ char *esc = table_escape(name);
	struct table_id id;

	if (esc && !table_lookup(fs.tables, x->ns, name, &id, NULL))
		listing_add(x->l, esc, nid_ino(K_TABLE, id.id, T_DIR), S_IFDIR);
	return 0;
}

static int tables_list(const struct who *w, struct nid dir, struct listing *l)
{
	_cleanup_table_ struct table *t = NULL;
	int no;

	(void)w;
	if (dir.kind == K_NAMESPACE) {
		_cleanup_free_ char *ns = NULL;
		struct listed x = { l, NULL };

		no = recall(dir.number, &ns, NULL);
		if (no)
			return no;
		x.ns = ns;
		return table_list(fs.tables, ns, list_table, &x, NULL);
	}
	no = table_now(dir.number, &t);
	if (no)
		return no;
	switch (dir.slot) {
	case T_DIR:
		no =
		    real_list((struct real_at){ REAL_TEMP, dir.number, "" }, l);
		if (no)
			return no;
		for (size_t i = 0; i < ARRAY_SIZE(table_files); i++) {
			const struct ent *e = &table_files[i];
			struct attr a;

			if (!(e->flags & E_HIDDEN) &&
			    (t || !S_ISDIR(e->mode)) &&
			    !in_table(w, dir, e->name, &a))
				listing_add(l, e->name, a.st.st_ino, e->mode);
		}
		return 0;
	case T_PARTS:
		for (unsigned k = 0; t && k < table_parts(t); k++) {
			char name[32];

			(void)snprintf(name, sizeof(name), "%u.csv", k);
			listing_add(l, name,
				    nid_ino(K_TABLE, dir.number, T_PART0 + k),
				    S_IFREG);
		}
		return 0;
	case T_PARENTS:
		for (unsigned k = 0; t && k < PARENTS_MAX; k++) {
			const char *p = parent_at(t, k);
			_cleanup_free_ char *esc = p ? table_escape(p) : NULL;

			if (!esc)
				break;
			listing_add(l, esc,
				    nid_ino(K_TABLE, dir.number, T_PARENT0 + k),
				    S_IFLNK);
		}
		return 0;
	default:
		return 0; /* rows are looked up, never listed */
	}
}

static int tables_readlink(struct nid n, struct strbuf *ret)
{
	_cleanup_table_ struct table *t = NULL;
	int no = table_now(n.number, &t);

	if (no)
		return no;
	if (!t || n.slot < T_PARENT0)
		return -EINVAL;
	return parent_link(t, n.slot - T_PARENT0, ret);
}

/* ---- opening ---------------------------------------------------------- */

static int tables_open(const struct who *w, struct nid n, int flags,
		       struct handle **ret)
{
	_cleanup_table_ struct table *t = NULL;
	bool writes = (flags & O_ACCMODE) != O_RDONLY;
	int no;

	if (n.slot == T_OPTIONS)
		return options_open(w, n.number, flags, ret);
	no = table_now(n.number, &t);
	if (no)
		return no;
	if (n.slot == T_WRITE && writes) {
		table_intent_of(w->pid, true);
		return upload_open(w, n.number, flags, ret);
	}
	if (writes) /* derived: taken and forgotten */
		return sink_open(w, n, flags, ret);
	if (!t)
		return open_text(w, n, flags, NULL, ret);
	if (n.slot == T_WRITE)
		return table_data_open(w, n, flags, t, 0, ret);
	if (n.slot >= T_PART0 && n.slot < T_PARENT0)
		return table_data_open(w, n, flags, t, n.slot - T_PART0 + 1,
				       ret);
	if (n.slot == T_SCHEMA)
		return open_text(w, n, flags, schema_text(t), ret);
	if (n.slot == T_COUNT)
		return open_text(w, n, flags, count_text(t), ret);
	return -EISDIR;
}

static int tables_create(const struct who *w, struct nid dir, const char *name,
			 mode_t mode, int flags, struct attr *ret,
			 struct handle **ret_h)
{
	struct nid n = { K_TABLE, dir.number, 0 };
	const struct ent *e;
	unsigned k;
	int no;

	if (dir.kind != K_TABLE) {
		errors_add(w->uid, name, -EPERM,
			   "a table is a directory: mkdir tables/NAMESPACE/"
			   "NAME, then cp FILE tables/NAMESPACE/NAME/data.csv");
		return -EPERM;
	}
	if (dir.slot == T_DIR && name_temporary(name))
		return real_create(
		    w, (struct real_at){ REAL_TEMP, dir.number, name }, mode,
		    flags, ret, ret_h);
	if (dir.slot == T_PARTS && part_number(name, &k)) {
		n.slot = T_PART0 + k;
		no = sink_open(w, n, flags, ret_h);
		if (!no)
			attr_fill(ret, nid_ino(K_TABLE, n.number, n.slot),
				  S_IFREG | 0664, 0, 0);
		ret->entry_s = 0;
		return no;
	}
	e = dir.slot == T_DIR
		? ent_by_name(table_files, ARRAY_SIZE(table_files), name)
		: NULL;
	if (!e || S_ISDIR(e->mode)) {
		table_refused(w, dir.number, name, -EPERM,
			      "a table's rows are its data.csv: cp FILE "
			      "tables/NAMESPACE/NAME/data.csv");
		return -EPERM;
	}
	n.slot = e->slot;
	if (e->slot == T_WRITE)
		no = upload_open(w, n.number, flags, ret_h);
	else if (e->slot == T_OPTIONS)
		no = options_open(w, n.number, flags, ret_h);
	else
		no = sink_open(w, n, flags, ret_h);
	if (!no)
		no = table_getattr(w, n, ret);
	if (no) {
		handle_free(*ret_h);
		*ret_h = NULL;
	}
	return no;
}

static int tables_truncate(const struct who *w, struct nid n, off_t size)
{
	(void)w, (void)n;
	/* truncate(1) without a descriptor: the writer that follows says it */
	return size ? -EINVAL : 0;
}

static int tables_mkdir(const struct who *w, struct nid dir, const char *name,
			mode_t mode, struct attr *ret)
{
	(void)mode;
	if (dir.kind == K_NAMESPACE) {
		_cleanup_free_ char *ns = NULL, *plain = stored_name(name);
		struct table_id id;
		int no = plain ? recall(dir.number, &ns, NULL) : -EINVAL;

		if (!no)
			no =
			    table_create_empty(fs.tables, ns, plain, &id, NULL);
		if (no)
			return no;
		remember(id.id, ns, plain);
		return table_getattr(w, (struct nid){ K_TABLE, id.id, T_DIR },
				     ret);
	}
	if (dir.slot == T_DIR &&
	    (!strcmp(name, "parts") || !strcmp(name, "parents"))) {
		unsigned slot = strcmp(name, "parts") ? T_PARENTS : T_PARTS;
		struct attr a;

		if (!in_table(w, dir, name, &a))
			return -EEXIST;
		made(dir.number, slot, true);
		return table_getattr(
		    w, (struct nid){ K_TABLE, dir.number, slot }, ret);
	}
	return -EPERM;
}

/* cp -r copies parents/; the new table has its own. */
static int tables_symlink(const struct who *w, struct nid dir, const char *name,
			  const char *to, struct attr *ret)
{
	(void)w, (void)name;
	if (dir.kind != K_TABLE || dir.slot != T_PARENTS)
		return -EPERM;
	attr_fill(ret, nid_ino(K_TABLE, dir.number, T_PARENT0 + 1023),
		  S_IFLNK | 0777, strlen(to), 0);
	ret->entry_s = 0;
	return 0;
}

static int tables_unlink(const struct who *w, struct nid dir, const char *name)
{
	_cleanup_table_place_ struct table_place p = { 0 };
	int no;

	if (dir.kind != K_TABLE)
		return -EISDIR;
	no = table_place(dir.number, &p);
	if (no || dir.slot != T_DIR)
		return no; /* parts and parents go with the data */
	if (name_temporary(name))
		return real_unlink(
		    w, (struct real_at){ REAL_TEMP, dir.number, name });
	if (!strcmp(name, "data.csv"))
		return table_truncate(fs.tables, p.ns, p.name, NULL);
	if (!strcmp(name, "upload.json")) {
		_cleanup_free_ char *path = options_path(dir.number);

		return path && unlink(path) && errno != ENOENT ? -errno : 0;
	}
	return 0;
}

static int tables_rmdir(const struct who *w, struct nid dir, const char *name)
{
	_cleanup_free_ char *ns = NULL, *plain = NULL, *path = NULL;
	struct table_id id;
	int no;

	(void)w;
	if (dir.kind == K_TABLE)
		return strcmp(name, "parts") && strcmp(name, "parents") ? -EPERM
									: 0;
	plain = stored_name(name);
	no = plain ? recall(dir.number, &ns, NULL) : -ENOENT;
	if (!no)
		no = table_lookup(fs.tables, ns, plain, &id, NULL);
	if (!no)
		no = table_drop(fs.tables, ns, plain, NULL);
	if (!no && (path = options_path(id.id)))
		(void)unlink(path);
	return no;
}

static int rename_table(struct nid dir, const char *name, struct nid to,
			const char *to_name, unsigned flags)
{
	_cleanup_free_ char *ns = NULL, *to_ns = NULL;
	_cleanup_free_ char *a = stored_name(name), *b = stored_name(to_name);
	struct table_id id;
	struct err e = { 0 };
	int no = a && b ? 0 : -EINVAL;

	if (!no)
		no = recall(dir.number, &ns, NULL);
	if (!no)
		no = recall(to.number, &to_ns, NULL);
	if (!no)
		no = table_lookup(fs.tables, ns, a, &id, NULL);
	if (!no && flags) {
		struct table_id other;

		if (!table_lookup(fs.tables, to_ns, b, &other, NULL))
			no = -EEXIST;
	}
	if (!no)
		no = table_rename(fs.tables, ns, a, to_ns, b, &e);
	if (!no)
		remember(id.id, to_ns, b);
	return no;
}

static int tables_rename(const struct who *w, struct nid dir, const char *name,
			 struct nid to, const char *to_name, unsigned flags)
{
	struct real_at from = { REAL_TEMP, dir.number, name };
	_cleanup_free_ char *path = NULL;
	struct attr a;
	int no;

	if (dir.kind != to.kind)
		return -EPERM;
	if (dir.kind == K_NAMESPACE)
		return rename_table(dir, name, to, to_name, flags);
	if (dir.slot != T_DIR || to.slot != T_DIR)
		return -EPERM;
	if (flags && !in_table(w, to, to_name, &a))
		return -EEXIST;
	if (!strcmp(name, "data.csv") && !strcmp(to_name, "data.csv")) {
		_cleanup_table_ struct table *t = NULL;
		_cleanup_table_place_ struct table_place p = { 0 }, q = { 0 };

		no = table_now(dir.number, &t);
		if (!no)
			no = t ? table_place(dir.number, &p) : -ENOENT;
		if (!no)
			no = table_place(to.number, &q);
		if (!no)
			no = table_link(t, q.ns, q.name, NULL);
		return no ? no : table_truncate(fs.tables, p.ns, p.name, NULL);
	}
	if (!name_temporary(name))
		return -EPERM;
	if (name_temporary(to_name))
		return real_rename(
		    w, from, (struct real_at){ REAL_TEMP, to.number, to_name });
	path = real_disk(from);
	if (!path)
		return -ENOENT;
	if (!strcmp(to_name, "data.csv")) {
		no = upload_file(w, to.number, path);
	} else if (!strcmp(to_name, "upload.json")) {
		return options_file(w, to.number, path);
	} else {
		return -EPERM;
	}
	return no ? no : real_unlink(w, from);
}

static int tables_xattrs(struct nid n, struct strbuf *ret)
{
	_cleanup_table_place_ struct table_place p = { 0 };
	int no = n.kind == K_TABLE ? table_place(n.number, &p) : -ENOENT;

	if (no)
		return 0;
	sb_adds(ret, "user.rollfs.namespace");
	sb_addc(ret, '\0');
	sb_adds(ret, p.ns);
	sb_addc(ret, '\0');
	sb_adds(ret, "user.rollfs.name");
	sb_addc(ret, '\0');
	sb_adds(ret, p.name);
	sb_addc(ret, '\0');
	return 0;
}

const struct tree tree_tables = {
	.lookup = tables_lookup,
	.getattr = table_getattr,
	.list = tables_list,
	.open = tables_open,
	.readlink = tables_readlink,
	.create = tables_create,
	.mkdir = tables_mkdir,
	.symlink = tables_symlink,
	.unlink = tables_unlink,
	.rmdir = tables_rmdir,
	.rename = tables_rename,
	.truncate = tables_truncate,
	.xattrs = tables_xattrs,
};
