/* usage_request: what is read from requests, whole or not, and how usage is asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "path/usage.h"

static struct usage_request read_whole(const char *body)
{
	struct usage_request r;
	usage_request_read(body, strlen(body), true, strlen(body), &r);
	return r;
}

struct limit {
	const char *body;
	uint64_t max_output_tokens;
};

static void test_limits(void **state)
{
	static const struct limit limits[] = {
		{"{\"max_tokens\":100}", 100},
		{"{ \"max_tokens\" : 100 , \"max_completion_tokens\" : 300 }", 300},
		{"{\"max_output_tokens\":7,\"input\":\"x\"}", 7},
		{"{\"max_tokens\":100,\"n\":3}", 300},
		{"{\"n\":4,\"best_of\":2,\"max_tokens\":5,\"prompt\":\"a\"}", 20},
		{"{\"generationConfig\":{\"maxOutputTokens\":64,\"candidateCount\":2}}", 128},
		{"{\"generation_config\":{\"max_output_tokens\":64}}", 64},
		{"{\"max_tokens\":4294967295,\"n\":4294967295}", 4294967295},
		{"{\"max_tokens\":4294967296}", 4294967295},
		{"{\"max_tokens\":100000000000000000000000}", 4294967295},
		{"{\"max_tokens\":1e400}", 4294967295},
		{"{\"max_completion_tokens\":1e3}", 1000},
		{"{\"max_completion_tokens\":0.5E3}", 500},
		{"{\"max_output_tokens\":99.5}", 100},
		{"{\"max_tokens\":5,\"n\":2e0}", 10},
		{"{\"max_tokens\":-5}", 0},
		{"{\"max_tokens\":0x10}", 0},
		{"{\"max_tokens\":1e}", 0},
		{"{\"max_tokens\":NaN}", 0},
		{"{\"max_tokens\":null}", 0},
		{"{\"max_tokens\":\"100\"}", 0},
		{"{\"messages\":[{\"max_tokens\":9}],\"tools\":{\"max_tokens\":8},\"a\":\"\\\"max_tokens\\\":7\"}", 0},
		{"{\"generationConfig\":{\"schema\":{\"maxOutputTokens\":64}}}", 0},
		{"[{\"max_tokens\":100}]", 0},
		{"{\"max_tokens\":100,\"messages\":[{\"content\":\"cut o", 100},
		{"", 0},
		{"hello", 0},
	};
	(void)state;
	for (unsigned i = 0; i < sizeof limits / sizeof limits[0]; i++) {
		struct usage_request r = read_whole(limits[i].body);
		if (r.max_output_tokens != limits[i].max_output_tokens)
			fail_msg("%s: %llu", limits[i].body, (unsigned long long)r.max_output_tokens);
		assert_true(r.input_estimate >= 1);
		assert_int_equal(r.is_json, limits[i].body[0] == '{');
	}
}

static void test_stream(void **state)
{
	(void)state;
	assert_true(read_whole("{\"stream\":true}").stream);
	assert_true(read_whole("{\"a\":[1,2],\"stream\" : true , \"b\":1}").stream);
	assert_false(read_whole("{\"stream\":false}").stream);
	assert_false(read_whole("{\"stream\":\"true\"}").stream);
	assert_false(read_whole("{\"a\":{\"stream\":true}}").stream);
	assert_false(read_whole("{}").stream);
}

/* {"messages":[{"role":"user","content":"…"}]} with `length` bytes of content from `letters`. */
static char *with_content(const char *prefix, const char *letters, size_t length)
{
	static const char head[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"";
	static const char tail[] = "\"}]}";
	char *body = malloc(sizeof head + strlen(prefix) + length + sizeof tail);
	assert_non_null(body);
	size_t at = (size_t)sprintf(body, "%s%s", head, prefix);
	for (size_t i = 0, seed = 7; i < length; i++, seed = seed * 1103515245 + 12345)
		body[at++] = letters[(seed >> 16) % strlen(letters)];
	strcpy(body + at, tail);
	return body;
}

static uint64_t estimate_of(const char *prefix, const char *letters, size_t length)
{
	char *body = with_content(prefix, letters, length);
	uint64_t estimate = read_whole(body).input_estimate;
	free(body);
	return estimate;
}

#define BASE64 "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

static void test_estimates(void **state)
{
	(void)state;
	assert_in_range(read_whole("{}").input_estimate, 1, 1);
	assert_in_range(read_whole("{\"messages\":[{\"role\":\"user\",\"content\":\"Hello there, how are you?\"}]}")
						.input_estimate,
		7, 16);
	assert_in_range(estimate_of("", "abcde fgh ", 40000), 10000, 10010);
	assert_in_range(estimate_of("", "x", 40000), 10000, 10010);
	assert_in_range(estimate_of("", BASE64, 400), 100, 110);
	assert_in_range(estimate_of("", BASE64, 1 << 20), 256 + 1024, 256 + 1024 + 10);
	assert_in_range(estimate_of("data:image/png;base64,", "A", 1 << 20), 256 + 1024, 256 + 1024 + 10);
	assert_in_range(estimate_of("data:text/plain,", "a b", 40000), 10000, 10020);
}

static void test_first_parts(void **state)
{
	struct usage_request r;
	(void)state;
	char *text = with_content("", "abcde fgh ", 40000);
	usage_request_read(text, 10000, false, strlen(text), &r);
	assert_in_range(r.input_estimate, 9900, 10100);
	usage_request_read(text, 10000, false, 0, &r);
	assert_in_range(r.input_estimate, 2490, 2510);
	free(text);
	char *picture = with_content("data:image/png;base64,", BASE64, 4 << 20);
	usage_request_read(picture, 1 << 20, false, strlen(picture), &r);
	assert_in_range(r.input_estimate, 256 + 4096, 256 + 4096 + 20);
	free(picture);
	usage_request_read("", 0, false, 1 << 20, &r);
	assert_false(r.is_json);
	assert_in_range(r.input_estimate, 1, 2000);
	for (size_t length = 0; length < 60; length++) {
		usage_request_read("{\"stream\":true,\"max_tokens\":12345,\"n\":2,\"messages\":[{\"a\":\"b\"}]}", length,
			false, 100, &r);
		assert_true(r.max_output_tokens == 0 || r.max_output_tokens == 12345 || r.max_output_tokens == 24690);
	}
}

/* Whatever length is announced, an estimate fits the sums that it goes into; and what came is not what was announced. */
static void test_announced_lengths(void **state)
{
	static const uint64_t announced[] = {9000000000000000000, INT64_MAX, UINT64_MAX};
	char *bodies[] = {with_content("", "abcde fgh ", 40000), with_content("data:image/png;base64,", BASE64, 40000),
		strdup("no JSON")};
	struct usage_request r;
	(void)state;
	for (size_t i = 0; i < 9; i++) {
		const char *body = bodies[i / 3];
		size_t length = i / 3 == 1 ? 20000 : strlen(body); /* cut within the picture */
		usage_request_read(body, length, false, announced[i % 3], &r);
		assert_true(r.input_estimate == UINT32_MAX);
		uint64_t came = r.is_json ? 10000 : 1;
		if (i / 3 == 1)
			came = 256 + 20;
		assert_in_range(usage_request_estimate(&r, length), came, came + 20);
	}
	usage_request_read(bodies[0], 10000, false, 1 << 20, &r);
	assert_in_range(usage_request_estimate(&r, 10000), 2490, 2510);
	assert_in_range(usage_request_estimate(&r, 20000), 4980, 5020);
	for (size_t i = 0; i < 3; i++)
		free(bodies[i]);
}

/* ---- include_usage ---- */

struct change {
	const char *before;
	const char *after; /* NULL: nothing to change */
};

#define ASKED "\"stream_options\":{\"include_usage\":true}"

static const struct change changes[] = {
	{"{\"stream\":true,\"messages\":[]}", "{" ASKED ",\"stream\":true,\"messages\":[]}"},
	{" {\n \"messages\" : \"\\u00e4 {\", \"stream\" : true }\n",
		" {" ASKED ",\n \"messages\" : \"\\u00e4 {\", \"stream\" : true }\n"},
	{"{\"stream\":true}", "{" ASKED ",\"stream\":true}"},
	{"{\"input\":\"x\",\"stream\":true}", "{" ASKED ",\"input\":\"x\",\"stream\":true}"},
	{"{\"prompt\":\"x\",\"stream\":true}", "{" ASKED ",\"prompt\":\"x\",\"stream\":true}"},
	{"{\"messages\":[],\"stream\":true,\"stream_options\":{}}", "{\"messages\":[],\"stream\":true," ASKED "}"},
	{"{\"messages\":[],\"stream\":true,\"stream_options\":{ }}",
		"{\"messages\":[],\"stream\":true,\"stream_options\":{\"include_usage\":true }}"},
	{"{\"messages\":[],\"stream\":true,\"stream_options\":null}", "{\"messages\":[],\"stream\":true," ASKED "}"},
	{"{\"messages\":[],\"stream\":true,\"stream_options\":{\"include_obfuscation\":false}}",
		"{\"messages\":[],\"stream\":true,\"stream_options\":{\"include_usage\":true,\"include_obfuscation\":false}}"},
	{"{\"messages\":[],\"stream_options\":{\"include_usage\": false },\"stream\":true}",
		"{\"messages\":[],\"stream_options\":{\"include_usage\": true },\"stream\":true}"},
	{"{\"messages\":[],\"stream\":true,\"stream_options\":{\"include_usage\":null}}",
		"{\"messages\":[],\"stream\":true,\"stream_options\":{\"include_usage\":true}}"},
	{"{\"messages\":[{\"stream_options\":{\"include_usage\":true}}],\"stream\":true}",
		"{" ASKED ",\"messages\":[{\"stream_options\":{\"include_usage\":true}}],\"stream\":true}"},
	{"{\"messages\":[],\"stream\":true," ASKED "}", NULL},
	{"{\"messages\":[],\"stream\":true,\"stream_options\":1}", NULL},
	{"{\"messages\":[],\"stream\":true,\"stream_options\":\"x\"}", NULL},
	{"{\"messages\":[],\"stream\":true,\"stream_options\":[]}", NULL},
	{"{\"messages\":[],\"stream\":false}", NULL},
	{"{\"messages\":[]}", NULL},
	{"{\"input\":{\"stream\":true}}", NULL},
	{"{\"messages\":[],\"stream\":true", NULL},
	{"[{\"messages\":[],\"stream\":true}]", NULL},
	{"", NULL},
	{"{", NULL},
	{"not JSON", NULL},
};

static void test_include(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof changes / sizeof changes[0]; i++) {
		const struct change *c = &changes[i];
		struct buf out = {0};
		bool changed = usage_request_include(c->before, strlen(c->before), &out);
		if (changed != (c->after != NULL))
			fail_msg("%s: %d", c->before, changed);
		if (!changed) {
			assert_null(out.data);
			continue;
		}
		if (buf_length(&out) != strlen(c->after) || memcmp(buf_bytes(&out), c->after, strlen(c->after)) != 0)
			fail_msg("%s became %.*s", c->before, (int)buf_length(&out), buf_bytes(&out));
		/* What asks for usage is left alone. */
		struct buf again = {0};
		assert_false(usage_request_include(buf_bytes(&out), buf_length(&out), &again));
		buf_free(&out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_stream),
		cmocka_unit_test(test_estimates),
		cmocka_unit_test(test_first_parts),
		cmocka_unit_test(test_announced_lengths),
		cmocka_unit_test(test_include),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
