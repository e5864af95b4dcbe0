/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a running task: main.c, ctx.c and ctx_msg.c only. */
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
	int percent; /* last one written; -1 = none */
	char code[64];
	const char *public; /* fixed sentence for partners */
	json_t *models;	    /* path -> model read */
	struct ctx_table {
		const char *key, *source;
		struct table *table;
	} * tables;
	size_t n_tables;
};

/* Inputs are opened and the channel connected here. */
int ctx_start(struct ctx *c, struct err *e) MUST_CHECK;
void ctx_end(struct ctx *c);

#endif
