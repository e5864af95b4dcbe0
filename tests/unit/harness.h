/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A component with all its parties as threads of one process: ctx_* over
 * queues in memory, on real tables.  For one source file of a test program,
 * which sets bus.hosts, fills one struct ctx per party (role, index, params,
 * table), calls parties_run() and looks at status, summary and the tables
 * out/<role><index>, of further outputs out/<role><index>.<output>.
 *
 * A party that fails does not end the others: they go on until they wait for
 * what nobody will send.  So each gets as far, and finds as much wrong, however
 * the threads are scheduled.
 */
#ifndef TESTS_UNIT_HARNESS_H
#define TESTS_UNIT_HARNESS_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/fileio.h"
#include "lib/json.h"

#include "components/component.h"

#include "tests/unit/temp_dir.h"

struct message {
	struct message *next;
	char key[200];
	void *data;
	size_t n;
};

struct ctx {
	const char *role;
	size_t index;
	json_t *params;
	struct table *table;
	json_t *summary;
	struct err err;
	int status;
	const char *flip;    /* name of a message whose bytes get changed */
	size_t sent;	     /* messages */
	const char *sending; /* name of that message */
	const char *to;	     /* the role that gets it */
	const struct component *component;
	pthread_t thread;
};

static struct {
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct message *messages;
	bool stop;
	size_t number;	/* of the last message */
	size_t waiting; /* parties, since that message */
	size_t parties, ended;
	size_t hosts;
	/* Sees message number `sent` of c, named `sending`, which it may
	 * replace; or NULL. */
	void (*edit)(const struct ctx *c, void **data, size_t *n);
	size_t widest_index; /* longest batch_data_index */
	const char *watch;   /* name of messages that are counted */
	size_t watched;
} bus = { .lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER };

static struct table_store *store;
static char harness_dir[128];

const char *ctx_role(struct ctx *c)
{
	return c->role;
}
const char *ctx_party(struct ctx *c)
{
	return ctx_member(c, c->role, c->index);
}
size_t ctx_index(struct ctx *c)
{
	return c->index;
}
const char *ctx_job(struct ctx *c)
{
	(void)c;
	return "1";
}
const char *ctx_component(struct ctx *c)
{
	(void)c;
	return "it_0";
}
size_t ctx_count(struct ctx *c, const char *role)
{
	(void)c;
	return !strcmp(role, "host") ? bus.hosts : 1;
}
const char *ctx_member(struct ctx *c, const char *role, size_t i)
{
	(void)c;
	return !strcmp(role, "guest")	  ? "9999"
	       : !strcmp(role, "arbiter") ? "10002"
	       : i			  ? "10001"
					  : "10000";
}
unsigned ctx_cores(struct ctx *c)
{
	(void)c;
	return 1;
}
const json_t *ctx_params(struct ctx *c)
{
	return c->params;
}
const uint8_t *ctx_secret(struct ctx *c)
{
	static const uint8_t secret[32] = { 1, 2, 3 };

	return strcmp(c->role, "arbiter") ? secret : NULL;
}
size_t ctx_inputs(struct ctx *c, const char *key)
{
	return c->table && (!strcmp(key, "train_data") || !strcmp(key, "data"));
}
struct table *ctx_input(struct ctx *c, const char *key, size_t i)
{
	(void)key;
	(void)i;
	return c->table;
}
bool ctx_wired(struct ctx *c, const char *key)
{
	(void)c;
	return !strcmp(key, "train_data") || !strcmp(key, "data");
}
const char *ctx_session(struct ctx *c)
{
	(void)c;
	return "1_0";
}
const char *ctx_input_source(struct ctx *c, const char *key, size_t i)
{
	(void)c;
	(void)key;
	(void)i;
	return "";
}
const json_t *ctx_input_model(struct ctx *c, const char *key)
{
	(void)c;
	(void)key;
	return NULL;
}
struct table_store *ctx_store(struct ctx *c)
{
	(void)c;
	return store;
}
static void output_name(char ret[60], const struct ctx *c, size_t i)
{
	char more[24] = "";

	if (i)
		(void)snprintf(more, sizeof(more), ".%zu", i);
	(void)snprintf(ret, 60, "%s%zu%s", c->role, c->index, more);
}
int ctx_put_table(struct ctx *c, size_t i, struct table_build *b, struct err *e)
{
	char name[60];

	output_name(name, c, i);
	return table_build_publish(b, "out", name, e);
}
int ctx_put_same(struct ctx *c, size_t i, struct table *t, struct err *e)
{
	char name[60];

	output_name(name, c, i);
	return table_link(t, "out", name, e);
}
int ctx_put_model(struct ctx *c, const json_t *meta, const json_t *param,
		  struct err *e)
{
	(void)c;
	(void)e;
	assert_non_null(meta);
	assert_non_null(json_object_get(param, "header"));
	return 0;
}
int ctx_put_checkpoint(struct ctx *c, unsigned index, const json_t *meta,
		       const json_t *param, const json_t *state, struct err *e)
{
	(void)c;
	(void)index;
	(void)meta;
	(void)param;
	(void)state;
	return err_set(e, ENOTSUP, "no checkpoints here");
}
int ctx_checkpoints(struct ctx *c, unsigned **ret, size_t *ret_n, struct err *e)
{
	(void)c;
	(void)e;
	*ret = NULL;
	*ret_n = 0;
	return 0;
}
int ctx_get_checkpoint(struct ctx *c, unsigned index, json_t **ret,
		       struct err *e)
{
	(void)c;
	(void)index;
	*ret = NULL;
	return err_set(e, ENOENT, "no checkpoints here");
}
int ctx_metric(struct ctx *c, const char *ns, const char *name, double x,
	       double y, struct err *e)
{
	(void)c;
	(void)ns;
	(void)name;
	(void)x;
	(void)y;
	(void)e;
	return 0;
}
int ctx_put_summary(struct ctx *c, const json_t *summary, struct err *e)
{
	(void)e;
	c->summary = json_deep_copy(summary);
	return 0;
}
const char *ctx_scratch(struct ctx *c)
{
	(void)c;
	return harness_dir;
}
char *ctx_cache_dir(struct ctx *c, const char *name, size_t max, struct err *e)
{
	_cleanup_free_ char *dir = xasprintf("%s/cache-%s%zu/%s", harness_dir,
					     c->role, c->index, name);

	if (mkdir_p(dir, 0700, e) < 0)
		return NULL;
	dir_expire(dir, 30, max);
	return TAKE_PTR(dir);
}
void ctx_event(struct ctx *c, const char *fmt, ...)
{
	(void)c;
	(void)fmt;
}
void ctx_log(struct ctx *c, const char *fmt, ...)
{
	(void)c;
	(void)fmt;
}
void ctx_progress(struct ctx *c, double fraction)
{
	(void)c;
	(void)fraction;
}
void ctx_fail_code(struct ctx *c, const char *code, const char *sentence)
{
	(void)c;
	(void)code;
	(void)sentence;
}

int ctx_send_bytes(struct ctx *c, const char *role, size_t i, const char *name,
		   const char *tag, const void *data, size_t n, struct err *e)
{
	struct message *m = xcalloc(1, sizeof(*m));

	(void)e;
	(void)snprintf(m->key, sizeof(m->key), "%s%zu>%s%zu %s %s", c->role,
		       c->index, role, i, name, tag);
	m->data = xmalloc(n + 1);
	m->n = n;
	memcpy(m->data, data, n);
	if (c->flip && !strcmp(c->flip, name))
		memset(m->data, 0, n);
	c->sending = name;
	c->to = role;
	if (bus.edit)
		bus.edit(c, &m->data, &m->n);
	c->sent++;
	pthread_mutex_lock(&bus.lock);
	bus.number++;
	bus.waiting = 0;
	if (!strcmp(name, "batch_data_index"))
		bus.widest_index = MAX(bus.widest_index, n / 4);
	if (bus.watch && !strcmp(name, bus.watch))
		bus.watched++;
	m->next = bus.messages;
	bus.messages = m;
	pthread_cond_broadcast(&bus.more);
	pthread_mutex_unlock(&bus.lock);
	return 0;
}

static struct message *take(const char *key)
{
	for (struct message **p = &bus.messages; *p; p = &(*p)->next)
		if (!strcmp((*p)->key, key)) {
			struct message *m = *p;

			*p = m->next;
			return m;
		}
	return NULL;
}

/* Nobody is left who could send; with the lock. */
static void stop_if_all_wait(void)
{
	if (bus.waiting + bus.ended < bus.parties)
		return;
	bus.stop = true;
	pthread_cond_broadcast(&bus.more);
}

/* The message, or NULL when none will come. */
static struct message *await(const char *key)
{
	struct message *m = NULL;
	size_t counted;

	pthread_mutex_lock(&bus.lock);
	counted = bus.number - 1;
	while (!bus.stop && !(m = take(key))) {
		if (counted != bus.number) {
			counted = bus.number;
			bus.waiting++;
			stop_if_all_wait();
		} else {
			pthread_cond_wait(&bus.more, &bus.lock);
		}
	}
	pthread_mutex_unlock(&bus.lock);
	return m;
}

int ctx_recv_bytes(struct ctx *c, const char *role, size_t i, const char *name,
		   const char *tag, size_t max, void **ret, size_t *ret_n,
		   struct err *e)
{
	struct message *m;
	char key[200];

	(void)snprintf(key, sizeof(key), "%s%zu>%s%zu %s %s", role, i, c->role,
		       c->index, name, tag);
	m = await(key);
	if (!m)
		return err_set(e, ECANCELED, "the partner failed");
	*ret = m->data;
	*ret_n = m->n;
	free(m);
	if (*ret_n <= max)
		return 0;
	free(*ret);
	*ret = NULL;
	return err_set(e, EPROTO, "%s is too long", name);
}

int ctx_send_json(struct ctx *c, const char *role, size_t i, const char *name,
		  const char *tag, const json_t *v, struct err *e)
{
	_cleanup_free_ char *s = json_text(v, false);

	return ctx_send_bytes(c, role, i, name, tag, s, strlen(s), e);
}
int ctx_recv_json(struct ctx *c, const char *role, size_t i, const char *name,
		  const char *tag, json_t **ret, struct err *e)
{
	_cleanup_free_ void *s = NULL;
	size_t n;
	int r = ctx_recv_bytes(c, role, i, name, tag, 1 << 20, &s, &n, e);

	if (r < 0)
		return r;
	*ret = json_parse(s, n, e);
	return *ret ? 0 : -EPROTO;
}
int ctx_send_f64(struct ctx *c, const char *role, size_t i, const char *name,
		 const char *tag, const double *v, size_t n, struct err *e)
{
	return ctx_send_bytes(c, role, i, name, tag, v, n * sizeof(*v), e);
}
int ctx_recv_f64(struct ctx *c, const char *role, size_t i, const char *name,
		 const char *tag, double *v, size_t n, struct err *e)
{
	_cleanup_free_ void *data = NULL;
	size_t got;
	int r = ctx_recv_bytes(c, role, i, name, tag, n * sizeof(*v), &data,
			       &got, e);

	if (r < 0)
		return r;
	if (got != n * sizeof(*v))
		return err_set(e, EPROTO, "%s: count", name);
	memcpy(v, data, got);
	return 0;
}
static int recv_items(struct ctx *c, const char *role, size_t i,
		      const char *name, const char *tag, size_t width,
		      size_t max, void **ret, size_t *ret_n, struct err *e)
{
	void *data;
	size_t n;
	int r =
	    ctx_recv_bytes(c, role, i, name, tag, max * width, &data, &n, e);

	if (r < 0)
		return r;
	if (n % width) {
		free(data);
		return err_set(e, EPROTO, "%s: count", name);
	}
	*ret = data;
	*ret_n = n / width;
	return 0;
}
int ctx_send_u32(struct ctx *c, const char *role, size_t i, const char *name,
		 const char *tag, const uint32_t *v, size_t n, struct err *e)
{
	return ctx_send_bytes(c, role, i, name, tag, v, n * sizeof(*v), e);
}
int ctx_recv_u32(struct ctx *c, const char *role, size_t i, const char *name,
		 const char *tag, size_t max, uint32_t **ret, size_t *ret_n,
		 struct err *e)
{
	return recv_items(c, role, i, name, tag, 4, max, (void **)ret, ret_n,
			  e);
}
int ctx_send_fixed(struct ctx *c, const char *role, size_t i, const char *name,
		   const char *tag, const void *data, size_t width, size_t n,
		   struct err *e)
{
	return ctx_send_bytes(c, role, i, name, tag, data, width * n, e);
}
int ctx_recv_fixed(struct ctx *c, const char *role, size_t i, const char *name,
		   const char *tag, size_t width, size_t max, uint8_t **ret,
		   size_t *ret_n, struct err *e)
{
	return recv_items(c, role, i, name, tag, width, max, (void **)ret,
			  ret_n, e);
}

static void *party(void *arg)
{
	struct ctx *c = arg;

	c->status = c->component->run(c, &c->err);
	pthread_mutex_lock(&bus.lock);
	bus.ended++;
	stop_if_all_wait();
	pthread_mutex_unlock(&bus.lock);
	return NULL;
}

/* Runs them all to their ends and forgets what nobody has read. */
static void parties_run(struct ctx *ctx, size_t n,
			const struct component *component)
{
	bus.stop = false;
	bus.parties = n;
	bus.ended = bus.waiting = 0;
	bus.widest_index = 0;
	bus.watched = 0;
	for (size_t k = 0; k < n; k++) {
		ctx[k].component = component;
		assert_int_equal(
		    pthread_create(&ctx[k].thread, NULL, party, &ctx[k]), 0);
	}
	for (size_t k = 0; k < n; k++)
		pthread_join(ctx[k].thread, NULL);
	while (bus.messages) {
		struct message *m = bus.messages;

		bus.messages = m->next;
		free(m->data);
		free(m);
	}
}

static void parties_end(struct ctx *ctx, size_t n)
{
	for (size_t k = 0; k < n; k++) {
		json_decref(ctx[k].params);
		json_decref(ctx[k].summary);
		table_unref(ctx[k].table);
	}
}

static int harness_setup(void **state)
{
	struct err e = { 0 };

	(void)state;
	return temp_dir(harness_dir, sizeof(harness_dir), "unit") &&
		       !table_store_open(harness_dir, &store, &e)
		   ? 0
		   : -1;
}

static int harness_teardown(void **state)
{
	(void)state;
	table_store_close(store);
	return remove_tree(harness_dir, NULL);
}

#endif
