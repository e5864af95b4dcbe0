/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coordinated linear models (HeteroLR, HeteroLinR, HeteroPoisson): guest
 * and hosts hold columns of the same rows, the arbiter the Paillier key.
 * docs/components/linear.md has the protocol, FATE's names of its messages and
 * who learns what.
 *
 *   linear_run.c       a task: what its inputs ask for, at any role
 *   linear_params.c    parameters of all three modules, and their rules
 *   linear_data.c      rows as a dense matrix
 *   linear_plan.c      batches, tags, ciphertexts as messages
 *   linear_family.c    what tells the three models apart
 *   linear_fit.c       one training: the loop over epochs and batches
 *   linear_guest.c linear_host.c linear_arbiter.c   a batch at each role
 *   linear_sqn.c       the stochastic quasi-Newton optimizer
 *   linear_watch.c     validation, early stopping, checkpoints
 *   linear_model.c     weights, as JSON too
 *   linear_predict.c   scores and the table of predictions
 *   linear_cv.c linear_stepwise.c    many trainings
 *
 * One scale per tensor (bits behind the binary point): shares and residuals
 * have LINEAR_SCALE; features are divided by the batch's true size first and
 * have feature_bits + ceil(log2(batch size)), so the mean costs no precision;
 * gradients and losses have the sum. Several rows share a ciphertext
 * (cipher_dot of paillier.h), in slots for the largest numbers that a party
 * lets out, as nobody would notice one that runs over: each checks its own.
 * Where the guest must pick or multiply rows that it cannot read (several hosts
 * with masked batches or weights) there is one row to a ciphertext, and what it
 * multiplies gains LINEAR_FACTOR_SCALE.
 */
#ifndef COMPONENTS_LINEAR_H
#define COMPONENTS_LINEAR_H

#include "components/component.h"
#include "components/crypto/paillier.h"
#include "components/math/optimizer.h"
#include "components/math/sqn.h"
#include "components/rows.h"

#define LINEAR_SCALE	    40
#define LINEAR_FACTOR_SCALE 40
#define LINEAR_VALUE_MAX    1e8 /* of a feature and of a weight */
#define LINEAR_X_BITS	    27	/* the same */
#define LINEAR_D_BITS	    33	/* of a share, half of a residual, factor */
#define LINEAR_SUM_BITS	    59	/* of a loss, of what is added in clear */
#define LINEAR_CLASSES_MAX  1000
#define LINEAR_METRICS_MAX  8

/* ---- the three models --------------------------------------------------- */

/*
 * A row at the guest, whose linear predictor (intercept and offset included)
 * is z and whose hosts' shares add up to f:
 *   residual d = a f + b; with one host loss = p f + rest + q h, h its part.
 */
struct linear_terms {
	double a, b, p, rest, q;
};

struct linear_family {
	const char *module;
	const char *share_name; /* FATE's transfer variables */
	const char *score_name;
	bool classes;	    /* labels are classes: beyond two one vs the rest */
	bool factors;	    /* a is never 1 */
	bool regression;    /* predictions are numbers */
	bool log_criterion; /* N ln(2 loss) in place of 2 N loss */
	bool one_host;
	bool counts;	  /* no negative labels */
	double curvature; /* of the loss in z; 0: not constant, no sqn */
	double (*share)(double z);
	double (*part)(double z);
	void (*terms)(double z, double y, double weight,
		      struct linear_terms *ret);
	double (*score)(double z);
};
extern const struct linear_family linear_lr, linear_linr, linear_poisson;

/* ---- parameters ----------------------------------------------------------
 */

enum early_stop { STOP_DIFF, STOP_ABS, STOP_WEIGHT_DIFF };

struct linear_params {
	enum penalty_kind penalty;
	double alpha, tol, threshold;
	struct optimizer rule; /* without moments */
	bool sqn;
	unsigned sqn_interval, sqn_memory;
	size_t sqn_sample;
	int64_t batch_size;
	bool shuffle, random_batch;
	double masked_rate;
	enum init_method init;
	double init_value;
	int64_t seed;
	bool fit_intercept;
	unsigned max_iter;
	enum early_stop early_stop;
	enum paillier_scheme scheme;
	unsigned key_length;
	unsigned feature_bits;
	const char *exposure; /* or NULL */
	bool hide_scores;
	unsigned score_digits;
	/* callbacks */
	bool evaluate, stop_early, checkpoints;
	const json_t *freqs; /* number or list, NULL = never */
	unsigned rounds;     /* 0 = never */
	const char *metrics[LINEAR_METRICS_MAX + 1];
	bool first_metric_only;
	unsigned save_freq;
	/* cross validation */
	bool cv, cv_shuffle, cv_history, cv_instances;
	unsigned folds;
	int64_t cv_seed;
	/* stepwise */
	bool stepwise, forward, backward, bic;
	unsigned max_step, nvmin, nvmax; /* nvmax 0 = no limit */
};

/* What the modules' descriptors share. */
extern const struct param linear_lr_params[], linear_linr_params[],
    linear_poisson_params[];
extern const char *const linear_data_inputs[];
extern const char *const linear_model_inputs[];
void linear_check(const struct linear_family *f, const json_t *p,
		  const json_t *roles,
		  void (*defect)(void *arg, const char *pointer,
				 const char *text),
		  void *arg);

/* ---- a task --------------------------------------------------------------
 */

enum linear_role { LINEAR_GUEST, LINEAR_HOST, LINEAR_ARBITER };

struct linear_fit;
struct linear {
	struct ctx *c;
	const struct linear_family *f;
	enum linear_role role;
	size_t hosts;
	struct linear_params p;
	struct paillier_public *key;	 /* guest and hosts */
	struct paillier_private *secret; /* arbiter */
	double from, span;		 /* of the progress, for a training */
};

/* Parameters are checked already; events name what was replaced. */
int linear_params_read(struct linear *l, struct err *e) MUST_CHECK;
/* The whole task at any role. */
int linear_run(struct ctx *c, const struct linear_family *f,
	       struct err *e) MUST_CHECK;

/* ---- rows ----------------------------------------------------------------
 */

/* The rows of one party in key order. */
struct linear_data {
	struct table *table; /* borrowed */
	size_t rows, cols;
	double *x;	/* rows x cols */
	double *label;	/* guest; NULL when there is none */
	double *weight; /* guest; NULL when there is none */
	double *offset; /* guest; NULL when there is none */
	size_t label_column;
	char **names; /* of the columns of x; owned, as anonymous */
	char **anonymous;
	uint32_t *at;	 /* rows of the table; NULL: all */
	struct rows ids; /* of a whole table */
};

/*
 * header: names of the columns in the order of a model (each must be there,
 * others are left out, but refused in train_data), NULL: all features.
 * need_label at the guest.
 */
int linear_data_read(struct linear *l, const char *key, const json_t *header,
		     bool need_label, struct linear_data *ret,
		     struct err *e) MUST_CHECK;
void linear_data_free(struct linear_data *d);
/* Copies of the rows at[0..n-1] (ascending), or of the columns with keep[j]. */
void linear_data_rows(const struct linear_data *d, const uint32_t *at, size_t n,
		      struct linear_data *ret);
void linear_data_columns(const struct linear_data *d, const bool *keep,
			 struct linear_data *ret);

/* ---- batches and messages -----------------------------------------------
 */

/* What guest, hosts and arbiter know of a training (message batch_info). */
struct linear_plan {
	size_t rows;
	size_t batch_size;	  /* true rows of a full batch */
	size_t masked_batch_size; /* rows that hosts see of it */
	unsigned batches;
	bool mutable_batches; /* other rows in every epoch */
	bool weighted;
	bool factors; /* the guest multiplies the shares */
	bool async;   /* one host: each side adds its own half in clear */
	bool loss;    /* one host: there is a loss */
	bool pick;    /* only the guest knows which rows count, or how much */
	bool packed;
	struct packing pack;
	unsigned start;	  /* first epoch */
	unsigned x_scale; /* of features divided by the batch size */
	unsigned residual_scale, gradient_scale, sqn_scale;
};

/* The guest decides ... */
void linear_plan_make(const struct linear *l, size_t rows, bool weighted,
		      unsigned start, struct linear_plan *ret);
int linear_plan_send(struct linear *l, const char *flow,
		     const struct linear_plan *plan, struct err *e) MUST_CHECK;
/* ... a host compares with its own rows and parameters, the arbiter (rows 0)
 * only checks ranges. */
int linear_plan_recv(struct linear *l, const char *flow, size_t rows,
		     struct linear_plan *ret, struct err *e) MUST_CHECK;
/* Rows that count in batch b, and rows that are sent for it. */
size_t linear_batch_true(const struct linear_plan *plan, unsigned b);
size_t linear_batch_sent(const struct linear_plan *plan, unsigned b);
/* The smallest number of rows in a batch must exceed the columns, or the
 * other party could solve for the residuals. */
bool linear_plan_legal(const struct linear_plan *plan, size_t cols);

/* flow ("", "fold0.", "fold0.class1.", "step2.model3.") and what follows. */
#define LINEAR_FLOW 64
#define LINEAR_TAG  100
void linear_tag(char *tag, const char *flow, unsigned epoch, unsigned batch);
void linear_tag_epoch(char *tag, const char *flow, unsigned epoch);

/* Ciphertexts of n rows, and the rows that they have room for. */
size_t linear_packed(const struct linear_plan *plan, size_t n);
size_t linear_room(const struct linear_plan *plan, size_t n);
/* -ERANGE, the training diverged, when one of n numbers is not below 2^bits. */
int linear_fits(struct linear *l, const double *v, size_t n, int bits,
		struct err *e) MUST_CHECK;
/* n rows below 2^bits (LINEAR_D_BITS, LINEAR_SUM_BITS) at LINEAR_SCALE. */
int linear_encrypt(struct linear_fit *f, const double *v, size_t n, int bits,
		   struct cipher_vec **ret, struct err *e) MUST_CHECK;

/* x' d of d's `rows` rows, x rows x cols ... */
int linear_product(struct linear_fit *f, const struct cipher_vec *d,
		   const double *x, size_t rows, size_t cols,
		   struct cipher_vec **ret, struct err *e) MUST_CHECK;
/* ... plus plain (below 2^LINEAR_SUM_BITS), and fit to be sent. */
int linear_product_end(struct linear_fit *f, struct cipher_vec *a,
		       const double *plain, struct err *e) MUST_CHECK;

/* Vectors of ciphertexts as fixed-width records. */
int linear_send(struct linear *l, const char *role, size_t i, const char *name,
		const char *tag, const struct cipher_vec *v,
		struct err *e) MUST_CHECK;
/* Exactly n of them. */
int linear_recv(struct linear *l, const char *role, size_t i, const char *name,
		const char *tag, size_t n, unsigned scale,
		struct cipher_vec **ret, struct err *e) MUST_CHECK;

static inline void cipher_vec_freep(struct cipher_vec **v)
{
	cipher_vec_free(*v);
}
#define _cleanup_cipher_ _cleanup_(cipher_vec_freep)

/* ---- weights -------------------------------------------------------------
 */

/* The weights of one model at one party and their history. */
struct linear_model {
	size_t cols;
	bool intercept;
	double *w; /* cols, then the intercept */
	double *loss;
	size_t n_loss;
	unsigned iterations;
	int best; /* epoch that early stopping went back to, or -1 */
	bool converged;
};

/* One model, or one per class. */
struct linear_set {
	unsigned n;
	double *classes; /* guest, of one vs the rest; else NULL */
	struct linear_model *m;
};

void linear_model_init(struct linear_model *m, const struct linear_params *p,
		       size_t cols, bool intercept);
void linear_model_free(struct linear_model *m);
void linear_model_copy(const struct linear_model *from,
		       struct linear_model *to);
void linear_model_add_loss(struct linear_model *m, double loss);
void linear_set_free(struct linear_set *s);
double linear_dot(const struct linear_model *m, const double *x);
/* Takes the update of one batch from the arbiter and checks the weights. */
int linear_model_step(struct linear *l, struct linear_model *m, const char *tag,
		      unsigned epoch, struct err *e) MUST_CHECK;
/* param of a model; d names the columns. Caller owns. */
json_t *linear_set_json(const struct linear *l, const struct linear_data *d,
			const struct linear_set *s);
json_t *linear_model_json(const struct linear *l, const struct linear_data *d,
			  const struct linear_model *m);
int linear_model_read(const struct linear *l, const json_t *o,
		      const json_t *header, struct linear_model *m,
		      struct err *e) MUST_CHECK;
/* From param. */
int linear_set_read(const struct linear *l, const json_t *param,
		    struct linear_set *ret, struct err *e) MUST_CHECK;
/* The model that input.model names; NULL param: none is wired. */
const json_t *linear_input_param(struct linear *l);

/* ---- one training --------------------------------------------------------
 */

struct linear_watch;
struct linear_fit {
	struct linear *l;
	char flow[LINEAR_FLOW];
	const struct linear_data *d; /* NULL at the arbiter */
	const double *y;	     /* guest */
	double *weight;		     /* guest: mean 1, or NULL */
	struct linear_plan plan;
	struct linear_model *m; /* NULL at the arbiter */
	bool warm;		/* m holds weights already */
	unsigned start;
	struct linear_watch *watch; /* or NULL */
	double loss;		    /* arbiter and guest: of the last epoch */
	double from, span;	    /* of the task's progress */
	bool stop;
	/* of the role */
	struct guest_batch *g;
	struct host_batch *h;
	struct arbiter *a;
	/* sqn at guest and hosts */
	unsigned k;
	double *w_sum, *w_last;
	bool have_last;
};

/* Trains f->m; the caller sets l, flow, d, y, m and, if it likes, the rest. */
int linear_fit(struct linear_fit *f, struct err *e) MUST_CHECK;
void linear_fit_free(struct linear_fit *f);

int guest_begin(struct linear_fit *f, struct err *e) MUST_CHECK;
void guest_epoch(struct linear_fit *f);
int guest_batch(struct linear_fit *f, unsigned epoch, unsigned b,
		struct err *e) MUST_CHECK;
void guest_free(struct linear_fit *f);
int host_begin(struct linear_fit *f, struct err *e) MUST_CHECK;
int host_batch(struct linear_fit *f, unsigned epoch, unsigned b,
	       struct err *e) MUST_CHECK;
void host_free(struct linear_fit *f);
int arbiter_begin(struct linear_fit *f, struct err *e) MUST_CHECK;
int arbiter_batch(struct linear_fit *f, unsigned epoch, unsigned b,
		  struct err *e) MUST_CHECK;
/* The flag of an epoch to all. */
int arbiter_epoch(struct linear_fit *f, unsigned epoch,
		  struct err *e) MUST_CHECK;
/* A pair of the quasi-Newton memory from all, after batch k. */
int arbiter_sqn(struct linear_fit *f, struct err *e) MUST_CHECK;
json_t *arbiter_state(const struct linear_fit *f);
int arbiter_restore(struct linear_fit *f, const json_t *o,
		    struct err *e) MUST_CHECK;
void arbiter_free(struct linear_fit *f);

/* Before and after a batch; does nothing without sqn. */
void linear_sqn_before(struct linear_fit *f);
int linear_sqn_after(struct linear_fit *f, struct err *e) MUST_CHECK;
json_t *linear_sqn_state(const struct linear_fit *f);
int linear_sqn_restore(struct linear_fit *f, const json_t *o,
		       struct err *e) MUST_CHECK;

/* How many models the labels at the guest need, and of which classes. */
int linear_classes(const struct linear *l, const struct linear_data *d,
		   struct linear_set *set, struct err *e) MUST_CHECK;
/*
 * All models of a training: one, or one per class in their order.  A set that
 * holds models already is trained on; one with classes keeps them.  ret_loss
 * (may be NULL): of the last epoch, at guest and arbiter.
 */
int linear_train(struct linear *l, const char *flow,
		 const struct linear_data *d, struct linear_watch *w,
		 struct linear_set *set, double *ret_loss,
		 struct err *e) MUST_CHECK;
/* Labels of model k at the guest; caller frees. */
double *linear_targets(const struct linear *l, const struct linear_set *set,
		       unsigned k, const struct linear_data *d);

/* ---- validation, early stopping, checkpoints ---------------------------
 */

struct linear_best {
	bool have;
	double value;
	unsigned since, epoch;
	double *w;
};

struct linear_watch {
	struct linear *l;
	const struct linear_data *train, *validate; /* NULL at the arbiter */
	bool have_validate;			    /* known everywhere */
	/* of the model at hand */
	const struct linear_set *set;
	unsigned model;	    /* its index in the set */
	double *y_validate; /* guest */
	struct linear_best best[LINEAR_METRICS_MAX];
	size_t n_best, stopped_by;
	/* what an earlier attempt left, or NULL */
	json_t *resumed;
	unsigned resume_model, resume_epoch;
};

/* Agrees on the checkpoint that an earlier attempt left at all parties. */
int linear_watch_begin(struct linear_watch *w, struct err *e) MUST_CHECK;
void linear_watch_free(struct linear_watch *w);
/* Model k of the set begins: what a checkpoint has of it is put into m (then
 * ret_warm is true); models before the one at hand are complete there. */
int linear_watch_model(struct linear_watch *w, const struct linear_set *set,
		       unsigned k, bool *ret_warm, bool *ret_done,
		       struct err *e) MUST_CHECK;
/* After the plan is known: the state of optimizers. */
int linear_watch_restore(struct linear_watch *w, struct linear_fit *f,
			 struct err *e) MUST_CHECK;
/* After an epoch; may set f->stop. */
int linear_watch_epoch(struct linear_watch *w, struct linear_fit *f,
		       unsigned epoch, struct err *e) MUST_CHECK;
/* The best model when the training is over. */
void linear_watch_end(struct linear_watch *w, struct linear_fit *f);

/* Point of a curve: flow "fold_0.class_1." and kind "train" give
 * metrics/fold_0_train/<name>_class_1.tsv. */
int linear_curve(struct linear *l, const char *flow, const char *kind,
		 const char *name, double x, double y,
		 struct err *e) MUST_CHECK;

/* ---- predictions ---------------------------------------------------------
 */

/*
 * Scores of one model: at the guest into score (rows), as the score of the
 * family.  Hosts and, with hide_scores, the arbiter take part (rows 0 there).
 */
int linear_scores(struct linear *l, const char *tag,
		  const struct linear_model *m, const struct linear_data *d,
		  double *score, struct err *e) MUST_CHECK;

/* A table of predictions at the guest, part by part. */
struct linear_result {
	struct linear *l;
	struct table_build *b;
	enum cell_type label, result;
};
int linear_result_begin(struct linear *l, const struct linear_set *set,
			const struct linear_data *d, struct linear_result *ret,
			struct err *e) MUST_CHECK;
/* suffix is put behind every id ("#fold0#train"), or behind those that are
 * in `twice` as well ("#validate"). */
int linear_result_add(struct linear_result *r, const struct linear_set *set,
		      const struct linear_data *d, double *const *score,
		      const char *type, const char *suffix,
		      const struct linear_data *twice,
		      struct err *e) MUST_CHECK;
/* Publishes output i. */
int linear_result_end(struct linear_result *r, size_t i,
		      struct err *e) MUST_CHECK;
void linear_result_abort(struct linear_result *r);

/* Scores of all models of the set for all rows: caller frees with
 * linear_scores_free. */
int linear_set_scores(struct linear *l, const char *flow,
		      const struct linear_set *set, const struct linear_data *d,
		      double ***ret, struct err *e) MUST_CHECK;
void linear_scores_free(const struct linear_set *set, double **score);

/* Single numbers: names of the metrics in effect, or the usual ones. */
double linear_metric(const struct linear *l, const char *name, const double *y,
		     const double *score, size_t n);
const char *const *linear_metric_names(const struct linear *l);
bool linear_metric_larger(const char *name);
/* {"auc": ...} of a whole set (accuracy for one vs the rest). */
json_t *linear_measure(const struct linear *l, const struct linear_set *set,
		       const struct linear_data *d, double *const *score);

/* d is NULL at the arbiter. */
int linear_cv(struct linear *l, const struct linear_data *d,
	      struct err *e) MUST_CHECK;
/* The best model and its columns of d; ret_steps for the summary. */
int linear_stepwise(struct linear *l, const struct linear_data *d,
		    struct linear_set *ret, struct linear_data *ret_d,
		    json_t **ret_steps, struct err *e) MUST_CHECK;

#endif
