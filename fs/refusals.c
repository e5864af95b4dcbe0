// SPDX-License-Identifier: Apache-2.0
/* No refusal without a line in errors: what the trees do not explain
 * themselves is told here, with the path and what can be done. */
#include "fs/fs.h"

/* Answers that programs ask for, or that say it all. */
static bool says_enough(int no)
{
	switch (-no) {
	case 0:
	case EAGAIN:
	case EBADF:
	case EEXIST:
	case EINTR:
	case EISDIR:
	case ENAMETOOLONG:
	case ENODATA:
	case ENOENT:
	case ENOTCONN:
	case ENOTDIR:
	case ENOTEMPTY:
	case EOPNOTSUPP:
	case ESTALE:
	case EXDEV:
		return true;
	default:
		return false;
	}
}

static void why(struct strbuf *sb, int no, const char *what)
{
	switch (-no) {
	case EPERM:
	case EINVAL:
		sb_addf(sb,
			"%s here: docs/mount.md lists what each directory "
			"takes",
			what);
		break;
	case EACCES:
		sb_adds(sb, "it can be read here, and not written; or it is "
			    "for the owner of the mount only");
		break;
	case EBUSY:
		sb_adds(sb, "somebody writes it just now");
		break;
	case ENOSPC:
	case EDQUOT:
		sb_addf(sb, "there is no room where the state is: df %s",
			fs.conf->state);
		break;
	case EMFILE:
	case ENFILE:
		sb_adds(sb, "rollfs has as many files open as it may: close "
			    "some, or give it more (ulimit -Hn) and mount "
			    "again");
		break;
	default:
		sb_addf(sb, "%s may tell more",
			fs.log ? fs.log : "what rollfs wrote to its terminal");
	}
}

void node_path(struct nid n, struct strbuf *ret)
{
	const struct tree *t = tree_of(n);

	if (t->path)
		t->path(n, ret);
}

int errors_refused_as(uid_t uid, fuse_ino_t node, const char *name, int no,
		      const char *text)
{
	_cleanup_strbuf_ struct strbuf path = STRBUF_INIT(16384);

	node_path(ino_nid(node), &path);
	if (name)
		sb_addf(&path, "%s%s", path.len ? "/" : "", name);
	errors_add(uid, path.len ? path.buf : "/", no, text ? text : "");
	return no;
}

int errors_refused(uid_t uid, fuse_ino_t node, const char *name, int no,
		   const char *what)
{
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT(20000);

	if (says_enough(no) || errors_told())
		return no;
	why(&text, no, what);
	return errors_refused_as(uid, node, name, no, text.buf);
}
