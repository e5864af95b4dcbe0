// SPDX-License-Identifier: Apache-2.0
/*
 * What is on disk of files for other parties: a line of JSON for each change
 * of what is known of a sent file, in STATE/transfer/files/<party>.sent; and
 * what is made of it at the next start.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/file_priv.h"

/* The analyzer takes what is put into a table of uthash for lost. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif

/* How long a sent file stays readable after its commit. */
#define KEEP_MS (7ll * 24 * 3600 * 1000)

/* ---- lines ------------------------------------------------------------- */

char *file_sent_line(const struct sent *f)
{
	_cleanup_free_ char *enc = percent_encode(f->path);
	json_t *o = json_pack(
	    "{s:s, s:I, s:I, s:I, s:i, s:i, s:s, s:I, s:I, s:I, s:s, s:s, s:i}",
	    "path", enc, "size", (json_int_t)f->size, "generation",
	    (json_int_t)f->generation, "chunk_size", (json_int_t)f->chunk_size,
	    "status", (int)f->status, "error_no", f->error_no, "error",
	    f->error ? f->error : "", "queued", (json_int_t)f->queued_ms,
	    "committed", (json_int_t)f->committed_ms, "deadline",
	    (json_int_t)f->deadline_ms, "spool", f->spool ? f->spool : "",
	    "receipt", f->receipt ? f->receipt : "", "attempts",
	    (int)f->attempts);
	char *text = json_text(o, false), *line = xasprintf("%s\n", text);

	json_decref(o);
	free(text);
	return line;
}

char *file_removed_line(const char *path, uint64_t generation)
{
	_cleanup_free_ char *enc = percent_encode(path);

	return xasprintf("{\"path\":\"%s\",\"removed\":true,"
			 "\"withdrawn\":%llu}\n",
			 enc, (unsigned long long)generation);
}

static char *log_path(const struct site *s, const char *party)
{
	return xasprintf("%s/transfer/files/%s.sent", s->conf->state, party);
}

/* lock held; *ret_upto: what to sync */
int file_journal(struct site *s, const char *party, const char *line,
		 struct journal **ret, uint64_t *ret_upto)
{
	struct journal *j = journal_of(s, party, ".sent");
	int r = j ? journal_raw(j, line, strlen(line)) : -EIO;

	if (!r && ret) {
		*ret = j; /* lives as long as the process */
		*ret_upto = journal_len(j);
	}
	return r;
}

/* lock held; a change that may also be learnt again */
void file_news(struct site *s, const struct sent *f)
{
	_cleanup_free_ char *line = file_sent_line(f);

	if (file_journal(s, f->party, line, NULL, NULL))
		log_warn("rollsite", "cannot write the journal of files");
}

/* ---- start ------------------------------------------------------------- */

/* A put that was cut off between its line and its rename. */
static void finish_rename(struct site *s, const struct sent *f)
{
	_cleanup_free_ char *dir =
	    xasprintf("%s/federation/%s", s->conf->state, f->party);
	_cleanup_free_ char *out = xasprintf("%s/out", dir);
	_cleanup_free_ char *from = NULL;
	_cleanup_close_ int parent = -1;

	if (!f->spool || !*f->spool || strchr(f->spool, '/') ||
	    mkdir_p_durable(out, 0700, NULL))
		return;
	from = xasprintf("%s/spool/%s", dir, f->spool);
	parent = parent_beneath(out, f->path);
	if (parent < 0 ||
	    (renameat(AT_FDCWD, from, parent, last_part(f->path)) &&
	     errno != ENOENT))
		log_warn("rollsite",
			 "a file for party %s cannot be put into its place",
			 f->party);
}

static void load_line(struct site *s, const char *party, const char *line)
{
	json_t *o = json_parse(line, strlen(line), NULL);
	_cleanup_free_ char *path = percent_decode(json_str_or(o, "path", "%"));
	struct sent *f;
	char unused[65];

	if (!o || !path || !path_valid(path)) {
		json_decref(o);
		return;
	}
	f = file_find(party, path);
	if (json_bool_or(o, "removed", false)) {
		uint64_t g = (uint64_t)json_int_or(o, "withdrawn", 0);

		if (g) {
			struct object x;

			file_identity(s, party, path, g, CHUNK_DEFAULT,
				      SIZE_OPEN, &x);
			file_add_withdrawn(party, path, x.tid, g);
		}
		if (f) {
			HASH_DEL(file_sent, f);
			sent_free(f);
		}
		json_decref(o);
		return;
	}
	f = file_record(party, path, unused);
	f->size = (uint64_t)json_int_or(o, "size", 0);
	f->generation = (uint64_t)json_int_or(o, "generation", 0);
	f->chunk_size = (uint64_t)json_int_or(o, "chunk_size", CHUNK_DEFAULT);
	if (f->chunk_size < CHUNK_MIN || f->chunk_size > CHUNK_MAX ||
	    f->chunk_size & (f->chunk_size - 1))
		f->chunk_size = chunk_size_for(f->size, CHUNK_DEFAULT);
	f->status = (enum file_status)json_int_or(o, "status", LIVE);
	f->error_no = (int)json_int_or(o, "error_no", 0);
	f->attempts = (unsigned)json_int_or(o, "attempts", 0);
	f->error = xstrdup(json_str_or(o, "error", ""));
	f->queued_ms = json_int_or(o, "queued", 0);
	f->committed_ms = json_int_or(o, "committed", 0);
	f->deadline_ms = json_int_or(o, "deadline", 0);
	f->spool = xstrdup(json_str_or(o, "spool", ""));
	f->receipt = xstrdup(json_str_or(o, "receipt", ""));
	if (!*f->receipt) {
		free(f->receipt);
		f->receipt = NULL;
	}
	file_last_generation = MAX(file_last_generation, f->generation);
	json_decref(o);
}

/* lock held or nobody else here: the lines that still matter */
static int rewrite(struct site *s, const char *party, struct err *e)
{
	_cleanup_free_ char *path = log_path(s, party);
	struct strbuf keep = STRBUF_INIT(1u << 30);
	struct withdrawn *x, *xtmp;
	struct sent *f, *tmp;
	int r;

	HASH_ITER (hh, file_sent, f, tmp) {
		_cleanup_free_ char *line = NULL;

		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		if (strcmp(f->party, party))
			continue;
		line = file_sent_line(f);
		sb_adds(&keep, line);
	}
	HASH_ITER (hh, file_withdrawals, x, xtmp) {
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		_cleanup_free_ char *line =
		    file_removed_line(x->path, x->generation);

		if (!strcmp(x->party, party))
			sb_adds(&keep, line);
	}
	r = keep.error ? keep.error
		       : file_replace(path, keep.buf, keep.len, 0600, true, e);
	sb_free(&keep);
	return r;
}

static int load(struct site *s, const char *party, struct err *e)
{
	_cleanup_free_ char *path = log_path(s, party), *line = NULL;
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	size_t size = 0;

	while (f && getline(&line, &size, f) > 0) {
		char *end = strchr(line, '\n');

		if (!end) /* torn by a power cut: it was not acknowledged */
			break;
		*end = '\0';
		load_line(s, party, line);
	}
	return rewrite(s, party, e);
}

static void resume(struct site *s)
{
	_cleanup_free_ struct object *list = NULL;
	struct withdrawn *x, *xtmp;
	struct sent *f, *tmp;
	size_t n = 0;

	HASH_ITER (hh, file_sent, f, tmp) {
		_cleanup_free_ char *final = NULL;
		struct object o;
		struct err e = { 0 };

		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		final = file_out_path(s, f->party, f->path);
		finish_rename(s, f);
		file_identity(s, f->party, f->path, f->generation,
			      f->chunk_size, f->size, &o);
		memcpy(f->tid, o.tid, sizeof(f->tid));
		o.deadline_ms = f->deadline_ms;
		o.created_ms = f->queued_ms;
		if (f->status == LIVE &&
		    out_start(s, &o, final, f->size, true, file_on_done, &e))
			log_warn("rollsite", "a file for party %s waits: %s",
				 f->party, e.text);
	}
	/* They end while others are begun: a list of those of now. */
	pthread_mutex_lock(&s->lock);
	list = xcalloc(HASH_COUNT(file_withdrawals) + 1, sizeof(*list));
	HASH_ITER (hh, file_withdrawals, x, xtmp) {
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		file_identity(s, x->party, x->path, x->generation,
			      CHUNK_DEFAULT, SIZE_OPEN, &list[n]);
		list[n++].path = xstrdup(x->path);
	}
	pthread_mutex_unlock(&s->lock);
	for (size_t k = 0; k < n; k++) {
		if (out_withdraw(s, &list[k], file_on_withdrawn, NULL))
			log_debug("rollsite", "a withdrawal waits");
		object_free(&list[k]);
	}
}

/* lock held: one that was committed long ago */
static const struct sent *find_old(void)
{
	struct sent *f, *tmp;

	HASH_ITER (hh, file_sent, f, tmp)
		/* cppcheck-suppress uninitvar; it does not see HASH_ITER */
		if (f->status == COMMITTED &&
		    f->committed_ms + KEEP_MS < now_unix_ms())
			return f;
	return NULL;
}

void file_sweep(struct site *s)
{
	int r = 0;

	while (!r) {
		_cleanup_free_ char *path = NULL;
		const struct sent *f;
		char party[16];

		pthread_mutex_lock(&s->lock);
		f = find_old();
		if (f) {
			memcpy(party, f->party, sizeof(party));
			path = xstrdup(f->path);
		}
		pthread_mutex_unlock(&s->lock);
		if (!path)
			return;
		r = file_remove(s, party, path, NULL);
	}
	log_warn("rollsite", "cannot remove an old file");
}

int file_open(struct site *s, struct err *e)
{
	int r = journals_each(s, ".sent", load, e);

	if (r)
		return r;
	file_sweep(s);
	resume(s);
	return 0;
}
