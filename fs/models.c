// SPDX-License-Identifier: Apache-2.0
/*
 * /models/<model-id>/<version>/: the names.  The files are those of the store
 * under their own names; only here are
 *
 *   ctl        of a whole version: a command a line
 *   deployed   of a whole version: symlink to the newest one deployed from it
 *   missing    of a coming version: the files that are still due
 *   predict/   of every whole version, also when there is nothing in it
 *
 * "models" within /models is found but not listed and shows the same again:
 * what `tar c models/<id>/<version>` made can be extracted there.  Its nodes
 * have slot 1; the kernel knows a directory by one name only.
 */
#include <pthread.h>
#include <sys/stat.h>
#include <uthash.h>

#include "fs/models_priv.h"

/* The analyzer does not follow what a hash table keeps. */
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

/* ---- paths ------------------------------------------------------------ */

void model_at_free(struct model_at *a)
{
	free(a->path);
	free(a->id);
	free(a->version);
	free(a->rest);
	free(a->disk);
	*a = (struct model_at){ 0 };
}

static bool is_dir(const char *path)
{
	struct stat st;

	return path && !lstat(path, &st) && S_ISDIR(st.st_mode);
}

/* STATE/models/.import/<escaped id> */
static char *coming_dir(const char *id)
{
	char *path = model_import_path(fs.conf->state, id, "0");
	char *slash = path ? strrchr(path, '/') : NULL;

	if (slash)
		*slash = '\0';
	return path;
}

static int disk_of_id(struct model_at *a)
{
	a->disk = model_path(fs.conf->state, a->id, NULL);
	if (is_dir(a->disk))
		return 0;
	free(a->disk);
	a->disk = coming_dir(a->id);
	return a->disk ? 0 : -ENOMEM;
}

static int disk_of_version(struct model_at *a)
{
	const char *state = fs.conf->state;
	_cleanup_free_ char *whole = model_path(state, a->id, a->version);
	_cleanup_free_ char *coming =
	    model_import_path(state, a->id, a->version);
	const char *dir;

	if (!whole || !coming)
		return -ENOMEM;
	a->whole = model_exists(state, a->id, a->version);
	a->coming = !a->whole && is_dir(coming);
	dir =
	    a->whole && !(a->name && name_temporary(a->name)) ? whole : coming;
	return asprintf(&a->disk, "%s%s%s", dir, a->rest ? "/" : "",
			a->rest ? a->rest : "") < 0
		   ? -ENOMEM
		   : 0;
}

static int take_apart(struct model_at *a)
{
	const char *p = a->path, *end;

	if (strncmp(p, "models/", 7) != 0)
		return -ENOENT;
	p += 7;
	end = strchrnul(p, '/');
	a->id = strndup(p, (size_t)(end - p));
	if (*end) {
		p = end + 1;
		end = strchrnul(p, '/');
		a->version = strndup(p, (size_t)(end - p));
	}
	if (*end) {
		a->rest = strdup(end + 1);
		if (!a->rest)
			return -ENOMEM;
		a->name = strrchr(a->rest, '/');
		a->name = a->name ? a->name + 1 : a->rest;
	}
	if (!a->id || (strchr(a->path + 7, '/') && !a->version))
		return -ENOMEM;
	return model_id_valid(a->id) &&
		       (!a->version || model_version_valid(a->version))
		   ? 0
		   : -ENOENT;
}

int model_at(const char *path, struct model_at *ret)
{
	struct model_at a = { .path = strdup(path) };
	int no = a.path ? take_apart(&a) : -ENOMEM;

	if (!no)
		no = a.version ? disk_of_version(&a) : disk_of_id(&a);
	if (no) {
		model_at_free(&a);
		return no;
	}
	*ret = a;
	return 0;
}

char *model_child(fuse_ino_t dir, const char *name)
{
	_cleanup_free_ char *at = named_path(ino_nid(dir).number);
	char *path = NULL;

	return !at || asprintf(&path, "%s/%s", at, name) < 0 ? NULL : path;
}

void model_refused(uid_t uid, const struct model_at *a, int status,
		   const char *text)
{
	errors_add(uid, a->path, status, text);
}

bool model_trained(const struct model_at *a)
{
	json_t *info = a->whole
			   ? model_info(fs.conf->state, a->id, a->version, NULL)
			   : NULL;
	bool yes = info && !json_bool_or(info, "deployed", false);

	json_decref(info);
	return yes;
}

/* ---- ghosts ----------------------------------------------------------- */

/* As long as a tool may take for what comes next. */
#define GHOST_MS  10000
#define SWEEP_MS  1000
#define GHOST_MAX 100000

struct ghost_of {
	char *path, *to;
	enum ghost what;
	int64_t until_ms;
	UT_hash_handle hh;
};
static pthread_mutex_t ghost_lock = PTHREAD_MUTEX_INITIALIZER;
static struct ghost_of *ghosts;
static int64_t swept_ms;

/* With the lock held. */
static void ghost_drop(struct ghost_of *g)
{
	HASH_DEL(ghosts, g);
	free(g->path);
	free(g->to);
	free(g);
}

static bool is_below(const char *path, const char *top)
{
	size_t n = strlen(top);

	return !strncmp(path, top, n) && (!path[n] || path[n] == '/');
}

void ghost_clear(const char *path)
{
	struct ghost_of *g, *tmp;

	pthread_mutex_lock(&ghost_lock);
	HASH_ITER (hh, ghosts, g, tmp)
		if (is_below(g->path, path))
			ghost_drop(g);
	pthread_mutex_unlock(&ghost_lock);
}

void ghost_set(const char *path, enum ghost what, const char *to)
{
	int64_t now = now_mono_ms();
	struct ghost_of *g, *tmp;

	pthread_mutex_lock(&ghost_lock);
	if (now > swept_ms + SWEEP_MS) {
		swept_ms = now;
		HASH_ITER (hh, ghosts, g, tmp)
			if (g->until_ms < now)
				ghost_drop(g);
	}
	HASH_FIND_STR(ghosts, path, g);
	if (g)
		ghost_drop(g);
	g = HASH_COUNT(ghosts) < GHOST_MAX ? calloc(1, sizeof(*g)) : NULL;
	if (g) {
		*g = (struct ghost_of){ .path = strdup(path),
					.to = to ? strdup(to) : NULL,
					.what = what,
					.until_ms = now + GHOST_MS };
		if (g->path && (!to || g->to)) {
			HASH_ADD_KEYPTR(hh, ghosts, g->path, strlen(g->path),
					g);
		} else {
			free(g->path);
			free(g->to);
			free(g);
		}
	}
	pthread_mutex_unlock(&ghost_lock);
}

enum ghost ghost_of(const char *path, char **ret_to)
{
	enum ghost what = GHOST_NONE;
	struct ghost_of *g;

	if (ret_to)
		*ret_to = NULL;
	pthread_mutex_lock(&ghost_lock);
	HASH_FIND_STR(ghosts, path, g);
	if (g && g->until_ms >= now_mono_ms()) {
		what = g->what;
		if (ret_to && g->to)
			*ret_to = strdup(g->to);
	}
	pthread_mutex_unlock(&ghost_lock);
	return what;
}

/* ---- attributes ------------------------------------------------------- */

/* With the last file a version becomes whole: what its archive has and it does
 * not need comes before. */
static const char *const first[] = { "info.json", "missing", "ctl", "deployed",
				     "predict" };

static bool comes_early(const struct model_at *a)
{
	for (size_t i = 0; a->rest && i < ARRAY_SIZE(first); i++)
		if (!strcmp(a->rest, first[i]))
			return true;
	return false;
}

/* That of info.json: what a copy keeps. */
static int64_t made_ms(const struct model_at *a)
{
	_cleanup_free_ char *dir =
	    model_path(fs.conf->state, a->id, a->version);
	_cleanup_free_ char *path = NULL;
	struct stat st;

	if (!dir || asprintf(&path, "%s/info.json", dir) < 0 ||
	    lstat(path, &st))
		return 0;
	return st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
}

static int attr_deployed(const struct model_at *a, fuse_ino_t ino,
			 struct attr *ret)
{
	_cleanup_free_ char *to =
	    model_deployed(fs.conf->state, a->id, a->version);

	if (!to)
		return -ENOENT;
	attr_fill(ret, ino, S_IFLNK | 0777, strlen("../") + strlen(to),
		  made_ms(a));
	return 0;
}

static int attr_missing(const struct model_at *a, fuse_ino_t ino,
			struct attr *ret)
{
	_cleanup_free_ char *text = import_missing(a);

	if (!text)
		return -ENOMEM;
	if (model_exists(fs.conf->state, a->id, a->version))
		return -ENOENT; /* it was the last */
	attr_fill(ret, ino, S_IFREG | 0444, strlen(text), 0);
	return 0;
}

static int attr_ghost(const struct model_at *a, fuse_ino_t ino,
		      struct attr *ret)
{
	_cleanup_free_ char *to = NULL;
	enum ghost g = ghost_of(a->path, &to);

	if (g == GHOST_FILE)
		attr_fill(ret, ino, S_IFREG | 0600, 0, 0);
	else if (g == GHOST_LINK)
		attr_fill(ret, ino, S_IFLNK | 0777, to ? strlen(to) : 0, 0);
	else
		return -ENOENT;
	return 0;
}

static int attr_rest(const struct model_at *a, fuse_ino_t ino, struct attr *ret)
{
	struct stat st;

	if (a->whole && !strcmp(a->rest, "ctl")) {
		attr_fill(ret, ino, S_IFREG | 0660, 0, made_ms(a));
		return 0;
	}
	if (a->whole && !strcmp(a->rest, "deployed"))
		return attr_deployed(a, ino, ret);
	if (a->coming && !strcmp(a->rest, "missing"))
		return attr_missing(a, ino, ret);
	if (lstat(a->disk, &st)) {
		if (!a->whole || strcmp(a->rest, "predict") != 0)
			return -ENOENT;
		attr_fill(ret, ino, S_IFDIR | 0755, 0, made_ms(a));
		return 0;
	}
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode) &&
	    !S_ISLNK(st.st_mode))
		return -ENOENT;
	return attr_disk(ret, ino,
			 S_ISDIR(st.st_mode)   ? S_IFDIR | 0755
			 : S_ISLNK(st.st_mode) ? S_IFLNK | 0777
					       : S_IFREG | (st.st_mode & 0777),
			 a->disk, false);
}

int model_attr(const struct model_at *a, fuse_ino_t ino, struct attr *ret)
{
	enum ghost g = a->rest ? ghost_of(a->path, NULL) : GHOST_NONE;
	int no = -ENOENT;

	if ((a->version && !a->whole && !a->coming) || g == GHOST_GONE)
		return -ENOENT;
	if (!a->rest)
		no = attr_disk(ret, ino, S_IFDIR | 0755, a->disk, false);
	else if (g == GHOST_NONE || strcmp(a->rest, "deployed") != 0)
		no = attr_rest(a, ino, ret);
	if (no == -ENOENT && g != GHOST_NONE)
		no = attr_ghost(a, ino, ret);
	/* What is imported becomes whole, what is whole is deployed: looked up
	 * each time, so everybody sees it at once. */
	ret->entry_s = 0;
	ret->st.st_blksize = 1 << 20;
	return no;
}

int model_find(const char *path, struct nid dir, struct attr *ret)
{
	_cleanup_model_at_ struct model_at a = { 0 };
	unsigned slot = dir.kind == K_MODEL ? dir.slot : 0;
	uint64_t number;
	int no = model_at(path, &a);

	if (!no)
		no = model_attr(&a, nid_ino(K_MODEL, 0, slot), ret);
	if (!no)
		no = named_add(path, comes_early(&a), &number);
	if (!no)
		ret->st.st_ino = nid_ino(K_MODEL, number, slot);
	return no;
}

static int models_getattr(const struct who *w, struct nid n, struct attr *ret)
{
	_cleanup_free_ char *path = named_path(n.number);
	_cleanup_model_at_ struct model_at a = { 0 };
	int no = path ? model_at(path, &a) : -ESTALE;

	(void)w;
	return no ? no
		  : model_attr(&a, nid_ino(K_MODEL, n.number, n.slot), ret);
}

int model_lookup(const char *name, bool again, struct attr *ret)
{
	_cleanup_free_ char *path = NULL;

	if (asprintf(&path, "models/%s", name) < 0)
		return -ENOMEM;
	return model_find(path, (struct nid){ K_MODEL, 0, again }, ret);
}

static int models_lookup(const struct who *w, struct nid dir, const char *name,
			 struct attr *ret)
{
	_cleanup_free_ char *path =
	    model_child(nid_ino(dir.kind, dir.number, dir.slot), name);

	(void)w;
	return path ? model_find(path, dir, ret) : -ESTALE;
}

/* ---- listings --------------------------------------------------------- */

struct names {
	char **of;
	size_t n;
};

static void names_free(struct names *x)
{
	for (size_t i = 0; i < x->n; i++)
		free(x->of[i]);
	free(x->of);
}
#define _cleanup_names_ _cleanup_(names_free)

static void names_add(struct names *x, const char *name)
{
	char **more = realloc(x->of, (x->n + 1) * sizeof(*more));

	if (!more)
		return;
	x->of = more;
	x->of[x->n] = strdup(name);
	if (x->of[x->n])
		x->n++;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Of a directory on disk, unescaped, those that are valid; sorted, each once
 * when called for several. */
static void names_of(struct names *x, const char *dir,
		     bool (*valid)(const char *name))
{
	_cleanup_closedir_ DIR *d = dir ? opendir(dir) : NULL;
	const struct dirent *de;
	size_t n = 0;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *name = table_unescape(de->d_name);

		if (name && strcmp(name, ".") && strcmp(name, "..") &&
		    (!valid || valid(name)))
			names_add(x, name);
	}
	if (x->n)
		qsort(x->of, x->n, sizeof(*x->of), by_name);
	for (size_t i = 0; i < x->n; i++) {
		if (n && !strcmp(x->of[n - 1], x->of[i]))
			free(x->of[i]);
		else
			x->of[n++] = x->of[i];
	}
	x->n = n;
}

/* A name that can be looked up. */
static void list_one(struct listing *l, const char *dir, unsigned slot,
		     const char *name)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_model_at_ struct model_at a = { 0 };
	struct attr x;

	if (asprintf(&path, "%s/%s", dir, name) < 0 || model_at(path, &a) ||
	    model_attr(&a, nid_ino(K_MODEL, 0, slot), &x))
		return;
	listing_add(l, name,
		    nid_ino(K_MODEL, named_number(path, comes_early(&a)), slot),
		    x.st.st_mode);
}

int models_list(bool again, struct listing *l)
{
	_cleanup_names_ struct names x = { 0 };
	_cleanup_free_ char *whole = model_path(fs.conf->state, NULL, NULL);
	_cleanup_free_ char *coming = NULL;

	if (!whole || asprintf(&coming, "%s/.import", whole) < 0)
		return -ENOMEM;
	names_of(&x, whole, model_id_valid);
	names_of(&x, coming, model_id_valid);
	for (size_t i = 0; i < x.n; i++)
		list_one(l, "models", again, x.of[i]);
	return 0;
}

static void list_versions(const struct model_at *a, unsigned slot,
			  struct listing *l)
{
	_cleanup_names_ struct names x = { 0 };
	_cleanup_free_ char *whole = model_path(fs.conf->state, a->id, NULL);
	_cleanup_free_ char *coming = coming_dir(a->id);

	names_of(&x, whole, model_version_valid);
	names_of(&x, coming, model_version_valid);
	for (size_t i = 0; i < x.n; i++)
		list_one(l, a->path, slot, x.of[i]);
}

/* info.json first: who reads an archive from its start knows what comes. */
static void list_rest(const struct model_at *a, unsigned slot,
		      struct listing *l)
{
	_cleanup_names_ struct names x = { 0 };
	_cleanup_free_ char *dir = strdup(a->path);

	names_of(&x, a->disk, NULL);
	for (size_t i = 0; !a->rest && i < ARRAY_SIZE(first); i++)
		list_one(l, dir, slot, first[i]);
	for (size_t i = 0; i < x.n; i++) {
		bool told = false;

		for (size_t k = 0; !a->rest && k < ARRAY_SIZE(first); k++)
			told |= !strcmp(first[k], x.of[i]);
		if (!told)
			list_one(l, dir, slot, x.of[i]);
	}
}

static int models_list_dir(const struct who *w, struct nid dir,
			   struct listing *l)
{
	_cleanup_free_ char *path = named_path(dir.number);
	_cleanup_model_at_ struct model_at a = { 0 };
	struct attr x;
	int no = path ? model_at(path, &a) : -ESTALE;

	(void)w;
	if (!no)
		no = model_attr(&a, 0, &x);
	if (no)
		return no;
	if (!a.version)
		list_versions(&a, dir.slot, l);
	else
		list_rest(&a, dir.slot, l);
	return 0;
}

static int models_readlink(struct nid n, struct strbuf *ret)
{
	_cleanup_free_ char *path = named_path(n.number), *to = NULL;
	_cleanup_model_at_ struct model_at a = { 0 };
	char buf[4096];
	ssize_t k;
	int no = path ? model_at(path, &a) : -ESTALE;

	if (no)
		return no;
	if (!a.rest)
		return -EINVAL;
	if (ghost_of(path, &to) == GHOST_LINK && to)
		return sb_adds(ret, to);
	if (a.whole && !strcmp(a.rest, "deployed")) {
		to = model_deployed(fs.conf->state, a.id, a.version);
		if (to)
			return sb_addf(ret, "../%s", to);
	}
	k = readlink(a.disk, buf, sizeof(buf) - 1);
	return k < 0 ? -errno : sb_add(ret, buf, (size_t)k);
}

/* ---- start ------------------------------------------------------------ */

/* What was being imported is kept; what has become whole since is not, nor is
 * a directory in which nothing came. */
void models_start(void)
{
	_cleanup_names_ struct names ids = { 0 };
	_cleanup_free_ char *top = NULL;

	if (asprintf(&top, "%s/models/.import", fs.conf->state) < 0)
		return;
	names_of(&ids, top, model_id_valid);
	for (size_t i = 0; i < ids.n; i++) {
		_cleanup_names_ struct names versions = { 0 };
		_cleanup_free_ char *dir = coming_dir(ids.of[i]);

		names_of(&versions, dir, model_version_valid);
		for (size_t k = 0; k < versions.n; k++)
			if (model_exists(fs.conf->state, ids.of[i],
					 versions.of[k]) &&
			    model_import_drop(fs.conf->state, ids.of[i],
					      versions.of[k], NULL))
				log_warn("fs", "an old import stays");
		if (dir)
			(void)rmdir(dir);
	}
}

static void models_path(struct nid n, struct strbuf *ret)
{
	_cleanup_free_ char *path = named_path(n.number);

	if (path)
		sb_addf(ret, "models/%s", path);
}

const struct tree tree_models = {
	.lookup = models_lookup,
	.getattr = models_getattr,
	.list = models_list_dir,
	.open = models_open,
	.readlink = models_readlink,
	.create = models_create,
	.mkdir = models_mkdir,
	.symlink = models_symlink,
	.unlink = models_unlink,
	.rmdir = models_rmdir,
	.rename = models_rename,
	.truncate = models_truncate,
	.setattr = models_setattr,
	.forget = named_forget,
	.path = models_path,
};
