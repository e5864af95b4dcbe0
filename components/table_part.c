// SPDX-License-Identifier: Apache-2.0
#include "components/table_part.h"

#include <endian.h>
#include <math.h>
#include <openssl/sha.h>

#include "lib/json.h"

#define MAGIC 0x31544652u /* "RFT1" */
#define END   8u	  /* length of what stands in place of a last row */

static const char *const type_names[] = { "string", "f64", "i64" };

static uint32_t get_u32(const char *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

static uint64_t get_u64(const char *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return le64toh(v);
}

void table_part_free(struct table_part *p)
{
	json_decref(p->schema);
	p->schema = NULL;
}

/* ---- schema ------------------------------------------------------------ */

json_t *table_part_schema_json(const struct table_schema *s)
{
	json_t *columns = json_array();

	for (size_t i = 0; i < s->n_columns; i++)
		json_array_append_new(
		    columns,
		    json_pack("{s:s, s:s, s:s?}", "name", s->columns[i].name,
			      "type", type_names[s->columns[i].type],
			      "anonymous", s->columns[i].anonymous));
	return json_pack("{s:s, s:s?, s:s*, s:s*, s:i, s:s?, s:o}", "id", s->id,
			 "label", s->label, "weight", s->weight, "match_id",
			 s->match_id, "partitions", (int)s->partitions,
			 "content_type", s->content_type, "columns", columns);
}

void table_part_schema_digest(const json_t *schema, char ret[65])
{
	static const char digits[] = "0123456789abcdef";
	_cleanup_free_ char *text = json_text(schema, false);
	uint8_t d[SHA256_DIGEST_LENGTH];

	SHA256((const uint8_t *)text, strlen(text), d);
	for (size_t i = 0; i < sizeof(d); i++) {
		ret[2 * i] = digits[d[i] >> 4];
		ret[2 * i + 1] = digits[d[i] & 15];
	}
	ret[64] = '\0';
}

static bool name_valid(const char *s)
{
	return *s && strlen(s) <= TABLE_PART_NAME_MAX; /* JSON is UTF-8 */
}

/* A string or null; an absent one counts as null. */
static int get_name(const json_t *o, const char *key, bool nullable,
		    const char **ret, struct err *e)
{
	const json_t *v = json_object_get(o, key);

	*ret = json_string_value(v);
	if (nullable && (!v || json_is_null(v)))
		return 0;
	if (!*ret || strlen(*ret) != json_string_length(v) || !name_valid(*ret))
		return err_set(e, EPROTO, "the schema's %s is no name", key);
	return 0;
}

static int get_column(const json_t *o, json_t *seen, struct table_schema *s,
		      struct err *e)
{
	const char *name, *anonymous, *type;
	size_t t;

	if (json_object_size(o) != 3)
		return err_set(e, EPROTO, "a column has other members");
	if (get_name(o, "name", false, &name, e) ||
	    get_name(o, "type", false, &type, e) ||
	    get_name(o, "anonymous", true, &anonymous, e))
		return -EPROTO;
	for (t = 0; t < ARRAY_SIZE(type_names); t++)
		if (!strcmp(type, type_names[t]))
			break;
	if (t == ARRAY_SIZE(type_names))
		return err_set(e, EPROTO, "a column of an unknown type");
	if (!strcmp(name, s->id) || json_object_get(seen, name))
		return err_set(e, EPROTO, "two columns have the same name");
	json_object_set_new(seen, name, json_true());
	schema_add_column(s, name, (enum cell_type)t, anonymous);
	return 0;
}

struct table_schema *table_part_schema(const json_t *o, struct err *e)
{
	const json_t *columns = json_object_get(o, "columns"), *c;
	struct table_schema *s = schema_new();
	const char *id, *label, *weight, *match_id, *content;
	json_t *seen = json_object();
	int64_t partitions;
	int r = 0;
	size_t i;

	if (json_object_size(o) !=
		5 + (size_t)(json_object_get(o, "weight") != NULL) +
		    (json_object_get(o, "match_id") != NULL) ||
	    !json_object_get(o, "label") ||
	    !json_object_get(o, "content_type") || !json_is_array(columns) ||
	    json_array_size(columns) > TABLE_COLUMNS_MAX)
		r = err_set(e, EPROTO, "not a schema");
	if (!r)
		r = get_name(o, "id", false, &id, e);
	if (!r)
		r = get_name(o, "label", true, &label, e);
	if (!r)
		r = get_name(o, "weight", true, &weight, e);
	if (!r)
		r = get_name(o, "match_id", true, &match_id, e);
	if (!r)
		r = get_name(o, "content_type", true, &content, e);
	if (!r && json_get_int(o, "partitions", 1, 1000, &partitions, e))
		r = err_set(e, EPROTO, "the schema's partitions");
	if (!r) {
		free(s->id);
		s->id = xstrdup(id);
		s->label = label ? xstrdup(label) : NULL;
		s->weight = weight ? xstrdup(weight) : NULL;
		s->match_id = match_id ? xstrdup(match_id) : NULL;
		s->content_type = content ? xstrdup(content) : NULL;
		s->partitions = (unsigned)partitions;
		json_array_foreach (columns, i, c) {
			r = get_column(c, seen, s, e);
			if (r)
				break;
		}
	}
	if (!r && s->label && schema_find(s, s->label) < 0)
		r = err_set(e, EPROTO, "the label is no column");
	if (!r && s->weight && schema_find(s, s->weight) < 0)
		r = err_set(e, EPROTO, "the weight is no column");
	if (!r && s->match_id && schema_find(s, s->match_id) < 0)
		r = err_set(e, EPROTO, "the match id is no column");
	json_decref(seen);
	if (!r)
		return s;
	schema_free(s);
	return NULL;
}

/* ---- writing ----------------------------------------------------------- */

int table_part_head_write(struct strbuf *sb, unsigned part, unsigned parts,
			  const json_t *schema)
{
	_cleanup_free_ char *text = NULL;
	char digest[65];
	json_t *o =
	    json_pack("{s:i, s:i}", "part", (int)part, "parts", (int)parts);

	if (part) {
		table_part_schema_digest(schema, digest);
		json_object_set_new(o, "schema_sha256", json_string(digest));
	} else {
		json_object_set(o, "schema", (json_t *)schema);
	}
	text = json_text(o, false);
	json_decref(o);
	if (strlen(text) > TABLE_PART_HEAD_MAX)
		return -EMSGSIZE;
	sb_add_u32(sb, MAGIC);
	sb_add_u32(sb, (uint32_t)strlen(text));
	return sb_adds(sb, text);
}

static size_t cells_len(const struct table_schema *s, const struct cell *cells)
{
	size_t n = 0;

	for (size_t i = 0; i < s->n_columns; i++)
		n += s->columns[i].type == CELL_STRING ? 4 + cells[i].len : 8;
	return n;
}

int table_part_row_write(struct strbuf *sb, const struct table_schema *s,
			 const char *key, size_t key_len,
			 const struct cell *cells)
{
	size_t n = cells_len(s, cells);

	if (!key_len || key_len > TABLE_KEY_MAX || n > TABLE_PART_CELLS_MAX)
		return -EMSGSIZE;
	sb_add_u32(sb, (uint32_t)key_len);
	sb_add_u32(sb, (uint32_t)n);
	sb_add(sb, key, key_len);
	for (size_t i = 0; i < s->n_columns; i++) {
		const struct cell *c = &cells[i];

		switch (s->columns[i].type) {
		case CELL_F64:
			sb_add_f64(sb, c->f64);
			break;
		case CELL_I64:
			sb_add_u64(sb, (uint64_t)c->i64);
			break;
		case CELL_STRING:
			sb_add_u32(sb, (uint32_t)c->len);
			sb_add(sb, c->str, c->len);
			break;
		}
	}
	return sb->error;
}

int table_part_end_write(struct strbuf *sb, uint64_t rows)
{
	sb_add_u32(sb, 0);
	sb_add_u32(sb, END);
	return sb_add_u64(sb, rows);
}

/* ---- reading ----------------------------------------------------------- */

static int head_members(const json_t *o, struct table_part *ret, struct err *e)
{
	int64_t part, parts;
	const char *digest;

	if (json_object_size(o) != 3 ||
	    json_get_int(o, "parts", 1, TABLE_PARTS_MAX, &parts, e) ||
	    json_get_int(o, "part", 0, parts - 1, &part, e))
		return err_set(e, EPROTO, "a part without its number");
	ret->part = (unsigned)part;
	ret->parts = (unsigned)parts;
	if (!part) {
		ret->schema = json_incref(json_object_get(o, "schema"));
		if (!json_is_object(ret->schema))
			return err_set(e, EPROTO, "a part without a schema");
		table_part_schema_digest(ret->schema, ret->schema_sha256);
		return 0;
	}
	digest = json_str_or(o, "schema_sha256", "");
	if (strlen(digest) != 64 || strspn(digest, "0123456789abcdef") != 64)
		return err_set(e, EPROTO, "a part without its schema's digest");
	memcpy(ret->schema_sha256, digest, 65);
	return 0;
}

int table_part_head(const void *data, size_t n, struct table_part *ret,
		    size_t *ret_used, struct err *e)
{
	const char *p = data;
	uint32_t len;
	json_t *o;
	int r;

	*ret = (struct table_part){ 0 };
	if (n < 8)
		return -EAGAIN;
	len = get_u32(p + 4);
	if (get_u32(p) != MAGIC || len > TABLE_PART_HEAD_MAX)
		return err_set(e, EPROTO, "not a part of a table");
	if (n - 8 < len)
		return -EAGAIN;
	o = json_parse(p + 8, len, e);
	if (!o)
		return err_set(e, EPROTO, "a part whose head is not JSON");
	r = head_members(o, ret, e);
	json_decref(o);
	if (r)
		table_part_free(ret);
	else
		*ret_used = 8 + (size_t)len;
	return r;
}

static bool text_valid(const char *s, size_t n)
{
	return !memchr(s, 0, n) && utf8_valid(s, n);
}

/* The cells must fill their n bytes. */
static int get_cells(const struct table_schema *s, const char *p, size_t n,
		     struct cell *cells, struct err *e)
{
	for (size_t i = 0; i < s->n_columns; i++) {
		struct cell *c = &cells[i];
		size_t want = s->columns[i].type == CELL_STRING ? 4 : 8;
		uint64_t v;

		*c = (struct cell){ .type = s->columns[i].type };
		if (n < want)
			return err_set(e, EPROTO, "a row is cut short");
		if (c->type == CELL_STRING) {
			c->len = get_u32(p);
			c->str = p + 4;
			if (c->len > n - 4)
				return err_set(e, EPROTO, "a row is cut short");
			if (!text_valid(c->str, c->len))
				return err_set(e, EPROTO,
					       "a cell is not UTF-8 text");
			want += c->len;
		} else {
			v = get_u64(p);
			if (c->type == CELL_F64)
				memcpy(&c->f64, &v, sizeof(v));
			else
				c->i64 = (int64_t)v;
			if (c->type == CELL_F64 && isinf(c->f64))
				return err_set(e, EPROTO,
					       "a number is not finite");
		}
		p += want;
		n -= want;
	}
	return n ? err_set(e, EPROTO, "a row is longer than its cells") : 0;
}

int table_part_row(const struct table_schema *s, const void *data, size_t n,
		   struct table_part_row *ret, size_t *ret_used, struct err *e)
{
	const char *p = data;
	uint32_t key_len, len;
	int r;

	if (n < 8)
		return -EAGAIN;
	key_len = get_u32(p);
	len = get_u32(p + 4);
	if (key_len > TABLE_KEY_MAX || len > TABLE_PART_CELLS_MAX ||
	    (!key_len && len != END))
		return err_set(e, EPROTO, "a row of an impossible length");
	if (n - 8 < (size_t)key_len + len)
		return -EAGAIN;
	*ret_used = 8 + (size_t)key_len + len;
	if (!key_len) {
		ret->rows = get_u64(p + 8);
		return 0;
	}
	ret->key = p + 8;
	ret->key_len = key_len;
	if (!text_valid(ret->key, key_len))
		return err_set(e, EPROTO, "an id is not UTF-8 text");
	r = get_cells(s, p + 8 + key_len, len, ret->cells, e);
	return r ? r : 1;
}
