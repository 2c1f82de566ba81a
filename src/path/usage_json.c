/* usage_json: a scanner that jumps. Between tokens it looks for quotes and brackets only, 64 bytes at
 * a time; in a string for the closing quote, by memchr. A key is a string that a colon follows, so commas
 * are never looked at. What a segment's end cuts is kept in `name`, if it may be a key or scalar at all.
 *
 * Invariant: each byte is looked at a bounded number of times, whatever the input. */
#include "path/usage_json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "path/usage_scan.h"

enum state {
	BETWEEN, /* tokens */
	STRING,
	AFTER, /* a string: is it a key? */
	VALUE, /* behind a colon */
	SCALAR,
};

/* ---- bytes ---- */

typedef signed char bytes16 __attribute__((vector_size(16), aligned(1), may_alias));

/* The first of the lanes that is set: 16 if none is. */
static inline unsigned first_lane(bytes16 lanes)
{
#ifdef __SSE2__
	typedef char lanes16 __attribute__((vector_size(16)));
	unsigned mask = (unsigned)__builtin_ia32_pmovmskb128((lanes16)lanes);
	return (unsigned)__builtin_ctz(mask | 1u << 16);
#else
	uint64_t halves[2];
	memcpy(halves, &lanes, sizeof halves);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	if (halves[0])
		return (unsigned)__builtin_ctzll(halves[0]) / 8;
	return halves[1] ? 8 + (unsigned)__builtin_ctzll(halves[1]) / 8 : 16;
#else
	if (halves[0])
		return (unsigned)__builtin_clzll(halves[0]) / 8;
	return halves[1] ? 8 + (unsigned)__builtin_clzll(halves[1]) / 8 : 16;
#endif
#endif
}

static inline bytes16 load(const char *at)
{
	bytes16 v;
	memcpy(&v, at, sizeof v);
	return v;
}

static inline bool is_blank(char c)
{
	return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* ---- names ---- */

static const struct {
	const char *name;
	char first;
} keys[JSON_KEY_COUNT] = {[JSON_NO_KEY] = {"", 0},
#define X(id, name) [JSON_##id] = {name, name[0]},
	JSON_KEY_TABLE(X)
#undef X
};

/* The keys of a length, so that most names cost one look. Ends with JSON_NO_KEY. */
/* clang-format off */
static const uint8_t by_length[JSON_NAME_MAX][5] = {
	[1] = {JSON_N},
	[4] = {JSON_TEXT},
	[5] = {JSON_USAGE, JSON_DELTA},
	[6] = {JSON_X_GROQ, JSON_STREAM},
	[7] = {JSON_MESSAGE, JSON_CONTENT, JSON_REFUSAL, JSON_BEST_OF},
	[8] = {JSON_RESPONSE, JSON_THINKING},
	[9] = {JSON_ARGUMENTS, JSON_REASONING},
	[10] = {JSON_MAX_TOKENS},
	[12] = {JSON_INPUT_TOKENS, JSON_PARTIAL_JSON},
	[13] = {JSON_USAGE_METADATA, JSON_PROMPT_TOKENS, JSON_OUTPUT_TOKENS, JSON_INCLUDE_USAGE},
	[14] = {JSON_STREAM_OPTIONS, JSON_CANDIDATE_COUNT},
	[15] = {JSON_MAX_OUTPUT_TOKENS_CAMEL, JSON_CANDIDATE_COUNT_SNAKE},
	[16] = {JSON_PROMPT_COUNT, JSON_GENERATION_CONFIG},
	[17] = {JSON_COMPLETION_TOKENS, JSON_REASONING_CONTENT, JSON_MAX_OUTPUT_TOKENS, JSON_GENERATION_CONFIG_SNAKE},
	[18] = {JSON_THOUGHTS_COUNT},
	[20] = {JSON_CANDIDATES_COUNT},
	[21] = {JSON_MAX_COMPLETION_TOKENS},
	[23] = {JSON_CACHE_READ, JSON_TOOL_PROMPT_COUNT},
	[27] = {JSON_CACHE_CREATION},
};
/* clang-format on */

static enum json_key find_key(const char *name, size_t length)
{
	for (const uint8_t *key = by_length[length]; *key; key++)
		if (keys[*key].first == name[0] && memcmp(keys[*key].name, name, length) == 0)
			return (enum json_key) * key;
	return JSON_NO_KEY;
}

/* Keeps what a segment's end cuts; NULL: longer than anything that is looked for. */
static const char *keep(struct json_scan *s, const char *at, size_t *length)
{
	if (!s->name_length)
		return at;
	if (*length + s->name_length >= JSON_NAME_MAX)
		return NULL;
	memcpy(s->name + s->name_length, at, *length);
	*length += s->name_length;
	return s->name;
}

static void keep_cut(struct json_scan *s, const char *at, size_t length)
{
	if (s->name_length + length >= JSON_NAME_MAX) {
		s->name_length = JSON_NAME_MAX;
		return;
	}
	memcpy(s->name + s->name_length, at, length);
	s->name_length = (uint8_t)(s->name_length + length);
}

/* ---- tokens ---- */

static void open_container(struct json_scan *s, const struct json_reader *reader, void *context, const char *at)
{
	enum json_key key = (enum json_key)s->key;
	if (s->depth == 0) {
		s->array_root = *at == '[';
		s->watched = 0;
	}
	if (s->depth <= JSON_LEVELS)
		s->path[s->depth] = (uint8_t)key;
	s->depth++;
	s->tokens++;
	s->key = JSON_NO_KEY;
	if (key != JSON_NO_KEY && reader->open)
		reader->open(context, s, key, at);
}

static void close_container(struct json_scan *s)
{
	if (s->depth == s->watched)
		s->watched = 0;
	if (s->depth)
		s->depth--;
	s->key = JSON_NO_KEY;
	s->tokens++;
}

/* The next one is mostly near. */
static inline const char *find_structural(const char *at, const char *end)
{
	if (end - at >= 16) {
		unsigned lane = first_lane((load(at) == '"') | (load(at) >= '['));
		if (lane < 16)
			return at + lane;
		at += 16;
	}
	return scan_structural(at, end);
}

static const char *take_between(struct json_scan *s, const struct json_reader *reader, void *context, const char *at,
	const char *end)
{
	at = find_structural(at, end);
	if (at == end)
		return at;
	switch (*at) {
	case '"':
		s->state = STRING;
		s->is_value = false;
		s->name_length = 0;
		break;
	case '{':
	case '[':
		open_container(s, reader, context, at);
		break;
	case '}':
	case ']':
		close_container(s);
		break;
	default:
		break;
	}
	return at + 1;
}

/* Is the number of backslashes that end here odd? `carried`: those before `start` were. */
static bool odd_backslashes(const char *start, const char *at, bool carried)
{
	const char *run = at;
	if (run > start && run[-1] != '\\')
		return false;
	while (run > start && run[-1] == '\\')
		run--;
	return (((at - run) & 1) != 0) != (run == start && carried);
}

static void end_string(struct json_scan *s, const char *at, size_t length)
{
	if (s->is_value) {
		s->state = BETWEEN;
		s->key = JSON_NO_KEY;
		return;
	}
	const char *name = s->name_length == JSON_NAME_MAX ? NULL : keep(s, at, &length);
	s->name_key = name && length && length < JSON_NAME_MAX ? (uint8_t)find_key(name, length) : JSON_NO_KEY;
	s->state = AFTER;
}

/* Most strings are short: a look at 16 bytes costs less than a call. */
static inline const char *find_quote(const char *at, const char *end)
{
	if (end - at >= 16) {
		unsigned lane = first_lane(load(at) == '"');
		if (lane < 16)
			return at + lane;
		at += 16;
	}
	return memchr(at, '"', (size_t)(end - at));
}

static const char *take_string(struct json_scan *s, const struct json_reader *reader, void *context, const char *at,
	const char *end)
{
	const char *quote = at;
	while ((quote = find_quote(quote, end)) && odd_backslashes(at, quote, s->odd_backslashes)) {
		s->tokens++;
		quote++;
	}
	const char *stop = quote ? quote : end;
	if (reader->string && (reader->all_strings || (s->is_value && s->key != JSON_NO_KEY)))
		reader->string(context, s, (enum json_key)(s->is_value ? s->key : JSON_NO_KEY), at, (size_t)(stop - at));
	if (quote) {
		s->tokens++;
		s->odd_backslashes = false;
		end_string(s, at, (size_t)(quote - at));
		return quote + 1;
	}
	s->odd_backslashes = odd_backslashes(at, end, s->odd_backslashes);
	if (!s->is_value)
		keep_cut(s, at, (size_t)(end - at));
	return end;
}

static const char *take_after(struct json_scan *s, const char *at, const char *end)
{
	while (at < end && is_blank(*at))
		at++;
	if (at == end)
		return at;
	if (*at != ':') {
		s->state = BETWEEN;
		return at;
	}
	s->key = s->name_key;
	s->state = VALUE;
	return at + 1;
}

static const char *take_value(struct json_scan *s, const char *at, const char *end)
{
	while (at < end && is_blank(*at))
		at++;
	if (at == end)
		return at;
	s->name_length = 0;
	if (*at == '"') {
		s->state = STRING;
		s->is_value = true;
		return at + 1;
	}
	s->state = s->key == JSON_NO_KEY || *at == '{' || *at == '[' ? BETWEEN : SCALAR;
	return at;
}

static const bool ends_scalar[256] = {
	[','] = true,
	['}'] = true,
	[']'] = true,
	['"'] = true,
	['{'] = true,
	['['] = true,
	[':'] = true,
	[' '] = true,
	['\t'] = true,
	['\r'] = true,
	['\n'] = true,
};

static const char *take_scalar(struct json_scan *s, const struct json_reader *reader, void *context, const char *at,
	const char *end)
{
	const char *stop = at;
	while (stop < end && !ends_scalar[(unsigned char)*stop])
		stop++;
	if (stop == end) {
		keep_cut(s, at, (size_t)(end - at));
		return end;
	}
	size_t length = (size_t)(stop - at);
	const char *text = s->name_length == JSON_NAME_MAX ? NULL : keep(s, at, &length);
	if (text && length < JSON_NAME_MAX && reader->scalar)
		reader->scalar(context, s, (enum json_key)s->key, text, length);
	s->key = JSON_NO_KEY;
	s->state = BETWEEN;
	return stop;
}

const char *json_scan_feed(struct json_scan *s, const struct json_reader *reader, void *context, const char *at,
	size_t length)
{
	const char *end = at + length;
	while (at < end) {
		/* Mostly one state leads to the next below. */
		switch ((enum state)s->state) {
		case BETWEEN:
			at = take_between(s, reader, context, at, end);
			if (s->depth < s->floor)
				return at;
			if (s->state != STRING || at == end)
				break;
			__attribute__((fallthrough));
		case STRING:
			at = take_string(s, reader, context, at, end);
			if (s->state != AFTER || at == end)
				break;
			__attribute__((fallthrough));
		case AFTER:
			at = take_after(s, at, end);
			if (s->state != VALUE || at == end)
				break;
			__attribute__((fallthrough));
		case VALUE:
			at = take_value(s, at, end);
			if (s->state != SCALAR || at == end)
				break;
			__attribute__((fallthrough));
		case SCALAR:
			at = take_scalar(s, reader, context, at, end);
			break;
		}
	}
	return end;
}

bool json_scan_may_leave(const struct json_scan *s)
{
	bool long_string = s->state == STRING && (s->is_value || s->name_length == JSON_NAME_MAX);
	return !s->watched && (s->state == BETWEEN || long_string);
}

/* With a fraction or an exponent: rare. */
static bool read_float(const char *at, size_t length, uint64_t *value)
{
	char text[JSON_NAME_MAX];
	char *end;
	if (length >= sizeof text || memchr(at, 'x', length) || memchr(at, 'X', length))
		return false;
	memcpy(text, at, length);
	text[length] = '\0';
	double number = ceil(strtod(text, &end));
	*value = number <= UINT32_MAX ? (uint64_t)number : JSON_NUMBER_BEYOND;
	return end == text + length;
}

bool json_number(const char *at, size_t length, uint64_t *value)
{
	uint64_t number = 0;
	size_t i = 0;
	for (; i < length && at[i] >= '0' && at[i] <= '9'; i++) {
		number = number * 10 + (uint64_t)(at[i] - '0');
		if (number > UINT32_MAX)
			number = JSON_NUMBER_BEYOND;
	}
	if (i && i < length)
		return read_float(at, length, value);
	*value = number;
	return i > 0;
}
