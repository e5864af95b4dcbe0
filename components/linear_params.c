// SPDX-License-Identifier: Apache-2.0
/* The parameters of the coordinated linear models. */
#include <math.h>
#include <strings.h>

#include "lib/json.h"

#include "components/linear.h"

#define NO_LIMIT 1e308

/* clang-format off: a table */
static const struct param init_params[] = {
	{ "init_method", PARAM_ENUM, "\"random_uniform\"",
	  .choices = "random_uniform|random_normal|ones|zeros|const",
	  .help = "start values of the weights" },
	{ "init_const", PARAM_NUMBER, "1", .min = -1e8, .max = 1e8,
	  .help = "the value for const" },
	{ "fit_intercept", PARAM_BOOL, "true",
	  .help = "whether the guest has an intercept" },
	{ "random_seed", PARAM_INT, "null", .min = 0, .max = 4294967295.0,
	  .flags = PARAM_NULLABLE,
	  .help = "null: from the system's generator" },
	{ 0 },
};
static const struct param encrypt_params[] = {
	{ "method", PARAM_ENUM, "\"Paillier\"",
	  .choices = "Paillier|OU|Okamoto-Uchiyama|IterativeAffine|"
		     "RandomIterativeAffine",
	  .help = "OU: Okamoto and Uchiyama's; whatever else, Paillier" },
	{ "key_length", PARAM_INT, "2048", .min = 1024, .max = 8192,
	  .help = "bits of the modulus; below 2048 there is a warning" },
	{ 0 },
};
#define HIDE                                                                   \
	{ "hide_scores", PARAM_BOOL, "false",                                  \
	  .help = "the arbiter adds masked shares; the guest gets a rounded "  \
		  "score only" },                                              \
	{                                                                      \
		"score_digits", PARAM_INT, "2",                                \
		    .min = 0, .max = 6,                                        \
		    .help =                                                    \
			"digits of a score behind the point, with hide_scores" \
	}
static const struct param predict_params[] = {
	{ "threshold", PARAM_NUMBER, "0.5", .min = 0, .max = 1,
	  .help = "a score above it is class 1" },
	HIDE,
	{ 0 },
};
static const struct param predict_number_params[] = {
	HIDE,
	{ 0 },
};
static const struct param cv_params[] = {
	{ "need_cv", PARAM_BOOL, "false",
	  .help = "cross-validate; only train_data may be wired" },
	{ "n_splits", PARAM_INT, "5", .min = 2, .max = NO_LIMIT,
	  .help = "number of folds" },
	{ "mode", PARAM_ANY, "null", .help = "without effect" },
	{ "role", PARAM_ANY, "null", .help = "without effect" },
	{ "shuffle", PARAM_BOOL, "true", .help = "shuffle before splitting" },
	{ "random_seed", PARAM_INT, "1", .flags = PARAM_NULLABLE,
	  .help = "of the split" },
	{ "output_fold_history", PARAM_BOOL, "true",
	  .help = "keep each fold's predictions" },
	{ "history_value_type", PARAM_ENUM, "\"score\"",
	  .choices = "score|instance", .help = "what is kept of a fold" },
	{ 0 },
};
static const struct param stepwise_params[] = {
	{ "need_stepwise", PARAM_BOOL, "false",
	  .help = "choose columns; only train_data may be wired" },
	{ "score_name", PARAM_ENUM, "\"AIC\"", .choices = "AIC|BIC",
	  .help = "the criterion" },
	{ "mode", PARAM_ANY, "null", .help = "without effect" },
	{ "role", PARAM_ANY, "null", .help = "without effect" },
	{ "direction", PARAM_ENUM, "\"both\"",
	  .choices = "both|forward|backward", .help = "of the search" },
	{ "max_step", PARAM_INT, "10", .min = 1, .max = NO_LIMIT,
	  .help = "steps at most" },
	{ "nvmin", PARAM_INT, "2", .min = 1, .max = NO_LIMIT,
	  .help = "columns at least" },
	{ "nvmax", PARAM_INT, "null", .min = 1, .max = NO_LIMIT,
	  .flags = PARAM_NULLABLE, .help = "columns at most" },
	{ 0 },
};
static const struct param sqn_params[] = {
	{ "update_interval_L", PARAM_INT, "3", .min = 1, .max = NO_LIMIT,
	  .help = "batches between updates of the Hessian" },
	{ "memory_M", PARAM_INT, "5", .min = 1, .max = NO_LIMIT,
	  .help = "pairs that are kept" },
	{ "sample_size", PARAM_INT, "5000", .min = 1, .max = NO_LIMIT,
	  .help = "rows of a Hessian product" },
	{ "random_seed", PARAM_INT, "null", .flags = PARAM_NULLABLE,
	  .help = "of the sample" },
	{ 0 },
};
static const struct param callback_params[] = {
	{ "callbacks", PARAM_LIST, "[]", .flags = PARAM_NULLABLE,
	  .help = "of PerformanceEvaluate, EarlyStopping, ModelCheckpoint" },
	{ "validation_freqs", PARAM_ANY, "null",
	  .help = "every so many iterations, or a list of iterations" },
	{ "early_stopping_rounds", PARAM_INT, "null", .min = 1, .max = NO_LIMIT,
	  .flags = PARAM_NULLABLE,
	  .help = "validations without improvement before it stops" },
	{ "metrics", PARAM_ANY, "null",
	  .help = "names of the measures; null: auc and ks, or rmse and mae" },
	{ "use_first_metric_only", PARAM_BOOL, "false",
	  .help = "early stopping looks at the first metric alone" },
	{ "save_freq", PARAM_INT, "1", .min = 1, .max = NO_LIMIT,
	  .help = "iterations from one checkpoint to the next" },
	{ 0 },
};

/* What all three have; each module's own defaults come in. */
#define COMMON(optimizers, optimizer_default, iterations)                       \
	{ "penalty",                                                            \
	  PARAM_ENUM,                                                           \
	  "\"L2\"",                                                             \
	  .choices = "L1|L2|None",                                              \
	  .flags = PARAM_NULLABLE,                                              \
	  .help = "on the weights" },                                           \
	    { "tol",	       PARAM_NUMBER,                                    \
	      "0.0001",	       .min = 0,                                        \
	      .max = NO_LIMIT, .help = "convergence threshold of early_stop" }, \
	    { "alpha",	PARAM_NUMBER,	 "1.0",                                 \
	      .min = 0, .max = NO_LIMIT, .help = "strength of the penalty" },   \
	    { "optimizer", PARAM_ENUM, optimizer_default,                       \
	      .choices = optimizers, .help = "run by the arbiter" },            \
	    { "batch_size",                                                     \
	      PARAM_INT,                                                        \
	      "-1",                                                             \
	      .min = -1,                                                        \
	      .max = NO_LIMIT,                                                  \
	      .help = "rows of a batch, at least 10; -1: all rows" },           \
	    { "batch_strategy", PARAM_ENUM, "\"full\"",                         \
	      .choices = "full|random",                                         \
	      .help = "random: one random batch per iteration" },               \
	    { "learning_rate",                                                  \
	      PARAM_NUMBER,                                                     \
	      "0.01",                                                           \
	      .min = 0,                                                         \
	      .max = NO_LIMIT,                                                  \
	      .flags = PARAM_OPEN_MIN,                                          \
	      .help = "step size of iteration 0" },                             \
	    { "decay",	PARAM_NUMBER,	 "1",                                   \
	      .min = 0, .max = NO_LIMIT, .help = "decline of the step size" },  \
	    { "decay_sqrt", PARAM_BOOL, "true",                                 \
	      .help = "divide by the root of 1 + decay t, or by it" },          \
	    { "max_iter",                                                       \
	      PARAM_INT,                                                        \
	      iterations,                                                       \
	      .min = 1,                                                         \
	      .max = 1000000,                                                   \
	      .help = "iterations at most, those of a loaded model "            \
		      "included" },                                             \
	    { "early_stop", PARAM_ENUM, "\"diff\"",                             \
	      .choices = "diff|abs|weight_diff",                                \
	      .help = "when it has converged; with two or more hosts only "     \
		      "weight_diff" },                                          \
	    { "init_param", PARAM_OBJECT, "{}", .sub = init_params,             \
	      .help = "start values" },                                         \
	    { "encrypt_param", PARAM_OBJECT, "{}", .sub = encrypt_params,       \
	      .help = "the arbiter's key" },                                    \
	    { "cv_param", PARAM_OBJECT, "{}", .sub = cv_params,                 \
	      .help = "cross validation" },                                     \
	    { "stepwise_param", PARAM_OBJECT, "{}", .sub = stepwise_params,     \
	      .help = "stepwise selection" },                                   \
	    { "callback_param", PARAM_OBJECT, "{}", .sub = callback_params,     \
	      .help = "validation, early stopping, checkpoints" },              \
	    { "floating_point_precision",                                       \
	      PARAM_INT,                                                        \
	      "23",                                                             \
	      .min = 10,                                                        \
	      .max = 53,                                                        \
	      .flags = PARAM_NULLABLE,                                          \
	      .help = "bits of a feature behind the point; null: 40" },         \
	    { "validation_freqs", PARAM_ANY, "null",                            \
	      .help = "as callback_param/validation_freqs with "                \
		      "PerformanceEvaluate" },                                  \
	    { "early_stopping_rounds",                                          \
	      PARAM_INT,                                                        \
	      "null",                                                           \
	      .min = 1,                                                         \
	      .max = NO_LIMIT,                                                  \
	      .flags = PARAM_NULLABLE,                                          \
	      .help = "as callback_param/early_stopping_rounds with "           \
		      "EarlyStopping" },                                        \
	    { "metrics", PARAM_ANY, "null",                                     \
	      .help = "as callback_param/metrics" },                            \
	    { "use_first_metric_only", PARAM_BOOL, "false",                     \
	      .help = "as callback_param/use_first_metric_only" },              \
	{                                                                       \
		"encrypted_mode_calculator_param", PARAM_ANY, "null",           \
		    .flags = PARAM_IGNORED,                                     \
		    .help =                                                     \
			"every value is encrypted with randomness of its own"   \
	}

#define BATCHES(shuffle_default, masked_default)                              \
	{ "shuffle", PARAM_BOOL, shuffle_default,                             \
	  .help = "other batches in every iteration" },                       \
	{                                                                     \
		"masked_rate", PARAM_NUMBER, masked_default,                  \
		    .min = 0, .max = NO_LIMIT,                                \
		    .help = "rows sent in addition to those that count, per " \
			    "true row"                                        \
	}

#define SQN                                                           \
	{                                                             \
		"sqn_param", PARAM_OBJECT, "{}",                      \
		    .sub = sqn_params, .help = "of the optimizer sqn" \
	}

#define FIRST_ORDER "sgd|rmsprop|adagrad|adam|nesterov_momentum_sgd"

const struct param linear_lr_params[] = {
	COMMON(FIRST_ORDER "|sqn", "\"rmsprop\"", "100"),
	BATCHES("true", "5"),
	SQN,
	{ "predict_param", PARAM_OBJECT, "{}", .sub = predict_params,
	  .help = "prediction" },
	{ "multi_class", PARAM_ENUM, "\"ovr\"", .choices = "ovr",
	  .help = "more than two classes: one model against the rest each" },
	{ 0 },
};

const struct param linear_linr_params[] = {
	COMMON(FIRST_ORDER "|sqn", "\"sgd\"", "20"),
	BATCHES("false", "0"),
	SQN,
	{ "predict_param", PARAM_OBJECT, "{}", .sub = predict_number_params,
	  .help = "prediction" },
	{ 0 },
};

const struct param linear_poisson_params[] = {
	COMMON(FIRST_ORDER "|sqn", "\"rmsprop\"", "20"),
	BATCHES("false", "0"),
	SQN,
	{ "predict_param", PARAM_OBJECT, "{}", .sub = predict_number_params,
	  .help = "prediction" },
	{ "exposure_colname", PARAM_STRING, "null", .flags = PARAM_NULLABLE,
	  .help = "guest's column of exposures; null: 1 for all rows" },
	{ 0 },
};
/* clang-format on */

const char *const linear_data_inputs[] = { "train_data", "validate_data",
					   "eval_data", "test_data", NULL };
const char *const linear_model_inputs[] = { "model", NULL };

/* ---- rules ---------------------------------------------------------------
 */

static bool is(const json_t *o, const char *key, const char *word)
{
	const char *s = json_str_or(o, key, NULL);

	return s && !strcasecmp(s, word);
}

static bool given(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return v && !json_is_null(v);
}

typedef void (*defect_fn)(void *arg, const char *pointer, const char *text);

static const char *const numbers[] = {
	"rmse", "mae", "mse", "r2", "median_ae", "explained_variance", NULL
};
static const char *const binary[] = { "auc", "ks", NULL };

static void defect_word(defect_fn defect, void *arg, const char *pointer,
			const char *word, const char *known)
{
	char text[200];

	(void)snprintf(text, sizeof(text), "%.40s is none of: %s",
		       word ? word : "this", known);
	defect(arg, pointer, text);
}

static const char *metric_name(const struct linear_family *f, const char *s)
{
	static const struct {
		const char *alias, *name;
	} aliases[] = {
		{ "root_mean_squared_error", "rmse" },
		{ "mean_absolute_error", "mae" },
		{ "mean_squared_error", "mse" },
		{ "r2_score", "r2" },
		{ "median_absolute_error", "median_ae" },
		{ "l1", "mae" },
		{ "l2", "mse" },
		{ "l2_root", "rmse" },
	};
	const char *const *names = f->regression ? numbers : binary;

	for (size_t i = 0; f->regression && i < ARRAY_SIZE(aliases); i++)
		if (!strcasecmp(s, aliases[i].alias))
			s = aliases[i].name;
	for (; *names; names++)
		if (!strcasecmp(s, *names))
			return *names;
	return NULL;
}

/* FATE takes these and leaves them out while it trains: they are curves, or
 * of other kinds of labels. */
static bool metric_left_out(const char *s)
{
	static const char *const names[] = {
		"accuracy", "precision",   "recall",   "lift",
		"gain",	    "roc",	   "f1_score", "confusion_mat",
		"psi",	    "quantile_pr", "msle",
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcasecmp(s, names[i]))
			return true;
	return false;
}

static void check_freqs(const json_t *v, const char *pointer, defect_fn defect,
			void *arg)
{
	bool ok = !v || json_is_null(v) ||
		  (json_is_integer(v) && json_integer_value(v) >= 1);
	const json_t *x;
	size_t i;

	if (json_is_array(v)) {
		ok = json_array_size(v) > 0;
		json_array_foreach (v, i, x)
			ok &= json_is_integer(x) && json_integer_value(x) >= 1;
	}
	if (!ok)
		defect(arg, pointer,
		       "must be a number of iterations, or a list of "
		       "iterations, from 1");
}

static void check_metrics(const struct linear_family *f, const json_t *v,
			  const char *pointer, defect_fn defect, void *arg)
{
	const json_t *x;
	size_t i;

	if (!v || json_is_null(v))
		return;
	if (!json_is_array(v) || json_array_size(v) > LINEAR_METRICS_MAX) {
		defect(arg, pointer, "must be a list of at most 8 names");
		return;
	}
	json_array_foreach (v, i, x)
		if (!json_is_string(x) ||
		    (!metric_name(f, json_string_value(x)) &&
		     !metric_left_out(json_string_value(x))))
			defect_word(defect, arg, pointer, json_string_value(x),
				    f->regression
					? "rmse, mae, mse, r2, median_ae, "
					  "explained_variance"
					: "auc, ks");
}

static void check_callbacks(const struct linear_family *f, const json_t *p,
			    defect_fn defect, void *arg)
{
	const json_t *o = json_object_get(p, "callback_param"), *x;
	bool early = given(p, "early_stopping_rounds");
	size_t i;

	json_array_foreach (json_object_get(o, "callbacks"), i, x) {
		const char *s = json_string_value(x);

		if (!s || (strcasecmp(s, "PerformanceEvaluate") &&
			   strcasecmp(s, "EarlyStopping") &&
			   strcasecmp(s, "ModelCheckpoint")))
			defect_word(defect, arg, "callback_param/callbacks", s,
				    "PerformanceEvaluate, EarlyStopping, "
				    "ModelCheckpoint");
		else if (!strcasecmp(s, "EarlyStopping") &&
			 (!given(o, "early_stopping_rounds") ||
			  !given(o, "validation_freqs")))
			defect(arg, "callback_param/early_stopping_rounds",
			       "EarlyStopping needs early_stopping_rounds and "
			       "validation_freqs");
	}
	if (early && !given(p, "validation_freqs"))
		defect(arg, "early_stopping_rounds",
		       "needs validation_freqs too");
	check_freqs(json_object_get(o, "validation_freqs"),
		    "callback_param/validation_freqs", defect, arg);
	check_freqs(json_object_get(p, "validation_freqs"), "validation_freqs",
		    defect, arg);
	check_metrics(f, json_object_get(o, "metrics"),
		      "callback_param/metrics", defect, arg);
	check_metrics(f, json_object_get(p, "metrics"), "metrics", defect, arg);
}

void linear_check(const struct linear_family *f, const json_t *p,
		  const json_t *roles, defect_fn defect, void *arg)
{
	int64_t batch = json_int_or(p, "batch_size", -1);
	size_t hosts = json_array_size(json_object_get(roles, "host"));
	bool cv =
	    json_bool_or(json_object_get(p, "cv_param"), "need_cv", false);
	bool stepwise = json_bool_or(json_object_get(p, "stepwise_param"),
				     "need_stepwise", false);

	if (batch != -1 && batch < 10)
		defect(arg, "batch_size", "must be -1 or at least 10");
	if (f->one_host && hosts > 1)
		defect(arg, "", "this module works with exactly one host");
	else if (hosts > 1 && !is(p, "early_stop", "weight_diff"))
		defect(arg, "early_stop",
		       "with more than one host there is no loss: early_stop "
		       "must be weight_diff");
	if (!(f->curvature > 0) && is(p, "optimizer", "sqn"))
		defect(arg, "optimizer",
		       "sqn needs a loss of constant curvature, which this "
		       "module does not have");
	if (cv && stepwise)
		defect(arg, "stepwise_param/need_stepwise",
		       "not together with cv_param/need_cv");
	if (stepwise && hosts > 1)
		defect(arg, "stepwise_param/need_stepwise",
		       "stepwise selection needs the loss, and so exactly one "
		       "host");
	check_callbacks(f, p, defect, arg);
}

/* ---- reading ------------------------------------------------------------- */

/* Who holds the key and a side's data can decrypt what the other side sent. */
static void note_double_roles(struct ctx *c)
{
	const char *arbiter =
	    ctx_count(c, "arbiter") ? ctx_member(c, "arbiter", 0) : "";

	for (size_t i = 0; i < ctx_count(c, "host"); i++)
		if (!strcmp(arbiter, ctx_member(c, "host", i)))
			ctx_event(c,
				  "party %s is host and arbiter: it can read "
				  "the guest's labels",
				  arbiter);
	if (!strcmp(arbiter, ctx_member(c, "guest", 0)))
		ctx_event(c,
			  "party %s is guest and arbiter: it can read the "
			  "hosts' partial scores",
			  arbiter);
}

static void read_metrics(struct linear *l, const json_t *list)
{
	const char *const *usual = l->f->regression ? numbers : binary;
	size_t n = 0;
	const json_t *x;
	size_t i;

	json_array_foreach (list, i, x) {
		const char *s = json_string_value(x);

		const char *known = s ? metric_name(l->f, s) : NULL;

		if (known && n < LINEAR_METRICS_MAX)
			l->p.metrics[n++] = known;
		else if (s)
			ctx_event(l->c,
				  "metrics: %s is no single number, Evaluation "
				  "has it",
				  s);
	}
	for (i = 0; !n && i < 2; i++)
		l->p.metrics[i] = usual[i];
}

static void read_callbacks(struct linear *l, const json_t *p)
{
	const json_t *o = json_object_get(p, "callback_param"), *x;
	struct linear_params *r = &l->p;
	bool old = given(p, "validation_freqs");
	size_t i;

	json_array_foreach (json_object_get(o, "callbacks"), i, x) {
		const char *s = json_string_value(x);

		r->evaluate |= s && !strcasecmp(s, "PerformanceEvaluate");
		r->stop_early |= s && !strcasecmp(s, "EarlyStopping");
		r->checkpoints |= s && !strcasecmp(s, "ModelCheckpoint");
	}
	if (old && !given(o, "validation_freqs"))
		o = p;
	r->evaluate |= old;
	r->stop_early |= given(p, "early_stopping_rounds");
	r->freqs = given(o, "validation_freqs")
		       ? json_object_get(o, "validation_freqs")
		       : NULL;
	r->rounds =
	    r->stop_early
		? (unsigned)MIN(json_int_or(o, "early_stopping_rounds", 1),
				1000000)
		: 0;
	r->first_metric_only = json_bool_or(o, "use_first_metric_only", false);
	r->save_freq = (unsigned)MIN(
	    json_int_or(json_object_get(p, "callback_param"), "save_freq", 1),
	    1000000);
	if (!r->freqs)
		r->evaluate = r->stop_early = false;
	read_metrics(l, json_object_get(o, "metrics"));
}

static void read_searches(struct linear *l, const json_t *p)
{
	const json_t *cv = json_object_get(p, "cv_param");
	const json_t *s = json_object_get(p, "stepwise_param");
	struct linear_params *r = &l->p;

	r->cv = json_bool_or(cv, "need_cv", false);
	r->folds = (unsigned)MIN(json_int_or(cv, "n_splits", 5), 1000000);
	r->cv_shuffle = json_bool_or(cv, "shuffle", true);
	r->cv_seed = json_int_or(cv, "random_seed", -1);
	r->cv_history = json_bool_or(cv, "output_fold_history", true);
	r->cv_instances = is(cv, "history_value_type", "instance");
	r->stepwise = json_bool_or(s, "need_stepwise", false);
	r->backward = !is(s, "direction", "forward");
	r->forward = !is(s, "direction", "backward");
	r->bic = is(s, "score_name", "BIC");
	r->max_step = (unsigned)MIN(json_int_or(s, "max_step", 10), 1000000);
	r->nvmin = (unsigned)MIN(json_int_or(s, "nvmin", 2), 1000000);
	r->nvmax = (unsigned)MIN(json_int_or(s, "nvmax", 0), 1000000);
}

static void read_optimizer(struct linear *l, const json_t *o)
{
	const json_t *sqn = json_object_get(o, "sqn_param");
	struct linear_params *p = &l->p;

	p->sqn = is(o, "optimizer", "sqn");
	p->rule.kind = p->sqn ? OPTIMIZER_SGD
			      : (enum optimizer_kind)optimizer_kind(
				    json_str_or(o, "optimizer", "sgd"));
	p->rule.learning_rate = json_num_or(o, "learning_rate", .01);
	p->rule.decay = json_num_or(o, "decay", 1);
	p->rule.decay_sqrt = json_bool_or(o, "decay_sqrt", true);
	p->sqn_interval =
	    (unsigned)MIN(json_int_or(sqn, "update_interval_L", 3), 1000000);
	p->sqn_memory = (unsigned)MIN(json_int_or(sqn, "memory_M", 5), 1000);
	p->sqn_sample = (size_t)json_int_or(sqn, "sample_size", 5000);
}

int linear_params_read(struct linear *l, struct err *e)
{
	struct ctx *c = l->c;
	const json_t *o = ctx_params(c);
	const json_t *init = json_object_get(o, "init_param");
	const json_t *crypt = json_object_get(o, "encrypt_param");
	const json_t *predict = json_object_get(o, "predict_param");
	const char *method = json_str_or(crypt, "method", "Paillier");
	const bool ou = !strcasecmp(method, "OU") ||
			!strcasecmp(method, "Okamoto-Uchiyama");
	int penalty = penalty_kind(json_str_or(o, "penalty", NULL));
	int start =
	    init_method(json_str_or(init, "init_method", "random_uniform"));

	if (penalty < 0 || start < 0)
		return err_set(e, EINVAL, "unknown penalty or init_method");
	l->p = (struct linear_params){
		.penalty = (enum penalty_kind)penalty,
		.alpha = json_num_or(o, "alpha", 1),
		.tol = json_num_or(o, "tol", 1e-4),
		.threshold = json_num_or(predict, "threshold", .5),
		.hide_scores = json_bool_or(predict, "hide_scores", false),
		.score_digits =
		    (unsigned)json_int_or(predict, "score_digits", 2),
		.batch_size = json_int_or(o, "batch_size", -1),
		.shuffle = json_bool_or(o, "shuffle", true),
		.random_batch = is(o, "batch_strategy", "random"),
		.masked_rate = json_num_or(o, "masked_rate", 5),
		.init = (enum init_method)start,
		.init_value = json_num_or(init, "init_const", 1),
		.seed = json_int_or(init, "random_seed", -1),
		.fit_intercept = json_bool_or(init, "fit_intercept", true),
		.max_iter = (unsigned)json_int_or(o, "max_iter", 100),
		.early_stop = is(o, "early_stop", "weight_diff")
				  ? STOP_WEIGHT_DIFF
			      : is(o, "early_stop", "abs") ? STOP_ABS
							   : STOP_DIFF,
		.scheme = ou ? SCHEME_OU : SCHEME_PAILLIER,
		.key_length = (unsigned)json_int_or(crypt, "key_length", 2048),
		/* null in FATE: no rounding; 40 bits are as good. */
		.feature_bits =
		    (unsigned)json_int_or(o, "floating_point_precision", 40),
		.exposure = json_str_or(o, "exposure_colname", NULL),
	};
	read_optimizer(l, o);
	read_callbacks(l, o);
	read_searches(l, o);
	if (!ou && strcasecmp(method, "Paillier"))
		ctx_event(c, "encrypt_param/method %s is replaced by Paillier",
			  method);
	if (l->p.key_length < 2048) {
		ctx_log(c, "warning: a key of %u bits is short",
			l->p.key_length);
		ctx_event(c,
			  "warning: encrypt_param/key_length %u is below 2048",
			  l->p.key_length);
	}
	note_double_roles(c);
	return 0;
}

const char *const *linear_metric_names(const struct linear *l)
{
	return l->p.metrics;
}
