/* stats_aggregate: from events to figures. One lock for all; whoever drains holds it.
 *
 * Seconds are those of the monotonic clock, shifted at birth so that they begin with those of the
 * shared clock. Invariants: series[slot] is NULL or belongs to the name that has the slot now; a window
 * is there only if it holds a request (but for `all`, which always has one). */
#include "state/stats_aggregate.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "state/problem.h"
#include "state/stats_window.h"

enum { STATUS_CLIENT_GONE = 499, CPU_SAMPLES = STATS_WINDOW_SECONDS + 1 };

#define MS *1000u
#define S *1000000u
/* clang-format off */
const struct stats_scale stats_scales[STATS_DURATIONS] = {
	[STATS_DURATION_REQUEST] = {{1 MS, 2500, 5 MS, 10 MS, 25 MS, 50 MS, 100 MS, 250 MS, 500 MS, 1 S, 2500 MS, 5 S, 10 S,
				     30 S, 60 S, 120 S, 300 S, 600 S}},
	[STATS_DURATION_FIRST_BYTE] = {{1 MS, 2500, 5 MS, 10 MS, 25 MS, 50 MS, 100 MS, 250 MS, 500 MS, 1 S, 2500 MS, 5 S, 10 S,
					30 S, 60 S, 120 S}},
	[STATS_DURATION_OVERHEAD] = {{10, 25, 50, 100, 250, 500, 1 MS, 2500, 5 MS, 10 MS, 25 MS, 50 MS, 100 MS, 250 MS, 1 S}},
	[STATS_DURATION_QUEUE_WAIT] = {{10 MS, 50 MS, 100 MS, 250 MS, 500 MS, 1 S, 2 S, 5 S, 10 S, 20 S, 30 S, 60 S}},
};
/* clang-format on */
#undef MS
#undef S

struct cpu_sample {
	int64_t at_us;
	int64_t cpu_us;
};

struct stats_aggregate {
	struct stats *stats;
	int64_t birth_us;
	int64_t shift_us; /* second = (monotonic + shift) / 1 s */
	pthread_mutex_t lock;
	int64_t second;   /* the running one, at the last drain */
	int64_t drain_ms; /* shared clock at the last drain */
	struct stats_series all;
	struct stats_series **series; /* by slot */
	uint32_t series_count;
	struct cpu_sample cpu[CPU_SAMPLES]; /* a ring, at most one a second */
	size_t cpu_count;
};

static int64_t running_second(const struct stats_aggregate *a)
{
	return (clock_monotonic_us() + a->shift_us) / 1000000;
}

static void sample_cpu(struct stats_aggregate *a)
{
	struct cpu_sample now = {clock_monotonic_us(), clock_read_us(CLOCK_PROCESS_CPUTIME_ID)};
	a->cpu[a->cpu_count++ % CPU_SAMPLES] = now;
}

struct stats_aggregate *stats_aggregate_new(struct stats *s)
{
	struct stats_aggregate *a = check_calloc(1, sizeof *a);
	a->stats = s;
	a->birth_us = clock_monotonic_us();
	a->shift_us = clock_shared_ms() * 1000 - a->birth_us;
	a->second = running_second(a);
	a->all.window = stats_window_new(a->second);
	pthread_mutex_init(&a->lock, NULL);
	sample_cpu(a);
	return a;
}

static void series_fini(struct stats_series *series)
{
	free(series->statuses);
	free(series->problems);
	free(series->durations);
	stats_window_free(series->window);
}

void stats_aggregate_free(struct stats_aggregate *a)
{
	if (!a)
		return;
	series_fini(&a->all);
	for (uint32_t slot = 0; slot < a->series_count; slot++)
		if (a->series[slot])
			series_fini(a->series[slot]);
	for (uint32_t slot = 0; slot < a->series_count; slot++)
		free(a->series[slot]);
	free(a->series);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

void stats_counts_add(struct stats_counts *sum, const struct stats_counts *other)
{
#define X(name) sum->name += other->name;
	STATS_COUNTS(X)
#undef X
}

static bool is_error(const struct stats_event *e)
{
	return e->status >= 500 || ((e->flags & STATS_BROKEN_OFF) && !(e->flags & STATS_CLIENT_GONE));
}

static void count_status(struct stats_series *series, uint16_t status)
{
	size_t i = 0;
	while (i < series->status_count && series->statuses[i].status != status)
		i++;
	if (i == series->status_count) {
		series->statuses = realloc(series->statuses, (i + 1) * sizeof *series->statuses);
		CHECK(series->statuses);
		series->statuses[series->status_count++] = (struct stats_status){.status = status};
	}
	series->statuses[i].count++;
}

static void count_duration(struct stats_series *series, enum stats_duration kind, uint64_t us)
{
	if (!series->durations)
		series->durations = check_calloc(STATS_DURATIONS, sizeof *series->durations);
	struct stats_buckets *buckets = &series->durations[kind];
	const uint32_t *bounds = stats_scales[kind].bounds_us;
	size_t i = 0;
	while (bounds[i] && us > bounds[i])
		i++;
	buckets->counts[i]++;
	buckets->sum_us += us;
	buckets->count++;
}

static void count_totals(struct stats_aggregate *a, struct stats_series *series, const struct stats_event *e)
{
	bool error = is_error(e);
	series->counts.requests++;
	series->counts.errors += error;
	series->counts.bytes_in += e->bytes_in;
	series->counts.bytes_out += e->bytes_out;
	series->counts.input_tokens += e->input_tokens;
	series->counts.output_tokens += e->output_tokens;
	series->estimated_input_tokens += e->flags & STATS_INPUT_ESTIMATED ? e->input_tokens : 0;
	series->estimated_output_tokens += e->flags & STATS_OUTPUT_ESTIMATED ? e->output_tokens : 0;
	series->last_request_ms = a->drain_ms;
	if (!series->window)
		series->window = stats_window_new(a->second);
	stats_window_record(series->window, a->second, e->duration_us, error);
}

static void count_details(struct stats_series *series, const struct stats_event *e)
{
	bool unanswered = e->status == 0 && (e->flags & STATS_CLIENT_GONE);
	count_status(series, unanswered ? STATUS_CLIENT_GONE : e->status);
	count_duration(series, STATS_DURATION_REQUEST, e->duration_us);
	count_duration(series, STATS_DURATION_OVERHEAD, e->overhead_us);
	if (e->first_byte_us)
		count_duration(series, STATS_DURATION_FIRST_BYTE, e->first_byte_us);
	if (e->flags & STATS_QUEUED)
		count_duration(series, STATS_DURATION_QUEUE_WAIT, e->queue_wait_us);
	if (e->problem != PROBLEM_NONE && e->problem < PROBLEM_COUNT) {
		if (!series->problems)
			series->problems = check_calloc(PROBLEM_COUNT, sizeof *series->problems);
		series->problems[e->problem]++;
	}
}

static struct stats_series *series_of(struct stats_aggregate *a, uint32_t slot)
{
	if (slot >= a->series_count) {
		uint32_t count = slot < 64 ? 64 : slot * 2;
		a->series = realloc(a->series, count * sizeof *a->series);
		CHECK(a->series);
		memset(a->series + a->series_count, 0, (count - a->series_count) * sizeof *a->series);
		a->series_count = count;
	}
	if (!a->series[slot])
		a->series[slot] = check_calloc(1, sizeof *a->series[slot]);
	return a->series[slot];
}

static void on_event(void *context, const struct stats_event *e)
{
	struct stats_aggregate *a = context;
	if (e->kind == STATS_REQUEST)
		count_totals(a, &a->all, e);
	if (e->slot == STATS_NO_SLOT)
		return;
	struct stats_series *series = series_of(a, e->slot);
	if (e->kind == STATS_REQUEST) {
		count_totals(a, series, e);
		count_details(series, e);
	} else {
		count_status(series, e->status);
	}
}

static void on_slot_gone(void *context, uint32_t slot)
{
	struct stats_aggregate *a = context;
	if (slot >= a->series_count || !a->series[slot])
		return;
	series_fini(a->series[slot]);
	free(a->series[slot]);
	a->series[slot] = NULL;
}

/* Once a second: windows move on, those that hold nothing go. */
static void turn_second(struct stats_aggregate *a, int64_t second)
{
	a->second = second;
	stats_window_advance(a->all.window, second);
	for (uint32_t slot = 0; slot < a->series_count; slot++) {
		struct stats_series *series = a->series[slot];
		if (!series || !series->window)
			continue;
		stats_window_advance(series->window, second);
		if (stats_window_is_empty(series->window)) {
			stats_window_free(series->window);
			series->window = NULL;
		}
	}
	sample_cpu(a);
}

size_t stats_aggregate_drain(struct stats_aggregate *a)
{
	pthread_mutex_lock(&a->lock);
	int64_t second = running_second(a);
	if (second > a->second)
		turn_second(a, second);
	a->drain_ms = clock_shared_ms();
	size_t drained = stats_drain(a->stats, on_event, on_slot_gone, a);
	pthread_mutex_unlock(&a->lock);
	return drained;
}

void stats_aggregate_lock(struct stats_aggregate *a)
{
	pthread_mutex_lock(&a->lock);
}

void stats_aggregate_unlock(struct stats_aggregate *a)
{
	pthread_mutex_unlock(&a->lock);
}

const struct stats_series *stats_aggregate_all(const struct stats_aggregate *a)
{
	return &a->all;
}

const struct stats_series *stats_aggregate_slot(const struct stats_aggregate *a, uint32_t slot)
{
	return slot < a->series_count ? a->series[slot] : NULL;
}

int64_t stats_aggregate_second(const struct stats_aggregate *a)
{
	return a->second;
}

struct stats *stats_aggregate_stats(const struct stats_aggregate *a)
{
	return a->stats;
}

int64_t stats_aggregate_unix_second(const struct stats_aggregate *a, int64_t second)
{
	/* Whole seconds only, so that a second keeps its time unless the wall clock was set. */
	int64_t shift_us = clock_shared_ms() * 1000 - clock_monotonic_us();
	int64_t set_us = shift_us - a->shift_us;
	return second + (set_us + (set_us < 0 ? -500000 : 500000)) / 1000000;
}

double stats_aggregate_uptime_seconds(const struct stats_aggregate *a)
{
	return (double)(clock_monotonic_us() - a->birth_us) / 1e6;
}

double stats_aggregate_cpu_percent(struct stats_aggregate *a)
{
	int64_t now_us = clock_monotonic_us();
	int64_t cpu_us = clock_read_us(CLOCK_PROCESS_CPUTIME_ID);
	int64_t limit_us = now_us - (STATS_WINDOW_SECONDS + 2) * INT64_C(1000000);
	pthread_mutex_lock(&a->lock);
	size_t held = a->cpu_count < CPU_SAMPLES ? a->cpu_count : CPU_SAMPLES;
	struct cpu_sample oldest = a->cpu[(a->cpu_count - 1) % CPU_SAMPLES];
	for (size_t back = 1; back <= held; back++) {
		struct cpu_sample sample = a->cpu[(a->cpu_count - back) % CPU_SAMPLES];
		if (sample.at_us >= limit_us)
			oldest = sample;
	}
	pthread_mutex_unlock(&a->lock);
	return now_us > oldest.at_us ? 100.0 * (double)(cpu_us - oldest.cpu_us) / (double)(now_us - oldest.at_us) : 0;
}

void stats_aggregate_totals(struct stats_aggregate *a, struct stats_counts *out)
{
	struct stats_now now;
	stats_now_all(a->stats, &now);
	pthread_mutex_lock(&a->lock);
	*out = a->all.counts;
	pthread_mutex_unlock(&a->lock);
	out->dropped_events = now.dropped_events;
}
