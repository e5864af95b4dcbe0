// SPDX-License-Identifier: Apache-2.0
/* /models: what is opened, made, renamed and removed; ctl, and the predict DSL
 * of a trained version. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "fs/models_priv.h"

/* The analyzer does not follow what a handle keeps. */
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

#define DSL_MAX (4u << 20)

/* ---- ctl ---------------------------------------------------------------
 * A deployment waits for the partners, so a thread of its own does it and
 * answers the write. */

#define COMMANDS_MAX 16

static pthread_mutex_t command_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t command_done = PTHREAD_COND_INITIALIZER;
static unsigned commands;
static bool commands_over;

struct command {
	struct park *park;
	struct model_at at;
	uid_t uid;
	size_t n;
	char *text;
};

static void command_free(struct command *c)
{
	model_at_free(&c->at);
	free(c->text);
	free(c);
}

static int run_lines(struct command *c)
{
	char *save = NULL;

	for (char *line = strtok_r(c->text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		struct err e = { 0 };
		int no;

		if (!line[strspn(line, " \t\r")])
			continue;
		no = sched_model_ctl(fs.sched, c->at.id, c->at.version, line,
				     &e);
		if (no) {
			model_refused(c->uid, &c->at, no, e.text);
			return no;
		}
	}
	return 0;
}

static void *command_thread(void *arg)
{
	struct command *c = arg;
	int no = run_lines(c);
	fuse_req_t r = park_take(c->park);

	if (r && no)
		fuse_reply_err(r, -no);
	else if (r)
		fuse_reply_write(r, c->n);
	command_free(c);
	pthread_mutex_lock(&command_lock);
	commands--;
	pthread_cond_signal(&command_done);
	pthread_mutex_unlock(&command_lock);
	return NULL;
}

/* One more runs, unless there are too many. */
static bool command_begin(void)
{
	bool yes;

	pthread_mutex_lock(&command_lock);
	yes = commands < COMMANDS_MAX && !commands_over;
	commands += yes;
	pthread_mutex_unlock(&command_lock);
	return yes;
}

static int start_thread(struct command *c)
{
	pthread_attr_t a;
	pthread_t t;
	int no;

	pthread_attr_init(&a);
	pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	no = pthread_create(&t, &a, command_thread, c);
	pthread_attr_destroy(&a);
	return no;
}

static void ctl_write(fuse_req_t r, struct handle *h, const char *buf, size_t n,
		      off_t off)
{
	const char *path = h->own;
	struct command *c;
	struct park *p;

	(void)off;
	if (n > DSL_MAX) { /* a DSL may stand in the line */
		fuse_reply_err(r, EMSGSIZE);
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c || model_at(path, &c->at) || !(c->text = strndup(buf, n))) {
		if (c)
			command_free(c);
		fuse_reply_err(r, ESTALE);
		return;
	}
	c->uid = h->uid;
	c->n = n;
	if (!command_begin()) {
		command_free(c);
		fuse_reply_err(r, EAGAIN);
		return;
	}
	p = c->park = park_new(r, NULL, NULL);
	if (!p || start_thread(c)) {
		fuse_req_t mine = p ? park_take(p) : r;

		command_free(c);
		pthread_mutex_lock(&command_lock);
		commands--;
		pthread_mutex_unlock(&command_lock);
		if (mine)
			fuse_reply_err(mine, ENOMEM);
		if (p)
			park_arm(p, 0);
		return;
	}
	park_arm(p, 0);
}

void models_stop(void)
{
	pthread_mutex_lock(&command_lock);
	commands_over = true;
	while (commands)
		pthread_cond_wait(&command_done, &command_lock);
	pthread_mutex_unlock(&command_lock);
}

static void free_own(struct handle *h)
{
	free(h->own);
}

static const struct handle_ops ctl_ops = {
	.write = ctl_write,
	.release = free_own,
};

/* ---- predict/dsl.json of a trained version ------------------------------ */

static int set_dsl(uid_t uid, const struct model_at *a, const char *text,
		   size_t n)
{
	struct err e = { 0 };
	int no = sched_model_set_dsl(fs.sched, a->id, a->version, text, n, &e);

	if (no)
		model_refused(uid, a, no, e.text);
	return no;
}

/* With the handle's lock held. */
static int dsl_store(struct handle *h)
{
	_cleanup_model_at_ struct model_at a = { 0 };
	int no = h->failed;

	if (no || !h->bytes)
		return no;
	no = model_at(h->own, &a);
	if (!no)
		no = set_dsl(h->uid, &a, h->text.buf, h->text.len);
	if (!no)
		ghost_clear(a.path);
	h->failed = no;
	h->bytes = 0;
	return no;
}

static void dsl_write(fuse_req_t r, struct handle *h, const char *buf, size_t n,
		      off_t off)
{
	int no;

	pthread_mutex_lock(&h->lock);
	no = h->failed;
	if (!no && !(h->flags & O_APPEND) && (uint64_t)off != h->text.len)
		no = -EINVAL;
	if (!no && h->text.len + n > DSL_MAX)
		no = -EFBIG;
	if (!no)
		no = sb_add(&h->text, buf, n);
	if (!no)
		h->bytes += n;
	/* A whole object is judged at once: the shells' own echo reports an
	 * error of write, not one of close. */
	if (!no && json_object_shaped(h->text.buf, h->text.len))
		no = dsl_store(h);
	pthread_mutex_unlock(&h->lock);
	if (no)
		fuse_reply_err(r, -no);
	else
		fuse_reply_write(r, n);
}

static void dsl_flush(fuse_req_t r, struct handle *h)
{
	int no = 0;

	pthread_mutex_lock(&h->lock);
	if ((h->bytes || h->failed) && proc_closer(h, r) == CLOSE_OPENER)
		no = dsl_store(h);
	pthread_mutex_unlock(&h->lock);
	fuse_reply_err(r, -no);
}

static void dsl_fsync(fuse_req_t r, struct handle *h)
{
	int no;

	pthread_mutex_lock(&h->lock);
	no = dsl_store(h);
	pthread_mutex_unlock(&h->lock);
	fuse_reply_err(r, -no);
}

static int dsl_truncate(struct handle *h, off_t size)
{
	if (size)
		return -EINVAL;
	pthread_mutex_lock(&h->lock);
	sb_reset(&h->text);
	h->bytes = 0;
	h->failed = 0;
	pthread_mutex_unlock(&h->lock);
	return 0;
}

static void dsl_release(struct handle *h)
{
	if (h->own)
		ghost_clear(h->own); /* what create made of it */
	free(h->own);
}

static const struct handle_ops dsl_ops = {
	.write = dsl_write,
	.flush = dsl_flush,
	.fsync = dsl_fsync,
	.truncate = dsl_truncate,
	.release = dsl_release,
};

/* A handle that remembers its path. */
static int path_open(const struct who *w, struct nid n, int flags,
		     const char *path, const struct handle_ops *ops,
		     struct handle **ret)
{
	struct handle *h = handle_new(w, n, flags, ops);

	if (h)
		h->own = strdup(path);
	if (!h || !h->own) {
		handle_free(h);
		return -ENOMEM;
	}
	*ret = h;
	return 0;
}

/* ---- open ------------------------------------------------------------- */

/* Names that mean something here only: what is written there is forgotten. */
static bool forgotten(const struct model_at *a)
{
	return !strcmp(a->rest, "missing") ||
	       (a->whole && !strcmp(a->rest, "deployed"));
}

/* Also a link that leads nowhere. */
static bool there(const char *disk)
{
	struct stat st;

	return !lstat(disk, &st);
}

static bool own_dsl(const struct model_at *a)
{
	return a->whole && !strcmp(a->rest, MODEL_DSL_PATH) && model_trained(a);
}

static int open_write(const struct who *w, struct nid n,
		      const struct model_at *a, int flags, struct handle **ret)
{
	if (forgotten(a))
		return sink_open(w, n, flags, ret);
	if (!a->whole || name_temporary(a->name))
		return import_open(w, n, a, flags, ret);
	if (own_dsl(a))
		return path_open(w, n, flags, a->path, &dsl_ops, ret);
	return compare_open(w, n, a, flags, ret);
}

int models_open(const struct who *w, struct nid n, int flags,
		struct handle **ret)
{
	_cleanup_free_ char *path = named_path(n.number);
	_cleanup_model_at_ struct model_at a = { 0 };
	int no = path ? model_at(path, &a) : -ESTALE;

	if (no)
		return no;
	if (!a.rest)
		return -EISDIR;
	if (a.whole && !strcmp(a.rest, "ctl"))
		return path_open(w, n, flags, path, &ctl_ops, ret);
	if ((flags & O_ACCMODE) != O_RDONLY)
		return open_write(w, n, &a, flags, ret);
	if (a.coming && !strcmp(a.rest, "missing"))
		return open_text(w, n, flags, import_missing(&a), ret);
	if (ghost_of(path, NULL) == GHOST_FILE)
		return open_text(w, n, flags, NULL, ret);
	return open_disk(w, n, flags, a.disk, false, ret);
}

/* ---- create ----------------------------------------------------------- */

static int refused(const struct who *w, const struct model_at *a, int no,
		   const struct err *e)
{
	model_refused(w->uid, a, no, e->text);
	return no;
}

/* What the name becomes before it is opened. */
static int make(const struct who *w, const struct model_at *a, mode_t mode)
{
	struct err e = { 0 };
	int no;

	ghost_clear(a->path);
	if (!strcmp(a->rest, "missing") || forgotten(a)) {
		ghost_set(a->path, GHOST_FILE, NULL);
		return 0;
	}
	if (a->whole && !strcmp(a->rest, "ctl"))
		return 0;
	if (!a->whole || name_temporary(a->name)) {
		no = import_name(a, false, &e);
		if (!no)
			no = import_create(a, mode, &e);
		return no && e.no ? refused(w, a, no, &e) : no;
	}
	if (there(a->disk)) /* removed and made again: compared */
		return 0;
	if (own_dsl(a)) {
		ghost_set(a->path, GHOST_FILE, NULL);
		return 0;
	}
	no = err_set(&e, EEXIST,
		     "the version is whole and has no file of this name");
	return refused(w, a, no, &e);
}

int models_create(const struct who *w, struct nid dir, const char *name,
		  mode_t mode, int flags, struct attr *ret,
		  struct handle **ret_h)
{
	_cleanup_free_ char *path =
	    model_child(nid_ino(dir.kind, dir.number, dir.slot), name);
	_cleanup_model_at_ struct model_at a = { 0 };
	struct nid n;
	int no = path ? model_at(path, &a) : -ESTALE;

	if (no == -ENOENT)
		return -EPERM; /* a file beside models or versions */
	if (no)
		return no;
	if (!a.rest)
		return -EPERM;
	if (!a.whole && !a.coming)
		return -ENOENT;
	no = make(w, &a, mode);
	if (!no)
		no = model_find(path, dir, ret);
	if (no)
		return no;
	n = ino_nid(ret->st.st_ino);
	flags &= ~(O_EXCL | O_CREAT);
	if ((flags & O_ACCMODE) == O_RDONLY)
		no = models_open(w, n, flags, ret_h);
	else if (!strcmp(a.rest, "ctl") && a.whole)
		no = sink_open(w, n, flags, ret_h); /* of an archive */
	else
		no = open_write(w, n, &a, flags, ret_h);
	if (no)
		named_forget(n, 1);
	return no;
}

int model_mkdir(const struct who *w, const char *name, bool again,
		struct attr *ret)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_model_at_ struct model_at a = { 0 };
	int no;

	if (asprintf(&path, "models/%s", name) < 0)
		return -ENOMEM;
	if (!model_id_valid(name)) {
		errors_add(w->uid, path, -EINVAL,
			   "expected the id of a model, like "
			   "guest-9999#host-10000#model");
		return -EINVAL;
	}
	if (!model_id_has(name, fs.conf->party)) {
		char text[80];

		(void)snprintf(text, sizeof(text),
			       "party %s has no role in this model",
			       fs.conf->party);
		errors_add(w->uid, path, -EACCES, text);
		return -EACCES;
	}
	no = model_at(path, &a);
	if (!no)
		no = import_mkdir(&a);
	return no ? no
		  : model_find(path, (struct nid){ K_MODEL, 0, again }, ret);
}

static int make_dir(const struct who *w, const struct model_at *a)
{
	struct err e = { 0 };
	int no;

	if (!a->rest)
		return a->whole || a->coming ? -EEXIST : import_mkdir(a);
	if (!a->whole && !a->coming)
		return -ENOENT;
	if (a->whole) {
		bool was = ghost_of(a->path, NULL) == GHOST_GONE;

		ghost_clear(a->path);
		if (was && there(a->disk))
			return 0;
		no = err_set(&e, EEXIST,
			     "the version is whole and has no directory of "
			     "this name");
	} else {
		no = import_name(a, true, &e);
		if (!no)
			no = import_mkdir(a);
	}
	return no && e.no ? refused(w, a, no, &e) : no;
}

int models_mkdir(const struct who *w, struct nid dir, const char *name,
		 mode_t mode, struct attr *ret)
{
	_cleanup_free_ char *path =
	    model_child(nid_ino(dir.kind, dir.number, dir.slot), name);
	_cleanup_model_at_ struct model_at a = { 0 };
	int no = path ? model_at(path, &a) : -ESTALE;

	(void)mode;
	if (no == -ENOENT) {
		errors_add(w->uid, path, -EINVAL,
			   "expected a version: 20 to 40 digits");
		return -EINVAL;
	}
	if (!no)
		no = make_dir(w, &a);
	return no ? no : model_find(path, dir, ret);
}

int models_symlink(const struct who *w, struct nid dir, const char *name,
		   const char *to, struct attr *ret)
{
	_cleanup_free_ char *path =
	    model_child(nid_ino(dir.kind, dir.number, dir.slot), name);
	_cleanup_model_at_ struct model_at a = { 0 };
	int no = path ? model_at(path, &a) : -ESTALE;

	(void)w;
	if (no)
		return no;
	if (!a.rest || strcmp(a.rest, "deployed") != 0 ||
	    strncmp(to, "../", 3) != 0 || !model_version_valid(to + 3))
		return -EPERM;
	ghost_clear(path);
	if (a.whole)
		ghost_set(path, GHOST_LINK, to);
	else if (!a.coming)
		return -ENOENT;
	else if (symlink(to, a.disk))
		return -errno;
	return model_find(path, dir, ret);
}

/* ---- remove ----------------------------------------------------------- */

static int unlink_at(uid_t uid, const struct model_at *a)
{
	if (!a->rest)
		return -EISDIR;
	if (a->whole ? name_temporary(a->name)
		     : strcmp(a->rest, "missing") != 0 && there(a->disk))
		return import_unlink(a);
	if (own_dsl(a) && there(a->disk))
		return set_dsl(uid, a, "", 0);
	/* A version goes as a whole, and rm -r comes to its files first. */
	ghost_set(a->path, GHOST_GONE, NULL);
	return 0;
}

int models_unlink(const struct who *w, struct nid dir, const char *name)
{
	_cleanup_free_ char *path =
	    model_child(nid_ino(dir.kind, dir.number, dir.slot), name);
	_cleanup_model_at_ struct model_at a = { 0 };
	int no = path ? model_at(path, &a) : -ESTALE;

	if (!no)
		no = unlink_at(w->uid, &a);
	if (!no)
		named_removed(path);
	return no;
}

static int remove_version(const struct who *w, const struct model_at *a)
{
	_cleanup_free_ char *parent = NULL;
	struct err e = { 0 };
	int no = sched_model_remove(fs.sched, a->id, a->version, &e);

	ghost_clear(a->path); /* also those of a version that stays */
	if (no)
		return refused(w, a, no, &e);
	if (model_import_drop(fs.conf->state, a->id, a->version, &e))
		log_warn("fs", "%s: %s", a->path, e.text);
	/* The directory of the model is left to its own rmdir. */
	parent = model_path(fs.conf->state, a->id, NULL);
	if (parent && mkdir(parent, 0700) && errno != EEXIST)
		log_warn("fs", "%s: %s", parent, strerror(errno));
	return 0;
}

static int rmdir_at(const struct who *w, const struct model_at *a)
{
	int no;

	if (a->whole && !a->rest)
		return remove_version(w, a);
	if (a->whole) {
		ghost_set(a->path, GHOST_GONE, NULL);
		return 0;
	}
	no = import_rmdir(a);
	if (!no && !a->rest)
		ghost_clear(a->path);
	return no;
}

int models_rmdir(const struct who *w, struct nid dir, const char *name)
{
	_cleanup_free_ char *path =
	    model_child(nid_ino(dir.kind, dir.number, dir.slot), name);
	_cleanup_model_at_ struct model_at a = { 0 };
	int no = path ? model_at(path, &a) : -ESTALE;

	if (!no)
		no = rmdir_at(w, &a);
	if (!no)
		named_removed(path);
	return no;
}

int model_rmdir(const struct who *w, const char *name)
{
	_cleanup_free_ char *whole = NULL, *path = NULL;
	_cleanup_model_at_ struct model_at a = { 0 };
	char **versions;
	int no;

	(void)w;
	if (asprintf(&path, "models/%s", name) < 0)
		return -ENOMEM;
	no = model_at(path, &a);
	if (no)
		return no;
	versions = model_versions(fs.conf->state, name);
	if (versions) {
		model_names_free(versions);
		return -ENOTEMPTY;
	}
	/* Either place of it may be missing. */
	whole = model_path(fs.conf->state, name, NULL);
	if (whole && rmdir(whole) && errno != ENOENT)
		return -errno;
	model_at_free(&a);
	no = model_at(path, &a);
	if (!no && rmdir(a.disk) && errno != ENOENT)
		no = -errno;
	if (!no)
		named_removed(path);
	return no;
}

/* ---- rename: what rsync and editors do --------------------------------- */

/* A temporary file gets the name of one of a whole version. */
static int onto_whole(const struct who *w, const struct model_at *a,
		      const struct model_at *b)
{
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT(DSL_MAX);
	struct err e = { 0 };
	int no = 0;

	if (own_dsl(b)) {
		no = file_read(a->disk, &text, &e);
		no = no ? refused(w, b, no, &e)
			: set_dsl(w->uid, b, text.buf, text.len);
	} else if (!forgotten(b) && strcmp(b->rest, "ctl") != 0) {
		no = compare_files(a->disk, b);
		if (no)
			model_refused(w->uid, b, no, MODEL_OTHER_BYTES);
	}
	if (!no)
		ghost_clear(b->path);
	if (!no && unlink(a->disk))
		no = -errno;
	return no;
}

static int rename_at(const struct who *w, const struct model_at *a,
		     const struct model_at *b, bool keep)
{
	struct err e = { 0 };
	int no;

	/* Only what is temporary has a name that may change. */
	if (!a->rest || !b->rest || !name_temporary(a->name) ||
	    strcmp(a->id, b->id) != 0 || strcmp(a->version, b->version) != 0)
		return -EPERM;
	if (!a->whole && !a->coming)
		return -ENOENT;
	if (b->whole && !name_temporary(b->name))
		return onto_whole(w, a, b);
	if (keep && there(b->disk))
		return -EEXIST;
	no = import_name(b, false, &e);
	if (no)
		return refused(w, b, no, &e);
	if (rename(a->disk, b->disk))
		return -errno;
	return b->whole ? 0 : import_renamed(w->uid, b);
}

int models_rename(const struct who *w, struct nid dir, const char *name,
		  struct nid to, const char *to_name, unsigned flags)
{
	_cleanup_free_ char *from =
	    model_child(nid_ino(dir.kind, dir.number, dir.slot), name);
	_cleanup_free_ char *onto = NULL;
	_cleanup_model_at_ struct model_at a = { 0 }, b = { 0 };
	int no;

	if (to.kind != K_MODEL)
		return -EPERM;
	onto = model_child(nid_ino(to.kind, to.number, to.slot), to_name);
	if (!from || !onto)
		return -ESTALE;
	no = model_at(from, &a);
	if (!no)
		no = model_at(onto, &b);
	return no == -ENOENT ? -EPERM
	       : no	     ? no
			     : rename_at(w, &a, &b, flags & 1u);
}

/* ---- size, times, mode ------------------------------------------------ */

int models_truncate(const struct who *w, struct nid n, off_t size)
{
	struct handle *h = NULL;
	int no = models_open(w, n, O_WRONLY | (size ? 0 : O_TRUNC), &h);

	if (!no && h->ops->truncate)
		no = h->ops->truncate(h, size);
	handle_free(h);
	return no;
}

static struct timespec when(int valid, int set, int now,
			    const struct timespec *t)
{
	if (valid & now)
		return (struct timespec){ .tv_nsec = UTIME_NOW };
	return valid & set ? *t : (struct timespec){ .tv_nsec = UTIME_OMIT };
}

/* Times are kept, so that a second rsync sends nothing; the rest is
 * tolerated. */
int models_setattr(const struct who *w, struct nid n, const struct stat *st,
		   int valid)
{
	_cleanup_free_ char *path = named_path(n.number);
	_cleanup_model_at_ struct model_at a = { 0 };
	struct timespec times[2];
	struct stat is;

	(void)w;
	if (!path || model_at(path, &a) || !a.rest || lstat(a.disk, &is) ||
	    (a.whole && !S_ISREG(is.st_mode)))
		return 0;
	times[0] = when(valid, FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW,
			&st->st_atim);
	times[1] = when(valid, FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW,
			&st->st_mtim);
	if (valid & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME))
		(void)utimensat(AT_FDCWD, a.disk, times, AT_SYMLINK_NOFOLLOW);
	return 0;
}
