// SPDX-License-Identifier: Apache-2.0
/*
 * From a trained version to one that predicts, at all parties: every party
 * makes it aside (prepare), then all rename it into place (commit); when one
 * refuses, nothing stays (drop).
 */
#include "scheduler/model_priv.h"

#include <sys/stat.h>
#include <time.h>

#include "lib/fileio.h"
#include "lib/log.h"
#include "lib/version.h"

#include "scheduler/check_priv.h"
#include "scheduler/engine.h"

#define DEPLOY_MS  5000 /* of one call */
#define YOUNG_S	   120	/* a version that may still be dropped */
#define STALE_S	   600	/* one that nobody will finish */
#define UNDONE_MAX 64	/* versions that are prepared at once */

/* ---- one party ------------------------------------------------------------
 */

struct deploy {
	struct sched *s;
	const char *id, *parent, *version;
	const json_t *dsl, *components;
	json_t *info, *conf;
};

static int none_of_yours(struct sched *s, struct err *e)
{
	return err_set(e, EACCES,
		       "party %s has no such model of yours, or it is not a "
		       "trained one",
		       s->party);
}

static bool initiated_by(const json_t *info, const char *party)
{
	return !strcmp(
	    json_str_or(json_object_get(info, "initiator"), "party", ""),
	    party);
}

/* Everything about a predict DSL that can be known without the tables. */
static void check_predict_dsl(struct sched *s, const json_t *dsl,
			      const json_t *info, const json_t *conf,
			      struct defects *d)
{
	const char *id = json_str_or(info, "model_id", "");
	const char *version = json_str_or(info, "model_version", "");
	bool own = initiated_by(info, s->party);
	json_t *blank = predict_template(conf, dsl, s->describe, id, version);
	json_t *merged = predict_conf_merge(conf, blank, dsl), *plan;

	/* Everybody has a part, whether it works or not. */
	json_object_set(merged, "role", json_object_get(conf, "role"));
	plan = check_plan(dsl, merged, s->describe, s->party,
			  own ? NULL : s->party, d, NULL);
	model_check_refs(dsl, merged, info, own, d);
	json_decref(plan);
	json_decref(merged);
	json_decref(blank);
}

/* Hard links: what is in the store never changes. */
static int link_file(const char *from, const char *to, const char *name,
		     const char *as, struct err *e)
{
	_cleanup_free_ char *a = xasprintf("%s/%s", from, name);
	_cleanup_free_ char *b = xasprintf("%s/%s", to, as);
	char *slash = strrchr(b, '/');
	int r;

	*slash = '\0';
	r = mkdir_p(b, 0700, e);
	*slash = '/';
	if (!r && link(a, b))
		r = err_sys(e, errno, "%s", name);
	return r;
}

/* Why there is no such checkpoint: which there are. */
static int no_checkpoint(const struct deploy *x, const char *from,
			 const char *member, const char *name, long long step,
			 struct err *e)
{
	_cleanup_free_ char *dir =
	    xasprintf("%s/%s/%s/checkpoints", from, member, name);
	_cleanup_closedir_ DIR *d = opendir(dir);
	const struct dirent *de;
	unsigned long n = 0, first = 0, last = 0, i;

	while (d && (de = readdir(d))) {
		if (de->d_name[0] < '0' || de->d_name[0] > '9')
			continue;
		i = strtoul(de->d_name, NULL, 10);
		first = n ? MIN(first, i) : i;
		last = MAX(last, i);
		n++;
	}
	if (!n)
		return err_set(e, ENOENT,
			       "party %s: %s has no checkpoint %lld, nor any "
			       "other (callback ModelCheckpoint makes them)",
			       x->s->party, name, step);
	return err_set(e, ENOENT,
		       "party %s: %s has no checkpoint %lld, but %lu from %lu "
		       "to %lu",
		       x->s->party, name, step, n, first, last);
}

static int link_component(struct deploy *x, const char *from, const char *to,
			  const json_t *one, struct err *e)
{
	static const char *const files[] = { "meta.json", "param.json" };
	const char *name = json_str_or(one, "name", "");
	int64_t step = json_int_or(one, "checkpoint", -1);
	const json_t *known =
	    json_object_get(json_object_get(x->info, "components"), name);
	json_t *role;
	size_t i, k;
	int r = 0;

	json_array_foreach (json_object_get(known, "roles"), i, role) {
		_cleanup_free_ char *member =
		    model_member(json_string_value(role), x->s->party);
		_cleanup_free_ char *dir = xasprintf("%s/%s", member, name);
		_cleanup_free_ char *source =
		    step < 0 ? xstrdup(dir)
			     : xasprintf("%s/checkpoints/%lld", dir,
					 (long long)step);

		for (k = 0; k < ARRAY_SIZE(files) && !r; k++) {
			_cleanup_free_ char *a =
			    xasprintf("%s/%s", source, files[k]);
			_cleanup_free_ char *b =
			    xasprintf("%s/%s", dir, files[k]);

			r = link_file(from, to, a, b, e);
			if (r == -ENOENT && step >= 0)
				r = no_checkpoint(x, from, member, name, step,
						  e);
		}
	}
	return r;
}

static int write_info(struct deploy *x, const char *dir, struct err *e)
{
	json_t *info = json_deep_copy(x->info), *all, *kept = json_object();
	_cleanup_free_ char *path = xasprintf("%s/info.json", dir);
	json_t *files = json_object(), *one;
	char when[40];
	size_t i;
	int r;

	all = json_object_get(info, "components");
	json_array_foreach ((json_t *)x->components, i, one) {
		const char *name = json_str_or(one, "name", "");
		json_t *c = json_object_get(all, name);

		if (!c)
			continue;
		if (json_int_or(one, "checkpoint", -1) >= 0)
			json_object_set(c, "checkpoint",
					json_object_get(one, "checkpoint"));
		json_object_set(kept, name, c);
	}
	json_object_set_new(info, "components", kept);
	json_object_set_new(info, "model_version", json_string(x->version));
	json_object_set_new(info, "parent", json_string(x->parent));
	json_object_set_new(info, "deployed", json_true());
	json_object_set_new(
	    info, "created",
	    json_string(time_rfc3339(when, sizeof(when), now_unix_ms())));
	json_object_set_new(info, "rollfs", json_string(rollfs_version()));
	json_object_set_new(info, "files", files);
	r = model_list_files(dir, files, e);
	if (!r)
		r = json_write_file(path, info, 0600, false, e);
	json_decref(info);
	return r;
}

static int fill(struct deploy *x, const char *dir, struct err *e)
{
	_cleanup_free_ char *from =
	    model_path(x->s->o.conf->state, x->id, x->parent);
	_cleanup_free_ char *predict = xasprintf("%s/predict", dir);
	_cleanup_free_ char *dsl = xasprintf("%s/dsl.json", predict);
	_cleanup_free_ char *blank =
	    xasprintf("%s/conf.template.json", predict);
	json_t *template, *one;
	size_t i;
	int r = mkdir_p(predict, 0700, e);

	if (!r)
		r = link_file(from, dir, "train/dsl.json", "train/dsl.json", e);
	if (!r)
		r = link_file(from, dir, "train/conf.json", "train/conf.json",
			      e);
	json_array_foreach ((json_t *)x->components, i, one)
		if (!r)
			r = link_component(x, from, dir, one, e);
	if (!r)
		r = json_write_file(dsl, x->dsl, 0600, false, e);
	if (r)
		return r;
	template = predict_template(x->conf, x->dsl, x->s->describe, x->id,
				    x->version);
	r = json_write_file(blank, template, 0600, false, e);
	json_decref(template);
	return r ? r : write_info(x, dir, e);
}

/* An initiator that dies, or means harm, does not fill our disk: what it has
 * left behind goes, and there is room for so many. */
static int room_aside(const char *state, struct err *e)
{
	_cleanup_free_ char *all = model_path(state, NULL, NULL);
	_cleanup_closedir_ DIR *d = opendir(all);
	const struct dirent *de;
	unsigned n = 0;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *dir = NULL, *info = NULL;
		struct stat st;

		if (strncmp(de->d_name, ".new-", 5) != 0)
			continue;
		dir = xasprintf("%s/%s", all, de->d_name);
		info = xasprintf("%s/info.json", dir);
		n++;
		if (!stat(info, &st) && time(NULL) - st.st_mtime > STALE_S) {
			(void)remove_tree(dir, NULL);
			n--;
		}
	}
	return n < UNDONE_MAX ? 0
			      : err_set(e, EBUSY,
					"deploy: too many versions are being "
					"made at once");
}

static int prepare_new(struct deploy *x, struct err *e)
{
	struct defects d = { 0 };
	_cleanup_free_ char *dir = NULL;
	bool own = initiated_by(x->info, x->s->party);
	int r = 0;

	sb_init(&d.text, 1u << 16);
	check_predict_dsl(x->s, x->dsl, x->info, x->conf, &d);
	if (d.n)
		r = own ? err_set(e, EINVAL, "%s", d.text.buf)
			: err_set(e, EINVAL,
				  "party %s cannot run this predict DSL",
				  x->s->party);
	sb_free(&d.text);
	if (r)
		return r;
	r = room_aside(x->s->o.conf->state, e);
	if (r)
		return r;
	dir = model_workshop(x->s->o.conf->state, x->version, e);
	if (!dir)
		return -e->no;
	r = fill(x, dir, e);
	if (!r)
		r = model_settle(dir, e);
	if (!r) /* said yes: it is there after a power cut, too */
		r = parent_sync(dir, e);
	if (r)
		(void)remove_tree(dir, NULL);
	return r;
}

static bool components_valid(const json_t *list)
{
	const json_t *one;
	size_t i;

	json_array_foreach ((json_t *)list, i, one)
		if (!check_name_valid(json_str_or(one, "name", "")))
			return false;
	return json_is_array(list) && json_array_size(list) <= COMPONENTS_MAX;
}

static int prepare(struct deploy *x, const char *caller, struct err *e)
{
	const char *state = x->s->o.conf->state;
	int r;

	if (!json_is_object(x->dsl) || !components_valid(x->components))
		return err_set(e, EINVAL, "deploy: not a predict DSL");
	if (model_exists(state, x->id, x->version))
		return err_set(e, EEXIST, "deploy: the version is there");
	x->info = model_info(state, x->id, x->parent, NULL);
	if (!x->info || !initiated_by(x->info, caller) ||
	    json_bool_or(x->info, "deployed", false)) {
		json_decref(x->info);
		return none_of_yours(x->s, e);
	}
	x->conf = model_read(state, x->id, x->parent, "train/conf.json", e);
	r = x->conf ? prepare_new(x, e) : -e->no;
	json_decref(x->conf);
	json_decref(x->info);
	return r;
}

static void tell(struct sched *s, const char *id, const char *version)
{
	if (s->o.models_changed)
		s->o.models_changed(s->o.arg, id, version);
}

static int commit(struct deploy *x, const char *caller, struct err *e)
{
	const char *state = x->s->o.conf->state;
	_cleanup_free_ char *dir =
	    xasprintf("%s/models/.new-%s", state, x->version);
	_cleanup_free_ char *path = xasprintf("%s/info.json", dir);
	json_t *info = json_read_file(path, NULL);
	bool right = initiated_by(info, caller) &&
		     !strcmp(json_str_or(info, "model_id", ""), x->id);
	int r;

	json_decref(info);
	if (!right && model_exists(state, x->id, x->version))
		return 0; /* the answer was lost */
	if (!right)
		return none_of_yours(x->s, e);
	r = model_publish(state, dir, x->id, x->version, e);
	if (!r)
		tell(x->s, x->id, x->version);
	return r;
}

/* Only what has just been made: an initiator does not rule over our store. */
static bool young(const char *dir)
{
	_cleanup_free_ char *path = xasprintf("%s/info.json", dir);
	struct stat st;

	return !stat(path, &st) && time(NULL) - st.st_mtime < YOUNG_S;
}

static int drop(struct deploy *x, const char *caller)
{
	const char *state = x->s->o.conf->state;
	_cleanup_free_ char *aside =
	    xasprintf("%s/models/.new-%s", state, x->version);
	_cleanup_free_ char *path = xasprintf("%s/info.json", aside);
	_cleanup_free_ char *dir = model_path(state, x->id, x->version);
	json_t *info = json_read_file(path, NULL);
	struct err e;

	if (initiated_by(info, caller))
		(void)remove_tree(aside, NULL);
	json_decref(info);
	info = model_info(state, x->id, x->version, NULL);
	if (json_bool_or(info, "deployed", false) &&
	    initiated_by(info, caller) && young(dir) &&
	    sched_model_remove(x->s, x->id, x->version, &e))
		log_warn("scheduler", "%s", e.text);
	json_decref(info);
	return 0;
}

/* Ids end with the party that makes them: nobody meets another's. */
static bool made_by(const char *version, const char *party)
{
	size_t n = strlen(version), m = strlen(party);

	return model_version_valid(version) && n == 20 + m &&
	       !strcmp(version + 20, party);
}

int deploy_step(struct sched *s, const char *caller, const json_t *body,
		struct err *e)
{
	const char *step = json_str_or(body, "step", "");
	struct deploy x = { .s = s,
			    .id = json_str_or(body, "model_id", ""),
			    .parent = json_str_or(body, "model_version", ""),
			    .version = json_str_or(body, "version", ""),
			    .dsl = json_object_get(body, "dsl"),
			    .components = json_object_get(body, "components") };

	if (!model_id_valid(x.id) || !model_version_valid(x.parent) ||
	    !made_by(x.version, caller))
		return err_set(e, EINVAL, "deploy: not a model's version");
	if (!strcmp(step, "prepare"))
		return prepare(&x, caller, e);
	if (!strcmp(step, "commit"))
		return commit(&x, caller, e);
	if (!strcmp(step, "drop"))
		return drop(&x, caller);
	return err_set(e, EINVAL, "deploy: no such step");
}

/* ---- all parties ----------------------------------------------------------
 */

struct round {
	pthread_mutex_t lock;
	pthread_cond_t answered;
	unsigned left, refs;
	struct err e; /* the first refusal */
};

static void round_put(struct round *a)
{
	bool last;

	pthread_mutex_lock(&a->lock);
	last = --a->refs == 0;
	pthread_mutex_unlock(&a->lock);
	if (!last)
		return;
	pthread_cond_destroy(&a->answered);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

static void on_answer(void *arg, int status, json_t *body, const struct err *e)
{
	struct round *a = arg;

	(void)body;
	pthread_mutex_lock(&a->lock);
	if (status && !a->e.no)
		err_set(&a->e, -status, "%s",
			*e->text ? e->text : strerror(-status));
	a->left--;
	pthread_cond_broadcast(&a->answered);
	pthread_mutex_unlock(&a->lock);
	round_put(a);
}

/* The same call to all partners; 0 when all said yes. */
static int ask_all(struct sched *s, const json_t *parties, json_t *body,
		   struct err *e)
{
	struct round *a = xcalloc(1, sizeof(*a));
	struct timespec until;
	json_t *v;
	size_t i;
	int r;

	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->answered, NULL);
	a->left = (unsigned)json_array_size(parties);
	a->refs = a->left + 1;
	json_array_foreach ((json_t *)parties, i, v)
		transfer_rpc(s->o.transfer, json_string_value(v), "deploy",
			     body, DEPLOY_MS, on_answer, a);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += DEPLOY_MS / 1000 + 1;
	pthread_mutex_lock(&a->lock);
	while (a->left && pthread_cond_timedwait(&a->answered, &a->lock,
						 &until) != ETIMEDOUT)
		;
	if (a->left && !a->e.no)
		err_set(&a->e, ETIMEDOUT, "a party has not answered");
	r = a->e.no ? err_set(e, a->e.no, "%s", a->e.text) : 0;
	pthread_mutex_unlock(&a->lock);
	round_put(a);
	return r;
}

static json_t *partners(const struct sched *s, const json_t *info)
{
	json_t *roles = json_object_get(info, "roles"), *list, *v;
	json_t *ret = json_array();
	const char *role;
	size_t i;

	json_object_foreach (roles, role, list)
		json_array_foreach (list, i, v) {
			const char *party = json_string_value(v);

			if (party && strcmp(party, s->party) != 0 &&
			    !list_has(ret, party))
				json_array_append(ret, v);
		}
	return ret;
}

static int everywhere(struct sched *s, const json_t *info, json_t *body,
		      const char *step, struct err *e)
{
	json_t *parties = partners(s, info);
	int r;

	json_object_set_new(body, "step", json_string(step));
	/* Here last: what is here can be used. */
	r = ask_all(s, parties, body, e);
	if (!r)
		r = deploy_step(s, s->party, body, e);
	json_decref(parties);
	return r;
}

static void drop_all(struct sched *s, const json_t *info, json_t *body)
{
	json_t *parties = partners(s, info);
	struct err e = { 0 };

	json_object_set_new(body, "step", json_string("drop"));
	(void)ask_all(s, parties, body, &e);
	if (deploy_step(s, s->party, body, &e))
		log_warn("scheduler", "%s", e.text);
	json_decref(parties);
}

static int deploy_all(struct sched *s, const json_t *info, json_t *body,
		      struct err *e)
{
	json_t *parties;
	int r;

	json_object_set_new(body, "step", json_string("prepare"));
	r = deploy_step(s, s->party, body, e);
	if (!r) {
		parties = partners(s, info);
		r = ask_all(s, parties, body, e);
		json_decref(parties);
	}
	if (!r)
		r = everywhere(s, info, body, "commit", e);
	if (!r)
		return 0;
	drop_all(s, info, body);
	return r;
}

/* ---- after a death ---------------------------------------------------------
 */

struct unfinished {
	struct sched *s;
	json_t *info;
	char *dir;
};

static void unfinished_free(struct unfinished *x)
{
	json_decref(x->info);
	free(x->dir);
	free(x);
}

/* Parties that had said yes may have made it: then all do.  One that had not
 * says no. */
static void *finish_thread(void *arg)
{
	struct unfinished *x = arg;
	const char *id = json_str_or(x->info, "model_id", "");
	const char *version = json_str_or(x->info, "model_version", "");
	json_t *body =
	    json_pack("{s:s, s:s, s:s}", "model_id", id, "model_version",
		      json_str_or(x->info, "parent", ""), "version", version);
	bool tried = false;

	while (!x->s->stopping && !access(x->dir, F_OK)) {
		struct err e = { 0 };
		int r = everywhere(x->s, x->info, body, "commit", &e);

		if (!tried || !r)
			log_info("scheduler",
				 "model %s: the deploy of %s goes on: %s", id,
				 version, r ? e.text : "done");
		tried = true;
		if (r == -EACCES || r == -EINVAL) {
			drop_all(x->s, x->info, body);
			break;
		}
		if (r)
			sched_pause(x->s, DEPLOY_MS);
	}
	json_decref(body);
	unfinished_free(x);
	return NULL;
}

bool deploy_prepared(struct sched *s, const char *dir)
{
	_cleanup_free_ char *path = xasprintf("%s/info.json", dir);
	json_t *info = json_read_file(path, NULL);
	bool ours = initiated_by(info, s->party);
	struct unfinished *x;
	struct err e;

	if (!json_bool_or(info, "deployed", false) ||
	    model_verify(dir, info, &e)) {
		json_decref(info);
		return false;
	}
	x = xcalloc(1, sizeof(*x));
	*x = (struct unfinished){ s, info, xstrdup(dir) };
	if (!ours || sched_thread(s, 256u << 10, finish_thread, x))
		unfinished_free(x);
	return true;
}

/* ---- the line --------------------------------------------------------------
 */

#define USAGE "deploy [COMPONENT[:checkpoint-N] ...] [dsl [TEXT]]"

static int deploy(struct sched *s, const json_t *info, char *line,
		  const char *stored, struct err *e)
{
	const char *id = json_str_or(info, "model_id", "");
	const char *parent = json_str_or(info, "model_version", "");
	struct deploy_order o = { 0 };
	char version[64];
	json_t *body;
	int r = deploy_order_read(s, info, line, stored, &o, e);

	if (r)
		return r;
	sched_new_id(s, version, sizeof(version));
	body = json_pack("{s:s, s:s, s:s, s:o, s:o}", "model_id", id,
			 "model_version", parent, "version", version, "dsl",
			 o.dsl, "components", o.components);
	r = deploy_all(s, info, body, e);
	json_decref(body);
	if (!r && o.own && !unlink(stored))
		tell(s, id, parent);
	return r;
}

/* ---- what the mount asks ---------------------------------------------------
 */

/* The info of a trained version of ours; NULL and why. */
static json_t *trained(struct sched *s, const char *id, const char *version,
		       const char *what, struct err *e)
{
	json_t *info = model_info(s->o.conf->state, id, version, e);
	const json_t *first = json_object_get(info, "initiator");

	if (!info)
		return NULL;
	if (!initiated_by(info, s->party))
		err_set(e, EPERM,
			"%s: only the initiator of the training may, party %s "
			"(%s): on its mount it is made at every party",
			what, json_str_or(first, "party", "?"),
			json_str_or(first, "role", "?"));
	else if (json_bool_or(info, "deployed", false))
		err_set(e, EPERM,
			"%s: this version is a deployed one; its parent is %s",
			what, json_str_or(info, "parent", "?"));
	else
		return info;
	json_decref(info);
	return NULL;
}

int sched_model_ctl(struct sched *s, const char *id, const char *version,
		    const char *line, struct err *e)
{
	_cleanup_free_ char *copy = xstrdup(line), *dir = NULL, *stored = NULL;
	char *rest = copy, *verb;
	json_t *info;
	int r;

	for (char *c = copy; *c; c++)
		if (*c == '\n' || *c == '\r')
			*c = ' ';
	verb = strtok_r(rest, " \t", &rest);
	if (!verb)
		return err_set(e, EINVAL, "ctl: an empty line (" USAGE ")");
	if (strcmp(verb, "deploy") != 0)
		return err_set(e, EINVAL, "ctl: no verb \"%.100s\" (" USAGE ")",
			       verb);
	info = trained(s, id, version, "deploy", e);
	if (!info)
		return -e->no;
	dir = model_path(s->o.conf->state, id, version);
	stored = xasprintf("%s/%s", dir, MODEL_DSL_PATH);
	r = deploy(s, info, rest, stored, e);
	json_decref(info);
	return r;
}

static int check_text(struct sched *s, const char *dir, const json_t *info,
		      json_t *dsl, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/train/conf.json", dir);
	struct defects d = { 0 };
	json_t *conf = json_read_file(path, e);
	int r = 0;

	if (!conf)
		return -e->no;
	sb_init(&d.text, 1u << 16);
	check_predict_dsl(s, dsl, info, conf, &d);
	if (d.n)
		r = err_set(e, EINVAL, "%s", d.text.buf);
	sb_free(&d.text);
	json_decref(conf);
	return r;
}

int sched_model_set_dsl(struct sched *s, const char *id, const char *version,
			const char *text, size_t n, struct err *e)
{
	_cleanup_free_ char *dir = model_path(s->o.conf->state, id, version);
	_cleanup_free_ char *predict = xasprintf("%s/predict", dir);
	_cleanup_free_ char *path = xasprintf("%s/dsl.json", predict);
	json_t *info = trained(s, id, version, "predict/dsl.json", e), *dsl;
	int r = 0;

	if (!info)
		return -e->no;
	if (!n) {
		if (unlink(path) && errno != ENOENT)
			r = err_sys(e, errno, "predict/dsl.json");
		(void)rmdir(predict);
	} else {
		dsl = json_parse(text, n, e);
		if (dsl)
			dsl = deploy_dsl_unwrap(dsl);
		r = dsl ? check_text(s, dir, info, dsl, e) : -e->no;
		if (!r)
			r = mkdir_p_durable(predict, 0700, e);
		if (!r)
			r = json_write_file(path, dsl, 0600, true, e);
		json_decref(dsl);
	}
	json_decref(info);
	if (!r)
		tell(s, id, version);
	return r;
}

void deploy_dsl_take(struct sched *s, const char *dir, const json_t *info)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", dir, MODEL_DSL_PATH);
	struct err e = { 0 };
	json_t *dsl;
	int r = 0;

	if (access(path, F_OK))
		return;
	dsl = json_read_file(path, &e);
	if (dsl)
		dsl = deploy_dsl_unwrap(dsl);
	if (!dsl)
		r = -e.no;
	else if (!s || !initiated_by(info, s->party))
		r = err_set(&e, EPERM,
			    "only the initiator of the training may");
	else
		r = check_text(s, dir, info, dsl, &e);
	if (!r)
		r = json_write_file(path, dsl, 0600, false, &e);
	json_decref(dsl);
	if (!r)
		return;
	log_warn("scheduler", "model %s %s: %s is left out: %s",
		 json_str_or(info, "model_id", ""),
		 json_str_or(info, "model_version", ""), MODEL_DSL_PATH,
		 e.text);
	(void)unlink(path);
}

int sched_model_remove(struct sched *s, const char *id, const char *version,
		       struct err *e)
{
	const char *state = s->o.conf->state;
	_cleanup_free_ char *dir = NULL, *all = NULL, *gone = NULL;
	int r = 0;

	if (!model_exists(state, id, version))
		return err_set(e, ENOENT, "no version %.60s of that model",
			       version);
	dir = model_path(state, id, version);
	all = model_path(state, id, NULL);
	gone = xasprintf("%s/models/.gone-%s", state, version);
	pthread_mutex_lock(&s->lock);
	if (model_in_use(s, id, version))
		r = err_set(e, EBUSY, "version %s is used by a job that runs",
			    version);
	else if (rename(dir, gone))
		r = err_sys(e, errno, "%s", version);
	pthread_mutex_unlock(&s->lock);
	/* It goes as a whole: its files after its name. */
	if (!r)
		r = dir_sync(all, e);
	if (r)
		return r;
	(void)rmdir(all); /* when it was the last */
	(void)remove_tree(gone, NULL);
	tell(s, id, version);
	return 0;
}
