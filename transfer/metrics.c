// SPDX-License-Identifier: Apache-2.0
/*
 * Counters and gauges in Prometheus' text format, a label for each party.
 * The names are an interface: docs/protocol.md has them too.
 */
#include <inttypes.h>
#include <stddef.h>

#include "transfer/transfer_priv.h"

#define TEXT_MAX     (1u << 20) /* a frame's body */
#define REFUSALS_MAX 4096

static const struct counter {
	const char *name, *help;
	size_t at;
} counters[] = {
#define COUNTER(name, field, help)                   \
	{                                            \
		"rollfs_" name "_total", help,       \
		    offsetof(struct counters, field) \
	}
	COUNTER("transfers_started", started,
		"Files and large messages begun towards the party."),
	COUNTER("transfers_committed", committed,
		"Transfers for which the party signed a receipt."),
	COUNTER("transfers_failed", failed,
		"Transfers that were given up for good."),
	COUNTER("transfers_received", received,
		"Transfers of the party that were committed here."),
	COUNTER("chunks_sent", chunks_sent,
		"Chunks that the party has acknowledged."),
	COUNTER("chunks_resent", chunks_resent,
		"Chunks that were sent more than once."),
	COUNTER("chunks_received", chunks_received,
		"Chunks of the party that were put on disk."),
	COUNTER("chunks_again", chunks_again,
		"Chunks of the party that were here already."),
	COUNTER(
	    "transfer_bytes_sent", bytes_sent,
	    "Bytes of files and large messages that the party acknowledged."),
	COUNTER("transfer_bytes_received", bytes_received,
		"Bytes of files and large messages that were put on disk."),
	COUNTER("messages_sent", messages_out,
		"Messages of tasks that the party has taken."),
	COUNTER("messages_received", messages_in,
		"Messages of tasks that came from the party."),
	COUNTER("message_bytes_sent", message_bytes_out,
		"Bytes of messages sent."),
	COUNTER("message_bytes_received", message_bytes_in,
		"Bytes of messages received."),
	COUNTER("retries", retries,
		"Requests to the party that were tried again."),
	COUNTER("calls", calls, "Calls between schedulers."),
	COUNTER("forwarded", forwarded,
		"Sealed requests carried on to the party."),
#undef COUNTER
};

/* ---- refusals: by party and code --------------------------------------- */

static struct refusals {
	char party[16];
	const char *word; /* of status_word: lives for ever */
	uint64_t n;
} refusals[REFUSALS_MAX];
static size_t n_refusals;
static pthread_mutex_t refusals_lock = PTHREAD_MUTEX_INITIALIZER;

void count_refusal(const char *party, int status)
{
	const char *word = status_word(status);
	size_t i;

	pthread_mutex_lock(&refusals_lock);
	for (i = 0; i < n_refusals; i++)
		if (refusals[i].word == word &&
		    !strcmp(refusals[i].party, party))
			break;
	if (i == n_refusals && n_refusals < REFUSALS_MAX) {
		(void)snprintf(refusals[i].party, sizeof(refusals[i].party),
			       "%s", party);
		refusals[i].word = word;
		n_refusals++;
	}
	if (i < n_refusals)
		refusals[i].n++;
	pthread_mutex_unlock(&refusals_lock);
}

struct counters *count_of(struct site *s, const char *party)
{
	struct peer *p = peer_find_locked(s, party);

	return p ? &p->count : &s->count;
}

/* ---- the text ---------------------------------------------------------- */

static void head(struct strbuf *sb, const char *name, const char *type,
		 const char *help)
{
	sb_addf(sb, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void add_refusals(struct strbuf *sb)
{
	static const char name[] = "rollfs_refusals_total";

	head(sb, name, "counter",
	     "Requests of the party that were refused, by code; an empty "
	     "party is one that did not prove who it is.");
	pthread_mutex_lock(&refusals_lock);
	for (size_t i = 0; i < n_refusals; i++)
		sb_addf(sb, "%s{party=\"%s\",code=\"%s\"} %" PRIu64 "\n", name,
			refusals[i].party, refusals[i].word, refusals[i].n);
	pthread_mutex_unlock(&refusals_lock);
}

/* lock held */
static void add_transfers(struct site *s, struct strbuf *sb)
{
	static const char name[] = "rollfs_transfers";

	head(sb, name, "gauge", "Transfers towards the party by state.");
	for (const struct peer *p = s->peers; p; p = p->next) {
		unsigned n[OUT_STATES] = { 0 };

		if (p->removed)
			continue;
		out_counts_locked(s, p, n);
		for (unsigned i = 0; i < OUT_STATES; i++)
			if (i != OUT_COMMITTED && i != OUT_FAILED)
				sb_addf(sb,
					"%s{party=\"%s\",state=\"%s\"} %u\n",
					name, p->id, out_state_names[i], n[i]);
	}
}

/* A gauge of each party; false = it has none now. */
typedef bool (*gauge_fn)(const struct peer *p, double *ret);

static bool in_flight(const struct peer *p, double *ret)
{
	*ret = p->under_way;
	return true;
}

static bool queued_bytes(const struct peer *p, double *ret)
{
	*ret = (double)p->queued_bytes;
	return true;
}

static bool up(const struct peer *p, double *ret)
{
	*ret = p->ok ? 1 : 0;
	return p->asked;
}

static bool back(const struct peer *p, double *ret)
{
	*ret = p->back && !*p->back ? 1 : 0;
	return p->back != NULL;
}

static bool rtt(const struct peer *p, double *ret)
{
	*ret = (double)p->rtt_us / 1e6;
	return p->asked && p->ok;
}

static bool skew(const struct peer *p, double *ret)
{
	*ret = (double)p->skew_ms / 1e3;
	return p->have_skew;
}

static bool expiry(const struct peer *p, double *ret)
{
	*ret = (double)certificate_expires_s(p->certificate);
	return *ret > 0;
}

static const struct gauge {
	const char *name, *help;
	gauge_fn fn;
} gauges[] = {
	{ "rollfs_requests_in_flight", "Requests of transfers under way.",
	  in_flight },
	{ "rollfs_message_bytes_queued",
	  "Bytes of messages that the party has not taken yet.", queued_bytes },
	{ "rollfs_party_up", "1 when the last ping was answered.", up },
	{ "rollfs_party_reaches_us",
	  "1 when the party's last ping of us was answered.", back },
	{ "rollfs_party_rtt_seconds", "Round trip of the last ping.", rtt },
	{ "rollfs_party_clock_skew_seconds",
	  "How far the party's clock is ahead of ours.", skew },
	{ "rollfs_certificate_expiry_timestamp_seconds",
	  "Unix time at which the certificate that was last seen ends; our own "
	  "under our own party.",
	  expiry },
};

char *metrics_text(struct site *s)
{
	struct strbuf sb = STRBUF_INIT(TEXT_MAX);
	int64_t own = identity_expires_ms(s->identity);

	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < ARRAY_SIZE(counters); i++) {
		const struct counter *c = &counters[i];

		head(&sb, c->name, "counter", c->help);
		for (const struct peer *p = s->peers; p; p = p->next) {
			uint64_t v;

			memcpy(&v, (const char *)&p->count + c->at, sizeof(v));
			sb_addf(&sb, "%s{party=\"%s\"} %" PRIu64 "\n", c->name,
				p->id, v);
		}
	}
	add_refusals(&sb);
	add_transfers(s, &sb);
	for (size_t i = 0; i < ARRAY_SIZE(gauges); i++) {
		const struct gauge *g = &gauges[i];
		double v;

		head(&sb, g->name, "gauge", g->help);
		if (g->fn == expiry && own)
			sb_addf(&sb, "%s{party=\"%s\"} %" PRId64 "\n", g->name,
				s->conf->party, own / 1000);
		for (const struct peer *p = s->peers; p; p = p->next)
			if (!p->removed && g->fn(p, &v))
				sb_addf(&sb, "%s{party=\"%s\"} %.15g\n",
					g->name, p->id, v);
	}
	pthread_mutex_unlock(&s->lock);
	return sb_detach(&sb);
}
