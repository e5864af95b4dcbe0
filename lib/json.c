// SPDX-License-Identifier: Apache-2.0
#include "lib/json.h"

#include <ctype.h>
#include <math.h>

#include "lib/fileio.h"

json_t *json_parse(const char *text, size_t n, struct err *e)
{
	static const char either[] = "'[' or '{' expected";
	json_error_t je;
	json_t *v = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);

	if (v)
		return v;
	/* "'[' or '{' expected near 'null'": no list stands anywhere alone. */
	if (!strncmp(je.text, either, strlen(either)))
		err_set(e, EINVAL,
			"line %d column %d: expected an object, {...}%s",
			je.line, je.column, je.text + strlen(either));
	else
		err_set(e, EINVAL, "line %d column %d: %s", je.line, je.column,
			je.text);
	return NULL;
}

json_t *json_read_file(const char *path, struct err *e)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(64u << 20);
	json_t *v;

	if (file_read(path, &sb, e))
		return NULL;
	v = json_parse(sb.buf, sb.len, e);
	if (!v)
		err_wrap(e, "%s", path);
	return v;
}

static void add_string(struct strbuf *sb, const char *s, size_t n)
{
	sb_addc(sb, '"');
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c == '"' || c == '\\')
			sb_addf(sb, "\\%c", c);
		else if (c == '\n')
			sb_adds(sb, "\\n");
		else if (c == '\t')
			sb_adds(sb, "\\t");
		else if (c < ' ' || c == 0x7f)
			sb_addf(sb, "\\u%04x", c);
		else
			sb_addc(sb, (char)c);
	}
	sb_addc(sb, '"');
}

static void add_real(struct strbuf *sb, double v)
{
	char buf[NUM_MAX];

	if (!isfinite(v)) {
		sb_adds(sb, "null");
		return;
	}
	num_format(buf, v);
	sb_adds(sb, buf);
	/* A real stays a real when it is read back. */
	if (!strpbrk(buf, ".e"))
		sb_adds(sb, ".0");
}

static void newline(struct strbuf *sb, int depth)
{
	sb_addc(sb, '\n');
	for (int i = 0; i < depth; i++)
		sb_adds(sb, "  ");
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* depth < 0: one line.  NOLINTNEXTLINE(misc-no-recursion): JSON is nested */
static void add_value(struct strbuf *sb, const json_t *v, int depth)
{
	int inner = depth < 0 ? -1 : depth + 1;
	size_t n = 0, i;

	/* What jansson could not make, of text that is not UTF-8 for one. */
	if (!v) {
		if (!sb->error)
			sb->error = -EINVAL;
		return;
	}
	switch (json_typeof(v)) {
	case JSON_OBJECT: {
		_cleanup_free_ const char **keys = NULL;
		json_t *o = (json_t *)v, *child;
		const char *key;

		keys = xcalloc(json_object_size(v), sizeof(*keys));
		json_object_foreach (o, key, child)
			keys[n++] = key;
		qsort(keys, n, sizeof(*keys), by_name);
		sb_addc(sb, '{');
		for (i = 0; i < n; i++) {
			if (i)
				sb_addc(sb, ',');
			if (depth >= 0)
				newline(sb, inner);
			add_string(sb, keys[i], strlen(keys[i]));
			sb_adds(sb, depth < 0 ? ":" : ": ");
			add_value(sb, json_object_get(v, keys[i]), inner);
		}
		if (n && depth >= 0)
			newline(sb, depth);
		sb_addc(sb, '}');
		return;
	}
	case JSON_ARRAY:
		n = json_array_size(v);
		sb_addc(sb, '[');
		for (i = 0; i < n; i++) {
			if (i)
				sb_addc(sb, ',');
			if (depth >= 0)
				newline(sb, inner);
			add_value(sb, json_array_get(v, i), inner);
		}
		if (n && depth >= 0)
			newline(sb, depth);
		sb_addc(sb, ']');
		return;
	case JSON_STRING:
		add_string(sb, json_string_value(v), json_string_length(v));
		return;
	case JSON_INTEGER:
		sb_addf(sb, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
		return;
	case JSON_REAL:
		add_real(sb, json_real_value(v));
		return;
	case JSON_TRUE:
		sb_adds(sb, "true");
		return;
	case JSON_FALSE:
		sb_adds(sb, "false");
		return;
	case JSON_NULL:
		sb_adds(sb, "null");
		return;
	}
}

int json_write(struct strbuf *sb, const json_t *v, bool pretty)
{
	add_value(sb, v, pretty ? 0 : -1);
	if (pretty)
		sb_addc(sb, '\n');
	return sb->error;
}

char *json_text(const json_t *v, bool pretty)
{
	struct strbuf sb = STRBUF_INIT(256u << 20);

	json_write(&sb, v, pretty);
	return sb_detach(&sb);
}

int json_write_file(const char *path, const json_t *v, mode_t mode,
		    bool durable, struct err *e)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(256u << 20);
	int r = json_write(&sb, v, true);

	if (r)
		return err_sys(e, -r, "%s", path);
	return file_replace(path, sb.buf, sb.len, mode, durable, e);
}

int json_get_str(const json_t *o, const char *key, const char **ret,
		 struct err *e)
{
	const json_t *v = json_object_get(o, key);

	if (!json_is_string(v))
		return err_set(e, EINVAL, "%s: expected a string", key);
	*ret = json_string_value(v);
	return 0;
}

int json_get_int(const json_t *o, const char *key, int64_t min, int64_t max,
		 int64_t *ret, struct err *e)
{
	const json_t *v = json_object_get(o, key);

	if (!json_is_integer(v))
		return err_set(e, EINVAL, "%s: expected an integer", key);
	if (json_integer_value(v) < min || json_integer_value(v) > max)
		return err_set(e, EINVAL, "%s: %lld is outside %lld..%lld", key,
			       (long long)json_integer_value(v), (long long)min,
			       (long long)max);
	*ret = json_integer_value(v);
	return 0;
}

const char *json_str_or(const json_t *o, const char *key, const char *def)
{
	const json_t *v = json_object_get(o, key);

	return json_is_string(v) ? json_string_value(v) : def;
}

int64_t json_int_or(const json_t *o, const char *key, int64_t def)
{
	const json_t *v = json_object_get(o, key);

	return json_is_integer(v) ? json_integer_value(v) : def;
}

double json_num_or(const json_t *o, const char *key, double def)
{
	const json_t *v = json_object_get(o, key);

	return json_is_number(v) ? json_number_value(v) : def;
}

bool json_bool_or(const json_t *o, const char *key, bool def)
{
	const json_t *v = json_object_get(o, key);

	return json_is_boolean(v) ? json_is_true(v) : def;
}
