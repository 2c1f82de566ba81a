/* histogram: its cells, percentiles, sums and text form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "state/histogram.h"

static void test_error_is_at_most_one_in_64(void **state)
{
	(void)state;
	for (uint64_t us = 0; us < UINT64_C(1) << 36; us += us / 97 + 1) {
		uint64_t middle = histogram_cell_middle(histogram_cell_of(us));
		uint64_t off = middle > us ? middle - us : us - middle;
		assert_true(off * 64 <= us);
	}
	assert_int_equal(histogram_cell_of(31), 31);
	assert_int_equal(histogram_cell_of(32), 32);
	assert_int_equal(histogram_cell_of((UINT64_C(1) << 36) - 1), HISTOGRAM_CELLS - 1);
	assert_int_equal(histogram_cell_of(UINT64_MAX), HISTOGRAM_CELLS - 1);
}

static void test_cells_rise_with_durations(void **state)
{
	(void)state;
	uint32_t before = 0;
	for (uint64_t us = 1; us < UINT64_C(1) << 36; us += us / 200 + 1) {
		uint32_t cell = histogram_cell_of(us);
		assert_true(cell >= before && cell < HISTOGRAM_CELLS);
		before = cell;
	}
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static void test_percentiles_match_sorted_values(void **state)
{
	(void)state;
	enum { N = 20000 };
	static uint64_t values[N];
	struct histogram h = {0};
	srand(1);
	for (size_t i = 0; i < N; i++) {
		values[i] = (uint64_t)(rand() % 1000) * (uint64_t)(rand() % 1000) + 100;
		histogram_record(&h, values[i]);
	}
	qsort(values, N, sizeof *values, compare);
	const double percents[] = {0.1, 1, 50, 95, 99, 99.9, 100};
	for (size_t i = 0; i < sizeof percents / sizeof *percents; i++) {
		uint64_t want = values[(size_t)(percents[i] * N / 100.0 + 0.5) - 1];
		uint64_t got = histogram_percentile(&h, percents[i]);
		assert_in_range(got, want - want / 60 - 1, want + want / 60 + 1);
	}
	histogram_fini(&h);
	assert_int_equal(histogram_percentile(&h, 50), 0);
}

static void test_packed_takes_away_what_was_added(void **state)
{
	(void)state;
	struct histogram sum = {0}, part = {0}, rest = {0};
	struct histogram_packed packed;
	for (uint64_t us = 1; us < 1000000; us = us * 3 / 2 + 1) {
		histogram_record(&part, us);
		histogram_record(&rest, us * 7);
	}
	histogram_add(&sum, &part);
	histogram_add(&sum, &rest);
	assert_int_equal(sum.count, part.count + rest.count);
	histogram_pack(&part, &packed);
	histogram_subtract(&sum, &packed);
	assert_int_equal(sum.count, rest.count);
	for (double percent = 1; percent <= 100; percent++)
		assert_int_equal(histogram_percentile(&sum, percent), histogram_percentile(&rest, percent));
	histogram_packed_fini(&packed);
	histogram_fini(&part);
	assert_int_equal(part.count, 0);
	histogram_pack(&part, &packed);
	assert_int_equal(packed.length, 0);
	histogram_fini(&sum);
	histogram_fini(&rest);
}

static void test_text_and_back(void **state)
{
	(void)state;
	struct histogram h = {0}, copy = {0};
	histogram_record(&h, 5);
	histogram_record(&h, 5);
	histogram_record(&h, 123456);
	char *text = histogram_to_text(&h);
	assert_true(histogram_add_text(&copy, text));
	assert_int_equal(copy.count, 3);
	assert_int_equal(histogram_percentile(&copy, 100), histogram_percentile(&h, 100));
	free(text);
	assert_true(histogram_add_text(&copy, ""));
	const char *bad[] = {"1", "1:", "x:1", "1:1;", "1024:1", "99999:1", "1:1,,2:2", "-1:2"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (histogram_add_text(&copy, bad[i]))
			fail_msg("%s was taken", bad[i]);
	histogram_fini(&h);
	histogram_fini(&copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_error_is_at_most_one_in_64),
		cmocka_unit_test(test_cells_rise_with_durations),
		cmocka_unit_test(test_percentiles_match_sorted_values),
		cmocka_unit_test(test_packed_takes_away_what_was_added),
		cmocka_unit_test(test_text_and_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
