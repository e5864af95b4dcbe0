/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A task of one party in this process, from its task.json on: real tables and
 * files below a temporary directory, no messages.  Include after cmocka.h, in
 * one source file of a test program.
 */
#ifndef TESTS_UNIT_LOCAL_TASK_H
#define TESTS_UNIT_LOCAL_TASK_H

#include "lib/fileio.h"
#include "lib/json.h"

#include "components/ctx_priv.h"

#include "tests/unit/temp_dir.h"

static char local_dir[100];
static struct table_store *local_store;
static struct err local_err; /* of the last task */
static char local_code[64];  /* what partners see of it */

static inline int local_setup(void **state)
{
	_cleanup_free_ char *tables = NULL;
	struct err e = { 0 };

	(void)state;
	assert_true(temp_dir(local_dir, sizeof(local_dir), "task"));
	tables = xasprintf("%s/tables", local_dir);
	assert_int_equal(table_store_open(tables, &local_store, &e), 0);
	return 0;
}

static inline int local_teardown(void **state)
{
	(void)state;
	table_store_close(local_store);
	return remove_tree(local_dir, NULL);
}

/* Uploads the table in/<name>. */
static inline void local_upload(const char *name, const char *csv)
{
	struct table_upload *u;
	struct err e = { 0 };

	assert_int_equal(table_upload_begin(local_store, NULL, &u, &e), 0);
	assert_int_equal(table_upload_write(u, csv, strlen(csv), &e), 0);
	assert_int_equal(table_upload_publish(u, "in", name, &e), 0);
}

/* A list of input tables from names with blanks between them. */
static inline json_t *local_tables(const char *names)
{
	json_t *list = json_array();

	for (size_t i = 0, n; *names; names += n + (names[n] == ' '), i++) {
		n = strcspn(names, " ");
		json_array_append_new(
		    list, json_pack("{s:o, s:s, s:o}", "source",
				    json_sprintf("maker_%zu", i), "namespace",
				    "in", "name", json_stringn(names, n)));
	}
	return list;
}

/*
 * Runs a module on in/<table> (several: "t u"; NULL = no input) with these
 * parameters (JSON with ' for "); the result is out/data, the model model.json.
 * with_model: gets the model.json of the task before.
 */
static inline int local_run(const char *module, const char *role,
			    const char *table, const char *params,
			    bool with_model)
{
	_cleanup_free_ char *model = xasprintf("%s/model.json", local_dir);
	_cleanup_free_ char *text = xstrdup(params);
	struct ctx c = { 0 };
	json_t *inputs = json_object();
	int r;

	for (char *p = text; *p; p++)
		*p = *p == '\'' ? '"' : *p;
	if (table)
		json_object_set_new(
		    inputs, "data",
		    json_pack("{s:o}", "data", local_tables(table)));
	if (with_model)
		json_object_set_new(inputs, "model",
				    json_pack("{s:[{s:s, s:s}]}", "model",
					      "source", "maker_0", "path",
					      model));
	c.task = json_pack(
	    "{s:s, s:s, s:s, s:s, s:{s:[s], s:[s]}, s:o, s:o, s:s, s:s, s:s, "
	    "s:s, s:{s:[{s:s, s:s, s:s}], s:[{s:s, s:s}]}}",
	    "job", "1", "component", "it_0", "role", role, "party", "9999",
	    "roles", "guest", "9999", "host", "10000", "params",
	    json_parse(text, strlen(text), NULL), "inputs", inputs, "task_dir",
	    local_dir, "state", local_dir, "socket", "/nonexistent", "session",
	    "1_it_0_0", "outputs", "data", "name", "data", "namespace", "out",
	    "table", "data", "model", "name", "model", "path", model);
	assert_non_null(c.task);
	memset(&local_err, 0, sizeof(local_err));
	r = ctx_start(&c, &local_err);
	if (!r)
		r = component_find(module)->run(&c, &local_err);
	(void)snprintf(local_code, sizeof(local_code), "%s", c.code);
	ctx_end(&c);
	json_decref(c.task);
	return r;
}

/* Uploads in/<name> and brings it to types by DataTransform. */
static inline void local_typed(const char *name, const char *csv,
			       const char *params)
{
	struct err e = { 0 };

	local_upload(name, csv);
	assert_int_equal(
	    local_run("DataTransform", "guest", name, params, false), 0);
	assert_int_equal(
	    table_rename(local_store, "out", "data", "in", name, &e), 0);
}

/* out/data as CSV; valid until the next call. */
static inline const char *local_csv(void)
{
	static char buf[65536];
	_cleanup_table_ struct table *t = NULL;
	struct err e = { 0 };
	ssize_t n;

	assert_int_equal(table_open(local_store, "out", "data", &t, &e), 0);
	n = table_csv_read(t, 0, buf, sizeof(buf) - 1, &e);
	assert_true(n >= 0);
	buf[n] = '\0';
	return buf;
}

/* out/data's schema; caller owns the table. */
static inline struct table *local_out(void)
{
	struct table *t;
	struct err e = { 0 };

	assert_int_equal(table_open(local_store, "out", "data", &t, &e), 0);
	return t;
}

/* summary.json or model.json; caller owns. */
static inline json_t *local_json(const char *file)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", local_dir, file);
	json_t *o = json_read_file(path, NULL);

	assert_non_null(o);
	return o;
}

/* A file of the task as text; valid until the next call. */
static inline const char *local_text(const char *file)
{
	static char buf[65536];
	_cleanup_free_ char *path = xasprintf("%s/%s", local_dir, file);
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(sizeof(buf) - 1);

	assert_int_equal(file_read(path, &sb, NULL), 0);
	(void)snprintf(buf, sizeof(buf), "%s", sb.buf);
	return buf;
}

#endif
