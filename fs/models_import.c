// SPDX-License-Identifier: Apache-2.0
/*
 * A version that comes from outside (tar, cp -r, rsync), file by file in any
 * order.  Files stand in the store's .import/ as they are written; each is
 * looked at when it is closed.  Once info.json is there, a file that is not
 * what it says is refused and removed; before that, when info.json is closed.
 * With the last file the store takes the version over.
 *
 * struct import is what is known of one such version: made when it is first
 * asked for, from what is on disk, so that a death of rollfs loses nothing.
 * Its lock is held while files are digested; the table's lock is taken inside
 * it, never around it.
 */
#include <fcntl.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <sys/stat.h>
#include <uthash.h>

#include "fs/models_priv.h"

/* The analyzer does not follow what a hash table keeps. */
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

struct writer {
	struct writer *next;   /* of the import; its lock */
	struct import *import; /* NULL: a temporary name in a whole version */
	struct model_at at;
	bool settled; /* closed, and nothing was written since */
};

struct import {
	char *key, *id, *version, *dir;
	unsigned refs;	   /* table_lock */
	pthread_mutex_t m; /* guards what follows */
	bool loaded, gone;
	struct model_files *files; /* NULL: no info.json that is right */
	size_t due;		   /* files that are not good */
	long entries;		   /* files and directories; -1 = not counted */
	char *trouble;		   /* why the store did not take all of it */
	struct writer *writers;
	UT_hash_handle hh;
};
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static struct import *imports;

static void import_free(struct import *x)
{
	free(x->key);
	free(x->id);
	free(x->version);
	free(x->dir);
	free(x->trouble);
	model_files_free(x->files);
	pthread_mutex_destroy(&x->m);
	free(x);
}

static struct import *import_new(const struct model_at *a, const char *key)
{
	struct import *x = calloc(1, sizeof(*x));

	if (!x)
		return NULL;
	pthread_mutex_init(&x->m, NULL);
	x->entries = -1;
	x->key = strdup(key);
	x->id = strdup(a->id);
	x->version = strdup(a->version);
	x->dir = model_import_path(fs.conf->state, a->id, a->version);
	if (x->key && x->id && x->version && x->dir)
		return x;
	import_free(x);
	return NULL;
}

static struct import *import_get(const struct model_at *a)
{
	_cleanup_free_ char *key = NULL;
	struct import *x;

	if (asprintf(&key, "%s/%s", a->id, a->version) < 0)
		return NULL;
	pthread_mutex_lock(&table_lock);
	HASH_FIND_STR(imports, key, x);
	if (!x && (x = import_new(a, key)))
		HASH_ADD_KEYPTR(hh, imports, x->key, strlen(x->key), x);
	if (x)
		x->refs++;
	pthread_mutex_unlock(&table_lock);
	return x;
}

static void import_put(struct import *x)
{
	bool last;

	if (!x)
		return;
	pthread_mutex_lock(&table_lock);
	last = !--x->refs && x->gone;
	pthread_mutex_unlock(&table_lock);
	if (last)
		import_free(x);
}

/* With its lock held: whoever asks from now on gets another. */
static void import_end(struct import *x)
{
	pthread_mutex_lock(&table_lock);
	if (!x->gone)
		HASH_DEL(imports, x);
	x->gone = true;
	pthread_mutex_unlock(&table_lock);
}

/* ---- one file ----------------------------------------------------------- */

static char *disk_of(const struct import *x, const char *rest)
{
	char *s = NULL;

	return asprintf(&s, "%s/%s", x->dir, rest) < 0 ? NULL : s;
}

static int digest(const struct strbuf *text, char ret[65])
{
	unsigned char sum[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	if (EVP_Digest(text->buf, text->len, sum, &n, EVP_sha256(), NULL) != 1)
		return -EIO;
	for (unsigned i = 0; i < 32; i++)
		(void)snprintf(ret + (size_t)2 * i, 3, "%02x", sum[i]);
	return 0;
}

/* 0, -ENOENT when it has not come, -EBADMSG with what differs. */
static int check_file(const struct import *x, const struct model_file *f,
		      struct err *e)
{
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT(MODEL_FILE_MAX);
	_cleanup_free_ char *disk = disk_of(x, f->path);
	char sum[65];
	struct stat st;
	int no;

	if (!disk)
		return err_set(e, ENOMEM, "no memory");
	if (lstat(disk, &st) || !S_ISREG(st.st_mode))
		return err_set(e, ENOENT, "%s has not come", f->path);
	if (!st.st_size && f->size) /* made, and nothing written yet */
		return err_set(e, ENOENT, "%s is empty", f->path);
	if ((uint64_t)st.st_size != f->size)
		return err_set(e, EBADMSG,
			       "%s has %lld bytes, info.json says %llu",
			       f->path, (long long)st.st_size,
			       (unsigned long long)f->size);
	no = file_read(disk, &text, e);
	if (!no && digest(&text, sum))
		no = err_set(e, EIO, "no SHA-256");
	if (no)
		return no;
	if (strcmp(sum, f->sha256))
		return err_set(e, EBADMSG,
			       "%s has the SHA-256 %s, info.json says %s",
			       f->path, sum, f->sha256);
	if (!json_object_shaped(text.buf, text.len))
		return err_set(e, EBADMSG, "%s is no JSON object", f->path);
	return 0;
}

static bool written(const struct import *x, const char *rest)
{
	for (const struct writer *w = x->writers; w; w = w->next)
		if (!w->settled && !strcmp(w->at.rest, rest))
			return true;
	return false;
}

static int look_at(struct import *x, struct model_file *f, struct err *e)
{
	int no = check_file(x, f, e);

	if (!no && !f->good) {
		f->good = true;
		x->due--;
	}
	if (no == -EBADMSG) {
		_cleanup_free_ char *disk = disk_of(x, f->path);

		if (disk)
			(void)unlink(disk);
	}
	return no;
}

/* ---- the whole ---------------------------------------------------------- */

static int load_info(struct import *x, struct err *e)
{
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT(MODEL_INFO_MAX);
	_cleanup_free_ char *disk = disk_of(x, "info.json");
	struct model_files *files = NULL;
	struct stat st;
	int no;

	model_files_free(TAKE_PTR(x->files));
	x->due = 0;
	if (!disk)
		return err_set(e, ENOMEM, "no memory");
	if (lstat(disk, &st) || !st.st_size || written(x, "info.json"))
		return 0; /* comes later */
	no = file_read(disk, &text, e);
	if (!no)
		no = model_files_parse(text.buf, text.len, fs.conf->party,
				       x->id, x->version, &files, e);
	if (no || !files) {
		err_wrap(e, "info.json");
		(void)unlink(disk);
		return no;
	}
	x->files = files;
	x->due = files->n;
	return 0;
}

/* With the lock held: from the disk.  What is wrong there is removed and
 * named. */
static int load(struct import *x, struct err *e)
{
	_cleanup_strbuf_ struct strbuf bad = STRBUF_INIT(sizeof(e->text) - 1);
	const struct model_files *all;
	int no = load_info(x, e), first = 0;

	if (no)
		return no;
	x->loaded = true;
	all = x->files;
	free(TAKE_PTR(x->trouble));
	for (size_t i = 0; all && i < all->n; i++) {
		struct model_file *f = &all->of[i];
		struct err why = { 0 };

		if (written(x, f->path))
			continue;
		no = look_at(x, f, &why);
		if (!no || no == -ENOENT)
			continue;
		first = first ? first : no;
		(void)sb_addf(&bad, "%s%s", bad.len ? "\n" : "", why.text);
	}
	return first ? err_set(e, -first, "%s", bad.buf) : 0;
}

/* With the lock held: somebody changes or removes the file. */
static void unmark(struct import *x, const char *rest)
{
	struct model_file *f;

	if (!strcmp(rest, "info.json")) {
		struct err e = { 0 };

		/* What is left half-written goes now, by what info.json has
		 * said: the next one shall not be blamed for it. */
		if (!x->loaded && load(x, &e))
			log_info("fs", "model %s %s: %s", x->id, x->version,
				 e.text);
		model_files_free(TAKE_PTR(x->files));
		x->due = 0;
		x->loaded = false;
		return;
	}
	f = x->files ? model_files_find(x->files, rest) : NULL;
	if (f && f->good) {
		f->good = false;
		x->due++;
	}
}

/* What no version keeps: `ctl`, `deployed`, temporary names.  The store looks
 * at an own predict DSL. */
static void sweep(const struct import *x, const char *below)
{
	_cleanup_free_ char *dir = disk_of(x, below);
	_cleanup_closedir_ DIR *d = dir ? opendir(dir) : NULL;
	const struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *rest = NULL, *disk = NULL;

		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		if (asprintf(&rest, "%s%s%s", below, *below ? "/" : "",
			     de->d_name) < 0 ||
		    !(disk = disk_of(x, rest)))
			continue;
		if (de->d_type == DT_DIR) {
			sweep(x, rest);
			(void)rmdir(disk); /* when it is empty */
		} else if (strcmp(rest, "info.json") &&
			   strcmp(rest, MODEL_DSL_PATH) &&
			   !model_files_find(x->files, rest)) {
			(void)unlink(disk);
		}
	}
}

/* With the lock held: everything has come. */
static int publish(struct import *x, struct err *e)
{
	int no;

	sweep(x, "");
	no = sched_model_import(fs.sched, x->id, x->version, e);
	if (no <= 0) {
		if (!no)
			no = err_set(e, EIO, "the store finds it unfinished");
		free(x->trouble);
		x->trouble = strdup(e->text);
		return no;
	}
	log_info("fs", "model %s %s was imported", x->id, x->version);
	import_end(x);
	return 0;
}

/* With the lock held: the file of that name is finished. */
static int settle(struct import *x, const char *rest, struct err *e)
{
	struct model_file *f;
	int no = 0;

	if (x->gone)
		return 0;
	if (!x->loaded || !strcmp(rest, "info.json"))
		no = load(x, e);
	else if (x->files && (f = model_files_find(x->files, rest)))
		no = look_at(x, f, e);
	else if (x->files && strcmp(rest, MODEL_DSL_PATH)) {
		_cleanup_free_ char *disk = disk_of(x, rest);

		if (disk)
			(void)unlink(disk);
		no = err_set(e, EPERM, "info.json does not list %s", rest);
	}
	if (!no && x->files && !x->due)
		no = publish(x, e);
	return no;
}

/* Names that come with an archive and mean nothing here. */
static bool passive(const struct model_at *a)
{
	return !strcmp(a->rest, "ctl") || !strcmp(a->rest, "deployed") ||
	       name_temporary(a->name);
}

static int settle_at(uid_t uid, struct import *x, const struct model_at *a)
{
	struct err e = { 0 };
	int no;

	if (passive(a))
		return 0;
	no = settle(x, a->rest, &e);
	if (no)
		model_refused(uid, a, no, e.text);
	return no;
}

char *import_missing(const struct model_at *a)
{
	struct strbuf sb = STRBUF_INIT(16u << 20);
	struct import *x = import_get(a);
	struct err e = { 0 };

	if (!x)
		return NULL;
	pthread_mutex_lock(&x->m);
	if (!x->loaded && load(x, &e))
		log_warn("fs", "model %s %s: %s", x->id, x->version, e.text);
	/* All had come when rollfs died. */
	if (!x->gone && x->files && !x->due && !x->trouble && publish(x, &e))
		log_warn("fs", "model %s %s: %s", x->id, x->version, e.text);
	if (!x->gone && !x->files)
		(void)sb_adds(&sb, "info.json\n");
	for (size_t i = 0; !x->gone && x->files && i < x->files->n; i++)
		if (!x->files->of[i].good)
			(void)sb_addf(&sb, "%s\n", x->files->of[i].path);
	if (!x->gone && x->trouble)
		(void)sb_addf(&sb, "%s\n", x->trouble);
	pthread_mutex_unlock(&x->m);
	import_put(x);
	return sb_detach(&sb);
}

/* ---- names -------------------------------------------------------------- */

/* Could a file of a version be in it or below it? */
static bool dir_valid(const char *rest)
{
	static const char *const in[] = { "dsl.json", "meta.json",
					  "c/meta.json", "1/meta.json" };

	for (size_t i = 0; i < ARRAY_SIZE(in); i++) {
		_cleanup_free_ char *path = NULL;

		if (asprintf(&path, "%s/%s", rest, in[i]) >= 0 &&
		    model_file_name_valid(path))
			return true;
	}
	return false;
}

/* "guest-10000/..." in the mount of 9999. */
static bool foreign(const char *rest)
{
	const char *own = fs.conf->party;
	size_t end = strcspn(rest, "/"), k = strcspn(rest, "-");

	return k < end && (end - k - 1 != strlen(own) ||
			   memcmp(rest + k + 1, own, strlen(own)) != 0);
}

int import_name(const struct model_at *a, bool dir, struct err *e)
{
	_cleanup_free_ char *parent = NULL;
	const char *slash = strrchr(a->rest, '/');
	bool ok;

	if (!utf8_valid(a->name, strlen(a->name)))
		return err_set(e, EINVAL, "the name is no UTF-8");
	if (dir) {
		ok = dir_valid(a->rest);
	} else if (name_temporary(a->name)) {
		if (slash)
			parent = strndup(a->rest, (size_t)(slash - a->rest));
		ok = !slash || (parent && dir_valid(parent));
	} else {
		ok = model_file_name_valid(a->rest) || passive(a);
	}
	if (!ok)
		return err_set(e, EPERM, "no version has a %s of this name",
			       dir ? "directory" : "file");
	if (strchr(a->rest, '-') && !name_temporary(a->name) &&
	    foreign(a->rest))
		return err_set(e, EACCES,
			       "it is another party's, this is party %s",
			       fs.conf->party);
	return 0;
}

static long count(const char *dir)
{
	_cleanup_closedir_ DIR *d = opendir(dir);
	const struct dirent *de;
	long n = 0;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *path = NULL;

		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		n++;
		if (de->d_type == DT_DIR &&
		    asprintf(&path, "%s/%s", dir, de->d_name) >= 0)
			n += count(path);
	}
	return n;
}

/* With the lock held. A directory for each file is more than any has. */
static int take_room(struct import *x)
{
	if (x->entries < 0)
		x->entries = count(x->dir);
	if (x->entries >= 2l * MODEL_FILES_MAX)
		return -EDQUOT;
	x->entries++;
	return 0;
}

static mode_t mode_kept(const struct model_at *a, mode_t mode)
{
	return !strcmp(a->name, "meta.json") || !strcmp(a->name, "param.json")
		   ? 0600
		   : (mode & 0644) | 0600;
}

static int parents(const char *path)
{
	_cleanup_free_ char *dir = strdup(path);
	char *slash = dir ? strrchr(dir, '/') : NULL;

	if (!slash)
		return -ENOMEM;
	*slash = '\0';
	return mkdir_p(dir, 0700, NULL);
}

int import_create(const struct model_at *a, mode_t mode, struct err *e)
{
	struct import *x = import_get(a);
	int fd, no = x ? 0 : -ENOMEM;

	if (no)
		return no;
	if (a->whole) {
		no = parents(a->disk);
	} else {
		pthread_mutex_lock(&x->m);
		no = take_room(x);
		pthread_mutex_unlock(&x->m);
		if (no)
			(void)err_set(e, EDQUOT,
				      "a version has at most %d files",
				      MODEL_FILES_MAX);
	}
	import_put(x);
	if (no)
		return no;
	fd = open(a->disk, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
		  mode_kept(a, mode));
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

int import_mkdir(const struct model_at *a)
{
	struct import *x = NULL;
	int no = 0;

	if (a->rest) {
		x = import_get(a);
		if (!x)
			return -ENOMEM;
		pthread_mutex_lock(&x->m);
		no = take_room(x);
		pthread_mutex_unlock(&x->m);
		import_put(x);
	} else {
		no = parents(a->disk);
	}
	if (!no && mkdir(a->disk, 0700))
		no = -errno;
	return no;
}

int import_unlink(const struct model_at *a)
{
	struct import *x = import_get(a);
	int no = 0;

	if (!x)
		return -ENOMEM;
	pthread_mutex_lock(&x->m);
	unmark(x, a->rest);
	if (unlink(a->disk) && errno != ENOENT)
		no = -errno;
	else
		x->entries -= x->entries > 0;
	pthread_mutex_unlock(&x->m);
	import_put(x);
	return no;
}

int import_rmdir(const struct model_at *a)
{
	struct import *x = import_get(a);
	int no = 0;

	if (!x)
		return -ENOMEM;
	pthread_mutex_lock(&x->m);
	if (rmdir(a->disk))
		no = -errno;
	else if (a->rest)
		x->entries -= x->entries > 0;
	else
		import_end(x);
	pthread_mutex_unlock(&x->m);
	import_put(x);
	return no;
}

int import_renamed(uid_t uid, const struct model_at *a)
{
	struct import *x = import_get(a);
	int no;

	if (!x)
		return -ENOMEM;
	pthread_mutex_lock(&x->m);
	unmark(x, a->rest);
	no = settle_at(uid, x, a);
	pthread_mutex_unlock(&x->m);
	import_put(x);
	return no;
}

/* ---- open files --------------------------------------------------------- */

/* With the handle's lock held: before a byte changes. */
static int begin_change(struct handle *h)
{
	struct writer *w = h->own;
	struct import *x = w->import;
	int no = 0;

	if (h->failed || !x)
		return h->failed;
	pthread_mutex_lock(&x->m);
	if (x->gone)
		no = -EBUSY; /* it has become a version */
	else
		unmark(x, w->at.rest);
	w->settled = false;
	pthread_mutex_unlock(&x->m);
	return no;
}

static void import_write(fuse_req_t r, struct handle *h, const char *buf,
			 size_t n, off_t off)
{
	struct writer *w = h->own;
	uint64_t max =
	    !strcmp(w->at.rest, "info.json") ? MODEL_INFO_MAX : MODEL_FILE_MAX;
	struct stat st;
	int no;

	pthread_mutex_lock(&h->lock);
	no = begin_change(h);
	if (!no && (h->flags & O_APPEND) && !fstat(h->fd, &st))
		off = st.st_size;
	if (!no && (uint64_t)off + n > max) {
		char text[80];

		(void)snprintf(text, sizeof(text), "longer than %llu MiB",
			       (unsigned long long)(max >> 20));
		no = h->failed = -EFBIG;
		model_refused(h->uid, &w->at, no, text);
	}
	if (!no)
		no = pwrite_all(h->fd, buf, n, (uint64_t)off);
	if (!no)
		h->bytes += n;
	pthread_mutex_unlock(&h->lock);
	if (no)
		fuse_reply_err(r, -no);
	else
		fuse_reply_write(r, n);
}

static int import_truncate(struct handle *h, off_t size)
{
	int no;

	pthread_mutex_lock(&h->lock);
	no = begin_change(h);
	if (!no && (uint64_t)size > MODEL_FILE_MAX)
		no = -EFBIG;
	if (!no && ftruncate(h->fd, size))
		no = -errno;
	pthread_mutex_unlock(&h->lock);
	return no;
}

/* With the handle's lock held. */
static int finish(struct handle *h)
{
	struct writer *w = h->own;
	int no = h->failed;

	if (no || !w->import || w->settled)
		return no;
	pthread_mutex_lock(&w->import->m);
	w->settled = true;
	no = settle_at(h->uid, w->import, &w->at);
	pthread_mutex_unlock(&w->import->m);
	return no;
}

static void import_flush(fuse_req_t r, struct handle *h)
{
	int no = 0;

	pthread_mutex_lock(&h->lock);
	/* Shells flush before the first byte. */
	if (h->bytes || h->failed) {
		switch (proc_closer(h, r)) {
		case CLOSE_KILLED:
			h->killed = true;
			break;
		case CLOSE_OPENER:
			no = finish(h);
			break;
		case CLOSE_OTHER:
			break;
		}
	}
	pthread_mutex_unlock(&h->lock);
	fuse_reply_err(r, -no);
}

static void import_fsync(fuse_req_t r, struct handle *h)
{
	fuse_reply_err(r, fsync(h->fd) ? errno : 0);
}

static void import_release(struct handle *h)
{
	struct writer *w = h->own, **p;
	struct import *x = w->import;

	/* One whose descriptor was passed on. */
	if (h->bytes && !h->killed && !h->failed && finish(h))
		log_warn("fs", "%s was refused", w->at.path);
	if (x) {
		pthread_mutex_lock(&x->m);
		for (p = &x->writers; *p; p = &(*p)->next)
			if (*p == w) {
				*p = w->next;
				break;
			}
		pthread_mutex_unlock(&x->m);
		import_put(x);
	}
	model_at_free(&w->at);
	free(w);
}

static const struct handle_ops import_ops = {
	.write = import_write,
	.flush = import_flush,
	.fsync = import_fsync,
	.truncate = import_truncate,
	.release = import_release,
};

/* Whom the import has to wait for. */
static void join(struct writer *w)
{
	struct import *x = w->import;

	pthread_mutex_lock(&x->m);
	unmark(x, w->at.rest);
	w->next = x->writers;
	x->writers = w;
	pthread_mutex_unlock(&x->m);
}

int import_open(const struct who *w, struct nid n, const struct model_at *a,
		int flags, struct handle **ret)
{
	struct writer *x = calloc(1, sizeof(*x));
	struct handle *h = NULL;
	int no = x ? model_at(a->path, &x->at) : -ENOMEM;

	if (!no && !a->whole && !(x->import = import_get(a)))
		no = -ENOMEM;
	if (!no && !(h = handle_new(w, n, flags, &import_ops)))
		no = -ENOMEM;
	if (no) {
		if (x) {
			import_put(x->import);
			model_at_free(&x->at);
		}
		free(x);
		return no;
	}
	h->own = x;
	if (x->import)
		join(x);
	h->fd =
	    open(a->disk, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (flags & O_TRUNC));
	if (h->fd < 0) {
		no = -errno;
		handle_free(h);
		return no;
	}
	*ret = h;
	return 0;
}
