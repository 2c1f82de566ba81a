/* stats_report_json: the document that nodes leave for each other. What is read may come from a
 * newer version or from anyone who can write to Redis: each value is checked, the rest ignored. */
#include "state/stats_report.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#define EXACT_MAX 9007199254740992.0 /* 2^53: whole numbers up to it are exact in JSON */

static void add_number(cJSON *object, const char *name, double value)
{
	CHECK(cJSON_AddNumberToObject(object, name, value));
}

static cJSON *add_object(cJSON *object, const char *name)
{
	cJSON *child = cJSON_AddObjectToObject(object, name);
	CHECK(child);
	return child;
}

static void add_counts(cJSON *object, const struct stats_counts *counts)
{
#define X(name) add_number(object, #name, (double)counts->name);
	STATS_COUNTS(X)
#undef X
}

static void add_recent(cJSON *object, const struct stats_recent *recent)
{
	cJSON *child = add_object(object, "recent");
	char *latency = histogram_to_text(&recent->latency);
	add_number(child, "requests", (double)recent->requests);
	add_number(child, "errors", (double)recent->errors);
	add_number(child, "duration_us", (double)recent->duration_us);
	CHECK(cJSON_AddStringToObject(child, "latency", latency));
	free(latency);
}

static void add_history(cJSON *object, const struct stats_report *r)
{
	cJSON *seconds = cJSON_AddArrayToObject(object, "history");
	CHECK(seconds);
	for (int i = 0; i < STATS_WINDOW_SECONDS; i++) {
		const struct stats_second *figures = &r->history[i].figures;
		double row[] = {figures->requests, figures->errors, (double)figures->duration_us, (double)figures->p95_us};
		cJSON *second = cJSON_CreateDoubleArray(row, 4);
		CHECK(second);
		cJSON_AddItemToArray(seconds, second);
	}
	add_number(object, "history_from", (double)r->history[0].at);
}

static void add_endpoint(cJSON *list, const struct stats_report_endpoint *e)
{
	cJSON *object = cJSON_CreateObject();
	CHECK(object);
	CHECK(cJSON_AddStringToObject(object, "prefix", e->prefix));
	add_counts(object, &e->counts);
	add_recent(object, &e->recent);
	add_number(object, "active_requests", (double)e->active_requests);
	add_number(object, "last_request_ms", (double)e->last_request_ms);
	cJSON_AddItemToArray(list, object);
}

char *stats_report_to_json(const struct stats_report *r)
{
	cJSON *root = cJSON_CreateObject();
	CHECK(root);
	add_recent(root, &r->recent);
	add_number(root, "active_requests", (double)r->active_requests);
	add_number(root, "active_connections", (double)r->active_connections);
	add_number(root, "memory_bytes", r->memory_bytes);
	add_number(root, "cpu_percent", r->cpu_percent);
	add_history(root, r);
	cJSON *list = cJSON_AddArrayToObject(root, "endpoints");
	CHECK(list);
	for (size_t i = 0; i < r->endpoint_count; i++)
		add_endpoint(list, &r->endpoints[i]);
	char *text = cJSON_PrintUnformatted(root);
	CHECK(text);
	cJSON_Delete(root);
	return text;
}

/* From 0 to 2^53, else 0. */
static double value_of(const cJSON *item)
{
	double value = cJSON_IsNumber(item) ? item->valuedouble : 0;
	return value >= 0 && value <= EXACT_MAX ? value : 0;
}

static double number(const cJSON *object, const char *name)
{
	return value_of(cJSON_GetObjectItemCaseSensitive(object, name));
}

static bool read_recent(const cJSON *object, struct stats_recent *out)
{
	const cJSON *recent = cJSON_GetObjectItemCaseSensitive(object, "recent");
	const char *latency = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(recent, "latency"));
	out->requests = (uint64_t)number(recent, "requests");
	out->errors = (uint64_t)number(recent, "errors");
	out->duration_us = (uint64_t)number(recent, "duration_us");
	return latency && histogram_add_text(&out->latency, latency);
}

static void read_history(const cJSON *root, struct stats_report *out)
{
	const cJSON *seconds = cJSON_GetObjectItemCaseSensitive(root, "history");
	const cJSON *second = cJSON_IsArray(seconds) ? seconds->child : NULL;
	int64_t from = (int64_t)number(root, "history_from");
	for (int i = 0; i < STATS_WINDOW_SECONDS; i++, second = second ? second->next : NULL) {
		struct stats_second *figures = &out->history[i].figures;
		out->history[i].at = from + i;
		figures->requests = (uint32_t)(uint64_t)value_of(cJSON_GetArrayItem(second, 0));
		figures->errors = (uint32_t)(uint64_t)value_of(cJSON_GetArrayItem(second, 1));
		figures->duration_us = (uint64_t)value_of(cJSON_GetArrayItem(second, 2));
		figures->p95_us = (uint64_t)value_of(cJSON_GetArrayItem(second, 3));
	}
}

static bool read_endpoint(const cJSON *object, struct stats_report_endpoint *e)
{
	const char *prefix = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, "prefix"));
	if (!prefix)
		return false;
	e->prefix = check_strdup(prefix);
#define X(name) e->counts.name = (uint64_t)number(object, #name);
	STATS_COUNTS(X)
#undef X
	e->active_requests = (int64_t)number(object, "active_requests");
	e->last_request_ms = (int64_t)number(object, "last_request_ms");
	return read_recent(object, &e->recent);
}

static bool read_report(const cJSON *root, struct stats_report *out)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "endpoints");
	const cJSON *item;
	if (!cJSON_IsArray(list) || !read_recent(root, &out->recent))
		return false;
	out->active_requests = (int64_t)number(root, "active_requests");
	out->active_connections = (int64_t)number(root, "active_connections");
	out->memory_bytes = number(root, "memory_bytes");
	out->cpu_percent = number(root, "cpu_percent");
	read_history(root, out);
	out->endpoints = check_calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof *out->endpoints);
	cJSON_ArrayForEach(item, list) {
		if (!read_endpoint(item, &out->endpoints[out->endpoint_count++]))
			return false;
	}
	return true;
}

bool stats_report_from_json(struct stats_report *out, const char *json)
{
	memset(out, 0, sizeof *out);
	cJSON *root = cJSON_Parse(json);
	bool good = root && read_report(root, out);
	cJSON_Delete(root);
	if (!good)
		stats_report_fini(out);
	return good;
}
