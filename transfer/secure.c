// SPDX-License-Identifier: Apache-2.0
/*
 * Certificates and signatures.  What is in use is one struct set, replaced as
 * a whole under the lock; whoever works with a part of it holds a reference
 * of OpenSSL's and no lock.
 */
#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>

#include "lib/fileio.h"
#include "lib/log.h"

#include "transfer/secure.h"

#define CHAIN_MAX      8	   /* certificates */
#define PEM_MAX	       (64u << 10) /* bytes of a file or a peer's chain */
#define SIGNATURE_MAX  2048	   /* bytes: RSA of 16384 bits */
#define SECURITY_BITS  112	   /* RSA 2048, P-224; and no SHA-1 */
#define SECURITY_LEVEL 2	   /* of OpenSSL: the same */
/* A file that was changed a moment before it was looked at is looked at again:
 * it may change without another mtime, and the others may be on their way. */
#define RACY_MS 1000

/* ---- certificates ------------------------------------------------------ */

static void chain_free(STACK_OF(X509) * *chain)
{
	sk_X509_pop_free(*chain, X509_free);
}
#define _cleanup_chain_ _cleanup_(chain_free)

/* Never asks the terminal. */
static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
	(void)buf;
	(void)size;
	(void)rwflag;
	(void)arg;
	return -1;
}

/* All certificates of a PEM text, 1 to max; other kinds are passed over. */
static int chain_of_pem(const char *pem, size_t n, int max,
			STACK_OF(X509) * *ret, struct err *e)
{
	_cleanup_chain_ STACK_OF(X509) *chain = sk_X509_new_null();
	BIO *bio = BIO_new_mem_buf(pem, (int)n);
	X509 *cert;
	int r = 0;

	if (!bio || !chain)
		r = err_sys(e, ENOMEM, "certificates");
	while (!r && (cert = PEM_read_bio_X509(bio, NULL, no_passphrase,
					       NULL)) != NULL) {
		if (sk_X509_num(chain) == max)
			r = err_set(e, EINVAL, "more than %d certificates",
				    max);
		else if (sk_X509_push(chain, cert) > 0)
			cert = NULL;
		else
			r = err_sys(e, ENOMEM, "certificates");
		X509_free(cert);
	}
	if (!r && ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		r = err_set(e, EINVAL, "certificate %d is malformed",
			    sk_X509_num(chain) + 1);
	if (!r && !sk_X509_num(chain))
		r = err_set(e, EINVAL, "there is no certificate in PEM form");
	BIO_free(bio);
	ERR_clear_error();
	if (!r)
		*ret = TAKE_PTR(chain);
	return r;
}

static int64_t time_ms(const ASN1_TIME *t)
{
	struct tm tm;

	return t && ASN1_TIME_to_tm(t, &tm) ? (int64_t)timegm(&tm) * 1000 : 0;
}

static const char *time_text(const ASN1_TIME *t, char buf[32])
{
	return time_rfc3339(buf, 32, time_ms(t));
}

static int refuse(const X509_STORE_CTX *ctx, struct err *e)
{
	const X509 *cert = X509_STORE_CTX_get_current_cert(ctx);
	int code = X509_STORE_CTX_get_error(ctx);
	const char *which =
	    X509_STORE_CTX_get_error_depth(ctx) ? " of an authority" : "";
	char when[32];

	switch (code) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return err_set(
		    e, EACCES,
		    "the certificate%s has expired (%s): its "
		    "owner has to renew it",
		    which,
		    time_text(cert ? X509_get0_notAfter(cert) : NULL, when));
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return err_set(
		    e, EACCES,
		    "the certificate%s is not valid before %s: look at the "
		    "clocks of both parties",
		    which,
		    time_text(cert ? X509_get0_notBefore(cert) : NULL, when));
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_CERT_SIGNATURE_FAILURE:
		return err_set(e, EACCES,
			       "the certificate is not of an authority of this "
			       "party's ca file");
	case X509_V_ERR_INVALID_PURPOSE:
		return err_set(e, EACCES,
			       "the certificate%s may not be used for TLS by "
			       "clients (extended key usage clientAuth)",
			       which);
	default:
		return err_set(e, EACCES, "the certificate%s is refused: %s",
			       which, X509_verify_cert_error_string(code));
	}
}

/*
 * Does the chain lead to the store, for both ends of TLS and for signatures?
 * A party is server and client under the same certificate, so it must be good
 * for both.  Without now, validity in time is not looked at.
 */
static int chain_verify(X509_STORE *store, STACK_OF(X509) * chain, bool now,
			struct err *e)
{
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	X509 *leaf = sk_X509_value(chain, 0);
	X509_VERIFY_PARAM *param;
	int r = 0;

	if (!ctx || !X509_STORE_CTX_init(ctx, store, leaf, chain) ||
	    !X509_STORE_CTX_set_purpose(ctx, X509_PURPOSE_SSL_CLIENT)) {
		r = err_sys(e, ENOMEM, "verifying a certificate");
		goto out;
	}
	/* An authority of the file is trusted also when another one has
	 * signed it, as GnuTLS and libcurl do it. */
	param = X509_STORE_CTX_get0_param(ctx);
	X509_VERIFY_PARAM_set_flags(param,
				    X509_V_FLAG_PARTIAL_CHAIN |
					(now ? 0 : X509_V_FLAG_NO_CHECK_TIME));
	X509_VERIFY_PARAM_set_depth(param, CHAIN_MAX);
	X509_VERIFY_PARAM_set_auth_level(param, SECURITY_LEVEL);
	if (X509_get_extension_flags(leaf) & EXFLAG_INVALID)
		r = err_set(e, EACCES,
			    "the certificate has malformed extensions");
	else if (X509_verify_cert(ctx) != 1)
		r = refuse(ctx, e);
	else if (X509_check_ca(leaf))
		r = err_set(e, EACCES,
			    "the certificate is an authority's, not a party's");
	else if (X509_check_purpose(leaf, X509_PURPOSE_SSL_SERVER, 0) != 1)
		r = err_set(e, EACCES,
			    "the certificate may not be used for TLS by "
			    "servers (extended key usage serverAuth)");
	else if (!(X509_get_key_usage(leaf) & X509v3_KU_DIGITAL_SIGNATURE))
		r = err_set(e, EACCES,
			    "the certificate may not be used for signatures "
			    "(key usage digitalSignature)");
out:
	X509_STORE_CTX_free(ctx);
	ERR_clear_error();
	return r;
}

static bool printable(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (s[i] <= ' ' || s[i] > '~')
			return false;
	return true;
}

/* rollfs://<federation>/party/<id>, by length: a NUL ends nothing. */
static int party_of_uri(const char *uri, size_t n, const char *federation,
			char ret[16], struct err *e)
{
	_cleanup_free_ char *want = NULL;
	char id[16] = "";
	size_t len;

	if (asprintf(&want, "rollfs://%s/party/", federation) < 0) {
		want = NULL;
		return err_sys(e, ENOMEM, "certificate");
	}
	len = strlen(want);
	if (n > len && n - len < sizeof(id) && !memcmp(uri, want, len))
		memcpy(id, uri + len, n - len);
	if (n <= len || strlen(id) != n - len || !party_id_valid(id)) {
		if (n > 200 || !printable(uri, n))
			return err_set(e, EACCES,
				       "the certificate's URI is malformed "
				       "(expected %s<id>)",
				       want);
		return err_set(e, EACCES,
			       "the certificate is of %.*s, not of a party of "
			       "federation %s",
			       (int)n, uri, federation);
	}
	memcpy(ret, id, sizeof(id));
	return 0;
}

/* Two URIs of ours, of whatever federation, could mean two parties. */
static int party_of_cert(X509 *cert, const char *federation, char ret[16],
			 struct err *e)
{
	static const char scheme[] = "rollfs:";
	int critical = 0, found = 0, r;
	const ASN1_STRING *uri = NULL;
	GENERAL_NAMES *names =
	    X509_get_ext_d2i(cert, NID_subject_alt_name, &critical, NULL);

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);
		const ASN1_STRING *s;

		if (g->type != GEN_URI)
			continue;
		s = g->d.uniformResourceIdentifier;
		if (ASN1_STRING_length(s) < (int)strlen(scheme) ||
		    strncasecmp((const char *)ASN1_STRING_get0_data(s), scheme,
				strlen(scheme)) != 0)
			continue;
		uri = s;
		found++;
	}
	if (critical == -2)
		r = err_set(e, EACCES,
			    "the certificate has two lists of names "
			    "(subjectAltName)");
	else if (!uri)
		r = err_set(e, EACCES,
			    "the certificate names no party (URI "
			    "rollfs://%s/party/<id>; rollfs-pki makes such)",
			    federation);
	else if (found > 1)
		r = err_set(e, EACCES,
			    "the certificate has %d URIs rollfs://, expected "
			    "one",
			    found);
	else
		r = party_of_uri((const char *)ASN1_STRING_get0_data(uri),
				 (size_t)ASN1_STRING_length(uri), federation,
				 ret, e);
	GENERAL_NAMES_free(names);
	ERR_clear_error();
	return r;
}

/* ---- what is in use ---------------------------------------------------- */

struct set {
	struct strbuf cert_pem, key_pem, ca_pem;
	X509_STORE *store;
	EVP_PKEY *key;
	int64_t expires_ms;
	struct err late; /* why it is not valid now, or .no = 0 */
};

/* What a file looked like. All zero = not there. */
struct stamp {
	dev_t dev;
	ino_t ino;
	mode_t mode; /* a chmod may be within the resolution of ctime */
	off_t size;
	struct timespec mtime, ctime;
};

enum { CERT, KEY, CA, FILES };

struct identity {
	const struct conf *conf;
	const char *path[FILES];
	pthread_mutex_t lock; /* guards all below */
	struct set set;
	uint64_t generation;
	struct stamp seen[FILES];
	int64_t again_ms; /* monotonic; look at the files once more */
	struct err complaint;
};

static void set_free(struct set *s)
{
	sb_free(&s->cert_pem);
	if (s->key_pem.len)
		OPENSSL_cleanse(s->key_pem.buf, s->key_pem.len);
	sb_free(&s->key_pem);
	sb_free(&s->ca_pem);
	X509_STORE_free(s->store);
	EVP_PKEY_free(s->key);
}

/* Into a piece of memory of its size, so that no copies of a key remain. */
static int pem_read(const char *path, bool secret, struct strbuf *ret,
		    struct err *e)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st))
		return err_sys(e, errno, "cannot be read");
	if (!S_ISREG(st.st_mode))
		return err_set(e, EINVAL, "is not a file");
	if (secret && (st.st_mode & 077))
		return err_set(e, EACCES,
			       "group or others can read it (chmod 600 it)");
	if (!st.st_size || st.st_size > PEM_MAX)
		return err_set(e, EINVAL,
			       st.st_size ? "is larger than 64 KiB"
					  : "is empty");
	r = sb_reserve(ret, (size_t)st.st_size);
	if (r)
		return err_sys(e, -r, "cannot be read");
	r = read_all(fd, ret->buf, (size_t)st.st_size);
	if (r)
		return err_sys(e, -r, "cannot be read");
	ret->len = (size_t)st.st_size;
	ret->buf[ret->len] = '\0';
	if (strlen(ret->buf) != ret->len)
		return err_set(e, EINVAL, "is not text in PEM form");
	return 0;
}

static int ca_parse(const struct strbuf *pem, X509_STORE **ret, struct err *e)
{
	_cleanup_chain_ STACK_OF(X509) *list = NULL;
	X509_STORE *store;
	int r = chain_of_pem(pem->buf, pem->len, INT_MAX, &list, e);

	if (r)
		return r;
	store = X509_STORE_new();
	if (!store)
		return err_sys(e, ENOMEM, "cannot be used");
	for (int i = 0; !r && i < sk_X509_num(list); i++) {
		X509 *ca = sk_X509_value(list, i);

		/* A trusted party would be trusted whoever signs for it. */
		if (X509_check_ca(ca) != 1)
			r = err_set(e, EINVAL,
				    "certificate %d is not an authority's",
				    i + 1);
		else if (!X509_STORE_add_cert(store, ca))
			r = err_sys(e, ENOMEM, "cannot be used");
	}
	ERR_clear_error();
	if (r)
		X509_STORE_free(store);
	else
		*ret = store;
	return r;
}

/* "EC" etc.: what signature_init() knows. */
static bool key_type_known(const EVP_PKEY *key)
{
	return EVP_PKEY_is_a(key, "EC") || EVP_PKEY_is_a(key, "RSA") ||
	       EVP_PKEY_is_a(key, "RSA-PSS") || EVP_PKEY_is_a(key, "ED25519");
}

static int key_parse(const struct strbuf *pem, EVP_PKEY **ret, struct err *e)
{
	BIO *bio = BIO_new_mem_buf(pem->buf, (int)pem->len);
	EVP_PKEY *key =
	    bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL)
		: NULL;
	int r = 0;

	BIO_free(bio);
	ERR_clear_error();
	if (!key)
		return err_set(e, EINVAL,
			       "is not a private key in PEM form without a "
			       "passphrase (openssl pkey -in OLD -out NEW "
			       "takes the passphrase off)");
	if (!key_type_known(key))
		r = err_set(e, EINVAL,
			    "is a key of a kind that is not supported (EC, "
			    "RSA and Ed25519 are)");
	else if (EVP_PKEY_get_security_bits(key) < SECURITY_BITS)
		r = err_set(e, EINVAL,
			    "is too short a key (RSA: at least 2048 bits)");
	if (r)
		EVP_PKEY_free(key);
	else
		*ret = key;
	return r;
}

static int cert_parse(const struct identity *id, struct set *s, struct err *e)
{
	_cleanup_chain_ STACK_OF(X509) *chain = NULL;
	const struct conf *c = id->conf;
	char party[16];
	X509 *leaf;
	int r = chain_of_pem(s->cert_pem.buf, s->cert_pem.len, CHAIN_MAX,
			     &chain, e);

	if (r)
		return r;
	leaf = sk_X509_value(chain, 0);
	if (X509_check_private_key(leaf, s->key) != 1) {
		ERR_clear_error();
		return err_set(e, EINVAL,
			       "the key %s belongs to another certificate "
			       "(both come from one run of rollfs-pki)",
			       id->path[KEY]);
	}
	r = chain_verify(s->store, chain, false, e);
	if (!r)
		r = party_of_cert(leaf, c->federation, party, e);
	if (r)
		return r;
	if (strcmp(party, c->party) != 0)
		return err_set(e, EACCES,
			       "the certificate is of party %s, but this is "
			       "party %s",
			       party, c->party);
	s->expires_ms = time_ms(X509_get0_notAfter(leaf));
	(void)chain_verify(s->store, chain, true, &s->late);
	return 0;
}

static int set_load(const struct identity *id, struct set *ret, struct err *e)
{
	struct set s = { .cert_pem = STRBUF_INIT(PEM_MAX),
			 .key_pem = STRBUF_INIT(PEM_MAX),
			 .ca_pem = STRBUF_INIT(PEM_MAX) };
	const char *const *path = id->path;
	int file = KEY, r;

	r = pem_read(path[KEY], true, &s.key_pem, e);
	if (!r)
		r = key_parse(&s.key_pem, &s.key, e);
	if (!r) {
		file = CA;
		r = pem_read(path[CA], false, &s.ca_pem, e);
	}
	if (!r)
		r = ca_parse(&s.ca_pem, &s.store, e);
	if (!r) {
		file = CERT;
		r = pem_read(path[CERT], false, &s.cert_pem, e);
	}
	if (!r)
		r = cert_parse(id, &s, e);
	if (r) {
		set_free(&s);
		return err_wrap(e, "%s %s",
				file == KEY  ? "key"
				: file == CA ? "ca"
					     : "certificate",
				path[file]);
	}
	*ret = s;
	return 0;
}

static bool time_same(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool stamp_same(const struct stamp *a, const struct stamp *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->mode == b->mode &&
	       a->size == b->size && time_same(a->mtime, b->mtime) &&
	       time_same(a->ctime, b->ctime);
}

static void look(const struct identity *id, struct stamp ret[FILES])
{
	for (int i = 0; i < FILES; i++) {
		struct stat st;

		memset(&ret[i], 0, sizeof(ret[i]));
		if (stat(id->path[i], &st))
			continue;
		ret[i].dev = st.st_dev;
		ret[i].ino = st.st_ino;
		ret[i].mode = st.st_mode;
		ret[i].size = st.st_size;
		ret[i].mtime = st.st_mtim;
		ret[i].ctime = st.st_ctim;
	}
}

/* The stamps are taken before the files are read: a change in between is
 * seen the next time. */
static void remember(struct identity *id, const struct stamp seen[FILES])
{
	int64_t now = now_unix_ms();

	id->again_ms = 0;
	for (int i = 0; i < FILES; i++) {
		int64_t at = (int64_t)seen[i].ctime.tv_sec * 1000 +
			     seen[i].ctime.tv_nsec / 1000000;

		id->seen[i] = seen[i];
		if (at > now - RACY_MS && at <= now + RACY_MS)
			id->again_ms = now_mono_ms() + RACY_MS;
	}
}

int identity_open(const struct conf *c, struct identity **ret, struct err *e)
{
	struct identity *id = calloc(1, sizeof(*id));
	struct stamp seen[FILES];
	int r;

	if (!id)
		return err_sys(e, ENOMEM, "certificates");
	id->conf = c;
	id->path[CERT] = c->certificate;
	id->path[KEY] = c->key;
	id->path[CA] = c->ca;
	id->generation = 1;
	look(id, seen);
	r = set_load(id, &id->set, e);
	if (r) {
		free(id);
		return r;
	}
	remember(id, seen);
	pthread_mutex_init(&id->lock, NULL);
	/* What is on this machine works on; the next file may be better. */
	if (id->set.late.no)
		log_warn("identity",
			 "certificate %s: %s; no other party will "
			 "talk to us",
			 id->path[CERT], id->set.late.text);
	*ret = id;
	return 0;
}

void identity_close(struct identity *id)
{
	if (!id)
		return;
	set_free(&id->set);
	pthread_mutex_destroy(&id->lock);
	free(id);
}

static bool text_same(const struct strbuf *a, const struct strbuf *b)
{
	return a->len == b->len && !CRYPTO_memcmp(a->buf, b->buf, a->len);
}

/* With the lock held. */
static bool reload(struct identity *id)
{
	char when[32];
	struct err e = { 0 };
	struct set s;

	if (!set_load(id, &s, &e)) {
		if (text_same(&s.cert_pem, &id->set.cert_pem) &&
		    text_same(&s.key_pem, &id->set.key_pem) &&
		    text_same(&s.ca_pem, &id->set.ca_pem)) {
			set_free(&s);
			id->complaint = e;
			return false;
		}
		if (!s.late.no) {
			set_free(&id->set);
			id->set = s;
			id->generation++;
			id->complaint = e;
			log_info(
			    "identity",
			    "certificate %s taken into use, valid until "
			    "%s",
			    id->path[CERT],
			    time_rfc3339(when, sizeof(when), s.expires_ms));
			return true;
		}
		e = s.late;
		(void)err_wrap(&e, "certificate %s", id->path[CERT]);
		set_free(&s);
	}
	/* Certificate and key come one after the other: not yet a reason to
	 * complain. */
	if (id->again_ms)
		return false;
	if (strcmp(e.text, id->complaint.text) != 0)
		log_error("identity",
			  "%s; the certificate, key and CA from before stay "
			  "in use",
			  e.text);
	id->complaint = e;
	return false;
}

bool identity_refresh(struct identity *id)
{
	struct stamp seen[FILES];
	bool changed = false;

	pthread_mutex_lock(&id->lock);
	look(id, seen);
	for (int i = 0; i < FILES; i++)
		changed = changed || !stamp_same(&seen[i], &id->seen[i]);
	changed = changed || (id->again_ms && now_mono_ms() >= id->again_ms);
	if (changed) {
		remember(id, seen);
		changed = reload(id);
	}
	pthread_mutex_unlock(&id->lock);
	return changed;
}

uint64_t identity_generation(struct identity *id)
{
	uint64_t generation;

	pthread_mutex_lock(&id->lock);
	generation = id->generation;
	pthread_mutex_unlock(&id->lock);
	return generation;
}

int64_t identity_expires_ms(struct identity *id)
{
	int64_t ms;

	pthread_mutex_lock(&id->lock);
	ms = id->set.expires_ms;
	pthread_mutex_unlock(&id->lock);
	return ms;
}

int identity_pem(struct identity *id, struct strbuf *cert, struct strbuf *key,
		 struct strbuf *ca, struct err *e)
{
	struct strbuf c = STRBUF_INIT(PEM_MAX), k = STRBUF_INIT(PEM_MAX),
		      a = STRBUF_INIT(PEM_MAX);
	const struct set *s = &id->set;
	int r;

	pthread_mutex_lock(&id->lock);
	r = sb_add(&c, s->cert_pem.buf, s->cert_pem.len);
	if (!r)
		r = sb_add(&a, s->ca_pem.buf, s->ca_pem.len);
	if (!r)
		r = sb_add(&k, s->key_pem.buf, s->key_pem.len);
	pthread_mutex_unlock(&id->lock);
	if (r) {
		sb_free(&c);
		sb_free(&a);
		return err_sys(e, -r, "certificate %s", id->path[CERT]);
	}
	*cert = c;
	*key = k;
	*ca = a;
	return 0;
}

/* ---- who others are ---------------------------------------------------- */

static int peer_verify(struct identity *id, STACK_OF(X509) * chain,
		       char ret_party[16], X509 **ret_cert,
		       int64_t *ret_expires_ms, struct err *e)
{
	X509 *leaf = sk_X509_value(chain, 0);
	X509_STORE *store;
	char party[16];
	int r;

	pthread_mutex_lock(&id->lock);
	store = id->set.store;
	X509_STORE_up_ref(store);
	pthread_mutex_unlock(&id->lock);
	r = chain_verify(store, chain, true, e);
	X509_STORE_free(store);
	if (!r)
		r = party_of_cert(leaf, id->conf->federation, party, e);
	if (r)
		return r;
	memcpy(ret_party, party, sizeof(party));
	if (ret_cert) {
		X509_up_ref(leaf);
		*ret_cert = leaf;
	}
	if (ret_expires_ms)
		*ret_expires_ms = time_ms(X509_get0_notAfter(leaf));
	return 0;
}

int identity_verify(struct identity *id, const struct der *chain, size_t n,
		    char ret_party[16], X509 **ret_cert,
		    int64_t *ret_expires_ms, struct err *e)
{
	_cleanup_chain_ STACK_OF(X509) *list = NULL;

	ret_party[0] = '\0';
	if (!n)
		return err_set(e, EACCES, "there is no certificate");
	if (n > CHAIN_MAX)
		return err_set(e, EACCES, "more than %d certificates",
			       CHAIN_MAX);
	list = sk_X509_new_null();
	if (!list)
		return err_sys(e, ENOMEM, "certificates");
	for (size_t i = 0; i < n; i++) {
		const unsigned char *p = chain[i].data;
		X509 *cert = NULL;

		if (chain[i].n && chain[i].n <= PEM_MAX)
			cert = d2i_X509(NULL, &p, (long)chain[i].n);
		ERR_clear_error();
		if (!cert || p != (const uint8_t *)chain[i].data + chain[i].n) {
			X509_free(cert);
			return err_set(e, EACCES,
				       "certificate %zu is malformed", i + 1);
		}
		if (!sk_X509_push(list, cert)) {
			X509_free(cert);
			return err_sys(e, ENOMEM, "certificates");
		}
	}
	return peer_verify(id, list, ret_party, ret_cert, ret_expires_ms, e);
}

int identity_verify_pem(struct identity *id, const char *pem,
			char ret_party[16], X509 **ret_cert,
			int64_t *ret_expires_ms, struct err *e)
{
	_cleanup_chain_ STACK_OF(X509) *list = NULL;
	size_t n = strnlen(pem, PEM_MAX + 1);
	int r;

	ret_party[0] = '\0';
	if (n > PEM_MAX)
		return err_set(e, EACCES, "more than 64 KiB of certificates");
	r = chain_of_pem(pem, n, CHAIN_MAX, &list, e);
	if (r == -EINVAL && e)
		e->no = EACCES;
	if (r)
		return r == -EINVAL ? -EACCES : r;
	return peer_verify(id, list, ret_party, ret_cert, ret_expires_ms, e);
}

/* ---- signatures -------------------------------------------------------- */

/* For signing or for verifying by this key. */
static bool signature_init(EVP_MD_CTX *md, EVP_PKEY *key, bool sign)
{
	const EVP_MD *digest =
	    EVP_PKEY_is_a(key, "ED25519") ? NULL : EVP_sha256();
	EVP_PKEY_CTX *ctx = NULL; /* md's */

	if (!key_type_known(key))
		return false;
	if (sign ? EVP_DigestSignInit(md, &ctx, digest, NULL, key) <= 0
		 : EVP_DigestVerifyInit(md, &ctx, digest, NULL, key) <= 0)
		return false;
	return (!EVP_PKEY_is_a(key, "RSA") && !EVP_PKEY_is_a(key, "RSA-PSS")) ||
	       (EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) > 0 &&
		EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) >
		    0);
}

/* Domain, LF, data: one piece, as Ed25519 takes it. */
static int signed_bytes(const char *domain, const void *data, size_t n,
			struct strbuf *ret, struct err *e)
{
	sb_init(ret, SIZE_MAX / 2);
	if (strchr(domain, '\n'))
		return err_set(e, EINVAL, "signature: a domain of two lines");
	(void)sb_reserve(ret, strlen(domain) + 1 + n);
	(void)sb_adds(ret, domain);
	(void)sb_addc(ret, '\n');
	(void)sb_add(ret, data, n);
	return ret->error ? err_sys(e, -ret->error, "signature") : 0;
}

int identity_sign(struct identity *id, const char *domain, const void *data,
		  size_t n, char **ret, struct err *e)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(0);
	uint8_t out[SIGNATURE_MAX];
	size_t len = sizeof(out);
	EVP_MD_CTX *md = NULL;
	char *text = NULL;
	EVP_PKEY *key;
	int r = signed_bytes(domain, data, n, &sb, e);

	if (r)
		return r;
	pthread_mutex_lock(&id->lock);
	key = id->set.key;
	EVP_PKEY_up_ref(key);
	pthread_mutex_unlock(&id->lock);
	md = EVP_MD_CTX_new();
	if (!md || !signature_init(md, key, true) ||
	    EVP_DigestSign(md, out, &len, (const uint8_t *)sb.buf, sb.len) <= 0)
		r = err_set(e, EIO, "key %s: cannot sign with it",
			    id->path[KEY]);
	EVP_MD_CTX_free(md);
	EVP_PKEY_free(key);
	ERR_clear_error();
	if (r)
		return r;
	text = base64_encode(out, len);
	if (!text)
		return err_sys(e, ENOMEM, "signature");
	*ret = text;
	return 0;
}

int signature_check(X509 *cert, const char *domain, const void *data, size_t n,
		    const char *signature, struct err *e)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(0);
	uint8_t sig[SIGNATURE_MAX];
	EVP_PKEY *key = X509_get0_pubkey(cert);
	ssize_t len = base64_decode(signature, sig, sizeof(sig));
	EVP_MD_CTX *md;
	int r = 0;

	if (len < 0)
		return err_set(e, EBADMSG, "the signature is not base64");
	r = signed_bytes(domain, data, n, &sb, e);
	if (r)
		return r;
	md = EVP_MD_CTX_new();
	if (!md)
		r = err_sys(e, ENOMEM, "signature");
	else if (!key || !signature_init(md, key, false) ||
		 EVP_DigestVerify(md, sig, (size_t)len, (const uint8_t *)sb.buf,
				  sb.len) != 1)
		r = err_set(e, EBADMSG,
			    "the signature is not that of the certificate's "
			    "key");
	EVP_MD_CTX_free(md);
	ERR_clear_error();
	return r;
}
