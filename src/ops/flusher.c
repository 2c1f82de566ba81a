/* flusher: the thread. It owns nothing but its own clock: figures
 * and counts are the aggregate's and the store's, which lock. */
#include "ops/flusher.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "state/stats.h"
#include "state/stats_aggregate.h"
#include "state/stats_report.h"
#include "state/stats_store.h"

enum { TICK_MS = 100, FLUSH_MS = 2000 };

struct flusher {
	struct stats_aggregate *aggregate;
	struct stats_store *store;
	pthread_t thread;
	atomic_bool stopping;
};

/* Whether Redis answered. */
static bool flush(struct flusher *f)
{
	struct stats_counts counts;
	if (!f->store)
		return true;
	stats_aggregate_totals(f->aggregate, &counts);
	if (!stats_store_flush(f->store, &counts))
		return false;
	if (!stats_store_has_peers(f->store))
		return true;
	struct stats_report report;
	stats_report_collect(f->aggregate, &report);
	bool good = stats_store_publish(f->store, &report);
	stats_report_fini(&report);
	return good;
}

static void *run(void *argument)
{
	struct flusher *f = argument;
	struct stats *stats = stats_aggregate_stats(f->aggregate);
	int64_t flush_at_ms = clock_monotonic_ms() + FLUSH_MS;
	bool quiet = false;
	while (!atomic_load(&f->stopping)) {
		int64_t left_ms = flush_at_ms - clock_monotonic_ms();
		int wait_ms = quiet || left_ms < TICK_MS ? (int)left_ms : TICK_MS;
		stats_wait(stats, wait_ms > 0 ? wait_ms : 0, quiet);
		/* What ends a quiet time may be an event that is not in the ring yet: look once more. */
		quiet = stats_aggregate_drain(f->aggregate) == 0 && !quiet;
		if (clock_monotonic_ms() >= flush_at_ms) {
			(void)!flush(f);
			flush_at_ms = clock_monotonic_ms() + FLUSH_MS;
		}
	}
	return NULL;
}

struct flusher *flusher_start(struct stats_aggregate *a, struct stats_store *store)
{
	struct flusher *f = check_calloc(1, sizeof *f);
	f->aggregate = a;
	f->store = store;
	(void)!flush(f);
	CHECK(pthread_create(&f->thread, NULL, run, f) == 0);
	pthread_setname_np(f->thread, "flusher");
	return f;
}

void flusher_stop(struct flusher *f)
{
	if (!f)
		return;
	atomic_store(&f->stopping, true);
	stats_wake(stats_aggregate_stats(f->aggregate));
	pthread_join(f->thread, NULL);
	stats_aggregate_drain(f->aggregate);
	/* The first may be one whose answer was lost; the second has what came after it. */
	if (!flush(f) || !flush(f))
		log_warning("stats", "the last counts could not be written to Redis");
	free(f);
}
