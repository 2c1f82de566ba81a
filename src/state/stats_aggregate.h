/* stats_aggregate: what the rings hold, summed up: totals of this life, the last 60 s, and what
 * /metrics shows, for all requests, each mapping and each vendor key.
 *
 * Lives in memory only, grows with the mappings that have traffic. The rings are drained by whoever
 * calls stats_aggregate_drain(), one at a time. An event counts in the second in which it is drained.
 * An error is a 5xx or a broken-off answer; a client that hung up is none. */
#ifndef APIPROXY_STATE_STATS_AGGREGATE_H
#define APIPROXY_STATE_STATS_AGGREGATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "state/stats.h"

struct stats_aggregate;
struct stats_window;

#define STATS_COUNTS(X) \
	X(requests) X(errors) X(bytes_in) X(bytes_out) X(input_tokens) X(output_tokens) X(dropped_events)

struct stats_counts {
#define X(name) uint64_t name;
	STATS_COUNTS(X)
#undef X
};

void stats_counts_add(struct stats_counts *sum, const struct stats_counts *other);

/* Durations with fixed bounds, cumulative for ever, as Prometheus has them. */
enum stats_duration {
	STATS_DURATION_REQUEST,
	STATS_DURATION_FIRST_BYTE,
	STATS_DURATION_OVERHEAD,
	STATS_DURATION_QUEUE_WAIT,
	STATS_DURATIONS
};
enum { STATS_BOUNDS_MAX = 18 };

struct stats_scale { /* upper bounds in µs, rising, 0 ends */
	uint32_t bounds_us[STATS_BOUNDS_MAX + 1];
};
extern const struct stats_scale stats_scales[STATS_DURATIONS];

struct stats_buckets {
	uint64_t counts[STATS_BOUNDS_MAX + 1]; /* not cumulative; [number of bounds]: above all of them */
	uint64_t sum_us;
	uint64_t count;
};

struct stats_status {
	uint16_t status; /* 0: no answer; 499: none, because the client hung up */
	uint64_t count;
};

struct stats_series { /* of a mapping, a key or all */
	struct stats_counts counts;
	uint64_t estimated_input_tokens; /* of counts.input_tokens; since the start */
	uint64_t estimated_output_tokens;
	int64_t last_request_ms;         /* Unix time; 0: none */
	struct stats_status *statuses;
	size_t status_count;
	uint64_t *problems;              /* by enum problem_id; NULL: none yet */
	struct stats_buckets *durations; /* by enum stats_duration; NULL: none yet */
	struct stats_window *window;     /* by stats_aggregate_second(); NULL: nothing in the last 60 s */
};

struct stats_aggregate *stats_aggregate_new(struct stats *s); /* its birth is where uptime starts */
void stats_aggregate_free(struct stats_aggregate *a);

/* Empties the rings. How many events there were. Any thread, not while it holds the lock. */
size_t stats_aggregate_drain(struct stats_aggregate *a);

/* Reading. What these return may be looked at until unlock. */
void stats_aggregate_lock(struct stats_aggregate *a);
void stats_aggregate_unlock(struct stats_aggregate *a);
const struct stats_series *stats_aggregate_all(const struct stats_aggregate *a);
const struct stats_series *stats_aggregate_slot(const struct stats_aggregate *a, uint32_t slot); /* NULL: no event yet */
int64_t stats_aggregate_second(const struct stats_aggregate *a);     /* the running second */

/* Without the lock. */
struct stats *stats_aggregate_stats(const struct stats_aggregate *a);
int64_t stats_aggregate_unix_second(const struct stats_aggregate *a, int64_t second);
double stats_aggregate_uptime_seconds(const struct stats_aggregate *a);
double stats_aggregate_cpu_percent(struct stats_aggregate *a); /* of one core, over the last 60 s */
void stats_aggregate_totals(struct stats_aggregate *a, struct stats_counts *out); /* dropped events too */

#endif
