/* store_entry: one entry and its secret, between the API, Redis and what is stored. */
#include "state/store_internal.h"

#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/check.h"
#include "state/faults.h"
#include "state/secrets.h"
#include "state/snapshot.h"

static const char *text_of(const cJSON *object, const char *name)
{
	return object ? cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name)) : NULL;
}

static void set_text(cJSON *object, const char *name, const char *text)
{
	cJSON_DeleteItemFromObjectCaseSensitive(object, name);
	CHECK(cJSON_AddStringToObject(object, name, text));
}

const char *store_field(enum schema_kind kind, const cJSON *entry)
{
	return kind == SCHEMA_CLIENT ? text_of(entry, "key_sha256") : schema_id(kind, entry);
}

/* A digest written in capitals by hand. */
static const struct image_entry *find_any_case(const struct image *image, const char *hex)
{
	for (size_t i = 0; i < image->count; i++)
		if (strcasecmp(image->entries[i].field, hex) == 0)
			return &image->entries[i];
	return NULL;
}

const struct image_entry *store_find_raw(const struct store *s, enum schema_kind kind, const char *id)
{
	char hex[SECRETS_HEX_CHARS + 1];
	if (kind != SCHEMA_CLIENT)
		return image_find(&s->images[kind], id);
	const struct subject *client = snapshot_client(s->latest, id);
	if (!client)
		return NULL;
	secrets_to_hex(client->key_sha256, hex);
	const struct image_entry *raw = image_find(&s->images[kind], hex);
	return raw ? raw : find_any_case(&s->images[kind], hex);
}

cJSON *store_find_entry(const struct store *s, enum schema_kind kind, const char *id)
{
	const struct image_entry *raw = store_find_raw(s, kind, id);
	struct faults ignored = {0};
	cJSON *entry = raw ? schema_from_redis(kind, raw->field, raw->value, raw->value_length, &ignored) : NULL;
	faults_fini(&ignored);
	return entry;
}

/* ---- secrets ---- */

static void add_fault(struct faults *faults, const char *place, const char *field, const char *text)
{
	char *at = place && *place ? check_printf("%s.%s", place, field) : check_strdup(field);
	faults_add(faults, at, "%s", text);
	free(at);
}

static void seal(const struct store *s, cJSON *entry, const char *plain)
{
	char *sealed = secrets_seal(s->master_key, text_of(entry, "id"), text_of(entry, "pool"), plain);
	set_text(entry, "key_encrypted", sealed);
	free(sealed);
	cJSON_DeleteItemFromObjectCaseSensitive(entry, "key");
}

static bool resolve_key(const struct store *s, cJSON *entry, const cJSON *stored, const char *place,
	struct faults *faults)
{
	const char *plain = text_of(entry, "key"), *sealed = text_of(stored, "key_encrypted");
	if (!plain)
		plain = text_of(stored, "key");
	if (plain) {
		char *copy = check_strdup(plain);
		seal(s, entry, copy);
		secrets_free(copy);
		return true;
	}
	if (!sealed) {
		add_fault(faults, place, "key", "is required: none is stored under this id");
		return false;
	}
	if (strcmp(text_of(stored, "pool"), text_of(entry, "pool")) == 0) {
		set_text(entry, "key_encrypted", sealed);
		return true;
	}
	char *opened = secrets_open(s->master_key, text_of(entry, "id"), text_of(stored, "pool"), sealed);
	if (opened)
		seal(s, entry, opened);
	else
		add_fault(faults, place, "pool",
			"cannot be changed without the key: secrets.master_key does not open the stored one");
	secrets_free(opened);
	return opened != NULL;
}

static void resolve_client(cJSON *entry, const cJSON *stored, char **client_key)
{
	char hex[SECRETS_HEX_CHARS + 1];
	uint8_t digest[32];
	if (text_of(entry, "key_sha256"))
		return;
	if (text_of(stored, "key_sha256")) {
		set_text(entry, "key_sha256", text_of(stored, "key_sha256"));
		return;
	}
	*client_key = secrets_new_client_key();
	secrets_sha256(*client_key, strlen(*client_key), digest);
	secrets_to_hex(digest, hex);
	set_text(entry, "key_sha256", hex);
}

void store_hash_password(cJSON *entry)
{
	const char *password = text_of(entry, "password");
	if (!password)
		return;
	char *hash = secrets_hash_password(password);
	set_text(entry, "password_hash", hash);
	free(hash);
	cJSON_DeleteItemFromObjectCaseSensitive(entry, "password");
}

static bool resolve_user(cJSON *entry, const cJSON *stored, const char *place, struct faults *faults)
{
	store_hash_password(entry);
	if (!text_of(entry, "password_hash") && text_of(stored, "password_hash"))
		set_text(entry, "password_hash", text_of(stored, "password_hash"));
	if (text_of(entry, "password_hash"))
		return true;
	add_fault(faults, place, "password", "is required: none is stored under this name");
	return false;
}

bool store_resolve_secret(const struct store *s, enum schema_kind kind, cJSON *entry, const cJSON *stored,
	const char *place, char **client_key, struct faults *faults)
{
	*client_key = NULL;
	if (kind == SCHEMA_CLIENT)
		resolve_client(entry, stored, client_key);
	return kind == SCHEMA_KEY ? resolve_key(s, entry, stored, place, faults) :
		kind == SCHEMA_USER   ? resolve_user(entry, stored, place, faults) :
								true;
}

/* ---- showing ---- */

enum { HINT_CHARS = 4, HINT_LENGTH_MIN = 16 };

static void add_hint(const struct store *s, const cJSON *entry, cJSON *shown)
{
	const char *plain = text_of(entry, "key"), *sealed = text_of(entry, "key_encrypted");
	char *secret = plain ? check_strdup(plain) :
		sealed           ? secrets_open(s->master_key, text_of(entry, "id"), text_of(entry, "pool"), sealed) :
						   NULL;
	if (secret) {
		size_t length = strlen(secret);
		char *hint = check_printf("…%s", length >= HINT_LENGTH_MIN ? secret + length - HINT_CHARS : "");
		set_text(shown, "key_hint", hint);
		secrets_free(hint);
	}
	secrets_free(secret);
}

cJSON *store_show(const struct store *s, enum schema_kind kind, const cJSON *entry)
{
	cJSON *shown = schema_to_api(kind, entry);
	if (kind == SCHEMA_KEY)
		add_hint(s, entry, shown);
	return shown;
}
