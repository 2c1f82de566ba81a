/* figures: the bodies of /stats, /metrics and /performance; that of /errors is journal_to_json().
 *
 * Everything recorded before the call is in the answer: the rings are drained first. Any thread;
 * only figures_stats() of the cluster asks Redis (when that does not answer: this node alone).
 * Mappings and keys that the current snapshot does not have are left out.
 *
 * /stats: `totals` are of all lives of the node; `requests`, `errors`, bytes and tokens of an endpoint
 * are of this life; all rates, averages and percentiles are of the last 60 s (requests_per_sec: their
 * number by 60), percentiles within 1.6 %. Endpoints are all enabled mappings, sorted by prefix;
 * last_request_at is null where there was none. `history` has 60 seconds, the last one still running.
 * memory_usage_mb counts 2^20 bytes; cpu_percent is of one core. */
#ifndef APIPROXY_ADMIN_FIGURES_H
#define APIPROXY_ADMIN_FIGURES_H

#include <stdbool.h>
#include <stdint.h>

struct cJSON;
struct snapshot;
struct stats_aggregate;
struct stats_store;
struct vendor_key;

/* Where the figures come from. Callbacks may be NULL: then the answer in brackets. They are called in
 * any thread and must not block. */
struct figures_sources {
	const char *version;
	const char *node;
	struct stats_aggregate *aggregate;
	struct stats_store *store;                                           /* NULL: no totals of earlier lives, no cluster */
	struct snapshot *(*get_snapshot)(void *context);                     /* with a reference, or NULL [nothing is mapped] */
	bool (*redis_is_up)(void *context);                                  /* every connection to it works [true] */
	uint64_t (*config_reloads)(void *context);                           /* [0] */
	bool (*key_is_up)(const void *keys, const struct vendor_key *key);   /* [enabled and readable] */
	const void *keys;
	void *context;                                                       /* of the others */
};

/* The caller deletes or frees what it gets; never NULL. */
struct cJSON *figures_stats(const struct figures_sources *f, bool cluster);
char *figures_metrics(const struct figures_sources *f);       /* text/plain; version=0.0.4; charset=utf-8 */
struct cJSON *figures_performance(const struct figures_sources *f);

bool figures_is_redis_up(const struct figures_sources *f);

#endif
