/* usage_json: every key of the table is found, and numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "path/usage_json.h"

static enum json_key found;

static void on_scalar(void *context, struct json_scan *s, enum json_key key, const char *at, size_t length)
{
	(void)context;
	assert_int_equal(json_level(s), 1);
	assert_true(length == 1 && *at == '1');
	found = key;
}

static void test_keys(void **state)
{
	static const struct json_reader reader = {.scalar = on_scalar};
	static const char *const names[JSON_KEY_COUNT] = {
#define X(id, name) [JSON_##id] = name,
		JSON_KEY_TABLE(X)
#undef X
	};
	(void)state;
	for (int key = JSON_NO_KEY + 1; key < JSON_KEY_COUNT; key++) {
		char text[128];
		struct json_scan s = {0};
		int length =
			snprintf(text, sizeof text, "{\"%sx\":2,\"x%s\":3,\"%s\":1}", names[key], names[key], names[key]);
		found = JSON_NO_KEY;
		json_scan_feed(&s, &reader, NULL, text, (size_t)length);
		if (found != (enum json_key)key)
			fail_msg("%s was not found", names[key]);
		assert_int_equal(s.depth, 0);
	}
}

static void test_numbers(void **state)
{
	static const struct {
		const char *text;
		int64_t value; /* -1: none */
	} samples[] = {
		{"0", 0},
		{"12", 12},
		{"4294967295", 4294967295},
		{"4294967294.5", 4294967295},
		{"4294967296", JSON_NUMBER_BEYOND},
		{"4294967295.5", JSON_NUMBER_BEYOND},
		{"007", 7},
		{"3.0", 3},
		{"3.00", 3},
		{"3.5", 4},
		{"3e0", 3},
		{"12.5e1", 125},
		{"5E-1", 1},
		{"1e999", JSON_NUMBER_BEYOND},
		{"-0", -1},
		{"1e", -1},
		{"1.2.3", -1},
		{"0x10", -1},
		{"0X10", -1},
		{"1 ", -1},
		{"nan", -1},
		{"-1", -1},
		{"+1", -1},
		{"1e2", 100},
		{"", -1},
		{".0", -1},
		{"null", -1},
		{"99999999999999999999999", JSON_NUMBER_BEYOND},
	};
	(void)state;
	for (unsigned i = 0; i < sizeof samples / sizeof samples[0]; i++) {
		uint64_t value = 0;
		bool fine = json_number(samples[i].text, strlen(samples[i].text), &value);
		if (fine != (samples[i].value >= 0) || (fine && value != (uint64_t)samples[i].value))
			fail_msg("%s: %d %llu", samples[i].text, fine, (unsigned long long)value);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_numbers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
