// SPDX-License-Identifier: Apache-2.0
/*
 * FeatureScale: each feature to [0, 1] or to mean 0 and deviation 1.
 * docs/components/feature_scale.md.
 */
#include <math.h>
#include <strings.h>

#include "components/component.h"
#include "lib/json.h"
#include "lib/table_ops.h"

#define SMALL	   1e-6	       /* a smaller range or deviation counts as 1 */
#define VALUES_MAX (16u << 20) /* in memory at once, for quantiles */

struct column {
	const char *name;
	size_t at;
	double lower, upper; /* bounds; NaN while not known */
	double mean, std;
	uint64_t n; /* values that are not missing */
	double m2;  /* of Welford's variance */
};

struct scale {
	struct ctx *c;
	struct table *t;
	const json_t *params, *input_model;
	bool standard, cap;
	bool *scaled; /* by column of the table */
	struct column *columns;
	size_t n;
};

static bool is(const json_t *p, const char *name, const char *value)
{
	return !strcasecmp(json_str_or(p, name, ""), value);
}

/* ---- columns ------------------------------------------------------------- */

static int add_column(struct scale *s, size_t at, struct err *e)
{
	const struct table_column *k = &table_schema(s->t)->columns[at];

	if (s->scaled[at])
		return 0;
	if (k->type == CELL_STRING)
		return err_set(e, EINVAL,
			       "column %s holds text, which cannot be scaled: "
			       "leave it out (scale_names), or make numbers of "
			       "it (DataTransform)",
			       k->name);
	s->scaled[at] = true;
	s->columns = xrealloc(s->columns, (s->n + 1) * sizeof(*s->columns));
	s->columns[s->n++] = (struct column){
		.name = k->name, .at = at, .lower = NAN, .upper = NAN, .std = 1
	};
	return 0;
}

/* The i-th feature's column, or -1. */
static ssize_t feature_at(const struct table_schema *t, size_t i)
{
	for (size_t k = 0; k < t->n_columns; k++)
		if (schema_is_feature(t, k) && i-- == 0)
			return (ssize_t)k;
	return -1;
}

static int compare_columns(const void *a, const void *b)
{
	const struct column *x = a, *y = b;

	return (x->at > y->at) - (x->at < y->at);
}

static int columns_named(struct scale *s, const json_t *indexes,
			 const json_t *names, struct err *e)
{
	const struct table_schema *t = table_schema(s->t);
	const json_t *v;
	ssize_t at;
	size_t i;
	int r;

	json_array_foreach (indexes, i, v) {
		at = feature_at(t, (size_t)json_integer_value(v));
		if (at < 0)
			return err_set(e, EINVAL,
				       "scale_col_indexes: there is no feature "
				       "%lld",
				       (long long)json_integer_value(v));
		r = add_column(s, (size_t)at, e);
		if (r < 0)
			return r;
	}
	json_array_foreach (names, i, v) {
		at = schema_find(t, json_string_value(v));
		if (at < 0 || !schema_is_feature(t, (size_t)at))
			return err_set(e, EINVAL,
				       "scale_names: there is no feature %s",
				       json_string_value(v));
		r = add_column(s, (size_t)at, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int columns_fit(struct scale *s, struct err *e)
{
	const struct table_schema *t = table_schema(s->t);
	const json_t *indexes = json_object_get(s->params, "scale_col_indexes");
	const json_t *names = json_object_get(s->params, "scale_names");
	int r = 0;

	if (json_is_array(indexes) || json_array_size(names))
		r = columns_named(s, indexes, names, e);
	else
		for (size_t i = 0; i < t->n_columns && r >= 0; i++)
			if (schema_is_feature(t, i))
				r = add_column(s, i, e);
	if (r >= 0 && s->n)
		qsort(s->columns, s->n, sizeof(*s->columns), compare_columns);
	return r;
}

static int column_from_model(struct scale *s, const char *name, const json_t *o,
			     struct err *e)
{
	static const char *const members[] = { "column_lower", "column_upper",
					       "mean", "std" };
	const struct table_schema *t = table_schema(s->t);
	ssize_t at = schema_find(t, name);
	struct column *k;
	int r;

	if (at < 0 || !schema_is_feature(t, (size_t)at))
		return err_set(e, EINVAL,
			       "the column %s of the training data is missing",
			       name);
	for (size_t i = 0; i < ARRAY_SIZE(members); i++)
		if (!json_is_number(json_object_get(o, members[i])))
			return err_set(e, EINVAL, "model: column %s has no %s",
				       name, members[i]);
	r = add_column(s, (size_t)at, e);
	if (r < 0)
		return r;
	k = &s->columns[s->n - 1];
	k->lower = json_num_or(o, "column_lower", 0);
	k->upper = json_num_or(o, "column_upper", 0);
	k->mean = json_num_or(o, "mean", 0);
	k->std = json_num_or(o, "std", 1);
	return k->std > 0 ? 0
			  : err_set(e, EINVAL,
				    "model: column %s: std is not "
				    "above 0",
				    name);
}

static int columns_from_model(struct scale *s, struct err *e)
{
	const json_t *param = json_object_get(s->input_model, "param");
	const json_t *all = json_object_get(param, "col_scale_param");
	const char *name;
	json_t *o;
	int r;

	if (!json_is_object(all))
		return err_set(e, EINVAL, "model: no col_scale_param");
	json_object_foreach ((json_t *)all, name, o) {
		r = column_from_model(s, name, o, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- passes over the rows ------------------------------------------------ */

static double number(const struct cell *x)
{
	return x->type == CELL_I64 ? (double)x->i64 : x->f64;
}

static double clip(const struct column *k, double v)
{
	if (v < k->lower)
		return k->lower;
	return v > k->upper ? k->upper : v; /* NaN stays */
}

/* Smallest and largest value; infinite ones would spoil every other. */
static int see_range(void *arg, const char *key, size_t len,
		     const struct cell *cells, struct err *e)
{
	struct scale *s = arg;

	(void)key;
	(void)len;
	for (size_t i = 0; i < s->n; i++) {
		struct column *k = &s->columns[i];
		double v = number(&cells[k->at]);

		if (isinf(v))
			return err_set(e, EINVAL,
				       "column %s has an infinite value",
				       k->name);
		if (isnan(v))
			continue;
		k->n++;
		k->lower = fmin(k->lower, v); /* fmin ignores the NaN */
		k->upper = fmax(k->upper, v);
	}
	return 0;
}

static int see_mean(void *arg, const char *key, size_t len,
		    const struct cell *cells, struct err *e)
{
	struct scale *s = arg;

	(void)key;
	(void)len;
	(void)e;
	for (size_t i = 0; i < s->n; i++) {
		struct column *k = &s->columns[i];
		double v = clip(k, number(&cells[k->at])), d = v - k->mean;

		if (isnan(v))
			continue;
		k->n++;
		k->mean += d / (double)k->n;
		k->m2 += d * (v - k->mean);
	}
	return 0;
}

/* ---- bounds ----------------------------------------------------------------
 */

struct values {
	const struct scale *s;
	size_t first, columns;
	double *v; /* columns x rows */
	size_t *n;
	uint64_t rows;
};

static int take_values(void *arg, const char *key, size_t len,
		       const struct cell *cells, struct err *e)
{
	struct values *q = arg;
	const struct scale *s = q->s;

	(void)key;
	(void)len;
	(void)e;
	for (size_t i = 0; i < q->columns; i++) {
		double v = number(&cells[s->columns[q->first + i].at]);

		if (!isnan(v) && q->n[i] < q->rows)
			q->v[i * q->rows + q->n[i]++] = v;
	}
	return 0;
}

static int compare_values(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The value at rank ceil(q n) of n sorted ones. */
static double quantile(const double *v, size_t n, double q)
{
	double rank = ceil(q * (double)n - 1e-9);

	return v[rank < 1 ? 0 : rank > (double)n ? n - 1 : (size_t)rank - 1];
}

/* A few columns at a time: their values are in memory. */
static int bounds_cap(struct scale *s, struct err *e)
{
	double low = json_num_or(s->params, "feat_lower", 0);
	double high = json_num_or(s->params, "feat_upper", 1);
	struct values q = { .s = s, .rows = table_rows(s->t) };
	size_t at_once = MAX((size_t)(VALUES_MAX / q.rows), (size_t)1);
	int r = 0;

	at_once = MIN(at_once, MAX(s->n, (size_t)1));
	q.v = xcalloc(at_once * q.rows, sizeof(*q.v));
	q.n = xcalloc(at_once, sizeof(*q.n));
	for (q.first = 0; q.first < s->n && r >= 0; q.first += at_once) {
		q.columns = MIN(at_once, s->n - q.first);
		memset(q.n, 0, at_once * sizeof(*q.n));
		r = table_each(s->t, take_values, &q, e);
		for (size_t i = 0; r >= 0 && i < q.columns; i++) {
			struct column *k = &s->columns[q.first + i];
			double *v = q.v + i * q.rows;

			qsort(v, q.n[i], sizeof(*v), compare_values);
			k->lower = quantile(v, q.n[i], low);
			k->upper = quantile(v, q.n[i], high);
		}
	}
	free(q.v);
	free(q.n);
	return r;
}

/* One number for all, or a list with one for each scaled column; null keeps
 * what was observed. */
static int bound_given(const struct scale *s, const char *name, size_t i,
		       double *ret, struct err *e)
{
	const json_t *v = json_object_get(s->params, name);

	if (json_is_array(v) && json_array_size(v) != s->n)
		return err_set(e, EINVAL,
			       "%s: %zu bounds for %zu columns that are scaled",
			       name, json_array_size(v), s->n);
	if (json_is_array(v))
		v = json_array_get(v, i);
	if (json_is_number(v))
		*ret = json_number_value(v);
	return 0;
}

static int bounds_normal(struct scale *s, struct err *e)
{
	for (size_t i = 0; i < s->n; i++) {
		struct column *k = &s->columns[i];

		if (bound_given(s, "feat_lower", i, &k->lower, e) < 0 ||
		    bound_given(s, "feat_upper", i, &k->upper, e) < 0)
			return -e->no;
		if (k->lower > k->upper)
			return err_set(e, EINVAL,
				       "column %s: no value lies between "
				       "feat_lower and feat_upper",
				       k->name);
	}
	return 0;
}

static void deviation(struct scale *s)
{
	bool with_mean = json_bool_or(s->params, "with_mean", true);
	bool with_std = json_bool_or(s->params, "with_std", true);

	for (size_t i = 0; i < s->n; i++) {
		struct column *k = &s->columns[i];
		double std = sqrt(k->m2 / (double)k->n);

		if (!with_mean)
			k->mean = 0;
		k->std = with_std && std >= SMALL ? std : 1;
	}
}

static int fit(struct scale *s, struct err *e)
{
	int r = table_each(s->t, see_range, s, e);

	for (size_t i = 0; r >= 0 && i < s->n; i++) {
		if (s->columns[i].n == 0)
			r = err_set(e, EINVAL, "column %s has no values",
				    s->columns[i].name);
		s->columns[i].n = 0;
	}
	if (r >= 0)
		r = s->cap ? bounds_cap(s, e) : bounds_normal(s, e);
	if (r >= 0 && s->standard)
		r = table_each(s->t, see_mean, s, e);
	if (r >= 0 && s->standard)
		deviation(s);
	for (size_t i = 0; r >= 0 && i < s->n; i++) {
		const struct column *k = &s->columns[i];

		if (!isfinite(k->upper - k->lower) || !isfinite(k->mean) ||
		    !isfinite(k->std))
			r = err_set(e, ERANGE,
				    "column %s has values too large to be "
				    "scaled",
				    k->name);
	}
	return r;
}

/* ---- output ----------------------------------------------------------------
 */

struct output {
	const struct scale *s;
	struct table_build *b;
	struct cell *cells;
	uint64_t done;
};

static double scaled(const struct scale *s, const struct column *k, double v)
{
	double range = k->upper - k->lower;

	v = clip(k, v);
	if (s->standard)
		return (v - k->mean) / k->std;
	return (v - k->lower) / (range < SMALL ? 1 : range);
}

static int put_row(void *arg, const char *key, size_t len,
		   const struct cell *cells, struct err *e)
{
	struct output *o = arg;
	const struct scale *s = o->s;

	memcpy(o->cells, cells, table_schema(s->t)->n_columns * sizeof(*cells));
	for (size_t i = 0; i < s->n; i++) {
		const struct column *k = &s->columns[i];
		double v = number(&cells[k->at]);

		o->cells[k->at] =
		    (struct cell){ .type = CELL_F64, .f64 = scaled(s, k, v) };
	}
	if (++o->done % 4096 == 0)
		ctx_progress(s->c, (double)o->done / (double)table_rows(s->t));
	return table_build_add(o->b, key, len, o->cells, e);
}

static int put_rows(struct scale *s, struct err *e)
{
	struct table_schema *d = schema_dup(table_schema(s->t));
	struct output o = { .s = s };
	int r;

	for (size_t i = 0; i < s->n; i++)
		d->columns[s->columns[i].at].type = CELL_F64;
	r = table_build_begin(ctx_store(s->c), d, &o.b, e);
	o.cells = xcalloc(d->n_columns + 1, sizeof(*o.cells));
	schema_free(d);
	if (r >= 0) {
		r = table_each(s->t, put_row, &o, e);
		if (r >= 0)
			r = ctx_put_table(s->c, 0, o.b, e);
		else
			table_build_abort(o.b);
	}
	free(o.cells);
	return r;
}

static json_t *columns_json(const struct scale *s)
{
	json_t *o = json_object();

	for (size_t i = 0; i < s->n; i++) {
		const struct column *k = &s->columns[i];

		json_object_set_new(o, k->name,
				    json_pack("{s:f, s:f, s:f, s:f}",
					      "column_lower", k->lower,
					      "column_upper", k->upper, "mean",
					      k->mean, "std", k->std));
	}
	return o;
}

static int put_model(struct scale *s, struct err *e)
{
	const struct table_schema *t = table_schema(s->t);
	json_t *meta, *param, *header = json_array(), *names = json_array();
	int r;

	for (size_t i = 0; i < t->n_columns; i++)
		if (schema_is_feature(t, i))
			json_array_append_new(header,
					      json_string(t->columns[i].name));
	for (size_t i = 0; i < s->n; i++)
		json_array_append_new(names, json_string(s->columns[i].name));
	meta = json_deep_copy(s->params);
	json_object_set_new(meta, "scale_column", names);
	param = json_pack("{s:o, s:o}", "header", header, "col_scale_param",
			  columns_json(s));
	r = ctx_put_model(s->c, meta, param, e);
	json_decref(meta);
	json_decref(param);
	return r;
}

static int publish(struct scale *s, struct err *e)
{
	json_t *o = json_pack("{s:I, s:s, s:o}", "count",
			      (json_int_t)table_rows(s->t), "method",
			      s->standard ? "standard_scale" : "min_max_scale",
			      "columns", columns_json(s));
	int r = ctx_put_summary(s->c, o, e);

	json_decref(o);
	if (r < 0)
		return r;
	if (s->input_model) /* handed on unchanged */
		return ctx_put_model(
		    s->c, json_object_get(s->input_model, "meta"),
		    json_object_get(s->input_model, "param"), e);
	return put_model(s, e);
}

/* ---- the component ---------------------------------------------------------
 */

static int scale(struct scale *s, struct err *e)
{
	const json_t *how = s->input_model
				? json_object_get(s->input_model, "meta")
				: s->params;
	int r;

	s->standard = is(how, "method", "standard_scale");
	s->cap = is(how, "mode", "cap");
	if (!s->standard && !is(how, "method", "min_max_scale"))
		return err_set(e, EINVAL, "model: no such method");
	s->scaled = xcalloc(table_schema(s->t)->n_columns + 1, sizeof(bool));
	r = s->input_model ? columns_from_model(s, e) : columns_fit(s, e);
	if (r >= 0 && !s->input_model)
		r = fit(s, e);
	if (r < 0) {
		ctx_fail_code(s->c, "bad_data",
			      "that party's table could not be scaled");
		return r;
	}
	r = put_rows(s, e);
	return r < 0 ? r : publish(s, e);
}

static int run(struct ctx *c, struct err *e)
{
	struct scale s = { .c = c, .params = ctx_params(c) };
	int r;

	if (ctx_inputs(c, "data") != 1)
		return err_set(e, EINVAL, "one input table is needed");
	s.t = ctx_input(c, "data", 0);
	s.input_model = ctx_input_model(c, "model");
	if (table_rows(s.t) == 0 && !s.input_model)
		return err_set(e, EINVAL, "the input table has no rows");
	r = scale(&s, e);
	free(s.scaled);
	free(s.columns);
	return r;
}

static bool bound_ok(const json_t *v)
{
	return !v || json_is_null(v) || json_is_number(v);
}

static void check_bound(const json_t *p, const char *name,
			void (*defect)(void *arg, const char *pointer,
				       const char *text),
			void *arg)
{
	const json_t *v = json_object_get(p, name), *x;
	bool cap = is(p, "mode", "cap"), ok = bound_ok(v);
	size_t i;

	if (json_is_array(v)) {
		ok = true;
		json_array_foreach (v, i, x)
			ok &= bound_ok(x);
	}
	if (!ok)
		defect(arg, name,
		       "expected a number, null, or a list with one of them "
		       "for each scaled column");
	else if (cap && json_is_array(v))
		defect(arg, name,
		       "a list needs mode normal; with cap it is one quantile, "
		       "0 to 1");
	else if (cap && json_is_number(v) &&
		 (json_number_value(v) < 0 || json_number_value(v) > 1))
		defect(arg, name, "with mode cap it is a quantile, 0 to 1");
}

static void check(const json_t *p, const json_t *roles, const char *role,
		  void (*defect)(void *arg, const char *pointer,
				 const char *text),
		  void *arg)
{
	const json_t *indexes = json_object_get(p, "scale_col_indexes"), *v;
	const json_t *lower = json_object_get(p, "feat_lower");
	const json_t *upper = json_object_get(p, "feat_upper");
	bool ok = json_is_array(indexes) || (json_is_integer(indexes) &&
					     json_integer_value(indexes) == -1);
	char at[40];
	size_t i;

	(void)roles;
	(void)role;
	json_array_foreach (indexes, i, v)
		ok &= json_is_integer(v) && json_integer_value(v) >= 0;
	if (indexes && !json_is_null(indexes) && !ok)
		defect(arg, "scale_col_indexes",
		       "expected -1 (all features) or a list of their numbers, "
		       "from 0");
	json_array_foreach (json_object_get(p, "scale_names"), i, v)
		if (!json_is_string(v)) {
			(void)snprintf(at, sizeof(at), "scale_names/%zu", i);
			defect(arg, at, "expected the name of a column");
		}
	check_bound(p, "feat_lower", defect, arg);
	check_bound(p, "feat_upper", defect, arg);
	if (json_is_number(lower) && json_is_number(upper) &&
	    json_number_value(lower) > json_number_value(upper))
		defect(arg, "feat_lower", "is above feat_upper");
}

static const struct param params[] = {
	{ "method", PARAM_ENUM, "\"standard_scale\"",
	  .choices = "standard_scale|min_max_scale",
	  .help = "to mean 0 and deviation 1, or to 0..1" },
	{ "mode", PARAM_ENUM, "\"normal\"", .choices = "normal|cap",
	  .help = "bounds are values, or quantiles of the column" },
	{ "scale_col_indexes", PARAM_ANY, "-1",
	  .help = "list of the features to scale, from 0; -1: all, or those "
		  "of scale_names" },
	{ "scale_names", PARAM_LIST, NULL, .flags = PARAM_NULLABLE,
	  .help = "their names" },
	{ "feat_upper", PARAM_ANY, NULL, .flags = PARAM_NULLABLE,
	  .help = "larger values are replaced by it; null: the largest one" },
	{ "feat_lower", PARAM_ANY, NULL, .flags = PARAM_NULLABLE,
	  .help = "smaller values are replaced by it; null: the smallest "
		  "one" },
	{ "with_mean", PARAM_BOOL, "true",
	  .help = "for standard_scale: subtract the mean" },
	{ "with_std", PARAM_BOOL, "true",
	  .help = "for standard_scale: divide by the deviation" },
	{ "need_run", PARAM_BOOL, "true",
	  .help = "false: the rows are handed on as they are" },
	{ 0 },
};

static const char *const data_inputs[] = { "data", NULL };
static const char *const model_inputs[] = { "model", NULL };

extern const struct component component_feature_scale;
const struct component component_feature_scale = {
	.module = "FeatureScale",
	.roles = ROLE_GUEST | ROLE_HOST,
	.data_inputs = data_inputs,
	.model_inputs = model_inputs,
	.data_outputs = 1,
	.model_outputs = 1,
	.params = params,
	.help = "brings features to a common scale",
	.check = check,
	.run = run,
};
