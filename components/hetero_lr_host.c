// SPDX-License-Identifier: Apache-2.0
/* HeteroLR at a host: features without labels. */
#include "components/linear.h"

struct host {
	struct ctx *c;
	struct linear_params p;
	struct linear_data d;
	struct linear_plan plan;
	struct paillier_public *key;
	struct linear_model *models;
	/* the batch at hand */
	const uint32_t *rows; /* NULL: all */
	size_t n;
	size_t n_true;
	double *z;	 /* x.w of its rows */
	uint32_t **kept; /* index lists of batches that never change */
};

static const double *row_of(const struct host *h, size_t i)
{
	return h->d.x + (h->rows ? h->rows[i] : i) * h->d.cols;
}

/* Which rows make up the batch: all, sent once, or sent every epoch. */
static int batch_rows(struct host *h, unsigned model, unsigned epoch,
		      unsigned b, struct err *e)
{
	char tag[LINEAR_TAG];
	size_t n;
	int r;

	h->n = linear_batch_sent(&h->plan, b);
	h->n_true = linear_batch_true(&h->plan, b);
	h->rows = NULL;
	if (h->plan.batch_size == h->plan.rows)
		return 0;
	if (h->plan.mutable_batches || !h->kept[b]) {
		free(h->kept[b]);
		h->kept[b] = NULL;
		linear_tag(tag, &h->plan, model, epoch, b);
		r = ctx_recv_u32(h->c, "guest", 0, "batch_data_index", tag,
				 h->n, &h->kept[b], &n, e);
		if (r < 0)
			return r;
		if (n != h->n)
			return err_set(e, EPROTO,
				       "batch_data_index: %zu rows where %zu "
				       "are due",
				       n, h->n);
		/* Ascending: no row twice, and the order says nothing. */
		for (size_t i = 0; i < n; i++)
			if (h->kept[b][i] >= h->plan.rows ||
			    (i && h->kept[b][i] <= h->kept[b][i - 1]))
				return err_set(e, EPROTO,
					       "batch_data_index: bad row");
	}
	h->rows = h->kept[b];
	return 0;
}

/* [[x.w / 4]], and what the loss needs of us. */
static int send_forward(struct host *h, const struct linear_model *m,
			const char *tag, struct err *e)
{
	bool masked = h->n != h->n_true;
	_cleanup_cipher_ struct cipher_vec *u = NULL;
	_cleanup_cipher_ struct cipher_vec *part = NULL;
	_cleanup_free_ double *v = xcalloc(h->n + 1, sizeof(*v));
	size_t parts = masked ? h->n : 0;
	double sum = 0;
	int r;

	for (size_t i = 0; i < h->n; i++) {
		h->z[i] = linear_dot(m, row_of(h, i));
		v[i] = h->z[i] / 4;
	}
	r = paillier_encrypt(h->key, v, h->n, LINEAR_SCALE, ctx_cores(h->c), &u,
			     e);
	if (r >= 0)
		r = linear_send(h->c, h->key, "guest", 0, "host_forward_dict",
				tag, u, e);
	if (r < 0 || !h->plan.loss)
		return r;
	/* Of a masked batch the guest alone knows which rows count: a term
	 * for each row; the penalty stands behind them. */
	for (size_t i = 0; i < h->n; i++) {
		v[i] = h->z[i] * h->z[i] / 8 / (double)h->n_true;
		sum += v[i];
	}
	v[parts] = weights_penalty(m->w, m->cols, h->p.penalty, h->p.alpha) +
		   (masked ? 0 : sum);
	r = paillier_encrypt(h->key, v, parts + 1, h->plan.gradient_scale,
			     ctx_cores(h->c), &part, e);
	if (r >= 0)
		r = linear_send(h->c, h->key, "guest", 0, "loss_intermediate",
				tag, part, e);
	return r;
}

static int send_gradient(struct host *h, const struct linear_model *m,
			 const char *tag, struct err *e)
{
	unsigned threads = ctx_cores(h->c);
	size_t cols = h->d.cols;
	_cleanup_free_ double *x = xcalloc(h->n * cols, sizeof(*x));
	_cleanup_free_ double *plain = xcalloc(cols, sizeof(*plain));
	_cleanup_cipher_ struct cipher_vec *d = NULL;
	_cleanup_cipher_ struct cipher_vec *g = NULL;
	int r;

	for (size_t i = 0; i < h->n; i++)
		for (size_t j = 0; j < cols; j++) {
			double v = row_of(h, i)[j] / (double)h->n_true;

			x[i * cols + j] = v;
			if (h->plan.async)
				plain[j] += v * h->z[i] / 4;
		}
	if (h->p.penalty == PENALTY_L2)
		for (size_t j = 0; j < cols; j++)
			plain[j] += h->p.alpha * m->w[j];
	r = linear_recv(h->c, h->key, "guest", 0, "fore_gradient", tag, h->n,
			LINEAR_SCALE, &d, e);
	if (r >= 0)
		r = cipher_matvec(d, x, h->n, cols, h->plan.x_scale, threads,
				  &g, e);
	if (r >= 0)
		r = cipher_add_plain(g, plain, threads, e);
	if (r >= 0)
		r = cipher_rerandomise(g, threads, e);
	if (r >= 0)
		r = linear_send(h->c, h->key, "arbiter", 0, "host_gradient",
				tag, g, e);
	return r;
}

static int fit(struct host *h, unsigned model, struct err *e)
{
	struct linear_model *m = &h->models[model];
	char tag[LINEAR_TAG];
	int r;

	linear_model_init(m, &h->p, h->d.cols, false);
	for (unsigned t = 0; t < h->p.max_iter && !m->converged; t++) {
		for (unsigned b = 0; b < h->plan.batches; b++) {
			linear_tag(tag, &h->plan, model, t, b);
			if ((r = batch_rows(h, model, t, b, e)) < 0 ||
			    (r = send_forward(h, m, tag, e)) < 0 ||
			    (r = send_gradient(h, m, tag, e)) < 0 ||
			    (r = linear_model_step(h->c, m, &h->p,
						   "host_optim_gradient", tag,
						   t, e)) < 0)
				return r;
		}
		r = linear_model_epoch(h->c, m, &h->plan, model, t, e);
		if (r < 0)
			return r;
		ctx_progress(h->c, (model + (t + 1.0) / h->p.max_iter) /
				       h->plan.models);
	}
	h->rows = NULL;
	return 0;
}

/* x.w of every row goes to the guest in clear, as in FATE. */
static int predict(struct host *h, unsigned model, struct err *e)
{
	_cleanup_free_ double *z = xcalloc(h->d.rows, sizeof(*z));
	char tag[LINEAR_TAG];

	for (size_t i = 0; i < h->d.rows; i++)
		z[i] = linear_dot(&h->models[model], h->d.x + i * h->d.cols);
	(void)snprintf(tag, sizeof(tag), "%u", model);
	return ctx_send_f64(h->c, "guest", 0, "host_prob", tag, z, h->d.rows,
			    e);
}

static int send_legality(struct host *h, struct err *e)
{
	json_t *o = json_pack("{s:b, s:I}", "legality",
			      linear_plan_legal(&h->plan, h->d.cols),
			      "least_batch_size", (json_int_t)h->d.cols + 1);
	int r =
	    ctx_send_json(h->c, "guest", 0, "batch_validate_info", "", o, e);

	json_decref(o);
	if (r < 0)
		return r;
	if (linear_plan_legal(&h->plan, h->d.cols))
		return 0;
	ctx_fail_code(h->c, "batch_too_small",
		      "a batch must have more rows than a party has columns");
	return err_set(e, EINVAL,
		       "a batch of %zu rows must have more rows than this "
		       "party's %zu columns",
		       linear_batch_sent(&h->plan, h->plan.batches - 1),
		       h->d.cols);
}

static int run(struct host *h, struct err *e)
{
	int r;

	if ((r = linear_params_read(h->c, &h->p, e)) < 0 ||
	    (r = linear_data_read(h->c, &h->d, e)) < 0 ||
	    (r = linear_data_agree(h->c, &h->d, e)) < 0 ||
	    (r = linear_plan_recv(h->c, &h->p, h->d.rows, &h->plan, e)) < 0 ||
	    (r = send_legality(h, e)) < 0 ||
	    (r = linear_recv_key(h->c, &h->p, &h->key, e)) < 0)
		return r;
	h->models = xcalloc(h->plan.models, sizeof(*h->models));
	h->kept = xcalloc(h->plan.batches, sizeof(*h->kept));
	h->z = xcalloc(h->d.rows, sizeof(*h->z));
	for (unsigned k = 0; k < h->plan.models; k++)
		if ((r = fit(h, k, e)) < 0 || (r = predict(h, k, e)) < 0)
			return r;
	return linear_publish(h->c, &h->d, h->models, h->plan.models, NULL, e);
}

int hetero_lr_host(struct ctx *c, struct err *e)
{
	struct host h = { .c = c };
	int r = run(&h, e);

	for (unsigned k = 0; h.models && k < h.plan.models; k++)
		linear_model_free(&h.models[k]);
	for (unsigned b = 0; h.kept && b < h.plan.batches; b++)
		free(h.kept[b]);
	free(h.models);
	free(h.kept);
	free(h.z);
	paillier_public_free(h.key);
	linear_data_free(&h.d);
	return r;
}
