/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LIB_FNV_H
#define LIB_FNV_H

#include <stddef.h>
#include <stdint.h>

/* FNV-1a, 32 bits (Fowler, Noll, Vo): tells of damage (of one changed byte for
 * certain), not of malice. */
uint32_t fnv1a(const void *data, size_t n);

#endif
