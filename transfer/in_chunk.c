// SPDX-License-Identifier: Apache-2.0
/*
 * Chunks that arrive.  They are acknowledged when .data and then .have are on
 * disk; those that arrive at the same time share the two syncs.
 */
#include <endian.h>
#include <fcntl.h>

#include "lib/log.h"

#include "transfer/in_priv.h"

#define RECORD	HAVE_RECORD
#define HAVE	1u
#define NO_MORE 2u

struct pending { /* a chunk that waits for the disk; on a stack */
	struct pending *next;
	uint64_t index;
	const uint8_t *digest;
	bool done;
	int status;
};

struct chunk_sink {
	struct chunk_sink *next; /* of one transfer; with s->lock */
	struct site *s;
	struct incoming *t;
	uint64_t index, len, got;
	uint64_t reserved; /* in s->unwritten */
	uint8_t want[32];
	EVP_MD_CTX *md;
	unsigned refs;
	/* With s->lock: all there, it only waits for the disk; or another
	 * request brings this chunk, or the transfer is being committed. */
	bool settling, replaced;
	/* lost: it may write no more; the lock is held while bytes are
	 * written. */
	pthread_mutex_t lock;
	bool lost;
	/* Written in pieces of this size: TLS hands over 16 KiB at a time, and
	 * so small writes cost three times the CPU. */
	uint8_t *held;
	size_t n_held;
};
#define HELD_MAX (512u << 10)
#define AHEAD	 (64ull << 20)
/* What arrives without a known size may be this often the quota, all of it
 * together: which of them will fit shows at their commits. */
#define OPEN_QUOTAS 4

/* ---- the journal of what is there -------------------------------------- */

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

bool have_parse(const char *tid, const uint8_t record[HAVE_RECORD],
		uint64_t *ret_index, bool *ret_have, uint8_t ret_digest[32])
{
	uint8_t check[32];
	uint32_t v[2];

	record_check(tid, record, check);
	memcpy(v, record, 8);
	if (memcmp(check, record + 40, 8) || le32toh(v[0]) >= CHUNKS_MAX)
		return false;
	*ret_index = le32toh(v[0]);
	*ret_have = le32toh(v[1]) == HAVE;
	memcpy(ret_digest, record + 8, 32);
	return true;
}

void in_replay(struct site *s, struct incoming *t)
{
	_cleanup_free_ char *path = in_path(s, t->tid, ".have");
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	uint8_t record[RECORD], digest[32];
	uint64_t good = 0, i;
	bool have;

	while (f && fread(record, RECORD, 1, f) == 1 &&
	       have_parse(t->tid, record, &i, &have, digest)) {
		in_mark(t, i, have, digest);
		good += RECORD;
	}
	if (truncate(path, (off_t)good))
		log_debug("rollsite", "no chunks of %.16s", t->tid);
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
		in_mark(t, x->index, true, x->digest);
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
	/* cppcheck-suppress autoVariables; taken off before the return */
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

/* ---- requests ---------------------------------------------------------- */

static int chunk_check(struct serve *v, struct chunk_sink *k, const char *index,
		       struct err *e)
{
	const struct incoming *t = k->t;
	_cleanup_free_ char *allow = NULL;
	struct object o = { .chunk_size = t->o.chunk_size };
	char *end = NULL;
	uint64_t n = CHUNKS_MAX, quota_left, quota = UINT64_MAX, open = 0,
		 given, allocated;
	int r;

	if (!v->digest || content_digest_parse(v->digest, k->want))
		return err_set(e, EINVAL, "Content-Digest: sha-256 is missing");
	if (v->length < 1 || (uint64_t)v->length > t->o.chunk_size)
		return err_set(e, EINVAL, "a chunk of %lld bytes",
			       (long long)v->length);
	pthread_mutex_lock(&v->s->lock); /* announced again, it may be known */
	o.size = t->o.size;
	quota_left = t->quota_left;
	given = t->given;
	allocated = t->allocated;
	pthread_mutex_unlock(&v->s->lock);
	errno = 0;
	k->index = strtoull(index, &end, 10);
	if (o.size != SIZE_OPEN)
		n = object_chunks(&o);
	if (errno || *end || strlen(index) > 7 || k->index >= n)
		return err_set(e, ERANGE, "no chunk %.20s", index);
	k->len = (uint64_t)v->length;
	if (o.size != SIZE_OPEN && k->len != object_chunk_len(&o, k->index))
		return err_set(e, EINVAL, "chunk %llu has another length",
			       (unsigned long long)k->index);
	if (t->o.kind != OBJECT_FILE)
		return 0;
	allow = party_allow(v->s->conf, v->party);
	r = in_within(allow, k->index * t->o.chunk_size + k->len, quota_left,
		      e);
	if (r)
		return r;
	if (k->index * t->o.chunk_size + k->len > given &&
	    allow_limit(allow, "quota", &quota)) {
		pthread_mutex_lock(&v->s->lock);
		open = in_arriving(v->s, t->o.src, true);
		pthread_mutex_unlock(&v->s->lock);
	}
	if (open / OPEN_QUOTAS > quota)
		return err_set(e, EDQUOT,
			       "the inbox is full: its quota would be "
			       "exceeded");
	/* An announcement takes nothing of the disk: what others are about to
	 * write counts too. */
	if (k->index * t->o.chunk_size + k->len > allocated)
		k->reserved = k->len;
	return in_disk_room(v->s, allow,
			    k->reserved + __atomic_fetch_add(&v->s->unwritten,
							     k->reserved,
							     __ATOMIC_RELAXED),
			    e);
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
	in_mark(t, index, false, none);
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
	__atomic_fetch_sub(&s->unwritten, k->reserved, __ATOMIC_RELAXED);
	in_unref(s, k->t);
	EVP_MD_CTX_free(k->md);
	free(k->held);
	pthread_mutex_destroy(&k->lock);
	free(k);
}

/* From the return on the request, which is marked as replaced, writes nothing
 * more; its reference goes. */
static void take_over(struct chunk_sink *old)
{
	pthread_mutex_lock(&old->lock);
	old->lost = true;
	pthread_mutex_unlock(&old->lock);
	sink_unref(old);
}

void in_chunks_stop(struct site *s, struct incoming *t)
{
	struct chunk_sink *k;

	for (;;) {
		pthread_mutex_lock(&s->lock);
		for (k = t->sinks; k; k = k->next)
			if (!k->settling && !k->replaced)
				break;
		if (k) {
			k->replaced = true;
			k->refs++;
		}
		pthread_mutex_unlock(&s->lock);
		if (!k)
			return;
		take_over(k);
	}
}

/* Extents in large pieces; what is too much goes with the commit's truncate.
 * Only where what is there ends: a chunk may claim to be far behind it. */
static void allocate_ahead(struct site *s, struct incoming *t, uint64_t index)
{
	_cleanup_free_ char *allow = party_allow(s->conf, t->o.src);
	struct err e = { 0 };
	uint64_t from, to, at = index * t->o.chunk_size;
	uint64_t upto = at + t->o.chunk_size;

	if (in_disk_room(s, allow, 16 * AHEAD, &e))
		return;
	pthread_mutex_lock(&s->lock);
	from = t->allocated;
	to = upto > from && at <= from + AHEAD ? upto + AHEAD : from;
	if (t->o.size != SIZE_OPEN)
		to = MAX(MIN(to, t->o.size), from);
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
	k->t = in_find(s, tid, v->party);
	if (!k->t) {
		pthread_mutex_destroy(&k->lock);
		free(k);
		serve_refuse(v, err_set(&e, ENOENT, "no such transfer"), &e);
		return;
	}
	r = chunk_check(v, k, index, &e);
	pthread_mutex_lock(&s->lock);
	if (!r && !in_may_grow(s, k->t, k->index))
		r = err_set(&e, EAGAIN, "too much is under way");
	if (!r) {
		in_room(k->t, k->index);
		/* It stands still perhaps, and this one is newer. */
		for (old = k->t->sinks; old; old = old->next)
			if (old->index == k->index && !old->replaced)
				break;
		if (k->t->gone || k->t->committing || (old && old->settling)) {
			r = err_set(&e, EAGAIN, "the chunk is being written");
		} else if (bit(k->t->bits, k->index)) {
			same = !memcmp(k->t->digests[k->index], k->want, 32);
			other = !same;
		}
	}
	if (!r && !same) {
		if (old) {
			old->replaced = true;
			old->refs++;
		}
		k->next = k->t->sinks;
		k->t->sinks = k;
	} else {
		old = NULL;
	}
	if (same)
		count_of(s, v->party)->chunks_again++;
	v->credit = in_credit(s, v->party);
	pthread_mutex_unlock(&s->lock);
	if (old)
		take_over(old);
	if (!r && !same)
		allocate_ahead(s, k->t, k->index);
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
		if (k->replaced)
			r = err_set(&e, EAGAIN, "a newer request brings it");
		else
			k->settling = true;
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
	v->credit = in_credit(s, v->party);
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
