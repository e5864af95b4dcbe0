// SPDX-License-Identifier: Apache-2.0
/*
 * The text of a submission: two objects in either order, or one that holds
 * both, or the conf of a predict job alone.  Lines and columns are those of the
 * whole text.
 */
#include "lib/json.h"

#include "scheduler/sched_priv.h"

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static size_t skip_blanks(const char *text, size_t at, size_t n)
{
	while (at < n && is_blank(text[at]))
		at++;
	return at;
}

static int refuse(const char *text, size_t at, const char *why, struct err *e)
{
	size_t line = 1, column = 1;

	for (size_t i = 0; i < at; i++) {
		if (text[i] == '\n') {
			line++;
			column = 1;
		} else if (((unsigned char)text[i] & 0xc0) != 0x80) {
			column++;
		}
	}
	return err_set(e, EINVAL, "line %zu column %zu: %s", line, column, why);
}

/* One object from *at on: 1 and *at behind it, 0 unfinished, negative. */
static int next_object(const char *text, size_t n, size_t *at, json_t **ret,
		       struct err *e)
{
	json_error_t je;
	json_t *o;
	size_t p;

	*at = skip_blanks(text, *at, n);
	if (*at == n)
		return 0;
	if (text[*at] != '{')
		return refuse(text, *at, "expected {", e);
	o = json_loadb(text + *at, n - *at,
		       JSON_REJECT_DUPLICATES | JSON_DISABLE_EOF_CHECK, &je);
	if (o) {
		*at += (size_t)je.position;
		*ret = o;
		return 1;
	}
	if (json_error_code(&je) == json_error_out_of_memory)
		return err_set(e, ENOMEM, "out of memory");
	p = je.position > 0 ? *at + (size_t)je.position : *at;
	/* A word or a number that the end of the text cuts is no error yet:
	 * the parser calls it invalid, but more bytes may follow. */
	if (json_error_code(&je) == json_error_premature_end_of_input ||
	    (p >= n && json_error_code(&je) == json_error_invalid_syntax &&
	     text[n - 1] != '}' && text[n - 1] != ']'))
		return 0;
	return refuse(text, MIN(p ? p - 1 : 0, n), je.text, e);
}

static json_t *member(const json_t *o, const char *a, const char *b)
{
	json_t *v = json_object_get(o, a);

	return v ? v : json_object_get(o, b);
}

static bool is_conf(const json_t *o)
{
	return json_object_get(o, "role") ||
	       json_object_get(o, "job_parameters") ||
	       json_object_get(o, "component_parameters");
}

void dsl_docs_free(struct dsl_docs *d)
{
	json_decref(d->dsl);
	json_decref(d->conf);
	*d = (struct dsl_docs){ 0 };
}

/* The wrapped documents of an object, borrowed; NULL where it has none. */
static struct dsl_docs wrapped(const json_t *o)
{
	struct dsl_docs d = { .dsl = member(o, "dsl", "job_dsl"),
			      .conf = json_object_get(o, "conf") };

	if (!d.conf)
		d.conf = member(o, "job_runtime_conf", "runtime_conf");
	return d;
}

static int pair(const char *text, size_t at, const json_t *first,
		const json_t *second, struct dsl_docs *ret, struct err *e)
{
	struct dsl_docs a = wrapped(first), b = wrapped(second), d;

	if (a.dsl || a.conf || b.dsl || b.conf) {
		d.dsl = a.dsl ? a.dsl : b.dsl;
		d.conf = a.conf ? a.conf : b.conf;
		if (!json_is_object(d.dsl) || !json_is_object(d.conf))
			return refuse(text, at,
				      "expected the objects dsl and conf", e);
	} else {
		bool swapped = !json_object_get(first, "components");

		d.dsl = (json_t *)(swapped ? second : first);
		d.conf = (json_t *)(swapped ? first : second);
		if (!json_object_get(d.dsl, "components") || !is_conf(d.conf))
			return refuse(text, at,
				      "expected one object with components and "
				      "one with role",
				      e);
	}
	json_incref(d.dsl);
	json_incref(d.conf);
	*ret = d;
	return 1;
}

/* A predict job runs the DSL of its model: the conf is all it takes. */
static bool is_predict(const json_t *conf)
{
	const json_t *type = json_object_get(
	    json_object_get(json_object_get(conf, "job_parameters"), "common"),
	    "job_type");

	return json_is_string(type) &&
	       !strcmp(json_string_value(type), "predict");
}

static int parse(const char *text, size_t n, struct dsl_docs *d, struct err *e)
{
	json_t *first = NULL, *second = NULL;
	size_t at = 0, start = 0;
	struct dsl_docs in;
	int r;

	r = next_object(text, n, &at, &first, e);
	if (r <= 0)
		return r;
	in = wrapped(first);
	if (!in.dsl && !in.conf && !is_conf(first) &&
	    !json_object_get(first, "components")) {
		json_decref(first);
		return refuse(text, skip_blanks(text, 0, n),
			      "neither a dsl (components) nor a conf (role)",
			      e);
	}
	start = skip_blanks(text, at, n);
	if (!in.dsl && start == n && is_predict(in.conf ? in.conf : first)) {
		d->conf = json_incref(in.conf ? in.conf : first);
		json_decref(first);
		return 1;
	}
	if (!in.dsl || !in.conf) {
		r = next_object(text, n, &at, &second, e);
	}
	if (r == 1)
		r = pair(text, start, first, second, d, e);
	json_decref(first);
	json_decref(second);
	if (r <= 0)
		return r;
	at = skip_blanks(text, at, n);
	if (at < n)
		return refuse(text, at, "text after the submission", e);
	return 1;
}

/* How many bytes at the end begin a character that is not whole yet. */
static size_t cut_character(const char *text, size_t n)
{
	for (size_t k = 1; k <= MIN(n, (size_t)3); k++) {
		unsigned char b = (unsigned char)text[n - k];

		if (b >= 0xc2 && b <= 0xf4)
			return k < (b >= 0xf0	? 4u
				    : b >= 0xe0 ? 3u
						: 2u)
				   ? k
				   : 0;
		if ((b & 0xc0) != 0x80)
			break;
	}
	return 0;
}

int dsl_parse(const char *text, size_t n, struct dsl_docs *ret, struct err *e)
{
	struct dsl_docs d = { 0 };
	size_t cut = cut_character(text, n);
	int r;

	if (n > SUBMIT_MAX)
		return err_set(e, EINVAL, "a submission is at most %zu bytes",
			       SUBMIT_MAX);
	/* A write may end within a character: that is no error yet. */
	if (cut) {
		r = parse(text, n - cut, &d, e);
		dsl_docs_free(&d);
		if (!r)
			return 0;
	}
	r = parse(text, n, &d, e);
	if (r == 1)
		*ret = d;
	else
		dsl_docs_free(&d);
	return r;
}

int sched_text_state(const char *text, size_t n, struct err *e)
{
	struct dsl_docs d = { 0 };
	int r = dsl_parse(text, n, &d, e);

	dsl_docs_free(&d);
	return r;
}
