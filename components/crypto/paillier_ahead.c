// SPDX-License-Identifier: Apache-2.0
/*
 * Randomisers made ahead: a thread that runs when the processor has nothing
 * else to do (SCHED_IDLE) fills a ring of encryptions of zero, and whoever
 * encrypts takes from it first. Each is taken once and wiped.
 *
 * The thread can be stopped by the scheduler at any moment and for long, so it
 * never holds a lock: it alone writes `made`, those who take have a lock of
 * their own and alone write `taken`.
 */
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>

#include "components/crypto/paillier_priv.h"

#define BLOCK	  8u	     /* made at once: what the end may wait for */
#define BYTES_MAX (4u << 20) /* of the ring */

struct paillier_ahead {
	const struct paillier_public *k;
	pthread_t thread;
	pthread_mutex_t lock; /* of `taken` */
	sem_t wake;
	uint64_t *rec;
	size_t room; /* records, a multiple of BLOCK */
	_Atomic size_t made, taken;
	_Atomic bool stop;
};

static void *fill(void *arg)
{
	struct paillier_ahead *a = arg;
	const struct sched_param param = { 0 };
	const size_t k = a->k->n2->k;

	(void)pthread_setschedparam(pthread_self(), SCHED_IDLE, &param);
	while (!a->stop) {
		const size_t at = a->made % a->room;

		if (a->made - a->taken > a->room - BLOCK) {
			while (sem_wait(&a->wake) && errno == EINTR)
				;
			continue;
		}
		paillier_noise(a->k, a->rec + at * k, NULL, BLOCK);
		a->made += BLOCK;
	}
	return NULL;
}

void paillier_ahead(const struct paillier_public *k, size_t n, unsigned threads)
{
	struct paillier_public *w = (struct paillier_public *)k;
	const size_t most = BYTES_MAX / (k->n2->k * sizeof(uint64_t));
	struct paillier_ahead *a;

	if (k->ahead || n == 0)
		return;
	/* Not by the idle thread, which would keep others waiting for it. */
	paillier_table(k, &w->fb, k->n2, k->hs, threads);
	a = xcalloc(1, sizeof(*a));
	a->k = k;
	a->room = (MIN(n, most) + BLOCK - 1) / BLOCK * BLOCK;
	a->rec = ring_alloc(a->room * k->n2->k);
	(void)pthread_mutex_init(&a->lock, NULL);
	(void)sem_init(&a->wake, 0, 0);
	w->ahead = a;
	if (pthread_create(&a->thread, NULL, fill, a) == 0)
		return;
	a->stop = true; /* it goes without */
}

void paillier_ahead_end(struct paillier_public *k)
{
	struct paillier_ahead *a = TAKE_PTR(k->ahead);
	const struct sched_param param = { 0 };

	if (!a)
		return;
	if (!atomic_exchange(&a->stop, true)) {
		/* So that it ends soon where others keep the processor busy;
		 * who may not do that waits for a block of an idle thread. */
		(void)pthread_setschedparam(a->thread, SCHED_OTHER, &param);
		(void)sem_post(&a->wake);
		(void)pthread_join(a->thread, NULL);
	}
	ring_wipe(a->rec, a->room * k->n2->k);
	(void)sem_destroy(&a->wake);
	(void)pthread_mutex_destroy(&a->lock);
	free(a);
}

size_t paillier_ahead_take(const struct paillier_public *k, uint64_t *r,
			   size_t n)
{
	struct paillier_ahead *a = k->ahead;
	const size_t words = k->n2->k, bytes = words * sizeof(*r);

	if (!a)
		return 0;
	(void)pthread_mutex_lock(&a->lock);
	n = MIN(n, a->made - a->taken);
	for (size_t i = 0; i < n; i++) {
		uint64_t *from = a->rec + (a->taken + i) % a->room * words;

		memcpy(r + i * words, from, bytes);
		explicit_bzero(from, bytes);
	}
	a->taken += n;
	(void)pthread_mutex_unlock(&a->lock);
	if (n > 0)
		(void)sem_post(&a->wake);
	return n;
}
