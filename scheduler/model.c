// SPDX-License-Identifier: Apache-2.0
/* Names of models, what is in the store, digests. */
#include "scheduler/model_priv.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>

#include "lib/conf.h"
#include "lib/fileio.h"
#include "lib/log.h"
#include "lib/table.h"

#include "scheduler/engine.h"

#define DEPTH_MAX 8

/* ---- names ----------------------------------------------------------------
 */

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int by_number(const void *a, const void *b)
{
	const char *x = *(char *const *)a, *y = *(char *const *)b;
	size_t n = strlen(x), m = strlen(y);

	return n != m ? (n > m) - (n < m) : strcmp(x, y);
}

char *model_member(const char *role, const char *party)
{
	return xasprintf("%s-%s", role, party);
}

static void add_role(struct strbuf *sb, const char *role, const json_t *list)
{
	size_t n = json_array_size(list), k = 0, i;
	const char **ids = xcalloc(n + 1, sizeof(*ids));
	json_t *v;

	json_array_foreach ((json_t *)list, i, v)
		if (json_is_string(v))
			ids[k++] = json_string_value(v);
	qsort(ids, k, sizeof(*ids), by_number);
	(void)sb_addf(sb, "%s-", role);
	for (i = 0; i < k; i++)
		(void)sb_addf(sb, "%s%s", i ? "_" : "", ids[i]);
	(void)sb_addc(sb, '#');
	free(ids);
}

char *model_id_of(const json_t *roles)
{
	struct strbuf sb = STRBUF_INIT(65536);
	const char *names[16] = { NULL }, *role;
	size_t n = 0;
	json_t *v;

	json_object_foreach ((json_t *)roles, role, v)
		if (n < ARRAY_SIZE(names) && json_array_size(v))
			names[n++] = role;
	qsort(names, n, sizeof(*names), by_name);
	for (size_t i = 0; i < n; i++)
		add_role(&sb, names[i], json_object_get(roles, names[i]));
	(void)sb_adds(&sb, "model");
	return sb_detach(&sb);
}

/* "guest-9999" or "host-10000_10001". */
static bool part_valid(const char *s, size_t n)
{
	size_t at = 0;

	while (at < n && s[at] >= 'a' && s[at] <= 'z')
		at++;
	if (!at || at == n || s[at++] != '-')
		return false;
	while (at < n) {
		size_t k = 0;

		while (at + k < n && s[at + k] >= '0' && s[at + k] <= '9')
			k++;
		if (!k || k > 10)
			return false;
		at += k;
		if (at == n)
			return true;
		if (s[at++] != '_')
			return false;
	}
	return false;
}

bool model_id_valid(const char *id)
{
	size_t n = strlen(id);

	if (n < sizeof("a-1#model") - 1 || n > 250)
		return false;
	while (strcmp(id, "model") != 0) {
		size_t k = strcspn(id, "#");

		if (!id[k] || !part_valid(id, k))
			return false;
		id += k + 1;
	}
	return true;
}

bool model_version_valid(const char *v)
{
	size_t n = strspn(v, "0123456789");

	return n >= 20 && n <= MODEL_VERSION_MAX && !v[n];
}

char *model_path(const char *state, const char *id, const char *version)
{
	_cleanup_free_ char *escaped = id ? table_escape(id) : NULL;

	return xasprintf("%s/models%s%s%s%s", state, id ? "/" : "",
			 id ? escaped : "", id && version ? "/" : "",
			 id && version ? version : "");
}

static bool name_valid(const char *s, size_t n)
{
	return n >= 1 && n <= 100 &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			 "0123456789_-") >= n;
}

bool model_file_name_valid(const char *relative)
{
	static const char *const fixed[] = { "info.json", "train/dsl.json",
					     "train/conf.json", MODEL_DSL_PATH,
					     "predict/conf.template.json" };
	const char *s = relative;
	size_t n;

	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		if (!strcmp(fixed[i], relative))
			return true;
	n = strcspn(s, "/");
	if (!s[n] || !part_valid(s, n) || memchr(s, '_', n))
		return false;
	s += n + 1;
	n = strcspn(s, "/");
	if (!s[n] || !name_valid(s, n))
		return false;
	s += n + 1;
	if (!strncmp(s, "checkpoints/", 12)) {
		s += 12;
		n = strspn(s, "0123456789");
		if (!n || n > 7 || s[n] != '/')
			return false;
		s += n + 1;
	}
	return !strcmp(s, "meta.json") || !strcmp(s, "param.json");
}

/* ---- looking --------------------------------------------------------------
 */

void model_names_free(char **names)
{
	for (size_t i = 0; names && names[i]; i++)
		free(names[i]);
	free(names);
}

/* Directories of one level whose (unescaped) names are right. */
static char **list_names(const char *dir, bool (*valid)(const char *))
{
	_cleanup_closedir_ DIR *d = opendir(dir);
	char **names = NULL;
	const struct dirent *de;
	size_t n = 0;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *name = NULL;

		if (de->d_name[0] == '.')
			continue;
		name = table_unescape(de->d_name);
		if (!name || !valid(name))
			continue;
		names = xrealloc(names, (n + 2) * sizeof(*names));
		names[n++] = TAKE_PTR(name);
		names[n] = NULL;
	}
	if (n)
		qsort(names, n, sizeof(*names), by_name);
	return names;
}

bool model_exists(const char *state, const char *id, const char *version)
{
	_cleanup_free_ char *dir = NULL, *path = NULL;

	if (!model_id_valid(id) || !model_version_valid(version))
		return false;
	dir = model_path(state, id, version);
	path = xasprintf("%s/info.json", dir);
	return !access(path, F_OK);
}

char **model_versions(const char *state, const char *id)
{
	_cleanup_free_ char *dir = NULL;
	char **names;
	size_t n = 0;

	if (!model_id_valid(id))
		return NULL;
	dir = model_path(state, id, NULL);
	names = list_names(dir, model_version_valid);
	for (size_t i = 0; names && names[i]; i++) {
		if (model_exists(state, id, names[i]))
			names[n++] = names[i];
		else
			free(names[i]);
	}
	if (names)
		names[n] = NULL;
	if (names && !n) {
		free(names);
		names = NULL;
	}
	return names;
}

char **model_ids(const char *state)
{
	_cleanup_free_ char *dir = model_path(state, NULL, NULL);
	char **names = list_names(dir, model_id_valid);
	size_t n = 0;

	for (size_t i = 0; names && names[i]; i++) {
		char **versions = model_versions(state, names[i]);

		if (versions)
			names[n++] = names[i];
		else
			free(names[i]);
		model_names_free(versions);
	}
	if (names)
		names[n] = NULL;
	return names;
}

json_t *model_read(const char *state, const char *id, const char *version,
		   const char *relative, struct err *e)
{
	_cleanup_free_ char *dir = NULL, *path = NULL;
	json_t *o;

	if (!model_id_valid(id) || !model_version_valid(version)) {
		err_set(e, ENOENT, "no model %.200s %.60s", id, version);
		return NULL;
	}
	dir = model_path(state, id, version);
	path = xasprintf("%s/%s", dir, relative);
	if (access(path, F_OK)) {
		err_set(e, ENOENT, "no %s in model %s %s", relative, id,
			version);
		return NULL;
	}
	o = json_read_file(path, e);
	if (o && !json_is_object(o)) {
		json_decref(o);
		err_set(e, EBADMSG, "%s: expected an object", relative);
		return NULL;
	}
	return o;
}

json_t *model_info(const char *state, const char *id, const char *version,
		   struct err *e)
{
	return model_read(state, id, version, "info.json", e);
}

char *model_deployed(const char *state, const char *id, const char *version)
{
	char **all = model_versions(state, id), *ret = NULL;
	size_t n = 0;

	while (all && all[n])
		n++;
	while (n-- && !ret) {
		json_t *info;

		if (!strcmp(all[n], version))
			continue;
		info = model_info(state, id, all[n], NULL);
		if (json_bool_or(info, "deployed", false) &&
		    !strcmp(json_str_or(info, "parent", ""), version))
			ret = xstrdup(all[n]);
		json_decref(info);
	}
	model_names_free(all);
	return ret;
}

/* ---- files ------------------------------------------------------------------
 */

int model_digest(const char *path, char *ret, uint64_t *ret_size, struct err *e)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	unsigned char sum[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *md;
	unsigned n = 0;
	char piece[65536];
	ssize_t got;
	int r = 0;

	*ret_size = 0;
	if (fd < 0)
		return err_sys(e, errno, "%s", path);
	md = EVP_MD_CTX_new();
	if (!md || EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1)
		r = err_set(e, EIO, "no SHA-256");
	while (!r && (got = read(fd, piece, sizeof(piece)))) {
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			r = err_sys(e, errno, "%s", path);
			break;
		}
		*ret_size += (uint64_t)got;
		if (*ret_size > MODEL_FILE_MAX)
			r = err_set(e, EFBIG, "%s: too large", path);
		else if (EVP_DigestUpdate(md, piece, (size_t)got) != 1)
			r = err_set(e, EIO, "SHA-256");
	}
	if (!r && EVP_DigestFinal_ex(md, sum, &n) != 1)
		r = err_set(e, EIO, "SHA-256");
	for (unsigned i = 0; !r && i < n; i++)
		(void)snprintf(ret + (size_t)2 * i, 3, "%02x", sum[i]);
	EVP_MD_CTX_free(md);
	return r;
}

struct walk {
	const char *dir;
	int (*fn)(void *arg, const char *relative);
	void *arg;
	size_t files;
};

static int walk(struct walk *w, const char *below, unsigned depth,
		struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", w->dir, below);
	_cleanup_closedir_ DIR *d = opendir(path);
	const struct dirent *de;
	int r = 0;

	if (!d)
		return err_sys(e, errno, "%s", path);
	if (depth > DEPTH_MAX)
		return err_set(e, EINVAL, "%s: too deep", path);
	while (!r && (de = readdir(d))) {
		_cleanup_free_ char *one =
		    xasprintf("%s%s%s", below, *below ? "/" : "", de->d_name);
		_cleanup_free_ char *full = xasprintf("%s/%s", w->dir, one);
		struct stat st;

		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		if (lstat(full, &st))
			return err_sys(e, errno, "%s", full);
		if (S_ISDIR(st.st_mode)) {
			r = walk(w, one, depth + 1, e);
		} else if (!S_ISREG(st.st_mode)) {
			r = err_set(e, EINVAL, "%s: no plain file", one);
		} else if (++w->files > MODEL_FILES_MAX) {
			r = err_set(e, EFBIG, "more than %d files",
				    MODEL_FILES_MAX);
		} else {
			r = w->fn(w->arg, one);
		}
	}
	return r;
}

int model_walk(const char *dir, int (*fn)(void *arg, const char *relative),
	       void *arg, struct err *e)
{
	struct walk w = { .dir = dir, .fn = fn, .arg = arg };

	return walk(&w, "", 0, e);
}

struct listing {
	const char *dir;
	json_t *files;
	struct err *e;
};

static int list_one(void *arg, const char *relative)
{
	struct listing *l = arg;
	_cleanup_free_ char *path = xasprintf("%s/%s", l->dir, relative);
	char sum[MODEL_SHA_TEXT];
	uint64_t size;
	int r;

	if (!strcmp(relative, "info.json"))
		return 0;
	r = model_digest(path, sum, &size, l->e);
	if (!r)
		json_object_set_new(l->files, relative,
				    json_pack("{s:I, s:s}", "size",
					      (json_int_t)size, "sha256", sum));
	return r;
}

int model_list_files(const char *dir, json_t *ret, struct err *e)
{
	struct listing l = { dir, ret, e };

	return model_walk(dir, list_one, &l, e);
}

static int verify_one(const char *dir, const char *name, const json_t *o,
		      struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, name);
	int64_t want = json_int_or(o, "size", -1);
	char sum[MODEL_SHA_TEXT];
	struct stat st;
	uint64_t size;
	int r;

	if (!model_file_name_valid(name))
		return err_set(e, EBADMSG, "info.json: no such file name");
	if (lstat(path, &st))
		return err_set(e, ENOENT, "%s is missing", name);
	if (!S_ISREG(st.st_mode))
		return err_set(e, EBADMSG, "%s is no plain file", name);
	if ((int64_t)st.st_size != want)
		return err_set(e, EBADMSG,
			       "%s has %lld bytes, info.json says %lld", name,
			       (long long)st.st_size, (long long)want);
	r = model_digest(path, sum, &size, e);
	if (!r && strcmp(sum, json_str_or(o, "sha256", "")))
		return err_set(e, EBADMSG,
			       "%s is not what info.json says (SHA-256)", name);
	return r;
}

int model_verify(const char *dir, const json_t *info, struct err *e)
{
	const json_t *files = json_object_get(info, "files");
	const char *name;
	json_t *o;
	int r = 0;

	if (!json_is_object(files))
		return err_set(e, EBADMSG, "info.json: no files");
	json_object_foreach ((json_t *)files, name, o)
		if (!r)
			r = verify_one(dir, name, o, e);
	return r;
}

struct settling {
	const char *dir;
	struct err *e;
};

static int sync_path(const char *path, int flags, mode_t mode, struct err *e)
{
	_cleanup_close_ int fd =
	    open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | flags);

	if (fd < 0 || fchmod(fd, mode) || fsync(fd))
		return err_sys(e, errno, "%s", path);
	return 0;
}

static int settle_one(void *arg, const char *relative)
{
	struct settling *x = arg;
	_cleanup_free_ char *path = xasprintf("%s/%s", x->dir, relative);
	int r = sync_path(path, 0, 0600, x->e);

	/* The directories on the way, as often as they have files: few. */
	for (char *p = strrchr(path, '/'); !r && p; p = strrchr(path, '/')) {
		*p = '\0';
		r = sync_path(path, O_DIRECTORY, 0700, x->e);
		if (!strcmp(path, x->dir))
			break;
	}
	return r;
}

int model_settle(const char *dir, struct err *e)
{
	struct settling x = { dir, e };

	return model_walk(dir, settle_one, &x, e);
}

/* ---- making
 * ------------------------------------------------------------------
 */

char *model_workshop(const char *state, const char *version, struct err *e)
{
	_cleanup_free_ char *dir =
	    xasprintf("%s/models/.new-%s", state, version);

	if (remove_tree(dir, e) || mkdir_p(dir, 0700, e))
		return NULL;
	return TAKE_PTR(dir);
}

int model_publish(const char *state, const char *dir, const char *id,
		  const char *version, struct err *e)
{
	_cleanup_free_ char *all = model_path(state, NULL, NULL);
	_cleanup_free_ char *parent = model_path(state, id, NULL);
	_cleanup_free_ char *final = model_path(state, id, version);
	_cleanup_free_ char *old = xasprintf("%s/.old-%s", all, version);
	int r = mkdir_p(parent, 0700, e);

	if (r)
		return r;
	/* A training that was run again; what was deployed has links. */
	if (rename(final, old) && errno != ENOENT)
		return err_sys(e, errno, "%s", final);
	if (rename(dir, final)) {
		r = err_sys(e, errno, "%s", final);
		(void)rename(old, final); /* the start does so, too */
		return r;
	}
	r = dir_sync(parent, e);
	if (!r)
		r = dir_sync(all, e);
	if (!r)
		(void)remove_tree(old, NULL);
	return r;
}

/* What was there before a version that has not come after all. */
static void bring_back(const char *state, const char *version, const char *old)
{
	_cleanup_free_ char *path = xasprintf("%s/info.json", old);
	_cleanup_free_ char *final = NULL;
	json_t *info = json_read_file(path, NULL);
	const char *id = json_str_or(info, "model_id", "");

	if (model_id_valid(id) && model_version_valid(version)) {
		final = model_path(state, id, version);
		(void)rename(old, final); /* fails where there is one */
	}
	json_decref(info);
	(void)remove_tree(old, NULL);
}

void model_sweep(struct sched *s)
{
	const char *state = s->o.conf->state;
	_cleanup_free_ char *all = model_path(state, NULL, NULL);
	_cleanup_closedir_ DIR *d = NULL;
	const struct dirent *de;
	struct err e;

	if (mkdir_p_durable(all, 0700, &e)) {
		log_error("scheduler", "%s", e.text);
		return;
	}
	d = opendir(all);
	while (d && (de = readdir(d))) {
		_cleanup_free_ char *path = xasprintf("%s/%s", all, de->d_name);

		if (!strncmp(de->d_name, ".old-", 5))
			bring_back(state, de->d_name + 5, path);
		else if ((!strncmp(de->d_name, ".new-", 5) &&
			  !deploy_prepared(s, path)) ||
			 !strncmp(de->d_name, ".gone-", 6))
			(void)remove_tree(path, NULL);
	}
}
