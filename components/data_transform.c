// SPDX-License-Identifier: Apache-2.0
/*
 * DataTransform: the text of an uploaded table becomes typed columns, label
 * first.  docs/components/data_transform.md.
 */
#include <math.h>
#include <strings.h>

#include "components/component.h"
#include "lib/json.h"

enum kind { KIND_FLOAT, KIND_FLOAT32, KIND_INT, KIND_TEXT, KIND_BAD };
enum method { FILL_ZERO, FILL_MIN, FILL_MAX, FILL_MEAN, FILL_DESIGNATED };
enum found { IS_VALUE, IS_MISSING, IS_OUTLIER, IS_BAD };

/* Cells that stand for something else: as text, or as an equal number. */
struct marks {
	const char **text; /* borrowed from the parameters or the model */
	double *num;	   /* NaN = not a number */
	size_t n;
};

struct fill {
	bool on;
	enum method method;
	struct marks marks;
};

struct column {
	const char *name;
	char *anonymous;
	size_t at; /* in the input */
	enum kind kind;
	double min, max, sum;
	uint64_t values, missing, outliers, bad;
	double missing_fill, outlier_fill;
};

struct transform {
	struct ctx *c;
	struct table *t;
	const json_t *params, *input_model;
	const json_t *model; /* param of it; NULL = fit */
	struct fill missing, outlier;
	const char *label; /* NULL = none */
	size_t label_at;
	enum kind label_kind;
	uint64_t label_bad;
	struct column *columns;
	size_t n;
};

static enum kind kind_of(const char *s)
{
	static const struct {
		const char *name;
		enum kind kind;
	} kinds[] = {
		{ "float", KIND_FLOAT },  { "float64", KIND_FLOAT },
		{ "double", KIND_FLOAT }, { "float32", KIND_FLOAT32 },
		{ "int", KIND_INT },	  { "int32", KIND_INT },
		{ "int64", KIND_INT },	  { "long", KIND_INT },
		{ "str", KIND_TEXT },
	};

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (strcasecmp(kinds[i].name, s) == 0)
			return kinds[i].kind;
	return KIND_BAD;
}

static const char *kind_name(enum kind k)
{
	static const char *const names[] = { "float64", "float32", "int64",
					     "str" };

	return names[k];
}

static enum method method_of(const char *s)
{
	return !s			      ? FILL_ZERO
	       : !strcasecmp(s, "min")	      ? FILL_MIN
	       : !strcasecmp(s, "max")	      ? FILL_MAX
	       : !strcasecmp(s, "mean")	      ? FILL_MEAN
	       : !strcasecmp(s, "designated") ? FILL_DESIGNATED
					      : FILL_ZERO;
}

/* ---- parameters ------------------------------------------------------- */

static void marks_read(struct marks *m, const json_t *list)
{
	static const char *const usual[] = { "",     "NULL", "null", "NA", "na",
					     "none", "None", "nan",  "NaN" };
	size_t n =
	    json_is_array(list) ? json_array_size(list) : ARRAY_SIZE(usual);

	m->text = xcalloc(n + 1, sizeof(*m->text));
	m->num = xcalloc(n + 1, sizeof(*m->num));
	for (size_t i = 0; i < n; i++) {
		const json_t *v = json_array_get(list, i);

		m->num[i] = json_is_number(v) ? json_number_value(v) : NAN;
		if (!json_is_array(list))
			m->text[i] = usual[i];
		else
			m->text[i] = json_string_value(v);
		if (m->text[i] &&
		    !num_parse(m->text[i], strlen(m->text[i]), &m->num[i]))
			m->num[i] = NAN;
	}
	m->n = n;
}

static void marks_free(struct marks *m)
{
	free(m->text);
	free(m->num);
}

static bool marked_text(const struct marks *m, const char *s, size_t n)
{
	for (; n && *s == ' '; n--)
		s++;
	while (n && s[n - 1] == ' ')
		n--;
	for (size_t i = 0; i < m->n; i++)
		if (m->text[i] && strlen(m->text[i]) == n &&
		    memcmp(m->text[i], s, n) == 0)
			return true;
	return false;
}

static bool marked_number(const struct marks *m, double v)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->num[i] == v) /* never with NaN */
			return true;
	return false;
}

/* The kind of a column: its own, or the one for all. */
static int kind_for(const struct transform *d, const char *name, enum kind *ret,
		    struct err *e)
{
	const json_t *own = json_object_get(
	    json_object_get(d->params, "exclusive_data_type"), name);
	const char *s = json_is_string(own)
			    ? json_string_value(own)
			    : json_str_or(d->params, "data_type", "float64");

	*ret = kind_of(s);
	if (*ret == KIND_BAD)
		return err_set(e, EINVAL, "column %s: no data type %s", name,
			       s);
	return 0;
}

/* The value that a designated fill has for column i. */
static int designated(const struct transform *d, const char *key, size_t i,
		      double *ret, struct err *e)
{
	const json_t *v = json_object_get(d->params, key);

	if (json_is_array(v)) {
		if (json_array_size(v) != d->n)
			return err_set(e, EINVAL,
				       "%s: %zu values for %zu columns", key,
				       json_array_size(v), d->n);
		v = json_array_get(v, i);
	}
	if (!v || json_is_null(v))
		*ret = 0;
	else if (json_is_number(v))
		*ret = json_number_value(v);
	else if (!json_is_string(v) ||
		 !num_parse(json_string_value(v), json_string_length(v), ret))
		return err_set(e, EINVAL, "%s: expected numbers", key);
	return 0;
}

static void fill_read(struct fill *f, const json_t *o, const char *on,
		      const char *method, const char *list)
{
	f->on = json_bool_or(o, on, false);
	f->method = method_of(json_str_or(o, method, NULL));
	marks_read(&f->marks, json_object_get(o, list));
}

/* ---- columns ---------------------------------------------------------- */

static void add_column(struct transform *d, const char *name, size_t at,
		       enum kind kind, char *anonymous)
{
	struct column *k;

	d->columns = xrealloc(d->columns, (d->n + 1) * sizeof(*d->columns));
	k = &d->columns[d->n++];
	memset(k, 0, sizeof(*k));
	k->name = name;
	k->at = at;
	k->kind = kind;
	k->anonymous = anonymous;
	k->min = INFINITY;
	k->max = -INFINITY;
}

static int columns_fit(struct transform *d, struct err *e)
{
	const struct table_schema *s = table_schema(d->t);
	const json_t *own = json_object_get(d->params, "exclusive_data_type");
	const char *name;
	json_t *v;

	for (size_t i = 0; i < s->n_columns; i++) {
		enum kind kind;

		if (d->label && i == d->label_at)
			continue;
		if (kind_for(d, s->columns[i].name, &kind, e) < 0)
			return -e->no;
		add_column(d, s->columns[i].name, i, kind,
			   xasprintf("%s_%s_x%zu", ctx_role(d->c),
				     ctx_party(d->c), d->n));
	}
	json_object_foreach ((json_t *)own, name, v)
		if (schema_find(s, name) < 0)
			return err_set(e, EINVAL,
				       "exclusive_data_type: no column %s",
				       name);
	return 0;
}

/* The columns that the model was made from, in its order; others go. */
static int columns_from_model(struct transform *d, struct err *e)
{
	const struct table_schema *s = table_schema(d->t);
	const json_t *header = json_object_get(d->model, "header");
	const json_t *o;
	size_t i;

	if (!json_is_array(header))
		return err_set(e, EINVAL, "model: no header");
	json_array_foreach (header, i, o) {
		const char *name, *type, *anonymous;
		enum kind kind;
		ssize_t at;

		if (json_get_str(o, "name", &name, e) < 0 ||
		    json_get_str(o, "type", &type, e) < 0 ||
		    json_get_str(o, "anonymous", &anonymous, e) < 0)
			return err_wrap(e, "model: header");
		kind = kind_of(type);
		if (kind == KIND_BAD)
			return err_set(e, EINVAL, "model: no data type %s",
				       type);
		at = schema_find(s, name);
		if (at < 0)
			return err_set(e, EINVAL,
				       "the column %s of the training data is "
				       "missing",
				       name);
		add_column(d, name, (size_t)at, kind, xstrdup(anonymous));
		d->columns[i].missing_fill = json_num_or(o, "missing_value", 0);
		d->columns[i].outlier_fill = json_num_or(o, "outlier_value", 0);
	}
	return 0;
}

static int find_label(struct transform *d, struct err *e)
{
	const json_t *model_label = json_object_get(d->model, "label");
	const json_t *from = d->model ? model_label : d->params;
	const char *name = json_str_or(from, "label_name", "y");
	ssize_t at;

	if (d->model ? !json_is_object(model_label)
		     : !json_bool_or(d->params, "with_label", false))
		return 0;
	at = schema_find(table_schema(d->t), name);
	if (at < 0 && d->model)
		return 0; /* rows to predict need none */
	if (at < 0)
		return err_set(e, EINVAL, "there is no label column %s", name);
	d->label = name;
	d->label_at = (size_t)at;
	d->label_kind = kind_of(json_str_or(from, "label_type", "int"));
	if (d->label_kind == KIND_BAD)
		return err_set(e, EINVAL, "label_type: no such type");
	return 0;
}

/* ---- cells ------------------------------------------------------------ */

static bool number(const struct cell *x, double *ret)
{
	if (x->type == CELL_STRING)
		return num_parse(x->str, x->len, ret) && isfinite(*ret);
	*ret = x->type == CELL_F64 ? x->f64 : (double)x->i64;
	return isfinite(*ret);
}

/* Equal texts that are numbers are equal numbers: most cells are done without
 * a look at the texts. */
static bool marked(const struct marks *m, const struct cell *x, bool is_number,
		   double v)
{
	if (is_number)
		return marked_number(m, v);
	return x->type == CELL_STRING && marked_text(m, x->str, x->len);
}

static enum found look(const struct transform *d, const struct column *k,
		       const struct cell *x, double *v)
{
	bool ok = number(x, v);

	if ((x->type == CELL_F64 && isnan(x->f64)) ||
	    marked(&d->missing.marks, x, ok, *v))
		return IS_MISSING;
	if (d->outlier.on && marked(&d->outlier.marks, x, ok, *v))
		return IS_OUTLIER;
	if (!ok || (k->kind == KIND_INT && *v != nearbyint(*v)))
		return IS_BAD;
	return IS_VALUE;
}

static void measure(const struct transform *d, struct column *k,
		    const struct cell *x)
{
	double v;

	if (k->kind == KIND_TEXT || look(d, k, x, &v) != IS_VALUE)
		return;
	k->values++;
	k->sum += v;
	k->min = fmin(k->min, v);
	k->max = fmax(k->max, v);
}

static void convert(const struct transform *d, struct column *k,
		    const struct cell *x, struct cell *ret)
{
	double v = NAN;

	if (k->kind == KIND_TEXT && x->type == CELL_STRING) {
		*ret = *x;
		return;
	}
	ret->type = CELL_F64;
	switch (look(d, k, x, &v)) {
	case IS_MISSING:
		k->missing++;
		v = d->missing.on ? k->missing_fill : NAN;
		break;
	case IS_OUTLIER:
		k->outliers++;
		v = k->outlier_fill;
		break;
	case IS_BAD:
		k->bad++;
		break;
	case IS_VALUE:
		break;
	}
	ret->f64 = k->kind == KIND_FLOAT32 ? (double)(float)v : v;
}

/* False when the label is not of its type. */
static bool convert_label(const struct transform *d, const struct cell *x,
			  struct cell *ret)
{
	double v;

	if (d->label_kind == KIND_TEXT) {
		*ret = *x;
		return x->type == CELL_STRING && x->len > 0;
	}
	if (!number(x, &v))
		return false;
	ret->f64 = d->label_kind == KIND_FLOAT32 ? (double)(float)v : v;
	ret->type = d->label_kind == KIND_INT ? CELL_I64 : CELL_F64;
	if (d->label_kind != KIND_INT)
		return true;
	if (v != nearbyint(v) || fabs(v) > 9007199254740992.0)
		return false;
	ret->i64 = (int64_t)v;
	return true;
}

/* ---- passes over the rows --------------------------------------------- */

static bool statistic(const struct fill *f)
{
	return f->on && (f->method == FILL_MIN || f->method == FILL_MAX ||
			 f->method == FILL_MEAN);
}

static int measure_rows(struct transform *d, struct err *e)
{
	const struct cell *cells;
	struct table_iter *it;
	const char *key;
	size_t len;
	int r;

	r = table_scan(d->t, NULL, 0, &it, e);
	if (r < 0)
		return r;
	while ((r = table_next(it, &key, &len, &cells, e)) > 0)
		for (size_t i = 0; i < d->n; i++)
			measure(d, &d->columns[i], &cells[d->columns[i].at]);
	table_scan_end(it);
	return r;
}

static int fill_value(const struct transform *d, const struct fill *f,
		      const char *key, size_t i, double *ret, struct err *e)
{
	const struct column *k = &d->columns[i];

	*ret = 0;
	if (!f->on || k->kind == KIND_TEXT)
		return 0;
	if (f->method == FILL_DESIGNATED)
		return designated(d, key, i, ret, e);
	if (!statistic(f))
		return 0;
	if (k->values == 0)
		return err_set(e, EINVAL,
			       "column %s has no value to fill others with",
			       k->name);
	*ret = f->method == FILL_MIN   ? k->min
	       : f->method == FILL_MAX ? k->max
				       : k->sum / (double)k->values;
	return 0;
}

static int fit(struct transform *d, struct err *e)
{
	int r = 0;

	if (statistic(&d->missing) || statistic(&d->outlier))
		r = measure_rows(d, e);
	for (size_t i = 0; i < d->n && r >= 0; i++) {
		struct column *k = &d->columns[i];

		r = fill_value(d, &d->missing, "default_value", i,
			       &k->missing_fill, e);
		if (r >= 0)
			r = fill_value(d, &d->outlier, "outlier_replace_value",
				       i, &k->outlier_fill, e);
	}
	return r;
}

static struct table_schema *output_schema(const struct transform *d)
{
	static const enum cell_type types[] = { CELL_F64, CELL_F64, CELL_I64,
						CELL_STRING };
	const struct table_schema *in = table_schema(d->t);
	struct table_schema *s = schema_new();

	free(s->id);
	s->id = xstrdup(in->id);
	s->partitions = in->partitions;
	s->content_type = xstrdup("instances");
	if (d->label) {
		_cleanup_free_ char *y =
		    xasprintf("%s_%s_y", ctx_role(d->c), ctx_party(d->c));

		s->label = xstrdup(d->label);
		schema_add_column(s, d->label, types[d->label_kind], y);
	}
	for (size_t i = 0; i < d->n; i++) {
		const struct column *k = &d->columns[i];
		bool text = k->kind == KIND_TEXT &&
			    in->columns[k->at].type == CELL_STRING;

		schema_add_column(s, k->name, text ? CELL_STRING : CELL_F64,
				  k->anonymous);
	}
	return s;
}

static int convert_rows(struct transform *d, struct table_build *b,
			struct err *e)
{
	_cleanup_free_ struct cell *out = xcalloc(d->n + 1, sizeof(*out));
	uint64_t rows = table_rows(d->t), done = 0;
	const struct cell *cells;
	struct table_iter *it;
	const char *key;
	size_t len;
	int r;

	r = table_scan(d->t, NULL, 0, &it, e);
	if (r < 0)
		return r;
	while ((r = table_next(it, &key, &len, &cells, e)) > 0) {
		size_t at = 0;

		if (d->label && !convert_label(d, &cells[d->label_at], out))
			d->label_bad++;
		at += d->label != NULL;
		for (size_t i = 0; i < d->n; i++)
			convert(d, &d->columns[i], &cells[d->columns[i].at],
				&out[at++]);
		/* After a bad cell rows are only counted. */
		if (d->label_bad == 0)
			r = table_build_add(b, key, len, out, e);
		if (r < 0)
			break;
		if (++done % 4096 == 0)
			ctx_progress(d->c, (double)done / (double)rows);
	}
	table_scan_end(it);
	return r;
}

/* Columns and counts only: this sentence must not hold values. */
static int report_bad(const struct transform *d, struct err *e)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(4096);
	size_t bad = 0;

	if (d->label_bad)
		sb_addf(&sb, "; label %s: %llu rows without a value of type %s",
			d->label, (unsigned long long)d->label_bad,
			kind_name(d->label_kind));
	for (size_t i = 0; i < d->n; i++) {
		const struct column *k = &d->columns[i];

		if (k->bad == 0)
			continue;
		if (bad++ < 5)
			sb_addf(&sb, "; column %s: %llu rows without %s",
				k->name, (unsigned long long)k->bad,
				k->kind == KIND_INT ? "a whole number"
						    : "a number");
	}
	if (sb.len == 0)
		return 0;
	if (bad > 5)
		sb_addf(&sb, "; and %zu columns more", bad - 5);
	ctx_fail_code(d->c, "bad_data",
		      "that party's table could not be transformed");
	return err_set(e, EINVAL, "%s", sb.buf + 2);
}

/* ---- what is kept ------------------------------------------------------ */

static json_t *fill_json(const struct fill *f)
{
	static const char *const names[] = { NULL, "min", "max", "mean",
					     "designated" };
	json_t *list = json_array();

	for (size_t i = 0; i < f->marks.n; i++)
		json_array_append_new(list, f->marks.text[i]
						? json_string(f->marks.text[i])
						: json_real(f->marks.num[i]));
	return json_pack("{s:b, s:s?, s:o}", "on", f->on, "method",
			 names[f->method], "list", list);
}

static json_t *header_json(const struct transform *d)
{
	double rows = (double)table_rows(d->t);
	json_t *a = json_array();

	for (size_t i = 0; i < d->n; i++) {
		const struct column *k = &d->columns[i];
		json_t *o =
		    json_pack("{s:s, s:s, s:s}", "name", k->name, "anonymous",
			      k->anonymous, "type", kind_name(k->kind));

		if (d->missing.on)
			json_object_set_new(o, "missing_value",
					    json_real(k->missing_fill));
		if (d->outlier.on)
			json_object_set_new(o, "outlier_value",
					    json_real(k->outlier_fill));
		json_object_set_new(o, "missing_rate",
				    json_real((double)k->missing / rows));
		json_object_set_new(o, "outlier_rate",
				    json_real((double)k->outliers / rows));
		json_array_append_new(a, o);
	}
	return a;
}

static int publish(struct transform *d, struct table_build *b, struct err *e)
{
	json_t *o, *rates = json_object();
	int r;

	for (size_t i = 0; i < d->n; i++)
		if (d->columns[i].missing || d->columns[i].outliers)
			json_object_set_new(
			    rates, d->columns[i].name,
			    json_real((double)(d->columns[i].missing +
					       d->columns[i].outliers) /
				      (double)table_rows(d->t)));
	o = json_pack("{s:I, s:I, s:s?, s:o}", "count",
		      (json_int_t)table_rows(d->t), "features",
		      (json_int_t)d->n, "label", d->label, "missing_rates",
		      rates);
	r = ctx_put_summary(d->c, o, e);
	json_decref(o);
	if (r < 0) {
		table_build_abort(b);
		return r;
	}
	if (d->model) { /* handed on unchanged */
		r = ctx_put_model(d->c, json_object_get(d->input_model, "meta"),
				  d->model, e);
	} else {
		o = json_pack("{s:s, s:s, s:s, s:o, s:o, s:o, s:I}", "role",
			      ctx_role(d->c), "input_format", "dense",
			      "output_format", "dense", "header",
			      header_json(d), "missing", fill_json(&d->missing),
			      "outlier", fill_json(&d->outlier), "rows",
			      (json_int_t)table_rows(d->t));
		json_object_set_new(
		    o, "label",
		    d->label ? json_pack("{s:s, s:s}", "label_name", d->label,
					 "label_type", kind_name(d->label_kind))
			     : json_null());
		r = ctx_put_model(d->c, d->params, o, e);
		json_decref(o);
	}
	if (r < 0) {
		table_build_abort(b);
		return r;
	}
	return ctx_put_table(d->c, 0, b, e);
}

/* ---- the component ----------------------------------------------------- */

static int prepare(struct transform *d, struct err *e)
{
	const json_t *m = d->model;
	int r;

	if (m) {
		fill_read(&d->missing, json_object_get(m, "missing"), "on",
			  "method", "list");
		fill_read(&d->outlier, json_object_get(m, "outlier"), "on",
			  "method", "list");
	} else {
		fill_read(&d->missing, d->params, "missing_fill",
			  "missing_fill_method", "missing_impute");
		fill_read(&d->outlier, d->params, "outlier_replace",
			  "outlier_replace_method", "outlier_impute");
	}
	r = find_label(d, e);
	if (r < 0)
		return r;
	if (m)
		return columns_from_model(d, e);
	r = columns_fit(d, e);
	return r < 0 ? r : fit(d, e);
}

static int transform(struct transform *d, struct err *e)
{
	struct table_schema *s;
	struct table_build *b;
	int r = prepare(d, e);

	if (r < 0)
		return r;
	s = output_schema(d);
	r = table_build_begin(ctx_store(d->c), s, &b, e);
	schema_free(s);
	if (r < 0)
		return r;
	r = convert_rows(d, b, e);
	if (r >= 0)
		r = report_bad(d, e);
	if (r < 0) {
		table_build_abort(b);
		return r;
	}
	ctx_log(d->c, "%llu rows, %zu columns%s%s",
		(unsigned long long)table_rows(d->t), d->n,
		d->label ? ", label " : "", d->label ? d->label : "");
	return publish(d, b, e);
}

static int run(struct ctx *c, struct err *e)
{
	struct transform d = { .c = c, .params = ctx_params(c) };
	int r;

	if (ctx_inputs(c, "data") != 1)
		return err_set(e, EINVAL, "one input table is needed");
	d.t = ctx_input(c, "data", 0);
	d.input_model = ctx_input_model(c, "model");
	d.model = json_object_get(d.input_model, "param");
	if (table_rows(d.t) == 0)
		return err_set(e, EINVAL, "the input table has no rows");
	r = transform(&d, e);
	for (size_t i = 0; i < d.n; i++)
		free(d.columns[i].anonymous);
	free(d.columns);
	marks_free(&d.missing.marks);
	marks_free(&d.outlier.marks);
	return r;
}

static bool list_of_words(const json_t *v)
{
	const json_t *x;
	size_t i;

	if (!v || json_is_null(v))
		return true;
	json_array_foreach (v, i, x)
		if (!json_is_string(x) && !json_is_number(x))
			return false;
	return json_is_array(v);
}

static bool numbers(const json_t *v)
{
	const json_t *x;
	double d;
	size_t i;

	json_array_foreach (v, i, x)
		if (json_is_array(x) || !numbers(x))
			return false;
	return json_is_array(v) || json_is_null(v) || json_is_number(v) ||
	       (json_is_string(v) &&
		num_parse(json_string_value(v), json_string_length(v), &d));
}

static void check(const json_t *p, const json_t *roles, const char *role,
		  void (*defect)(void *arg, const char *pointer,
				 const char *text),
		  void *arg)
{
	static const char *const lists[] = { "missing_impute",
					     "outlier_impute" };
	static const char *const values[] = { "default_value",
					      "outlier_replace_value" };
	const json_t *types = json_object_get(p, "exclusive_data_type");
	const char *name;
	json_t *v;

	(void)roles;
	(void)role;
	if (strcasecmp(json_str_or(p, "input_format", "dense"), "dense") != 0)
		defect(arg, "input_format",
		       "not offered yet: only dense input");
	if (strcasecmp(json_str_or(p, "output_format", "dense"), "dense") != 0)
		defect(arg, "output_format",
		       "not offered yet: only dense output");
	if (json_bool_or(p, "with_match_id", false))
		defect(arg, "with_match_id", "not offered yet: must be false");
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		if (!list_of_words(json_object_get(p, lists[i])))
			defect(arg, lists[i],
			       "expected a list of words and numbers");
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		v = json_object_get(p, values[i]);
		if (v && !numbers(v))
			defect(arg, values[i],
			       "expected a number or a list of them");
	}
	if (types && !json_is_null(types) && !json_is_object(types))
		defect(arg, "exclusive_data_type",
		       "expected an object: column name to type");
	json_object_foreach ((json_t *)types, name, v)
		if (!json_is_string(v) ||
		    kind_of(json_string_value(v)) == KIND_BAD) {
			_cleanup_free_ char *at =
			    xasprintf("exclusive_data_type/%s", name);

			defect(arg, at, "no such data type");
		}
}

#define METHODS "min|max|mean|designated"
#define TYPES	"float64|float|float32|double|int|int32|int64|long|str"

static const struct param params[] = {
	{ "input_format", PARAM_ENUM, "\"dense\"",
	  .choices = "dense|sparse|svmlight|tag",
	  .help = "dense is offered for now" },
	{ "delimitor", PARAM_STRING, "\",\"", .flags = PARAM_IGNORED,
	  .help = "rows were split when they were uploaded" },
	{ "data_type", PARAM_ENUM, "\"float64\"", .choices = TYPES,
	  .help = "of the features; whole numbers are checked for int, "
		  "str stays text" },
	{ "exclusive_data_type", PARAM_ANY, "null",
	  .help = "object: type of single columns" },
	{ "tag_with_value", PARAM_BOOL, "false", .flags = PARAM_IGNORED,
	  .help = "belongs to tag input, which is not offered yet" },
	{ "tag_value_delimitor", PARAM_STRING, "\":\"", .flags = PARAM_IGNORED,
	  .help = "belongs to tag input, which is not offered yet" },
	{ "missing_fill", PARAM_BOOL, "false",
	  .help = "replace missing values; else they stay missing" },
	{ "missing_fill_method", PARAM_ENUM, "null", .choices = METHODS,
	  .flags = PARAM_NULLABLE, .help = "null: by 0" },
	{ "default_value", PARAM_ANY, "0",
	  .help = "for designated: one value, or one for each column" },
	{ "missing_impute", PARAM_ANY, "null",
	  .help = "list of the cells that are missing values; null: empty, "
		  "null, NA, none and nan" },
	{ "outlier_replace", PARAM_BOOL, "false",
	  .help = "replace the cells of outlier_impute" },
	{ "outlier_replace_method", PARAM_ENUM, "null", .choices = METHODS,
	  .flags = PARAM_NULLABLE, .help = "null: by 0" },
	{ "outlier_impute", PARAM_ANY, "null",
	  .help = "list of the cells to replace" },
	{ "outlier_replace_value", PARAM_ANY, "0",
	  .help = "for designated: one value, or one for each column" },
	{ "with_label", PARAM_BOOL, "false", .help = "is there a label?" },
	{ "label_name", PARAM_STRING, "\"y\"", .help = "its column" },
	{ "label_type", PARAM_ENUM, "\"int\"", .choices = TYPES,
	  .help = "type of the label" },
	{ "output_format", PARAM_ENUM, "\"dense\"", .choices = "dense|sparse",
	  .help = "dense is offered for now" },
	{ "with_match_id", PARAM_BOOL, "false", .help = "must be false" },
	{ "match_id_name", PARAM_ANY, "\"\"", .flags = PARAM_IGNORED,
	  .help = "belongs to match ids, which are not offered yet" },
	{ "match_id_index", PARAM_INT, "0", .flags = PARAM_IGNORED,
	  .help = "belongs to match ids, which are not offered yet" },
	{ "need_run", PARAM_BOOL, "true",
	  .help = "false: the rows are handed on as they are" },
	{ 0 },
};

static const char *const aliases[] = { "DataIO", NULL };
static const char *const data_inputs[] = { "data", NULL };
static const char *const model_inputs[] = { "model", NULL };

extern const struct component component_data_transform;
const struct component component_data_transform = {
	.module = "DataTransform",
	.aliases = aliases,
	.roles = ROLE_GUEST | ROLE_HOST,
	.data_inputs = data_inputs,
	.model_inputs = model_inputs,
	.data_outputs = 1,
	.model_outputs = 1,
	.params = params,
	.help = "turns the text of a table into a label and typed features",
	.check = check,
	.run = run,
};
