/* stats: rings between threads, gauges, and the slots that belong to names. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "base/clock.h"
#include "state/stats.h"

struct seen {
	uint64_t events;
	uint64_t input_tokens; /* the sum */
	uint32_t last_slot;
	uint32_t gone;
};

static void on_event(void *context, const struct stats_event *e)
{
	struct seen *seen = context;
	seen->events++;
	seen->input_tokens += e->input_tokens;
	seen->last_slot = e->slot;
}

static void on_gone(void *context, uint32_t slot)
{
	((struct seen *)context)->gone = slot;
}

static size_t drain(struct stats *s, struct seen *seen)
{
	return stats_drain(s, on_event, on_gone, seen);
}

static void request(struct stats_ring *r, uint32_t slot)
{
	stats_begin(r, slot);
	stats_end(r, &(struct stats_event){.kind = STATS_REQUEST, .slot = slot, .status = 200, .input_tokens = 1});
}

static void test_full_ring_drops_and_counts(void **state)
{
	(void)state;
	struct stats *s = stats_new(2, true);
	struct seen seen = {0};
	struct stats_now now;
	for (int round = 1; round <= 3; round++) {
		for (int i = 0; i < STATS_RING_EVENTS + 10; i++)
			request(stats_ring(s, 1), STATS_NO_SLOT);
		stats_now_worker(s, 1, &now);
		assert_int_equal(now.dropped_events, 10 * round);
		assert_int_equal(now.waiting_events, STATS_RING_EVENTS);
		assert_int_equal(now.active_requests, 0);
		assert_int_equal(drain(s, &seen), STATS_RING_EVENTS);
		assert_int_equal(seen.events, (uint64_t)STATS_RING_EVENTS * (uint64_t)round);
	}
	stats_now_worker(s, 0, &now);
	assert_int_equal(now.dropped_events, 0);
	stats_free(s);
}

static void test_off_is_nothing(void **state)
{
	(void)state;
	struct stats *s = stats_new(1, false);
	struct seen seen = {0};
	assert_int_equal(stats_slot_acquire(s, STATS_MAPPING, "/a", NULL), STATS_NO_SLOT);
	request(stats_ring(s, 0), STATS_NO_SLOT);
	stats_attempt(stats_ring(s, 0), &(struct stats_event){.kind = STATS_ATTEMPT});
	stats_queue_length(stats_ring(s, 0), STATS_NO_SLOT, 1);
	assert_int_equal(drain(s, &seen), 0);
	assert_false(stats_enabled(s));
	stats_free(s);
}

static void test_gauges_sum_over_workers(void **state)
{
	(void)state;
	struct stats *s = stats_new(2, true);
	struct stats_now now;
	int64_t active, waiting;
	uint32_t slot = stats_slot_acquire(s, STATS_MAPPING, "/a", NULL);
	stats_begin(stats_ring(s, 0), slot);
	stats_begin(stats_ring(s, 1), slot);
	stats_begin(stats_ring(s, 1), STATS_NO_SLOT);
	stats_connections(stats_ring(s, 0), 3);
	stats_connections(stats_ring(s, 1), -1);
	stats_queue_length(stats_ring(s, 1), slot, 2);
	stats_now_slot(s, slot, &active, &waiting);
	assert_int_equal(active, 2);
	assert_int_equal(waiting, 2);
	stats_now_all(s, &now);
	assert_int_equal(now.active_requests, 3);
	assert_int_equal(now.connections, 2);
	stats_free(s);
}

static void test_slots_belong_to_names(void **state)
{
	(void)state;
	struct stats *s = stats_new(1, true);
	uint32_t a = stats_slot_acquire(s, STATS_MAPPING, "/a", NULL);
	uint32_t key = stats_slot_acquire(s, STATS_KEY, "/a", "pool");
	uint32_t other = stats_slot_acquire(s, STATS_KEY, "/a", "pool2");
	assert_int_not_equal(a, STATS_NO_SLOT);
	assert_true(a != key && key != other && a != other);
	assert_int_equal(stats_slot_acquire(s, STATS_MAPPING, "/a", NULL), a);
	enum stats_slot_kind kind;
	const char *name, *pool;
	assert_true(stats_slot_name(s, other, &kind, &name, &pool));
	assert_int_equal(kind, STATS_KEY);
	assert_string_equal(name, "/a");
	assert_string_equal(pool, "pool2");
	assert_false(stats_slot_name(s, STATS_NO_SLOT, &kind, &name, &pool));
	assert_false(stats_slot_name(s, 1000, &kind, &name, &pool));
	stats_free(s);
}

static void test_a_number_is_not_reused_before_a_drain(void **state)
{
	(void)state;
	struct stats *s = stats_new(1, true);
	struct seen seen = {0};
	uint32_t a = stats_slot_acquire(s, STATS_MAPPING, "/a", NULL);
	assert_int_equal(stats_slot_acquire(s, STATS_MAPPING, "/a", NULL), a);
	stats_slot_release(s, a);
	drain(s, &seen);
	assert_int_equal(seen.gone, 0); /* one holder is left */
	request(stats_ring(s, 0), a);
	stats_slot_release(s, a);
	uint32_t b = stats_slot_acquire(s, STATS_MAPPING, "/b", NULL);
	assert_int_not_equal(b, a);
	drain(s, &seen);
	assert_int_equal(seen.last_slot, a);
	assert_int_equal(seen.gone, a);
	assert_int_equal(stats_slot_acquire(s, STATS_MAPPING, "/c", NULL), a);
	stats_free(s);
}

static void test_a_name_that_comes_back_keeps_its_number(void **state)
{
	(void)state;
	struct stats *s = stats_new(1, true);
	struct seen seen = {0};
	uint32_t a = stats_slot_acquire(s, STATS_MAPPING, "/a", NULL);
	stats_slot_release(s, a);
	assert_int_equal(stats_slot_acquire(s, STATS_MAPPING, "/a", NULL), a);
	drain(s, &seen);
	assert_int_equal(seen.gone, 0);
	stats_slot_release(s, a);
	drain(s, &seen);
	assert_int_equal(seen.gone, a);
	stats_free(s);
}

struct busy {
	struct stats *stats;
	uint32_t slot;
};

/* Held and released again while a drain is under way: its events may come after the heads it read. */
static void on_event_that_releases(void *context, const struct stats_event *e)
{
	struct busy *busy = context;
	if (e->slot != busy->slot)
		return;
	assert_int_equal(stats_slot_acquire(busy->stats, STATS_MAPPING, "/a", NULL), busy->slot);
	stats_begin(stats_ring(busy->stats, 0), busy->slot);
	stats_end(stats_ring(busy->stats, 0), &(struct stats_event){.kind = STATS_REQUEST, .slot = busy->slot});
	stats_slot_release(busy->stats, busy->slot);
}

static void fail_on_gone(void *context, uint32_t slot)
{
	(void)context;
	fail_msg("slot %u went while its events are in a ring", slot);
}

static void test_a_release_during_a_drain_waits_for_the_next(void **state)
{
	(void)state;
	struct stats *s = stats_new(1, true);
	struct seen seen = {0};
	struct busy busy = {s, stats_slot_acquire(s, STATS_MAPPING, "/a", NULL)};
	request(stats_ring(s, 0), busy.slot);
	stats_slot_release(s, busy.slot);
	assert_int_equal(stats_drain(s, on_event_that_releases, fail_on_gone, &busy), 1);
	assert_int_equal(drain(s, &seen), 1);
	assert_int_equal(seen.gone, busy.slot);
	stats_free(s);
}

static void test_thousands_of_names_come_and_go(void **state)
{
	(void)state;
	enum { NAMES = 3000, ROUNDS = 5 };
	struct stats *s = stats_new(1, true);
	struct seen seen = {0};
	static uint32_t slots[NAMES];
	char name[32];
	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < NAMES; i++) {
			snprintf(name, sizeof name, "/%d/%d", round, i);
			slots[i] = stats_slot_acquire(s, STATS_MAPPING, name, NULL);
			assert_in_range(slots[i], 1, NAMES); /* numbers are used again */
		}
		for (int i = 0; i < NAMES; i++)
			stats_slot_release(s, slots[i]);
		drain(s, &seen);
	}
	stats_free(s);
}

static void test_more_names_than_slots(void **state)
{
	(void)state;
	struct stats *s = stats_new(1, true);
	char name[32];
	uint32_t given = 0;
	for (int i = 0; i < 70000; i++) {
		snprintf(name, sizeof name, "/%d", i);
		given += stats_slot_acquire(s, STATS_MAPPING, name, NULL) != STATS_NO_SLOT;
	}
	assert_int_equal(given, 65535);
	stats_free(s);
}

struct race {
	struct stats *stats;
	unsigned worker;
	uint64_t recorded;
};

static void *produce(void *argument)
{
	struct race *race = argument;
	for (int i = 0; i < 200000; i++)
		request(stats_ring(race->stats, race->worker), STATS_NO_SLOT);
	return NULL;
}

static void test_nothing_is_lost_between_threads(void **state)
{
	(void)state;
	struct stats *s = stats_new(2, true);
	struct race races[2] = {{s, 0, 0}, {s, 1, 0}};
	pthread_t threads[2];
	struct seen seen = {0};
	struct stats_now now;
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, produce, &races[i]), 0);
	do {
		stats_wait(s, 20, true);
		drain(s, &seen);
		stats_now_all(s, &now);
	} while (seen.events + now.dropped_events < 400000);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(seen.events + now.dropped_events, 400000);
	assert_int_equal(seen.input_tokens, seen.events);
	assert_int_equal(now.active_requests, 0);
	stats_free(s);
}

static void *record_soon(void *argument)
{
	nanosleep(&(struct timespec){.tv_nsec = 50 * 1000000}, NULL);
	request(stats_ring(argument, 0), STATS_NO_SLOT);
	return NULL;
}

static void *fill_half_soon(void *argument)
{
	nanosleep(&(struct timespec){.tv_nsec = 50 * 1000000}, NULL);
	for (int i = 0; i <= STATS_RING_EVENTS / 2; i++)
		request(stats_ring(argument, 0), STATS_NO_SLOT);
	return NULL;
}

static void test_waiting_ends_when_there_is_something(void **state)
{
	(void)state;
	struct stats *s = stats_new(1, true);
	struct seen seen = {0};
	pthread_t thread;
	int64_t start = clock_monotonic_ms();
	pthread_create(&thread, NULL, record_soon, s);
	stats_wait(s, 5000, true);
	assert_in_range(clock_monotonic_ms() - start, 30, 2000);
	pthread_join(thread, NULL);
	stats_wait(s, 5000, true); /* the event is still in the ring */
	assert_in_range(clock_monotonic_ms() - start, 30, 2000);
	drain(s, &seen);

	start = clock_monotonic_ms();
	pthread_create(&thread, NULL, fill_half_soon, s);
	stats_wait(s, 5000, false);
	assert_in_range(clock_monotonic_ms() - start, 30, 2000);
	pthread_join(thread, NULL);

	start = clock_monotonic_ms();
	stats_wake(s);
	stats_wait(s, 5000, false);
	assert_in_range(clock_monotonic_ms() - start, 0, 2000);
	stats_wait(s, 60, false);
	assert_in_range(clock_monotonic_ms() - start, 50, 3000);
	stats_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full_ring_drops_and_counts),
		cmocka_unit_test(test_off_is_nothing),
		cmocka_unit_test(test_gauges_sum_over_workers),
		cmocka_unit_test(test_slots_belong_to_names),
		cmocka_unit_test(test_a_number_is_not_reused_before_a_drain),
		cmocka_unit_test(test_a_name_that_comes_back_keeps_its_number),
		cmocka_unit_test(test_a_release_during_a_drain_waits_for_the_next),
		cmocka_unit_test(test_thousands_of_names_come_and_go),
		cmocka_unit_test(test_more_names_than_slots),
		cmocka_unit_test(test_nothing_is_lost_between_threads),
		cmocka_unit_test(test_waiting_ends_when_there_is_something),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
