// SPDX-License-Identifier: Apache-2.0
/*
 * rollfs CONFIG MOUNTPOINT [-f] [-o options]: mounts one party.
 *
 * Without -f the program forks before it has any thread; the child starts
 * everything, and the parent ends when the mount works or with the reason why
 * it does not.
 */
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "lib/version.h"

#include "fs/fs.h"

/* max_threads of -o.  They are made when all others are busy, most of all with
 * waiting for the disk, so that this many may before somebody else waits. */
#define THREADS 32

struct args {
	char *config, *mountpoint; /* absolute */
	char *options;		   /* of -o, joined by commas; NULL */
	bool foreground;
};

static void args_free(struct args *a)
{
	free(a->config);
	free(a->mountpoint);
	free(a->options);
}

static void usage(FILE *f)
{
	(void)fputs(
	    "usage: rollfs CONFIG MOUNTPOINT [-f] [-o options]\n"
	    "  -f  stay in the foreground\n"
	    "  -o  allow_other, auto_unmount, ro, noexec ... ; max_threads=N "
	    "(8),\n"
	    "      clone_fd; options that only mean something to mount(8) are "
	    "ignored\n",
	    f);
}

/* A dead daemon's mount point cannot be resolved, what holds it can. */
static char *mountpoint_path(const char *s)
{
	char *p = realpath(s, NULL);
	_cleanup_free_ char *dir = NULL, *parent = NULL;
	char *slash, *out = NULL;
	size_t n;

	if (p || (errno != ENOTCONN && errno != ECONNABORTED))
		return p;
	dir = strdup(s);
	if (!dir)
		return NULL;
	for (n = strlen(dir); n > 1 && dir[n - 1] == '/'; n--)
		dir[n - 1] = '\0';
	slash = strrchr(dir, '/');
	if (!slash) {
		parent = realpath(".", NULL);
		slash = dir - 1;
	} else {
		*slash = '\0';
		parent = realpath(*dir ? dir : "/", NULL);
	}
	if (!parent ||
	    asprintf(&out, "%s/%s", strcmp(parent, "/") ? parent : "",
		     slash + 1) < 0)
		return NULL;
	return out;
}

static int parse(int argc, char **argv, struct args *ret)
{
	const char *words[2] = { NULL, NULL };
	unsigned n = 0;
	_cleanup_strbuf_ struct strbuf opts = STRBUF_INIT(16384);
	struct statx at;

	for (int i = 1; i < argc; i++) {
		const char *a = argv[i];

		if (!strcmp(a, "-f") || !strcmp(a, "--foreground")) {
			ret->foreground = true;
		} else if (!strncmp(a, "-o", 2)) {
			const char *o = a[2] ? a + 2 : argv[++i];

			if (!o) {
				(void)fputs("rollfs: -o needs options\n",
					    stderr);
				return -EINVAL;
			}
			sb_addf(&opts, "%s%s", opts.len ? "," : "", o);
		} else if (!strcmp(a, "-h") || !strcmp(a, "--help")) {
			usage(stdout);
			exit(0);
		} else if (!strcmp(a, "-V") || !strcmp(a, "--version")) {
			(void)printf("rollfs %s\n", rollfs_version());
			exit(0);
		} else if (a[0] == '-' && a[1] &&
			   strspn(a + 1, "nsvwr") == strlen(a + 1)) {
			continue; /* mount(8) passes these to helpers */
		} else if (a[0] != '-' && n < 2) {
			words[n++] = a;
		} else {
			usage(stderr);
			return -EINVAL;
		}
	}
	if (n != 2) {
		usage(stderr);
		return -EINVAL;
	}
	ret->config = realpath(words[0], NULL);
	if (!ret->config) {
		(void)fprintf(stderr, "rollfs: %s: %s\n", words[0],
			      strerror(errno));
		return -errno;
	}
	ret->mountpoint = mountpoint_path(words[1]);
	if (!ret->mountpoint) {
		(void)fprintf(stderr, "rollfs: %s: %s\n", words[1],
			      strerror(errno));
		return -errno;
	}
	/* Whoever is mounted there, and may be dead, is not asked. */
	if (!statx(AT_FDCWD, ret->mountpoint, AT_STATX_DONT_SYNC, STATX_TYPE,
		   &at) &&
	    !S_ISDIR(at.stx_mode)) {
		(void)fprintf(stderr, "rollfs: %s: not a directory\n",
			      words[1]);
		return -ENOTDIR;
	}
	ret->options = opts.len ? sb_detach(&opts) : NULL;
	return 0;
}

/* ps shall tell whose process it is: run again under absolute paths. */
static void show_paths(char **argv, const struct args *a)
{
	char *want[8] = { (char *)"rollfs", a->config, a->mountpoint };
	unsigned n = 3, i;

	if (a->foreground)
		want[n++] = (char *)"-f";
	if (a->options) {
		want[n++] = (char *)"-o";
		want[n++] = a->options;
	}
	for (i = 0; want[i] && argv[i] && !strcmp(want[i], argv[i]); i++)
		;
	if (want[i] || argv[i])
		execv("/proc/self/exe", want);
	/* Cannot be run again: only ps is worse for it. */
}

static bool one_of(const char *s, const char *const *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(list[i]);

		if (list[i][len - 1] == '=' || list[i][len - 1] == '-'
			? !strncmp(s, list[i], len)
			: !strcmp(s, list[i]))
			return true;
	}
	return false;
}

/* What libfuse gets, from -o. */
struct loop {
	unsigned threads;
	bool clone_fd; /* each thread has its own queue to the kernel */
};

static int loop_option(const char *o, struct loop *ret)
{
	static const char word[] = "max_threads=";
	char *end;
	unsigned long n;

	if (!strcmp(o, "clone_fd")) {
		ret->clone_fd = true;
		return 1;
	}
	if (strncmp(o, word, sizeof(word) - 1))
		return 0;
	n = strtoul(o + sizeof(word) - 1, &end, 10);
	if (*end || !n || n > 1000) {
		(void)fprintf(
		    stderr, "rollfs: %s: 1 to 1000 threads are possible\n", o);
		return -EINVAL;
	}
	ret->threads = (unsigned)n;
	return 1;
}

static int mount_options(const char *options, struct strbuf *ret,
			 bool *ret_other, struct loop *ret_loop)
{
	static const char *const pass[] = {
		"allow_other", "auto_unmount", "ro",	  "exec",
		"noexec",      "suid",	       "nosuid",  "dev",
		"nodev",       "atime",	       "noatime", "sync",
		"async",       "dirsync",      "debug",	  "max_read=",
	};
	static const char *const ignore[] = {
		"rw",	       "defaults",   "user",	 "users",
		"nouser",      "group",	     "owner",	 "auto",
		"noauto",      "_netdev",    "nofail",	 "x-",
		"comment=",    "fsname=",    "subtype=", "relatime",
		"strictatime", "nodiratime", "user=",	 "default_permissions",
	};
	_cleanup_free_ char *copy = strdup(options ? options : "");
	char *save = NULL;

	if (!copy)
		return -ENOMEM;
	sb_adds(ret, "default_permissions,fsname=rollfs,subtype=rollfs");
	for (char *o = strtok_r(copy, ",", &save); o;
	     o = strtok_r(NULL, ",", &save)) {
		int loop = loop_option(o, ret_loop);

		if (loop < 0)
			return loop;
		if (loop)
			continue;
		if (one_of(o, pass, ARRAY_SIZE(pass))) {
			sb_addf(ret, ",%s", o);
			*ret_other |= !strcmp(o, "allow_other");
		} else if (!one_of(o, ignore, ARRAY_SIZE(ignore))) {
			(void)fprintf(stderr, "rollfs: unknown option %s\n", o);
			return -EINVAL;
		}
	}
	return ret->error;
}

/* A dead daemon's mount would stay below ours. */
static void clear_stale(const char *mnt)
{
	struct stat st;

	for (int i = 0; i < 8 && stat(mnt, &st) &&
			(errno == ENOTCONN || errno == ECONNABORTED);
	     i++) {
		char *argv[] = { (char *)"fusermount3", (char *)"-u",
				 (char *)"-z", (char *)mnt, NULL };
		pid_t pid;

		if (!umount2(mnt, MNT_DETACH))
			continue;
		if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ))
			return;
		waitpid(pid, NULL, 0);
	}
}

static char *beside_us(const char *name)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash, *out = NULL;

	if (n <= 0)
		return NULL;
	self[n] = '\0';
	slash = strrchr(self, '/');
	if (!slash)
		return NULL;
	*slash = '\0';
	return asprintf(&out, "%s/%s", self, name) < 0 ? NULL : out;
}

static void on_changed(void *arg, const char *job)
{
	(void)arg, (void)job;
	notify_pollers();
}

static void on_inbox(void *arg, const char *party, const char *path)
{
	(void)arg, (void)path;
	if (*party)
		notify_inode(nid_ino(K_PEER, strtoull(party, NULL, 10), 1));
	pull_wake();
}

static int fail(const struct err *e)
{
	(void)fprintf(stderr, "rollfs: %s\n", e->text);
	return -e->no;
}

static int find_group(struct err *e)
{
	const struct group *g;

	fs.uid = getuid();
	fs.gid = getgid();
	if (!fs.allow_other || !fs.conf->group)
		return 0;
	g = getgrnam(fs.conf->group);
	if (!g)
		return err_set(e, EINVAL, "%s: group: there is no group %s",
			       fs.conf->path, fs.conf->group);
	fs.gid = g->gr_gid;
	return 0;
}

static void log_to_file(void)
{
	int fd;

	fs.log = xasprintf("%s/rollfs.log", fs.conf->state);
	fd = open(fs.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd >= 0) {
		(void)dup2(fd, STDERR_FILENO);
		(void)dup2(fd, STDOUT_FILENO);
		close(fd);
	}
}

/* Starts everything, serves until the end, stops everything. */
static int serve(const struct args *a, int ready_fd)
{
	_cleanup_free_ char *rollsite = beside_us("rollsite");
	_cleanup_free_ char *task = beside_us("rollfs-task");
	_cleanup_free_ char *tables = NULL;
	_cleanup_(table_swept_free) struct table_swept swept = { 0 };
	_cleanup_strbuf_ struct strbuf opts = STRBUF_INIT(16384);
	struct fuse_args fa = FUSE_ARGS_INIT(0, NULL);
	struct fuse_loop_config *loop = NULL;
	struct loop how = { .threads = THREADS };
	struct err e = { 0 };
	int lock_fd = -1, no;
	bool mounted = false;

	no = mount_options(a->options, &opts, &fs.allow_other, &how);
	if (no)
		return no;
	if (conf_load(a->config, &fs.conf, &e) || find_group(&e) ||
	    state_lock(&lock_fd, &e))
		return fail(&e);
	umask(077);
	files_many(); /* of each table that is open, a few */
	fs.started_ms = now_unix_ms();
	if (asprintf(&tables, "%s/tables", fs.conf->state) < 0)
		return -ENOMEM;
	/* rollsite first: what was handed over is where it belongs before the
	 * rest of the spool is swept. */
	if (table_store_open(tables, &fs.tables, &e) ||
	    table_store_sweep(fs.tables, &swept, &e) ||
	    table_store_collect_aside(fs.tables, &e) ||
	    transfer_start(fs.conf, rollsite, &fs.transfer, &e) ||
	    real_start(&e))
		goto stop;
	tables_start(&swept);
	if (sched_start(&(struct sched_options){ .conf = fs.conf,
						 .transfer = fs.transfer,
						 .tables = fs.tables,
						 .task_program = task,
						 .changed = on_changed },
			&fs.sched, &e))
		goto stop;
	models_start();
	clear_stale(a->mountpoint);
	if (fuse_opt_add_arg(&fa, "rollfs") || fuse_opt_add_arg(&fa, "-o") ||
	    fuse_opt_add_arg(&fa, opts.buf) ||
	    !(fs.session =
		  fuse_session_new(&fa, &mount_ops, sizeof(mount_ops), NULL))) {
		err_set(&e, EINVAL, "libfuse does not take the options %s",
			opts.buf);
		goto stop;
	}
	if (fuse_session_mount(fs.session, a->mountpoint)) {
		err_set(&e, EIO, "cannot mount at %s", a->mountpoint);
		goto stop;
	}
	mounted = true;
	proc_mounted(a->mountpoint);
	state_lock_mounted(lock_fd, a->mountpoint);
	if (fuse_set_signal_handlers(fs.session) || notifier_start(&e))
		goto stop;
	watch_start();
	transfer_on_inbox(fs.transfer, on_inbox, NULL);
	log_info("fs", "party %s is mounted at %s", fs.conf->party,
		 a->mountpoint);
	if (ready_fd >= 0) {
		log_to_file();
		if (write(ready_fd, "", 1) != 1)
			log_warn("fs", "nobody waits for the start");
		close(ready_fd);
	}
	loop = fuse_loop_cfg_create();
	fuse_loop_cfg_set_max_threads(loop, how.threads);
	fuse_loop_cfg_set_clone_fd(loop, how.clone_fd);
	fuse_session_loop_mt(fs.session, loop);
	fuse_loop_cfg_destroy(loop);
	log_info("fs", "party %s is unmounted", fs.conf->party);
stop:
	if (e.no)
		no = fail(&e);
	watch_stop();
	aside_wait();
	if (mounted)
		notifier_stop();
	park_abort_all();
	models_stop();
	if (fs.sched)
		sched_stop(fs.sched, true);
	if (mounted)
		fuse_session_unmount(fs.session);
	if (mounted)
		fuse_remove_signal_handlers(fs.session);
	if (fs.session)
		fuse_session_destroy(fs.session);
	handles_end();
	listings_end();
	fuse_opt_free_args(&fa);
	transfer_stop(fs.transfer);
	if (sched_end(fs.sched) && transfer_free(fs.transfer)) {
		table_columns_stop();
		table_store_close(fs.tables);
		conf_free(fs.conf);
		free(fs.log);
	}
	close(lock_fd);
	return no;
}

/* The parent's side: 0 when the child says that it is ready. */
static int wait_ready(int fd, pid_t child)
{
	char c;
	ssize_t n;
	int status;

	do {
		n = read(fd, &c, 1);
	} while (n < 0 && errno == EINTR);
	if (n == 1)
		return 0;
	if (waitpid(child, &status, 0) == child && WIFSIGNALED(status))
		(void)fprintf(stderr,
			      "rollfs: killed by signal %d at its start\n",
			      WTERMSIG(status));
	return 1; /* the child has said why */
}

int main(int argc, char **argv)
{
	struct args a = { 0 };
	int pipe_fd[2] = { -1, -1 }, null, no;
	pid_t child;

	if (parse(argc, argv, &a))
		return 1;
	show_paths(argv, &a);
	prctl(PR_SET_NAME, "rollfs", 0, 0, 0);
	if (!a.foreground) {
		if (pipe2(pipe_fd, O_CLOEXEC)) {
			perror("rollfs");
			return 1;
		}
		child = fork(); /* no thread exists yet */
		if (child < 0) {
			perror("rollfs");
			return 1;
		}
		if (child) {
			close(pipe_fd[1]);
			no = wait_ready(pipe_fd[0], child);
			args_free(&a);
			return no;
		}
		close(pipe_fd[0]);
		setsid();
		null = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (null >= 0)
			(void)dup2(null, STDIN_FILENO);
	}
	if (chdir("/"))
		return 1;
	no = serve(&a, pipe_fd[1]);
	args_free(&a);
	return no ? 1 : 0;
}
