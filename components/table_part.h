/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A part of a table between parties, as pure functions over bytes.  Little
 * endian:
 *
 *   u32 magic, u32 length of the head, the head (JSON):
 *     {"part", "parts", "schema" (of part 0) or "schema_sha256"}
 *   for each row, in byte order of the keys: u32 length of the key, u32 length
 *     of the cells, key, cells (8 bytes of a number; u32 length and UTF-8 of a
 *     string)
 *   u32 0, u32 8, u64 number of rows; nothing follows
 *
 * What a party keeps to itself does not cross: a schema has neither lineage
 * nor what components put beside it.
 */
#ifndef COMPONENTS_TABLE_PART_H
#define COMPONENTS_TABLE_PART_H

#include <jansson.h>

#include "lib/err.h"
#include "lib/strbuf.h"
#include "lib/table.h"

#define TABLE_PARTS_MAX	     4096u
#define TABLE_PART_HEAD_MAX  (15u << 20)
#define TABLE_PART_CELLS_MAX (2u * TABLE_ROW_MAX + (1u << 18)) /* as stored */
#define TABLE_PART_NAME_MAX  1024

struct table_part {
	unsigned part, parts;
	json_t *schema; /* of part 0, otherwise NULL; owned */
	char schema_sha256[65];
};
void table_part_free(struct table_part *p);
json_t *table_part_schema_json(const struct table_schema *s);
/* Every member checked; names are unique. NULL with e. */
struct table_schema *table_part_schema(const json_t *o, struct err *e);
/* Digest of its canonical text. */
void table_part_schema_digest(const json_t *schema, char ret[65]);

int table_part_head_write(struct strbuf *sb, unsigned part, unsigned parts,
			  const json_t *schema) MUST_CHECK;
int table_part_row_write(struct strbuf *sb, const struct table_schema *s,
			 const char *key, size_t key_len,
			 const struct cell *cells) MUST_CHECK;
int table_part_end_write(struct strbuf *sb, uint64_t rows) MUST_CHECK;

/* The beginning of data: 0 and how much of it was used, -EAGAIN when more is
 * needed, -EPROTO. */
int table_part_head(const void *data, size_t n, struct table_part *ret,
		    size_t *ret_used, struct err *e) MUST_CHECK;
struct table_part_row {
	const char *key; /* points into data, as the cells' strings do */
	size_t key_len;
	struct cell *cells; /* the caller's, one for each column */
	uint64_t rows;	    /* at the end */
};
/* 1 a row, 0 the end, or as above. */
int table_part_row(const struct table_schema *s, const void *data, size_t n,
		   struct table_part_row *ret, size_t *ret_used,
		   struct err *e) MUST_CHECK;

#endif
