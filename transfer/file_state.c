// SPDX-License-Identifier: Apache-2.0
/*
 * What is told of files between parties: how a transfer goes, and news of what
 * has arrived.
 */
#include "lib/json.h"
#include "lib/log.h"

#include "transfer/file_priv.h"

/* The analyzer takes what is put into a table of uthash for lost. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

/* Reasons are cut by bytes: half a character at the end is no text. */
static void trim_utf8(char *text)
{
	size_t n = strlen(text), k = n;

	while (k && n - k < 4 && ((unsigned char)text[k - 1] & 0xc0) == 0x80)
		k--;
	if (k && ((unsigned char)text[k - 1] & 0xc0) == 0xc0) {
		unsigned char lead = (unsigned char)text[k - 1];
		size_t want = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;

		if (n - k + 1 < want)
			text[k - 1] = '\0';
	}
}

/* The ranges of one that is there whole; NULL: it has no bytes. */
static char *all_chunks(const struct sent *f)
{
	uint64_t n =
	    f->size && f->chunk_size ? (f->size - 1) / f->chunk_size + 1 : 0;

	return n > 1 ? xasprintf("0-%llu", (unsigned long long)n - 1)
	       : n   ? xstrdup("0")
		     : NULL;
}

/* lock not held: the file as it stood, and how its transfer goes */
static void news_of(struct site *s, const struct sent *f, struct out_news *n)
{
	if (f->status == LIVE && out_news(s, f->tid, n)) {
		trim_utf8(n->error);
		return;
	}
	n->size = f->size;
	if (f->status == COMMITTED) {
		n->acknowledged = f->size;
		n->chunks = all_chunks(f);
	}
	n->attempts = f->attempts;
	n->state = f->status == COMMITTED ? OUT_COMMITTED
		   : f->status == FAILED  ? OUT_FAILED
					  : OUT_QUEUED;
	if (f->error)
		(void)snprintf(n->error, sizeof(n->error), "%s", f->error);
	trim_utf8(n->error);
}

static struct sent *copy_sent(const struct sent *f)
{
	struct sent *c = xcalloc(1, sizeof(*c));

	*c = *f;
	c->key = NULL;
	c->spool = NULL;
	c->path = xstrdup(f->path);
	c->error = f->error ? xstrdup(f->error) : NULL;
	c->receipt = f->receipt ? xstrdup(f->receipt) : NULL;
	return c;
}

/* lock held: a file that is only being written looks like this */
static struct sent *streamed(const char *party, const char *path, unsigned skip)
{
	struct stream *x, *tmp;

	HASH_ITER (hh, file_streams, x, tmp) {
		struct sent *c;

		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		if (strcmp(x->party, party) || (path && strcmp(x->path, path)))
			continue;
		if (skip-- > 0)
			continue;
		c = xcalloc(1, sizeof(*c));
		(void)snprintf(c->party, sizeof(c->party), "%s", party);
		c->path = xstrdup(x->path);
		memcpy(c->tid, x->tid, sizeof(c->tid));
		c->generation = x->generation;
		c->status = x->failed ? FAILED : LIVE;
		c->error = x->error ? xstrdup(x->error) : NULL;
		c->queued_ms = (int64_t)(x->generation / 1000);
		return c;
	}
	return NULL;
}

json_t *file_state(struct site *s, const char *party, const char *path)
{
	struct out_news n = { 0 };
	const struct sent *f;
	struct sent *c;
	char when[40] = "";
	json_t *o, *receipt = NULL;

	pthread_mutex_lock(&s->lock);
	f = file_find(party, path);
	c = f ? copy_sent(f) : streamed(party, path, 0);
	pthread_mutex_unlock(&s->lock);
	if (!c)
		return NULL;
	news_of(s, c, &n);
	if (c->deadline_ms)
		time_rfc3339(when, sizeof(when), c->deadline_ms);
	if (c->receipt)
		receipt = json_parse(c->receipt, strlen(c->receipt), NULL);
	o = json_pack(
	    "{s:s, s:I, s:I, s:I, s:I, s:i, s:s, s:f, s:I, s:s, s:s, "
	    "s:s, s:o*}",
	    "state", out_state_names[n.state], "size", (json_int_t)n.size,
	    "acknowledged", (json_int_t)n.acknowledged, "rate",
	    (json_int_t)n.rate, "resent", (json_int_t)n.resent, "attempts",
	    (int)n.attempts, "error", n.error, "next_try",
	    (double)n.next_try_ms / 1000, "generation",
	    (json_int_t)c->generation, "tid", c->tid, "chunks",
	    n.chunks ? n.chunks : "", "deadline", when, "receipt", receipt);
	free(n.chunks);
	sent_free(c);
	return o;
}

static void transfers_line(struct site *s, const struct sent *f,
			   struct strbuf *sb)
{
	struct out_news n = { 0 };
	char when[40];

	news_of(s, f, &n);
	time_rfc3339(when, sizeof(when), f->queued_ms);
	sb_addf(sb, "%s %s %llu/%llu bytes %.0f B/s attempts %u", when,
		out_state_names[n.state], (unsigned long long)n.acknowledged,
		(unsigned long long)n.size, n.rate, n.attempts);
	if (n.next_try_ms)
		sb_addf(sb, " next try in %.1f s",
			(double)n.next_try_ms / 1000);
	sb_addf(sb, " %s", f->path);
	if (*n.error)
		sb_addf(sb, " error: %s", n.error);
	sb_addc(sb, '\n');
	free(n.chunks);
}

/* Unfinished ones first, the newest last in each part. */
char *file_transfers(struct site *s, const char *party)
{
	struct strbuf sb = STRBUF_INIT(16u << 20);
	const struct sent *f;
	struct sent **list = NULL, *x, *tmp;
	size_t n = 0, room = 0;

	pthread_mutex_lock(&s->lock);
	HASH_ITER (hh, file_sent, x, tmp) {
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		f = x;
		if (strcmp(f->party, party))
			continue;
		if (n + 1 >= room) {
			room = MAX(2 * room, 16);
			list = xrealloc(list, room * sizeof(struct sent *));
		}
		list[n++] = copy_sent(f);
	}
	for (unsigned i = 0; (x = streamed(party, NULL, i)); i++) {
		list = xrealloc(list, (n + 1) * sizeof(struct sent *));
		list[n++] = x;
	}
	pthread_mutex_unlock(&s->lock);
	for (int part = 0; part < 2; part++)
		for (size_t i = 0; i < n; i++)
			if ((list[i]->status == LIVE) == !part)
				transfers_line(s, list[i], &sb);
	for (size_t i = 0; i < n; i++)
		sent_free(list[i]);
	free(list);
	return sb_detach(&sb);
}

void file_arrived(struct site *s, const char *party, const char *path)
{
	struct inbox_event *x = xcalloc(1, sizeof(*x)), **p;
	unsigned n = 0;

	pthread_mutex_lock(&s->lock);
	x->seq = ++s->inbox_seq;
	x->party = xstrdup(party);
	x->path = xstrdup(path);
	for (p = &s->inbox; *p; p = &(*p)->next)
		n++;
	*p = x;
	if (n > 1000) { /* nobody listens: the oldest may go */
		x = s->inbox;
		s->inbox = x->next;
		free(x->party);
		free(x->path);
		free(x);
	}
	site_wake(s, WAIT_INBOX, NULL);
	pthread_mutex_unlock(&s->lock);
}
