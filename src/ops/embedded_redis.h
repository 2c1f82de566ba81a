/* embedded_redis: a private redis-server child, for when redis.url is empty.
 *
 * Unix socket in a 0700 directory (data_dir/redis; where that path is too long for a socket
 * address, a private directory below $XDG_RUNTIME_DIR or /tmp), no TCP port, append-only file in
 * data_dir/redis, log in data_dir/redis/redis.log. Its own thread starts it, watches it, starts it
 * again when it dies (at once, then with growing pauses up to 5 s) or has not answered for 10 s (where
 * a descriptor lacks to ask it, it is left alone), and the kernel ends it with this process, however that dies. data_dir/lock keeps a second apiproxy out of the directory.
 * Errors are logged; one of a running child goes to the journal. */
#ifndef APIPROXY_OPS_EMBEDDED_REDIS_H
#define APIPROXY_OPS_EMBEDDED_REDIS_H

#include <stdbool.h>

struct settings;
struct embedded_redis;

/* Waits until it answers PING (at most 10 s; while it loads its data, up to 60 s). NULL: logged. */
struct embedded_redis *embedded_redis_start(const struct settings *s) __attribute__((warn_unused_result));
const char *embedded_redis_url(const struct embedded_redis *r); /* unix:///… , the same for its whole life */
int embedded_redis_pid(const struct embedded_redis *r);         /* 0 while it is being restarted */
/* Ends it cleanly (data on disk) and waits; gives the lock back. NULL is fine. */
void embedded_redis_stop(struct embedded_redis *r);

#endif
