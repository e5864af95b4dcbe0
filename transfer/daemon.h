/* SPDX-License-Identifier: Apache-2.0 */
/* rollfs's side of the socket: transfer.c (rollsite's process, connections,
 * threads, start and stop), transfer_call.c (calls), transfer_file.c (files,
 * jobs, parties) only. */
#ifndef TRANSFER_DAEMON_H
#define TRANSFER_DAEMON_H

#include <pthread.h>
#include <stdatomic.h>

#include "lib/json.h"

#include "transfer/news.h"
#include "transfer/transfer.h"
#include "transfer/transfer_priv.h"

struct daemon_job {
	struct daemon_job *next;
	json_t *head;
	char *body;
	size_t n;
	transfer_rpc_cb rpc_cb;
	transfer_file_cb file_cb;
	void *arg;
	bool cancelled, running; /* file_wait: the callback */
	pthread_t runner;
};

struct transfer_call {
	uint64_t number;
};

struct transfer {
	const struct conf *conf;
	char *socket, *program;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	atomic_bool stopping; /* nothing is asked twice, nothing is taken */
	/* With the lock; before the threads start without. */
	pid_t pid;		 /* of a rollsite that we started; 0 = none */
	atomic_bool ours;	 /* it ends with us */
	struct daemon_job *jobs; /* calls waiting for a worker */
	struct daemon_job *answers;
	bool answering; /* one was taken off and is being told */
	unsigned workers, idle;
	pthread_cond_t answer, waited, ended;
	struct link *links;	  /* open ones */
	bool cut;		  /* no more are opened */
	struct daemon_job *waits; /* file_wait, a thread each */
	struct news_queue *news;
	transfer_handler handler;
	void *handler_arg;
	transfer_inbox_cb inbox_cb;
	void *inbox_arg;
	unsigned threads;
};

/* ---- transfer.c ---------------------------------------------------------- */

void daemon_pause(unsigned ms);
/* Every connection is known, so that transfer_stop can cut those that threads
 * wait on. */
int daemon_connect(struct transfer *t, struct link *l,
		   struct err *e) MUST_CHECK;
void daemon_disconnect(struct transfer *t, struct link *l);
/* One request on a connection that is opened (again) as needed. */
int daemon_ask(struct transfer *t, struct link *l, const json_t *head,
	       const void *body, size_t n, json_t **ret,
	       struct err *e) MUST_CHECK;
/* A question on a connection of its own; takes head over. */
int daemon_ask_once(struct transfer *t, json_t *head, json_t **ret,
		    char **ret_body, struct err *e) MUST_CHECK;
/* 0, or an errno when there can be no more threads. */
int daemon_detached(size_t stack, void *(*fn)(void *), void *arg) MUST_CHECK;
/* A thread with t, which ends with daemon_thread_ends(): the last that it does
 * with t. */
void daemon_thread(struct transfer *t, void *(*fn)(void *));
void daemon_thread_ends(struct transfer *t);

/* ---- transfer_call.c, transfer_file.c ------------------------------------ */

void daemon_job_free(struct daemon_job *j);
void *daemon_answers(void *arg); /* a thread: tells what was answered */
/* Tells rollsite news of a file; whether it heard. */
bool daemon_tell(void *arg, json_t *head);

#endif
