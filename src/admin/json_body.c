/* json_body: a request's body as JSON, strictly (state/json). No state; any thread. */
#include "admin/admin.h"

#include <string.h>

#include <cjson/cJSON.h>

#include "state/json.h"

static void syntax_error(struct admin_reply *reply, const char *body, const char *at)
{
	unsigned line = 1, column = 1;
	for (const char *c = body; c < at; c++) {
		column = *c == '\n' ? 1 : column + 1;
		line += *c == '\n';
	}
	admin_reply_problem(reply, PROBLEM_BAD_REQUEST, "The body is not valid JSON at line %u, column %u.", line,
		column);
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
	cJSON *json = json_parse(request->body, request->length, &end);
	if (cJSON_IsObject(json))
		return json;
	if (json)
		admin_reply_problem(reply, PROBLEM_BAD_REQUEST, "The body must be a JSON object.");
	else
		syntax_error(reply, request->body, end);
	admin_json_free(json);
	return NULL;
}
