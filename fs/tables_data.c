// SPDX-License-Identifier: Apache-2.0
/* data.csv of a published generation, and how its writers get another node. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "fs/tables_priv.h"

/* ---- writers' second lookup ------------------------------------------- */

/* By thread only: the generation may be replaced between the two lookups. */
static struct intent {
	pid_t pid;
	int64_t until_ms;
} intents[64];
static unsigned next_intent;
static pthread_mutex_t intent_lock = PTHREAD_MUTEX_INITIALIZER;

void table_intent_add(pid_t pid)
{
	pthread_mutex_lock(&intent_lock);
	intents[next_intent++ % ARRAY_SIZE(intents)] =
	    (struct intent){ pid, now_mono_ms() + 1000 };
	pthread_mutex_unlock(&intent_lock);
}

/* drop: the writer has arrived. */
bool table_intent_of(pid_t pid, bool drop)
{
	bool found = false;

	pthread_mutex_lock(&intent_lock);
	for (size_t i = 0; i < ARRAY_SIZE(intents); i++)
		if (intents[i].pid == pid &&
		    intents[i].until_ms > now_mono_ms()) {
			found = true;
			if (drop)
				intents[i].until_ms = 0;
		}
	pthread_mutex_unlock(&intent_lock);
	return found;
}

/* ---- the node ----------------------------------------------------------- */

void table_data_attr(struct table *t, struct attr *ret)
{
	attr_fill(ret, nid_ino(K_DATA, table_generation(t), 0), DATA_MODE,
		  table_csv_size(t), table_published_ms(t));
	ret->entry_s = 0; /* the name may mean the next generation soon */
	ret->attr_s = 3600;
}

int table_data_open(const struct who *w, struct nid n, int flags,
		    struct table *t, unsigned part, struct handle **ret)
{
	struct handle *h = handle_new(w, n, flags, NULL);

	if (!h)
		return -ENOMEM;
	h->table = table_ref(t);
	h->part = part;
	h->cached = n.kind == K_DATA;
	*ret = h;
	return 0;
}

static int data_getattr(const struct who *w, struct nid n, struct attr *ret)
{
	_cleanup_table_ struct table *t = NULL;
	int no = table_open_gen(fs.tables, n.number, &t, NULL);

	(void)w;
	if (!no)
		table_data_attr(t, ret);
	return no;
}

static int data_open(const struct who *w, struct nid n, int flags,
		     struct handle **ret)
{
	_cleanup_table_ struct table *t = NULL;
	int no;

	if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC)) {
		table_intent_add(w->pid);
		return -ESTALE;
	}
	no = table_open_gen(fs.tables, n.number, &t, NULL);
	return no ? no : table_data_open(w, n, flags, t, 0, ret);
}

static int data_truncate(const struct who *w, struct nid n, off_t size)
{
	(void)w, (void)n, (void)size;
	return -EPERM; /* a published generation never changes */
}

static int data_xattrs(struct nid n, struct strbuf *ret)
{
	_cleanup_table_ struct table *t = NULL;

	if (table_open_gen(fs.tables, n.number, &t, NULL))
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

const struct tree tree_data = {
	.getattr = data_getattr,
	.open = data_open,
	.truncate = data_truncate,
	.xattrs = data_xattrs,
};
