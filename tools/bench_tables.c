// SPDX-License-Identifier: Apache-2.0
/*
 * Parts of tools/bench_tables.py:
 *   bench_tables make FILE ROWS   a CSV of ids in random order and 20 numbers
 *   bench_tables store FILE DIR   upload it into a store, read it, look rows up
 *   bench_tables rows DIR N ROWS [SEED]  open and read N random rows below
 * rows/ bench_tables many DIR N       N small tables into the store's namespace
 * many The second prints "name seconds" lines.
 */
#include <fcntl.h>
#include <time.h>

#include "lib/fileio.h"
#include "lib/table.h"

#define COLUMNS 20
#define PIECE	(1u << 20)
#define LOOKUPS 20000

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void must(int r, const struct err *e)
{
	if (r) {
		(void)fprintf(stderr, "bench_tables: %s\n", e->text);
		exit(1);
	}
}

static uint64_t state = 88172645463325252ull;

static uint64_t random64(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static int make(const char *path, unsigned rows)
{
	unsigned *id = xmalloc(rows * sizeof(*id));
	FILE *f = fopen(path, "we");

	if (!f) {
		perror(path);
		return 1;
	}
	for (unsigned i = 0; i < rows; i++)
		id[i] = i;
	for (unsigned i = rows; i > 1; i--) {
		unsigned k = (unsigned)(random64() % i), t = id[i - 1];

		id[i - 1] = id[k];
		id[k] = t;
	}
	(void)fputs("id", f);
	for (int c = 0; c < COLUMNS; c++)
		(void)fprintf(f, ",x%d", c);
	for (unsigned i = 0; i < rows; i++) {
		(void)fprintf(f, "\nu%09u", id[i]);
		for (int c = 0; c < COLUMNS; c++) {
			uint64_t x = random64();

			(void)fprintf(f, ",%s%u.%06u", x & 1 ? "-" : "",
				      (unsigned)(x >> 8 & 3),
				      (unsigned)(x >> 32) % 1000000);
		}
	}
	(void)fputc('\n', f);
	free(id);
	return fclose(f) ? 1 : 0;
}

static void upload(struct table_store *s, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct table_upload *u = NULL;
	struct err e = { 0 };
	double start = now();
	static char buf[PIECE];
	ssize_t n;

	must(table_upload_begin(s, NULL, &u, &e), &e);
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		must(table_upload_write(u, buf, (size_t)n, &e), &e);
	printf("taken %.3f\n", now() - start);
	must(table_upload_publish(u, "bench", "t", &e), &e);
	printf("upload %.3f\n", now() - start);
	close(fd);
}

static void read_all_of(struct table *t)
{
	static char buf[128u << 10];
	struct table_view *v = NULL;
	struct err e = { 0 };
	double start = now();
	uint64_t at = 0;
	ssize_t n;

	must(table_view_new(t, 0, &v, &e), &e);
	while ((n = table_view_read(v, at, buf, sizeof(buf), &e)) > 0)
		at += (uint64_t)n;
	must((int)n, &e);
	table_view_unref(v);
	printf("read %.3f\n", now() - start);
}

static void look_up(struct table *t)
{
	struct strbuf line = STRBUF_INIT(4096);
	uint64_t rows = table_rows(t);
	struct err e = { 0 };
	double start = now();
	char key[16];

	for (unsigned i = 0; i < LOOKUPS; i++) {
		sb_reset(&line);
		(void)snprintf(key, sizeof(key), "u%09u",
			       (unsigned)(random64() % rows));
		must(table_row_csv(t, key, strlen(key), &line, &e), &e);
	}
	printf("lookup %.9f\n", (now() - start) / LOOKUPS);
	sb_free(&line);
}

static int read_rows(const char *dir, unsigned n, unsigned rows)
{
	char path[4096], buf[4096];

	for (unsigned i = 0; i < n; i++) {
		int fd;

		(void)snprintf(path, sizeof(path), "%s/u%09u", dir,
			       (unsigned)(random64() % rows));
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || read(fd, buf, sizeof(buf)) <= 0) {
			perror(path);
			return 1;
		}
		close(fd);
	}
	return 0;
}

static void many(struct table_store *s, unsigned n)
{
	static const char text[] = "id,x,y\na,1,2.5\nb,2,3.5\nc,3,4.5\n";
	struct err e = { 0 };

	for (unsigned i = 0; i < n; i++) {
		struct table_upload *u = NULL;
		char name[16];

		(void)snprintf(name, sizeof(name), "t%05u", i);
		must(table_upload_begin(s, NULL, &u, &e), &e);
		must(table_upload_write(u, text, sizeof(text) - 1, &e), &e);
		must(table_upload_publish(u, "many", name, &e), &e);
	}
}

int main(int argc, char **argv)
{
	struct table_store *s = NULL;
	struct table *t = NULL;
	struct err e = { 0 };

	if (argc == 4 && !strcmp(argv[1], "make"))
		return make(argv[2], (unsigned)strtoul(argv[3], NULL, 10));
	if (argc == 6 && !strcmp(argv[1], "rows"))
		state += strtoul(argv[5], NULL, 10);
	if (argc >= 5 && !strcmp(argv[1], "rows"))
		return read_rows(argv[2], (unsigned)strtoul(argv[3], NULL, 10),
				 (unsigned)strtoul(argv[4], NULL, 10));
	if (argc == 4 && !strcmp(argv[1], "many")) {
		must(table_store_open(argv[2], &s, &e), &e);
		many(s, (unsigned)strtoul(argv[3], NULL, 10));
		table_store_close(s);
		return 0;
	}
	if (argc != 4 || strcmp(argv[1], "store") != 0) {
		(void)fputs("usage: bench_tables make FILE ROWS | store FILE "
			    "DIR | rows DIR N ROWS [SEED] | many DIR N\n",
			    stderr);
		return 2;
	}
	must(table_store_open(argv[3], &s, &e), &e);
	upload(s, argv[2]);
	must(table_open(s, "bench", "t", &t, &e), &e);
	read_all_of(t);
	look_up(t);
	look_up(t);
	table_unref(t);
	table_store_close(s);
	return 0;
}
