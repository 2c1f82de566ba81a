/* flusher: the thread that empties the statistics rings and keeps Redis up to date.
 *
 * Sleeps while nothing happens; otherwise drains every 100 ms, or as soon as a ring is half full.
 * Every 2 s it hands the counts since the last time to Redis, and publishes this node's figures of
 * the last 60 s. Redis away: the counts wait here and go later. */
#ifndef APIPROXY_OPS_FLUSHER_H
#define APIPROXY_OPS_FLUSHER_H

struct flusher;
struct stats_aggregate;
struct stats_store;

/* Fetches the totals of earlier lives (at most 250 ms), starts the thread. store may be NULL.
 * Both must outlive the flusher. Dies where no thread can be had. */
struct flusher *flusher_start(struct stats_aggregate *a, struct stats_store *store);

/* Once the workers have stopped: a last drain and flush, at most 500 ms. NULL is fine. */
void flusher_stop(struct flusher *f);

#endif
