/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of /tables share: tables_names.c (numbers, names, namespaces),
 * tables.c (the files of a table), tables_data.c (data.csv of a generation),
 * tables_write.c (what is made, renamed and removed).
 */
#ifndef FS_TABLES_PRIV_H
#define FS_TABLES_PRIV_H

#include "fs/fs.h"

#define DATA_MODE	  (S_IFREG | 0664)
#define TABLE_PARTS_MAX	  2048u
#define TABLE_PARENTS_MAX 1024u

/* ---- tables_names.c ---------------------------------------------------- */
/* The number means this namespace (name NULL) or table; what the kernel knows
 * was looked up, and so remembered. */
void table_remember(uint64_t id, const char *ns, const char *name);
/* -ESTALE when it is not known.  Caller frees; ret_name NULL: a namespace. */
int table_recall(uint64_t id, char **ret_ns, char **ret_name);
/* cp -r makes parts/ and parents/ before there is a data.csv: make it so, or
 * is it so? */
bool table_made(uint64_t id, unsigned slot, bool make);
/* The store's name of a name in the mount; NULL if it cannot be one. */
char *table_stored_name(const char *name);
void table_namespace_attr(uint64_t id, struct attr *ret);
struct table_listed {
	struct listing *l;
	const char *ns;
};

/* ---- tables.c ---------------------------------------------------------- */
#define TABLE_FILES 7
extern const struct ent table_files[TABLE_FILES];
int table_getattr(const struct who *w, struct nid n, struct attr *ret);
/* A lookup in a table's directory or below. */
int table_in(const struct who *w, struct nid dir, const char *name,
	     struct attr *ret);
/* The number of parts/<name>; false = it is not such a name. */
bool table_part_number(const char *name, unsigned *ret);

/* ---- tables_data.c ----------------------------------------------------- */
void table_data_attr(struct table *t, struct attr *ret);
/* part: 1 + number of the part, 0 = whole table. */
int table_data_open(const struct who *w, struct nid n, int flags,
		    struct table *t, unsigned part, struct handle **ret);
/* The process was told ESTALE: its next lookup is a writer's. */
void table_intent_add(pid_t pid);
bool table_intent_of(pid_t pid, bool drop);

/* ---- tables_write.c ---------------------------------------------------- */
int tables_create(const struct who *w, struct nid dir, const char *name,
		  mode_t mode, int flags, struct attr *ret,
		  struct handle **ret_h);
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
