/* stats: what happened, counted.
 *
 * Each worker owns one single-producer single-consumer ring of fixed-size events; the flusher
 * thread drains all rings into aggregates. Recording is a copy and a release store: no lock, no
 * allocation, no system call. A full ring drops the event and counts it.
 * A slot is the small number under which a mapping or a vendor key is counted: acquired by the
 * snapshot builder (acquire for the new snapshot before the old one is released), stable as long as
 * any snapshot holds it. Whoever still holds a snapshot may record under its slots; after the last
 * release a number is given out again only when the rings were drained. A slot that cannot be had is
 * STATS_NO_SLOT: recorded in the totals alone. */
#ifndef APIPROXY_STATE_STATS_H
#define APIPROXY_STATE_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum stats_slot_kind { STATS_MAPPING, STATS_KEY };
enum { STATS_NO_SLOT = 0 };

enum stats_event_kind {
	STATS_REQUEST = 1, /* a request that matched a mapping has ended */
	STATS_ATTEMPT,     /* one try with a vendor key has ended: slot = the key's, status (0: no answer) */
};

enum stats_flags {
	STATS_BROKEN_OFF = 1,       /* the answer ended before its end */
	STATS_CLIENT_GONE = 2,      /* the client hung up first: not an error of ours */
	STATS_INPUT_ESTIMATED = 4,  /* the vendor did not say input_tokens */
	STATS_QUEUED = 8,           /* queue_wait_us counts, 0 too */
	STATS_OUTPUT_ESTIMATED = 16,
};

struct stats_event {
	uint8_t kind;
	uint8_t flags;
	uint16_t status;         /* what the client got; 0: nothing */
	uint16_t problem;        /* enum problem_id (state/problem.h) where apiproxy made the answer, else 0 */
	uint16_t reserved;
	uint32_t slot;
	uint32_t first_byte_us;  /* head read -> first byte of the answer sent; 0: none */
	uint32_t overhead_us;    /* spent in apiproxy itself: 0 allowed */
	uint32_t queue_wait_us;
	uint64_t duration_us;
	uint64_t bytes_in;       /* body bytes from the client */
	uint64_t bytes_out;      /* body bytes to the client */
	uint32_t input_tokens;
	uint32_t output_tokens;
};

struct stats;
struct stats_ring;

/* enabled false (stats.enabled=off): nothing is recorded, no slot is given out. Dies if out of memory. */
struct stats *stats_new(unsigned workers, bool enabled);
void stats_free(struct stats *s);
struct stats_ring *stats_ring(struct stats *s, unsigned worker);

/* By the ring's worker alone. */
void stats_begin(struct stats_ring *r, uint32_t slot);                       /* active_requests + 1 */
void stats_end(struct stats_ring *r, const struct stats_event *event);       /* STATS_REQUEST: active - 1; records */
void stats_attempt(struct stats_ring *r, const struct stats_event *event);   /* STATS_ATTEMPT: records */
void stats_connections(struct stats_ring *r, int delta);                     /* client connections, open */
void stats_queue_length(struct stats_ring *r, uint32_t slot, int delta);     /* waiting in a mapping's queue */

/* Any thread. name2 is a key's pool, NULL for a mapping. */
/* Each acquire of the same name counts one more holder and returns the same slot. */
uint32_t stats_slot_acquire(struct stats *s, enum stats_slot_kind kind, const char *name, const char *name2);
void stats_slot_release(struct stats *s, uint32_t slot); /* STATS_NO_SLOT is fine */

/* By the one who drains (state/stats_aggregate), one at a time. Names of slots live until the next
 * stats_drain(). */
enum { STATS_RING_EVENTS = 8192 };
size_t stats_drain(struct stats *s, void (*on_event)(void *context, const struct stats_event *event),
		   void (*on_slot_gone)(void *context, uint32_t slot), void *context);
uint32_t stats_slot_count(struct stats *s); /* slots are below it */
bool stats_slot_name(struct stats *s, uint32_t slot, enum stats_slot_kind *kind, const char **name, const char **name2);

/* Sleeps until timeout_ms have passed, a ring is half full, or stats_wake() was called; with
 * until_first_event also when anything is recorded. One thread. */
void stats_wait(struct stats *s, int timeout_ms, bool until_first_event);
void stats_wake(struct stats *s); /* any thread */

/* What is going on now. Any thread. */
struct stats_now {
	int64_t active_requests;
	int64_t connections;
	uint64_t dropped_events; /* since the start */
	uint64_t recorded_events;
	uint32_t waiting_events; /* in the ring, not drained yet */
};
unsigned stats_workers(const struct stats *s);
bool stats_enabled(const struct stats *s);
void stats_now_worker(const struct stats *s, unsigned worker, struct stats_now *out);
void stats_now_all(const struct stats *s, struct stats_now *out);
void stats_now_slot(const struct stats *s, uint32_t slot, int64_t *active_requests, int64_t *queue_length);

#endif
