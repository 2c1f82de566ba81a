/* stats_report: collecting, summing up. Its JSON: stats_report_json.c. Owned by its user. */
#include "state/stats_report.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "state/stats_process.h"

static void recent_from_window(struct stats_recent *out, const struct stats_window *w)
{
	struct stats_second sum;
	if (!w)
		return;
	stats_window_sum(w, &sum);
	out->requests = sum.requests;
	out->errors = sum.errors;
	out->duration_us = sum.duration_us;
	histogram_add(&out->latency, stats_window_latency(w));
}

static void recent_add(struct stats_recent *sum, const struct stats_recent *other)
{
	sum->requests += other->requests;
	sum->errors += other->errors;
	sum->duration_us += other->duration_us;
	histogram_add(&sum->latency, &other->latency);
}

static int compare_endpoints(const void *a, const void *b)
{
	return strcmp(((const struct stats_report_endpoint *)a)->prefix,
		((const struct stats_report_endpoint *)b)->prefix);
}

static void collect_endpoint(struct stats_aggregate *a, uint32_t slot, struct stats_report *out)
{
	static const struct stats_series none;
	const struct stats_series *series = stats_aggregate_slot(a, slot);
	enum stats_slot_kind kind;
	const char *prefix, *pool;
	int64_t active, waiting;
	if (!stats_slot_name(stats_aggregate_stats(a), slot, &kind, &prefix, &pool) || kind != STATS_MAPPING)
		return;
	stats_now_slot(stats_aggregate_stats(a), slot, &active, &waiting);
	if (!series && active <= 0)
		return;
	if (!series)
		series = &none;
	struct stats_report_endpoint *e = &out->endpoints[out->endpoint_count++];
	*e = (struct stats_report_endpoint){
		.prefix = check_strdup(prefix),
		.counts = series->counts,
		.active_requests = active,
		.last_request_ms = series->last_request_ms,
	};
	recent_from_window(&e->recent, series->window);
}

static void collect_endpoints(struct stats_aggregate *a, struct stats_report *out)
{
	uint32_t slots = stats_slot_count(stats_aggregate_stats(a));
	out->endpoints = check_calloc(slots, sizeof *out->endpoints);
	for (uint32_t slot = 1; slot < slots; slot++)
		collect_endpoint(a, slot, out);
	qsort(out->endpoints, out->endpoint_count, sizeof *out->endpoints, compare_endpoints);
}

static void collect_history(struct stats_aggregate *a, struct stats_report *out)
{
	int64_t first = stats_aggregate_second(a) - (STATS_WINDOW_SECONDS - 1);
	int64_t at = stats_aggregate_unix_second(a, first);
	for (int i = 0; i < STATS_WINDOW_SECONDS; i++) {
		out->history[i].at = at + i;
		stats_window_second(stats_aggregate_all(a)->window, first + i, &out->history[i].figures);
	}
}

void stats_report_collect(struct stats_aggregate *a, struct stats_report *out)
{
	struct stats_now now;
	memset(out, 0, sizeof *out);
	stats_aggregate_drain(a);
	stats_aggregate_totals(a, &out->totals);
	stats_now_all(stats_aggregate_stats(a), &now);
	out->active_requests = now.active_requests;
	out->active_connections = now.connections;
	out->memory_bytes = (double)stats_process_resident_bytes();
	out->cpu_percent = stats_aggregate_cpu_percent(a);
	stats_aggregate_lock(a);
	recent_from_window(&out->recent, stats_aggregate_all(a)->window);
	collect_history(a, out);
	collect_endpoints(a, out);
	stats_aggregate_unlock(a);
}

void stats_report_fini(struct stats_report *r)
{
	histogram_fini(&r->recent.latency);
	for (size_t i = 0; i < r->endpoint_count; i++) {
		histogram_fini(&r->endpoints[i].recent.latency);
		free(r->endpoints[i].prefix);
	}
	free(r->endpoints);
	memset(r, 0, sizeof *r);
}

const struct stats_report_endpoint *stats_report_find(const struct stats_report *r, const char *prefix)
{
	struct stats_report_endpoint key = {.prefix = (char *)(uintptr_t)prefix};
	if (r->endpoint_count == 0)
		return NULL;
	return bsearch(&key, r->endpoints, r->endpoint_count, sizeof *r->endpoints, compare_endpoints);
}

static void merge_endpoint(struct stats_report_endpoint *e, const struct stats_report_endpoint *other)
{
	stats_counts_add(&e->counts, &other->counts);
	recent_add(&e->recent, &other->recent);
	e->active_requests += other->active_requests;
	if (other->last_request_ms > e->last_request_ms)
		e->last_request_ms = other->last_request_ms;
}

static void merge_history(struct stats_report *r, const struct stats_report *other)
{
	int64_t shift = other->history[0].at - r->history[0].at;
	for (int64_t i = 0; i < STATS_WINDOW_SECONDS; i++) {
		if (i + shift < 0 || i + shift >= STATS_WINDOW_SECONDS)
			continue;
		struct stats_second *sum = &r->history[i + shift].figures;
		const struct stats_second *figures = &other->history[i].figures;
		sum->requests += figures->requests;
		sum->errors += figures->errors;
		sum->duration_us += figures->duration_us;
		if (figures->p95_us > sum->p95_us)
			sum->p95_us = figures->p95_us;
	}
}

void stats_report_merge(struct stats_report *r, const struct stats_report *other)
{
	recent_add(&r->recent, &other->recent);
	r->active_requests += other->active_requests;
	r->active_connections += other->active_connections;
	r->memory_bytes += other->memory_bytes;
	r->cpu_percent += other->cpu_percent;
	merge_history(r, other);

	size_t known = r->endpoint_count;
	r->endpoints = realloc(r->endpoints, (known + other->endpoint_count + 1) * sizeof *r->endpoints);
	CHECK(r->endpoints);
	for (size_t i = 0; i < other->endpoint_count; i++) {
		const struct stats_report_endpoint *from = &other->endpoints[i];
		struct stats_report_endpoint *to = bsearch(from, r->endpoints, known, sizeof *to, compare_endpoints);
		if (!to) {
			to = &r->endpoints[r->endpoint_count++];
			*to = (struct stats_report_endpoint){.prefix = check_strdup(from->prefix)};
		}
		merge_endpoint(to, from);
	}
	qsort(r->endpoints, r->endpoint_count, sizeof *r->endpoints, compare_endpoints);
}
