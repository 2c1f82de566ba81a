/* clock: times as text, and the shared time: one number, what it is ahead of the monotonic clock. */
#include "base/clock.h"

#include <stdatomic.h>
#include <stdio.h>

enum { DRIFT_US = 1000 }; /* less than this is not worth a step */

static _Atomic int64_t ahead_us; /* 0: not heard yet */

int64_t clock_shared_ms(void)
{
	int64_t ahead = atomic_load_explicit(&ahead_us, memory_order_relaxed);
	return ahead ? (ahead + clock_monotonic_us()) / 1000 : clock_unix_ms();
}

/* What is known stays as long as the answer agrees with it: one that was slow, or waited for, moves nothing. */
void clock_hear(int64_t unix_us, int64_t asked_us, int64_t heard_us)
{
	int64_t known = atomic_load_explicit(&ahead_us, memory_order_relaxed);
	int64_t least = unix_us - heard_us, most = unix_us - asked_us;
	if (!known || known < least - DRIFT_US || known > most + DRIFT_US)
		atomic_store_explicit(&ahead_us, least + (most - least) / 2, memory_order_relaxed);
}

bool clock_format(char out[CLOCK_TEXT_BYTES], int64_t unix_ms, bool with_ms)
{
	time_t seconds = (time_t)(unix_ms / 1000);
	struct tm utc;
	out[0] = 0;
	if (unix_ms < 0 || !gmtime_r(&seconds, &utc) || utc.tm_year > 9999 - 1900)
		return false;
	size_t length = strftime(out, CLOCK_TEXT_BYTES, "%Y-%m-%dT%H:%M:%SZ", &utc);
	if (with_ms)
		snprintf(out + length - 1, CLOCK_TEXT_BYTES - length, ".%03dZ", (int)(unix_ms % 1000));
	return true;
}
