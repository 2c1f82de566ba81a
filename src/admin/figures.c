/* figures: /stats and /performance as JSON, from a report of the aggregate. Any thread; owns nothing.
 * Times in the report are µs, shown as ms with 3 decimals at most; rates in percent and memory with 2. */
#include "admin/figures.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "state/snapshot.h"
#include "state/stats_process.h"
#include "state/stats_report.h"
#include "state/stats_store.h"

static void add(cJSON *object, const char *name, double value)
{
	CHECK(cJSON_AddNumberToObject(object, name, value));
}

static void add_rounded(cJSON *object, const char *name, double value, int decimals)
{
	double scale = pow(10, decimals);
	add(object, name, round(value * scale) / scale);
}

/* Always with both of its decimals, which no number of cJSON's keeps: 8.70, 0.00. */
static void add_two_decimals(cJSON *object, const char *name, double value)
{
	char text[32];
	snprintf(text, sizeof text, "%.2f", value);
	CHECK(cJSON_AddRawToObject(object, name, text));
}

static void add_us_as_ms(cJSON *object, const char *name, double us)
{
	add_rounded(object, name, us / 1000, 3);
}

static void add_text(cJSON *object, const char *name, const char *text)
{
	CHECK(cJSON_AddStringToObject(object, name, text));
}

static cJSON *add_object(cJSON *object, const char *name)
{
	cJSON *child = cJSON_AddObjectToObject(object, name);
	CHECK(child);
	return child;
}

static cJSON *add_array(cJSON *object, const char *name)
{
	cJSON *child = cJSON_AddArrayToObject(object, name);
	CHECK(child);
	return child;
}

static cJSON *append_object(cJSON *array)
{
	cJSON *child = cJSON_CreateObject();
	CHECK(child);
	cJSON_AddItemToArray(array, child);
	return child;
}

/* RFC 3339; milliseconds only where there are any. */
static void add_time(cJSON *object, const char *name, int64_t unix_ms)
{
	char text[CLOCK_TEXT_BYTES];
	clock_format(text, unix_ms, unix_ms % 1000);
	add_text(object, name, text);
}

static double percent_of(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0;
}

static double average_us(const struct stats_recent *r)
{
	return r->requests ? (double)r->duration_us / (double)r->requests : 0;
}

static void add_speed(cJSON *object, const struct stats_recent *r)
{
	add_rounded(object, "requests_per_sec", (double)r->requests / STATS_WINDOW_SECONDS, 2);
	add_us_as_ms(object, "avg_response_time_ms", average_us(r));
	add_us_as_ms(object, "p50_response_time_ms", (double)histogram_percentile(&r->latency, 50));
	add_us_as_ms(object, "p95_response_time_ms", (double)histogram_percentile(&r->latency, 95));
	add_us_as_ms(object, "p99_response_time_ms", (double)histogram_percentile(&r->latency, 99));
}

static void add_performance(cJSON *root, const struct stats_report *r)
{
	cJSON *object = add_object(root, "performance");
	double error_rate = round(percent_of(r->recent.errors, r->recent.requests) * 100) / 100;
	add_speed(object, &r->recent);
	add_two_decimals(object, "error_rate", error_rate);
	add_two_decimals(object, "success_rate", 100 - error_rate);
	add_two_decimals(object, "memory_usage_mb", r->memory_bytes / (1024.0 * 1024.0));
	add_two_decimals(object, "cpu_percent", r->cpu_percent);
	add(object, "active_requests", (double)r->active_requests);
	add(object, "active_connections", (double)r->active_connections);
}

static void add_totals(cJSON *root, const struct stats_report *r)
{
	cJSON *object = add_object(root, "totals");
#define X(name) add(object, #name, (double)r->totals.name);
	STATS_COUNTS(X)
#undef X
}

static void add_endpoint(cJSON *list, const char *prefix, const struct stats_report_endpoint *e)
{
	cJSON *object = append_object(list);
	add_text(object, "prefix", prefix);
	add(object, "requests", (double)e->counts.requests);
	add(object, "errors", (double)e->counts.errors);
	add_two_decimals(object, "error_rate", percent_of(e->recent.errors, e->recent.requests));
	add_speed(object, &e->recent);
	add(object, "active_requests", (double)e->active_requests);
	add(object, "bytes_in", (double)e->counts.bytes_in);
	add(object, "bytes_out", (double)e->counts.bytes_out);
	add(object, "input_tokens", (double)e->counts.input_tokens);
	add(object, "output_tokens", (double)e->counts.output_tokens);
	if (e->last_request_ms)
		add_time(object, "last_request_at", e->last_request_ms);
	else
		CHECK(cJSON_AddNullToObject(object, "last_request_at"));
}

static void add_endpoints(cJSON *root, const struct stats_report *r, const struct snapshot *snapshot)
{
	static const struct stats_report_endpoint none;
	cJSON *list = add_array(root, "endpoints");
	for (size_t i = 0; snapshot && i < snapshot_mapping_count(snapshot); i++) {
		const struct mapping *m = snapshot_mapping_at(snapshot, i);
		const struct stats_report_endpoint *e = stats_report_find(r, m->prefix);
		if (m->enabled || e)
			add_endpoint(list, m->prefix, e ? e : &none);
	}
}

static void add_history(cJSON *root, const struct stats_report *r)
{
	cJSON *list = add_array(root, "history");
	for (int i = 0; i < STATS_WINDOW_SECONDS; i++) {
		const struct stats_report_second *second = &r->history[i];
		cJSON *object = append_object(list);
		add_time(object, "at", second->at * 1000);
		add(object, "requests", second->figures.requests);
		add(object, "errors", second->figures.errors);
		add_us_as_ms(object, "p95_response_time_ms", (double)second->figures.p95_us);
	}
}

static struct snapshot *get_snapshot(const struct figures_sources *f)
{
	return f->get_snapshot ? f->get_snapshot(f->context) : NULL;
}

static void add_earlier_lives(const struct figures_sources *f, struct stats_report *r)
{
	struct stats_counts base;
	if (!f->store)
		return;
	stats_store_base(f->store, &base);
	stats_counts_add(&r->totals, &base);
}

static cJSON *new_page(const struct figures_sources *f)
{
	cJSON *root = cJSON_CreateObject();
	CHECK(root);
	add_text(root, "version", f->version);
	add_text(root, "node", f->node);
	add(root, "uptime_seconds", floor(stats_aggregate_uptime_seconds(f->aggregate)));
	return root;
}

struct cJSON *figures_stats(const struct figures_sources *f, bool cluster)
{
	struct stats_report report;
	struct snapshot *snapshot = get_snapshot(f);
	stats_report_collect(f->aggregate, &report);
	if (!cluster || !f->store || !stats_store_merge_cluster(f->store, &report))
		add_earlier_lives(f, &report);
	cJSON *root = new_page(f);
	add_performance(root, &report);
	add_totals(root, &report);
	add_endpoints(root, &report, snapshot);
	add_history(root, &report);
	stats_report_fini(&report);
	snapshot_unref(snapshot);
	return root;
}

static void add_workers(cJSON *root, const struct stats *stats)
{
	cJSON *list = add_array(root, "workers");
	for (unsigned i = 0; i < stats_workers(stats); i++) {
		struct stats_now now;
		stats_now_worker(stats, i, &now);
		cJSON *object = append_object(list);
		add(object, "worker", i);
		add(object, "active_requests", (double)now.active_requests);
		add(object, "active_connections", (double)now.connections);
		add(object, "recorded_events", (double)now.recorded_events);
		add(object, "dropped_events", (double)now.dropped_events);
		add(object, "ring_events", now.waiting_events);
		add(object, "ring_capacity", STATS_RING_EVENTS);
		add_rounded(object, "ring_fill_percent", percent_of(now.waiting_events, STATS_RING_EVENTS), 2);
	}
}

/* Requests of the last 60 s by the bounds that /metrics has; the last one has no bound. */
static void add_distribution(cJSON *latency, const struct histogram *h)
{
	const uint32_t *bounds = stats_scales[STATS_DURATION_REQUEST].bounds_us;
	uint64_t counts[STATS_BOUNDS_MAX + 1] = {0};
	struct histogram_packed packed;
	histogram_pack(h, &packed);
	for (size_t i = 0; i < packed.length; i++) {
		size_t bucket = 0;
		while (bounds[bucket] && histogram_cell_middle(packed.cells[i].cell) > bounds[bucket])
			bucket++;
		counts[bucket] += packed.cells[i].count;
	}
	histogram_packed_fini(&packed);
	cJSON *list = add_array(latency, "distribution");
	for (size_t bucket = 0; bucket <= STATS_BOUNDS_MAX; bucket++) {
		cJSON *object = append_object(list);
		if (bounds[bucket])
			add_us_as_ms(object, "up_to_ms", bounds[bucket]);
		else
			CHECK(cJSON_AddNullToObject(object, "up_to_ms"));
		add(object, "requests", (double)counts[bucket]);
		if (!bounds[bucket])
			break;
	}
}

static void add_latency(cJSON *root, const struct stats_recent *r)
{
	static const struct {
		const char *name;
		double percent;
	} rows[] = {{"p50_ms", 50}, {"p75_ms", 75}, {"p90_ms", 90}, {"p95_ms", 95}, {"p99_ms", 99}, {"p99_9_ms", 99.9},
		{"max_ms", 100}};
	cJSON *object = add_object(root, "latency");
	add(object, "requests", (double)r->requests);
	add_us_as_ms(object, "avg_ms", average_us(r));
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		add_us_as_ms(object, rows[i].name, (double)histogram_percentile(&r->latency, rows[i].percent));
	add_distribution(object, &r->latency);
}

static void add_process(cJSON *root)
{
	struct stats_process process;
	stats_process_read(&process);
	cJSON *object = add_object(root, "process");
	add_rounded(object, "resident_mb", (double)process.resident_bytes / (1024.0 * 1024.0), 2);
	add_rounded(object, "virtual_mb", (double)process.virtual_bytes / (1024.0 * 1024.0), 2);
	add_rounded(object, "cpu_seconds", process.cpu_seconds, 2);
	add(object, "threads", (double)process.threads);
	add(object, "open_fds", (double)process.open_fds);
	add(object, "max_fds", (double)process.max_fds);
	add_time(object, "started_at", (int64_t)process.start_time_seconds * 1000);
}

bool figures_is_redis_up(const struct figures_sources *f)
{
	return !f->redis_is_up || f->redis_is_up(f->context);
}

static void add_state(cJSON *root, const struct figures_sources *f, const struct snapshot *snapshot)
{
	add_text(root, "redis", figures_is_redis_up(f) ? "ok" : "down");
	CHECK(cJSON_AddBoolToObject(root, "stats_enabled", stats_enabled(stats_aggregate_stats(f->aggregate))));
	add(root, "config_reloads", f->config_reloads ? (double)f->config_reloads(f->context) : 0);
	add(root, "mappings", snapshot ? (double)snapshot_mapping_count(snapshot) : 0);
	add(root, "keys", snapshot ? (double)snapshot_key_count(snapshot) : 0);
}

struct cJSON *figures_performance(const struct figures_sources *f)
{
	struct stats_report report;
	struct snapshot *snapshot = get_snapshot(f);
	cJSON *root = new_page(f);
	add_workers(root, stats_aggregate_stats(f->aggregate)); /* before the rings are drained */
	stats_report_collect(f->aggregate, &report);
	add_performance(root, &report);
	add_latency(root, &report.recent);
	add_process(root);
	add_state(root, f, snapshot);
	stats_report_fini(&report);
	snapshot_unref(snapshot);
	return root;
}
