// SPDX-License-Identifier: Apache-2.0
/* Frames on rollsite's socket: any bytes end in frames or an error, never in a
 * wait for more than was announced. */
#include <sys/socket.h>

#include "lib/fileio.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_strbuf_ struct strbuf head = STRBUF_INIT(FRAME_HEAD_MAX);
	_cleanup_strbuf_ struct strbuf body = STRBUF_INIT(FRAME_BODY_MAX);
	size_t taken = 0;
	int s[2], fd;

	/* What a socket takes without a reader. */
	if (n > 65536 || socketpair(AF_UNIX, SOCK_STREAM, 0, s))
		return 0;
	if (write_all(s[0], data, n))
		abort();
	close(s[0]);
	while (!frame_recv(s[1], &head, &body, &fd)) {
		if (fd >= 0 || head.buf[head.len] || body.buf[body.len])
			abort();
		taken += 8 + head.len + body.len;
	}
	if (taken > n)
		abort();
	close(s[1]);
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
