// SPDX-License-Identifier: Apache-2.0
/* Scores of a model, what they are worth, and the table of predictions. */
#include <math.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "lib/json.h"

#include "components/linear.h"
#include "components/math/metrics.h"

/* ---- masked scores --------------------------------------------------------
 *
 * hide_scores: shares of the linear predictor as numbers of 64 bits with
 * HIDDEN_BITS behind the point.  Host k adds the stream of mask k, the guest
 * takes all of them off: guest and hosts derive them from the job's secret,
 * which the arbiter does not have, so it sees sums only, of rows in an order
 * that they have shuffled.  It sends rounded scores back.
 */
#define HIDDEN_BITS 24

static int stream(struct linear *l, const char *tag, const char *what, size_t k,
		  uint8_t *out, size_t n, struct err *e)
{
	_cleanup_free_ char *text =
	    xasprintf("rollfs linear scores|%s|%s|%s|%zu", ctx_session(l->c),
		      tag, what, k);
	static const uint8_t zero_iv[16];
	uint8_t key[32];
	unsigned len = sizeof(key);
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int done = 0;
	bool ok =
	    c &&
	    HMAC(EVP_sha256(), ctx_secret(l->c), 32, (const uint8_t *)text,
		 strlen(text), key, &len) &&
	    EVP_EncryptInit_ex(c, EVP_aes_256_ctr(), NULL, key, zero_iv) == 1;

	memset(out, 0, n);
	for (size_t at = 0; ok && at < n;) {
		int part = (int)MIN(n - at, (size_t)1 << 20);

		ok = EVP_EncryptUpdate(c, out + at, &done, out + at, part) == 1;
		at += (size_t)part;
	}
	EVP_CIPHER_CTX_free(c);
	explicit_bzero(key, sizeof(key));
	return ok ? 0 : err_set(e, EIO, "cannot make masks");
}

/* Place of row i in the order that guest and hosts have shuffled. */
static int shuffled(struct linear *l, const char *tag, size_t n, uint32_t **ret,
		    struct err *e)
{
	_cleanup_free_ uint64_t *random = xcalloc(n + 1, sizeof(*random));
	uint32_t *at = xcalloc(n + 1, sizeof(*at));
	int r = stream(l, tag, "order", 0, (uint8_t *)random,
		       n * sizeof(*random), e);

	for (size_t i = 0; i < n; i++)
		at[i] = (uint32_t)i;
	/* 64 bits modulo at most 2^27: no bias that could be seen. */
	for (size_t i = n; i > 1 && r >= 0; i--) {
		size_t k = random[i - 1] % i;
		uint32_t t = at[i - 1];

		at[i - 1] = at[k];
		at[k] = t;
	}
	if (r < 0) {
		free(at);
		return r;
	}
	*ret = at;
	return 0;
}

static int send_masked(struct linear *l, const char *tag, const double *z,
		       size_t n, const uint32_t *at, struct err *e)
{
	bool guest = l->role == LINEAR_GUEST;
	_cleanup_free_ uint64_t *v = xcalloc(n + 1, sizeof(*v));
	_cleanup_free_ uint64_t *mask = xcalloc(n + 1, sizeof(*mask));
	int r = 0;

	for (size_t i = 0; i < n; i++) {
		double scaled = ldexp(z[i], HIDDEN_BITS);

		if (!(fabs(scaled) < 1e18))
			return err_set(e, ERANGE, "a score is too large");
		v[at[i]] = (uint64_t)(int64_t)llrint(scaled);
	}
	for (size_t k = 0; k < l->hosts && r >= 0; k++) {
		if (!guest && k != ctx_index(l->c))
			continue;
		r = stream(l, tag, "mask", k, (uint8_t *)mask,
			   n * sizeof(*mask), e);
		for (size_t i = 0; i < n; i++)
			v[i] += guest ? -mask[i] : mask[i];
	}
	for (size_t i = 0; i < n; i++)
		v[i] = htole64(v[i]);
	if (r >= 0)
		r = ctx_send_fixed(l->c, "arbiter", 0, "masked_score", tag, v,
				   sizeof(*v), n, e);
	explicit_bzero(mask, n * sizeof(*mask));
	return r;
}

/* The arbiter: the scores of shuffled rows, rounded, to the guest. */
static int open_masked(struct linear *l, const char *tag, struct err *e)
{
	double digits = pow(10, l->p.score_digits);
	_cleanup_free_ uint64_t *sum = NULL;
	_cleanup_free_ double *out = NULL;
	size_t rows = 0;
	int r;

	for (size_t k = 0; k <= l->hosts; k++) {
		_cleanup_free_ uint8_t *got = NULL;
		const uint64_t *v;
		size_t n;

		r = ctx_recv_fixed(l->c, k ? "host" : "guest", k ? k - 1 : 0,
				   "masked_score", tag, 8, k ? rows : ROWS_MAX,
				   &got, &n, e);
		if (r < 0)
			return r;
		if (k && n != rows)
			return err_set(e, EPROTO, "masked_score: %zu rows", n);
		if (!k) {
			rows = n;
			sum = xcalloc(n + 1, sizeof(*sum));
		}
		v = (const uint64_t *)(const void *)got;
		for (size_t i = 0; i < n; i++)
			sum[i] += le64toh(v[i]);
	}
	out = xcalloc(rows + 1, sizeof(*out));
	for (size_t i = 0; i < rows; i++) {
		double z = ldexp((double)(int64_t)sum[i], -HIDDEN_BITS);

		out[i] = round(l->f->score(z) * digits) / digits;
		if (!isfinite(out[i]))
			return err_set(e, ERANGE, "a score is too large");
	}
	return ctx_send_f64(l->c, "guest", 0, "rounded_score", tag, out, rows,
			    e);
}

static int hidden_scores(struct linear *l, const char *tag, const double *z,
			 size_t n, double *score, struct err *e)
{
	_cleanup_free_ uint32_t *at = NULL;
	_cleanup_free_ double *got = NULL;
	int r;

	if (l->role == LINEAR_ARBITER)
		return open_masked(l, tag, e);
	r = shuffled(l, tag, n, &at, e);
	if (r >= 0)
		r = send_masked(l, tag, z, n, at, e);
	if (r < 0 || l->role == LINEAR_HOST)
		return r;
	got = xcalloc(n + 1, sizeof(*got));
	r = ctx_recv_f64(l->c, "arbiter", 0, "rounded_score", tag, got, n, e);
	for (size_t i = 0; i < n && r >= 0; i++)
		score[i] = got[at[i]];
	return r;
}

/* ---- scores -------------------------------------------------------------- */

int linear_scores(struct linear *l, const char *tag,
		  const struct linear_model *m, const struct linear_data *d,
		  double *score, struct err *e)
{
	size_t n = d ? d->rows : 0;
	_cleanup_free_ double *z = xcalloc(n + 1, sizeof(*z));
	_cleanup_free_ double *own = xcalloc(n + 1, sizeof(*own));
	int r;

	for (size_t i = 0; i < n; i++) {
		own[i] = linear_dot(m, d->x + i * d->cols);
		if (d->offset)
			own[i] += d->offset[i];
	}
	if (l->p.hide_scores)
		return hidden_scores(l, tag, own, n, score, e);
	if (l->role == LINEAR_ARBITER)
		return 0;
	if (l->role == LINEAR_HOST) /* in clear, as in FATE */
		return ctx_send_f64(l->c, "guest", 0, l->f->score_name, tag,
				    own, n, e);
	for (size_t k = 0; k < l->hosts; k++) {
		r = ctx_recv_f64(l->c, "host", k, l->f->score_name, tag, z, n,
				 e);
		if (r < 0)
			return r;
		for (size_t i = 0; i < n; i++)
			own[i] += z[i];
	}
	for (size_t i = 0; i < n; i++)
		score[i] = l->f->score(own[i]);
	return 0;
}

void linear_scores_free(const struct linear_set *set, double **score)
{
	for (unsigned k = 0; score && k < set->n; k++)
		free(score[k]);
	free(score);
}

int linear_set_scores(struct linear *l, const char *flow,
		      const struct linear_set *set, const struct linear_data *d,
		      double ***ret, struct err *e)
{
	double **score = xcalloc(set->n + 1, sizeof(*score));
	char tag[LINEAR_TAG];
	int r = 0;

	for (unsigned k = 0; k < set->n && r >= 0; k++) {
		score[k] = xcalloc((d ? d->rows : 0) + 1, sizeof(**score));
		(void)snprintf(tag, sizeof(tag), "%s%u", flow, k);
		r = linear_scores(l, tag, set->m ? &set->m[k] : NULL, d,
				  score[k], e);
	}
	if (r < 0) {
		linear_scores_free(set, score);
		return r;
	}
	*ret = score;
	return 0;
}

/* ---- measures ------------------------------------------------------------ */

bool linear_metric_larger(const char *name)
{
	return strcmp(name, "rmse") != 0 && strcmp(name, "mae") != 0 &&
	       strcmp(name, "mse") != 0 && strcmp(name, "median_ae") != 0;
}

static double binary_metric(const char *name, const double *y,
			    const double *score, size_t n)
{
	_cleanup_free_ struct scored *v = xcalloc(n + 1, sizeof(*v));

	for (size_t i = 0; i < n; i++)
		v[i] = (struct scored){ score[i], y[i] > 0 };
	metric_sort(v, n);
	return strcmp(name, "ks") ? metric_auc(v, n) : metric_ks(v, n);
}

double linear_metric(const struct linear *l, const char *name, const double *y,
		     const double *score, size_t n)
{
	struct regression m;

	if (!l->f->regression)
		return binary_metric(name, y, score, n);
	metric_regression(y, score, n, &m);
	return !strcmp(name, "rmse")	    ? m.rmse
	       : !strcmp(name, "mae")	    ? m.mae
	       : !strcmp(name, "mse")	    ? m.mse
	       : !strcmp(name, "r2")	    ? m.r2
	       : !strcmp(name, "median_ae") ? m.median_ae
					    : m.explained_variance;
}

/* Index of the class with the highest score, the first of equals. */
static unsigned best_class(const struct linear_set *set, double *const *score,
			   size_t row)
{
	unsigned best = 0;

	for (unsigned k = 1; k < set->n; k++)
		if (score[k][row] > score[best][row])
			best = k;
	return best;
}

json_t *linear_measure(const struct linear *l, const struct linear_set *set,
		       const struct linear_data *d, double *const *score)
{
	const char *const *names = linear_metric_names(l);
	json_t *o = json_object();
	_cleanup_free_ double *y = NULL;
	size_t hits = 0;

	if (set->n > 1) {
		for (size_t i = 0; i < d->rows; i++)
			hits += d->label[i] ==
				set->classes[best_class(set, score, i)];
		json_object_set_new(o, "accuracy",
				    json_real((double)hits / (double)d->rows));
		return o;
	}
	y = linear_targets(l, set, 0, d);
	for (; *names; names++) {
		double v = linear_metric(l, *names, y, score[0], d->rows);

		json_object_set_new(o, *names,
				    isfinite(v) ? json_real(v) : json_null());
	}
	return o;
}

/* ---- the table of predictions -------------------------------------------- */

int linear_result_begin(struct linear *l, const struct linear_set *set,
			const struct linear_data *d, struct linear_result *ret,
			struct err *e)
{
	const struct table_schema *in = table_schema(d->table);
	enum cell_type label = d->label_column == SIZE_MAX
				   ? CELL_F64
				   : in->columns[d->label_column].type;
	bool whole = l->f->classes && (!set->classes || label == CELL_I64);
	struct table_schema *s = schema_new();
	int r;

	*ret = (struct linear_result){ .l = l,
				       .label = label,
				       .result = whole ? CELL_I64 : CELL_F64 };
	free(s->id);
	s->id = xstrdup(in->id ? in->id : "id");
	s->content_type = xstrdup("predict_result");
	s->partitions = in->partitions;
	schema_add_column(s, "label", label, NULL);
	schema_add_column(s, "predict_result", ret->result, NULL);
	schema_add_column(s, "predict_score", CELL_F64, NULL);
	schema_add_column(s, "predict_detail", CELL_STRING, NULL);
	schema_add_column(s, "type", CELL_STRING, NULL);
	r = table_build_begin(ctx_store(l->c), s, &ret->b, e);
	schema_free(s);
	return r;
}

void linear_result_abort(struct linear_result *r)
{
	if (r->b)
		table_build_abort(r->b);
	r->b = NULL;
}

int linear_result_end(struct linear_result *r, size_t i, struct err *e)
{
	struct table_build *b = r->b;

	r->b = NULL;
	return ctx_put_table(r->l->c, i, b, e);
}

/* The row's result, score and detail from the models' scores. */
static void judge(const struct linear *l, const struct linear_set *set,
		  double *const *score, size_t row, double *result, double *p,
		  struct strbuf *detail)
{
	char num[NUM_MAX];
	unsigned k;

	sb_reset(detail);
	*p = score[0][row];
	(void)num_format(num, *p);
	if (l->f->regression) {
		*result = *p;
		(void)sb_addf(detail, "{\"label\": %s}", num);
		return;
	}
	if (!set->classes) {
		*result = *p > l->p.threshold;
		(void)num_format(num, 1 - *p);
		(void)sb_addf(detail, "{\"0\": %s, \"1\": ", num);
		(void)num_format(num, *p);
		(void)sb_addf(detail, "%s}", num);
		return;
	}
	k = best_class(set, score, row);
	*p = score[k][row];
	*result = set->classes[k];
	for (k = 0; k < set->n; k++) {
		(void)num_format(num, set->classes[k]);
		(void)sb_addf(detail, "%s\"%s\": ", k ? ", " : "{", num);
		(void)num_format(num, score[k][row]);
		(void)sb_adds(detail, num);
	}
	(void)sb_addc(detail, '}');
}

/* The label as the result's column has it. */
static void put_label(const struct linear_result *r,
		      const struct linear_data *d, const struct cell *cells,
		      struct cell *out)
{
	const struct cell *from =
	    d->label_column == SIZE_MAX ? NULL : &cells[d->label_column];

	if (from && from->type == r->label) {
		*out = *from;
		return;
	}
	*out = (struct cell){ .type = r->label, .f64 = NAN, .str = "" };
	if (from && from->type != CELL_STRING && r->label != CELL_STRING) {
		double v =
		    from->type == CELL_I64 ? (double)from->i64 : from->f64;

		out->f64 = v;
		out->i64 = isfinite(v) ? (int64_t)v : 0;
	}
}

struct adding {
	struct linear_result *r;
	const struct linear_set *set;
	const struct linear_data *d;
	double *const *score;
	const char *type;
	struct strbuf *detail;
};

static int add_row(struct adding *a, size_t row, const char *key, size_t len,
		   const struct cell *cells, struct err *e)
{
	struct cell out[5] = { 0 };
	double result;

	put_label(a->r, a->d, cells, &out[0]);
	out[2].type = CELL_F64;
	judge(a->r->l, a->set, a->score, row, &result, &out[2].f64, a->detail);
	out[1].type = a->r->result;
	out[1].i64 = a->r->result == CELL_I64 ? (int64_t)result : 0;
	out[1].f64 = result;
	out[3].type = out[4].type = CELL_STRING;
	out[3].str = a->detail->buf;
	out[3].len = a->detail->len;
	out[4].str = a->type;
	out[4].len = strlen(a->type);
	return table_build_add(a->r->b, key, len, out, e);
}

/* Is the key in the other table too? */
static int in_both(struct table_iter *other, const char **theirs, size_t *len,
		   const char *key, size_t n, bool *ret, struct err *e)
{
	const struct cell *cells;
	int order = -1;
	int r;

	*ret = false;
	while (*theirs) {
		order = memcmp(*theirs, key, MIN(*len, n));
		if (!order)
			order = (*len > n) - (*len < n);
		if (order >= 0)
			break;
		r = table_next(other, theirs, len, &cells, e);
		if (r < 0)
			return r;
		if (!r)
			*theirs = NULL;
	}
	*ret = *theirs && !order;
	return 0;
}

static int add_key(struct adding *a, size_t row, const char *key, size_t len,
		   const struct cell *cells, const char *suffix, bool with,
		   struct err *e)
{
	char name[TABLE_KEY_MAX + 1];
	size_t more = with ? strlen(suffix) : 0;

	if (!more)
		return add_row(a, row, key, len, cells, e);
	if (len + more > TABLE_KEY_MAX)
		return err_set(e, ENAMETOOLONG,
			       "an id is too long to get \"%s\" behind it",
			       suffix);
	memcpy(name, key, len);
	memcpy(name + len, suffix, more + 1);
	return add_row(a, row, name, len + more, cells, e);
}

int linear_result_add(struct linear_result *r, const struct linear_set *set,
		      const struct linear_data *d, double *const *score,
		      const char *type, const char *suffix,
		      const struct linear_data *twice, struct err *e)
{
	_cleanup_strbuf_ struct strbuf detail = STRBUF_INIT(TABLE_ROW_MAX / 2);
	struct adding a = { r, set, d, score, type, &detail };
	struct table_iter *it = NULL, *other = NULL;
	const struct cell *cells;
	const char *key, *theirs = "";
	size_t len, their_len = 0, row = 0, at = 0;
	int n = table_scan(d->table, NULL, 0, &it, e);

	if (n >= 0 && twice)
		n = table_scan(twice->table, NULL, 0, &other, e);
	while (n >= 0 && row < d->rows &&
	       (n = table_next(it, &key, &len, &cells, e)) > 0) {
		bool with = !twice;

		if (d->at && d->at[row] != at++)
			continue;
		if (twice)
			n = in_both(other, &theirs, &their_len, key, len, &with,
				    e);
		if (n >= 0)
			n = add_key(&a, row++, key, len, cells, suffix, with,
				    e);
	}
	if (it)
		table_scan_end(it);
	if (other)
		table_scan_end(other);
	return n < 0 ? n : 0;
}
