/* admission_window: the sliding windows of admission_window.lua in this process' memory, for when
 * Redis is away: same events, same sums, same merging. Times are the caller's, in milliseconds; pure, no lock.
 * Memory: at most 10,600 events of 32 bytes; out of it, an event is merged with the last one (the
 * safe side). */
#ifndef APIPROXY_PATH_ADMISSION_WINDOW_H
#define APIPROXY_PATH_ADMISSION_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ADMISSION_SPAN_MS = 60000, ADMISSION_FULL = 10000, ADMISSION_STEP_MS = 100 };

struct admission_event {
	uint64_t at_ms;
	int64_t amounts[3]; /* requests, input tokens, output tokens */
};

struct admission_events { /* zeroed memory is an empty one */
	struct admission_event *ring;
	size_t capacity;         /* a power of two */
	uint64_t first, next;    /* numbers; length is next - first */
	uint64_t last_began_ms;
	int64_t sums[3];
};

void admission_events_fini(struct admission_events *w);
void admission_events_expire(struct admission_events *w, uint64_t now_ms);
uint64_t admission_events_add(struct admission_events *w, uint64_t at_ms, const int64_t amounts[3]); /* its number, from 1 */
bool admission_events_have(const struct admission_events *w, uint64_t number); /* it counts still */
void admission_events_adjust(struct admission_events *w, uint64_t number, const int64_t changes[3]); /* gone: nothing */

/* The time from which `missing` (those > 0) is free, if nothing is added. */
uint64_t admission_events_room_at(const struct admission_events *w, const int64_t missing[3]);
/* How long until then: never more than the span, which the windows in Redis never say either. Where the event that it
 * waits for is of this very millisecond, the one that is missing passes while the answer is on its way. */
uint64_t admission_events_wait_ms(const struct admission_events *w, const int64_t missing[3], uint64_t now_ms);
uint64_t admission_events_last_ms(const struct admission_events *w); /* 0: empty */

#endif
