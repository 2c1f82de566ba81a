/* dialect: the vendors' conventions as tables. */
#include "path/dialect.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/http1.h"

struct status_name {
	uint16_t status;
	const char *name;
};

/* The last row of each is for every other status. */
/* clang-format off */
static const struct status_name openai_types[] = {
	{400, "invalid_request_error"}, {401, "authentication_error"}, {403, "permission_error"},
	{404, "not_found_error"}, {405, "invalid_request_error"}, {408, "timeout_error"},
	{413, "invalid_request_error"}, {414, "invalid_request_error"}, {429, "rate_limit_error"},
	{431, "invalid_request_error"}, {504, "timeout_error"}, {0, "server_error"},
};
static const struct status_name anthropic_types[] = {
	{400, "invalid_request_error"}, {401, "authentication_error"}, {403, "permission_error"},
	{404, "not_found_error"}, {405, "invalid_request_error"}, {408, "timeout_error"}, {413, "request_too_large"},
	{414, "invalid_request_error"}, {429, "rate_limit_error"}, {431, "invalid_request_error"},
	{504, "timeout_error"}, {0, "api_error"},
};
static const struct status_name gemini_statuses[] = {
	{400, "INVALID_ARGUMENT"}, {401, "UNAUTHENTICATED"}, {403, "PERMISSION_DENIED"}, {404, "NOT_FOUND"},
	{405, "INVALID_ARGUMENT"}, {408, "DEADLINE_EXCEEDED"}, {413, "INVALID_ARGUMENT"}, {414, "INVALID_ARGUMENT"},
	{429, "RESOURCE_EXHAUSTED"}, {431, "INVALID_ARGUMENT"}, {503, "UNAVAILABLE"}, {504, "DEADLINE_EXCEEDED"},
	{0, "INTERNAL"},
};
/* clang-format on */

static const char *name_of(const struct status_name *row, unsigned status)
{
	while (row->status && row->status != status)
		row++;
	return row->name;
}

static cJSON *openai_error(const struct problem *p, const struct dialect_refusal *r, const char *message)
{
	cJSON *root = cJSON_CreateObject();
	cJSON *error = cJSON_AddObjectToObject(root, "error");
	(void)r;
	cJSON_AddStringToObject(error, "message", message);
	cJSON_AddStringToObject(error, "type", name_of(openai_types, p->status));
	cJSON_AddNullToObject(error, "param");
	cJSON_AddStringToObject(error, "code", p->code);
	return root;
}

static cJSON *anthropic_error(const struct problem *p, const struct dialect_refusal *r, const char *message)
{
	cJSON *root = cJSON_CreateObject();
	(void)r;
	cJSON_AddStringToObject(root, "type", "error");
	cJSON *error = cJSON_AddObjectToObject(root, "error");
	cJSON_AddStringToObject(error, "type", name_of(anthropic_types, p->status));
	cJSON_AddStringToObject(error, "message", message);
	return root;
}

static cJSON *gemini_error(const struct problem *p, const struct dialect_refusal *r, const char *message)
{
	cJSON *root = cJSON_CreateObject();
	cJSON *error = cJSON_AddObjectToObject(root, "error");
	cJSON_AddNumberToObject(error, "code", p->status);
	cJSON_AddStringToObject(error, "message", message);
	cJSON_AddStringToObject(error, "status", name_of(gemini_statuses, p->status));
	if (r->retry_after_ms) {
		char delay[32];
		snprintf(delay, sizeof delay, "%llus", (unsigned long long)dialect_retry_seconds(r->retry_after_ms));
		cJSON *info = cJSON_CreateObject();
		cJSON_AddStringToObject(info, "@type", "type.googleapis.com/google.rpc.RetryInfo");
		cJSON_AddStringToObject(info, "retryDelay", delay);
		cJSON_AddItemToArray(cJSON_AddArrayToObject(error, "details"), info);
	}
	return root;
}

/* OpenAI's way to write a duration: 120ms, 1.5s, 6m0s, 1h0m0s. */
static bool write_duration(struct buf *out, uint64_t ms)
{
	unsigned long long seconds = (ms + 999) / 1000;
	if (ms < 1000)
		return buf_printf(out, "%llums", (unsigned long long)ms);
	if (seconds < 60)
		return buf_printf(out, "%llus", seconds);
	if (seconds < 3600)
		return buf_printf(out, "%llum%llus", seconds / 60, seconds % 60);
	return buf_printf(out, "%lluh%llum%llus", seconds / 3600, seconds / 60 % 60, seconds % 60);
}

static bool openai_limit(struct buf *out, const char *what, const struct dialect_limit *l)
{
	if (!l->limit)
		return true;
	return buf_printf(out,
			   "x-ratelimit-limit-%s: %llu\r\nx-ratelimit-remaining-%s: %llu\r\nx-ratelimit-reset-%s: ", what,
			   (unsigned long long)l->limit, what, (unsigned long long)l->remaining, what) &&
		write_duration(out, l->reset_ms) && buf_append(out, "\r\n", 2);
}

/* OpenAI knows one window of tokens: the one that is nearer to its end is told. */
static bool openai_fields(const struct dialect_refusal *r, struct buf *out)
{
	const struct dialect_limit *tokens = &r->input_tokens;
	const struct dialect_limit *other = &r->output_tokens;
	if (other->limit && (!tokens->limit || other->remaining < tokens->remaining))
		tokens = other;
	return openai_limit(out, "requests", &r->requests) && openai_limit(out, "tokens", tokens);
}

static bool anthropic_limit(struct buf *out, const char *what, const struct dialect_limit *l)
{
	if (!l->limit)
		return true;
	char reset[CLOCK_TEXT_BYTES];
	clock_format(reset, clock_shared_ms() + (int64_t)l->reset_ms + 999, false);
	return buf_printf(out,
		"anthropic-ratelimit-%s-limit: %llu\r\nanthropic-ratelimit-%s-remaining: %llu\r\nanthropic-ratelimit-%s-reset: %s\r\n",
		what, (unsigned long long)l->limit, what, (unsigned long long)l->remaining, what, reset);
}

static bool anthropic_fields(const struct dialect_refusal *r, struct buf *out)
{
	return anthropic_limit(out, "requests", &r->requests) && anthropic_limit(out, "input-tokens", &r->input_tokens) &&
		anthropic_limit(out, "output-tokens", &r->output_tokens);
}

static bool gemini_fields(const struct dialect_refusal *r, struct buf *out)
{
	(void)r; /* told in the body */
	(void)out;
	return true;
}

struct dialect {
	const char *key_field;
	struct dialect_places places;
	cJSON *(*error)(const struct problem *p, const struct dialect_refusal *r, const char *message);
	bool (*fields)(const struct dialect_refusal *r, struct buf *out);
};

#define IN(id) (1u << HTTP_##id)
_Static_assert(HTTP_FIELD_ID_COUNT <= 32, "a bit each");

static const struct dialect dialects[] = {
	[DIALECT_OPENAI] = {"authorization", {IN(AUTHORIZATION) | IN(API_KEY), false}, openai_error, openai_fields},
	[DIALECT_ANTHROPIC] = {"x-api-key", {IN(AUTHORIZATION) | IN(X_API_KEY), false}, anthropic_error,
		anthropic_fields},
	[DIALECT_GEMINI] = {"x-goog-api-key", {IN(AUTHORIZATION) | IN(X_GOOG_API_KEY), true}, gemini_error,
		gemini_fields},
};

const char *dialect_key_field(enum dialect_id dialect)
{
	return dialects[dialect].key_field;
}

struct dialect_places dialect_places(enum dialect_id dialect)
{
	return dialects[dialect].places;
}

struct dialect_places dialect_all_places(void)
{
	return (struct dialect_places){IN(AUTHORIZATION) | IN(X_API_KEY) | IN(X_GOOG_API_KEY) | IN(API_KEY), true};
}

uint64_t dialect_retry_seconds(uint64_t retry_after_ms)
{
	uint64_t seconds = (retry_after_ms + 999) / 1000;
	return seconds ? seconds : 1;
}

bool dialect_error_body(enum dialect_id dialect, const struct dialect_refusal *r, struct buf *out)
{
	const struct problem *p = &problem_table[r->problem];
	cJSON *root = dialects[dialect].error(p, r, r->message ? r->message : p->message);
	char *text = cJSON_PrintUnformatted(root);
	bool fine = text && buf_append(out, text, strlen(text));
	cJSON_free(text);
	cJSON_Delete(root);
	return fine;
}

bool dialect_error_fields(enum dialect_id dialect, const struct dialect_refusal *r, struct buf *out)
{
	if (r->retry_after_ms &&
		!buf_printf(out, "retry-after: %llu\r\n", (unsigned long long)dialect_retry_seconds(r->retry_after_ms)))
		return false;
	/* Coming again after a timeout would only wait in the same queue. */
	bool in_vain = r->hopeless || r->problem == PROBLEM_QUEUE_TIMEOUT;
	if (in_vain && !buf_printf(out, "x-should-retry: false\r\n"))
		return false;
	return problem_table[r->problem].status != 429 || dialects[dialect].fields(r, out);
}
