// SPDX-License-Identifier: Apache-2.0
/* Whole tables and large vectors between the tasks of two parties, over two
 * rollsites. */
#include <math.h>

#include "components/ctx_priv.h"
#include "components/table_part.h"
#include "tests/unit/sites.h"

/* ---- tasks ------------------------------------------------------------- */

struct task_of_test {
	struct ctx c;
	json_t *roles, *outputs;
};

static void task_begin(struct task_of_test *x, const struct pair *p, bool host)
{
	_cleanup_free_ char *store = xasprintf("%s/tables%d", dir, host + 1);

	x->roles = json_pack("{s:[s], s:[s]}", "guest", "1", "host", "2");
	x->outputs = json_pack("{s:[{s:s, s:s}]}", "data", "namespace", "got",
			       "table", p->job);
	x->c = (struct ctx){ .job = p->job,
			     .component = "send_0",
			     .role = host ? "host" : "guest",
			     .party = host ? "2" : "1",
			     .roles = x->roles,
			     .outputs = x->outputs,
			     .parents = json_array(),
			     .channel = host ? p->b : p->a,
			     .events = -1,
			     .job_events = -1 };
	OK(table_store_open(store, &x->c.store, &e));
}

static void task_end(struct task_of_test *x)
{
	table_store_close(x->c.store);
	json_decref(x->c.parents);
	json_decref(x->roles);
	json_decref(x->outputs);
}

struct two {
	struct pair p;
	struct task_of_test a, b;
};

static struct two two_begin(void)
{
	struct two w = { .p = pair_open() };

	return w;
}

static void two_tasks(struct two *w)
{
	task_begin(&w->a, &w->p, false);
	task_begin(&w->b, &w->p, true);
}

static void two_end(struct two *w)
{
	task_end(&w->a);
	task_end(&w->b);
	pair_close(&w->p);
}

static struct table *publish(struct task_of_test *x, struct table_build *b,
			     const char *name)
{
	struct table *t = NULL;

	OK(table_build_publish(b, "given", name, &e));
	OK(table_open(x->c.store, "given", name, &t, &e));
	return t;
}

struct sending {
	struct ctx *c;
	struct table *t;
	int status;
	char text[1200];
};

static void *send_it(void *arg)
{
	struct sending *x = arg;
	struct err e = { 0 };

	x->status = ctx_send_table(x->c, "host", 0, "rows", "", x->t, &e);
	(void)snprintf(x->text, sizeof(x->text), "%s", e.text);
	return NULL;
}

static void same_cells(const struct table_schema *s, const struct cell *a,
		       const struct cell *b)
{
	for (size_t i = 0; i < s->n_columns; i++) {
		assert_int_equal(a[i].type, b[i].type);
		if (a[i].type == CELL_STRING) {
			assert_int_equal(a[i].len, b[i].len);
			assert_memory_equal(a[i].str, b[i].str, a[i].len);
		} else if (a[i].type == CELL_F64) {
			assert_memory_equal(&a[i].f64, &b[i].f64, 8);
		} else {
			assert_int_equal(a[i].i64, b[i].i64);
		}
	}
}

static void same_table(struct table *a, struct table *b)
{
	json_t *x = table_part_schema_json(table_schema(a));
	json_t *y = table_part_schema_json(table_schema(b));
	struct table_iter *i = NULL, *k = NULL;
	const struct cell *p, *q;
	const char *m, *n;
	size_t m_len, n_len;
	int r;

	assert_true(json_equal(x, y));
	json_decref(x);
	json_decref(y);
	assert_int_equal(table_rows(a), table_rows(b));
	assert_int_equal(table_csv_size(a), table_csv_size(b));
	OK(table_scan(a, NULL, 0, &i, &e));
	OK(table_scan(b, NULL, 0, &k, &e));
	while ((r = table_next(i, &m, &m_len, &p, NULL)) == 1) {
		assert_int_equal(table_next(k, &n, &n_len, &q, NULL), 1);
		assert_int_equal(m_len, n_len);
		assert_memory_equal(m, n, m_len);
		same_cells(table_schema(a), p, q);
	}
	assert_int_equal(r, 0);
	assert_int_equal(table_next(k, &n, &n_len, &q, NULL), 0);
	table_scan_end(i);
	table_scan_end(k);
}

/* t goes from the guest to the host, which publishes it. */
static void pass(struct two *w, struct table *t, const int *kills)
{
	struct sending x = { .c = &w->a.c, .t = t };
	struct table_build *b = NULL;
	struct table *got = NULL;
	json_t *lineage;
	pthread_t id;

	pthread_create(&id, NULL, send_it, &x);
	for (int i = 0; kills && i < 2; i++) {
		pause_ms(60);
		kill_site(kills[i]);
	}
	OK(ctx_recv_table(&w->b.c, "guest", 0, "rows", "", table_rows(t), &b,
			  &e));
	pthread_join(id, NULL);
	if (x.status)
		fail_msg("%s", x.text);
	OK(ctx_put_table(&w->b.c, 0, b, &e));
	OK(table_open(w->b.c.store, "got", w->p.job, &got, &e));
	same_table(t, got);
	/* Whose task made it, not the sender's. */
	lineage = table_schema(got)->lineage;
	assert_string_equal(json_str_or(lineage, "party", ""), "2");
	table_unref(got);
	table_unref(t);
}

/* ---- tables ------------------------------------------------------------ */

static struct table *numbers(struct two *w, unsigned rows, unsigned columns)
{
	struct table_schema *s = schema_new();
	_cleanup_free_ struct cell *cells = xcalloc(columns, sizeof(*cells));
	struct table_build *b = NULL;

	for (unsigned i = 0; i < columns; i++) {
		char name[20];

		(void)snprintf(name, sizeof(name), "x%u", i);
		schema_add_column(s, name, i % 5 == 4 ? CELL_I64 : CELL_F64,
				  NULL);
	}
	OK(table_build_begin(w->a.c.store, s, &b, &e));
	for (unsigned i = 0; i < rows; i++) {
		char key[20];
		int n = snprintf(key, sizeof(key), "id%u", i * 7919 % rows);

		for (unsigned k = 0; k < columns; k++) {
			cells[k].type = s->columns[k].type;
			cells[k].f64 = (i + 7 * k) % 100 == 99
					   ? (double)NAN
					   : sin(i) * (k + 1);
			cells[k].i64 = (int64_t)i * (k + 1) - 5;
		}
		OK(table_build_add(b, key, (size_t)n, cells, &e));
	}
	schema_free(s);
	return publish(&w->a, b, "numbers");
}

static void a_large_table_arrives_in_parts(void **state)
{
	struct two w = two_begin();
	uint64_t before;

	(void)state;
	two_tasks(&w);
	before = channel_stats(w.p.a).sent;
	pass(&w, numbers(&w, 100000, 20), NULL);
	/* Some four parts and their end. */
	assert_true(channel_stats(w.p.a).sent - before >= 4);
	two_end(&w);
}

static void a_table_arrives_though_rollsites_die(void **state)
{
	static const int kills[2] = { 0, 1 };
	struct two w = two_begin();

	(void)state;
	two_tasks(&w);
	pass(&w, numbers(&w, 99991, 20), kills);
	two_end(&w);
}

static void an_empty_table_arrives(void **state)
{
	struct table_schema *s = schema_new();
	struct table_build *b = NULL;
	struct two w = two_begin();

	(void)state;
	two_tasks(&w);
	schema_add_column(s, "y", CELL_I64, NULL);
	schema_add_column(s, "x", CELL_STRING, "guest_1_0");
	s->label = xstrdup("y");
	s->partitions = 17;
	s->content_type = xstrdup("instances");
	s->lineage = json_pack("{s:s}", "secret", "of the sender");
	s->extra = json_pack("{s:s}", "secret", "of the sender");
	OK(table_build_begin(w.a.c.store, s, &b, &e));
	schema_free(s);
	pass(&w, publish(&w.a, b, "empty"), NULL);
	two_end(&w);
}

static void fields_of_all_kinds_arrive(void **state)
{
	static const char *const texts[] = { "", "\"", "a,b\n\"c\"", " x ",
					     "\xc3\xa4\xe2\x82\xac" };
	struct table_schema *s = schema_new();
	_cleanup_free_ char *big = xmalloc(1u << 20);
	struct table_build *b = NULL;
	struct two w = two_begin();

	(void)state;
	two_tasks(&w);
	memset(big, '"', 1u << 20);
	schema_add_column(s, "text", CELL_STRING, NULL);
	schema_add_column(s, "a \"quoted\", name", CELL_F64, "host_0_1");
	OK(table_build_begin(w.a.c.store, s, &b, &e));
	for (unsigned i = 0; i < 40; i++) {
		const char *text = texts[i % ARRAY_SIZE(texts)];
		struct cell c[2] = { { .type = CELL_STRING,
				       .str = i % 3 ? text : big,
				       .len = i % 3 ? strlen(text) : 1u << 20 },
				     { .type = CELL_F64,
				       .f64 = i % 2 ? (double)NAN : -0.0 } };
		char key[TABLE_KEY_MAX];
		size_t n = i ? i * 25 + 24 : 1;

		memset(key, '\'', sizeof(key));
		key[0] = (char)('A' + i);
		OK(table_build_add(b, key, n, c, &e));
	}
	schema_free(s);
	pass(&w, publish(&w.a, b, "kinds"), NULL);
	two_end(&w);
}

/* ---- refused ----------------------------------------------------------- */

/* Two parts of two rows each, as a partner may make them; spoil says how. */
enum spoil {
	GOOD,
	ORDER,
	TWICE,
	COUNT,
	SHORT,
	TAIL,
	OTHER_SCHEMA,
	OTHER_PART,
	NOT_TEXT,
	INFINITE,
	CLOSING_ROWS,
	CLOSING_DIGEST,
	SPOILS
};

static void add_row(struct strbuf *sb, const struct table_schema *s, char key,
		    const char *text, double v)
{
	const struct cell c[2] = {
		{ .type = CELL_STRING, .str = text, .len = strlen(text) },
		{ .type = CELL_F64, .f64 = v }
	};

	assert_int_equal(table_part_row_write(sb, s, &key, 1, c), 0);
}

static void send_part(struct two *w, unsigned k, const struct strbuf *sb)
{
	char tag[20];

	(void)snprintf(tag, sizeof(tag), "-.%u", k);
	OK(channel_send(w->p.a, host2, "rows", tag, sb->buf, sb->len, &e));
}

static void send_spoilt(struct two *w, enum spoil how)
{
	struct strbuf p[2] = { STRBUF_INIT(10000), STRBUF_INIT(10000) };
	struct table_schema *s = schema_new(), *other;
	json_t *text, *text2, *list = json_array(), *doc;

	schema_add_column(s, "t", CELL_STRING, NULL);
	schema_add_column(s, "x", CELL_F64, NULL);
	other = schema_dup(s);
	schema_add_column(other, "z", CELL_F64, NULL);
	text = table_part_schema_json(s);
	text2 = table_part_schema_json(other);
	assert_int_equal(table_part_head_write(&p[0], 0, 2, text), 0);
	add_row(&p[0], s, 'b', "one", 1);
	add_row(&p[0], s, how == ORDER ? 'a' : 'c',
		how == NOT_TEXT ? "\xff" : "two",
		how == INFINITE ? (double)INFINITY : 2);
	assert_int_equal(table_part_end_write(&p[0], 2), 0);
	if (how == TAIL)
		sb_addc(&p[0], 'x');
	assert_int_equal(
	    table_part_head_write(&p[1], 1, how == OTHER_PART ? 3 : 2,
				  how == OTHER_SCHEMA ? text2 : text),
	    0);
	add_row(&p[1], s, how == TWICE ? 'c' : 'd', "three", 3);
	add_row(&p[1], s, 'e', "four", 4);
	assert_int_equal(table_part_end_write(&p[1], how == COUNT ? 3 : 2), 0);
	if (how == SHORT)
		p[1].len -= 20;
	for (unsigned k = 0; k < 2; k++) {
		uint8_t d[32];
		char hex[65];

		send_part(w, k, &p[k]);
		sha256(p[k].buf, p[k].len, d);
		d[0] ^= how == CLOSING_DIGEST;
		hex_encode(d, 32, hex);
		json_array_append_new(
		    list, json_pack("{s:i, s:s}", "rows", 2, "sha256", hex));
	}
	doc = json_pack("{s:O, s:O, s:i}", "schema", text, "parts", list,
			"rows", how == CLOSING_ROWS ? 5 : 4);
	OK(ctx_send_json(&w->a.c, "host", 0, "rows", "-.end", doc, &e));
	json_decref(doc);
	json_decref(list);
	json_decref(text);
	json_decref(text2);
	schema_free(s);
	schema_free(other);
	sb_free(&p[0]);
	sb_free(&p[1]);
}

static void a_table_that_disagrees_is_refused(void **state)
{
	(void)state;
	for (int how = GOOD; how < SPOILS; how++) {
		struct two w = two_begin();
		struct table_build *b = NULL;

		two_tasks(&w);
		send_spoilt(&w, (enum spoil)how);
		if (how == GOOD) {
			OK(ctx_recv_table(&w.b.c, "guest", 0, "rows", "", 4, &b,
					  &e));
			assert_int_equal(table_build_rows(b), 4);
			table_build_abort(b);
		} else {
			struct err x = { 0 };
			int r = ctx_recv_table(&w.b.c, "guest", 0, "rows", "",
					       4, &b, &x);

			if (r != -EPROTO)
				fail_msg("case %d: %d %s", how, r, x.text);
			assert_true(strlen(x.text) > strlen("message rows: "));
			assert_string_equal(w.b.c.code, "bad_message");
		}
		two_end(&w);
	}
}

static void more_rows_than_wanted_are_refused(void **state)
{
	struct two w = two_begin();
	struct table_build *b = NULL;

	(void)state;
	two_tasks(&w);
	send_spoilt(&w, GOOD);
	FAILS(EPROTO,
	      ctx_recv_table(&w.b.c, "guest", 0, "rows", "", 3, &b, &e));
	two_end(&w);
}

/* ---- vectors ----------------------------------------------------------- */

static void large_vectors_arrive(void **state)
{
	const size_t n = 700001;
	struct two w = two_begin();
	_cleanup_free_ double *f = xmalloc(n * 8), *f2 = xmalloc(n * 8);
	_cleanup_free_ uint32_t *u = xmalloc(n * 4);
	_cleanup_free_ void *u2 = NULL, *x2 = NULL;
	size_t got = 0;

	(void)state;
	two_tasks(&w);
	for (size_t i = 0; i < n; i++) {
		f[i] = sin((double)i);
		u[i] = (uint32_t)(i * 2654435761u);
	}
	OK(ctx_send_f64(&w.a.c, "host", 0, "f", "", f, n, &e));
	OK(ctx_send_u32(&w.a.c, "host", 0, "u", "", u, n, &e));
	OK(ctx_send_fixed(&w.a.c, "host", 0, "x", "", u, 1000, n / 250, &e));
	OK(ctx_recv_f64(&w.b.c, "guest", 0, "f", "", f2, n, &e));
	assert_memory_equal(f, f2, n * 8);
	OK(ctx_recv_u32(&w.b.c, "guest", 0, "u", "", n, (uint32_t **)&u2, &got,
			&e));
	assert_int_equal(got, n);
	assert_memory_equal(u, u2, n * 4);
	OK(ctx_recv_fixed(&w.b.c, "guest", 0, "x", "", 1000, n, (uint8_t **)&x2,
			  &got, &e));
	assert_int_equal(got, n / 250);
	assert_memory_equal(u, x2, got * 1000);
	two_end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_large_table_arrives_in_parts),
		cmocka_unit_test(a_table_arrives_though_rollsites_die),
		cmocka_unit_test(an_empty_table_arrives),
		cmocka_unit_test(fields_of_all_kinds_arrive),
		cmocka_unit_test(a_table_that_disagrees_is_refused),
		cmocka_unit_test(more_rows_than_wanted_are_refused),
		cmocka_unit_test(large_vectors_arrive),
	};

	if (getenv("ONLY"))
		cmocka_set_test_filter(getenv("ONLY"));
	return cmocka_run_group_tests(tests, world_up, world_down) + complaints;
}
