// SPDX-License-Identifier: Apache-2.0
/*
 * Speed of the table store: upload of a CSV, reading its CSV view, lookups.
 * Rows against plain files say how far from the disk we are; the others stand
 * against the yardstick of all benchmarks, one 2048-bit modular power.
 */
#include <fcntl.h>
#include <gmp.h>
#include <time.h>

#include "lib/fileio.h"
#include "lib/table.h"

#define ROWS	100000
#define COLUMNS 10
#define PIECE	(128u << 10)

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

static double powm_seconds(void)
{
	gmp_randstate_t rs;
	mpz_t b, x, m, y;
	double t;

	gmp_randinit_default(rs);
	mpz_inits(b, x, m, y, NULL);
	mpz_urandomb(b, rs, 2048);
	mpz_urandomb(x, rs, 2048);
	mpz_urandomb(m, rs, 2048);
	mpz_setbit(x, 2047);
	mpz_setbit(m, 2047);
	mpz_setbit(m, 0);
	t = now();
	for (int i = 0; i < 20; i++)
		mpz_powm(y, b, x, m);
	t = (now() - t) / 20;
	mpz_clears(b, x, m, y, NULL);
	gmp_randclear(rs);
	return t;
}

static void make_csv(struct strbuf *sb)
{
	unsigned x = 1;

	sb_adds(sb, "id,y");
	for (int c = 0; c < COLUMNS; c++)
		sb_addf(sb, ",x%d", c);
	for (unsigned i = 0; i < ROWS; i++) {
		/* Ids in no order, as they come from a data base. */
		sb_addf(sb, "\n%u,%u", (unsigned)(i * 2654435761u), i & 1);
		for (int c = 0; c < COLUMNS; c++) {
			x = x * 1103515245u + 12345u;
			sb_addf(sb, ",%d.%06u", (int)(x >> 29) - 4,
				(x >> 5) % 1000000);
		}
	}
	sb_addc(sb, '\n');
}

static double plain_write(const char *dir, const struct strbuf *sb)
{
	char path[200];
	double t = now();
	int fd;

	(void)snprintf(path, sizeof(path), "%s/plain", dir);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	if (fd < 0 || write_all(fd, sb->buf, sb->len) || fsync(fd)) {
		perror(path);
		exit(1);
	}
	close(fd);
	return now() - t;
}

int main(void)
{
	char dir[] = "/tmp/rollfs-bench-tables-XXXXXX";
	struct strbuf sb = STRBUF_INIT(256u << 20);
	struct table_store *s = NULL;
	struct table_upload *u = NULL;
	struct table *t = NULL;
	struct err e = { 0 };
	static char buf[PIECE];
	double start, mb, plain, up, rd, look, powm = powm_seconds();
	uint64_t at = 0;
	ssize_t n;

	make_csv(&sb);
	mb = (double)sb.len / 1e6;
	if (!mkdtemp(dir))
		return 1;
	must(table_store_open(dir, &s, &e), &e);
	plain = plain_write(dir, &sb);

	start = now();
	must(table_upload_begin(s, NULL, &u, &e), &e);
	for (size_t i = 0; i < sb.len; i += PIECE)
		must(table_upload_write(u, sb.buf + i,
					MIN((size_t)PIECE, sb.len - i), &e),
		     &e);
	must(table_upload_publish(u, "bench", "t", &e), &e);
	up = now() - start;

	must(table_open(s, "bench", "t", &t, &e), &e);
	start = now();
	while ((n = table_csv_read(t, at, buf, sizeof(buf), &e)) > 0)
		at += (uint64_t)n;
	must((int)n, &e);
	rd = now() - start;

	start = now();
	for (unsigned i = 0; i < 10000; i++) {
		struct strbuf line = STRBUF_INIT(4096);
		char key[16];

		(void)snprintf(key, sizeof(key), "%u",
			       (unsigned)(i * 9u * 2654435761u));
		must(table_row_csv(t, key, strlen(key), &line, &e), &e);
		sb_free(&line);
	}
	look = (now() - start) / 10000;

	printf("tables upload\t%.1f\tMB/s\t%.4f\tplain write and fsync\n",
	       mb / up, plain / up);
	printf("tables read\t%.1f\tMB/s\t%.4f\tplain write and fsync\n",
	       mb / rd, plain / rd);
	printf("tables lookup\t%.2f\tus\t%.4f\tone 2048-bit mpz_powm\n",
	       look * 1e6, powm / look);
	table_unref(t);
	table_store_close(s);
	sb_free(&sb);
	return remove_tree(dir, &e) ? 1 : 0;
}
