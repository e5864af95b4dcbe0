// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <unistd.h>

#include "lib/json.h"
#include "lib/table_ops.h"
#include "tests/unit/store_dir.h"

static const struct table_run four = { .threads = 4 };

/* ---- tables to work on ------------------------------------------------- */

static struct table_schema *schema(unsigned partitions)
{
	struct table_schema *s = schema_new();

	schema_add_column(s, "t", CELL_STRING, NULL);
	schema_add_column(s, "x", CELL_F64, NULL);
	schema_add_column(s, "n", CELL_I64, NULL);
	s->partitions = partitions;
	return s;
}

static struct table_build *begin(unsigned partitions)
{
	struct table_schema *s = schema(partitions);
	struct table_build *b = NULL;

	assert_int_equal(table_build_begin(store, s, &b, NULL), 0);
	schema_free(s);
	return b;
}

static struct table *publish(struct table_build *b, const char *name)
{
	struct table *t = NULL;
	struct err e = { 0 };

	if (table_build_publish(b, "ns", name, &e) ||
	    table_open(store, "ns", name, &t, &e))
		fail_msg("%s", e.text);
	return t;
}

/* Row i of a table: text "7", x = i / 8 (missing for multiples of 10), n. */
static void add(struct table_build *b, unsigned i)
{
	char key[20], text[20];
	struct cell c[3] = {
		{ .type = CELL_STRING, .str = text },
		{ .type = CELL_F64, .f64 = i % 10 ? i / 8.0 : NAN },
		{ .type = CELL_I64, .i64 = i },
	};
	size_t len = (size_t)snprintf(key, sizeof(key), "%05u", i);

	c[0].len = (size_t)snprintf(text, sizeof(text), "%u", i);
	assert_int_equal(table_build_add(b, key, len, c, NULL), 0);
}

static struct table *every(unsigned from, unsigned to, unsigned step,
			   unsigned partitions, const char *name)
{
	struct table_build *b = begin(partitions);

	for (unsigned i = from; i < to; i += step)
		add(b, i);
	return publish(b, name);
}

static void text_of(struct table *t, struct strbuf *ret)
{
	char buf[4096];
	ssize_t n;

	sb_init(ret, 16u << 20);
	while ((n = table_csv_read(t, ret->len, buf, sizeof(buf), NULL)) > 0)
		sb_add(ret, buf, (size_t)n);
	assert_int_equal(n, 0);
}

static void same(struct table *a, struct table *b)
{
	struct strbuf x, y;

	text_of(a, &x);
	text_of(b, &y);
	assert_int_equal(x.len, y.len);
	assert_memory_equal(x.buf, y.buf, x.len);
	sb_free(&x);
	sb_free(&y);
}

/* ---- rows, take -------------------------------------------------------- */

struct seen {
	unsigned n;
	char last[32];
};

static int see(void *arg, const char *key, size_t len, const struct cell *cells,
	       struct err *e)
{
	struct seen *s = arg;

	(void)cells;
	s->n++;
	(void)snprintf(s->last, sizeof(s->last), "%.*s", (int)len, key);
	return s->n == 70 ? err_set(e, EINVAL, "seventy") : 0;
}

static void taking_ends_where_it_is_told(void **state)
{
	struct table *t = every(0, 100, 1, 3, "take");
	struct seen s = { 0 };
	struct err e = { 0 };

	(void)state;
	assert_int_equal(table_take(t, 0, see, &s, NULL), 0);
	assert_int_equal(s.n, 0);
	assert_int_equal(table_take(t, 5, see, &s, NULL), 0);
	assert_string_equal(s.last, "00004");
	s.n = 0;
	assert_int_equal(table_each(t, see, &s, &e), -EINVAL);
	assert_string_equal(e.text, "seventy");
	table_unref(t);
}

/* ---- map and reduce ---------------------------------------------------- */

/* Remainders of n by 97, several rows each; a row tells its partition. */
static int remainders(void *arg, unsigned partition, struct table_rows *in,
		      struct table_out *out, struct err *e)
{
	const struct cell *cells;
	const char *key;
	size_t len;
	int r;

	(void)partition;
	while ((r = table_rows_next(in, &key, &len, &cells, e)) > 0) {
		struct cell c[3];
		char to[20];
		size_t n = (size_t)snprintf(to, sizeof(to), "r%02d",
					    (int)(cells[2].i64 % 97));

		memcpy(c, cells, sizeof(c));
		/* Sums of these depend on the order of the additions. */
		c[1].f64 = 1.0 / (double)(cells[2].i64 + 1);
		r = table_out_add(out, to, n, c, e);
		if (r < 0)
			return r;
		if (arg)
			usleep((unsigned)(cells[2].i64 % 3));
	}
	return r;
}

/* Longer texts than a row had: t becomes "1+2+3". */
static _Thread_local char joined[1 << 16];

static int add_up(void *arg, const char *key, size_t len, struct cell *sum,
		  const struct cell *next, struct err *e)
{
	char copy[sizeof(joined)];

	(void)arg, (void)key, (void)len, (void)e;
	sum[0].len =
	    (size_t)snprintf(copy, sizeof(copy), "%.*s+%.*s", (int)sum[0].len,
			     sum[0].str, (int)next[0].len, next[0].str);
	memcpy(joined, copy, sum[0].len);
	sum[0].str = joined;
	sum[1].f64 += next[1].f64;
	sum[2].i64 += next[2].i64;
	return 0;
}

static struct table *reduced(struct table *t, const struct table_run *run,
			     bool slow, const char *name)
{
	struct table_build *b = begin(2);
	struct err e = { 0 };

	if (table_map_reduce(t, run, remainders, add_up, slow ? b : NULL, b,
			     &e))
		fail_msg("%s", e.text);
	return publish(b, name);
}

static void merged_rows_are_those_of_a_loop(void **state)
{
	struct table *t = every(0, 5000, 1, 7, "loop"), *got;
	const struct cell *cells;
	struct table_iter *it;
	unsigned rows = 0;
	const char *key;
	size_t len;

	(void)state;
	got = reduced(t, &four, false, "loop.sums");
	assert_int_equal(table_scan(got, NULL, 0, &it, NULL), 0);
	while (table_next(it, &key, &len, &cells, NULL) > 0) {
		unsigned k = (unsigned)strtoul(key + 1, NULL, 10);
		struct strbuf want = STRBUF_INIT(1 << 16);
		double sum = 0;
		int64_t n = 0;

		for (unsigned i = k; i < 5000; i += 97) {
			sb_addf(&want, i == k ? "%u" : "+%u", i);
			sum += 1.0 / (i + 1);
			n += i;
		}
		assert_int_equal(cells[2].i64, n);
		assert_true(fabs(cells[1].f64 - sum) < 1e-12);
		/* Merged in the order of the rows. */
		assert_int_equal(cells[0].len, want.len);
		assert_memory_equal(cells[0].str, want.buf, want.len);
		sb_free(&want);
		rows++;
	}
	table_scan_end(it);
	assert_int_equal(rows, 97);
	table_unref(t);
	table_unref(got);
}

static void threads_change_no_bit(void **state)
{
	struct table *t = every(0, 3000, 1, 9, "bits"), *one, *other;

	(void)state;
	one = reduced(t, NULL, false, "bits.1");
	for (unsigned n = 2; n < 6; n++) {
		struct table_run run = { .threads = n };

		other = reduced(t, &run, n % 2, "bits.n");
		same(one, other);
		table_unref(other);
	}
	table_unref(one);
	table_unref(t);
}

/* Rows that do not fit into memory: 40 MB of them, each key twice. */
static int twice(void *arg, unsigned partition, struct table_rows *in,
		 struct table_out *out, struct err *e)
{
	static char fill[10000];
	const struct cell *cells;
	const char *key;
	size_t len;
	int r;

	(void)arg, (void)partition;
	while ((r = table_rows_next(in, &key, &len, &cells, e)) > 0) {
		struct cell c[3] = { { .str = fill, .len = sizeof(fill) },
				     cells[1],
				     { .type = CELL_I64, .i64 = 1 } };

		r = table_out_add(out, key, len, c, e);
		if (!r)
			r = table_out_add(out, key, len, c, e);
		if (r)
			break;
	}
	return r;
}

static int count_up(void *arg, const char *key, size_t len, struct cell *sum,
		    const struct cell *next, struct err *e)
{
	(void)arg, (void)key, (void)len, (void)e;
	sum[2].i64 += next[2].i64;
	return 0;
}

static int is_two(void *arg, const char *key, size_t len,
		  const struct cell *cells, struct err *e)
{
	(void)arg, (void)key, (void)len;
	return cells[2].i64 == 2 ? 0 : err_set(e, EINVAL, "not two");
}

static void more_than_memory_goes_through_a_file(void **state)
{
	struct table *t = every(0, 2000, 1, 2, "large"), *got;
	struct table_build *b = begin(3);

	(void)state;
	assert_int_equal(
	    table_map_reduce(t, &four, twice, count_up, NULL, b, NULL), 0);
	got = publish(b, "large.twice");
	assert_int_equal(table_rows(got), 2000);
	assert_int_equal(table_each(got, is_two, NULL, NULL), 0);
	table_unref(got);
	table_unref(t);
}

/* Ten ids; the numbers of their rows grow, through runs and partitions. */
static int numbered(void *arg, unsigned partition, struct table_rows *in,
		    struct table_out *out, struct err *e)
{
	static char fill[10000];
	const struct cell *cells;
	const char *key;
	size_t len;
	int64_t n = 0;
	int r;

	(void)arg;
	while ((r = table_rows_next(in, &key, &len, &cells, e)) > 0) {
		struct cell c[3] = { { .str = fill, .len = sizeof(fill) },
				     cells[1],
				     { .type = CELL_I64 } };

		c[2].i64 = (int64_t)partition << 32 | n++;
		r = table_out_add(out, key + len - 1, 1, c, e);
		if (r < 0)
			break;
	}
	return r;
}

static int the_later(void *arg, const char *key, size_t len, struct cell *sum,
		     const struct cell *next, struct err *e)
{
	(void)arg, (void)key, (void)len;
	if (next[2].i64 <= sum[2].i64)
		return err_set(e, EINVAL, "a row came too late");
	sum[2].i64 = next[2].i64;
	return 0;
}

static void rows_of_several_runs_meet_in_their_order(void **state)
{
	struct table *t = every(0, 4000, 1, 2, "order"), *got;
	struct table_build *b = begin(3);
	struct err e = { 0 };

	(void)state;
	if (table_map_reduce(t, &four, numbered, the_later, NULL, b, &e))
		fail_msg("%s", e.text);
	got = publish(b, "order.last");
	assert_int_equal(table_rows(got), 10);
	table_unref(got);
	table_unref(t);
}

static int copy_rows(void *arg, unsigned partition, struct table_rows *in,
		     struct table_out *out, struct err *e)
{
	const struct cell *cells;
	const char *key;
	size_t len;
	int r;

	while ((r = table_rows_next(in, &key, &len, &cells, e)) > 0) {
		r = table_out_add(out, key, len, cells, e);
		if (r < 0)
			return r;
		if (arg && cells[2].i64 % 100 == 99)
			return err_set(e, EINVAL, "partition %u", partition);
	}
	return r;
}

static void rows_without_a_merge_are_a_table(void **state)
{
	struct table *t = every(0, 3000, 1, 5, "copy"), *got;
	struct table_build *b = begin(4);
	const json_t *l;

	(void)state;
	assert_int_equal(
	    table_map_reduce(t, &four, copy_rows, NULL, NULL, b, NULL), 0);
	got = publish(b, "copy.2");
	same(t, got);
	l = table_schema(got)->lineage;
	assert_string_equal(json_str_or(l, "operation", ""), "map_reduce");
	assert_int_equal(json_integer_value(json_array_get(
			     json_object_get(l, "generations"), 0)),
			 table_generation(t));
	table_unref(got);
	table_unref(t);
}

static void a_key_made_twice_is_an_error(void **state)
{
	struct table *t = every(0, 500, 1, 5, "dup");
	struct table_build *b = begin(4);
	struct err e = { 0 };
	int r = table_map_reduce(t, &four, remainders, NULL, NULL, b, &e);

	(void)state;
	if (r)
		table_build_abort(b);
	else
		r = table_build_publish(b, "ns", "dup.2", &e);
	assert_int_equal(r, -EEXIST);
	table_unref(t);
}

static void the_first_partitions_error_is_told(void **state)
{
	struct table *t = every(0, 1000, 1, 8, "fails");

	(void)state;
	for (int i = 0; i < 20; i++) {
		struct table_build *b = begin(4);
		struct err e = { 0 };

		assert_int_equal(
		    table_map_reduce(t, &four, copy_rows, NULL, b, b, &e),
		    -EINVAL);
		assert_string_equal(e.text, "partition 0");
		table_build_abort(b);
	}
	table_unref(t);
}

static atomic_bool cancel;

static int cancel_here(void *arg, unsigned partition, struct table_rows *in,
		       struct table_out *out, struct err *e)
{
	const struct cell *cells;
	const char *key;
	size_t len;
	int r;

	(void)arg, (void)partition, (void)out;
	while ((r = table_rows_next(in, &key, &len, &cells, e)) > 0)
		atomic_store(&cancel, true);
	return r;
}

static void a_canceled_operation_ends(void **state)
{
	struct table *t = every(0, 20000, 1, 4, "cancel");
	const struct table_run run = { .threads = 2, .cancel = &cancel };
	struct table_build *b = begin(4);

	(void)state;
	assert_int_equal(
	    table_map_reduce(t, &run, cancel_here, NULL, NULL, b, NULL),
	    -ECANCELED);
	table_build_abort(b);
	table_unref(t);
}

static void an_empty_table_is_one_empty_partition(void **state)
{
	struct table *t = every(0, 0, 1, 4, "none"), *got;
	struct table_build *b = begin(4);

	(void)state;
	assert_int_equal(
	    table_map_reduce(t, &four, copy_rows, NULL, NULL, b, NULL), 0);
	got = publish(b, "none.2");
	assert_int_equal(table_rows(got), 0);
	table_unref(got);
	table_unref(t);
}

/* ---- two tables -------------------------------------------------------- */

static int sum_pair(void *arg, const char *key, size_t len,
		    const struct cell *a, const struct cell *b,
		    struct cell *cells, struct err *e)
{
	(void)arg, (void)key, (void)len, (void)e;
	cells[0] = a[0];
	cells[1] = (struct cell){ .type = CELL_F64, .f64 = a[1].f64 };
	cells[2] =
	    (struct cell){ .type = CELL_I64, .i64 = a[2].i64 + b[2].i64 };
	return 0;
}

/* Is t what multiples of 2 or 3 below 6000 say? */
static void check_pairs(struct table *t, bool only2, bool only3, bool both)
{
	const struct cell *cells;
	struct table_iter *it;
	const char *key;
	size_t len;

	assert_int_equal(table_scan(t, NULL, 0, &it, NULL), 0);
	for (unsigned i = 0; i < 6000; i++) {
		bool two = i % 2 == 0, three = i % 3 == 0;
		char want[20];

		if (!((two && three && both) || (two && !three && only2) ||
		      (!two && three && only3)))
			continue;
		(void)snprintf(want, sizeof(want), "%05u", i);
		assert_int_equal(table_next(it, &key, &len, &cells, NULL), 1);
		assert_memory_equal(key, want, len);
		assert_int_equal(cells[2].i64, two && three ? 2 * i : i);
	}
	assert_int_equal(table_next(it, &key, &len, &cells, NULL), 0);
	table_scan_end(it);
}

static void two_tables_meet_by_id(void **state)
{
	struct table *two = every(0, 6000, 2, 5, "two"), *t;
	struct table *three = every(0, 6000, 3, 3, "three");

	(void)state;
	for (unsigned threads = 1; threads < 4; threads++) {
		struct table_run run = { .threads = threads };
		struct table_build *b = begin(4);

		assert_int_equal(
		    table_join(two, three, &run, sum_pair, NULL, b, NULL), 0);
		t = publish(b, "joined");
		check_pairs(t, false, false, true);
		table_unref(t);
		b = begin(4);
		assert_int_equal(
		    table_union(two, three, &run, sum_pair, NULL, b, NULL), 0);
		t = publish(b, "united");
		check_pairs(t, true, true, true);
		table_unref(t);
		b = begin(4);
		assert_int_equal(table_subtract(three, two, &run, b, NULL), 0);
		t = publish(b, "less");
		check_pairs(t, false, true, false);
		assert_string_equal(
		    json_str_or(table_schema(t)->lineage, "operation", ""),
		    "subtract");
		table_unref(t);
	}
	table_unref(two);
	table_unref(three);
}

static void an_empty_side_is_no_trouble(void **state)
{
	struct table *two = every(0, 100, 2, 5, "two"), *t;
	struct table *none = every(0, 0, 1, 3, "none");
	struct table_build *b = begin(4);

	(void)state;
	assert_int_equal(table_join(none, two, &four, NULL, NULL, b, NULL), 0);
	t = publish(b, "e");
	assert_int_equal(table_rows(t), 0);
	table_unref(t);
	b = begin(4);
	assert_int_equal(table_union(none, two, &four, NULL, NULL, b, NULL), 0);
	t = publish(b, "e");
	same(t, two);
	table_unref(t);
	b = begin(4);
	assert_int_equal(table_subtract(two, none, &four, b, NULL), 0);
	t = publish(b, "e");
	same(t, two);
	table_unref(t);
	table_unref(two);
	table_unref(none);
}

/* ---- one value --------------------------------------------------------- */

struct total {
	double sum;
	uint64_t n;
};

static int total_row(void *arg, void *state, const char *key, size_t len,
		     const struct cell *cells, struct err *e)
{
	struct total *t = state;

	(void)arg, (void)key, (void)len, (void)e;
	t->sum += 1.0 / (double)(1 + cells[2].i64);
	t->n++;
	return 0;
}

static void total_combine(void *arg, void *sum, const void *state)
{
	struct total *t = sum;
	const struct total *more = state;

	(void)arg;
	t->sum += more->sum;
	t->n += more->n;
}

static void a_sum_does_not_depend_on_the_threads(void **state)
{
	struct table *t = every(0, 10000, 1, 13, "sum");
	struct total first = { 0 };

	(void)state;
	for (unsigned n = 1; n < 6; n++) {
		struct table_run run = { .threads = n };
		struct total sum = { 0 };

		assert_int_equal(table_reduce(t, &run, sizeof(sum), total_row,
					      total_combine, NULL, &sum, NULL),
				 0);
		assert_int_equal(sum.n, 10000);
		if (n == 1)
			first = sum;
		assert_memory_equal(&sum.sum, &first.sum, 8);
	}
	table_unref(t);
}

/* ---- numbers ----------------------------------------------------------- */

static void a_matrix_is_the_columns_asked_for(void **state)
{
	const size_t columns[3] = { 2, 0, 1 };
	struct table *t = every(0, 1000, 1, 6, "matrix");
	double *x = calloc(3000, sizeof(*x)), *y = calloc(3000, sizeof(*y));
	struct table_matrix *m = NULL;
	size_t at = 0;
	ssize_t n;

	(void)state;
	assert_int_equal(table_matrix_read(t, columns, 3, &four, x, NULL), 0);
	for (unsigned i = 0; i < 1000; i++) {
		assert_true(x[3 * i] == i && x[3 * i + 1] == i);
		assert_true(i % 10 ? x[3 * i + 2] == i / 8.0
				   : isnan(x[3 * i + 2]));
	}
	assert_int_equal(table_matrix_begin(t, columns, 3, &m, NULL), 0);
	while ((n = table_matrix_next(m, y + 3 * at, 77, NULL)) > 0)
		at += (size_t)n;
	assert_int_equal(n, 0);
	assert_int_equal(at, 1000);
	assert_memory_equal(x, y, 3000 * sizeof(*x));
	table_matrix_end(m);
	free(x);
	free(y);
	table_unref(t);
}

static void a_cell_that_is_no_number_is_named(void **state)
{
	static const char text[] = "id,a,b\n1,5,1\n2,NA,\n3,7,one\n4,x,2\n";
	const size_t a[1] = { 0 }, both[2] = { 0, 1 };
	struct table_upload *u = NULL;
	struct table_matrix *m = NULL;
	struct table *t = NULL;
	struct err e = { 0 };
	double x[8];

	(void)state;
	assert_int_equal(table_upload_begin(store, NULL, &u, NULL), 0);
	assert_int_equal(table_upload_write(u, text, strlen(text), NULL), 0);
	assert_int_equal(table_upload_publish(u, "ns", "cells", NULL), 0);
	assert_int_equal(table_open(store, "ns", "cells", &t, NULL), 0);
	assert_int_equal(table_matrix_read(t, both, 2, &four, x, &e), -EINVAL);
	assert_string_equal(e.text, "row 3 column b: no number");
	assert_int_equal(table_matrix_begin(t, a, 1, &m, NULL), 0);
	assert_int_equal(table_matrix_next(m, x, 3, NULL), 3);
	assert_true(x[0] == 5 && isnan(x[1]) && x[2] == 7);
	assert_int_equal(table_matrix_next(m, x, 3, &e), -EINVAL);
	assert_string_equal(e.text, "row 4 column a: no number");
	table_matrix_end(m);
	table_unref(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(taking_ends_where_it_is_told),
		cmocka_unit_test(merged_rows_are_those_of_a_loop),
		cmocka_unit_test(threads_change_no_bit),
		cmocka_unit_test(more_than_memory_goes_through_a_file),
		cmocka_unit_test(rows_of_several_runs_meet_in_their_order),
		cmocka_unit_test(rows_without_a_merge_are_a_table),
		cmocka_unit_test(a_key_made_twice_is_an_error),
		cmocka_unit_test(the_first_partitions_error_is_told),
		cmocka_unit_test(a_canceled_operation_ends),
		cmocka_unit_test(an_empty_table_is_one_empty_partition),
		cmocka_unit_test(two_tables_meet_by_id),
		cmocka_unit_test(an_empty_side_is_no_trouble),
		cmocka_unit_test(a_sum_does_not_depend_on_the_threads),
		cmocka_unit_test(a_matrix_is_the_columns_asked_for),
		cmocka_unit_test(a_cell_that_is_no_number_is_named),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
