/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: functions return 0 or a negative errno and describe it in a struct
 * err.  The text is one sentence for a person; on the way up each level that
 * knows more puts its context in front ("hetero_lr_0: input train_data: ...").
 * A NULL struct err is allowed everywhere.
 */
#ifndef LIB_ERR_H
#define LIB_ERR_H

#include "lib/base.h"

struct err {
	int no; /* positive errno, 0 = no error */
	char text[1200];
};

/* Sets number and sentence; returns -no, so "return err_set(...)". */
int err_set(struct err *e, int no, const char *fmt, ...) PRINTF(3, 4);
/* As err_set, with ": <strerror(no)>" appended. */
int err_sys(struct err *e, int no, const char *fmt, ...) PRINTF(3, 4);
/* Puts "<context>: " in front; returns -no of the error that was there. */
int err_wrap(struct err *e, const char *fmt, ...) PRINTF(2, 3);

#endif
