/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A factory of certificates for tests: good ones, and ones with one thing that
 * is wrong.  For one source file of a test program; aborts when it cannot.
 */
#ifndef TESTS_UNIT_CERTIFICATES_H
#define TESTS_UNIT_CERTIFICATES_H

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include "lib/base.h"

static inline void must(bool ok)
{
	if (!ok)
		abort();
}

#define DAY	86400L
#define URI(id) "rollfs://demo/party/" id

struct cert {
	X509 *x;
	EVP_PKEY *key;
};

/* What differs from a good certificate of a party; zero = as it should be. */
struct plan {
	const char *uri[3]; /* none: no names */
	size_t uri_n;	    /* length of the first one, 0 = strlen */
	const char *usage, *extended;
	long from, until;      /* seconds from now; 0 = -DAY, 30 * DAY */
	const struct cert *by; /* NULL: by itself */
	const char *key;       /* EC, RSA, RSA1024, ED25519 */
	const EVP_MD *digest;
	bool ca, two_lists;
};

static EVP_PKEY *key_new(const char *kind)
{
	EVP_PKEY *key;

	if (!kind || !strcmp(kind, "EC"))
		key = EVP_EC_gen("P-256");
	else if (!strncmp(kind, "RSA", 3))
		key = EVP_RSA_gen(kind[3] ? 1024 : 2048);
	else
		key = EVP_PKEY_Q_keygen(NULL, NULL, kind);
	must(key != NULL);
	return key;
}

static void extension(X509 *x, int nid, const char *value)
{
	X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, NULL, nid, value);

	must(ext != NULL);
	must(X509_add_ext(x, ext, -1) == 1);
	X509_EXTENSION_free(ext);
}

static void names(X509 *x, const char *const *uri, size_t n, size_t first_n)
{
	GENERAL_NAMES *list = sk_GENERAL_NAME_new_null();

	for (size_t i = 0; i < n; i++) {
		GENERAL_NAME *g = GENERAL_NAME_new();
		ASN1_IA5STRING *s = ASN1_IA5STRING_new();
		size_t len = first_n && !i ? first_n : strlen(uri[i]);

		must(ASN1_STRING_set(s, uri[i], (int)len));
		GENERAL_NAME_set0_value(g, GEN_URI, s);
		sk_GENERAL_NAME_push(list, g);
	}
	must(X509_add1_ext_i2d(x, NID_subject_alt_name, list, 0,
			       X509V3_ADD_APPEND) == 1);
	GENERAL_NAMES_free(list);
}

static struct cert cert_make(const struct plan *p)
{
	static long serial;
	struct cert c = { X509_new(), key_new(p->key) };
	const struct cert *by = p->by ? p->by : &c;
	X509_NAME *name = X509_get_subject_name(c.x);
	char cn[32];
	size_t n = 0;

	(void)snprintf(cn, sizeof(cn), "test %ld", ++serial);
	X509_set_version(c.x, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(c.x), serial);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
				   (const uint8_t *)cn, -1, -1, 0);
	X509_set_issuer_name(c.x, X509_get_subject_name(by->x));
	X509_gmtime_adj(X509_getm_notBefore(c.x), p->from ? p->from : -DAY);
	X509_gmtime_adj(X509_getm_notAfter(c.x),
			p->until ? p->until : 30 * DAY);
	X509_set_pubkey(c.x, c.key);
	extension(c.x, NID_basic_constraints,
		  p->ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
	extension(c.x, NID_key_usage,
		  p->usage ? p->usage
		  : p->ca  ? "critical,keyCertSign,cRLSign"
			   : "critical,digitalSignature");
	if (!p->ca || p->extended)
		extension(c.x, NID_ext_key_usage,
			  p->extended ? p->extended : "serverAuth,clientAuth");
	while (n < ARRAY_SIZE(p->uri) && p->uri[n])
		n++;
	if (n)
		names(c.x, p->uri, n, p->uri_n);
	if (p->two_lists)
		names(c.x, p->uri, n, p->uri_n);
	must(X509_sign(c.x, by->key,
		       EVP_PKEY_is_a(by->key, "ED25519") ? NULL
		       : p->digest			 ? p->digest
							 : EVP_sha256()));
	return c;
}

static inline void cert_free(struct cert *c)
{
	X509_free(c->x);
	EVP_PKEY_free(c->key);
}

static char *cert_pem(const struct cert *c)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text, *copy;
	long n;

	must(PEM_write_bio_X509(bio, c->x));
	n = BIO_get_mem_data(bio, &text);
	copy = strndup(text, (size_t)n);
	BIO_free(bio);
	return copy;
}

/* The key's PEM text, under a passphrase if there is one; caller frees. */
static char *cert_key_pem(const struct cert *c, const char *passphrase)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text, *copy;
	long n;

	must(PEM_write_bio_PrivateKey(
	    bio, c->key, passphrase ? EVP_aes_256_cbc() : NULL, NULL, 0, NULL,
	    (void *)(uintptr_t)passphrase));
	n = BIO_get_mem_data(bio, &text);
	copy = strndup(text, (size_t)n);
	BIO_free(bio);
	return copy;
}

#endif
