// SPDX-License-Identifier: Apache-2.0
#include <string.h>

#include "components/crypto/modexp.h"
#include "lib/base.h"

struct modexp {
	mpz_t m;
	mp_size_t k; /* limbs */
	bool secret;
};

int modexp_new(const mpz_t m, unsigned flags, struct modexp **ret,
	       struct err *e)
{
	struct modexp *x;
	size_t bits = mpz_sizeinbase(m, 2);

	if (mpz_sgn(m) <= 0 || mpz_even_p(m) || bits < MODEXP_MIN ||
	    bits > MODEXP_MAX)
		return err_set(e, EINVAL,
			       "modulus of %zu bits: odd, of %d to %d bits",
			       bits, MODEXP_MIN, MODEXP_MAX);
	x = xcalloc(1, sizeof(*x));
	mpz_init_set(x->m, m);
	x->k = (mp_size_t)mpz_size(m);
	x->secret = flags & MODEXP_SECRET;
	*ret = x;
	return 0;
}

void modexp_free(struct modexp *x)
{
	if (!x)
		return;
	if (x->secret)
		explicit_bzero(x->m->_mp_d,
			       (size_t)x->m->_mp_alloc * sizeof(mp_limb_t));
	mpz_clear(x->m);
	free(x);
}

size_t modexp_limbs(const struct modexp *x)
{
	return (size_t)x->k;
}

bool modexp_vector(const struct modexp *x)
{
	(void)x;
	return false;
}

static mp_limb_t *scratch_new(size_t limbs)
{
	return xmalloc(limbs * sizeof(mp_limb_t));
}

static void scratch_free(mp_limb_t *s, size_t limbs)
{
	explicit_bzero(s, limbs * sizeof(*s));
	free(s);
}

void modexp_reduce(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		   size_t limbs, size_t n)
{
	size_t k = (size_t)x->k, wide = MAX(limbs, k);
	size_t itch = (size_t)mpn_sec_div_r_itch((mp_size_t)wide, x->k);
	mp_limb_t *s = scratch_new(itch + wide), *t = s + itch;

	for (size_t i = 0; i < n; i++) {
		mpn_zero(t, (mp_size_t)wide);
		mpn_copyi(t, a + i * limbs, (mp_size_t)limbs);
		mpn_sec_div_r(t, (mp_size_t)wide, mpz_limbs_read(x->m), x->k,
			      s);
		mpn_copyi(r + i * k, t, x->k);
	}
	scratch_free(s, itch + wide);
}

void modexp_mul(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		const mp_limb_t *b, size_t b_step, size_t n)
{
	size_t k = (size_t)x->k;
	size_t itch = (size_t)MAX(mpn_sec_mul_itch(x->k, x->k),
				  mpn_sec_div_r_itch(2 * x->k, x->k));
	mp_limb_t *s = scratch_new(itch + 2 * k), *t = s + itch;

	for (size_t i = 0; i < n; i++) {
		mpn_sec_mul(t, a + i * k, x->k, b + i * b_step * k, x->k, s);
		mpn_sec_div_r(t, 2 * x->k, mpz_limbs_read(x->m), x->k, s);
		mpn_copyi(r + i * k, t, x->k);
	}
	scratch_free(s, itch + 2 * k);
}

void modexp_sub(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		const mp_limb_t *b, size_t n)
{
	size_t k = (size_t)x->k;

	for (size_t i = 0; i < n * k; i += k) {
		mp_limb_t less = mpn_sub_n(r + i, a + i, b + i, x->k);

		(void)mpn_cnd_add_n(less, r + i, r + i, mpz_limbs_read(x->m),
				    x->k);
	}
}

void modexp_pow(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		size_t n, const mpz_t e, unsigned bits)
{
	size_t k = (size_t)x->k,
	       el = (bits + GMP_NUMB_BITS - 1) / GMP_NUMB_BITS;
	size_t itch = (size_t)mpn_sec_powm_itch(x->k, bits, x->k);
	size_t all = itch + k + el;
	mp_limb_t *s = scratch_new(all), *t = s + itch, *exp = t + k;

	for (size_t i = 0; i < el; i++)
		exp[i] = mpz_getlimbn(e, (mp_size_t)i);
	for (size_t i = 0; i < n; i++) {
		mpn_sec_powm(t, a + i * k, x->k, exp, bits,
			     mpz_limbs_read(x->m), x->k, s);
		mpn_copyi(r + i * k, t, x->k);
	}
	scratch_free(s, all);
}

static void put(const struct modexp *x, mp_limb_t *r, const mpz_t v)
{
	mpn_zero(r, x->k);
	if (mpz_sgn(v))
		mpn_copyi(r, mpz_limbs_read(v), (mp_size_t)mpz_size(v));
}

void modexp_pow_public(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		       size_t n, const mpz_t e)
{
	size_t k = (size_t)x->k;
	mpz_t t, v;

	mpz_init(t);
	for (size_t i = 0; i < n; i++) {
		mpz_powm(t, mpz_roinit_n(v, a + i * k, x->k), e, x->m);
		put(x, r + i * k, t);
	}
	mpz_clear(t);
}

int modexp_invert(const struct modexp *x, mp_limb_t *r, const mp_limb_t *a,
		  size_t n)
{
	size_t k = (size_t)x->k, all = (n + 1) * k;
	mp_limb_t *run = scratch_new(all), *up = run + k;
	mpz_t t, v;
	int rc;

	if (n == 0) {
		free(run);
		return 0;
	}
	/* up_i = a_0 .. a_i, then divided down from the end. */
	mpn_copyi(up, a, x->k);
	for (size_t i = 1; i < n; i++)
		modexp_mul(x, up + i * k, up + (i - 1) * k, a + i * k, 1, 1);
	mpz_init(t);
	rc = mpz_invert(t, mpz_roinit_n(v, up + (n - 1) * k, x->k), x->m)
		 ? 0
		 : -EINVAL;
	if (rc == 0) {
		put(x, run, t);
		for (size_t i = n - 1; i > 0; i--) {
			modexp_mul(x, up + i * k, up + (i - 1) * k, run, 1, 1);
			modexp_mul(x, run, run, a + i * k, 1, 1);
			mpn_copyi(r + i * k, up + i * k, x->k);
		}
		mpn_copyi(r, run, x->k);
	}
	explicit_bzero(t->_mp_d, (size_t)t->_mp_alloc * sizeof(mp_limb_t));
	mpz_clear(t);
	scratch_free(run, all);
	return rc;
}
