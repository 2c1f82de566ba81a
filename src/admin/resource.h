/* resource: what the files of the REST resources share. Layer-private. */
#ifndef APIPROXY_ADMIN_RESOURCE_H
#define APIPROXY_ADMIN_RESOURCE_H

#include "admin/admin.h"
#include "state/faults.h"
#include "state/store.h"

struct snapshot;

/* Answers for a store that did not do it: 400, 404, 409 or 503 with its faults, which are freed. */
void resource_fail(struct admin_reply *reply, enum store_result result, struct faults *faults);

/* Makes a change hold for this node before it is answered. */
void resource_changed(const struct admin_request *request);

/* "health":{"state","until","reason"} added to a vendor key (API form) and those after it in its
 * array; NULL is fine. Left out where Redis fails: what was asked for is not worth failing for it. */
void key_health_add(const struct admin_request *request, struct cJSON *first);

/* Ends a vendor key's cooling; false: reply says why not. */
bool key_health_reset(const struct admin_request *request, const struct cJSON *key, struct admin_reply *reply);

/* What was given for a vendor key (id NULL: for each of an array, NULL is fine): where it brings a secret, the key starts
 * anew, also with one it had before. After resource_changed(). A Redis that fails meanwhile leaves it as it is. */
void key_health_renew(const struct admin_request *request, const char *id, const struct cJSON *given);

/* Which vendor keys no request may use, for their health, by their index in the snapshot; NULL where Redis fails or
 * there is none. The caller frees. */
bool *key_health_idle(struct admin *admin, const struct snapshot *snapshot);

#endif
