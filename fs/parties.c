// SPDX-License-Identifier: Apache-2.0
/* /parties/<id>/: what is known of a partner, and what it may do. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "fs/fs.h"

enum {
	P_DIR,
	P_ADDRESS,
	P_CERTIFICATE,
	P_PING,
	P_VERSION,
	P_ALLOW,
	P_TRANSFERS,
	P_SLOTS
};
static const struct ent files[] = {
	{ "address", P_ADDRESS, S_IFREG | 0644, 0 },
	{ "certificate.pem", P_CERTIFICATE, S_IFREG | 0444, 0 },
	{ "ping", P_PING, S_IFREG | 0644, 0 },
	{ "version", P_VERSION, S_IFREG | 0444, 0 },
	{ "allow", P_ALLOW, S_IFREG | 0644, 0 },
	{ "transfers", P_TRANSFERS, S_IFREG | 0444, 0 },
};

#define TEXT_MAX (256u << 10)

/* What rollsite said within the last second, so that ls -l asks it once; who
 * opens a file is told what is now. */
static struct cached {
	uint64_t party;
	unsigned slot;
	int64_t until_ms;
	char *text;
} cache[256];
static pthread_mutex_t cache_lock = PTHREAD_MUTEX_INITIALIZER;

static char *ask(unsigned slot, const char *id)
{
	switch (slot) {
	case P_CERTIFICATE:
		return transfer_certificate_text(fs.transfer, id);
	case P_PING:
		return transfer_ping_text(fs.transfer, id);
	case P_VERSION:
		return transfer_version_text(fs.transfer, id);
	case P_TRANSFERS:
		return transfer_transfers_text(fs.transfer, id);
	default:
		return NULL;
	}
}

static char *ended(char *s)
{
	size_t n = s ? strlen(s) : 0;
	char *p;

	if (!n || s[n - 1] == '\n')
		return s;
	p = realloc(s, n + 2);
	if (!p)
		return s;
	p[n] = '\n';
	p[n + 1] = '\0';
	return p;
}

static char *text_of(struct nid n, bool fresh)
{
	struct cached *c =
	    &cache[(n.number * P_SLOTS + n.slot) % ARRAY_SIZE(cache)];
	char id[24];
	char *text = NULL;

	(void)snprintf(id, sizeof(id), "%llu", (unsigned long long)n.number);
	if (n.slot == P_ADDRESS)
		return ended(party_address(fs.conf, id));
	if (n.slot == P_ALLOW)
		return ended(party_allow(fs.conf, id));
	pthread_mutex_lock(&cache_lock);
	if (!fresh && c->party == n.number && c->slot == n.slot &&
	    c->until_ms > now_mono_ms())
		text = strdup(c->text ? c->text : "");
	pthread_mutex_unlock(&cache_lock);
	if (text)
		return text;
	text = ended(ask(n.slot, id));
	pthread_mutex_lock(&cache_lock);
	free(c->text);
	*c = (struct cached){ n.number, n.slot, now_mono_ms() + 1000,
			      text ? strdup(text) : NULL };
	pthread_mutex_unlock(&cache_lock);
	return text;
}

static void cache_drop(uint64_t party)
{
	pthread_mutex_lock(&cache_lock);
	for (size_t i = 0; i < ARRAY_SIZE(cache); i++)
		if (cache[i].party == party)
			cache[i].until_ms = 0;
	pthread_mutex_unlock(&cache_lock);
}

bool party_known(const char *id)
{
	char **all = party_list(fs.conf);
	bool found = false;

	for (char **p = all; p && *p; p++) {
		found |= !strcmp(*p, id);
		free(*p);
	}
	free(all);
	return found;
}

static int parties_getattr(const struct who *w, struct nid n, struct attr *ret)
{
	const struct ent *e;
	_cleanup_free_ char *text = NULL;
	fuse_ino_t ino = nid_ino(K_PARTY, n.number, n.slot);

	(void)w;
	if (n.slot == P_DIR) {
		attr_fill(ret, ino, S_IFDIR | 0755, 0, 0);
		return 0;
	}
	e = ent_by_slot(files, ARRAY_SIZE(files), n.slot);
	if (!e)
		return -ENOENT;
	text = text_of(n, false);
	attr_fill(ret, ino, e->mode, text ? strlen(text) : 0, 0);
	return 0;
}

int party_lookup(const char *name, struct attr *ret)
{
	if (!party_id_valid(name) || !party_known(name))
		return -ENOENT;
	return parties_getattr(
	    NULL, (struct nid){ K_PARTY, strtoull(name, NULL, 10), P_DIR },
	    ret);
}

int parties_list(struct listing *l)
{
	char **all = party_list(fs.conf);

	for (char **p = all; p && *p; p++) {
		listing_add(l, *p, nid_ino(K_PARTY, strtoull(*p, NULL, 10), 0),
			    S_IFDIR);
		free(*p);
	}
	free(all);
	return 0;
}

static int party_dir(const char *id, char *buf, size_t n)
{
	return snprintf(buf, n, "%s/parties/%s", fs.conf->state, id) < (int)n
		   ? 0
		   : -ENAMETOOLONG;
}

int party_mkdir(const struct who *w, const char *name, struct attr *ret)
{
	char dir[4096];
	struct err e = { 0 };
	int no = 0;

	if (w->uid != fs.uid)
		return -EACCES;
	if (!party_id_valid(name) || !strcmp(name, fs.conf->party)) {
		(void)snprintf(dir, sizeof(dir), "parties/%.300s", name);
		errors_add(w->uid, dir, -EINVAL,
			   "a party's id has 1 to 10 digits, no zero in front, "
			   "and is not our own");
		return -EINVAL;
	}
	if (party_known(name))
		return -EEXIST;
	if (!no)
		no = party_dir(name, dir, sizeof(dir));
	if (!no)
		no = mkdir_p_durable(dir, 0700, &e);
	if (!no) {
		(void)snprintf(dir, sizeof(dir), "%s/parties", fs.conf->state);
		no = dir_sync(dir, &e);
	}
	if (!no)
		no = transfer_parties_reload(fs.transfer, &e);
	if (no) {
		errors_add(w->uid, name, no, e.text);
		return no;
	}
	if (real_start(&e))
		log_warn("fs", "%s", e.text);
	return party_lookup(name, ret);
}

/* Only what was added here; the configuration's stay. */
int party_rmdir(const struct who *w, const char *name)
{
	char dir[4096];
	struct err e = { 0 };
	int no;

	if (w->uid != fs.uid)
		return -EACCES;
	if (!party_id_valid(name) || !party_known(name))
		return -ENOENT;
	if (conf_party(fs.conf, name)) {
		errors_add(w->uid, name, -EPERM,
			   "this party stands in the configuration file");
		return -EPERM;
	}
	no = party_dir(name, dir, sizeof(dir));
	if (!no)
		no = remove_tree(dir, &e);
	if (!no)
		no = transfer_parties_reload(fs.transfer, &e);
	return no;
}

static int parties_lookup(const struct who *w, struct nid dir, const char *name,
			  struct attr *ret)
{
	const struct ent *e = ent_by_name(files, ARRAY_SIZE(files), name);

	if (dir.slot == P_DIR && name_beside(name))
		return real_lookup(
		    (struct real_at){ REAL_TEMP_PARTY, dir.number, name }, ret);
	return e && dir.slot == P_DIR
		   ? parties_getattr(
			 w, (struct nid){ K_PARTY, dir.number, e->slot }, ret)
		   : -ENOENT;
}

static int parties_list_dir(const struct who *w, struct nid dir,
			    struct listing *l)
{
	(void)w;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		listing_add(l, files[i].name,
			    nid_ino(K_PARTY, dir.number, files[i].slot),
			    S_IFREG);
	return real_list((struct real_at){ REAL_TEMP_PARTY, dir.number, "" },
			 l);
}

/* ---- address, allow and ping are written ------------------------------ */

static const char *name_of(struct nid n)
{
	const struct ent *e = ent_by_slot(files, ARRAY_SIZE(files), n.slot);

	return e ? e->name : "";
}

static int refused(struct handle *h, int no, const struct err *e)
{
	char what[64];

	(void)snprintf(what, sizeof(what), "parties/%llu/%s",
		       (unsigned long long)h->nid.number, name_of(h->nid));
	errors_add(h->uid, what, no, e->text);
	h->failed = no;
	return no;
}

static int validate(const struct handle *h, struct err *e)
{
	_cleanup_free_ char *s = NULL;
	char id[24];
	size_t n;

	if (h->nid.slot == P_ALLOW)
		return allow_check(h->text.buf, e);
	if (h->nid.slot != P_ADDRESS)
		return 0;
	s = strdup(h->text.buf);
	if (!s)
		return -ENOMEM;
	for (n = strlen(s); n && strchr(" \t\r\n", s[n - 1]); n--)
		s[n - 1] = '\0';
	(void)snprintf(id, sizeof(id), "%llu",
		       (unsigned long long)h->nid.number);
	return party_address_check(fs.conf, id, s, e);
}

static void party_write(fuse_req_t r, struct handle *h, const char *buf,
			size_t n, off_t off)
{
	struct err e = { 0 };
	int no = 0;

	if (h->nid.slot == P_PING) { /* any text means: ask again */
		char id[24];

		(void)snprintf(id, sizeof(id), "%llu",
			       (unsigned long long)h->nid.number);
		transfer_ping_refresh(fs.transfer, id);
		cache_drop(h->nid.number);
		fuse_reply_write(r, n);
		return;
	}
	pthread_mutex_lock(&h->lock);
	if (h->failed)
		no = h->failed;
	else if ((h->flags & O_APPEND) ? 0 : (uint64_t)off != h->text.len)
		no = refused(
		    h, err_set(&e, EINVAL, "written from its start to its end"),
		    &e);
	else if (h->text.len + n > TEXT_MAX)
		no = refused(h, err_set(&e, EFBIG, "too long"), &e);
	else if (memchr(buf, '\0', n))
		no = refused(h, err_set(&e, EINVAL, "a NUL byte"), &e);
	else
		no = sb_add(&h->text, buf, n);
	/* Whole lines are judged at once: the shells' own echo reports an
	 * error of write, not one of close. */
	if (!no && h->text.len && h->text.buf[h->text.len - 1] == '\n') {
		no = validate(h, &e);
		if (no)
			refused(h, no, &e);
	}
	if (!no)
		h->bytes += n;
	pthread_mutex_unlock(&h->lock);
	if (no)
		fuse_reply_err(r, -no);
	else
		fuse_reply_write(r, n);
}

/* ": > allow" takes every right away. */
static bool emptied(const struct handle *h)
{
	return h->nid.slot == P_ALLOW && (h->flags & O_TRUNC);
}

/* As open(2) without O_TRUNC writes: what it leaves is no text of anybody's. */
static int whole(const struct handle *h, struct err *e)
{
	_cleanup_free_ char *was = NULL;

	if (h->flags & (O_TRUNC | O_APPEND))
		return 0;
	was = text_of(h->nid, true);
	return was && strlen(was) > h->text.len
		   ? err_set(e, EINVAL,
			     "written over in part: write it whole (cp, >), or "
			     "add lines (>>)")
		   : 0;
}

static int store(struct handle *h)
{
	char path[4096];
	struct err e = { 0 };
	int no;

	if ((!h->bytes && !emptied(h)) || h->failed)
		return 0;
	no = whole(h, &e);
	if (!no)
		no = validate(h, &e);
	(void)snprintf(path, sizeof(path), "%s/parties/%llu", fs.conf->state,
		       (unsigned long long)h->nid.number);
	if (!no)
		no = mkdir_p_durable(path, 0700, &e);
	(void)snprintf(path, sizeof(path), "%s/parties/%llu/%s", fs.conf->state,
		       (unsigned long long)h->nid.number, name_of(h->nid));
	if (!no)
		no = file_replace(path, h->text.buf, h->text.len, 0600, true,
				  &e);
	if (!no)
		no = transfer_parties_reload(fs.transfer, &e);
	if (no)
		return refused(h, no, &e);
	h->bytes = 0;
	h->flags &= ~O_TRUNC;
	cache_drop(h->nid.number);
	return 0;
}

static void party_flush(fuse_req_t r, struct handle *h)
{
	int no = 0;

	pthread_mutex_lock(&h->lock);
	if ((h->bytes || emptied(h)) && proc_closer(h, r) == CLOSE_OPENER)
		no = store(h);
	pthread_mutex_unlock(&h->lock);
	fuse_reply_err(r, -no);
}

static void party_fsync(fuse_req_t r, struct handle *h)
{
	int no;

	pthread_mutex_lock(&h->lock);
	no = h->failed ? h->failed : store(h);
	pthread_mutex_unlock(&h->lock);
	fuse_reply_err(r, -no);
}

/* What was there stays until the close replaces it. */
static int party_truncate(struct handle *h, off_t size)
{
	if (size)
		return -EINVAL;
	pthread_mutex_lock(&h->lock);
	sb_reset(&h->text);
	h->flags |= O_TRUNC;
	pthread_mutex_unlock(&h->lock);
	return 0;
}

static void party_read(fuse_req_t r, struct handle *h, size_t n, off_t off,
		       struct fuse_file_info *fi)
{
	(void)fi;
	reply_read_text(r, &h->text, n, off);
}

static const struct handle_ops party_ops = {
	.read = party_read,
	.write = party_write,
	.flush = party_flush,
	.fsync = party_fsync,
	.truncate = party_truncate,
};

static int parties_open(const struct who *w, struct nid n, int flags,
			struct handle **ret)
{
	struct handle *h;

	if ((flags & O_ACCMODE) == O_RDONLY)
		return open_text(w, n, flags, text_of(n, true), ret);
	if (n.slot != P_ADDRESS && n.slot != P_ALLOW && n.slot != P_PING)
		return -EACCES;
	h = handle_new(w, n, flags, &party_ops);
	if (!h)
		return -ENOMEM;
	/* Appending keeps the lines that are there. */
	if (!(flags & O_TRUNC) && (flags & O_APPEND) && n.slot != P_PING) {
		_cleanup_free_ char *text = text_of(n, true);

		if (text)
			sb_adds(&h->text, text);
	}
	*ret = h;
	return 0;
}

/* ---- temporary names beside them: editors, sed -i, rsync --------------- */

static int parties_create(const struct who *w, struct nid dir, const char *name,
			  mode_t mode, int flags, struct attr *ret,
			  struct handle **ret_h)
{
	if (dir.slot != P_DIR || !name_beside(name))
		return -EPERM;
	return real_create(
	    w, (struct real_at){ REAL_TEMP_PARTY, dir.number, name }, mode,
	    flags, ret, ret_h);
}

/* What was written under a temporary name becomes address or allow. */
static int take_file(const struct who *w, struct nid n, struct real_at from)
{
	_cleanup_free_ char *path = real_disk(from);
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT(TEXT_MAX);
	struct handle *h = NULL;
	int no = path ? file_read(path, &text, NULL) : -ENOMEM;

	if (!no)
		no = parties_open(w, n, O_WRONLY | O_TRUNC, &h);
	if (!no)
		no = sb_add(&h->text, text.buf, text.len);
	if (!no) {
		h->bytes = text.len;
		no = store(h);
	}
	handle_free(h);
	return no ? no : real_unlink(w, from);
}

static int parties_rename(const struct who *w, struct nid dir, const char *name,
			  struct nid to, const char *to_name, unsigned flags)
{
	const struct ent *e = ent_by_name(files, ARRAY_SIZE(files), to_name);
	struct real_at from = { REAL_TEMP_PARTY, dir.number, name };
	struct nid n = { K_PARTY, to.number, e ? e->slot : 0 };

	if (dir.slot != P_DIR || to.slot != P_DIR || !name_beside(name) ||
	    dir.number != to.number)
		return -EPERM;
	if (name_beside(to_name))
		return real_rename(
		    w, from,
		    (struct real_at){ REAL_TEMP_PARTY, to.number, to_name });
	if (!e || (n.slot != P_ADDRESS && n.slot != P_ALLOW))
		return -EPERM;
	return flags ? -EEXIST : take_file(w, n, from);
}

/* rm -r parties/<id> goes through the files first. */
static int parties_unlink(const struct who *w, struct nid dir, const char *name)
{
	char id[24];

	if (dir.slot == P_DIR && name_beside(name))
		return real_unlink(
		    w, (struct real_at){ REAL_TEMP_PARTY, dir.number, name });
	(void)snprintf(id, sizeof(id), "%llu", (unsigned long long)dir.number);
	if (w->uid != fs.uid || conf_party(fs.conf, id))
		return -EPERM;
	return 0;
}

static void parties_path(struct nid n, struct strbuf *ret)
{
	const char *name = name_of(n);

	sb_addf(ret, "parties/%llu%s%s", (unsigned long long)n.number,
		*name ? "/" : "", name);
}

const struct tree tree_parties = {
	.lookup = parties_lookup,
	.getattr = parties_getattr,
	.list = parties_list_dir,
	.open = parties_open,
	.create = parties_create,
	.unlink = parties_unlink,
	.rename = parties_rename,
	.path = parties_path,
};
