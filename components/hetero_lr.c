// SPDX-License-Identifier: Apache-2.0
/*
 * HeteroLR: logistic regression over columns that lie with different parties,
 * trained under the arbiter's Paillier key.  docs/components/hetero_lr.md; the
 * work is in linear_run.c.
 */
#include "components/linear.h"

static void check(const json_t *params, const json_t *roles, const char *role,
		  void (*defect)(void *arg, const char *pointer,
				 const char *text),
		  void *arg)
{
	(void)role;
	linear_check(&linear_lr, params, roles, defect, arg);
}

static int run(struct ctx *c, struct err *e)
{
	return linear_run(c, &linear_lr, e);
}

extern const struct component component_hetero_lr;
const struct component component_hetero_lr = {
	.module = "HeteroLR",
	.roles = ROLE_GUEST | ROLE_HOST | ROLE_ARBITER,
	.needs_roles = ROLE_GUEST | ROLE_HOST | ROLE_ARBITER,
	.data_inputs = linear_data_inputs,
	.model_inputs = linear_model_inputs,
	.data_outputs = 1,
	.model_outputs = 1,
	.params = linear_lr_params,
	.help = "logistic regression over columns of several parties",
	.check = check,
	.run = run,
};
