// SPDX-License-Identifier: Apache-2.0
/*
 * HeteroPoisson: Poisson regression over columns that lie with different
 * parties, trained under the arbiter's Paillier key.
 * docs/components/hetero_poisson.md; the work is in linear_run.c.
 */
#include "components/linear.h"

static void check(const json_t *params, const json_t *roles, const char *role,
		  void (*defect)(void *arg, const char *pointer,
				 const char *text),
		  void *arg)
{
	(void)role;
	linear_check(&linear_poisson, params, roles, defect, arg);
}

static int run(struct ctx *c, struct err *e)
{
	return linear_run(c, &linear_poisson, e);
}

extern const struct component component_hetero_poisson;
const struct component component_hetero_poisson = {
	.module = "HeteroPoisson",
	.roles = ROLE_GUEST | ROLE_HOST | ROLE_ARBITER,
	.needs_roles = ROLE_GUEST | ROLE_HOST | ROLE_ARBITER,
	.data_inputs = linear_data_inputs,
	.model_inputs = linear_model_inputs,
	.data_outputs = 1,
	.model_outputs = 1,
	.params = linear_poisson_params,
	.help = "Poisson regression over columns of several parties",
	.check = check,
	.run = run,
};
