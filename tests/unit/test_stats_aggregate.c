/* stats_aggregate: windows, what counts as an error, reports and their JSON, figures of the process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "state/problem.h"
#include "state/stats_aggregate.h"
#include "state/stats_process.h"
#include "state/stats_report.h"
#include "state/stats_window.h"

static void assert_sum(const struct stats_window *w, uint32_t requests, uint32_t errors, uint64_t duration_us)
{
	struct stats_second sum;
	stats_window_sum(w, &sum);
	assert_int_equal(sum.requests, requests);
	assert_int_equal(sum.errors, errors);
	assert_int_equal(sum.duration_us, duration_us);
	assert_int_equal(stats_window_latency(w)->count, requests);
}

static void test_window_forgets_after_60_seconds(void **state)
{
	(void)state;
	struct stats_window *w = stats_window_new(1000);
	struct stats_second second;
	stats_window_record(w, 1000, 10, false);
	stats_window_record(w, 1000, 20, true);
	stats_window_record(w, 1030, 31, false);
	assert_sum(w, 3, 1, 61);
	stats_window_second(w, 1000, &second);
	assert_int_equal(second.requests, 2);
	assert_int_equal(second.errors, 1);
	assert_int_equal(second.p95_us, 20);
	stats_window_second(w, 1030, &second); /* still running */
	assert_int_equal(second.p95_us, 31);
	stats_window_advance(w, 1060);
	assert_sum(w, 3, 1, 61);
	stats_window_advance(w, 1061);
	assert_sum(w, 1, 0, 31);
	stats_window_second(w, 1000, &second);
	assert_int_equal(second.requests, 0);
	stats_window_record(w, 1050, 7, false); /* a clock that goes back */
	assert_sum(w, 2, 0, 38);
	assert_false(stats_window_is_empty(w));
	stats_window_advance(w, 5000);
	assert_sum(w, 0, 0, 0);
	assert_true(stats_window_is_empty(w));
	stats_window_free(w);
}

static void test_window_equals_a_plain_sum(void **state)
{
	(void)state;
	enum { SECONDS = 400, PER_SECOND = 20 };
	static uint64_t durations[SECONDS][PER_SECOND];
	struct stats_window *w = stats_window_new(0);
	srand(2);
	for (int64_t now = 0; now < SECONDS; now++) {
		if (now % 7 == 3)
			now += rand() % 30;
		for (int i = 0; i < PER_SECOND && now < SECONDS; i++) {
			durations[now][i] = (uint64_t)(rand() % 100000 + 1);
			stats_window_record(w, now, durations[now][i], false);
		}
		if (now >= SECONDS)
			break;
		struct histogram want = {0};
		uint64_t sum = 0;
		for (int64_t second = now < 60 ? 0 : now - 60; second <= now; second++)
			for (int i = 0; i < PER_SECOND; i++)
				if (durations[second][i]) {
					histogram_record(&want, durations[second][i]);
					sum += durations[second][i];
				}
		assert_sum(w, (uint32_t)want.count, 0, sum);
		assert_int_equal(histogram_percentile(stats_window_latency(w), 99), histogram_percentile(&want, 99));
		histogram_fini(&want);
	}
	stats_window_free(w);
}

static void end(struct stats *s, struct stats_event event)
{
	event.kind = STATS_REQUEST;
	stats_begin(stats_ring(s, 0), event.slot);
	stats_end(stats_ring(s, 0), &event);
}

static void test_what_is_an_error(void **state)
{
	(void)state;
	struct stats *s = stats_new(1, true);
	struct stats_aggregate *a = stats_aggregate_new(s);
	struct stats_counts totals;
	static const struct {
		uint16_t status;
		uint8_t flags;
		bool error;
	} rows[] = {
		{200, 0, false},
		{404, 0, false},
		{429, 0, false},
		{500, 0, true},
		{502, 0, true},
		{599, 0, true},
		{200, STATS_BROKEN_OFF, true},
		{200, STATS_CLIENT_GONE, false},
		{0, STATS_CLIENT_GONE, false},
		{200, STATS_CLIENT_GONE | STATS_BROKEN_OFF, false},
		{503, STATS_CLIENT_GONE, true},
	};
	uint64_t errors = 0;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		end(s, (struct stats_event){.status = rows[i].status, .flags = rows[i].flags});
		errors += rows[i].error;
		assert_int_equal(stats_aggregate_drain(a), 1);
		stats_aggregate_totals(a, &totals);
		assert_int_equal(totals.requests, i + 1);
		if (totals.errors != errors)
			fail_msg("status %u flags %u", rows[i].status, rows[i].flags);
	}
	stats_aggregate_free(a);
	stats_free(s);
}

static uint64_t count_of_status(const struct stats_series *series, uint16_t status)
{
	for (size_t i = 0; i < series->status_count; i++)
		if (series->statuses[i].status == status)
			return series->statuses[i].count;
	return 0;
}

static void test_a_mapping_and_a_key(void **state)
{
	(void)state;
	struct stats *s = stats_new(1, true);
	struct stats_aggregate *a = stats_aggregate_new(s);
	uint32_t slot = stats_slot_acquire(s, STATS_MAPPING, "/a", NULL);
	uint32_t key = stats_slot_acquire(s, STATS_KEY, "k", "pool");
	end(s,
		(struct stats_event){.slot = slot,
			.status = 200,
			.duration_us = 1500,
			.first_byte_us = 900,
			.bytes_in = 7,
			.bytes_out = 9,
			.input_tokens = 3,
			.output_tokens = 4,
			.overhead_us = 10});
	end(s,
		(struct stats_event){.slot = slot, .status = 429, .problem = PROBLEM_QUEUE_FULL, .duration_us = 900000000});
	end(s, (struct stats_event){.slot = slot, .flags = STATS_CLIENT_GONE | STATS_QUEUED, .queue_wait_us = 0});
	stats_attempt(stats_ring(s, 0), &(struct stats_event){.kind = STATS_ATTEMPT, .slot = key, .status = 401});
	stats_attempt(stats_ring(s, 0), &(struct stats_event){.kind = STATS_ATTEMPT, .slot = key});
	stats_aggregate_drain(a);
	stats_aggregate_lock(a);
	const struct stats_series *series = stats_aggregate_slot(a, slot);
	assert_non_null(series);
	assert_int_equal(series->counts.requests, 3);
	assert_int_equal(series->counts.bytes_in, 7);
	assert_int_equal(series->counts.bytes_out, 9);
	assert_int_equal(series->counts.input_tokens, 3);
	assert_int_equal(series->counts.output_tokens, 4);
	assert_int_equal(count_of_status(series, 200), 1);
	assert_int_equal(count_of_status(series, 429), 1);
	assert_int_equal(count_of_status(series, 499), 1);
	assert_int_equal(series->problems[PROBLEM_QUEUE_FULL], 1);
	assert_int_equal(series->durations[STATS_DURATION_REQUEST].count, 3);
	assert_int_equal(series->durations[STATS_DURATION_REQUEST].counts[1], 1);  /* up to 2.5 ms */
	assert_int_equal(series->durations[STATS_DURATION_REQUEST].counts[18], 1); /* above 600 s */
	assert_int_equal(series->durations[STATS_DURATION_FIRST_BYTE].count, 1);
	assert_int_equal(series->durations[STATS_DURATION_OVERHEAD].count, 3);
	assert_int_equal(series->durations[STATS_DURATION_OVERHEAD].counts[0], 3); /* a bound counts below itself */
	assert_int_equal(series->durations[STATS_DURATION_QUEUE_WAIT].count, 1);
	assert_int_equal(count_of_status(stats_aggregate_slot(a, key), 401), 1);
	assert_int_equal(count_of_status(stats_aggregate_slot(a, key), 0), 1);
	assert_int_equal(stats_aggregate_all(a)->counts.requests, 3);
	stats_aggregate_unlock(a);

	stats_slot_release(s, slot);
	stats_aggregate_drain(a);
	stats_aggregate_lock(a);
	assert_null(stats_aggregate_slot(a, slot));
	assert_int_equal(stats_aggregate_all(a)->counts.requests, 3); /* totals stay */
	stats_aggregate_unlock(a);
	stats_aggregate_free(a);
	stats_free(s);
}

static void test_seconds_are_those_of_the_wall_clock(void **state)
{
	(void)state;
	struct stats *s = stats_new(1, true);
	struct stats_aggregate *a = stats_aggregate_new(s);
	stats_aggregate_drain(a);
	int64_t second = stats_aggregate_second(a);
	assert_in_range(time(NULL) - stats_aggregate_unix_second(a, second), 0, 1);
	assert_int_equal(stats_aggregate_unix_second(a, second - 59) + 59, stats_aggregate_unix_second(a, second));
	stats_aggregate_free(a);
	stats_free(s);
}

static void test_report_goes_through_json_and_adds_up(void **state)
{
	(void)state;
	struct stats *s = stats_new(1, true);
	struct stats_aggregate *a = stats_aggregate_new(s);
	uint32_t slot = stats_slot_acquire(s, STATS_MAPPING, "/b", NULL);
	uint32_t busy = stats_slot_acquire(s, STATS_MAPPING, "/a", NULL);
	stats_slot_acquire(s, STATS_MAPPING, "/never", NULL);
	struct stats_report one, other;
	for (int i = 1; i <= 100; i++)
		end(s,
			(struct stats_event){.slot = slot,
				.status = i > 90 ? 500 : 200,
				.duration_us = (uint64_t)i * 1000,
				.bytes_in = 2});
	stats_begin(stats_ring(s, 0), busy);
	stats_report_collect(a, &one);
	assert_int_equal(one.endpoint_count, 2);
	assert_string_equal(one.endpoints[0].prefix, "/a");
	assert_int_equal(one.endpoints[0].active_requests, 1);
	assert_int_equal(stats_report_find(&one, "/b")->counts.errors, 10);
	assert_null(stats_report_find(&one, "/never"));
	char *json = stats_report_to_json(&one);
	assert_true(stats_report_from_json(&other, json));
	free(json);
	assert_int_equal(other.recent.latency.count, 100);
	free(other.endpoints[0].prefix);
	other.endpoints[0].prefix = strdup("/c");

	stats_report_merge(&one, &other);
	assert_int_equal(one.recent.requests, 200);
	assert_int_equal(one.recent.errors, 20);
	assert_in_range(histogram_percentile(&one.recent.latency, 95), 93500, 96500);
	assert_int_equal(one.active_requests, 2);
	assert_int_equal(one.endpoint_count, 3);
	assert_int_equal(stats_report_find(&one, "/b")->counts.bytes_in, 400);
	assert_int_equal(stats_report_find(&one, "/c")->active_requests, 1);
	uint32_t in_history = 0;
	for (int i = 0; i < STATS_WINDOW_SECONDS; i++)
		in_history += one.history[i].figures.requests;
	assert_int_equal(in_history, 200);
	stats_report_fini(&one);
	stats_report_fini(&other);
	stats_aggregate_free(a);
	stats_free(s);
}

static void test_foreign_reports_are_checked(void **state)
{
	(void)state;
	struct stats_report r;
	const char *bad[] = {"", "x", "[]", "{}", "{\"recent\":{\"latency\":\"\"}}",
		"{\"recent\":{\"latency\":\"q\"},\"endpoints\":[]}", "{\"recent\":{\"latency\":\"\"},\"endpoints\":[{}]}",
		"{\"recent\":{\"latency\":\"\"},\"endpoints\":[{\"prefix\":\"/a\"}]}",
		"{\"recent\":{\"latency\":\"\"},\"endpoints\":[{\"prefix\":\"/a\",\"recent\":{\"latency\":5}}]}"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (stats_report_from_json(&r, bad[i]))
			fail_msg("%s was taken", bad[i]);
	assert_true(stats_report_from_json(&r,
		"{\"recent\":{\"latency\":\"1:2\",\"requests\":-5,\"errors\":1e300},\"endpoints\":[],"
		"\"history\":[[1],5,{},null],\"memory_bytes\":\"x\",\"new\":{}}"));
	assert_int_equal(r.recent.requests, 0);
	assert_int_equal(r.recent.errors, 0);
	assert_int_equal(r.history[0].figures.requests, 1);
	stats_report_fini(&r);
}

static void test_process_figures(void **state)
{
	(void)state;
	struct stats_process p;
	stats_process_read(&p);
	assert_in_range(p.resident_bytes, 500000, 4000000000);
	assert_true(p.virtual_bytes >= p.resident_bytes);
	assert_in_range(p.open_fds, 3, 1000);
	assert_true(p.max_fds >= p.open_fds);
	assert_in_range(p.threads, 1, 4); /* a sanitizer may have its own */
	assert_in_range(time(NULL) - (time_t)p.start_time_seconds, 0, 600);
	assert_in_range(stats_process_resident_bytes(), p.resident_bytes / 2, p.resident_bytes * 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_window_forgets_after_60_seconds),
		cmocka_unit_test(test_window_equals_a_plain_sum),
		cmocka_unit_test(test_what_is_an_error),
		cmocka_unit_test(test_a_mapping_and_a_key),
		cmocka_unit_test(test_seconds_are_those_of_the_wall_clock),
		cmocka_unit_test(test_report_goes_through_json_and_adds_up),
		cmocka_unit_test(test_foreign_reports_are_checked),
		cmocka_unit_test(test_process_figures),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
