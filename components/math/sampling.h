/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drawing rows: what numpy's RandomState and scikit-learn's train_test_split
 * and resample would draw, from one of two sources.
 *
 * A public seed draws exactly what the same seed draws there.  It must not be
 * used for what depends on labels and is shown to those who know the seed:
 * from the rows that were drawn they could compute labels.  For that there is
 * the secret key; the same key always draws the same.
 */
#ifndef COMPONENTS_MATH_SAMPLING_H
#define COMPONENTS_MATH_SAMPLING_H

#include "components/math/mt19937.h"

struct draw {
	bool keyed;
	struct mt19937 mt;
	uint8_t key[32];
	uint32_t stage;
	uint64_t block; /* next one */
	uint32_t words[8];
	unsigned left;
};

/* RandomState(seed) */
void draw_seed(struct draw *d, uint32_t seed);
/* The numbers are SHA-256(key, stage as u32, counter as u64), cut into words
 * of 32 bits, everything little endian. */
void draw_key(struct draw *d, const uint8_t key[32], uint32_t stage);
/* Uniform in 0..max. */
uint32_t draw_upto(struct draw *d, uint32_t max);
/* RandomState.shuffle */
void draw_shuffle(struct draw *d, uint32_t *v, size_t n);

/*
 * train_test_split(ids, train_size=first, test_size=n - first): the train ids
 * come to the front.  class (of an id, below n_classes) or NULL: stratified.
 */
void draw_split(struct draw *d, uint32_t *ids, size_t n, size_t first,
		const uint32_t *class, size_t n_classes);

/* resample(ids, replace=False, n_samples=m): m <= n, into ret. */
void draw_subset(struct draw *d, const uint32_t *ids, size_t n, size_t m,
		 uint32_t *ret);
/* resample(ids, replace=True, n_samples=m), n > 0 */
void draw_again(struct draw *d, const uint32_t *ids, size_t n, size_t m,
		uint32_t *ret);

#endif
