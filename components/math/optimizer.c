// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <strings.h>
#include <sys/random.h>

#include "components/math/mt19937.h"
#include "components/math/optimizer.h"

static int find(const char *const *names, size_t n, const char *name)
{
	for (size_t i = 0; name && i < n; i++)
		if (!strcasecmp(names[i], name))
			return (int)i;
	return -1;
}

int optimizer_kind(const char *name)
{
	static const char *const names[] = { "sgd", "rmsprop", "adagrad",
					     "adam", "nesterov_momentum_sgd" };

	return find(names, ARRAY_SIZE(names), name);
}

int penalty_kind(const char *name)
{
	static const char *const names[] = { "none", "L1", "L2" };

	return name ? find(names, ARRAY_SIZE(names), name) : PENALTY_NONE;
}

int init_method(const char *name)
{
	static const char *const names[] = { "random_uniform", "random_normal",
					     "ones", "zeros", "const" };

	return find(names, ARRAY_SIZE(names), name);
}

void optimizer_init(struct optimizer *o, size_t n)
{
	o->n = n;
	o->calls = 0;
	o->m = xcalloc(n ? n : 1, sizeof(double));
	o->v = xcalloc(n ? n : 1, sizeof(double));
}

void optimizer_free(struct optimizer *o)
{
	free(o->m);
	free(o->v);
	o->m = o->v = NULL;
}

static double rate_at(const struct optimizer *o, unsigned epoch)
{
	double d = 1 + o->decay * epoch;

	return o->learning_rate / (o->decay_sqrt ? sqrt(d) : d);
}

void optimizer_step(struct optimizer *o, unsigned epoch, double *g)
{
	double rate = rate_at(o, epoch);
	double *m = o->m;
	double *v = o->v;

	o->calls++;
	for (size_t i = 0; i < o->n; i++) {
		double gi = g[i];

		switch (o->kind) {
		case OPTIMIZER_SGD:
			g[i] = rate * gi;
			break;
		case OPTIMIZER_RMSPROP:
			m[i] = .99 * m[i] + .01 * gi * gi;
			g[i] = rate * gi / sqrt(m[i] + 1e-6);
			break;
		case OPTIMIZER_ADAGRAD:
			m[i] += gi * gi;
			g[i] = rate * gi / (sqrt(m[i]) + 1e-7);
			break;
		case OPTIMIZER_ADAM: {
			double k = (double)o->calls;

			m[i] = .9 * m[i] + .1 * gi;
			v[i] = .999 * v[i] + .001 * gi * gi;
			g[i] = rate * (m[i] / (1 - pow(.9, k))) /
			       (sqrt(v[i] / (1 - pow(.999, k))) + 1e-8);
			break;
		}
		case OPTIMIZER_NESTEROV: {
			double next = .9 * v[i] - rate * gi;

			g[i] = .9 * v[i] - 1.9 * next;
			v[i] = next;
			break;
		}
		}
	}
}

void weights_update(double *w, const double *update, size_t n, bool intercept,
		    enum penalty_kind penalty, double alpha, double rate,
		    unsigned epoch)
{
	/* 0 * inf would be no number: no alpha is no shrinkage. */
	double shrink =
	    penalty == PENALTY_L1 && alpha > 0 ? alpha * rate / sqrt(epoch) : 0;

	for (size_t i = 0; i < n; i++) {
		double t = w[i] - update[i];

		if (shrink > 0)
			t = copysign(fmax(0, fabs(t) - shrink), t);
		w[i] = t;
	}
	if (intercept)
		w[n] -= update[n];
}

double weights_penalty(const double *w, size_t n, enum penalty_kind penalty,
		       double alpha)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += penalty == PENALTY_L1 ? fabs(w[i]) : w[i] * w[i] / 2;
	return penalty == PENALTY_NONE ? 0 : alpha * sum;
}

/* ---- start values ----------------------------------------------------- */

static void random_fill(void *p, size_t n)
{
	uint8_t *at = p;

	while (n) {
		ssize_t got = getrandom(at, n, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			abort();
		at += got;
		n -= (size_t)got;
	}
}

uint32_t random_below(uint32_t n)
{
	uint32_t limit = UINT32_MAX - UINT32_MAX % n;
	uint32_t v;

	do
		random_fill(&v, sizeof(v));
	while (v >= limit);
	return v % n;
}

void weights_init(double *w, size_t n, enum init_method method, double value,
		  int64_t seed)
{
	struct mt19937 r;
	uint32_t from = (uint32_t)seed;

	if (seed < 0)
		random_fill(&from, sizeof(from));
	mt_seed(&r, from);
	for (size_t i = 0; i < n; i++)
		switch (method) {
		case INIT_RANDOM_UNIFORM:
			w[i] = mt_uniform(&r);
			break;
		case INIT_RANDOM_NORMAL:
			w[i] = mt_normal(&r);
			break;
		case INIT_ONES:
			w[i] = 1;
			break;
		case INIT_ZEROS:
			w[i] = 0;
			break;
		case INIT_CONST:
			w[i] = value;
			break;
		}
}
