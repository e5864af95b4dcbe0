/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main() for a fuzz target that is built without libFuzzer: gives it every
 * file of the command line once, so that `make check` replays the corpus and
 * every crash that was ever found.  Included at the end of a target, under
 * #ifdef REPLAY.
 */
#ifndef TESTS_FUZZ_REPLAY_H
#define TESTS_FUZZ_REPLAY_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int main(int argc, char **argv)
{
	int i;

	printf("1..%d\n", argc - 1);
	for (i = 1; i < argc; i++) {
		uint8_t *data = NULL;
		size_t n = 0, room = 0, got;
		FILE *f = fopen(argv[i], "rb");

		if (f == NULL) {
			perror(argv[i]);
			return 1;
		}
		do {
			if (n == room) {
				uint8_t *more;

				room = room != 0 ? room * 2 : 65536;
				more = realloc(data, room);
				if (more == NULL)
					abort();
				data = more;
			}
			got = fread(data + n, 1, room - n, f);
			n += got;
		} while (got > 0);
		(void)fclose(f);
		/* Exactly as long as the input: overreads are seen. */
		data = realloc(data, n != 0 ? n : 1);
		if (data == NULL)
			abort();
		(void)LLVMFuzzerTestOneInput(data, n);
		free(data);
		printf("ok %d %s\n", i, argv[i]);
		(void)fflush(stdout);
	}
	return 0;
}

#endif
