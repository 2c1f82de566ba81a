/* stats_store: totals and reports in Redis, one connection under one lock, which is held while Redis
 * is waited for; what others ask for meanwhile is atomic.
 *
 * Each total is a row of struct account. Invariants: `since_start` counts up to `accounted` are in a
 * flush that Redis has answered or that is `in_flight`; an in-flight flush keeps its number and its
 * differences until it is answered. `stored` is what Redis last said; less than that plus what we
 * added means that Redis lost something, which is `owed` and goes with the next flush. */
#include "state/stats_store.h"

#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/check.h"
#include "base/embedded.h"
#include "base/log.h"
#include "state/redis_sync.h"
#include "state/stats_aggregate.h"
#include "state/stats_report.h"

enum { DEADLINE_MS = 250, REPORT_SECONDS = 10 };

static const char *const field_names[] = {
#define X(name) #name,
	STATS_COUNTS(X)
#undef X
};
enum { FIELDS = sizeof field_names / sizeof *field_names };
_Static_assert(sizeof(struct stats_counts) == FIELDS * sizeof(uint64_t), "counts are an array of fields");

struct account {
	uint64_t accounted;  /* of since_start, in answered flushes and the one in flight */
	uint64_t difference; /* of the flush in flight */
	uint64_t owed;
	uint64_t stored;
	_Atomic uint64_t base;
};

struct stats_store {
	pthread_mutex_t lock;
	struct redis_sync *redis;
	char *node;
	char *totals_key;
	char *flushed_key;
	char *report_key;
	bool shared;
	bool up; /* told so */
	bool has_base;
	bool in_flight;
	uint64_t number;       /* of the last flush */
	_Atomic int64_t nodes; /* that are there, this one included */
	struct account accounts[FIELDS];
};

#define CLUSTER_KEY "apiproxy:stats:totals:cluster"
#define NODES_KEY "apiproxy:stats:nodes"
#define REPORT_KEY "apiproxy:stats:node:"

struct stats_store *stats_store_new(const struct redis_address *address, const char *node, bool shared)
{
	struct stats_store *store = check_calloc(1, sizeof *store);
	uint64_t life = 0;
	CHECK(getrandom(&life, sizeof life, 0) == sizeof life);
	pthread_mutex_init(&store->lock, NULL);
	store->redis = redis_sync_new(address, DEADLINE_MS);
	store->node = check_strdup(node);
	store->totals_key = check_printf("apiproxy:stats:totals:%s", node);
	store->flushed_key = check_printf("apiproxy:stats:flushed:%s:%016" PRIx64, node, life);
	store->report_key = check_printf(REPORT_KEY "%s", node);
	store->shared = shared;
	store->up = true;
	return store;
}

void stats_store_free(struct stats_store *store)
{
	if (!store)
		return;
	redis_sync_free(store->redis);
	free(store->node);
	free(store->totals_key);
	free(store->flushed_key);
	free(store->report_key);
	pthread_mutex_destroy(&store->lock);
	free(store);
}

/* Says once that Redis went, and that it came back. */
static bool note(struct stats_store *store, bool up, const char *why)
{
	if (store->up && !up)
		log_warning("stats", "totals wait for Redis: %s", why);
	if (!store->up && up)
		log_info("stats", "Redis has the totals again");
	store->up = up;
	return up;
}

/* Takes the reply: NULL and a note where it is none or of another type. */
static redisReply *expect(struct stats_store *store, redisReply *reply, int type)
{
	if (reply && reply->type == type) {
		note(store, true, NULL);
		return reply;
	}
	note(store, false,
		!reply                               ? redis_sync_error(store->redis) :
			reply->type == REDIS_REPLY_ERROR ? reply->str :
											   "unexpected reply");
	freeReplyObject(reply);
	return NULL;
}

/* Returns whether there is anything to send. */
static bool prepare_flush(struct stats_store *store, const uint64_t *since_start)
{
	bool any = !store->has_base || store->shared;
	if (store->in_flight)
		return true;
	for (size_t i = 0; i < FIELDS; i++) {
		struct account *a = &store->accounts[i];
		/* Two callers may come in another order than they counted in. */
		uint64_t counted = since_start[i] > a->accounted ? since_start[i] - a->accounted : 0;
		a->difference = counted + a->owed;
		any = any || a->difference;
	}
	if (!any)
		return false;
	for (size_t i = 0; i < FIELDS; i++) {
		if (since_start[i] > store->accounts[i].accounted)
			store->accounts[i].accounted = since_start[i];
		store->accounts[i].owed = 0;
	}
	store->number++;
	store->in_flight = true;
	return true;
}

static redisReply *send_flush(struct stats_store *store)
{
	enum { HEAD = 9 };
	const struct embedded_file *script = embedded_find("stats_flush.lua");
	char number[24], differences[FIELDS][24];
	CHECK(script);
	snprintf(number, sizeof number, "%" PRIu64, store->number);
	const char *arguments[HEAD + 2 * FIELDS] = {"EVAL", script->data, "4", store->totals_key, CLUSTER_KEY,
		store->flushed_key, NODES_KEY, number, store->node};
	for (size_t i = 0; i < FIELDS; i++) {
		snprintf(differences[i], sizeof differences[i], "%" PRIu64, store->accounts[i].difference);
		arguments[HEAD + 2 * i] = field_names[i];
		arguments[HEAD + 2 * i + 1] = differences[i];
	}
	size_t lengths[HEAD + 2 * FIELDS];
	for (size_t i = 0; i < HEAD + 2 * FIELDS; i++)
		lengths[i] = strlen(arguments[i]);
	if (!redis_sync_connect(store->redis) ||
		!redis_sync_append_argv(store->redis, HEAD + 2 * FIELDS, arguments, lengths))
		return NULL;
	return redis_sync_read(store->redis);
}

static void settle_flush(struct stats_store *store, const redisReply *reply)
{
	store->nodes = reply->element[0]->integer;
	for (size_t i = 0; i < FIELDS; i++) {
		struct account *a = &store->accounts[i];
		const redisReply *value = reply->element[i + 1];
		uint64_t stored = value->type == REDIS_REPLY_STRING ? strtoull(value->str, NULL, 10) : 0;
		uint64_t expected = a->stored + a->difference;
		if (!store->has_base)
			a->base = stored > a->difference ? stored - a->difference : 0;
		else if (stored < expected)
			a->owed = expected - stored;
		a->stored = stored;
	}
	store->has_base = true;
	store->in_flight = false;
}

static bool flush(struct stats_store *store, const struct stats_counts *since_start)
{
	if (!prepare_flush(store, (const uint64_t *)since_start))
		return true;
	redisReply *reply = expect(store, send_flush(store), REDIS_REPLY_ARRAY);
	bool good = reply && reply->elements == FIELDS + 1;
	if (good)
		settle_flush(store, reply);
	freeReplyObject(reply);
	return good;
}

bool stats_store_flush(struct stats_store *store, const struct stats_counts *since_start)
{
	pthread_mutex_lock(&store->lock);
	bool good = flush(store, since_start);
	pthread_mutex_unlock(&store->lock);
	return good;
}

void stats_store_base(struct stats_store *store, struct stats_counts *base)
{
	uint64_t *values = (uint64_t *)base;
	for (size_t i = 0; i < FIELDS; i++)
		values[i] = store->accounts[i].base;
}

bool stats_store_has_peers(struct stats_store *store)
{
	return store->shared && store->nodes > 1;
}

bool stats_store_publish(struct stats_store *store, const struct stats_report *report)
{
	char *json = stats_report_to_json(report);
	pthread_mutex_lock(&store->lock);
	redisReply *reply =
		expect(store, redis_sync_command(store->redis, "SET %s %s EX %d", store->report_key, json, REPORT_SECONDS),
			REDIS_REPLY_STATUS);
	pthread_mutex_unlock(&store->lock);
	bool good = reply;
	freeReplyObject(reply);
	free(json);
	return good;
}

static bool read_cluster_totals(struct stats_store *store, struct stats_counts *out)
{
	redisReply *reply = expect(store, redis_sync_command(store->redis, "HGETALL " CLUSTER_KEY), REDIS_REPLY_ARRAY);
	if (!reply)
		return false;
	memset(out, 0, sizeof *out);
	for (size_t i = 0; i + 1 < reply->elements; i += 2)
		for (size_t field = 0; field < FIELDS; field++)
			if (strcmp(reply->element[i]->str, field_names[field]) == 0)
				((uint64_t *)out)[field] = strtoull(reply->element[i + 1]->str, NULL, 10);
	freeReplyObject(reply);
	return true;
}

static bool merge_node(struct stats_store *store, const char *node, struct stats_report *report)
{
	struct stats_report other;
	redisReply *reply = redis_sync_command(store->redis, "GET " REPORT_KEY "%s", node);
	if (reply && reply->type == REDIS_REPLY_STRING && stats_report_from_json(&other, reply->str)) {
		stats_report_merge(report, &other);
		stats_report_fini(&other);
	}
	bool answered = reply;
	freeReplyObject(reply);
	return answered;
}

static bool merge_nodes(struct stats_store *store, struct stats_report *report)
{
	redisReply *nodes =
		expect(store, redis_sync_command(store->redis, "ZRANGE " NODES_KEY " 0 -1"), REDIS_REPLY_ARRAY);
	if (!nodes)
		return false;
	bool good = true;
	for (size_t i = 0; i < nodes->elements && good; i++)
		if (strcmp(nodes->element[i]->str, store->node) != 0)
			good = merge_node(store, nodes->element[i]->str, report);
	freeReplyObject(nodes);
	return good;
}

bool stats_store_merge_cluster(struct stats_store *store, struct stats_report *report)
{
	struct stats_counts cluster;
	pthread_mutex_lock(&store->lock);
	bool good = flush(store, &report->totals) && read_cluster_totals(store, &cluster) && merge_nodes(store, report);
	pthread_mutex_unlock(&store->lock);
	if (good)
		report->totals = cluster;
	return good;
}
