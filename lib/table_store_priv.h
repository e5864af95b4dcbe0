/* SPDX-License-Identifier: Apache-2.0 */
/* Private to the store's names and generations: table_lock.c, table_names.c,
 * table_store.c and table_sweep.c. */
#ifndef LIB_TABLE_STORE_PRIV_H
#define LIB_TABLE_STORE_PRIV_H

#include "lib/table_priv.h"

#define PATH_SIZE 1600

/* ---- table_lock.c -------------------------------------------------------- */

/* Serialises publishing over all processes: a descriptor, to be given to
 * store_unlock(). */
int store_lock(const struct table_store *s, struct err *e) MUST_CHECK;
void store_unlock(int *fd); /* one more change; -1: nothing */
#define _cleanup_store_unlock_ _cleanup_(store_unlock)
/* The one that numbers are given out with; to be closed. */
int store_lock_counter(const struct table_store *s, struct err *e) MUST_CHECK;
/* One more change, told before the lock is let go. */
void store_count_change(int lock);
/* Maps the number of changes; NULL: it is not known. */
const _Atomic uint64_t *store_map_changes(const struct table_store *s);

/* ---- table_names.c ------------------------------------------------------- */

/* What a name stands for. */
struct name {
	uint64_t id, seq, gen;
	int64_t changed_ns; /* read only */
};
/* -EINVAL; name may be NULL. */
int check_names(const char *ns, const char *name, struct err *e) MUST_CHECK;
/* check_names(), then store_lock(). */
int store_lock_named(const struct table_store *s, const char *ns,
		     const char *name, struct err *e) MUST_CHECK;
/* Of a name's file, or of a namespace's directory (name NULL), into
 * buf[PATH_SIZE]. */
void name_path(const struct table_store *s, char *buf, const char *ns,
	       const char *name);
/* -ENOENT without text. */
int name_read(const struct table_store *s, const char *ns, const char *name,
	      struct name *ret, struct err *e) MUST_CHECK;
/* With the lock; durable when it returns. */
int name_write(const struct table_store *s, const char *ns, const char *name,
	       const struct name *n, struct err *e) MUST_CHECK;
/* The same, but for the fsync of the directory. */
int name_write_unsynced(const struct table_store *s, const char *ns,
			const char *name, const struct name *n,
			struct err *e) MUST_CHECK;
/* On a full disk: the blocks of a file that is kept for that become the name's,
 * so that rows can be removed.  spare_make makes it when there is none. */
int name_write_spare(const struct table_store *s, const char *ns,
		     const char *name, const struct name *n,
		     struct err *e) MUST_CHECK;
void spare_make(const struct table_store *s);
/* With the lock: the namespace is there, made when it is not. */
int namespace_need(struct table_store *s, const char *ns,
		   struct err *e) MUST_CHECK;

/* ---- table_store.c ------------------------------------------------------- */

/* STORE/data/<seq>/<gen><tail> into buf[PATH_SIZE]. */
void gen_path(const struct table_store *s, char *buf, uint64_t seq,
	      uint64_t gen, const char *tail);
/* The name's file in refs/ of its generation, which may be there. */
int ref_add(const struct table_store *s, const struct name *n,
	    struct err *e) MUST_CHECK;
void ref_remove(const struct table_store *s, const struct name *n);
/* Closed when nobody reads it any more. */
void store_uncache(struct table_store *s, uint64_t gen);

/* ---- table_collect.c ----------------------------------------------------- */

/* The name is gone (dropped), or has other rows or none, which need not be
 * durable yet: the rest is done aside.  False: there is nobody who does. */
bool collect_aside(struct table_store *s, const char *ns, const char *name,
		   const struct name *n, bool dropped);
/* With the lock: the name has these rows again. */
void collect_cancel(const struct table_store *s, const struct name *n);
/* When all that waits is done. */
void collect_stop(struct table_store *s);

#endif
