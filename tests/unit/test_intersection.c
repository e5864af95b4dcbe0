// SPDX-License-Identifier: Apache-2.0
/* Intersection between real parties: exactly the common rows, or a refusal. */
#include <dirent.h>
#include <math.h>
#include <sys/stat.h>

#include "components/intersection.h"
#include "tests/unit/id_tables.h"

extern const struct component component_intersection;

/* Pieces of a few ids, and spools that spill. */
static int run_small(struct ctx *c, struct err *e)
{
	static const struct psi_limits small = { .bytes = 4096,
						 .window = 2,
						 .memory = 10000 };

	return intersection_run(c, &small, e);
}
static const struct component small_pieces = { .run = run_small };
static const struct component *the_component = &component_intersection;

#define HOST_MAX 2

static struct ctx ctx[HOST_MAX + 1];

static const char rsa[] = "{\"intersect_method\": \"rsa\", "
			  "\"rsa_params\": {\"key_length\": 1024}}";
static const char ecdh[] = "{\"intersect_method\": \"ecdh\"}";
static const char dh[] = "{\"intersect_method\": \"dh\"}";
static const char split[] =
    "{\"intersect_method\": \"rsa\", \"rsa_params\": {\"key_length\": 1024, "
    "\"split_calculation\": true}}";

/* ctx[0] is the guest; s and params one per party. */
static void run_job(const char *const *params, const struct ids *s,
		    size_t hosts)
{
	struct err e = { 0 };

	memset(ctx, 0, sizeof(ctx));
	bus.hosts = hosts;
	for (size_t k = 0; k <= hosts; k++) {
		char name[24];

		(void)snprintf(name, sizeof(name), "party%zu", k);
		ctx[k].role = k ? "host" : "guest";
		ctx[k].index = k ? k - 1 : 0;
		ctx[k].params = json_parse(params[k], strlen(params[k]), &e);
		assert_non_null(ctx[k].params);
		ctx[k].table = make_table(name, &s[k]);
	}
	parties_run(ctx, hosts + 1, the_component);
}

static void run_same(const char *params, const struct ids *s, size_t hosts)
{
	const char *all[HOST_MAX + 1] = { params, params, params };

	run_job(all, s, hosts);
	for (size_t k = 0; k <= hosts; k++)
		if (ctx[k].status)
			fail_msg("%s %zu: %s", ctx[k].role, ctx[k].index,
				 ctx[k].err.text);
}

/* How many numbers are in all n. */
static size_t common(const struct ids *s, size_t n)
{
	size_t due = 0;

	for (size_t id = s->from; id < s->to; id++) {
		size_t k = 0;

		while (k < n && has(&s[k], id))
			k++;
		due += k == n;
	}
	return due;
}

/* The output of a party is the rows in all of s, each with its own cells. */
static void check_output(const struct ctx *c, const struct ids *s, size_t n,
			 bool cells_too)
{
	_cleanup_table_ struct table *t = NULL;
	struct table_iter *it;
	const struct cell *cells;
	const char *key;
	char name[40], want[48];
	size_t len, rows = 0, due = common(s, n);
	struct err e = { 0 };

	(void)snprintf(name, sizeof(name), "%s%zu", c->role, c->index);
	assert_int_equal(table_open(store, "out", name, &t, &e), 0);
	assert_int_equal(table_rows(t), due);
	assert_int_equal(table_schema(t)->n_columns, cells_too ? 1 : 0);
	assert_int_equal(table_scan(t, NULL, 0, &it, &e), 0);
	/* As many rows as are due, all different, each of them due: equal. */
	while (table_next(it, &key, &len, &cells, &e) > 0) {
		const char *dash = memchr(key, '-', len);
		_cleanup_free_ char *text = strndup(key, len);
		size_t id;

		assert_non_null(dash);
		id = strtoul(text + (dash + 1 - key), NULL, 10);
		name_id(want, sizeof(want), id);
		assert_int_equal(len, strlen(want));
		assert_memory_equal(key, want, len);
		for (size_t k = 0; k < n; k++)
			assert_true(has(&s[k], id));
		if (cells_too)
			assert_int_equal(cells[0].i64, id);
		rows++;
	}
	table_scan_end(it);
	assert_int_equal(rows, due);
}

static void check_all(const struct ids *s, size_t hosts)
{
	for (size_t k = 0; k <= hosts; k++)
		check_output(&ctx[k], s, hosts + 1, true);
}

static int64_t counted(const struct ctx *c)
{
	return json_int_or(c->summary, "intersect_count", -1);
}

static const char *cache_dir(const char *role)
{
	static char dir[160];

	(void)snprintf(dir, sizeof(dir), "%s/cache-%s0", harness_dir, role);
	return dir;
}

/* The last byte of every list of a party is lost. */
static void cut_cache(const char *role)
{
	_cleanup_free_ char *dir =
	    xasprintf("%s/intersection", cache_dir(role));
	struct dirent *d;
	struct stat st;
	DIR *at = opendir(dir);

	assert_non_null(at);
	while ((d = readdir(at))) {
		_cleanup_free_ char *path = xasprintf("%s/%s", dir, d->d_name);

		if (d->d_name[0] == '.')
			continue;
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(truncate(path, st.st_size - 1), 0);
	}
	closedir(at);
}

/* Of all parties exactly the rows that all have, and their number is told. */
static void common_rows_come_out(const char *params, const struct ids *s,
				 size_t hosts)
{
	run_same(params, s, hosts);
	check_all(s, hosts);
	for (size_t k = 0; k <= hosts; k++)
		assert_int_equal(counted(&ctx[k]), common(s, hosts + 1));
	parties_end(ctx, hosts + 1);
}

/* ---- tests ------------------------------------------------------------ */

static void exactly_the_common_rows_come_out(const char *params)
{
	static const struct ids s[] = { { 0, 5000, 1 }, { 3000, 9000, 2 } };

	run_same(params, s, 1);
	check_all(s, 1);
	assert_int_equal(counted(&ctx[0]), 1000);
	assert_int_equal(counted(&ctx[1]), 1000);
	assert_true(fabs(json_num_or(ctx[0].summary, "intersect_rate", 0) -
			 .2) < 1e-12);
	assert_true(fabs(json_num_or(ctx[1].summary, "intersect_rate", 0) -
			 1.0 / 3) < 1e-12);
	parties_end(ctx, 2);
}

static void rsa_gives_exactly_the_common_rows(void **state)
{
	(void)state;
	exactly_the_common_rows_come_out(rsa);
}

static void ecdh_gives_exactly_the_common_rows(void **state)
{
	(void)state;
	exactly_the_common_rows_come_out(ecdh);
}

static void raw_never_sends_ids_but_does_ecdh(void **state)
{
	(void)state;
	exactly_the_common_rows_come_out("{\"intersect_method\": \"raw\"}");
}

static void two_hosts_keep_what_all_three_have(void **state)
{
	static const struct ids s[] = { { 0, 4500, 1 },
					{ 0, 9000, 3 },
					{ 1500, 6000, 2 } };

	(void)state;
	common_rows_come_out(rsa, s, 2);
	common_rows_come_out(ecdh, s, 2);
}

static void nothing_in_common_is_an_empty_table(void **state)
{
	static const struct ids s[] = { { 0, 300, 1 }, { 300, 700, 1 } };

	(void)state;
	common_rows_come_out(rsa, s, 1);
	common_rows_come_out(ecdh, s, 1);
}

/* 4096 bytes are 128 points, 32 RSA numbers, 256 tags, 1024 places. */
static void pieces_that_are_just_full(void **state)
{
	static const struct ids s[] = { { 0, 1024, 1 }, { 0, 4096, 1 } };
	static const struct ids t[] = { { 0, 4097, 1 }, { 5, 6, 1 } };

	(void)state;
	the_component = &small_pieces;
	common_rows_come_out(ecdh, s, 1);
	common_rows_come_out(rsa, s, 1);
	common_rows_come_out(ecdh, t, 1);
	the_component = &component_intersection;
}

static void lists_that_spill_give_the_same(void **state)
{
	static const struct ids s[] = { { 0, 4500, 1 },
					{ 0, 9000, 3 },
					{ 1500, 6000, 2 } };

	(void)state;
	the_component = &small_pieces;
	common_rows_come_out(ecdh, s, 2);
	common_rows_come_out(rsa, s, 2);
	common_rows_come_out(split, s, 1);
	the_component = &component_intersection;
}

static void dh_gives_exactly_the_common_rows(void **state)
{
	static const struct ids s[] = { { 0, 60, 1 }, { 20, 99, 2 } };

	(void)state;
	common_rows_come_out(dh, s, 1);
}

static void split_calculation_gives_exactly_the_common_rows(void **state)
{
	static const struct ids none[] = { { 0, 50, 1 }, { 50, 51, 1 } };

	(void)state;
	exactly_the_common_rows_come_out(split);
	common_rows_come_out(split, none, 1);
}

/* Only the number, and no row at either party. */
static void cardinality_only_gives_the_number(void **state)
{
	static const struct ids s[] = { { 0, 5000, 1 }, { 3000, 9000, 2 } };
	static const struct ids none[] = { { 0, 1, 1 }, { 1, 2, 1 } };

	(void)state;
	for (int told = 0; told < 2; told++) {
		run_same(told ? "{\"cardinality_only\": true, "
				"\"sync_cardinality\": true}"
			      : "{\"cardinality_only\": true}",
			 s, 1);
		assert_int_equal(counted(&ctx[0]), 1000);
		assert_int_equal(counted(&ctx[1]), told ? 1000 : -1);
		check_output(&ctx[0], none, 2, true);
		check_output(&ctx[1], none, 2, true);
		parties_end(ctx, 2);
	}
	the_component = &small_pieces;
	run_same("{\"cardinality_only\": true}", s, 1);
	assert_int_equal(counted(&ctx[0]), 1000);
	parties_end(ctx, 2);
	the_component = &component_intersection;
}

/* Messages of a name in a run with run_cache. */
static size_t lists_sent(const char *params, const struct ids *s,
			 const char *name)
{
	bus.watch = name;
	common_rows_come_out(params, s, 1);
	return bus.watched;
}

static void a_kept_list_is_not_sent_again(const char *params, const char *name)
{
	static const struct ids s[] = { { 0, 500, 1 }, { 300, 900, 2 } };
	/* Other ids of the guest, then of the host. */
	static const struct ids t[] = { { 200, 900, 3 }, { 300, 900, 2 } };
	static const struct ids u[] = { { 200, 900, 3 }, { 300, 902, 2 } };

	assert_int_equal(lists_sent(params, s, name), 1);
	assert_int_equal(lists_sent(params, s, name), 0);
	assert_int_equal(lists_sent(params, t, name), 0);
	assert_int_equal(lists_sent(params, u, name), 1);
	assert_int_equal(lists_sent(params, u, name), 0);
	/* Without its half of it, or with a damaged one, it is made anew. */
	assert_int_equal(remove_tree(cache_dir("guest"), NULL), 0);
	assert_int_equal(lists_sent(params, u, name), 1);
	cut_cache("host");
	assert_int_equal(lists_sent(params, u, name), 1);
	cut_cache("guest");
	assert_int_equal(lists_sent(params, u, name), 1);
	assert_int_equal(lists_sent(params, u, name), 0);
}

static void run_cache_keeps_the_hosts_list(void **state)
{
	static const struct ids s[] = { { 0, 50, 1 }, { 30, 90, 2 } };
	static const char rsa_cached[] =
	    "{\"intersect_method\": \"rsa\", \"run_cache\": true, "
	    "\"rsa_params\": {\"key_length\": 1024}}";

	(void)state;
	a_kept_list_is_not_sent_again(
	    "{\"intersect_method\": \"ecdh\", \"run_cache\": true}",
	    "id_ciphertext_exchange_h2g");
	assert_int_equal(lists_sent(rsa_cached, s, "host_prvkey_ids"), 1);
	assert_int_equal(lists_sent(rsa_cached, s, "host_prvkey_ids"), 0);
}

/* A file is in the way of the directory. */
static void without_a_place_for_lists_the_rows_come_out(void **state)
{
	static const struct ids s[] = { { 0, 50, 1 }, { 30, 90, 2 } };
	static const char *const roles[] = { "guest", "host" };

	(void)state;
	for (size_t k = 0; k < 2; k++) {
		const char *dir = cache_dir(roles[k]);

		assert_int_equal(remove_tree(dir, NULL), 0);
		assert_int_equal(file_replace(dir, "", 0, 0600, false, NULL),
				 0);
		common_rows_come_out(
		    "{\"intersect_method\": \"ecdh\", \"run_cache\": true}", s,
		    1);
		assert_int_equal(unlink(dir), 0);
	}
}

static void kept_lists_are_for_their_owner_only(void **state)
{
	_cleanup_free_ char *dir =
	    xasprintf("%s/intersection", cache_dir("host"));
	struct dirent *d;
	struct stat st;
	DIR *at = opendir(dir);

	(void)state;
	assert_non_null(at);
	while ((d = readdir(at))) {
		_cleanup_free_ char *path = xasprintf("%s/%s", dir, d->d_name);

		if (d->d_name[0] == '.')
			continue;
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
	}
	closedir(at);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
}

static void without_sync_the_host_learns_and_outputs_nothing(void **state)
{
	static const struct ids s[] = { { 0, 600, 1 }, { 300, 900, 1 } };
	static const struct ids none[] = { { 300, 900, 1 }, { 0, 0, 1 } };
	static const char *const params[] = {
		"{\"intersect_method\": \"ecdh\", \"sync_intersect_ids\": "
		"false}",
		"{\"intersect_method\": \"rsa\", \"sync_intersect_ids\": "
		"false, \"rsa_params\": {\"key_length\": 1024}}"
	};

	(void)state;
	for (size_t k = 0; k < 2; k++) {
		run_same(params[k], s, 1);
		check_output(&ctx[0], s, 2, true);
		check_output(&ctx[1], none, 2, true);
		assert_int_equal(counted(&ctx[0]), 300);
		assert_int_equal(counted(&ctx[1]), -1);
		parties_end(ctx, 2);
	}
}

static void only_output_key_drops_the_columns(void **state)
{
	static const struct ids s[] = { { 0, 600, 1 }, { 300, 900, 1 } };

	(void)state;
	run_same("{\"intersect_method\": \"ecdh\", \"only_output_key\": true}",
		 s, 1);
	check_output(&ctx[0], s, 2, false);
	check_output(&ctx[1], s, 2, false);
	parties_end(ctx, 2);
}

static void other_parameters_at_the_host_are_refused(void **state)
{
	static const struct ids s[] = { { 0, 100, 1 }, { 50, 150, 1 } };
	static const char *const other[] = {
		rsa,
		"{\"intersect_method\": \"ecdh\", \"sync_intersect_ids\": "
		"false}",
		"{\"intersect_method\": \"ecdh\", \"ecdh_params\": {\"salt\": "
		"\"x\"}}",
	};

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(other); k++) {
		const char *params[] = { ecdh, other[k] };
		const struct ctx *c;

		run_job(params, s, 1);
		assert_true(ctx[0].status < 0 && ctx[1].status < 0);
		c = ctx[0].status == -EPROTO ? &ctx[0] : &ctx[1];
		assert_non_null(strstr(c->err.text, "differ"));
		parties_end(ctx, 2);
	}
}

static void damage_is_noticed(const char *params, size_t who, const char *name)
{
	static const struct ids s[] = { { 0, 100, 1 }, { 50, 150, 1 } };
	struct err e = { 0 };

	memset(ctx, 0, sizeof(ctx));
	bus.hosts = 1;
	for (size_t k = 0; k < 2; k++) {
		ctx[k].role = k ? "host" : "guest";
		ctx[k].params = json_parse(params, strlen(params), &e);
		ctx[k].table = make_table(k ? "b" : "a", &s[k]);
	}
	ctx[who].flip = name;
	parties_run(ctx, 2, the_component);
	/* The sender of the last message has ended well by then. */
	if (ctx[1 - who].status >= 0)
		fail_msg("%s went unnoticed", name);
	parties_end(ctx, 2);
}

static void damaged_messages_are_noticed(void **state)
{
	(void)state;
	damage_is_noticed(ecdh, 0, "id_ciphertext_exchange_g2h");
	damage_is_noticed(ecdh, 1, "id_ciphertext_exchange_h2g");
	damage_is_noticed(ecdh, 0, "intersect_ids");
	damage_is_noticed(ecdh, 0, "salts");
	damage_is_noticed(ecdh, 1, "doubly_encrypted_id");
	damage_is_noticed(ecdh, 1, "digest");
	damage_is_noticed(split, 1, "host_intersect_ids");
	damage_is_noticed(split, 0, "shares");
	damage_is_noticed(rsa, 1, "host_pubkey");
	damage_is_noticed(rsa, 0, "guest_pubkey_ids");
	damage_is_noticed(rsa, 1, "host_sign_guest_ids");
	damage_is_noticed(rsa, 1, "host_prvkey_ids");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(rsa_gives_exactly_the_common_rows),
		cmocka_unit_test(ecdh_gives_exactly_the_common_rows),
		cmocka_unit_test(raw_never_sends_ids_but_does_ecdh),
		cmocka_unit_test(two_hosts_keep_what_all_three_have),
		cmocka_unit_test(nothing_in_common_is_an_empty_table),
		cmocka_unit_test(pieces_that_are_just_full),
		cmocka_unit_test(lists_that_spill_give_the_same),
		cmocka_unit_test(dh_gives_exactly_the_common_rows),
		cmocka_unit_test(
		    split_calculation_gives_exactly_the_common_rows),
		cmocka_unit_test(cardinality_only_gives_the_number),
		cmocka_unit_test(run_cache_keeps_the_hosts_list),
		cmocka_unit_test(kept_lists_are_for_their_owner_only),
		cmocka_unit_test(without_a_place_for_lists_the_rows_come_out),
		cmocka_unit_test(
		    without_sync_the_host_learns_and_outputs_nothing),
		cmocka_unit_test(only_output_key_drops_the_columns),
		cmocka_unit_test(other_parameters_at_the_host_are_refused),
		cmocka_unit_test(damaged_messages_are_noticed),
	};

	return cmocka_run_group_tests(tests, harness_setup, harness_teardown);
}
