// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "lib/conf.h"
#include "lib/fileio.h"

static char dir[] = "/tmp/rollfs-test-conf-XXXXXX";

#define GOOD                                                          \
	"[rollfs]\nparty = 9999\nfederation = demo\nstate = s\n"      \
	"listen = 127.0.0.1:9443\ncertificate = p.pem\nkey = p.key\n" \
	"ca = p.pem\n[party 10000]\nurl = https://127.0.0.1:9444/\n"  \
	"allow = module *\nallow = table experiment/*\n"

static void put(const char *name, const char *text, mode_t mode)
{
	char path[300];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(
	    file_replace(path, text, strlen(text), mode, false, NULL), 0);
}

static int load(const char *text, struct conf **ret, struct err *e)
{
	char path[300];

	put("c.conf", text, 0600);
	(void)snprintf(path, sizeof(path), "%s/c.conf", dir);
	return conf_load(path, ret, e);
}

static int setup(void **state)
{
	char path[300];

	(void)state;
	if (!mkdtemp(dir))
		return -1;
	put("p.pem", "", 0644);
	put("p.key", "", 0600);
	(void)snprintf(path, sizeof(path), "%s/s/parties/77", dir);
	return mkdir_p(path, 0700, NULL);
}

static int teardown(void **state)
{
	(void)state;
	return remove_tree(dir, NULL);
}

static void a_good_file_is_taken_whole(void **state)
{
	struct conf *c = NULL;
	struct err e = { 0 };
	char want[300];

	(void)state;
	assert_int_equal(load(GOOD, &c, &e), 0);
	assert_string_equal(c->party, "9999");
	assert_string_equal(c->listen_host, "127.0.0.1");
	assert_int_equal(c->listen_port, 9443);
	(void)snprintf(want, sizeof(want), "%s/s", dir);
	assert_string_equal(c->state, want);
	assert_int_equal(c->lease_s, 60);
	assert_int_equal(c->cache_days, 30);
	assert_true(c->cores >= 1);
	assert_int_equal(c->n_parties, 1);
	assert_string_equal(c->parties[0].url, "https://127.0.0.1:9444");
	assert_string_equal(c->parties[0].allow,
			    "module *\ntable experiment/*\n");
	conf_free(c);
}

static void defects_name_the_line(void **state)
{
	static const struct {
		const char *text, *want;
	} t[] = {
		{ GOOD "what = 1\n", ":13: unknown key 'what'" },
		{ GOOD "url = https://a:1\n", ":13: url stands twice" },
		{ GOOD "[parti 1]\n", ":13: unknown section" },
		{ GOOD "[party 10000]\n", ":13: [party 10000] stands twice" },
		{ GOOD "[party 01]\n", ":13: [party ID]" },
		{ GOOD "[party 9]\nurl = http://x:1\n",
		  ":14: url: expected one line, 'https://" },
		{ GOOD "allow = modul *\n", ":13: allow: " },
		{ GOOD "nonsense\n", ":13: expected 'key = value'" },
		{ GOOD "[rollfs]\ncores = 0\n", ":14: cores: expected" },
		{ GOOD "[rollfs]\nparty = 5\n", ":14: party stands twice" },
		{ GOOD "[party 9999]\nurl = https://a:1\n", ":2: party 9999" },
		{ "party = 1\n", ":1: 'party' stands before any section" },
		{ "[rollfs]\nlisten = 1234\n", ":2: listen: expected" },
		{ "[rollfs]\nparty = 1\n", "lacks federation" },
		{ GOOD "[party 5]\n", ":13: [party 5] lacks address (https:" },
		{ GOOD "address = reverse\n",
		  ":13: address stands twice in [party 10000] (first on "
		  "line 10)" },
		{ GOOD "[party 5]\naddress = https://x\n",
		  ":14: address: https://host:port: the port is missing" },
		{ GOOD "[party 5]\naddress = https://x:0\n",
		  ":14: address: https://host:port: a host name" },
		{ GOOD "[party 5]\naddress = via 6\n",
		  ":14: address: 'via 6': party 6 is not known here" },
		{ GOOD "[party 5]\naddress = via 5\n",
		  ":14: address: 'via 5': the way to party 5 leads through" },
		{ GOOD "[party 5]\naddress = via 9999\n",
		  ":14: address: 'via 9999': that is this party" },
		{ GOOD "[party 5]\naddress = via 6\n"
		       "[party 6]\naddress = via 5\n",
		  ":14: address: 'via 6': the way to party 5 leads through" },
		{ GOOD "allow = limit size 1K\nallow = limit size 2K\n",
		  ":14: allow: limit size stands twice" },
		{ GOOD "allow = limit seize 1K\n",
		  ":13: allow: expected 'limit size|quota|" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		struct conf *c = NULL;
		struct err e = { 0 };

		assert_int_equal(load(t[i].text, &c, &e), -EINVAL);
		if (!strstr(e.text, t[i].want))
			fail_msg("'%s' lacks '%s'", e.text, t[i].want);
	}
}

/* GOOD with another value for listen. */
static void load_listen(const char *listen, const char *more, struct conf **ret,
			struct err *e, int want)
{
	char text[1000];
	static const char key[] = "listen = ";
	const char *at = strstr(GOOD, key);

	(void)snprintf(text, sizeof(text), "%.*s%s%s%s",
		       (int)(at - GOOD + (ptrdiff_t)strlen(key)), GOOD, listen,
		       strchr(at, '\n'), more);
	assert_int_equal(load(text, ret, e), want);
}

static void a_party_need_not_listen(void **state)
{
	struct conf *c = NULL;
	struct err e = { 0 };

	(void)state;
	load_listen("none", "", &c, &e, 0);
	assert_null(c->listen_host);
	assert_int_equal(c->listen_port, 0);
	conf_free(c);
	load_listen("none", "[party 5]\naddress = reverse\n", &c, &e, -EINVAL);
	assert_non_null(strstr(e.text, ":14: address: 'reverse' needs us"));
	load_listen("never", "", &c, &e, -EINVAL);
	assert_non_null(
	    strstr(e.text, ":5: listen: expected host:port or none"));
}

static void addresses_have_three_forms(void **state)
{
	static const char *const good[] = {
		"https://a.b:1",	  "https://[::1]:65535",
		"https://127.0.0.1:9443", "via 1",
		"via 1234567890",	  "reverse"
	};
	static const char *const bad[] = { "",
					   "https://",
					   "https://a",
					   "https://:1",
					   "https://a:1/",
					   "https://a:1\nvia 2",
					   "https://a:65536",
					   "https://a:1x",
					   "https://a b:1",
					   "https://::1:1",
					   "https://[::1]",
					   "HTTPS://a:1",
					   "http://a:1",
					   "via",
					   "via ",
					   "via  1",
					   "via 01",
					   "via 12345678901",
					   "via 1 2",
					   "Via 1",
					   "reverse ",
					   " reverse",
					   "reversed" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(address_check(good[i], NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct err e = { 0 };

		assert_int_equal(address_check(bad[i], &e), -EINVAL);
		assert_non_null(strstr(e.text, "https://host:port"));
	}
}

static void both_names_of_an_address_are_taken(void **state)
{
	struct conf *c = NULL;
	const struct conf_party *p;

	(void)state;
	assert_int_equal(load(GOOD "[party 1]\naddress = via 10000\n"
				   "[party 2]\nurl = reverse\n",
			      &c, NULL),
			 0);
	p = conf_party(c, "1");
	assert_string_equal(p->url, "via 10000");
	p = conf_party(c, "2");
	assert_string_equal(p->url, "reverse");
	conf_free(c);
}

static void relays_are_looked_for_in_what_stands_now(void **state)
{
	struct conf *c = NULL;
	struct err e = { 0 };

	(void)state;
	put("s/parties/77/address", "via 10000\n", 0600);
	assert_int_equal(load(GOOD, &c, NULL), 0);
	assert_int_equal(party_address_check(c, "5", "via 77", &e), 0);
	assert_int_equal(party_address_check(c, "5", "via 78", &e), -EINVAL);
	assert_int_equal(party_address_check(c, "5", "reverse", &e), 0);
	assert_int_equal(party_address_check(c, "5", "https://h:1", &e), 0);
	assert_int_equal(party_address_check(c, "10000", "via 77", &e),
			 -EINVAL);
	assert_non_null(strstr(e.text, "leads through itself"));
	conf_free(c);
}

static void limits_have_one_value_each(void **state)
{
	static const char rules[] =
	    "limit size 5G # each\npush *\n limit\tquota  1T\n"
	    "limit floor 0\nlimit transfers 8\n";
	static const char *const bad[] = {
		"limit",
		"limit size",
		"limit size\n",
		"limit size x",
		"limit size -1",
		"limit size 0",
		"limit size 1 K",
		"limit size 1KB",
		"limit size 1k",
		"limit size 1.5G",
		"limit size K",
		"limit sizes 1",
		"limit 5",
		"limit *",
		"limit size 18446744073709551616",
		"limit size 9223372036854775808",
		"limit size 16777216T",
		"limit size 8388608T",
		"limit transfers 65536",
		"limit transfers 0",
		"limit rate 1\nlimit floor 1\nlimit rate 1\n",
	};
	struct err e = { 0 };
	uint64_t v = 7;

	(void)state;
	assert_int_equal(allow_check(rules, &e), 0);
	assert_true(allow_limit(rules, "size", &v));
	assert_int_equal(v, 5ull << 30);
	assert_true(allow_limit(rules, "quota", &v));
	assert_int_equal(v, 1ull << 40);
	assert_true(allow_limit(rules, "floor", &v));
	assert_int_equal(v, 0);
	assert_true(allow_limit(rules, "transfers", &v));
	assert_int_equal(v, 8);
	assert_false(allow_limit(rules, "rate", &v));
	assert_int_equal(v, 8);
	assert_false(allow_limit("", "size", &v));
	assert_true(allow_limit("limit size 9223372036854775807", "size", &v));
	assert_int_equal(v, INT64_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		e = (struct err){ 0 };
		assert_int_equal(allow_check(bad[i], &e), -EINVAL);
		assert_memory_equal(e.text, "line ", 5);
		assert_non_null(strstr(e.text, "limit"));
	}
	assert_int_equal(allow_check("limit rate 1\n\n#\nlimit rate 1\n", &e),
			 -EINVAL);
	assert_string_equal(e.text, "line 4: limit rate stands twice (first as "
				    "line 1): one value each is allowed");
}

static void a_key_others_can_read_is_refused(void **state)
{
	struct conf *c = NULL;
	struct err e = { 0 };

	(void)state;
	put("p.key", "", 0640);
	(void)umask(0);
	put("p.key", "", 0640);
	assert_int_equal(load(GOOD, &c, &e), -EINVAL);
	assert_non_null(strstr(e.text, ":7: key: group or others"));
	put("p.key", "", 0600);
}

static void rules_permit_only_what_they_say(void **state)
{
	static const char rules[] = "# comment\nmodule HeteroLR\nrole guest\n"
				    "table experiment/*\ntable a/b # one\n";

	(void)state;
	assert_int_equal(allow_check(rules, NULL), 0);
	assert_true(allow_permits(rules, "module", "HeteroLR"));
	assert_false(allow_permits(rules, "module", "Reader"));
	assert_true(allow_permits(rules, "table", "experiment/x"));
	assert_false(allow_permits(rules, "table", "experiments/x"));
	assert_true(allow_permits(rules, "table", "a/b"));
	assert_false(allow_permits(rules, "table", "a/bc"));
	assert_false(allow_permits(rules, "push", "*"));
	assert_false(allow_permits("", "module", "Reader"));
	assert_true(allow_permits("module *\n", "module", "Reader"));
	assert_true(allow_permits("relay 5\n", "relay", "5"));
	assert_false(allow_permits("relay 5\n", "relay", "55"));
	assert_true(allow_permits("relay *\n", "relay", "55"));
	assert_false(allow_permits("limit size 5\n", "relay", "5"));
	assert_int_equal(allow_check("relay 5\nrelay 6\nrelay *", NULL), 0);
	assert_int_equal(allow_check("relay", NULL), -EINVAL);
	assert_int_equal(allow_check("relay 05", NULL), -EINVAL);
	assert_int_equal(allow_check("relay 5 6", NULL), -EINVAL);
	assert_int_equal(allow_check("relay 12345678901234567890", NULL),
			 -EINVAL);
	assert_int_equal(allow_check("module A B", NULL), -EINVAL);
	assert_int_equal(allow_check("role boss", NULL), -EINVAL);
	assert_int_equal(allow_check("table nothing", NULL), -EINVAL);
}

static void what_the_mount_wrote_wins(void **state)
{
	struct conf *c = NULL;
	char **list, *s;

	(void)state;
	put("s/parties/77/address", "https://z:1\n", 0600);
	assert_int_equal(load(GOOD, &c, NULL), 0);
	list = party_list(c);
	assert_string_equal(list[0], "77");
	assert_string_equal(list[1], "10000");
	assert_null(list[2]);
	free(list[0]);
	free(list[1]);
	free(list);
	s = party_address(c, "77");
	assert_string_equal(s, "https://z:1");
	free(s);
	s = party_allow(c, "77");
	assert_string_equal(s, "");
	free(s);
	assert_null(party_address(c, "78"));
	assert_null(party_allow(c, "../77"));
	conf_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_file_is_taken_whole),
		cmocka_unit_test(defects_name_the_line),
		cmocka_unit_test(a_party_need_not_listen),
		cmocka_unit_test(addresses_have_three_forms),
		cmocka_unit_test(both_names_of_an_address_are_taken),
		cmocka_unit_test(relays_are_looked_for_in_what_stands_now),
		cmocka_unit_test(limits_have_one_value_each),
		cmocka_unit_test(a_key_others_can_read_is_refused),
		cmocka_unit_test(rules_permit_only_what_they_say),
		cmocka_unit_test(what_the_mount_wrote_wins),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
