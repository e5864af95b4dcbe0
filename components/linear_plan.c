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

static void set_scales(struct linear_plan *s, unsigned x_scale)
{
	s->x_scale = x_scale;
	s->residual_scale =
	    LINEAR_SCALE + (s->factors ? LINEAR_FACTOR_SCALE : 0);
	s->gradient_scale = s->residual_scale + x_scale;
	s->part_scale =
	    s->gradient_scale - (s->factors ? LINEAR_FACTOR_SCALE : 0);
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
	s.loss = l->hosts == 1;
	s.async =
	    l->hosts == 1 && !s.factors && s.masked_batch_size == s.batch_size;
	s.rowwise = s.factors || s.masked_batch_size != s.batch_size;
	set_scales(&s, p->feature_bits + log2_ceil(s.batch_size));
	*ret = s;
}

int linear_plan_send(struct linear *l, const char *flow,
		     const struct linear_plan *plan, struct err *e)
{
	static const char *const roles[] = { "host", "arbiter" };
	json_t *o = json_pack(
	    "{s:I, s:I, s:I, s:I, s:b, s:b, s:b, s:I, s:I}", "rows",
	    (json_int_t)plan->rows, "batch_size", (json_int_t)plan->batch_size,
	    "masked_batch_size", (json_int_t)plan->masked_batch_size,
	    "batch_num", (json_int_t)plan->batches, "batch_mutable",
	    plan->mutable_batches, "use_async", plan->async, "weighted",
	    plan->weighted, "start", (json_int_t)plan->start, "gradient_scale",
	    (json_int_t)plan->gradient_scale);
	int r = o ? 0 : err_set(e, ENOMEM, "batch_info: out of memory");

	for (size_t k = 0; k < ARRAY_SIZE(roles); k++)
		for (size_t i = 0; i < ctx_count(l->c, roles[k]) && r >= 0; i++)
			r = ctx_send_json(l->c, roles[k], i, "batch_info", flow,
					  o, e);
	json_decref(o);
	return r;
}

static int plan_get(const struct linear *l, const json_t *o,
		    struct linear_plan *s, struct err *e)
{
	int64_t rows, size, masked, batches, scale, start;
	bool weighted = json_bool_or(o, "weighted", false);
	int64_t least = LINEAR_SCALE +
			(weighted || l->f->factors ? LINEAR_FACTOR_SCALE : 0);
	int r;

	if ((r = json_get_int(o, "rows", 1, ROWS_MAX, &rows, e)) < 0 ||
	    (r = json_get_int(o, "batch_size", 1, rows, &size, e)) < 0 ||
	    (r = json_get_int(o, "masked_batch_size", size, rows, &masked, e)) <
		0 ||
	    (r = json_get_int(o, "batch_num", 1, (rows + size - 1) / size,
			      &batches, e)) < 0 ||
	    (r = json_get_int(o, "start", 0, 1000000, &start, e)) < 0 ||
	    (r = json_get_int(o, "gradient_scale", least, 200, &scale, e)) < 0)
		return r;
	*s = (struct linear_plan){
		.rows = (size_t)rows,
		.batch_size = (size_t)size,
		.masked_batch_size = (size_t)masked,
		.batches = (unsigned)batches,
		.start = (unsigned)start,
		.weighted = weighted,
		.factors = weighted || l->f->factors,
		.mutable_batches = json_bool_or(o, "batch_mutable", false),
		.async = json_bool_or(o, "use_async", false),
		.loss = l->hosts == 1,
	};
	s->rowwise = s->factors || masked != size;
	set_scales(s, (unsigned)(scale - least));
	return 0;
}

int linear_plan_recv(struct linear *l, const char *flow, size_t rows,
		     struct linear_plan *ret, struct err *e)
{
	struct linear_plan s, own;
	json_t *o;
	int r = ctx_recv_json(l->c, "guest", 0, "batch_info", flow, &o, e);

	if (r < 0)
		return r;
	r = plan_get(l, o, &s, e);
	json_decref(o);
	if (r < 0)
		return err_wrap(e, "batch_info");
	linear_plan_make(l, rows ? rows : s.rows, s.weighted, s.start, &own);
	if (own.rows != s.rows || own.batch_size != s.batch_size ||
	    own.masked_batch_size != s.masked_batch_size ||
	    own.batches != s.batches || own.async != s.async ||
	    own.mutable_batches != s.mutable_batches ||
	    own.gradient_scale != s.gradient_scale)
		return err_set(e, EPROTO,
			       "the guest's batches are not those that this "
			       "party's parameters give");
	*ret = s;
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
