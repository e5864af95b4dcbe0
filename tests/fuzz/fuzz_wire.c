// SPDX-License-Identifier: Apache-2.0
/* Messages between tasks: first byte = what the receiver expects, the rest is
 * the message.  What is taken must pack to the same bytes again. */
#include "components/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void numbers(const uint8_t *msg, size_t n, size_t want)
{
	double v[16];

	if (wire_get_f64(msg, n, v, want, NULL) == 0 && want) {
		_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(4096);

		if (wire_pack(&sb, WIRE_F64, v, 8, want) || sb.len != n ||
		    memcmp(sb.buf, msg, n) != 0)
			abort();
	}
}

static void items(const uint8_t *msg, size_t n, enum wire_type type,
		  size_t width, size_t max)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(1 << 20);
	struct err e = { 0 };
	const uint8_t *p;
	size_t count;
	int r = wire_open(msg, n, type, width, max, &p, &count, &e);

	if (r) {
		if (r != -EPROTO || !*e.text)
			abort();
		return;
	}
	if (count > max || p + width * count != msg + n)
		abort();
	for (size_t i = 0; type == WIRE_U32 && width == 4 && i < count; i++)
		(void)wire_u32(p + 4 * i);
	if (type != WIRE_F64 && type != WIRE_U32 &&
	    (wire_pack(&sb, type, p, width, count) || sb.len != n ||
	     memcmp(sb.buf, msg, n) != 0))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const size_t widths[] = { 0, 1, 4, 8, 32, 512 };

	if (n == 0)
		return 0;
	numbers(data + 1, n - 1, data[0] % 16);
	for (unsigned type = WIRE_BYTES; type <= WIRE_FIXED; type++)
		for (size_t w = 0; w < ARRAY_SIZE(widths); w++)
			items(data + 1, n - 1, (enum wire_type)type, widths[w],
			      data[0]);
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
