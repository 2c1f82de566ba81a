/* lane: a queue and the few threads that work it off, for what may block (Redis, password hashes).
 * Tasks run in order of arrival on the next free thread. The queue has no bound of its own: each
 * task stands for a connection, and those are bounded. */
#ifndef APIPROXY_ADMIN_LANE_H
#define APIPROXY_ADMIN_LANE_H

#include <stdbool.h>

struct lane;

struct lane_task {
	struct lane_task *next; /* private */
	void (*run)(struct lane_task *task, bool cancelled); /* cancelled: the lane stops, do no work */
};

/* Dies where threads cannot be made. name: at most 15 characters, for top(1). */
struct lane *lane_start(const char *name, unsigned threads);
void lane_push(struct lane *lane, struct lane_task *task); /* any thread; after lane_stop() cancelled at once */
void lane_stop(struct lane *lane); /* lets end what runs, cancels what waits, ends the threads; NULL and twice are fine */
void lane_free(struct lane *lane); /* stopped; NULL is fine */

#endif
