// SPDX-License-Identifier: Apache-2.0
/* What a model from outside says of itself: pure functions, fuzzed. */
#include "fs/models_priv.h"

/* The analyzer does not follow what an array of structs keeps. */
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

/* ---- names ------------------------------------------------------------ */

bool model_id_has(const char *id, const char *party)
{
	size_t n = strlen(party);

	for (const char *p = id; *p; p += *p == '#') {
		size_t end = strcspn(p, "#");
		size_t at = strcspn(p, "-#") + 1;

		while (at < end) {
			size_t k = strcspn(p + at, "_#");

			if (k == n && !memcmp(p + at, party, n))
				return true;
			at += k + 1;
		}
		p += end;
	}
	return false;
}

/* "<role>-<party>/...": NULL when it is none of a party. */
static const char *party_of(const char *path, size_t *ret_n)
{
	size_t n = strcspn(path, "/"), k = strcspn(path, "-");

	if (k >= n)
		return NULL;
	*ret_n = n - k - 1;
	return path + k + 1;
}

/* ---- info.json -------------------------------------------------------- */

void model_files_free(struct model_files *f)
{
	for (size_t i = 0; f && i < f->n; i++)
		free(f->of[i].path);
	if (f)
		free(f->of);
	free(f);
}

static int by_path(const void *a, const void *b)
{
	const struct model_file *x = a, *y = b;

	return strcmp(x->path, y->path);
}

struct model_file *model_files_find(const struct model_files *f,
				    const char *path)
{
	const struct model_file key = { .path = (char *)path };

	return f->n ? bsearch(&key, f->of, f->n, sizeof(*f->of), by_path)
		    : NULL;
}

static int one_file(const char *name, const json_t *o, const char *party,
		    struct model_file *ret, struct err *e)
{
	const char *sum = json_str_or(o, "sha256", "");
	size_t k = 0;
	const char *of;
	int64_t size;
	int no;

	if (!model_file_name_valid(name) || !strcmp(name, "info.json"))
		return err_set(e, EINVAL, "files: %.200s is no file of a model",
			       name);
	of = party_of(name, &k);
	if (of && (k != strlen(party) || memcmp(of, party, k)))
		return err_set(e, EACCES,
			       "files: %.200s is another party's, this is "
			       "party %s",
			       name, party);
	no = json_get_int(o, "size", 0, (int64_t)MODEL_FILE_MAX, &size, e);
	if (no)
		return err_wrap(e, "files: %.200s", name);
	if (strlen(sum) != 64 || strspn(sum, "0123456789abcdef") != 64)
		return err_set(e, EINVAL,
			       "files: %.200s: sha256: expected 64 hex digits",
			       name);
	ret->path = strdup(name);
	if (!ret->path)
		return err_set(e, ENOMEM, "no memory");
	ret->size = (uint64_t)size;
	memcpy(ret->sha256, sum, 65);
	return 0;
}

static int take_files(const json_t *files, const char *party,
		      struct model_files *f, struct err *e)
{
	const char *name;
	json_t *o;
	int no = 0;

	if (!json_object_size(files))
		return err_set(e, EINVAL, "files: expected an object");
	if (json_object_size(files) > MODEL_FILES_MAX)
		return err_set(e, EFBIG, "files: more than %d",
			       MODEL_FILES_MAX);
	f->of = calloc(json_object_size(files), sizeof(*f->of));
	if (!f->of)
		return err_set(e, ENOMEM, "no memory");
	json_object_foreach ((json_t *)files, name, o) {
		if (!no)
			no = one_file(name, o, party, &f->of[f->n], e);
		if (!no)
			f->n++;
	}
	qsort(f->of, f->n, sizeof(*f->of), by_path);
	return no;
}

/* {"guest": ["9999"], ...} */
static int check_roles(const json_t *roles, struct err *e)
{
	const char *role;
	size_t i;
	json_t *list, *v;

	if (!json_object_size(roles))
		return err_set(e, EINVAL, "roles: expected an object");
	json_object_foreach ((json_t *)roles, role, list) {
		if (!json_array_size(list))
			return err_set(e, EINVAL,
				       "roles: %.40s: expected a list", role);
		json_array_foreach (list, i, v)
			if (!json_is_string(v) ||
			    !party_id_valid(json_string_value(v)))
				return err_set(e, EINVAL,
					       "roles: %.40s: expected ids of "
					       "parties",
					       role);
	}
	return 0;
}

static int check_who(const json_t *o, const char *party, const char *id,
		     const char *version, struct err *e)
{
	_cleanup_free_ char *made = NULL;
	const char *whose, *model, *number;
	int64_t format;
	int no = json_get_int(o, "version", 1, 1, &format, e);

	if (!no)
		no = json_get_str(o, "party", &whose, e);
	if (!no)
		no = json_get_str(o, "model_id", &model, e);
	if (!no)
		no = json_get_str(o, "model_version", &number, e);
	if (!no)
		no = check_roles(json_object_get(o, "roles"), e);
	if (no)
		return no;
	if (strcmp(whose, party))
		return err_set(e, EACCES,
			       "the model of party %.20s, this is party %s",
			       whose, party);
	if (strcmp(model, id))
		return err_set(e, EBADMSG,
			       "model_id: %.260s in a directory that says %s",
			       model, id);
	if (strcmp(number, version))
		return err_set(e, EBADMSG,
			       "model_version: %.60s in a directory that says "
			       "%s",
			       number, version);
	made = model_id_of(json_object_get(o, "roles"));
	if (!made || strcmp(made, id))
		return err_set(e, EBADMSG,
			       "roles: are those of %.260s, model_id says %s",
			       made ? made : "?", id);
	if (!model_id_has(id, party))
		return err_set(e, EACCES, "party %s has no role in it", party);
	return 0;
}

static int check_rest(const json_t *o, struct model_files *f, struct err *e)
{
	const json_t *parent = json_object_get(o, "parent");
	const json_t *deployed = json_object_get(o, "deployed");
	const char *name;
	json_t *c;

	if (!json_is_boolean(deployed))
		return err_set(e, EINVAL, "deployed: expected true or false");
	f->deployed = json_is_true(deployed);
	if (f->deployed
		? !json_is_string(parent) ||
		      !model_version_valid(json_string_value(parent))
		: parent && !json_is_null(parent) && !json_is_string(parent))
		return err_set(e, EINVAL, "parent: expected a version");
	if (f->deployed && !model_files_find(f, MODEL_DSL_PATH))
		return err_set(e, EINVAL, "files: no " MODEL_DSL_PATH);
	if (!json_is_object(json_object_get(o, "components")))
		return err_set(e, EINVAL, "components: expected an object");
	json_object_foreach (json_object_get(o, "components"), name, c)
		if (!json_is_string(json_object_get(c, "module")))
			return err_set(e, EINVAL,
				       "components: %.100s: no module", name);
	return 0;
}

int model_files_parse(const char *text, size_t n, const char *party,
		      const char *id, const char *version,
		      struct model_files **ret, struct err *e)
{
	struct model_files *f = NULL;
	json_t *o = NULL;
	int no;

	if (n > MODEL_INFO_MAX)
		return err_set(e, EFBIG, "info.json has more than 16 MiB");
	o = json_parse(text, n, e);
	if (!o)
		return e && e->no ? -e->no : -EINVAL;
	f = calloc(1, sizeof(*f));
	if (!f)
		no = err_set(e, ENOMEM, "no memory");
	else if (!json_is_object(o))
		no = err_set(e, EINVAL, "expected an object");
	else
		no = check_who(o, party, id, version, e);
	if (!no)
		no = take_files(json_object_get(o, "files"), party, f, e);
	if (!no)
		no = check_rest(o, f, e);
	json_decref(o);
	if (no) {
		model_files_free(f);
		return no;
	}
	*ret = f;
	return 0;
}

/* ---- the other files: the shape only ----------------------------------- */

#define NEST_MAX 512

struct scan {
	const char *s, *end;
	unsigned depth;
	unsigned char list[NEST_MAX / 8]; /* a bit per level: it is a list */
};

static void blanks(struct scan *x)
{
	while (x->s < x->end && (*x->s == ' ' || *x->s == '\t' ||
				 *x->s == '\n' || *x->s == '\r'))
		x->s++;
}

static bool take(struct scan *x, char c)
{
	if (x->s == x->end || *x->s != c)
		return false;
	x->s++;
	return true;
}

static bool digits(struct scan *x)
{
	const char *s = x->s;

	while (x->s < x->end && *x->s >= '0' && *x->s <= '9')
		x->s++;
	return x->s > s;
}

static bool number(struct scan *x)
{
	(void)take(x, '-');
	if (!take(x, '0') && !digits(x))
		return false;
	if (take(x, '.') && !digits(x))
		return false;
	if (take(x, 'e') || take(x, 'E')) {
		if (!take(x, '+'))
			(void)take(x, '-');
		return digits(x);
	}
	return true;
}

static bool one_of(struct scan *x, const char *set)
{
	if (x->s == x->end || !*x->s || !strchr(set, *x->s))
		return false;
	x->s++;
	return true;
}

static bool escape(struct scan *x)
{
	if (!take(x, 'u'))
		return one_of(x, "\"\\/bfnrt");
	for (unsigned i = 0; i < 4; i++)
		if (!one_of(x, "0123456789abcdefABCDEF"))
			return false;
	return true;
}

static bool string(struct scan *x)
{
	if (!take(x, '"'))
		return false;
	while (x->s < x->end) {
		unsigned char c = (unsigned char)*x->s++;

		if (c == '"')
			return true;
		if (c < 0x20 || (c == '\\' && !escape(x)))
			return false;
	}
	return false;
}

static bool word(struct scan *x, const char *w)
{
	size_t n = strlen(w);

	if ((size_t)(x->end - x->s) < n || memcmp(x->s, w, n))
		return false;
	x->s += n;
	return true;
}

static bool open_level(struct scan *x, bool list)
{
	unsigned d = x->depth;

	if (d == NEST_MAX)
		return false;
	x->list[d / 8] &= (unsigned char)~(1u << d % 8);
	x->list[d / 8] |= (unsigned char)((list ? 1u : 0u) << d % 8);
	x->depth++;
	return true;
}

static bool in_list(const struct scan *x)
{
	unsigned d = x->depth - 1;

	return x->list[d / 8] & 1u << d % 8;
}

/* A name and its colon, where the level wants one. */
static bool member(struct scan *x)
{
	blanks(x);
	if (in_list(x))
		return true;
	if (!string(x))
		return false;
	blanks(x);
	return take(x, ':');
}

/* A value was read: commas and ends, up to the next value or the end of all
 * (depth 0). */
static bool after(struct scan *x)
{
	for (;;) {
		if (!x->depth)
			return true;
		blanks(x);
		if (take(x, ','))
			return member(x);
		if (!take(x, in_list(x) ? ']' : '}'))
			return false;
		x->depth--;
	}
}

/* A value begins; sets *ret when it is a level with something in it. */
static bool value(struct scan *x, bool *ret)
{
	bool list;

	*ret = false;
	blanks(x);
	if (x->s == x->end)
		return false;
	list = *x->s == '[';
	if (list || *x->s == '{') {
		x->s++;
		if (!open_level(x, list))
			return false;
		blanks(x);
		if (take(x, list ? ']' : '}')) {
			x->depth--;
			return true;
		}
		*ret = true;
		return member(x);
	}
	return *x->s == '"'   ? string(x)
	       : *x->s == 't' ? word(x, "true")
	       : *x->s == 'f' ? word(x, "false")
	       : *x->s == 'n' ? word(x, "null")
			      : number(x);
}

bool json_object_shaped(const char *s, size_t n)
{
	struct scan x = { .s = s, .end = s + n };
	bool inside;

	blanks(&x);
	if (x.s == x.end || *x.s != '{' || !utf8_valid(s, n))
		return false;
	do {
		if (!value(&x, &inside) || (!inside && !after(&x)))
			return false;
	} while (x.depth);
	blanks(&x);
	return x.s == x.end;
}
