// SPDX-License-Identifier: Apache-2.0
/*
 * rollsite --doctor CONFIG: looks at everything between a file that was
 * written for a party and that party, and names what is in the way.  One line
 * for each thing looked at:
 *
 *   ok   what: what was found
 *   warn what: what will be wrong some day, or may be; what to do
 *   FAIL what: what is wrong; what to do
 *
 * It changes nothing and needs no running rollsite, except to ask a party to
 * which no connection can be made from here (via, reverse).
 */
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/probe.h"
#include "transfer/transfer.h"
#include "transfer/transfer_priv.h"

#define SOCKET_MS    5000
#define FRESH_MS     8000 /* a ping through others, with its own timeouts */
#define SOON_MS	     (30ll * 86400 * 1000)
#define SKEW_MS	     (5ll * 60 * 1000)
#define FREE_WARN    (1ull << 30)
#define FREE_FAIL    (64ull << 20)
#define POLL_LATE_MS (2ll * 60 * 1000)

enum verdict { OK, WARN, FAIL };

struct doctor {
	struct conf *c;
	struct probe_keys keys;
	char **ids;	    /* of the parties */
	signed char *state; /* of each: -1 = not looked at, else a verdict */
	bool running;	    /* our rollsite answers on its socket */
	bool hangs;	    /* it is there and does not */
	bool failed;
};

static enum verdict say(struct doctor *d, enum verdict v, const char *fmt, ...)
    PRINTF(3, 4);
static enum verdict say(struct doctor *d, enum verdict v, const char *fmt, ...)
{
	static const char *const words[] = { "ok  ", "warn", "FAIL" };
	char line[4096];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	/* Parts of it are a partner's words: one line, whatever they are. */
	for (char *p = line; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = ' ';
	(void)printf("%s %s\n", words[v], line);
	(void)fflush(stdout);
	d->failed |= v == FAIL;
	return v;
}

/* ---- asking our rollsite ----------------------------------------------- */

/* The answer (caller owns), or NULL: it does not run or hangs. */
static json_t *ask(const struct doctor *d, const char *op, const char *party,
		   struct err *e)
{
	_cleanup_free_ char *path = transfer_socket_path(d->c->state);
	_cleanup_free_ char *text = NULL;
	json_t *q = json_pack("{s:s, s:s*}", "op", op, "party", party);
	struct pollfd p = { .events = POLLIN };
	json_t *o = NULL;
	struct link l;
	int r, fd = -1;

	text = q ? json_text(q, false) : NULL;
	json_decref(q);
	r = link_open(&l, path, e);
	if (r || !text)
		return NULL;
	p.fd = l.fd;
	r = frame_send(l.fd, text, strlen(text), NULL, 0, -1);
	if (!r && poll(&p, 1, SOCKET_MS) != 1)
		r = err_set(e, ETIMEDOUT, "%s: no answer within %d s", path,
			    SOCKET_MS / 1000);
	else if (!r && frame_recv(l.fd, &l.head, &l.body, &fd))
		r = err_set(e, EPIPE, "%s: it went away", path);
	if (fd >= 0)
		close(fd);
	if (!r)
		o = json_parse(l.head.buf, l.head.len, e);
	if (o && json_int_or(o, "status", -EPROTO)) {
		(void)err_set(e, EPROTO, "%s", json_str_or(o, "error", op));
		json_decref(o);
		o = NULL;
	}
	link_close(&l);
	return o;
}

/* ---- ourselves --------------------------------------------------------- */

static void date(char buf[40], int64_t unix_ms)
{
	time_rfc3339(buf, 40, unix_ms);
	buf[10] = '\0';
}

/* Words for a certificate that is valid as of now. */
static enum verdict expiry(const struct judged *j, char *text, size_t n)
{
	int64_t left = j->expires_ms - now_unix_ms();
	char when[40];

	date(when, j->expires_ms);
	(void)snprintf(text, n, "valid until %s (%" PRId64 " days)", when,
		       left / 86400000);
	return left < SOON_MS ? WARN : OK;
}

static void look_at_clock(struct doctor *d, const struct judged *j)
{
	char now[40], begin[40];

	time_rfc3339(now, sizeof(now), now_unix_ms());
	if (!j) {
		say(d, OK, "clock: %s", now);
		return;
	}
	time_rfc3339(begin, sizeof(begin), j->begins_ms);
	if (now_unix_ms() < j->begins_ms)
		say(d, FAIL,
		    "clock: it is %s here, but our certificate begins at %s; "
		    "set the clock (chrony or another NTP client)",
		    now, begin);
	else
		say(d, OK, "clock: %s", now);
}

static void look_at_certificate(struct doctor *d)
{
	const struct conf *c = d->c;
	struct err e = { 0 };
	struct judged j;
	enum verdict v;
	char until[100];
	int r;

	r = probe_keys_load(c, &d->keys, &e);
	if (r) {
		say(d, FAIL,
		    "certificate: %s; make a new pair: rollfs-pki party DIR %s "
		    "%s",
		    e.text, c->federation, c->party);
		look_at_clock(d, NULL);
		return;
	}
	r = cert_judge(d->keys.ca, d->keys.cert, d->keys.chain, c->federation,
		       &j, &e);
	v = expiry(&j, until, sizeof(until));
	if (r && j.x509 == X509_V_ERR_CERT_HAS_EXPIRED)
		say(d, FAIL,
		    "certificate: %s or its CA %s has expired (%s); make a new "
		    "one: rollfs-pki party DIR %s %s",
		    c->certificate, c->ca, until, c->federation, c->party);
	else if (r && j.x509 != X509_V_OK)
		say(d, FAIL,
		    "certificate: %s does not lead to the CA %s (%s); both "
		    "come from the one who runs the federation's CA",
		    c->certificate, c->ca, e.text);
	else if (r || strcmp(j.party, c->party))
		say(d, FAIL,
		    "certificate: %s is not that of party %s in federation %s "
		    "(%s%s); make the right one: rollfs-pki party DIR %s %s",
		    c->certificate, c->party, c->federation,
		    r ? e.text : "it is party ", r ? "" : j.party,
		    c->federation, c->party);
	else if (v == WARN)
		say(d, WARN,
		    "certificate: %s; make a new one in time: rollfs-pki party "
		    "DIR %s %s (taken into use without a restart)",
		    until, c->federation, c->party);
	else
		say(d, OK, "certificate: party %s of %s, key and CA fit, %s",
		    c->party, c->federation, until);
	look_at_clock(d, &j);
}

static void look_at_state(struct doctor *d)
{
	const char *dir = d->c->state;
	_cleanup_free_ char *name = NULL;
	struct statvfs fs;
	struct stat st;
	uint64_t left;
	int fd;

	if (stat(dir, &st) || !S_ISDIR(st.st_mode)) {
		say(d, FAIL,
		    "state: %s: %s; it is made by the first start of rollfs, "
		    "or correct 'state' in %s",
		    dir, strerror(errno ? errno : ENOTDIR), d->c->path);
		return;
	}
	if (st.st_mode & 077)
		say(d, WARN, "state: others can look into %s; chmod 700 it",
		    dir);
	if (asprintf(&name, "%s/.doctor-XXXXXX", dir) < 0)
		name = NULL;
	fd = name ? mkostemp(name, O_CLOEXEC) : -1;
	if (fd < 0) {
		say(d, FAIL,
		    "state: nothing can be written into %s: %s; it belongs to "
		    "user %u, this is %u",
		    dir, strerror(errno), st.st_uid, geteuid());
		return;
	}
	close(fd);
	(void)unlink(name);
	if (statvfs(dir, &fs)) {
		say(d, FAIL, "state: %s: %s; look at the disk", dir,
		    strerror(errno));
		return;
	}
	left = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (left < FREE_FAIL)
		say(d, FAIL,
		    "state: %" PRIu64 " MiB are free below %s: files of "
		    "partners wait; make room",
		    left >> 20, dir);
	else if (left < FREE_WARN)
		say(d, WARN,
		    "state: only %" PRIu64 " MiB are free below %s; make room",
		    left >> 20, dir);
	else
		say(d, OK, "state: %s, %" PRIu64 " GiB free", dir, left >> 30);
	for (char **id = d->ids; *id; id++) {
		_cleanup_free_ char *allow = party_allow(d->c, *id);
		uint64_t least;

		if (allow && allow_limit(allow, "floor", &least) &&
		    least > left)
			say(d, FAIL,
			    "state: party %s leaves %" PRIu64
			    " MiB free (limit floor), but only %" PRIu64
			    " are: nothing is taken from it; make room, or "
			    "lower it in parties/%s/allow",
			    *id, least >> 20, left >> 20, *id);
	}
}

static void look_at_rollsite(struct doctor *d)
{
	struct err e = { 0 };
	json_t *o = ask(d, "hello", NULL, &e);
	const char *party = json_str_or(o, "party", "");

	d->hangs = !o && e.no != ENOENT && e.no != ECONNREFUSED;
	if (d->hangs)
		say(d, FAIL,
		    "rollsite: it runs, but does not answer (%s); see "
		    "%s/rollsite.log, then end it: rollfs starts another",
		    e.text, d->c->state);
	else if (!o)
		say(d, FAIL,
		    "rollsite: it does not run (%s); start rollfs %s MOUNT, or "
		    "rollsite %s; its log is %s/rollsite.log",
		    e.text, d->c->path, d->c->path, d->c->state);
	else if (strcmp(party, d->c->party))
		say(d, FAIL,
		    "rollsite: the one that runs here is party %s's; stop it: "
		    "each party has a state directory of its own",
		    party);
	else
		say(d, OK, "rollsite: runs, version %s",
		    json_str_or(o, "version", "unknown"));
	d->running = o && !strcmp(party, d->c->party);
	json_decref(o);
}

/* host:port to connect to; everything that listens is there too. */
static char *listen_text(const struct conf *c)
{
	const char *host = c->listen_host;

	if (!strcmp(host, "0.0.0.0"))
		host = "127.0.0.1";
	if (!strcmp(host, "::"))
		host = "::1";
	return xasprintf(strchr(host, ':') ? "[%s]:%u" : "%s:%u", host,
			 c->listen_port);
}

/* Could a rollsite listen there?  It says why not. */
static int try_bind(const struct conf *c, struct err *e)
{
	_cleanup_close_ int fd = -1;

	return listen_bind(c, &fd, e);
}

static void look_at_port(struct doctor *d)
{
	_cleanup_free_ char *where = NULL;
	struct err e = { 0 };
	struct judged j;
	struct probe p;

	if (!d->c->listen_host) {
		say(d, OK, "port: none (listen = none): we connect to others");
		return;
	}
	if (d->hangs)
		return; /* said already, and it holds the port */
	where = listen_text(d->c);
	if (!d->running && !try_bind(d->c, &e)) {
		say(d, OK, "port: %s is free for rollsite", where);
		return;
	}
	if (!d->running) {
		say(d, FAIL,
		    "port: %s; stop what uses it, or correct 'listen' in %s",
		    e.text, d->c->path);
		return;
	}
	if (!d->keys.fit)
		return;
	if (probe_connect(&d->keys, where, &p, &e))
		say(d, FAIL,
		    "port: rollsite runs, but not on %s (%s); if 'listen' was "
		    "changed, restart it; else see %s/rollsite.log",
		    where, e.text, d->c->state);
	else if (cert_judge(d->keys.ca, p.cert, SSL_get_peer_cert_chain(p.ssl),
			    d->c->federation, &j, &e) &&
		 !*j.party)
		say(d, FAIL,
		    "port: what answers on %s is not ours (%s); stop it, or "
		    "correct 'listen' in %s",
		    where, e.text, d->c->path);
	else if (strcmp(j.party, d->c->party))
		say(d, FAIL,
		    "port: what answers on %s is party %s; correct 'listen' "
		    "in %s",
		    where, j.party, d->c->path);
	else
		say(d, OK, "port: our rollsite answers on %s", where);
	probe_close(&p);
}

/* ---- the others -------------------------------------------------------- */

static enum verdict worse(enum verdict a, enum verdict b)
{
	return MAX(a, b);
}

static void look_at_allow(struct doctor *d, const char *id)
{
	_cleanup_free_ char *allow = party_allow(d->c, id);
	struct err e = { 0 };
	bool any = false, push;

	if (!allow)
		return;
	if (allow_check(allow, &e)) {
		say(d, FAIL, "party %s, allow: %s; correct parties/%s/allow",
		    id, e.text, id);
		return;
	}
	push = allow_permits(allow, "push", "*");
	for (const char *p = allow; *p; p += *p == '\n') {
		p += strspn(p, " \t\r");
		any |= *p && !strchr("#\n", *p) && strncmp(p, "limit", 5);
		p += strcspn(p, "\n");
	}
	if (!any)
		say(d, WARN,
		    "party %s, allow: empty, so it may do nothing here; write "
		    "rules into parties/%s/allow (\"push *\" for files)",
		    id, id);
	else if (!push)
		say(d, OK,
		    "party %s, allow: rules, but no push: its files "
		    "are refused",
		    id);
	else
		say(d, OK, "party %s, allow: rules, files are taken", id);
}

/* What it says in its hello. */
static enum verdict look_at_hello(struct doctor *d, const char *id,
				  const struct probe *p)
{
	struct err e = { 0 };
	json_t *o = json_parse(p->body.buf, p->body.len, &e);
	const json_t *you = json_object_get(o, "you");
	int64_t protocol = json_int_or(o, "protocol", 0);
	int64_t skew = json_int_or(o, "time", p->asked_ms) - p->asked_ms;
	enum verdict v = OK;

	if (!json_is_object(o)) {
		v = say(d, FAIL,
			"party %s, hello: not JSON (%s); is it a rollsite "
			"that answers there?",
			id, e.text);
		json_decref(o);
		return v;
	}
	if (protocol != PROTOCOL_VERSION)
		v = say(d, FAIL,
			"party %s, hello: it speaks protocol %" PRId64
			" (version %.100s), we speak %d; update the older "
			"of the two",
			id, protocol, json_str_or(o, "version", "unknown"),
			PROTOCOL_VERSION);
	else
		say(d, OK, "party %s, hello: %.1f ms, version %.100s", id,
		    (double)p->rtt_us / 1000,
		    json_str_or(o, "version", "unknown"));
	if (!json_is_integer(json_object_get(o, "time")))
		;
	else if (llabs(skew) > SKEW_MS)
		v = worse(v, say(d, WARN,
				 "party %s, clock: it is %" PRId64
				 " s %s ours; set the wrong one of the two "
				 "(chrony or another NTP client)",
				 id, (int64_t)llabs(skew) / 1000,
				 skew > 0 ? "ahead of" : "behind"));
	else
		say(d, OK, "party %s, clock: %+.1f s from ours", id,
		    (double)skew / 1000);
	if (!json_is_object(you) ||
	    !json_is_boolean(json_object_get(you, "ok")))
		say(d, OK, "party %s, way back: it has not asked for us yet",
		    id);
	else if (json_bool_or(you, "ok", false))
		say(d, OK, "party %s, way back: it reaches us in %.1f ms", id,
		    json_num_or(you, "rtt_ms", 0));
	else
		v = worse(v, say(d, FAIL,
				 "party %s, way back: it does not reach us "
				 "(%.300s); look at its parties/%s/address%s",
				 id, json_str_or(you, "error", "no reason"),
				 d->c->party,
				 d->c->listen_host
				     ? " and at firewalls before our port"
				     : ": with listen = none here it is "
				       "'reverse'"));
	json_decref(o);
	return v;
}

static enum verdict refused(struct doctor *d, const char *id,
			    const struct probe *p)
{
	json_t *o = json_parse(p->body.buf, p->body.len, NULL);
	const char *text = json_str_or(o, "detail", "");
	enum verdict v;

	if (p->code == 403 || p->code == 401)
		v = say(d, FAIL,
			"party %s, hello: it refuses us (%u%s%.300s); it "
			"has to know party %s ([party %s] there, or mkdir "
			"parties/%s) and to have the CA of our certificate",
			id, p->code, *text ? ": " : "", text, d->c->party,
			d->c->party, d->c->party);
	else
		v = say(d, FAIL,
			"party %s, hello: answered %u%s%.300s; see the log "
			"of its rollsite",
			id, p->code, *text ? ": " : "", text);
	json_decref(o);
	return v;
}

static enum verdict no_connection(struct doctor *d, const char *id,
				  const char *where, const struct probe *p,
				  const struct err *e)
{
	const char *todo = "look at the network between";

	if (p->step == PROBE_NAME)
		return say(d, FAIL,
			   "party %s, name: %s; correct "
			   "parties/%s/address, or look at DNS",
			   id, e->text, id);
	if (p->step == PROBE_TLS)
		return say(d, FAIL,
			   "party %s, TLS: %s: %s; is it a rollsite that "
			   "listens there?",
			   id, where, e->text);
	if (p->no == ECONNREFUSED)
		todo = "start rollfs there, or correct its port";
	else if (p->no == ETIMEDOUT)
		todo = "a firewall drops it, or the machine is down";
	return say(d, FAIL, "party %s, TCP: %s; %s (parties/%s/address)", id,
		   e->text, todo, id);
}

static enum verdict look_at_their_certificate(struct doctor *d, const char *id,
					      const struct probe *p)
{
	struct err e = { 0 };
	struct judged j;
	char until[100];
	int r = cert_judge(d->keys.ca, p->cert, SSL_get_peer_cert_chain(p->ssl),
			   d->c->federation, &j, &e);
	enum verdict v = expiry(&j, until, sizeof(until));

	if (r && j.x509 == X509_V_ERR_CERT_HAS_EXPIRED)
		return say(d, FAIL,
			   "party %s, certificate: it or its CA has expired "
			   "(%s); party %s has to make a new one",
			   id, until, id);
	if (r && j.x509 == X509_V_ERR_CERT_NOT_YET_VALID)
		return say(d, FAIL,
			   "party %s, certificate: not valid yet; one of "
			   "the clocks is wrong",
			   id);
	if (r && j.x509 != X509_V_OK)
		return say(d, FAIL,
			   "party %s, certificate: it does not lead to our "
			   "CA %s (%s); both parties need the same CA",
			   id, d->c->ca, e.text);
	if (r)
		return say(d, FAIL,
			   "party %s, certificate: %s; the name of the "
			   "federation differs, or it is another service",
			   id, e.text);
	if (strcmp(j.party, id))
		return say(d, FAIL,
			   "party %s, certificate: party %s answers there; "
			   "correct parties/%s/address",
			   id, j.party, id);
	return say(d, v, "party %s, certificate: %s%s", id, until,
		   v == WARN ? "; it has to make a new one in time" : "");
}

static enum verdict direct(struct doctor *d, const char *id, const char *where)
{
	struct err e = { 0 };
	struct probe p;
	enum verdict v;

	if (!d->keys.fit)
		return say(d, FAIL,
			   "party %s: not tried; our certificate has to be "
			   "right first",
			   id);
	if (probe_connect(&d->keys, where, &p, &e)) {
		v = no_connection(d, id, where, &p, &e);
		goto done;
	}
	say(d, OK, "party %s, TCP and TLS: %s", id, p.address);
	v = look_at_their_certificate(d, id, &p);
	if (v == FAIL)
		goto done;
	if (probe_get(&p, where, "/v1/hello", &e))
		v = say(d, FAIL,
			"party %s, hello: %s; an alert here means that our "
			"certificate is not accepted: it needs the CA of "
			"our certificate",
			id, e.text);
	else if (p.code != 200)
		v = refused(d, id, &p);
	else
		v = worse(v, look_at_hello(d, id, &p));
done:
	probe_close(&p);
	return v;
}

/* A ping that was asked for now, by our rollsite; NULL: why is said. */
static json_t *fresh_ping(struct doctor *d, const char *id, struct err *e)
{
	int64_t began = now_unix_ms(), end = now_mono_ms() + FRESH_MS;
	json_t *o = ask(d, "ping", id, e);

	if (!o)
		return NULL;
	for (;;) {
		struct timespec pause = { 0, 50000000 };

		json_decref(o);
		o = ask(d, "party", id, e);
		if (!o || json_int_or(o, "asked", 0) >= began ||
		    now_mono_ms() > end)
			return o;
		nanosleep(&pause, NULL);
	}
}

/* Of a ping's text, without the fields that come after the reason. */
static int reason_length(const char *ping)
{
	const char *end = strstr(ping, " back=");

	return *ping ? (int)MIN(end ? (size_t)(end - ping) : strlen(ping), 600u)
		     : 32;
}

static enum verdict by_rollsite(struct doctor *d, const char *id,
				const char *how)
{
	struct err e = { 0 };
	json_t *o;
	const char *ping;
	enum verdict v;

	if (!d->running)
		return say(d, FAIL,
			   "party %s, %s: only a running rollsite can ask "
			   "it; start it and try again",
			   id, how);
	o = fresh_ping(d, id, &e);
	ping = json_str_or(o, "ping", "");
	if (!o)
		v = say(d, FAIL,
			"party %s, %s: our rollsite does not tell (%s); "
			"see %s/rollsite.log",
			id, how, e.text, d->c->state);
	else if (strncmp(ping, "ok ", 3))
		v = say(d, FAIL, "party %s, %s: %.*s; %s", id, how,
			reason_length(ping), *ping ? ping : "not asked yet",
			!strcmp(how, "reverse")
			    ? "it has to run and to know our address"
			: strstr(ping, " may not have requests carried")
			    ? "that relay has to write 'relay ID' into its "
			      "parties/<asker>/allow"
			    : "look there with rollsite --doctor");
	else
		v = say(d, OK, "party %s, %s: %.600s", id, how, ping);
	json_decref(o);
	return v;
}

static enum verdict reverse(struct doctor *d, const char *id)
{
	json_t *o = d->running ? ask(d, "party", id, NULL) : NULL;
	int64_t last = json_int_or(o, "polled", 0), ago;
	enum verdict v = OK;
	char when[40];

	json_decref(o);
	if (!d->c->listen_host)
		return say(d, FAIL,
			   "party %s, reverse: it cannot connect to us with "
			   "listen = none; one of the two has to listen",
			   id);
	time_rfc3339(when, sizeof(when), last);
	ago = now_unix_ms() - last;
	if (d->running && !last)
		return say(d, FAIL,
			   "party %s, reverse: it has not connected to us "
			   "since our rollsite started; start it there with "
			   "our address %s:%u in its parties/%s/address",
			   id, d->c->listen_host, d->c->listen_port,
			   d->c->party);
	if (d->running && ago > POLL_LATE_MS)
		return say(d, FAIL,
			   "party %s, reverse: it last asked %" PRId64
			   " s ago (%s); is it down, or its network?",
			   id, ago / 1000, when);
	if (d->running)
		say(d, OK, "party %s, reverse: it last asked %s", id, when);
	v = by_rollsite(d, id, "reverse");
	return v;
}

static enum verdict look_at_party(struct doctor *d, size_t i, unsigned depth);

static enum verdict via(struct doctor *d, const char *id, const char *relay,
			unsigned depth)
{
	enum verdict v = FAIL;
	char how[40];
	size_t k;

	(void)snprintf(how, sizeof(how), "via %.12s", relay);
	for (k = 0; d->ids[k]; k++)
		if (!strcmp(d->ids[k], relay))
			break;
	if (!d->ids[k])
		return say(d, FAIL,
			   "party %s, %s: party %s is not known here; mkdir "
			   "parties/%s and write its address, or correct "
			   "parties/%s/address",
			   id, how, relay, relay, id);
	if (depth > VIA_MAX)
		return say(d, FAIL,
			   "party %s, %s: the relays lead in a circle, or "
			   "there are more than %d; correct "
			   "parties/%s/address",
			   id, how, VIA_MAX, id);
	v = d->state[k] >= 0 ? (enum verdict)d->state[k]
			     : look_at_party(d, k, depth + 1);
	if (v == FAIL)
		return say(d, FAIL,
			   "party %s, %s: the hop to relay %s fails; see "
			   "party %s above",
			   id, how, relay, relay);
	return by_rollsite(d, id, how);
}

static enum verdict look_at_party(struct doctor *d, size_t i, unsigned depth)
{
	static const char scheme[] = "https://";
	const char *id = d->ids[i];
	_cleanup_free_ char *address = party_address(d->c, id);
	struct err e = { 0 };
	enum verdict v;

	if (!address || !*address)
		v = say(d, FAIL,
			"party %s, address: none; write one into "
			"parties/%s/address",
			id, id);
	else if (address_check(address, &e))
		v = say(d, FAIL,
			"party %s, address: %s; correct "
			"parties/%s/address",
			id, e.text, id);
	else if (!strncmp(address, "via ", 4))
		v = via(d, id, address + 4, depth);
	else if (!strcmp(address, "reverse"))
		v = reverse(d, id);
	else
		v = direct(d, id, address + sizeof(scheme) - 1);
	look_at_allow(d, id);
	d->state[i] = (signed char)v;
	return v;
}

int doctor(const char *conf_path)
{
	struct doctor d = { 0 };
	struct err e = { 0 };
	size_t n = 0;

	(void)signal(SIGPIPE, SIG_IGN);
	/* The system's resolver obeys it; a user's own setting wins. */
	(void)setenv("RES_OPTIONS", "timeout:2 attempts:2", 0);
	if (conf_load(conf_path, &d.c, &e)) {
		say(&d, FAIL, "configuration: %s; correct it", e.text);
		return 1;
	}
	say(&d, OK, "configuration: %s, party %s of federation %s", d.c->path,
	    d.c->party, d.c->federation);
	d.ids = party_list(d.c);
	while (d.ids && d.ids[n])
		n++;
	d.state = malloc(n + 1);
	if (d.ids && d.state) {
		memset(d.state, -1, n + 1);
		look_at_certificate(&d);
		look_at_state(&d);
		look_at_rollsite(&d);
		look_at_port(&d);
		for (size_t i = 0; i < n; i++)
			if (d.state[i] < 0)
				(void)look_at_party(&d, i, 1);
		if (!n)
			say(&d, WARN,
			    "parties: none are known; mkdir parties/ID, or "
			    "[party ID] in %s",
			    d.c->path);
	} else {
		say(&d, FAIL, "memory: none is left; look at the machine");
	}
	probe_keys_free(&d.keys);
	for (size_t i = 0; i < n; i++)
		free(d.ids[i]);
	free(d.ids);
	free(d.state);
	conf_free(d.c);
	return d.failed ? 1 : 0;
}
