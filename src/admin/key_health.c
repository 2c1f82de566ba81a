/* key_health: the health of vendor keys, which all nodes share in Redis (path/admission). No state; a
 * lane's thread. */
#include "admin/resource.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "path/admission.h"
#include "state/redis_sync.h"
#include "state/snapshot.h"

static const char *const state_names[] = {
	[ADMISSION_KEY_OK] = "ok",
	[ADMISSION_KEY_COOLING] = "cooling",
	[ADMISSION_KEY_TRIAL] = "trial",
};

static const char *text_of(const cJSON *object, const char *name)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
	return text ? text : "";
}

static void add_until(cJSON *health, int64_t until_ms)
{
	char text[CLOCK_TEXT_BYTES];
	if (until_ms && clock_format(text, until_ms + 999, false))
		cJSON_AddStringToObject(health, "until", text);
	else
		cJSON_AddNullToObject(health, "until");
}

/* Why no request can use the key, whatever its health; NULL: it can. */
static const char *unusable(const struct snapshot *snapshot, const cJSON *key)
{
	if (cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(key, "enabled")))
		return "disabled";
	for (size_t i = 0; i < snapshot_key_count(snapshot); i++) {
		const struct vendor_key *known = snapshot_key_at(snapshot, i);
		if (strcmp(known->id, text_of(key, "id")) == 0)
			return known->secret ? NULL : "The master key of this node does not open it.";
	}
	return NULL;
}

/* False: Redis failed. */
static bool add(struct redis_sync *redis, const struct snapshot *snapshot, cJSON *key)
{
	struct vendor_key named = {.id = text_of(key, "id"), .pool = text_of(key, "pool")};
	struct admission_key_health known;
	if (!admission_key_health(redis, &named, &known))
		return false;
	const char *why_not = unusable(snapshot, key);
	cJSON *health = cJSON_AddObjectToObject(key, "health");
	cJSON_AddStringToObject(health, "state", why_not ? "disabled" : state_names[known.state]);
	add_until(health, why_not ? 0 : known.until_ms);
	cJSON_AddStringToObject(health, "reason", why_not ? why_not : known.reason);
	return true;
}

void key_health_add(const struct admin_request *request, struct cJSON *key)
{
	struct snapshot *snapshot = admin_snapshot(request);
	struct redis_sync *redis = admin_redis_acquire(request->admin);
	while (key && add(redis, snapshot, key))
		key = key->next;
	admin_redis_release(request->admin);
	snapshot_unref(snapshot);
}

bool *key_health_cooling(struct admin *admin, const struct snapshot *snapshot)
{
	size_t count = snapshot ? snapshot_key_count(snapshot) : 0;
	if (!count)
		return NULL;
	bool *cooling = check_calloc(count, sizeof *cooling);
	struct redis_sync *redis = admin_redis_acquire(admin);
	bool fine = true;
	for (size_t i = 0; i < count && fine; i++) {
		struct admission_key_health health;
		fine = admission_key_health(redis, snapshot_key_at(snapshot, i), &health);
		cooling[i] = fine && health.state != ADMISSION_KEY_OK;
	}
	admin_redis_release(admin);
	return cooling;
}

bool key_health_reset(const struct admin_request *request, const struct cJSON *key, struct admin_reply *reply)
{
	struct vendor_key named = {.id = text_of(key, "id"), .pool = text_of(key, "pool")};
	struct redis_sync *redis = admin_redis_acquire(request->admin);
	bool fine = admission_key_reset(redis, &named);
	if (!fine)
		admin_reply_problem(reply, PROBLEM_REDIS_UNAVAILABLE, "Redis is not available: %s", redis_sync_error(redis));
	admin_redis_release(request->admin);
	return fine;
}
