/* json_body: a request's body as JSON, strictly. No state; any thread.
 *
 * cJSON takes bytes that are no UTF-8, escapes for NUL (which cut a text short) and repeated names;
 * what is kept in Redis and shown to others must have none of them. */
#include "admin/admin.h"

#include <string.h>

#include <cjson/cJSON.h>

#include "base/text.h"

/* The first byte that is no text we keep, or NULL. */
static const char *bad_text(const char *body, size_t length)
{
	const char *end = body + length;
	for (const char *at = body; at < end;) {
		size_t step = *at ? text_utf8_length(at, (size_t)(end - at)) : 0;
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

static void syntax_error(struct admin_reply *reply, const char *what, const char *body, const char *at)
{
	unsigned line = 1, column = 1;
	for (const char *c = body; c < at; c++) {
		column = *c == '\n' ? 1 : column + 1;
		line += *c == '\n';
	}
	admin_reply_problem(reply, PROBLEM_BAD_REQUEST, "The body %s at line %u, column %u.", what, line, column);
}

static void wipe(cJSON *json)
{
	for (; json; json = json->next) {
		if (json->valuestring)
			explicit_bzero(json->valuestring, strlen(json->valuestring));
		wipe(json->child);
	}
}

void admin_json_free(struct cJSON *json)
{
	if (json)
		wipe(json->child);
	cJSON_Delete(json);
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
		syntax_error(reply, *bad == '\\' ? "has a NUL, which no text may hold," : "is not valid JSON", request->body,
			bad);
		return NULL;
	}
	cJSON *json = cJSON_ParseWithLengthOpts(request->body, request->length, &end, false);
	while (json && end < request->body + request->length && strchr(" \t\r\n", *end) && *end)
		end++;
	const char *name = NULL;
	if (!json || end != request->body + request->length)
		syntax_error(reply, "is not valid JSON", request->body, end);
	else if (!cJSON_IsObject(json))
		admin_reply_problem(reply, PROBLEM_BAD_REQUEST, "The body must be a JSON object.");
	else if ((name = repeated_name(json)))
		admin_reply_problem(reply, PROBLEM_BAD_REQUEST, "%s: stands more than once in an object.", name);
	else
		return json;
	admin_json_free(json);
	return NULL;
}
