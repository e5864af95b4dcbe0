// SPDX-License-Identifier: Apache-2.0
#include "components/math/mt19937.h"

#include <math.h>

#define MT_M 397

/* Matsumoto and Nishimura 1998, seeded by one 32-bit number. */
void mt_seed(struct mt19937 *r, uint32_t seed)
{
	*r = (struct mt19937){ .at = MT_N };
	r->s[0] = seed;
	for (uint32_t i = 1; i < MT_N; i++)
		r->s[i] = 1812433253u * (r->s[i - 1] ^ (r->s[i - 1] >> 30)) + i;
}

uint32_t mt_next(struct mt19937 *r)
{
	uint32_t y;

	if (r->at == MT_N) {
		for (size_t i = 0; i < MT_N; i++) {
			y = (r->s[i] & 0x80000000u) |
			    (r->s[(i + 1) % MT_N] & 0x7fffffffu);
			r->s[i] = r->s[(i + MT_M) % MT_N] ^ (y >> 1) ^
				  (y & 1 ? 0x9908b0dfu : 0);
		}
		r->at = 0;
	}
	y = r->s[r->at++];
	y ^= y >> 11;
	y ^= (y << 7) & 0x9d2c5680u;
	y ^= (y << 15) & 0xefc60000u;
	return y ^ (y >> 18);
}

/* 53 bits in [0, 1). */
double mt_uniform(struct mt19937 *r)
{
	uint32_t a = mt_next(r) >> 5;
	uint32_t b = mt_next(r) >> 6;

	return (a * 67108864.0 + b) / 9007199254740992.0;
}

/* Marsaglia's polar method; of a pair the second number comes out first. */
double mt_normal(struct mt19937 *r)
{
	double x, y, d, f;

	if (r->have) {
		r->have = false;
		return r->spare;
	}
	do {
		x = 2 * mt_uniform(r) - 1;
		y = 2 * mt_uniform(r) - 1;
		d = x * x + y * y;
	} while (d >= 1 || d <= 0);
	f = sqrt(-2 * log(d) / d);
	r->have = true;
	r->spare = f * x;
	return f * y;
}
