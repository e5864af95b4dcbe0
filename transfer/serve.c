// SPDX-License-Identifier: Apache-2.0
/*
 * A request of a party, whatever its way in: over a connection, in a sealed
 * envelope, or as the answer to our poll.  Who it is has been verified; here
 * the request is looked at, its body taken in, and the answer made.
 */
#include <endian.h>
#include <poll.h>
#include <time.h>

#include "lib/json.h"
#include "lib/log.h"
#include "lib/version.h"

#include "transfer/transfer_priv.h"

#define RPC_MAX	   (1u << 20)
#define LARGE_BODY (256u << 10)
#define SLOTS	   16 /* large bodies in memory at a time */
#define SLOTS_EACH 8  /* of one party */

static sem_t slots;
static pthread_once_t slots_once = PTHREAD_ONCE_INIT;

static void slots_init(void)
{
	sem_init(&slots, 0, SLOTS);
}

#ifdef ROLLFS_TEST_HOOKS
#include <fcntl.h>
#include <signal.h>

void hook_wire(const char *what, const void *data, size_t n)
{
	const char *dir = getenv("ROLLFS_HOOK_WIRE");
	_cleanup_free_ char *path = NULL;
	_cleanup_close_ int fd = -1;
	struct strbuf sb = STRBUF_INIT(1u << 30);

	if (!dir)
		return;
	path = xasprintf("%s/%d.wire", dir, (int)getpid());
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	sb_addf(&sb, "\n== %s %zu\n", what, n);
	sb_add(&sb, data, n);
	if (fd < 0 || write_all(fd, sb.buf, sb.len))
		log_error("hook", "cannot record the wire");
	sb_free(&sb);
}

void hook_flip(const struct message_head *h, void *data, size_t n)
{
	static bool done;
	const char *name = getenv("ROLLFS_HOOK_FLIP");

	if (!name || !*name || done || !n || !strstr(h->key.f[KEY_NAME], name))
		return;
	done = true;
	((uint8_t *)data)[n - 1] ^= 1;
}

/* The number behind "point:", 0 when the variable is of another point. */
static int hook_at(const char *variable, const char *point)
{
	const char *want = getenv(variable);
	size_t n = strlen(point);

	return want && !strncmp(want, point, n) && want[n] == ':'
		   ? atoi(want + n + 1)
		   : 0;
}

void hook_die(const char *point)
{
	static int passes;
	int nth = hook_at("ROLLFS_HOOK_DIE", point);
	int ms = hook_at("ROLLFS_HOOK_PAUSE", point);

	if (ms)
		(void)poll(NULL, 0, ms);
	if (!nth)
		return;
	if (__atomic_add_fetch(&passes, 1, __ATOMIC_SEQ_CST) == nth)
		kill(getpid(), SIGKILL);
}

void hook_relay_flip(void *data, size_t n)
{
	static int passes;
	const char *want = getenv("ROLLFS_HOOK_RELAY_FLIP");

	if (want && n &&
	    __atomic_add_fetch(&passes, 1, __ATOMIC_SEQ_CST) == atoi(want))
		((uint8_t *)data)[n - 1] ^= 1;
}
#endif

/* ---- what is written down ---------------------------------------------- */

#define AUDITS_BURST 1000u
#define AUDITS_MS    200 /* for one more */

bool audit_may(const char *party)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static struct audits {
		struct audits *next;
		char party[16];
		int64_t full_ms; /* when all of the burst is there again */
		uint64_t left_out;
	} * all;
	const int64_t now = now_mono_ms(), burst = AUDITS_BURST * AUDITS_MS;
	struct audits *x;
	uint64_t left_out = 0;
	bool may;

	pthread_mutex_lock(&lock);
	for (x = all; x && strcmp(x->party, party); x = x->next)
		;
	if (!x) { /* only parties that are configured, and "" */
		x = xcalloc(1, sizeof(*x));
		(void)snprintf(x->party, sizeof(x->party), "%s", party);
		x->next = all;
		all = x;
	}
	x->full_ms = MAX(x->full_ms, now);
	may = x->full_ms + AUDITS_MS <= now + burst;
	if (may) {
		x->full_ms += AUDITS_MS;
		left_out = x->left_out;
		x->left_out = 0;
	} else {
		x->left_out++;
	}
	pthread_mutex_unlock(&lock);
	if (left_out)
		log_warn("audit", "party %s: %llu refusals were left out",
			 *party ? party : "unknown",
			 (unsigned long long)left_out);
	return may;
}

/* ---- answers ----------------------------------------------------------- */

void serve_json(struct serve *v, unsigned code, json_t *doc)
{
	_cleanup_free_ char *text = json_text(doc, false);

	json_decref(doc);
	v->code = code;
	sb_reset(&v->out);
	if (v->out.max < 4u << 20)
		v->out.max = 4u << 20;
	(void)sb_adds(&v->out, text);
}

/* What a partner is told: sentences about its request, never our paths. */
static const char *public_text(int r, const struct err *e)
{
	switch (-r) {
	case EINVAL:
	case EACCES:
	case EEXIST:
	case EBADMSG:
	case EAGAIN:
	case ENOENT:
	case ESTALE:
	case EFBIG:
	case ERANGE:
	case EDQUOT:
	case EBUSY:
	case ELOOP:
	case EHOSTUNREACH:
	case ETIMEDOUT:
	case EUCLEAN:
		return e->text;
	case ENOSPC:
		return "no space";
	default:
		log_warn("rollsite", "%s", e->text);
		return "failed here";
	}
}

void serve_refuse(struct serve *v, int status, const struct err *e)
{
	unsigned code = status_to_http(status);
	const char *word = status_word(status);
	_cleanup_free_ char *type = xasprintf("urn:rollfs:error:%s", word);
	bool again = status == -EAGAIN || status == -ENOSPC ||
		     status == -EBADMSG || status == -EUCLEAN || code >= 500;

	serve_json(v, code,
		   json_pack("{s:s, s:s, s:i, s:s, s:s, s:s, s:b}", "type",
			     type, "title", word, "status", (int)code, "detail",
			     public_text(status, e), "code", word, "hop",
			     v->s->conf->party, "retryable", again));
	count_refusal(v->party, status);
	if (status == -EACCES && audit_may(v->party))
		log_warn("audit", "refused party=%s %s %.60s", v->party,
			 v->method, v->target ? v->target : "");
}

static void refuse(struct serve *v, int no, const char *text)
{
	struct err e = { 0 };

	serve_refuse(v, err_set(&e, no, "%s", text), &e);
}

/* ---- which request ----------------------------------------------------- */

static bool verb_valid(const char *t)
{
	size_t n = strspn(t, "abcdefghijklmnopqrstuvwxyz-");

	return n >= 1 && n <= 40 && !t[n];
}

/* <tid>[/chunks/<i>|/commit] */
static bool route_transfer(const char *method, struct request_route *ret)
{
	char *rest = ret->tail + 64;
	char tid[65] = "";

	if (strlen(ret->tail) < 64)
		return false;
	memcpy(tid, ret->tail, 64);
	if (!hex64_valid(tid))
		return false;
	if (!*rest && !strcmp(method, "PUT"))
		ret->kind = REQUEST_ANNOUNCE;
	else if (!*rest && !strcmp(method, "GET"))
		ret->kind = REQUEST_STATE;
	else if (!*rest && !strcmp(method, "DELETE"))
		ret->kind = REQUEST_ABORT;
	else if (!strcmp(rest, "/commit") && !strcmp(method, "POST"))
		ret->kind = REQUEST_COMMIT;
	else if (!strncmp(rest, "/chunks/", 8) && !strcmp(method, "PUT") &&
		 strspn(rest + 8, "0123456789") == strlen(rest + 8) && rest[8])
		ret->kind = REQUEST_CHUNK;
	else
		return false;
	if (ret->kind == REQUEST_CHUNK)
		ret->index = rest + 8;
	*rest = '\0';
	return true;
}

bool request_route(const char *method, char *target, bool relayed,
		   struct request_route *ret)
{
	static const struct {
		const char *method, *path;
		enum request_kind kind;
	} fixed[] = {
		{ "GET", "/v1/hello", REQUEST_HELLO },
		{ "POST", "/v1/messages", REQUEST_MESSAGES },
		{ "POST", "/v1/reverse", REQUEST_REVERSE },
	};
	static const struct {
		const char *method, *prefix;
		enum request_kind kind;
	} tails[] = {
		{ "GET", "/v1/card/", REQUEST_CARD },
		{ "POST", "/v1/rpc/", REQUEST_RPC },
		{ "POST", "/v1/relay/", REQUEST_RELAY },
	};

	*ret = (struct request_route){ .query = strchr(target, '?') };
	if (ret->query)
		*ret->query++ = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		if (!strcmp(target, fixed[i].path) &&
		    !strcmp(method, fixed[i].method)) {
			ret->kind = fixed[i].kind;
			return !relayed || fixed[i].kind != REQUEST_REVERSE;
		}
	for (size_t i = 0; i < ARRAY_SIZE(tails); i++) {
		size_t n = strlen(tails[i].prefix);

		if (strncmp(target, tails[i].prefix, n) ||
		    strcmp(method, tails[i].method))
			continue;
		ret->kind = tails[i].kind;
		ret->tail = target + n;
		return tails[i].kind == REQUEST_RPC
			   ? verb_valid(ret->tail)
			   : party_id_valid(ret->tail) && !relayed;
	}
	if (strncmp(target, "/v1/transfers/", 14))
		return false;
	ret->tail = target + 14;
	return route_transfer(method, ret);
}

static size_t body_max(const struct serve *v)
{
	switch (v->route.kind) {
	case REQUEST_RPC:
		return RPC_MAX;
	case REQUEST_MESSAGES:
		return BATCH_MAX + (64u << 10);
	case REQUEST_ANNOUNCE:
		return DOCUMENT_MAX;
	case REQUEST_COMMIT:
		return DOCUMENT_MAX + INLINE_MAX + 8;
	case REQUEST_RELAY:
	case REQUEST_REVERSE:
		return REQUEST_BODY_MAX + (192u << 10);
	default:
		return 0;
	}
}

static double rate_limit(struct serve *v)
{
	_cleanup_free_ char *allow = party_allow(v->s->conf, v->party);
	uint64_t rate;

	return allow_limit(allow, "rate", &rate) ? (double)rate : 0;
}

/* Does it hold much in memory, a body of n bytes or its answer? */
static bool is_large(const struct serve *v, size_t n)
{
	switch (v->route.kind) {
	case REQUEST_RELAY:
	case REQUEST_REVERSE:
		return n > LARGE_BODY;
	case REQUEST_STATE:
		return v->route.query; /* the digests of all chunks */
	default:
		return false;
	}
}

/* One party alone never has them all: it might send its bodies slowly. */
static bool slot_of_party(struct serve *v)
{
	struct peer *p;
	bool ok;

	pthread_mutex_lock(&v->s->lock);
	p = peer_find_locked(v->s, v->party);
	ok = !p || p->slots < SLOTS_EACH;
	if (p && ok) {
		p->slots++;
		v->slot_of = p;
	}
	pthread_mutex_unlock(&v->s->lock);
	return ok;
}

static void slot_of_party_back(struct serve *v)
{
	struct peer *p = TAKE_PTR(v->slot_of);

	if (!p)
		return;
	pthread_mutex_lock(&v->s->lock);
	p->slots--;
	pthread_mutex_unlock(&v->s->lock);
}

static bool take_slot(struct serve *v)
{
	if (!v->slot && slot_of_party(v)) {
		v->slot = !sem_trywait(&slots);
		if (!v->slot)
			slot_of_party_back(v);
	}
	if (!v->slot) {
		refuse(v, EAGAIN, "too much is under way");
		v->retry_ms = 50;
	}
	return v->slot;
}

void serve_begin(struct serve *v)
{
	size_t max;

	pthread_once(&slots_once, slots_init);
	sb_init(&v->out, FRAME_BODY_MAX);
	sb_init(&v->body, 0);
	if (!request_route(v->method, v->target, v->relayed, &v->route)) {
		refuse(v, ENOENT, "no such request");
		return;
	}
	max = body_max(v);
	sb_init(&v->body, max);
	if (v->route.kind != REQUEST_CHUNK && v->length > 0 &&
	    (uint64_t)v->length > max) {
		refuse(v, EFBIG, "the body is too long");
		return;
	}
	if (v->route.kind == REQUEST_CHUNK || v->route.kind == REQUEST_MESSAGES)
		v->rate = rate_limit(v);
	if (v->route.kind == REQUEST_RELAY) {
		struct err e = { 0 };
		int r = relay_permits(v, v->route.tail, &e);

		if (r) {
			serve_refuse(v, r, &e);
			return;
		}
	}
	if (is_large(v, v->length > 0 ? (size_t)v->length : 0) && !take_slot(v))
		return;
	if (v->route.kind == REQUEST_CHUNK)
		in_chunk_begin(v, v->route.tail, v->route.index);
}

/* limit rate: who sends faster waits (a token bucket of one second). */
static void slow_down(struct serve *v, size_t n)
{
	struct peer *p;
	double wait = 0;

	pthread_mutex_lock(&v->s->lock);
	p = peer_find_locked(v->s, v->party);
	if (p) {
		int64_t now = now_mono_ms();

		p->tokens += (double)(now - p->tokens_ms) / 1000 * v->rate;
		p->tokens = MIN(p->tokens, v->rate);
		p->tokens_ms = now;
		p->tokens -= (double)n;
		if (p->tokens < 0)
			wait = -p->tokens / v->rate;
	}
	pthread_mutex_unlock(&v->s->lock);
	if (wait > 0.001) {
		struct timespec ts = { (time_t)wait,
				       (long)((wait - (double)(time_t)wait) *
					      1e9) };

		nanosleep(&ts, NULL);
	}
}

void serve_data(struct serve *v, const void *data, size_t n)
{
	if (v->code)
		return; /* answered already: the rest is not looked at */
	if (v->rate > 0)
		slow_down(v, n);
	if (v->route.kind == REQUEST_CHUNK)
		in_chunk_data(v, data, n);
	else if (is_large(v, v->body.len + n) && !take_slot(v))
		return; /* its length had not been said */
	else if (sb_add(&v->body, data, n))
		refuse(v, EFBIG, "the body is too long");
}

/* ---- hello, calls, messages -------------------------------------------- */

static void hello(struct serve *v)
{
	serve_json(v, 200, hello_doc(v->s, v->party, v->cert));
}

static void rpc(struct serve *v)
{
	unsigned ms = v->timeout_ms ? v->timeout_ms : 5000;
	int status;

	hook_wire(v->route.tail, v->body.buf, v->body.len);
	status = call_run(v->s, v->party, v->route.tail, v->body.buf,
			  v->body.len, MIN(ms, 60000u), &v->out);
	hook_wire("answer", v->out.buf, v->out.len);
	v->code = status_to_http(status);
}

int batch_next(const void *data, size_t n, struct message_head *h,
	       size_t *ret_used)
{
	if (head_parse(data, n, h, ret_used, NULL) || h->file ||
	    h->size > JOURNAL_MESSAGE_MAX || h->size > n - *ret_used)
		return -EINVAL;
	return 0;
}

/* The next record of a batch. */
static int take_message(struct serve *v, char *at, size_t n, struct delivery *d)
{
	struct message_head h;
	char sha[65], *payload;
	size_t used = 0;
	int r = batch_next(at, n, &h, &used);

	if (r)
		return r;
	payload = at + used;
	*d = (struct delivery){ .record = at, .n = used + (size_t)h.size };
	key_digest(&h.key, payload, (size_t)h.size, sha);
	if (strcmp(sha, h.sha256)) {
		d->status = -EBADMSG;
		return 0;
	}
	hook_flip(&h, payload, (size_t)h.size);
	hook_wire(h.tid, payload, (size_t)h.size);
	site_delivery(v->s, &h, v->party, payload, d);
	if (d->status == -EACCES && audit_may(v->party))
		log_warn("audit", "refused party=%s a message", v->party);
	return 0;
}

static void messages(struct serve *v)
{
	_cleanup_free_ struct delivery *d = NULL;
	struct strbuf text = STRBUF_INIT(FRAME_BODY_MAX);
	size_t n = 0, room = 0;
	int r = 0, x;

	for (size_t at = 0; at < v->body.len && !r; at += d[n++].n) {
		if (n == room) {
			room = room ? 2 * room : 16;
			d = xrealloc(d, room * sizeof(*d));
		}
		r = take_message(v, v->body.buf + at, v->body.len - at, &d[n]);
		if (r)
			break;
	}
	x = site_deliver_all(v->s, v->party, d, n);
	hook_die("message-synced");
	if (x) {
		refuse(v, -x, "cannot write");
		return;
	}
	if (r) {
		refuse(v, EINVAL, "malformed messages");
		return;
	}
	(void)sb_adds(&text, "{\"results\":[");
	for (size_t i = 0; i < n; i++)
		(void)sb_addf(&text, "%s%d", i ? "," : "", d[i].status);
	(void)sb_adds(&text, "]}");
	v->code = 200;
	sb_free(&v->out);
	v->out = text;
}

void serve_end(struct serve *v)
{
	json_t *doc;
	struct err e = { 0 };

	if (v->code)
		return;
	switch (v->route.kind) {
	case REQUEST_HELLO:
		hello(v);
		break;
	case REQUEST_CARD:
		route_card(v, v->route.tail);
		break;
	case REQUEST_RPC:
		rpc(v);
		break;
	case REQUEST_MESSAGES:
		messages(v);
		break;
	case REQUEST_ANNOUNCE:
		doc = json_parse(v->body.buf, v->body.len, &e);
		if (doc)
			in_announce(v, v->route.tail, doc);
		else
			serve_refuse(v, -EINVAL, &e);
		json_decref(doc);
		break;
	case REQUEST_STATE:
		in_state(v, v->route.tail,
			 v->route.query && !strcmp(v->route.query, "digests"));
		break;
	case REQUEST_ABORT:
		in_abort(v, v->route.tail);
		break;
	case REQUEST_CHUNK:
		in_chunk_end(v);
		break;
	case REQUEST_COMMIT:
		in_commit(v, v->route.tail);
		break;
	case REQUEST_RELAY:
		route_relayed(v, v->route.tail);
		break;
	case REQUEST_REVERSE:
		reverse_polled(v);
		break;
	}
}

void serve_free(struct serve *v)
{
	in_chunk_free(v->sink);
	v->sink = NULL;
	if (v->slot)
		sem_post(&slots);
	slot_of_party_back(v);
	v->slot = false;
	sb_free(&v->body);
	sb_free(&v->out);
	free(v->target);
	v->target = NULL;
}
