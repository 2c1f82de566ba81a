/* clock: what time it is. Any thread. Signed, so that a difference may be negative.
 * Unix time may jump; monotonic time never goes back, and counts from an arbitrary moment.
 *
 * Shared time is Unix time that all nodes agree on: by Redis' clock once that has been heard, on the monotonic
 * clock in between; before, and without Redis, the machine's own. What one node says and another reads
 * goes by it: ends of tokens and clients, times in figures. So a machine whose clock is wrong, or is set
 * while it runs, changes nothing. Log, journal and Date fields go by the machine's own clock. */
#ifndef APIPROXY_BASE_CLOCK_H
#define APIPROXY_BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

static inline int64_t clock_read_us(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static inline int64_t clock_unix_ms(void)
{
	return clock_read_us(CLOCK_REALTIME) / 1000;
}

static inline int64_t clock_monotonic_us(void)
{
	return clock_read_us(CLOCK_MONOTONIC);
}

static inline int64_t clock_monotonic_ms(void)
{
	return clock_monotonic_us() / 1000;
}

int64_t clock_shared_ms(void);

/* Redis said unix_us at some moment between these two monotonic ones. One caller at a time. */
void clock_hear(int64_t unix_us, int64_t asked_us, int64_t heard_us);

enum { CLOCK_TEXT_BYTES = 40 };

/* RFC 3339 in UTC: "2026-01-02T03:04:05.678Z", or whole seconds. false, and an empty text: not in the
 * years 1970 to 9999. */
bool clock_format(char out[CLOCK_TEXT_BYTES], int64_t unix_ms, bool with_ms);

#endif
