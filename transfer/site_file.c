// SPDX-License-Identifier: Apache-2.0
/*
 * Files between parties: what was written here for others, and where it lies.
 *
 *   STATE/federation/<party>/out/<path>    what is being, or was, pushed
 *   STATE/transfer/files/<party>.sent      a line of JSON for each change of
 *                                          what is known of a sent file
 *
 * A put is durable when its line is: the line names the spool file, and who
 * dies before the rename finds it to be done at the next start.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/transfer_priv.h"

/* The analyzer takes what is put into a table of uthash for lost. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

/* How long a sent file stays readable after its commit. */
#define KEEP_MS	  (7ll * 24 * 3600 * 1000)
#define HOP_CHUNK (1u << 20) /* through others chunks are held in memory */

enum file_status { LIVE, COMMITTED, FAILED };

struct sent {
	UT_hash_handle hh;
	char *key; /* party/path */
	char party[16], tid[65];
	char *path, *spool, *error, *receipt;
	uint64_t size, generation, chunk_size;
	enum file_status status;
	int error_no;
	unsigned attempts;
	int64_t queued_ms, committed_ms, deadline_ms;
};

/* Removed or replaced after it was announced; the partner does not know yet. */
struct withdrawn {
	UT_hash_handle hh;
	char tid[65], party[16];
	char *path;
	uint64_t generation;
};

/* Being written: pushed already, not yet handed over. */
struct stream {
	UT_hash_handle hh;
	char *spool; /* absolute */
	char *party, *path, *error;
	char tid[65];
	uint64_t generation, chunk_size;
	int failed;
};

struct sent_log {
	struct sent_log *next;
	char party[16];
	struct journal *log;
};

/* Under site.lock like everything else. */
static struct sent *files;
static struct stream *streams;
static struct withdrawn *withdrawals;
static struct sent_log *logs;
static uint64_t last_generation;
/* Renames of spool files, so that the newest put has the last word. */
static pthread_mutex_t placing = PTHREAD_MUTEX_INITIALIZER;

static struct sent *find_sent(const char *party, const char *path)
{
	_cleanup_free_ char *key = xasprintf("%s/%s", party, path);
	struct sent *f = NULL;

	HASH_FIND_STR(files, key, f);
	return f;
}

/* lock held */
static void wake_file(struct site *s, const char *party, const char *path)
{
	_cleanup_free_ char *key = xasprintf("%s/%s", party, path);

	site_wake(s, WAIT_FILE, key);
}

static void sent_free(struct sent *f)
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
	HASH_DEL(streams, x);
	stream_free(x);
}

static uint64_t next_generation(void)
{
	last_generation =
	    MAX(last_generation + 1, (uint64_t)now_unix_ms() * 1000);
	return last_generation;
}

/* ---- what is on disk of it --------------------------------------------- */

static char *sent_line(const struct sent *f)
{
	_cleanup_free_ char *enc = percent_encode(f->path);
	json_t *o = json_pack(
	    "{s:s, s:I, s:I, s:I, s:i, s:i, s:s, s:I, s:I, s:I, s:s, s:s, s:i}",
	    "path", enc, "size", (json_int_t)f->size, "generation",
	    (json_int_t)f->generation, "chunk_size", (json_int_t)f->chunk_size,
	    "status", (int)f->status, "error_no", f->error_no, "error",
	    f->error ? f->error : "", "queued", (json_int_t)f->queued_ms,
	    "committed", (json_int_t)f->committed_ms, "deadline",
	    (json_int_t)f->deadline_ms, "spool", f->spool ? f->spool : "",
	    "receipt", f->receipt ? f->receipt : "", "attempts",
	    (int)f->attempts);
	char *text = json_text(o, false), *line = xasprintf("%s\n", text);

	json_decref(o);
	free(text);
	return line;
}

static char *log_path(const struct site *s, const char *party)
{
	return xasprintf("%s/transfer/files/%s.sent", s->conf->state, party);
}

/* lock held */
static struct journal *log_of(struct site *s, const char *party)
{
	_cleanup_free_ char *path = NULL;
	struct sent_log *x;

	for (x = logs; x; x = x->next)
		if (!strcmp(x->party, party))
			return x->log;
	path = log_path(s, party);
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

/* lock held; *ret_upto: what to sync */
static int journal_line(struct site *s, const char *party, const char *line,
			struct journal **ret, uint64_t *ret_upto)
{
	struct journal *j = log_of(s, party);
	int r = j ? journal_raw(j, line, strlen(line)) : -EIO;

	if (!r && ret) {
		*ret = j; /* lives as long as the process */
		*ret_upto = journal_len(j);
	}
	return r;
}

/* lock held; a change that may also be learnt again */
static void journal_news(struct site *s, const struct sent *f)
{
	_cleanup_free_ char *line = sent_line(f);

	if (journal_line(s, f->party, line, NULL, NULL))
		log_warn("rollsite", "cannot write the journal of files");
}

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

static char *out_path(const struct site *s, const char *party, const char *path)
{
	return xasprintf("%s/federation/%s/out/%s", s->conf->state, party,
			 path);
}

/* ---- the end of a transfer --------------------------------------------- */

static void on_done(struct site *s, const struct object *o, int status,
		    const char *error, unsigned attempts,
		    const struct receipt_doc *receipt)
{
	struct sent *f;

	pthread_mutex_lock(&s->lock);
	f = find_sent(o->dst, o->path);
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
		journal_news(s, f);
	} else {
		struct stream *x, *tmp;

		HASH_ITER (hh, streams, x, tmp)
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

static void identity_of(struct site *s, const char *party, const char *path,
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
	HASH_FIND_STR(streams, spool, x);
	f = find_sent(party, path);
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
		identity_of(s, party, path, x->generation, chunk, SIZE_OPEN,
			    &o);
		memcpy(x->tid, o.tid, sizeof(x->tid));
		HASH_ADD_KEYPTR(hh, streams, x->spool, strlen(x->spool), x);
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
	return out_start(s, &o, spool, bytes, false, on_done, e);
}

void file_drop(struct site *s, const char *spool)
{
	struct stream *x = NULL;
	char tid[65] = "";

	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(streams, spool, x);
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
static struct sent *record(const char *party, const char *path,
			   char old_tid[65])
{
	struct sent *f = find_sent(party, path);

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
		HASH_ADD_KEYPTR(hh, files, f->key, strlen(f->key), f);
	}
	f->status = LIVE;
	f->error_no = 0;
	f->queued_ms = now_unix_ms();
	f->committed_ms = f->deadline_ms = 0;
	return f;
}

/* The rename, unless a later put was quicker. */
static int place(struct site *s, const char *party, const char *path,
		 const char *spool, uint64_t generation, struct err *e)
{
	_cleanup_free_ char *out =
	    xasprintf("%s/federation/%s/out", s->conf->state, party);
	_cleanup_close_ int parent = -1;
	const struct sent *f;
	bool mine;
	int r = mkdir_p(out, 0700, e);

	if (r)
		return r;
	parent = parent_beneath(out, path);
	if (parent < 0)
		return err_sys(e, -parent, "%s", path);
	pthread_mutex_lock(&placing);
	pthread_mutex_lock(&s->lock);
	f = find_sent(party, path);
	mine = f && f->generation == generation;
	/* Readers of chunks open by name with the lock held. */
	if (mine && renameat(AT_FDCWD, spool, parent, last_part(path)))
		r = err_sys(e, errno, "%s", path);
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
	struct sent *f = record(party, path, x->old_tid);

	HASH_FIND_STR(streams, spool, st);
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
	identity_of(s, party, path, f->generation, f->chunk_size, size, &x->o);
	memcpy(f->tid, x->o.tid, sizeof(f->tid));
	f->spool = xstrdup(last_part(spool));
	line = sent_line(f);
	if (st && !x->streamed && !st->failed)
		x->failed = 1; /* the caller withdraws it */
	return journal_line(s, party, line, &x->log, &x->upto);
}

/* Said again: we died before the answer to the first time. */
static bool taken_over(struct site *s, const char *party, const char *path,
		       const char *spool)
{
	const struct sent *f;
	bool same;

	pthread_mutex_lock(&s->lock);
	f = find_sent(party, path);
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
	f = find_sent(party, path);
	if (f && !strcmp(f->tid, x->o.tid) && f->status == LIVE) {
		f->status = FAILED;
		f->error_no = -r;
		free(f->error);
		f->error = xstrdup(e ? e->text : "failed here");
		journal_news(s, f);
	}
	wake_file(s, party, path);
	pthread_mutex_unlock(&s->lock);
	return r;
}

int file_put(struct site *s, const char *party, const char *path,
	     const char *spool, bool rewritten, struct err *e)
{
	_cleanup_free_ char *final = out_path(s, party, path);
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
	r = place(s, party, path, spool, x.o.generation, e);
	hook_die("put-placed");
	if (x.failed == 1)
		file_drop(s, spool);
	if (r)
		return put_failed(s, party, path, &x, r, e);
	if (x.streamed)
		r = out_seal(s, x.o.tid, x.o.size, NULL, final, rewritten);
	if (!x.failed || x.failed == 1) {
		if (!x.streamed || r == -ENOENT)
			r = out_start(s, &x.o, final, x.o.size, true, on_done,
				      e);
	}
	pthread_mutex_lock(&s->lock);
	{
		struct stream *over = NULL;

		HASH_FIND_STR(streams, spool, over);
		if (over)
			stream_end(over);
	}
	wake_file(s, party, path);
	pthread_mutex_unlock(&s->lock);
	return r;
}

static void on_withdrawn(struct site *s, const struct object *o, int status,
			 const char *error, unsigned attempts,
			 const struct receipt_doc *receipt)
{
	struct withdrawn *x = NULL;

	(void)status, (void)error, (void)attempts, (void)receipt;
	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(withdrawals, o->tid, x);
	if (x) {
		HASH_DEL(withdrawals, x);
		free(x->path);
		free(x);
	}
	pthread_mutex_unlock(&s->lock);
}

/* lock held */
static void add_withdrawn(const char *party, const char *path, const char *tid,
			  uint64_t generation)
{
	struct withdrawn *x = NULL;

	HASH_FIND_STR(withdrawals, tid, x);
	if (x)
		return;
	x = xcalloc(1, sizeof(*x));
	(void)snprintf(x->tid, sizeof(x->tid), "%s", tid);
	(void)snprintf(x->party, sizeof(x->party), "%s", party);
	x->path = xstrdup(path);
	x->generation = generation;
	HASH_ADD_STR(withdrawals, tid, x);
}

static char *removed_line(const char *path, uint64_t generation)
{
	_cleanup_free_ char *enc = percent_encode(path);

	return xasprintf("{\"path\":\"%s\",\"removed\":true,"
			 "\"withdrawn\":%llu}\n",
			 enc, (unsigned long long)generation);
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
	f = find_sent(party, path);
	if (!r && f) {
		if (f->status == LIVE) {
			generation = f->generation;
			add_withdrawn(party, path, f->tid, generation);
			identity_of(s, party, path, generation, f->chunk_size,
				    SIZE_OPEN, &o);
		}
		HASH_DEL(files, f);
		sent_free(f);
		line = removed_line(path, generation);
		r = journal_line(s, party, line, &log, &upto);
		if (r)
			err_sys(e, -r, "journal of files");
	}
	wake_file(s, party, path);
	pthread_mutex_unlock(&s->lock);
	if (!r && log)
		r = journal_sync(log, upto);
	if (generation && out_withdraw(s, &o, on_withdrawn, NULL))
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
		const struct sent *f = find_sent(party, path);

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

int file_deadline(struct site *s, const char *party, const char *path,
		  int64_t unix_ms, struct err *e)
{
	char tid[65] = "";
	struct sent *f;

	pthread_mutex_lock(&s->lock);
	f = find_sent(party, path);
	if (f) {
		memcpy(tid, f->tid, sizeof(tid));
		f->deadline_ms = unix_ms;
		journal_news(s, f);
	}
	pthread_mutex_unlock(&s->lock);
	if (!*tid)
		return err_set(e, ENOENT, "no such file was handed over");
	out_deadline(s, tid, unix_ms);
	return 0;
}

/* ---- what is known ----------------------------------------------------- */

/* Reasons are cut by bytes: half a character at the end is no text. */
static void trim_utf8(char *text)
{
	size_t n = strlen(text), k = n;

	while (k && n - k < 4 && ((unsigned char)text[k - 1] & 0xc0) == 0x80)
		k--;
	if (k && ((unsigned char)text[k - 1] & 0xc0) == 0xc0) {
		unsigned char lead = (unsigned char)text[k - 1];
		size_t want = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;

		if (n - k + 1 < want)
			text[k - 1] = '\0';
	}
}

/* lock not held: the file as it stood, and how its transfer goes */
static void news_of(struct site *s, const struct sent *f, struct out_news *n)
{
	if (f->status == LIVE && out_news(s, f->tid, n)) {
		trim_utf8(n->error);
		return;
	}
	n->size = f->size;
	n->acknowledged = f->status == COMMITTED ? f->size : 0;
	n->attempts = f->attempts;
	n->state = f->status == COMMITTED ? OUT_COMMITTED
		   : f->status == FAILED  ? OUT_FAILED
					  : OUT_QUEUED;
	if (f->error)
		(void)snprintf(n->error, sizeof(n->error), "%s", f->error);
	trim_utf8(n->error);
}

static struct sent *copy_sent(const struct sent *f)
{
	struct sent *c = xcalloc(1, sizeof(*c));

	*c = *f;
	c->key = NULL;
	c->spool = NULL;
	c->path = xstrdup(f->path);
	c->error = f->error ? xstrdup(f->error) : NULL;
	c->receipt = f->receipt ? xstrdup(f->receipt) : NULL;
	return c;
}

/* lock held: a file that is only being written looks like this */
static struct sent *streamed(const char *party, const char *path, unsigned skip)
{
	struct stream *x, *tmp;

	HASH_ITER (hh, streams, x, tmp) {
		struct sent *c;

		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		if (strcmp(x->party, party) || (path && strcmp(x->path, path)))
			continue;
		if (skip-- > 0)
			continue;
		c = xcalloc(1, sizeof(*c));
		(void)snprintf(c->party, sizeof(c->party), "%s", party);
		c->path = xstrdup(x->path);
		memcpy(c->tid, x->tid, sizeof(c->tid));
		c->generation = x->generation;
		c->status = x->failed ? FAILED : LIVE;
		c->error = x->error ? xstrdup(x->error) : NULL;
		c->queued_ms = (int64_t)(x->generation / 1000);
		return c;
	}
	return NULL;
}

json_t *file_state(struct site *s, const char *party, const char *path)
{
	struct out_news n = { 0 };
	const struct sent *f;
	struct sent *c;
	char when[40] = "";
	json_t *o, *receipt = NULL;

	pthread_mutex_lock(&s->lock);
	f = find_sent(party, path);
	c = f ? copy_sent(f) : streamed(party, path, 0);
	pthread_mutex_unlock(&s->lock);
	if (!c)
		return NULL;
	news_of(s, c, &n);
	if (c->deadline_ms)
		time_rfc3339(when, sizeof(when), c->deadline_ms);
	if (c->receipt)
		receipt = json_parse(c->receipt, strlen(c->receipt), NULL);
	o = json_pack(
	    "{s:s, s:I, s:I, s:f, s:I, s:i, s:s, s:f, s:I, s:s, s:s, "
	    "s:s, s:o*}",
	    "state", out_state_names[n.state], "size", (json_int_t)n.size,
	    "acknowledged", (json_int_t)n.acknowledged, "rate", n.rate,
	    "resent", (json_int_t)n.resent, "attempts", (int)n.attempts,
	    "error", n.error, "next_try", (double)n.next_try_ms / 1000,
	    "generation", (json_int_t)c->generation, "tid", c->tid, "chunks",
	    n.chunks ? n.chunks : "", "deadline", when, "receipt", receipt);
	free(n.chunks);
	sent_free(c);
	return o;
}

static void transfers_line(struct site *s, const struct sent *f,
			   struct strbuf *sb)
{
	struct out_news n = { 0 };
	char when[40];

	news_of(s, f, &n);
	time_rfc3339(when, sizeof(when), f->queued_ms);
	sb_addf(sb, "%s %s %llu/%llu bytes %.0f B/s attempts %u", when,
		out_state_names[n.state], (unsigned long long)n.acknowledged,
		(unsigned long long)n.size, n.rate, n.attempts);
	if (n.next_try_ms)
		sb_addf(sb, " next try in %.1f s",
			(double)n.next_try_ms / 1000);
	sb_addf(sb, " %s", f->path);
	if (*n.error)
		sb_addf(sb, " error: %s", n.error);
	sb_addc(sb, '\n');
	free(n.chunks);
}

/* Unfinished ones first, the newest last in each part. */
char *file_transfers(struct site *s, const char *party)
{
	struct strbuf sb = STRBUF_INIT(16u << 20);
	const struct sent *f;
	struct sent **list = NULL, *x, *tmp;
	size_t n = 0, room = 0;

	pthread_mutex_lock(&s->lock);
	HASH_ITER (hh, files, x, tmp) {
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		f = x;
		if (strcmp(f->party, party))
			continue;
		if (n + 1 >= room) {
			room = MAX(2 * room, 16);
			list = xrealloc(list, room * sizeof(struct sent *));
		}
		list[n++] = copy_sent(f);
	}
	for (unsigned i = 0; (x = streamed(party, NULL, i)); i++) {
		list = xrealloc(list, (n + 1) * sizeof(struct sent *));
		list[n++] = x;
	}
	pthread_mutex_unlock(&s->lock);
	for (int part = 0; part < 2; part++)
		for (size_t i = 0; i < n; i++)
			if ((list[i]->status == LIVE) == !part)
				transfers_line(s, list[i], &sb);
	for (size_t i = 0; i < n; i++)
		sent_free(list[i]);
	free(list);
	return sb_detach(&sb);
}

void file_arrived(struct site *s, const char *party, const char *path)
{
	struct inbox_event *x = xcalloc(1, sizeof(*x)), **p;
	unsigned n = 0;

	pthread_mutex_lock(&s->lock);
	x->seq = ++s->inbox_seq;
	x->party = xstrdup(party);
	x->path = xstrdup(path);
	for (p = &s->inbox; *p; p = &(*p)->next)
		n++;
	*p = x;
	if (n > 1000) { /* nobody listens: the oldest may go */
		x = s->inbox;
		s->inbox = x->next;
		free(x->party);
		free(x->path);
		free(x);
	}
	site_wake(s, WAIT_INBOX, NULL);
	pthread_mutex_unlock(&s->lock);
}

/* ---- start ------------------------------------------------------------- */

/* A put that was cut off between its line and its rename. */
static void finish_rename(struct site *s, const struct sent *f)
{
	_cleanup_free_ char *dir =
	    xasprintf("%s/federation/%s", s->conf->state, f->party);
	_cleanup_free_ char *out = xasprintf("%s/out", dir);
	_cleanup_free_ char *from = NULL;
	_cleanup_close_ int parent = -1;

	if (!f->spool || !*f->spool || strchr(f->spool, '/') ||
	    mkdir_p(out, 0700, NULL))
		return;
	from = xasprintf("%s/spool/%s", dir, f->spool);
	parent = parent_beneath(out, f->path);
	if (parent < 0 ||
	    (renameat(AT_FDCWD, from, parent, last_part(f->path)) &&
	     errno != ENOENT))
		log_warn("rollsite",
			 "a file for party %s cannot be put into its place",
			 f->party);
}

static void load_line(struct site *s, const char *party, const char *line)
{
	json_t *o = json_parse(line, strlen(line), NULL);
	_cleanup_free_ char *path = percent_decode(json_str_or(o, "path", "%"));
	struct sent *f;
	char unused[65];

	if (!o || !path || !path_valid(path)) {
		json_decref(o);
		return;
	}
	f = find_sent(party, path);
	if (json_bool_or(o, "removed", false)) {
		uint64_t g = (uint64_t)json_int_or(o, "withdrawn", 0);

		if (g) {
			struct object x;

			identity_of(s, party, path, g, CHUNK_DEFAULT, SIZE_OPEN,
				    &x);
			add_withdrawn(party, path, x.tid, g);
		}
		if (f) {
			HASH_DEL(files, f);
			sent_free(f);
		}
		json_decref(o);
		return;
	}
	f = record(party, path, unused);
	f->size = (uint64_t)json_int_or(o, "size", 0);
	f->generation = (uint64_t)json_int_or(o, "generation", 0);
	f->chunk_size = (uint64_t)json_int_or(o, "chunk_size", CHUNK_DEFAULT);
	f->status = (enum file_status)json_int_or(o, "status", LIVE);
	f->error_no = (int)json_int_or(o, "error_no", 0);
	f->attempts = (unsigned)json_int_or(o, "attempts", 0);
	f->error = xstrdup(json_str_or(o, "error", ""));
	f->queued_ms = json_int_or(o, "queued", 0);
	f->committed_ms = json_int_or(o, "committed", 0);
	f->deadline_ms = json_int_or(o, "deadline", 0);
	f->spool = xstrdup(json_str_or(o, "spool", ""));
	f->receipt = xstrdup(json_str_or(o, "receipt", ""));
	if (!*f->receipt) {
		free(f->receipt);
		f->receipt = NULL;
	}
	last_generation = MAX(last_generation, f->generation);
	json_decref(o);
}

/* lock held or nobody else here: the lines that still matter */
static int rewrite(struct site *s, const char *party, struct err *e)
{
	_cleanup_free_ char *path = log_path(s, party);
	struct strbuf keep = STRBUF_INIT(1u << 30);
	struct withdrawn *x, *xtmp;
	struct sent *f, *tmp;
	int r;

	HASH_ITER (hh, files, f, tmp) {
		_cleanup_free_ char *line = NULL;

		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		if (strcmp(f->party, party))
			continue;
		line = sent_line(f);
		sb_adds(&keep, line);
	}
	HASH_ITER (hh, withdrawals, x, xtmp) {
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		_cleanup_free_ char *line =
		    removed_line(x->path, x->generation);

		if (!strcmp(x->party, party))
			sb_adds(&keep, line);
	}
	r = keep.error ? keep.error
		       : file_replace(path, keep.buf, keep.len, 0600, true, e);
	sb_free(&keep);
	return r;
}

static int load(struct site *s, const char *party, struct err *e)
{
	_cleanup_free_ char *path = log_path(s, party), *line = NULL;
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	size_t size = 0;

	while (f && getline(&line, &size, f) > 0) {
		char *end = strchr(line, '\n');

		if (!end) /* torn by a power cut: it was not acknowledged */
			break;
		*end = '\0';
		load_line(s, party, line);
	}
	return rewrite(s, party, e);
}

static void resume(struct site *s)
{
	_cleanup_free_ struct object *list = NULL;
	struct withdrawn *x, *xtmp;
	struct sent *f, *tmp;
	size_t n = 0;

	HASH_ITER (hh, files, f, tmp) {
		_cleanup_free_ char *final = NULL;
		struct object o;
		struct err e = { 0 };

		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		final = out_path(s, f->party, f->path);
		finish_rename(s, f);
		identity_of(s, f->party, f->path, f->generation, f->chunk_size,
			    f->size, &o);
		memcpy(f->tid, o.tid, sizeof(f->tid));
		o.deadline_ms = f->deadline_ms;
		o.created_ms = f->queued_ms;
		if (f->status == LIVE &&
		    out_start(s, &o, final, f->size, true, on_done, &e))
			log_warn("rollsite", "a file for party %s waits: %s",
				 f->party, e.text);
	}
	/* They end while others are begun: a list of those of now. */
	pthread_mutex_lock(&s->lock);
	list = xcalloc(HASH_COUNT(withdrawals) + 1, sizeof(*list));
	HASH_ITER (hh, withdrawals, x, xtmp) {
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		identity_of(s, x->party, x->path, x->generation, CHUNK_DEFAULT,
			    SIZE_OPEN, &list[n]);
		list[n++].path = xstrdup(x->path);
	}
	pthread_mutex_unlock(&s->lock);
	for (size_t k = 0; k < n; k++) {
		if (out_withdraw(s, &list[k], on_withdrawn, NULL))
			log_debug("rollsite", "a withdrawal waits");
		object_free(&list[k]);
	}
}

/* Sent files are kept for a while after their commit. */
static void expire(struct site *s)
{
	struct sent *f, *tmp;

	HASH_ITER (hh, files, f, tmp) {
		_cleanup_free_ char *party = NULL, *path = NULL;

		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		if (f->status != COMMITTED ||
		    f->committed_ms + KEEP_MS > now_unix_ms())
			continue;
		party = xstrdup(f->party);
		path = xstrdup(f->path);
		if (file_remove(s, party, path, NULL))
			log_warn("rollsite", "cannot remove an old file");
	}
}

int file_open(struct site *s, struct err *e)
{
	_cleanup_free_ char *dir =
	    xasprintf("%s/transfer/files", s->conf->state);
	_cleanup_closedir_ DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		char party[16] = "";
		size_t n = strspn(de->d_name, "0123456789");
		int r;

		if (!n || n > 10 || strcmp(de->d_name + n, ".sent"))
			continue;
		memcpy(party, de->d_name, n);
		r = load(s, party, e);
		if (r)
			return r;
	}
	expire(s);
	resume(s);
	return 0;
}
