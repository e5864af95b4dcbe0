/* SPDX-License-Identifier: Apache-2.0 */
/* Which build this is, as git describes it. */
#ifndef LIB_VERSION_H
#define LIB_VERSION_H

const char *rollfs_version(void);

#endif
