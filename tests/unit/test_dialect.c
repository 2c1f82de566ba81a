/* dialect: errors in the vendors' shapes, their limit fields, where keys go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "base/http1.h"
#include "path/dialect.h"

static cJSON *body_of(enum dialect_id dialect, const struct dialect_refusal *r)
{
	struct buf out = {0};
	assert_true(dialect_error_body(dialect, r, &out));
	cJSON *root = cJSON_ParseWithLength(buf_bytes(&out), buf_length(&out));
	assert_non_null(root);
	buf_free(&out);
	return root;
}

static const char *text_at(const cJSON *root, const char *name)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(root, "error"), name);
	assert_true(cJSON_IsString(item));
	return item->valuestring;
}

struct row {
	enum problem_id problem;
	const char *openai;
	const char *anthropic;
	const char *gemini;
};

static const struct row rows[] = {
	{PROBLEM_BAD_REQUEST, "invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT"},
	{PROBLEM_INVALID_CREDENTIALS, "authentication_error", "authentication_error", "UNAUTHENTICATED"},
	{PROBLEM_NOT_ALLOWED, "permission_error", "permission_error", "PERMISSION_DENIED"},
	{PROBLEM_NO_MAPPING, "not_found_error", "not_found_error", "NOT_FOUND"},
	{PROBLEM_QUEUE_TIMEOUT, "timeout_error", "timeout_error", "DEADLINE_EXCEEDED"},
	{PROBLEM_BODY_TOO_LARGE, "invalid_request_error", "request_too_large", "INVALID_ARGUMENT"},
	{PROBLEM_RATE_LIMIT, "rate_limit_error", "rate_limit_error", "RESOURCE_EXHAUSTED"},
	{PROBLEM_UPSTREAM_ERROR, "server_error", "api_error", "INTERNAL"},
	{PROBLEM_NO_UPSTREAM_KEY, "server_error", "api_error", "UNAVAILABLE"},
	{PROBLEM_UPSTREAM_TIMEOUT, "timeout_error", "timeout_error", "DEADLINE_EXCEEDED"},
};

static void test_bodies(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		const struct problem *p = &problem_table[rows[i].problem];
		struct dialect_refusal r = {.problem = rows[i].problem};
		cJSON *root = body_of(DIALECT_OPENAI, &r);
		assert_string_equal(text_at(root, "type"), rows[i].openai);
		assert_string_equal(text_at(root, "code"), p->code);
		assert_string_equal(text_at(root, "message"), p->message);
		assert_true(
			cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(root, "error"), "param")));
		cJSON_Delete(root);
		root = body_of(DIALECT_ANTHROPIC, &r);
		assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "type")), "error");
		assert_string_equal(text_at(root, "type"), rows[i].anthropic);
		assert_string_equal(text_at(root, "message"), p->message);
		cJSON_Delete(root);
		root = body_of(DIALECT_GEMINI, &r);
		assert_string_equal(text_at(root, "status"), rows[i].gemini);
		assert_string_equal(text_at(root, "message"), p->message);
		const cJSON *error = cJSON_GetObjectItemCaseSensitive(root, "error");
		assert_int_equal(cJSON_GetObjectItemCaseSensitive(error, "code")->valueint, p->status);
		assert_null(cJSON_GetObjectItemCaseSensitive(error, "details"));
		cJSON_Delete(root);
	}
}

static void test_every_problem_has_a_body(void **state)
{
	(void)state;
	for (int problem = PROBLEM_NONE + 1; problem < PROBLEM_COUNT; problem++) {
		for (int dialect = DIALECT_OPENAI; dialect <= DIALECT_GEMINI; dialect++) {
			struct dialect_refusal r = {.problem = (enum problem_id)problem, .message = "\"quoted\"\n\xc3\xa4"};
			cJSON *root = body_of((enum dialect_id)dialect, &r);
			assert_string_equal(text_at(root, "message"), "\"quoted\"\n\xc3\xa4");
			cJSON_Delete(root);
		}
	}
}

static void test_gemini_tells_when(void **state)
{
	struct dialect_refusal r = {.problem = PROBLEM_RATE_LIMIT, .retry_after_ms = 45001};
	(void)state;
	cJSON *root = body_of(DIALECT_GEMINI, &r);
	const cJSON *details =
		cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(root, "error"), "details");
	const cJSON *info = cJSON_GetArrayItem(details, 0);
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(info, "@type")),
		"type.googleapis.com/google.rpc.RetryInfo");
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(info, "retryDelay")), "46s");
	cJSON_Delete(root);
}

static const char *fields_of(enum dialect_id dialect, const struct dialect_refusal *r)
{
	static char text[2048];
	struct buf out = {0};
	assert_true(dialect_error_fields(dialect, r, &out));
	assert_true(buf_length(&out) < sizeof text);
	memcpy(text, buf_length(&out) ? buf_bytes(&out) : "", buf_length(&out));
	text[buf_length(&out)] = 0;
	buf_free(&out);
	return text;
}

static void test_openai_fields(void **state)
{
	static const struct {
		uint64_t ms;
		const char *text;
	} durations[] = {{0, "0ms"}, {1, "1ms"}, {999, "999ms"}, {1000, "1s"}, {1001, "2s"}, {59000, "59s"},
		{60000, "1m0s"}, {360000, "6m0s"}, {3599001, "1h0m0s"}, {3661000, "1h1m1s"}};
	(void)state;
	for (unsigned i = 0; i < sizeof durations / sizeof durations[0]; i++) {
		char expected[256];
		struct dialect_refusal r = {.problem = PROBLEM_RATE_LIMIT, .requests = {10, 3, durations[i].ms}};
		snprintf(expected, sizeof expected,
			"x-ratelimit-limit-requests: 10\r\nx-ratelimit-remaining-requests: 3\r\nx-ratelimit-reset-requests: %s\r\n",
			durations[i].text);
		assert_string_equal(fields_of(DIALECT_OPENAI, &r), expected);
	}
	/* The window of tokens that is nearer to its end. */
	struct dialect_refusal r = {.problem = PROBLEM_RATE_LIMIT,
		.retry_after_ms = 1,
		.input_tokens = {100, 50, 0},
		.output_tokens = {80, 49, 0}};
	assert_string_equal(fields_of(DIALECT_OPENAI, &r),
		"retry-after: 1\r\nx-ratelimit-limit-tokens: 80\r\nx-ratelimit-remaining-tokens: 49\r\nx-ratelimit-reset-tokens: 0ms\r\n");
	r.output_tokens.remaining = 51;
	assert_non_null(strstr(fields_of(DIALECT_OPENAI, &r), "x-ratelimit-limit-tokens: 100\r\n"));
	r.problem = PROBLEM_NO_UPSTREAM_KEY;
	assert_string_equal(fields_of(DIALECT_OPENAI, &r), "retry-after: 1\r\n");
}

static void test_other_fields(void **state)
{
	struct dialect_refusal r = {.problem = PROBLEM_RATE_LIMIT,
		.requests = {10, 0, 1000},
		.input_tokens = {100, 5, 0}};
	(void)state;
	const char *text = fields_of(DIALECT_ANTHROPIC, &r);
	assert_non_null(
		strstr(text, "anthropic-ratelimit-requests-limit: 10\r\nanthropic-ratelimit-requests-remaining: 0\r\n"));
	assert_non_null(strstr(text, "anthropic-ratelimit-input-tokens-remaining: 5\r\n"));
	assert_null(strstr(text, "output-tokens"));
	int year, month, day, hour, minute, second, length = 0;
	const char *reset = strstr(text, "requests-reset: ");
	assert_non_null(reset);
	assert_int_equal(sscanf(reset, "requests-reset: %4d-%2d-%2dT%2d:%2d:%2dZ\r\n%n", &year, &month, &day, &hour,
						 &minute, &second, &length),
		6);
	assert_true(length > 0 && year >= 2024);
	assert_string_equal(fields_of(DIALECT_GEMINI, &r), "");
	r = (struct dialect_refusal){.problem = PROBLEM_QUEUE_TIMEOUT, .retry_after_ms = 4001};
	assert_string_equal(fields_of(DIALECT_GEMINI, &r), "retry-after: 5\r\nx-should-retry: false\r\n");
	r = (struct dialect_refusal){.problem = PROBLEM_QUEUE_FULL};
	assert_string_equal(fields_of(DIALECT_ANTHROPIC, &r), "");
}

static void test_key_places(void **state)
{
	(void)state;
	assert_string_equal(dialect_key_field(DIALECT_OPENAI), "authorization");
	assert_string_equal(dialect_key_field(DIALECT_ANTHROPIC), "x-api-key");
	assert_string_equal(dialect_key_field(DIALECT_GEMINI), "x-goog-api-key");
	for (int i = 0; i < 3; i++) {
		struct dialect_places places = dialect_places((enum dialect_id)i), all = dialect_all_places();
		assert_int_equal(places.fields & ~all.fields, 0);
		assert_true(places.fields & 1u << HTTP_AUTHORIZATION);
		assert_int_equal(places.query, i == DIALECT_GEMINI);
	}
	assert_int_equal(dialect_retry_seconds(0), 1);
	assert_int_equal(dialect_retry_seconds(1000), 1);
	assert_int_equal(dialect_retry_seconds(1001), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bodies),
		cmocka_unit_test(test_every_problem_has_a_body),
		cmocka_unit_test(test_gemini_tells_when),
		cmocka_unit_test(test_openai_fields),
		cmocka_unit_test(test_other_fields),
		cmocka_unit_test(test_key_places),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
