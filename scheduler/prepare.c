// SPDX-License-Identifier: Apache-2.0
/* From text to a job: everything that can be known is checked, here and at
 * the partners, before anything is made. */
#include <time.h>

#include "lib/fileio.h"
#include "lib/json.h"
#include "lib/log.h"

#include "scheduler/check_priv.h"
#include "scheduler/engine.h"
#include "scheduler/model_priv.h"

#define CHECK_MS 4500 /* of the partners; 5 s in all */

struct asking {
	char *party;
	bool answered;
	int status;
	char *error;
	json_t *body;
};

struct preparing {
	struct preparing *next;
	struct sched *s;
	uint64_t number;
	char *text;
	size_t n;
	sched_prepare_cb cb;
	void *arg;
	bool cancelled;
	unsigned refs;
	struct asking *asks;
	size_t n_asks, left;
	pthread_cond_t answered;
};

/* ---- what only this party knows ------------------------------------------ */

static int lower(int c)
{
	return c >= 'A' && c <= 'Z' ? c + 32 : c;
}

static bool same_word(const char *a, const char *b)
{
	while (*a && lower(*a) == lower(*b)) {
		a++;
		b++;
	}
	return !*a && !*b;
}

static const char *party_text(const json_t *v, char *buf, size_t n)
{
	if (json_is_integer(v))
		(void)snprintf(buf, n, "%lld",
			       (long long)json_integer_value(v));
	else
		(void)snprintf(buf, n, "%s",
			       json_is_string(v) ? json_string_value(v) : "");
	return buf;
}

struct table_use {
	struct sched *s;
	const char *allow; /* rules for the initiator; NULL = it is us */
	struct defects *d;
};

struct nearest {
	const char *names[256];
	size_t n;
};

static int collect(void *arg, const char *name)
{
	struct nearest *x = arg;

	if (x->n < ARRAY_SIZE(x->names))
		x->names[x->n++] = xstrdup(name);
	return 0;
}

/* Our own submitter may be told what there is; a partner never. */
static void own_table_missing(struct table_use *u, const char *pointer,
			      const char *ns, const char *name)
{
	struct nearest x = { .n = 0 };
	const char *near = NULL;
	struct table_id id;

	if (!table_lookup(u->s->o.tables, ns, name, &id, NULL)) {
		defect_add(u->d, id.gen ? EACCES : EINVAL, pointer,
			   id.gen ? "table %s/%s is hidden from components: "
				    "chmod a+r it"
				  : "table %s/%s is empty: its data.csv has "
				    "not been written",
			   ns, name);
		return;
	}
	if (!table_list(u->s->o.tables, ns, collect, &x, NULL))
		near = suggest(name, x.names, x.n);
	defect_add(u->d, EINVAL, pointer, "no table %s/%s%s%s%s", ns, name,
		   near ? " (did you mean " : "", near ? near : "",
		   near ? "?)" : "");
	for (size_t i = 0; i < x.n; i++)
		free((char *)x.names[i]);
}

static void check_table(struct table_use *u, const char *pointer,
			const json_t *table)
{
	const char *ns = json_str_or(table, "namespace", NULL);
	const char *name = json_str_or(table, "name", NULL);
	_cleanup_free_ char *both = NULL;
	struct table_id id;
	bool there;

	if (!ns || !name)
		return; /* check_plan says what is wrong with it */
	there = !table_lookup(u->s->o.tables, ns, name, &id, NULL) && id.gen &&
		!table_hidden(u->s->o.tables, ns, name, NULL);
	both = xasprintf("%s/%s", ns, name);
	if (!u->allow) {
		if (!there)
			own_table_missing(u, pointer, ns, name);
	} else if (!there || !allow_permits(u->allow, "table", both)) {
		/* Absent and withheld look the same. */
		defect_add(u->d, EINVAL, pointer,
			   "party %s has no such table, or does not allow it",
			   u->s->party);
	}
}

/* Where the table of a Reader of ours is given. */
static char *table_pointer(const json_t *conf, const char *role, size_t index,
			   const char *name)
{
	const json_t *sections = json_object_get(
	    json_object_get(json_object_get(conf, "component_parameters"),
			    "role"),
	    role);
	const char *selector, *last = NULL;
	json_t *section;

	json_object_foreach ((json_t *)sections, selector, section)
		if (conf_selector_valid(selector) &&
		    conf_selector_has(selector, index) &&
		    json_object_get(json_object_get(section, name), "table"))
			last = selector;
	return last ? xasprintf("conf#/component_parameters/role/%s/%s/%s/"
				"table",
				role, last, name)
		    : xasprintf("conf#/component_parameters/common/%s/table",
				name);
}

/* The table parameter of every Reader of ours: as its task gets it, which may
 * be put together from several sections. */
static void check_tables(struct table_use *u, const json_t *dsl,
			 const json_t *conf)
{
	json_t *components = json_object_get(dsl, "components"), *c;
	json_t *roles = json_object_get(conf, "role"), *list, *p;
	const char *name, *role;
	char buf[32];
	size_t i;

	json_object_foreach (roles, role, list)
		json_array_foreach (list, i, p) {
			if (strcmp(party_text(p, buf, sizeof(buf)),
				   u->s->party))
				continue;
			json_object_foreach (components, name, c) {
				_cleanup_free_ char *at = NULL;
				json_t *params;

				if (!same_word(json_str_or(c, "module", ""),
					       "reader"))
					continue;
				params = conf_params(conf, role, i, name);
				at = table_pointer(conf, role, i, name);
				check_table(u, at,
					    json_object_get(params, "table"));
				json_decref(params);
			}
		}
}

static void check_policy(struct sched *s, const json_t *dsl, const json_t *conf,
			 const char *allow, struct defects *d)
{
	json_t *components = json_object_get(dsl, "components"), *c;
	json_t *roles = json_object_get(conf, "role"), *list, *p;
	const char *name, *role;
	char buf[32];
	size_t i;

	json_object_foreach (roles, role, list)
		json_array_foreach (list, i, p) {
			_cleanup_free_ char *at = NULL;

			if (strcmp(party_text(p, buf, sizeof(buf)), s->party) ||
			    allow_permits(allow, "role", role))
				continue;
			at = xasprintf("conf#/role/%s/%zu", role, i);
			defect_add(d, EACCES, at,
				   "party %s does not allow this role",
				   s->party);
		}
	json_object_foreach (components, name, c) {
		const char *module = json_str_or(c, "module", "");
		_cleanup_free_ char *at =
		    xasprintf("dsl#/components/%s/module", name);
		const json_t *known = NULL;
		const char *real = module;
		json_t *v;

		json_object_foreach (s->modules, real, v)
			if (same_word(real, module))
				known = v;
		if (!allow_permits(allow, "module",
				   known ? json_str_or(known, "module", "")
					 : module))
			defect_add(d, EACCES, at,
				   "party %s does not allow this module",
				   s->party);
	}
}

unsigned cores_needed(struct sched *s, const json_t *plan)
{
	json_t *job = json_object_get(plan, "job");
	json_t *roles = json_object_get(plan, "roles"), *list, *p;
	int64_t each = json_int_or(job, "task_cores", 1);
	int64_t at_once = json_int_or(job, "task_parallelism", 1), need = 0;
	const char *role;
	size_t i;

	each = MIN(each, (int64_t)s->o.conf->cores);
	json_object_foreach (roles, role, list)
		json_array_foreach (list, i, p)
			if (!strcmp(json_string_value(p), s->party) &&
			    strcmp(role, "arbiter"))
				need += each * at_once;
	return (unsigned)MIN(need, (int64_t)s->o.conf->cores);
}

static void check_cores(struct sched *s, const json_t *conf, struct defects *d)
{
	json_t *common =
	    json_object_get(json_object_get(conf, "job_parameters"), "common");
	int64_t each = json_int_or(common, "task_cores", 0);
	json_t *roles = json_object_get(conf, "role"), *list, *p;
	int64_t at_once = json_int_or(common, "task_parallelism", 1), need = 0;
	const char *role;
	char buf[32];
	size_t i;

	json_object_foreach (roles, role, list)
		json_array_foreach (list, i, p)
			if (!strcmp(party_text(p, buf, sizeof(buf)),
				    s->party) &&
			    strcmp(role, "arbiter"))
				need += each * at_once;
	if (need > (int64_t)s->o.conf->cores)
		defect_add(d, EINVAL, "conf#/job_parameters/common/task_cores",
			   "the job needs %lld cores at party %s, which has %u",
			   (long long)need, s->party, s->o.conf->cores);
}

void check_local(struct sched *s, const json_t *dsl, const json_t *conf,
		 const char *initiator, struct defects *d)
{
	bool own = !strcmp(initiator, s->party);
	_cleanup_free_ char *allow =
	    own ? NULL : party_allow(s->o.conf, initiator);
	struct table_use u = { .s = s, .d = d };

	if (!own && !allow)
		allow = xstrdup("");
	u.allow = allow;
	check_tables(&u, dsl, conf);
	model_check(s, dsl, conf, initiator, d);
	inherit_check(s, dsl, conf, initiator, d);
	check_cores(s, conf, d);
	if (!own)
		check_policy(s, dsl, conf, allow, d);
}

/* ---- rules of the components -----------------------------------------------
 */

static void check_rules(struct sched *s, const json_t *plan, const json_t *conf,
			struct defects *d)
{
	json_t *q, *tasks, *t, *x, *answer;
	_cleanup_free_ char *text = NULL;
	struct err e = { 0 };
	size_t i;

	if (!json_array_size(json_object_get(plan, "tasks")))
		return;
	q = json_object();
	tasks = json_array();
	json_array_foreach (json_object_get(plan, "tasks"), i, t) {
		json_t *one = json_copy(t);

		json_object_set(one, "roles", json_object_get(plan, "roles"));
		json_array_append_new(tasks, one);
	}
	json_object_set_new(q, "tasks", tasks);
	text = json_text(q, false);
	answer = task_ask(s->o.task_program, "--check", text, &e);
	if (!answer)
		defect_add(d, EINVAL, "dsl#",
			   "the parameters could not be "
			   "checked: %s",
			   e.text);
	json_array_foreach (json_object_get(answer, "defects"), i, x) {
		t = json_array_get(json_object_get(plan, "tasks"),
				   (size_t)json_int_or(x, "task", 0));
		if (t) {
			_cleanup_free_ char *at = check_param_pointer(
			    conf, t, json_str_or(x, "pointer", ""));
			const char *say = json_str_or(x, "text", "refused");

			/* Once for all the tasks it is true of. */
			{
				_cleanup_free_ char *line =
				    xasprintf("%s: %s\n", at, say);

				if (!at || strstr(d->text.buf, line))
					continue;
			}
			defect_add(d, EINVAL, at, "%s", say);
		}
	}
	json_decref(answer);
	json_decref(q);
}

/* ---- the partners
 * ------------------------------------------------------------ */

static void put_ref(struct preparing *p)
{
	bool last;

	pthread_mutex_lock(&p->s->lock);
	last = --p->refs == 0;
	pthread_mutex_unlock(&p->s->lock);
	if (!last)
		return;
	for (size_t i = 0; i < p->n_asks; i++) {
		free(p->asks[i].party);
		free(p->asks[i].error);
		json_decref(p->asks[i].body);
	}
	pthread_cond_destroy(&p->answered);
	free(p->asks);
	free(p->text);
	free(p);
}

struct one_ask {
	struct preparing *p;
	size_t i;
};

static void on_check(void *arg, int status, json_t *body, const struct err *e)
{
	struct one_ask *x = arg;
	struct preparing *p = x->p;

	pthread_mutex_lock(&p->s->lock);
	p->asks[x->i].answered = true;
	p->asks[x->i].status = status;
	p->asks[x->i].body = json_deep_copy(body);
	p->asks[x->i].error = xstrdup(status ? e->text : "");
	p->left--;
	pthread_cond_broadcast(&p->answered);
	pthread_mutex_unlock(&p->s->lock);
	put_ref(p);
	free(x);
}

static void ask_partners(struct preparing *p, const json_t *dsl,
			 const json_t *conf)
{
	json_t *roles = json_object_get(conf, "role"), *list, *v;
	const char *role;
	char buf[32];
	size_t i;

	json_object_foreach (roles, role, list)
		json_array_foreach (list, i, v) {
			const char *party = party_text(v, buf, sizeof(buf));
			bool known = !strcmp(party, p->s->party) ||
				     !party_id_valid(party);

			for (size_t k = 0; k < p->n_asks && !known; k++)
				known = !strcmp(p->asks[k].party, party);
			if (known)
				continue;
			p->asks = xrealloc(p->asks,
					   (p->n_asks + 1) * sizeof(*p->asks));
			p->asks[p->n_asks++] =
			    (struct asking){ .party = xstrdup(party) };
		}
	p->left = p->n_asks;
	for (i = 0; i < p->n_asks; i++) {
		struct one_ask *x = xcalloc(1, sizeof(*x));
		json_t *body =
		    json_pack("{s:O, s:o}", "dsl", (json_t *)dsl, "conf",
			      conf_slice(conf, p->asks[i].party));

		*x = (struct one_ask){ p, i };
		pthread_mutex_lock(&p->s->lock);
		p->refs++;
		pthread_mutex_unlock(&p->s->lock);
		transfer_rpc(p->s->o.transfer, p->asks[i].party, "check", body,
			     CHECK_MS, on_check, x);
		json_decref(body);
	}
}

/* Where the conf names the party. */
static char *role_pointer(const json_t *conf, const char *party)
{
	json_t *roles = json_object_get(conf, "role"), *list, *v;
	const char *role;
	char buf[32];
	size_t i;

	json_object_foreach (roles, role, list)
		json_array_foreach (list, i, v)
			if (!strcmp(party_text(v, buf, sizeof(buf)), party))
				return xasprintf("conf#/role/%s/%zu", role, i);
	return xstrdup("conf#/role");
}

/* A partner's lines, each "pointer: sentence", bounded and printable. */
static void take_lines(struct defects *d, const json_t *body)
{
	const char *text = json_str_or(body, "defects", "");
	bool policy = json_bool_or(body, "policy", false) &&
		      !json_bool_or(body, "content", false);

	for (int lines = 0; *text && lines < 100; lines++) {
		size_t n = strcspn(text, "\n");
		_cleanup_free_ char *line = strndup(text, MIN(n, (size_t)500));
		char *colon = line ? strstr(line, ": ") : NULL;

		if (colon) {
			*colon = '\0';
			for (char *c = colon + 2; *c; c++)
				if ((unsigned char)*c < ' ')
					*c = ' ';
			defect_add(d, policy ? EACCES : EINVAL, line, "%s",
				   colon + 2);
		}
		text += n + (text[n] == '\n');
	}
}

static void hear_partners(struct preparing *p, const json_t *conf,
			  struct defects *d)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 5;
	pthread_mutex_lock(&p->s->lock);
	while (p->left && !p->cancelled &&
	       pthread_cond_timedwait(&p->answered, &p->s->lock, &until) !=
		   ETIMEDOUT)
		;
	for (size_t i = 0; i < p->n_asks; i++) {
		const struct asking *a = &p->asks[i];
		_cleanup_free_ char *at = role_pointer(conf, a->party);

		if (!a->answered)
			defect_add(d, EHOSTUNREACH, at,
				   "party %s: no answer within 5 s", a->party);
		else if (a->status == -EACCES)
			defect_add(d, EACCES, at, "party %s: not allowed",
				   a->party);
		else if (a->status)
			defect_add(d, EHOSTUNREACH, at, "%s%s%s",
				   strstr(a->error, "party ") ? "" : "party ",
				   strstr(a->error, "party ") ? "" : a->party,
				   strstr(a->error, "party ") ? a->error
							      : ": no route");
		else
			take_lines(d, a->body);
	}
	pthread_mutex_unlock(&p->s->lock);
}

/* ---- prepare
 * --------------------------------------------------------------------- */

static int check_all(struct preparing *p, struct dsl_docs *docs,
		     struct defects *d, json_t **ret_plan)
{
	struct sched *s = p->s;
	struct err e = { 0 };
	int r = dsl_parse(p->text, p->n, docs, &e);
	json_t *rest = NULL;
	bool given;

	if (r <= 0) {
		defect_add(d, EINVAL, "text", "%s",
			   r ? e.text : "the submission is unfinished");
		return -EINVAL;
	}
	given = docs->dsl != NULL;
	if (!model_expand(s, &docs->dsl, &docs->conf, d))
		return -EINVAL;
	ask_partners(p, docs->dsl, docs->conf);
	*ret_plan = check_plan(docs->dsl, docs->conf, s->describe, s->party,
			       NULL, d, &rest);
	if (*ret_plan && given && plan_predicts(*ret_plan))
		json_array_append_new(
		    json_object_get(*ret_plan, "ignored"),
		    json_string("dsl#: not used (a predict job runs the DSL "
				"of its model)"));
	check_local(s, docs->dsl, docs->conf, s->party, d);
	check_rules(s, *ret_plan ? *ret_plan : rest, docs->conf, d);
	json_decref(rest);
	hear_partners(p, docs->conf, d);
	return !d->n	    ? 0
	       : d->content ? -EINVAL
	       : d->policy  ? -EACCES
			    : -EHOSTUNREACH;
}

static void *prepare_thread(void *arg)
{
	struct preparing *p = arg, **q;
	struct sched *s = p->s;
	struct sched_draft *draft = NULL;
	struct dsl_docs docs = { 0 };
	struct defects d = { 0 };
	json_t *plan = NULL;
	bool cancelled;
	int r;

	sb_init(&d.text, 1u << 20);
	r = check_all(p, &docs, &d, &plan);
	if (!r) {
		draft = xcalloc(1, sizeof(*draft));
		draft->dsl = json_incref(docs.dsl);
		draft->conf = json_incref(docs.conf);
		draft->plan = json_incref(plan);
	}
	json_decref(plan);
	dsl_docs_free(&docs);
	pthread_mutex_lock(&s->lock);
	for (q = &s->preparing; *q && *q != p; q = &(*q)->next)
		;
	if (*q)
		*q = p->next;
	cancelled = p->cancelled;
	pthread_mutex_unlock(&s->lock);
	if (cancelled)
		sched_draft_free(draft);
	else
		p->cb(p->arg, r, draft, d.text.buf);
	sb_free(&d.text);
	put_ref(p);
	return NULL;
}

uint64_t sched_prepare(struct sched *s, const char *text, size_t n,
		       sched_prepare_cb cb, void *arg)
{
	struct preparing *p = xcalloc(1, sizeof(*p));
	uint64_t number;

	p->s = s;
	p->text = xmalloc(n + 1);
	memcpy(p->text, text, n);
	p->text[n] = '\0';
	p->n = n;
	p->cb = cb;
	p->arg = arg;
	p->refs = 1;
	pthread_cond_init(&p->answered, NULL);
	pthread_mutex_lock(&s->lock);
	number = p->number = ++s->next_number;
	p->next = s->preparing;
	s->preparing = p;
	pthread_mutex_unlock(&s->lock);
	if (sched_thread(s, 1u << 20, prepare_thread, p))
		prepare_thread(p);
	return number;
}

void sched_prepare_stop(struct sched *s)
{
	for (struct preparing *p = s->preparing; p; p = p->next) {
		p->cancelled = true;
		pthread_cond_broadcast(&p->answered);
	}
}

bool sched_prepare_cancel(struct sched *s, uint64_t number)
{
	bool found = false;

	pthread_mutex_lock(&s->lock);
	for (struct preparing *p = s->preparing; p; p = p->next)
		if (p->number == number) {
			p->cancelled = found = true;
			pthread_cond_broadcast(&p->answered);
		}
	pthread_mutex_unlock(&s->lock);
	return found;
}

void sched_draft_free(struct sched_draft *d)
{
	if (!d)
		return;
	json_decref(d->dsl);
	json_decref(d->conf);
	json_decref(d->plan);
	free(d);
}
