// SPDX-License-Identifier: Apache-2.0
/* What a party may do here: the rules of its allow file. */
#include <ctype.h>

#include "lib/conf_priv.h"

/* One rule, split into its kind and what it names. */
struct rule {
	const char *kind, *what;
	size_t kind_len, what_len;
};

/* How many transfers one party may ever have under way. */
#define TRANSFERS_MAX 65535

static const struct limit {
	const char *name;
	uint64_t min, max;
} limits[] = {
	{ "size", 1, INT64_MAX },	   { "quota", 1, INT64_MAX },
	{ "rate", 1, INT64_MAX },	   { "floor", 0, INT64_MAX },
	{ "transfers", 1, TRANSFERS_MAX },
};

/* The next line: 1 = a rule, 0 = blank or comment, -EINVAL = not a rule. */
static int next_rule(const char **text, struct rule *ret)
{
	static const char blank[] = " \t\r";
	const char *line = *text;
	size_t n = strcspn(line, "\n");
	const char *end = line + n;

	*text = line[n] ? end + 1 : end;
	line += strspn(line, blank);
	if (line >= end || *line == '#')
		return 0;
	while (end > line && strchr(blank, end[-1]))
		end--;
	*ret = (struct rule){ .kind = line };
	while (line < end && !strchr(blank, *line))
		line++;
	ret->kind_len = (size_t)(line - ret->kind);
	while (line < end && strchr(blank, *line))
		line++;
	ret->what = line;
	/* What may hold blanks only as part of a table's name; a comment
	 * behind the rule ends it. */
	for (const char *p = line; p < end; p++)
		if (*p == '#' && strchr(blank, p[-1])) {
			end = p;
			while (end > line && strchr(blank, end[-1]))
				end--;
			break;
		}
	ret->what_len = (size_t)(end - line);
	return ret->what_len ? 1 : -EINVAL;
}

static bool is(const char *s, size_t n, const char *word)
{
	return n == strlen(word) && !memcmp(s, word, n);
}

/* Digits, then K, M, G or T: powers of 1024. */
static bool amount(const char *s, size_t n, uint64_t *ret)
{
	static const char units[] = "KMGT";
	const char *unit;
	uint64_t v = 0;
	size_t i = 0;

	for (; i < n && isdigit((unsigned char)s[i]); i++)
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(s[i] - '0'), &v))
			return false;
	if (!i)
		return false;
	if (i < n) {
		unit = memchr(units, s[i], sizeof(units) - 1);
		if (!unit || i + 1 != n)
			return false;
		for (ptrdiff_t k = unit - units; k >= 0; k--)
			if (__builtin_mul_overflow(v, 1024, &v))
				return false;
	}
	*ret = v;
	return true;
}

/* "NAME N" behind "limit"; the name's index, or -1 for an unknown one.  *ret_n
 * is what stands for the number. */
static int limit_split(const struct rule *u, const char **ret_n,
		       size_t *ret_len)
{
	const char *end = u->what + u->what_len, *p = u->what;

	while (p < end && !strchr(" \t", *p))
		p++;
	for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
		if (is(u->what, (size_t)(p - u->what), limits[i].name)) {
			while (p < end && strchr(" \t", *p))
				p++;
			*ret_n = p;
			*ret_len = (size_t)(end - p);
			return (int)i;
		}
	return -1;
}

static int limit_check(const struct rule *u, unsigned line, unsigned *seen,
		       struct err *e)
{
	const char *n;
	size_t len;
	uint64_t v;
	int i = limit_split(u, &n, &len);

	if (i < 0)
		return err_set(e, EINVAL,
			       "expected 'limit size|quota|rate|floor|"
			       "transfers N', found 'limit %.*s'",
			       (int)MIN(u->what_len, (size_t)200), u->what);
	if (seen[i])
		return err_set(e, EINVAL,
			       "limit %s stands twice (first as line %u): one "
			       "value each is allowed",
			       limits[i].name, seen[i]);
	seen[i] = line;
	if (!amount(n, len, &v) || v < limits[i].min || v > limits[i].max)
		return err_set(e, EINVAL,
			       "limit %s: expected a number from %llu to %llu, "
			       "K, M, G or T (powers of 1024) may follow it, "
			       "found '%.*s'",
			       limits[i].name,
			       (unsigned long long)limits[i].min,
			       (unsigned long long)limits[i].max,
			       (int)MIN(len, (size_t)200), n);
	return 0;
}

static bool party_named(const struct rule *u)
{
	char id[16];

	if (u->what_len >= sizeof(id))
		return false;
	memcpy(id, u->what, u->what_len);
	id[u->what_len] = '\0';
	return party_id_valid(id);
}

static bool good(const struct rule *u)
{
	static const char *const roles[] = { "guest", "host", "arbiter", "*" };
	bool any = is(u->what, u->what_len, "*");

	if (is(u->kind, u->kind_len, "module")) {
		for (size_t i = 0; i < u->what_len && !any; i++)
			if (strchr("* \t", u->what[i]))
				return false;
		return true;
	}
	if (is(u->kind, u->kind_len, "table")) {
		const char *slash = memchr(u->what, '/', u->what_len);

		return any || (slash && slash > u->what &&
			       slash + 1 < u->what + u->what_len);
	}
	if (is(u->kind, u->kind_len, "push"))
		return any;
	if (is(u->kind, u->kind_len, "relay"))
		return any || party_named(u);
	if (is(u->kind, u->kind_len, "role"))
		for (size_t i = 0; i < ARRAY_SIZE(roles); i++)
			if (is(u->what, u->what_len, roles[i]))
				return true;
	return false;
}

int allow_defect(const char *rules, unsigned *ret_line, struct err *e)
{
	unsigned seen[ARRAY_SIZE(limits)] = { 0 };
	unsigned line = 0;

	while (*rules) {
		struct rule u;
		int r = next_rule(&rules, &u);

		line++;
		if (!r)
			continue;
		*ret_line = line;
		if (r > 0 && is(u.kind, u.kind_len, "limit")) {
			r = limit_check(&u, line, seen, e);
			if (r)
				return r;
			continue;
		}
		if (r < 0 || !good(&u))
			return err_set(
			    e, EINVAL,
			    "expected 'module NAME|*', 'table NAMESPACE/NAME|"
			    "NAMESPACE/*|*', 'role guest|host|arbiter|*', "
			    "'push *', 'relay ID|*' or 'limit size|quota|rate|"
			    "floor|transfers N', found '%.*s'",
			    (int)MIN(strcspn(u.kind, "\r\n"), (size_t)200),
			    u.kind);
	}
	return 0;
}

int allow_check(const char *rules, struct err *e)
{
	unsigned line;
	int r = allow_defect(rules, &line, e);

	if (r)
		(void)err_wrap(e, "line %u", line);
	return r;
}

bool allow_permits(const char *rules, const char *kind, const char *what)
{
	while (*rules) {
		struct rule u;

		if (next_rule(&rules, &u) != 1 || !is(u.kind, u.kind_len, kind))
			continue;
		if (is(u.what, u.what_len, "*") || is(u.what, u.what_len, what))
			return true;
		/* NAMESPACE/ * stands for every table of the namespace. */
		if (!strcmp(kind, "table") && u.what_len > 2 &&
		    !memcmp(u.what + u.what_len - 2, "/*", 2) &&
		    !strncmp(u.what, what, u.what_len - 1))
			return true;
	}
	return false;
}

bool allow_limit(const char *rules, const char *name, uint64_t *ret)
{
	while (*rules) {
		struct rule u;
		const char *n;
		size_t len;
		uint64_t v;
		int i;

		if (next_rule(&rules, &u) != 1 ||
		    !is(u.kind, u.kind_len, "limit"))
			continue;
		i = limit_split(&u, &n, &len);
		if (i < 0 || strcmp(limits[i].name, name))
			continue;
		if (!amount(n, len, &v) || v < limits[i].min ||
		    v > limits[i].max)
			return false;
		*ret = v;
		return true;
	}
	return false;
}
