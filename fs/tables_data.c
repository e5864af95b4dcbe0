// SPDX-License-Identifier: Apache-2.0
/* data.csv of a published generation, and how its writers get another node. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <uthash.h>

#include "fs/tables_priv.h"

/* The analyzer does not follow what a hash table keeps. */
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

/* ---- who looks a second time -------------------------------------------- */

void intent_add(struct intents *x, pid_t pid)
{
	pthread_mutex_lock(&x->lock);
	x->of[x->next++ % ARRAY_SIZE(x->of)] =
	    (struct intent){ pid, now_mono_ms() + 1000 };
	pthread_mutex_unlock(&x->lock);
}

bool intent_of(struct intents *x, pid_t pid, bool drop)
{
	bool found = false;

	pthread_mutex_lock(&x->lock);
	for (size_t i = 0; i < ARRAY_SIZE(x->of); i++)
		if (x->of[i].pid == pid && x->of[i].until_ms > now_mono_ms()) {
			found = true;
			if (drop)
				x->of[i].until_ms = 0;
		}
	pthread_mutex_unlock(&x->lock);
	return found;
}

static struct intents writers = INTENTS_INIT;

void table_intent_add(pid_t pid)
{
	intent_add(&writers, pid);
}

bool table_intent_of(pid_t pid, bool drop)
{
	return intent_of(&writers, pid, drop);
}

/*
 * ---- the node -------------------------------------------------------------
 *
 * Its number is the generation.  A cheap copy shares the generation and yet is
 * another file, with its own mode and times: slot 0 is the table that the
 * generation was published as, other tables have other slots.  What the kernel
 * knows is remembered with what never changes, so that stat opens nothing.
 */

struct shown {
	uint64_t key; /* generation and slot */
	uint64_t gen, made_by, owner;
	uint64_t size;
	int64_t published_ms;
	uint64_t nlookup;
	UT_hash_handle hh;
};
static pthread_mutex_t shown_lock = PTHREAD_MUTEX_INITIALIZER;
static struct shown *shown;

static uint64_t key_of(uint64_t gen, unsigned slot)
{
	return gen << SLOT_BITS | slot;
}

/* With the lock held: the table's node, or where it belongs. */
static struct shown *find(const struct table_id *id, unsigned *ret_slot)
{
	const unsigned others = (1u << SLOT_BITS) - 1;
	unsigned slot = id->id == id->made_by ? 0 : 1 + id->id % others;
	struct shown *x;

	for (;; slot = slot % others + 1) {
		uint64_t key = key_of(id->gen, slot);

		HASH_FIND(hh, shown, &key, sizeof(key), x);
		if (!x || x->owner == id->id || !slot)
			break;
	}
	*ret_slot = slot;
	return x;
}

/* A copy of what is known of the node. */
static bool known(struct nid n, struct shown *ret)
{
	uint64_t key = key_of(n.number, n.slot);
	const struct shown *x;

	pthread_mutex_lock(&shown_lock);
	HASH_FIND(hh, shown, &key, sizeof(key), x);
	if (x)
		*ret = *x;
	pthread_mutex_unlock(&shown_lock);
	return x != NULL;
}

fuse_ino_t table_data_ino(const struct table_id *id)
{
	unsigned slot;

	pthread_mutex_lock(&shown_lock);
	(void)find(id, &slot);
	pthread_mutex_unlock(&shown_lock);
	return nid_ino(K_DATA, id->gen, slot);
}

static int fill(const struct shown *x, unsigned slot, struct attr *ret)
{
	attr_fill(ret, nid_ino(K_DATA, x->gen, slot), DATA_MODE, x->size,
		  x->published_ms);
	ret->entry_s = 0; /* the name may mean the next generation soon */
	ret->attr_s = 3600;
	return table_attr_apply(x->owner, ATTR_DATA, x->gen, 0, ret);
}

int table_data_lookup(const struct table_place *p, struct table *t,
		      struct attr *ret)
{
	struct shown copy = { .gen = p->id.gen,
			      .made_by = p->id.made_by,
			      .owner = p->id.id,
			      .size = table_csv_size(t),
			      .published_ms = table_published_ms(t) };
	struct shown *x;
	unsigned slot;
	int no;

	/* Replaced since the name was read: as if it had been read later. */
	if (copy.gen != table_generation(t))
		return -ESTALE;
	no = fill(&copy, 0, ret);
	if (no)
		return no;
	pthread_mutex_lock(&shown_lock);
	x = find(&p->id, &slot);
	if (!x && (x = calloc(1, sizeof(*x)))) {
		*x = copy;
		x->key = key_of(copy.gen, slot);
		HASH_ADD(hh, shown, key, sizeof(x->key), x);
	}
	if (x)
		x->nlookup++;
	pthread_mutex_unlock(&shown_lock);
	ret->st.st_ino = nid_ino(K_DATA, copy.gen, slot);
	return x ? 0 : -ENOMEM;
}

static void data_forget(struct nid n, uint64_t count)
{
	uint64_t key = key_of(n.number, n.slot);
	struct shown *x;

	pthread_mutex_lock(&shown_lock);
	HASH_FIND(hh, shown, &key, sizeof(key), x);
	if (x) {
		x->nlookup -= MIN(count, x->nlookup);
		if (!x->nlookup) {
			HASH_DEL(shown, x);
			free(x);
		}
	}
	pthread_mutex_unlock(&shown_lock);
}

int table_data_open(const struct who *w, struct nid n, int flags,
		    struct table *t, unsigned part, struct handle **ret)
{
	struct handle *h = handle_new(w, n, flags, NULL);
	int no;

	if (!h)
		return -ENOMEM;
	no = table_view_new(t, part, &h->view, NULL);
	if (no) {
		handle_free(h);
		return no;
	}
	h->table = table_ref(t);
	h->part = part;
	h->cached = n.kind == K_DATA;
	*ret = h;
	return 0;
}

static int data_getattr(const struct who *w, struct nid n, struct attr *ret)
{
	struct shown x;

	(void)w;
	return known(n, &x) ? fill(&x, n.slot, ret) : -ESTALE;
}

static int data_open(const struct who *w, struct nid n, int flags,
		     struct handle **ret)
{
	_cleanup_table_ struct table *t = NULL;
	struct shown x;
	int no;

	if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC)) {
		table_intent_add(w->pid);
		return -ESTALE;
	}
	if (!known(n, &x))
		return -ESTALE;
	no = table_open_of(fs.tables, x.made_by, x.gen, &t, NULL);
	return no ? no : table_data_open(w, n, flags, t, 0, ret);
}

static int data_truncate(const struct who *w, struct nid n, off_t size)
{
	(void)w, (void)n, (void)size;
	return -EPERM; /* a published generation never changes */
}

static int data_setattr(const struct who *w, struct nid n,
			const struct stat *st, int valid)
{
	struct shown x;

	(void)w;
	return known(n, &x) ? table_attr_set(x.owner, ATTR_DATA, st, valid)
			    : -ESTALE;
}

static int data_xattrs(struct nid n, struct strbuf *ret)
{
	_cleanup_table_ struct table *t = NULL;
	struct shown x;

	if (!known(n, &x) ||
	    table_open_of(fs.tables, x.made_by, x.gen, &t, NULL))
		return 0;
	sb_adds(ret, "user.rollfs.rows");
	sb_addc(ret, '\0');
	sb_addf(ret, "%llu", (unsigned long long)table_rows(t));
	sb_addc(ret, '\0');
	sb_adds(ret, "user.rollfs.generation");
	sb_addc(ret, '\0');
	sb_addf(ret, "%llu", (unsigned long long)n.number);
	sb_addc(ret, '\0');
	return 0;
}

static int data_user_names(struct nid n, struct strbuf *ret)
{
	struct shown x;

	return known(n, &x) ? table_user_names(x.owner, ret) : -ESTALE;
}

static int data_user_get(struct nid n, const char *name, struct strbuf *ret)
{
	struct shown x;

	return known(n, &x) ? table_user_get(x.owner, name, ret) : -ESTALE;
}

static int data_user_set(struct nid n, const char *name, const void *value,
			 size_t len)
{
	struct shown x;

	return known(n, &x) ? table_user_set(x.owner, name, value, len)
			    : -ESTALE;
}

/* cp -a and rsync -X copy what is computed: it is taken and forgotten. */
static int data_set_xattr(const struct who *w, struct nid n, const char *name,
			  const char *value)
{
	(void)w, (void)n, (void)name, (void)value;
	return 0;
}

static void data_path(struct nid n, struct strbuf *ret)
{
	struct shown x;

	if (known(n, &x))
		node_path((struct nid){ K_TABLE, x.owner, T_WRITE }, ret);
}

const struct tree tree_data = {
	.getattr = data_getattr,
	.open = data_open,
	.truncate = data_truncate,
	.setattr = data_setattr,
	.xattrs = data_xattrs,
	.set_xattr = data_set_xattr,
	.user_names = data_user_names,
	.user_get = data_user_get,
	.user_set = data_user_set,
	.forget = data_forget,
	.path = data_path,
};
