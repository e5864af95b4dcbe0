/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files and sockets.  The only place that handles short reads and writes,
 * EINTR and EAGAIN; files become visible by fsync and rename.
 */
#ifndef LIB_FILEIO_H
#define LIB_FILEIO_H

#include <sys/types.h>

#include "lib/err.h"
#include "lib/strbuf.h"

/* All n bytes or a negative errno (-EPIPE for end of file in read_all). */
int write_all(int fd, const void *data, size_t n) MUST_CHECK;
int read_all(int fd, void *data, size_t n) MUST_CHECK;
int pread_all(int fd, void *data, size_t n, uint64_t offset) MUST_CHECK;
int pwrite_all(int fd, const void *data, size_t n, uint64_t offset) MUST_CHECK;

/* Differs after each start of the machine, and is filled up with zeros; all
 * zero: not known. */
#define BOOT_ID_SIZE 40
void boot_id(char ret[BOOT_ID_SIZE]);

/* The whole file appended to ret (bounded by its maximum). */
int file_read(const char *path, struct strbuf *ret, struct err *e) MUST_CHECK;
/*
 * Replaces path atomically: temporary file ".PID.COUNT.tmp" beside it,
 * [fsync,] rename [, fsync of the directory].  durable=false survives a killed
 * process but not a power cut.
 */
int file_replace(const char *path, const void *data, size_t n, mode_t mode,
		 bool durable, struct err *e) MUST_CHECK;
/* As durable, but for the fsync of the directory, which the caller owes. */
int file_replace_unsynced(const char *path, const void *data, size_t n,
			  mode_t mode, struct err *e) MUST_CHECK;
/* What processes left in a directory that were killed in file_replace().  Not
 * while one may be at it. */
void file_replace_sweep(const char *dir);
int dir_sync(const char *path, struct err *e) MUST_CHECK;
/* The directory that holds path, so that its name is durable too. */
int parent_sync(const char *path, struct err *e) MUST_CHECK;
/* With all that are missing above it; durable: their names are on the disk. */
int mkdir_p(const char *path, mode_t mode, struct err *e) MUST_CHECK;
int mkdir_p_durable(const char *path, mode_t mode, struct err *e) MUST_CHECK;
/* Removes a tree; never follows symlinks; a missing path is no error. */
int remove_tree(const char *path, struct err *e);
/* Of a directory's plain files, removes those that were last written more than
 * `days` ago, and the oldest while there are more than `max`.  What cannot be
 * removed stays; a missing directory is empty. */
void dir_expire(const char *path, unsigned days, size_t max);
/* Takes a write lock (fcntl OFD) on the whole of fd; -EAGAIN when another
 * open file holds it.  Released by close, also by death. */
int lock_try(int fd) MUST_CHECK;
int lock_wait(int fd) MUST_CHECK;
/* Does any process hold such a lock on the file?  Takes nothing. */
bool lock_held(const char *path);

/* This process, and those that it starts, may open as many files as the hard
 * limit lets it, at most 65,536. */
void files_many(void);

/*
 * Frames on a Unix stream socket between our own processes:
 *   u32 length of head, u32 length of body, head (JSON text), body (bytes),
 * and at most one descriptor that rides with the first byte.
 */
#define FRAME_HEAD_MAX (1u << 20)
#define FRAME_BODY_MAX (1u << 20)
int frame_send(int fd, const char *head, size_t head_len, const void *body,
	       size_t body_len, int pass_fd) MUST_CHECK;
/* The same in one write that does not wait: -EAGAIN when it did not fit, of
 * which a part may have left. */
int frame_try(int fd, const char *head, size_t head_len, const void *body,
	      size_t body_len, int pass_fd) MUST_CHECK;
/* Up to n bytes that are there, and a descriptor (or *ret_fd is -1); 0 at the
 * end, -EAGAIN: nothing yet. */
ssize_t frame_some(int fd, void *data, size_t n, int *ret_fd) MUST_CHECK;
/* Blocking receive of one frame; *ret_fd is -1 without a descriptor.
 * -EPIPE: the other side has gone.  head and body are reset first. */
int frame_recv(int fd, struct strbuf *head, struct strbuf *body,
	       int *ret_fd) MUST_CHECK;
/* The same from a side that sends nothing more before it has heard from us. */
int frame_answer(int fd, struct strbuf *head, struct strbuf *body,
		 int *ret_fd) MUST_CHECK;

#endif
