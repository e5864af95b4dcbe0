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
		{ GOOD "[party 9]\nurl = http://x:1\n", ":14: url: expected" },
		{ GOOD "allow = modul *\n", ":13: allow: " },
		{ GOOD "nonsense\n", ":13: expected 'key = value'" },
		{ GOOD "[rollfs]\ncores = 0\n", ":14: cores: expected" },
		{ GOOD "[rollfs]\nparty = 5\n", ":14: party stands twice" },
		{ GOOD "[party 9999]\nurl = https://a:1\n", ":2: party 9999" },
		{ "party = 1\n", ":1: 'party' stands before any section" },
		{ "[rollfs]\nlisten = 1234\n", ":2: listen: expected" },
		{ "[rollfs]\nparty = 1\n", "lacks federation" },
		{ GOOD "[party 5]\n", "[party 5] lacks url" },
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
		cmocka_unit_test(a_key_others_can_read_is_refused),
		cmocka_unit_test(rules_permit_only_what_they_say),
		cmocka_unit_test(what_the_mount_wrote_wins),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
