// SPDX-License-Identifier: Apache-2.0
/*
 * The arbiter of the coordinated linear models: it alone can decrypt, runs the
 * optimiser on the gradients of all parties as one vector (hosts in order,
 * then the guest, as FATE does) and returns to each its part of the update.
 * Nothing but the loss is logged; only a checkpoint is stored.
 */
#include <math.h>

#include "lib/json.h"

#include "components/linear.h"

struct arbiter {
	size_t *cols;	   /* of host i; [hosts] is the guest's, + intercept */
	size_t total;	   /* 0 until the first batch told the sizes */
	double *gradient;  /* hosts, guest, and behind it the guest's loss */
	double *epoch_sum; /* of the updates, for weight_diff */
	double loss, before;
	bool have_before;
	struct optimizer rule;
	struct sqn_memory memory;
};

static const char *role_of(const struct linear_fit *f, size_t k)
{
	return k < f->l->hosts ? "host" : "guest";
}

static size_t index_of(const struct linear_fit *f, size_t k)
{
	return k < f->l->hosts ? k : 0;
}

int arbiter_begin(struct linear_fit *f, struct err *e)
{
	int r = linear_plan_recv(f->l, f->flow, 0, &f->plan, e);

	if (r < 0)
		return r;
	f->start = f->plan.start;
	f->a = xcalloc(1, sizeof(*f->a));
	f->a->cols = xcalloc(f->l->hosts + 1, sizeof(*f->a->cols));
	f->a->rule = f->l->p.rule;
	return 0;
}

void arbiter_free(struct linear_fit *f)
{
	struct arbiter *a = f->a;

	if (!a)
		return;
	optimizer_free(&a->rule);
	sqn_free(&a->memory);
	free(a->cols);
	free(a->gradient);
	free(a->epoch_sum);
	free(a);
	f->a = NULL;
}

/* ---- a batch ------------------------------------------------------------- */

/*
 * A vector of party k, decrypted.  max: exactly so many values, or (exact
 * false) at most.  Caller frees; *ret_n is set in any case.
 */
static int recv_vector(struct linear_fit *f, size_t k, const char *what,
		       const char *tag, unsigned scale, bool packed, size_t max,
		       bool exact, double **ret, size_t *ret_n, struct err *e)
{
	struct linear *l = f->l;
	const struct paillier_public *pub = paillier_public(l->secret);
	_cleanup_cipher_ struct cipher_vec *v = NULL;
	_cleanup_free_ uint8_t *data = NULL;
	_cleanup_free_ double *plain = NULL;
	char name[64];
	size_t n = 0;
	int r;

	*ret_n = 0;
	(void)snprintf(name, sizeof(name), "%s_%s", role_of(f, k), what);
	r = ctx_recv_fixed(l->c, role_of(f, k), index_of(f, k), name, tag,
			   cipher_width(pub), max, &data, &n, e);
	if (r < 0)
		return r;
	if (exact && n != max)
		return err_set(e, EPROTO, "%s: %zu values where %zu are due",
			       name, n, max);
	r = cipher_vec_import(pub, data, n, scale, ctx_cores(l->c), &v, e);
	if (r < 0)
		return err_wrap(e, "%s", name);
	plain = xcalloc(n + 1, sizeof(*plain));
	r = packed ? paillier_decrypt_dot(l->secret, v, &f->plan.pack, plain,
					  ctx_cores(l->c), e)
		   : paillier_decrypt(l->secret, v, plain, ctx_cores(l->c), e);
	if (r < 0)
		return err_wrap(e, "%s", name);
	*ret = TAKE_PTR(plain);
	*ret_n = n;
	return 0;
}

/* The gradient of party k to a->gradient + at. */
static int recv_gradient(struct linear_fit *f, size_t k, size_t at,
			 const char *tag, struct err *e)
{
	struct arbiter *a = f->a;
	bool loss = k == f->l->hosts && f->plan.loss;
	_cleanup_free_ double *v = NULL;
	size_t n;
	int r = recv_vector(
	    f, k, "gradient", tag, f->plan.gradient_scale, f->plan.packed,
	    a->total ? a->cols[k] + loss : TABLE_COLUMNS_MAX + 2, a->total > 0,
	    &v, &n, e);

	if (r < 0)
		return r;
	if (n < loss)
		return err_set(e, EPROTO, "the guest's gradient has no loss");
	if (!a->total) {
		a->cols[k] = n - loss;
		a->gradient =
		    xrealloc(a->gradient, (at + n + 1) * sizeof(*a->gradient));
	}
	memcpy(a->gradient + at, v, n * sizeof(*v));
	return 0;
}

static void sizes_known(struct linear_fit *f, size_t total)
{
	struct arbiter *a = f->a;

	a->total = total;
	if (!a->epoch_sum)
		a->epoch_sum = xcalloc(total + 1, sizeof(*a->epoch_sum));
	if (!a->rule.m)
		optimizer_init(&a->rule, total);
	if (f->l->p.sqn && !a->memory.s)
		sqn_init(&a->memory, total, f->l->p.sqn_memory);
}

int arbiter_batch(struct linear_fit *f, unsigned epoch, unsigned b,
		  struct err *e)
{
	struct arbiter *a = f->a;
	size_t hosts = f->l->hosts;
	char tag[LINEAR_TAG];
	size_t at = 0;
	int r;

	linear_tag(tag, f->flow, epoch, b);
	for (size_t k = 0; k <= hosts; k++) {
		r = recv_gradient(f, k, at, tag, e);
		if (r < 0)
			return r;
		at += a->cols[k];
	}
	if (!a->total || !a->epoch_sum)
		sizes_known(f, at);
	if (f->plan.loss)
		a->loss += a->gradient[at];
	sqn_apply(&a->memory, a->gradient);
	optimizer_step(&a->rule, epoch, a->gradient);
	at = 0;
	for (size_t k = 0; k <= hosts; k++) {
		r = ctx_send_f64(f->l->c, role_of(f, k), index_of(f, k),
				 k < hosts ? "host_optim_gradient"
					   : "guest_optim_gradient",
				 tag, a->gradient + at, a->cols[k], e);
		if (r < 0)
			return r;
		at += a->cols[k];
	}
	for (size_t i = 0; i < a->total; i++)
		a->epoch_sum[i] += a->gradient[i];
	return 0;
}

/* ---- the end of an epoch ------------------------------------------------ */

static bool converged(const struct linear_fit *f, double loss)
{
	const struct linear_params *p = &f->l->p;
	const struct arbiter *a = f->a;
	double sum = 0;

	switch (p->early_stop) {
	case STOP_DIFF:
		return f->plan.loss && a->have_before &&
		       fabs(a->before - loss) < p->tol;
	case STOP_ABS:
		return f->plan.loss && loss <= p->tol;
	case STOP_WEIGHT_DIFF:
		break;
	}
	for (size_t i = 0; i < a->total; i++)
		sum += a->epoch_sum[i] * a->epoch_sum[i];
	return sqrt(sum) < p->tol;
}

int arbiter_epoch(struct linear_fit *f, unsigned epoch, struct err *e)
{
	struct arbiter *a = f->a;
	size_t hosts = f->l->hosts;
	double loss = a->loss / f->plan.batches;
	double v[2] = { 0, loss };
	char tag[LINEAR_TAG];
	int r = 0;

	f->stop = converged(f, loss);
	v[0] = f->stop;
	f->loss = a->before = loss;
	a->have_before = true;
	a->loss = 0;
	for (size_t i = 0; i < a->total; i++)
		a->epoch_sum[i] = 0;
	linear_tag_epoch(tag, f->flow, epoch);
	for (size_t k = 0; k <= hosts && r >= 0; k++)
		r = ctx_send_f64(f->l->c, role_of(f, k), index_of(f, k),
				 "converge_flag", tag, v,
				 1 + (k == hosts && f->plan.loss), e);
	if (f->plan.loss)
		ctx_log(f->l->c, "iteration %u: loss %.6f", epoch, loss);
	else
		ctx_log(f->l->c, "iteration %u", epoch);
	return r;
}

/* ---- quasi-Newton ------------------------------------------------------- */

/* The steps of the averaged weights come in clear: without an L1 penalty they
 * are sums of updates that were made here. */
int arbiter_sqn(struct linear_fit *f, struct err *e)
{
	struct arbiter *a = f->a;
	_cleanup_free_ double *s = xcalloc(a->total + 1, sizeof(*s));
	_cleanup_free_ double *y = xcalloc(a->total + 1, sizeof(*y));
	char tag[LINEAR_TAG];
	size_t at = 0;
	int r;

	(void)snprintf(tag, sizeof(tag), "%sh%u", f->flow, f->k);
	for (size_t k = 0; k <= f->l->hosts; k++) {
		_cleanup_free_ double *v = NULL;
		size_t n;

		r = recv_vector(f, k, "hess_vector", tag,
				f->plan.sqn_scale + f->plan.x_scale, false,
				a->cols[k], true, &v, &n, e);
		if (r >= 0)
			r = ctx_recv_f64(f->l->c, role_of(f, k), index_of(f, k),
					 "weight_step", tag, s + at, a->cols[k],
					 e);
		if (r < 0)
			return r;
		for (size_t i = 0; i < n; i++)
			y[at + i] = v[i];
		at += n;
	}
	if (!sqn_add(&a->memory, s, y))
		ctx_log(f->l->c, "a pair without curvature was left out");
	return 0;
}

/* ---- checkpoints --------------------------------------------------------- */

static json_t *numbers_json(const double *v, size_t n)
{
	json_t *o = json_array();

	for (size_t i = 0; v && i < n; i++)
		json_array_append_new(o, json_real(v[i]));
	return o;
}

static int numbers_read(const json_t *o, const char *key, double *v, size_t n,
			struct err *e)
{
	const json_t *list = json_object_get(o, key);

	if (json_array_size(list) != n)
		return err_set(e, EINVAL, "checkpoint: %s", key);
	for (size_t i = 0; i < n; i++)
		v[i] = json_number_value(json_array_get(list, i));
	return 0;
}

json_t *arbiter_state(const struct linear_fit *f)
{
	const struct arbiter *a = f->a;
	json_t *cols = json_array();
	json_t *o;

	for (size_t k = 0; k <= f->l->hosts; k++)
		json_array_append_new(cols,
				      json_integer((json_int_t)a->cols[k]));
	o = json_pack("{s:o, s:o, s:o, s:I, s:f, s:I}", "cols", cols, "m",
		      numbers_json(a->rule.m, a->total), "v",
		      numbers_json(a->rule.v, a->total), "calls",
		      (json_int_t)a->rule.calls, "loss", a->before, "k",
		      (json_int_t)f->k);
	json_object_set_new(
	    o, "s", numbers_json(a->memory.s, a->memory.have * a->memory.n));
	json_object_set_new(
	    o, "y", numbers_json(a->memory.y, a->memory.have * a->memory.n));
	return o;
}

int arbiter_restore(struct linear_fit *f, const json_t *o, struct err *e)
{
	const json_t *cols = json_object_get(o, "cols");
	struct arbiter *a = f->a;
	size_t total = 0, pairs;
	int r;

	if (json_array_size(cols) != f->l->hosts + 1)
		return err_set(e, EINVAL, "checkpoint: cols");
	for (size_t k = 0; k <= f->l->hosts; k++) {
		json_int_t n = json_integer_value(json_array_get(cols, k));

		if (n < 0 || n > TABLE_COLUMNS_MAX + 1)
			return err_set(e, EINVAL, "checkpoint: cols");
		a->cols[k] = (size_t)n;
		total += a->cols[k];
	}
	sizes_known(f, total);
	a->gradient = xcalloc(total + 2, sizeof(*a->gradient));
	a->rule.calls = (uint64_t)json_int_or(o, "calls", 0);
	a->before = json_num_or(o, "loss", 0);
	a->have_before = true;
	f->k = (unsigned)json_int_or(o, "k", 0);
	if ((r = numbers_read(o, "m", a->rule.m, total, e)) < 0 ||
	    (r = numbers_read(o, "v", a->rule.v, total, e)) < 0)
		return r;
	pairs = total ? json_array_size(json_object_get(o, "s")) / total : 0;
	if (pairs > a->memory.max)
		return err_set(e, EINVAL, "checkpoint: s");
	a->memory.have = (unsigned)pairs;
	if ((r = numbers_read(o, "s", a->memory.s, pairs * total, e)) < 0)
		return r;
	return numbers_read(o, "y", a->memory.y, pairs * total, e);
}
