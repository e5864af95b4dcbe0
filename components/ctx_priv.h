/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a running task: main.c, describe.c and ctx*.c only. */
#ifndef COMPONENTS_CTX_PRIV_H
#define COMPONENTS_CTX_PRIV_H

#include "components/component.h"
#include "transfer/channel.h"

struct ctx {
	json_t *task; /* task.json; everything below borrows from it */
	const char *job, *component, *role, *party, *dir;
	const json_t *roles, *params, *inputs, *outputs;
	unsigned cores;
	uint8_t secret[32];
	bool has_secret;
	struct table_store *store;
	struct channel *channel;
	int events;
	int job_events; /* or -1 */
	int percent;	/* last one written; -1 = none */
	char code[64];
	const char *public; /* fixed sentence for partners */
	json_t *models;	    /* path -> model read */
	struct ctx_table {
		const char *key, *source, *namespace, *name;
		struct table *table;
	} * tables;
	size_t n_tables;
	json_t *parents; /* of output tables: "ns/name" */
	json_t *metrics; /* "ns/name" of the curves that were begun */
	bool passed;	 /* need_run is false */
};

/* From c->task: inputs and models are opened and the channel connected. */
int ctx_start(struct ctx *c, struct err *e) MUST_CHECK;
/* Half-started is allowed. */
void ctx_end(struct ctx *c);

/* ctx_msg.c: the i-th party of a role. */
int ctx_peer(struct ctx *c, const char *role, size_t i,
	     struct channel_peer *ret, struct err *e) MUST_CHECK;
/* What partners may read about a failed message; returns r, e is wrapped. */
int ctx_msg_failed(struct ctx *c, int r, const char *name, struct err *e);

/* describe.c: the components of list.h. By module or alias, or NULL. */
const struct component *component_find(const char *module);
json_t *components_describe(void);
/* {"tasks": [...]} -> {"defects": [...]}; caller owns. NULL with e. */
json_t *components_check(const json_t *request, struct err *e);

#endif
