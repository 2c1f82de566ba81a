/* figures: the bodies of /stats, /metrics, /performance and /errors (contract section 6).
 *
 * Everything recorded before the call is in the answer: the rings are drained first. Any thread;
 * only figures_stats() of the cluster asks Redis (at most 250 ms, else this node alone).
 * Mappings and keys that the current snapshot does not have are left out. */
#ifndef APIPROXY_ADMIN_FIGURES_H
#define APIPROXY_ADMIN_FIGURES_H

#include <stdbool.h>
#include <stdint.h>

struct cJSON;
struct snapshot;
struct stats_aggregate;
struct stats_store;
struct vendor_key;

/* Where the figures come from. Callbacks may be NULL: then the answer in brackets. Any thread. */
struct figures_sources {
	const char *version;
	const char *node;
	struct stats_aggregate *aggregate;
	struct stats_store *store;                                           /* NULL: no totals of earlier lives, no cluster */
	struct snapshot *(*get_snapshot)(void *context);                     /* with a reference, or NULL [nothing is mapped] */
	bool (*redis_is_up)(void *context);                                  /* [true] */
	uint64_t (*config_reloads)(void *context);                           /* [0] */
	bool (*key_is_up)(void *context, const struct vendor_key *key);      /* [enabled and readable] */
	void *context;
};

/* The caller deletes or frees what it gets; never NULL. */
struct cJSON *figures_stats(const struct figures_sources *f, bool cluster);
char *figures_metrics(const struct figures_sources *f);       /* text/plain; version=0.0.4; charset=utf-8 */
struct cJSON *figures_performance(const struct figures_sources *f);
struct cJSON *figures_errors(void);

#endif
