/* stats_window: requests of the last 60 s, second by second: counts, durations, percentiles.
 *
 * The seconds are whatever clock the caller counts in, never going back (an earlier one counts as the
 * latest seen). A window holds the running second and the 60 before it. Memory follows use: about
 * 1 KiB and, for each second that saw requests, 48 bytes and 8 a distinct duration (histogram cells).
 * Not thread safe. */
#ifndef APIPROXY_STATE_STATS_WINDOW_H
#define APIPROXY_STATE_STATS_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#include "state/histogram.h"

enum { STATS_WINDOW_SECONDS = 60 };

struct stats_window;

struct stats_second {
	uint32_t requests;
	uint32_t errors;
	uint64_t duration_us; /* the sum */
	uint64_t p95_us;
};

struct stats_window *stats_window_new(int64_t second);
void stats_window_free(struct stats_window *w); /* NULL is fine */

void stats_window_record(struct stats_window *w, int64_t second, uint64_t duration_us, bool error);
void stats_window_advance(struct stats_window *w, int64_t second); /* forgets what is older */
bool stats_window_is_empty(const struct stats_window *w);

/* The sums of all seconds held. p95_us too. */
void stats_window_sum(const struct stats_window *w, struct stats_second *out);
const struct histogram *stats_window_latency(const struct stats_window *w);

/* One second; zero where the window does not have it. */
void stats_window_second(const struct stats_window *w, int64_t second, struct stats_second *out);

#endif
