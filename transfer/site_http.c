// SPDX-License-Identifier: Apache-2.0
/*
 * The HTTPS server: a thread per connection (partners keep few connections,
 * and a call may wait for its answer).  libmicrohttpd only asks for a client
 * certificate, so the first thing done with any request is to verify the
 * chain and to read the party id from the certificate.
 */
#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <microhttpd.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/transfer_priv.h"

/* In all, of one party, and of those that have not shown who they are: whoever
 * connects most cannot shut the others out. */
#define CONNECTIONS	400
#define OF_PARTY	128
#define UNKNOWN		100
#define UNKNOWN_SECONDS 20u
#define KNOWN_SECONDS	120u
#define CHAIN_MAX	8

static struct MHD_Daemon *daemon_;
static struct site *the_site;

/* ---- our certificate --------------------------------------------------- */

/* What handshakes use; replaced when the files have changed.  Old sets stay:
 * a handshake may be using them, and they are few. */
static struct shown {
	uint64_t generation;
	gnutls_pcert_st chain[CHAIN_MAX];
	unsigned n;
	gnutls_privkey_t key;
} * shown;
static pthread_mutex_t shown_lock = PTHREAD_MUTEX_INITIALIZER;

static struct shown *shown_new(struct site *s)
{
	struct shown *x = xcalloc(1, sizeof(*x));
	struct strbuf cert, key, ca;
	gnutls_datum_t d;
	struct err e = { 0 };

	sb_init(&cert, 1u << 20);
	sb_init(&key, 1u << 20);
	sb_init(&ca, 1u << 20);
	x->generation = identity_generation(s->identity);
	x->n = CHAIN_MAX;
	if (identity_pem(s->identity, &cert, &key, &ca, &e)) {
		log_error("rollsite", "%s", e.text);
		goto bad;
	}
	d = (gnutls_datum_t){ (unsigned char *)cert.buf, (unsigned)cert.len };
	if (gnutls_pcert_list_import_x509_raw(x->chain, &x->n, &d,
					      GNUTLS_X509_FMT_PEM, 0))
		goto bad;
	d = (gnutls_datum_t){ (unsigned char *)key.buf, (unsigned)key.len };
	if (gnutls_privkey_init(&x->key) ||
	    gnutls_privkey_import_x509_raw(x->key, &d, GNUTLS_X509_FMT_PEM,
					   NULL, 0))
		goto bad;
	explicit_bzero(key.buf, key.len);
	sb_free(&cert);
	sb_free(&key);
	sb_free(&ca);
	return x;
bad:
	if (key.len)
		explicit_bzero(key.buf, key.len);
	sb_free(&cert);
	sb_free(&key);
	sb_free(&ca);
	free(x);
	return NULL;
}

static int on_certificate(gnutls_session_t tls, const gnutls_datum_t *ca,
			  int n_ca, const gnutls_pk_algorithm_t *algos,
			  int n_algos, gnutls_pcert_st **ret, unsigned *ret_n,
			  gnutls_privkey_t *ret_key)
{
	struct shown *x;

	(void)tls, (void)ca, (void)n_ca, (void)algos, (void)n_algos;
	identity_refresh(the_site->identity);
	pthread_mutex_lock(&shown_lock);
	if (!shown ||
	    shown->generation != identity_generation(the_site->identity)) {
		x = shown_new(the_site);
		if (x)
			shown = x;
	}
	x = shown;
	pthread_mutex_unlock(&shown_lock);
	if (!x)
		return -1;
	*ret = x->chain;
	*ret_n = x->n;
	*ret_key = x->key;
	return 0;
}

/* ---- who is there ------------------------------------------------------ */

struct connection {
	char party[16]; /* "" = refused */
	X509 *cert;
	int64_t expires_ms;
	uint64_t generation; /* of our identity, when it was verified */
	bool verified;
	/* Under connections_lock. */
	struct connection *next;
	int fd;
	char owner[16];
	bool known, ended; /* it has shown a party's certificate; hung up on */
};

static pthread_mutex_t connections_lock = PTHREAD_MUTEX_INITIALIZER;
static struct connection *connections; /* the newest first */

static void verify(struct site *s, struct connection *c, gnutls_session_t tls)
{
	const gnutls_datum_t *list;
	struct der chain[CHAIN_MAX];
	struct err e = { 0 };
	unsigned n = 0;

	X509_free(c->cert);
	c->cert = NULL;
	c->party[0] = '\0';
	c->verified = true;
	c->generation = identity_generation(s->identity);
	list = gnutls_certificate_get_peers(tls, &n);
	if (!list || !n || n > CHAIN_MAX) {
		if (audit_may(""))
			log_warn("audit", "a connection without a certificate");
		return;
	}
	for (unsigned i = 0; i < n; i++)
		chain[i] = (struct der){ list[i].data, list[i].size };
	if (identity_verify(s->identity, chain, n, c->party, &c->cert,
			    &c->expires_ms, &e)) {
		c->party[0] = '\0';
		if (audit_may(""))
			log_warn("audit", "a connection is refused: %s",
				 e.text);
	}
}

/* Verified once per connection and set of our own; known, and not expired, at
 * every request. */
static struct connection *connection_of(struct site *s,
					struct MHD_Connection *m)
{
	const union MHD_ConnectionInfo *ctx =
	    MHD_get_connection_info(m, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	const union MHD_ConnectionInfo *tls =
	    MHD_get_connection_info(m, MHD_CONNECTION_INFO_GNUTLS_SESSION);
	struct connection *c = ctx ? ctx->socket_context : NULL;

	if (!c || !tls)
		return NULL;
	if (!c->verified || c->generation != identity_generation(s->identity))
		verify(s, c, tls->tls_session);
	if (!*c->party || c->expires_ms < now_unix_ms())
		return NULL;
	if (strcmp(c->party, s->conf->party) && !peer_get(s, c->party)) {
		if (audit_may(""))
			log_warn("audit", "party %s is not configured here",
				 c->party);
		return NULL;
	}
	return c;
}

/* Among many that have not said who they are, the oldest goes: somebody with a
 * certificate has shown it within milliseconds. */
static struct connection *connection_new(struct MHD_Connection *m)
{
	const union MHD_ConnectionInfo *fd =
	    MHD_get_connection_info(m, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct connection *c = xcalloc(1, sizeof(*c)), *oldest = NULL;
	unsigned n = 0;

	c->fd = fd ? fd->connect_fd : -1;
	MHD_set_connection_option(m, MHD_CONNECTION_OPTION_TIMEOUT,
				  UNKNOWN_SECONDS);
	pthread_mutex_lock(&connections_lock);
	for (struct connection *x = connections; x; x = x->next)
		if (!x->known && !x->ended) {
			n++;
			oldest = x;
		}
	if (n >= UNKNOWN && oldest->fd >= 0) {
		oldest->ended = true;
		(void)shutdown(oldest->fd, SHUT_RDWR);
	}
	c->next = connections;
	connections = c;
	pthread_mutex_unlock(&connections_lock);
	return c;
}

static void on_connection(void *arg, struct MHD_Connection *m, void **ctx,
			  enum MHD_ConnectionNotificationCode code)
{
	struct connection *c = *ctx, **at;

	(void)arg;
	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		*ctx = connection_new(m);
	} else if (c) {
		pthread_mutex_lock(&connections_lock);
		for (at = &connections; *at && *at != c; at = &(*at)->next)
			;
		if (*at)
			*at = c->next;
		pthread_mutex_unlock(&connections_lock);
		X509_free(c->cert);
		free(c);
		*ctx = NULL;
	}
}

/* It has shown who it is: false when the party has enough connections. */
static bool admit(struct connection *c, struct MHD_Connection *m)
{
	unsigned n = 0;
	bool known;

	pthread_mutex_lock(&connections_lock);
	known = c->known;
	for (const struct connection *x = connections; x && !known; x = x->next)
		n += x->known && !strcmp(x->owner, c->party);
	c->known = known || n < OF_PARTY;
	memcpy(c->owner, c->party, sizeof(c->owner));
	pthread_mutex_unlock(&connections_lock);
	if (!known && c->known)
		MHD_set_connection_option(m, MHD_CONNECTION_OPTION_TIMEOUT,
					  KNOWN_SECONDS);
	return c->known;
}

/* ---- requests ---------------------------------------------------------- */

static enum MHD_Result respond(struct MHD_Connection *m, unsigned code,
			       const void *data, size_t n,
			       const struct serve *v)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(
	    n, (void *)data, MHD_RESPMEM_MUST_COPY);
	enum MHD_Result x;
	char text[24];

	if (!r)
		return MHD_NO;
	if (n)
		MHD_add_response_header(r, "Content-Type",
					code >= 400 ? "application/problem+json"
						    : "application/json");
	if (v && v->credit) {
		(void)snprintf(text, sizeof(text), "%u", v->credit);
		MHD_add_response_header(r, "Rollfs-Credit", text);
	}
	if (v && v->retry_ms) {
		(void)snprintf(text, sizeof(text), "%u", v->retry_ms);
		MHD_add_response_header(r, "Rollfs-Retry-Ms", text);
	}
	x = MHD_queue_response(m, code, r);
	MHD_destroy_response(r);
	return x;
}

static const char *header(struct MHD_Connection *m, const char *name)
{
	return MHD_lookup_connection_value(m, MHD_HEADER_KIND, name);
}

static enum MHD_Result on_argument(void *arg, enum MHD_ValueKind kind,
				   const char *key, const char *value)
{
	struct strbuf *sb = arg;

	(void)kind;
	sb_addf(sb, "%s%s%s%s", sb->len ? "&" : "", key, value ? "=" : "",
		value ? value : "");
	return MHD_YES;
}

static int64_t number(const char *text)
{
	return text && *text && strlen(text) < 19 &&
		       strspn(text, "0123456789") == strlen(text)
		   ? strtoll(text, NULL, 10)
		   : -1;
}

static enum MHD_Result start(struct site *s, struct MHD_Connection *m,
			     const char *url, const char *method, void **ctx)
{
	static const char refusal[] =
	    "{\"code\":\"not_allowed\",\"detail\":\"not allowed\"}";
	static const char enough[] = "{\"code\":\"try_later\",\"detail\":"
				     "\"too many connections\"}";
	static const char lengths[] = "{\"code\":\"bad_request\",\"detail\":"
				      "\"two ways to tell the length\"}";
	static const struct serve wait = { .retry_ms = 1000 };
	struct connection *c = connection_of(s, m);
	const union MHD_ConnectionInfo *fd =
	    MHD_get_connection_info(m, MHD_CONNECTION_INFO_CONNECTION_FD);
	const char *src = header(m, "Rollfs-Src"),
		   *dst = header(m, "Rollfs-Dst");
	struct strbuf query = STRBUF_INIT(4096);
	struct serve *v;

	if (!c || (src && strcmp(src, c->party)) ||
	    (dst && strcmp(dst, s->conf->party))) {
		if (c && audit_may(c->party))
			log_warn("audit", "party %s: a header says otherwise",
				 c->party);
		return respond(m, 403, refusal, strlen(refusal), NULL);
	}
	if (header(m, "Content-Length") && header(m, "Transfer-Encoding"))
		return respond(m, 400, lengths, strlen(lengths), NULL);
	if (!admit(c, m))
		return respond(m, 503, enough, strlen(enough), &wait);
	v = xcalloc(1, sizeof(*v));
	v->s = s;
	memcpy(v->party, c->party, sizeof(v->party));
	v->cert = c->cert;
	v->method = method;
	v->digest = header(m, "Content-Digest");
	v->via = header(m, "Rollfs-Via");
	v->timeout_ms = (unsigned)MAX(
	    MIN(number(header(m, "Rollfs-Timeout-Ms")), 60000), 0);
	v->length = number(header(m, "Content-Length"));
	v->conn = fd ? fd->connect_fd : -1;
	MHD_get_connection_values(m, MHD_GET_ARGUMENT_KIND, on_argument,
				  &query);
	v->target = xasprintf("%s%s%s", url, query.len ? "?" : "", query.buf);
	sb_free(&query);
	serve_begin(v);
	*ctx = v;
	/* A long body that is of no use is not waited for. */
	if (v->code >= 400 && v->length > (int64_t)CHUNK_DEFAULT)
		return respond(m, v->code, v->out.buf, v->out.len, v);
	return MHD_YES;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *m,
				  const char *url, const char *method,
				  const char *version, const char *data,
				  size_t *n, void **ctx)
{
	struct serve *v = *ctx;

	(void)version;
	if (!v)
		return start(arg, m, url, method, ctx);
	if (*n) {
		serve_data(v, data, *n);
		*n = 0;
		return MHD_YES;
	}
	serve_end(v);
	return respond(m, v->code ? v->code : 500, v->out.buf, v->out.len, v);
}

static void on_end(void *arg, struct MHD_Connection *m, void **ctx,
		   enum MHD_RequestTerminationCode why)
{
	struct serve *v = *ctx;

	(void)arg;
	(void)m;
	(void)why;
	if (!v)
		return;
	serve_free(v);
	free(v);
	*ctx = NULL;
}

int http_start(struct site *s, struct err *e)
{
	struct strbuf cert, key, ca;
	int r, fd = -1;

	if (!s->conf->listen_host)
		return 0;
	/* Not by the library, which would share the port with another rollsite
	 * of the same user (SO_REUSEPORT). */
	r = listen_bind(s->conf, &fd, e);
	if (!r && listen(fd, SOMAXCONN))
		r = err_sys(e, errno, "port %u", s->conf->listen_port);
	if (r)
		return err_wrap(e, "cannot listen");
	the_site = s;
	sb_init(&cert, 1u << 20);
	sb_init(&key, 1u << 20);
	sb_init(&ca, 1u << 20);
	r = identity_pem(s->identity, &cert, &key, &ca, e);
	if (key.len)
		explicit_bzero(key.buf, key.len);
	sb_free(&key);
	sb_free(&cert);
	if (r)
		return r;
	/* MEM_TRUST makes the server ask for certificates; they are judged by
	 * identity_verify alone. */
	daemon_ = MHD_start_daemon(
	    MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
		MHD_USE_TLS | MHD_USE_POLL,
	    0, NULL, NULL, on_request, s, MHD_OPTION_LISTEN_SOCKET, fd,
	    MHD_OPTION_HTTPS_CERT_CALLBACK, on_certificate,
	    MHD_OPTION_HTTPS_MEM_TRUST, ca.buf, MHD_OPTION_HTTPS_PRIORITIES,
	    "NORMAL:-VERS-ALL:+VERS-TLS1.3", MHD_OPTION_CONNECTION_LIMIT,
	    CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, KNOWN_SECONDS,
	    MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)(256u << 10),
	    MHD_OPTION_THREAD_STACK_SIZE, (size_t)(512u << 10),
	    MHD_OPTION_NOTIFY_CONNECTION, on_connection, NULL,
	    MHD_OPTION_NOTIFY_COMPLETED, on_end, NULL, MHD_OPTION_END);
	sb_free(&ca);
	return daemon_ ? 0
		       : err_set(e, EINVAL,
				 "cannot listen: the certificate and key do "
				 "not fit");
}
