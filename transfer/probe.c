// SPDX-License-Identifier: Apache-2.0
#include "transfer/probe.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>

#include "lib/log.h"

#define STEP_MS	   5000
#define ANSWER_MAX (64u << 10)

/* ---- certificates ------------------------------------------------------ */

static const char *tls_reason(void)
{
	unsigned long code = ERR_peek_last_error();
	const char *s = code ? ERR_reason_error_string(code) : NULL;

	ERR_clear_error();
	return s ? s : "the connection was closed";
}

static int64_t unix_ms_of(const ASN1_TIME *t)
{
	int days = 0, seconds = 0;

	if (!ASN1_TIME_diff(&days, &seconds, NULL, t))
		return 0;
	return now_unix_ms() + ((int64_t)days * 86400 + seconds) * 1000;
}

/* The first certificate of the file, the others in *ret_more. */
static X509 *read_certs(const char *path, STACK_OF(X509) * *ret_more)
{
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	STACK_OF(X509) *more = sk_X509_new_null();
	X509 *first = f ? PEM_read_X509(f, NULL, NULL, NULL) : NULL, *x;

	while (first && more && (x = PEM_read_X509(f, NULL, NULL, NULL)))
		if (!sk_X509_push(more, x))
			X509_free(x);
	ERR_clear_error();
	*ret_more = more;
	return first;
}

int probe_keys_load(const struct conf *c, struct probe_keys *ret, struct err *e)
{
	struct probe_keys *k = ret;

	*k = (struct probe_keys){ .ctx = SSL_CTX_new(TLS_client_method()),
				  .ca = X509_STORE_new() };
	if (!k->ctx || !k->ca)
		return err_set(e, ENOMEM, "OpenSSL does not start");
	/* Whom we speak to is judged after the handshake: what is wrong with a
	 * certificate can be told only when it has been seen. */
	SSL_CTX_set_verify(k->ctx, SSL_VERIFY_NONE, NULL);
	SSL_CTX_set_min_proto_version(k->ctx, TLS1_3_VERSION);
	SSL_CTX_set_mode(k->ctx, SSL_MODE_AUTO_RETRY);
	if (!X509_STORE_load_file(k->ca, c->ca))
		return err_set(e, EINVAL, "%s: no certificate (%s)", c->ca,
			       tls_reason());
	k->cert = read_certs(c->certificate, &k->chain);
	if (!k->cert ||
	    SSL_CTX_use_certificate_chain_file(k->ctx, c->certificate) != 1)
		return err_set(e, EINVAL, "%s: no certificate (%s)",
			       c->certificate, tls_reason());
	if (SSL_CTX_use_PrivateKey_file(k->ctx, c->key, SSL_FILETYPE_PEM) != 1)
		return err_set(e, EINVAL,
			       "%s: not the key of %s, or no key (%s)", c->key,
			       c->certificate, tls_reason());
	if (SSL_CTX_check_private_key(k->ctx) != 1)
		return err_set(e, EINVAL, "%s is not the key of %s", c->key,
			       c->certificate);
	k->fit = true;
	return 0;
}

void probe_keys_free(struct probe_keys *k)
{
	SSL_CTX_free(k->ctx);
	X509_STORE_free(k->ca);
	X509_free(k->cert);
	sk_X509_pop_free(k->chain, X509_free);
}

/* 0, or how many identities it has when that is not one, or whose. */
static int party_of(X509 *cert, const char *federation, char ret[16],
		    struct err *e)
{
	GENERAL_NAMES *names =
	    X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
	char want[128], found[200] = "";
	unsigned n = 0;
	size_t len;

	len = (size_t)snprintf(want, sizeof(want), "rollfs://%s/party/",
			       federation);
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
		const ASN1_STRING *u;

		if (g->type != GEN_URI)
			continue;
		n++;
		u = g->d.uniformResourceIdentifier;
		(void)snprintf(found, sizeof(found), "%.*s",
			       MIN(ASN1_STRING_length(u), 190),
			       (const char *)ASN1_STRING_get0_data(u));
	}
	GENERAL_NAMES_free(names);
	for (char *p = found; *p; p++)
		if ((unsigned char)*p < ' ' || (unsigned char)*p > '~')
			*p = '?'; /* a partner's text on our terminal */
	if (n != 1)
		return err_set(e, EACCES,
			       "it carries %u URIs, one %sID is expected", n,
			       want);
	if (strncmp(found, want, len) || !party_id_valid(found + len))
		return err_set(e, EACCES, "it is for %s, %sID is expected",
			       found, want);
	(void)snprintf(ret, 16, "%s", found + len);
	return 0;
}

int cert_judge(X509_STORE *ca, X509 *cert, STACK_OF(X509) * chain,
	       const char *federation, struct judged *ret, struct err *e)
{
	X509_STORE_CTX *x = X509_STORE_CTX_new();
	int r;

	*ret =
	    (struct judged){ .expires_ms = unix_ms_of(X509_get0_notAfter(cert)),
			     .begins_ms = unix_ms_of(X509_get0_notBefore(cert)),
			     .x509 = X509_V_ERR_OUT_OF_MEM };
	r = party_of(cert, federation, ret->party, e);
	if (x && X509_STORE_CTX_init(x, ca, cert, chain))
		ret->x509 = X509_verify_cert(x) == 1
				? X509_V_OK
				: X509_STORE_CTX_get_error(x);
	X509_STORE_CTX_free(x);
	ERR_clear_error();
	if (ret->x509 != X509_V_OK)
		return err_set(e, EACCES, "%s",
			       X509_verify_cert_error_string(ret->x509));
	return r;
}

/* ---- the connection ---------------------------------------------------- */

static int connect_one(const struct addrinfo *ai, int *ret)
{
	_cleanup_close_ int fd =
	    socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC, 0);
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	struct timeval tv = { .tv_sec = STEP_MS / 1000 };
	socklen_t n = sizeof(int);
	int no = 0, one = 1, flags;

	if (fd < 0)
		return -errno;
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK))
		return -errno;
	if (connect(fd, ai->ai_addr, ai->ai_addrlen)) {
		if (errno != EINPROGRESS)
			return -errno;
		if (poll(&p, 1, STEP_MS) != 1)
			return -ETIMEDOUT;
		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &no, &n) || no)
			return no ? -no : -errno;
	}
	/* The request must not wait for the acknowledgement of TLS's last. */
	if (fcntl(fd, F_SETFL, flags) ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)))
		return -errno;
	*ret = TAKE_FD(fd);
	return 0;
}

/* Into host (without brackets) and port. */
static bool split(const char *host_port, char *host, size_t n,
		  const char **ret_port)
{
	const char *colon = strrchr(host_port, ':');
	size_t len;

	if (!colon || colon == host_port)
		return false;
	len = (size_t)(colon - host_port);
	if (*host_port == '[') {
		host_port++;
		len -= 2;
	}
	if (len >= n)
		return false;
	memcpy(host, host_port, len);
	host[len] = '\0';
	*ret_port = colon + 1;
	return true;
}

static int tcp(struct probe *p, const char *host_port, struct err *e)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *ai = NULL;
	const char *port = "";
	char host[256] = "";
	int r = -EHOSTUNREACH, g;

	p->step = PROBE_NAME;
	if (!split(host_port, host, sizeof(host), &port))
		return err_set(e, EINVAL, "'%s' is not host:port", host_port);
	g = getaddrinfo(host, port, &hints, &ai);
	if (g)
		return err_set(e, EHOSTUNREACH, "%s: %s", host,
			       gai_strerror(g));
	p->step = PROBE_TCP;
	for (const struct addrinfo *a = ai; a; a = a->ai_next) {
		(void)getnameinfo(a->ai_addr, a->ai_addrlen, p->address,
				  sizeof(p->address), NULL, 0, NI_NUMERICHOST);
		r = connect_one(a, &p->fd);
		if (!r)
			break;
	}
	freeaddrinfo(ai);
	p->no = -r;
	return r ? err_set(e, -r, "%s port %s: %s", p->address, port,
			   strerror(-r))
		 : 0;
}

int probe_connect(const struct probe_keys *k, const char *host_port,
		  struct probe *ret, struct err *e)
{
	struct probe *p = ret;
	int r;

	*p = (struct probe){ .fd = -1 };
	sb_init(&p->body, ANSWER_MAX);
	r = tcp(p, host_port, e);
	if (r)
		return r;
	p->step = PROBE_TLS;
	p->ssl = SSL_new(k->ctx);
	if (!p->ssl || !SSL_set_fd(p->ssl, p->fd))
		return err_set(e, ENOMEM, "OpenSSL: %s", tls_reason());
	errno = 0;
	if (SSL_connect(p->ssl) != 1) {
		bool late = errno == EAGAIN || errno == EWOULDBLOCK;

		r = late ? err_set(e, ETIMEDOUT, "no answer within %d s",
				   STEP_MS / 1000)
			 : err_set(e, EPROTO, "%s", tls_reason());
		SSL_free(p->ssl);
		p->ssl = NULL;
		return r;
	}
	p->cert = SSL_get1_peer_certificate(p->ssl);
	if (!p->cert)
		return err_set(e, EPROTO, "it shows no certificate");
	return 0;
}

int probe_answer(struct strbuf *sb, unsigned *ret_code, struct err *e)
{
	const char *body = strstr(sb->buf, "\r\n\r\n");
	char code[4] = "";
	size_t head;

	if (!body || sscanf(sb->buf, "HTTP/1.%*1[01] %3[0-9]", code) != 1)
		return err_set(e, EPROTO, "its answer is not HTTP");
	body += 4;
	head = (size_t)(body - sb->buf);
	memmove(sb->buf, body, sb->len - head + 1);
	sb->len -= head;
	*ret_code = (unsigned)strtoul(code, NULL, 10);
	return 0;
}

int probe_get(struct probe *p, const char *host_port, const char *target,
	      struct err *e)
{
	struct strbuf q = STRBUF_INIT(8192);
	int64_t began = now_unix_ms(), deadline = now_mono_ms() + STEP_MS;
	char buf[4096];
	struct timespec t0, t1;
	bool first = true;
	int r, n = 0;

	p->step = PROBE_HTTP;
	sb_addf(&q,
		"GET %s HTTP/1.1\r\nHost: %s\r\nAccept: application/json\r\n"
		"Connection: close\r\n\r\n",
		target, host_port);
	(void)clock_gettime(CLOCK_MONOTONIC, &t0);
	t1 = t0;
	errno = 0;
	r = q.error || SSL_write(p->ssl, q.buf, (int)q.len) != (int)q.len;
	sb_free(&q);
	while (!r && now_mono_ms() < deadline) {
		n = SSL_read(p->ssl, buf, sizeof(buf));
		if (n <= 0)
			break;
		if (first)
			(void)clock_gettime(CLOCK_MONOTONIC, &t1);
		first = false;
		if (sb_add(&p->body, buf, (size_t)n))
			return err_set(e, EPROTO, "its answer is too long");
	}
	if (!p->body.len && (errno == EAGAIN || now_mono_ms() >= deadline))
		return err_set(e, ETIMEDOUT, "no answer within %d s",
			       STEP_MS / 1000);
	if (!p->body.len)
		return err_set(e, EPROTO, "%s", tls_reason());
	ERR_clear_error();
	p->rtt_us = (t1.tv_sec - t0.tv_sec) * 1000000 +
		    (t1.tv_nsec - t0.tv_nsec) / 1000;
	p->asked_ms = began + p->rtt_us / 2000;
	return probe_answer(&p->body, &p->code, e);
}

void probe_close(struct probe *p)
{
	SSL_free(p->ssl);
	X509_free(p->cert);
	if (p->fd >= 0)
		close(p->fd);
	sb_free(&p->body);
	p->ssl = NULL;
	p->cert = NULL;
	p->fd = -1;
}
