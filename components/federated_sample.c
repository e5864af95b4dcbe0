// SPDX-License-Identifier: Apache-2.0
/*
 * FederatedSample: fewer or more rows, the same at guest and hosts.
 * docs/components/federated_sample.md.
 */
#include <math.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <strings.h>

#include "components/component.h"
#include "components/labels.h"
#include "components/math/sampling.h"
#include "components/rows.h"
#include "lib/json.h"

/* What the ids of the drawn rows are. */
enum keys { KEYS_SAME, KEYS_NUMBERED, KEYS_NEW, KEYS_N };

static const char *const keys_names[] = { "same", "numbered", "new" };

struct sample {
	struct ctx *c;
	struct table *t;
	const json_t *params;
	struct rows rows;
	enum keys keys;
	uint32_t *drawn; /* row numbers */
	size_t n, alloc;
	/* of whoever decides */
	ssize_t label, weight; /* columns or -1 */
	bool drop_weight;      /* its copies stand for it */
	uint32_t *class;       /* of a row */
	struct labels labels;
};

static bool is(const json_t *p, const char *name, const char *value)
{
	return !strcasecmp(json_str_or(p, name, ""), value);
}

/* ---- drawing ------------------------------------------------------------- */

static int room_for(struct sample *s, size_t n, struct err *e)
{
	if (n > ROWS_MAX - s->n)
		return err_set(e, EINVAL, "more than %u rows are drawn",
			       ROWS_MAX);
	if (s->n + n > s->alloc) {
		s->alloc = MAX(2 * s->alloc, s->n + n + 1024);
		s->drawn = xrealloc(s->drawn, s->alloc * sizeof(*s->drawn));
	}
	return 0;
}

static bool shown_by_label(const struct sample *s)
{
	return is(s->params, "mode", "stratified") &&
	       is(s->params, "task_type", "hetero");
}

/* Hosts may know the seed, and see the rows: what is drawn by label must not
 * come from it alone. */
static int draw_begin(const struct sample *s, struct draw *d, uint32_t stage,
		      struct err *e)
{
	int64_t seed = json_int_or(s->params, "random_state", -1);
	uint8_t key[32];
	int r;

	if (seed >= 0 && !shown_by_label(s)) {
		draw_seed(d, (uint32_t)seed);
		return 0;
	}
	r = rows_key(&s->rows, seed, key, e);
	if (r >= 0)
		draw_key(d, key, stage);
	return r;
}

static int draw(struct sample *s, const uint32_t *ids, size_t n, double share,
		uint32_t stage, struct err *e)
{
	double m = fmax(1, floor(share * (double)n));
	struct draw d;
	int r;

	if (m > ROWS_MAX)
		m = (double)ROWS_MAX + 1;
	r = room_for(s, (size_t)m, e);
	if (r >= 0)
		r = draw_begin(s, &d, stage, e);
	if (r < 0)
		return r;
	if (is(s->params, "method", "upsample"))
		draw_again(&d, ids, n, (size_t)m, s->drawn + s->n);
	else
		draw_subset(&d, ids, n, (size_t)m, s->drawn + s->n);
	s->n += (size_t)m;
	return 0;
}

static int draw_random(struct sample *s, struct err *e)
{
	_cleanup_free_ uint32_t *ids = xcalloc(s->rows.n, sizeof(*ids));

	for (size_t i = 0; i < s->rows.n; i++)
		ids[i] = (uint32_t)i;
	return draw(s, ids, s->rows.n, json_num_or(s->params, "fractions", 1),
		    0, e);
}

static int draw_class(struct sample *s, size_t class, double share,
		      uint32_t stage, struct err *e)
{
	size_t count = s->labels.v[class].count, n = 0;
	_cleanup_free_ uint32_t *ids = xcalloc(count, sizeof(*ids));

	for (size_t i = 0; i < s->rows.n; i++)
		if (s->class[i] == class)
			ids[n++] = (uint32_t)i;
	return draw(s, ids, n, share, stage, e);
}

static int draw_classes(struct sample *s, struct err *e)
{
	const json_t *list = json_object_get(s->params, "fractions"), *x;
	_cleanup_free_ bool *done = xcalloc(s->labels.n + 1, sizeof(*done));
	size_t i;
	int r = 0;

	json_array_foreach (list, i, x) {
		ssize_t k = labels_find_json(&s->labels, json_array_get(x, 0));
		double f = json_number_value(json_array_get(x, 1));

		if (k < 0)
			continue; /* no row has it */
		if (done[k])
			return err_set(e, EINVAL,
				       "fractions: entry %zu is of a label "
				       "that has one already",
				       i);
		done[k] = true;
		r = draw_class(s, (size_t)k, f, (uint32_t)i, e);
		if (r < 0)
			return r;
	}
	for (i = 0; i < s->labels.n; i++)
		if (!done[i]) {
			_cleanup_free_ char *name = label_name(&s->labels.v[i]);

			return err_set(e, EINVAL,
				       "fractions: the label %s needs a share, "
				       "too",
				       name);
		}
	return 0;
}

/* Places that follow the label would tell it. */
static int mix(struct sample *s, struct err *e)
{
	struct draw d;
	int r = draw_begin(s, &d, UINT32_MAX, e);

	if (r >= 0)
		draw_shuffle(&d, s->drawn, s->n);
	return r;
}

static int draw_weight(struct sample *s, size_t row, const struct cell *x,
		       struct err *e)
{
	double w = x->type == CELL_I64 ? (double)x->i64 : x->f64;
	int r;

	if (x->type == CELL_STRING || !(w >= 0) || w > ROWS_MAX)
		return err_set(e, EINVAL,
			       "a weight is missing, negative or too large");
	r = room_for(s, (size_t)ceil(w), e);
	for (double k = 0; k < w && r >= 0; k++)
		s->drawn[s->n++] = (uint32_t)row;
	return r;
}

static int take_row(void *arg, size_t row, const struct cell *cells,
		    struct err *e)
{
	struct sample *s = arg;

	if (s->label >= 0)
		return labels_add(&s->labels, &cells[s->label], &s->class[row],
				  e);
	if (s->weight >= 0)
		return draw_weight(s, row, &cells[s->weight], e);
	return 0;
}

static int find_columns(struct sample *s, struct err *e)
{
	const struct table_schema *schema = table_schema(s->t);

	if (is(s->params, "mode", "stratified")) {
		if (!schema->label)
			return err_set(e, EINVAL,
				       "stratified needs a label: the table "
				       "has none (with_label of "
				       "DataTransform)");
		s->label = schema_find(schema, schema->label);
		s->class = xcalloc(table_rows(s->t), sizeof(*s->class));
	} else if (is(s->params, "mode", "exact_by_weight")) {
		if (!schema->weight)
			return err_set(e, EINVAL,
				       "exact_by_weight needs weights: the "
				       "table has none (SampleWeight makes "
				       "them)");
		s->weight = schema_find(schema, schema->weight);
		s->drop_weight = true;
	}
	return 0;
}

static int ascending(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static int decide(struct sample *s, struct err *e)
{
	int r = find_columns(s, e);

	if (r >= 0)
		r = rows_read(s->c, s->t, take_row, s, &s->rows, e);
	if (r < 0)
		return err_wrap(e, "input data");
	if (s->weight >= 0) {
		s->keys = KEYS_NEW;
		return 0;
	}
	r = s->label >= 0 ? draw_classes(s, e) : draw_random(s, e);
	if (r >= 0 && shown_by_label(s))
		r = mix(s, e);
	s->keys =
	    is(s->params, "method", "upsample") ? KEYS_NUMBERED : KEYS_SAME;
	if (s->keys == KEYS_SAME && s->n)
		qsort(s->drawn, s->n, sizeof(*s->drawn), ascending);
	return r;
}

/* ---- between the parties --------------------------------------------------
 */

static int tell_hosts(struct sample *s, struct err *e)
{
	json_t *o = json_pack("{s:s, s:I}", "keys", keys_names[s->keys], "rows",
			      (json_int_t)s->n);
	int r = rows_agree(s->c, "", &s->rows, e);

	for (size_t i = 0; i < ctx_count(s->c, "host") && r >= 0; i++)
		r = ctx_send_json(s->c, "host", i, "sample_info", "", o, e);
	json_decref(o);
	return r < 0 ? r : rows_send(s->c, "sample_ids", s->drawn, s->n, e);
}

/* What a host writes for a guest: more copies of its rows than that are no
 * sample. */
#define COPIES_MAX 100u

static int read_info(struct sample *s, size_t *ret_rows, struct err *e)
{
	const char *keys = NULL;
	int64_t rows = 0;
	json_t *o = NULL;
	int r = ctx_recv_json(s->c, "guest", 0, "sample_info", "", &o, e);

	if (r < 0)
		return r;
	for (s->keys = 0; s->keys < KEYS_N; s->keys++)
		if (!strcmp(json_str_or(o, "keys", ""), keys_names[s->keys]))
			break;
	if (json_get_str(o, "keys", &keys, e) < 0 ||
	    json_get_int(o, "rows", 0, ROWS_MAX, &rows, e) < 0)
		r = -EPROTO;
	else if (s->keys == KEYS_N)
		r = err_set(e, EPROTO, "no such keys");
	else if ((size_t)rows >
		 (s->keys == KEYS_SAME ? s->rows.n : COPIES_MAX * s->rows.n))
		r = err_set(e, EPROTO, "more rows than a sample may have");
	json_decref(o);
	if (r < 0) {
		if (e)
			e->no = EPROTO;
		return err_wrap(e, "message sample_info");
	}
	*ret_rows = (size_t)rows;
	return 0;
}

static int follow(struct sample *s, struct err *e)
{
	size_t want = 0;
	int r = rows_read(s->c, s->t, NULL, NULL, &s->rows, e);

	if (r >= 0)
		r = rows_agree(s->c, "", &s->rows, e);
	if (r >= 0)
		r = read_info(s, &want, e);
	if (r >= 0)
		r = rows_recv(s->c, "sample_ids", s->rows.n, want, &s->drawn,
			      &s->n, e);
	if (r >= 0 && s->n != want)
		r = err_set(e, EPROTO, "message sample_ids: %zu rows, not %zu",
			    s->n, want);
	for (size_t i = 1; r >= 0 && i < s->n; i++)
		if (s->keys == KEYS_SAME && s->drawn[i] <= s->drawn[i - 1])
			r = err_set(e, EPROTO,
				    "message sample_ids: a row "
				    "twice, or not in order");
	if (r == -EPROTO)
		ctx_fail_code(s->c, "bad_message",
			      "a partner sent something unexpected");
	return r;
}

/* ---- output -------------------------------------------------------------- */

/* The same at all parties, and told to nobody else: a UUID (version 8) of
 * HMAC-SHA256(job secret, component, row, copy). */
static int new_key(struct sample *s, size_t row, size_t copy, char ret[40],
		   struct err *e)
{
	_cleanup_free_ char *text =
	    xasprintf("sample %s %zu %zu", ctx_component(s->c), row, copy);
	uint8_t d[EVP_MAX_MD_SIZE];
	unsigned n = 0;

	if (!ctx_secret(s->c) ||
	    !HMAC(EVP_sha256(), ctx_secret(s->c), 32, (const uint8_t *)text,
		  strlen(text), d, &n))
		return err_set(e, EIO, "cannot make a new id");
	d[6] = (uint8_t)((d[6] & 0x0f) | 0x80);
	d[8] = (uint8_t)((d[8] & 0x3f) | 0x80);
	(void)snprintf(ret, 40,
		       "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
		       "%02x%02x%02x%02x%02x%02x",
		       d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7], d[8],
		       d[9], d[10], d[11], d[12], d[13], d[14], d[15]);
	return 0;
}

/* at[from[row]] .. at[from[row + 1]] are the places of a row among the drawn
 * ones. */
static uint32_t *places(const struct sample *s, uint32_t *from)
{
	uint32_t *at = xcalloc(s->n + 1, sizeof(*at));

	for (size_t i = 0; i < s->n; i++)
		from[s->drawn[i] + 1]++;
	for (size_t i = 1; i <= s->rows.n; i++)
		from[i] += from[i - 1];
	for (size_t i = 0; i < s->n; i++)
		at[from[s->drawn[i]]++] = (uint32_t)i;
	memmove(from + 1, from, s->rows.n * sizeof(*from));
	from[0] = 0;
	return at;
}

static int add_row(struct sample *s, struct table_build *b, size_t row,
		   const uint32_t *at, size_t n, const char *key, size_t len,
		   const struct cell *cells, struct err *e)
{
	char name[40];
	int r = 0;

	for (size_t k = 0; k < n && r >= 0; k++) {
		if (s->keys == KEYS_NUMBERED)
			(void)snprintf(name, sizeof(name), "%u", at[k]);
		else if (s->keys == KEYS_NEW)
			r = new_key(s, row, k, name, e);
		if (r < 0)
			return r;
		r = s->keys == KEYS_SAME
			? table_build_add(b, key, len, cells, e)
			: table_build_add(b, name, strlen(name), cells, e);
	}
	return r;
}

static int fill(struct sample *s, struct table_build *b, struct err *e)
{
	size_t columns = table_schema(s->t)->n_columns, row = 0, len;
	_cleanup_free_ uint32_t *from = xcalloc(s->rows.n + 2, sizeof(*from));
	_cleanup_free_ uint32_t *at = places(s, from);
	_cleanup_free_ struct cell *out = xcalloc(columns + 1, sizeof(*out));
	const struct cell *cells;
	struct table_iter *it;
	const char *key;
	int r = table_scan(s->t, NULL, 0, &it, e);

	if (r < 0)
		return r;
	while ((r = table_next(it, &key, &len, &cells, e)) > 0) {
		size_t n = 0;

		for (size_t i = 0; i < columns; i++)
			if (!s->drop_weight || (ssize_t)i != s->weight)
				out[n++] = cells[i];
		r = add_row(s, b, row, at + from[row],
			    from[row + 1] - from[row], key, len, out, e);
		if (r < 0)
			break;
		if (++row % 4096 == 0)
			ctx_progress(s->c, (double)row / (double)s->rows.n);
	}
	table_scan_end(it);
	return r;
}

static struct table_schema *output_schema(const struct sample *s)
{
	struct table_schema *d = schema_dup(table_schema(s->t));

	if (!s->drop_weight)
		return d;
	free(d->weight);
	d->weight = NULL;
	free(d->columns[s->weight].name);
	free(d->columns[s->weight].anonymous);
	d->n_columns--;
	memmove(d->columns + s->weight, d->columns + s->weight + 1,
		(d->n_columns - (size_t)s->weight) * sizeof(*d->columns));
	return d;
}

static json_t *labels_json(const struct sample *s)
{
	_cleanup_free_ uint64_t *count =
	    xcalloc(s->labels.n + 1, sizeof(*count));
	json_t *o = json_object();

	for (size_t i = 0; i < s->n; i++)
		count[s->class[s->drawn[i]]]++;
	for (size_t k = 0; k < s->labels.n; k++) {
		_cleanup_free_ char *name = label_name(&s->labels.v[k]);

		json_object_set_new(o, name,
				    json_pack("{s:I, s:I}", "original_count",
					      (json_int_t)s->labels.v[k].count,
					      "count", (json_int_t)count[k]));
	}
	return o;
}

static int publish(struct sample *s, struct err *e)
{
	struct table_schema *schema = output_schema(s);
	struct table_build *b = NULL;
	json_t *o;
	int r = table_build_begin(ctx_store(s->c), schema, &b, e);

	schema_free(schema);
	if (r < 0)
		return r;
	r = fill(s, b, e);
	if (r < 0) {
		table_build_abort(b);
		return r;
	}
	r = ctx_put_table(s->c, 0, b, e);
	if (r < 0)
		return r;
	o = json_pack("{s:I, s:I}", "original_count", (json_int_t)s->rows.n,
		      "count", (json_int_t)s->n);
	if (s->label >= 0)
		json_object_set_new(o, "labels", labels_json(s));
	r = ctx_put_summary(s->c, o, e);
	json_decref(o);
	return r;
}

/* ---- the component ------------------------------------------------------- */

static int run(struct ctx *c, struct err *e)
{
	struct sample s = {
		.c = c, .params = ctx_params(c), .label = -1, .weight = -1
	};
	bool hetero = is(s.params, "task_type", "hetero");
	bool guest = !strcmp(ctx_role(c), "guest");
	int r;

	if (ctx_inputs(c, "data") != 1)
		return err_set(e, EINVAL, "one input table is needed");
	s.t = ctx_input(c, "data", 0);
	if (table_rows(s.t) == 0)
		r = err_set(e, EINVAL, "the input table has no rows");
	else
		r = guest || !hetero ? decide(&s, e) : follow(&s, e);
	if (r >= 0 && guest && hetero)
		r = tell_hosts(&s, e);
	if (r >= 0)
		r = publish(&s, e);
	labels_free(&s.labels);
	free(s.class);
	free(s.drawn);
	return r;
}

static bool share_ok(const json_t *v, bool up)
{
	double x = json_number_value(v);

	return json_is_number(v) && (up ? x > 0 : x >= 0 && x <= 1);
}

static void check_pairs(const json_t *list, bool up,
			void (*defect)(void *arg, const char *pointer,
				       const char *text),
			void *arg)
{
	const json_t *x, *label;
	char at[40];
	size_t i;

	if (json_array_size(list) == 0)
		defect(arg, "fractions",
		       "stratified needs the share of each label: [[0, 0.5], "
		       "[1, 0.8]]");
	json_array_foreach (list, i, x) {
		(void)snprintf(at, sizeof(at), "fractions/%zu", i);
		label = json_array_get(x, 0);
		if (json_array_size(x) != 2 ||
		    !(json_is_number(label) || json_is_string(label)))
			defect(arg, at,
			       "expected a label and its share: "
			       "[1, 0.8]");
		else if (!share_ok(json_array_get(x, 1), up))
			defect(arg, at,
			       up ? "the share must be above 0"
				  : "the share must be 0 to 1 (more is "
				    "method upsample)");
	}
}

static void check(const json_t *p, const json_t *roles, const char *role,
		  void (*defect)(void *arg, const char *pointer,
				 const char *text),
		  void *arg)
{
	const json_t *f = json_object_get(p, "fractions");
	bool up = is(p, "method", "upsample");

	(void)roles;
	/* A host that follows needs no shares. */
	if (strcmp(role, "guest") != 0 && is(p, "task_type", "hetero"))
		return;
	if (is(p, "mode", "stratified"))
		check_pairs(f, up, defect, arg);
	else if (is(p, "mode", "random") && !share_ok(f, up))
		defect(arg, "fractions",
		       up ? "expected the share of rows to draw, above 0, "
			    "such as 1.5"
			  : "expected the share of rows to keep, 0 to 1, such "
			    "as 0.5");
}

static const struct param params[] = {
	{ "mode", PARAM_ENUM, "\"random\"",
	  .choices = "random|stratified|exact_by_weight",
	  .help = "of all rows, by label, or by weight" },
	{ "method", PARAM_ENUM, "\"downsample\"",
	  .choices = "downsample|upsample",
	  .help = "without or with replacement" },
	{ "fractions", PARAM_ANY, NULL, .flags = PARAM_NULLABLE,
	  .help = "random: share of the rows; stratified: list of [label, "
		  "share]" },
	{ "random_state", PARAM_INT, NULL, 0, 4294967295.0,
	  .flags = PARAM_NULLABLE,
	  .help = "seed; null: other rows at each run" },
	{ "task_type", PARAM_ENUM, "\"hetero\"", .choices = "hetero|homo",
	  .help = "hetero: the guest draws for all; homo: each for itself" },
	{ "need_run", PARAM_BOOL, "true",
	  .help = "false: the rows are handed on as they are" },
	{ 0 },
};

static const char *const data_inputs[] = { "data", NULL };

extern const struct component component_federated_sample;
const struct component component_federated_sample = {
	.module = "FederatedSample",
	.roles = ROLE_GUEST | ROLE_HOST,
	.data_inputs = data_inputs,
	.data_outputs = 1,
	.params = params,
	.help = "draws fewer or more of the common rows",
	.check = check,
	.run = run,
};
