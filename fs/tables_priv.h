/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of /tables share: tables_names.c (numbers, names, namespaces),
 * tables.c (the files of a table), tables_data.c (data.csv of a generation),
 * tables_columns.c (data.npy and columns/ of one), tables_copy.c (who copies a
 * table in), tables_write.c (what is made, renamed and removed), tables_save.c
 * (what becomes of data.csv under another name).
 */
#ifndef FS_TABLES_PRIV_H
#define FS_TABLES_PRIV_H

#include <pthread.h>

#include "fs/fs.h"

#define DATA_MODE	  (S_IFREG | 0664)
#define TABLE_PARTS_MAX	  2048u
#define TABLE_PARENTS_MAX (T_GHOST0 - T_PARENT0)
#define TABLE_GHOST_LINKS 64u

/* ---- tables_names.c ---------------------------------------------------- */
/* The number means this namespace (name NULL) or table; counts a lookup. */
int table_remember(uint64_t id, const char *ns, const char *name);
void table_renamed(uint64_t id, const char *ns, const char *name);
/* One more, of a node inside the table. */
void table_count_lookup(uint64_t id);
void tables_forget(struct nid n, uint64_t count);
/* -ESTALE when it is not known.  Caller frees; ret_name NULL: a namespace. */
int table_recall(uint64_t id, char **ret_ns, char **ret_name);
/* Each namespace (name NULL) and table that the kernel knows. */
void tables_known_each(void (*each)(uint64_t id, const char *ns,
				    const char *name));
/* For tables_attr.c: nothing is kept for it, as of so many changes. */
bool table_attrs_none(uint64_t id, uint64_t changes, bool set);
/* The place's present generation; NULL and 0 = the table is empty. */
int table_open_place(const struct table_place *p, struct table **ret);
/* The store's name of a name in the mount; NULL if it cannot be one. */
char *table_stored_name(const char *name);
/* -EINVAL: a table or namespace cannot be called so; told in errors. */
int table_name_refused(const struct who *w, fuse_ino_t dir, const char *name);
/* -EBUSY for the tables of a job that runs, and told in errors. */
int table_job_busy(const struct who *w, const char *ns);
int namespace_attr(const char *ns, uint64_t id, struct attr *ret);

/*
 * cp -r, rsync and tar write the derived files of a table, before or after its
 * data.csv: what they wrote is taken and forgotten, but its name is found (and
 * empty) where the table has no such file of its own.
 */
void table_ghost_add(uint64_t id, unsigned slot);
bool table_ghost(uint64_t id, unsigned slot);
void table_ghost_remove(uint64_t id, unsigned slot);
/* A symlink in parents/: its slot, 0 = there are too many. */
unsigned table_ghost_link(uint64_t id, const char *name, const char *text);
unsigned table_ghost_named(uint64_t id, const char *name);
/* The same of columns/<name>. */
enum ghost_op { GHOST_ADD, GHOST_IS, GHOST_REMOVE };
bool table_ghost_column(uint64_t id, const char *name, enum ghost_op op);
int table_ghost_text(uint64_t id, unsigned slot, struct strbuf *ret);

/* ---- tables_attr.c ------------------------------------------------------ */
enum attr_of {
	ATTR_DIR,
	ATTR_DATA,    /* data.csv */
	ATTR_DERIVED, /* read as data.csv may be, times as it has */
};
/* What is kept for the table or namespace goes into ret, which has the usual
 * attributes.  changed_ns, if not 0, is when it changed last. */
int table_attr_apply(uint64_t id, enum attr_of what, uint64_t gen,
		     int64_t changed_ns, struct attr *ret);
/* mkdir(2) has made it; and create(2) the first data.csv in it. */
int table_attr_made(const struct who *w, uint64_t id, mode_t mode);
int table_attr_created(uint64_t id, mode_t mode);
/* Of directory or data.csv. */
int table_attr_set(uint64_t id, enum attr_of what, const struct stat *st,
		   int valid);
int tables_setattr(const struct who *w, struct nid n, const struct stat *st,
		   int valid);
int table_user_names(uint64_t id, struct strbuf *ret);
int table_user_get(uint64_t id, const char *name, struct strbuf *ret);
int table_user_set(uint64_t id, const char *name, const void *value,
		   size_t len);
/* The nanoseconds of a time that utimensat(2) sets. */
int64_t table_time_of(const struct stat *st, int valid);

/* ---- tables.c ---------------------------------------------------------- */
#define TABLE_FILES 9
extern const struct ent table_files[TABLE_FILES];
int table_getattr(const struct who *w, struct nid n, struct attr *ret);
/* A lookup in a table's directory or below. */
int table_in(const struct who *w, struct nid dir, const char *name,
	     struct attr *ret);
/* Counts a lookup if it was one of a node inside a table. */
void table_counted(int status, const struct attr *a);
/* The number of parts/<name>; false = it is not such a name. */
bool table_part_number(const char *name, unsigned *ret);

/* ---- tables_save.c ----------------------------------------------------- */
/* Renames data.csv to a temporary name, which leaves the table empty; may take
 * as long as reading it, and ends when the caller is killed. */
int table_save(const struct who *w, uint64_t id, struct real_at to);
/* In STATE/mount-tmp, what such files begin with while they are written. */
#define TABLE_SAVING "saving-"

/* ---- tables_data.c ----------------------------------------------------- */
/* The table's present data.csv; counts a lookup. */
int table_data_lookup(const struct table_place *p, struct table *t,
		      struct attr *ret);
/* The number of its node, also of one that was never looked up. */
fuse_ino_t table_data_ino(const struct table_id *id);
/* part: 1 + number of the part, 0 = whole table. */
int table_data_open(const struct who *w, struct nid n, int flags,
		    struct table *t, unsigned part, struct handle **ret);
/*
 * Threads that were told ESTALE once, so that the kernel looks the name up
 * again; remembered for a second.  By thread only: the generation may be
 * replaced between the two lookups.
 */
struct intents {
	pthread_mutex_t lock;
	unsigned next;
	struct intent {
		pid_t pid;
		int64_t until_ms;
	} of[64];
};
#define INTENTS_INIT                              \
	{                                         \
		.lock = PTHREAD_MUTEX_INITIALIZER \
	}
void intent_add(struct intents *x, pid_t pid);
/* drop: it has arrived. */
bool intent_of(struct intents *x, pid_t pid, bool drop);
/* Of those who write data.csv or data.npy. */
void table_intent_add(pid_t pid);
bool table_intent_of(pid_t pid, bool drop);

/* ---- tables_columns.c -------------------------------------------------- */
/* data.npy (dir_slot T_DIR) or columns/<name>. */
int table_column_lookup(const struct who *w, uint64_t id, unsigned dir_slot,
			const char *name, struct attr *ret);
/* Does data.npy belong into the listing?  What is its number? */
bool table_matrix_listed(const struct table_id *id, fuse_ino_t *ret);
void table_columns_list(const struct who *w, uint64_t id, struct table *t,
			struct listing *l);

/* ---- tables_copy.c ------------------------------------------------------ */
/* It has made data.csv as programs do that copy. */
void table_copier_add(pid_t pid, uint64_t table);
/* It has written a derived file; nothing if it is none that copies. */
void table_copier_goes_on(pid_t pid, uint64_t table);
/* It has removed the derived file (name: of columns/ and T_SINK only). */
void table_copier_removed(pid_t pid, uint64_t table, unsigned slot,
			  const char *name);
/* Somebody copies it, and what is there depends on who asks. */
bool table_copier_any(uint64_t table);
/* Is the derived file, or directory, to be missing for this process? */
bool table_copier_blind(pid_t pid, uint64_t table, unsigned slot,
			const char *name);

/* ---- tables_write.c ---------------------------------------------------- */
int tables_create(const struct who *w, struct nid dir, const char *name,
		  mode_t mode, int flags, struct attr *ret,
		  struct handle **ret_h);
/* The slot of a file that a table derives from its rows; 0 = it is none. */
unsigned table_derived_slot(struct nid dir, const char *name);
int tables_truncate(const struct who *w, struct nid n, off_t size);
int tables_mkdir(const struct who *w, struct nid dir, const char *name,
		 mode_t mode, struct attr *ret);
int tables_symlink(const struct who *w, struct nid dir, const char *name,
		   const char *to, struct attr *ret);
int tables_unlink(const struct who *w, struct nid dir, const char *name);
int tables_rmdir(const struct who *w, struct nid dir, const char *name);
int tables_rename(const struct who *w, struct nid dir, const char *name,
		  struct nid to, const char *to_name, unsigned flags);

#endif
