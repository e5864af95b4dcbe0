// SPDX-License-Identifier: Apache-2.0
#include <math.h>

#include "components/crypto/paillier_priv.h"

#define SCALAR_MAX 0x1p61

int64_t scalar_at(const struct scalars *s, size_t row, size_t col)
{
	return (int64_t)rint(ldexp(s->x[row * s->cols + col], (int)s->xscale));
}

int cipher_matvec(const struct cipher_vec *d, const double *x, size_t rows,
		  size_t cols, unsigned xscale, unsigned threads,
		  struct cipher_vec **ret, struct err *e)
{
	struct scalars s = { .x = x, .cols = cols, .xscale = xscale };
	double largest = 0;
	struct cipher_vec *out;
	int rc;

	if (d->n != rows)
		return err_set(e, EINVAL, "%zu ciphertexts for %zu rows", d->n,
			       rows);
	for (size_t i = 0; i < rows * cols; i++) {
		double v = fabs(ldexp(x[i], (int)xscale));

		if (!(v < SCALAR_MAX))
			return err_set(e, ERANGE, "a scalar is too large");
		largest = MAX(largest, v);
	}
	while (s.bits < 62 && rint(largest) >= ldexp(1, (int)s.bits))
		s.bits++;
	out = cipher_vec_new(d->key, cols, d->scale + xscale);
	if (d->key->n2->lanes > 1)
		rc = straus(d, &s, rows, threads, out);
	else
		rc = pippenger(d, &s, rows, threads, out);
	if (rc < 0) {
		cipher_vec_free(out);
		return err_set(e, -rc, "a ciphertext is no unit");
	}
	*ret = out;
	return 0;
}
