// SPDX-License-Identifier: Apache-2.0
/*
 * Sorted runs on disk and a merge of them (Knuth, The Art of Computer
 * Programming 3, 5.4.1), each run sorted by distributing its records over
 * buckets of their leading bits.
 */
#include "components/spool.h"

#include <fcntl.h>
#include <string.h>

#include "lib/fileio.h"

#define FIRST	 4096  /* records of the first memory */
#define BUFFER	 65536 /* bytes read of a run at a time, at most */
#define BUCKET	 8     /* records of a bucket, about */
#define SMALL	 32    /* records that are sorted by insertion */
#define BITS_MAX 20

struct run {
	uint64_t at, end; /* in the file: what is yet to be read */
	uint64_t begin;
	uint8_t *buf;
	size_t next, have; /* bytes */
};

struct spool {
	char *dir;
	size_t width, key, room; /* room: records in memory at most */
	uint8_t *mem;
	size_t n, alloc; /* records in mem */
	uint64_t count;
	int fd;
	uint64_t file; /* bytes written */
	struct run *runs;
	size_t n_runs;
	size_t *heap; /* of runs, the least record on top */
	size_t n_heap;
	bool reading;
	bool started;
	size_t next; /* of mem */
};

struct spool *spool_new(const char *dir, size_t width, size_t key,
			size_t memory)
{
	struct spool *s = xcalloc(1, sizeof(*s));

	s->dir = xstrdup(dir);
	s->width = width;
	s->key = key;
	s->room = MAX(memory / width, (size_t)1);
	s->fd = -1;
	return s;
}

void spool_free(struct spool *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n_runs; i++)
		free(s->runs[i].buf);
	if (s->fd >= 0)
		close(s->fd);
	free(s->runs);
	free(s->heap);
	free(s->mem);
	free(s->dir);
	free(s);
}

void spool_freep(struct spool **s)
{
	spool_free(*s);
}

uint64_t spool_count(const struct spool *s)
{
	return s->count;
}

bool spool_spilled(const struct spool *s)
{
	return s->n_runs > 0;
}

/* ---- sorting what is in memory ------------------------------------------ */

static int compare(const void *a, const void *b, void *key)
{
	return memcmp(a, b, *(size_t *)key);
}

static void insertion_sort(uint8_t *v, size_t n, size_t width, size_t key)
{
	uint8_t t[64];

	for (size_t i = 1; i < n; i++) {
		size_t j = i;

		if (memcmp(v + (i - 1) * width, v + i * width, key) <= 0)
			continue;
		memcpy(t, v + i * width, width);
		do {
			memcpy(v + j * width, v + (j - 1) * width, width);
			j--;
		} while (j > 0 && memcmp(v + (j - 1) * width, t, key) > 0);
		memcpy(v + j * width, t, width);
	}
}

static uint32_t leading(const uint8_t *record, unsigned bits)
{
	uint32_t v = (uint32_t)record[0] << 24 | (uint32_t)record[1] << 16 |
		     (uint32_t)record[2] << 8 | record[3];

	return bits ? v >> (32 - bits) : 0;
}

static void sort(struct spool *s)
{
	unsigned bits = 0;
	size_t *end, from = 0;
	uint8_t *out;

	if (s->key == 0 || s->n < 2)
		return;
	while (bits < BITS_MAX && (s->n >> bits) > BUCKET)
		bits++;
	end = xcalloc(((size_t)1 << bits) + 1, sizeof(*end));
	out = xmalloc(s->n * s->width);
	for (size_t i = 0; i < s->n; i++)
		end[leading(s->mem + i * s->width, bits) + 1]++;
	for (size_t b = 0; b < (size_t)1 << bits; b++)
		end[b + 1] += end[b];
	/* end[b] is where bucket b begins, and moves to its end. */
	for (size_t i = 0; i < s->n; i++) {
		const uint8_t *r = s->mem + i * s->width;

		memcpy(out + end[leading(r, bits)]++ * s->width, r, s->width);
	}
	for (size_t b = 0; b < (size_t)1 << bits; from = end[b++]) {
		size_t n = end[b] - from;
		uint8_t *v = out + from * s->width;

		if (n > SMALL || s->width > 64)
			qsort_r(v, n, s->width, compare, &s->key);
		else
			insertion_sort(v, n, s->width, s->key);
	}
	free(end);
	free(s->mem);
	s->mem = out;
	s->alloc = s->n;
}

/* ---- to disk ------------------------------------------------------------- */

static int spill(struct spool *s, struct err *e)
{
	size_t bytes = s->n * s->width;
	struct run *r;
	int rc;

	if (s->fd < 0)
		s->fd = open(s->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (s->fd < 0)
		return err_sys(e, errno, "a temporary file in %s", s->dir);
	sort(s);
	rc = pwrite_all(s->fd, s->mem, bytes, s->file);
	if (rc < 0)
		return err_sys(e, -rc, "a temporary file in %s", s->dir);
	if (s->key == 0 && s->n_runs) {
		s->runs[0].end += bytes; /* one after the other is one run */
	} else {
		s->runs = xrealloc(s->runs, (s->n_runs + 1) * sizeof(*r));
		r = &s->runs[s->n_runs++];
		memset(r, 0, sizeof(*r));
		r->begin = s->file;
		r->end = s->file + bytes;
	}
	s->file += bytes;
	s->n = 0;
	return 0;
}

int spool_add(struct spool *s, const void *records, size_t n, struct err *e)
{
	const uint8_t *from = records;

	if (s->reading)
		return err_set(e, EINVAL, "a spool that is read from");
	s->count += n;
	while (n > 0) {
		size_t part;
		int rc = s->n == s->room ? spill(s, e) : 0;

		if (rc < 0)
			return rc;
		part = MIN(n, s->room - s->n);
		if (s->n + part > s->alloc) {
			s->alloc =
			    MAX(s->n + part, MAX(2 * s->alloc, (size_t)FIRST));
			s->alloc = MIN(s->alloc, s->room);
			s->mem = xrealloc(s->mem, s->alloc * s->width);
		}
		memcpy(s->mem + s->n * s->width, from, part * s->width);
		s->n += part;
		from += part * s->width;
		n -= part;
	}
	return 0;
}

/* ---- reading ------------------------------------------------------------- */

static size_t run_buffer(const struct spool *s)
{
	size_t share = s->room * s->width / MAX(s->n_runs, (size_t)1);
	size_t records = MIN(share, (size_t)BUFFER) / s->width;

	return MAX(records, (size_t)1) * s->width;
}

/* 1 = there is a record at next. */
static int run_fill(struct spool *s, struct run *r, struct err *e)
{
	size_t n = (size_t)MIN((uint64_t)run_buffer(s), r->end - r->at);
	int rc;

	if (r->next < r->have)
		return 1;
	if (n == 0)
		return 0;
	if (!r->buf)
		r->buf = xmalloc(run_buffer(s));
	rc = pread_all(s->fd, r->buf, n, r->at);
	if (rc < 0)
		return err_sys(e, -rc, "a temporary file in %s", s->dir);
	r->at += n;
	r->next = 0;
	r->have = n;
	return 1;
}

static bool before(const struct spool *s, size_t a, size_t b)
{
	const struct run *x = &s->runs[s->heap[a]], *y = &s->runs[s->heap[b]];

	return memcmp(x->buf + x->next, y->buf + y->next, s->key) < 0;
}

static void sift(struct spool *s, size_t at)
{
	for (;;) {
		size_t child = 2 * at + 1, t = s->heap[at];

		if (child + 1 < s->n_heap && before(s, child + 1, child))
			child++;
		if (child >= s->n_heap || !before(s, child, at))
			return;
		s->heap[at] = s->heap[child];
		s->heap[child] = t;
		at = child;
	}
}

int spool_rewind(struct spool *s, struct err *e)
{
	int rc;

	if (!s->reading) {
		s->reading = true;
		if (s->n_runs && s->n && (rc = spill(s, e)) < 0)
			return rc;
		if (s->n_runs) {
			free(s->mem);
			s->mem = NULL;
		}
		sort(s);
		s->heap = xcalloc(s->n_runs + 1, sizeof(*s->heap));
	}
	s->started = false;
	s->next = 0;
	s->n_heap = 0;
	for (size_t i = 0; i < s->n_runs; i++) {
		struct run *r = &s->runs[i];

		r->at = r->begin;
		r->next = r->have = 0;
		rc = run_fill(s, r, e);
		if (rc < 0)
			return rc;
		s->heap[s->n_heap++] = i;
	}
	for (size_t i = s->n_heap / 2; i-- > 0;)
		sift(s, i);
	return 0;
}

static int merged_next(struct spool *s, const void **ret, struct err *e)
{
	struct run *r;

	/* The record given last is passed only now: its bytes had to stay. */
	if (s->started && s->n_heap) {
		int rc;

		r = &s->runs[s->heap[0]];
		r->next += s->width;
		rc = run_fill(s, r, e);
		if (rc < 0)
			return rc;
		if (rc == 0)
			s->heap[0] = s->heap[--s->n_heap];
		if (s->key)
			sift(s, 0);
	}
	s->started = true;
	if (s->n_heap == 0)
		return 0;
	r = &s->runs[s->heap[0]];
	*ret = r->buf + r->next;
	return 1;
}

int spool_next(struct spool *s, const void **ret, struct err *e)
{
	if (!s->reading) {
		int rc = spool_rewind(s, e);

		if (rc < 0)
			return rc;
	}
	if (s->n_runs)
		return merged_next(s, ret, e);
	if (s->next == s->n)
		return 0;
	*ret = s->mem + s->next++ * s->width;
	return 1;
}

int spool_read(struct spool *s, void *out, size_t n, size_t *ret_n,
	       struct err *e)
{
	uint8_t *to = out;
	const void *r;
	int rc = 1;

	*ret_n = 0;
	while (*ret_n < n && (rc = spool_next(s, &r, e)) > 0)
		memcpy(to + (*ret_n)++ * s->width, r, s->width);
	return rc < 0 ? rc : 0;
}
