/* resource: mappings, vendor keys, clients and users, one set of verbs for the four of them.
 * state/store does the work; here its results become answers. No state; a lane's thread. */
#include "admin/resource.h"

#include <cjson/cJSON.h>
#include <stdlib.h>

#include "base/check.h"
#include "ops/watcher.h"
#include "state/journal.h"

void resource_fail(struct admin_reply *reply, enum store_result result, struct faults *faults)
{
	if (result == STORE_INVALID) {
		admin_reply_faults(reply, faults);
	} else {
		char *why = faults_join(faults);
		if (result == STORE_UNAVAILABLE)
			journal_add("redis", "a change or look over the API failed: %s", why);
		if (result == STORE_EXISTS)
			admin_reply_error(reply, 409, "conflict", "%s", why);
		else
			admin_reply_problem(reply, result == STORE_MISSING ? PROBLEM_NO_MAPPING : PROBLEM_REDIS_UNAVAILABLE, "%s",
				why);
		free(why);
	}
	faults_fini(faults);
}

void resource_changed(const struct admin_request *request)
{
	/* Where Redis went away meanwhile, the watcher takes the change over as soon as it is back. */
	(void)watcher_reload_now(request->admin->setup.watcher);
}

/* The id that the path names; a prefix gets its slash back. Caller frees. */
static char *path_id(const struct admin_request *request)
{
	return check_printf("%s%s", request->detail == SCHEMA_MAPPING ? "/" : "", request->tail);
}

static void reply_object(const struct admin_request *request, struct admin_reply *reply, unsigned status,
	cJSON *take_object)
{
	if (request->detail == SCHEMA_KEY)
		key_health_add(request, take_object);
	admin_reply_json(reply, status, take_object);
}

static void reply_changed(const struct admin_request *request, struct admin_reply *reply, unsigned status,
	const cJSON *given, cJSON *take_object)
{
	resource_changed(request);
	if (request->detail == SCHEMA_KEY)
		key_health_renew(request, cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(take_object, "id")), given);
	reply_object(request, reply, status, take_object);
}

void resource_list(const struct admin_request *request, struct admin_reply *reply)
{
	struct faults faults = {0};
	cJSON *array = NULL;
	enum store_result result = store_list(request->admin->setup.store, request->detail, &array, &faults);
	if (result != STORE_OK) {
		resource_fail(reply, result, &faults);
		return;
	}
	if (request->detail == SCHEMA_KEY)
		key_health_add(request, array->child);
	cJSON *json = cJSON_CreateObject();
	cJSON_AddItemToObject(json, schema_infos[request->detail].section, array);
	cJSON_AddNumberToObject(json, "count", cJSON_GetArraySize(array));
	admin_reply_json(reply, 200, json);
}

void resource_create(const struct admin_request *request, struct admin_reply *reply)
{
	struct faults faults = {0};
	cJSON *object = NULL, *input = admin_request_json(request, reply);
	if (!input)
		return;
	enum store_result result = store_create(request->admin->setup.store, request->detail, input, &object, &faults);
	if (result == STORE_OK)
		reply_changed(request, reply, 201, input, object);
	else
		resource_fail(reply, result, &faults);
	admin_json_free(input);
}

void resource_get(const struct admin_request *request, struct admin_reply *reply)
{
	struct faults faults = {0};
	cJSON *object = NULL;
	char *id = path_id(request);
	enum store_result result = store_get(request->admin->setup.store, request->detail, id, &object, &faults);
	free(id);
	if (result == STORE_OK)
		reply_object(request, reply, 200, object);
	else
		resource_fail(reply, result, &faults);
}

void resource_update(const struct admin_request *request, struct admin_reply *reply)
{
	struct faults faults = {0};
	cJSON *object = NULL, *patch = admin_request_json(request, reply);
	if (!patch)
		return;
	char *id = path_id(request);
	enum store_result result =
		store_update(request->admin->setup.store, request->detail, id, patch, &object, &faults);
	free(id);
	if (result == STORE_OK)
		reply_changed(request, reply, 200, patch, object);
	else
		resource_fail(reply, result, &faults);
	admin_json_free(patch);
}

void resource_delete(const struct admin_request *request, struct admin_reply *reply)
{
	struct faults faults = {0};
	char *id = path_id(request);
	enum store_result result = store_delete(request->admin->setup.store, request->detail, id, &faults);
	free(id);
	if (result != STORE_OK) {
		resource_fail(reply, result, &faults);
		return;
	}
	resource_changed(request);
	reply->status = 204;
}

void resource_rotate(const struct admin_request *request, struct admin_reply *reply)
{
	struct faults faults = {0};
	cJSON *object = NULL;
	enum store_result result = store_rotate(request->admin->setup.store, request->tail, &object, &faults);
	if (result != STORE_OK) {
		resource_fail(reply, result, &faults);
		return;
	}
	resource_changed(request);
	admin_reply_json(reply, 200, object);
}

void resource_reset(const struct admin_request *request, struct admin_reply *reply)
{
	struct faults faults = {0};
	cJSON *key = NULL;
	enum store_result result = store_get(request->admin->setup.store, SCHEMA_KEY, request->tail, &key, &faults);
	if (result != STORE_OK) {
		resource_fail(reply, result, &faults);
		return;
	}
	resource_changed(request); /* by another node, it may be */
	if (key_health_reset(request, key, reply))
		reply_object(request, reply, 200, key);
	else
		cJSON_Delete(key);
}
