/* A store over a redis-server of its own, and its operations with their outcome as text in "said". */
#ifndef TESTS_UNIT_STORE_FIXTURE_H
#define TESTS_UNIT_STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <cjson/cJSON.h>

#include "redis_fixture.h"
#include "state/faults.h"
#include "state/journal.h"
#include "state/snapshot.h"
#include "state/store.h"

static struct redis_fixture redis;

static inline struct store *new_store(const char *bootstrap)
{
	struct store_options options = { .address = &redis.address, .bootstrap_file = bootstrap };
	memset(options.master_key, 7, sizeof(options.master_key));
	return store_new(&options);
}

static inline int set_up(void **state)
{
	redis_fixture_init(&redis);
	*state = new_store(NULL);
	return 0;
}

static inline int tear_down(void **state)
{
	store_free(*state);
	redis_fixture_fini(&redis);
	return 0;
}

static inline struct snapshot *refresh(struct store *s)
{
	struct faults faults = { 0 };
	struct snapshot *snapshot;
	enum store_result result = store_refresh(s, &snapshot, &faults);
	if (result != STORE_OK)
		fail_msg("%s", faults.items[0]);
	return snapshot;
}

static inline const struct mapping *route(struct snapshot *s, const char *path)
{
	return snapshot_route(s, path, strlen(path));
}

static inline bool is_routed(struct store *s, const char *path)
{
	struct snapshot *snapshot = refresh(s);
	bool routed = route(snapshot, path) != NULL;
	snapshot_unref(snapshot);
	return routed;
}

/* Runs an operation whose object or faults are wanted as text. */
static char said[4096];

static inline enum store_result finish(enum store_result result, cJSON *object, struct faults *faults)
{
	char *text = object ? cJSON_PrintUnformatted(object) : faults_join(faults);
	snprintf(said, sizeof(said), "%s", text);
	free(text);
	assert_true((object != NULL) == (result == STORE_OK));
	assert_true((faults->count > 0) == (result != STORE_OK));
	cJSON_Delete(object);
	faults_fini(faults);
	return result;
}

static inline enum store_result create(struct store *s, enum schema_kind kind, const char *json)
{
	struct faults faults = { 0 };
	cJSON *input = cJSON_Parse(json), *object;
	assert_non_null(input);
	enum store_result result = store_create(s, kind, input, &object, &faults);
	cJSON_Delete(input);
	return finish(result, object, &faults);
}

static inline enum store_result update(struct store *s, enum schema_kind kind, const char *id, const char *json)
{
	struct faults faults = { 0 };
	cJSON *input = cJSON_Parse(json), *object;
	assert_non_null(input);
	enum store_result result = store_update(s, kind, id, input, &object, &faults);
	cJSON_Delete(input);
	return finish(result, object, &faults);
}

static inline enum store_result get(struct store *s, enum schema_kind kind, const char *id)
{
	struct faults faults = { 0 };
	cJSON *object;
	enum store_result result = store_get(s, kind, id, &object, &faults);
	return finish(result, object, &faults);
}

static inline enum store_result rotate(struct store *s, const char *id)
{
	struct faults faults = { 0 };
	cJSON *object;
	enum store_result result = store_rotate(s, id, &object, &faults);
	return finish(result, object, &faults);
}

static inline enum store_result replace(struct store *s, const char *json)
{
	struct faults faults = { 0 };
	cJSON *document = cJSON_Parse(json), *result;
	assert_non_null(document);
	enum store_result done = store_replace_all(s, document, &result, &faults);
	cJSON_Delete(document);
	return finish(done, result, &faults);
}

static inline enum store_result list(struct store *s, enum schema_kind kind)
{
	struct faults faults = { 0 };
	cJSON *array;
	enum store_result result = store_list(s, kind, &array, &faults);
	return finish(result, array, &faults);
}

static inline enum store_result remove_entry(struct store *s, enum schema_kind kind, const char *id)
{
	struct faults faults = { 0 };
	enum store_result result = store_delete(s, kind, id, &faults);
	faults_fini(&faults);
	return result;
}

static inline void assert_said(const char *part)
{
	if (!strstr(said, part))
		fail_msg("\"%s\" is not in: %s", part, said);
}

static inline void assert_not_said(const char *part)
{
	if (strstr(said, part))
		fail_msg("\"%s\" is in: %s", part, said);
}

static inline size_t count_in_journal(const char *part)
{
	cJSON *journal = journal_to_json();
	const cJSON *each;
	size_t count = 0;
	cJSON_ArrayForEach(each, cJSON_GetObjectItem(journal, "errors"))
		if (strstr(cJSON_GetObjectItem(each, "message")->valuestring, part))
			count += (size_t)cJSON_GetObjectItem(each, "count")->valuedouble;
	cJSON_Delete(journal);
	return count;
}

#endif
