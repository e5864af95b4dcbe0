// SPDX-License-Identifier: Apache-2.0
/*
 * The HTTPS server: a thread per connection (partners keep few connections,
 * and a call may wait for its answer).  libmicrohttpd only asks for a client
 * certificate, so the first thing done with any request is to verify the
 * chain and to read the party id from the certificate.
 */
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <microhttpd.h>
#include <netdb.h>
#include <openssl/evp.h>

#include "lib/json.h"
#include "lib/log.h"
#include "lib/version.h"

#include "transfer/transfer_priv.h"

#define RPC_MAX	    (1u << 20)
#define MEMORY_MAX  (1u << 20) /* larger messages go straight to disk */
#define CONNECTIONS 200

static struct MHD_Daemon *daemon_;

#ifdef ROLLFS_TEST_HOOKS
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
#endif

enum kind { HELLO, RPC, MESSAGE, FILE_PUT };

struct request {
	enum kind kind;
	const char *party;
	const char *tail; /* verb or tid; points into the URL */
	struct strbuf body;
	bool refused; /* with code and the text in body; the rest is ignored */
	unsigned code;
	/* MESSAGE */
	bool have_head;
	struct message_head head;
	uint64_t got; /* of the payload */
	int fd;
	char *tmp;
	EVP_MD_CTX *md;
	/* FILE_PUT */
	char *path;
	const char *sha256;
	uint64_t generation, size;
};

static enum MHD_Result respond(struct MHD_Connection *c, unsigned code,
			       const void *data, size_t n)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(
	    n, (void *)data, MHD_RESPMEM_MUST_COPY);
	enum MHD_Result x;

	if (!r)
		return MHD_NO;
	x = MHD_queue_response(c, code, r);
	MHD_destroy_response(r);
	return x;
}

static enum MHD_Result respond_text(struct MHD_Connection *c, unsigned code,
				    const char *text)
{
	return respond(c, code, text, strlen(text));
}

/* What a partner is told: sentences about its request, never our paths. */
static const char *public_text(int r, const struct err *e)
{
	switch (-r) {
	case EINVAL:
	case EACCES:
	case EEXIST:
	case EBADMSG:
		return e->text;
	default:
		log_warn("rollsite", "%s", e->text);
		return r == -ENOSPC ? "no space" : "failed here";
	}
}

/* ---- who is there ------------------------------------------------------ */

/* "rollfs://<federation>/party/<id>" -> id, or NULL. Caller frees. */
static char *party_of_uri(const char *uri, size_t n, const char *federation)
{
	_cleanup_free_ char *text = strndup(uri, n);
	_cleanup_free_ char *want = xasprintf("rollfs://%s/party/", federation);

	if (!text || strlen(text) != n || strncmp(text, want, strlen(want)) ||
	    !party_id_valid(text + strlen(want)))
		return NULL;
	return xstrdup(text + strlen(want));
}

static char *party_of_session(const struct conf *conf, gnutls_session_t tls)
{
	const gnutls_datum_t *list;
	gnutls_x509_crt_t cert;
	unsigned status = 1, n = 0;
	char *party = NULL, *uri;

	if (gnutls_certificate_verify_peers2(tls, &status) || status)
		return NULL;
	list = gnutls_certificate_get_peers(tls, &n);
	if (!list || !n || gnutls_x509_crt_init(&cert))
		return NULL;
	uri = xmalloc(1024);
	if (!gnutls_x509_crt_import(cert, &list[0], GNUTLS_X509_FMT_DER)) {
		for (unsigned i = 0; !party; i++) {
			size_t size = 1024;
			int type = gnutls_x509_crt_get_subject_alt_name(
			    cert, i, uri, &size, NULL);

			if (type < 0)
				break;
			if (type == GNUTLS_SAN_URI)
				party =
				    party_of_uri(uri, size, conf->federation);
		}
	}
	free(uri);
	gnutls_x509_crt_deinit(cert);
	return party;
}

/* Who is at the other end; "" = nobody we know.  The caller frees. */
static char *verified_party(struct site *s, gnutls_session_t tls)
{
	char *party = party_of_session(s->conf, tls);

	if (party) {
		_cleanup_free_ char *known = party_address(s->conf, party);

		if (!known && strcmp(party, s->conf->party)) {
			log_warn("audit", "party %s is not configured here",
				 party);
			free(party);
			party = NULL;
		}
	} else {
		log_warn("audit", "a connection without a certificate of this "
				  "federation");
	}
	return party ? party : xstrdup("");
}

/* Verified once per connection, kept beside it. "" = refused. */
static const char *connection_party(struct site *s, struct MHD_Connection *c)
{
	const union MHD_ConnectionInfo *ctx =
	    MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	const union MHD_ConnectionInfo *tls =
	    MHD_get_connection_info(c, MHD_CONNECTION_INFO_GNUTLS_SESSION);
	char **slot = ctx ? ctx->socket_context : NULL;

	if (!slot || !tls)
		return "";
	if (!*slot)
		*slot = verified_party(s, tls->tls_session);
	return *slot;
}

static void on_connection(void *arg, struct MHD_Connection *c, void **ctx,
			  enum MHD_ConnectionNotificationCode code)
{
	(void)arg;
	(void)c;
	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		*ctx = xcalloc(1, sizeof(char *));
	} else if (*ctx) {
		free(*(char **)*ctx);
		free(*ctx);
		*ctx = NULL;
	}
}

/* ---- messages ---------------------------------------------------------- */

static int write_head(int fd, const struct message_head *h)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(HEAD_MAX + 4);
	int r = head_write(&sb, h);

	return r ? r : write_all(fd, sb.buf, sb.len);
}

static int message_start(struct site *s, struct request *q, struct err *e)
{
	_cleanup_free_ char *text = NULL;
	size_t used = 0, left;
	int r = head_parse(q->body.buf, q->body.len, &q->head, &used, e);

	if (r)
		return r;
	if (strcmp(q->head.tid, q->tail))
		return err_set(e, EINVAL, "the head does not match the path");
	r = site_admit(s, &q->head, q->party, e);
	if (r)
		return r;
	q->have_head = true;
	left = q->body.len - used;
	q->got = left;
	if (q->got > q->head.size)
		return err_set(e, EINVAL, "longer than its head says");
	text = key_text(&q->head.key);
	q->md = EVP_MD_CTX_new();
	if (!q->md || !EVP_DigestInit_ex(q->md, EVP_sha256(), NULL) ||
	    !EVP_DigestUpdate(q->md, text, strlen(text)) ||
	    !EVP_DigestUpdate(q->md, "\n", 1) ||
	    !EVP_DigestUpdate(q->md, q->body.buf + used, left))
		return err_sys(e, ENOMEM, "digest");
	if (q->head.size > MEMORY_MAX) {
		q->tmp = xasprintf("%s/transfer/tmp/%s.%p", s->conf->state,
				   q->head.tid, (void *)q);
		q->fd =
		    open(q->tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		if (q->fd < 0)
			return err_sys(e, errno, "%s", q->tmp);
		/* Stored under our own spelling of the head. */
		r = write_head(q->fd, &q->head);
		if (!r)
			r = write_all(q->fd, q->body.buf + used, left);
		sb_reset(&q->body);
		return r ? err_sys(e, -r, "message") : 0;
	}
	memmove(q->body.buf, q->body.buf + used, left);
	q->body.len = left;
	return 0;
}

static int message_data(struct site *s, struct request *q, const char *data,
			size_t n, struct err *e)
{
	int r;

	if (!q->have_head) {
		if (sb_add(&q->body, data, n))
			return err_set(e, EINVAL, "too large");
		r = message_start(s, q, e);
		return r == -EAGAIN ? 0 : r;
	}
	if (n > q->head.size - q->got)
		return err_set(e, EINVAL, "longer than its head says");
	q->got += n;
	if (!EVP_DigestUpdate(q->md, data, n))
		return err_sys(e, ENOMEM, "digest");
	r = q->fd >= 0 ? write_all(q->fd, data, n) : sb_add(&q->body, data, n);
	return r ? err_sys(e, -r, "message") : 0;
}

static int message_end(struct site *s, struct request *q, struct err *e)
{
	uint8_t out[32];
	char sha[65];

	if (!q->have_head || q->got != q->head.size)
		return err_set(e, EINVAL, "cut short");
	if (!EVP_DigestFinal_ex(q->md, out, NULL))
		return err_sys(e, ENOMEM, "digest");
	hex_encode(out, sizeof(out), sha);
	if (strcmp(sha, q->head.sha256))
		return err_set(e, EBADMSG, "the digest does not match");
#ifdef ROLLFS_TEST_HOOKS
	if (q->fd < 0) {
		hook_flip(&q->head, q->body.buf, q->body.len);
	} else {
		char last;
		off_t end = lseek(q->fd, 0, SEEK_END);

		if (!pread_all(q->fd, &last, 1, (uint64_t)end - 1)) {
			hook_flip(&q->head, &last, 1);
			(void)!pwrite(q->fd, &last, 1, end - 1);
		}
	}
#endif
	return site_deliver(s, &q->head, q->party,
			    q->fd < 0 ? q->body.buf : NULL, -1, q->tmp, e);
}

/* ---- files -------------------------------------------------------------- */

static const char *header(struct MHD_Connection *c, const char *name)
{
	return MHD_lookup_connection_value(c, MHD_HEADER_KIND, name);
}

static int file_start(struct site *s, struct MHD_Connection *c,
		      struct request *q, struct err *e)
{
	const char *path = header(c, "Rollfs-Path");
	const char *sha = header(c, "Rollfs-Sha256");
	const char *gen = header(c, "Rollfs-Generation");
	const char *len = header(c, "Content-Length");
	int r;

	if (!path || !sha || !gen || !len || !hex64_valid(sha) ||
	    strlen(gen) > 19 || strspn(gen, "0123456789") != strlen(gen) ||
	    strlen(len) > 19)
		return err_set(e, EINVAL, "headers are missing");
	q->path = percent_decode(path);
	if (!q->path) {
		log_warn("audit", "party %s: a file path was refused",
			 q->party);
		return err_set(e, EACCES, "not allowed");
	}
	q->sha256 = sha;
	q->generation = strtoull(gen, NULL, 10);
	q->size = strtoull(len, NULL, 10);
	r = file_accept(s, q->party, q->path, q->generation, sha, e);
	if (r)
		return r; /* 1: it is here already */
	q->tmp = file_temp(s, q->party);
	if (!q->tmp)
		return err_set(e, EIO, "no temporary file");
	q->fd = open(q->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (q->fd < 0)
		return err_sys(e, errno, "temporary file");
	q->md = EVP_MD_CTX_new();
	if (!q->md || !EVP_DigestInit_ex(q->md, EVP_sha256(), NULL))
		return err_sys(e, ENOMEM, "digest");
	return 0;
}

static int file_data(struct request *q, const char *data, size_t n,
		     struct err *e)
{
	int r;

	q->got += n;
	if (q->got > q->size)
		return err_set(e, EINVAL, "longer than it said");
	r = write_all(q->fd, data, n);
	if (!r && !EVP_DigestUpdate(q->md, data, n))
		r = -ENOMEM;
	return r ? err_sys(e, -r, "file") : 0;
}

static int file_end(struct site *s, struct request *q, struct err *e)
{
	uint8_t out[32];
	char sha[65];

	if (q->got != q->size)
		return err_set(e, EINVAL, "cut short");
	if (!EVP_DigestFinal_ex(q->md, out, NULL))
		return err_sys(e, ENOMEM, "digest");
	hex_encode(out, sizeof(out), sha);
	if (strcmp(sha, q->sha256))
		return err_set(e, EBADMSG, "the digest does not match");
	if (fsync(q->fd))
		return err_sys(e, errno, "file");
	return file_publish(s, q->party, q->path, q->generation, sha, q->tmp,
			    e);
}

/* ---- requests ----------------------------------------------------------- */

static enum MHD_Result hello(struct site *s, struct MHD_Connection *c)
{
	json_t *o =
	    json_pack("{s:s, s:s, s:i}", "party", s->conf->party, "version",
		      rollfs_version(), "protocol", PROTOCOL_VERSION);
	_cleanup_free_ char *text = json_text(o, true);

	json_decref(o);
	return respond_text(c, 200, text);
}

static enum MHD_Result rpc(struct site *s, struct MHD_Connection *c,
			   struct request *q)
{
	const char *limit = header(c, "Rollfs-Timeout-Ms");
	unsigned ms = limit ? (unsigned)strtoul(limit, NULL, 10) : 5000;
	struct strbuf answer = STRBUF_INIT(FRAME_BODY_MAX);
	enum MHD_Result x;
	int status;

	hook_wire(q->tail, q->body.buf, q->body.len);
	status = call_run(s, q->party, q->tail, q->body.buf, q->body.len,
			  MIN(MAX(ms, 1u), 60000u), &answer);
	hook_wire("answer", answer.buf, answer.len);
	x = respond(c, status_to_http(status), answer.buf, answer.len);
	sb_free(&answer);
	return x;
}

static bool verb_valid(const char *v)
{
	size_t n = strspn(v, "abcdefghijklmnopqrstuvwxyz-");

	return n >= 1 && n <= 40 && !v[n];
}

static bool route(struct request *q, const char *url, const char *method)
{
	if (!strcmp(method, "GET") && !strcmp(url, "/v1/hello")) {
		q->kind = HELLO;
	} else if (!strcmp(method, "POST") && !strncmp(url, "/v1/rpc/", 8) &&
		   verb_valid(url + 8)) {
		q->kind = RPC;
		q->tail = url + 8;
		sb_init(&q->body, RPC_MAX);
	} else if (!strcmp(method, "PUT") &&
		   !strncmp(url, "/v1/messages/", 13) &&
		   hex64_valid(url + 13)) {
		q->kind = MESSAGE;
		q->tail = url + 13;
		sb_init(&q->body, MEMORY_MAX + HEAD_MAX + (64u << 10));
	} else if (!strcmp(method, "PUT") && !strcmp(url, "/v1/files")) {
		q->kind = FILE_PUT;
	} else {
		return false;
	}
	return true;
}

static int feed(struct site *s, struct request *q, const char *data, size_t n,
		struct err *e)
{
	switch (q->kind) {
	case RPC:
		return sb_add(&q->body, data, n)
			   ? err_set(e, EINVAL, "too large")
			   : 0;
	case MESSAGE:
		return message_data(s, q, data, n, e);
	case FILE_PUT:
		return file_data(q, data, n, e);
	case HELLO:
		break;
	}
	return err_set(e, EINVAL, "no body is expected");
}

static enum MHD_Result finish(struct site *s, struct MHD_Connection *c,
			      struct request *q)
{
	struct err e = { 0 };
	int r = 0;

	if (q->kind == HELLO)
		return hello(s, c);
	if (q->kind == RPC)
		return rpc(s, c, q);
	r = q->kind == MESSAGE ? message_end(s, q, &e) : file_end(s, q, &e);
	if (q->kind == MESSAGE && r >= 0)
		hook_wire(q->tail, q->body.buf, q->body.len);
	return respond_text(c,
			    r > 0   ? 200
			    : r < 0 ? status_to_http(r)
				    : 201,
			    r < 0 ? public_text(r, &e) : "");
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *c,
				  const char *url, const char *method,
				  const char *version, const char *data,
				  size_t *n, void **ctx)
{
	struct site *s = arg;
	struct request *q = *ctx;
	struct err e = { 0 };
	int r;

	(void)version;
	if (!q) {
		const char *party = connection_party(s, c);

		if (!*party)
			return respond_text(c, 403, "not allowed");
		q = xcalloc(1, sizeof(*q));
		q->fd = -1;
		q->party = party;
		sb_init(&q->body, 0);
		if (!route(q, url, method)) {
			free(q);
			return respond_text(c, 404, "no such request");
		}
		*ctx = q;
		if (q->kind == FILE_PUT) {
			r = file_start(s, c, q, &e);
			if (r)
				return respond_text(
				    c, r > 0 ? 200 : status_to_http(r),
				    r > 0 ? "" : public_text(r, &e));
		}
		return MHD_YES;
	}
	if (*n) {
		if (!q->refused) {
			r = feed(s, q, data, *n, &e);
			if (r) {
				q->refused = true;
				sb_free(&q->body);
				sb_init(&q->body, 4096);
				q->code = status_to_http(r);
				(void)sb_adds(&q->body, public_text(r, &e));
			}
		}
		*n = 0;
		return MHD_YES;
	}
	if (q->refused)
		return respond_text(c, q->code, q->body.buf);
	return finish(s, c, q);
}

static void on_end(void *arg, struct MHD_Connection *c, void **ctx,
		   enum MHD_RequestTerminationCode why)
{
	struct request *q = *ctx;

	(void)arg;
	(void)c;
	(void)why;
	if (!q)
		return;
	if (q->fd >= 0)
		close(q->fd);
	if (q->tmp)
		(void)unlink(q->tmp); /* gone already when it was taken over */
	EVP_MD_CTX_free(q->md);
	sb_free(&q->body);
	free(q->tmp);
	free(q->path);
	free(q);
	*ctx = NULL;
}

static int load(const char *path, struct strbuf *sb, struct err *e)
{
	sb_init(sb, 1u << 20);
	return file_read(path, sb, e);
}

int http_start(struct site *s, struct err *e)
{
	struct strbuf cert, key, ca;
	struct addrinfo hints = { .ai_family = AF_UNSPEC,
				  .ai_socktype = SOCK_STREAM,
				  .ai_flags = AI_PASSIVE };
	struct addrinfo *ai = NULL;
	char port[8];
	int r, g;

	r = load(s->conf->certificate, &cert, e);
	if (!r)
		r = load(s->conf->key, &key, e);
	if (!r)
		r = load(s->conf->ca, &ca, e);
	if (r)
		return r;
	(void)snprintf(port, sizeof(port), "%u", s->conf->listen_port);
	g = getaddrinfo(s->conf->listen_host, port, &hints, &ai);
	if (g)
		return err_set(e, EADDRNOTAVAIL, "listen: %s: %s",
			       s->conf->listen_host, gai_strerror(g));
	daemon_ = MHD_start_daemon(
	    MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
		MHD_USE_TLS | MHD_USE_POLL |
		(ai->ai_family == AF_INET6 ? MHD_USE_IPv6 : 0u),
	    s->conf->listen_port, NULL, NULL, on_request, s,
	    MHD_OPTION_SOCK_ADDR, ai->ai_addr, MHD_OPTION_HTTPS_MEM_KEY,
	    key.buf, MHD_OPTION_HTTPS_MEM_CERT, cert.buf,
	    MHD_OPTION_HTTPS_MEM_TRUST, ca.buf, MHD_OPTION_HTTPS_PRIORITIES,
	    "NORMAL:-VERS-ALL:+VERS-TLS1.3", MHD_OPTION_CONNECTION_LIMIT,
	    CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, 120u,
	    MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)(256u << 10),
	    MHD_OPTION_THREAD_STACK_SIZE, (size_t)(256u << 10),
	    MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u,
	    MHD_OPTION_NOTIFY_CONNECTION, on_connection, NULL,
	    MHD_OPTION_NOTIFY_COMPLETED, on_end, NULL, MHD_OPTION_END);
	freeaddrinfo(ai);
	explicit_bzero(key.buf, key.len);
	sb_free(&key);
	sb_free(&cert);
	sb_free(&ca);
	return daemon_ ? 0
		       : err_set(e, EADDRINUSE,
				 "cannot listen on %s:%u (in use, or the "
				 "certificate and key do not fit)",
				 s->conf->listen_host, s->conf->listen_port);
}

void http_stop(void)
{
	if (daemon_)
		MHD_stop_daemon(daemon_);
}
