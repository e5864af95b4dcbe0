// SPDX-License-Identifier: Apache-2.0
/* The text of a submission, as anybody may write it to jobs/new. */
#include "scheduler/sched_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct err e = { 0 };

	(void)sched_text_state((const char *)data, n, &e);
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
