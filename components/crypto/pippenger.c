// SPDX-License-Identifier: Apache-2.0
/*
 * Products of powers by the bucket method (Pippenger 1976), one number at a
 * time: for the portable path. Which bucket is touched depends on the scalars.
 *
 * The scalars are cut into signed digits of w bits, -2^(w-1) .. 2^(w-1). For
 * a digit d > 0 of row i the bucket d is multiplied by c_i, for d < 0 the
 * bucket -d by the inverse of c_i; the inverses of a block of rows come from
 * one inversion (three multiplications each) and serve all columns. A
 * window's buckets are then folded from the top: prod B_d^d. Work goes to
 * the threads by (block of rows, column).
 */
#include <string.h>

#include "components/crypto/paillier_priv.h"

#define BLOCK	   2048 /* rows whose inverses are held at once */
#define WINDOW_MAX 10

struct matvec_job {
	const struct cipher_vec *d;
	const struct scalars *x;
	size_t cols, row0, rows; /* the present block */
	mp_limb_t *inv;
	size_t splits;	 /* of the block, when columns are fewer than threads */
	mp_limb_t *part; /* splits * cols results of this block */
};

/* Multiplications for `rows` scalars of `bits` bits in windows of w. */
static size_t cost(size_t rows, unsigned bits, unsigned w)
{
	return (bits / w + 1) * (rows + ((size_t)2 << (w - 1)) + w);
}

struct buckets {
	const struct ring *m;
	mp_limb_t *b; /* bucket d at (d - 1) * k */
	bool *used;
	mp_limb_t *scratch;
};

static void bucket_add(struct buckets *u, size_t d, const mp_limb_t *c)
{
	mp_limb_t *at = u->b + (d - 1) * (size_t)u->m->k;

	if (u->used[d - 1])
		u->m->op.mul(u->m, at, at, c, u->scratch);
	else
		memcpy(at, c, u->m->k * sizeof(*at));
	u->used[d - 1] = true;
}

/* acc *= prod over d of bucket_d^d; empties the buckets. */
static void buckets_fold(struct buckets *u, size_t n, mp_limb_t *run,
			 mp_limb_t *acc)
{
	bool any = false;

	for (size_t d = n; d > 0; d--) {
		mp_limb_t *at = u->b + (d - 1) * (size_t)u->m->k;

		if (u->used[d - 1] && any)
			u->m->op.mul(u->m, run, run, at, u->scratch);
		else if (u->used[d - 1])
			memcpy(run, at, u->m->k * sizeof(*run));
		any = any || u->used[d - 1];
		u->used[d - 1] = false;
		if (any)
			u->m->op.mul(u->m, acc, acc, run, u->scratch);
	}
}

/* acc = prod over rows lo..hi-1 of c_i^(s_i), s already in `s`. */
static void multiexp(const struct matvec_job *j, const int64_t *s, size_t lo,
		     size_t hi, unsigned bits, mp_limb_t *acc)
{
	const struct ring *m = j->d->key->n2;
	size_t k = (size_t)m->k;
	unsigned w = 1, windows;
	uint64_t high = 0;

	for (unsigned v = 2; v <= WINDOW_MAX; v++)
		if (cost(hi - lo, bits, v) < cost(hi - lo, bits, w))
			w = v;
	/* One bit more than the value: the carry of the signed digits. */
	windows = bits / w + 1;
	size_t half = (size_t)1 << (w - 1);
	_cleanup_free_ mp_limb_t *mem = ring_alloc((half + 1) * k + m->scratch);
	_cleanup_free_ bool *used = xcalloc(half, sizeof(bool));
	mp_limb_t *run = mem + half * k;
	struct buckets u = { m, mem, used, run + k };

	/* With half added to every digit but the top one, the digits of the
	 * sum are the signed digits plus half. */
	for (unsigned i = 0; i + 1 < windows; i++)
		high |= (uint64_t)half << (i * w);
	memcpy(acc, m->one, k * sizeof(*acc));
	for (unsigned i = windows; i-- > 0;) {
		for (unsigned b = 0; b < w && i + 1 < windows; b++)
			m->op.mul(m, acc, acc, acc, u.scratch);
		for (size_t r = lo; r < hi; r++) {
			uint64_t a = high + (uint64_t)(s[r] < 0 ? -s[r] : s[r]);
			int64_t d = (int64_t)(a >> (i * w));
			bool neg = s[r] < 0;

			if (i + 1 < windows)
				d = (d & (int64_t)(2 * half - 1)) -
				    (int64_t)half;
			if (d < 0) {
				neg = !neg;
				d = -d;
			}
			if (d > 0)
				bucket_add(&u, (size_t)d,
					   neg ? j->inv + r * k
					       : cipher_at(j->d, j->row0 + r));
		}
		buckets_fold(&u, half, run, acc);
	}
}

static void matvec_share(void *arg, size_t lo, size_t hi)
{
	struct matvec_job *j = arg;
	_cleanup_free_ int64_t *s = xcalloc(j->rows, sizeof(*s));

	for (size_t t = lo; t < hi; t++) {
		size_t col = t / j->splits, part = t % j->splits;
		size_t a = j->rows * part / j->splits;
		size_t b = j->rows * (part + 1) / j->splits;
		uint64_t all = 0;
		unsigned bits = 0;

		for (size_t r = a; r < b; r++) {
			s[r] = scalar_at(j->x, j->row0 + r, col);
			all |= (uint64_t)(s[r] < 0 ? -s[r] : s[r]);
		}
		while (bits < 64 && all >> bits)
			bits++;
		multiexp(j, s, a, b, bits,
			 j->part + t * (size_t)j->d->key->n2->k);
	}
}

struct invert_job {
	struct matvec_job *j;
	bool bad;
};

static void invert_share(void *arg, size_t lo, size_t hi)
{
	struct invert_job *v = arg;
	const struct ring *m = v->j->d->key->n2;

	if (hi > lo &&
	    ring_invert(m, v->j->inv + lo * m->k,
			cipher_at(v->j->d, v->j->row0 + lo), hi - lo) < 0)
		__atomic_store_n(&v->bad, true, __ATOMIC_RELAXED);
}

int pippenger(const struct cipher_vec *d, const struct scalars *s, size_t rows,
	      unsigned threads, struct cipher_vec *ret)
{
	const struct ring *m = d->key->n2;
	size_t k = m->k, block = MIN(rows, (size_t)BLOCK), cols = s->cols;
	size_t splits = cols && cols < threads ? threads : 1;
	struct matvec_job j = {
		.d = d, .x = s, .cols = cols, .splits = splits
	};
	_cleanup_free_ mp_limb_t *inv = ring_alloc(block * k);
	_cleanup_free_ mp_limb_t *part = ring_alloc(splits * cols * k);

	j.inv = inv;
	j.part = part;
	for (j.row0 = 0; j.row0 < rows; j.row0 += j.rows) {
		struct invert_job v = { .j = &j };

		j.rows = MIN(block, rows - j.row0);
		crypto_split(threads, j.rows, invert_share, &v);
		if (v.bad)
			return -EPROTO;
		crypto_split(threads, cols * splits, matvec_share, &j);
		for (size_t t = 0; t < cols * splits; t++)
			ring_mul(m, cipher_at(ret, t / splits),
				 cipher_at(ret, t / splits), part + t * k, 1,
				 1);
	}
	return 0;
}
