/* watcher: keeps the workers' snapshot what Redis says. A thread that listens (apiproxy:changed and
 * keyspace notifications where they are on) and looks for itself every second, reloads, and hands
 * the snapshot on. It also hears of starts that a queue was given back (ADMISSION_GIVEN_BACK,
 * path/admission.h). Redis away: the last snapshot stays, the journal says so, it keeps trying. */
#ifndef APIPROXY_OPS_WATCHER_H
#define APIPROXY_OPS_WATCHER_H

#include <stdbool.h>
#include <stdint.h>

struct redis_address;
struct snapshot;
struct store;
struct watcher;

/* publish() returns once every worker has taken the snapshot; it is borrowed for the call: take a
 * reference for each worker. Never called by two threads at a time. given_back() is told the mapping's prefix, NULL
 * where messages may have been lost; it must not wait. NULL: nobody cares. */
struct watcher_sink {
	void (*publish)(void *ctx, struct snapshot *s);
	void *ctx;
	void (*given_back)(void *ctx, const char *prefix);
};

/* Store and address are borrowed. */
struct watcher *watcher_new(struct store *store, const struct redis_address *address, struct watcher_sink sink);

/* Loads once, publishes (an empty snapshot where Redis is away), then starts the thread. The sink
 * must be ready. False: Redis is away for now, and it goes on trying. */
bool watcher_start(struct watcher *w);
/* Ends the thread, which may wait for the sink until then; all else goes on. NULL and twice are fine. */
void watcher_stop(struct watcher *w);
void watcher_free(struct watcher *w); /* stops it; nobody may use it any more. NULL is fine */

/* After a change: loads and publishes before it returns. False: Redis is away. Control threads. */
bool watcher_reload_now(struct watcher *w);

struct watcher_status {
	bool redis_ok;
	int64_t loaded_at_ms;  /* Unix time of the last look that succeeded; 0: none yet */
	uint64_t reloads;      /* snapshots published since the start */
	char redis_error[128]; /* "" while redis_ok */
};

void watcher_status(struct watcher *w, struct watcher_status *status); /* any thread */
struct snapshot *watcher_snapshot(struct watcher *w); /* a reference: snapshot_unref(); any thread */

#endif
