// SPDX-License-Identifier: Apache-2.0
/* /errors: each user's last refusals, newest first, in memory. */
#include <pthread.h>

#include "lib/table.h" /* utf8_valid */

#include "fs/fs.h"

#define PER_USER   20
#define USERS_MAX  64
#define TEXT_LIMIT (64u << 10)

struct user_errors {
	uid_t uid;
	char *text[PER_USER]; /* a ring */
	unsigned next;
	int64_t used_ms;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct user_errors users[USERS_MAX];
static unsigned n_users;
static _Thread_local bool told;

/* With the lock held; the user unheard of for longest makes room. */
static struct user_errors *user_of(uid_t uid, bool make)
{
	struct user_errors *u = NULL;

	for (unsigned i = 0; i < n_users; i++)
		if (users[i].uid == uid)
			return &users[i];
	if (!make)
		return NULL;
	if (n_users < USERS_MAX) {
		u = &users[n_users++];
	} else {
		u = &users[0];
		for (unsigned i = 1; i < n_users; i++)
			if (users[i].used_ms < u->used_ms)
				u = &users[i];
		for (unsigned i = 0; i < PER_USER; i++)
			free(u->text[i]);
		memset(u, 0, sizeof(*u));
	}
	u->uid = uid;
	return u;
}

/* A name may be anything; errors is lines of text. */
static void add_name(struct strbuf *sb, const char *name)
{
	const bool text = utf8_valid(name, strlen(name));

	for (const char *c = name; *c; c++) {
		const unsigned char b = (unsigned char)*c;

		if (b < 0x20 || b == 0x7f || (b >= 0x80 && !text))
			sb_addf(sb, "%%%02X", b);
		else
			sb_addc(sb, *c);
	}
}

void errors_add(uid_t uid, const char *what, int status, const char *text)
{
	struct strbuf sb = STRBUF_INIT(TEXT_LIMIT);
	struct user_errors *u;
	char when[40];
	size_t n = strlen(text);
	char *line;

	told = true;
	while (n && text[n - 1] == '\n')
		n--;
	time_rfc3339(when, sizeof(when), now_unix_ms());
	sb_addf(&sb, "%s ", when);
	add_name(&sb, what);
	sb_addf(&sb, ": %s\n", strerror(-status));
	if (n)
		sb_add(&sb, text, MIN(n, (size_t)TEXT_LIMIT - 8192));
	if (n)
		sb_addc(&sb, '\n');
	line = sb_detach(&sb);
	if (!line)
		return;
	pthread_mutex_lock(&lock);
	u = user_of(uid, true);
	free(u->text[u->next % PER_USER]);
	u->text[u->next++ % PER_USER] = line;
	u->used_ms = now_mono_ms();
	pthread_mutex_unlock(&lock);
}

void errors_begin(void)
{
	told = false;
}

bool errors_told(void)
{
	return told;
}

char *errors_text(uid_t uid)
{
	struct strbuf sb = STRBUF_INIT(PER_USER * TEXT_LIMIT);
	const struct user_errors *u;

	pthread_mutex_lock(&lock);
	u = user_of(uid, false);
	for (unsigned i = 0; u && i < PER_USER && i < u->next; i++)
		sb_adds(&sb, u->text[(u->next - 1 - i) % PER_USER]);
	pthread_mutex_unlock(&lock);
	return sb_detach(&sb);
}
