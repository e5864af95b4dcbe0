// SPDX-License-Identifier: Apache-2.0
#include "components/wire.h"

#include <endian.h>
#include <math.h>

#define WIRE_MAGIC 0x31564652u /* "RFV1" */

uint32_t wire_u32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static uint64_t wire_u64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

int wire_head(struct strbuf *sb, enum wire_type type, size_t width, size_t n)
{
	if (width == 0 || width > UINT32_MAX || n > SIZE_MAX / width)
		return -EINVAL;
	sb_add_u32(sb, WIRE_MAGIC);
	sb_add_u32(sb, type);
	sb_add_u32(sb, (uint32_t)width);
	return sb_add_u64(sb, n);
}

int wire_items(struct strbuf *sb, enum wire_type type, const void *data,
	       size_t width, size_t n)
{
	if (type == WIRE_F64) {
		const double *v = data;

		for (size_t i = 0; i < n; i++)
			sb_add_f64(sb, v[i]);
	} else if (type == WIRE_U32) {
		const uint32_t *v = data;

		for (size_t i = 0; i < n; i++)
			sb_add_u32(sb, v[i]);
	} else if (n) {
		sb_add(sb, data, width * n);
	}
	return sb->error;
}

int wire_pack(struct strbuf *sb, enum wire_type type, const void *data,
	      size_t width, size_t n)
{
	int r = wire_head(sb, type, width, n);

	return r ? r : wire_items(sb, type, data, width, n);
}

int wire_open(const void *msg, size_t len, enum wire_type type, size_t width,
	      size_t max, const uint8_t **ret, size_t *ret_n, struct err *e)
{
	const uint8_t *p = msg;
	uint64_t n;

	if (len < WIRE_HEAD || wire_u32(p) != WIRE_MAGIC)
		return err_set(e, EPROTO, "a message without a valid header");
	if (wire_u32(p + 4) != (uint32_t)type)
		return err_set(e, EPROTO, "a message of type %u, expected %u",
			       wire_u32(p + 4), (unsigned)type);
	if (width == 0 || wire_u32(p + 8) != width)
		return err_set(e, EPROTO, "items of %u bytes, expected %zu",
			       wire_u32(p + 8), width);
	n = wire_u64(p + 12);
	if (n > max)
		return err_set(e, EPROTO, "more than %zu items", max);
	if ((len - WIRE_HEAD) % width || (len - WIRE_HEAD) / width != n)
		return err_set(e, EPROTO, "count and length disagree");
	*ret = p + WIRE_HEAD;
	*ret_n = (size_t)n;
	return 0;
}

int wire_get_f64(const void *msg, size_t len, double *v, size_t n,
		 struct err *e)
{
	const uint8_t *p;
	size_t got;
	int r;

	r = wire_open(msg, len, WIRE_F64, 8, n, &p, &got, e);
	if (r < 0)
		return r;
	if (got != n)
		return err_set(e, EPROTO, "%zu numbers, expected %zu", got, n);
	for (size_t i = 0; i < n; i++) {
		uint64_t u = wire_u64(p + 8 * i);

		memcpy(&v[i], &u, sizeof(u));
		if (!isfinite(v[i]))
			return err_set(e, EPROTO, "a number is not finite");
	}
	return 0;
}
