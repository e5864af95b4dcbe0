// SPDX-License-Identifier: Apache-2.0
/* What is kept of a transformation: the model and the summary. */
#include "components/data_transform.h"
#include "lib/json.h"

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

/* Text that is not replaced has none. */
static void add_fill(json_t *o, const char *key, const struct column *k,
		     double v, const char *text)
{
	if (k->kind != KIND_TEXT)
		json_object_set_new(o, key, json_real(v));
	else if (text)
		json_object_set_new(o, key, json_string(text));
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
			add_fill(o, "missing_value", k, k->missing_fill,
				 k->missing_text);
		if (d->outlier.on)
			add_fill(o, "outlier_value", k, k->outlier_fill,
				 k->outlier_text);
		json_object_set_new(o, "missing_rate",
				    json_real((double)k->missing / rows));
		json_object_set_new(o, "outlier_rate",
				    json_real((double)k->outliers / rows));
		json_array_append_new(a, o);
	}
	return a;
}

static json_t *label_json(const struct transform *d)
{
	return d->label.name
		   ? json_pack("{s:s, s:s}", "label_name", d->label.name,
			       "label_type", kind_name(d->label.kind))
		   : json_null();
}

static json_t *match_json(const struct transform *d)
{
	return d->match.name ? json_pack("{s:s}", "name", d->match.name)
			     : json_null();
}

int model_put(struct transform *d, struct err *e)
{
	static const char *const formats[] = { "dense", "sparse", "tag" };
	json_t *o;
	int r;

	if (d->model) /* handed on unchanged */
		return ctx_put_model(
		    d->c, json_object_get(d->input_model, "meta"), d->model, e);
	o = json_pack(
	    "{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:I}", "role",
	    ctx_role(d->c), "input_format", formats[d->source.row.format],
	    "output_format", d->sparse ? "sparse" : "dense", "header",
	    header_json(d), "missing", fill_json(&d->missing), "outlier",
	    fill_json(&d->outlier), "label", label_json(d), "match_id",
	    match_json(d), "rows", (json_int_t)table_rows(d->t));
	r = ctx_put_model(d->c, d->params, o, e);
	json_decref(o);
	return r;
}

int summary_put(struct transform *d, struct err *e)
{
	json_t *o, *rates = json_object();
	double rows = (double)table_rows(d->t);
	int r;

	for (size_t i = 0; i < d->n; i++) {
		const struct column *k = &d->columns[i];

		if (k->missing || k->outliers)
			json_object_set_new(
			    rates, k->name,
			    json_real((double)(k->missing + k->outliers) /
				      rows));
	}
	o = json_pack("{s:I, s:I, s:s?, s:s?, s:o}", "count",
		      (json_int_t)table_rows(d->t), "features",
		      (json_int_t)d->n, "label", d->label.name, "match_id",
		      d->match.name, "missing_rates", rates);
	r = ctx_put_summary(d->c, o, e);
	json_decref(o);
	return r;
}
