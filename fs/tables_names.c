// SPDX-License-Identifier: Apache-2.0
/*
 * Numbers, names and namespaces: /tables and its directories.
 *
 * A number tells which table a node is of, not how it is called.  So names are
 * remembered for as long as the kernel knows a node of the table: lookups are
 * counted, forgets subtracted.  With them go the derived files that somebody
 * has written (table_ghost_*), but not at once: the kernel may forget a table
 * while cp -r is in the midst of it.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <uthash.h>
#include <utlist.h>

#include "fs/tables_priv.h"

/* The analyzer does not follow what a hash table keeps. */
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

#define GHOSTS_MAX    (TABLE_PARTS_MAX + TABLE_COLUMNS_MAX + 100)
#define FORGOTTEN_S   60 /* that ghosts outlive the kernel's knowledge */
#define FORGOTTEN_MAX 64 /* tables with such ghosts */

/* ---- numbers to names -------------------------------------------------- */

/* A derived file that was written where the table has none (yet). */
struct ghost {
	struct ghost *next;
	unsigned slot;
	char *name; /* of parents/, else NULL */
	char *text; /* of a symlink, else NULL */
};

struct known {
	uint64_t id;
	char *ns, *name;     /* name NULL: a namespace */
	struct table_id now; /* what the name meant at that */
	uint64_t changes;    /* number of the store; 0 = not known */
	uint64_t no_attrs;   /* nothing was kept when so many were changed */
	uint64_t nlookup;
	int64_t forgotten_ms;	   /* nlookup is 0 since, but ghosts are left */
	struct known *prev, *next; /* of the forgotten, oldest first */
	struct ghost *ghosts;
	unsigned n_ghosts;
	UT_hash_handle hh;
};
static pthread_mutex_t known_lock = PTHREAD_MUTEX_INITIALIZER;
static struct known *known, *forgotten;
static unsigned n_forgotten;

/* With the lock held. */
static struct known *find(uint64_t id)
{
	struct known *k;

	HASH_FIND(hh, known, &id, sizeof(id), k);
	return k;
}

static void ghost_free(struct ghost *g)
{
	free(g->name);
	free(g->text);
	free(g);
}

static void ghosts_free(struct known *k)
{
	while (k->ghosts) {
		struct ghost *g = k->ghosts;

		k->ghosts = g->next;
		ghost_free(g);
	}
	k->n_ghosts = 0;
}

static void known_free(struct known *k)
{
	ghosts_free(k);
	free(k->ns);
	free(k->name);
	free(k);
}

/* With the lock held: it has this name from now on. */
static int name_it(struct known *k, const char *ns, const char *name)
{
	char *a = strdup(ns), *b = name ? strdup(name) : NULL;

	if (!a || (name && !b)) {
		free(a);
		free(b);
		return -ENOMEM;
	}
	free(k->ns);
	free(k->name);
	k->ns = a;
	k->name = b;
	k->changes = 0;
	return 0;
}

/* With the lock held. */
static void known_delete(struct known *k)
{
	HASH_DEL(known, k);
	known_free(k);
}

static bool forgotten_long(const struct known *k)
{
	return now_mono_ms() > k->forgotten_ms + FORGOTTEN_S * 1000;
}

/* With the lock held: the kernel has forgotten it, but it has ghosts. */
static void forgotten_add(struct known *k)
{
	k->forgotten_ms = now_mono_ms();
	DL_APPEND(forgotten, k);
	n_forgotten++;
	while (n_forgotten > FORGOTTEN_MAX || forgotten_long(forgotten)) {
		struct known *oldest = forgotten;

		DL_DELETE(forgotten, oldest);
		n_forgotten--;
		known_delete(oldest);
	}
}

/* With the lock held: the kernel is told of it, perhaps again. */
static void count_lookup(struct known *k)
{
	k->nlookup++;
	if (!k->forgotten_ms)
		return;
	DL_DELETE(forgotten, k);
	n_forgotten--;
	if (forgotten_long(k))
		ghosts_free(k);
	k->forgotten_ms = 0;
}

int table_remember(uint64_t id, const char *ns, const char *name)
{
	struct known *k;
	int no = 0;

	pthread_mutex_lock(&known_lock);
	k = find(id);
	if (!k && (k = calloc(1, sizeof(*k)))) {
		k->id = id;
		no = name_it(k, ns, name);
		if (no) {
			free(k);
			k = NULL;
		} else {
			HASH_ADD(hh, known, id, sizeof(k->id), k);
		}
	} else if (k && (strcmp(k->ns, ns) ||
			 (name && k->name && strcmp(k->name, name)))) {
		no = name_it(k, ns, name);
	}
	if (k && !no)
		count_lookup(k);
	pthread_mutex_unlock(&known_lock);
	if (k && !no && !name)
		watch_namespace(id, ns);
	return k ? no : -ENOMEM;
}

void table_renamed(uint64_t id, const char *ns, const char *name)
{
	struct known *k;

	pthread_mutex_lock(&known_lock);
	k = find(id);
	if (k)
		(void)name_it(k, ns, name); /* a lookup says it again */
	pthread_mutex_unlock(&known_lock);
}

void table_count_lookup(uint64_t id)
{
	struct known *k;

	pthread_mutex_lock(&known_lock);
	k = find(id);
	if (k)
		count_lookup(k);
	pthread_mutex_unlock(&known_lock);
}

void tables_forget(struct nid n, uint64_t count)
{
	bool was_namespace = false;
	struct known *k;

	pthread_mutex_lock(&known_lock);
	k = find(n.number);
	if (k && k->nlookup) {
		k->nlookup -= MIN(count, k->nlookup);
		if (!k->nlookup && k->n_ghosts) {
			forgotten_add(k);
		} else if (!k->nlookup) {
			was_namespace = !k->name;
			known_delete(k);
		}
	}
	pthread_mutex_unlock(&known_lock);
	if (was_namespace)
		watch_forget(n.number);
}

int table_recall(uint64_t id, char **ret_ns, char **ret_name)
{
	const struct known *k;

	*ret_ns = NULL;
	if (ret_name)
		*ret_name = NULL;
	pthread_mutex_lock(&known_lock);
	k = find(id);
	if (k && !k->name == !ret_name) {
		*ret_ns = strdup(k->ns);
		if (ret_name)
			*ret_name = strdup(k->name);
	}
	pthread_mutex_unlock(&known_lock);
	return *ret_ns && (!ret_name || *ret_name) ? 0 : -ESTALE;
}

void tables_known_each(void (*each)(uint64_t id, const char *ns,
				    const char *name))
{
	_cleanup_free_ uint64_t *ids = NULL;
	struct known *k, *tmp;
	size_t n = 0;

	pthread_mutex_lock(&known_lock);
	ids = calloc(HASH_COUNT(known) + 1, sizeof(*ids));
	HASH_ITER (hh, known, k, tmp)
		if (ids)
			ids[n++] = k->id;
	pthread_mutex_unlock(&known_lock);
	for (size_t i = 0; i < n; i++) {
		_cleanup_free_ char *ns = NULL, *name = NULL;

		if (!table_recall(ids[i], &ns, &name) ||
		    !table_recall(ids[i], &ns, NULL))
			each(ids[i], ns, name);
	}
}

/* ---- derived files that were written ----------------------------------- */

/* With the lock held. */
static struct ghost *ghost_find(const struct known *k, unsigned slot,
				const char *name)
{
	struct ghost *g = k ? k->ghosts : NULL;

	while (g &&
	       (name ? !g->name || strcmp(g->name, name) : g->slot != slot))
		g = g->next;
	return g;
}

void table_ghost_add(uint64_t id, unsigned slot)
{
	struct ghost *g;
	struct known *k;

	pthread_mutex_lock(&known_lock);
	k = find(id);
	if (k && !ghost_find(k, slot, NULL) && k->n_ghosts < GHOSTS_MAX &&
	    (g = calloc(1, sizeof(*g)))) {
		g->slot = slot;
		g->next = k->ghosts;
		k->ghosts = g;
		k->n_ghosts++;
	}
	pthread_mutex_unlock(&known_lock);
}

unsigned table_ghost_link(uint64_t id, const char *name, const char *text)
{
	struct ghost *g = calloc(1, sizeof(*g));
	unsigned slot = T_GHOST0;
	struct known *k;

	pthread_mutex_lock(&known_lock);
	k = find(id);
	while (slot < T_GHOST0 + TABLE_GHOST_LINKS && ghost_find(k, slot, NULL))
		slot++;
	if (g) {
		g->slot = slot;
		g->name = strdup(name);
		g->text = strdup(text);
	}
	if (k && g && g->name && g->text &&
	    slot < T_GHOST0 + TABLE_GHOST_LINKS) {
		g->next = k->ghosts;
		k->ghosts = g;
		k->n_ghosts++;
	} else {
		slot = 0;
		if (g)
			ghost_free(g);
	}
	pthread_mutex_unlock(&known_lock);
	return slot;
}

bool table_ghost(uint64_t id, unsigned slot)
{
	bool is;

	pthread_mutex_lock(&known_lock);
	is = ghost_find(find(id), slot, NULL) != NULL;
	pthread_mutex_unlock(&known_lock);
	return is;
}

unsigned table_ghost_named(uint64_t id, const char *name)
{
	const struct ghost *g;
	unsigned slot;

	pthread_mutex_lock(&known_lock);
	g = ghost_find(find(id), 0, name);
	slot = g ? g->slot : 0;
	pthread_mutex_unlock(&known_lock);
	return slot;
}

bool table_ghost_column(uint64_t id, const char *name, enum ghost_op op)
{
	_cleanup_free_ char *path = NULL;
	struct ghost *g, **at;
	struct known *k;
	bool was;

	if (asprintf(&path, "columns/%s", name) < 0)
		return false;
	pthread_mutex_lock(&known_lock);
	k = find(id);
	g = ghost_find(k, 0, path);
	was = g != NULL;
	if (op == GHOST_ADD && k && !was && k->n_ghosts < GHOSTS_MAX &&
	    (g = calloc(1, sizeof(*g)))) {
		g->slot = T_SINK;
		g->name = TAKE_PTR(path);
		g->next = k->ghosts;
		k->ghosts = g;
		k->n_ghosts++;
	}
	if (op == GHOST_REMOVE && was) {
		for (at = &k->ghosts; *at != g; at = &(*at)->next)
			;
		*at = g->next;
		k->n_ghosts--;
		ghost_free(g);
	}
	pthread_mutex_unlock(&known_lock);
	return was;
}

int table_ghost_text(uint64_t id, unsigned slot, struct strbuf *ret)
{
	const struct ghost *g;
	int no;

	pthread_mutex_lock(&known_lock);
	g = ghost_find(find(id), slot, NULL);
	no = g && g->text ? sb_adds(ret, g->text) : -ENOENT;
	pthread_mutex_unlock(&known_lock);
	return no;
}

void table_ghost_remove(uint64_t id, unsigned slot)
{
	struct known *k;

	pthread_mutex_lock(&known_lock);
	k = find(id);
	for (struct ghost **p = k ? &k->ghosts : NULL; p && *p;
	     p = &(*p)->next) {
		struct ghost *g = *p;

		if (g->slot != slot)
			continue;
		*p = g->next;
		k->n_ghosts--;
		ghost_free(g);
		break;
	}
	pthread_mutex_unlock(&known_lock);
}

bool table_attrs_none(uint64_t id, uint64_t changes, bool set)
{
	struct known *k;
	bool none;

	pthread_mutex_lock(&known_lock);
	k = find(id);
	if (k && set)
		k->no_attrs = changes;
	none = k && k->no_attrs == changes;
	pthread_mutex_unlock(&known_lock);
	return none;
}

/* ---- places ------------------------------------------------------------- */

void table_place_free(struct table_place *p)
{
	free(p->ns);
	free(p->name);
	p->ns = p->name = NULL;
}

/* As table_recall(), and what the name means if nothing has changed since. */
static int recall_now(uint64_t id, uint64_t changes, struct table_place *ret,
		      bool *ret_fresh)
{
	const struct known *k;

	pthread_mutex_lock(&known_lock);
	k = find(id);
	*ret_fresh = k && changes && k->changes == changes;
	if (k && k->name) {
		ret->ns = strdup(k->ns);
		ret->name = strdup(k->name);
		ret->id = k->now;
	}
	pthread_mutex_unlock(&known_lock);
	return ret->ns && ret->name ? 0 : -ESTALE;
}

static void keep_now(const struct table_place *p, uint64_t changes)
{
	struct known *k;

	pthread_mutex_lock(&known_lock);
	k = find(p->id.id);
	if (k && k->name && !strcmp(k->ns, p->ns) &&
	    !strcmp(k->name, p->name)) {
		k->now = p->id;
		k->changes = changes;
	}
	pthread_mutex_unlock(&known_lock);
}

int table_place(uint64_t id, struct table_place *ret)
{
	uint64_t changes = table_store_changes(fs.tables);
	struct table_place p = { 0 };
	bool fresh;
	int no = recall_now(id, changes, &p, &fresh);

	if (!no && !fresh)
		no = table_lookup(fs.tables, p.ns, p.name, &p.id, NULL);
	if (no == -ENOENT || (!no && p.id.id != id))
		no = -ESTALE;
	if (no) {
		table_place_free(&p);
		return no;
	}
	if (!fresh)
		keep_now(&p, changes);
	*ret = p;
	return 0;
}

int table_open_place(const struct table_place *p, struct table **ret)
{
	int no;

	*ret = NULL;
	if (!p->id.gen)
		return 0;
	no = table_open_of(fs.tables, p->id.made_by, p->id.gen, ret, NULL);
	/* Replaced in between. */
	if (no == -ENOENT)
		no = table_open(fs.tables, p->ns, p->name, ret, NULL);
	return no == -ENODATA ? 0 : no;
}

int table_now(uint64_t id, struct table **ret)
{
	_cleanup_table_place_ struct table_place p = { 0 };
	int no = table_place(id, &p);

	*ret = NULL;
	return no ? no : table_open_place(&p, ret);
}

void table_refused(const struct who *w, uint64_t id, const char *file,
		   int status, const char *text)
{
	_cleanup_table_place_ struct table_place p = { 0 };
	_cleanup_strbuf_ struct strbuf what = STRBUF_INIT(2048);

	if (table_place(id, &p))
		return;
	sb_addf(&what, "tables/%s/%s/%s", p.ns, p.name, file);
	errors_add(w->uid, what.buf, status, text);
}

/* The store's name of a name in the mount; NULL if it cannot be one. */
char *table_stored_name(const char *name)
{
	_cleanup_free_ char *plain = table_unescape(name);
	_cleanup_free_ char *again = plain ? table_escape(plain) : NULL;

	if (!again || strcmp(again, name) || !table_name_valid(plain))
		return NULL;
	return TAKE_PTR(plain);
}

int table_name_refused(const struct who *w, fuse_ino_t dir, const char *name)
{
	return errors_refused_as(
	    w->uid, dir, name, -EINVAL,
	    "a name is 1 to 200 bytes of UTF-8; %25 stands for a "
	    "percent sign, %2F for a slash, %2E for a dot in front");
}

int table_job_busy(const struct who *w, const char *ns)
{
	static const char outputs[] = "output_data_";
	size_t n = sizeof(outputs) - 1;

	if (strncmp(ns, outputs, n) || !job_runs(ns + n))
		return 0;
	errors_add(w->uid, ns, -EBUSY,
		   "a job that runs makes these tables: wait for its end, or "
		   "echo cancel > jobs/ID/ctl");
	return -EBUSY;
}

/* ---- namespaces --------------------------------------------------------- */

int namespace_attr(const char *ns, uint64_t id, struct attr *ret)
{
	int64_t ns_time = 0;

	(void)namespace_changed(fs.tables, ns, &ns_time);
	attr_fill(ret, nid_ino(K_NAMESPACE, id, 0), S_IFDIR | 0775, 0, 0);
	ret->attr_s = 1; /* watch.c tells of changes */
	return table_attr_apply(id, ATTR_DIR, 0, ns_time, ret);
}

int namespace_lookup(const char *name, struct attr *ret)
{
	_cleanup_free_ char *ns = table_stored_name(name);
	uint64_t id;
	int no = ns ? namespace_id(fs.tables, ns, &id) : -ENOENT;

	if (!no)
		no = namespace_attr(ns, id, ret);
	return no ? no : table_remember(id, ns, NULL);
}

static int list_namespace(void *arg, const char *name)
{
	struct listing *l = arg;
	_cleanup_free_ char *esc = table_escape(name);

	if (esc)
		listing_add(l, esc, INO_LOOKUP, S_IFDIR);
	return 0;
}

int namespaces_list(struct listing *l)
{
	return table_list(fs.tables, NULL, list_namespace, l, NULL);
}

int namespace_mkdir(const struct who *w, const char *name, mode_t mode,
		    struct attr *ret)
{
	_cleanup_free_ char *ns = table_stored_name(name);
	struct err e = { 0 };
	uint64_t id;
	int no;

	if (!ns)
		return table_name_refused(w, root_tables_ino(), name);
	no = namespace_create(fs.tables, ns, &id, &e);
	if (!no)
		no = table_attr_made(w, id, mode);
	if (!no)
		no = namespace_attr(ns, id, ret);
	return no ? no : table_remember(id, ns, NULL);
}

int namespace_rmdir(const struct who *w, const char *name)
{
	_cleanup_free_ char *ns = table_stored_name(name);
	int no = ns ? table_job_busy(w, ns) : -ENOENT;

	return no ? no : namespace_remove(fs.tables, ns, NULL);
}

int namespace_rename(const struct who *w, const char *name, const char *to,
		     unsigned flags)
{
	_cleanup_free_ char *a = table_stored_name(name);
	_cleanup_free_ char *b = table_stored_name(to);
	struct known *k, *tmp;
	struct err e = { 0 };
	uint64_t id;
	int no = !a   ? -ENOENT
		 : !b ? table_name_refused(w, root_tables_ino(), to)
		      : table_job_busy(w, a);

	if (!no && flags && !namespace_id(fs.tables, b, &id))
		no = -EEXIST;
	if (!no)
		no = namespace_move(fs.tables, a, b, &e);
	if (no)
		return no;
	pthread_mutex_lock(&known_lock);
	HASH_ITER (hh, known, k, tmp) {
		if (!strcmp(k->ns, a)) {
			_cleanup_free_ char *own =
			    k->name ? strdup(k->name) : NULL;

			(void)name_it(k, b, own);
		}
	}
	pthread_mutex_unlock(&known_lock);
	return 0;
}
