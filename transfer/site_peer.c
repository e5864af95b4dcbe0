// SPDX-License-Identifier: Apache-2.0
/*
 * Everything that goes out: a queue of messages per party with its own
 * workers (a dead party never slows another), calls, pings and files.
 */
#include <curl/curl.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "lib/json.h"
#include "lib/log.h"
#include "lib/version.h"

#include "transfer/transfer_priv.h"

#define WORKERS	       3
#define LOG_KEEP       (1u << 20)
#define RPC_ANSWER_MAX (8u << 20)
#define POOL	       8
#define PING_MS	       5000

struct out {
	struct out *next;
	struct message_head head;
	char *path;  /* of a large one, else */
	char *bytes; /* head and payload, which the journal has */
	size_t n;
	unsigned attempts, damaged;
	int64_t not_before; /* monotonic ms */
	bool busy, dead;
};

struct peer {
	struct peer *next;
	struct site *s;
	char *id;
	char *url;	    /* replaced by a reload; under s->lock */
	char *want;	    /* the SAN URI its certificate must carry */
	char *dir;	    /* of the messages that wait: large ones, and */
	struct journal log; /* the others */
	struct out *queue;
	/* With s->lock; one for each kind of worker, so that a signal never
	 * goes to one of another kind. */
	pthread_cond_t message, ping, file;
	bool file_wake, ping_wake;
	CURL *pool[POOL];
	size_t n_pool;
	/* last ping */
	bool asked, ok;
	int64_t rtt_us, asked_ms;
	char *error, *version, *certificate;
};

static char *peer_url(struct peer *p, const char *tail)
{
	char *u;

	pthread_mutex_lock(&p->s->lock);
	u = xasprintf("%s%s", p->url, tail);
	pthread_mutex_unlock(&p->s->lock);
	return u;
}

/* Full jitter (as in "Exponential Backoff And Jitter", AWS 2015). */
static int64_t backoff_ms(unsigned attempts)
{
	uint32_t r = 0;
	uint32_t cap = 20u << MIN(attempts, 7u);

	(void)!getrandom(&r, sizeof(r), 0);
	cap = MIN(cap, 2000u);
	return 5 + (int64_t)(r % cap);
}

/* ---- messages --------------------------------------------------------- */

static void out_free(struct out *o)
{
	free(o->path);
	free(o->bytes);
	free(o);
}

static void out_remove(struct peer *p, struct out *o)
{
	struct out **q;

	if (o->path)
		(void)unlink(o->path);
	else if (journal_mark(&p->log, o->head.tid))
		log_warn("rollsite", "cannot write to %s", p->dir);
	for (q = &p->queue; *q && *q != o; q = &(*q)->next)
		;
	if (*q)
		*q = o->next;
	out_free(o);
	if (!p->queue && p->log.len > LOG_KEEP)
		journal_clear(&p->log);
}

/* The next one that is due; lock held. *ret_ms: when to look again. */
static struct out *out_next(const struct peer *p, int64_t *ret_ms)
{
	int64_t now = now_mono_ms();

	*ret_ms = 60000;
	for (struct out *o = p->queue; o; o = o->next) {
		if (o->busy)
			continue;
		if (o->not_before <= now)
			return o;
		*ret_ms = MIN(*ret_ms, o->not_before - now);
	}
	return NULL;
}

static void peer_sleep(struct peer *p, pthread_cond_t *c, int64_t ms)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec += ms / 1000;
	ts.tv_nsec += (ms % 1000) * 1000000;
	if (ts.tv_nsec >= 1000000000) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000;
	}
	pthread_cond_timedwait(c, &p->s->lock, &ts);
}

/* A peer that stands still is hung up on and tried again. */
static void limit_stalls(CURL *h)
{
	curl_easy_setopt(h, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(h, CURLOPT_LOW_SPEED_TIME, 30L);
}

static CURLcode put_message(CURL *h, struct peer *p, const struct out *o,
			    struct strbuf *answer, long *code)
{
	_cleanup_free_ char *tail = xasprintf("/v1/messages/%s", o->head.tid);
	_cleanup_free_ char *url = peer_url(p, tail);
	struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
	FILE *f = NULL;
	CURLcode c;

	limit_stalls(h);
	headers = curl_slist_append(headers,
				    "Content-Type: application/octet-stream");
	if (o->bytes) {
		curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, "PUT");
		curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE,
				 (curl_off_t)o->n);
		curl_easy_setopt(h, CURLOPT_POSTFIELDS, o->bytes);
		hook_wire(url, o->bytes, o->n);
	} else {
		f = fopen(o->path, "re");
		curl_easy_setopt(h, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(h, CURLOPT_READDATA, f);
		curl_easy_setopt(h, CURLOPT_INFILESIZE_LARGE, (curl_off_t)o->n);
#ifdef ROLLFS_TEST_HOOKS
		if (f && getenv("ROLLFS_HOOK_WIRE")) {
			_cleanup_free_ char *all = xmalloc(o->n);

			if (fread(all, 1, o->n, f) == o->n)
				hook_wire(url, all, o->n);
			rewind(f);
		}
#endif
	}
	c = !o->bytes && !f ? CURLE_READ_ERROR
			    : client_perform(h, url, answer, headers, 0, code);
	curl_easy_setopt(h, CURLOPT_UPLOAD, 0L);
	curl_easy_setopt(h, CURLOPT_CUSTOMREQUEST, NULL);
	curl_easy_setopt(h, CURLOPT_HTTPGET, 1L);
	curl_slist_free_all(headers);
	if (f)
		(void)fclose(f);
	return c;
}

/* What the peer's answer means for the message; lock not held. */
static void settle(struct peer *p, struct out *o, CURLcode c, long code)
{
	struct site *s = p->s;
	int status = c == CURLE_OK ? http_to_status(code) : -EAGAIN;
	char text[300] = "", session[KEY_FIELD_MAX + 1];

	pthread_mutex_lock(&s->lock);
	o->busy = false;
	memcpy(session, o->head.key.f[KEY_SESSION], sizeof(session));
	if (!status) {
		s->count.out++;
		s->count.bytes_out += o->head.size;
		out_remove(p, o);
	} else if (o->dead) {
		out_remove(p, o);
	} else if (status == -EBADMSG && ++o->damaged < 5) {
		s->count.retries++;
	} else if (status == -EAGAIN || status == -ENOSPC ||
		   status == -EPROTO) {
		s->count.retries++;
		o->not_before = now_mono_ms() + backoff_ms(o->attempts++);
		/* Another worker may sleep longer than that. */
		pthread_cond_broadcast(&p->message);
	} else {
		(void)snprintf(text, sizeof(text),
			       "party %s refused a message (%s)", p->id,
			       status == -EEXIST ? "other content under the "
						   "same name"
			       : status == -EACCES
				   ? "not allowed, or the job has "
				     "ended there"
				   : "malformed or damaged");
		out_remove(p, o);
	}
	pthread_mutex_unlock(&s->lock);
	if (*text)
		site_session_fail(s, session, status, text);
}

static void *message_worker(void *arg)
{
	struct peer *p = arg;
	CURL *h = client_new(p->s->conf, p->want);
	struct strbuf answer = STRBUF_INIT(64u << 10);

	pthread_mutex_lock(&p->s->lock);
	for (;;) {
		int64_t ms;
		struct out *o = out_next(p, &ms);
		CURLcode c;
		long code;

		if (!o) {
			peer_sleep(p, &p->message, ms);
			continue;
		}
		o->busy = true;
		pthread_mutex_unlock(&p->s->lock);
		sb_reset(&answer);
		c = put_message(h, p, o, &answer, &code);
		settle(p, o, c, code);
		pthread_mutex_lock(&p->s->lock);
	}
	return NULL;
}

/* lock held; where the message waits, or the end of the queue */
static struct out **out_find(struct peer *p, const char *tid)
{
	struct out **q;

	for (q = &p->queue; *q; q = &(*q)->next)
		if (!strcmp((*q)->head.tid, tid))
			break;
	return q;
}

/* lock held; 0, 1: it is on its way already, -EEXIST: with other content */
static int out_known(struct peer *p, const struct message_head *h)
{
	const struct out *o = *out_find(p, h->tid);

	return !o ? 0 : strcmp(o->head.sha256, h->sha256) ? -EEXIST : 1;
}

/* Takes o; tmp becomes its file or payload goes to the journal, unless the
 * message is known (as above). */
static int enqueue(struct peer *p, struct out *o, const char *tmp,
		   const void *payload)
{
	struct site *s = p->s;
	int r;

	pthread_mutex_lock(&s->lock);
	r = out_known(p, &o->head);
	if (!r && tmp && rename(tmp, o->path))
		r = -errno;
	if (!r && payload)
		r = journal_add(&p->log, &o->head, payload);
	if (!r) {
		*out_find(p, o->head.tid) = o;
		pthread_cond_signal(&p->message);
	}
	pthread_mutex_unlock(&s->lock);
	if (r) {
		out_free(o);
		if (tmp)
			(void)unlink(tmp);
	}
	return r;
}

int peer_send(struct site *s, const struct message_head *h, const void *data,
	      int fd, struct err *e)
{
	const char *to = h->key.f[KEY_DST_PARTY];
	struct peer *p = peer_get(s, to);
	_cleanup_free_ char *tmp = NULL;
	_cleanup_strbuf_ struct strbuf sb =
	    STRBUF_INIT(JOURNAL_MESSAGE_MAX + HEAD_MAX + 4);
	bool small = fd < 0 && h->size <= JOURNAL_MESSAGE_MAX;
	struct out *o;
	int r;

	if (!p)
		return err_set(e, EHOSTUNREACH, "no party %s is configured",
			       to);
	pthread_mutex_lock(&s->lock);
	r = out_known(p, h);
	pthread_mutex_unlock(&s->lock);
	if (r > 0)
		return 0;
	if (r < 0)
		return err_set(e, EEXIST,
			       "the same message with other content");
	r = head_write(&sb, h);
	if (!r && small)
		r = sb_add(&sb, data, h->size);
	else if (!r)
		r = message_write(s, h, data, fd, &tmp);
	if (r)
		return err_sys(e, -r, "message");
	o = xcalloc(1, sizeof(*o));
	o->head = *h;
	if (small) {
		o->n = sb.len;
		o->bytes = sb_detach(&sb);
	} else {
		o->n = sb.len + h->size;
		o->path = xasprintf("%s/%s", p->dir, h->tid);
	}
	r = enqueue(p, o, tmp, small ? data : NULL);
	return r < 0 ? err_sys(e, -r, "message") : 0;
}

static void forget(struct site *s, const char *job, const char *session)
{
	char of[41];

	pthread_mutex_lock(&s->lock);
	for (struct peer *p = s->peers; p; p = p->next) {
		struct out *next;

		for (struct out *o = p->queue; o; o = next) {
			const char *os = o->head.key.f[KEY_SESSION];

			next = o->next;
			if (!session_job(os, of, sizeof(of)) ||
			    (job && strcmp(of, job)) ||
			    (session && strcmp(os, session)))
				continue;
			if (o->busy)
				o->dead = true;
			else
				out_remove(p, o);
		}
	}
	pthread_mutex_unlock(&s->lock);
}

void peer_forget_job(struct site *s, const char *job)
{
	forget(s, job, NULL);
}

void peer_forget_session(struct site *s, const char *session)
{
	forget(s, NULL, session);
}

/* ---- calls ------------------------------------------------------------ */

static CURL *pool_take(struct peer *p)
{
	CURL *h = NULL;

	pthread_mutex_lock(&p->s->lock);
	if (p->n_pool)
		h = p->pool[--p->n_pool];
	pthread_mutex_unlock(&p->s->lock);
	return h ? h : client_new(p->s->conf, p->want);
}

static void pool_give(struct peer *p, CURL *h)
{
	pthread_mutex_lock(&p->s->lock);
	if (p->n_pool < POOL) {
		p->pool[p->n_pool++] = h;
		h = NULL;
	}
	pthread_mutex_unlock(&p->s->lock);
	if (h)
		curl_easy_cleanup(h);
}

static int rpc_once(struct peer *p, const char *verb, const char *body,
		    size_t n, int64_t left_ms, struct strbuf *ret,
		    struct err *e)
{
	_cleanup_free_ char *tail = xasprintf("/v1/rpc/%s", verb);
	_cleanup_free_ char *url = peer_url(p, tail);
	_cleanup_free_ char *limit =
	    xasprintf("Rollfs-Timeout-Ms: %lld", (long long)left_ms);
	struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
	CURL *h = pool_take(p);
	CURLcode c;
	long code;
	int r;

	headers = curl_slist_append(headers, "Content-Type: application/json");
	headers = curl_slist_append(headers, limit);
	curl_easy_setopt(h, CURLOPT_POST, 1L);
	curl_easy_setopt(h, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)n);
	curl_easy_setopt(h, CURLOPT_POSTFIELDS, body);
	hook_wire(url, body, n);
	sb_reset(ret);
	c = client_perform(h, url, ret, headers, (long)left_ms + 200, &code);
	curl_slist_free_all(headers);
	if (c == CURLE_OK) {
		hook_wire("answer", ret->buf, ret->len);
		r = http_to_status(code);
		if (r == -EEXIST)
			r = -EBUSY; /* 409 of a call */
		if (r)
			err_set(e, -r, "party %s: %s", p->id,
				ret->len && ret->len < 300 ? ret->buf
							   : "refused");
	} else if (c == CURLE_OPERATION_TIMEDOUT) {
		r = err_set(e, ETIMEDOUT, "party %s: no answer in time", p->id);
	} else if (c == CURLE_PEER_FAILED_VERIFICATION) {
		r = err_set(e, EACCES,
			    "party %s: its certificate is not accepted", p->id);
	} else if (c == CURLE_SEND_ERROR || c == CURLE_RECV_ERROR ||
		   c == CURLE_GOT_NOTHING || c == CURLE_COULDNT_CONNECT) {
		r = err_set(e, EHOSTUNREACH, "party %s: no route (%s)", p->id,
			    curl_easy_strerror(c));
	} else {
		r = err_set(e, EHOSTUNREACH, "party %s: %s", p->id,
			    curl_easy_strerror(c));
	}
	pool_give(p, h);
	return r;
}

int peer_rpc(struct site *s, const char *party, const char *verb,
	     const char *body, size_t n, unsigned timeout_ms,
	     struct strbuf *ret, struct err *e)
{
	int64_t deadline = now_mono_ms() + timeout_ms, unreachable = 0;
	struct peer *p;
	int r;

	if (!strcmp(party, s->conf->party)) {
		r = call_run(s, party, verb, body, n, timeout_ms, ret);
		return r ? err_set(e, -r, "%s",
				   ret->len ? ret->buf : "no answer")
			 : 0;
	}
	p = peer_get(s, party);
	if (!p)
		return err_set(e, EHOSTUNREACH, "no party %s is configured",
			       party);
	for (;;) {
		int64_t now, left = deadline - now_mono_ms();
		struct timespec pause = { 0, 30000000 };

		r = rpc_once(p, verb, body, n, MAX(left, 1), ret, e);
		now = now_mono_ms();
		if ((r != -EHOSTUNREACH && r != -EAGAIN) || now >= deadline)
			break;
		/* A partner's rollsite may just be starting again: a second's
		 * patience, no more, since it may also be down.  While it
		 * answers, its rollfs is waited for. */
		if (r == -EAGAIN)
			unreachable = 0;
		else if (!unreachable)
			unreachable = now;
		else if (now - unreachable > 1000)
			break;
		nanosleep(&pause, NULL);
	}
	if (r == -EAGAIN)
		r = err_set(e, EHOSTUNREACH,
			    "party %s: its rollfs is not "
			    "running",
			    party);
	return r;
}

/* ---- pings ------------------------------------------------------------ */

static void ping_once(struct peer *p, CURL *h)
{
	_cleanup_free_ char *url = peer_url(p, "/v1/hello");
	struct strbuf answer = STRBUF_INIT(64u << 10);
	struct curl_certinfo *ci = NULL;
	char *pem = NULL, *version = NULL, *error = NULL;
	curl_off_t us = 0;
	long code;
	CURLcode c;

	curl_easy_setopt(h, CURLOPT_HTTPGET, 1L);
	c = client_perform(h, url, &answer, NULL, 5000, &code);
	if (c == CURLE_OK && code == 200) {
		curl_easy_getinfo(h, CURLINFO_TOTAL_TIME_T, &us);
		version = xasprintf("%s", answer.buf);
		if (!curl_easy_getinfo(h, CURLINFO_CERTINFO, &ci) && ci &&
		    ci->num_of_certs > 0)
			for (struct curl_slist *l = ci->certinfo[0]; l;
			     l = l->next)
				if (!strncmp(l->data, "Cert:", 5))
					pem = xasprintf("%s\n", l->data + 5);
	} else if (c == CURLE_OK) {
		error = xasprintf("answered %ld", code);
	} else if (c == CURLE_PEER_FAILED_VERIFICATION) {
		error = xstrdup("its certificate is not accepted");
	} else {
		error = xasprintf("%s", curl_easy_strerror(c));
	}
	sb_free(&answer);
	pthread_mutex_lock(&p->s->lock);
	p->asked = true;
	p->ok = !error;
	p->rtt_us = us;
	p->asked_ms = now_unix_ms();
	free(p->error);
	p->error = error;
	if (version) {
		free(p->version);
		p->version = version;
	}
	if (pem) {
		free(p->certificate);
		p->certificate = pem;
	}
	pthread_mutex_unlock(&p->s->lock);
}

static void *ping_worker(void *arg)
{
	struct peer *p = arg;
	CURL *h = client_new(p->s->conf, p->want);
	unsigned failures = 0;

	curl_easy_setopt(h, CURLOPT_CERTINFO, 1L);
	for (;;) {
		bool ok;

		ping_once(p, h);
		pthread_mutex_lock(&p->s->lock);
		ok = p->ok;
		failures = ok ? 0 : failures + 1;
		if (!p->ping_wake)
			peer_sleep(p, &p->ping,
				   ok ? PING_MS
				      : MIN(50 << MIN(failures, 7u), PING_MS));
		p->ping_wake = false;
		pthread_mutex_unlock(&p->s->lock);
	}
	return NULL;
}

void peer_ping(struct site *s, const char *party)
{
	struct peer *p = peer_get(s, party);

	if (!p)
		return;
	pthread_mutex_lock(&s->lock);
	p->ping_wake = true;
	pthread_cond_signal(&p->ping);
	pthread_mutex_unlock(&s->lock);
}

json_t *peer_texts(struct site *s, const char *party)
{
	struct peer *p = peer_get(s, party);
	_cleanup_free_ char *transfers = file_transfers(s, party);
	char ping[400], when[40];
	size_t waiting = 0;
	json_t *o;

	if (!p)
		return NULL;
	pthread_mutex_lock(&s->lock);
	for (const struct out *q = p->queue; q; q = q->next)
		waiting++;
	time_rfc3339(when, sizeof(when), p->asked_ms);
	if (!p->asked)
		(void)snprintf(ping, sizeof(ping), "unknown, not asked yet\n");
	else if (p->ok)
		(void)snprintf(ping, sizeof(ping), "ok %.1f ms at %s\n",
			       (double)p->rtt_us / 1000, when);
	else
		(void)snprintf(ping, sizeof(ping), "failed %s: %.200s\n", when,
			       p->error);
	o = json_pack("{s:s, s:s, s:s, s:s?, s:b, s:I}", "ping", ping,
		      "version", p->version ? p->version : "", "transfers",
		      transfers ? transfers : "", "certificate", p->certificate,
		      "ok", p->asked && p->ok, "messages", (json_int_t)waiting);
	pthread_mutex_unlock(&s->lock);
	return o;
}

/* ---- files ------------------------------------------------------------ */

struct reading {
	struct peer *p;
	const struct file_job *j;
	int fd;
	uint64_t at;
};

static size_t on_read(char *buf, size_t size, size_t n, void *arg)
{
	struct reading *r = arg;
	ssize_t k = pread(r->fd, buf, size * n, (off_t)r->at);

	if (k < 0)
		return CURL_READFUNC_ABORT;
	r->at += (uint64_t)k;
	if (!file_progress(r->p->s, r->p->id, r->j->path, r->j->generation,
			   r->at))
		return CURL_READFUNC_ABORT; /* withdrawn or written again */
	return (size_t)k;
}

static CURLcode put_file(struct peer *p, CURL *h, const struct file_job *j,
			 struct strbuf *answer, long *code)
{
	_cleanup_free_ char *url = peer_url(p, "/v1/files");
	_cleanup_free_ char *enc = percent_encode(j->path);
	_cleanup_free_ char *where = xasprintf("Rollfs-Path: %s", enc);
	_cleanup_close_ int fd = file_open_out(p->s, p->id, j->path);
	struct reading reading = { .p = p, .j = j, .fd = fd };
	struct curl_slist *headers = NULL;
	char line[200];
	CURLcode c;

	*code = 0;
	if (fd < 0)
		return CURLE_READ_ERROR;
	headers = curl_slist_append(headers, where);
	(void)snprintf(line, sizeof(line), "Rollfs-Sha256: %s", j->sha256);
	headers = curl_slist_append(headers, line);
	(void)snprintf(line, sizeof(line), "Rollfs-Generation: %llu",
		       (unsigned long long)j->generation);
	headers = curl_slist_append(headers, line);
	/* Expect: 100-continue stays: a refusal comes before the bytes go. */
	curl_easy_setopt(h, CURLOPT_UPLOAD, 1L);
	curl_easy_setopt(h, CURLOPT_READFUNCTION, on_read);
	curl_easy_setopt(h, CURLOPT_READDATA, &reading);
	curl_easy_setopt(h, CURLOPT_INFILESIZE_LARGE, (curl_off_t)j->size);
	limit_stalls(h);
	c = client_perform(h, url, answer, headers, 0, code);
	curl_slist_free_all(headers);
	return c;
}

static void *file_worker(void *arg)
{
	struct peer *p = arg;
	CURL *h = client_new(p->s->conf, p->want);
	struct strbuf answer = STRBUF_INIT(64u << 10);

	for (;;) {
		struct file_job j;
		unsigned wait_ms;
		CURLcode c;
		long code;
		int status;

		if (!file_next(p->s, p->id, &j, &wait_ms)) {
			pthread_mutex_lock(&p->s->lock);
			if (!p->file_wake)
				peer_sleep(p, &p->file, wait_ms);
			p->file_wake = false;
			pthread_mutex_unlock(&p->s->lock);
			continue;
		}
		sb_reset(&answer);
		c = put_file(p, h, &j, &answer, &code);
		status = c == CURLE_OK ? http_to_status(code) : -EAGAIN;
		file_done(p->s, p->id, j.path, j.generation, status,
			  status == 0 || status == -EACCES ||
			      status == -EEXIST || status == -EINVAL,
			  c != CURLE_OK ? curl_easy_strerror(c)
			  : status	? answer.buf
					: "");
		file_job_free(&j);
	}
	return NULL;
}

void peer_file_wake(struct site *s, const char *party)
{
	struct peer *p = peer_get(s, party);

	if (!p)
		return;
	pthread_mutex_lock(&s->lock);
	p->file_wake = true;
	pthread_cond_signal(&p->file);
	pthread_mutex_unlock(&s->lock);
}

/* ---- the list of peers ------------------------------------------------- */

static void start_thread(void *(*fn)(void *), void *arg)
{
	pthread_attr_t a;
	pthread_t t;

	pthread_attr_init(&a);
	pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&a, 512u << 10);
	if (pthread_create(&t, &a, fn, arg))
		log_error("rollsite", "cannot start a thread");
	pthread_attr_destroy(&a);
}

/* lock held */
static void on_record(void *arg, const struct message_head *h, const char *tid,
		      const char *data)
{
	struct peer *p = arg;
	struct out **q = out_find(p, tid), *o = *q;

	if (!h && o) {
		*q = o->next;
		out_free(o);
	} else if (h && !o) {
		_cleanup_strbuf_ struct strbuf sb =
		    STRBUF_INIT(JOURNAL_MESSAGE_MAX + HEAD_MAX + 4);

		if (head_write(&sb, h) || sb_add(&sb, data, h->size))
			return;
		o = xcalloc(1, sizeof(*o));
		o->head = *h;
		o->n = sb.len;
		o->bytes = sb_detach(&sb);
		*q = o;
	}
}

/* lock held; messages of jobs that ended while rollsite was away */
static void drop_closed(struct peer *p)
{
	struct out *next;

	for (struct out *o = p->queue; o; o = next) {
		next = o->next;
		if (!site_session_open_locked(p->s, o->head.key.f[KEY_SESSION]))
			out_remove(p, o);
	}
}

/* lock held */
static struct peer *peer_find(struct site *s, const char *party)
{
	struct peer *p;

	for (p = s->peers; p; p = p->next)
		if (!strcmp(p->id, party))
			break;
	return p;
}

struct peer *peer_get(struct site *s, const char *party)
{
	_cleanup_free_ char *url = NULL, *log = NULL;
	struct peer *p, *other;
	pthread_condattr_t monotonic;

	pthread_mutex_lock(&s->lock);
	p = peer_find(s, party);
	pthread_mutex_unlock(&s->lock);
	if (p)
		return p;
	url = party_address(s->conf, party);
	if (!url || !strcmp(party, s->conf->party))
		return NULL;
	p = xcalloc(1, sizeof(*p));
	p->s = s;
	p->id = xstrdup(party);
	p->url = TAKE_PTR(url);
	p->want = xasprintf("rollfs://%s/party/%s", s->conf->federation, party);
	p->dir = xasprintf("%s/transfer/out/%s", s->conf->state, party);
	if (mkdir_p(p->dir, 0700, NULL)) /* the first message will fail */
		log_warn("rollsite", "cannot make %s", p->dir);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&p->message, &monotonic);
	pthread_cond_init(&p->ping, &monotonic);
	pthread_cond_init(&p->file, &monotonic);
	pthread_condattr_destroy(&monotonic);
	log = xasprintf("%s/log", p->dir);
	p->log.fd = -1;
	pthread_mutex_lock(&s->lock);
	other = peer_find(s, party);
	if (!other) {
		/* What was on its way when rollsite ended goes on. */
		if (journal_open(&p->log, log, on_record, p, NULL))
			log_warn("rollsite", "cannot open %s", log);
		drop_closed(p);
		p->next = s->peers;
		s->peers = p;
	}
	pthread_mutex_unlock(&s->lock);
	if (other) { /* two threads met the party at the same time */
		free(p->id);
		free(p->url);
		free(p->want);
		free(p->dir);
		free(p);
		return other;
	}
	for (int i = 0; i < WORKERS; i++)
		start_thread(message_worker, p);
	start_thread(ping_worker, p);
	start_thread(file_worker, p);
	return p;
}

void peer_reload(struct site *s)
{
	char **ids = party_list(s->conf);

	for (char **id = ids; *id; id++) {
		char *url = party_address(s->conf, *id);
		struct peer *p = peer_get(s, *id);

		if (p && url) {
			pthread_mutex_lock(&s->lock);
			free(p->url);
			p->url = TAKE_PTR(url);
			p->ping_wake = p->file_wake = true;
			pthread_cond_signal(&p->ping);
			pthread_cond_signal(&p->file);
			pthread_mutex_unlock(&s->lock);
		}
		free(url);
		free(*id);
	}
	free(ids);
}

static void rescan_party(struct peer *p)
{
	_cleanup_closedir_ DIR *d = opendir(p->dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *path =
		    xasprintf("%s/%s", p->dir, de->d_name);
		_cleanup_close_ int fd = -1;
		char head[HEAD_MAX + 4];
		struct out *o;
		struct stat st;
		size_t used;
		ssize_t n;

		if (de->d_name[0] == '.' || !strcmp(de->d_name, "log"))
			continue;
		fd = open(path, O_RDONLY | O_CLOEXEC);
		o = xcalloc(1, sizeof(*o));
		n = fd < 0 ? -1 : read(fd, head, sizeof(head));
		if (n < 0 || fstat(fd, &st) || !hex64_valid(de->d_name) ||
		    head_parse(head, (size_t)n, &o->head, &used, NULL) ||
		    used + o->head.size != (uint64_t)st.st_size ||
		    !site_session_open(p->s, o->head.key.f[KEY_SESSION])) {
			free(o);
			(void)unlink(path);
			continue;
		}
		o->n = (size_t)st.st_size;
		o->path = TAKE_PTR(path);
		(void)enqueue(p, o, NULL, NULL);
	}
}

int peer_rescan(struct site *s, struct err *e)
{
	char **ids;

	int r = client_init(e);

	if (r)
		return r;
	ids = party_list(s->conf);
	for (char **id = ids; *id; id++) {
		struct peer *p = peer_get(s, *id);

		if (p)
			rescan_party(p);
		free(*id);
	}
	free(ids);
	return 0;
}
