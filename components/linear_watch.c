// SPDX-License-Identifier: Apache-2.0
/* What happens between epochs: validation, early stopping, checkpoints. */
#include <math.h>

#include "lib/json.h"

#include "components/linear.h"

/* ---- curves --------------------------------------------------------------
 */

int linear_curve(struct linear *l, const char *flow, const char *kind,
		 const char *name, double x, double y, struct err *e)
{
	const char *class = strstr(flow, "class_");
	unsigned fold = 0, k = 0;
	char ns[64], full[80];

	if (!strncmp(flow, "step_", 5))
		return 0; /* hundreds of models: the summary has them */
	if (sscanf(flow, "fold_%u.", &fold) == 1)
		(void)snprintf(ns, sizeof(ns), "fold_%u_%s", fold, kind);
	else
		(void)snprintf(ns, sizeof(ns), "%s", kind);
	if (class && sscanf(class, "class_%u.", &k) == 1)
		(void)snprintf(full, sizeof(full), "%s_class_%u", name, k);
	else
		(void)snprintf(full, sizeof(full), "%s", name);
	return ctx_metric(l->c, ns, full, x, y, e);
}

/* ---- checkpoints of earlier attempts -------------------------------------
 */

/* The newest epoch that all of us and the other party have, into have. */
static size_t common(unsigned *have, size_t n, const uint32_t *theirs, size_t m)
{
	size_t k = 0;

	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < m; j++)
			if (have[i] == theirs[j]) {
				have[k++] = have[i];
				break;
			}
	return k;
}

/* *ret: 1 + the checkpoint to go on from, or 0. */
static int choose(struct linear *l, unsigned *have, size_t n, uint32_t *ret,
		  struct err *e)
{
	static const char *const roles[] = { "host", "arbiter" };
	int r = 0;

	for (size_t k = 0; k < 2; k++)
		for (size_t i = 0; i < ctx_count(l->c, roles[k]); i++) {
			_cleanup_free_ uint32_t *theirs = NULL;
			size_t m;

			r = ctx_recv_u32(l->c, roles[k], i, "checkpoint_list",
					 "", 1000000, &theirs, &m, e);
			if (r < 0)
				return r;
			n = common(have, n, theirs, m);
		}
	*ret = n ? have[n - 1] + 1 : 0;
	for (size_t k = 0; k < 2; k++)
		for (size_t i = 0; i < ctx_count(l->c, roles[k]) && r >= 0; i++)
			r = ctx_send_u32(l->c, roles[k], i, "checkpoint_resume",
					 "", ret, 1, e);
	return r;
}

static int follow(struct linear *l, const unsigned *have, size_t n,
		  uint32_t *ret, struct err *e)
{
	_cleanup_free_ uint32_t *mine = xcalloc(n + 1, sizeof(*mine));
	_cleanup_free_ uint32_t *got = NULL;
	bool known = false;
	size_t m;
	int r;

	for (size_t i = 0; i < n; i++)
		mine[i] = have[i];
	r = ctx_send_u32(l->c, "guest", 0, "checkpoint_list", "", mine, n, e);
	if (r >= 0)
		r = ctx_recv_u32(l->c, "guest", 0, "checkpoint_resume", "", 1,
				 &got, &m, e);
	if (r < 0)
		return r;
	for (size_t i = 0; m == 1 && i < n; i++)
		known |= mine[i] + 1 == got[0];
	if (m != 1 || (got[0] && !known))
		return err_set(e, EPROTO, "checkpoint_resume: no such one");
	*ret = got[0];
	return 0;
}

static void rows_text(const struct linear_data *d, char ret[65])
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < 32; i++) {
		ret[2 * i] = digits[d->ids.cells[i] >> 4];
		ret[2 * i + 1] = digits[d->ids.cells[i] & 15];
	}
	ret[64] = '\0';
}

/* Checkpoints of other rows (what comes before this component ran again) are
 * none. */
static int of_these_rows(struct linear_watch *w, const unsigned *have,
			 size_t *n, struct err *e)
{
	const char *rows;
	char mine[65];
	json_t *o;
	int r;

	if (!*n || !w->train)
		return 0;
	r = ctx_get_checkpoint(w->l->c, have[*n - 1], &o, e);
	if (r < 0)
		return err_wrap(e, "checkpoint %u", have[*n - 1]);
	rows = json_str_or(json_object_get(o, "state"), "rows", "");
	rows_text(w->train, mine);
	if (strcmp(rows, mine) != 0) {
		*n = 0;
		ctx_event(w->l->c, "the checkpoints are of other rows: the "
				   "training begins anew");
	}
	json_decref(o);
	return 0;
}

int linear_watch_begin(struct linear_watch *w, struct err *e)
{
	struct linear *l = w->l;
	_cleanup_free_ unsigned *have = NULL;
	uint32_t index = 0;
	const json_t *state;
	size_t n = 0;
	int r;

	w->n_best = 0;
	while (w->n_best < LINEAR_METRICS_MAX && l->p.metrics[w->n_best])
		w->n_best++;
	if (l->p.first_metric_only)
		w->n_best = 1;
	if (l->p.stop_early && !w->have_validate)
		return err_set(e, EINVAL,
			       "EarlyStopping needs validate_data (or "
			       "eval_data) in the DSL");
	if (!l->p.checkpoints)
		return 0;
	r = ctx_checkpoints(l->c, &have, &n, e);
	if (r >= 0)
		r = of_these_rows(w, have, &n, e);
	if (r >= 0)
		r = l->role == LINEAR_GUEST ? choose(l, have, n, &index, e)
					    : follow(l, have, n, &index, e);
	if (r < 0 || !index)
		return r;
	r = ctx_get_checkpoint(l->c, index - 1, &w->resumed, e);
	if (r < 0)
		return err_wrap(e, "checkpoint %u", index - 1);
	state = json_object_get(w->resumed, "state");
	w->resume_model = (unsigned)json_int_or(state, "model", 0);
	w->resume_epoch = (unsigned)json_int_or(state, "done", 0);
	ctx_event(l->c, "goes on with iteration %u, from checkpoint %u",
		  w->resume_epoch, index - 1);
	return 0;
}

static void forget_best(struct linear_watch *w)
{
	for (size_t i = 0; i < LINEAR_METRICS_MAX; i++) {
		free(w->best[i].w);
		w->best[i] = (struct linear_best){ 0 };
	}
	w->stopped_by = 0;
}

void linear_watch_free(struct linear_watch *w)
{
	forget_best(w);
	free(w->y_validate);
	json_decref(w->resumed);
	*w = (struct linear_watch){ 0 };
}

int linear_watch_model(struct linear_watch *w, const struct linear_set *set,
		       unsigned k, bool *ret_warm, bool *ret_done,
		       struct err *e)
{
	const json_t *state = json_object_get(w->resumed, "state");
	const json_t *header =
	    json_object_get(json_object_get(w->resumed, "param"), "header");
	const json_t *models = json_object_get(state, "models");
	int r;

	w->set = set;
	w->model = k;
	forget_best(w);
	free(w->y_validate);
	w->y_validate = NULL;
	if (w->validate && w->l->role == LINEAR_GUEST)
		w->y_validate = linear_targets(w->l, set, k, w->validate);
	if (!w->resumed || k > w->resume_model)
		return 0;
	*ret_done = k < w->resume_model;
	if (!set->m)
		return 0;
	if (json_array_size(header) != w->train->cols)
		return err_set(e, EINVAL,
			       "the checkpoint has other columns than the "
			       "data");
	if (set->m[k].w)
		linear_model_free(&set->m[k]);
	r = linear_model_read(w->l, json_array_get(models, k), header,
			      &set->m[k], e);
	*ret_warm = true;
	return r < 0 ? err_wrap(e, "checkpoint") : 0;
}

static int restore_best(struct linear_watch *w, const json_t *list, size_t n)
{
	const json_t *o, *x;
	size_t i, j;

	json_array_foreach (list, i, o) {
		const json_t *v = json_object_get(o, "w");
		struct linear_best *b = &w->best[i];

		if (i == LINEAR_METRICS_MAX)
			break;
		b->have = json_bool_or(o, "have", false);
		b->value = json_num_or(o, "value", 0);
		b->since = (unsigned)json_int_or(o, "since", 0);
		b->epoch = (unsigned)json_int_or(o, "epoch", 0);
		if (!b->have || !n || json_array_size(v) != n)
			continue;
		b->w = xcalloc(n + 1, sizeof(*b->w));
		json_array_foreach (v, j, x)
			b->w[j] = json_number_value(x);
	}
	return 0;
}

int linear_watch_restore(struct linear_watch *w, struct linear_fit *f,
			 struct err *e)
{
	const json_t *state = json_object_get(w->resumed, "state");
	int r;

	if (!w->resumed || w->model != w->resume_model)
		return 0;
	if (f->start != w->resume_epoch)
		return err_set(e, EINVAL, "the checkpoint is damaged");
	r = restore_best(w, json_object_get(state, "best"),
			 f->m ? f->m->cols + f->m->intercept : 0);
	if (r < 0)
		return r;
	f->stop = json_bool_or(state, "stop", false);
	w->stopped_by = (size_t)json_int_or(state, "stopped_by", 0);
	if (w->stopped_by >= LINEAR_METRICS_MAX)
		return err_set(e, EINVAL, "the checkpoint is damaged");
	return f->m ? linear_sqn_restore(f, json_object_get(state, "sqn"), e)
		    : arbiter_restore(f, json_object_get(state, "arbiter"), e);
}

/* ---- saving -------------------------------------------------------------- */

static json_t *best_json(const struct linear_watch *w, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < w->n_best; i++) {
		const struct linear_best *b = &w->best[i];
		json_t *v = json_array();

		for (size_t j = 0; b->w && j < n; j++)
			json_array_append_new(v, json_real(b->w[j]));
		json_array_append_new(
		    list,
		    json_pack("{s:b, s:f, s:I, s:I, s:o}", "have", b->have,
			      "value", b->value, "since", (json_int_t)b->since,
			      "epoch", (json_int_t)b->epoch, "w", v));
	}
	return list;
}

static int save(struct linear_watch *w, struct linear_fit *f, unsigned epoch,
		struct err *e)
{
	struct linear *l = w->l;
	unsigned index = w->model * l->p.max_iter + epoch;
	struct linear_set one = { .n = 1, .m = f->m };
	json_t *param = f->m ? linear_set_json(l, f->d, &one) : json_object();
	json_t *models = json_array();
	json_t *state;
	int r;

	for (unsigned k = 0; f->m && k <= w->model; k++)
		json_array_append_new(
		    models, linear_model_json(l, f->d, &w->set->m[k]));
	state = json_pack(
	    "{s:I, s:I, s:b, s:I, s:o, s:o}", "model", (json_int_t)w->model,
	    "done", (json_int_t)epoch + 1, "stop", f->stop, "stopped_by",
	    (json_int_t)w->stopped_by, "models", models, "best",
	    best_json(w, f->m ? f->m->cols + f->m->intercept : 0));
	if (w->train) {
		char rows[65];

		rows_text(w->train, rows);
		json_object_set_new(state, "rows", json_string(rows));
	}
	if (f->m)
		json_object_set_new(state, "sqn", linear_sqn_state(f));
	else
		json_object_set_new(state, "arbiter", arbiter_state(f));
	r = ctx_put_checkpoint(l->c, index, ctx_params(l->c), param, state, e);
	json_decref(state);
	json_decref(param);
	return r;
}

/* ---- validation ---------------------------------------------------------- */

static bool due(const struct linear_params *p, unsigned epoch)
{
	const json_t *x;
	size_t i;

	if (!p->evaluate && !p->stop_early)
		return false;
	if (json_is_integer(p->freqs))
		return (epoch + 1) % (json_int_t)json_integer_value(p->freqs) ==
		       0;
	json_array_foreach (p->freqs, i, x)
		if (json_integer_value(x) == (json_int_t)epoch + 1)
			return true;
	return false;
}

/* Does the value improve the metric's best? */
static bool note(struct linear_best *b, const char *name, double value,
		 unsigned epoch)
{
	bool better =
	    !b->have ||
	    (linear_metric_larger(name) ? value > b->value : value < b->value);

	if (!isfinite(value))
		better = false;
	if (!better) {
		b->since++;
		return false;
	}
	b->have = true;
	b->value = value;
	b->epoch = epoch;
	b->since = 0;
	return true;
}

static void keep_best(struct linear_best *b, const struct linear_model *m,
		      unsigned epoch)
{
	size_t n = m->cols + m->intercept;

	free(b->w);
	b->w = xcalloc(n + 1, sizeof(*b->w));
	memcpy(b->w, m->w, n * sizeof(*b->w));
	b->have = true;
	b->epoch = epoch;
}

/* The measures of one set of rows; bits of those that improved. */
static int measure(struct linear_watch *w, struct linear_fit *f,
		   const char *kind, const struct linear_data *d,
		   const double *y, bool judged, unsigned epoch,
		   uint32_t *improved, struct err *e)
{
	const char *const *names = linear_metric_names(w->l);
	size_t rows = d ? d->rows : 0;
	_cleanup_free_ double *score =
	    d ? xcalloc(rows + 1, sizeof(*score)) : NULL;
	char tag[LINEAR_TAG];
	int r;

	(void)snprintf(tag, sizeof(tag), "%s%u.%s", f->flow, epoch, kind);
	r = linear_scores(w->l, tag, f->m, d, score, e);
	if (r < 0 || w->l->role != LINEAR_GUEST)
		return r;
	for (size_t i = 0; names[i] && r >= 0; i++) {
		double v = linear_metric(w->l, names[i], y, score, rows);

		r = linear_curve(w->l, f->flow, kind, names[i], epoch, v, e);
		if (judged && i < w->n_best &&
		    note(&w->best[i], names[i], v, epoch))
			*improved |= 1u << i;
	}
	return r;
}

static int send_status(struct linear_watch *w, uint32_t improved, bool stop,
		       const char *tag, struct err *e)
{
	static const char *const roles[] = { "host", "arbiter" };
	uint32_t v[3] = { improved, stop, (uint32_t)w->stopped_by };
	int r = 0;

	for (size_t k = 0; k < 2; k++)
		for (size_t i = 0; i < ctx_count(w->l->c, roles[k]) && r >= 0;
		     i++)
			r = ctx_send_u32(w->l->c, roles[k], i,
					 "validation_status", tag, v, 3, e);
	return r;
}

static int recv_status(struct linear_watch *w, uint32_t *improved, bool *stop,
		       const char *tag, struct err *e)
{
	_cleanup_free_ uint32_t *v = NULL;
	size_t n;
	int r = ctx_recv_u32(w->l->c, "guest", 0, "validation_status", tag, 3,
			     &v, &n, e);

	if (r < 0)
		return r;
	if (n != 3 || v[2] >= LINEAR_METRICS_MAX)
		return err_set(e, EPROTO, "validation_status: bad");
	*improved = v[0];
	*stop = v[1];
	w->stopped_by = v[2];
	return 0;
}

static int validate(struct linear_watch *w, struct linear_fit *f,
		    unsigned epoch, struct err *e)
{
	struct linear *l = w->l;
	uint32_t improved = 0;
	bool stop = false;
	char tag[LINEAR_TAG];
	int r = 0;

	linear_tag_epoch(tag, f->flow, epoch);
	if (l->p.evaluate)
		r = measure(w, f, "train", w->train, f->y, false, epoch,
			    &improved, e);
	if (r >= 0 && w->have_validate)
		r = measure(w, f, "validate", w->validate, w->y_validate,
			    l->p.stop_early, epoch, &improved, e);
	if (r < 0 || !l->p.stop_early)
		return r;
	if (l->role == LINEAR_GUEST) {
		for (size_t i = 0; i < w->n_best && !stop; i++)
			if (w->best[i].since >= l->p.rounds) {
				w->stopped_by = i;
				stop = true;
			}
		r = send_status(w, improved, stop, tag, e);
	} else {
		r = recv_status(w, &improved, &stop, tag, e);
	}
	if (r < 0)
		return r;
	for (size_t i = 0; f->m && i < LINEAR_METRICS_MAX; i++)
		if (improved & 1u << i)
			keep_best(&w->best[i], f->m, epoch);
	if (stop) {
		f->stop = true;
		ctx_event(l->c,
			  "iteration %u: %u validations without "
			  "improvement, training stops",
			  epoch, l->p.rounds);
	}
	return 0;
}

int linear_watch_epoch(struct linear_watch *w, struct linear_fit *f,
		       unsigned epoch, struct err *e)
{
	const struct linear_params *p = &w->l->p;
	int r = due(p, epoch) ? validate(w, f, epoch, e) : 0;

	if (r >= 0 && p->checkpoints && (epoch + 1) % p->save_freq == 0)
		r = save(w, f, epoch, e);
	return r;
}

void linear_watch_end(struct linear_watch *w, struct linear_fit *f)
{
	const struct linear_best *b = &w->best[w->stopped_by];

	if (!w->l->p.stop_early || !f->m || !b->w)
		return;
	memcpy(f->m->w, b->w, (f->m->cols + f->m->intercept) * sizeof(*b->w));
	f->m->best = (int)b->epoch;
	ctx_log(w->l->c, "the model of iteration %u is the best", b->epoch);
}
