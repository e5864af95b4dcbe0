// SPDX-License-Identifier: Apache-2.0
/*
 * rollsite CONFIG: the only process of a party that talks to the network and
 * the only one that reads the TLS key.  rollsite --doctor CONFIG: doctor.c.
 */
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include "lib/log.h"
#include "lib/version.h"

#include "transfer/transfer.h"
#include "transfer/transfer_priv.h"

static struct site site;

static int take_lock(const struct conf *c, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/rollsite.lock", c->state);
	int fd, r = mkdir_p_durable(c->state, 0700, e);

	if (r)
		return r;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, errno, "%s", path);
	r = lock_try(fd);
	if (r)
		return err_set(e, EBUSY, "another rollsite runs for %s",
			       c->state);
	return 0; /* held until the process ends */
}

#define SWEEP_MS 3600000

/* Ends when told to, or, for one that rollfs started, when nobody has held
 * the party's lock for lease seconds; it looks only while no rollfs is
 * connected. */
static void wait_for_end(struct site *s)
{
	_cleanup_free_ char *lock = xasprintf("%s/lock", s->conf->state);
	int64_t last = now_mono_ms(), swept = last;
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sig = signalfd(-1, &set, SFD_CLOEXEC);
	for (;;) {
		struct pollfd p[3] = { { .fd = s->stop, .events = POLLIN },
				       { .fd = sig, .events = POLLIN },
				       { .fd = s->nudge, .events = POLLIN } };
		bool watched;
		uint64_t n;

		pthread_mutex_lock(&s->lock);
		watched = s->watchers > 0;
		pthread_mutex_unlock(&s->lock);
		if (poll(p, 3, s->child && !watched ? 1000 : SWEEP_MS) < 0)
			continue;
		if (p[0].revents || p[1].revents)
			return;
		if (p[2].revents)
			(void)!read(s->nudge, &n, sizeof(n));
		if (now_mono_ms() - swept > SWEEP_MS) {
			in_sweep(s);
			file_sweep(s);
			swept = now_mono_ms();
		}
		if (!s->child)
			continue;
		if (watched || lock_held(lock))
			last = now_mono_ms();
		if (now_mono_ms() - last > (int64_t)s->conf->lease_s * 1000) {
			log_info("rollsite", "rollfs is gone: ending");
			return;
		}
	}
}

int main(int argc, char **argv)
{
	struct err e = { 0 };
	struct conf *c;
	sigset_t set;

	umask(077);
	if (argc == 3 && !strcmp(argv[1], "--doctor"))
		return doctor(argv[2]);
	if (argc != 2 || argv[1][0] == '-') {
		(void)fprintf(stderr,
			      "usage: rollsite CONFIG\n"
			      "       rollsite --doctor CONFIG\n"
			      "The network side of one party; with --doctor, "
			      "what is in the way of\nits transfers "
			      "(version %s).\n",
			      rollfs_version());
		return argc == 2 && !strcmp(argv[1], "--help") ? 0 : 2;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	/* Buffers of some hundred KiB come and go with each request: kept, not
	 * given back to the kernel, which would clear their pages again. */
	(void)mallopt(M_MMAP_THRESHOLD, 2 << 20);
	(void)mallopt(M_TRIM_THRESHOLD, 4 << 20);
	(void)mallopt(M_ARENA_MAX, 4);
	/* Each transfer that arrives has two files open, each partner
	 * connections. */
	files_many();
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (conf_load(argv[1], &c, &e) || take_lock(c, &e))
		goto bad;
	if (site_open(&site, c, getenv("ROLLFS_CHILD") != NULL, &e))
		goto bad;
	site.stop = eventfd(0, EFD_CLOEXEC);
	site.nudge = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	/* What is known from before, then the doors. */
	if (identity_open(c, &site.identity, &e) || route_start(&site, &e) ||
	    in_open(&site, &e) || peer_rescan(&site, &e) ||
	    file_open(&site, &e) || http_start(&site, &e) ||
	    unix_start(&site, &e))
		goto bad;
	if (c->listen_host)
		log_info("rollsite", "party %s listens on %s:%u", c->party,
			 c->listen_host, c->listen_port);
	else
		log_info("rollsite", "party %s does not listen", c->party);
	wait_for_end(&site);
	log_info("rollsite", "ended");
	_exit(0); /* what was acknowledged is on disk; threads just stop */
bad:
	(void)fprintf(stderr, "rollsite: %s\n", e.text);
	/* Threads may be at work already: nothing is freed. */
	_exit(e.no == EBUSY ? SITE_BUSY : 1);
}
