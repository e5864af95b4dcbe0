// SPDX-License-Identifier: Apache-2.0
/* What a cell is: a value, missing, an outlier; and what replaces it. */
#include <math.h>
#include <strings.h>

#include "components/data_transform.h"
#include "lib/json.h"

#define TINY 1e-8 /* no less is a value in sparse output */

enum found { IS_VALUE, IS_MISSING, IS_OUTLIER, IS_BAD };

enum kind kind_of(const char *s)
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

const char *kind_name(enum kind k)
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

/* ---- lists and fills --------------------------------------------------- */

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

void fill_free(struct fill *f)
{
	free(f->marks.text);
	free(f->marks.num);
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

void fill_read(struct fill *f, const json_t *o, const char *on,
	       const char *method, const char *list)
{
	f->on = json_bool_or(o, on, false);
	f->method = method_of(json_str_or(o, method, NULL));
	marks_read(&f->marks, json_object_get(o, list));
}

/* What a designated fill has for column i; *ret NULL = nothing. */
static int designated(const struct transform *d, const char *key, size_t i,
		      const json_t **ret, struct err *e)
{
	const json_t *v = json_object_get(d->params, key);

	if (json_is_array(v)) {
		if (json_array_size(v) != d->n)
			return err_set(e, EINVAL,
				       "%s: %zu values for %zu columns", key,
				       json_array_size(v), d->n);
		v = json_array_get(v, i);
	}
	*ret = json_is_null(v) ? NULL : v;
	return 0;
}

static int designated_number(const struct transform *d, const char *key,
			     size_t i, double *ret, struct err *e)
{
	const json_t *v;
	int r = designated(d, key, i, &v, e);

	*ret = json_is_number(v) ? json_number_value(v) : 0;
	if (r || !v || json_is_number(v))
		return r;
	if (json_is_string(v) &&
	    num_parse(json_string_value(v), json_string_length(v), ret) &&
	    isfinite(*ret))
		return 0;
	return err_set(e, EINVAL, "%s: column %s needs a number", key,
		       d->columns[i].name);
}

static int designated_text(const struct transform *d, const char *key, size_t i,
			   char **ret, struct err *e)
{
	char number[NUM_MAX];
	const json_t *v;
	int r = designated(d, key, i, &v, e);

	if (r || !v)
		return r;
	free(*ret);
	if (!json_is_string(v))
		(void)num_format(number, json_number_value(v));
	*ret = xstrdup(json_is_string(v) ? json_string_value(v) : number);
	return 0;
}

bool fill_measured(const struct fill *f)
{
	return f->on && (f->method == FILL_MIN || f->method == FILL_MAX ||
			 f->method == FILL_MEAN);
}

static int fill_value(const struct transform *d, const struct fill *f,
		      const char *key, size_t i, double *ret, char **ret_text,
		      struct err *e)
{
	const struct column *k = &d->columns[i];
	bool text = k->kind == KIND_TEXT;

	*ret = 0;
	if (!f->on || (text && f->method != FILL_DESIGNATED))
		return 0;
	if (text)
		return designated_text(d, key, i, ret_text, e);
	if (f->method == FILL_DESIGNATED)
		return designated_number(d, key, i, ret, e);
	if (!fill_measured(f))
		return 0;
	if (k->values == 0)
		return err_set(e, EINVAL,
			       "column %s has no value to fill others with",
			       k->name);
	*ret = f->method == FILL_MIN   ? k->min
	       : f->method == FILL_MAX ? k->max
				       : k->sum / (double)k->values;
	if (isfinite(*ret))
		return 0;
	return err_set(e, ERANGE, "column %s: the mean is beyond all numbers",
		       k->name);
}

int fill_values(struct transform *d, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < d->n && r >= 0; i++) {
		struct column *k = &d->columns[i];

		r = fill_value(d, &d->missing, "default_value", i,
			       &k->missing_fill, &k->missing_text, e);
		if (r >= 0)
			r = fill_value(d, &d->outlier, "outlier_replace_value",
				       i, &k->outlier_fill, &k->outlier_text,
				       e);
	}
	return r;
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

void measure(const struct transform *d, struct column *k, const struct cell *x)
{
	double v;

	if (k->kind == KIND_TEXT || look(d, k, x, &v) != IS_VALUE)
		return;
	k->values++;
	k->sum += v;
	k->min = fmin(k->min, v);
	k->max = fmax(k->max, v);
}

/* Text has no bad cells; what is missing stays as it is, or is replaced. */
static void convert_text(const struct transform *d, struct column *k,
			 const struct cell *x, struct cell *ret)
{
	const char *fill = NULL;
	double v;

	switch (look(d, k, x, &v)) {
	case IS_MISSING:
		k->missing++;
		fill = d->missing.on ? k->missing_text : NULL;
		break;
	case IS_OUTLIER:
		k->outliers++;
		fill = k->outlier_text;
		break;
	default:
		break;
	}
	*ret = *x;
	if (fill) {
		ret->str = fill;
		ret->len = strlen(fill);
	}
}

void convert(const struct transform *d, struct column *k, const struct cell *x,
	     struct cell *ret)
{
	double v = NAN;

	if (k->kind == KIND_TEXT && x->type == CELL_STRING) {
		convert_text(d, k, x, ret);
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
	if (d->sparse && fabs(v) < TINY)
		v = 0;
	ret->f64 = k->kind == KIND_FLOAT32 ? (double)(float)v : v;
}

void convert_absent(const struct transform *d, struct column *k,
		    struct cell *ret)
{
	static const struct cell none = { .type = CELL_F64, .f64 = NAN };

	/* As in FATE: only a tag that has a value can lack it. */
	if (d->missing.on && d->source.row.format == FORMAT_TAG &&
	    d->source.row.inner)
		convert(d, k, &none, ret);
	else
		*ret = (struct cell){ .type = CELL_F64, .f64 = 0 };
}

bool convert_label(const struct transform *d, struct cell *ret)
{
	const struct cell *x = &d->label.raw;
	double v;

	if (d->label.kind == KIND_TEXT) {
		*ret = *x;
		return x->type == CELL_STRING && x->len > 0;
	}
	if (!number(x, &v))
		return false;
	ret->f64 = d->label.kind == KIND_FLOAT32 ? (double)(float)v : v;
	ret->type = d->label.kind == KIND_INT ? CELL_I64 : CELL_F64;
	if (d->label.kind != KIND_INT)
		return true;
	if (v != nearbyint(v) || fabs(v) > 9007199254740992.0)
		return false;
	ret->i64 = (int64_t)v;
	return true;
}
