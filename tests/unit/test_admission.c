/* admission against a real redis-server: windows, places, queues, and Redis stopped and killed. */
#include "admission_fixture.h"

/* ---- concurrency and windows ---- */

static void without_limits_nothing_is_asked(void **state)
{
	(void)state;
	fresh_client((struct limits){0});
	struct job *j = begin(&one, &client, &plain, 10, 10);
	assert_true(j->decided);
	assert_int_equal(j->rq.problem, PROBLEM_NONE);
	assert_int_equal(j->rq.figures[ADMISSION_REQUESTS].limit, 0);
	done(j);
}

static void requests_stop_at_the_limit(void **state)
{
	(void)state;
	fresh_client((struct limits){.rpm = 5});
	for (int i = 0; i < 5; i++) {
		struct job *j = begin(&one, &client, &plain, 1, 1);
		assert_int_equal(decided(j), PROBLEM_NONE);
		assert_int_equal(j->rq.figures[ADMISSION_REQUESTS].limit, 5);
		assert_int_equal(j->rq.figures[ADMISSION_REQUESTS].remaining, 4 - i);
		assert_in_range(j->rq.figures[ADMISSION_REQUESTS].reset_ms, 59900, 60000);
		done(j);
	}
	struct job *j = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(j), PROBLEM_RATE_LIMIT);
	assert_int_equal(j->rq.figures[ADMISSION_REQUESTS].remaining, 0);
	assert_in_range(j->rq.retry_after_ms, 58000, 60000);
	cancel(j);
}

static void what_was_not_sent_is_given_back(void **state)
{
	(void)state;
	fresh_client((struct limits){.rpm = 1, .input_tpm = 100, .max_concurrency = 1});
	for (int i = 0; i < 3; i++) {
		struct job *j = begin(&one, &client, &plain, 100, 0);
		assert_int_equal(decided(j), PROBLEM_NONE);
		failed_before_sending(j);
	}
	struct job *j = begin(&one, &client, &plain, 100, 0);
	assert_int_equal(decided(j), PROBLEM_NONE);
	done(j);
	j = begin(&one, &client, &plain, 1, 0);
	assert_int_equal(decided(j), PROBLEM_RATE_LIMIT);
	cancel(j);
}

static void tokens_are_reserved_then_settled(void **state)
{
	(void)state;
	fresh_client((struct limits){.input_tpm = 1000, .output_tpm = 500});
	struct job *a = begin(&one, &client, &plain, 600, 100);
	assert_int_equal(decided(a), PROBLEM_NONE);
	struct job *b = begin(&one, &client, &plain, 600, 100);
	assert_int_equal(decided(b), PROBLEM_RATE_LIMIT);
	cancel(b);
	done_with(a, 200, 50);
	b = begin(&one, &client, &plain, 600, 100);
	assert_int_equal(decided(b), PROBLEM_NONE);
	assert_int_equal(b->rq.figures[ADMISSION_INPUT_TOKENS].remaining, 200);
	assert_int_equal(b->rq.figures[ADMISSION_OUTPUT_TOKENS].remaining, 350);
	done_with(b, 600, 900); /* more than it reserved: over the limit, and then nothing goes */
	b = begin(&one, &client, &plain, 1, 0);
	assert_int_equal(decided(b), PROBLEM_RATE_LIMIT);
	assert_int_equal(b->rq.figures[ADMISSION_OUTPUT_TOKENS].remaining, 0);
	cancel(b);
}

enum { MANY = 100 };
static struct job *many[MANY];

static void work_start_many(struct work *work)
{
	for (int i = 0; i < MANY; i++)
		CHECK(!admission_start(work->worker->admission, &many[i]->rq));
}

static void work_settle_many(struct work *work)
{
	for (int i = 0; i < MANY; i++)
		admission_settle(&many[i]->rq, work->result);
}

static long long script_calls(void)
{
	redisContext *c = redisConnectUnix(socket_path);
	redisReply *reply = redisCommand(c, "INFO commandstats");
	const char *at = strstr(reply->str, "cmdstat_evalsha:calls=");
	long long calls = at ? atoll(at + strlen("cmdstat_evalsha:calls=")) : 0;
	freeReplyObject(reply);
	redisFree(c);
	return calls;
}

/* 64 at most in a call: 100 are two, and each still gets its own answer. */
static void requests_of_a_turn_are_few_calls(void **state)
{
	(void)state;
	fresh_client((struct limits){.rpm = 90, .input_tpm = 100000, .max_concurrency = 95});
	for (int i = 0; i < MANY; i++)
		many[i] = job_new(&one, &client, &plain, 10, 1);
	long long before = script_calls();
	on_worker(&one, &(struct work){.run = work_start_many});
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(decided(many[i]), i < 90 ? PROBLEM_NONE : PROBLEM_RATE_LIMIT);
		assert_int_equal(many[i]->rq.figures[ADMISSION_REQUESTS].remaining, i < 90 ? 89 - i : 0);
	}
	assert_int_equal(script_calls() - before, 2);
	on_worker(&one,
		&(struct work){.run = work_settle_many,
			.result = &(struct admission_result){.sent = true,
				.tokens_known = true,
				.input_tokens = 7,
				.outcome = ADMISSION_SUCCESS,
				.status = 200}});
	for (int i = 0; i < 200 && script_calls() == before + 2; i++)
		pause_ms(5);
	assert_int_equal(script_calls() - before, 3);
	for (int i = 0; i < MANY; i++)
		free(many[i]);
	client.limits.rpm = 91; /* places and what was reserved too much are back */
	struct job *j = begin(&one, &client, &plain, 10, 0);
	assert_int_equal(decided(j), PROBLEM_NONE);
	assert_int_equal(j->rq.figures[ADMISSION_INPUT_TOKENS].remaining, 100000 - 90 * 7 - 10);
	done(j);
}

/* Some ask in the very turn in which Redis says that it is there. */
static void requests_come_while_it_connects(void **state)
{
	enum { TIMES = 60, JOBS = 60 };
	(void)state;
	for (int n = 0; n < TIMES; n++) {
		struct worker w;
		struct job *jobs[JOBS];
		fresh_client((struct limits){.max_concurrency = JOBS});
		worker_start(&w, node_new(ADMISSION_LOCAL));
		for (int i = 0; i < JOBS; i++)
			jobs[i] = begin(&w, &client, &plain, 1, 1);
		for (int i = 0; i < JOBS; i++)
			assert_int_equal(decided(jobs[i]), PROBLEM_NONE);
		for (int i = 0; i < JOBS; i++)
			done(jobs[i]);
		worker_stop(&w);
		admission_node_free(w.node);
	}
}

static void places_are_for_all_nodes(void **state)
{
	struct worker two;
	(void)state;
	worker_start(&two, node_new(ADMISSION_LOCAL));
	fresh_client((struct limits){.max_concurrency = 2});
	struct job *a = begin(&one, &client, &plain, 1, 1), *b = begin(&two, &client, &plain, 1, 1);
	assert_int_equal(decided(a), PROBLEM_NONE);
	assert_int_equal(decided(b), PROBLEM_NONE);
	struct job *c = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(c), PROBLEM_CONCURRENCY_LIMIT);
	assert_true(c->rq.retry_after_ms > 0);
	cancel(c);
	done(b);
	pause_ms(20);
	c = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(c), PROBLEM_NONE);
	done(a);
	done(c);
	worker_stop(&two);
	admission_node_free(two.node);
}

static void scripts_that_were_forgotten_come_back(void **state)
{
	(void)state;
	fresh_client((struct limits){.rpm = 2});
	struct job *j = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(j), PROBLEM_NONE);
	ask("SCRIPT FLUSH");
	done(j);
	j = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(j), PROBLEM_NONE);
	done(j);
	j = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(j), PROBLEM_RATE_LIMIT);
	cancel(j);
}

/* ---- queue ---- */

static struct mapping line = {.prefix = "/line",
	.auth_required = true,
	.has_queue = true,
	.queue_rate_per_second = 5,
	.queue_capacity = 3,
	.queue_timeout_ms = 5000};

static void a_queue_paces_and_refuses_one_too_many(void **state)
{
	struct job *jobs[9];
	(void)state;
	fresh_client((struct limits){.rpm = 100});
	line.prefix = "/line/1";
	uint64_t began = clock_monotonic_ms();
	for (int i = 0; i < 9; i++)
		jobs[i] = begin(&one, &client, &line, 1, 1);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(decided(jobs[i]), PROBLEM_NONE);
		assert_false(jobs[i]->rq.queued);
	}
	assert_int_equal(decided(jobs[8]), PROBLEM_QUEUE_FULL);
	assert_true(jobs[8]->rq.retry_after_ms > 0);
	uint64_t last = 0;
	for (int i = 5; i < 8; i++) {
		assert_int_equal(decided(jobs[i]), PROBLEM_NONE);
		assert_true(jobs[i]->rq.queued);
		assert_true(jobs[i]->at_ms >= last);
		uint64_t due = 1050 + (uint64_t)(i - 5) * 1050 / 5; /* evenly spaced, 5 in 1.05 s */
		assert_in_range(jobs[i]->at_ms - began, due - 10, due + 200);
		last = jobs[i]->at_ms;
	}
	cancel(jobs[8]);
	for (int i = 0; i < 8; i++)
		done(jobs[i]);
}

static void a_waiter_times_out_and_leaves_nothing(void **state)
{
	struct job *jobs[3];
	(void)state;
	fresh_client((struct limits){.rpm = 100, .max_concurrency = 2});
	struct mapping m = line;
	m.prefix = "/line/2";
	m.queue_rate_per_second = 0.5;
	m.queue_timeout_ms = 200;
	for (int i = 0; i < 2; i++)
		jobs[i] = begin(&one, &client, &m, 1, 1);
	assert_int_equal(decided(jobs[0]), PROBLEM_NONE);
	assert_int_equal(decided(jobs[1]), PROBLEM_QUEUE_TIMEOUT);
	assert_in_range(jobs[1]->rq.waited_ms, 190, 320);
	assert_in_range(jobs[1]->rq.retry_after_ms, 1000, 2000);
	cancel(jobs[1]);
	pause_ms(20);
	jobs[2] = begin(&one, &client, &plain, 1, 1); /* its place is free again */
	assert_int_equal(decided(jobs[2]), PROBLEM_NONE);
	assert_int_equal(jobs[2]->rq.figures[ADMISSION_REQUESTS].remaining, 98);
	done(jobs[0]);
	done(jobs[2]);
}

static void who_leaves_moves_the_others_forward(void **state)
{
	struct job *jobs[4];
	(void)state;
	fresh_client((struct limits){0});
	struct mapping m = line;
	m.prefix = "/line/3";
	m.queue_rate_per_second = 1;
	m.queue_capacity = 2;
	uint64_t began = clock_monotonic_ms();
	for (int i = 0; i < 3; i++)
		jobs[i] = begin(&one, &client, &m, 1, 1);
	assert_true(wait_for(jobs[2], true, 1000));
	jobs[3] = begin(&one, &client, &m, 1, 1);
	assert_int_equal(decided(jobs[3]), PROBLEM_QUEUE_FULL);
	cancel(jobs[3]);
	cancel(jobs[1]);
	pause_ms(30);
	jobs[3] = begin(&one, &client, &m, 1, 1); /* takes the start that was given back, the second */
	assert_true(wait_for(jobs[3], true, 1000));
	assert_int_equal(decided(jobs[2]), PROBLEM_NONE);
	assert_in_range(jobs[2]->at_ms - began, 1020, 1250);
	assert_int_equal(decided(jobs[3]), PROBLEM_NONE);
	assert_in_range(jobs[3]->at_ms - began, 2040, 2300);
	done(jobs[0]);
	done(jobs[2]);
	done(jobs[3]);
}

static uint64_t reset_of(const struct job *j)
{
	return j->rq.figures[ADMISSION_REQUESTS].reset_ms;
}

/* What one client's waiters could still take counts from their arrival on, and moves nobody else's time. */
static void a_waiter_delays_no_window(void **state)
{
	(void)state;
	fresh_client((struct limits){.rpm = 3});
	struct mapping m = line;
	m.prefix = "/line/4";
	m.queue_rate_per_second = 0.01;
	m.queue_timeout_ms = 600000;
	struct job *first = begin(&one, &client, &m, 1, 1), *waits = begin(&one, &client, &m, 1, 1);
	assert_int_equal(decided(first), PROBLEM_NONE);
	assert_true(wait_for(waits, true, 1000));
	struct job *other = begin(&one, &client, &plain, 1, 1), *late = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(other), PROBLEM_NONE);
	assert_in_range(reset_of(other), 59900, 60000);
	assert_int_equal(decided(late), PROBLEM_RATE_LIMIT);
	assert_in_range(late->rq.retry_after_ms, 58000, 60000);
	cancel(late);
	cancel(waits);
	pause_ms(20);
	late = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(late), PROBLEM_NONE);
	assert_in_range(reset_of(late), 59900, 60000);
	done(first);
	done(other);
	done(late);
}

/* Of its arrival while it waits, of its start from then on, never twice; given back at the end where it was not sent. */
static void a_waiter_counts_as_of_its_start(void **state)
{
	(void)state;
	fresh_client((struct limits){.rpm = 10, .input_tpm = 1000, .max_concurrency = 2});
	struct mapping m = line;
	m.prefix = "/line/5";
	m.queue_rate_per_second = 1;
	struct job *first = begin(&one, &client, &m, 100, 0), *waits = begin(&one, &client, &m, 100, 0);
	assert_int_equal(decided(first), PROBLEM_NONE);
	assert_int_equal(decided(waits), PROBLEM_NONE);
	assert_true(waits->rq.queued);
	assert_in_range(reset_of(waits), 59900, 60000);
	assert_int_equal(waits->rq.figures[ADMISSION_REQUESTS].remaining, 8);
	assert_int_equal(waits->rq.figures[ADMISSION_INPUT_TOKENS].remaining, 800);
	struct job *third = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(third), PROBLEM_CONCURRENCY_LIMIT); /* each has one place */
	cancel(third);
	failed_before_sending(waits);
	done_with(first, 50, 0);
	pause_ms(20);
	third = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(third), PROBLEM_NONE);
	assert_int_equal(third->rq.figures[ADMISSION_REQUESTS].remaining, 8);
	assert_int_equal(third->rq.figures[ADMISSION_INPUT_TOKENS].remaining, 949);
	done(third);
}

/* ---- Redis fails ---- */

static void turn_while_redis_hangs(enum admission_failure_policy policy, enum problem_id expected)
{
	struct worker w;
	fresh_client((struct limits){.rpm = 3, .max_concurrency = 2});
	struct mapping m = line;
	m.prefix = policy == ADMISSION_LOCAL ? "/line/6" : policy == ADMISSION_DENY ? "/line/7" : "/line/8";
	m.queue_rate_per_second = 2;
	worker_start(&w, node_new(policy));
	assert_true(redis_gets_usable(&w));
	struct job *jobs[3];
	for (int i = 0; i < 2; i++) {
		jobs[i] = begin(&w, &client, &m, 1, 1);
		assert_int_equal(decided(jobs[i]), PROBLEM_NONE);
		done(jobs[i]);
	}
	jobs[2] = begin(&w, &client, &m, 1, 1);
	assert_true(wait_for(jobs[2], true, 1000));
	kill(server, SIGSTOP);
	assert_int_equal(decided(jobs[2]), expected);
	assert_true(jobs[2]->rq.queued);
	if (expected == PROBLEM_NONE)
		done(jobs[2]);
	else
		cancel(jobs[2]);
	struct job *fourth = begin(&w, &client, &plain, 1, 1);
	if (policy == ADMISSION_LOCAL) /* the waiter is one of three here too */
		assert_int_equal(decided(fourth), PROBLEM_RATE_LIMIT);
	assert_true(wait_for(fourth, false, 1000));
	kill(server, SIGCONT);
	cancel(fourth);
	assert_true(redis_gets_usable(&w));
	pause_ms(20);
	fourth = begin(&w, &client, &plain, 1, 1); /* what was asked before the thaw moves no count below the truth */
	decided(fourth);
	assert_true(fourth->rq.figures[ADMISSION_REQUESTS].remaining <= 1);
	cancel(fourth);
	worker_stop(&w);
	admission_node_free(w.node);
}

static void a_turn_while_redis_hangs_goes_by_the_policy(void **state)
{
	(void)state;
	turn_while_redis_hangs(ADMISSION_LOCAL, PROBLEM_NONE);
	turn_while_redis_hangs(ADMISSION_DENY, PROBLEM_REDIS_UNAVAILABLE);
	turn_while_redis_hangs(ADMISSION_ALLOW, PROBLEM_NONE);
}

static void a_hung_redis_is_replaced_at_once(void **state)
{
	(void)state;
	fresh_client((struct limits){.rpm = 6, .max_concurrency = 3});
	struct job *open = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(open), PROBLEM_NONE);
	struct job *j = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(j), PROBLEM_NONE);
	done(j);
	pause_ms(20);
	kill(server, SIGSTOP);
	uint64_t began = clock_monotonic_ms();
	j = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(j), PROBLEM_NONE);
	assert_in_range(clock_monotonic_ms() - began, 0, 400);
	done(j);
	began = clock_monotonic_ms();
	for (int i = 3; i < 7; i++) { /* what this node saw before counts too */
		j = begin(&one, &client, &plain, 1, 1);
		assert_int_equal(decided(j), i < 6 ? PROBLEM_NONE : PROBLEM_RATE_LIMIT);
		if (i < 6)
			done(j);
		else
			cancel(j);
	}
	assert_in_range(clock_monotonic_ms() - began, 0, 100);
	assert_false(redis_is_usable(&one));
	kill(server, SIGCONT);
	assert_true(redis_gets_usable(&one));
	j = begin(&one, &client, &plain, 1, 1); /* Redis has seen two or three of the six, this node all */
	assert_int_equal(decided(j), PROBLEM_RATE_LIMIT);
	cancel(j);
	done(open);
}

static void who_goes_while_redis_is_asked_leaves_nothing(void **state)
{
	(void)state;
	fresh_client((struct limits){.rpm = 1, .input_tpm = 10, .max_concurrency = 1});
	struct mapping m = line;
	m.prefix = "/line/gone";
	kill(server, SIGSTOP);
	cancel(begin(&one, &client, &m, 10, 1));
	kill(server, SIGCONT);
	pause_ms(60);
	assert_true(redis_is_usable(&one));
	struct job *j = begin(&one, &client, &m, 10, 1);
	assert_int_equal(decided(j), PROBLEM_NONE);
	done(j);
}

static void an_answer_that_was_lost_keeps_no_place(void **state)
{
	(void)state;
	fresh_client((struct limits){.max_concurrency = 1});
	kill(server, SIGSTOP);
	struct job *j = begin(&one, &client, &plain, 1, 1);
	assert_int_equal(decided(j), PROBLEM_NONE); /* here; Redis will read of it when it goes on */
	done(j);
	kill(server, SIGCONT);
	assert_true(redis_gets_usable(&one));
	pause_ms(50);
	for (int i = 0; i < 2; i++) {
		j = begin(&one, &client, &plain, 1, 1);
		assert_int_equal(decided(j), PROBLEM_NONE);
		done(j);
		pause_ms(20);
	}
}

static void the_other_policies(void **state)
{
	(void)state;
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	pause_ms(50);
	static const struct {
		enum admission_failure_policy policy;
		enum problem_id first, second;
	} cases[] = {
		{ADMISSION_LOCAL, PROBLEM_NONE, PROBLEM_RATE_LIMIT},
		{ADMISSION_ALLOW, PROBLEM_NONE, PROBLEM_NONE},
		{ADMISSION_DENY, PROBLEM_REDIS_UNAVAILABLE, PROBLEM_REDIS_UNAVAILABLE},
	};
	for (size_t i = 0; i < 3; i++) {
		struct worker w;
		fresh_client((struct limits){.rpm = 1});
		worker_start(&w, node_new(cases[i].policy));
		struct job *a = begin(&w, &client, &plain, 1, 1), *b;
		assert_int_equal(decided(a), cases[i].first);
		b = begin(&w, &client, &plain, 1, 1);
		assert_int_equal(decided(b), cases[i].second);
		cancel(b);
		if (cases[i].first == PROBLEM_NONE)
			done(a);
		else
			cancel(a);
		worker_stop(&w);
		admission_node_free(w.node);
	}
	assert_int_equal(start_server(NULL), 0);
	assert_true(redis_gets_usable(&one));
}

/* ---- many threads, no Redis ---- */

enum { CROWD = 3, EACH = 60 };

static void *crowd(void *argument)
{
	struct worker *w = argument;
	uintptr_t admitted = 0;
	for (int i = 0; i < EACH; i++) {
		struct job *j = begin(w, &client, &plain, 1, 1);
		bool fine = decided(j) == PROBLEM_NONE;
		admitted += fine;
		if (fine)
			done_with(j, 1, 1);
		else
			cancel(j);
	}
	return (void *)admitted;
}

static void workers_share_the_local_windows(void **state)
{
	struct worker workers[CROWD];
	pthread_t threads[CROWD];
	uintptr_t total = 0;
	struct redis_address nowhere = {.unix_path = (char *)(uintptr_t)"/nonexistent/redis.sock",
		.host = (char *)(uintptr_t)""};
	struct admission_node *node = admission_node_new(&nowhere, ADMISSION_LOCAL);
	(void)state;
	fresh_client((struct limits){.rpm = 100, .input_tpm = 1000, .max_concurrency = 2});
	client.limits.max_concurrency = CROWD;
	for (int i = 0; i < CROWD; i++)
		worker_start(&workers[i], node);
	for (int i = 0; i < CROWD; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowd, &workers[i]), 0);
	for (int i = 0; i < CROWD; i++) {
		void *admitted;
		pthread_join(threads[i], &admitted);
		total += (uintptr_t)admitted;
	}
	assert_int_equal(total, 100);
	for (int i = 0; i < CROWD; i++)
		worker_stop(&workers[i]);
	admission_node_free(node);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(without_limits_nothing_is_asked, start_one, stop_one),
		cmocka_unit_test_setup_teardown(requests_stop_at_the_limit, start_one, stop_one),
		cmocka_unit_test_setup_teardown(what_was_not_sent_is_given_back, start_one, stop_one),
		cmocka_unit_test_setup_teardown(tokens_are_reserved_then_settled, start_one, stop_one),
		cmocka_unit_test_setup_teardown(requests_of_a_turn_are_few_calls, start_one, stop_one),
		cmocka_unit_test(requests_come_while_it_connects),
		cmocka_unit_test_setup_teardown(places_are_for_all_nodes, start_one, stop_one),
		cmocka_unit_test_setup_teardown(scripts_that_were_forgotten_come_back, start_one, stop_one),
		cmocka_unit_test_setup_teardown(a_waiter_delays_no_window, start_one, stop_one),
		cmocka_unit_test_setup_teardown(a_waiter_counts_as_of_its_start, start_one, stop_one),
		cmocka_unit_test(a_turn_while_redis_hangs_goes_by_the_policy),
		cmocka_unit_test_setup_teardown(a_queue_paces_and_refuses_one_too_many, start_one, stop_one),
		cmocka_unit_test_setup_teardown(a_waiter_times_out_and_leaves_nothing, start_one, stop_one),
		cmocka_unit_test_setup_teardown(who_leaves_moves_the_others_forward, start_one, stop_one),
		cmocka_unit_test_setup_teardown(a_hung_redis_is_replaced_at_once, start_one, stop_one),
		cmocka_unit_test_setup_teardown(who_goes_while_redis_is_asked_leaves_nothing, start_one, stop_one),
		cmocka_unit_test_setup_teardown(an_answer_that_was_lost_keeps_no_place, start_one, stop_one),
		cmocka_unit_test_setup_teardown(the_other_policies, start_one, stop_one),
		cmocka_unit_test(workers_share_the_local_windows),
	};
	return cmocka_run_group_tests(tests, start_server, stop_server);
}
