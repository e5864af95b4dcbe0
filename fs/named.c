// SPDX-License-Identifier: Apache-2.0
/*
 * Nodes that are known by their path, for what has names on disk but no
 * number of its own: models, curves, checkpoints.  The number is made of the
 * path, so that it is the same after a restart; the table is only what the
 * kernel knows just now.  Where two paths make the same number, the one that
 * is looked up later takes the next.  cp copies a directory in the order of
 * the numbers: what has to come early has low ones.
 */
#include <pthread.h>
#include <uthash.h>

#include "fs/fs.h"

/* The analyzer does not follow what a hash table keeps. */
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

struct named {
	uint64_t number, nlookup;
	char *path; /* NULL: what had the name was removed */
	UT_hash_handle hh;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct named *all;

static uint64_t number_of(const char *path, bool early)
{
	const uint64_t half = 1ull << (NUMBER_BITS - 1);
	uint64_t h = 14695981039346656037u;

	for (; *path; path++)
		h = (h ^ (unsigned char)*path) * 1099511628211u;
	return ((h ^ h >> NUMBER_BITS) & (half - 1)) | (early ? 0 : half);
}

/* With the lock held: the path's node, or where it belongs. */
static struct named *find(const char *path, bool early, uint64_t *ret_number)
{
	uint64_t k = number_of(path, early);
	struct named *n;

	for (;; k = (k + 1) & ((1ull << NUMBER_BITS) - 1)) {
		HASH_FIND(hh, all, &k, sizeof(k), n);
		if (!n || (n->path && !strcmp(n->path, path)))
			break;
	}
	*ret_number = k;
	return n;
}

int named_add(const char *path, bool early, uint64_t *ret)
{
	struct named *n;
	uint64_t k;

	pthread_mutex_lock(&lock);
	n = find(path, early, &k);
	if (!n && (n = calloc(1, sizeof(*n)))) {
		n->number = k;
		n->path = strdup(path);
		if (n->path) {
			HASH_ADD(hh, all, number, sizeof(n->number), n);
		} else {
			free(n);
			n = NULL;
		}
	}
	if (n) {
		n->nlookup++;
		*ret = n->number;
	}
	pthread_mutex_unlock(&lock);
	return n ? 0 : -ENOMEM;
}

uint64_t named_number(const char *path, bool early)
{
	uint64_t k;

	pthread_mutex_lock(&lock);
	(void)find(path, early, &k);
	pthread_mutex_unlock(&lock);
	return k;
}

char *named_path(uint64_t number)
{
	const struct named *n;
	char *path;

	pthread_mutex_lock(&lock);
	HASH_FIND(hh, all, &number, sizeof(number), n);
	path = n && n->path ? strdup(n->path) : NULL;
	pthread_mutex_unlock(&lock);
	return path;
}

void named_removed(const char *path)
{
	static const bool halves[] = { false, true };

	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < ARRAY_SIZE(halves); i++) {
		uint64_t k;
		struct named *n = find(path, halves[i], &k);

		if (n)
			free(TAKE_PTR(n->path));
	}
	pthread_mutex_unlock(&lock);
}

void named_forget(struct nid nid, uint64_t count)
{
	struct named *n;

	pthread_mutex_lock(&lock);
	HASH_FIND(hh, all, &nid.number, sizeof(nid.number), n);
	if (n) {
		n->nlookup -= MIN(count, n->nlookup);
		if (!n->nlookup) {
			HASH_DEL(all, n);
			free(n->path);
			free(n);
		}
	}
	pthread_mutex_unlock(&lock);
}
