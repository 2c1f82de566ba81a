/* redis_sync: one blocking connection to Redis, for control threads (never for workers). TCP, TLS
 * (verified against the system's authorities or SSL_CERT_FILE, host name too) or a unix socket;
 * AUTH, SELECT. It connects when it is first used and again after a failure, to the first address of the host
 * that takes it (base/addresses.h). Each wait for Redis (connect to an address, handshake, one read) is bounded by
 * the deadline. One thread at a time.
 *
 * Replies are hiredis' (freeReplyObject); REDIS_REPLY_ERROR replies are returned as they are. NULL:
 * the connection failed and is closed; redis_sync_error() says why. */
#ifndef APIPROXY_STATE_REDIS_SYNC_H
#define APIPROXY_STATE_REDIS_SYNC_H

#include <stdbool.h>
#include <stddef.h>

struct redis_address; /* state/redis_url.h */
struct redis_sync;
struct redisReply;

/* The address is borrowed and must outlive the connection. */
struct redis_sync *redis_sync_new(const struct redis_address *address, unsigned deadline_ms);
void redis_sync_free(struct redis_sync *r); /* NULL is fine */

void redis_sync_set_deadline(struct redis_sync *r, unsigned deadline_ms);
bool redis_sync_connect(struct redis_sync *r); /* true at once where a live connection is there */
void redis_sync_close(struct redis_sync *r);
int redis_sync_fd(const struct redis_sync *r); /* -1: not connected */
const char *redis_sync_error(const struct redis_sync *r); /* of the last failure */

/* Connects if needed, sends, waits for the reply. hiredis' format: %s, %b. */
struct redisReply *redis_sync_command(struct redis_sync *r, const char *format, ...);

/* Pipelines and transactions: never connect by themselves, so that a WATCH is not lost unseen. */
bool redis_sync_append(struct redis_sync *r, const char *format, ...);
bool redis_sync_append_argv(struct redis_sync *r, int count, const char **arguments, const size_t *lengths);
struct redisReply *redis_sync_read(struct redis_sync *r);
struct redisReply *redis_sync_read_buffered(struct redis_sync *r); /* what has arrived, no wait; NULL: no reply yet, or failed (fd is -1) */

#endif
