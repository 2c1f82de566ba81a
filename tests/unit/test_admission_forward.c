/* admission against a real redis-server: starts that were given back on one node are for those who wait on another. */
#include "admission_fixture.h"

static struct worker two; /* another node's */

static int start_two(void **state)
{
	if (start_one(state))
		return 1;
	worker_start(&two, node_new(ADMISSION_LOCAL));
	return !redis_gets_usable(&two);
}

static int stop_two(void **state)
{
	worker_stop(&two);
	admission_node_free(two.node);
	return stop_one(state);
}

static struct mapping line_of(const char *prefix, double rate)
{
	struct mapping m = plain;
	m.prefix = prefix;
	m.has_queue = true;
	m.queue_rate_per_second = rate;
	m.queue_capacity = 1000;
	m.queue_timeout_ms = 20000;
	return m;
}

/* It has started, or waits. */
static struct job *one_more(struct worker *w, const struct mapping *m)
{
	struct job *j = begin(w, &client, m, 1, 1);
	assert_true(wait_for(j, true, 1000));
	return j;
}

/* One starts at once, so many wait behind it. */
static void fill(struct worker *w, const struct mapping *m, struct job **waiting, int count)
{
	done(one_more(w, m));
	for (int i = 0; i < count; i++)
		waiting[i] = one_more(w, m);
}

static void cancel_all(struct job **waiting, int count)
{
	for (int i = 0; i < count; i++)
		cancel(waiting[i]);
}

/* Of a line's places that wait (w), or starts that are free (f): those to come. */
static long long to_come(const struct mapping *m, const char *what)
{
	return ask("ZCOUNT apiproxy:limit:{%s}:q:%s (%lld +inf", m->prefix, what, (long long)clock_unix_ms());
}

static void expect_start(struct job *j, uint64_t began_ms, uint64_t after_ms)
{
	assert_int_equal(decided(j), PROBLEM_NONE);
	assert_in_range(j->at_ms - began_ms + 10, after_ms, after_ms + 250);
}

/* Four wait for 1050, 2100, 3150 and 4200; those of the other node hang up. */
static void a_newcomer_brings_an_earlier_start_for_who_came_first(void **state)
{
	struct job *gone[3], *first, *late;
	(void)state;
	fresh_client((struct limits){0});
	struct mapping m = line_of("/forward/1", 1);
	uint64_t began = clock_monotonic_ms();
	fill(&two, &m, gone, 3);
	first = one_more(&one, &m);
	cancel_all(gone, 3);
	pause_ms(20);
	late = one_more(&one, &m);
	expect_start(first, began, 1050);
	done(first);
	cancel(late);
}

static void tell(struct worker *w, const char *prefix)
{
	pause_ms(10); /* those who left have told Redis */
	admission_node_given_back(w->node, prefix);
}

/* Nobody comes: what the other node gave back is for those who wait. */
static void who_waits_comes_forward(void **state)
{
	struct job *gone[6], *left[2];
	(void)state;
	fresh_client((struct limits){0});
	struct mapping m = line_of("/forward/2", 1);
	uint64_t began = clock_monotonic_ms();
	fill(&two, &m, gone, 6);
	for (int i = 0; i < 2; i++)
		left[i] = one_more(&one, &m);
	cancel_all(gone, 6);
	tell(&one, m.prefix);
	for (unsigned i = 0; i < 2; i++) {
		expect_start(left[i], began, (i + 1) * 1050);
		done(left[i]);
	}
	assert_int_equal(to_come(&m, "w"), 0);
}

/* One without a start before its patience ends gets one. */
static void who_had_no_start_gets_one(void **state)
{
	struct job *gone[2], *left;
	(void)state;
	fresh_client((struct limits){0});
	struct mapping m = line_of("/forward/3", 1);
	m.queue_timeout_ms = 2500;
	uint64_t began = clock_monotonic_ms();
	fill(&two, &m, gone, 2);
	left = one_more(&one, &m);
	cancel_all(gone, 2);
	tell(&one, NULL);
	expect_start(left, began, 1050);
	done(left);
}

/* While Redis is asked, waiters leave and start; nothing is lost, and nothing given twice. */
static void places_that_go_while_redis_is_asked(void **state)
{
	struct job *gone[4], *left[3];
	struct worker third;
	(void)state;
	worker_start(&third, one.node);
	assert_true(redis_gets_usable(&third));
	fresh_client((struct limits){0});
	struct mapping m = line_of("/forward/5", 1);
	fill(&two, &m, gone, 4);
	for (int i = 0; i < 3; i++)
		left[i] = one_more(i == 1 ? &third : &one, &m);
	cancel_all(gone, 4);
	pause_ms(10);
	kill(server, SIGSTOP);
	admission_node_given_back(one.node, m.prefix);
	pause_ms(60); /* asked, not answered */
	cancel(left[0]);
	cancel(left[1]);
	kill(server, SIGCONT);
	assert_int_equal(decided(left[2]), PROBLEM_NONE);
	done(left[2]);
	pause_ms(20);
	assert_int_equal(to_come(&m, "w"), 0);
	assert_int_equal(to_come(&m, "f"), 6);
	worker_stop(&third);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_newcomer_brings_an_earlier_start_for_who_came_first, start_two, stop_two),
		cmocka_unit_test_setup_teardown(who_waits_comes_forward, start_two, stop_two),
		cmocka_unit_test_setup_teardown(who_had_no_start_gets_one, start_two, stop_two),
		cmocka_unit_test_setup_teardown(places_that_go_while_redis_is_asked, start_two, stop_two),
	};
	return cmocka_run_group_tests(tests, start_server, stop_server);
}
