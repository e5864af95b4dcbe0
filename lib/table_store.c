// SPDX-License-Identifier: Apache-2.0
/* Names and generations: what exists, who refers to it, what may go. */
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "lib/log.h"

#include "lib/table_priv.h"

#define PATH_SIZE 1600

bool table_name_valid(const char *s)
{
	size_t n = strlen(s);

	if (!n || n > TABLE_NAME_MAX || !utf8_valid(s, n) || !strcmp(s, ".") ||
	    !strcmp(s, ".."))
		return false;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < ' ' || s[i] == 0x7f)
			return false;
	return true;
}

char *table_escape(const char *s)
{
	struct strbuf sb = STRBUF_INIT(4096);

	for (size_t i = 0; s[i]; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c == '/' || c == '%' || c < ' ' || c == 0x7f ||
		    (!i && c == '.'))
			sb_addf(&sb, "%%%02X", c);
		else
			sb_addc(&sb, (char)c);
	}
	return sb_detach(&sb);
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

char *table_unescape(const char *s)
{
	struct strbuf sb = STRBUF_INIT(4096);

	for (; *s; s++) {
		if (*s == '%' && hex(s[1]) >= 0 && hex(s[2]) >= 0) {
			sb_addc(&sb, (char)(hex(s[1]) * 16 + hex(s[2])));
			s += 2;
		} else {
			sb_addc(&sb, *s);
		}
	}
	return sb_detach(&sb);
}

static void name_path(const struct table_store *s, char *buf, const char *ns,
		      const char *name)
{
	_cleanup_free_ char *a = table_escape(ns);
	_cleanup_free_ char *b = name ? table_escape(name) : NULL;

	(void)snprintf(buf, PATH_SIZE, "%s/names/%s%s%s", s->dir, a,
		       b ? "/" : "", b ? b : "");
}

static int check_names(const char *ns, const char *name, struct err *e)
{
	if (!table_name_valid(ns))
		return err_set(e, EINVAL, "not a namespace: \"%.100s\"", ns);
	if (name && !table_name_valid(name))
		return err_set(e, EINVAL, "not a table name: \"%.100s\"", name);
	return 0;
}

/*
 * The lock's file counts the changes of names and references, in its first
 * eight bytes, which every process maps: who finds the same number as before
 * knows that nothing has changed.  Whoever held the lock counts one more before
 * he lets it go.  One that dies in between has told nobody of the change yet;
 * table_store_recheck() is for who hears of it in another way.
 */
static void count_change(int fd)
{
	uint64_t n = 0;

	if (pread(fd, &n, sizeof(n), 0) < 0 ||
	    (++n, pwrite(fd, &n, sizeof(n), 0) < 0))
		log_error("tables", "the lock of the tables: %s",
			  strerror(errno));
}

static void store_unlock(int *fd)
{
	if (*fd < 0)
		return;
	count_change(*fd);
	close(*fd);
}
#define _cleanup_store_unlock_ _cleanup_(store_unlock)

static int lock_file(const struct table_store *s, const char *name,
		     struct err *e)
{
	char path[PATH_SIZE];
	_cleanup_close_ int fd = -1;
	int r;

	(void)snprintf(path, sizeof(path), "%s/%s", s->dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, errno, "%s", path);
	r = lock_wait(fd);
	if (r)
		return err_sys(e, -r, "%s", path);
	return TAKE_FD(fd);
}

/* Serialises publishing over all processes, until store_unlock(). */
static int store_lock(const struct table_store *s, struct err *e)
{
	return lock_file(s, "lock", e);
}

/* NULL: the number of changes is not known. */
static const _Atomic uint64_t *map_changes(const struct table_store *s)
{
	_cleanup_store_unlock_ int lock = store_lock(s, NULL);
	_cleanup_close_ int fd = -1; /* a mapping of lock would keep the lock */
	char path[PATH_SIZE];
	void *p;

	if (lock < 0)
		return NULL;
	count_change(lock); /* the page is there, also once the disk is full */
	(void)snprintf(path, sizeof(path), "%s/lock", s->dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	p = mmap(NULL, sizeof(uint64_t), PROT_READ, MAP_SHARED, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

uint64_t table_store_changes(const struct table_store *s)
{
	return s->changes ? atomic_load(s->changes) + s->rechecks : 0;
}

void table_store_recheck(struct table_store *s)
{
	s->rechecks += 1ull << 32;
}

int table_store_open(const char *dir, struct table_store **ret, struct err *e)
{
	static const char *const subs[] = { "names", "data", "building",
					    "attrs" };
	struct table_store *s;
	char path[PATH_SIZE];
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(subs); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, subs[i]);
		r = mkdir_p(path, 0700, e);
		if (r)
			return r;
	}
	s = calloc(1, sizeof(*s));
	if (!s || !(s->dir = strdup(dir))) {
		free(s);
		return err_sys(e, ENOMEM, "%s", dir);
	}
	pthread_mutex_init(&s->lock, NULL);
	s->changes = map_changes(s);
	*ret = s;
	return 0;
}

int table_store_numbers(struct table_store *s, uint64_t n, uint64_t *ret_first,
			struct err *e)
{
	char path[PATH_SIZE], text[32];
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(64);
	_cleanup_close_ int lock = lock_file(s, "counter.lock", e);
	uint64_t first = 1;
	int r;

	if (lock < 0)
		return lock;
	(void)snprintf(path, sizeof(path), "%s/counter", s->dir);
	r = file_read(path, &sb, e);
	if (r && r != -ENOENT)
		return r;
	if (!r)
		first = strtoull(sb.buf, NULL, 10);
	(void)snprintf(text, sizeof(text), "%" PRIu64 "\n", first + n);
	/* Not fsynced: after a power cut a number can come again only for an
	 * object whose own publishing (which syncs) did not happen either. */
	r = file_replace(path, text, strlen(text), 0600, false, e);
	if (r)
		return r;
	*ret_first = first;
	return 0;
}

struct name {
	uint64_t id, seq, gen;
	int64_t changed_ns; /* read only */
};

static int name_read(const struct table_store *s, const char *ns,
		     const char *name, struct name *ret, struct err *e)
{
	char path[PATH_SIZE], text[128];
	unsigned long long id = 0, seq = 0, gen = 0;
	_cleanup_close_ int fd = -1;
	struct stat st;
	ssize_t n;

	name_path(s, path, ns, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return -ENOENT;
	if (fd < 0 || fstat(fd, &st))
		return err_sys(e, errno, "%s", path);
	if (S_ISDIR(st.st_mode))
		return -ENOENT;
	n = read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return err_sys(e, errno, "%s", path);
	text[n] = '\0';
	if (sscanf(text, "{\"data\":\"%llu/%llu\",\"id\":%llu}", &seq, &gen,
		   &id) != 3)
		return err_set(e, EIO, "%s: damaged", path);
	*ret = (struct name){ .id = id,
			      .seq = seq,
			      .gen = gen,
			      .changed_ns =
				  st.st_mtim.tv_sec * (int64_t)1000000000 +
				  st.st_mtim.tv_nsec };
	return 0;
}

static int name_write(const struct table_store *s, const char *ns,
		      const char *name, const struct name *n, struct err *e)
{
	char path[PATH_SIZE], text[128];

	name_path(s, path, ns, name);
	(void)snprintf(text, sizeof(text),
		       "{\"data\":\"%llu/%llu\",\"id\":%llu}\n",
		       (unsigned long long)n->seq, (unsigned long long)n->gen,
		       (unsigned long long)n->id);
	return file_replace(path, text, strlen(text), 0600, true, e);
}

static void gen_path(const struct table_store *s, char *buf, uint64_t seq,
		     uint64_t gen, const char *tail)
{
	(void)snprintf(buf, PATH_SIZE, "%s/data/%llu/%llu%s", s->dir,
		       (unsigned long long)seq, (unsigned long long)gen, tail);
}

static int ref_add(const struct table_store *s, const struct name *n,
		   struct err *e)
{
	char path[PATH_SIZE], tail[64];
	int fd;

	(void)snprintf(tail, sizeof(tail), "/refs/%llu",
		       (unsigned long long)n->id);
	gen_path(s, path, n->seq, n->gen, tail);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, errno, "%s", path);
	close(fd);
	return 0;
}

static void ref_remove(const struct table_store *s, const struct name *n)
{
	char path[PATH_SIZE], tail[64];

	if (!n->gen)
		return;
	(void)snprintf(tail, sizeof(tail), "/refs/%llu",
		       (unsigned long long)n->id);
	gen_path(s, path, n->seq, n->gen, tail);
	(void)unlink(path);
}

void table_collect(struct table_store *s, uint64_t seq, uint64_t gen)
{
	char path[PATH_SIZE], away[PATH_SIZE];
	_cleanup_close_ int fd = -1;

	if (!gen)
		return;
	gen_path(s, path, seq, gen, "");
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB))
		return;
	gen_path(s, path, seq, gen, "/refs");
	if (rmdir(path)) /* fails while a name refers to it */
		return;
	gen_path(s, path, seq, gen, "");
	(void)snprintf(away, sizeof(away), "%s/building/%llu.gone", s->dir,
		       (unsigned long long)gen);
	if (!rename(path, away))
		(void)remove_tree(away, NULL);
	(void)snprintf(path, sizeof(path), "%s/data/%llu", s->dir,
		       (unsigned long long)seq);
	(void)rmdir(path);
}

/* A cached handle must not keep a generation alive that nobody names. */
static void uncache(struct table_store *s, uint64_t gen);

static void let_go(struct table_store *s, int lock, const struct name *old)
{
	ref_remove(s, old);
	count_change(lock); /* for who reads it now: the last one removes it */
	uncache(s, old->gen);
	table_collect(s, old->seq, old->gen);
}

int namespace_id(struct table_store *s, const char *ns, uint64_t *ret_id)
{
	char path[PATH_SIZE];
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(64);
	int r;

	name_path(s, path, ns, NULL);
	(void)snprintf(path + strlen(path), sizeof(path) - strlen(path),
		       "/.id");
	r = file_read(path, &sb, NULL);
	if (r)
		return r == -ENOTDIR ? -ENOENT : r;
	*ret_id = strtoull(sb.buf, NULL, 10);
	return 0;
}

/* Built aside, like a generation: there is none without a number. */
static int namespace_make(struct table_store *s, const char *ns,
			  uint64_t *ret_id, struct err *e)
{
	char path[PATH_SIZE], to[PATH_SIZE], file[PATH_SIZE + 8], text[32];
	int r = table_store_numbers(s, 1, ret_id, e);

	if (r)
		return r;
	(void)snprintf(path, sizeof(path), "%s/building/%llu", s->dir,
		       (unsigned long long)*ret_id);
	(void)snprintf(file, sizeof(file), "%s/.id", path);
	(void)snprintf(text, sizeof(text), "%llu\n",
		       (unsigned long long)*ret_id);
	name_path(s, to, ns, NULL);
	if (mkdir(path, 0700))
		return err_sys(e, errno, "%s", path);
	r = file_replace(file, text, strlen(text), 0600, true, e);
	if (!r && rename(path, to))
		r = err_sys(e, errno, "%s", to);
	if (r) {
		(void)remove_tree(path, NULL);
		return r;
	}
	(void)snprintf(path, sizeof(path), "%s/names", s->dir);
	return dir_sync(path, e);
}

/* One without tables, as a whole. */
static int namespace_away(struct table_store *s, const char *ns, uint64_t id,
			  struct err *e)
{
	char path[PATH_SIZE], away[PATH_SIZE];

	name_path(s, path, ns, NULL);
	(void)snprintf(away, sizeof(away), "%s/building/%llu.gone", s->dir,
		       (unsigned long long)id);
	if (rename(path, away))
		return err_sys(e, errno, "%s", path);
	table_attrs_remove(s, id);
	(void)remove_tree(away, NULL);
	return 0;
}

int namespace_create(struct table_store *s, const char *ns, uint64_t *ret_id,
		     struct err *e)
{
	_cleanup_store_unlock_ int lock = -1;
	uint64_t id;
	int r = check_names(ns, NULL, e);

	if (r)
		return r;
	lock = store_lock(s, e);
	if (lock < 0)
		return lock;
	if (!namespace_id(s, ns, &id))
		return err_set(e, EEXIST, "namespace %s exists", ns);
	return namespace_make(s, ns, ret_id, e);
}

static int count_one(void *arg, const char *name)
{
	(void)name;
	++*(size_t *)arg;
	return 0;
}

int namespace_remove(struct table_store *s, const char *ns, struct err *e)
{
	_cleanup_store_unlock_ int lock = -1;
	uint64_t id;
	size_t n = 0;
	int r = check_names(ns, NULL, e);

	if (r)
		return r;
	lock = store_lock(s, e);
	if (lock < 0)
		return lock;
	r = table_list(s, ns, count_one, &n, e);
	if (r)
		return r;
	if (n)
		return err_set(e, ENOTEMPTY, "namespace %s has tables", ns);
	r = namespace_id(s, ns, &id);
	return r ? err_set(e, -r, "no namespace %s", ns)
		 : namespace_away(s, ns, id, e);
}

int namespace_changed(struct table_store *s, const char *ns, int64_t *ret_ns)
{
	char path[PATH_SIZE];
	struct stat st;

	name_path(s, path, ns, NULL);
	if (stat(path, &st))
		return -errno;
	*ret_ns = st.st_mtim.tv_sec * (int64_t)1000000000 + st.st_mtim.tv_nsec;
	return 0;
}

int namespace_move(struct table_store *s, const char *ns, const char *to,
		   struct err *e)
{
	_cleanup_store_unlock_ int lock = -1;
	char from_path[PATH_SIZE], to_path[PATH_SIZE];
	uint64_t id, other = 0;
	size_t n = 0;
	int r = check_names(ns, NULL, e);

	if (!r)
		r = check_names(to, NULL, e);
	if (r)
		return r;
	lock = store_lock(s, e);
	if (lock < 0)
		return lock;
	if (namespace_id(s, ns, &id))
		return err_set(e, ENOENT, "no namespace %s", ns);
	if (!strcmp(ns, to))
		return 0;
	name_path(s, from_path, ns, NULL);
	name_path(s, to_path, to, NULL);
	if (!namespace_id(s, to, &other)) {
		r = table_list(s, to, count_one, &n, e);
		if (!r && n)
			r = err_set(e, ENOTEMPTY, "namespace %s has tables",
				    to);
		if (!r)
			r = namespace_away(s, to, other, e);
		if (r)
			return r;
	}
	if (rename(from_path, to_path))
		return err_sys(e, errno, "%s", from_path);
	(void)snprintf(to_path, sizeof(to_path), "%s/names", s->dir);
	return dir_sync(to_path, e);
}

int table_lookup(struct table_store *s, const char *ns, const char *name,
		 struct table_id *ret, struct err *e)
{
	struct name n;
	int r;

	if (check_names(ns, name, NULL))
		return -ENOENT;
	r = name_read(s, ns, name, &n, e);
	if (r)
		return r;
	*ret = (struct table_id){ .id = n.id,
				  .gen = n.gen,
				  .made_by = n.seq,
				  .changed_ns = n.changed_ns };
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int table_list(struct table_store *s, const char *ns,
	       int (*fn)(void *arg, const char *name), void *arg, struct err *e)
{
	_cleanup_closedir_ DIR *d = NULL;
	char path[PATH_SIZE];
	char **names = NULL;
	size_t n = 0, alloc = 0;
	struct dirent *de;
	int r = 0;

	if (ns)
		name_path(s, path, ns, NULL);
	else
		(void)snprintf(path, sizeof(path), "%s/names", s->dir);
	d = opendir(path);
	if (!d)
		return errno == ENOENT ? -ENOENT
				       : err_sys(e, errno, "%s", path);
	while ((de = readdir(d))) {
		if (de->d_name[0] == '.')
			continue;
		if (n == alloc) {
			alloc = alloc ? 2 * alloc : 64;
			names = xrealloc(names, alloc * sizeof(*names));
		}
		names[n++] = table_unescape(de->d_name);
	}
	if (n)
		qsort(names, n, sizeof(*names), by_text);
	for (size_t i = 0; i < n; i++) {
		if (!r)
			r = fn(arg, names[i]);
		free(names[i]);
	}
	free(names);
	return r;
}

int table_create_empty(struct table_store *s, const char *ns, const char *name,
		       struct table_id *ret, struct err *e)
{
	_cleanup_store_unlock_ int lock = -1;
	struct name n = { 0 };
	uint64_t ns_id;
	int r = check_names(ns, name, e);

	if (r)
		return r;
	lock = store_lock(s, e);
	if (lock < 0)
		return lock;
	if (!name_read(s, ns, name, &n, NULL))
		return err_set(e, EEXIST, "table %s/%s exists", ns, name);
	if (namespace_id(s, ns, &ns_id)) {
		r = namespace_make(s, ns, &ns_id, e);
		if (r)
			return r;
	}
	n = (struct name){ 0 };
	r = table_store_numbers(s, 1, &n.id, e);
	if (!r)
		r = name_write(s, ns, name, &n, e);
	if (!r)
		r = name_read(s, ns, name, &n, e);
	if (!r)
		*ret =
		    (struct table_id){ .id = n.id, .changed_ns = n.changed_ns };
	return r;
}

int table_drop(struct table_store *s, const char *ns, const char *name,
	       struct err *e)
{
	_cleanup_store_unlock_ int lock = -1;
	char path[PATH_SIZE];
	struct name n;
	int r = check_names(ns, name, e);

	if (r)
		return r;
	lock = store_lock(s, e);
	if (lock < 0)
		return lock;
	r = name_read(s, ns, name, &n, e);
	if (r)
		return r;
	name_path(s, path, ns, name);
	if (unlink(path))
		return err_sys(e, errno, "%s", path);
	table_attrs_remove(s, n.id);
	let_go(s, lock, &n);
	return 0;
}

int table_truncate(struct table_store *s, const char *ns, const char *name,
		   struct err *e)
{
	_cleanup_store_unlock_ int lock = -1;
	struct name n, empty;
	int r = check_names(ns, name, e);

	if (r)
		return r;
	lock = store_lock(s, e);
	if (lock < 0)
		return lock;
	r = name_read(s, ns, name, &n, e);
	if (r)
		return r;
	empty = (struct name){ .id = n.id };
	r = name_write(s, ns, name, &empty, e);
	if (!r)
		let_go(s, lock, &n);
	return r;
}

int table_rename(struct table_store *s, const char *ns, const char *name,
		 const char *to_ns, const char *to_name, struct err *e)
{
	_cleanup_store_unlock_ int lock = -1;
	char from[PATH_SIZE], to[PATH_SIZE];
	struct name old = { 0 }, n;
	bool over;
	uint64_t id;
	int r = check_names(ns, name, e);

	if (!r)
		r = check_names(to_ns, to_name, e);
	if (r)
		return r;
	lock = store_lock(s, e);
	if (lock < 0)
		return lock;
	r = name_read(s, ns, name, &n, e);
	if (r)
		return r;
	if (namespace_id(s, to_ns, &id)) {
		r = namespace_make(s, to_ns, &id, e);
		if (r)
			return r;
	}
	over = !name_read(s, to_ns, to_name, &old, NULL);
	name_path(s, from, ns, name);
	name_path(s, to, to_ns, to_name);
	if (rename(from, to))
		return err_sys(e, errno, "%s", from);
	if (over && old.id != n.id) {
		table_attrs_remove(s, old.id);
		let_go(s, lock, &old);
	}
	return 0;
}

/* Points (ns, name) at an existing generation; the store is locked. */
static int point(struct table_store *s, int lock, const char *ns,
		 const char *name, uint64_t seq, uint64_t gen,
		 const struct name *old, struct err *e)
{
	struct name n = { .id = old->id, .seq = seq, .gen = gen };
	int r;

	r = ref_add(s, &n, e);
	if (!r)
		r = name_write(s, ns, name, &n, e);
	if (!r && old->gen && old->gen != gen)
		let_go(s, lock, old);
	return r;
}

static int old_or_new(struct table_store *s, const char *ns, const char *name,
		      struct name *ret, struct err *e)
{
	uint64_t id;
	int r = name_read(s, ns, name, ret, e);

	if (r != -ENOENT)
		return r;
	*ret = (struct name){ 0 };
	if (namespace_id(s, ns, &id)) {
		r = namespace_make(s, ns, &id, e);
		if (r)
			return r;
	}
	return table_store_numbers(s, 1, &ret->id, e);
}

int table_publish_dir(struct table_store *s, const char *building, uint64_t gen,
		      const char *ns, const char *name, struct err *e)
{
	_cleanup_store_unlock_ int lock = -1;
	char path[PATH_SIZE];
	struct name old;
	uint64_t seq;
	int r = check_names(ns, name, e);

	if (r)
		return r;
	lock = store_lock(s, e);
	if (lock < 0)
		return lock;
	r = old_or_new(s, ns, name, &old, e);
	if (r)
		return r;
	seq = old.id;
	(void)snprintf(path, sizeof(path), "%s/data/%llu", s->dir,
		       (unsigned long long)seq);
	if (mkdir(path, 0700) && errno != EEXIST)
		return err_sys(e, errno, "%s", path);
	gen_path(s, path, seq, gen, "");
	if (rename(building, path))
		return err_sys(e, errno, "%s", path);
	(void)snprintf(path, sizeof(path), "%s/data/%llu", s->dir,
		       (unsigned long long)seq);
	r = dir_sync(path, e);
	return r ? r : point(s, lock, ns, name, seq, gen, &old, e);
}

int table_link(struct table *t, const char *to_ns, const char *to_name,
	       struct err *e)
{
	_cleanup_store_unlock_ int lock = -1;
	struct name old;
	int r = check_names(to_ns, to_name, e);

	if (r)
		return r;
	lock = store_lock(t->store, e);
	if (lock < 0)
		return lock;
	r = old_or_new(t->store, to_ns, to_name, &old, e);
	if (r)
		return r;
	if (old.gen == t->gen)
		return 0;
	return point(t->store, lock, to_ns, to_name, t->seq, t->gen, &old, e);
}

int table_open(struct table_store *s, const char *ns, const char *name,
	       struct table **ret, struct err *e)
{
	struct name n;
	int r = check_names(ns, name, e);

	/* Twice: the generation may be replaced between the two reads. */
	for (int tries = 0; !r && tries < 3; tries++) {
		r = name_read(s, ns, name, &n, e);
		if (r == -ENOENT)
			return err_set(e, ENOENT, "no table %s/%s", ns, name);
		if (r)
			return r;
		if (!n.gen)
			return err_set(e, ENODATA, "table %s/%s is empty", ns,
				       name);
		r = table_open_of(s, n.seq, n.gen, ret, e);
		if (r != -ENOENT)
			return r;
		r = 0;
	}
	return r ? r : err_set(e, ENOENT, "no table %s/%s", ns, name);
}

static void uncache(struct table_store *s, uint64_t gen)
{
	struct table *t = NULL;

	if (!gen)
		return;
	pthread_mutex_lock(&s->lock);
	for (t = s->open; t; t = t->next)
		if (t->gen == gen)
			break;
	if (t) {
		t->refs++;
		t->named_at = 0;
	}
	pthread_mutex_unlock(&s->lock);
	/* The last unref of a generation without names closes it. */
	table_unref(t);
}

static void sweep_building(struct table_store *s)
{
	_cleanup_closedir_ DIR *d = NULL;
	char path[PATH_SIZE];
	struct dirent *de;

	(void)snprintf(path, sizeof(path), "%s/building", s->dir);
	d = opendir(path);
	while (d && (de = readdir(d))) {
		_cleanup_close_ int fd = -1;

		if (de->d_name[0] == '.')
			continue;
		(void)snprintf(path, sizeof(path), "%s/building/%s", s->dir,
			       de->d_name);
		/* A live builder holds a lock on its directory. */
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB))
			(void)remove_tree(path, NULL);
		else if (fd < 0)
			(void)unlink(path);
	}
}

struct used {
	struct table_store *s;
	const char *ns;
	struct name *list;
	size_t n;
	bool damaged;
};

static int use_table(void *arg, const char *name)
{
	struct used *u = arg;
	struct err e = { 0 };
	struct name n;
	int r = name_read(u->s, u->ns, name, &n, &e);

	if (r && r != -ENOENT) {
		log_error("tables", "%s: no unused rows are removed", e.text);
		u->damaged = true;
	}
	if (r)
		return 0;
	u->list = xrealloc(u->list, (u->n + 1) * sizeof(*u->list));
	u->list[u->n++] = n;
	return 0;
}

static int use_namespace(void *arg, const char *ns)
{
	struct used *u = arg;
	char path[PATH_SIZE];
	struct name n = { 0 };

	name_path(u->s, path, ns, NULL);
	file_replace_sweep(path);
	u->ns = ns;
	if (!namespace_id(u->s, ns, &n.id)) {
		u->list = xrealloc(u->list, (u->n + 1) * sizeof(*u->list));
		u->list[u->n++] = n;
	}
	return table_list(u->s, ns, use_table, u, NULL);
}

/* References left by a process that died between making one and the name. */
static void sweep_refs(const struct used *u, uint64_t seq, uint64_t gen)
{
	_cleanup_closedir_ DIR *d = NULL;
	char path[PATH_SIZE];
	struct dirent *de;

	gen_path(u->s, path, seq, gen, "/refs");
	d = opendir(path);
	while (d && (de = readdir(d))) {
		uint64_t id = strtoull(de->d_name, NULL, 10);
		bool found = false;

		if (de->d_name[0] == '.')
			continue;
		for (size_t i = 0; i < u->n && !found; i++)
			found = u->list[i].id == id && u->list[i].gen == gen;
		if (!found)
			(void)unlinkat(dirfd(d), de->d_name, 0);
	}
	table_collect(u->s, seq, gen);
}

/* Attributes whose table went in the moment of a death. */
static void sweep_attrs(const struct used *u)
{
	_cleanup_closedir_ DIR *d = NULL;
	char path[PATH_SIZE];
	struct dirent *de;

	(void)snprintf(path, sizeof(path), "%s/attrs", u->s->dir);
	d = opendir(path);
	while (d && (de = readdir(d))) {
		uint64_t id = strtoull(de->d_name, NULL, 10);
		bool found = de->d_name[0] == '.';

		for (size_t i = 0; i < u->n && !found; i++)
			found = u->list[i].id == id;
		if (!found)
			(void)unlinkat(dirfd(d), de->d_name, 0);
	}
}

/* Names and namespaces are written with the store locked. */
static void sweep_replaced(const struct table_store *s)
{
	_cleanup_close_ int counter = lock_file(s, "counter.lock", NULL);
	char path[PATH_SIZE];

	if (counter >= 0)
		file_replace_sweep(s->dir);
	(void)snprintf(path, sizeof(path), "%s/attrs", s->dir);
	file_replace_sweep(path);
}

int table_store_sweep(struct table_store *s, struct err *e)
{
	_cleanup_store_unlock_ int lock = store_lock(s, e);
	_cleanup_closedir_ DIR *d = NULL;
	struct used u = { .s = s };
	char path[PATH_SIZE];
	struct dirent *de;

	if (lock < 0)
		return lock;
	sweep_building(s);
	sweep_replaced(s);
	if (table_list(s, NULL, use_namespace, &u, e))
		return -EIO;
	if (!u.damaged)
		sweep_attrs(&u);
	/* Rows whose name cannot be read look like rows without one. */
	(void)snprintf(path, sizeof(path), "%s/data", s->dir);
	d = u.damaged ? NULL : opendir(path);
	while (d && (de = readdir(d))) {
		_cleanup_closedir_ DIR *g = NULL;
		struct dirent *ge;

		if (de->d_name[0] == '.')
			continue;
		(void)snprintf(path, sizeof(path), "%s/data/%s", s->dir,
			       de->d_name);
		g = opendir(path);
		while (g && (ge = readdir(g)))
			if (ge->d_name[0] != '.')
				sweep_refs(&u, strtoull(de->d_name, NULL, 10),
					   strtoull(ge->d_name, NULL, 10));
	}
	free(u.list);
	return 0;
}
