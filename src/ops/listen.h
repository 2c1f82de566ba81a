/* listen: sockets that clients connect to. */
#ifndef APIPROXY_OPS_LISTEN_H
#define APIPROXY_OPS_LISTEN_H

#include <stdbool.h>

/* Opens `count` sockets on one address (host:port), which share its connections (SO_REUSEPORT), and
 * fails if somebody else has it. [::] takes IPv4 as well. false: said on stderr, nothing is open.
 * fds: count descriptors, non-blocking, listening. */
bool listen_open(const char *address, int *fds, unsigned count) __attribute__((warn_unused_result));

#endif
