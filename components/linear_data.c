// SPDX-License-Identifier: Apache-2.0
/* The rows of a party as a dense matrix. */
#include <math.h>

#include "lib/json.h"
#include "lib/table_ops.h"

#include "components/linear.h"

/* Where the columns of the matrix and the others stand in the table. */
struct columns {
	size_t *at; /* of the matrix */
	ssize_t label, weight, exposure;
};

static int read_cell(const struct table_schema *s, size_t at,
		     const struct cell *cells, double *ret, struct err *e)
{
	if (cell_number(&cells[at], ret))
		return err_set(e, EINVAL,
			       "column %s is not a column of numbers",
			       s->columns[at].name);
	if (!isfinite(*ret))
		return err_set(e, EINVAL,
			       "column %s has missing values (DataTransform's "
			       "missing_fill fills them)",
			       s->columns[at].name);
	return 0;
}

static int read_guest_cells(struct linear_data *d, const struct columns *k,
			    size_t row, const struct cell *cells, struct err *e)
{
	const struct table_schema *s = table_schema(d->table);
	double v;

	if (d->label &&
	    read_cell(s, (size_t)k->label, cells, d->label + row, e))
		return -e->no;
	if (d->weight) {
		if (read_cell(s, (size_t)k->weight, cells, &v, e))
			return -e->no;
		if (v < 0)
			return err_set(e, EINVAL,
				       "the weight column has negative values");
		d->weight[row] = v;
	}
	if (d->offset) {
		if (read_cell(s, (size_t)k->exposure, cells, &v, e))
			return -e->no;
		if (v < 0)
			return err_set(e, EINVAL,
				       "the exposure column has negative "
				       "values");
		d->offset[row] = log(v > 0 ? v : 1e-7);
	}
	return 0;
}

struct reading {
	struct linear_data *d;
	const struct columns *k;
};

static int read_row(void *arg, size_t row, const struct cell *cells,
		    struct err *e)
{
	const struct reading *x = arg;
	struct linear_data *d = x->d;
	const struct table_schema *s = table_schema(d->table);
	double *to = d->x + row * d->cols;

	if (row == d->rows)
		return err_set(e, EIO, "more rows than the table says");
	for (size_t j = 0; j < d->cols; j++) {
		if (read_cell(s, x->k->at[j], cells, &to[j], e))
			return -e->no;
		if (fabs(to[j]) > LINEAR_VALUE_MAX)
			return err_set(e, ERANGE,
				       "column %s has values beyond 1e8",
				       d->names[j]);
	}
	return read_guest_cells(d, x->k, row, cells, e);
}

static void add_column(struct linear_data *d, struct columns *k, size_t at)
{
	const struct table_column *col = &table_schema(d->table)->columns[at];

	d->names[d->cols] = xstrdup(col->name);
	d->anonymous[d->cols] = col->anonymous ? xstrdup(col->anonymous) : NULL;
	k->at[d->cols++] = at;
}

static int columns_of_model(struct linear_data *d, struct columns *k,
			    const json_t *header, struct err *e)
{
	const struct table_schema *s = table_schema(d->table);
	const json_t *x;
	size_t i;

	if (json_array_size(header) > s->n_columns)
		return err_set(e, EINVAL,
			       "the model has %zu columns, more than the table",
			       json_array_size(header));
	json_array_foreach (header, i, x) {
		const char *name = json_string_value(x);
		ssize_t at = name ? schema_find(s, name) : -1;

		if (at < 0)
			return err_set(e, EINVAL,
				       "the column %s of the training data is "
				       "missing",
				       name ? name : "?");
		add_column(d, k, (size_t)at);
	}
	return 0;
}

/* A training that goes on from a model has no column beside the model's. */
static int no_others(const struct linear_data *d, const struct columns *k,
		     struct err *e)
{
	const struct table_schema *s = table_schema(d->table);
	_cleanup_free_ bool *known = xcalloc(s->n_columns + 1, sizeof(*known));

	for (size_t j = 0; j < d->cols; j++)
		known[k->at[j]] = true;
	for (size_t i = 0; i < s->n_columns; i++)
		if (schema_is_feature(s, i) && (ssize_t)i != k->exposure &&
		    !known[i])
			return err_set(e, EINVAL,
				       "the model to go on from does not have "
				       "the column %s",
				       s->columns[i].name);
	return 0;
}

static int find_columns(struct linear *l, struct linear_data *d,
			struct columns *k, const json_t *header, bool only,
			struct err *e)
{
	int r;

	const struct table_schema *s = table_schema(d->table);
	bool guest = l->role == LINEAR_GUEST;

	k->label = s->label ? schema_find(s, s->label) : -1;
	k->weight = guest && s->weight ? schema_find(s, s->weight) : -1;
	k->exposure = -1;
	if (guest && l->p.exposure) {
		k->exposure = schema_find(s, l->p.exposure);
		if (k->exposure < 0)
			return err_set(e, EINVAL,
				       "exposure_colname: there is no column "
				       "%s",
				       l->p.exposure);
	}
	if (header) {
		r = columns_of_model(d, k, header, e);
		return r < 0 || !only ? r : no_others(d, k, e);
	}
	for (size_t i = 0; i < s->n_columns; i++)
		if (schema_is_feature(s, i) && (ssize_t)i != k->exposure)
			add_column(d, k, i);
	return 0;
}

static int read_table(struct linear *l, struct linear_data *d,
		      const json_t *header, bool only, bool need_label,
		      struct err *e)
{
	const struct table_schema *s = table_schema(d->table);
	bool guest = l->role == LINEAR_GUEST;
	struct columns k = { .at = xcalloc(s->n_columns + 1, sizeof(size_t)) };
	struct reading x = { d, &k };
	int r = find_columns(l, d, &k, header, only, e);

	if (!r && guest && need_label && k.label < 0)
		r = err_set(e, EINVAL, "there is no label column");
	if (!r && !guest && !header && !d->cols) {
		ctx_fail_code(l->c, "no_feature",
			      "the party's table has no feature column");
		r = err_set(e, EINVAL, "there is no feature column%s",
			    s->n_columns ? ""
					 : " (if the table's file has no "
					   "commas, its upload.json needs "
					   "id_delimiter)");
	}
	if (!r) {
		d->label_column =
		    guest && k.label >= 0 ? (size_t)k.label : SIZE_MAX;
		d->x = xcalloc(d->rows * d->cols + 1, sizeof(*d->x));
		if (guest && need_label)
			d->label = xcalloc(d->rows, sizeof(*d->label));
		if (k.weight >= 0)
			d->weight = xcalloc(d->rows, sizeof(*d->weight));
		if (k.exposure >= 0)
			d->offset = xcalloc(d->rows, sizeof(*d->offset));
		r = rows_read(l->c, d->table, read_row, &x, &d->ids, e);
	}
	free(k.at);
	return r;
}

int linear_data_read(struct linear *l, const char *key, const json_t *header,
		     bool need_label, struct linear_data *ret, struct err *e)
{
	struct ctx *c = l->c;
	struct table *t = ctx_inputs(c, key) ? ctx_input(c, key, 0) : NULL;
	struct linear_data d = { .table = t };
	size_t n;
	int r;

	if (!t)
		return err_set(e, EINVAL, "there is no input %s", key);
	d.rows = table_rows(t);
	if (!d.rows)
		ctx_fail_code(c, "no_rows",
			      "there are no rows: do the tables have ids in "
			      "common?");
	if (!d.rows || d.rows > ROWS_MAX)
		return err_set(e, EINVAL, "%s has %zu rows%s", key, d.rows,
			       d.rows ? ""
				      : ": do the tables have ids in common?");
	n = MAX(table_schema(t)->n_columns, json_array_size(header)) + 1;
	d.names = xcalloc(n, sizeof(*d.names));
	d.anonymous = xcalloc(n, sizeof(*d.anonymous));
	r = read_table(l, &d, header, !strcmp(key, "train_data"), need_label,
		       e);
	if (r < 0) {
		linear_data_free(&d);
		return err_wrap(e, "input %s", key);
	}
	*ret = d;
	return 0;
}

void linear_data_free(struct linear_data *d)
{
	for (size_t j = 0; j < d->cols; j++) {
		free(d->names[j]);
		free(d->anonymous[j]);
	}
	free(d->x);
	free(d->label);
	free(d->weight);
	free(d->offset);
	free(d->names);
	free(d->anonymous);
	free(d->at);
	*d = (struct linear_data){ 0 };
}

static double *pick(const double *v, const uint32_t *at, size_t n)
{
	double *ret = v ? xcalloc(n + 1, sizeof(*ret)) : NULL;

	for (size_t i = 0; v && i < n; i++)
		ret[i] = v[at[i]];
	return ret;
}

static void copy_names(const struct linear_data *d, const bool *keep,
		       struct linear_data *ret)
{
	ret->names = xcalloc(d->cols + 1, sizeof(*ret->names));
	ret->anonymous = xcalloc(d->cols + 1, sizeof(*ret->anonymous));
	for (size_t j = 0; j < d->cols; j++) {
		if (keep && !keep[j])
			continue;
		ret->names[ret->cols] = xstrdup(d->names[j]);
		ret->anonymous[ret->cols++] =
		    d->anonymous[j] ? xstrdup(d->anonymous[j]) : NULL;
	}
}

void linear_data_rows(const struct linear_data *d, const uint32_t *at, size_t n,
		      struct linear_data *ret)
{
	*ret = (struct linear_data){ .table = d->table,
				     .rows = n,
				     .label_column = d->label_column };
	copy_names(d, NULL, ret);
	ret->x = xcalloc(n * d->cols + 1, sizeof(*ret->x));
	for (size_t i = 0; i < n; i++)
		memcpy(ret->x + i * d->cols, d->x + at[i] * d->cols,
		       d->cols * sizeof(*d->x));
	ret->label = pick(d->label, at, n);
	ret->weight = pick(d->weight, at, n);
	ret->offset = pick(d->offset, at, n);
	ret->at = xcalloc(n + 1, sizeof(*ret->at));
	for (size_t i = 0; i < n; i++)
		ret->at[i] = d->at ? d->at[at[i]] : at[i];
}

void linear_data_columns(const struct linear_data *d, const bool *keep,
			 struct linear_data *ret)
{
	_cleanup_free_ uint32_t *all = xcalloc(d->rows + 1, sizeof(*all));
	size_t to = 0;

	for (size_t i = 0; i < d->rows; i++)
		all[i] = (uint32_t)i;
	*ret = (struct linear_data){ .table = d->table,
				     .rows = d->rows,
				     .label_column = d->label_column };
	copy_names(d, keep, ret);
	ret->x = xcalloc(d->rows * ret->cols + 1, sizeof(*ret->x));
	for (size_t i = 0; i < d->rows; i++)
		for (size_t j = 0; j < d->cols; j++)
			if (keep[j])
				ret->x[to++] = d->x[i * d->cols + j];
	ret->label = pick(d->label, all, d->rows);
	ret->weight = pick(d->weight, all, d->rows);
	ret->offset = pick(d->offset, all, d->rows);
	if (d->at)
		ret->at = xcalloc(d->rows + 1, sizeof(*ret->at));
	if (d->at)
		memcpy(ret->at, d->at, d->rows * sizeof(*ret->at));
	ret->ids = d->ids;
}
