// SPDX-License-Identifier: Apache-2.0
/*
 * Where a row's cells come from.  An upload has cut dense rows into columns;
 * svmlight and tag rows, and dense ones with a delimiter of their own, are
 * text that is cut here.
 */
#include <strings.h>

#include "components/data_transform.h"
#include "lib/json.h"

#define MATCH_IDS_MAX TABLE_COLUMNS_MAX

static enum format format_of(const char *s)
{
	return !strcasecmp(s, "tag")	 ? FORMAT_TAG
	       : !strcasecmp(s, "dense") ? FORMAT_DENSE
					 : FORMAT_SPARSE;
}

static int read_format(struct transform *d, struct err *e)
{
	struct row_format *f = &d->source.row;
	const json_t *p = d->params;
	size_t ids = json_array_size(json_object_get(p, "id_list"));
	size_t range = (size_t)MAX(json_int_or(p, "id_range", 0), 1);

	f->format = format_of(json_str_or(p, "input_format", "dense"));
	f->delimiter = json_str_or(p, "delimitor", ",");
	f->inner = f->format == FORMAT_SPARSE ? ":"
		   : json_bool_or(p, "tag_with_value", false)
		       ? json_str_or(p, "tag_value_delimitor", ":")
		       : NULL;
	f->match_ids =
	    json_bool_or(p, "with_match_id", false) ? MAX(ids, range) : 0;
	f->label = json_bool_or(p, "with_label", false);
	/* Parameters are checked before; those of a model are not. */
	if (!*f->delimiter || (f->inner && !*f->inner))
		return err_set(e, EINVAL, "model: an empty delimiter");
	return f->match_ids > MATCH_IDS_MAX
		   ? err_set(e, EINVAL, "model: more than %d match ids",
			     MATCH_IDS_MAX)
		   : 0;
}

/* A dense row in one column that the upload's delimiter did not cut. */
static bool uncut(const struct transform *d)
{
	const struct table_schema *s = table_schema(d->t);
	const char *cut = json_str_or(s->extra, "delimiter", ",");
	const char *own = d->source.row.delimiter;

	return s->n_columns == 1 && s->columns[0].type == CELL_STRING &&
	       strcmp(cut, own) != 0 && strstr(s->columns[0].name, own);
}

static void name_fields(struct source *s, const char *text)
{
	struct row_scan r;
	struct span x;

	row_begin(&r, &s->row, text, strlen(text));
	while (row_cell(&r, &x)) {
		s->in = xrealloc(s->in, (s->n_in + 1) * sizeof(*s->in));
		s->in[s->n_in++] = xasprintf("%.*s", (int)x.n, x.s);
	}
}

static int name_columns(struct transform *d, struct err *e)
{
	const struct table_schema *t = table_schema(d->t);
	struct source *s = &d->source;

	if (s->text) {
		name_fields(s, t->columns[0].name);
		if (s->n_in > TABLE_COLUMNS_MAX)
			return err_set(e, EINVAL,
				       "a row has more than %d columns",
				       TABLE_COLUMNS_MAX);
	} else {
		s->in = xcalloc(t->n_columns + 1, sizeof(*s->in));
		for (; s->n_in < t->n_columns; s->n_in++)
			s->in[s->n_in] = xstrdup(t->columns[s->n_in].name);
	}
	s->fields = xcalloc(s->n_in + 1, sizeof(*s->fields));
	return 0;
}

/*
 * New rows need no label even if the training data had one.  Where a feature
 * has a delimiter inside and a label has not, the first row tells.
 */
static int look_for_label(struct transform *d, struct err *e)
{
	struct row_format *f = &d->source.row;
	const struct cell *cells;
	struct table_iter *it;
	struct row_scan r;
	struct span x;
	const char *key;
	size_t len;
	int n = table_scan(d->t, NULL, 0, &it, e);

	if (n < 0)
		return n;
	n = table_next(it, &key, &len, &cells, e);
	if (n > 0) {
		struct span s = source_text(d, cells);

		row_begin(&r, f, s.s, s.n);
		for (size_t i = 0; i < f->match_ids; i++)
			(void)row_prefix(&r, &x);
		if (!row_prefix(&r, &x) ||
		    memmem(x.s, x.n, f->inner, strlen(f->inner)))
			f->label = false;
	}
	table_scan_end(it);
	return MIN(n, 0);
}

int source_open(struct transform *d, struct err *e)
{
	const struct table_schema *s = table_schema(d->t);
	struct source *x = &d->source;
	const json_t *meta = json_object_get(s->extra, "meta");

	sb_init(&x->joined, 2u * TABLE_ROW_MAX);
	if (read_format(d, e))
		return -e->no;
	x->text = x->row.format != FORMAT_DENSE || uncut(d);
	for (size_t i = 0; x->text && i < s->n_columns; i++)
		if (s->columns[i].type != CELL_STRING)
			return err_set(e, EINVAL,
				       "input_format: the rows are no text, "
				       "column %s has numbers already",
				       s->columns[i].name);
	if (x->row.format == FORMAT_DENSE)
		return name_columns(d, e);
	return d->model && x->row.label && x->row.inner &&
		       !json_object_get(meta, "with_label")
		   ? look_for_label(d, e)
		   : 0;
}

ssize_t source_find(const struct transform *d, const char *name)
{
	for (size_t i = 0; i < d->source.n_in; i++)
		if (!strcmp(d->source.in[i], name))
			return (ssize_t)i;
	return -1;
}

/* ---- features by name or number ---------------------------------------- */

static int compare_named(const void *a, const void *b)
{
	return strcmp(((const struct named *)a)->name,
		      ((const struct named *)b)->name);
}

static struct named *sorted_names(const struct transform *d)
{
	struct named *a = xcalloc(d->n + 1, sizeof(*a));

	for (size_t i = 0; i < d->n; i++)
		a[i] = (struct named){ d->columns[i].name, i };
	qsort(a, d->n, sizeof(*a), compare_named);
	return a;
}

/* x<number> of svmlight. */
static bool name_number(const char *name, uint64_t *ret)
{
	struct span s = { name + 1, strlen(name) - 1 };

	return *name == 'x' && row_number(&s, ret) && *ret < TABLE_COLUMNS_MAX;
}

int source_ready(struct transform *d, struct err *e)
{
	struct source *s = &d->source;
	uint64_t number;

	d->raw = xcalloc(d->n + 1, sizeof(*d->raw));
	d->there = xcalloc(d->n + 1, sizeof(*d->there));
	if (s->row.format == FORMAT_TAG)
		s->names = sorted_names(d);
	if (s->row.format != FORMAT_SPARSE)
		return 0;
	s->numbers = xcalloc(TABLE_COLUMNS_MAX, sizeof(*s->numbers));
	for (size_t i = 0; i < TABLE_COLUMNS_MAX; i++)
		s->numbers[i] = -1;
	for (size_t i = 0; i < d->n; i++) {
		if (!name_number(d->columns[i].name, &number))
			return err_set(e, EINVAL,
				       "the column %s of the training data is "
				       "missing: svmlight has x0, x1 ...",
				       d->columns[i].name);
		s->numbers[number] = (ssize_t)i;
	}
	return 0;
}

static int compare_span(const void *key, const void *named)
{
	const struct span *s = key;
	const char *name = ((const struct named *)named)->name;
	int r = strncmp(s->s, name, s->n);

	return r ? r : -(name[s->n] != '\0');
}

/* Which feature it is; -1 = one that was not there in training. */
static ssize_t feature_column(const struct transform *d, const struct span *x,
			      uint64_t number)
{
	const struct source *s = &d->source;
	const struct named *found;

	if (s->row.format == FORMAT_SPARSE)
		return number < TABLE_COLUMNS_MAX ? s->numbers[number] : -1;
	found = bsearch(x, s->names, d->n, sizeof(*s->names), compare_span);
	return found ? (ssize_t)found->column : -1;
}

/* ---- one row ----------------------------------------------------------- */

static struct cell text_cell(const struct span *s)
{
	return (struct cell){ .type = CELL_STRING, .str = s->s, .len = s->n };
}

struct span source_text(struct transform *d, const struct cell *cells)
{
	const struct table_schema *s = table_schema(d->t);
	struct strbuf *sb = &d->source.joined;

	if (s->n_columns == 1)
		return (struct span){ cells[0].str, cells[0].len };
	sb_reset(sb);
	for (size_t i = 0; i < s->n_columns; i++) {
		if (i)
			sb_adds(sb, d->source.row.delimiter);
		sb_add(sb, cells[i].str, cells[i].len);
	}
	return (struct span){ sb->buf, sb->len };
}

static void aside_take(struct aside *a, const struct cell *x)
{
	if (a->name)
		a->raw = *x;
}

static bool dense_text(struct transform *d, const struct span *text)
{
	struct source *s = &d->source;
	struct row_scan r;
	struct span x;
	struct cell cell;
	size_t n = 0;

	row_begin(&r, &s->row, text->s, text->n);
	while (row_cell(&r, &x)) {
		if (n < s->n_in)
			s->fields[n] = x;
		n++;
	}
	if (n != s->n_in)
		return false;
	for (size_t i = 0; i < d->n; i++)
		d->raw[i] = text_cell(&s->fields[d->columns[i].at]);
	if (d->match.name) {
		cell = text_cell(&s->fields[d->match.at]);
		aside_take(&d->match, &cell);
	}
	if (d->label.name) {
		cell = text_cell(&s->fields[d->label.at]);
		aside_take(&d->label, &cell);
	}
	return true;
}

static void prefix(struct transform *d, struct row_scan *r)
{
	const struct row_format *f = &d->source.row;
	static const struct span none = { "", 0 };
	struct span x;
	struct cell cell;

	for (size_t i = 0; i < f->match_ids; i++) {
		cell = text_cell(row_prefix(r, &x) ? &x : &none);
		if (i == d->match.at)
			aside_take(&d->match, &cell);
	}
	if (f->label) {
		cell = text_cell(row_prefix(r, &x) ? &x : &none);
		aside_take(&d->label, &cell);
	}
}

static bool features(struct transform *d, struct row_scan *r)
{
	const struct row_format *f = &d->source.row;
	struct row_feature x;
	uint64_t number = 0;
	ssize_t at;
	int n;

	memset(d->there, 0, d->n * sizeof(*d->there));
	while ((n = row_feature(r, &x)) > 0) {
		if (f->format == FORMAT_SPARSE && !row_number(&x.name, &number))
			return false;
		at = feature_column(d, &x.name, number);
		if (at < 0)
			continue;
		if (d->there[at] && f->inner) /* which one is meant? */
			return false;
		d->there[at] = true;
		d->raw[at] = f->inner
				 ? text_cell(&x.value)
				 : (struct cell){ .type = CELL_F64, .f64 = 1 };
	}
	return n == 0;
}

bool source_row(struct transform *d, const struct cell *cells)
{
	struct source *s = &d->source;
	struct row_scan r;
	struct span text;
	bool ok;

	if (!s->text) {
		for (size_t i = 0; i < d->n; i++)
			d->raw[i] = cells[d->columns[i].at];
		memset(d->there, 1, d->n * sizeof(*d->there));
		aside_take(&d->match, &cells[d->match.at]);
		aside_take(&d->label, &cells[d->label.at]);
		aside_take(&d->weight, &cells[d->weight.at]);
		return true;
	}
	text = source_text(d, cells);
	if (s->row.format == FORMAT_DENSE) {
		memset(d->there, 1, d->n * sizeof(*d->there));
		ok = dense_text(d, &text);
	} else {
		row_begin(&r, &s->row, text.s, text.n);
		prefix(d, &r);
		ok = features(d, &r);
	}
	s->bad += !ok;
	return ok;
}

void source_close(struct transform *d)
{
	struct source *s = &d->source;

	for (size_t i = 0; i < s->n_in; i++)
		free(s->in[i]);
	free(s->in);
	free(s->fields);
	free(s->names);
	free(s->numbers);
	sb_free(&s->joined);
	free(d->raw);
	free(d->there);
}
