/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arithmetic modulo an odd number n or its square, on several numbers at once.
 *
 * A number is a record: k words, Montgomery's form x R (Montgomery 1985) in
 * digits of base 2^52 (vectors) or 2^64 (portable), R the base to the power of
 * h, h the digits of n. Modulo n^2 a record is a pair of h digits each,
 * x R = a + b n, because
 *	(a + b n)(c + d n) = ac + (ad + bc) n  mod n^2
 * and Montgomery's reduction of ac finds a digit string m with
 * ac + m n = u R, so that the product over R is u + n ((ad + bc - m) / R):
 * five products of h digits (three and a half for a square) where a number of
 * 2h digits would cost eight (six).
 *
 * A group is `lanes` numbers (8 on vectors, 1 portable), digit i of number l
 * at word i * lanes + l; all arithmetic is on groups, records are how numbers
 * are kept. Both are of memory from ring_alloc().
 *
 * Bounds. On vectors the halves of a record are not reduced: what arithmetic
 * takes may be up to 32 n, what it gives is below 2 n; R >= 2^12 n is chosen
 * so that this holds (ifma_kernel.h has the proof). Portable halves are below
 * n. So records are equal only after ring_leave().
 *
 * Everything here but what is called `public` takes the same time, and reads
 * and writes the same addresses, for all numbers of a ring, also for a secret
 * n. A ring does not change after ring_new: threads may share it.
 */
#ifndef COMPONENTS_CRYPTO_RING_H
#define COMPONENTS_CRYPTO_RING_H

#include <gmp.h>

#include "lib/base.h"

#define RING_LANES 8 /* at most */
#define RING_FILL  8 /* numbers of a table filled at once */

enum ring_flags {
	RING_SQUARE = 1,   /* modulo n^2 */
	RING_SECRET = 2,   /* n is secret: memory is wiped */
	RING_PORTABLE = 4, /* no vectors */
};

struct ring;

struct ring_ops {
	/* r = a b; r may be a or b. */
	void (*mul)(const struct ring *g, uint64_t *r, const uint64_t *a,
		    const uint64_t *b, uint64_t *scratch);
	void (*sqr)(const struct ring *g, uint64_t *r, const uint64_t *a,
		    uint64_t *scratch);
	/* The same for b whose upper half is zero (not read). */
	void (*mul_low)(const struct ring *g, uint64_t *r, const uint64_t *a,
			const uint64_t *b, uint64_t *scratch);
	/* r = a + b; on vectors the bound of r is the sum of theirs. */
	void (*add)(const struct ring *g, uint64_t *r, const uint64_t *a,
		    const uint64_t *b);
	/* Groups from and to one record for each lane. */
	void (*load)(const struct ring *g, uint64_t *r,
		     const uint64_t *const *rec);
	void (*store)(const struct ring *g, uint64_t *const *rec,
		      const uint64_t *a);
	/* Integers of `limbs` limbs (below 2^(52 h) 4 in all), one for each
	 * lane, into a group; and a group into integers of n's or n^2's limbs,
	 * below the modulus. */
	void (*enter)(const struct ring *g, uint64_t *r,
		      const mp_limb_t *const *v, size_t limbs,
		      uint64_t *scratch);
	void (*leave)(const struct ring *g, mp_limb_t *const *v,
		      const uint64_t *a, uint64_t *scratch);
	/* Integers below R into the lower half of a group as they are, without
	 * the factor R. */
	void (*raw)(const struct ring *g, uint64_t *r,
		    const mp_limb_t *const *v, size_t limbs);
	/*
	 * Tables of 2^w records (w >= 3) from which each lane takes one.
	 * fill: entries at .. at + 7, for lane l into table[l], from eight
	 * groups one behind the other. select: lane l takes entry digit[l] of
	 * table[l], reading all of it.
	 */
	void (*fill)(const struct ring *g, uint64_t *const *table, unsigned w,
		     unsigned at, const uint64_t *groups);
	void (*select)(const struct ring *g, uint64_t *r,
		       const uint64_t *const *table, unsigned w,
		       const uint32_t *digit);
	/* Lane l takes number l of group digit[l] of 2^w groups one behind the
	 * other, reading all of them. */
	void (*pick)(const struct ring *g, uint64_t *r, const uint64_t *groups,
		     unsigned w, const uint32_t *digit);
	/* Sums of up to 1000 halves (`sum` has a word for every lane more than
	 * one), and r = r (1 + sum n) / R. */
	void (*sum_add)(const struct ring *g, uint64_t *sum, const uint64_t *a);
	void (*sum_end)(const struct ring *g, uint64_t *r, const uint64_t *sum,
			uint64_t *scratch);
};

struct ring {
	mpz_t n, m;	      /* m = n or n^2 */
	unsigned lanes, h, k; /* k = h or 2h words */
	bool square, secret;
	size_t scratch;	  /* words */
	mp_size_t limbs;  /* of m, for leave */
	uint64_t *digits; /* n */
	uint64_t inv;	  /* -1 / n modulo the base */
	uint64_t *start;  /* vectors: see ifma_kernel.h */
	uint64_t *one;	  /* group: R */
	uint64_t *rr;	  /* groups: R^2 .. R^5 */
	struct ring_ops op;
	bool strips; /* portable: strip.h can be used */
};

/* n is odd, of at least 64 bits. */
struct ring *ring_new(const mpz_t n, unsigned flags);
void ring_free(struct ring *g);

/* Rings made from now on have no vectors: for tests and figures. */
void ring_force_portable(bool on);

/* Zeroed, for vectors' alignment; wiped when freed. */
uint64_t *ring_alloc(size_t words);
void ring_wipe(uint64_t *p, size_t words);

static inline size_t ring_group(const struct ring *g) /* words of a group */
{
	return (size_t)g->k * g->lanes;
}

/* Fills in the vector path; false when this processor has none for n. */
bool ring_ifma(struct ring *g);
void ring_portable(struct ring *g);

#endif
