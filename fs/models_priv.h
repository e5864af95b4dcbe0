/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /models: what models.c (names), models_write.c (open files, changes),
 * models_import.c (versions that come from outside, file by file),
 * models_compare.c (onto whole ones) and models_info.c (info.json) share.
 *
 * A version is whole (its info.json stands in the store), or coming (its
 * directory stands in the store's .import/).  A whole one never changes but
 * by deploying, so what tar, cp and rsync write to one is compared with what
 * is there; their temporary files stand in .import/ too.
 */
#ifndef FS_MODELS_PRIV_H
#define FS_MODELS_PRIV_H

#include "scheduler/model.h"

#include "fs/fs.h"

#define MODEL_INFO_MAX ((size_t)16 << 20)

/* ---- models.c ----------------------------------------------------------- */

/* A path "models/<id>[/<version>[/<rest>]]", taken apart. */
struct model_at {
	char *path; /* everything below is part of it or NULL */
	char *id, *version, *rest;
	char *name; /* last of rest */
	bool whole; /* what the version is: neither = it is not there */
	bool coming;
	char *disk; /* where the named thing stands, if anywhere */
};
void model_at_free(struct model_at *a);
#define _cleanup_model_at_ _cleanup_(model_at_free)
/* -ENOENT when it is no such path, -ENOMEM. */
int model_at(const char *path, struct model_at *ret);
/* "models/<id>/<version>/<rest>" */
void model_refused(uid_t uid, const struct model_at *a, int status,
		   const char *text);

/* What a name is for a moment, when a tool has removed or made what is not
 * its to remove or make: tar removes what it is going to extract. */
enum ghost { GHOST_NONE, GHOST_GONE, GHOST_FILE, GHOST_LINK };
void ghost_set(const char *path, enum ghost what, const char *to);
/* Also of everything below. */
void ghost_clear(const char *path);
/* *ret_to: where a link leads; caller frees; ret_to may be NULL. */
enum ghost ghost_of(const char *path, char **ret_to);
char *model_child(fuse_ino_t dir, const char *name); /* NULL: stale */
int model_attr(const struct model_at *a, fuse_ino_t ino, struct attr *ret);
/* Looks the path up for the kernel; dir gives the slot. */
int model_find(const char *path, struct nid dir, struct attr *ret);
bool model_trained(const struct model_at *a); /* not deployed */

/* ---- models_write.c ----------------------------------------------------- */

int models_open(const struct who *w, struct nid n, int flags,
		struct handle **ret);
int models_create(const struct who *w, struct nid dir, const char *name,
		  mode_t mode, int flags, struct attr *ret,
		  struct handle **ret_h);
int models_mkdir(const struct who *w, struct nid dir, const char *name,
		 mode_t mode, struct attr *ret);
int models_symlink(const struct who *w, struct nid dir, const char *name,
		   const char *to, struct attr *ret);
int models_unlink(const struct who *w, struct nid dir, const char *name);
int models_rmdir(const struct who *w, struct nid dir, const char *name);
int models_rename(const struct who *w, struct nid dir, const char *name,
		  struct nid to, const char *to_name, unsigned flags);
int models_truncate(const struct who *w, struct nid n, off_t size);
int models_setattr(const struct who *w, struct nid n, const struct stat *st,
		   int valid);

/* ---- models_import.c ---------------------------------------------------- */

/* May the name be there while the version comes?  -EPERM, -EACCES with the
 * reason. */
int import_name(const struct model_at *a, bool dir, struct err *e) MUST_CHECK;
/* Opens for writing what is there or is made now; of a whole version only
 * temporary names. */
int import_open(const struct who *w, struct nid n, const struct model_at *a,
		int flags, struct handle **ret);
/* A file is made where none was (-EDQUOT). */
int import_create(const struct model_at *a, mode_t mode, struct err *e);
int import_mkdir(const struct model_at *a);
int import_unlink(const struct model_at *a);
int import_rmdir(const struct model_at *a);
/* The file has got this name by a rename: as closed. */
int import_renamed(uid_t uid, const struct model_at *a);
/* The text of `missing`; caller frees. */
char *import_missing(const struct model_at *a);
/* ---- models_compare.c --------------------------------------------------- */

#define MODEL_OTHER_BYTES                                               \
	"other bytes than those of the version that is here; rm -r it " \
	"first to import another"
/* The handle compares what is written with what is there. */
int compare_open(const struct who *w, struct nid n, const struct model_at *a,
		 int flags, struct handle **ret);
/* 0 = the files are the same; -EEXIST and the reason. */
int compare_files(const char *temporary, const struct model_at *a);

/* ---- models_info.c: pure ------------------------------------------------ */

struct model_file {
	char *path;
	uint64_t size;
	char sha256[65];
	bool good; /* has come and is what info.json says */
};
struct model_files {
	size_t n;
	struct model_file *of; /* in order of their paths */
	bool deployed;
};
/*
 * info.json of a version that comes from outside.  -EINVAL no such document,
 * -EBADMSG it speaks of another model or version than its directory, -EACCES
 * it is another party's.
 */
int model_files_parse(const char *text, size_t n, const char *party,
		      const char *id, const char *version,
		      struct model_files **ret, struct err *e) MUST_CHECK;
void model_files_free(struct model_files *f);
struct model_file *model_files_find(const struct model_files *f,
				    const char *path);
/* Does the id name the party? */
bool model_id_has(const char *id, const char *party);
/* One JSON object and white space around it; no memory but the stack. */
bool json_object_shaped(const char *s, size_t n);

#endif
