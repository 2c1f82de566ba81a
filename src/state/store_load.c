/* store_load: what Redis has, and how it gets there.
 *
 * The guard: two connections take turns. Before a look, the resting one WATCHes every key; then the
 * other one's empty MULTI/EXEC tells whether anything was touched since it began to watch. So no
 * moment is unwatched, and a look that finds nothing costs two round trips, whatever the size. Each look hears Redis'
 * clock, too (base/clock).
 * Invariant: while guard >= 0 that connection has watched since before the images were read. */
#include "state/store_internal.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>
#include <hiredis/hiredis.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "state/faults.h"
#include "state/journal.h"
#include "state/redis_sync.h"
#include "state/secrets.h"

enum {
	LOAD_ROUNDS_MAX = 5,
	BEGIN_ROUNDS_MAX = 50,
	LARGE_ENTRIES = 10000,
	ANEW_MS = 60000,
};

#define ALL_KEYS "apiproxy:mappings apiproxy:keys apiproxy:clients apiproxy:users " STORE_MARKER " " STORE_JWT_SECRET

/* ---- the guard ---- */

enum guard_state { GUARD_SAME, GUARD_CHANGED, GUARD_FAILED };

static bool has_fired(struct redis_sync *guard)
{
	redisReply *multi = NULL, *exec = NULL;
	bool same = redis_sync_append(guard, "MULTI") && redis_sync_append(guard, "EXEC") &&
		(multi = redis_sync_read(guard)) && (exec = redis_sync_read(guard)) && exec->type == REDIS_REPLY_ARRAY;
	freeReplyObject(multi);
	freeReplyObject(exec);
	return !same;
}

static void hear_clock(const redisReply *time, int64_t asked_us)
{
	if (time && time->type == REDIS_REPLY_ARRAY && time->elements == 2)
		clock_hear(atoll(time->element[0]->str) * 1000000 + atoll(time->element[1]->str), asked_us,
			clock_monotonic_us());
}

/* The reply to WATCH is the caller's; NULL: the connection failed. */
static redisReply *watch_all(struct redis_sync *r)
{
	bool sent = redis_sync_connect(r) && redis_sync_append(r, "WATCH " ALL_KEYS) && redis_sync_append(r, "TIME");
	int64_t asked_us = clock_monotonic_us();
	redisReply *watched = sent ? redis_sync_read(r) : NULL;
	redisReply *time = watched ? redis_sync_read(r) : NULL;
	hear_clock(time, asked_us);
	if (watched && !time) {
		freeReplyObject(watched);
		watched = NULL;
	}
	freeReplyObject(time);
	return watched;
}

static enum guard_state look(struct store *s, struct faults *faults)
{
	int resting = s->guard == 0 ? 1 : 0, watching = s->guard;
	struct redis_sync *next = s->guards[resting];
	if (!store_accept(next, watch_all(next), faults)) {
		s->guard = -1;
		return GUARD_FAILED;
	}
	s->guard = resting;
	return watching < 0 || has_fired(s->guards[watching]) ? GUARD_CHANGED : GUARD_SAME;
}

/* ---- reading all ---- */

enum { REPLY_MARKER = SCHEMA_KINDS, REPLY_RESTORED, REPLY_JWT_SECRET, REPLY_TIME, REPLY_COUNT };

static redisReply *read_all(struct store *s, struct faults *faults)
{
	/* A WATCH that is still there must not stop what only reads. */
	static const char *const commands[] = {"UNWATCH", "MULTI", "HGETALL apiproxy:mappings", "HGETALL apiproxy:keys",
		"HGETALL apiproxy:clients", "HGETALL apiproxy:users", "GET " STORE_MARKER, "GET " STORE_RESTORED,
		"GET " STORE_JWT_SECRET, "TIME", "EXEC"};
	enum { COUNT = sizeof(commands) / sizeof(*commands) };
	bool ok = redis_sync_connect(s->main);
	redis_sync_set_deadline(s->main, STORE_BULK_DEADLINE_MS); /* that Redis answers at all, the guard has seen */
	for (size_t i = 0; ok && i < COUNT; i++)
		ok = redis_sync_append(s->main, commands[i]);
	for (size_t i = 0; ok && i < COUNT - 1; i++)
		ok = store_accept(s->main, redis_sync_read(s->main), faults);
	redisReply *all = ok ? redis_sync_read(s->main) : NULL;
	redis_sync_set_deadline(s->main, STORE_DEADLINE_MS);
	if (all && all->type == REDIS_REPLY_ARRAY && all->elements == REPLY_COUNT)
		return all;
	if (!ok || !all)
		redis_sync_close(s->main); /* half a pipeline is of no use */
	if (!faults->count)
		faults_add(faults, NULL, "Redis is not available: %s",
			all && all->type == REDIS_REPLY_ERROR ? all->str : redis_sync_error(s->main));
	freeReplyObject(all);
	return NULL;
}

static bool has_entries(const redisReply *all)
{
	for (int kind = 0; kind < SCHEMA_KINDS; kind++)
		if (all->element[kind]->type != REDIS_REPLY_ARRAY || all->element[kind]->elements)
			return true;
	return false;
}

/* Redis' own clock: nodes have only that one in common. */
static uint64_t clock_us_of(const redisReply *all)
{
	const redisReply *time = all->element[REPLY_TIME];
	if (time->type != REDIS_REPLY_ARRAY || time->elements != 2)
		return 1000;
	return strtoull(time->element[0]->str, NULL, 10) * 1000000 + strtoull(time->element[1]->str, NULL, 10);
}

static uint64_t clock_of(const redisReply *all)
{
	return clock_us_of(all) / 1000;
}

/* Has Redis lost what this node knows? There is no marker, or the one of a node that has just begun
 * anew. One that did so long ago is the configuration by now, and this node was away. */
static bool is_lost(const struct store *s, const redisReply *all, uint64_t found)
{
	return s->generation && (!found || (found > s->generation && clock_of(all) < found + ANEW_MS));
}

/* ---- an empty Redis ---- */

static bool bootstrap(struct store *s, const redisReply *all, struct faults *faults)
{
	struct image images[SCHEMA_KINDS] = {0};
	struct faults wrong = {0};
	bool ok = store_read_bootstrap(s, images, &wrong);
	const char *from = *s->bootstrap_file ? s->bootstrap_file : "the built-in list";
	if (ok) {
		ok = store_fill(s, images, clock_of(all), faults);
		if (ok)
			log_info("config", "the store was empty: filled with %zu mappings from %s", images[SCHEMA_MAPPING].count,
				from);
	} else {
		for (size_t i = 0; i < wrong.count; i++)
			journal_add("config", "bootstrap: %s: %s", from, wrong.items[i]);
		s->bootstrap_failed = true;
		ok = true;
	}
	for (int kind = 0; kind < SCHEMA_KINDS; kind++)
		image_fini(&images[kind]);
	faults_fini(&wrong);
	return ok;
}

static bool restore(struct store *s, const redisReply *all, uint64_t found, struct faults *faults)
{
	bool hashes[SCHEMA_KINDS];
	struct image filled[SCHEMA_KINDS] = {0};
	struct faults ignored = {0};
	uint64_t now = clock_of(all);
	if (found && !store_read_bootstrap(s, filled, &ignored))
		log_debug("config", "what a new node fills in is not known here: %s", ignored.items[0]);
	for (int kind = 0; kind < SCHEMA_KINDS; kind++)
		hashes[kind] = all->element[kind]->type == REDIS_REPLY_ARRAY; /* else take_over() tells it */
	enum commit_result result = store_put_back(s, hashes, found, now, filled, faults);
	for (int kind = 0; kind < SCHEMA_KINDS; kind++)
		image_fini(&filled[kind]);
	faults_fini(&ignored);
	if (result != COMMIT_DONE)
		return result != COMMIT_FAILED;
	s->restored = now;
	journal_add("config",
		"Redis came back empty: this node keeps its %zu mappings, %zu keys, %zu clients and %zu users, and writes "
		"them back%s",
		s->images[SCHEMA_MAPPING].count, s->images[SCHEMA_KEY].count, s->images[SCHEMA_CLIENT].count,
		s->images[SCHEMA_USER].count, has_entries(all) ? " beside what is there by now" : "");
	return true;
}

static bool set_marker(struct store *s, const redisReply *all, struct faults *faults)
{
	return store_accept(s->main,
		redis_sync_command(s->main, "SET " STORE_MARKER " %llu NX", (unsigned long long)clock_of(all)), faults);
}

/* ---- vendor keys found in plain text ---- */

/* The value with its key sealed, other fields kept; NULL: there is nothing to seal. */
static char *sealed_value(struct store *s, const struct image_entry *entry)
{
	struct faults ignored = {0};
	char *value = NULL;
	cJSON *known = schema_from_redis(SCHEMA_KEY, entry->field, entry->value, entry->value_length, &ignored);
	const char *plain = known ? cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(known, "key")) : NULL;
	if (plain) {
		const char *pool = cJSON_GetObjectItemCaseSensitive(known, "pool")->valuestring;
		char *sealed = secrets_seal(s->master_key, entry->field, pool, plain);
		cJSON *raw = cJSON_ParseWithLength(entry->value, entry->value_length);
		CHECK(raw);
		while (cJSON_GetObjectItemCaseSensitive(raw, "key"))
			cJSON_DeleteItemFromObjectCaseSensitive(raw, "key");
		while (cJSON_GetObjectItemCaseSensitive(raw, "key_encrypted"))
			cJSON_DeleteItemFromObjectCaseSensitive(raw, "key_encrypted");
		CHECK(cJSON_AddStringToObject(raw, "key_encrypted", sealed));
		value = cJSON_PrintUnformatted(raw);
		CHECK(value);
		cJSON_Delete(raw);
		free(sealed);
	}
	cJSON_Delete(known);
	faults_fini(&ignored);
	return value;
}

static bool seal_one(struct store *s, const struct image_entry *entry, const char *value, struct faults *faults)
{
	struct store_change change = {entry->field, value};
	if (!store_accept(s->main, redis_sync_command(s->main, "WATCH apiproxy:keys"), faults))
		return false;
	redisReply *now = redis_sync_command(s->main, "HGET apiproxy:keys %s", entry->field);
	bool same = now && now->type == REDIS_REPLY_STRING && now->len == entry->value_length &&
		memcmp(now->str, entry->value, now->len) == 0;
	if (!store_accept(s->main, now, faults))
		return false;
	if (!same)
		return store_accept(s->main, redis_sync_command(s->main, "UNWATCH"), faults);
	return store_commit(s, SCHEMA_KEY, &change, 1, faults) != COMMIT_FAILED;
}

/* True: some were there and were tried; read again. */
static bool seal_plain_keys(struct store *s, const struct image *keys)
{
	struct faults faults = {0};
	bool tried = false;
	for (size_t i = 0; i < keys->count && !faults.count; i++) {
		char *value = sealed_value(s, &keys->entries[i]);
		if (value)
			tried = seal_one(s, &keys->entries[i], value, &faults) || tried;
		secrets_free(value);
	}
	if (faults.count)
		journal_add("config", "a vendor key in plain text could not be encrypted in place: %s", faults.items[0]);
	faults_fini(&faults);
	return tried;
}

/* ---- loading ---- */

static void read_image(const redisReply *hash, struct image *image)
{
	for (size_t i = 0; i + 1 < hash->elements; i += 2)
		image_add(image, hash->element[i]->str, hash->element[i]->len, hash->element[i + 1]->str,
			hash->element[i + 1]->len);
	image_seal(image);
}

/* The secret in force; makes the shared one where there is none. */
static char *find_jwt_secret(struct store *s, const redisReply *shared, struct faults *faults)
{
	if (*s->given_jwt_secret)
		return check_strdup(s->given_jwt_secret);
	if (shared->type == REDIS_REPLY_STRING && shared->len)
		return check_strdup(shared->str);
	char *made = secrets_new_token(), *secret = NULL;
	if (store_accept(s->main, redis_sync_command(s->main, "SET " STORE_JWT_SECRET " %s NX", made), faults)) {
		redisReply *now = redis_sync_command(s->main, "GET " STORE_JWT_SECRET);
		if (now && now->type == REDIS_REPLY_STRING && now->len)
			secret = check_strdup(now->str);
		freeReplyObject(now);
	}
	secrets_free(made);
	if (!secret && !faults->count)
		faults_add(faults, NULL, "Redis does not keep " STORE_JWT_SECRET);
	return secret;
}

/* All nodes that were up say so, not only the one that was quick enough to write. */
static void tell_restored(struct store *s, const redisReply *stamp)
{
	uint64_t found = store_generation(stamp);
	if (s->loaded && found > s->restored)
		journal_add("config",
			"Redis came back empty: this node keeps what it has, and another one has written the configuration back");
	if (found > s->restored)
		s->restored = found;
}

static bool take_over(struct store *s, const redisReply *all, struct faults *faults)
{
	bool changed[SCHEMA_KINDS], any = !s->loaded;
	char *secret = find_jwt_secret(s, all->element[REPLY_JWT_SECRET], faults);
	if (!secret)
		return false;
	any = any || strcmp(secret, s->jwt_secret) != 0;
	secrets_free(s->jwt_secret);
	s->jwt_secret = secret;
	for (int kind = 0; kind < SCHEMA_KINDS; kind++) {
		struct image image = {0};
		changed[kind] = false;
		if (all->element[kind]->type != REDIS_REPLY_ARRAY) {
			journal_add("config", "%s is no hash: skipped, what was known of it stays", schema_infos[kind].redis);
			continue;
		}
		read_image(all->element[kind], &image);
		changed[kind] = !s->loaded || !image_equals(&image, &s->images[kind]);
		any = any || changed[kind];
		image_fini(changed[kind] ? &s->images[kind] : &image);
		if (changed[kind])
			s->images[kind] = image;
	}
	tell_restored(s, all->element[REPLY_RESTORED]);
	s->loaded = true;
	uint64_t found = store_generation(all->element[REPLY_MARKER]);
	if (s->generation && found != s->generation)
		journal_add("config", "Redis has another configuration, which replaces the one that this node knew");
	s->generation = found;
	s->read_us = clock_us_of(all);
	if (any)
		store_rebuild(s, changed);
	return true;
}

/* One round: true and *again where it changed something and must be read anew. */
static bool load_round(struct store *s, bool *again, struct faults *faults)
{
	redisReply *all = read_all(s, faults);
	struct image keys = {0};
	bool ok = all;
	*again = false;
	if (!all)
		return false;
	uint64_t found = store_generation(all->element[REPLY_MARKER]);
	if (is_lost(s, all, found)) {
		ok = restore(s, all, found, faults);
		*again = ok;
	} else if (!found && (has_entries(all) || !s->bootstrap_failed)) {
		ok = has_entries(all) ? set_marker(s, all, faults) : bootstrap(s, all, faults);
		*again = ok; /* the guard has seen it */
	} else {
		if (all->element[SCHEMA_KEY]->type == REDIS_REPLY_ARRAY)
			read_image(all->element[SCHEMA_KEY], &keys);
		*again = seal_plain_keys(s, &keys);
		image_fini(&keys);
	}
	if (ok && !*again)
		ok = take_over(s, all, faults);
	freeReplyObject(all);
	return ok;
}

/* What a large load needed on its way, the heap would keep for the next one. */
static void trim(const struct store *s)
{
	size_t entries = 0;
	for (int kind = 0; kind < SCHEMA_KINDS; kind++)
		entries += s->images[kind].count;
	if (entries > LARGE_ENTRIES)
		malloc_trim(0);
}

static bool load(struct store *s, struct faults *faults)
{
	bool again = true;
	for (int round = 0; again; round++) {
		if (round == LOAD_ROUNDS_MAX) {
			faults_add(faults, NULL, "Redis is not available: the configuration changes faster than it can be read");
			return false;
		}
		if (!load_round(s, &again, faults))
			return false;
		if (again && look(s, faults) == GUARD_FAILED)
			return false;
	}
	trim(s);
	return true;
}

static enum store_result checked(struct store *s, bool ok, const struct faults *faults)
{
	if (!ok) {
		s->guard = -1;
		if (!s->down)
			journal_add("redis", "%s; %s", faults->items[0],
				s->loaded ? "traffic goes on with the last configuration" : "there is no configuration yet");
	} else if (s->down) {
		log_info("redis", "Redis is back");
	}
	s->down = !ok;
	return ok ? STORE_OK : STORE_UNAVAILABLE;
}

enum store_result store_load_if_changed(struct store *s, struct faults *faults)
{
	enum guard_state state = look(s, faults);
	bool ok = state != GUARD_FAILED && ((state == GUARD_SAME && s->loaded) || load(s, faults));
	return checked(s, ok, faults);
}

static bool watch(struct store *s, enum schema_kind kind, struct faults *faults)
{
	redisReply *reply = kind == SCHEMA_KINDS ?
		redis_sync_command(s->main, "WATCH " STORE_CONTENT) :
		redis_sync_command(s->main, "WATCH %s " STORE_MARKER, schema_infos[kind].redis);
	return store_accept(s->main, reply, faults);
}

/* Nodes that change things at the same time would else keep each other from it. */
static void step_aside(int round)
{
	uint16_t random;
	secrets_random(&random, sizeof(random));
	if (round > 0)
		usleep(random % 1024u * (unsigned)(round < 10 ? round : 10));
}

enum store_result store_begin(struct store *s, enum schema_kind kind, struct faults *faults)
{
	for (int round = 0; round < BEGIN_ROUNDS_MAX; round++) {
		step_aside(round);
		enum guard_state state = watch(s, kind, faults) ? look(s, faults) : GUARD_FAILED;
		if (state == GUARD_SAME && s->loaded)
			return checked(s, true, faults);
		/* Loading uses the same connection and so ends the WATCH: watch again, look again. */
		if (state == GUARD_FAILED || !load(s, faults))
			return checked(s, false, faults);
	}
	faults_add(faults, NULL, "The configuration changes faster than it can be read; try again");
	return STORE_UNAVAILABLE;
}
