// SPDX-License-Identifier: Apache-2.0
/* Writing a table: data.csv, the options before it, and what is ignored. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "fs/tables_priv.h"

#define OPTIONS_MAX (64u << 10)

struct upload {
	struct upload *next;
	uint64_t id;
	struct table_upload *u;
	struct table *linked; /* a whole copy of this generation */
	struct table_progress progress;
	bool published;
	bool emptied;	  /* what was there before is to go */
	uint64_t was;	  /* bytes of it, when it is not */
	int64_t mtime_ns; /* data.csv gets it when it is published; 0 = none */
};

static pthread_mutex_t active_lock = PTHREAD_MUTEX_INITIALIZER;
static struct upload *active;

static void active_add(struct upload *x)
{
	pthread_mutex_lock(&active_lock);
	x->next = active;
	active = x;
	pthread_mutex_unlock(&active_lock);
}

static void active_remove(struct upload *x)
{
	struct upload **p = &active;

	pthread_mutex_lock(&active_lock);
	while (*p != x)
		p = &(*p)->next;
	*p = x->next;
	pthread_mutex_unlock(&active_lock);
}

bool upload_active(uint64_t id)
{
	bool found = false;

	pthread_mutex_lock(&active_lock);
	for (const struct upload *x = active; x; x = x->next)
		found |= x->id == id;
	pthread_mutex_unlock(&active_lock);
	return found;
}

void upload_time(uint64_t id, int64_t mtime_ns)
{
	pthread_mutex_lock(&active_lock);
	for (struct upload *x = active; x; x = x->next)
		if (x->id == id && !x->published)
			x->mtime_ns = mtime_ns;
	pthread_mutex_unlock(&active_lock);
}

void upload_progress(uint64_t id, struct strbuf *ret)
{
	pthread_mutex_lock(&active_lock);
	for (struct upload *x = active; x; x = x->next) {
		unsigned long long merged = x->progress.merged;

		if (x->id != id || x->published)
			continue;
		if (merged)
			sb_addf(ret, "sorted %llu of %llu rows", merged,
				(unsigned long long)x->progress.rows);
		else
			sb_addf(ret, "taken %llu rows",
				(unsigned long long)x->progress.rows);
		break;
	}
	pthread_mutex_unlock(&active_lock);
}

/* cp -p, rsync and touch have said what time it has. */
static void set_time(uint64_t id, int64_t mtime_ns)
{
	struct stat st = { .st_mtim = { mtime_ns / 1000000000,
					mtime_ns % 1000000000 } };

	if (mtime_ns && table_attr_set(id, ATTR_DATA, &st, FUSE_SET_ATTR_MTIME))
		log_warn("fs", "the time of a table's data could not be kept");
}

char *options_path(uint64_t id)
{
	char *s = NULL;

	return asprintf(&s, "%s/mount-tmp/upload-%llu.json", fs.conf->state,
			(unsigned long long)id) < 0
		   ? NULL
		   : s;
}

static int begin(uint64_t id, struct table_upload **ret, struct err *e)
{
	_cleanup_free_ char *path = options_path(id);
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT(OPTIONS_MAX);
	json_t *options = NULL;
	int no;

	if (!path)
		return -ENOMEM;
	no = file_read(path, &text, NULL);
	if (no && no != -ENOENT)
		return err_set(e, -no, "upload.json cannot be read");
	if (!no) {
		options = json_parse(text.buf, text.len, e);
		if (!options)
			return err_wrap(e, "upload.json");
	}
	no = table_upload_begin(fs.tables, options, ret, e);
	json_decref(options);
	return no;
}

static struct who who_was(const struct handle *h)
{
	return (struct who){ NULL, h->uid, 0 };
}

/* With the handle's lock held. */
static int upload_failed(struct handle *h, int no, const struct err *e)
{
	struct upload *x = h->own;
	struct who w = who_was(h);

	table_upload_abort(TAKE_PTR(x->u));
	h->failed = no;
	table_refused(&w, x->id, "data.csv", no, e->text);
	return no;
}

static void upload_write(fuse_req_t r, struct handle *h, const char *buf,
			 size_t n, off_t off)
{
	struct upload *x = h->own;
	struct err e = { 0 };
	int no = 0;

	pthread_mutex_lock(&h->lock);
	if (h->failed) {
		no = h->failed;
	} else if ((uint64_t)off != h->bytes || x->published) {
		err_set(&e, EINVAL,
			"a table is written from its start to its end");
		no = upload_failed(h, -EINVAL, &e);
	} else {
		if (!x->u) {
			no = begin(x->id, &x->u, &e);
			if (!no)
				table_upload_watch(x->u, &x->progress);
		}
		if (!no)
			no = table_upload_write(x->u, buf, n, &e);
		if (no)
			upload_failed(h, no, &e);
		else
			h->bytes += n;
	}
	pthread_mutex_unlock(&h->lock);
	if (no)
		fuse_reply_err(r, -no);
	else
		fuse_reply_write(r, n);
}

/* Who opens a file without emptying it, and writes less than was there, keeps
 * the rest of it in any other directory; this one has no such rest. */
static int check_whole(const struct handle *h, struct err *e)
{
	const struct upload *x = h->own;

	if (x->emptied || h->bytes >= x->was)
		return 0;
	return err_set(e, EINVAL,
		       "the first %llu of its %llu bytes were written, without "
		       "emptying it: a table is written whole",
		       (unsigned long long)h->bytes,
		       (unsigned long long)x->was);
}

/* With the lock held. */
static int publish(struct handle *h)
{
	_cleanup_table_place_ struct table_place p = { 0 };
	struct upload *x = h->own;
	struct err e = { 0 };
	int64_t mtime_ns;
	int no;

	if (x->published || (!x->u && !x->linked))
		return 0; /* nothing was written, or told already */
	no = table_place(x->id, &p);
	if (no)
		err_set(&e, -no, "the table has gone");
	else
		no = check_whole(h, &e);
	if (no) {
		table_upload_abort(TAKE_PTR(x->u));
	} else if (x->linked) {
		no = table_link(x->linked, p.ns, p.name, &e);
	} else {
		no = table_upload_publish(TAKE_PTR(x->u), p.ns, p.name, &e);
	}
	if (no)
		return upload_failed(h, no, &e);
	pthread_mutex_lock(&active_lock);
	x->published = true;
	mtime_ns = x->mtime_ns;
	pthread_mutex_unlock(&active_lock);
	set_time(x->id, mtime_ns);
	if (h->flags & O_EXCL)
		table_copier_add(h->opener, x->id);
	watch_changed(x->id);
	return 0;
}

int upload_link(struct handle *h, struct table *t)
{
	struct upload *x;
	int no = 0;

	if (h->nid.slot != T_WRITE || !h->own)
		return -EOPNOTSUPP;
	x = h->own;
	pthread_mutex_lock(&h->lock);
	if (h->failed || x->u || x->linked || h->bytes) {
		no = -EOPNOTSUPP;
	} else {
		x->linked = table_ref(t);
		h->bytes = table_csv_size(t);
	}
	pthread_mutex_unlock(&h->lock);
	return no;
}

/* Who closes a large table may be ended meanwhile: nothing is published. */
static void on_interrupt(fuse_req_t r, void *arg)
{
	struct upload *x = arg;

	if (proc_being_killed(fuse_req_ctx(r)->pid))
		x->progress.stop = true;
}

static int publish_for(fuse_req_t r, struct handle *h)
{
	int no;

	fuse_req_interrupt_func(r, on_interrupt, h->own);
	no = publish(h);
	fuse_req_interrupt_func(r, NULL, NULL);
	return no;
}

/*
 * Sorting a large table takes its time: this is in a thread of its own.  The
 * answer is for the kernel, which has to hear of the new rows first.
 */
static void close_it(fuse_req_t r, struct handle *h)
{
	int no;

	pthread_mutex_lock(&h->lock);
	no = h->failed ? h->failed : publish_for(r, h);
	pthread_mutex_unlock(&h->lock);
	notify_reply(r, no);
}

static void upload_flush(fuse_req_t r, struct handle *h)
{
	const struct upload *x = h->own;
	enum closer who;
	int no = 0;
	bool full;

	pthread_mutex_lock(&h->lock);
	full = h->bytes && !h->failed;
	who = full || x->emptied ? proc_closer(h, r) : CLOSE_OTHER;
	/* Nothing at all where a table was to be: there is no header.
	 * Shells flush before the first byte and ignore the answer. */
	if (!h->bytes && !h->failed && who == CLOSE_OPENER)
		no = -EINVAL;
	if (full && who == CLOSE_KILLED)
		h->killed = true;
	pthread_mutex_unlock(&h->lock);
	if (full && who == CLOSE_OPENER)
		handle_aside(r, h, close_it);
	else
		fuse_reply_err(r, -no);
}

/* More may come: half a file is no table.  What is durable is told by close. */
static void upload_fsync(fuse_req_t r, struct handle *h)
{
	int no;

	pthread_mutex_lock(&h->lock);
	no = h->failed;
	pthread_mutex_unlock(&h->lock);
	fuse_reply_err(r, -no);
}

static void upload_read(fuse_req_t r, struct handle *h, size_t n, off_t off,
			struct fuse_file_info *fi)
{
	(void)h, (void)n, (void)off, (void)fi;
	fuse_reply_buf(r, NULL, 0); /* what is being written is not yet */
}

static int upload_truncate(struct handle *h, off_t size)
{
	struct upload *x = h->own;
	int no = 0;

	pthread_mutex_lock(&h->lock);
	if (!size && !x->published) {
		table_upload_abort(TAKE_PTR(x->u));
		table_unref(TAKE_PTR(x->linked));
		x->progress.rows = 0;
		x->progress.merged = 0;
		h->bytes = 0;
		h->failed = 0;
		x->emptied = true;
	} else if ((uint64_t)size == h->bytes) {
		x->emptied = true;
	} else {
		no = -EINVAL;
	}
	pthread_mutex_unlock(&h->lock);
	return no;
}

static void upload_release(struct handle *h)
{
	struct upload *x = h->own;

	if (!h->bytes && !h->failed && !h->killed && x->emptied) {
		struct who w = who_was(h);

		table_refused(
		    &w, x->id, "data.csv", -EINVAL,
		    "line 1: the header is missing, for the file is "
		    "empty (rm data.csv empties a table; "
		    "numpy.savetxt wants an open file, not its name)");
	}
	/* The descriptor went on to another process, which is done now. */
	if (!h->killed && !h->failed && publish(h))
		log_warn("fs", "a table was refused after its writer had gone");
	table_upload_abort(x->u);
	table_unref(x->linked);
	active_remove(x);
	free(x);
}

static const struct handle_ops upload_ops = {
	.read = upload_read,
	.write = upload_write,
	.flush = upload_flush,
	.fsync = upload_fsync,
	.truncate = upload_truncate,
	.release = upload_release,
};

int upload_open(const struct who *w, uint64_t id, int flags,
		struct handle **ret)
{
	struct upload *x = calloc(1, sizeof(*x));
	_cleanup_table_ struct table *t = NULL;
	struct handle *h;

	if (!x)
		return -ENOMEM;
	h = handle_new(w, (struct nid){ K_TABLE, id, T_WRITE }, flags,
		       &upload_ops);
	if (!h) {
		free(x);
		return -ENOMEM;
	}
	x->id = id;
	/* touch(1) empties nothing. */
	x->emptied = flags & (O_TRUNC | O_EXCL);
	if (!x->emptied && !table_now(id, &t) && t)
		x->was = table_csv_size(t);
	h->own = x;
	active_add(x);
	*ret = h;
	return 0;
}

/* As any rename does: it has the mode that chmod gave it, from the start. */
static int bring_mode(uint64_t id, const char *path)
{
	struct stat st = { 0 };

	return real_chmoded(path, &st.st_mode)
		   ? table_attr_set(id, ATTR_DATA, &st, FUSE_SET_ATTR_MODE)
		   : 0;
}

static int publish_file(struct upload *x, int fd, const char *path,
			struct err *e)
{
	_cleanup_table_place_ struct table_place p = { 0 };
	_cleanup_free_ char *buf = malloc(256u << 10);
	ssize_t k = 0;
	int no = buf ? table_place(x->id, &p) : -ENOMEM;

	if (!no)
		no = begin(x->id, &x->u, e);
	if (!no)
		table_upload_watch(x->u, &x->progress);
	while (!no && !x->progress.stop && (k = read(fd, buf, 256u << 10)) > 0)
		no = table_upload_write(x->u, buf, (size_t)k, e);
	if (!no && k < 0)
		no = err_set(e, errno, "the file cannot be read");
	if (!no)
		no = bring_mode(x->id, path);
	if (!no)
		return table_upload_publish(TAKE_PTR(x->u), p.ns, p.name, e);
	table_upload_abort(TAKE_PTR(x->u));
	return no;
}

int upload_file(const struct who *w, uint64_t id, const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct upload x = { .id = id };
	struct err e = { 0 };
	struct stat st;
	int no;

	if (fd < 0 || fstat(fd, &st))
		return -errno;
	active_add(&x);
	fuse_req_interrupt_func(w->req, on_interrupt, &x);
	no = publish_file(&x, fd, path, &e);
	fuse_req_interrupt_func(w->req, NULL, NULL);
	active_remove(&x);
	if (no) {
		table_refused(w, id, "data.csv", no, e.text);
		return no;
	}
	/* A file keeps its time when it is renamed. */
	set_time(id, st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec);
	watch_changed(id);
	return 0;
}

/* ---- upload.json: small, kept whole, replaced at close ---------------- */

/* Is it one? Told in errors if not. */
static int options_check(const struct who *w, uint64_t id, const char *text,
			 size_t n)
{
	struct err e = { 0 };
	json_t *v = json_parse(text, n, &e);
	int no = v ? table_upload_check(v, &e) : -EINVAL;

	json_decref(v);
	if (no)
		table_refused(w, id, "upload.json", no, e.text);
	return no;
}

static bool options_whole(const struct handle *h)
{
	struct err e = { 0 };
	json_t *v = json_parse(h->text.buf, h->text.len, &e);

	json_decref(v);
	return v != NULL;
}

static void options_write(fuse_req_t r, struct handle *h, const char *buf,
			  size_t n, off_t off)
{
	int no = 0;

	pthread_mutex_lock(&h->lock);
	if ((uint64_t)off != h->text.len)
		no = -EINVAL;
	else if (h->text.len + n > OPTIONS_MAX)
		no = -EFBIG;
	else
		no = sb_add(&h->text, buf, n);
	if (!no)
		h->bytes += n;
	/* A shell's echo tells of a failed write, not of a failed close. */
	if (!no && options_whole(h)) {
		struct who who = who_was(h);

		no = options_check(&who, h->nid.number, h->text.buf,
				   h->text.len);
	}
	pthread_mutex_unlock(&h->lock);
	if (no)
		reply_refused(r, h, no);
	else
		fuse_reply_write(r, n);
}

static int options_store(struct handle *h)
{
	_cleanup_free_ char *path = options_path(h->nid.number);
	struct who w = who_was(h);
	struct err e = { 0 };
	int no, wrong;

	if (!h->bytes)
		return 0;
	wrong = options_check(&w, h->nid.number, h->text.buf, h->text.len);
	/* A wrong one stays as well: data.csv is refused until it is mended or
	 * removed, and not taken as if there were none. */
	no = path ? file_replace(path, h->text.buf, h->text.len, 0600, true, &e)
		  : -ENOMEM;
	if (no)
		table_refused(&w, h->nid.number, "upload.json", no, e.text);
	return wrong ? wrong : no;
}

int options_file(const struct who *w, uint64_t id, const char *path)
{
	_cleanup_free_ char *to = options_path(id);
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT(OPTIONS_MAX);
	int no = to ? file_read(path, &text, NULL) : -ENOMEM;

	if (!no)
		no = options_check(w, id, text.buf, text.len);
	return no ? no : rename(path, to) ? -errno : 0;
}

static void options_flush(fuse_req_t r, struct handle *h)
{
	int no = 0;

	pthread_mutex_lock(&h->lock);
	if (h->bytes && proc_closer(h, r) == CLOSE_OPENER)
		no = options_store(h);
	pthread_mutex_unlock(&h->lock);
	reply_refused(r, h, no);
}

static const struct handle_ops options_ops = {
	.write = options_write,
	.flush = options_flush,
};

int options_open(const struct who *w, uint64_t id, int flags,
		 struct handle **ret)
{
	struct nid n = { K_TABLE, id, T_OPTIONS };
	_cleanup_free_ char *path = options_path(id);

	if (!path)
		return -ENOMEM;
	if ((flags & O_ACCMODE) == O_RDONLY)
		return open_disk(w, n, flags, path, true, ret);
	*ret = handle_new(w, n, flags, &options_ops);
	return *ret ? 0 : -ENOMEM;
}

/* ---- derived files that cp -r writes ---------------------------------- */

static void sink_write(fuse_req_t r, struct handle *h, const char *buf,
		       size_t n, off_t off)
{
	(void)h, (void)buf, (void)off;
	fuse_reply_write(r, n);
}

static int sink_truncate(struct handle *h, off_t size)
{
	(void)h, (void)size;
	return 0;
}

static void sink_flush(fuse_req_t r, struct handle *h)
{
	table_copier_goes_on(h->opener, h->nid.number);
	fuse_reply_err(r, 0);
}

static const struct handle_ops sink_ops = {
	.write = sink_write,
	.flush = sink_flush,
	.truncate = sink_truncate,
};

int sink_open(const struct who *w, struct nid n, int flags, struct handle **ret)
{
	*ret = handle_new(w, n, flags, &sink_ops);
	return *ret ? 0 : -ENOMEM;
}

bool sink_is(const struct handle *h)
{
	return h->ops == &sink_ops;
}
