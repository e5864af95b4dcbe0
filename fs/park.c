// SPDX-License-Identifier: Apache-2.0
/*
 * Parked requests, threads for what takes long, and the one thread that
 * notifies the kernel.
 *
 * A parked request is answered by whoever takes it first: the callback, the
 * interrupt, or umount.  Three references: the handler that arms it, the
 * callback, and the interrupt function (until it is unset).  libfuse may call
 * the interrupt function inside fuse_req_interrupt_func with the request
 * locked; replying there would free what it still holds, so until the request
 * is armed an interrupt is only remembered.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "fs/fs.h"

enum park_state { ARMING, ARMED, TAKEN };

struct park {
	struct park *next, *prev;
	fuse_req_t req;
	enum park_state state;
	bool interrupted;
	unsigned refs;
	uint64_t number;
	bool (*cancel)(void *arg, uint64_t number);
	void *arg;
};

static pthread_mutex_t park_lock = PTHREAD_MUTEX_INITIALIZER;
static struct park *parks;

static void park_unref(struct park *p, unsigned n)
{
	bool last;

	pthread_mutex_lock(&park_lock);
	p->refs -= n;
	last = p->refs == 0;
	pthread_mutex_unlock(&park_lock);
	if (last) {
		free(p->arg);
		free(p);
	}
}

/* With the lock held. */
static void take(struct park *p)
{
	p->state = TAKEN;
	if (p->prev)
		p->prev->next = p->next;
	else
		parks = p->next;
	if (p->next)
		p->next->prev = p->prev;
}

/* Nobody will answer but us; gives back refs references and, when it will not
 * come, the callback's. */
static void give_up(struct park *p, unsigned refs)
{
	uint64_t number;

	fuse_reply_err(p->req, EINTR);
	pthread_mutex_lock(&park_lock);
	number = p->number;
	pthread_mutex_unlock(&park_lock);
	if (number && p->cancel && p->cancel(p->arg, number))
		refs++; /* the callback's */
	park_unref(p, refs);
}

static void on_interrupt(fuse_req_t r, void *data)
{
	struct park *p = data;
	bool ours = false;

	(void)r;
	pthread_mutex_lock(&park_lock);
	if (p->state == ARMED) {
		take(p);
		ours = true;
	} else {
		p->interrupted = true;
	}
	pthread_mutex_unlock(&park_lock);
	if (ours)
		give_up(p, 1);
}

struct park *park_new(fuse_req_t r, bool (*cancel)(void *arg, uint64_t number),
		      void *arg)
{
	struct park *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->req = r;
	p->refs = 3;
	p->cancel = cancel;
	p->arg = arg;
	pthread_mutex_lock(&park_lock);
	p->next = parks;
	if (parks)
		parks->prev = p;
	parks = p;
	pthread_mutex_unlock(&park_lock);
	fuse_req_interrupt_func(r, on_interrupt, p);
	return p;
}

void park_arm(struct park *p, uint64_t number)
{
	bool ours = false;

	pthread_mutex_lock(&park_lock);
	p->number = number;
	if (p->state == ARMING && p->interrupted) {
		take(p);
		ours = true;
	} else if (p->state == ARMING) {
		p->state = ARMED;
	}
	pthread_mutex_unlock(&park_lock);
	if (ours) {
		fuse_req_interrupt_func(p->req, NULL, NULL);
		give_up(p, 2);
	} else {
		park_unref(p, 1);
	}
}

fuse_req_t park_take(struct park *p)
{
	fuse_req_t r = NULL;

	pthread_mutex_lock(&park_lock);
	if (p->state != TAKEN) {
		take(p);
		r = p->req;
	}
	pthread_mutex_unlock(&park_lock);
	if (r) /* waits for an interrupt function that runs */
		fuse_req_interrupt_func(r, NULL, NULL);
	park_unref(p, r ? 2 : 1);
	return r;
}

void park_abort_all(void)
{
	for (;;) {
		struct park *p;

		pthread_mutex_lock(&park_lock);
		for (p = parks; p && p->state != ARMED; p = p->next)
			;
		if (p)
			take(p);
		pthread_mutex_unlock(&park_lock);
		if (!p)
			break;
		fuse_req_interrupt_func(p->req, NULL, NULL);
		give_up(p, 1);
	}
}

/* ---- what takes long ---------------------------------------------------- */

struct task {
	void (*fn)(void *arg);
	void *arg;
};
static pthread_mutex_t aside_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t aside_done = PTHREAD_COND_INITIALIZER;
static unsigned asides;

static void *run_aside(void *arg)
{
	struct task t = *(struct task *)arg;

	free(arg);
	t.fn(t.arg);
	pthread_mutex_lock(&aside_lock);
	if (!--asides)
		pthread_cond_broadcast(&aside_done);
	pthread_mutex_unlock(&aside_lock);
	return NULL;
}

void aside(void (*fn)(void *arg), void *arg)
{
	struct task *t = calloc(1, sizeof(*t));
	pthread_t id;

	if (!t) {
		fn(arg);
		return;
	}
	*t = (struct task){ fn, arg };
	pthread_mutex_lock(&aside_lock);
	asides++;
	pthread_mutex_unlock(&aside_lock);
	if (pthread_create(&id, NULL, run_aside, t))
		(void)run_aside(t);
	else
		pthread_detach(id);
}

void aside_wait(void)
{
	pthread_mutex_lock(&aside_lock);
	while (asides)
		pthread_cond_wait(&aside_done, &aside_lock);
	pthread_mutex_unlock(&aside_lock);
}

/* ---- notifications ---------------------------------------------------- */

enum note_kind { NOTE_ENTRY, NOTE_EXPIRE, NOTE_INODE, NOTE_POLL, NOTE_REPLY };
struct note {
	struct note *next;
	enum note_kind kind;
	fuse_ino_t ino;
	fuse_req_t req; /* of NOTE_REPLY, and what to answer */
	int status;
	char name[];
};
struct poller {
	struct poller *next;
	struct fuse_pollhandle *ph;
};
static pthread_mutex_t note_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t note_cond = PTHREAD_COND_INITIALIZER;
static struct note *notes, **notes_end = &notes;
static struct poller *pollers;
static bool note_stop, note_poll_queued;
static atomic_uint note_count;
static pthread_t note_thread;
static bool note_running;

static void note_add(enum note_kind kind, fuse_ino_t ino, const char *name)
{
	size_t n = name ? strlen(name) + 1 : 1;
	struct note *x = calloc(1, sizeof(*x) + n);

	if (!x) /* timeouts are the bound of correctness, this is for speed */
		return;
	x->kind = kind;
	x->ino = ino;
	if (name)
		memcpy(x->name, name, n);
	pthread_mutex_lock(&note_lock);
	if (note_stop || (kind == NOTE_POLL && note_poll_queued)) {
		free(x);
	} else {
		note_poll_queued |= kind == NOTE_POLL;
		*notes_end = x;
		notes_end = &x->next;
		note_count++;
		pthread_cond_signal(&note_cond);
	}
	pthread_mutex_unlock(&note_lock);
}

void notify_entry(fuse_ino_t dir, const char *name)
{
	note_add(NOTE_ENTRY, dir, name);
}

void notify_expire(fuse_ino_t dir, const char *name)
{
	note_add(NOTE_EXPIRE, dir, name);
}

void notify_inode(fuse_ino_t ino)
{
	note_add(NOTE_INODE, ino, NULL);
}

void notify_attr_now(fuse_ino_t ino)
{
	(void)fuse_lowlevel_notify_inval_inode(fs.session, ino, -1, 0);
}

void notify_reply(fuse_req_t r, int status)
{
	struct note *x = calloc(1, sizeof(*x) + 1);

	pthread_mutex_lock(&note_lock);
	if (x && !note_stop && note_running) {
		x->kind = NOTE_REPLY;
		x->req = r;
		x->status = status;
		*notes_end = x;
		notes_end = &x->next;
		note_count++;
		pthread_cond_signal(&note_cond);
		x = NULL;
		r = NULL;
	}
	pthread_mutex_unlock(&note_lock);
	if (r)
		fuse_reply_err(r, -status);
	free(x);
}

unsigned notify_waiting(void)
{
	return note_count;
}

void notify_pollers(void)
{
	note_add(NOTE_POLL, 0, NULL);
}

void poller_add(struct fuse_pollhandle *ph)
{
	struct poller *x;

	if (!ph)
		return;
	x = calloc(1, sizeof(*x));
	if (!x) {
		fuse_pollhandle_destroy(ph);
		return;
	}
	x->ph = ph;
	pthread_mutex_lock(&note_lock);
	x->next = pollers;
	pollers = x;
	pthread_mutex_unlock(&note_lock);
}

static void wake_pollers(bool notify)
{
	struct poller *list, *next;

	pthread_mutex_lock(&note_lock);
	list = pollers;
	pollers = NULL;
	note_poll_queued = false;
	pthread_mutex_unlock(&note_lock);
	for (; list; list = next) {
		next = list->next;
		if (notify)
			fuse_lowlevel_notify_poll(list->ph);
		fuse_pollhandle_destroy(list->ph);
		free(list);
	}
}

/* Kernels before 6.2 can only drop it. */
static void expire_entry(fuse_ino_t dir, const char *name)
{
	size_t n = strlen(name);

	if (fuse_lowlevel_notify_expire_entry(fs.session, dir, name, n,
					      FUSE_LL_EXPIRE_ONLY) == -ENOSYS)
		fuse_lowlevel_notify_inval_entry(fs.session, dir, name, n);
}

static void *notifier(void *arg)
{
	(void)arg;
	for (;;) {
		struct note *x;

		pthread_mutex_lock(&note_lock);
		while (!notes && !note_stop)
			pthread_cond_wait(&note_cond, &note_lock);
		x = notes;
		if (x) {
			notes = x->next;
			if (!notes)
				notes_end = &notes;
		}
		pthread_mutex_unlock(&note_lock);
		if (!x)
			return NULL;
		if (x->kind == NOTE_ENTRY)
			fuse_lowlevel_notify_inval_entry(
			    fs.session, x->ino, x->name, strlen(x->name));
		else if (x->kind == NOTE_EXPIRE)
			expire_entry(x->ino, x->name);
		else if (x->kind == NOTE_INODE)
			fuse_lowlevel_notify_inval_inode(fs.session, x->ino, -1,
							 0);
		else if (x->kind == NOTE_REPLY)
			fuse_reply_err(x->req, -x->status);
		else
			wake_pollers(true);
		free(x);
		note_count--;
	}
}

int notifier_start(struct err *e)
{
	int no = pthread_create(&note_thread, NULL, notifier, NULL);

	if (no)
		return err_set(e, no, "no thread for notifications");
	note_running = true;
	return 0;
}

void notifier_stop(void)
{
	pthread_mutex_lock(&note_lock);
	note_stop = true;
	while (notes) {
		struct note *x = notes;

		notes = x->next;
		if (x->kind == NOTE_REPLY)
			fuse_reply_err(x->req, -x->status);
		free(x);
	}
	notes_end = &notes;
	pthread_cond_signal(&note_cond);
	pthread_mutex_unlock(&note_lock);
	if (note_running)
		pthread_join(note_thread, NULL);
	note_running = false;
	wake_pollers(false);
}
