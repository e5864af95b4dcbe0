// SPDX-License-Identifier: Apache-2.0
/*
 * data.csv gets another name: cp -b, mv -b, sed -i.bak and editors keep what
 * was there so, before they write what comes.  The text of the rows becomes a
 * file beside the table, and the table is left without any.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "fs/real_priv.h"
#include "fs/tables_priv.h"

#define STEP (256u << 10)

static void on_interrupt(fuse_req_t r, void *arg)
{
	if (proc_being_killed(fuse_req_ctx(r)->pid))
		atomic_store((atomic_bool *)arg, true);
}

static int write_text(struct table *t, int fd, const atomic_bool *stop)
{
	_cleanup_free_ char *buf = malloc(STEP);
	struct table_view *v = NULL;
	uint64_t at = 0;
	ssize_t k = 0;
	int no = buf ? table_view_new(t, 0, &v, NULL) : -ENOMEM;

	if (no)
		return no;
	while (!no && (k = table_view_read(v, at, buf, STEP, NULL)) > 0) {
		no = pwrite_all(fd, buf, (size_t)k, at);
		at += (uint64_t)k;
		if (!no && atomic_load(stop))
			no = -EINTR;
	}
	table_view_unref(v);
	return no ? no : k < 0 ? (int)k : 0;
}

/* As rename(2) leaves it: with the mode, the owner and the time it had. */
static int write_file(struct table *t, const struct stat *as, const char *path,
		      const atomic_bool *stop)
{
	const struct timespec times[2] = { as->st_atim, as->st_mtim };
	_cleanup_close_ int fd =
	    open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int no = fd < 0 ? -errno : write_text(t, fd, stop);

	if (no)
		return no;
	real_made_by(path, as->st_uid);
	real_chmod(path, as->st_mode);
	return futimens(fd, times) || fsync(fd) ? -errno : 0;
}

static int place(const struct who *w, const char *path, struct real_at to)
{
	_cleanup_free_ char *disk = real_disk_of(to, true);
	int no = disk ? real_parents(disk) : -ENOMEM;

	if (!no)
		no = real_unlink(w, to);
	if (no && no != -ENOENT)
		return no;
	return rename(path, disk) ? -errno : 0;
}

static int save(const struct who *w, struct table *t, uint64_t id,
		struct real_at to)
{
	static atomic_uint_fast64_t last;
	_cleanup_free_ char *path =
	    xasprintf("%s/mount-tmp/" TABLE_SAVING "%llu", fs.conf->state,
		      (unsigned long long)++last);
	struct attr a = { 0 };
	atomic_bool stop = false;
	int no = table_getattr(w, (struct nid){ K_TABLE, id, T_WRITE }, &a);

	if (no)
		return no;
	fuse_req_interrupt_func(w->req, on_interrupt, &stop);
	no = write_file(t, &a.st, path, &stop);
	fuse_req_interrupt_func(w->req, NULL, NULL);
	if (!no)
		no = place(w, path, to);
	if (no)
		(void)unlink(path);
	return no;
}

int table_save(const struct who *w, uint64_t id, struct real_at to)
{
	_cleanup_table_place_ struct table_place p = { 0 };
	_cleanup_table_ struct table *t = NULL;
	int no = table_place(id, &p);

	if (!no)
		no = table_job_busy(w, p.ns);
	if (!no)
		no = table_open_place(&p, &t);
	if (!no)
		no = t ? save(w, t, id, to) : -ENOENT;
	if (!no)
		no = table_truncate(fs.tables, p.ns, p.name, t, NULL);
	if (!no)
		watch_changed(id);
	return no;
}
