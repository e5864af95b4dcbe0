// SPDX-License-Identifier: Apache-2.0
/*
 * Receipts of the files that were committed here: a line each in
 * STATE/transfer/files/<party>.receipts, all of them in memory.  What was
 * delivered as a message needs no record of its own.
 */
#include "lib/json.h"
#include "lib/log.h"

#include "transfer/in_priv.h"

/* The analyzer takes what is put into a table of uthash for lost. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

#define RECEIPT_MS (30ll * 24 * 3600 * 1000)

struct newest { /* of a party's path */
	UT_hash_handle hh;
	char *key;
	uint64_t generation;
};

/* Under s->lock. */
static struct receipt_rec *receipts;
static struct newest *newest;

/* lock held */
struct receipt_rec *receipt_find(const char *tid)
{
	struct receipt_rec *r = NULL;

	HASH_FIND_STR(receipts, tid, r);
	return r;
}

/* ---- receipts ---------------------------------------------------------- */

static char *newest_key(const char *party, const char *path)
{
	return xasprintf("%s/%s", party, path);
}

/* lock held; 0 = none */
uint64_t receipt_newest(const char *party, const char *path)
{
	_cleanup_free_ char *key = newest_key(party, path);
	struct newest *x = NULL;

	HASH_FIND_STR(newest, key, x);
	return x ? x->generation : 0;
}

/* lock held; takes rec */
void receipt_put(struct receipt_rec *rec)
{
	char *key = newest_key(rec->party, rec->path);
	struct newest *x = NULL;

	HASH_ADD_STR(receipts, tid, rec);
	HASH_FIND_STR(newest, key, x);
	if (!x) {
		x = xcalloc(1, sizeof(*x));
		x->key = key;
		HASH_ADD_KEYPTR(hh, newest, x->key, strlen(x->key), x);
	} else {
		free(key);
	}
	x->generation = MAX(x->generation, rec->generation);
}

void receipt_rec_free(struct receipt_rec *r)
{
	receipt_free(&r->doc);
	free(r->path);
	free(r);
}

static char *receipts_path(const struct site *s, const char *party)
{
	return xasprintf("%s/transfer/files/%s.receipts", s->conf->state,
			 party);
}

char *receipt_line(const struct receipt_rec *r)
{
	_cleanup_free_ char *enc = percent_encode(r->path);
	json_t *o = json_pack("{s:s, s:I, s:o}", "path", enc, "generation",
			      (json_int_t)r->generation, "receipt",
			      receipt_json(&r->doc, true));
	char *text = json_text(o, false), *line = xasprintf("%s\n", text);

	free(text);
	json_decref(o);
	return line;
}

struct receipt_rec *receipt_of_line(const char *party, const char *line)
{
	json_t *o = json_parse(line, strlen(line), NULL);
	struct receipt_rec *r = xcalloc(1, sizeof(*r));
	_cleanup_free_ char *path = percent_decode(json_str_or(o, "path", "%"));

	if (!o || !path || !path_valid(path) ||
	    receipt_parse(json_object_get(o, "receipt"), &r->doc, NULL)) {
		json_decref(o);
		free(r);
		return NULL;
	}
	r->generation = (uint64_t)json_int_or(o, "generation", 0);
	r->path = TAKE_PTR(path);
	memcpy(r->tid, r->doc.tid, sizeof(r->tid));
	(void)snprintf(r->party, sizeof(r->party), "%s", party);
	r->ready = true;
	json_decref(o);
	return r;
}

/* Reads what is there; lines that nobody needs any more are left out of the
 * file from now on: receipts are kept for a month, and the newest of a path
 * for ever. */
int receipts_load(struct site *s, const char *party, struct err *e)
{
	_cleanup_free_ char *path = receipts_path(s, party);
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	_cleanup_free_ char *line = NULL;
	struct strbuf keep = STRBUF_INIT(1u << 30);
	struct receipt_rec *r, *tmp;
	size_t size = 0, dropped = 0;
	int x = 0;

	while (f && getline(&line, &size, f) > 0) {
		struct receipt_rec *old = NULL;

		/* A torn last line (power cut) parses to nothing. */
		r = strchr(line, '\n') ? receipt_of_line(party, line) : NULL;
		if (r)
			old = receipt_find(r->tid);
		if (!r || old) {
			dropped++;
			if (r)
				receipt_rec_free(r);
			continue;
		}
		receipt_put(r);
	}
	HASH_ITER (hh, receipts, r, tmp) {
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		_cleanup_free_ char *text = NULL;

		if (strcmp(r->party, party))
			continue;
		if (r->generation < receipt_newest(party, r->path) &&
		    r->doc.committed_ms + RECEIPT_MS < now_unix_ms()) {
			dropped++;
			HASH_DEL(receipts, r);
			receipt_rec_free(r);
			continue;
		}
		text = receipt_line(r);
		sb_adds(&keep, text);
	}
	if (dropped && !keep.error)
		x = file_replace(path, keep.buf, keep.len, 0600, true, e);
	sb_free(&keep);
	return x;
}

/* ---- answers ----------------------------------------------------------- */

void in_answer_committed(struct serve *v, unsigned code,
			 const struct receipt_doc *doc)
{
	serve_json(v, code,
		   json_pack("{s:s, s:o}", "state", "committed", "receipt",
			     receipt_json(doc, true)));
}

/* A file's receipt: 1 answered, 0 there is none (or it is on its way: 503). */
int receipt_answer(struct serve *v, const char *tid, const char *root)
{
	struct site *s = v->s;
	struct receipt_rec *r = NULL;
	struct err e = { 0 };
	json_t *doc = NULL;
	int x = 0;

	pthread_mutex_lock(&s->lock);
	r = receipt_find(tid);
	if (r && strcmp(r->party, v->party))
		r = NULL; /* for it, it does not exist */
	if (r && *root && strcmp(r->doc.root, root))
		x = err_set(&e, EEXIST, "the same file with other content");
	else if (r && !r->ready)
		x = err_set(&e, EAGAIN, "its commit is under way");
	else if (r)
		doc = receipt_json(&r->doc, true);
	pthread_mutex_unlock(&s->lock);
	if (doc)
		serve_json(v, 200,
			   json_pack("{s:s, s:o}", "state", "committed",
				     "receipt", doc));
	else if (x)
		serve_refuse(v, x, &e);
	return doc || x;
}

static int sign_receipt(struct site *s, struct receipt_doc *d, struct err *e)
{
	json_t *o = receipt_json(d, false);
	_cleanup_free_ char *text = json_text(o, false);

	json_decref(o);
	return identity_sign(s->identity, "rollfs-receipt-v1", text,
			     strlen(text), &d->signature, e);
}

int receipt_make(struct site *s, const struct object *o,
		 struct receipt_doc *ret, struct err *e)
{
	*ret = (struct receipt_doc){ .size = o->size == SIZE_OPEN ? 0 : o->size,
				     .committed_ms = now_unix_ms() };
	memcpy(ret->tid, o->tid, sizeof(ret->tid));
	memcpy(ret->root, *o->root ? o->root : o->tid, sizeof(ret->root));
	memcpy(ret->receiver, s->conf->party, MIN(strlen(s->conf->party), 15));
	return sign_receipt(s, ret, e);
}

/* The same for a message: what was delivered needs no record of its own. */
static int answer_delivered(struct serve *v, const struct object *o)
{
	struct receipt_doc doc = { 0 };
	struct err e = { 0 };
	int r = site_delivered(v->s, o->tid, o->sha256);

	if (!r)
		return 0;
	if (r < 0)
		r = err_set(&e, EEXIST, "the same message with other content");
	else
		r = receipt_make(v->s, o, &doc, &e);
	if (r)
		serve_refuse(v, r, &e);
	else
		in_answer_committed(v, 200, &doc);
	receipt_free(&doc);
	return 1;
}

int in_done_before(struct serve *v, const struct object *o)
{
	struct err e = { 0 };
	uint64_t newer;

	if (o->kind == OBJECT_MESSAGE)
		return answer_delivered(v, o);
	if (receipt_answer(v, o->tid, o->root))
		return 1;
	pthread_mutex_lock(&v->s->lock);
	newer = receipt_newest(o->src, o->path);
	pthread_mutex_unlock(&v->s->lock);
	if (newer <= o->generation)
		return 0;
	serve_refuse(v, err_set(&e, ESTALE, "a newer generation is here"), &e);
	return 1;
}
