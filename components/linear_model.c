// SPDX-License-Identifier: Apache-2.0
/* The weights of one party: updates, and as JSON. */
#include <math.h>

#include "lib/json.h"

#include "components/linear.h"

void linear_model_init(struct linear_model *m, const struct linear_params *p,
		       size_t cols, bool intercept)
{
	*m = (struct linear_model){ .cols = cols,
				    .intercept = intercept,
				    .best = -1 };
	m->w = xcalloc(cols + 1, sizeof(*m->w));
	weights_init(m->w, cols + intercept, p->init, p->init_value, p->seed);
}

void linear_model_free(struct linear_model *m)
{
	free(m->w);
	free(m->loss);
	*m = (struct linear_model){ 0 };
}

void linear_model_copy(const struct linear_model *from, struct linear_model *to)
{
	*to = *from;
	to->w = xcalloc(from->cols + 1, sizeof(*to->w));
	memcpy(to->w, from->w, (from->cols + 1) * sizeof(*to->w));
	to->loss = xcalloc(from->n_loss + 1, sizeof(*to->loss));
	for (size_t i = 0; i < from->n_loss; i++)
		to->loss[i] = from->loss[i];
}

void linear_model_add_loss(struct linear_model *m, double loss)
{
	m->loss = xrealloc(m->loss, (m->n_loss + 1) * sizeof(*m->loss));
	m->loss[m->n_loss++] = loss;
}

void linear_set_free(struct linear_set *s)
{
	for (unsigned k = 0; s->m && k < s->n; k++)
		linear_model_free(&s->m[k]);
	free(s->m);
	free(s->classes);
	*s = (struct linear_set){ 0 };
}

double linear_dot(const struct linear_model *m, const double *x)
{
	double z = m->intercept ? m->w[m->cols] : 0;

	for (size_t j = 0; j < m->cols; j++)
		z += m->w[j] * x[j];
	return z;
}

int linear_model_step(struct linear *l, struct linear_model *m, const char *tag,
		      unsigned epoch, struct err *e)
{
	const struct linear_params *p = &l->p;
	size_t n = m->cols + m->intercept;
	_cleanup_free_ double *update = xcalloc(n + 1, sizeof(*update));
	int r = ctx_recv_f64(l->c, "arbiter", 0,
			     l->role == LINEAR_GUEST ? "guest_optim_gradient"
						     : "host_optim_gradient",
			     tag, update, n, e);

	if (r < 0)
		return r;
	weights_update(m->w, update, m->cols, m->intercept, p->penalty,
		       p->alpha, p->rule.learning_rate, epoch);
	for (size_t j = 0; j < n; j++)
		if (!(fabs(m->w[j]) <= LINEAR_VALUE_MAX)) {
			ctx_fail_code(l->c, "diverged",
				      "the training diverged: a weight is "
				      "beyond 1e8; try a smaller "
				      "learning_rate");
			return err_set(e, ERANGE,
				       "the training diverged in iteration "
				       "%u: a weight is beyond 1e8; try a "
				       "smaller learning_rate",
				       epoch);
		}
	return 0;
}

/* ---- as JSON ----------------------------------------------------------- */

static json_t *names_json(char *const *names, size_t n)
{
	json_t *a = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, names[i] ? json_string(names[i])
						  : json_null());
	return a;
}

json_t *linear_model_json(const struct linear *l, const struct linear_data *d,
			  const struct linear_model *m)
{
	json_t *o = json_object();
	json_t *coef = json_object();
	json_t *loss = json_array();

	for (size_t j = 0; j < m->cols; j++)
		json_object_set_new(coef, d->names[j], json_real(m->w[j]));
	json_object_set_new(o, "coef", coef);
	json_object_set_new(o, "is_converged", json_boolean(m->converged));
	json_object_set_new(o, "iterations", json_integer(m->iterations));
	json_object_set_new(o, "best_iteration", json_integer(m->best));
	for (size_t i = 0; i < m->n_loss; i++)
		json_array_append_new(loss, json_real(m->loss[i]));
	if (l->role == LINEAR_GUEST) {
		json_object_set(o, "loss_history", loss);
		json_object_set_new(
		    o, "intercept",
		    json_real(m->intercept ? m->w[m->cols] : 0));
		json_object_set_new(o, "fit_intercept",
				    json_boolean(m->intercept));
	}
	json_decref(loss);
	return o;
}

json_t *linear_set_json(const struct linear *l, const struct linear_data *d,
			const struct linear_set *s)
{
	json_t *o, *all;

	if (s->n == 1) {
		o = linear_model_json(l, d, &s->m[0]);
	} else {
		o = json_object();
		all = json_object();
		for (unsigned k = 0; k < s->n; k++) {
			json_t *one = linear_model_json(l, d, &s->m[k]);
			char name[NUM_MAX];

			/* Hosts do not know the classes, only their number. */
			if (s->classes)
				(void)num_format(name, s->classes[k]);
			else
				(void)snprintf(name, sizeof(name), "%u", k);
			json_object_set_new(one, "index", json_integer(k));
			if (s->classes)
				json_object_set_new(one, "class",
						    json_real(s->classes[k]));
			json_object_set_new(all, name, one);
		}
		json_object_set_new(o, "one_vs_rest", all);
	}
	json_object_set_new(o, "header", names_json(d->names, d->cols));
	json_object_set_new(o, "anonymous_header",
			    names_json(d->anonymous, d->cols));
	return o;
}

int linear_model_read(const struct linear *l, const json_t *o,
		      const json_t *header, struct linear_model *m,
		      struct err *e)
{
	const json_t *coef = json_object_get(o, "coef"), *x;
	size_t n = json_array_size(header), i;

	*m = (struct linear_model){
		.cols = n,
		.intercept = l->role == LINEAR_GUEST &&
			     json_bool_or(o, "fit_intercept", false),
		.iterations = (unsigned)json_int_or(o, "iterations", 0),
		.best = (int)json_int_or(o, "best_iteration", -1),
		.converged = json_bool_or(o, "is_converged", false),
		.w = xcalloc(n + 1, sizeof(double)),
	};
	json_array_foreach (header, i, x) {
		const char *name = json_string_value(x);
		const json_t *v = name ? json_object_get(coef, name) : NULL;

		if (!json_is_number(v))
			return err_set(e, EINVAL, "no coefficient of %s",
				       name ? name : "a column");
		m->w[i] = json_number_value(v);
	}
	if (m->intercept)
		m->w[n] = json_num_or(o, "intercept", 0);
	for (i = 0; i <= n; i++)
		if (!(fabs(m->w[i]) <= LINEAR_VALUE_MAX))
			return err_set(e, EINVAL, "a weight is beyond 1e8");
	json_array_foreach (json_object_get(o, "loss_history"), i, x)
		linear_model_add_loss(m, json_number_value(x));
	return 0;
}

static int classes_read(const struct linear *l, const json_t *all,
			const json_t *header, struct linear_set *s,
			struct err *e)
{
	const char *name;
	json_t *x;
	int64_t k;
	int r;

	if (l->role == LINEAR_GUEST)
		s->classes = xcalloc(s->n, sizeof(*s->classes));
	json_object_foreach ((json_t *)all, name, x) {
		r = json_get_int(x, "index", 0, (int64_t)s->n - 1, &k, e);
		if (r >= 0 && s->m[k].w)
			r = err_set(e, EINVAL, "two models of class %lld",
				    (long long)k);
		if (r >= 0)
			r = linear_model_read(l, x, header, &s->m[k], e);
		if (r < 0)
			return r;
		if (s->classes)
			s->classes[k] = json_num_or(x, "class", 0);
	}
	return 0;
}

int linear_set_read(const struct linear *l, const json_t *param,
		    struct linear_set *ret, struct err *e)
{
	const json_t *header = json_object_get(param, "header");
	const json_t *all = json_object_get(param, "one_vs_rest");
	struct linear_set s = { .n =
				    all ? (unsigned)json_object_size(all) : 1 };
	int r;

	if (!json_is_array(header) || !s.n || s.n > LINEAR_CLASSES_MAX)
		return err_set(e, EINVAL, "input model: not a model of %s",
			       l->f->module);
	s.m = xcalloc(s.n, sizeof(*s.m));
	r = all ? classes_read(l, all, header, &s, e)
		: linear_model_read(l, param, header, &s.m[0], e);
	if (r < 0) {
		linear_set_free(&s);
		return err_wrap(e, "input model");
	}
	*ret = s;
	return 0;
}

const json_t *linear_input_param(struct linear *l)
{
	return json_object_get(ctx_input_model(l->c, "model"), "param");
}
