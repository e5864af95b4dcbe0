// SPDX-License-Identifier: Apache-2.0
/* A request of a partner before anybody has looked at its sender: the first
 * line is method and target ('r' before it: it came through others), what
 * follows a batch of messages. */
#include "transfer/transfer_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool within(const char *p, const char *target, size_t n)
{
	return p >= target && p <= target + n && strlen(p) <= n;
}

static void route(char *line)
{
	bool relayed = *line == 'r';
	char *method = line + relayed, *target = strchr(method, ' ');
	struct request_route x;
	size_t n;

	if (!target)
		return;
	*target++ = '\0';
	n = strlen(target);
	if (!request_route(method, target, relayed, &x))
		return;
	if (x.query && !within(x.query, target, n))
		abort();
	switch (x.kind) {
	case REQUEST_HELLO:
	case REQUEST_MESSAGES:
		break;
	case REQUEST_REVERSE:
		if (relayed)
			abort();
		break;
	case REQUEST_RPC:
		if (!within(x.tail, target, n) || !*x.tail ||
		    strpbrk(x.tail, "/.%?"))
			abort();
		break;
	case REQUEST_CARD:
	case REQUEST_RELAY:
		if (relayed || !within(x.tail, target, n) ||
		    !party_id_valid(x.tail))
			abort();
		break;
	case REQUEST_ANNOUNCE:
	case REQUEST_STATE:
	case REQUEST_ABORT:
	case REQUEST_CHUNK:
	case REQUEST_COMMIT:
		if (!within(x.tail, target, n) || !hex64_valid(x.tail))
			abort();
		break;
	}
	if ((x.kind == REQUEST_CHUNK) != !!x.index ||
	    (x.index && (!within(x.index, target, n) || !*x.index ||
			 x.index[strspn(x.index, "0123456789")])))
		abort();
}

static void digest_header(const char *line)
{
	uint8_t digest[32];
	char text[64];

	if (content_digest_parse(line, digest))
		return;
	content_digest(digest, text);
	if (content_digest_parse(text, digest))
		abort();
}

static void batch(const char *at, size_t n)
{
	while (n) {
		struct message_head h;
		size_t used = 0;

		if (batch_next(at, n, &h, &used))
			return;
		if (!used || used > n || h.size > n - used || h.file ||
		    h.size > JOURNAL_MESSAGE_MAX || !hex64_valid(h.tid) ||
		    key_check(&h.key, NULL))
			abort();
		at += used + h.size;
		n -= used + h.size;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	const uint8_t *end = n ? memchr(data, '\n', n) : NULL;
	size_t first = end ? (size_t)(end - data) : n;
	_cleanup_free_ char *line = xmalloc(first + 1);

	memcpy(line, data, first);
	line[first] = '\0';
	digest_header(line);
	route(line);
	if (end)
		batch((const char *)end + 1, n - first - 1);
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
