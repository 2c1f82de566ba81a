/* json_body: a request's body as JSON, strictly; text that may be shown in JSON. No state; any thread.
 *
 * cJSON takes bytes that are no UTF-8, escapes for NUL (which cut a text short) and repeated names;
 * what is kept in Redis and shown to others must have none of them. */
#include "admin/admin.h"

#include <string.h>

#include <cjson/cJSON.h>

/* The length of the UTF-8 sequence at text, 0 where there is none (RFC 3629, section 4). */
static size_t utf8_sequence(const unsigned char *text, size_t left)
{
	/* clang-format off */
	static const struct { unsigned char low, high, second_low, second_high, length; } rows[] = {
		{0x00, 0x7f, 0, 0, 1},          {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
		{0xe1, 0xec, 0x80, 0xbf, 3},    {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
		{0xf0, 0xf0, 0x90, 0xbf, 4},    {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
	};
	/* clang-format on */
	for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
		if (text[0] < rows[row].low || text[0] > rows[row].high)
			continue;
		size_t length = rows[row].length;
		if (length > left || (length > 1 && (text[1] < rows[row].second_low || text[1] > rows[row].second_high)))
			return 0;
		for (size_t i = 2; i < length; i++)
			if ((text[i] & 0xc0) != 0x80)
				return 0;
		return length;
	}
	return 0;
}

void admin_text_scrub(char *text)
{
	size_t left = strlen(text), step;
	for (; left; text += step, left -= step)
		if ((step = utf8_sequence((const unsigned char *)text, left)) == 0) {
			*text = '?';
			step = 1;
		}
}

/* The first byte that is no text we keep, or NULL. */
static const char *bad_text(const char *body, size_t length)
{
	const char *end = body + length;
	for (const char *at = body; at < end;) {
		size_t step = *at ? utf8_sequence((const unsigned char *)at, (size_t)(end - at)) : 0;
		if (step == 0 || (end - at >= 6 && memcmp(at, "\\u0000", 6) == 0))
			return at;
		at += *at == '\\' && end - at > 1 && at[1] == '\\' ? 2 : step; /* an escaped backslash */
	}
	return NULL;
}

/* The name that stands twice in an object anywhere below json, or NULL. Objects with many fields
 * are not ours: the schema refuses them, so that looking at each pair stays cheap. */
static const char *repeated_name(const cJSON *json)
{
	enum { FIELDS_LOOKED_AT = 64 };
	for (const cJSON *child = json->child; child; child = child->next) {
		int looked_at = 0;
		if (cJSON_IsObject(json))
			for (const cJSON *earlier = json->child; earlier != child && looked_at++ < FIELDS_LOOKED_AT;
			     earlier = earlier->next)
				if (strcmp(earlier->string, child->string) == 0)
					return child->string;
		const char *below = repeated_name(child);
		if (below)
			return below;
	}
	return NULL;
}

static void syntax_error(struct admin_reply *reply, const char *body, const char *at)
{
	unsigned line = 1, column = 1;
	for (const char *c = body; c < at; c++) {
		column = *c == '\n' ? 1 : column + 1;
		line += *c == '\n';
	}
	admin_reply_problem(reply, PROBLEM_BAD_REQUEST, "The body is not valid JSON at line %u, column %u.", line, column);
}

struct cJSON *admin_request_json(const struct admin_request *request, struct admin_reply *reply)
{
	const char *end = NULL;
	if (request->length == 0) {
		admin_reply_problem(reply, PROBLEM_BAD_REQUEST, "The body is empty; a JSON object is expected.");
		return NULL;
	}
	const char *bad = bad_text(request->body, request->length);
	if (bad) {
		syntax_error(reply, request->body, bad);
		return NULL;
	}
	cJSON *json = cJSON_ParseWithLengthOpts(request->body, request->length, &end, false);
	while (json && end < request->body + request->length && strchr(" \t\r\n", *end) && *end)
		end++;
	const char *name = NULL;
	if (!json || end != request->body + request->length)
		syntax_error(reply, request->body, end);
	else if (!cJSON_IsObject(json))
		admin_reply_problem(reply, PROBLEM_BAD_REQUEST, "The body must be a JSON object.");
	else if ((name = repeated_name(json)))
		admin_reply_problem(reply, PROBLEM_BAD_REQUEST, "%s: stands more than once in an object.", name);
	else
		return json;
	cJSON_Delete(json);
	return NULL;
}
