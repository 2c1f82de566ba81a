/* schema: which fields a mapping, vendor key, client and user has; one table, from which everything
 * else follows: checking what comes through the API, reading what is found in Redis, merging a PUT,
 * writing for the API and for Redis, filling the structs of state/snapshot.h.
 *
 * An "entry" is a cJSON object that has passed: known fields only, right types, no null. It holds
 * what was said, defaults left out or not. Secrets in an entry are in their stored form:
 *   key     "key_encrypted" (state/secrets), or "key" in plain text just before it is sealed
 *   client  "key_sha256" (64 hex digits, lower case)
 *   user    "password_hash" (crypt(3)), or "password" in plain text just before it is hashed
 * Source: docs/api.md. No state; any thread. */
#ifndef APIPROXY_STATE_SCHEMA_H
#define APIPROXY_STATE_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>

struct arena;
struct cJSON;
struct faults;

enum schema_kind { SCHEMA_MAPPING, SCHEMA_KEY, SCHEMA_CLIENT, SCHEMA_USER, SCHEMA_KINDS };

struct schema_info {
	const char *name;     /* "mapping", "key", "client", "user" */
	const char *section;  /* "mappings", … : in a document and in the REST paths */
	const char *redis;    /* "apiproxy:mappings", … */
	const char *id_field; /* "prefix", "id", "id", "username" */
};

extern const struct schema_info schema_infos[SCHEMA_KINDS];

/* What the API sent for a new entry -> an entry; NULL with every fault added. place: "" or "mappings[3]".
 * Unknown fields, repeated fields and wrong types are faults; null is as good as absent. Secrets
 * that must be there are the store's business (it knows what is stored). */
struct cJSON *schema_create(enum schema_kind kind, const struct cJSON *input, const char *place,
	struct faults *faults);

/* PUT: what is left out keeps its value, null unsets (but no secret), objects merge field by field;
 * the id may be repeated but not changed. */
struct cJSON *schema_merge(enum schema_kind kind, const struct cJSON *entry, const struct cJSON *patch,
	const char *place, struct faults *faults);

/* A field and value of the hash in Redis -> an entry with its id; unknown fields are ignored. */
struct cJSON *schema_from_redis(enum schema_kind kind, const char *field, const char *value, size_t length,
	struct faults *faults);

/* An entry -> the value for Redis: the bare target where a mapping says no more. stored: the value
 * that it replaces, or NULL; what a newer version has put there stays. Caller frees. */
char *schema_to_redis(enum schema_kind kind, const struct cJSON *entry, const char *stored);

/* An entry -> what the API shows: every field in force, optional ones where set, never a secret. */
struct cJSON *schema_to_api(enum schema_kind kind, const struct cJSON *entry);

const char *schema_id(enum schema_kind kind, const struct cJSON *entry);

/* An entry -> struct mapping, vendor_key or subject (state/snapshot.h), zeroed by the caller. Pools,
 * slots and the vendor key's secret are not filled. */
void schema_decode(enum schema_kind kind, const struct cJSON *entry, struct arena *arena, void *out);

#endif
