// SPDX-License-Identifier: Apache-2.0
/*
 * Files between parties.  Sending: STATE/transfer/files/<party>.json lists
 * what was handed over (replaced atomically, durable); the bytes are
 * STATE/federation/<party>/out/<path>.  Receiving: <party>/in/<path>, and
 * STATE/transfer/files/<party>.receipts, a line per committed generation.
 */
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>

#include "lib/json.h"
#include "lib/log.h"

#include "transfer/transfer_priv.h"

/* How long a sent file stays readable after its commit. */
#define KEEP_MS (7ll * 24 * 3600 * 1000)

enum file_status { QUEUED, SENDING, COMMITTED, FAILED };
static const char *const status_names[] = { "queued", "sending", "committed",
					    "failed" };

struct sent {
	struct sent *next;
	char *party, *path, *sha256;
	uint64_t size, generation, acknowledged;
	enum file_status status;
	int error_no;
	char *error;
	char *spool; /* its bytes are still there; NULL = in their place */
	unsigned attempts;
	int64_t queued_ms, committed_ms, started_mono;
	int64_t next_try; /* monotonic */
};

struct receipt {
	struct receipt *next;
	char *party, *path, sha256[65];
	uint64_t generation;
};

/* Under site.lock like everything else. */
static struct sent *files;
static struct receipt *receipts;
static uint64_t last_generation;

static struct sent *find_sent(const char *party, const char *path)
{
	struct sent *f;

	for (f = files; f; f = f->next)
		if (!strcmp(f->party, party) && !strcmp(f->path, path))
			return f;
	return NULL;
}

static void sent_free(struct sent *f)
{
	free(f->party);
	free(f->path);
	free(f->sha256);
	free(f->error);
	free(f->spool);
	free(f);
}

static json_t *sent_json(const struct sent *f)
{
	return json_pack(
	    "{s:s, s:s, s:I, s:I, s:s, s:i, s:s, s:I, s:I, s:i, s:s*}", "path",
	    f->path, "sha256", f->sha256, "size", (json_int_t)f->size,
	    "generation", (json_int_t)f->generation, "status",
	    status_names[f->status == SENDING ? QUEUED : f->status], "error_no",
	    f->error_no, "error", f->error ? f->error : "", "queued_ms",
	    (json_int_t)f->queued_ms, "committed_ms",
	    (json_int_t)f->committed_ms, "attempts", (int)f->attempts, "spool",
	    f->spool);
}

/* lock held */
static int journal(struct site *s, const char *party, struct err *e)
{
	_cleanup_free_ char *path =
	    xasprintf("%s/transfer/files/%s.json", s->conf->state, party);
	json_t *a = json_array();
	int r;

	for (const struct sent *f = files; f; f = f->next)
		if (!strcmp(f->party, party))
			json_array_append_new(a, sent_json(f));
	r = json_write_file(path, a, 0600, true, e);
	json_decref(a);
	return r;
}

static int digest_file(int fd, uint64_t size, char ret[65], struct err *e)
{
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	uint8_t out[32];
	char piece[65536];
	uint64_t at = 0;
	int r = 0;

	if (!md || !EVP_DigestInit_ex(md, EVP_sha256(), NULL))
		r = -ENOMEM;
	while (!r && at < size) {
		size_t n = (size_t)MIN(sizeof(piece), size - at);

		r = pread_all(fd, piece, n, at);
		if (!r && !EVP_DigestUpdate(md, piece, n))
			r = -ENOMEM;
		at += n;
	}
	if (!r && !EVP_DigestFinal_ex(md, out, NULL))
		r = -ENOMEM;
	EVP_MD_CTX_free(md);
	if (r)
		return err_sys(e, -r, "digest");
	hex_encode(out, sizeof(out), ret);
	return 0;
}

/* The directory that holds path below dir, made when missing. */
static int parent_beneath(const char *dir, const char *path)
{
	_cleanup_free_ char *p = xstrdup(path);
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char *slash, *at = p;

	while (fd >= 0 && (slash = strchr(at, '/'))) {
		int sub;

		*slash = '\0';
		if (mkdirat(fd, at, 0700) && errno != EEXIST) {
			sub = -errno;
		} else {
			sub = openat(fd, at,
				     O_RDONLY | O_DIRECTORY | O_NOFOLLOW |
					 O_CLOEXEC);
			if (sub < 0)
				sub = -errno;
			else
				(void)fsync(fd);
		}
		close(fd);
		fd = sub;
		at = slash + 1;
	}
	return fd == -1 ? -errno : fd;
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

int file_open_out(struct site *s, const char *party, const char *path)
{
	_cleanup_free_ char *out =
	    xasprintf("%s/federation/%s/out", s->conf->state, party);
	_cleanup_close_ int parent = parent_beneath(out, path);
	int fd;

	if (parent < 0)
		return parent;
	fd = openat(parent, last_part(path), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int file_put(struct site *s, const char *party, const char *path,
	     const char *spool, struct err *e)
{
	_cleanup_free_ char *out = NULL, *base = NULL, *url = NULL;
	_cleanup_close_ int fd = -1, parent = -1;
	struct sent *f;
	struct stat st;
	char sha[65];
	int r;

	if (!party_id_valid(party) || !path_valid(path))
		return err_set(e, EINVAL, "not a path: %.200s", path);
	url = party_address(s->conf, party);
	if (!url || !strcmp(party, s->conf->party))
		return err_set(e, EHOSTUNREACH, "no party %s is configured",
			       party);
	base = xasprintf("%s/federation/%s/spool/", s->conf->state, party);
	if (strncmp(spool, base, strlen(base)) ||
	    strchr(spool + strlen(base), '/'))
		return err_set(e, EINVAL, "not a spool file");
	fd = open(spool, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		return err_sys(e, errno, "%s", spool);
	r = digest_file(fd, (uint64_t)st.st_size, sha, e);
	if (!r && fsync(fd))
		r = err_sys(e, errno, "%s", spool);
	if (r)
		return r;
	out = xasprintf("%s/federation/%s/out", s->conf->state, party);
	r = mkdir_p(out, 0700, e);
	if (r)
		return r;
	parent = parent_beneath(out, path);
	if (parent < 0)
		return err_sys(e, -parent, "%s", path);
	pthread_mutex_lock(&s->lock);
	f = find_sent(party, path);
	if (!f) {
		f = xcalloc(1, sizeof(*f));
		f->party = xstrdup(party);
		f->path = xstrdup(path);
		f->next = files;
		files = f;
	}
	free(f->sha256);
	free(f->error);
	f->error = NULL;
	f->sha256 = xstrdup(sha);
	f->size = (uint64_t)st.st_size;
	last_generation =
	    MAX(last_generation + 1, (uint64_t)now_unix_ms() * 1000);
	f->generation = last_generation;
	f->status = QUEUED;
	f->acknowledged = 0;
	f->attempts = 0;
	f->error_no = 0;
	f->next_try = 0;
	f->queued_ms = now_unix_ms();
	f->committed_ms = 0;
	/* The journal names the spool file first: whoever dies between the two
	 * finds the rename to be done, or done. */
	free(f->spool);
	f->spool = xstrdup(spool + strlen(base));
	r = journal(s, party, e);
	if (!r && (renameat(AT_FDCWD, spool, parent, last_part(path)) ||
		   fsync(parent)))
		r = err_sys(e, errno, "%s", path);
	if (r) {
		f->status = FAILED;
		f->error_no = -r;
	}
	free(f->spool);
	f->spool = NULL;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	peer_file_wake(s, party);
	return r;
}

static void forget_sent(struct sent *f)
{
	struct sent **p;

	for (p = &files; *p && *p != f; p = &(*p)->next)
		;
	if (*p)
		*p = f->next;
	sent_free(f);
}

int file_remove(struct site *s, const char *party, const char *path,
		struct err *e)
{
	_cleanup_free_ char *out = NULL;
	_cleanup_close_ int parent = -1;
	struct sent *f;
	int r = 0;

	if (!party_id_valid(party) || !path_valid(path))
		return err_set(e, EINVAL, "not a path: %.200s", path);
	out = xasprintf("%s/federation/%s/out", s->conf->state, party);
	parent = parent_beneath(out, path);
	if (parent < 0)
		return err_sys(e, -parent, "%s", path);
	pthread_mutex_lock(&s->lock);
	if (unlinkat(parent, last_part(path), 0) && errno != ENOENT)
		r = err_sys(e, errno, "%s", path);
	f = find_sent(party, path);
	if (!r && f) {
		forget_sent(f);
		r = journal(s, party, e);
	}
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	return r;
}

int file_wait(struct site *s, const char *party, const char *path, int client)
{
	int r = -EAGAIN;

	pthread_mutex_lock(&s->lock);
	while (r == -EAGAIN) {
		const struct sent *f = find_sent(party, path);

		if (!f)
			r = -ENOENT;
		else if (f->status == COMMITTED)
			r = 0;
		else if (f->status == FAILED)
			r = f->error_no ? -f->error_no : -EIO;
		else if (!site_wait(s, client, 5000))
			r = -EPIPE;
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

static double rate(const struct sent *f)
{
	int64_t ms = now_mono_ms() - f->started_mono;

	return f->status == SENDING && ms > 0
		   ? (double)f->acknowledged * 1000 / (double)ms
		   : 0;
}

json_t *file_state(struct site *s, const char *party, const char *path)
{
	const struct sent *f;
	json_t *o = NULL;

	pthread_mutex_lock(&s->lock);
	f = find_sent(party, path);
	if (f)
		o = json_pack("{s:s, s:I, s:I, s:f, s:i, s:s, s:f, s:s}",
			      "state", status_names[f->status], "size",
			      (json_int_t)f->size, "acknowledged",
			      (json_int_t)f->acknowledged, "rate", rate(f),
			      "attempts", (int)f->attempts, "error",
			      f->error ? f->error : "", "next_try",
			      f->next_try > now_mono_ms()
				  ? (double)(f->next_try - now_mono_ms()) / 1000
				  : 0.0,
			      "sha256", f->sha256);
	pthread_mutex_unlock(&s->lock);
	return o;
}

char *file_transfers(struct site *s, const char *party)
{
	struct strbuf sb = STRBUF_INIT(16u << 20);
	char when[40];

	pthread_mutex_lock(&s->lock);
	for (const struct sent *f = files; f; f = f->next) {
		if (strcmp(f->party, party))
			continue;
		time_rfc3339(when, sizeof(when), f->queued_ms);
		sb_addf(&sb, "%s %s %llu/%llu bytes %.0f B/s attempts %u %s",
			when, status_names[f->status],
			(unsigned long long)f->acknowledged,
			(unsigned long long)f->size, rate(f), f->attempts,
			f->path);
		if (f->error && *f->error)
			sb_addf(&sb, " error: %s", f->error);
		sb_addc(&sb, '\n');
	}
	pthread_mutex_unlock(&s->lock);
	return sb_detach(&sb);
}

bool file_next(struct site *s, const char *party, struct file_job *ret,
	       unsigned *ret_wait_ms)
{
	struct sent *best = NULL;
	int64_t now = now_mono_ms(), wait = 60000;

	pthread_mutex_lock(&s->lock);
	for (struct sent *f = files; f; f = f->next) {
		if (strcmp(f->party, party) ||
		    (f->status != QUEUED && f->status != SENDING))
			continue;
		if (f->next_try > now)
			wait = MIN(wait, f->next_try - now);
		else if (!best || f->generation < best->generation)
			best = f;
	}
	if (best) {
		best->status = SENDING;
		best->started_mono = now;
		best->attempts++;
		*ret = (struct file_job){ .path = xstrdup(best->path),
					  .sha256 = xstrdup(best->sha256),
					  .size = best->size,
					  .generation = best->generation };
	}
	pthread_mutex_unlock(&s->lock);
	*ret_wait_ms = (unsigned)wait;
	return best != NULL;
}

void file_job_free(struct file_job *j)
{
	free(j->path);
	free(j->sha256);
}

bool file_progress(struct site *s, const char *party, const char *path,
		   uint64_t generation, uint64_t bytes)
{
	struct sent *f;
	bool wanted;

	pthread_mutex_lock(&s->lock);
	f = find_sent(party, path);
	wanted = f && f->generation == generation;
	if (wanted)
		f->acknowledged = bytes;
	pthread_mutex_unlock(&s->lock);
	return wanted;
}

void file_done(struct site *s, const char *party, const char *path,
	       uint64_t generation, int status, bool final, const char *error)
{
	struct sent *f;

	pthread_mutex_lock(&s->lock);
	f = find_sent(party, path);
	/* Written again or removed meanwhile: this answer is about the past. */
	if (f && f->generation == generation) {
		free(f->error);
		f->error = xasprintf("%.300s", error);
		f->error_no = -status;
		if (!status) {
			f->status = COMMITTED;
			f->acknowledged = f->size;
			f->committed_ms = now_unix_ms();
		} else if (final) {
			f->status = FAILED;
		} else {
			f->status = QUEUED;
			f->acknowledged = 0;
			f->next_try = now_mono_ms() +
				      MIN(100 << MIN(f->attempts, 9u), 30000);
		}
		if (journal(s, party, NULL))
			log_warn("rollsite", "cannot write the file journal");
		pthread_cond_broadcast(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
}

/* ---- receiving -------------------------------------------------------- */

static struct receipt *find_receipt(const char *party, const char *path)
{
	struct receipt *r;

	for (r = receipts; r; r = r->next)
		if (!strcmp(r->party, party) && !strcmp(r->path, path))
			return r;
	return NULL;
}

int file_accept(struct site *s, const char *party, const char *path,
		uint64_t generation, const char *sha256, struct err *e)
{
	_cleanup_free_ char *allow = party_allow(s->conf, party);
	const struct receipt *x;
	int r = 0;

	if (!path_valid(path) || !hex64_valid(sha256)) {
		log_warn("audit", "party %s: a file path was refused", party);
		return err_set(e, EACCES, "not allowed");
	}
	if (!allow_permits(allow, "push", "*"))
		return err_set(e, EACCES, "not allowed");
	pthread_mutex_lock(&s->lock);
	x = find_receipt(party, path);
	if (x && x->generation == generation)
		r = strcmp(x->sha256, sha256) ? -EEXIST : 1;
	else if (x && x->generation > generation)
		r = 1; /* a newer one is here already */
	pthread_mutex_unlock(&s->lock);
	return r < 0 ? err_set(e, -r, "the same generation with other content")
		     : r;
}

char *file_temp(struct site *s, const char *party)
{
	static unsigned counter;
	_cleanup_free_ char *dir =
	    xasprintf("%s/federation/%s", s->conf->state, party);
	_cleanup_free_ char *in = xasprintf("%s/in", dir);
	_cleanup_free_ char *arriving = xasprintf("%s/arriving", dir);

	if (mkdir_p(in, 0700, NULL) || mkdir_p(arriving, 0700, NULL))
		return NULL;
	return xasprintf("%s/%d.%u", arriving, (int)getpid(),
			 __atomic_add_fetch(&counter, 1, __ATOMIC_RELAXED));
}

static void inbox_changed(struct site *s, const char *party, const char *path)
{
	struct inbox_event *x = xcalloc(1, sizeof(*x)), **p;
	unsigned n = 0;

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
	pthread_cond_broadcast(&s->changed);
}

int file_publish(struct site *s, const char *party, const char *path,
		 uint64_t generation, const char *sha256, const char *tmp,
		 struct err *e)
{
	_cleanup_free_ char *in =
	    xasprintf("%s/federation/%s/in", s->conf->state, party);
	_cleanup_free_ char *log =
	    xasprintf("%s/transfer/files/%s.receipts", s->conf->state, party);
	_cleanup_free_ char *enc = percent_encode(path), *line = NULL;
	_cleanup_close_ int parent = parent_beneath(in, path), fd = -1;
	struct receipt *x;
	int r = 0;

	if (parent == -ELOOP || parent == -ENOTDIR) {
		log_warn("audit", "party %s: a file path was refused", party);
		return err_set(e, EACCES, "not allowed");
	}
	if (parent < 0) /* no space ...: the partner tries again */
		return err_sys(e, -parent, "inbox");
	line = xasprintf("%llu %s %s\n", (unsigned long long)generation, sha256,
			 enc);
	pthread_mutex_lock(&s->lock);
	x = find_receipt(party, path);
	if (x && x->generation >= generation) {
		pthread_mutex_unlock(&s->lock);
		(void)unlink(tmp);
		return 0;
	}
	if (!renameat(AT_FDCWD, tmp, parent, last_part(path)))
		r = fsync(parent) ? err_sys(e, errno, "inbox") : 0;
	else if (errno == EISDIR)
		r = err_set(e, EEXIST, "a directory has this name");
	else
		r = err_sys(e, errno, "inbox");
	fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (!r && (fd < 0 || write_all(fd, line, strlen(line)) || fsync(fd)))
		r = err_sys(e, errno ? errno : EIO, "%s", log);
	if (!r) {
		if (!x) {
			x = xcalloc(1, sizeof(*x));
			x->party = xstrdup(party);
			x->path = xstrdup(path);
			x->next = receipts;
			receipts = x;
		}
		x->generation = generation;
		memcpy(x->sha256, sha256, 65);
		inbox_changed(s, party, path);
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

/* ---- start ------------------------------------------------------------ */

static void load_receipts(const char *party, const char *file)
{
	_cleanup_fclose_ FILE *f = fopen(file, "re");
	_cleanup_free_ char *line = NULL;
	size_t size = 0;

	while (f && getline(&line, &size, f) > 0) {
		unsigned long long generation;
		char sha[65];
		int at = 0;
		_cleanup_free_ char *path = NULL;
		struct receipt *x;

		/* A torn last line (power cut) parses to nothing. */
		if (sscanf(line, "%llu %64s %n", &generation, sha, &at) != 2 ||
		    !at || !strchr(line, '\n') || !hex64_valid(sha))
			continue;
		line[strcspn(line, "\n")] = '\0';
		path = percent_decode(line + at);
		if (!path || !path_valid(path))
			continue;
		x = find_receipt(party, path);
		if (!x) {
			x = xcalloc(1, sizeof(*x));
			x->party = xstrdup(party);
			x->path = TAKE_PTR(path);
			x->next = receipts;
			receipts = x;
		}
		x->generation = generation;
		memcpy(x->sha256, sha, 65);
	}
}

/* A put that was cut off between its journal and its rename. */
static void finish_rename(struct site *s, const char *party, const char *path,
			  const char *spool)
{
	_cleanup_free_ char *dir =
	    xasprintf("%s/federation/%s", s->conf->state, party);
	_cleanup_free_ char *out = xasprintf("%s/out", dir);
	_cleanup_free_ char *from = xasprintf("%s/spool/%s", dir, spool);
	_cleanup_close_ int parent = -1;

	if (!*spool || strchr(spool, '/') || !path_valid(path))
		return;
	parent = parent_beneath(out, path);
	if (parent < 0 ||
	    (renameat(AT_FDCWD, from, parent, last_part(path)) &&
	     errno != ENOENT) ||
	    fsync(parent))
		log_warn("rollsite",
			 "a file for party %s cannot be put into "
			 "its place",
			 party);
}

static void load_sent(struct site *s, const char *party, const json_t *list)
{
	json_t *o;
	size_t i;

	json_array_foreach (list, i, o) {
		const char *status = json_str_or(o, "status", "queued");
		struct sent *f = xcalloc(1, sizeof(*f));

		f->party = xstrdup(party);
		f->path = xstrdup(json_str_or(o, "path", ""));
		f->sha256 = xstrdup(json_str_or(o, "sha256", ""));
		f->error = xstrdup(json_str_or(o, "error", ""));
		f->size = (uint64_t)json_int_or(o, "size", 0);
		f->generation = (uint64_t)json_int_or(o, "generation", 0);
		f->error_no = (int)json_int_or(o, "error_no", 0);
		finish_rename(s, party, f->path, json_str_or(o, "spool", ""));
		f->queued_ms = json_int_or(o, "queued_ms", 0);
		f->committed_ms = json_int_or(o, "committed_ms", 0);
		f->status = !strcmp(status, "committed") ? COMMITTED
			    : !strcmp(status, "failed")	 ? FAILED
							 : QUEUED;
		if (f->status == COMMITTED)
			f->acknowledged = f->size;
		last_generation = MAX(last_generation, f->generation);
		f->next = files;
		files = f;
	}
}

/* Sent files are kept for a while after their commit. */
static void expire(struct site *s)
{
	struct sent *next;

	for (struct sent *f = files; f; f = next) {
		next = f->next;
		if (f->status != COMMITTED ||
		    f->committed_ms + KEEP_MS > now_unix_ms())
			continue;
		{
			_cleanup_free_ char *party = xstrdup(f->party);
			_cleanup_free_ char *path = xstrdup(f->path);

			if (file_remove(s, party, path, NULL))
				log_warn("rollsite", "cannot remove an old "
						     "file");
		}
	}
}

int file_open(struct site *s, struct err *e)
{
	_cleanup_free_ char *dir =
	    xasprintf("%s/transfer/files", s->conf->state);
	_cleanup_closedir_ DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *p = xasprintf("%s/%s", dir, de->d_name);
		char party[16] = "";
		size_t n = strspn(de->d_name, "0123456789");
		json_t *o;

		if (!n || n > 10)
			continue;
		memcpy(party, de->d_name, n);
		if (!strcmp(de->d_name + n, ".receipts"))
			load_receipts(party, p);
		if (strcmp(de->d_name + n, ".json"))
			continue;
		o = json_read_file(p, e);
		if (!o)
			return -EIO;
		load_sent(s, party, o);
		json_decref(o);
	}
	expire(s);
	return 0;
}
