// SPDX-License-Identifier: Apache-2.0
/* Task processes: started in a group of their own, watched by pidfd (which
 * also works for one that a former rollfs started), read by result.json. */
#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "lib/fileio.h"
#include "lib/json.h"
#include "lib/log.h"

#include "scheduler/engine.h"
#include "scheduler/model_priv.h"

#define KILL_AFTER_MS 500

static char *attempt_dir(const struct job *j, const struct task *t)
{
	return xasprintf("%s/%s/%s/.task/%u", j->dir, t->role, t->component,
			 t->attempt);
}

static char *session_of(const struct job *j, const struct task *t)
{
	return xasprintf("%s_%s_%u", j->id, t->component, t->attempt);
}

static void link_table(const char *dir, const char *kind, const char *name,
		       const char *ns, const char *table)
{
	_cleanup_free_ char *a = table_escape(ns), *b = table_escape(table);
	_cleanup_free_ char *target = xasprintf("tables/%s/%s", a, b);
	_cleanup_free_ char *path = xasprintf("%s/%s/%s", dir, kind, name);

	(void)unlink(path);
	if (symlink(target, path))
		log_warn("scheduler", "%s: cannot link", path);
}

/* The table that component made at this role, if it made one. */
static bool made(struct sched *s, const struct job *j, const char *role,
		 const char *component, const char *output, char **ns,
		 char **table)
{
	struct table_id id;

	*ns = xasprintf("output_data_%s", j->id);
	*table = xasprintf("%s.%s.%s", component, role, output);
	if (!table_lookup(s->o.tables, *ns, *table, &id, NULL) && id.gen)
		return true;
	free(*ns);
	free(*table);
	return false;
}

static json_t *data_inputs(struct sched *s, const struct job *j,
			   const struct task *t, const json_t *c,
			   const char *dir)
{
	json_t *out = json_object(), *in = json_object_get(c, "data_inputs");
	json_t *list, *ref;
	const char *key;
	size_t i;

	json_object_foreach (in, key, list) {
		json_t *a = json_array();

		json_array_foreach (list, i, ref) {
			const char *src = json_str_or(ref, "component", "");
			char *ns, *table;

			if (!made(s, j, t->role, src,
				  json_str_or(ref, "output", ""), &ns, &table))
				continue;
			json_array_append_new(
			    a, json_pack("{s:s, s:s, s:s}", "source", src,
					 "namespace", ns, "name", table));
			if (i) {
				_cleanup_free_ char *name =
				    xasprintf("%s.%zu", key, i);

				link_table(dir, "in", name, ns, table);
			} else {
				link_table(dir, "in", key, ns, table);
			}
			free(ns);
			free(table);
		}
		json_object_set_new(out, key, a);
	}
	return out;
}

/* A model of the store becomes a file of this attempt; false: this role has
 * none, as one whose component handed its rows on. */
static bool stored(struct sched *s, const struct task *t, const json_t *o,
		   const char *component, const char *path, struct err *e)
{
	return !model_to_file(s, json_str_or(o, "model_id", ""),
			      json_str_or(o, "model_version", ""), t->role,
			      component, path, e);
}

static json_t *model_inputs(struct sched *s, const struct job *j,
			    const struct task *t, const json_t *c,
			    const char *attempt, struct err *e)
{
	json_t *out = json_object(), *in = json_object_get(c, "model_inputs");
	json_t *list, *ref;
	const char *key;
	size_t i;

	json_object_foreach (in, key, list) {
		json_t *a = json_array();

		json_array_foreach (list, i, ref) {
			const char *src = json_str_or(ref, "component", "");
			bool old = json_bool_or(ref, "stored", false);
			_cleanup_free_ char *path =
			    old ? xasprintf("%s/models/%s.json", attempt, src)
				: xasprintf("%s/%s/%s/model/%s.json", j->dir,
					    t->role, src,
					    json_str_or(ref, "output", ""));

			if (old ? stored(s, t, json_object_get(j->plan, "job"),
					 src, path, e)
				: !access(path, R_OK))
				json_array_append_new(
				    a, json_pack("{s:s, s:s}", "source", src,
						 "path", path));
		}
		json_object_set_new(out, key, a);
	}
	return out;
}

/* What a ModelLoader loads, as if it were wired. */
static void loaded(struct sched *s, const struct task *t, const char *attempt,
		   json_t *models, struct err *e)
{
	json_t *params = json_object_get(t->spec, "params");
	const char *component = json_str_or(params, "component_name", "");
	int64_t step = json_int_or(params, "step_index", -1);
	_cleanup_free_ char *path = xasprintf("%s/models/loaded.json", attempt);
	_cleanup_free_ char *at =
	    step < 0
		? xstrdup(component)
		: xasprintf("%s/checkpoints/%lld", component, (long long)step);

	if (!strcmp(t->module, "ModelLoader") &&
	    stored(s, t, params, at, path, e))
		json_object_set_new(models, "model",
				    json_pack("[{s:s, s:s}]", "source",
					      component, "path", path));
}

/* out/<name> appears with the table, so that it never dangles. */
static void link_outputs(struct sched *s, const struct job *j,
			 const struct task *t)
{
	json_t *c = json_object_get(json_object_get(j->plan, "components"),
				    t->component);
	_cleanup_free_ char *dir = task_dir(j, t);
	json_t *name;
	size_t i;

	json_array_foreach (json_object_get(c, "data_outputs"), i, name) {
		const char *output = json_string_value(name);
		char *ns, *table;

		if (!made(s, j, t->role, t->component, output, &ns, &table))
			continue;
		link_table(dir, "out", output, ns, table);
		free(ns);
		free(table);
	}
}

void task_link_tables(struct sched *s, const struct job *j,
		      const struct task *t)
{
	json_t *c = json_object_get(json_object_get(j->plan, "components"),
				    t->component);
	_cleanup_free_ char *dir = task_dir(j, t);

	json_decref(data_inputs(s, j, t, c, dir));
	link_outputs(s, j, t);
}

static json_t *outputs(const struct job *j, const struct task *t,
		       const json_t *c, const char *dir)
{
	json_t *data = json_array(), *model = json_array(), *name;
	_cleanup_free_ char *ns = xasprintf("output_data_%s", j->id);
	size_t i;

	json_array_foreach (json_object_get(c, "data_outputs"), i, name) {
		_cleanup_free_ char *table = xasprintf(
		    "%s.%s.%s", t->component, t->role, json_string_value(name));

		json_array_append_new(data, json_pack("{s:O, s:s, s:s}", "name",
						      name, "namespace", ns,
						      "table", table));
	}
	json_array_foreach (json_object_get(c, "model_outputs"), i, name) {
		_cleanup_free_ char *path =
		    xasprintf("%s/model/%s.json", dir, json_string_value(name));

		json_array_append_new(
		    model, json_pack("{s:O, s:s}", "name", name, "path", path));
	}
	return json_pack("{s:o, s:o}", "data", data, "model", model);
}

static json_t *task_json(struct sched *s, const struct job *j,
			 const struct task *t, const char *dir,
			 const char *attempt, struct err *e)
{
	const struct conf *conf = s->o.conf;
	_cleanup_free_ char *session = session_of(j, t);
	_cleanup_free_ char *socket = transfer_socket_path(conf->state);
	_cleanup_free_ char *log = xasprintf("%s/log", j->dir);
	_cleanup_free_ char *result = xasprintf("%s/result.json", attempt);
	json_t *c = json_object_get(json_object_get(j->plan, "components"),
				    t->component);
	json_t *job = json_object_get(j->plan, "job");
	int64_t cores = json_int_or(job, "task_cores", 1);
	json_t *models = model_inputs(s, j, t, c, attempt, e);
	json_t *o;

	loaded(s, t, attempt, models, e);
	cores = MAX(1, MIN(cores, (int64_t)conf->cores));
	o = json_pack("{s:i, s:s, s:s, s:s, s:i, s:s, s:s, s:s, s:O, s:O, "
		      "s:o, s:o, s:s, s:s, s:s, s:s, s:s, s:I, s:i, s:i}",
		      "version", 1, "job", j->id, "component", t->component,
		      "module", t->module, "attempt", (int)t->attempt,
		      "session", session, "role", t->role, "party", t->party,
		      "roles", json_object_get(j->plan, "roles"), "params",
		      json_object_get(t->spec, "params"), "inputs",
		      json_pack("{s:o, s:o}", "data",
				data_inputs(s, j, t, c, dir), "model", models),
		      "outputs", outputs(j, t, c, dir), "state", conf->state,
		      "socket", socket, "task_dir", dir, "job_log", log,
		      "result", result, "cores", (json_int_t)cores, "lease",
		      (int)conf->lease_s, "cache_days", (int)conf->cache_days);
	if (o && j->secret && strcmp(t->role, "arbiter"))
		json_object_set_new(o, "secret", json_string(j->secret));
	return o;
}

static uint64_t start_ticks(pid_t pid)
{
	char path[64];
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(4096);
	unsigned long long ticks = 0;
	char *p;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (file_read(path, &sb, NULL))
		return 0;
	p = strrchr(sb.buf, ')');
	if (!p || sscanf(p + 1,
			 " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u "
			 "%*u %*d %*d %*d %*d %*d %*d %llu",
			 &ticks) != 1)
		return 0;
	return ticks;
}

static int spawn(const char *program, const char *title, const char *arg,
		 const char *log, pid_t *pid, struct err *e)
{
	char *argv[] = { (char *)title, (char *)arg, NULL };
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t at;
	sigset_t none;
	int r;

	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&fa, 1, "/dev/null", O_WRONLY, 0);
	posix_spawn_file_actions_addopen(&fa, 2, log,
					 O_WRONLY | O_CREAT | O_APPEND, 0600);
	posix_spawnattr_init(&at);
	sigemptyset(&none);
	posix_spawnattr_setsigmask(&at, &none);
	posix_spawnattr_setpgroup(&at, 0);
	posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK |
					  POSIX_SPAWN_SETPGROUP);
	r = posix_spawn(pid, program, &fa, &at, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	posix_spawnattr_destroy(&at);
	return r ? err_sys(e, r, "%s", program) : 0;
}

static int start(struct sched *s, struct job *j, struct task *t, struct err *e)
{
	_cleanup_free_ char *dir = task_dir(j, t);
	_cleanup_free_ char *attempt = attempt_dir(j, t);
	_cleanup_free_ char *file = xasprintf("%s/task.json", attempt);
	_cleanup_free_ char *pidfile = xasprintf("%s/pid", attempt);
	_cleanup_free_ char *alive = xasprintf("%s/alive", attempt);
	_cleanup_free_ char *models = xasprintf("%s/models", attempt);
	_cleanup_free_ char *checkpoints = xasprintf("%s/checkpoints", dir);
	_cleanup_free_ char *log = xasprintf("%s/log", dir);
	struct err why = { 0 };
	char line[64];
	json_t *o;
	int r = mkdir_p(models, 0700, e);

	if (!r && t->fresh)
		r = remove_tree(checkpoints, e);
	if (r)
		return r;
	t->fresh = false;
	o = task_json(s, j, t, dir, attempt, &why);
	r = why.no ? err_set(e, why.no, "%s", why.text)
	    : o	   ? json_write_file(file, o, 0600, false, e)
		   : err_set(e, EIO, "task.json");
	json_decref(o);
	if (!r)
		r = file_replace(alive, "", 0, 0600, false, e);
	if (!r)
		r = spawn(s->o.task_program, "rollfs-task", file, log, &t->pid,
			  e);
	if (r)
		return r;
	t->pidfd = (int)syscall(SYS_pidfd_open, t->pid, 0);
	if (t->pidfd < 0) { /* nobody would see its end */
		r = err_sys(e, errno, "pidfd_open");
		kill(-t->pid, SIGKILL);
		(void)waitpid(t->pid, NULL, 0);
		t->pid = 0;
		return r;
	}
	t->start_ticks = start_ticks(t->pid);
	t->stopping = false;
	t->kill_at = 0;
	(void)snprintf(line, sizeof(line), "%d %llu\n", (int)t->pid,
		       (unsigned long long)t->start_ticks);
	/* Without the note a new rollfs looks for the process itself. */
	if (file_replace(pidfile, line, strlen(line), 0600, false, e))
		log_warn("scheduler", "%s", e->text);
	task_event(j, t, "attempt %u runs as process %d", t->attempt,
		   (int)t->pid);
	return 0;
}

/* A result that could not be written: not enough room for one. */
static bool disk_full(const char *dir)
{
	struct statvfs v;

	return !statvfs(dir, &v) && v.f_bavail * v.f_frsize < (64u << 10);
}

int task_spawn(struct sched *s, struct job *j, struct task *t)
{
	struct err e = { 0 };
	int r = start(s, j, t, &e);

	if (!r)
		return 0;
	if (r == -ENOSPC || r == -EDQUOT || disk_full(s->o.conf->state)) {
		t->error =
		    xasprintf("%s: make room, then rerun the job", e.text);
		task_moved(s, j, t, ST_FAILED, "no_space",
			   "the disk of that party is full");
	} else {
		t->error = xstrdup(e.text);
		task_moved(s, j, t, ST_FAILED, "start",
			   "the task could not be started");
	}
	return r;
}

void task_stop(struct sched *s, struct job *j, struct task *t, enum status as)
{
	(void)s;
	(void)j;
	if (!t->pid || t->stopping)
		return;
	t->stopping = true;
	t->stop_as = as;
	t->kill_at = now_mono_ms() + KILL_AFTER_MS;
	kill(-t->pid, SIGTERM);
}

static char *how_it_ended(const struct job *j, struct task *t)
{
	siginfo_t info = { 0 };

	if (waitid(P_PID, (id_t)t->pid, &info, WEXITED | WNOHANG) ||
	    !info.si_pid)
		return xasprintf("the task ended without a result while %s",
				 j->rebooted ? "the machine was off"
					     : "rollfs was away");
	if (info.si_code == CLD_EXITED)
		return xasprintf("the task exited with %d and without a "
				 "result (see its log)",
				 info.si_status);
	return xasprintf("the task was killed by signal %d (%s)",
			 info.si_status, strsignal(info.si_status));
}

static char *how_to_go_on(const struct job *j, const char *how)
{
	return j->ours ? xasprintf("%s; echo rerun > jobs/%s/ctl continues the "
				   "job",
				   how, j->id)
		       : xasprintf("%s; party %s can continue the job: echo "
				   "rerun > jobs/%s/ctl there",
				   how, j->initiator, j->id);
}

void task_reap(struct sched *s, struct job *j, struct task *t)
{
	_cleanup_free_ char *attempt = attempt_dir(j, t);
	_cleanup_free_ char *path = xasprintf("%s/result.json", attempt);
	_cleanup_free_ char *how = NULL;
	json_t *o = json_read_file(path, NULL);
	const char *status = json_str_or(o, "status", "");

	/* Nothing of its group may stay; before its number is free again. */
	kill(-t->pid, SIGKILL);
	how = how_it_ended(j, t);
	if (t->pidfd >= 0)
		close(t->pidfd);
	t->pidfd = -1;
	t->pid = 0;
	free(t->error);
	t->error = NULL;
	if (!strcmp(status, "success") || !strcmp(status, "pass")) {
		link_outputs(s, j, t);
		task_moved(s, j, t, status_of(status), NULL, NULL);
	} else if (t->stopping) {
		task_moved(s, j, t, t->stop_as,
			   j->alone && j->end_as == ST_FAILED ? "away" : NULL,
			   j->alone);
	} else if (o) {
		t->error = xstrdup(json_str_or(o, "error", "failed"));
		task_moved(s, j, t, ST_FAILED, json_str_or(o, "code", "failed"),
			   json_str_or(o, "public", "the task failed"));
	} else if (disk_full(attempt)) {
		t->error = xasprintf("no result (%s): the disk of %s is full; "
				     "make room, then rerun the job",
				     how, attempt);
		task_moved(s, j, t, ST_FAILED, "no_space",
			   "the disk of that party is full");
	} else {
		t->error = how_to_go_on(j, how);
		task_moved(s, j, t, ST_FAILED, "killed",
			   "the task's process was killed or crashed: a rerun "
			   "of the job goes on from there");
	}
	t->stopping = false;
	json_decref(o);
}

/* The process of this attempt when its number was not yet written down. */
static int pid_of(const char *attempt)
{
	_cleanup_closedir_ DIR *d = opendir("/proc");
	const struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(16384);
		_cleanup_free_ char *path = NULL;
		const char *arg;
		size_t n = strlen(attempt);

		if (!isdigit((unsigned char)de->d_name[0]))
			continue;
		path = xasprintf("/proc/%s/cmdline", de->d_name);
		if (file_read(path, &sb, NULL) || !sb.len ||
		    strcmp(sb.buf, "rollfs-task"))
			continue;
		arg = sb.buf + sizeof("rollfs-task");
		if (arg < sb.buf + sb.len && !strncmp(arg, attempt, n) &&
		    !strcmp(arg + n, "/task.json"))
			return atoi(de->d_name);
	}
	return 0;
}

void task_adopt(struct sched *s, struct job *j, struct task *t)
{
	_cleanup_free_ char *attempt = attempt_dir(j, t);
	_cleanup_free_ char *path = xasprintf("%s/pid", attempt);
	_cleanup_free_ char *result = xasprintf("%s/result.json", attempt);
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(256);
	unsigned long long ticks = 0;
	int pid = 0;

	if (file_read(path, &sb, NULL)) {
		pid = pid_of(attempt);
		ticks = pid ? start_ticks(pid) : 0;
		/* We died between the decision and the process.  Or the power
		 * went, and what was not synced with it: the same attempt would
		 * wait for messages that it has had. */
		if (!pid && access(result, F_OK) && !j->rebooted) {
			(void)task_spawn(s, j, t);
			return;
		}
	} else if (sscanf(sb.buf, "%d %llu", &pid, &ticks) != 2 || pid <= 1) {
		pid = 0;
	}
	/* The same number may be somebody else's by now. */
	if (pid && ticks && !j->rebooted && start_ticks(pid) == ticks) {
		t->pid = pid;
		t->start_ticks = ticks;
		t->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
		if (t->pidfd >= 0) {
			task_event(j, t, "process %d is watched again", pid);
			return;
		}
	}
	t->pid = TASK_GONE;
}

/* ---- questions to rollfs-task ------------------------------------------- */

static int feed(int in, int out, const char *text, struct strbuf *answer)
{
	char piece[16384];
	ssize_t n;
	int r = text ? write_all(in, text, strlen(text)) : 0;

	close(in);
	while (!r && (n = read(out, piece, sizeof(piece)))) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		r = sb_add(answer, piece, (size_t)n);
	}
	return r;
}

json_t *task_ask(const char *program, const char *argument, const char *text,
		 struct err *e)
{
	char *argv[] = { (char *)"rollfs-task", (char *)argument, NULL };
	_cleanup_strbuf_ struct strbuf answer = STRBUF_INIT(16u << 20);
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t at;
	sigset_t none;
	int in[2], out[2], r, status;
	json_t *o;
	pid_t pid;

	if (pipe2(in, O_CLOEXEC))
		return err_sys(e, errno, "pipe"), NULL;
	if (pipe2(out, O_CLOEXEC)) {
		close(in[0]);
		close(in[1]);
		return err_sys(e, errno, "pipe"), NULL;
	}
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, in[0], 0);
	posix_spawn_file_actions_adddup2(&fa, out[1], 1);
	posix_spawnattr_init(&at);
	sigemptyset(&none);
	posix_spawnattr_setsigmask(&at, &none);
	posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK);
	r = posix_spawn(&pid, program, &fa, &at, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	posix_spawnattr_destroy(&at);
	close(in[0]);
	close(out[1]);
	if (r) {
		close(in[1]);
		close(out[0]);
		return err_sys(e, r, "%s", program), NULL;
	}
	r = feed(in[1], out[0], text, &answer);
	close(out[0]);
	if (waitpid(pid, &status, 0) != pid || status || r)
		return err_set(e, EIO, "%s %s failed", program, argument), NULL;
	o = json_parse(answer.buf, answer.len, e);
	if (!o)
		err_wrap(e, "%s %s", program, argument);
	return o;
}
