// SPDX-License-Identifier: Apache-2.0
// Reader: a table of this party becomes the input of the job.
#include "components/component.h"

#include "lib/json.h"

static const struct param table_params[] = {
	{ .name = "namespace",
	  .type = PARAM_STRING,
	  .flags = PARAM_REQUIRED,
	  .help = "Namespace of the table." },
	{ .name = "name",
	  .type = PARAM_STRING,
	  .flags = PARAM_REQUIRED,
	  .help = "Name of the table." },
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
	return ctx_put_same(c, 0, t, e);
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
	.run = run,
};
