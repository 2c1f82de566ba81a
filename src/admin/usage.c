/* usage: what a client or user has used, as admission keeps it in Redis. No state; a lane's thread. */
#include "admin/admin.h"

#include <cjson/cJSON.h>

#include "path/admission.h"
#include "state/redis_sync.h"
#include "state/schema.h"
#include "state/snapshot.h"

void usage_get(const struct admin_request *request, struct admin_reply *reply)
{
	const struct schema_info *info = &schema_infos[request->detail];
	struct snapshot *snapshot = admin_snapshot(request);
	const struct subject *subject = request->detail == SCHEMA_USER ? snapshot_user(snapshot, request->tail)
								       : snapshot_client(snapshot, request->tail);
	if (!subject) {
		admin_reply_problem(reply, PROBLEM_NO_MAPPING, "There is no %s \"%s\".", info->name, request->tail);
		snapshot_unref(snapshot);
		return;
	}
	struct redis_sync *redis = admin_redis_acquire(request->admin);
	cJSON *json = admission_usage_json(redis, subject);
	if (json) {
		cJSON_AddStringToObject(json, info->id_field, subject->id);
		admin_reply_json(reply, 200, json);
	} else {
		admin_reply_problem(reply, PROBLEM_REDIS_UNAVAILABLE, "Redis is not available: %s", redis_sync_error(redis));
	}
	admin_redis_release(request->admin);
	snapshot_unref(snapshot);
}
