/* admission_control: what the control plane asks of Redis about admission: usage and the health of
 * vendor keys. Blocking, stateless, any thread. Reads the strings that the scripts write. */
#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cjson/cJSON.h>
#include <hiredis/hiredis.h>

#include "base/clock.h"
#include "path/admission_internal.h"
#include "state/redis_sync.h"

/* Fields of the scripts' string, counted from 0 (admission_window.lua). */
enum {
	FIELD_SUMS = 0,
	FIELD_FIRST = 3,
	FIELD_LAST = 4,
	FIELD_FIRST_AT = 5,
	FIELD_LAST_AT = 10,
	FIELD_DAY = 17,
	FIELD_DAY_SUMS = 18,
	FIELD_STATE = 16,
	FIELD_UNTIL = 17,
	FIELD_REASON = 20,
	FIELDS = 21,
	DAYS = 30,
	ASKED_AT_ONCE = 1000
};

static bool read_fields(const redisReply *reply, double fields[FIELDS])
{
	if (!reply || reply->type != REDIS_REPLY_STRING || reply->len < FIELDS * sizeof *fields)
		return false;
	for (size_t i = 0; i < FIELDS; i++) {
		uint64_t bits;
		memcpy(&bits, reply->str + i * sizeof bits, sizeof bits);
		bits = le64toh(bits);
		memcpy(&fields[i], &bits, sizeof bits);
	}
	return true;
}

static void add_sums(cJSON *to, const double sums[3])
{
	cJSON_AddNumberToObject(to, "requests", sums[0]);
	cJSON_AddNumberToObject(to, "input_tokens", sums[1]);
	cJSON_AddNumberToObject(to, "output_tokens", sums[2]);
}

static double little_endian(const char *bytes, int count)
{
	double value = 0;
	while (count--)
		value = value * 256 + (unsigned char)bytes[count];
	return value;
}

/* Takes what is no longer in the window off the sums; the events between the first and the last are
 * the list's, 22 bytes each: time (6), requests (4), input (6), output (6). */
static void take_off_expired(double fields[FIELDS], const redisReply *events, double edge)
{
	double *sums = fields + FIELD_SUMS;
	if (fields[FIELD_LAST] < fields[FIELD_FIRST] || fields[FIELD_LAST_AT] < edge) {
		sums[0] = sums[1] = sums[2] = 0;
		return;
	}
	if (fields[FIELD_LAST] == fields[FIELD_FIRST] || fields[FIELD_FIRST_AT] >= edge)
		return;
	for (int i = 0; i < 3; i++)
		sums[i] -= fields[FIELD_FIRST_AT + 1 + i];
	for (size_t e = 0; e < events->elements; e++) {
		const redisReply *event = events->element[e];
		if (event->type != REDIS_REPLY_STRING || event->len != 22 || little_endian(event->str, 6) >= edge)
			return;
		sums[0] -= little_endian(event->str + 6, 4);
		sums[1] -= little_endian(event->str + 10, 6);
		sums[2] -= little_endian(event->str + 16, 6);
	}
}

static void add_day(cJSON *days, long day, const double sums[3])
{
	char date[32];
	struct tm tm;
	time_t at = (time_t)day * 86400;
	gmtime_r(&at, &tm);
	strftime(date, sizeof date, "%Y-%m-%d", &tm);
	cJSON *json = cJSON_CreateObject();
	cJSON_AddStringToObject(json, "date", date);
	add_sums(json, sums);
	cJSON_AddItemToArray(days, json);
}

static void find_day(const redisReply *history, long day, double sums[3])
{
	for (size_t i = 0; i + 1 < history->elements; i += 2)
		if (atol(history->element[i]->str) == day)
			sscanf(history->element[i + 1]->str, "%lf %lf %lf", &sums[0], &sums[1], &sums[2]);
}

static cJSON *usage_json(double fields[FIELDS], const redisReply *events, const redisReply *history, double now_ms)
{
	long today = (long)(now_ms / 86400000);
	cJSON *json = cJSON_CreateObject();
	take_off_expired(fields, events, now_ms - ADMISSION_SPAN_MS);
	add_sums(cJSON_AddObjectToObject(json, "current"), fields + FIELD_SUMS);
	cJSON *days = cJSON_AddArrayToObject(json, "days");
	for (int back = 0; back < DAYS; back++) {
		double sums[3] = {0};
		find_day(history, today - back, sums);
		if ((long)fields[FIELD_DAY] == today - back)
			memcpy(sums, fields + FIELD_DAY_SUMS, sizeof sums);
		add_day(days, today - back, sums);
	}
	return json;
}

struct cJSON *admission_usage_json(struct redis_sync *redis, const struct subject *subject)
{
	char limit[ADMISSION_NAME_MAX], usage[ADMISSION_NAME_MAX];
	double fields[FIELDS] = {0};
	cJSON *json = NULL;
	admission_subject_key(subject, "limit", limit);
	admission_subject_key(subject, "usage", usage);
	redisReply *state = redis_sync_command(redis, "GET %s", limit);
	redisReply *events = state ? redis_sync_command(redis, "LRANGE %s:e 0 -1", limit) : NULL;
	redisReply *history = events ? redis_sync_command(redis, "HGETALL %s", usage) : NULL;
	redisReply *now = history ? redis_sync_command(redis, "TIME") : NULL;
	if (now && now->type == REDIS_REPLY_ARRAY && now->elements == 2) {
		if (!read_fields(state, fields))
			fields[FIELD_FIRST] = 1; /* nobody has met it: an empty window */
		json = usage_json(fields, events, history,
			atof(now->element[0]->str) * 1000 + atof(now->element[1]->str) / 1000);
	}
	freeReplyObject(state);
	freeReplyObject(events);
	freeReplyObject(history);
	freeReplyObject(now);
	return json;
}

/* ---- vendor keys ---- */

static void vendor_key_name(const struct vendor_key *key, char name[ADMISSION_NAME_MAX])
{
	snprintf(name, ADMISSION_NAME_MAX, "apiproxy:limit:{%s}:k:%s", key->pool, vendor_key_limit_id(key));
}

static bool read_health(const redisReply *reply, struct admission_key_health *health)
{
	double fields[FIELDS] = {0};
	*health = (struct admission_key_health){.usable = true};
	if (read_fields(reply, fields) && fields[FIELD_STATE] > 0) {
		/* what is over stays written until a request tries the key: the next one is the trial */
		health->usable = fields[FIELD_UNTIL] <= (double)clock_shared_ms();
		health->state = fields[FIELD_STATE] == 1 && !health->usable ? ADMISSION_KEY_COOLING : ADMISSION_KEY_TRIAL;
		health->until_ms = health->usable ? 0 : (int64_t)fields[FIELD_UNTIL];
		if (fields[FIELD_REASON] > 0)
			snprintf(health->reason, sizeof health->reason, "status %.0f", fields[FIELD_REASON]);
		else
			snprintf(health->reason, sizeof health->reason, "connection failure");
	}
	return reply->type != REDIS_REPLY_ERROR;
}

/* All are asked before the first answer is read. */
static bool ask_health(struct redis_sync *redis, const struct vendor_key *keys, size_t count,
	struct admission_key_health *healths)
{
	char name[ADMISSION_NAME_MAX];
	bool fine = true;
	for (size_t i = 0; i < count; i++) {
		vendor_key_name(&keys[i], name);
		if (!redis_sync_append(redis, "GET %s", name))
			return false;
	}
	for (size_t i = 0; i < count; i++) {
		redisReply *reply = redis_sync_read(redis);
		if (!reply)
			return false;
		fine = read_health(reply, &healths[i]) && fine; /* all are read: the connection stays in step */
		freeReplyObject(reply);
	}
	return fine;
}

bool admission_key_health(struct redis_sync *redis, const struct vendor_key *keys, size_t count,
	struct admission_key_health *healths)
{
	bool fine = redis_sync_connect(redis);
	for (size_t at = 0; at < count && fine; at += ASKED_AT_ONCE)
		fine = ask_health(redis, keys + at, count - at < ASKED_AT_ONCE ? count - at : ASKED_AT_ONCE, healths + at);
	return fine;
}

/* The string also holds the key's window: only its health is wiped. */
bool admission_key_reset(struct redis_sync *redis, const struct vendor_key *key)
{
	static const char script[] =
		"local s = redis.call('GET', KEYS[1]) "
		"if s and #s >= 168 then redis.call('SETRANGE', KEYS[1], 128, string.rep('\\0', 40)) end return 1";
	char name[ADMISSION_NAME_MAX];
	vendor_key_name(key, name);
	redisReply *reply = redis_sync_command(redis, "EVAL %s 1 %s", script, name);
	bool fine = reply && reply->type == REDIS_REPLY_INTEGER;
	freeReplyObject(reply);
	return fine;
}
