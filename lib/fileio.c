// SPDX-License-Identifier: Apache-2.0
#include "lib/fileio.h"

#include <endian.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

static int wait_ready(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	return poll(&p, 1, -1) < 0 && errno != EINTR ? -errno : 0;
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

/* The directory of a file, so that its name is on the disk too. */
static int parent_sync(const char *path, struct err *e)
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

int file_replace(const char *path, const void *data, size_t n, mode_t mode,
		 bool durable, struct err *e)
{
	static unsigned counter;
	_cleanup_free_ char *tmp = NULL;
	_cleanup_close_ int fd = -1;
	int r;

	if (asprintf(&tmp, "%s.%d.%u.tmp", path, (int)getpid(),
		     __atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED)) < 0) {
		tmp = NULL;
		return err_sys(e, ENOMEM, "%s", path);
	}
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
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
	return durable ? parent_sync(path, e) : 0;
}

int mkdir_p(const char *path, mode_t mode, struct err *e)
{
	_cleanup_free_ char *p = strdup(path);

	if (!p)
		return err_sys(e, ENOMEM, "%s", path);
	for (char *s = p + 1; *s; s++) {
		if (*s != '/')
			continue;
		*s = '\0';
		if (mkdir(p, mode) && errno != EEXIST)
			return err_sys(e, errno, "%s", p);
		*s = '/';
	}
	if (mkdir(p, mode) && errno != EEXIST)
		return err_sys(e, errno, "%s", p);
	return 0;
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

static int send_first(int fd, const void *data, size_t n, int pass_fd)
{
	struct iovec iov = { (void *)data, n };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { { 0 } };
	ssize_t w;

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
		w = sendmsg(fd, &msg, MSG_NOSIGNAL);
		if (w >= 0)
			break;
		if (errno == EAGAIN) {
			int r = wait_ready(fd, POLLOUT);

			if (r)
				return r;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	/* The rest, if the socket was nearly full. */
	while ((size_t)w < n) {
		ssize_t k = send(fd, (const char *)data + w, n - (size_t)w,
				 MSG_NOSIGNAL);

		if (k < 0 && errno == EAGAIN) {
			int r = wait_ready(fd, POLLOUT);

			if (r)
				return r;
		} else if (k < 0 && errno != EINTR) {
			return -errno;
		} else if (k > 0) {
			w += k;
		}
	}
	return 0;
}

int frame_send(int fd, const char *head, size_t head_len, const void *body,
	       size_t body_len, int pass_fd)
{
	struct strbuf all = STRBUF_INIT(8 + FRAME_HEAD_MAX + FRAME_BODY_MAX);
	int r;

	if (head_len > FRAME_HEAD_MAX || body_len > FRAME_BODY_MAX)
		return -EMSGSIZE;
	sb_add_u32(&all, (uint32_t)head_len);
	sb_add_u32(&all, (uint32_t)body_len);
	sb_add(&all, head, head_len);
	sb_add(&all, body, body_len);
	r = all.error ? all.error : send_first(fd, all.buf, all.len, pass_fd);
	sb_free(&all);
	return r;
}

static int recv_first(int fd, void *data, size_t n, int *ret_fd)
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
	for (;;) {
		r = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
		if (r > 0)
			break;
		if (!r)
			return -EPIPE;
		if (errno == EAGAIN) {
			int w = wait_ready(fd, POLLIN);

			if (w)
				return w;
		} else if (errno != EINTR) {
			return errno == ECONNRESET ? -EPIPE : -errno;
		}
	}
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c;
	     c = CMSG_NXTHDR(&msg, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
			memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
	if ((size_t)r < n) {
		int k = read_all(fd, (char *)data + r, n - (size_t)r);

		return k == -ECONNRESET ? -EPIPE : k;
	}
	return 0;
}

int frame_recv(int fd, struct strbuf *head, struct strbuf *body, int *ret_fd)
{
	_cleanup_close_ int got = -1;
	uint32_t len[2];
	int r;

	sb_reset(head);
	sb_reset(body);
	r = recv_first(fd, len, sizeof(len), &got);
	if (r)
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
