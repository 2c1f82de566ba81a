/* store: a Redis that fails, several nodes over one Redis, and many clients. */
#include "base/clock.h"
#include "store_fixture.h"

#include <poll.h>
#include <pthread.h>

static void test_redis_that_comes_back_empty(void **state)
{
	struct store *s = *state;
	assert_int_equal(create(s, SCHEMA_MAPPING, "{\"prefix\":\"/x\",\"target\":\"http://h\"}"), STORE_OK);
	assert_int_equal(create(s, SCHEMA_KEY, "{\"id\":\"k\",\"pool\":\"p\",\"key\":\"sk-vendor-1234567890\"}"),
		STORE_OK);
	struct snapshot *before = refresh(s);
	size_t told = count_in_journal("Redis came back empty");
	redis_fixture_kill(&redis);

	struct faults faults = {0};
	struct snapshot *away, *nothing;
	assert_int_equal(store_refresh(s, &away, &faults), STORE_UNAVAILABLE);
	assert_ptr_equal(away, before);
	faults_fini(&faults);
	assert_int_equal(count_in_journal("traffic goes on with the last configuration"), 1);
	assert_int_equal(count_in_journal("there is no configuration yet"), 0);
	struct store *early = new_store(NULL);
	assert_int_equal(store_refresh(early, &nothing, &faults), STORE_UNAVAILABLE);
	assert_int_equal(snapshot_mapping_count(nothing), 0);
	snapshot_unref(nothing);
	assert_int_equal(count_in_journal("there is no configuration yet"), 1);
	faults_fini(&faults);
	store_free(early);
	assert_int_equal(create(s, SCHEMA_MAPPING, "{\"prefix\":\"/y\",\"target\":\"http://h\"}"), STORE_UNAVAILABLE);
	assert_said("Redis is not available: connect: ");
	assert_int_equal(list(s, SCHEMA_MAPPING), STORE_UNAVAILABLE);

	redis_fixture_start(&redis);
	assert_true(is_routed(s, "/x"));
	assert_int_equal(count_in_journal("Redis came back empty"), told + 1);
	struct snapshot *after = refresh(s);
	assert_string_equal(snapshot_pool(after, "p")->keys[0]->secret, "sk-vendor-1234567890");
	assert_string_equal(snapshot_jwt_secret(after), snapshot_jwt_secret(before));
	assert_string_equal(redis_fixture_do(&redis, "HGET apiproxy:mappings /x"), "http://h");
	struct store *fresh = new_store(NULL);
	assert_true(is_routed(fresh, "/x"));
	store_free(fresh);
	snapshot_unref(before);
	snapshot_unref(away);
	snapshot_unref(after);
}

static void test_redis_that_comes_back_with_something_else(void **state)
{
	struct store *s = *state;
	assert_int_equal(create(s, SCHEMA_MAPPING, "{\"prefix\":\"/x\",\"target\":\"http://h\"}"), STORE_OK);
	assert_int_equal(create(s, SCHEMA_USER, "{\"username\":\"u\",\"password\":\"pw\"}"), STORE_OK);
	assert_int_equal(remove_entry(s, SCHEMA_MAPPING, "/groq"), STORE_OK);
	assert_true(is_routed(s, "/x"));
	redis_fixture_do(&redis, "FLUSHALL");
	redis_fixture_do(&redis, "HSET apiproxy:mappings /new http://new /x http://other");
	assert_true(is_routed(s, "/new"));
	assert_string_equal(redis_fixture_do(&redis, "HGET apiproxy:mappings /x"), "http://other");
	assert_int_equal(count_in_journal("beside what is there by now"), 1);
	assert_true(is_routed(s, "/openai"));
	assert_string_equal(redis_fixture_do(&redis, "HEXISTS apiproxy:users u"), "1");
	assert_false(is_routed(s, "/groq"));
	/* All deleted is not lost. */
	redis_fixture_do(&redis, "DEL apiproxy:mappings");
	assert_false(is_routed(s, "/x"));
}

static void look(struct store *s)
{
	snapshot_unref(refresh(s));
}

/* One of them writes back, the others say so too; those that start later do not. */
static void test_all_nodes_say_that_redis_came_back_empty(void **state)
{
	struct store *s = *state, *second = new_store(NULL), *third = new_store(NULL);
	look(s);
	look(second);
	look(third);
	for (size_t round = 1; round <= 2; round++) {
		size_t told = count_in_journal("Redis came back empty");
		redis_fixture_do(&redis, "FLUSHALL");
		look(s);
		assert_int_equal(count_in_journal("Redis came back empty"), told + 1);
		look(second);
		look(third);
		assert_int_equal(count_in_journal("Redis came back empty"), told + 3);
		struct store *fresh = new_store(NULL);
		assert_int_equal(create(fresh, SCHEMA_CLIENT, "{}"), STORE_OK);
		look(s);
		look(second);
		look(third);
		assert_int_equal(count_in_journal("Redis came back empty"), told + 3);
		store_free(fresh);
		poll(NULL, 0, 5); /* the clock goes on */
	}
	store_free(second);
	store_free(third);
}

/* A node that has just started finds the store empty before those that know what was there. */
static void test_a_new_node_is_quicker(void **state)
{
	struct store *s = *state;
	assert_int_equal(create(s, SCHEMA_MAPPING, "{\"prefix\":\"/x\",\"target\":\"http://h\"}"), STORE_OK);
	assert_int_equal(update(s, SCHEMA_MAPPING, "/openai", "{\"auth\":\"required\"}"), STORE_OK);
	assert_int_equal(remove_entry(s, SCHEMA_MAPPING, "/groq"), STORE_OK);
	struct snapshot *before = refresh(s);
	poll(NULL, 0, 5); /* the clock goes on */
	redis_fixture_do(&redis, "FLUSHALL");
	struct store *fresh = new_store(NULL);
	assert_false(is_routed(fresh, "/x"));
	assert_true(is_routed(fresh, "/groq"));
	redis_fixture_do(&redis, "HSET apiproxy:mappings /new http://new");
	for (int round = 0; round < 2; round++) {
		assert_true(is_routed(s, "/x") && is_routed(s, "/new"));
		struct snapshot *after = refresh(fresh);
		assert_true(route(after, "/openai")->auth_required);
		assert_non_null(route(after, "/x"));
		assert_null(route(after, "/groq"));
		assert_string_equal(snapshot_jwt_secret(after), snapshot_jwt_secret(before));
		snapshot_unref(after);
	}
	snapshot_unref(before);
	store_free(fresh);
}

/* This node was away while the others began anew. */
static void test_a_node_that_was_away_for_long(void **state)
{
	struct store *s = *state;
	assert_int_equal(create(s, SCHEMA_MAPPING, "{\"prefix\":\"/x\",\"target\":\"http://h\"}"), STORE_OK);
	unsigned long long generation = strtoull(redis_fixture_do(&redis, "GET apiproxy:bootstrapped"), NULL, 10);
	assert_true(generation > 1000);
	/* As if this node's were two minutes older. */
	char older[32];
	snprintf(older, sizeof(older), "%llu", generation - 120000);
	redis_fixture_do(&redis, "SET apiproxy:bootstrapped %s", older);
	assert_true(is_routed(s, "/x"));
	size_t told = count_in_journal("Redis has another configuration");
	redis_fixture_do(&redis, "FLUSHALL");
	snprintf(older, sizeof(older), "%llu", generation - 60001);
	redis_fixture_do(&redis, "SET apiproxy:bootstrapped %s", older);
	redis_fixture_do(&redis, "HSET apiproxy:mappings /anew http://h");
	assert_false(is_routed(s, "/x"));
	assert_true(is_routed(s, "/anew"));
	assert_int_equal(count_in_journal("Redis has another configuration"), told + 1);
}

static void test_hung_redis(void **state)
{
	assert_true(is_routed(*state, "/openai"));
	kill(redis.pid, SIGSTOP);
	int64_t start_ms = clock_monotonic_ms();
	assert_int_equal(create(*state, SCHEMA_MAPPING, "{\"prefix\":\"/x\",\"target\":\"http://h\"}"),
		STORE_UNAVAILABLE);
	int64_t end_ms = clock_monotonic_ms();
	kill(redis.pid, SIGCONT);
	assert_true(end_ms - start_ms < 4000);
	assert_said("no answer within");
	assert_false(is_routed(*state, "/x"));
}

struct race {
	struct store *store;
	int number;
	int created, existing;
};

static void *race_to_create(void *argument)
{
	struct race *race = argument;
	for (int i = 0; i < 20; i++) {
		struct faults faults = {0};
		cJSON *object, *input = cJSON_CreateObject();
		char id[32];
		snprintf(id, sizeof(id), "c%d", i);
		cJSON_AddStringToObject(input, "id", id);
		enum store_result result = store_create(race->store, SCHEMA_CLIENT, input, &object, &faults);
		race->created += result == STORE_OK;
		race->existing += result == STORE_EXISTS;
		if (result == STORE_UNAVAILABLE)
			print_message("%s\n", faults.items[0]);
		cJSON_Delete(object);
		cJSON_Delete(input);
		faults_fini(&faults);
	}
	return NULL;
}

static void test_nodes_race(void **state)
{
	(void)state;
	struct race races[3] = {{.number = 0}};
	pthread_t threads[3];
	for (int i = 0; i < 3; i++) {
		races[i].store = new_store(NULL);
		pthread_create(&threads[i], NULL, race_to_create, &races[i]);
	}
	int created = 0, existing = 0;
	for (int i = 0; i < 3; i++) {
		pthread_join(threads[i], NULL);
		created += races[i].created;
		existing += races[i].existing;
		store_free(races[i].store);
	}
	assert_int_equal(created, 20);
	assert_int_equal(existing, 40);
	assert_string_equal(redis_fixture_do(&redis, "HLEN apiproxy:clients"), "20");
	assert_string_equal(redis_fixture_do(&redis, "HLEN apiproxy:mappings"), "19");
}

static void test_shares_the_jwt_secret(void **state)
{
	struct store *other = new_store(NULL);
	struct snapshot *one = refresh(*state), *two = refresh(other);
	assert_string_equal(snapshot_jwt_secret(one), snapshot_jwt_secret(two));
	assert_int_equal(strlen(snapshot_jwt_secret(one)), 43);
	snapshot_unref(one);
	snapshot_unref(two);
	store_free(other);
}

static void test_a_hundred_thousand_clients(void **state)
{
	enum { COUNT = 100000 };
	is_routed(*state, "/x");
	for (int i = 0; i < COUNT; i++)
		redisAppendCommand(redis.cli,
			"HSET apiproxy:clients %032x%032x {\"id\":\"client-%d\",\"name\":\"n\",\"rpm\":%d,\"input_tpm\":100000,\"mappings\":[\"/openai\"]}",
			i, i, i, i);
	for (int i = 0; i < COUNT; i++) {
		void *reply;
		assert_int_equal(redisGetReply(redis.cli, &reply), REDIS_OK);
		freeReplyObject(reply);
	}
	int64_t start_ms = clock_monotonic_ms();
	struct snapshot *snapshot = refresh(*state);
	int64_t loaded_ms = clock_monotonic_ms() - start_ms;
	start_ms = clock_monotonic_ms();
	for (int i = 0; i < COUNT; i++) {
		char id[32];
		snprintf(id, sizeof(id), "client-%d", i);
		const struct subject *client = snapshot_client(snapshot, id);
		assert_int_equal(client->limits.rpm, i);
		assert_ptr_equal(snapshot_client_by_sha256(snapshot, client->key_sha256), client);
	}
	int64_t found_ms = clock_monotonic_ms() - start_ms;
	start_ms = clock_monotonic_ms();
	assert_int_equal(create(*state, SCHEMA_MAPPING, "{\"prefix\":\"/x\",\"target\":\"http://h\"}"), STORE_OK);
	assert_true(is_routed(*state, "/x"));
	int64_t edited_ms = clock_monotonic_ms() - start_ms;
	print_message("100000 clients: loaded in %d ms, found twice each in %d ms, a mapping edited in %d ms\n",
		(int)loaded_ms, (int)found_ms, (int)edited_ms);
	assert_true(loaded_ms < 30000 && found_ms < 5000); /* far from it, but for sanitizers */
	snapshot_unref(snapshot);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_redis_that_comes_back_empty, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_redis_that_comes_back_with_something_else, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_all_nodes_say_that_redis_came_back_empty, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_new_node_is_quicker, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_node_that_was_away_for_long, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_hung_redis, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_nodes_race, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_shares_the_jwt_secret, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_hundred_thousand_clients, set_up, tear_down),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
