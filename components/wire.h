/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Typed values of a message between tasks.  Little endian: u32 magic, u32
 * type, u32 width of an item in bytes, u64 count, then exactly width * count
 * bytes.  Anything else is -EPROTO.
 */
#ifndef COMPONENTS_WIRE_H
#define COMPONENTS_WIRE_H

#include "lib/err.h"
#include "lib/strbuf.h"

enum wire_type {
	WIRE_BYTES = 1,
	WIRE_JSON,
	WIRE_F64,
	WIRE_U32,
	WIRE_FIXED,
};

#define WIRE_HEAD 20

/* Appends header and n items of width bytes; data is in host order. */
int wire_pack(struct strbuf *sb, enum wire_type type, const void *data,
	      size_t width, size_t n) MUST_CHECK;
/* The same in steps, for what is sent while it is packed. */
int wire_head(struct strbuf *sb, enum wire_type type, size_t width,
	      size_t n) MUST_CHECK;
int wire_items(struct strbuf *sb, enum wire_type type, const void *data,
	       size_t width, size_t n) MUST_CHECK;
/* The items of a message (*ret points into msg, maybe unaligned). */
int wire_open(const void *msg, size_t len, enum wire_type type, size_t width,
	      size_t max, const uint8_t **ret, size_t *ret_n,
	      struct err *e) MUST_CHECK;
/* Exactly n finite numbers, else -EPROTO. */
int wire_get_f64(const void *msg, size_t len, double *v, size_t n,
		 struct err *e) MUST_CHECK;
/* Item k of what wire_open() gave for WIRE_U32. */
uint32_t wire_u32(const uint8_t *p);

#endif
