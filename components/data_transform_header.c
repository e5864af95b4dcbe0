// SPDX-License-Identifier: Apache-2.0
/* Which columns the output has: those of the table, or those of a model. */
#include <math.h>

#include "components/data_transform.h"
#include "lib/json.h"

#define NAME_MAX_BYTES 1024

static void column_add(struct transform *d, const char *name, size_t at,
		       enum kind kind, const char *anonymous)
{
	struct column *k;

	if ((d->n & (d->n - 1)) == 0) /* full: a power of two */
		d->columns = xrealloc(d->columns, (d->n ? 2 * d->n : 1) *
						      sizeof(*d->columns));
	k = &d->columns[d->n++];
	*k = (struct column){ .name = xstrdup(name),
			      .at = at,
			      .kind = kind,
			      .anonymous = xstrdup(anonymous),
			      .min = INFINITY,
			      .max = -INFINITY };
}

static void aside_set(struct aside *a, const char *name, size_t at,
		      enum kind kind)
{
	free(a->name);
	a->name = xstrdup(name);
	a->at = at;
	a->kind = kind;
}

static enum kind kind_of_cell(enum cell_type t)
{
	return t == CELL_STRING ? KIND_TEXT
	       : t == CELL_I64	? KIND_INT
				: KIND_FLOAT;
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
	if (*ret == KIND_TEXT && d->source.row.format != FORMAT_DENSE)
		return err_set(e, EINVAL,
			       "column %s: data type str is for dense input",
			       name);
	return 0;
}

static int feature_add(struct transform *d, const char *name, size_t at,
		       struct err *e)
{
	_cleanup_free_ char *anonymous =
	    xasprintf("%s_%s_x%zu", ctx_role(d->c), ctx_party(d->c), d->n);
	enum kind kind;
	int r = kind_for(d, name, &kind, e);

	if (!r)
		column_add(d, name, at, kind, anonymous);
	return r;
}

/* ---- beside the features: match id, label, weight ---------------------- */

static const struct table_schema *columns_of(const struct transform *d)
{
	return d->source.text ? NULL : table_schema(d->t);
}

/* What an earlier component has put aside stays there. */
static void keep_aside(struct transform *d, struct aside *a, const char *name)
{
	const struct table_schema *s = columns_of(d);
	ssize_t at = s && name ? schema_find(s, name) : -1;

	if (at >= 0 && !a->name)
		aside_set(a, name, (size_t)at,
			  kind_of_cell(s->columns[at].type));
}

static bool in_list(const json_t *list, const char *name)
{
	const json_t *v;
	size_t i;

	json_array_foreach (list, i, v)
		if (json_is_string(v) && !strcmp(json_string_value(v), name))
			return true;
	return false;
}

static int match_column(struct transform *d, const char *name, struct err *e)
{
	const struct table_schema *s = columns_of(d);
	ssize_t at = source_find(d, name);

	if (at < 0)
		return err_set(e, EINVAL, "there is no match id column %s",
			       name);
	if (s && s->columns[at].type != CELL_STRING)
		return err_set(e, EINVAL, "the match id column %s is no text",
			       name);
	aside_set(&d->match, name, (size_t)at, KIND_TEXT);
	return 0;
}

/* id_list, or the column that is named, or the first one. */
static int match_dense(struct transform *d, struct err *e)
{
	const json_t *list = json_object_get(d->params, "id_list");
	const char *own = json_str_or(d->params, "match_id_name", "");
	const json_t *v;
	size_t i;

	if (json_array_size(list))
		d->match_ids = json_deep_copy(list);
	else if (*own || d->source.n_in)
		d->match_ids = json_pack("[s]", *own ? own : d->source.in[0]);
	else
		return err_set(e, EINVAL,
			       "with_match_id: the rows have no column");
	json_array_foreach (d->match_ids, i, v)
		if (source_find(d, json_string_value(v)) < 0)
			return match_column(d, json_string_value(v), e);
	if (!*own && json_array_size(d->match_ids) == 1)
		own = json_string_value(json_array_get(d->match_ids, 0));
	if (!in_list(d->match_ids, own))
		return err_set(e, EINVAL,
			       "match_id_name: the table has %zu match ids, "
			       "name one of id_list",
			       json_array_size(d->match_ids));
	return match_column(d, own, e);
}

static int match_text(struct transform *d, struct err *e)
{
	int64_t index = json_int_or(d->params, "match_id_index", 0);
	size_t n = d->source.row.match_ids;
	_cleanup_free_ char *name =
	    n > 1 ? xasprintf("match_id%lld", (long long)index)
		  : xstrdup("match_id");

	if (index < 0 || (size_t)index >= n)
		return err_set(e, EINVAL,
			       "match_id_index: rows have %zu match ids, the "
			       "first is 0",
			       n);
	aside_set(&d->match, name, (size_t)index, KIND_TEXT);
	return 0;
}

static int find_match(struct transform *d, struct err *e)
{
	if (!json_bool_or(d->params, "with_match_id", false)) {
		keep_aside(d, &d->match, table_schema(d->t)->match_id);
		return 0;
	}
	return d->source.row.format == FORMAT_DENSE ? match_dense(d, e)
						    : match_text(d, e);
}

static int find_label(struct transform *d, struct err *e)
{
	const char *name = json_str_or(d->params, "label_name", "y");
	const char *type = json_str_or(d->params, "label_type", "int");
	ssize_t at = 0;

	if (!json_bool_or(d->params, "with_label", false)) {
		keep_aside(d, &d->label, table_schema(d->t)->label);
		return 0;
	}
	if (kind_of(type) == KIND_BAD)
		return err_set(e, EINVAL, "label_type: no such type");
	if (d->source.row.format == FORMAT_DENSE)
		at = source_find(d, name);
	else
		name = "label"; /* it has no other name in such a row */
	if (at < 0) {
		ctx_fail_code(d->c, "no_label",
			      "that party's table has no label column of the "
			      "name in label_name");
		return err_set(e, EINVAL, "there is no label column %s%s", name,
			       d->source.n_in ? ""
					      : " (the table has only ids: if "
						"its file has no commas, its "
						"upload.json needs "
						"id_delimiter)");
	}
	if (in_list(d->match_ids, name))
		return err_set(e, EINVAL,
			       "label_name: the column %s is a match id", name);
	aside_set(&d->label, name, (size_t)at, kind_of(type));
	return 0;
}

/* ---- from the table ---------------------------------------------------- */

static bool is_aside(const struct aside *a, size_t at)
{
	return a->name && a->at == at;
}

static int fit_dense(struct transform *d, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < d->source.n_in && !r; i++)
		if (!is_aside(&d->label, i) && !is_aside(&d->match, i) &&
		    !is_aside(&d->weight, i) &&
		    !in_list(d->match_ids, d->source.in[i]))
			r = feature_add(d, d->source.in[i], i, e);
	return r;
}

/* Distinct names, sorted. */
struct names {
	char **name;
	size_t n;
};

static void names_free(struct names *a)
{
	for (size_t i = 0; i < a->n; i++)
		free(a->name[i]);
	free(a->name);
}

static int too_many(struct err *e)
{
	return err_set(e, EINVAL,
		       "the rows have more features than a table has columns "
		       "(%d)",
		       TABLE_COLUMNS_MAX);
}

static int names_put(struct names *a, const struct span *s, struct err *e)
{
	size_t from = 0, to = a->n;

	while (from < to) {
		size_t mid = from + (to - from) / 2;
		int r = strncmp(a->name[mid], s->s, s->n);

		if (!r && !a->name[mid][s->n])
			return 0;
		if (r < 0)
			from = mid + 1;
		else
			to = mid;
	}
	if (a->n == TABLE_COLUMNS_MAX)
		return too_many(e);
	if (s->n > NAME_MAX_BYTES)
		return err_set(e, EINVAL, "a tag is longer than %d bytes",
			       NAME_MAX_BYTES);
	if (!a->name)
		a->name = xcalloc(TABLE_COLUMNS_MAX, sizeof(*a->name));
	memmove(a->name + from + 1, a->name + from,
		(a->n - from) * sizeof(*a->name));
	a->name[from] = xasprintf("%.*s", (int)s->n, s->s);
	a->n++;
	return 0;
}

/* What one row adds; malformed fields are told when rows are converted. */
static int scan_row(struct transform *d, const struct cell *cells,
		    struct names *tags, uint64_t *numbers, struct err *e)
{
	const struct row_format *f = &d->source.row;
	struct span text = source_text(d, cells), skip;
	struct row_feature x;
	struct row_scan r;
	uint64_t number;
	int k, ret = 0;

	row_begin(&r, f, text.s, text.n);
	for (size_t i = 0; i < f->match_ids + f->label; i++)
		(void)row_prefix(&r, &skip);
	while (!ret && (k = row_feature(&r, &x))) {
		if (k < 0)
			continue;
		if (f->format == FORMAT_TAG) {
			ret = names_put(tags, &x.name, e);
		} else if (row_number(&x.name, &number)) {
			if (number >= TABLE_COLUMNS_MAX)
				ret = too_many(e);
			*numbers = MAX(*numbers, number + 1);
		}
	}
	return ret;
}

static int fit_text(struct transform *d, struct err *e)
{
	struct names tags = { 0 };
	const struct cell *cells;
	struct table_iter *it;
	uint64_t numbers = 0;
	const char *key;
	char name[24];
	size_t len;
	int r = table_scan(d->t, NULL, 0, &it, e);

	if (r < 0)
		return r;
	while ((r = table_next(it, &key, &len, &cells, e)) > 0) {
		r = scan_row(d, cells, &tags, &numbers, e);
		if (r < 0)
			break;
	}
	table_scan_end(it);
	for (uint64_t i = 0; i < numbers && !r; i++) {
		(void)snprintf(name, sizeof(name), "x%llu",
			       (unsigned long long)i);
		r = feature_add(d, name, 0, e);
	}
	for (size_t i = 0; i < tags.n && !r; i++)
		r = feature_add(d, tags.name[i], 0, e);
	names_free(&tags);
	return r;
}

static bool column_named(const struct transform *d, const char *name)
{
	if (source_find(d, name) >= 0)
		return true;
	for (size_t i = 0; i < d->n; i++)
		if (!strcmp(d->columns[i].name, name))
			return true;
	return false;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Every column has a name of its own, and a table has room for all. */
static int check_columns(const struct transform *d, struct err *e)
{
	const struct aside *asides[] = { &d->match, &d->label, &d->weight };
	_cleanup_free_ const char **name =
	    xcalloc(d->n + ARRAY_SIZE(asides), sizeof(*name));
	size_t n = 0;

	for (size_t i = 0; i < d->n; i++)
		name[n++] = d->columns[i].name;
	for (size_t a = 0; a < ARRAY_SIZE(asides); a++)
		if (asides[a]->name)
			name[n++] = asides[a]->name;
	qsort(name, n, sizeof(*name), compare_names);
	for (size_t i = 0; i < n; i++) {
		if (!*name[i])
			return err_set(e, EINVAL, "a column has no name");
		if (i && !strcmp(name[i - 1], name[i]))
			return err_set(e, EINVAL,
				       "two columns (or a tag and a column) "
				       "have the name %s",
				       name[i]);
	}
	return n > TABLE_COLUMNS_MAX ? too_many(e) : 0;
}

int header_fit(struct transform *d, struct err *e)
{
	const json_t *own = json_object_get(d->params, "exclusive_data_type");
	const char *name;
	json_t *v;
	int r = find_match(d, e);

	keep_aside(d, &d->weight, table_schema(d->t)->weight);
	if (!r)
		r = find_label(d, e);
	if (!r)
		r = d->source.row.format == FORMAT_DENSE ? fit_dense(d, e)
							 : fit_text(d, e);
	if (!r)
		r = check_columns(d, e);
	json_object_foreach ((json_t *)own, name, v)
		if (!r && !column_named(d, name))
			r = err_set(e, EINVAL,
				    "exclusive_data_type: no column %s", name);
	return r;
}

/* ---- from a model ------------------------------------------------------ */

static int missing_column(const struct transform *d, const char *name,
			  struct err *e)
{
	ctx_fail_code(d->c, "no_column",
		      "that party's table lacks a column of the training "
		      "data");
	return err_set(e, EINVAL,
		       "the column %s of the training data is missing", name);
}

static int match_from_model(struct transform *d, struct err *e)
{
	const json_t *m = json_object_get(d->model, "match_id");
	const char *name = json_str_or(m, "name", NULL);
	int64_t index = json_int_or(d->params, "match_id_index", 0);

	if (!name) {
		keep_aside(d, &d->match, table_schema(d->t)->match_id);
		return 0;
	}
	if (d->source.row.format == FORMAT_DENSE)
		return source_find(d, name) < 0 ? missing_column(d, name, e)
						: match_column(d, name, e);
	if ((uint64_t)index >= d->source.row.match_ids)
		return missing_column(d, name, e);
	aside_set(&d->match, name, (size_t)index, KIND_TEXT);
	return 0;
}

/* Rows to predict need none. */
static int label_from_model(struct transform *d, struct err *e)
{
	const json_t *m = json_object_get(d->model, "label");
	const char *name = json_str_or(m, "label_name", "y");
	enum kind kind = kind_of(json_str_or(m, "label_type", "int"));
	ssize_t at;

	if (!json_is_object(m))
		return 0;
	if (kind == KIND_BAD)
		return err_set(e, EINVAL, "model: label: no such type");
	at = d->source.row.format == FORMAT_DENSE ? source_find(d, name)
						  : d->source.row.label - 1;
	if (at >= 0)
		aside_set(&d->label, name, (size_t)at, kind);
	return 0;
}

/* A fill of the model: a number, or of text columns a text. */
static void fill_from_model(const json_t *o, const char *key, double *ret,
			    char **ret_text)
{
	const char *text = json_string_value(json_object_get(o, key));

	if (text)
		*ret_text = xstrdup(text);
	else
		*ret = json_num_or(o, key, 0);
}

static int column_from_model(struct transform *d, const json_t *o,
			     struct err *e)
{
	const char *name, *type, *anonymous;
	struct column *k;
	enum kind kind;
	ssize_t at = 0;

	if (json_get_str(o, "name", &name, e) < 0 ||
	    json_get_str(o, "type", &type, e) < 0 ||
	    json_get_str(o, "anonymous", &anonymous, e) < 0)
		return err_wrap(e, "model: header");
	kind = kind_of(type);
	if (kind == KIND_BAD)
		return err_set(e, EINVAL, "model: no data type %s", type);
	if (d->source.row.format == FORMAT_DENSE)
		at = source_find(d, name);
	if (at < 0)
		return missing_column(d, name, e);
	column_add(d, name, (size_t)at, kind, anonymous);
	k = &d->columns[d->n - 1];
	fill_from_model(o, "missing_value", &k->missing_fill, &k->missing_text);
	fill_from_model(o, "outlier_value", &k->outlier_fill, &k->outlier_text);
	return 0;
}

/* The columns that the model was made from, in its order; others go. */
int header_from_model(struct transform *d, struct err *e)
{
	const json_t *header = json_object_get(d->model, "header");
	const json_t *o;
	size_t i;
	int r;

	if (!json_is_array(header) ||
	    json_array_size(header) > TABLE_COLUMNS_MAX)
		return err_set(e, EINVAL, "model: no header");
	r = match_from_model(d, e);
	keep_aside(d, &d->weight, table_schema(d->t)->weight);
	if (!r)
		r = label_from_model(d, e);
	json_array_foreach (header, i, o)
		if (!r)
			r = column_from_model(d, o, e);
	return r ? r : check_columns(d, e);
}

/* ---- the table that comes out ------------------------------------------ */

struct table_schema *header_schema(const struct transform *d)
{
	static const enum cell_type types[] = { CELL_F64, CELL_F64, CELL_I64,
						CELL_STRING };
	const struct table_schema *in = table_schema(d->t);
	struct table_schema *s = schema_new();

	free(s->id);
	s->id = xstrdup(in->id);
	s->partitions = in->partitions;
	s->content_type = xstrdup("instances");
	if (d->sparse)
		s->extra = json_pack("{s:b}", "sparse", 1);
	if (d->match.name) {
		s->match_id = xstrdup(d->match.name);
		schema_add_column(s, d->match.name, CELL_STRING, NULL);
	}
	if (d->label.name) {
		_cleanup_free_ char *y =
		    xasprintf("%s_%s_y", ctx_role(d->c), ctx_party(d->c));

		s->label = xstrdup(d->label.name);
		schema_add_column(s, d->label.name, types[d->label.kind], y);
	}
	if (d->weight.name) {
		const struct table_column *w = &in->columns[d->weight.at];

		s->weight = xstrdup(d->weight.name);
		schema_add_column(s, w->name, w->type, w->anonymous);
	}
	for (size_t i = 0; i < d->n; i++) {
		const struct column *k = &d->columns[i];
		bool text =
		    k->kind == KIND_TEXT &&
		    (d->source.text || in->columns[k->at].type == CELL_STRING);

		schema_add_column(s, k->name, text ? CELL_STRING : CELL_F64,
				  k->anonymous);
	}
	return s;
}
