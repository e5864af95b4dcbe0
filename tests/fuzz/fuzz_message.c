// SPDX-License-Identifier: Apache-2.0
/* The head of a message as a partner sends it.  What is taken must survive
 * being written and read again, under the same transfer id. */
#include "lib/json.h"

#include "transfer/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void session(const struct message_head *h)
{
	char job[41];

	if (session_job(h->key.f[KEY_SESSION], job, sizeof(job)) &&
	    !job_id_valid(job))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(HEAD_MAX + 4);
	struct message_head h, again;
	size_t used, used_again;
	struct err e = { 0 };
	int r = head_parse(data, n, &h, &used, &e);

	if (r == -EAGAIN)
		return 0;
	if (r) {
		if (!e.text[0])
			abort();
		return 0;
	}
	if (used > n || !hex64_valid(h.tid) || !hex64_valid(h.sha256))
		abort();
	session(&h);
	if (key_check(&h.key, NULL) || head_write(&sb, &h))
		abort();
	if (head_parse(sb.buf, sb.len, &again, &used_again, NULL) ||
	    used_again != sb.len || again.size != h.size ||
	    again.file != h.file || strcmp(again.tid, h.tid) != 0 ||
	    strcmp(again.sha256, h.sha256) != 0 ||
	    memcmp(&again.key, &h.key, sizeof(h.key)) != 0)
		abort();
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
