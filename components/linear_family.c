// SPDX-License-Identifier: Apache-2.0
/*
 * What tells the coordinated linear models apart.  z is the guest's linear
 * predictor, f the sum of the hosts' shares, h the host's part of the loss;
 * sample weights have the mean 1.
 */
#include <math.h>

#include "components/linear.h"

static double itself(double z)
{
	return z;
}

static double half_square(double z)
{
	return z * z / 2;
}

/* ---- logistic regression, its loss as a Taylor series at 0 --------------- */

static double quarter(double z)
{
	return z / 4;
}

static double eighth_square(double z)
{
	return z * z / 8;
}

/*
 * f = z_h / 4 and, of z + 4f,
 *   ln2 - y z / 2 + z^2 / 8 = ln2 - y z_g / 2 + z_g^2 / 8
 *                             + (z_g - 2 y) f + z_h^2 / 8.
 */
static void lr_terms(double z, double y, double weight,
		     struct linear_terms *ret)
{
	ret->a = weight;
	ret->b = weight * (z / 4 - y / 2);
	ret->p = weight * (z - 2 * y);
	ret->rest = weight * (M_LN2 + z * z / 8 - y * z / 2);
	ret->q = weight;
}

static double sigmoid(double z)
{
	return z >= 0 ? 1 / (1 + exp(-z)) : exp(z) / (1 + exp(z));
}

const struct linear_family linear_lr = {
	.module = "HeteroLR",
	.share_name = "host_forward_dict",
	.score_name = "host_prob",
	.classes = true,
	.curvature = .25,
	.share = quarter,
	.part = eighth_square,
	.terms = lr_terms,
	.score = sigmoid,
};

/* ---- linear regression --------------------------------------------------- */

/* f = z_h: (z + f - y)^2 / 2 = d^2 / 2 + d f + z_h^2 / 2, d = z - y. */
static void linr_terms(double z, double y, double weight,
		       struct linear_terms *ret)
{
	ret->a = weight;
	ret->b = weight * (z - y);
	ret->p = ret->b;
	ret->rest = weight * (z - y) * (z - y) / 2;
	ret->q = weight;
}

const struct linear_family linear_linr = {
	.module = "HeteroLinR",
	.share_name = "host_forward",
	.score_name = "host_partial_prediction",
	.regression = true,
	.log_criterion = true,
	.curvature = 1,
	.share = itself,
	.part = half_square,
	.terms = linr_terms,
	.score = itself,
};

/* ---- Poisson regression ---------------------------------------------------
 */

/* f = exp(z_h), h = z_h: mu = exp(z) f, d = mu - y,
 * loss = mu - y (z + z_h). */
static void poisson_terms(double z, double y, double weight,
			  struct linear_terms *ret)
{
	(void)weight;
	ret->a = exp(z);
	ret->b = -y;
	ret->p = ret->a;
	ret->rest = -y * z;
	ret->q = -y;
}

const struct linear_family linear_poisson = {
	.module = "HeteroPoisson",
	.share_name = "host_forward",
	.score_name = "host_partial_prediction",
	.factors = true,
	.regression = true,
	.one_host = true,
	.counts = true,
	.share = exp,
	.part = itself,
	.terms = poisson_terms,
	.score = exp,
};
