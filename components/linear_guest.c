// SPDX-License-Identifier: Apache-2.0
/*
 * A batch of the coordinated linear models at the guest: labels, weights,
 * intercept, which rows count, the loss.
 */
#include <math.h>

#include "lib/json.h"

#include "components/linear.h"

struct guest_batch {
	uint32_t *order; /* all rows, shuffled */
	/* the batch at hand: the rows that hosts see, ascending */
	uint32_t *rows;
	bool *real; /* does rows[i] count? */
	size_t n, n_true;
	uint32_t *true_rows;
	uint32_t *true_at;	    /* their place in rows */
	struct linear_terms *terms; /* of the rows that count, in order */
};

/* ---- the beginning -------------------------------------------------------
 */

static int check_legality(struct linear_fit *f, struct err *e)
{
	struct linear *l = f->l;
	int r;

	for (size_t i = 0; i < l->hosts; i++) {
		json_t *o;
		bool ok;
		int64_t least;
		size_t n;

		r = ctx_recv_json(l->c, "host", i, "batch_validate_info",
				  f->flow, &o, e);
		if (r < 0)
			return r;
		ok = json_bool_or(o, "legality", false);
		least = json_int_or(o, "least_batch_size", 0);
		json_decref(o);
		if (ok)
			continue;
		ctx_fail_code(l->c, "batch_too_small",
			      "a batch must have more rows than a party has "
			      "columns");
		n = linear_batch_sent(&f->plan, f->plan.batches - 1);
		if (f->plan.batches == 1)
			return err_set(e, EINVAL,
				       "%zu rows are too few: host %s needs at "
				       "least %lld, more than it has columns",
				       n, ctx_member(l->c, "host", i),
				       (long long)least);
		return err_set(e, EINVAL,
			       "the last of %u batches has %zu rows, host %s "
			       "needs at least %lld: another batch_size leaves "
			       "a larger rest",
			       f->plan.batches, n, ctx_member(l->c, "host", i),
			       (long long)least);
	}
	return 0;
}

/* Weights of the rows with the mean 1. */
static int scale_weights(struct linear_fit *f, struct err *e)
{
	const struct linear_data *d = f->d;
	double sum = 0;

	if (!d->weight || f->l->f->factors)
		return 0;
	for (size_t i = 0; i < d->rows; i++)
		sum += d->weight[i];
	if (!(sum > 0))
		return err_set(e, EINVAL, "the sample weights are all zero");
	if (!isfinite(sum * (double)d->rows))
		return err_set(e, ERANGE, "the sample weights are too large");
	f->weight = xcalloc(d->rows + 1, sizeof(*f->weight));
	for (size_t i = 0; i < d->rows; i++)
		f->weight[i] = d->weight[i] * (double)d->rows / sum;
	return 0;
}

int guest_begin(struct linear_fit *f, struct err *e)
{
	size_t n = f->d->rows;
	struct guest_batch *g;
	int r = scale_weights(f, e);

	if (r < 0)
		return r;
	linear_plan_make(f->l, n, f->weight != NULL, f->start, &f->plan);
	if ((r = linear_plan_send(f->l, f->flow, &f->plan, e)) < 0 ||
	    (r = check_legality(f, e)) < 0)
		return r;
	f->g = g = xcalloc(1, sizeof(*g));
	g->order = xcalloc(n + 1, sizeof(*g->order));
	for (size_t i = 0; i < n; i++)
		g->order[i] = (uint32_t)i;
	g->rows = xcalloc(n + 1, sizeof(*g->rows));
	g->real = xcalloc(n + 1, sizeof(*g->real));
	g->true_rows = xcalloc(n + 1, sizeof(*g->true_rows));
	g->true_at = xcalloc(n + 1, sizeof(*g->true_at));
	g->terms = xcalloc(n + 1, sizeof(*g->terms));
	return 0;
}

void guest_free(struct linear_fit *f)
{
	struct guest_batch *g = f->g;

	if (!g)
		return;
	free(g->order);
	free(g->rows);
	free(g->real);
	free(g->true_rows);
	free(g->true_at);
	free(g->terms);
	free(g);
	f->g = NULL;
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

void guest_epoch(struct linear_fit *f)
{
	/* Without shuffle only the mask of a batch changes. */
	if (f->plan.mutable_batches &&
	    (f->l->p.shuffle || f->l->p.random_batch))
		shuffle(f->g->order, f->plan.rows);
}

/*
 * Rows [from, from + n_true) of the order count; a masked batch gets others
 * drawn at random from the rest.  Sorted, so that the order tells nothing.
 */
static void make_batch(struct linear_fit *f, unsigned b)
{
	const struct linear_plan *plan = &f->plan;
	struct guest_batch *g = f->g;
	size_t from = b * plan->batch_size;
	_cleanup_free_ bool *counts = NULL;

	g->n_true = linear_batch_true(plan, b);
	g->n = linear_batch_sent(plan, b);
	memcpy(g->rows, g->order + from, g->n_true * sizeof(*g->rows));
	if (g->n > g->n_true) {
		size_t rest = plan->rows - g->n_true;
		_cleanup_free_ uint32_t *pool = xcalloc(rest, sizeof(*pool));

		memcpy(pool, g->order, from * sizeof(*pool));
		memcpy(pool + from, g->order + from + g->n_true,
		       (rest - from) * sizeof(*pool));
		shuffle(pool, rest);
		memcpy(g->rows + g->n_true, pool,
		       (g->n - g->n_true) * sizeof(*pool));
	}
	counts = xcalloc(plan->rows, sizeof(*counts));
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

static int send_batch(struct linear_fit *f, unsigned epoch, const char *tag,
		      struct err *e)
{
	struct guest_batch *g = f->g;
	int r = 0;

	if (f->plan.batch_size == f->plan.rows ||
	    (!f->plan.mutable_batches && epoch != f->start))
		return 0;
	for (size_t i = 0; i < f->l->hosts && r >= 0; i++)
		r = ctx_send_u32(f->l->c, "host", i, "batch_data_index", tag,
				 g->rows, g->n, e);
	return r;
}

/* ---- a batch ---------------------------------------------------------- */

/* Our terms of the rows that count. */
static void forward(struct linear_fit *f)
{
	const struct linear_data *d = f->d;
	struct guest_batch *g = f->g;

	for (size_t i = 0; i < g->n_true; i++) {
		size_t row = g->true_rows[i];
		double z = linear_dot(f->m, d->x + row * d->cols) +
			   (d->offset ? d->offset[row] : 0);

		f->l->f->terms(z, f->y[row], f->weight ? f->weight[row] : 1,
			       &g->terms[i]);
	}
}

static int recv_shares(struct linear_fit *f, const char *tag, size_t host,
		       struct cipher_vec **ret, struct err *e)
{
	return linear_recv(f->l, "host", host, f->l->f->share_name, tag,
			   linear_packed(&f->plan, f->g->n), LINEAR_SCALE, ret,
			   e);
}

/*
 * One host: both sides send at the same time. We send our half of the
 * residuals, and where the host cannot know which rows count and how much, the
 * factors behind it, in ciphertexts of their own, with zeros for the rows that
 * do not count.
 */
static int exchange_async(struct linear_fit *f, const char *tag,
			  struct cipher_vec **ret, struct err *e)
{
	struct guest_batch *g = f->g;
	size_t behind = linear_room(&f->plan, g->n);
	size_t n = f->plan.pick ? behind + g->n : g->n;
	_cleanup_free_ double *v = xcalloc(n + 1, sizeof(*v));
	_cleanup_cipher_ struct cipher_vec *half = NULL;
	int r;

	for (size_t i = 0; i < g->n_true; i++) {
		v[g->true_at[i]] = g->terms[i].b;
		if (f->plan.pick)
			v[behind + g->true_at[i]] = g->terms[i].a;
	}
	r = linear_encrypt(f, v, n, LINEAR_D_BITS, &half, e);
	if (r >= 0)
		r = linear_send(f->l, "host", 0, "fore_gradient", tag, half, e);
	if (r >= 0)
		r = recv_shares(f, tag, 0, ret, e);
	return r;
}

/* Several hosts: our half of the residuals of the rows that count, then
 * zeros. */
static int encrypt_own(struct linear_fit *f, struct cipher_vec **ret,
		       struct err *e)
{
	struct guest_batch *g = f->g;
	_cleanup_free_ double *v = xcalloc(g->n + 1, sizeof(*v));

	for (size_t i = 0; i < g->n_true; i++)
		v[i] = g->terms[i].b;
	if (f->plan.residual_scale == LINEAR_SCALE)
		return linear_encrypt(f, v, g->n, LINEAR_D_BITS, ret, e);
	return paillier_encrypt(f->l->key, v, g->n, f->plan.residual_scale,
				ctx_cores(f->l->c), ret, e);
}

/* The sum of the hosts' shares: of all rows where all count, else of the rows
 * that do, times our factors. */
static int sum_shares(struct linear_fit *f, const char *tag,
		      struct cipher_vec **ret, struct err *e)
{
	unsigned threads = ctx_cores(f->l->c);
	struct guest_batch *g = f->g;
	_cleanup_free_ double *a = xcalloc(g->n_true + 1, sizeof(*a));
	_cleanup_cipher_ struct cipher_vec *sum = NULL;
	int r = 0;

	for (size_t k = 0; k < f->l->hosts && r >= 0; k++) {
		_cleanup_cipher_ struct cipher_vec *u = NULL;
		_cleanup_cipher_ struct cipher_vec *counted = NULL;

		r = recv_shares(f, tag, k, &u, e);
		if (r < 0)
			return r;
		counted = f->plan.pick ? cipher_gather(u, g->true_at, g->n_true)
				       : TAKE_PTR(u);
		if (sum)
			r = cipher_add(sum, counted, threads, e);
		else
			sum = TAKE_PTR(counted);
	}
	for (size_t i = 0; i < g->n_true; i++)
		a[i] = g->terms[i].a;
	if (r >= 0 && f->plan.factors)
		r = cipher_mul_plain(sum, a, LINEAR_FACTOR_SCALE, threads, e);
	if (r >= 0)
		*ret = TAKE_PTR(sum);
	return r;
}

/* The rows that count of sum and fresh zeros for the others, in their order. */
static struct cipher_vec *interleave(const struct guest_batch *g,
				     const struct cipher_vec *sum,
				     const struct cipher_vec *all)
{
	size_t rest = g->n - g->n_true;
	_cleanup_free_ uint32_t *at = xcalloc(g->n + 1, sizeof(*at));
	_cleanup_cipher_ struct cipher_vec *zero = NULL;
	_cleanup_cipher_ struct cipher_vec *both = NULL;

	for (size_t i = 0; i < rest; i++)
		at[i] = (uint32_t)(g->n_true + i);
	zero = cipher_gather(all, at, rest);
	both = cipher_concat(sum, zero);
	for (size_t i = 0, t = 0, z = 0; i < g->n; i++)
		at[i] = (uint32_t)(g->real[i] ? t++ : g->n_true + z++);
	return cipher_gather(both, at, g->n);
}

/*
 * Sends every host the whole residual; fresh zeros where a row does not
 * count.  Our part is encrypted while the hosts compute, and its randomness
 * hides what was added.  ret holds the rows that count.
 */
static int exchange_sync(struct linear_fit *f, const char *tag,
			 struct cipher_vec **ret, struct err *e)
{
	struct guest_batch *g = f->g;
	size_t counted = linear_packed(&f->plan, g->n_true);
	_cleanup_free_ uint32_t *at = xcalloc(g->n + 1, sizeof(*at));
	_cleanup_cipher_ struct cipher_vec *all = NULL;
	_cleanup_cipher_ struct cipher_vec *own = NULL;
	_cleanup_cipher_ struct cipher_vec *sum = NULL;
	_cleanup_cipher_ struct cipher_vec *out = NULL;
	int r = encrypt_own(f, &all, e);

	if (r >= 0)
		r = sum_shares(f, tag, &sum, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < counted; i++)
		at[i] = (uint32_t)i;
	own = cipher_gather(all, at, counted);
	r = cipher_add(own, sum, ctx_cores(f->l->c), e);
	if (r >= 0 && g->n > g->n_true)
		out = interleave(g, own, all);
	for (size_t k = 0; k < f->l->hosts && r >= 0; k++)
		r = linear_send(f->l, "host", k, "fore_gradient", tag,
				out ? out : own, e);
	if (r >= 0)
		*ret = TAKE_PTR(own);
	return r;
}

/* ---- gradient and loss -------------------------------------------------- */

/* The host's part of the loss as one ciphertext. */
static int recv_loss(struct linear_fit *f, const char *tag,
		     struct cipher_vec **ret, struct err *e)
{
	struct guest_batch *g = f->g;
	size_t n = f->plan.pick ? g->n + 1 : 1;
	_cleanup_free_ double *q = xcalloc(n, sizeof(*q));
	_cleanup_cipher_ struct cipher_vec *in = NULL;
	int r = linear_recv(
	    f->l, "host", 0, "loss_intermediate", tag,
	    linear_packed(&f->plan, n),
	    f->plan.pick ? LINEAR_SCALE : f->plan.gradient_scale, &in, e);

	if (r < 0)
		return r;
	if (!f->plan.pick) {
		*ret = TAKE_PTR(in);
		return 0;
	}
	for (size_t i = 0; i < g->n_true; i++)
		q[g->true_at[i]] = g->terms[i].q / (double)g->n_true;
	q[n - 1] = 1;
	return linear_product(f, in, q, n, 1, ret, e);
}

/* Adds the host's part of the loss to the last element of grad. */
static int add_host_loss(struct linear_fit *f, const char *tag,
			 struct cipher_vec **grad, struct err *e)
{
	size_t m = cipher_vec_len(*grad) - 1;
	_cleanup_free_ uint32_t *at = xcalloc(m + 1, sizeof(*at));
	_cleanup_cipher_ struct cipher_vec *sum = NULL;
	_cleanup_cipher_ struct cipher_vec *head = NULL;
	_cleanup_cipher_ struct cipher_vec *last = NULL;
	int r = recv_loss(f, tag, &sum, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i <= m; i++)
		at[i] = (uint32_t)i;
	head = cipher_gather(*grad, at, m);
	last = cipher_gather(*grad, at + m, 1);
	r = cipher_add(last, sum, ctx_cores(f->l->c), e);
	if (r < 0)
		return r;
	cipher_vec_free(*grad);
	*grad = cipher_concat(head, last);
	return 0;
}

/*
 * Of the batch's ciphertexts those with a row that counts (the same for
 * everybody but us, who know the mask), and where in them each such row is.
 */
static struct cipher_vec *counted_rows(const struct linear_fit *f,
				       const struct cipher_vec *d, size_t *at)
{
	const struct guest_batch *g = f->g;
	const size_t per = f->plan.pack.per;
	_cleanup_free_ uint32_t *take = xcalloc(g->n + 1, sizeof(*take));
	size_t n = 0;

	for (size_t i = 0; i < g->n_true; i++) {
		uint32_t c = (uint32_t)(g->true_at[i] / per);

		if (n == 0 || take[n - 1] != c)
			take[n++] = c;
		at[i] = (n - 1) * per + g->true_at[i] % per;
	}
	return cipher_gather(d, take, n);
}

/*
 * Columns of the product with the encrypted part: the features, the
 * intercept's ones, and the factor of the loss.  With one host the shares are
 * encrypted: our factors go into the columns, and our own part of the gradient
 * comes on top in clear. With several it is the residuals.
 */
static void gradient_columns(const struct linear_fit *f, const size_t *at,
			     size_t cols, double *x, double *plain)
{
	const struct guest_batch *g = f->g;
	const struct linear_model *m = f->m;
	size_t nw = m->cols + m->intercept;
	double n = (double)g->n_true;

	for (size_t i = 0; i < g->n_true; i++) {
		const struct linear_terms *t = &g->terms[i];
		const double *from = f->d->x + g->true_rows[i] * m->cols;
		const double a = f->plan.async ? t->a : 1;
		double *to = x + at[i] * cols;

		for (size_t j = 0; j < nw; j++) {
			double v = j < m->cols ? from[j] : 1;

			to[j] = v * a / n;
			if (f->plan.async)
				plain[j] += v / n * t->b;
		}
		if (!f->plan.loss)
			continue;
		to[nw] = t->p / n;
		plain[nw] += t->rest / n;
	}
}

static int send_gradient(struct linear_fit *f, const struct cipher_vec *d,
			 const char *tag, struct err *e)
{
	const struct linear_params *p = &f->l->p;
	const struct linear_model *m = f->m;
	size_t nw = m->cols + m->intercept;
	size_t cols = nw + f->plan.loss, rows;
	_cleanup_free_ size_t *at = xcalloc(f->g->n_true + 1, sizeof(*at));
	_cleanup_free_ double *plain = xcalloc(cols + 1, sizeof(*plain));
	_cleanup_free_ double *x = NULL;
	_cleanup_cipher_ struct cipher_vec *counted = NULL;
	_cleanup_cipher_ struct cipher_vec *grad = NULL;
	int r;

	if (f->plan.async) {
		counted = counted_rows(f, d, at);
		d = counted;
	} else {
		for (size_t i = 0; i < f->g->n_true; i++)
			at[i] = i;
	}
	rows = cipher_vec_len(d) * f->plan.pack.per; /* with empty ones */
	x = xcalloc(rows * cols + 1, sizeof(*x));
	gradient_columns(f, at, cols, x, plain);
	for (size_t j = 0; p->penalty == PENALTY_L2 && j < m->cols; j++)
		plain[j] += p->alpha * m->w[j];
	if (f->plan.loss)
		plain[nw] +=
		    weights_penalty(m->w, m->cols, p->penalty, p->alpha);
	r = linear_product(f, d, x, rows, cols, &grad, e);
	if (r >= 0 && f->plan.loss)
		r = add_host_loss(f, tag, &grad, e);
	if (r >= 0)
		r = linear_product_end(f, grad, plain, e);
	if (r >= 0)
		r = linear_send(f->l, "arbiter", 0, "guest_gradient", tag, grad,
				e);
	return r;
}

int guest_batch(struct linear_fit *f, unsigned epoch, unsigned b, struct err *e)
{
	_cleanup_cipher_ struct cipher_vec *d = NULL;
	char tag[LINEAR_TAG];
	int r;

	linear_tag(tag, f->flow, epoch, b);
	make_batch(f, b);
	if ((r = send_batch(f, epoch, tag, e)) < 0)
		return r;
	forward(f);
	r = f->plan.async ? exchange_async(f, tag, &d, e)
			  : exchange_sync(f, tag, &d, e);
	if (r >= 0)
		r = send_gradient(f, d, tag, e);
	return r < 0 ? r : linear_model_step(f->l, f->m, tag, epoch, e);
}
