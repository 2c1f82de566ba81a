/* bench_stats: what recording one request costs a worker: ns per stats_begin + stats_end (beside a
 * drainer that works as it does in earnest), and per call with statistics off.
 * Prints one line of JSON. Usage: bench_stats [REPEATS], default 21. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "state/stats.h"
#include "state/stats_aggregate.h"

enum { REPEATS_MAX = 1001, BATCH = STATS_RING_EVENTS / 2 - 1, BATCHES = 20 };

static double now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double record_batch(struct stats_ring *r, struct stats_event *event, int begin_too)
{
	double start = now_ns();
	for (int i = 0; i < BATCH; i++) {
		event->duration_us++;
		if (begin_too)
			stats_begin(r, event->slot);
		stats_end(r, event);
	}
	return now_ns() - start;
}

/* The median of repeats, ns per event. The ring is emptied between batches: a full one is cheaper. */
static double measure(struct stats *s, struct stats_aggregate *a, int repeats, int begin_too, double *drain_ns)
{
	static double results[REPEATS_MAX], drains[REPEATS_MAX];
	uint32_t slot = stats_slot_acquire(s, STATS_MAPPING, "/bench", NULL);
	struct stats_event event = {.kind = STATS_REQUEST,
		.status = 200,
		.slot = slot,
		.first_byte_us = 900,
		.overhead_us = 30,
		.duration_us = 1000,
		.bytes_in = 200,
		.bytes_out = 400};
	for (int repeat = 0; repeat < repeats; repeat++) {
		double recording = 0, draining = 0;
		for (int batch = 0; batch < BATCHES; batch++) {
			recording += record_batch(stats_ring(s, 0), &event, begin_too);
			double start = now_ns();
			stats_aggregate_drain(a);
			draining += now_ns() - start;
		}
		results[repeat] = recording / (BATCH * BATCHES);
		drains[repeat] = draining / (BATCH * BATCHES);
	}
	qsort(results, (size_t)repeats, sizeof *results, compare);
	qsort(drains, (size_t)repeats, sizeof *drains, compare);
	*drain_ns = drains[repeats / 2];
	return results[repeats / 2];
}

int main(int argc, char **argv)
{
	int repeats = argc > 1 ? atoi(argv[1]) : 21;
	if (repeats < 1 || repeats > REPEATS_MAX) {
		fprintf(stderr, "bench_stats: REPEATS is 1 to %d\n", REPEATS_MAX);
		return 1;
	}
	struct stats *on = stats_new(1, true), *off = stats_new(1, false);
	struct stats_aggregate *a = stats_aggregate_new(on), *b = stats_aggregate_new(off);
	double drain_ns, ignored;
	measure(on, a, 1, 1, &ignored); /* pages are touched once */
	double end_ns = measure(on, a, repeats, 0, &drain_ns);
	double both_ns = measure(on, a, repeats, 1, &ignored);
	double off_ns = measure(off, b, repeats, 1, &ignored);
	printf(
		"{\"stats_end_ns\":%.1f,\"stats_begin_and_end_ns\":%.1f,\"off_ns\":%.1f,\"drain_ns\":%.1f,\"repeats\":%d}\n",
		end_ns, both_ns, off_ns, drain_ns, repeats);
	stats_aggregate_free(a);
	stats_aggregate_free(b);
	stats_free(on);
	stats_free(off);
	return 0;
}
