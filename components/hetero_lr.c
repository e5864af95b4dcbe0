// SPDX-License-Identifier: Apache-2.0
/*
 * HeteroLR: logistic regression over columns that lie with different parties,
 * trained under the arbiter's Paillier key.  docs/components/hetero_lr.md.
 */
#include <strings.h>

#include "lib/json.h"

#include "components/linear.h"

#define NO_LIMIT    1e308
#define NOT_OFFERED "is not offered yet"

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
	  .choices = "Paillier|IterativeAffine|RandomIterativeAffine",
	  .help = "whatever it says, Paillier is used" },
	{ "key_length", PARAM_INT, "2048", .min = 1024, .max = 8192,
	  .help = "bits of the modulus; below 2048 there is a warning" },
	{ 0 },
};
static const struct param predict_params[] = {
	{ "threshold", PARAM_NUMBER, "0.5", .min = 0, .max = 1,
	  .help = "a score above it is class 1" },
	{ 0 },
};
static const struct param cv_params[] = {
	{ "need_cv", PARAM_BOOL, "false", .help = "must be false for now" },
	{ "n_splits", PARAM_INT, "5", .min = 2, .max = NO_LIMIT,
	  .help = "number of folds" },
	{ "mode", PARAM_ANY, "null", .help = "FATE's; without effect" },
	{ "role", PARAM_ANY, "null", .help = "FATE's; without effect" },
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
	  .help = "must be false for now" },
	{ "score_name", PARAM_ENUM, "\"AIC\"", .choices = "AIC|BIC",
	  .help = "the criterion" },
	{ "mode", PARAM_ANY, "null", .help = "FATE's; without effect" },
	{ "role", PARAM_ANY, "null", .help = "FATE's; without effect" },
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
	  .help = "must be empty for now" },
	{ "validation_freqs", PARAM_ANY, "null",
	  .help = "used by callbacks only" },
	{ "early_stopping_rounds", PARAM_ANY, "null",
	  .help = "used by callbacks only" },
	{ "metrics", PARAM_ANY, "null", .help = "used by callbacks only" },
	{ "use_first_metric_only", PARAM_BOOL, "false",
	  .help = "used by callbacks only" },
	{ "save_freq", PARAM_INT, "1", .min = 1, .max = NO_LIMIT,
	  .help = "used by callbacks only" },
	{ 0 },
};
static const struct param params[] = {
	{ "penalty", PARAM_ENUM, "\"L2\"", .choices = "L1|L2|None",
	  .flags = PARAM_NULLABLE, .help = "on the weights" },
	{ "tol", PARAM_NUMBER, "0.0001", .min = 0, .max = NO_LIMIT,
	  .help = "convergence threshold of early_stop" },
	{ "alpha", PARAM_NUMBER, "1.0", .min = 0, .max = NO_LIMIT,
	  .help = "strength of the penalty" },
	{ "optimizer", PARAM_ENUM, "\"rmsprop\"",
	  .choices = "sgd|rmsprop|adagrad|adam|nesterov_momentum_sgd|sqn",
	  .help = "run by the arbiter; sqn is not offered yet" },
	{ "batch_size", PARAM_INT, "-1", .min = -1, .max = NO_LIMIT,
	  .help = "rows of a batch, at least 10; -1: all rows" },
	{ "shuffle", PARAM_BOOL, "true",
	  .help = "other batches in every iteration" },
	{ "batch_strategy", PARAM_ENUM, "\"full\"", .choices = "full|random",
	  .help = "random: one random batch per iteration" },
	{ "masked_rate", PARAM_NUMBER, "5", .min = 0, .max = NO_LIMIT,
	  .help = "rows sent in addition to those that count, per true row" },
	{ "learning_rate", PARAM_NUMBER, "0.01", .min = 0, .max = NO_LIMIT,
	  .flags = PARAM_OPEN_MIN, .help = "step size of iteration 0" },
	{ "decay", PARAM_NUMBER, "1", .min = 0, .max = NO_LIMIT,
	  .help = "decline of the step size" },
	{ "decay_sqrt", PARAM_BOOL, "true",
	  .help = "divide by the root of 1 + decay t, or by it" },
	{ "max_iter", PARAM_INT, "100", .min = 1, .max = 1000000,
	  .help = "iterations at most" },
	{ "early_stop", PARAM_ENUM, "\"diff\"",
	  .choices = "diff|abs|weight_diff",
	  .help = "when it has converged; with two or more hosts only "
		  "weight_diff" },
	{ "init_param", PARAM_OBJECT, "{}", .sub = init_params,
	  .help = "start values" },
	{ "encrypt_param", PARAM_OBJECT, "{}", .sub = encrypt_params,
	  .help = "the arbiter's key" },
	{ "predict_param", PARAM_OBJECT, "{}", .sub = predict_params,
	  .help = "prediction" },
	{ "cv_param", PARAM_OBJECT, "{}", .sub = cv_params,
	  .help = "cross validation" },
	{ "stepwise_param", PARAM_OBJECT, "{}", .sub = stepwise_params,
	  .help = "stepwise selection" },
	{ "sqn_param", PARAM_OBJECT, "{}", .sub = sqn_params,
	  .help = "of the optimizer sqn" },
	{ "callback_param", PARAM_OBJECT, "{}", .sub = callback_params,
	  .help = "callbacks" },
	{ "multi_class", PARAM_ENUM, "\"ovr\"", .choices = "ovr",
	  .help = "more than two classes: one model against the rest each" },
	{ "floating_point_precision", PARAM_INT, "23", .min = 10, .max = 53,
	  .flags = PARAM_NULLABLE,
	  .help = "bits of a feature behind the point; null: 40" },
	{ "validation_freqs", PARAM_ANY, "null",
	  .help = "must be null for now" },
	{ "early_stopping_rounds", PARAM_ANY, "null",
	  .help = "must be null for now" },
	{ "metrics", PARAM_ANY, "[\"auc\", \"ks\"]",
	  .help = "used with validation_freqs only" },
	{ "use_first_metric_only", PARAM_BOOL, "false",
	  .help = "used with validation_freqs only" },
	{ "encrypted_mode_calculator_param", PARAM_ANY, "null",
	  .flags = PARAM_IGNORED,
	  .help = "every value is encrypted with randomness of its own" },
	{ 0 },
};

static bool is(const json_t *o, const char *key, const char *word)
{
	const char *s = json_str_or(o, key, "");

	return !strcasecmp(s, word);
}

static bool is_null(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return !v || json_is_null(v);
}

static void check(const json_t *p, const json_t *roles, const char *role,
		  void (*defect)(void *arg, const char *pointer,
				 const char *text),
		  void *arg)
{
	int64_t batch = json_int_or(p, "batch_size", -1);
	const json_t *callbacks =
	    json_object_get(json_object_get(p, "callback_param"), "callbacks");

	(void)role;
	if (batch != -1 && batch < 10)
		defect(arg, "batch_size", "must be -1 or at least 10");
	if (is(p, "optimizer", "sqn"))
		defect(arg, "optimizer", "sqn " NOT_OFFERED);
	if (json_array_size(json_object_get(roles, "host")) > 1 &&
	    !is(p, "early_stop", "weight_diff"))
		defect(arg, "early_stop",
		       "with more than one host there is no loss: early_stop "
		       "must be weight_diff");
	if (json_bool_or(json_object_get(p, "cv_param"), "need_cv", false))
		defect(arg, "cv_param/need_cv",
		       "cross validation " NOT_OFFERED);
	if (json_bool_or(json_object_get(p, "stepwise_param"), "need_stepwise",
			 false))
		defect(arg, "stepwise_param/need_stepwise",
		       "stepwise selection " NOT_OFFERED);
	if (json_array_size(callbacks))
		defect(arg, "callback_param/callbacks",
		       "a callback " NOT_OFFERED);
	if (!is_null(p, "validation_freqs"))
		defect(arg, "validation_freqs", "validation " NOT_OFFERED);
	if (!is_null(p, "early_stopping_rounds"))
		defect(arg, "early_stopping_rounds",
		       "early stopping by validation " NOT_OFFERED);
}

static int run(struct ctx *c, struct err *e)
{
	if (!strcmp(ctx_role(c), "guest"))
		return hetero_lr_guest(c, e);
	if (!strcmp(ctx_role(c), "host"))
		return hetero_lr_host(c, e);
	return linear_arbiter_run(c, e);
}

static const char *const data_inputs[] = { "train_data", NULL };

const struct component component_hetero_lr = {
	.module = "HeteroLR",
	.roles = ROLE_GUEST | ROLE_HOST | ROLE_ARBITER,
	.needs_roles = ROLE_GUEST | ROLE_HOST | ROLE_ARBITER,
	.data_inputs = data_inputs,
	.data_outputs = 1,
	.model_outputs = 1,
	.params = params,
	.help = "logistic regression over columns of several parties",
	.check = check,
	.run = run,
};
