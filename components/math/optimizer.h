/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The optimisers and penalties of the coordinated linear models, with FATE's
 * constants, and the start values of their weights.
 *
 *   optimizer_init -> for each batch: optimizer_step(epoch, gradient in,
 *   update out) at whoever sees the gradient; weights_update() at the owner
 *   of the weights -> optimizer_free
 */
#ifndef COMPONENTS_MATH_OPTIMIZER_H
#define COMPONENTS_MATH_OPTIMIZER_H

#include "lib/err.h"

enum optimizer_kind {
	OPTIMIZER_SGD,
	OPTIMIZER_RMSPROP,
	OPTIMIZER_ADAGRAD,
	OPTIMIZER_ADAM,
	OPTIMIZER_NESTEROV,
};

enum penalty_kind { PENALTY_NONE, PENALTY_L1, PENALTY_L2 };

struct optimizer {
	enum optimizer_kind kind;
	double learning_rate;
	double decay;
	bool decay_sqrt;
	/* below is ours */
	size_t n;
	uint64_t calls;
	double *m, *v;
};

/* FATE's names without regard to case; -1 when there is no such. */
int optimizer_kind(const char *name);
/* NULL and "none" are PENALTY_NONE. */
int penalty_kind(const char *name);

/* The public fields are set by the caller; the moments start at zero. */
void optimizer_init(struct optimizer *o, size_t n);
void optimizer_free(struct optimizer *o);
/* g holds the gradient and then the update; epoch counts from 0. */
void optimizer_step(struct optimizer *o, unsigned epoch, double *g);

/*
 * w -= update, with the L1 shrinkage of alpha * rate / sqrt(epoch) on the
 * first n weights; an intercept behind them (intercept 1) is never shrunk.
 * The shrinkage of epoch 0 is infinite, as it is in FATE.
 */
void weights_update(double *w, const double *update, size_t n, bool intercept,
		    enum penalty_kind penalty, double alpha, double rate,
		    unsigned epoch);
/* alpha * |w|_1, alpha / 2 * |w|_2^2 or 0. */
double weights_penalty(const double *w, size_t n, enum penalty_kind penalty,
		       double alpha);

enum init_method {
	INIT_RANDOM_UNIFORM,
	INIT_RANDOM_NORMAL,
	INIT_ONES,
	INIT_ZEROS,
	INIT_CONST,
};
int init_method(const char *name);
/*
 * seed < 0: from the system.  Otherwise MT19937 drawn the way numpy's
 * random.seed, rand and randn do, so that a FATE conf starts where FATE does.
 */
void weights_init(double *w, size_t n, enum init_method method, double value,
		  int64_t seed);

/* A uniform number below n (n > 0) from the system's generator. */
uint32_t random_below(uint32_t n);

#endif
