// SPDX-License-Identifier: Apache-2.0
/* Modes, owners, times and attributes of tables and namespaces: what chmod,
 * chown, touch and setfattr leave (struct table_attrs of the store). */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "fs/tables_priv.h"

#define SECOND_NS 1000000000ll

/* Each change reads, changes and writes the attributes of one object. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* One more with each; only this process makes them. */
static atomic_uint_fast64_t changes = 1;

static struct timespec time_of(int64_t ns)
{
	return (struct timespec){ .tv_sec = ns / SECOND_NS,
				  .tv_nsec = ns % SECOND_NS };
}

int table_attr_apply(uint64_t id, enum attr_of what, uint64_t gen,
		     int64_t changed_ns, struct attr *ret)
{
	_cleanup_table_attrs_ struct table_attrs a = { 0 };
	uint64_t at = atomic_load(&changes);
	struct err e = { 0 };
	int mode, no;

	if (changed_ns) {
		ret->st.st_mtim = time_of(changed_ns);
		ret->st.st_ctim = ret->st.st_atim = ret->st.st_mtim;
	}
	if (table_attrs_none(id, at, false))
		return 0;
	no = table_attrs_load(fs.tables, id, &a, &e);
	if (no) {
		log_error("fs", "%s", e.text);
		return no;
	}
	if (table_attrs_unset(&a))
		(void)table_attrs_none(id, at, true);
	mode = what == ATTR_DIR ? a.mode : a.data_mode;
	if (mode >= 0 && !S_ISLNK(ret->st.st_mode))
		ret->st.st_mode = (ret->st.st_mode & S_IFMT) | (mode_t)mode;
	if (a.uid >= 0)
		ret->st.st_uid = (uid_t)a.uid;
	if (a.gid >= 0)
		ret->st.st_gid = (gid_t)a.gid;
	if (what != ATTR_DIR && a.mtime_ns && a.mtime_gen == gen)
		ret->st.st_mtim = ret->st.st_atim = time_of(a.mtime_ns);
	return 0;
}

/* What the group may is what the owner may, unless it was kept out: the mount
 * is for the group when others can come at all. */
static int for_group(mode_t mode)
{
	if (fs.allow_other) {
		mode &= ~(mode_t)0007;
		if (mode & 0070)
			mode = (mode & ~(mode_t)0070) | (mode & 0700) >> 3;
	}
	return (int)(mode & 07777);
}

static int usual(mode_t mode)
{
	return (int)(mode & ~(mode_t)(fs.allow_other ? 0007 : 0022));
}

static int change(uint64_t id,
		  int (*fn)(struct table_attrs *a, const void *arg),
		  const void *arg)
{
	_cleanup_table_attrs_ struct table_attrs a;
	struct err e = { 0 };
	int no;

	pthread_mutex_lock(&lock);
	no = table_attrs_load(fs.tables, id, &a, &e);
	if (!no)
		no = fn(&a, arg);
	if (!no)
		no = table_attrs_store(fs.tables, id, &a, &e);
	changes++;
	pthread_mutex_unlock(&lock);
	if (no && *e.text)
		log_error("fs", "%s", e.text);
	return no;
}

struct making {
	const struct who *w;
	int mode;
};

static int made_dir(struct table_attrs *a, const void *arg)
{
	const struct making *m = arg;

	a->uid = m->w->uid;
	a->mode = m->mode;
	return 0;
}

int table_attr_made(const struct who *w, uint64_t id, mode_t mode)
{
	struct making m = { w, for_group(mode) };

	/* As it would be without being written down. */
	if (w->uid == fs.uid && m.mode == usual(0775))
		return 0;
	return change(id, made_dir, &m);
}

static int made_data(struct table_attrs *a, const void *arg)
{
	a->data_mode = *(const int *)arg;
	return 0;
}

int table_attr_created(uint64_t id, mode_t mode)
{
	_cleanup_table_attrs_ struct table_attrs a;
	int m = for_group(mode & 0666), no;

	no = table_attrs_load(fs.tables, id, &a, NULL);
	if (no || m == (a.data_mode < 0 ? usual(0664) : a.data_mode))
		return no;
	return change(id, made_data, &m);
}

struct setting {
	enum attr_of what;
	const struct stat *st;
	int valid;
	uint64_t gen;
};

int64_t table_time_of(const struct stat *st, int valid)
{
	struct timespec t = st->st_mtim;

	if (valid & FUSE_SET_ATTR_MTIME_NOW)
		(void)clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * SECOND_NS + t.tv_nsec;
}

static int set(struct table_attrs *a, const void *arg)
{
	const struct setting *x = arg;
	int mode = (int)(x->st->st_mode & 07777);

	if (x->valid & FUSE_SET_ATTR_MODE)
		*(x->what == ATTR_DIR ? &a->mode : &a->data_mode) = mode;
	if (x->valid & FUSE_SET_ATTR_UID)
		a->uid = x->st->st_uid;
	if (x->valid & FUSE_SET_ATTR_GID)
		a->gid = x->st->st_gid;
	/* A directory's time is when the table was published. */
	if (x->what == ATTR_DATA && x->gen &&
	    x->valid & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) {
		a->mtime_ns = table_time_of(x->st, x->valid);
		a->mtime_gen = x->gen;
	}
	return 0;
}

int table_attr_set(uint64_t id, enum attr_of what, const struct stat *st,
		   int valid)
{
	_cleanup_table_place_ struct table_place p = { 0 };
	struct setting x = { what, st, valid, 0 };
	int no;

	valid &= FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID |
		 FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW;
	if (!valid)
		return 0;
	if (!table_place(id, &p))
		x.gen = p.id.gen;
	no = change(id, set, &x);
	/* The same file may be known under the node of its readers; and the
	 * directories inside have the modes of theirs. */
	if (!no && x.gen) {
		notify_attr_now(table_data_ino(&p.id));
		watch_touched(id);
	}
	return no;
}

int tables_setattr(const struct who *w, struct nid n, const struct stat *st,
		   int valid)
{
	(void)w;
	if (n.kind == K_NAMESPACE || n.slot == T_DIR)
		return table_attr_set(n.number, ATTR_DIR, st, valid);
	if (n.slot != T_WRITE)
		return 0; /* derived: as data.csv */
	/* touch opens it for writing too, and writes nothing. */
	if (valid & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
		upload_time(n.number, table_time_of(st, valid));
	return table_attr_set(n.number, ATTR_DATA, st, valid);
}

/* ---- attributes with names ---------------------------------------------- */

int table_user_names(uint64_t id, struct strbuf *ret)
{
	_cleanup_table_attrs_ struct table_attrs a;
	int no = table_attrs_load(fs.tables, id, &a, NULL);
	const char *name;
	const json_t *v;

	if (no)
		return no;
	json_object_foreach (a.xattrs, name, v)
		sb_add(ret, name, strlen(name) + 1);
	return ret->error;
}

int table_user_get(uint64_t id, const char *name, struct strbuf *ret)
{
	_cleanup_table_attrs_ struct table_attrs a;
	int no = table_attrs_load(fs.tables, id, &a, NULL);

	return no ? no : table_xattr_get(&a, name, ret);
}

struct user_set {
	const char *name;
	const void *value;
	size_t len;
};

static int set_user(struct table_attrs *a, const void *arg)
{
	const struct user_set *x = arg;

	return table_xattr_set(a, x->name, x->value, x->len);
}

int table_user_set(uint64_t id, const char *name, const void *value, size_t len)
{
	struct user_set x = { name, value, len };

	return change(id, set_user, &x);
}
