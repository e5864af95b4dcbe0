// SPDX-License-Identifier: Apache-2.0
// What a run function sees of its task: who it is, parameters, outputs.
#include "components/ctx_priv.h"

#include <pthread.h>
#include <stdarg.h>

#include "lib/fileio.h"
#include "lib/json.h"
#include "lib/log.h"

const char *ctx_role(struct ctx *c)
{
	return c->role;
}

const char *ctx_party(struct ctx *c)
{
	return c->party;
}

size_t ctx_count(struct ctx *c, const char *role)
{
	return json_array_size(json_object_get(c->roles, role));
}

const char *ctx_member(struct ctx *c, const char *role, size_t i)
{
	return json_string_value(
	    json_array_get(json_object_get(c->roles, role), i));
}

size_t ctx_index(struct ctx *c)
{
	size_t i = 0;

	while (i < ctx_count(c, c->role) &&
	       strcmp(ctx_member(c, c->role, i), c->party) != 0)
		i++;
	return i;
}

unsigned ctx_cores(struct ctx *c)
{
	return c->cores;
}

const char *ctx_job(struct ctx *c)
{
	return c->job;
}

const char *ctx_component(struct ctx *c)
{
	return c->component;
}

const char *ctx_session(struct ctx *c)
{
	return json_str_or(c->task, "session", "");
}

bool ctx_wired(struct ctx *c, const char *key)
{
	return json_object_get(json_object_get(c->inputs, "data"), key) != NULL;
}

const json_t *ctx_params(struct ctx *c)
{
	return c->params;
}

const uint8_t *ctx_secret(struct ctx *c)
{
	return c->has_secret ? c->secret : NULL;
}

struct table_store *ctx_store(struct ctx *c)
{
	return c->store;
}

static struct ctx_table *input(struct ctx *c, const char *key, size_t i)
{
	for (size_t k = 0; k < c->n_tables; k++)
		if (strcmp(c->tables[k].key, key) == 0 && i-- == 0)
			return &c->tables[k];
	return NULL;
}

size_t ctx_inputs(struct ctx *c, const char *key)
{
	size_t n = 0;

	while (input(c, key, n))
		n++;
	return n;
}

struct table *ctx_input(struct ctx *c, const char *key, size_t i)
{
	struct ctx_table *t = input(c, key, i);

	return t ? t->table : NULL;
}

const char *ctx_input_source(struct ctx *c, const char *key, size_t i)
{
	struct ctx_table *t = input(c, key, i);

	return t && t->source ? t->source : "";
}

int ctx_put_same(struct ctx *c, size_t i, struct table *t, struct err *e)
{
	const json_t *o =
	    json_array_get(json_object_get(c->outputs, "data"), i);
	const char *ns, *name;

	if (!o)
		return 0; /* not wired */
	if (json_get_str(o, "namespace", &ns, e) < 0 ||
	    json_get_str(o, "table", &name, e) < 0)
		return -e->no;
	return table_link(t, ns, name, e);
}

void ctx_add_parent(struct ctx *c, const char *ns, const char *name)
{
	json_array_append_new(c->parents, json_sprintf("%s/%s", ns, name));
}

/* Which task made a table, and from which tables. */
static json_t *lineage(struct ctx *c)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:O}", "job", c->job,
			 "component", c->component, "role", c->role, "party",
			 c->party, "parents", c->parents);
}

int ctx_put_table(struct ctx *c, size_t i, struct table_build *b, struct err *e)
{
	const json_t *o =
	    json_array_get(json_object_get(c->outputs, "data"), i);
	const char *ns, *name;

	if (!o) {
		table_build_abort(b);
		return 0; /* not wired */
	}
	if (json_get_str(o, "namespace", &ns, e) < 0 ||
	    json_get_str(o, "table", &name, e) < 0) {
		table_build_abort(b);
		return -e->no;
	}
	table_build_lineage(b, lineage(c));
	return table_build_publish(b, ns, name, e);
}

int ctx_put_summary(struct ctx *c, const json_t *summary, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/summary.json", c->dir);

	return json_write_file(path, summary, 0644, true, e);
}

const char *ctx_scratch(struct ctx *c)
{
	return c->dir;
}

char *ctx_cache_dir(struct ctx *c, const char *name, size_t max, struct err *e)
{
	_cleanup_free_ char *dir = NULL;
	const char *state;

	if (json_get_str(c->task, "state", &state, e) < 0)
		return NULL;
	dir = xasprintf("%s/cache/%s", state, name);
	if (mkdir_p(dir, 0700, e) < 0)
		return NULL;
	dir_expire(dir, (unsigned)json_int_or(c->task, "cache_days", 30), max);
	return TAKE_PTR(dir);
}

void ctx_event(struct ctx *c, const char *fmt, ...)
{
	char when[40], text[1024], line[1400];
	va_list ap;
	int n;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ')
			*p = ' '; /* one event is one line */
	n = snprintf(line, sizeof(line), "%s %s\n",
		     time_rfc3339(when, sizeof(when), now_unix_ms()), text);
	if (c->events >= 0 && write_all(c->events, line, (size_t)n) < 0)
		log_warn("task", "events cannot be written");
	n = snprintf(line, sizeof(line), "%s %s %s-%s %.800s\n", when,
		     ctx_component(c), ctx_role(c), ctx_party(c), text);
	if (c->job_events >= 0 && write_all(c->job_events, line, (size_t)n) < 0)
		log_warn("task", "the job's events cannot be written");
	log_info("task", "%s", text);
}

void ctx_log(struct ctx *c, const char *fmt, ...)
{
	char text[1500];
	va_list ap;

	(void)c;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_info("task", "%s", text);
}

void ctx_progress(struct ctx *c, double fraction)
{
	_cleanup_free_ char *path = NULL;
	struct err e = { 0 };
	char text[16];
	int percent;

	if (!(fraction >= 0))
		return;
	percent = fraction >= 1 ? 100 : (int)(fraction * 100);
	if (percent == c->percent)
		return;
	c->percent = percent;
	path = xasprintf("%s/progress", c->dir);
	(void)snprintf(text, sizeof(text), "%d\n", percent);
	if (file_replace(path, text, strlen(text), 0644, false, &e) < 0)
		log_warn("task", "%s", e.text);
}

void ctx_fail_code(struct ctx *c, const char *code, const char *sentence)
{
	if (c->public)
		return; /* the first cause counts */
	(void)snprintf(c->code, sizeof(c->code), "%s", code);
	c->public = sentence;
}

struct pool {
	size_t n, next, block;
	void (*fn)(void *arg, size_t k);
	void *arg;
};

static void *work(void *arg)
{
	struct pool *p = arg;

	for (;;) {
		size_t k =
		    __atomic_fetch_add(&p->next, p->block, __ATOMIC_RELAXED);
		size_t end = MIN(p->n, k + p->block);

		if (k >= p->n)
			return NULL;
		for (; k < end; k++)
			p->fn(p->arg, k);
	}
}

void ctx_parallel(struct ctx *c, size_t n, void (*fn)(void *arg, size_t k),
		  void *arg)
{
	struct pool p = { .n = n, .fn = fn, .arg = arg };
	size_t want = MIN((size_t)MAX(c->cores, 1u), MAX(n, (size_t)1)) - 1;
	_cleanup_free_ pthread_t *ids = xcalloc(want + 1, sizeof(*ids));
	size_t started = 0;

	p.block = MAX(n / ((want + 1) * 16), (size_t)1);
	while (started < want &&
	       pthread_create(&ids[started], NULL, work, &p) == 0)
		started++;
	work(&p); /* fewer threads are only slower */
	while (started > 0)
		pthread_join(ids[--started], NULL);
}
