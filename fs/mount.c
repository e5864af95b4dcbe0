// SPDX-License-Identifier: Apache-2.0
/* FUSE's requests, handed out to the tree of the node's kind. */
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "fs/mount_priv.h"

struct fs fs;

static const struct tree *const trees[KINDS] = {
	[K_STATIC] = &tree_static,  [K_JOB] = &tree_jobs,
	[K_TASK] = &tree_tasks,	    [K_NAMESPACE] = &tree_tables,
	[K_TABLE] = &tree_tables,   [K_DATA] = &tree_data,
	[K_COLUMN] = &tree_columns, [K_PARTY] = &tree_parties,
	[K_PEER] = &tree_peers,	    [K_COMPONENT] = &tree_components,
	[K_REAL] = &tree_real,	    [K_ROW] = &tree_rows,
	[K_CURVE] = &tree_curves,   [K_MODEL] = &tree_models,
};
static const struct tree nothing;

/* What open or opendir made. */
void *fh_of(const struct fuse_file_info *fi)
{
	/* NOLINTNEXTLINE(performance-no-int-to-ptr): FUSE keeps a number */
	return (void *)(uintptr_t)fi->fh;
}

const struct tree *tree_of(struct nid n)
{
	return n.kind < KINDS && trees[n.kind] ? trees[n.kind] : &nothing;
}

struct who who_of(fuse_req_t r)
{
	const struct fuse_ctx *c = fuse_req_ctx(r);

	errors_begin();
	return (struct who){ r, c->uid, c->pid };
}

/* ---- requests --------------------------------------------------------- */

int find_entry(const struct who *w, fuse_ino_t dir, const char *name,
	       struct attr *a)
{
	struct nid n = ino_nid(dir);
	const struct tree *t = tree_of(n);

	if (strlen(name) > 255)
		return -ENAMETOOLONG;
	return t->lookup ? t->lookup(w, n, name, a) : -ENOENT;
}

void entry_of(const struct attr *a, struct fuse_entry_param *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->ino = a->node ? a->node : a->st.st_ino;
	ret->attr = a->st;
	ret->attr_timeout = a->attr_s;
	ret->entry_timeout = a->entry_s;
}

void forget_node(struct nid n, uint64_t count)
{
	const struct tree *t = tree_of(n);

	if (t->forget)
		t->forget(n, count);
}

static void reply_entry(fuse_req_t r, int status, const struct attr *a)
{
	struct fuse_entry_param p;

	if (status) {
		fuse_reply_err(r, -status);
		return;
	}
	entry_of(a, &p);
	if (fuse_reply_entry(r, &p))
		forget_node(ino_nid(p.ino), 1);
}

static void op_lookup(fuse_req_t r, fuse_ino_t dir, const char *name)
{
	struct who w = who_of(r);
	struct attr a = { 0 };

	reply_entry(r, find_entry(&w, dir, name, &a), &a);
}

static void op_forget(fuse_req_t r, fuse_ino_t ino, uint64_t count)
{
	forget_node(ino_nid(ino), count);
	fuse_reply_none(r);
}

static void op_forget_multi(fuse_req_t r, size_t n, struct fuse_forget_data *f)
{
	for (size_t i = 0; i < n; i++)
		forget_node(ino_nid(f[i].ino), f[i].nlookup);
	fuse_reply_none(r);
}

static int get(const struct who *w, fuse_ino_t ino, struct attr *a)
{
	const struct tree *t = tree_of(ino_nid(ino));

	return t->getattr ? t->getattr(w, ino_nid(ino), a) : -ESTALE;
}

static void op_getattr(fuse_req_t r, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct who w = who_of(r);
	struct attr a = { 0 };
	int no = get(&w, ino, &a);

	(void)fi;
	if (no)
		fuse_reply_err(r, no == -ENOENT ? ESTALE : -no);
	else
		fuse_reply_attr(r, &a.st, a.attr_s);
}

static void op_setattr(fuse_req_t r, fuse_ino_t ino, struct stat *st, int valid,
		       struct fuse_file_info *fi)
{
	struct who w = who_of(r);
	struct nid n = ino_nid(ino);
	const struct tree *t = tree_of(n);
	struct handle *h = fi ? fh_of(fi) : NULL;
	struct attr a = { 0 };
	int no = 0;

	if (valid & FUSE_SET_ATTR_SIZE) {
		if (h && h->ops->truncate)
			no = h->ops->truncate(h, st->st_size);
		else if (t->truncate)
			no = t->truncate(&w, n, st->st_size);
		else if (st->st_size)
			no = -EINVAL;
	}
	/* chmod, chown and times of computed files: tolerated, not kept. */
	if (!no && t->setattr)
		no = t->setattr(&w, n, st, valid);
	if (!no)
		no = get(&w, ino, &a);
	if (no)
		fuse_reply_err(r, -errors_refused(w.uid, ino, NULL, no,
						  "it cannot be changed so"));
	else
		fuse_reply_attr(r, &a.st, a.attr_s);
}

static void op_readlink(fuse_req_t r, fuse_ino_t ino)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(4096);
	const struct tree *t = tree_of(ino_nid(ino));
	int no = t->readlink ? t->readlink(ino_nid(ino), &sb) : -EINVAL;

	if (no)
		fuse_reply_err(r, -no);
	else
		fuse_reply_readlink(r, sb.buf);
}

static void op_mknod(fuse_req_t r, fuse_ino_t dir, const char *name,
		     mode_t mode, dev_t dev)
{
	struct who w = who_of(r);
	struct nid n = ino_nid(dir);
	const struct tree *t = tree_of(n);
	struct handle *h = NULL;
	struct attr a = { 0 };
	int no;

	(void)dev;
	if (strlen(name) > 255)
		no = -ENAMETOOLONG;
	else if (S_ISREG(mode) && t->create)
		no = t->create(&w, n, name, mode, O_WRONLY, &a, &h);
	else
		no = -EPERM;
	errors_refused(w.uid, dir, name, no,
		       S_ISREG(mode) ? "no such file can be made"
				     : "no pipe, socket or device can be made");
	reply_entry(r, no, &a);
	handle_free(h);
}

static void op_mkdir(fuse_req_t r, fuse_ino_t dir, const char *name,
		     mode_t mode)
{
	struct who w = who_of(r);
	struct nid n = ino_nid(dir);
	const struct tree *t = tree_of(n);
	struct attr a = { 0 };
	int no = strlen(name) > 255 ? -ENAMETOOLONG
		 : t->mkdir	    ? t->mkdir(&w, n, name, mode, &a)
				    : -EPERM;

	errors_refused(w.uid, dir, name, no, "no such directory can be made");
	reply_entry(r, no, &a);
}

static void op_unlink(fuse_req_t r, fuse_ino_t dir, const char *name)
{
	struct who w = who_of(r);
	const struct tree *t = tree_of(ino_nid(dir));
	int no = t->unlink ? t->unlink(&w, ino_nid(dir), name) : -EPERM;

	fuse_reply_err(
	    r, -errors_refused(w.uid, dir, name, no, "it cannot be removed"));
}

static void op_rmdir(fuse_req_t r, fuse_ino_t dir, const char *name)
{
	struct who w = who_of(r);
	const struct tree *t = tree_of(ino_nid(dir));
	int no = t->rmdir ? t->rmdir(&w, ino_nid(dir), name) : -EPERM;

	fuse_reply_err(
	    r, -errors_refused(w.uid, dir, name, no, "it cannot be removed"));
}

/* Which trees can rename into each other. */
static unsigned world(enum kind k)
{
	switch (k) {
	case K_NAMESPACE:
	case K_TABLE:
	case K_DATA:
		return 1;
	case K_PEER:
	case K_REAL:
		return 2;
	default:
		return 3 + (unsigned)k;
	}
}

struct renaming {
	fuse_req_t r;
	fuse_ino_t dir, to;
	unsigned flags;
	char *name, *to_name;
};

static void renaming_free(struct renaming *x)
{
	if (!x)
		return;
	free(x->name);
	free(x->to_name);
	free(x);
}

static int do_rename(const struct who *w, const struct renaming *x)
{
	struct nid dir = ino_nid(x->dir), to = ino_nid(x->to);
	/* Files in a folder beside a table's become the table's. */
	bool beside = dir.kind == K_REAL && to.kind == K_TABLE;
	const struct tree *t = tree_of(beside ? to : dir);

	if (x->flags & ~1u) /* RENAME_NOREPLACE only */
		return -EINVAL;
	if (strlen(x->to_name) > 255)
		return -ENAMETOOLONG;
	if (!beside && world(dir.kind) != world(to.kind))
		/* mv copies and removes where both can be. */
		return t->rename && t->create && tree_of(to)->create ? -EXDEV
								     : -EPERM;
	return t->rename ? t->rename(w, dir, x->name, to, x->to_name, x->flags)
			 : -EPERM;
}

static void rename_it(void *arg)
{
	struct renaming *x = arg;
	struct who w = who_of(x->r);
	_cleanup_strbuf_ struct strbuf target = STRBUF_INIT(16384);
	_cleanup_free_ char *what = NULL;
	int no = do_rename(&w, x);

	node_path(ino_nid(x->to), &target);
	sb_addf(&target, "%s%s", target.len ? "/" : "", x->to_name);
	what = xasprintf("it cannot be renamed to %s",
			 target.buf ? target.buf : "");
	fuse_reply_err(x->r, -errors_refused(w.uid, x->dir, x->name, no, what));
	renaming_free(x);
}

/* It may be that a whole table is to be read. */
static void op_rename(fuse_req_t r, fuse_ino_t dir, const char *name,
		      fuse_ino_t to, const char *to_name, unsigned flags)
{
	struct renaming *x = calloc(1, sizeof(*x));

	if (x)
		*x = (struct renaming){ r,     dir,	     to,
					flags, strdup(name), strdup(to_name) };
	if (x && x->name && x->to_name) {
		aside(rename_it, x);
		return;
	}
	renaming_free(x);
	fuse_reply_err(r, ENOMEM);
}

static void op_link(fuse_req_t r, fuse_ino_t ino, fuse_ino_t dir,
		    const char *name)
{
	struct who w = who_of(r);

	(void)ino;
	fuse_reply_err(r, -errors_refused(w.uid, dir, name, -EPERM,
					  "there are no hard links"));
}

static void op_symlink(fuse_req_t r, const char *to, fuse_ino_t dir,
		       const char *name)
{
	struct who w = who_of(r);
	const struct tree *t = tree_of(ino_nid(dir));
	struct attr a = { 0 };
	int no =
	    t->symlink ? t->symlink(&w, ino_nid(dir), name, to, &a) : -EPERM;

	errors_refused(w.uid, dir, name, no, "no symbolic link can be made");
	reply_entry(r, no, &a);
}

static void fill_info(struct fuse_file_info *fi, struct handle *h)
{
	fi->fh = (uintptr_t)h;
	fi->direct_io = !h->cached;
	fi->keep_cache = h->cached;
	fi->nonseekable = h->nonseekable;
	/* Who only reads has nothing to be told at close. */
	fi->noflush = !h->ops->flush;
}

void reply_open(fuse_req_t r, struct handle *h)
{
	struct fuse_file_info fi = { .flags = h->flags };

	fill_info(&fi, h);
	if (fuse_reply_open(r, &fi) == -ENOENT)
		handle_free(h);
}

static void op_open(fuse_req_t r, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct who w = who_of(r);
	struct nid n = ino_nid(ino);
	const struct tree *t = tree_of(n);
	struct handle *h = NULL;
	int no = t->open ? t->open(&w, n, fi->flags, &h) : -EACCES;

	if (no == OPEN_LATER)
		return;
	if (no) {
		errors_refused(w.uid, ino, NULL, no, "it cannot be opened so");
		fuse_reply_err(r, no == -ENOENT ? ESTALE : -no);
		return;
	}
	reply_open(r, h);
}

static void op_create(fuse_req_t r, fuse_ino_t dir, const char *name,
		      mode_t mode, struct fuse_file_info *fi)
{
	struct who w = who_of(r);
	struct nid n = ino_nid(dir);
	const struct tree *t = tree_of(n);
	struct fuse_entry_param p;
	struct handle *h = NULL;
	struct attr a = { 0 };
	int no;

	if (strlen(name) > 255)
		no = -ENAMETOOLONG;
	else if (t->create)
		no = t->create(&w, n, name, mode, fi->flags, &a, &h);
	else
		no = -EPERM;
	if (no) {
		fuse_reply_err(r, -errors_refused(w.uid, dir, name, no,
						  "no such file can be made"));
		return;
	}
	entry_of(&a, &p);
	fill_info(fi, h);
	if (fuse_reply_create(r, &p, fi) == -ENOENT) {
		handle_free(h);
		forget_node(ino_nid(p.ino), 1);
	}
}

static void read_table(fuse_req_t r, struct handle *h, size_t n, off_t off)
{
	_cleanup_free_ char *buf = malloc(n ? n : 1);
	/* Once answered, the reader may close. */
	struct table_view *v = table_view_ref(h->view);
	struct err e = { 0 };
	ssize_t k = buf ? table_view_read(v, (uint64_t)off, buf, n, &e)
			: (ssize_t)-ENOMEM;

	if (k < 0) {
		log_error("fs", "reading a table: %s", e.text);
		fuse_reply_err(r, (int)-k);
	} else if (!fuse_reply_buf(r, buf, (size_t)k)) {
		table_view_ahead(v);
	}
	table_view_unref(v);
}

static void op_read(fuse_req_t r, fuse_ino_t ino, size_t n, off_t off,
		    struct fuse_file_info *fi)
{
	struct handle *h = fh_of(fi);

	(void)ino;
	if (h->ops->read) {
		h->ops->read(r, h, n, off, fi);
	} else if (h->view) {
		read_table(r, h, n, off);
	} else if (h->fd >= 0) {
		struct fuse_bufvec b = FUSE_BUFVEC_INIT(n);

		b.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK;
		b.buf[0].fd = h->fd;
		b.buf[0].pos = off;
		fuse_reply_data(r, &b, FUSE_BUF_SPLICE_MOVE);
	} else {
		reply_read_text(r, &h->text, n, off);
	}
}

static void op_write(fuse_req_t r, fuse_ino_t ino, const char *buf, size_t n,
		     off_t off, struct fuse_file_info *fi)
{
	struct handle *h = fh_of(fi);

	errors_begin();
	(void)ino;
	if (h->ops->write)
		h->ops->write(r, h, buf, n, off);
	else
		fuse_reply_err(r, EBADF);
}

static void op_flush(fuse_req_t r, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct handle *h = fh_of(fi);

	errors_begin();
	(void)ino;
	if (h && h->ops->flush)
		h->ops->flush(r, h);
	else
		fuse_reply_err(r, 0);
}

static void op_fsync(fuse_req_t r, fuse_ino_t ino, int datasync,
		     struct fuse_file_info *fi)
{
	struct handle *h = fh_of(fi);

	errors_begin();
	(void)ino, (void)datasync;
	if (h && h->ops->fsync)
		h->ops->fsync(r, h);
	else
		fuse_reply_err(r, 0);
}

/* A directory's names are several directories' here, so all that is kept is
 * made durable. */
static void sync_all(void *r)
{
	_cleanup_close_ int fd =
	    open(fs.conf->state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	fuse_reply_err(r, fd < 0 || syncfs(fd) ? errno : 0);
}

/* It waits for what others write to that disk as well. */
static void op_fsyncdir(fuse_req_t r, fuse_ino_t ino, int datasync,
			struct fuse_file_info *fi)
{
	(void)ino, (void)datasync, (void)fi;
	aside(sync_all, r);
}

static void op_release(fuse_req_t r, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	handle_free(fh_of(fi));
	fuse_reply_err(r, 0);
}

static void op_poll(fuse_req_t r, fuse_ino_t ino, struct fuse_file_info *fi,
		    struct fuse_pollhandle *ph)
{
	struct handle *h = fh_of(fi);

	(void)ino;
	if (h && h->ops->poll) {
		/* First known, then looked: no change is missed. */
		poller_add(ph);
		fuse_reply_poll(r, h->ops->poll(h));
		return;
	}
	if (ph)
		fuse_pollhandle_destroy(ph);
	fuse_reply_poll(r, POLLIN | POLLOUT);
}

/* ---- space, copies ---------------------------------------------------- */

static void op_statfs(fuse_req_t r, fuse_ino_t ino)
{
	struct statvfs s;

	(void)ino;
	if (statvfs(fs.conf->state, &s)) {
		fuse_reply_err(r, errno);
		return;
	}
	s.f_namemax = 255;
	fuse_reply_statfs(r, &s);
}

/* A whole published table is copied by giving its rows a second name;
 * anything else the caller copies by itself. */
static void op_copy_file_range(fuse_req_t r, fuse_ino_t in, off_t off_in,
			       struct fuse_file_info *fi_in, fuse_ino_t out,
			       off_t off_out, struct fuse_file_info *fi_out,
			       size_t len, int flags)
{
	struct handle *from = fh_of(fi_in);
	struct handle *to = fh_of(fi_out);
	uint64_t size;
	int no;

	(void)in, (void)out, (void)flags;
	if (to && sink_is(to)) { /* nobody makes what will be forgotten */
		fuse_reply_write(r, len);
		return;
	}
	if (from && from->table && !from->part && off_in > 0 &&
	    (uint64_t)off_in >= table_csv_size(from->table)) {
		fuse_reply_write(r, 0);
		return;
	}
	if (!from || !to || !from->table || from->part || off_in || off_out ||
	    to->nid.kind != K_TABLE || len < table_csv_size(from->table)) {
		fuse_reply_err(r, EOPNOTSUPP);
		return;
	}
	size = table_csv_size(from->table);
	no = upload_link(to, from->table);
	if (no)
		fuse_reply_err(r, -no);
	else
		fuse_reply_write(r, size);
}

static void op_init(void *arg, struct fuse_conn_info *c)
{
	(void)arg;
	c->want &= ~(unsigned)FUSE_CAP_WRITEBACK_CACHE;
	/* Files on disk (the inbox, logs) go to the reader without a copy.  For
	 * rows, which are made in memory, it measures the same; so does a
	 * read-ahead of 1 MiB in place of the kernel's 128 KiB, for which
	 * table_view_ahead() works in advance. */
#ifndef __SANITIZE_THREAD__ /* it does not know what splice(2) orders */
	c->want |= c->capable & (FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
#endif
	/* A helper would read pages of a table in the background. */
	c->max_background = 64;
	c->congestion_threshold = 48;
}

const struct fuse_lowlevel_ops mount_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.readlink = op_readlink,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.unlink = op_unlink,
	.rmdir = op_rmdir,
	.rename = op_rename,
	.link = op_link,
	.symlink = op_symlink,
	.open = op_open,
	.create = op_create,
	.read = op_read,
	.write = op_write,
	.flush = op_flush,
	.fsync = op_fsync,
	.fsyncdir = op_fsyncdir,
	.release = op_release,
	.poll = op_poll,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.releasedir = op_releasedir,
	.getxattr = op_getxattr,
	.listxattr = op_listxattr,
	.setxattr = op_setxattr,
	.removexattr = op_removexattr,
	.statfs = op_statfs,
	.copy_file_range = op_copy_file_range,
};
