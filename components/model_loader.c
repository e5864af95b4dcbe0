// SPDX-License-Identifier: Apache-2.0
/*
 * Brings a model of the store into a job: its output is that model, of
 * whatever module it is.  The scheduler has found it, and looked whether this
 * job may use it; what arrives is a file as of any model input.
 */
#include "components/component.h"

#include "lib/json.h"

static void check(const json_t *p, const json_t *roles, const char *role,
		  void (*defect)(void *arg, const char *pointer,
				 const char *text),
		  void *arg)
{
	static const char *const needed[] = { "model_id", "model_version",
					      "component_name" };
	const json_t *step = json_object_get(p, "step_name");

	(void)roles;
	(void)role;
	for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
		if (!*json_str_or(p, needed[i], ""))
			defect(arg, needed[i], "must not be empty");
	if (step && !json_is_null(step))
		defect(arg, "step_name",
		       "checkpoints have numbers and no names: give "
		       "step_index");
}

static int run(struct ctx *c, struct err *e)
{
	const json_t *model = ctx_input_model(c, "model");
	const json_t *p = ctx_params(c);

	if (!model) {
		ctx_event(c, "%s has no model for this role",
			  json_str_or(p, "component_name", ""));
		return 0;
	}
	ctx_event(c, "loaded %s of version %s",
		  json_str_or(p, "component_name", ""),
		  json_str_or(p, "model_version", ""));
	return ctx_put_same_model(c, model, e);
}

static const struct param params[] = {
	{ .name = "model_id",
	  .type = PARAM_STRING,
	  .flags = PARAM_REQUIRED,
	  .help = "A directory in models." },
	{ .name = "model_version",
	  .type = PARAM_STRING,
	  .flags = PARAM_REQUIRED,
	  .help = "A directory of that model." },
	{ .name = "component_name",
	  .type = PARAM_STRING,
	  .flags = PARAM_REQUIRED,
	  .help = "The component whose model it is." },
	{ .name = "model_alias",
	  .type = PARAM_STRING,
	  .flags = PARAM_NULLABLE | PARAM_IGNORED,
	  .help = "a component has one model" },
	{ .name = "step_index",
	  .type = PARAM_INT,
	  .max = 1000000,
	  .flags = PARAM_NULLABLE,
	  .help = "A checkpoint in place of the final model." },
	{ .name = "step_name",
	  .type = PARAM_STRING,
	  .flags = PARAM_NULLABLE,
	  .help = "Of a checkpoint; step_index says it here." },
	{ 0 }
};

static const char *const none[] = { NULL };

extern const struct component component_model_loader;
const struct component component_model_loader = {
	.module = "ModelLoader",
	.roles = ROLE_GUEST | ROLE_HOST | ROLE_ARBITER,
	.data_inputs = none,
	.model_inputs = none,
	.model_outputs = 1,
	.params = params,
	.help = "Loads a model of the store, for components of its module.",
	.check = check,
	.run = run,
};
