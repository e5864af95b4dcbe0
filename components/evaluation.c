// SPDX-License-Identifier: Apache-2.0
/*
 * Evaluation: measures of the predictions that other components made.
 * docs/components/evaluation.md.
 */
#include <math.h>
#include <strings.h>

#include "components/component.h"
#include "components/math/metrics.h"
#include "lib/json.h"

#define CLASSES_MAX 1000
#define GROUPS_MAX  100
#define NO_CLASS    UINT32_MAX

enum eval { EVAL_BINARY, EVAL_MULTI, EVAL_REGRESSION, EVAL_N };

struct share { /* one class of a row's predict_detail */
	uint32_t class;
	double score;
};

struct row {
	double score, label; /* label NaN = not a number */
	uint32_t label_class, result_class;
	struct share *shares; /* only when unfolded */
	size_t n_shares;
};

struct group { /* the rows of one type: train, validate, predict */
	char *type;
	struct row *rows;
	size_t n, alloc;
};

struct evaluation {
	struct ctx *c;
	enum eval eval;
	const json_t *pos_label, *metrics; /* metrics NULL = the usual */
	bool unfold;
	struct group *groups;
	size_t n_groups;
	char **classes;
	size_t n_classes;
};

/* ---- names of metrics -------------------------------------------------- */

#define BINARY	   (1u << EVAL_BINARY)
#define MULTI	   (1u << EVAL_MULTI)
#define REGRESSION (1u << EVAL_REGRESSION)

static const struct metric {
	const char *name;
	unsigned evals; /* 0: known, not offered yet */
	unsigned usual; /* in these without being asked for */
	const char *canonical;
} metrics[] = {
	{ "auc", BINARY, BINARY, NULL },
	{ "ks", BINARY, BINARY, NULL },
	{ "roc", BINARY, 0, NULL },
	{ "lift", BINARY, 0, NULL },
	{ "gain", BINARY, 0, NULL },
	{ "precision", BINARY | MULTI, MULTI, NULL },
	{ "recall", BINARY | MULTI, MULTI, NULL },
	{ "accuracy", BINARY | MULTI, MULTI, NULL },
	{ "acc", BINARY | MULTI, 0, "accuracy" },
	{ "f1_score", BINARY, 0, NULL },
	{ "confusion_mat", BINARY, 0, NULL },
	{ "quantile_pr", BINARY, 0, NULL },
	{ "psi", 0, 0, NULL },
	{ "explained_variance", REGRESSION, 0, NULL },
	{ "mean_absolute_error", REGRESSION, 0, "mae" },
	{ "mae", REGRESSION, REGRESSION, NULL },
	{ "l1", REGRESSION, 0, "mae" },
	{ "regression_l1", REGRESSION, 0, "mae" },
	{ "mean_squared_error", REGRESSION, 0, "mse" },
	{ "mse", REGRESSION, 0, NULL },
	{ "l2", REGRESSION, 0, "mse" },
	{ "regression", REGRESSION, 0, "mse" },
	{ "regression_l2", REGRESSION, 0, "mse" },
	{ "mean_squared_log_error", 0, 0, NULL },
	{ "msle", 0, 0, NULL },
	{ "median_absolute_error", REGRESSION, 0, "median_ae" },
	{ "median_ae", REGRESSION, 0, NULL },
	{ "r2_score", REGRESSION, 0, "r2" },
	{ "r2", REGRESSION, 0, NULL },
	{ "root_mean_squared_error", REGRESSION, 0, "rmse" },
	{ "rmse", REGRESSION, REGRESSION, NULL },
	{ "l2_root", REGRESSION, 0, "rmse" },
	{ "jaccard_similarity_score", 0, 0, NULL },
	{ "adjusted_rand_score", 0, 0, NULL },
	{ "fowlkes_mallows_score", 0, 0, NULL },
	{ "davies_bouldin_index", 0, 0, NULL },
	{ "contingency_matrix", 0, 0, NULL },
	{ "distance_measure", 0, 0, NULL },
};

static const struct metric *metric_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(metrics); i++)
		if (strcasecmp(metrics[i].name, name) == 0)
			return &metrics[i];
	return NULL;
}

static bool asked(const struct evaluation *v, const char *name)
{
	const json_t *x;
	size_t i;

	json_array_foreach (v->metrics, i, x) {
		const struct metric *m = metric_find(json_string_value(x));

		if (m && !strcmp(m->canonical ? m->canonical : m->name, name))
			return true;
	}
	return false;
}

static bool wanted(const struct evaluation *v, const char *name)
{
	if (!v->metrics)
		return metric_find(name)->usual & 1u << v->eval;
	return asked(v, name);
}

/* ---- rows --------------------------------------------------------------- */

static uint32_t class_of(struct evaluation *v, const char *s, size_t n)
{
	for (size_t i = 0; i < v->n_classes; i++)
		if (strlen(v->classes[i]) == n &&
		    memcmp(v->classes[i], s, n) == 0)
			return (uint32_t)i;
	if (v->n_classes == CLASSES_MAX)
		return NO_CLASS;
	v->classes =
	    xrealloc(v->classes, (v->n_classes + 1) * sizeof(*v->classes));
	v->classes[v->n_classes] = xasprintf("%.*s", (int)n, s);
	return (uint32_t)v->n_classes++;
}

/* "1", "1.0" and 1 are one class: numbers by their shortest text. */
static uint32_t class_of_number(struct evaluation *v, double d)
{
	char num[NUM_MAX];
	size_t n = (size_t)snprintf(num, sizeof(num), "%.15g", d);

	return class_of(v, num, n);
}

static uint32_t class_of_text(struct evaluation *v, const char *s, size_t n)
{
	double d;

	if (num_parse(s, n, &d) && isfinite(d))
		return class_of_number(v, d);
	return class_of(v, s, n);
}

static double cell_number(const struct cell *x)
{
	double d;

	if (x->type == CELL_I64)
		return (double)x->i64;
	if (x->type == CELL_F64)
		return x->f64;
	return num_parse(x->str, x->len, &d) && isfinite(d) ? d : NAN;
}

static uint32_t cell_class(struct evaluation *v, const struct cell *x)
{
	if (x->type == CELL_STRING)
		return class_of_text(v, x->str, x->len);
	if (x->type == CELL_F64 && !isfinite(x->f64))
		return NO_CLASS;
	return class_of_number(v, cell_number(x));
}

static struct group *group_of(struct evaluation *v, const struct cell *x)
{
	const char *type = x->type == CELL_STRING && x->len ? x->str : "train";
	size_t n = x->type == CELL_STRING && x->len ? x->len : 5;
	struct group *g;

	for (size_t i = 0; i < v->n_groups; i++)
		if (strlen(v->groups[i].type) == n &&
		    memcmp(v->groups[i].type, type, n) == 0)
			return &v->groups[i];
	if (v->n_groups == GROUPS_MAX)
		return NULL;
	v->groups = xrealloc(v->groups, (v->n_groups + 1) * sizeof(*v->groups));
	g = &v->groups[v->n_groups++];
	memset(g, 0, sizeof(*g));
	g->type = xasprintf("%.*s", (int)n, type);
	return g;
}

/* {"0": 0.1, "1": 0.9}; FATE writes it with single quotes. */
static int read_detail(struct evaluation *v, const struct cell *x,
		       struct row *row, struct err *e)
{
	_cleanup_free_ char *text = NULL;
	const char *name;
	json_t *o, *score;

	if (x->type != CELL_STRING)
		return err_set(e, EINVAL, "predict_detail is no text");
	text = xasprintf("%.*s", (int)x->len, x->str);
	if (!strchr(text, '"'))
		for (char *p = text; *p; p++)
			*p = *p == '\'' ? '"' : *p;
	o = json_parse(text, x->len, NULL);
	if (!json_is_object(o)) {
		json_decref(o);
		return err_set(e, EINVAL, "predict_detail is no object");
	}
	row->shares = xcalloc(json_object_size(o) + 1, sizeof(*row->shares));
	json_object_foreach (o, name, score) {
		struct share *s = &row->shares[row->n_shares];

		s->class = class_of_text(v, name, strlen(name));
		s->score = json_number_value(score);
		if (s->class != NO_CLASS && json_is_number(score))
			row->n_shares++;
	}
	json_decref(o);
	return 0;
}

static int read_row(struct evaluation *v, const struct cell *cells,
		    const ssize_t at[5], struct err *e)
{
	struct group *g = group_of(v, &cells[at[4]]);
	struct row *row;

	if (!g)
		return err_set(e, EINVAL, "more than %d types", GROUPS_MAX);
	if (g->n == g->alloc) {
		g->alloc = g->alloc ? 2 * g->alloc : 1024;
		g->rows = xrealloc(g->rows, g->alloc * sizeof(*g->rows));
	}
	row = &g->rows[g->n++];
	memset(row, 0, sizeof(*row));
	row->label = cell_number(&cells[at[0]]);
	row->score = cell_number(&cells[at[2]]);
	if (!isfinite(row->score))
		return err_set(e, EINVAL, "a row without a score");
	if (v->eval == EVAL_REGRESSION)
		return isfinite(row->label)
			   ? 0
			   : err_set(e, EINVAL, "a label is no number");
	row->label_class = cell_class(v, &cells[at[0]]);
	row->result_class = cell_class(v, &cells[at[1]]);
	if (row->label_class == NO_CLASS)
		return err_set(e, EINVAL,
			       "a row without a label, or more than %d classes",
			       CLASSES_MAX);
	return v->unfold ? read_detail(v, &cells[at[3]], row, e) : 0;
}

static int read_table(struct evaluation *v, struct table *t, struct err *e)
{
	static const char *const names[5] = { "label", "predict_result",
					      "predict_score", "predict_detail",
					      "type" };
	const struct table_schema *s = table_schema(t);
	const struct cell *cells;
	struct table_iter *it;
	const char *key;
	ssize_t at[5];
	size_t len;
	int r;

	/* A table that was uploaded has no content type. */
	if (s->content_type && strcmp(s->content_type, "predict_result") != 0)
		return err_set(e, EINVAL,
			       "the input is no table of "
			       "predictions");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		at[i] = schema_find(s, names[i]);
		if (at[i] < 0)
			return err_set(e, EINVAL, "there is no column %s",
				       names[i]);
	}
	r = table_scan(t, NULL, 0, &it, e);
	if (r < 0)
		return r;
	while ((r = table_next(it, &key, &len, &cells, e)) > 0) {
		r = read_row(v, cells, at, e);
		if (r < 0)
			break;
	}
	table_scan_end(it);
	return r;
}

static void rows_free(struct evaluation *v)
{
	for (size_t i = 0; i < v->n_groups; i++) {
		for (size_t k = 0; k < v->groups[i].n; k++)
			free(v->groups[i].rows[k].shares);
		free(v->groups[i].rows);
		free(v->groups[i].type);
	}
	for (size_t i = 0; i < v->n_classes; i++)
		free(v->classes[i]);
	free(v->groups);
	free(v->classes);
	v->groups = NULL;
	v->classes = NULL;
	v->n_groups = v->n_classes = 0;
}

/* ---- results ------------------------------------------------------------ */

/* What the data leave undefined is null, and an event says so. */
static void put(struct evaluation *v, json_t *o, const char *name, double x)
{
	if (isfinite(x)) {
		json_object_set_new(o, name, json_real(x));
		return;
	}
	json_object_set_new(o, name, json_null());
	ctx_event(v->c, "%s is not defined for these rows", name);
}

static json_t *real(double x)
{
	return isfinite(x) ? json_real(x) : json_null();
}

static double value_threshold(const struct confusion *c)
{
	return c->threshold;
}
static double value_lift(const struct confusion *c)
{
	return confusion_lift(c, true);
}
static double value_lift_0(const struct confusion *c)
{
	return confusion_lift(c, false);
}
static double value_gain(const struct confusion *c)
{
	return confusion_gain(c, true);
}
static double value_gain_0(const struct confusion *c)
{
	return confusion_gain(c, false);
}
static double value_share(const struct confusion *c)
{
	return confusion_share(c, true);
}
static double value_share_0(const struct confusion *c)
{
	return confusion_share(c, false);
}
static double value_tp(const struct confusion *c)
{
	return (double)c->tp;
}
static double value_fp(const struct confusion *c)
{
	return (double)c->fp;
}
static double value_fn(const struct confusion *c)
{
	return (double)c->fn;
}
static double value_tn(const struct confusion *c)
{
	return (double)c->tn;
}

enum at { AT_CUTS, AT_ROC, AT_STEPS, AT_STEPS_ABOVE, AT_FIXED, AT_QUANTILES };

#define SERIES_MAX 5
static const struct curve {
	const char *name, *key; /* metric that asks for it, name of it */
	enum at at;
	struct {
		const char *name;
		double (*value)(const struct confusion *c);
	} series[SERIES_MAX];
} curves[] = {
	{ "ks",
	  "ks_curve",
	  AT_CUTS,
	  { { "tpr", confusion_tpr }, { "fpr", confusion_fpr } } },
	{ "roc",
	  "roc",
	  AT_ROC,
	  { { "tpr", confusion_tpr }, { "fpr", confusion_fpr } } },
	{ "lift",
	  "lift",
	  AT_STEPS_ABOVE,
	  { { "x", value_share },
	    { "y", value_lift },
	    { "x_0", value_share_0 },
	    { "y_0", value_lift_0 } } },
	{ "gain",
	  "gain",
	  AT_STEPS_ABOVE,
	  { { "x", value_share },
	    { "y", value_gain },
	    { "x_0", value_share_0 },
	    { "y_0", value_gain_0 } } },
	{ "precision",
	  "precision",
	  AT_STEPS,
	  { { "y", confusion_precision } } },
	{ "recall", "recall", AT_STEPS, { { "y", confusion_tpr } } },
	{ "accuracy",
	  "accuracy",
	  AT_STEPS_ABOVE,
	  { { "y", confusion_accuracy } } },
	{ "f1_score", "f1_score", AT_FIXED, { { "y", confusion_f1 } } },
	{ "confusion_mat",
	  "confusion_mat",
	  AT_FIXED,
	  { { "tp", value_tp },
	    { "fp", value_fp },
	    { "fn", value_fn },
	    { "tn", value_tn } } },
	{ "quantile_pr",
	  "quantile_pr",
	  AT_QUANTILES,
	  { { "precision", confusion_precision },
	    { "recall", confusion_tpr } } },
};

static size_t curve_thresholds(enum at at, const struct scored *s, size_t n,
			       double ret[METRIC_CUTS + 1])
{
	size_t k = 0;

	switch (at) {
	case AT_CUTS:
		return metric_cuts(s, n, ret);
	case AT_ROC:
		return metric_roc(s, n, ret);
	case AT_STEPS:
		return metric_steps(s, n, ret);
	case AT_STEPS_ABOVE:
		k = metric_steps(s, n, ret);
		return k ? k - 1 : 0;
	case AT_FIXED:
		return metric_fixed(ret);
	case AT_QUANTILES:
		return metric_quantiles(s, n, ret);
	}
	return k;
}

static json_t *series_json(const struct confusion *c, size_t k,
			   double (*value)(const struct confusion *c))
{
	json_t *a = json_array();

	for (size_t i = 0; i < k; i++)
		json_array_append_new(a, real(value(&c[i])));
	return a;
}

static json_t *curve_json(const struct curve *curve, const struct scored *s,
			  size_t n)
{
	struct confusion c[METRIC_CUTS + 1];
	double at[METRIC_CUTS + 1];
	size_t k = curve_thresholds(curve->at, s, n, at);
	json_t *o = json_object();

	metric_confusion(s, n, at, k, c);
	json_object_set_new(o, "thresholds",
			    series_json(c, k, value_threshold));
	for (size_t i = 0; i < SERIES_MAX && curve->series[i].name; i++)
		json_object_set_new(o, curve->series[i].name,
				    series_json(c, k, curve->series[i].value));
	return o;
}

static json_t *binary_json(struct evaluation *v, struct scored *s, size_t n)
{
	json_t *o = json_object();

	metric_sort(s, n);
	if (wanted(v, "auc"))
		put(v, o, "auc", metric_auc(s, n));
	if (wanted(v, "ks")) {
		put(v, o, "ks", metric_ks(s, n));
		put(v, o, "ks_exact", metric_ks_exact(s, n));
	}
	for (size_t i = 0; i < ARRAY_SIZE(curves); i++)
		if (asked(v, curves[i].name))
			json_object_set_new(o, curves[i].key,
					    curve_json(&curves[i], s, n));
	return o;
}

static json_t *evaluate_binary(struct evaluation *v, const struct group *g)
{
	_cleanup_free_ struct scored *s = xcalloc(g->n + 1, sizeof(*s));
	const json_t *l = v->pos_label;
	uint32_t pos;

	if (json_is_number(l))
		pos = class_of_number(v, json_number_value(l));
	else
		pos = class_of_text(v, json_string_value(l),
				    json_string_length(l));
	for (size_t i = 0; i < g->n; i++) {
		s[i].score = g->rows[i].score;
		s[i].positive = g->rows[i].label_class == pos;
	}
	return binary_json(v, s, g->n);
}

static json_t *evaluate_regression(struct evaluation *v, const struct group *g)
{
	_cleanup_free_ double *y = xcalloc(g->n + 1, sizeof(*y));
	_cleanup_free_ double *p = xcalloc(g->n + 1, sizeof(*p));
	json_t *o = json_object();
	struct regression r;

	for (size_t i = 0; i < g->n; i++) {
		y[i] = g->rows[i].label;
		p[i] = g->rows[i].score;
	}
	metric_regression(y, p, g->n, &r);
	if (wanted(v, "rmse"))
		put(v, o, "rmse", r.rmse);
	if (wanted(v, "mae"))
		put(v, o, "mae", r.mae);
	if (wanted(v, "mse"))
		put(v, o, "mse", r.mse);
	if (wanted(v, "median_ae"))
		put(v, o, "median_ae", r.median_ae);
	if (wanted(v, "r2"))
		put(v, o, "r2", r.r2);
	if (wanted(v, "explained_variance"))
		put(v, o, "explained_variance", r.explained_variance);
	return o;
}

static json_t *unfold(struct evaluation *v, const struct group *g)
{
	_cleanup_free_ struct scored *s = xcalloc(g->n + 1, sizeof(*s));
	struct evaluation binary = { .c = v->c, .eval = EVAL_BINARY };
	json_t *all = json_object();

	for (uint32_t class = 0; class < v->n_classes; class ++) {
		for (size_t i = 0; i < g->n; i++) {
			const struct row *row = &g->rows[i];

			s[i].score = 0;
			s[i].positive = row->label_class == class;
			for (size_t k = 0; k < row->n_shares; k++)
				if (row->shares[k].class == class)
					s[i].score = row->shares[k].score;
		}
		json_object_set_new(all, v->classes[class],
				    binary_json(&binary, s, g->n));
	}
	return all;
}

static json_t *evaluate_multi(struct evaluation *v, const struct group *g)
{
	size_t n = v->n_classes;
	_cleanup_free_ uint64_t *hit = xcalloc(n + 1, sizeof(*hit));
	_cleanup_free_ uint64_t *labels = xcalloc(n + 1, sizeof(*labels));
	_cleanup_free_ uint64_t *results = xcalloc(n + 1, sizeof(*results));
	json_t *o = json_object(), *precision = json_object();
	json_t *recall = json_object();
	uint64_t hits = 0;

	for (size_t i = 0; i < g->n; i++) {
		const struct row *row = &g->rows[i];

		labels[row->label_class]++;
		if (row->result_class != NO_CLASS)
			results[row->result_class]++;
		if (row->label_class == row->result_class) {
			hit[row->label_class]++;
			hits++;
		}
	}
	for (size_t k = 0; k < n; k++) {
		const char *name = v->classes[k];

		if (wanted(v, "precision"))
			put(v, precision, name,
			    results[k] ? (double)hit[k] / (double)results[k]
				       : NAN);
		if (wanted(v, "recall"))
			put(v, recall, name,
			    labels[k] ? (double)hit[k] / (double)labels[k]
				      : NAN);
	}
	if (wanted(v, "accuracy"))
		put(v, o, "accuracy", (double)hits / (double)g->n);
	if (wanted(v, "precision"))
		json_object_set(o, "precision", precision);
	if (wanted(v, "recall"))
		json_object_set(o, "recall", recall);
	json_decref(precision);
	json_decref(recall);
	if (v->unfold)
		json_object_set_new(o, "one_vs_rest", unfold(v, g));
	return o;
}

static json_t *evaluate(struct evaluation *v, const struct group *g)
{
	switch (v->eval) {
	case EVAL_REGRESSION:
		return evaluate_regression(v, g);
	case EVAL_MULTI:
		return evaluate_multi(v, g);
	default:
		return evaluate_binary(v, g);
	}
}

/* ---- the component ------------------------------------------------------ */

static int eval_type(const json_t *p)
{
	static const char *const names[] = { "binary", "multi", "regression" };
	const char *s = json_str_or(p, "eval_type", "binary");

	for (int i = 0; i < EVAL_N; i++)
		if (strcasecmp(names[i], s) == 0)
			return i;
	return -1;
}

static int evaluate_input(struct evaluation *v, size_t i, json_t *summary,
			  struct err *e)
{
	const char *source = ctx_input_source(v->c, "data", i);
	char name[40];
	json_t *o;
	int r;

	if (!*source) {
		(void)snprintf(name, sizeof(name), "input_%zu", i);
		source = name;
	}
	r = read_table(v, ctx_input(v->c, "data", i), e);
	if (r < 0) {
		rows_free(v);
		return err_wrap(e, "predictions of %s", source);
	}
	o = json_object();
	for (size_t k = 0; k < v->n_groups; k++) {
		const struct group *g = &v->groups[k];

		json_object_set_new(o, g->type, evaluate(v, g));
	}
	if (!v->n_groups)
		ctx_event(v->c, "there are no predictions of %s to evaluate",
			  source);
	json_object_set_new(summary, source, o);
	rows_free(v);
	return 0;
}

static int run(struct ctx *c, struct err *e)
{
	const json_t *p = ctx_params(c);
	const json_t *names = json_object_get(p, "metrics");
	struct evaluation v = { .c = c };
	size_t n = ctx_inputs(c, "data");
	json_t *summary;
	int r = 0;

	/* Predictions are the guest's; the others take part and do nothing. */
	if (n == 0)
		return 0;
	if (eval_type(p) < 0)
		return err_set(e, EINVAL, "eval_type: no such type");
	v.eval = (enum eval)eval_type(p);
	v.pos_label = json_object_get(p, "pos_label");
	v.metrics = json_array_size(names) ? names : NULL;
	v.unfold = v.eval == EVAL_MULTI &&
		   json_bool_or(p, "unfold_multi_result", false);
	summary = json_object();
	for (size_t i = 0; i < n && r >= 0; i++) {
		r = evaluate_input(&v, i, summary, e);
		ctx_progress(c, (double)(i + 1) / (double)n);
	}
	if (r >= 0)
		r = ctx_put_summary(c, summary, e);
	json_decref(summary);
	return r < 0 ? r : ctx_put_same(c, 0, ctx_input(c, "data", 0), e);
}

static void check(const json_t *p, const json_t *roles, const char *role,
		  void (*defect)(void *arg, const char *pointer,
				 const char *text),
		  void *arg)
{
	const json_t *names = json_object_get(p, "metrics"), *x;
	const json_t *label = json_object_get(p, "pos_label");
	int eval = eval_type(p);
	size_t i;

	(void)roles;
	(void)role;
	if (eval < 0)
		defect(arg, "eval_type",
		       "not offered yet: binary, multi or regression");
	if (label && !json_is_string(label) && !json_is_number(label))
		defect(arg, "pos_label", "expected a number or a word");
	if (json_bool_or(p, "run_clustering_arbiter_metric", false))
		defect(arg, "run_clustering_arbiter_metric",
		       "clustering is not offered yet");
	json_array_foreach (names, i, x) {
		const char *s = json_string_value(x);
		const struct metric *m = s ? metric_find(s) : NULL;
		char at[40];

		(void)snprintf(at, sizeof(at), "metrics/%zu", i);
		if (!m)
			defect(arg, at, "no such metric");
		else if (!m->evals)
			defect(arg, at, "this metric is not offered yet");
		else if (eval >= 0 && !(m->evals & 1u << eval))
			defect(arg, at, "no metric of this eval_type");
	}
}

static const struct param params[] = {
	{ "eval_type", PARAM_ENUM, "\"binary\"",
	  .choices = "binary|multi|regression|clustering",
	  .help = "what the predictions are" },
	{ "pos_label", PARAM_ANY, "1",
	  .help = "for binary: the label that is positive" },
	{ "need_run", PARAM_BOOL, "true",
	  .help = "false: the rows are handed on as they are" },
	{ "metrics", PARAM_LIST, NULL, .flags = PARAM_NULLABLE,
	  .help = "null: auc and ks; accuracy, precision and recall; or rmse "
		  "and mae" },
	{ "run_clustering_arbiter_metric", PARAM_BOOL, "false",
	  .help = "must be false for now" },
	{ "unfold_multi_result", PARAM_BOOL, "false",
	  .help = "evaluate each class against the rest, too" },
	{ 0 },
};

static const char *const data_inputs[] = { "data", NULL };

extern const struct component component_evaluation;
const struct component component_evaluation = {
	.module = "Evaluation",
	.roles = ROLE_GUEST | ROLE_HOST | ROLE_ARBITER,
	.data_inputs = data_inputs,
	.data_outputs = 1,
	.params = params,
	.help = "measures predictions: AUC, KS, accuracy, RMSE and more",
	.check = check,
	.run = run,
};
