// SPDX-License-Identifier: Apache-2.0
#include "lib/table_npy.h"

#include <endian.h>
#include <fcntl.h>
#include <limits.h>

#include "lib/table_ops_priv.h"

#define GROUP_BYTES  (1u << 20) /* stays in a core's cache ... */
#define GROUP_ROWS   512u	/* ... but has at least so many rows ... */
#define GROUP_MAX    (8u << 20) /* ... unless they are wide */
#define MATRIX_BYTES (128u << 10)
#define HEADER_MAX   256u

enum set { MATRIX, NUMBERS, TEXTS, SETS };

struct npy_column {
	enum { ABSENT, REAL, INTEGER, BYTES } holds;
	uint32_t width; /* of a value in the file */
	uint32_t at;	/* of its values in a row's worth of its set */
};

struct table_npy {
	struct npy_column *columns; /* by which - TABLE_NPY_ID */
	bool matrix;		    /* every column is a number */
	struct {
		uint64_t row_bytes;
		unsigned group_rows;
		int fd; /* -1: not there yet */
		bool building;
	} sets[SETS];
	pthread_cond_t built; /* with the table's lock, which guards fd and
			       * building; the rest is constant */
};

/* ---- what is offered --------------------------------------------------- */

static bool name_fits(const char *name)
{
	_cleanup_free_ char *esc = table_escape(name);

	return strlen(esc) + strlen(".npy") <= NAME_MAX;
}

static struct npy_column text_column(const struct text_stats *st, bool id)
{
	struct npy_column c = { .holds = BYTES, .width = MAX(st->width, 1u) };

	if (!id && !st->not_number)
		return (struct npy_column){ .holds = st->not_integer ? REAL
								     : INTEGER,
					    .width = 8 };
	if (st->width > TABLE_NPY_TEXT_MAX)
		c.holds = ABSENT;
	return c;
}

static struct npy_column column_of(const struct table_schema *s,
				   const struct table_stats *st, unsigned which)
{
	const struct npy_column absent = { .holds = ABSENT };
	unsigned i = which - TABLE_NPY_COLUMN0;

	if (which == TABLE_NPY_ID)
		return st ? text_column(&st->id, true) : absent;
	if (s->columns[i].type == CELL_F64)
		return (struct npy_column){ .holds = REAL, .width = 8 };
	if (s->columns[i].type == CELL_I64)
		return (struct npy_column){ .holds = INTEGER, .width = 8 };
	return st ? text_column(&st->columns[i], false) : absent;
}

static enum set set_of(const struct npy_column *c)
{
	return c->holds == BYTES ? TEXTS : NUMBERS;
}

static unsigned group_rows(enum set set, uint64_t row)
{
	uint64_t n;

	row = MAX(row, 1u);
	n = set == MATRIX ? MATRIX_BYTES / row
			  : MIN(MAX(GROUP_BYTES / row, (uint64_t)GROUP_ROWS),
				GROUP_MAX / row);
	return (unsigned)MAX(n, 1u);
}

/* Columns beyond this do not fit into 4 GiB a row, which none comes near. */
static struct table_npy *npy_new(const struct table *t)
{
	struct table_npy *x = xcalloc(1, sizeof(*x));
	unsigned n = table_npy_files(t);

	x->columns = xcalloc(n, sizeof(*x->columns));
	x->matrix = t->schema->n_columns > 0;
	for (unsigned which = TABLE_NPY_ID; which < n; which++) {
		struct npy_column c = column_of(t->schema, t->stats, which);
		uint64_t *row = &x->sets[set_of(&c)].row_bytes;

		if (which != TABLE_NPY_ID)
			x->matrix &= c.holds == REAL || c.holds == INTEGER;
		c.at = (uint32_t)*row;
		if (c.holds != ABSENT)
			*row += c.width;
		x->columns[which - TABLE_NPY_ID] = c;
	}
	x->sets[MATRIX].row_bytes = 8 * t->schema->n_columns;
	for (int i = 0; i < SETS; i++) {
		x->sets[i].fd = -1;
		x->sets[i].group_rows =
		    group_rows((enum set)i, x->sets[i].row_bytes);
	}
	pthread_cond_init(&x->built, NULL);
	return x;
}

void table_npy_free(struct table_npy *x)
{
	if (!x)
		return;
	for (int i = 0; i < SETS; i++)
		if (x->sets[i].fd >= 0)
			close(x->sets[i].fd);
	pthread_cond_destroy(&x->built);
	free(x->columns);
	free(x);
}

static struct table_npy *npy_of(struct table *t)
{
	struct table_npy *x;

	pthread_mutex_lock(&t->lock);
	if (!t->npy)
		t->npy = npy_new(t);
	x = t->npy;
	pthread_mutex_unlock(&t->lock);
	return x;
}

unsigned table_npy_files(const struct table *t)
{
	return TABLE_NPY_COLUMN0 + (unsigned)t->schema->n_columns;
}

static const char *name_of(const struct table *t, unsigned which)
{
	return which == TABLE_NPY_ID
		   ? t->schema->id
		   : t->schema->columns[which - TABLE_NPY_COLUMN0].name;
}

static int offered(struct table *t, const struct table_npy *x, unsigned which,
		   struct err *e)
{
	if (which >= table_npy_files(t))
		return err_set(e, ENOENT, "no such column");
	if (which == TABLE_NPY_MATRIX)
		return x->matrix ? 0
				 : err_set(e, ENOENT,
					   "a column holds text, or there is "
					   "none");
	if (!name_fits(name_of(t, which)))
		return err_set(e, ENOENT, "the column's name is too long");
	if (which != TABLE_NPY_ID && !strcmp(name_of(t, which), t->schema->id))
		return err_set(e, ENOENT, "the ids have the same name");
	if (x->columns[which - TABLE_NPY_ID].holds == ABSENT)
		return err_set(e, ENOENT,
			       "text of more than %d bytes, or nobody noted "
			       "what the column holds",
			       TABLE_NPY_TEXT_MAX);
	return 0;
}

char *table_npy_name(struct table *t, unsigned which)
{
	_cleanup_free_ char *esc = NULL;

	if (which == TABLE_NPY_MATRIX || offered(t, npy_of(t), which, NULL))
		return NULL;
	esc = table_escape(name_of(t, which));
	return xasprintf("%s.npy", esc);
}

int table_npy_find(struct table *t, const char *name, unsigned *ret)
{
	_cleanup_free_ char *esc = NULL, *plain = NULL, *again = NULL;
	size_t n = strlen(name);
	unsigned which;
	ssize_t at;

	if (n < 5 || strcmp(name + n - 4, ".npy") != 0)
		return -ENOENT;
	esc = strndup(name, n - 4);
	plain = esc ? table_unescape(esc) : NULL;
	again = plain ? table_escape(plain) : NULL;
	if (!again || strcmp(again, esc) != 0)
		return -ENOENT;
	at = strcmp(plain, t->schema->id) ? schema_find(t->schema, plain) : -1;
	if (at < 0 && strcmp(plain, t->schema->id) != 0)
		return -ENOENT;
	which = at < 0 ? TABLE_NPY_ID : TABLE_NPY_COLUMN0 + (unsigned)at;
	if (offered(t, npy_of(t), which, NULL))
		return -ENOENT;
	*ret = which;
	return 0;
}

/* An empty file beside the rows. */
bool table_npy_matrix(struct table_store *s, const struct table_id *id)
{
	_cleanup_free_ char *path = xasprintf(
	    "%s/data/%llu/%llu/matrix", s->dir, (unsigned long long)id->made_by,
	    (unsigned long long)id->gen);

	return !access(path, F_OK);
}

int table_npy_mark(const char *dir, const struct table_schema *s,
		   const struct table_stats *st, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/matrix", dir);
	_cleanup_close_ int fd = -1;

	for (size_t i = 0; i < s->n_columns; i++) {
		struct npy_column c =
		    column_of(s, st, TABLE_NPY_COLUMN0 + (unsigned)i);

		if (c.holds != REAL && c.holds != INTEGER)
			return 0;
	}
	if (!s->n_columns)
		return 0;
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	return fd < 0 ? err_sys(e, errno, "%s", path) : 0;
}

/* ---- the header -------------------------------------------------------- */

/* Magic, version, length, a Python literal, blanks to a multiple of 64. */
static size_t make_header(const struct table *t, const struct table_npy *x,
			  unsigned which, char ret[HEADER_MAX])
{
	static const char magic[8] = { '\x93', 'N', 'U', 'M', 'P', 'Y', 1, 0 };
	unsigned long long rows = table_rows(t);
	char shape[60], type[20] = "<f8";
	size_t n, whole;

	if (which != TABLE_NPY_MATRIX) {
		const struct npy_column *c = &x->columns[which - TABLE_NPY_ID];

		if (c->holds == BYTES)
			(void)snprintf(type, sizeof(type), "|S%u", c->width);
		else if (c->holds == INTEGER)
			(void)snprintf(type, sizeof(type), "<i8");
	}
	if (which == TABLE_NPY_MATRIX)
		(void)snprintf(shape, sizeof(shape), "(%llu, %zu)", rows,
			       t->schema->n_columns);
	else
		(void)snprintf(shape, sizeof(shape), "(%llu,)", rows);
	memset(ret, ' ', HEADER_MAX);
	n = 10 + (size_t)snprintf(ret + 10, HEADER_MAX - 10,
				  "{'descr': '%s', 'fortran_order': False, "
				  "'shape': %s, }",
				  type, shape);
	ret[n] = ' ';
	whole = (n + 1 + 63) / 64 * 64;
	memcpy(ret, magic, sizeof(magic));
	ret[8] = (char)((whole - 10) & 0xff);
	ret[9] = (char)((whole - 10) >> 8);
	ret[whole - 1] = '\n';
	return whole;
}

static uint64_t row_width(const struct table_npy *x, unsigned which)
{
	return which == TABLE_NPY_MATRIX
		   ? x->sets[MATRIX].row_bytes
		   : x->columns[which - TABLE_NPY_ID].width;
}

int table_npy_size(struct table *t, unsigned which, uint64_t *ret,
		   struct err *e)
{
	const struct table_npy *x = npy_of(t);
	char header[HEADER_MAX];
	int r = offered(t, x, which, e);

	if (r)
		return r;
	*ret = make_header(t, x, which, header) +
	       table_rows(t) * row_width(x, which);
	return 0;
}

/* ---- making a set ------------------------------------------------------ */

struct making {
	struct table *t;
	struct table_npy *x;
	enum set set;
	int fd;
	struct table_job j;
};

/* Value i of a column whose values in this group begin at `to`. */
static int put_value(const struct npy_column *c, char *to, unsigned i,
		     const struct cell *cell)
{
	double v = 0;
	uint64_t bits;

	if (c->holds == BYTES) {
		if (cell->len > c->width)
			return -EIO;
		memcpy(to + (size_t)i * c->width, cell->str, cell->len);
		memset(to + (size_t)i * c->width + cell->len, 0,
		       c->width - cell->len);
		return 0;
	}
	if (cell->type == CELL_I64) {
		bits = (uint64_t)cell->i64;
	} else if (c->holds == INTEGER) {
		bits = (uint64_t)text_integer(cell->str, cell->len);
	} else {
		if (cell_number(cell, &v))
			return -EIO;
		memcpy(&bits, &v, 8);
	}
	bits = htole64(bits);
	memcpy(to + 8ull * i, &bits, 8);
	return 0;
}

/* Row i of a group of `rows` rows. */
static int put_row(const struct making *m, char *group, unsigned rows,
		   unsigned i, const char *key, size_t len,
		   const struct cell *cells)
{
	const struct cell id = { .type = CELL_STRING, .str = key, .len = len };
	const struct npy_column *c = m->x->columns;
	size_t n = m->t->schema->n_columns + 1;
	int r = 0;

	for (size_t k = 0; k < n && !r; k++)
		if (c[k].holds != ABSENT && set_of(&c[k]) == m->set)
			r = put_value(&c[k], group + (size_t)rows * c[k].at, i,
				      k ? &cells[k - 1] : &id);
	return r;
}

/* The next row as doubles. */
static int put_numbers(const struct making *m, struct table_rows *in, char *to,
		       struct err *e)
{
	size_t n = m->t->schema->n_columns;
	double *x = (double *)(void *)to;
	int r = table_rows_numbers(in, x, e);

	for (size_t k = 0; k < n && r > 0; k++) {
		uint64_t bits;

		if (m->x->columns[k + 1].holds == INTEGER)
			x[k] += 0.0; /* "-0" is 0 as an integer */
		memcpy(&bits, &x[k], 8);
		bits = htole64(bits);
		memcpy(&x[k], &bits, 8);
	}
	return r;
}

/* The next row, which is row i of a group: 1, 0 at the end. */
static int put_next(const struct making *m, struct table_rows *in, char *group,
		    unsigned rows, unsigned i, struct err *e)
{
	const struct cell *cells = NULL;
	const char *key = NULL;
	size_t len = 0;
	int r;

	if (m->set == MATRIX)
		return put_numbers(m, in,
				   group + i * m->x->sets[MATRIX].row_bytes, e);
	r = table_rows_next(in, &key, &len, &cells, e);
	return r > 0 && put_row(m, group, rows, i, key, len, cells) ? 0 : r;
}

static int write_at(int fd, const char *buf, size_t n, uint64_t at,
		    struct err *e)
{
	int r = pwrite_all(fd, buf, n, at);

	return r ? err_sys(e, -r, "columns of a table") : 0;
}

static int make_group(const struct making *m, struct table_rows *in,
		      char *group, uint64_t first, unsigned rows, struct err *e)
{
	uint64_t width = m->x->sets[m->set].row_bytes;

	for (unsigned i = 0; i < rows; i++) {
		int r = put_next(m, in, group, rows, i, e);

		if (r <= 0)
			return r ? r
				 : err_set(e, EIO,
					   "other rows than the table says");
	}
	return write_at(m->fd, group, (size_t)(rows * width), first * width, e);
}

static int make_partition(void *arg, unsigned k, struct err *e)
{
	const struct making *m = arg;
	uint64_t at = table_range_row(m->t, k);
	uint64_t end = table_range_row(m->t, k + 1);
	unsigned step = m->x->sets[m->set].group_rows;
	_cleanup_free_ char *group =
	    malloc((size_t)(MIN((uint64_t)step, end - at) *
			    m->x->sets[m->set].row_bytes) +
		   1);
	struct table_rows *in = NULL;
	int r;

	if (!group)
		return err_set(e, ENOMEM, "columns of a table");
	r = table_rows_begin(m->t, table_range_at(m->t, k), &m->j, k, &in, e);
	while (!r && at < end) {
		unsigned rows = (unsigned)MIN((uint64_t)step, end - at);

		r = make_group(m, in, group, at, rows, e);
		at += rows;
	}
	table_rows_end(in);
	return r;
}

static int make_set(struct table *t, struct table_npy *x, enum set set,
		    const struct table_run *run, int *ret, struct err *e)
{
	struct making m = { .t = t, .x = x, .set = set, .j = { .run = run } };
	_cleanup_close_ int fd = -1;
	int r = table_temp_file(t->store, &fd, e);

	m.fd = fd;
	if (!r && t->rows)
		r = table_job_run(&m.j, table_ranges(t), make_partition, &m, e);
	if (!r)
		*ret = TAKE_FD(fd);
	return r;
}

static enum set set_wanted(const struct table_npy *x, unsigned which)
{
	return which == TABLE_NPY_MATRIX
		   ? MATRIX
		   : set_of(&x->columns[which - TABLE_NPY_ID]);
}

bool table_npy_ready(struct table *t, unsigned which, uint64_t offset, size_t n)
{
	struct table_npy *x = npy_of(t);
	char header[HEADER_MAX];
	bool ready;

	if (offered(t, x, which, NULL) ||
	    offset + n <= make_header(t, x, which, header))
		return true;
	pthread_mutex_lock(&t->lock);
	ready = x->sets[set_wanted(x, which)].fd >= 0;
	pthread_mutex_unlock(&t->lock);
	return ready;
}

unsigned table_npy_pass(struct table *t, unsigned which)
{
	return set_wanted(npy_of(t), which);
}

int table_npy_prepare(struct table *t, unsigned which,
		      const struct table_run *run, struct err *e)
{
	struct table_npy *x = npy_of(t);
	enum set set;
	int fd = -1, r = offered(t, x, which, e);

	if (r)
		return r;
	set = set_wanted(x, which);
	pthread_mutex_lock(&t->lock);
	while (x->sets[set].building)
		pthread_cond_wait(&x->built, &t->lock);
	if (x->sets[set].fd < 0) {
		x->sets[set].building = true;
		pthread_mutex_unlock(&t->lock);
		r = make_set(t, x, set, run, &fd, e);
		pthread_mutex_lock(&t->lock);
		x->sets[set].building = false;
		x->sets[set].fd = fd;
		pthread_cond_broadcast(&x->built);
	}
	pthread_mutex_unlock(&t->lock);
	return r;
}

/* ---- reading ----------------------------------------------------------- */

/* The group that holds a row: its first row and how many it has. */
static void group_at(const struct table *t, unsigned group_rows, uint64_t row,
		     uint64_t *ret_first, uint64_t *ret_rows)
{
	unsigned n = table_ranges(t);
	unsigned k = (unsigned)(row * n / MAX(table_rows(t), 1u));
	uint64_t first, end;

	while (k && table_range_row(t, k) > row)
		k--;
	while (k + 1 < n && table_range_row(t, k + 1) <= row)
		k++;
	first = table_range_row(t, k);
	end = table_range_row(t, k + 1);
	*ret_first = first + (row - first) / group_rows * group_rows;
	*ret_rows = MIN((uint64_t)group_rows, end - *ret_first);
}

static int read_at(int fd, char *buf, size_t n, uint64_t at, struct err *e)
{
	int r = pread_all(fd, buf, n, at);

	return r ? err_sys(e, r == -EPIPE ? EIO : -r, "columns of a table") : 0;
}

/* Bytes of one column's values, from byte `at` of them. */
static int read_column(struct table *t, const struct table_npy *x,
		       const struct npy_column *c, uint64_t at, char *buf,
		       size_t n, struct err *e)
{
	enum set set = set_of(c);
	int r = 0;

	while (n && !r) {
		uint64_t first, rows, skip, from;
		size_t some;

		group_at(t, x->sets[set].group_rows, at / c->width, &first,
			 &rows);
		skip = at - first * c->width;
		from = first * x->sets[set].row_bytes + rows * c->at + skip;
		some = (size_t)MIN((uint64_t)n, rows * c->width - skip);
		r = read_at(x->sets[set].fd, buf, some, from, e);
		buf += some;
		n -= some;
		at += some;
	}
	return r;
}

ssize_t table_npy_read(struct table *t, unsigned which, uint64_t offset,
		       void *buf, size_t n, struct err *e)
{
	const struct table_npy *x = npy_of(t);
	char header[HEADER_MAX];
	size_t head, done = 0;
	uint64_t size;
	int r = table_npy_size(t, which, &size, e);

	if (r)
		return r;
	if (offset >= size)
		return 0;
	n = (size_t)MIN((uint64_t)n, size - offset);
	head = make_header(t, x, which, header);
	if (offset < head) {
		done = MIN(n, head - (size_t)offset);
		memcpy(buf, header + offset, done);
	}
	if (done == n)
		return (ssize_t)n;
	r = table_npy_prepare(t, which, NULL, e);
	if (r)
		return r;
	if (which == TABLE_NPY_MATRIX)
		r = read_at(x->sets[MATRIX].fd, (char *)buf + done, n - done,
			    offset + done - head, e);
	else
		r = read_column(t, x, &x->columns[which - TABLE_NPY_ID],
				offset + done - head, (char *)buf + done,
				n - done, e);
	return r ? r : (ssize_t)n;
}
