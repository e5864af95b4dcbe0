// SPDX-License-Identifier: Apache-2.0
/* What chmod, chown, touch and setfattr leave on tables and namespaces: one
 * small file STORE/attrs/<id> each, absent as long as all is as it was made. */
#include <fcntl.h>
#include <sys/stat.h>

#include "lib/log.h"

#include "lib/table_priv.h"

#define ATTRS_FILE_MAX (4u * TABLE_XATTRS_MAX)

static const struct table_attrs unset = {
	.mode = -1, .data_mode = -1, .uid = -1, .gid = -1
};

static char *attrs_path(const struct table_store *s, uint64_t id)
{
	return xasprintf("%s/attrs/%llu", s->dir, (unsigned long long)id);
}

bool table_attrs_unset(const struct table_attrs *a)
{
	return a->mode < 0 && a->data_mode < 0 && a->uid < 0 && a->gid < 0 &&
	       !a->mtime_ns && !a->xattrs;
}

void table_attrs_free(struct table_attrs *a)
{
	json_decref(a->xattrs);
	a->xattrs = NULL;
}

int table_attrs_load(struct table_store *s, uint64_t id,
		     struct table_attrs *ret, struct err *e)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(ATTRS_FILE_MAX);
	_cleanup_free_ char *path = attrs_path(s, id);
	json_t *o;
	int r;

	*ret = unset;
	r = file_read(path, &sb, e);
	if (r)
		return r == -ENOENT ? 0 : r;
	o = json_parse(sb.buf, sb.len, e);
	if (!o || !json_is_object(o)) {
		json_decref(o);
		return err_set(e, EIO, "%s: damaged", path);
	}
	ret->mode = (int)json_int_or(o, "mode", -1);
	ret->data_mode = (int)json_int_or(o, "data_mode", -1);
	ret->uid = json_int_or(o, "uid", -1);
	ret->gid = json_int_or(o, "gid", -1);
	ret->mtime_ns = json_int_or(o, "mtime_ns", 0);
	ret->mtime_gen = (uint64_t)json_int_or(o, "mtime_gen", 0);
	ret->xattrs = json_incref(json_object_get(o, "xattrs"));
	json_decref(o);
	return 0;
}

static void put(json_t *o, const char *key, int64_t v, int64_t none)
{
	if (v != none)
		json_object_set_new(o, key, json_integer(v));
}

int table_attrs_store(struct table_store *s, uint64_t id,
		      const struct table_attrs *a, struct err *e)
{
	_cleanup_free_ char *path = attrs_path(s, id);
	json_t *o = json_object();
	int r;

	if (!o)
		return err_sys(e, ENOMEM, "%s", path);
	put(o, "mode", a->mode, -1);
	put(o, "data_mode", a->data_mode, -1);
	put(o, "uid", a->uid, -1);
	put(o, "gid", a->gid, -1);
	put(o, "mtime_ns", a->mtime_ns, 0);
	put(o, "mtime_gen", (int64_t)a->mtime_gen, 0);
	if (json_object_size(a->xattrs))
		json_object_set(o, "xattrs", a->xattrs);
	if (json_object_size(o))
		r = json_write_file(path, o, 0600, true, e);
	else
		r = unlink(path) && errno != ENOENT
			? err_sys(e, errno, "%s", path)
			: 0;
	json_decref(o);
	return r;
}

void table_attrs_remove(struct table_store *s, uint64_t id)
{
	_cleanup_free_ char *path = attrs_path(s, id);

	(void)unlink(path);
}

/* Bytes as hexadecimal digits: a value may hold anything. */
static char *to_hex(const void *data, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *p = data;
	char *s = malloc(2 * n + 1);

	for (size_t i = 0; s && i < n; i++) {
		s[2 * i] = digits[p[i] >> 4];
		s[2 * i + 1] = digits[p[i] & 15];
	}
	if (s)
		s[2 * n] = '\0';
	return s;
}

static int add_hex(struct strbuf *sb, const char *s)
{
	for (; s[0] && s[1]; s += 2) {
		char two[3] = { s[0], s[1], '\0' };

		sb_addc(sb, (char)strtoul(two, NULL, 16));
	}
	return sb->error;
}

int table_xattr_get(const struct table_attrs *a, const char *name,
		    struct strbuf *ret)
{
	const char *s = json_str_or(a->xattrs, name, NULL);

	return s ? add_hex(ret, s) : -ENODATA;
}

int table_xattr_set(struct table_attrs *a, const char *name, const void *value,
		    size_t n)
{
	_cleanup_free_ char *hex = NULL;
	size_t all = strlen(name) + n;
	const char *key;
	json_t *v;

	if (!utf8_valid(name, strlen(name)))
		return -EINVAL;
	if (!value)
		return json_object_del(a->xattrs, name) ? -ENODATA : 0;
	json_object_foreach (a->xattrs, key, v)
		if (strcmp(key, name))
			all += strlen(key) + json_string_length(v) / 2;
	if (all > TABLE_XATTRS_MAX)
		return -ENOSPC;
	hex = to_hex(value, n);
	if (!a->xattrs)
		a->xattrs = json_object();
	return !hex || json_object_set_new(a->xattrs, name, json_string(hex))
		   ? -ENOMEM
		   : 0;
}

int table_hidden(struct table_store *s, const char *ns, const char *name,
		 struct err *e)
{
	struct table_attrs a;
	struct table_id id;
	int r = table_lookup(s, ns, name, &id, e);

	if (r)
		return r;
	r = table_attrs_load(s, id.id, &a, e);
	table_attrs_free(&a);
	if (r)
		return r;
	return (a.mode >= 0 && !(a.mode & 0444)) ||
	       (a.data_mode >= 0 && !(a.data_mode & 0444));
}
