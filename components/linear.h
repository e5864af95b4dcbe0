/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the coordinated linear models share: parameters, the rows as a dense
 * matrix, the agreement on rows, batches, the pieces of a message, and the
 * whole of the arbiter.  docs/components/hetero_lr.md has the protocol.
 *
 * One scale per tensor (bits behind the binary point): forwards and residuals
 * have LINEAR_SCALE; features are divided by the batch's true size first and
 * have feature_bits + ceil(log2(batch size)), so the mean costs no precision;
 * gradients and losses have the sum of the two, linear_plan.gradient_scale.
 */
#ifndef COMPONENTS_LINEAR_H
#define COMPONENTS_LINEAR_H

#include "components/component.h"
#include "components/crypto/paillier.h"
#include "components/math/optimizer.h"

#define LINEAR_SCALE	  40
#define LINEAR_ROWS_MAX	  (1u << 27)
#define LINEAR_VALUE_MAX  1e8 /* of a feature and of a weight */
#define LINEAR_MODELS_MAX 1000

enum early_stop { STOP_DIFF, STOP_ABS, STOP_WEIGHT_DIFF };

struct linear_params {
	enum penalty_kind penalty;
	double alpha, tol, threshold;
	struct optimizer rule; /* without moments */
	int64_t batch_size;
	bool shuffle, random_batch;
	double masked_rate;
	enum init_method init;
	double init_value;
	int64_t seed;
	bool fit_intercept;
	unsigned max_iter;
	enum early_stop early_stop;
	unsigned key_length;
	unsigned feature_bits;
};

/* Parameters are checked already; events name what was replaced. */
int linear_params_read(struct ctx *c, struct linear_params *ret,
		       struct err *e) MUST_CHECK;

/* The rows of one party in key order. */
struct linear_data {
	struct table *table; /* borrowed */
	size_t rows, cols;
	double *x;     /* rows x cols */
	double *label; /* guest only */
	size_t label_column;
	char **names; /* of the columns of x; borrowed from the table */
	const char **anonymous;
	uint8_t digest[32]; /* of the keys, under the job's secret */
};

int linear_data_read(struct ctx *c, struct linear_data *ret,
		     struct err *e) MUST_CHECK;
void linear_data_free(struct linear_data *d);
/* Guest and hosts make sure that they hold the same rows. */
int linear_data_agree(struct ctx *c, const struct linear_data *d,
		      struct err *e) MUST_CHECK;

/* What guest, hosts and arbiter know of the batches (message batch_info). */
struct linear_plan {
	size_t rows;
	size_t batch_size;	  /* true rows of a full batch */
	size_t masked_batch_size; /* rows that hosts see of it */
	unsigned batches;
	bool mutable_batches; /* other rows in every epoch */
	bool async;	      /* each side adds its own half in clear */
	bool loss;	      /* one host: there is a loss */
	unsigned models;      /* more than 1: one against the rest */
	unsigned x_scale;     /* of features divided by the batch size */
	unsigned gradient_scale;
};

/* The guest decides ... */
void linear_plan_make(struct ctx *c, const struct linear_params *p, size_t rows,
		      unsigned models, struct linear_plan *ret);
int linear_plan_send(struct ctx *c, const struct linear_plan *plan,
		     struct err *e) MUST_CHECK;
/* ... a host compares with its own rows and parameters, the arbiter (rows 0)
 * only checks ranges. */
int linear_plan_recv(struct ctx *c, const struct linear_params *p, size_t rows,
		     struct linear_plan *ret, struct err *e) MUST_CHECK;
/* Rows that count in batch b, and rows that are sent for it. */
size_t linear_batch_true(const struct linear_plan *plan, unsigned b);
size_t linear_batch_sent(const struct linear_plan *plan, unsigned b);
/* The smallest number of rows in a batch must exceed the columns, or the
 * other party could solve for the residuals. */
bool linear_plan_legal(const struct linear_plan *plan, size_t cols);

/* "<epoch>.<batch>", in front "<model>." when there are several. */
#define LINEAR_TAG 40
void linear_tag(char *tag, const struct linear_plan *plan, unsigned model,
		unsigned epoch, unsigned batch);
void linear_tag_epoch(char *tag, const struct linear_plan *plan, unsigned model,
		      unsigned epoch);

/* Vectors of ciphertexts as fixed-width records. */
int linear_send(struct ctx *c, const struct paillier_public *k,
		const char *role, size_t i, const char *name, const char *tag,
		const struct cipher_vec *v, struct err *e) MUST_CHECK;
/* Exactly n of them. */
int linear_recv(struct ctx *c, const struct paillier_public *k,
		const char *role, size_t i, const char *name, const char *tag,
		size_t n, unsigned scale, struct cipher_vec **ret,
		struct err *e) MUST_CHECK;
int linear_recv_key(struct ctx *c, const struct linear_params *p,
		    struct paillier_public **ret, struct err *e) MUST_CHECK;

static inline void cipher_vec_freep(struct cipher_vec **v)
{
	cipher_vec_free(*v);
}
#define _cleanup_cipher_ _cleanup_(cipher_vec_freep)

/* The weights of one model at one party and their history. */
struct linear_model {
	size_t cols;
	bool intercept;
	double *w; /* cols, then the intercept */
	double *loss;
	unsigned iterations;
	bool converged;
};

void linear_model_init(struct linear_model *m, const struct linear_params *p,
		       size_t cols, bool intercept);
void linear_model_free(struct linear_model *m);
double linear_dot(const struct linear_model *m, const double *x);
/* Takes the update of one batch from the arbiter and checks the weights. */
int linear_model_step(struct ctx *c, struct linear_model *m,
		      const struct linear_params *p, const char *name,
		      const char *tag, unsigned epoch,
		      struct err *e) MUST_CHECK;
/* Closes an epoch: the flag (and at the guest the loss) from the arbiter. */
int linear_model_epoch(struct ctx *c, struct linear_model *m,
		       const struct linear_plan *plan, unsigned model,
		       unsigned epoch, struct err *e) MUST_CHECK;
/* summary.json and model.json. */
int linear_publish(struct ctx *c, const struct linear_data *d,
		   const struct linear_model *models, unsigned n,
		   const double *classes, struct err *e) MUST_CHECK;

/* The arbiter: holds the key and the optimiser, keeps nothing. */
int linear_arbiter_run(struct ctx *c, struct err *e) MUST_CHECK;

int hetero_lr_guest(struct ctx *c, struct err *e) MUST_CHECK;
int hetero_lr_host(struct ctx *c, struct err *e) MUST_CHECK;

#endif
