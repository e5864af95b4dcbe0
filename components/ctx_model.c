// SPDX-License-Identifier: Apache-2.0
// What a task learns and shows of it: models, checkpoints, live curves.
#include "components/ctx_priv.h"

#include <dirent.h>
#include <fcntl.h>
#include <math.h>

#include "lib/csv.h"
#include "lib/fileio.h"
#include "lib/json.h"

#define CHECKPOINT_MAX	1000000u
#define CHECKPOINTS_MAX 2000 /* at once, as in a stored version */

/* ---- models ----------------------------------------------------------- */

static json_t *model_json(struct ctx *c, const json_t *meta,
			  const json_t *param)
{
	return json_pack("{s:s, s:O, s:O}", "module",
			 json_str_or(c->task, "module", ""), "meta",
			 (json_t *)meta, "param", (json_t *)param);
}

int ctx_put_same_model(struct ctx *c, const json_t *model, struct err *e)
{
	const json_t *o =
	    json_array_get(json_object_get(c->outputs, "model"), 0);
	const char *path;

	if (!o)
		return 0; /* not wired */
	if (json_get_str(o, "path", &path, e) < 0)
		return -e->no;
	return json_write_file(path, model, 0600, true, e);
}

int ctx_put_model(struct ctx *c, const json_t *meta, const json_t *param,
		  struct err *e)
{
	json_t *model = model_json(c, meta, param);
	int r = ctx_put_same_model(c, model, e);

	json_decref(model);
	return r;
}

const json_t *ctx_input_model(struct ctx *c, const char *key)
{
	const json_t *list =
	    json_object_get(json_object_get(c->inputs, "model"), key);
	const char *path = json_str_or(json_array_get(list, 0), "path", NULL);

	return path ? json_object_get(c->models, path) : NULL;
}

/* ---- checkpoints ------------------------------------------------------ */

static char *checkpoint_path(struct ctx *c, unsigned index)
{
	return xasprintf("%s/checkpoints/%u.json", c->dir, index);
}

static int compare_u(const void *a, const void *b)
{
	unsigned x = *(const unsigned *)a;
	unsigned y = *(const unsigned *)b;

	return (x > y) - (x < y);
}

int ctx_checkpoints(struct ctx *c, unsigned **ret, size_t *ret_n, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/checkpoints", c->dir);
	DIR *d = opendir(path);
	struct dirent *x;

	*ret = NULL;
	*ret_n = 0;
	if (!d)
		return errno == ENOENT ? 0 : err_sys(e, errno, "%s", path);
	while ((x = readdir(d))) {
		char *end;
		unsigned long v = strtoul(x->d_name, &end, 10);

		if (end == x->d_name || strcmp(end, ".json") != 0 ||
		    v > CHECKPOINT_MAX)
			continue;
		*ret = xrealloc(*ret, (*ret_n + 1) * sizeof(**ret));
		(*ret)[(*ret_n)++] = (unsigned)v;
	}
	closedir(d);
	if (*ret)
		qsort(*ret, *ret_n, sizeof(**ret), compare_u);
	return 0;
}

/* A training of many iterations does not fill the disk. */
static int drop_oldest(struct ctx *c, struct err *e)
{
	_cleanup_free_ unsigned *list = NULL;
	size_t n;
	int r = ctx_checkpoints(c, &list, &n, e);

	for (size_t i = 0; r >= 0 && i + CHECKPOINTS_MAX < n; i++) {
		_cleanup_free_ char *old = checkpoint_path(c, list[i]);

		if (unlink(old) && errno != ENOENT)
			r = err_sys(e, errno, "%s", old);
	}
	return r;
}

int ctx_put_checkpoint(struct ctx *c, unsigned index, const json_t *meta,
		       const json_t *param, const json_t *state, struct err *e)
{
	_cleanup_free_ char *dir = xasprintf("%s/checkpoints", c->dir);
	_cleanup_free_ char *path = checkpoint_path(c, index);
	json_t *o;
	int r = mkdir_p(dir, 0700, e);

	if (r < 0)
		return r;
	o = model_json(c, meta, param);
	if (state)
		json_object_set(o, "state", (json_t *)state);
	r = json_write_file(path, o, 0600, true, e);
	json_decref(o);
	if (!r && index >= CHECKPOINTS_MAX)
		r = drop_oldest(c, e);
	return r;
}

int ctx_get_checkpoint(struct ctx *c, unsigned index, json_t **ret,
		       struct err *e)
{
	_cleanup_free_ char *path = checkpoint_path(c, index);

	*ret = json_read_file(path, e);
	return *ret ? 0 : -e->no;
}

/* ---- curves ----------------------------------------------------------- */

/* What an earlier attempt wrote stays below the first x of this one: a task
 * that goes on from a checkpoint shows the whole curve. */
static int curve_begin(const char *path, double x, struct err *e)
{
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	char line[2 * NUM_MAX + 4];
	off_t keep = 0;

	if (!f)
		return errno == ENOENT ? 0 : err_sys(e, errno, "%s", path);
	while (fgets(line, sizeof(line), f) && strchr(line, '\n')) {
		char *end;
		double at = strtod(line, &end);

		if (end == line || *end != '\t' || !(at < x))
			break;
		keep += (off_t)strlen(line);
	}
	return truncate(path, keep) < 0 ? err_sys(e, errno, "%s", path) : 0;
}

int ctx_metric(struct ctx *c, const char *ns, const char *name, double x,
	       double y, struct err *e)
{
	_cleanup_free_ char *key = xasprintf("%s/%s", ns, name);
	_cleanup_free_ char *dir = xasprintf("%s/metrics/%s", c->dir, ns);
	_cleanup_free_ char *path = xasprintf("%s/%s.tsv", dir, name);
	bool begun = json_object_get(c->metrics, key) != NULL;
	char a[NUM_MAX], b[NUM_MAX], line[2 * NUM_MAX + 4];
	int fd, n, r;

	r = begun ? 0 : mkdir_p(dir, 0755, e);
	if (!begun && r >= 0)
		r = curve_begin(path, x, e);
	if (r < 0)
		return r;
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_sys(e, errno, "%s", path);
	(void)num_format(a, x);
	(void)num_format(b, y);
	n = snprintf(line, sizeof(line), "%s\t%s\n", a, isfinite(y) ? b : "");
	r = write_all(fd, line, (size_t)n);
	close(fd);
	json_object_set_new(c->metrics, key, json_true());
	return r < 0 ? err_sys(e, -r, "%s", path) : 0;
}
