// SPDX-License-Identifier: Apache-2.0
/*
 * Files between parties: what was written here for others, and where it lies.
 *
 *   STATE/federation/<party>/out/<path>    what is being, or was, pushed
 *   STATE/transfer/files/<party>.sent      what is known of sent files
 *                                          (file_log.c)
 *
 * A put is durable when its line is: the line names the spool file, and who
 * dies before the rename finds it to be done at the next start.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/file_priv.h"

/* The analyzer takes what is put into a table of uthash for lost. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

#define HOP_CHUNK (1u << 20) /* through others chunks are held in memory */

struct sent *file_sent;
struct stream *file_streams;
struct withdrawn *file_withdrawals;
uint64_t file_last_generation;
/* Renames of spool files, so that the newest put has the last word. */
static pthread_mutex_t placing = PTHREAD_MUTEX_INITIALIZER;

struct sent *file_find(const char *party, const char *path)
{
	_cleanup_free_ char *key = xasprintf("%s/%s", party, path);
	struct sent *f = NULL;

	HASH_FIND_STR(file_sent, key, f);
	return f;
}

/* lock held */
static void wake_file(struct site *s, const char *party, const char *path)
{
	_cleanup_free_ char *key = xasprintf("%s/%s", party, path);

	site_wake(s, WAIT_FILE, key);
}

void sent_free(struct sent *f)
{
	free(f->key);
	free(f->path);
	free(f->spool);
	free(f->error);
	free(f->receipt);
	free(f);
}

static void stream_free(struct stream *x)
{
	free(x->spool);
	free(x->party);
	free(x->path);
	free(x->error);
	free(x);
}

/* lock held */
static void stream_end(struct stream *x)
{
	HASH_DEL(file_streams, x);
	stream_free(x);
}

static uint64_t next_generation(void)
{
	file_last_generation =
	    MAX(file_last_generation + 1, (uint64_t)now_unix_ms() * 1000);
	return file_last_generation;
}

/* ---- places ------------------------------------------------------------ */

/* The directory that holds path below dir, made when missing. */
int parent_beneath(const char *dir, const char *path)
{
	_cleanup_free_ char *p = xstrdup(path);
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char *slash, *at = p;

	if (fd < 0)
		return -errno;
	while ((slash = strchr(at, '/'))) {
		bool made;
		int sub;

		*slash = '\0';
		made = !mkdirat(fd, at, 0700);
		if (!made && errno != EEXIST) {
			sub = -errno;
		} else {
			sub = openat(fd, at,
				     O_RDONLY | O_DIRECTORY | O_NOFOLLOW |
					 O_CLOEXEC);
			if (sub < 0)
				sub = -errno;
			else if (made)
				(void)fsync(fd);
		}
		close(fd);
		if (sub < 0)
			return sub;
		fd = sub;
		at = slash + 1;
	}
	return fd;
}

const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

char *file_out_path(const struct site *s, const char *party, const char *path)
{
	return xasprintf("%s/federation/%s/out/%s", s->conf->state, party,
			 path);
}

/* ---- the end of a transfer --------------------------------------------- */

void file_on_done(struct site *s, const struct object *o, int status,
		  const char *error, unsigned attempts,
		  const struct receipt_doc *receipt)
{
	struct sent *f;

	pthread_mutex_lock(&s->lock);
	f = file_find(o->dst, o->path);
	if (f && !strcmp(f->tid, o->tid)) {
		free(f->error);
		f->error = xstrdup(error);
		f->error_no = -status;
		f->status = status ? FAILED : COMMITTED;
		f->committed_ms = now_unix_ms();
		f->attempts = attempts;
		if (!status) {
			json_t *doc = receipt_json(receipt, true);

			free(f->receipt);
			f->receipt = json_text(doc, false);
			json_decref(doc);
		}
		file_news(s, f);
	} else {
		struct stream *x, *tmp;

		HASH_ITER (hh, file_streams, x, tmp)
			/* cppcheck-suppress uninitvar; as above */
			if (!strcmp(x->tid, o->tid)) {
				x->failed = status;
				free(x->error);
				x->error = xstrdup(error);
			}
	}
	wake_file(s, o->dst, o->path);
	pthread_mutex_unlock(&s->lock);
}

/* ---- handing over ------------------------------------------------------ */

void file_identity(struct site *s, const char *party, const char *path,
		   uint64_t generation, uint64_t chunk_size, uint64_t size,
		   struct object *ret)
{
	*ret = (struct object){ .kind = OBJECT_FILE,
				.path = (char *)path,
				.generation = generation,
				.chunk_size = chunk_size,
				.size = size,
				.created_ms = now_unix_ms() };
	(void)snprintf(ret->src, sizeof(ret->src), "%s", s->conf->party);
	(void)snprintf(ret->dst, sizeof(ret->dst), "%s", party);
	object_identify(ret);
}

static int check(struct site *s, const char *party, const char *path,
		 const char *spool, struct err *e)
{
	_cleanup_free_ char *base = NULL, *address = NULL;

	if (!party_id_valid(party) || !path_valid(path))
		return err_set(e, EINVAL, "not a path: %.200s", path);
	address = party_address(s->conf, party);
	if (!address || !strcmp(party, s->conf->party))
		return err_set(e, EHOSTUNREACH, "no party %s is configured",
			       party);
	base = xasprintf("%s/federation/%s/spool/", s->conf->state, party);
	if (strncmp(spool, base, strlen(base)) ||
	    strchr(spool + strlen(base), '/'))
		return err_set(e, EINVAL, "not a spool file");
	return 0;
}

static uint64_t least_chunk(struct site *s, const char *party)
{
	const struct peer *p = peer_get(s, party);

	return p && !route_is_direct(p) ? HOP_CHUNK : CHUNK_DEFAULT;
}

int file_stream(struct site *s, const char *party, const char *path,
		const char *spool, uint64_t bytes, bool rewritten,
		struct err *e)
{
	uint64_t chunk = least_chunk(s, party);
	struct stream *x = NULL;
	const struct sent *f;
	struct object o;
	char tid[65] = "";
	int r = check(s, party, path, spool, e);

	if (r)
		return r;
	if (access(spool, F_OK))
		return err_set(e, ENOENT, "handed over already");
	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(file_streams, spool, x);
	f = file_find(party, path);
	if (!x && f && f->spool && !strcmp(f->spool, last_part(spool)))
		r = err_set(e, ENOENT, "handed over already");
	else if (x && (strcmp(x->path, path) || strcmp(x->party, party)))
		r = err_set(e, EINVAL, "another file");
	else if (x)
		memcpy(tid, x->tid, sizeof(tid));
	if (!r && !x && bytes >= chunk) {
		x = xcalloc(1, sizeof(*x));
		x->spool = xstrdup(spool);
		x->party = xstrdup(party);
		x->path = xstrdup(path);
		x->generation = next_generation();
		x->chunk_size = chunk;
		file_identity(s, party, path, x->generation, chunk, SIZE_OPEN,
			      &o);
		memcpy(x->tid, o.tid, sizeof(x->tid));
		HASH_ADD_KEYPTR(hh, file_streams, x->spool, strlen(x->spool),
				x);
	} else if (!r && !x) {
		r = 1; /* not a chunk yet */
	}
	pthread_mutex_unlock(&s->lock);
	if (r)
		return r < 0 ? r : 0;
	if (*tid) { /* one that has failed is told at the put */
		r = out_grow(s, tid, bytes, rewritten);
		return r == -ENOENT ? 0 : r;
	}
	return out_start(s, &o, spool, bytes, false, file_on_done, e);
}

void file_drop(struct site *s, const char *spool)
{
	struct stream *x = NULL;
	char tid[65] = "";

	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(file_streams, spool, x);
	if (x) {
		memcpy(tid, x->tid, sizeof(tid));
		stream_end(x);
	}
	pthread_mutex_unlock(&s->lock);
	if (*tid)
		out_abort(s, tid);
}

/* lock held; the record of this put, in place of the one before, whose
 * transfer ends (its id in old_tid) */
struct sent *file_record(const char *party, const char *path, char old_tid[65])
{
	struct sent *f = file_find(party, path);

	old_tid[0] = '\0';
	if (f) {
		memcpy(old_tid, f->tid, 65);
		free(f->error);
		free(f->spool);
		free(f->receipt);
		f->error = f->spool = f->receipt = NULL;
	} else {
		f = xcalloc(1, sizeof(*f));
		f->key = xasprintf("%s/%s", party, path);
		(void)snprintf(f->party, sizeof(f->party), "%s", party);
		f->path = xstrdup(path);
		HASH_ADD_KEYPTR(hh, file_sent, f->key, strlen(f->key), f);
	}
	f->status = LIVE;
	f->error_no = 0;
	f->queued_ms = now_unix_ms();
	f->committed_ms = f->deadline_ms = 0;
	return f;
}

/* The rename, unless a later put was quicker; a transfer under way reads there
 * from now on. */
static int place(struct site *s, const char *party, const char *path,
		 const char *spool, const struct object *o, struct err *e)
{
	_cleanup_free_ char *final = file_out_path(s, party, path);
	_cleanup_free_ char *out =
	    xasprintf("%s/federation/%s/out", s->conf->state, party);
	_cleanup_close_ int parent = -1;
	const struct sent *f;
	bool mine;
	int r = mkdir_p_durable(out, 0700, e);

	if (r)
		return r;
	parent = parent_beneath(out, path);
	if (parent < 0)
		return err_sys(e, -parent, "%s", path);
	pthread_mutex_lock(&placing);
	pthread_mutex_lock(&s->lock);
	f = file_find(party, path);
	mine = f && f->generation == o->generation;
	/* Readers of chunks open by name with the lock held. */
	if (mine && renameat(AT_FDCWD, spool, parent, last_part(path)))
		r = err_sys(e, errno, "%s", path);
	else if (mine)
		out_moved_locked(s, o->tid, final);
	pthread_mutex_unlock(&s->lock);
	if (!mine)
		(void)unlink(spool);
	pthread_mutex_unlock(&placing);
	return r;
}

struct put {
	struct object o;
	char old_tid[65];
	bool streamed;
	int failed;
	struct journal *log;
	uint64_t upto;
};

/* lock held */
static int put_locked(struct site *s, const char *party, const char *path,
		      const char *spool, uint64_t size, uint64_t least,
		      struct put *x)
{
	struct stream *st = NULL;
	_cleanup_free_ char *line = NULL;
	struct sent *f = file_record(party, path, x->old_tid);

	HASH_FIND_STR(file_streams, spool, st);
	if (st && !strcmp(st->path, path) && !strcmp(st->party, party) &&
	    !st->failed) {
		x->streamed = true;
		f->generation = st->generation;
		f->chunk_size = st->chunk_size;
	} else {
		f->generation = next_generation();
		f->chunk_size = chunk_size_for(size, least);
	}
	if (st && st->failed) {
		x->failed = st->failed;
		f->status = FAILED;
		f->error_no = -st->failed;
		f->error = xstrdup(st->error ? st->error : "refused");
	}
	f->size = size;
	file_identity(s, party, path, f->generation, f->chunk_size, size,
		      &x->o);
	memcpy(f->tid, x->o.tid, sizeof(f->tid));
	f->spool = xstrdup(last_part(spool));
	line = file_sent_line(f);
	if (st && !x->streamed && !st->failed)
		x->failed = 1; /* the caller withdraws it */
	return file_journal(s, party, line, &x->log, &x->upto);
}

/* Said again: we died before the answer to the first time. */
static bool taken_over(struct site *s, const char *party, const char *path,
		       const char *spool)
{
	const struct sent *f;
	bool same;

	pthread_mutex_lock(&s->lock);
	f = file_find(party, path);
	same = f && f->spool && !strcmp(f->spool, last_part(spool));
	pthread_mutex_unlock(&s->lock);
	return same;
}

/* It stands in the table already: whoever asks for it is told. */
static int put_failed(struct site *s, const char *party, const char *path,
		      const struct put *x, int r, const struct err *e)
{
	struct sent *f;

	pthread_mutex_lock(&s->lock);
	f = file_find(party, path);
	if (f && !strcmp(f->tid, x->o.tid) && f->status == LIVE) {
		f->status = FAILED;
		f->error_no = -r;
		free(f->error);
		f->error = xstrdup(e ? e->text : "failed here");
		file_news(s, f);
	}
	wake_file(s, party, path);
	pthread_mutex_unlock(&s->lock);
	return r;
}

int file_put(struct site *s, const char *party, const char *path,
	     const char *spool, bool rewritten, struct err *e)
{
	_cleanup_free_ char *final = file_out_path(s, party, path);
	_cleanup_close_ int fd = -1;
	struct put x = { 0 };
	struct stat st;
	uint64_t least;
	int r = check(s, party, path, spool, e);

	if (r)
		return r;
	fd = open(spool, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT && taken_over(s, party, path, spool))
		return 0;
	if (fd < 0 || fstat(fd, &st) || fdatasync(fd))
		return err_sys(e, errno, "%s", spool);
	least = least_chunk(s, party);
	pthread_mutex_lock(&s->lock);
	r = put_locked(s, party, path, spool, (uint64_t)st.st_size, least, &x);
	pthread_mutex_unlock(&s->lock);
	if (!r)
		r = journal_sync(x.log, x.upto);
	hook_die("put-written");
	if (*x.old_tid && strcmp(x.old_tid, x.o.tid))
		out_abort(s, x.old_tid);
	if (r) {
		r = err_sys(e, -r, "journal of files");
		return put_failed(s, party, path, &x, r, e);
	}
	r = place(s, party, path, spool, &x.o, e);
	hook_die("put-placed");
	if (x.failed == 1)
		file_drop(s, spool);
	if (r)
		return put_failed(s, party, path, &x, r, e);
	if (x.streamed)
		r = out_seal(s, x.o.tid, x.o.size, NULL, rewritten);
	if (!x.failed || x.failed == 1) {
		if (!x.streamed || r == -ENOENT)
			r = out_start(s, &x.o, final, x.o.size, true,
				      file_on_done, e);
	}
	pthread_mutex_lock(&s->lock);
	{
		struct stream *over = NULL;

		HASH_FIND_STR(file_streams, spool, over);
		if (over)
			stream_end(over);
	}
	wake_file(s, party, path);
	pthread_mutex_unlock(&s->lock);
	return r;
}

void file_on_withdrawn(struct site *s, const struct object *o, int status,
		       const char *error, unsigned attempts,
		       const struct receipt_doc *receipt)
{
	struct withdrawn *x = NULL;

	(void)status, (void)error, (void)attempts, (void)receipt;
	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(file_withdrawals, o->tid, x);
	if (x) {
		HASH_DEL(file_withdrawals, x);
		free(x->path);
		free(x);
	}
	pthread_mutex_unlock(&s->lock);
}

/* lock held */
void file_add_withdrawn(const char *party, const char *path, const char *tid,
			uint64_t generation)
{
	struct withdrawn *x = NULL;

	HASH_FIND_STR(file_withdrawals, tid, x);
	if (x)
		return;
	x = xcalloc(1, sizeof(*x));
	(void)snprintf(x->tid, sizeof(x->tid), "%s", tid);
	(void)snprintf(x->party, sizeof(x->party), "%s", party);
	x->path = xstrdup(path);
	x->generation = generation;
	HASH_ADD_STR(file_withdrawals, tid, x);
}

int file_remove(struct site *s, const char *party, const char *path,
		struct err *e)
{
	_cleanup_free_ char *out = NULL, *line = NULL;
	_cleanup_close_ int parent = -1;
	struct journal *log = NULL;
	uint64_t upto = 0, generation = 0;
	struct sent *f;
	struct object o;
	int r = 0;

	if (!party_id_valid(party) || !path_valid(path))
		return err_set(e, EINVAL, "not a path: %.200s", path);
	out = xasprintf("%s/federation/%s/out", s->conf->state, party);
	parent = parent_beneath(out, path);
	if (parent < 0)
		return err_sys(e, -parent, "%s", path);
	pthread_mutex_lock(&s->lock);
	if (unlinkat(parent, last_part(path), 0) && errno != ENOENT)
		r = err_sys(e, errno, "%s", path);
	f = file_find(party, path);
	if (!r && f) {
		if (f->status == LIVE) {
			generation = f->generation;
			file_add_withdrawn(party, path, f->tid, generation);
			file_identity(s, party, path, generation, f->chunk_size,
				      SIZE_OPEN, &o);
		}
		HASH_DEL(file_sent, f);
		sent_free(f);
		line = file_removed_line(path, generation);
		r = file_journal(s, party, line, &log, &upto);
		if (r)
			err_sys(e, -r, "journal of files");
	}
	wake_file(s, party, path);
	pthread_mutex_unlock(&s->lock);
	if (!r && log)
		r = journal_sync(log, upto);
	if (generation && out_withdraw(s, &o, file_on_withdrawn, NULL))
		log_warn("rollsite", "party %s is not told of a withdrawal",
			 party);
	return r;
}

int file_wait(struct site *s, const char *party, const char *path, int client,
	      struct err *e)
{
	_cleanup_free_ char *key = xasprintf("%s/%s", party, path);
	int r = -EAGAIN;

	pthread_mutex_lock(&s->lock);
	while (r == -EAGAIN) {
		const struct sent *f = file_find(party, path);

		if (!f)
			r = err_set(e, ENOENT, "no such file was handed over");
		else if (f->status == COMMITTED)
			r = 0;
		else if (f->status == FAILED)
			r = err_set(e, f->error_no > 0 ? f->error_no : EIO,
				    "%s", f->error ? f->error : "failed");
		else if (!site_wait(s, WAIT_FILE, key, client, 0))
			r = -EPIPE;
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

int file_retry(struct site *s, const char *party, const char *path,
	       struct err *e)
{
	_cleanup_free_ char *final = file_out_path(s, party, path);
	uint64_t size = 0;
	bool failed = false;
	struct object o;
	struct sent *f;

	pthread_mutex_lock(&s->lock);
	f = file_find(party, path);
	if (f && f->status == FAILED) {
		failed = true;
		size = f->size;
		f->status = LIVE;
		f->error_no = 0;
		f->deadline_ms = 0;
		file_identity(s, party, path, f->generation, f->chunk_size,
			      size, &o);
		file_news(s, f);
	}
	pthread_mutex_unlock(&s->lock);
	if (!f)
		return err_set(e, ENOENT, "no such file was handed over");
	return failed ? out_start(s, &o, final, size, true, file_on_done, e)
		      : 0;
}

int file_deadline(struct site *s, const char *party, const char *path,
		  int64_t unix_ms, struct err *e)
{
	char tid[65] = "";
	struct sent *f;

	pthread_mutex_lock(&s->lock);
	f = file_find(party, path);
	if (f) {
		memcpy(tid, f->tid, sizeof(tid));
		f->deadline_ms = unix_ms;
		file_news(s, f);
	}
	pthread_mutex_unlock(&s->lock);
	if (!*tid)
		return err_set(e, ENOENT, "no such file was handed over");
	out_deadline(s, tid, unix_ms);
	return 0;
}
