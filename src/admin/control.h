/* control: the control plane, everything that apiproxy answers itself: pages, REST API, login, figures.
 *
 * It never listens. The data plane forwards a request for a reserved path over a socketpair that
 * control_connect() makes, in HTTP/1.1, keep-alive, one request at a time, as to any upstream.
 * What arrives there has valid HTTP syntax and a path without dot segments; the request target is
 * passed on as the client sent it (origin form, percent-escapes kept), and so are method, fields
 * and body, but for two fields (path/plane.h) that the data plane alone sets, after it took away any of the client:
 *
 *     x-apiproxy-peer: 192.0.2.7            the client's address
 *     x-apiproxy-listener: main|ops         where it came in; absent counts as main
 *
 * Threads: one of libmicrohttpd's, which never blocks, and a few that do (Redis, password hashes).
 * A body that is longer than its row allows is 413; of a request without the right to ask nothing is kept at all. */
#ifndef APIPROXY_ADMIN_CONTROL_H
#define APIPROXY_ADMIN_CONTROL_H

#include "admin/admin.h"

struct control;

/* Starts the threads. setup is copied; what it points to must live until control_stop() returned.
 * NULL with a log line where libmicrohttpd cannot start. */
struct control *control_start(const struct admin_setup *setup) __attribute__((warn_unused_result));

/* The data plane's end of a new connection (AF_UNIX, stream, non-blocking, close-on-exec), which the
 * caller owns; -1 with errno. Any thread; does not block. */
int control_connect(struct control *c) __attribute__((warn_unused_result));

/* From now on /health is 503 {"status":"draining"}. Any thread. */
void control_set_draining(struct control *c);

/* Ends the threads that change anything: what runs in them ends, what waits and what still comes is 503 draining.
 * Workers and what setup points to must still be there. NULL and twice are fine. */
void control_finish(struct control *c);

/* Ends the connections too, and the rest. No worker may connect any more. NULL is fine. */
void control_stop(struct control *c);

#endif
