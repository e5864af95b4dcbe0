// SPDX-License-Identifier: Apache-2.0
#include "lib/fileio.h"

#include <endian.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

static int wait_ready(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, -1) < 0 && errno != EINTR ? -errno : 0;
}

void files_many(void)
{
	struct rlimit l;
	rlim_t want = 65536;

	if (getrlimit(RLIMIT_NOFILE, &l))
		return;
	want = MIN(want, l.rlim_max);
	if (l.rlim_cur >= want)
		return;
	l.rlim_cur = want;
	(void)setrlimit(RLIMIT_NOFILE, &l);
}

void boot_id(char ret[BOOT_ID_SIZE])
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(64);

	memset(ret, 0, BOOT_ID_SIZE);
	if (!file_read("/proc/sys/kernel/random/boot_id", &sb, NULL))
		memcpy(ret, sb.buf,
		       MIN(strcspn(sb.buf, "\n"), BOOT_ID_SIZE - 1u));
}

int write_all(int fd, const void *data, size_t n)
{
	const char *p = data;

	while (n) {
		ssize_t w = write(fd, p, n);

		if (w < 0 && errno == EAGAIN) {
			int r = wait_ready(fd, POLLOUT);

			if (r)
				return r;
		} else if (w < 0 && errno != EINTR) {
			return -errno;
		} else if (w > 0) {
			p += w;
			n -= (size_t)w;
		}
	}
	return 0;
}

int read_all(int fd, void *data, size_t n)
{
	char *p = data;

	while (n) {
		ssize_t r = read(fd, p, n);

		if (!r)
			return -EPIPE;
		if (r < 0 && errno == EAGAIN) {
			int w = wait_ready(fd, POLLIN);

			if (w)
				return w;
		} else if (r < 0 && errno != EINTR) {
			return -errno;
		} else if (r > 0) {
			p += r;
			n -= (size_t)r;
		}
	}
	return 0;
}

int pread_all(int fd, void *data, size_t n, uint64_t offset)
{
	char *p = data;

	while (n) {
		ssize_t r = pread(fd, p, n, (off_t)offset);

		if (!r)
			return -EPIPE;
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r > 0) {
			p += r;
			n -= (size_t)r;
			offset += (uint64_t)r;
		}
	}
	return 0;
}

int pwrite_all(int fd, const void *data, size_t n, uint64_t offset)
{
	const char *p = data;

	while (n) {
		ssize_t w = pwrite(fd, p, n, (off_t)offset);

		if (w < 0 && errno != EINTR)
			return -errno;
		if (w > 0) {
			p += w;
			n -= (size_t)w;
			offset += (uint64_t)w;
		}
	}
	return 0;
}

int file_read(const char *path, struct strbuf *ret, struct err *e)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	char piece[16384];
	ssize_t r;

	if (fd < 0)
		return err_sys(e, errno, "%s", path);
	while ((r = read(fd, piece, sizeof(piece)))) {
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return err_sys(e, errno, "%s", path);
		if (sb_add(ret, piece, (size_t)r))
			return err_set(e, EFBIG, "%s: larger than %zu bytes",
				       path, ret->max);
	}
	return 0;
}

int dir_sync(const char *path, struct err *e)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd))
		return err_sys(e, errno, "%s", path);
	return 0;
}

int parent_sync(const char *path, struct err *e)
{
	const char *slash = strrchr(path, '/');
	_cleanup_free_ char *dir = NULL;

	if (!slash)
		return dir_sync(".", e);
	dir = strndup(path, slash == path ? 1 : (size_t)(slash - path));
	if (!dir)
		return err_sys(e, ENOMEM, "%s", path);
	return dir_sync(dir, e);
}

static int replace(const char *path, const void *data, size_t n, mode_t mode,
		   bool durable, struct err *e)
{
	static unsigned counter;
	const char *slash = strrchr(path, '/');
	_cleanup_free_ char *tmp = NULL;
	_cleanup_close_ int fd = -1;
	int r;

	if (asprintf(&tmp, "%.*s.%d.%u.tmp",
		     slash ? (int)(slash + 1 - path) : 0, path, (int)getpid(),
		     __atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED)) < 0) {
		tmp = NULL;
		return err_sys(e, ENOMEM, "%s", path);
	}
	/* One is there when a process with our number died: after a restart of
	 * a container, say. */
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
		  mode);
	if (fd < 0)
		return err_sys(e, errno, "%s", tmp);
	r = write_all(fd, data, n);
	if (!r && durable && fsync(fd))
		r = -errno;
	if (!r && rename(tmp, path))
		r = -errno;
	if (r) {
		(void)unlink(tmp);
		return err_sys(e, -r, "%s", path);
	}
	return 0;
}

int file_replace(const char *path, const void *data, size_t n, mode_t mode,
		 bool durable, struct err *e)
{
	int r = replace(path, data, n, mode, durable, e);

	return !r && durable ? parent_sync(path, e) : r;
}

int file_replace_unsynced(const char *path, const void *data, size_t n,
			  mode_t mode, struct err *e)
{
	return replace(path, data, n, mode, true, e);
}

/* ".PID.COUNT.tmp" */
static bool is_temporary(const char *name)
{
	for (int i = 0; i < 2; i++) {
		size_t n = *name == '.' ? strspn(name + 1, "0123456789") : 0;

		if (!n)
			return false;
		name += 1 + n;
	}
	return !strcmp(name, ".tmp");
}

void file_replace_sweep(const char *dir)
{
	_cleanup_closedir_ DIR *d = opendir(dir);
	const struct dirent *de;

	while (d && (de = readdir(d)))
		if (is_temporary(de->d_name))
			(void)unlinkat(dirfd(d), de->d_name, 0);
}

static int make_one(const char *path, mode_t mode, bool durable, struct err *e)
{
	if (!mkdir(path, mode))
		return durable ? parent_sync(path, e) : 0;
	return errno == EEXIST ? 0 : err_sys(e, errno, "%s", path);
}

static int make_all(const char *path, mode_t mode, bool durable, struct err *e)
{
	_cleanup_free_ char *p = strdup(path);
	int r = 0;

	if (!p)
		return err_sys(e, ENOMEM, "%s", path);
	for (char *s = p + 1; *s && !r; s++) {
		if (*s != '/')
			continue;
		*s = '\0';
		r = make_one(p, mode, durable, e);
		*s = '/';
	}
	return r ? r : make_one(p, mode, durable, e);
}

int mkdir_p(const char *path, mode_t mode, struct err *e)
{
	return make_all(path, mode, false, e);
}

int mkdir_p_durable(const char *path, mode_t mode, struct err *e)
{
	return make_all(path, mode, true, e);
}

/* Depth is bounded by the trees this project makes. */
static int remove_at(int dir, const char *name, int depth)
{
	_cleanup_closedir_ DIR *d = NULL;
	struct dirent *de;
	int fd;

	if (!unlinkat(dir, name, 0) || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	if (depth > 200)
		return -ELOOP;
	fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	d = fdopendir(fd);
	if (!d) {
		close(fd);
		return -ENOMEM;
	}
	while ((de = readdir(d))) {
		int r;

		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		r = remove_at(dirfd(d), de->d_name, depth + 1);
		if (r)
			return r;
	}
	if (unlinkat(dir, name, AT_REMOVEDIR) && errno != ENOENT)
		return -errno;
	return 0;
}

int remove_tree(const char *path, struct err *e)
{
	int r = remove_at(AT_FDCWD, path, 0);

	return r ? err_sys(e, -r, "%s", path) : 0;
}

/* One pass: what is too old goes; the others are counted, and the oldest of
 * them is removed when they are too many. Whether to look again. */
static bool expire_pass(int dir, time_t before, size_t max)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct timespec oldest = { 0 };
	char name[NAME_MAX + 1] = "";
	struct dirent *de;
	struct stat st;
	size_t n = 0;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	while ((de = readdir(d))) {
		if (fstatat(dir, de->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
		    !S_ISREG(st.st_mode))
			continue;
		if (st.st_mtim.tv_sec < before && !unlinkat(dir, de->d_name, 0))
			continue;
		n++;
		if (*name && (st.st_mtim.tv_sec != oldest.tv_sec
				  ? st.st_mtim.tv_sec > oldest.tv_sec
				  : st.st_mtim.tv_nsec > oldest.tv_nsec))
			continue;
		oldest = st.st_mtim;
		(void)snprintf(name, sizeof(name), "%s", de->d_name);
	}
	return n > max && !unlinkat(dir, name, 0) && n - 1 > max;
}

void dir_expire(const char *path, unsigned days, size_t max)
{
	_cleanup_close_ int dir =
	    open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	time_t before = time(NULL) - (time_t)days * 86400;

	while (dir >= 0 && expire_pass(dir, before, max))
		;
}

int lock_try(int fd)
{
	struct flock lk = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (!fcntl(fd, F_OFD_SETLK, &lk))
		return 0;
	return errno == EACCES ? -EAGAIN : -errno;
}

int lock_wait(int fd)
{
	struct flock lk = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	while (fcntl(fd, F_OFD_SETLKW, &lk))
		if (errno != EINTR)
			return -errno;
	return 0;
}

bool lock_held(const char *path)
{
	struct flock lk = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	_cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC);

	return fd >= 0 && !fcntl(fd, F_OFD_GETLK, &lk) && lk.l_type != F_UNLCK;
}

/* Drops what has left; false: that was all. */
static bool advance(struct msghdr *msg, size_t n)
{
	while (msg->msg_iovlen && n >= msg->msg_iov->iov_len) {
		n -= msg->msg_iov->iov_len;
		msg->msg_iov++;
		msg->msg_iovlen--;
	}
	if (!msg->msg_iovlen)
		return false;
	msg->msg_iov->iov_base = (char *)msg->msg_iov->iov_base + n;
	msg->msg_iov->iov_len -= n;
	return true;
}

static int frame_out(int fd, const char *head, size_t head_len,
		     const void *body, size_t body_len, int pass_fd, int flags)
{
	uint32_t len[2] = { htole32((uint32_t)head_len),
			    htole32((uint32_t)body_len) };
	struct iovec iov[] = { { len, sizeof(len) },
			       { (void *)head, head_len },
			       { (void *)body, body_len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 3 };
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { { 0 } };

	if (head_len > FRAME_HEAD_MAX || body_len > FRAME_BODY_MAX)
		return -EMSGSIZE;
	if (pass_fd >= 0) {
		struct cmsghdr *c;

		msg.msg_control = control.space;
		msg.msg_controllen = sizeof(control.space);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &pass_fd, sizeof(int));
	}
	for (;;) {
		ssize_t w = sendmsg(fd, &msg, MSG_NOSIGNAL | flags);
		int r;

		if (w >= 0) {
			msg.msg_control = NULL; /* with the first byte */
			msg.msg_controllen = 0;
			if (!advance(&msg, (size_t)w))
				return 0;
		} else if (errno == EAGAIN && !flags) {
			r = wait_ready(fd, POLLOUT);
			if (r)
				return r;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
}

int frame_send(int fd, const char *head, size_t head_len, const void *body,
	       size_t body_len, int pass_fd)
{
	return frame_out(fd, head, head_len, body, body_len, pass_fd, 0);
}

int frame_try(int fd, const char *head, size_t head_len, const void *body,
	      size_t body_len, int pass_fd)
{
	return frame_out(fd, head, head_len, body, body_len, pass_fd,
			 MSG_DONTWAIT);
}

#define ANSWER_MOST 4096 /* of a small one: all of it in one call */

/* One call, with the descriptor that comes along. */
static ssize_t receive(int fd, void *data, size_t n, int flags, int *ret_fd)
{
	struct iovec iov = { data, n };
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.space,
			      .msg_controllen = sizeof(control.space) };
	ssize_t r;

	*ret_fd = -1;
	do {
		r = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | flags);
	} while (r < 0 && errno == EINTR);
	if (r < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c;
	     c = CMSG_NXTHDR(&msg, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
			memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
	return r;
}

ssize_t frame_some(int fd, void *data, size_t n, int *ret_fd)
{
	return receive(fd, data, n, MSG_DONTWAIT, ret_fd);
}

/* At least so many bytes, at most n; how many, -EPIPE or another -errno. */
static ssize_t recv_some(int fd, char *data, size_t least, size_t n,
			 int *ret_fd)
{
	ssize_t r;

	for (;;) {
		r = receive(fd, data, n, 0, ret_fd);
		if (r > 0)
			break;
		if (!r)
			return -EPIPE;
		if (r != -EAGAIN)
			return r;
		r = wait_ready(fd, POLLIN);
		if (r)
			return r;
	}
	if ((size_t)r < least) {
		int k = read_all(fd, data + r, least - (size_t)r);

		if (k)
			return k == -ECONNRESET ? -EPIPE : k;
		r = (ssize_t)least;
	}
	return r;
}

int frame_answer(int fd, struct strbuf *head, struct strbuf *body, int *ret_fd)
{
	char all[ANSWER_MOST];
	const char *at = all + 8;
	struct strbuf *part[] = { head, body };
	_cleanup_close_ int got = -1;
	uint32_t len[2];
	ssize_t n;

	sb_reset(head);
	sb_reset(body);
	n = recv_some(fd, all, sizeof(len), sizeof(all), &got);
	if (n < 0)
		return (int)n;
	memcpy(len, all, sizeof(len));
	n -= (ssize_t)sizeof(len);
	for (int i = 0; i < 2; i++) {
		size_t want = le32toh(len[i]), here = MIN(want, (size_t)n);
		int r;

		if (want > FRAME_HEAD_MAX)
			return -EPROTO;
		if (sb_reserve(part[i], want) || sb_add(part[i], at, here))
			return -EMSGSIZE;
		at += here;
		n -= (ssize_t)here;
		r = read_all(fd, part[i]->buf + here, want - here);
		if (r)
			return r;
		part[i]->len = want;
		part[i]->buf[want] = '\0';
	}
	*ret_fd = TAKE_FD(got);
	return n ? -EPROTO : 0;
}

int frame_recv(int fd, struct strbuf *head, struct strbuf *body, int *ret_fd)
{
	_cleanup_close_ int got = -1;
	uint32_t len[2];
	int r;

	sb_reset(head);
	sb_reset(body);
	r = (int)recv_some(fd, (char *)len, sizeof(len), sizeof(len), &got);
	if (r < 0)
		return r;
	len[0] = le32toh(len[0]);
	len[1] = le32toh(len[1]);
	if (len[0] > FRAME_HEAD_MAX || len[1] > FRAME_BODY_MAX)
		return -EPROTO;
	if (sb_reserve(head, len[0]) || sb_reserve(body, len[1]))
		return -EMSGSIZE;
	if (len[0]) {
		r = read_all(fd, head->buf, len[0]);
		if (r)
			return r;
		head->len = len[0];
		head->buf[len[0]] = '\0';
	}
	if (len[1]) {
		r = read_all(fd, body->buf, len[1]);
		if (r)
			return r;
		body->len = len[1];
		body->buf[len[1]] = '\0';
	}
	*ret_fd = TAKE_FD(got);
	return 0;
}
