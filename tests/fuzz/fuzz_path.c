// SPDX-License-Identifier: Apache-2.0
/* The path of a file as a partner's header has it: percent-encoded.  A path
 * that is taken stays below the directory and encodes back to itself. */
#include "transfer/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void inside(const char *path)
{
	_cleanup_free_ char *p = xstrdup(path);
	char *save = NULL;

	if (*path == '/' || path[strlen(path) - 1] == '/' || strstr(path, "//"))
		abort();
	for (char *c = strtok_r(p, "/", &save); c;
	     c = strtok_r(NULL, "/", &save))
		if (!strcmp(c, ".") || !strcmp(c, "..") || strlen(c) > 255)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_free_ char *text = strndup((const char *)data, n);
	_cleanup_free_ char *path = text ? percent_decode(text) : NULL;
	_cleanup_free_ char *enc = NULL, *back = NULL;

	if (!path || !path_valid(path))
		return 0;
	inside(path);
	enc = percent_encode(path);
	back = percent_decode(enc);
	/* Only what is longer than any header may get lost. */
	if (strlen(path) < 20000 && (!back || strcmp(back, path) != 0))
		abort();
	return 0;
}

#ifdef REPLAY
#include "tests/fuzz/replay.h"
#endif
