/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store of trained models: STATE/models/<escaped id>/<version>/, laid out
 * as docs/models.md says, without `ctl` and `deployed`.  A version is there
 * when its info.json is.  The functions on a state directory keep nothing in
 * memory and may be called from any thread; those on a struct sched block and
 * may be called from any thread but the loop's.
 */
#ifndef SCHEDULER_MODEL_H
#define SCHEDULER_MODEL_H

#include <jansson.h>

#include "lib/err.h"

struct sched;

#define MODEL_FILE_MAX	  ((size_t)64 << 20) /* bytes of one file */
#define MODEL_FILES_MAX	  20000		     /* files of a version */
#define MODEL_DSL_PATH	  "predict/dsl.json"
#define MODEL_VERSION_MAX 40 /* digits of a version */

/* ---- names -------------------------------------------------------------- */

/* "arbiter-10001#guest-9999#host-10000#model" of {"guest": ["9999"], ...}:
 * roles in order of the alphabet, ids sorted (as numbers) and joined by `_`.
 * Caller frees. */
char *model_id_of(const json_t *roles);
bool model_id_valid(const char *id);
bool model_version_valid(const char *version); /* 20 to 40 digits */
/* STATE/models[/<escaped id>[/<version>]]; NULLs leave the rest away.
 * Caller frees. */
char *model_path(const char *state, const char *id, const char *version);

/* ---- looking ------------------------------------------------------------ */

/* Names in order, NULL-terminated; NULL when there are none. */
char **model_ids(const char *state);
/* Versions that are there, oldest first. */
char **model_versions(const char *state, const char *id);
void model_names_free(char **names);
/* Is the version there? */
bool model_exists(const char *state, const char *id, const char *version);
/* info.json, caller owns; NULL and -ENOENT in e when there is no such. */
json_t *model_info(const char *state, const char *id, const char *version,
		   struct err *e);
/* The newest version that was deployed from this one; NULL = none, caller
 * frees. */
char *model_deployed(const char *state, const char *id, const char *version);
/* May a file of this name be in a version?  ("train/dsl.json",
 * "guest-9999/hetero_lr_0/param.json", ...) */
bool model_file_name_valid(const char *relative);

/* ---- import ---------------------------------------------------------------
 */

/* Where the files of a version are put that comes from outside; nothing is
 * made.  Caller frees. */
char *model_import_path(const char *state, const char *id, const char *version);
/*
 * Looks at what was put there: 1 = it was whole and right and is a version
 * now, 0 = files of its info.json are missing, negative errno and the reason:
 * -EEXIST the version is there, -EACCES it is no model of this party, -EBADMSG
 * a digest or a file is wrong, -EINVAL no such layout.
 * What is refused stays until model_import_drop().  s judges an own predict
 * DSL that came along, which is left out when it is wrong; NULL: in any case.
 */
int model_import_try(struct sched *s, const char *state, const char *party,
		     const char *id, const char *version,
		     struct err *e) MUST_CHECK;
int model_import_drop(const char *state, const char *id, const char *version,
		      struct err *e) MUST_CHECK;
/* What a killed process left half-made; at start. */
void model_sweep(struct sched *s);

/* ---- through the scheduler ------------------------------------------------
 */

/*
 * One line of models/<id>/<version>/ctl, as sched_ctl():
 *   deploy [COMPONENT[:checkpoint-N] ...] [dsl [TEXT]]
 * Blocks until every party has the new version (at most 15 s).  -EPERM at
 * another party than the initiator, -EINVAL repeats the bad words, -ENOENT.
 */
int sched_model_ctl(struct sched *s, const char *id, const char *version,
		    const char *line, struct err *e) MUST_CHECK;
/*
 * predict/dsl.json of a trained version, written before a deploy: checked and
 * kept for the next one, all defects in the text of e, one a line.  n = 0
 * forgets it.  -EPERM when the version is a deployed one.
 */
int sched_model_set_dsl(struct sched *s, const char *id, const char *version,
			const char *text, size_t n, struct err *e) MUST_CHECK;
/* rm -r models/<id>/<version>: -EBUSY while a job uses it. */
int sched_model_remove(struct sched *s, const char *id, const char *version,
		       struct err *e) MUST_CHECK;
/* An import through the mount: model_import_try(), and readers are told. */
int sched_model_import(struct sched *s, const char *id, const char *version,
		       struct err *e) MUST_CHECK;

#endif
