// SPDX-License-Identifier: Apache-2.0
/*
 * STATE/lock, which one rollfs holds: "PID DEVICE MOUNTPOINT" once it is
 * mounted.
 *
 * A rollfs that was killed while the kernel took a notification, for which it
 * waits for a directory whose user waits for the answer of a thread that is
 * killed, never ends, and has its lock and its mount.  Only giving up the mount
 * ends both: with umount2(2), which is for root, or by writing to abort in
 * fusectl, which is for who has mounted it, too.
 */
#include <fcntl.h>
#include <limits.h>
#include <sys/mount.h>

#include "fs/fs.h"

#define CONNECTIONS "/sys/fs/fuse/connections"

struct holder {
	int pid;
	char device[32];  /* of its mount; empty: not mounted yet */
	char *mountpoint; /* in text */
	char text[PATH_MAX + 64];
};

static bool holder_read(int fd, struct holder *ret)
{
	ssize_t n = pread(fd, ret->text, sizeof(ret->text) - 1, 0);
	int at = 0;

	ret->text[MAX(n, 0)] = '\0';
	ret->device[0] = '\0';
	if (sscanf(ret->text, "%d %31[0-9:] %n", &ret->pid, ret->device, &at) <
		1 ||
	    ret->pid <= 1)
		return false;
	/* None before it is mounted. */
	ret->mountpoint = ret->text + (at ? (size_t)at : strlen(ret->text));
	ret->mountpoint[strcspn(ret->mountpoint, "\n")] = '\0';
	return true;
}

static bool is_dead(int pid)
{
	char path[64], line[512] = "";
	_cleanup_fclose_ FILE *f = NULL;
	const char *at;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f || !fgets(line, sizeof(line), f))
		return false;
	at = strrchr(line, ')'); /* the name may hold blanks */
	return at && at[1] == ' ' && (at[2] == 'Z' || at[2] == 'X');
}

/* The kernel's number of the connection: the minor number of the device. */
static const char *connection(const struct holder *h)
{
	const char *colon = strchr(h->device, ':');

	return colon ? colon + 1 : "N";
}

static void give_up(const struct holder *h)
{
	char path[128];
	_cleanup_close_ int fd = -1;

	/* Never what lies below, or another's. */
	if (!proc_has_rollfs(h->mountpoint, h->device) ||
	    !umount2(h->mountpoint, MNT_FORCE | MNT_DETACH))
		return;
	(void)snprintf(path, sizeof(path), CONNECTIONS "/%s/abort",
		       connection(h));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, "1", 1) != 1)
		log_warn("fs", "%s: %s", path, strerror(errno));
}

static int locked(const struct holder *h, struct err *e)
{
	if (!h->pid || !is_dead(h->pid))
		return err_set(e, EBUSY,
			       "party %s is mounted already: %s/lock is locked "
			       "by another rollfs",
			       fs.conf->party, fs.conf->state);
	return err_set(
	    e, EBUSY,
	    "party %s: process %d, a rollfs that was killed, cannot "
	    "end before its mount%s%s is given up: as root, mount -t "
	    "fusectl none " CONNECTIONS " (unless it is mounted), "
	    "echo 1 > " CONNECTIONS "/%s/abort, and then, if it is "
	    "still listed, fusermount3 -uz %s",
	    fs.conf->party, h->pid, *h->mountpoint ? " " : "", h->mountpoint,
	    connection(h), h->mountpoint);
}

int state_lock(int *ret_fd, struct err *e)
{
	_cleanup_free_ struct holder *h = xcalloc(1, sizeof(*h));
	_cleanup_strbuf_ struct strbuf path = STRBUF_INIT(8192);
	_cleanup_close_ int fd = -1;
	int no = mkdir_p_durable(fs.conf->state, 0700, e);

	if (no)
		return no;
	sb_addf(&path, "%s/lock", fs.conf->state);
	fd = open(path.buf, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, errno, "%s", path.buf);
	no = lock_try(fd);
	for (int i = 0;
	     no == -EAGAIN && i < 50 && holder_read(fd, h) && is_dead(h->pid);
	     i++) {
		give_up(h);
		(void)usleep(100000);
		no = lock_try(fd);
	}
	if (no)
		return no == -EAGAIN ? locked(h, e)
				     : err_sys(e, -no, "%s", path.buf);
	if (ftruncate(fd, 0) || dprintf(fd, "%d\n", (int)getpid()) < 0)
		log_warn("fs", "%s: %s", path.buf, strerror(errno));
	*ret_fd = TAKE_FD(fd);
	return 0;
}

void state_lock_mounted(int fd, const char *mountpoint)
{
	_cleanup_free_ char *text =
	    xasprintf("%d %s %s\n", (int)getpid(), proc_device(), mountpoint);

	if (pwrite_all(fd, text, strlen(text), 0))
		log_warn("fs", "%s/lock: %s", fs.conf->state, strerror(errno));
}
