/* json: a strict look at the text, then cJSON. */
#include "state/json.h"

#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/check.h"
#include "base/text.h"

static const char nul_escape[] = "\\u0000", nul_mark[] = "\xc0\x80";

struct scan {
	const char *at, *end; /* at: where it is no JSON, once a function has returned false */
	bool nul;             /* an escape for NUL was seen */
};

static bool is_next(const struct scan *s, char c)
{
	return s->at < s->end && *s->at == c;
}

static bool eat(struct scan *s, char c)
{
	bool found = is_next(s, c);
	s->at += found;
	return found;
}

static void skip_white(struct scan *s)
{
	while (is_next(s, ' ') || is_next(s, '\t') || is_next(s, '\n') || is_next(s, '\r'))
		s->at++;
}

static bool literal(struct scan *s, const char *word)
{
	while (*word)
		if (!eat(s, *word++))
			return false;
	return true;
}

static bool digits(struct scan *s)
{
	const char *first = s->at;
	while (s->at < s->end && *s->at >= '0' && *s->at <= '9')
		s->at++;
	return s->at > first;
}

static bool number(struct scan *s)
{
	eat(s, '-');
	if (!eat(s, '0') && !digits(s))
		return false;
	if (eat(s, '.') && !digits(s))
		return false;
	if (!eat(s, 'e') && !eat(s, 'E'))
		return true;
	if (!eat(s, '+'))
		eat(s, '-');
	return digits(s);
}

static bool hex4(struct scan *s, unsigned *value)
{
	*value = 0;
	for (int i = 0; i < 4; i++, s->at++) {
		int digit = s->at < s->end ? text_hex_digit(*s->at) : -1;
		if (digit < 0)
			return false;
		*value = *value << 4 | (unsigned)digit;
	}
	return true;
}

/* Behind the backslash. Surrogates come in pairs. */
static bool escape(struct scan *s)
{
	unsigned unit, low = 0;
	if (!eat(s, 'u')) {
		bool known = s->at < s->end && *s->at && strchr("\"\\/bfnrt", *s->at);
		s->at += known;
		return known;
	}
	if (!hex4(s, &unit))
		return false;
	s->nul |= unit == 0;
	if (unit < 0xd800 || unit > 0xdfff)
		return true;
	return unit < 0xdc00 && eat(s, '\\') && eat(s, 'u') && hex4(s, &low) && low >= 0xdc00 && low <= 0xdfff;
}

static bool string(struct scan *s)
{
	if (!eat(s, '"'))
		return false;
	while (s->at < s->end && (unsigned char)*s->at >= ' ') {
		if (eat(s, '"'))
			return true;
		if (eat(s, '\\')) {
			if (!escape(s))
				return false;
			continue;
		}
		size_t length = text_utf8_length(s->at, (size_t)(s->end - s->at));
		if (!length)
			return false;
		s->at += length;
	}
	return false;
}

static bool value(struct scan *s, int depth);

static bool members(struct scan *s, char close, int depth)
{
	skip_white(s);
	if (eat(s, close))
		return true;
	do {
		skip_white(s);
		if (close == '}') {
			if (!string(s))
				return false;
			skip_white(s);
			if (!eat(s, ':'))
				return false;
		}
		if (!value(s, depth))
			return false;
		skip_white(s);
	} while (eat(s, ','));
	return eat(s, close);
}

static bool value(struct scan *s, int depth)
{
	skip_white(s);
	if (is_next(s, '{') || is_next(s, '[')) {
		if (depth >= CJSON_NESTING_LIMIT)
			return false;
		return members(s, *s->at++ == '{' ? '}' : ']', depth + 1);
	}
	return is_next(s, '"') ? string(s) :
		is_next(s, 't')    ? literal(s, "true") :
		is_next(s, 'f')    ? literal(s, "false") :
		is_next(s, 'n')    ? literal(s, "null") :
							 number(s);
}

static bool is_json(struct scan *s)
{
	static const char byte_order_mark[] = "\xef\xbb\xbf";
	size_t mark = sizeof byte_order_mark - 1;
	if ((size_t)(s->end - s->at) >= mark && memcmp(s->at, byte_order_mark, mark) == 0)
		s->at += mark;
	if (!value(s, 0))
		return false;
	skip_white(s);
	return s->at == s->end;
}

/* A copy of what is JSON with each escape for NUL as its mark. */
static char *marked(const char *text, size_t length, size_t *marked_length)
{
	char *copy = check_calloc(1, length + 1), *out = copy;
	for (size_t i = 0; i < length;) {
		if (length - i >= sizeof nul_escape - 1 && memcmp(text + i, nul_escape, sizeof nul_escape - 1) == 0) {
			out = mempcpy(out, nul_mark, sizeof nul_mark - 1);
			i += sizeof nul_escape - 1;
			continue;
		}
		if (text[i] == '\\') /* with what it escapes, which may be a backslash */
			*out++ = text[i++];
		*out++ = text[i++];
	}
	*marked_length = (size_t)(out - copy);
	return copy;
}

struct cJSON *json_parse(const char *text, size_t length, const char **end)
{
	struct scan s = {.at = text, .end = text + length};
	bool fine = is_json(&s);
	if (end)
		*end = s.at;
	if (!fine)
		return NULL;
	if (!s.nul)
		return cJSON_ParseWithLengthOpts(text, length, end, false);
	size_t copied;
	char *copy = marked(text, length, &copied);
	cJSON *json = cJSON_ParseWithLength(copy, copied);
	explicit_bzero(copy, length);
	free(copy);
	return json;
}

bool json_has_nul(const char *string)
{
	return strstr(string, nul_mark) != NULL;
}
