// SPDX-License-Identifier: Apache-2.0
/*
 * Tables are published and dropped by other processes too: tasks, and the
 * scheduler below the mount.  The store's names are files that are renamed
 * into place, so inotify(7) tells of each; the kernel is told to forget what it
 * knows of the name.  Watched are the namespaces that the kernel knows.  When
 * events were lost all that is known is forgotten; when there are no watches
 * left, the entries' timeouts of a second remain.  Watched are also files that
 * grow and are polled: tasks write them.
 */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <uthash.h>

#include "fs/tables_priv.h"

/* The analyzer does not follow what a hash table keeps. */
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

#define WATCHED (IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ONLYDIR)

struct watch {
	int wd;
	uint64_t id; /* of the namespace */
	UT_hash_handle hh, hi;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct watch *by_wd, *by_id;
static int inotify_fd = -1, stop_fd = -1, names_wd = -1;
static atomic_bool incomplete; /* there were no watches left */
static pthread_t thread;

bool watch_works(void)
{
	return inotify_fd >= 0 && !incomplete;
}

static char *names_path(const char *ns)
{
	_cleanup_free_ char *esc = ns ? table_escape(ns) : NULL;

	return xasprintf("%s/tables/names%s%s", fs.conf->state, ns ? "/" : "",
			 esc ? esc : "");
}

void watch_namespace(uint64_t id, const char *ns)
{
	_cleanup_free_ char *path = NULL;
	struct watch *w, *other;

	pthread_mutex_lock(&lock);
	HASH_FIND(hi, by_id, &id, sizeof(id), w);
	if (inotify_fd < 0 || w) {
		pthread_mutex_unlock(&lock);
		return;
	}
	path = names_path(ns);
	w = calloc(1, sizeof(*w));
	if (w) {
		w->id = id;
		w->wd = inotify_add_watch(inotify_fd, path, WATCHED);
	}
	if (w && w->wd < 0) {
		if (errno == ENOSPC && !incomplete)
			log_warn("fs", "no watches are left: the kernel hears "
				       "of some changes after a second");
		incomplete = true;
		free(w);
		w = NULL;
	}
	if (w) {
		/* The same directory under a new number: it was made anew. */
		HASH_FIND(hh, by_wd, &w->wd, sizeof(w->wd), other);
		if (other) {
			HASH_DELETE(hh, by_wd, other);
			HASH_DELETE(hi, by_id, other);
			free(other);
		}
		HASH_ADD(hh, by_wd, wd, sizeof(w->wd), w);
		HASH_ADD(hi, by_id, id, sizeof(w->id), w);
	}
	pthread_mutex_unlock(&lock);
}

void watch_growth(int fd)
{
	char path[32];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	pthread_mutex_lock(&lock);
	if (inotify_fd >= 0)
		(void)inotify_add_watch(inotify_fd, path,
					IN_MODIFY | IN_ONESHOT);
	pthread_mutex_unlock(&lock);
}

static void drop(struct watch *w)
{
	HASH_DELETE(hh, by_wd, w);
	HASH_DELETE(hi, by_id, w);
	free(w);
}

void watch_forget(uint64_t id)
{
	struct watch *w;

	pthread_mutex_lock(&lock);
	HASH_FIND(hi, by_id, &id, sizeof(id), w);
	if (w) {
		(void)inotify_rm_watch(inotify_fd, w->wd);
		drop(w);
	}
	pthread_mutex_unlock(&lock);
}

/* The namespace of an event; 0 = none. */
static uint64_t namespace_of(const struct inotify_event *e)
{
	struct watch *w;
	uint64_t id;

	pthread_mutex_lock(&lock);
	HASH_FIND(hh, by_wd, &e->wd, sizeof(e->wd), w);
	id = w ? w->id : 0;
	if (w && e->mask & IN_IGNORED) /* the directory is gone */
		drop(w);
	pthread_mutex_unlock(&lock);
	return id;
}

/* A namespace is gone, or one has come. */
static void on_names(const char *name)
{
	_cleanup_free_ char *ns = table_stored_name(name);
	uint64_t id;

	table_store_recheck(fs.tables);
	if (ns && namespace_id(fs.tables, ns, &id))
		notify_entry(root_tables_ino(), name);
	notify_inode(root_tables_ino());
}

void watch_touched(uint64_t table)
{
	static const unsigned dirs[] = { T_DIR, T_PARTS, T_PARENTS, T_COLUMNS,
					 T_ROWS };

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
		notify_attr_now(nid_ino(K_TABLE, table, dirs[i]));
}

void watch_changed(uint64_t table)
{
	static const char *const dirs[] = { "parts", "parents", "columns" };
	fuse_ino_t dir = nid_ino(K_TABLE, table, T_DIR);

	watch_touched(table);
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
		notify_expire(dir, dirs[i]);
	notify_entry(dir, "data.csv");
	notify_entry(dir, "rows"); /* with all that was looked up in it */
}

/* The kernel knows this table by this name. */
static bool known_as(uint64_t table, const char *ns, const char *name)
{
	_cleanup_free_ char *its_ns = NULL, *its_name = NULL;

	return !table_recall(table, &its_ns, &its_name) &&
	       !strcmp(its_ns, ns) && !strcmp(its_name, name);
}

static void on_table(uint64_t ns_id, const char *name)
{
	_cleanup_free_ char *ns = NULL, *plain = table_stored_name(name);
	fuse_ino_t dir = nid_ino(K_NAMESPACE, ns_id, 0);
	struct table_id id;

	if (!plain || table_recall(ns_id, &ns, NULL))
		return;
	table_store_recheck(fs.tables);
	notify_inode(dir);
	/* Gone, or another table: the kernel may still know the former. */
	if (table_lookup(fs.tables, ns, plain, &id, NULL) ||
	    !known_as(id.id, ns, plain))
		notify_entry(dir, name);
	else
		watch_changed(id.id);
}

/* A namespace (name NULL) or table that the kernel knows. */
static void on_known(uint64_t id, const char *ns, const char *name)
{
	_cleanup_free_ char *ns_esc = table_escape(ns);
	_cleanup_free_ char *esc = name ? table_escape(name) : NULL;
	struct table_id now;
	uint64_t ns_id;
	bool there = !namespace_id(fs.tables, ns, &ns_id);

	if (!name) {
		if (ns_esc && (!there || ns_id != id))
			notify_entry(root_tables_ino(), ns_esc);
		notify_inode(nid_ino(K_NAMESPACE, id, 0));
	} else if (there) {
		if (esc && (table_lookup(fs.tables, ns, name, &now, NULL) ||
			    now.id != id))
			notify_entry(nid_ino(K_NAMESPACE, ns_id, 0), esc);
		watch_changed(id);
	}
}

/* Events were lost: anything may have changed. */
static void on_all(void)
{
	table_store_recheck(fs.tables);
	notify_inode(root_tables_ino());
	tables_known_each(on_known);
	notify_pollers();
}

static void handle_events(void)
{
	char buf[16384] __attribute__((aligned(8)));
	ssize_t n = read(inotify_fd, buf, sizeof(buf));

	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *e =
		    (const struct inotify_event *)(buf + at);
		uint64_t id;

		at += (ssize_t)(sizeof(*e) + e->len);
		if (e->mask & IN_Q_OVERFLOW) {
			on_all();
			continue;
		}
		if (e->mask & IN_MODIFY) { /* watch_growth() */
			notify_pollers();
			continue;
		}
		if (e->wd == names_wd) {
			if (e->len)
				on_names(e->name);
			continue;
		}
		id = namespace_of(e);
		if (id && e->len && e->name[0] != '.')
			on_table(id, e->name);
	}
}

static void *watcher(void *arg)
{
	struct pollfd p[2] = { { inotify_fd, POLLIN, 0 },
			       { stop_fd, POLLIN, 0 } };

	(void)arg;
	for (;;) {
		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			break;
		if (p[1].revents)
			break;
		if (p[0].revents)
			handle_events();
	}
	return NULL;
}

void watch_start(void)
{
	_cleanup_free_ char *path = names_path(NULL);
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), no;

	stop_fd = eventfd(0, EFD_CLOEXEC);
	if (fd < 0 || stop_fd < 0) {
		log_warn("fs", "inotify: %s", strerror(errno));
		if (fd >= 0)
			close(fd);
		return;
	}
	names_wd = inotify_add_watch(fd, path, WATCHED);
	inotify_fd = fd;
	no = pthread_create(&thread, NULL, watcher, NULL);
	if (no) {
		log_warn("fs", "no thread for inotify: %s", strerror(no));
		inotify_fd = -1;
		close(fd);
	}
}

void watch_stop(void)
{
	struct watch *w, *tmp;
	uint64_t one = 1;

	if (inotify_fd >= 0) {
		if (write(stop_fd, &one, sizeof(one)) < 0)
			log_warn("fs", "eventfd: %s", strerror(errno));
		(void)pthread_join(thread, NULL);
	}
	pthread_mutex_lock(&lock);
	HASH_ITER (hh, by_wd, w, tmp)
		drop(w);
	if (inotify_fd >= 0)
		close(inotify_fd);
	if (stop_fd >= 0)
		close(stop_fd);
	inotify_fd = stop_fd = -1;
	pthread_mutex_unlock(&lock);
}
