// SPDX-License-Identifier: Apache-2.0
/*
 * Products of powers by tables (Straus 1964), on whole groups: the gradient
 * on the vector path.
 *
 * The scalars get an offset, u = s + 2^bits, so that none is negative; their
 * part (prod d_i)^(2^bits) is divided out once at the end. Of every row's
 * number there is a table of its powers below 2^w, which all columns share. A
 * lane is a column and multiplies up, for each of the windows of w bits, the
 * entries that its scalars' digits choose; at the end the windows are put
 * together by squarings. All entries of a table are read (ring.h, select):
 * the time does not depend on the scalars but through `bits`.
 *
 * Columns that do not fill a group share it with further rows: with 2 columns
 * left a group takes 4 rows at once, and its lanes of one column are
 * multiplied together at the end.
 */
#include <string.h>

#include "components/crypto/paillier_priv.h"

#define ROWS	 RING_LANES /* whose tables are made together */
#define COLS_MAX 256	    /* in one pass: bounds the memory */
#define W_MAX	 6

/* `cols` columns from `first` on in one group, 1 << share rows at a time. */
struct pack {
	size_t first, cols;
	unsigned share;
};

struct straus_job {
	const struct cipher_vec *d;
	const struct scalars *s;
	size_t rows, col0, cols; /* the present pass */
	unsigned w, windows;
	struct pack pack[COLS_MAX]; /* a group for each column, at most */
	size_t packs;
	uint64_t *out;	      /* cols records */
	uint64_t *all;	      /* record: product of all d_i */
	pthread_mutex_t lock; /* of out and all */
};

/* What a thread works with. */
struct straus_space {
	uint64_t *acc; /* packs * windows groups */
	uint64_t *run; /* group: product of the rows */
	uint64_t *base, *eight, *pick, *scratch;
	uint64_t *table[ROWS];
	uint64_t *digits; /* u: ROWS * cols */
	uint64_t *mem;
	size_t words;
};

static unsigned lanes_log(const struct ring *g)
{
	return g->lanes == 8 ? 3 : 0;
}

static void make_packs(struct straus_job *j)
{
	const unsigned log = lanes_log(j->d->key->n2);
	size_t at = 0;

	for (unsigned share = 0; share <= log; share++)
		for (size_t width = (size_t)1 << (log - share);
		     j->cols - at >= width ||
		     (share < log && j->cols - at > width / 2);) {
			size_t n = MIN(width, j->cols - at);

			j->pack[j->packs++] = (struct pack){ at, n, share };
			at += n;
		}
}

/* Products for a row: its table, and an entry for each window and column. */
static size_t row_cost(size_t cols, unsigned bits, unsigned w)
{
	return ((size_t)1 << w) + cols * ((bits + w) / w);
}

static void space_init(const struct straus_job *j, struct straus_space *p)
{
	const struct ring *g = j->d->key->n2;
	const size_t group = ring_group(g), table = (size_t)g->k << j->w;
	const size_t acc = j->packs * j->windows;
	uint64_t *at;

	p->words = (acc + 3 + RING_FILL) * group + g->lanes * table +
		   g->scratch + g->lanes * j->cols;
	p->mem = at = ring_alloc(p->words);
	p->acc = at;
	at += acc * group;
	p->run = at;
	at += group;
	p->base = at;
	at += group;
	p->pick = at;
	at += group;
	p->eight = at;
	at += RING_FILL * group;
	p->scratch = at;
	at += g->scratch;
	for (unsigned l = 0; l < g->lanes; l++, at += table)
		p->table[l] = at;
	p->digits = at;
	for (size_t i = 0; i < acc; i++)
		memcpy(p->acc + i * group, g->one, group * sizeof(*p->acc));
	memcpy(p->run, g->one, group * sizeof(*p->run));
}

/* Tables and scalars of rows row .. row + lanes - 1; what is behind the last
 * row counts as exponents 0. */
static void take_rows(const struct straus_job *j, struct straus_space *p,
		      size_t row, size_t hi)
{
	const struct ring *g = j->d->key->n2;
	const size_t group = ring_group(g);
	const uint64_t *at[RING_LANES];
	uint64_t *x = p->pick;

	for (size_t l = 0; l < g->lanes; l++) {
		at[l] = cipher_at(j->d, MIN(row + l, hi - 1));
		for (size_t c = 0; c < j->cols; c++)
			p->digits[l * j->cols + c] =
			    row + l < hi
				? (uint64_t)(scalar_at(j->s, row + l,
						       j->col0 + c) +
					     (INT64_C(1) << j->s->bits))
				: 0;
	}
	g->op.load(g, p->base, at);
	memcpy(x, g->one, group * sizeof(*x));
	for (unsigned d = 0; d < 1u << j->w; d++) {
		memcpy(p->eight + d % RING_FILL * group, x, group * sizeof(*x));
		if (d % RING_FILL == RING_FILL - 1)
			g->op.fill(g, p->table, j->w, d - (RING_FILL - 1),
				   p->eight);
		if (d == 0)
			memcpy(x, p->base, group * sizeof(*x));
		else
			g->op.mul(g, x, x, p->base, p->scratch);
	}
	/* The offsets' part: only rows that are there. */
	memcpy(x, p->base, group * sizeof(*x));
	for (size_t l = 0; l < g->lanes; l++)
		if (row + l >= hi)
			for (size_t w = 0; w < g->k; w++)
				x[w * g->lanes + l] = g->one[w * g->lanes + l];
	g->op.mul(g, p->run, p->run, x, p->scratch);
}

static void multiply_pack(const struct straus_job *j, struct straus_space *p,
			  size_t at)
{
	const struct ring *g = j->d->key->n2;
	const struct pack *k = &j->pack[at];
	const size_t group = ring_group(g);
	const unsigned width = g->lanes >> k->share;

	for (unsigned i = 0; i < j->windows; i++) {
		uint64_t *acc = p->acc + (at * j->windows + i) * group;

		for (size_t r = 0; r < g->lanes; r += (size_t)1 << k->share) {
			const uint64_t *table[RING_LANES];
			uint32_t digit[RING_LANES];

			for (size_t l = 0; l < g->lanes; l++) {
				size_t row = r + l / width, c = l % width;
				uint64_t u = c < k->cols
						 ? p->digits[row * j->cols +
							     k->first + c]
						 : 0;

				table[l] = p->table[row];
				digit[l] = (uint32_t)(u >> (i * j->w)) &
					   ((1u << j->w) - 1);
			}
			g->op.select(g, p->pick, table, j->w, digit);
			g->op.mul(g, acc, acc, p->pick, p->scratch);
		}
	}
}

/* The windows of a group together, into the columns' records. */
static void end_pack(struct straus_job *j, struct straus_space *p, size_t at)
{
	const struct ring *g = j->d->key->n2;
	const struct pack *k = &j->pack[at];
	const size_t group = ring_group(g);
	const unsigned width = g->lanes >> k->share;
	const uint64_t *acc = p->acc + at * j->windows * group;
	uint64_t *x = p->pick, *to[RING_LANES], *rec = p->eight;

	memcpy(x, acc + (j->windows - 1) * group, group * sizeof(*x));
	for (unsigned i = j->windows - 1; i-- > 0;) {
		for (unsigned b = 0; b < j->w; b++)
			g->op.sqr(g, x, x, p->scratch);
		g->op.mul(g, x, x, acc + i * group, p->scratch);
	}
	for (size_t l = 0; l < g->lanes; l++)
		to[l] = rec + l * g->k;
	g->op.store(g, to, x);
	(void)pthread_mutex_lock(&j->lock);
	for (size_t l = 0; l < g->lanes; l += width)
		ring_mul(g, j->out + k->first * g->k, j->out + k->first * g->k,
			 rec + l * g->k, 1, k->cols);
	(void)pthread_mutex_unlock(&j->lock);
}

/* `lo` and `hi` count groups of rows. */
static void straus_share(void *arg, size_t lo, size_t hi)
{
	struct straus_job *j = arg;
	const struct ring *g = j->d->key->n2;
	const size_t end = MIN(hi * g->lanes, j->rows);
	struct straus_space p;
	uint64_t *to[RING_LANES];

	if (lo == hi)
		return;
	space_init(j, &p);
	for (size_t row = lo * g->lanes; row < end; row += g->lanes) {
		take_rows(j, &p, row, end);
		for (size_t i = 0; i < j->packs; i++)
			multiply_pack(j, &p, i);
	}
	for (size_t i = 0; i < j->packs; i++)
		end_pack(j, &p, i);
	for (size_t l = 0; l < g->lanes; l++)
		to[l] = p.eight + l * g->k;
	g->op.store(g, to, p.run);
	(void)pthread_mutex_lock(&j->lock);
	for (size_t l = 0; l < g->lanes; l++)
		ring_mul(g, j->all, j->all, to[l], 1, 1);
	(void)pthread_mutex_unlock(&j->lock);
	ring_wipe(p.mem, p.words);
}

/* out_j /= all^(2^bits) */
static int divide_offset(struct straus_job *j)
{
	const struct ring *g = j->d->key->n2;
	mpz_t t;
	int rc = ring_invert(g, j->all, j->all, 1);

	if (rc == 0) {
		mpz_init(t);
		mpz_setbit(t, j->s->bits);
		ring_pow_public(g, j->all, j->all, 1, t);
		mpz_clear(t);
		ring_mul(g, j->out, j->out, j->all, 0, j->cols);
	}
	return rc ? -EPROTO : 0;
}

int straus(const struct cipher_vec *d, const struct scalars *s, size_t rows,
	   unsigned threads, struct cipher_vec *ret)
{
	const struct ring *g = d->key->n2;
	struct straus_job *j = xcalloc(1, sizeof(*j));
	int rc = 0;

	j->d = d;
	j->s = s;
	j->rows = rows;
	j->all = ring_alloc(g->k);
	(void)pthread_mutex_init(&j->lock, NULL);
	for (j->col0 = 0; rc == 0 && rows > 0 && j->col0 < s->cols;
	     j->col0 += j->cols) {
		j->cols = MIN(s->cols - j->col0, (size_t)COLS_MAX);
		j->packs = 0;
		make_packs(j);
		j->w = 3;
		for (unsigned w = 4; w <= W_MAX; w++)
			if (row_cost(j->cols, s->bits, w) <
			    row_cost(j->cols, s->bits, j->w))
				j->w = w;
		j->windows = (s->bits + j->w) / j->w;
		j->out = cipher_at(ret, j->col0);
		for (size_t w = 0; w < g->k; w++)
			j->all[w] = g->one[w * g->lanes];
		crypto_split(threads, (rows + g->lanes - 1) / g->lanes,
			     straus_share, j);
		rc = divide_offset(j);
	}
	(void)pthread_mutex_destroy(&j->lock);
	ring_wipe(j->all, g->k);
	free(j);
	return rc;
}
