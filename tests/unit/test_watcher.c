/* watcher: what happens in Redis reaches the sink. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <cjson/cJSON.h>

#include "base/clock.h"
#include "ops/watcher.h"
#include "redis_fixture.h"
#include "state/faults.h"
#include "state/snapshot.h"
#include "state/store.h"

struct node {
	struct store *store;
	struct watcher *watcher;
	pthread_mutex_t mutex;
	struct snapshot *taken;
	char heard[256];
	unsigned all; /* how often all queues were meant */
};

static struct redis_fixture redis;
static struct node nodes[2];

static void take(void *context, struct snapshot *s)
{
	struct node *node = context;
	pthread_mutex_lock(&node->mutex);
	snapshot_unref(node->taken);
	node->taken = snapshot_ref(s);
	pthread_mutex_unlock(&node->mutex);
}

static void hear(void *context, const char *prefix)
{
	struct node *node = context;
	pthread_mutex_lock(&node->mutex);
	if (prefix)
		snprintf(node->heard, sizeof node->heard, "%s", prefix);
	else
		node->all++;
	pthread_mutex_unlock(&node->mutex);
}

static bool has(struct node *node, const char *path)
{
	pthread_mutex_lock(&node->mutex);
	bool routed = snapshot_route(node->taken, path, strlen(path)) != NULL;
	pthread_mutex_unlock(&node->mutex);
	return routed;
}

static void wait_until(struct node *node, const char *path, bool wanted, int64_t within_ms)
{
	int64_t start = clock_monotonic_ms();
	while (has(node, path) != wanted) {
		if (clock_monotonic_ms() - start > within_ms)
			fail_msg("%s is not %s within %d ms", path, wanted ? "there" : "gone", (int)within_ms);
		usleep(2000);
	}
}

static void node_start(struct node *node)
{
	struct store_options options = {.address = &redis.address};
	memset(node, 0, sizeof(*node));
	pthread_mutex_init(&node->mutex, NULL);
	node->store = store_new(&options);
	node->watcher = watcher_new(node->store, &redis.address, (struct watcher_sink){take, node, hear});
}

static void node_stop(struct node *node)
{
	watcher_free(node->watcher);
	store_free(node->store);
	snapshot_unref(node->taken);
	pthread_mutex_destroy(&node->mutex);
}

static int set_up(void **state)
{
	(void)state;
	redis_fixture_init(&redis);
	for (int i = 0; i < 2; i++) {
		node_start(&nodes[i]);
		if (!watcher_start(nodes[i].watcher))
			return -1;
	}
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	node_stop(&nodes[0]);
	node_stop(&nodes[1]);
	redis_fixture_fini(&redis);
	return 0;
}

static void create_mapping(struct node *node, const char *json)
{
	struct faults faults = {0};
	cJSON *input = cJSON_Parse(json), *object;
	assert_int_equal(store_create(node->store, SCHEMA_MAPPING, input, &object, &faults), STORE_OK);
	cJSON_Delete(input);
	cJSON_Delete(object);
}

static void test_own_change_at_once_and_others_soon(void **state)
{
	(void)state;
	assert_true(has(&nodes[0], "/openai"));
	usleep(300000); /* both listen by now */
	create_mapping(&nodes[0], "{\"prefix\":\"/x\",\"target\":\"http://h\"}");
	assert_true(watcher_reload_now(nodes[0].watcher));
	assert_true(has(&nodes[0], "/x"));
	wait_until(&nodes[1], "/x", true, 500);
}

static void test_raw_change(void **state)
{
	(void)state;
	redis_fixture_do(&redis, "HSET apiproxy:mappings /raw http://h");
	wait_until(&nodes[0], "/raw", true, 1500);
	usleep(300000);
	redis_fixture_do(&redis, "CONFIG SET notify-keyspace-events KEA");
	redis_fixture_do(&redis, "HSET apiproxy:mappings /notified http://h");
	wait_until(&nodes[0], "/notified", true, 500);
	wait_until(&nodes[1], "/notified", true, 500);
}

static void test_quiet_redis_brings_no_reload(void **state)
{
	struct watcher_status before, after;
	(void)state;
	usleep(500000);
	watcher_status(nodes[0].watcher, &before);
	usleep(1500000);
	watcher_status(nodes[0].watcher, &after);
	assert_int_equal(before.reloads, after.reloads);
	assert_true(after.redis_ok);
	assert_true(after.loaded_at_ms > before.loaded_at_ms);
}

/* All queues once when it begins to listen, then that which the message names. */
static void test_starts_given_back(void **state)
{
	(void)state;
	usleep(300000);
	redis_fixture_do(&redis, "PUBLISH apiproxy:given-back /line");
	usleep(100000);
	for (int i = 0; i < 2; i++) {
		pthread_mutex_lock(&nodes[i].mutex);
		assert_int_equal(nodes[i].all, 1);
		assert_string_equal(nodes[i].heard, "/line");
		pthread_mutex_unlock(&nodes[i].mutex);
	}
}

static void test_outage(void **state)
{
	struct watcher_status status;
	(void)state;
	redis_fixture_kill(&redis);
	int64_t start = clock_monotonic_ms();
	do {
		usleep(5000);
		watcher_status(nodes[0].watcher, &status);
		/* a look that was under way says that nothing could be read */
	} while (!strstr(status.redis_error, "connect") && clock_monotonic_ms() - start < 3000);
	assert_false(status.redis_ok);
	assert_non_null(strstr(status.redis_error, "connect"));
	assert_false(watcher_reload_now(nodes[0].watcher));
	assert_true(has(&nodes[0], "/openai"));
	struct snapshot *snapshot = watcher_snapshot(nodes[0].watcher);
	assert_int_equal(snapshot_mapping_count(snapshot), 19);
	snapshot_unref(snapshot);

	redis_fixture_start(&redis);
	do {
		usleep(5000);
		watcher_status(nodes[0].watcher, &status);
	} while (!status.redis_ok && clock_monotonic_ms() - start < 6000);
	assert_true(status.redis_ok);
	assert_true(has(&nodes[0], "/openai"));
	usleep(1500000); /* listening again */
	create_mapping(&nodes[1], "{\"prefix\":\"/after\",\"target\":\"http://h\"}");
	wait_until(&nodes[0], "/after", true, 500);
}

static void test_starts_without_redis(void **state)
{
	struct node late;
	(void)state;
	redis_fixture_kill(&redis);
	node_start(&late);
	assert_false(watcher_start(late.watcher));
	assert_false(has(&late, "/openai"));
	redis_fixture_start(&redis);
	wait_until(&late, "/openai", true, 3000);
	node_stop(&late);
}

static void test_stopped(void **state)
{
	(void)state;
	usleep(300000);
	watcher_stop(nodes[0].watcher);
	watcher_stop(nodes[0].watcher);
	redis_fixture_do(&redis, "HSET apiproxy:mappings /raw http://h");
	wait_until(&nodes[1], "/raw", true, 1500);
	assert_false(has(&nodes[0], "/raw"));
	assert_true(watcher_reload_now(nodes[0].watcher)); /* control threads end after it */
	assert_true(has(&nodes[0], "/raw"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_own_change_at_once_and_others_soon, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_raw_change, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_quiet_redis_brings_no_reload, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_starts_given_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_stopped, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_outage, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_starts_without_redis, set_up, tear_down),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
