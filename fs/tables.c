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
#include <sys/stat.h>

#include "fs/tables_priv.h"

const struct ent table_files[TABLE_FILES] = {
	{ "upload.json", T_OPTIONS, S_IFREG | 0664, 0 },
	{ "schema.json", T_SCHEMA, S_IFREG | 0664, 0 },
	{ "count", T_COUNT, S_IFREG | 0664, 0 },
	{ "parts", T_PARTS, S_IFDIR | 0775, 0 },
	{ "parents", T_PARENTS, S_IFDIR | 0775, 0 },
	{ "rows", T_ROWS, S_IFDIR | 0555, E_HIDDEN },
	/* Last, so that rm -r and cp -r come to it last. */
	{ "data.csv", T_WRITE, S_IFREG | 0664, 0 },
};

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

int table_getattr(const struct who *w, struct nid n, struct attr *ret)
{
	_cleanup_table_ struct table *t = NULL;
	_cleanup_free_ char *text = NULL;
	fuse_ino_t ino = nid_ino(n.kind, n.number, n.slot);
	int64_t ms;
	int no;

	(void)w;
	if (n.kind == K_NAMESPACE) {
		_cleanup_free_ char *ns = NULL;

		no = table_recall(n.number, &ns, NULL);
		if (!no)
			table_namespace_attr(n.number, ret);
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
	_cleanup_free_ char *ns = NULL, *plain = table_stored_name(name);
	struct table_id id;

	if (!plain || table_recall(dir.number, &ns, NULL) ||
	    table_lookup(fs.tables, ns, plain, &id, NULL))
		return -ENOENT;
	table_remember(id.id, ns, plain);
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

bool table_part_number(const char *name, unsigned *ret)
{
	char again[32];
	unsigned long k = strtoul(name, NULL, 10);

	(void)snprintf(again, sizeof(again), "%lu.csv", k);
	*ret = (unsigned)k;
	return k < TABLE_PARTS_MAX && !strcmp(again, name);
}

int table_in(const struct who *w, struct nid dir, const char *name,
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
		e = ent_by_name(table_files, TABLE_FILES, name);
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
			if (no ||
			    (!t && !table_made(dir.number, e->slot, false)))
				return -ENOENT;
		}
		n.slot = e->slot;
		break;
	case T_PARTS:
		if (table_now(dir.number, &t) || !t ||
		    !table_part_number(name, &k) || k >= table_parts(t))
			return -ENOENT;
		n.slot = T_PART0 + k;
		break;
	case T_PARENTS:
		if (table_now(dir.number, &t) || !t)
			return -ENOENT;
		for (k = 0; k < TABLE_PARENTS_MAX; k++) {
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
				       : table_in(w, dir, name, ret);
}

static int list_table(void *arg, const char *name)
{
	const struct table_listed *x = arg;
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
		struct table_listed x = { l, NULL };

		no = table_recall(dir.number, &ns, NULL);
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
		for (size_t i = 0; i < TABLE_FILES; i++) {
			const struct ent *e = &table_files[i];
			struct attr a;

			if (!(e->flags & E_HIDDEN) &&
			    (t || !S_ISDIR(e->mode)) &&
			    !table_in(w, dir, e->name, &a))
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
		for (unsigned k = 0; t && k < TABLE_PARENTS_MAX; k++) {
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
