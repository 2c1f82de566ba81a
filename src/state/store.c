/* store: the operations of the API. Each is one try or more of: watch and bring the images up to
 * date (store_begin), decide on them, commit unless somebody else was quicker. */
#include "state/store.h"

#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/check.h"
#include "state/faults.h"
#include "state/redis_sync.h"
#include "state/secrets.h"
#include "state/snapshot_build.h"
#include "state/store_internal.h"

enum { TRIES_MAX = 50 };

struct store *store_new(const struct store_options *options)
{
	struct store *s = check_calloc(1, sizeof(*s));
	CHECK(pthread_mutex_init(&s->mutex, NULL) == 0);
	s->address = options->address;
	memcpy(s->master_key, options->master_key, sizeof(s->master_key));
	s->given_jwt_secret = check_strdup(options->jwt_secret ? options->jwt_secret : "");
	s->bootstrap_file = check_strdup(options->bootstrap_file ? options->bootstrap_file : "");
	s->stats = options->stats;
	s->main = redis_sync_new(s->address, STORE_DEADLINE_MS);
	for (int i = 0; i < 2; i++)
		s->guards[i] = redis_sync_new(s->address, STORE_DEADLINE_MS);
	s->guard = -1;
	s->jwt_secret = *s->given_jwt_secret ? check_strdup(s->given_jwt_secret) : secrets_new_token();
	s->latest = snapshot_new(s->stats, s->jwt_secret);
	snapshot_seal(s->latest, NULL, NULL);
	return s;
}

void store_free(struct store *s)
{
	if (!s)
		return;
	redis_sync_free(s->main);
	redis_sync_free(s->guards[0]);
	redis_sync_free(s->guards[1]);
	for (int kind = 0; kind < SCHEMA_KINDS; kind++) {
		image_fini(&s->images[kind]);
		free(s->bad[kind].items);
	}
	snapshot_unref(s->latest);
	subjects_unref(s->clients);
	subjects_unref(s->users);
	secrets_free(s->jwt_secret);
	secrets_free(s->given_jwt_secret);
	free(s->bootstrap_file);
	pthread_mutex_destroy(&s->mutex);
	explicit_bzero(s->master_key, sizeof(s->master_key));
	free(s);
}

enum store_result store_refresh(struct store *s, struct snapshot **snapshot, struct faults *faults)
{
	pthread_mutex_lock(&s->mutex);
	enum store_result result = store_load_if_changed(s, faults);
	*snapshot = snapshot_ref(s->latest);
	pthread_mutex_unlock(&s->mutex);
	return result;
}

/* ---- reading ---- */

static enum store_result missing(enum schema_kind kind, const char *id, struct faults *faults)
{
	faults_add(faults, NULL, "There is no %s %s", schema_infos[kind].name, id);
	return STORE_MISSING;
}

static cJSON *list_all(struct store *s, enum schema_kind kind)
{
	cJSON *array = cJSON_CreateArray();
	const struct image *image = &s->images[kind];
	CHECK(array);
	for (size_t i = 0; i < image->count; i++) {
		const struct image_entry *raw = &image->entries[i];
		struct faults ignored = {0};
		cJSON *entry = schema_from_redis(kind, raw->field, raw->value, raw->value_length, &ignored);
		/* Of two clients with one id only one is in force. */
		if (entry && (kind != SCHEMA_CLIENT || store_find_raw(s, kind, schema_id(kind, entry)) == raw))
			CHECK(cJSON_AddItemToArray(array, store_show(s, kind, entry)));
		cJSON_Delete(entry);
		faults_fini(&ignored);
	}
	store_sort(kind, array);
	return array;
}

enum store_result store_list(struct store *s, enum schema_kind kind, cJSON **array, struct faults *faults)
{
	pthread_mutex_lock(&s->mutex);
	enum store_result result = store_load_if_changed(s, faults);
	*array = result == STORE_OK ? list_all(s, kind) : NULL;
	pthread_mutex_unlock(&s->mutex);
	return result;
}

enum store_result store_get(struct store *s, enum schema_kind kind, const char *id, cJSON **object,
	struct faults *faults)
{
	*object = NULL;
	pthread_mutex_lock(&s->mutex);
	enum store_result result = store_load_if_changed(s, faults);
	if (result == STORE_OK) {
		cJSON *entry = store_find_entry(s, kind, id);
		*object = entry ? store_show(s, kind, entry) : NULL;
		cJSON_Delete(entry);
	}
	pthread_mutex_unlock(&s->mutex);
	return result == STORE_OK && !*object ? missing(kind, id, faults) : result;
}

/* ---- changing ---- */

/* One try of a change, after store_begin(). Sets result where there is nothing to commit; else
 * fills changes (texts it owns) and the object to show. */
struct operation {
	enum schema_kind kind;
	const char *id;     /* update, delete, rotate */
	const cJSON *input; /* create: an entry; update: the patch */
	enum store_result result;
	struct store_change changes[2];
	size_t count;
	char *texts[3]; /* freed after the try */
	cJSON *object;
	struct faults *faults;
};

static void change(struct operation *op, char *take_field, char *take_value)
{
	op->changes[op->count] = (struct store_change){take_field, take_value};
	op->texts[op->count == 0 ? 0 : 2] = take_field;
	if (take_value)
		op->texts[1] = take_value;
	op->count++;
}

static void clear(struct operation *op)
{
	for (size_t i = 0; i < 3; i++) {
		secrets_free(op->texts[i]);
		op->texts[i] = NULL;
	}
	op->count = 0;
}

static enum store_result run(struct store *s, struct operation *op,
	void (*decide)(struct store *s, struct operation *op))
{
	enum commit_result committed = COMMIT_LOST;
	pthread_mutex_lock(&s->mutex);
	for (int tries = 0; committed == COMMIT_LOST && tries < TRIES_MAX; tries++) {
		op->result = store_begin(s, op->kind, op->faults);
		if (op->result == STORE_OK)
			decide(s, op);
		if (op->result != STORE_OK)
			break;
		committed = store_commit(s, op->kind, op->changes, op->count, op->faults);
		clear(op);
		if (committed != COMMIT_DONE) {
			cJSON_Delete(op->object);
			op->object = NULL;
		}
	}
	clear(op);
	pthread_mutex_unlock(&s->mutex);
	if (op->result != STORE_OK || committed == COMMIT_DONE)
		return op->result;
	if (!op->faults->count)
		faults_add(op->faults, NULL, "The configuration is being changed by others; try again");
	return STORE_UNAVAILABLE;
}

/* What cannot be read is not there for the API, but for DELETE: POST takes its place. */
static bool is_readable(enum schema_kind kind, const struct image_entry *raw)
{
	struct faults ignored = {0};
	cJSON *entry = raw ? schema_from_redis(kind, raw->field, raw->value, raw->value_length, &ignored) : NULL;
	bool readable = entry;
	cJSON_Delete(entry);
	faults_fini(&ignored);
	return readable;
}

static bool is_key_taken(const struct store *s, const struct operation *op, const cJSON *entry)
{
	return op->kind == SCHEMA_CLIENT &&
		is_readable(op->kind, image_find(&s->images[op->kind], store_field(op->kind, entry)));
}

static void refuse(struct operation *op, enum store_result result)
{
	op->result = result;
}

static void decide_create(struct store *s, struct operation *op)
{
	cJSON *entry = cJSON_Duplicate(op->input, true);
	const char *id = schema_id(op->kind, entry);
	char *key = NULL;
	if (is_readable(op->kind, store_find_raw(s, op->kind, id))) {
		faults_add(op->faults, NULL, "There is a %s %s already", schema_infos[op->kind].name, id);
		refuse(op, STORE_EXISTS);
	} else if (!store_resolve_secret(s, op->kind, entry, NULL, NULL, &key, op->faults)) {
		refuse(op, STORE_INVALID);
	} else if (is_key_taken(s, op, entry)) {
		faults_add(op->faults, NULL, "Another client has this key");
		refuse(op, STORE_EXISTS);
	} else {
		change(op, check_strdup(store_field(op->kind, entry)), schema_to_redis(op->kind, entry, NULL));
		op->object = store_show(s, op->kind, entry);
		if (key)
			CHECK(cJSON_AddStringToObject(op->object, "key", key));
	}
	secrets_free(key);
	cJSON_Delete(entry);
}

enum store_result store_create(struct store *s, enum schema_kind kind, const cJSON *input, cJSON **object,
	struct faults *faults)
{
	struct operation op = {.kind = kind, .faults = faults};
	cJSON *entry = schema_create(kind, input, NULL, faults);
	*object = NULL;
	const char *secret = kind == SCHEMA_KEY ? "key" : kind == SCHEMA_USER ? "password" : NULL;
	if (secret && cJSON_IsObject(input) &&
		(entry ? !cJSON_GetObjectItemCaseSensitive(entry, secret) : !cJSON_GetObjectItemCaseSensitive(input, secret)))
		faults_add(faults, secret, "is required");
	if (faults->count) {
		cJSON_Delete(entry);
		return STORE_INVALID;
	}
	store_hash_password(entry);
	op.input = entry;
	enum store_result result = run(s, &op, decide_create);
	*object = op.object;
	cJSON_Delete(entry);
	return result;
}

static void put_changed(struct store *s, struct operation *op, const struct image_entry *raw, const cJSON *entry)
{
	const char *field = store_field(op->kind, entry);
	change(op, check_strdup(op->kind == SCHEMA_CLIENT ? field : raw->field),
		schema_to_redis(op->kind, entry, raw->value));
	if (op->kind == SCHEMA_CLIENT && strcmp(field, raw->field) != 0)
		change(op, check_strdup(raw->field), NULL);
	op->object = store_show(s, op->kind, entry);
}

static void decide_update(struct store *s, struct operation *op)
{
	const struct image_entry *raw = store_find_raw(s, op->kind, op->id);
	cJSON *stored = store_find_entry(s, op->kind, op->id);
	if (!stored) {
		refuse(op, missing(op->kind, op->id, op->faults));
		return;
	}
	cJSON *merged = schema_merge(op->kind, stored, op->input, NULL, op->faults);
	char *key = NULL;
	if (!merged || !store_resolve_secret(s, op->kind, merged, stored, NULL, &key, op->faults)) {
		refuse(op, STORE_INVALID);
	} else if (strcmp(store_field(op->kind, merged), raw->field) != 0 && is_key_taken(s, op, merged)) {
		faults_add(op->faults, NULL, "Another client has this key");
		refuse(op, STORE_EXISTS);
	} else {
		put_changed(s, op, raw, merged);
	}
	secrets_free(key);
	cJSON_Delete(merged);
	cJSON_Delete(stored);
}

enum store_result store_update(struct store *s, enum schema_kind kind, const char *id, const cJSON *patch,
	cJSON **object, struct faults *faults)
{
	struct operation op = {.kind = kind, .id = id, .input = patch, .faults = faults};
	enum store_result result = run(s, &op, decide_update);
	*object = op.object;
	return result;
}

static void decide_delete(struct store *s, struct operation *op)
{
	const struct image_entry *raw = store_find_raw(s, op->kind, op->id);
	if (raw)
		change(op, check_strdup(raw->field), NULL);
	else
		refuse(op, missing(op->kind, op->id, op->faults));
}

enum store_result store_delete(struct store *s, enum schema_kind kind, const char *id, struct faults *faults)
{
	struct operation op = {.kind = kind, .id = id, .faults = faults};
	return run(s, &op, decide_delete);
}

static void decide_rotate(struct store *s, struct operation *op)
{
	const struct image_entry *raw = store_find_raw(s, op->kind, op->id);
	cJSON *entry = store_find_entry(s, op->kind, op->id);
	char *key = NULL;
	if (!entry) {
		refuse(op, missing(op->kind, op->id, op->faults));
		return;
	}
	cJSON_DeleteItemFromObjectCaseSensitive(entry, "key_sha256");
	CHECK(store_resolve_secret(s, op->kind, entry, NULL, NULL, &key, op->faults) && key);
	put_changed(s, op, raw, entry);
	CHECK(cJSON_AddStringToObject(op->object, "key", key));
	secrets_free(key);
	cJSON_Delete(entry);
}

enum store_result store_rotate(struct store *s, const char *client_id, cJSON **object, struct faults *faults)
{
	struct operation op = {.kind = SCHEMA_CLIENT, .id = client_id, .faults = faults};
	enum store_result result = run(s, &op, decide_rotate);
	*object = op.object;
	return result;
}
