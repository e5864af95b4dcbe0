// SPDX-License-Identifier: Apache-2.0
/*
 * SampleWeight: how much each row counts, from its class or from a column.
 * docs/components/sample_weight.md.
 */
#include <math.h>
#include <strings.h>

#include "components/component.h"
#include "components/labels.h"
#include "lib/json.h"
#include "lib/table_ops.h"

#define WEIGHT_NAME "weight"

struct weighing {
	struct ctx *c;
	struct table *t;
	const json_t *params, *input_model;
	const char *source; /* column of weights, or NULL: by class */
	ssize_t source_at, label_at;
	struct labels labels;
	double *weight; /* by label */
	double sum, base;
};

static bool balanced(const json_t *p)
{
	const json_t *v = json_object_get(p, "class_weight");

	return json_is_string(v) &&
	       !strcasecmp(json_string_value(v), "balanced");
}

static double number(const struct cell *x)
{
	return x->type == CELL_I64 ? (double)x->i64 : x->f64;
}

/* ---- rows -----------------------------------------------------------------
 */

static int see_row(void *arg, const char *key, size_t len,
		   const struct cell *cells, struct err *e)
{
	struct weighing *w = arg;
	double v;

	(void)key;
	(void)len;
	if (!w->source)
		return labels_add(&w->labels, &cells[w->label_at], NULL, e);
	v = number(&cells[w->source_at]);
	if (!isfinite(v))
		return err_set(e, EINVAL,
			       "column %s: a row has no weight (missing_fill "
			       "of DataTransform)",
			       w->source);
	if (v < 0)
		return err_set(e, EINVAL, "column %s has a negative weight",
			       w->source);
	w->sum += v;
	return 0;
}

/* ---- what a row counts ----------------------------------------------------
 */

static int find_columns(struct weighing *w, struct err *e)
{
	const struct table_schema *s = table_schema(w->t);

	w->label_at = s->label ? schema_find(s, s->label) : -1;
	if (!w->source)
		return w->label_at >= 0 || w->input_model
			   ? 0
			   : err_set(e, EINVAL,
				     "class_weight needs a label: the table "
				     "has none (with_label of DataTransform)");
	w->source_at = schema_find(s, w->source);
	if (w->source_at < 0)
		return w->input_model
			   ? 0
			   : err_set(e, EINVAL,
				     "sample_weight_name: there is no column "
				     "%s",
				     w->source);
	if (s->label && !strcmp(s->label, w->source))
		return err_set(e, EINVAL, "sample_weight_name: %s is the label",
			       w->source);
	if (s->columns[w->source_at].type == CELL_STRING)
		return err_set(e, EINVAL,
			       "sample_weight_name: column %s holds text",
			       w->source);
	return 0;
}

static void class_weights(struct weighing *w)
{
	const json_t *given = json_object_get(w->params, "class_weight");
	const char *name;
	json_t *v;

	labels_sort(&w->labels, NULL);
	w->weight = xcalloc(w->labels.n + 1, sizeof(*w->weight));
	for (size_t k = 0; k < w->labels.n; k++)
		w->weight[k] = balanced(w->params)
				   ? (double)table_rows(w->t) /
					 ((double)w->labels.n *
					  (double)w->labels.v[k].count)
				   : 1;
	json_object_foreach ((json_t *)given, name, v) {
		json_t *text = json_string(name);
		ssize_t k = labels_find_json(&w->labels, text);

		json_decref(text);
		if (k >= 0)
			w->weight[k] = json_number_value(v);
		else
			ctx_event(w->c, "class_weight: no row has one of the "
					"labels that are named");
	}
}

static int fit(struct weighing *w, struct err *e)
{
	int r = table_each(w->t, see_row, w, e);

	if (r < 0)
		return r;
	w->base = 1;
	if (!w->source)
		class_weights(w);
	if (!w->source || !json_bool_or(w->params, "normalize", false))
		return 0;
	w->base = w->sum / (double)table_rows(w->t);
	if (!isfinite(w->base))
		return err_set(e, ERANGE,
			       "column %s: the weights are too large to be "
			       "normalized",
			       w->source);
	return w->base > 0 ? 0
			   : err_set(e, EINVAL,
				     "column %s: normalize needs a weight "
				     "above 0",
				     w->source);
}

static int from_model(struct weighing *w, struct err *e)
{
	const json_t *param = json_object_get(w->input_model, "param");
	const json_t *all = json_object_get(param, "class_weight");
	const char *name;
	json_t *v;

	w->base = json_num_or(param, "weight_base", 1);
	if (!(w->base > 0))
		return err_set(e, EINVAL, "model: weight_base is not above 0");
	w->weight = xcalloc(json_object_size(all) + 1, sizeof(*w->weight));
	json_object_foreach ((json_t *)all, name, v) {
		const struct cell x = { .type = CELL_STRING,
					.str = name,
					.len = strlen(name) };
		uint32_t k;

		if (!json_is_number(v) || json_number_value(v) < 0)
			return err_set(e, EINVAL,
				       "model: a class without a weight");
		if (labels_add(&w->labels, &x, &k, e) < 0)
			return err_wrap(e, "model");
		w->weight[k] = json_number_value(v);
	}
	return 0;
}

/* ---- output ----------------------------------------------------------------
 */

struct output {
	const struct weighing *w;
	struct table_build *b;
	struct cell *cells;
	bool *keep; /* columns of the input */
	uint64_t done;
};

static int put_row(void *arg, const char *key, size_t len,
		   const struct cell *cells, struct err *e)
{
	struct output *o = arg;
	const struct weighing *w = o->w;
	const struct table_schema *s = table_schema(w->t);
	double v = 1;
	size_t n = 0;

	if (w->source) {
		v = number(&cells[w->source_at]) / w->base;
	} else {
		ssize_t k = labels_find(&w->labels, &cells[w->label_at]);

		v = k < 0 ? 1 : w->weight[k];
	}
	/* Of rows that a model is applied to nothing was looked at yet. */
	if (!isfinite(v) || v < 0)
		return err_set(e, EINVAL,
			       "column %s: a weight is missing or negative",
			       w->source ? w->source : s->label);
	if (w->label_at >= 0)
		o->cells[n++] = cells[w->label_at];
	o->cells[n++] = (struct cell){ .type = CELL_F64, .f64 = v };
	for (size_t i = 0; i < s->n_columns; i++)
		if (o->keep[i])
			o->cells[n++] = cells[i];
	if (++o->done % 4096 == 0)
		ctx_progress(w->c, (double)o->done / (double)table_rows(w->t));
	return table_build_add(o->b, key, len, o->cells, e);
}

/* Label, weight, and everything else in its order. */
static struct table_schema *output_schema(const struct weighing *w, bool *keep,
					  struct err *e)
{
	const struct table_schema *in = table_schema(w->t);
	struct table_schema *s = schema_new();

	free(s->id);
	s->id = xstrdup(in->id);
	s->partitions = in->partitions;
	s->content_type = in->content_type ? xstrdup(in->content_type) : NULL;
	s->match_id = in->match_id ? xstrdup(in->match_id) : NULL;
	s->extra = in->extra ? json_deep_copy(in->extra) : NULL;
	if (w->label_at >= 0) {
		const struct table_column *k = &in->columns[w->label_at];

		s->label = xstrdup(in->label);
		schema_add_column(s, k->name, k->type, k->anonymous);
	}
	s->weight = xstrdup(WEIGHT_NAME);
	schema_add_column(s, WEIGHT_NAME, CELL_F64, NULL);
	for (size_t i = 0; i < in->n_columns; i++) {
		const struct table_column *k = &in->columns[i];

		keep[i] = (ssize_t)i != w->label_at &&
			  !(w->source && (ssize_t)i == w->source_at) &&
			  !(in->weight && !strcmp(in->weight, k->name));
		if (!keep[i])
			continue;
		if (schema_find(s, k->name) >= 0) {
			schema_free(s);
			(void)err_set(e, EEXIST,
				      "there is a column %s already: name it "
				      "in sample_weight_name, or rename it",
				      k->name);
			return NULL;
		}
		schema_add_column(s, k->name, k->type, k->anonymous);
	}
	return s;
}

static int put_rows(struct weighing *w, struct err *e)
{
	size_t n = table_schema(w->t)->n_columns;
	_cleanup_free_ bool *keep = xcalloc(n + 1, sizeof(*keep));
	_cleanup_free_ struct cell *cells = xcalloc(n + 2, sizeof(*cells));
	struct output o = { .w = w, .keep = keep, .cells = cells };
	struct table_schema *s = output_schema(w, keep, e);
	int r;

	if (!s)
		return -e->no;
	r = table_build_begin(ctx_store(w->c), s, &o.b, e);
	schema_free(s);
	if (r < 0)
		return r;
	r = table_each(w->t, put_row, &o, e);
	if (r >= 0)
		return ctx_put_table(w->c, 0, o.b, e);
	table_build_abort(o.b);
	return r;
}

static json_t *header(const struct table *t)
{
	const struct table_schema *s = table_schema(t);
	json_t *a = json_array();

	for (size_t i = 0; i < s->n_columns; i++)
		if (schema_is_feature(s, i))
			json_array_append_new(a,
					      json_string(s->columns[i].name));
	return a;
}

/* mode: "class weight", "sample weight" or "none" */
static int publish(struct weighing *w, const char *mode, struct err *e)
{
	json_t *o = json_pack("{s:s}", "weight_mode", mode), *classes;
	int r;

	if (w->weight && !w->source) {
		classes = json_object();
		for (size_t k = 0; k < w->labels.n; k++) {
			_cleanup_free_ char *name = label_name(&w->labels.v[k]);

			json_object_set_new(classes, name,
					    json_real(w->weight[k]));
		}
		json_object_set_new(o, "class_weight", classes);
	}
	if (w->source) {
		json_object_set_new(o, "sample_weight_name",
				    json_string(w->source));
		json_object_set_new(o, "weight_base", json_real(w->base));
	}
	r = ctx_put_summary(w->c, o, e);
	if (w->input_model && r >= 0) /* handed on unchanged */
		r = ctx_put_model(w->c, json_object_get(w->input_model, "meta"),
				  json_object_get(w->input_model, "param"), e);
	if (!w->input_model && r >= 0) {
		json_object_set_new(o, "header", header(w->t));
		r = ctx_put_model(w->c, w->params, o, e);
	}
	json_decref(o);
	return r;
}

/* ---- the component ---------------------------------------------------------
 */

static int hand_on(struct weighing *w, const char *why, const char *mode,
		   struct err *e)
{
	int r = ctx_put_same(w->c, 0, w->t, e);

	ctx_event(w->c, "the rows are handed on: %s", why);
	w->source = NULL;
	return r < 0 ? r : publish(w, mode, e);
}

static int weigh(struct weighing *w, struct err *e)
{
	const json_t *param = json_object_get(w->input_model, "param");
	const json_t *classes;
	const char *mode;
	int r;

	w->source = json_str_or(w->input_model ? param : w->params,
				"sample_weight_name", NULL);
	if (w->source && !*w->source)
		w->source = NULL;
	mode = w->source ? "sample weight" : "class weight";
	classes =
	    json_object_get(w->input_model ? param : w->params, "class_weight");
	if (!w->source && (!classes || json_is_null(classes)))
		return hand_on(w, "no weights are asked for", "none", e);
	r = find_columns(w, e);
	if (r >= 0)
		r = w->input_model ? from_model(w, e) : fit(w, e);
	if (r < 0)
		return r;
	if (w->input_model && (w->source ? w->source_at < 0 : w->label_at < 0))
		return hand_on(w,
			       w->source ? "they have no column of weights"
					 : "they have no label",
			       mode, e);
	r = put_rows(w, e);
	return r < 0 ? r : publish(w, mode, e);
}

static int run(struct ctx *c, struct err *e)
{
	struct weighing w = {
		.c = c, .params = ctx_params(c), .source_at = -1, .label_at = -1
	};
	int r;

	if (ctx_inputs(c, "data") != 1)
		return err_set(e, EINVAL, "one input table is needed");
	w.t = ctx_input(c, "data", 0);
	w.input_model = ctx_input_model(c, "model");
	if (!strcmp(ctx_role(c), "host"))
		r = hand_on(&w, "weights are the guest's", "none", e);
	else if (table_rows(w.t) == 0)
		r = hand_on(&w, "there are none", "none", e);
	else
		r = weigh(&w, e);
	if (r < 0)
		ctx_fail_code(c, "bad_data",
			      "that party's rows could not be weighed");
	labels_free(&w.labels);
	free(w.weight);
	return r;
}

static void check(const json_t *p, const json_t *roles, const char *role,
		  void (*defect)(void *arg, const char *pointer,
				 const char *text),
		  void *arg)
{
	const json_t *classes = json_object_get(p, "class_weight");
	const char *source = json_str_or(p, "sample_weight_name", "");
	const char *name;
	json_t *v;

	(void)roles;
	(void)role;
	if (classes && !json_is_null(classes) && !json_is_object(classes) &&
	    !balanced(p))
		defect(arg, "class_weight",
		       "expected \"balanced\", an object of label to weight "
		       "({\"0\": 1, \"1\": 5}), or null");
	json_object_foreach ((json_t *)classes, name, v)
		if (!json_is_number(v) || json_number_value(v) < 0) {
			_cleanup_free_ char *at =
			    xasprintf("class_weight/%s", name);

			defect(arg, at, "a weight is a number of at least 0");
		}
	if (*source && classes && !json_is_null(classes))
		defect(arg, "class_weight",
		       "weights come from classes or from the column "
		       "sample_weight_name, not from both: leave one out");
}

static const struct param params[] = {
	{ "class_weight", PARAM_ANY, NULL, .flags = PARAM_NULLABLE,
	  .help = "\"balanced\": rows / (classes x rows of the class); or an "
		  "object of label to weight" },
	{ "sample_weight_name", PARAM_STRING, NULL, .flags = PARAM_NULLABLE,
	  .help = "the column that holds the weights" },
	{ "normalize", PARAM_BOOL, "false",
	  .help = "with a column: divide by the mean weight" },
	{ "need_run", PARAM_BOOL, "true",
	  .help = "false: the rows are handed on as they are" },
	{ 0 },
};

static const char *const data_inputs[] = { "data", NULL };
static const char *const model_inputs[] = { "model", NULL };

extern const struct component component_sample_weight;
const struct component component_sample_weight = {
	.module = "SampleWeight",
	.roles = ROLE_GUEST | ROLE_HOST,
	.data_inputs = data_inputs,
	.model_inputs = model_inputs,
	.data_outputs = 1,
	.model_outputs = 1,
	.params = params,
	.help = "gives rows weights, by class or from a column",
	.check = check,
	.run = run,
};
