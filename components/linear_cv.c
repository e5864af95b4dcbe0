// SPDX-License-Identifier: Apache-2.0
/*
 * Cross validation: the rows in key order are split as scikit-learn's KFold
 * splits them; hosts get the row numbers of each fold.
 */
#include <math.h>

#include "lib/json.h"

#include "components/linear.h"
#include "components/math/sampling.h"

struct cv {
	struct linear *l;
	const struct linear_data *d; /* NULL at the arbiter */
	uint32_t *order;	     /* guest */
	struct linear_result result;
	struct linear_set classes; /* guest: of all rows */
	json_t *summary;
};

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a;
	uint32_t y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Rows of the k-th fold, ascending: the guest's choice. */
static int test_rows(struct cv *v, unsigned k, uint32_t **ret, size_t *ret_n,
		     struct err *e)
{
	struct linear *l = v->l;
	size_t rows = v->d->rows, folds = l->p.folds;
	char tag[32];
	size_t from, n;
	uint32_t *at = NULL;
	int r = 0;

	(void)snprintf(tag, sizeof(tag), "%u", k);
	if (l->role == LINEAR_HOST) {
		r = ctx_recv_u32(l->c, "guest", 0, "test_sid", tag, rows, ret,
				 ret_n, e);
		if (r < 0)
			return r;
		for (size_t i = 0; i < *ret_n; i++)
			if ((*ret)[i] >= rows ||
			    (i && (*ret)[i] <= (*ret)[i - 1]))
				r = -EPROTO;
		if (r >= 0 && *ret_n && *ret_n < rows)
			return 0;
		return err_set(e, EPROTO, "test_sid: bad rows");
	}
	from = k * (rows / folds) + MIN((size_t)k, rows % folds);
	n = rows / folds + (k < rows % folds);
	at = xcalloc(n + 1, sizeof(*at));
	memcpy(at, v->order + from, n * sizeof(*at));
	qsort(at, n, sizeof(*at), compare_u32);
	for (size_t i = 0; i < l->hosts && r >= 0; i++)
		r = ctx_send_u32(l->c, "host", i, "test_sid", tag, at, n, e);
	if (r < 0) {
		free(at);
		return r;
	}
	*ret = at;
	*ret_n = n;
	return 0;
}

static void split(const struct linear_data *d, const uint32_t *test, size_t n,
		  struct linear_data *train, struct linear_data *validate)
{
	_cleanup_free_ uint32_t *rest = xcalloc(d->rows + 1, sizeof(*rest));
	size_t m = 0;

	for (size_t i = 0, k = 0; i < d->rows; i++)
		if (k < n && test[k] == i)
			k++;
		else
			rest[m++] = (uint32_t)i;
	linear_data_rows(d, rest, m, train);
	linear_data_rows(d, test, n, validate);
}

/* ---- what is kept of a fold ---------------------------------------------- */

static int keep_instances(struct cv *v, const struct linear_data *d,
			  const char *suffix, struct err *e)
{
	struct table_iter *it;
	const struct cell *cells;
	char name[TABLE_KEY_MAX + 1];
	const char *key;
	size_t len, row = 0, at = 0, more = strlen(suffix);
	int r = table_scan(d->table, NULL, 0, &it, e);

	if (r < 0)
		return r;
	while (row < d->rows &&
	       (r = table_next(it, &key, &len, &cells, e)) > 0) {
		if (d->at[row] != at++)
			continue;
		row++;
		if (len + more > TABLE_KEY_MAX) {
			r = err_set(e, ENAMETOOLONG, "an id is too long");
			break;
		}
		memcpy(name, key, len);
		memcpy(name + len, suffix, more + 1);
		r = table_build_add(v->result.b, name, len + more, cells, e);
		if (r < 0)
			break;
	}
	table_scan_end(it);
	return r < 0 ? r : 0;
}

static int keep_rows(struct cv *v, unsigned k, const char *kind,
		     const struct linear_set *set, const struct linear_data *d,
		     double *const *score, struct err *e)
{
	const struct linear_params *p = &v->l->p;
	bool train = !strcmp(kind, "train");
	char suffix[40];

	(void)snprintf(suffix, sizeof(suffix), "#fold%u#%s", k, kind);
	if (!p->cv_history)
		return train ? 0
			     : linear_result_add(&v->result, set, d, score,
						 kind, "", NULL, e);
	if (p->cv_instances)
		return keep_instances(v, d, suffix, e);
	return linear_result_add(&v->result, set, d, score, kind, suffix, NULL,
				 e);
}

/* A fold may lack a number: rows of one class have no AUC. */
static int note_metrics(struct cv *v, unsigned k, const char *kind,
			json_t *measures, json_t *fold, struct err *e)
{
	const char *name;
	char flow[32];
	json_t *x;
	int r = 0;

	(void)snprintf(flow, sizeof(flow), "fold_%u.", k);
	json_object_foreach (measures, name, x) {
		double value = json_is_number(x) ? json_number_value(x) : NAN;

		r = linear_curve(v->l, flow, kind, name, k, value, e);
		if (r < 0)
			break;
	}
	json_object_set(fold, kind, measures);
	return r;
}

/* Of each measure over the folds that have it; null when none has. */
static json_t *mean_of(const struct cv *v, const char *kind)
{
	json_t *mean = json_object(), *fold, *x, *y;
	const char *at, *name;

	json_object_foreach (v->summary, at, fold)
		json_object_foreach (json_object_get(fold, kind), name, x) {
			const char *other;
			double sum = 0, n = 0;

			if (json_object_get(mean, name))
				continue;
			json_object_foreach (v->summary, other, y) {
				x = json_object_get(json_object_get(y, kind),
						    name);
				n += json_is_number(x);
				sum += json_number_value(x);
			}
			json_object_set_new(mean, name,
					    n > 0 ? json_real(sum / n)
						  : json_null());
		}
	return mean;
}

static int look_at(struct cv *v, unsigned k, const char *kind,
		   const struct linear_set *set, const struct linear_data *d,
		   json_t *fold, struct err *e)
{
	struct linear *l = v->l;
	double **score = NULL;
	char flow[LINEAR_FLOW];
	json_t *m;
	int r;

	(void)snprintf(flow, sizeof(flow), "fold_%u.%s.", k, kind);
	r = linear_set_scores(l, flow, set, d, &score, e);
	if (r < 0)
		return r;
	if (l->role == LINEAR_GUEST && d) {
		m = linear_measure(l, set, d, score);
		r = note_metrics(v, k, kind, m, fold, e);
		json_decref(m);
		if (r >= 0 && !v->result.b)
			r = linear_result_begin(l, set, d, &v->result, e);
		if (r >= 0)
			r = keep_rows(v, k, kind, set, d, score, e);
	}
	linear_scores_free(set, score);
	return r;
}

static double *copy_classes(const struct linear_set *set)
{
	double *v = xcalloc(set->n, sizeof(*v));

	memcpy(v, set->classes, set->n * sizeof(*v));
	return v;
}

static int one_fold(struct cv *v, unsigned k, struct err *e)
{
	struct linear *l = v->l;
	struct linear_data train = { 0 }, validate = { 0 };
	struct linear_set set = { 0 };
	_cleanup_free_ uint32_t *at = NULL;
	json_t *fold = json_object();
	bool rows = v->d != NULL;
	char flow[LINEAR_FLOW];
	size_t n = 0;
	int r = 0;

	(void)snprintf(flow, sizeof(flow), "fold_%u.", k);
	l->from = (double)k / l->p.folds;
	l->span = 1.0 / l->p.folds;
	if (v->classes.n) {
		set.n = v->classes.n;
		if (v->classes.classes)
			set.classes = copy_classes(&v->classes);
	}
	if (rows)
		r = test_rows(v, k, &at, &n, e);
	if (r >= 0 && rows)
		split(v->d, at, n, &train, &validate);
	if (r >= 0)
		r = linear_train(l, flow, rows ? &train : NULL, NULL, &set,
				 NULL, e);
	if (r >= 0)
		r = look_at(v, k, "train", &set, rows ? &train : NULL, fold, e);
	if (r >= 0)
		r = look_at(v, k, "validate", &set, rows ? &validate : NULL,
			    fold, e);
	(void)snprintf(flow, sizeof(flow), "fold_%u", k);
	json_object_set_new(v->summary, flow, fold);
	linear_set_free(&set);
	linear_data_free(&train);
	linear_data_free(&validate);
	return r < 0 ? err_wrap(e, "fold %u", k) : 0;
}

static void shuffle(uint32_t *v, size_t n, int64_t seed)
{
	struct draw d;

	if (seed >= 0) {
		draw_seed(&d, (uint32_t)seed);
		draw_shuffle(&d, v, n);
		return;
	}
	for (size_t i = n; i > 1; i--) {
		size_t k = random_below((uint32_t)i);
		uint32_t t = v[i - 1];

		v[i - 1] = v[k];
		v[k] = t;
	}
}

static int begin_instances(struct cv *v, struct err *e)
{
	struct table_schema *s = schema_dup(table_schema(v->d->table));
	int r;

	json_decref(s->lineage);
	s->lineage = NULL;
	v->result.l = v->l;
	r = table_build_begin(ctx_store(v->l->c), s, &v->result.b, e);
	schema_free(s);
	return r;
}

static int begin(struct cv *v, struct err *e)
{
	const struct linear_params *p = &v->l->p;
	size_t rows = v->d ? v->d->rows : SIZE_MAX;
	int r;

	if (rows < p->folds) {
		ctx_fail_code(v->l->c, "too_few_rows",
			      "cv_param/n_splits is more than there are rows");
		return err_set(e, EINVAL,
			       "cv_param/n_splits: %u folds of %zu rows",
			       p->folds, rows);
	}
	if (v->l->role != LINEAR_GUEST)
		return 0;
	r = linear_classes(v->l, v->d, &v->classes, e);
	if (r < 0)
		return r;
	v->order = xcalloc(rows + 1, sizeof(*v->order));
	for (size_t i = 0; i < rows; i++)
		v->order[i] = (uint32_t)i;
	if (p->cv_shuffle)
		shuffle(v->order, rows, p->cv_seed);
	return p->cv_history && p->cv_instances ? begin_instances(v, e) : 0;
}

int linear_cv(struct linear *l, const struct linear_data *d, struct err *e)
{
	struct cv v = { .l = l, .d = d, .summary = json_object() };
	int r = begin(&v, e);

	for (unsigned k = 0; k < l->p.folds && r >= 0; k++)
		r = one_fold(&v, k, e);
	if (r >= 0 && l->role == LINEAR_GUEST) {
		json_object_set_new(v.summary, "mean",
				    json_pack("{s:o, s:o}", "train",
					      mean_of(&v, "train"), "validate",
					      mean_of(&v, "validate")));
		r = ctx_put_summary(l->c, v.summary, e);
	}
	if (r >= 0 && v.result.b)
		r = linear_result_end(&v.result, 0, e);
	linear_result_abort(&v.result);
	free(v.order);
	free(v.classes.classes);
	json_decref(v.summary);
	return r;
}
