/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest and host with the same rows r00, r01, ...: the guest has y, x0 = the
 * row's number and perhaps weights, the host z = 100 + the row's number.
 */
#ifndef TESTS_UNIT_COMMON_ROWS_H
#define TESTS_UNIT_COMMON_ROWS_H

#include "tests/unit/harness.h"

struct common {
	size_t rows;
	const double *label;  /* NULL = none */
	const double *weight; /* NULL = none */
	bool real;	      /* the label is of type f64 */
	size_t host_skips;    /* rows that only the guest has */
	const char *flip;     /* message that the guest sends as zeros */
};

static struct table *common_table(const char *name, const struct common *d,
				  bool guest)
{
	struct table_schema *s = schema_new();
	struct table_build *b;
	struct table *t;
	struct err e = { 0 };

	free(s->id);
	s->id = xstrdup("id");
	if (guest && d->label) {
		s->label = xstrdup("y");
		schema_add_column(s, "y", d->real ? CELL_F64 : CELL_I64, NULL);
	}
	if (guest && d->weight) {
		s->weight = xstrdup("weight");
		schema_add_column(s, "weight", CELL_F64, NULL);
	}
	schema_add_column(s, guest ? "x0" : "z", CELL_F64, NULL);
	assert_int_equal(table_build_begin(store, s, &b, &e), 0);
	schema_free(s);
	for (size_t i = guest ? 0 : d->host_skips; i < d->rows; i++) {
		struct cell cells[3] = { 0 };
		size_t k = 0;
		char key[8];

		if (guest && d->label)
			cells[k++] = (struct cell){
				.type = d->real ? CELL_F64 : CELL_I64,
				.f64 = d->label[i],
				.i64 = d->real ? 0 : (int64_t)d->label[i]
			};
		if (guest && d->weight)
			cells[k++] = (struct cell){ .type = CELL_F64,
						    .f64 = d->weight[i] };
		cells[k] =
		    (struct cell){ .type = CELL_F64,
				   .f64 = (double)i + (guest ? 0 : 100) };
		(void)snprintf(key, sizeof(key), "r%02u", (unsigned)i % 100);
		assert_int_equal(table_build_add(b, key, 3, cells, &e), 0);
	}
	assert_int_equal(table_build_publish(b, "in", name, &e), 0);
	assert_int_equal(table_open(store, "in", name, &t, &e), 0);
	return t;
}

/* Guest ctx[0] and host ctx[1] with these parameters (JSON with ' for "). */
static void common_run(struct ctx ctx[2], const struct component *component,
		       const struct common *d, const char *params)
{
	_cleanup_free_ char *text = xstrdup(params);

	for (char *p = text; *p; p++)
		*p = *p == '\'' ? '"' : *p;
	memset(ctx, 0, 2 * sizeof(*ctx));
	bus.hosts = 1;
	for (size_t i = 0; i < 2; i++) {
		ctx[i].role = i ? "host" : "guest";
		ctx[i].params = json_parse(text, strlen(text), NULL);
		assert_non_null(ctx[i].params);
		ctx[i].table = common_table(i ? "host" : "guest", d, i == 0);
	}
	ctx[0].flip = d->flip;
	parties_run(ctx, 2, component);
}

struct common_row {
	char key[40];
	double number; /* of the row in the input */
};

/* The rows of an output of the last run; ret has room for max. */
static size_t common_output(const char *name, struct common_row *ret,
			    size_t max)
{
	_cleanup_table_ struct table *t = NULL;
	const struct cell *cells;
	struct table_iter *it;
	struct err e = { 0 };
	const char *key;
	size_t n = 0, len, last;

	assert_int_equal(table_open(store, "out", name, &t, &e), 0);
	last = table_schema(t)->n_columns - 1;
	assert_int_equal(table_scan(t, NULL, 0, &it, &e), 0);
	while (table_next(it, &key, &len, &cells, &e) > 0) {
		assert_true(n < max);
		(void)snprintf(ret[n].key, sizeof(ret[n].key), "%.*s", (int)len,
			       key);
		ret[n++].number = cells[last].f64 - (*name == 'h' ? 100 : 0);
	}
	table_scan_end(it);
	return n;
}

/* Guest's and host's output are the same rows; gives the guest's. */
static size_t common_both(size_t output, struct common_row *ret, size_t max)
{
	struct common_row *host = xcalloc(max, sizeof(*host));
	char a[60], b[60];
	size_t n;

	(void)snprintf(a, sizeof(a), output ? "guest0.%zu" : "guest0", output);
	(void)snprintf(b, sizeof(b), output ? "host0.%zu" : "host0", output);
	n = common_output(a, ret, max);
	assert_int_equal(common_output(b, host, max), n);
	for (size_t i = 0; i < n; i++) {
		assert_string_equal(ret[i].key, host[i].key);
		assert_true(ret[i].number == host[i].number);
	}
	free(host);
	return n;
}

static void check_note(void *arg, const char *pointer, const char *text)
{
	assert_true(strlen(text) > 0);
	sb_addf(arg, "%s ", pointer);
}

/* What a component finds wrong: the pointers, each with a blank behind it;
 * caller frees. */
static char *common_check(const struct component *component, const char *role,
			  const char *params)
{
	_cleanup_free_ char *text = xstrdup(params);
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(4000);
	json_t *p;

	for (char *c = text; *c; c++)
		*c = *c == '\'' ? '"' : *c;
	p = json_parse(text, strlen(text), NULL);
	assert_non_null(p);
	component->check(p, NULL, role, check_note, &sb);
	json_decref(p);
	return sb_detach(&sb);
}

#endif
