// SPDX-License-Identifier: Apache-2.0
/* The bytes of real.c's files: from one place to another, and to rollsite. */
#include <fcntl.h>
#include <sys/stat.h>

#include "fs/real_priv.h"

/* In the kernel, by sharing the bytes where the disk can. */
static int copy_bytes(int in, int out)
{
	_cleanup_free_ char *buf = NULL;
	off_t at = 0, to = 0;
	ssize_t k;

	while ((k = copy_file_range(in, &at, out, &to, 1u << 30, 0)) > 0)
		;
	if (!k)
		return 0;
	if (errno != EXDEV && errno != EINVAL && errno != ENOSYS &&
	    errno != EOPNOTSUPP)
		return -errno;
	buf = malloc(256u << 10);
	if (!buf)
		return -ENOMEM;
	while ((k = pread(in, buf, 256u << 10, at)) > 0) {
		int no = pwrite_all(out, buf, (size_t)k, (uint64_t)at);

		if (no)
			return no;
		at += k;
	}
	return k < 0 ? -errno : 0;
}

int real_copy(int in, const char *to)
{
	_cleanup_close_ int out = -1;
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT } };
	struct stat st;
	int no;

	out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (out < 0)
		return -errno;
	no = copy_bytes(in, out);
	if (!no && fstat(in, &st))
		no = -errno;
	if (!no) {
		times[1] = st.st_mtim;
		(void)futimens(out, times);
		real_user_copy(in, out);
		no = fsync(out) ? -errno : 0;
	}
	if (no)
		(void)unlink(to);
	return no;
}

int real_copy_path(const char *from, const char *to)
{
	_cleanup_close_ int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	return in < 0 ? -errno : real_copy(in, to);
}

int real_hand_over(uid_t uid, struct real_at at, const char *spool)
{
	_cleanup_free_ char *party = real_party(at);
	struct err e = { 0 };
	int no = party
		     ? transfer_file_put(fs.transfer, party, at.path, spool, &e)
		     : -ENOMEM;

	if (no) {
		char what[512];

		(void)snprintf(what, sizeof(what), "federation/%s/%s",
			       party ? party : "", at.path);
		errors_add(uid, what, no, e.text);
	}
	return no;
}
