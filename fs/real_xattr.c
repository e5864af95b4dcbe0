// SPDX-License-Identifier: Apache-2.0
/* user.* attributes: kept on the file on disk, and they go with it when it is
 * renamed, sent or becomes a table's data.csv.  rsync -X and cp -a set them
 * before they rename.  No partner hears of them.
 *
 * Two of them are not shown: who made the file, if that is not whom the mount
 * belongs to, and the mode that chmod has given it.  rollfs need not be root,
 * so the disk's own cannot say it. */
#include <sys/stat.h>
#include <sys/xattr.h>

#include "fs/tables_priv.h"

#include "fs/real_priv.h"

#define NAMES_MAX (64u << 10)

#define OWNER	  "user.rollfs.uid"
#define MODE	  "user.rollfs.mode"

/* Where it is; NULL: it is a partner's, or has no name any more. */
static char *disk_of(struct nid n)
{
	_cleanup_free_ char *path = NULL, *pending = NULL;
	struct real_at at;

	if (real_place(n.number, &at, &path, &pending) || at.kind == REAL_IN ||
	    at.kind == REAL_PULL)
		return NULL;
	/* It may be published since, and we have not heard of it yet. */
	if (pending && !access(pending, F_OK))
		return TAKE_PTR(pending);
	return real_disk_of(at, real_kept_here(at));
}

/* A disk without attributes is one that has none. */
static int absent(int no)
{
	return no == EOPNOTSUPP ? -ENODATA : -no;
}

/* Appends those of user.* that are not ours, each with its NUL. */
static int names_of(const char *disk, struct strbuf *ret)
{
	_cleanup_free_ char *buf = malloc(NAMES_MAX);
	ssize_t n = buf ? llistxattr(disk, buf, NAMES_MAX) : -1;

	if (n < 0)
		return buf && errno == EOPNOTSUPP ? 0 : -errno;
	for (const char *p = buf; p < buf + n; p += strlen(p) + 1)
		if (!strncmp(p, "user.", 5) && strncmp(p, "user.rollfs.", 12))
			sb_add(ret, p, strlen(p) + 1);
	return ret->error;
}

static int value_of(const char *disk, const char *name, struct strbuf *ret)
{
	_cleanup_free_ char *buf = malloc(NAMES_MAX);
	ssize_t n = buf ? lgetxattr(disk, name, buf, NAMES_MAX) : -1;

	return n < 0 ? absent(buf ? errno : ENOMEM)
		     : sb_add(ret, buf, (size_t)n);
}

int real_user_names(struct nid n, struct strbuf *ret)
{
	_cleanup_free_ char *disk = disk_of(n);

	return disk ? names_of(disk, ret) : 0;
}

int real_user_get(struct nid n, const char *name, struct strbuf *ret)
{
	_cleanup_free_ char *disk = disk_of(n);

	return disk ? value_of(disk, name, ret) : -ENODATA;
}

int real_user_set(struct nid n, const char *name, const void *value, size_t len)
{
	_cleanup_free_ char *disk = disk_of(n);
	int r;

	if (!disk)
		return -EPERM;
	r = value ? lsetxattr(disk, name, value, len, 0)
		  : lremovexattr(disk, name);
	return r ? -errno : 0;
}

/* ---- owner and mode -------------------------------------------------------
 */

static void keep_number(const char *disk, const char *name, unsigned long v)
{
	char text[32];
	int n = snprintf(text, sizeof(text), "%lu", v);

	if (lsetxattr(disk, name, text, (size_t)n, 0) && errno != EOPNOTSUPP)
		log_warn("fs", "%s of a file was not kept", name);
}

/* disk NULL: fd */
static bool kept_number(const char *disk, int fd, const char *name,
			unsigned long *ret)
{
	char text[32] = "", *end;
	ssize_t n = disk ? lgetxattr(disk, name, text, sizeof(text) - 1)
			 : fgetxattr(fd, name, text, sizeof(text) - 1);

	if (n <= 0)
		return false;
	*ret = strtoul(text, &end, 10);
	return !*end;
}

void real_made_by(const char *disk, uid_t uid)
{
	if (uid != fs.uid)
		keep_number(disk, OWNER, uid);
}

void real_chmod(const char *disk, mode_t mode)
{
	keep_number(disk, MODE, mode & 07777);
}

bool real_chmoded(const char *disk, mode_t *ret)
{
	unsigned long v;

	if (!kept_number(disk, -1, MODE, &v))
		return false;
	*ret = (mode_t)v & 07777;
	return true;
}

void real_owner_attr(const char *disk, int fd, struct attr *a)
{
	unsigned long v;

	if (kept_number(disk, fd, OWNER, &v))
		a->st.st_uid = (uid_t)v;
	if (kept_number(disk, fd, MODE, &v))
		a->st.st_mode = (a->st.st_mode & S_IFMT) | ((mode_t)v & 07777);
}

/* ---- copies ---------------------------------------------------------------
 */

static int copy_one(int in, int out, const char *name)
{
	_cleanup_free_ char *buf = malloc(NAMES_MAX);
	ssize_t n = buf ? fgetxattr(in, name, buf, NAMES_MAX) : -1;

	return n < 0 || fsetxattr(out, name, buf, (size_t)n, 0) ? -errno : 0;
}

void real_user_copy(int in, int out)
{
	_cleanup_free_ char *buf = malloc(NAMES_MAX);
	ssize_t n = buf ? flistxattr(in, buf, NAMES_MAX) : 0;

	for (const char *p = buf; p && p < buf + n; p += strlen(p) + 1)
		if (!strncmp(p, "user.", 5) && copy_one(in, out, p))
			log_warn("fs", "an attribute was not kept");
}

int real_user_move(const char *disk, uint64_t table)
{
	_cleanup_strbuf_ struct strbuf names = STRBUF_INIT(NAMES_MAX);
	int no = names_of(disk, &names);

	for (const char *p = names.buf; !no && p && p < names.buf + names.len;
	     p += strlen(p) + 1) {
		_cleanup_strbuf_ struct strbuf value = STRBUF_INIT(NAMES_MAX);

		no = value_of(disk, p, &value);
		if (!no)
			no = table_user_set(
			    table, p, value.buf ? value.buf : "", value.len);
	}
	return no;
}
