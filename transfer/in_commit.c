// SPDX-License-Identifier: Apache-2.0
/*
 * The commit of a transfer: the receipt becomes durable first, then .data is
 * renamed to its place (or given to the messages).
 */
#include <endian.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/in_priv.h"

struct committing { /* one commit of a transfer at a time */
	struct committing *next;
	char tid[65];
};

/* Under s->lock. */
static struct committing *commits;
/* Renames into the inbox, so that an older generation never comes last. */
static pthread_mutex_t publishing = PTHREAD_MUTEX_INITIALIZER;

/* ---- may it? ----------------------------------------------------------- */

/* The manifest and what follows it. */
static int commit_body(struct serve *v, struct object *ret, json_t **ret_doc,
		       const char **ret_data, size_t *ret_n, struct err *e)
{
	uint32_t len;

	if (v->body.len < 4)
		return err_set(e, EINVAL, "a manifest is missing");
	memcpy(&len, v->body.buf, 4);
	len = le32toh(len);
	if (len > DOCUMENT_MAX || len > v->body.len - 4)
		return err_set(e, EINVAL, "a manifest of %u bytes", len);
	*ret_doc = json_parse(v->body.buf + 4, len, e);
	if (!*ret_doc)
		return err_wrap(e, "manifest");
	*ret_data = v->body.buf + 4 + len;
	*ret_n = v->body.len - 4 - len;
	return object_parse(*ret_doc, true, ret, e);
}

static int check_signature(struct serve *v, const json_t *doc, struct err *e)
{
	_cleanup_free_ char *text = NULL;
	json_t *bare = json_copy((json_t *)doc);
	const char *signature = json_str_or(doc, "signature", "");
	int r;

	json_object_del(bare, "signature");
	text = json_text(bare, false);
	json_decref(bare);
	if (!v->cert)
		return err_set(e, EACCES, "not allowed");
	r = signature_check(v->cert, "rollfs-manifest-v1", text, strlen(text),
			    signature, e);
	/* Not for good: a certificate may just have been renewed. */
	return r ? err_set(e, EBADMSG,
			   "the manifest's signature is not of its party's "
			   "certificate")
		 : 0;
}

/* A small one came with its manifest. */
static int take_inline(struct serve *v, const struct object *o,
		       const char *data, size_t n, struct err *e)
{
	_cleanup_free_ char *path = in_path(v->s, o->tid, ".data");
	_cleanup_close_ int fd = -1;
	uint8_t digest[32], root[32];
	char hex[65];
	int r;

	if (n != o->size || n > INLINE_MAX)
		return err_set(e, EINVAL, "the content has another length");
	sha256(data, n, digest);
	merkle_root(&digest, n ? 1 : 0, root);
	hex_encode(root, 32, hex);
	if (strcmp(hex, o->root))
		return err_set(e, EBADMSG, "the digest does not match");
	r = in_admit(v->s, o, e);
	if (r)
		return r;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, errno, "%s", path);
	r = write_all(fd, data, n);
	if (!r && fdatasync(fd))
		r = -errno;
	if (r)
		(void)unlink(path);
	return r ? err_sys(e, -r, "%s", path) : 0;
}

/* lock held: which chunks are not there */
static char *missing(const struct incoming *t, uint64_t n)
{
	uint8_t *lack = xcalloc(1, t->room / 8 + 1);
	char *text;

	for (uint64_t i = 0; i < n; i++)
		bit_set(lack, i, !bit(t->bits, i));
	text = ranges_text(lack, n, 256u << 10);
	free(lack);
	return text ? text : xstrdup("");
}

/* Its chunks are all there, and stay as they are; *ret are their digests. 1:
 * the answer stands. */
static int freeze(struct serve *v, struct incoming *t, uint64_t n,
		  uint8_t (**ret)[32], struct err *e)
{
	struct site *s = v->s;
	_cleanup_free_ char *lack = NULL;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	if (n)
		in_room(t, n - 1);
	for (uint64_t i = n; i < t->room; i++)
		if (bit(t->bits, i)) /* it became shorter */
			in_mark(t, i, false, t->digests[i]);
	if (t->committing || t->gone)
		r = err_set(e, EAGAIN, "its commit is under way");
	else if (t->count == n)
		t->committing = true;
	else
		lack = missing(t, n);
	pthread_mutex_unlock(&s->lock);
	if (!r && !lack) {
		/* A request of long ago may just bring another content of a
		 * chunk; if it wrote any of it, the chunk is missing now. */
		in_chunks_stop(s, t);
		pthread_mutex_lock(&s->lock);
		if (t->count == n) {
			*ret = xcalloc(n + 1, 32);
			if (n)
				memcpy(*ret, t->digests, n * 32);
		} else {
			lack = missing(t, n);
		}
		pthread_mutex_unlock(&s->lock);
	}
	if (!lack)
		return r;
	serve_json(
	    v, 409,
	    json_pack("{s:s, s:s}", "code", "incomplete", "missing", lack));
	return 1;
}

/* All chunks are there and make the root; the answer stands when they do not.
 * The lock of s is taken inside; the digests are many, so not for the sum. */
static int complete(struct serve *v, struct incoming *t, const struct object *o,
		    struct err *e)
{
	uint64_t n = object_chunks(o);
	uint8_t(*digests)[32] = NULL;
	struct stat st;
	uint8_t root[32];
	char hex[65];
	int r;

	if (t->o.chunk_size != o->chunk_size)
		return err_set(e, EEXIST, "announced before with other chunks");
	r = freeze(v, t, n, &digests, e);
	if (r)
		return r;
	merkle_root((const uint8_t(*)[32])digests, n, root);
	free(digests);
	hex_encode(root, 32, hex);
	if (strcmp(hex, o->root)) {
		serve_json(v, 409, json_pack("{s:s}", "code", "root_mismatch"));
		return 1;
	}
	if (!fstat(t->fd, &st) && (uint64_t)st.st_size < o->size)
		return err_set(e, EIO, "the disk has lost chunks of it");
	/* Gives back what was allocated ahead, too. */
	if (fstat(t->fd, &st) || ftruncate(t->fd, (off_t)o->size) ||
	    ((uint64_t)st.st_size != o->size && fdatasync(t->fd)))
		return err_sys(e, errno, "data");
	return 0;
}

/* ---- into its place ---------------------------------------------------- */

/* The rename; parent is the directory of the inbox. */
static int put_in_place(struct site *s, const struct receipt_rec *rec,
			int parent, bool again, struct err *e)
{
	_cleanup_free_ char *data = in_path(s, rec->tid, ".data");
	uint64_t newer;
	int r = 0;

	pthread_mutex_lock(&publishing);
	pthread_mutex_lock(&s->lock);
	newer = receipt_newest(rec->party, rec->path);
	pthread_mutex_unlock(&s->lock);
	if (newer > rec->generation)
		(void)unlink(data);
	else if (renameat(AT_FDCWD, data, parent, last_part(rec->path)) &&
		 (errno != ENOENT || !again))
		r = err_sys(e, errno, "inbox");
	pthread_mutex_unlock(&publishing);
	if (!r && fsync(parent))
		r = err_sys(e, errno, "inbox");
	return r;
}

static int inbox_parent(struct site *s, const char *party, const char *path,
			int *ret, struct err *e)
{
	_cleanup_free_ char *in =
	    xasprintf("%s/federation/%s/in", s->conf->state, party);
	struct stat st;
	int r = mkdir_p_durable(in, 0700, e);

	if (r)
		return r;
	*ret = parent_beneath(in, path);
	if (*ret == -ELOOP || *ret == -ENOTDIR) {
		if (audit_may(party))
			log_warn("audit", "party %s: a file path was refused",
				 party);
		return err_set(e, EACCES, "not allowed");
	}
	if (*ret < 0)
		return err_sys(e, -*ret, "inbox");
	if (!fstatat(*ret, last_part(path), &st, AT_SYMLINK_NOFOLLOW) &&
	    S_ISDIR(st.st_mode))
		return err_set(e, EEXIST, "a directory has this name");
	return 0;
}

static int sync_partials(struct site *s)
{
	_cleanup_free_ char *dir =
	    xasprintf("%s/transfer/partial", s->conf->state);

	return dir_sync(dir, NULL);
}

/* Receipt, then rename: see the top. */
static int publish_file(struct serve *v, const struct object *o, struct err *e)
{
	struct site *s = v->s;
	struct receipt_rec *rec = xcalloc(1, sizeof(*rec)), *other = NULL;
	struct journal *log = NULL;
	_cleanup_free_ char *line = NULL;
	_cleanup_close_ int parent = -1;
	uint64_t upto = 0;
	int r = inbox_parent(s, o->src, o->path, &parent, e);

	if (!r)
		r = receipt_make(s, o, &rec->doc, e);
	if (!r && sync_partials(s))
		r = err_set(e, EIO, "cannot sync");
	if (r) {
		receipt_rec_free(rec);
		return r;
	}
	hook_die("in-before-receipt");
	memcpy(rec->tid, o->tid, sizeof(rec->tid));
	memcpy(rec->party, o->src, sizeof(rec->party));
	rec->path = xstrdup(o->path);
	rec->generation = o->generation;
	line = receipt_line(rec);
	pthread_mutex_lock(&s->lock);
	other = receipt_find(o->tid);
	if (other) {
		r = err_set(e, EAGAIN, "its commit is under way");
	} else {
		log = journal_of(s, o->src, ".receipts");
		r = log ? journal_raw(log, line, strlen(line)) : -EIO;
		if (!r) {
			receipt_put(rec);
			upto = journal_len(log);
		} else {
			err_sys(e, -r, "receipt");
		}
	}
	pthread_mutex_unlock(&s->lock);
	if (r) {
		receipt_rec_free(rec);
		return r;
	}
	r = journal_sync(log, upto);
	if (r)
		return err_sys(e, -r, "receipt");
	hook_die("in-receipt-written");
	r = put_in_place(s, rec, parent, false, e);
	if (r)
		return r;
	hook_die("in-renamed");
	pthread_mutex_lock(&s->lock);
	rec->ready = true;
	count_of(s, o->src)->received++;
	if (o->size <= INLINE_MAX)
		count_of(s, o->src)->bytes_received += o->size;
	pthread_mutex_unlock(&s->lock);
	file_arrived(s, o->src, o->path);
	in_answer_committed(v, 200, &rec->doc);
	hook_die("in-answered");
	return 0;
}

static int publish_message(struct serve *v, const struct object *o,
			   struct err *e)
{
	struct site *s = v->s;
	_cleanup_free_ char *data = in_path(s, o->tid, ".data");
	struct message_head h = { .key = *o->key, .size = o->size };
	struct receipt_doc doc = { 0 };
	struct journal *log = NULL;
	uint64_t upto = 0;
	int r;

	memcpy(h.tid, o->tid, sizeof(h.tid));
	memcpy(h.sha256, o->sha256, sizeof(h.sha256));
#ifdef ROLLFS_TEST_HOOKS
	{
		_cleanup_close_ int fd = open(data, O_RDWR | O_CLOEXEC);
		char last;

		if (fd >= 0 && o->size &&
		    !pread_all(fd, &last, 1, o->size - 1)) {
			hook_flip(&h, &last, 1);
			(void)!pwrite(fd, &last, 1, (off_t)o->size - 1);
		}
	}
#endif
	r = site_deliver(s, &h, v->party, NULL, data, &log, &upto, e);
	if (!r) {
		pthread_mutex_lock(&s->lock);
		count_of(s, o->src)->received++;
		pthread_mutex_unlock(&s->lock);
	}
	if (log) {
		int x = journal_sync(log, upto);

		journal_unref(log);
		if (x)
			r = err_sys(e, -x, "message");
	}
	if (r >= 0)
		r = receipt_make(s, o, &doc, e);
	if (!r)
		in_answer_committed(v, 200, &doc);
	receipt_free(&doc);
	return r;
}

/* A receipt whose rename failed: done again. */
static int finish_publishing(struct site *s, const char *tid, struct err *e)
{
	_cleanup_close_ int parent = -1;
	struct receipt_rec *rec = NULL;
	int r;

	pthread_mutex_lock(&s->lock);
	rec = receipt_find(tid);
	if (rec && rec->ready)
		rec = NULL;
	pthread_mutex_unlock(&s->lock);
	if (!rec)
		return 0;
	r = inbox_parent(s, rec->party, rec->path, &parent, e);
	if (!r)
		r = put_in_place(s, rec, parent, true, e);
	if (r)
		return r;
	pthread_mutex_lock(&s->lock);
	rec->ready = true;
	pthread_mutex_unlock(&s->lock);
	file_arrived(s, rec->party, rec->path);
	return 0;
}

/* Data without an announcement, or with a receipt. */
void in_finish_data(struct site *s, const char *tid)
{
	_cleanup_free_ char *json = in_path(s, tid, ".json");
	struct receipt_rec *rec = NULL;
	_cleanup_close_ int parent = -1;
	struct err e = { 0 };

	rec = receipt_find(tid);
	if (!rec) {
		if (access(json, F_OK))
			in_remove_files(s, tid);
		return;
	}
	if (inbox_parent(s, rec->party, rec->path, &parent, &e) ||
	    put_in_place(s, rec, parent, true, &e)) {
		log_error("rollsite", "a file of party %s: %s", rec->party,
			  e.text);
		return;
	}
	in_remove_files(s, tid);
}

/* ---- commit ------------------------------------------------------------ */

bool in_committing_locked(const char *tid)
{
	const struct committing *x;

	for (x = commits; x && strcmp(x->tid, tid); x = x->next)
		;
	return x;
}

/* Who comes second waits, and then finds the receipt. */
static void commit_lock(struct site *s, struct committing *mine)
{
	pthread_mutex_lock(&s->lock);
	while (in_committing_locked(mine->tid))
		(void)site_wait(s, WAIT_COMMIT, mine->tid, -1, 0);
	mine->next = commits;
	commits = mine;
	pthread_mutex_unlock(&s->lock);
}

static void commit_unlock(struct site *s, const struct committing *mine)
{
	struct committing **at;

	pthread_mutex_lock(&s->lock);
	for (at = &commits; *at != mine; at = &(*at)->next)
		;
	*at = mine->next;
	site_wake(s, WAIT_COMMIT, mine->tid);
	pthread_mutex_unlock(&s->lock);
}

static int commit(struct serve *v, const struct object *o, struct incoming *t,
		  const char *data, size_t n, struct err *e)
{
	_cleanup_free_ char *allow = party_allow(v->s->conf, v->party);
	uint64_t left;
	int r = 0;

	/* Asked again: others may have filled the inbox meanwhile. */
	if (o->kind == OBJECT_FILE && t)
		r = in_may_push(v->s, allow, o, &left, e);
	if (!r && t)
		r = complete(v, t, o, e);
	else if (!r && o->size <= INLINE_MAX && n == o->size)
		r = take_inline(v, o, data, n, e);
	else if (!r)
		r = err_set(e, ENOENT, "no such transfer");
	if (r)
		return r;
	return o->kind == OBJECT_FILE ? publish_file(v, o, e)
				      : publish_message(v, o, e);
}

void in_commit(struct serve *v, const char *tid)
{
	struct site *s = v->s;
	struct committing mine = { 0 };
	struct object o = { 0 };
	struct incoming *t = NULL;
	json_t *doc = NULL;
	struct err e = { 0 };
	const char *data = NULL;
	size_t n = 0;
	int r = commit_body(v, &o, &doc, &data, &n, &e);

	if (!r)
		r = in_belongs(v, &o, tid, &e);
	if (!r)
		r = check_signature(v, doc, &e);
	if (r) {
		serve_refuse(v, r, &e);
		if (r != -EINVAL)
			in_audit(v, "refused commit", &o);
		json_decref(doc);
		object_free(&o);
		return;
	}
	memcpy(mine.tid, o.tid, sizeof(mine.tid));
	commit_lock(s, &mine);
	r = finish_publishing(s, tid, &e);
	if (r)
		serve_refuse(v, r, &e);
	if (r || in_done_before(v, &o))
		goto out;
	/* Nobody announces it from now on: an announcement that is under way
	 * has made its files. */
	pthread_mutex_lock(&in_making);
	t = in_find(s, tid, v->party);
	pthread_mutex_unlock(&in_making);
	r = commit(v, &o, t, data, n, &e);
	pthread_mutex_lock(&in_making);
	pthread_mutex_lock(&s->lock);
	if (t && !r)
		in_forget_locked(s, t);
	else if (t)
		t->committing = false;
	pthread_mutex_unlock(&s->lock);
	if (!r) {
		in_remove_files(s, tid);
		in_drop_older(s, &o);
	}
	pthread_mutex_unlock(&in_making);
	if (r < 0)
		serve_refuse(v, r, &e);
	if (r <= 0)
		in_audit(v, r ? "refused commit" : "commit", &o);
out:
	commit_unlock(s, &mine);
	in_unref(s, t);
	json_decref(doc);
	object_free(&o);
}
