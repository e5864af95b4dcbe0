// SPDX-License-Identifier: Apache-2.0
/* A batch of the coordinated linear models at a host: features, no labels. */
#include <math.h>

#include "components/linear.h"

struct host_batch {
	const uint32_t *rows; /* NULL: all */
	size_t n, n_true;
	double *share; /* of its rows */
	double *z;
	uint32_t **kept; /* index lists of batches that never change */
};

static const double *row_of(const struct linear_fit *f, size_t i)
{
	const struct host_batch *h = f->h;

	return f->d->x + (h->rows ? h->rows[i] : i) * f->d->cols;
}

int host_begin(struct linear_fit *f, struct err *e)
{
	struct linear *l = f->l;
	json_t *o;
	bool legal;
	int r = linear_plan_recv(l, f->flow, f->d->rows, &f->plan, e);

	if (r < 0)
		return r;
	legal = linear_plan_legal(&f->plan, f->d->cols);
	o = json_pack("{s:b, s:I}", "legality", legal, "least_batch_size",
		      (json_int_t)f->d->cols + 1);
	r = ctx_send_json(l->c, "guest", 0, "batch_validate_info", f->flow, o,
			  e);
	json_decref(o);
	if (r < 0)
		return r;
	if (!legal) {
		ctx_fail_code(l->c, "batch_too_small",
			      "a batch must have more rows than a party has "
			      "columns");
		return err_set(e, EINVAL,
			       "a batch of %zu rows must have more rows than "
			       "this party's %zu columns",
			       linear_batch_sent(&f->plan, f->plan.batches - 1),
			       f->d->cols);
	}
	f->h = xcalloc(1, sizeof(*f->h));
	f->h->kept = xcalloc(f->plan.batches, sizeof(*f->h->kept));
	f->h->z = xcalloc(f->d->rows + 1, sizeof(*f->h->z));
	f->h->share = xcalloc(f->d->rows + 1, sizeof(*f->h->share));
	return 0;
}

void host_free(struct linear_fit *f)
{
	struct host_batch *h = f->h;

	if (!h)
		return;
	for (unsigned b = 0; b < f->plan.batches; b++)
		free(h->kept[b]);
	free(h->kept);
	free(h->z);
	free(h->share);
	free(h);
	f->h = NULL;
}

/* Ascending: no row twice, and the order says nothing. */
static int check_rows(const uint32_t *v, size_t n, size_t due, size_t rows,
		      struct err *e)
{
	if (n != due)
		return err_set(e, EPROTO,
			       "batch_data_index: %zu rows where %zu are due",
			       n, due);
	for (size_t i = 0; i < n; i++)
		if (v[i] >= rows || (i && v[i] <= v[i - 1]))
			return err_set(e, EPROTO, "batch_data_index: bad row");
	return 0;
}

/* Which rows make up the batch: all, sent once, or sent every epoch. */
static int batch_rows(struct linear_fit *f, unsigned b, const char *tag,
		      struct err *e)
{
	struct host_batch *h = f->h;
	size_t n;
	int r;

	h->n = linear_batch_sent(&f->plan, b);
	h->n_true = linear_batch_true(&f->plan, b);
	h->rows = NULL;
	if (f->plan.batch_size == f->plan.rows)
		return 0;
	if (f->plan.mutable_batches || !h->kept[b]) {
		free(h->kept[b]);
		h->kept[b] = NULL;
		r = ctx_recv_u32(f->l->c, "guest", 0, "batch_data_index", tag,
				 h->n, &h->kept[b], &n, e);
		if (r >= 0)
			r = check_rows(h->kept[b], n, h->n, f->plan.rows, e);
		if (r < 0)
			return r;
	}
	h->rows = h->kept[b];
	return 0;
}

/*
 * What the loss needs of us: the sum over the rows and the penalty, or a term
 * for each row when the guest alone knows which count and how much; then the
 * penalty stands last.
 */
static int send_parts(struct linear_fit *f, const char *tag, struct err *e)
{
	const struct linear_params *p = &f->l->p;
	const struct linear_plan *plan = &f->plan;
	struct host_batch *h = f->h;
	size_t n = MAX(h->n, (size_t)plan->pack.per);
	_cleanup_free_ double *v = xcalloc(n + 1, sizeof(*v));
	_cleanup_cipher_ struct cipher_vec *part = NULL;
	double sum = weights_penalty(f->m->w, f->m->cols, p->penalty, p->alpha);
	int r;

	if (plan->pick) {
		for (size_t i = 0; i < h->n; i++)
			v[i] = f->l->f->part(h->z[i]);
		v[h->n] = sum;
		r = linear_encrypt(f, v, h->n + 1, LINEAR_SUM_BITS, &part, e);
	} else {
		for (size_t i = 0; i < h->n; i++)
			sum += f->l->f->part(h->z[i]) / (double)h->n_true;
		r = linear_fits(f->l, &sum, 1, LINEAR_SUM_BITS, e);
		if (r < 0)
			return r;
		v[plan->pack.per - 1] = sum; /* where products are */
		r = plan->packed
			? paillier_encrypt_packed(
			      f->l->key, NULL, v, plan->pack.per,
			      plan->gradient_scale, &plan->pack,
			      ctx_cores(f->l->c), &part, e)
			: paillier_encrypt(f->l->key, v, 1,
					   plan->gradient_scale,
					   ctx_cores(f->l->c), &part, e);
	}
	if (r >= 0)
		r = linear_send(f->l, "guest", 0, "loss_intermediate", tag,
				part, e);
	return r;
}

static int send_forward(struct linear_fit *f, const char *tag, struct err *e)
{
	struct linear *l = f->l;
	struct host_batch *h = f->h;
	_cleanup_cipher_ struct cipher_vec *u = NULL;
	int r;

	for (size_t i = 0; i < h->n; i++) {
		h->z[i] = linear_dot(f->m, row_of(f, i));
		h->share[i] = l->f->share(h->z[i]);
	}
	r = linear_encrypt(f, h->share, h->n, LINEAR_D_BITS, &u, e);
	if (r >= 0)
		r = linear_send(l, "guest", 0, l->f->share_name, tag, u, e);
	if (r >= 0 && f->plan.loss)
		r = send_parts(f, tag, e);
	return r;
}

/*
 * The columns of the product: features over the number of rows; where the
 * guest sends its half and its factors, for the latter times our shares.
 * Where all rows count as they are, our half is added in clear.
 */
static void gradient_columns(const struct linear_fit *f, double *x,
			     double *plain)
{
	const struct linear_params *p = &f->l->p;
	const struct host_batch *h = f->h;
	const bool both = f->plan.async && f->plan.pick;
	const size_t cols = f->d->cols, behind = linear_room(&f->plan, h->n);

	for (size_t i = 0; i < h->n; i++)
		for (size_t j = 0; j < cols; j++) {
			double v = row_of(f, i)[j] / (double)h->n_true;

			x[i * cols + j] = v;
			if (both)
				x[(behind + i) * cols + j] = v * h->share[i];
			else if (f->plan.async)
				plain[j] += v * h->share[i];
		}
	if (p->penalty == PENALTY_L2)
		for (size_t j = 0; j < cols; j++)
			plain[j] += p->alpha * f->m->w[j];
}

static int send_gradient(struct linear_fit *f, const char *tag, struct err *e)
{
	struct linear *l = f->l;
	const struct linear_plan *plan = &f->plan;
	size_t cols = f->d->cols;
	size_t n = f->h->n +
		   (plan->async && plan->pick ? linear_room(plan, f->h->n) : 0);
	_cleanup_free_ double *x = xcalloc(n * cols + 1, sizeof(*x));
	_cleanup_free_ double *plain = xcalloc(cols + 1, sizeof(*plain));
	_cleanup_cipher_ struct cipher_vec *d = NULL;
	_cleanup_cipher_ struct cipher_vec *g = NULL;
	int r;

	gradient_columns(f, x, plain);
	r = linear_recv(l, "guest", 0, "fore_gradient", tag,
			linear_packed(plan, n), plan->residual_scale, &d, e);
	if (r >= 0)
		r = linear_product(f, d, x, n, cols, &g, e);
	if (r >= 0)
		r = linear_product_end(f, g, plain, e);
	if (r >= 0)
		r = linear_send(l, "arbiter", 0, "host_gradient", tag, g, e);
	return r;
}

int host_batch(struct linear_fit *f, unsigned epoch, unsigned b, struct err *e)
{
	char tag[LINEAR_TAG];
	int r;

	linear_tag(tag, f->flow, epoch, b);
	if ((r = batch_rows(f, b, tag, e)) < 0 ||
	    (r = send_forward(f, tag, e)) < 0 ||
	    (r = send_gradient(f, tag, e)) < 0)
		return r;
	return linear_model_step(f->l, f->m, tag, epoch, e);
}
