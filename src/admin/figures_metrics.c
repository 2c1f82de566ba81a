/* figures_metrics: /metrics in Prometheus' text format 0.0.4. Any thread; the aggregate is locked
 * while the page is written into memory. One function a row of state/metrics.def. Series belong to
 * the mappings and keys of the current snapshot, so those of a deleted one go with it.
 * Source: prometheus.io/docs/instrumenting/exposition_formats. */
#include "admin/figures.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "state/problem.h"
#include "state/snapshot.h"
#include "state/stats_aggregate.h"
#include "state/stats_process.h"

struct page {
	FILE *out;
	const struct figures_sources *sources;
	const struct stats_aggregate *aggregate; /* locked */
	const struct snapshot *snapshot;         /* may be NULL */
	struct stats_now now;
	struct stats_process process;
};

/* A label's value: backslash, quote and line feed are escaped. */
static void write_escaped(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '\n')
			fputs("\\n", out);
		else if (*text == '\\' || *text == '"')
			fprintf(out, "\\%c", *text);
		else
			fputc(*text, out);
	}
}

/* NAME{LABEL="VALUE" and no closing brace; suffix is "" or that of a histogram's part. */
static void write_label(const struct page *p, const char *name, const char *suffix, const char *label,
	const char *value)
{
	fprintf(p->out, "%s%s{%s=\"", name, suffix, label);
	write_escaped(p->out, value);
	fputc('"', p->out);
}

/* The mappings of the snapshot in turn: NULL at the end. */
static const struct mapping *next_mapping(const struct page *p, size_t *at, const struct stats_series **series)
{
	if (!p->snapshot || *at >= snapshot_mapping_count(p->snapshot))
		return NULL;
	const struct mapping *m = snapshot_mapping_at(p->snapshot, (*at)++);
	*series = stats_aggregate_slot(p->aggregate, m->stats_slot);
	return m;
}

static const struct vendor_key *next_key(const struct page *p, size_t *at, const struct stats_series **series)
{
	if (!p->snapshot || *at >= snapshot_key_count(p->snapshot))
		return NULL;
	const struct vendor_key *key = snapshot_key_at(p->snapshot, (*at)++);
	*series = stats_aggregate_slot(p->aggregate, key->stats_slot);
	return key;
}

static void metric_build_info(const struct page *p, const char *name)
{
	write_label(p, name, "", "version", p->sources->version);
	fputs("} 1\n", p->out);
}

static void metric_requests(const struct page *p, const char *name)
{
	const struct stats_series *series;
	const struct mapping *m;
	for (size_t at = 0; (m = next_mapping(p, &at, &series));)
		for (size_t i = 0; series && i < series->status_count; i++) {
			write_label(p, name, "", "mapping", m->prefix);
			fprintf(p->out, ",status=\"%u\"} %" PRIu64 "\n", series->statuses[i].status, series->statuses[i].count);
		}
}

static void write_histogram(const struct page *p, const char *name, const char *prefix, enum stats_duration kind,
	const struct stats_buckets *buckets)
{
	const uint32_t *bounds = stats_scales[kind].bounds_us;
	uint64_t below = 0;
	for (size_t i = 0; bounds[i]; i++) {
		below += buckets->counts[i];
		write_label(p, name, "_bucket", "mapping", prefix);
		fprintf(p->out, ",le=\"%g\"} %" PRIu64 "\n", bounds[i] / 1e6, below);
	}
	write_label(p, name, "_bucket", "mapping", prefix);
	fprintf(p->out, ",le=\"+Inf\"} %" PRIu64 "\n", buckets->count);
	write_label(p, name, "_sum", "mapping", prefix);
	fprintf(p->out, "} %.6f\n", (double)buckets->sum_us / 1e6);
	write_label(p, name, "_count", "mapping", prefix);
	fprintf(p->out, "} %" PRIu64 "\n", buckets->count);
}

static void write_histograms(const struct page *p, const char *name, enum stats_duration kind)
{
	const struct stats_series *series;
	const struct mapping *m;
	for (size_t at = 0; (m = next_mapping(p, &at, &series));)
		if (series && series->durations && (series->durations[kind].count || kind != STATS_DURATION_QUEUE_WAIT))
			write_histogram(p, name, m->prefix, kind, &series->durations[kind]);
}

static void metric_request_duration(const struct page *p, const char *name)
{
	write_histograms(p, name, STATS_DURATION_REQUEST);
}

static void metric_first_byte(const struct page *p, const char *name)
{
	write_histograms(p, name, STATS_DURATION_FIRST_BYTE);
}

static void metric_overhead(const struct page *p, const char *name)
{
	write_histograms(p, name, STATS_DURATION_OVERHEAD);
}

static void metric_queue_wait(const struct page *p, const char *name)
{
	write_histograms(p, name, STATS_DURATION_QUEUE_WAIT);
}

static void write_gauges(const struct page *p, const char *name, bool queue)
{
	const struct stats_series *series;
	const struct mapping *m;
	for (size_t at = 0; (m = next_mapping(p, &at, &series));) {
		int64_t active, waiting;
		stats_now_slot(stats_aggregate_stats(p->aggregate), m->stats_slot, &active, &waiting);
		write_label(p, name, "", "mapping", m->prefix);
		fprintf(p->out, "} %" PRId64 "\n", queue ? waiting : active);
	}
}

static void metric_active_requests(const struct page *p, const char *name)
{
	write_gauges(p, name, false);
}

static void metric_queue_length(const struct page *p, const char *name)
{
	write_gauges(p, name, true);
}

static void write_tokens(const struct page *p, const char *name, bool estimated)
{
	const struct stats_series *series;
	const struct mapping *m;
	for (size_t at = 0; (m = next_mapping(p, &at, &series));) {
		if (!series)
			continue;
		write_label(p, name, "", "mapping", m->prefix);
		fprintf(p->out, ",direction=\"input\"} %" PRIu64 "\n",
			estimated ? series->estimated_input_tokens : series->counts.input_tokens);
		write_label(p, name, "", "mapping", m->prefix);
		fprintf(p->out, ",direction=\"output\"} %" PRIu64 "\n",
			estimated ? series->estimated_output_tokens : series->counts.output_tokens);
	}
}

static void metric_tokens(const struct page *p, const char *name)
{
	write_tokens(p, name, false);
}

static void metric_tokens_estimated(const struct page *p, const char *name)
{
	write_tokens(p, name, true);
}

/* Several problems share a code: the first of them stands for all. */
static uint64_t rejections_of_code(const uint64_t *problems, int first)
{
	uint64_t sum = 0;
	for (int other = 0; other < PROBLEM_COUNT; other++) {
		if (strcmp(problem_table[other].code, problem_table[first].code) != 0)
			continue;
		if (other < first)
			return 0;
		sum += problems[other];
	}
	return sum;
}

static void metric_rejected(const struct page *p, const char *name)
{
	const struct stats_series *series;
	const struct mapping *m;
	for (size_t at = 0; (m = next_mapping(p, &at, &series));)
		for (int id = PROBLEM_NONE + 1; series && series->problems && id < PROBLEM_COUNT; id++) {
			uint64_t count = rejections_of_code(series->problems, id);
			if (count == 0)
				continue;
			write_label(p, name, "", "mapping", m->prefix);
			fprintf(p->out, ",code=\"%s\"} %" PRIu64 "\n", problem_table[id].code, count);
		}
}

static void write_key(const struct page *p, const char *name, const struct vendor_key *key)
{
	write_label(p, name, "", "pool", key->pool ? key->pool : "");
	fputs(",key=\"", p->out);
	write_escaped(p->out, key->id);
	fputc('"', p->out);
}

static void metric_key_up(const struct page *p, const char *name)
{
	const struct figures_sources *f = p->sources;
	const struct stats_series *series;
	const struct vendor_key *key;
	for (size_t at = 0; (key = next_key(p, &at, &series));) {
		bool up = key->enabled && key->secret;
		if (up && f->key_is_up)
			up = f->key_is_up(f->keys, key);
		write_key(p, name, key);
		fprintf(p->out, "} %d\n", up);
	}
}

static void metric_key_requests(const struct page *p, const char *name)
{
	const struct stats_series *series;
	const struct vendor_key *key;
	for (size_t at = 0; (key = next_key(p, &at, &series));)
		for (size_t i = 0; series && i < series->status_count; i++) {
			write_key(p, name, key);
			fprintf(p->out, ",status=\"%u\"} %" PRIu64 "\n", series->statuses[i].status, series->statuses[i].count);
		}
}

static void write_whole(const struct page *p, const char *name, uint64_t value)
{
	fprintf(p->out, "%s %" PRIu64 "\n", name, value);
}

static void metric_connections(const struct page *p, const char *name)
{
	fprintf(p->out, "%s %" PRId64 "\n", name, p->now.connections);
}

static void metric_redis_up(const struct page *p, const char *name)
{
	write_whole(p, name, figures_is_redis_up(p->sources));
}

static void metric_config_reloads(const struct page *p, const char *name)
{
	write_whole(p, name, p->sources->config_reloads ? p->sources->config_reloads(p->sources->context) : 0);
}

static void metric_stats_dropped(const struct page *p, const char *name)
{
	write_whole(p, name, p->now.dropped_events);
}

static void metric_process_cpu(const struct page *p, const char *name)
{
	fprintf(p->out, "%s %.3f\n", name, p->process.cpu_seconds);
}

static void metric_process_resident(const struct page *p, const char *name)
{
	write_whole(p, name, p->process.resident_bytes);
}

static void metric_process_virtual(const struct page *p, const char *name)
{
	write_whole(p, name, p->process.virtual_bytes);
}

static void metric_process_open_fds(const struct page *p, const char *name)
{
	write_whole(p, name, p->process.open_fds);
}

static void metric_process_max_fds(const struct page *p, const char *name)
{
	write_whole(p, name, p->process.max_fds);
}

static void metric_process_start(const struct page *p, const char *name)
{
	fprintf(p->out, "%s %.2f\n", name, p->process.start_time_seconds);
}

static void metric_process_threads(const struct page *p, const char *name)
{
	write_whole(p, name, p->process.threads);
}

static const struct metric {
	const char *type;
	const char *name;
	void (*write)(const struct page *p, const char *name);
	const char *help;
} metrics[] = {
#define METRIC(type, name, writer, help) {#type, name, metric_##writer, help},
#include "state/metrics.def"
#undef METRIC
};

char *figures_metrics(const struct figures_sources *f)
{
	char *text = NULL;
	size_t length;
	struct snapshot *snapshot = f->get_snapshot ? f->get_snapshot(f->context) : NULL;
	struct page page = {
		.out = open_memstream(&text, &length),
		.sources = f,
		.aggregate = f->aggregate,
		.snapshot = snapshot,
	};
	CHECK(page.out);
	stats_now_all(stats_aggregate_stats(f->aggregate), &page.now);
	stats_process_read(&page.process);
	stats_aggregate_drain(f->aggregate);
	stats_aggregate_lock(f->aggregate);
	for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++) {
		fprintf(page.out, "# HELP %s %s\n# TYPE %s %s\n", metrics[i].name, metrics[i].help, metrics[i].name,
			metrics[i].type);
		metrics[i].write(&page, metrics[i].name);
	}
	stats_aggregate_unlock(f->aggregate);
	fclose(page.out);
	CHECK(text);
	snapshot_unref(snapshot);
	return text;
}
