/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection to a party, made step by step so that a failure has a place:
 * its name, its port, TLS, its certificate, its answer.  For the doctor; what
 * is transferred goes through site_client.c.
 *
 *   probe_keys_load -> probe_connect -> cert_judge(p.cert) -> probe_get
 *   -> probe_close
 *
 * Each step takes 5 s at most, but for the system's resolver.
 */
#ifndef TRANSFER_PROBE_H
#define TRANSFER_PROBE_H

#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "lib/conf.h"
#include "lib/err.h"
#include "lib/strbuf.h"

/* Our side of TLS; the configuration's three files, read once. */
struct probe_keys {
	SSL_CTX *ctx;
	X509_STORE *ca;
	X509 *cert; /* our leaf, and what stands behind it in its file */
	STACK_OF(X509) * chain;
	bool fit; /* key belongs to certificate: TLS can be tried */
};
/* 0, or which file cannot be used and why; what could be read stays. */
int probe_keys_load(const struct conf *c, struct probe_keys *ret,
		    struct err *e) MUST_CHECK;
void probe_keys_free(struct probe_keys *k);

/* What a certificate says; err tells why it is not to be believed. */
struct judged {
	char party[16];	    /* "" = none, or of another federation */
	int64_t expires_ms; /* Unix ms */
	int64_t begins_ms;
	int x509; /* X509_V_OK or why the chain does not hold */
};
int cert_judge(X509_STORE *ca, X509 *cert, STACK_OF(X509) * chain,
	       const char *federation, struct judged *ret,
	       struct err *e) MUST_CHECK;

enum probe_step { PROBE_NAME, PROBE_TCP, PROBE_TLS, PROBE_HTTP };
struct probe {
	enum probe_step step; /* the one that failed, or the last one */
	char address[80];     /* numeric, that answered */
	int no;		      /* errno of PROBE_TCP */
	SSL *ssl;
	int fd;
	X509 *cert;
	int64_t rtt_us;	  /* of the request */
	int64_t asked_ms; /* Unix ms halfway between question and answer */
	unsigned code;
	struct strbuf body;
};
/* "host:port" or "[v6]:port"; ssl is NULL when it failed. */
int probe_connect(const struct probe_keys *k, const char *host_port,
		  struct probe *ret, struct err *e) MUST_CHECK;
/* GET; code and body.  The connection is used up. */
int probe_get(struct probe *p, const char *host_port, const char *target,
	      struct err *e) MUST_CHECK;
/* Leaves the body of a whole answer (status line, headers, body up to the end:
 * "Connection: close", not chunked, as our servers answer). */
int probe_answer(struct strbuf *sb, unsigned *ret_code,
		 struct err *e) MUST_CHECK;
void probe_close(struct probe *p);

#endif
