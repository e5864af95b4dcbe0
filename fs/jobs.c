// SPDX-License-Identifier: Apache-2.0
/* /jobs/<id>/ and the directories of its tasks: the scheduler's files under
 * their own names, and the two that are only here, wait and ctl. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/stat.h>

#include "fs/fs.h"

/* Slots of a job (K_JOB) ... */
enum {
	J_DIR,
	J_STATUS,
	J_WAIT,
	J_CTL,
	J_ERROR,
	J_PROGRESS,
	J_EVENTS,
	J_LOG,
	J_DSL,
	J_CONF,
	J_PARTIES,
	J_PARAMS,
	J_SUMMARY,
	J_IN,
	J_OUT,
	J_MODEL,
	J_ROLE0 = 32,	/* directories of the roles */
	J_PARTY0 = 64,	/* parties/<role>-<party>, its status one further */
	J_NAME0 = 1024, /* in/<name>; out and model: 1024 further each */
	J_NAMES = 1024,
};

static const struct ent job_files[] = {
	{ "status", J_STATUS, S_IFREG | 0444, E_DISK },
	{ "wait", J_WAIT, S_IFREG | 0444, E_HIDDEN | E_STREAM },
	{ "ctl", J_CTL, S_IFREG | 0660, 0 },
	{ "error", J_ERROR, S_IFREG | 0444, E_DISK | E_EMPTY },
	{ "progress", J_PROGRESS, S_IFREG | 0444, E_DISK | E_EMPTY },
	{ "events", J_EVENTS, S_IFREG | 0444, E_DISK | E_EMPTY },
	{ "log", J_LOG, S_IFREG | 0444, E_DISK | E_EMPTY },
	{ "dsl.json", J_DSL, S_IFREG | 0444, E_DISK },
	{ "conf.json", J_CONF, S_IFREG | 0444, E_DISK },
	{ "parties", J_PARTIES, S_IFDIR | 0755, E_DISK },
};
static const struct ent task_files[] = {
	{ "status", J_STATUS, S_IFREG | 0444, E_DISK },
	{ "wait", J_WAIT, S_IFREG | 0444, E_HIDDEN | E_STREAM },
	{ "error", J_ERROR, S_IFREG | 0444, E_DISK | E_EMPTY },
	{ "progress", J_PROGRESS, S_IFREG | 0444, E_DISK | E_EMPTY },
	{ "log", J_LOG, S_IFREG | 0444, E_DISK | E_EMPTY },
	{ "events", J_EVENTS, S_IFREG | 0444, E_DISK | E_EMPTY },
	{ "params.json", J_PARAMS, S_IFREG | 0444, E_DISK },
	{ "summary.json", J_SUMMARY, S_IFREG | 0444, E_DISK },
	{ "in", J_IN, S_IFDIR | 0755, E_DISK },
	{ "out", J_OUT, S_IFDIR | 0755, E_DISK },
	{ "model", J_MODEL, S_IFDIR | 0755, E_DISK },
};
static const char *const roles[] = { "guest", "host", "arbiter", "local" };

/* Names of inputs, outputs and models get small numbers when first seen;
 * there are as many as components declare. */
static pthread_mutex_t name_lock = PTHREAD_MUTEX_INITIALIZER;
static char *names[J_NAMES] = {
	(char *)"data",	     (char *)"train_data", (char *)"validate_data",
	(char *)"test_data", (char *)"model",	   (char *)"model.json",
};
static unsigned n_names = 6;

static int name_number(const char *name)
{
	int no = -1;

	pthread_mutex_lock(&name_lock);
	for (unsigned i = 0; i < n_names && no < 0; i++)
		if (!strcmp(names[i], name))
			no = (int)i;
	if (no < 0 && n_names < J_NAMES && (names[n_names] = strdup(name)))
		no = (int)n_names++;
	pthread_mutex_unlock(&name_lock);
	return no;
}

static const char *name_of(unsigned i)
{
	const char *s;

	pthread_mutex_lock(&name_lock);
	s = i < n_names ? names[i] : NULL;
	pthread_mutex_unlock(&name_lock);
	return s; /* names are never freed */
}

static void info_freep(struct sched_job_info **i)
{
	sched_job_info_free(*i);
}
#define _cleanup_info_ _cleanup_(info_freep)

static const struct sched_task_info *task_of(const struct sched_job_info *i,
					     uint64_t number)
{
	uint64_t k = number - i->number - 1;

	return number > i->number && k < i->n_tasks ? &i->tasks[k] : NULL;
}

static bool name_ok(const char *name)
{
	return name[0] && name[0] != '.' && !strchr(name, '/');
}

/*
 * The node's path below STATE (kept where a task or job stands), its mode
 * and flags.  Virtual files have an empty path.
 */
struct place {
	struct strbuf path;
	mode_t mode;
	unsigned flags;
};

static int locate_job(struct nid n, const struct sched_job_info *i,
		      struct place *p)
{
	const struct ent *e;

	sb_addf(&p->path, "%s/jobs/%s", fs.conf->state, i->id);
	p->mode = S_IFDIR | 0755;
	p->flags = E_DISK;
	if (n.slot == J_DIR)
		return 0;
	if (n.slot >= J_ROLE0 && n.slot < J_ROLE0 + ARRAY_SIZE(roles)) {
		sb_addf(&p->path, "/%s", roles[n.slot - J_ROLE0]);
		return 0;
	}
	if (n.slot >= J_PARTY0) {
		unsigned k = n.slot - J_PARTY0;

		if (k / 2 >= i->n_parties)
			return -ENOENT;
		sb_addf(&p->path, "/parties/%s", i->parties[k / 2]);
		if (k % 2) {
			sb_adds(&p->path, "/status");
			p->mode = S_IFREG | 0444;
			p->flags |= E_EMPTY;
		}
		return 0;
	}
	e = ent_by_slot(job_files, ARRAY_SIZE(job_files), n.slot);
	if (!e)
		return -ENOENT;
	sb_addf(&p->path, "/%s", e->name);
	p->mode = e->mode;
	p->flags = e->flags;
	return 0;
}

static int locate_task(struct nid n, const struct sched_job_info *i,
		       struct place *p)
{
	static const struct {
		const char *dir;
		mode_t mode;
	} of[] = { { "in", S_IFLNK | 0777 },
		   { "out", S_IFLNK | 0777 },
		   { "model", S_IFREG | 0600 } };
	const struct sched_task_info *t = task_of(i, n.number);
	const struct ent *e;

	if (!t)
		return -ENOENT;
	sb_addf(&p->path, "%s/jobs/%s/%s/%s", fs.conf->state, i->id, t->role,
		t->component);
	p->mode = S_IFDIR | 0755;
	p->flags = E_DISK | E_EMPTY;
	if (n.slot == J_DIR)
		return 0;
	if (n.slot >= J_NAME0) {
		unsigned k = n.slot - J_NAME0;
		const char *name = name_of(k % J_NAMES);

		if (k / J_NAMES >= ARRAY_SIZE(of) || !name)
			return -ENOENT;
		sb_addf(&p->path, "/%s/%s", of[k / J_NAMES].dir, name);
		p->mode = of[k / J_NAMES].mode;
		p->flags = E_DISK;
		return 0;
	}
	e = ent_by_slot(task_files, ARRAY_SIZE(task_files), n.slot);
	if (!e)
		return -ENOENT;
	sb_addf(&p->path, "/%s", e->name);
	p->mode = e->mode;
	p->flags = e->flags | (S_ISDIR(e->mode) ? E_EMPTY : 0);
	return 0;
}

static int locate(struct nid n, struct sched_job_info **ret_info,
		  struct place *p)
{
	struct sched_job_info *i = sched_job_by_number(fs.sched, n.number);
	int no;

	if (!i)
		return -ENOENT;
	no = n.kind == K_JOB ? locate_job(n, i, p) : locate_task(n, i, p);
	if (!no && p->path.error)
		no = p->path.error;
	if (!no && ret_info)
		*ret_info = TAKE_PTR(i);
	sched_job_info_free(i);
	return no;
}

#define PLACE_INIT                        \
	{                                 \
		.path = STRBUF_INIT(8192) \
	}
static void place_free(struct place *p)
{
	sb_free(&p->path);
}
#define _cleanup_place_ _cleanup_(place_free)

static int job_getattr(const struct who *w, struct nid n, struct attr *ret)
{
	_cleanup_place_ struct place p = PLACE_INIT;
	fuse_ino_t ino = nid_ino(n.kind, n.number, n.slot);
	int no = locate(n, NULL, &p);

	(void)w;
	if (no)
		return no;
	if (!(p.flags & E_DISK)) {
		attr_fill(ret, ino, p.mode, 0, 0);
		ret->attr_s = 60;
		return 0;
	}
	no = attr_disk(ret, ino, p.mode, p.path.buf, p.flags & E_EMPTY);
	if (no)
		return no;
	if (S_ISLNK(p.mode)) /* what readlink puts in front */
		ret->st.st_size += (off_t)strlen("../../../../../");
	if (S_ISDIR(p.mode))
		ret->attr_s = 1;
	return 0;
}

bool job_ended(const char *id)
{
	_cleanup_info_ struct sched_job_info *i = sched_job(fs.sched, id);

	return i && i->ended;
}

bool job_runs(const char *id)
{
	_cleanup_info_ struct sched_job_info *i = sched_job(fs.sched, id);

	return i && !i->ended;
}

int job_lookup(const char *name, struct attr *ret)
{
	_cleanup_info_ struct sched_job_info *i = NULL;

	if (!name_ok(name) || strlen(name) > 40)
		return -ENOENT;
	i = sched_job(fs.sched, name);
	if (!i)
		return -ENOENT;
	return job_getattr(NULL, (struct nid){ K_JOB, i->number, J_DIR }, ret);
}

int jobs_list(struct listing *l)
{
	char **ids = sched_jobs(fs.sched);

	for (char **p = ids; p && *p; p++) {
		_cleanup_info_ struct sched_job_info *i =
		    sched_job(fs.sched, *p);

		if (i)
			listing_add(l, i->id, nid_ino(K_JOB, i->number, J_DIR),
				    S_IFDIR);
		free(*p);
	}
	free(ids);
	return 0;
}

/* Which entry a name of a job's own directories means. */
static int find_in_job(struct nid dir, const struct sched_job_info *i,
		       const char *name, struct nid *ret)
{
	const struct ent *e;

	*ret = (struct nid){ K_JOB, i->number, 0 };
	if (dir.slot == J_DIR) {
		e = ent_by_name(job_files, ARRAY_SIZE(job_files), name);
		if (e) {
			ret->slot = e->slot;
			return 0;
		}
		for (unsigned r = 0; r < ARRAY_SIZE(roles); r++)
			if (!strcmp(roles[r], name)) {
				ret->slot = J_ROLE0 + r;
				return 0;
			}
	} else if (dir.slot == J_PARTIES) {
		for (unsigned k = 0; k < i->n_parties && k < 400; k++)
			if (!strcmp(i->parties[k], name)) {
				ret->slot = J_PARTY0 + 2 * k;
				return 0;
			}
	} else if (dir.slot >= J_PARTY0 && (dir.slot - J_PARTY0) % 2 == 0) {
		ret->slot = dir.slot + 1;
		return strcmp(name, "status") ? -ENOENT : 0;
	} else if (dir.slot >= J_ROLE0 &&
		   dir.slot < J_ROLE0 + ARRAY_SIZE(roles)) {
		const char *role = roles[dir.slot - J_ROLE0];

		for (size_t k = 0; k < i->n_tasks; k++)
			if (!strcmp(i->tasks[k].role, role) &&
			    !strcmp(i->tasks[k].component, name)) {
				*ret = (struct nid){ K_TASK, i->number + 1 + k,
						     J_DIR };
				return 0;
			}
	}
	return -ENOENT;
}

static int jobs_lookup(const struct who *w, struct nid dir, const char *name,
		       struct attr *ret)
{
	_cleanup_info_ struct sched_job_info *i = NULL;
	struct nid n;
	int no;

	if (!name_ok(name))
		return -ENOENT;
	i = sched_job_by_number(fs.sched, dir.number);
	if (!i)
		return -ENOENT;
	no = find_in_job(dir, i, name, &n);
	return no ? no : job_getattr(w, n, ret);
}

/* "<job>/<role>/<component>"; caller frees. */
static char *task_name(uint64_t number)
{
	_cleanup_info_ struct sched_job_info *i =
	    sched_job_by_number(fs.sched, number);
	const struct sched_task_info *t = i ? task_of(i, number) : NULL;
	char *s = NULL;

	return !t || asprintf(&s, "%s/%s/%s", i->id, t->role, t->component) < 0
		   ? NULL
		   : s;
}

static int tasks_lookup(const struct who *w, struct nid dir, const char *name,
			struct attr *ret)
{
	struct nid n = { K_TASK, dir.number, 0 };
	const struct ent *e;

	if (!name_ok(name))
		return -ENOENT;
	if (dir.slot == J_DIR) {
		_cleanup_free_ char *task = NULL;

		e = ent_by_name(task_files, ARRAY_SIZE(task_files), name);
		if (!e) {
			task = task_name(dir.number);
			return task ? curves_lookup(task, name, ret) : -ENOENT;
		}
		n.slot = e->slot;
	} else if (dir.slot >= J_IN && dir.slot <= J_MODEL) {
		_cleanup_place_ struct place p = PLACE_INIT;
		struct stat st;
		int k;

		/* Only names that exist get a number. */
		if (locate(dir, NULL, &p) || sb_addf(&p.path, "/%s", name) ||
		    lstat(p.path.buf, &st))
			return -ENOENT;
		k = name_number(name);
		if (k < 0)
			return -ENOENT;
		n.slot = J_NAME0 + (dir.slot - J_IN) * J_NAMES + (unsigned)k;
	} else {
		return -ENOTDIR;
	}
	return job_getattr(w, n, ret);
}

static void list_ents(struct listing *l, const struct ent *t, size_t n,
		      struct nid dir)
{
	for (size_t i = 0; i < n; i++) {
		struct nid x = { dir.kind, dir.number, t[i].slot };
		struct attr a;

		if (!(t[i].flags & E_HIDDEN) && !job_getattr(NULL, x, &a))
			listing_add(l, t[i].name,
				    nid_ino(x.kind, x.number, x.slot),
				    t[i].mode);
	}
}

static int jobs_list_dir(const struct who *w, struct nid dir, struct listing *l)
{
	_cleanup_info_ struct sched_job_info *i =
	    sched_job_by_number(fs.sched, dir.number);

	(void)w;
	if (!i)
		return -ENOENT;
	if (dir.slot == J_DIR) {
		list_ents(l, job_files, ARRAY_SIZE(job_files), dir);
		for (unsigned r = 0; r < ARRAY_SIZE(roles); r++) {
			struct attr a;
			struct nid n = { K_JOB, i->number, J_ROLE0 + r };

			if (!job_getattr(NULL, n, &a))
				listing_add(l, roles[r], a.st.st_ino, S_IFDIR);
		}
	} else if (dir.slot == J_PARTIES) {
		for (unsigned k = 0; k < i->n_parties && k < 400; k++)
			listing_add(l, i->parties[k],
				    nid_ino(K_JOB, i->number, J_PARTY0 + 2 * k),
				    S_IFDIR);
	} else if (dir.slot >= J_PARTY0) {
		listing_add(l, "status",
			    nid_ino(K_JOB, i->number, dir.slot + 1), S_IFREG);
	} else if (dir.slot >= J_ROLE0) {
		for (size_t k = 0; k < i->n_tasks; k++)
			if (!strcmp(i->tasks[k].role,
				    roles[dir.slot - J_ROLE0]))
				listing_add(
				    l, i->tasks[k].component,
				    nid_ino(K_TASK, i->number + 1 + k, J_DIR),
				    S_IFDIR);
	}
	return 0;
}

static int tasks_list_dir(const struct who *w, struct nid dir,
			  struct listing *l)
{
	_cleanup_place_ struct place p = PLACE_INIT;
	_cleanup_closedir_ DIR *d = NULL;
	const struct dirent *de;
	int no = locate(dir, NULL, &p);

	(void)w;
	if (no)
		return no;
	if (dir.slot == J_DIR) {
		_cleanup_free_ char *task = task_name(dir.number);

		list_ents(l, task_files, ARRAY_SIZE(task_files), dir);
		if (task)
			curves_list_task(task, l);
		return 0;
	}
	d = opendir(p.path.buf);
	while (d && (de = readdir(d))) {
		int k = name_ok(de->d_name) ? name_number(de->d_name) : -1;

		if (k >= 0)
			listing_add(l, de->d_name,
				    nid_ino(K_TASK, dir.number,
					    J_NAME0 +
						(dir.slot - J_IN) * J_NAMES +
						(unsigned)k),
				    dir.slot == J_MODEL ? S_IFREG : S_IFLNK);
	}
	return 0;
}

static int job_readlink(struct nid n, struct strbuf *ret)
{
	_cleanup_place_ struct place p = PLACE_INIT;
	char to[2048];
	ssize_t k;
	int no = locate(n, NULL, &p);

	if (no)
		return no;
	k = readlink(p.path.buf, to, sizeof(to) - 1);
	if (k < 0)
		return -errno;
	to[k] = '\0';
	/* jobs/<id>/<role>/<component>/in: five steps to the root */
	return sb_addf(ret, "../../../../../%s", to);
}

/* ---- wait ------------------------------------------------------------- */

/* What a wait handle knows; shared by its reads and its poll. */
struct waiter {
	char job[41];
	char *role, *component; /* NULL: the job */
	char answer[32];	/* with its newline once known */
	size_t at;
};

static void waiter_free(struct handle *h)
{
	struct waiter *x = h->own;

	if (x) {
		free(x->role);
		free(x->component);
		free(x);
	}
}

/* The status word if it has ended. */
static bool ended_now(const struct waiter *x)
{
	_cleanup_strbuf_ struct strbuf path = STRBUF_INIT(8192);
	_cleanup_strbuf_ struct strbuf word = STRBUF_INIT(64);
	static const char *const ended[] = { "success\n",  "failed\n",
					     "canceled\n", "timeout\n",
					     "pass\n",	   "skipped\n" };

	sb_addf(&path, "%s/jobs/%s%s%s%s%s/status", fs.conf->state, x->job,
		x->role ? "/" : "", x->role ? x->role : "", x->role ? "/" : "",
		x->role ? x->component : "");
	if (file_read(path.buf, &word, NULL))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(ended); i++)
		if (!strcmp(word.buf, ended[i]))
			return true;
	return false;
}

struct wait_call {
	struct park *park;
	struct handle *h;
	size_t n;
};

static void give(fuse_req_t r, struct waiter *x, size_t n)
{
	char out[sizeof(x->answer)];
	size_t k = MIN(n, strlen(x->answer) - x->at);

	/* Once answered, the reader may close and the handle be gone. */
	memcpy(out, x->answer + x->at, k);
	x->at += k;
	fuse_reply_buf(r, out, k);
}

static void on_end(void *arg, const char *status)
{
	struct wait_call c = *(struct wait_call *)arg;
	fuse_req_t r = park_take(c.park);

	if (r) { /* the handle lives as long as its request */
		struct waiter *x = c.h->own;

		pthread_mutex_lock(&c.h->lock);
		(void)snprintf(x->answer, sizeof(x->answer), "%s\n", status);
		pthread_mutex_unlock(&c.h->lock);
		give(r, x, c.n);
	}
}

static bool cancel_wait(void *arg, uint64_t number)
{
	(void)arg;
	return sched_wait_cancel(fs.sched, number);
}

static void wait_read(fuse_req_t r, struct handle *h, size_t n, off_t off,
		      struct fuse_file_info *fi)
{
	struct waiter *x = h->own;
	struct wait_call *c;
	struct park *p;
	uint64_t number;
	bool known;

	(void)off;
	pthread_mutex_lock(&h->lock);
	known = x->answer[0] != '\0';
	pthread_mutex_unlock(&h->lock);
	if (known) {
		give(r, x, n);
		return;
	}
	if ((fi->flags & O_NONBLOCK) && !ended_now(x)) {
		fuse_reply_err(r, EAGAIN);
		return;
	}
	c = calloc(1, sizeof(*c));
	p = c ? park_new(r, cancel_wait, c) : NULL;
	if (!p) {
		free(c);
		fuse_reply_err(r, ENOMEM);
		return;
	}
	c->h = h;
	c->n = n;
	c->park = p;
	number = sched_wait(fs.sched, x->job, x->role, x->component, on_end, c);
	if (!number) { /* gone: the callback will not come */
		r = park_take(p);
		if (r)
			fuse_reply_err(r, ENOENT);
	}
	park_arm(p, number);
}

static unsigned wait_poll(struct handle *h)
{
	const struct waiter *x = h->own;

	return x->answer[0] || ended_now(x) ? POLLIN | POLLRDNORM : 0;
}

static const struct handle_ops wait_ops = {
	.read = wait_read,
	.poll = wait_poll,
	.release = waiter_free,
};

/* ---- ctl -------------------------------------------------------------- */

struct ctl {
	char job[41];
};

/* One command a line, run inside the write that brings it: the shells' own
 * echo reports an error of write, not one of close. */
static void ctl_write(fuse_req_t r, struct handle *h, const char *buf, size_t n,
		      off_t off)
{
	const struct ctl *c = h->own;
	_cleanup_free_ char *text = NULL;
	char *save = NULL;

	(void)off;
	if (n > 4096) {
		fuse_reply_err(r, EMSGSIZE);
		return;
	}
	text = strndup(buf, n);
	if (!text) {
		fuse_reply_err(r, ENOMEM);
		return;
	}
	for (char *line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		struct err e = { 0 };
		int no;

		if (!line[strspn(line, " \t\r")])
			continue;
		no = sched_ctl(fs.sched, c->job, line, &e);
		if (no) {
			char what[64];

			(void)snprintf(what, sizeof(what), "jobs/%s/ctl",
				       c->job);
			errors_add(h->uid, what, no, e.text);
			fuse_reply_err(r, -no);
			return;
		}
	}
	fuse_reply_write(r, n);
}

static void free_own(struct handle *h)
{
	free(h->own);
}

static const struct handle_ops ctl_ops = {
	.write = ctl_write,
	.release = free_own,
};

static int ctl_open(const struct who *w, struct nid n, int flags,
		    const char *job, struct handle **ret)
{
	struct handle *h = handle_new(w, n, flags, &ctl_ops);
	struct ctl *c = calloc(1, sizeof(*c));

	if (!h || !c) {
		free(c);
		handle_free(h);
		return -ENOMEM;
	}
	(void)snprintf(c->job, sizeof(c->job), "%s", job);
	h->own = c;
	*ret = h;
	return 0;
}

/* ---- open ------------------------------------------------------------- */

static int wait_open(const struct who *w, struct nid n, int flags,
		     const struct sched_job_info *i, struct handle **ret)
{
	const struct sched_task_info *t =
	    n.kind == K_TASK ? task_of(i, n.number) : NULL;
	struct handle *h;
	struct waiter *x;

	if ((flags & O_ACCMODE) != O_RDONLY)
		return -EACCES;
	h = handle_new(w, n, flags, &wait_ops);
	x = calloc(1, sizeof(*x));
	if (!h || !x) {
		free(x);
		if (h)
			h->ops = &(const struct handle_ops){ 0 };
		handle_free(h);
		return -ENOMEM;
	}
	h->own = x;
	h->nonseekable = true;
	(void)snprintf(x->job, sizeof(x->job), "%s", i->id);
	if (t) {
		x->role = strdup(t->role);
		x->component = strdup(t->component);
		if (!x->role || !x->component) {
			handle_free(h);
			return -ENOMEM;
		}
	}
	*ret = h;
	return 0;
}

/* ---- files that grow ---------------------------------------------------- */

/* As far as the last read went there is nothing new. */
static void grown_read(fuse_req_t r, struct handle *h, size_t n, off_t off,
		       struct fuse_file_info *fi)
{
	_cleanup_free_ char *buf = malloc(n + 1);
	ssize_t k = 0;

	(void)fi;
	if (h->fd >= 0 && buf)
		k = pread(h->fd, buf, n, off);
	if (!buf || k < 0) {
		fuse_reply_err(r, buf ? errno : ENOMEM);
		return;
	}
	pthread_mutex_lock(&h->lock);
	h->bytes = (uint64_t)off + (uint64_t)k;
	pthread_mutex_unlock(&h->lock);
	fuse_reply_buf(r, buf, (size_t)k);
}

static unsigned grown_poll(struct handle *h)
{
	struct stat st;
	bool more;

	if (h->fd < 0)
		return POLLIN |
		       POLLRDNORM; /* there was no file: empty for ever */
	watch_growth(h->fd); /* before it is looked at: no change is missed */
	if (fstat(h->fd, &st))
		return POLLERR;
	pthread_mutex_lock(&h->lock);
	more = (uint64_t)st.st_size > h->bytes;
	pthread_mutex_unlock(&h->lock);
	return more ? POLLIN | POLLRDNORM : 0;
}
const struct handle_ops grown_ops = { .read = grown_read, .poll = grown_poll };

static int job_open(const struct who *w, struct nid n, int flags,
		    struct handle **ret)
{
	_cleanup_place_ struct place p = PLACE_INIT;
	_cleanup_info_ struct sched_job_info *i = NULL;
	int no = locate(n, &i, &p);

	if (no)
		return no;
	if (p.flags & E_STREAM)
		return wait_open(w, n, flags, i, ret);
	if (n.kind == K_JOB && n.slot == J_CTL)
		return ctl_open(w, n, flags, i->id, ret);
	no = open_disk(w, n, flags, p.path.buf, p.flags & E_EMPTY, ret);
	if (!no && (n.slot == J_LOG || n.slot == J_EVENTS))
		(*ret)->ops = &grown_ops;
	return no;
}

/* ---- rm -r jobs/<id> -------------------------------------------------- */

int job_remove(const struct who *w, const char *name)
{
	struct err e = { 0 };
	int no;

	if (!name_ok(name))
		return -ENOENT;
	no = sched_remove(fs.sched, name, &e);
	if (no) {
		char what[300];

		(void)snprintf(what, sizeof(what), "jobs/%s", name);
		errors_add(w->uid, what, no, e.text);
	}
	return no;
}

/* rm -r goes through the files first; they vanish with the job. */
static int job_unlink(const struct who *w, struct nid dir, const char *name)
{
	_cleanup_info_ struct sched_job_info *i =
	    sched_job_by_number(fs.sched, dir.number);
	char what[64];

	(void)name;
	if (!i)
		return -ENOENT;
	if (i->ended)
		return 0;
	(void)snprintf(what, sizeof(what), "jobs/%s", i->id);
	errors_add(w->uid, what, -EBUSY,
		   "the job has not ended: echo cancel to its ctl first");
	return -EBUSY;
}

/* In the mount as below STATE. */
static void job_path(struct nid n, struct strbuf *ret)
{
	_cleanup_place_ struct place p = PLACE_INIT;

	if (!locate(n, NULL, &p) && p.path.buf)
		sb_adds(ret, p.path.buf + strlen(fs.conf->state) + 1);
}

const struct tree tree_jobs = {
	.lookup = jobs_lookup,
	.getattr = job_getattr,
	.list = jobs_list_dir,
	.open = job_open,
	.unlink = job_unlink,
	.rmdir = job_unlink,
	.path = job_path,
};
const struct tree tree_tasks = {
	.lookup = tasks_lookup,
	.getattr = job_getattr,
	.list = tasks_list_dir,
	.open = job_open,
	.readlink = job_readlink,
	.unlink = job_unlink,
	.rmdir = job_unlink,
	.path = job_path,
};
