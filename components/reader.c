// SPDX-License-Identifier: Apache-2.0
// Reader: a table of this party becomes the input of the job.
#include "components/component.h"

#include "lib/json.h"

static const struct param table_params[] = {
	{ .name = "namespace",
	  .type = PARAM_STRING,
	  .flags = PARAM_NULLABLE,
	  .help = "Namespace of the table." },
	{ .name = "name",
	  .type = PARAM_STRING,
	  .flags = PARAM_NULLABLE,
	  .help = "Name of the table." },
	{ .name = "job_id",
	  .type = PARAM_STRING,
	  .flags = PARAM_NULLABLE,
	  .help = "The output of another job is not offered yet." },
	{ .name = "component_name",
	  .type = PARAM_STRING,
	  .flags = PARAM_NULLABLE,
	  .help = "Belongs to job_id." },
	{ .name = "data_name",
	  .type = PARAM_STRING,
	  .flags = PARAM_NULLABLE,
	  .help = "Belongs to job_id." },
	{ 0 },
};

static const struct param params[] = {
	{ .name = "table",
	  .type = PARAM_OBJECT,
	  .sub = table_params,
	  .flags = PARAM_REQUIRED,
	  .help = "The table of this party to read." },
	{ 0 },
};

static void check(const json_t *p, const json_t *roles, const char *role,
		  void (*defect)(void *arg, const char *pointer,
				 const char *text),
		  void *arg)
{
	static const char *const later[] = { "job_id", "component_name",
					     "data_name" };
	static const char *const needed[] = { "namespace", "name" };
	const json_t *t = json_object_get(p, "table");
	char at[40];

	(void)roles;
	(void)role;
	for (size_t i = 0; i < ARRAY_SIZE(later); i++) {
		if (!json_str_or(t, later[i], NULL))
			continue;
		(void)snprintf(at, sizeof(at), "table/%s", later[i]);
		defect(arg, at,
		       "the output of another job is not offered yet: give "
		       "namespace and name");
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		if (json_str_or(t, needed[i], NULL))
			continue;
		(void)snprintf(at, sizeof(at), "table/%s", needed[i]);
		defect(arg, at, "is needed");
	}
}

/* The same rows; columns get the names by which partners know them. */
static int publish(struct ctx *c, struct table *t, struct err *e)
{
	struct table_schema *s = schema_dup(table_schema(t));
	struct table_build *b;
	int r;

	for (size_t i = 0; i < s->n_columns; i++)
		if (!s->columns[i].anonymous)
			s->columns[i].anonymous = xasprintf(
			    "%s_%s_x%zu", ctx_role(c), ctx_party(c), i);
	r = table_build_begin(ctx_store(c), s, &b, e);
	schema_free(s);
	if (r < 0)
		return r;
	r = table_build_share(b, t, e);
	if (r < 0) {
		table_build_abort(b);
		return r;
	}
	return ctx_put_table(c, 0, b, e);
}

static int run(struct ctx *c, struct err *e)
{
	const json_t *o = json_object_get(ctx_params(c), "table");
	_cleanup_table_ struct table *t = NULL;
	const struct table_schema *s;
	const char *ns, *name;
	json_t *columns, *summary;
	int r;

	if (json_get_str(o, "namespace", &ns, e) < 0 ||
	    json_get_str(o, "name", &name, e) < 0)
		return err_wrap(e, "table");
	r = table_hidden(ctx_store(c), ns, name, e);
	if (r > 0)
		return err_set(e, EACCES,
			       "table %s/%s is hidden from components: chmod "
			       "a+r it",
			       ns, name);
	r = table_open(ctx_store(c), ns, name, &t, e);
	if (r < 0)
		return err_wrap(e, "table %s/%s", ns, name);
	s = table_schema(t);
	columns = json_array();
	for (size_t i = 0; i < s->n_columns; i++)
		json_array_append_new(columns, json_string(s->columns[i].name));
	summary = json_pack("{s:I, s:o}", "count", (json_int_t)table_rows(t),
			    "columns", columns);
	if (!summary)
		return err_set(e, ENOMEM, "no memory for the summary");
	r = ctx_put_summary(c, summary, e);
	json_decref(summary);
	if (r < 0)
		return r;
	ctx_add_parent(c, ns, name);
	return publish(c, t, e);
}

static const char *const none[] = { NULL };

extern const struct component component_reader;
const struct component component_reader = {
	.module = "Reader",
	.roles = ROLE_GUEST | ROLE_HOST,
	.data_inputs = none,
	.model_inputs = none,
	.data_outputs = 1,
	.params = params,
	.help = "Reads a table of this party.",
	.check = check,
	.run = run,
};
