/* admission_health: what an attempt's outcome does to its vendor key. One table, used here where
 * Redis is away and, written out for Lua, by the scripts (admission_health.lua).
 *
 *   state: OK; COOLING until; TRIAL: its cooling is over and one request is out to see. OWN is not a state but
 *   TRIAL for that one request's outcome; the others' began before the cooling.
 *   actions: clear  it is well: nothing is remembered
 *            count  one failure more; the third in a row cools for 10 s
 *            longer the trial failed: twice the last pause, 10 s to 300 s
 *            cool   for the vendor's retry-after, 30 s without one; never shorter than it cools already
 *            reject for 300 s
 *            again  the trial said nothing: the next request is the trial */
#ifndef APIPROXY_PATH_ADMISSION_HEALTH_H
#define APIPROXY_PATH_ADMISSION_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "path/admission.h"

/*        state    nothing success throttled rejected failed */
#define ADMISSION_HEALTH_TABLE(X) \
	X(OK,      none,  clear,  cool,     reject,  count) \
	X(COOLING, none,  none,   cool,     reject,  none) \
	X(TRIAL,   none,  none,   cool,     reject,  none) \
	X(OWN,     again, clear,  cool,     reject,  longer)

struct admission_health {
	enum admission_key_state state;
	int64_t until_ms;   /* of a cooling; of a trial: then another may begin. Also the trial's name */
	unsigned failures;  /* in a row */
	int64_t pause_ms;   /* the last one after failures */
	unsigned status;    /* the reason; 0: connection failure */
};

/* trial: the name of the trial that the attempt was, 0: none. retry_after_ms 0: not said. */
void admission_health_apply(struct admission_health *h, int64_t now_ms, enum admission_outcome outcome, unsigned status,
	int64_t retry_after_ms, int64_t trial);

/* Whether a request may use the key now; *trial: it would be the trial. */
bool admission_health_usable(const struct admission_health *h, int64_t now_ms, bool *trial);
int64_t admission_health_begin_trial(struct admission_health *h, int64_t now_ms); /* its name */

const char *admission_health_lua(void); /* local HEALTH_TABLE = … */

#endif
