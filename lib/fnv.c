// SPDX-License-Identifier: Apache-2.0
#include "lib/fnv.h"

uint32_t fnv1a(const void *data, size_t n)
{
	const unsigned char *p = data;
	uint32_t h = 2166136261u;

	while (n--)
		h = (h ^ *p++) * 16777619u;
	return h;
}
