/* figures: /stats, /metrics and /performance from a snapshot and an aggregate of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cjson/cJSON.h>
#include <cmocka.h>

#include "admin/figures.h"
#include "state/problem.h"
#include "state/snapshot.h"
#include "state/stats.h"
#include "state/stats_aggregate.h"

/* A snapshot of this test's own. */
struct snapshot {
	struct mapping mappings[3];
	size_t mapping_count;
	struct vendor_key keys[2];
	int references;
};

size_t snapshot_mapping_count(const struct snapshot *s)
{
	return s->mapping_count;
}

const struct mapping *snapshot_mapping_at(const struct snapshot *s, size_t index)
{
	return &s->mappings[index];
}

size_t snapshot_key_count(const struct snapshot *s)
{
	(void)s;
	return 2;
}

const struct vendor_key *snapshot_key_at(const struct snapshot *s, size_t index)
{
	return &s->keys[index];
}

void snapshot_unref(struct snapshot *s)
{
	if (s)
		s->references--;
}

struct fixture {
	struct stats *stats;
	struct stats_aggregate *aggregate;
	struct snapshot snapshot;
	struct figures_sources sources;
};

static struct snapshot *get_snapshot(void *context)
{
	struct fixture *f = context;
	f->snapshot.references++;
	return &f->snapshot;
}

static bool redis_is_down(void *context)
{
	(void)context;
	return false;
}

static uint64_t three_reloads(void *context)
{
	(void)context;
	return 3;
}

static bool second_key_cools(const void *context, const struct vendor_key *key)
{
	(void)context;
	return strcmp(key->id, "k2") != 0;
}

static int set_up(void **state)
{
	static const char *const prefixes[] = {"/a", "/b", "/off"};
	struct fixture *f = calloc(1, sizeof *f);
	f->stats = stats_new(2, true);
	f->aggregate = stats_aggregate_new(f->stats);
	f->snapshot.mapping_count = 3;
	for (size_t i = 0; i < 3; i++)
		f->snapshot.mappings[i] = (struct mapping){.prefix = prefixes[i],
			.enabled = i != 2,
			.stats_slot = stats_slot_acquire(f->stats, STATS_MAPPING, prefixes[i], NULL)};
	f->snapshot.keys[0] = (struct vendor_key){.id = "k1", .pool = "p\"o\\o\nl", .enabled = true, .secret = "s3cret"};
	f->snapshot.keys[1] = (struct vendor_key){.id = "k2", .pool = "q", .enabled = true, .secret = "s3cret"};
	for (size_t i = 0; i < 2; i++)
		f->snapshot.keys[i].stats_slot =
			stats_slot_acquire(f->stats, STATS_KEY, f->snapshot.keys[i].id, f->snapshot.keys[i].pool);
	f->sources = (struct figures_sources){.version = "1.2.3",
		.node = "n1",
		.aggregate = f->aggregate,
		.get_snapshot = get_snapshot,
		.redis_is_up = redis_is_down,
		.config_reloads = three_reloads,
		.key_is_up = second_key_cools,
		.keys = f,
		.context = f};
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	int references = f->snapshot.references;
	stats_aggregate_free(f->aggregate);
	stats_free(f->stats);
	free(f);
	return references;
}

static void end(struct fixture *f, size_t mapping, struct stats_event event)
{
	event.kind = STATS_REQUEST;
	event.slot = f->snapshot.mappings[mapping].stats_slot;
	stats_begin(stats_ring(f->stats, 0), event.slot);
	stats_end(stats_ring(f->stats, 0), &event);
}

/* As those see it who get the text. */
static cJSON *as_read(cJSON *take_json)
{
	char *text = cJSON_PrintUnformatted(take_json);
	cJSON *read = cJSON_Parse(text);
	assert_non_null(read);
	cJSON_free(text);
	cJSON_Delete(take_json);
	return read;
}

static double number(const cJSON *object, const char *name)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
	if (!cJSON_IsNumber(item))
		fail_msg("no number %s", name);
	return item->valuedouble;
}

static const cJSON *member(const cJSON *object, const char *name)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
	if (!item)
		fail_msg("no %s", name);
	return item;
}

static void assert_near(double value, double want, double off)
{
	if (value < want - off || value > want + off)
		fail_msg("%g is not about %g", value, want);
}

static void assert_names(const cJSON *object, const char *names)
{
	char text[512] = "";
	for (const cJSON *item = object->child; item; item = item->next)
		snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", item == object->child ? "" : " ",
			item->string);
	assert_string_equal(text, names);
}

static void test_stats_has_all_fields(void **state)
{
	struct fixture *f = *state;
	cJSON *root = as_read(figures_stats(&f->sources, false));
	assert_names(root, "version node uptime_seconds performance totals endpoints history");
	assert_string_equal(member(root, "version")->valuestring, "1.2.3");
	assert_string_equal(member(root, "node")->valuestring, "n1");
	assert_names(member(root, "performance"),
		"requests_per_sec avg_response_time_ms p50_response_time_ms p95_response_time_ms p99_response_time_ms "
		"error_rate success_rate memory_usage_mb cpu_percent active_requests active_connections");
	assert_names(member(root, "totals"),
		"requests errors bytes_in bytes_out input_tokens output_tokens dropped_events");
	const cJSON *endpoints = member(root, "endpoints");
	assert_int_equal(cJSON_GetArraySize(endpoints), 2); /* the disabled one had no traffic */
	assert_names(endpoints->child,
		"prefix requests errors error_rate requests_per_sec avg_response_time_ms "
		"p50_response_time_ms p95_response_time_ms p99_response_time_ms active_requests bytes_in bytes_out "
		"input_tokens output_tokens last_request_at");
	assert_true(cJSON_IsNull(member(endpoints->child, "last_request_at")));
	assert_int_equal(cJSON_GetArraySize(member(root, "history")), 60);
	assert_names(member(root, "history")->child, "at requests errors p95_response_time_ms");
	assert_near(number(member(root, "performance"), "success_rate"), 100, 0);
	cJSON_Delete(root);
}

static void test_stats_of_some_requests(void **state)
{
	struct fixture *f = *state;
	for (int i = 1; i <= 3; i++)
		end(f, 0,
			(struct stats_event){.status = i == 3 ? 502 : 200,
				.duration_us = 10000,
				.bytes_in = 5,
				.output_tokens = 7});
	end(f, 2, (struct stats_event){.status = 200, .duration_us = 10000});
	stats_begin(stats_ring(f->stats, 1), f->snapshot.mappings[1].stats_slot);
	stats_connections(stats_ring(f->stats, 1), 4);
	cJSON *root = as_read(figures_stats(&f->sources, true)); /* without a store the cluster is this node */
	const cJSON *performance = member(root, "performance"), *totals = member(root, "totals");
	const cJSON *endpoint = member(root, "endpoints")->child;
	assert_near(number(performance, "requests_per_sec"), 0.07, 0);
	assert_near(number(performance, "error_rate"), 25, 0);
	assert_near(number(performance, "success_rate"), 75, 0);
	assert_near(number(performance, "avg_response_time_ms"), 10, 0);
	assert_near(number(performance, "p99_response_time_ms"), 10, 0.16);
	assert_near(number(performance, "active_requests"), 1, 0);
	assert_near(number(performance, "active_connections"), 4, 0);
	assert_true(number(performance, "memory_usage_mb") > 0.5);
	assert_near(number(totals, "requests"), 4, 0);
	assert_near(number(totals, "bytes_in"), 15, 0);
	assert_string_equal(member(endpoint, "prefix")->valuestring, "/a");
	assert_near(number(endpoint, "error_rate"), 33.33, 0);
	assert_near(number(endpoint, "output_tokens"), 21, 0);
	assert_int_equal(strlen(member(endpoint, "last_request_at")->valuestring) > 19, 1);
	assert_int_equal(cJSON_GetArraySize(member(root, "endpoints")), 3);
	double in_history = 0;
	const cJSON *second;
	cJSON_ArrayForEach(second, member(root, "history"))
		in_history += number(second, "requests");
	assert_near(in_history, 4, 0);
	cJSON_Delete(root);

	f->snapshot.mapping_count = 0;
	root = as_read(figures_stats(&f->sources, false));
	assert_int_equal(cJSON_GetArraySize(member(root, "endpoints")), 0);
	assert_near(number(member(root, "totals"), "requests"), 4, 0);
	cJSON_Delete(root);
}

static void test_performance(void **state)
{
	struct fixture *f = *state;
	for (int i = 0; i < 10; i++)
		end(f, 0, (struct stats_event){.status = 200, .duration_us = 10000});
	cJSON *root = figures_performance(&f->sources);
	const cJSON *workers = member(root, "workers"), *latency = member(root, "latency");
	assert_int_equal(cJSON_GetArraySize(workers), 2);
	assert_near(number(workers->child, "ring_events"), 10, 0);
	assert_near(number(latency, "p99_9_ms"), 10, 0.16);
	assert_string_equal(member(root, "redis")->valuestring, "down");
	double requests = 0;
	const cJSON *bucket;
	cJSON_ArrayForEach(bucket, member(latency, "distribution"))
		requests += number(bucket, "requests");
	assert_near(requests, 10, 0);
	member(root, "performance");
	cJSON_Delete(root);
}

static void traffic(struct fixture *f)
{
	end(f, 0,
		(struct stats_event){.status = 200,
			.duration_us = 1500,
			.first_byte_us = 1000,
			.overhead_us = 40,
			.input_tokens = 11,
			.output_tokens = 12,
			.flags = STATS_QUEUED | STATS_OUTPUT_ESTIMATED,
			.queue_wait_us = 70000});
	end(f, 0, (struct stats_event){.status = 414, .problem = PROBLEM_URI_TOO_LONG});
	end(f, 0, (struct stats_event){.status = 431, .problem = PROBLEM_HEAD_TOO_LARGE});
	end(f, 1, (struct stats_event){.flags = STATS_CLIENT_GONE});
	stats_begin(stats_ring(f->stats, 1), f->snapshot.mappings[1].stats_slot);
	stats_queue_length(stats_ring(f->stats, 1), f->snapshot.mappings[1].stats_slot, 5);
	stats_attempt(stats_ring(f->stats, 0),
		&(struct stats_event){.kind = STATS_ATTEMPT, .slot = f->snapshot.keys[0].stats_slot, .status = 529});
}

static void test_metrics(void **state)
{
	static const char *const lines[] = {
		"# TYPE apiproxy_build_info gauge",
		"apiproxy_build_info{version=\"1.2.3\"} 1",
		"# TYPE apiproxy_requests_total counter",
		"apiproxy_requests_total{mapping=\"/a\",status=\"200\"} 1",
		"apiproxy_requests_total{mapping=\"/b\",status=\"499\"} 1",
		"apiproxy_request_duration_seconds_bucket{mapping=\"/a\",le=\"0.001\"} 2",
		"apiproxy_request_duration_seconds_bucket{mapping=\"/a\",le=\"0.0025\"} 3",
		"apiproxy_request_duration_seconds_bucket{mapping=\"/a\",le=\"600\"} 3",
		"apiproxy_request_duration_seconds_bucket{mapping=\"/a\",le=\"+Inf\"} 3",
		"apiproxy_request_duration_seconds_sum{mapping=\"/a\"} 0.001500",
		"apiproxy_request_duration_seconds_count{mapping=\"/a\"} 3",
		"apiproxy_time_to_first_byte_seconds_count{mapping=\"/a\"} 1",
		"apiproxy_overhead_seconds_bucket{mapping=\"/a\",le=\"1e-05\"} 2",
		"apiproxy_active_requests{mapping=\"/b\"} 1",
		"apiproxy_active_requests{mapping=\"/off\"} 0",
		"apiproxy_tokens_total{mapping=\"/a\",direction=\"input\"} 11",
		"apiproxy_tokens_total{mapping=\"/a\",direction=\"output\"} 12",
		"apiproxy_tokens_estimated_total{mapping=\"/a\",direction=\"input\"} 0",
		"apiproxy_tokens_estimated_total{mapping=\"/a\",direction=\"output\"} 12",
		"apiproxy_rejected_total{mapping=\"/a\",code=\"head_too_large\"} 2",
		"apiproxy_upstream_key_up{pool=\"p\\\"o\\\\o\\nl\",key=\"k1\"} 1",
		"apiproxy_upstream_key_up{pool=\"q\",key=\"k2\"} 0",
		"apiproxy_upstream_key_requests_total{pool=\"p\\\"o\\\\o\\nl\",key=\"k1\",status=\"529\"} 1",
		"apiproxy_queue_length{mapping=\"/b\"} 5",
		"apiproxy_queue_wait_seconds_count{mapping=\"/a\"} 1",
		"apiproxy_connections 0",
		"apiproxy_redis_up 0",
		"apiproxy_config_reloads_total 3",
		"apiproxy_stats_dropped_total 0",
	};
	struct fixture *f = *state;
	traffic(f);
	char *text = figures_metrics(&f->sources);
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		char *line = NULL;
		assert_true(asprintf(&line, "\n%s\n", lines[i]) > 0);
		if (i && !strstr(text, line))
			fail_msg("missing: %s", lines[i]);
		free(line);
	}
	assert_null(strstr(text, "s3cret"));
	assert_non_null(strstr(text, "\nprocess_resident_memory_bytes "));
	free(text);

	f->snapshot.mapping_count = 1;
	text = figures_metrics(&f->sources);
	assert_null(strstr(text, "\"/b\""));
	free(text);
}

/* Feeds it to Prometheus' own checker. */
static void check_with_promtool(const char *text)
{
	FILE *checker = popen("promtool check metrics", "w");
	assert_non_null(checker);
	assert_true(fputs(text, checker) >= 0);
	assert_int_equal(pclose(checker), 0);
}

static void test_promtool_is_content(void **state)
{
	struct fixture *f = *state;
	if (system("command -v promtool >/dev/null") != 0)
		skip();
	char *text = figures_metrics(&f->sources);
	check_with_promtool(text);
	free(text);
	traffic(f);
	text = figures_metrics(&f->sources);
	check_with_promtool(text);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_stats_has_all_fields, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_stats_of_some_requests, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_performance, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_metrics, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_promtool_is_content, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
