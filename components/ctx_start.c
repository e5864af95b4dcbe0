// SPDX-License-Identifier: Apache-2.0
// From task.json to a task that can run, and back.
#include "components/ctx_priv.h"

#include <fcntl.h>

#include "lib/fileio.h"
#include "lib/json.h"
#include "lib/log.h"

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int read_secret(struct ctx *c, struct err *e)
{
	const char *hex = json_str_or(c->task, "secret", NULL);

	if (!hex)
		return 0;
	if (strlen(hex) != 2 * sizeof(c->secret))
		return err_set(e, EINVAL, "secret: expected 64 hex digits");
	for (size_t i = 0; i < sizeof(c->secret); i++) {
		int a = hex_digit(hex[2 * i]), b = hex_digit(hex[2 * i + 1]);

		if (a < 0 || b < 0)
			return err_set(e, EINVAL, "secret: not hex digits");
		c->secret[i] = (uint8_t)(a << 4 | b);
	}
	c->has_secret = true;
	return 0;
}

static int open_input(struct ctx *c, const char *key, const json_t *o,
		      struct err *e)
{
	struct ctx_table *t;
	int r;

	c->tables = xrealloc(c->tables, (c->n_tables + 1) * sizeof(*c->tables));
	t = &c->tables[c->n_tables];
	memset(t, 0, sizeof(*t));
	t->key = key;
	t->source = json_str_or(o, "source", "");
	if (json_get_str(o, "namespace", &t->namespace, e) < 0 ||
	    json_get_str(o, "name", &t->name, e) < 0)
		return -e->no;
	r = table_open(c->store, t->namespace, t->name, &t->table, e);
	if (r == -ENOENT) {
		/* Another role of that component has the output. */
		log_info("task", "input %s: %s made no table here", key,
			 t->source);
		return 0;
	}
	if (r < 0)
		return err_wrap(e, "table %s/%s", t->namespace, t->name);
	c->n_tables++;
	ctx_add_parent(c, t->namespace, t->name);
	return 0;
}

static int read_model(struct ctx *c, const json_t *o, struct err *e)
{
	const char *path;
	json_t *m;

	if (json_get_str(o, "path", &path, e) < 0)
		return -e->no;
	m = json_read_file(path, e);
	if (!m)
		return -e->no;
	if (!json_is_object(json_object_get(m, "meta")) ||
	    !json_is_object(json_object_get(m, "param"))) {
		json_decref(m);
		return err_set(e, EINVAL, "%s is not a model", path);
	}
	json_object_set_new(c->models, path, m);
	return 0;
}

static int open_inputs(struct ctx *c, struct err *e)
{
	const char *key;
	json_t *list, *o;
	size_t i;

	json_object_foreach (json_object_get(c->inputs, "data"), key, list) {
		json_array_foreach (list, i, o) {
			if (open_input(c, key, o, e) < 0)
				return err_wrap(e, "input %s", key);
		}
	}
	json_object_foreach (json_object_get(c->inputs, "model"), key, list) {
		json_array_foreach (list, i, o) {
			if (read_model(c, o, e) < 0)
				return err_wrap(e, "input %s", key);
		}
	}
	return 0;
}

static int open_channel(struct ctx *c, struct err *e)
{
	struct channel_options o = { 0 };

	if (json_get_str(c->task, "socket", &o.socket, e) < 0 ||
	    json_get_str(c->task, "session", &o.session, e) < 0)
		return -e->no;
	o.self.role = c->role;
	o.self.party = c->party;
	o.lease_s = (unsigned)json_int_or(c->task, "lease", 60);
	return channel_open(&o, &c->channel, e);
}

static int open_files(struct ctx *c, struct err *e)
{
	_cleanup_free_ char *events = xasprintf("%s/events", c->dir);
	_cleanup_free_ char *job_events = xasprintf("%s/../../events", c->dir);
	_cleanup_free_ char *tables = NULL;
	const char *state;

	if (json_get_str(c->task, "state", &state, e) < 0)
		return -e->no;
	tables = xasprintf("%s/tables", state);
	c->events =
	    open(events, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (c->events < 0)
		return err_sys(e, errno, "%s", events);
	/* The job's events get a copy: that is where people look. */
	c->job_events = open(job_events, O_WRONLY | O_APPEND | O_CLOEXEC);
	return table_store_open(tables, &c->store, e);
}

int ctx_start(struct ctx *c, struct err *e)
{
	int r;

	c->events = c->job_events = -1;
	c->percent = -1;
	c->models = json_object();
	c->parents = json_array();
	c->metrics = json_object();
	if (json_get_str(c->task, "job", &c->job, e) < 0 ||
	    json_get_str(c->task, "component", &c->component, e) < 0 ||
	    json_get_str(c->task, "role", &c->role, e) < 0 ||
	    json_get_str(c->task, "party", &c->party, e) < 0 ||
	    json_get_str(c->task, "task_dir", &c->dir, e) < 0)
		return err_wrap(e, "task.json");
	c->roles = json_object_get(c->task, "roles");
	c->params = json_object_get(c->task, "params");
	c->inputs = json_object_get(c->task, "inputs");
	c->outputs = json_object_get(c->task, "outputs");
	c->cores = (unsigned)json_int_or(c->task, "cores", 1);
	if (c->cores < 1 || c->cores > 1024)
		return err_set(e, EINVAL, "task.json: cores out of range");
	r = read_secret(c, e);
	if (!r)
		r = open_files(c, e);
	if (!r)
		r = open_inputs(c, e);
	return r < 0 ? r : open_channel(c, e);
}

void ctx_end(struct ctx *c)
{
	for (size_t i = 0; i < c->n_tables; i++)
		table_unref(c->tables[i].table);
	free(c->tables);
	if (c->channel)
		channel_close(c->channel);
	if (c->store)
		table_store_close(c->store);
	if (c->events >= 0)
		close(c->events);
	if (c->job_events >= 0)
		close(c->job_events);
	json_decref(c->models);
	json_decref(c->parents);
	json_decref(c->metrics);
	explicit_bzero(c->secret, sizeof(c->secret));
}
