// SPDX-License-Identifier: Apache-2.0
/* What the processes that use a store agree on: its lock, the number of changes
 * of its names, and the numbers it gives out. */
#include <fcntl.h>
#include <inttypes.h>
#include <sys/mman.h>

#include "lib/log.h"

#include "lib/table_store_priv.h"

/*
 * The lock's file counts the changes of names and references, in its first
 * eight bytes, which every process maps: who finds the same number as before
 * knows that nothing has changed.  Whoever held the lock counts one more before
 * he lets it go.  One that dies in between has told nobody of the change yet;
 * table_store_recheck() is for who hears of it in another way.
 */
void store_count_change(int lock)
{
	uint64_t n = 0;

	if (pread(lock, &n, sizeof(n), 0) < 0 ||
	    (++n, pwrite(lock, &n, sizeof(n), 0) < 0))
		log_error("tables", "the lock of the tables: %s",
			  strerror(errno));
}

void store_unlock(int *fd)
{
	if (*fd < 0)
		return;
	store_count_change(*fd);
	close(*fd);
}

static int lock_file(const struct table_store *s, const char *name,
		     struct err *e)
{
	char path[PATH_SIZE];
	_cleanup_close_ int fd = -1;
	int r;

	(void)snprintf(path, sizeof(path), "%s/%s", s->dir, name);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, errno, "%s", path);
	r = lock_wait(fd);
	if (r)
		return err_sys(e, -r, "%s", path);
	return TAKE_FD(fd);
}

int store_lock(const struct table_store *s, struct err *e)
{
	return lock_file(s, "lock", e);
}

int store_lock_counter(const struct table_store *s, struct err *e)
{
	return lock_file(s, "counter.lock", e);
}

const _Atomic uint64_t *store_map_changes(const struct table_store *s)
{
	_cleanup_store_unlock_ int lock = store_lock(s, NULL);
	_cleanup_close_ int fd = -1; /* a mapping of lock would keep the lock */
	char path[PATH_SIZE];
	void *p;

	if (lock < 0)
		return NULL;
	/* The page is there, also once the disk is full. */
	store_count_change(lock);
	(void)snprintf(path, sizeof(path), "%s/lock", s->dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	p = mmap(NULL, sizeof(uint64_t), PROT_READ, MAP_SHARED, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

uint64_t table_store_changes(const struct table_store *s)
{
	return s->changes ? atomic_load(s->changes) + s->rechecks : 0;
}

void table_store_recheck(struct table_store *s)
{
	s->rechecks += 1ull << 32;
}

/* ---- numbers ------------------------------------------------------------ */

#define RESERVED 1000 /* numbers between two writes of the counter */

/*
 * The file `counter` is durable: no number from it on was given out.  Which are
 * given out below it stands in `counter.lock`, which is not; so it counts only
 * until the machine starts anew, and then numbers go on from `counter`.
 */
struct given {
	char boot[BOOT_ID_SIZE];
	uint64_t next;
};

static int reserved(const char *path, uint64_t *ret, struct err *e)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(64);
	int r = file_read(path, &sb, e);

	*ret = r ? 1 : strtoull(sb.buf, NULL, 10);
	if (r == -ENOENT)
		return 0;
	return r || *ret ? r : err_set(e, EIO, "%s: damaged", path);
}

static int reserve(const char *path, uint64_t upto, struct err *e)
{
	char text[32];

	(void)snprintf(text, sizeof(text), "%" PRIu64 "\n", upto);
	return file_replace(path, text, strlen(text), 0600, true, e);
}

int table_store_numbers(struct table_store *s, uint64_t n, uint64_t *ret_first,
			struct err *e)
{
	_cleanup_close_ int lock = store_lock_counter(s, e);
	char counter[PATH_SIZE], boot[BOOT_ID_SIZE];
	struct given g = { 0 };
	uint64_t first, end = 0;
	int r;

	if (lock < 0)
		return lock;
	(void)snprintf(counter, sizeof(counter), "%s/counter", s->dir);
	boot_id(boot);
	r = reserved(counter, &end, e);
	if (r)
		return r;
	if (pread(lock, &g, sizeof(g), 0) != (ssize_t)sizeof(g) || !*boot ||
	    memcmp(g.boot, boot, sizeof(boot)) != 0 || !g.next || g.next > end)
		g.next = end;
	first = g.next;
	memcpy(g.boot, boot, sizeof(boot));
	g.next += n;
	r = g.next > end ? reserve(counter, g.next + RESERVED, e) : 0;
	if (r)
		return r;
	r = pwrite_all(lock, &g, sizeof(g), 0);
	if (r)
		return err_sys(e, -r, "%s/counter.lock", s->dir);
	*ret_first = first;
	return 0;
}
