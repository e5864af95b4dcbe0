// SPDX-License-Identifier: Apache-2.0
/*
 * Union: the rows of several tables with the same columns.
 * docs/components/union.md.
 */
#include "components/component.h"
#include "lib/json.h"

#define INPUTS_MAX 100

/* One input: its rows come in the order of their ids. */
struct source {
	struct table *t;
	char *name; /* "data_split_0", or "data_split_0.1" when it has two */
	struct table_iter *it;
	const char *key; /* NULL = at its end */
	size_t len;
	const struct cell *cells;
};

struct merge {
	struct ctx *c;
	struct source *s;
	size_t n;
	const struct table_schema *schema; /* of the first that has rows */
	bool keep_duplicate;
	struct table_build *b;
	uint64_t total, rows, duplicates;
};

/* ---- inputs -----------------------------------------------------------------
 */

static void add_source(struct merge *m, size_t i)
{
	const char *name = ctx_input_source(m->c, "data", i);
	size_t same = 0;

	for (size_t k = 0; k < i; k++)
		same += !strcmp(ctx_input_source(m->c, "data", k), name);
	m->s[m->n++] = (struct source){
		.t = ctx_input(m->c, "data", i),
		.name = same ? xasprintf("%s.%zu", name, same) : xstrdup(name),
	};
}

static bool differ(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "") != 0;
}

static int compare_columns(const struct merge *m, const struct source *s,
			   struct err *e)
{
	const struct table_schema *a = m->schema, *b = table_schema(s->t);

	for (size_t i = 0; i < MAX(a->n_columns, b->n_columns); i++) {
		const char *x = i < a->n_columns ? a->columns[i].name : NULL;
		const char *y = i < b->n_columns ? b->columns[i].name : NULL;

		if (!x || !y || strcmp(x, y) != 0)
			return err_set(e, EINVAL,
				       "%s: column %zu is %s, but %s in the "
				       "tables before: all need the same "
				       "columns in the same order",
				       s->name, i + 1, y ? y : "missing",
				       x ? x : "missing");
		if (a->columns[i].type != b->columns[i].type)
			return err_set(e, EINVAL,
				       "%s: column %s is of another type than "
				       "in the tables before",
				       s->name, y);
	}
	return 0;
}

static int compare_schemas(const struct merge *m, const struct source *s,
			   struct err *e)
{
	const struct table_schema *a = m->schema, *b = table_schema(s->t);

	if (differ(a->id, b->id))
		return err_set(e, EINVAL,
			       "%s: the ids are called %s, but %s in the "
			       "tables before",
			       s->name, b->id, a->id);
	if (differ(a->label, b->label))
		return err_set(e, EINVAL,
			       "%s: the label is %s, but %s in the tables "
			       "before",
			       s->name, b->label ? b->label : "missing",
			       a->label ? a->label : "missing");
	if (differ(a->weight, b->weight) || differ(a->match_id, b->match_id))
		return err_set(e, EINVAL,
			       "%s: weights or match ids are there only in "
			       "some of the tables",
			       s->name);
	if (differ(a->content_type, b->content_type))
		return err_set(e, EINVAL,
			       "%s holds something else (%s) than the tables "
			       "before (%s)",
			       s->name,
			       b->content_type ? b->content_type : "raw rows",
			       a->content_type ? a->content_type : "raw rows");
	return compare_columns(m, s, e);
}

static int open_sources(struct merge *m, struct err *e)
{
	int r;

	for (size_t i = 0; i < m->n; i++) {
		struct source *s = &m->s[i];

		if (table_rows(s->t) == 0) {
			ctx_event(m->c, "%s has no rows", s->name);
			continue;
		}
		if (!m->schema)
			m->schema = table_schema(s->t);
		r = compare_schemas(m, s, e);
		if (r >= 0)
			r = table_scan(s->t, NULL, 0, &s->it, e);
		if (r < 0)
			return r;
		m->total += table_rows(s->t);
	}
	if (!m->schema) /* all are empty, and so is the output */
		m->schema = table_schema(m->s[0].t);
	return 0;
}

/* ---- merging ----------------------------------------------------------------
 */

static int advance(struct source *s, struct err *e)
{
	int r;

	if (!s->it)
		return 0;
	r = table_next(s->it, &s->key, &s->len, &s->cells, e);
	if (r < 0)
		return r;
	if (r == 0) {
		table_scan_end(s->it);
		s->it = NULL;
		s->key = NULL;
	}
	return 0;
}

static int compare_keys(const struct source *a, const struct source *b)
{
	return key_compare(a->key, a->len, b->key, b->len);
}

/* The first input with the smallest id. */
static struct source *smallest(struct merge *m)
{
	struct source *best = NULL;

	for (size_t i = 0; i < m->n; i++)
		if (m->s[i].key && (!best || compare_keys(&m->s[i], best) < 0))
			best = &m->s[i];
	return best;
}

static int add_duplicate(struct merge *m, const struct source *s, struct err *e)
{
	_cleanup_free_ char *key = NULL;

	m->duplicates++;
	if (!m->keep_duplicate)
		return 0;
	key = xasprintf("%.*s_%s", (int)s->len, s->key, s->name);
	if (strlen(key) > TABLE_KEY_MAX)
		return err_set(e, EINVAL,
			       "%s: an id that is there twice is too long for "
			       "another name",
			       s->name);
	m->rows++;
	return table_build_add(m->b, key, strlen(key), s->cells, e);
}

/* All rows with one id: the first input's stays as it is. */
static int take_id(struct merge *m, struct source *first, struct err *e)
{
	int r = table_build_add(m->b, first->key, first->len, first->cells, e);

	m->rows++;
	for (struct source *s = first + 1; s < m->s + m->n && r >= 0; s++) {
		if (!s->key || compare_keys(s, first) != 0)
			continue;
		r = add_duplicate(m, s, e);
		if (r >= 0)
			r = advance(s, e);
	}
	return r < 0 ? r : advance(first, e);
}

static int merge_rows(struct merge *m, struct err *e)
{
	struct source *s;
	uint64_t ids = 0;
	int r = 0;

	for (size_t i = 0; i < m->n && r >= 0; i++)
		r = advance(&m->s[i], e);
	while (r >= 0 && (s = smallest(m))) {
		r = take_id(m, s, e);
		if (++ids % 4096 == 0)
			ctx_progress(m->c, (double)(m->rows + m->duplicates) /
					       (double)(m->total + 1));
	}
	return r;
}

/* ---- the component
 * ----------------------------------------------------------- */

static int put_summary(struct merge *m, struct err *e)
{
	json_t *o = json_object();
	int r;

	for (size_t i = 0; i < m->n; i++)
		json_object_set_new(
		    o, m->s[i].name,
		    json_integer((json_int_t)table_rows(m->s[i].t)));
	o = json_pack("{s:o, s:I, s:I}", "inputs", o, "count",
		      (json_int_t)m->rows, "duplicates",
		      (json_int_t)m->duplicates);
	r = ctx_put_summary(m->c, o, e);
	json_decref(o);
	return r;
}

static int unite(struct merge *m, struct err *e)
{
	int r = open_sources(m, e);

	if (r >= 0)
		r = table_build_begin(ctx_store(m->c), m->schema, &m->b, e);
	if (r < 0) {
		ctx_fail_code(m->c, "bad_data",
			      "that party's tables could not be united");
		return r;
	}
	r = merge_rows(m, e);
	if (r < 0) {
		table_build_abort(m->b);
		return r;
	}
	r = ctx_put_table(m->c, 0, m->b, e);
	return r < 0 ? r : put_summary(m, e);
}

static int run(struct ctx *c, struct err *e)
{
	struct merge m = { .c = c,
			   .keep_duplicate = json_bool_or(
			       ctx_params(c), "keep_duplicate", false) };
	size_t n = ctx_inputs(c, "data");
	int r;

	/* Predictions, say, are the guest's: a host has none to unite. */
	if (n == 0)
		return 0;
	if (n < 2)
		return err_set(e, EINVAL,
			       "at least two input tables are needed: list "
			       "them all in input.data");
	if (n > INPUTS_MAX)
		return err_set(e, EINVAL, "more than %d input tables",
			       INPUTS_MAX);
	m.s = xcalloc(n, sizeof(*m.s));
	for (size_t i = 0; i < n; i++)
		add_source(&m, i);
	r = unite(&m, e);
	for (size_t i = 0; i < n; i++) {
		if (m.s[i].it)
			table_scan_end(m.s[i].it);
		free(m.s[i].name);
	}
	free(m.s);
	return r;
}

static const struct param params[] = {
	{ "allow_missing", PARAM_BOOL, "false", .flags = PARAM_IGNORED,
	  .help = "every row of a table has all its columns" },
	{ "keep_duplicate", PARAM_BOOL, "false",
	  .help = "keep rows whose id was there before under the id "
		  "<id>_<component>" },
	{ "need_run", PARAM_BOOL, "true",
	  .help = "false: the rows of the first table are handed on" },
	{ 0 },
};

static const char *const data_inputs[] = { "data", NULL };

extern const struct component component_union;
const struct component component_union = {
	.module = "Union",
	.roles = ROLE_GUEST | ROLE_HOST,
	.data_inputs = data_inputs,
	.data_outputs = 1,
	.params = params,
	.help =
	    "puts the rows of several tables with the same columns into one",
	.run = run,
};
