// SPDX-License-Identifier: Apache-2.0
/* Attributes with names: user.rollfs.* is computed, other user.* is kept where
 * a tree keeps it; nothing else exists. */
#include <pthread.h>
#include <sys/xattr.h>

#include "fs/mount_priv.h"

#define XATTR_OURS    "user.rollfs."
#define LATER	      256u

#define NO_ATTRIBUTES "such an attribute cannot be set or removed"

static int xattrs_of(fuse_ino_t ino, struct strbuf *sb)
{
	const struct tree *t = tree_of(ino_nid(ino));

	return t->xattrs ? t->xattrs(ino_nid(ino), sb) : 0;
}

static void reply_xattr(fuse_req_t r, const char *buf, size_t len, size_t n)
{
	if (!n)
		fuse_reply_xattr(r, len);
	else if (n < len)
		fuse_reply_err(r, ERANGE);
	else
		fuse_reply_buf(r, buf, len);
}

static bool is_ours(const char *name)
{
	return !strncmp(name, XATTR_OURS, strlen(XATTR_OURS));
}

static bool is_user(const char *name)
{
	return !is_ours(name) && !strncmp(name, "user.", 5) && name[5];
}

/* ls -l asks each file for its ACL, its capabilities and its label, until it
 * hears once that this file system has none. */
static int user_get(fuse_ino_t ino, const char *name, struct strbuf *ret)
{
	const struct tree *t = tree_of(ino_nid(ino));

	if (strncmp(name, "user.", 5))
		return -EOPNOTSUPP;
	return is_user(name) && t->user_get
		   ? t->user_get(ino_nid(ino), name, ret)
		   : -ENODATA;
}

/*
 * mv and rsync ask how long a value is and then for the value; meanwhile a
 * transfer goes on: "9" becomes "10", or there is none any more.  Who has asked
 * the first gets what he was told of.
 */
struct asked {
	pid_t pid;
	fuse_ino_t ino;
	struct strbuf text; /* name, '\0', value */
	int64_t until_ms;
};
static pthread_mutex_t asked_lock = PTHREAD_MUTEX_INITIALIZER;
static struct asked asked[16];
static unsigned asked_next;

/* With the lock held. */
static struct asked *asked_find(pid_t pid, fuse_ino_t ino, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(asked); i++)
		if (asked[i].until_ms && asked[i].pid == pid &&
		    asked[i].ino == ino && !strcmp(asked[i].text.buf, name))
			return &asked[i];
	return NULL;
}

static void asked_add(pid_t pid, fuse_ino_t ino, const char *name,
		      const char *value)
{
	struct asked *a;

	pthread_mutex_lock(&asked_lock);
	a = asked_find(pid, ino, name);
	if (!a)
		a = &asked[asked_next++ % ARRAY_SIZE(asked)];
	a->pid = pid;
	a->ino = ino;
	if (!a->text.max)
		sb_init(&a->text, 65u << 10);
	sb_reset(&a->text);
	sb_add(&a->text, name, strlen(name) + 1);
	a->until_ms = sb_adds(&a->text, value) ? 0 : now_mono_ms() + 1000;
	pthread_mutex_unlock(&asked_lock);
}

/* The value that he was told of; NULL: none, or too long ago. */
static char *asked_take(pid_t pid, fuse_ino_t ino, const char *name)
{
	char *value = NULL;
	struct asked *a;

	pthread_mutex_lock(&asked_lock);
	a = asked_find(pid, ino, name);
	if (a && a->until_ms > now_mono_ms())
		value = strdup(a->text.buf + strlen(name) + 1);
	if (a)
		a->until_ms = 0;
	pthread_mutex_unlock(&asked_lock);
	return value;
}

void op_getxattr(fuse_req_t r, fuse_ino_t ino, const char *name, size_t n)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(64u << 10);
	pid_t pid = fuse_req_ctx(r)->pid;
	_cleanup_free_ char *told = n ? asked_take(pid, ino, name) : NULL;
	int no;

	if (told) {
		reply_xattr(r, told, strlen(told), n);
		return;
	}
	if (!is_ours(name)) {
		no = user_get(ino, name, &sb);
		if (no)
			fuse_reply_err(r, -no);
		else
			reply_xattr(r, sb.buf, sb.len, n);
		return;
	}
	if (!xattrs_of(ino, &sb)) {
		for (const char *p = sb.buf; p < sb.buf + sb.len;) {
			const char *v = p + strlen(p) + 1;

			if (!strcmp(p, name)) {
				if (!n)
					asked_add(pid, ino, name, v);
				reply_xattr(r, v, strlen(v), n);
				return;
			}
			p = v + strlen(v) + 1;
		}
	}
	fuse_reply_err(r, ENODATA);
}

void op_listxattr(fuse_req_t r, fuse_ino_t ino, size_t n)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(64u << 10);
	_cleanup_strbuf_ struct strbuf names = STRBUF_INIT(256u << 10);
	const struct tree *t = tree_of(ino_nid(ino));

	if (!xattrs_of(ino, &sb)) {
		for (const char *p = sb.buf; p < sb.buf + sb.len;) {
			sb_add(&names, p, strlen(p) + 1);
			p += strlen(p) + 1;
			p += strlen(p) + 1;
		}
	}
	if (t->user_names)
		(void)t->user_names(ino_nid(ino), &names);
	/* More of them come while a file is sent: who asks how much room they
	 * take shall have enough a moment later, too. */
	if (!n && names.len)
		fuse_reply_xattr(r, names.len + LATER);
	else
		reply_xattr(r, names.buf, names.len, n);
}

static int set_xattr(const struct who *w, fuse_ino_t ino, const char *name,
		     const char *value)
{
	const struct tree *t = tree_of(ino_nid(ino));

	return t->set_xattr ? t->set_xattr(w, ino_nid(ino), name, value)
			    : -EPERM;
}

static int user_set(fuse_ino_t ino, const char *name, const char *value,
		    size_t n)
{
	const struct tree *t = tree_of(ino_nid(ino));

	if (!is_user(name))
		return -EOPNOTSUPP;
	return t->user_set ? t->user_set(ino_nid(ino), name, value, n) : -EPERM;
}

void op_setxattr(fuse_req_t r, fuse_ino_t ino, const char *name,
		 const char *value, size_t n, int flags)
{
	_cleanup_free_ char *text = NULL;
	struct who w = who_of(r);
	int no;

	if (is_ours(name)) {
		text = strndup(value, n);
		no = text ? set_xattr(&w, ino, name + strlen(XATTR_OURS), text)
			  : -ENOMEM;
	} else {
		_cleanup_strbuf_ struct strbuf old = STRBUF_INIT(64u << 10);
		bool is = !user_get(ino, name, &old);

		no = is && (flags & XATTR_CREATE) ? -EEXIST
		     : !is && (flags & XATTR_REPLACE)
			 ? -ENODATA
			 : user_set(ino, name, value, n);
	}
	fuse_reply_err(r, -errors_refused(w.uid, ino, NULL, no, NO_ATTRIBUTES));
}

void op_removexattr(fuse_req_t r, fuse_ino_t ino, const char *name)
{
	struct who w = who_of(r);
	int no = is_ours(name)
		     ? set_xattr(&w, ino, name + strlen(XATTR_OURS), NULL)
		 : is_user(name) ? user_set(ino, name, NULL, 0)
				 : -ENODATA;

	fuse_reply_err(r, -errors_refused(w.uid, ino, NULL, no, NO_ATTRIBUTES));
}
