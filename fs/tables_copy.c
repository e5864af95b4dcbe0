// SPDX-License-Identifier: Apache-2.0
/*
 * Programs that copy a table's directory in.  The derived files are there as
 * soon as data.csv is, but cp -r and tar make each file anew (O_EXCL) and
 * would fail, or remove it and try again for ever.  So to the process that
 * copies, which is one that made data.csv with O_EXCL, or has just removed the
 * name, they are not there until it has written them, for a time after its
 * last close.
 */
#include <pthread.h>

#include "fs/tables_priv.h"
#include "lib/fnv.h"

#define REMOVED_MS 2000
#define MADE_MS	   10000
#define COPIES_MS  60000 /* it has made derived files, too: no doubt */

static struct copier {
	pid_t pid;
	uint64_t table;
	unsigned slot; /* of the one file; 0 = all of them */
	uint32_t name; /* of a column's file, digest */
	int64_t until_ms;
} copiers[64];
static unsigned next_copier;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* A collision hides one name too many for a moment. */
static uint32_t digest(const char *name)
{
	return name ? fnv1a(name, strlen(name)) : 0;
}

static void add(pid_t pid, uint64_t table, unsigned slot, const char *name)
{
	const struct copier c = { pid, table, slot,
				  slot == T_SINK ? digest(name) : 0,
				  now_mono_ms() +
				      (slot ? REMOVED_MS : MADE_MS) };
	size_t at = ARRAY_SIZE(copiers);

	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < ARRAY_SIZE(copiers); i++)
		if (copiers[i].pid == pid && copiers[i].table == table &&
		    copiers[i].slot == slot && copiers[i].name == c.name)
			at = i;
	if (at == ARRAY_SIZE(copiers))
		at = next_copier++ % ARRAY_SIZE(copiers);
	copiers[at] = c;
	pthread_mutex_unlock(&lock);
}

void table_copier_add(pid_t pid, uint64_t table)
{
	add(pid, table, 0, NULL);
}

void table_copier_goes_on(pid_t pid, uint64_t table)
{
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < ARRAY_SIZE(copiers); i++)
		if (copiers[i].pid == pid && copiers[i].table == table &&
		    !copiers[i].slot)
			copiers[i].until_ms = now_mono_ms() + COPIES_MS;
	pthread_mutex_unlock(&lock);
}

void table_copier_removed(pid_t pid, uint64_t table, unsigned slot,
			  const char *name)
{
	add(pid, table, slot, name);
}

bool table_copier_any(uint64_t table)
{
	int64_t now = now_mono_ms();
	bool any = false;

	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < ARRAY_SIZE(copiers); i++)
		any |= copiers[i].table == table && copiers[i].until_ms > now;
	pthread_mutex_unlock(&lock);
	return any;
}

bool table_copier_blind(pid_t pid, uint64_t table, unsigned slot,
			const char *name)
{
	uint32_t want = slot == T_SINK ? digest(name) : 0;
	int64_t now = now_mono_ms();
	bool hidden = false;

	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < ARRAY_SIZE(copiers); i++) {
		const struct copier *c = &copiers[i];

		hidden |= c->pid == pid && c->table == table &&
			  c->until_ms > now &&
			  (!c->slot || (c->slot == slot && c->name == want));
	}
	pthread_mutex_unlock(&lock);
	if (!hidden)
		return false;
	return slot == T_SINK ? !table_ghost_column(table, name, GHOST_IS)
			      : !table_ghost(table, slot);
}
