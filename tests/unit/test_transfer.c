// SPDX-License-Identifier: Apache-2.0
/* Messages and calls between two rollsites. */
#include "tests/unit/sites.h"

/* ---- messages ---------------------------------------------------------- */

static void a_message_goes_each_way(void **state)
{
	struct pair p = pair_open();

	(void)state;
	send_text(p.a, host2, "hello", "from guest");
	send_text(p.b, guest1, "hello", "from host");
	expect_text(p.b, guest1, "hello", "from guest");
	expect_text(p.a, host2, "hello", "from host");
	assert_int_equal(channel_stats(p.a).sent, 1);
	assert_int_equal(channel_stats(p.a).bytes_received, 9);
	pair_close(&p);
}

static void an_empty_message_arrives(void **state)
{
	struct pair p = pair_open();

	(void)state;
	send_text(p.a, host2, "nothing", "");
	expect_text(p.b, guest1, "nothing", "");
	pair_close(&p);
}

static void large_messages_arrive_whole(void **state)
{
	static const size_t sizes[] = { 65536,	 65537,	  262145,
					1048576, 1048577, 5000000 };
	struct pair p = pair_open();
	_cleanup_free_ char *big = xmalloc(5000000);

	(void)state;
	for (size_t i = 0; i < 5000000; i++)
		big[i] = (char)(i * 2654435761u >> 13);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		char tag[20];
		void *data = NULL;
		size_t n = 0;

		(void)snprintf(tag, sizeof(tag), "%zu", i);
		OK(channel_send(p.a, host2, "big", tag, big, sizes[i], &e));
		OK(channel_recv(p.b, guest1, "big", tag, sizes[i], &data, &n,
				&e));
		assert_int_equal(n, sizes[i]);
		assert_memory_equal(data, big, n);
		free(data);
	}
	/* More than the receiver wants is refused, and stays refused. */
	OK(channel_send(p.a, host2, "big", "x", big, 70000, &e));
	for (int i = 0; i < 2; i++) {
		void *data;
		size_t n;

		FAILS(EMSGSIZE, channel_recv(p.b, guest1, "big", "x", 69999,
					     &data, &n, &e));
	}
	pair_close(&p);
}

static void the_same_message_twice_is_delivered_once(void **state)
{
	struct pair p = pair_open();
	void *data;
	size_t n;

	(void)state;
	for (int i = 0; i < 3; i++)
		send_text(p.a, host2, "twice", "same");
	expect_text(p.b, guest1, "twice", "same");
	send_text(p.a, host2, "twice", "same");
	FAILS(ESTALE,
	      channel_recv(p.b, guest1, "twice", "-", 100, &data, &n, &e));
	pair_close(&p);
}

static void other_content_under_the_same_name_fails_the_session(void **state)
{
	struct pair p = pair_open();
	struct err e = { 0 };
	void *data;
	size_t n;
	int r;

	(void)state;
	send_text(p.a, host2, "key", "one");
	expect_text(p.b, guest1, "key", "one");
	r = channel_send(p.a, host2, "key", "-", "two", 3, &e);
	if (!r) /* known only when the other side has answered */
		r = channel_recv(p.a, host2, "never", "-", 100, &data, &n, &e);
	assert_int_equal(r, -EEXIST);
	pair_close(&p);
}

struct receiver {
	struct channel *c;
	struct channel_peer from;
	const char *name;
	int status;
	char text[1200];
	size_t n;
};

static void *receive(void *arg)
{
	struct receiver *x = arg;
	struct err e = { 0 };
	void *data = NULL;

	x->status =
	    channel_recv(x->c, x->from, x->name, "-", 1000, &data, &x->n, &e);
	(void)snprintf(x->text, sizeof(x->text), "%s", e.text);
	free(data);
	return NULL;
}

static void a_receiver_waits_for_the_message(void **state)
{
	struct pair p = pair_open();
	struct receiver x = { .c = p.b, .from = guest1, .name = "late" };
	char what[200] = "";
	pthread_t t;

	(void)state;
	pthread_create(&t, NULL, receive, &x);
	EVENTUALLY((channel_waiting(p.b, what, sizeof(what)), *what));
	assert_string_equal(what, "guest-1 late -");
	pause_ms(50);
	send_text(p.a, host2, "late", "here");
	pthread_join(t, NULL);
	assert_int_equal(x.status, 0);
	assert_int_equal(x.n, 4);
	channel_waiting(p.b, what, sizeof(what));
	assert_string_equal(what, "");
	pair_close(&p);
}

static void a_party_in_two_roles_talks_to_itself(void **state)
{
	struct pair p = pair_open();
	struct channel *c = channel_for(0, p.job, arbiter1);
	_cleanup_free_ char *big = xcalloc(1, 2000000);
	void *data = NULL;
	size_t n = 0;

	(void)state;
	send_text(p.a, arbiter1, "x", "to arbiter");
	expect_text(c, guest1, "x", "to arbiter");
	send_text(c, guest1, "x", "to guest");
	expect_text(p.a, arbiter1, "x", "to guest");
	OK(channel_send(c, guest1, "y", "-", big, 2000000, &e));
	OK(channel_recv(p.a, arbiter1, "y", "-", 2000000, &data, &n, &e));
	assert_int_equal(n, 2000000);
	assert_memory_equal(data, big, n);
	free(data);
	FAILS(EEXIST, channel_send(c, guest1, "x", "-", "other", 5, &e));
	channel_close(c);
	pair_close(&p);
}

static void messages_of_a_job_that_is_not_open_are_refused(void **state)
{
	_cleanup_free_ char *job = job_of_test();
	struct channel *c = channel_for(0, job, guest1);
	void *data;
	size_t n;

	(void)state;
	FAILS(EACCES, channel_send(c, host2, "x", "-", "x", 1, &e));
	FAILS(EACCES, channel_recv(c, host2, "x", "-", 1, &data, &n, &e));
	/* Open here, not there: the sender's session learns of the refusal. */
	open_job(0, job);
	OK(channel_send(c, host2, "x", "-", "x", 1, &e));
	FAILS(EACCES, channel_recv(c, host2, "x", "-", 1, &data, &n, &e));
	channel_close(c);
	OK(transfer_job_close(sites[0].t, job, &e));
}

static void roles_and_parties_that_are_not_in_the_job_are_refused(void **state)
{
	struct pair p = pair_open();
	struct channel *c =
	    channel_for(0, p.job, (struct channel_peer){ "host", "1" });
	struct channel *d = channel_for(0, p.job, host2);
	void *data;
	size_t n;

	(void)state;
	FAILS(EACCES, channel_recv(p.a, (struct channel_peer){ "guest", "2" },
				   "x", "-", 1, &data, &n, &e));
	FAILS(EACCES, channel_send(d, guest1, "x", "-", "x", 1, &e));
	FAILS(EACCES, channel_send(c, host2, "x", "-", "x", 1, &e));
	FAILS(EACCES, channel_recv(c, guest1, "x", "-", 1, &data, &n, &e));
	channel_close(c);
	channel_close(d);
	pair_close(&p);
}

static void names_with_slashes_or_quotes_are_refused(void **state)
{
	struct pair p = pair_open();

	(void)state;
	FAILS(EINVAL, channel_send(p.a, host2, "a/b", "-", "x", 1, &e));
	FAILS(EINVAL, channel_send(p.a, host2, "a\"b", "-", "x", 1, &e));
	FAILS(EINVAL, channel_send(p.a, host2, "", "-", "x", 1, &e));
	FAILS(EINVAL, channel_send(p.a, host2, "..", "-", "x", 1, &e));
	pair_close(&p);
}

static void
a_closed_session_takes_nothing_and_the_next_attempt_does(void **state)
{
	struct pair p = pair_open();
	_cleanup_free_ char *session = xasprintf("%s_c_0", p.job);
	_cleanup_free_ char *next = xasprintf("%s_c_1", p.job);
	_cleanup_free_ char *sock = transfer_socket_path(sites[1].conf->state);
	struct channel_options o = {
		.socket = sock, .session = next, .self = host2, .lease_s = 300
	};
	struct channel *c = NULL;
	void *data;
	size_t n;

	(void)state;
	send_text(p.a, host2, "left over", "x");
	OK(transfer_session_close(sites[1].t, session, &e));
	FAILS(EACCES,
	      channel_recv(p.b, guest1, "left over", "-", 9, &data, &n, &e));
	OK(channel_open(&o, &c, &e));
	send_text(c, guest1, "x", "attempt 1");
	channel_close(c);
	pair_close(&p);
}

static void closing_a_job_frees_who_waits_and_removes_the_files(void **state)
{
	struct pair p = pair_open();
	struct receiver x = { .c = p.b, .from = guest1, .name = "never" };
	char what[200] = "";
	pthread_t t;

	(void)state;
	send_text(p.a, host2, "kept", "until the end");
	pthread_create(&t, NULL, receive, &x);
	EVENTUALLY((channel_waiting(p.b, what, sizeof(what)), *what));
	EVENTUALLY(exists("/transfer/in/", sites[1].conf->state, p.job));
	OK(transfer_job_close(sites[1].t, p.job, &e));
	pthread_join(t, NULL);
	assert_int_equal(x.status, -EACCES);
	assert_false(exists("/transfer/in/", sites[1].conf->state, p.job));
	pair_close(&p);
}

#define STREAM 300

static void *stream(void *arg)
{
	struct channel *c = arg;

	for (int i = 0; i < STREAM; i++) {
		struct err e = { 0 };
		char tag[20];

		(void)snprintf(tag, sizeof(tag), "%d", i);
		if (channel_send(c, host2, "stream", tag, &i, sizeof(i), &e)) {
			print_message("# send %d: %s\n", i, e.text);
			return NULL;
		}
	}
	return NULL;
}

static void kill_in_a_stream(int victim)
{
	struct pair p = pair_open();
	pthread_t t;

	pthread_create(&t, NULL, stream, p.a);
	for (int i = 0; i < STREAM; i++) {
		void *data = NULL;
		char tag[20];
		size_t n;
		int v;

		if (i == 50 || i == 150)
			kill_site(victim);
		(void)snprintf(tag, sizeof(tag), "%d", i);
		OK(channel_recv(p.b, guest1, "stream", tag, 100, &data, &n,
				&e));
		assert_int_equal(n, sizeof(v));
		memcpy(&v, data, sizeof(v));
		assert_int_equal(v, i);
		free(data);
	}
	pthread_join(t, NULL);
	pair_close(&p);
}

static void a_stream_survives_the_death_of_the_receivers_rollsite(void **state)
{
	(void)state;
	kill_in_a_stream(1);
}

static void a_stream_survives_the_death_of_the_senders_rollsite(void **state)
{
	(void)state;
	kill_in_a_stream(0);
}

static void a_receiver_waits_on_while_its_rollsite_dies(void **state)
{
	struct pair p = pair_open();
	struct receiver x = { .c = p.b, .from = guest1, .name = "after" };
	pthread_t t;

	(void)state;
	pthread_create(&t, NULL, receive, &x);
	pause_ms(50);
	kill_site(1);
	send_text(p.a, host2, "after", "death");
	pthread_join(t, NULL);
	assert_int_equal(x.status, 0);
	pair_close(&p);
}

static void a_taken_message_stays_taken_when_rollsite_dies(void **state)
{
	struct pair p = pair_open();
	void *data;
	size_t n;

	(void)state;
	send_text(p.a, host2, "one", "1");
	send_text(p.a, host2, "two", "2");
	expect_text(p.b, guest1, "one", "1");
	kill_site(1);
	kill_site(0);
	send_text(p.a, host2, "one", "1"); /* a task that repeats itself */
	expect_text(p.b, guest1, "two", "2");
	FAILS(ESTALE, channel_recv(p.b, guest1, "one", "-", 10, &data, &n, &e));
	pair_close(&p);
}

static void a_damaged_message_is_noticed_by_the_task(void **state)
{
	struct pair p = pair_open();
	void *data;
	size_t n;

	(void)state;
	send_text(p.a, host2, "flip", "a payload");
	FAILS(EBADMSG,
	      channel_recv(p.b, guest1, "flip", "-", 100, &data, &n, &e));
	pair_close(&p);
}

/* ---- calls ------------------------------------------------------------- */

/* What the other schedulers do when they are asked. */
static void on_call(void *arg, struct transfer_call *call, const char *party,
		    const char *verb, json_t *body)
{
	struct site_of_test *s = arg;
	json_t *o;

	if (!strcmp(verb, "echo")) {
		o = json_pack("{s:s, s:O}", "from", party, "body", body);
		transfer_answer(s->t, call, 0, o, NULL);
		json_decref(o);
	} else if (!strcmp(verb, "fail")) {
		transfer_answer(s->t, call,
				-(int)json_int_or(body, "errno", EINVAL), NULL,
				json_str_or(body, "text", "no"));
	} else if (!strcmp(verb, "never")) {
		free(call); /* the caller's patience ends */
	} else {
		transfer_answer(s->t, call, -ENOENT, NULL, "no such verb");
	}
}

static void a_call_reaches_the_partner_and_is_answered(void **state)
{
	struct answer a;

	(void)state;
	call(&a, 0, "2", "echo", json_pack("{s:i}", "x", 7));
	assert_int_equal(a.status, 0);
	assert_string_equal(json_str_or(a.body, "from", ""), "1");
	assert_int_equal(json_int_or(json_object_get(a.body, "body"), "x", 0),
			 7);
	json_decref(a.body);
}

static void a_call_to_oneself_is_answered(void **state)
{
	struct answer a;

	(void)state;
	call(&a, 0, "1", "echo", json_object());
	assert_int_equal(a.status, 0);
	assert_string_equal(json_str_or(a.body, "from", ""), "1");
	json_decref(a.body);
}

static void many_calls_at_once_are_answered(void **state)
{
	struct answer a;

	(void)state;
	call_n(&a, 0, "2", "echo", json_object(), 60000, 200);
	assert_int_equal(a.status, 0);
	json_decref(a.body);
}

static void the_handlers_status_comes_back(void **state)
{
	static const int both[] = { EACCES, EINVAL, ENOENT };
	struct answer a;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(both); i++) {
		call(&a, 0, "2", "fail",
		     json_pack("{s:i, s:s}", "errno", both[i], "text", "why"));
		assert_int_equal(a.status, -both[i]);
		assert_null(a.body);
		assert_non_null(strstr(a.text, "why"));
	}
	call(&a, 0, "2", "fail", json_pack("{s:i}", "errno", EBUSY));
	assert_int_equal(a.status, -EBUSY);
	call(&a, 0, "2", "nonsense", json_object());
	assert_int_equal(a.status, -ENOENT);
	call(&a, 0, "2", "UP/../x", json_object());
	assert_int_not_equal(a.status, 0);
}

/* That is, not at the end of the caller's patience. */
static void a_call_to_a_party_that_is_down_fails_soon(void **state)
{
	int64_t start = now_mono_ms();
	struct answer a;

	(void)state;
	call(&a, 0, "3", "echo", json_object());
	assert_int_equal(a.status, -EHOSTUNREACH);
	call(&a, 0, "77", "echo", json_object());
	assert_int_equal(a.status, -EHOSTUNREACH);
	assert_true(now_mono_ms() - start < 60000);
}

static void a_call_without_an_answer_times_out(void **state)
{
	int64_t start = now_mono_ms();
	struct answer a;

	(void)state;
	call_n(&a, 0, "2", "never", json_object(), 300, 1);
	assert_int_equal(a.status, -ETIMEDOUT);
	assert_true(now_mono_ms() - start < 60000);
}

/* Or the partner is away: its rollsite may be up again later than ours. */
static bool answered(struct answer *a)
{
	call(a, 0, "2", "echo", json_object());
	if (a->status == -EHOSTUNREACH)
		return false;
	assert_int_equal(a->status, 0);
	json_decref(a->body);
	return true;
}

static void calls_go_on_after_both_rollsites_died(void **state)
{
	struct answer a;

	(void)state;
	call(&a, 0, "2", "echo", json_object());
	assert_int_equal(a.status, 0);
	json_decref(a.body);
	kill_site(0);
	kill_site(1);
	EVENTUALLY(answered(&a));
}

/* A rollfs that takes a call and dies: its connection closes. */
static void *take_and_die(void *arg)
{
	_cleanup_free_ char *path = transfer_socket_path(sites[1].conf->state);
	json_t *head = json_pack("{s:s}", "op", "serve"), *q = NULL;
	struct link l;
	struct err e = { 0 };

	if (!link_open(&l, path, &e) &&
	    !link_request(&l, head, NULL, 0, -1, &q, NULL, &e))
		*(bool *)arg = true;
	json_decref(q);
	json_decref(head);
	link_close(&l);
	return NULL;
}

static void a_call_that_a_dying_rollfs_took_goes_to_the_next(void **state)
{
	bool taken = false;
	struct answer a;
	pthread_t t;

	(void)state;
	for (int i = 0; i < 20; i++) {
		pthread_create(&t, NULL, take_and_die, &taken);
		do {
			call(&a, 0, "2", "echo", json_object());
			assert_int_equal(a.status, 0);
			json_decref(a.body);
		} while (pthread_tryjoin_np(t, NULL));
	}
	assert_true(taken);
}

static void calls_both_ways_at_once_do_not_wait_for_each_other(void **state)
{
	struct answer a[2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		a[i] = (struct answer){ .left = 100 };
		pthread_mutex_init(&a[i].lock, NULL);
		pthread_cond_init(&a[i].cond, NULL);
	}
	for (int k = 0; k < 100; k++) {
		json_t *body = json_object();

		transfer_rpc(sites[0].t, "2", "echo", body, 60000, on_answer,
			     &a[0]);
		transfer_rpc(sites[1].t, "1", "echo", body, 60000, on_answer,
			     &a[1]);
		json_decref(body);
	}
	for (int i = 0; i < 2; i++) {
		pthread_mutex_lock(&a[i].lock);
		while (a[i].left)
			pthread_cond_wait(&a[i].cond, &a[i].lock);
		pthread_mutex_unlock(&a[i].lock);
		assert_int_equal(a[i].status, 0);
		json_decref(a[i].body);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_message_goes_each_way),
		cmocka_unit_test(an_empty_message_arrives),
		cmocka_unit_test(large_messages_arrive_whole),
		cmocka_unit_test(the_same_message_twice_is_delivered_once),
		cmocka_unit_test(
		    other_content_under_the_same_name_fails_the_session),
		cmocka_unit_test(a_receiver_waits_for_the_message),
		cmocka_unit_test(a_party_in_two_roles_talks_to_itself),
		cmocka_unit_test(
		    messages_of_a_job_that_is_not_open_are_refused),
		cmocka_unit_test(
		    roles_and_parties_that_are_not_in_the_job_are_refused),
		cmocka_unit_test(names_with_slashes_or_quotes_are_refused),
		cmocka_unit_test(
		    a_closed_session_takes_nothing_and_the_next_attempt_does),
		cmocka_unit_test(
		    closing_a_job_frees_who_waits_and_removes_the_files),
		cmocka_unit_test(
		    a_stream_survives_the_death_of_the_receivers_rollsite),
		cmocka_unit_test(
		    a_stream_survives_the_death_of_the_senders_rollsite),
		cmocka_unit_test(a_receiver_waits_on_while_its_rollsite_dies),
		cmocka_unit_test(
		    a_taken_message_stays_taken_when_rollsite_dies),
		cmocka_unit_test(a_damaged_message_is_noticed_by_the_task),
		cmocka_unit_test(a_call_reaches_the_partner_and_is_answered),
		cmocka_unit_test(a_call_to_oneself_is_answered),
		cmocka_unit_test(many_calls_at_once_are_answered),
		cmocka_unit_test(the_handlers_status_comes_back),
		cmocka_unit_test(a_call_to_a_party_that_is_down_fails_soon),
		cmocka_unit_test(a_call_without_an_answer_times_out),
		cmocka_unit_test(calls_go_on_after_both_rollsites_died),
		cmocka_unit_test(
		    a_call_that_a_dying_rollfs_took_goes_to_the_next),
		cmocka_unit_test(
		    calls_both_ways_at_once_do_not_wait_for_each_other),
	};

	answer_calls = on_call;
	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, world_up, world_down) + complaints;
}
