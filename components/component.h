/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A component is one file that ends in one `const struct component`.
 *
 * To add one: (1) write components/<name>.c: parameter table, run functions,
 * the struct at the bottom; (2) add its line to components/list.h (sorted);
 * (3) add tests/unit/test_<name>.c or a case under tests/mount; (4) say in
 * docs/components/<name>.md what it does and what each party learns.
 * DSL checking, /components/<Module>.json, parameter errors and help all come
 * from the struct; nothing in fs/, scheduler/ or transfer/ changes.
 *
 * Tasks may exit on lack of memory (xmalloc).  A run function returns 0 or a
 * negative errno with a sentence in e; that sentence stays at this party.
 * What partners are told is only ctx_fail_code()'s fixed sentence.
 */
#ifndef COMPONENTS_COMPONENT_H
#define COMPONENTS_COMPONENT_H

#include <jansson.h>

#include "lib/err.h"
#include "lib/table.h"

enum param_type {
	PARAM_BOOL,
	PARAM_INT,
	PARAM_NUMBER,
	PARAM_STRING,
	PARAM_ENUM,   /* choices "a|b|c" (compared without case) */
	PARAM_OBJECT, /* members in sub */
	PARAM_LIST,
	PARAM_ANY, /* any JSON; the component's check() looks at it */
};

#define PARAM_NULLABLE 1u /* null is allowed */
#define PARAM_IGNORED  2u /* FATE's; accepted, named in events, not used */
#define PARAM_REQUIRED 4u
#define PARAM_OPEN_MIN 8u /* min itself is not allowed */

struct param {
	const char *name;
	enum param_type type;
	const char *def; /* JSON text of the default; NULL = null */
	double min, max; /* of numbers; both 0 = no limits */
	const char *choices;
	const struct param *sub; /* ends with a NULL name */
	unsigned flags;
	const char *help; /* one sentence; for IGNORED: what happens instead */
};

#define ROLE_GUEST   1u
#define ROLE_HOST    2u
#define ROLE_ARBITER 4u
#define ROLE_LOCAL   8u

struct ctx;

struct component {
	const char *module;
	const char *const *aliases;	      /* NULL-terminated, or NULL */
	unsigned roles;			      /* who runs a task */
	unsigned needs_roles;		      /* roles a job must have at all */
	const char *const *data_inputs;	      /* keys of input.data it knows */
	const char *const *model_inputs;      /* "model", "isometric_model" */
	unsigned data_outputs, model_outputs; /* at most */
	const struct param *params;
	const char *help;
	/*
	 * Rules over several parameters or the roles, called at submission for
	 * every task ("rollfs-task --check"); params have their defaults.
	 * Calls defect() for each violation; pointer is relative to the
	 * component's parameters ("early_stop", "rsa_params/key_length").
	 */
	void (*check)(const json_t *params, const json_t *roles,
		      const char *role,
		      void (*defect)(void *arg, const char *pointer,
				     const char *text),
		      void *arg);
	int (*run)(struct ctx *ctx, struct err *e);
};

/* ---- what a run function gets ---------------------------------------- */

const char *ctx_role(struct ctx *c);  /* "guest", "host", "arbiter" */
const char *ctx_party(struct ctx *c); /* own id */
/* Index of this party within its role; parties of a role. */
size_t ctx_index(struct ctx *c);
size_t ctx_count(struct ctx *c, const char *role);
const char *ctx_member(struct ctx *c, const char *role, size_t i);
unsigned ctx_cores(struct ctx *c);
const char *ctx_job(struct ctx *c);
const char *ctx_component(struct ctx *c);
/* Names this attempt of the component, the same at all parties. */
const char *ctx_session(struct ctx *c);
/* Parameters with all defaults filled in and types checked. Borrowed. */
const json_t *ctx_params(struct ctx *c);
/* 32 bytes the guest and hosts of the job share and the arbiter never gets;
 * NULL at an arbiter. */
const uint8_t *ctx_secret(struct ctx *c);

/* Input tables of a key ("data", "train_data"): how many, and the i-th
 * (borrowed, open). */
size_t ctx_inputs(struct ctx *c, const char *key);
struct table *ctx_input(struct ctx *c, const char *key, size_t i);
/* Does the DSL wire this key, whoever has the table? */
bool ctx_wired(struct ctx *c, const char *key);
/* Component that made the i-th input ("hetero_lr_0"), "" if none. */
const char *ctx_input_source(struct ctx *c, const char *key, size_t i);
/*
 * Model of a component of this party, of this job or a stored one:
 * {"module", "meta", "param"} as given to ctx_put_model there; NULL if not
 * wired. Borrowed.
 */
const json_t *ctx_input_model(struct ctx *c, const char *key);
struct table_store *ctx_store(struct ctx *c);

/* A table this task reads beside its inputs: for lineage. */
void ctx_add_parent(struct ctx *c, const char *ns, const char *name);
/* Publishes the i-th output table: takes the builder over. The lineage is
 * filled in. */
int ctx_put_table(struct ctx *c, size_t i, struct table_build *b,
		  struct err *e) MUST_CHECK;
/* The i-th output is the same rows as t (cheap). */
int ctx_put_same(struct ctx *c, size_t i, struct table *t,
		 struct err *e) MUST_CHECK;
/*
 * model/<output name>.json of this party, 0600: meta says how it was made
 * (settings), param what was learned.  Both borrowed.
 */
int ctx_put_model(struct ctx *c, const json_t *meta, const json_t *param,
		  struct err *e) MUST_CHECK;
/* The output is a model that came in, of whatever module it is. Borrowed. */
int ctx_put_same_model(struct ctx *c, const json_t *model,
		       struct err *e) MUST_CHECK;
/*
 * A model in the making, checkpoints/<index>.json of this party (0600), so
 * that the next attempt of this task goes on from it.  state (may be NULL) is
 * for that attempt only and never part of a stored model.  The newest 2,000
 * are kept.
 */
int ctx_put_checkpoint(struct ctx *c, unsigned index, const json_t *meta,
		       const json_t *param, const json_t *state,
		       struct err *e) MUST_CHECK;
/* Indices of the checkpoints that earlier attempts left, ascending; caller
 * frees *ret. */
int ctx_checkpoints(struct ctx *c, unsigned **ret, size_t *ret_n,
		    struct err *e) MUST_CHECK;
/* {"module", "meta", "param", "state"}; caller owns. */
int ctx_get_checkpoint(struct ctx *c, unsigned index, json_t **ret,
		       struct err *e) MUST_CHECK;
/*
 * Appends "x<TAB>y" to metrics/<ns>/<name>.tsv of this task, which people
 * watch while it grows ("train", "loss").  Of what an earlier attempt left,
 * the first call keeps the lines with a smaller x: x grows.
 */
int ctx_metric(struct ctx *c, const char *ns, const char *name, double x,
	       double y, struct err *e) MUST_CHECK;
/* summary.json; borrowed. */
int ctx_put_summary(struct ctx *c, const json_t *summary,
		    struct err *e) MUST_CHECK;
/* A directory for files without names (O_TMPFILE) while the task runs. */
const char *ctx_scratch(struct ctx *c);
/* STATE/cache/<name> of this party, 0700, made when missing: files that outlive
 * jobs to make later ones faster, and may be removed at any time. Those that
 * are older than the party's cache_days are gone, and the oldest beyond `max`.
 * The caller frees; NULL with e. */
char *ctx_cache_dir(struct ctx *c, const char *name, size_t max, struct err *e);
/* Appends a line to events of this task. Never ids or values. */
void ctx_event(struct ctx *c, const char *fmt, ...) PRINTF(2, 3);
void ctx_log(struct ctx *c, const char *fmt, ...) PRINTF(2, 3);
void ctx_progress(struct ctx *c, double fraction); /* 0..1 */
/* The code partners see with the failure: a short word of letters, digits and
 * '_'; the sentence must be a constant without ids, values or paths. */
void ctx_fail_code(struct ctx *c, const char *code, const char *sentence);

/*
 * Messages.  "to" and "from" are a role and the index within it.  name is
 * FATE's transfer variable; tag an iteration or batch suffix ("3.0", "" is
 * allowed).  Values are typed on the wire (docs/protocol.md): a receiver that
 * gets another type, another count than it asked for or a count beyond max is
 * told -EPROTO.
 */
int ctx_send_bytes(struct ctx *c, const char *role, size_t i, const char *name,
		   const char *tag, const void *data, size_t n,
		   struct err *e) MUST_CHECK;
/* Caller frees *ret. */
int ctx_recv_bytes(struct ctx *c, const char *role, size_t i, const char *name,
		   const char *tag, size_t max, void **ret, size_t *ret_n,
		   struct err *e) MUST_CHECK;
int ctx_send_json(struct ctx *c, const char *role, size_t i, const char *name,
		  const char *tag, const json_t *v, struct err *e) MUST_CHECK;
/* Caller owns; at most 16 MiB of text. */
int ctx_recv_json(struct ctx *c, const char *role, size_t i, const char *name,
		  const char *tag, json_t **ret, struct err *e) MUST_CHECK;
int ctx_send_f64(struct ctx *c, const char *role, size_t i, const char *name,
		 const char *tag, const double *v, size_t n,
		 struct err *e) MUST_CHECK;
/* Exactly n finite values into v. */
int ctx_recv_f64(struct ctx *c, const char *role, size_t i, const char *name,
		 const char *tag, double *v, size_t n,
		 struct err *e) MUST_CHECK;
int ctx_send_u32(struct ctx *c, const char *role, size_t i, const char *name,
		 const char *tag, const uint32_t *v, size_t n,
		 struct err *e) MUST_CHECK;
/* Up to max values; caller frees *ret. */
int ctx_recv_u32(struct ctx *c, const char *role, size_t i, const char *name,
		 const char *tag, size_t max, uint32_t **ret, size_t *ret_n,
		 struct err *e) MUST_CHECK;
/* n records of `width` bytes each, back to back (hashes, points, big-endian
 * integers, ciphertexts). */
int ctx_send_fixed(struct ctx *c, const char *role, size_t i, const char *name,
		   const char *tag, const void *data, size_t width, size_t n,
		   struct err *e) MUST_CHECK;
/* width must agree; up to max records; caller frees *ret. */
int ctx_recv_fixed(struct ctx *c, const char *role, size_t i, const char *name,
		   const char *tag, size_t width, size_t max, uint8_t **ret,
		   size_t *ret_n, struct err *e) MUST_CHECK;

/*
 * A whole table: parts of contiguous ids, each a message that is on its way
 * while it is read, and one that closes them.  What the receiver gets is a
 * builder with the sender's columns (without its lineage and extra) and all
 * rows, for ctx_put_table(); -EPROTO for anything that disagrees, as a table
 * of more than max_rows.
 */
int ctx_send_table(struct ctx *c, const char *role, size_t i, const char *name,
		   const char *tag, struct table *t, struct err *e) MUST_CHECK;
int ctx_recv_table(struct ctx *c, const char *role, size_t i, const char *name,
		   const char *tag, uint64_t max_rows, struct table_build **ret,
		   struct err *e) MUST_CHECK;

/* Runs fn(arg, k) for k = 0..n-1 on ctx_cores() threads (in blocks; the
 * calling thread works too). fn must not touch ctx messages. */
void ctx_parallel(struct ctx *c, size_t n, void (*fn)(void *arg, size_t k),
		  void *arg);

#endif
