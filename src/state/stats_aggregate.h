/* stats_aggregate: what the rings hold, summed up: totals of this life, the last 60 s, and what
 * /metrics shows, for all requests, each mapping and each vendor key.
 *
 * Lives in memory only, grows with the mappings that have traffic. The rings are drained by whoever
 * calls stats_aggregate_drain(), one at a time. */
#ifndef APIPROXY_STATE_STATS_AGGREGATE_H
#define APIPROXY_STATE_STATS_AGGREGATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "state/stats.h"

struct stats_aggregate;

struct stats_aggregate *stats_aggregate_new(struct stats *s); /* its time of birth is the start of uptime */
void stats_aggregate_free(struct stats_aggregate *a);

/* Empties the rings. How many events there were. Any thread. */
size_t stats_aggregate_drain(struct stats_aggregate *a);

#endif
