/* Against a real redis-server; the connection is this test's own, so that answers can get lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <hiredis/hiredis.h>
#include <cmocka.h>

#include "ops/flusher.h"
#include "ops/node_name.h"
#include "state/redis_sync.h"
#include "state/stats_aggregate.h"
#include "state/stats_report.h"
#include "state/stats_store.h"
#include "redis_fixture.h"

static struct redis_fixture redis;
static unsigned commands;
static enum { ANSWERS, ANSWER_LOST, NOT_SENT } fault;

struct redis_sync {
	redisContext *connection;
};

struct redis_sync *redis_sync_new(const struct redis_address *address, unsigned deadline_ms)
{
	assert_null(address);
	assert_int_equal(deadline_ms, 250);
	return calloc(1, sizeof(struct redis_sync));
}

void redis_sync_free(struct redis_sync *r)
{
	redis_sync_close(r);
	free(r);
}

void redis_sync_close(struct redis_sync *r)
{
	if (r->connection)
		redisFree(r->connection);
	r->connection = NULL;
}

bool redis_sync_connect(struct redis_sync *r)
{
	if (fault == NOT_SENT)
		return false;
	if (!r->connection)
		r->connection = redisConnectUnix(redis.socket);
	return r->connection && !r->connection->err;
}

const char *redis_sync_error(const struct redis_sync *r)
{
	(void)r;
	return "as the test wants it";
}

bool redis_sync_append_argv(struct redis_sync *r, int count, const char **arguments, const size_t *lengths)
{
	commands++;
	return redisAppendCommandArgv(r->connection, count, arguments, lengths) == REDIS_OK;
}

struct redisReply *redis_sync_read(struct redis_sync *r)
{
	void *reply = NULL;
	redisGetReply(r->connection, &reply);
	if (fault == ANSWERS)
		return reply;
	freeReplyObject(reply);
	redis_sync_close(r);
	return NULL;
}

struct redisReply *redis_sync_command(struct redis_sync *r, const char *format, ...)
{
	va_list arguments;
	if (!redis_sync_connect(r))
		return NULL;
	commands++;
	va_start(arguments, format);
	redisvAppendCommand(r->connection, format, arguments);
	va_end(arguments);
	return redis_sync_read(r);
}

/* -1: there is none. */
static long long ask(const char *command)
{
	const char *text = redis_fixture_do(&redis, command);
	return *text ? atoll(text) : -1;
}

static int start_server(void **state)
{
	(void)state;
	redis_fixture_init(&redis);
	return 0;
}

static int stop_server(void **state)
{
	(void)state;
	redis_fixture_fini(&redis);
	return 0;
}

static int start_empty(void **state)
{
	(void)state;
	fault = ANSWERS;
	ask("FLUSHALL");
	return 0;
}

static void assert_stored(const char *who, const char *field, long long want)
{
	char command[128];
	snprintf(command, sizeof command, "HGET apiproxy:stats:totals:%s %s", who, field);
	assert_int_equal(ask(command), want);
}

static void test_totals_survive_a_life(void **state)
{
	(void)state;
	struct stats_counts base;
	struct stats_store *store = stats_store_new(NULL, "n1", true);
	assert_true(stats_store_flush(store, &(struct stats_counts){.requests = 5, .bytes_out = UINT64_C(5000000000)}));
	assert_true(stats_store_flush(store, &(struct stats_counts){.requests = 8, .bytes_out = UINT64_C(5000000000)}));
	stats_store_base(store, &base);
	assert_int_equal(base.requests, 0);
	stats_store_free(store);
	assert_stored("n1", "requests", 8);
	assert_stored("cluster", "bytes_out", 5000000000);
	assert_in_range(ask("TTL apiproxy:stats:totals:n1"), 399 * 86400, 400 * 86400);
	assert_int_equal(ask("TTL apiproxy:stats:totals:cluster"), -1);

	store = stats_store_new(NULL, "n1", true);
	assert_true(stats_store_flush(store, &(struct stats_counts){.requests = 1}));
	stats_store_base(store, &base);
	assert_int_equal(base.requests, 8);
	assert_int_equal(base.bytes_out, UINT64_C(5000000000));
	assert_stored("n1", "requests", 9);
	stats_store_free(store);
}

static void test_a_lost_answer_counts_once(void **state)
{
	(void)state;
	struct stats_counts base;
	struct stats_store *store = stats_store_new(NULL, "n1", true);
	fault = NOT_SENT;
	assert_false(stats_store_flush(store, &(struct stats_counts){.requests = 3}));
	fault = ANSWER_LOST;
	assert_false(stats_store_flush(store, &(struct stats_counts){.requests = 4}));
	assert_false(stats_store_flush(store, &(struct stats_counts){.requests = 6}));
	fault = ANSWERS;
	assert_true(stats_store_flush(store, &(struct stats_counts){.requests = 7}));
	assert_true(stats_store_flush(store, &(struct stats_counts){.requests = 7}));
	assert_stored("n1", "requests", 7);
	assert_stored("cluster", "requests", 7);
	stats_store_base(store, &base);
	assert_int_equal(base.requests, 0);

	fault = ANSWER_LOST;
	assert_false(stats_store_flush(store, &(struct stats_counts){.requests = 9}));
	fault = ANSWERS;
	assert_true(stats_store_flush(store, &(struct stats_counts){.requests = 11}));
	assert_true(stats_store_flush(store, &(struct stats_counts){.requests = 10})); /* an older view */
	assert_true(stats_store_flush(store, &(struct stats_counts){.requests = 12}));
	assert_stored("n1", "requests", 12);
	assert_stored("cluster", "requests", 12);
	stats_store_free(store);
}

static void test_what_redis_loses_comes_back(void **state)
{
	(void)state;
	struct stats_store *store = stats_store_new(NULL, "n1", true), *other = stats_store_new(NULL, "n2", true);
	assert_true(stats_store_flush(store, &(struct stats_counts){.requests = 50}));
	assert_true(stats_store_flush(other, &(struct stats_counts){.requests = 7}));
	ask("FLUSHALL");
	for (int i = 0; i < 2; i++) {
		assert_true(stats_store_flush(store, &(struct stats_counts){.requests = 53}));
		assert_true(stats_store_flush(other, &(struct stats_counts){.requests = 7}));
	}
	assert_stored("n1", "requests", 53);
	assert_stored("n2", "requests", 7);
	assert_stored("cluster", "requests", 60);
	stats_store_free(store);
	stats_store_free(other);
}

static void test_a_quiet_node_of_its_own_redis_is_silent(void **state)
{
	(void)state;
	struct stats_store *store = stats_store_new(NULL, "n1", false);
	assert_true(stats_store_flush(store, &(struct stats_counts){0})); /* asks for the base */
	unsigned before = commands;
	assert_true(stats_store_flush(store, &(struct stats_counts){0}));
	assert_int_equal(commands, before);
	assert_true(stats_store_flush(store, &(struct stats_counts){.errors = 1}));
	assert_int_equal(commands, before + 1);
	assert_false(stats_store_has_peers(store));
	stats_store_free(store);
}

struct node {
	struct stats *stats;
	struct stats_aggregate *aggregate;
	struct stats_store *store;
};

static struct node start_node(const char *name)
{
	struct node n = {.stats = stats_new(1, true)};
	n.aggregate = stats_aggregate_new(n.stats);
	n.store = stats_store_new(NULL, name, true);
	stats_slot_acquire(n.stats, STATS_MAPPING, "/a", NULL);
	return n;
}

static void stop_node(struct node *n)
{
	stats_store_free(n->store);
	stats_aggregate_free(n->aggregate);
	stats_free(n->stats);
}

static void requests(struct node *n, int count)
{
	for (int i = 0; i < count; i++) {
		stats_begin(stats_ring(n->stats, 0), 1);
		stats_end(stats_ring(n->stats, 0),
			&(struct stats_event){.kind = STATS_REQUEST, .slot = 1, .status = 200, .duration_us = 1000});
	}
}

static void test_the_cluster_is_the_sum(void **state)
{
	(void)state;
	struct node one = start_node("n1"), two = start_node("n2");
	struct stats_report report;
	requests(&one, 10);
	requests(&two, 5);
	stats_report_collect(two.aggregate, &report);
	assert_true(stats_store_flush(two.store, &report.totals));
	assert_true(stats_store_publish(two.store, &report));
	stats_report_fini(&report);

	stats_report_collect(one.aggregate, &report);
	assert_true(stats_store_merge_cluster(one.store, &report));
	assert_true(stats_store_has_peers(one.store));
	assert_int_equal(report.totals.requests, 15);
	assert_int_equal(report.recent.requests, 15);
	assert_int_equal(stats_report_find(&report, "/a")->counts.requests, 15);
	stats_report_fini(&report);
	assert_in_range(ask("TTL apiproxy:stats:node:n2"), 1, 10);

	fault = NOT_SENT;
	stats_report_collect(one.aggregate, &report);
	assert_false(stats_store_merge_cluster(one.store, &report));
	assert_int_equal(report.totals.requests, 10);
	stats_report_fini(&report);
	stop_node(&one);
	stop_node(&two);
}

static void test_the_flusher_flushes(void **state)
{
	(void)state;
	struct node one = start_node("n1"), two = start_node("n2");
	assert_true(stats_store_flush(two.store, &(struct stats_counts){0})); /* a peer */
	struct flusher *f = flusher_start(one.aggregate, one.store);
	requests(&one, 10);
	for (int i = 0; i < 60 && ask("HGET apiproxy:stats:totals:n1 requests") != 10; i++)
		usleep(50000);
	assert_stored("n1", "requests", 10);
	assert_int_equal(ask("EXISTS apiproxy:stats:node:n1"), 1);
	requests(&one, 7);
	flusher_stop(f);
	assert_stored("n1", "requests", 17);
	stop_node(&one);
	stop_node(&two);
}

/* How often the thread "flusher" went to sleep. */
static long sleeps_of_flusher(void)
{
	char path[300], line[128];
	long sleeps = -1;
	DIR *tasks = opendir("/proc/self/task");
	assert_non_null(tasks);
	for (struct dirent *task; (task = readdir(tasks));) {
		bool is_flusher = false;
		snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
		FILE *file = task->d_name[0] == '.' ? NULL : fopen(path, "r");
		while (file && fgets(line, sizeof line, file)) {
			is_flusher = is_flusher || strcmp(line, "Name:\tflusher\n") == 0;
			if (is_flusher)
				sscanf(line, "voluntary_ctxt_switches: %ld", &sleeps);
		}
		if (file)
			fclose(file);
	}
	closedir(tasks);
	assert_true(sleeps >= 0);
	return sleeps;
}

static void test_an_idle_flusher_sleeps(void **state)
{
	(void)state;
	struct node one = start_node("n1");
	struct flusher *f = flusher_start(one.aggregate, NULL);
	usleep(300000);
	long before = sleeps_of_flusher();
	usleep(1000000);
	assert_in_range(sleeps_of_flusher() - before, 0, 4);
	requests(&one, 1);
	usleep(200000);
	struct stats_now now;
	stats_now_all(one.stats, &now);
	assert_int_equal(now.waiting_events, 0);
	flusher_stop(f);
	stop_node(&one);
}

/* In a process of its own, as a life is. */
static void name_of_a_life(char *out, size_t size)
{
	int ends[2];
	assert_int_equal(pipe(ends), 0);
	pid_t child = fork();
	if (child == 0) {
		char *name = node_name_load(redis.directory);
		_exit(write(ends[1], name, strlen(name)) <= 0);
	}
	close(ends[1]);
	ssize_t length = read(ends[0], out, size - 1);
	assert_true(length > 0);
	out[length] = '\0';
	close(ends[0]);
	waitpid(child, NULL, 0);
}

static void test_a_node_keeps_its_name(void **state)
{
	(void)state;
	char first_life[128], second_life[128];
	name_of_a_life(first_life, sizeof first_life);
	name_of_a_life(second_life, sizeof second_life);
	assert_string_equal(first_life, second_life);
	char *name = node_name_load(redis.directory), *second = node_name_load(redis.directory);
	assert_string_equal(name, first_life);
	assert_string_not_equal(name, second); /* the first is locked */
	free(second);
	free(name);

	char *lost = node_name_load("/nonexistent");
	assert_true(strlen(lost) > 9);
	free(lost);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_totals_survive_a_life, start_empty),
		cmocka_unit_test_setup(test_a_lost_answer_counts_once, start_empty),
		cmocka_unit_test_setup(test_what_redis_loses_comes_back, start_empty),
		cmocka_unit_test_setup(test_a_quiet_node_of_its_own_redis_is_silent, start_empty),
		cmocka_unit_test_setup(test_the_cluster_is_the_sum, start_empty),
		cmocka_unit_test_setup(test_the_flusher_flushes, start_empty),
		cmocka_unit_test_setup(test_an_idle_flusher_sleeps, start_empty),
		cmocka_unit_test_setup(test_a_node_keeps_its_name, start_empty),
	};
	return cmocka_run_group_tests(tests, start_server, stop_server);
}
