/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DataTransform, in parts:
 *
 *   data_transform.c         the component: parameters, the order of things
 *   data_transform_row.c     the text of a svmlight, tag or joined dense row
 *   data_transform_source.c  where a row's cells come from: columns or a text
 *   data_transform_header.c  which columns: from the table, or from a model
 *   data_transform_cell.c    what a cell is: a value, missing, an outlier
 *   data_transform_model.c   what is kept: the model, the summary
 *
 * A row of the input becomes raw cells, one for each feature (source_row), and
 * those become the cells of the output (convert).  Nothing here holds more
 * than a row.
 */
#ifndef COMPONENTS_DATA_TRANSFORM_H
#define COMPONENTS_DATA_TRANSFORM_H

#include "components/component.h"

/* ---- rows of text ------------------------------------------------------ */

enum format { FORMAT_DENSE, FORMAT_SPARSE, FORMAT_TAG };

struct row_format {
	enum format format;
	const char *delimiter; /* not empty */
	const char *inner;     /* between tag (or number) and value; NULL = tags
				* without values */
	size_t match_ids;      /* fields in front */
	bool label;	       /* one field behind them */
};

struct span {
	const char *s;
	size_t n;
};

struct row_scan {
	const struct row_format *f;
	const char *p, *end; /* p NULL = done */
};

struct row_feature {
	struct span name, value; /* value.s NULL = none */
};

void row_begin(struct row_scan *r, const struct row_format *f, const char *text,
	       size_t n);
/* The next field without blanks at its edges; false at the end. */
bool row_cell(struct row_scan *r, struct span *ret);
/* The same, empty ones left out. */
bool row_field(struct row_scan *r, struct span *ret);
/* The next match id, or the label; it may be empty. */
bool row_prefix(struct row_scan *r, struct span *ret);
/* 1 = a feature, 0 = the end, -EINVAL = a field that is none. */
int row_feature(struct row_scan *r, struct row_feature *ret);
/* The number of a svmlight feature; false when it is none. */
bool row_number(const struct span *s, uint64_t *ret);

/* ---- columns and cells ------------------------------------------------- */

enum kind { KIND_FLOAT, KIND_FLOAT32, KIND_INT, KIND_TEXT, KIND_BAD };
enum method { FILL_ZERO, FILL_MIN, FILL_MAX, FILL_MEAN, FILL_DESIGNATED };

/* Cells that stand for something else: as text, or as an equal number. */
struct marks {
	const char **text; /* borrowed from the parameters or the model */
	double *num;	   /* NaN = not a number */
	size_t n;
};

struct fill {
	bool on;
	enum method method;
	struct marks marks;
};

struct column {
	char *name, *anonymous;
	size_t at; /* in the input's columns, or in the fields of its text */
	enum kind kind;
	double min, max, sum;
	uint64_t values, missing, outliers, bad;
	double missing_fill, outlier_fill;
	char *missing_text, *outlier_text; /* of text; NULL = it stays */
};

/* A column that is no feature: match id, label, weight. */
struct aside {
	char *name; /* NULL = none */
	size_t at;
	enum kind kind;
	uint64_t bad;
	struct cell raw; /* of the present row */
};

struct named {
	const char *name;
	size_t column;
};

/* Where the rows are read from. */
struct source {
	struct row_format row;
	bool text; /* one value is cut here; else the upload has done it */
	struct strbuf joined; /* the value, when it has several columns */
	char **in;	      /* dense: the names of what a row holds */
	size_t n_in;
	struct span *fields; /* of a dense row, n_in */
	struct named *names; /* of the features, sorted */
	ssize_t *numbers;    /* svmlight: number -> column, -1 = none */
	uint64_t bad;	     /* rows that are no such text */
};

struct transform {
	struct ctx *c;
	struct table *t;
	json_t *params;		   /* in effect, with the table's meta */
	const json_t *input_model; /* all of it */
	const json_t *model;	   /* param of it; NULL = fit */
	struct fill missing, outlier;
	bool sparse; /* output */
	struct source source;
	struct aside match, label, weight;
	json_t *match_ids; /* names of all that are match ids, dense */
	struct column *columns;
	size_t n;
	struct cell *raw; /* of the present row, n */
	bool *there;	  /* false: the row has no such feature, n */
};

enum kind kind_of(const char *s); /* KIND_BAD for other words */
const char *kind_name(enum kind k);
void fill_read(struct fill *f, const json_t *o, const char *on,
	       const char *method, const char *list);
void fill_free(struct fill *f);
/* min, max and mean have to be measured first. */
bool fill_measured(const struct fill *f);
/* The values that replace others, once the columns are measured. */
int fill_values(struct transform *d, struct err *e) MUST_CHECK;
void measure(const struct transform *d, struct column *k, const struct cell *x);
void convert(const struct transform *d, struct column *k, const struct cell *x,
	     struct cell *ret);
/* A feature that the row does not have. */
void convert_absent(const struct transform *d, struct column *k,
		    struct cell *ret);
/* False when the label is not of its type. */
bool convert_label(const struct transform *d, struct cell *ret);

/* Decides how rows are read; then header_*; then source_ready. */
int source_open(struct transform *d, struct err *e) MUST_CHECK;
/* Which of the dense row's names it is, -1 = none. */
ssize_t source_find(const struct transform *d, const char *name);
int source_ready(struct transform *d, struct err *e) MUST_CHECK;
/* Fills raw, there and the raw cells aside; false: the row is no such text. */
bool source_row(struct transform *d, const struct cell *cells);
/* The text of a row whose value is cut here. */
struct span source_text(struct transform *d, const struct cell *cells);
void source_close(struct transform *d);

int header_fit(struct transform *d, struct err *e) MUST_CHECK;
int header_from_model(struct transform *d, struct err *e) MUST_CHECK;
struct table_schema *header_schema(const struct transform *d);

int model_put(struct transform *d, struct err *e) MUST_CHECK;
int summary_put(struct transform *d, struct err *e) MUST_CHECK;

#endif
