/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of Intersection share.  docs/components/intersection.md has
 * the messages; components/crypto/psi.h the mathematics of one who asks and
 * one who answers.
 *
 * Sets travel in pieces, messages of at most psi_limits.bytes, each of which
 * is on its way while the next one is computed.  Lists stand in spools, so
 * that memory is bounded whatever the number of ids.
 */
#ifndef COMPONENTS_INTERSECTION_H
#define COMPONENTS_INTERSECTION_H

#include "components/component.h"
#include "components/crypto/psi.h"
#include "components/spool.h"
#include "lib/strbuf.h"

#define COUNT_MAX 100000000 /* ids of a party */

struct psi_limits {
	size_t bytes;  /* of a message */
	size_t window; /* pieces that an asker is ahead of the answers */
	size_t memory; /* of a spool */
};
extern const struct psi_limits psi_limits_default;

/* FATE's transfer variables of one direction. */
struct psi_names {
	const char *key, *ask, *answer, *list, *places;
};

#define PSI_RECORD   (PSI_TAG + sizeof(uint32_t)) /* tag, own row */
#define PSI_CACHE_ID 33 /* bytes of its text: 32 hex digits */

/* The list of an earlier run; list is NULL if there is none that fits. */
struct psi_cache {
	char id[PSI_CACHE_ID]; /* "" = none */
	uint8_t salt[PSI_SALT];
	struct spool *list;   /* host: tag, own row; guest: tag */
	struct psi_side *key; /* host */
	uint8_t digest[32];   /* host: of its ids */
};

/* What a party keeps while it runs. */
struct psi {
	struct ctx *c;
	struct table *t;
	const struct psi_limits *limits;
	uint32_t rows;
	unsigned cores;
	enum psi_method method;
	unsigned bits; /* of RSA or DH */
	bool sync, only_key, cardinality, sync_cardinality, cached, split;
	const char *param_salt;
	uint8_t salt[PSI_SALT];
	uint8_t *keep;	   /* a byte per row: how many hosts have it */
	uint32_t share[2]; /* own rows whose ids the guest, the hosts ask for */
};

/* The greeting of a peer. */
struct psi_greeting {
	uint8_t salt[PSI_SALT];
	uint32_t count;	   /* its rows */
	uint32_t share[2]; /* of which of each direction */
	char cache[PSI_CACHE_ID];
};

enum psi_share { ASKED_BY_GUEST, ASKED_BY_HOST };

/* Ids of the table in key order, those of a share. */
struct psi_reader {
	struct table_iter *it;
	uint32_t row;
	enum psi_share share;
};
struct psi_block {
	struct strbuf text;
	struct psi_ids ids;
	uint32_t *end, *row;
	size_t room;
};
void psi_reader_end(struct psi_reader *r);
struct psi_block *psi_block_new(size_t room);
void psi_block_free(struct psi_block *b);
void psi_block_freep(struct psi_block **b);
/* The next room ids, fewer at the end. */
int psi_read(struct psi *p, struct psi_reader *r, struct psi_block *b,
	     struct err *e) MUST_CHECK;
/* Counts p->share, by a pass over the ids when the work is split. */
int psi_count_shares(struct psi *p, struct err *e) MUST_CHECK;

const char *psi_method_name(const struct psi *p);
const struct psi_names *psi_names(const struct psi *p, enum psi_share share);
/* Records of a piece; pieces of n records; records of piece k. */
size_t psi_piece(const struct psi *p, size_t width);
size_t psi_pieces(const struct psi *p, size_t width, size_t n);
size_t psi_piece_len(const struct psi *p, size_t width, size_t n, size_t k);
struct spool *psi_spool(struct psi *p, size_t width, size_t key);

/* -EPROTO with the text for this party, a fixed sentence for the others. */
int psi_fail(struct psi *p, struct err *e, const char *what);

/* n bytes as 2 n hex digits and a 0; exactly those back. */
void psi_hex(const void *data, size_t n, char *out);
bool psi_unhex(const char *s, uint8_t *out, size_t n);

/* The first message of each pair: counts, share of the salt, parameters. */
json_t *psi_hello(struct psi *p, const uint8_t own[PSI_SALT],
		  const char *cache);
int psi_read_hello(struct psi *p, const json_t *v, struct psi_greeting *g,
		   struct err *e) MUST_CHECK;
/* Everybody's contribution and the job's secret make the salt. */
void psi_mix_salt(struct psi *p, const uint8_t *all, size_t n);

/* How many of the ids of each side who asks for. */
int psi_exchange_shares(struct psi *p, const char *role, struct psi_greeting *g,
			struct err *e) MUST_CHECK;

int psi_send_piece(struct psi *p, const char *role, size_t i, const char *name,
		   size_t k, const void *data, size_t width, size_t n,
		   struct err *e) MUST_CHECK;
/* Exactly n records of a width. */
int psi_recv_piece(struct psi *p, const char *role, size_t i, const char *name,
		   size_t k, size_t width, size_t n, uint8_t **ret,
		   struct err *e) MUST_CHECK;

/* ---- one who asks another party (intersection_ask.c) --------------------- */

struct psi_ask {
	struct psi *p;
	const char *role; /* of the answerer, and its index */
	size_t index;
	enum psi_share share;
	struct psi_side *side;
	bool borrowed;	       /* the side is another ask's */
	uint32_t count;	       /* of the answerer's list */
	uint8_t *secret;       /* of the pieces in the window */
	struct spool *tags;    /* tag, own row */
	struct spool *matches; /* own row, place in the answerer's list */
	uint64_t matched;
};

/* A set of answerers that are asked for the same ids at once. */
struct psi_asking {
	struct psi *p;
	struct psi_ask *ask;
	size_t n;
	struct psi_reader reader;
	struct psi_block **ring;
	size_t window, ahead, width, pieces;
};
/* The sides of all asks stand. */
void psi_asking_begin(struct psi_asking *a, struct psi *p, struct psi_ask *ask,
		      size_t n);
/* Piece k leaves, and the answers to piece k - window come in; k goes from 0
 * to psi_asking_steps() - 1. */
size_t psi_asking_steps(const struct psi_asking *a);
int psi_asking_step(struct psi_asking *a, size_t k, struct err *e) MUST_CHECK;
void psi_asking_end(struct psi_asking *a);
/* Takes the answerer's sorted list in, or one of an earlier run, and joins it
 * with the own tags: p->keep of each match grows by one. A copy of the list
 * goes to copy unless that is NULL. */
int psi_ask_join(struct psi_ask *a, struct spool *known, struct spool *copy,
		 struct err *e) MUST_CHECK;
/* Tells the answerer which places of its list match, of the rows that `need`
 * parties have. */
int psi_ask_tell(struct psi_ask *a, unsigned need, struct err *e) MUST_CHECK;
void psi_ask_end(struct psi_ask *a);

/* ---- one who answers (intersection_answer.c) ----------------------------- */

struct psi_reply {
	struct psi *p;
	const char *role; /* of the asker, and its index */
	size_t index;
	enum psi_share share;
	struct psi_side *side;
	uint32_t count;	     /* of the asker's ids */
	struct spool *list;  /* tag, own row; sorted */
	bool listed;	     /* the list is complete from the start */
	struct spool *mixed; /* cardinality: answers that lose their order */
	struct psi_reader reader;
	struct psi_block *block;
	uint32_t own; /* ids of the list */
};
/* With p, role, index, share and count set, and list and side of an earlier
 * run if there are such; else with a fresh key, whose public part is sent. */
int psi_reply_open(struct psi_reply *r, struct err *e) MUST_CHECK;
size_t psi_reply_steps(const struct psi_reply *r);
/* Answers piece k and puts a piece of the own ids into the list. */
int psi_reply_step(struct psi_reply *r, size_t k, struct err *e) MUST_CHECK;
/* What is sent when all is answered; `list` = the own list, too. */
int psi_reply_finish(struct psi_reply *r, bool list, struct err *e) MUST_CHECK;
/* Hears which places match: p->keep of those rows grows by one. */
int psi_reply_hear(struct psi_reply *r, uint32_t *count,
		   struct err *e) MUST_CHECK;
void psi_reply_end(struct psi_reply *r);

/* ---- lists of earlier runs (intersection_cache.c) ------------------------ */

#define PSI_KEPT_MAX 64 /* lists of a party */

/* Files that cannot be read or written are told of and are no failure. */

/* What this host kept for this guest, if it is of the same ids. */
int psi_cache_host(struct psi *p, struct psi_cache *c,
		   struct err *e) MUST_CHECK;
/* What this guest kept of host i, if it is what the host greets with. */
void psi_cache_guest(struct psi *p, size_t i, const struct psi_greeting *g,
		     struct psi_cache *c);
/* Replaces what was kept; the host with its key. A list's id follows from its
 * salt. */
void psi_cache_save_host(struct psi *p, struct psi_cache *c,
			 const struct psi_side *key, struct spool *list);
void psi_cache_save_guest(struct psi *p, size_t i, struct spool *list);
void psi_cache_end(struct psi_cache *c);

/* What a file has to be of (intersection_kept.c). */
struct psi_kept {
	uint32_t count;	    /* of the list */
	const uint8_t *ids; /* host: digest of its ids, else NULL */
	const char *id;	    /* guest: of the list, else NULL */
};
/* Both close f. c->list stays NULL unless the file is whole and fits. */
void psi_kept_read(struct psi *p, FILE *f, const struct psi_kept *want,
		   struct psi_cache *c);
/* c's id and salt, and with a key its digest; durable. */
int psi_kept_write(FILE *f, const struct psi_cache *c,
		   const struct psi_side *key, struct spool *list,
		   struct err *e) MUST_CHECK;

/* Each leaves in p->keep the rows of the intersection it knows of. */
int intersection_guest(struct psi *p, uint32_t *count,
		       struct err *e) MUST_CHECK;
int intersection_host(struct psi *p, uint32_t *count, struct err *e) MUST_CHECK;
/* The component's run with other limits, for tests. */
int intersection_run(struct ctx *c, const struct psi_limits *limits,
		     struct err *e) MUST_CHECK;

#endif
