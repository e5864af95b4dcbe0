// SPDX-License-Identifier: Apache-2.0
/* Between two real rollsites: who may ask for what, and files. */
#include "tests/unit/sites.h"

/* ---- who may ask -------------------------------------------------------- */

static size_t no_body(char *data, size_t size, size_t n, void *arg)
{
	(void)data;
	(void)arg;
	return size * n;
}

/* The HTTP status, 0 when not even the handshake succeeds. */
static long http(const char *cert, const char *method, const char *path,
		 const char *body, size_t n, const char *header)
{
	_cleanup_free_ char *url =
	    xasprintf("https://127.0.0.1:%u%s", ports[1], path);
	_cleanup_free_ char *pem = xasprintf("%s/%s.pem", dir, cert);
	_cleanup_free_ char *key = xasprintf("%s/%s.key", dir, cert);
	struct curl_slist *h = curl_slist_append(NULL, header);
	CURL *c = curl_easy_init();
	long code = 0;

	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 0L);
	curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 0L);
	curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, no_body);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, h);
	curl_easy_setopt(c, CURLOPT_PROXY, "");
	curl_easy_setopt(c, CURLOPT_TIMEOUT, 20L);
	if (*cert) {
		curl_easy_setopt(c, CURLOPT_SSLCERT, pem);
		curl_easy_setopt(c, CURLOPT_SSLKEY, key);
	}
	if (body) {
		curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE, (long)n);
		curl_easy_setopt(c, CURLOPT_POSTFIELDS, body);
	}
	if (curl_easy_perform(c) == CURLE_OK)
		curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &code);
	curl_easy_cleanup(c);
	curl_slist_free_all(h);
	return code;
}

static long hello(const char *cert)
{
	return http(cert, "GET", "/v1/hello", NULL, 0, "X: x");
}

static void only_certificates_of_known_parties_are_served(void **state)
{
	(void)state;
	assert_int_equal(hello("pki/1"), 200);
	assert_int_equal(hello(""), 403);
	assert_int_equal(hello("foreign/1"), 403);
	assert_int_equal(hello("pki/5"), 403); /* another federation */
	assert_int_equal(hello("pki/4"), 403); /* not configured */
	assert_int_equal(http("", "POST", "/v1/rpc/echo", "{}", 2, "X: x"),
			 403);
}

static long ask(const char *method, const char *path, const char *body,
		size_t n)
{
	return http("pki/1", method, path, body, n, "X: x");
}

/* The announcement of a file of party 1 under this path, as another source
 * perhaps; what it is asked under is always its own. */
static long announce(const char *src, const char *path)
{
	struct object o = { .kind = OBJECT_FILE,
			    .dst = "2",
			    .path = (char *)path,
			    .generation = 1,
			    .chunk_size = CHUNK_DEFAULT,
			    .size = 1,
			    .created_ms = 1 };
	_cleanup_free_ char *text = NULL, *target = NULL;
	json_t *doc;

	(void)snprintf(o.src, sizeof(o.src), "%s", src);
	object_identify(&o);
	doc = object_json(&o, false);
	text = json_text(doc, false);
	json_decref(doc);
	target = xasprintf("/v1/transfers/%s", o.tid);
	return ask("PUT", target, text, strlen(text));
}

static void requests_out_of_the_contract_are_refused(void **state)
{
	static const char head[] = "\x02\0\0\0{}the rest of what is no message";
	static const char *const none[][2] = {
		{ "GET", "/" },
		{ "DELETE", "/v1/hello" },
		{ "POST", "/v1/rpc/../x" },
		{ "POST", "/v1/rpc/" },
		{ "PUT", "/v1/messages" },
		{ "PUT", "/v1/files" },
		{ "GET", "/v1/card/x" },
		{ "POST", "/v1/relay/0x2" },
		{ "POST", "/v1/transfers/TID" },
		{ "PUT", "/v1/transfers/TI" },
		{ "PUT", "/v1/transfers/TID/chunks/" },
		{ "PUT", "/v1/transfers/TID/chunks/1x" },
		{ "PUT", "/v1/transfers/TID/chunks/-1" },
		{ "GET", "/v1/transfers/TID/chunks/1" },
		{ "GET", "/v1/transfers/TID" }, /* there is none */
	};
	static const char tid[] =
	    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
	_cleanup_free_ char *one = xasprintf("/v1/transfers/%s", tid);
	_cleanup_free_ char *commit = xasprintf("%s/commit", one);
	_cleanup_free_ char *large = xcalloc(1, DOCUMENT_MAX + 1);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
		const char *at = strstr(none[i][1], "TID");
		_cleanup_free_ char *path =
		    at ? xasprintf("%.*s%s%s", (int)(at - none[i][1]),
				   none[i][1], tid, at + 3)
		       : xstrdup(none[i][1]);

		assert_int_equal(ask(none[i][0], path,
				     none[i][0][0] == 'P' ? "{}" : NULL, 2),
				 404);
	}
	assert_int_equal(ask("POST", "/v1/messages", "x", 1), 400);
	assert_int_equal(ask("POST", "/v1/messages", head, sizeof(head)), 400);
	assert_int_equal(ask("POST", "/v1/messages", "\xff\xff\xff\xff....", 8),
			 400);
	assert_int_equal(ask("POST", "/v1/rpc/echo", "{\"a\"", 4), 400);
	assert_int_equal(ask("PUT", one, "{", 1), 400);
	assert_int_equal(ask("PUT", one, "{}", 2), 400);
	assert_int_equal(ask("PUT", one, large, DOCUMENT_MAX + 1), 413);
	assert_int_equal(ask("POST", commit, "", 0), 400);
	assert_int_equal(ask("POST", commit, head, sizeof(head)), 400);
	assert_int_equal(ask("POST", commit, "\xff\xff\xff\xff{}", 6), 400);
	assert_int_equal(announce("3", "x"), 403); /* certificate of 1 */
	assert_int_equal(announce("1", "fine"), 201);
	assert_int_equal(announce("1", "fine"), 200);
}

static void a_partner_with_anothers_certificate_is_not_spoken_to(void **state)
{
	_cleanup_free_ char *d =
	    xasprintf("%s/parties/3", sites[0].conf->state);
	_cleanup_free_ char *path = xasprintf("%s/address", d);
	_cleanup_free_ char *url =
	    xasprintf("https://127.0.0.1:%u\n", ports[1]);
	struct answer a;

	(void)state;
	OK(mkdir_p(d, 0700, &e));
	OK(file_replace(path, url, strlen(url), 0600, false, &e));
	OK(transfer_parties_reload(sites[0].t, &e));
	call(&a, 0, "3", "echo", json_object());
	assert_int_equal(a.status, -EACCES);
	assert_non_null(strstr(a.text, "certificate"));
	OK(remove_tree(d, &e));
	OK(transfer_parties_reload(sites[0].t, &e));
}

/* Or asks for it. */
static bool pinged(const char *party)
{
	_cleanup_free_ char *s = transfer_ping_text(sites[0].t, party);

	if (!strncmp(s, "ok ", 3))
		return true;
	transfer_ping_refresh(sites[0].t, party);
	return false;
}

static void the_last_ping_is_known(void **state)
{
	char *s;

	(void)state;
	EVENTUALLY(pinged("2"));
	s = transfer_version_text(sites[0].t, "2");
	assert_non_null(strstr(s, "\"party\": \"2\""));
	free(s);
	s = transfer_certificate_text(sites[0].t, "2");
	assert_non_null(s);
	assert_memory_equal(s, "-----BEGIN CERTIFICATE-----", 27);
	free(s);
	s = transfer_ping_text(sites[0].t, "3");
	assert_memory_equal(s, "failed ", 7);
	free(s);
	s = transfer_metrics_text(sites[0].t);
	assert_non_null(strstr(s, "rollfs_messages_sent_total{party=\"2\"} "));
	free(s);
}

/* ---- files -------------------------------------------------------------- */

static int put(int i, const char *party, const char *path, const char *text)
{
	_cleanup_free_ char *spool =
	    xasprintf("%s/federation/%s/spool", sites[i].conf->state, party);
	_cleanup_free_ char *file = xasprintf("%s/new", spool);
	struct err e = { 0 };
	int r = mkdir_p(spool, 0700, &e);

	if (!r)
		r = file_replace(file, text, strlen(text), 0600, false, &e);
	if (!r)
		r = transfer_file_put(sites[i].t, party, path, file, &e);
	return r;
}

static void on_file(void *arg, int status)
{
	struct err e = { 0 };

	on_answer(arg, status, NULL, &e);
}

static int committed(int i, const char *party, const char *path)
{
	struct answer a = { .left = 1 };

	pthread_mutex_init(&a.lock, NULL);
	pthread_cond_init(&a.cond, NULL);
	transfer_file_wait(sites[i].t, party, path, on_file, &a);
	pthread_mutex_lock(&a.lock);
	while (a.left)
		pthread_cond_wait(&a.cond, &a.lock);
	pthread_mutex_unlock(&a.lock);
	return a.status;
}

static void expect_file(int i, const char *from, const char *path,
			const char *text)
{
	_cleanup_free_ char *file = xasprintf("%s/federation/%s/in/%s",
					      sites[i].conf->state, from, path);
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(32u << 20);

	OK(file_read(file, &sb, &e));
	assert_string_equal(sb.buf, text);
}

static pthread_mutex_t inbox_lock = PTHREAD_MUTEX_INITIALIZER;
static char inbox[400];

static bool inbox_is(const char *text)
{
	bool same;

	pthread_mutex_lock(&inbox_lock);
	same = !strcmp(inbox, text);
	pthread_mutex_unlock(&inbox_lock);
	return same;
}

static void on_inbox(void *arg, const char *party, const char *path)
{
	(void)arg;
	pthread_mutex_lock(&inbox_lock);
	(void)snprintf(inbox, sizeof(inbox), "%s %s", party, path);
	pthread_mutex_unlock(&inbox_lock);
}

static void a_file_arrives_and_the_receiver_is_told(void **state)
{
	json_t *o;

	(void)state;
	transfer_on_inbox(sites[1].t, on_inbox, NULL);
	assert_int_equal(put(0, "2", "a/b c.txt", "content"), 0);
	assert_int_equal(committed(0, "2", "a/b c.txt"), 0);
	expect_file(1, "1", "a/b c.txt", "content");
	EVENTUALLY(inbox_is("1 a/b c.txt"));
	o = transfer_file_state(sites[0].t, "2", "a/b c.txt");
	assert_string_equal(json_str_or(o, "state", ""), "committed");
	assert_int_equal(json_int_or(o, "acknowledged", 0), 7);
	json_decref(o);
}

static void a_file_written_again_replaces_the_old_one(void **state)
{
	(void)state;
	assert_int_equal(put(0, "2", "again", "one"), 0);
	assert_int_equal(committed(0, "2", "again"), 0);
	assert_int_equal(put(0, "2", "again", "two, longer"), 0);
	assert_int_equal(committed(0, "2", "again"), 0);
	expect_file(1, "1", "again", "two, longer");
	/* Quickly after one another: the last one counts. */
	for (int i = 0; i < 20; i++)
		assert_int_equal(put(0, "2", "again", "x"), 0);
	assert_int_equal(put(0, "2", "again", "the last"), 0);
	assert_int_equal(committed(0, "2", "again"), 0);
	expect_file(1, "1", "again", "the last");
}

static void a_large_file_survives_the_death_of_both_rollsites(void **state)
{
	_cleanup_free_ char *big = xmalloc(20000001);

	(void)state;
	memset(big, 'x', 20000000);
	big[20000000] = '\0';
	assert_int_equal(put(0, "2", "big", big), 0);
	kill_site(1);
	pause_ms(30);
	kill_site(0);
	assert_int_equal(committed(0, "2", "big"), 0);
	expect_file(1, "1", "big", big);
}

static void a_withdrawn_file_is_not_waited_for(void **state)
{
	(void)state;
	assert_int_equal(put(0, "3", "gone", "x"), 0);
	assert_true(exists("/federation/3/out/", sites[0].conf->state, "gone"));
	OK(transfer_file_remove(sites[0].t, "3", "gone", &e));
	assert_false(
	    exists("/federation/3/out/", sites[0].conf->state, "gone"));
	assert_int_equal(committed(0, "3", "gone"), -ENOENT);
	assert_null(transfer_file_state(sites[0].t, "3", "gone"));
}

static void a_push_that_is_not_allowed_fails_for_good(void **state)
{
	(void)state;
	assert_int_equal(put(1, "1", "x", "not wanted"), 0);
	assert_int_equal(committed(1, "1", "x"), -EACCES);
	assert_false(exists("/federation/2/in/", sites[0].conf->state, "x"));
}

static void paths_out_of_the_rules_are_refused(void **state)
{
	static const char *const bad[] = { "..", "../x", "a/../b",
					   "/x", "a//b", "a/",
					   "",	 "./a",	 "a/\x01/b" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(put(0, "2", bad[i], "x"), -EINVAL);
		assert_int_equal(announce("1", bad[i]), 400);
	}
}

static void a_symlink_in_the_inbox_is_not_followed(void **state)
{
	_cleanup_free_ char *in =
	    xasprintf("%s/federation/1/in", sites[1].conf->state);
	_cleanup_free_ char *link = xasprintf("%s/link", in);

	(void)state;
	OK(mkdir_p(in, 0700, &e));
	assert_int_equal(symlink(dir, link), 0);
	assert_int_equal(put(0, "2", "link/owned", "x"), 0);
	assert_int_equal(committed(0, "2", "link/owned"), -EACCES);
	assert_false(exists("/", dir, "owned"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_certificates_of_known_parties_are_served),
		cmocka_unit_test(requests_out_of_the_contract_are_refused),
		cmocka_unit_test(
		    a_partner_with_anothers_certificate_is_not_spoken_to),
		cmocka_unit_test(the_last_ping_is_known),
		cmocka_unit_test(a_file_arrives_and_the_receiver_is_told),
		cmocka_unit_test(a_file_written_again_replaces_the_old_one),
		cmocka_unit_test(
		    a_large_file_survives_the_death_of_both_rollsites),
		cmocka_unit_test(a_withdrawn_file_is_not_waited_for),
		cmocka_unit_test(a_push_that_is_not_allowed_fails_for_good),
		cmocka_unit_test(paths_out_of_the_rules_are_refused),
		cmocka_unit_test(a_symlink_in_the_inbox_is_not_followed),
	};

	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, world_up, world_down) + complaints;
}
