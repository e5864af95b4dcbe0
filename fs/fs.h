/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mount: FUSE requests to jobs, tables, parties and files.
 *
 * Node ids are computed, not allocated: [kind:8][number:44][slot:12].  number
 * is a persistent one (of a job, a task, a table, a generation, a party), slot
 * says which file inside the object.  Only real files (what is written to
 * federation/ and files under temporary names: real.c), rows, and what is
 * known by its path (named.c) have a table of nodes with lookup counts.
 *
 * One struct tree per kind answers for its nodes; mount.c hands the requests
 * out.  Functions of a tree return 0 or a negative errno; the text of a
 * refusal goes to errors_add().  Reads and writes go to the handle that open
 * made; its functions reply themselves, now or later (park.c).
 *
 * Locks: each file has at most one lock of its own, never held while calling
 * into another file of this folder, the scheduler or FUSE.
 */
#ifndef FS_FS_H
#define FS_FS_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include "lib/conf.h"
#include "lib/fileio.h"
#include "lib/json.h"
#include "lib/log.h"
#include "lib/table.h"

#include "transfer/transfer.h"

#include "scheduler/scheduler.h"

struct fs {
	struct conf *conf;
	struct table_store *tables;
	struct transfer *transfer;
	struct sched *sched;
	struct fuse_session *session;
	bool allow_other;
	uid_t uid;
	gid_t gid;
	int64_t started_ms;
	char *log; /* its path; NULL: standard error */
};
extern struct fs fs; /* set before the first request, constant after */

enum kind {
	K_STATIC, /* root is slot 1 = FUSE_ROOT_ID */
	K_JOB,
	K_TASK,
	K_NAMESPACE,
	K_TABLE,
	K_DATA, /* number = generation */
	K_PARTY,
	K_PEER, /* federation/<party>, its inbox and pull */
	K_COMPONENT,
	K_REAL,
	K_ROW,
	K_CURVE,  /* what a task writes while it learns */
	K_MODEL,  /* slot 1: as seen through models/models */
	K_COLUMN, /* a generation's data.npy and columns/ */
	KINDS
};

struct nid {
	enum kind kind;
	uint64_t number;
	unsigned slot;
};
#define NUMBER_BITS 44
#define SLOT_BITS   12
static inline fuse_ino_t nid_ino(enum kind k, uint64_t number, unsigned slot)
{
	return (uint64_t)k << (NUMBER_BITS + SLOT_BITS) | number << SLOT_BITS |
	       slot;
}
static inline struct nid ino_nid(fuse_ino_t i)
{
	return (struct nid){ (enum kind)(i >> (NUMBER_BITS + SLOT_BITS)),
			     i >> SLOT_BITS & ((1ull << NUMBER_BITS) - 1),
			     i & ((1u << SLOT_BITS) - 1) };
}
#define INO_UNKNOWN 0xffffffffu
#define INO_LOOKUP  0xfffffffeu /* listed: a lookup tells it */

/* What lookup and getattr find out. */
struct attr {
	struct stat st;	 /* st_ino set */
	fuse_ino_t node; /* 0: the same as st_ino */
	double entry_s, attr_s;
};

/* Who asks. */
struct who {
	fuse_req_t req;
	uid_t uid;
	pid_t pid; /* of the thread */
};

/* A directory listing being made. */
struct listing;
void listing_add(struct listing *l, const char *name, fuse_ino_t ino,
		 mode_t mode);

struct handle;
struct handle_ops {
	/* NULL members: fd or text is read; writes are refused. */
	void (*read)(fuse_req_t r, struct handle *h, size_t n, off_t off,
		     struct fuse_file_info *fi);
	void (*write)(fuse_req_t r, struct handle *h, const char *buf, size_t n,
		      off_t off);
	void (*flush)(fuse_req_t r, struct handle *h);
	void (*fsync)(fuse_req_t r, struct handle *h);
	void (*release)(struct handle *h); /* what the handle holds */
	/* POLLIN... that is ready now. */
	unsigned (*poll)(struct handle *h);
	int (*truncate)(struct handle *h, off_t size);
};
/* What a tree's open returns when the request is parked and reply_open() will
 * answer it. */
#define OPEN_LATER 1
void reply_open(fuse_req_t r, struct handle *h);
/* An open file. Members that matter to more than one kind. */
struct handle {
	struct handle *next, *prev; /* of all; handle.c's lock */
	const struct handle_ops *ops;
	struct nid nid;
	int flags; /* of open */
	int fd;	   /* served when >= 0 */
	struct strbuf text;
	struct table *table;
	struct table_view *view; /* its data.csv or one of its parts */
	unsigned part;		 /* 1 + number of the part, 0 = whole table */
	pid_t opener;		 /* thread group */
	uid_t uid;
	bool nonseekable, cached, killed;
	pthread_mutex_t lock; /* guards what ops keep below */
	void *own;
	uint64_t bytes;
	int failed; /* negative errno that writes give from now on */
};
struct handle *handle_new(const struct who *w, struct nid n, int flags,
			  const struct handle_ops *ops);
void handle_free(struct handle *h);
/* What is open still when nothing is served any more is dropped unfinished. */
void handles_end(void);
void listings_end(void); /* the same for directories */

/* The tree of one kind. NULL members answer EPERM (lookup: ENOENT). */
struct tree {
	int (*lookup)(const struct who *w, struct nid dir, const char *name,
		      struct attr *ret);
	int (*getattr)(const struct who *w, struct nid n, struct attr *ret);
	int (*list)(const struct who *w, struct nid dir, struct listing *l);
	int (*open)(const struct who *w, struct nid n, int flags,
		    struct handle **ret);
	int (*readlink)(struct nid n, struct strbuf *ret);
	int (*create)(const struct who *w, struct nid dir, const char *name,
		      mode_t mode, int flags, struct attr *ret,
		      struct handle **ret_h);
	int (*mkdir)(const struct who *w, struct nid dir, const char *name,
		     mode_t mode, struct attr *ret);
	int (*symlink)(const struct who *w, struct nid dir, const char *name,
		       const char *to, struct attr *ret);
	int (*unlink)(const struct who *w, struct nid dir, const char *name);
	int (*rmdir)(const struct who *w, struct nid dir, const char *name);
	int (*rename)(const struct who *w, struct nid dir, const char *name,
		      struct nid to, const char *to_name, unsigned flags);
	/* Size only; chmod, chown and times are tolerated or (real) done. */
	int (*truncate)(const struct who *w, struct nid n, off_t size);
	int (*setattr)(const struct who *w, struct nid n, const struct stat *st,
		       int valid);
	/* Appends "name\0value\0" pairs of user.rollfs.* attributes. */
	int (*xattrs)(struct nid n, struct strbuf *ret);
	/* name after "user.rollfs."; value NULL = removed. */
	int (*set_xattr)(const struct who *w, struct nid n, const char *name,
			 const char *value);
	/* Other user.* attributes, any bytes.  Names, each with its NUL; a
	 * value or -ENODATA; value NULL = removed. */
	int (*user_names)(struct nid n, struct strbuf *ret);
	int (*user_get)(struct nid n, const char *name, struct strbuf *ret);
	int (*user_set)(struct nid n, const char *name, const void *value,
			size_t len);
	/* Lookups of such entries (S_IF...) are cheap, and are done while the
	 * directory is listed: ls -l asks for all, find for directories. */
	bool (*plus)(struct nid dir, mode_t mode);
	/* Its listing changes only by requests, or is told (notify_inode): the
	 * kernel keeps it, so that find asks for it once. */
	bool (*steady)(struct nid dir);
	void (*forget)(struct nid n, uint64_t nlookup);
	/* From the top of the mount, for errors; nothing if it has gone. */
	void (*path)(struct nid n, struct strbuf *ret);
};
const struct tree *tree_of(struct nid n);
extern const struct tree tree_static, tree_jobs, tree_tasks, tree_tables,
    tree_data, tree_parties, tree_peers, tree_components, tree_real, tree_rows,
    tree_curves, tree_models, tree_columns;

/*
 * The tree is a table: the files of an object, one line each.  docs/mount.md
 * lists them for people; tests compare the two.
 */
struct ent {
	const char *name;
	unsigned slot;
	mode_t mode;
	unsigned flags;
};
#define E_HIDDEN 1u /* found by lookup, not listed */
#define E_EMPTY	 2u /* a missing file on disk reads as empty */
#define E_DISK	 4u /* a file of the object's directory on disk */
#define E_STREAM 8u
const struct ent *ent_by_name(const struct ent *t, size_t n, const char *name);
const struct ent *ent_by_slot(const struct ent *t, size_t n, unsigned slot);

/* ---- mount.c ---------------------------------------------------------- */
extern const struct fuse_lowlevel_ops mount_ops;

/* ---- handle.c: what trees have in common ------------------------------- */
/* Owner, group and the bits that others may have; times = now if 0. */
void attr_fill(struct attr *a, fuse_ino_t ino, mode_t mode, uint64_t size,
	       int64_t mtime_ms);
/* From a file on disk: kind, size, times. */
int attr_disk(struct attr *a, fuse_ino_t ino, mode_t mode, const char *path,
	      bool missing_is_empty);
/* And told in errors, if it is not yet. */
void reply_refused(fuse_req_t r, const struct handle *h, int no);
/* fn(r, h), which answers, in a thread of its own, for a flush or an fsync that
 * takes long: the kernel releases no handle before that. */
void handle_aside(fuse_req_t r, struct handle *h,
		  void (*fn)(fuse_req_t r, struct handle *h));
void reply_read_text(fuse_req_t r, const struct strbuf *t, size_t n, off_t off);
bool name_temporary(const char *name);
/* The same where no other names can be made: also what sed -i makes, what vim
 * tries a directory with, and the usual names of backups. */
bool name_beside(const char *name);
/* Opens STATE-side path for reading; a missing one gives an empty text. */
int open_disk(const struct who *w, struct nid n, int flags, const char *path,
	      bool missing_is_empty, struct handle **ret);
int open_text(const struct who *w, struct nid n, int flags, char *text,
	      struct handle **ret);

/* ---- lock.c: one rollfs for a state directory --------------------------- */
/* -EBUSY: another one has it; a dead one's mount is given up for it. */
int state_lock(int *ret_fd, struct err *e) MUST_CHECK;
/* For who finds it locked one day; after proc_mounted(). */
void state_lock_mounted(int fd, const char *mountpoint);

/* ---- proc.c: who flushes ---------------------------------------------- */
/* Once, when it is mounted. */
void proc_mounted(const char *mountpoint);
const char *proc_device(void); /* "MAJOR:MINOR" */
/* What is mounted there last is a rollfs, this one; asks nobody who may be
 * dead. */
bool proc_has_rollfs(const char *mountpoint, const char *device);
pid_t proc_tgid(pid_t tid);
enum closer {
	CLOSE_OTHER, /* a forked child, not the opener */
	CLOSE_OPENER,
	CLOSE_KILLED /* a signal ends the process */
};
enum closer proc_closer(const struct handle *h, fuse_req_t r);
/* By a signal, while it waits for an answer of ours. */
bool proc_being_killed(pid_t tid);

/* ---- park.c: requests that are answered later ------------------------- */
/* fn(arg) in a thread of its own: what takes long must not take one of the few
 * that answer requests.  Here and now when there can be no thread. */
void aside(void (*fn)(void *arg), void *arg);
/* Until all that is aside is done; before notifier_stop(). */
void aside_wait(void);

struct park;
/* cancel is called with the number given to park_arm when the reader is
 * interrupted; true = the callback will not come.  arg (malloc) is freed with
 * the park; it lives while cancel runs and until park_take. */
struct park *park_new(fuse_req_t r, bool (*cancel)(void *arg, uint64_t number),
		      void *arg);
/* After the asynchronous thing was started: its number. */
void park_arm(struct park *p, uint64_t number);
/* In the callback: the request if it is ours to answer, NULL if it was
 * interrupted.  Consumes the callback's reference. */
fuse_req_t park_take(struct park *p);
/* umount: everybody is answered with EINTR. */
void park_abort_all(void);

int notifier_start(struct err *e) MUST_CHECK;
void notifier_stop(void);
void notify_entry(fuse_ino_t dir, const char *name);
/* The name is looked up again; whose working directory it is keeps it. */
void notify_expire(fuse_ino_t dir, const char *name);
void notify_inode(fuse_ino_t ino);
/* Of its attributes, before the request is answered: the one notification that
 * waits for no lock of the kernel's. */
void notify_attr_now(fuse_ino_t ino);
/* Answered with 0 or a negative errno when the kernel has heard of what was
 * to be notified until now.  Not for requests that lock a directory. */
void notify_reply(fuse_req_t r, int status);
/* Notifications that are not with the kernel yet. */
unsigned notify_waiting(void);
void notify_pollers(void);
/* Takes over ph (may be NULL). */
void poller_add(struct fuse_pollhandle *ph);

/* ---- watch.c: the kernel hears of what other processes publish ---------- */
void watch_start(void);
void watch_stop(void);
/* All namespaces that the kernel knows are watched. */
bool watch_works(void);
/* A namespace that the kernel knows, or not any more. */
void watch_namespace(uint64_t id, const char *ns);
void watch_forget(uint64_t id);
/* The next write to the open file wakes up who polls. */
void watch_growth(int fd);
/* The kernel asks again for the attributes of a table's directories, and so for
 * listings that it keeps; before the present request is answered. */
void watch_touched(uint64_t table);
/* Another generation, or none: the same, and it forgets the names inside. */
void watch_changed(uint64_t table);
/* root.c: the directory /tables */
fuse_ino_t root_tables_ino(void);

/* ---- errors.c --------------------------------------------------------- */
void errors_add(uid_t uid, const char *what, int status, const char *text);
char *errors_text(uid_t uid);
/* Has this thread added one since it began with its request? */
void errors_begin(void);
bool errors_told(void);

/* ---- refusals.c --------------------------------------------------------- */
/* Returns no.  Tells in errors why, if nobody has and it does not say so
 * itself; what = as in "no file can be made" (here).  name in the directory
 * node, or NULL: node itself. */
int errors_refused(uid_t uid, fuse_ino_t node, const char *name, int no,
		   const char *what);
/* The same in any case, with that text. */
int errors_refused_as(uid_t uid, fuse_ino_t node, const char *name, int no,
		      const char *text);
void node_path(struct nid n, struct strbuf *ret);

/* ---- jobs.c, jobs_new.c ----------------------------------------------- */
int job_lookup(const char *name, struct attr *ret);
int jobs_list(struct listing *l);
int job_remove(const struct who *w, const char *name);
int jobs_new_open(const struct who *w, struct nid n, int flags,
		  struct handle **ret);
/* False also when there is no such job. */
bool job_ended(const char *id);
bool job_runs(const char *id);
/* A file that is only appended to: poll tells of what is new. */
extern const struct handle_ops grown_ops;

/* ---- named.c: nodes that are known by their path ----------------------- */
/* The path's number, with one more lookup by the kernel; early = a low one,
 * always the same of a path. */
int named_add(const char *path, bool early, uint64_t *ret);
/* The number it has or would get, for listings. */
uint64_t named_number(const char *path, bool early);
/* Whatever gets the name next is another node: to the kernel a directory that
 * was removed stays so. */
void named_removed(const char *path);
/* Caller frees; NULL = not known any more. */
char *named_path(uint64_t number);
void named_forget(struct nid n, uint64_t count);

/* ---- curves.c: metrics/ and checkpoints/ of a task --------------------- */
/* task is "<job>/<role>/<component>"; -ENOENT when it is another name. */
int curves_lookup(const char *task, const char *name, struct attr *ret);
void curves_list_task(const char *task, struct listing *l);

/* ---- tables*.c (tables_priv.h); upload.c: writing ----------------------- */
enum {
	T_DIR,
	T_SCHEMA,
	T_COUNT,
	T_OPTIONS, /* upload.json */
	T_PARTS,
	T_PARENTS,
	T_ROWS,
	T_WRITE,  /* data.csv as a writer sees it */
	T_MATRIX, /* data.npy as a writer sees it */
	T_COLUMNS,
	T_SINK, /* a file of columns/ as a writer sees it */
	T_PART0 = 1024,
	T_PARENT0 = 3072,
	T_GHOST0 = 4032, /* a link in parents/ that somebody made */
};
int namespace_lookup(const char *name, struct attr *ret);
int namespaces_list(struct listing *l);
int namespace_mkdir(const struct who *w, const char *name, mode_t mode,
		    struct attr *ret);
int namespace_rmdir(const struct who *w, const char *name);
int namespace_rename(const struct who *w, const char *name, const char *to,
		     unsigned flags);
/* The table a number means, if it still is that one. Caller frees. */
struct table_place {
	char *ns, *name;
	struct table_id id;
};
int table_place(uint64_t id, struct table_place *ret);
void table_place_free(struct table_place *p);
#define _cleanup_table_place_ _cleanup_(table_place_free)
/* Present generation; NULL and 0 = the table is empty. */
int table_now(uint64_t id, struct table **ret);
void table_refused(const struct who *w, uint64_t id, const char *file,
		   int status, const char *text);

/* Removes what a kill has left beside tables that are gone, and says in errors
 * which names were damaged. */
void tables_start(const struct table_swept *x);

int upload_open(const struct who *w, uint64_t id, int flags,
		struct handle **ret);
int options_open(const struct who *w, uint64_t id, int flags,
		 struct handle **ret);
/* Takes what is written and forgets it. */
int sink_open(const struct who *w, struct nid n, int flags,
	      struct handle **ret);
bool sink_is(const struct handle *h);
/* STATE/mount-tmp/upload-<id>.json */
char *options_path(uint64_t id);
/* The file becomes the table's data. */
int upload_file(const struct who *w, uint64_t id, const char *path);
/* The file becomes its upload.json, if it is one. */
int options_file(const struct who *w, uint64_t id, const char *path);
/* Somebody writes the table's data.csv now. */
bool upload_active(uint64_t id);
/* How far it is, in words; nothing when nobody does. */
void upload_progress(uint64_t id, struct strbuf *ret);
/* The time of what is being written, once it is published. */
void upload_time(uint64_t id, int64_t mtime_ns);
/* The whole of a published data.csv into a handle that uploads. */
int upload_link(struct handle *h, struct table *t);

/* ---- tables_columns.c: data.npy and columns/ ---------------------------- */
/* Before the store is closed. */
void table_columns_stop(void);

/* ---- models.c, models_write.c: /models --------------------------------- */
/* again: below models/models, which shows the same once more. */
int model_lookup(const char *name, bool again, struct attr *ret);
int models_list(bool again, struct listing *l);
int model_mkdir(const struct who *w, const char *name, bool again,
		struct attr *ret);
int model_rmdir(const struct who *w, const char *name);
void models_start(void);
/* Waits for the commands that run. */
void models_stop(void);

/* ---- parties.c -------------------------------------------------------- */
int party_lookup(const char *name, struct attr *ret);
int parties_list(struct listing *l);
int party_mkdir(const struct who *w, const char *name, struct attr *ret);
int party_rmdir(const struct who *w, const char *name);
bool party_known(const char *id);

/* ---- real*.c: files kept on disk, with a table of nodes ------------------ */
enum real_kind {
	REAL_OUT,  /* federation/<party>/..., sent by close */
	REAL_IN,   /* federation/<party>/inbox/..., what came */
	REAL_PULL, /* federation/<party>/pull/..., what came or will */
	/* Temporary names: in a table's directory, in its parts/ or columns/,
	 * in a party's directory of /parties. */
	REAL_TEMP,
	REAL_TEMP_PART,
	REAL_TEMP_COLUMN,
	REAL_TEMP_PARTY,
};
/* One place: the kind, its party or table, and the path below it. */
struct real_at {
	enum real_kind kind;
	uint64_t owner;
	const char *path; /* "" = the top */
};
int real_lookup(struct real_at at, struct attr *ret);
int real_list(struct real_at dir, struct listing *l);
int real_create(const struct who *w, struct real_at at, mode_t mode, int flags,
		struct attr *ret, struct handle **ret_h);
int real_mkdir(const struct who *w, struct real_at at, mode_t mode,
	       struct attr *ret);
int real_unlink(const struct who *w, struct real_at at);
int real_rmdir(const struct who *w, struct real_at at);
int real_rename(const struct who *w, struct real_at from, struct real_at to);
/* Where its bytes are now, and where they belong; caller frees. */
char *real_disk(struct real_at at);
char *real_disk_of(struct real_at at, bool temporary);
/* Under a temporary name: never sent. */
bool real_kept_here(struct real_at at);
bool real_exists(struct real_at at);
/* The place of a node; caller frees the path that *ret points to, and the
 * spool file it is written to (NULL: none; ret_pending may be NULL). */
int real_place(uint64_t number, struct real_at *ret, char **ret_path,
	       char **ret_pending);
/* The deadline of a file that is being written, for when it is handed over;
 * -ESTALE when it has been. */
int real_set_deadline(uint64_t number, int64_t unix_ms);
int real_attr(struct attr *a, uint64_t number, const char *disk);
/* Of one that is open and has no name any more; else -ESTALE. */
int real_unnamed_attr(uint64_t number, struct attr *ret);
int real_open(const struct who *w, struct nid n, int flags,
	      struct handle **ret);
int real_truncate(const struct who *w, struct nid n, off_t size);
void real_forget(struct nid n, uint64_t count);

/* real_xattr.c: user.* attributes, of what is kept here only. */
int real_user_names(struct nid n, struct strbuf *ret);
int real_user_get(struct nid n, const char *name, struct strbuf *ret);
int real_user_set(struct nid n, const char *name, const void *value,
		  size_t len);
/* chmod of a file beside a table; and what it was told, if it was. */
void real_chmod(const char *disk, mode_t mode);
bool real_chmoded(const char *disk, mode_t *ret);
/* The file on disk becomes the table's data: its attributes, too. */
int real_user_move(const char *disk, uint64_t table);

/* ---- pull.c ------------------------------------------------------------- */
/* Something came: who waits for it has it opened. */
void pull_wake(void);
int pull_getattr(uint64_t number, struct real_at at, struct attr *ret);

/* ---- federation.c ------------------------------------------------------ */
/* Makes the directories of all parties. */
int real_start(struct err *e) MUST_CHECK;
int peer_lookup(const char *name, struct attr *ret);
int peers_list(struct listing *l);

/* ---- rows.c: rows/<key> ------------------------------------------------ */
int row_lookup(uint64_t table, const char *name, struct attr *ret);
/* The first keys, and a name that says how many there are. */
int rows_list(struct table *t, struct listing *l);

/* ---- components.c ----------------------------------------------------- */
int component_lookup(const char *name, struct attr *ret);
int components_list(struct listing *l);

#endif
