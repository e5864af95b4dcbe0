// SPDX-License-Identifier: Apache-2.0
/*
 * HeteroLR with all its parties as threads of one process: ctx_* over queues
 * in memory, real tables, real ciphertexts.  What comes out is compared with
 * the same recurrence in plain doubles.
 */
#include <math.h>

#include "components/crypto/util.h"
#include "components/linear.h"

#include "tests/unit/harness.h"

extern const struct component component_hetero_lr;

#define ROWS	 48
#define COLS	 7
#define HOST_MAX 2

/* ---- data and oracle -------------------------------------------------- */

static double x[ROWS][COLS], y[ROWS];

static void make_data(unsigned classes)
{
	uint32_t s = 12345;

	for (size_t i = 0; i < ROWS; i++) {
		double z = 0;

		for (size_t j = 0; j < COLS; j++) {
			s = s * 1664525u + 1013904223u;
			x[i][j] =
			    round(((double)s / 4294967296.0 - .5) * 3e6) / 1e6;
			z += (j % 2 ? -1 : 1) * x[i][j];
		}
		y[i] = classes == 2 ? z > 0 : z > .8 ? 2 : z > -.8;
	}
}

/* Columns [from, to) of all rows but the first `skip`. */
static struct table *make_table(const char *name, size_t from, size_t to,
				bool label, size_t skip)
{
	struct table_schema *s = schema_new();
	struct table_build *b;
	struct table *t;
	struct err e = { 0 };
	char text[24];

	free(s->id);
	s->id = xstrdup("id");
	if (label) {
		s->label = xstrdup("y");
		schema_add_column(s, "y", CELL_I64, NULL);
	}
	for (size_t j = from; j < to; j++) {
		(void)snprintf(text, sizeof(text), "x%zu", j - from);
		schema_add_column(s, text, CELL_F64, NULL);
	}
	assert_int_equal(table_build_begin(store, s, &b, &e), 0);
	for (size_t i = skip; i < ROWS; i++) {
		struct cell cells[COLS + 1] = { 0 };
		size_t k = 0;

		if (label) {
			cells[k].type = CELL_I64;
			cells[k++].i64 = (int64_t)y[i];
		}
		for (size_t j = from; j < to; j++) {
			cells[k].type = CELL_F64;
			cells[k++].f64 = x[i][j];
		}
		(void)snprintf(text, sizeof(text), "%04zu", i);
		assert_int_equal(table_build_add(b, text, 4, cells, &e), 0);
	}
	schema_free(s);
	assert_int_equal(table_build_publish(b, "in", name, &e), 0);
	assert_int_equal(table_open(store, "in", name, &t, &e), 0);
	return t;
}

struct setup {
	const char *params;
	size_t hosts;
	unsigned iterations;
	size_t batch; /* 0 = all */
	enum penalty_kind penalty;
	enum optimizer_kind kind;
};

#define BASE                                                             \
	"\"alpha\": 0.01, \"tol\": 0, \"learning_rate\": 0.15, "         \
	"\"init_param\": {\"init_method\": \"zeros\"}, "                 \
	"\"encrypt_param\": {\"key_length\": 512}, \"shuffle\": false, " \
	"\"max_iter\": 4, \"floating_point_precision\": 23, "

/* Pooled recurrence; w has the weights and the intercept. */
static void oracle(const struct setup *s, double *w, double *loss)
{
	struct optimizer o = { .kind = s->kind,
			       .learning_rate = .15,
			       .decay = 1,
			       .decay_sqrt = true };
	size_t size = s->batch ? s->batch : ROWS;

	optimizer_init(&o, COLS + 1);
	memset(w, 0, (COLS + 1) * sizeof(*w));
	for (unsigned t = 0; t < s->iterations; t++) {
		unsigned batches = 0;

		loss[t] = 0;
		for (size_t from = 0; from < ROWS; from += size, batches++) {
			size_t to = MIN(from + size, (size_t)ROWS);
			double n = (double)(to - from);
			double g[COLS + 1] = { 0 };
			double sum = 0;

			for (size_t i = from; i < to; i++) {
				double yi = y[i] == 1 ? 1 : -1;
				double z = w[COLS];

				for (size_t j = 0; j < COLS; j++)
					z += w[j] * x[i][j];
				sum += log(2) - yi * z / 2 + z * z / 8;
				for (size_t j = 0; j < COLS; j++)
					g[j] += (z / 4 - yi / 2) * x[i][j] / n;
				g[COLS] += (z / 4 - yi / 2) / n;
			}
			loss[t] +=
			    sum / n + weights_penalty(w, COLS, s->penalty, .01);
			for (size_t j = 0; j < COLS; j++)
				if (s->penalty == PENALTY_L2)
					g[j] += .01 * w[j];
			optimizer_step(&o, t, g);
			weights_update(w, g, COLS, true, s->penalty, .01, .15,
				       t);
		}
		loss[t] /= batches;
	}
	optimizer_free(&o);
}

/* ---- running ---------------------------------------------------------- */

/* ctx[0] guest, [1] arbiter, [2..] hosts. */
static void run_job(struct ctx *ctx, const char *params, size_t hosts,
		    size_t skip)
{
	size_t cut = hosts == 2 ? 5 : COLS;
	struct err e = { 0 };

	bus.hosts = hosts;
	for (size_t k = 0; k < hosts + 2; k++) {
		struct ctx *c = &ctx[k];

		c->role = k == 0 ? "guest" : k == 1 ? "arbiter" : "host";
		c->index = k < 2 ? 0 : k - 2;
		c->params = json_parse(params, strlen(params), &e);
		assert_non_null(c->params);
	}
	ctx[0].table = make_table("guest", 0, 3, true, 0);
	ctx[2].table = make_table("host0", 3, cut, false, skip);
	if (hosts == 2)
		ctx[3].table = make_table("host1", cut, COLS, false, 0);
	parties_run(ctx, hosts + 2, &component_hetero_lr);
}

static void end_job(struct ctx *ctx, size_t hosts)
{
	parties_end(ctx, hosts + 2);
}

static double coef(const struct ctx *c, size_t j)
{
	char name[8];

	(void)snprintf(name, sizeof(name), "x%zu", j);
	return json_num_or(json_object_get(c->summary, "coef"), name, NAN);
}

static void compare(const struct setup *s)
{
	struct ctx ctx[HOST_MAX + 2] = { 0 };
	double w[COLS + 1];
	double loss[16];
	double off = 0;

	make_data(2);
	oracle(s, w, loss);
	run_job(ctx, s->params, s->hosts, 0);
	for (size_t k = 0; k < s->hosts + 2; k++)
		if (ctx[k].status)
			fail_msg("%s: %s", ctx[k].role, ctx[k].err.text);
	for (size_t j = 0; j < COLS; j++) {
		double v = j < 3		    ? coef(&ctx[0], j)
			   : s->hosts == 1 || j < 5 ? coef(&ctx[2], j - 3)
						    : coef(&ctx[3], j - 5);

		off = fmax(off, fabs(v - w[j]));
	}
	off = fmax(
	    off, fabs(json_num_or(ctx[0].summary, "intercept", NAN) - w[COLS]));
	for (size_t t = 0; s->hosts == 1 && t < s->iterations; t++)
		off = fmax(
		    off,
		    fabs(json_real_value(json_array_get(
			     json_object_get(ctx[0].summary, "loss_history"),
			     t)) -
			 loss[t]));
	print_message("# largest difference %.2g\n", off);
	assert_true(off < 1e-6);
	assert_null(json_object_get(ctx[2].summary, "intercept"));
	assert_null(json_object_get(ctx[2].summary, "loss_history"));
	assert_null(ctx[1].summary);
	end_job(ctx, s->hosts);
}

/* ---- tests ------------------------------------------------------------ */

static void async_path_agrees_with_every_optimizer(void **state)
{
	static const char *const names[] = { "sgd", "rmsprop", "adagrad",
					     "adam", "nesterov_momentum_sgd" };

	(void)state;
	for (int k = 0; k < 5; k++) {
		_cleanup_free_ char *p = xasprintf(
		    "{" BASE "\"optimizer\": \"%s\", \"penalty\": \"L2\"}",
		    names[k]);
		struct setup s = { p, 1,	  4,
				   0, PENALTY_L2, (enum optimizer_kind)k };

		compare(&s);
	}
}

static void penalty_l1_agrees(void **state)
{
	struct setup s = { "{" BASE
			   "\"optimizer\": \"sgd\", \"penalty\": \"L1\"}",
			   1,
			   4,
			   0,
			   PENALTY_L1,
			   OPTIMIZER_SGD };

	(void)state;
	compare(&s);
}

static void batches_in_order_agree(void **state)
{
	struct setup s = { "{" BASE "\"batch_size\": 20, \"masked_rate\": 0, "
			   "\"optimizer\": \"adam\", \"penalty\": null}",
			   1,
			   4,
			   20,
			   PENALTY_NONE,
			   OPTIMIZER_ADAM };

	(void)state;
	compare(&s);
	assert_int_equal(bus.widest_index, 20);
}

static void masked_batches_agree_and_hide_their_size(void **state)
{
	struct setup s = { "{" BASE "\"batch_size\": 20, \"masked_rate\": 0.5, "
			   "\"optimizer\": \"rmsprop\", \"penalty\": \"L2\"}",
			   1,
			   4,
			   20,
			   PENALTY_L2,
			   OPTIMIZER_RMSPROP };

	(void)state;
	compare(&s);
	assert_int_equal(bus.widest_index, 30);
}

static void two_hosts_agree_with_the_pooled_columns(void **state)
{
	struct setup s = { "{" BASE "\"early_stop\": \"weight_diff\", "
			   "\"optimizer\": \"rmsprop\", \"penalty\": \"L2\"}",
			   2,
			   4,
			   0,
			   PENALTY_L2,
			   OPTIMIZER_RMSPROP };

	(void)state;
	compare(&s);
}

static void three_classes_give_three_models(void **state)
{
	struct ctx ctx[3] = { 0 };

	(void)state;
	make_data(3);
	run_job(ctx, "{" BASE "\"optimizer\": \"sgd\"}", 1, 0);
	for (size_t k = 0; k < 3; k++)
		if (ctx[k].status)
			fail_msg("%s: %s", ctx[k].role, ctx[k].err.text);
	assert_int_equal(
	    json_object_size(json_object_get(ctx[0].summary, "one_vs_rest")),
	    3);
	end_job(ctx, 1);
}

static void predictions_are_the_sigmoid_of_all_columns(void **state)
{
	struct ctx ctx[3] = { 0 };
	_cleanup_table_ struct table *t = NULL;
	struct table_iter *it;
	const struct cell *cells;
	const char *key;
	size_t len;
	size_t row = 0;
	struct err e = { 0 };

	(void)state;
	make_data(2);
	run_job(ctx, "{" BASE "\"optimizer\": \"sgd\"}", 1, 0);
	assert_int_equal(ctx[0].status, 0);
	assert_int_equal(table_open(store, "out", "guest0", &t, &e), 0);
	assert_int_equal(table_scan(t, NULL, 0, &it, &e), 0);
	while (table_next(it, &key, &len, &cells, &e) > 0) {
		double z = json_num_or(ctx[0].summary, "intercept", NAN);
		double p;

		for (size_t j = 0; j < COLS; j++)
			z += x[row][j] *
			     (j < 3 ? coef(&ctx[0], j) : coef(&ctx[2], j - 3));
		p = 1 / (1 + exp(-z));
		assert_true(fabs(cells[2].f64 - p) < 1e-12);
		assert_int_equal(cells[1].i64, p > .5);
		assert_int_equal(cells[0].i64, y[row]);
		assert_memory_equal(cells[3].str, "{\"0\": ", 6);
		assert_memory_equal(cells[4].str, "train", 5);
		row++;
	}
	table_scan_end(it);
	assert_int_equal(row, ROWS);
	end_job(ctx, 1);
}

static void other_rows_at_the_host_are_refused(void **state)
{
	struct ctx ctx[3] = { 0 };

	(void)state;
	make_data(2);
	run_job(ctx, "{" BASE "\"optimizer\": \"sgd\"}", 1, 1);
	assert_true(ctx[0].status < 0 && ctx[2].status < 0);
	assert_non_null(
	    strstr(ctx[0].status == -EINVAL ? ctx[0].err.text : ctx[2].err.text,
		   "holds other rows"));
	end_job(ctx, 1);
}

static void damaged_ciphertexts_fail_the_job(void **state)
{
	struct ctx ctx[3] = { 0 };

	(void)state;
	make_data(2);
	ctx[0].flip = "fore_gradient";
	run_job(ctx, "{" BASE "\"optimizer\": \"sgd\"}", 1, 0);
	assert_true(ctx[2].status < 0);
	assert_non_null(strstr(ctx[2].err.text, "fore_gradient"));
	end_job(ctx, 1);
}

/* What one party sends under one name comes longer or shorter. */
static struct {
	const char *name;
	ssize_t by; /* bytes */
} resized;

static void resize(const struct ctx *c, void **data, size_t *n)
{
	size_t more = resized.by > 0 ? (size_t)resized.by : 0;

	if (strcmp(c->sending, resized.name) != 0)
		return;
	*data = xrealloc(*data, *n + more);
	/* Once more what was last: a good ciphertext. */
	memcpy((char *)*data + *n, (char *)*data + *n - more, more);
	*n += (size_t)resized.by;
}

/* The error of the first party that has one but that a partner failed. */
static const char *reason(const struct ctx *ctx, size_t n)
{
	for (size_t k = 0; k < n; k++)
		if (ctx[k].status < 0 && ctx[k].status != -ECANCELED)
			return ctx[k].err.text;
	return "";
}

static void vectors_of_other_lengths_are_refused(void **state)
{
	static const char *const names[] = { "host_forward_dict",
					     "fore_gradient",
					     "loss_intermediate" };
	static const char *const how[] = {
		"{" BASE "\"optimizer\": \"sgd\"}",
		"{" BASE "\"optimizer\": \"sgd\", \"batch_size\": 20, "
		"\"masked_rate\": 0.95}",
	};
	static const ssize_t by[] = { 128, -128, 64, -64 }; /* of n^2 */

	(void)state;
	make_data(2);
	for (size_t i = 0;
	     i < ARRAY_SIZE(names) * ARRAY_SIZE(how) * ARRAY_SIZE(by); i++) {
		struct ctx ctx[3] = { 0 };

		resized.name = names[i % 3];
		resized.by = by[i / 3 % 4];
		bus.edit = resize;
		run_job(ctx, how[i / 12], 1, 0);
		bus.edit = NULL;
		if (!strstr(reason(ctx, 3), resized.name))
			fail_msg("%s %+zd: %s", resized.name, resized.by,
				 reason(ctx, 3));
		end_job(ctx, 1);
	}
}

/* The first one tells the arbiter how many columns there are. */
static void gradients_of_other_lengths_are_refused(void **state)
{
	static const char *const names[] = { "host_gradient",
					     "guest_gradient" };

	(void)state;
	make_data(2);
	for (size_t i = 0; i < 4; i++) {
		struct ctx ctx[3] = { 0 };

		resized.name = names[i % 2];
		resized.by = i / 2 ? 128 : -128;
		bus.edit = resize;
		run_job(ctx, "{" BASE "\"optimizer\": \"sgd\"}", 1, 0);
		bus.edit = NULL;
		assert_non_null(strstr(reason(ctx, 3), "optim_gradient"));
		end_job(ctx, 1);
	}
}

/* Numbers below n^2 that are ciphertexts of anything. */
static void garble(const struct ctx *c, void **data, size_t *n)
{
	if (strcmp(c->sending, "host_gradient") != 0)
		return;
	crypto_random(*data, *n);
	for (size_t i = 0; i < *n; i += 128)
		((uint8_t *)*data)[i] = 0;
}

/* A third of all numbers is outside of the range: soon there is one. */
static void a_gradient_that_is_no_number_is_refused(void **state)
{
	bool refused = false;

	(void)state;
	make_data(2);
	for (unsigned i = 0; i < 30 && !refused; i++) {
		struct ctx ctx[3] = { 0 };

		bus.edit = garble;
		run_job(ctx, "{" BASE "\"optimizer\": \"sgd\"}", 1, 0);
		bus.edit = NULL;
		refused = strstr(ctx[1].err.text, "host_gradient");
		end_job(ctx, 1);
	}
	assert_true(refused);
}

/* The rows of a fold, all of them the first one. */
static void rows_of_a_fold_that_repeat_are_refused(void **state)
{
	struct ctx ctx[3] = { 0 };

	(void)state;
	make_data(2);
	ctx[0].flip = "test_sid";
	run_job(ctx,
		"{" BASE "\"optimizer\": \"sgd\", \"cv_param\": "
		"{\"need_cv\": true, \"n_splits\": 3}}",
		1, 0);
	assert_non_null(strstr(ctx[2].err.text, "test_sid: bad rows"));
	end_job(ctx, 1);
}

static const char *packed_otherwise_for;

static void pack_otherwise(const struct ctx *c, void **data, size_t *n)
{
	char *at;

	if (strcmp(c->sending, "batch_info") != 0 ||
	    strcmp(c->to, packed_otherwise_for) != 0)
		return;
	*data = xrealloc(*data, *n + 1);
	((char *)*data)[*n] = 0;
	at = strstr(*data, "rows_per_ciphertext");
	assert_non_null(at);
	at = strpbrk(at, "0123456789");
	assert_non_null(at);
	*at = *at == '9' ? '8' : (char)(*at + 1);
}

/* One party at a time: the first that refuses ends the others. */
static void other_rows_per_ciphertext_are_refused(void **state)
{
	static const char *const roles[] = { "arbiter", "host" };

	(void)state;
	make_data(2);
	for (size_t i = 0; i < ARRAY_SIZE(roles); i++) {
		struct ctx ctx[3] = { 0 };

		packed_otherwise_for = roles[i];
		bus.edit = pack_otherwise;
		run_job(ctx, "{" BASE "\"optimizer\": \"sgd\"}", 1, 0);
		bus.edit = NULL;
		if (!strstr(reason(ctx, 3), "the guest's batches"))
			fail_msg("%s: %s", roles[i], reason(ctx, 3));
		end_job(ctx, 1);
	}
}

static void divergence_is_an_error(void **state)
{
	struct ctx ctx[3] = { 0 };

	(void)state;
	make_data(2);
	run_job(ctx,
		"{\"init_param\": {\"init_method\": \"zeros\"}, "
		"\"encrypt_param\": {\"key_length\": 512}, \"optimizer\": "
		"\"sgd\", \"learning_rate\": 1e10, \"max_iter\": 3}",
		1, 0);
	assert_true(ctx[0].status < 0 || ctx[2].status < 0);
	end_job(ctx, 1);
}

static char defects[400];

static void note(void *arg, const char *pointer, const char *text)
{
	size_t at = strlen(defects);

	(void)arg;
	(void)text;
	(void)snprintf(defects + at, sizeof(defects) - at, "%s ", pointer);
}

static void what_cannot_work_is_a_defect(void **state)
{
	json_t *p = json_pack("{s:s, s:i, s:s, s:{s:b}, s:{s:[s]}}",
			      "optimizer", "sqn", "batch_size", 5, "early_stop",
			      "diff", "cv_param", "need_cv", 1,
			      "callback_param", "callbacks", "EarlyStopping");
	json_t *roles = json_pack("{s:[s, s]}", "host", "1", "2");

	(void)state;
	component_hetero_lr.check(p, roles, "guest", note, NULL);
	assert_string_equal(defects, "batch_size early_stop "
				     "callback_param/early_stopping_rounds ");
	json_decref(p);
	json_decref(roles);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(async_path_agrees_with_every_optimizer),
		cmocka_unit_test(penalty_l1_agrees),
		cmocka_unit_test(batches_in_order_agree),
		cmocka_unit_test(masked_batches_agree_and_hide_their_size),
		cmocka_unit_test(two_hosts_agree_with_the_pooled_columns),
		cmocka_unit_test(three_classes_give_three_models),
		cmocka_unit_test(predictions_are_the_sigmoid_of_all_columns),
		cmocka_unit_test(other_rows_at_the_host_are_refused),
		cmocka_unit_test(damaged_ciphertexts_fail_the_job),
		cmocka_unit_test(vectors_of_other_lengths_are_refused),
		cmocka_unit_test(gradients_of_other_lengths_are_refused),
		cmocka_unit_test(a_gradient_that_is_no_number_is_refused),
		cmocka_unit_test(rows_of_a_fold_that_repeat_are_refused),
		cmocka_unit_test(other_rows_per_ciphertext_are_refused),
		cmocka_unit_test(divergence_is_an_error),
		cmocka_unit_test(what_cannot_work_is_a_defect),
	};

	return cmocka_run_group_tests(tests, harness_setup, harness_teardown);
}
