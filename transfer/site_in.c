// SPDX-License-Identifier: Apache-2.0
/*
 * Transfers from others.  STATE/transfer/partial/ holds what is arriving:
 *
 *   <tid>.json   the announcement
 *   <tid>.data   chunks at their place
 *   <tid>.have   48 bytes for each chunk that is durable in .data: u32 index,
 *                u32 type (1 have, 2 no more), its SHA-256, 8 bytes check
 *
 * A chunk is acknowledged when .data and then .have are on disk; those that
 * arrive at the same time share the two syncs.  A commit makes the receipt
 * durable first (files/<party>.receipts) and then renames .data to its place:
 * a receipt whose .data is still here is a rename to be done again, at start.
 */
#include <endian.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/transfer_priv.h"

/* The analyzer takes what is put into a table of uthash for lost. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

#define RECORD	      48
#define HAVE	      1u
#define NO_MORE	      2u
#define PARTIAL_MS    (7ll * 24 * 3600 * 1000)
#define RECEIPT_MS    (30ll * 24 * 3600 * 1000)
#define CREDIT_ALL    16u
#define TRANSFERS_MAX 1000u /* arriving from one party at a time */

struct pending { /* a chunk that waits for the disk; on a stack */
	struct pending *next;
	uint64_t index;
	const uint8_t *digest;
	bool done;
	int status;
};

struct committing { /* one commit of a transfer at a time */
	struct committing *next;
	char tid[65];
};

struct incoming {
	UT_hash_handle hh;
	char tid[65];
	struct object o;
	unsigned refs; /* with s->lock, as all but the last group */
	bool gone, committing;
	int fd;
	struct journal *have;
	uint64_t room, count; /* of the arrays; chunks that are there */
	uint8_t (*digests)[32];
	uint8_t *bits;
	struct chunk_sink *sinks;
	uint64_t quota_left; /* when it was announced */
	uint64_t allocated;  /* bytes; for one whose size is not known */
	int64_t touched_ms;
	/* Waiting for the disk. */
	pthread_mutex_t lock;
	pthread_cond_t synced;
	struct pending *pending;
	bool syncing;
};

struct receipt_rec {
	UT_hash_handle hh;
	char tid[65], party[16];
	char *path;
	uint64_t generation;
	struct receipt_doc doc;
	bool ready; /* the file is in its place */
};

struct newest { /* of a party's path */
	UT_hash_handle hh;
	char *key;
	uint64_t generation;
};

struct chunk_sink {
	struct chunk_sink *next; /* of one transfer; with s->lock */
	struct site *s;
	struct incoming *t;
	uint64_t index, len, got;
	uint8_t want[32];
	EVP_MD_CTX *md;
	unsigned refs;
	bool settling; /* all there: it only waits for the disk */
	/* lost: a newer request brings this chunk; the lock is held while
	 * bytes are written. */
	pthread_mutex_t lock;
	bool lost;
	/* Written in pieces of this size: TLS hands over 16 KiB at a time, and
	 * so small writes cost three times the CPU. */
	uint8_t *held;
	size_t n_held;
};
#define HELD_MAX (512u << 10)
#define AHEAD	 (64ull << 20)

/* All under s->lock. */
static struct committing *commits;
static struct receipt_rec *receipts;
static struct newest *newest;
/* Renames into the inbox, so that an older generation never comes last. */
static pthread_mutex_t publishing = PTHREAD_MUTEX_INITIALIZER;
/* The files of one transfer are made, and removed, by one at a time. */
static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

static char *partial(const struct site *s, const char *tid, const char *end)
{
	return xasprintf("%s/transfer/partial/%s%s", s->conf->state, tid, end);
}

static bool bit(const uint8_t *bits, uint64_t i)
{
	return bits[i / 8] >> (i % 8) & 1;
}

static void bit_set(uint8_t *bits, uint64_t i, bool on)
{
	if (on)
		bits[i / 8] |= (uint8_t)(1u << (i % 8));
	else
		bits[i / 8] &= (uint8_t) ~(1u << (i % 8));
}

/* ---- receipts ---------------------------------------------------------- */

static char *newest_key(const char *party, const char *path)
{
	return xasprintf("%s/%s", party, path);
}

/* lock held; 0 = none */
static uint64_t newest_generation(const char *party, const char *path)
{
	_cleanup_free_ char *key = newest_key(party, path);
	struct newest *x = NULL;

	HASH_FIND_STR(newest, key, x);
	return x ? x->generation : 0;
}

/* lock held; takes rec */
static void receipt_add(struct receipt_rec *rec)
{
	char *key = newest_key(rec->party, rec->path);
	struct newest *x = NULL;

	HASH_ADD_STR(receipts, tid, rec);
	HASH_FIND_STR(newest, key, x);
	if (!x) {
		x = xcalloc(1, sizeof(*x));
		x->key = key;
		HASH_ADD_KEYPTR(hh, newest, x->key, strlen(x->key), x);
	} else {
		free(key);
	}
	x->generation = MAX(x->generation, rec->generation);
}

static void receipt_rec_free(struct receipt_rec *r)
{
	receipt_free(&r->doc);
	free(r->path);
	free(r);
}

static char *receipts_path(const struct site *s, const char *party)
{
	return xasprintf("%s/transfer/files/%s.receipts", s->conf->state,
			 party);
}

static char *receipt_line(const struct receipt_rec *r)
{
	_cleanup_free_ char *enc = percent_encode(r->path);
	json_t *o = json_pack("{s:s, s:I, s:o}", "path", enc, "generation",
			      (json_int_t)r->generation, "receipt",
			      receipt_json(&r->doc, true));
	char *text = json_text(o, false), *line = xasprintf("%s\n", text);

	free(text);
	json_decref(o);
	return line;
}

static struct receipt_rec *receipt_of_line(const char *party, const char *line)
{
	json_t *o = json_parse(line, strlen(line), NULL);
	struct receipt_rec *r = xcalloc(1, sizeof(*r));
	_cleanup_free_ char *path = percent_decode(json_str_or(o, "path", "%"));

	if (!o || !path || !path_valid(path) ||
	    receipt_parse(json_object_get(o, "receipt"), &r->doc, NULL)) {
		json_decref(o);
		free(r);
		return NULL;
	}
	r->generation = (uint64_t)json_int_or(o, "generation", 0);
	r->path = TAKE_PTR(path);
	memcpy(r->tid, r->doc.tid, sizeof(r->tid));
	(void)snprintf(r->party, sizeof(r->party), "%s", party);
	r->ready = true;
	json_decref(o);
	return r;
}

/* One open journal for each party's receipts; lock held. */
static struct receipts_of {
	struct receipts_of *next;
	char party[16];
	struct journal *log;
} * logs;

static struct journal *receipts_log(struct site *s, const char *party)
{
	_cleanup_free_ char *path = NULL;
	struct receipts_of *x;

	for (x = logs; x; x = x->next)
		if (!strcmp(x->party, party))
			return x->log;
	path = receipts_path(s, party);
	x = xcalloc(1, sizeof(*x));
	(void)snprintf(x->party, sizeof(x->party), "%s", party);
	if (journal_open(path, NULL, NULL, &x->log, NULL)) {
		log_error("rollsite", "cannot open %s", path);
		free(x);
		return NULL;
	}
	x->next = logs;
	logs = x;
	return x->log;
}

/* Reads what is there; lines that nobody needs any more are left out of the
 * file from now on: receipts are kept for a month, and the newest of a path
 * for ever. */
static int load_receipts(struct site *s, const char *party, struct err *e)
{
	_cleanup_free_ char *path = receipts_path(s, party);
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	_cleanup_free_ char *line = NULL;
	struct strbuf keep = STRBUF_INIT(1u << 30);
	struct receipt_rec *r, *tmp;
	size_t size = 0, dropped = 0;
	int x = 0;

	while (f && getline(&line, &size, f) > 0) {
		struct receipt_rec *old = NULL;

		/* A torn last line (power cut) parses to nothing. */
		r = strchr(line, '\n') ? receipt_of_line(party, line) : NULL;
		if (r)
			HASH_FIND_STR(receipts, r->tid, old);
		if (!r || old) {
			dropped++;
			if (r)
				receipt_rec_free(r);
			continue;
		}
		receipt_add(r);
	}
	HASH_ITER (hh, receipts, r, tmp) {
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		_cleanup_free_ char *text = NULL;

		if (strcmp(r->party, party))
			continue;
		if (r->generation < newest_generation(party, r->path) &&
		    r->doc.committed_ms + RECEIPT_MS < now_unix_ms()) {
			dropped++;
			HASH_DEL(receipts, r);
			receipt_rec_free(r);
			continue;
		}
		text = receipt_line(r);
		sb_adds(&keep, text);
	}
	if (dropped && !keep.error)
		x = file_replace(path, keep.buf, keep.len, 0600, true, e);
	sb_free(&keep);
	return x;
}

/* ---- what is arriving -------------------------------------------------- */

static void record_check(const char *tid, const uint8_t *record,
			 uint8_t ret[32])
{
	uint8_t all[40 + 64];

	memcpy(all, record, 40);
	memcpy(all + 40, tid, 64);
	sha256(all, sizeof(all), ret);
}

static void record_make(const char *tid, uint64_t index, uint32_t type,
			const uint8_t digest[32], uint8_t ret[RECORD])
{
	uint32_t v[2] = { htole32((uint32_t)index), htole32(type) };
	uint8_t check[32];

	memcpy(ret, v, 8);
	memcpy(ret + 8, digest, 32);
	record_check(tid, ret, check);
	memcpy(ret + 40, check, 8);
}

/* lock held (or nobody else knows it): room for chunk i */
static void make_room(struct incoming *t, uint64_t i)
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

static void mark(struct incoming *t, uint64_t i, bool on,
		 const uint8_t digest[32])
{
	make_room(t, i);
	if (on != bit(t->bits, i))
		t->count += on ? 1 : UINT64_MAX;
	bit_set(t->bits, i, on);
	memcpy(t->digests[i], digest, 32);
}

static void incoming_free(struct incoming *t)
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

static void unref(struct site *s, struct incoming *t)
{
	bool last;

	if (!t)
		return;
	pthread_mutex_lock(&s->lock);
	last = !--t->refs;
	pthread_mutex_unlock(&s->lock);
	if (last)
		incoming_free(t);
}

static struct incoming *find_ref(struct site *s, const char *tid)
{
	struct incoming *t = NULL;

	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(s->arriving, tid, t);
	if (t) {
		t->refs++;
		t->touched_ms = now_unix_ms();
	}
	pthread_mutex_unlock(&s->lock);
	return t;
}

static void remove_files(struct site *s, const char *tid)
{
	static const char *const ends[] = { ".json", ".have", ".data" };

	/* The announcement first: data without one is swept. */
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		_cleanup_free_ char *p = partial(s, tid, ends[i]);

		(void)unlink(p);
	}
}

/* lock held: nobody finds it any more */
static void forget_locked(struct site *s, struct incoming *t)
{
	if (t->gone)
		return;
	t->gone = true;
	HASH_DEL(s->arriving, t);
	t->refs--;
}

static int open_files(struct site *s, struct incoming *t, struct err *e)
{
	_cleanup_free_ char *data = partial(s, t->tid, ".data");
	_cleanup_free_ char *have = partial(s, t->tid, ".have");

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

/* With t->lock held by the caller: everything pending becomes durable. */
static void sync_pending(struct site *s, struct incoming *t)
{
	struct pending *list = TAKE_PTR(t->pending);
	struct strbuf records = STRBUF_INIT(1u << 20);
	uint8_t record[RECORD];
	int r = 0;

	t->syncing = true;
	pthread_mutex_unlock(&t->lock);
	for (const struct pending *x = list; x; x = x->next) {
		record_make(t->tid, x->index, HAVE, x->digest, record);
		r = sb_add(&records, record, RECORD);
	}
	if (!r && fdatasync(t->fd))
		r = -errno;
	for (const struct pending *x = list; x; x = x->next)
		uncache(t->fd, x->index, t->o.chunk_size);
	hook_die("in-chunk-written");
	if (!r)
		r = journal_raw(t->have, records.buf, records.len);
	if (!r)
		r = journal_sync(t->have, journal_len(t->have));
	hook_die("in-chunk-synced");
	sb_free(&records);
	pthread_mutex_lock(&s->lock);
	for (const struct pending *x = list; x && !r; x = x->next)
		mark(t, x->index, true, x->digest);
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_lock(&t->lock);
	t->syncing = false;
	for (struct pending *x = list, *next; x; x = next) {
		next = x->next; /* its owner may go on at once */
		x->status = r;
		x->done = true;
	}
	pthread_cond_broadcast(&t->synced);
}

/* Returns when the chunk is on disk, and the fact that it is. */
static int make_durable(struct site *s, struct incoming *t, uint64_t index,
			const uint8_t digest[32])
{
	struct pending x = { .index = index, .digest = digest };

	pthread_mutex_lock(&t->lock);
	x.next = t->pending;
	t->pending = &x;
	while (!x.done) {
		if (t->syncing)
			pthread_cond_wait(&t->synced, &t->lock);
		else
			sync_pending(s, t);
	}
	pthread_mutex_unlock(&t->lock);
	return x.status;
}

/* ---- may it? ----------------------------------------------------------- */

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
			sum += S_ISDIR(st.st_mode) ? tree_bytes(p)
						   : (uint64_t)st.st_size;
	}
	return sum;
}

/* Is there room for more bytes, with the floor that the disk keeps? */
static int room_on_disk(struct site *s, const char *allow, uint64_t more,
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

static int within(const char *allow, uint64_t size, uint64_t quota_left,
		  struct err *e)
{
	uint64_t limit;

	if (allow_limit(allow, "size", &limit) && size > limit)
		return err_set(e, EFBIG, "larger than the %llu bytes allowed",
			       (unsigned long long)limit);
	return size > quota_left
		   ? err_set(e, EDQUOT,
			     "the inbox is full: its quota would be "
			     "exceeded")
		   : 0;
}

/* *ret_left: what its quota leaves. */
static int may_push(struct site *s, const char *allow, const struct object *o,
		    uint64_t *ret_left, struct err *e)
{
	uint64_t limit, used;

	*ret_left = UINT64_MAX;
	if (!allow_permits(allow, "push", "*"))
		return err_set(e, EACCES, "not allowed");
	if (allow_limit(allow, "quota", &limit)) {
		_cleanup_free_ char *in =
		    xasprintf("%s/federation/%s/in", s->conf->state, o->src);

		used = tree_bytes(in);
		*ret_left = used < limit ? limit - used : 0;
	}
	return within(allow, o->size == SIZE_OPEN ? 0 : o->size, *ret_left, e);
}

/* Everything that can be said before the first byte. */
static int admit(struct site *s, const struct object *o, uint64_t *ret_left,
		 struct err *e)
{
	_cleanup_free_ char *allow = party_allow(s->conf, o->src);
	const struct incoming *t, *tmp;
	uint64_t limit = TRANSFERS_MAX, n = 0;
	int r;

	*ret_left = UINT64_MAX;
	r = o->kind == OBJECT_FILE ? may_push(s, allow, o, ret_left, e)
				   : site_admit(s, o->key, o->src, e);
	if (r)
		return r;
	(void)allow_limit(allow, "transfers", &limit);
	pthread_mutex_lock(&s->lock);
	HASH_ITER (hh, s->arriving, t, tmp)
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		n += !strcmp(t->o.src, o->src);
	pthread_mutex_unlock(&s->lock);
	if (n >= limit)
		return err_set(e, EAGAIN, "%llu transfers are under way",
			       (unsigned long long)n);
	return room_on_disk(s, allow, o->size == SIZE_OPEN ? 1 : o->size, e);
}

/* The document is of the party that is there, and for us. */
static int belongs(const struct serve *v, const struct object *o,
		   const char *tid, struct err *e)
{
	if (strcmp(o->src, v->party) || strcmp(o->dst, v->s->conf->party))
		return err_set(e, EACCES, "not allowed");
	return strcmp(o->tid, tid)
		   ? err_set(e, EINVAL, "the transfer's id is not of its key")
		   : 0;
}

/* ---- answers ----------------------------------------------------------- */

static void answer_committed(struct serve *v, unsigned code,
			     const struct receipt_doc *doc)
{
	serve_json(v, code,
		   json_pack("{s:s, s:o}", "state", "committed", "receipt",
			     receipt_json(doc, true)));
}

/* lock held */
static unsigned credit(struct site *s)
{
	unsigned n = HASH_COUNT(s->arriving);

	return n ? MAX(CREDIT_ALL / n, 1u) : CREDIT_ALL;
}

/* lock held */
static json_t *state_json(struct site *s, const struct incoming *t,
			  unsigned *ret_credit)
{
	_cleanup_free_ char *have = ranges_text(t->bits, t->room, 256u << 10);

	*ret_credit = credit(s);
	return json_pack("{s:s, s:s, s:i}", "state", "receiving", "have",
			 have ? have : "", "credit", (int)*ret_credit);
}

/* A file's receipt: 1 answered, 0 there is none (or it is on its way: 503). */
static int answer_receipt(struct serve *v, const char *tid, const char *root)
{
	struct site *s = v->s;
	struct receipt_rec *r = NULL;
	struct err e = { 0 };
	json_t *doc = NULL;
	int x = 0;

	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(receipts, tid, r);
	if (r && strcmp(r->party, v->party))
		x = err_set(&e, EACCES, "not allowed");
	else if (r && *root && strcmp(r->doc.root, root))
		x = err_set(&e, EEXIST, "the same file with other content");
	else if (r && !r->ready)
		x = err_set(&e, EAGAIN, "its commit is under way");
	else if (r)
		doc = receipt_json(&r->doc, true);
	pthread_mutex_unlock(&s->lock);
	if (doc)
		serve_json(v, 200,
			   json_pack("{s:s, s:o}", "state", "committed",
				     "receipt", doc));
	else if (x)
		serve_refuse(v, x, &e);
	return doc || x;
}

static int sign_receipt(struct site *s, struct receipt_doc *d, struct err *e)
{
	json_t *o = receipt_json(d, false);
	_cleanup_free_ char *text = json_text(o, false);

	json_decref(o);
	return identity_sign(s->identity, "rollfs-receipt-v1", text,
			     strlen(text), &d->signature, e);
}

static int receipt_for(struct site *s, const struct object *o,
		       struct receipt_doc *ret, struct err *e)
{
	*ret = (struct receipt_doc){ .size = o->size == SIZE_OPEN ? 0 : o->size,
				     .committed_ms = now_unix_ms() };
	memcpy(ret->tid, o->tid, sizeof(ret->tid));
	memcpy(ret->root, *o->root ? o->root : o->tid, sizeof(ret->root));
	memcpy(ret->receiver, s->conf->party, MIN(strlen(s->conf->party), 15));
	return sign_receipt(s, ret, e);
}

/* The same for a message: what was delivered needs no record of its own. */
static int answer_delivered(struct serve *v, const struct object *o)
{
	struct receipt_doc doc = { 0 };
	struct err e = { 0 };
	int r = site_delivered(v->s, o->tid, o->sha256);

	if (!r)
		return 0;
	if (r < 0)
		r = err_set(&e, EEXIST, "the same message with other content");
	else
		r = receipt_for(v->s, o, &doc, &e);
	if (r)
		serve_refuse(v, r, &e);
	else
		answer_committed(v, 200, &doc);
	receipt_free(&doc);
	return 1;
}

static int done_before(struct serve *v, const struct object *o)
{
	struct err e = { 0 };
	uint64_t newer;

	if (o->kind == OBJECT_MESSAGE)
		return answer_delivered(v, o);
	if (answer_receipt(v, o->tid, o->root))
		return 1;
	pthread_mutex_lock(&v->s->lock);
	newer = newest_generation(o->src, o->path);
	pthread_mutex_unlock(&v->s->lock);
	if (newer <= o->generation)
		return 0;
	serve_refuse(v, err_set(&e, ESTALE, "a newer generation is here"), &e);
	return 1;
}

/* ---- PUT, GET, DELETE -------------------------------------------------- */

static void audit(const struct serve *v, const char *what,
		  const struct object *o)
{
	log_info("audit", "%s party=%s kind=%s tid=%.16s bytes=%lld%s", what,
		 v->party, o->kind == OBJECT_FILE ? "file" : "message", o->tid,
		 (long long)(o->size == SIZE_OPEN ? -1 : (int64_t)o->size),
		 v->relayed ? " relayed" : "");
}

static int begin(struct site *s, const struct object *o, uint64_t quota_left,
		 struct err *e)
{
	_cleanup_free_ char *path = partial(s, o->tid, ".json");
	struct incoming *t = incoming_new(o), *other = NULL;
	json_t *doc = object_json(o, false);
	int r = json_write_file(path, doc, 0600, true, e);

	json_decref(doc);
	t->quota_left = quota_left;
	if (!r)
		r = open_files(s, t, e);
	/* No space shows now, not after the first gigabyte. */
	if (!r && o->size != SIZE_OPEN && o->size &&
	    fallocate(t->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)o->size) &&
	    errno == ENOSPC)
		r = err_set(e, ENOSPC, "no space: %llu bytes are needed",
			    (unsigned long long)o->size);
	if (r) {
		remove_files(s, o->tid);
		incoming_free(t);
		return r;
	}
	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(s->arriving, o->tid, other);
	if (!other)
		HASH_ADD_STR(s->arriving, tid, t);
	pthread_mutex_unlock(&s->lock);
	if (other) /* two announcements at once: they are the same files */
		incoming_free(t);
	return 0;
}

/* A newer generation of a file is here: what came of older ones is of no use.
 * With `making` held. */
static void drop_older(struct site *s, const struct object *o)
{
	struct incoming *t, *tmp;

	if (o->kind != OBJECT_FILE)
		return;
	pthread_mutex_lock(&s->lock);
	HASH_ITER (hh, s->arriving, t, tmp) {
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		if (!t->o.path || strcmp(t->o.path, o->path) ||
		    strcmp(t->o.src, o->src) ||
		    t->o.generation >= o->generation || t->committing)
			continue;
		remove_files(s, t->tid);
		forget_locked(s, t);
		if (!t->refs)
			incoming_free(t);
	}
	pthread_mutex_unlock(&s->lock);
}

void in_announce(struct serve *v, const char *tid, const json_t *doc)
{
	struct site *s = v->s;
	uint64_t left = 0;
	struct object o = { 0 };
	struct incoming *t = NULL;
	struct err e = { 0 };
	json_t *answer = NULL;
	bool fresh = false;
	int r = object_parse(doc, false, &o, &e);

	if (!r)
		r = belongs(v, &o, tid, &e);
	if (!r && done_before(v, &o)) {
		object_free(&o);
		return;
	}
	pthread_mutex_lock(&making);
	if (!r)
		t = find_ref(s, tid);
	if (!r && !t) {
		drop_older(s, &o);
		r = admit(s, &o, &left, &e);
		if (!r)
			r = begin(s, &o, left, &e);
		if (!r)
			t = find_ref(s, tid);
		fresh = true;
	}
	pthread_mutex_unlock(&making);
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
		audit(v, r ? "refused announce" : "announce", &o);
	unref(s, t);
	object_free(&o);
}

void in_state(struct serve *v, const char *tid, bool digests)
{
	struct site *s = v->s;
	struct incoming *t = find_ref(s, tid);
	struct err e = { 0 };

	if (t && strcmp(t->o.src, v->party)) {
		serve_refuse(v, err_set(&e, EACCES, "not allowed"), &e);
	} else if (t) {
		pthread_mutex_lock(&s->lock);
		if (digests) {
			uint64_t n = 0;

			for (uint64_t i = 0; i < t->room; i++)
				if (bit(t->bits, i))
					n = i + 1;
			sb_free(&v->out);
			sb_init(&v->out, (size_t)CHUNKS_MAX * 32);
			for (uint64_t i = 0; i < n; i++) {
				static const uint8_t none[32];

				sb_add(&v->out,
				       bit(t->bits, i) ? t->digests[i] : none,
				       32);
			}
			v->code = 200;
		} else {
			serve_json(v, 200, state_json(s, t, &v->credit));
		}
		pthread_mutex_unlock(&s->lock);
	} else if (!answer_receipt(v, tid, "")) {
		serve_refuse(v, err_set(&e, ENOENT, "no such transfer"), &e);
	}
	unref(s, t);
}

void in_abort(struct serve *v, const char *tid)
{
	struct site *s = v->s;
	struct incoming *t = NULL;
	struct receipt_rec *rec = NULL;
	struct err e = { 0 };
	int r = 0;

	pthread_mutex_lock(&making);
	t = find_ref(s, tid);
	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(receipts, tid, rec);
	if (t && strcmp(t->o.src, v->party))
		r = err_set(&e, EACCES, "not allowed");
	else if (rec || (t && t->committing))
		r = err_set(&e, EBUSY, "committed already");
	else if (t)
		forget_locked(s, t);
	pthread_mutex_unlock(&s->lock);
	if (!r && t)
		remove_files(s, tid);
	pthread_mutex_unlock(&making);
	if (r)
		serve_refuse(v, r, &e);
	else
		v->code = 204;
	if (!r && t)
		audit(v, "withdrawn", &t->o);
	unref(s, t);
}

/* ---- chunks ------------------------------------------------------------ */

static int chunk_check(struct serve *v, struct chunk_sink *k, const char *index,
		       struct err *e)
{
	const struct incoming *t = k->t;
	_cleanup_free_ char *allow = NULL;
	char *end = NULL;
	uint64_t n = CHUNKS_MAX;
	int r;

	if (strcmp(t->o.src, v->party))
		return err_set(e, EACCES, "not allowed");
	if (!v->digest || content_digest_parse(v->digest, k->want))
		return err_set(e, EINVAL, "Content-Digest: sha-256 is missing");
	if (v->length < 1 || (uint64_t)v->length > t->o.chunk_size)
		return err_set(e, EINVAL, "a chunk of %lld bytes",
			       (long long)v->length);
	errno = 0;
	k->index = strtoull(index, &end, 10);
	if (t->o.size != SIZE_OPEN)
		n = object_chunks(&t->o);
	if (errno || *end || strlen(index) > 7 || k->index >= n)
		return err_set(e, ERANGE, "no chunk %.20s", index);
	k->len = (uint64_t)v->length;
	if (t->o.size != SIZE_OPEN &&
	    k->len != object_chunk_len(&t->o, k->index))
		return err_set(e, EINVAL, "chunk %llu has another length",
			       (unsigned long long)k->index);
	if (t->o.kind != OBJECT_FILE)
		return 0;
	allow = party_allow(v->s->conf, v->party);
	r = within(allow, k->index * t->o.chunk_size + k->len, t->quota_left,
		   e);
	return r ? r : room_on_disk(v->s, allow, 0, e);
}

/* Other bytes come for a chunk that is there: it is there no more, durably,
 * before the first of them is written. */
static int give_up_old(struct site *s, struct incoming *t, uint64_t index)
{
	static const uint8_t none[32];
	uint8_t record[RECORD];
	int r;

	record_make(t->tid, index, NO_MORE, none, record);
	r = journal_raw(t->have, record, RECORD);
	if (!r)
		r = journal_sync(t->have, journal_len(t->have));
	if (r)
		return r;
	pthread_mutex_lock(&s->lock);
	mark(t, index, false, none);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static void sink_unref(struct chunk_sink *k)
{
	struct site *s = k->s;
	struct chunk_sink **at;
	bool last;

	pthread_mutex_lock(&s->lock);
	last = !--k->refs;
	for (at = &k->t->sinks; last && *at && *at != k; at = &(*at)->next)
		;
	if (last && *at)
		*at = k->next;
	pthread_mutex_unlock(&s->lock);
	if (!last)
		return;
	unref(s, k->t);
	EVP_MD_CTX_free(k->md);
	free(k->held);
	pthread_mutex_destroy(&k->lock);
	free(k);
}

/* Another request that brings the same chunk: it stands still perhaps, and
 * this one is newer.  From the return on it writes nothing more. */
static void take_over(struct chunk_sink *old)
{
	pthread_mutex_lock(&old->lock);
	old->lost = true;
	pthread_mutex_unlock(&old->lock);
	sink_unref(old);
}

/* Extents in large pieces; what is too much goes with the commit's truncate. */
static void allocate_ahead(struct site *s, struct incoming *t, uint64_t upto)
{
	uint64_t from, to;
	struct statvfs v;

	if (statvfs(s->conf->state, &v) ||
	    (uint64_t)v.f_bavail * v.f_frsize < 16 * AHEAD)
		return;
	pthread_mutex_lock(&s->lock);
	from = t->allocated;
	to = t->o.size == SIZE_OPEN && upto > from ? upto + AHEAD : from;
	t->allocated = to;
	pthread_mutex_unlock(&s->lock);
	/* Without room the write itself will say so. */
	if (to > from)
		(void)!fallocate(t->fd, FALLOC_FL_KEEP_SIZE, (off_t)from,
				 (off_t)(to - from));
}

void in_chunk_begin(struct serve *v, const char *tid, const char *index)
{
	struct site *s = v->s;
	struct chunk_sink *k = xcalloc(1, sizeof(*k)), *old = NULL;
	bool same = false, other = false;
	struct err e = { 0 };
	int r = 0;

	k->s = s;
	k->refs = 1;
	pthread_mutex_init(&k->lock, NULL);
	k->t = find_ref(s, tid);
	if (!k->t) {
		pthread_mutex_destroy(&k->lock);
		free(k);
		serve_refuse(v, err_set(&e, ENOENT, "no such transfer"), &e);
		return;
	}
	r = chunk_check(v, k, index, &e);
	pthread_mutex_lock(&s->lock);
	if (!r) {
		make_room(k->t, k->index);
		for (old = k->t->sinks; old; old = old->next)
			if (old->index == k->index && !old->lost)
				break;
		if (k->t->gone || k->t->committing || (old && old->settling)) {
			r = err_set(&e, EAGAIN, "the chunk is being written");
		} else if (bit(k->t->bits, k->index)) {
			same = !memcmp(k->t->digests[k->index], k->want, 32);
			other = !same;
		}
	}
	if (!r && !same) {
		if (old)
			old->refs++;
		k->next = k->t->sinks;
		k->t->sinks = k;
	} else {
		old = NULL;
	}
	if (same)
		count_of(s, v->party)->chunks_again++;
	v->credit = credit(s);
	pthread_mutex_unlock(&s->lock);
	if (old)
		take_over(old);
	if (!r && !same)
		allocate_ahead(s, k->t, (k->index + 1) * k->t->o.chunk_size);
	if (!r && !same) {
		if (other)
			r = give_up_old(s, k->t, k->index);
		k->md = EVP_MD_CTX_new();
		if (!r &&
		    (!k->md || !EVP_DigestInit_ex(k->md, EVP_sha256(), NULL)))
			r = -ENOMEM;
		if (r)
			err_sys(&e, -r, "chunk");
	}
	if (same)
		v->code = 200; /* what comes is not looked at */
	else if (r)
		serve_refuse(v, r, &e);
	else
		v->sink = TAKE_PTR(k);
	if (k)
		sink_unref(k);
}

static int write_held(struct chunk_sink *k, struct err *e)
{
	int r;

	pthread_mutex_lock(&k->lock);
	r = k->lost ? -EAGAIN
		    : pwrite_all(k->t->fd, k->held, k->n_held,
				 k->index * k->t->o.chunk_size + k->got -
				     k->n_held);
	pthread_mutex_unlock(&k->lock);
	k->n_held = 0;
	return !r ? 0
		  : err_set(e, -r, "%s",
			    r == -ENOSPC   ? "no space"
			    : r == -EAGAIN ? "a newer request brings it"
					   : "cannot write");
}

void in_chunk_data(struct serve *v, const void *data, size_t n)
{
	struct chunk_sink *k = v->sink;
	const size_t most = MIN(k->len, HELD_MAX);
	const uint8_t *from = data;
	struct err e = { 0 };
	int r = 0;

	if (n > k->len - k->got)
		r = err_set(&e, EINVAL, "longer than it said");
	if (!r && !EVP_DigestUpdate(k->md, data, n))
		r = err_set(&e, ENOMEM, "digest");
	if (!k->held)
		k->held = xmalloc(most);
	while (!r && n) {
		size_t part = MIN(n, most - k->n_held);

		memcpy(k->held + k->n_held, from, part);
		k->n_held += part;
		k->got += part;
		from += part;
		n -= part;
		if (k->n_held == most)
			r = write_held(k, &e);
	}
	if (r)
		serve_refuse(v, r, &e);
}

void in_chunk_end(struct serve *v)
{
	struct chunk_sink *k = v->sink;
	struct site *s = v->s;
	struct err e = { 0 };
	uint8_t digest[32];
	int r = 0;

	if (k->got != k->len)
		r = err_set(&e, EINVAL, "cut short");
	if (!r && !EVP_DigestFinal_ex(k->md, digest, NULL))
		r = err_set(&e, ENOMEM, "digest");
	if (!r && memcmp(digest, k->want, 32))
		r = err_set(&e, EBADMSG, "the digest does not match");
	if (!r && k->n_held)
		r = write_held(k, &e);
	if (!r) {
		pthread_mutex_lock(&s->lock);
		pthread_mutex_lock(&k->lock); /* nobody writes: it is short */
		if (k->lost)
			r = err_set(&e, EAGAIN, "a newer request brings it");
		k->settling = true;
		pthread_mutex_unlock(&k->lock);
		pthread_mutex_unlock(&s->lock);
	}
	if (!r) {
		r = make_durable(s, k->t, k->index, digest);
		if (r)
			err_set(&e, -r, "%s",
				r == -ENOSPC ? "no space" : "cannot write");
	}
	pthread_mutex_lock(&s->lock);
	if (!r) {
		count_of(s, v->party)->chunks_received++;
		count_of(s, v->party)->bytes_received += k->len;
	}
	v->credit = credit(s);
	pthread_mutex_unlock(&s->lock);
	if (r)
		serve_refuse(v, r, &e);
	else
		v->code = 201;
}

void in_chunk_free(struct chunk_sink *k)
{
	if (k)
		sink_unref(k);
}

/* ---- commit ------------------------------------------------------------ */

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
	_cleanup_free_ char *path = partial(v->s, o->tid, ".data");
	_cleanup_close_ int fd = -1;
	uint8_t digest[32], root[32];
	uint64_t left;
	char hex[65];
	int r;

	if (n != o->size || n > INLINE_MAX)
		return err_set(e, EINVAL, "the content has another length");
	sha256(data, n, digest);
	merkle_root(&digest, n ? 1 : 0, root);
	hex_encode(root, 32, hex);
	if (strcmp(hex, o->root))
		return err_set(e, EBADMSG, "the digest does not match");
	r = admit(v->s, o, &left, e);
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

/* All chunks are there and make the root; the answer stands when they do not.
 * The lock of s is taken inside. */
static int complete(struct serve *v, struct incoming *t, const struct object *o,
		    struct err *e)
{
	struct site *s = v->s;
	uint64_t n = object_chunks(o);
	uint8_t root[32];
	char hex[65];
	int r = 0;

	if (t->o.chunk_size != o->chunk_size)
		return err_set(e, EEXIST, "announced before with other chunks");
	pthread_mutex_lock(&s->lock);
	if (n)
		make_room(t, n - 1);
	for (uint64_t i = n; i < t->room; i++)
		if (bit(t->bits, i)) /* it became shorter */
			mark(t, i, false, t->digests[i]);
	if (t->count == n && !t->committing && !t->gone) {
		merkle_root((const uint8_t(*)[32])t->digests, n, root);
		hex_encode(root, 32, hex);
		if (!strcmp(hex, o->root))
			t->committing = true;
		else
			r = 1;
	} else if (t->committing || t->gone) {
		r = err_set(e, EAGAIN, "its commit is under way");
	} else {
		uint8_t *lack = xcalloc(1, t->room / 8 + 1);
		_cleanup_free_ char *text = NULL;

		for (uint64_t i = 0; i < n; i++)
			bit_set(lack, i, !bit(t->bits, i));
		text = ranges_text(lack, n, 256u << 10);
		free(lack);
		serve_json(v, 409,
			   json_pack("{s:s, s:s}", "code", "incomplete",
				     "missing", text ? text : ""));
		r = 1;
	}
	pthread_mutex_unlock(&s->lock);
	if (r == 1 && !v->code)
		serve_json(v, 409, json_pack("{s:s}", "code", "root_mismatch"));
	if (!r && ftruncate(t->fd, (off_t)o->size))
		r = err_sys(e, errno, "data");
	return r;
}

/* The rename; parent is the directory of the inbox. */
static int put_in_place(struct site *s, const struct receipt_rec *rec,
			int parent, bool again, struct err *e)
{
	_cleanup_free_ char *data = partial(s, rec->tid, ".data");
	uint64_t newer;
	int r = 0;

	pthread_mutex_lock(&publishing);
	pthread_mutex_lock(&s->lock);
	newer = newest_generation(rec->party, rec->path);
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
	int r = mkdir_p(in, 0700, e);

	if (r)
		return r;
	*ret = parent_beneath(in, path);
	if (*ret == -ELOOP || *ret == -ENOTDIR) {
		log_warn("audit", "party %s: a file path was refused", party);
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
		r = receipt_for(s, o, &rec->doc, e);
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
	HASH_FIND_STR(receipts, o->tid, other);
	if (other) {
		r = err_set(e, EAGAIN, "its commit is under way");
	} else {
		log = receipts_log(s, o->src);
		r = log ? journal_raw(log, line, strlen(line)) : -EIO;
		if (!r) {
			receipt_add(rec);
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
	answer_committed(v, 200, &rec->doc);
	hook_die("in-answered");
	return 0;
}

static int publish_message(struct serve *v, const struct object *o,
			   struct err *e)
{
	struct site *s = v->s;
	_cleanup_free_ char *data = partial(s, o->tid, ".data");
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
		r = receipt_for(s, o, &doc, e);
	if (!r)
		answer_committed(v, 200, &doc);
	receipt_free(&doc);
	return r;
}

/* Who comes second waits, and then finds the receipt. */
static void commit_lock(struct site *s, struct committing *mine)
{
	const struct committing *x;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		for (x = commits; x; x = x->next)
			if (!strcmp(x->tid, mine->tid))
				break;
		if (!x)
			break;
		(void)site_wait(s, WAIT_COMMIT, mine->tid, -1, 0);
	}
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

/* A receipt whose rename failed: done again. */
static int finish_publishing(struct site *s, const char *tid, struct err *e)
{
	_cleanup_close_ int parent = -1;
	struct receipt_rec *rec = NULL;
	int r;

	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(receipts, tid, rec);
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

static int commit(struct serve *v, const struct object *o, struct incoming *t,
		  const char *data, size_t n, struct err *e)
{
	_cleanup_free_ char *allow = party_allow(v->s->conf, v->party);
	int r = 0;

	if (o->kind == OBJECT_FILE && t)
		r = within(allow, o->size, t->quota_left, e);
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
		r = belongs(v, &o, tid, &e);
	if (!r)
		r = check_signature(v, doc, &e);
	if (r) {
		serve_refuse(v, r, &e);
		if (r != -EINVAL)
			audit(v, "refused commit", &o);
		json_decref(doc);
		object_free(&o);
		return;
	}
	memcpy(mine.tid, o.tid, sizeof(mine.tid));
	commit_lock(s, &mine);
	r = finish_publishing(s, tid, &e);
	if (r)
		serve_refuse(v, r, &e);
	if (r || done_before(v, &o))
		goto out;
	t = find_ref(s, tid);
	r = commit(v, &o, t, data, n, &e);
	pthread_mutex_lock(&making);
	pthread_mutex_lock(&s->lock);
	if (t && !r)
		forget_locked(s, t);
	else if (t)
		t->committing = false;
	pthread_mutex_unlock(&s->lock);
	if (!r) {
		remove_files(s, tid);
		drop_older(s, &o);
	}
	pthread_mutex_unlock(&making);
	if (r < 0)
		serve_refuse(v, r, &e);
	if (r <= 0)
		audit(v, r ? "refused commit" : "commit", &o);
out:
	commit_unlock(s, &mine);
	unref(s, t);
	json_decref(doc);
	object_free(&o);
}

/* ---- ends and beginnings ----------------------------------------------- */

void in_forget(struct site *s, const char *job, const char *session)
{
	struct incoming *t, *tmp;
	char of[41];

	pthread_mutex_lock(&s->lock);
	HASH_ITER (hh, s->arriving, t, tmp) {
		const char *its;

		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		if (!t->o.key)
			continue;
		its = t->o.key->f[KEY_SESSION];
		if (session
			? strcmp(its, session)
			: !session_job(its, of, sizeof(of)) || strcmp(of, job))
			continue;
		remove_files(s, t->tid);
		forget_locked(s, t);
		if (!t->refs)
			incoming_free(t);
	}
	pthread_mutex_unlock(&s->lock);
}

void in_sweep(struct site *s)
{
	struct incoming *t, *tmp;

	pthread_mutex_lock(&s->lock);
	HASH_ITER (hh, s->arriving, t, tmp) {
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		if (t->refs > 1 || t->touched_ms + PARTIAL_MS > now_unix_ms())
			continue;
		log_info("rollsite", "transfer %.16s of party %s was given up",
			 t->tid, t->o.src);
		remove_files(s, t->tid);
		forget_locked(s, t);
		incoming_free(t);
	}
	pthread_mutex_unlock(&s->lock);
}

static void replay_have(struct site *s, struct incoming *t)
{
	_cleanup_free_ char *path = partial(s, t->tid, ".have");
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	uint8_t record[RECORD], check[32];
	uint64_t good = 0;

	while (f && fread(record, RECORD, 1, f) == 1) {
		uint32_t v[2];

		record_check(t->tid, record, check);
		if (memcmp(check, record + 40, 8))
			break;
		memcpy(v, record, 8);
		if (le32toh(v[0]) >= CHUNKS_MAX)
			break;
		mark(t, le32toh(v[0]), le32toh(v[1]) == HAVE, record + 8);
		good += RECORD;
	}
	if (truncate(path, (off_t)good))
		log_debug("rollsite", "no chunks of %.16s", t->tid);
}

static void load_partial(struct site *s, const char *tid)
{
	_cleanup_free_ char *path = partial(s, tid, ".json");
	json_t *doc = json_read_file(path, NULL);
	struct receipt_rec *rec = NULL;
	struct object o = { 0 };
	struct incoming *t;
	struct err e = { 0 };

	HASH_FIND_STR(receipts, tid, rec);
	if (rec || !doc || object_parse(doc, false, &o, &e) ||
	    strcmp(o.tid, tid) ||
	    (o.kind == OBJECT_MESSAGE &&
	     !site_session_open(s, o.key->f[KEY_SESSION]))) {
		remove_files(s, tid);
		json_decref(doc);
		object_free(&o);
		return;
	}
	json_decref(doc);
	t = incoming_new(&o);
	object_free(&o);
	replay_have(s, t);
	t->quota_left = UINT64_MAX; /* until it is announced again */
	if (open_files(s, t, &e)) {
		log_warn("rollsite", "%s", e.text);
		incoming_free(t);
		return;
	}
	HASH_ADD_STR(s->arriving, tid, t);
}

/* Data without an announcement, or with a receipt. */
static void finish_data(struct site *s, const char *tid)
{
	_cleanup_free_ char *json = partial(s, tid, ".json");
	struct receipt_rec *rec = NULL;
	_cleanup_close_ int parent = -1;
	struct err e = { 0 };

	HASH_FIND_STR(receipts, tid, rec);
	if (!rec) {
		if (access(json, F_OK))
			remove_files(s, tid);
		return;
	}
	if (inbox_parent(s, rec->party, rec->path, &parent, &e) ||
	    put_in_place(s, rec, parent, true, &e)) {
		log_error("rollsite", "a file of party %s: %s", rec->party,
			  e.text);
		return;
	}
	remove_files(s, tid);
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
	_cleanup_free_ char *json = partial(s, tid, ".json");

	if (access(json, F_OK))
		remove_files(s, tid);
}

int in_open(struct site *s, struct err *e)
{
	_cleanup_free_ char *dir =
	    xasprintf("%s/transfer/files", s->conf->state);
	_cleanup_closedir_ DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		char party[16] = "";
		size_t n = strspn(de->d_name, "0123456789");
		int r;

		if (!n || n > 10 || strcmp(de->d_name + n, ".receipts"))
			continue;
		memcpy(party, de->d_name, n);
		r = load_receipts(s, party, e);
		if (r)
			return r;
	}
	each_partial(s, ".data", finish_data);
	each_partial(s, ".have", orphan);
	each_partial(s, ".json", load_partial);
	return 0;
}
