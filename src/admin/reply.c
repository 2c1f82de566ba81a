/* reply: filling an answer. No state; any thread. */
#include "admin/admin.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/check.h"
#include "base/text.h"
#include "state/faults.h"

enum { LARGE_BYTES = 1 << 20 };

void admin_reply_free(struct admin_reply *reply)
{
	free(reply->body);
	for (size_t i = 0; i < reply->header_count; i++)
		free(reply->headers[i].value);
	*reply = (struct admin_reply){0};
}

void admin_reply_static(struct admin_reply *reply, unsigned status, const char *content_type, const char *data,
	size_t length)
{
	reply->status = status;
	reply->content_type = content_type;
	reply->static_body = data;
	reply->length = length;
}

void admin_reply_text(struct admin_reply *reply, unsigned status, const char *content_type, char *take_text)
{
	reply->status = status;
	reply->content_type = content_type;
	reply->body = take_text;
	reply->length = strlen(take_text);
}

void admin_reply_json(struct admin_reply *reply, unsigned status, struct cJSON *take_json)
{
	char *text = cJSON_PrintUnformatted(take_json);
	cJSON_Delete(take_json);
	/* It was made of a tree of many times that size, which the heap would keep for the next one. */
	if (text && strlen(text) > LARGE_BYTES)
		malloc_trim(0);
	if (text)
		admin_reply_text(reply, status, "application/json", text);
	else
		admin_reply_problem(reply, PROBLEM_OUT_OF_MEMORY, NULL);
}

void admin_reply_header(struct admin_reply *reply, const char *name, const char *format, ...)
{
	CHECK(reply->header_count < ADMIN_HEADERS_MAX);
	va_list arguments;
	va_start(arguments, format);
	reply->headers[reply->header_count].name = name;
	reply->headers[reply->header_count++].value = check_vprintf(format, arguments);
	va_end(arguments);
}

/* faults: NULL for none. A body that cannot be had is still an answer. */
static void error(struct admin_reply *reply, unsigned status, const char *code, char *message,
	const struct faults *faults)
{
	admin_reply_free(reply);
	text_scrub(message);
	cJSON *json = cJSON_CreateObject();
	cJSON *inner = cJSON_AddObjectToObject(json, "error");
	cJSON_AddStringToObject(inner, "code", code);
	cJSON_AddStringToObject(inner, "message", message);
	cJSON *list = faults ? cJSON_AddArrayToObject(inner, "faults") : NULL;
	for (size_t i = 0; list && i < faults->count; i++) {
		text_scrub(faults->items[i]);
		cJSON_AddItemToArray(list, cJSON_CreateString(faults->items[i]));
	}
	char *text = cJSON_PrintUnformatted(json);
	cJSON_Delete(json);
	static const char no_memory[] = "{\"error\":{\"code\":\"out_of_memory\",\"message\":\"Out of memory.\"}}";
	if (text)
		admin_reply_text(reply, status, "application/json", text);
	else
		admin_reply_static(reply, 503, "application/json", no_memory, sizeof no_memory - 1);
}

void admin_reply_error(struct admin_reply *reply, unsigned status, const char *code, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	char *message = check_vprintf(format, arguments);
	va_end(arguments);
	error(reply, status, code, message, NULL);
	free(message);
}

void admin_reply_problem(struct admin_reply *reply, enum problem_id id, const char *format, ...)
{
	const struct problem *problem = &problem_table[id];
	va_list arguments;
	va_start(arguments, format);
	char *message = format ? check_vprintf(format, arguments) : check_strdup(problem->message);
	va_end(arguments);
	error(reply, problem->status, problem->code, message, NULL);
	free(message);
}

void admin_reply_faults(struct admin_reply *reply, const struct faults *faults)
{
	const struct problem *problem = &problem_table[PROBLEM_BAD_REQUEST];
	char *message = faults_join(faults);
	error(reply, problem->status, problem->code, message, faults);
	free(message);
}

bool admin_query_is(const char *query, const char *name, const char *value)
{
	size_t name_length = strlen(name), value_length = strlen(value);
	for (const char *part = query; *part; part += *part == '&') {
		size_t length = strcspn(part, "&");
		if (length == name_length + 1 + value_length && memcmp(part, name, name_length) == 0 &&
			part[name_length] == '=' && memcmp(part + name_length + 1, value, value_length) == 0)
			return true;
		part += length;
	}
	return false;
}
