// SPDX-License-Identifier: Apache-2.0
/* Journals after any crash: what is kept of messages is whole; receipts and the
 * records of chunks.  And keys as JSON: what is accepted has one canonical
 * text. */
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
	unsigned *records = arg;

	++*records;
	if (!tid || (h && (strcmp(h->tid, tid) || h->file != !data)))
		abort();
}

static void journal(const uint8_t *data, size_t n)
{
	_cleanup_close_ int fd = memfd_create("journal", MFD_CLOEXEC);
	_cleanup_free_ char *name = xasprintf("/proc/self/fd/%d", fd);
	unsigned records = 0, again = 0;
	struct journal *j;
	uint64_t len;

	if (fd < 0 || write_all(fd, data, n))
		abort();
	if (journal_open(name, on_record, &records, &j, NULL))
		abort();
	len = journal_len(j);
	journal_unref(j);
	/* What was kept is whole. */
	if (len > n || journal_open(name, on_record, &again, &j, NULL) ||
	    journal_len(j) != len || records != again)
		abort();
	journal_unref(j);
}

/* A receipt as a line of the file that keeps them: what is taken survives
 * being written and read again. */
static void receipt(const uint8_t *data, size_t n)
{
	_cleanup_free_ char *line = xmalloc(n + 1), *text = NULL;
	struct receipt_rec *a, *b;

	memcpy(line, data, n);
	line[n] = '\0';
	a = receipt_of_line("7", line);
	if (!a)
		return;
	text = receipt_line(a);
	b = receipt_of_line("7", text);
	if (!b || strcmp(a->path, b->path) != 0 ||
	    strcmp(a->tid, b->tid) != 0 || a->generation != b->generation ||
	    !path_valid(a->path) || !hex64_valid(a->tid))
		abort();
	receipt_rec_free(a);
	receipt_rec_free(b);
}

/* Which chunks are there: the first 64 bytes are the transfer's id. */
static void have(const uint8_t *data, size_t n)
{
	uint8_t digest[32];
	uint64_t index;
	char tid[65];
	bool is;

	if (n < 64 + HAVE_RECORD)
		return;
	memcpy(tid, data, 64);
	tid[64] = '\0';
	for (size_t at = 64; n - at >= HAVE_RECORD; at += HAVE_RECORD)
		if (have_parse(tid, data + at, &index, &is, digest) &&
		    index >= CHUNKS_MAX)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	key(data, n);
	journal(data, n);
	receipt(data, n);
	have(data, n);
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
