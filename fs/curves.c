// SPDX-License-Identifier: Apache-2.0
/*
 * What a task writes while it learns, below jobs/<id>/<role>/<component>/:
 * metrics/<namespace>/<name>.tsv, which grow, and checkpoints/<n>.json.  The
 * files stand under these names in STATE.
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include "fs/fs.h"

/* Steps from "jobs" to the task's directory. */
#define TASK_DEPTH 4

static bool shown(const char *name)
{
	return name[0] && !strchr(name, '/') && !name_temporary(name);
}

/* What kind of file stands at this depth below the task; 0 = none. */
static mode_t kind_of(const char *path)
{
	const char *p = path;
	unsigned depth = 1;
	bool metrics;

	for (unsigned i = 0; i < TASK_DEPTH && p; i++) {
		p = strchr(p, '/');
		p = p ? p + 1 : NULL;
	}
	if (!p)
		return 0;
	metrics = !strncmp(p, "metrics", 7) && (!p[7] || p[7] == '/');
	for (; *p; p++)
		depth += *p == '/';
	if (depth == 1 || (metrics && depth == 2))
		return S_IFDIR;
	return depth == (metrics ? 3u : 2u) ? S_IFREG : 0;
}

static int fill(const char *path, uint64_t number, struct attr *ret)
{
	_cleanup_free_ char *disk = NULL;
	mode_t kind = kind_of(path);
	fuse_ino_t ino = nid_ino(K_CURVE, number, 0);
	struct stat st;
	int no;

	if (asprintf(&disk, "%s/%s", fs.conf->state, path) < 0)
		return -ENOMEM;
	if (!kind || lstat(disk, &st) || (st.st_mode & S_IFMT) != kind)
		return -ENOENT;
	no = attr_disk(ret, ino,
		       kind == S_IFDIR		   ? S_IFDIR | 0755
		       : strstr(path, "/metrics/") ? S_IFREG | 0444
						   : S_IFREG | 0600,
		       disk, false);
	ret->entry_s = 0; /* a retried task begins anew */
	return no;
}

static int find(const char *path, struct attr *ret)
{
	uint64_t number;
	int no = fill(path, 0, ret);

	if (!no)
		no = named_add(path, false, &number);
	if (!no)
		ret->st.st_ino = nid_ino(K_CURVE, number, 0);
	return no;
}

static int task_path(const char *task, const char *name, char **ret)
{
	if (strcmp(name, "metrics") && strcmp(name, "checkpoints"))
		return -ENOENT;
	return asprintf(ret, "jobs/%s/%s", task, name) < 0 ? -ENOMEM : 0;
}

int curves_lookup(const char *task, const char *name, struct attr *ret)
{
	_cleanup_free_ char *path = NULL;
	int no = task_path(task, name, &path);

	return no ? no : find(path, ret);
}

void curves_list_task(const char *task, struct listing *l)
{
	static const char *const dirs[] = { "metrics", "checkpoints" };

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		_cleanup_free_ char *path = NULL;
		struct attr a;

		if (!task_path(task, dirs[i], &path) && !fill(path, 0, &a))
			listing_add(
			    l, dirs[i],
			    nid_ino(K_CURVE, named_number(path, false), 0),
			    S_IFDIR);
	}
}

static int curves_find(const struct who *w, struct nid dir, const char *name,
		       struct attr *ret)
{
	_cleanup_free_ char *at = named_path(dir.number);
	_cleanup_free_ char *path = NULL;

	(void)w;
	if (!at)
		return -ESTALE;
	if (!shown(name))
		return -ENOENT;
	if (asprintf(&path, "%s/%s", at, name) < 0)
		return -ENOMEM;
	return find(path, ret);
}

static int curves_getattr(const struct who *w, struct nid n, struct attr *ret)
{
	_cleanup_free_ char *path = named_path(n.number);

	(void)w;
	return path ? fill(path, n.number, ret) : -ESTALE;
}

static int curves_list(const struct who *w, struct nid dir, struct listing *l)
{
	_cleanup_free_ char *at = named_path(dir.number), *disk = NULL;
	_cleanup_closedir_ DIR *d = NULL;
	const struct dirent *de;

	(void)w;
	if (!at)
		return -ESTALE;
	if (asprintf(&disk, "%s/%s", fs.conf->state, at) < 0)
		return -ENOMEM;
	d = opendir(disk);
	while (d && (de = readdir(d))) {
		_cleanup_free_ char *path = NULL;
		struct attr a;

		if (!shown(de->d_name) ||
		    asprintf(&path, "%s/%s", at, de->d_name) < 0 ||
		    fill(path, 0, &a))
			continue;
		listing_add(l, de->d_name,
			    nid_ino(K_CURVE, named_number(path, false), 0),
			    a.st.st_mode);
	}
	return 0;
}

static int curves_open(const struct who *w, struct nid n, int flags,
		       struct handle **ret)
{
	_cleanup_free_ char *path = named_path(n.number), *disk = NULL;
	int no;

	if (!path)
		return -ESTALE;
	if (asprintf(&disk, "%s/%s", fs.conf->state, path) < 0)
		return -ENOMEM;
	no = open_disk(w, n, flags, disk, false, ret);
	if (!no)
		(*ret)->ops = &grown_ops;
	return no;
}

/* rm -r jobs/<id> goes through the files first; they vanish with the job. */
static int curves_unlink(const struct who *w, struct nid dir, const char *name)
{
	_cleanup_free_ char *path = named_path(dir.number);
	char id[41];

	(void)w, (void)name;
	if (!path || sscanf(path, "jobs/%40[0-9]", id) != 1)
		return -ESTALE;
	return job_ended(id) ? 0 : -EBUSY;
}

const struct tree tree_curves = {
	.lookup = curves_find,
	.getattr = curves_getattr,
	.list = curves_list,
	.open = curves_open,
	.unlink = curves_unlink,
	.rmdir = curves_unlink,
	.forget = named_forget,
};
