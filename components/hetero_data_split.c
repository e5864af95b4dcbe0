// SPDX-License-Identifier: Apache-2.0
/*
 * HeteroDataSplit: train, validate and test rows of tables that guest and
 * hosts have in common.  docs/components/hetero_data_split.md.
 */
#include <math.h>

#include "components/component.h"
#include "components/labels.h"
#include "components/math/sampling.h"
#include "components/rows.h"
#include "lib/json.h"

#define PARTS 3

static const char *const parts[PARTS] = { "train", "validate", "test" };
static const char *const sizes[PARTS] = { "train_size", "validate_size",
					  "test_size" };
static const char *const messages[PARTS] = { "id_train", "id_validate",
					     "id_test" };

struct split {
	struct ctx *c;
	struct table *t;
	const json_t *params;
	struct rows rows;
	size_t count[PARTS];
	uint8_t *part; /* of a row */
	/* guest only */
	ssize_t label;	 /* column or -1 */
	uint32_t *class; /* of a row */
	bool classes;	 /* the labels are classes or bins */
	struct labels labels;
	double *points; /* n bounds of n + 1 bins */
	size_t n_points;
};

/* ---- sizes --------------------------------------------------------------- */

struct plan {
	double size[PARTS];
	bool counts; /* of rows; else shares */
};

/* What is not given is the remainder of total; total 0: shares of 1. */
static const char *plan_read(const json_t *p, double total, struct plan *ret)
{
	bool given[PARTS], real = false;
	double sum = 0;
	size_t n = 0;

	*ret = (struct plan){ 0 };
	for (size_t i = 0; i < PARTS; i++) {
		const json_t *v = json_object_get(p, sizes[i]);

		given[i] = json_is_number(v);
		n += given[i];
		ret->size[i] = json_number_value(v);
		real |= json_is_real(v);
		ret->counts |= json_is_integer(v) && json_integer_value(v) != 0;
		sum += ret->size[i];
	}
	if (real && ret->counts)
		return "sizes are all shares (0.8) or all numbers of rows "
		       "(800), not both";
	if (n == 0) {
		*ret = (struct plan){ .size = { .8, .2, 0 } };
		return NULL;
	}
	if (!ret->counts)
		total = 1;
	else if (total == 0)
		return NULL; /* not known yet */
	if (n < PARTS)
		for (size_t k = 0; k < PARTS; k++) {
			/* One alone: train's rest is test, else train. */
			size_t i = k == 0 ? 0 : k == 1 ? 2 : 1;

			if (given[i] || sum > total)
				continue;
			ret->size[i] = total - sum;
			break;
		}
	else if (fabs(sum - total) > 1e-9)
		return ret->counts ? "train_size, validate_size and test_size "
				     "must add up to the rows of the table"
				   : "train_size, validate_size and test_size "
				     "must add up to 1";
	if (sum > total + 1e-9)
		return ret->counts ? "more rows than the table has"
				   : "the shares are more than 1 together";
	return NULL;
}

static size_t share_of(double share, double of, size_t n)
{
	double x = of > 0 ? floor(share / of * (double)n + 1e-9) : 0;

	return MIN((size_t)x, n);
}

static int decide_counts(struct split *s, struct err *e)
{
	size_t n = s->rows.n, rest;
	struct plan p;
	const char *wrong = plan_read(s->params, (double)n, &p);

	if (wrong)
		return err_set(e, EINVAL, "%s (it has %zu)", wrong, n);
	s->count[0] = p.counts ? (size_t)p.size[0] : share_of(p.size[0], 1, n);
	rest = n - s->count[0];
	s->count[1] = p.counts
			  ? (size_t)p.size[1]
			  : share_of(p.size[1], p.size[1] + p.size[2], rest);
	s->count[2] = rest - s->count[1];
	/* Of shares that are 0 no row may come from rounding. */
	if (!p.counts && p.size[1] + p.size[2] <= 0) {
		s->count[0] += rest;
		s->count[1] = s->count[2] = 0;
	}
	for (size_t i = 0; i < PARTS; i++)
		if (p.size[i] > 0 && s->count[i] == 0)
			ctx_event(s->c, "no row is left for %s", parts[i]);
	return 0;
}

/* ---- labels -------------------------------------------------------------- */

static int compare_points(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void read_points(struct split *s)
{
	const json_t *list = json_object_get(s->params, "split_points"), *v;
	size_t i;

	s->points = xcalloc(json_array_size(list) + 1, sizeof(*s->points));
	json_array_foreach (list, i, v)
		s->points[s->n_points++] = json_number_value(v);
	qsort(s->points, s->n_points, sizeof(*s->points), compare_points);
}

/* A bin's number takes the place of the label. */
static int bin_of(const struct split *s, const struct cell *x, struct cell *ret,
		  struct err *e)
{
	double v = x->type == CELL_I64 ? (double)x->i64 : x->f64;
	int64_t bin = 0;

	if (x->type == CELL_STRING || !isfinite(v))
		return err_set(e, EINVAL,
			       "split_points need a number as label in every "
			       "row");
	while ((size_t)bin < s->n_points && s->points[bin] <= v)
		bin++;
	*ret = (struct cell){ .type = CELL_I64, .i64 = bin };
	return 0;
}

static int take_label(void *arg, size_t row, const struct cell *cells,
		      struct err *e)
{
	struct split *s = arg;
	bool needed = json_bool_or(s->params, "stratified", false);
	struct cell bin;
	const struct cell *x = s->label < 0 ? NULL : &cells[s->label];
	struct err why = { 0 };
	int r = 0;

	if (!s->classes)
		return 0;
	if (s->n_points) {
		r = bin_of(s, x, &bin, &why);
		x = &bin;
	}
	if (r >= 0)
		r = labels_add(&s->labels, x, &s->class[row], &why);
	if (r >= 0)
		return 0;
	if (needed)
		return err_set(e, EINVAL,
			       "stratified: %s; a continuous label needs "
			       "split_points",
			       why.text);
	s->classes = false; /* they are not counted, then */
	return 0;
}

/* The classes in their order, with no hole. */
static void sort_classes(struct split *s)
{
	_cleanup_free_ uint32_t *new = xcalloc(s->labels.n + 1, sizeof(*new));

	labels_sort(&s->labels, new);
	for (size_t i = 0; s->classes && i < s->rows.n; i++)
		s->class[i] = new[s->class[i]];
}

static char *class_name(const struct split *s, size_t k)
{
	char low[NUM_MAX] = "", high[NUM_MAX] = "";
	size_t bin;

	if (!s->n_points)
		return label_name(&s->labels.v[k]);
	bin = (size_t)s->labels.v[k].num;
	if (bin > 0)
		(void)num_format(low, s->points[bin - 1]);
	if (bin < s->n_points)
		(void)num_format(high, s->points[bin]);
	if (bin == 0)
		return xasprintf("below %s", high);
	return bin == s->n_points ? xasprintf("from %s", low)
				  : xasprintf("from %s below %s", low, high);
}

/* ---- the guest decides --------------------------------------------------- */

static int draw_begin(const struct split *s, struct draw *d, uint32_t stage,
		      struct err *e)
{
	int64_t seed = json_int_or(s->params, "random_state", -1);
	uint8_t key[32];
	int r;

	/* Hosts may know the seed, and see the rows: what is drawn by label
	 * must not come from it alone. */
	if (seed >= 0 && !json_bool_or(s->params, "stratified", false)) {
		draw_seed(d, (uint32_t)seed);
		return 0;
	}
	r = rows_key(&s->rows, seed, key, e);
	if (r >= 0)
		draw_key(d, key, stage);
	return r;
}

static int decide(struct split *s, struct err *e)
{
	bool stratified = json_bool_or(s->params, "stratified", false);
	const uint32_t *class = stratified ? s->class : NULL;
	size_t n = s->rows.n, first = s->count[0];
	_cleanup_free_ uint32_t *ids = xcalloc(n + 1, sizeof(*ids));
	struct draw d;
	int r;

	for (size_t i = 0; i < n; i++)
		ids[i] = (uint32_t)i;
	if (json_bool_or(s->params, "shuffle", true)) {
		r = draw_begin(s, &d, 0, e);
		if (r < 0)
			return r;
		if (first && first < n)
			draw_split(&d, ids, n, first, class, s->labels.n);
		r = draw_begin(s, &d, 1, e);
		if (r < 0)
			return r;
		if (s->count[1] && s->count[2])
			draw_split(&d, ids + first, n - first, s->count[1],
				   class, s->labels.n);
	}
	for (size_t i = 0; i < n; i++)
		s->part[ids[i]] = i < first		    ? 0
				  : i < first + s->count[1] ? 1
							    : 2;
	return 0;
}

static int tell_hosts(const struct split *s, struct err *e)
{
	int r = 0;

	for (size_t k = 0; k < PARTS && r >= 0; k++) {
		_cleanup_free_ uint32_t *v =
		    xcalloc(s->count[k] + 1, sizeof(*v));
		size_t n = 0;

		for (size_t i = 0; i < s->rows.n; i++)
			if (s->part[i] == k)
				v[n++] = (uint32_t)i;
		r = rows_send(s->c, messages[k], v, n, e);
	}
	return r;
}

static int guest(struct split *s, struct err *e)
{
	const struct table_schema *schema = table_schema(s->t);
	bool stratified = json_bool_or(s->params, "stratified", false);
	int r;

	s->label = schema->label ? schema_find(schema, schema->label) : -1;
	if (stratified && s->label < 0)
		return err_set(e, EINVAL,
			       "stratified needs a label: the table has none "
			       "(with_label of DataTransform)");
	s->classes = s->label >= 0;
	s->class = xcalloc(table_rows(s->t) + 1, sizeof(*s->class));
	read_points(s);
	r = rows_read(s->c, s->t, take_label, s, &s->rows, e);
	if (r < 0)
		return err_wrap(e, "input data");
	sort_classes(s);
	r = decide_counts(s, e);
	if (r >= 0)
		r = rows_agree(s->c, "", &s->rows, e);
	s->part = xcalloc(s->rows.n + 1, 1);
	if (r >= 0)
		r = decide(s, e);
	return r < 0 ? r : tell_hosts(s, e);
}

/* ---- a host follows ------------------------------------------------------ */

static int host(struct split *s, struct err *e)
{
	size_t left;
	int r = rows_read(s->c, s->t, NULL, NULL, &s->rows, e);

	if (r >= 0)
		r = rows_agree(s->c, "", &s->rows, e);
	left = s->rows.n;
	s->part = xmalloc(s->rows.n + 1);
	memset(s->part, PARTS, s->rows.n + 1);
	for (size_t k = 0; k < PARTS && r >= 0; k++) {
		_cleanup_free_ uint32_t *v = NULL;

		r = rows_recv(s->c, messages[k], s->rows.n, left, &v,
			      &s->count[k], e);
		for (size_t i = 0; r >= 0 && i < s->count[k]; i++) {
			if (s->part[v[i]] != PARTS)
				r = err_set(e, EPROTO,
					    "message %s: a row twice",
					    messages[k]);
			s->part[v[i]] = (uint8_t)k;
		}
		left -= r < 0 ? 0 : s->count[k];
	}
	if (r >= 0 && left)
		r = err_set(e, EPROTO, "%zu rows are in no part", left);
	if (r == -EPROTO)
		ctx_fail_code(s->c, "bad_message",
			      "a partner sent something unexpected");
	return r;
}

/* ---- output -------------------------------------------------------------- */

static int fill(struct split *s, struct table_build *b[PARTS], struct err *e)
{
	const struct cell *cells;
	struct table_iter *it;
	const char *key;
	size_t row = 0, len;
	int r = table_scan(s->t, NULL, 0, &it, e);

	if (r < 0)
		return r;
	while ((r = table_next(it, &key, &len, &cells, e)) > 0) {
		r = table_build_add(b[s->part[row]], key, len, cells, e);
		if (r < 0)
			break;
		if (++row % 4096 == 0)
			ctx_progress(s->c, (double)row / (double)s->rows.n);
	}
	table_scan_end(it);
	return r;
}

static int put_parts(struct split *s, struct err *e)
{
	struct table_schema *schema = schema_dup(table_schema(s->t));
	struct table_build *b[PARTS] = { NULL };
	int r = 0;

	for (size_t k = 0; k < PARTS && r >= 0; k++)
		r = table_build_begin(ctx_store(s->c), schema, &b[k], e);
	schema_free(schema);
	if (r >= 0)
		r = fill(s, b, e);
	for (size_t k = 0; k < PARTS; k++)
		if (r >= 0)
			r = ctx_put_table(s->c, k, TAKE_PTR(b[k]), e);
		else if (b[k])
			table_build_abort(b[k]);
	return r;
}

/* {"<class>": {"count", "share"}} of a part, or of all rows (PARTS). */
static json_t *part_labels(const struct split *s, size_t part)
{
	_cleanup_free_ size_t *count = xcalloc(s->labels.n + 1, sizeof(*count));
	json_t *o = json_object();
	size_t all = 0;

	for (size_t i = 0; i < s->rows.n; i++)
		if (part == PARTS || s->part[i] == part) {
			count[s->class[i]]++;
			all++;
		}
	for (size_t k = 0; k < s->labels.n; k++) {
		_cleanup_free_ char *name = class_name(s, k);
		double share = all ? (double)count[k] / (double)all : 0;

		json_object_set_new(o, name,
				    json_pack("{s:I, s:f}", "count",
					      (json_int_t)count[k], "share",
					      share));
	}
	return o;
}

static int put_summary(struct split *s, struct err *e)
{
	json_t *o = json_pack("{s:I}", "original_count", (json_int_t)s->rows.n);
	json_t *labels;
	int r;

	for (size_t k = 0; k < PARTS; k++) {
		_cleanup_free_ char *n = xasprintf("%s_count", parts[k]);
		_cleanup_free_ char *share = xasprintf("%s_ratio", parts[k]);

		json_object_set_new(o, n,
				    json_integer((json_int_t)s->count[k]));
		json_object_set_new(
		    o, share,
		    json_real((double)s->count[k] / (double)s->rows.n));
	}
	if (s->classes) {
		labels = json_pack("{s:o}", "original", part_labels(s, PARTS));
		for (size_t k = 0; k < PARTS; k++)
			json_object_set_new(labels, parts[k],
					    part_labels(s, k));
		json_object_set_new(o, "labels", labels);
	}
	r = ctx_put_summary(s->c, o, e);
	json_decref(o);
	return r;
}

/* ---- the component ------------------------------------------------------- */

static int run(struct ctx *c, struct err *e)
{
	struct split s = { .c = c, .params = ctx_params(c), .label = -1 };
	int r;

	if (ctx_inputs(c, "data") != 1)
		return err_set(e, EINVAL, "one input table is needed");
	s.t = ctx_input(c, "data", 0);
	if (table_rows(s.t) == 0)
		r = err_set(e, EINVAL, "the input table has no rows");
	else
		r = strcmp(ctx_role(c), "guest") ? host(&s, e) : guest(&s, e);
	if (r >= 0)
		r = put_parts(&s, e);
	if (r >= 0)
		r = put_summary(&s, e);
	labels_free(&s.labels);
	free(s.class);
	free(s.points);
	free(s.part);
	return r;
}

static void check_size(const json_t *p, const char *name,
		       void (*defect)(void *arg, const char *pointer,
				      const char *text),
		       void *arg)
{
	const json_t *v = json_object_get(p, name);
	double x = json_number_value(v);

	if (!v || json_is_null(v))
		return;
	if (!json_is_number(v) || x < 0 || (json_is_real(v) && x > 1))
		defect(arg, name,
		       "expected a share of 0 to 1, a number of rows, or null "
		       "for what remains");
}

static void check(const json_t *p, const json_t *roles, const char *role,
		  void (*defect)(void *arg, const char *pointer,
				 const char *text),
		  void *arg)
{
	const json_t *points = json_object_get(p, "split_points"), *v;
	const char *wrong;
	struct plan plan;
	size_t i;

	(void)roles;
	(void)role;
	for (i = 0; i < PARTS; i++)
		check_size(p, sizes[i], defect, arg);
	wrong = plan_read(p, 0, &plan);
	if (wrong)
		defect(arg, "train_size", wrong);
	if (json_bool_or(p, "stratified", false) &&
	    !json_bool_or(p, "shuffle", true))
		defect(arg, "shuffle",
		       "must be true with stratified: classes are drawn");
	json_array_foreach (points, i, v)
		if (!json_is_number(v)) {
			char at[40];

			(void)snprintf(at, sizeof(at), "split_points/%zu", i);
			defect(arg, at, "expected a number");
		}
}

static const struct param params[] = {
	{ "random_state", PARAM_INT, NULL, 0, 4294967295.0,
	  .flags = PARAM_NULLABLE,
	  .help = "seed; null: other rows at each run" },
	{ "test_size", PARAM_ANY, NULL, .flags = PARAM_NULLABLE,
	  .help = "share (0.2) or number of rows (200); null: what remains" },
	{ "train_size", PARAM_ANY, NULL, .flags = PARAM_NULLABLE,
	  .help = "the same; with no size at all 0.8" },
	{ "validate_size", PARAM_ANY, NULL, .flags = PARAM_NULLABLE,
	  .help = "the same; with no size at all 0.2" },
	{ "stratified", PARAM_BOOL, "false",
	  .help = "each part has the classes of the label in the same shares" },
	{ "shuffle", PARAM_BOOL, "true",
	  .help = "false: the parts follow the order of the ids" },
	{ "split_points", PARAM_LIST, NULL, .flags = PARAM_NULLABLE,
	  .help = "with stratified: bounds that cut a continuous label into "
		  "classes" },
	{ "need_run", PARAM_BOOL, "true",
	  .help = "false: all rows are handed on as train rows" },
	{ 0 },
};

static const char *const data_inputs[] = { "data", NULL };

extern const struct component component_hetero_data_split;
const struct component component_hetero_data_split = {
	.module = "HeteroDataSplit",
	.roles = ROLE_GUEST | ROLE_HOST,
	.needs_roles = ROLE_GUEST | ROLE_HOST,
	.data_inputs = data_inputs,
	.data_outputs = PARTS,
	.params = params,
	.help = "splits the common rows into train, validate and test rows",
	.check = check,
	.run = run,
};
