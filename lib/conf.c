// SPDX-License-Identifier: Apache-2.0
#include "lib/conf.h"

#include <ctype.h>
#include <fcntl.h>
#include <ini.h>
#include <limits.h>
#include <sys/stat.h>

#include "lib/conf_priv.h"
#include "lib/fileio.h"

#define LINE_MAX_  4096
#define FILE_LIMIT (1u << 20)
#define LIST_MAX   10000
#define RELAYS_MAX 4 /* as many as the protocol lets a request pass */

bool party_id_valid(const char *s)
{
	size_t n = strspn(s, "0123456789");

	return n >= 1 && n <= 10 && !s[n] && s[0] != '0';
}

/* Where a party's section and its address stand. */
struct party_lines {
	int section, address;
};

/* What one run of the parser knows; the first defect wins. */
struct load {
	struct conf *c;
	struct conf_party *party; /* of the section that is open, or NULL */
	const char *text;	  /* what is left of the file */
	const char *end;
	const char *dir; /* of the file: relative paths start there */
	struct err *e;
	int line;
	int failed; /* negative errno of the first defect */
	int line_party, line_state, line_listen, line_certificate, line_key,
	    line_ca, line_federation, line_cores, line_lease, line_cache_days,
	    line_group, line_components;
	struct party_lines *at; /* of c->parties */
	char section[64];
};

static int defect(struct load *l, int line, const char *fmt, ...) PRINTF(3, 4);
static int defect(struct load *l, int line, const char *fmt, ...)
{
	char text[800];
	va_list ap;

	if (l->failed)
		return l->failed;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	l->failed = -EINVAL;
	if (line)
		return err_set(l->e, EINVAL, "%.300s:%d: %s", l->c->path, line,
			       text);
	return err_set(l->e, EINVAL, "%.300s: %s", l->c->path, text);
}

static int set_text(struct load *l, char **field, int *line, const char *key,
		    const char *value)
{
	if (*line)
		return defect(l, l->line, "%s stands twice (first on line %d)",
			      key, *line);
	*line = l->line;
	if (!*value)
		return defect(l, l->line, "%s is empty", key);
	*field = strdup(value);
	if (!*field) {
		l->failed = err_sys(l->e, ENOMEM, "%s", l->c->path);
		return l->failed;
	}
	return 0;
}

static int set_path(struct load *l, char **field, int *line, const char *key,
		    const char *value)
{
	char *whole;
	int r = set_text(l, field, line, key, value);

	if (r || value[0] == '/')
		return r;
	if (asprintf(&whole, "%s/%s", l->dir, value) < 0) {
		l->failed = err_sys(l->e, ENOMEM, "%s", l->c->path);
		return l->failed;
	}
	free(*field);
	*field = whole;
	return 0;
}

static int set_number(struct load *l, unsigned *field, int *line,
		      const char *key, const char *value, unsigned max)
{
	unsigned long v;
	char *end;

	if (*line)
		return defect(l, l->line, "%s stands twice (first on line %d)",
			      key, *line);
	*line = l->line;
	errno = 0;
	v = strtoul(value, &end, 10);
	if (!isdigit((unsigned char)value[0]) || *end || errno || v < 1 ||
	    v > max)
		return defect(l, l->line,
			      "%s: expected a number from 1 to %u, found '%s'",
			      key, max, value);
	*field = (unsigned)v;
	return 0;
}

static bool port_parse(const char *s, uint16_t *ret)
{
	unsigned long v;
	char *end;

	if (!isdigit((unsigned char)*s))
		return false;
	v = strtoul(s, &end, 10);
	if (*end || v < 1 || v > 65535)
		return false;
	*ret = (uint16_t)v;
	return true;
}

/* host:port or [v6]:port; the host without brackets. */
static bool host_port(const char *s, char **ret_host, uint16_t *ret_port)
{
	const char *colon = strrchr(s, ':'), *host = s;
	size_t n;

	if (!colon || colon == s || !port_parse(colon + 1, ret_port))
		return false;
	n = (size_t)(colon - s);
	if (s[0] == '[') {
		if (n < 3 || s[n - 1] != ']')
			return false;
		host++;
		n -= 2;
	} else if (memchr(s, ':', n)) {
		return false;
	}
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)host[i]) &&
		    !strchr(".-_:%", host[i]))
			return false;
	if (ret_host)
		*ret_host = strndup(host, n);
	return true;
}

static int port_check(const char *s, const char *what, struct err *e)
{
	const char *colon = strrchr(s, ':');
	uint16_t port;

	/* The most frequent slip deserves its own sentence. */
	if (!colon || strchr(colon, ']'))
		return err_set(e, EINVAL, "%s: the port is missing in '%.200s'",
			       what, s);
	if (!host_port(s, NULL, &port))
		return err_set(e, EINVAL,
			       "%s: a host name, an IPv4 address or an IPv6 "
			       "address in brackets, ':' and a port from 1 to "
			       "65535, found '%.200s'",
			       what, s);
	return 0;
}

int address_check(const char *address, struct err *e)
{
	static const char scheme[] = "https://";

	if (!strcmp(address, "reverse"))
		return 0;
	if (!strncmp(address, "via ", 4) && party_id_valid(address + 4))
		return 0;
	if (strncmp(address, scheme, sizeof(scheme) - 1) ||
	    strpbrk(address, "\r\n"))
		return err_set(
		    e, EINVAL,
		    "expected one line, 'https://host:port', 'via "
		    "ID' (a party's id) or 'reverse', found '%.200s'",
		    address);
	return port_check(address + sizeof(scheme) - 1, "https://host:port", e);
}

/* Follows the relays that we would go through; only those of the
 * configuration, or what stands now. */
static int route_check(const struct conf *c, const char *id,
		       const char *address, bool now, struct err *e)
{
	_cleanup_free_ char *at = strdup(address);

	if (!at)
		return err_sys(e, ENOMEM, "%s", address);
	if (!strcmp(at, "reverse") && !c->listen_host)
		return err_set(e, EINVAL,
			       "'reverse' needs us to listen, but listen = "
			       "none: expected 'https://host:port' or 'via "
			       "ID'");
	for (unsigned hops = 1; !strncmp(at, "via ", 4); hops++) {
		const char *relay = at + 4;
		const struct conf_party *p = conf_party(c, relay);
		char *next;

		if (c->party && !strcmp(relay, c->party))
			return err_set(e, EINVAL,
				       "'via %s': that is this party; expected "
				       "the id of another one",
				       relay);
		if (!strcmp(relay, id))
			return err_set(e, EINVAL,
				       "'%.100s': the way to party %s leads "
				       "through itself; expected another relay",
				       address, id);
		if (hops > RELAYS_MAX)
			return err_set(e, EINVAL,
				       "'%.100s': more than %d relays one "
				       "behind the other",
				       address, RELAYS_MAX);
		next = now ? party_address(c, relay)
			   : strdup(p && p->url ? p->url : "");
		if (!next || (!now && !p)) {
			free(next);
			return err_set(e, EINVAL,
				       "'via %s': party %s is not known here; "
				       "expected one that is",
				       relay, relay);
		}
		free(at);
		at = next;
	}
	return 0;
}

int party_address_check(const struct conf *c, const char *id,
			const char *address, struct err *e)
{
	int r = address_check(address, e);

	return r ? r : route_check(c, id, address, true, e);
}

static int set_listen(struct load *l, const char *value)
{
	if (l->line_listen)
		return defect(l, l->line,
			      "listen stands twice (first on line %d)",
			      l->line_listen);
	l->line_listen = l->line;
	if (!strcmp(value, "none"))
		return 0;
	if (!host_port(value, &l->c->listen_host, &l->c->listen_port))
		return defect(l, l->line,
			      "listen: expected host:port or none, found '%s'",
			      value);
	if (!l->c->listen_host)
		return defect(l, l->line, "out of memory");
	return 0;
}

static int set_name(struct load *l, char **field, int *line, const char *key,
		    const char *value)
{
	if (strlen(value) > 64)
		return defect(l, l->line, "%s is longer than 64 bytes", key);
	for (const char *p = value; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
			return defect(l, l->line,
				      "%s: only letters, digits, '.', '_' and "
				      "'-', found '%s'",
				      key, value);
	return set_text(l, field, line, key, value);
}

static int own_key(struct load *l, const char *key, const char *v)
{
	struct conf *c = l->c;

	if (!strcmp(key, "party")) {
		if (!party_id_valid(v))
			return defect(l, l->line,
				      "party: expected 1 to 10 digits without "
				      "a leading zero, found '%s'",
				      v);
		return set_text(l, &c->party, &l->line_party, key, v);
	}
	if (!strcmp(key, "federation"))
		return set_name(l, &c->federation, &l->line_federation, key, v);
	if (!strcmp(key, "state"))
		return set_path(l, &c->state, &l->line_state, key, v);
	if (!strcmp(key, "listen"))
		return set_listen(l, v);
	if (!strcmp(key, "certificate"))
		return set_path(l, &c->certificate, &l->line_certificate, key,
				v);
	if (!strcmp(key, "key"))
		return set_path(l, &c->key, &l->line_key, key, v);
	if (!strcmp(key, "ca"))
		return set_path(l, &c->ca, &l->line_ca, key, v);
	if (!strcmp(key, "group"))
		return set_name(l, &c->group, &l->line_group, key, v);
	if (!strcmp(key, "components"))
		return set_path(l, &c->components, &l->line_components, key, v);
	if (!strcmp(key, "cores"))
		return set_number(l, &c->cores, &l->line_cores, key, v, 4096);
	if (!strcmp(key, "lease"))
		return set_number(l, &c->lease_s, &l->line_lease, key, v,
				  86400);
	if (!strcmp(key, "cache_days"))
		return set_number(l, &c->cache_days, &l->line_cache_days, key,
				  v, 3650);
	return defect(
	    l, l->line,
	    "unknown key '%s' in [rollfs]: expected party, federation, state, "
	    "listen, certificate, key, ca, cores, group, lease, cache_days or "
	    "components",
	    key);
}

static int party_key(struct load *l, const char *key, const char *v)
{
	struct conf_party *p = l->party;

	struct err why = { 0 };

	if (!strcmp(key, "address") || !strcmp(key, "url")) {
		int *line = &l->at[l->c->n_parties - 1].address;

		if (*line)
			return defect(l, l->line,
				      "%s stands twice in [%s] (first on line "
				      "%d)",
				      key, l->section, *line);
		*line = l->line;
		p->url = strdup(v);
		if (!p->url)
			return defect(l, l->line, "out of memory");
		for (size_t n = strlen(v); n && p->url[n - 1] == '/'; n--)
			p->url[n - 1] = '\0';
		if (address_check(p->url, &why))
			return defect(l, l->line, "%s: %.600s", key, why.text);
		return 0;
	}
	if (!strcmp(key, "allow")) {
		char *more;
		unsigned at;

		if (asprintf(&more, "%s%s\n", p->allow, v) < 0)
			return defect(l, l->line, "out of memory");
		free(p->allow);
		p->allow = more;
		/* All of them so far: a limit may stand once. */
		if (allow_defect(more, &at, &why))
			return defect(l, l->line, "allow: %.600s", why.text);
		return 0;
	}
	return defect(l, l->line,
		      "unknown key '%s' in [%s]: expected address or allow",
		      key, l->section);
}

static int open_section(struct load *l, const char *name)
{
	struct conf *c = l->c;
	struct conf_party *more;
	struct party_lines *at;

	(void)snprintf(l->section, sizeof(l->section), "%s", name);
	l->party = NULL;
	if (!strcmp(name, "rollfs"))
		return 0;
	if (strncmp(name, "party ", 6))
		return defect(l, l->line,
			      "unknown section [%s]: expected [rollfs] or "
			      "[party ID]",
			      name);
	name += 6 + strspn(name + 6, " \t");
	if (!party_id_valid(name))
		return defect(l, l->line,
			      "[party ID]: expected 1 to 10 digits without a "
			      "leading zero, found '%s'",
			      name);
	if (conf_party(c, name))
		return defect(l, l->line, "[party %s] stands twice", name);
	at = realloc(l->at, (c->n_parties + 1) * sizeof(*at));
	if (!at)
		return defect(l, l->line, "out of memory");
	l->at = at;
	at[c->n_parties] = (struct party_lines){ .section = l->line };
	more = realloc(c->parties, (c->n_parties + 1) * sizeof(*more));
	if (!more)
		return defect(l, l->line, "out of memory");
	c->parties = more;
	l->party = &more[c->n_parties];
	*l->party =
	    (struct conf_party){ .id = strdup(name), .allow = strdup("") };
	c->n_parties++;
	if (!l->party->id || !l->party->allow)
		return defect(l, l->line, "out of memory");
	return 0;
}

/*
 * inih calls this for each line, which gives us the numbers that its handler
 * lacks; sections are taken here too, so that an unknown one without any key
 * does not pass.
 */
static char *next_line(char *buf, int size, void *arg)
{
	struct load *l = arg;
	const char *nl;
	size_t n;

	if (l->failed || l->text == l->end)
		return NULL;
	l->line++;
	nl = memchr(l->text, '\n', (size_t)(l->end - l->text));
	n = (size_t)((nl ? nl : l->end) - l->text);
	if (n && l->text[n - 1] == '\r')
		n--;
	if (n + 2 > (size_t)size) {
		defect(l, l->line, "line is longer than %d bytes", size - 2);
		return NULL;
	}
	if (memchr(l->text, '\0', n)) {
		defect(l, l->line, "line holds a NUL byte");
		return NULL;
	}
	memcpy(buf, l->text, n);
	buf[n] = '\0';
	l->text = nl ? nl + 1 : l->end;
	if (l->line == 1 && n >= 3 && !memcmp(buf, "\xef\xbb\xbf", 3))
		memmove(buf, buf + 3, n - 2);
	buf += strspn(buf, " \t");
	if (*buf == '[') {
		char name[64];
		size_t k = strcspn(buf + 1, "]");

		if (buf[k + 1] != ']' || k >= sizeof(name)) {
			defect(l, l->line, "section heading without ']'");
			return NULL;
		}
		memcpy(name, buf + 1, k);
		name[k] = '\0';
		if (open_section(l, name))
			return NULL;
	} else if (*buf && !strchr(";#", *buf) && !strpbrk(buf, "=:")) {
		defect(l, l->line, "expected 'key = value', found '%.100s'",
		       buf);
		return NULL;
	}
	return buf;
}

static int take(void *arg, const char *section, const char *key,
		const char *value)
{
	struct load *l = arg;

	(void)section;
	if (l->failed)
		return 0;
	if (!*key)
		defect(l, l->line, "a value without a key");
	else if (!*l->section)
		defect(l, l->line, "'%s' stands before any section", key);
	else if (l->party)
		party_key(l, key, value);
	else
		own_key(l, key, value);
	return !l->failed;
}

static int check_file(struct load *l, const char *key, const char *path,
		      int line, bool secret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return defect(l, line, "%s: cannot read %s: %s", key, path,
			      strerror(errno));
	if (!S_ISREG(st.st_mode))
		return defect(l, line, "%s: %s is not a file", key, path);
	if (secret && (st.st_mode & 077))
		return defect(l, line,
			      "%s: group or others can read %s (chmod 600 it)",
			      key, path);
	return 0;
}

static int check_whole(struct load *l)
{
	struct conf *c = l->c;
	const struct {
		const char *key;
		int line;
	} need[] = { { "party", l->line_party },
		     { "federation", l->line_federation },
		     { "state", l->line_state },
		     { "listen", l->line_listen },
		     { "certificate", l->line_certificate },
		     { "key", l->line_key },
		     { "ca", l->line_ca } };

	for (size_t i = 0; i < ARRAY_SIZE(need) && !l->failed; i++)
		if (!need[i].line)
			defect(l, 0, "[rollfs] lacks %s", need[i].key);
	if (l->failed)
		return l->failed;
	if (conf_party(c, c->party))
		return defect(l, l->line_party,
			      "party %s is this party: it has no [party] "
			      "section",
			      c->party);
	for (size_t i = 0; i < c->n_parties; i++)
		if (!c->parties[i].url)
			return defect(l, l->at[i].section,
				      "[party %s] lacks address (https://"
				      "host:port, via ID or reverse)",
				      c->parties[i].id);
	for (size_t i = 0; i < c->n_parties; i++) {
		struct err why = { 0 };

		if (route_check(c, c->parties[i].id, c->parties[i].url, false,
				&why))
			return defect(l, l->at[i].address, "address: %.600s",
				      why.text);
	}
	for (size_t n = strlen(c->state); n > 1 && c->state[n - 1] == '/'; n--)
		c->state[n - 1] = '\0';
	if (check_file(l, "certificate", c->certificate, l->line_certificate,
		       false) ||
	    check_file(l, "key", c->key, l->line_key, true) ||
	    check_file(l, "ca", c->ca, l->line_ca, false))
		return l->failed;
	if (!c->cores) {
		long n = sysconf(_SC_NPROCESSORS_ONLN);

		c->cores = n > 0 ? (unsigned)n : 1;
	}
	if (!c->lease_s)
		c->lease_s = 60;
	if (!c->cache_days)
		c->cache_days = 30;
	return 0;
}

int conf_parse(const char *path, const char *text, size_t n, bool check,
	       struct conf **ret, struct err *e)
{
	_cleanup_free_ char *dir = strdup(path);
	struct conf *c = calloc(1, sizeof(*c));
	struct load l = {
		.c = c, .text = text, .end = text + n, .dir = dir, .e = e
	};
	char *slash;
	int r;

	if (!dir || !c || !(c->path = strdup(path))) {
		conf_free(c);
		return err_sys(e, ENOMEM, "%s", path);
	}
	slash = strrchr(dir, '/');
	if (slash)
		*slash = '\0';
	/* Everything a long path needs; settings of the library, once. */
	ini_max_line = LINE_MAX_;
	ini_allow_multiline = false;
	r = ini_parse_stream(next_line, &l, take, &l);
	if (!l.failed && r)
		defect(&l, r > 0 ? r : 0, "expected 'key = value'");
	if (!l.failed && check)
		check_whole(&l);
	free(l.at);
	if (l.failed) {
		conf_free(c);
		return l.failed;
	}
	*ret = c;
	return 0;
}

int conf_load(const char *path, struct conf **ret, struct err *e)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(FILE_LIMIT);
	_cleanup_free_ char *whole = realpath(path, NULL);
	int r;

	if (!whole)
		return err_sys(e, errno, "%s", path);
	r = file_read(whole, &sb, e);
	if (r)
		return r;
	return conf_parse(whole, sb.buf, sb.len, true, ret, e);
}

void conf_free(struct conf *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n_parties; i++) {
		free(c->parties[i].id);
		free(c->parties[i].url);
		free(c->parties[i].allow);
	}
	free(c->parties);
	free(c->path);
	free(c->party);
	free(c->federation);
	free(c->state);
	free(c->listen_host);
	free(c->certificate);
	free(c->key);
	free(c->ca);
	free(c->group);
	free(c->components);
	free(c);
}

const struct conf_party *conf_party(const struct conf *c, const char *id)
{
	for (size_t i = 0; i < c->n_parties; i++)
		if (!strcmp(c->parties[i].id, id))
			return &c->parties[i];
	return NULL;
}

/* Written through the mount; NULL if it was not. */
static char *party_file(const struct conf *c, const char *id, const char *name)
{
	_cleanup_strbuf_ struct strbuf sb = STRBUF_INIT(FILE_LIMIT);
	_cleanup_free_ char *path = NULL;

	if (!party_id_valid(id) ||
	    asprintf(&path, "%s/parties/%s/%s", c->state, id, name) < 0) {
		path = NULL;
		return NULL;
	}
	if (file_read(path, &sb, NULL) || memchr(sb.buf, '\0', sb.len))
		return NULL;
	return sb_detach(&sb);
}

static bool party_dir(const struct conf *c, const char *id)
{
	_cleanup_free_ char *path = NULL;
	struct stat st;

	if (!party_id_valid(id) ||
	    asprintf(&path, "%s/parties/%s", c->state, id) < 0) {
		path = NULL;
		return false;
	}
	return !stat(path, &st) && S_ISDIR(st.st_mode);
}

char *party_address(const struct conf *c, const char *id)
{
	const struct conf_party *p = conf_party(c, id);
	char *s = party_file(c, id, "address");

	if (s) {
		size_t n = strlen(s);

		while (n && strchr(" \t\r\n/", s[n - 1]))
			s[--n] = '\0';
		return s;
	}
	if (p)
		return strdup(p->url);
	return party_dir(c, id) ? strdup("") : NULL;
}

char *party_allow(const struct conf *c, const char *id)
{
	const struct conf_party *p = conf_party(c, id);
	char *s = party_file(c, id, "allow");

	if (s)
		return s;
	if (p)
		return strdup(p->allow);
	return party_dir(c, id) ? strdup("") : NULL;
}

static int by_number(const void *a, const void *b)
{
	const char *x = *(const char *const *)a, *y = *(const char *const *)b;
	size_t n = strlen(x), m = strlen(y);

	/* Without leading zeros the longer number is the larger one. */
	return n != m ? (n < m ? -1 : 1) : strcmp(x, y);
}

#ifndef __clang__
/* The names are in the list, which is returned: gcc 12 loses that. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif
char **party_list(const struct conf *c)
{
	_cleanup_closedir_ DIR *d = NULL;
	_cleanup_strbuf_ struct strbuf path = STRBUF_INIT(8192);
	size_t n = 0, room = c->n_parties + 16;
	char **list = calloc(room, sizeof(*list));
	struct dirent *de;

	if (!list)
		return NULL;
	for (size_t i = 0; i < c->n_parties; i++)
		if ((list[n] = strdup(c->parties[i].id)))
			n++;
	sb_addf(&path, "%s/parties", c->state);
	d = opendir(path.buf);
	while (d && (de = readdir(d)) && n < LIST_MAX) {
		if (!party_id_valid(de->d_name) || conf_party(c, de->d_name) ||
		    (c->party && !strcmp(c->party, de->d_name)))
			continue;
		if (n + 2 > room) {
			char **more = realloc(list, 2 * room * sizeof(*list));

			if (!more)
				break;
			list = more;
			room *= 2;
		}
		if ((list[n] = strdup(de->d_name)))
			n++;
	}
	qsort(list, n, sizeof(*list), by_number);
	list[n] = NULL;
	return list;
}
#ifndef __clang__
#pragma GCC diagnostic pop
#endif
