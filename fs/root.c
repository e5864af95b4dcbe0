// SPDX-License-Identifier: Apache-2.0
/* The top of the mount, and the files that belong to no object. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "lib/version.h"

#include "fs/fs.h"

enum {
	S_ROOT = 1,
	S_JOBS,
	S_TABLES,
	S_FEDERATION,
	S_PARTIES,
	S_MODELS,
	S_COMPONENTS,
	S_ERRORS,
	S_VERSION,
	S_METRICS,
	S_JOBS_NEW,
	S_JOBS_LATEST,
	S_JOBS_QUEUE,
	S_MODELS_AGAIN,
};

static const struct ent top[] = {
	{ "jobs", S_JOBS, S_IFDIR | 0755, 0 },
	{ "tables", S_TABLES, S_IFDIR | 0775, 0 },
	{ "models", S_MODELS, S_IFDIR | 0755, 0 },
	{ "federation", S_FEDERATION, S_IFDIR | 0755, 0 },
	{ "parties", S_PARTIES, S_IFDIR | 0755, 0 },
	{ "components", S_COMPONENTS, S_IFDIR | 0555, 0 },
	{ "errors", S_ERRORS, S_IFREG | 0444, 0 },
	{ "version", S_VERSION, S_IFREG | 0444, 0 },
	{ "metrics", S_METRICS, S_IFREG | 0444, 0 },
};
static const struct ent in_jobs[] = {
	{ "new", S_JOBS_NEW, S_IFREG | 0660, 0 },
	{ "latest", S_JOBS_LATEST, S_IFLNK | 0777, 0 },
	{ "queue", S_JOBS_QUEUE, S_IFREG | 0444, 0 },
};

/* What tar made of "models/..." may be extracted in models. */
static const struct ent in_models[] = {
	{ "models", S_MODELS_AGAIN, S_IFDIR | 0755, E_HIDDEN },
};

fuse_ino_t root_tables_ino(void)
{
	return nid_ino(K_STATIC, 0, S_TABLES);
}

static char *version_text(void)
{
	char *s = NULL;

	if (asprintf(&s, "rollfs %s\nprotocol 1\nparty %s\nfederation %s\n",
		     rollfs_version(), fs.conf->party, fs.conf->federation) < 0)
		return NULL;
	return s;
}

/* Texts are made when asked for; when did this one last read otherwise? */
static int64_t changed_ms(unsigned slot, const char *text)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static struct {
		uint64_t hash;
		int64_t ms;
	} seen[16];
	uint64_t h = 14695981039346656037u;
	int64_t ms;

	for (; text && *text; text++)
		h = (h ^ (unsigned char)*text) * 1099511628211u;
	pthread_mutex_lock(&lock);
	if (seen[slot % 16].hash != h) {
		seen[slot % 16].hash = h;
		seen[slot % 16].ms = now_unix_ms();
	}
	ms = seen[slot % 16].ms;
	pthread_mutex_unlock(&lock);
	return ms;
}

static char *metrics_make(void)
{
	struct strbuf sb = STRBUF_INIT(4u << 20);
	_cleanup_free_ char *a = transfer_metrics_text(fs.transfer);
	_cleanup_free_ char *b = sched_metrics_text(fs.sched);

	if (a)
		sb_adds(&sb, a);
	if (b)
		sb_adds(&sb, b);
	return sb_detach(&sb);
}

/* One for a second, so that stat and read agree. */
static char *metrics_text(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static char *text;
	static int64_t until_ms;
	char *copy;

	pthread_mutex_lock(&lock);
	if (!text || now_mono_ms() >= until_ms) {
		free(text);
		text = metrics_make();
		until_ms = now_mono_ms() + 1000;
	}
	copy = text ? strdup(text) : NULL;
	pthread_mutex_unlock(&lock);
	return copy;
}

/* The text of a file, NULL = it is not such a file. */
static char *text_of(unsigned slot, uid_t uid)
{
	switch (slot) {
	case S_ERRORS:
		return errors_text(uid);
	case S_VERSION:
		return version_text();
	case S_METRICS:
		return metrics_text();
	case S_JOBS_QUEUE:
		return sched_queue_text(fs.sched);
	default:
		return NULL;
	}
}

static int root_getattr(const struct who *w, struct nid n, struct attr *ret)
{
	const struct ent *e = ent_by_slot(top, ARRAY_SIZE(top), n.slot);
	_cleanup_free_ char *text = NULL;
	fuse_ino_t ino = nid_ino(K_STATIC, 0, n.slot);

	if (n.slot == S_ROOT) {
		attr_fill(ret, ino, S_IFDIR | 0755, 0, 0);
		ret->attr_s = 1;
		return 0;
	}
	if (!e)
		e = ent_by_slot(in_jobs, ARRAY_SIZE(in_jobs), n.slot);
	if (!e)
		e = ent_by_slot(in_models, ARRAY_SIZE(in_models), n.slot);
	if (!e)
		return -ENOENT;
	if (n.slot == S_JOBS_LATEST) {
		text = sched_latest(fs.sched);
		if (!text)
			return -ENOENT;
	} else if (S_ISREG(e->mode)) {
		text = text_of(n.slot, w->uid);
	}
	attr_fill(ret, ino, e->mode, text ? strlen(text) : 0,
		  S_ISREG(e->mode) ? changed_ms(n.slot, text) : 0);
	/* What only the group may enter when others can come. */
	if (fs.allow_other && ((n.slot >= S_JOBS && n.slot <= S_MODELS) ||
			       n.slot == S_MODELS_AGAIN))
		ret->st.st_mode &= ~(mode_t)0007;
	ret->entry_s = n.slot == S_JOBS_LATEST ? 0 : 3600;
	ret->attr_s = S_ISDIR(e->mode) ? 1 : 0;
	return 0;
}

static int root_lookup(const struct who *w, struct nid dir, const char *name,
		       struct attr *ret)
{
	static _Atomic uint64_t opened;
	const struct ent *e = NULL;
	int no;

	switch (dir.slot) {
	case S_ROOT:
		e = ent_by_name(top, ARRAY_SIZE(top), name);
		break;
	case S_JOBS:
		e = ent_by_name(in_jobs, ARRAY_SIZE(in_jobs), name);
		if (!e)
			return job_lookup(name, ret);
		break;
	case S_TABLES:
		return namespace_lookup(name, ret);
	case S_FEDERATION:
		return peer_lookup(name, ret);
	case S_MODELS:
		e = ent_by_name(in_models, ARRAY_SIZE(in_models), name);
		if (!e)
			return model_lookup(name, false, ret);
		break;
	case S_MODELS_AGAIN:
		return model_lookup(name, true, ret);
	case S_PARTIES:
		return party_lookup(name, ret);
	case S_COMPONENTS:
		return component_lookup(name, ret);
	default:
		return -ENOTDIR;
	}
	if (!e)
		return -ENOENT;
	no = root_getattr(w, (struct nid){ K_STATIC, 0, e->slot }, ret);
	/*
	 * The kernel holds a node's lock while a write to it is answered, and
	 * a check may take seconds: each opener has a node of his own.
	 */
	if (!no && e->slot == S_JOBS_NEW) {
		ret->node = nid_ino(K_STATIC, ++opened & 0xffffffff, e->slot);
		ret->entry_s = 0;
	}
	return no;
}

static int root_list(const struct who *w, struct nid dir, struct listing *l)
{
	const struct ent *t = NULL;
	size_t n = 0;

	switch (dir.slot) {
	case S_ROOT:
		t = top;
		n = ARRAY_SIZE(top);
		break;
	case S_JOBS:
		t = in_jobs;
		n = ARRAY_SIZE(in_jobs);
		break;
	case S_TABLES:
		return namespaces_list(l);
	case S_FEDERATION:
		return peers_list(l);
	case S_MODELS:
	case S_MODELS_AGAIN:
		return models_list(dir.slot == S_MODELS_AGAIN, l);
	case S_PARTIES:
		return parties_list(l);
	case S_COMPONENTS:
		return components_list(l);
	default:
		return -ENOTDIR;
	}
	for (size_t i = 0; i < n; i++) {
		struct attr a;
		struct nid x = { K_STATIC, 0, t[i].slot };

		if (S_ISLNK(t[i].mode) && root_getattr(w, x, &a))
			continue; /* no job yet */
		listing_add(l, t[i].name, nid_ino(K_STATIC, 0, t[i].slot),
			    t[i].mode);
	}
	return dir.slot == S_JOBS ? jobs_list(l) : 0;
}

static int root_open(const struct who *w, struct nid n, int flags,
		     struct handle **ret)
{
	if (n.slot == S_JOBS_NEW)
		return jobs_new_open(w, n, flags, ret);
	return open_text(w, n, flags, text_of(n.slot, w->uid), ret);
}

static int root_readlink(struct nid n, struct strbuf *ret)
{
	_cleanup_free_ char *id = NULL;

	if (n.slot != S_JOBS_LATEST)
		return -EINVAL;
	id = sched_latest(fs.sched);
	return id ? sb_adds(ret, id) : -ENOENT;
}

static int root_mkdir(const struct who *w, struct nid dir, const char *name,
		      mode_t mode, struct attr *ret)
{
	switch (dir.slot) {
	case S_TABLES:
		return namespace_mkdir(w, name, mode, ret);
	case S_PARTIES:
		return party_mkdir(w, name, ret);
	case S_MODELS:
	case S_MODELS_AGAIN:
		return model_mkdir(w, name, dir.slot == S_MODELS_AGAIN, ret);
	default:
		return -EPERM;
	}
}

static int root_rmdir(const struct who *w, struct nid dir, const char *name)
{
	switch (dir.slot) {
	case S_TABLES:
		return namespace_rmdir(w, name);
	case S_PARTIES:
		return party_rmdir(w, name);
	case S_JOBS:
		return job_remove(w, name);
	case S_MODELS:
	case S_MODELS_AGAIN:
		return model_rmdir(w, name);
	default:
		return -EPERM;
	}
}

static int root_rename(const struct who *w, struct nid dir, const char *name,
		       struct nid to, const char *to_name, unsigned flags)
{
	if (dir.kind != to.kind || dir.slot != S_TABLES || to.slot != S_TABLES)
		return -EPERM;
	return namespace_rename(w, name, to_name, flags);
}

/* Namespaces may be many, and each is cheap to look up. */
static bool root_plus(struct nid dir, mode_t mode)
{
	(void)mode;
	return dir.slot == S_TABLES;
}

static void root_path(struct nid n, struct strbuf *ret)
{
	const struct ent *e = ent_by_slot(top, ARRAY_SIZE(top), n.slot);

	if (!e && (e = ent_by_slot(in_jobs, ARRAY_SIZE(in_jobs), n.slot)))
		sb_adds(ret, "jobs/");
	if (!e && (e = ent_by_slot(in_models, ARRAY_SIZE(in_models), n.slot)))
		sb_adds(ret, "models/");
	if (e)
		sb_adds(ret, e->name);
}

const struct tree tree_static = {
	.lookup = root_lookup,
	.getattr = root_getattr,
	.list = root_list,
	.open = root_open,
	.readlink = root_readlink,
	.mkdir = root_mkdir,
	.rmdir = root_rmdir,
	.rename = root_rename,
	.plus = root_plus,
	.path = root_path,
};
