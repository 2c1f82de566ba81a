/* store_document: whole configurations: export, replacement, the bootstrap file. A document is
 * checked to its end before anything is touched, so that every fault can be told. */
#include "state/store_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/check.h"
#include "base/embedded.h"
#include "state/faults.h"
#include "state/json.h"
#include "state/secrets.h"

enum { BOOTSTRAP_BYTES_MAX = 64 << 20, TRIES_MAX = 50 };

struct document {
	cJSON *sections[SCHEMA_KINDS]; /* lists of entries; null where one was bad, so that places stay right */
};

static void document_fini(struct document *d)
{
	for (int kind = 0; kind < SCHEMA_KINDS; kind++)
		cJSON_Delete(d->sections[kind]);
}

/* ---- reading one ---- */

struct named {
	const char *name;
	size_t index;
};

static int compare_named(const void *left, const void *right)
{
	const struct named *a = left, *b = right;
	int difference = strcmp(a->name, b->name);
	return difference ? difference : (a->index > b->index) - (a->index < b->index);
}

/* texts[i] may be NULL. */
static void check_repeated(const char *section, const char *field, const char **texts, size_t count,
	struct faults *faults)
{
	struct named *sorted = check_calloc(count + 1, sizeof(*sorted));
	size_t used = 0;
	for (size_t i = 0; i < count; i++)
		if (texts[i])
			sorted[used++] = (struct named){texts[i], i};
	qsort(sorted, used, sizeof(*sorted), compare_named);
	for (size_t i = 1; i < used; i++) {
		if (strcmp(sorted[i].name, sorted[i - 1].name) != 0)
			continue;
		char *place = check_printf("%s[%zu].%s", section, sorted[i].index, field);
		faults_add(faults, place, "is the same as in %s[%zu]", section, sorted[i - 1].index);
		free(place);
	}
	free(sorted);
}

static void read_section(enum schema_kind kind, const cJSON *list, cJSON *entries, struct faults *faults)
{
	const struct schema_info *info = &schema_infos[kind];
	size_t count = (size_t)cJSON_GetArraySize(list), i = 0;
	const char **ids = check_calloc(count + 1, sizeof(*ids)), **digests = check_calloc(count + 1, sizeof(*digests));
	const cJSON *item;
	cJSON_ArrayForEach(item, list) {
		char *place = check_printf("%s[%zu]", info->section, i);
		cJSON *entry = schema_create(kind, item, place, faults);
		CHECK(cJSON_AddItemToArray(entries, entry ? entry : cJSON_CreateNull()));
		const cJSON *named = entry ? entry : item; /* a faulty one may be a repeated one, too */
		ids[i] = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(named, info->id_field));
		digests[i] = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(named, "key_sha256"));
		free(place);
		i++;
	}
	check_repeated(info->section, info->id_field, ids, count, faults);
	check_repeated(info->section, "key_sha256", digests, count, faults);
	free(ids);
	free(digests);
}

static void check_sections(const cJSON *json, struct faults *faults)
{
	bool seen[SCHEMA_KINDS] = {0};
	const cJSON *item;
	cJSON_ArrayForEach(item, json) {
		int kind = 0;
		while (kind < SCHEMA_KINDS && strcmp(schema_infos[kind].section, item->string) != 0)
			kind++;
		if (kind == SCHEMA_KINDS)
			faults_add(faults, item->string, "is not a known field");
		else if (seen[kind])
			faults_add(faults, item->string, "is given more than once");
		else
			seen[kind] = true;
	}
}

/* whole: each section must be there. */
static bool read_document(const cJSON *json, bool whole, struct document *d, struct faults *faults)
{
	if (!cJSON_IsObject(json)) {
		faults_add(faults, NULL, "must be a JSON object with mappings, keys, clients and users");
		return false;
	}
	check_sections(json, faults);
	for (int kind = 0; kind < SCHEMA_KINDS; kind++) {
		const char *section = schema_infos[kind].section;
		const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, section);
		d->sections[kind] = cJSON_CreateArray();
		CHECK(d->sections[kind]);
		if (cJSON_IsArray(list))
			read_section(kind, list, d->sections[kind], faults);
		else if (list || whole)
			faults_add(faults, section, list ? "must be a list" : "is required");
	}
	return !faults->count;
}

/* Client keys that are made go into their entries as "key", which schema_to_redis() does not know. */
static void resolve_section(const struct store *s, enum schema_kind kind, cJSON *entries, struct faults *faults)
{
	size_t i = 0;
	cJSON *entry;
	cJSON_ArrayForEach(entry, entries) {
		char *place = check_printf("%s[%zu]", schema_infos[kind].section, i++), *key = NULL;
		if (cJSON_IsNull(entry)) {
			free(place);
			continue;
		}
		cJSON *stored = store_find_entry(s, kind, schema_id(kind, entry));
		store_resolve_secret(s, kind, entry, stored, place, &key, faults);
		if (key)
			CHECK(cJSON_AddStringToObject(entry, "key", key));
		secrets_free(key);
		cJSON_Delete(stored);
		free(place);
	}
}

static bool resolve_document(const struct store *s, struct document *d, struct faults *faults)
{
	for (int kind = 0; kind < SCHEMA_KINDS; kind++)
		resolve_section(s, kind, d->sections[kind], faults);
	return !faults->count;
}

/* A digest given may be one that another entry keeps. */
static void tell_repeated_digests(const char *section, const cJSON *entries, struct faults *faults)
{
	size_t count = (size_t)cJSON_GetArraySize(entries), i = 0;
	const char **digests = check_calloc(count + 1, sizeof(*digests));
	const cJSON *entry;
	cJSON_ArrayForEach(entry, entries)
		digests[i++] = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "key_sha256"));
	check_repeated(section, "key_sha256", digests, count, faults);
	free(digests);
}

static bool make_images(const struct store *s, const struct document *d, struct image images[SCHEMA_KINDS],
	struct faults *faults)
{
	for (int kind = 0; kind < SCHEMA_KINDS; kind++) {
		const cJSON *entry;
		cJSON_ArrayForEach(entry, d->sections[kind]) {
			const struct image_entry *stored = store_find_raw(s, kind, schema_id(kind, entry));
			char *value = schema_to_redis(kind, entry, stored ? stored->value : NULL);
			const char *field = store_field(kind, entry);
			image_add(&images[kind], field, strlen(field), value, strlen(value));
			secrets_free(value);
		}
		image_seal(&images[kind]);
		tell_repeated_digests(schema_infos[kind].section, d->sections[kind], faults);
	}
	return !faults->count;
}

static void hash_passwords(struct document *d)
{
	cJSON *entry;
	cJSON_ArrayForEach(entry, d->sections[SCHEMA_USER])
		store_hash_password(entry);
}

/* ---- showing one ---- */

static int compare_objects(const void *left, const void *right, void *context)
{
	const char *id_field = context;
	const cJSON *a = *(const cJSON *const *)left, *b = *(const cJSON *const *)right;
	return strcmp(cJSON_GetObjectItemCaseSensitive(a, id_field)->valuestring,
		cJSON_GetObjectItemCaseSensitive(b, id_field)->valuestring);
}

void store_sort(enum schema_kind kind, cJSON *array)
{
	size_t count = (size_t)cJSON_GetArraySize(array), i = 0;
	cJSON **items = check_calloc(count + 1, sizeof(*items)), *item;
	while ((item = array->child)) {
		cJSON_DetachItemViaPointer(array, item);
		items[i++] = item;
	}
	qsort_r(items, count, sizeof(*items), compare_objects, (void *)schema_infos[kind].id_field);
	for (i = 0; i < count; i++)
		CHECK(cJSON_AddItemToArray(array, items[i]));
	free(items);
}

static cJSON *show_document(const struct document *d)
{
	cJSON *shown = cJSON_CreateObject();
	for (int kind = 0; kind < SCHEMA_KINDS; kind++) {
		cJSON *list = cJSON_AddArrayToObject(shown, schema_infos[kind].section);
		const cJSON *entry;
		CHECK(list);
		cJSON_ArrayForEach(entry, d->sections[kind]) {
			cJSON *object = schema_to_api(kind, entry);
			const cJSON *key = cJSON_GetObjectItemCaseSensitive(entry, "key");
			if (kind == SCHEMA_CLIENT && key)
				CHECK(cJSON_AddStringToObject(object, "key", key->valuestring));
			CHECK(cJSON_AddItemToArray(list, object));
		}
		store_sort(kind, list);
	}
	return shown;
}

enum store_result store_export(struct store *s, cJSON **document, struct faults *faults)
{
	cJSON *whole = cJSON_CreateObject();
	*document = NULL;
	for (int kind = 0; kind < SCHEMA_KINDS; kind++) {
		cJSON *list = NULL, *item;
		enum store_result result = store_list(s, kind, &list, faults);
		if (result != STORE_OK) {
			cJSON_Delete(whole);
			return result;
		}
		cJSON_ArrayForEach(item, list)
			cJSON_DeleteItemFromObjectCaseSensitive(item, "key_hint");
		CHECK(cJSON_AddItemToObject(whole, schema_infos[kind].section, list));
	}
	*document = whole;
	return STORE_OK;
}

/* ---- replacing ---- */

/* One try under the mutex; d is resolved against what is stored now. */
static enum store_result replace(struct store *s, struct document *d, bool *lost, struct faults *faults)
{
	struct image images[SCHEMA_KINDS] = {0};
	enum store_result result = store_begin(s, SCHEMA_KINDS, faults);
	*lost = false;
	if (result != STORE_OK)
		return result;
	if (resolve_document(s, d, faults) && make_images(s, d, images, faults)) {
		enum commit_result committed = store_commit_all(s, images, faults);
		*lost = committed == COMMIT_LOST;
		result = committed == COMMIT_DONE ? STORE_OK : STORE_UNAVAILABLE;
	} else {
		result = STORE_INVALID;
	}
	for (int kind = 0; kind < SCHEMA_KINDS; kind++)
		image_fini(&images[kind]);
	return result;
}

/* An entry that is faulty is not resolved: does it lack its secret besides? */
static void tell_missing_secret(const struct store *s, enum schema_kind kind, const cJSON *item, size_t index,
	struct faults *faults)
{
	const struct schema_info *info = &schema_infos[kind];
	const char *secret = kind == SCHEMA_KEY ? "key" : kind == SCHEMA_USER ? "password" : NULL;
	const char *id = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, info->id_field));
	if (!secret || !cJSON_IsObject(item) || cJSON_GetObjectItemCaseSensitive(item, secret))
		return;
	cJSON *stored = id ? store_find_entry(s, kind, id) : NULL;
	if (!stored) {
		char *place = check_printf("%s[%zu].%s", info->section, index, secret);
		faults_add(faults, place, "is required: none is stored under this %s", info->id_field);
		free(place);
	}
	cJSON_Delete(stored);
}

static void tell_faulty_section(const struct store *s, enum schema_kind kind, const cJSON *list, const cJSON *entries,
	struct faults *faults)
{
	const cJSON *item = list ? list->child : NULL, *entry;
	size_t i = 0;
	cJSON_ArrayForEach(entry, entries) {
		if (cJSON_IsNull(entry))
			tell_missing_secret(s, kind, item, i, faults);
		item = item->next;
		i++;
	}
}

/* Of a document that is refused anyway: what else is wrong with it. */
static void tell_missing_secrets(struct store *s, const cJSON *json, struct document *d, struct faults *faults)
{
	struct faults none = {0};
	pthread_mutex_lock(&s->mutex);
	if (d->sections[SCHEMA_KINDS - 1] && store_load_if_changed(s, &none) == STORE_OK) {
		cJSON *user;
		cJSON_ArrayForEach(user, d->sections[SCHEMA_USER]) {
			cJSON *password = cJSON_DetachItemFromObjectCaseSensitive(user, "password");
			if (password) /* which needs no hash any more */
				CHECK(cJSON_AddItemToObject(user, "password_hash", password));
		}
		resolve_document(s, d, faults);
		for (int kind = 0; kind < SCHEMA_KINDS; kind++)
			tell_faulty_section(s, kind, cJSON_GetObjectItemCaseSensitive(json, schema_infos[kind].section),
				d->sections[kind], faults);
	}
	pthread_mutex_unlock(&s->mutex);
	faults_fini(&none);
}

enum store_result store_replace_all(struct store *s, const cJSON *json, cJSON **result, struct faults *faults)
{
	struct document given = {0};
	enum store_result done = STORE_INVALID;
	bool lost = read_document(json, true, &given, faults);
	*result = NULL;
	if (lost)
		hash_passwords(&given);
	else
		tell_missing_secrets(s, json, &given, faults);
	for (int tries = 0; lost && tries < TRIES_MAX; tries++) {
		struct document d = {0};
		for (int kind = 0; kind < SCHEMA_KINDS; kind++)
			d.sections[kind] = cJSON_Duplicate(given.sections[kind], true);
		pthread_mutex_lock(&s->mutex);
		done = replace(s, &d, &lost, faults);
		pthread_mutex_unlock(&s->mutex);
		if (done == STORE_OK)
			*result = show_document(&d);
		document_fini(&d);
	}
	if (done != STORE_OK && !faults->count)
		faults_add(faults, NULL, "The configuration is being changed by others; try again");
	document_fini(&given);
	return done;
}

/* ---- bootstrap ---- */

static size_t line_of(const char *text, const char *place)
{
	size_t line = 1;
	for (; text < place; text++)
		line += *text == '\n';
	return line;
}

static cJSON *parse_bootstrap_file(const char *path, struct faults *faults)
{
	FILE *in = fopen(path, "re");
	size_t size = 0, room = 1 << 16, got;
	char *text = check_calloc(1, room);
	if (!in) {
		faults_add(faults, NULL, "%s", strerror(errno));
		free(text);
		return NULL;
	}
	while ((got = fread(text + size, 1, room - size - 1, in)) > 0 && size + got < BOOTSTRAP_BYTES_MAX) {
		size += got;
		if (size + 1 == room) {
			text = realloc(text, room *= 2);
			CHECK(text);
		}
	}
	bool failed = ferror(in) != 0;
	fclose(in);
	const char *end = text;
	text[size] = '\0';
	cJSON *json = failed ? NULL : json_parse(text, size, &end);
	if (failed)
		faults_add(faults, NULL, "%s", strerror(errno));
	else if (!json)
		faults_add(faults, NULL, "is not JSON, at line %zu", line_of(text, end));
	free(text);
	return json;
}

static cJSON *parse_bootstrap(const char *path, struct faults *faults)
{
	if (*path)
		return parse_bootstrap_file(path, faults);
	const struct embedded_file *vendors = embedded_find("vendors.json");
	CHECK(vendors);
	return cJSON_ParseWithLength(vendors->data, vendors->length);
}

/* Nothing is stored whose secrets could be kept, and nobody would see a key that is made. */
static bool has_secrets(const struct document *d, struct faults *faults)
{
	static const char *const secrets[SCHEMA_KINDS] = {NULL, "key", "key_sha256", "password"};
	for (int kind = 0; kind < SCHEMA_KINDS; kind++) {
		const cJSON *entry;
		size_t i = 0;
		cJSON_ArrayForEach(entry, d->sections[kind]) {
			if (secrets[kind] && cJSON_IsObject(entry) && !cJSON_GetObjectItemCaseSensitive(entry, secrets[kind])) {
				char *place = check_printf("%s[%zu].%s", schema_infos[kind].section, i, secrets[kind]);
				faults_add(faults, place, "is required in a document that fills an empty store");
				free(place);
			}
			i++;
		}
	}
	return !faults->count;
}

static bool read_bootstrap(const char *file, struct document *d, struct faults *faults)
{
	cJSON *json = parse_bootstrap(file, faults);
	bool ok = json && read_document(json, false, d, faults);
	ok = json && has_secrets(d, faults) && ok;
	cJSON_Delete(json);
	return ok;
}

bool store_read_bootstrap(struct store *s, struct image images[SCHEMA_KINDS], struct faults *faults)
{
	struct document d = {0};
	bool ok = read_bootstrap(s->bootstrap_file, &d, faults) && resolve_document(s, &d, faults) &&
		make_images(s, &d, images, faults);
	document_fini(&d);
	return ok;
}

bool store_check_bootstrap(const char *file, struct faults *faults)
{
	struct document d = {0};
	bool ok = read_bootstrap(file, &d, faults);
	document_fini(&d);
	return ok;
}
