// SPDX-License-Identifier: Apache-2.0
#include "components/labels.h"

#include <math.h>

#include "lib/json.h"

void labels_free(struct labels *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i].text);
	free(l->v);
	*l = (struct labels){ 0 };
}

static double number(const struct cell *x)
{
	return x->type == CELL_I64 ? (double)x->i64 : x->f64;
}

static bool is_number(const char *s, size_t n, double want)
{
	double v = 0;

	return num_parse(s, n, &v) && v == want;
}

static bool same(const struct label *a, const struct cell *x)
{
	if (a->text && x->type != CELL_STRING)
		return is_number(a->text, strlen(a->text), number(x));
	if (x->type != CELL_STRING)
		return a->num == number(x);
	if (!a->text)
		return is_number(x->str, x->len, a->num);
	return strlen(a->text) == x->len &&
	       memcmp(a->text, x->str, x->len) == 0;
}

ssize_t labels_find(const struct labels *l, const struct cell *x)
{
	/* Most rows have the label of another one close by. */
	if (l->last < l->n && same(&l->v[l->last], x))
		return (ssize_t)l->last;
	for (size_t i = 0; i < l->n; i++)
		if (same(&l->v[i], x))
			return (ssize_t)i;
	return -1;
}

ssize_t labels_find_json(const struct labels *l, const json_t *v)
{
	struct cell x = { .type = CELL_F64, .f64 = json_number_value(v) };

	if (json_is_string(v)) {
		x.type = CELL_STRING;
		x.str = json_string_value(v);
		x.len = json_string_length(v);
	} else if (!json_is_number(v)) {
		return -1;
	}
	return labels_find(l, &x);
}

int labels_add(struct labels *l, const struct cell *x, uint32_t *ret,
	       struct err *e)
{
	ssize_t at = labels_find(l, x);

	if (x->type == CELL_STRING ? x->len == 0 : !isfinite(number(x)))
		return err_set(e, EINVAL, "a row has no label");
	if (at < 0 && l->n == LABELS_MAX)
		return err_set(e, EINVAL, "more than %d different labels",
			       LABELS_MAX);
	if (at < 0) {
		l->v = xrealloc(l->v, (l->n + 1) * sizeof(*l->v));
		at = (ssize_t)l->n++;
		l->v[at] = (struct label){ .num = number(x) };
		if (x->type == CELL_STRING)
			l->v[at].text = xasprintf("%.*s", (int)x->len, x->str);
	}
	l->last = (size_t)at;
	l->v[at].count++;
	if (ret)
		*ret = (uint32_t)at;
	return 0;
}

struct place {
	struct label label;
	uint32_t old;
};

static int compare(const void *a, const void *b)
{
	const struct label *x = &((const struct place *)a)->label;
	const struct label *y = &((const struct place *)b)->label;

	if (!x->text != !y->text)
		return x->text ? 1 : -1;
	return x->text ? strcmp(x->text, y->text)
		       : (x->num > y->num) - (x->num < y->num);
}

void labels_sort(struct labels *l, uint32_t *ret_new)
{
	_cleanup_free_ struct place *p = xcalloc(l->n + 1, sizeof(*p));

	for (size_t i = 0; i < l->n; i++)
		p[i] = (struct place){ l->v[i], (uint32_t)i };
	qsort(p, l->n, sizeof(*p), compare);
	for (size_t i = 0; i < l->n; i++) {
		l->v[i] = p[i].label;
		if (ret_new)
			ret_new[p[i].old] = (uint32_t)i;
	}
	l->last = 0;
}

char *label_name(const struct label *x)
{
	char text[NUM_MAX];

	if (x->text)
		return xstrdup(x->text);
	(void)num_format(text, x->num);
	return xstrdup(text);
}

json_t *label_json(const struct label *x)
{
	if (x->text)
		return json_string(x->text);
	if (x->num == nearbyint(x->num) && fabs(x->num) < 9007199254740992.0)
		return json_integer((json_int_t)x->num);
	return json_real(x->num);
}

json_t *labels_counts(const struct labels *l)
{
	json_t *o = json_object();

	for (size_t i = 0; i < l->n; i++) {
		_cleanup_free_ char *name = label_name(&l->v[i]);

		json_object_set_new(o, name,
				    json_integer((json_int_t)l->v[i].count));
	}
	return o;
}
