/* store_build: the raw values become a snapshot. What is bad is skipped and told once, for as long
 * as it stays as it is. */
#include "state/store_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/arena.h"
#include "base/check.h"
#include "base/hash.h"
#include "state/faults.h"
#include "state/journal.h"
#include "state/rules.h"
#include "state/secrets.h"
#include "state/snapshot_build.h"

enum { BAD_TOLD_MAX = 100 }; /* as many as the journal keeps */

struct telling { /* of bad values: each once, as long as it stays */
	struct store *store;
	enum schema_kind kind;
	struct bad_values now;
	size_t told, untold;
};

static uint64_t fingerprint(const struct image_entry *entry, const char *fault)
{
	uint64_t hash = hash_bytes(HASH_START, entry->field, entry->field_length + 1 + entry->value_length);
	return hash_text(hash, fault);
}

static int compare_fingerprints(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static void printable(const char *text, char out[129])
{
	size_t i = 0;
	for (; text[i] && i < 128; i++)
		out[i] = text[i] > ' ' && text[i] <= '~' ? text[i] : '?';
	out[i] = '\0';
}

/* A client's field is the digest of its key: a part of it is enough to find it. What is no digest may be the
 * key itself. */
static void show_field(enum schema_kind kind, const char *name, char out[129])
{
	if (kind != SCHEMA_CLIENT)
		printable(name, out);
	else if (rules_check_sha256(name))
		strcpy(out, "(a field that is no SHA-256)");
	else
		snprintf(out, 129, "%.12s…", name);
}

static void tell(struct telling *t, const struct image_entry *entry, const char *fault, const char *consequence)
{
	const struct bad_values *before = &t->store->bad[t->kind];
	uint64_t hash = fingerprint(entry, fault);
	char field[129];
	t->now.items = realloc(t->now.items, (t->now.count + 1) * sizeof(hash));
	CHECK(t->now.items);
	t->now.items[t->now.count++] = hash;
	if (before->count && bsearch(&hash, before->items, before->count, sizeof(hash), compare_fingerprints))
		return;
	if (t->told++ >= BAD_TOLD_MAX) {
		t->untold++;
		return;
	}
	show_field(t->kind, entry->field, field);
	journal_add("config", "%s %s: %s: %s", schema_infos[t->kind].redis, field, consequence, fault);
}

static void telling_done(struct telling *t)
{
	if (t->untold)
		journal_add("config", "%s: %zu more bad values are skipped", schema_infos[t->kind].redis, t->untold);
	if (t->now.count)
		qsort(t->now.items, t->now.count, sizeof(*t->now.items), compare_fingerprints);
	free(t->store->bad[t->kind].items);
	t->store->bad[t->kind] = t->now;
}

static cJSON *parse_entry(struct telling *t, const struct image_entry *raw)
{
	struct faults faults = {0};
	cJSON *entry = NULL;
	if (strlen(raw->field) == raw->field_length)
		entry = schema_from_redis(t->kind, raw->field, raw->value, raw->value_length, &faults);
	else
		faults_add(&faults, NULL, "has a NUL byte in its name");
	if (!entry) {
		char *text = faults_join(&faults);
		tell(t, raw, text, "skipped");
		free(text);
	}
	faults_fini(&faults);
	return entry;
}

static void add_mappings(struct store *s, struct snapshot *snapshot)
{
	struct telling t = {.store = s, .kind = SCHEMA_MAPPING};
	for (size_t i = 0; i < s->images[t.kind].count; i++) {
		cJSON *entry = parse_entry(&t, &s->images[t.kind].entries[i]);
		if (entry) {
			struct mapping *mapping = snapshot_add_mapping(snapshot);
			schema_decode(t.kind, entry, snapshot_arena(snapshot), mapping);
			mapping->read_us = s->read_us;
		}
		cJSON_Delete(entry);
	}
	telling_done(&t);
}

static void set_secret(struct store *s, struct arena *arena, struct vendor_key *key, const char *secret)
{
	char mark[SECRETS_MARK_CHARS + 1];
	secrets_mark(s->master_key, secret, mark);
	char *limit_id = check_printf("%s:%s", key->id, mark);
	key->secret = arena_strdup(arena, secret);
	key->limit_id = arena_strdup(arena, limit_id);
	free(limit_id);
}

static void add_keys(struct store *s, struct snapshot *snapshot)
{
	struct telling t = {.store = s, .kind = SCHEMA_KEY};
	for (size_t i = 0; i < s->images[t.kind].count; i++) {
		const struct image_entry *raw = &s->images[t.kind].entries[i];
		cJSON *entry = parse_entry(&t, raw);
		if (!entry)
			continue;
		struct vendor_key *key = snapshot_add_key(snapshot);
		schema_decode(t.kind, entry, snapshot_arena(snapshot), key);
		const char *plain = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "key"));
		const char *sealed = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "key_encrypted"));
		char *secret = plain ? check_strdup(plain) : secrets_open(s->master_key, key->id, key->pool, sealed);
		if (secret)
			set_secret(s, snapshot_arena(snapshot), key, secret);
		else
			tell(&t, raw, "secrets.master_key does not open it", "left as it is, unused");
		secrets_free(secret);
		cJSON_Delete(entry);
	}
	telling_done(&t);
}

struct repeat {
	struct telling *telling;
	const struct image *image;
};

static void on_repeated(void *context, const struct subject *subject)
{
	struct repeat *repeat = context;
	char hex[SECRETS_HEX_CHARS + 1];
	secrets_to_hex(subject->key_sha256, hex);
	const struct image_entry *raw = image_find(repeat->image, hex);
	if (raw)
		tell(repeat->telling, raw, "another client has the same id", "skipped");
}

static struct subjects *make_subjects(struct store *s, enum schema_kind kind)
{
	struct telling t = {.store = s, .kind = kind};
	struct repeat repeat = {&t, &s->images[kind]};
	struct subjects *set = subjects_new();
	for (size_t i = 0; i < s->images[kind].count; i++) {
		cJSON *entry = parse_entry(&t, &s->images[kind].entries[i]);
		if (entry)
			schema_decode(kind, entry, subjects_arena(set), subjects_add(set));
		cJSON_Delete(entry);
	}
	subjects_seal(set, on_repeated, &repeat);
	telling_done(&t);
	return set;
}

void store_rebuild(struct store *s, const bool changed[SCHEMA_KINDS])
{
	if (changed[SCHEMA_CLIENT] || !s->clients) {
		subjects_unref(s->clients);
		s->clients = make_subjects(s, SCHEMA_CLIENT);
	}
	if (changed[SCHEMA_USER] || !s->users) {
		subjects_unref(s->users);
		s->users = make_subjects(s, SCHEMA_USER);
	}
	struct snapshot *snapshot = snapshot_new(s->stats, s->jwt_secret);
	add_mappings(s, snapshot);
	add_keys(s, snapshot);
	snapshot_seal(snapshot, s->clients, s->users);
	snapshot_unref(s->latest);
	s->latest = snapshot;
}
