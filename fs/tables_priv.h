/* SPDX-License-Identifier: Apache-2.0 */
/* What tables.c (names, derived files) and tables_data.c (data.csv of a
 * generation) share. */
#ifndef FS_TABLES_PRIV_H
#define FS_TABLES_PRIV_H

#include "fs/fs.h"

#define DATA_MODE (S_IFREG | 0664)

void table_data_attr(struct table *t, struct attr *ret);
/* part: 1 + number of the part, 0 = whole table. */
int table_data_open(const struct who *w, struct nid n, int flags,
		    struct table *t, unsigned part, struct handle **ret);
/* The process was told ESTALE: its next lookup is a writer's. */
void table_intent_add(pid_t pid);
bool table_intent_of(pid_t pid, bool drop);

#endif
