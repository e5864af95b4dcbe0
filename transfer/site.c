// SPDX-License-Identifier: Apache-2.0
/*
 * Messages of tasks at this party: which jobs are open, what has arrived, who
 * waits.  A message is in the journal STATE/transfer/in/<job>/log, a large one
 * in a file of its own beside it, on disk before it is acknowledged (a sync for
 * all that came together).  When the task has taken it, its head stays, so
 * that a repeated delivery is recognised.
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <time.h>
#include <uthash.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/transfer_priv.h"

/* The analyzer takes what is put into a table of uthash for lost. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

#define PIECE (256u << 10)
/* Taken, and three quarters of the journal: it is written anew. */
#ifdef ROLLFS_TEST_HOOKS
#define REWRITE_MIN (64u << 10)
#else
#define REWRITE_MIN (32u << 20)
#endif

struct message {
	UT_hash_handle hh;
	char tid[65], sha256[65], job[41];
	char *session;
	uint64_t size;
	void *data; /* small payloads, which the journal has */
	bool file;  /* a large payload, in a file of its own */
	bool done;
};

struct site_job {
	struct site_job *next;
	char id[41];
	json_t *roles;
	json_t *closed; /* sessions */
	struct journal *log;
	uint64_t taken; /* bytes of payloads in it that nobody wants any more */
	bool grows;	/* it could not be written anew */
};

struct session_error {
	struct session_error *next;
	char session[KEY_FIELD_MAX + 1];
	int status;
	char text[300];
};

static char *job_path(const struct site *s, const char *job)
{
	return xasprintf("%s/transfer/jobs/%s.json", s->conf->state, job);
}

static char *in_dir(const struct site *s, const char *job)
{
	return xasprintf("%s/transfer/in/%s", s->conf->state, job);
}

static char *log_path(const struct site *s, const char *job)
{
	return xasprintf("%s/transfer/in/%s/log", s->conf->state, job);
}

static void message_free(struct message *m)
{
	if (!m)
		return;
	free(m->session);
	free(m->data);
	free(m);
}

/* Of a thousand messages this much stays in memory: no key, no payload. */
static struct message *message_new(const struct message_head *h)
{
	struct message *m = xcalloc(1, sizeof(*m));

	memcpy(m->tid, h->tid, sizeof(m->tid));
	memcpy(m->sha256, h->sha256, sizeof(m->sha256));
	m->session = xstrdup(h->key.f[KEY_SESSION]);
	session_job(m->session, m->job, sizeof(m->job));
	m->size = h->size;
	m->file = h->file;
	return m;
}

static char *in_path(const struct site *s, const struct message *m)
{
	return xasprintf("%s/transfer/in/%s/%s", s->conf->state, m->job,
			 m->tid);
}

static struct site_job *find_job(struct site *s, const char *id)
{
	struct site_job *j;

	for (j = s->jobs; j; j = j->next)
		if (!strcmp(j->id, id))
			return j;
	return NULL;
}

static bool in_list(const json_t *list, const char *text)
{
	size_t i;
	json_t *v;

	json_array_foreach (list, i, v)
		if (json_is_string(v) && !strcmp(json_string_value(v), text))
			return true;
	return false;
}

/* lock held */
static bool admitted(struct site *s, const struct key *k)
{
	const struct site_job *j;
	char job[41];

	if (!session_job(k->f[KEY_SESSION], job, sizeof(job)))
		return false;
	j = find_job(s, job);
	return j && j->log && !in_list(j->closed, k->f[KEY_SESSION]) &&
	       in_list(json_object_get(j->roles, k->f[KEY_SRC_ROLE]),
		       k->f[KEY_SRC_PARTY]) &&
	       in_list(json_object_get(j->roles, k->f[KEY_DST_ROLE]),
		       k->f[KEY_DST_PARTY]);
}

int site_admit(struct site *s, const struct key *k, const char *from_party,
	       struct err *e)
{
	bool ok;

	if (strcmp(k->f[KEY_SRC_PARTY], from_party) ||
	    strcmp(k->f[KEY_DST_PARTY], s->conf->party))
		return err_set(e, EACCES, "not allowed");
	pthread_mutex_lock(&s->lock);
	ok = admitted(s, k);
	pthread_mutex_unlock(&s->lock);
	return ok ? 0 : err_set(e, EACCES, "not allowed");
}

bool site_session_open_locked(struct site *s, const char *session)
{
	const struct site_job *j;
	char job[41];

	if (!session_job(session, job, sizeof(job)))
		return false;
	j = find_job(s, job);
	return j && !in_list(j->closed, session);
}

bool site_session_open(struct site *s, const char *session)
{
	bool ok;

	pthread_mutex_lock(&s->lock);
	ok = site_session_open_locked(s, session);
	pthread_mutex_unlock(&s->lock);
	return ok;
}

char *site_temp(struct site *s)
{
	static unsigned counter;

	return xasprintf("%s/transfer/tmp/%d.%u", s->conf->state, (int)getpid(),
			 __atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED));
}

int site_copy(int fd, uint64_t size, const char *path, bool durable,
	      struct err *e)
{
	_cleanup_free_ char *piece = xmalloc(PIECE);
	_cleanup_close_ int out =
	    open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	uint64_t at = 0;
	int r = out < 0 ? -errno : 0;

	while (!r && at < size) {
		size_t n = (size_t)MIN(PIECE, size - at);

		r = pread_all(fd, piece, n, at);
		if (!r)
			r = write_all(out, piece, n);
		at += n;
	}
	if (!r && durable && fdatasync(out))
		r = -errno;
	if (!r)
		return 0;
	if (out >= 0)
		(void)unlink(path);
	return err_sys(e, -r, "%s", path);
}

/* lock held; 0 new, 1 here already, or why not */
static int known(struct site *s, const struct message_head *h)
{
	struct message *m = NULL;

	if (!admitted(s, &h->key))
		return -EACCES;
	HASH_FIND_STR(s->in, h->tid, m);
	return !m ? 0 : strcmp(m->sha256, h->sha256) ? -EEXIST : 1;
}

int site_delivered(struct site *s, const char *tid, const char *sha256)
{
	struct message *m = NULL;
	int r;

	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(s->in, tid, m);
	r = !m ? 0 : *sha256 && strcmp(m->sha256, sha256) ? -EEXIST : 1;
	pthread_mutex_unlock(&s->lock);
	return r;
}

/* lock held; the file becomes the message's */
static int add_message(struct site *s, const struct message_head *head,
		       const void *data, const char *tmp,
		       struct journal **ret_sync, uint64_t *ret_upto)
{
	struct message_head h = *head;
	struct counters *c;
	struct message *m;
	struct site_job *j;
	_cleanup_free_ char *path = NULL;
	int r = 0;

	h.file = tmp != NULL;
	m = message_new(&h);
	j = find_job(s, m->job);
	if (tmp) {
		path = in_path(s, m);
		if (rename(tmp, path))
			r = -errno;
	} else {
		m->data = xmalloc(h.size);
		memcpy(m->data, data, h.size);
	}
	hook_die("message-placed");
	if (!r)
		r = j ? journal_add(j->log, &h, data) : -EACCES;
	if (r) {
		/* Back: whoever brought it may try again. */
		if (path && rename(path, tmp) && errno != ENOENT)
			log_warn("rollsite", "cannot give back a message");
		message_free(m);
		return r;
	}
	if (ret_sync) {
		*ret_sync = journal_ref(j->log);
		*ret_upto = journal_len(j->log);
	}
	HASH_ADD_STR(s->in, tid, m);
	c = count_of(s, h.key.f[KEY_SRC_PARTY]);
	c->messages_in++;
	c->message_bytes_in += h.size;
	site_wake(s, WAIT_MESSAGE, m->tid);
	return 0;
}

/* The name of a message's file is on the disk, too. */
static int sync_name(const struct site *s, const struct message_head *h,
		     struct err *e)
{
	_cleanup_free_ char *dir = NULL;
	char job[41];

	if (!session_job(h->key.f[KEY_SESSION], job, sizeof(job)))
		return 0;
	dir = xasprintf("%s/transfer/in/%s", s->conf->state, job);
	return dir_sync(dir, e);
}

int site_deliver(struct site *s, const struct message_head *h,
		 const char *from_party, const void *data, const char *tmp,
		 struct journal **ret_sync, uint64_t *ret_upto, struct err *e)
{
	int r = site_admit(s, &h->key, from_party, e);

	if (ret_sync)
		*ret_sync = NULL;
	if (r)
		return r;
	pthread_mutex_lock(&s->lock);
	r = known(s, h);
	if (!r)
		r = add_message(s, h, data, tmp, ret_sync, ret_upto);
	pthread_mutex_unlock(&s->lock);
	clients_ready(s);
	if (r > 0 && tmp)
		(void)unlink(tmp);
	if (r == -EEXIST)
		return err_set(e, EEXIST,
			       "the same message with other content");
	if (r == -EACCES)
		return err_set(e, EACCES, "not allowed");
	if (r < 0)
		return err_sys(e, -r, "message");
	if (tmp) {
		int x = sync_name(s, h, e);

		r = x ? x : r;
	}
	return r;
}

/* ---- many small ones --------------------------------------------------- */

void site_delivery(struct site *s, const struct message_head *h,
		   const char *from_party, const void *payload,
		   struct delivery *ret)
{
	ret->m = NULL;
	ret->status = site_admit(s, &h->key, from_party, NULL);
	if (ret->status)
		return;
	ret->m = message_new(h);
	ret->m->data = xmalloc(h->size);
	memcpy(ret->m->data, payload, h->size);
}

/* lock held: those that are new, of one job, from d[0] on; how many there are
 * until one of another job comes. */
static size_t take_run(struct site *s, struct delivery *d, size_t n,
		       struct site_job **ret)
{
	size_t i;

	*ret = NULL;
	for (i = 0; i < n; i++) {
		struct message *m = d[i].m, *other = NULL;

		if (!m)
			continue;
		if (*ret && strcmp((*ret)->id, m->job) != 0)
			break;
		if (!*ret)
			*ret = find_job(s, m->job);
		if (!*ret || !(*ret)->log ||
		    in_list((*ret)->closed, m->session)) {
			d[i].status = -EACCES;
			continue;
		}
		HASH_FIND_STR(s->in, m->tid, other);
		if (other) {
			d[i].status =
			    strcmp(other->sha256, m->sha256) ? -EEXIST : 1;
			continue;
		}
		HASH_ADD_STR(s->in, tid, m);
		d[i].status = -EINPROGRESS; /* not written yet */
	}
	return i;
}

/* lock held: one write for all that are new */
static int write_run(struct site *s, struct site_job *j, struct counters *c,
		     struct delivery *d, size_t n)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(2 * BATCH_MAX);
	size_t all = 0;
	int r;

	for (size_t i = 0; i < n; i++)
		all += d[i].status == -EINPROGRESS ? d[i].n : 0;
	r = sb_reserve(&sb, all);
	for (size_t i = 0; i < n && !r; i++)
		if (d[i].status == -EINPROGRESS)
			r = sb_add(&sb, d[i].record, d[i].n);
	if (!r && sb.len)
		r = journal_raw(j->log, sb.buf, sb.len);
	for (size_t i = 0; i < n; i++) {
		struct message *m = d[i].m;

		if (d[i].status != -EINPROGRESS)
			continue;
		d[i].status = r;
		if (r) {
			HASH_DEL(s->in, m);
			continue;
		}
		d[i].m = NULL;
		c->messages_in++;
		c->message_bytes_in += m->size;
		site_wake(s, WAIT_MESSAGE, m->tid);
	}
	return r;
}

int site_deliver_all(struct site *s, const char *from_party, struct delivery *d,
		     size_t n)
{
	int r = 0;

	for (size_t at = 0; at < n && !r;) {
		struct journal *log = NULL;
		struct site_job *j;
		uint64_t upto = 0;
		size_t used;

		pthread_mutex_lock(&s->lock);
		used = take_run(s, d + at, n - at, &j);
		if (j && j->log) {
			r = write_run(s, j, count_of(s, from_party), d + at,
				      used);
			log = journal_ref(j->log);
			upto = journal_len(log);
		}
		pthread_mutex_unlock(&s->lock);
		hook_die("message-written");
		clients_ready(s);
		if (log && !r)
			r = journal_sync(log, upto);
		journal_unref(log);
		at += used;
	}
	for (size_t i = 0; i < n; i++)
		message_free(d[i].m);
	return r;
}

/* ---- receiving --------------------------------------------------------- */

/* lock held */
static const struct session_error *find_error(const struct site *s,
					      const char *session)
{
	const struct session_error *x;

	for (x = s->errors; x; x = x->next)
		if (!strcmp(x->session, session))
			return x;
	return NULL;
}

int site_may_send(struct site *s, const struct key *k, struct err *e)
{
	const struct session_error *x;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	x = find_error(s, k->f[KEY_SESSION]);
	if (x)
		r = err_set(e, -x->status, "%s", x->text);
	else if (!admitted(s, k))
		r = err_set(e, EACCES, "this job's messages are closed");
	pthread_mutex_unlock(&s->lock);
	return r;
}

static int recv_locked(struct site *s, const struct key *k, const char *tid,
		       struct parked *w, struct message **ret, struct err *e)
{
	const struct session_error *x = find_error(s, k->f[KEY_SESSION]);

	HASH_FIND_STR(s->in, tid, *ret);
	if (*ret && (*ret)->done)
		return err_set(e, ESTALE, "taken before");
	if (*ret)
		return 0;
	if (x)
		return err_set(e, -x->status, "%s", x->text);
	if (!admitted(s, k))
		return err_set(e, EACCES, "this job's messages are closed");
	return site_park(s, w, WAIT_MESSAGE, tid)
		   ? -EINPROGRESS
		   : err_set(e, EPIPE, "the task has gone");
}

int site_recv(struct site *s, const struct key *k, const char *tid,
	      struct parked *w, struct received *ret, struct err *e)
{
	_cleanup_free_ char *path = NULL;
	struct message *m = NULL;
	int r;

	*ret = (struct received){ .fd = -1 };
	pthread_mutex_lock(&s->lock);
	r = recv_locked(s, k, tid, w, &m, e);
	if (!r && m) {
		memcpy(ret->sha256, m->sha256, sizeof(ret->sha256));
		ret->size = m->size;
		if (m->data) {
			ret->data = xmalloc(m->size);
			memcpy(ret->data, m->data, m->size);
		} else {
			path = in_path(s, m);
		}
	}
	pthread_mutex_unlock(&s->lock);
	if (r || !path)
		return r;
	ret->fd = open(path, O_RDONLY | O_CLOEXEC);
	return ret->fd < 0 ? err_sys(e, errno, "%s", path) : 0;
}

static enum journal_keep kept(void *arg, const char *tid)
{
	const struct site *s = arg;
	const struct message *m = NULL;

	HASH_FIND_STR(s->in, tid, m);
	return !m ? JOURNAL_DROP : m->done ? JOURNAL_HEAD : JOURNAL_WHOLE;
}

/* lock held: a job of many messages does not fill the disk */
static void shrink(struct site *s, struct site_job *j)
{
	_cleanup_free_ char *path = NULL;
	struct err e = { 0 };

	if (j->grows || j->taken < REWRITE_MIN ||
	    j->taken < journal_bytes(j->log) / 4 * 3)
		return;
	path = log_path(s, j->id);
	j->grows = journal_rewrite(j->log, path, kept, s, &e) != 0;
	if (j->grows)
		log_warn("rollsite", "a job's messages stay on the disk: %s",
			 e.text);
	j->taken = 0;
}

void site_drop(struct site *s, const struct key *k)
{
	_cleanup_free_ char *path = NULL;
	struct message *m;
	char tid[65];

	key_tid(k, tid);
	pthread_mutex_lock(&s->lock);
	HASH_FIND_STR(s->in, tid, m);
	if (m && !m->done) {
		struct site_job *j = find_job(s, m->job);

		m->done = true;
		if (m->file)
			path = in_path(s, m);
		/* Its file does not go before the mark is there. */
		if (j && (journal_mark(j->log, tid) ||
			  (m->file && journal_raw(j->log, "", 0))))
			log_warn("rollsite", "could not drop a message");
		free(m->data);
		m->data = NULL;
		if (j && !m->file) {
			j->taken += m->size;
			shrink(s, j);
		}
	}
	pthread_mutex_unlock(&s->lock);
	if (path && unlink(path) && errno != ENOENT)
		log_warn("rollsite", "could not drop a message");
	hook_die("message-dropped");
}

void site_session_fail(struct site *s, const char *session, int status,
		       const char *text)
{
	struct session_error *x;

	pthread_mutex_lock(&s->lock);
	if (!find_error(s, session) && site_session_open_locked(s, session)) {
		x = xcalloc(1, sizeof(*x));
		(void)snprintf(x->session, sizeof(x->session), "%s", session);
		(void)snprintf(x->text, sizeof(x->text), "%s", text);
		x->status = status;
		x->next = s->errors;
		s->errors = x;
	}
	site_wake(s, WAIT_MESSAGE, NULL);
	site_wake(s, WAIT_ROOM, NULL);
	pthread_mutex_unlock(&s->lock);
	clients_ready(s);
}

/* ---- jobs -------------------------------------------------------------- */

static int job_write(struct site *s, const struct site_job *j, bool durable,
		     struct err *e)
{
	_cleanup_free_ char *path = job_path(s, j->id);
	json_t *o =
	    json_pack("{s:O, s:O}", "roles", j->roles, "closed", j->closed);
	int r = json_write_file(path, o, 0600, durable, e);

	json_decref(o);
	return r;
}

static bool roles_valid(const json_t *roles)
{
	json_t *r = (json_t *)roles, *list, *v;
	const char *role;
	size_t i;

	if (!json_is_object(roles))
		return false;
	json_object_foreach (r, role, list) {
		if (!json_is_array(list))
			return false;
		json_array_foreach (list, i, v)
			if (!json_is_string(v) ||
			    !party_id_valid(json_string_value(v)))
				return false;
	}
	return true;
}

struct replay {
	struct site *s;
	struct site_job *j;
};

/* lock held */
static void on_record(void *arg, const struct message_head *h, const char *tid,
		      const char *data)
{
	const struct replay *x = arg;
	struct site *s = x->s;
	struct message *m = NULL;

	HASH_FIND_STR(s->in, tid, m);
	if (!h && m) {
		m->done = true;
		x->j->taken += m->file ? 0 : m->size;
		free(m->data);
		m->data = NULL;
	} else if (h && !m && !in_list(x->j->closed, h->key.f[KEY_SESSION])) {
		m = message_new(h);
		if (data) {
			m->data = xmalloc(h->size);
			memcpy(m->data, data, h->size);
		}
		HASH_ADD_STR(s->in, tid, m);
	}
}

/* lock held */
static int job_log_open(struct site *s, struct site_job *j, struct err *e)
{
	_cleanup_free_ char *path = log_path(s, j->id);
	struct replay x = { s, j };

	return journal_open(path, on_record, &x, &j->log, e);
}

int site_job_open(struct site *s, const char *job, const json_t *roles,
		  struct err *e)
{
	_cleanup_free_ char *dir = in_dir(s, job);
	struct site_job *j;
	int r;

	if (!job_id_valid(job) || !roles_valid(roles))
		return err_set(e, EINVAL, "job_open: job or roles malformed");
	pthread_mutex_lock(&s->lock);
	j = find_job(s, job);
	if (!j) {
		j = xcalloc(1, sizeof(*j));
		(void)snprintf(j->id, sizeof(j->id), "%s", job);
		j->closed = json_array();
		j->next = s->jobs;
		s->jobs = j;
	}
	json_decref(j->roles);
	j->roles = json_deep_copy(roles);
	r = mkdir_p_durable(dir, 0700, e);
	if (!r && !j->log)
		r = job_log_open(s, j, e);
	if (!r)
		r = job_write(s, j, true, e);
	pthread_mutex_unlock(&s->lock);
	return r;
}

static void forget_messages(struct site *s, const char *job,
			    const char *session)
{
	struct message *m, *next;

	HASH_ITER (hh, s->in, m, next) {
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		bool of_it = !session || !strcmp(m->session, session);

		if (!of_it || strcmp(m->job, job))
			continue;
		if (session && m->file) {
			_cleanup_free_ char *path = in_path(s, m);

			(void)unlink(path);
		}
		HASH_DEL(s->in, m);
		message_free(m);
	}
}

int site_job_close(struct site *s, const char *job, struct err *e)
{
	_cleanup_free_ char *dir = NULL, *path = NULL;
	struct site_job **p, *j;

	if (!job_id_valid(job))
		return err_set(e, EINVAL, "job_close: not a job");
	pthread_mutex_lock(&s->lock);
	for (p = &s->jobs; (j = *p); p = &j->next)
		if (!strcmp(j->id, job))
			break;
	if (j) {
		*p = j->next;
		json_decref(j->roles);
		json_decref(j->closed);
		journal_unref(j->log);
		free(j);
	}
	for (struct session_error **x = &s->errors; *x;) {
		struct session_error *y = *x;
		char of[41];

		if (session_job(y->session, of, sizeof(of)) &&
		    !strcmp(of, job)) {
			*x = y->next;
			free(y);
		} else {
			x = &y->next;
		}
	}
	forget_messages(s, job, NULL);
	site_wake(s, WAIT_MESSAGE, NULL);
	site_wake(s, WAIT_ROOM, NULL);
	pthread_mutex_unlock(&s->lock);
	clients_ready(s);
	out_forget(s, job, NULL);
	peer_forget_job(s, job);
	in_forget(s, job, NULL);
	path = job_path(s, job);
	(void)unlink(path);
	dir = in_dir(s, job);
	return remove_tree(dir, e);
}

int site_session_close(struct site *s, const char *session, struct err *e)
{
	struct site_job *j;
	char job[41];
	int r = 0;

	if (!session_job(session, job, sizeof(job)))
		return err_set(e, EINVAL, "session_close: not a session");
	pthread_mutex_lock(&s->lock);
	j = find_job(s, job);
	if (j && !in_list(j->closed, session)) {
		json_array_append_new(j->closed, json_string(session));
		r = job_write(s, j, false, e);
		forget_messages(s, job, session);
		site_wake(s, WAIT_MESSAGE, NULL);
		site_wake(s, WAIT_ROOM, NULL);
	}
	pthread_mutex_unlock(&s->lock);
	clients_ready(s);
	out_forget(s, NULL, session);
	peer_forget_session(s, session);
	in_forget(s, NULL, session);
	return r;
}

/* ---- start ------------------------------------------------------------- */

/* Files that no record speaks of: their rollsite was killed in between. */
static void rescan_job(struct site *s, const char *job)
{
	_cleanup_free_ char *dir = in_dir(s, job);
	_cleanup_closedir_ DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *p = NULL;
		struct message *m = NULL;

		if (de->d_name[0] == '.' || !strcmp(de->d_name, "log"))
			continue;
		HASH_FIND_STR(s->in, de->d_name, m);
		if (m && m->file && !m->done)
			continue;
		p = xasprintf("%s/%s", dir, de->d_name);
		(void)unlink(p);
	}
}

/* Messages of jobs that were being closed when rollsite was killed. */
static void sweep(struct site *s)
{
	_cleanup_free_ char *in = xasprintf("%s/transfer/in", s->conf->state);
	_cleanup_closedir_ DIR *d = opendir(in);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *dir = NULL;

		if (de->d_name[0] == '.' || find_job(s, de->d_name))
			continue;
		dir = in_dir(s, de->d_name);
		(void)remove_tree(dir, NULL);
	}
}

static int rescan(struct site *s, struct err *e)
{
	_cleanup_free_ char *dir =
	    xasprintf("%s/transfer/jobs", s->conf->state);
	_cleanup_closedir_ DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *p = xasprintf("%s/%s", dir, de->d_name);
		_cleanup_free_ char *in = NULL;
		char id[41] = "";
		size_t n = strspn(de->d_name, "0123456789");
		struct site_job *j;
		json_t *o;

		if (!n || n > 40 || strcmp(de->d_name + n, ".json"))
			continue;
		memcpy(id, de->d_name, n);
		o = json_read_file(p, e);
		if (!o)
			return e->no ? -e->no : -EIO;
		j = xcalloc(1, sizeof(*j));
		memcpy(j->id, id, sizeof(j->id));
		in = in_dir(s, id);
		j->roles = json_incref(json_object_get(o, "roles"));
		j->closed = json_incref(json_object_get(o, "closed"));
		json_decref(o);
		j->next = s->jobs;
		s->jobs = j;
		if (mkdir_p_durable(in, 0700, e) || job_log_open(s, j, e))
			return e->no ? -e->no : -EIO;
		rescan_job(s, id);
	}
	sweep(s);
	return 0;
}

int site_open(struct site *s, struct conf *c, bool child, struct err *e)
{
	static const char *const subs[] = { "in",  "out",     "jobs",
					    "tmp", "partial", "files" };
	_cleanup_free_ char *tmp = xasprintf("%s/transfer/tmp", c->state);
	int r;

	(void)remove_tree(tmp, NULL); /* half-received messages */
	*s =
	    (struct site){ .conf = c, .child = child, .stop = -1, .nudge = -1 };
	pthread_mutex_init(&s->lock, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(subs); i++) {
		_cleanup_free_ char *p =
		    xasprintf("%s/transfer/%s", c->state, subs[i]);

		r = mkdir_p_durable(p, 0700, e);
		if (r)
			return r;
	}
	return rescan(s, e);
}
