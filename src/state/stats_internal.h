/* stats_internal: what stats.c (rings, gauges) and stats_slots.c (names) share; nobody else's. */
#ifndef APIPROXY_STATE_STATS_INTERNAL_H
#define APIPROXY_STATE_STATS_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "state/stats.h"

enum { STATS_LINE = 64, STATS_PAGE_SLOTS = 256, STATS_PAGES = 256 };

struct stats_gauges { /* written by one worker */
	_Atomic int64_t active_requests;
	_Atomic int64_t queue_length;
};

struct stats_ring {
	/* The worker's lines. */
	_Alignas(STATS_LINE) _Atomic uint64_t head;
	uint64_t known_tail;        /* the tail when last looked at */
	struct stats_event *events; /* NULL: statistics are off */
	struct stats *owner;
	_Atomic uint64_t dropped;
	_Atomic int64_t active_requests;
	_Atomic int64_t connections;
	/* The drainer's line. */
	_Alignas(STATS_LINE) _Atomic uint64_t tail;
	/* Read by both, written when a page is added. */
	_Alignas(STATS_LINE) struct stats_gauges *_Atomic pages[STATS_PAGES];
};

struct stats_slot {
	char *name; /* NULL: the number is free */
	char *name2;
	enum stats_slot_kind kind;
	unsigned holders;
	bool released;       /* listed in released[] */
	bool released_again; /* held and released once more since stats_slots_released() */
	uint32_t next; /* in its bucket, 0 ends */
};

struct stats_slots { /* all under lock */
	pthread_mutex_t lock;
	struct stats_slot *slots; /* [0] is STATS_NO_SLOT */
	uint32_t count;           /* numbers ever given out, and 0 */
	uint32_t capacity;
	uint32_t *buckets;
	uint32_t bucket_count;    /* a power of two */
	uint32_t *released;       /* had no holder at some time since the last reclaim, in order */
	size_t released_count, released_capacity;
	uint32_t *unused;         /* free numbers */
	size_t unused_count, unused_capacity;
	bool full_was_said;
};

struct stats {
	bool enabled;
	unsigned ring_count;
	int wake_fd;
	_Alignas(STATS_LINE) _Atomic bool sleeping; /* whoever drains wants to hear of the next event */
	_Alignas(STATS_LINE) struct stats_ring *rings;
	struct stats_slots slots;
};

void stats_slots_init(struct stats *s);
void stats_slots_fini(struct stats *s);
size_t stats_slots_released(struct stats *s); /* how many; before the rings are drained */
/* After that: frees those of the first `count` that nobody held meanwhile. */
void stats_slots_reclaim(struct stats *s, size_t count, void (*on_slot_gone)(void *, uint32_t), void *context);

#endif
