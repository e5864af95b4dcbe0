// SPDX-License-Identifier: Apache-2.0
/* Names: how they look on disk, which there are, and namespaces. */
#include <fcntl.h>
#include <sys/stat.h>

#include "lib/fnv.h"
#include "lib/log.h"
#include "lib/table_store_priv.h"

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
		/* No name holds a NUL: %00 stands for itself. */
		if (*s == '%' && hex(s[1]) >= 0 && hex(s[2]) >= 0 &&
		    (s[1] != '0' || s[2] != '0')) {
			sb_addc(&sb, (char)(hex(s[1]) * 16 + hex(s[2])));
			s += 2;
		} else {
			sb_addc(&sb, *s);
		}
	}
	return sb_detach(&sb);
}

void name_path(const struct table_store *s, char *buf, const char *ns,
	       const char *name)
{
	_cleanup_free_ char *a = table_escape(ns);
	_cleanup_free_ char *b = name ? table_escape(name) : NULL;

	(void)snprintf(buf, PATH_SIZE, "%s/names/%s%s%s", s->dir, a,
		       b ? "/" : "", b ? b : "");
}

int check_names(const char *ns, const char *name, struct err *e)
{
	if (!table_name_valid(ns))
		return err_set(e, EINVAL, "not a namespace: \"%.100s\"", ns);
	if (name && !table_name_valid(name))
		return err_set(e, EINVAL, "not a table name: \"%.100s\"", name);
	return 0;
}

int store_lock_named(const struct table_store *s, const char *ns,
		     const char *name, struct err *e)
{
	int r = check_names(ns, name, e);

	return r ? r : store_lock(s, e);
}

/* ---- a name's file ------------------------------------------------------- */

#define NAME_TEXT 128

/* The line, with what tells whether the disk has kept it. */
static size_t name_text(char text[NAME_TEXT], const struct name *n)
{
	int k = snprintf(text, NAME_TEXT, "{\"data\":\"%llu/%llu\",\"id\":%llu",
			 (unsigned long long)n->seq, (unsigned long long)n->gen,
			 (unsigned long long)n->id);
	size_t len = (size_t)k;

	return len + (size_t)snprintf(text + len, NAME_TEXT - len,
				      ",\"sum\":\"%08x\"}\n", fnv1a(text, len));
}

/* Files of older versions, and lines of the log, have no sum. */
static bool name_parse(const char *text, size_t len, struct name *ret)
{
	unsigned long long id = 0, seq = 0, gen = 0;
	char whole[NAME_TEXT];
	size_t n;
	int end = 0;

	(void)sscanf(text, "{\"data\":\"%llu/%llu\",\"id\":%llu%n", &seq, &gen,
		     &id, &end);
	*ret = (struct name){ .id = id, .seq = seq, .gen = gen };
	n = name_text(whole, ret);
	return end && id && !seq == !gen && strlen(text) == len &&
	       ((len == n && !memcmp(text, whole, n)) ||
		(!memcmp(text, whole, (size_t)end) &&
		 (!strcmp(text + end, "}\n") || !strcmp(text + end, "}"))));
}

int name_read(const struct table_store *s, const char *ns, const char *name,
	      struct name *ret, struct err *e)
{
	char path[PATH_SIZE], text[NAME_TEXT];
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
	if (!name_parse(text, (size_t)n, ret))
		return err_set(e, EIO,
			       "%s: damaged: it is put aside when rollfs is "
			       "started next",
			       path);
	ret->changed_ns =
	    st.st_mtim.tv_sec * (int64_t)1000000000 + st.st_mtim.tv_nsec;
	return 0;
}

static int put_name(const struct table_store *s, const char *ns,
		    const char *name, const struct name *n,
		    int (*put)(const char *path, const void *data, size_t n,
			       mode_t mode, struct err *e),
		    struct err *e)
{
	char path[PATH_SIZE], text[NAME_TEXT];
	size_t len = name_text(text, n);

	name_path(s, path, ns, name);
	return put(path, text, len, 0600, e);
}

static int put_durable(const char *path, const void *data, size_t n,
		       mode_t mode, struct err *e)
{
	return file_replace(path, data, n, mode, true, e);
}

int name_write(const struct table_store *s, const char *ns, const char *name,
	       const struct name *n, struct err *e)
{
	return put_name(s, ns, name, n, put_durable, e);
}

int name_write_unsynced(const struct table_store *s, const char *ns,
			const char *name, const struct name *n, struct err *e)
{
	return put_name(s, ns, name, n, file_replace_unsynced, e);
}

static void spare_path(const struct table_store *s, char *buf)
{
	(void)snprintf(buf, PATH_SIZE, "%s/spare", s->dir);
}

void spare_make(const struct table_store *s)
{
	char path[PATH_SIZE], text[NAME_TEXT];

	spare_path(s, path);
	memset(text, ' ', sizeof(text));
	if (access(path, F_OK) &&
	    file_replace(path, text, sizeof(text), 0600, true, NULL))
		log_warn("tables", "%s: there is no room for it", path);
}

int name_write_spare(const struct table_store *s, const char *ns,
		     const char *name, const struct name *n, struct err *e)
{
	char path[PATH_SIZE], spare[PATH_SIZE], text[NAME_TEXT];
	size_t len = name_text(text, n);
	_cleanup_close_ int fd = -1;
	int r;

	spare_path(s, spare);
	name_path(s, path, ns, name);
	fd = open(spare, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0) /* used, and none could be made since */
		return err_sys(e, ENOSPC, "%s", path);
	r = pwrite_all(fd, text, len, 0);
	if (!r &&
	    (ftruncate(fd, (off_t)len) || fsync(fd) || rename(spare, path)))
		r = -errno;
	return r ? err_sys(e, -r, "%s", path) : 0;
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

/* ---- lists ----------------------------------------------------------------
 */

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
	while ((errno = 0, de = readdir(d))) {
		if (de->d_name[0] == '.')
			continue;
		if (n == alloc) {
			alloc = alloc ? 2 * alloc : 64;
			names = xrealloc(names, alloc * sizeof(*names));
		}
		names[n++] = table_unescape(de->d_name);
	}
	if (errno) /* half a list may be taken for all there is */
		r = err_sys(e, errno, "%s", path);
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

/* ---- namespaces -----------------------------------------------------------
 */

int namespace_id(struct table_store *s, const char *ns, uint64_t *ret_id)
{
	char path[PATH_SIZE];
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(64);
	unsigned long long id = 0;
	int r, end = 0;

	name_path(s, path, ns, NULL);
	(void)snprintf(path + strlen(path), sizeof(path) - strlen(path),
		       "/.id");
	r = file_read(path, &sb, NULL);
	if (r)
		return r == -ENOTDIR ? -ENOENT : r == -EFBIG ? -EIO : r;
	if (sb.len)
		(void)sscanf(sb.buf, "%llu\n%n", &id, &end);
	if (!id || (size_t)end != sb.len)
		return -EIO;
	*ret_id = id;
	return 0;
}

/* Whole or not at all: with its number it is moved to its place. */
static int namespace_make(struct table_store *s, const char *ns,
			  uint64_t *ret_id, struct err *e)
{
	char path[PATH_SIZE], made[PATH_SIZE], id[PATH_SIZE + 8], text[32];
	int r = table_store_numbers(s, 1, ret_id, e);

	if (r)
		return r;
	name_path(s, path, ns, NULL);
	(void)snprintf(made, sizeof(made), "%s/building/%llu", s->dir,
		       (unsigned long long)*ret_id);
	(void)snprintf(id, sizeof(id), "%s/.id", made);
	(void)snprintf(text, sizeof(text), "%llu\n",
		       (unsigned long long)*ret_id);
	if (mkdir(made, 0700))
		return err_sys(e, errno, "%s", made);
	r = file_replace(id, text, strlen(text), 0600, true, e);
	if (!r && rename(made, path))
		r = err_sys(e, errno, "%s", path);
	if (r) {
		(void)remove_tree(made, NULL);
		return r;
	}
	(void)snprintf(path, sizeof(path), "%s/names", s->dir);
	return dir_sync(path, e);
}

/* One without tables goes, also whole or not at all. */
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
	(void)remove_tree(away, NULL); /* else by the sweep */
	return 0;
}

int namespace_need(struct table_store *s, const char *ns, struct err *e)
{
	uint64_t id;

	return namespace_id(s, ns, &id) ? namespace_make(s, ns, &id, e) : 0;
}

int namespace_create(struct table_store *s, const char *ns, uint64_t *ret_id,
		     struct err *e)
{
	_cleanup_store_unlock_ int lock = store_lock_named(s, ns, NULL, e);
	uint64_t id;

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
	_cleanup_store_unlock_ int lock = store_lock_named(s, ns, NULL, e);
	uint64_t id;
	size_t n = 0;
	int r;

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

	if (r)
		return r;
	lock = store_lock_named(s, to, NULL, e);
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
