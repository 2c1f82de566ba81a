/* clock: times as text; the shared time: this machine's own, then the one that was heard. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"

static void test_format(void **state)
{
	char text[CLOCK_TEXT_BYTES];
	(void)state;
	assert_true(clock_format(text, 0, false));
	assert_string_equal(text, "1970-01-01T00:00:00Z");
	assert_true(clock_format(text, 1767322985007, true));
	assert_string_equal(text, "2026-01-02T03:03:05.007Z");
	assert_true(clock_format(text, 1767322985999, false));
	assert_string_equal(text, "2026-01-02T03:03:05Z");
	assert_false(clock_format(text, INT64_MAX, true));
	assert_string_equal(text, "");
}

static void test_now(void **state)
{
	(void)state;
	int64_t before = time(NULL) * 1000, now = clock_unix_ms(), began = clock_monotonic_ms();
	assert_in_range(now, before - 1, (time(NULL) + 1) * 1000);
	assert_in_range(clock_monotonic_us() / 1000, began, began + 10000);
}

enum { MS = 1000 };

static const int64_t year_2001_ms = INT64_C(1000000000000);

static int64_t since_began_us(void)
{
	static int64_t began_us;
	if (!began_us)
		began_us = clock_monotonic_us();
	return clock_monotonic_us() - began_us;
}

/* Hears a clock that began the year with this test, but for ahead_ms, between two moments just past. */
static void hear(int64_t ahead_ms, int64_t asked_ms_ago, int64_t heard_ms_ago)
{
	int64_t now_us = clock_monotonic_us(), middle_us = (asked_ms_ago + heard_ms_ago) * MS / 2;
	clock_hear((year_2001_ms + ahead_ms) * MS + since_began_us() - middle_us, now_us - asked_ms_ago * MS,
		now_us - heard_ms_ago * MS);
}

static int64_t ahead_ms(void)
{
	return clock_shared_ms() - year_2001_ms - since_began_us() / MS;
}

static void test_own_until_one_is_heard(void **state)
{
	(void)state;
	assert_in_range(clock_shared_ms() / 1000, time(NULL) - 1, time(NULL) + 1);
	hear(0, 2, 0);
	assert_in_range(ahead_ms() + 100, 99, 101);
}

static void test_what_agrees_moves_nothing(void **state)
{
	(void)state;
	hear(0, 2, 0);
	int64_t before = ahead_ms();
	hear(0, 0, 0);     /* the very same */
	hear(400, 900, 0); /* an answer that took long says little */
	assert_in_range(ahead_ms() - before + 10, 9, 11);
}

static void test_a_clock_that_is_set_is_followed(void **state)
{
	(void)state;
	hear(0, 2, 0);
	int64_t before = ahead_ms();
	hear(3600000, 2, 0);
	assert_in_range(ahead_ms() - before, 3600000 - 6, 3600000 + 6);
	hear(-86400000, 2, 0);
	assert_in_range(before - ahead_ms(), 86400000 - 6, 86400000 + 6);
	hear(0, 2, 0);
	assert_in_range(ahead_ms() - before + 10, 4, 16);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_now),
		cmocka_unit_test(test_own_until_one_is_heard),
		cmocka_unit_test(test_what_agrees_moves_nothing),
		cmocka_unit_test(test_a_clock_that_is_set_is_followed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
