/* clock: times as text. */
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_now),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
