/* journal: the last 100 things that went wrong, for /errors. Thread safe; keeps no secret: callers
 * never pass one. A message that is among them is counted, not repeated. Also writes the log line, of each
 * message once a minute at most. */
#ifndef APIPROXY_STATE_JOURNAL_H
#define APIPROXY_STATE_JOURNAL_H

struct cJSON;

/* source: a module's name ("config", "redis", "upstream", "acme", …). */
void journal_add(const char *source, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* {"errors":[{"at":RFC3339,"source":…,"message":…,"count":N}],"count":N}, that of the last time first. Caller deletes. */
struct cJSON *journal_to_json(void);

#endif
