/* config: the whole configuration as one document, to read and to replace. No state; a lane's thread. */
#include "admin/resource.h"

#include <cjson/cJSON.h>

void config_get(const struct admin_request *request, struct admin_reply *reply)
{
	struct faults faults = {0};
	cJSON *document = NULL;
	enum store_result result = store_export(request->admin->setup.store, &document, &faults);
	if (result == STORE_OK)
		admin_reply_json(reply, 200, document);
	else
		resource_fail(reply, result, &faults);
}

void config_put(const struct admin_request *request, struct admin_reply *reply)
{
	struct faults faults = {0};
	cJSON *result_document = NULL, *document = admin_request_json(request, reply);
	if (!document)
		return;
	enum store_result result = store_replace_all(request->admin->setup.store, document, &result_document, &faults);
	if (result == STORE_OK) {
		const cJSON *keys = cJSON_GetObjectItemCaseSensitive(document, "keys");
		resource_changed(request);
		key_health_renew(request, NULL, keys->child);
		admin_reply_json(reply, 200, result_document);
	} else {
		resource_fail(reply, result, &faults);
	}
	admin_json_free(document);
}
