// SPDX-License-Identifier: Apache-2.0
/* /federation/<party>/ and its inbox: trees of real files (real.c). */
#include <fcntl.h>
#include <sys/stat.h>

#include "fs/fs.h"

static char *below(const char *dir, const char *name)
{
	char *s = NULL;

	return asprintf(&s, "%s%s%s", dir, *dir ? "/" : "", name) < 0 ? NULL
								      : s;
}

/* The place of a name in a directory: a node, or the top of a party. */
static int child(struct nid dir, const char *name, struct real_at *ret,
		 char **ret_path)
{
	_cleanup_free_ char *path = NULL;
	struct real_at at;
	int no;

	*ret_path = NULL;
	if (dir.kind == K_PEER) {
		at = (struct real_at){ dir.slot ? REAL_IN : REAL_OUT,
				       dir.number, "" };
		if (!dir.slot &&
		    (!strcmp(name, "inbox") || !strcmp(name, "pull")))
			return -EPERM;
	} else {
		no = real_place(dir.number, &at, &path, NULL);
		if (no)
			return no;
	}
	*ret_path = below(at.path, name);
	if (!*ret_path)
		return -ENOMEM;
	*ret = (struct real_at){ at.kind, at.owner, *ret_path };
	return 0;
}

static void peer_attr(struct nid n, struct attr *ret)
{
	attr_fill(ret, nid_ino(K_PEER, n.number, n.slot), S_IFDIR | 0775, 0, 0);
	ret->entry_s = 1;
}

static int child_lookup(struct nid dir, const char *name, struct attr *ret)
{
	_cleanup_free_ char *path = NULL;
	struct real_at at;
	int no = child(dir, name, &at, &path);

	return no == -EPERM ? -ENOENT : no ? no : real_lookup(at, ret);
}

static int tree_lookup(const struct who *w, struct nid dir, const char *name,
		       struct attr *ret)
{
	(void)w;
	if (dir.kind != K_PEER || dir.slot || strcmp(name, "inbox"))
		return child_lookup(dir, name, ret);
	peer_attr((struct nid){ K_PEER, dir.number, 1 }, ret);
	return 0;
}

static int node_getattr(const struct who *w, struct nid n, struct attr *ret)
{
	_cleanup_free_ char *path = NULL, *pending = NULL, *disk = NULL;
	struct real_at at;
	int no = real_place(n.number, &at, &path, &pending);

	(void)w;
	if (no)
		return no;
	disk =
	    pending ? TAKE_PTR(pending) : real_disk_of(at, real_kept_here(at));
	return disk ? real_attr(ret, n.number, disk) : -ENOMEM;
}

static int peer_getattr(const struct who *w, struct nid n, struct attr *ret)
{
	(void)w;
	peer_attr(n, ret);
	return 0;
}

static int tree_list(const struct who *w, struct nid dir, struct listing *l)
{
	_cleanup_free_ char *path = NULL;
	struct real_at at = { dir.slot ? REAL_IN : REAL_OUT, dir.number, "" };
	int no = 0;

	(void)w;
	if (dir.kind == K_PEER && !dir.slot)
		listing_add(l, "inbox", nid_ino(K_PEER, dir.number, 1),
			    S_IFDIR);
	if (dir.kind == K_REAL)
		no = real_place(dir.number, &at, &path, NULL);
	return no ? no : real_list(at, l);
}

static int tree_create(const struct who *w, struct nid dir, const char *name,
		       mode_t mode, int flags, struct attr *ret,
		       struct handle **ret_h)
{
	_cleanup_free_ char *path = NULL;
	struct real_at at;
	int no = child(dir, name, &at, &path);

	return no ? no : real_create(w, at, mode, flags, ret, ret_h);
}

static int tree_mkdir(const struct who *w, struct nid dir, const char *name,
		      mode_t mode, struct attr *ret)
{
	_cleanup_free_ char *path = NULL;
	struct real_at at;
	int no = child(dir, name, &at, &path);

	return no ? no : real_mkdir(w, at, mode, ret);
}

static int tree_unlink(const struct who *w, struct nid dir, const char *name)
{
	_cleanup_free_ char *path = NULL;
	struct real_at at;
	int no = child(dir, name, &at, &path);

	return no ? no : real_unlink(w, at);
}

static int tree_rmdir(const struct who *w, struct nid dir, const char *name)
{
	_cleanup_free_ char *path = NULL;
	struct real_at at;
	int no = child(dir, name, &at, &path);

	return no ? no : real_rmdir(w, at);
}

static int tree_rename(const struct who *w, struct nid dir, const char *name,
		       struct nid to, const char *to_name, unsigned flags)
{
	_cleanup_free_ char *a_path = NULL, *b_path = NULL;
	struct real_at a, b;
	int no;

	if (to.kind != K_PEER && to.kind != K_REAL)
		return -EXDEV;
	no = child(dir, name, &a, &a_path);
	if (!no)
		no = child(to, to_name, &b, &b_path);
	if (no)
		return no;
	if (a.owner != b.owner)
		return -EXDEV;
	if (flags && real_exists(b))
		return -EEXIST;
	return real_rename(w, a, b);
}

static int node_truncate(const struct who *w, struct nid n, off_t size)
{
	struct handle *h = NULL;
	int no = real_open(w, n, O_WRONLY | (size ? 0 : O_TRUNC), &h);

	if (!no)
		no = h->ops->truncate(h, size);
	handle_free(h); /* which hands it over */
	return no;
}

/* Times are kept (rsync -a compares them), modes are not. */
static int node_setattr(const struct who *w, struct nid n,
			const struct stat *st, int valid)
{
	_cleanup_free_ char *path = NULL, *disk = NULL;
	struct timespec t[2] = { { .tv_nsec = UTIME_OMIT },
				 { .tv_nsec = UTIME_OMIT } };
	struct real_at at;

	(void)w;
	if (!(valid & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW)) ||
	    real_place(n.number, &at, &path, NULL) || at.kind == REAL_IN)
		return 0;
	disk = real_disk(at);
	if (valid & FUSE_SET_ATTR_MTIME_NOW)
		t[1].tv_nsec = UTIME_NOW;
	else
		t[1] = st->st_mtim;
	if (disk)
		(void)utimensat(AT_FDCWD, disk, t, AT_SYMLINK_NOFOLLOW);
	return 0;
}

static int node_xattrs(struct nid n, struct strbuf *ret)
{
	_cleanup_free_ char *path = NULL;
	char party[24];
	struct real_at at;
	const char *key;
	json_t *state, *v;

	if (real_place(n.number, &at, &path, NULL) || at.kind != REAL_OUT ||
	    real_kept_here(at))
		return 0;
	(void)snprintf(party, sizeof(party), "%llu",
		       (unsigned long long)at.owner);
	state = transfer_file_state(fs.transfer, party, at.path);
	json_object_foreach (state, key, v) {
		_cleanup_free_ char *text = json_is_string(v)
						? strdup(json_string_value(v))
						: json_text(v, false);

		if (!text)
			continue;
		sb_addf(ret, "user.rollfs.%s", key);
		sb_addc(ret, '\0');
		sb_adds(ret, text);
		sb_addc(ret, '\0');
	}
	json_decref(state);
	return 0;
}

int peer_lookup(const char *name, struct attr *ret)
{
	if (!party_known(name))
		return -ENOENT;
	peer_attr((struct nid){ K_PEER, strtoull(name, NULL, 10), 0 }, ret);
	return 0;
}

int peers_list(struct listing *l)
{
	char **ids = party_list(fs.conf);

	for (char **p = ids; p && *p; p++) {
		listing_add(l, *p, nid_ino(K_PEER, strtoull(*p, NULL, 10), 0),
			    S_IFDIR);
		free(*p);
	}
	free(ids);
	return 0;
}

/* What a dead daemon left half-written is of no use to anybody. */
int real_start(struct err *e)
{
	char **ids = party_list(fs.conf);
	char path[4096];
	int no;

	(void)snprintf(path, sizeof(path), "%s/mount-tmp", fs.conf->state);
	no = mkdir_p(path, 0700, e);
	for (char **p = ids; p && *p; p++) {
		static const char *const sub[] = { "out", "in", "spool" };

		for (size_t i = 0; i < ARRAY_SIZE(sub) && !no; i++) {
			(void)snprintf(path, sizeof(path),
				       "%s/federation/%s/%s", fs.conf->state,
				       *p, sub[i]);
			no = mkdir_p(path, 0700, e);
		}
		free(*p);
	}
	free(ids);
	return no;
}

const struct tree tree_real = {
	.lookup = tree_lookup,
	.getattr = node_getattr,
	.list = tree_list,
	.open = real_open,
	.create = tree_create,
	.mkdir = tree_mkdir,
	.unlink = tree_unlink,
	.rmdir = tree_rmdir,
	.rename = tree_rename,
	.truncate = node_truncate,
	.setattr = node_setattr,
	.xattrs = node_xattrs,
	.forget = real_forget,
};
const struct tree tree_peers = {
	.lookup = tree_lookup,
	.getattr = peer_getattr,
	.list = tree_list,
	.create = tree_create,
	.mkdir = tree_mkdir,
	.unlink = tree_unlink,
	.rmdir = tree_rmdir,
	.rename = tree_rename,
};
