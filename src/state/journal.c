/* journal: the last hundred faults under one lock.
 *
 * Faults are rare and readers rarer, so a mutex does; nothing but memory is touched under it. Any thread. A message
 * that equals a kept one of the same source only raises its count and time, and is not logged again within a minute.
 * Invariant: recent[0 … kept - 1] name different entries, that of the last time first. */
#include "state/journal.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

enum { JOURNAL_ENTRIES = 100, JOURNAL_LOG_AGAIN_MS = 60000 };

struct entry {
	int64_t at_ms;        /* Unix time */
	int64_t logged_at_ms; /* monotonic */
	uint64_t count;
	char source[32];
	char message[512];
};

struct place {
	uint64_t hash; /* of the entry's texts: in a storm of faults all of them are looked through */
	size_t entry;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct entry entries[JOURNAL_ENTRIES];
static struct place recent[JOURNAL_ENTRIES];
static size_t kept;

static bool same(const struct entry *one, const struct entry *other)
{
	return strcmp(one->source, other->source) == 0 && strcmp(one->message, other->message) == 0;
}

/* Under the lock. Where it is in `recent`, or kept. */
static size_t find(const struct entry *fresh, uint64_t hash)
{
	size_t i = 0;
	while (i < kept && !(recent[i].hash == hash && same(&entries[recent[i].entry], fresh)))
		i++;
	return i;
}

/* Under the lock. The entry of this message, the newest one now; its count is 0 where it is new. */
static struct entry *bring_forward(const struct entry *fresh, uint64_t hash)
{
	size_t i = find(fresh, hash);
	bool known = i < kept, full = kept == JOURNAL_ENTRIES;
	if (!known && full)
		i = kept - 1; /* the oldest goes */
	struct place place = {hash, known || full ? recent[i].entry : kept++};
	memmove(recent + 1, recent, i * sizeof *recent);
	recent[0] = place;
	if (!known)
		entries[place.entry] = *fresh;
	return &entries[place.entry];
}

/* Under the lock. True where a log line is due. */
static bool add(const struct entry *fresh, uint64_t hash)
{
	struct entry *e = bring_forward(fresh, hash);
	bool due = !e->count || fresh->logged_at_ms - e->logged_at_ms >= JOURNAL_LOG_AGAIN_MS;
	e->count++;
	e->at_ms = fresh->at_ms;
	if (due)
		e->logged_at_ms = fresh->logged_at_ms;
	return due;
}

void journal_add(const char *source, const char *format, ...)
{
	struct entry fresh = {.at_ms = clock_unix_ms(), .logged_at_ms = clock_monotonic_ms()};
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(fresh.message, sizeof fresh.message, format, arguments);
	va_end(arguments);
	snprintf(fresh.source, sizeof fresh.source, "%s", source);
	uint64_t hash = hash_text(hash_text(HASH_START, fresh.source), fresh.message);

	pthread_mutex_lock(&lock);
	bool log = add(&fresh, hash);
	pthread_mutex_unlock(&lock);
	if (log)
		log_warning(fresh.source, "%s", fresh.message);
}

static cJSON *entry_to_json(const struct entry *e)
{
	char at[CLOCK_TEXT_BYTES];
	clock_format(at, e->at_ms, true);

	cJSON *object = cJSON_CreateObject();
	cJSON_AddStringToObject(object, "at", at);
	cJSON_AddStringToObject(object, "source", e->source);
	cJSON_AddStringToObject(object, "message", e->message);
	cJSON_AddNumberToObject(object, "count", (double)e->count);
	return object;
}

cJSON *journal_to_json(void)
{
	cJSON *document = cJSON_CreateObject();
	cJSON *list = cJSON_AddArrayToObject(document, "errors");
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < kept; i++)
		cJSON_AddItemToArray(list, entry_to_json(&entries[recent[i].entry]));
	pthread_mutex_unlock(&lock);
	cJSON_AddNumberToObject(document, "count", cJSON_GetArraySize(list));
	return document;
}
