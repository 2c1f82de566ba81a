/* stats_report: the figures of one moment, of this node or of several summed up: what /stats shows,
 * and what nodes tell each other through Redis (JSON).
 *
 * Sums are exact, and so are the percentiles of the last 60 s (histograms are added); the p95 of one
 * second of several nodes is the highest of theirs, which theirs together never exceeds. */
#ifndef APIPROXY_STATE_STATS_REPORT_H
#define APIPROXY_STATE_STATS_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "state/histogram.h"
#include "state/stats_aggregate.h"
#include "state/stats_window.h"

struct stats_recent { /* the last 60 s */
	uint64_t requests;
	uint64_t errors;
	uint64_t duration_us;
	struct histogram latency;
};

struct stats_report_endpoint {
	char *prefix;
	struct stats_counts counts; /* of this life */
	struct stats_recent recent;
	int64_t active_requests;
	int64_t last_request_ms;    /* Unix time; 0: none */
};

struct stats_report_second {
	int64_t at; /* Unix time */
	struct stats_second figures;
};

struct stats_report {
	struct stats_counts totals; /* of this life, until whoever knows adds the earlier ones */
	struct stats_recent recent;
	int64_t active_requests;
	int64_t active_connections;
	double memory_bytes;
	double cpu_percent;
	struct stats_report_second history[STATS_WINDOW_SECONDS]; /* rising; the last is the running second */
	struct stats_report_endpoint *endpoints; /* sorted by prefix; those with any traffic */
	size_t endpoint_count;
};

/* Drains the rings first. Any thread. */
void stats_report_collect(struct stats_aggregate *a, struct stats_report *out);
void stats_report_fini(struct stats_report *r);

const struct stats_report_endpoint *stats_report_find(const struct stats_report *r, const char *prefix); /* NULL: none */

/* All but the totals. Seconds of other that r does not have are left out. */
void stats_report_merge(struct stats_report *r, const struct stats_report *other);

char *stats_report_to_json(const struct stats_report *r); /* caller frees */
/* False: it is not such a document; out is empty then. */
bool stats_report_from_json(struct stats_report *out, const char *json) __attribute__((warn_unused_result));

#endif
