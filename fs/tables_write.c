// SPDX-License-Identifier: Apache-2.0
/* What is made, renamed and removed below /tables/<namespace>/. */
#include <fcntl.h>
#include <sys/stat.h>

#include "fs/tables_priv.h"

int tables_create(const struct who *w, struct nid dir, const char *name,
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
	if (dir.slot == T_PARTS && table_part_number(name, &k)) {
		n.slot = T_PART0 + k;
		no = sink_open(w, n, flags, ret_h);
		if (!no)
			attr_fill(ret, nid_ino(K_TABLE, n.number, n.slot),
				  S_IFREG | 0664, 0, 0);
		ret->entry_s = 0;
		return no;
	}
	e = dir.slot == T_DIR ? ent_by_name(table_files, TABLE_FILES, name)
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

int tables_truncate(const struct who *w, struct nid n, off_t size)
{
	(void)w, (void)n;
	/* truncate(1) without a descriptor: the writer that follows says it */
	return size ? -EINVAL : 0;
}

int tables_mkdir(const struct who *w, struct nid dir, const char *name,
		 mode_t mode, struct attr *ret)
{
	(void)mode;
	if (dir.kind == K_NAMESPACE) {
		_cleanup_free_ char *ns = NULL,
				    *plain = table_stored_name(name);
		struct table_id id;
		int no = plain ? table_recall(dir.number, &ns, NULL) : -EINVAL;

		if (!no)
			no =
			    table_create_empty(fs.tables, ns, plain, &id, NULL);
		if (no)
			return no;
		table_remember(id.id, ns, plain);
		return table_getattr(w, (struct nid){ K_TABLE, id.id, T_DIR },
				     ret);
	}
	if (dir.slot == T_DIR &&
	    (!strcmp(name, "parts") || !strcmp(name, "parents"))) {
		unsigned slot = strcmp(name, "parts") ? T_PARENTS : T_PARTS;
		struct attr a;

		if (!table_in(w, dir, name, &a))
			return -EEXIST;
		table_made(dir.number, slot, true);
		return table_getattr(
		    w, (struct nid){ K_TABLE, dir.number, slot }, ret);
	}
	return -EPERM;
}

/* cp -r copies parents/; the new table has its own. */
int tables_symlink(const struct who *w, struct nid dir, const char *name,
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

int tables_unlink(const struct who *w, struct nid dir, const char *name)
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

int tables_rmdir(const struct who *w, struct nid dir, const char *name)
{
	_cleanup_free_ char *ns = NULL, *plain = NULL, *path = NULL;
	struct table_id id;
	int no;

	(void)w;
	if (dir.kind == K_TABLE)
		return strcmp(name, "parts") && strcmp(name, "parents") ? -EPERM
									: 0;
	plain = table_stored_name(name);
	no = plain ? table_recall(dir.number, &ns, NULL) : -ENOENT;
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
	_cleanup_free_ char *a = table_stored_name(name),
			    *b = table_stored_name(to_name);
	struct table_id id;
	struct err e = { 0 };
	int no = a && b ? 0 : -EINVAL;

	if (!no)
		no = table_recall(dir.number, &ns, NULL);
	if (!no)
		no = table_recall(to.number, &to_ns, NULL);
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
		table_remember(id.id, to_ns, b);
	return no;
}

int tables_rename(const struct who *w, struct nid dir, const char *name,
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
	if (flags && !table_in(w, to, to_name, &a))
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
