// SPDX-License-Identifier: Apache-2.0
/*
 * DataTransform: the text of an uploaded table becomes typed columns: match
 * id, label, features.  docs/components/data_transform.md; the parts are
 * listed in data_transform.h.
 */
#include <strings.h>

#include "components/data_transform.h"
#include "lib/json.h"

/* ---- parameters ------------------------------------------------------- */

/* What an upload said of its rows counts more than the parameters; new rows
 * for a model only bring their format. */
static void apply_meta(struct transform *d)
{
	static const struct {
		const char *meta, *param;
		bool format;
	} names[] = {
		{ "input_format", "input_format", true },
		{ "delimiter", "delimitor", true },
		{ "tag_with_value", "tag_with_value", true },
		{ "tag_value_delimiter", "tag_value_delimitor", true },
		{ "with_match_id", "with_match_id", true },
		{ "id_list", "id_list", true },
		{ "id_range", "id_range", true },
		{ "with_label", "with_label", true },
		{ "label_name", "label_name", false },
		{ "label_type", "label_type", false },
		{ "data_type", "data_type", false },
		{ "exclusive_data_type", "exclusive_data_type", false },
	};
	const json_t *meta = json_object_get(table_schema(d->t)->extra, "meta");

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		json_t *v = json_object_get(meta, names[i].meta);

		if (v && (names[i].format || !d->model))
			json_object_set(d->params, names[i].param, v);
	}
}

static int read_params(struct transform *d, struct err *e)
{
	const json_t *m = d->model, *from = ctx_params(d->c);
	const char *maker = json_str_or(d->input_model, "module", "");

	if (d->input_model) {
		if (strcmp(maker, "DataTransform") != 0 &&
		    strcmp(maker, "DataIO") != 0 && *maker)
			return err_set(e, EINVAL,
				       "model: it was made by %s and not by "
				       "DataTransform",
				       maker);
		if (!json_is_object(m))
			return err_set(e, EINVAL, "model: no param");
		from = json_object_get(d->input_model, "meta");
	}
	d->params = json_is_object(from) ? json_deep_copy(from) : json_object();
	apply_meta(d);
	d->sparse = !strcasecmp(
	    json_str_or(m ? m : d->params, "output_format", "dense"), "sparse");
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
	return 0;
}

/* ---- passes over the rows --------------------------------------------- */

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
	while ((r = table_next(it, &key, &len, &cells, e)) > 0) {
		bool ok = source_row(d, cells);

		for (size_t i = 0; ok && i < d->n; i++)
			if (d->there[i])
				measure(d, &d->columns[i], &d->raw[i]);
	}
	table_scan_end(it);
	d->source.bad = 0; /* counted when rows are converted */
	return r;
}

/* The row in raw as the output has it. */
static void convert_row(struct transform *d, struct cell *out)
{
	if (d->match.name) {
		*out = d->match.raw;
		d->match.bad += !out++->len;
	}
	if (d->label.name)
		d->label.bad += !convert_label(d, out++);
	if (d->weight.name)
		*out++ = d->weight.raw;
	for (size_t i = 0; i < d->n; i++)
		if (d->there[i])
			convert(d, &d->columns[i], &d->raw[i], out++);
		else
			convert_absent(d, &d->columns[i], out++);
}

static int convert_rows(struct transform *d, struct table_build *b,
			struct err *e)
{
	_cleanup_free_ struct cell *out = xcalloc(d->n + 3, sizeof(*out));
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
		if (source_row(d, cells))
			convert_row(d, out);
		/* After a bad row they are only counted. */
		if (!d->label.bad && !d->match.bad && !d->source.bad)
			r = table_build_add(b, key, len, out, e);
		if (r < 0)
			break;
		if (++done % 4096 == 0)
			ctx_progress(d->c, (double)done / (double)rows);
	}
	table_scan_end(it);
	return r;
}

static void report_rows(const struct transform *d, struct strbuf *sb)
{
	static const char *const what[] = {
		[FORMAT_DENSE] = "another number of fields than its name has",
		[FORMAT_SPARSE] = "fields that are not number:value, or with "
				  "a number twice",
		[FORMAT_TAG] = "fields that are not tag and value, or with a "
			       "tag twice",
	};
	const struct table_schema *s = table_schema(d->t);

	if (d->source.bad)
		sb_addf(sb, "; column %s: %llu rows with %s",
			s->columns[0].name, (unsigned long long)d->source.bad,
			what[d->source.row.format]);
	if (d->match.bad)
		sb_addf(sb, "; match id %s: %llu rows without one",
			d->match.name, (unsigned long long)d->match.bad);
	if (d->label.bad)
		sb_addf(sb, "; label %s: %llu rows without %s", d->label.name,
			(unsigned long long)d->label.bad,
			d->label.kind == KIND_INT
			    ? "a whole number (others: label_type float)"
			: d->label.kind == KIND_TEXT
			    ? "a value"
			    : "a number (words: label_type str)");
}

/* Columns and counts only: this sentence must not hold values. */
static int report_bad(const struct transform *d, struct err *e)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(16384);
	size_t bad = 0;

	report_rows(d, &sb);
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

/* ---- the component ----------------------------------------------------- */

static int prepare(struct transform *d, struct err *e)
{
	int r = read_params(d, e);

	if (!r)
		r = source_open(d, e);
	if (!r)
		r = d->model ? header_from_model(d, e) : header_fit(d, e);
	if (!r)
		r = source_ready(d, e);
	if (!r && !d->model &&
	    (fill_measured(&d->missing) || fill_measured(&d->outlier)))
		r = measure_rows(d, e);
	if (!r && !d->model)
		r = fill_values(d, e);
	return r;
}

static int transform(struct transform *d, struct err *e)
{
	struct table_schema *s;
	struct table_build *b;
	int r = prepare(d, e);

	if (r < 0)
		return r;
	s = header_schema(d);
	r = table_build_begin(ctx_store(d->c), s, &b, e);
	schema_free(s);
	if (r < 0)
		return r;
	r = convert_rows(d, b, e);
	if (r >= 0)
		r = report_bad(d, e);
	if (r >= 0)
		r = summary_put(d, e);
	if (r >= 0)
		r = model_put(d, e);
	if (r < 0) {
		table_build_abort(b);
		return r;
	}
	ctx_log(d->c, "%llu rows, %zu columns%s%s",
		(unsigned long long)table_rows(d->t), d->n,
		d->label.name ? ", label " : "",
		d->label.name ? d->label.name : "");
	return ctx_put_table(d->c, 0, b, e);
}

static void transform_free(struct transform *d)
{
	source_close(d);
	for (size_t i = 0; i < d->n; i++) {
		free(d->columns[i].name);
		free(d->columns[i].anonymous);
		free(d->columns[i].missing_text);
		free(d->columns[i].outlier_text);
	}
	free(d->columns);
	free(d->match.name);
	free(d->label.name);
	free(d->weight.name);
	json_decref(d->match_ids);
	fill_free(&d->missing);
	fill_free(&d->outlier);
	json_decref(d->params);
}

static int run(struct ctx *c, struct err *e)
{
	struct transform d = { .c = c };
	int r;

	if (ctx_inputs(c, "data") != 1)
		return err_set(e, EINVAL, "one input table is needed");
	d.t = ctx_input(c, "data", 0);
	d.input_model = ctx_input_model(c, "model");
	d.model = json_object_get(d.input_model, "param");
	if (table_rows(d.t) == 0)
		return err_set(e, EINVAL, "the input table has no rows");
	r = transform(&d, e);
	transform_free(&d);
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

/* One value or a list of them; words only where a column may be text. */
static bool fills(const json_t *v, bool words)
{
	const json_t *x;
	double d;
	size_t i;

	json_array_foreach (v, i, x)
		if (json_is_array(x) || !fills(x, words))
			return false;
	return json_is_array(v) || json_is_null(v) || json_is_number(v) ||
	       (json_is_string(v) &&
		(words ||
		 num_parse(json_string_value(v), json_string_length(v), &d)));
}

static bool text_columns(const json_t *p)
{
	const json_t *types = json_object_get(p, "exclusive_data_type");
	bool found =
	    kind_of(json_str_or(p, "data_type", "float64")) == KIND_TEXT;
	const char *name;
	json_t *v;

	json_object_foreach ((json_t *)types, name, v)
		found |= json_is_string(v) &&
			 kind_of(json_string_value(v)) == KIND_TEXT;
	return found;
}

static void check_delimiter(const json_t *p, const char *key,
			    void (*defect)(void *arg, const char *pointer,
					   const char *text),
			    void *arg)
{
	const char *s = json_str_or(p, key, ",");

	if (!*s || strlen(s) > 16)
		defect(arg, key, "expected 1 to 16 bytes of text");
}

static void check_types(const json_t *p, bool dense,
			void (*defect)(void *arg, const char *pointer,
				       const char *text),
			void *arg)
{
	const json_t *types = json_object_get(p, "exclusive_data_type");
	const char *name;
	json_t *v;

	if (!dense &&
	    kind_of(json_str_or(p, "data_type", "float64")) == KIND_TEXT)
		defect(arg, "data_type", "str is for dense input");
	if (types && !json_is_null(types) && !json_is_object(types))
		defect(arg, "exclusive_data_type",
		       "expected an object: column name to type");
	json_object_foreach ((json_t *)types, name, v) {
		enum kind kind = json_is_string(v)
				     ? kind_of(json_string_value(v))
				     : KIND_BAD;
		_cleanup_free_ char *at =
		    xasprintf("exclusive_data_type/%s", name);

		if (kind == KIND_BAD)
			defect(arg, at, "no such data type");
		else if (kind == KIND_TEXT && !dense)
			defect(arg, at, "str is for dense input");
	}
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
	bool dense =
	    !strcasecmp(json_str_or(p, "input_format", "dense"), "dense");

	(void)roles;
	(void)role;
	check_delimiter(p, "delimitor", defect, arg);
	check_delimiter(p, "tag_value_delimitor", defect, arg);
	if (json_bool_or(p, "tag_with_value", false) &&
	    !strcmp(json_str_or(p, "delimitor", ","),
		    json_str_or(p, "tag_value_delimitor", ":")))
		defect(arg, "tag_value_delimitor", "must not be the delimitor");
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		if (!list_of_words(json_object_get(p, lists[i])))
			defect(arg, lists[i],
			       "expected a list of words and numbers");
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		const json_t *v = json_object_get(p, values[i]);

		if (v && !fills(v, text_columns(p)))
			defect(arg, values[i],
			       "expected a number or a list of them");
	}
	check_types(p, dense, defect, arg);
}

#define METHODS "min|max|mean|designated"
#define TYPES	"float64|float|float32|double|int|int32|int64|long|str"

static const struct param params[] = {
	{ "input_format", PARAM_ENUM, "\"dense\"",
	  .choices = "dense|sparse|svmlight|tag",
	  .help = "rows of columns, of number:value, or of tags; svmlight is "
		  "sparse" },
	{ "delimitor", PARAM_STRING, "\",\"",
	  .help = "between the fields of a row that the upload did not cut" },
	{ "data_type", PARAM_ENUM, "\"float64\"", .choices = TYPES,
	  .help = "of the features; whole numbers are checked for int, "
		  "str stays text" },
	{ "exclusive_data_type", PARAM_ANY, "null",
	  .help = "object: type of single columns" },
	{ "tag_with_value", PARAM_BOOL, "false",
	  .help = "tag input: is it tag:value?" },
	{ "tag_value_delimitor", PARAM_STRING, "\":\"",
	  .help = "between a tag and its value" },
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
	  .help = "sparse: values below 1e-8 become 0" },
	{ "with_match_id", PARAM_BOOL, "false",
	  .help = "do rows have match ids?" },
	{ "match_id_name", PARAM_STRING, "\"\"", .flags = PARAM_NULLABLE,
	  .help = "dense input: the column; empty: the only one of the "
		  "upload's id_list, else the first column" },
	{ "match_id_index", PARAM_INT, "0", .min = 0, .max = 100,
	  .help = "other input: which of the upload's id_range" },
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
	.help = "turns the text of a table into a label, a match id and typed "
		"features",
	.check = check,
	.run = run,
};
