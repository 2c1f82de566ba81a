/* store_commit: transactions that change the configuration: one entry, all of it, what was lost. Each
 * follows a WATCH and is lost where somebody else was quicker. */
#include "state/store_internal.h"

#include <stdlib.h>
#include <string.h>

#include <hiredis/hiredis.h>

#include "state/faults.h"
#include "state/redis_sync.h"

enum { HSET_ENTRIES = 256 };

/* Frees a reply; false where it is none or an error, which goes to faults. */
bool store_accept(struct redis_sync *r, redisReply *take_reply, struct faults *faults)
{
	bool ok = take_reply && take_reply->type != REDIS_REPLY_ERROR;
	if (!take_reply)
		faults_add(faults, NULL, "Redis is not available: %s", redis_sync_error(r));
	else if (!ok)
		faults_add(faults, NULL, "Redis says: %s", take_reply->str);
	freeReplyObject(take_reply);
	return ok;
}

/* 0: no marker. What is no number is as old as can be. */
uint64_t store_generation(const redisReply *marker)
{
	uint64_t generation = marker->type == REDIS_REPLY_STRING ? strtoull(marker->str, NULL, 10) : 0;
	return generation || marker->type == REDIS_REPLY_NIL ? generation : 1;
}

/* ---- one entry ---- */

static enum commit_result fail_commit(struct store *s, struct faults *faults)
{
	faults_add(faults, NULL, "Redis is not available: %s", redis_sync_error(s->main));
	s->guard = -1;
	return COMMIT_FAILED;
}

/* Reads the replies of what was queued since MULTI, count of them, and EXEC's. */
static enum commit_result finish_commit(struct store *s, size_t count, struct faults *faults)
{
	bool ok = true;
	for (size_t i = 0; i < count && ok; i++)
		ok = store_accept(s->main, redis_sync_read(s->main), faults);
	redisReply *exec = ok ? redis_sync_read(s->main) : NULL;
	if (exec && exec->type == REDIS_REPLY_NIL) {
		freeReplyObject(exec);
		return COMMIT_LOST;
	}
	for (size_t i = 0; exec && exec->type == REDIS_REPLY_ARRAY && ok && i < exec->elements; i++) {
		ok = exec->element[i]->type != REDIS_REPLY_ERROR;
		if (!ok)
			faults_add(faults, NULL, "Redis says: %s", exec->element[i]->str);
	}
	if (!ok)
		freeReplyObject(exec);
	else
		ok = store_accept(s->main, exec, faults);
	if (!ok)
		redis_sync_close(s->main);
	return ok ? COMMIT_DONE : COMMIT_FAILED;
}

enum commit_result store_commit(struct store *s, enum schema_kind kind, const struct store_change *changes,
	size_t count, struct faults *faults)
{
	const char *hash = schema_infos[kind].redis;
	bool ok = redis_sync_append(s->main, "MULTI");
	for (size_t i = 0; ok && i < count; i++)
		ok = changes[i].value ?
			redis_sync_append(s->main, "HSET %s %s %s", hash, changes[i].field, changes[i].value) :
			redis_sync_append(s->main, "HDEL %s %s", hash, changes[i].field);
	ok = ok && redis_sync_append(s->main, "PUBLISH " STORE_CHANNEL " %s", hash) && redis_sync_append(s->main, "EXEC");
	if (!ok)
		return fail_commit(s, faults);
	return finish_commit(s, count + 2, faults);
}

/* ---- all of it ---- */

/* In pieces, not to build one command of everything. *count: of the commands that went out. */
static bool append_hash(struct store *s, enum schema_kind kind, const struct image *image, size_t *count)
{
	const char *arguments[2 + 2 * HSET_ENTRIES] = {"HSET", schema_infos[kind].redis};
	size_t lengths[2 + 2 * HSET_ENTRIES] = {4, strlen(schema_infos[kind].redis)};
	for (size_t i = 0; i < image->count; ++*count) {
		int used = 2;
		for (; i < image->count && used < 2 + 2 * HSET_ENTRIES; i++) {
			const struct image_entry *entry = &image->entries[i];
			lengths[used] = entry->field_length;
			arguments[used++] = entry->field;
			lengths[used] = entry->value_length;
			arguments[used++] = entry->value;
		}
		if (!redis_sync_append_argv(s->main, used, arguments, lengths))
			return false;
	}
	return true;
}

/* Only the entries that are not there. */
static bool append_missing(struct store *s, enum schema_kind kind, const struct image *image, size_t *count)
{
	for (size_t i = 0; i < image->count; i++, ++*count) {
		const struct image_entry *entry = &image->entries[i];
		const char *arguments[] = {"HSETNX", schema_infos[kind].redis, entry->field, entry->value};
		size_t lengths[] = {6, strlen(schema_infos[kind].redis), entry->field_length, entry->value_length};
		if (!redis_sync_append_argv(s->main, 4, arguments, lengths))
			return false;
	}
	return true;
}

/* The rest of a transaction that fills Redis, after count commands. */
static enum commit_result commit_filled(struct store *s, bool ok, size_t count, uint64_t generation,
	bool replace_secret, struct faults *faults)
{
	if (ok && s->jwt_secret && !*s->given_jwt_secret) {
		ok = redis_sync_append(s->main,
			replace_secret ? "SET " STORE_JWT_SECRET " %s" : "SET " STORE_JWT_SECRET " %s NX", s->jwt_secret);
		count++;
	}
	ok = ok && redis_sync_append(s->main, "SET " STORE_MARKER " %llu", (unsigned long long)generation) &&
		redis_sync_append(s->main, "EXEC");
	enum commit_result result = ok ? finish_commit(s, count + 2, faults) : fail_commit(s, faults);
	redis_sync_set_deadline(s->main, STORE_DEADLINE_MS);
	return result;
}

static enum commit_result commit_all(struct store *s, const struct image images[SCHEMA_KINDS], uint64_t generation,
	struct faults *faults)
{
	size_t count = 0;
	redis_sync_set_deadline(s->main, STORE_BULK_DEADLINE_MS);
	bool ok = redis_sync_append(s->main, "MULTI");
	for (int kind = 0; ok && kind < SCHEMA_KINDS; kind++) {
		const char *name = schema_infos[kind].redis;
		ok = redis_sync_append(s->main, "DEL %s", name) && append_hash(s, kind, &images[kind], &count) &&
			redis_sync_append(s->main, "PUBLISH " STORE_CHANNEL " %s", name);
		count += 2;
	}
	return commit_filled(s, ok, count, generation, false, faults);
}

enum commit_result store_commit_all(struct store *s, const struct image images[SCHEMA_KINDS], struct faults *faults)
{
	return commit_all(s, images, s->generation ? s->generation : 1, faults);
}

bool store_fill(struct store *s, const struct image images[SCHEMA_KINDS], uint64_t generation, struct faults *faults)
{
	if (!store_accept(s->main, redis_sync_command(s->main, "WATCH " STORE_CONTENT), faults))
		return false;
	redisReply *exists = redis_sync_command(s->main, "EXISTS " STORE_CONTENT);
	bool empty = exists && exists->type == REDIS_REPLY_INTEGER && exists->integer == 0;
	if (!store_accept(s->main, exists, faults))
		return false;
	if (!empty)
		return store_accept(s->main, redis_sync_command(s->main, "UNWATCH"), faults);
	return commit_all(s, images, generation, faults) != COMMIT_FAILED;
}

/* What was filled in but is not in the image any more. */
static bool append_removals(struct store *s, enum schema_kind kind, const struct image *filled, size_t *count)
{
	for (size_t i = 0; i < filled->count; i++) {
		if (image_find(&s->images[kind], filled->entries[i].field))
			continue;
		if (!redis_sync_append(s->main, "HDEL %s %s", schema_infos[kind].redis, filled->entries[i].field))
			return false;
		++*count;
	}
	return true;
}

enum commit_result store_put_back(struct store *s, const bool kinds[SCHEMA_KINDS], uint64_t found, uint64_t now,
	const struct image filled[SCHEMA_KINDS], struct faults *faults)
{
	size_t count = 0;
	if (!store_accept(s->main, redis_sync_command(s->main, "WATCH " STORE_MARKER), faults))
		return COMMIT_FAILED;
	redisReply *marker = redis_sync_command(s->main, "GET " STORE_MARKER);
	bool same = marker && store_generation(marker) == found;
	if (!store_accept(s->main, marker, faults))
		return COMMIT_FAILED;
	if (!same)
		return store_accept(s->main, redis_sync_command(s->main, "UNWATCH"), faults) ? COMMIT_LOST : COMMIT_FAILED;
	redis_sync_set_deadline(s->main, STORE_BULK_DEADLINE_MS);
	bool ok = redis_sync_append(s->main, "MULTI");
	for (int kind = 0; ok && kind < SCHEMA_KINDS; kind++) {
		if (!kinds[kind])
			continue;
		ok = (found ? append_hash : append_missing)(s, kind, &s->images[kind], &count) &&
			append_removals(s, kind, &filled[kind], &count) &&
			redis_sync_append(s->main, "PUBLISH " STORE_CHANNEL " %s", schema_infos[kind].redis);
		count++;
	}
	ok = ok && redis_sync_append(s->main, "SET " STORE_RESTORED " %llu", (unsigned long long)now);
	return commit_filled(s, ok, count + 1, s->generation, found != 0, faults);
}
