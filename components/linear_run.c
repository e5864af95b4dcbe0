// SPDX-License-Identifier: Apache-2.0
/* A task of a coordinated linear model: what its inputs ask for. */
#include "lib/json.h"

#include "components/linear.h"

/* What a task has in its hands until it ends. */
struct run {
	struct linear l;
	bool train, validate; /* what the DSL wires */
	const char *validate_key;
	struct linear_data d, v, chosen;
	struct linear_set set;
	struct linear_watch watch;
	json_t *summary;
};

/* ---- the key ---------------------------------------------------------------
 */

static int make_key(struct linear *l, struct err *e)
{
	static const char *const roles[] = { "guest", "host" };
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(16384);
	int r = l->p.scheme == SCHEME_OU
		    ? ou_keygen(l->p.key_length, &l->secret, e)
		    : paillier_keygen(l->p.key_length, &l->secret, e);

	if (r < 0)
		return r;
	r = paillier_public_write(paillier_public(l->secret), &sb);
	if (r < 0)
		return err_sys(e, -r, "paillier_pubkey");
	for (size_t k = 0; k < ARRAY_SIZE(roles); k++)
		for (size_t i = 0; i < ctx_count(l->c, roles[k]) && r >= 0; i++)
			r = ctx_send_bytes(l->c, roles[k], i, "paillier_pubkey",
					   "", sb.buf, sb.len, e);
	return r;
}

static int take_key(struct linear *l, struct err *e)
{
	_cleanup_free_ void *data = NULL;
	size_t n;
	int r = ctx_recv_bytes(l->c, "arbiter", 0, "paillier_pubkey", "", 16384,
			       &data, &n, e);

	if (r >= 0)
		r = paillier_public_read(data, n, &l->key, e);
	if (r >= 0 && paillier_scheme(l->key) != l->p.scheme)
		return err_set(e, EPROTO,
			       "the arbiter's key is not of the scheme of "
			       "encrypt_param/method");
	if (r >= 0 && paillier_bits(l->key) < l->p.key_length)
		r = err_set(e, EPROTO,
			    "the arbiter's key is shorter than "
			    "encrypt_param/key_length");
	return r;
}

/* ---- training ------------------------------------------------------------ */

static int read_rows(struct run *x, const json_t *header, struct err *e)
{
	struct linear *l = &x->l;
	int r = linear_data_read(l, "train_data", header, true, &x->d, e);

	if (r >= 0 && x->validate) {
		json_t *names = json_array();

		for (size_t j = 0; j < x->d.cols; j++)
			json_array_append_new(names,
					      json_string(x->d.names[j]));
		r = linear_data_read(l, x->validate_key, names, true, &x->v, e);
		json_decref(names);
	}
	if (r >= 0)
		r = rows_agree(l->c, "train_data", &x->d.ids, e);
	if (r >= 0 && x->validate)
		r = rows_agree(l->c, x->validate_key, &x->v.ids, e);
	for (size_t i = 0;
	     r >= 0 && l->f->counts && x->d.label && i < x->d.rows; i++)
		if (x->d.label[i] < 0)
			r = err_set(e, EINVAL,
				    "train_data: the label has negative "
				    "values, %s is for counts",
				    l->f->module);
	if (r >= 0 && x->d.weight && l->f->factors)
		ctx_event(l->c, "the sample weights are not used by %s",
			  l->f->module);
	return r;
}

/* A model to go on from: its columns are those of the data. */
static int read_warm(struct run *x, const json_t **header, struct err *e)
{
	const json_t *param = linear_input_param(&x->l);
	int r;

	if (!param)
		return 0;
	*header = json_object_get(param, "header");
	r = linear_set_read(&x->l, param, &x->set, e);
	if (r >= 0)
		ctx_event(x->l.c,
			  "goes on from a model of %u iterations; the "
			  "optimizer starts anew",
			  x->set.m[0].iterations);
	return r;
}

static int publish(struct run *x, const struct linear_data *d, struct err *e)
{
	struct linear *l = &x->l;
	json_t *param, *v;
	const char *name;
	int r;

	if (l->role == LINEAR_ARBITER)
		return 0;
	param = linear_set_json(l, d, &x->set);
	if (l->p.stepwise)
		json_object_set_new(
		    param, "selected",
		    json_copy(json_object_get(param, "header")));
	json_object_foreach (param, name, v)
		if (strcmp(name, "header") && strcmp(name, "anonymous_header"))
			json_object_set(x->summary, name, v);
	r = ctx_put_summary(l->c, x->summary, e);
	if (r >= 0)
		r = ctx_put_model(l->c, ctx_params(l->c), param, e);
	json_decref(param);
	return r;
}

/* Predictions of what it was trained and validated with. */
static int predict_part(struct run *x, const struct linear_data *d,
			const char *kind, const struct linear_data *twice,
			struct linear_result *result, struct err *e)
{
	struct linear *l = &x->l;
	double **score = NULL;
	char flow[LINEAR_FLOW];
	json_t *m = NULL;
	int r;

	(void)snprintf(flow, sizeof(flow), "%s.", kind);
	r = linear_set_scores(l, flow, &x->set, d, &score, e);
	if (r >= 0 && l->role == LINEAR_GUEST) {
		if (d->label) {
			m = linear_measure(l, &x->set, d, score);
			json_object_set_new(
			    json_object_get(x->summary, "metrics"), kind, m);
		}
		if (!result->b)
			r = linear_result_begin(l, &x->set, d, result, e);
		if (r >= 0)
			r = linear_result_add(result, &x->set, d, score, kind,
					      twice ? "#validate" : "", twice,
					      e);
	}
	linear_scores_free(&x->set, score);
	return r;
}

static int predict_all(struct run *x, const struct linear_data *d,
		       struct err *e)
{
	bool rows = x->l.role != LINEAR_ARBITER;
	struct linear_result result = { 0 };
	int r;

	json_object_set_new(x->summary, "metrics", json_object());
	r = predict_part(x, rows ? d : NULL, "train", NULL, &result, e);
	if (r >= 0 && x->validate)
		r = predict_part(x, rows ? &x->v : NULL, "validate",
				 rows ? d : NULL, &result, e);
	if (r >= 0)
		r = publish(x, d, e);
	if (r >= 0 && result.b)
		r = linear_result_end(&result, 0, e);
	linear_result_abort(&result);
	return r;
}

static int train(struct run *x, struct err *e)
{
	struct linear *l = &x->l;
	bool rows = l->role != LINEAR_ARBITER;
	int r;

	x->watch =
	    (struct linear_watch){ .l = l,
				   .train = rows ? &x->d : NULL,
				   .validate =
				       rows && x->validate ? &x->v : NULL,
				   .have_validate = x->validate };
	r = linear_watch_begin(&x->watch, e);
	if (r >= 0)
		r = linear_train(l, "", rows ? &x->d : NULL, &x->watch, &x->set,
				 NULL, e);
	return r < 0 ? r : predict_all(x, &x->d, e);
}

static int select_columns(struct run *x, struct err *e)
{
	struct linear *l = &x->l;
	bool rows = l->role != LINEAR_ARBITER;
	json_t *steps = NULL;
	int r = linear_stepwise(l, rows ? &x->d : NULL, &x->set, &x->chosen,
				&steps, e);

	if (r < 0)
		return r;
	json_object_set_new(x->summary, "steps", steps);
	return predict_all(x, &x->chosen, e);
}

static int run_training(struct run *x, struct err *e)
{
	struct linear *l = &x->l;
	const json_t *header = NULL;
	int r;

	if (l->role == LINEAR_ARBITER) {
		r = make_key(l, e);
	} else {
		r = read_warm(x, &header, e);
		if (r >= 0)
			r = read_rows(x, header, e);
		if (r >= 0)
			r = take_key(l, e);
	}
	if (r < 0)
		return r;
	if (l->p.cv)
		return linear_cv(l, l->role == LINEAR_ARBITER ? NULL : &x->d,
				 e);
	return l->p.stepwise ? select_columns(x, e) : train(x, e);
}

/* ---- prediction -----------------------------------------------------------
 */

/* The arbiter's part of a prediction with hide_scores: how many models there
 * are is all it has to know. */
static int open_scores(struct run *x, struct err *e)
{
	_cleanup_free_ uint32_t *n = NULL;
	size_t len;
	int r =
	    ctx_recv_u32(x->l.c, "guest", 0, "model_count", "", 1, &n, &len, e);

	if (r < 0)
		return r;
	if (len != 1 || !n[0] || n[0] > LINEAR_CLASSES_MAX)
		return err_set(e, EPROTO, "model_count: a bad number");
	x->set.n = n[0];
	return predict_part(x, NULL, "predict", NULL, NULL, e);
}

static int run_prediction(struct run *x, const char *key, struct err *e)
{
	struct linear *l = &x->l;
	bool rows = l->role != LINEAR_ARBITER;
	struct linear_result result = { 0 };
	const json_t *param;
	int r = 0;

	if (!rows)
		return l->p.hide_scores ? open_scores(x, e) : 0;
	param = linear_input_param(l);
	if (!param)
		return err_set(e, EINVAL, "%s needs a model in input/model",
			       key);
	r = linear_set_read(l, param, &x->set, e);
	if (r >= 0)
		r = linear_data_read(l, key, json_object_get(param, "header"),
				     false, &x->d, e);
	if (r >= 0)
		r = rows_agree(l->c, key, &x->d.ids, e);
	if (r >= 0 && l->p.hide_scores && l->role == LINEAR_GUEST)
		r = ctx_send_u32(l->c, "arbiter", 0, "model_count", "",
				 &x->set.n, 1, e);
	if (r >= 0)
		r = predict_part(x, &x->d, "predict", NULL, &result, e);
	if (r >= 0 && result.b)
		r = linear_result_end(&result, 0, e);
	linear_result_abort(&result);
	return r;
}

int linear_run(struct ctx *c, const struct linear_family *f, struct err *e)
{
	struct run x = { .l = { .c = c,
				.f = f,
				.hosts = ctx_count(c, "host"),
				.span = 1 },
			 .summary = json_object() };
	const char *role = ctx_role(c);
	bool eval = ctx_wired(c, "eval_data");
	int r;

	x.l.role = !strcmp(role, "guest")  ? LINEAR_GUEST
		   : !strcmp(role, "host") ? LINEAR_HOST
					   : LINEAR_ARBITER;
	x.train = ctx_wired(c, "train_data");
	x.validate_key =
	    ctx_wired(c, "validate_data") ? "validate_data" : "eval_data";
	x.validate = x.train && ctx_wired(c, x.validate_key);
	r = linear_params_read(&x.l, e);
	if (r >= 0)
		r = x.train ? run_training(&x, e)
			    : run_prediction(
				  &x, eval ? "eval_data" : "test_data", e);
	linear_watch_free(&x.watch);
	linear_set_free(&x.set);
	linear_data_free(&x.d);
	linear_data_free(&x.v);
	linear_data_free(&x.chosen);
	paillier_public_free(x.l.key);
	paillier_private_free(x.l.secret);
	json_decref(x.summary);
	return r;
}
