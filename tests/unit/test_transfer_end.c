// SPDX-License-Identifier: Apache-2.0
/* What is under way when a party is unmounted: nobody waits for what does not
 * come, and nothing is left (the address sanitizer looks). */
#include "tests/unit/sites.h"

#define CALLS 100 /* more than transfer has threads for */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t came;
	struct transfer_call *calls[CALLS];
	size_t n;
} kept = { .lock = PTHREAD_MUTEX_INITIALIZER,
	   .came = PTHREAD_COND_INITIALIZER };

/* The test answers later, or never. */
static void on_call(void *arg, struct transfer_call *call, const char *party,
		    const char *verb, json_t *body)
{
	(void)arg, (void)party, (void)verb, (void)body;
	pthread_mutex_lock(&kept.lock);
	if (kept.n < CALLS)
		kept.calls[kept.n++] = call;
	else
		free(call);
	pthread_cond_signal(&kept.came);
	pthread_mutex_unlock(&kept.lock);
}

static void wait_for_calls(size_t n)
{
	pthread_mutex_lock(&kept.lock);
	while (kept.n < n)
		pthread_cond_wait(&kept.came, &kept.lock);
	pthread_mutex_unlock(&kept.lock);
}

struct heard {
	_Atomic unsigned n, no_route;
};

static void hear(void *arg, int status, json_t *body, const struct err *e)
{
	struct heard *h = arg;

	(void)body, (void)e;
	h->no_route += status == -EHOSTUNREACH;
	h->n++;
}

static void ask(int i, const char *party, unsigned n, struct heard *h)
{
	json_t *body = json_object();

	for (unsigned k = 0; k < n; k++)
		transfer_rpc(sites[i].t, party, "later", body, 60000, hear, h);
	json_decref(body);
}

static void restart(int i)
{
	assert_true(transfer_free(sites[i].t));
	close(sites[i].lock);
	conf_free(sites[i].conf);
	start_site(i);
}

static void forget_calls(void)
{
	pthread_mutex_lock(&kept.lock);
	while (kept.n)
		free(kept.calls[--kept.n]);
	pthread_mutex_unlock(&kept.lock);
}

static void calls_that_wait_hear_of_the_end(void **state)
{
	struct heard h = { 0 };

	(void)state;
	ask(0, "2", CALLS, &h);
	wait_for_calls(1);
	transfer_stop(sites[0].t);
	assert_int_equal(h.n, CALLS);
	assert_int_equal(h.no_route, CALLS);
	restart(0);
	forget_calls();
}

static void a_call_after_the_end_hears_of_it(void **state)
{
	struct heard h = { 0 };

	(void)state;
	transfer_stop(sites[0].t);
	ask(0, "2", 3, &h);
	EVENTUALLY(h.n == 3);
	assert_int_equal(h.no_route, 3);
	transfer_stop(sites[0].t);
	restart(0);
}

static void answers_at_the_end_and_after_it_are_let_go(void **state)
{
	struct heard h = { 0 };
	json_t *body = json_object();

	(void)state;
	ask(0, "2", 20, &h);
	wait_for_calls(20);
	for (int k = 0; k < 10; k++)
		transfer_answer(sites[1].t, kept.calls[--kept.n], 0, body,
				NULL);
	transfer_stop(sites[1].t);
	while (kept.n)
		transfer_answer(sites[1].t, kept.calls[--kept.n], -EINVAL, NULL,
				"too late");
	json_decref(body);
	restart(1);
	transfer_stop(sites[0].t); /* it would ask again */
	assert_int_equal(h.n, 20);
	restart(0);
	forget_calls();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(calls_that_wait_hear_of_the_end),
		cmocka_unit_test(a_call_after_the_end_hears_of_it),
		cmocka_unit_test(answers_at_the_end_and_after_it_are_let_go),
	};

	answer_calls = on_call;
	return cmocka_run_group_tests(tests, world_up, world_down) + complaints;
}
