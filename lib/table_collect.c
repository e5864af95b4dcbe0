// SPDX-License-Identifier: Apache-2.0
/*
 * Rows that a name has no more are removed aside, by a thread of who asks for
 * it: rm -r of many tables waits neither for their files to be unlinked nor for
 * an fsync each.  The reference of a name goes when it is durable that the name
 * is gone, so that nobody removes the rows before; one fsync does for all that
 * have waited meanwhile.  What a death leaves is removed by the sweep.
 */
#include "lib/log.h"

#include "lib/table_store_priv.h"

/* The analyzer does not follow what a list keeps. */
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

#define WAITING_MAX 10000

struct gone {
	struct gone *next;
	struct name name;
	bool dropped;	/* its attributes go, too */
	bool unsynced;	/* left to the sweep */
	bool cancelled; /* the rows have the name again; guarded by the lock */
	bool back;	/* it is not to be removed */
	char *ns, *as;	/* what it was called */
};

struct collector {
	pthread_t thread;
	pthread_mutex_t lock; /* guards all below; taken after the store's */
	pthread_cond_t more;
	struct gone *first, **end;
	size_t n;	    /* that wait */
	struct gone *taken; /* by the thread just now */
	bool stop;
};

/* Durable from now on; one fsync for all of a namespace that follow. */
static void sync_names(const struct table_store *s, struct gone *list)
{
	const struct gone *before = NULL;

	for (struct gone *g = list; g; before = g, g = g->next) {
		struct err e = { 0 };
		char path[PATH_SIZE];

		if (before && !strcmp(before->ns, g->ns)) {
			g->unsynced = before->unsynced;
			continue;
		}
		name_path(s, path, g->ns, NULL);
		g->unsynced = dir_sync(path, &e);
		if (e.no == ENOENT) { /* the namespace is gone as well */
			(void)snprintf(path, sizeof(path), "%s/names", s->dir);
			g->unsynced = dir_sync(path, &e);
		}
		if (g->unsynced)
			log_error("tables", "%s", e.text);
	}
}

/* With the store's lock: does the name stand for these rows again? */
static bool back(struct table_store *s, const struct gone *g)
{
	struct collector *c = s->collector;
	struct name now;
	bool yes;

	pthread_mutex_lock(&c->lock);
	yes = g->cancelled || g->unsynced;
	pthread_mutex_unlock(&c->lock);
	return yes || (!name_read(s, g->ns, g->as, &now, NULL) &&
		       now.id == g->name.id && now.gen == g->name.gen);
}

static int remove_refs(struct table_store *s, struct gone *list)
{
	_cleanup_store_unlock_ int lock = store_lock(s, NULL);

	if (lock < 0)
		return lock;
	for (struct gone *g = list; g; g = g->next) {
		g->back = back(s, g);
		if (!g->back)
			ref_remove(s, &g->name);
	}
	/* For who reads them now: the last one removes them. */
	store_count_change(lock);
	return 0;
}

static void collect_all(struct table_store *s, struct gone *list)
{
	sync_names(s, list);
	if (remove_refs(s, list))
		return;
	for (const struct gone *g = list; g; g = g->next) {
		if (g->back)
			continue;
		if (g->dropped)
			table_attrs_remove(s, g->name.id);
		store_uncache(s, g->name.gen);
		table_collect(s, g->name.seq, g->name.gen);
	}
}

static void gone_free(struct gone *g)
{
	free(g->ns);
	free(g->as);
	free(g);
}

static void free_taken(struct collector *c)
{
	while (c->taken) {
		struct gone *g = c->taken;

		c->taken = g->next;
		gone_free(g);
	}
}

static void *collect(void *arg)
{
	struct table_store *s = arg;
	struct collector *c = s->collector;

	pthread_mutex_lock(&c->lock);
	while (c->first || !c->stop) {
		if (!c->first) {
			pthread_cond_wait(&c->more, &c->lock);
			continue;
		}
		c->taken = c->first;
		c->first = NULL;
		c->end = &c->first;
		c->n = 0;
		pthread_mutex_unlock(&c->lock);
		collect_all(s, c->taken);
		pthread_mutex_lock(&c->lock);
		free_taken(c);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

int table_store_collect_aside(struct table_store *s, struct err *e)
{
	struct collector *c = calloc(1, sizeof(*c));
	int no;

	if (!c)
		return err_set(e, ENOMEM, "no memory to collect tables");
	c->end = &c->first;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->more, NULL);
	s->collector = c;
	no = pthread_create(&c->thread, NULL, collect, s);
	if (!no)
		return 0;
	s->collector = NULL;
	free(c);
	return err_set(e, no, "no thread to collect tables");
}

bool collect_aside(struct table_store *s, const char *ns, const char *name,
		   const struct name *n, bool dropped)
{
	struct collector *c = s->collector;
	struct gone *g = c ? calloc(1, sizeof(*g)) : NULL;
	bool room;

	if (!g)
		return false;
	g->name = *n;
	g->dropped = dropped;
	g->ns = strdup(ns);
	g->as = strdup(name);
	if (!g->ns || !g->as) {
		gone_free(g);
		return false;
	}
	pthread_mutex_lock(&c->lock);
	room = c->n < WAITING_MAX;
	if (room) {
		*c->end = g;
		c->end = &g->next;
		c->n++;
		pthread_cond_signal(&c->more);
	}
	pthread_mutex_unlock(&c->lock);
	if (!room)
		gone_free(g);
	return room;
}

static void cancel(struct gone *g, const struct name *n)
{
	for (; g; g = g->next)
		g->cancelled |= g->name.id == n->id && g->name.gen == n->gen;
}

void collect_cancel(const struct table_store *s, const struct name *n)
{
	struct collector *c = s->collector;

	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	cancel(c->first, n);
	cancel(c->taken, n);
	pthread_mutex_unlock(&c->lock);
}

void collect_stop(struct table_store *s)
{
	struct collector *c = s->collector;

	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->stop = true;
	pthread_cond_signal(&c->more);
	pthread_mutex_unlock(&c->lock);
	(void)pthread_join(c->thread, NULL);
	pthread_cond_destroy(&c->more);
	pthread_mutex_destroy(&c->lock);
	s->collector = NULL;
	free(c);
}
