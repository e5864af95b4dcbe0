// SPDX-License-Identifier: Apache-2.0
/* /federation/<party>/, its inbox and pull: trees of real files (real.c). */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

#include "fs/real_priv.h"

/* Slots of a party's directory. */
enum { PEER_OUT, PEER_INBOX, PEER_PULL };

static enum real_kind kind_of(unsigned slot)
{
	return slot == PEER_INBOX  ? REAL_IN
	       : slot == PEER_PULL ? REAL_PULL
				   : REAL_OUT;
}

/* The slot of a name that is taken at the top; 0 = it is free. */
static unsigned reserved(struct nid dir, const char *name)
{
	if (dir.kind != K_PEER || dir.slot != PEER_OUT)
		return 0;
	return !strcmp(name, "inbox")  ? PEER_INBOX
	       : !strcmp(name, "pull") ? PEER_PULL
				       : 0;
}

static char *below(const char *dir, const char *name)
{
	char *s = NULL;

	return asprintf(&s, "%s%s%s", dir, *dir ? "/" : "", name) < 0 ? NULL
								      : s;
}

/* The place of a directory: a node, or the top of a party. */
static int dir_place(struct nid dir, struct real_at *ret, char **ret_path)
{
	*ret_path = NULL;
	if (dir.kind == K_REAL)
		return real_place(dir.number, ret, ret_path, NULL);
	if (dir.kind != K_PEER)
		return -EXDEV; /* the other end of a rename */
	*ret = (struct real_at){ kind_of(dir.slot), dir.number, "" };
	return 0;
}

/* The place of a name in a directory; caller frees the path. */
static int child(struct nid dir, const char *name, struct real_at *ret,
		 char **ret_path)
{
	_cleanup_free_ char *path = NULL;
	struct real_at at;
	int no = dir_place(dir, &at, &path);

	*ret_path = NULL;
	if (no)
		return no;
	if (reserved(dir, name))
		return -EPERM;
	*ret_path = below(at.path, name);
	if (!*ret_path)
		return -ENOMEM;
	*ret = (struct real_at){ at.kind, at.owner, *ret_path };
	return 0;
}

static void place_path(struct real_at at, struct strbuf *ret)
{
	static const char *const beside[] = {
		[REAL_TEMP_PART] = "/parts",
		[REAL_TEMP_COLUMN] = "/columns",
	};
	static const char *const sub[] = {
		[REAL_OUT] = "", [REAL_IN] = "/inbox", [REAL_PULL] = "/pull"
	};

	if (at.kind == REAL_TEMP_PARTY)
		node_path((struct nid){ K_PARTY, at.owner, 0 }, ret);
	else if (at.kind >= REAL_TEMP)
		node_path((struct nid){ K_TABLE, at.owner, T_DIR }, ret);
	else
		sb_addf(ret, "federation/%llu%s", (unsigned long long)at.owner,
			sub[at.kind]);
	if (at.kind == REAL_TEMP_PART || at.kind == REAL_TEMP_COLUMN)
		sb_adds(ret, beside[at.kind]);
	sb_addf(ret, "%s%s", *at.path ? "/" : "", at.path);
}

static void tree_path(struct nid n, struct strbuf *ret)
{
	_cleanup_free_ char *path = NULL;
	struct real_at at;

	if (!dir_place(n, &at, &path))
		place_path(at, ret);
}

/* Nothing can be made or changed there under that name: why, in errors. */
static int explained(const struct who *w, struct nid dir, const char *name,
		     int no)
{
	_cleanup_free_ char *path = NULL;
	struct real_at at = { 0 };
	const char *why;

	if ((no != -EPERM && no != -EINVAL) || dir_place(dir, &at, &path))
		return no;
	if (reserved(dir, name))
		why = "inbox and pull are not yours to make: one shows what "
		      "that party sent, the other waits for it";
	else if (at.kind == REAL_IN)
		why = "an inbox holds what that party sent: it can be read and "
		      "removed, and not written";
	else if (at.kind == REAL_PULL)
		why = "pull only shows the inbox: rm the name there";
	else if (no == -EINVAL)
		why = "a name is UTF-8 text without control characters";
	else
		why = "links are not sent: cp -rL and rsync -rtL send what "
		      "they lead to";
	return errors_refused_as(
	    w->uid, nid_ino(dir.kind, dir.number, dir.slot), name, no, why);
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
	unsigned slot = reserved(dir, name);

	(void)w;
	if (!slot)
		return child_lookup(dir, name, ret);
	peer_attr((struct nid){ K_PEER, dir.number, slot }, ret);
	return 0;
}

static int node_getattr(const struct who *w, struct nid n, struct attr *ret)
{
	_cleanup_free_ char *path = NULL, *pending = NULL, *disk = NULL;
	struct real_at at;
	int no = real_place(n.number, &at, &path, &pending);

	(void)w;
	if (no)
		return no == -ESTALE ? real_unnamed_attr(n.number, ret) : no;
	if (at.kind == REAL_PULL)
		return pull_getattr(n.number, at, ret);
	/* It may be published since, and we have not heard of it yet. */
	if (pending && !real_attr(ret, n.number, pending))
		return 0;
	disk = real_disk_of(at, real_kept_here(at));
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
	struct real_at at;
	int no = dir_place(dir, &at, &path);

	(void)w;
	if (dir.kind == K_PEER && dir.slot == PEER_OUT) {
		listing_add(l, "inbox", nid_ino(K_PEER, dir.number, PEER_INBOX),
			    S_IFDIR);
		listing_add(l, "pull", nid_ino(K_PEER, dir.number, PEER_PULL),
			    S_IFDIR);
	}
	return no ? no : real_list(at, l);
}

static int tree_create(const struct who *w, struct nid dir, const char *name,
		       mode_t mode, int flags, struct attr *ret,
		       struct handle **ret_h)
{
	_cleanup_free_ char *path = NULL;
	struct real_at at;
	int no = child(dir, name, &at, &path);

	if (!no)
		no = real_create(w, at, mode, flags, ret, ret_h);
	return explained(w, dir, name, no);
}

static int tree_symlink(const struct who *w, struct nid dir, const char *name,
			const char *to, struct attr *ret)
{
	(void)to, (void)ret;
	return explained(w, dir, name, -EPERM);
}

static int tree_mkdir(const struct who *w, struct nid dir, const char *name,
		      mode_t mode, struct attr *ret)
{
	_cleanup_free_ char *path = NULL;
	struct real_at at;
	int no = child(dir, name, &at, &path);

	if (!no)
		no = real_mkdir(w, at, mode, ret);
	return explained(w, dir, name, no);
}

static int tree_unlink(const struct who *w, struct nid dir, const char *name)
{
	_cleanup_free_ char *path = NULL;
	struct real_at at;
	int no = child(dir, name, &at, &path);

	if (!no)
		no = real_unlink(w, at);
	return explained(w, dir, name, no);
}

static int tree_rmdir(const struct who *w, struct nid dir, const char *name)
{
	_cleanup_free_ char *path = NULL;
	struct real_at at;
	int no = child(dir, name, &at, &path);

	if (!no)
		no = real_rmdir(w, at);
	return explained(w, dir, name, no);
}

static int tree_rename(const struct who *w, struct nid dir, const char *name,
		       struct nid to, const char *to_name, unsigned flags)
{
	_cleanup_free_ char *a_path = NULL, *b_path = NULL;
	struct real_at a = { 0 }, b = { 0 };
	int no_a = child(dir, name, &a, &a_path);
	int no_b = child(to, to_name, &b, &b_path);

	if (no_a)
		return explained(w, dir, name, no_a);
	if (no_b)
		return explained(w, to, to_name, no_b);
	if (a.owner != b.owner)
		return -EXDEV;
	if (flags && real_exists(b))
		return -EEXIST;
	no_a = real_rename(w, a, b);
	return no_a == -EPERM ? explained(w, dir, name, no_a)
			      : explained(w, to, to_name, no_a);
}

/* Times are kept (rsync -a compares them), modes of what becomes a table. */
static int node_setattr(const struct who *w, struct nid n,
			const struct stat *st, int valid)
{
	const int times = FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW;
	_cleanup_free_ char *path = NULL, *disk = NULL;
	struct timespec t[2] = { { .tv_nsec = UTIME_OMIT },
				 { .tv_nsec = UTIME_OMIT } };
	pthread_mutex_t *turn = real_turn(n.number);
	struct real_at at;

	(void)w;
	if (!(valid & (times | FUSE_SET_ATTR_MODE)) ||
	    real_place(n.number, &at, &path, NULL) || at.kind == REAL_IN ||
	    at.kind == REAL_PULL)
		return 0;
	if ((valid & FUSE_SET_ATTR_MODE) && at.kind >= REAL_TEMP &&
	    at.kind != REAL_TEMP_PARTY) {
		_cleanup_free_ char *here = real_disk(at);

		if (here)
			real_chmod(here, st->st_mode);
	}
	if (!(valid & times))
		return 0;
	if (valid & FUSE_SET_ATTR_MTIME_NOW)
		t[1].tv_nsec = UTIME_NOW;
	else
		t[1] = st->st_mtim;
	/* It may be handed over just now: an empty one is after its close. */
	pthread_mutex_lock(turn);
	disk = real_disk(at);
	if (disk)
		(void)utimensat(AT_FDCWD, disk, t, AT_SYMLINK_NOFOLLOW);
	pthread_mutex_unlock(turn);
	/* touch tries a failed one again. */
	if ((valid & FUSE_SET_ATTR_MTIME_NOW) && at.kind == REAL_OUT &&
	    !real_kept_here(at)) {
		char party[24];

		(void)snprintf(party, sizeof(party), "%llu",
			       (unsigned long long)at.owner);
		if (transfer_file_retry(fs.transfer, party, at.path, NULL))
			log_debug("fs", "nothing to be tried again");
	}
	return 0;
}

/* A file that is sent; caller frees the path. */
static int sent_file(struct nid n, char party[24], char **ret_path,
		     bool *ret_writing)
{
	_cleanup_free_ char *pending = NULL;
	struct real_at at;
	int no = real_place(n.number, &at, ret_path, &pending);

	if (no)
		return no;
	if (at.kind != REAL_OUT || real_kept_here(at))
		return -EPERM;
	*ret_writing = pending != NULL;
	(void)snprintf(party, 24, "%llu", (unsigned long long)at.owner);
	return 0;
}

/* Text as it is, the rest as compact JSON.  What is shown of a deadline can be
 * set: cp -a does. */
static char *xattr_text(const char *key, const json_t *v)
{
	const char *text = json_string_value(v);

	if (text && !*text && !strcmp(key, "deadline"))
		text = "0";
	return text ? strdup(text) : json_text(v, false);
}

static int node_xattrs(struct nid n, struct strbuf *ret)
{
	_cleanup_free_ char *path = NULL;
	char party[24];
	const char *key;
	json_t *state, *v;
	bool writing;

	if (sent_file(n, party, &path, &writing))
		return 0;
	state = transfer_file_state(fs.transfer, party, path);
	json_object_foreach (state, key, v) {
		_cleanup_free_ char *text = xattr_text(key, v);

		/* All of it or none: who reads takes pairs. */
		if (!text || ret->len + strlen(key) + strlen(text) + 32 > 60000)
			continue;
		sb_addf(ret, "user.rollfs.%s", key);
		sb_addc(ret, '\0');
		sb_adds(ret, text);
		sb_addc(ret, '\0');
	}
	json_decref(state);
	return 0;
}

/* "2026-11-23T15:04:05Z", "...05.25+01:00" */
static int parse_time(const char *s, int64_t *ret_ms)
{
	struct tm tm = { 0 };
	const char *p = strptime(s, "%Y-%m-%dT%H:%M:%S", &tm);
	int64_t ms = 0;

	if (!p)
		return -EINVAL;
	if (*p == '.') {
		int scale = 100;

		for (p++; *p >= '0' && *p <= '9'; p++, scale /= 10)
			ms += (int64_t)(*p - '0') * scale;
	}
	/* %z takes "Z", "+01:00" and "+0100"; timegm does not look at it. */
	{
		struct tm zone = { 0 };

		p = strptime(p, "%z", &zone);
		if (!p || *p)
			return -EINVAL;
		ms += ((int64_t)timegm(&tm) - zone.tm_gmtoff) * 1000;
	}
	*ret_ms = ms;
	return 0;
}

/* Seconds from now, 0 = never, or a time. */
static int parse_deadline(const char *s, int64_t *ret_ms)
{
	char *end;
	long long seconds;

	if (strspn(s, "0123456789") != strlen(s) || !*s)
		return parse_time(s, ret_ms);
	errno = 0;
	seconds = strtoll(s, &end, 10);
	if (errno || seconds > 100ll * 366 * 24 * 3600)
		return -EINVAL;
	*ret_ms = seconds ? now_unix_ms() + seconds * 1000 : 0;
	return 0;
}

static bool kept_here(struct nid n)
{
	_cleanup_free_ char *path = NULL;
	struct real_at at;

	return !real_place(n.number, &at, &path, NULL) && real_kept_here(at);
}

static int node_set_xattr(const struct who *w, struct nid n, const char *name,
			  const char *value)
{
	_cleanup_free_ char *path = NULL;
	char party[24], what[512];
	struct err e = { 0 };
	bool writing;
	int64_t ms = 0;
	int no;

	no = sent_file(n, party, &path, &writing);
	if (no) /* under a temporary name it says nothing of a transfer */
		return no == -EPERM && kept_here(n) ? 0 : no;
	/* mv, cp -a and rsync -X carry the attributes of another file here:
	 * what only tells of a transfer is made anew. */
	if (strcmp(name, "deadline") ||
	    (writing && value && !strcmp(value, "0")))
		return 0;
	if (value && parse_deadline(value, &ms))
		no = err_set(&e, EINVAL,
			     "a deadline is a number of seconds from now, 0 "
			     "(never) or a time like 2026-12-31T23:59:00Z");
	else if (!writing || real_set_deadline(n.number, ms))
		no = transfer_file_deadline(fs.transfer, party, path, ms, &e);
	if (no) {
		(void)snprintf(what, sizeof(what), "federation/%s/%s", party,
			       path);
		errors_add(w->uid, what, no, e.text);
	}
	return no;
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
static void sweep_spool(const char *party, const char *dir)
{
	_cleanup_closedir_ DIR *d = opendir(dir);
	const struct dirent *de;
	char ours[32], path[4096 + 256];

	(void)snprintf(ours, sizeof(ours), "w%lld-", (long long)fs.started_ms);
	while (d && (de = readdir(d))) {
		if (de->d_name[0] != 'w' || de->d_type != DT_REG ||
		    !strncmp(de->d_name, ours, strlen(ours)))
			continue;
		(void)snprintf(path, sizeof(path), "%s/%s", dir, de->d_name);
		transfer_file_drop(fs.transfer, party, path);
		(void)unlink(path);
	}
}

int real_start(struct err *e)
{
	char **ids = party_list(fs.conf);
	char path[4096];
	int no;

	(void)snprintf(path, sizeof(path), "%s/mount-tmp", fs.conf->state);
	no = mkdir_p_durable(path, 0700, e);
	for (char **p = ids; p && *p; p++) {
		static const char *const sub[] = { "out", "in", "spool" };

		for (size_t i = 0; i < ARRAY_SIZE(sub) && !no; i++) {
			(void)snprintf(path, sizeof(path),
				       "%s/federation/%s/%s", fs.conf->state,
				       *p, sub[i]);
			no = mkdir_p_durable(path, 0700, e);
			if (!no && !strcmp(sub[i], "spool"))
				sweep_spool(*p, path);
		}
		free(*p);
	}
	free(ids);
	return no;
}

/* A lookup is an lstat(2) here. */
static bool tree_plus(struct nid dir, mode_t mode)
{
	(void)dir, (void)mode;
	return true;
}

const struct tree tree_real = {
	.lookup = tree_lookup,
	.getattr = node_getattr,
	.list = tree_list,
	.open = real_open,
	.create = tree_create,
	.mkdir = tree_mkdir,
	.symlink = tree_symlink,
	.unlink = tree_unlink,
	.rmdir = tree_rmdir,
	.rename = tree_rename,
	.plus = tree_plus,
	.truncate = real_truncate,
	.setattr = node_setattr,
	.xattrs = node_xattrs,
	.set_xattr = node_set_xattr,
	.user_names = real_user_names,
	.user_get = real_user_get,
	.user_set = real_user_set,
	.forget = real_forget,
	.path = tree_path,
};
const struct tree tree_peers = {
	.lookup = tree_lookup,
	.getattr = peer_getattr,
	.list = tree_list,
	.create = tree_create,
	.mkdir = tree_mkdir,
	.symlink = tree_symlink,
	.unlink = tree_unlink,
	.rmdir = tree_rmdir,
	.rename = tree_rename,
	.plus = tree_plus,
	.path = tree_path,
};
