// SPDX-License-Identifier: Apache-2.0
/*
 * Transfers from others.  STATE/transfer/partial/ holds what is arriving:
 *
 *   <tid>.json   the announcement
 *   <tid>.data   chunks at their place
 *   <tid>.have   48 bytes for each chunk that is durable in .data: u32 index,
 *                u32 type (1 have, 2 no more), its SHA-256, 8 bytes check
 *
 * A chunk is acknowledged when .data and then .have are on disk (in_chunk.c).
 * A commit makes the receipt durable first (receipt.c) and then renames .data
 * to its place (in_commit.c): a receipt whose .data is still here is a rename
 * to be done again, at start.
 */
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/in_priv.h"

/* The analyzer takes what is put into a table of uthash for lost. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

#define PARTIAL_MS    (7ll * 24 * 3600 * 1000)
#define CREDIT_ALL    16u
#define TRANSFERS_MAX 1000u /* arriving from one party at a time */
/* Chunks that all transfers of a party have room for, 32 bytes each (those with
 * few are not asked): what comes last in a file may be sent first, by who only
 * wants to see our memory go. */
#define ROOMS_MAX  (8u * CHUNKS_MAX)
#define ROOM_FREE  1024u
#define OPEN_OTHER 600u /* files and connections that are none of transfers */

pthread_mutex_t in_making = PTHREAD_MUTEX_INITIALIZER;

/* ---- what is arriving -------------------------------------------------- */

char *in_path(const struct site *s, const char *tid, const char *end)
{
	return xasprintf("%s/transfer/partial/%s%s", s->conf->state, tid, end);
}

bool in_may_grow(const struct site *s, const struct incoming *t, uint64_t i)
{
	const struct incoming *x, *tmp;
	uint64_t sum = 2 * i;

	if (i < t->room || i < ROOM_FREE)
		return true;
	HASH_ITER (hh, s->arriving, x, tmp)
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		sum += strcmp(x->o.src, t->o.src) || x == t ? 0 : x->room;
	return sum <= ROOMS_MAX;
}

/* lock held (or nobody else knows it): room for chunk i */
void in_room(struct incoming *t, uint64_t i)
{
	uint64_t n = MAX(t->room, 8);

	if (i < t->room)
		return;
	while (n <= i)
		n *= 2;
	t->digests = xrealloc(t->digests, n * 32);
	t->bits = xrealloc(t->bits, n / 8);
	memset(t->digests + t->room, 0, (n - t->room) * 32);
	memset(t->bits + t->room / 8, 0, (n - t->room) / 8);
	t->room = n;
}

void in_mark(struct incoming *t, uint64_t i, bool on, const uint8_t digest[32])
{
	in_room(t, i);
	if (on != bit(t->bits, i))
		t->count += on ? 1 : UINT64_MAX;
	bit_set(t->bits, i, on);
	memcpy(t->digests[i], digest, 32);
}

static void in_free(struct incoming *t)
{
	if (t->fd >= 0)
		close(t->fd);
	journal_unref(t->have);
	object_free(&t->o);
	free(t->digests);
	free(t->bits);
	pthread_mutex_destroy(&t->lock);
	pthread_cond_destroy(&t->synced);
	free(t);
}

void in_unref(struct site *s, struct incoming *t)
{
	bool last;

	if (!t)
		return;
	pthread_mutex_lock(&s->lock);
	last = !--t->refs;
	pthread_mutex_unlock(&s->lock);
	if (last)
		in_free(t);
}

struct incoming *in_find(struct site *s, const char *tid, const char *party)
{
	struct incoming *t = NULL;

	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(s->arriving, tid, t);
	if (t && strcmp(t->o.src, party))
		t = NULL;
	if (t) {
		t->refs++;
		t->touched_ms = now_unix_ms();
	}
	pthread_mutex_unlock(&s->lock);
	return t;
}

void in_remove_files(struct site *s, const char *tid)
{
	static const char *const ends[] = { ".json", ".have", ".data" };

	/* The announcement first: data without one is swept. */
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		_cleanup_free_ char *p = in_path(s, tid, ends[i]);

		(void)unlink(p);
	}
}

/* lock held: nobody finds it any more */
void in_forget_locked(struct site *s, struct incoming *t)
{
	if (t->gone)
		return;
	t->gone = true;
	HASH_DEL(s->arriving, t);
	t->refs--;
}

static int open_files(struct site *s, struct incoming *t, struct err *e)
{
	_cleanup_free_ char *data = in_path(s, t->tid, ".data");
	_cleanup_free_ char *have = in_path(s, t->tid, ".have");

	t->fd = open(data, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (t->fd < 0)
		return err_sys(e, errno, "%s", data);
	return journal_open(have, NULL, NULL, &t->have, e);
}

static struct incoming *incoming_new(const struct object *o)
{
	struct incoming *t = xcalloc(1, sizeof(*t));

	t->o = *o;
	t->o.path = o->path ? xstrdup(o->path) : NULL;
	if (o->key) {
		t->o.key = xmalloc(sizeof(*o->key));
		*t->o.key = *o->key;
	}
	memcpy(t->tid, o->tid, sizeof(t->tid));
	t->refs = 1;
	t->fd = -1;
	t->touched_ms = now_unix_ms();
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->synced, NULL);
	return t;
}

/* ---- may it? ----------------------------------------------------------- */

/* What a quota counts for each, besides its bytes: empty ones are not free. */
#define FOLDER_BYTES 4096u
#define FILE_BYTES   256u

static uint64_t tree_bytes(const char *dir)
{
	_cleanup_closedir_ DIR *d = opendir(dir);
	struct dirent *de;
	uint64_t sum = 0;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *p = NULL;
		struct stat st;

		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		p = xasprintf("%s/%s", dir, de->d_name);
		if (!lstat(p, &st))
			sum += S_ISDIR(st.st_mode)
				   ? FOLDER_BYTES + tree_bytes(p)
				   : FILE_BYTES + (uint64_t)st.st_size;
	}
	return sum;
}

/* Is there room for more bytes, with the floor that the disk keeps? */
int in_disk_room(struct site *s, const char *allow, uint64_t more,
		 struct err *e)
{
	struct statvfs v;
	uint64_t floor, left;

	if (statvfs(s->conf->state, &v))
		return err_sys(e, errno, "state directory");
	left = (uint64_t)v.f_bavail * v.f_frsize;
	if (!allow_limit(allow, "floor", &floor))
		floor = MIN((uint64_t)v.f_blocks * v.f_frsize / 50, 1u << 30);
	return left >= floor && left - floor >= more
		   ? 0
		   : err_set(e, ENOSPC, "no space: %llu bytes are needed",
			     (unsigned long long)more);
}

int in_within(const char *allow, uint64_t size, uint64_t quota_left,
	      struct err *e)
{
	uint64_t limit;

	if (allow_limit(allow, "size", &limit) && size > limit)
		return err_set(e, EFBIG, "larger than the %llu bytes allowed",
			       (unsigned long long)limit);
	/* When nothing is left, empty ones do not fit either. */
	return size > quota_left || !quota_left
		   ? err_set(e, EDQUOT,
			     "the inbox is full: its quota would be "
			     "exceeded")
		   : 0;
}

/* *ret_left: what its quota leaves. */
int in_may_push(struct site *s, const char *allow, const struct object *o,
		uint64_t *ret_left, struct err *e)
{
	uint64_t limit, used;

	*ret_left = UINT64_MAX;
	if (!allow_permits(allow, "push", "*"))
		return err_set(e, EACCES,
			       "not allowed: parties/%s/allow of party %s has "
			       "no 'push *'",
			       o->src, s->conf->party);
	if (allow_limit(allow, "quota", &limit)) {
		_cleanup_free_ char *in =
		    xasprintf("%s/federation/%s/in", s->conf->state, o->src);

		used = tree_bytes(in);
		*ret_left = used < limit ? limit - used : 0;
	}
	return in_within(allow, o->size == SIZE_OPEN ? 0 : o->size, *ret_left,
			 e);
}

uint64_t in_arriving(const struct site *s, const char *party, bool open)
{
	const struct incoming *t, *tmp;
	uint64_t sum = 0;

	HASH_ITER (hh, s->arriving, t, tmp) {
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		uint64_t here = MIN(t->count * t->o.chunk_size, t->o.size);

		if (t->o.kind != OBJECT_FILE || strcmp(t->o.src, party))
			continue;
		sum += !open ? t->given : here > t->given ? here : 0;
	}
	return sum;
}

/* Files that transfers may have open. */
static uint64_t open_most(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) || l.rlim_cur == RLIM_INFINITY)
		return 65536;
	return MAX(l.rlim_cur, OPEN_OTHER + 64) - OPEN_OTHER;
}

/* lock held: transfers that are arriving from the party */
static unsigned in_count(const struct site *s, const char *party)
{
	const struct incoming *t, *tmp;
	unsigned n = 0;

	HASH_ITER (hh, s->arriving, t, tmp)
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		n += !strcmp(t->o.src, party);
	return n;
}

/* What changes with every transfer that begins; left: what the quota leaves of
 * the inbox, and then also of what is arriving. */
static int admit_now(struct site *s, const char *allow, const struct object *o,
		     uint64_t *left, struct err *e)
{
	uint64_t limit = TRANSFERS_MAX, n, all, coming;
	int r = o->key ? site_admit(s, o->key, o->src, e) : 0;

	if (r)
		return r;
	(void)allow_limit(allow, "transfers", &limit);
	pthread_mutex_lock(&s->lock);
	n = in_count(s, o->src);
	all = HASH_COUNT(s->arriving);
	coming = in_arriving(s, o->src, false);
	pthread_mutex_unlock(&s->lock);
	/* What was announced before has its place in the inbox. */
	if (o->kind == OBJECT_FILE && *left != UINT64_MAX) {
		*left -= MIN(coming, *left);
		r = in_within(allow, o->size == SIZE_OPEN ? 0 : o->size, *left,
			      e);
		if (r)
			return r;
	}
	/* Each has two files open; one party leaves half of them to others. */
	if (n >= limit || n >= open_most() / 4 || all >= open_most() / 2)
		return err_set(e, EAGAIN, "%llu transfers are under way",
			       (unsigned long long)n);
	return in_disk_room(s, allow, o->size == SIZE_OPEN ? 1 : o->size, e);
}

int in_admit(struct site *s, const struct object *o, struct err *e)
{
	_cleanup_free_ char *allow = party_allow(s->conf, o->src);
	uint64_t left = UINT64_MAX;
	int r = o->kind == OBJECT_FILE ? in_may_push(s, allow, o, &left, e) : 0;

	return r ? r : admit_now(s, allow, o, &left, e);
}

/* The document is of the party that is there, and for us. */
int in_belongs(const struct serve *v, const struct object *o, const char *tid,
	       struct err *e)
{
	if (strcmp(o->src, v->party) || strcmp(o->dst, v->s->conf->party))
		return err_set(e, EACCES, "not allowed");
	return strcmp(o->tid, tid)
		   ? err_set(e, EINVAL, "the transfer's id is not of its key")
		   : 0;
}

/* lock held */
unsigned in_credit(const struct site *s, const char *party)
{
	unsigned n = in_count(s, party);

	return n ? MAX(CREDIT_ALL / n, 1u) : CREDIT_ALL;
}

/* lock held */
static json_t *state_json(struct site *s, const struct incoming *t,
			  unsigned *ret_credit)
{
	_cleanup_free_ char *have = ranges_text(t->bits, t->room, 256u << 10);

	*ret_credit = in_credit(s, t->o.src);
	return json_pack("{s:s, s:s, s:i}", "state", "receiving", "have",
			 have ? have : "", "credit", (int)*ret_credit);
}

void in_audit(const struct serve *v, const char *what, const struct object *o)
{
	if (!strncmp(what, "refused", 7) && !audit_may(v->party))
		return;
	log_info("audit", "%s party=%s kind=%s tid=%.16s bytes=%lld%s", what,
		 v->party, o->kind == OBJECT_FILE ? "file" : "message", o->tid,
		 (long long)(o->size == SIZE_OPEN ? -1 : (int64_t)o->size),
		 v->relayed ? " relayed" : "");
}

/* ---- PUT, GET, DELETE -------------------------------------------------- */

static int begin(struct site *s, const struct object *o, uint64_t quota_left,
		 struct err *e)
{
	_cleanup_free_ char *path = in_path(s, o->tid, ".json");
	struct incoming *t = incoming_new(o);
	json_t *doc = object_json(o, false);
	int r = open_files(s, t, e);

	/* Last: with it the directory goes to the disk. */
	if (!r)
		r = json_write_file(path, doc, 0600, true, e);
	json_decref(doc);
	t->quota_left = quota_left;
	t->given = o->size == SIZE_OPEN ? 0 : o->size;
	if (r) {
		in_remove_files(s, o->tid);
		in_free(t);
		return r;
	}
	pthread_mutex_lock(&s->lock);
	HASH_ADD_STR(s->arriving, tid, t);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

/* Those that fit: nobody finds them any more, and their files go, without the
 * lock: that takes a while for large ones.  With in_making held. */
static void forget_those(struct site *s,
			 bool (*fits)(const struct incoming *t,
				      const void *arg),
			 const void *arg)
{
	struct incoming *t, *tmp, *gone = NULL;

	pthread_mutex_lock(&s->lock);
	HASH_ITER (hh, s->arriving, t, tmp) {
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		if (!fits(t, arg))
			continue;
		t->refs++;
		t->next_gone = gone;
		gone = t;
		in_forget_locked(s, t);
	}
	pthread_mutex_unlock(&s->lock);
	while ((t = gone)) {
		gone = t->next_gone;
		in_remove_files(s, t->tid);
		in_unref(s, t);
	}
}

static bool is_older(const struct incoming *t, const void *arg)
{
	const struct object *o = arg;

	return t->o.path && !strcmp(t->o.path, o->path) &&
	       !strcmp(t->o.src, o->src) && t->o.generation < o->generation &&
	       !t->committing;
}

void in_drop_older(struct site *s, const struct object *o)
{
	if (o->kind == OBJECT_FILE)
		forget_those(s, is_older, o);
}

void in_announce(struct serve *v, const char *tid, const json_t *doc)
{
	struct site *s = v->s;
	_cleanup_free_ char *allow = party_allow(s->conf, v->party);
	uint64_t left = UINT64_MAX;
	struct object o = { 0 };
	struct incoming *t = NULL;
	struct err e = { 0 };
	json_t *answer = NULL;
	bool fresh = false, known;
	int r = object_parse(doc, false, &o, &e);

	if (!r)
		r = in_belongs(v, &o, tid, &e);
	if (!r && in_done_before(v, &o)) {
		object_free(&o);
		return;
	}
	if (!r)
		t = in_find(s, tid, v->party);
	/* Sums up an inbox, perhaps a large one: nobody waits for that. */
	if (!r && !t && o.kind == OBJECT_FILE)
		r = in_may_push(s, allow, &o, &left, &e);
	known = t;
	in_unref(s, t);
	t = NULL;
	pthread_mutex_lock(&in_making);
	if (!r)
		t = in_find(s, tid, v->party);
	if (!r && !t) {
		pthread_mutex_lock(&s->lock);
		if (in_committing_locked(tid) || receipt_find(tid))
			r = err_set(&e, EAGAIN, "its commit is under way");
		else if (known) /* and its inbox was not summed up */
			r = err_set(&e, EAGAIN, "withdrawn meanwhile");
		pthread_mutex_unlock(&s->lock);
	}
	if (!r && !t) {
		in_drop_older(s, &o);
		r = admit_now(s, allow, &o, &left, &e);
		if (!r)
			r = begin(s, &o, left, &e);
		if (!r)
			t = in_find(s, tid, v->party);
		fresh = true;
	}
	pthread_mutex_unlock(&in_making);
	if (!r && !t)
		r = err_set(&e, EAGAIN, "withdrawn meanwhile");
	if (!r && t->o.chunk_size != o.chunk_size)
		r = err_set(&e, EEXIST, "announced before with other chunks");
	if (!r) {
		pthread_mutex_lock(&s->lock);
		if (o.size != SIZE_OPEN)
			t->o.size = o.size;
		answer = state_json(s, t, &v->credit);
		pthread_mutex_unlock(&s->lock);
		serve_json(v, fresh ? 201 : 200, answer);
	} else {
		serve_refuse(v, r, &e);
	}
	if (fresh || (r && r != -EAGAIN && r != -ENOSPC))
		in_audit(v, r ? "refused announce" : "announce", &o);
	in_unref(s, t);
	object_free(&o);
}

/* 32 bytes for each chunk up to the last that is there.  8 MiB may be asked for
 * again and again: only the copy is made with the lock. */
static void put_digests(struct site *s, struct incoming *t, struct strbuf *ret)
{
	uint64_t n = 0;

	pthread_mutex_lock(&s->lock);
	for (n = t->room; n && !bit(t->bits, n - 1); n--)
		;
	pthread_mutex_unlock(&s->lock);
	sb_free(ret);
	sb_init(ret, (size_t)CHUNKS_MAX * 32);
	if (!n || sb_reserve(ret, n * 32))
		return;
	memset(ret->buf, 0, n * 32);
	pthread_mutex_lock(&s->lock);
	memcpy(ret->buf, t->digests, n * 32);
	for (uint64_t i = 0; i < n; i++)
		if (!bit(t->bits, i))
			memset(ret->buf + i * 32, 0, 32);
	pthread_mutex_unlock(&s->lock);
	ret->len = n * 32;
}

void in_state(struct serve *v, const char *tid, bool digests)
{
	struct site *s = v->s;
	struct incoming *t = in_find(s, tid, v->party);
	struct err e = { 0 };

	if (t && digests) {
		put_digests(s, t, &v->out);
		v->code = 200;
	} else if (t) {
		pthread_mutex_lock(&s->lock);
		serve_json(v, 200, state_json(s, t, &v->credit));
		pthread_mutex_unlock(&s->lock);
	} else if (!receipt_answer(v, tid, "")) {
		serve_refuse(v, err_set(&e, ENOENT, "no such transfer"), &e);
	}
	in_unref(s, t);
}

void in_abort(struct serve *v, const char *tid)
{
	struct site *s = v->s;
	struct incoming *t = NULL;
	struct receipt_rec *rec = NULL;
	struct err e = { 0 };
	int r = 0;

	pthread_mutex_lock(&in_making);
	t = in_find(s, tid, v->party);
	pthread_mutex_lock(&s->lock);
	rec = receipt_find(tid);
	rec = rec && strcmp(rec->party, v->party) ? NULL : rec;
	if (rec || (t && t->committing) || in_committing_locked(tid))
		r = err_set(&e, EBUSY, "committed already");
	else if (t)
		in_forget_locked(s, t);
	pthread_mutex_unlock(&s->lock);
	if (!r && t)
		in_remove_files(s, tid);
	pthread_mutex_unlock(&in_making);
	if (r)
		serve_refuse(v, r, &e);
	else
		v->code = 204;
	if (!r && t)
		log_info("audit", "withdrawn party=%s tid=%.16s", v->party,
			 tid);
	in_unref(s, t);
}

/* ---- ends and beginnings ----------------------------------------------- */

struct end_of {
	const char *job, *session;
};

static bool is_of(const struct incoming *t, const void *arg)
{
	const struct end_of *x = arg;
	const char *its;
	char of[41];

	if (!t->o.key)
		return false;
	its = t->o.key->f[KEY_SESSION];
	return x->session
		   ? !strcmp(its, x->session)
		   : session_job(its, of, sizeof(of)) && !strcmp(of, x->job);
}

void in_forget(struct site *s, const char *job, const char *session)
{
	struct end_of x = { job, session };

	/* An announcement that was admitted before the end stands by now. */
	pthread_mutex_lock(&in_making);
	forget_those(s, is_of, &x);
	pthread_mutex_unlock(&in_making);
}

static bool is_left(const struct incoming *t, const void *arg)
{
	(void)arg;
	if (t->refs > 1 || t->touched_ms + PARTIAL_MS > now_unix_ms())
		return false;
	log_info("rollsite", "transfer %.16s of party %s was given up", t->tid,
		 t->o.src);
	return true;
}

void in_sweep(struct site *s)
{
	pthread_mutex_lock(&in_making);
	forget_those(s, is_left, NULL);
	pthread_mutex_unlock(&in_making);
}

static void load_partial(struct site *s, const char *tid)
{
	_cleanup_free_ char *path = in_path(s, tid, ".json");
	_cleanup_free_ char *data = in_path(s, tid, ".data");
	json_t *doc = json_read_file(path, NULL);
	struct receipt_rec *rec = NULL;
	struct object o = { 0 };
	struct incoming *t;
	struct err e = { 0 };
	struct stat st;

	rec = receipt_find(tid);
	/* Data that went to their place, and whose record was not written yet
	 * when rollsite died, are not there: they are sent again. */
	if (rec || !doc || access(data, F_OK) ||
	    object_parse(doc, false, &o, &e) || strcmp(o.tid, tid) ||
	    (o.kind == OBJECT_MESSAGE &&
	     !site_session_open(s, o.key->f[KEY_SESSION]))) {
		in_remove_files(s, tid);
		json_decref(doc);
		object_free(&o);
		return;
	}
	json_decref(doc);
	t = incoming_new(&o);
	object_free(&o);
	in_replay(s, t);
	t->quota_left = UINT64_MAX; /* until it is announced again */
	if (open_files(s, t, &e)) {
		log_warn("rollsite", "%s", e.text);
		in_free(t);
		return;
	}
	if (t->o.size != SIZE_OPEN && !fstat(t->fd, &st) &&
	    (uint64_t)st.st_blocks * 512 >= t->o.size)
		t->given = t->o.size;
	HASH_ADD_STR(s->arriving, tid, t);
}

static void each_partial(struct site *s, const char *end,
			 void (*fn)(struct site *s, const char *tid))
{
	_cleanup_free_ char *dir =
	    xasprintf("%s/transfer/partial", s->conf->state);
	_cleanup_closedir_ DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		char tid[65] = "";

		if (strlen(de->d_name) != 64 + strlen(end) ||
		    strcmp(de->d_name + 64, end))
			continue;
		memcpy(tid, de->d_name, 64);
		if (hex64_valid(tid))
			fn(s, tid);
	}
}

static void orphan(struct site *s, const char *tid)
{
	_cleanup_free_ char *json = in_path(s, tid, ".json");

	if (access(json, F_OK))
		in_remove_files(s, tid);
}

/* What file_replace was writing when it was killed. */
static void sweep_temporary(struct site *s)
{
	_cleanup_free_ char *dir =
	    xasprintf("%s/transfer/partial", s->conf->state);
	_cleanup_closedir_ DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d)))
		if (strstr(de->d_name, ".tmp"))
			(void)unlinkat(dirfd(d), de->d_name, 0);
}

int in_open(struct site *s, struct err *e)
{
	int r = journals_each(s, ".receipts", receipts_load, e);

	if (r)
		return r;
	sweep_temporary(s);
	each_partial(s, ".data", in_finish_data);
	each_partial(s, ".have", orphan);
	each_partial(s, ".json", load_partial);
	return 0;
}
