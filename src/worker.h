/* worker: one core of the data plane: a thread with its loop, its listeners, its pools.
 *
 * Life: worker_start() → worker_publish() a snapshot → worker_listen() → worker_drain() → worker_stop().
 * All of these are called by other threads and do their work by message. */
#ifndef APIPROXY_WORKER_H
#define APIPROXY_WORKER_H

#include <stdbool.h>
#include <stdint.h>

struct admission_node;
struct settings;
struct snapshot;
struct stats_ring;
struct worker;

struct worker_setup {
	const struct settings *settings;
	struct stats_ring *stats;
	struct admission_node *admission;
	int (*control_connect)(void *control);
	void *control;
	_Atomic uint32_t *connections; /* open ones of all workers */
	uint32_t connections_max;      /* of all workers */
	int listen_fd; /* the worker's, bound and listening; TLS where tls.enabled */
	int ops_fd;    /* the same for ops_listen; -1: off */
};

struct worker *worker_start(unsigned number, const struct worker_setup *setup);

/* Hands over a reference; on_taken(context) is called on the worker's thread once it is in force. */
void worker_publish(struct worker *w, struct snapshot *take_snapshot, void (*on_taken)(void *context), void *context);

void worker_listen(struct worker *w); /* from now on clients are accepted */

/* No new clients but on ops_listen; on_idle(context) once no request is under way that had begun by now, maybe at once. */
void worker_drain(struct worker *w, void (*on_idle)(void *context), void *context);

void worker_stop(struct worker *w); /* breaks off what is left, waits for the thread, frees */

#endif
