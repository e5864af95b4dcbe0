// SPDX-License-Identifier: Apache-2.0
/* CSV text as it is written -> a new generation. */
#include "lib/csv.h"
#include "lib/table_priv.h"

struct table_upload {
	struct table_store *store;
	struct csv csv;
	char delimiter;
	unsigned partitions;
	struct table_schema *schema; /* NULL before the header */
	struct table_build *build;
	struct cell *cells;
	struct err failed; /* the first error; every later call repeats it */
};

static int column_error(const struct table_upload *u, uint64_t line, size_t k,
			struct err *e, const char *what)
{
	return err_set(e, EINVAL, "line %llu column %.100s: %s",
		       (unsigned long long)line,
		       !u->schema ? "?"
		       : k	  ? u->schema->columns[k - 1].name
				  : u->schema->id,
		       what);
}

static int header(struct table_upload *u, uint64_t line, const char *text,
		  const struct csv_field *f, size_t n, struct err *e)
{
	struct table_schema *s = schema_new();
	int r = 0;

	for (size_t i = 0; i < n && !r; i++) {
		_cleanup_free_ char *name = strndup(text + f[i].at, f[i].len);

		if (!name || strlen(name) != f[i].len ||
		    !utf8_valid(text + f[i].at, f[i].len))
			r = err_set(e, EINVAL,
				    "line %llu column %zu: the name is not "
				    "UTF-8 text",
				    (unsigned long long)line, i + 1);
		else if (!f[i].len)
			r = err_set(e, EINVAL,
				    "line %llu column %zu: the column has no "
				    "name (is the header missing?)",
				    (unsigned long long)line, i + 1);
		else if (f[i].len > 1024)
			r = err_set(e, EINVAL,
				    "line %llu column %zu: the name is longer "
				    "than 1024 bytes",
				    (unsigned long long)line, i + 1);
		else if (i &&
			 (!strcmp(name, s->id) || schema_find(s, name) >= 0))
			r = err_set(e, EINVAL,
				    "line %llu column %zu: a second column "
				    "\"%.100s\"",
				    (unsigned long long)line, i + 1, name);
		else if (i)
			schema_add_column(s, name, CELL_STRING, NULL);
		else {
			free(s->id);
			s->id = xstrdup(name);
		}
	}
	/* Names of columns are not numbers: the header was forgotten. */
	if (!r && n > 1) {
		size_t numbers = 0;
		double v;

		for (size_t i = 1; i < n; i++)
			numbers += num_parse(text + f[i].at, f[i].len, &v);
		if (numbers == n - 1)
			r = err_set(e, EINVAL,
				    "line %llu column 2: numbers instead of "
				    "column names (is the header missing?)",
				    (unsigned long long)line);
	}
	s->partitions = u->partitions;
	if (!r)
		r = table_build_begin(u->store, s, &u->build, e);
	if (r) {
		schema_free(s);
		return r;
	}
	u->schema = s;
	u->cells = xcalloc(s->n_columns, sizeof(*u->cells));
	return 0;
}

static int on_row(void *arg, uint64_t line, const char *text,
		  const struct csv_field *f, size_t n, struct err *e)
{
	struct table_upload *u = arg;

	if (!u->schema)
		return header(u, line, text, f, n, e);
	if (n != u->schema->n_columns + 1)
		return err_set(e, EINVAL,
			       "line %llu column %zu: %zu fields, the header "
			       "has %zu",
			       (unsigned long long)line,
			       MIN(n, u->schema->n_columns + 1) +
				   (n > u->schema->n_columns + 1),
			       n, u->schema->n_columns + 1);
	for (size_t i = 0; i < n; i++) {
		if (!utf8_valid(text + f[i].at, f[i].len) ||
		    memchr(text + f[i].at, 0, f[i].len))
			return column_error(u, line, i, e, "not UTF-8 text");
		if (i)
			u->cells[i - 1] = (struct cell){
				.type = CELL_STRING,
				.str = text + f[i].at,
				.len = f[i].len,
			};
	}
	if (!f[0].len)
		return column_error(u, line, 0, e, "the id is empty");
	if (f[0].len > TABLE_KEY_MAX)
		return column_error(u, line, 0, e,
				    "the id is longer than 1024 bytes");
	return table_build_add_line(u->build, text + f[0].at, f[0].len,
				    u->cells, line, e);
}

static int read_options(struct table_upload *u, const json_t *o, struct err *e)
{
	json_t *root = (json_t *)o, *v;
	const char *key;

	json_object_foreach (root, key, v) {
		if (!strcmp(key, "head")) {
			if (!json_is_integer(v) || json_integer_value(v) != 1)
				return err_set(e, EINVAL,
					       "upload.json#/head: only 1 (the "
					       "first line is the header)");
		} else if (!strcmp(key, "id_delimiter")) {
			const char *s = json_string_value(v);

			if (!s || strlen(s) != 1 || *s == '"' || *s == '\n' ||
			    *s == '\r')
				return err_set(e, EINVAL,
					       "upload.json#/id_delimiter: "
					       "expected one character");
			u->delimiter = *s;
		} else if (!strcmp(key, "partition")) {
			if (!json_is_integer(v) || json_integer_value(v) < 1 ||
			    json_integer_value(v) > 1000)
				return err_set(e, EINVAL,
					       "upload.json#/partition: "
					       "expected 1 to 1000");
			u->partitions = (unsigned)json_integer_value(v);
		} else {
			return err_set(e, EINVAL,
				       "upload.json#/%.100s: no such option "
				       "(head, id_delimiter, partition)",
				       key);
		}
	}
	return 0;
}

int table_upload_begin(struct table_store *s, const json_t *options,
		       struct table_upload **ret, struct err *e)
{
	struct table_upload *u = xcalloc(1, sizeof(*u));
	int r = 0;

	u->store = s;
	u->delimiter = ',';
	u->partitions = 4;
	if (options)
		r = read_options(u, options, e);
	if (r) {
		free(u);
		return r;
	}
	csv_init(&u->csv, u->delimiter, TABLE_ROW_MAX, TABLE_COLUMNS_MAX + 1,
		 on_row, u);
	*ret = u;
	return 0;
}

static int repeat(struct table_upload *u, int r, struct err *e)
{
	if (r && e)
		u->failed = *e;
	if (r)
		u->failed.no = -r;
	return r;
}

int table_upload_write(struct table_upload *u, const void *data, size_t n,
		       struct err *e)
{
	if (u->failed.no) {
		if (e)
			*e = u->failed;
		return -u->failed.no;
	}
	return repeat(u, csv_feed(&u->csv, data, n, e), e);
}

uint64_t table_upload_rows(const struct table_upload *u)
{
	return u->build ? table_build_rows(u->build) : 0;
}

int table_upload_publish(struct table_upload *u, const char *ns,
			 const char *name, struct err *e)
{
	int r;

	if (u->failed.no) {
		if (e)
			*e = u->failed;
		r = -u->failed.no;
	} else {
		r = csv_end(&u->csv, e);
	}
	if (!r && !u->schema)
		r = err_set(e, EINVAL, "line 1: no header, the file is empty");
	if (!r)
		r = table_build_publish(TAKE_PTR(u->build), ns, name, e);
	/* A duplicate is the file's fault, like every other bad line. */
	if (r == -EEXIST && e)
		e->no = EINVAL;
	table_upload_abort(u);
	return r == -EEXIST ? -EINVAL : r;
}

void table_upload_abort(struct table_upload *u)
{
	if (!u)
		return;
	if (u->build)
		table_build_abort(u->build);
	csv_free(&u->csv);
	schema_free(u->schema);
	free(u->cells);
	free(u);
}
