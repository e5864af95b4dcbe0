// SPDX-License-Identifier: Apache-2.0
/* Whom a certificate speaks for, renewal while running, signatures.  The
 * certificates are made here, one per thing that can be wrong with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "lib/fileio.h"
#include "lib/log.h"

#include "transfer/secure.h"

#include "tests/unit/certificates.h"

static char dir[] = "/tmp/rollfs-test-secure-XXXXXX";
static char path_cert[64], path_key[64], path_ca[64];
static struct conf conf;

static struct cert authority, foreign;

/* By the authority, unless planned otherwise. */
static struct cert make(const struct plan *p)
{
	struct plan by_authority = *p;

	if (!p->by && !p->ca)
		by_authority.by = &authority;
	return cert_make(&by_authority);
}

static void write_text(const char *path, const char *text, mode_t mode)
{
	assert_int_equal(
	    file_replace(path, text, strlen(text), mode, false, NULL), 0);
	assert_int_equal(chmod(path, mode), 0);
}

static void write_cert(const struct cert *c)
{
	_cleanup_free_ char *text = cert_pem(c);

	write_text(path_cert, text, 0644);
}

static void write_key(const struct cert *c, const char *passphrase, mode_t mode)
{
	_cleanup_free_ char *text = cert_key_pem(c, passphrase);

	write_text(path_key, text, mode);
}

/* Our own files: a good certificate of party 1 with a key of that kind. */
static void write_own(const char *kind)
{
	struct cert c =
	    make(&(struct plan){ .uri = { URI("1") }, .key = kind });
	_cleanup_free_ char *ca = cert_pem(&authority);

	write_cert(&c);
	write_key(&c, NULL, 0600);
	write_text(path_ca, ca, 0644);
	cert_free(&c);
}

static struct identity *open_own(void)
{
	struct identity *id = NULL;
	struct err e = { 0 };

	if (identity_open(&conf, &id, &e))
		fail_msg("%s", e.text);
	return id;
}

static int verify(struct identity *id, const struct cert *chain, size_t n,
		  char party[16], int64_t *expires, struct err *e)
{
	struct der der[16] = { 0 };
	uint8_t *data[16];
	int r;

	for (size_t i = 0; i < n; i++) {
		data[i] = NULL;
		der[i].n = (size_t)i2d_X509(chain[i].x, &data[i]);
		der[i].data = data[i];
	}
	r = identity_verify(id, der, n, party, NULL, expires, e);
	for (size_t i = 0; i < n; i++)
		OPENSSL_free(data[i]);
	return r;
}

/* ---- the certificates of others ---------------------------------------- */

static void a_certificate_names_its_party(void **state)
{
	static const char *const kinds[] = { "EC", "RSA", "ED25519" };
	struct identity *id;

	(void)state;
	write_own("EC");
	id = open_own();
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct cert c = make(&(struct plan){
		    .uri = { URI("1234567890") }, .key = kinds[i] });
		_cleanup_free_ char *pem = cert_pem(&c);
		char party[16] = "x";
		int64_t expires = 0, want = now_unix_ms() + 30 * DAY * 1000;
		X509 *leaf = NULL;

		assert_int_equal(verify(id, &c, 1, party, &expires, NULL), 0);
		assert_string_equal(party, "1234567890");
		assert_true(llabs(expires - want) < 60000);
		memset(party, 'x', sizeof(party));
		assert_int_equal(
		    identity_verify_pem(id, pem, party, &leaf, NULL, NULL), 0);
		assert_string_equal(party, "1234567890");
		assert_int_equal(X509_cmp(leaf, c.x), 0);
		X509_free(leaf);
		cert_free(&c);
	}
	identity_close(id);
}

static void other_uris_beside_ours_do_not_matter(void **state)
{
	struct cert c = make(&(struct plan){
	    .uri = { "https://example.org/", URI("2"), "spiffe://demo/2" } });
	struct identity *id;
	char party[16];

	(void)state;
	write_own("EC");
	id = open_own();
	assert_int_equal(verify(id, &c, 1, party, NULL, NULL), 0);
	assert_string_equal(party, "2");
	cert_free(&c);
	identity_close(id);
}

static void what_is_wrong_with_a_certificate_is_said(void **state)
{
	const struct {
		struct plan plan;
		const char *says;
	} cases[] = {
		{ { .uri = { URI("2") }, .by = &foreign }, "ca file" },
		{ { .uri = { URI("2") }, .from = -2 * DAY, .until = -60 },
		  "expired" },
		{ { .uri = { URI("2") }, .from = 3600 }, "not valid before" },
		{ { .uri = { "" } }, "names no party" },
		{ { .uri = { NULL } }, "names no party" },
		{ { .uri = { "https://demo/party/2" } }, "names no party" },
		{ { .uri = { "rollfs://other/party/2" } },
		  "is of rollfs://other/party/2" },
		{ { .uri = { "rollfs://demo2/party/2" } }, "federation demo" },
		{ { .uri = { "rollfs://dem/party/2" } }, "federation demo" },
		{ { .uri = { "rollfs://DEMO/party/2" } }, "federation demo" },
		{ { .uri = { "ROLLFS://demo/party/2" } }, "federation demo" },
		{ { .uri = { "rollfs:demo/party/2" } }, "federation demo" },
		{ { .uri = { URI("2"), URI("3") } }, "2 URIs" },
		{ { .uri = { URI("2"), URI("2") } }, "2 URIs" },
		{ { .uri = { URI("2"), "rollfs://other/party/2" } }, "2 URIs" },
		{ { .uri = { URI("2"), "RollFS:x" } }, "2 URIs" },
		{ { .uri = { URI("2\0.example") }, .uri_n = 29 }, "malformed" },
		{ { .uri = { URI("2\0") }, .uri_n = 22 }, "malformed" },
		{ { .uri = { URI("\n") } }, "malformed" },
		{ { .uri = { URI("") } }, "federation demo" },
		{ { .uri = { URI("02") } }, "federation demo" },
		{ { .uri = { URI("2/") } }, "federation demo" },
		{ { .uri = { URI("2?x") } }, "federation demo" },
		{ { .uri = { URI("12345678901") } }, "federation demo" },
		{ { .uri = { URI("1234567890123456789012345") } },
		  "federation demo" },
		{ { .uri = { URI("2") }, .two_lists = true },
		  "malformed extensions" },
		{ { .uri = { URI("2") }, .extended = "serverAuth" },
		  "clientAuth" },
		{ { .uri = { URI("2") }, .extended = "clientAuth" },
		  "serverAuth" },
		{ { .uri = { URI("2") }, .extended = "codeSigning" },
		  "clientAuth" },
		{ { .uri = { URI("2") }, .usage = "keyAgreement" },
		  "digitalSignature" },
		{ { .uri = { URI("2") }, .ca = true }, "ca file" },
		{ { .uri = { URI("2") },
		    .ca = true,
		    .by = &authority,
		    .usage = "keyCertSign,digitalSignature",
		    .extended = "serverAuth,clientAuth" },
		  "is an authority's" },
		{ { .uri = { URI("2") }, .key = "RSA1024" }, "too weak" },
		{ { .uri = { URI("2") }, .digest = EVP_sha1() }, "too weak" },
	};
	struct identity *id;

	(void)state;
	write_own("EC");
	id = open_own();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct cert c = make(&cases[i].plan);
		_cleanup_free_ char *pem = cert_pem(&c);
		char party[16] = "x";
		struct err e = { 0 };
		X509 *leaf = NULL;

		if (verify(id, &c, 1, party, NULL, &e) != -EACCES || *party ||
		    !strstr(e.text, cases[i].says))
			fail_msg("case %zu: '%s', expected '%s'", i, e.text,
				 cases[i].says);
		assert_int_equal(
		    identity_verify_pem(id, pem, party, &leaf, NULL, &e),
		    -EACCES);
		assert_null(leaf);
		cert_free(&c);
	}
	identity_close(id);
}

/* chain[0] is a party's, chain[n - 1] signed by the authority. */
static void chain_make(struct cert *chain, size_t n)
{
	for (size_t i = n; i-- > 0;)
		chain[i] = make(&(struct plan){ .uri = { i ? NULL : URI("2") },
						.ca = i > 0,
						.by = i + 1 < n ? &chain[i + 1]
								: &authority });
}

static void a_chain_has_at_most_eight_certificates(void **state)
{
	struct cert chain[9];
	struct identity *id;
	char party[16];
	struct err e = { 0 };

	(void)state;
	write_own("EC");
	id = open_own();
	for (size_t n = 2; n <= 9; n++) {
		_cleanup_strbuf_ struct strbuf all = STRBUF_INIT(1 << 20);
		int want = n <= 8 ? 0 : -EACCES;

		chain_make(chain, n);
		assert_int_equal(verify(id, chain, n, party, NULL, &e), want);
		assert_string_equal(party, n <= 8 ? "2" : "");
		/* an authority on the way is missing */
		assert_int_equal(verify(id, chain, n - 1, party, NULL, &e),
				 -EACCES);
		for (size_t i = 0; i < n; i++) {
			_cleanup_free_ char *pem = cert_pem(&chain[i]);

			assert_int_equal(sb_adds(&all, pem), 0);
		}
		assert_int_equal(
		    identity_verify_pem(id, all.buf, party, NULL, NULL, &e),
		    want);
		for (size_t i = 0; i < n; i++)
			cert_free(&chain[i]);
	}
	assert_int_equal(verify(id, NULL, 0, party, NULL, &e), -EACCES);
	identity_close(id);
}

/* Its root need not be in the file; others of the root are not trusted. */
static void an_authority_below_a_root_may_stand_alone_in_the_file(void **state)
{
	struct cert below =
	    make(&(struct plan){ .ca = true, .by = &authority });
	struct cert own =
	    make(&(struct plan){ .uri = { URI("1") }, .by = &below });
	struct cert two =
	    make(&(struct plan){ .uri = { URI("2") }, .by = &below });
	struct cert of_root = make(&(struct plan){ .uri = { URI("2") } });
	_cleanup_free_ char *ca = cert_pem(&below);
	struct identity *id;
	char party[16];

	(void)state;
	write_cert(&own);
	write_key(&own, NULL, 0600);
	write_text(path_ca, ca, 0644);
	id = open_own();
	assert_int_equal(verify(id, &two, 1, party, NULL, NULL), 0);
	assert_int_equal(verify(id, &of_root, 1, party, NULL, NULL), -EACCES);
	cert_free(&below);
	cert_free(&own);
	cert_free(&two);
	cert_free(&of_root);
	identity_close(id);
}

static void a_party_signs_for_nobody(void **state)
{
	struct cert chain[2];
	struct identity *id;
	char party[16];

	(void)state;
	write_own("EC");
	id = open_own();
	chain[1] = make(&(struct plan){ .uri = { URI("2") } });
	chain[0] = make(&(struct plan){ .uri = { URI("3") }, .by = &chain[1] });
	assert_int_equal(verify(id, chain, 2, party, NULL, NULL), -EACCES);
	cert_free(&chain[0]);
	cert_free(&chain[1]);
	identity_close(id);
}

static void malformed_certificates_are_refused(void **state)
{
	struct cert c = make(&(struct plan){ .uri = { URI("2") } });
	_cleanup_free_ char *pem = cert_pem(&c);
	_cleanup_free_ char *long_text = xcalloc(1, 70000);
	_cleanup_free_ char *odd = xasprintf("%s%.200s\nnot base64", pem, pem);
	uint8_t *der = NULL, *longer;
	size_t n = (size_t)i2d_X509(c.x, &der);
	struct identity *id;
	char party[16];
	struct err e = { 0 };

	(void)state;
	write_own("EC");
	id = open_own();
	longer = xcalloc(1, n + 1);
	memcpy(longer, der, n);
	for (size_t k = 0; k <= n + 1; k++) {
		struct der d = { longer, k };

		assert_int_equal(
		    identity_verify(id, &d, 1, party, NULL, NULL, &e),
		    k == n ? 0 : -EACCES);
	}
	assert_int_equal(identity_verify_pem(id, "", party, NULL, NULL, &e),
			 -EACCES);
	assert_int_equal(identity_verify_pem(id, "x\n", party, NULL, NULL, &e),
			 -EACCES);
	assert_int_equal(identity_verify_pem(id, odd, party, NULL, NULL, &e),
			 -EACCES);
	memset(long_text, '\n', 69999);
	memcpy(long_text, pem, strlen(pem));
	assert_int_equal(
	    identity_verify_pem(id, long_text, party, NULL, NULL, &e), -EACCES);
	long_text[65536] = '\0';
	assert_int_equal(
	    identity_verify_pem(id, long_text, party, NULL, NULL, &e), 0);
	free(longer);
	OPENSSL_free(der);
	cert_free(&c);
	identity_close(id);
}

/* ---- our own files ----------------------------------------------------- */

static void open_says(const char *file, const char *what)
{
	struct identity *id = NULL;
	struct err e = { 0 };

	if (!identity_open(&conf, &id, &e) || id || !strstr(e.text, file) ||
	    !strstr(e.text, what))
		fail_msg("'%s', expected '%s: %s'", e.text, file, what);
}

static void files_that_cannot_be_used_are_named(void **state)
{
	struct cert good = make(&(struct plan){ .uri = { URI("1") } });
	struct cert other = make(&(struct plan){ .uri = { URI("2") } });
	struct cert strange =
	    make(&(struct plan){ .uri = { URI("1") }, .by = &foreign });
	struct cert weak =
	    make(&(struct plan){ .uri = { URI("1") }, .key = "RSA1024" });
	_cleanup_free_ char *pem = cert_pem(&good);

	(void)state;
	write_own("EC");
	write_key(&good, NULL, 0600);
	open_says(path_cert, "belongs to another certificate");
	write_cert(&other);
	write_key(&other, NULL, 0600);
	open_says(path_cert, "is of party 2, but this is party 1");
	write_cert(&strange);
	write_key(&strange, NULL, 0600);
	open_says(path_cert, "ca file");
	write_cert(&weak);
	write_key(&weak, NULL, 0600);
	open_says(path_key, "too short");
	write_cert(&good);
	write_key(&good, "secret", 0600);
	open_says(path_key, "passphrase");
	write_key(&good, NULL, 0640);
	open_says(path_key, "chmod 600");
	write_text(path_key, "", 0600);
	open_says(path_key, "is empty");
	write_text(path_key, pem, 0600);
	open_says(path_key, "is not a private key");
	assert_int_equal(unlink(path_key), 0);
	open_says(path_key, "No such file");
	write_key(&good, NULL, 0600);
	write_text(path_ca, pem, 0644);
	open_says(path_ca, "is not an authority's");
	write_text(path_ca, "\n", 0644);
	open_says(path_ca, "no certificate");
	cert_free(&good);
	cert_free(&other);
	cert_free(&strange);
	cert_free(&weak);
}

static void an_expired_certificate_of_ours_does_not_stop_us(void **state)
{
	struct cert c = make(&(struct plan){
	    .uri = { URI("1") }, .from = -2 * DAY, .until = -60 });
	struct identity *id;

	(void)state;
	write_own("EC");
	write_cert(&c);
	write_key(&c, NULL, 0600);
	id = open_own();
	assert_true(identity_expires_ms(id) < now_unix_ms());
	write_own("EC");
	assert_true(identity_refresh(id));
	assert_true(identity_expires_ms(id) > now_unix_ms());
	cert_free(&c);
	identity_close(id);
}

static void pem_is(struct identity *id, const struct cert *want)
{
	_cleanup_strbuf_ struct strbuf cert = STRBUF_INIT(0),
				       key = STRBUF_INIT(0),
				       ca = STRBUF_INIT(0);
	_cleanup_free_ char *pem = cert_pem(want);

	assert_int_equal(identity_pem(id, &cert, &key, &ca, NULL), 0);
	assert_string_equal(cert.buf, pem);
	assert_non_null(strstr(key.buf, "PRIVATE KEY"));
	assert_non_null(strstr(ca.buf, "BEGIN CERTIFICATE"));
}

static void a_renewed_certificate_is_taken_into_use(void **state)
{
	struct cert c =
	    make(&(struct plan){ .uri = { URI("1") }, .until = 60 * DAY });
	struct identity *id;

	(void)state;
	write_own("EC");
	id = open_own();
	assert_int_equal(identity_generation(id), 1);
	assert_false(identity_refresh(id));
	/* the key first: it does not fit yet, which must not matter */
	write_key(&c, NULL, 0600);
	assert_false(identity_refresh(id));
	assert_int_equal(identity_generation(id), 1);
	write_cert(&c);
	assert_true(identity_refresh(id));
	assert_int_equal(identity_generation(id), 2);
	assert_true(identity_expires_ms(id) > now_unix_ms() + 59 * DAY * 1000);
	pem_is(id, &c);
	assert_false(identity_refresh(id));
	/* the same bytes in a new file */
	write_cert(&c);
	assert_false(identity_refresh(id));
	assert_int_equal(identity_generation(id), 2);
	cert_free(&c);
	identity_close(id);
}

static void a_set_that_cannot_be_used_leaves_the_old_one(void **state)
{
	struct cert now = make(&(struct plan){ .uri = { URI("1") } });
	struct cert bad[] = {
		make(&(struct plan){ .uri = { URI("1") }, .by = &foreign }),
		make(&(struct plan){ .uri = { URI("2") } }),
		make(&(struct plan){ .uri = { NULL } }),
		make(&(struct plan){
		    .uri = { URI("1") }, .from = -2 * DAY, .until = -60 }),
		make(&(struct plan){ .uri = { URI("1") }, .from = DAY }),
	};
	struct cert next = make(&(struct plan){ .uri = { URI("1") } });
	_cleanup_free_ char *signature = NULL;
	struct identity *id;

	(void)state;
	write_own("EC");
	write_cert(&now);
	write_key(&now, NULL, 0600);
	id = open_own();
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		write_cert(&bad[i]);
		write_key(&bad[i], NULL, 0600);
		assert_false(identity_refresh(id));
		assert_int_equal(identity_generation(id), 1);
		pem_is(id, &now);
		cert_free(&bad[i]);
	}
	assert_int_equal(unlink(path_cert), 0);
	assert_false(identity_refresh(id));
	write_cert(&next);
	write_key(&next, NULL, 0644);
	assert_false(identity_refresh(id));
	pem_is(id, &now);
	assert_int_equal(identity_sign(id, "d", "x", 1, &signature, NULL), 0);
	assert_int_equal(signature_check(now.x, "d", "x", 1, signature, NULL),
			 0);
	/* only its mode changes */
	assert_int_equal(chmod(path_key, 0600), 0);
	assert_true(identity_refresh(id));
	pem_is(id, &next);
	cert_free(&now);
	cert_free(&next);
	identity_close(id);
}

/* Within the resolution of a file system's times. */
static void a_change_with_the_same_time_is_noticed_later(void **state)
{
	_cleanup_free_ char *pem = cert_pem(&authority);
	/* a comment in front, to be changed in place */
	_cleanup_free_ char *changed = xasprintf("a\n%s", pem);
	struct identity *id;
	int fd;

	(void)state;
	write_own("EC");
	write_text(path_ca, changed, 0644);
	id = open_own();
	fd = open(path_ca, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "b", 1, 0), 1);
	close(fd);
	for (int i = 0; i < 300 && identity_generation(id) == 1; i++) {
		(void)identity_refresh(id);
		usleep(10000);
	}
	assert_int_equal(identity_generation(id), 2);
	identity_close(id);
}

static size_t lines(const char *path)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(1 << 16);
	size_t n = 0;

	assert_int_equal(file_read(path, &sb, NULL), 0);
	for (const char *p = sb.buf; (p = strchr(p, '\n')); p++)
		n++;
	return n;
}

/* A renewal between its two files is nothing to complain of. */
static void a_lasting_misfit_is_logged_once(void **state)
{
	_cleanup_free_ char *path = xasprintf("%s/log", dir);
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
	struct cert c = make(&(struct plan){ .uri = { URI("1") } });
	struct identity *id = NULL;
	int64_t began;

	(void)state;
	assert_true(fd >= 0);
	log_also_to(fd, "");
	do { /* it lasts for a second already when the machine stood still */
		if (id)
			identity_close(id);
		assert_int_equal(ftruncate(fd, 0), 0);
		write_own("EC");
		id = open_own();
		began = now_mono_ms();
		write_key(&c, NULL, 0600);
		assert_false(identity_refresh(id));
	} while (now_mono_ms() - began > 900);
	assert_int_equal(lines(path), 0);
	for (int i = 0; i < 300 && !lines(path); i++) {
		assert_false(identity_refresh(id));
		usleep(10000);
	}
	assert_int_equal(lines(path), 1);
	usleep(1100000);
	assert_false(identity_refresh(id));
	assert_int_equal(lines(path), 1);
	log_also_to(-1, "");
	close(fd);
	cert_free(&c);
	identity_close(id);
}

static void another_authority_is_taken_into_use(void **state)
{
	struct cert c =
	    make(&(struct plan){ .uri = { URI("2") }, .by = &foreign });
	_cleanup_free_ char *one = cert_pem(&authority),
			    *two = cert_pem(&foreign);
	_cleanup_free_ char *both = xasprintf("%s%s", one, two);
	struct identity *id;
	char party[16];

	(void)state;
	write_own("EC");
	id = open_own();
	assert_int_equal(verify(id, &c, 1, party, NULL, NULL), -EACCES);
	write_text(path_ca, both, 0644);
	assert_true(identity_refresh(id));
	assert_int_equal(verify(id, &c, 1, party, NULL, NULL), 0);
	write_text(path_ca, one, 0644);
	assert_true(identity_refresh(id));
	assert_int_equal(verify(id, &c, 1, party, NULL, NULL), -EACCES);
	cert_free(&c);
	identity_close(id);
}

static void what_rollfs_pki_makes_is_good(void **state)
{
	_cleanup_free_ char *line = xasprintf(
	    "d=%s/pki && tools/rollfs-pki ca $d demo && "
	    "tools/rollfs-pki party $d demo 1 && tools/rollfs-pki party $d "
	    "demo 2 host.example && tools/rollfs-pki party $d other 3",
	    dir);
	_cleanup_free_ char *cert = xasprintf("%s/pki/1.pem", dir);
	_cleanup_free_ char *key = xasprintf("%s/pki/1.key", dir);
	_cleanup_free_ char *ca = xasprintf("%s/pki/ca.pem", dir);
	struct conf c = { .certificate = cert,
			  .key = key,
			  .ca = ca,
			  .party = conf.party,
			  .federation = conf.federation };
	struct identity *id = NULL;
	struct err e = { 0 };

	(void)state;
	assert_int_equal(system(line), 0); /* NOLINT: our own script */
	if (identity_open(&c, &id, &e))
		fail_msg("%s", e.text);
	for (int i = 1; i <= 3; i++) {
		_cleanup_strbuf_ struct strbuf pem = STRBUF_INIT(1 << 16);
		_cleanup_free_ char *path = xasprintf("%s/pki/%d.pem", dir, i);
		char party[16], want[16];

		(void)snprintf(want, sizeof(want), "%d", i);
		assert_int_equal(file_read(path, &pem, NULL), 0);
		assert_int_equal(
		    identity_verify_pem(id, pem.buf, party, NULL, NULL, NULL),
		    i == 3 ? -EACCES : 0);
		assert_string_equal(party, i == 3 ? "" : want);
	}
	identity_close(id);
}

/* ---- signatures -------------------------------------------------------- */

static void a_signature_is_over_domain_and_data(void **state)
{
	static const char *const kinds[] = { "EC", "RSA", "ED25519" };
	struct cert other = make(&(struct plan){ .uri = { URI("1") } });

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		_cleanup_strbuf_ struct strbuf pem = STRBUF_INIT(1 << 16);
		_cleanup_free_ char *sig = NULL, *empty = NULL;
		struct identity *id;
		struct err e = { 0 };
		char party[16];
		X509 *x = NULL;

		write_own(kinds[i]);
		id = open_own();
		assert_int_equal(file_read(path_cert, &pem, NULL), 0);
		assert_int_equal(
		    identity_verify_pem(id, pem.buf, party, &x, NULL, NULL), 0);
		assert_int_equal(
		    identity_sign(id, "rollfs test", "ab\0cd", 5, &sig, &e), 0);
		assert_int_equal(
		    signature_check(x, "rollfs test", "ab\0cd", 5, sig, &e), 0);
		assert_int_equal(
		    signature_check(x, "rollfs test", "ab\0ce", 5, sig, &e),
		    -EBADMSG);
		assert_int_equal(
		    signature_check(x, "rollfs test", "ab\0cd", 4, sig, &e),
		    -EBADMSG);
		assert_int_equal(
		    signature_check(x, "rollfs tesT", "ab\0cd", 5, sig, &e),
		    -EBADMSG);
		assert_int_equal(
		    signature_check(x, "rollfs tes", "t\nab\0cd", 7, sig, &e),
		    -EBADMSG);
		assert_int_equal(signature_check(other.x, "rollfs test",
						 "ab\0cd", 5, sig, &e),
				 -EBADMSG);
		assert_int_equal(
		    signature_check(x, "rollfs test", "ab\0cd", 5, "", &e),
		    -EBADMSG);
		assert_int_equal(
		    signature_check(x, "rollfs test", "ab\0cd", 5, "AAAA", &e),
		    -EBADMSG);
		assert_int_equal(
		    signature_check(x, "rollfs test", "ab\0cd", 5, "no", &e),
		    -EBADMSG);
		sig[20] = sig[20] == 'A' ? 'B' : 'A';
		assert_int_equal(
		    signature_check(x, "rollfs test", "ab\0cd", 5, sig, &e),
		    -EBADMSG);
		assert_int_equal(identity_sign(id, "d", "", 0, &empty, &e), 0);
		assert_int_equal(signature_check(x, "d", "", 0, empty, &e), 0);
		X509_free(x);
		identity_close(id);
	}
	cert_free(&other);
}

static void a_domain_is_one_line(void **state)
{
	struct cert c = make(&(struct plan){ .uri = { URI("1") } });
	struct identity *id;
	char *sig = NULL;

	(void)state;
	write_own("EC");
	id = open_own();
	assert_int_equal(identity_sign(id, "a\nb", "c", 1, &sig, NULL),
			 -EINVAL);
	assert_null(sig);
	assert_int_equal(signature_check(c.x, "a\nb", "c", 1, "AAAA", NULL),
			 -EINVAL);
	cert_free(&c);
	identity_close(id);
}

/* ---- threads ----------------------------------------------------------- */

static struct {
	struct identity *id;
	char *pem;
	bool stop;
} shared;

static void *worker(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&shared.stop, __ATOMIC_ACQUIRE)) {
		struct strbuf cert, key, ca;
		_cleanup_free_ char *sig = NULL;
		char party[16];

		if (identity_verify_pem(shared.id, shared.pem, party, NULL,
					NULL, NULL) ||
		    strcmp(party, "2") != 0 ||
		    identity_sign(shared.id, "d", "x", 1, &sig, NULL) ||
		    identity_pem(shared.id, &cert, &key, &ca, NULL))
			return (void *)1; /* NOLINT: just not NULL */
		sb_free(&cert);
		sb_free(&key);
		sb_free(&ca);
		(void)identity_refresh(shared.id);
	}
	return NULL;
}

static void threads_work_while_it_is_renewed(void **state)
{
	struct cert two = make(&(struct plan){ .uri = { URI("2") } });
	pthread_t t[4];
	void *failed;

	(void)state;
	write_own("EC");
	shared.id = open_own();
	shared.pem = cert_pem(&two);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		assert_int_equal(pthread_create(&t[i], NULL, worker, NULL), 0);
	/* Until they have seen some of them. */
	for (int i = 0;
	     i < 20 || (i < 6000 && identity_generation(shared.id) <= 5); i++) {
		write_own(i % 2 ? "EC" : "ED25519");
		usleep(10000);
	}
	__atomic_store_n(&shared.stop, true, __ATOMIC_RELEASE);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		pthread_join(t[i], &failed);
		assert_null(failed);
	}
	assert_true(identity_generation(shared.id) > 5);
	identity_close(shared.id);
	free(shared.pem);
	cert_free(&two);
}

static int setup(void **state)
{
	(void)state;
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(path_cert, sizeof(path_cert), "%s/cert", dir);
	(void)snprintf(path_key, sizeof(path_key), "%s/key", dir);
	(void)snprintf(path_ca, sizeof(path_ca), "%s/ca", dir);
	conf.certificate = path_cert;
	conf.key = path_key;
	conf.ca = path_ca;
	conf.party = xstrdup("1");
	conf.federation = xstrdup("demo");
	authority = make(&(struct plan){ .ca = true, .until = 90 * DAY });
	foreign = make(&(struct plan){ .ca = true, .until = 90 * DAY });
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	cert_free(&authority);
	cert_free(&foreign);
	free(conf.party);
	free(conf.federation);
	return remove_tree(dir, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_certificate_names_its_party),
		cmocka_unit_test(other_uris_beside_ours_do_not_matter),
		cmocka_unit_test(what_is_wrong_with_a_certificate_is_said),
		cmocka_unit_test(a_chain_has_at_most_eight_certificates),
		cmocka_unit_test(
		    an_authority_below_a_root_may_stand_alone_in_the_file),
		cmocka_unit_test(a_party_signs_for_nobody),
		cmocka_unit_test(malformed_certificates_are_refused),
		cmocka_unit_test(files_that_cannot_be_used_are_named),
		cmocka_unit_test(
		    an_expired_certificate_of_ours_does_not_stop_us),
		cmocka_unit_test(a_renewed_certificate_is_taken_into_use),
		cmocka_unit_test(a_set_that_cannot_be_used_leaves_the_old_one),
		cmocka_unit_test(a_change_with_the_same_time_is_noticed_later),
		cmocka_unit_test(a_lasting_misfit_is_logged_once),
		cmocka_unit_test(another_authority_is_taken_into_use),
		cmocka_unit_test(what_rollfs_pki_makes_is_good),
		cmocka_unit_test(a_signature_is_over_domain_and_data),
		cmocka_unit_test(a_domain_is_one_line),
		cmocka_unit_test(threads_work_while_it_is_renewed),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
