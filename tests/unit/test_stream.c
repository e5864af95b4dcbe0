// SPDX-License-Identifier: Apache-2.0
/*
 * Messages between two rollsites that are sent while they are produced, that
 * are received without being in memory, and many small ones; rollsites that
 * are killed meanwhile.
 */
#include "tests/unit/sites.h"

#define LARGE (24u << 20)

static void fill(char *buf, size_t n, uint64_t at)
{
	for (size_t i = 0; i < n; i++)
		buf[i] = (char)((at + i) * 2654435761u >> 13);
}

/* n bytes in pieces of odd sizes; kills[k] (or -1) dies after a fifth each. */
static void write_stream(struct channel_stream *s, uint64_t n, const int *kills)
{
	_cleanup_free_ char *buf = xmalloc(3000001);
	int next = 0;

	for (uint64_t at = 0; at < n;) {
		size_t part = MIN(n - at, (at * 7 + 77777) % 3000000 + 1);

		fill(buf, part, at);
		OK(channel_stream_write(s, buf, part, &e));
		at += part;
		if (kills && next < 4 && at > (unsigned)(next + 1) * n / 5) {
			if (kills[next] >= 0)
				kill_site(kills[next]);
			next++;
		}
	}
}

static void expect_stream(struct channel *c, struct channel_peer from,
			  const char *name, uint64_t n)
{
	_cleanup_free_ char *buf = xmalloc(1u << 20);
	_cleanup_free_ char *want = xmalloc(1u << 20);
	_cleanup_close_ int fd = -1;
	uint64_t offset = 0, size = 0;

	OK(channel_recv_file(c, from, name, "-", n, &fd, &offset, &size, &e));
	assert_int_equal(size, n);
	for (uint64_t at = 0; at < n; at += 1u << 20) {
		size_t part = MIN(n - at, 1u << 20);

		fill(want, part, at);
		assert_int_equal(pread_all(fd, buf, part, offset + at), 0);
		assert_memory_equal(buf, want, part);
	}
}

static struct channel_stream *
open_stream(struct channel *c, struct channel_peer to, const char *name)
{
	struct channel_stream *s = NULL;

	OK(channel_stream_open(c, to, name, "-", &s, &e));
	return s;
}

/* Files below a directory of the state, but for empty journals. */
static unsigned files_below(const char *path)
{
	_cleanup_closedir_ DIR *d = opendir(path);
	struct dirent *de;
	unsigned n = 0;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *p = xasprintf("%s/%s", path, de->d_name);
		struct stat st;

		if (de->d_name[0] == '.' || lstat(p, &st))
			continue;
		if (S_ISDIR(st.st_mode))
			n += files_below(p);
		else if (st.st_size || strcmp(de->d_name, "log") != 0)
			n++;
	}
	return n;
}

static unsigned files_of_transfer(int i)
{
	static const char *const subs[] = { "in", "out", "partial", "tmp" };
	unsigned n = 0;

	for (size_t k = 0; k < ARRAY_SIZE(subs); k++) {
		_cleanup_free_ char *p =
		    xasprintf("%s/transfer/%s", sites[i].conf->state, subs[k]);

		n += files_below(p);
	}
	return n;
}

static uint64_t bytes_arrived(void)
{
	_cleanup_free_ char *path =
	    xasprintf("%s/transfer/partial", sites[1].conf->state);
	_cleanup_closedir_ DIR *d = opendir(path);
	struct dirent *de;
	uint64_t n = 0;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *p = xasprintf("%s/%s", path, de->d_name);
		struct stat st;

		if (de->d_name[0] != '.' && !lstat(p, &st))
			n += (uint64_t)st.st_blocks * 512;
	}
	return n;
}

static void eventually_empty(void)
{
	for (int i = 0; i < 2; i++)
		EVENTUALLY(!files_of_transfer(i));
}

/* ---- streams ----------------------------------------------------------- */

static void a_stream_arrives_as_it_was_written(void **state)
{
	static const uint64_t sizes[] = { 0,	   1,	     65536,   65537,
					  262144,  262145,   4194304, 4194305,
					  9999999, LARGE + 3 };
	struct pair p = pair_open();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		_cleanup_free_ char *name = xasprintf("s%zu", i);
		struct channel_stream *s = open_stream(p.a, host2, name);

		write_stream(s, sizes[i], NULL);
		OK(channel_stream_close(s, &e));
		expect_stream(p.b, guest1, name, sizes[i]);
	}
	assert_int_equal(channel_stats(p.a).sent, ARRAY_SIZE(sizes));
	assert_int_equal(channel_stats(p.a).bytes_sent,
			 channel_stats(p.b).bytes_received);
	pair_close(&p);
	eventually_empty();
}

static void a_stream_travels_while_it_is_written(void **state)
{
	struct pair p = pair_open();
	struct channel_stream *s = open_stream(p.a, host2, "early");

	(void)state;
	write_stream(s, LARGE, NULL);
	EVENTUALLY(bytes_arrived() >= LARGE / 2);
	OK(channel_stream_close(s, &e));
	expect_stream(p.b, guest1, "early", LARGE);
	pair_close(&p);
}

static void a_stream_to_another_role_of_the_party_arrives(void **state)
{
	struct pair p = pair_open();
	struct channel *c = channel_for(0, p.job, arbiter1);

	(void)state;
	for (uint64_t n = 100; n <= 5000000; n += 4999900) {
		_cleanup_free_ char *name = xasprintf("home%d", (int)n);
		struct channel_stream *s = open_stream(p.a, arbiter1, name);

		write_stream(s, n, NULL);
		OK(channel_stream_close(s, &e));
		expect_stream(c, guest1, name, n);
	}
	channel_close(c);
	pair_close(&p);
}

static void a_stream_goes_on_when_rollsites_die(void **state)
{
	static const int kills[][4] = {
		{ 0, -1, -1, -1 },
		{ -1, -1, 0, 0 },
		{ 1, -1, 1, -1 },
		{ 0, 1, 0, 1 },
	};
	struct pair p = pair_open();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kills); i++) {
		_cleanup_free_ char *name = xasprintf("deaths%zu", i);
		struct channel_stream *s = open_stream(p.a, host2, name);

		write_stream(s, LARGE, kills[i]);
		OK(channel_stream_close(s, &e));
		if (i == 1)
			kill_site(0); /* the rest of it is on its way */
		expect_stream(p.b, guest1, name, LARGE);
	}
	pair_close(&p);
	eventually_empty();
}

static void a_stream_that_is_given_up_leaves_nothing(void **state)
{
	struct pair p = pair_open();
	struct channel_stream *s = open_stream(p.a, host2, "again");

	(void)state;
	write_stream(s, 9000000, NULL);
	channel_stream_abort(s);
	EVENTUALLY(!files_of_transfer(0));
	channel_stream_abort(NULL);
	/* Its name is free: also for less, and other, bytes. */
	s = open_stream(p.a, host2, "again");
	write_stream(s, 5000000, NULL);
	OK(channel_stream_close(s, &e));
	expect_stream(p.b, guest1, "again", 5000000);
	pair_close(&p);
	eventually_empty();
}

static void a_large_message_twice_is_delivered_once(void **state)
{
	struct pair p = pair_open();
	_cleanup_free_ char *big = xmalloc(6000000);
	struct err failed = { 0 };
	int r;

	(void)state;
	fill(big, 6000000, 0);
	OK(channel_send(p.a, host2, "big", "-", big, 6000000, &e));
	OK(channel_send(p.a, host2, "big", "-", big, 6000000, &e));
	kill_site(0);
	OK(channel_send(p.a, host2, "big", "-", big, 6000000, &e));
	expect_stream(p.b, guest1, "big", 6000000);
	OK(channel_send(p.a, host2, "big", "-", big, 6000000, &e));
	big[5999999] ^= 1;
	r = channel_send(p.a, host2, "big", "-", big, 6000000, &failed);
	if (!r) { /* known only when the other side has answered */
		int fd;
		uint64_t o, n;

		r = channel_recv_file(p.a, host2, "never", "-", 9, &fd, &o, &n,
				      &failed);
	}
	assert_int_equal(r, -EEXIST);
	pair_close(&p);
}

static void a_stream_of_a_job_that_is_not_open_is_refused(void **state)
{
	_cleanup_free_ char *job = job_of_test();
	_cleanup_free_ char *big = xcalloc(1, 300000);
	struct channel *c = channel_for(0, job, guest1);
	struct channel_stream *s = open_stream(c, host2, "x");

	(void)state;
	OK(channel_stream_write(s, "small", 5, &e));
	FAILS(EACCES, channel_stream_close(s, &e));
	s = open_stream(c, host2, "x");
	FAILS(EACCES, channel_stream_write(s, big, 300000, &e));
	FAILS(EPIPE, channel_stream_write(s, big, 1, &e));
	FAILS(EPIPE, channel_stream_close(s, &e));
	FAILS(EINVAL, channel_stream_open(c, host2, "a/b", "-", &s, &e));
	channel_close(c);
}

static void a_damaged_stream_is_noticed(void **state)
{
	struct pair p = pair_open();
	struct channel_stream *s = open_stream(p.a, host2, "flip");
	uint64_t o, n;
	int fd;

	(void)state;
	write_stream(s, 5000000, NULL);
	OK(channel_stream_close(s, &e));
	FAILS(EBADMSG, channel_recv_file(p.b, guest1, "flip", "-", LARGE, &fd,
					 &o, &n, &e));
	pair_close(&p);
}

static void a_stream_larger_than_wanted_is_refused(void **state)
{
	struct pair p = pair_open();
	struct channel_stream *s = open_stream(p.a, host2, "x");
	uint64_t o, n;
	int fd;

	(void)state;
	write_stream(s, 5000000, NULL);
	OK(channel_stream_close(s, &e));
	FAILS(EMSGSIZE, channel_recv_file(p.b, guest1, "x", "-", 4999999, &fd,
					  &o, &n, &e));
	expect_stream(p.b, guest1, "x", 5000000);
	pair_close(&p);
}

/* ---- ends -------------------------------------------------------------- */

static void a_job_that_ends_in_a_stream_leaves_nothing(void **state)
{
	/* Whose rollsite is killed before; how much was written. */
	static const struct {
		int killed;
		uint64_t n;
		bool closed;
	} cases[] = {
		{ -1, LARGE, false },  { -1, LARGE, true },
		{ 0, LARGE, false },   { 1, LARGE, false },
		{ 0, LARGE, true },    { 1, LARGE, true },
		{ 0, 1000000, false }, { -1, 1000000, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct pair p = pair_open();
		struct channel_stream *s = open_stream(p.a, host2, "ends");
		struct err ignored = { 0 };

		write_stream(s, cases[i].n, NULL);
		if (cases[i].closed)
			OK(channel_stream_close(s, &e));
		if (cases[i].killed >= 0)
			kill_site(cases[i].killed);
		OK(transfer_job_close(sites[i % 2].t, p.job, &e));
		if (cases[i].n == LARGE && !cases[i].closed && i % 2 == 0)
			assert_int_equal(
			    channel_stream_write(s, "x", 1, &ignored),
			    0); /* not told yet */
		OK(transfer_job_close(sites[!(i % 2)].t, p.job, &e));
		if (!cases[i].closed)
			assert_int_not_equal(channel_stream_close(s, &ignored),
					     0);
		eventually_empty();
		channel_close(p.a);
		channel_close(p.b);
		free(p.job);
	}
}

/* ---- many small ones --------------------------------------------------- */

#define MANY 10000

struct lane {
	struct channel *c;
	struct channel_peer to, from;
	pthread_t out, in;
	unsigned taken; /* atomic */
};

static void *send_many(void *arg)
{
	struct lane *x = arg;
	char text[1024];

	for (unsigned i = 0; i < MANY; i++) {
		struct err e = { 0 };
		char tag[20];

		(void)snprintf(tag, sizeof(tag), "%u", i);
		fill(text, sizeof(text), i);
		if (channel_send(x->c, x->to, "many", tag, text, sizeof(text),
				 &e))
			return xstrdup(e.text);
	}
	return NULL;
}

static void *take_many(void *arg)
{
	struct lane *x = arg;
	char want[1024];

	/* Not in the order in which they were sent. */
	for (unsigned k = 0; k < MANY; k++) {
		unsigned i = k / 16 * 16 + (15 - k % 16);
		struct err e = { 0 };
		void *data = NULL;
		size_t n = 0;
		char tag[20];
		int r;

		(void)snprintf(tag, sizeof(tag), "%u", i);
		fill(want, sizeof(want), i);
		r = channel_recv(x->c, x->from, "many", tag, sizeof(want),
				 &data, &n, &e);
		if (r)
			return xstrdup(e.text);
		r = n != sizeof(want) || memcmp(data, want, n) != 0;
		free(data);
		if (r)
			return xasprintf("message %u is another", i);
		__atomic_add_fetch(&x->taken, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void many_messages_arrive_once_though_rollsites_die(void **state)
{
	struct pair p = pair_open();
	struct lane x[2] = { { .c = p.a, .to = host2, .from = host2 },
			     { .c = p.b, .to = guest1, .from = guest1 } };

	(void)state;
	for (int i = 0; i < 2; i++) {
		pthread_create(&x[i].out, NULL, send_many, &x[i]);
		pthread_create(&x[i].in, NULL, take_many, &x[i]);
	}
	for (unsigned k = 1; k <= 4; k++) {
		for (int i = 0; i < 24000; i++) {
			if (__atomic_load_n(&x[k % 2].taken,
					    __ATOMIC_RELAXED) >= k * MANY / 5)
				break;
			pause_ms(5);
		}
		kill_site(k % 2);
	}
	for (int i = 0; i < 2; i++) {
		_cleanup_free_ char *in = NULL, *out = NULL;
		void *text;

		pthread_join(x[i].out, &text);
		out = text;
		pthread_join(x[i].in, &text);
		in = text;
		if (out || in)
			fail_msg("party %d: %s %s", i + 1, out ? out : "",
				 in ? in : "");
		assert_int_equal(x[i].taken, MANY);
		assert_int_equal(channel_stats(x[i].c).received, MANY);
	}
	/* None of them a second time. */
	for (int i = 0; i < 2; i++) {
		void *data;
		size_t n;

		FAILS(ESTALE, channel_recv(x[i].c, x[i].from, "many", "77",
					   2000, &data, &n, &e));
	}
	pair_close(&p);
	eventually_empty();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_stream_arrives_as_it_was_written),
		cmocka_unit_test(a_stream_travels_while_it_is_written),
		cmocka_unit_test(a_stream_to_another_role_of_the_party_arrives),
		cmocka_unit_test(a_stream_goes_on_when_rollsites_die),
		cmocka_unit_test(a_stream_that_is_given_up_leaves_nothing),
		cmocka_unit_test(a_large_message_twice_is_delivered_once),
		cmocka_unit_test(a_stream_of_a_job_that_is_not_open_is_refused),
		cmocka_unit_test(a_damaged_stream_is_noticed),
		cmocka_unit_test(a_stream_larger_than_wanted_is_refused),
		cmocka_unit_test(a_job_that_ends_in_a_stream_leaves_nothing),
		cmocka_unit_test(
		    many_messages_arrive_once_though_rollsites_die),
	};

	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, world_up, world_down) + complaints;
}
