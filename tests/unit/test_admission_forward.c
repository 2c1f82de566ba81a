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
	done(one_more(&two, &m));
	for (int i = 0; i < 3; i++)
		gone[i] = one_more(&two, &m);
	first = one_more(&one, &m);
	for (int i = 0; i < 3; i++)
		cancel(gone[i]);
	pause_ms(20);
	late = one_more(&one, &m);
	expect_start(first, began, 1050);
	done(first);
	cancel(late);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_newcomer_brings_an_earlier_start_for_who_came_first, start_two, stop_two),
	};
	return cmocka_run_group_tests(tests, start_server, stop_server);
}
