/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the model store share: model.c (names, listing, digests),
 * model_import.c (what comes from outside), model_keep.c (a job's models),
 * model_predict.c (what a predict job runs), model_deploy.c (deployed
 * versions), model_order.c (what is to be deployed), model_use.c (jobs that
 * use a model).
 */
#ifndef SCHEDULER_MODEL_PRIV_H
#define SCHEDULER_MODEL_PRIV_H

#include "lib/json.h"

#include "scheduler/check.h"
#include "scheduler/model.h"

/* ---- model.c ------------------------------------------------------------ */

#define MODEL_SHA_TEXT 65
/* Size and SHA-256 in hex of a file. */
int model_digest(const char *path, char *ret, uint64_t *ret_size,
		 struct err *e) MUST_CHECK;
/* Every file below dir: fn(arg, relative path); stops when it is not 0. */
int model_walk(const char *dir, int (*fn)(void *arg, const char *relative),
	       void *arg, struct err *e) MUST_CHECK;
/* "files" of info.json: what is below dir now, but for info.json. */
int model_list_files(const char *dir, json_t *ret, struct err *e) MUST_CHECK;
/* Are size and digest of all files those of info? -EBADMSG names the first
 * that is not, -ENOENT the first that is missing. */
int model_verify(const char *dir, const json_t *info, struct err *e) MUST_CHECK;
/* All files and directories below dir reach the disk; modes 0600 and 0700. */
int model_settle(const char *dir, struct err *e) MUST_CHECK;
/* Renames the finished directory to its place; an older one goes. */
int model_publish(const char *state, const char *dir, const char *id,
		  const char *version, struct err *e) MUST_CHECK;
/* STATE/models/.new-<version>, emptied and made. */
char *model_workshop(const char *state, const char *version, struct err *e);
json_t *model_read(const char *state, const char *id, const char *version,
		   const char *relative, struct err *e);
/* "<role>-<party>" */
char *model_member(const char *role, const char *party);

/* ---- model_predict.c ------------------------------------------------------
 */

/* "pipeline.<component>.<alias>": copies of both, false if it is none. */
bool pipeline_reference(const char *text, char *component, char *alias,
			size_t n);
/* The predict DSL of the chosen components (names in a list). Caller owns. */
json_t *predict_dsl_deduce(const json_t *train_dsl, const json_t *chosen);
/* Readers that the chosen ones need when all others are left out. */
void predict_add_readers(const json_t *train_dsl, json_t *chosen);
/* conf.template.json. Caller owns. */
json_t *predict_template(const json_t *train_conf, const json_t *dsl,
			 const json_t *describe, const char *id,
			 const char *version);
/* The conf with the component parameters of the training below its own, each
 * party's under its own index. Caller owns. */
json_t *predict_conf_merge(const json_t *train_conf, const json_t *conf,
			   const json_t *dsl);

/* ---- model_use.c ----------------------------------------------------------
 */

struct job;
struct task;
/*
 * At the initiator: the documents of a predict job become those that run, the
 * model's DSL and the conf above the training's.  false when it cannot be, and
 * defects say why.
 */
bool model_expand(struct sched *s, json_t **dsl, json_t **conf,
		  struct defects *d);
/* At every party: does the job's model stand here, and may it be used by a job
 * of this initiator?  Also those that a ModelLoader names. */
void model_check(struct sched *s, const json_t *dsl, const json_t *conf,
		 const char *initiator, struct defects *d);
/* Are the models that the DSL names of the modules that use them?  strict: each
 * must be in the version, unless its component hands its rows on. */
void model_check_refs(const json_t *dsl, const json_t *conf, const json_t *info,
		      bool strict, struct defects *d);
/* Does a job that has not ended use the version? Lock held. */
bool model_in_use(struct sched *s, const char *id, const char *version);
/* The stored model as {"module", "meta", "param"} in a file at path (0600); 1
 * when there is none for the role. */
int model_to_file(struct sched *s, const char *id, const char *version,
		  const char *role, const char *component, const char *path,
		  struct err *e) MUST_CHECK;

/* Every valid reference to a model in a DSL: component `name` (c) takes that of
 * `from` as its input.model[i]. */
typedef void (*model_ref_fn)(void *arg, const char *name, const json_t *c,
			     size_t i, const char *from);
void model_refs_each(const json_t *dsl, model_ref_fn fn, void *arg);

/* ---- model_order.c --------------------------------------------------------
 */

/* {"dsl": ...} -> what is in it; consumes its argument. */
json_t *deploy_dsl_unwrap(json_t *o);
/* An own predict DSL that came along with a trained version, which stands in
 * dir: it is as it would have been set (sched_model_set_dsl), or it goes.
 * s may be NULL: it goes. */
void deploy_dsl_take(struct sched *s, const char *dir, const json_t *info);

/*
 * At the start: was this version made aside for a deploy, and is it whole?
 * It waits for its initiator, and one of ours is made at all parties now.
 */
bool deploy_prepared(struct sched *s, const char *dir);

struct deploy_order {
	json_t *dsl;	    /* of the predict job */
	json_t *components; /* whose models: [{"name", "checkpoint"}] */
	bool own;	    /* it was given, not deduced */
};
/*
 * The words behind "deploy" (changed), for a trained version of ours; stored:
 * where an own DSL may have been written before.  The caller owns what is in
 * *ret.  -EINVAL: there is no such component, or nothing has learned.
 */
int deploy_order_read(struct sched *s, const json_t *info, char *line,
		      const char *stored, struct deploy_order *ret,
		      struct err *e) MUST_CHECK;

#endif
