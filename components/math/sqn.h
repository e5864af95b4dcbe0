/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of the stochastic quasi-Newton method (Byrd, Hansen, Nocedal,
 * Singer: A stochastic quasi-Newton method for large-scale optimization, SIAM
 * J. Optim. 26, 2016): pairs of a step s and the Hessian times it, y; and the
 * product of the inverse Hessian they imply with a gradient, by the two loops
 * of L-BFGS from (y's / y'y) I of the newest pair.
 */
#ifndef COMPONENTS_MATH_SQN_H
#define COMPONENTS_MATH_SQN_H

#include "lib/base.h"

struct sqn_memory {
	size_t n;      /* length of a vector */
	unsigned max;  /* pairs that are kept */
	unsigned have; /* pairs that are there */
	double *s, *y; /* max x n, oldest first */
};

void sqn_init(struct sqn_memory *m, size_t n, unsigned max);
void sqn_free(struct sqn_memory *m);
/* The oldest pair goes when there is no room; one with y's <= 0 or that is
 * not finite is not taken (false). */
bool sqn_add(struct sqn_memory *m, const double *s, const double *y);
/* g = H g; nothing without a pair. */
void sqn_apply(const struct sqn_memory *m, double *g);

#endif
