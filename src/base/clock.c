/* clock: times as text. Stateless. */
#include "base/clock.h"

#include <stdio.h>

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
