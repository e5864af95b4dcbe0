// SPDX-License-Identifier: Apache-2.0
/* Schemas. */
#include "lib/table_priv.h"

static const char *const type_names[] = { "string", "f64", "i64" };

struct table_schema *schema_new(void)
{
	struct table_schema *s = xcalloc(1, sizeof(*s));

	s->id = xstrdup("id");
	s->partitions = 4;
	return s;
}

void schema_free(struct table_schema *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n_columns; i++) {
		free(s->columns[i].name);
		free(s->columns[i].anonymous);
	}
	free(s->columns);
	free(s->id);
	free(s->label);
	free(s->weight);
	free(s->match_id);
	free(s->content_type);
	json_decref(s->lineage);
	json_decref(s->extra);
	free(s);
}

void schema_add_column(struct table_schema *s, const char *name,
		       enum cell_type type, const char *anonymous)
{
	struct table_column *c;

	s->columns =
	    xrealloc(s->columns, (s->n_columns + 1) * sizeof(*s->columns));
	c = &s->columns[s->n_columns++];
	c->name = xstrdup(name);
	c->type = type;
	c->anonymous = anonymous ? xstrdup(anonymous) : NULL;
}

struct table_schema *schema_dup(const struct table_schema *s)
{
	struct table_schema *d = xcalloc(1, sizeof(*d));

	d->id = xstrdup(s->id);
	d->label = s->label ? xstrdup(s->label) : NULL;
	d->weight = s->weight ? xstrdup(s->weight) : NULL;
	d->match_id = s->match_id ? xstrdup(s->match_id) : NULL;
	d->partitions = s->partitions;
	d->content_type = s->content_type ? xstrdup(s->content_type) : NULL;
	d->lineage = s->lineage ? json_deep_copy(s->lineage) : NULL;
	d->extra = s->extra ? json_deep_copy(s->extra) : NULL;
	for (size_t i = 0; i < s->n_columns; i++)
		schema_add_column(d, s->columns[i].name, s->columns[i].type,
				  s->columns[i].anonymous);
	return d;
}

ssize_t schema_find(const struct table_schema *s, const char *name)
{
	for (size_t i = 0; i < s->n_columns; i++)
		if (!strcmp(s->columns[i].name, name))
			return (ssize_t)i;
	return -1;
}

bool schema_is_feature(const struct table_schema *s, size_t i)
{
	const char *name = s->columns[i].name;

	return !(s->label && !strcmp(name, s->label)) &&
	       !(s->weight && !strcmp(name, s->weight)) &&
	       !(s->match_id && !strcmp(name, s->match_id));
}

json_t *schema_to_json(const struct table_schema *s, uint64_t rows)
{
	json_t *o = json_object(), *columns = json_array();

	for (size_t i = 0; i < s->n_columns; i++) {
		const struct table_column *c = &s->columns[i];

		json_array_append_new(
		    columns,
		    json_pack("{s:s, s:s, s:s?}", "name", c->name, "type",
			      type_names[c->type], "anonymous", c->anonymous));
	}
	json_object_set_new(o, "id", json_string(s->id));
	json_object_set_new(o, "label",
			    s->label ? json_string(s->label) : json_null());
	if (s->weight)
		json_object_set_new(o, "weight", json_string(s->weight));
	if (s->match_id)
		json_object_set_new(o, "match_id", json_string(s->match_id));
	json_object_set_new(o, "columns", columns);
	json_object_set_new(o, "count", json_integer((json_int_t)rows));
	json_object_set_new(o, "partitions", json_integer(s->partitions));
	json_object_set_new(o, "content_type",
			    s->content_type ? json_string(s->content_type)
					    : json_null());
	json_object_set(o, "lineage", s->lineage ? s->lineage : json_null());
	if (s->extra)
		json_object_set(o, "extra", s->extra);
	return o;
}

struct table_schema *schema_from_json(const json_t *o, struct err *e)
{
	struct table_schema *s = schema_new();
	const char *id, *str;
	json_t *columns = json_object_get(o, "columns"), *c;
	int64_t partitions;
	size_t i;

	if (json_get_str(o, "id", &id, e) ||
	    json_get_int(o, "partitions", 1, 1000, &partitions, e))
		goto bad;
	if (!json_is_array(columns) ||
	    json_array_size(columns) > TABLE_COLUMNS_MAX) {
		err_set(e, EINVAL, "columns: expected a list");
		goto bad;
	}
	free(s->id);
	s->id = xstrdup(id);
	s->partitions = (unsigned)partitions;
	str = json_str_or(o, "label", NULL);
	s->label = str ? xstrdup(str) : NULL;
	str = json_str_or(o, "weight", NULL);
	s->weight = str ? xstrdup(str) : NULL;
	str = json_str_or(o, "match_id", NULL);
	s->match_id = str ? xstrdup(str) : NULL;
	str = json_str_or(o, "content_type", NULL);
	s->content_type = str ? xstrdup(str) : NULL;
	if (json_is_object(json_object_get(o, "lineage")))
		s->lineage = json_incref(json_object_get(o, "lineage"));
	if (json_is_object(json_object_get(o, "extra")))
		s->extra = json_incref(json_object_get(o, "extra"));
	json_array_foreach (columns, i, c) {
		const char *name, *type;
		size_t t;

		if (json_get_str(c, "name", &name, e) ||
		    json_get_str(c, "type", &type, e))
			goto bad;
		for (t = 0; t < ARRAY_SIZE(type_names); t++)
			if (!strcmp(type, type_names[t]))
				break;
		if (t == ARRAY_SIZE(type_names)) {
			err_set(e, EINVAL, "columns: no type \"%s\"", type);
			goto bad;
		}
		schema_add_column(s, name, (enum cell_type)t,
				  json_str_or(c, "anonymous", NULL));
	}
	return s;
bad:
	schema_free(s);
	return NULL;
}

bool utf8_valid(const char *str, size_t n)
{
	const unsigned char *s = (const unsigned char *)str;

	for (size_t i = 0; i < n;) {
		unsigned char c = s[i];
		size_t more = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
		uint32_t v;

		if (c >= 0x80 && (c < 0xc2 || c > 0xf4))
			return false;
		if (n - i <= more)
			return false;
		v = more == 0 ? c : c & (0x3f >> more);
		for (size_t k = 1; k <= more; k++) {
			if ((s[i + k] & 0xc0) != 0x80)
				return false;
			v = v << 6 | (s[i + k] & 0x3f);
		}
		if ((more == 2 && v < 0x800) || (more == 3 && v < 0x10000) ||
		    v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
			return false;
		i += more + 1;
	}
	return true;
}
