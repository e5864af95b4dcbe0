// SPDX-License-Identifier: Apache-2.0
/*
 * A version that comes from outside, file by file: when all that its info.json
 * lists has arrived, and is right, and is ours, it takes its place.
 */
#include "scheduler/model_priv.h"

#include <sys/stat.h>

#include "lib/fileio.h"
#include "lib/log.h"
#include "lib/table.h"

#include "scheduler/check_priv.h"
#include "scheduler/engine.h"

char *model_import_path(const char *state, const char *id, const char *version)
{
	_cleanup_free_ char *escaped = table_escape(id);

	return xasprintf("%s/models/.import/%s/%s", state, escaped, version);
}

/* ---- what info.json says --------------------------------------------------
 */

static bool is(const json_t *o, const char *key, const char *value)
{
	return !strcmp(json_str_or(o, key, ""), value);
}

static int roles_right(const json_t *info, const char *party, struct err *e)
{
	const json_t *roles = json_object_get(info, "roles"), *list, *v;
	_cleanup_free_ char *id = NULL;
	const char *role;
	bool ours = false;
	size_t i;

	if (!json_is_object(roles))
		return err_set(e, EINVAL, "info.json: no roles");
	json_object_foreach ((json_t *)roles, role, list) {
		if (!json_is_array(list))
			return err_set(e, EINVAL, "info.json: roles");
		json_array_foreach ((json_t *)list, i, v)
			if (!json_is_string(v))
				return err_set(e, EINVAL, "info.json: roles");
		ours |= list_has(list, party);
	}
	id = model_id_of(roles);
	if (!is(info, "model_id", id))
		return err_set(e, EBADMSG,
			       "info.json: the roles are not those of its "
			       "model_id");
	if (!ours)
		return err_set(e, EACCES, "party %s has no part in this model",
			       party);
	return 0;
}

/* Names only of this party, and everything a version needs. */
static int files_right(const json_t *info, const char *party, struct err *e)
{
	static const char *const needed[] = { "train/dsl.json",
					      "train/conf.json", MODEL_DSL_PATH,
					      "predict/conf.template.json" };
	const json_t *files = json_object_get(info, "files");
	const json_t *roles = json_object_get(info, "roles");
	size_t n = json_bool_or(info, "deployed", false) ? 4 : 2;
	const char *name;
	json_t *v;

	if (!json_is_object(files) || json_object_size(files) > MODEL_FILES_MAX)
		return err_set(e, EINVAL, "info.json: no files, or too many");
	for (size_t i = 0; i < n; i++)
		if (!json_object_get(files, needed[i]))
			return err_set(e, EINVAL, "info.json: no %s in files",
				       needed[i]);
	json_object_foreach ((json_t *)files, name, v) {
		const char *dash = strchr(name, '-');
		size_t k = strcspn(name, "/");
		_cleanup_free_ char *role = NULL;

		if (!model_file_name_valid(name) || !strcmp(name, "info.json"))
			return err_set(e, EINVAL,
				       "info.json: no such file in a model: "
				       "%.200s",
				       name);
		if (!strncmp(name, "train/", 6) ||
		    !strncmp(name, "predict/", 8))
			continue;
		role = xasprintf("%.*s", dash ? (int)(dash - name) : 0, name);
		if (!dash || strlen(party) != k - (size_t)(dash + 1 - name) ||
		    strncmp(dash + 1, party, strlen(party)) != 0 ||
		    !list_has(json_object_get(roles, role), party))
			return err_set(e, EACCES,
				       "%.200s is not of party %s: each party "
				       "has its own part of a model",
				       name, party);
	}
	return 0;
}

static int info_right(const json_t *info, const char *party, const char *id,
		      const char *version, struct err *e)
{
	const json_t *first = json_object_get(info, "initiator");
	int r;

	if (json_int_or(info, "version", 0) != 1)
		return err_set(e, EINVAL, "info.json: version is not 1");
	if (!is(info, "model_id", id) || !is(info, "model_version", version))
		return err_set(e, EBADMSG, "info.json is of model %.200s %.60s",
			       json_str_or(info, "model_id", "?"),
			       json_str_or(info, "model_version", "?"));
	if (!is(info, "party", party))
		return err_set(e, EACCES,
			       "this is the part of party %.20s; this mount is "
			       "party %s",
			       json_str_or(info, "party", "?"), party);
	if (!json_is_object(json_object_get(info, "components")) ||
	    !json_is_string(json_object_get(first, "party")))
		return err_set(e, EINVAL,
			       "info.json: no components, or no initiator");
	r = roles_right(info, party, e);
	return r ? r : files_right(info, party, e);
}

/* ---- what the files say ---------------------------------------------------
 */

static json_t *read_one(const char *dir, const char *name, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
	json_t *o = json_read_file(path, e);

	if (!o) {
		err_wrap(e, "%s", name);
		e->no = EBADMSG;
	} else if (!json_is_object(o)) {
		json_decref(o);
		o = NULL;
		err_set(e, EBADMSG, "%s: expected an object", name);
	}
	return o;
}

/* Every component that info.json names has both files for its roles, and they
 * are of its module. */
static int component_right(const char *dir, const json_t *info,
			   const char *party, const char *name, const json_t *c,
			   struct err *e)
{
	const json_t *files = json_object_get(info, "files"), *v;
	size_t i;

	if (!check_name_valid(name))
		return err_set(e, EINVAL, "info.json: components");
	json_array_foreach (json_object_get(c, "roles"), i, v) {
		const char *role =
		    json_is_string(v) ? json_string_value(v) : "?";
		_cleanup_free_ char *meta =
		    xasprintf("%s-%s/%s/meta.json", role, party, name);
		_cleanup_free_ char *param =
		    xasprintf("%s-%s/%s/param.json", role, party, name);
		json_t *o;
		bool right;

		if (!json_object_get(files, meta) ||
		    !json_object_get(files, param))
			return err_set(e, EBADMSG,
				       "info.json: %s has no files for the "
				       "role %s",
				       name, role);
		o = read_one(dir, meta, e);
		right = o && is(o, "module", json_str_or(c, "module", "")) &&
			json_is_object(json_object_get(o, "meta"));
		json_decref(o);
		if (!right)
			return *e->text
				   ? -e->no
				   : err_set(e, EBADMSG,
					     "%s: not a model of %s", meta,
					     json_str_or(c, "module", "?"));
	}
	return 0;
}

static int content_right(const char *dir, const json_t *info, const char *party,
			 struct err *e)
{
	const json_t *files = json_object_get(info, "files");
	const char *name;
	json_t *v;
	int r = 0;

	json_object_foreach ((json_t *)files, name, v) {
		json_t *o = read_one(dir, name, e);

		if (!o)
			return -e->no;
		json_decref(o);
	}
	json_object_foreach (json_object_get(info, "components"), name, v)
		if (!r)
			r = component_right(dir, info, party, name, v, e);
	return r;
}

struct extra {
	const json_t *files;
	bool deployed;
	struct err *e;
};

/* But for a predict DSL that waits for a deploy. */
static int look_at(void *arg, const char *relative)
{
	const struct extra *x = arg;

	if (!strcmp(relative, "info.json") ||
	    json_object_get(x->files, relative) ||
	    (!x->deployed && !strcmp(relative, MODEL_DSL_PATH)))
		return 0;
	return err_set(x->e, EBADMSG, "%s is not in info.json", relative);
}

/* ---- import ---------------------------------------------------------------
 */

static int whole(const char *dir, const json_t *info)
{
	const char *name;
	json_t *v;

	json_object_foreach (json_object_get(info, "files"), name, v) {
		_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);

		if (access(path, F_OK))
			return 0;
	}
	return 1;
}

static int import(struct sched *s, const char *state, const char *dir,
		  const json_t *info, const char *party, const char *id,
		  const char *version, struct err *e)
{
	struct extra x = { json_object_get(info, "files"),
			   json_bool_or(info, "deployed", false), e };
	_cleanup_free_ char *predict = xasprintf("%s/predict", dir);
	int r = info_right(info, party, id, version, e);

	if (r)
		return r;
	if (!whole(dir, info))
		return 0;
	r = model_verify(dir, info, e);
	if (!r)
		r = model_walk(dir, look_at, &x, e);
	if (!r)
		r = content_right(dir, info, party, e);
	if (!r && !x.deployed)
		deploy_dsl_take(s, dir, info);
	if (!r)
		r = model_settle(dir, e);
	(void)rmdir(predict); /* when nothing is in it */
	if (!r)
		r = model_publish(state, dir, id, version, e);
	return r ? r : 1;
}

int model_import_try(struct sched *s, const char *state, const char *party,
		     const char *id, const char *version, struct err *e)
{
	_cleanup_free_ char *dir = NULL, *path = NULL;
	struct err none = { 0 };
	json_t *info;
	int r;

	if (!e)
		e = &none;
	e->no = 0;
	e->text[0] = '\0';
	if (!model_id_valid(id) || !model_version_valid(version))
		return err_set(e, EINVAL, "not the name of a model's version");
	if (model_exists(state, id, version))
		return err_set(e, EEXIST, "version %s is there already",
			       version);
	dir = model_import_path(state, id, version);
	path = xasprintf("%s/info.json", dir);
	if (access(path, F_OK))
		return 0;
	info = read_one(dir, "info.json", e);
	if (!info)
		return -e->no;
	r = import(s, state, dir, info, party, id, version, e);
	json_decref(info);
	if (r == 1 && model_import_drop(state, id, version, &none))
		log_warn("scheduler", "%s", none.text);
	return r;
}

int model_import_drop(const char *state, const char *id, const char *version,
		      struct err *e)
{
	_cleanup_free_ char *dir = NULL;
	char *slash;
	int r;

	if (!model_id_valid(id) || !model_version_valid(version))
		return err_set(e, EINVAL, "not the name of a model's version");
	dir = model_import_path(state, id, version);
	r = remove_tree(dir, e);
	slash = strrchr(dir, '/');
	if (slash) {
		*slash = '\0';
		(void)rmdir(dir);
	}
	return r;
}

int sched_model_import(struct sched *s, const char *id, const char *version,
		       struct err *e)
{
	int r = model_import_try(s, s->o.conf->state, s->party, id, version, e);

	if (r == 1 && s->o.models_changed)
		s->o.models_changed(s->o.arg, id, version);
	return r;
}
