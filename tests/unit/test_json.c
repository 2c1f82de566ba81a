/* json: what is JSON and what is not, and where. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "state/json.h"

static void test_takes(void **state)
{
	(void)state;
	static const char *const texts[] = {
		"{}",
		"[]",
		" \r\n\t{ \"a\" : [ 1 , 2 ] , \"b\" : { } } \r\n\t",
		"0",
		"-0",
		"10.50e+01",
		"1E-2",
		"1e5",
		"true",
		"false",
		"null",
		"\"\"",
		"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4\\uD83D\\ude00\"",
		"\"\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80\x7f\"",
		"\xef\xbb\xbf{}",
		"{\"a\":1,\"a\":2}",
	};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		cJSON *json = json_parse(texts[i], strlen(texts[i]), NULL);
		if (!json)
			fail_msg("%s", texts[i]);
		cJSON_Delete(json);
	}
}

static void test_refuses(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		size_t at;
	} cases[] = {
		{"", 0},
		{" ", 1},
		{"01", 1},
		{"-", 1},
		{"+1", 0},
		{".5", 0},
		{"1.", 2},
		{"1.e3", 2},
		{"1e", 2},
		{"1e+", 3},
		{"0x10", 1},
		{"NaN", 0},
		{"Infinity", 0},
		{"nul", 3},
		{"True", 0},
		{"[1,]", 3},
		{"[1 2]", 3},
		{"[", 1},
		{"[1}", 2},
		{"{\"a\"}", 4},
		{"{\"a\":}", 5},
		{"{\"a\":1,}", 7},
		{"{a:1}", 1},
		{"{'a':1}", 1},
		{"{1:1}", 1},
		{"{} {}", 3},
		{"{}//", 2},
		{"\"a", 2},
		{"\"a\nb\"", 2},
		{"\"a\tb\"", 2},
		{"\"\x1f\"", 1},
		{"\"\\x41\"", 2},
		{"\"\\u12g4\"", 5},
		{"\"\\ud800\"", 7},
		{"\"\\ud800\\u0041\"", 13},
		{"\"\\udc00\"", 7},
		{"\"\xff\"", 1},
		{"\"\xc0\x80\"", 1},
		{"\v1", 0},
		{"\f1", 0},
		{"1\v", 1},
		{"\x01{}", 0},
		{"\xc2\xa0{}", 0},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const char *end = NULL;
		/* Exactly as long, so that a look behind the end is found. */
		size_t length = strlen(cases[i].text);
		char *text = malloc(length ? length : 1);
		memcpy(text, cases[i].text, length);
		cJSON *json = json_parse(text, length, &end);
		if (json || end != text + cases[i].at)
			fail_msg("%s: %s at %td", cases[i].text, json ? "taken" : "refused", end - text);
		free(text);
	}
	const char *end = NULL;
	assert_null(json_parse("{}\0", 3, &end));
}

static void test_depth(void **state)
{
	enum { DEEPEST = CJSON_NESTING_LIMIT };
	static char text[2 * DEEPEST + 2];
	const char *end;
	(void)state;
	for (int more = 0; more < 2; more++) {
		int depth = DEEPEST - 1 + 2 * more;
		memset(text, '[', (size_t)depth);
		memset(text + depth, ']', (size_t)depth);
		cJSON *json = json_parse(text, (size_t)depth * 2, &end);
		assert_int_equal(json != NULL, !more);
		cJSON_Delete(json);
	}
	assert_int_equal(end - text, DEEPEST);
}

static void test_nul(void **state)
{
	(void)state;
	static const char text[] = "{\"a\":\"x\\u0000y\",\"b\\u0000\":\"\\\\u0000\",\"c\":\"\\\\\\u0000\"}";
	cJSON *json = json_parse(text, sizeof text - 1, NULL);
	assert_non_null(json);
	assert_true(json_has_nul(cJSON_GetObjectItem(json, "a")->valuestring));
	assert_null(cJSON_GetObjectItem(json, "b"));
	assert_true(json_has_nul(json->child->next->string));
	assert_string_equal(json->child->next->valuestring, "\\u0000");
	assert_true(json_has_nul(cJSON_GetObjectItem(json, "c")->valuestring));
	cJSON_Delete(json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_takes),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_nul),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
