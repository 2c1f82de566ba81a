/* stats_store: the figures that live in Redis.
 *
 *   apiproxy:stats:totals:NODE         hash, what this node ever counted; 400 days after its last life it goes
 *   apiproxy:stats:totals:cluster      hash, what all nodes ever counted
 *   apiproxy:stats:flushed:NODE:LIFE   number of the last flush of one life of a node; a day
 *   apiproxy:stats:node:NODE           JSON, a node's last 60 s (state/stats_report); 10 s
 *   apiproxy:stats:nodes               sorted set, node by the Unix second of its last flush; gone after 15 s
 *
 * A flush adds differences and is numbered: one whose answer was lost is sent again with the same
 * number and counts once. Where Redis lost what it had, the node adds what it knows again.
 * Thread safe. A call that asks Redis waits at most 250 ms for each answer; base and has_peers
 * never wait. */
#ifndef APIPROXY_STATE_STATS_STORE_H
#define APIPROXY_STATE_STATS_STORE_H

#include <stdbool.h>

struct redis_address;
struct stats_counts;
struct stats_report;
struct stats_store;

/* address must outlive the store; node is copied. Does not connect yet. shared: other nodes may use
 * the same Redis (not so with the embedded one, which is spared the news of a quiet node). */
struct stats_store *stats_store_new(const struct redis_address *address, const char *node, bool shared);
void stats_store_free(struct stats_store *store);

/* since_start: all that was counted in this life. False: Redis did not answer; nothing is lost. */
bool stats_store_flush(struct stats_store *store, const struct stats_counts *since_start) __attribute__((warn_unused_result));
/* What Redis had of this node before this life: to be added to since_start. Zero until a flush worked. */
void stats_store_base(struct stats_store *store, struct stats_counts *base);

bool stats_store_has_peers(struct stats_store *store); /* other nodes are there: publish */
bool stats_store_publish(struct stats_store *store, const struct stats_report *report) __attribute__((warn_unused_result));
/* Flushes, adds the last reports of all other nodes, and sets totals (of this life before) to those of
 * the cluster. False: Redis did not answer; report may have some nodes only. */
bool stats_store_merge_cluster(struct stats_store *store, struct stats_report *report) __attribute__((warn_unused_result));

#endif
