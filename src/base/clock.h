/* clock: what time it is. Any thread. Signed, so that a difference may be negative.
 * Unix time may jump; monotonic time never goes back, and counts from an arbitrary moment. */
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

enum { CLOCK_TEXT_BYTES = 40 };

/* RFC 3339 in UTC: "2026-01-02T03:04:05.678Z", or whole seconds. false, and an empty text: not in the
 * years 1970 to 9999. */
bool clock_format(char out[CLOCK_TEXT_BYTES], int64_t unix_ms, bool with_ms);

#endif
