/* schema: walks state/schema_fields' table. One walk takes values in (take_fields), one puts them out
 * for each reader: the API, Redis, the structs of a snapshot. No state. */
#include "state/schema.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/arena.h"
#include "base/check.h"
#include "state/faults.h"
#include "state/json.h"
#include "state/rules.h"
#include "state/schema_fields.h"
#include "state/secrets.h"
#include "state/snapshot.h"

enum source { FROM_API, FROM_PATCH, FROM_REDIS };

static cJSON *get(const cJSON *object, const char *name)
{
	return cJSON_GetObjectItemCaseSensitive(object, name);
}

static void put(cJSON *object, const char *name, cJSON *take_item)
{
	cJSON_DeleteItemFromObjectCaseSensitive(object, name);
	CHECK(take_item && cJSON_AddItemToObject(object, name, take_item));
}

static const struct field *find_field(const struct field *fields, const char *name)
{
	for (; fields->name; fields++)
		if (strcmp(fields->name, name) == 0)
			return fields;
	return NULL;
}

static char *place_of(const char *place, const char *name)
{
	return place && *place ? check_printf("%s.%s", place, name) : check_strdup(name);
}

/* ---- one value ---- */

static bool check_string(const struct field *field, const cJSON *item, const char *place, struct faults *faults)
{
	const char *text = cJSON_GetStringValue(item), *fault = NULL;
	int64_t time;
	if (!text)
		fault = "must be a string";
	else if (json_has_nul(text))
		fault = "has a NUL, which no text may hold";
	else if (field->type == FIELD_TIME)
		fault = rules_parse_time(text, &time) ? NULL : "must be an RFC 3339 time such as 2030-01-31T12:00:00Z";
	else if (field->max > 0 && strlen(text) > field->max)
		fault = "is too long";
	else
		fault = field->check ? field->check(text) : NULL;
	if (fault)
		faults_add(faults, place, "%s", fault);
	return !fault;
}

static bool check_number(const struct field *field, const cJSON *item, const char *place, struct faults *faults)
{
	bool whole = field->type == FIELD_UINT;
	double value = item->valuedouble;
	if (cJSON_IsNumber(item) && value >= field->min && value <= field->max && (!whole || value == floor(value)))
		return true;
	faults_add(faults, place, "must be a %s from %.16g to %.16g", whole ? "whole number" : "number", field->min,
		field->max);
	return false;
}

static bool check_choice(const struct field *field, const cJSON *item, const char *place, struct faults *faults)
{
	const char *text = cJSON_GetStringValue(item);
	char list[128] = "";
	for (size_t i = 0; field->choices[i]; i++) {
		if (text && strcmp(text, field->choices[i]) == 0)
			return true;
		if (i)
			strncat(list, field->choices[i + 1] ? ", " : " or ", sizeof(list) - strlen(list) - 1);
		strncat(list, field->choices[i], sizeof(list) - strlen(list) - 1);
	}
	faults_add(faults, place, "must be %s", list);
	return false;
}

static bool check_strings(const struct field *field, const cJSON *item, const char *place, struct faults *faults)
{
	const struct field element = {.type = FIELD_STRING, .check = field->check};
	const cJSON *each;
	bool ok = true;
	int i = 0;
	if (!cJSON_IsArray(item) || cJSON_GetArraySize(item) > field->max) {
		faults_add(faults, place, "must be a list of up to %g strings", field->max);
		return false;
	}
	cJSON_ArrayForEach(each, item) {
		char *at = check_printf("%s[%d]", place, i++);
		ok = check_string(&element, each, at, faults) && ok;
		free(at);
	}
	return ok;
}

static bool check_bool(const struct field *field, const cJSON *item, const char *place, struct faults *faults)
{
	(void)field;
	if (!cJSON_IsBool(item))
		faults_add(faults, place, "must be true or false");
	return cJSON_IsBool(item);
}

/* clang-format off */
static bool (*const checks[])(const struct field *, const cJSON *, const char *, struct faults *) = {
	[FIELD_STRING] = check_string, [FIELD_UINT] = check_number, [FIELD_NUMBER] = check_number,
	[FIELD_SECONDS] = check_number, [FIELD_BOOL] = check_bool, [FIELD_CHOICE] = check_choice,
	[FIELD_STRINGS] = check_strings, [FIELD_TIME] = check_string,
};
/* clang-format on */

/* ---- taking in ---- */

static void take_fields(const struct field *fields, const cJSON *input, enum source source, const char *place,
	cJSON *into, struct faults *faults);

static void take_object(const struct field *field, const cJSON *item, enum source source, const char *place,
	cJSON *into, struct faults *faults)
{
	if (!cJSON_IsObject(item)) {
		faults_add(faults, place, "must be an object");
		return;
	}
	if (!get(into, field->name))
		put(into, field->name, cJSON_CreateObject());
	take_fields(field->fields, item, source, place, get(into, field->name), faults);
}

static bool is_same_string(const cJSON *a, const cJSON *b)
{
	return cJSON_IsString(a) && cJSON_IsString(b) && strcmp(a->valuestring, b->valuestring) == 0;
}

static void take_field(const struct field *field, const cJSON *item, enum source source, const char *place,
	cJSON *into, struct faults *faults)
{
	cJSON *before = get(into, field->name);
	bool empty = (field->flags & FIELD_OPTIONAL) && cJSON_IsString(item) && !*item->valuestring;
	if ((field->flags & FIELD_ID) && before) {
		if (!is_same_string(before, item))
			faults_add(faults, place, "cannot be changed");
	} else if (cJSON_IsNull(item) && source == FROM_PATCH && (field->flags & FIELD_WRITE_ONLY)) {
		faults_add(faults, place, "cannot be unset: leave it out to keep what is stored");
	} else if (cJSON_IsNull(item) || empty) {
		cJSON_DeleteItemFromObjectCaseSensitive(into, field->name);
	} else if (field->type == FIELD_OBJECT) {
		take_object(field, item, source, place, into, faults);
	} else if (checks[field->type](field, item, place, faults)) {
		put(into, field->name, cJSON_Duplicate(item, true));
	}
}

/* In Redis the last one counts. */
static bool is_repeated(const cJSON *item)
{
	for (const cJSON *later = item->next; later; later = later->next)
		if (strcmp(later->string, item->string) == 0)
			return true;
	return false;
}

/* Has this row been met before in the same object? */
static bool is_seen(uint64_t *seen, size_t row)
{
	CHECK(row < 64);
	uint64_t bit = UINT64_C(1) << row;
	bool before = *seen & bit;
	*seen |= bit;
	return before;
}

static void take_fields(const struct field *fields, const cJSON *input, enum source source, const char *place,
	cJSON *into, struct faults *faults)
{
	const cJSON *item;
	size_t faults_before = faults->count + faults->dropped;
	uint64_t seen = 0;
	cJSON_ArrayForEach(item, input) {
		const struct field *field = find_field(fields, item->string);
		unsigned flags = field ? field->flags : 0;
		char *at = place_of(place, item->string);
		if (source == FROM_REDIS) {
			if (field && !(flags & (FIELD_READ_ONLY | FIELD_HASH_KEY)) && !is_repeated(item))
				take_field(field, item, source, at, into, faults);
		} else if (!field || (flags & FIELD_STORED_ONLY)) {
			faults_add(faults, at, "is not a known field");
		} else if (is_seen(&seen, (size_t)(field - fields))) {
			faults_add(faults, at, "is given more than once");
		} else if (!(flags & FIELD_READ_ONLY)) {
			take_field(field, item, source, at, into, faults);
		}
		free(at);
	}
	for (; fields->name; fields++) {
		if (!(fields->flags & FIELD_REQUIRED) || get(into, fields->name))
			continue;
		const cJSON *sent = get(input, fields->name);
		if (faults->count + faults->dropped > faults_before && sent && !cJSON_IsNull(sent))
			continue; /* it was there, and its fault is told */
		char *at = place_of(place, fields->name);
		faults_add(faults, at, "is required");
		free(at);
	}
}

static void lower_hash(cJSON *entry)
{
	const char *text = cJSON_GetStringValue(get(entry, "key_sha256"));
	uint8_t digest[32];
	char hex[SECRETS_HEX_CHARS + 1];
	if (text && secrets_from_hex(text, digest)) {
		secrets_to_hex(digest, hex);
		put(entry, "key_sha256", cJSON_CreateString(hex));
	}
}

static cJSON *take(enum schema_kind kind, cJSON *take_entry, const cJSON *input, enum source source,
	const char *place, struct faults *faults)
{
	size_t before = faults->count + faults->dropped;
	if (cJSON_IsObject(input))
		take_fields(schema_fields[kind], input, source, place, take_entry, faults);
	else
		faults_add(faults, place, "must be a JSON object");
	if (faults->count + faults->dropped > before) {
		cJSON_Delete(take_entry);
		return NULL;
	}
	return take_entry;
}

cJSON *schema_create(enum schema_kind kind, const cJSON *input, const char *place, struct faults *faults)
{
	cJSON *entry = take(kind, cJSON_CreateObject(), input, FROM_API, place, faults);
	const char *id_field = schema_infos[kind].id_field;
	if (entry && !get(entry, id_field)) {
		char *id = secrets_new_id();
		put(entry, id_field, cJSON_CreateString(id));
		free(id);
	}
	if (entry)
		lower_hash(entry);
	return entry;
}

cJSON *schema_merge(enum schema_kind kind, const cJSON *entry, const cJSON *patch, const char *place,
	struct faults *faults)
{
	cJSON *merged = take(kind, cJSON_Duplicate(entry, true), patch, FROM_PATCH, place, faults);
	if (merged)
		lower_hash(merged);
	return merged;
}

/* ---- Redis ---- */

static const struct field *hash_key_field(enum schema_kind kind)
{
	const struct field *field = schema_fields[kind];
	while (!(field->flags & FIELD_HASH_KEY))
		field++;
	return field;
}

static cJSON *parse_value(enum schema_kind kind, const char *value, size_t length, struct faults *faults)
{
	size_t white = strspn(value, " \t\r\n");
	if (kind == SCHEMA_MAPPING && value[white] != '{') {
		cJSON *object = cJSON_CreateObject();
		if (strlen(value) != length)
			faults_add(faults, "target", "has a NUL byte");
		put(object, "target", cJSON_CreateString(value));
		return object;
	}
	cJSON *object = json_parse(value, length, NULL);
	if (!cJSON_IsObject(object)) {
		faults_add(faults, NULL, "is not a JSON object");
		cJSON_Delete(object);
		return NULL;
	}
	return object;
}

cJSON *schema_from_redis(enum schema_kind kind, const char *name, const char *value, size_t length,
	struct faults *faults)
{
	const struct field *key = hash_key_field(kind);
	const char *fault = key->check(name);
	size_t before = faults->count;
	if (fault)
		faults_add(faults, key->name, "%s", fault);
	cJSON *entry = NULL, *input = parse_value(kind, value, length, faults);
	if (input && faults->count == before) {
		entry = cJSON_CreateObject();
		put(entry, key->name, cJSON_CreateString(name));
		entry = take(kind, entry, input, FROM_REDIS, NULL, faults);
	}
	cJSON_Delete(input);
	if (!entry)
		return NULL;
	lower_hash(entry);
	cJSON_DeleteItemFromObjectCaseSensitive(entry, "password"); /* only a hash counts there */
	const char *missing = kind == SCHEMA_CLIENT && !get(entry, "id")             ? "id" :
		kind == SCHEMA_USER && !get(entry, "password_hash")                      ? "password_hash" :
		kind == SCHEMA_KEY && !get(entry, "key") && !get(entry, "key_encrypted") ? "key" :
																				   NULL;
	if (missing) {
		faults_add(faults, missing, "is required");
		cJSON_Delete(entry);
		return NULL;
	}
	return entry;
}

static double fallback(const struct field *field, const cJSON *entry)
{
	return field->derive ? field->derive(entry) : field->fallback;
}

static double choice_index(const struct field *field, const char *text)
{
	for (size_t i = 0; field->choices[i]; i++)
		if (strcmp(field->choices[i], text) == 0)
			return (double)i;
	return -1;
}

static bool is_default(const struct field *field, const cJSON *item, const cJSON *entry)
{
	if (field->flags & (FIELD_OPTIONAL | FIELD_ID | FIELD_REQUIRED | FIELD_WRITE_ONLY | FIELD_STORED_ONLY))
		return false;
	switch (field->type) {
	case FIELD_STRING:
		return !*item->valuestring;
	case FIELD_BOOL:
		return cJSON_IsTrue(item) == (fallback(field, entry) != 0);
	case FIELD_CHOICE:
		return choice_index(field, item->valuestring) == fallback(field, entry);
	case FIELD_STRINGS:
		return !item->child;
	case FIELD_UINT:
	case FIELD_NUMBER:
	case FIELD_SECONDS:
		return item->valuedouble == fallback(field, entry);
	default:
		return false;
	}
}

static void keep_unknown(const struct field *fields, const cJSON *stored, cJSON *value)
{
	const cJSON *item;
	cJSON_ArrayForEach(item, stored) {
		const struct field *field = find_field(fields, item->string);
		if (!field)
			put(value, item->string, cJSON_Duplicate(item, true));
		else if (field->type == FIELD_OBJECT && cJSON_IsObject(item) && get(value, field->name))
			keep_unknown(field->fields, item, get(value, field->name));
	}
}

char *schema_to_redis(enum schema_kind kind, const cJSON *entry, const char *stored)
{
	cJSON *value = cJSON_CreateObject();
	for (const struct field *field = schema_fields[kind]; field->name; field++) {
		const cJSON *item = get(entry, field->name);
		if (item && !(field->flags & FIELD_HASH_KEY) && !is_default(field, item, entry))
			put(value, field->name, cJSON_Duplicate(item, true));
	}
	cJSON *before = stored ? cJSON_Parse(stored) : NULL;
	if (cJSON_IsObject(before))
		keep_unknown(schema_fields[kind], before, value);
	cJSON_Delete(before);
	bool plain = kind == SCHEMA_MAPPING && cJSON_GetArraySize(value) == 1;
	char *text = plain ? check_strdup(get(value, "target")->valuestring) : cJSON_PrintUnformatted(value);
	cJSON_Delete(value);
	CHECK(text);
	return text;
}

/* ---- the API ---- */

static cJSON *default_item(const struct field *field, const cJSON *entry)
{
	switch (field->type) {
	case FIELD_STRING:
		return cJSON_CreateString("");
	case FIELD_BOOL:
		return cJSON_CreateBool(fallback(field, entry) != 0);
	case FIELD_CHOICE:
		return cJSON_CreateString(field->choices[(size_t)fallback(field, entry)]);
	case FIELD_STRINGS:
		return cJSON_CreateArray();
	default:
		return cJSON_CreateNumber(fallback(field, entry));
	}
}

static cJSON *show_fields(const struct field *fields, const cJSON *entry)
{
	cJSON *shown = cJSON_CreateObject();
	for (; fields->name; fields++) {
		const cJSON *item = get(entry, fields->name);
		if (fields->flags & (FIELD_WRITE_ONLY | FIELD_STORED_ONLY | FIELD_READ_ONLY))
			continue;
		if (item && fields->type == FIELD_OBJECT)
			put(shown, fields->name, show_fields(fields->fields, item));
		else if (item)
			put(shown, fields->name, cJSON_Duplicate(item, true));
		else if (!(fields->flags & FIELD_OPTIONAL))
			put(shown, fields->name, default_item(fields, entry));
	}
	return shown;
}

cJSON *schema_to_api(enum schema_kind kind, const cJSON *entry)
{
	return show_fields(schema_fields[kind], entry);
}

const char *schema_id(enum schema_kind kind, const cJSON *entry)
{
	return cJSON_GetStringValue(get(entry, schema_infos[kind].id_field));
}

/* ---- structs ---- */

static void store_number(const struct field *field, double value, void *at)
{
	uint64_t whole = (uint64_t)llround(field->type == FIELD_SECONDS ? value * 1000 : value);
	if (field->type == FIELD_NUMBER)
		*(double *)at = value;
	else if (field->size == sizeof(uint64_t))
		*(uint64_t *)at = whole;
	else if (field->size == sizeof(uint32_t))
		*(uint32_t *)at = (uint32_t)whole;
	else
		*(bool *)at = whole != 0;
}

static void store_strings(const struct field *field, const cJSON *list, struct arena *arena, char *out)
{
	size_t count = (size_t)cJSON_GetArraySize(list), i = 0;
	const char **texts = count ? arena_alloc(arena, count * sizeof(*texts)) : NULL;
	const cJSON *each;
	cJSON_ArrayForEach(each, list)
		texts[i++] = arena_strdup(arena, each->valuestring);
	*(const char *const **)(void *)(out + field->offset) = texts;
	*(size_t *)(void *)(out + field->count_offset) = count;
}

/* 0 means that there is none: the first moment of 1970 is told by the one before. */
static void store_time(const char *text, int64_t *unix_ms)
{
	CHECK(rules_parse_time(text, unix_ms));
	if (!*unix_ms)
		*unix_ms = -1;
}

static void decode_fields(const struct field *fields, const cJSON *entry, struct arena *arena, char *out)
{
	for (; fields->name; fields++) {
		const cJSON *item = get(entry, fields->name);
		void *at = out + fields->offset;
		if (!fields->size)
			continue;
		if (fields->type == FIELD_STRINGS) {
			if (item)
				store_strings(fields, item, arena, out);
		} else if (fields->type == FIELD_OBJECT) {
			*(bool *)at = item != NULL;
			if (item)
				decode_fields(fields->fields, item, arena, out);
		} else if (fields->type == FIELD_STRING) {
			if (item)
				*(const char **)at = arena_strdup(arena, item->valuestring);
			else if (!(fields->flags & (FIELD_OPTIONAL | FIELD_STORED_ONLY)))
				*(const char **)at = "";
		} else if (fields->type == FIELD_TIME) {
			if (item)
				store_time(item->valuestring, at);
		} else {
			double value = !item             ? fallback(fields, entry) :
				fields->type == FIELD_BOOL   ? cJSON_IsTrue(item) :
				fields->type == FIELD_CHOICE ? choice_index(fields, item->valuestring) :
											   item->valuedouble;
			store_number(fields, value, at);
		}
	}
}

static void decode_mapping(const cJSON *entry, struct arena *arena, struct mapping *mapping)
{
	const char *fault = rules_parse_target(get(entry, "target")->valuestring, arena, &mapping->target);
	CHECK(!fault);
	mapping->prefix_length = strlen(mapping->prefix);
}

static void decode_subject(enum schema_kind kind, const cJSON *entry, struct subject *subject)
{
	const char *hex = cJSON_GetStringValue(get(entry, "key_sha256"));
	subject->is_user = kind == SCHEMA_USER;
	if (!subject->name)
		subject->name = "";
	if (!subject->is_user)
		CHECK(hex && secrets_from_hex(hex, subject->key_sha256));
}

void schema_decode(enum schema_kind kind, const cJSON *entry, struct arena *arena, void *out)
{
	decode_fields(schema_fields[kind], entry, arena, out);
	if (kind == SCHEMA_MAPPING)
		decode_mapping(entry, arena, out);
	else if (kind != SCHEMA_KEY)
		decode_subject(kind, entry, out);
}
