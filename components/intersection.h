/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of Intersection share: blocks of ids, lists of tags, the
 * greeting.  docs/components/intersection.md has the messages.
 */
#ifndef COMPONENTS_INTERSECTION_H
#define COMPONENTS_INTERSECTION_H

#include "components/component.h"
#include "components/crypto/psi.h"
#include "lib/strbuf.h"

#define BLOCK	  2048	    /* ids of one message */
#define COUNT_MAX 100000000 /* ids a peer may bring */
#define NONE	  UINT32_MAX

struct tag {
	uint8_t b[PSI_TAG];
	uint32_t at; /* row of its owner, or place in the list it came in */
};

struct block {
	struct strbuf text;
	uint32_t end[BLOCK];
	struct psi_ids ids;
};

/* What a party keeps while it runs. */
struct psi {
	struct ctx *c;
	struct table *t;
	struct table_iter *it;
	uint32_t rows;
	unsigned cores;
	bool rsa, sync, only_key;
	const char *param_salt;
	unsigned key_length;
	uint8_t salt[PSI_SALT];
	uint8_t key[PSI_TAG]; /* ECDH */
	uint8_t *keep;	      /* a byte per row: 1 = in the intersection */
	double done;
};

static inline size_t psi_blocks(size_t n)
{
	return (n + BLOCK - 1) / BLOCK;
}

static inline size_t psi_block_len(size_t n, size_t k)
{
	return MIN((size_t)BLOCK, n - k * BLOCK);
}

static inline const char *psi_block_tag(char buf[24], size_t k)
{
	(void)snprintf(buf, 24, "%zu", k);
	return buf;
}

/* Order of the tags alone. */
int psi_cmp_tag(const void *a, const void *b);
/* The next block of the table's ids in key order. */
int psi_next_block(struct psi *p, struct block *b, struct err *e) MUST_CHECK;
struct block *psi_block_new(void);
void psi_block_freep(struct block **b);
/* -EPROTO with the text for this party, a fixed sentence for the others. */
int psi_fail(struct psi *p, struct err *e, const char *what);

/* The first message of each pair: count, share of the salt, parameters. */
json_t *psi_hello(struct psi *p, const uint8_t own[PSI_SALT]);
int psi_read_hello(struct psi *p, const json_t *v, uint8_t salt[PSI_SALT],
		   uint32_t *count, struct err *e) MUST_CHECK;
/* Everybody's contribution and the job's secret make the salt. */
void psi_mix_salt(struct psi *p, const uint8_t *all, size_t n);

/* Points or tags (rsa not NULL) of all own rows, `at` = row; sorted, so that
 * their order tells nothing of the order of the ids. */
int psi_own_tags(struct psi *p, const struct psi_rsa *rsa, struct tag **ret,
		 double share, struct err *e) MUST_CHECK;
int psi_send_tags(struct psi *p, const char *role, size_t i, const char *name,
		  const struct tag *t, struct err *e) MUST_CHECK;
/* Block k: exactly n records of a width. */
int psi_recv_exact(struct psi *p, const char *role, size_t i, const char *name,
		   size_t k, size_t width, size_t n, uint8_t **ret,
		   struct err *e) MUST_CHECK;
/* A sorted list without repetitions; `at` = place in it. */
int psi_recv_tags(struct psi *p, const char *role, size_t i, const char *name,
		  uint32_t count, struct tag **ret, struct err *e) MUST_CHECK;

/* Each leaves in p->keep the rows of the intersection it knows of. */
int intersection_guest(struct psi *p, uint32_t *count,
		       struct err *e) MUST_CHECK;
int intersection_host(struct psi *p, uint32_t *count, struct err *e) MUST_CHECK;

#endif
