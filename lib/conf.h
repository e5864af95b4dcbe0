/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration file of a party, read by rollfs and by rollsite at start
 * (INI by inih).  docs/configuration.md is its manual.
 *
 *   [rollfs]
 *   party = 9999                     own party id, 1..10 digits
 *   federation = demo                name in every certificate's SAN URI
 *   state = /var/lib/rollfs/9999     everything is kept below it
 *   listen = 127.0.0.1:9443          host:port of the HTTPS server; "none"
 *                                    for a party that cannot be connected to
 *   certificate = party.pem          paths: absolute or beside this file
 *   key = party.key                  refused when group or others can read
 *   ca = ca.pem
 *   cores = 2                        default: the machine's
 *   group = rollfs                   who may use an allow_other mount
 *   lease = 60                       seconds a silent partner is waited for
 *   cache_days = 30                  for how long tasks keep what may help
 *                                    later ones
 *   components = /usr/lib/rollfs/components   drop-in executables
 *   [party 10000]
 *   address = https://127.0.0.1:9444  (or "url =")
 *   allow = module *                 as often as needed: architecture 5
 *   allow = table experiment/breast
 *
 * Refused with "file:line: ..." : unknown section or key, a second value
 * where one is due, bad numbers, unreadable or group-readable key.
 */
#ifndef LIB_CONF_H
#define LIB_CONF_H

#include "lib/err.h"

struct conf_party {
	char *id;
	char *url;   /* how it is reached: address_check */
	char *allow; /* lines as in /parties/<id>/allow, "" = nothing */
};

struct conf {
	char *path;
	char *party;
	char *federation;
	char *state;
	char *listen_host; /* NULL: listen = none */
	uint16_t listen_port;
	char *certificate, *key, *ca;
	char *group;
	char *components;
	unsigned cores;
	unsigned lease_s;
	unsigned cache_days;
	struct conf_party *parties;
	size_t n_parties;
};

int conf_load(const char *path, struct conf **ret, struct err *e) MUST_CHECK;
void conf_free(struct conf *c);
const struct conf_party *conf_party(const struct conf *c, const char *id);
/* 1..10 digits, no leading zero. */
bool party_id_valid(const char *s);
/*
 * How a party is reached, one line:
 *   https://host:port   directly (no trailing slash)
 *   via ID              through party ID, sealed so that it sees nothing
 *   reverse             it connects to us and asks for what we have
 */
int address_check(const char *address, struct err *e) MUST_CHECK;
/* Also what only the configuration tells: relays are parties that we know and
 * lead to others than us and the party itself; reverse needs us to listen. */
int party_address_check(const struct conf *c, const char *id,
			const char *address, struct err *e) MUST_CHECK;

/*
 * The rules of /parties/<id>/allow: lines "module NAME|*", "table NS/NAME|NS/
 * *|*", "role guest|host|arbiter|*", "push *", "relay ID|*" (have us carry
 * requests to that party), '#' comments; and limits, one value each:
 *   limit size N       bytes of one file
 *   limit quota N      bytes of its files in our inbox
 *   limit rate N       bytes/s that we take from it
 *   limit floor N      bytes of the disk that stay free
 *   limit transfers N  files and large messages under way at once
 * N is digits, K, M, G or T (powers of 1024) may follow; at least 1, but for
 * floor.
 */
int allow_check(const char *rules, struct err *e) MUST_CHECK; /* syntax */
bool allow_permits(const char *rules, const char *kind, const char *what);
/* The limit of that name; false when there is none. */
bool allow_limit(const char *rules, const char *name, uint64_t *ret);
/*
 * What stands now for a party: STATE/parties/<id>/{address,allow} if written
 * there (through the mount), else the configuration's.  Caller frees; NULL if
 * the party is unknown.
 */
char *party_address(const struct conf *c, const char *id);
char *party_allow(const struct conf *c, const char *id);
/* All known parties' ids, sorted; NULL-terminated; free each and the list. */
char **party_list(const struct conf *c);

#endif
