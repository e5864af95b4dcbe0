// SPDX-License-Identifier: Apache-2.0
/* What dead processes left: half-built generations, and such as no name has;
 * and what the disk left of names. */
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "lib/log.h"

#include "lib/table_store_priv.h"

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

/* All names there are: of tables, and of namespaces (no generation). */
struct used {
	struct table_store *s;
	const char *ns;
	struct name *list; /* sorted by generation, then number */
	size_t n, alloc;
	struct table_swept found;
};

static void use(struct used *u, const struct name *n)
{
	if (u->n == u->alloc) {
		u->alloc = u->alloc ? 2 * u->alloc : 64;
		u->list = xrealloc(u->list, u->alloc * sizeof(*u->list));
	}
	u->list[u->n++] = *n;
}

static void tell(struct used *u, const struct err *e)
{
	log_error("tables", "%s", e->text);
	sb_addf(&u->found.told, "%s\n", e->text);
}

/* ---- damaged names -------------------------------------------------------
 */

/* STORE/damaged, or the file in it that was the name's of this number. */
static void damaged_path(const struct table_store *s, char *buf, uint64_t id)
{
	int n = snprintf(buf, PATH_SIZE, "%s/damaged", s->dir);

	if (id)
		(void)snprintf(buf + n, PATH_SIZE - (size_t)n, "/%llu",
			       (unsigned long long)id);
}

/* A table whose name cannot be read could neither be read, nor replaced, nor
 * removed.  It is empty from now on, and what its file held is kept. */
static int put_aside(struct used *u, const char *name, struct name *ret,
		     struct err *e)
{
	char path[PATH_SIZE], kept[PATH_SIZE];
	struct err line;
	int r;

	*ret = (struct name){ 0 };
	r = table_store_numbers(u->s, 1, &ret->id, e);
	if (r)
		return r;
	name_path(u->s, path, u->ns, name);
	damaged_path(u->s, kept, ret->id);
	if (link(path, kept))
		return err_sys(e, errno, "%s", kept);
	damaged_path(u->s, kept, 0);
	r = dir_sync(kept, e);
	if (!r)
		r = name_write(u->s, u->ns, name, ret, e);
	if (r)
		return r;
	err_set(&line, EIO,
		"table %s/%s: the file that says where its rows are was "
		"damaged: it is %s/%llu now, and the table is empty; no unused "
		"rows are removed until it is removed or written",
		u->ns, name, kept, (unsigned long long)ret->id);
	tell(u, &line);
	return 0;
}

/* Whom it was for is not known: for nobody but the owner of the mount, and for
 * no component, until chmod. */
static int close_to_others(struct used *u, uint64_t id, const char *ns,
			   const char *name, struct err *e)
{
	const struct table_attrs a = {
		.mode = 0700, .data_mode = 0, .uid = -1, .gid = -1
	};
	int r = table_attrs_store(u->s, id, &a, e);

	if (r)
		return r;
	err_set(
	    e, EIO,
	    "%s %s%s%s: what was kept of its mode, owner and attributes was "
	    "damaged: it is for the owner of the mount only until chmod",
	    name ? "table" : "namespace", ns, name ? "/" : "",
	    name ? name : "");
	tell(u, e);
	return 0;
}

/* name NULL: a namespace. */
static int mend_attrs(struct used *u, uint64_t id, const char *ns,
		      const char *name, struct err *e)
{
	struct table_attrs a;
	int r = table_attrs_load(u->s, id, &a, e);

	if (r == -EIO)
		return close_to_others(u, id, ns, name, e);
	if (!r)
		table_attrs_free(&a);
	return r;
}

static int number_namespace(struct used *u, const char *ns, uint64_t *ret,
			    struct err *e)
{
	char path[PATH_SIZE], text[32];
	int r = table_store_numbers(u->s, 1, ret, e);

	/* Its attributes hang on the number. */
	if (!r)
		r = close_to_others(u, *ret, ns, NULL, e);
	if (r)
		return r;
	name_path(u->s, path, ns, NULL);
	(void)snprintf(path + strlen(path), sizeof(path) - strlen(path),
		       "/.id");
	(void)snprintf(text, sizeof(text), "%llu\n", (unsigned long long)*ret);
	return file_replace(path, text, strlen(text), 0600, true, e);
}

/* ---- names ---------------------------------------------------------------
 */

static int use_table(void *arg, const char *name)
{
	struct used *u = arg;
	struct err e = { 0 };
	struct name n;
	int r = name_read(u->s, u->ns, name, &n, &e);

	if (r == -EIO)
		r = put_aside(u, name, &n, &e);
	if (!r)
		r = mend_attrs(u, n.id, u->ns, name, &e);
	if (r && r != -ENOENT) {
		(void)err_wrap(&e, "no unused rows are removed");
		tell(u, &e);
		u->found.unsure = true;
	}
	if (!r)
		use(u, &n);
	return 0;
}

static int use_namespace(void *arg, const char *ns)
{
	struct used *u = arg;
	char path[PATH_SIZE];
	struct name n = { 0 };
	struct err e = { 0 };
	int r;

	name_path(u->s, path, ns, NULL);
	file_replace_sweep(path);
	u->ns = ns;
	r = table_list(u->s, ns, use_table, u, NULL);
	if (r)
		return r == -ENOTDIR ? 0 : r;
	r = namespace_id(u->s, ns, &n.id);
	if (r == -EIO || r == -ENOENT)
		r = number_namespace(u, ns, &n.id, &e);
	if (!r)
		r = mend_attrs(u, n.id, ns, NULL, &e);
	if (!r) {
		use(u, &n);
		return 0;
	}
	if (!e.no)
		err_sys(&e, -r, "namespace %s", ns);
	tell(u, &e);
	u->found.unsure = true;
	return 0;
}

static int by_generation(const void *pa, const void *pb)
{
	const struct name *a = pa, *b = pb;

	if (a->gen != b->gen)
		return a->gen < b->gen ? -1 : 1;
	return (a->id > b->id) - (a->id < b->id);
}

static int by_number(const void *pa, const void *pb)
{
	const uint64_t *a = pa, *b = pb;

	return (*a > *b) - (*a < *b);
}

bool table_swept_has(const struct table_swept *x, uint64_t number)
{
	return x->n &&
	       bsearch(&number, x->numbers, x->n, sizeof(number), by_number);
}

void table_swept_free(struct table_swept *x)
{
	free(x->numbers);
	sb_free(&x->told);
	*x = (struct table_swept){ 0 };
}

static int find_names(struct used *u, struct err *e)
{
	int r = table_list(u->s, NULL, use_namespace, u, e);

	if (r)
		return err_sys(e, -r, "the names of tables");
	u->found.n = u->n;
	u->found.numbers = xcalloc(u->n + 1, sizeof(uint64_t));
	for (size_t i = 0; i < u->n; i++)
		u->found.numbers[i] = u->list[i].id;
	if (u->n) {
		qsort(u->list, u->n, sizeof(*u->list), by_generation);
		qsort(u->found.numbers, u->n, sizeof(uint64_t), by_number);
	}
	return 0;
}

/* Files in damaged/ that are needed no more go. */
static void sweep_damaged(struct used *u)
{
	_cleanup_closedir_ DIR *d = NULL;
	char path[PATH_SIZE];
	struct dirent *de;

	damaged_path(u->s, path, 0);
	d = opendir(path);
	while (d && (de = readdir(d))) {
		const struct name want = { .id =
					       strtoull(de->d_name, NULL, 10) };

		if (de->d_name[0] == '.')
			continue;
		if (u->n &&
		    bsearch(&want, u->list, u->n, sizeof(want), by_generation))
			u->found.unsure = true;
		else
			(void)unlinkat(dirfd(d), de->d_name, 0);
	}
}

/* The names of a generation; how many there are. */
static size_t names_of(const struct used *u, uint64_t gen,
		       const struct name **ret)
{
	size_t lo = 0, hi = u->n, n = 0;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (u->list[mid].gen < gen)
			lo = mid + 1;
		else
			hi = mid;
	}
	while (lo + n < u->n && u->list[lo + n].gen == gen)
		n++;
	*ret = u->list + lo;
	return n;
}

/* A reference that no name has: left by a process that died between making one
 * and the name go, or that of a damaged name. */
static void unused_ref(const struct used *u, int refs, uint64_t seq,
		       uint64_t gen, const char *id)
{
	if (!u->found.unsure)
		(void)unlinkat(refs, id, 0);
	else
		log_warn("tables",
			 "rows without a name: {\"data\":\"%llu/%llu\","
			 "\"id\":%llu}",
			 (unsigned long long)seq, (unsigned long long)gen,
			 strtoull(id, NULL, 10));
}

/* A power cut may leave a name without its reference, which comes back. */
static void sweep_refs(const struct used *u, uint64_t seq, uint64_t gen)
{
	_cleanup_closedir_ DIR *d = NULL;
	const struct name *names;
	size_t n = names_of(u, gen, &names), found = 0;
	char path[PATH_SIZE];
	struct dirent *de;

	gen_path(u->s, path, seq, gen, "/refs");
	d = opendir(path);
	while (d && (de = readdir(d))) {
		const struct name want = { .id = strtoull(de->d_name, NULL, 10),
					   .gen = gen };

		if (de->d_name[0] == '.')
			continue;
		if (n && bsearch(&want, names, n, sizeof(want), by_generation))
			found++;
		else
			unused_ref(u, dirfd(d), seq, gen, de->d_name);
	}
	if (found < n)
		(void)mkdir(path, 0700);
	for (size_t i = 0; i < n && found < n; i++)
		if (ref_add(u->s, &names[i], NULL))
			log_error("tables", "%s: %s", path, strerror(errno));
	if (!u->found.unsure)
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

		if (de->d_name[0] != '.' && !table_swept_has(&u->found, id))
			(void)unlinkat(dirfd(d), de->d_name, 0);
	}
}

/* Names and namespaces are written with the store locked. */
static void sweep_replaced(const struct table_store *s)
{
	_cleanup_close_ int counter = store_lock_counter(s, NULL);
	char path[PATH_SIZE];

	if (counter >= 0)
		file_replace_sweep(s->dir);
	(void)snprintf(path, sizeof(path), "%s/attrs", s->dir);
	file_replace_sweep(path);
}

static void sweep_data(const struct used *u)
{
	_cleanup_closedir_ DIR *d = NULL;
	char path[PATH_SIZE];
	struct dirent *de;

	(void)snprintf(path, sizeof(path), "%s/data", u->s->dir);
	d = opendir(path);
	while (d && (de = readdir(d))) {
		_cleanup_closedir_ DIR *g = NULL;
		struct dirent *ge;

		if (de->d_name[0] == '.')
			continue;
		(void)snprintf(path, sizeof(path), "%s/data/%s", u->s->dir,
			       de->d_name);
		g = opendir(path);
		while (g && (ge = readdir(g)))
			if (ge->d_name[0] != '.')
				sweep_refs(u, strtoull(de->d_name, NULL, 10),
					   strtoull(ge->d_name, NULL, 10));
		(void)rmdir(path); /* if nothing is in it */
	}
}

int table_store_sweep(struct table_store *s, struct table_swept *ret,
		      struct err *e)
{
	_cleanup_store_unlock_ int lock = store_lock(s, e);
	struct used u = { .s = s, .found.told = STRBUF_INIT(64u << 10) };
	int r;

	if (lock < 0)
		return lock;
	sweep_building(s);
	sweep_replaced(s);
	r = find_names(&u, e);
	if (!r) {
		sweep_damaged(&u);
		/* What is of a damaged name looks like what is of none. */
		if (!u.found.unsure)
			sweep_attrs(&u);
		sweep_data(&u);
	}
	if (!r && ret)
		*ret = u.found;
	else
		table_swept_free(&u.found);
	free(u.list);
	return r;
}
