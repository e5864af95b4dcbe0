// SPDX-License-Identifier: Apache-2.0
/* Columns of a table as rows of doubles. */
#include <math.h>

#include "lib/table_ops_priv.h"
#include "lib/table_stats.h"

int cell_number(const struct cell *c, double *ret)
{
	switch (c->type) {
	case CELL_F64:
		*ret = c->f64;
		return 0;
	case CELL_I64:
		*ret = (double)c->i64;
		return 0;
	case CELL_STRING:
		break;
	}
	return text_number(c->str, c->len, ret) ? 0 : -EINVAL;
}

struct selection {
	struct table *t;
	size_t *columns, n;
};

static int take_row(const struct selection *s, uint64_t row,
		    const struct cell *cells, double *x, struct err *e)
{
	for (size_t j = 0; j < s->n; j++)
		if (cell_number(&cells[s->columns[j]], &x[j]))
			return err_set(
			    e, EINVAL, "row %llu column %.100s: no number",
			    (unsigned long long)row + 1,
			    table_schema(s->t)->columns[s->columns[j]].name);
	return 0;
}

/* ---- block after block ------------------------------------------------- */

struct table_matrix {
	struct selection s;
	struct table_iter *it;
	uint64_t row;
	bool ended;
};

int table_matrix_begin(struct table *t, const size_t *columns, size_t n,
		       struct table_matrix **ret, struct err *e)
{
	struct table_matrix *m = xcalloc(1, sizeof(*m));
	int r = table_scan(t, NULL, 0, &m->it, e);

	if (r) {
		free(m);
		return r;
	}
	m->s = (struct selection){ .t = t, .n = n };
	m->s.columns = xcalloc(n + 1, sizeof(*columns));
	memcpy(m->s.columns, columns, n * sizeof(*columns));
	*ret = m;
	return 0;
}

ssize_t table_matrix_next(struct table_matrix *m, double *x, size_t max,
			  struct err *e)
{
	const struct cell *cells;
	const char *key;
	size_t len, i = 0;
	int r = 1;

	for (; i < max && !m->ended; i++) {
		r = table_next(m->it, &key, &len, &cells, e);
		if (r > 0)
			r = take_row(&m->s, m->row, cells, x + i * m->s.n, e);
		else
			m->ended = true;
		if (r < 0)
			return r;
		if (m->ended)
			break;
		m->row++;
	}
	return (ssize_t)i;
}

void table_matrix_end(struct table_matrix *m)
{
	if (!m)
		return;
	table_scan_end(m->it);
	free(m->s.columns);
	free(m);
}

/* ---- all at once ------------------------------------------------------- */

struct filling {
	struct selection s;
	struct table_job j;
	double *x;
};

static int fill_partition(void *arg, unsigned k, struct err *e)
{
	const struct filling *f = arg;
	uint64_t row = table_range_row(f->s.t, k);
	uint64_t end = table_range_row(f->s.t, k + 1);
	const struct cell *cells;
	struct table_rows *in = NULL;
	const char *key;
	size_t len;
	int r = table_rows_begin(f->s.t, table_range_at(f->s.t, k), &f->j, k,
				 &in, e);

	while (!r && (r = table_rows_next(in, &key, &len, &cells, e)) > 0) {
		if (row == end)
			r = err_set(e, EIO, "more rows than the table says");
		else
			r = take_row(&f->s, row, cells, f->x + row * f->s.n, e);
		row++;
	}
	table_rows_end(in);
	if (!r && row != end)
		r = err_set(e, EIO, "fewer rows than the table says");
	return r;
}

int table_matrix_read(struct table *t, const size_t *columns, size_t n,
		      const struct table_run *run, double *x, struct err *e)
{
	struct filling f = { .s = { .t = t, .n = n },
			     .j = { .run = run },
			     .x = x };
	int r;

	f.s.columns = xcalloc(n + 1, sizeof(*columns));
	memcpy(f.s.columns, columns, n * sizeof(*columns));
	r = table_job_run(&f.j, table_ranges(t), fill_partition, &f, e);
	free(f.s.columns);
	return r;
}
