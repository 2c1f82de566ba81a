/* admission: may this request go now, and with which vendor key.
 *
 * Order: concurrency, the three windows, the mapping's queue, the vendor key. One script call in
 * Redis decides all of it by Redis' own clock; a request that is refused at one stage has taken
 * nothing at the others. One write at the end, not waited for, gives back and settles.
 * Where Redis fails (250 ms without an answer, or down): settings' on_redis_failure: `local` decides with windows of this
 * node, which also know what this node did while Redis was there, and which go on being asked for
 * a minute after it is back; `allow`; `deny` (503).
 *
 * Threads: struct admission_node is the process' and thread safe; struct admission and its requests
 * belong to one worker's loop. Units: milliseconds; tokens.
 *
 * Keys in Redis, K = c (client) or u (user), each expires by itself:
 *   apiproxy:limit:{ID}:K          the windows' state, places taken (max_concurrency), the day's figures: one
 *                                  string (admission_window.lua), 32 days
 *   apiproxy:limit:{ID}:K:e        the windows' events, a list, two minutes
 *   apiproxy:usage:{ID}:K          the days before, a hash: days since 1970 -> requests, input, output; 30 days
 *   apiproxy:limit:{PREFIX}:q      start times handed out by a queue, a list; :q:w waiting; :q:f given back;
 *                                  :q:r the rule that they are by, 32 days
 *   apiproxy:given-back            channel: somebody may start sooner; payload: the mapping's prefix
 *   apiproxy:limit:{POOL}:k:ID:MARK  window and health of a vendor key with one secret (none: no limit and well); :e its events
 * What one stage needs shares one hash tag; a call that needs several stages names several tags, which a
 * single Redis serves in one call (a Redis Cluster would want the stages' parts called one by one).
 *
 * Memory in Redis: a window holds at most 10,000 events and then one more per 100 ms of 60 s: 10,600
 * entries of 24 bytes (265 KB), whatever its limit; 264 bytes where it holds two or fewer.
 *
 * A queue lets floor(rate_per_second) start in any second, below one a second one in 1/rate. A first
 * burst may start together, those that wait start evenly apart; more than the rate in a second never. It
 * counts 50 ms more than a second, for what the way to the vendor adds. */
#ifndef APIPROXY_PATH_ADMISSION_H
#define APIPROXY_PATH_ADMISSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "state/problem.h"
#include "state/snapshot.h"

struct cJSON;
struct redis_address; /* state/redis_url.h */
struct redis_sync;    /* state/redis_sync.h */
struct admission;
struct admission_node;

enum admission_failure_policy { ADMISSION_LOCAL, ADMISSION_ALLOW, ADMISSION_DENY }; /* as settings_on_redis_failure */

struct admission_node *admission_node_new(const struct redis_address *redis, enum admission_failure_policy policy);
void admission_node_free(struct admission_node *node); /* after all of its admissions */

/* false: the connection of one of its workers has failed, and limits there follow the policy. Any thread. */
bool admission_node_redis_is_up(const struct admission_node *node);

#define ADMISSION_GIVEN_BACK "apiproxy:given-back"
/* A message on that channel came: starts of this mapping's queue (NULL: of any) were given back, and whoever waits here for later
 * ones comes forward. Any thread. */
void admission_node_given_back(struct admission_node *node, const char *prefix);

/* One per worker. Starts to connect; host names are resolved on another thread. */
struct admission *admission_new(struct admission_node *node, struct loop *l);
void admission_free(struct admission *a); /* requests must be settled or cancelled before */

/* The worker's requests have a new snapshot from now on (a reference is taken): those that wait in a queue whose rule is
 * another now get new starts, in their order; where there is no queue any more, they start. */
void admission_take_snapshot(struct admission *a, struct snapshot *snapshot);

enum admission_window { ADMISSION_REQUESTS, ADMISSION_INPUT_TOKENS, ADMISSION_OUTPUT_TOKENS, ADMISSION_WINDOWS };

struct admission_figure {   /* for x-apiproxy-{limit,remaining,reset}-… */
	uint64_t limit;         /* 0: no limit, no header */
	uint64_t remaining;
	uint64_t reset_ms;      /* until the window is empty again */
};

/* What an attempt says about the vendor key it used. */
enum admission_outcome {
	ADMISSION_NOTHING,      /* other 4xx; the client hung up; nothing was sent */
	ADMISSION_SUCCESS,      /* 1xx, 2xx, 3xx */
	ADMISSION_THROTTLED,    /* 429, 503: cools for its retry-after, else 30 s */
	ADMISSION_REJECTED,     /* 401, 403: cools 300 s */
	ADMISSION_FAILED,       /* 500, 502, 504, 529, no answer: three in a row cool */
};
enum admission_outcome admission_outcome_of_status(unsigned status); /* 0: connection failure */

struct admission_ticket;

/* Embedded in the exchange. Zero it, fill the first part, admission_start(). Mapping and subject are
 * the snapshot's, of which a reference is held until all is settled. What is put in later changes which vendor
 * keys are chosen from: not the subject, by whose limits it came in. */
struct admission_request {
	struct snapshot *snapshot;
	const struct mapping *mapping;
	const struct subject *subject;  /* NULL: mapping without auth */
	uint64_t input_tokens;          /* the estimate */
	uint64_t output_tokens;         /* the request's own maximum, else the mapping's reserve */
	/* Called once per admission_start() or admission_next_key() that returned false, from the
	 * loop, never from inside a call of this module. Note it and wake. */
	void (*on_decided)(struct admission_request *rq);
	void (*on_waiting)(struct admission_request *rq); /* it is in the queue now; NULL is fine */
	/* Its turn in the queue has come: is what was true at its arrival still so? The owner may put snapshot and mapping
	 * of now in. PROBLEM_NONE: it goes on; else it is refused and the next one has the start. From inside this module,
	 * of which nothing is to be called. NULL is fine. */
	enum problem_id (*on_turn)(struct admission_request *rq);

	/* the decision */
	enum problem_id problem;        /* PROBLEM_NONE: admitted */
	uint64_t retry_after_ms;        /* 0: not known; answer with whole seconds, rounded up */
	struct admission_figure figures[ADMISSION_WINDOWS];
	const struct vendor_key *key;   /* NULL: none is put in */
	uint64_t waited_ms;             /* in the queue */
	bool queued;

	struct admission_ticket *ticket; /* private */
};

/* true: decided at once, on_decided is not called. */
bool admission_start(struct admission *a, struct admission_request *rq) __attribute__((warn_unused_result));

/* The client hung up or the mapping's time is over before the decision: place, slot and reservations
 * are given back. on_decided is not called any more. After admission use admission_settle(). */
void admission_cancel(struct admission_request *rq);

/* Early word on an admitted request's key, when the head of the answer is there: a trial that
 * succeeds ends at once. retry_after_ms 0: the vendor said nothing. status 0: connection failure. */
void admission_report(struct admission_request *rq, enum admission_outcome outcome, unsigned status, uint64_t retry_after_ms);

/* Reports as above and asks for a key not tried yet, of the pool of rq->mapping, for which the owner may have put
 * in the one of now with its snapshot. Then problem/key/retry_after_ms hold the new
 * decision; with a problem, all keys were tried or none is usable: the request is still to be settled. */
bool admission_next_key(struct admission_request *rq, enum admission_outcome outcome, unsigned status,
	uint64_t retry_after_ms) __attribute__((warn_unused_result));

struct admission_result {
	bool sent;              /* false: nothing reached a vendor: all is given back, nothing counted */
	bool tokens_known;      /* false: the reservations stand as they are */
	uint64_t input_tokens;
	uint64_t output_tokens;
	enum admission_outcome outcome; /* of the last attempt, where not reported before */
	unsigned status;
	uint64_t retry_after_ms;
};

/* The end of an admitted request (also after a failed next_key). Does not wait. */
void admission_settle(struct admission_request *rq, const struct admission_result *result);

/* ---- for the control plane: any thread, blocking, on the caller's connection ---- */

/* {"current":{"requests","input_tokens","output_tokens"},"days":[{"date":"YYYY-MM-DD","requests",
 * "input_tokens","output_tokens"} x 30, the newest first]}; NULL: Redis failed. Caller deletes. */
struct cJSON *admission_usage_json(struct redis_sync *redis, const struct subject *subject);

enum admission_key_state { ADMISSION_KEY_OK, ADMISSION_KEY_COOLING, ADMISSION_KEY_TRIAL };
struct admission_key_health {
	enum admission_key_state state; /* a cooling that is over: TRIAL, the next request is it */
	bool usable;            /* by a request that came now */
	int64_t until_ms;       /* Unix time, to come; 0: none */
	char reason[32];        /* "status 429", "connection failure"; "" where well */
};
/* Of count keys, in as many round trips as there are thousands of them. false: Redis failed. */
bool admission_key_health(struct redis_sync *redis, const struct vendor_key *keys, size_t count,
	struct admission_key_health *healths) __attribute__((warn_unused_result));
bool admission_key_reset(struct redis_sync *redis, const struct vendor_key *key) __attribute__((warn_unused_result));
/* What this node knows of the key, besides. Any thread. */
void admission_node_forget_key(struct admission_node *node, const struct vendor_key *key);

#endif
