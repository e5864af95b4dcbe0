// SPDX-License-Identifier: Apache-2.0
/* What a stranger answers to the doctor. */
#include "transfer/probe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(64u << 10);
	struct err e = { 0 };
	unsigned code = 0;

	if (sb_add(&sb, data, n))
		return 0;
	if (probe_answer(&sb, &code, &e)) {
		if (!e.text[0] || sb.len != n)
			abort();
	} else if (code > 999 || sb.len >= n || sb.buf[sb.len]) {
		abort();
	}
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
