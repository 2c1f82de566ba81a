/* admission against a real redis-server: vendor keys, usage, and what it leaves in Redis. */
#include <cjson/cJSON.h>

#include "admission_fixture.h"

/* ---- vendor keys ---- */

static struct vendor_key keys[] = {
	{.id = "k1", .secret = "s", .weight = 3, .enabled = true},
	{.id = "k2", .secret = "s", .weight = 1, .enabled = true},
	{.id = "k3", .secret = "s", .weight = 9, .enabled = false},
};
static const struct vendor_key *const key_list[] = {&keys[0], &keys[1], &keys[2]};
static struct pool pool = {.key_count = 3, .keys = key_list};
static struct mapping pooled = {.auth_required = false, .enabled = true, .pool = &pool};
static char pool_name[32], pooled_prefix[32];
static unsigned pools;

static void fresh_pool(uint64_t limit1, uint64_t limit2)
{
	snprintf(pool_name, sizeof pool_name, "pool-%u", ++pools);
	snprintf(pooled_prefix, sizeof pooled_prefix, "/pooled-%u", pools);
	pool.name = pooled.pool_name = pool_name;
	pooled.prefix = pooled_prefix;
	keys[0].max_requests_per_minute = limit1;
	keys[1].max_requests_per_minute = limit2;
	keys[0].pool = keys[1].pool = pool_name;
}

static struct job *with_key(enum problem_id problem)
{
	struct job *j = begin(&one, NULL, &pooled, 0, 0);
	assert_int_equal(decided(j), problem);
	assert_int_equal(j->rq.key != NULL, problem == PROBLEM_NONE);
	return j;
}

static void keys_go_by_weight(void **state)
{
	int first = 0;
	(void)state;
	fresh_pool(0, 0);
	for (int i = 0; i < 40; i++) {
		struct job *j = with_key(PROBLEM_NONE);
		first += j->rq.key == &keys[0];
		done(j);
	}
	assert_int_equal(first, 30);
}

static void keys_stop_at_their_limits(void **state)
{
	int first = 0;
	(void)state;
	fresh_pool(3, 2);
	for (int i = 0; i < 5; i++) {
		struct job *j = with_key(PROBLEM_NONE);
		first += j->rq.key == &keys[0];
		done(j);
	}
	assert_int_equal(first, 3);
	struct job *j = with_key(PROBLEM_UPSTREAM_RATE_LIMIT);
	assert_in_range(j->rq.retry_after_ms, 58000, 60000);
	cancel(j);
}

enum { AT_ONCE = 40 };

static void work_start_all(struct work *work)
{
	for (struct job **j = work->jobs; *j; j++) {
		work->job = *j;
		work_start(work);
	}
}

/* All are under way before the first answer, so most are offered the first key in vain, or behind the other,
 * where Redis does not look at it. */
static void a_full_key_is_not_made_up_for(void **state)
{
	struct job *jobs[AT_ONCE + 1] = {NULL};
	int first = 0;
	(void)state;
	fresh_pool(1, 0);
	for (int i = 0; i < AT_ONCE; i++)
		jobs[i] = job_new(&one, NULL, &pooled, 0, 0);
	on_worker(&one, &(struct work){.run = work_start_all, .jobs = jobs});
	for (int i = 0; i < AT_ONCE; i++) {
		assert_int_equal(decided(jobs[i]), PROBLEM_NONE);
		first += jobs[i]->rq.key == &keys[0];
		done(jobs[i]);
	}
	assert_int_equal(first, 1);
	keys[0].max_requests_per_minute = 0;
	pause_ms(1050); /* what this node believed of the key */
	for (int i = first = 0; i < 8; i++) {
		struct job *j = with_key(PROBLEM_NONE);
		first += j->rq.key == &keys[0];
		done(j);
	}
	assert_in_range(first, 5, 7); /* 3 to 1 */
}

static void a_throttled_key_cools_for_what_the_vendor_asked(void **state)
{
	(void)state;
	fresh_pool(0, 0);
	struct job *j = with_key(PROBLEM_NONE);
	assert_ptr_equal(j->rq.key, &keys[0]);
	assert_int_equal(next_key(j, 429, 1200), PROBLEM_NONE);
	assert_ptr_equal(j->rq.key, &keys[1]);
	assert_int_equal(next_key(j, 429, 60000),
		PROBLEM_NO_UPSTREAM_KEY); /* each was tried: the answer is the vendor's */
	settle(j, &(struct admission_result){.sent = true, .status = 429});
	j = with_key(PROBLEM_UPSTREAM_RATE_LIMIT);
	assert_in_range(j->rq.retry_after_ms, 1000, 1200);
	cancel(j);
	pause_ms(1250);
	struct job *trial = with_key(PROBLEM_NONE); /* one goes first */
	assert_ptr_equal(trial->rq.key, &keys[0]);
	cancel(with_key(PROBLEM_UPSTREAM_RATE_LIMIT));
	done(trial);
	pause_ms(1050); /* what this node believed of the key */
	for (int i = 0; i < 4; i++) {
		j = with_key(PROBLEM_NONE);
		assert_ptr_equal(j->rq.key, &keys[0]);
		done(j);
	}
}

/* Requests go on until one has met the first key; the others are well. */
static void first_key_answers(unsigned status)
{
	for (bool met = false; !met;) {
		struct job *j = with_key(PROBLEM_NONE);
		met = j->rq.key == &keys[0];
		unsigned got = met ? status : 200;
		settle(j,
			&(struct admission_result){.sent = true, .status = got, .outcome = admission_outcome_of_status(got)});
	}
}

static void three_failures_in_a_row_cool(void **state)
{
	struct redis_sync *redis = redis_sync_new(&address, 1000);
	struct admission_key_health health;
	(void)state;
	fresh_pool(0, 0);
	static const unsigned statuses[] = {500, 502, 200, 504, 529,
		400}; /* a success starts the count again, a 400 says nothing */
	for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
		first_key_answers(statuses[i]);
	assert_true(admission_key_health(redis, &keys[0], 1, &health));
	assert_int_equal(health.state, ADMISSION_KEY_OK);
	first_key_answers(0);
	pause_ms(20);
	assert_true(admission_key_health(redis, &keys[0], 1, &health));
	assert_int_equal(health.state, ADMISSION_KEY_COOLING);
	assert_string_equal(health.reason, "connection failure");
	assert_in_range(health.until_ms - (int64_t)time(NULL) * 1000, 8000, 11000);
	assert_true(admission_key_reset(redis, &keys[0]));
	assert_true(admission_key_health(redis, &keys[0], 1, &health));
	assert_int_equal(health.state, ADMISSION_KEY_OK);
	redis_sync_free(redis);
}

static long long reads_of_redis(struct redis_sync *redis)
{
	static const char name[] = "total_reads_processed:";
	redisReply *reply = redis_sync_command(redis, "INFO stats");
	assert_non_null(reply);
	const char *found = strstr(reply->str, name);
	assert_non_null(found);
	long long reads = atoll(found + strlen(name));
	freeReplyObject(reply);
	return reads;
}

/* Not one round trip for each: Redis reads many of the questions at once. */
static void health_of_many_keys_is_asked_together(void **state)
{
	enum { MANY = 2500, COOLING = 2345 };
	static struct vendor_key many[MANY];
	static struct admission_key_health healths[MANY];
	static char ids[MANY][8];
	struct redis_sync *redis = redis_sync_new(&address, 1000);
	(void)state;
	fresh_pool(0, 0);
	first_key_answers(401);
	pause_ms(20);
	for (size_t i = 0; i < MANY; i++) {
		snprintf(ids[i], sizeof ids[i], "n%zu", i);
		many[i] = (struct vendor_key){.id = i == COOLING ? keys[0].id : ids[i], .pool = pool_name};
	}
	long long before = reads_of_redis(redis);
	assert_true(admission_key_health(redis, many, MANY, healths));
	assert_in_range(reads_of_redis(redis) - before, 1, MANY / 10);
	for (size_t i = 0; i < MANY; i++)
		assert_int_equal(healths[i].state, i == COOLING ? ADMISSION_KEY_COOLING : ADMISSION_KEY_OK);
	assert_string_equal(healths[COOLING].reason, "status 401");

	/* What is no key's health is read too: the next answer is its own. */
	ask("HSET apiproxy:limit:{%s}:k:n1 a b", pool_name);
	assert_false(admission_key_health(redis, many, 3, healths));
	assert_true(admission_key_health(redis, &many[COOLING], 1, healths));
	assert_int_equal(healths[0].state, ADMISSION_KEY_COOLING);
	ask("DEL apiproxy:limit:{%s}:k:n1", pool_name);
	redis_sync_free(redis);
}

static void keys_that_are_rejected_leave_none(void **state)
{
	(void)state;
	fresh_pool(0, 0);
	struct job *j = with_key(PROBLEM_NONE);
	assert_int_equal(next_key(j, 401, 0), PROBLEM_NONE);
	assert_int_equal(next_key(j, 403, 0), PROBLEM_NO_UPSTREAM_KEY);
	settle(j, &(struct admission_result){.sent = true, .status = 403});
	cancel(with_key(PROBLEM_NO_UPSTREAM_KEY));
	struct mapping empty = pooled;
	empty.pool = NULL;
	j = begin(&one, NULL, &empty, 0, 0);
	assert_int_equal(decided(j), PROBLEM_NO_UPSTREAM_KEY);
	cancel(j);
}

static void a_refusal_at_the_key_takes_nothing_before_it(void **state)
{
	(void)state;
	fresh_pool(1, 1);
	fresh_client((struct limits){.rpm = 10, .max_concurrency = 5});
	for (int i = 0; i < 4; i++) {
		struct job *j = begin(&one, &client, &pooled, 1, 1);
		assert_int_equal(decided(j), i < 2 ? PROBLEM_NONE : PROBLEM_UPSTREAM_RATE_LIMIT);
		assert_int_equal(j->rq.figures[ADMISSION_REQUESTS].remaining, i < 2 ? 9 - i : 8);
		if (i < 2)
			done(j);
		else
			cancel(j);
	}
}

/* ---- what stays in Redis ---- */

static void usage_is_counted_by_day(void **state)
{
	(void)state;
	fresh_client((struct limits){.rpm = 100});
	static const uint64_t tokens[2][2] = {{11, 22}, {100, 200}};
	for (int i = 0; i < 2; i++) {
		struct job *j = begin(&one, &client, &plain, 5, 5);
		assert_int_equal(decided(j), PROBLEM_NONE);
		done_with(j, tokens[i][0], tokens[i][1]);
	}
	pause_ms(50);
	ask("HSET apiproxy:usage:{%s}:c %lld %s", client.id, (long long)(time(NULL) / 86400 - 3), "7 8 9");
	struct redis_sync *redis = redis_sync_new(&address, 1000);
	cJSON *json = admission_usage_json(redis, &client);
	assert_non_null(json);
	cJSON *current = cJSON_GetObjectItem(json, "current"), *days = cJSON_GetObjectItem(json, "days");
	assert_int_equal(cJSON_GetObjectItem(current, "requests")->valueint, 2);
	assert_int_equal(cJSON_GetArraySize(days), 30);
	cJSON *today = cJSON_GetArrayItem(days, 0), *before = cJSON_GetArrayItem(days, 3);
	assert_int_equal(cJSON_GetObjectItem(today, "requests")->valueint, 2);
	assert_int_equal(cJSON_GetObjectItem(today, "input_tokens")->valueint, 111);
	assert_int_equal(cJSON_GetObjectItem(today, "output_tokens")->valueint, 222);
	assert_int_equal(cJSON_GetObjectItem(before, "requests")->valueint, 7);
	assert_int_equal(strlen(cJSON_GetObjectItem(today, "date")->valuestring), 10);
	cJSON_Delete(json);
	redis_sync_free(redis);
}

static void every_key_expires(void **state)
{
	(void)state;
	redisContext *c = redisConnectUnix(socket_path);
	redisReply *all = redisCommand(c, "KEYS *");
	assert_true(all->elements > 3);
	for (size_t i = 0; i < all->elements; i++) {
		long long ttl = ask("PTTL %s", all->element[i]->str);
		if (ttl <= 0 && strncmp(all->element[i]->str, "apiproxy:usage:{client", 22) != 0) /* a test's own */
			fail_msg("%s: %lld", all->element[i]->str, ttl);
	}
	freeReplyObject(all);
	redisFree(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(usage_is_counted_by_day, start_one, stop_one),
		cmocka_unit_test_setup_teardown(keys_go_by_weight, start_one, stop_one),
		cmocka_unit_test_setup_teardown(keys_stop_at_their_limits, start_one, stop_one),
		cmocka_unit_test_setup_teardown(a_full_key_is_not_made_up_for, start_one, stop_one),
		cmocka_unit_test_setup_teardown(a_throttled_key_cools_for_what_the_vendor_asked, start_one, stop_one),
		cmocka_unit_test_setup_teardown(three_failures_in_a_row_cool, start_one, stop_one),
		cmocka_unit_test_setup_teardown(health_of_many_keys_is_asked_together, start_one, stop_one),
		cmocka_unit_test_setup_teardown(keys_that_are_rejected_leave_none, start_one, stop_one),
		cmocka_unit_test_setup_teardown(a_refusal_at_the_key_takes_nothing_before_it, start_one, stop_one),
		cmocka_unit_test_setup_teardown(every_key_expires, start_one, stop_one),
	};
	return cmocka_run_group_tests(tests, start_server, stop_server);
}
