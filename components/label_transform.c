// SPDX-License-Identifier: Apache-2.0
/*
 * LabelTransform: labels become other ones, and predictions get the first ones
 * back.  docs/components/label_transform.md.
 */
#include <math.h>

#include "components/component.h"
#include "components/labels.h"
#include "lib/json.h"

/* from.v[i] becomes the i-th of to: a number or a word. */
struct map {
	struct labels from;
	json_t *to;
};

/* One column whose values are replaced. */
struct recode {
	size_t at;
	struct labels seen;
	bool missing; /* some cells are empty; they stay so */
	enum cell_type type;
	struct cell *out; /* by number in seen */
	char **text;	  /* of them */
};

struct transform {
	struct ctx *c;
	struct table *t;
	const json_t *params, *input_model;
	json_t *encoder, *key_type; /* label -> value, label -> type */
	bool revert;		    /* the table holds predictions */
	struct map map;
	struct recode columns[2];
	size_t n;
	ssize_t detail; /* column or -1 */
};

/* ---- the map ----------------------------------------------------------------
 */

static struct cell cell_of(const json_t *v)
{
	if (json_is_string(v))
		return (struct cell){ .type = CELL_STRING,
				      .str = json_string_value(v),
				      .len = json_string_length(v) };
	return (struct cell){ .type = CELL_F64, .f64 = json_number_value(v) };
}

static int map_add(struct map *m, const json_t *from, json_t *to, struct err *e)
{
	struct cell x = cell_of(from);
	size_t before = m->from.n;
	int r = labels_add(&m->from, &x, NULL, e);

	if (r >= 0 && m->from.n == before)
		r = err_set(e, EEXIST, "twice");
	if (r >= 0)
		json_array_append(m->to, to);
	return r;
}

/* "1" with type int or float is the number. */
static json_t *typed_key(const json_t *types, const char *key)
{
	const char *type = json_str_or(types, key, "str");
	double v;

	if (!strcmp(type, "str") || !num_parse(key, strlen(key), &v))
		return json_string(key);
	return v == nearbyint(v) && fabs(v) < 9007199254740992.0 &&
		       !strcmp(type, "int")
		   ? json_integer((json_int_t)v)
		   : json_real(v);
}

static int make_map(struct transform *d, struct err *e)
{
	const char *key;
	json_t *value;
	int r = 0;

	d->map.to = json_array();
	json_object_foreach (d->encoder, key, value) {
		json_t *label = typed_key(d->key_type, key);

		if (!json_is_number(value) && !json_is_string(value))
			r = err_set(e, EINVAL,
				    "model: a label has no number or word");
		else
			r = map_add(&d->map, d->revert ? value : label,
				    d->revert ? label : value, e);
		if (r == -EEXIST)
			r = err_set(e, EINVAL,
				    d->revert
					? "the encoder gives several labels "
					  "the same value: predictions cannot "
					  "get theirs back"
					: "label_encoder: a label stands there "
					  "twice");
		json_decref(label);
		if (r < 0)
			return r;
	}
	return 0;
}

static const char *type_name(const json_t *v)
{
	return json_is_string(v) ? "str" : json_is_integer(v) ? "int" : "float";
}

/* Without one the sorted labels become 0, 1, ... */
static void encoder_of_labels(struct transform *d, struct labels *l)
{
	labels_sort(l, NULL);
	for (size_t i = 0; i < l->n; i++) {
		_cleanup_free_ char *name = label_name(&l->v[i]);
		json_t *v = label_json(&l->v[i]);

		json_object_set_new(d->encoder, name,
				    json_integer((json_int_t)i));
		json_object_set_new(d->key_type, name,
				    json_string(type_name(v)));
		json_decref(v);
	}
}

/* The keys of JSON are words: label_list, or else the column, has the
 * types. */
static void encoder_given(struct transform *d, const json_t *given)
{
	const json_t *list = json_object_get(d->params, "label_list"), *x;
	enum cell_type type =
	    table_schema(d->t)->columns[d->columns[0].at].type;
	const char *key;
	json_t *v;
	size_t i;

	json_object_update(d->encoder, (json_t *)given);
	json_object_foreach ((json_t *)given, key, v) {
		double num;
		bool number = num_parse(key, strlen(key), &num) &&
			      (d->revert || type != CELL_STRING);
		const char *name = !number		   ? "str"
				   : num == nearbyint(num) ? "int"
							   : "float";

		json_array_foreach (list, i, x) {
			_cleanup_free_ char *text = json_text(x, false);
			const char *s =
			    json_is_string(x) ? json_string_value(x) : text;

			if (!strcmp(s, key))
				name = type_name(x);
		}
		json_object_set_new(d->key_type, key, json_string(name));
	}
}

/* ---- columns
 * ----------------------------------------------------------------- */

static bool empty(const struct cell *x)
{
	return x->type == CELL_STRING ? x->len == 0
				      : x->type == CELL_F64 && isnan(x->f64);
}

static int see_rows(struct transform *d, struct err *e)
{
	const struct cell *cells;
	struct table_iter *it;
	const char *key;
	size_t len;
	int r = table_scan(d->t, NULL, 0, &it, e);

	if (r < 0)
		return r;
	while ((r = table_next(it, &key, &len, &cells, e)) > 0) {
		for (size_t i = 0; i < d->n && r >= 0; i++) {
			struct recode *k = &d->columns[i];

			if (empty(&cells[k->at]))
				k->missing = true;
			else
				r = labels_add(&k->seen, &cells[k->at], NULL,
					       e);
		}
		if (r < 0)
			break;
	}
	table_scan_end(it);
	return r;
}

static json_t *recoded(const struct map *m, const struct label *x)
{
	struct cell c = { .type = CELL_F64, .f64 = x->num };
	ssize_t k;

	if (x->text)
		c = (struct cell){ .type = CELL_STRING,
				   .str = x->text,
				   .len = strlen(x->text) };
	k = labels_find(&m->from, &c);
	return k < 0 ? label_json(x)
		     : json_incref(json_array_get(m->to, (size_t)k));
}

/* Whole numbers, numbers, or words if one of them is none. */
static enum cell_type common_type(const json_t *values, bool missing)
{
	enum cell_type type = missing ? CELL_F64 : CELL_I64;
	const json_t *v;
	size_t i;

	json_array_foreach (values, i, v)
		if (json_is_string(v))
			return CELL_STRING;
		else if (json_is_real(v))
			type = CELL_F64;
	return type;
}

static struct cell output_cell(enum cell_type type, const json_t *v,
			       char **text)
{
	struct cell x = { .type = type,
			  .f64 = json_number_value(v),
			  .i64 =
			      json_is_integer(v) ? json_integer_value(v) : 0 };

	if (type != CELL_STRING)
		return x;
	*text = json_is_string(v) ? xstrdup(json_string_value(v))
				  : json_text(v, false);
	x.str = *text;
	x.len = strlen(*text);
	return x;
}

static void recode_decide(struct recode *k, const struct map *m)
{
	json_t *values = json_array();

	for (size_t i = 0; i < k->seen.n; i++)
		json_array_append_new(values, recoded(m, &k->seen.v[i]));
	k->type = common_type(values, k->missing);
	k->out = xcalloc(k->seen.n + 1, sizeof(*k->out));
	k->text = xcalloc(k->seen.n + 1, sizeof(*k->text));
	for (size_t i = 0; i < k->seen.n; i++)
		k->out[i] = output_cell(k->type, json_array_get(values, i),
					&k->text[i]);
	json_decref(values);
}

static struct cell recode_cell(struct recode *k, const struct cell *x)
{
	ssize_t i = empty(x) ? -1 : labels_find(&k->seen, x);

	if (i >= 0) {
		k->seen.last = (size_t)i;
		return k->out[i];
	}
	return (struct cell){ .type = k->type, .f64 = NAN, .str = "" };
}

static void recode_free(struct recode *k)
{
	for (size_t i = 0; k->text && i < k->seen.n; i++)
		free(k->text[i]);
	labels_free(&k->seen);
	free(k->text);
	free(k->out);
}

/* {"0": 0.1, "1": 0.9} under the names of the other labels; FATE writes it
 * with single quotes.  Other text stays: caller frees, or NULL. */
static char *recode_detail(const struct map *m, const struct cell *x)
{
	_cleanup_free_ char *text = xasprintf("%.*s", (int)x->len, x->str);
	json_t *o, *out, *score;
	const char *name;
	char *ret;

	if (!strchr(text, '"'))
		for (char *p = text; *p; p++)
			*p = *p == '\'' ? '"' : *p;
	o = json_parse(text, strlen(text), NULL);
	if (!json_is_object(o)) {
		json_decref(o);
		return NULL;
	}
	out = json_object();
	json_object_foreach (o, name, score) {
		struct label l = { .text = (char *)name };
		json_t *v = recoded(m, &l);
		_cleanup_free_ char *number =
		    json_is_string(v) ? NULL : json_text(v, false);

		json_object_set(out, number ? number : json_string_value(v),
				score);
		json_decref(v);
	}
	ret = json_text(out, false);
	json_decref(out);
	json_decref(o);
	return ret;
}

/* ---- output
 * -------------------------------------------------------------------- */

static int put_row(struct transform *d, struct table_build *b, const char *key,
		   size_t len, struct cell *out, struct err *e)
{
	_cleanup_free_ char *detail = NULL;

	for (size_t i = 0; i < d->n; i++)
		out[d->columns[i].at] =
		    recode_cell(&d->columns[i], &out[d->columns[i].at]);
	if (d->detail >= 0 && out[d->detail].type == CELL_STRING &&
	    out[d->detail].len)
		detail = recode_detail(&d->map, &out[d->detail]);
	if (detail) {
		out[d->detail].str = detail;
		out[d->detail].len = strlen(detail);
	}
	return table_build_add(b, key, len, out, e);
}

static int put_rows(struct transform *d, struct table_build *b, struct err *e)
{
	size_t columns = table_schema(d->t)->n_columns, len;
	_cleanup_free_ struct cell *out = xcalloc(columns + 1, sizeof(*out));
	const struct cell *cells;
	struct table_iter *it;
	const char *key;
	uint64_t done = 0;
	int r = table_scan(d->t, NULL, 0, &it, e);

	if (r < 0)
		return r;
	while ((r = table_next(it, &key, &len, &cells, e)) > 0) {
		memcpy(out, cells, columns * sizeof(*out));
		r = put_row(d, b, key, len, out, e);
		if (r < 0)
			break;
		if (++done % 4096 == 0)
			ctx_progress(d->c,
				     (double)done / (double)table_rows(d->t));
	}
	table_scan_end(it);
	return r;
}

static int put_table(struct transform *d, struct err *e)
{
	struct table_schema *s = schema_dup(table_schema(d->t));
	struct table_build *b = NULL;
	int r;

	for (size_t i = 0; i < d->n; i++) {
		recode_decide(&d->columns[i], &d->map);
		s->columns[d->columns[i].at].type = d->columns[i].type;
	}
	r = table_build_begin(ctx_store(d->c), s, &b, e);
	schema_free(s);
	if (r < 0)
		return r;
	r = put_rows(d, b, e);
	if (r >= 0)
		return ctx_put_table(d->c, 0, b, e);
	table_build_abort(b);
	return r;
}

static int publish(struct transform *d, struct err *e)
{
	json_t *types = json_object(), *o, *v;
	const char *key;
	int r;

	json_object_foreach (d->encoder, key, v)
		json_object_set_new(types, key, json_string(type_name(v)));
	o = json_pack("{s:O, s:O, s:o}", "label_encoder", d->encoder,
		      "encoder_key_type", d->key_type, "encoder_value_type",
		      types);
	r = ctx_put_summary(d->c, o, e);
	if (r >= 0 && d->input_model) /* handed on unchanged */
		r = ctx_put_model(d->c, json_object_get(d->input_model, "meta"),
				  json_object_get(d->input_model, "param"), e);
	else if (r >= 0)
		r = ctx_put_model(d->c, d->params, o, e);
	json_decref(o);
	return r;
}

/* ---- the component
 * -------------------------------------------------------------- */

static int find_columns(struct transform *d, struct err *e)
{
	static const char *const names[] = { "label", "predict_result" };
	const struct table_schema *s = table_schema(d->t);
	ssize_t at;

	d->detail = d->revert ? schema_find(s, "predict_detail") : -1;
	if (!d->revert) {
		at = s->label ? schema_find(s, s->label) : -1;
		if (at >= 0)
			d->columns[d->n++].at = (size_t)at;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		at = schema_find(s, names[i]);
		if (at < 0)
			return err_set(e, EINVAL,
				       "the table of predictions has no column "
				       "%s",
				       names[i]);
		d->columns[d->n++].at = (size_t)at;
	}
	return 0;
}

static int find_encoder(struct transform *d, struct err *e)
{
	const json_t *param = json_object_get(d->input_model, "param");
	const json_t *given = json_object_get(d->params, "label_encoder");

	if (d->input_model) {
		const json_t *all = json_object_get(param, "label_encoder");

		if (!json_is_object(all))
			return err_set(e, EINVAL, "model: no label_encoder");
		json_object_update(d->encoder, (json_t *)all);
		all = json_object_get(param, "encoder_key_type");
		if (json_is_object(all))
			json_object_update(d->key_type, (json_t *)all);
		return 0;
	}
	if (json_is_object(given)) {
		encoder_given(d, given);
		return 0;
	}
	if (d->revert)
		return err_set(e, EINVAL,
			       "predictions get their first labels back: that "
			       "needs the model of the LabelTransform before "
			       "(input.model), or a label_encoder");
	encoder_of_labels(d, &d->columns[0].seen);
	return 0;
}

static int transform(struct transform *d, struct err *e)
{
	const char *content = table_schema(d->t)->content_type;
	int r;

	d->revert = content && !strcmp(content, "predict_result");
	r = find_columns(d, e);
	if (r >= 0 && d->n == 0) {
		ctx_event(d->c, "the rows are handed on: they have no label");
		r = ctx_put_same(d->c, 0, d->t, e);
		return r < 0 ? r : publish(d, e);
	}
	if (r >= 0)
		r = see_rows(d, e);
	if (r >= 0)
		r = find_encoder(d, e);
	if (r >= 0)
		r = make_map(d, e);
	if (r >= 0)
		r = put_table(d, e);
	return r < 0 ? r : publish(d, e);
}

static int run(struct ctx *c, struct err *e)
{
	struct transform d = { .c = c, .params = ctx_params(c), .detail = -1 };
	int r;

	/* Predictions are the guest's: a host has none. */
	if (ctx_inputs(c, "data") == 0)
		return 0;
	if (ctx_inputs(c, "data") != 1)
		return err_set(e, EINVAL, "one input table is needed");
	d.t = ctx_input(c, "data", 0);
	d.input_model = ctx_input_model(c, "model");
	d.encoder = json_object();
	d.key_type = json_object();
	r = transform(&d, e);
	if (r < 0)
		ctx_fail_code(c, "bad_data",
			      "that party's labels could not be transformed");
	json_decref(d.encoder);
	json_decref(d.key_type);
	json_decref(d.map.to);
	labels_free(&d.map.from);
	for (size_t i = 0; i < ARRAY_SIZE(d.columns); i++)
		recode_free(&d.columns[i]);
	return r;
}

static void check(const json_t *p, const json_t *roles, const char *role,
		  void (*defect)(void *arg, const char *pointer,
				 const char *text),
		  void *arg)
{
	const json_t *encoder = json_object_get(p, "label_encoder"), *x;
	const json_t *list = json_object_get(p, "label_list");
	const char *name;
	json_t *v;
	char at[40];
	size_t i;

	(void)roles;
	(void)role;
	if (encoder && !json_is_null(encoder) && !json_is_object(encoder))
		defect(arg, "label_encoder",
		       "expected an object of label to new label ({\"yes\": 1, "
		       "\"no\": 0}), or null");
	json_object_foreach ((json_t *)encoder, name, v)
		if (!json_is_number(v) && !json_is_string(v)) {
			_cleanup_free_ char *where =
			    xasprintf("label_encoder/%s", name);

			defect(arg, where, "a label is a number or a word");
		}
	if (json_object_size(encoder) > LABELS_MAX)
		defect(arg, "label_encoder", "more than 1000 labels");
	json_array_foreach (list, i, x)
		if (!json_is_number(x) && !json_is_string(x)) {
			(void)snprintf(at, sizeof(at), "label_list/%zu", i);
			defect(arg, at, "a label is a number or a word");
		}
	if (json_is_object(encoder) && json_is_array(list) &&
	    json_array_size(list) != json_object_size(encoder))
		defect(arg, "label_list",
		       "must have as many labels as label_encoder, or be null");
}

static const struct param params[] = {
	{ "label_encoder", PARAM_ANY, NULL, .flags = PARAM_NULLABLE,
	  .help = "object of label to new label; null: the sorted labels "
		  "become 0, 1, ..." },
	{ "label_list", PARAM_LIST, NULL, .flags = PARAM_NULLABLE,
	  .help = "the labels of label_encoder again, with their types" },
	{ "need_run", PARAM_BOOL, "true",
	  .help = "false: the rows are handed on as they are" },
	{ 0 },
};

static const char *const data_inputs[] = { "data", NULL };
static const char *const model_inputs[] = { "model", NULL };

extern const struct component component_label_transform;
const struct component component_label_transform = {
	.module = "LabelTransform",
	.roles = ROLE_GUEST | ROLE_HOST,
	.data_inputs = data_inputs,
	.model_inputs = model_inputs,
	.data_outputs = 1,
	.model_outputs = 1,
	.params = params,
	.help = "replaces labels, and gives predictions the first ones back",
	.check = check,
	.run = run,
};
