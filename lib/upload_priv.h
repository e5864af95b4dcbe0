/* SPDX-License-Identifier: Apache-2.0 */
/* Private to uploads: what upload.json says (docs/tables.md). */
#ifndef LIB_UPLOAD_PRIV_H
#define LIB_UPLOAD_PRIV_H

#include "lib/table.h"

struct upload_options {
	bool head;	      /* the first line names the columns */
	char delimiter, rest; /* behind the first field, behind others */
	bool named;	      /* what they are was said, and is not a default */
	unsigned partitions;
	bool extend_sid; /* ids are made here, the line is all value */
	bool counted;	 /* they are the numbers of the rows */
	bool value;	 /* rows of any length: one text column */
	json_t *meta;	 /* for the schema; NULL = none */
};

/* Defaults for NULL.  On failure there is nothing to free. */
int upload_options_read(const json_t *o, struct upload_options *ret,
			struct err *e) MUST_CHECK;
void upload_options_free(struct upload_options *o);

#endif
