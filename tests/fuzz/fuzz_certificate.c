// SPDX-License-Identifier: Apache-2.0
/*
 * Certificates of strangers.  The first byte says what the rest is: 'p' PEM
 * text, 'd' one certificate in DER, 'n' the content of the names
 * (subjectAltName) of a certificate that our authority did sign, 'u' a URI
 * in it, 'b' base64.  Only the last three get far without a signature.
 */
#include <sys/stat.h>

#include "lib/fileio.h"

#include "transfer/secure.h"

#include "tests/unit/certificates.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct cert authority, own;
static struct identity *id;

static void put(const char *path, char *text)
{
	must(!file_replace(path, text, strlen(text), 0600, false, NULL));
	free(text);
}

static void start(void)
{
	static struct conf conf;
	char dir[] = "/tmp/rollfs-fuzz-certificate-XXXXXX";

	must(mkdtemp(dir) != NULL);
	conf.certificate = xasprintf("%s/cert", dir);
	conf.key = xasprintf("%s/key", dir);
	conf.ca = xasprintf("%s/ca", dir);
	conf.party = xstrdup("1");
	conf.federation = xstrdup("demo");
	authority = cert_make(&(struct plan){ .ca = true });
	own =
	    cert_make(&(struct plan){ .uri = { URI("1") }, .by = &authority });
	put(conf.certificate, cert_pem(&own));
	put(conf.key, cert_key_pem(&own, NULL));
	put(conf.ca, cert_pem(&authority));
	must(!identity_open(&conf, &id, NULL));
	(void)remove_tree(dir, NULL);
}

/* Whatever was taken is a party's id and nothing else. */
static void check(int r, const char party[16], const struct err *e)
{
	if (r ? *party || !*e->text : !party_id_valid(party))
		abort();
}

static void as_pem(const uint8_t *data, size_t n)
{
	_cleanup_free_ char *text = xcalloc(1, n + 1);
	struct err e = { 0 };
	char party[16];

	memcpy(text, data, n);
	check(identity_verify_pem(id, text, party, NULL, NULL, &e), party, &e);
}

static int as_der(const uint8_t *data, size_t n, char party[16])
{
	struct der der = { data, n };
	struct err e = { 0 };
	int64_t expires;
	int r = identity_verify(id, &der, 1, party, NULL, &expires, &e);

	check(r, party, &e);
	return r;
}

static int as_cert(X509 *x, char party[16])
{
	uint8_t *der = NULL;
	int n, r;

	must(X509_sign(x, authority.key, EVP_sha256()) > 0);
	n = i2d_X509(x, &der);
	must(n > 0);
	r = as_der(der, (size_t)n, party);
	OPENSSL_free(der);
	return r;
}

static void as_names(const uint8_t *data, size_t n)
{
	ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
	X509_EXTENSION *ext;
	X509 *x = X509_dup(own.x);
	char party[16];

	X509_EXTENSION_free(X509_delete_ext(
	    x, X509_get_ext_by_NID(x, NID_subject_alt_name, -1)));
	must(ASN1_OCTET_STRING_set(value, data, (int)n));
	ext =
	    X509_EXTENSION_create_by_NID(NULL, NID_subject_alt_name, 0, value);
	must(X509_add_ext(x, ext, -1));
	(void)as_cert(x, party);
	X509_EXTENSION_free(ext);
	ASN1_OCTET_STRING_free(value);
	X509_free(x);
}

/* Exactly our prefix and a party id, or refused. */
static void as_uri(const uint8_t *data, size_t n)
{
	static const char prefix[] = URI("");
	_cleanup_free_ char *uri = xcalloc(1, n + 1);
	X509 *x = X509_dup(own.x);
	const char *list[] = { uri };
	char party[16];
	bool good;

	memcpy(uri, data, n);
	good = strlen(uri) == n && !strncmp(uri, prefix, strlen(prefix)) &&
	       party_id_valid(uri + strlen(prefix));
	X509_EXTENSION_free(X509_delete_ext(
	    x, X509_get_ext_by_NID(x, NID_subject_alt_name, -1)));
	names(x, list, 1, n);
	if ((as_cert(x, party) == 0) != good ||
	    (good && strcmp(party, uri + strlen(prefix)) != 0))
		abort();
	X509_free(x);
}

/* What decodes, encodes to the same text. */
static void as_base64(const uint8_t *data, size_t n)
{
	_cleanup_free_ char *text = xcalloc(1, n + 1);
	_cleanup_free_ uint8_t *out = xmalloc(n + 1);
	_cleanup_free_ char *again = NULL;
	ssize_t got;

	memcpy(text, data, n);
	got = base64_decode(text, out, n);
	if (got < 0)
		return;
	again = base64_encode(out, (size_t)got);
	if (!again || strcmp(again, text) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	char party[16];

	if (!id)
		start();
	if (!n || n > 100000)
		return 0;
	switch (data[0]) {
	case 'p':
		as_pem(data + 1, n - 1);
		break;
	case 'd':
		(void)as_der(data + 1, n - 1, party);
		break;
	case 'n':
		as_names(data + 1, n - 1);
		break;
	case 'u':
		as_uri(data + 1, n - 1);
		break;
	case 'b':
		as_base64(data + 1, n - 1);
		break;
	default:
		break;
	}
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
