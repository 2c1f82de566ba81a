/* journal: a ring of the last hundred faults under one lock.
 *
 * Faults are rare and readers rarer, so a mutex does. Any thread. A message that equals the newest
 * one of the same source only raises its count and time, and is not logged again within a minute. */
#include "state/journal.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "base/clock.h"
#include "base/log.h"

enum { JOURNAL_ENTRIES = 100, JOURNAL_LOG_AGAIN_MS = 60000 };

struct entry {
	int64_t at_ms, logged_at_ms; /* Unix time */
	uint64_t count;
	char source[32];
	char message[512];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct entry entries[JOURNAL_ENTRIES];
static size_t entry_count; /* ever added; the newest is at (entry_count - 1) % JOURNAL_ENTRIES */

/* Under the lock. True where a log line is due. */
static bool add(const struct entry *fresh)
{
	struct entry *newest = entry_count ? &entries[(entry_count - 1) % JOURNAL_ENTRIES] : NULL;
	if (newest && strcmp(newest->source, fresh->source) == 0 && strcmp(newest->message, fresh->message) == 0) {
		newest->count++;
		newest->at_ms = fresh->at_ms;
		if (fresh->at_ms - newest->logged_at_ms < JOURNAL_LOG_AGAIN_MS)
			return false;
		newest->logged_at_ms = fresh->at_ms;
		return true;
	}
	entries[entry_count++ % JOURNAL_ENTRIES] = *fresh;
	return true;
}

void journal_add(const char *source, const char *format, ...)
{
	struct entry fresh = {.count = 1};
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(fresh.message, sizeof fresh.message, format, arguments);
	va_end(arguments);
	snprintf(fresh.source, sizeof fresh.source, "%s", source);
	fresh.at_ms = fresh.logged_at_ms = clock_unix_ms();

	pthread_mutex_lock(&lock);
	bool log = add(&fresh);
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
	size_t kept = entry_count < JOURNAL_ENTRIES ? entry_count : JOURNAL_ENTRIES;
	for (size_t i = 1; i <= kept; i++)
		cJSON_AddItemToArray(list, entry_to_json(&entries[(entry_count - i) % JOURNAL_ENTRIES]));
	pthread_mutex_unlock(&lock);
	cJSON_AddNumberToObject(document, "count", (double)kept);
	return document;
}
