/* usage: what a client or user has used, as admission keeps it in Redis. No state; a lane's thread.
 *
 *   {"id" or "username", "current":{"requests","input_tokens","output_tokens"} of the last 60 s,
 *    "limits":{the same}, "days":[{"date","requests","input_tokens","output_tokens"} x 30, newest first]} */
#include "admin/admin.h"

#include <cjson/cJSON.h>

#include "path/admission.h"
#include "state/redis_sync.h"
#include "state/schema.h"
#include "state/snapshot.h"

/* The limits that "current" counts against; 0: none. */
static void add_limits(cJSON *json, const struct limits *limits)
{
	cJSON *object = cJSON_AddObjectToObject(json, "limits");
	cJSON_AddNumberToObject(object, "requests", (double)limits->rpm);
	cJSON_AddNumberToObject(object, "input_tokens", (double)limits->input_tpm);
	cJSON_AddNumberToObject(object, "output_tokens", (double)limits->output_tpm);
}

void usage_get(const struct admin_request *request, struct admin_reply *reply)
{
	const struct schema_info *info = &schema_infos[request->detail];
	struct snapshot *snapshot = admin_snapshot(request);
	const struct subject *subject = request->detail == SCHEMA_USER ? snapshot_user(snapshot, request->tail) :
																	 snapshot_client(snapshot, request->tail);
	if (!subject) {
		admin_reply_problem(reply, PROBLEM_NO_MAPPING, "There is no %s \"%s\".", info->name, request->tail);
		snapshot_unref(snapshot);
		return;
	}
	struct redis_sync *redis = admin_redis_acquire(request->admin);
	cJSON *json = admission_usage_json(redis, subject);
	if (json) {
		cJSON_AddStringToObject(json, info->id_field, subject->id);
		add_limits(json, &subject->limits);
		admin_reply_json(reply, 200, json);
	} else {
		admin_reply_problem(reply, PROBLEM_REDIS_UNAVAILABLE, "Redis is not available: %s", redis_sync_error(redis));
	}
	admin_redis_release(request->admin);
	snapshot_unref(snapshot);
}
