// SPDX-License-Identifier: Apache-2.0
/*
 * Large messages of tasks to a party: their records stand in its journal
 * (site_message.c), their bytes in files beside it, which leave as transfers,
 * also while the task still writes them.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "lib/log.h"

#include "transfer/transfer_priv.h"

/* The analyzer takes what is put into a table of uthash for lost. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

/* A large message while it is produced. */
struct message_stream {
	UT_hash_handle hh;
	char tid[65];
	struct key key;
	char *path;
	bool started;
};
static struct message_stream *streams; /* with s->lock */

static char *large_path(const struct peer *p, const char *tid)
{
	return xasprintf("%s/%s", p->dir, tid);
}

static void object_of(const struct message_head *h, uint64_t least,
		      struct object *ret)
{
	*ret = (struct object){ .kind = OBJECT_MESSAGE,
				.key = (struct key *)&h->key,
				.generation = 1,
				.chunk_size = chunk_size_for(h->size, least),
				.size = h->size,
				.created_ms = now_unix_ms() };
	memcpy(ret->sha256, h->sha256, sizeof(ret->sha256));
	object_identify(ret);
}

static void on_done(struct site *s, const struct object *o, int status,
		    const char *error, unsigned attempts,
		    const struct receipt_doc *receipt)
{
	struct peer *p = peer_get(s, o->dst);
	_cleanup_free_ char *path = NULL;
	char text[400];

	(void)receipt;
	(void)attempts;
	if (!p)
		return;
	path = large_path(p, o->tid);
	pthread_mutex_lock(&s->lock);
	if (journal_mark(p->log, o->tid))
		log_warn("rollsite", "cannot write to %s", p->dir);
	if (!status) {
		p->count.messages_out++;
		p->count.message_bytes_out += o->size;
	}
	message_log_clear(p);
	pthread_mutex_unlock(&s->lock);
	(void)unlink(path);
	if (!status)
		return;
	(void)snprintf(
	    text, sizeof(text), "party %s refused a message (%s)", p->id,
	    status == -EEXIST	? "other content under the same name"
	    : status == -EACCES ? "not allowed, or the job has ended there"
				: error);
	site_session_fail(s, o->key->f[KEY_SESSION], status, text);
}

static uint64_t least_chunk(const struct peer *p)
{
	return route_is_direct(p) ? CHUNK_DEFAULT : 1u << 20;
}

/* Between its record and its transfer a message is nowhere else. */
static void started(struct peer *p)
{
	pthread_mutex_lock(&p->s->lock);
	p->large--;
	pthread_mutex_unlock(&p->s->lock);
}

/* Journal of a large one: durable when it returns. */
static int journal_large(struct peer *p, const struct message_head *head,
			 struct err *e)
{
	struct message_head h = *head;
	uint64_t upto;
	int r;

	h.file = true;
	pthread_mutex_lock(&p->s->lock);
	r = journal_add(p->log, &h, NULL);
	upto = journal_len(p->log);
	p->large++; /* until its transfer is there: see started() */
	pthread_mutex_unlock(&p->s->lock);
	if (!r)
		r = journal_sync(p->log, upto);
	if (r)
		started(p);
	return r ? err_sys(e, -r, "message") : 0;
}

int peer_send_file(struct site *s, const struct message_head *h,
		   const char *tmp, struct err *e)
{
	struct peer *p = peer_get(s, h->key.f[KEY_DST_PARTY]);
	_cleanup_free_ char *path = NULL;
	struct object o;
	bool again = false;
	char sent[65];
	int r = 0;

	if (!p)
		r = err_set(e, EHOSTUNREACH, "no party %s is configured",
			    h->key.f[KEY_DST_PARTY]);
	if (!r) {
		pthread_mutex_lock(&s->lock);
		again = out_sealed_locked(s, h->tid, sent);
		pthread_mutex_unlock(&s->lock);
	}
	if (again) { /* repeated by a task whose answer was lost */
		(void)unlink(tmp);
		return strcmp(sent, h->sha256) != 0
			   ? err_set(e, EEXIST,
				     "the same message with other content")
			   : 0;
	}
	if (!r) {
		path = large_path(p, h->tid);
		r = rename(tmp, path) ? err_sys(e, errno, "%s", path)
				      : dir_sync(p->dir, e);
	}
	if (!r)
		r = journal_large(p, h, e);
	if (!r) {
		object_of(h, least_chunk(p), &o);
		r = out_start(s, &o, path, h->size, true, on_done, e);
		started(p);
	}
	if (r && r != -EEXIST)
		(void)unlink(tmp);
	return r == -EEXIST ? 0 : r;
}

int peer_stream_open(struct site *s, const struct key *k, bool again,
		     int *ret_fd, char ret_sent[65], struct err *e)
{
	struct peer *p = peer_get(s, k->f[KEY_DST_PARTY]);
	struct message_stream *x = NULL;
	bool rewritten = false;
	char tid[65];
	int fd = -1, r = 0;

	if (!p)
		return err_set(e, EHOSTUNREACH, "no party %s is configured",
			       k->f[KEY_DST_PARTY]);
	key_tid(k, tid);
	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(streams, tid, x);
	if (!site_session_open_locked(s, k->f[KEY_SESSION])) {
		/* Who closes a job looks for streams after that. */
		r = err_set(e, EACCES, "this job's messages are closed");
	} else if (!x && out_sealed_locked(s, tid, ret_sent)) {
		pthread_mutex_unlock(&s->lock);
		*ret_fd = -1; /* its end was journalled, not answered */
		return 0;
	} else if (!x) {
		x = xcalloc(1, sizeof(*x));
		memcpy(x->tid, tid, sizeof(tid));
		x->key = *k;
		x->path = large_path(p, tid);
		HASH_ADD_STR(streams, tid, x);
	} else {
		rewritten = !again && x->started;
	}
	if (!r && x) {
		fd = open(x->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		r = fd < 0 ? err_sys(e, errno, "message") : 0;
	}
	pthread_mutex_unlock(&s->lock);
	if (r)
		return r;
	/* What was read before is not looked at; then the bytes may go. */
	if (rewritten)
		(void)!out_grow(s, tid, 0, true);
	if (!again && ftruncate(fd, 0)) {
		r = err_sys(e, errno, "message");
		close(fd);
		return r;
	}
	*ret_fd = fd;
	*ret_sent = '\0';
	return 0;
}

void peer_stream_drop(struct site *s, const struct key *k)
{
	struct message_stream *x = NULL;
	char tid[65];
	_cleanup_free_ char *path = NULL;
	bool begun;

	key_tid(k, tid);
	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(streams, tid, x);
	begun = x && x->started;
	if (x) {
		path = TAKE_PTR(x->path);
		HASH_DEL(streams, x);
		free(x);
	}
	pthread_mutex_unlock(&s->lock);
	if (begun) /* before its bytes go */
		out_abort(s, tid);
	if (path)
		(void)unlink(path);
}

int peer_stream_more(struct site *s, const struct key *k, uint64_t bytes,
		     struct err *e)
{
	struct peer *p = peer_get(s, k->f[KEY_DST_PARTY]);
	struct message_stream *x = NULL;
	_cleanup_free_ char *path = NULL;
	struct message_head h = { .key = *k };
	struct object o;
	bool start = false;
	char tid[65];

	key_tid(k, tid);
	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(streams, tid, x);
	if (x && !x->started && bytes >= CHUNK_DEFAULT) {
		start = x->started = true;
		path = xstrdup(x->path);
	}
	pthread_mutex_unlock(&s->lock);
	if (!x || !p)
		return err_set(e, ENOENT, "no such stream");
	if (!start)
		return out_grow(s, tid, bytes, false) == -EINVAL ? -EINVAL : 0;
	object_of(&h, least_chunk(p), &o);
	return out_start(s, &o, path, bytes, false, on_done, e);
}

int peer_stream_end(struct site *s, const struct message_head *h, struct err *e)
{
	struct peer *p = peer_get(s, h->key.f[KEY_DST_PARTY]);
	struct message_stream *x = NULL;
	_cleanup_free_ char *path = NULL;
	_cleanup_close_ int fd = -1;
	struct stat st;
	struct object o;
	bool begun;
	int r;

	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(streams, h->tid, x);
	begun = x && x->started;
	if (x) {
		path = TAKE_PTR(x->path);
		HASH_DEL(streams, x);
		free(x);
	}
	pthread_mutex_unlock(&s->lock);
	if (!path || !p)
		return err_set(e, ENOENT, "no such stream");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) || (uint64_t)st.st_size != h->size)
		return err_set(e, EINVAL, "the stream has another length");
	if (fdatasync(fd))
		return err_sys(e, errno, "message");
	r = journal_large(p, h, e);
	if (r)
		return r;
	r = begun ? out_seal(s, h->tid, h->size, h->sha256, false) : -ENOENT;
	if (r == -ENOENT) {
		object_of(h, least_chunk(p), &o);
		r = out_start(s, &o, path, h->size, true, on_done, e);
	}
	started(p);
	return r == -EEXIST ? 0 : r;
}

/* ---- ends and beginnings ----------------------------------------------- */

void large_forget_locked(const char *job, const char *session)
{
	struct message_stream *x, *tmp;

	HASH_ITER (hh, streams, x, tmp) {
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		if (!session_is_of(x->key.f[KEY_SESSION], job, session))
			continue;
		(void)unlink(x->path);
		HASH_DEL(streams, x);
		free(x->path);
		free(x);
	}
}

/* Files of large messages: those of the journal go on, others are rubbish. */
void large_resume(struct peer *p, const struct message_head *large, size_t n)
{
	_cleanup_closedir_ DIR *d = opendir(p->dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *path = NULL;
		bool wanted = false;

		if (de->d_name[0] == '.' || !strcmp(de->d_name, "log"))
			continue;
		for (size_t i = 0; i < n && !wanted; i++)
			wanted = !strcmp(large[i].tid, de->d_name) &&
				 site_session_open(p->s,
						   large[i].key.f[KEY_SESSION]);
		path = xasprintf("%s/%s", p->dir, de->d_name);
		if (!wanted)
			(void)unlink(path);
	}
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *path = large_path(p, large[i].tid);
		struct object o;
		struct err e = { 0 };

		if (access(path, F_OK))
			continue;
		object_of(&large[i], least_chunk(p), &o);
		if (out_start(p->s, &o, path, large[i].size, true, on_done, &e))
			log_warn("rollsite", "a message: %s", e.text);
	}
}
