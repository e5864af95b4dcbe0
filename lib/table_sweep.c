// SPDX-License-Identifier: Apache-2.0
/* What dead processes left: half-built generations, and such as no name has. */
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
	uint64_t *ids; /* their numbers, sorted */
	bool damaged;
};

static void use(struct used *u, const struct name *n)
{
	if (u->n == u->alloc) {
		u->alloc = u->alloc ? 2 * u->alloc : 64;
		u->list = xrealloc(u->list, u->alloc * sizeof(*u->list));
	}
	u->list[u->n++] = *n;
}

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
	if (!r)
		use(u, &n);
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
	if (!namespace_id(u->s, ns, &n.id))
		use(u, &n);
	return table_list(u->s, ns, use_table, u, NULL);
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

static int find_names(struct used *u, struct err *e)
{
	int r = table_list(u->s, NULL, use_namespace, u, e);

	if (r)
		return err_sys(e, -r, "the names of tables");
	u->ids = xcalloc(u->n + 1, sizeof(*u->ids));
	for (size_t i = 0; i < u->n; i++)
		u->ids[i] = u->list[i].id;
	if (u->n) {
		qsort(u->list, u->n, sizeof(*u->list), by_generation);
		qsort(u->ids, u->n, sizeof(*u->ids), by_number);
	}
	return 0;
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

/* References left by a process that died between making one and the name go.
 * A power cut may leave a name without its reference, which comes back. */
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
			(void)unlinkat(dirfd(d), de->d_name, 0);
	}
	if (found < n)
		(void)mkdir(path, 0700);
	for (size_t i = 0; i < n && found < n; i++)
		if (ref_add(u->s, &names[i], NULL))
			log_error("tables", "%s: %s", path, strerror(errno));
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

		if (de->d_name[0] != '.' &&
		    !(u->n &&
		      bsearch(&id, u->ids, u->n, sizeof(id), by_number)))
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

int table_store_sweep(struct table_store *s, struct err *e)
{
	_cleanup_store_unlock_ int lock = store_lock(s, e);
	struct used u = { .s = s };
	int r;

	if (lock < 0)
		return lock;
	sweep_building(s);
	sweep_replaced(s);
	r = find_names(&u, e);
	/* Rows whose name cannot be read look like rows without one. */
	if (!r && !u.damaged) {
		sweep_attrs(&u);
		sweep_data(&u);
	}
	free(u.list);
	free(u.ids);
	return r;
}
