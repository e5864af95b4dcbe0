// SPDX-License-Identifier: Apache-2.0
/*
 * The stochastic quasi-Newton optimizer at guest and hosts (components/math/
 * sqn.h has the source).  Weights are averaged over L batches; every L batches
 * the Hessian times the step of the average, on a sample of rows, goes to the
 * arbiter, encrypted row by row as in a gradient.
 */
#include <math.h>

#include "lib/json.h"

#include "components/linear.h"

void linear_sqn_before(struct linear_fit *f)
{
	size_t n;

	if (!f->l->p.sqn || !f->m)
		return;
	n = f->m->cols + f->m->intercept;
	if (!f->w_sum) {
		f->w_sum = xcalloc(n + 1, sizeof(*f->w_sum));
		f->w_last = xcalloc(n + 1, sizeof(*f->w_last));
	}
	for (size_t j = 0; j < n; j++)
		f->w_sum[j] += f->m->w[j];
}

static int compare_u32(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a;
	uint32_t y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* n of all rows, drawn without replacement, to the front and in order. */
static void draw_rows(uint32_t *at, size_t rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		size_t k = i + random_below((uint32_t)(rows - i));
		uint32_t t = at[i];

		at[i] = at[k];
		at[k] = t;
	}
	qsort(at, n, sizeof(*at), compare_u32);
}

static int recv_rows(struct linear_fit *f, const char *tag, size_t n,
		     uint32_t **ret, size_t *ret_n, struct err *e)
{
	_cleanup_free_ uint32_t *at = NULL;
	size_t got = 0;
	int r = ctx_recv_u32(f->l->c, "guest", 0, "sqn_sample_index", tag, n,
			     &at, &got, e);

	if (r < 0)
		return r;
	if (got != n)
		return err_set(e, EPROTO, "sqn_sample_index: %zu rows", got);
	for (size_t i = 0; i < n; i++)
		if (at[i] >= f->d->rows || (i && at[i] <= at[i - 1]))
			return err_set(e, EPROTO, "sqn_sample_index: bad row");
	*ret = TAKE_PTR(at);
	*ret_n = n;
	return 0;
}

/* The rows of a Hessian product: all, or those the guest drew. */
static int sample(struct linear_fit *f, const char *tag, uint32_t **ret,
		  size_t *ret_n, struct err *e)
{
	size_t rows = f->d->rows, n = MIN(rows, f->l->p.sqn_sample);
	uint32_t *at;
	int r = 0;

	if (n < rows && f->l->role == LINEAR_HOST)
		return recv_rows(f, tag, n, ret, ret_n, e);
	*ret_n = n;
	*ret = at = xcalloc(rows + 1, sizeof(*at));
	for (size_t i = 0; i < rows; i++)
		at[i] = (uint32_t)i;
	if (n == rows)
		return 0;
	draw_rows(at, rows, n);
	for (size_t i = 0; i < f->l->hosts && r >= 0; i++)
		r = ctx_send_u32(f->l->c, "host", i, "sqn_sample_index", tag,
				 at, n, e);
	return r;
}

/* x.s of a row. */
static double along(const struct linear_fit *f, const double *s, size_t row)
{
	double u = f->m->intercept ? s[f->m->cols] : 0;

	for (size_t j = 0; j < f->m->cols; j++)
		u += s[j] * f->d->x[row * f->d->cols + j];
	return u;
}

/* Rows of the second derivative along s: the guest's own, the hosts' on top.
 * The guest sends them to the hosts. */
static int guest_rows(struct linear_fit *f, const char *tag, const uint32_t *at,
		      size_t n, const double *s, struct cipher_vec **ret,
		      struct err *e)
{
	struct linear *l = f->l;
	unsigned threads = ctx_cores(l->c);
	_cleanup_free_ double *a = xcalloc(n + 1, sizeof(*a));
	_cleanup_free_ double *b = xcalloc(n + 1, sizeof(*b));
	_cleanup_cipher_ struct cipher_vec *own = NULL;
	_cleanup_cipher_ struct cipher_vec *sum = NULL;
	int r;

	for (size_t i = 0; i < n; i++) {
		a[i] = f->weight ? f->weight[at[i]] : 1;
		b[i] = a[i] * along(f, s, at[i]);
	}
	r = paillier_encrypt(l->key, b, n, f->plan.sqn_scale, threads, &own, e);
	for (size_t k = 0; k < l->hosts && r >= 0; k++) {
		_cleanup_cipher_ struct cipher_vec *u = NULL;

		r = linear_recv(l, "host", k, "host_sqn_forwards", tag, n,
				LINEAR_SCALE, &u, e);
		if (r >= 0 && sum)
			r = cipher_add(sum, u, threads, e);
		else if (r >= 0)
			sum = TAKE_PTR(u);
	}
	if (r >= 0 && f->plan.factors)
		r = cipher_mul_plain(sum, a, LINEAR_FACTOR_SCALE, threads, e);
	if (r >= 0)
		r = cipher_add(own, sum, threads, e);
	for (size_t k = 0; k < l->hosts && r >= 0; k++)
		r = linear_send(l, "host", k, "forward_hess", tag, own, e);
	if (r >= 0)
		*ret = TAKE_PTR(own);
	return r;
}

static int host_rows(struct linear_fit *f, const char *tag, const uint32_t *at,
		     size_t n, const double *s, struct cipher_vec **ret,
		     struct err *e)
{
	struct linear *l = f->l;
	_cleanup_free_ double *v = xcalloc(n + 1, sizeof(*v));
	_cleanup_cipher_ struct cipher_vec *u = NULL;
	int r;

	for (size_t i = 0; i < n; i++)
		v[i] = along(f, s, at[i]);
	r = paillier_encrypt(l->key, v, n, LINEAR_SCALE, ctx_cores(l->c), &u,
			     e);
	if (r >= 0)
		r = linear_send(l, "guest", 0, "host_sqn_forwards", tag, u, e);
	if (r >= 0)
		r = linear_recv(l, "guest", 0, "forward_hess", tag, n,
				f->plan.sqn_scale, ret, e);
	return r;
}

/* The columns' part of the product and the step, to the arbiter. */
static int send_product(struct linear_fit *f, const char *tag,
			const uint32_t *at, size_t n, const double *s,
			const struct cipher_vec *d, struct err *e)
{
	struct linear *l = f->l;
	unsigned threads = ctx_cores(l->c);
	size_t cols = f->m->cols + f->m->intercept;
	double c = l->f->curvature / (double)n;
	_cleanup_free_ double *x = xcalloc(n * cols + 1, sizeof(*x));
	_cleanup_free_ double *plain = xcalloc(cols + 1, sizeof(*plain));
	_cleanup_cipher_ struct cipher_vec *y = NULL;
	bool guest = l->role == LINEAR_GUEST;
	int r;

	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < f->m->cols; j++)
			x[i * cols + j] = c * f->d->x[at[i] * f->d->cols + j];
		if (f->m->intercept)
			x[i * cols + f->m->cols] = c;
	}
	for (size_t j = 0; l->p.penalty == PENALTY_L2 && j < f->m->cols; j++)
		plain[j] = l->p.alpha * s[j];
	r = cipher_matvec(d, x, n, cols, f->plan.x_scale, threads, &y, e);
	if (r >= 0)
		r = cipher_add_plain(y, plain, threads, e);
	if (r >= 0)
		r = cipher_rerandomise(y, threads, e);
	if (r >= 0)
		r = linear_send(l, "arbiter", 0,
				guest ? "guest_hess_vector"
				      : "host_hess_vector",
				tag, y, e);
	if (r >= 0)
		r = ctx_send_f64(l->c, "arbiter", 0, "weight_step", tag, s,
				 cols, e);
	return r;
}

static int product(struct linear_fit *f, const double *s, struct err *e)
{
	_cleanup_free_ uint32_t *at = NULL;
	_cleanup_cipher_ struct cipher_vec *d = NULL;
	char tag[LINEAR_TAG];
	size_t n = 0;
	int r;

	(void)snprintf(tag, sizeof(tag), "%sh%u", f->flow, f->k);
	r = sample(f, tag, &at, &n, e);
	if (r >= 0)
		r = f->l->role == LINEAR_GUEST
			? guest_rows(f, tag, at, n, s, &d, e)
			: host_rows(f, tag, at, n, s, &d, e);
	return r < 0 ? r : send_product(f, tag, at, n, s, d, e);
}

int linear_sqn_after(struct linear_fit *f, struct err *e)
{
	unsigned interval = f->l->p.sqn_interval;
	_cleanup_free_ double *s = NULL;
	bool had = f->have_last;
	size_t n;
	int r = 0;

	if (!f->l->p.sqn || ++f->k % interval)
		return 0;
	f->have_last = true;
	if (!f->m) /* the arbiter */
		return f->k / interval > 1 ? arbiter_sqn(f, e) : 0;
	n = f->m->cols + f->m->intercept;
	s = xcalloc(n + 1, sizeof(*s));
	for (size_t j = 0; j < n; j++) {
		double mean = f->w_sum[j] / interval;

		s[j] = mean - f->w_last[j];
		f->w_last[j] = mean;
		f->w_sum[j] = 0;
	}
	if (had)
		r = product(f, s, e);
	return r;
}

/* ---- checkpoints --------------------------------------------------------- */

json_t *linear_sqn_state(const struct linear_fit *f)
{
	size_t n = f->m->cols + f->m->intercept;
	json_t *sum = json_array(), *last = json_array();

	for (size_t j = 0; f->w_sum && j < n; j++) {
		json_array_append_new(sum, json_real(f->w_sum[j]));
		json_array_append_new(last, json_real(f->w_last[j]));
	}
	return json_pack("{s:I, s:b, s:o, s:o}", "k", (json_int_t)f->k, "have",
			 f->have_last, "sum", sum, "last", last);
}

int linear_sqn_restore(struct linear_fit *f, const json_t *o, struct err *e)
{
	const json_t *sum = json_object_get(o, "sum");
	const json_t *last = json_object_get(o, "last");
	size_t n = f->m->cols + f->m->intercept;

	if (!f->l->p.sqn)
		return 0;
	if (json_array_size(sum) != n || json_array_size(last) != n)
		return err_set(e, EINVAL, "checkpoint: sqn");
	f->k = (unsigned)json_int_or(o, "k", 0);
	f->have_last = json_bool_or(o, "have", false);
	f->w_sum = xcalloc(n + 1, sizeof(*f->w_sum));
	f->w_last = xcalloc(n + 1, sizeof(*f->w_last));
	for (size_t j = 0; j < n; j++) {
		f->w_sum[j] = json_number_value(json_array_get(sum, j));
		f->w_last[j] = json_number_value(json_array_get(last, j));
	}
	return 0;
}
