/* usage_request: what a request's body says before it is sent. One pass of the JSON scanner over what
 * is there. Pure. */
#include <stdlib.h>
#include <string.h>

#include "path/usage.h"
#include "path/usage_json.h"

/* A blob is a picture, a sound, a document in base64: vendors count its content, not its letters. */
enum { BLOB_MIN = 512, BLOB_TOKENS = 256, BLOB_BYTES_PER_TOKEN = 1024, BLOB_LOOK = 128 };

struct request_reader {
	struct usage_request *out;
	const char *end; /* of what is there */
	uint32_t choices;
};

enum letters { UPPER = 1, LOWER = 2, DIGIT = 4, ALL_LETTERS = 7, OTHER = 8, NO_BASE64 = 16 };

static unsigned letter(unsigned char c)
{
	if (c >= 'A' && c <= 'Z')
		return UPPER;
	if (c >= 'a' && c <= 'z')
		return LOWER;
	if (c >= '0' && c <= '9')
		return DIGIT;
	return c && strchr("+/-_=\\\n", c) ? OTHER : NO_BASE64;
}

/* Long, of base64's letters alone, and of all kinds of them: an 'x' a thousand times is text. */
static bool is_blob(const char *at, size_t length)
{
	unsigned seen = 0;
	if (length < BLOB_MIN)
		return false;
	if (memcmp(at, "data:", 5) == 0 && memmem(at, BLOB_LOOK, ";base64,", 8))
		return true;
	for (size_t i = 0; i < BLOB_LOOK; i++)
		seen |= letter((unsigned char)at[i]) | letter((unsigned char)at[length - 1 - i]);
	return (seen & ALL_LETTERS) == ALL_LETTERS && !(seen & NO_BASE64);
}

static void on_string(void *context, struct json_scan *s, enum json_key key, const char *at, size_t length)
{
	struct request_reader *r = context;
	(void)s;
	(void)key;
	if (!is_blob(at, length)) {
		r->out->text_bytes += length;
		return;
	}
	r->out->blob_tokens += BLOB_TOKENS + length / BLOB_BYTES_PER_TOKEN;
	r->out->cut_in_blob = at + length == r->end;
}

static bool is_configuration(enum json_key key)
{
	return key == JSON_GENERATION_CONFIG || key == JSON_GENERATION_CONFIG_SNAKE;
}

static void on_scalar(void *context, struct json_scan *s, enum json_key key, const char *at, size_t length)
{
	struct request_reader *r = context;
	uint64_t value;
	if (s->array_root || (s->depth != 1 && !(s->depth == 2 && is_configuration(json_parent(s, 2)))))
		return;
	if (key == JSON_STREAM && s->depth == 1)
		r->out->stream = length == 4 && memcmp(at, "true", 4) == 0;
	if (!json_number(at, length, &value))
		return;
	if (value > UINT32_MAX)
		value = UINT32_MAX; /* which no limit allows */
	bool is_limit = key >= JSON_MAX_TOKENS && key <= JSON_MAX_OUTPUT_TOKENS_CAMEL;
	bool is_choices =
		key == JSON_N || key == JSON_BEST_OF || key == JSON_CANDIDATE_COUNT || key == JSON_CANDIDATE_COUNT_SNAKE;
	if (is_limit && value > r->out->max_output_tokens)
		r->out->max_output_tokens = value;
	if (is_choices && value > r->choices)
		r->choices = (uint32_t)value;
}

static const struct json_reader reader = {.string = on_string, .scalar = on_scalar, .all_strings = true};

static bool is_object(const char *body, size_t length)
{
	size_t i = 0;
	while (i < length && (body[i] == ' ' || body[i] == '\t' || body[i] == '\r' || body[i] == '\n'))
		i++;
	return i < length && body[i] == '{';
}

/* What is not there yet is taken to be like what is. In floating point: a length that was only announced
 * may be anything. */
uint64_t usage_request_estimate(const struct usage_request *r, uint64_t total_length)
{
	uint64_t text_tokens = (r->text_bytes + USAGE_BYTES_PER_TOKEN - 1) / USAGE_BYTES_PER_TOKEN;
	double tokens = (double)(text_tokens + r->blob_tokens);
	double total = (double)total_length, missing = total_length > r->bytes ? (double)(total_length - r->bytes) : 0;
	if (!r->is_json)
		tokens = 1 + total / BLOB_BYTES_PER_TOKEN;
	else if (missing > 0 && r->cut_in_blob)
		tokens += missing / BLOB_BYTES_PER_TOKEN;
	else if (missing > 0 && r->bytes)
		tokens *= total / (double)r->bytes;
	return tokens < 1 ? 1 : tokens < UINT32_MAX ? (uint64_t)tokens : UINT32_MAX;
}

void usage_request_read(const char *body, size_t length, bool whole, uint64_t total_length, struct usage_request *out)
{
	struct json_scan scan = {0};
	struct request_reader r = {.out = out, .end = body + length, .choices = 1};
	uint64_t total = whole || total_length < length ? length : total_length;
	*out = (struct usage_request){.is_json = is_object(body, length), .bytes = length};
	if (out->is_json)
		json_scan_feed(&scan, &reader, &r, body, length);
	out->input_estimate = usage_request_estimate(out, total);
	out->max_output_tokens *= r.choices;
	if (out->max_output_tokens > UINT32_MAX)
		out->max_output_tokens = UINT32_MAX;
}

/* ---- include_usage ---- */

struct include_reader {
	const char *options; /* the value of stream_options: its bracket, or null */
	const char *flag;    /* the value of include_usage in it */
	size_t flag_length;
	bool options_null;
	bool options_other; /* neither object nor null */
	bool stream;
};

static void on_include_open(void *context, struct json_scan *s, enum json_key key, const char *at)
{
	struct include_reader *r = context;
	if (s->depth != 2 || key != JSON_STREAM_OPTIONS)
		return;
	r->options_other = *at != '{';
	r->options_null = false;
	r->options = at;
	r->flag = NULL;
	s->watched = s->depth;
}

static void on_include_string(void *context, struct json_scan *s, enum json_key key, const char *at, size_t length)
{
	struct include_reader *r = context;
	(void)at;
	(void)length;
	if (s->depth == 1 && key == JSON_STREAM_OPTIONS)
		r->options_other = true;
}

static void on_include_scalar(void *context, struct json_scan *s, enum json_key key, const char *at, size_t length)
{
	struct include_reader *r = context;
	if (s->depth == 1 && key == JSON_STREAM)
		r->stream = length == 4 && memcmp(at, "true", 4) == 0;
	if (s->depth == 1 && key == JSON_STREAM_OPTIONS) {
		r->options_null = length == 4 && memcmp(at, "null", 4) == 0;
		r->options_other = !r->options_null;
		r->options = at;
	}
	if (s->depth == s->watched && key == JSON_INCLUDE_USAGE) {
		r->flag = at;
		r->flag_length = length;
	}
}

static const struct json_reader include_reader = {
	.open = on_include_open,
	.string = on_include_string,
	.scalar = on_include_scalar,
};

static bool is_empty_object(const char *at, const char *end)
{
	do
		at++;
	while (at < end && (unsigned char)*at <= ' '); /* parsers are lenient about blanks */
	return at < end && *at == '}';
}

/* The body with `drop` bytes at `at` replaced by text. */
static bool splice(const char *body, size_t length, const char *at, size_t drop, const char *text, struct buf *out)
{
	struct buf changed = {0};
	const char *rest = at + drop;
	if (buf_reserve(&changed, length + strlen(text)) && buf_append(&changed, body, (size_t)(at - body)) &&
		buf_append(&changed, text, strlen(text)) && buf_append(&changed, rest, (size_t)(body + length - rest))) {
		*out = changed;
		return true;
	}
	buf_free(&changed);
	return false;
}

bool usage_request_include(const char *body, size_t length, struct buf *out)
{
	struct json_scan scan = {0};
	struct include_reader r = {0};
	const char *end = body + length;
	if (!is_object(body, length))
		return false;
	json_scan_feed(&scan, &include_reader, &r, body, length);
	if (scan.depth || !r.stream || r.options_other)
		return false;
	if (r.options_null)
		return splice(body, length, r.options, 4, "{\"include_usage\":true}", out);
	if (r.flag && r.flag_length == 4 && memcmp(r.flag, "true", 4) == 0)
		return false;
	if (r.flag)
		return splice(body, length, r.flag, r.flag_length, "true", out);
	if (r.options)
		return splice(body, length, r.options + 1, 0,
			is_empty_object(r.options, end) ? "\"include_usage\":true" : "\"include_usage\":true,", out);
	return splice(body, length, (const char *)memchr(body, '{', length) + 1, 0,
		"\"stream_options\":{\"include_usage\":true},", out);
}
