/* admission against a real redis-server: a queue that changes while somebody waits in it. */
#include "admission_fixture.h"

static struct mapping line = {.auth_required = true,
	.enabled = true,
	.has_queue = true,
	.queue_capacity = 1000,
	.queue_timeout_ms = 600000};
static struct mapping *mapping_of_waiters;

/* A queue with one start in a hundred seconds, which is gone, and so many who wait, on these workers in turns. */
static struct mapping crowded_line(const char *prefix, struct worker *const *workers, size_t of, struct job **jobs,
	size_t count)
{
	struct mapping m = line;
	m.prefix = prefix;
	m.queue_rate_per_second = 0.01;
	m.read_us = (uint64_t)clock_shared_ms() * 1000;
	struct mapping *kept = check_calloc(1, sizeof *kept);
	*kept = m;
	for (size_t i = 0; i <= count; i++) {
		struct job *j = begin(workers[i % of], &client, kept, 1, 1);
		assert_true(wait_for(j, true, 1000));
		assert_int_equal(j->decided, i == 0);
		if (i)
			jobs[i - 1] = j;
		else
			done(j);
	}
	mapping_of_waiters = kept;
	return m;
}

static void newer(struct mapping *m, double rate)
{
	pause_ms(2);
	m->read_us = (uint64_t)clock_shared_ms() * 1000;
	m->queue_rate_per_second = rate;
}

static void expect_spaced(struct job *const *jobs, size_t count, uint64_t since_ms, uint64_t apart_ms)
{
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(decided(jobs[i]), PROBLEM_NONE);
		assert_in_range(jobs[i]->at_ms - since_ms + 5, i * apart_ms, i * apart_ms + 155);
	}
}

static void who_waits_gets_a_start_by_the_new_rule(void **state)
{
	enum { COUNT = 6 };
	struct job *jobs[COUNT + 2];
	(void)state;
	fresh_client((struct limits){.rpm = 20, .max_concurrency = COUNT + 2});
	struct mapping m = crowded_line("/line/c1", (struct worker *[]){&one}, 1, jobs, COUNT);
	newer(&m, 10);
	uint64_t began = clock_monotonic_ms();
	cancel(jobs[2]); /* its start is void: nobody gets it */
	change_to(&one, &m);
	jobs[2] = begin(&one, &client, &m, 1, 1); /* a newcomer */
	assert_int_equal(decided(jobs[2]), PROBLEM_NONE);
	assert_int_equal(ask("ZCARD apiproxy:limit:{/line/c1}:q:f"), 0);
	struct job *order[COUNT] = {jobs[0], jobs[1], jobs[3], jobs[4], jobs[5], jobs[2]};
	expect_spaced(order, COUNT, began, 105);
	assert_int_equal(jobs[2]->rq.figures[ADMISSION_REQUESTS].remaining, 20 - COUNT - 1);
	for (size_t i = 0; i < COUNT; i++)
		done(jobs[i]);
	free(mapping_of_waiters);
}

/* The first worker to hear of it moves the starts of all; each goes on the worker that it came to. */
static void workers_share_a_changed_line(void **state)
{
	enum { COUNT = 6 };
	struct worker two;
	struct job *jobs[COUNT];
	(void)state;
	worker_start(&two, one.node);
	assert_true(redis_gets_usable(&two));
	fresh_client((struct limits){0});
	struct mapping m = crowded_line("/line/c2", (struct worker *[]){&one, &two}, 2, jobs, COUNT);
	newer(&m, 10);
	uint64_t began = clock_monotonic_ms();
	change_to(&one, &m);
	change_to(&two, &m);
	expect_spaced(jobs, COUNT, began, 105);
	for (size_t i = 0; i < COUNT; i++)
		done(jobs[i]);
	worker_stop(&two);
	free(mapping_of_waiters);
}

/* A node that has not read it yet asks by the rule that others know; what it was told before is void. */
static void the_newest_rule_holds_for_all_nodes(void **state)
{
	struct worker two;
	struct job *jobs[3];
	(void)state;
	worker_start(&two, node_new(ADMISSION_LOCAL));
	assert_true(redis_gets_usable(&two));
	fresh_client((struct limits){0});
	struct mapping m = crowded_line("/line/c3", (struct worker *[]){&two}, 1, jobs, 2);
	newer(&m, 10);
	jobs[2] = begin(&one, &client, &m, 1, 1);
	assert_int_equal(decided(jobs[2]), PROBLEM_NONE);
	done(jobs[2]);
	jobs[2] = begin(&one, &client, mapping_of_waiters, 1, 1);
	assert_int_equal(decided(jobs[2]), PROBLEM_NONE);
	done(jobs[2]);
	cancel(jobs[1]);
	pause_ms(20);
	assert_int_equal(ask("ZCARD apiproxy:limit:{/line/c3}:q:f"), 0);
	change_to(&two, &m);
	assert_int_equal(decided(jobs[0]), PROBLEM_NONE);
	done(jobs[0]);
	worker_stop(&two);
	admission_node_free(two.node);
	free(mapping_of_waiters);
}

static void what_has_started_counts_by_the_next_rule_too(void **state)
{
	struct job *jobs[8];
	(void)state;
	fresh_client((struct limits){0});
	struct mapping m = line;
	m.prefix = "/line/c4";
	m.queue_rate_per_second = 4;
	for (int i = 0; i < 4; i++) {
		jobs[i] = begin(&one, &client, &m, 1, 1);
		assert_int_equal(decided(jobs[i]), PROBLEM_NONE);
	}
	uint64_t began = clock_monotonic_ms();
	newer(&m, 1); /* what the slow one hands out must not push the others out of memory */
	struct mapping slow = m;
	jobs[4] = begin(&one, &client, &slow, 1, 1);
	assert_true(wait_for(jobs[4], true, 1000));
	newer(&m, 5);
	change_to(&one, &m);
	jobs[5] = begin(&one, &client, &m, 1, 1);
	assert_int_equal(decided(jobs[4]), PROBLEM_NONE);
	assert_in_range(jobs[4]->at_ms - began, 0, 300); /* the fifth in this second */
	assert_int_equal(decided(jobs[5]), PROBLEM_NONE);
	assert_in_range(jobs[5]->at_ms - began, 1000, 1300);
	for (int i = 0; i < 6; i++)
		done(jobs[i]);
}

/* What this node's own waiters would have used is free for them at once, however near it was. */
static void a_near_start_is_no_reason_to_wait(void **state)
{
	struct job *jobs[4];
	(void)state;
	fresh_client((struct limits){0});
	struct mapping m = line, fast;
	m.prefix = "/line/c10";
	m.queue_rate_per_second = 1;
	for (int i = 0; i < 3; i++) {
		jobs[i] = begin(&one, &client, &m, 1, 1);
		assert_true(wait_for(jobs[i], true, 1000));
	}
	pause_ms(200);
	fast = m;
	newer(&fast, 20);
	uint64_t began = clock_monotonic_ms();
	change_to(&one, &fast);
	jobs[3] = begin(&one, &client, &fast, 1, 1);
	expect_spaced(jobs + 1, 3, began, 52);
	for (int i = 0; i < 4; i++)
		done(jobs[i]);
}

static void without_a_queue_all_go(void **state)
{
	struct worker two;
	struct job *jobs[4];
	(void)state;
	worker_start(&two, one.node);
	assert_true(redis_gets_usable(&two));
	fresh_client((struct limits){.rpm = 20});
	struct mapping m = crowded_line("/line/c5", (struct worker *[]){&one, &two}, 2, jobs, 4);
	m.has_queue = false;
	change_to(&two, &m);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(decided(jobs[i]), PROBLEM_NONE);
		done(jobs[i]);
	}
	pause_ms(20);
	assert_int_equal(ask("ZCARD apiproxy:limit:{/line/c5}:q:w"), 0);
	worker_stop(&two);
	free(mapping_of_waiters);
}

static void without_a_mapping_all_are_refused(void **state)
{
	struct job *jobs[3];
	(void)state;
	fresh_client((struct limits){.rpm = 4, .max_concurrency = 3});
	struct mapping m = crowded_line("/line/c6", (struct worker *[]){&one}, 1, jobs, 3);
	change_to(&one, NULL);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(decided(jobs[i]), PROBLEM_NO_MAPPING);
		cancel(jobs[i]);
	}
	pause_ms(20);
	assert_int_equal(ask("ZCARD apiproxy:limit:{/line/c6}:q:w"), 0);
	struct job *j = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(j), PROBLEM_NONE);
	assert_int_equal(j->rq.figures[ADMISSION_REQUESTS].remaining, 2);
	done(j);
	assert_string_equal(m.prefix, mapping_of_waiters->prefix);
	free(mapping_of_waiters);
}

/* Whoever asked before the change and is answered after it waits by the new rule as well. */
static void an_answer_that_comes_after_the_change(void **state)
{
	struct job *jobs[2];
	(void)state;
	fresh_client((struct limits){0});
	struct mapping m = crowded_line("/line/c7", (struct worker *[]){&one}, 1, jobs, 1);
	kill(server, SIGSTOP);
	jobs[1] = begin(&one, &client, mapping_of_waiters, 1, 1);
	m.has_queue = false;
	change_to(&one, &m);
	kill(server, SIGCONT);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(decided(jobs[i]), PROBLEM_NONE);
		done(jobs[i]);
	}
	free(mapping_of_waiters);
}

static void patience_changes_too(void **state)
{
	struct job *jobs[2];
	(void)state;
	fresh_client((struct limits){0});
	struct mapping m = crowded_line("/line/c8", (struct worker *[]){&one}, 1, jobs, 1);
	m.queue_timeout_ms = 300;
	change_to(&one, &m);
	assert_int_equal(decided(jobs[0]), PROBLEM_QUEUE_TIMEOUT);
	assert_in_range(jobs[0]->rq.waited_ms, 290, 450);
	cancel(jobs[0]);
	free(mapping_of_waiters);
}

/* The line of this node alone, and Redis stopped when the rule changes. */
static void starts_are_moved_without_redis(void **state)
{
	enum { COUNT = 4 };
	static const uint64_t dues[COUNT] = {0, 0, 1050, 1575}; /* two in a second, evenly apart where in advance */
	struct job *jobs[COUNT];
	(void)state;
	fresh_client((struct limits){0});
	struct mapping m = crowded_line("/line/c9", (struct worker *[]){&one}, 1, jobs, COUNT - 1);
	kill(server, SIGSTOP);
	jobs[COUNT - 1] = begin(&one, &client, mapping_of_waiters, 1, 1);
	assert_true(wait_for(jobs[COUNT - 1], true, 1000));
	assert_false(redis_is_usable(&one));
	newer(&m, 2);
	uint64_t began = clock_monotonic_ms();
	change_to(&one, &m);
	for (int i = 0; i < COUNT; i++) {
		assert_int_equal(decided(jobs[i]), PROBLEM_NONE);
		assert_in_range(jobs[i]->at_ms - began + 5, dues[i], dues[i] + 205);
	}
	kill(server, SIGCONT);
	for (int i = 0; i < COUNT; i++)
		done(jobs[i]);
	assert_true(redis_gets_usable(&one));
	free(mapping_of_waiters);
}

/* Sets when the rule was last written (so long ago; < 0: as before it said so) and how long it is kept, by a script. */
static void age_rule(const char *prefix, int days)
{
	static const char script[] =
		"local k, t = redis.call('GET', KEYS[1]), redis.call('TIME') redis.call('SET', KEYS[1], k:sub(1, 32) .. "
		"(tonumber(ARGV[1]) < 0 and '' or struct.pack('<d', (t[1] - ARGV[1] * 86400) * 1000000)), 'EX', 100) return 1";
	assert_int_equal(ask("EVAL %s 1 apiproxy:limit:{%s}:q:r %d", script, prefix, days), 1);
}

/* While a queue is in use its rule does not expire, and it is not written each time. */
static void a_rule_in_use_is_kept(void **state)
{
	static const struct {
		int days;
		bool renewed;
	} rows[] = {{-1, true}, {17, true}, {15, false}};
	(void)state;
	fresh_client((struct limits){0});
	struct mapping m = line;
	m.prefix = "/line/c10";
	m.queue_rate_per_second = 1000;
	m.read_us = (uint64_t)clock_shared_ms() * 1000;
	struct job *j = begin(&one, &client, &m, 1, 1);
	assert_int_equal(decided(j), PROBLEM_NONE);
	done(j);
	static const char since[] = "local v = redis.call('GETRANGE', KEYS[1], 0, 31) local a, b, c, d = "
								"struct.unpack('<dddd', v) return string.format('%.0f', a + b + c + d)";
	long long rule = ask("EVAL %s 1 apiproxy:limit:{/line/c10}:q:r", since);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		age_rule(m.prefix, rows[i].days);
		j = begin(&one, &client, &m, 1, 1);
		assert_int_equal(decided(j), PROBLEM_NONE);
		done(j);
		long long left = ask("TTL apiproxy:limit:{/line/c10}:q:r");
		assert_in_range(left, rows[i].renewed ? 2764700 : 50, rows[i].renewed ? 2764800 : 100);
		assert_int_equal(ask("EVAL %s 1 apiproxy:limit:{/line/c10}:q:r", since), rule);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(who_waits_gets_a_start_by_the_new_rule, start_one, stop_one),
		cmocka_unit_test_setup_teardown(workers_share_a_changed_line, start_one, stop_one),
		cmocka_unit_test_setup_teardown(the_newest_rule_holds_for_all_nodes, start_one, stop_one),
		cmocka_unit_test_setup_teardown(what_has_started_counts_by_the_next_rule_too, start_one, stop_one),
		cmocka_unit_test_setup_teardown(a_near_start_is_no_reason_to_wait, start_one, stop_one),
		cmocka_unit_test_setup_teardown(without_a_queue_all_go, start_one, stop_one),
		cmocka_unit_test_setup_teardown(without_a_mapping_all_are_refused, start_one, stop_one),
		cmocka_unit_test_setup_teardown(an_answer_that_comes_after_the_change, start_one, stop_one),
		cmocka_unit_test_setup_teardown(patience_changes_too, start_one, stop_one),
		cmocka_unit_test_setup_teardown(starts_are_moved_without_redis, start_one, stop_one),
		cmocka_unit_test_setup_teardown(a_rule_in_use_is_kept, start_one, stop_one),
	};
	return cmocka_run_group_tests(tests, start_server, stop_server);
}
