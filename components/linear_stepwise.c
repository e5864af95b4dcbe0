// SPDX-License-Identifier: Apache-2.0
/*
 * Stepwise selection of columns by AIC or BIC.  Columns are numbered, the
 * host's first; all parties walk the same candidates in the same order, the
 * arbiter says after each step which candidate won, and the guest, which has
 * heard the losses, by which value.
 */
#include <math.h>

#include "lib/json.h"

#include "components/linear.h"

/* A model that was trained already. */
struct candidate {
	bool *mask; /* of all columns */
	double criterion;
	struct linear_set set; /* of this party */
};

struct stepwise {
	struct linear *l;
	const struct linear_data *d; /* NULL at the arbiter */
	size_t rows, host, guest;    /* columns of each */
	struct candidate *cache;
	size_t n_cache;
	bool *now;
	unsigned step;
	json_t *steps;
};

static size_t columns(const struct stepwise *s)
{
	return s->host + s->guest;
}

static size_t count(const struct stepwise *s, const bool *mask)
{
	size_t n = 0;

	for (size_t j = 0; j < columns(s); j++)
		n += mask[j];
	return n;
}

/* This party's part of a mask. */
static const bool *own(const struct stepwise *s, const bool *mask)
{
	return s->l->role == LINEAR_GUEST ? mask + s->host : mask;
}

/* ---- the sizes ------------------------------------------------------------
 */

static int send_info(struct stepwise *s, const char *name, struct err *e)
{
	static const char *const roles[] = { "guest", "host", "arbiter" };
	uint32_t v[2] = { (uint32_t)s->d->rows, (uint32_t)s->d->cols };
	int r = 0;

	for (size_t k = 0; k < 3 && r >= 0; k++)
		if (strcmp(roles[k], ctx_role(s->l->c)) != 0)
			r = ctx_send_u32(s->l->c, roles[k], 0, name, "", v, 2,
					 e);
	return r;
}

static int recv_info(struct stepwise *s, const char *role, const char *name,
		     size_t *ret, struct err *e)
{
	_cleanup_free_ uint32_t *v = NULL;
	size_t n;
	int r = ctx_recv_u32(s->l->c, role, 0, name, "", 2, &v, &n, e);

	if (r < 0)
		return r;
	if (n != 2 || !v[0] || v[1] > TABLE_COLUMNS_MAX ||
	    (s->rows && v[0] != s->rows))
		return err_set(e, EPROTO, "%s: bad", name);
	s->rows = v[0];
	*ret = v[1];
	return 0;
}

static int exchange_info(struct stepwise *s, struct err *e)
{
	int r = 0;

	if (s->d) {
		bool guest = s->l->role == LINEAR_GUEST;

		s->rows = s->d->rows;
		if (guest)
			s->guest = s->d->cols;
		else
			s->host = s->d->cols;
		r = send_info(s, guest ? "guest_data_info" : "host_data_info",
			      e);
	}
	if (r >= 0 && s->l->role != LINEAR_GUEST)
		r = recv_info(s, "guest", "guest_data_info", &s->guest, e);
	if (r >= 0 && s->l->role != LINEAR_HOST)
		r = recv_info(s, "host", "host_data_info", &s->host, e);
	return r;
}

/* ---- candidates -----------------------------------------------------------
 */

static struct candidate *cached(struct stepwise *s, const bool *mask)
{
	for (size_t i = 0; i < s->n_cache; i++)
		if (!memcmp(s->cache[i].mask, mask, columns(s)))
			return &s->cache[i];
	return NULL;
}

static double criterion(const struct stepwise *s, const bool *mask, double loss)
{
	const struct linear_params *p = &s->l->p;
	double n = (double)s->rows;
	double free_ones = (double)count(s, mask) + p->fit_intercept;
	double each = p->bic ? log(n) : 2;

	return each * free_ones +
	       (s->l->f->log_criterion ? n * log(2 * loss) : 2 * n * loss);
}

/* Trains the model of a mask unless it is known; index of it in the cache. */
static int visit(struct stepwise *s, const bool *mask, unsigned number,
		 size_t *ret, struct err *e)
{
	struct candidate *k = cached(s, mask);
	struct linear_data d = { 0 };
	struct linear *l = s->l;
	char flow[LINEAR_FLOW];
	double loss = 0;
	int r;

	if (k) {
		*ret = (size_t)(k - s->cache);
		return 0;
	}
	s->cache = xrealloc(s->cache, (s->n_cache + 1) * sizeof(*s->cache));
	k = &s->cache[s->n_cache];
	*ret = s->n_cache++;
	*k =
	    (struct candidate){ .mask = xcalloc(columns(s) + 1, sizeof(bool)) };
	memcpy(k->mask, mask, columns(s) * sizeof(bool));
	(void)snprintf(flow, sizeof(flow), "step_%u.model_%u.", s->step,
		       number);
	if (s->d)
		linear_data_columns(s->d, own(s, mask), &d);
	ctx_log(l->c, "step %u, model %u: %zu columns", s->step, number,
		count(s, mask));
	r = linear_train(l, flow, s->d ? &d : NULL, NULL, &k->set, &loss, e);
	linear_data_free(&d);
	if (r >= 0 && k->set.n > 1)
		r = err_set(e, EINVAL,
			    "stepwise selection works with two classes");
	k->criterion = criterion(s, mask, loss);
	return r;
}

struct winner {
	size_t index;
	double criterion;
	bool have;
};

static int try_mask(struct stepwise *s, const bool *mask, unsigned *number,
		    struct winner *w, struct err *e)
{
	size_t i;
	int r;

	if (!count(s, mask) && !s->l->p.fit_intercept)
		return 0; /* no model at all */
	r = visit(s, mask, (*number)++, &i, e);
	if (r < 0)
		return r;
	if (!w->have || s->cache[i].criterion < w->criterion)
		*w = (struct winner){ i, s->cache[i].criterion, true };
	return 0;
}

/* The present mask, and those that differ from it in one column. */
static int try_all(struct stepwise *s, struct winner *w, struct err *e)
{
	const struct linear_params *p = &s->l->p;
	_cleanup_free_ bool *mask = xcalloc(columns(s) + 1, sizeof(*mask));
	size_t n = count(s, s->now);
	unsigned number = 0;
	int r;

	memcpy(mask, s->now, columns(s) * sizeof(*mask));
	r = try_mask(s, mask, &number, w, e);
	for (size_t j = 0; j < columns(s) && r >= 0; j++) {
		bool drop = s->now[j];

		if (drop ? !p->backward || n <= p->nvmin
			 : !p->forward || (p->nvmax && n >= p->nvmax))
			continue;
		mask[j] = !drop;
		r = try_mask(s, mask, &number, w, e);
		mask[j] = drop;
		ctx_progress(s->l->c,
			     (s->step + (j + 1.0) / (double)columns(s)) /
				 p->max_step);
	}
	return r;
}

/* The arbiter's choice, to all: its index in the cache. */
static int choose(struct stepwise *s, const struct winner *w, size_t *ret,
		  struct err *e)
{
	struct linear *l = s->l;
	_cleanup_free_ uint32_t *got = NULL;
	uint32_t best = (uint32_t)w->index;
	char tag[32];
	size_t n;
	int r = 0;

	(void)snprintf(tag, sizeof(tag), "%u", s->step);
	if (l->role == LINEAR_ARBITER) {
		r = ctx_send_u32(l->c, "guest", 0, "step_best", tag, &best, 1,
				 e);
		if (r >= 0)
			r = ctx_send_u32(l->c, "host", 0, "step_best", tag,
					 &best, 1, e);
		ctx_log(l->c, "step %u: criterion %.6f", s->step, w->criterion);
	} else {
		r = ctx_recv_u32(l->c, "arbiter", 0, "step_best", tag, 1, &got,
				 &n, e);
		if (r >= 0 && (n != 1 || got[0] >= s->n_cache))
			r = err_set(e, EPROTO, "step_best: bad");
		if (r >= 0)
			best = got[0];
	}
	*ret = best;
	return r;
}

/* What a step ended with: in the summary, at the guest also as a curve. */
static int note_step(struct stepwise *s, double reached, struct err *e)
{
	json_t *names = json_array(), *step;

	for (size_t j = 0; s->d && j < s->d->cols; j++)
		if (own(s, s->now)[j])
			json_array_append_new(names,
					      json_string(s->d->names[j]));
	step =
	    json_pack("{s:I, s:I, s:o}", "step", (json_int_t)s->step, "columns",
		      (json_int_t)count(s, s->now), "own_columns", names);
	json_array_append_new(s->steps, step);
	if (s->l->role != LINEAR_GUEST || !isfinite(reached))
		return 0;
	json_object_set_new(step, "criterion", json_real(reached));
	return ctx_metric(s->l->c, "train", "criterion", s->step, reached, e);
}

/* The losses of the model that was chosen: those of all would be hundreds. */
static int show_losses(struct linear *l, const struct linear_model *m,
		       struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < m->n_loss && r >= 0; i++)
		r = linear_curve(l, "", "train", "loss", (double)i, m->loss[i],
				 e);
	return r;
}

static int search(struct stepwise *s, struct err *e)
{
	const struct linear_params *p = &s->l->p;
	bool moved = true;
	int r = 0;

	s->now = xcalloc(columns(s) + 1, sizeof(*s->now));
	for (size_t j = 0; j < columns(s); j++)
		s->now[j] = p->backward;
	for (; s->step < p->max_step && moved && r >= 0; s->step++) {
		struct winner w = { 0 };
		const struct candidate *best;
		size_t i;

		r = try_all(s, &w, e);
		if (r >= 0)
			r = choose(s, &w, &i, e);
		if (r < 0)
			return r;
		best = &s->cache[i];
		moved = memcmp(s->now, best->mask, columns(s)) != 0;
		memcpy(s->now, best->mask, columns(s) * sizeof(*s->now));
		r = note_step(s, best->criterion, e);
	}
	return r;
}

int linear_stepwise(struct linear *l, const struct linear_data *d,
		    struct linear_set *ret, struct linear_data *ret_d,
		    json_t **ret_steps, struct err *e)
{
	struct stepwise s = { .l = l, .d = d, .steps = json_array() };
	struct candidate *best;
	int r;

	r = exchange_info(&s, e);
	if (r >= 0)
		r = search(&s, e);
	best = r >= 0 ? cached(&s, s.now) : NULL;
	if (r >= 0 && !best)
		r = err_set(e, EPROTO, "the chosen model was never trained");
	if (best) {
		*ret = best->set;
		best->set = (struct linear_set){ 0 };
		if (l->role == LINEAR_GUEST && ret->n)
			r = show_losses(l, &ret->m[0], e);
		if (d)
			linear_data_columns(d, own(&s, s.now), ret_d);
	}
	for (size_t i = 0; i < s.n_cache; i++) {
		free(s.cache[i].mask);
		linear_set_free(&s.cache[i].set);
	}
	free(s.cache);
	free(s.now);
	if (r < 0)
		json_decref(s.steps);
	else
		*ret_steps = s.steps;
	return r;
}
