/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows that guest and hosts have in common: everybody holds the same ids in
 * the same order, so a row is a number.
 *
 *   rows_read (all parties) -> rows_agree -> rows_send at the guest,
 *   rows_recv at the hosts
 */
#ifndef COMPONENTS_ROWS_H
#define COMPONENTS_ROWS_H

#include "components/component.h"

#define ROWS_MAX (1u << 27)

/* What is known of a table after one pass over it. */
struct rows {
	size_t n;
	uint8_t ids[32];   /* HMAC-SHA256(job secret, ids) */
	uint8_t cells[32]; /* SHA-256 of ids and cells: partners cannot guess
			    * it, and it is the same for the same table */
};

/* Calls fn (may be NULL) for each row in key order. */
int rows_read(struct ctx *c, struct table *t,
	      int (*fn)(void *arg, size_t row, const struct cell *cells,
			struct err *e),
	      void *arg, struct rows *ret, struct err *e) MUST_CHECK;

/* Guest and hosts make sure that they hold the same rows (id_digest under this
 * tag). */
int rows_agree(struct ctx *c, const char *tag, const struct rows *r,
	       struct err *e) MUST_CHECK;

/* Row numbers to every host; any order, repeated or not. */
int rows_send(struct ctx *c, const char *name, const uint32_t *v, size_t n,
	      struct err *e) MUST_CHECK;
/* From the guest: up to max numbers, each below rows; caller frees *ret. */
int rows_recv(struct ctx *c, const char *name, size_t rows, size_t max,
	      uint32_t **ret, size_t *ret_n, struct err *e) MUST_CHECK;

/* key[n]: the key for a draw of the rows of r that nobody else can repeat: of
 * its table and the seed, or of the system when seed < 0. */
int rows_key(const struct rows *r, int64_t seed, uint8_t ret[32],
	     struct err *e) MUST_CHECK;

#endif
