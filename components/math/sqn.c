// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <string.h>

#include "components/math/sqn.h"

static double dot(const double *a, const double *b, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += a[i] * b[i];
	return sum;
}

void sqn_init(struct sqn_memory *m, size_t n, unsigned max)
{
	*m = (struct sqn_memory){ .n = n, .max = max };
	m->s = xcalloc(n * max + 1, sizeof(*m->s));
	m->y = xcalloc(n * max + 1, sizeof(*m->y));
}

void sqn_free(struct sqn_memory *m)
{
	free(m->s);
	free(m->y);
	*m = (struct sqn_memory){ 0 };
}

bool sqn_add(struct sqn_memory *m, const double *s, const double *y)
{
	double sy = dot(s, y, m->n);

	if (!(sy > 0) || !isfinite(dot(y, y, m->n)))
		return false;
	if (m->have == m->max) {
		size_t rest = (size_t)(m->max - 1) * m->n;

		memmove(m->s, m->s + m->n, rest * sizeof(*m->s));
		memmove(m->y, m->y + m->n, rest * sizeof(*m->y));
		m->have--;
	}
	memcpy(m->s + m->have * m->n, s, m->n * sizeof(*s));
	memcpy(m->y + m->have * m->n, y, m->n * sizeof(*y));
	m->have++;
	return true;
}

void sqn_apply(const struct sqn_memory *m, double *g)
{
	_cleanup_free_ double *a = xcalloc(m->have + 1, sizeof(*a));
	const double *s, *y;
	double scale;

	if (!m->have)
		return;
	for (unsigned i = m->have; i-- > 0;) {
		s = m->s + i * m->n;
		y = m->y + i * m->n;
		a[i] = dot(s, g, m->n) / dot(s, y, m->n);
		for (size_t j = 0; j < m->n; j++)
			g[j] -= a[i] * y[j];
	}
	s = m->s + (m->have - 1) * m->n;
	y = m->y + (m->have - 1) * m->n;
	scale = dot(s, y, m->n) / dot(y, y, m->n);
	for (size_t j = 0; j < m->n; j++)
		g[j] *= scale;
	for (unsigned i = 0; i < m->have; i++) {
		double b;

		s = m->s + i * m->n;
		y = m->y + i * m->n;
		b = dot(y, g, m->n) / dot(s, y, m->n);
		for (size_t j = 0; j < m->n; j++)
			g[j] += (a[i] - b) * s[j];
	}
}
