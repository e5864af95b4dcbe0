// SPDX-License-Identifier: Apache-2.0
/* HeteroLR at the guest: labels, intercept, batches, loss, predictions. */
#include <math.h>

#include "lib/json.h"

#include "components/linear.h"

struct guest {
	struct ctx *c;
	struct linear_params p;
	struct linear_data d;
	struct linear_plan plan;
	struct paillier_public *key;
	size_t hosts;
	double *classes; /* sorted; NULL: labels 1 and the rest */
	struct linear_model *models;
	uint32_t *order; /* all rows, shuffled */
	double *y;	 /* +1 and -1 in the model at hand */
	/* the batch at hand: the rows that hosts see, ascending */
	uint32_t *rows;
	bool *real; /* does rows[i] count? */
	size_t n, n_true;
	double *z, *half; /* of the rows that count, in order */
	uint32_t *true_rows;
	uint32_t *true_at; /* their place in rows */
};

/* ---- labels ----------------------------------------------------------- */

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

static int read_classes(struct guest *g, unsigned *ret, struct err *e)
{
	double *v = xcalloc(g->d.rows, sizeof(*v));
	bool one = false;
	size_t n = 0;

	memcpy(v, g->d.label, g->d.rows * sizeof(*v));
	qsort(v, g->d.rows, sizeof(*v), compare_double);
	for (size_t i = 0; i < g->d.rows; i++) {
		one |= v[i] == 1;
		if (!n || v[n - 1] < v[i])
			v[n++] = v[i];
	}
	*ret = n > 2 ? (unsigned)MIN(n, UINT32_MAX) : 1;
	if (n > 2) {
		g->classes = v;
		return n <= LINEAR_MODELS_MAX
			   ? 0
			   : err_set(e, EINVAL,
				     "the label has %zu classes: at most "
				     "%d are possible",
				     n, LINEAR_MODELS_MAX);
	}
	free(v);
	return one ? 0
		   : err_set(e, EINVAL,
			     "no row has the label 1, which is the positive "
			     "class");
}

/* ---- batches ---------------------------------------------------------- */

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a;
	uint32_t y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void shuffle(uint32_t *v, size_t n)
{
	for (size_t i = n; i > 1; i--) {
		size_t k = random_below((uint32_t)i);
		uint32_t t = v[i - 1];

		v[i - 1] = v[k];
		v[k] = t;
	}
}

/*
 * Rows [from, from + n_true) of the order count; a masked batch gets others
 * drawn at random from the rest.  Sorted, so that the order tells nothing.
 */
static void make_batch(struct guest *g, unsigned b)
{
	size_t from = b * g->plan.batch_size;
	_cleanup_free_ bool *counts = NULL;

	g->n_true = linear_batch_true(&g->plan, b);
	g->n = linear_batch_sent(&g->plan, b);
	memcpy(g->rows, g->order + from, g->n_true * sizeof(*g->rows));
	if (g->n > g->n_true) {
		size_t rest = g->plan.rows - g->n_true;
		_cleanup_free_ uint32_t *pool = xcalloc(rest, sizeof(*pool));

		memcpy(pool, g->order, from * sizeof(*pool));
		memcpy(pool + from, g->order + from + g->n_true,
		       (rest - from) * sizeof(*pool));
		shuffle(pool, rest);
		memcpy(g->rows + g->n_true, pool,
		       (g->n - g->n_true) * sizeof(*pool));
	}
	counts = xcalloc(g->plan.rows, sizeof(*counts));
	for (size_t i = 0; i < g->n_true; i++)
		counts[g->rows[i]] = true;
	qsort(g->rows, g->n, sizeof(*g->rows), compare_u32);
	for (size_t i = 0, k = 0; i < g->n; i++) {
		g->real[i] = counts[g->rows[i]];
		if (!g->real[i])
			continue;
		g->true_rows[k] = g->rows[i];
		g->true_at[k++] = (uint32_t)i;
	}
}

static int send_batch(struct guest *g, unsigned model, unsigned epoch,
		      const char *tag, struct err *e)
{
	int r = 0;

	if (g->plan.batch_size == g->plan.rows ||
	    (!g->plan.mutable_batches && (model || epoch)))
		return 0;
	for (size_t i = 0; i < g->hosts && r >= 0; i++)
		r = ctx_send_u32(g->c, "host", i, "batch_data_index", tag,
				 g->rows, g->n, e);
	return r;
}

/* ---- a batch ---------------------------------------------------------- */

/* The residual at zero: d = z / 4 - y / 2; half is our part of it. */
static void forward(struct guest *g, const struct linear_model *m)
{
	for (size_t i = 0; i < g->n_true; i++) {
		size_t row = g->true_rows[i];

		g->z[i] = linear_dot(m, g->d.x + row * g->d.cols);
		g->half[i] = g->z[i] / 4 - g->y[row] / 2;
	}
}

static int recv_forwards(struct guest *g, const char *tag, size_t host,
			 struct cipher_vec **ret, struct err *e)
{
	return linear_recv(g->c, g->key, "host", host, "host_forward_dict", tag,
			   g->n, LINEAR_SCALE, ret, e);
}

/* One host, all rows count: both sides send their half at the same time. */
static int exchange_async(struct guest *g, const char *tag,
			  struct cipher_vec **ret, struct err *e)
{
	_cleanup_cipher_ struct cipher_vec *half = NULL;
	int r = paillier_encrypt(g->key, g->half, g->n, LINEAR_SCALE,
				 ctx_cores(g->c), &half, e);

	if (r >= 0)
		r = linear_send(g->c, g->key, "host", 0, "fore_gradient", tag,
				half, e);
	if (r >= 0)
		r = recv_forwards(g, tag, 0, ret, e);
	return r;
}

/*
 * Sends every host the whole residual; fresh zeros where a row does not
 * count.  Our half is encrypted while the hosts compute, and its randomness
 * hides what was added.  ret holds the rows that count.
 */
static int exchange_sync(struct guest *g, const char *tag,
			 struct cipher_vec **ret, struct err *e)
{
	unsigned threads = ctx_cores(g->c);
	size_t rest = g->n - g->n_true;
	_cleanup_free_ double *v = xcalloc(g->n, sizeof(*v));
	_cleanup_free_ uint32_t *at = xcalloc(g->n, sizeof(*at));
	_cleanup_cipher_ struct cipher_vec *all = NULL;
	_cleanup_cipher_ struct cipher_vec *sum = NULL;
	_cleanup_cipher_ struct cipher_vec *out = NULL;
	int r;

	memcpy(v, g->half, g->n_true * sizeof(*v));
	r = paillier_encrypt(g->key, v, g->n, LINEAR_SCALE, threads, &all, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < g->n; i++)
		at[i] = (uint32_t)i;
	sum = cipher_gather(all, at, g->n_true);
	for (size_t k = 0; k < g->hosts; k++) {
		_cleanup_cipher_ struct cipher_vec *u = NULL;
		_cleanup_cipher_ struct cipher_vec *counted = NULL;

		r = recv_forwards(g, tag, k, &u, e);
		if (r < 0)
			return r;
		counted = cipher_gather(u, g->true_at, g->n_true);
		r = cipher_add(sum, counted, threads, e);
		if (r < 0)
			return r;
	}
	if (rest) {
		_cleanup_cipher_ struct cipher_vec *zero =
		    cipher_gather(all, at + g->n_true, rest);
		_cleanup_cipher_ struct cipher_vec *both =
		    cipher_concat(sum, zero);

		for (size_t i = 0, t = 0, f = 0; i < g->n; i++)
			at[i] = (uint32_t)(g->real[i] ? t++ : g->n_true + f++);
		out = cipher_gather(both, at, g->n);
	}
	for (size_t k = 0; k < g->hosts && r >= 0; k++)
		r = linear_send(g->c, g->key, "host", k, "fore_gradient", tag,
				out ? out : sum, e);
	if (r >= 0)
		*ret = TAKE_PTR(sum);
	return r;
}

/* Adds the host's part of the loss to the last element of grad. */
static int add_host_loss(struct guest *g, const char *tag,
			 struct cipher_vec **grad, struct err *e)
{
	unsigned threads = ctx_cores(g->c);
	size_t m = cipher_vec_len(*grad) - 1;
	size_t parts = (g->n > g->n_true ? g->n : 0) + 1;
	_cleanup_free_ uint32_t *at = xcalloc(m + 1, sizeof(*at));
	_cleanup_free_ double *ones = xcalloc(parts, sizeof(*ones));
	_cleanup_cipher_ struct cipher_vec *in = NULL;
	_cleanup_cipher_ struct cipher_vec *sum = NULL;
	_cleanup_cipher_ struct cipher_vec *head = NULL;
	_cleanup_cipher_ struct cipher_vec *last = NULL;
	int r = linear_recv(g->c, g->key, "host", 0, "loss_intermediate", tag,
			    parts, g->plan.gradient_scale, &in, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i + 1 < parts; i++)
		ones[i] = g->real[i];
	ones[parts - 1] = 1;
	if (parts > 1) {
		r = cipher_matvec(in, ones, parts, 1, 0, threads, &sum, e);
		if (r < 0)
			return r;
	} else {
		sum = TAKE_PTR(in);
	}
	for (size_t i = 0; i <= m; i++)
		at[i] = (uint32_t)i;
	head = cipher_gather(*grad, at, m);
	last = cipher_gather(*grad, at + m, 1);
	r = cipher_add(last, sum, threads, e);
	if (r < 0)
		return r;
	cipher_vec_free(*grad);
	*grad = cipher_concat(head, last);
	return 0;
}

/*
 * Columns of the product with the encrypted part: the features, the
 * intercept's ones, and for the loss z_g - 2y, for with z = z_g + 4u
 *   ln2 - yz/2 + z^2/8 = ln2 - y z_g/2 + z_g^2/8 + (z_g - 2y) u + z_h^2/8.
 * In the synchronous path the encrypted part is d = half + u, so the share of
 * half is taken off again in clear.
 */
static int send_gradient(struct guest *g, const struct linear_model *m,
			 const struct cipher_vec *d, const char *tag,
			 struct err *e)
{
	unsigned threads = ctx_cores(g->c);
	size_t cols = m->cols + m->intercept + g->plan.loss;
	size_t nw = m->cols + m->intercept;
	double n = (double)g->n_true;
	_cleanup_free_ double *x = xcalloc(g->n_true * cols, sizeof(*x));
	_cleanup_free_ double *plain = xcalloc(cols + 1, sizeof(*plain));
	_cleanup_cipher_ struct cipher_vec *grad = NULL;
	int r;

	for (size_t i = 0; i < g->n_true; i++) {
		size_t row = g->true_rows[i];
		double y = g->y[row];
		double z = g->z[i];
		double *to = x + i * cols;

		for (size_t j = 0; j < m->cols; j++)
			to[j] = g->d.x[row * m->cols + j] / n;
		if (m->intercept)
			to[m->cols] = 1 / n;
		if (g->plan.loss) {
			to[nw] = (z - 2 * y) / n;
			plain[nw] += (z * z / 8 - y * z / 2) / n;
			if (!g->plan.async)
				plain[nw] -= to[nw] * g->half[i];
		}
		for (size_t j = 0; g->plan.async && j < nw; j++)
			plain[j] += to[j] * g->half[i];
	}
	if (g->p.penalty == PENALTY_L2)
		for (size_t j = 0; j < m->cols; j++)
			plain[j] += g->p.alpha * m->w[j];
	if (g->plan.loss)
		plain[nw] += log(2) + weights_penalty(m->w, m->cols,
						      g->p.penalty, g->p.alpha);
	r = cipher_matvec(d, x, g->n_true, cols, g->plan.x_scale, threads,
			  &grad, e);
	if (r >= 0)
		r = cipher_add_plain(grad, plain, threads, e);
	if (r >= 0 && g->plan.loss)
		r = add_host_loss(g, tag, &grad, e);
	if (r >= 0)
		r = cipher_rerandomise(grad, threads, e);
	if (r >= 0)
		r = linear_send(g->c, g->key, "arbiter", 0, "guest_gradient",
				tag, grad, e);
	return r;
}

static int batch(struct guest *g, unsigned model, unsigned epoch, unsigned b,
		 struct err *e)
{
	struct linear_model *m = &g->models[model];
	_cleanup_cipher_ struct cipher_vec *d = NULL;
	char tag[LINEAR_TAG];
	int r;

	linear_tag(tag, &g->plan, model, epoch, b);
	make_batch(g, b);
	r = send_batch(g, model, epoch, tag, e);
	if (r < 0)
		return r;
	forward(g, m);
	r = g->plan.async ? exchange_async(g, tag, &d, e)
			  : exchange_sync(g, tag, &d, e);
	if (r >= 0)
		r = send_gradient(g, m, d, tag, e);
	if (r >= 0)
		r = linear_model_step(g->c, m, &g->p, "guest_optim_gradient",
				      tag, epoch, e);
	return r;
}

static int fit(struct guest *g, unsigned model, struct err *e)
{
	struct linear_model *m = &g->models[model];
	double positive = g->classes ? g->classes[model] : 1;
	int r;

	linear_model_init(m, &g->p, g->d.cols, g->p.fit_intercept);
	for (size_t i = 0; i < g->d.rows; i++)
		g->y[i] = g->d.label[i] == positive ? 1 : -1;
	for (unsigned t = 0; t < g->p.max_iter && !m->converged; t++) {
		/* Without shuffle only the mask of a batch changes. */
		if (g->plan.mutable_batches &&
		    (g->p.shuffle || g->p.random_batch))
			shuffle(g->order, g->plan.rows);
		for (unsigned b = 0; b < g->plan.batches; b++) {
			r = batch(g, model, t, b, e);
			if (r < 0)
				return r;
		}
		r = linear_model_epoch(g->c, m, &g->plan, model, t, e);
		if (r < 0)
			return r;
		ctx_progress(g->c, (model + (t + 1.0) / g->p.max_iter) /
				       g->plan.models);
	}
	return 0;
}

/* ---- prediction ------------------------------------------------------- */

static double sigmoid(double z)
{
	return z >= 0 ? 1 / (1 + exp(-z)) : exp(z) / (1 + exp(z));
}

/* Scores of one model for every row. */
static int predict(struct guest *g, unsigned model, double *score,
		   struct err *e)
{
	_cleanup_free_ double *z = xcalloc(g->d.rows, sizeof(*z));
	char tag[LINEAR_TAG];
	int r;

	(void)snprintf(tag, sizeof(tag), "%u", model);
	for (size_t i = 0; i < g->d.rows; i++)
		score[i] =
		    linear_dot(&g->models[model], g->d.x + i * g->d.cols);
	for (size_t k = 0; k < g->hosts; k++) {
		r = ctx_recv_f64(g->c, "host", k, "host_prob", tag, z,
				 g->d.rows, e);
		if (r < 0)
			return r;
		for (size_t i = 0; i < g->d.rows; i++)
			score[i] += z[i];
	}
	for (size_t i = 0; i < g->d.rows; i++)
		score[i] = sigmoid(score[i]);
	return 0;
}

/* The row's result, score and detail from the models' scores. */
static void judge(const struct guest *g, double *const *score, size_t row,
		  double *result, double *p, struct strbuf *detail)
{
	char num[NUM_MAX];

	sb_reset(detail);
	*result = 0;
	*p = score[0][row];
	if (!g->classes) {
		*result = *p > g->p.threshold;
		(void)num_format(num, 1 - *p);
		(void)sb_addf(detail, "{\"0\": %s, \"1\": ", num);
		(void)num_format(num, *p);
		(void)sb_addf(detail, "%s}", num);
		return;
	}
	*result = g->classes[0];
	for (unsigned k = 0; k < g->plan.models; k++) {
		if (score[k][row] > *p) {
			*p = score[k][row];
			*result = g->classes[k];
		}
		(void)num_format(num, score[k][row]);
		(void)sb_addf(detail, "%s\"%.15g\": %s", k ? ", " : "{",
			      g->classes[k], num);
	}
	(void)sb_addc(detail, '}');
}

static int add_rows(struct guest *g, double *const *score,
		    struct table_build *b, struct err *e)
{
	static const char train[] = "train";
	_cleanup_strbuf_ struct strbuf detail = STRBUF_INIT(TABLE_ROW_MAX / 2);
	struct table_iter *it;
	const struct cell *cells;
	const char *key;
	size_t len;
	size_t row = 0;
	int r = table_scan(g->d.table, NULL, 0, &it, e);

	if (r < 0)
		return r;
	while ((r = table_next(it, &key, &len, &cells, e)) > 0) {
		struct cell out[5] = { 0 };
		double result;

		out[0] = cells[g->d.label_column];
		out[2].type = CELL_F64;
		judge(g, score, row++, &result, &out[2].f64, &detail);
		/* Classes are whole numbers, but for a strange label. */
		out[1].type = g->classes ? CELL_F64 : CELL_I64;
		out[1].i64 = (int64_t)result;
		out[1].f64 = result;
		out[3].type = out[4].type = CELL_STRING;
		out[3].str = detail.buf;
		out[3].len = detail.len;
		out[4].str = train;
		out[4].len = sizeof(train) - 1;
		if (g->classes &&
		    table_schema(g->d.table)->columns[g->d.label_column].type ==
			CELL_I64)
			out[1].type = CELL_I64;
		r = table_build_add(b, key, len, out, e);
		if (r < 0)
			break;
	}
	table_scan_end(it);
	return r;
}

static int publish_scores(struct guest *g, double *const *score, struct err *e)
{
	const struct table_schema *in = table_schema(g->d.table);
	enum cell_type label = in->columns[g->d.label_column].type;
	struct table_schema *s = schema_new();
	struct table_build *b = NULL;
	int r;

	free(s->id);
	s->id = xstrdup(in->id ? in->id : "id");
	free(s->content_type);
	s->content_type = xstrdup("predict_result");
	s->partitions = in->partitions;
	schema_add_column(s, "label", label, NULL);
	schema_add_column(s, "predict_result",
			  g->classes && label != CELL_I64 ? CELL_F64 : CELL_I64,
			  NULL);
	schema_add_column(s, "predict_score", CELL_F64, NULL);
	schema_add_column(s, "predict_detail", CELL_STRING, NULL);
	schema_add_column(s, "type", CELL_STRING, NULL);
	r = table_build_begin(ctx_store(g->c), s, &b, e);
	schema_free(s);
	if (r < 0)
		return r;
	r = add_rows(g, score, b, e);
	if (r < 0) {
		table_build_abort(b);
		return r;
	}
	return ctx_put_table(g->c, 0, b, e);
}

/* ---- the whole -------------------------------------------------------- */

static int check_legality(struct guest *g, struct err *e)
{
	int r;

	for (size_t i = 0; i < g->hosts; i++) {
		json_t *o;
		bool ok;
		int64_t least;

		r = ctx_recv_json(g->c, "host", i, "batch_validate_info", "",
				  &o, e);
		if (r < 0)
			return r;
		ok = json_bool_or(o, "legality", false);
		least = json_int_or(o, "least_batch_size", 0);
		json_decref(o);
		if (ok)
			continue;
		ctx_fail_code(g->c, "batch_too_small",
			      "a batch must have more rows than a party has "
			      "columns");
		return err_set(e, EINVAL,
			       "host %s needs batches of at least %lld rows: "
			       "batch_size is too small",
			       ctx_member(g->c, "host", i), (long long)least);
	}
	return 0;
}

static void allocate(struct guest *g)
{
	size_t n = g->d.rows;

	g->models = xcalloc(g->plan.models, sizeof(*g->models));
	g->order = xcalloc(n, sizeof(*g->order));
	for (size_t i = 0; i < n; i++)
		g->order[i] = (uint32_t)i;
	g->y = xcalloc(n, sizeof(*g->y));
	g->rows = xcalloc(n, sizeof(*g->rows));
	g->real = xcalloc(n, sizeof(*g->real));
	g->z = xcalloc(n, sizeof(*g->z));
	g->half = xcalloc(n, sizeof(*g->half));
	g->true_rows = xcalloc(n, sizeof(*g->true_rows));
	g->true_at = xcalloc(n, sizeof(*g->true_at));
}

static int run(struct guest *g, double ***score, struct err *e)
{
	unsigned models;
	int r;

	if ((r = linear_params_read(g->c, &g->p, e)) < 0 ||
	    (r = linear_data_read(g->c, &g->d, e)) < 0 ||
	    (r = read_classes(g, &models, e)) < 0 ||
	    (r = linear_data_agree(g->c, &g->d, e)) < 0)
		return r;
	linear_plan_make(g->c, &g->p, g->d.rows, models, &g->plan);
	allocate(g);
	if ((r = linear_plan_send(g->c, &g->plan, e)) < 0 ||
	    (r = check_legality(g, e)) < 0 ||
	    (r = linear_recv_key(g->c, &g->p, &g->key, e)) < 0)
		return r;
	*score = xcalloc(models, sizeof(**score));
	for (unsigned k = 0; k < models; k++) {
		(*score)[k] = xcalloc(g->d.rows, sizeof(***score));
		if ((r = fit(g, k, e)) < 0 ||
		    (r = predict(g, k, (*score)[k], e)) < 0)
			return r;
	}
	r = linear_publish(g->c, &g->d, g->models, models, g->classes, e);
	return r < 0 ? r : publish_scores(g, *score, e);
}

int hetero_lr_guest(struct ctx *c, struct err *e)
{
	struct guest g = { .c = c, .hosts = ctx_count(c, "host") };
	double **score = NULL;
	int r = run(&g, &score, e);

	for (unsigned k = 0; k < g.plan.models; k++) {
		if (g.models)
			linear_model_free(&g.models[k]);
		if (score)
			free(score[k]);
	}
	free(score);
	free(g.models);
	free(g.order);
	free(g.y);
	free(g.rows);
	free(g.real);
	free(g.z);
	free(g.half);
	free(g.true_rows);
	free(g.true_at);
	free(g.classes);
	paillier_public_free(g.key);
	linear_data_free(&g.d);
	return r;
}
