// SPDX-License-Identifier: Apache-2.0
/*
 * Who closes a file.  A FLUSH is sent by every process that had the
 * descriptor (a forked child too) and also when a signal ends one; only the
 * opener's own close means "done".
 */
#include <ctype.h>
#include <fcntl.h>
#include <signal.h>

#include "fs/fs.h"

#define PF_EXITING 0x4u

static char our_device[32]; /* "0:40"; "" = not known */

static int slurp(pid_t tid, const char *what, char *buf, size_t n)
{
	char path[64];
	_cleanup_fclose_ FILE *f = NULL;
	size_t got;

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)tid, what);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	got = fread(buf, 1, n - 1, f);
	buf[got] = '\0';
	return 0;
}

pid_t proc_tgid(pid_t tid)
{
	char buf[4096];
	const char *at;

	if (tid <= 0 || slurp(tid, "status", buf, sizeof(buf)))
		return 0;
	at = strstr(buf, "\nTgid:");
	return at ? (pid_t)strtol(at + 6, NULL, 10) : 0;
}

/* Fields 9 (flags) and 52 (exit code) of /proc/<tid>/stat. */
static bool dies_by_signal(pid_t tid)
{
	char buf[4096], *save = NULL, *at, *word;
	unsigned long flags = 0;
	long code = 0;

	if (tid <= 0 || slurp(tid, "stat", buf, sizeof(buf)))
		return false;
	at = strrchr(buf, ')'); /* the name may hold blanks */
	if (!at)
		return false;
	word = strtok_r(at + 1, " ", &save);
	for (int i = 3; word; i++, word = strtok_r(NULL, " ", &save)) {
		if (i == 9)
			flags = strtoul(word, NULL, 10);
		else if (i == 52)
			code = strtol(word, NULL, 10);
	}
	return (flags & PF_EXITING) && (code & 0x7f);
}

/* A signal that ends a process is made SIGKILL for each of its threads. */
bool proc_being_killed(pid_t tid)
{
	char buf[4096];
	const char *at;

	if (tid <= 0 || slurp(tid, "status", buf, sizeof(buf)))
		return false;
	at = strstr(buf, "\nSigPnd:");
	return at && strtoull(at + 8, NULL, 16) & 1ull << (SIGKILL - 1);
}

/*
 * A line of mountinfo: "36 35 98:0 /root /mount/point options - type ...".  The
 * mount's number, its device and where it is, which ends at the blank.
 */
static bool parse_mount(const char *line, long *ret_id, char device[32],
			const char **ret_at)
{
	int at = 0;

	if (sscanf(line, "%ld %*d %31[0-9:] %*s %n", ret_id, device, &at) < 2 ||
	    !at)
		return false;
	*ret_at = line + at;
	return true;
}

/* Blanks and backslashes are written in octal there. */
static bool same_place(const char *s, const char *path)
{
	for (; *s && *s != ' '; path++) {
		char *end;
		char c = *s++;

		if (c == '\\') {
			char octal[4] = { s[0], s[0] ? s[1] : 0,
					  s[0] && s[1] ? s[2] : 0 };

			c = (char)strtoul(octal, &end, 8);
			s += end - octal;
		}
		if (c != *path)
			return false;
	}
	return !*path;
}

/* The device of the mount with this number, or (0) of what is mounted at the
 * place last; empty: there is none. */
static void device_of(const char *who, long id, const char *place,
		      char ret[static 32])
{
	_cleanup_free_ char *path = xasprintf("/proc/%s/mountinfo", who);
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	_cleanup_free_ char *line = NULL;
	size_t room = 0;

	ret[0] = '\0';
	while (f && getline(&line, &room, f) > 0) {
		char device[32];
		const char *at;
		long k;

		if (parse_mount(line, &k, device, &at) &&
		    (id ? k == id : same_place(at, place)))
			memcpy(ret, device, sizeof(device));
	}
}

void proc_mounted(const char *mountpoint)
{
	device_of("self", 0, mountpoint, our_device);
}

const char *proc_device(void)
{
	return our_device;
}

bool proc_has_rollfs(const char *mountpoint, const char *want)
{
	_cleanup_fclose_ FILE *f = fopen("/proc/self/mountinfo", "re");
	_cleanup_free_ char *line = NULL;
	bool is = false;
	size_t room = 0;

	while (f && getline(&line, &room, f) > 0) {
		char device[32];
		const char *at;
		long k;

		if (parse_mount(line, &k, device, &at) &&
		    same_place(at, mountpoint))
			is = !strcmp(device, want) &&
			     strstr(at, " - fuse.rollfs ");
	}
	return is;
}

/* The same inode number may be one of another party's mount. */
static bool on_our_mount(pid_t tid, const char *info)
{
	const char *at = strstr(info, "mnt_id:");
	char who[16], device[32];

	if (!at || !*our_device)
		return true;
	(void)snprintf(who, sizeof(who), "%d", (int)tid);
	device_of(who, strtol(at + 7, NULL, 10), "", device);
	return !*device || !strcmp(device, our_device);
}

/* Does the process hold the descriptor to write to the node?  There may be
 * thousands to look at: three system calls each. */
static bool writes_to(pid_t tid, int dir, const char *fd, fuse_ino_t ino,
		      fuse_ino_t other)
{
	_cleanup_close_ int info = openat(dir, fd, O_RDONLY | O_CLOEXEC);
	const char *flags, *node;
	fuse_ino_t its;
	char buf[1024];
	ssize_t n = info < 0 ? -1 : read(info, buf, sizeof(buf) - 1);

	if (n < 0)
		return false;
	buf[n] = '\0';
	flags = strstr(buf, "flags:");
	node = strstr(buf, "\nino:"); /* since Linux 5.14 */
	its = node ? strtoull(node + 5, NULL, 10) : 0;
	return flags && (its == ino || its == other) &&
	       (strtoul(flags + 6, NULL, 8) & O_ACCMODE) != O_RDONLY &&
	       on_our_mount(tid, buf);
}

/* A shell's builtin makes a copy of descriptor 3 and closes it for each
 * "echo ... >&3": the opener's, and yet not the end. */
static bool still_open(const struct handle *h, pid_t tid)
{
	fuse_ino_t ino = nid_ino(h->nid.kind, h->nid.number, h->nid.slot);
	fuse_ino_t shown = ino;
	_cleanup_table_ struct table *t = NULL;
	_cleanup_closedir_ DIR *d = NULL;
	const struct dirent *de;
	char path[64];

	/* A data.csv that is written shows the number of what is published. */
	if (h->nid.kind == K_TABLE && h->nid.slot == T_WRITE &&
	    !table_now(h->nid.number, &t) && t)
		shown = nid_ino(K_DATA, table_generation(t), 0);
	(void)snprintf(path, sizeof(path), "/proc/%d/fdinfo", (int)tid);
	d = tid > 0 ? opendir(path) : NULL;
	while (d && (de = readdir(d)))
		if (isdigit((unsigned char)de->d_name[0]) &&
		    writes_to(tid, dirfd(d), de->d_name, ino, shown))
			return true;
	return false;
}

enum closer proc_closer(const struct handle *h, fuse_req_t r)
{
	pid_t tid = fuse_req_ctx(r)->pid;

	if (dies_by_signal(tid))
		return CLOSE_KILLED;
	/* Outside our pid namespace everybody is 0: each close counts. */
	if (h->opener && proc_tgid(tid) != h->opener)
		return CLOSE_OTHER;
	/* A job's text says itself where it ends, and the threads of a program
	 * may have jobs/new open at the same time. */
	if (h->nid.kind != K_STATIC && still_open(h, tid))
		return CLOSE_OTHER;
	return CLOSE_OPENER;
}
