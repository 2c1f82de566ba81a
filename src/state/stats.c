/* stats: rings and gauges, written by one worker each, read by anyone.
 *
 * A ring's head is written by its worker, its tail by whoever drains; both only grow. Gauges live in
 * pages that all rings have for a slot before its number is given out, so a worker never allocates.
 * Everything a worker writes is its own cache lines' (relaxed, single writer); the one line it shares
 * is `sleeping`, which changes only when traffic stops and starts. Slots: stats_slots.c. */
#include "state/stats_internal.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"

_Static_assert((STATS_RING_EVENTS & (STATS_RING_EVENTS - 1)) == 0, "a ring is a power of two");
_Static_assert(sizeof(struct stats_event) == 56, "no padding is copied");

struct stats *stats_new(unsigned workers, bool enabled)
{
	struct stats *s = aligned_alloc(STATS_LINE, sizeof *s);
	CHECK(s);
	memset(s, 0, sizeof *s);
	s->enabled = enabled;
	s->ring_count = workers;
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	CHECK(s->wake_fd >= 0);
	s->rings = aligned_alloc(STATS_LINE, workers * sizeof *s->rings);
	CHECK(s->rings);
	memset(s->rings, 0, workers * sizeof *s->rings);
	for (unsigned i = 0; i < workers && enabled; i++) {
		s->rings[i].owner = s;
		s->rings[i].events = check_calloc(STATS_RING_EVENTS, sizeof *s->rings[i].events);
	}
	stats_slots_init(s);
	return s;
}

void stats_free(struct stats *s)
{
	if (!s)
		return;
	stats_slots_fini(s);
	for (unsigned i = 0; i < s->ring_count; i++) {
		free(s->rings[i].events);
		for (size_t page = 0; page < STATS_PAGES; page++)
			free(s->rings[i].pages[page]);
	}
	free(s->rings);
	close(s->wake_fd);
	free(s);
}

struct stats_ring *stats_ring(struct stats *s, unsigned worker)
{
	CHECK(worker < s->ring_count);
	return &s->rings[worker];
}

static inline void add(_Atomic int64_t *gauge, int64_t delta)
{
	int64_t value = atomic_load_explicit(gauge, memory_order_relaxed);
	atomic_store_explicit(gauge, value + delta, memory_order_relaxed);
}

static inline struct stats_gauges *gauges_of(struct stats_ring *r, uint32_t slot)
{
	CHECK(slot / STATS_PAGE_SLOTS < STATS_PAGES);
	struct stats_gauges *page = atomic_load_explicit(&r->pages[slot / STATS_PAGE_SLOTS], memory_order_acquire);
	CHECK(page);
	return &page[slot % STATS_PAGE_SLOTS];
}

void stats_wake(struct stats *s)
{
	uint64_t one = 1;
	ssize_t written = write(s->wake_fd, &one, sizeof one);
	(void)written; /* a counter at its end wakes all the same */
}

/* The rare part of recording: the ring looks half full, or the drainer sleeps. False: it is full. */
static __attribute__((noinline)) bool make_room(struct stats_ring *r, uint64_t head)
{
	r->known_tail = atomic_load_explicit(&r->tail, memory_order_acquire);
	uint64_t used = head - r->known_tail;
	if (used == STATS_RING_EVENTS / 2 || atomic_exchange_explicit(&r->owner->sleeping, false, memory_order_relaxed))
		stats_wake(r->owner);
	return used < STATS_RING_EVENTS;
}

static inline void record(struct stats_ring *r, const struct stats_event *event)
{
	uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
	bool rare = head - r->known_tail >= STATS_RING_EVENTS / 2 ||
		atomic_load_explicit(&r->owner->sleeping, memory_order_relaxed);
	if (__builtin_expect(rare, 0) && !make_room(r, head)) {
		uint64_t dropped = atomic_load_explicit(&r->dropped, memory_order_relaxed);
		atomic_store_explicit(&r->dropped, dropped + 1, memory_order_relaxed);
		return;
	}
	r->events[head % STATS_RING_EVENTS] = *event;
	atomic_store_explicit(&r->head, head + 1, memory_order_release);
}

void stats_begin(struct stats_ring *r, uint32_t slot)
{
	if (!r->events)
		return;
	add(&r->active_requests, 1);
	add(&gauges_of(r, slot)->active_requests, 1);
}

void stats_end(struct stats_ring *r, const struct stats_event *event)
{
	if (!r->events)
		return;
	add(&r->active_requests, -1);
	add(&gauges_of(r, event->slot)->active_requests, -1);
	record(r, event);
}

void stats_attempt(struct stats_ring *r, const struct stats_event *event)
{
	if (r->events)
		record(r, event);
}

void stats_connections(struct stats_ring *r, int delta)
{
	add(&r->connections, delta);
}

void stats_queue_length(struct stats_ring *r, uint32_t slot, int delta)
{
	if (r->events)
		add(&gauges_of(r, slot)->queue_length, delta);
}

static size_t drain_ring(struct stats_ring *r, void (*on_event)(void *, const struct stats_event *), void *context)
{
	uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
	uint64_t head = atomic_load_explicit(&r->head, memory_order_acquire);
	for (uint64_t at = tail; at < head; at++)
		on_event(context, &r->events[at % STATS_RING_EVENTS]);
	atomic_store_explicit(&r->tail, head, memory_order_release);
	return (size_t)(head - tail);
}

size_t stats_drain(struct stats *s, void (*on_event)(void *context, const struct stats_event *event),
	void (*on_slot_gone)(void *context, uint32_t slot), void *context)
{
	size_t drained = 0;
	/* A slot released before this line has no event that comes after the heads read below. */
	size_t gone = stats_slots_released(s);
	for (unsigned i = 0; i < s->ring_count; i++)
		drained += drain_ring(&s->rings[i], on_event, context);
	stats_slots_reclaim(s, gone, on_slot_gone, context);
	return drained;
}

static bool rings_are_empty(struct stats *s)
{
	for (unsigned i = 0; i < s->ring_count; i++)
		if (atomic_load_explicit(&s->rings[i].head, memory_order_acquire) !=
			atomic_load_explicit(&s->rings[i].tail, memory_order_relaxed))
			return false;
	return true;
}

void stats_wait(struct stats *s, int timeout_ms, bool until_first_event)
{
	struct pollfd wake = {.fd = s->wake_fd, .events = POLLIN};
	if (until_first_event)
		atomic_store(&s->sleeping, true);
	if (!until_first_event || rings_are_empty(s))
		poll(&wake, 1, timeout_ms);
	atomic_store_explicit(&s->sleeping, false, memory_order_relaxed);
	uint64_t count;
	ssize_t got = read(s->wake_fd, &count, sizeof count);
	(void)got; /* nothing to read: the time was up */
}

unsigned stats_workers(const struct stats *s)
{
	return s->ring_count;
}

bool stats_enabled(const struct stats *s)
{
	return s->enabled;
}

void stats_now_worker(const struct stats *s, unsigned worker, struct stats_now *out)
{
	CHECK(worker < s->ring_count);
	struct stats_ring *r = &s->rings[worker];
	/* Tail first: it never passes a head read later. */
	uint64_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);
	out->recorded_events = atomic_load_explicit(&r->head, memory_order_acquire);
	uint64_t waiting = out->recorded_events - tail;
	out->waiting_events = waiting < STATS_RING_EVENTS ? (uint32_t)waiting : STATS_RING_EVENTS;
	out->active_requests = atomic_load_explicit(&r->active_requests, memory_order_relaxed);
	out->connections = atomic_load_explicit(&r->connections, memory_order_relaxed);
	out->dropped_events = atomic_load_explicit(&r->dropped, memory_order_relaxed);
}

void stats_now_all(const struct stats *s, struct stats_now *out)
{
	memset(out, 0, sizeof *out);
	for (unsigned i = 0; i < s->ring_count; i++) {
		struct stats_now one;
		stats_now_worker(s, i, &one);
		out->active_requests += one.active_requests;
		out->connections += one.connections;
		out->dropped_events += one.dropped_events;
		out->recorded_events += one.recorded_events;
		out->waiting_events += one.waiting_events;
	}
}

void stats_now_slot(const struct stats *s, uint32_t slot, int64_t *active_requests, int64_t *queue_length)
{
	*active_requests = *queue_length = 0;
	for (unsigned i = 0; i < s->ring_count && s->enabled; i++) {
		struct stats_gauges *g = gauges_of(&s->rings[i], slot);
		*active_requests += atomic_load_explicit(&g->active_requests, memory_order_relaxed);
		*queue_length += atomic_load_explicit(&g->queue_length, memory_order_relaxed);
	}
}
