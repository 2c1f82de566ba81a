/* listen: sockets that clients connect to. */
#ifndef APIPROXY_OPS_LISTEN_H
#define APIPROXY_OPS_LISTEN_H

#include <stdbool.h>

struct addrinfo;

/* Opens `count` sockets on one address (host:port), which share its connections (SO_REUSEPORT), and
 * fails if somebody else has it. [::] takes IPv4 as well; of a name with several addresses it is the first IPv4
 * one, or the first where there is none. false: said on stderr, nothing is open.
 * fds: count descriptors, non-blocking, listening. */
bool listen_open(const char *address, int *fds, unsigned count) __attribute__((warn_unused_result));

/* Which of those that getaddrinfo(3) found it takes. */
const struct addrinfo *listen_preferred(const struct addrinfo *found);

#endif
