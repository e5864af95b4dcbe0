// SPDX-License-Identifier: Apache-2.0
/* The journal of messages after any crash: what it kept is whole.  And keys as
 * JSON: what is accepted has one canonical text. */
#include <sys/mman.h>

#include "lib/json.h"

#include "transfer/transfer_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void key(const uint8_t *data, size_t n)
{
	json_t *a = json_parse((const char *)data, n, NULL);
	struct key k;

	if (a && !key_from_json(a, &k, NULL)) {
		_cleanup_free_ char *text = key_text(&k);
		json_t *b = json_parse(text, strlen(text), NULL);

		if (!b || !json_equal(a, b))
			abort();
		json_decref(b);
	}
	json_decref(a);
}

static void on_record(void *arg, const struct message_head *h, const char *tid,
		      const char *data)
{
	(void)arg;
	if (!tid || (h && (strcmp(h->tid, tid) || !data)))
		abort();
}

static void journal(const uint8_t *data, size_t n)
{
	_cleanup_close_ int fd = memfd_create("journal", MFD_CLOEXEC);
	_cleanup_free_ char *name = xasprintf("/proc/self/fd/%d", fd);
	struct journal j;
	uint64_t len;

	if (fd < 0 || write_all(fd, data, n))
		abort();
	if (journal_open(&j, name, on_record, NULL, NULL))
		return;
	len = j.len;
	journal_close(&j);
	/* What was kept is whole. */
	if (journal_open(&j, name, on_record, NULL, NULL) || j.len != len)
		abort();
	journal_close(&j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	key(data, n);
	journal(data, n);
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
