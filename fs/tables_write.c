// SPDX-License-Identifier: Apache-2.0
/* What is made, renamed and removed below /tables/<namespace>/. */
#include <fcntl.h>
#include <sys/stat.h>

#include "fs/tables_priv.h"

/* ---- making -------------------------------------------------------------- */

static bool own_file(const char *name)
{
	return ent_by_name(table_files, TABLE_FILES, name) != NULL;
}

/* The place of a temporary name in a directory of a table, if it is one. */
static bool temporary_at(struct nid dir, const char *name, struct real_at *ret)
{
	enum real_kind kind = dir.slot == T_PARTS     ? REAL_TEMP_PART
			      : dir.slot == T_COLUMNS ? REAL_TEMP_COLUMN
						      : REAL_TEMP;

	if (dir.kind != K_TABLE || (kind == REAL_TEMP && dir.slot != T_DIR))
		return false;
	*ret = (struct real_at){ kind, dir.number, name };
	return kind != REAL_TEMP   ? name_temporary(name)
	       : name_beside(name) ? true
				   : !own_file(name) && real_exists(*ret);
}

/* As mkstemp(3) makes files, whatever it calls them: perl -i and Python's
 * tempfile write such ones and rename them to data.csv. */
static bool by_mkstemp(mode_t mode, int flags)
{
	return (flags & O_EXCL) && (flags & O_ACCMODE) == O_RDWR &&
	       (mode & 0777) == 0600;
}

unsigned table_derived_slot(struct nid dir, const char *name)
{
	const struct ent *e;
	unsigned k;

	if (dir.slot == T_PARTS)
		return table_part_number(name, &k) ? T_PART0 + k : 0;
	if (dir.slot == T_COLUMNS)
		return !name_temporary(name) && strlen(name) > 4 &&
			       !strcmp(name + strlen(name) - 4, ".npy")
			   ? T_SINK
			   : 0;
	e = dir.slot == T_DIR ? ent_by_name(table_files, TABLE_FILES, name)
			      : NULL;
	return e && e->slot != T_WRITE && e->slot != T_OPTIONS ? e->slot : 0;
}

static bool is_directory(unsigned slot)
{
	return slot == T_PARTS || slot == T_PARENTS || slot == T_COLUMNS ||
	       slot == T_ROWS;
}

/* It can be made where cp -r makes a copy. */
static bool may_make(unsigned slot)
{
	return is_directory(slot) && slot != T_ROWS;
}

static void ghost_add(struct nid n, const char *name)
{
	if (n.slot == T_SINK)
		(void)table_ghost_column(n.number, name, GHOST_ADD);
	else
		table_ghost_add(n.number, n.slot);
}

static int refuse_name(const struct who *w, struct nid dir, const char *name)
{
	return errors_refused_as(
	    w->uid, nid_ino(dir.kind, dir.number, dir.slot), name, -EPERM,
	    dir.kind == K_NAMESPACE
		? "a table is a directory: mkdir tables/NAMESPACE/NAME, then "
		  "cp FILE tables/NAMESPACE/NAME/data.csv"
		: "a table's rows are its data.csv: cp FILE "
		  "tables/NAMESPACE/NAME/data.csv");
}

/* data.csv of a table that has none yet, or for a writer who has not looked. */
static int create_data(const struct who *w, uint64_t id, mode_t mode, int flags,
		       struct handle **ret_h)
{
	_cleanup_table_place_ struct table_place p = { 0 };
	int no = table_place(id, &p);

	if (!no && !p.id.gen)
		no = table_attr_created(id, mode);
	return no ? no : upload_open(w, id, flags, ret_h);
}

int tables_create(const struct who *w, struct nid dir, const char *name,
		  mode_t mode, int flags, struct attr *ret,
		  struct handle **ret_h)
{
	struct nid n = { K_TABLE, dir.number, 0 };
	struct real_at temp;
	int no;

	if (dir.kind != K_TABLE)
		return refuse_name(w, dir, name);
	if (temporary_at(dir, name, &temp))
		return real_create(w, temp, mode, flags, ret, ret_h);
	n.slot = table_derived_slot(dir, name);
	if (is_directory(n.slot))
		return -EISDIR;
	if (n.slot) {
		ghost_add(n, name);
		table_copier_goes_on(w->pid, n.number);
		no = sink_open(w, n, flags, ret_h);
	} else if (dir.slot == T_DIR && !strcmp(name, "data.csv")) {
		n.slot = T_WRITE;
		no = create_data(w, n.number, mode, flags, ret_h);
	} else if (dir.slot == T_DIR && !strcmp(name, "upload.json")) {
		n.slot = T_OPTIONS;
		no = options_open(w, n.number, flags, ret_h);
	} else if (dir.slot == T_DIR && by_mkstemp(mode, flags)) {
		temp = (struct real_at){ REAL_TEMP, dir.number, name };
		return real_create(w, temp, mode, flags, ret, ret_h);
	} else {
		return refuse_name(w, dir, name);
	}
	if (!no)
		no = table_getattr(w, n, ret);
	table_counted(no, ret);
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

static int make_table(const struct who *w, struct nid dir, const char *name,
		      mode_t mode, struct attr *ret)
{
	_cleanup_free_ char *ns = NULL, *plain = table_stored_name(name);
	struct table_id id = { 0 };
	int no = plain ? table_recall(dir.number, &ns, NULL)
		       : table_name_refused(
			     w, nid_ino(K_NAMESPACE, dir.number, 0), name);

	if (!no)
		no = table_create_empty(fs.tables, ns, plain, &id, NULL);
	if (!no)
		no = table_attr_made(w, id.id, mode);
	if (!no)
		no = table_remember(id.id, ns, plain);
	return no ? no
		  : table_getattr(w, (struct nid){ K_TABLE, id.id, T_DIR },
				  ret);
}

int tables_mkdir(const struct who *w, struct nid dir, const char *name,
		 mode_t mode, struct attr *ret)
{
	struct nid n = { K_TABLE, dir.number, table_derived_slot(dir, name) };
	struct real_at temp;
	int no;

	if (dir.kind == K_NAMESPACE)
		return make_table(w, dir, name, mode, ret);
	if (temporary_at(dir, name, &temp))
		return real_mkdir(w, temp, mode, ret);
	if (!may_make(n.slot))
		return n.slot ? -EEXIST : refuse_name(w, dir, name);
	if (!table_copier_blind(w->pid, n.number, n.slot, name) &&
	    !table_getattr(w, n, ret))
		return -EEXIST;
	/* cp -r makes them before there is a data.csv. */
	table_ghost_add(n.number, n.slot);
	table_copier_goes_on(w->pid, n.number);
	no = table_getattr(w, n, ret);
	table_counted(no, ret);
	return no;
}

/* cp -r copies parents/; the new table has its own. */
int tables_symlink(const struct who *w, struct nid dir, const char *name,
		   const char *to, struct attr *ret)
{
	struct nid n = { K_TABLE, dir.number, 0 };
	struct attr a;
	int no;

	if (dir.kind != K_TABLE || dir.slot != T_PARENTS)
		return -EPERM;
	if (!table_in(w, dir, name, &a))
		return -EEXIST;
	n.slot = table_ghost_link(dir.number, name, to);
	table_copier_goes_on(w->pid, n.number);
	no = n.slot ? table_getattr(w, n, ret) : -ENOSPC;
	table_counted(no, ret);
	return no;
}

/* ---- removing ------------------------------------------------------------ */

int tables_unlink(const struct who *w, struct nid dir, const char *name)
{
	_cleanup_table_place_ struct table_place p = { 0 };
	struct real_at temp;
	struct attr a;
	unsigned slot;
	int no;

	if (dir.kind != K_TABLE)
		return -EISDIR;
	if (temporary_at(dir, name, &temp))
		return real_unlink(w, temp);
	no = table_place(dir.number, &p);
	if (no)
		return no;
	if (dir.slot == T_DIR && !strcmp(name, "upload.json")) {
		_cleanup_free_ char *path = options_path(dir.number);

		return path && unlink(path) ? -errno : 0;
	}
	if (dir.slot == T_DIR && !strcmp(name, "data.csv")) {
		no = p.id.gen			 ? table_job_busy(w, p.ns)
		     : upload_active(dir.number) ? -EBUSY
						 : -ENOENT;
		if (!no)
			no =
			    table_truncate(fs.tables, p.ns, p.name, NULL, NULL);
		if (!no)
			watch_changed(dir.number);
		return no;
	}
	/* Derived files go with the data. */
	slot = dir.slot == T_PARENTS ? table_ghost_named(dir.number, name)
				     : table_derived_slot(dir, name);
	if (may_make(slot))
		return -EISDIR;
	no =
	    slot == T_SINK && table_ghost_column(dir.number, name, GHOST_REMOVE)
		? 0
	    : slot && table_ghost(dir.number, slot)
		? 0
		: table_in(w, dir, name, &a);
	if (slot != T_SINK)
		table_ghost_remove(dir.number, slot);
	if (!no && slot)
		table_copier_removed(w->pid, dir.number, slot, name);
	return no;
}

/* What was written beside a table and never became part of it. */
static void drop_beside(uint64_t id)
{
	_cleanup_free_ char *options = options_path(id);
	static const enum real_kind kinds[] = { REAL_TEMP, REAL_TEMP_PART,
						REAL_TEMP_COLUMN };

	if (options)
		(void)unlink(options);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		_cleanup_free_ char *dir =
		    real_disk_of((struct real_at){ kinds[i], id, "" }, true);

		if (dir && !access(dir, F_OK))
			(void)remove_tree(dir, NULL);
	}
}

void tables_start(const struct table_swept *x)
{
	static const char *const what[] = { "table-", "parts-", "columns-",
					    "upload-" };
	_cleanup_free_ char *tmp = NULL;
	_cleanup_closedir_ DIR *d = NULL;
	const struct dirent *de;

	if (x->told.len)
		errors_add(fs.uid, "tables", -EIO, x->told.buf);
	if (asprintf(&tmp, "%s/mount-tmp", fs.conf->state) < 0)
		return;
	d = opendir(tmp);
	while (d && (de = readdir(d))) {
		if (!strncmp(de->d_name, TABLE_SAVING, strlen(TABLE_SAVING)))
			(void)unlinkat(dirfd(d), de->d_name, 0);
		for (size_t i = 0; i < ARRAY_SIZE(what) && !x->unsure; i++) {
			size_t n = strlen(what[i]);
			uint64_t id;

			if (strncmp(de->d_name, what[i], n) != 0)
				continue;
			id = strtoull(de->d_name + n, NULL, 10);
			if (!table_swept_has(x, id))
				drop_beside(id);
		}
	}
}

static int drop_table(const struct who *w, struct nid dir, const char *name)
{
	_cleanup_free_ char *ns = NULL;
	_cleanup_free_ char *plain = table_stored_name(name);
	struct table_id id = { 0 };
	int no = plain ? table_recall(dir.number, &ns, NULL) : -ENOENT;

	if (!no)
		no = table_lookup(fs.tables, ns, plain, &id, NULL);
	if (!no)
		no = table_job_busy(w, ns);
	if (!no)
		no = table_drop(fs.tables, ns, plain, NULL);
	if (!no)
		drop_beside(id.id);
	return no;
}

int tables_rmdir(const struct who *w, struct nid dir, const char *name)
{
	struct real_at temp;
	unsigned slot;

	if (dir.kind != K_TABLE)
		return drop_table(w, dir, name);
	if (temporary_at(dir, name, &temp))
		return real_rmdir(w, temp);
	slot = table_derived_slot(dir, name);
	if (!may_make(slot))
		return slot ? -ENOTDIR : -ENOENT;
	table_ghost_remove(dir.number, slot);
	return 0;
}

/* ---- renaming ------------------------------------------------------------ */

static int rename_table(const struct who *w, struct nid dir, const char *name,
			struct nid to, const char *to_name, unsigned flags)
{
	_cleanup_free_ char *ns = NULL, *to_ns = NULL;
	_cleanup_free_ char *a = table_stored_name(name);
	_cleanup_free_ char *b = table_stored_name(to_name);
	struct table_id id, other = { 0 };
	struct err e = { 0 };
	int no = !a   ? -ENOENT
		 : !b ? table_name_refused(
			    w, nid_ino(K_NAMESPACE, to.number, 0), to_name)
		      : 0;

	if (!no)
		no = table_recall(dir.number, &ns, NULL);
	if (!no)
		no = table_recall(to.number, &to_ns, NULL);
	if (!no)
		no = table_job_busy(w, ns);
	if (!no)
		no = table_job_busy(w, to_ns);
	if (!no)
		no = table_lookup(fs.tables, ns, a, &id, NULL);
	if (!no && !table_lookup(fs.tables, to_ns, b, &other, NULL) && flags)
		no = -EEXIST;
	if (!no)
		no = table_rename(fs.tables, ns, a, to_ns, b, &e);
	if (no)
		return no;
	table_renamed(id.id, to_ns, b);
	if (other.id && other.id != id.id)
		drop_beside(other.id);
	return 0;
}

/* The rows of one table become another's: nothing is copied. */
static int move_data(const struct who *w, uint64_t from, uint64_t to)
{
	_cleanup_table_ struct table *t = NULL;
	_cleanup_table_place_ struct table_place p = { 0 }, q = { 0 };
	int no = table_place(from, &p);

	if (!no)
		no = table_place(to, &q);
	if (!no)
		no = table_job_busy(w, p.ns);
	if (!no)
		no = table_job_busy(w, q.ns);
	if (!no)
		no = table_open_place(&p, &t);
	if (!no && !t)
		no = -ENOENT;
	if (no || from == to)
		return no;
	no = table_link(t, q.ns, q.name, NULL);
	return no ? no : table_truncate(fs.tables, p.ns, p.name, t, NULL);
}

/* A file under a temporary name gets the name of one of the table's. */
static int place_file(const struct who *w, struct real_at from, struct nid to,
		      const char *to_name)
{
	_cleanup_free_ char *path = real_disk(from);
	unsigned slot = table_derived_slot(to, to_name);
	int no = 0;

	if (!path)
		return -ENOMEM;
	if (access(path, F_OK))
		return -errno;
	if (is_directory(slot))
		return -EISDIR;
	if (to.slot == T_DIR && !strcmp(to_name, "data.csv")) {
		no = upload_file(w, to.number, path);
		/* The rows are there; what tells of them is the lesser loss. */
		if (!no && real_user_move(path, to.number))
			log_warn("fs", "attributes of a table were not kept");
	} else if (to.slot == T_DIR && !strcmp(to_name, "upload.json")) {
		return options_file(w, to.number, path);
	} else if (slot) {
		ghost_add((struct nid){ K_TABLE, to.number, slot }, to_name);
	} else {
		return refuse_name(w, to, to_name);
	}
	return no ? no : real_unlink(w, from);
}

/* What is in a folder that somebody has made beside a table's files. */
static int beside(struct nid dir, const char *name, struct real_at *ret,
		  char **ret_path)
{
	_cleanup_free_ char *folder = NULL;
	int no = real_place(dir.number, ret, &folder, NULL);

	if (no)
		return no;
	if (ret->kind != REAL_TEMP && ret->kind != REAL_TEMP_PART &&
	    ret->kind != REAL_TEMP_COLUMN)
		return -EXDEV;
	ret->path = *ret_path = xasprintf("%s/%s", folder, name);
	return 0;
}

static int rename_data(const struct who *w, uint64_t id, struct nid to,
		       const char *to_name)
{
	struct real_at target;

	if (to.slot == T_DIR && !strcmp(to_name, "data.csv"))
		return move_data(w, id, to.number);
	return temporary_at(to, to_name, &target) ? table_save(w, id, target)
						  : -EPERM;
}

int tables_rename(const struct who *w, struct nid dir, const char *name,
		  struct nid to, const char *to_name, unsigned flags)
{
	_cleanup_free_ char *path = NULL;
	struct real_at from, target;
	struct attr a;
	int no = 0;

	if (dir.kind != to.kind && dir.kind != K_REAL)
		return -EXDEV; /* mv copies and removes */
	if (dir.kind == K_NAMESPACE)
		return rename_table(w, dir, name, to, to_name, flags);
	if (flags && !table_in(w, to, to_name, &a))
		return -EEXIST;
	if (dir.kind == K_REAL) /* rsync --delay-updates */
		no = beside(dir, name, &from, &path);
	else if (dir.slot == T_DIR && !strcmp(name, "data.csv"))
		return rename_data(w, dir.number, to, to_name);
	else if (!temporary_at(dir, name, &from)) /* rsync copies, as mv does */
		no = temporary_at(to, to_name, &target) ? -EXDEV : -EPERM;
	if (no)
		return no;
	if (temporary_at(to, to_name, &target))
		return real_rename(w, from, target);
	return place_file(w, from, to, to_name);
}
