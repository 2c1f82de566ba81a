/* usage_scan: each search finds what a loop finds, at every alignment and length, and reads nothing outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "path/usage_scan.h"

typedef const char *search_function(const char *at, const char *end);

static bool is_structural(const char *at, const char *end)
{
	(void)end;
	return *at == '"' || (signed char)*at >= '[';
}

static bool is_line_end(const char *at, const char *end)
{
	(void)end;
	return *at == '\r' || *at == '\n';
}

static bool is_text(const char *at, const char *end)
{
	(void)end;
	return (unsigned char)*at > ' ';
}

static bool is_usage(const char *at, const char *end)
{
	return end - at >= 6 && memcmp(at, "\"usage", 6) == 0 && !(end - at > 8 && at[8] == 'n');
}

#define FILLER "0123456789 ,.:+-AZ\xc3\xa4"

static const struct {
	search_function *search;
	bool (*is_hit)(const char *at, const char *end);
	const char *hits[4]; /* with things that nearly are */
	const char *filler;
} searches[] = {
	{scan_structural, is_structural, {"\"", "[", "}", "\x7f"}, FILLER},
	{scan_line_end, is_line_end, {"\r", "\n", "\r\n", "\x0b"}, FILLER},
	{scan_usage, is_usage, {"\"usage\":{", "\"usage\":null", "\"usagn", "\"usageMetadata\": {"}, FILLER},
	{scan_text, is_text, {"!", "\x7f", "\x80", "\xff"}, " \t\r\n\x01\x1f"},
};

static void check(unsigned which, const char *at, const char *end)
{
	for (;; at++) {
		const char *expected = at;
		while (expected < end && !searches[which].is_hit(expected, end))
			expected++;
		assert_ptr_equal(searches[which].search(at, end), expected);
		at = expected;
		if (at == end)
			return;
	}
}

static uint32_t seed = 1;

static uint32_t next(void)
{
	seed = seed * 1103515245 + 12345;
	return seed >> 16;
}

/* A text of `length` in memory of just that length, with hits `gap` apart or so. */
static void check_random(unsigned which, size_t length, size_t offset, unsigned gap)
{
	const char *filler = searches[which].filler;
	char *memory = malloc(offset + length);
	assert_non_null(memory);
	char *text = memory + offset;
	for (size_t i = 0; i < length; i++)
		text[i] = filler[next() % strlen(filler)];
	for (size_t i = next() % gap; i < length; i += 1 + next() % gap) {
		const char *hit = searches[which].hits[next() % 4];
		size_t room = length - i < strlen(hit) ? length - i : strlen(hit);
		memcpy(text + i, hit, room);
	}
	check(which, text, text + length);
	free(memory);
}

static void test_all_lengths(void **state)
{
	(void)state;
	for (unsigned which = 0; which < sizeof searches / sizeof searches[0]; which++)
		for (size_t length = 0; length < 700; length++)
			for (unsigned gap = 3; gap < 2000; gap *= 6)
				check_random(which, length, length % 67, gap);
}

static void test_every_place(void **state)
{
	enum { LENGTH = 600 };
	(void)state;
	for (unsigned which = 0; which < sizeof searches / sizeof searches[0]; which++) {
		const char *hit = searches[which].hits[0];
		for (size_t place = 0; place < LENGTH; place++) {
			char *text = malloc(LENGTH);
			assert_non_null(text);
			memset(text, '1', LENGTH);
			memcpy(text + place, hit, LENGTH - place < strlen(hit) ? LENGTH - place : strlen(hit));
			check(which, text, text + LENGTH);
			free(text);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_lengths),
		cmocka_unit_test(test_every_place),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
