// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "components/crypto/ring.h"

_Static_assert(GMP_NUMB_BITS == 64, "limbs are words");

uint64_t *ring_alloc(size_t words)
{
	size_t n = (words * sizeof(uint64_t) + 63) / 64 * 64;
	uint64_t *p = aligned_alloc(64, MAX(n, (size_t)64));

	if (!p) {
		(void)fprintf(stderr, "out of memory\n");
		exit(1);
	}
	memset(p, 0, MAX(n, (size_t)64));
	return p;
}

void ring_wipe(uint64_t *p, size_t words)
{
	if (p)
		explicit_bzero(p, words * sizeof(*p));
	free(p);
}

static bool portable_only;

void ring_force_portable(bool on)
{
	__atomic_store_n(&portable_only, on, __ATOMIC_RELAXED);
}

struct ring *ring_new(const mpz_t n, unsigned flags)
{
	struct ring *g = xcalloc(1, sizeof(*g));

	mpz_inits(g->n, g->m, NULL);
	mpz_set(g->n, n);
	g->square = flags & RING_SQUARE;
	g->secret = flags & RING_SECRET;
	if (g->square)
		mpz_mul(g->m, n, n);
	else
		mpz_set(g->m, n);
	g->limbs = (mp_size_t)mpz_size(g->m);
	if (flags & RING_PORTABLE ||
	    __atomic_load_n(&portable_only, __ATOMIC_RELAXED) || !ring_ifma(g))
		ring_portable(g);
	return g;
}

static void wipe_number(mpz_t v)
{
	explicit_bzero(v->_mp_d, (size_t)v->_mp_alloc * sizeof(mp_limb_t));
	mpz_clear(v);
}

void ring_free(struct ring *g)
{
	size_t group;

	if (!g)
		return;
	group = ring_group(g);
	wipe_number(g->n);
	wipe_number(g->m);
	ring_wipe(g->digits, g->h);
	ring_wipe(g->start, g->h);
	ring_wipe(g->one, group);
	ring_wipe(g->rr, 4 * group);
	free(g);
}
