// SPDX-License-Identifier: Apache-2.0
/* CSV text as it is written -> a new generation. */
#include <sys/random.h>

#include "lib/csv.h"
#include "lib/table_priv.h"
#include "lib/upload_priv.h"

#define SID "extend_sid"

/* A character that may be the delimiter, though nobody said so. */
struct guess {
	char c;
	size_t n;	/* there are so many in each line; 0: no guess */
	unsigned lines; /* seen so far */
};

struct table_upload {
	struct table_store *store;
	struct csv csv;
	struct upload_options o;
	size_t keyed;		     /* 1: the first field is the id; 0 */
	char run[33];		     /* makes ids of this upload its own */
	struct table_schema *schema; /* NULL before the first line */
	struct table_build *build;
	struct cell *cells;
	struct guess guess;
	struct strbuf text;		 /* a value without its quotes */
	struct table_progress *progress; /* NULL: nobody looks */
	char begin[10]; /* the first bytes, and how many there are */
	size_t begun;
	struct err failed; /* the first error; every later call repeats it */
};

/* Field k of a line: its column's name, or the id's. */
static int column_error(const struct table_upload *u, uint64_t line, size_t k,
			struct err *e, const char *what)
{
	return err_set(e, EINVAL, "line %llu column %.100s: %s",
		       (unsigned long long)line,
		       !u->schema      ? "?"
		       : k >= u->keyed ? u->schema->columns[k - u->keyed].name
				       : u->schema->id,
		       what);
}

/* ---- columns ----------------------------------------------------------- */

static void add_column(struct table_schema *s, const char *name, bool id)
{
	if (!id) {
		schema_add_column(s, name, CELL_STRING, NULL);
		return;
	}
	free(s->id);
	s->id = xstrdup(name);
}

struct named {
	const char *name;
	size_t at; /* 0: the id, else 1 + number of the column */
};

static int by_name(const void *pa, const void *pb)
{
	const struct named *a = pa, *b = pb;
	int c = strcmp(a->name, b->name);

	return c ? c : (a->at > b->at) - (a->at < b->at);
}

/* Names the first column whose name another before it has. */
static int check_twice(const struct table_upload *u,
		       const struct table_schema *s, uint64_t line,
		       struct err *e)
{
	size_t n = s->n_columns + 1;
	_cleanup_free_ struct named *all = xcalloc(n, sizeof(*all));
	const struct named *second = NULL;

	all[0].name = s->id;
	for (size_t i = 1; i < n; i++)
		all[i] = (struct named){ s->columns[i - 1].name, i };
	qsort(all, n, sizeof(*all), by_name);
	for (size_t i = 1; i < n; i++)
		if (!strcmp(all[i].name, all[i - 1].name) &&
		    (!second || all[i].at < second->at))
			second = &all[i];
	return !second ? 0
		       : err_set(e, EINVAL,
				 "line %llu column %zu: a second column "
				 "\"%.100s\"",
				 (unsigned long long)line,
				 second->at + u->keyed, second->name);
}

/* The columns that the first line names. */
static int named_columns(struct table_upload *u, struct table_schema *s,
			 uint64_t line, const char *text,
			 const struct csv_field *f, size_t n, struct err *e)
{
	size_t numbers = 0;
	int r = 0;

	for (size_t i = 0; i < n && !r; i++) {
		_cleanup_free_ char *name = strndup(text + f[i].at, f[i].len);
		double v;

		if (!name || strlen(name) != f[i].len ||
		    !utf8_valid(text + f[i].at, f[i].len))
			r = err_set(e, EINVAL,
				    "line %llu column %zu: the name is not "
				    "UTF-8 text",
				    (unsigned long long)line, i + 1);
		else if (!f[i].len && !i && n > 1 && u->keyed && f[1].len)
			r = err_set(e, EINVAL,
				    "line %llu column 1: the column of the ids "
				    "has no name (an index? in pandas: "
				    "to_csv(..., index_label=\"id\"), or "
				    "index=False; in R: row.names=FALSE)",
				    (unsigned long long)line);
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
		else
			add_column(s, name, u->keyed && !i);
		numbers += i && num_parse(text + f[i].at, f[i].len, &v);
	}
	/* Names of columns are not numbers: the header was forgotten. */
	if (!r && n > 1 && numbers == n - 1)
		r = err_set(e, EINVAL,
			    "line %llu column 2: numbers instead of "
			    "column names (is the header missing? then write "
			    "\"head\": 0 into upload.json)",
			    (unsigned long long)line);
	return r;
}

/* Column i of a file without header: match ids, the label, the features. */
static char *made_name(const struct table_upload *u, size_t i)
{
	const json_t *meta = u->o.meta;
	const json_t *ids = json_object_get(meta, "id_list");
	bool match = json_bool_or(meta, "with_match_id", false);
	size_t n_ids = !match		      ? 0
		       : json_array_size(ids) ? json_array_size(ids)
					      : 1;

	if (i < n_ids)
		return xstrdup(json_array_size(ids)
				   ? json_string_value(json_array_get(ids, i))
				   : "match_id");
	i -= n_ids;
	if (!json_bool_or(meta, "with_label", false))
		return xasprintf("x%zu", i);
	return i ? xasprintf("x%zu", i - 1)
		 : xstrdup(json_str_or(meta, "label_name", "y"));
}

static void made_columns(const struct table_upload *u, struct table_schema *s,
			 size_t n)
{
	for (size_t i = u->keyed; i < n; i++) {
		_cleanup_free_ char *name = made_name(u, i - u->keyed);

		add_column(s, name, false);
	}
}

static bool field_is(const char *text, const struct csv_field *f,
		     const char *want)
{
	return f->len == strlen(want) && !memcmp(text + f->at, want, f->len);
}

/*
 * Is the first line the one that such a table reads with?  Then the file is a
 * copy of data.csv beside its upload.json (cp -r, tar), and is taken as what
 * it is: a header, and ids that were made already.
 */
static bool is_copy(struct table_upload *u, const char *text,
		    const struct csv_field *f, size_t n)
{
	const char *id = u->o.extend_sid ? SID : "id";
	size_t len = strlen(id);

	if (u->o.value && n == 1 && (!u->o.head || u->o.extend_sid))
		return f->len == len + 6 && /* not cut, or not there */
		       !memcmp(text + f->at, id, len) &&
		       !memcmp(text + f->at + len, ",value", 6);
	if (n < 2 || (u->o.head && !u->o.extend_sid) ||
	    !field_is(text, &f[0], id))
		return false;
	if (u->o.value)
		return n == 2 && field_is(text, &f[1], "value");
	for (size_t i = 1; i < n && !u->o.head; i++) {
		_cleanup_free_ char *name = made_name(u, i - 1);

		if (!field_is(text, &f[i], name))
			return false;
	}
	return true;
}

static void take_as_copy(struct table_upload *u)
{
	u->o.head = true;
	u->o.extend_sid = false;
	u->keyed = 1;
	u->csv.delimiter = ',';
	if (u->o.value)
		u->csv.splits = 1;
}

static void schema_options(const struct table_upload *u, struct table_schema *s)
{
	const char cut[2] = { u->csv.rest, '\0' };

	s->partitions = u->o.partitions;
	if (u->o.meta || (!u->o.value && *cut != ','))
		s->extra = json_object();
	if (u->o.meta)
		json_object_set(s->extra, "meta", u->o.meta);
	if (!u->o.value && *cut != ',')
		json_object_set_new(s->extra, "delimiter", json_string(cut));
}

/* A row that needs no look at its fields. */
static int on_simple(void *arg, uint64_t line, const char *text, size_t n,
		     size_t first, struct err *e)
{
	struct table_upload *u = arg;

	if (!first || first > TABLE_KEY_MAX)
		return 1; /* an error: on_row says which */
	return table_build_add_text(
	    u->build, text, first, text + MIN(first + 1, n),
	    n - MIN(first + 1, n), u->csv.delimiter, line, e);
}

/* Rows that need no look at their fields go a shorter way. */
static void go_simple(struct table_upload *u)
{
	if (!u->keyed || u->o.value || u->csv.rest != u->csv.delimiter)
		return;
	u->csv.simple = on_simple;
	u->csv.simple_fields = u->schema->n_columns + 1;
}

/* ---- a delimiter that nobody named ------------------------------------- */

#define GUESS_LINES 10

static size_t occurrences(const char *s, size_t n, char c)
{
	size_t k = 0;

	for (size_t i = 0; i < n; i++)
		k += s[i] == c;
	return k;
}

/* Of the first line. */
static void guess_begin(struct table_upload *u, const char *s, size_t n)
{
	static const char usual[] = { ';', '\t', '|' };

	for (size_t i = 0; i < ARRAY_SIZE(usual); i++) {
		size_t k = occurrences(s, n, usual[i]);

		if (k > u->guess.n)
			u->guess = (struct guess){ usual[i], k, 1 };
	}
}

static const char *as_json(char c)
{
	return c == '\t' ? "\\t" : c == ';' ? ";" : "|";
}

static int guess_error(const struct table_upload *u, struct err *e)
{
	const char *c = as_json(u->guess.c);

	return err_set(e, EINVAL,
		       "line 1 column 1: no comma, but %zu %s \"%s\", as in "
		       "each line: write \"id_delimiter\": \"%s\" into "
		       "upload.json (if a line is one id, \",\")",
		       u->guess.n, u->guess.n == 1 ? "time" : "times", c, c);
}

/* A table of ids alone is one that has no comma, and not in each line as many
 * of what others take for it. */
static int guess_line(struct table_upload *u, const char *s, size_t n,
		      struct err *e)
{
	if (occurrences(s, n, u->guess.c) != u->guess.n) {
		u->guess.n = 0;
		go_simple(u);
		return 0;
	}
	return ++u->guess.lines < GUESS_LINES ? 0 : guess_error(u, e);
}

/* What is wrong in a line may be that it has another delimiter. */
static int with_guess(const struct table_upload *u, int r, struct err *e)
{
	char c = u->guess.n ? u->guess.c : u->csv.behind, old[sizeof(e->text)];

	if (r != -EINVAL || !e || u->o.named || !c || !strchr(";\t|", c) ||
	    strstr(e->text, "id_delimiter"))
		return r;
	memcpy(old, e->text, sizeof(old));
	(void)snprintf(e->text, sizeof(e->text),
		       "%.400s; if \"%s\" is between the fields, write "
		       "\"id_delimiter\": \"%s\" into upload.json",
		       old, as_json(c), as_json(c));
	return r;
}

static int guess_end(const struct table_upload *u, struct err *e)
{
	return u->guess.n && u->guess.lines > 1 ? guess_error(u, e) : 0;
}

/* ---- the first line ---------------------------------------------------- */

/* Sets *ret_header when the line was one, and no row. */
static int first_line(struct table_upload *u, uint64_t line, const char *text,
		      const struct csv_field *f, size_t n, bool *ret_header,
		      struct err *e)
{
	struct table_schema *s = schema_new();
	bool made = !u->keyed, copy = is_copy(u, text, f, n);
	int r = 0;

	if (copy)
		take_as_copy(u);
	schema_options(u, s);
	if (made) {
		free(s->id);
		s->id = xstrdup(SID);
	}
	if (u->o.value) {
		/* A header tells no more than what the ids are called. */
		if (u->o.head && !made && !copy)
			r = named_columns(u, s, line, text, f, 1, e);
		add_column(s, "value", false);
	} else if (u->o.head) {
		r = named_columns(u, s, line, text, f, n, e);
	} else {
		made_columns(u, s, n);
	}
	if (!r)
		r = check_twice(u, s, line, e);
	if (!r)
		r = table_build_begin(u->store, s, &u->build, e);
	if (r) {
		schema_free(s);
		return r;
	}
	u->schema = s;
	u->cells = xcalloc(s->n_columns, sizeof(*u->cells));
	if (u->progress)
		table_build_watch(u->build, u->progress);
	if (n == 1 && !u->o.value && !u->o.named && !copy)
		guess_begin(u, text, f[0].len);
	if (!u->guess.n)
		go_simple(u);
	*ret_header = u->o.head;
	return 0;
}

/* ---- rows -------------------------------------------------------------- */

static int check_width(const struct table_upload *u, uint64_t line, size_t n,
		       struct err *e)
{
	size_t want = u->schema->n_columns + u->keyed;

	if (n == want || (u->o.value && n <= want))
		return 0;
	return err_set(e, EINVAL,
		       "line %llu column %zu: %zu fields, %s has %zu%s",
		       (unsigned long long)line, MIN(n, want) + (n > want), n,
		       u->o.head ? "the header" : "the first line", want,
		       u->o.head ? ""
				 : " (for rows of svmlight or tags write "
				   "\"meta\": {\"input_format\": \"sparse\"} "
				   "or \"tag\" into upload.json)");
}

/*
 * In lines of value a quote means nothing, but where it is all around: so
 * data.csv shows a value with commas, and so it is read again.
 */
static struct cell unquoted(struct table_upload *u, const char *s, size_t n)
{
	struct cell as_it_is = { .type = CELL_STRING, .str = s, .len = n };

	if (n < 2 || s[0] != '"' || s[n - 1] != '"')
		return as_it_is;
	sb_reset(&u->text);
	for (size_t i = 1; i < n - 1; i++) {
		if (s[i] == '"' && (s[i + 1] != '"' || ++i == n - 1))
			return as_it_is;
		sb_addc(&u->text, s[i]);
	}
	return (struct cell){ .type = CELL_STRING,
			      .str = u->text.buf,
			      .len = u->text.len };
}

static int add_row(struct table_upload *u, uint64_t line, const char *text,
		   const struct csv_field *f, struct err *e)
{
	char sid[80];
	unsigned long long k = table_build_rows(u->build);
	int len;

	if (!u->keyed) {
		len = u->o.counted
			  ? snprintf(sid, sizeof(sid), "%llu", k)
			  : snprintf(sid, sizeof(sid), "%s%012llu", u->run, k);
		return table_build_add_line(u->build, sid, (size_t)len,
					    u->cells, line, e);
	}
	if (!f[0].len)
		return column_error(u, line, 0, e, "the id is empty");
	if (f[0].len > TABLE_KEY_MAX)
		return column_error(u, line, 0, e,
				    "the id is longer than 1024 bytes");
	return table_build_add_line(u->build, text + f[0].at, f[0].len,
				    u->cells, line, e);
}

static int on_row(void *arg, uint64_t line, const char *text,
		  const struct csv_field *f, size_t n, struct err *e)
{
	struct table_upload *u = arg;
	bool header = false;
	int r = 0;

	if (!u->schema)
		r = first_line(u, line, text, f, n, &header, e);
	else if (u->guess.n)
		r = guess_line(u, text, f[n - 1].at + f[n - 1].len, e);
	if (!r && !header)
		r = check_width(u, line, n, e);
	if (r || header)
		return r;
	for (size_t i = 0; i < n; i++) {
		if (memchr(text + f[i].at, 0, f[i].len))
			return column_error(u, line, i, e, "a NUL byte");
		if (!utf8_valid(text + f[i].at, f[i].len))
			return column_error(
			    u, line, i, e,
			    "not UTF-8 text (iconv -f LATIN1 -t UTF-8?)");
		if (i >= u->keyed)
			u->cells[i - u->keyed] = (struct cell){
				.type = CELL_STRING,
				.str = text + f[i].at,
				.len = f[i].len,
			};
	}
	if (u->o.value && n == u->keyed) /* an id alone */
		u->cells[0] =
		    (struct cell){ .type = CELL_STRING, .str = "", .len = 0 };
	else if (u->o.value)
		u->cells[0] = unquoted(u, u->cells[0].str, u->cells[0].len);
	return add_row(u, line, text, f, e);
}

/* ---- the upload -------------------------------------------------------- */

static int make_run(struct table_upload *u, struct err *e)
{
	unsigned char b[16];

	if (!u->o.extend_sid || u->o.counted)
		return 0;
	if (getrandom(b, sizeof(b), 0) != (ssize_t)sizeof(b))
		return err_sys(e, errno, "random numbers");
	for (size_t i = 0; i < sizeof(b); i++)
		(void)snprintf(u->run + 2 * i, 3, "%02x", b[i]);
	return 0;
}

int table_upload_begin(struct table_store *s, const json_t *options,
		       struct table_upload **ret, struct err *e)
{
	struct table_upload *u = xcalloc(1, sizeof(*u));
	int r = upload_options_read(options, &u->o, e);

	if (!r) {
		r = make_run(u, e);
		if (r)
			upload_options_free(&u->o);
	}
	if (r) {
		free(u);
		return r;
	}
	u->store = s;
	u->keyed = !u->o.extend_sid;
	sb_init(&u->text, TABLE_ROW_MAX);
	csv_init(&u->csv, u->o.delimiter, TABLE_ROW_MAX, TABLE_COLUMNS_MAX + 1,
		 on_row, u);
	u->csv.rest = u->o.rest;
	if (u->o.value) {
		u->csv.plain = true;
		u->csv.splits = u->keyed;
	}
	*ret = u;
	return 0;
}

/* A duplicate is the file's fault, like every other bad line. */
static int as_refused(int r, struct err *e)
{
	if (r == -EEXIST && e)
		e->no = EINVAL;
	return r == -EEXIST ? -EINVAL : r;
}

static int repeat(struct table_upload *u, int r, struct err *e)
{
	r = as_refused(r, e);
	if (r && e)
		u->failed = *e;
	if (r)
		u->failed.no = -r;
	return r;
}

/* Files that are no CSV, and what makes one of them. */
static int check_begin(const char *data, size_t n, struct err *e)
{
	static const struct {
		size_t at;
		const char *bytes, *what;
	} known[] = {
		{ 0, "\x1f\x8b", "gzip: zcat FILE > data.csv" },
		{ 4, "1AY&SY", "bzip2: bzcat FILE > data.csv" },
		{ 1, "7zXZ", "xz: xzcat FILE > data.csv" },
		{ 0, "\x28\xb5\x2f\xfd", "zstd: zstdcat FILE > data.csv" },
		{ 0, "PK\x03\x04", "a zip or a spreadsheet: export CSV" },
		{ 0, "PAR1\x15", "Parquet: export CSV" },
		{ 0, "\x89HDF", "HDF5: export CSV" },
		{ 0, "\x93NUMPY", "an array of numpy: export CSV" },
		{ 0, "\xff\xfe", "UTF-16: iconv -f UTF-16 -t UTF-8" },
		{ 0, "\xfe\xff", "UTF-16: iconv -f UTF-16 -t UTF-8" },
		{ 0, "{\"", "JSON: export CSV" },
		{ 0, "[{", "JSON: export CSV" },
		{ 0, "\x80\x04", "a pickle of Python: export CSV" },
		{ 0, "\x80\x05", "a pickle of Python: export CSV" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		size_t at = known[i].at, len = strlen(known[i].bytes);

		if (n >= at + len && !memcmp(data + at, known[i].bytes, len))
			return err_set(e, EINVAL,
				       "line 1: this is no CSV but %s",
				       known[i].what);
	}
	return 0;
}

int table_upload_write(struct table_upload *u, const void *data, size_t n,
		       struct err *e)
{
	if (u->failed.no) {
		if (e)
			*e = u->failed;
		return -u->failed.no;
	}
	if (u->begun < sizeof(u->begin)) {
		size_t k = MIN(n, sizeof(u->begin) - u->begun);
		int r;

		memcpy(u->begin + u->begun, data, k);
		u->begun += k;
		r = check_begin(u->begin, u->begun, e);
		if (r)
			return repeat(u, r, e);
	}
	return repeat(u, with_guess(u, csv_feed(&u->csv, data, n, e), e), e);
}

void table_upload_watch(struct table_upload *u, struct table_progress *p)
{
	u->progress = p;
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
		r = with_guess(u, csv_end(&u->csv, e), e);
		if (!r)
			r = guess_end(u, e);
	}
	if (!r && !u->schema)
		r = err_set(e, EINVAL, "line 1: %sthe file is empty",
			    u->o.head ? "no header, " : "");
	if (!r)
		r = table_build_publish(TAKE_PTR(u->build), ns, name, e);
	r = as_refused(r, e);
	table_upload_abort(u);
	return r;
}

void table_upload_abort(struct table_upload *u)
{
	if (!u)
		return;
	if (u->build)
		table_build_abort(u->build);
	csv_free(&u->csv);
	schema_free(u->schema);
	upload_options_free(&u->o);
	sb_free(&u->text);
	free(u->cells);
	free(u);
}
