/* key_health: the health of vendor keys, which all nodes share in Redis (path/admission). No state; a
 * lane's thread. */
#include "admin/resource.h"

#include <cjson/cJSON.h>
#include <stdint.h>
#include <stdlib.h>
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

static const struct vendor_key *find(const struct snapshot *snapshot, const char *id)
{
	size_t index = snapshot_key_index(snapshot, id);
	return index == SIZE_MAX ? NULL : snapshot_key_at(snapshot, index);
}

/* As the workers have it; where they do not yet, one of its id and pool. */
static struct vendor_key known_or_named(const struct snapshot *snapshot, const cJSON *key)
{
	struct vendor_key named = {.id = text_of(key, "id"), .pool = text_of(key, "pool"), .secret = ""};
	const struct vendor_key *known = find(snapshot, named.id);
	return known && strcmp(known->pool, named.pool) == 0 ? *known : named;
}

/* Why no request can use the key, whatever its health; NULL: it can. */
static const char *unusable(const struct vendor_key *known, const cJSON *key)
{
	if (cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(key, "enabled")))
		return "disabled";
	return known->secret ? NULL : "The master key of this node does not open it.";
}

static void add(cJSON *key, const struct vendor_key *known, const struct admission_key_health *found)
{
	const char *why_not = unusable(known, key);
	cJSON *health = cJSON_AddObjectToObject(key, "health");
	cJSON_AddStringToObject(health, "state", why_not ? "disabled" : state_names[found->state]);
	add_until(health, why_not ? 0 : found->until_ms);
	cJSON_AddStringToObject(health, "reason", why_not ? why_not : found->reason);
}

/* What Redis says of each; NULL where it fails, or there is none. The caller frees. */
static struct admission_key_health *ask(struct admin *admin, const struct vendor_key *keys, size_t count)
{
	if (!count)
		return NULL;
	struct admission_key_health *healths = check_calloc(count, sizeof *healths);
	bool fine = admission_key_health(admin_redis_acquire(admin), keys, count, healths);
	admin_redis_release(admin);
	if (fine)
		return healths;
	free(healths);
	return NULL;
}

static size_t count_from(const cJSON *first)
{
	size_t count = 0;
	for (; first; first = first->next)
		count++;
	return count;
}

void key_health_add(const struct admin_request *request, struct cJSON *first)
{
	size_t count = count_from(first), i = 0;
	struct snapshot *snapshot = admin_snapshot(request);
	struct vendor_key *keys = check_calloc(count + 1, sizeof *keys);
	for (const cJSON *key = first; key; key = key->next)
		keys[i++] = known_or_named(snapshot, key);
	struct admission_key_health *healths = ask(request->admin, keys, count);
	i = 0;
	for (cJSON *key = first; key && healths; key = key->next, i++)
		add(key, &keys[i], &healths[i]);
	free(healths);
	free(keys);
	snapshot_unref(snapshot);
}

bool *key_health_idle(struct admin *admin, const struct snapshot *snapshot)
{
	size_t count = snapshot ? snapshot_key_count(snapshot) : 0;
	struct vendor_key *keys = check_calloc(count + 1, sizeof *keys);
	for (size_t i = 0; i < count; i++)
		keys[i] = *snapshot_key_at(snapshot, i);
	struct admission_key_health *healths = ask(admin, keys, count);
	bool *idle = healths ? check_calloc(count, sizeof *idle) : NULL;
	for (size_t i = 0; idle && i < count; i++)
		idle[i] = !healths[i].usable;
	free(healths);
	free(keys);
	return idle;
}

/* False: Redis failed. */
static bool reset(const struct admin_request *request, struct redis_sync *redis, const struct vendor_key *key)
{
	if (!admission_key_reset(redis, key))
		return false;
	admission_node_forget_key(request->admin->setup.admission, key);
	return true;
}

bool key_health_reset(const struct admin_request *request, const struct cJSON *key, struct admin_reply *reply)
{
	struct snapshot *snapshot = admin_snapshot(request);
	struct vendor_key named = known_or_named(snapshot, key);
	struct redis_sync *redis = admin_redis_acquire(request->admin);
	bool fine = reset(request, redis, &named);
	if (!fine)
		admin_reply_problem(reply, PROBLEM_REDIS_UNAVAILABLE, "Redis is not available: %s", redis_sync_error(redis));
	admin_redis_release(request->admin);
	snapshot_unref(snapshot);
	return fine;
}

void key_health_renew(const struct admin_request *request, const char *id, const struct cJSON *given)
{
	struct snapshot *snapshot = admin_snapshot(request);
	struct redis_sync *redis = admin_redis_acquire(request->admin);
	bool fine = true;
	for (; given && fine; given = given->next) {
		const char *named = id ? id : text_of(given, "id");
		const struct vendor_key *known =
			cJSON_GetObjectItemCaseSensitive(given, "key") ? find(snapshot, named) : NULL;
		fine = !known || reset(request, redis, known);
	}
	admin_redis_release(request->admin);
	snapshot_unref(snapshot);
}
