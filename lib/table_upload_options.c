// SPDX-License-Identifier: Apache-2.0
/* upload.json: the members of FATE's upload configurations. */
#include <strings.h>

#include "lib/json.h"
#include "lib/upload_priv.h"

#define WORD_MAX 16 /* bytes of a delimiter inside a value */

static int bad(struct err *e, const char *at, const char *key, const char *want)
{
	return err_set(e, EINVAL, "upload.json#/%s%.100s: expected %s", at, key,
		       want);
}

/* true, false, 1 or 0. */
static int read_flag(const json_t *v, const char *at, const char *key,
		     bool *ret, struct err *e)
{
	if (!json_is_boolean(v) &&
	    !(json_is_integer(v) && (uint64_t)json_integer_value(v) <= 1))
		return bad(e, at, key, "1, 0, true or false");
	*ret = json_is_true(v) || json_integer_value(v) == 1;
	return 0;
}

/* A character that can stand between the fields of a line. */
static bool separator(const json_t *v)
{
	const char *s = json_string_value(v);

	return s && json_string_length(v) == 1 && *s != '"' && *s != '\n' &&
	       *s != '\r' && (unsigned char)*s < 0x80;
}

/* ---- meta -------------------------------------------------------------- */

static bool one_of(const json_t *v, const char *words)
{
	const char *s = json_string_value(v);
	size_t n = s ? strlen(s) : 0;

	for (const char *p = words; n && p; p = strchr(p, '|')) {
		p += *p == '|';
		if (!strncasecmp(p, s, n) && (p[n] == '|' || !p[n]))
			return true;
	}
	return false;
}

#define TYPES "float64|float|float32|double|int|int32|int64|long|str"

static bool is_format(const json_t *v)
{
	return one_of(v, "dense|sparse|svmlight|tag");
}

static bool is_type(const json_t *v)
{
	return one_of(v, TYPES);
}

static bool is_name(const json_t *v)
{
	return json_string_length(v) > 0 && json_string_length(v) <= 1024;
}

static bool is_word(const json_t *v)
{
	return json_string_length(v) > 0 && json_string_length(v) <= WORD_MAX;
}

static bool is_flag(const json_t *v)
{
	bool f;

	return !read_flag(v, "", "", &f, NULL);
}

static bool is_types(const json_t *v)
{
	const char *key;
	json_t *x;

	json_object_foreach ((json_t *)v, key, x)
		if (!is_type(x))
			return false;
	return json_is_object(v);
}

static bool is_names(const json_t *v)
{
	const json_t *x;
	size_t i;

	json_array_foreach (v, i, x)
		if (!is_name(x))
			return false;
	return json_array_size(v) <= 100 && json_is_array(v);
}

static bool is_range(const json_t *v)
{
	return json_is_integer(v) && json_integer_value(v) >= 0 &&
	       json_integer_value(v) <= 100;
}

static const struct {
	const char *key;
	bool (*ok)(const json_t *v);
	const char *want;
} meta_members[] = {
	{ "data_type", is_type, "one of " TYPES },
	{ "delimiter", is_word, "1 to 16 bytes of text" },
	{ "exclusive_data_type", is_types,
	  "an object: column name to one of " TYPES },
	{ "id_list", is_names, "a list of column names" },
	{ "id_range", is_range, "0 to 100" },
	{ "input_format", is_format, "dense, sparse, svmlight or tag" },
	{ "label_name", is_name, "the name of a column" },
	{ "label_type", is_type, "one of " TYPES },
	{ "tag_value_delimiter", is_word, "1 to 16 bytes of text" },
	{ "tag_with_value", is_flag, "1, 0, true or false" },
	{ "with_label", is_flag, "1, 0, true or false" },
	{ "with_match_id", is_flag, "1, 0, true or false" },
};

/* A copy without what is null; flags are booleans in it. */
static int read_meta(const json_t *o, json_t **ret, struct err *e)
{
	json_t *v, *copy = json_object();
	const char *key;
	size_t k;
	int r = 0;

	if (!json_is_object(o))
		r = bad(e, "", "meta", "an object");
	json_object_foreach ((json_t *)o, key, v) {
		for (k = 0; k < ARRAY_SIZE(meta_members); k++)
			if (!strcmp(key, meta_members[k].key))
				break;
		if (k == ARRAY_SIZE(meta_members))
			r = err_set(e, EINVAL,
				    "upload.json#/meta/%.100s: no such option "
				    "(data_type, delimiter, "
				    "exclusive_data_type, id_list, id_range, "
				    "input_format, label_name, label_type, "
				    "tag_value_delimiter, tag_with_value, "
				    "with_label, with_match_id)",
				    key);
		else if (json_is_null(v))
			continue;
		else if (!meta_members[k].ok(v))
			r = bad(e, "meta/", key, meta_members[k].want);
		else if (meta_members[k].ok == is_flag)
			json_object_set_new(
			    copy, key,
			    json_boolean(json_is_true(v) ||
					 json_integer_value(v) == 1));
		else
			json_object_set_new(copy, key, json_deep_copy(v));
		if (r)
			break;
	}
	if (r) {
		json_decref(copy);
		return r;
	}
	*ret = copy;
	return 0;
}

/* What meta means for how lines are cut. */
static int apply_meta(struct upload_options *o, struct err *e)
{
	const json_t *v = json_object_get(o->meta, "delimiter");
	const char *format = json_str_or(o->meta, "input_format", "dense");

	o->value = strcasecmp(format, "dense") != 0;
	if (o->value || !v)
		return 0;
	if (!separator(v))
		return bad(e, "meta/", "delimiter",
			   "one character in dense input");
	o->rest = *json_string_value(v);
	o->named = true;
	if (o->extend_sid)
		o->delimiter = o->rest;
	return 0;
}

/* ---- the file ---------------------------------------------------------- */

/* Of FATE's: where the file is and where it goes is said by the paths. */
static bool known_elsewhere(const char *key)
{
	static const char *const keys[] = {
		"backend",
		"destroy",
		"drop",
		"file",
		"name",
		"namespace",
		"storage_address",
		"storage_engine",
		"table_name",
		"use_local_data",
		"work_mode",
	};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (!strcmp(key, keys[i]))
			return true;
	return false;
}

struct reading {
	struct upload_options *o;
	const json_t *meta;
	bool with_meta;
};

static int read_member(struct reading *x, const char *key, const json_t *v,
		       struct err *e)
{
	struct upload_options *o = x->o;

	if (!strcmp(key, "head"))
		return read_flag(v, "", key, &o->head, e);
	if (!strcmp(key, "extend_sid"))
		return read_flag(v, "", key, &o->extend_sid, e);
	if (!strcmp(key, "auto_increasing_sid"))
		return read_flag(v, "", key, &o->counted, e);
	if (!strcmp(key, "with_meta"))
		return read_flag(v, "", key, &x->with_meta, e);
	if (!strcmp(key, "meta")) {
		x->meta = json_is_null(v) ? NULL : v;
	} else if (!strcmp(key, "id_delimiter")) {
		if (!separator(v))
			return bad(e, "", key,
				   "one character (a tab is \"\\t\")");
		o->delimiter = o->rest = *json_string_value(v);
		o->named = true;
	} else if (!strcmp(key, "partition")) {
		if (!json_is_integer(v) || json_integer_value(v) < 1 ||
		    json_integer_value(v) > 1000)
			return bad(e, "", key, "1 to 1000");
		o->partitions = (unsigned)json_integer_value(v);
	} else if (!known_elsewhere(key)) {
		return err_set(e, EINVAL,
			       "upload.json#/%.100s: no such option "
			       "(auto_increasing_sid, extend_sid, head, "
			       "id_delimiter, meta, partition, with_meta)",
			       key);
	}
	return 0;
}

int upload_options_read(const json_t *options, struct upload_options *ret,
			struct err *e)
{
	struct upload_options o = {
		.head = true, .delimiter = ',', .rest = ',', .partitions = 4
	};
	struct reading x = { .o = &o, .with_meta = true };
	const char *key;
	json_t *v;
	int r = 0;

	if (options && !json_is_object(options))
		return err_set(e, EINVAL, "upload.json: expected an object");
	json_object_foreach ((json_t *)options, key, v) {
		r = read_member(&x, key, v, e);
		if (r)
			return r;
	}
	if (o.counted && !o.extend_sid)
		return err_set(e, EINVAL,
			       "upload.json#/auto_increasing_sid: goes with "
			       "\"extend_sid\": true");
	if (x.meta && x.with_meta) {
		r = read_meta(x.meta, &o.meta, e);
		if (!r)
			r = apply_meta(&o, e);
	}
	if (r)
		upload_options_free(&o);
	else
		*ret = o;
	return r;
}

void upload_options_free(struct upload_options *o)
{
	json_decref(o->meta);
	o->meta = NULL;
}

int table_upload_check(const json_t *options, struct err *e)
{
	struct upload_options o;
	int r = upload_options_read(options, &o, e);

	if (!r)
		upload_options_free(&o);
	return r;
}
