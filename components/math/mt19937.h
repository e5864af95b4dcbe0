/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The generator of numpy's RandomState (MT19937) and what numpy draws from
 * it, number by number, so that a job with a seed does what the same seed does
 * in numpy and scikit-learn.  Nothing secret comes from it.
 */
#ifndef COMPONENTS_MATH_MT19937_H
#define COMPONENTS_MATH_MT19937_H

#include "lib/base.h"

#define MT_N 624

struct mt19937 {
	uint32_t s[MT_N];
	size_t at;
	bool have; /* the second number of a polar pair is waiting */
	double spare;
};

/* RandomState(seed) */
void mt_seed(struct mt19937 *r, uint32_t seed);
uint32_t mt_next(struct mt19937 *r);
/* rand(): 53 bits in [0, 1) */
double mt_uniform(struct mt19937 *r);
/* randn() */
double mt_normal(struct mt19937 *r);

#endif
