// SPDX-License-Identifier: Apache-2.0
/*
 * The check of a job: defects, pointers and names, and the plan's frame.
 */
#include "scheduler/check.h"

#include <stdarg.h>

#include "scheduler/check_priv.h"

#define DEFECTS_MAX 65536 /* bytes of all lines */
#define HINTS_MAX   100	  /* defects that get a suggestion */
#define IGNORED_MAX 500	  /* lines */

const char *const check_roles[4] = { "guest", "host", "arbiter", "local" };

/* Nothing of a submission may begin a line of its own in a report, nor end
 * in the middle of a character. */
static void tidy(char *s)
{
	size_t n = strlen(s), tail = 0;

	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			s[i] = '?';
	while (tail < n && tail < 4 &&
	       ((unsigned char)s[n - 1 - tail] & 0xc0) == 0x80)
		tail++;
	if (tail < n) {
		unsigned char lead = (unsigned char)s[n - 1 - tail];
		size_t want = lead >= 0xf0   ? 3
			      : lead >= 0xe0 ? 2
			      : lead >= 0xc0 ? 1
					     : 0;

		if (tail < want)
			s[n - 1 - tail] = '\0';
	}
}

void defect_add(struct defects *d, int no, const char *pointer, const char *fmt,
		...)
{
	char text[900], at[sizeof(((struct at *)0)->s)];
	va_list ap;

	if (!d->text.max)
		sb_init(&d->text, DEFECTS_MAX);
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	(void)snprintf(at, sizeof(at), "%s", pointer);
	tidy(text);
	tidy(at);
	(void)sb_addf(&d->text, "%s: %s\n", at, text);
	d->n++;
	if (no == EACCES)
		d->policy = true;
	else if (no == EHOSTUNREACH)
		d->route = true;
	else
		d->content = true;
}

struct at at_root(const char *document)
{
	struct at a;

	(void)snprintf(a.s, sizeof(a.s), "%s", document);
	return a;
}

struct at at_add(const struct at *a, const char *step)
{
	struct at r = *a;
	size_t n = strlen(r.s),
	       end = MIN(n + 1 + 2 * NAME_MAX_LEN, sizeof(r.s) - 1);

	if (n < end)
		r.s[n++] = '/';
	for (; *step && n + 2 < end; step++) {
		if (*step == '~' || *step == '/') {
			r.s[n++] = '~';
			r.s[n++] = *step == '~' ? '0' : '1';
		} else {
			r.s[n++] = *step;
		}
	}
	r.s[n] = '\0';
	tidy(r.s);
	return r;
}

struct at at_index(const struct at *a, size_t i)
{
	char s[24];

	(void)snprintf(s, sizeof(s), "%zu", i);
	return at_add(a, s);
}

bool check_name_valid(const char *s)
{
	size_t n = strlen(s);

	return n >= 1 && n <= NAME_MAX_LEN &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			 "0123456789_-") == n;
}

const char *check_hint(struct check *c, const char *word, const json_t *names,
		       char *buf, size_t n)
{
	const char *all[COMPONENTS_MAX], *key, *near;
	size_t count = 0, i;
	json_t *v;

	buf[0] = '\0';
	if (c->d->n >= HINTS_MAX)
		return buf;
	if (json_is_object(names))
		json_object_foreach ((json_t *)names, key, v)
			if (count < ARRAY_SIZE(all))
				all[count++] = key;
	json_array_foreach (names, i, v)
		if (count < ARRAY_SIZE(all) && json_is_string(v))
			all[count++] = json_string_value(v);
	near = suggest(word, all, count);
	if (near)
		(void)snprintf(buf, n, " (did you mean %s?)", near);
	return buf;
}

void check_members(struct check *c, const json_t *o, const struct at *at,
		   const char *const *known)
{
	const char *key;
	json_t *v;

	json_object_foreach ((json_t *)o, key, v) {
		size_t i = 0;
		struct at here;
		const char *near;

		while (known[i] && strcmp(known[i], key))
			i++;
		if (known[i])
			continue;
		here = at_add(at, key);
		near = c->d->n < HINTS_MAX ? suggest(key, known, i) : NULL;
		if (near)
			defect_add(c->d, EINVAL, here.s,
				   "not known (did you mean %s?)", near);
		else
			defect_add(c->d, EINVAL, here.s, "not known");
	}
}

void ignored_add(json_t *list, const struct at *at, const char *why)
{
	char line[sizeof(at->s) + 200];

	if (json_array_size(list) >= IGNORED_MAX)
		return;
	(void)snprintf(line, sizeof(line), "%s: not used (%s)", at->s, why);
	(void)json_array_append_new(list, json_string(line));
}

bool list_has(const json_t *list, const char *word)
{
	const json_t *v;
	size_t i;

	json_array_foreach (list, i, v)
		if (json_is_string(v) && !strcmp(json_string_value(v), word))
			return true;
	return false;
}

void describe_complete(json_t *describe)
{
	json_t *m, *p;
	size_t i, k;

	json_array_foreach (json_object_get(describe, "components"), i, m) {
		json_t *params = json_object_get(m, "params");
		const json_t *in = json_object_get(m, "inputs");
		bool has = !json_array_size(json_object_get(in, "data"));

		json_array_foreach (params, k, p)
			has |= !strcmp(json_str_or(p, "name", ""), "need_run");
		if (!has && json_is_array(params))
			json_array_append_new(
			    params,
			    json_pack("{s:s, s:s, s:b, s:s}", "name",
				      "need_run", "type", "bool", "default", 1,
				      "help",
				      "false hands the rows on as they are"));
	}
}

bool plan_predicts(const json_t *plan)
{
	return !strcmp(
	    json_str_or(json_object_get(plan, "job"), "job_type", ""),
	    "predict");
}

static void drop_unsound(json_t *tasks, const json_t *unsound)
{
	for (size_t i = json_array_size(tasks); i-- > 0;)
		if (json_object_get(
			unsound,
			json_str_or(json_array_get(tasks, i), "component", "")))
			(void)json_array_remove(tasks, i);
}

json_t *check_plan(const json_t *dsl, const json_t *conf,
		   const json_t *describe, const char *own_party,
		   const char *party, struct defects *d, json_t **ret_rest)
{
	static const char *const dsl_members[] = { "components", "provider",
						   NULL };
	static const char *const conf_members[] = {
		"dsl_version",		"initiator", "role", "job_parameters",
		"component_parameters", "provider",  NULL
	};
	/* A copy: the plan refers to it, and is another thread's. */
	json_t *own = json_deep_copy(describe);
	struct check c = { .dsl = dsl,
			   .conf = conf,
			   .describe = own,
			   .own = own_party,
			   .party = party,
			   .d = d };
	struct at at_dsl = at_root("dsl#"), at_conf = at_root("conf#"), at;
	unsigned before = d->n;

	c.ignored = json_array();
	c.notes = json_array();
	c.specs = json_object();
	c.unsound = json_object();
	c.plan =
	    json_pack("{s:o, s:o}", "ignored", c.ignored, "notes", c.notes);
	describe_complete(own);
	if (!own || !c.plan || !c.specs || !c.unsound) {
		defect_add(d, EINVAL, "dsl#", "no memory for the check");
		goto out;
	}
	if (!json_is_object(dsl))
		defect_add(d, EINVAL, "dsl#", "expected an object");
	if (!json_is_object(conf))
		defect_add(d, EINVAL, "conf#", "expected an object");
	if (d->n > before)
		goto out;
	check_members(&c, dsl, &at_dsl, dsl_members);
	check_members(&c, conf, &at_conf, conf_members);
	if (json_object_get(dsl, "provider")) {
		at = at_add(&at_dsl, "provider");
		ignored_add(c.ignored, &at, "there is one engine");
	}
	if (json_object_get(conf, "provider")) {
		at = at_add(&at_conf, "provider");
		ignored_add(c.ignored, &at, "there is one engine");
	}
	check_head(&c);
	check_dsl(&c);
	check_components(&c);
out:
	drop_unsound(json_object_get(c.plan, "tasks"), c.unsound);
	json_decref(c.unsound);
	json_decref(c.specs);
	json_decref(own);
	if (d->n == before)
		return c.plan;
	if (ret_rest)
		*ret_rest = c.plan;
	else
		json_decref(c.plan);
	return NULL;
}
