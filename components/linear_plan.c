// SPDX-License-Identifier: Apache-2.0
/* Batches, tags, and vectors of ciphertexts as messages. */
#include <math.h>

#include "lib/json.h"

#include "components/linear.h"

/* ---- batches ---------------------------------------------------------- */

static unsigned log2_ceil(size_t n)
{
	unsigned k = 0;

	while (((size_t)1 << k) < n)
		k++;
	return k;
}

/*
 * Sums over the n rows of a batch that count, in units of 2^(LINEAR_X_BITS +
 * LINEAR_D_BITS) (factors: times 2^LINEAR_D_BITS); slots hold 2 of them, with
 * several hosts 2 for each, and a sign. Features are below 3/4 2^LINEAR_X_BITS:
 *   one host: features / n times shares, where it has encrypted factors also
 *   times halves, 3/4 each, and 1/2 in clear;
 *   several: features / n times residuals, 3/4 for each host and the guest, and
 *   1/2 in clear;
 *   loss: 1/2 at the guest, 1/2 of the host's parts; twice the root of their
 *   product bounds p times shares (terms in linear_family.c), in any order of
 *   the rows.
 * More rows to a ciphertext save encryptions and cost, once for each column,
 * the shift of every row's slot: some sqrt(n) rows are the least work.
 */
static void set_packing(const struct linear *l, struct linear_plan *s)
{
	const struct paillier_public *k =
	    l->secret ? paillier_public(l->secret) : l->key;
	size_t n = s->masked_batch_size * (s->pick ? 2 : 1);
	unsigned per = 1;

	s->pack.bits = LINEAR_SCALE + s->x_scale + LINEAR_X_BITS +
		       LINEAR_D_BITS + (s->factors ? LINEAR_D_BITS : 0) +
		       log2_ceil(l->hosts) + 2;
	while (12 * (size_t)(per + 1) * (per + 1) <= n)
		per++;
	s->pack.per = MIN(per, paillier_dot_most(k, s->pack.bits));
	s->packed = s->pack.per > 0 && (s->async || !s->pick);
	s->pack.per = s->packed ? s->pack.per : 1;
}

void linear_plan_make(const struct linear *l, size_t rows, bool weighted,
		      unsigned start, struct linear_plan *ret)
{
	const struct linear_params *p = &l->p;
	struct linear_plan s = { .rows = rows,
				 .weighted = weighted,
				 .start = start };
	double masked;

	s.batch_size = p->batch_size < 0 || (uint64_t)p->batch_size > rows
			   ? rows
			   : (size_t)p->batch_size;
	s.batches = p->random_batch
			? 1
			: (unsigned)((rows + s.batch_size - 1) / s.batch_size);
	masked = round((1 + p->masked_rate) * (double)s.batch_size);
	s.masked_batch_size = masked < (double)rows ? (size_t)masked : rows;
	s.mutable_batches =
	    s.batch_size < rows && (p->shuffle || p->random_batch ||
				    s.masked_batch_size > s.batch_size);
	s.factors = weighted || l->f->factors;
	s.loss = s.async = l->hosts == 1;
	s.pick = s.factors || s.masked_batch_size != s.batch_size;
	s.x_scale = p->feature_bits + log2_ceil(s.batch_size);
	s.sqn_scale = LINEAR_SCALE + (s.factors ? LINEAR_FACTOR_SCALE : 0);
	s.residual_scale = s.async ? LINEAR_SCALE : s.sqn_scale;
	s.gradient_scale = s.residual_scale + s.x_scale;
	set_packing(l, &s);
	*ret = s;
}

int linear_plan_send(struct linear *l, const char *flow,
		     const struct linear_plan *plan, struct err *e)
{
	static const char *const roles[] = { "host", "arbiter" };
	json_t *o = json_pack(
	    "{s:I, s:I, s:I, s:I, s:b, s:b, s:b, s:I, s:I, s:I}", "rows",
	    (json_int_t)plan->rows, "batch_size", (json_int_t)plan->batch_size,
	    "masked_batch_size", (json_int_t)plan->masked_batch_size,
	    "batch_num", (json_int_t)plan->batches, "batch_mutable",
	    plan->mutable_batches, "use_async", plan->async, "weighted",
	    plan->weighted, "start", (json_int_t)plan->start, "gradient_scale",
	    (json_int_t)plan->gradient_scale, "rows_per_ciphertext",
	    (json_int_t)plan->pack.per);
	int r = o ? 0 : err_set(e, ENOMEM, "batch_info: out of memory");

	for (size_t k = 0; k < ARRAY_SIZE(roles); k++)
		for (size_t i = 0; i < ctx_count(l->c, roles[k]) && r >= 0; i++)
			r = ctx_send_json(l->c, roles[k], i, "batch_info", flow,
					  o, e);
	json_decref(o);
	return r;
}

/* What the guest says, as far as it is its own to say. */
struct said {
	int64_t rows, size, masked, batches, scale, start, per;
	bool weighted, mutable_batches, async;
};

static int plan_get(const json_t *o, struct said *s, struct err *e)
{
	int r;

	if ((r = json_get_int(o, "rows", 1, ROWS_MAX, &s->rows, e)) < 0 ||
	    (r = json_get_int(o, "batch_size", 1, s->rows, &s->size, e)) < 0 ||
	    (r = json_get_int(o, "masked_batch_size", s->size, s->rows,
			      &s->masked, e)) < 0 ||
	    (r = json_get_int(o, "batch_num", 1,
			      (s->rows + s->size - 1) / s->size, &s->batches,
			      e)) < 0 ||
	    (r = json_get_int(o, "start", 0, 1000000, &s->start, e)) < 0 ||
	    (r = json_get_int(o, "gradient_scale", 0, 1000, &s->scale, e)) <
		0 ||
	    (r = json_get_int(o, "rows_per_ciphertext", 1, 1000, &s->per, e)) <
		0)
		return r;
	s->weighted = json_bool_or(o, "weighted", false);
	s->mutable_batches = json_bool_or(o, "batch_mutable", false);
	s->async = json_bool_or(o, "use_async", false);
	return 0;
}

int linear_plan_recv(struct linear *l, const char *flow, size_t rows,
		     struct linear_plan *ret, struct err *e)
{
	struct linear_plan own;
	struct said s;
	json_t *o;
	int r = ctx_recv_json(l->c, "guest", 0, "batch_info", flow, &o, e);

	if (r < 0)
		return r;
	r = plan_get(o, &s, e);
	json_decref(o);
	if (r < 0)
		return err_wrap(e, "batch_info");
	linear_plan_make(l, rows ? rows : (size_t)s.rows, s.weighted,
			 (unsigned)s.start, &own);
	if (own.rows != (size_t)s.rows || own.batch_size != (size_t)s.size ||
	    own.masked_batch_size != (size_t)s.masked ||
	    own.batches != s.batches || own.async != s.async ||
	    own.mutable_batches != s.mutable_batches ||
	    own.gradient_scale != s.scale || own.pack.per != s.per)
		return err_set(e, EPROTO,
			       "the guest's batches are not those that this "
			       "party's parameters give");
	*ret = own;
	return 0;
}

size_t linear_batch_true(const struct linear_plan *plan, unsigned b)
{
	return MIN(plan->batch_size, plan->rows - b * plan->batch_size);
}

size_t linear_batch_sent(const struct linear_plan *plan, unsigned b)
{
	return plan->masked_batch_size > plan->batch_size
		   ? plan->masked_batch_size
		   : linear_batch_true(plan, b);
}

bool linear_plan_legal(const struct linear_plan *plan, size_t cols)
{
	return linear_batch_sent(plan, plan->batches - 1) > cols;
}

void linear_tag(char *tag, const char *flow, unsigned epoch, unsigned batch)
{
	(void)snprintf(tag, LINEAR_TAG, "%s%u.%u", flow, epoch, batch);
}

void linear_tag_epoch(char *tag, const char *flow, unsigned epoch)
{
	(void)snprintf(tag, LINEAR_TAG, "%s%u", flow, epoch);
}

/* ---- ciphertexts ------------------------------------------------------ */

size_t linear_packed(const struct linear_plan *plan, size_t n)
{
	return (n + plan->pack.per - 1) / plan->pack.per;
}

size_t linear_room(const struct linear_plan *plan, size_t n)
{
	return linear_packed(plan, n) * plan->pack.per;
}

static int diverged(struct linear *l, struct err *e)
{
	ctx_fail_code(l->c, "diverged",
		      "the training diverged; try a smaller learning_rate, or "
		      "scale features, labels and weights");
	return err_set(e, ERANGE,
		       "the training diverged: a row's residual, share or loss "
		       "is too large; try a smaller learning_rate, or scale "
		       "features, labels and weights");
}

int linear_fits(struct linear *l, const double *v, size_t n, int bits,
		struct err *e)
{
	for (size_t i = 0; i < n; i++)
		if (!(fabs(v[i]) < ldexp(1, bits)))
			return diverged(l, e);
	return 0;
}

int linear_encrypt(struct linear_fit *f, const double *v, size_t n, int bits,
		   struct cipher_vec **ret, struct err *e)
{
	struct linear *l = f->l;
	int r = linear_fits(l, v, n, bits, e);

	if (r < 0)
		return r;
	if (!f->plan.packed)
		return paillier_encrypt(l->key, v, n, LINEAR_SCALE,
					ctx_cores(l->c), ret, e);
	return paillier_encrypt_packed(l->key, NULL, v, n, LINEAR_SCALE,
				       &f->plan.pack, ctx_cores(l->c), ret, e);
}

int linear_product(struct linear_fit *f, const struct cipher_vec *d,
		   const double *x, size_t rows, size_t cols,
		   struct cipher_vec **ret, struct err *e)
{
	const struct linear_plan *plan = &f->plan;
	unsigned threads = ctx_cores(f->l->c);
	int r = plan->packed ? cipher_dot(d, &plan->pack, x, rows, cols,
					  plan->x_scale, threads, ret, e)
			     : cipher_matvec(d, x, rows, cols, plan->x_scale,
					     threads, ret, e);

	return r == -ERANGE ? diverged(f->l, e) : r;
}

int linear_product_end(struct linear_fit *f, struct cipher_vec *a,
		       const double *plain, struct err *e)
{
	unsigned threads = ctx_cores(f->l->c);
	int r = linear_fits(f->l, plain, cipher_vec_len(a), LINEAR_SUM_BITS, e);

	if (r < 0)
		return r;
	if (f->plan.packed)
		return cipher_dot_end(a, &f->plan.pack, plain, threads, e);
	r = cipher_add_plain(a, plain, threads, e);
	return r < 0 ? r : cipher_rerandomise(a, threads, e);
}

int linear_recv(struct linear *l, const char *role, size_t i, const char *name,
		const char *tag, size_t n, unsigned scale,
		struct cipher_vec **ret, struct err *e)
{
	_cleanup_free_ uint8_t *data = NULL;
	size_t got;
	int r = ctx_recv_fixed(l->c, role, i, name, tag, cipher_width(l->key),
			       n, &data, &got, e);

	if (r < 0)
		return r;
	if (got != n)
		return err_set(e, EPROTO, "%s: %zu values where %zu are due",
			       name, got, n);
	r = cipher_vec_import(l->key, data, n, scale, ctx_cores(l->c), ret, e);
	return r < 0 ? err_wrap(e, "%s", name) : 0;
}

int linear_send(struct linear *l, const char *role, size_t i, const char *name,
		const char *tag, const struct cipher_vec *v, struct err *e)
{
	size_t n = cipher_vec_len(v);
	_cleanup_free_ uint8_t *out = xmalloc(n * cipher_width(l->key) + 1);

	cipher_vec_export(v, out, ctx_cores(l->c));
	return ctx_send_fixed(l->c, role, i, name, tag, out,
			      cipher_width(l->key), n, e);
}
