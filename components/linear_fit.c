// SPDX-License-Identifier: Apache-2.0
/* One training: epochs and batches at any role; and one per class. */
#include <math.h>

#include "lib/json.h"

#include "components/linear.h"

/* ---- one model ------------------------------------------------------------
 */

static int begin(struct linear_fit *f, struct err *e)
{
	struct linear *l = f->l;
	int r;

	if (f->m && !f->warm)
		linear_model_init(f->m, &l->p, f->d->cols,
				  l->role == LINEAR_GUEST &&
				      l->p.fit_intercept);
	if (f->m)
		f->start = f->m->iterations;
	switch (l->role) {
	case LINEAR_GUEST:
		r = guest_begin(f, e);
		break;
	case LINEAR_HOST:
		r = host_begin(f, e);
		break;
	default:
		r = arbiter_begin(f, e);
		break;
	}
	if (r >= 0 && f->plan.start != f->start)
		r = err_set(e, EPROTO,
			    "the guest goes on from iteration %u, this "
			    "party's model has %u",
			    f->plan.start, f->start);
	/* What a batch takes, and the gradient's. */
	if (r >= 0 && f->m)
		paillier_ahead(
		    l->key,
		    linear_packed(&f->plan, linear_batch_sent(&f->plan, 0)) *
			    (f->plan.pick ? 2 : 1) +
			64,
		    ctx_cores(l->c));
	return r;
}

static int batch(struct linear_fit *f, unsigned epoch, unsigned b,
		 struct err *e)
{
	int r;

	linear_sqn_before(f);
	switch (f->l->role) {
	case LINEAR_GUEST:
		r = guest_batch(f, epoch, b, e);
		break;
	case LINEAR_HOST:
		r = host_batch(f, epoch, b, e);
		break;
	default:
		r = arbiter_batch(f, epoch, b, e);
		break;
	}
	return r < 0 ? r : linear_sqn_after(f, e);
}

/* Closes an epoch: the flag (and at the guest the loss) from the arbiter. */
static int close_epoch(struct linear_fit *f, unsigned epoch, struct err *e)
{
	bool loss = f->plan.loss && f->l->role == LINEAR_GUEST;
	char tag[LINEAR_TAG];
	double v[2] = { 0 };
	int r;

	if (f->l->role == LINEAR_ARBITER)
		return arbiter_epoch(f, epoch, e);
	linear_tag_epoch(tag, f->flow, epoch);
	r = ctx_recv_f64(f->l->c, "arbiter", 0, "converge_flag", tag, v,
			 1 + loss, e);
	if (r < 0)
		return r;
	f->stop = f->m->converged = v[0] > .5;
	f->m->iterations = epoch + 1;
	if (!loss) {
		ctx_log(f->l->c, "iteration %u", epoch);
		return 0;
	}
	f->loss = v[1];
	linear_model_add_loss(f->m, v[1]);
	ctx_log(f->l->c, "iteration %u: loss %.6f", epoch, v[1]);
	return linear_curve(f->l, f->flow, "train", "loss", epoch, v[1], e);
}

int linear_fit(struct linear_fit *f, struct err *e)
{
	unsigned max = f->l->p.max_iter;
	int r = begin(f, e);

	if (r >= 0 && f->watch)
		r = linear_watch_restore(f->watch, f, e);
	for (unsigned t = f->start; t < max && !f->stop && r >= 0; t++) {
		if (f->l->role == LINEAR_GUEST)
			guest_epoch(f);
		for (unsigned b = 0; b < f->plan.batches && r >= 0; b++)
			r = batch(f, t, b, e);
		if (r >= 0)
			r = close_epoch(f, t, e);
		if (r >= 0 && f->watch)
			r = linear_watch_epoch(f->watch, f, t, e);
		ctx_progress(f->l->c, f->from + f->span * (t + 1.0) / max);
	}
	if (r >= 0 && f->watch)
		linear_watch_end(f->watch, f);
	return r;
}

void linear_fit_free(struct linear_fit *f)
{
	guest_free(f);
	host_free(f);
	arbiter_free(f);
	free(f->weight);
	free(f->w_sum);
	free(f->w_last);
	*f = (struct linear_fit){ 0 };
}

/* ---- one per class --------------------------------------------------------
 */

static int compare_double(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

/* More than two classes: sorted; otherwise labels 1 and the rest. */
int linear_classes(const struct linear *l, const struct linear_data *d,
		   struct linear_set *set, struct err *e)
{
	_cleanup_free_ double *v = NULL;
	bool one = false;
	size_t n = 0;

	set->n = 1;
	if (!l->f->classes)
		return 0;
	v = xcalloc(d->rows + 1, sizeof(*v));
	memcpy(v, d->label, d->rows * sizeof(*v));
	qsort(v, d->rows, sizeof(*v), compare_double);
	for (size_t i = 0; i < d->rows; i++) {
		one |= v[i] == 1;
		if (!n || v[n - 1] < v[i])
			v[n++] = v[i];
	}
	if (n <= 2 && one && v[0] != 0)
		ctx_event(l->c, "labels other than 1 are the negative class; "
				"predict_result is 1 or 0");
	if (n <= 2)
		return one ? 0
			   : err_set(e, EINVAL,
				     "no row has the label 1, which is the "
				     "positive class (LabelTransform makes 0 "
				     "and 1 of other labels)");
	if (n > LINEAR_CLASSES_MAX)
		return err_set(e, EINVAL,
			       "the label has %zu classes: at most %d are "
			       "possible",
			       n, LINEAR_CLASSES_MAX);
	set->n = (unsigned)n;
	set->classes = TAKE_PTR(v);
	return 0;
}

static int recv_classes(struct linear *l, const char *flow, bool warm,
			struct linear_set *set, struct err *e)
{
	_cleanup_free_ uint32_t *got = NULL;
	size_t len = 0;
	int r = ctx_recv_u32(l->c, "guest", 0, "aggregate_classes", flow, 1,
			     &got, &len, e);

	if (r < 0)
		return r;
	if (len != 1 || !got[0] || got[0] > LINEAR_CLASSES_MAX ||
	    (warm && got[0] != set->n))
		return err_set(e, EPROTO, "aggregate_classes: a bad number");
	set->n = got[0];
	return 0;
}

/* Hosts and the arbiter hear how many models there are, not the classes. */
static int agree_classes(struct linear *l, const char *flow, bool warm,
			 struct linear_set *set, struct err *e)
{
	static const char *const roles[] = { "host", "arbiter" };
	uint32_t n = set->n;
	int r = 0;

	if (!l->f->classes)
		return 0;
	if (l->role != LINEAR_GUEST)
		return recv_classes(l, flow, warm, set, e);
	for (size_t k = 0; k < 2; k++)
		for (size_t i = 0; i < ctx_count(l->c, roles[k]) && r >= 0; i++)
			r = ctx_send_u32(l->c, roles[k], i, "aggregate_classes",
					 flow, &n, 1, e);
	return r;
}

double *linear_targets(const struct linear *l, const struct linear_set *set,
		       unsigned k, const struct linear_data *d)
{
	double positive = set->classes ? set->classes[k] : 1;
	double *y = xcalloc(d->rows + 1, sizeof(*y));

	for (size_t i = 0; i < d->rows; i++)
		y[i] = !l->f->classes		 ? d->label[i]
		       : d->label[i] == positive ? 1
						 : -1;
	return y;
}

static int train_one(struct linear *l, const char *flow,
		     const struct linear_data *d, struct linear_watch *w,
		     struct linear_set *set, unsigned k, bool warm,
		     double *ret_loss, struct err *e)
{
	struct linear_fit f = { .l = l,
				.d = d,
				.m = set->m ? &set->m[k] : NULL,
				.warm = warm,
				.watch = w,
				.from = l->from + l->span * k / set->n,
				.span = l->span / set->n };
	_cleanup_free_ double *y = NULL;
	bool done = false;
	int r = 0;

	if (set->n > 1)
		(void)snprintf(f.flow, sizeof(f.flow), "%sclass_%u.", flow, k);
	else
		(void)snprintf(f.flow, sizeof(f.flow), "%s", flow);
	if (l->role == LINEAR_GUEST)
		f.y = y = linear_targets(l, set, k, d);
	if (w)
		r = linear_watch_model(w, set, k, &f.warm, &done, e);
	if (r >= 0 && !done)
		r = linear_fit(&f, e);
	if (ret_loss)
		*ret_loss = f.loss;
	linear_fit_free(&f);
	return r;
}

int linear_train(struct linear *l, const char *flow,
		 const struct linear_data *d, struct linear_watch *w,
		 struct linear_set *set, double *ret_loss, struct err *e)
{
	bool warm = set->m != NULL;
	int r = 0;

	if (l->role == LINEAR_GUEST && !set->n)
		r = linear_classes(l, d, set, e);
	else if (!set->n)
		set->n = 1;
	if (r >= 0)
		r = agree_classes(l, flow, warm, set, e);
	if (r >= 0 && !warm && l->role != LINEAR_ARBITER)
		set->m = xcalloc(set->n, sizeof(*set->m));
	for (unsigned k = 0; k < set->n && r >= 0; k++)
		r = train_one(l, flow, d, w, set, k, warm, ret_loss, e);
	return r;
}
