/* schema_fields: what a mapping, vendor key, client and user consist of. */
#include "state/schema_fields.h"

#include <string.h>

#include <cjson/cJSON.h>

#include "base/arena.h"
#include "state/rules.h"
#include "state/snapshot.h"

#define IN(type, member) .offset = offsetof(struct type, member), .size = sizeof(((struct type *)0)->member)
#define LIMIT_MAX 1e12
#define SECONDS_MAX 604800 /* a week */

/* clang-format off */
const struct schema_info schema_infos[SCHEMA_KINDS] = {
	[SCHEMA_MAPPING] = { "mapping", "mappings", "apiproxy:mappings", "prefix" },
	[SCHEMA_KEY] = { "key", "keys", "apiproxy:keys", "id" },
	[SCHEMA_CLIENT] = { "client", "clients", "apiproxy:clients", "id" },
	[SCHEMA_USER] = { "user", "users", "apiproxy:users", "username" },
};

static const char *const dialects[] = {
	[DIALECT_OPENAI] = "openai", [DIALECT_ANTHROPIC] = "anthropic", [DIALECT_GEMINI] = "gemini", NULL
};
static const char *const auths[] = { "none", "required", NULL };
/* clang-format on */

static bool is_domain(const char *host, const char *domain)
{
	size_t length = strlen(host), suffix = strlen(domain);
	return length >= suffix && strcasecmp(host + length - suffix, domain) == 0 &&
		(length == suffix || host[length - suffix - 1] == '.');
}

static double derive_dialect(const struct cJSON *entry)
{
	const char *url = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "target"));
	struct arena *arena = arena_new();
	struct target target;
	enum dialect_id dialect = DIALECT_OPENAI;
	if (url && !rules_parse_target(url, arena, &target))
		dialect = is_domain(target.host, "anthropic.com") ? DIALECT_ANTHROPIC :
			is_domain(target.host, "googleapis.com")      ? DIALECT_GEMINI :
															DIALECT_OPENAI;
	arena_free(arena);
	return dialect;
}

/* clang-format off */
static const struct field queue_fields[] = {
	{ "rate_per_second", FIELD_NUMBER, FIELD_REQUIRED, .min = 0.001, .max = 1e6, IN(mapping, queue_rate_per_second) },
	{ "capacity", FIELD_UINT, 0, .max = 1e6, .fallback = 20, IN(mapping, queue_capacity) },
	{ "timeout_seconds", FIELD_SECONDS, 0, .max = SECONDS_MAX, .fallback = 5, IN(mapping, queue_timeout_ms) },
	{ .name = NULL },
};

static const struct field mapping_fields[] = {
	{ "prefix", FIELD_STRING, FIELD_REQUIRED | FIELD_ID | FIELD_HASH_KEY, .check = rules_check_prefix, IN(mapping, prefix) },
	{ "target", FIELD_STRING, FIELD_REQUIRED, .check = rules_check_target }, /* schema_decode() splits it */
	{ "dialect", FIELD_CHOICE, 0, .choices = dialects, .derive = derive_dialect, IN(mapping, dialect) },
	{ "auth", FIELD_CHOICE, 0, .choices = auths, IN(mapping, auth_required) },
	{ "pool", FIELD_STRING, FIELD_OPTIONAL, .check = rules_check_id, IN(mapping, pool_name) },
	{ "timeout_seconds", FIELD_SECONDS, 0, .max = SECONDS_MAX, IN(mapping, timeout_ms) },
	{ "connect_timeout_seconds", FIELD_SECONDS, 0, .max = SECONDS_MAX, .fallback = 10, IN(mapping, connect_timeout_ms) },
	{ "queue", FIELD_OBJECT, FIELD_OPTIONAL, .fields = queue_fields, IN(mapping, has_queue) },
	{ "key_header", FIELD_STRING, FIELD_OPTIONAL, .check = rules_check_header, IN(mapping, key_header) },
	{ "reserve_output_tokens", FIELD_UINT, 0, .max = LIMIT_MAX, IN(mapping, reserve_output_tokens) },
	{ "max_body_bytes", FIELD_UINT, 0, .max = 1e15, IN(mapping, max_body_bytes) },
	{ "include_usage", FIELD_BOOL, 0, IN(mapping, include_usage) },
	{ "enabled", FIELD_BOOL, 0, .fallback = true, IN(mapping, enabled) },
	{ "description", FIELD_STRING, 0, .max = 4096, .check = rules_check_text, IN(mapping, description) },
	{ .name = NULL },
};

static const struct field key_fields[] = {
	{ "id", FIELD_STRING, FIELD_ID | FIELD_GENERATED | FIELD_HASH_KEY, .check = rules_check_id, IN(vendor_key, id) },
	{ "pool", FIELD_STRING, FIELD_REQUIRED, .check = rules_check_id, IN(vendor_key, pool) },
	{ "key", FIELD_STRING, FIELD_WRITE_ONLY, .check = rules_check_secret },
	{ "key_encrypted", FIELD_STRING, FIELD_STORED_ONLY, .check = rules_check_text },
	{ "key_hint", FIELD_STRING, FIELD_READ_ONLY, .max = 0 },
	{ "health", FIELD_OBJECT, FIELD_READ_ONLY, .max = 0 },
	{ "weight", FIELD_UINT, 0, .min = 1, .max = 1e6, .fallback = 1, IN(vendor_key, weight) },
	{ "max_requests_per_minute", FIELD_UINT, 0, .max = LIMIT_MAX, IN(vendor_key, max_requests_per_minute) },
	{ "enabled", FIELD_BOOL, 0, .fallback = true, IN(vendor_key, enabled) },
	{ .name = NULL },
};

#define LIMIT_FIELDS \
	{ "rpm", FIELD_UINT, 0, .max = LIMIT_MAX, IN(subject, limits.rpm) }, \
	{ "input_tpm", FIELD_UINT, 0, .max = LIMIT_MAX, IN(subject, limits.input_tpm) }, \
	{ "output_tpm", FIELD_UINT, 0, .max = LIMIT_MAX, IN(subject, limits.output_tpm) }, \
	{ "max_concurrency", FIELD_UINT, 0, .max = LIMIT_MAX, IN(subject, limits.max_concurrency) }, \
	{ "mappings", FIELD_STRINGS, 0, .max = 1000, .check = rules_check_prefix, IN(subject, mappings), \
		.count_offset = offsetof(struct subject, mapping_count) }, \
	{ "expires_at", FIELD_TIME, FIELD_OPTIONAL, IN(subject, expires_at_ms) }, \
	{ "enabled", FIELD_BOOL, 0, .fallback = true, IN(subject, enabled) }

static const struct field client_fields[] = {
	{ "id", FIELD_STRING, FIELD_ID | FIELD_GENERATED, .check = rules_check_id, IN(subject, id) },
	{ "name", FIELD_STRING, 0, .max = 256, .check = rules_check_text, IN(subject, name) },
	{ "key_sha256", FIELD_STRING, FIELD_WRITE_ONLY | FIELD_HASH_KEY, .check = rules_check_sha256 },
	LIMIT_FIELDS,
	{ .name = NULL },
};

static const struct field user_fields[] = {
	{ "username", FIELD_STRING, FIELD_REQUIRED | FIELD_ID | FIELD_HASH_KEY, .check = rules_check_username, IN(subject, id) },
	{ "password", FIELD_STRING, FIELD_WRITE_ONLY, .check = rules_check_password },
	{ "password_hash", FIELD_STRING, FIELD_STORED_ONLY, .check = rules_check_text, IN(subject, password_hash) },
	LIMIT_FIELDS,
	{ .name = NULL },
};
/* clang-format on */

const struct field *const schema_fields[SCHEMA_KINDS] = {
	[SCHEMA_MAPPING] = mapping_fields,
	[SCHEMA_KEY] = key_fields,
	[SCHEMA_CLIENT] = client_fields,
	[SCHEMA_USER] = user_fields,
};
