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

#define STEADY_S 60 /* that the kernel keeps, and is told of changes */

const struct ent table_files[TABLE_FILES] = {
	{ "upload.json", T_OPTIONS, S_IFREG | 0664, 0 },
	{ "schema.json", T_SCHEMA, S_IFREG | 0664, 0 },
	{ "count", T_COUNT, S_IFREG | 0664, 0 },
	{ "parts", T_PARTS, S_IFDIR | 0775, 0 },
	{ "parents", T_PARENTS, S_IFDIR | 0775, 0 },
	{ "rows", T_ROWS, S_IFDIR | 0555, E_HIDDEN },
	{ "columns", T_COLUMNS, S_IFDIR | 0775, 0 },
	{ "data.npy", T_MATRIX, S_IFREG | 0664, 0 },
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

/* Empty, where somebody has written a file that the table does not have. */
static int ghost_attr(const struct table_place *p, struct nid n,
		      struct attr *ret)
{
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT(8192);
	const struct ent *e = ent_by_slot(table_files, TABLE_FILES, n.slot);
	mode_t mode = n.slot >= T_GHOST0 ? S_IFLNK | 0777
		      : e		 ? e->mode
					 : S_IFREG | 0664;

	if (!table_ghost(n.number, n.slot))
		return -ENOENT;
	(void)table_ghost_text(n.number, n.slot, &text);
	attr_fill(ret, nid_ino(n.kind, n.number, n.slot), mode, text.len,
		  p->id.changed_ns / 1000000);
	ret->entry_s = 0;
	return table_attr_apply(
	    n.number, S_ISDIR(mode) ? ATTR_DIR : ATTR_DERIVED, 0, 0, ret);
}

/* Whom data.csv may be read by may look rows up; nobody makes any. */
static int rows_mode(const struct table_place *p, mode_t *mode)
{
	struct attr data = { 0 };
	mode_t may;
	int no;

	attr_fill(&data, nid_ino(K_TABLE, p->id.id, T_WRITE), DATA_MODE, 0, 0);
	no = table_attr_apply(p->id.id, ATTR_DATA, p->id.gen, 0, &data);
	may = data.st.st_mode & 0444;
	*mode &= S_IFMT | may | may >> 2;
	return no;
}

/* Has rows, and nobody is about to make it look otherwise. */
static bool steady(const struct table_place *p)
{
	return p->id.gen && watch_works() && !upload_active(p->id.id) &&
	       !table_copier_any(p->id.id);
}

static int dir_attr(const struct table_place *p, struct nid n, struct attr *ret)
{
	int no;

	if (n.slot != T_DIR && !p->id.gen)
		return n.slot == T_ROWS ? -ENOENT : ghost_attr(p, n, ret);
	attr_fill(ret, nid_ino(n.kind, n.number, n.slot), S_IFDIR | 0775, 0, 0);
	no = table_attr_apply(n.number, ATTR_DIR, 0, p->id.changed_ns, ret);
	if (!no && n.slot == T_ROWS)
		no = rows_mode(p, &ret->st.st_mode);
	/* watch.c tells of changes */
	ret->attr_s = ret->entry_s = steady(p) ? STEADY_S : 1;
	if (table_copier_any(n.number))
		ret->entry_s = 0;
	return no;
}

/* Its size, and its kind if it is no file of 0664. */
static int derived_size(struct table *t, struct nid n, uint64_t *ret,
			mode_t *mode)
{
	_cleanup_strbuf_ struct strbuf link = STRBUF_INIT(2048);
	_cleanup_free_ char *text = NULL;
	int no;

	if (n.slot >= T_PARENT0) {
		no = parent_link(t, n.slot - T_PARENT0, &link);
		*ret = link.len;
		*mode = S_IFLNK | 0777;
		return no;
	}
	if (n.slot >= T_PART0)
		return table_part_size(t, n.slot - T_PART0, ret, NULL);
	if (n.slot != T_SCHEMA && n.slot != T_COUNT)
		return -ENOENT;
	text = n.slot == T_COUNT ? count_text(t) : schema_text(t);
	*ret = text ? strlen(text) : 0;
	return text ? 0 : -ENOMEM;
}

static int derived_attr(const struct table_place *p, struct nid n,
			struct attr *ret)
{
	_cleanup_table_ struct table *t = NULL;
	mode_t mode = S_IFREG | 0664;
	uint64_t size = 0;
	int no = table_open_place(p, &t);

	if (no)
		return no;
	no = t ? derived_size(t, n, &size, &mode) : -ENOENT;
	if (no == -ENOENT)
		return ghost_attr(p, n, ret);
	if (no)
		return no;
	attr_fill(ret, nid_ino(n.kind, n.number, n.slot), mode, size,
		  table_published_ms(t));
	ret->entry_s = 0;
	return table_attr_apply(n.number, ATTR_DERIVED, table_generation(t), 0,
				ret);
}

/* data.csv as its writer sees it: what is published until the new one is. */
static int write_attr(const struct table_place *p, struct nid n,
		      struct attr *ret)
{
	_cleanup_table_ struct table *t = NULL;
	fuse_ino_t ino = nid_ino(n.kind, n.number, n.slot);
	int no = table_open_place(p, &t);

	if (no)
		return no;
	attr_fill(ret, ino, DATA_MODE, t ? table_csv_size(t) : 0,
		  t ? table_published_ms(t) : 0);
	no = table_attr_apply(n.number, ATTR_DATA, p->id.gen, 0, ret);
	/* vim takes a file with another number for a stranger's. */
	if (t) {
		ret->st.st_ino = table_data_ino(&p->id);
		ret->node = ino;
	}
	ret->entry_s = 0;
	return no;
}

int table_getattr(const struct who *w, struct nid n, struct attr *ret)
{
	_cleanup_table_place_ struct table_place p = { 0 };
	int no;

	(void)w;
	if (n.kind == K_NAMESPACE) {
		_cleanup_free_ char *ns = NULL;

		no = table_recall(n.number, &ns, NULL);
		return no ? no : namespace_attr(ns, n.number, ret);
	}
	no = table_place(n.number, &p);
	if (no)
		return no;
	if (n.slot == T_OPTIONS) {
		_cleanup_free_ char *path = options_path(n.number);

		no = path ? attr_disk(ret, nid_ino(n.kind, n.number, n.slot),
				      S_IFREG | 0664, path, true)
			  : -ENOMEM;
		ret->entry_s = 0;
		return no ? no
			  : table_attr_apply(n.number, ATTR_DERIVED, 0, 0, ret);
	}
	switch (n.slot) {
	case T_DIR:
	case T_PARTS:
	case T_PARENTS:
	case T_COLUMNS:
	case T_ROWS:
		return dir_attr(&p, n, ret);
	case T_WRITE:
		return write_attr(&p, n, ret);
	case T_SINK:
		attr_fill(ret, nid_ino(n.kind, n.number, n.slot),
			  S_IFREG | 0664, 0, 0);
		ret->entry_s = 0;
		return table_attr_apply(n.number, ATTR_DERIVED, 0, 0, ret);
	default:
		return derived_attr(&p, n, ret);
	}
}

/* ---- lookups ---------------------------------------------------------- */

static int in_namespace(const struct who *w, struct nid dir, const char *name,
			struct attr *ret)
{
	_cleanup_free_ char *ns = NULL, *plain = table_stored_name(name);
	struct table_place p = { 0 };
	struct err e = { 0 };
	int no;

	if (!plain || table_recall(dir.number, &ns, NULL))
		return -ENOENT;
	no = table_lookup(fs.tables, ns, plain, &p.id, &e);
	if (no && no != -ENOENT)
		errors_refused_as(w->uid, nid_ino(K_NAMESPACE, dir.number, 0),
				  name, no, e.text);
	if (no)
		return no;
	no = dir_attr(&p, (struct nid){ K_TABLE, p.id.id, T_DIR }, ret);
	return no ? no : table_remember(p.id.id, ns, plain);
}

static int data_lookup(const struct who *w, const struct table_place *p,
		       struct attr *ret)
{
	_cleanup_table_ struct table *t = NULL;
	int no = table_open_place(p, &t);

	if (no)
		return no;
	if (t && !table_intent_of(w->pid, false))
		return table_data_lookup(p, t, ret);
	if (!t && !upload_active(p->id.id))
		return -ENOENT;
	return write_attr(p, (struct nid){ K_TABLE, p->id.id, T_WRITE }, ret);
}

bool table_part_number(const char *name, unsigned *ret)
{
	char again[32];
	unsigned long k = strtoul(name, NULL, 10);

	(void)snprintf(again, sizeof(again), "%lu.csv", k);
	*ret = (unsigned)k;
	return k < TABLE_PARTS_MAX && !strcmp(again, name);
}

static int parent_slot(uint64_t id, const char *name, unsigned *ret)
{
	_cleanup_table_ struct table *t = NULL;
	int no = table_now(id, &t);

	for (unsigned k = 0; !no && t && k < TABLE_PARENTS_MAX; k++) {
		const char *p = parent_at(t, k);
		_cleanup_free_ char *esc = p ? table_escape(p) : NULL;

		if (!p)
			break;
		if (esc && !strcmp(esc, name)) {
			*ret = T_PARENT0 + k;
			return 0;
		}
	}
	*ret = no ? 0 : table_ghost_named(id, name);
	return no ? no : *ret ? 0 : -ENOENT;
}

static int in_dir(const struct who *w, struct nid dir, const char *name,
		  struct attr *ret)
{
	_cleanup_table_place_ struct table_place p = { 0 };
	struct nid n = { K_TABLE, dir.number, 0 };
	const struct ent *e;
	int no;

	e = ent_by_name(table_files, TABLE_FILES, name);
	if (!e)
		return real_lookup(
		    (struct real_at){ REAL_TEMP, dir.number, name }, ret);
	if (e->slot == T_WRITE) {
		/* Read again when it was replaced in between. */
		for (int tries = 0; tries < 3; tries++) {
			table_place_free(&p);
			no = table_place(dir.number, &p);
			if (!no)
				no = data_lookup(w, &p, ret);
			if (no != -ESTALE)
				break;
		}
		return no;
	}
	if (e->slot == T_OPTIONS) {
		_cleanup_free_ char *path = options_path(dir.number);

		if (!path || access(path, F_OK))
			return -ENOENT;
	}
	if (e->slot == T_MATRIX)
		return table_column_lookup(w, dir.number, T_DIR, name, ret);
	n.slot = e->slot;
	return table_getattr(w, n, ret);
}

int table_in(const struct who *w, struct nid dir, const char *name,
	     struct attr *ret)
{
	struct nid n = { K_TABLE, dir.number, 0 };
	unsigned k = table_derived_slot(dir, name);
	int no;

	if (k && table_copier_blind(w->pid, dir.number, k, name))
		return -ENOENT;
	switch (dir.slot) {
	case T_DIR:
		return in_dir(w, dir, name, ret);
	case T_PARTS:
		if (name_temporary(name))
			return real_lookup((struct real_at){ REAL_TEMP_PART,
							     dir.number, name },
					   ret);
		if (!table_part_number(name, &k))
			return -ENOENT;
		n.slot = T_PART0 + k;
		break;
	case T_PARENTS:
		no = parent_slot(dir.number, name, &n.slot);
		if (!no && table_copier_blind(w->pid, n.number, n.slot, name))
			no = -ENOENT;
		if (no)
			return no;
		break;
	case T_COLUMNS:
		if (name_temporary(name))
			return real_lookup((struct real_at){ REAL_TEMP_COLUMN,
							     dir.number, name },
					   ret);
		return table_column_lookup(w, dir.number, T_COLUMNS, name, ret);
	case T_ROWS:
		return row_lookup(dir.number, name, ret);
	default:
		return -ENOTDIR;
	}
	return table_getattr(w, n, ret);
}

/* The kernel has heard of a node inside a table. */
void table_counted(int status, const struct attr *a)
{
	struct nid n = ino_nid(a->node ? a->node : a->st.st_ino);

	if (!status && n.kind == K_TABLE)
		table_count_lookup(n.number);
}

static int tables_lookup(const struct who *w, struct nid dir, const char *name,
			 struct attr *ret)
{
	int no;

	if (dir.kind == K_NAMESPACE)
		return in_namespace(w, dir, name, ret);
	no = table_in(w, dir, name, ret);
	table_counted(no, ret);
	return no;
}

static int list_table(void *arg, const char *name)
{
	struct listing *l = arg;
	_cleanup_free_ char *esc = table_escape(name);

	if (esc)
		listing_add(l, esc, INO_LOOKUP, S_IFDIR);
	return 0;
}

/* What is there is known without opening the table. */
static int list_dir(const struct who *w, const struct table_place *p,
		    struct listing *l)
{
	_cleanup_free_ char *options = options_path(p->id.id);
	int no = real_list((struct real_at){ REAL_TEMP, p->id.id, "" }, l);

	if (no)
		return no;
	for (size_t i = 0; i < TABLE_FILES; i++) {
		const struct ent *e = &table_files[i];
		fuse_ino_t ino = nid_ino(K_TABLE, p->id.id, e->slot);
		bool there = p->id.gen;

		if (e->slot == T_OPTIONS)
			there = options && !access(options, F_OK);
		if (e->slot == T_MATRIX && there)
			there = table_matrix_listed(&p->id, &ino);
		if (e->slot == T_WRITE && there)
			ino = table_data_ino(&p->id);
		else if (e->slot == T_WRITE)
			there = upload_active(p->id.id);
		if (there && !(e->flags & E_HIDDEN) &&
		    !table_copier_blind(w->pid, p->id.id, e->slot, e->name))
			listing_add(l, e->name, ino, e->mode);
	}
	return 0;
}

static void list_parts(const struct who *w, uint64_t id, struct table *t,
		       struct listing *l)
{
	for (unsigned k = 0; k < table_parts(t); k++) {
		char name[32];

		(void)snprintf(name, sizeof(name), "%u.csv", k);
		if (table_copier_blind(w->pid, id, T_PART0 + k, name))
			continue;
		listing_add(l, name, nid_ino(K_TABLE, id, T_PART0 + k),
			    S_IFREG);
	}
}

static void list_parents(uint64_t id, struct table *t, struct listing *l)
{
	for (unsigned k = 0; k < TABLE_PARENTS_MAX; k++) {
		const char *p = parent_at(t, k);
		_cleanup_free_ char *esc = p ? table_escape(p) : NULL;

		if (!esc)
			break;
		listing_add(l, esc, nid_ino(K_TABLE, id, T_PARENT0 + k),
			    S_IFLNK);
	}
}

static int tables_list(const struct who *w, struct nid dir, struct listing *l)
{
	_cleanup_table_place_ struct table_place p = { 0 };
	_cleanup_table_ struct table *t = NULL;
	int no;

	if (dir.kind == K_NAMESPACE) {
		_cleanup_free_ char *ns = NULL;

		no = table_recall(dir.number, &ns, NULL);
		if (!no)
			no = table_list(fs.tables, ns, list_table, l, NULL);
		return no == -ENOENT ? -ESTALE : no;
	}
	no = table_place(dir.number, &p);
	if (no || dir.slot == T_DIR)
		return no ? no : list_dir(w, &p, l);
	if (dir.slot == T_PARTS)
		no = real_list(
		    (struct real_at){ REAL_TEMP_PART, dir.number, "" }, l);
	if (dir.slot == T_COLUMNS)
		no = real_list(
		    (struct real_at){ REAL_TEMP_COLUMN, dir.number, "" }, l);
	if (!no)
		no = table_open_place(&p, &t);
	if (no || !t)
		return no;
	if (dir.slot == T_COLUMNS)
		table_columns_list(w, dir.number, t, l);
	else if (dir.slot == T_PARTS)
		list_parts(w, dir.number, t, l);
	else if (dir.slot == T_PARENTS)
		list_parents(dir.number, t, l);
	else if (dir.slot == T_ROWS)
		return rows_list(t, l);
	return 0;
}

/* A namespace of many tables: each costs a small file read; and what find goes
 * into, which costs nothing. */
static bool tables_plus(struct nid dir, mode_t mode)
{
	return dir.kind == K_NAMESPACE || S_ISDIR(mode);
}

static bool tables_steady(struct nid dir)
{
	_cleanup_table_place_ struct table_place p = { 0 };

	return dir.kind == K_TABLE && dir.slot != T_ROWS &&
	       !table_place(dir.number, &p) && steady(&p);
}

static int tables_readlink(struct nid n, struct strbuf *ret)
{
	_cleanup_table_ struct table *t = NULL;
	int no;

	if (n.slot < T_PARENT0)
		return -EINVAL;
	if (n.slot >= T_GHOST0)
		return table_ghost_text(n.number, n.slot, ret);
	no = table_now(n.number, &t);
	if (no)
		return no;
	return t ? parent_link(t, n.slot - T_PARENT0, ret) : -ENOENT;
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
	if (writes && (n.slot == T_MATRIX || n.slot == T_SINK))
		table_intent_of(w->pid, true);
	if (writes) /* derived: taken and forgotten */
		return sink_open(w, n, flags, ret);
	if (!t || n.slot == T_MATRIX || n.slot == T_SINK)
		return open_text(w, n, flags, NULL, ret);
	if (n.slot == T_WRITE)
		return table_data_open(w, n, flags, t, 0, ret);
	if (n.slot >= T_PART0 && n.slot < T_PARENT0 &&
	    n.slot - T_PART0 < table_parts(t))
		return table_data_open(w, n, flags, t, n.slot - T_PART0 + 1,
				       ret);
	if (n.slot >= T_PART0 && n.slot < T_PARENT0) /* written, not kept */
		return open_text(w, n, flags, NULL, ret);
	if (n.slot == T_SCHEMA)
		return open_text(w, n, flags, schema_text(t), ret);
	if (n.slot == T_COUNT)
		return open_text(w, n, flags, count_text(t), ret);
	return -EISDIR;
}

/* ---- attributes with names ---------------------------------------------- */

static int tables_xattrs(struct nid n, struct strbuf *ret)
{
	_cleanup_table_place_ struct table_place p = { 0 };
	_cleanup_strbuf_ struct strbuf upload = STRBUF_INIT(256);
	int no = n.kind == K_TABLE ? table_place(n.number, &p) : -ENOENT;

	if (no)
		return 0;
	upload_progress(n.number, &upload);
	if (upload.len) {
		sb_adds(ret, "user.rollfs.upload");
		sb_addc(ret, '\0');
		sb_adds(ret, upload.buf);
		sb_addc(ret, '\0');
	}
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

/* cp -a and rsync -X copy what is computed: it is taken and forgotten. */
static int tables_set_xattr(const struct who *w, struct nid n, const char *name,
			    const char *value)
{
	(void)w, (void)n, (void)name, (void)value;
	return 0;
}

/* A namespace, a table's directory and its data.csv have them. */
static bool user_attrs(struct nid n)
{
	return n.kind == K_NAMESPACE || n.slot == T_DIR || n.slot == T_WRITE;
}

static int tables_user_names(struct nid n, struct strbuf *ret)
{
	return user_attrs(n) ? table_user_names(n.number, ret) : 0;
}

static int tables_user_get(struct nid n, const char *name, struct strbuf *ret)
{
	return user_attrs(n) ? table_user_get(n.number, name, ret) : -ENODATA;
}

static int tables_user_set(struct nid n, const char *name, const void *value,
			   size_t len)
{
	return user_attrs(n) ? table_user_set(n.number, name, value, len)
			     : -EPERM;
}

static void tables_path(struct nid n, struct strbuf *ret)
{
	const struct ent *e =
	    n.slot ? ent_by_slot(table_files, TABLE_FILES, n.slot) : NULL;
	_cleanup_free_ char *ns = NULL, *name = NULL;
	_cleanup_free_ char *ns_esc = NULL, *esc = NULL;

	if (table_recall(n.number, &ns, n.kind == K_NAMESPACE ? NULL : &name))
		return;
	ns_esc = table_escape(ns);
	esc = name ? table_escape(name) : NULL;
	sb_addf(ret, "tables/%s%s%s%s%s", ns_esc ? ns_esc : "", esc ? "/" : "",
		esc ? esc : "", e ? "/" : "", e ? e->name : "");
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
	.setattr = tables_setattr,
	.xattrs = tables_xattrs,
	.set_xattr = tables_set_xattr,
	.user_names = tables_user_names,
	.user_get = tables_user_get,
	.user_set = tables_user_set,
	.plus = tables_plus,
	.steady = tables_steady,
	.forget = tables_forget,
	.path = tables_path,
};
