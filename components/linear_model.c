// SPDX-License-Identifier: Apache-2.0
/* The weights of one party: updates, the end of an epoch, what is kept. */
#include <math.h>

#include "lib/json.h"

#include "components/linear.h"

void linear_model_init(struct linear_model *m, const struct linear_params *p,
		       size_t cols, bool intercept)
{
	*m = (struct linear_model){ .cols = cols, .intercept = intercept };
	m->w = xcalloc(cols + 1, sizeof(*m->w));
	m->loss = xcalloc(p->max_iter + 1, sizeof(*m->loss));
	weights_init(m->w, cols + intercept, p->init, p->init_value, p->seed);
}

void linear_model_free(struct linear_model *m)
{
	free(m->w);
	free(m->loss);
	*m = (struct linear_model){ 0 };
}

double linear_dot(const struct linear_model *m, const double *x)
{
	double z = m->intercept ? m->w[m->cols] : 0;

	for (size_t j = 0; j < m->cols; j++)
		z += m->w[j] * x[j];
	return z;
}

int linear_model_step(struct ctx *c, struct linear_model *m,
		      const struct linear_params *p, const char *name,
		      const char *tag, unsigned epoch, struct err *e)
{
	size_t n = m->cols + m->intercept;
	_cleanup_free_ double *update = xcalloc(n + 1, sizeof(*update));
	int r = ctx_recv_f64(c, "arbiter", 0, name, tag, update, n, e);

	if (r < 0)
		return r;
	weights_update(m->w, update, m->cols, m->intercept, p->penalty,
		       p->alpha, p->rule.learning_rate, epoch);
	for (size_t j = 0; j < n; j++)
		if (!(fabs(m->w[j]) <= LINEAR_VALUE_MAX)) {
			ctx_fail_code(c, "diverged",
				      "the training diverged: a weight is "
				      "beyond 1e8");
			return err_set(e, ERANGE,
				       "the training diverged in iteration "
				       "%u: a weight is beyond 1e8; try a "
				       "smaller learning_rate",
				       epoch);
		}
	return 0;
}

int linear_model_epoch(struct ctx *c, struct linear_model *m,
		       const struct linear_plan *plan, unsigned model,
		       unsigned epoch, struct err *e)
{
	bool loss = plan->loss && !strcmp(ctx_role(c), "guest");
	char tag[LINEAR_TAG];
	double v[2] = { 0 };
	int r;

	linear_tag_epoch(tag, plan, model, epoch);
	r = ctx_recv_f64(c, "arbiter", 0, "converge_flag", tag, v, 1 + loss, e);
	if (r < 0)
		return r;
	m->converged = v[0] > .5;
	m->loss[epoch] = v[1];
	m->iterations = epoch + 1;
	if (loss)
		ctx_log(c, "iteration %u: loss %.6f", epoch, v[1]);
	else
		ctx_log(c, "iteration %u", epoch);
	return 0;
}

/* ---- summary and model ------------------------------------------------ */

static json_t *model_json(const struct linear_data *d,
			  const struct linear_model *m, bool guest)
{
	json_t *o = json_object();
	json_t *coef = json_object();

	for (size_t j = 0; j < m->cols; j++)
		json_object_set_new(coef, d->names[j], json_real(m->w[j]));
	json_object_set_new(o, "coef", coef);
	json_object_set_new(o, "is_converged", json_boolean(m->converged));
	json_object_set_new(o, "iterations", json_integer(m->iterations));
	if (guest) {
		json_t *loss = json_array();
		bool have = m->loss != NULL;

		for (unsigned i = 0; have && i < m->iterations; i++)
			json_array_append_new(loss, json_real(m->loss[i]));
		json_object_set_new(o, "loss_history", loss);
		json_object_set_new(
		    o, "intercept",
		    json_real(m->intercept ? m->w[m->cols] : 0));
		json_object_set_new(o, "best_iteration", json_integer(-1));
	}
	return o;
}

/* One model: its members; several: {"one_vs_rest": {"<class>": {...}}}. */
static json_t *models_json(const struct linear_data *d,
			   const struct linear_model *models, unsigned n,
			   const double *classes, bool guest)
{
	json_t *all;
	json_t *o;

	if (n == 1)
		return model_json(d, models, guest);
	all = json_object();
	for (unsigned k = 0; k < n; k++) {
		char name[NUM_MAX];

		if (classes)
			(void)snprintf(name, sizeof(name), "%.15g", classes[k]);
		else
			(void)snprintf(name, sizeof(name), "%u", k);
		json_object_set_new(all, name,
				    model_json(d, &models[k], guest));
	}
	o = json_object();
	json_object_set_new(o, "one_vs_rest", all);
	return o;
}

static json_t *names_json(const char *const *names, size_t n)
{
	json_t *a = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, names[i] ? json_string(names[i])
						  : json_null());
	return a;
}

int linear_publish(struct ctx *c, const struct linear_data *d,
		   const struct linear_model *models, unsigned n,
		   const double *classes, struct err *e)
{
	bool guest = !strcmp(ctx_role(c), "guest");
	json_t *o = models_json(d, models, n, classes, guest);
	int r = ctx_put_summary(c, o, e);

	json_object_set_new(o, "header",
			    names_json((const char *const *)d->names, d->cols));
	json_object_set_new(o, "anonymous_header",
			    names_json(d->anonymous, d->cols));
	json_object_set_new(o, "role", json_string(ctx_role(c)));
	if (r >= 0)
		r = ctx_put_model(c, ctx_params(c), o, e);
	json_decref(o);
	return r;
}
