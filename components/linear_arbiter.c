// SPDX-License-Identifier: Apache-2.0
/*
 * The arbiter of the coordinated linear models: it alone can decrypt, runs the
 * optimiser on the gradients of all parties as one vector (hosts in order,
 * then the guest, as FATE does) and returns to each its part of the update.
 * Nothing but the loss is logged and nothing is stored.
 */
#include <math.h>

#include "components/linear.h"

static void private_freep(struct paillier_private **k)
{
	paillier_private_free(*k);
}

struct arbiter {
	struct ctx *c;
	const struct linear_params *p;
	struct linear_plan plan;
	const struct paillier_private *key;
	size_t hosts;
	size_t *cols;	   /* of host i; [hosts] is the guest's, + intercept */
	size_t total;	   /* 0 until the first batch told the sizes */
	double *gradient;  /* hosts, guest, and behind it the guest's loss */
	double *epoch_sum; /* of the updates, for weight_diff */
	struct optimizer rule;
};

static const char *role_of(const struct arbiter *a, size_t k)
{
	return k < a->hosts ? "host" : "guest";
}

/* Receives the gradient of party k and decrypts it to a->gradient + at. */
static int recv_gradient(struct arbiter *a, size_t k, size_t at,
			 const char *tag, struct err *e)
{
	const struct paillier_public *pub = paillier_public(a->key);
	const char *name = k < a->hosts ? "host_gradient" : "guest_gradient";
	size_t index = k < a->hosts ? k : 0;
	bool loss = k == a->hosts && a->plan.loss;
	size_t max = a->total ? a->cols[k] + loss : TABLE_COLUMNS_MAX + 2;
	_cleanup_cipher_ struct cipher_vec *v = NULL;
	_cleanup_free_ uint8_t *data = NULL;
	size_t n;
	int r = ctx_recv_fixed(a->c, role_of(a, k), index, name, tag,
			       cipher_width(pub), max, &data, &n, e);

	if (r < 0)
		return r;
	if (n < 1u + loss || (a->total && n != max))
		return err_set(e, EPROTO, "%s: %zu values", name, n);
	r = cipher_vec_import(pub, data, n, a->plan.gradient_scale,
			      ctx_cores(a->c), &v, e);
	if (r < 0)
		return err_wrap(e, "%s", name);
	if (!a->total) {
		a->cols[k] = n - loss;
		a->gradient =
		    xrealloc(a->gradient, (at + n) * sizeof(*a->gradient));
	}
	r = paillier_decrypt(a->key, v, a->gradient + at, ctx_cores(a->c), e);
	return r < 0 ? err_wrap(e, "%s", name) : 0;
}

static int batch(struct arbiter *a, unsigned model, unsigned epoch, unsigned b,
		 double *loss, struct err *e)
{
	char tag[LINEAR_TAG];
	size_t at = 0;
	int r;

	linear_tag(tag, &a->plan, model, epoch, b);
	for (size_t k = 0; k <= a->hosts; k++) {
		r = recv_gradient(a, k, at, tag, e);
		if (r < 0)
			return r;
		at += a->cols[k];
	}
	if (!a->total) {
		a->total = at;
		a->epoch_sum = xcalloc(at, sizeof(*a->epoch_sum));
	}
	if (!a->rule.m)
		optimizer_init(&a->rule, at);
	if (a->plan.loss)
		*loss += a->gradient[at];
	optimizer_step(&a->rule, epoch, a->gradient);
	at = 0;
	for (size_t k = 0; k <= a->hosts; k++) {
		r = ctx_send_f64(a->c, role_of(a, k), k < a->hosts ? k : 0,
				 k < a->hosts ? "host_optim_gradient"
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

static bool converged(const struct arbiter *a, unsigned epoch, double before,
		      double loss)
{
	double sum = 0;

	switch (a->p->early_stop) {
	case STOP_DIFF:
		return a->plan.loss && epoch > 0 &&
		       fabs(before - loss) < a->p->tol;
	case STOP_ABS:
		return a->plan.loss && loss <= a->p->tol;
	case STOP_WEIGHT_DIFF:
		break;
	}
	for (size_t i = 0; i < a->total; i++)
		sum += a->epoch_sum[i] * a->epoch_sum[i];
	return sqrt(sum) < a->p->tol;
}

static int send_flag(struct arbiter *a, unsigned model, unsigned epoch,
		     bool stop, double loss, struct err *e)
{
	double v[2] = { stop, loss };
	char tag[LINEAR_TAG];
	int r = 0;

	linear_tag_epoch(tag, &a->plan, model, epoch);
	for (size_t k = 0; k <= a->hosts && r >= 0; k++)
		r = ctx_send_f64(a->c, role_of(a, k), k < a->hosts ? k : 0,
				 "converge_flag", tag, v,
				 1 + (k == a->hosts && a->plan.loss), e);
	return r;
}

static int fit(struct arbiter *a, unsigned model, struct err *e)
{
	double before = 0;
	bool stop = false;
	int r;

	a->rule = a->p->rule;
	for (unsigned t = 0; t < a->p->max_iter && !stop; t++) {
		double loss = 0;

		for (size_t i = 0; i < a->total; i++)
			a->epoch_sum[i] = 0;
		for (unsigned b = 0; b < a->plan.batches; b++) {
			r = batch(a, model, t, b, &loss, e);
			if (r < 0)
				return r;
		}
		loss /= a->plan.batches;
		stop = converged(a, t, before, loss);
		before = loss;
		r = send_flag(a, model, t, stop, loss, e);
		if (r < 0)
			return r;
		if (a->plan.loss)
			ctx_log(a->c, "iteration %u: loss %.6f", t, loss);
		else
			ctx_log(a->c, "iteration %u", t);
		ctx_progress(a->c, (model + (t + 1.0) / a->p->max_iter) /
				       a->plan.models);
	}
	optimizer_free(&a->rule);
	return 0;
}

static int send_key(struct ctx *c, const struct paillier_private *key,
		    struct err *e)
{
	static const char *const roles[] = { "guest", "host" };
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(16384);
	int r = paillier_public_write(paillier_public(key), &sb);

	if (r < 0)
		return err_sys(e, -r, "paillier_pubkey");
	for (size_t k = 0; k < ARRAY_SIZE(roles); k++)
		for (size_t i = 0; i < ctx_count(c, roles[k]) && r >= 0; i++)
			r = ctx_send_bytes(c, roles[k], i, "paillier_pubkey",
					   "", sb.buf, sb.len, e);
	return r;
}

int linear_arbiter_run(struct ctx *c, struct err *e)
{
	_cleanup_(private_freep) struct paillier_private *key = NULL;
	struct linear_params p;
	struct arbiter a = { .c = c, .p = &p, .hosts = ctx_count(c, "host") };
	int r = linear_params_read(c, &p, e);

	if (r >= 0)
		r = paillier_keygen(p.key_length, &key, e);
	if (r >= 0)
		r = send_key(c, key, e);
	if (r >= 0)
		r = linear_plan_recv(c, &p, 0, &a.plan, e);
	if (r < 0)
		return r;
	a.key = key;
	a.cols = xcalloc(a.hosts + 1, sizeof(*a.cols));
	for (unsigned k = 0; k < a.plan.models && r >= 0; k++)
		r = fit(&a, k, e);
	optimizer_free(&a.rule);
	free(a.cols);
	free(a.gradient);
	free(a.epoch_sum);
	return r;
}
